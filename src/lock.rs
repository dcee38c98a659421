//! One run at a time for each log (`flock`), one restart at a time for each server (`fcntl`).

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{File, Permissions};
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use file_lock::{FileLock, FileOptions};
use nix::libc;
use procfs::{FromBufRead, LockType, Locks};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::proc::process::{Proc, means_gone};
use crate::state::{self, file};
use crate::sys::files::Directory;
use crate::sys::{account, bounded, ffi};
use crate::text::errno_text;

/// Largest number of attempts to take a run lock whose file keeps being replaced.
const MOST_TRIES: u32 = 10;
/// Delay before the next attempt where the holder has ended, or cannot be found.
const RETRY_DELAY: Duration = Duration::from_millis(5);
/// Time limit of reading a process's descriptors: it can have very many.
const DESCRIPTORS_TIMEOUT: Duration = Duration::from_millis(200);
/// Read limit of what the kernel says of a descriptor, in bytes: an epoll(7) can have very many targets.
const LONGEST_FDINFO: u64 = 4 << 10;
/// Who holds which lock (`proc_locks(5)`).
const LOCKS: &str = "/proc/locks";
/// Time limit of reading that.
const LOCKS_TIMEOUT: Duration = Duration::from_millis(200);
/// The most that is kept of it, in bytes.
const LONGEST_LINES: usize = 64 << 10;
/// Largest number of listed holders that are examined. Whoever waits for the lock is listed too.
const MOST_HOLDERS: usize = 10;
/// Largest number of ancestors that are examined.
const MOST_ANCESTORS: usize = 64;
/// Restart locks that threads of this process hold. A record lock excludes other processes only.
static RESERVED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
/// How far the clock of file times can lag behind (`time(7)`, jiffies at 100 Hz).
const CLOCK_TICK: Duration = Duration::from_millis(10);
/// Time limit of opening the restart lock, and of each change of its file.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// The run lock: one run at a time for each log. Dropping it releases the lock.
#[derive(Debug)]
pub(crate) struct RunLock {
    /// None if an ancestor holds the lock: then it is not released here.
    held: Option<File>,
}

/// Result of taking the run lock.
#[derive(Debug)]
pub(crate) enum Taken {
    /// It is ours.
    Ours(RunLock),
    /// Another process has it.
    Busy {
        /// Its PID, if the kernel or the file names it.
        pid: Option<i32>,
        /// How long it has held the lock, if that is known.
        since: Option<Duration>,
    },
    /// A process that is no run of root's or ours has it, or can have it: this lock means nothing.
    Theirs {
        /// Who holds it, as a sentence.
        holder: String,
    },
}

impl RunLock {
    /// Whoever can open the file can hold the lock, so only its owner can.
    pub(crate) const MODE: u32 = 0o600;

    /// `.<stem>.lock` beside the log, as the Python monitor has it.
    pub(crate) fn path(logfile: &Path) -> PathBuf {
        let mut name = OsString::from(".");
        name.push(logfile.file_stem().unwrap_or_default());
        name.push(".lock");
        logfile.with_file_name(name)
    }

    /// Takes the lock without waiting for another run, then writes our PID into the file. A lock of an ancestor counts
    /// as ours: we inherited its descriptor (`flock LOCK monitor`), or the ancestor holds it (`flock -o
    /// LOCK monitor`).
    ///
    /// # Errors
    /// The file cannot be opened safely (`Directory::read_and_write`) or locked.
    pub(crate) fn take(directory: &Directory, name: &OsStr) -> io::Result<Taken> {
        for attempt in 1..=MOST_TRIES {
            let file = directory.read_and_write(name, Self::MODE)?;
            make_private(&file)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {
                    // An administrator may remove the file. A lock on a removed file excludes nobody.
                    if directory.leads_to(name, &file) {
                        // On a full disk the PID is missing; the lock holds nevertheless.
                        let _ = write_pid(&file, std::process::id());
                        return Ok(Taken::Ours(Self { held: Some(file) }));
                    }
                }
                Err(Errno::WOULDBLOCK) => match resolve(&file)? {
                    // Perhaps it was a run that has just ended.
                    Holder::Hidden { .. } if attempt < MOST_TRIES => {
                        std::thread::sleep(RETRY_DELAY);
                    }
                    holder => return Ok(holder.into()),
                },
                Err(reason) => return Err(reason.into()),
            }
        }
        Err(io::Error::other("the lock file keeps being replaced"))
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        if let Some(file) = &self.held {
            // A dead file server refuses. Then the lock ends with the process.
            let _ = flock(file, FlockOperation::Unlock);
        }
    }
}

