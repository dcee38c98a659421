//! The snapshot as lines of the log.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::cause::process::awaited;
use super::phrase::{Mentioned, ago, mebibytes};
use super::snapshot::{Inspected, Snapshot, Stage};

/// Threads of a process that have a line of their own, at most: those that wait for somebody.
const MOST_THREADS: usize = 20;
/// Addresses of another instance that are shown, at most.
const MOST_ADDRESSES: usize = 3;

/// A line of the report.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum Line {
    /// What was read.
    Reading(String),
    /// A line of the server's own log.
    ServerLog(String),
}

/// A line for each process, for the port and for the machine, then the server's own log, of which
/// `history` is wanted.
pub(super) fn lines(snapshot: &Snapshot, history: Duration) -> Vec<Line> {
    let mut lines: Vec<Line> = readings(snapshot).into_iter().map(Line::Reading).collect();
    if let Some((path, last)) = &snapshot.log {
        let heading = format!(
            "{} lines of {} in the last {} minutes",
            last.len(),
            path.display(),
            history.as_secs() / 60
        );
        lines.push(Line::ServerLog(heading));
        lines.extend(last.iter().cloned().map(Line::ServerLog));
    }
    lines
}

fn readings(snapshot: &Snapshot) -> Vec<String> {
    let mut lines = Vec::new();
    for process in &snapshot.processes {
        lines.push(self::process(process));
        lines.extend(threads(process, snapshot));
    }
    if snapshot.stage > Stage::Port {
        lines.push(port(snapshot));
        lines.extend(snapshot.instances.iter().map(instance));
    }
    lines.push(machine(snapshot));
    if snapshot.stage < Stage::All {
        lines.push(format!(
            "Diagnosis incomplete: timed out reading {}",
            snapshot.stage
        ));
    }
    lines
}

/// `1 LISTEN and 2 ESTABLISHED`.
fn counted<T: Display>(counts: impl IntoIterator<Item = (T, usize)>) -> String {
    let each = counts
        .into_iter()
        .map(|(what, count)| format!("{count} {what}"));
    each.collect::<Vec<_>>().join(" and ")
}

/// `1 thread (S)`, `3 threads (1 R and 2 S)`.
fn threads_in(states: &BTreeMap<char, usize>) -> String {
    let count: usize = states.values().sum();
    let plural = if count == 1 { "" } else { "s" };
    let states = match states.keys().next() {
        Some(only) if states.len() == 1 => only.to_string(),
        _ => counted(states.clone()),
    };
    format!("{count} thread{plural} ({states})")
}

fn process(process: &Inspected) -> String {
    let mut states: BTreeMap<char, usize> = BTreeMap::new();
    for thread in &process.threads {
        *states.entry(thread.state).or_default() += 1;
    }
    let mut line = format!(
        "PID {}: state {}, age {}, CPU time {} s, memory {} MiB",
        process.pid(),
        process.state,
        ago(process.age),
        process.cpu.as_secs(),
        mebibytes(process.resident),
    );
    if process.swapped > 0 {
        let _ = write!(line, " and {} swapped", mebibytes(process.swapped));
    }
    let _ = write!(line, ", {}", threads_in(&states));
    if let Some(channel) = &process.kernel {
        let _ = write!(line, ", kernel wait channel: {channel}");
    }
    if !process.stack.is_empty() {
        let _ = write!(line, " ({})", process.stack.join(" < "));
    }
    if let (Some(open), Some(most)) = (process.descriptors, process.most_descriptors) {
        let _ = write!(line, ", descriptors {open} of {most}");
    }
    if !process.sockets.is_empty() {
        let _ = write!(line, ", sockets {}", counted(process.sockets.clone()));
    }
    for (address, waiting) in &process.listens {
        let _ = write!(line, ", listens on {address} with {waiting} waiting");
    }
    for child in &process.children {
        let _ = write!(line, ", child {child}");
    }
    let _ = write!(line, ": {}", process.process.command);
    line
}

