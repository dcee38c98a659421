//! Evidence → causes: a pure function.

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

use super::Seen;
use super::call::Doing;
use super::evidence::{Evidence, Limit, LimitKind, Listener, Looked, Other, Program, Thread, Wait};
use super::look::plainly;
use super::oom::Victim;
use super::record::described;
use super::sock_diag::Received;
use crate::process::instance::takes;

/// The kernel's name for a socket whose peer has closed while the server has not.
const CLOSE_WAIT: &str = "CLOSE_WAIT";
/// So many of them are no accident.
const MANY_CLOSING: usize = 10;
/// A request needs more than these: its socket, and a file or a pipe.
const FEW_DESCRIPTORS: u64 = 2;
/// Longer ago than this, where no healthy check is known, the OOM killer's victim was another.
const RECENT: Duration = Duration::from_secs(600);
/// No more threads are named beside the first.
const MOST_THREADS: usize = 3;

/// The causes that the evidence proves, the most specific first, one sentence each.
pub(super) fn causes(evidence: &Evidence) -> Vec<String> {
    let mut found = Vec::new();
    found.extend(answer(evidence));
    if evidence.elsewhere {
        found.push(
            "the URL's host is another machine: nothing here can be its server, and nothing is stopped without --process-pattern"
                .to_owned(),
        );
    }
    let is_pending = evidence.seen != Seen::Healthy;
    let programs = &evidence.programs;
    if is_pending {
        let (others, first): (Vec<_>, Vec<_>) = programs
            .iter()
            .partition(|program| waits_for_one_of(program, evidence));
        for program in first.into_iter().chain(others) {
            found.extend(stopped(program));
            found.extend(waiting(program, evidence));
        }
    }
    found.extend(programs.iter().flat_map(out_of));
    if is_pending {
        found.extend(programs.iter().filter_map(spinning));
        found.extend(programs.iter().filter_map(deadlocked));
    }
    found.extend(proxied(evidence));
    if evidence.looked > Looked::Port {
        found.extend(misplaced(evidence));
        found.extend(evidence.listeners.iter().filter_map(queued));
    }
    found.extend(programs.iter().filter_map(closing));
    found.extend(programs.iter().flat_map(short_of_memory));
    for full in &evidence.full {
        let what = if full.inodes {
            "has no free inode"
        } else {
            "is full"
        };
        found.push(format!("the disk of {} {what}", full.directory.display()));
    }
    if found.is_empty() && is_pending {
        found.extend(programs.iter().filter_map(unseen));
    }
    found.extend(machine(evidence));
    if found.is_empty() && is_pending {
        found.extend(programs.iter().map(unremarkable));
        if programs.is_empty() {
            found.push(format!(
                "not known: looking at {} took too long",
                evidence.looked
            ));
        }
    }
    found
}

/// What the server, or whatever answers in its place, has answered.
fn answer(evidence: &Evidence) -> Option<String> {
    match &evidence.seen {
        Seen::Healthy | Seen::Silent => None,
        Seen::Unresolved(reason) => Some(format!(
            "the URL's host cannot be resolved: {reason}; {} was not asked",
            itself(evidence)
        )),
        Seen::Status(_) if is_proxied(evidence) => None,
        Seen::Status(status) => Some(format!("the server answers, but with status {status}")),
        Seen::Certificate(what) => {
            Some(format!("the server's certificate is not accepted: {what}"))
        }
        Seen::Strange(what) => Some(format!("what answers is no MyVNC server: {what}")),
    }
}

/// Whether a proxy has answered that it has no answer of the server's.
fn is_proxied(evidence: &Evidence) -> bool {
    matches!(evidence.seen, Seen::Status(502..=504))
        && !evidence.listeners.iter().any(|listener| listener.ours)
}

