//! One HTTP check of the server, under one deadline, and what was seen.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::{Attempt, Policy};
use tower::util::{MapRequestLayer, MapResponseLayer};
use url::Url;

use crate::journal::{plain, seconds};
use crate::sys::bounded;
use crate::trust::{self, Fault, Trust};

/// As many redirects on one host are followed.
const MOST_REDIRECTS: usize = 10;

/// What one check saw.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Status 200 to 399.
    Healthy {
        /// The HTTP status.
        status: u16,
        /// From the start of the check to the end of the headers.
        took: Duration,
    },
    /// Anything else.
    Unhealthy(Trouble),
}

/// Why a check did not end healthy; its text goes into the log.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The name has no address, for this reason.
    Resolution { host: String, reason: String },
    /// No connection could be made, for this reason (errno text).
    Connection { to: String, reason: String },
    /// The deadline passed in this stage.
    TimedOut { limit: Duration, stage: Stage },
    /// The connection was reset in this stage.
    Reset(Stage),
    /// The connection was closed in this stage.
    Closed(Stage),
    /// The answer is not HTTP.
    NotHttp(String),
    /// The certificate is not trusted, for this reason.
    Certificate(String),
    /// No TLS connection came about, for another reason.
    Tls(String),
    /// More redirects than are followed.
    Redirects,
    /// A status below 200 or above 399.
    Status(u16),
    /// Anything else.
    Other(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolution { host, reason } => {
                write!(f, "Connection error: cannot resolve {host}: {reason}")
            }
            Self::Connection { to, reason } => write!(f, "Connection error: {to}: {reason}"),
            Self::TimedOut { limit, stage } => {
                write!(
                    f,
                    "Server request timed out after {} seconds ({stage})",
                    seconds(*limit)
                )
            }
            Self::Reset(stage) => write!(
                f,
                "Connection error: connection reset by the server ({stage})"
            ),
            Self::Closed(stage) => write!(
                f,
                "Connection error: connection closed without an answer ({stage})"
            ),
            Self::NotHttp(what) => write!(f, "Connection error: the answer is not HTTP: {what}"),
            Self::Certificate(what) => write!(f, "SSL certificate error: {what}"),
            Self::Tls(what) => write!(f, "SSL error: {what}"),
            Self::Redirects => write!(f, "Request error: more than {MOST_REDIRECTS} redirects"),
            Self::Status(status) => write!(f, "Server returned error status: {status}"),
            Self::Other(what) => write!(f, "Request error: {what}"),
        }
    }
}

/// How far a check has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Stage {
    /// Asking the name services.
    Resolving,
    /// Waiting for the TCP connection.
    Connecting,
    /// In the TLS handshake.
    Handshaking,
    /// The request is sent; waiting for the answer's headers.
    Waiting,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolving => "resolving the name",
            Self::Connecting => "connecting",
            Self::Handshaking => "in the TLS handshake",
            Self::Waiting => "waiting for headers",
        })
    }
}

/// What a running check tells while it goes on.
#[derive(Debug)]
struct Progress {
    stage: Mutex<Stage>,
    addresses: Mutex<Vec<IpAddr>>,
    /// The port that the last redirect of this check leads to.
    redirected: Mutex<Option<u16>>,
}

impl Progress {
    fn redirect(&self, port: Option<u16>) {
        *self
            .redirected
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = port;
    }