/// The threads beside the first that wait for somebody, guilty or not.
fn threads(process: &Inspected, snapshot: &Snapshot) -> Vec<String> {
    let others = process
        .threads
        .iter()
        .filter(|thread| thread.tid != process.pid());
    let waiting = others.filter_map(|thread| {
        let wait = awaited(&thread.wait, snapshot.tls, snapshot.port)?;
        Some(format!(
            "PID {}, thread {} ({}): {wait}",
            process.pid(),
            thread.tid,
            thread.name
        ))
    });
    waiting.take(MOST_THREADS).collect()
}

fn port(snapshot: &Snapshot) -> String {
    let mut line = format!("Port {}:", snapshot.port);
    if snapshot.listeners.is_empty() {
        line += " nothing listens here";
    }
    for (number, listener) in snapshot.listeners.iter().enumerate() {
        let comma = if number == 0 { "" } else { ";" };
        let holder = match &listener.holder {
            Some(holder) => format!("PID {}", holder.pid),
            None => "a process that cannot be seen".to_owned(),
        };
        let _ = write!(
            line,
            "{comma} {holder} listens on {}, {} waiting to be accepted",
            listener.address, listener.waiting
        );
        if let Some(backlog) = listener.backlog {
            let _ = write!(line, " (backlog {backlog})");
        }
        if listener.closing > 0 {
            let _ = write!(line, ", {} in CLOSE_WAIT", listener.closing);
        }
    }
    line
}

fn instance((process, listens): &(Mentioned, Vec<std::net::SocketAddr>)) -> String {
    let first = listens.iter().take(MOST_ADDRESSES);
    let mut shown: Vec<String> = first.map(ToString::to_string).collect();
    if listens.len() > MOST_ADDRESSES {
        shown.push("…".to_owned());
    }
    let listens = if shown.is_empty() {
        "no port that can be seen".to_owned()
    } else {
        shown.join(", ")
    };
    format!("Another instance, on {listens}: {process}")
}

