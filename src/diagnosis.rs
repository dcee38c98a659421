//! Why a server hangs: a snapshot of /proc, taken before anything is stopped, and what it means.

#[cfg(test)]
mod captured;
mod cause;
mod collect;
mod disks;
mod oom;
mod peer;
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
pub(crate) use self::question::{Question, Seen};
pub(crate) use self::report::Line;
use self::snapshot::Snapshot;
use crate::proc::process::Proc;
use crate::sys::bounded;
use crate::text::errno_text;

/// Time limit of a diagnosis.
const BUDGET: Duration = Duration::from_millis(500);

/// What a diagnosis found.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Diagnosis {
    /// The causes, the most specific first, one sentence each.
    pub(crate) causes: Vec<String>,
    /// The report: a line for each process, port and resource.
    pub(crate) report: Vec<Line>,
}

impl Diagnosis {
    fn of(snapshot: &Snapshot, history: Duration) -> Self {
        let causes = cause::causes(snapshot);
        Self {
            causes: causes.iter().map(ToString::to_string).collect(),
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
                last.causes
                    .push(Cause::CannotFork(errno_text(&reason)).to_string());
                last
            })
        }
    };
    diagnosis.unwrap_or_else(|| Diagnosis {
        causes: vec![Cause::ProcTimedOut(BUDGET).to_string()],
        report: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_whole_message_counts() {
        let diagnosis = |cause: &str| Diagnosis {
            causes: vec![cause.to_owned()],
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
