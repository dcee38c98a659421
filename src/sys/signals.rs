//! Signals to the monitor: SIGTERM, SIGINT and SIGHUP ask it to stop.

use std::future::pending;
use std::io;

use nix::libc;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::ffi;

/// The signals that ask us to stop, from now on caught; none that was ignored when we were started,
/// as SIGHUP is by `nohup(1)` and SIGINT by a shell's `&`.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Option<Signal>,
    interrupt: Option<Signal>,
    hangup: Option<Signal>,
    _caught: [Signal; 2],
}

impl Signals {
    /// Catches them, and others, which then do nothing: SIGXFSZ, for a log at the limit of its size
    /// (`setrlimit(2)`) is an error of its write and no end of the run; SIGTSTP, for a run that stands
    /// still keeps its lock.
    pub(crate) fn catch() -> io::Result<Self> {
        Ok(Self {
            terminate: unless_ignored(SignalKind::terminate())?,
            interrupt: unless_ignored(SignalKind::interrupt())?,
            hangup: unless_ignored(SignalKind::hangup())?,
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
            () = comes(&mut self.terminate) => "SIGTERM",
            () = comes(&mut self.interrupt) => "SIGINT",
            () = comes(&mut self.hangup) => "SIGHUP",
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

fn unless_ignored(kind: SignalKind) -> io::Result<Option<Signal>> {
    if ffi::is_ignored(kind.as_raw_value()) {
        return Ok(None);
    }
    signal(kind).map(Some)
}

async fn comes(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => pending().await,
    }
}

/// Makes this process the parent of whatever its descendants leave behind
/// (`PR_SET_CHILD_SUBREAPER(2const)`), so that it can tell what its restart command has started.
/// Where that is refused, less is known, and that is all.
pub(crate) fn subreaper() {
    let _ = nix::sys::prctl::set_child_subreaper(true);
}
