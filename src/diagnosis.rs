//! Why a server hangs: a snapshot of /proc, taken before anything is stopped, and what it means.

mod cause;
mod collect;
mod disks;
mod oom;
mod peer;
mod phrase;
mod question;
mod report;
pub(crate) mod server_log;
mod snapshot;
mod wait;

use std::time::Duration;

use self::collect::Collect;
pub(crate) use self::question::{Question, Seen};
use self::snapshot::Snapshot;
use crate::journal::{one_line, plain};
use crate::sys::bounded;

/// No look takes longer.
const BUDGET: Duration = Duration::from_millis(500);

/// What a look came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Diagnosis {
    /// The causes, the most specific first, one sentence each.
    pub(crate) causes: Vec<String>,
    /// The report: a line for each process, port and resource.
    pub(crate) report: Vec<String>,
}

/// Begins each line of what a look tells: a cause, a line of the report, or the end of one telling.
const CAUSE: char = 'C';
const REPORT: char = 'R';
const END: &str = "E";

impl Diagnosis {
    fn of(snapshot: &Snapshot, history: Duration) -> Self {
        Self {
            causes: cause::causes(snapshot),
            report: report::lines(snapshot, history),
        }
    }

    fn text(&self) -> String {
        let causes = self.causes.iter().map(|line| (CAUSE, line));
        let report = self.report.iter().map(|line| (REPORT, line));
        let mut text = String::new();
        for (kind, line) in causes.chain(report) {
            text.push(kind);
            text.push_str(&one_line(line));
            text.push('\n');
        }
        text + END + "\n"
    }

    /// The last whole telling.
    fn parse(text: &str) -> Option<Self> {
        let end = format!("\n{END}\n");
        let text = &text[..=text.rfind(&end)?];
        let start = text.rfind(&end).map_or(0, |before| before + end.len());
        let mut diagnosis = Self::default();
        for line in text[start..].lines() {
            if let Some(cause) = line.strip_prefix(CAUSE) {
                diagnosis.causes.push(cause.to_owned());
            } else if let Some(report) = line.strip_prefix(REPORT) {
                diagnosis.report.push(report.to_owned());
            }
        }
        Some(diagnosis)
    }
}

/// Looks, for no longer than the budget: what was not seen by then is not waited for. Where the
/// machine is ill, a disk holds whoever looks at it, so the look is a process of its own.
pub(crate) async fn look(question: &Question) -> Diagnosis {
    let history = question.log.history;
    let looking = bounded::in_process(BUDGET, |out| {
        let mut tell = |snapshot: &Snapshot| {
            let _ = out.write_all(Diagnosis::of(snapshot, history).text().as_bytes());
        };
        let mut look = Collect::new(question, &mut tell);
        let paths = look.at_proc();
        look.at_disks(paths);
    });
    let told = match looking.await {
        Ok(told) => Diagnosis::parse(&String::from_utf8_lossy(&told)),
        Err(reason) => {
            // The server may have used up all processes: what cannot block is read here.
            let mut last = None;
            let mut tell = |snapshot: &Snapshot| last = Some(Diagnosis::of(snapshot, history));
            Collect::new(question, &mut tell).at_proc();
            last.map(|mut last| {
                last.causes.push(format!(
                    "no further process can be started: {}",
                    plain(&reason)
                ));
                last
            })
        }
    };
    told.unwrap_or_else(|| Diagnosis {
        causes: vec![format!(
            "not known: /proc did not answer within {} ms",
            BUDGET.as_millis()
        )],
        report: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_whole_telling_counts() {
        let diagnosis = |cause: &str| Diagnosis {
            causes: vec![cause.to_owned()],
            report: vec!["E".to_owned(), "line\nline".to_owned()],
        };
        let (first, second) = (diagnosis("one").text(), diagnosis("two").text());
        let causes = |text: &str| Diagnosis::parse(text).map(|diagnosis| diagnosis.causes);
        assert_eq!(
            causes(&format!("{first}{second}")),
            Some(vec!["two".to_owned()])
        );
        for cut in 1..second.len() {
            let told = format!("{first}{}", &second[..second.len() - cut]);
            assert_eq!(causes(&told), Some(vec!["one".to_owned()]), "{told}");
        }
        assert_eq!(causes(&first[..first.len() - 1]), None);
        assert_eq!(causes(""), None);
        let report = Diagnosis::parse(&first).map(|diagnosis| diagnosis.report);
        assert_eq!(report, Some(vec!["E".to_owned(), "line?line".to_owned()]));
    }
}
