//! What verbs ask of the runs over one server: a pause, a pause as long as a command runs, the end of
//! a hold-off. It has a file of its own, which only verbs write, so that they never race a run's state.
//!
//! The processes of a running command hold a lock on the file, so it is changed in place meanwhile. Whatever
//! of the command outlives it may be another user's and has the file open, too: without a running command,
//! a new file takes its place.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;
use rustix::fs::{AtFlags, CWD, OFlags, Stat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::time::Time;
use super::{READ_TIMEOUT, file};
use crate::proc::process::Proc;
use crate::sys::{bounded, cached};
use crate::text::errno_text;

/// Read limit, in bytes.
const LONGEST: usize = 16 << 10;
/// Mode of the file: whoever can open it can lock it, and so pause the server.
const MODE: u32 = 0o600;
/// Permissions of others than the owner (inode(7)).
const OTHERS: u32 = 0o077;
/// The version of the format.
const FORMAT: u32 = 1;
/// Longest pause.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(7 * 24 * 3600);
/// How far the clock may have been set back since a pause began.
const CLOCK_STEP: Duration = Duration::from_secs(300);
/// A file that is not whole is read so often, with that time between.
const MOST_READS: u32 = 3;
const READ_AGAIN: Duration = Duration::from_millis(10);
/// The same for a file that another verb is changing.
const MOST_TRIES: u32 = 200;
/// The byte that a running command has locked, far behind the text.
const COMMAND: libc::off_t = 1 << 30;
/// The same of the new file: a verb locks it while it changes the old one.
const CHANGE: libc::off_t = COMMAND + 1;
/// Ending of the new file's name.
const NEW: &str = "pause.tmp";

/// A pause that ends by itself.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub(crate) struct Pause {
    /// When it ends.
    pub(crate) until: Time,
    /// Who asked for it.
    pub(crate) by: String,
    /// Why.
    pub(crate) reason: Option<String>,
    /// When it was asked for.
    pub(crate) at: Time,
}

/// A pause as long as a command runs.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub(crate) struct Inhibit {
    /// PID of the verb that runs it.
    pub(crate) pid: i32,
    /// When that process was started, in clock ticks since the boot (proc_pid_stat(5)).
    pub(crate) started: u64,
    /// Who started it.
    pub(crate) by: String,
    /// The command.
    pub(crate) command: String,
    /// When it was started.
    pub(crate) at: Time,
}

/// Contents of the file.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub(crate) struct Requests {
    format: u32,
    /// The last pause, which may be over.
    pub(crate) pause: Option<Pause>,
    /// The commands during which it is paused, the last one last. They may have ended.
    pub(crate) inhibit: Vec<Inhibit>,
    /// When the end of a hold-off was asked for.
    pub(crate) resume: Option<Time>,
    /// Keys of a newer version, which are kept.
    #[serde(flatten)]
    other: serde_json::Map<String, serde_json::Value>,
}

/// Whether the server is paused.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum Current {
    /// It is not.
    #[default]
    None,
    /// Until a time.
    Paused(Pause),
    /// As long as a command runs.
    Inhibited(Inhibit),
    /// The file cannot be read, for this reason: it is not paused.
    Unreadable(String),
}

/// What is asked of a run.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Requested {
    /// Whether it is to touch nothing.
    pub(crate) current: Current,
    /// When the end of a hold-off and of the back-off was last asked for. A run carries it out unless it
    /// equals `State::resumed`, which it then sets to it.
    pub(crate) resume: Option<Time>,
}

impl Inhibit {
    /// Of the verb that begins it now.
    pub(crate) fn now(by: String, command: String) -> Self {
        let pid = nix::unistd::getpid().as_raw();
        Self {
            pid,
            started: Proc::here().stat(pid).map_or(0, |stat| stat.starttime),
            by,
            command,
            at: Time::now(),
        }
    }

    /// Whether it holds while its file is locked. Without its verb the lock may be that of a server which
    /// the command has started, so it holds no longer than a pause.
    fn can_hold(&self, now: Time) -> bool {
        let is_recent = now < self.at.after(LONGEST_PAUSE) && self.at <= now.after(CLOCK_STEP);
        is_recent || Proc::here().is_alive(self.pid, self.started)
    }
}