/// Removes the access of other users than the owner to a lock file.
fn make_private(file: &File) -> io::Result<()> {
    let metadata = file.metadata()?;
    let is_owner = || {
        let us = nix::unistd::geteuid();
        us.is_root() || metadata.uid() == us.as_raw()
    };
    if metadata.mode() & 0o077 != 0 && is_owner() {
        // The Python monitor left it readable, and whoever can open it can hold the lock. A file
        // system without modes refuses; the lock works nevertheless.
        let _ = file.set_permissions(Permissions::from_mode(RunLock::MODE));
    }
    Ok(())
}

/// `pid` is given, because a child can write it for us.
fn write_pid(file: &File, pid: u32) -> io::Result<()> {
    let text = format!("{pid}\n");
    file.write_all_at(text.as_bytes(), 0)?;
    // Not truncated first: ext4 writes a truncated file to the disk when it is closed.
    let length = text.len() as u64;
    if file.metadata()?.len() > length {
        file.set_len(length)?;
    }
    Ok(())
}

/// Device and inode.
fn id(metadata: &std::fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Who holds a lock that is taken.
enum Holder {
    /// This process, or an ancestor of it.
    Us,
    /// Another run of root's or ours, as far as can be known.
    Run {
        pid: Option<i32>,
        since: Option<Duration>,
    },
    /// A process that neither root nor our user started.
    Stranger { pid: i32, uid: u32, is_setuid: bool },
    /// Nobody knows, and this other user can open the file.
    Hidden { owner: u32 },
}

impl From<Holder> for Taken {
    fn from(holder: Holder) -> Self {
        let holder = match holder {
            Holder::Us => return Self::Ours(RunLock { held: None }),
            Holder::Run { pid, since } => return Self::Busy { pid, since },
            Holder::Stranger {
                pid,
                is_setuid: true,
                ..
            } => format!("PID {pid}, a setuid program, holds it"),
            Holder::Stranger { pid, uid, .. } => {
                format!("PID {pid} of user {} holds it", account::name_of(uid))
            }
            Holder::Hidden { owner } => format!(
                "a process that cannot be found holds it, and user {} can open it",
                account::name_of(owner)
            ),
        };
        Self::Theirs { holder }
    }
}

fn resolve(file: &File) -> io::Result<Holder> {
    let metadata = file.metadata()?;
    let id = id(&metadata);
    if is_inherited(file, id) {
        return Ok(Holder::Us);
    }
    let holders = LockHolders::of(id);
    if ancestors().any(|pid| holders.include(pid, id)) {
        return Ok(Holder::Us);
    }
    let path = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok();
    let mut is_a_run = false;
    let listed = holders.of_file(path.as_deref()).into_iter();
    let written = written_pid(file).filter(|pid| {
        !holders.is_complete && matches!(descriptor_with_lock(*pid, id.1), Ok(Some(_)))
    });
    for pid in listed.take(MOST_HOLDERS).chain(written) {
        let Ok(ids) = Proc::here().ids(pid) else {
            continue;
        };
        // One that waits for the lock is listed, too. And whoever took it can have passed it on and ended, and
        // its PID is another's by now.
        if matches!(descriptor_with_lock(pid, id.1), Ok(None)) {
            continue;
        }
        if ids.is_setuid || !is_trusted(ids.uid) {
            let (uid, is_setuid) = (ids.uid, ids.is_setuid);
            return Ok(Holder::Stranger {
                pid,
                uid,
                is_setuid,
            });
        }
        is_a_run = true;
    }
    let owner = metadata.uid();
    if !is_a_run && !is_trusted(owner) {
        return Ok(Holder::Hidden { owner });
    }
    Ok(busy(file, holders.exact.first().copied()))
}

/// Whether a run of that user counts here.
fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == nix::unistd::geteuid().as_raw()
}

