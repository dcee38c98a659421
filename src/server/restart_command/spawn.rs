//! The start of the restart command: its shell, environment, user, session and output file.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::statvfs::fstatvfs;
use nix::unistd::{AccessFlags, access, geteuid};

use crate::proc::process::Proc;
use crate::sys::account::{self, Account};
use crate::sys::descriptors::{self, Spare};
use crate::sys::ffi::{self, Credentials};
use crate::sys::files;
use crate::sys::name_services::NameServiceError;
use crate::sys::pidfd::Pidfd;
use crate::text::errno_text;

/// Lines of the end of a failed command's output that are logged, at most.
const LAST_LINES: usize = 50;
/// Bytes that are read from the end of that output.
const LAST_BYTES: u64 = 64 * 1024;
/// Who may read the output.
const OUTPUT_MODE: u32 = 0o640;
/// Where commands are looked for when PATH is not set.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The shells that run the command, the best first: the manual promises `source`.
const SHELLS: [&str; 2] = ["/bin/bash", "/bin/sh"];
/// Descriptors that `Command::spawn` opens here, the two ends over which the child reports a failure:
/// those that are held for it, and those that /proc is read with in the meantime.
const SPAWN: (usize, usize) = (1, 1);
/// The least limit of descriptors under which the started shell can run a script: dash keeps the
/// script's descriptor at 10 or above, and a copy of what it redirects too.
const SHELL_LIMIT: usize = 13;

/// What the start of the restart command lacks.
#[derive(Debug)]
pub(crate) enum PrepareError {
    /// Descriptors.
    TooFew(io::Error),
    /// /dev/null.
    NoNull(io::Error),
    /// The groups of this user.
    Groups(String, NameServiceError),
}

impl fmt::Display for PrepareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooFew(reason) => write!(
                f,
                "too few file descriptors ({}): allow 16 or more (ulimit -n, LimitNOFILE=)",
                errno_text(reason)
            ),
            Self::NoNull(reason) => write!(f, "/dev/null: {}", errno_text(reason)),
            Self::Groups(user, reason) => write!(f, "the groups of {user}: {reason}"),
        }
    }
}

/// All that the start of the restart command needs, at hand before anything is stopped.
#[derive(Debug)]
pub(crate) struct Prepared {
    command: String,
    environment: Vec<(&'static str, OsString)>,
    user: Option<Credentials>,
    output: Option<Arc<File>>,
    /// The length of the output file, in bytes, before the start.
    length: u64,
    spare: Option<Spare>,
}

impl Prepared {
    /// Opens the output file, to which a server may go on writing for days, and looks up the
    /// environment; `account` is who the command runs as, if that is somebody else. The second value
    /// says why the output is discarded, if it has to be.
    ///
    /// # Errors
    /// What is missing.
    pub(crate) fn new(
        command: &str,
        output: &Path,
        account: Option<&Account>,
    ) -> Result<(Self, Option<io::Error>), PrepareError> {
        let account = account.filter(|account| !account.is_own());
        let environment = match account {
            Some(account) => environment_of(account, set),
            None => missing_environment(),
        };
        if descriptors::soft_limit() < SHELL_LIMIT as u64 {
            return Err(PrepareError::TooFew(Errno::EMFILE.into()));
        }
        // It takes descriptors, which are free again afterwards.
        let user = account.map(credentials).transpose()?;
        descriptors::close_stdin().map_err(|reason| {
            if descriptors::is_for_descriptors(&reason) {
                PrepareError::TooFew(reason)
            } else {
                PrepareError::NoNull(reason)
            }
        })?;
        let (file, lost) = match open_output(output) {
            Ok(file) => (Some(file), None),
            Err(reason) if descriptors::is_for_descriptors(&reason) => {
                return Err(PrepareError::TooFew(reason));
            }
            Err(reason) => (None, Some(reason)),
        };
        let length = file.as_ref().map_or(0, length);
        let spare = Spare::hold(SPAWN.0).map_err(PrepareError::TooFew)?;
        Spare::hold(SPAWN.1).map_err(PrepareError::TooFew)?;
        let prepared = Self {
            command: command.to_owned(),
            environment,
            user,
            output: file.map(Arc::new),
            length,
            spare: Some(spare),
        };
        Ok((prepared, lost))
    }