fn proxied(evidence: &Evidence) -> Option<String> {
    let Seen::Status(status) = evidence.seen else {
        return None;
    };
    if !is_proxied(evidence) {
        return None;
    }
    let mut holders = evidence
        .listeners
        .iter()
        .filter_map(|one| one.holder.as_ref());
    let proxy = match holders.next() {
        Some(holder) => format!("a proxy, {},", described(holder)),
        None => "a proxy".to_owned(),
    };
    let itself = if evidence.elsewhere {
        String::new()
    } else if let Some(program) = evidence.programs.first() {
        format!("; the server itself is up: {}", named(program))
    } else if evidence.is_running {
        "; the server itself is up".to_owned()
    } else {
        format!("; {}", gone(evidence))
    };
    Some(format!(
        "{proxy} answers with status {status} in the server's place{itself}"
    ))
}

/// The server's first process and where it listens, as far as that can be seen.
fn named(program: &Program) -> String {
    let mut text = format!("PID {}", program.pid);
    for (number, (address, _)) in program.listens.iter().enumerate() {
        let before = if number == 0 {
            ", which listens on"
        } else {
            " and"
        };
        let _ = write!(text, "{before} {address}");
    }
    text
}

fn itself(evidence: &Evidence) -> String {
    let first = evidence.programs.first();
    first.map_or("the server".to_owned(), |program| {
        format!("the server ({})", named(program))
    })
}

fn gone(evidence: &Evidence) -> String {
    let since = evidence.since_healthy;
    let since = since.map(|since| format!("; it last answered {} ago", ago(since)));
    format!("the server is not running{}", since.unwrap_or_default())
}

fn ended(evidence: &Evidence) -> Option<String> {
    match evidence.victim.as_ref()? {
        Victim::Process {
            pid,
            name,
            ago: since,
            is_known: true,
        } => Some(format!(
            "the kernel's OOM killer ended the server, PID {pid} ({name}), {} ago",
            ago(*since)
        )),
        Victim::Process {
            pid, name, ago: since, ..
        } => (*since <= evidence.since_healthy.unwrap_or(RECENT)).then(|| {
            format!(
                "the server is not running; the kernel's OOM killer ended PID {pid} ({name}) {} ago, which may have been it",
                ago(*since)
            )
        }),
        Victim::InGroup(group) => Some(format!(
            "the server is not running; the kernel's OOM killer ended a process of its control group {group} since it was started"
        )),
    }
}

fn stopped(program: &Program) -> Option<String> {
    let pid = program.pid;
    match (program.state, &program.tracer) {
        ('T', _) => Some(format!("PID {pid} is stopped (SIGSTOP or job control)")),
        ('t', Some(tracer)) => Some(format!(
            "PID {pid} is stopped by its tracer, {}",
            described(tracer)
        )),
        ('t', None) => Some(format!("PID {pid} is stopped by a tracer")),
        // It starts a child (vfork(2)), and that is what it waits for.
        ('D', _) if matches!(program.wait(), Wait::Process { .. }) => None,
        ('D', _) => {
            let place = match (program.wait(), &program.kernel) {
                (Wait::File { .. }, _) => file(program.wait()).map(|file| format!(", {file}")),
                (_, Some(kernel)) => Some(format!(", in {kernel}")),
                _ => None,
            };
            let place = place.unwrap_or_default();
            Some(format!("PID {pid} is stuck in the kernel (state D){place}"))
        }
        _ => stuck(program),
    }
}

/// A thread that the kernel holds, where the first one has ended or waits for a lock.
fn stuck(program: &Program) -> Option<String> {
    if program.state != 'Z' && *program.wait() != Wait::Lock {
        return None;
    }
    let thread = program.threads.iter().find(|thread| thread.state == 'D')?;
    let file = file(&thread.wait).map(|file| format!(", {file}"));
    Some(format!(
        "PID {}, thread {}, is stuck in the kernel (state D){}",
        program.pid,
        thread.tid,
        file.unwrap_or_default()
    ))
}

/// `opening /home/x (nfs4 server:/export on /home)`.
fn file(wait: &Wait) -> Option<String> {
    let Wait::File { path, deed, mount } = wait else {
        return None;
    };
    let mount = mount.as_ref().map(|mount| format!(" ({mount})"));
    Some(format!("{deed} {path}{}", mount.unwrap_or_default()))
}

