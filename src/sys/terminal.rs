//! stdout and stderr, which may be a pipe that nobody reads or a terminal that was stopped: neither
//! must hold a run, nor end it.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// So long a reader may keep us waiting before nothing more is told there.
const PATIENCE: Duration = Duration::from_secs(1);
/// As much goes into a pipe that is ready without waiting (`PIPE_BUF`, pipe(7)).
const PIECE: usize = 4096;

/// Whether a reader has kept us waiting: nothing more is told then.
static IS_STUCK: AtomicBool = AtomicBool::new(false);

/// Writes a text there, if it can be.
pub(crate) fn say(terminal: &impl AsFd, text: &str) {
    let mut rest = text.as_bytes();
    let began = Instant::now();
    while !rest.is_empty() && !IS_STUCK.load(Ordering::Relaxed) {
        let left = PATIENCE.saturating_sub(began.elapsed());
        let left = u16::try_from(left.as_millis()).unwrap_or(u16::MAX);
        let mut ready = [PollFd::new(terminal.as_fd(), PollFlags::POLLOUT)];
        match poll(&mut ready, PollTimeout::from(left)) {
            Ok(0) => IS_STUCK.store(true, Ordering::Relaxed),
            // A signal that came meanwhile tells nothing of the reader.
            Err(Errno::EINTR) => (),
            _ => match nix::unistd::write(terminal, &rest[..rest.len().min(PIECE)]) {
                Ok(written) if written > 0 => rest = &rest[written..],
                Err(Errno::EINTR) => (),
                // A terminal that is gone needs no answer.
                _ => return,
            },
        }
    }
}
