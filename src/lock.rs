//! One run at a time for each log (`flock`), one restart at a time for each target (`fcntl`).

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use file_lock::{FileLock, FileOptions};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::libc;

use crate::journal::plain;
use crate::proc::process::Proc;

/// So often a lock is taken again whose file was removed meanwhile.
const MOST_TRIES: u32 = 10;
/// The targets that this process has reserved: a record lock keeps out other processes only.
static RESERVED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
/// A file's times are taken from a clock that may lag behind by so much (`time(7)`, jiffies at 100 Hz).
const CLOCK_TICK: Duration = Duration::from_millis(10);

/// Held by one run of a log; given back when dropped.
#[derive(Debug)]
pub(crate) struct RunLock {
    _held: Flock<File>,
}

/// What taking the run lock came to.
#[derive(Debug)]
pub(crate) enum Taken {
    /// It is ours.
    Ours(RunLock),
    /// Another process has it.
    Busy {
        /// Its PID, where the kernel or the file tells.
        pid: Option<i32>,
        /// For how long, where that is known.
        since: Option<Duration>,
    },
}

impl RunLock {
    /// Only its owner can open it, and hold it.
    pub(crate) const MODE: u32 = 0o600;

    /// `.<stem>.lock` beside the log, as the Python monitor has it.
    pub(crate) fn path(logfile: &Path) -> PathBuf {
        let mut name = std::ffi::OsString::from(".");
        name.push(logfile.file_stem().unwrap_or_default());
        name.push(".lock");
        logfile.with_file_name(name)
    }

    /// Takes the lock without waiting, and writes our PID into it once it is held.
    pub(crate) fn take(path: &Path) -> io::Result<Taken> {
        for _ in 0..MOST_TRIES {
            let file = open_private(path)?;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(held) => {
                    // The manual lets an administrator remove the file: what we hold must be what others open.
                    if is_still_at(&held, path) {
                        // On a full disk the PID is missing and the lock holds all the same.
                        let _ = write_pid(&held);
                        return Ok(Taken::Ours(Self { _held: held }));
                    }
                }
                Err((mut file, Errno::EWOULDBLOCK)) => return Ok(holder(&mut file)),
                Err((_, reason)) => return Err(reason.into()),
            }
        }
        Err(io::Error::other("what is locked is never what is there"))
    }
}

