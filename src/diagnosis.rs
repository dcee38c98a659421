//! Why a server hangs: evidence from /proc, taken before anything is stopped, and what it means.

mod cause;
mod evidence;
mod oom;
mod record;
mod secrets;
pub(crate) mod server_log;
mod tcp_info;
mod wait;

use std::net::IpAddr;
use std::time::Duration;

use crate::process::find::Process;

/// No look takes longer.
pub(crate) const BUDGET: Duration = Duration::from_millis(500);

/// What is asked about.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    /// The server's processes.
    pub(crate) server: Vec<Process>,
    /// The URL's port.
    pub(crate) port: u16,
    /// The addresses of the URL's host, where they are known.
    pub(crate) addresses: Vec<IpAddr>,
    /// Whether the URL is https.
    pub(crate) tls: bool,
    /// What the check saw.
    pub(crate) seen: Seen,
    /// How long ago the last healthy check was.
    pub(crate) since_healthy: Option<Duration>,
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
    /// An answer with this status.
    Status(u16),
    /// A certificate that is not trusted, for this reason.
    Certificate(String),
}

/// What a look came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Diagnosis {
    /// The causes, the most specific first, one sentence each.
    pub(crate) causes: Vec<String>,
    /// The evidence, a line for each process, port and resource.
    pub(crate) record: Vec<String>,
}

/// Looks. Reads /proc alone, but that may block where the machine is ill: not for the event loop.
pub(crate) fn look(question: &Question) -> Diagnosis {
    let evidence = evidence::gather(question);
    Diagnosis {
        causes: cause::causes(&evidence),
        record: record::lines(&evidence, question.log.history),
    }
}
