//! Signals to the monitor: SIGTERM, SIGINT and SIGHUP ask it to stop.

use std::future::pending;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tokio::io::unix::AsyncFd;

use super::ffi;

/// The signals that ask us to stop, from now on blocked and waited for; none that was ignored when we
/// were started, as SIGHUP is by `nohup(1)` and SIGINT by a shell's `&`. Each server of a run waits
/// for them, so none is taken out of the queue.
#[derive(Debug)]
pub(crate) struct Signals {
    /// Readable while one of them is pending (`signalfd(2)`); without it, they are polled for.
    descriptor: Option<AsyncFd<SignalFd>>,
    is_seen: bool,
}

/// Interval of polling for a signal, if no descriptor can be opened.
const POLL: Duration = Duration::from_millis(50);
/// The signals that ask us to stop.
const STOP: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];

impl Signals {
    /// Blocks them, and others, which then do nothing: SIGXFSZ, for a log at the limit of its size
    /// (`setrlimit(2)`) is an error of its write and no end of the run; SIGTSTP, for a run that is
    /// stopped keeps its lock. A program that we start has none blocked.
    pub(crate) fn catch() -> Self {
        let mut stop = SigSet::empty();
        for signal in STOP {
            if !ffi::is_ignored(signal as i32) {
                stop.add(signal);
            }
        }
        let mut blocked = stop;
        blocked.add(Signal::SIGXFSZ);
        blocked.add(Signal::SIGTSTP);
        let _ = blocked.thread_block();
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let descriptor = SignalFd::with_flags(&stop, flags).ok();
        Self {
            descriptor: descriptor.and_then(|descriptor| ffi::watch_signals(descriptor).ok()),
            is_seen: false,
        }
    }

    /// Waits for the first of them and names it.
    pub(crate) async fn next(&mut self) -> &'static str {
        if self.is_seen {
            return pending().await;
        }
        loop {
            match &self.descriptor {
                Some(descriptor) if descriptor.readable().await.is_ok() => (),
                _ => tokio::time::sleep(POLL).await,
            }
            if let Some(signal) = received() {
                self.is_seen = true;
                return signal.as_str();
            }
        }
    }

    /// The name of one that has come.
    pub(crate) async fn pending(&mut self) -> Option<&'static str> {
        // Signals are seen where the runtime looks for events.
        tokio::task::yield_now().await;
        tokio::select! {
            biased;
            name = self.next() => Some(name),
            () = std::future::ready(()) => None,
        }
    }
}

/// The signal that asks this process to stop: none is taken out of the queue.
pub(crate) fn received() -> Option<Signal> {
    let mut stop = STOP.into_iter();
    stop.find(|signal| ffi::is_pending(*signal as i32))
}

/// Lets the kernel keep the exit status of children, also where our parent ignored SIGCHLD (`wait(2)`).
pub(crate) fn keep_children() {
    ffi::default_action(Signal::SIGCHLD as i32);
}

/// For a process that only waits for a child: blocks what a terminal sends to the child, too (SIGINT and
/// SIGQUIT). Also blocks the signals that this returns: SIGCHLD, and those that are to be passed on to the
/// child, SIGTERM and SIGHUP, unless they were ignored when we were started. The child has none blocked.
pub(crate) fn beside_a_child(command: &mut Command) -> SigSet {
    ffi::with_no_signal_blocked(command);
    let mut awaited = SigSet::from(Signal::SIGCHLD);
    for signal in [Signal::SIGTERM, Signal::SIGHUP] {
        if !ffi::is_ignored(signal as i32) {
            awaited.add(signal);
        }
    }
    let terminal = SigSet::from_iter([Signal::SIGINT, Signal::SIGQUIT]);
    let _ = (awaited | terminal).thread_block();
    awaited
}

/// Makes this process the parent of whatever its descendants leave behind
/// (`PR_SET_CHILD_SUBREAPER(2const)`), so that it can tell what its restart command has started.
/// Where that is refused, less is known, and that is all.
pub(crate) fn subreaper() {
    let _ = nix::sys::prctl::set_child_subreaper(true);
}
