//! `http` where the server speaks TLS, and `https` where it does not.

use url::Url;

use super::check_error::{CheckError, CheckStage};

/// The status by which nginx, Apache and Go's server refuse plain HTTP on a TLS port.
pub(super) const BAD_REQUEST: u16 = 400;

/// Whether plain HTTP can have ended so because the server speaks TLS.
pub(super) fn seems_tls(error: &CheckError) -> bool {
    matches!(
        error,
        CheckError::NotHttp(_)
            | CheckError::Closed(CheckStage::Waiting)
            | CheckError::Reset(CheckStage::Waiting)
            | CheckError::Status {
                status: BAD_REQUEST,
                ..
            }
    )
}

/// Whether TLS can have ended so because the server speaks plain HTTP; one that waits for the end of a
/// line finds none in a TLS handshake.
pub(super) fn seems_plain(error: &CheckError) -> bool {
    matches!(
        error,
        CheckError::NotTls
            | CheckError::Closed(CheckStage::Handshaking)
            | CheckError::Reset(CheckStage::Handshaking)
            | CheckError::TimedOut {
                stage: CheckStage::Handshaking,
                ..
            }
    )
}

/// The URL with the other scheme and the same port, without its password.
pub(super) fn other(url: &Url) -> Option<Url> {
    let port = url.port_or_known_default();
    let scheme = match url.scheme() {
        "http" => "https",
        _ => "http",
    };
    let mut other = url.clone();
    other.set_scheme(scheme).ok()?;
    other.set_port(port).ok()?;
    other.set_password(None).ok()?;
    Some(other)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn hazard_47_the_other_scheme_is_on_the_same_port() {
        for (url, expected) in [
            ("http://vm:9143/a?b", "https://vm:9143/a?b"),
            ("https://vm:9143/", "http://vm:9143/"),
            ("http://vm/", "https://vm:80/"),
            ("https://vm/", "http://vm:443/"),
            ("http://vm:443/", "https://vm/"),
            ("https://ada:pw@[::1]:9143/", "http://ada@[::1]:9143/"),
        ] {
            let other = other(&Url::parse(url).unwrap()).unwrap();
            assert_eq!(other.as_str(), expected);
        }
    }
}
