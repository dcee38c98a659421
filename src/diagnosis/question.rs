//! What a diagnosis starts from: what the run knows of the server and of its health check.

use std::net::IpAddr;
use std::time::Duration;

use super::server_log;
use crate::server::process::Process;
use crate::state::KnownServer;

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
    /// More redirects on its host than are followed.
    RedirectLoop,
    /// A certificate that is not trusted, for this reason.
    Certificate(String),
    /// An answer that is none, for this reason.
    Strange(String),
}
