//! Evidence → causes: a pure function.

use std::time::Duration;

use super::Seen;
use super::evidence::{Evidence, Listener, Program, Wait};
use super::record::described;

/// The kernel's name for a socket whose peer has closed while the server has not.
const CLOSE_WAIT: &str = "CLOSE_WAIT";

/// The causes that the evidence proves, the most specific first, one sentence each.
pub(crate) fn causes(evidence: &Evidence) -> Vec<String> {
    let mut found = Vec::new();
    found.extend(answer(&evidence.seen));
    if evidence.elsewhere {
        found.push(
            "the URL's host is another machine: nothing here can be its server, and nothing is stopped without --process-pattern"
                .to_owned(),
        );
    }
    for program in &evidence.programs {
        found.extend(stopped(program));
        found.extend(exhausted(program));
        found.extend(waiting(program, evidence));
        found.extend(spinning(program));
        found.extend(deadlocked(program));
    }
    found.extend(misplaced(evidence));
    // One of them is the check's own, which has just been given up.
    for listener in evidence
        .listeners
        .iter()
        .filter(|listener| listener.ours && listener.waiting > 1)
    {
        found.push(format!(
            "{} clients wait in the accept queue of {}",
            listener.waiting, listener.address
        ));
    }
    found.extend(evidence.programs.iter().filter_map(closing));
    for directory in &evidence.full {
        found.push(format!("the disk of {} is full", directory.display()));
    }
    let is_gone = evidence.programs.is_empty() && evidence.listeners.is_empty();
    if is_gone && !evidence.elsewhere && evidence.seen == Seen::Silent {
        found.extend(ended(evidence));
        found.push(match evidence.since_healthy {
            Some(since) => format!(
                "the server is not running; it last answered {} ago",
                ago(since)
            ),
            None => "the server is not running".to_owned(),
        });
    }
    found.extend(machine(evidence));
    if found.is_empty() && evidence.seen != Seen::Healthy {
        found.extend(evidence.programs.iter().map(unknown));
    }
    found
}

/// Longer ago than this, where no healthy check is known, the OOM killer's victim was another.
const RECENT: Duration = Duration::from_secs(600);

fn ended(evidence: &Evidence) -> Option<String> {
    let since = evidence.since_healthy.unwrap_or(RECENT);
    let victim = evidence
        .victim
        .as_ref()
        .filter(|victim| victim.ago <= since)?;
    Some(format!(
        "the kernel's OOM killer ended PID {} ({}) {} ago, and no server is running since",
        victim.pid,
        victim.name,
        ago(victim.ago)
    ))
}

fn answer(seen: &Seen) -> Option<String> {
    match seen {
        Seen::Healthy | Seen::Silent => None,
        Seen::Status(status @ 502..=504) => Some(format!(
            "a proxy answers with status {status} in the server's place"
        )),
        Seen::Status(status) => Some(format!("the server answers, but with status {status}")),
        Seen::Certificate(what) => {
            Some(format!("the server's certificate is not accepted: {what}"))
        }
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
        ('D', _) => {
            let place = match (&program.kernel, &program.wait) {
                (_, Wait::File { path, what }) => format!(", {what} {path}"),
                (Some(kernel), _) => format!(", in {kernel}"),
                _ => String::new(),
            };
            Some(format!("PID {pid} is stuck in the kernel (state D){place}"))
        }
        _ => None,
    }
}

fn exhausted(program: &Program) -> Vec<String> {
    let pid = program.pid;
    let mut found = Vec::new();
    if let (Some(open), Some(most)) = (program.descriptors, program.most_descriptors) {
        if u64::try_from(open).is_ok_and(|open| open >= most) {
            found.push(format!(
                "PID {pid} is out of file descriptors: {open} of {most}"
            ));
        }
    }
    if let Some((used, most)) = program
        .group
        .filter(|(used, most)| *used >= most / 100 * 98)
    {
        found.push(format!(
            "PID {pid} is at the memory limit of its control group: {} of {} MiB",
            mebibytes(used),
            mebibytes(most)
        ));
    }
    if program.swapped > program.resident && program.swapped > 64 << 20 {
        found.push(format!(
            "PID {pid} is swapped out: {} MiB",
            mebibytes(program.swapped)
        ));
    }
    found
}

