//! Processes that a sentence mentions: a child, the other end of a connection, a tracer (`proc(5)`).

use super::phrase::Mentioned;
use crate::proc::process::{Proc, joined};
use crate::redact;
use crate::server::argv::LONGEST_CMDLINE;
use crate::text::shortened;

/// The children of all threads, as they were started.
pub(super) fn children(proc: Proc, pid: i32) -> Vec<Mentioned> {
    let children = proc.children(pid).into_iter();
    children.filter_map(|pid| of(proc, pid)).collect()
}

/// A process's arguments, joined by spaces; empty where it has none.
fn command(proc: Proc, pid: i32) -> String {
    joined(&proc.cmdline(pid, LONGEST_CMDLINE).unwrap_or_default())
}

/// A process as a sentence names it.
pub(super) fn of(proc: Proc, pid: i32) -> Option<Mentioned> {
    let stat = proc.stat(pid).ok()?;
    let command = command(proc, pid);
    let command = if command.is_empty() {
        format!("[{}]", stat.comm)
    } else {
        command
    };
    Some(Mentioned {
        pid,
        command: shortened(redact::redacted(&command)),
        is_hidden: false,
        state: stat.state,
        start_time: stat.starttime,
        age: proc.age(pid).unwrap_or_default(),
    })
}
