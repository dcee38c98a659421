//! Seeing a process end: through a pidfd (`pidfd_open(2)`, Linux 5.3), else by looking again.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;

use super::{descriptors, ffi};

/// How often a process is looked at where there are no pidfds.
const POLL: Duration = Duration::from_millis(20);

/// So many descriptors are left to others: the spawn's, the next check's.
const LEFT_FREE: u64 = 4;

/// The end of one process.
#[derive(Debug)]
pub(crate) struct Pidfd {
    pid: Option<Pid>,
    pidfd: Option<AsyncFd<OwnedFd>>,
}

impl Pidfd {
    /// The end of what has this PID now.
    pub(crate) fn of(pid: i32) -> Self {
        let pid = Pid::from_raw(pid);
        let opened = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        // What the restart itself needs comes first: this one can be done without.
        let descriptor =
            opened.filter(|pidfd| !descriptors::is_among_the_last(pidfd.as_raw_fd(), LEFT_FREE));
        let pidfd = descriptor.and_then(|pidfd| ffi::watch(pidfd).ok());
        Self { pid, pidfd }
    }

    /// Sends a signal; by PID where the pidfd cannot (a seccomp filter can allow `pidfd_open(2)` and
    /// `kill(2)` and not `pidfd_send_signal(2)`), if `is_same` still sees the process that was meant.
    ///
    /// # Errors
    /// As `kill(2)`; ESRCH also when the process is not the same any more.
    pub(crate) fn send(&self, signal: Signal, is_same: impl FnOnce() -> bool) -> io::Result<()> {
        if let Some(pidfd) = &self.pidfd {
            match pidfd_send_signal(pidfd, signal) {
                Ok(()) => return Ok(()),
                Err(Errno::SRCH) => return Err(Errno::SRCH.into()),
                Err(_) => (),
            }
        }
        match self.pid {
            Some(pid) if is_same() => Ok(kill_process(pid, signal)?),
            _ => Err(Errno::SRCH.into()),
        }
    }

    /// Waits until the process has ended, or for one poll interval if there is no pidfd. Returns whether it is known to
    /// have ended.
    pub(crate) async fn near(&self) -> bool {
        let seen = match &self.pidfd {
            Some(pidfd) => pidfd.readable().await.is_ok(),
            None => false,
        };
        if !seen {
            tokio::time::sleep(POLL).await;
        }
        seen
    }
}
