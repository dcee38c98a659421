//! Processes and users, as the lines of a run name them.

use nix::unistd::Uid;

use crate::redact;
use crate::server::process::Process;
use crate::server::stop::ProcessHandle;
use crate::sys::account;

pub(super) fn describe(process: &Process) -> String {
    format!(
        "PID {} ({})",
        process.pid,
        redact::redacted(&process.command)
    )
}

/// A process with its user.
pub(super) fn described(process: &Process) -> String {
    format!("{} of user {}", describe(process), name_of(process.uid))
}

/// The name of a user, or the number where the account database does not tell.
pub(super) fn name_of(uid: u32) -> String {
    match account::by_uid(Uid::from_raw(uid)) {
        Ok(Some(account)) => account.name,
        _ => uid.to_string(),
    }
}

/// The PIDs, as the manual shows them: `[68389]`.
pub(super) fn pids(held: &[ProcessHandle]) -> String {
    let pids: Vec<i32> = held.iter().map(|held| held.process.pid).collect();
    format!("{pids:?}")
}
