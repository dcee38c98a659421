//! Why a check did not end healthy, and how an error becomes such a reason.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::time::Duration;

use super::redirect::MOST_REDIRECTS;
use crate::text::{errno_text, seconds};
use crate::tls::{self, TlsError};

/// What [`CheckError::NotTls`] says.
pub(crate) const NOT_TLS: &str = "the server does not speak TLS (is the URL's scheme right?)";

/// hyper's texts, by which alone it tells the kinds of parse errors apart: headers above its limits, and
/// an answer that comes before the request.
pub(super) const TOO_LARGE: &str = "message head is too large";
const UNASKED: &str = "received unexpected message from connection";
/// What is wrong with an answer that comes before the request.
const BEFORE_THE_REQUEST: &str = "it comes before the request";

/// Why a check did not end healthy; its text goes into the log.
#[derive(Debug)]
pub(crate) enum CheckError {
    /// The name has no address, for this reason.
    Resolution { host: String, reason: String },
    /// The request could not be sent for a reason on our own side (errno text).
    NotAsked { to: String, reason: String },
    /// No connection could be made, for this reason (errno text).
    Connection { to: String, reason: String },
    /// The deadline passed in this stage.
    TimedOut { limit: Duration, stage: CheckStage },
    /// The connection was reset in this stage.
    Reset(CheckStage),
    /// The connection was closed in this stage.
    Closed(CheckStage),
    /// The answer is not HTTP.
    NotHttp(String),
    /// The certificate is not trusted, for this reason.
    Certificate(String),
    /// The server does not speak TLS.
    NotTls,
    /// The server speaks no TLS that this program supports, or asks for a client certificate.
    Incompatible(String),
    /// No TLS connection came about, for another reason.
    Tls(String),
    /// More redirects than are followed.
    Redirects,
    /// A status below 200 or above 399.
    Status {
        /// The HTTP status.
        status: u16,
    },
    /// Anything else.
    Other(String),
}

