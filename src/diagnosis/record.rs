//! The evidence as lines of the log.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::time::Duration;

use super::cause::process::waiting_for;
use super::cause::{ago, mebibytes};
use super::evidence::{Evidence, Looked, Other, Program};
use crate::redact;

/// So many threads of a process have a line of their own, where they wait for somebody.
const MOST_THREADS: usize = 20;

/// A line for each process, for the port and for the machine.
pub(super) fn lines(evidence: &Evidence, history: Duration) -> Vec<String> {
    let mut lines = Vec::new();
    for program in &evidence.programs {
        lines.push(self::program(program));
        lines.extend(threads(program, evidence));
    }
    if evidence.looked > Looked::Port {
        lines.push(port(evidence));
        lines.extend(evidence.instances.iter().map(instance));
    }
    lines.push(machine(evidence));
    if evidence.looked < Looked::All {
        lines.push(format!(
            "The look ended early: {} took too long",
            evidence.looked
        ));
    }
    if let Some((path, last)) = &evidence.log {
        let minutes = history.as_secs() / 60;
        lines.push(format!(
            "Server log: {} lines of {} in the last {minutes} minutes",
            last.len(),
            path.display()
        ));
        lines.extend(
            last.iter()
                .map(|line| format!("Server log: {}", redact::redacted(line))),
        );
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

fn program(program: &Program) -> String {
    let mut states: BTreeMap<char, usize> = BTreeMap::new();
    for thread in &program.threads {
        *states.entry(thread.state).or_default() += 1;
    }
    let mut line = format!(
        "PID {}: state {}, age {}, CPU time {} s, memory {} MiB",
        program.pid,
        program.state,
        ago(program.age),
        program.cpu.as_secs(),
        mebibytes(program.resident),
    );
    if program.swapped > 0 {
        let _ = write!(line, " and {} swapped", mebibytes(program.swapped));
    }
    let _ = write!(line, ", threads {}", counted(states));
    if let Some(kernel) = &program.kernel {
        let _ = write!(line, ", waits in {kernel}");
    }
    if !program.stack.is_empty() {
        let _ = write!(line, " ({})", program.stack.join(" < "));
    }
    if let (Some(open), Some(most)) = (program.descriptors, program.most_descriptors) {
        let _ = write!(line, ", descriptors {open} of {most}");
    }
    if !program.sockets.is_empty() {
        let _ = write!(line, ", sockets {}", counted(program.sockets.clone()));
    }
    for (address, waiting) in &program.listens {
        let _ = write!(line, ", listens on {address} with {waiting} waiting");
    }
    for child in &program.children {
        let _ = write!(line, ", child {}", described(child));
    }
    let _ = write!(line, ": {}", program.command);
    line
}

/// The threads beside the first that wait for somebody, guilty or not.
fn threads(program: &Program, evidence: &Evidence) -> Vec<String> {
    let others = program
        .threads
        .iter()
        .filter(|thread| thread.tid != program.pid);
    let waiting = others.filter_map(|thread| {
        let wait = waiting_for(&thread.wait, evidence)?;
        Some(format!(
            "PID {}, thread {} ({}): {wait}",
            program.pid, thread.tid, thread.name
        ))
    });
    waiting.take(MOST_THREADS).collect()
}

/// A process as a sentence names it.
pub(super) fn described(other: &Other) -> String {
    let hidden = if other.is_hidden {
        ", of another user, descriptors not visible"
    } else {
        ""
    };
    format!(
        "PID {} (state {}, for {}{hidden}): {}",
        other.pid,
        other.state,
        ago(other.age),
        other.command
    )
}

fn port(evidence: &Evidence) -> String {
    let mut line = format!("Port {}:", evidence.port);
    if evidence.listeners.is_empty() {
        line += " nothing listens here";
    }
    for (number, listener) in evidence.listeners.iter().enumerate() {
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

fn instance((process, listens): &(Other, Vec<std::net::SocketAddr>)) -> String {
    let listens: Vec<String> = listens.iter().map(ToString::to_string).collect();
    let listens = if listens.is_empty() {
        "no port that can be seen".to_owned()
    } else {
        listens.join(", ")
    };
    format!("Another instance, on {listens}: {}", described(process))
}

fn machine(evidence: &Evidence) -> String {
    let machine = &evidence.machine;
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
            ", stood still for a CPU {:.0} %, for memory {:.0} %, for a disk {:.0} % of the last 10 s",
            pressure.cpu, pressure.memory, pressure.io
        );
    }
    line
}
