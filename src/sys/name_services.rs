//! The machine's name services (`nsswitch.conf(5)`), asked by running getent(1). An LDAP or DNS server may not answer, and
//! any package can bring the code that asks it: so it runs in a process that can be killed, and not in this one.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, pipe2};

use super::{descriptors, ffi, signals};
use crate::defaults::GETENT;
use crate::text::{errno_text, seconds};

/// Which name services there are (`nsswitch.conf(5)`).
const SERVICES: &str = "/etc/nsswitch.conf";
/// getent's exit status for a key that nobody knows.
const UNKNOWN: i32 = 2;
/// The longest answer, in bytes: more than 65,536 groups or 5,000 addresses take. One that is longer ends the question.
const LONGEST: usize = 1 << 20;
/// The longest time limit, for each database, within which the services have not answered this process.
static SILENCE: Mutex<BTreeMap<&str, Duration>> = Mutex::new(BTreeMap::new());
/// How often its end is looked for, once it has closed its output.
pub(super) const POLL: Duration = Duration::from_millis(1);

/// Why the name services gave no answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum NameServiceError {
    /// They did not answer within this time.
    TimedOut(Duration),
    /// getent(1) could not be started.
    NotStarted(Errno),
    /// It ended with this exit status, or was ended by a signal.
    Failed(Option<i32>),
    /// It printed more than any answer has.
    TooLong,
    /// They know no such user. getent(1) says the same of a service that is down.
    Unknown,
}

impl NameServiceError {
    /// Whether what was lacking to ask with may be had again in a moment (`descriptors::is_for_lack`): a process or
    /// memory, but not descriptors, which this process has too few of.
    pub(crate) fn is_for_lack(&self) -> bool {
        let Self::NotStarted(errno) = self else {
            return false;
        };
        let reason = (*errno).into();
        descriptors::is_for_lack(&reason) && !descriptors::is_for_descriptors(&reason)
    }
}

impl fmt::Display for NameServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut(limit) => write!(
                f,
                "the name services did not answer within {} seconds",
                seconds(*limit)
            ),
            Self::NotStarted(errno) => {
                write!(f, "cannot run {GETENT}: {}", errno_text(&(*errno).into()))
            }
            Self::Failed(Some(status)) => write!(f, "{GETENT} exited with status {status}"),
            Self::Failed(None) => write!(f, "{GETENT} was ended by a signal"),
            Self::TooLong => write!(f, "{GETENT} printed too much"),
            Self::Unknown => {
                f.write_str("the name services know no such user, or one of them is down")
            }
        }
    }
}

/// The line that getent(1) prints of a database (`passwd`, `group`, `initgroups`) for this key; `None` where nobody knows
/// it. Only the first: the comment of a user of LDAP can have line breaks. What cannot be a key is not asked for. If
/// the services have not answered in time once, this process does not ask them again with the same limit or a shorter
/// one: a run of several servers waits once for a service that hangs.
///
/// # Errors
/// No answer within the limit, or getent(1) could not answer.
pub(crate) fn entry(
    database: &'static str,
    key: &str,
    limit: Duration,
) -> Result<Option<String>, NameServiceError> {
    if !is_key(key) {
        return Ok(None);
    }
    let silence = || SILENCE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(waited) = silence().get(database).filter(|waited| **waited >= limit) {
        return Err(NameServiceError::TimedOut(*waited));
    }
    let until = Instant::now() + limit;
    let mut question = Question::start(database, key, Ok)?;
    loop {
        if let Some(answer) = question.answer() {
            let line = |said: String| said.lines().next().map(str::to_owned);
            return answer.map(|said| said.and_then(line));
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            silence().insert(database, limit);
            return Err(NameServiceError::TimedOut(limit));
        }
        match &question.output {
            Some(output) => _ = is_readable(output, left),
            None => std::thread::sleep(POLL),
        }
    }
}

/// The services of a database in their order (`nsswitch.conf(5)`); `None` where nothing is said of it.
///
/// # Errors
/// The file is there and cannot be read.
pub(super) fn services(database: &str) -> io::Result<Option<Vec<String>>> {
    match std::fs::read(SERVICES) {
        Err(reason) if reason.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(reason) => Err(reason),
        Ok(text) => Ok(services_in(&String::from_utf8_lossy(&text), database)),
    }
}

/// As glibc reads the file: of two lines for a database, the last counts, and the colon can be missing.
fn services_in(text: &str, database: &str) -> Option<Vec<String>> {
    let lines = text.lines().filter_map(|line| line.split('#').next());
    let mut listed = lines.filter_map(|line| {
        let is_end = |c: char| c == ':' || c.is_whitespace();
        let (name, services) = line.trim_start().split_once(is_end)?;
        (name == database).then_some(services)
    });
    // Between brackets stands what to do after a service.
    let parts = listed.next_back()?.split('[');
    let names = parts.filter_map(|part| part.rsplit(']').next());
    let names = names.flat_map(str::split_whitespace);
    Some(names.map(str::to_owned).collect())
}

/// Whether getent(1) takes it for a key: not for an option, and not for a number that is none (`strtoul(3)`).
pub(super) fn is_key(text: &str) -> bool {
    let is_read_as_another = |c: char| c == '-' || c == '+' || c.is_whitespace();
    !text.is_empty()
        && !text.starts_with(is_read_as_another)
        && !text.contains(|c: char| c == ':' || c.is_control())
}

/// Whether a pipe has something to read, or its end, within this time.
fn is_readable(pipe: &impl AsFd, limit: Duration) -> bool {
    let mut watched = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
    let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
    poll(&mut watched, limit).is_ok_and(|ready| ready > 0)
}

