//! Causes that lie with the port: a proxy, another process on it, a server that is gone or listens
//! elsewhere, clients that wait there.

use std::time::Duration;

use super::catalog::{Behind, Cause};
use super::process::server;
use crate::diagnosis::oom::Victim;
use crate::diagnosis::question::Seen;
use crate::diagnosis::snapshot::{PortListener, Snapshot};
use crate::proc::net::{can_take, unmapped};

/// If no healthy check is known, an OOM kill older than this is not taken for the server's.
const RECENT: Duration = Duration::from_secs(600);

/// Whether a proxy has answered that it has no answer of the server's.
pub(super) fn is_proxied(snapshot: &Snapshot) -> bool {
    matches!(snapshot.seen, Seen::Status(502..=504))
        && !snapshot.listeners.iter().any(|listener| listener.ours)
}

pub(super) fn proxied(snapshot: &Snapshot) -> Option<Cause> {
    let Seen::Status(status) = snapshot.seen else {
        return None;
    };
    if !is_proxied(snapshot) {
        return None;
    }
    let mut holders = snapshot
        .listeners
        .iter()
        .filter_map(|one| one.holder.as_ref());
    let behind = if snapshot.elsewhere {
        Behind::Elsewhere
    } else if snapshot.is_running || !snapshot.processes.is_empty() {
        Behind::Running(snapshot.processes.first().map(server))
    } else {
        Behind::NotRunning {
            since_healthy: snapshot.since_healthy,
        }
    };
    Some(Cause::Proxy {
        proxy: holders.next().cloned(),
        status,
        behind,
    })
}

/// The server is not there, the port is another's, or the server is on another port or address.
pub(super) fn misplaced(snapshot: &Snapshot) -> Vec<Cause> {
    if snapshot.elsewhere || snapshot.seen != Seen::Silent {
        return Vec::new();
    }
    let is_asked =
        |one: &&PortListener| can_take(one.address.ip(), one.is_v6_only, &snapshot.addresses);
    let listeners = snapshot.listeners.iter();
    let (there, beside): (Vec<_>, Vec<_>) = listeners.partition(is_asked);
    if there.iter().any(|listener| listener.ours) {
        return Vec::new();
    }
    if let Some(listener) = there.first() {
        return taken(listener, snapshot);
    }
    let ours = beside.iter().find(|listener| listener.ours);
    if let Some(listener) = ours {
        return vec![Cause::OtherAddress(unmapped(listener.address))];
    }
    if snapshot.is_running {
        return vec![Cause::NotListening {
            port: snapshot.port,
        }];
    }
    absent(snapshot)
}

/// Somebody else listens where the URL asks: an intruder, or a proxy before the server.
fn taken(listener: &PortListener, snapshot: &Snapshot) -> Vec<Cause> {
    let address = unmapped(listener.address);
    let Some(holder) = &listener.holder else {
        // It may be the server's own socket, of whose processes more is to be said.
        if snapshot.is_running {
            return Vec::new();
        }
        return vec![Cause::HiddenHolder {
            address,
            sight: snapshot.sight,
        }];
    };
    let mut processes = snapshot.processes.iter();
    let behind = processes.find(|process| !process.listens.is_empty());
    let mut found = if snapshot.is_running {
        Vec::new()
    } else {
        absent(snapshot)
    };
    found.push(Cause::PortTaken {
        address,
        holder: holder.clone(),
        server: behind.map(server),
    });
    found
}

/// No process is the server's.
fn absent(snapshot: &Snapshot) -> Vec<Cause> {
    let gone = Cause::NotRunning {
        since_healthy: snapshot.since_healthy,
    };
    let mut instances = snapshot.instances.iter();
    let elsewhere = instances.find_map(|(process, listens)| {
        // A server that is known to listen elsewhere is not the one in question.
        if !snapshot.is_port_of_url {
            return None;
        }
        Some(Cause::OtherPort {
            port: snapshot.port,
            address: *listens.first()?,
            process: process.clone(),
        })
    });
    let mut found = vec![ended(snapshot).unwrap_or(gone)];
    found.extend(ended_in_group(snapshot));
    // The URL was right once, if it was ever answered.
    if snapshot.since_healthy.is_some() {
        found.extend(elsewhere);
    } else {
        found.splice(0..0, elsewhere);
    }
    found
}

/// What is known of its end, since it answered last.
fn ended(snapshot: &Snapshot) -> Option<Cause> {
    let Victim::Process {
        pid,
        name,
        ago,
        is_known,
    } = snapshot.victim.as_ref()?
    else {
        return None;
    };
    (*ago <= snapshot.since_healthy.unwrap_or(RECENT)).then(|| Cause::OomKilled {
        pid: *pid,
        name: name.clone(),
        ago: *ago,
        is_known: *is_known,
    })
}

/// Any process of its group may have been the one that the OOM killer ended.
fn ended_in_group(snapshot: &Snapshot) -> Option<Cause> {
    let Victim::InGroup(group) = snapshot.victim.as_ref()? else {
        return None;
    };
    Some(Cause::OomKilledInGroup(group.clone()))
}

/// Clients that wait to be accepted. Our own checks have given up by then.
pub(super) fn queued(listener: &PortListener) -> Option<Cause> {
    // The kernel takes one more than was asked for (listen(2)).
    let full = listener
        .backlog
        .filter(|backlog| listener.waiting > *backlog);
    let is_cause = listener.ours && (full.is_some() || listener.clients > 0);
    is_cause.then(|| Cause::AcceptQueue {
        address: unmapped(listener.address),
        waiting: listener.waiting,
        clients: listener.clients,
        full,
    })
}