    /// Starts the command detached: a session of its own, nothing on stdin, its output appended to the
    /// file, and none of our descriptors. After an error nothing runs, and it can be called again.
    ///
    /// # Errors
    /// As `fork(2)`, `execve(2)` and, for another user, `setgroups(2)`, `setgid(2)`, `setuid(2)`; see
    /// `descriptors::is_for_lack` for those that may be over in a moment.
    pub(crate) fn spawn(&mut self) -> io::Result<Running> {
        self.spare = None;
        let output = self.output.clone();
        let output = output.map(|file| (length(&file).max(self.length), file));
        let spawned = self.spawn_shell(shell(), SHELLS[1]);
        if spawned.is_err() {
            // For the next attempt; it may do without.
            self.spare = Spare::hold(SPAWN.0).ok();
        }
        let child = spawned?;
        Ok(Running {
            exit: Pidfd::of(i32::try_from(child.id()).unwrap_or_default()),
            child,
            output: output.map(|(from, file)| (file, from)),
        })
    }

    /// One shell that cannot be executed need not keep the server down.
    fn spawn_shell(&self, first: &str, second: &str) -> io::Result<Child> {
        match self.spawn_by(first) {
            Err(reason) if !is_final(&reason) => self.spawn_by(second),
            spawned => spawned,
        }
        .map_err(|reason| {
            if reason.raw_os_error() == Some(ffi::STILL_ROOT as i32) {
                let what = "setuid(0) was allowed after the change of user, so nothing was run; look for \
                    securebits such as no-setuid-fixup (capabilities(7))";
                io::Error::other(what)
            } else {
                reason
            }
        })
    }

    fn spawn_by(&self, shell: &str) -> io::Result<Child> {
        let mut command = Command::new(shell);
        command.arg("-c").arg(&self.command);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        ffi::detach(&mut command, self.output.clone(), self.user.clone());
        command.spawn()
    }
}

/// Whether another shell would fare no better.
fn is_final(reason: &io::Error) -> bool {
    descriptors::is_for_lack(reason) || reason.raw_os_error() == Some(ffi::STILL_ROOT as i32)
}

/// Who the command is to become.
fn credentials(account: &Account) -> Result<Credentials, PrepareError> {
    let groups = account.groups().map_err(|reason| match reason {
        NameServiceError::NotStarted(errno) if descriptors::is_for_descriptors(&errno.into()) => {
            PrepareError::TooFew(errno.into())
        }
        reason => PrepareError::Groups(account.shown(), reason),
    })?;
    Ok(Credentials {
        uid: account.uid,
        gid: account.gid,
        groups,
    })
}

fn length(file: &File) -> u64 {
    file.metadata().map_or(0, |metadata| metadata.len())
}

/// A restart command that was started.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    exit: Pidfd,
    /// Where its output goes, and where in it that begins.
    output: Option<(Arc<File>, u64)>,
}

impl Running {
    /// The PID of the shell, or of what it became by `exec`.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the command to end.
    pub(crate) async fn ended(&mut self) -> io::Result<ExitStatus> {
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Err(reason) if reason.kind() != io::ErrorKind::Interrupted => return Err(reason),
                // Not yet, or interrupted.
                _ => {
                    self.exit.near().await;
                }
            }
        }
    }

    /// The last lines that the command wrote.
    pub(crate) fn last_lines(&self) -> io::Result<Vec<String>> {
        let Some((file, from)) = &self.output else {
            return Ok(Vec::new());
        };
        // By the file that we opened: the path may lead elsewhere by now. It is open for writing only, for the
        // command, which another user may run, has it too.
        let file = File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        let end = file.metadata()?.len();
        let start = (*from).max(end.saturating_sub(LAST_BYTES));
        let length = usize::try_from(end.saturating_sub(start)).unwrap_or_default();
        let mut bytes = vec![0; length];
        let read = file.read_at(&mut bytes, start)?;
        bytes.truncate(read);
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        Ok(lines[lines.len().saturating_sub(LAST_LINES)..]
            .iter()
            .map(|line| (*line).to_owned())
            .collect())
    }
}