/// What a process has no more of: descriptors and threads.
fn out_of(program: &Program) -> Vec<String> {
    let pid = program.pid;
    let mut found = Vec::new();
    let open = program
        .descriptors
        .and_then(|open| u64::try_from(open).ok());
    if let (Some(open), Some(most)) = (open, program.most_descriptors) {
        if open >= most {
            found.push(format!(
                "PID {pid} is out of file descriptors: {open} of {most}"
            ));
        } else if open + FEW_DESCRIPTORS >= most {
            found.push(format!(
                "PID {pid} has too few file descriptors left for a request: {open} of {most} are open"
            ));
        }
    }
    for limit in &program.limits {
        let whose = match limit.kind {
            LimitKind::GroupThreads => "its control group",
            LimitKind::UserThreads => "its user",
            LimitKind::GroupMemory => continue,
        };
        found.push(format!(
            "PID {pid} is out of threads: {whose} has {} of {}",
            limit.used, limit.most
        ));
    }
    found
}

fn short_of_memory(program: &Program) -> Vec<String> {
    let pid = program.pid;
    let of_group = |limit: &&Limit| limit.kind == LimitKind::GroupMemory;
    let group = program.limits.iter().find(of_group).map(|limit| {
        format!(
            "PID {pid} is at the memory limit of its control group: {} of {} MiB",
            mebibytes(limit.used),
            mebibytes(limit.most)
        )
    });
    let is_swapped = program.swapped > program.resident && program.swapped > 64 << 20;
    let swapped = is_swapped.then(|| {
        format!(
            "PID {pid} is swapped out: {} MiB",
            mebibytes(program.swapped)
        )
    });
    group.into_iter().chain(swapped).collect()
}

/// What the main thread waits for; where that is a lock, what those wait for that can hold it.
fn waiting(program: &Program, evidence: &Evidence) -> Vec<String> {
    // Stopped is stopped, whatever it was doing, and stuck is told where it is stuck.
    let is_child = matches!(program.wait(), Wait::Process { .. });
    if matches!(program.state, 'T' | 't') || (program.state == 'D' && !is_child) {
        return Vec::new();
    }
    let pid = program.pid;
    if *program.wait() != Wait::Lock {
        let wait = waiting_for(program.wait(), evidence);
        return wait
            .map(|wait| format!("{wait} (PID {pid})"))
            .into_iter()
            .collect();
    }
    let others = program.threads.iter().filter(|thread| thread.tid != pid);
    let waiting = others.filter_map(|thread| {
        let wait = waiting_for(&thread.wait, evidence)?;
        Some(format!(
            "{wait} (PID {pid}, thread {}, while its main thread waits for a lock)",
            thread.tid
        ))
    });
    waiting.take(MOST_THREADS).collect()
}

/// What is waited for, if that is somebody or something with a name.
pub(super) fn waiting_for(wait: &Wait, evidence: &Evidence) -> Option<String> {
    match wait {
        Wait::Client {
            peer,
            program,
            writing: true,
            queued,
            ..
        } => Some(format!(
            "blocked writing to client {peer}{}, which does not read: {queued} bytes wait to be sent",
            of(program.as_ref())
        )),
        Wait::Client {
            local,
            peer,
            program,
            received,
            ..
        } => {
            // Behind a proxy that speaks TLS, the server does not.
            let tls = evidence.tls && local.port() == evidence.port;
            let what = match (tls, received) {
                (false, _) => "reading from",
                // The server has not said its part yet.
                (
                    true,
                    Some(Received {
                        was_answered: false,
                        ..
                    }),
                ) => "in a TLS handshake with",
                (true, _) => "in a TLS handshake or read with",
            };
            let program = of(program.as_ref());
            let silence = silence(*received);
            Some(format!(
                "blocked {what} idle client {peer}{program}, {silence}"
            ))
        }
        Wait::Remote {
            peer,
            connecting: true,
        } => Some(format!(
            "waiting for a connection to {peer}, which does not answer"
        )),
        Wait::Remote { peer, .. } => Some(format!(
            "waiting for an answer of {peer}, to which it has connected"
        )),
        Wait::Process { chain, last } => {
            let links: Vec<String> = chain.iter().map(described).collect();
            let mut text = format!("waiting for {}", links.join(", which waits for "));
            if let Some(last) = last.as_deref().and_then(|last| {
                waiting_for(last, evidence).map(|last| last.replacen("blocked ", "", 1))
            }) {
                let _ = write!(text, ", which is {last}");
            }
            Some(text)
        }
        Wait::Children(several) => {
            let several: Vec<String> = several.iter().map(described).collect();
            Some(format!(
                "waiting for the first to end of its children, {}",
                several.join("; ")
            ))
        }
        Wait::File { .. } => file(wait).map(|file| format!("blocked {file}")),
        Wait::Hidden
        | Wait::Running
        | Wait::Lock
        | Wait::Idle
        | Wait::Sleeping
        | Wait::Unknown(_) => None,
    }
}

