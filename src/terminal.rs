//! stdout and stderr, which may be a pipe that nobody reads or a terminal that was stopped: neither
//! must hold a run, nor end it.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// So long a reader may keep us waiting, in milliseconds, before nothing more is told there.
const PATIENCE: u16 = 1000;
/// As much goes into a pipe that is ready without waiting (`PIPE_BUF`, pipe(7)).
const PIECE: usize = 4096;

/// Whether a reader has kept us waiting: nothing more is told then.
static IS_STUCK: AtomicBool = AtomicBool::new(false);

/// Writes a text there, if it can be.
pub(crate) fn say(terminal: &impl AsFd, text: &str) {
    for piece in text.as_bytes().chunks(PIECE) {
        if IS_STUCK.load(Ordering::Relaxed) {
            return;
        }
        let mut ready = [PollFd::new(terminal.as_fd(), PollFlags::POLLOUT)];
        if poll(&mut ready, PollTimeout::from(PATIENCE)) == Ok(0) {
            IS_STUCK.store(true, Ordering::Relaxed);
            return;
        }
        // A terminal that is gone needs no answer.
        if nix::unistd::write(terminal, piece).is_err() {
            return;
        }
    }
}
