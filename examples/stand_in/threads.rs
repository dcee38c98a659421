//! What no crate offers without `unsafe`: the end of one thread, and a child that shares its parent's memory.
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