impl CheckError {
    /// The HTTP status, where there was an answer.
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Self::Status { status } => Some(*status),
            _ => None,
        }
    }

    /// Whether the check failed on our own side, so that it says nothing about the server: a system
    /// call failed here, the name did not resolve, or this program does not support the server's TLS.
    pub(crate) fn is_not_asked(&self) -> bool {
        matches!(self, Self::NotAsked { .. } | Self::Incompatible(_)) || self.is_unresolved()
    }

    /// Whether the URL's host has no address, as far as could be found out in time.
    pub(crate) fn is_unresolved(&self) -> bool {
        matches!(
            self,
            Self::Resolution { .. }
                | Self::TimedOut {
                    stage: CheckStage::Resolving,
                    ..
                }
        )
    }

    /// Whether the connection was refused: nobody listens there.
    pub(crate) fn is_refused(&self) -> bool {
        let refused = errno_text(&io::Error::from_raw_os_error(nix::libc::ECONNREFUSED));
        matches!(self, Self::Connection { reason, .. } if *reason == refused)
    }

    /// What a failed system call of a connection to `to` means.
    pub(super) fn of_io(error: &io::Error, stage: CheckStage, to: &str) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionAborted => Self::Reset(stage),
            io::ErrorKind::UnexpectedEof => Self::Closed(stage),
            _ if is_from_the_network(error) => Self::Connection {
                to: to.to_owned(),
                reason: errno_text(error),
            },
            _ => Self::NotAsked {
                to: to.to_owned(),
                reason: errno_text(error),
            },
        }
    }

    /// What an error of a library means; its causes say more than the error itself.
    pub(super) fn of(error: &(dyn StdError + 'static), stage: CheckStage, to: &str) -> Self {
        let mut last = error;
        for here in causes(error) {
            if let Some(found) = Self::known(here, stage, to) {
                return found;
            }
            last = here;
        }
        Self::Other(last.to_string())
    }

    fn known(error: &(dyn StdError + 'static), stage: CheckStage, to: &str) -> Option<Self> {
        if let Some(error) = tls::error(error) {
            return Some(match error {
                TlsError::Certificate(what) => Self::Certificate(what),
                TlsError::NotTls => Self::NotTls,
                TlsError::Incompatible(what) => Self::Incompatible(what),
                TlsError::Handshake(what) => Self::Tls(what),
                TlsError::Ours(reason) => Self::NotAsked {
                    to: to.to_owned(),
                    reason,
                },
            });
        }
        if let Some(http) = error.downcast_ref::<hyper::Error>() {
            return Self::of_http(http, stage);
        }
        let io = error.downcast_ref::<io::Error>()?;
        // One of another kind only wraps an error of TLS or HTTP.
        let is_of_a_socket = io.raw_os_error().is_some()
            || matches!(
                io.kind(),
                io::ErrorKind::ConnectionReset
                    | io::ErrorKind::BrokenPipe
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::UnexpectedEof
            );
        is_of_a_socket.then(|| Self::of_io(io, stage, to))
    }

    fn of_http(error: &hyper::Error, stage: CheckStage) -> Option<Self> {
        // Cancelled is what had not been sent yet.
        if error.is_canceled() && is_unasked(error) {
            return Some(Self::NotHttp(BEFORE_THE_REQUEST.to_owned()));
        }
        if error.is_incomplete_message() || error.is_canceled() {
            return Some(Self::Closed(stage));
        }
        let text = error.to_string();
        let what = match text.as_str() {
            "invalid HTTP version parsed" => {
                "it does not begin with HTTP/1.0 or HTTP/1.1 (are the URL's scheme and port right?)"
            }
            "invalid HTTP status-code parsed" => "it has no valid status",
            "invalid HTTP header parsed" => "it has a broken header",
            TOO_LARGE => "it has more than 408 KiB of headers",
            UNASKED => BEFORE_THE_REQUEST,
            other => other,
        };
        (error.is_parse() || what != text).then(|| Self::NotHttp(what.to_owned()))
    }
}

/// The error and what led to it.
fn causes<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(
        Some(error),
        |here| -> Option<&'a (dyn StdError + 'static)> {
            let here = *here;
            // What an io::Error wraps is not among its sources: it stands for it.
            match here
                .downcast_ref::<io::Error>()
                .and_then(io::Error::get_ref)
            {
                Some(wrapped) => Some(wrapped),
                None => here.source(),
            }
        },
    )
}

/// Whether the answer came before the request, be that sent already or not.
pub(super) fn is_unasked(error: &hyper::Error) -> bool {
    causes(error).any(|here| here.to_string() == UNASKED)
}

/// The system call's error number behind this error.
pub(super) fn errno(error: &(dyn StdError + 'static)) -> Option<i32> {
    causes(error).find_map(|here| here.downcast_ref::<io::Error>()?.raw_os_error())
}

/// Whether the network or the peer is the source of this error of a socket (tcp(7), and
/// `icmp_err_convert` in Linux's net/ipv4/icmp.c); all others are from this machine. ENETUNREACH can
/// come from a router too, but nearly always means that this machine has no route.
pub(super) fn is_from_the_network(error: &io::Error) -> bool {
    use nix::libc::{
        ECONNABORTED, ECONNREFUSED, ECONNRESET, EHOSTDOWN, EHOSTUNREACH, ENONET, ENOPROTOOPT,
        EPIPE, ETIMEDOUT,
    };
    matches!(
        errno(error),
        Some(
            ECONNABORTED
                | ECONNREFUSED
                | ECONNRESET
                | EHOSTDOWN
                | EHOSTUNREACH
                | ENONET
                | ENOPROTOOPT
                | EPIPE
                | ETIMEDOUT
        )
    )
}

impl fmt::Display for CheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolution { host, reason } => {
                write!(f, "Connection error: cannot resolve {host}: {reason}")
            }
            Self::NotAsked { to, reason } | Self::Connection { to, reason } => {
                write!(f, "Connection error: {to}: {reason}")
            }
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
            Self::NotTls => write!(f, "SSL error: {NOT_TLS}"),
            Self::Incompatible(what) | Self::Tls(what) => write!(f, "SSL error: {what}"),
            Self::Redirects => write!(f, "Request error: more than {MOST_REDIRECTS} redirects"),
            Self::Status { status, .. } => write!(f, "Server returned error status: {status}"),
            Self::Other(what) => write!(f, "Request error: {what}"),
        }
    }
}

