//! Snapshot → causes: a pure function.

pub(super) mod process;

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

use super::oom::Victim;
use super::phrase::{ago, mebibytes};
use super::question::Seen;
use super::snapshot::{Listener, Process, Snapshot, Stage};
use crate::proc::net::{plainly, takes};

/// Longer ago than this, where no healthy check is known, the OOM killer's victim was another.
const RECENT: Duration = Duration::from_secs(600);
/// The causes that the snapshot shows, the most specific first, one sentence each.
pub(super) fn causes(snapshot: &Snapshot) -> Vec<String> {
    let mut found = Vec::new();
    found.extend(answer(snapshot));
    if snapshot.elsewhere {
        let addresses = snapshot.addresses.iter().map(ToString::to_string);
        let addresses: Vec<String> = addresses.collect();
        let addresses = if addresses.is_empty() {
            String::new()
        } else {
            format!(" ({})", addresses.join(", "))
        };
        found.push(format!(
            "the URL's host is another machine{addresses}: nothing here can be its server, and nothing is stopped without \
             --listen or --process-pattern"
        ));
    }
    let is_pending = snapshot.seen != Seen::Healthy;
    let processes = &snapshot.processes;
    if is_pending {
        let (others, first): (Vec<_>, Vec<_>) = processes
            .iter()
            .partition(|process| process::waits_for_one_of(process, snapshot));
        for process in first.into_iter().chain(others) {
            found.extend(process::stopped(process));
            found.extend(process::waiting(process, snapshot));
        }
    }
    found.extend(processes.iter().flat_map(process::out_of));
    if is_pending {
        found.extend(processes.iter().filter_map(process::spinning));
        found.extend(processes.iter().filter_map(process::deadlocked));
    }
    found.extend(proxied(snapshot));
    if snapshot.stage > Stage::Port {
        found.extend(misplaced(snapshot));
        found.extend(snapshot.listeners.iter().filter_map(queued));
    }
    found.extend(processes.iter().filter_map(process::closing));
    found.extend(processes.iter().flat_map(process::short_of_memory));
    for full in &snapshot.full {
        let what = if full.inodes {
            "has no free inode"
        } else {
            "is full"
        };
        found.push(format!("the disk of {} {what}", full.directory.display()));
    }
    if found.is_empty() && is_pending {
        found.extend(
            processes
                .iter()
                .filter_map(|process| process::unseen(process, snapshot.is_root)),
        );
    }
    found.extend(machine(snapshot));
    if found.is_empty() && is_pending {
        found.extend(processes.iter().map(process::unremarkable));
        if processes.is_empty() {
            found.push(format!(
                "not known: looking at {} took too long",
                snapshot.stage
            ));
        }
    }
    found
}

/// What the server, or whatever answers in its place, has answered.
fn answer(snapshot: &Snapshot) -> Option<String> {
    match &snapshot.seen {
        Seen::Healthy | Seen::Silent => None,
        Seen::Unresolved(reason) => Some(format!(
            "the URL's host cannot be resolved: {reason}; {} was not asked",
            itself(snapshot)
        )),
        Seen::NotAsked(reason) => Some(format!(
            "the check failed on the monitor's own side: {reason}; {} was not asked",
            itself(snapshot)
        )),
        Seen::Scheme(url) => {
            let (spoken, other) = if snapshot.tls {
                ("plain HTTP", "TLS")
            } else {
                ("TLS", "plain HTTP")
            };
            Some(format!(
                "the server speaks {spoken} here, not {other}: the right URL is {url}"
            ))
        }
        Seen::Status(_) if is_proxied(snapshot) => None,
        Seen::Status(status) => Some(format!("the server answers, but with status {status}")),
        Seen::Certificate(what) => {
            Some(format!("the server's certificate is not accepted: {what}"))
        }
        Seen::Strange(what) => Some(format!("what answers is no MyVNC server: {what}")),
    }
}

