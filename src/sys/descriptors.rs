//! Descriptors kept free for what must not fail for lack of one.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::unistd::dup2_stdin;
use rustix::process::{Resource, getrlimit};

/// From this soft limit on, so many are free that nobody counts them.
const PLENTY: u64 = 256;

/// Descriptors that are held so that nothing else takes them.
#[derive(Debug)]
pub(crate) struct Spare(#[allow(dead_code, reason = "held, not used")] Vec<OwnedFd>);

impl Spare {
    /// Takes so many.
    ///
    /// # Errors
    /// EMFILE, ENFILE: there are fewer; none is kept.
    pub(crate) fn hold(count: usize) -> io::Result<Self> {
        let stdin = io::stdin();
        let held = (0..count).map(|_| stdin.as_fd().try_clone_to_owned());
        Ok(Self(held.collect::<io::Result<_>>()?))
    }
}

/// Whether so many can be opened now. Only a low limit is worth looking.
pub(crate) fn can_open(count: usize) -> bool {
    soft_limit() >= PLENTY || Spare::hold(count).is_ok()
}

/// Whether this one leaves fewer than `spare` free, as the lowest free number is taken first.
pub(crate) fn is_among_the_last(descriptor: i32, spare: u64) -> bool {
    u64::try_from(descriptor).is_ok_and(|number| number + spare >= soft_limit())
}

/// The soft limit of descriptors (`RLIMIT_NOFILE`, `getrlimit(2)`).
pub(crate) fn soft_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Makes /dev/null the stdin of this process, which reads nothing from it, and so of all that it
/// starts: one descriptor for both. It is open for writing too, for output that is discarded.
///
/// # Errors
/// /dev/null cannot be opened.
pub(crate) fn close_stdin() -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null).map_err(io::Error::from)
}

/// Whether an error says that something has run out that may be had again in a moment: processes,
/// threads, memory, descriptors, space (`fork(2)`, `pipe(2)`, `socketpair(2)`, `execve(2)`); or that
/// a file is busy or its disk failed for now (ETXTBSY, EIO).
pub(crate) fn is_for_lack(error: &io::Error) -> bool {
    let lack = [
        Errno::EAGAIN,
        Errno::ENOMEM,
        Errno::EMFILE,
        Errno::ENFILE,
        Errno::ENOBUFS,
        Errno::ENOSPC,
        Errno::EINTR,
        Errno::ETXTBSY,
        Errno::EIO,
    ];
    let number = error.raw_os_error();
    number.is_some_and(|number| lack.contains(&Errno::from_raw(number)))
}

/// Whether an error says that there are too few descriptors.
pub(crate) fn is_for_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_has_run_out_may_be_had_again() {
        for lack in [libc::EAGAIN, libc::ENOMEM, libc::EMFILE, libc::ENFILE] {
            assert!(is_for_lack(&io::Error::from_raw_os_error(lack)));
        }
        for lasting in [libc::ENOENT, libc::EACCES, libc::EPERM, libc::E2BIG] {
            assert!(!is_for_lack(&io::Error::from_raw_os_error(lasting)));
        }
        assert!(!is_for_lack(&io::Error::other("no errno")));
    }

    #[test]
    fn the_last_descriptors_are_known_by_their_number() {
        let limit = i32::try_from(soft_limit().min(1 << 20)).unwrap();
        assert!(is_among_the_last(limit - 1, 1));
        assert!(!is_among_the_last(limit - 2, 1));
        assert!(!is_among_the_last(3, 0));
        drop(Spare::hold(3).unwrap());
    }
}
