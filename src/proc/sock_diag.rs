//! What the kernel knows of one TCP socket: `sock_diag(7)`, asked by its addresses.

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
/// `idiag_wqueue` and `idiag_inode` in them.
const WRITE_QUEUE: usize = 16 + 60;
const INODE: usize = 16 + 68;

/// What the kernel knows of what a peer sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Received {
    /// How long ago its last data came; without data, how long ago it connected.
    pub(crate) ago: Duration,
    /// How many bytes it has sent in all.
    pub(crate) bytes: u64,
    /// Whether it was ever sent any.
    pub(crate) was_answered: bool,
}

/// What the peer of this connection has sent.
pub(crate) fn received(local: SocketAddr, peer: SocketAddr) -> Option<Received> {
    info(&ask(local, peer)?)
}

/// How many clients may wait in the accept queue of this listening socket (`listen(2)`).
pub(crate) fn backlog(local: SocketAddr, inode: u64) -> Option<u32> {
    let any = match local {
        SocketAddr::V4(_) => SocketAddr::from(([0; 4], 0)),
        SocketAddr::V6(_) => SocketAddr::from(([0_u16; 8], 0)),
    };
    let answer = ask(local, any)?;
    // Where several sockets listen on one address, the answer can be another's.
    let is_it = u64::from(number(&answer, INODE)?) == inode;
    is_it.then(|| number(&answer, WRITE_QUEUE)).flatten()
}

fn ask(local: SocketAddr, peer: SocketAddr) -> Option<Vec<u8>> {
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
    let mut answer = vec![0; 1024];
    let length = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT).ok()?;
    answer.truncate(length);
    let kind = answer.get(4..6)?.try_into().ok()?;
    (u16::from_ne_bytes(kind) == SOCK_DIAG_BY_FAMILY).then_some(answer)
}

fn number(answer: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(answer.get(at..at + 4)?.try_into().ok()?))
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

/// `tcpi_last_data_recv` (milliseconds), `tcpi_bytes_received` and `tcpi_data_segs_out` of `struct
/// tcp_info` (linux/tcp.h).
fn info(answer: &[u8]) -> Option<Received> {
    let mut attributes = answer.get(HEADERS..)?;
    loop {
        let length = usize::from(u16::from_ne_bytes(attributes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(attributes.get(2..4)?.try_into().ok()?);
        let info = attributes.get(4..length)?;
        if kind == INET_DIAG_INFO {
            let ago = number(info, 52)?;
            let bytes = u64::from_ne_bytes(info.get(128..136)?.try_into().ok()?);
            return Some(Received {
                ago: Duration::from_millis(ago.into()),
                bytes,
                was_answered: number(info, 156)? > 0,
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
            let (mut server, peer) = listener.accept().unwrap();
            let local = server.local_addr().unwrap();
            let ask = || received(local, peer).unwrap();
            assert_eq!(ask().bytes, 0);
            client.write_all(b"GET").unwrap();
            server.peek(&mut [0; 3]).unwrap();
            assert_eq!(ask().bytes, 3);
            assert!(ask().ago < Duration::from_secs(60) && !ask().was_answered);
            server.write_all(b"HTTP").unwrap();
            assert!(ask().was_answered);
        }
    }

    #[test]
    fn the_kernel_knows_how_many_clients_may_wait() {
        for address in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                println!("skipped: {address} is not there");
                continue;
            };
            nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(3).unwrap())
                .unwrap();
            let link = format!("/proc/self/fd/{}", listener.as_raw_fd());
            let link = std::fs::read_link(link).unwrap();
            let inode = link
                .to_str()
                .unwrap()
                .trim_matches(|c: char| !c.is_ascii_digit());
            let inode = inode.parse().unwrap();
            let local = listener.local_addr().unwrap();
            assert_eq!(backlog(local, inode), Some(3), "{address}");
            assert_eq!(backlog(local, inode + 1), None, "{address}");
        }
    }

    #[test]
    fn an_answer_that_is_cut_says_nothing() {
        let answer = vec![0; 300];
        for length in 0..answer.len() {
            assert_eq!(info(&answer[..length]), None);
        }
        assert_eq!(number(&[1, 0, 0], 0), None);
    }
}