fn waiting(program: &Program, evidence: &Evidence) -> Option<String> {
    let pid = program.pid;
    // Stopped is stopped, whatever it was doing.
    if matches!(program.state, 'T' | 't' | 'D') {
        return None;
    }
    match &program.wait {
        Wait::Client {
            peer,
            writing: true,
            queued,
            ..
        } => Some(format!(
            "blocked writing to client {peer}, which does not read: {queued} bytes wait to be sent (PID {pid})"
        )),
        Wait::Client { peer, received, .. } => {
            let what = if evidence.tls {
                "in a TLS handshake or read with"
            } else {
                "reading from"
            };
            let how = match received {
                Some(received) if received.bytes == 0 => {
                    format!("connected for {} and sent nothing", ago(received.ago))
                }
                Some(received) => format!(
                    "silent for {} after {} bytes",
                    ago(received.ago),
                    received.bytes
                ),
                None => "silent".to_owned(),
            };
            Some(format!(
                "blocked {what} idle client {peer}, {how} (PID {pid})"
            ))
        }
        Wait::Remote {
            peer,
            connecting: true,
        } => Some(format!(
            "waiting for a connection to {peer}, which does not answer (PID {pid})"
        )),
        Wait::Remote { peer, .. } => Some(format!(
            "waiting for an answer of {peer}, to which it has connected (PID {pid})"
        )),
        Wait::Process(other) => Some(format!("PID {pid} waits for {}", described(other))),
        Wait::File { path, what } => Some(format!("PID {pid} is blocked {what} {path}")),
        Wait::Hidden
        | Wait::Running
        | Wait::Lock
        | Wait::Idle
        | Wait::Sleeping
        | Wait::Unknown(_) => None,
    }
}

fn spinning(program: &Program) -> Option<String> {
    let busiest = program.threads.iter().max_by_key(|thread| thread.percent)?;
    (busiest.percent >= 80).then(|| {
        format!(
            "PID {} spins: thread {} ({}) used {} % of a CPU during the look",
            program.pid, busiest.tid, busiest.name, busiest.percent
        )
    })
}

fn deadlocked(program: &Program) -> Option<String> {
    use super::wait::Doing;
    let waits = |doing: &Doing| matches!(doing, Doing::Lock | Doing::Sleeping);
    let all = program.threads.iter().all(|thread| waits(&thread.doing));
    (program.wait == Wait::Lock && all && program.state == 'S').then(|| {
        format!(
            "deadlock: the main thread of PID {} waits for a lock, and none of its {} threads runs",
            program.pid,
            program.threads.len()
        )
    })
}

/// The port is another's, or the server is on another port or address.
fn misplaced(evidence: &Evidence) -> Option<String> {
    if evidence.elsewhere || evidence.seen != Seen::Silent {
        return None;
    }
    let port = evidence.port;
    if let Some(Listener {
        address,
        holder: Some(holder),
        ..
    }) = evidence
        .listeners
        .iter()
        .find(|listener| !listener.ours && listener.holder.is_some())
    {
        return Some(format!(
            "{address} is held by another process, {}",
            described(holder)
        ));
    }
    let mut hidden = evidence.listeners.iter();
    let hidden = hidden.find(|listener| listener.holder.is_none() && evidence.programs.is_empty());
    if let Some(hidden) = hidden {
        let address = hidden.address;
        return Some(format!(
            "not visible: who listens on {address} is shown to its owner and to root alone"
        ));
    }
    let takes = |listener: &&Listener| {
        let bound = listener.address.ip().to_canonical();
        evidence.addresses.is_empty()
            || bound.is_unspecified()
            || evidence
                .addresses
                .iter()
                .any(|asked| asked.to_canonical() == bound)
    };
    if evidence.listeners.is_empty() && !evidence.programs.is_empty() {
        return Some(format!(
            "the server runs, but nothing listens on port {port}"
        ));
    }
    let other = evidence.listeners.first()?;
    if evidence.listeners.iter().any(|listener| takes(&listener)) {
        return None;
    }
    Some(format!(
        "the server listens on {}, which is not where the URL asks",
        other.address
    ))
}

fn closing(program: &Program) -> Option<String> {
    let count = *program.sockets.get(CLOSE_WAIT)?;
    (count >= 10).then(|| {
        format!("PID {} has {count} connections in CLOSE_WAIT: it does not close what its clients have left", program.pid)
    })
}

fn machine(evidence: &Evidence) -> Vec<String> {
    let machine = &evidence.machine;
    let mut found = Vec::new();
    if machine.memory > 0 && machine.available < machine.memory / 50 || machine.pressure >= 20.0 {
        found.push(format!(
            "the machine is out of memory: {} of {} MiB available",
            mebibytes(machine.available),
            mebibytes(machine.memory)
        ));
    }
    let cpus = u16::try_from(machine.cpus).unwrap_or(u16::MAX);
    if machine.load > 8.0 * f32::from(cpus) {
        found.push(format!(
            "the machine is overloaded: load {:.0} on {cpus} CPUs",
            machine.load
        ));
    }
    found
}