impl Requests {
    fn current(&self, is_running: bool, now: Time) -> Current {
        let mut inhibitions = self.inhibit.iter().rev().filter(|_| is_running);
        if let Some(inhibit) = inhibitions.find(|inhibit| inhibit.can_hold(now)) {
            return Current::Inhibited(inhibit.clone());
        }
        let Some(pause) = &self.pause else {
            return Current::None;
        };
        if pause.until > now.after(LONGEST_PAUSE + CLOCK_STEP) {
            let until = pause.until;
            return Current::Unreadable(format!("a pause until {until}, in more than 7 days"));
        }
        if pause.until > now {
            Current::Paused(pause.clone())
        } else {
            Current::None
        }
    }

    fn is_empty(&self) -> bool {
        self.pause.is_none()
            && self.inhibit.is_empty()
            && self.resume.is_none()
            && self.other.is_empty()
    }
}

/// What the file asks for, for a run. One system call where there is no file; whatever its disk does,
/// it takes no more than about a second.
pub(crate) async fn asked(path: &Path, now: Time) -> Requested {
    match quick(path) {
        Quick::Missing => return Requested::default(),
        Quick::Cached => return current(path, now),
        Quick::Slow => (),
    }
    let asked = bounded::on_disk(READ_TIMEOUT, || Ok(current(path, now))).await;
    asked.unwrap_or_else(unreadable)
}

enum Quick {
    Missing,
    /// It can be read without waiting.
    Cached,
    /// Reading it could wait for a disk.
    Slow,
}

/// What the kernel knows of the file without asking a disk or another machine.
fn quick(path: &Path) -> Quick {
    let flags = file::flags(OFlags::RDONLY);
    let file = match cached::open(CWD, path, flags) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Quick::Missing,
        Err(_) => return Quick::Slow,
    };
    match cached::read(&file, &mut [0]) {
        Ok(1) => Quick::Cached,
        _ => Quick::Slow,
    }
}

/// What the file asks for, read without a time limit.
pub(crate) fn current(path: &Path, now: Time) -> Requested {
    let (requests, is_running) = match read(path) {
        Ok(Some(read)) => read,
        Ok(None) => return Requested::default(),
        Err(reason) => return unreadable(errno_text(&reason)),
    };
    Requested {
        current: requests.current(is_running, now),
        // A time to come would be carried out again and again once the clock is right.
        resume: requests
            .resume
            .filter(|resume| *resume <= now.after(CLOCK_STEP)),
    }
}

fn unreadable(reason: String) -> Requested {
    Requested {
        current: Current::Unreadable(reason),
        resume: None,
    }
}

/// The file's contents, and whether a command holds its lock; none where there is no file.
fn read(path: &Path) -> io::Result<Option<(Requests, bool)>> {
    let (file, stat) = match file::open(path, OFlags::RDONLY) {
        Err(reason) if is_absent(&reason) => return Ok(None),
        opened => opened?,
    };
    let mut tries = 1;
    loop {
        match contents(&file) {
            Ok(requests) => {
                let is_running = !is_open_to_others(&stat) && is_running(&file);
                return Ok(Some((requests, is_running)));
            }
            Err(_) if tries < MOST_READS => {
                tries += 1;
                std::thread::sleep(READ_AGAIN);
            }
            Err(reason) => return Err(reason),
        }
    }
}

/// Whether a file cannot be there: it is missing, or its directory is a file.
fn is_absent(reason: &io::Error) -> bool {
    matches!(
        reason.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Whether others can open the file: a lock on it can be anybody's.
fn is_open_to_others(stat: &Stat) -> bool {
    stat.st_mode & OTHERS != 0
}

/// An empty file is one that a verb has just made.
fn contents(file: &File) -> io::Result<Requests> {
    let mut text = vec![0; LONGEST];
    let read = file.read_at(&mut text, 0)?;
    if read == 0 {
        return Ok(Requests::default());
    }
    serde_json::from_slice(&text[..read])
        .map_err(|reason| io::Error::other(format!("it makes no sense ({reason})")))
}

fn lock(kind: libc::c_int, byte: libc::off_t) -> libc::flock {
    #[allow(
        clippy::cast_possible_truncation,
        reason = "these constants are small (fcntl(2))"
    )]
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    }
}