fn machine(snapshot: &Snapshot) -> String {
    let machine = &snapshot.machine;
    let mut line = format!(
        "Machine: load {:.2} on {} CPUs, {} of {} MiB memory available",
        machine.load,
        machine.cpus,
        mebibytes(machine.available),
        mebibytes(machine.memory),
    );
    if let Some(pressure) = machine.pressure {
        let _ = write!(
            line,
            "; pressure (10 s average): cpu {:.0} %, memory {:.0} %, io {:.0} %",
            pressure.cpu, pressure.memory, pressure.io
        );
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::phrase::Sight;
    use crate::diagnosis::snapshot::{Cpu, PortListener, Thread, Wait};
    use crate::proc::machine::{Machine, Pressure};
    use crate::proc::syscall::Activity;
    use crate::server::process::Process;

    fn thread(tid: i32, state: char) -> Thread {
        Thread {
            tid,
            name: "python3".to_owned(),
            state,
            activity: Activity::Running,
            wait: Wait::Running,
            cpu: Cpu::default(),
            ran: 0,
            waited: 0,
        }
    }

    #[test]
    fn a_process_has_a_line() {
        let bare = Inspected {
            process: Process {
                pid: 7,
                command: "python3 main.py".to_owned(),
                ..Process::default()
            },
            state: 'S',
            threads: vec![thread(7, 'S')],
            ..Inspected::default()
        };
        assert_eq!(
            process(&bare),
            "PID 7: state S, age 0 s, CPU time 0 s, memory 0 MiB, 1 thread (S): python3 main.py"
        );
        let full = Inspected {
            age: Duration::from_secs(300),
            cpu: Duration::from_secs(84),
            resident: 61 << 20,
            swapped: 5 << 20,
            threads: vec![thread(7, 'S'), thread(8, 'R'), thread(9, 'S')],
            kernel: Some("wait_woken".to_owned()),
            stack: vec!["a".to_owned(), "b".to_owned()],
            descriptors: Some(9),
            most_descriptors: Some(1024),
            sockets: [("CLOSE_WAIT", 2), ("LISTEN", 1)].into(),
            listens: vec![(([127, 0, 0, 1], 9143).into(), 3)],
            children: vec![Mentioned {
                pid: 42,
                command: "bjobs".to_owned(),
                state: 'S',
                ..Mentioned::default()
            }],
            ..bare.clone()
        };
        assert_eq!(
            process(&full),
            "PID 7: state S, age 5 min, CPU time 84 s, memory 61 MiB and 5 swapped, 3 threads (1 R and 2 S), kernel \
             wait channel: wait_woken (a < b), descriptors 9 of 1024, sockets 2 CLOSE_WAIT and 1 LISTEN, listens on \
             127.0.0.1:9143 with 3 waiting, child PID 42 (state S, for 0 s): bjobs: python3 main.py"
        );
    }

    #[test]
    fn threads_are_counted_by_state() {
        assert_eq!(threads_in(&[('S', 1)].into()), "1 thread (S)");
        assert_eq!(threads_in(&[('S', 4)].into()), "4 threads (S)");
        assert_eq!(
            threads_in(&[('R', 1), ('S', 2)].into()),
            "3 threads (1 R and 2 S)"
        );
    }

    #[test]
    fn an_incomplete_snapshot_says_what_was_not_read() {
        let mut snapshot = snapshot();
        let texts = |snapshot: &Snapshot| readings(snapshot);
        assert_eq!(
            texts(&snapshot),
            [
                "Port 9143: a process that cannot be seen listens on 127.0.0.1:9143, 3 waiting to be accepted \
                 (backlog 5), 2 in CLOSE_WAIT",
                "Machine: load 0.50 on 2 CPUs, 4096 of 8192 MiB memory available; pressure (10 s average): cpu 12 %, \
                 memory 3 %, io 4 %",
            ]
        );
        snapshot.stage = Stage::Port;
        snapshot.machine.pressure = None;
        assert_eq!(
            texts(&snapshot),
            [
                "Machine: load 0.50 on 2 CPUs, 4096 of 8192 MiB memory available",
                "Diagnosis incomplete: timed out reading the listening sockets",
            ]
        );
    }

    #[test]
    fn the_servers_log_follows_its_heading() {
        let mut snapshot = snapshot();
        snapshot.log = Some(("/var/log/x.log".into(), vec!["late".to_owned()]));
        let lines = lines(&snapshot, Duration::from_secs(120));
        let heading = "1 lines of /var/log/x.log in the last 2 minutes";
        assert_eq!(
            lines[2..],
            [
                Line::ServerLog(heading.to_owned()),
                Line::ServerLog("late".to_owned())
            ]
        );
    }

    fn snapshot() -> Snapshot {
        Snapshot {
            port: 9143,
            is_port_of_url: true,
            addresses: Vec::new(),
            elsewhere: false,
            sight: Sight::Own,
            tls: false,
            seen: crate::diagnosis::question::Seen::Silent,
            since_healthy: None,
            is_running: true,
            processes: Vec::new(),
            listeners: vec![PortListener {
                address: ([127, 0, 0, 1], 9143).into(),
                is_v6_only: false,
                waiting: 3,
                backlog: Some(5),
                clients: 1,
                closing: 2,
                holder: None,
                ours: false,
            }],
            instances: Vec::new(),
            full: Vec::new(),
            machine: Machine {
                load: 0.5,
                cpus: 2,
                available: 4 << 30,
                memory: 8 << 30,
                pressure: Some(Pressure {
                    memory: 3.0,
                    cpu: 12.0,
                    io: 4.0,
                }),
                ..Machine::default()
            },
            victim: None,
            log: None,
            stage: Stage::All,
        }
    }
}