/// The number of the descriptor by which a process holds the `flock` of a file with that inode
/// (`proc_pid_fdinfo(5)`), if it has one. The file itself is not asked, because its disk can block without end.
///
/// # Errors
/// Its descriptors cannot be listed, or not in time.
fn descriptor_with_lock(pid: i32, inode: u64) -> io::Result<Option<OsString>> {
    let entries = match std::fs::read_dir(Proc::here().path(pid, "fdinfo")) {
        Err(reason) if means_gone(&reason) => return Ok(None),
        entries => entries?,
    };
    let inode = format!(":{inode} ");
    let holds = |entry: &std::fs::DirEntry| {
        let mut text = String::new();
        let file = File::open(entry.path()).map(|file| file.take(LONGEST_FDINFO));
        let _ = file.and_then(|mut file| file.read_to_string(&mut text));
        let mut locks = text.lines().filter(|line| line.starts_with("lock:"));
        locks.any(|line| line.contains(" FLOCK ") && line.contains(&inode))
    };
    let began = Instant::now();
    for entry in entries.flatten() {
        if holds(&entry) {
            return Ok(Some(entry.file_name()));
        }
        if began.elapsed() > DESCRIPTORS_TIMEOUT {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    Ok(None)
}

/// Whether an inherited descriptor holds the lock of this file.
fn is_inherited(file: &File, id: (u64, u64)) -> bool {
    let ours = open_numbers(std::process::id()).into_iter();
    let mut others = ours.filter(|(number, other)| *number != file.as_raw_fd() && *other == id);
    others.any(|(number, _)| {
        // One open file description holds the lock, whichever descriptor refers to it (flock(2)).
        ffi::duplicate(number)
            .is_ok_and(|copy| flock(&copy, FlockOperation::NonBlockingLockExclusive).is_ok())
    })
}

/// The descriptors of a process, each with device and inode of its file.
fn open_numbers(pid: u32) -> Vec<(i32, (u64, u64))> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd"));
    let entries = entries.into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| {
        let number = entry.file_name().to_str()?.parse().ok()?;
        Some((number, id(&std::fs::metadata(entry.path()).ok()?)))
    });
    numbers.collect()
}

/// The lines of the list of locks about files with that inode, and whether the list was read to its end within the limit:
/// any user can have hundreds of thousands of locks, and to read their list takes the square of that.
fn lines_of_inode(
    mut list: impl BufRead,
    inode: u64,
    limit: Duration,
) -> io::Result<(Vec<u8>, bool)> {
    let inode = format!(":{inode} ").into_bytes();
    let (mut lines, mut line) = (Vec::new(), Vec::new());
    let began = Instant::now();
    while began.elapsed() <= limit && lines.len() < LONGEST_LINES {
        line.clear();
        if list.read_until(b'\n', &mut line)? == 0 {
            return Ok((lines, true));
        }
        if line.windows(inode.len()).any(|part| part == inode) {
            lines.extend_from_slice(&line);
        }
    }
    Ok((lines, false))
}

/// PIDs that hold the `flock` of a file (`proc_locks(5)`).
struct LockHolders {
    inode: u64,
    /// By device and inode.
    exact: Vec<i32>,
    /// By inode only: on btrfs, the kernel lists the device of the file system, not of the file.
    by_inode: Vec<i32>,
    /// Whether the list was read to its end.
    is_complete: bool,
}

impl LockHolders {
    fn of((device, inode): (u64, u64)) -> Self {
        let mut holders = Self {
            inode,
            exact: Vec::new(),
            by_inode: Vec::new(),
            is_complete: false,
        };
        let device = (rustix::fs::major(device), rustix::fs::minor(device));
        let listed = File::open(LOCKS).map(BufReader::new);
        let Ok((lines, is_complete)) =
            listed.and_then(|list| lines_of_inode(list, inode, LOCKS_TIMEOUT))
        else {
            return holders;
        };
        holders.is_complete = is_complete;
        let locks = Locks::from_buf_read(lines.as_slice());
        for lock in locks.map(|locks| locks.0).unwrap_or_default() {
            let (LockType::FLock, Some(pid @ 1..)) = (&lock.lock_type, lock.pid) else {
                continue;
            };
            if lock.inode == inode {
                holders.by_inode.push(pid);
                if (lock.devmaj, lock.devmin) == device {
                    holders.exact.push(pid);
                }
            }
        }
        holders
    }

