//! What went wrong in TLS, in words that an administrator can act on.

use std::error::Error as StdError;
use std::fmt::{self, Debug};
use std::io;

use rustls::{
    AlertDescription, CertificateError, Error, InvalidMessage, OtherError, PeerIncompatible,
};

use crate::text::{date, errno_text, shortened};

/// Why there is no TLS connection.
#[derive(Debug)]
pub(crate) enum TlsError {
    /// The certificate is not accepted.
    Certificate(String),
    /// The server does not speak TLS.
    NotTls,
    /// TLS failed on our own side.
    Ours(String),
    /// The server speaks no TLS that this program supports, or asks for a client certificate, which it does not have.
    Incompatible(String),
    /// Anything else.
    Handshake(String),
}

/// Why a file is no use as `--ca-cert`.
#[derive(Debug)]
pub(crate) enum AuthorityError {
    /// It cannot be read.
    Unreadable(io::Error),
    /// It holds no certificate.
    Empty,
}

impl fmt::Display for AuthorityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(reason) => f.write_str(&errno_text(reason)),
            Self::Empty => {
                f.write_str("no certificate in it (PEM, \"-----BEGIN CERTIFICATE-----\")")
            }
        }
    }
}

const NEITHER: &str = "the server speaks neither TLS 1.2 nor TLS 1.3";

/// What this error says, if it is one of TLS.
pub(crate) fn error(error: &(dyn StdError + 'static)) -> Option<TlsError> {
    let what = match error.downcast_ref::<Error>()? {
        Error::InvalidCertificate(certificate) => {
            return Some(TlsError::Certificate(untrusted(certificate)));
        }
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        ) => return Some(TlsError::NotTls),
        Error::InvalidMessage(what) => format!("the server's TLS is broken: {}", words(what)),
        ours @ (Error::FailedToGetCurrentTime
        | Error::FailedToGetRandomBytes
        | Error::EncryptError) => {
            return Some(TlsError::Ours(format!("cannot set up TLS: {ours}")));
        }
        Error::AlertReceived(alert) => {
            let what = refused(*alert);
            return Some(if is_incompatible(*alert) {
                TlsError::Incompatible(what)
            } else {
                TlsError::Handshake(what)
            });
        }
        Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13) => {
            return Some(TlsError::Incompatible(NEITHER.into()));
        }
        Error::PeerIncompatible(what) => {
            let what = format!("nothing in common with the server: {}", words(what));
            return Some(TlsError::Incompatible(what));
        }
        Error::PeerMisbehaved(what) => {
            format!("the server breaks the rules of TLS: {}", words(what))
        }
        Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => {
            "the server breaks the rules of TLS: a message out of turn".into()
        }
        other => other.to_string(),
    };
    Some(TlsError::Handshake(what))
}

/// Whether a server that works sends this alert, because the client does not support what it needs (RFC 8446, section 6.2).
fn is_incompatible(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::HandshakeFailure
            | AlertDescription::ProtocolVersion
            | AlertDescription::InsufficientSecurity
            | AlertDescription::CertificateRequired
    )
}

fn refused(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::ProtocolVersion => NEITHER.into(),
        AlertDescription::HandshakeFailure => {
            "the server refused the handshake: no cipher or kind of key in common (a P-521, Ed448 or RSA-PSS key \
             needs --no-verify-ssl and TLS 1.3), or it asks for a client certificate"
                .into()
        }
        AlertDescription::CertificateRequired => "the server asks for a client certificate".into(),
        other => format!("the server refused the handshake: {}", words(&other)),
    }
}

fn untrusted(error: &CertificateError) -> String {
    match error {
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("expired on {}", date(not_after.as_secs()))
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("not valid before {}", date(not_before.as_secs()))
        }
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => {
            let names: Vec<&str> = presented.iter().map(|name| bare_name(name)).collect();
            let names = if names.is_empty() {
                "no name".to_owned()
            } else {
                shortened(names.join(", "))
            };
            format!(
                "name mismatch with {}: the certificate is for {names}",
                expected.to_str()
            )
        }
        CertificateError::UnknownIssuer => {
            "unknown issuer (give --ca-cert FILE, or --no-verify-ssl to trust anybody)".into()
        }
        CertificateError::BadEncoding => "it cannot be read".into(),
        CertificateError::BadSignature => {
            "a signature is not by its key, or the key is weak (RSA below 2048 bits)".into()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "it is not meant for a server (extended key usage)".into()
        }
        CertificateError::Other(other) if is_own_authority(other) => {
            "self-signed (give it with --ca-cert FILE, or --no-verify-ssl to trust anybody)".into()
        }
        CertificateError::Other(OtherError(other)) => match other.downcast_ref::<webpki::Error>() {
            Some(other) => words(other),
            None => other.to_string(),
        },
        other => words(other),
    }
}

/// The name of a variant in words: `no cipher suites in common` for `NoCipherSuitesInCommon`. The enums
/// of rustls and webpki have no other text.
fn words(variant: &dyn Debug) -> String {
    let debug = format!("{variant:?}");
    let end = debug.find(|c: char| !c.is_alphanumeric());
    let name: Vec<char> = debug[..end.unwrap_or(debug.len())].chars().collect();
    let mut words = vec![String::new()];
    for (at, c) in name.iter().enumerate() {
        let is_after_small = at > 0 && !name[at - 1].is_uppercase();
        let is_before_small = name.get(at + 1).is_some_and(|next| next.is_lowercase());
        if at > 0 && c.is_uppercase() && (is_after_small || is_before_small) {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut() {
            word.push(*c);
        }
    }
    let is_acronym = |word: &String| word.len() > 1 && word.chars().all(char::is_uppercase);
    for word in words.iter_mut().filter(|word| !is_acronym(word)) {
        *word = word.to_lowercase();
    }
    words.join(" ")
}

/// Whether a server shows a certificate that says that it is a CA's, as `openssl req -x509` makes it.
pub(super) fn is_own_authority(error: &OtherError) -> bool {
    matches!(
        error.0.downcast_ref::<webpki::Error>(),
        Some(webpki::Error::CaUsedAsEndEntity)
    )
}

/// The name in `DnsName("myvnc.example.com")` or `IpAddress(10.0.0.1)`, as webpki writes it.
fn bare_name(presented: &str) -> &str {
    let inner = presented
        .split_once('(')
        .map_or(presented, |(_, inner)| inner);
    inner.trim_end_matches(')').trim_matches('"')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]

    use rustls::PeerMisbehaved;

    use super::*;

    #[test]
    fn a_fault_is_said_in_words() {
        for (cause, said, is_limit) in [
            (
                Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon),
                "nothing in common with the server: no cipher suites in common",
                true,
            ),
            (
                Error::AlertReceived(AlertDescription::InsufficientSecurity),
                "the server refused the handshake: insufficient security",
                true,
            ),
            (
                Error::PeerMisbehaved(PeerMisbehaved::SelectedUnofferedPsk),
                "the server breaks the rules of TLS: selected unoffered psk",
                false,
            ),
            (
                Error::AlertReceived(AlertDescription::UnknownCA),
                "the server refused the handshake: unknown CA",
                false,
            ),
            (
                Error::InvalidMessage(InvalidMessage::MissingData("Extension")),
                "the server's TLS is broken: missing data",
                false,
            ),
        ] {
            match error(&cause) {
                Some(TlsError::Incompatible(what)) if is_limit => assert_eq!(what, said),
                Some(TlsError::Handshake(what)) if !is_limit => assert_eq!(what, said),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(untrusted(&CertificateError::Revoked), "revoked");
    }
}
