//! The addresses of a URL's host.

use std::net::IpAddr;

use url::{Host, Url};

use super::check_error::CheckError;
use crate::sys::hosts;

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
    let failed = |reason: String| CheckError::Resolution {
        host: host.to_owned(),
        reason,
    };
    match hosts::addresses(host).await {
        Ok(found) if found.is_empty() => {
            Err(failed(format!("`getent ahosts {host}` finds no address")))
        }
        Ok(found) => Ok(found),
        Err(reason) => Err(failed(reason.to_string())),
    }
}