    /// PIDs that hold the lock of the file with that path, as the kernel shows it.
    fn of_file(&self, path: Option<&Path>) -> Vec<i32> {
        if !self.exact.is_empty() {
            return self.exact.clone();
        }
        let has_it = |pid: &i32| {
            let descriptor = descriptor_with_lock(*pid, self.inode).ok().flatten()?;
            let link = Proc::here().path(*pid, "fd").join(descriptor);
            Some(std::fs::read_link(link).ok()?.as_path() == path?)
        };
        let mut found = self.by_inode.clone();
        found.truncate(MOST_HOLDERS);
        found.retain(|pid| has_it(pid).unwrap_or(false));
        found
    }

    /// Whether this process holds the lock of the file with that device and inode.
    fn include(&self, pid: i32, id: (u64, u64)) -> bool {
        let has_it_open = || {
            let open = open_numbers(pid.unsigned_abs());
            open.iter().any(|(_, other)| *other == id)
        };
        let can_hold = || {
            self.by_inode.contains(&pid)
                || !self.is_complete && matches!(descriptor_with_lock(pid, id.1), Ok(Some(_)))
        };
        self.exact.contains(&pid) || can_hold() && has_it_open()
    }
}

/// PIDs of our parent, its parent, and so on.
fn ancestors() -> impl Iterator<Item = i32> {
    let parent = |pid: i32| {
        let parent = Proc::here().stat(pid).ok()?.ppid;
        (parent > 0).then_some(parent)
    };
    std::iter::successors(parent(nix::unistd::getpid().as_raw()), move |pid| {
        parent(*pid)
    })
    .take(MOST_ANCESTORS)
}