/// Whether a command that `inhibit` started, or a child of it, still runs. Takes no lock.
fn is_running(file: &File) -> bool {
    let mut asked = lock(libc::F_WRLCK, COMMAND);
    fcntl(file.as_fd(), FcntlArg::F_OFD_GETLK(&mut asked)).is_ok()
        && i32::from(asked.l_type) != libc::F_UNLCK
}

/// Changes the file; makes it if it is missing, and removes it if it asks for nothing any more. Waits up
/// to 2 seconds for another verb. What cannot be read is replaced.
///
/// # Errors
/// It cannot be made, written or locked; it is not a regular file, or belongs to somebody other than
/// root and us.
pub(crate) fn change(path: &Path, change: impl FnOnce(&mut Requests)) -> io::Result<()> {
    let changing = Changing::begin(path)?;
    changing.write(change, None, |_| Ok(()))
}

/// The user whose runs alone heed the file, if root has given it to the owner of its directory.
pub(crate) fn only_for(path: &Path) -> Option<u32> {
    let stat = rustix::fs::lstat(path).ok()?;
    (!file::is_ours(&stat)).then_some(stat.st_uid)
}

/// The file, while no other verb can change it.
struct Changing<'a> {
    path: &'a Path,
    /// What takes its place, and is locked. No command has it open.
    new: File,
    new_path: PathBuf,
}

impl<'a> Changing<'a> {
    fn begin(path: &'a Path) -> io::Result<Self> {
        let new_path = path.with_extension(NEW);
        for _ in 0..MOST_TRIES {
            let (new, stat) = file::open_or_make(&new_path, OFlags::RDWR, MODE)?;
            if is_open_to_others(&stat) {
                std::fs::remove_file(&new_path)?;
                continue;
            }
            let taken = fcntl(
                new.as_fd(),
                FcntlArg::F_OFD_SETLK(&lock(libc::F_WRLCK, CHANGE)),
            );
            match taken {
                // Another verb may have renamed or removed it meanwhile.
                Ok(_) => match rustix::fs::statat(CWD, &new_path, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(now) if (now.st_dev, now.st_ino) == (stat.st_dev, stat.st_ino) => {
                        return Ok(Self {
                            path,
                            new,
                            new_path,
                        });
                    }
                    _ => (),
                },
                Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EACCES) => {
                    std::thread::sleep(READ_AGAIN);
                }
                Err(reason) => return Err(reason.into()),
            }
        }
        Err(io::Error::other("another command is changing it"))
    }

    /// Changes it, adds the command that begins, and locks the file for that.
    fn write<T>(
        self,
        change: impl FnOnce(&mut Requests),
        begins: Option<&Inhibit>,
        lock: impl FnOnce(&Path) -> io::Result<T>,
    ) -> io::Result<T> {
        let written = self.replace(change, begins, lock);
        if written.is_err() {
            self.remove_new();
        }
        written
    }

    fn replace<T>(
        &self,
        change: impl FnOnce(&mut Requests),
        begins: Option<&Inhibit>,
        lock: impl FnOnce(&Path) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut requests = Requests::default();
        match file::open(self.path, OFlags::RDONLY) {
            Ok((old, stat)) => {
                requests = contents(&old).unwrap_or_default();
                if is_open_to_others(&stat) || !is_running(&old) {
                    requests.inhibit.clear();
                }
            }
            Err(reason) if is_absent(&reason) => (),
            Err(reason) => return Err(reason),
        }
        change(&mut requests);
        let is_in_use = !requests.inhibit.is_empty();
        let locked = lock(if is_in_use { self.path } else { &self.new_path })?;
        requests.inhibit.extend(begins.cloned());
        if requests.is_empty() {
            match std::fs::remove_file(self.path) {
                Err(reason) if !is_absent(&reason) => return Err(reason),
                _ => self.remove_new(),
            }
            return Ok(locked);
        }
        requests.format = requests.format.max(FORMAT);
        let mut text = serde_json::to_vec(&requests)?;
        text.push(b'\n');
        if is_in_use {
            let (file, _) = file::open(self.path, OFlags::RDWR)?;
            write(&file, &text)?;
            self.remove_new();
        } else {
            write(&self.new, &text)?;
            self.new.sync_data()?;
            std::fs::rename(&self.new_path, self.path)?;
        }
        Ok(locked)
    }

    /// The next verb makes one of its own.
    fn remove_new(&self) {
        let _ = std::fs::remove_file(&self.new_path);
    }
}