    fn redirected(&self) -> Option<u16> {
        *self
            .redirected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn reach(&self, stage: Stage) {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    }

    fn stage(&self) -> Stage {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl trust::Began for Progress {
    fn handshake(&self) {
        self.reach(Stage::Handshaking);
    }
}

/// Checks one URL, as often as asked.
#[derive(Debug)]
pub(crate) struct Checker {
    url: Url,
    client: reqwest::Client,
    progress: Arc<Progress>,
}

impl Checker {
    /// A checker of this URL; fails only where TLS cannot be set up at all.
    pub(crate) fn new(url: &Url, trust: &Trust) -> Result<Self, String> {
        let addresses = match url.host() {
            Some(url::Host::Ipv4(address)) => vec![IpAddr::V4(address)],
            Some(url::Host::Ipv6(address)) => vec![IpAddr::V6(address)],
            _ => Vec::new(),
        };
        let progress = Arc::new(Progress {
            stage: Mutex::new(Stage::Connecting),
            addresses: Mutex::new(addresses),
            redirected: Mutex::new(None),
        });
        let tls =
            trust::client_config(trust, progress.clone()).map_err(|reason| reason.to_string())?;
        let (starting, connected) = (progress.clone(), progress.clone());
        let redirected = progress.clone();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .dns_resolver(Resolver(progress.clone()))
            .connector_layer(MapRequestLayer::new(move |target| {
                starting.reach(Stage::Connecting);
                target
            }))
            .connector_layer(MapResponseLayer::new(move |connection| {
                connected.reach(Stage::Waiting);
                connection
            }))
            .redirect(Policy::custom(move |attempt| follow(attempt, &redirected)))
            .referer(false)
            .no_proxy()
            .http1_only()
            // A server that answers with an odd header answers.
            .http1_ignore_invalid_headers_in_responses(true)
            .http1_allow_spaces_after_header_name_in_responses(true)
            .http1_allow_obsolete_multiline_headers_in_responses(true)
            .pool_max_idle_per_host(0)
            // One request, under a deadline: there is nothing to keep alive.
            .tcp_keepalive(None)
            .tcp_keepalive_interval(None)
            .tcp_keepalive_retries(None)
            .tcp_user_timeout(None)
            .tcp_nodelay(false)
            .user_agent(concat!(
                env!("CARGO_PKG_NAME"),
                "/",
                env!("CARGO_PKG_VERSION")
            ))
            .build()
            .map_err(|reason| innermost(&reason))?;
        Ok(Self {
            url: url.clone(),
            client,
            progress,
        })
    }

    /// One GET; the body is not read.
    pub(crate) async fn check(&self, limit: Duration) -> Verdict {
        let began = Instant::now();
        self.progress.redirect(None);
        let answer = self
            .client
            .get(self.url.clone())
            .header(reqwest::header::CONNECTION, "close")
            .send();
        match tokio::time::timeout(limit, answer).await {
            Err(_) => Verdict::Unhealthy(Trouble::TimedOut {
                limit,
                stage: self.progress.stage(),
            }),
            Ok(Err(error)) => Verdict::Unhealthy(self.trouble(&error)),
            Ok(Ok(response)) => match response.status().as_u16() {
                status @ 200..=399 => Verdict::Healthy {
                    status,
                    took: began.elapsed(),
                },
                status => Verdict::Unhealthy(Trouble::Status(status)),
            },
        }
    }

    /// The addresses that the URL's host was last seen to have; empty before it was resolved.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        self.progress
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    /// Where the last request went; a redirect stays on the host, but can change the port.
    fn asked(&self) -> String {
        let own = self.url.port_or_known_default().unwrap_or_default();
        match self.progress.redirected() {
            Some(port) if port != own => {
                format!("{}:{port}, where {own} redirects to", self.host())
            }
            _ => format!("{}:{own}", self.host()),
        }
    }

    fn trouble(&self, error: &reqwest::Error) -> Trouble {
        let stage = self.progress.stage();
        if error.is_redirect() {
            return Trouble::Redirects;
        }
        if stage == Stage::Resolving {
            return Trouble::Resolution {
                host: self.host().to_owned(),
                reason: innermost(error)
                    .trim_start_matches("failed to lookup address information: ")
                    .to_owned(),
            };
        }
        let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
        while let Some(here) = cause {
            if let Some(trouble) = self.known(here, stage) {
                return trouble;
            }
            // What an io::Error wraps is not among its sources: it stands for it.
            cause = match here
                .downcast_ref::<io::Error>()
                .and_then(io::Error::get_ref)
            {
                Some(wrapped) => Some(wrapped),
                None => here.source(),
            };
        }
        Trouble::Other(innermost(error))
    }

    fn known(&self, error: &(dyn StdError + 'static), stage: Stage) -> Option<Trouble> {
        if let Some(fault) = trust::fault(error) {
            return Some(match fault {
                Fault::Certificate(what) => Trouble::Certificate(what),
                Fault::Handshake(what) => Trouble::Tls(what),
            });
        }
        if let Some(http) = error.downcast_ref::<hyper::Error>() {
            return http_trouble(http, stage);
        }
        let io = error.downcast_ref::<io::Error>()?;
        match io.kind() {
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionAborted => Some(Trouble::Reset(stage)),
            io::ErrorKind::UnexpectedEof => Some(Trouble::Closed(stage)),
            _ if io.raw_os_error().is_some() => Some(Trouble::Connection {
                to: self.asked(),
                reason: plain(io),
            }),
            _ => None,
        }
    }
}

/// Follows a redirect that stays on the host; one that leaves it is itself the answer.
fn follow(attempt: Attempt, progress: &Progress) -> reqwest::redirect::Action {
    let here = attempt.previous().first().and_then(Url::host_str);
    let stays =
        attempt.url().host_str() == here && matches!(attempt.url().scheme(), "http" | "https");
    if !stays {
        attempt.stop()
    } else if attempt.previous().len() > MOST_REDIRECTS {
        attempt.error("too many redirects")
    } else {
        progress.redirect(attempt.url().port_or_known_default());
        attempt.follow()
    }
}

fn http_trouble(error: &hyper::Error, stage: Stage) -> Option<Trouble> {
    if error.is_incomplete_message() {
        return Some(Trouble::Closed(stage));
    }
    let text = error.to_string();
    // hyper tells the kinds of parse errors apart by their texts only.
    let what = match text.as_str() {
        "invalid HTTP version parsed" => {
            "it does not begin with HTTP/1.0 or HTTP/1.1 (are the URL's scheme and port right?)"
        }
        "invalid HTTP status-code parsed" => "it has no valid status",
        "invalid HTTP header parsed" => "it has a broken header",
        "message head is too large" => "it has more than 100 headers, or more than 408 KiB of them",
        "invalid content-length parsed" => "it has a broken Content-Length",
        "unexpected transfer-encoding parsed" => "it has a Transfer-Encoding in HTTP/1.0",
        "received unexpected message from connection" => "it comes before the request",
        other => other,
    };
    (error.is_parse() || what != text).then(|| Trouble::NotHttp(what.to_owned()))
}

fn innermost(error: &(dyn StdError + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    match last.downcast_ref::<io::Error>() {
        Some(io) => plain(io),
        None => last.to_string(),
    }
}

/// The system's resolver, with the stage and the addresses noted.
struct Resolver(Arc<Progress>);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let progress = self.0.clone();
        Box::pin(async move {
            progress.reach(Stage::Resolving);
            let host = name.as_str().to_owned();
            // Its answer is waited for until the deadline of the check.
            let resolving = bounded::in_thread(Duration::MAX, move || {
                let found = (host.as_str(), 0).to_socket_addrs()?;
                Ok::<Vec<SocketAddr>, io::Error>(found.collect())
            });
            let found = resolving
                .await
                .ok_or_else(|| io::Error::from(io::ErrorKind::TimedOut))??;
            *progress
                .addresses
                .lock()
                .unwrap_or_else(PoisonError::into_inner) =
                found.iter().map(SocketAddr::ip).collect();
            progress.reach(Stage::Connecting);
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}
