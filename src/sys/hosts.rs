//! The addresses of hosts, as the machine's name services know them.

use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::time::Duration;

use super::name_services::{self, NameServiceError, POLL, Question, is_key};
use super::{bounded, ffi};

/// The names of this machine, among others (`hosts(5)`).
const HOSTS: &str = "/etc/hosts";

/// The addresses of a host, in the order of `getaddrinfo(3)`, asked for as long as the caller waits; none where
/// nobody knows the name. Where getent(1) cannot be started, those that the C library finds.
///
/// # Errors
/// getent(1) could not answer, and the C library finds none.
pub(crate) async fn addresses(host: &str) -> Result<Vec<IpAddr>, NameServiceError> {
    if let Some(address) = address(host) {
        return Ok(vec![address]);
    }
    if !is_key(host) {
        return Ok(Vec::new());
    }
    let listed = listed(host);
    if !listed.is_empty() {
        return Ok(listed);
    }
    match ask_for_addresses(host).await {
        Err(reason @ NameServiceError::NotStarted(_)) => {
            let asked = host.to_owned();
            let ask = move || {
                let found = (asked.as_str(), 0).to_socket_addrs()?;
                Ok(found.map(|found| found.ip()).collect())
            };
            let found: Option<io::Result<_>> = bounded::in_thread(Duration::MAX, ask).await;
            found.and_then(Result::ok).ok_or(reason)
        }
        answer => answer,
    }
}

/// The addresses of a name in the machine's list of hosts, if that is the first name service for hosts, as it usually is.
/// This needs no process. And where `::1` is the machine's only address of IPv6, getent(1) leaves it out, because it asks
/// with AI_ADDRCONFIG (`getaddrinfo(3)`).
fn listed(host: &str) -> Vec<IpAddr> {
    let services = name_services::services("hosts").ok().flatten();
    let first = services.and_then(|services| services.into_iter().next());
    if first.as_deref() != Some("files") {
        return Vec::new();
    }
    let hosts = std::fs::read(HOSTS).unwrap_or_default();
    listed_in(&String::from_utf8_lossy(&hosts), host)
}

async fn ask_for_addresses(host: &str) -> Result<Vec<IpAddr>, NameServiceError> {
    let mut question = Question::start("ahosts", host, ffi::watch)?;
    loop {
        if let Some(answer) = question.answer() {
            return answer.map(|said| addresses_in(&said.unwrap_or_default()));
        }
        match &question.output {
            Some(output) => {
                if let Ok(mut ready) = output.readable().await {
                    ready.clear_ready();
                }
            }
            None => tokio::time::sleep(POLL).await,
        }
    }
}

/// The addresses that `getent ahosts` has printed: each once for every type of socket.
fn addresses_in(said: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for line in said.lines() {
        let word = line.split_whitespace().next().unwrap_or_default();
        found.extend(address(word).filter(|address| !found.contains(address)));
    }
    found
}

/// The addresses of a name in the machine's list of hosts, those of IPv6 first, as getaddrinfo(3) has `::1` before
/// `127.0.0.1`.
fn listed_in(hosts: &str, host: &str) -> Vec<IpAddr> {
    let mut listed = Vec::new();
    for line in hosts.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let ip = words.next().and_then(address);
        if words.any(|name| name.eq_ignore_ascii_case(host)) {
            listed.extend(ip.filter(|ip| !listed.contains(ip)));
        }
    }
    listed.sort_by_key(IpAddr::is_ipv4);
    listed
}

/// An address. One that is valid on one link can name its interface behind it. Where the machine has no address of IPv4,
/// getent(1) writes one of IPv4 as one of IPv6 (AI_V4MAPPED, `getaddrinfo(3)`).
fn address(text: &str) -> Option<IpAddr> {
    let address: IpAddr = text.split('%').next()?.parse().ok()?;
    Some(address.to_canonical())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn a_host_has_its_addresses_once() {
        let local = addresses("localhost").await.unwrap();
        assert!(!local.is_empty() && local.iter().all(IpAddr::is_loopback));
        for (host, expected) in [
            ("::1", "::1"),
            ("127.0.0.9", "127.0.0.9"),
            ("fe80::1%lo", "fe80::1"),
        ] {
            assert_eq!(addresses(host).await, Ok(vec![expected.parse().unwrap()]));
        }
        assert_eq!(addresses("-x").await, Ok(vec![]));
        let printed = "::1             STREAM localhost\n::1             DGRAM  \n\
                       fe80::2%eth0    STREAM \n::ffff:127.0.0.1 STREAM \nnss_x: warning\n";
        let expected: [IpAddr; 3] = ["::1", "fe80::2", "127.0.0.1"].map(|one| one.parse().unwrap());
        assert_eq!(addresses_in(printed), expected);
    }

    #[test]
    fn a_name_in_the_list_of_hosts_has_all_the_addresses_there() {
        let hosts = "# 127.0.0.9 localhost\n127.0.0.1 localhost # ::2 only6\n::1 LOCALHOST only6\n127.0.0.1 x localhost\n\
                     10.0.0.1 two\nfe80::1%lo two\nrubbish two\n::ffff:10.0.0.2 two\n";
        for (host, expected) in [
            ("localhost", "::1 127.0.0.1"),
            ("only6", "::1"),
            ("two", "fe80::1 10.0.0.1 10.0.0.2"),
            ("10.0.0.1", ""),
            ("unknown", ""),
        ] {
            let expected = addresses_in(&expected.replace(' ', "\n"));
            assert_eq!(listed_in(hosts, host), expected, "{host}");
        }
    }
}
