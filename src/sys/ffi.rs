//! The system interfaces that no crate offers without `unsafe`.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
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

/// Descriptors that we were started with and that would go on to the command.
fn inherited_descriptors() -> Vec<RawFd> {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
        })
        .filter(|descriptor| *descriptor > libc::STDERR_FILENO)
        .collect()
}

/// Lets the command run in a session of its own (`setsid(2)`), with no descriptor of ours
/// but stdin, stdout and stderr.
pub(crate) fn detach(command: &mut Command) {
    let inherited = inherited_descriptors();
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

/// Does the work in a child process, which has no descriptor of ours but this one, and ends it then.
pub(crate) fn fork(keep: OwnedFd, work: impl FnOnce(OwnedFd)) -> io::Result<Pid> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    // SAFETY: the child runs on with this thread alone. The C library leaves its allocator usable in
    // it (fork(2), pthread_atfork(3)), and the other threads that there can be, which resolve names
    // and watch other servers, hold no lock of ours for longer than a read; one that is held all the
    // same holds the child alone, which its parent does not wait for.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            for standard in [libc::STDIN_FILENO, libc::STDOUT_FILENO, libc::STDERR_FILENO] {
                // SAFETY: both are open descriptors, and nothing here owns the standard ones.
                unsafe { libc::dup2(null.as_raw_fd(), standard) };
            }
            close_all_but(keep.as_raw_fd());
            // Where panics unwind, none may leave through our caller, who is another process.
            let _ = catch_unwind(AssertUnwindSafe(|| work(keep)));
            // SAFETY: ends this process, without running what the parent registered for its own end.
            unsafe { libc::_exit(0) }
        }
    }
}

/// Closes every other descriptor (`close_range(2)`, Linux 5.9).
fn close_all_but(keep: RawFd) {
    let first = libc::STDERR_FILENO + 1;
    let close = |from: RawFd, to: RawFd| {
        // SAFETY: the owners of these descriptors are never dropped in this process.
        from > to || unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) } == 0
    };
    if close(first, keep - 1) && close(keep + 1, RawFd::MAX) {
        return;
    }
    for descriptor in inherited_descriptors() {
        if descriptor != keep {
            // SAFETY: as above.
            unsafe { libc::close(descriptor) };
        }
    }
}