/// The PID in a lock file.
fn written_pid(file: &File) -> Option<i32> {
    let mut text = [0; 32];
    let length = file.read_at(&mut text, 0).ok()?;
    std::str::from_utf8(&text[..length])
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// Another process holds the lock: the one that the kernel names, else the one that the file names.
fn busy(file: &File, by_kernel: Option<i32>) -> Holder {
    let by_file = written_pid(file);
    let modified = file
        .metadata()
        .and_then(|metadata| metadata.modified())
        .ok();
    match (by_kernel, by_file) {
        (Some(pid), written) if written != Some(pid) => Holder::Run {
            pid: Some(pid),
            since: Proc::here().age(pid),
        },
        // A run writes its PID. If there is none, the time of the file is not the holder's either.
        (_, pid) => Holder::Run {
            pid,
            since: pid
                .and(modified)
                .and_then(|time| SystemTime::now().duration_since(time).ok()),
        },
    }
}

/// The restart lock: one restart at a time for each server. Dropping it releases the lock too, but forgets
/// that the restart command ran.
#[derive(Debug)]
pub(crate) struct RestartLock {
    held: FileLock,
    file: RestartFile,
    has_restarted: bool,
    _reservation: Reservation,
}

impl RestartLock {
    /// Records that the restart command ran: runs that checked before it ended must check again.
    pub(crate) fn note_restart(&mut self) {
        self.has_restarted = true;
    }

    /// Releases it, within about a second whatever the disk does.
    pub(crate) async fn release(self) {
        if self.has_restarted {
            // If this fails, another run may restart the server again.
            let _ = self
                .change(|file| file.set_modified(SystemTime::now()))
                .await;
        }
    }

    /// Changes the file in a child, because the disk can block without end. When the child closes the file,
    /// our lock stays: a record lock belongs to the process that took it (`fcntl_locking(2)`).
    ///
    /// # Errors
    /// Why that could not be done in time. What the change came to does not count.
    async fn change(&self, work: impl FnOnce(&File) -> io::Result<()>) -> Result<(), String> {
        let locked = self.held.file.metadata();
        let locked = id(&locked.map_err(|reason| errno_text(&reason))?);
        in_child(|| {
            let file = self.file.open_existing()?;
            if id(&file.metadata()?) == locked {
                let _ = work(&file);
            }
            Ok(())
        })
        .await
    }
}

/// Works in a child for at most `PROBE_TIMEOUT`.
///
/// # Errors
/// Why there is no result.
async fn in_child<T: Serialize + DeserializeOwned>(
    work: impl FnOnce() -> io::Result<T>,
) -> Result<T, String> {
    let work = || work().map_err(|reason| errno_text(&reason));
    match bounded::ask(PROBE_TIMEOUT, work).await {
        Ok(Some(result)) => result,
        Ok(None) => Err(format!(
            "it does not respond within {} s",
            PROBE_TIMEOUT.as_secs()
        )),
        Err(reason) => Err(format!(
            "cannot start a process to open it: {}",
            errno_text(&reason)
        )),
    }
}

/// The file of the restart lock in the state directory, the same for runs with different logs.
#[derive(Clone, Debug)]
pub(crate) struct RestartFile {
    path: PathBuf,
}

/// Result of taking the restart lock.
#[derive(Debug)]
pub(crate) enum Reserved {
    /// It is ours. `late`: another run held it after that moment.
    Ours { lock: RestartLock, late: bool },
    /// Another run is restarting the server. The PID is that in the file.
    Busy { pid: Option<i32> },
    /// The lock cannot be taken, for this reason; the restart can continue without it.
    Unusable { reason: String },
}

impl RestartFile {
    /// The lock of the server at that address (or host) and port. Nothing is opened yet.
    pub(crate) fn new(state_dir: &Path, key: &str, port: u16) -> Self {
        Self {
            path: state::path(state_dir, key, port, ".lock"),
        }
    }

    /// Takes the lock without waiting, and within about two seconds whatever the disk does. Makes the
    /// state directory and the file if they are missing. `checked`: when the check began that found
    /// the server unhealthy.
    pub(crate) async fn reserve(&self, checked: SystemTime) -> Reserved {
        let Some(reservation) = Reservation::new(&self.path) else {
            let pid = i32::try_from(std::process::id()).ok();
            return Reserved::Busy { pid };
        };
        match self.lock(checked, reservation).await {
            Ok(reserved) => reserved,
            Err(reason) => Reserved::Unusable { reason },
        }
    }

    /// The directory that it opens, and the name in there.
    fn place(&self) -> (&Path, &OsStr) {
        (
            self.path.parent().unwrap_or(Path::new("/")),
            self.path.file_name().unwrap_or_default(),
        )
    }

    fn open_existing(&self) -> io::Result<File> {
        let (directory, name) = self.place();
        Directory::open(directory)?.existing(name)
    }

    /// Makes the lock file and its directory if they are missing. Returns the PID in it.
    fn prepare(&self) -> io::Result<Option<i32>> {
        let (directory, name) = self.place();
        let directory = Directory::make(directory, file::DIRECTORY_MODE)?;
        match directory.existing(name) {
            Err(reason) if reason.kind() == io::ErrorKind::NotFound => {
                let file = directory.read_and_write(name, RunLock::MODE)?;
                // The modification time is the end of the last restart; there was none.
                let _ = file.set_modified(SystemTime::UNIX_EPOCH);
                Ok(None)
            }
            Err(reason) => Err(reason),
            Ok(file) => {
                make_private(&file)?;
                Ok(written_pid(&file))
            }
        }
    }

    async fn lock(
        &self,
        checked: SystemTime,
        reservation: Reservation,
    ) -> Result<Reserved, String> {
        // Here the file is only opened and locked, without a change of the disk, which can block without end.
        let holder = in_child(|| self.prepare()).await?;
        let taken = self.take().map_err(|reason| errno_text(&reason))?;
        let Some((held, ended)) = taken else {
            return Ok(Reserved::Busy { pid: holder });
        };
        let lock = RestartLock {
            held,
            file: self.clone(),
            has_restarted: false,
            _reservation: reservation,
        };
        let pid = std::process::id();
        let change = lock.change(|file| {
            let _ = write_pid(file, pid);
            // If this fails, the next run makes one unnecessary check.
            file.set_modified(ended)
        });
        // The lock is held whatever becomes of this.
        let _ = change.await;
        let late = ended + CLOCK_TICK >= checked;
        Ok(Reserved::Ours { lock, late })
    }

    /// The locked file and its modification time; `None` where another process has the lock.
    fn take(&self) -> io::Result<Option<(FileLock, SystemTime)>> {
        // file-lock opens by name: this name leads to the file that was opened safely. Closing a
        // descriptor of a file releases its record locks (fcntl_locking(2)), except an O_PATH one.
        let opened = self.open_existing()?;
        let path = format!("/proc/self/fd/{}", opened.as_raw_fd());
        let only_path = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        drop(opened);
        let path = format!("/proc/self/fd/{}", only_path.as_raw_fd());
        let options = FileOptions::new().read(true).write(true);
        match FileLock::lock(path, false, options) {
            Ok(held) => {
                let ended = held.file.metadata()?.modified()?;
                Ok(Some((held, ended)))
            }
            Err(reason) if matches!(reason.raw_os_error(), Some(libc::EAGAIN)) => Ok(None),
            Err(reason) => Err(reason),
        }
    }
}

impl fmt::Display for RestartFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

/// A restart lock that a thread of this process takes or holds.
#[derive(Debug)]
struct Reservation(PathBuf);

impl Reservation {
    fn new(path: &Path) -> Option<Self> {
        reserved()
            .insert(path.to_owned())
            .then(|| Self(path.to_owned()))
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        reserved().remove(&self.0);
    }
}

fn reserved() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    RESERVED.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(unreachable_pub, clippy::unwrap_used)]
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../tests/it/rig/dead_disk.rs"]
mod dead_disk;