fn write(file: &File, text: &[u8]) -> io::Result<()> {
    file.write_all_at(text, 0)?;
    file.set_len(text.len() as u64)
}

/// Locks the file for a command. It is open in what is started from now on, and cannot be written there.
fn locked(path: &Path) -> io::Result<File> {
    let (file, _) = file::open(path, OFlags::RDONLY)?;
    let shared = lock(libc::F_RDLCK, COMMAND);
    fcntl(file.as_fd(), FcntlArg::F_OFD_SETLK(&shared))?;
    fcntl(file.as_fd(), FcntlArg::F_SETFD(FdFlag::empty()))?;
    Ok(file)
}

/// A pause as long as this process and what it starts from now on live. The kernel ends it.
#[derive(Debug)]
pub(crate) struct Inhibition {
    path: PathBuf,
    /// Open in what is started, too. Its open file description has the lock.
    file: File,
    by: Inhibit,
}

impl Inhibition {
    /// Begins it.
    ///
    /// # Errors
    /// As for `change`.
    pub(crate) fn begin(path: &Path, by: Inhibit) -> io::Result<Self> {
        let changing = Changing::begin(path)?;
        let file = changing.write(|_| (), Some(&by), locked)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            by,
        })
    }

    /// Ends it, also for what the command has left behind: a server that it has started is none of it.
    ///
    /// # Errors
    /// The file cannot be tidied; the pause is over nevertheless.
    pub(crate) fn end(self) -> io::Result<()> {
        let none = lock(libc::F_UNLCK, COMMAND);
        fcntl(self.file.as_fd(), FcntlArg::F_OFD_SETLK(&none))?;
        change(&self.path, |requests| {
            requests.inhibit.retain(|one| *one != self.by);
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::skip::skip;

    const NOW: Time = Time(1_764_052_868);

    fn pause(seconds: u64) -> Pause {
        Pause {
            until: Time(NOW.0 + seconds),
            by: "alice".to_owned(),
            reason: Some("upgrade".to_owned()),
            at: NOW,
        }
    }

    fn inhibit() -> Inhibit {
        Inhibit {
            pid: 4711,
            started: 0,
            by: "alice".to_owned(),
            command: "apt upgrade".to_owned(),
            at: NOW,
        }
    }

    fn directory() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.pause");
        (directory, path)
    }

    fn unreadable(path: &Path) -> String {
        match current(path, NOW).current {
            Current::Unreadable(reason) => reason,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_pause_ends_by_itself() {
        let (_directory, path) = directory();
        assert_eq!(current(&path, NOW), Requested::default());
        change(&path, |requests| requests.pause = Some(pause(60))).unwrap();
        assert_eq!(current(&path, NOW).current, Current::Paused(pause(60)));
        let later = |seconds| current(&path, Time(NOW.0 + seconds)).current;
        assert_eq!(later(59), Current::Paused(pause(60)));
        assert_eq!(later(60), Current::None);
        // A shorter text in the place of a longer one.
        change(&path, |requests| {
            requests.pause = Some(Pause {
                reason: None,
                ..pause(30)
            });
            requests.resume = Some(NOW);
        })
        .unwrap();
        assert_eq!(later(30), Current::None);
        assert_eq!(current(&path, NOW).resume, Some(NOW));
        change(&path, |requests| {
            requests.pause = None;
            requests.resume = None;
        })
        .unwrap();
        assert!(!path.exists(), "it asks for nothing");
    }

    #[test]
    fn what_makes_no_sense_is_no_pause() {
        let (_directory, path) = directory();
        for garbage in [
            "{",
            "[]",
            "\0",
            r#"{"pause":7}"#,
            r#"{"pause":{"until":"soon"}}"#,
        ] {
            std::fs::write(&path, garbage).unwrap();
            let reason = unreadable(&path);
            assert!(
                reason.starts_with("it makes no sense ("),
                "{garbage}: {reason}"
            );
        }
        std::fs::write(&path, "").unwrap();
        assert_eq!(current(&path, NOW), Requested::default());
        std::fs::write(&path, r#"{"pause":{"until":"2999-01-01T00:00:00Z"}}"#).unwrap();
        assert_eq!(
            unreadable(&path),
            "a pause until 2999-01-01T00:00:00Z, in more than 7 days"
        );
        change(&path, |requests| requests.pause = Some(pause(60))).unwrap();
        assert_eq!(current(&path, NOW).current, Current::Paused(pause(60)));
        std::fs::write(&path, r#"{"resume":"2999-01-01T00:00:00Z"}"#).unwrap();
        assert_eq!(current(&path, NOW), Requested::default());
    }

    #[test]
    fn keys_of_a_newer_version_are_kept() {
        let (_directory, path) = directory();
        std::fs::write(
            &path,
            r#"{"format":2,"new":[1],"pause":{"by":"bob","x":1}}"#,
        )
        .unwrap();
        change(&path, |requests| requests.pause = Some(pause(60))).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with("{\"format\":2,") && text.contains("\"new\":[1]"),
            "{text}"
        );
        change(&path, |requests| requests.pause = None).unwrap();
        assert!(path.exists());
    }

    #[test]
    fn nothing_but_a_file_is_read_or_written() {
        let (directory, path) = directory();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(unreadable(&path), "not a regular file");
        assert!(change(&path, |_| ()).is_err());
        std::fs::remove_file(&path).unwrap();
        let target = directory.path().join("target");
        std::fs::write(&target, "{}").unwrap();
        std::os::unix::fs::symlink(&target, &path).unwrap();
        assert_eq!(unreadable(&path), "Too many levels of symbolic links");
        assert!(change(&path, |_| ()).is_err());
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "{}");
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(&target, Some(4711), None).unwrap();
            assert_eq!(unreadable(&target), "it belongs to UID 4711");
        } else {
            skip("only root can make a file for others");
        }
    }

    #[test]
    fn a_command_pauses_until_its_last_process_has_ended() {
        let (_directory, path) = directory();
        let inhibition = Inhibition::begin(&path, inhibit()).unwrap();
        assert_eq!(current(&path, NOW).current, Current::Inhibited(inhibit()));
        // A pause that is set meanwhile stays.
        change(&path, |requests| requests.pause = Some(pause(60))).unwrap();
        assert_eq!(current(&path, NOW).current, Current::Inhibited(inhibit()));
        // It is gone without a word, as with SIGKILL; a copy of its descriptor is a child's.
        let child = inhibition.file.try_clone().unwrap();
        drop(inhibition);
        assert_eq!(current(&path, NOW).current, Current::Inhibited(inhibit()));
        drop(child);
        assert_eq!(current(&path, NOW).current, Current::Paused(pause(60)));
    }

    #[test]
    fn what_a_command_has_left_behind_does_not_pause() {
        let (_directory, path) = directory();
        let one = Inhibition::begin(&path, inhibit()).unwrap();
        let other = Inhibit {
            pid: 4712,
            ..inhibit()
        };
        let two = Inhibition::begin(&path, other.clone()).unwrap();
        let daemon = one.file.try_clone().unwrap();
        one.end().unwrap();
        assert_eq!(current(&path, NOW).current, Current::Inhibited(other));
        two.end().unwrap();
        assert_eq!(current(&path, NOW), Requested::default());
        assert!(!path.exists(), "it asks for nothing");
        drop(daemon);
    }

    /// Every process of a command has the file open, also those of other users that stay behind.
    #[test]
    fn what_a_command_has_left_behind_can_neither_write_nor_pause_again() {
        let (_directory, path) = directory();
        let shared = |file: &File, byte| {
            let lock = lock(libc::F_RDLCK, byte);
            fcntl(file.as_fd(), FcntlArg::F_OFD_SETLK(&lock))
        };
        let one = Inhibition::begin(&path, inhibit()).unwrap();
        change(&path, |requests| requests.pause = Some(pause(60))).unwrap();
        let stranger = one.file.try_clone().unwrap();
        let written = stranger.write_all_at(b"{}", 0).unwrap_err();
        assert_eq!(written.raw_os_error(), Some(libc::EBADF));
        // Neither can it keep verbs from changing the file.
        shared(&stranger, CHANGE).unwrap();
        one.end().unwrap();
        shared(&stranger, COMMAND).unwrap();
        assert_eq!(current(&path, NOW).current, Current::Paused(pause(60)));
        let two = Inhibition::begin(&path, inhibit()).unwrap();
        assert_eq!(current(&path, NOW).current, Current::Inhibited(inhibit()));
        two.end().unwrap();
        change(&path, |requests| {
            requests.pause = None;
            requests.resume = Some(NOW);
        })
        .unwrap();
        assert_eq!(current(&path, NOW).current, Current::None);
        // Its lock alone is no pause either.
        let now_there = File::open(&path).unwrap();
        shared(&now_there, COMMAND).unwrap();
        assert_eq!(current(&path, NOW).current, Current::None);
        drop(stranger);
        let names: Vec<_> = path.parent().unwrap().read_dir().unwrap().collect();
        assert_eq!(names.len(), 1, "{names:?}");
    }

    #[test]
    fn a_command_whose_verb_is_gone_pauses_for_7_days_at_most() {
        let (_directory, path) = directory();
        let in_days = |days: u64| current(&path, Time(NOW.0 + days * 24 * 3600)).current;
        let killed = Inhibition::begin(&path, inhibit()).unwrap();
        assert_eq!(in_days(6), Current::Inhibited(inhibit()));
        assert_eq!(in_days(7), Current::None);
        assert_eq!(current(&path, Time(NOW.0 - 3600)).current, Current::None);
        // As long as the verb itself runs, there is no limit; another process with its PID is not it.
        let pid = nix::unistd::getpid().as_raw();
        let stat = Proc::here().stat(pid).unwrap();
        for (started, is_paused) in [(stat.starttime, true), (stat.starttime - 1, false)] {
            let by = Inhibit {
                pid,
                started,
                ..inhibit()
            };
            let inhibition = Inhibition::begin(&path, by.clone()).unwrap();
            let expected = if is_paused {
                Current::Inhibited(by)
            } else {
                Current::None
            };
            assert_eq!(in_days(8), expected);
            inhibition.end().unwrap();
        }
        drop(killed);
    }

    #[test]
    fn a_command_that_ends_leaves_the_record_of_an_earlier_one() {
        let (_directory, path) = directory();
        let one = Inhibition::begin(&path, inhibit()).unwrap();
        let other = Inhibit {
            pid: 4712,
            ..inhibit()
        };
        Inhibition::begin(&path, other).unwrap().end().unwrap();
        assert_eq!(current(&path, NOW).current, Current::Inhibited(inhibit()));
        one.end().unwrap();
        assert!(!path.exists(), "it asks for nothing");
    }

    /// Whoever can open the file can lock it, for ever: a dead server would stay down.
    #[test]
    fn hazard_15_a_lock_on_a_file_that_others_can_open_is_no_pause() {
        let (_directory, path) = directory();
        let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        change(&path, |requests| requests.resume = Some(NOW)).unwrap();
        assert_eq!(mode(), 0o600);
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let stranger = File::open(&path).unwrap();
        let shared = lock(libc::F_RDLCK, COMMAND);
        fcntl(stranger.as_fd(), FcntlArg::F_OFD_SETLK(&shared)).unwrap();
        assert_eq!(current(&path, NOW).current, Current::None);
        // It is closed to others with the next request, and a lock that was taken before does not count.
        change(&path, |requests| requests.pause = Some(pause(60))).unwrap();
        assert_eq!(mode(), 0o600);
        assert_eq!(current(&path, NOW).current, Current::Paused(pause(60)));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_run_reads_the_same() {
        let (_directory, path) = directory();
        assert_eq!(asked(&path, NOW).await, Requested::default());
        change(&path, |requests| requests.pause = Some(pause(60))).unwrap();
        assert_eq!(asked(&path, NOW).await, current(&path, NOW));
    }
}
