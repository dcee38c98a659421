//! What no crate offers without `unsafe`: the end of one thread, a child that shares its parent's memory, and a copy
//! of the process.
#![allow(unsafe_code)]

use std::time::Duration;

use nix::libc;
use nix::sched::{CloneFlags, clone};

/// Ends the first thread, as `pthread_exit(3)` does: the process is a zombie by its state, and lives.
pub(crate) fn end_this_one() -> ! {
    // SAFETY: exit(2) ends this thread alone, whose values are never used again.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    unreachable!("the thread has ended")
}

/// Starts a child as `vfork(2)` does, which never runs its program: the parent waits for that.
pub(crate) fn fork_and_wait(lifetime: Duration) {
    let mut stack = vec![0; 1 << 16];
    let child = Box::new(move || {
        std::thread::sleep(lifetime);
        0
    });
    let flags = CloneFlags::CLONE_VM | CloneFlags::CLONE_VFORK;
    // SAFETY: the child has a stack of its own, and only sleeps.
    unsafe { clone(child, &mut stack, flags, Some(libc::SIGCHLD)) }.unwrap();
}

/// Starts a copy of this process, which only waits.
pub(crate) fn fork_and_go_on(lifetime: Duration) {
    // SAFETY: the process has one thread, so that no lock is held in the copy; the copy only sleeps.
    if unsafe { nix::unistd::fork() }.unwrap().is_child() {
        std::thread::sleep(lifetime);
        std::process::exit(0);
    }
}