/// Whether a process descends from this monitor. As a subreaper (`sys::signals::subreaper`), the
/// monitor keeps all that its restart command has started; a process that cannot be read is none.
pub(crate) fn started_by_us(pid: i32) -> bool {
    let us = nix::unistd::getpid().as_raw();
    let mut seen = HashSet::new();
    let mut next = pid;
    while next > 1 && next != us && seen.insert(next) {
        next = Proc::here().stat(next).map_or(0, |stat| stat.ppid);
    }
    next == us && pid != us
}

fn open_output(path: &Path) -> io::Result<File> {
    let file = files::open_append(path, OUTPUT_MODE)?;
    // A server must not fail because its output goes to a disk that is full already.
    let disk = fstatvfs(&file)?;
    let free = if geteuid().is_root() {
        disk.blocks_free()
    } else {
        disk.blocks_available()
    };
    if disk.blocks() > 0 && free == 0 {
        return Err(Errno::ENOSPC.into());
    }
    Ok(file)
}

/// The shell that runs what the administrator has given.
pub(in crate::server) fn shell() -> &'static str {
    let [bash, sh] = SHELLS;
    if access(bash, AccessFlags::X_OK).is_ok() {
        bash
    } else {
        sh
    }
}

/// The environment of another user, as `User=` gives it (`systemd.exec(5)`), and PATH where it is
/// missing. `set`: the variables of our own environment.
fn environment_of(
    account: &Account,
    set: impl Fn(&str) -> Option<OsString>,
) -> Vec<(&'static str, OsString)> {
    let user = OsString::from(account.shown());
    let mut all = vec![
        ("USER", user.clone()),
        ("LOGNAME", user),
        ("HOME", account.home.clone().into()),
        ("SHELL", account.shell.clone().into()),
    ];
    all.extend(set("PATH").is_none().then(|| ("PATH", PATH.into())));
    all
}

/// USER, LOGNAME, HOME, SHELL and PATH, where they are missing: cron sets no USER, and
/// `manage.py` recognises a running server by it.
pub(crate) fn missing_environment() -> Vec<(&'static str, OsString)> {
    missing_of(set)
}

/// The same, where `set` looks up the variables of our own environment.
fn missing_of(set: impl Fn(&str) -> Option<OsString>) -> Vec<(&'static str, OsString)> {
    let named = set("USER").or_else(|| set("LOGNAME"));
    let is_complete = named.is_some() && set("HOME").is_some() && set("SHELL").is_some();
    let account = if is_complete {
        None
    } else {
        account::by_uid(geteuid()).ok().flatten()
    };
    let user = named.or_else(|| account.as_ref().map(|account| account.shown().into()));
    let wanted = [
        ("USER", user.clone()),
        ("LOGNAME", user),
        (
            "HOME",
            account.as_ref().map(|account| account.home.clone().into()),
        ),
        (
            "SHELL",
            account.as_ref().map(|account| account.shell.clone().into()),
        ),
        ("PATH", Some(PATH.into())),
    ];
    let missing = wanted.into_iter().filter(|(name, _)| set(name).is_none());
    missing
        .filter_map(|(name, value)| value.map(|value| (name, value)))
        .collect()
}

