//! The addresses of a URL's host.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use url::{Host, Url};

use super::check_error::CheckError;
use crate::sys::bounded;
use crate::text::errno_text;

/// The address in a URL that names its host by one.
pub(super) fn literal(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Ipv4(address) => Some(address.into()),
        Host::Ipv6(address) => Some(address.into()),
        Host::Domain(_) => None,
    }
}

/// Asks the system's name services, for as long as the caller waits.
pub(super) async fn resolve(host: &str) -> Result<Vec<IpAddr>, CheckError> {
    let asked = host.to_owned();
    let resolving = bounded::in_thread(Duration::MAX, move || {
        let found = (asked.as_str(), 0).to_socket_addrs()?;
        Ok::<Vec<IpAddr>, io::Error>(found.map(|found: SocketAddr| found.ip()).collect())
    });
    let failed = |reason: &str| CheckError::Resolution {
        host: host.to_owned(),
        reason: reason.to_owned(),
    };
    match resolving.await {
        Some(Ok(found)) if found.is_empty() => Err(failed("it has no address")),
        Some(Ok(found)) => Ok(found),
        Some(Err(error)) => Err(failed(
            errno_text(&error).trim_start_matches("failed to lookup address information: "),
        )),
        None => Err(failed("the name service did not answer")),
    }
}
