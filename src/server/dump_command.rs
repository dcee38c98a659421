//! The dump command: run beside a server that hangs, for a bounded time, with what it says kept.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, pipe2};
use tokio::net::unix::pipe;

use super::restart_command::shell;
use crate::sys::pidfd::Pidfd;
use crate::sys::{descriptors, ffi};

/// As much of its output is kept, in bytes; what comes after it is read and dropped.
const MOST_KEPT: usize = 64 << 10;

/// A dump command that was started.
#[derive(Debug)]
pub(crate) struct Dump {
    child: Child,
    exit: Pidfd,
    output: pipe::Receiver,
    kept: Vec<u8>,
    is_closed: bool,
}

impl Dump {
    /// Starts the command in a process group of its own.
    pub(crate) fn start(command: &str) -> io::Result<Self> {
        descriptors::close_stdin()?;
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
        let mut shell = Command::new(shell());
        shell
            .arg("-c")
            .arg(command)
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .process_group(0);
        ffi::without_descriptors(&mut shell);
        let child = shell.spawn()?;
        // Of its output nothing is left here but the end that we read.
        drop(shell);
        Ok(Self {
            exit: Pidfd::of(i32::try_from(child.id()).unwrap_or_default()),
            child,
            output: pipe::Receiver::from_owned_fd(reader)?,
            kept: Vec::new(),
            is_closed: false,
        })
    }

    /// Waits for the command to end, whoever else still holds its output.
    pub(crate) async fn ended(&mut self) {
        while !self.has_ended() {
            tokio::select! {
                () = self.exit.near() => (),
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

    /// Ends what is left of it, its children too, and returns what it has said.
    pub(crate) fn end(mut self) -> String {
        if let Ok(group) = i32::try_from(self.child.id()) {
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
        // What it said last may not have been announced yet.
        self.take(|output, bytes| Ok(nix::unistd::read(output, bytes)?));
        let _ = self.child.try_wait();
        String::from_utf8_lossy(&self.kept).into_owned()
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
                Ok(count) => {
                    let left = MOST_KEPT - self.kept.len();
                    self.kept.extend(&bytes[..count.min(left)]);
                }
                Err(_) => return,
            }
        }
    }
}
