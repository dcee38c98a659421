//! Why a server hangs: evidence from /proc, taken before anything is stopped, and what it means.

mod cause;
mod disks;
mod evidence;
mod look;
mod oom;
mod program;
mod record;
pub(crate) mod server_log;
mod wait;

use std::net::IpAddr;
use std::time::Duration;

use self::evidence::Evidence;
use self::look::Look;
use crate::server::process::Process;
use crate::state::KnownServer;
use crate::sys::bounded;
use crate::text::{errno_text, one_line};

/// No look takes longer.
const BUDGET: Duration = Duration::from_millis(500);

/// What is asked about.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    /// The server's processes.
    pub(crate) server: Vec<Process>,
    /// Processes of other MyVNC servers.
    pub(crate) others: Vec<Process>,
    /// The URL's port.
    pub(crate) port: u16,
    /// Whether that is all that says where the server should listen.
    pub(crate) is_port_of_url: bool,
    /// The addresses of the URL's host, where they are known.
    pub(crate) addresses: Vec<IpAddr>,
    /// Whether the URL is https.
    pub(crate) tls: bool,
    /// What the check saw.
    pub(crate) seen: Seen,
    /// How long ago the last healthy check was.
    pub(crate) since_healthy: Option<Duration>,
    /// The server as it was last started.
    pub(crate) known: KnownServer,
    /// What of the server's own log is wanted.
    pub(crate) log: server_log::Wanted,
}

/// What the check saw of the server, as far as it bears on the cause.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Seen {
    /// It is healthy.
    Healthy,
    /// No answer.
    Silent,
    /// It was not asked, for its name has no address, for this reason.
    Unresolved(String),
    /// It was not asked, for the check failed on our own side, for this reason.
    NotAsked(String),
    /// It speaks the other scheme: this is the right URL.
    Scheme(String),
    /// An answer with this status.
    Status(u16),
    /// A certificate that is not trusted, for this reason.
    Certificate(String),
    /// An answer that is none, for this reason.
    Strange(String),
}

/// What a look came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Diagnosis {
    /// The causes, the most specific first, one sentence each.
    pub(crate) causes: Vec<String>,
    /// The evidence, a line for each process, port and resource.
    pub(crate) record: Vec<String>,
}

/// Begins each line of what a look tells: a cause, a line of the record, or the end of one telling.
const CAUSE: char = 'C';
const RECORD: char = 'R';
const END: &str = "E";

impl Diagnosis {
    fn of(evidence: &Evidence, history: Duration) -> Self {
        Self {
            causes: cause::causes(evidence),
            record: record::lines(evidence, history),
        }
    }

    fn text(&self) -> String {
        let causes = self.causes.iter().map(|line| (CAUSE, line));
        let record = self.record.iter().map(|line| (RECORD, line));
        let mut text = String::new();
        for (kind, line) in causes.chain(record) {
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
            } else if let Some(record) = line.strip_prefix(RECORD) {
                diagnosis.record.push(record.to_owned());
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
        let mut tell = |evidence: &Evidence| {
            let _ = out.write_all(Diagnosis::of(evidence, history).text().as_bytes());
        };
        let mut look = Look::new(question, &mut tell);
        let paths = look.at_proc();
        look.at_disks(paths);
    });
    let told = match looking.await {
        Ok(told) => Diagnosis::parse(&String::from_utf8_lossy(&told)),
        Err(reason) => {
            // The server may have used up all processes: what cannot hold us is looked at here.
            let mut last = None;
            let mut tell = |evidence: &Evidence| last = Some(Diagnosis::of(evidence, history));
            Look::new(question, &mut tell).at_proc();
            last.map(|mut last| {
                last.causes.push(format!(
                    "no further process can be started: {}",
                    errno_text(&reason)
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
        record: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_whole_telling_counts() {
        let diagnosis = |cause: &str| Diagnosis {
            causes: vec![cause.to_owned()],
            record: vec!["E".to_owned(), "line\nline".to_owned()],
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
        let record = Diagnosis::parse(&first).map(|diagnosis| diagnosis.record);
        assert_eq!(record, Some(vec!["E".to_owned(), "line?line".to_owned()]));
    }
}