/// A variable of our own environment that is not empty.
fn set(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::OpenOptionsExt;

    use super::*;

    #[test]
    fn what_the_command_leaves_behind_is_still_ours() {
        crate::sys::signals::subreaper();
        // The shell ends at once, and its sleep goes to the next subreaper above.
        let said = Command::new("sh")
            .args(["-c", "sleep 600 >/dev/null 2>&1 & echo $!"])
            .output()
            .unwrap();
        let orphan: i32 = String::from_utf8(said.stdout)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        assert!(started_by_us(orphan));
        assert!(!started_by_us(1) && !started_by_us(nix::unistd::getppid().as_raw()));
        assert!(!started_by_us(nix::unistd::getpid().as_raw()));
        let orphan = nix::unistd::Pid::from_raw(orphan);
        nix::sys::signal::kill(orphan, nix::sys::signal::Signal::SIGKILL).unwrap();
        nix::sys::wait::waitpid(orphan, None).unwrap();
        assert!(!started_by_us(orphan.as_raw()), "it is gone");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_is_prepared_can_be_started_and_has_an_output() {
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path().join("output");
        std::fs::write(&output, "before\n").unwrap();
        let (mut prepared, lost) =
            Prepared::new("echo one; echo two >&2; read x", &output, None).unwrap();
        assert!(lost.is_none());
        std::fs::write(&output, "before\nmeanwhile\n").unwrap();
        let mut running = prepared.spawn().unwrap();
        assert_eq!(running.ended().await.unwrap().code(), Some(1));
        assert_eq!(running.last_lines().unwrap(), ["one", "two"]);
        let nowhere = directory.path().join("no/such/output");
        let (mut prepared, lost) = Prepared::new("echo lost", &nowhere, None).unwrap();
        assert_eq!(lost.unwrap().kind(), io::ErrorKind::NotFound);
        let mut running = prepared.spawn().unwrap();
        assert!(running.ended().await.unwrap().success());
        assert_eq!(running.last_lines().unwrap(), Vec::<String>::new());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_is_started_has_no_signal_blocked() {
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path().join("output");
        let _signals = crate::sys::signals::Signals::catch();
        let (mut prepared, _) =
            Prepared::new("grep SigBlk: /proc/self/status", &output, None).unwrap();
        let mut running = prepared.spawn().unwrap();
        assert!(running.ended().await.unwrap().success());
        assert_eq!(running.last_lines().unwrap(), ["SigBlk:\t0000000000000000"]);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn one_shell_that_cannot_be_executed_does_not_keep_the_server_down() {
        let directory = tempfile::tempdir().unwrap();
        let (prepared, _) =
            Prepared::new("exit 3", &directory.path().join("output"), None).unwrap();
        let no_shell = directory.path().join("no-shell");
        let no_shell = no_shell.to_str().unwrap();
        let mut child = prepared.spawn_shell(no_shell, "/bin/sh").unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(3));
        let failed = prepared.spawn_shell(no_shell, no_shell).unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::NotFound);
        // What passes is for the next attempt, and not for another shell.
        let busy = directory.path().join("busy");
        let options = std::fs::OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o700)
            .open(&busy);
        let _writer = options.unwrap();
        let busy = busy.to_str().unwrap();
        match prepared.spawn_shell(busy, "/bin/sh") {
            Err(failed) => assert_eq!(failed.raw_os_error(), Some(Errno::ETXTBSY as i32)),
            // Linux 6.11 lets a program be executed that is open for writing.
            Ok(mut child) => assert_eq!(child.wait().unwrap().code(), Some(3)),
        }
    }

    #[test]
    fn another_shell_fares_no_better_where_resources_lack_or_the_user_stays_root() {
        let is_final = |number: i32| is_final(&io::Error::from_raw_os_error(number));
        assert!(is_final(Errno::EAGAIN as i32));
        assert!(is_final(ffi::STILL_ROOT as i32));
        assert!(!is_final(Errno::ENOENT as i32));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_process_of_a_started_command_is_its_shell() {
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path().join("output");
        let (mut prepared, _) = Prepared::new("echo $$", &output, None).unwrap();
        let mut running = prepared.spawn().unwrap();
        assert!(running.ended().await.unwrap().success());
        assert_eq!(running.last_lines().unwrap(), [running.pid().to_string()]);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn of_a_long_output_the_last_lines_are_shown() {
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path().join("output");
        std::fs::write(&output, "before\n").unwrap();
        let shown = async |command: &str| {
            let (mut prepared, _) = Prepared::new(command, &output, None).unwrap();
            let mut running = prepared.spawn().unwrap();
            assert!(running.ended().await.unwrap().success());
            running.last_lines().unwrap()
        };
        let lines =
            shown("i=1; while [ $i -le 60 ]; do printf '%0999d\\n' $i; i=$((i+1)); done").await;
        let expected: Vec<String> = (11..=60).map(|number| format!("{number:0999}")).collect();
        assert_eq!(lines, expected);
        // One line that is longer than what is read.
        let lines = shown("printf '%070000d\\n' 7").await;
        assert_eq!(lines, [format!("{:065535}", 7)]);
    }

    #[test]
    fn the_shell_is_there() {
        assert!(SHELLS.contains(&shell()));
        let has_bash = access(SHELLS[0], AccessFlags::X_OK).is_ok();
        assert_eq!(shell() == SHELLS[0], has_bash);
    }

    #[test]
    fn a_file_system_that_has_no_blocks_is_not_full() {
        // Nothing is written to it.
        open_output(Path::new("/proc/thread-self/comm")).unwrap();
    }

    #[test]
    fn a_variable_that_is_set_has_a_value() {
        assert_eq!(set("PATH"), std::env::var_os("PATH"));
        assert_eq!(set("NO_SUCH_VARIABLE_HERE"), None);
    }

    #[test]
    fn another_user_gets_an_environment_of_their_own() {
        let account = Account {
            name: Some("vnc".into()),
            uid: 3_999_999.into(),
            gid: 3_999_998.into(),
            home: "/home/vnc".into(),
            shell: "/bin/zsh".into(),
        };
        let mut expected = vec![
            ("USER", "vnc".into()),
            ("LOGNAME", "vnc".into()),
            ("HOME", "/home/vnc".into()),
            ("SHELL", "/bin/zsh".into()),
        ];
        let all = |_: &str| Some("set".into());
        assert_eq!(environment_of(&account, all), expected);
        expected.push(("PATH", PATH.into()));
        assert_eq!(environment_of(&account, |_| None), expected);
    }

    #[test]
    fn what_is_missing_in_our_own_environment_is_added() {
        let added =
            |present: &[&str]| missing_of(|name| present.contains(&name).then(|| "own".into()));
        let all = ["USER", "LOGNAME", "HOME", "SHELL", "PATH"];
        assert_eq!(added(&all), []);
        assert_eq!(added(&all[..4]), [("PATH", PATH.into())]);
        let (logname, user) = (("LOGNAME", "own".into()), ("USER", "own".into()));
        assert_eq!(added(&["USER", "HOME", "SHELL", "PATH"]), [logname]);
        assert_eq!(added(&["LOGNAME", "HOME", "SHELL", "PATH"]), [user]);
        let account = account::by_uid(geteuid()).unwrap();
        let of_account = |name, value: Option<OsString>| value.map(|value| (name, value));
        let home = account.as_ref().map(|account| account.home.clone().into());
        let home = of_account("HOME", home);
        let its_shell = account.as_ref().map(|account| account.shell.clone().into());
        let its_shell = of_account("SHELL", its_shell);
        let user = account.map(|account| OsString::from(account.shown()));
        let names = [
            of_account("USER", user.clone()),
            of_account("LOGNAME", user),
        ];
        let lists = [
            (
                &all[3..],
                names.iter().chain([&home]).flatten().collect::<Vec<_>>(),
            ),
            (
                &["USER", "LOGNAME", "PATH", "SHELL"][..],
                home.iter().collect(),
            ),
            (
                &["USER", "LOGNAME", "PATH", "HOME"][..],
                its_shell.iter().collect(),
            ),
            (
                &["USER", "LOGNAME", "PATH"][..],
                home.iter().chain(&its_shell).collect(),
            ),
        ];
        for (present, expected) in lists {
            let added = added(present);
            assert_eq!(added.iter().collect::<Vec<_>>(), expected, "{present:?}");
        }
    }
}
