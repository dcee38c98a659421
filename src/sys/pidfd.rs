//! Seeing a process end: through a pidfd (`pidfd_open(2)`, Linux 5.3), else by looking again.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;

use super::ffi;

/// How often a process is looked at where there are no pidfds.
const POLL: Duration = Duration::from_millis(20);

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
        let descriptor = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        let pidfd = descriptor.and_then(|pidfd| ffi::watch(pidfd).ok());
        Self { pid, pidfd }
    }

    /// Whether a signal can reach no other process than this.
    pub(crate) fn is_certain(&self) -> bool {
        self.pidfd.is_some()
    }

    /// Sends a signal.
    pub(crate) fn send(&self, signal: Signal) -> io::Result<()> {
        match (&self.pidfd, self.pid) {
            (Some(pidfd), _) => Ok(pidfd_send_signal(pidfd, signal)?),
            (None, Some(pid)) => Ok(rustix::process::kill_process(pid, signal)?),
            (None, None) => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Waits until the process has ended, or until it is time to look whether it has.
    pub(crate) async fn near(&self) {
        let seen = match &self.pidfd {
            Some(pidfd) => pidfd.readable().await.is_ok(),
            None => false,
        };
        if !seen {
            tokio::time::sleep(POLL).await;
        }
    }
}
