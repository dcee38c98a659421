//! System calls that fail; the unit tests use it too.

use std::thread;

use nix::libc;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// Works in a thread in which these system calls fail with that errno, also in what it starts.
#[allow(clippy::unwrap_used)]
pub fn where_refused<T: Send>(
    calls: &[libc::c_long],
    errno: i32,
    work: impl FnOnce() -> T + Send,
) -> T {
    let filter = SeccompFilter::new(
        calls.iter().map(|call| (*call, vec![])).collect(),
        SeccompAction::Allow,
        SeccompAction::Errno(errno.try_into().unwrap()),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let filter: BpfProgram = filter.unwrap().try_into().unwrap();
    thread::scope(|scope| {
        let working = scope.spawn(move || {
            seccompiler::apply_filter(&filter).unwrap();
            work()
        });
        working.join().unwrap()
    })
}