#[cfg(test)]
#[allow(unreachable_pub, clippy::unwrap_used)]
#[path = "../tests/it/rig/frozen_disk.rs"]
mod frozen_disk;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::skip::skip;

    #[test]
    fn hazard_31_a_crowded_list_of_locks_is_read_for_a_limited_time() {
        let ours = "7: FLOCK  ADVISORY  WRITE 4711 08:01:815 0 EOF\n";
        let others = "8: POSIX  ADVISORY  WRITE 9 08:01:81 0 EOF\n9: POSIX  ADVISORY  READ 9 08:01:8815 0 0\n";
        let long = Duration::from_secs(60);
        let list = format!("{others}{ours}{others}");
        let expected = (ours.as_bytes().to_vec(), true);
        assert_eq!(
            lines_of_inode(list.as_bytes(), 815, long).unwrap(),
            expected
        );
        // A list without an end, and one with nothing but locks of files with this inode.
        let endless = || BufReader::new(io::repeat(b'\n'));
        let short = Duration::from_millis(1);
        assert!(!lines_of_inode(endless(), 815, short).unwrap().1);
        let crowd = ours.repeat(10_000);
        let (lines, is_complete) = lines_of_inode(crowd.as_bytes(), 815, long).unwrap();
        assert!(!is_complete && lines.len() < LONGEST_LINES + ours.len());
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(future)
    }

    fn names(directory: &Path) -> Vec<OsString> {
        let entries = std::fs::read_dir(directory).unwrap().flatten();
        entries.map(|entry| entry.file_name()).collect()
    }

    #[test]
    fn the_age_of_a_lock_is_known_only_with_its_holder() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        for (text, expected) in [("", None), ("77\n", Some(77))] {
            std::fs::write(&path, text).unwrap();
            let Holder::Run { pid, since } = busy(&File::open(&path).unwrap(), None) else {
                panic!()
            };
            assert_eq!((pid, since.is_some()), (expected, expected.is_some()));
        }
    }

    #[test]
    fn hazard_15_a_process_that_holds_no_lock_is_not_its_holder() {
        let us = nix::unistd::getpid().as_raw();
        let file = tempfile::tempfile().unwrap();
        let inode = file.metadata().unwrap().ino();
        let found = || descriptor_with_lock(us, inode).unwrap();
        assert_eq!(found(), None);
        flock(&file, FlockOperation::LockExclusive).unwrap();
        let number = OsString::from(file.as_raw_fd().to_string());
        assert_eq!(found(), Some(number));
        assert_eq!(descriptor_with_lock(i32::MAX, inode).unwrap(), None);
    }

    #[test]
    fn a_restart_lock_is_held_by_one_and_remembers_the_last_restart() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        let file = RestartFile::new(&state, "[::1]", 9143);
        assert!(!state.exists(), "nothing is made before it is needed");
        let began = SystemTime::now() - Duration::from_secs(60);
        let reserve = || block_on(file.reserve(began));
        let Reserved::Ours { mut lock, late } = reserve() else {
            panic!()
        };
        assert!(!late, "no restart has ended since");
        assert_eq!(names(&state), ["0--1_9143.lock"]);
        let us = i32::try_from(std::process::id()).ok();
        assert!(matches!(reserve(), Reserved::Busy { pid } if pid == us));
        // Another address of the host has a lock of its own.
        let other = RestartFile::new(&state, "127.0.0.1", 9143);
        assert!(matches!(
            block_on(other.reserve(began)),
            Reserved::Ours { .. }
        ));
        lock.note_restart();
        block_on(lock.release());
        assert!(matches!(reserve(), Reserved::Ours { late: true, .. }));
        assert!(matches!(reserve(), Reserved::Ours { late: true, .. }));
    }

    #[test]
    fn hazard_38_a_record_lock_of_another_process_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let file = RestartFile::new(directory.path(), "h", 1);
        let began = SystemTime::now();
        let Reserved::Ours { lock, .. } = block_on(file.reserve(began)) else {
            panic!()
        };
        // A child has none of our record locks (fcntl_locking(2)).
        let seen = block_on(bounded::ask(Duration::from_secs(60), || {
            let is_taken = file.take().is_ok_and(|taken| taken.is_none());
            file.prepare().ok().flatten().filter(|_| is_taken)
        }));
        let us = i32::try_from(std::process::id()).ok();
        assert_eq!(seen.unwrap(), Some(us));
        drop(lock);
    }

    #[test]
    fn hazard_32_a_state_directory_that_cannot_be_used_is_a_reason() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("file"), "").unwrap();
        std::fs::create_dir_all(at("state/h_1.lock")).unwrap();
        for (state, expected) in [
            ("file", "Not a directory"),
            ("file/below", "Not a directory"),
            ("state", "Is a directory"),
        ] {
            let reserved =
                block_on(RestartFile::new(&at(state), "h", 1).reserve(SystemTime::now()));
            let Reserved::Unusable { reason } = reserved else {
                panic!("{state}: {reserved:?}")
            };
            assert_eq!(reason, expected, "{state}");
        }
    }

    /// Works in a directory of its own, in a thread that has mounts of its own, which end with it.
    fn with_own_mounts(work: impl FnOnce(&Path) + Send + 'static) {
        let thread = std::thread::spawn(|| {
            let directory = tempfile::tempdir().unwrap();
            let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
            let none: Option<&str> = None;
            let isolated = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)
                .and_then(|()| nix::mount::mount(none, "/", none, private, none));
            if isolated.is_err() {
                return skip("no private mount namespace can be made here");
            }
            work(directory.path());
        });
        thread.join().unwrap();
    }

    #[test]
    fn hazard_32_a_state_directory_on_a_disk_that_does_not_answer_is_a_reason() {
        with_own_mounts(|directory| {
            let state = directory.join("dead");
            let Some(dead) = dead_disk::DeadDisk::mount(&state) else {
                return skip("no file system in user space can be mounted here");
            };
            for state in [state.clone(), state.join("below")] {
                let file = RestartFile::new(&state, "h", 1);
                let reserved = block_on(file.reserve(SystemTime::now()));
                let Reserved::Unusable { reason } = reserved else {
                    panic!("{reserved:?}")
                };
                assert_eq!(reason, "it does not respond within 1 s");
            }
            drop(dead);
        });
    }

    #[test]
    fn hazard_32_a_disk_that_stops_taking_writes_holds_no_run() {
        with_own_mounts(|directory| {
            let state = directory.join("frozen");
            let Some(mut disk) = frozen_disk::FrozenDisk::mount(&state) else {
                return skip("no ext4 can be made on a loop device here");
            };
            let long = Duration::from_secs(10);
            let checked = SystemTime::now() - Duration::from_secs(60);
            let file = RestartFile::new(&state, "h", 1);
            let Reserved::Ours { lock, .. } = block_on(file.reserve(checked)) else {
                panic!()
            };
            block_on(lock.release());
            disk.freeze();
            let began = SystemTime::now();
            let reserved = block_on(file.reserve(checked));
            assert!(began.elapsed().unwrap() < long);
            let Reserved::Ours { lock, .. } = reserved else {
                panic!("{reserved:?}")
            };
            block_on(lock.release());
            disk.thaw();

            let Reserved::Ours { mut lock, .. } = block_on(file.reserve(checked)) else {
                panic!("nobody holds it any more")
            };
            lock.note_restart();
            disk.freeze();
            let began = SystemTime::now();
            block_on(lock.release());
            assert!(began.elapsed().unwrap() < long);
        });
    }
}
