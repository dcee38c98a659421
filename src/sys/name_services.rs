//! The machine's name services (`nsswitch.conf(5)`), asked through getent(1). Behind them can be an LDAP or DNS server
//! that does not answer, and modules of any package: they run in a process that can be killed, and not in this one,
//! which needs no C library for them.

use std::ffi::CString;
use std::fmt;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, pipe2};

use super::{bounded, ffi, signals};
use crate::defaults::GETENT;
use crate::text::{errno_text, seconds};

/// Which name services there are (`nsswitch.conf(5)`).
const SERVICES: &str = "/etc/nsswitch.conf";
/// Those that read files of this machine, or ask its systemd, and are always there.
const LOCAL: [&str; 6] = ["files", "compat", "db", "altfiles", "extrausers", "systemd"];
/// The names of this machine, among others (`hosts(5)`).
const HOSTS: &str = "/etc/hosts";
/// Its exit status for a key that nobody knows.
const UNKNOWN: i32 = 2;
/// The longest answer, in bytes: more than 65,536 groups or 5,000 addresses take. One that is longer ends the question.
const LONGEST: usize = 1 << 20;
/// How often its end is looked for, once it has closed its output.
const POLL: Duration = Duration::from_millis(1);

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
    /// Whether there was no process or memory to ask with, which may be had again in a moment (`fork(2)`).
    pub(crate) fn is_for_lack(&self) -> bool {
        matches!(self, Self::NotStarted(Errno::EAGAIN | Errno::ENOMEM))
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

/// The line that getent(1) prints of a database (`passwd`, `group`, `initgroups`) for this key, as text; `None` where it
/// knows none. Only the first: a user of LDAP can have line breaks in what describes him. What cannot be a key is not asked for, and without time nobody is asked.
///
/// # Errors
/// No answer within the limit, or getent(1) could not answer.
pub(crate) fn entry(
    database: &str,
    key: &str,
    limit: Duration,
) -> Result<Option<String>, NameServiceError> {
    if !is_key(key) {
        return Ok(None);
    }
    if limit.is_zero() {
        return Err(NameServiceError::TimedOut(limit));
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
            return Err(NameServiceError::TimedOut(limit));
        }
        match &question.output {
            Some(output) => _ = is_readable(output, left),
            None => std::thread::sleep(POLL),
        }
    }
}

/// Whether a user that the name services do not know has no account: all of those for users are local.
pub(crate) fn know_all_users() -> bool {
    std::fs::read(SERVICES).map_or(true, |text| are_local(&String::from_utf8_lossy(&text)))
}

fn are_local(services: &str) -> bool {
    let lines = services.lines().filter_map(|line| line.split('#').next());
    let mut services = lines.filter_map(|line| line.trim().strip_prefix("passwd:"));
    services.next().is_none_or(|services| {
        // Between brackets stands what to do after a service.
        let names = services
            .split('[')
            .filter_map(|part| part.rsplit(']').next());
        let mut names = names.flat_map(str::split_whitespace);
        names.all(|name| LOCAL.contains(&name))
    })
}

/// The addresses of a host, in the order of `getaddrinfo(3)`, asked for as long as the caller waits; none where
/// nobody knows the name. Where getent(1) cannot be started, those that the C library finds.
///
/// # Errors
/// getent(1) could not answer, and the C library finds none.
pub(crate) async fn addresses(host: &str) -> Result<Vec<IpAddr>, NameServiceError> {
    if let Some(address) = address(host) {
        return Ok(vec![address]);
    }
    if !is_key(host) {
        return Ok(Vec::new());
    }
    match ask_for_addresses(host).await {
        Err(reason @ NameServiceError::NotStarted(_)) => {
            let asked = host.to_owned();
            let ask = move || {
                let found = (asked.as_str(), 0).to_socket_addrs()?;
                Ok(found.map(|found| found.ip()).collect())
            };
            let found: Option<io::Result<_>> = bounded::in_thread(Duration::MAX, ask).await;
            found.and_then(Result::ok).ok_or(reason)
        }
        answer => answer,
    }
}

async fn ask_for_addresses(host: &str) -> Result<Vec<IpAddr>, NameServiceError> {
    let mut question = Question::start("ahosts", host, ffi::watch)?;
    loop {
        if let Some(answer) = question.answer() {
            let found = addresses_in(&answer?.unwrap_or_default());
            return Ok(if found.iter().all(IpAddr::is_loopback) {
                let hosts = std::fs::read(HOSTS).unwrap_or_default();
                with_loopback(found, &String::from_utf8_lossy(&hosts), host)
            } else {
                found
            });
        }
        match &question.output {
            Some(output) => {
                if let Ok(mut ready) = output.readable().await {
                    ready.clear_ready();
                }
            }
            None => tokio::time::sleep(POLL).await,
        }
    }
}

