//! Why a server hangs: a snapshot of /proc, taken before anything is stopped, and what it means.

#[cfg(test)]
mod captured;
mod cause;
mod collect;
pub(crate) mod disks;
mod finding;
mod mentioned;
mod oom;
pub(crate) mod phrase;
mod question;
mod report;
pub(crate) mod server_log;
mod snapshot;
mod wait;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::cause::catalog::Cause;
pub(crate) use self::cause::catalog::Kind;
use self::collect::Collect;
pub(crate) use self::finding::{Blocker, Child, Finding};
pub(crate) use self::question::{Question, Seen};
pub(crate) use self::report::Line;
use self::snapshot::Snapshot;
use crate::proc::process::Proc;
use crate::sys::bounded;
use crate::text::errno_text;

/// Time limit of a diagnosis.
const BUDGET: Duration = Duration::from_millis(500);

/// Time limit of a look.
const LOOK: Duration = Duration::from_millis(100);

/// What a diagnosis found.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Diagnosis {
    /// The causes, the most specific first.
    pub(crate) findings: Vec<Finding>,
    /// The report: a line for each process, port and resource.
    pub(crate) report: Vec<Line>,
}

impl Diagnosis {
    fn of(snapshot: &Snapshot, history: Duration) -> Self {
        let causes = cause::causes(snapshot);
        Self {
            findings: causes
                .iter()
                .map(|cause| Finding::of(cause, snapshot))
                .collect(),
            report: report::lines(snapshot, history),
        }
    }

    /// One line of JSON.
    fn message(&self) -> Vec<u8> {
        let mut message = serde_json::to_vec(self).unwrap_or_default();
        message.push(b'\n');
        message
    }

    /// The last whole message.
    fn last_of(messages: &[u8]) -> Option<Self> {
        let end = messages.iter().rposition(|byte| *byte == b'\n')?;
        let mut whole = messages[..end].split(|byte| *byte == b'\n');
        serde_json::from_slice(whole.next_back()?).ok()
    }
}

/// Diagnoses a server within the time limit; what was not read by then is left out. A disk can block
/// the reader, so this happens in a process of its own, which sends what it has after each stage.
pub(crate) async fn diagnose(question: &Question) -> Diagnosis {
    let history = question.log.history;
    let messages = bounded::in_process(BUDGET, |out| {
        let mut send = |snapshot: &Snapshot| {
            let _ = out.write_all(&Diagnosis::of(snapshot, history).message());
        };
        let mut collect = Collect::new(Proc::here(), question, &mut send);
        let paths = collect.at_proc();
        collect.at_disks(paths);
    });
    let diagnosis = match messages.await {
        Ok(messages) => Diagnosis::last_of(&messages),
        Err(reason) => {
            // The server may have used up all processes: what cannot block is read here.
            let mut last = None;
            let mut keep = |snapshot: &Snapshot| last = Some(Diagnosis::of(snapshot, history));
            Collect::new(Proc::here(), question, &mut keep).at_proc();
            last.map(|mut last| {
                let reason = errno_text(&reason);
                last.findings
                    .push(Finding::bare(&Cause::CannotFork(reason)));
                last
            })
        }
    };
    diagnosis.unwrap_or_else(|| Diagnosis {
        findings: vec![Finding::bare(&Cause::ProcTimedOut(BUDGET))],
        report: Vec::new(),
    })
}

/// Looks what blocks the server now, within the time limit of a look: a part of what `diagnose` reads.
pub(crate) async fn look(question: &Question) -> Vec<Finding> {
    let read = || {
        let mut found = Vec::new();
        let mut keep = |snapshot: &Snapshot| {
            let causes = cause::blocked(snapshot);
            found = causes
                .iter()
                .map(|cause| Finding::of(cause, snapshot))
                .filter(|finding| finding.blocker.is_some())
                .collect();
        };
        Collect::new(Proc::here(), question, &mut keep).at_waits();
        found
    };
    match bounded::ask(LOOK, read).await {
        Ok(found) => found.unwrap_or_default(),
        // What is read cannot block.
        Err(_) => read(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_whole_message_counts() {
        let diagnosis = |cause: &str| Diagnosis {
            findings: vec![Finding::bare(&Cause::CannotFork(cause.to_owned()))],
            report: vec![Line::Reading("line\nline".to_owned())],
        };
        let (first, second) = (diagnosis("one"), diagnosis("two"));
        let both = [first.message(), second.message()].concat();
        assert_eq!(Diagnosis::last_of(&both), Some(second));
        for end in first.message().len()..both.len() {
            assert_eq!(Diagnosis::last_of(&both[..end]), Some(first.clone()));
        }
        let half = &both[..first.message().len() - 1];
        assert_eq!(Diagnosis::last_of(half), None);
        assert_eq!(Diagnosis::last_of(b""), None);
    }
}
