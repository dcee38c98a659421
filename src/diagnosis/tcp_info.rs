//! How long the peer of a TCP connection has been silent: `sock_diag(7)`, one connection by name.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const INET_DIAG_INFO: u16 = 2;
/// `struct nlmsghdr` and `struct inet_diag_msg`.
const HEADERS: usize = 16 + 72;

/// What the kernel knows of what a peer sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Received {
    /// How long ago its last data came; without data, how long ago it connected.
    pub(crate) ago: Duration,
    /// How many bytes it has sent in all.
    pub(crate) bytes: u64,
}

/// Asks the kernel about one connection.
pub(crate) fn received(local: SocketAddr, peer: SocketAddr) -> Option<Received> {
    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkSockDiag,
    )
    .ok()?;
    send(
        netlink.as_raw_fd(),
        &request(local, peer),
        MsgFlags::empty(),
    )
    .ok()?;
    let mut answer = [0; 1024];
    let length = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT).ok()?;
    parse(answer.get(..length)?)
}

/// `struct inet_diag_req_v2` (linux/inet_diag.h) behind its netlink header.
fn request(local: SocketAddr, peer: SocketAddr) -> Vec<u8> {
    let family = if local.is_ipv4() {
        nix::libc::AF_INET
    } else {
        nix::libc::AF_INET6
    };
    let mut body = vec![
        u8::try_from(family).unwrap_or_default(),
        6,
        1 << (INET_DIAG_INFO - 1),
        0,
    ];
    body.extend([0xff; 4]);
    body.extend(local.port().to_be_bytes());
    body.extend(peer.port().to_be_bytes());
    for address in [local.ip(), peer.ip()] {
        let mut sixteen = [0; 16];
        match address {
            IpAddr::V4(v4) => sixteen[..4].copy_from_slice(&v4.octets()),
            IpAddr::V6(v6) => sixteen = v6.octets(),
        }
        body.extend(sixteen);
    }
    body.extend([0; 4]);
    body.extend([0xff; 8]);
    let length = u32::try_from(16 + body.len()).unwrap_or_default();
    let mut request = Vec::from(length.to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend(NLM_F_REQUEST.to_ne_bytes());
    request.extend([0; 8]);
    request.extend(body);
    request
}

/// `tcpi_last_data_recv` (milliseconds) and `tcpi_bytes_received` of `struct tcp_info` (linux/tcp.h).
fn parse(answer: &[u8]) -> Option<Received> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let mut attributes = answer
        .get(HEADERS..)
        .filter(|_| kind == SOCK_DIAG_BY_FAMILY)?;
    loop {
        let length = usize::from(u16::from_ne_bytes(attributes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(attributes.get(2..4)?.try_into().ok()?);
        let info = attributes.get(4..length)?;
        if kind == INET_DIAG_INFO {
            let ago = u32::from_ne_bytes(info.get(52..56)?.try_into().ok()?);
            let bytes = u64::from_ne_bytes(info.get(128..136)?.try_into().ok()?);
            return Some(Received {
                ago: Duration::from_millis(ago.into()),
                bytes,
            });
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::print_stdout)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_kernel_knows_what_a_peer_has_sent() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                println!("skipped: {address} is not there");
                continue;
            };
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (server, peer) = listener.accept().unwrap();
            let ask = || received(server.local_addr().unwrap(), peer).unwrap();
            assert_eq!(ask().bytes, 0);
            client.write_all(b"GET").unwrap();
            server.peek(&mut [0; 3]).unwrap();
            assert_eq!(ask().bytes, 3);
            assert!(ask().ago < Duration::from_secs(60));
        }
    }

    #[test]
    fn an_answer_that_is_cut_or_an_error_says_nothing() {
        let mut answer = vec![0; 300];
        answer[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        for length in 0..answer.len() {
            assert_eq!(parse(&answer[..length]), None);
        }
        assert_eq!(parse(&[2; 36]), None);
    }
}
