//! Tests beside which no other may run: `overload` makes the machine too busy to answer, and `faults` keeps
//! every core busy with runs in which one system call fails.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::sync::{Mutex, MutexGuard, PoisonError};

// The registers and some of the calls are those of this architecture.
#[cfg(target_arch = "x86_64")]
mod faults;
mod overload;
#[path = "../it/rig/mod.rs"]
mod rig;

static ALONE: Mutex<()> = Mutex::new(());

/// Waits until no other test of this program runs.
fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
