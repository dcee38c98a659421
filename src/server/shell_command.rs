//! A command of the administrator's beside the restart: run by the shell in a session of its own, for a bounded
//! time, with what it says kept.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, pipe2};
use tokio::net::unix::pipe;

use super::restart_command::shell;
use crate::proc::process::Proc;
use crate::sys::pidfd::Pidfd;
use crate::sys::{descriptors, ffi};

/// Limit of the output that is kept, in bytes; the rest is read and dropped.
const MOST_KEPT: usize = 64 << 10;

/// Limit of the descendants that are ended one by one.
const MOST_DESCENDANTS: usize = 1000;

/// Which part of its output is kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Keep {
    /// The beginning.
    First,
    /// The end.
    Last,
}

/// A command that was started.
#[derive(Debug)]
pub(crate) struct ShellCommand {
    child: Child,
    exit: Pidfd,
    output: pipe::Receiver,
    keep: Keep,
    kept: Vec<u8>,
    is_closed: bool,
}

impl ShellCommand {
    /// Starts the command. `prepare` sets its environment and its stdin, which is /dev/null otherwise.
    ///
    /// # Errors
    /// No process or no descriptor can be had.
    pub(crate) fn start(
        command: &str,
        keep: Keep,
        prepare: impl FnOnce(&mut Command),
    ) -> io::Result<Self> {
        descriptors::close_stdin()?;
        let (reader, writer): (OwnedFd, OwnedFd) = pipe2(OFlag::O_CLOEXEC)?;
        // All that can fail comes before the start.
        let output = pipe::Receiver::from_owned_fd(reader)?;
        let mut shell = Command::new(shell());
        shell.arg("-c").arg(command);
        prepare(&mut shell);
        ffi::detach(&mut shell, Some(Arc::new(File::from(writer))), None);
        let child = shell.spawn()?;
        // Of its output nothing is left here but the end that we read.
        drop(shell);
        Ok(Self {
            exit: Pidfd::of(i32::try_from(child.id()).unwrap_or_default()),
            child,
            output,
            keep,
            kept: Vec::new(),
            is_closed: false,
        })
    }

    /// Waits for the command to end, whoever else still holds its output.
    pub(crate) async fn ended(&mut self) {
        while !self.has_ended() {
            tokio::select! {
                _ = self.exit.near() => (),
                _ = self.output.readable(), if !self.is_closed => {
                    self.take(pipe::Receiver::try_read);
                }
            }
        }
    }

    /// Whether it has ended. It stays a zombie: until its group is ended, nobody may be given its number.
    fn has_ended(&self) -> bool {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        let pid = i32::try_from(self.child.id()).map(Pid::from_raw);
        pid.is_ok_and(|pid| {
            !matches!(
                waitid(Id::Pid(pid), flags),
                Ok(WaitStatus::StillAlive) | Err(Errno::EINTR)
            )
        })
    }

    /// Ends what is left of it and what descends from it, also in other process groups, and returns what it has
    /// said. What has no parent any more goes on, as a daemon does.
    pub(crate) fn end(self) -> String {
        if let Ok(group) = i32::try_from(self.child.id()) {
            // Once a parent has ended, nothing says any more whose child a process was.
            let below = descendants(group);
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
            for (pid, start_time) in below {
                let is_same = || Proc::here().is_alive(pid, start_time);
                let handle = Pidfd::of(pid);
                if is_same() {
                    let _ = handle.send(rustix::process::Signal::KILL, is_same);
                }
            }
        }
        self.finish().1
    }

    /// Its exit status, if it has ended, and what it has said. What it has left behind goes on.
    pub(crate) fn finish(mut self) -> (Option<ExitStatus>, String) {
        // What it said last may not have been announced yet.
        self.take(|output, bytes| Ok(nix::unistd::read(output, bytes)?));
        let status = self.child.try_wait().ok().flatten();
        (status, String::from_utf8_lossy(&self.kept).into_owned())
    }

    /// Takes what there is to read.
    fn take(&mut self, read: impl Fn(&pipe::Receiver, &mut [u8]) -> io::Result<usize>) {
        let mut bytes = [0; 4096];
        // Whoever writes without end is left to the next turn.
        for _ in 0..MOST_KEPT / bytes.len() {
            match read(&self.output, &mut bytes) {
                Ok(0) => {
                    self.is_closed = true;
                    return;
                }
                Ok(count) => self.keep(&bytes[..count]),
                Err(_) => return,
            }
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        match self.keep {
            Keep::First => {
                let left = MOST_KEPT - self.kept.len();
                self.kept.extend(&bytes[..bytes.len().min(left)]);
            }
            Keep::Last => {
                self.kept.extend(bytes);
                let surplus = self.kept.len().saturating_sub(MOST_KEPT);
                self.kept.drain(..surplus);
            }
        }
    }
}

/// What descends from a process, as (PID, start time).
fn descendants(pid: i32) -> Vec<(i32, u64)> {
    let proc = Proc::here();
    let mut found = Vec::new();
    let mut parents = vec![pid];
    while let Some(parent) = parents.pop() {
        for child in proc.children(parent) {
            if let Ok(stat) = proc.stat(child) {
                found.push((child, stat.starttime));
                parents.push(child);
            }
        }
        if found.len() >= MOST_DESCENDANTS {
            break;
        }
    }
    found
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn of_a_flood_the_beginning_or_the_end_is_kept() {
        let flood = "printf b; yes a | head -c 200000; printf c";
        for (keep, first, last) in [(Keep::First, 'b', 'a'), (Keep::Last, 'a', 'c')] {
            let mut command = ShellCommand::start(flood, keep, |_| ()).unwrap();
            command.ended().await;
            let (status, said) = command.finish();
            assert!(status.is_some_and(|status| status.success()));
            assert_eq!(said.len(), MOST_KEPT);
            let said = said.trim().replace('\n', "");
            assert!(said.starts_with(first) && said.ends_with(last));
        }
    }
}