/// A question that is being answered. Dropped, its process is killed, and what that has started.
#[derive(Debug)]
pub(super) struct Question<F> {
    pid: Pid,
    /// Whether it has ended and was waited for.
    is_over: bool,
    /// The pipe that it prints to; none once it has closed that.
    pub(super) output: Option<F>,
    said: Vec<u8>,
}

impl<F: AsFd> Question<F> {
    /// Starts getent(1). `watch` prepares the pipe for being waited for.
    ///
    /// # Errors
    /// getent(1) cannot be started.
    pub(super) fn start(
        database: &str,
        key: &str,
        watch: impl FnOnce(OwnedFd) -> io::Result<F>,
    ) -> Result<Self, NameServiceError> {
        let begin = || {
            let words = [GETENT, database, key].map(CString::new);
            let words = words.into_iter().collect::<Result<Vec<_>, _>>()?;
            let (reader, writer): (OwnedFd, OwnedFd) = pipe2(OFlag::O_CLOEXEC)?;
            let output = watch(reader)?;
            signals::keep_children();
            Ok(Self {
                pid: ffi::execute(&words, writer)?,
                is_over: false,
                output: Some(output),
                said: Vec::new(),
            })
        };
        begin().map_err(|reason: io::Error| {
            let number = reason.raw_os_error();
            NameServiceError::NotStarted(number.map_or(Errno::EINVAL, Errno::from_raw))
        })
    }

    /// Takes what there is to read; the answer, once the process has ended.
    pub(super) fn answer(&mut self) -> Option<Result<Option<String>, NameServiceError>> {
        while let Some(output) = self
            .output
            .take_if(|output| is_readable(output, Duration::ZERO))
        {
            let mut bytes = [0; 4096];
            let count = nix::unistd::read(&output, &mut bytes).unwrap_or_default();
            if count > 0 {
                self.said.extend(&bytes[..count]);
                self.output = Some(output);
            }
            if self.said.len() > LONGEST {
                return Some(Err(NameServiceError::TooLong));
            }
        }
        if self.output.is_some() {
            return None;
        }
        let status = match waitpid(self.pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return None,
            Ok(WaitStatus::Exited(_, status)) => Some(status),
            _ => None,
        };
        self.is_over = true;
        if let [ffi::NOT_EXECUTED, errno] = self.said[..] {
            let errno = Errno::from_raw(errno.into());
            return Some(Err(NameServiceError::NotStarted(errno)));
        }
        let said = String::from_utf8_lossy(&self.said);
        Some(match status {
            Some(0) => Ok(Some(said.into_owned())),
            Some(UNKNOWN) => Ok(None),
            status => Err(NameServiceError::Failed(status)),
        })
    }
}

impl<F> Drop for Question<F> {
    fn drop(&mut self) {
        // As long as it has not been waited for, its ID is nobody else's, and so is its group's.
        if !self.is_over {
            let _ = kill(self.pid, Signal::SIGKILL);
            let _ = killpg(self.pid, Signal::SIGKILL);
            let _ = waitpid(self.pid, Some(WaitPidFlag::WNOHANG));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn what_the_name_services_know_is_found() {
        let root = entry("passwd", "root", LONG).unwrap().unwrap();
        assert!(root.starts_with("root:") && !root.contains('\n'), "{root}");
        assert_eq!(entry("passwd", "0", LONG).unwrap().unwrap(), root);
        assert_eq!(entry("passwd", "no-such-user-here", LONG), Ok(None));
    }

    #[test]
    fn the_services_of_a_database_are_those_that_glibc_asks() {
        for (text, expected) in [
            ("passwd: files systemd\ngroup: files sss\n", "files systemd"),
            ("passwd:files # sss\n", "files"),
            (
                "passwd: files [ !UNAVAIL=return SUCCESS=merge ] systemd\n",
                "files systemd",
            ),
            (
                "group: files\n  passwd:\tfiles [SUCCESS=return] ldap\n",
                "files ldap",
            ),
            // Tried with glibc 2.36.
            ("passwd: files\npasswd: files ldap\n", "files ldap"),
            ("passwd files ldap\n", "files ldap"),
            ("passwd: files\npasswd_compat: ldap\n", "files"),
        ] {
            let listed = services_in(text, "passwd").unwrap();
            assert_eq!(listed.join(" "), expected, "{text}");
        }
        for silent in ["", "hosts: files dns\n#passwd: sss\n"] {
            assert_eq!(services_in(silent, "passwd"), None);
        }
    }

    #[test]
    fn what_can_be_no_key_is_not_asked_for() {
        for text in ["", "-1", "--help", "+0", " 0", "a\nb", "a:b", "\0"] {
            assert_eq!(entry("passwd", text, LONG), Ok(None), "{text:?}");
        }
    }

    #[test]
    fn a_database_that_there_is_not_is_an_error() {
        let answer = entry("no-such-database", "x", LONG);
        assert_eq!(answer, Err(NameServiceError::Failed(Some(1))));
        assert_eq!(
            answer.unwrap_err().to_string(),
            "/usr/bin/getent exited with status 1"
        );
    }

    #[test]
    fn a_question_that_is_given_up_leaves_no_process() {
        let question = Question::start("passwd", "root", Ok).unwrap();
        let pid = question.pid;
        // Its output is not read, and it may have ended or not.
        drop(question);
        let began = Instant::now();
        let wait = || nix::sys::wait::waitpid(pid, Some(nix::sys::wait::WaitPidFlag::WNOHANG));
        while wait() != Err(Errno::ECHILD) {
            assert!(began.elapsed() < LONG, "it is still there");
            std::thread::yield_now();
        }
    }
}