/// Whether a proxy has answered that it has no answer of the server's.
fn is_proxied(snapshot: &Snapshot) -> bool {
    matches!(snapshot.seen, Seen::Status(502..=504))
        && !snapshot.listeners.iter().any(|listener| listener.ours)
}

fn proxied(snapshot: &Snapshot) -> Option<String> {
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
    let proxy = match holders.next() {
        Some(holder) => format!("a proxy, {},", holder.to_string()),
        None => "a proxy".to_owned(),
    };
    let itself = if snapshot.elsewhere {
        String::new()
    } else if let Some(process) = snapshot.processes.first() {
        format!("; the server itself is up: {}", named(process))
    } else if snapshot.is_running {
        "; the server itself is up".to_owned()
    } else {
        format!("; {}", gone(snapshot))
    };
    Some(format!(
        "{proxy} answers with status {status} in the server's place{itself}"
    ))
}

/// The server's first process and where it listens, as far as that can be seen.
fn named(process: &Process) -> String {
    let mut text = format!("PID {}", process.pid);
    for (number, (address, _)) in process.listens.iter().enumerate() {
        let before = if number == 0 {
            ", which listens on"
        } else {
            " and"
        };
        let _ = write!(text, "{before} {address}");
    }
    text
}

fn itself(snapshot: &Snapshot) -> String {
    let first = snapshot.processes.first();
    first.map_or("the server".to_owned(), |process| {
        format!("the server ({})", named(process))
    })
}

fn gone(snapshot: &Snapshot) -> String {
    let since = snapshot.since_healthy;
    let since = since.map(|since| format!("; it last answered {} ago", ago(since)));
    format!("the server is not running{}", since.unwrap_or_default())
}

/// What is known of its end, since it answered last.
fn ended(snapshot: &Snapshot) -> Option<String> {
    let Victim::Process {
        pid,
        name,
        ago: since,
        is_known,
    } = snapshot.victim.as_ref()?
    else {
        return None;
    };
    let victim = format!("PID {pid} ({name})");
    (*since <= snapshot.since_healthy.unwrap_or(RECENT)).then(|| {
        if *is_known {
            format!(
                "the kernel's OOM killer ended the server, {victim}, {} ago",
                ago(*since)
            )
        } else {
            format!(
                "the server is not running; the kernel's OOM killer ended {victim} {} ago, which may have been it",
                ago(*since)
            )
        }
    })
}

/// Any process of its group may have been the one that the OOM killer ended.
fn ended_in_group(snapshot: &Snapshot) -> Option<String> {
    let Victim::InGroup(group) = snapshot.victim.as_ref()? else {
        return None;
    };
    Some(format!(
        "the kernel's OOM killer ended a process of its control group {group} since the server was started"
    ))
}

/// The server is not there, the port is another's, or the server is on another port or address.
fn misplaced(snapshot: &Snapshot) -> Vec<String> {
    if snapshot.elsewhere || snapshot.seen != Seen::Silent {
        return Vec::new();
    }
    let asks = |address: SocketAddr| takes(address.ip(), &snapshot.addresses);
    let listeners = snapshot.listeners.iter();
    let (there, beside): (Vec<_>, Vec<_>) = listeners.partition(|one| asks(one.address));
    if there.iter().any(|listener| listener.ours) {
        return Vec::new();
    }
    if let Some(listener) = there.first() {
        return taken(listener, snapshot);
    }
    let ours = beside.iter().find(|listener| listener.ours);
    if let Some(listener) = ours {
        return vec![format!(
            "the server listens on {}, which is not where the URL asks",
            plainly(listener.address)
        )];
    }
    if snapshot.is_running {
        return vec![format!(
            "the server runs, but nothing listens on port {}",
            snapshot.port
        )];
    }
    absent(snapshot)
}

