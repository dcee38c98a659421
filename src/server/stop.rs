//! SIGTERM, SIGCONT, SIGKILL, and seeing that it worked.

use std::io;

use nix::errno::Errno;
use nix::unistd::Pid;
use rustix::process::Signal;

use super::process::Process;
use crate::proc::process::Proc;
use crate::sys::pidfd::Pidfd;
use crate::text::errno_text;

/// A process with a pidfd of it: no other is signalled in its place.
#[derive(Debug)]
pub(crate) struct ProcessHandle {
    /// The process.
    pub(crate) process: Process,
    pidfd: Pidfd,
}

impl ProcessHandle {
    /// Takes hold of a process; `None` when it has ended.
    pub(crate) fn new(process: Process) -> Option<Self> {
        let held = Self {
            pidfd: Pidfd::of(process.pid),
            process,
        };
        // The PID may be a successor's: compared once it is held.
        held.is_alive().then_some(held)
    }

    /// Why we may not signal it (errno text); `None` when we may.
    pub(crate) fn forbidden(&self) -> Option<String> {
        match nix::sys::signal::kill(Pid::from_raw(self.process.pid), None) {
            Ok(()) | Err(Errno::ESRCH) => None,
            Err(reason) => Some(errno_text(&reason.into())),
        }
    }

    /// SIGTERM, then SIGCONT, without which a stopped process cannot act on it (`systemd.kill(5)`).
    /// `false` when it had ended.
    pub(crate) fn terminate(&self) -> io::Result<bool> {
        terminate(|signal| self.send(signal))
    }

    /// SIGKILL. `false` when it had ended.
    pub(crate) fn kill(&self) -> io::Result<bool> {
        self.send(Signal::KILL)
    }

    /// Whether it runs, and not as a zombie.
    pub(crate) fn is_alive(&self) -> bool {
        Proc::here().is_alive(self.process.pid, self.process.start_time)
    }

    /// Waits until it has ended. The pidfd shows that too where the process's state cannot be read.
    pub(crate) async fn ended(&self) {
        while self.is_alive() && !self.pidfd.near().await {}
    }

    fn send(&self, signal: Signal) -> io::Result<bool> {
        send(&self.pidfd, signal, || self.is_alive())
    }
}

/// SIGTERM, then SIGCONT, to a process of the server's that is none of its own. `false` when it had ended.
///
/// # Errors
/// As `kill(2)`.
pub(crate) fn end_child(pid: i32, start_time: u64) -> io::Result<bool> {
    let is_alive = || Proc::here().is_alive(pid, start_time);
    let pidfd = Pidfd::of(pid);
    // The PID may be a successor's: compared once it is held.
    if !is_alive() {
        return Ok(false);
    }
    terminate(|signal| send(&pidfd, signal, is_alive))
}

fn terminate(send: impl Fn(Signal) -> io::Result<bool>) -> io::Result<bool> {
    let sent = send(Signal::TERM)?;
    if sent {
        send(Signal::CONT)?;
    }
    Ok(sent)
}

fn send(pidfd: &Pidfd, signal: Signal, is_alive: impl Fn() -> bool) -> io::Result<bool> {
    match pidfd.send(signal, is_alive) {
        Ok(()) => Ok(true),
        Err(reason) if reason.raw_os_error() == Some(Errno::ESRCH as i32) => Ok(false),
        Err(reason) => Err(reason),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, Command, Stdio};

    use nix::unistd::Uid;

    use super::*;
    use crate::refused::where_refused;

    fn sleeper() -> Child {
        Command::new("sleep")
            .arg("600")
            .stdin(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn process(child: &Child) -> Process {
        crate::server::search::process(i32::try_from(child.id()).unwrap()).unwrap()
    }

    #[tokio::test(flavor = "current_thread")]
    async fn hazard_4_a_pid_that_was_given_to_another_process_is_not_held() {
        let mut child = sleeper();
        let mut earlier = process(&child);
        earlier.start_time -= 1;
        assert!(ProcessHandle::new(earlier).is_none());
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[tokio::test(flavor = "current_thread")]
    async fn hazard_4_what_is_held_is_signalled_and_nothing_after_it() {
        let mut child = sleeper();
        let held = ProcessHandle::new(process(&child)).unwrap();
        assert_eq!(held.process.uid, Uid::effective().as_raw());
        assert_eq!(held.forbidden(), None);
        assert!(held.terminate().unwrap());
        held.ended().await;
        assert!(!held.is_alive(), "a zombie is dead");
        child.wait().unwrap();
        assert!(
            !held.kill().unwrap(),
            "its PID is free: nothing is there to be signalled"
        );
    }

    #[test]
    fn hazard_24_what_has_ended_is_not_waited_for_though_it_cannot_be_read() {
        let mut child = sleeper();
        let its = process(&child);
        let (say, said) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            // SYS_open is what musl's open(3) calls, and is not there on aarch64.
            #[cfg(target_arch = "x86_64")]
            let open = [nix::libc::SYS_open, nix::libc::SYS_openat];
            #[cfg(not(target_arch = "x86_64"))]
            let open = [nix::libc::SYS_openat];
            where_refused(&open, nix::libc::EIO, || {
                let runtime = tokio::runtime::Builder::new_current_thread();
                let runtime = { runtime }.enable_all().build().unwrap();
                runtime.block_on(async {
                    let held = ProcessHandle::new(its).unwrap();
                    held.kill().unwrap();
                    held.ended().await;
                    assert!(held.is_alive(), "its zombie cannot be read");
                });
            });
            say.send(()).unwrap();
        });
        let ended = said.recv_timeout(std::time::Duration::from_secs(20));
        child.wait().unwrap();
        ended.unwrap();
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_child_of_the_server_is_ended_even_if_it_is_stopped() {
        let mut child = sleeper();
        let its = process(&child);
        assert!(!end_child(its.pid, its.start_time - 1).unwrap());
        assert!(child.try_wait().unwrap().is_none());
        nix::sys::signal::kill(Pid::from_raw(its.pid), nix::sys::signal::Signal::SIGSTOP).unwrap();
        assert!(end_child(its.pid, its.start_time).unwrap());
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(Signal::TERM.as_raw()));
        assert!(!end_child(its.pid, its.start_time).unwrap());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_does_not_end_is_killed() {
        let mut child = sleeper();
        let held = ProcessHandle::new(process(&child)).unwrap();
        assert!(held.is_alive());
        assert!(held.kill().unwrap());
        held.ended().await;
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(Signal::KILL.as_raw()));
        assert!(!held.terminate().unwrap());
    }
}
