//! Processes and users, as the lines of a run name them.

use crate::redact;
use crate::server::process::Process;
use crate::server::stop::ProcessHandle;
use crate::state::ledger::Hold;
use crate::sys::account::name_of;
use crate::text::{end, half_a_line, shortened};

/// The most processes that are named, each in a line of its own: anybody can start thousands.
const MOST_NAMED: usize = 20;

/// The ones to name, and how many more there are.
pub(super) fn first_of<T>(all: &[T]) -> (&[T], usize) {
    let (first, rest) = all.split_at(all.len().min(MOST_NAMED));
    (first, rest.len())
}

pub(super) fn describe(process: &Process) -> String {
    format!(
        "PID {} ({})",
        process.pid,
        shortened(redact::redacted(&process.command))
    )
}

/// A process with its user.
pub(super) fn described(process: &Process) -> String {
    format!("{} of user {}", describe(process), name_of(process.uid))
}

/// The PIDs, as the manual shows them: `[68389]`.
pub(super) fn pids(held: &[ProcessHandle]) -> String {
    let pids: Vec<i32> = held.iter().map(|held| held.process.pid).collect();
    format!("{pids:?}")
}

/// That a restart waits: why, until when, and how to end that. `failures`: restarts in a row that did not help;
/// `cause`: the sentence of the cause that decided it; `server`: the arguments that name it.
pub(super) fn held_off(hold: &Hold, failures: usize, cause: &str, server: &str) -> String {
    let why = why_held(hold, failures);
    let why =
        why.unwrap_or_else(|| format!("a restart does not cure this: {}", half_a_line(cause)));
    match hold.until {
        Some(until) => format!(
            "Restart held off until {}: {why}; to try at once: monitor_myvnc resume {server}",
            end(until.0)
        ),
        None => format!("Restart held off: {why}"),
    }
}

/// Why a restart waits; none where that is the cause itself.
pub(super) fn why_held(hold: &Hold, failures: usize) -> Option<String> {
    let why = match hold.why.as_str() {
        "failed" if failures == 1 => "the last restart did not help".to_owned(),
        "failed" => format!("the last {failures} restarts did not help"),
        "limit" => "there were as many restarts in the last hour as max-restarts allows".to_owned(),
        "policy" => "restart-policy is never".to_owned(),
        _ => return None,
    };
    Some(why)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::state::time::Time;
    use crate::text::one_line;

    #[test]
    fn a_restart_held_off_for_a_cause_with_a_long_path_still_says_what_to_do() {
        let hold = Hold {
            why: "cause".to_owned(),
            until: Some(Time::now()),
            tried: BTreeMap::new(),
        };
        let cause = format!("disk full: {}", "/deep".repeat(819));
        let line = one_line(&held_off(&hold, 0, &cause, "--config a.toml"));
        let ends = "…; to try at once: monitor_myvnc resume --config a.toml";
        assert!(line.ends_with(ends), "{line}");
    }
}