fn unknown(program: &Program) -> String {
    let pid = program.pid;
    match &program.wait {
        Wait::Hidden => {
            format!("not visible: what PID {pid} waits for is shown to its owner and to root alone")
        }
        Wait::Idle => format!(
            "PID {pid} waits for clients as a healthy server does: it may be slow, or the check may not reach it"
        ),
        Wait::Unknown(what) => format!("not known: PID {pid} waits in {what}"),
        _ => format!("not known: PID {pid} is in state {}", program.state),
    }
}

/// A duration as an administrator says it.
pub(crate) fn ago(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Bytes in MiB.
pub(crate) fn mebibytes(bytes: u64) -> u64 {
    bytes >> 20
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::diagnosis::evidence::{Machine, Other, Thread};
    use crate::diagnosis::oom::Victim;
    use crate::diagnosis::tcp_info::Received;
    use crate::diagnosis::wait::Doing;

    fn peer() -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 7], 51234))
    }

    fn other(state: char, command: &str) -> Other {
        Other {
            pid: 42,
            command: command.to_owned(),
            state,
            age: Duration::from_secs(90),
        }
    }

    fn thread(tid: i32, doing: Doing, percent: u64) -> Thread {
        Thread {
            tid,
            name: "python3".to_owned(),
            state: 'S',
            doing,
            percent,
        }
    }

    fn hung(program: Program) -> Evidence {
        Evidence {
            port: 9143,
            addresses: Vec::new(),
            elsewhere: false,
            tls: false,
            seen: Seen::Silent,
            since_healthy: Some(Duration::from_secs(180)),
            listeners: vec![listener("0.0.0.0:9143", 1, true)],
            programs: vec![Program {
                pid: 7,
                state: if program.state == '\0' {
                    'S'
                } else {
                    program.state
                },
                ..program
            }],
            full: Vec::new(),
            machine: Machine::default(),
            victim: None,
            log: None,
        }
    }

    fn listener(holder: &str, waiting: u32, ours: bool) -> Listener {
        Listener {
            address: SocketAddr::from(([0, 0, 0, 0], 9143)),
            waiting,
            holder: Some(other('S', holder)),
            ours,
        }
    }

    fn waits(wait: Wait) -> Evidence {
        hung(Program {
            wait,
            ..Program::default()
        })
    }

    #[test]
    fn each_evidence_has_its_sentence() {
        let silent = Some(Received {
            ago: Duration::from_secs(74),
            bytes: 0,
        });
        let client = |writing, queued| Wait::Client {
            peer: peer(),
            writing,
            queued,
            received: silent,
        };
        let stuck = |state, wait| {
            hung(Program {
                state,
                wait,
                kernel: Some("nfs_wait".to_owned()),
                ..Program::default()
            })
        };
        let file = |what| Wait::File {
            path: "/home/x".to_owned(),
            what,
        };
        let table: Vec<(Evidence, &str)> = vec![
            (
                waits(client(false, 0)),
                "blocked reading from idle client 10.0.0.7:51234, connected for 74 s and sent nothing (PID 7)",
            ),
            (
                Evidence {
                    tls: true,
                    ..waits(client(false, 0))
                },
                "blocked in a TLS handshake or read with idle client 10.0.0.7:51234, connected for 74 s and sent nothing (PID 7)",
            ),
            (
                waits(client(true, 2_500_000)),
                "blocked writing to client 10.0.0.7:51234, which does not read: 2500000 bytes wait to be sent (PID 7)",
            ),
            (
                waits(Wait::Process(other('S', "bjobs -u all"))),
                "PID 7 waits for PID 42 (state S, for 90 s): bjobs -u all",
            ),
            (
                waits(Wait::Remote {
                    peer: peer(),
                    connecting: true,
                }),
                "waiting for a connection to 10.0.0.7:51234, which does not answer (PID 7)",
            ),
            (
                waits(Wait::Remote {
                    peer: peer(),
                    connecting: false,
                }),
                "waiting for an answer of 10.0.0.7:51234, to which it has connected (PID 7)",
            ),
            (
                stuck('D', file("opening")),
                "PID 7 is stuck in the kernel (state D), opening /home/x",
            ),
            (
                stuck('D', Wait::Hidden),
                "PID 7 is stuck in the kernel (state D), in nfs_wait",
            ),
            (
                stuck('T', client(false, 0)),
                "PID 7 is stopped (SIGSTOP or job control)",
            ),
            (stuck('t', Wait::Hidden), "PID 7 is stopped by a tracer"),
            (
                hung(Program {
                    state: 't',
                    tracer: Some(other('S', "strace")),
                    ..Program::default()
                }),
                "PID 7 is stopped by its tracer, PID 42 (state S, for 90 s): strace",
            ),
            (
                hung(Program {
                    threads: vec![thread(7, Doing::Lock, 0), thread(8, Doing::Running, 99)],
                    wait: Wait::Lock,
                    ..Program::default()
                }),
                "PID 7 spins: thread 8 (python3) used 99 % of a CPU during the look",
            ),
            (
                hung(Program {
                    threads: vec![thread(7, Doing::Lock, 0), thread(8, Doing::Lock, 0)],
                    wait: Wait::Lock,
                    ..Program::default()
                }),
                "deadlock: the main thread of PID 7 waits for a lock, and none of its 2 threads runs",
            ),
            (
                hung(Program {
                    descriptors: Some(1024),
                    most_descriptors: Some(1024),
                    ..Program::default()
                }),
                "PID 7 is out of file descriptors: 1024 of 1024",
            ),
            (
                hung(Program {
                    group: Some((4 << 30, 4 << 30)),
                    ..Program::default()
                }),
                "PID 7 is at the memory limit of its control group: 4096 of 4096 MiB",
            ),
            (
                hung(Program {
                    swapped: 300 << 20,
                    resident: 1 << 20,
                    ..Program::default()
                }),
                "PID 7 is swapped out: 300 MiB",
            ),
            (
                hung(Program {
                    sockets: [("CLOSE_WAIT".to_owned(), 40)].into(),
                    wait: Wait::Idle,
                    ..Program::default()
                }),
                "PID 7 has 40 connections in CLOSE_WAIT: it does not close what its clients have left",
            ),
            (
                waits(Wait::Hidden),
                "not visible: what PID 7 waits for is shown to its owner and to root alone",
            ),
            (
                waits(Wait::Unknown("system call 281".to_owned())),
                "not known: PID 7 waits in system call 281",
            ),
            (
                Evidence {
                    elsewhere: true,
                    ..waits(Wait::Idle)
                },
                "the URL's host is another machine: nothing here can be its server, and nothing is stopped without --process-pattern",
            ),
            (
                Evidence {
                    programs: Vec::new(),
                    listeners: Vec::new(),
                    ..waits(Wait::Idle)
                },
                "the server is not running; it last answered 3 min ago",
            ),
            (
                Evidence {
                    listeners: Vec::new(),
                    ..waits(Wait::Sleeping)
                },
                "the server runs, but nothing listens on port 9143",
            ),
            (
                Evidence {
                    listeners: vec![listener("nginx", 0, false)],
                    programs: Vec::new(),
                    ..waits(Wait::Idle)
                },
                "0.0.0.0:9143 is held by another process, PID 42 (state S, for 90 s): nginx",
            ),
            (
                Evidence {
                    full: vec!["/var/log".into()],
                    ..waits(Wait::Idle)
                },
                "the disk of /var/log is full",
            ),
            (
                Evidence {
                    machine: Machine {
                        available: 1,
                        memory: 8 << 30,
                        ..Machine::default()
                    },
                    ..waits(Wait::Idle)
                },
                "the machine is out of memory: 0 of 8192 MiB available",
            ),
            (
                Evidence {
                    machine: Machine {
                        load: 99.0,
                        cpus: 2,
                        ..Machine::default()
                    },
                    ..waits(Wait::Idle)
                },
                "the machine is overloaded: load 99 on 2 CPUs",
            ),
            (
                Evidence {
                    seen: Seen::Status(502),
                    ..waits(Wait::Idle)
                },
                "a proxy answers with status 502 in the server's place",
            ),
            (
                Evidence {
                    seen: Seen::Certificate("expired on 2026-01-01".to_owned()),
                    ..waits(Wait::Idle)
                },
                "the server's certificate is not accepted: expired on 2026-01-01",
            ),
        ];
        for (evidence, expected) in table {
            let causes = causes(&evidence);
            assert_eq!(
                causes.first().map(String::as_str),
                Some(expected),
                "{evidence:?}"
            );
        }
    }

    #[test]
    fn the_oom_killers_victim_is_named_when_the_server_ended_since_it_answered() {
        let gone = |seconds| Evidence {
            programs: Vec::new(),
            listeners: Vec::new(),
            victim: Some(Victim {
                pid: 812,
                name: "python3".to_owned(),
                ago: Duration::from_secs(seconds),
            }),
            ..waits(Wait::Idle)
        };
        let expected = "the kernel's OOM killer ended PID 812 (python3) 40 s ago, and no server is running since";
        assert_eq!(causes(&gone(40))[0], expected);
        assert_eq!(
            causes(&gone(300)).len(),
            1,
            "that was before it last answered"
        );
    }

    #[test]
    fn innocents_are_not_named() {
        let idle = Evidence {
            seen: Seen::Healthy,
            ..waits(Wait::Idle)
        };
        assert_eq!(causes(&idle), Vec::<String>::new());
        let stopped = hung(Program {
            state: 'T',
            children: vec![other('S', "helper")],
            ..Program::default()
        });
        assert!(
            causes(&stopped)
                .iter()
                .all(|cause| !cause.contains("helper"))
        );
    }
}
