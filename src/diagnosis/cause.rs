//! Snapshot → causes: a pure function.

pub(super) mod catalog;
mod machine;
mod port;
pub(super) mod process;

use self::catalog::Cause;
use super::question::Seen;
use super::snapshot::{Snapshot, Stage};

/// The causes that the snapshot shows, the most specific first.
pub(super) fn causes(snapshot: &Snapshot) -> Vec<Cause> {
    let is_pending = snapshot.seen != Seen::Healthy;
    let mut found = Vec::new();
    found.extend(answer(snapshot));
    if snapshot.elsewhere {
        found.push(Cause::Elsewhere(snapshot.addresses.clone()));
    }
    if is_pending {
        found.extend(process::blocked(snapshot));
    }
    found.extend(snapshot.processes.iter().flat_map(process::shortages));
    found.extend(port::proxied(snapshot));
    if snapshot.stage > Stage::Port {
        found.extend(port::misplaced(snapshot));
        found.extend(snapshot.listeners.iter().filter_map(port::queued));
    }
    found.extend(snapshot.full.iter().map(machine::full));
    let processes = snapshot.processes.iter();
    if found.is_empty() && is_pending {
        let unseen = |process| process::unseen(process, snapshot.sight);
        found.extend(processes.clone().filter_map(unseen));
    }
    found.extend(machine::causes(&snapshot.machine));
    if found.is_empty() && is_pending {
        found.extend(processes.map(process::unremarkable));
        if snapshot.processes.is_empty() {
            found.push(Cause::TimedOut(snapshot.stage.to_string()));
        }
    }
    found.sort_by_key(Cause::rank);
    found
}

/// What the server's processes wait for, whatever else is the matter with them.
pub(super) fn blocked(snapshot: &Snapshot) -> Vec<Cause> {
    process::blocked(snapshot)
}

/// What the server, or whatever answers in its place, has answered.
fn answer(snapshot: &Snapshot) -> Option<Cause> {
    let server = || snapshot.processes.first().map(process::server);
    match &snapshot.seen {
        Seen::Healthy | Seen::Silent => None,
        Seen::Unresolved(reason) => Some(Cause::Dns {
            reason: reason.clone(),
            server: server(),
        }),
        Seen::NotAsked(reason) => Some(Cause::LocalFailure {
            reason: reason.clone(),
            server: server(),
        }),
        Seen::Scheme(url) => Some(Cause::Scheme {
            url: url.clone(),
            speaks_tls: !snapshot.tls,
        }),
        Seen::Status(_) if port::is_proxied(snapshot) => None,
        Seen::Status(status) => Some(Cause::HttpStatus(*status)),
        Seen::RedirectLoop => Some(Cause::RedirectLoop),
        Seen::Certificate(what) => Some(Cause::Certificate(what.clone())),
        Seen::Strange(what) => Some(Cause::NotMyvnc(what.clone())),
    }
}

#[cfg(test)]
mod tests;