/// Opens or makes a lock file that only its owner can open, and follows no symlink to it.
fn open_private(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(RunLock::MODE)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let ours = nix::unistd::geteuid();
    if metadata.mode() & 0o077 != 0 && (ours.is_root() || metadata.uid() == ours.as_raw()) {
        // The Python monitor left it readable, and who can open it can hold it.
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

fn is_still_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::symlink_metadata(path)) {
        (Ok(held), Ok(named)) => (held.dev(), held.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

fn write_pid(file: &File) -> io::Result<()> {
    let text = format!("{}\n", std::process::id());
    file.write_all_at(text.as_bytes(), 0)?;
    // Not emptied first: what was emptied, ext4 writes to the disk when it is closed.
    let length = text.len() as u64;
    if file.metadata()?.len() > length {
        file.set_len(length)?;
    }
    Ok(())
}

/// Who holds the lock: the kernel knows (`proc_locks(5)`), else the file says.
fn holder(file: &mut File) -> Taken {
    let inode = file.metadata().map(|metadata| metadata.ino()).ok();
    let by_kernel = procfs::locks().ok().and_then(|locks| {
        let lock = locks.into_iter().find(|lock| Some(lock.inode) == inode)?;
        lock.pid.filter(|pid| *pid > 0)
    });
    let mut text = String::new();
    let by_file = file
        .take(32)
        .read_to_string(&mut text)
        .ok()
        .and_then(|_| text.trim().parse::<i32>().ok());
    let modified = file
        .metadata()
        .and_then(|metadata| metadata.modified())
        .ok();
    match (by_kernel, by_file) {
        (Some(pid), written) if written != Some(pid) => Taken::Busy {
            pid: Some(pid),
            since: Proc::here().age(pid),
        },
        (_, pid) => Taken::Busy {
            pid,
            since: modified.and_then(|time| SystemTime::now().duration_since(time).ok()),
        },
    }
}

/// Held around a restart; given back when dropped.
#[derive(Debug)]
pub(crate) struct TargetLock {
    held: FileLock,
    path: PathBuf,
    has_restarted: bool,
}

impl TargetLock {
    /// Notes that the restart command was run: runs that checked before it ended must check again.
    pub(crate) fn note_restart(&mut self) {
        self.has_restarted = true;
    }
}

/// The file by which runs with different logs know the same target.
#[derive(Debug)]
pub(crate) struct TargetFile {
    path: PathBuf,
}

impl TargetFile {
    /// Where what is remembered of this target stands.
    pub(crate) fn beside(&self, extension: &str) -> PathBuf {
        let mut name = self.path.with_extension("").into_os_string();
        name.push(extension);
        name.into()
    }
}

/// What reserving a target came to.
#[derive(Debug)]
pub(crate) enum Reserved {
    /// It is ours. `late`: another run had it after that moment.
    Ours { lock: TargetLock, late: bool },
    /// Another run is restarting it, with this PID if its file says so.
    Busy { pid: Option<i32> },
}

impl TargetFile {
    /// Makes the state directory and the lock file of that host and port in it.
    pub(crate) fn prepare(directory: &Path, host: &str, port: u16) -> Result<Self, String> {
        let cannot = |path: &Path, reason: &io::Error| {
            format!(
                "cannot use the restart lock {}: {}; give --state-dir DIR",
                path.display(),
                plain(reason)
            )
        };
        let host: String = host
            .to_ascii_lowercase()
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') {
                    c
                } else {
                    '_'
                }
            })
            .collect();
        let path = directory.join(format!("{host:.200}_{port}.lock"));
        // To close a file gives back a record lock that another of our servers has on it.
        let taken = reserved();
        if taken.contains(&path) {
            return Ok(Self { path });
        }
        let opened = match open_private(&path) {
            Err(reason) if reason.kind() == io::ErrorKind::NotFound => {
                let mut directories = DirBuilder::new();
                let made = directories.recursive(true).mode(0o700).create(directory);
                made.map_err(|reason| cannot(directory, &reason))?;
                open_private(&path)
            }
            opened => opened,
        };
        opened.map_err(|reason| cannot(&path, &reason))?;
        Ok(Self { path })
    }

    /// Takes the lock without waiting.
    pub(crate) fn reserve(&self, checked: SystemTime) -> io::Result<Reserved> {
        if !reserved().insert(self.path.clone()) {
            let pid = i32::try_from(std::process::id()).ok();
            return Ok(Reserved::Busy { pid });
        }
        let reserved = self.reserve_among_processes(checked);
        if !matches!(reserved, Ok(Reserved::Ours { .. })) {
            self::reserved().remove(&self.path);
        }
        reserved
    }

    fn reserve_among_processes(&self, checked: SystemTime) -> io::Result<Reserved> {
        let options = FileOptions::new().read(true).write(true).create(true);
        match FileLock::lock(&self.path, false, options) {
            Ok(held) => {
                // The file's time is that of the last restart's end; a new file has seen none.
                let used = held.file.metadata()?;
                let ended = if used.len() > 0 {
                    used.modified()?
                } else {
                    SystemTime::UNIX_EPOCH
                };
                let _ = write_pid(&held.file);
                held.file.set_modified(ended)?;
                Ok(Reserved::Ours {
                    lock: TargetLock {
                        held,
                        path: self.path.clone(),
                        has_restarted: false,
                    },
                    late: ended + CLOCK_TICK >= checked,
                })
            }
            Err(reason) if matches!(reason.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => {
                let text = std::fs::read_to_string(&self.path).unwrap_or_default();
                Ok(Reserved::Busy {
                    pid: text.trim().parse().ok(),
                })
            }
            Err(reason) => Err(reason),
        }
    }
}

impl fmt::Display for TargetFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

impl Drop for TargetLock {
    fn drop(&mut self) {
        if self.has_restarted {
            let _ = self.held.file.set_modified(SystemTime::now());
        }
        reserved().remove(&self.path);
    }
}

fn reserved() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    RESERVED.lock().unwrap_or_else(PoisonError::into_inner)
}
