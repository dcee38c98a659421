//! Signals to the monitor: SIGTERM, SIGINT and SIGHUP ask it to stop.

use std::io;

use nix::libc;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask us to stop, from now on caught.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    _caught: [Signal; 2],
}

impl Signals {
    /// Catches them, and others, which then do nothing: SIGXFSZ, for a log at the limit of its size
    /// (`setrlimit(2)`) is an error of its write and no end of the run; SIGTSTP, for a run that stands
    /// still keeps its lock.
    pub(crate) fn catch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            _caught: [
                signal(SignalKind::from_raw(libc::SIGXFSZ))?,
                signal(SignalKind::from_raw(libc::SIGTSTP))?,
            ],
        })
    }

    /// Catches SIGCHLD, from now on: where our parent ignored it, the kernel keeps no exit status of a
    /// child (`wait(2)`).
    pub(crate) fn catch_children() -> io::Result<()> {
        signal(SignalKind::child()).map(drop)
    }

    /// Waits for the next one and names it.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.hangup.recv() => "SIGHUP",
        }
    }

    /// The name of one that has come.
    pub(crate) async fn pending(&mut self) -> Option<&'static str> {
        // Signals are delivered where the runtime looks for events.
        tokio::task::yield_now().await;
        tokio::select! {
            biased;
            name = self.next() => Some(name),
            () = std::future::ready(()) => None,
        }
    }
}
