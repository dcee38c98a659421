//! The evidence as lines of the log.

use std::fmt::Write;
use std::time::Duration;

use super::cause::{ago, mebibytes};
use super::evidence::{Evidence, Other, Program};
use super::secrets;

/// A line for each process, for the port and for the machine.
pub(crate) fn lines(evidence: &Evidence, history: Duration) -> Vec<String> {
    let mut lines: Vec<String> = evidence.programs.iter().map(program).collect();
    lines.push(port(evidence));
    let machine = &evidence.machine;
    lines.push(format!(
        "Machine: load {:.2} on {} CPUs, {} of {} MiB memory available",
        machine.load,
        machine.cpus,
        mebibytes(machine.available),
        mebibytes(machine.memory)
    ));
    if let Some((path, last)) = &evidence.log {
        let minutes = history.as_secs() / 60;
        lines.push(format!(
            "Server log: {} lines of {} in the last {minutes} minutes",
            last.len(),
            path.display()
        ));
        lines.extend(
            last.iter()
                .map(|line| format!("Server log: {}", secrets::without(line))),
        );
    }
    lines
}

fn program(program: &Program) -> String {
    let mut states: Vec<char> = program.threads.iter().map(|thread| thread.state).collect();
    states.sort_unstable();
    let states: String = states.into_iter().collect();
    let mut line = format!(
        "PID {}: state {}, age {}, CPU time {} s, memory {} MiB, threads {states}",
        program.pid,
        program.state,
        ago(program.age),
        program.cpu.as_secs(),
        mebibytes(program.resident),
    );
    if let Some(kernel) = &program.kernel {
        let _ = write!(line, ", waits in {kernel}");
    }
    if let (Some(open), Some(most)) = (program.descriptors, program.most_descriptors) {
        let _ = write!(line, ", descriptors {open} of {most}");
    }
    let mut before = ", sockets: ";
    for (state, count) in &program.sockets {
        let _ = write!(line, "{before}{count} {state}");
        before = " and ";
    }
    for child in &program.children {
        let _ = write!(line, ", child {}", described(child));
    }
    let _ = write!(line, ": {}", program.command);
    line
}

/// A process as a sentence names it.
pub(crate) fn described(other: &Other) -> String {
    format!(
        "PID {} (state {}, for {}): {}",
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
    }
    line
}