/// Somebody else listens where the URL asks: an intruder, or a proxy before the server.
fn taken(listener: &Listener, snapshot: &Snapshot) -> Vec<String> {
    let address = plainly(listener.address);
    let Some(holder) = &listener.holder else {
        // It may be the server's own socket, of whose processes more is to be said.
        if snapshot.is_running {
            return Vec::new();
        }
        return vec![format!(
            "not visible: who listens on {address} is shown {}",
            process::to_whom(snapshot.is_root)
        )];
    };
    let holder = holder.to_string();
    let behind = snapshot
        .processes
        .iter()
        .find(|process| !process.listens.is_empty());
    match behind {
        Some(process) => vec![format!(
            "{address} is not the server's: {holder} listens there, in front of {} or in its place",
            named(process)
        )],
        None if snapshot.is_running => {
            vec![format!("{address} is held by another process, {holder}")]
        }
        None => {
            let mut found = absent(snapshot);
            found.push(format!("{address} is held by another process, {holder}"));
            found
        }
    }
}

/// No process is the server's.
fn absent(snapshot: &Snapshot) -> Vec<String> {
    let gone = ended(snapshot).unwrap_or_else(|| gone(snapshot));
    let mut instances = snapshot.instances.iter();
    let elsewhere = instances.find_map(|(other, listens)| {
        // A server that is known to listen elsewhere is not the one in question.
        if !snapshot.is_port_of_url {
            return None;
        }
        let address = listens.first()?;
        Some(format!(
            "the URL asks for port {}, and a MyVNC server listens on {address}, {}",
            snapshot.port,
            other.to_string()
        ))
    });
    // The URL was right once, if it was ever answered.
    let mut found = vec![gone];
    found.extend(ended_in_group(snapshot));
    if snapshot.since_healthy.is_some() {
        found.extend(elsewhere);
    } else {
        found.splice(0..0, elsewhere);
    }
    found
}

/// Clients that wait to be accepted. Our own checks have given up by then.
fn queued(listener: &Listener) -> Option<String> {
    let (waiting, clients) = (listener.waiting, listener.clients);
    let address = plainly(listener.address);
    match listener.backlog {
        _ if !listener.ours => None,
        // The kernel takes one more than was asked for (listen(2)).
        Some(backlog) if waiting > backlog => Some(format!(
            "the accept queue of {address} is full: {waiting} connections wait in it, {clients} of them with a client, and its backlog is {backlog}"
        )),
        _ if clients == 1 => Some(format!("1 client waits in the accept queue of {address}")),
        _ if clients > 0 => Some(format!(
            "{clients} clients wait in the accept queue of {address}"
        )),
        _ => None,
    }
}

fn machine(snapshot: &Snapshot) -> Vec<String> {
    let machine = &snapshot.machine;
    let pressure = machine.pressure.unwrap_or_default();
    let mut found = Vec::new();
    let still = |part: f32| match machine.pressure {
        Some(_) => format!(", {part:.0} % of the last 10 s were spent waiting for it"),
        None => String::new(),
    };
    if machine.memory > 0 && (machine.available < machine.memory / 50 || pressure.memory >= 20.0) {
        found.push(format!(
            "the machine is out of memory: {} of {} MiB available{}",
            mebibytes(machine.available),
            mebibytes(machine.memory),
            still(pressure.memory)
        ));
    }
    if machine.most_threads > 0 && machine.threads >= machine.most_threads / 100 * 98 {
        found.push(format!(
            "the machine is out of threads: {} of {}",
            machine.threads, machine.most_threads
        ));
    }
    let cpus = u16::try_from(machine.cpus).unwrap_or(u16::MAX);
    // Processes that wait for a disk count for the load, too.
    let is_overloaded = match machine.pressure {
        Some(pressure) => pressure.cpu >= 90.0,
        None => machine.load > 8.0 * f32::from(cpus),
    };
    if is_overloaded {
        found.push(format!(
            "the machine is overloaded: load {:.0} on {cpus} CPUs{}",
            machine.load,
            still(pressure.cpu)
        ));
    }
    if pressure.io >= 50.0 {
        found.push(format!(
            "the machine waits for its disks: everything stood still for {:.0} % of the last 10 s",
            pressure.io
        ));
    }
    found
}

#[cfg(test)]
mod tests;