/// The addresses that `getent ahosts` has printed: each once for every type of socket.
fn addresses_in(said: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for line in said.lines() {
        let word = line.split_whitespace().next().unwrap_or_default();
        if let Some(address) = address(word)
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found
}

/// Those of a name of this machine, by its list of hosts (`hosts(5)`). getent(1) asks with AI_ADDRCONFIG
/// (`getaddrinfo(3)`): on a machine whose only address of IPv6 is `::1` it finds none of IPv6, and `127.0.0.1` where the
/// list has `::1`; on one whose only address of IPv4 is `127.0.0.1`, none of IPv4.
fn with_loopback(mut found: Vec<IpAddr>, hosts: &str, host: &str) -> Vec<IpAddr> {
    let mut listed = Vec::new();
    for line in hosts.lines() {
        let mut words = line
            .split('#')
            .next()
            .unwrap_or_default()
            .split_whitespace();
        let ip = words.next().and_then(address).filter(IpAddr::is_loopback);
        if let Some(ip) = ip.filter(|_| words.any(|name| name.eq_ignore_ascii_case(host))) {
            listed.push(ip);
        }
    }
    if !listed.is_empty() && !listed.iter().any(IpAddr::is_ipv4) {
        found.retain(IpAddr::is_ipv6);
    }
    for ip in listed {
        if !found.contains(&ip) {
            found.push(ip);
        }
    }
    found.sort_by_key(IpAddr::is_ipv4);
    found
}

/// An address. One that is valid on one link can name its interface behind it. Where the machine has no address of IPv4,
/// getent(1) writes one of IPv4 as one of IPv6 (AI_V4MAPPED, `getaddrinfo(3)`).
fn address(text: &str) -> Option<IpAddr> {
    let address: IpAddr = text.split('%').next()?.parse().ok()?;
    Some(address.to_canonical())
}

/// Whether getent(1) takes it for a key: not for an option, and not for a number that is none (`strtoul(3)`).
fn is_key(text: &str) -> bool {
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
struct Question<F> {
    pid: Pid,
    /// Whether it has ended and was waited for.
    is_over: bool,
    /// The pipe that it prints to; none once it has closed that.
    output: Option<F>,
    said: Vec<u8>,
}

impl<F: AsFd> Question<F> {
    fn start(
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
    fn answer(&mut self) -> Option<Result<Option<String>, NameServiceError>> {
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
    fn a_service_of_another_machine_may_know_more_users() {
        for (services, expected) in [
            ("passwd: files systemd\ngroup: files sss\n", true),
            ("passwd:files # sss\n", true),
            (
                "passwd: files [ !UNAVAIL=return SUCCESS=merge ] systemd\n",
                true,
            ),
            ("hosts: files dns\n#passwd: sss\n", true),
            ("", true),
            ("passwd: sss files systemd\n", false),
            (
                "group: files\n  passwd:\tfiles [SUCCESS=return] ldap\n",
                false,
            ),
        ] {
            assert_eq!(are_local(services), expected, "{services}");
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

    #[tokio::test(flavor = "current_thread")]
    async fn a_host_has_its_addresses_once() {
        let local = addresses("localhost").await.unwrap();
        assert!(!local.is_empty() && local.iter().all(IpAddr::is_loopback));
        for (host, expected) in [
            ("::1", "::1"),
            ("127.0.0.9", "127.0.0.9"),
            ("fe80::1%lo", "fe80::1"),
        ] {
            assert_eq!(addresses(host).await, Ok(vec![expected.parse().unwrap()]));
        }
        assert_eq!(addresses("-x").await, Ok(vec![]));
        let printed = "::1             STREAM localhost\n::1             DGRAM  \n\
                       fe80::2%eth0    STREAM \n::ffff:127.0.0.1 STREAM \nnss_x: warning\n";
        let expected: [IpAddr; 3] = ["::1", "fe80::2", "127.0.0.1"].map(|one| one.parse().unwrap());
        assert_eq!(addresses_in(printed), expected);
    }

    #[test]
    fn a_name_of_this_machine_has_the_loopback_addresses_that_are_listed() {
        let hosts = "# 127.0.0.9 localhost\n127.0.0.1 localhost # ::2 only6\n::1 LOCALHOST only6\n\
                     fe80::1%lo only6\n127.0.0.1 only4\n10.0.0.1 other localhost\nrubbish only4\n";
        for (host, found, expected) in [
            ("localhost", "127.0.0.1", "::1 127.0.0.1"),
            ("localhost", "::1", "::1 127.0.0.1"),
            ("only6", "127.0.0.1", "::1"),
            ("only4", "", "127.0.0.1"),
            ("only4", "::1", "::1 127.0.0.1"),
            ("unknown", "", ""),
            ("elsewhere", "127.0.0.1", "127.0.0.1"),
        ] {
            let parse = |text: &str| addresses_in(&text.replace(' ', "\n"));
            let merged = with_loopback(parse(found), hosts, host);
            assert_eq!(merged, parse(expected), "{host} {found}");
        }
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
