//! The two system interfaces that no crate offers without `unsafe`.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::libc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Lets the event loop watch a descriptor for being readable (`epoll(7)`).
pub(super) fn watch(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
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
pub(super) fn detach(command: &mut Command) {
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