/// ` (PID 42: nc vm 9143)`, where a client is a process of this machine.
fn of(program: Option<&Other>) -> String {
    program.map_or(String::new(), |program| {
        format!(" (PID {}: {})", program.pid, program.command)
    })
}

fn silence(received: Option<Received>) -> String {
    match received {
        Some(received) if received.bytes == 0 => {
            format!("connected for {} and sent nothing", ago(received.ago))
        }
        Some(received) => format!(
            "silent for {} after {} bytes",
            ago(received.ago),
            received.bytes
        ),
        None => "silent".to_owned(),
    }
}

/// Whether a process waits for another of the server's, which has a cause of its own.
fn waits_for_one_of(program: &Program, evidence: &Evidence) -> bool {
    let Wait::Process { chain, .. } = program.wait() else {
        return false;
    };
    let is_program = |pid| evidence.programs.iter().any(|program| program.pid == pid);
    chain.iter().any(|other| is_program(other.pid))
}

/// A thread that always runs, or would if it had a CPU.
fn spinning(program: &Program) -> Option<String> {
    let busy = |thread: &Thread| thread.ran + thread.waited;
    let busiest = program.threads.iter().max_by_key(|thread| busy(thread))?;
    let is_waiting = if busiest.waited >= 10 {
        " and waited for one the rest of the time"
    } else {
        ""
    };
    (busy(busiest) >= 80 && busiest.ran >= 5).then(|| {
        format!(
            "PID {} spins: thread {} ({}) used {} % of a CPU during the look{is_waiting}",
            program.pid, busiest.tid, busiest.name, busiest.ran
        )
    })
}

fn deadlocked(program: &Program) -> Option<String> {
    let all = |holds: fn(&Thread) -> bool| program.threads.iter().all(holds);
    if *program.wait() != Wait::Lock || program.state != 'S' {
        return None;
    }
    let what = if all(|thread| thread.doing == Doing::Lock) {
        "deadlock: the"
    } else if all(|thread| matches!(thread.doing, Doing::Lock | Doing::Sleeping)) {
        "the"
    } else {
        return None;
    };
    Some(format!(
        "{what} main thread of PID {} waits for a lock, and none of its {} threads runs",
        program.pid,
        program.threads.len()
    ))
}

/// The server is not there, the port is another's, or the server is on another port or address.
fn misplaced(evidence: &Evidence) -> Vec<String> {
    if evidence.elsewhere || evidence.seen != Seen::Silent {
        return Vec::new();
    }
    let asks = |address: SocketAddr| takes(address.ip(), &evidence.addresses);
    let listeners = evidence.listeners.iter();
    let (there, beside): (Vec<_>, Vec<_>) = listeners.partition(|one| asks(one.address));
    if there.iter().any(|listener| listener.ours) {
        return Vec::new();
    }
    if let Some(listener) = there.first() {
        return taken(listener, evidence);
    }
    let ours = beside.iter().find(|listener| listener.ours);
    if let Some(listener) = ours {
        return vec![format!(
            "the server listens on {}, which is not where the URL asks",
            plainly(listener.address)
        )];
    }
    if evidence.is_running {
        return vec![format!(
            "the server runs, but nothing listens on port {}",
            evidence.port
        )];
    }
    absent(evidence)
}