/// How far a check has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum CheckStage {
    /// Asking the name services.
    Resolving,
    /// Waiting for the TCP connection.
    Connecting,
    /// In the TLS handshake.
    Handshaking,
    /// The request is sent; waiting for the answer's headers.
    Waiting,
}

impl fmt::Display for CheckStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolving => "resolving the name",
            Self::Connecting => "connecting",
            Self::Handshaking => "in the TLS handshake",
            Self::Waiting => "waiting for headers",
        })
    }
}

#[cfg(test)]
mod tests {
    use nix::libc;

    use super::*;

    #[test]
    fn hazard_35_an_error_of_our_own_side_is_not_asked() {
        for ours in [
            libc::EACCES,
            libc::EPERM,
            libc::EADDRNOTAVAIL,
            libc::ENOBUFS,
            libc::ENOMEM,
            libc::ENETUNREACH,
            libc::ENETDOWN,
            libc::EMFILE,
            libc::ENFILE,
            libc::EAFNOSUPPORT,
            libc::EINVAL,
            libc::ENOSPC,
        ] {
            let error = io::Error::from_raw_os_error(ours);
            let error = CheckError::of_io(&error, CheckStage::Connecting, "vm:9143");
            assert!(error.is_not_asked(), "{error}");
        }
        for theirs in [libc::ECONNREFUSED, libc::ETIMEDOUT, libc::EHOSTUNREACH] {
            let error = io::Error::from_raw_os_error(theirs);
            let error = CheckError::of_io(&error, CheckStage::Connecting, "vm:9143");
            assert!(!error.is_not_asked(), "{error}");
        }
        let denied = io::Error::from_raw_os_error(libc::EACCES);
        assert_eq!(
            CheckError::of_io(&denied, CheckStage::Connecting, "127.0.0.1:9143").to_string(),
            "Connection error: 127.0.0.1:9143: Permission denied"
        );
    }

    #[test]
    fn a_name_that_does_not_resolve_is_not_asked() {
        let timed_out = |stage| CheckError::TimedOut {
            limit: Duration::from_secs(1),
            stage,
        };
        let resolution = CheckError::Resolution {
            host: "vm".into(),
            reason: "Name or service not known".into(),
        };
        assert!(resolution.is_not_asked());
        assert!(timed_out(CheckStage::Resolving).is_not_asked());
        assert!(!timed_out(CheckStage::Connecting).is_not_asked());
        assert!(!CheckError::Reset(CheckStage::Waiting).is_not_asked());
        assert!(resolution.is_unresolved() && timed_out(CheckStage::Resolving).is_unresolved());
        let denied = io::Error::from_raw_os_error(libc::EACCES);
        let denied = CheckError::of_io(&denied, CheckStage::Connecting, "vm:9143");
        assert!(denied.is_not_asked() && !denied.is_unresolved());
    }

    #[test]
    fn a_refused_connection_is_told_from_a_lost_one() {
        let of = |errno| {
            let error = io::Error::from_raw_os_error(errno);
            CheckError::of_io(&error, CheckStage::Connecting, "vm:9143")
        };
        assert!(of(libc::ECONNREFUSED).is_refused());
        assert!(!of(libc::ETIMEDOUT).is_refused() && !of(libc::ECONNRESET).is_refused());
    }
}
