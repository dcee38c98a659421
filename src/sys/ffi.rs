//! The system interfaces that no crate offers without `unsafe`.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;

use nix::libc;
use nix::unistd::{ForkResult, Pid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Lets the event loop watch a descriptor for being readable (`epoll(7)`).
pub(crate) fn watch(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is open, is owned by the `AsyncFd`, and an `OwnedFd` keeps its number.
    let watched = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
    Ok(watched?)
}

/// A copy of a descriptor that this process was started with, closed when dropped. It refers to the
/// same open file description, and so to the same `flock`.
///
/// # Errors
/// The number is not open, or no descriptor is left.
pub(crate) fn duplicate(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: makes a new descriptor and leaves the old one as it is, whoever owns it.
    let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, libc::STDERR_FILENO + 1) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Open descriptors other than stdin, stdout and stderr.
fn inherited_descriptors() -> io::Result<Vec<RawFd>> {
    let mut descriptors = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        descriptors.extend(name.to_str().and_then(|name| name.parse::<RawFd>().ok()));
    }
    descriptors.retain(|descriptor| *descriptor > libc::STDERR_FILENO);
    Ok(descriptors)
}

/// Lets the command run in a session of its own (`setsid(2)`), with no descriptor of ours
/// but stdin, stdout and stderr.
pub(crate) fn detach(command: &mut Command) {
    let inherited = inherited_descriptors().unwrap_or_default();
    // SAFETY: between fork and exec the closure makes only system calls that are
    // async-signal-safe (fcntl, setsid) and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            for descriptor in &inherited {
                // One that was closed meanwhile is no loss.
                libc::fcntl(*descriptor, libc::F_SETFD, libc::FD_CLOEXEC);
            }
            nix::unistd::setsid()?;
            Ok(())
        });
    }
}

/// Does the work in a child process, then ends the child. It has no descriptor of ours but `keep`
/// (so no lock of ours, wherever it gets stuck), and /dev/null as stdin, stdout and stderr.
///
/// Contract for `work`: other threads of ours do not exist in the child, and a lock that one of them
/// held at the fork stays locked there for ever. So it may allocate (glibc and musl keep the allocator
/// usable, `pthread_atfork(3)`), read and write files, and use what it has brought along; it must not
/// wait for another thread of ours, log, use tokio, or take a lock that another thread of ours may
/// hold. Name services count as such a lock: ask them before the fork. A child that gets stuck all
/// the same is abandoned by its parent.
///
/// # Errors
/// As `fork(2)`: EAGAIN, ENOMEM, ENOSYS. Nothing was done.
pub(crate) fn fork(keep: OwnedFd, work: impl FnOnce(OwnedFd)) -> io::Result<Pid> {
    // SAFETY: the child runs on with this thread alone, and only `work`, which the contract binds,
    // and system calls follow.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            close_all_but(keep.as_raw_fd());
            // Not in the parent, which may have no descriptor to spare. The lowest free ones are 0, 1
            // and 2.
            if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
                let _ = null.into_raw_fd();
                for standard in [libc::STDOUT_FILENO, libc::STDERR_FILENO] {
                    // SAFETY: nothing owns the standard descriptors here.
                    unsafe { libc::dup2(libc::STDIN_FILENO, standard) };
                }
            }
            // Where panics unwind, none may leave through our caller, who is another process.
            let _ = catch_unwind(AssertUnwindSafe(|| work(keep)));
            // SAFETY: ends this process, without running what the parent registered for its own end.
            unsafe { libc::_exit(0) }
        }
    }
}

/// Upper bound of the descriptors that are closed one by one where /proc does not list them.
const MOST_DESCRIPTORS: RawFd = 1 << 16;

/// Closes every other descriptor (`close_range(2)`, Linux 5.9), the standard ones too.
fn close_all_but(keep: RawFd) {
    let close_range = |from: RawFd, to: RawFd| {
        // SAFETY: the owners of these descriptors are never dropped in this process.
        from > to || unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) } == 0
    };
    let close = |descriptor: RawFd| {
        if descriptor != keep {
            // SAFETY: as above.
            unsafe { libc::close(descriptor) };
        }
    };
    if close_range(0, keep - 1) && close_range(keep + 1, RawFd::MAX) {
        return;
    }
    (0..=libc::STDERR_FILENO).for_each(close);
    match inherited_descriptors() {
        Ok(open) => open.into_iter().for_each(close),
        Err(_) => (0..MOST_DESCRIPTORS).for_each(close),
    }
}