/// Somebody else listens where the URL asks: an intruder, or a proxy before the server.
fn taken(listener: &Listener, evidence: &Evidence) -> Vec<String> {
    let address = plainly(listener.address);
    let Some(holder) = &listener.holder else {
        // It may be the server's own socket, of whose processes more is to be said.
        if evidence.is_running {
            return Vec::new();
        }
        return vec![format!(
            "not visible: who listens on {address} is shown to its owner and to root alone"
        )];
    };
    let holder = described(holder);
    let behind = evidence
        .programs
        .iter()
        .find(|program| !program.listens.is_empty());
    match behind {
        Some(program) => vec![format!(
            "{address} is not the server's: {holder} listens there, in front of {} or in its place",
            named(program)
        )],
        None if evidence.is_running => {
            vec![format!("{address} is held by another process, {holder}")]
        }
        None => {
            let mut found = vec![format!("{address} is held by another process, {holder}")];
            found.extend(absent(evidence));
            found
        }
    }
}

/// No process is the server's.
fn absent(evidence: &Evidence) -> Vec<String> {
    let gone = ended(evidence).unwrap_or_else(|| gone(evidence));
    let elsewhere = evidence.instances.iter().find_map(|(other, listens)| {
        let address = listens.first()?;
        Some(format!(
            "the URL asks for port {}, and a MyVNC server listens on {address}, {}",
            evidence.port,
            described(other)
        ))
    });
    // The URL was right once, if it was ever answered.
    let mut found = vec![gone];
    if evidence.since_healthy.is_some() {
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

fn closing(program: &Program) -> Option<String> {
    let count = *program.sockets.get(CLOSE_WAIT)?;
    (count >= MANY_CLOSING).then(|| {
        format!("PID {} has {count} connections in CLOSE_WAIT: it does not close what its clients have left", program.pid)
    })
}

fn machine(evidence: &Evidence) -> Vec<String> {
    let machine = &evidence.machine;
    let pressure = &machine.pressure;
    let mut found = Vec::new();
    if machine.memory > 0 && (machine.available < machine.memory / 50 || pressure.memory >= 20.0) {
        found.push(format!(
            "the machine is out of memory: {} of {} MiB available, everything stood still for {:.0} % of the last 10 s",
            mebibytes(machine.available),
            mebibytes(machine.memory),
            pressure.memory
        ));
    }
    if machine.most_threads > 0 && machine.threads >= machine.most_threads / 100 * 98 {
        found.push(format!(
            "the machine is out of threads: {} of {}",
            machine.threads, machine.most_threads
        ));
    }
    let cpus = u16::try_from(machine.cpus).unwrap_or(u16::MAX);
    if machine.load > 8.0 * f32::from(cpus) || pressure.cpu >= 90.0 {
        found.push(format!(
            "the machine is overloaded: load {:.0} on {cpus} CPUs, something waited for a CPU {:.0} % of the last 10 s",
            machine.load, pressure.cpu
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

/// What it waits for has no name, or may not be seen.
fn unseen(program: &Program) -> Option<String> {
    let pid = program.pid;
    match program.wait() {
        Wait::Hidden => Some(format!(
            "not visible: what PID {pid} waits for is shown to its owner and to root alone"
        )),
        Wait::Unknown(what) => Some(format!(
            "not known: PID {pid} waits in {what}{}",
            in_kernel(program)
        )),
        _ => None,
    }
}

/// ` (do_epoll_wait)`, where that can be seen.
fn in_kernel(program: &Program) -> String {
    let kernel = program.kernel.as_ref();
    kernel.map_or(String::new(), |kernel| format!(" ({kernel})"))
}

/// Nothing about it tells why it does not answer.
fn unremarkable(program: &Program) -> String {
    let pid = program.pid;
    match program.wait() {
        Wait::Idle => format!(
            "PID {pid} waits for clients as a healthy server does: it may be slow, or the check may not reach it"
        ),
        Wait::Sleeping => format!("not known: PID {pid} sleeps for a time of its own"),
        Wait::Lock => format!("not known: the main thread of PID {pid} waits for a lock"),
        _ => format!(
            "not known: PID {pid} is in state {}{}",
            program.state,
            in_kernel(program)
        ),
    }
}

/// A duration as an administrator says it.
pub(super) fn ago(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Bytes in MiB.
pub(super) fn mebibytes(bytes: u64) -> u64 {
    bytes >> 20
}

#[cfg(test)]
mod tests;
