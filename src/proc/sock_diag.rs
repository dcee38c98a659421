//! What the kernel knows of TCP sockets: `sock_diag(7)`, asked by their addresses, port or users.

use std::io;
use std::mem::offset_of;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::libc;
use procfs::net::TcpState;
use serde::{Deserialize, Serialize};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

/// `linux/sock_diag.h` and `linux/inet_diag.h`, which libc does not have.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const INET_DIAG_INFO: u16 = 2;
const INET_DIAG_SKV6ONLY: u16 = 11;
/// `INET_DIAG_NOCOOKIE`: any socket at that address.
const NO_COOKIE: u64 = u64::MAX;
const ALL_STATES: u32 = u32::MAX;
/// `TCP_ESTABLISHED`.
const ESTABLISHED: u8 = 1;
/// `TCP_LISTEN`.
const LISTEN: u8 = 10;
const LISTENING: u32 = 1 << LISTEN;
/// `TCPF_BOUND_INACTIVE`.
const BOUND: u32 = 1 << 13;
/// Size of `struct nlmsghdr`, in bytes.
const NETLINK_HEADER: usize = size_of::<libc::nlmsghdr>();
/// Size of it and `struct inet_diag_msg`.
const HEADERS: usize = NETLINK_HEADER + 72;
/// `id.idiag_sport`, `id.idiag_dport`, `id.idiag_src`, `id.idiag_dst`, `id.idiag_cookie`, `idiag_rqueue`,
/// `idiag_wqueue`, `idiag_uid` and `idiag_inode` in them.
const PORT: usize = NETLINK_HEADER + 4;
const PEER_PORT: usize = NETLINK_HEADER + 6;
const SOURCE: usize = NETLINK_HEADER + 8;
const DESTINATION: usize = NETLINK_HEADER + 24;
const COOKIE: usize = NETLINK_HEADER + 44;
const READ_QUEUE: usize = NETLINK_HEADER + 56;
const WRITE_QUEUE: usize = NETLINK_HEADER + 60;
const UID: usize = NETLINK_HEADER + 64;
const INODE: usize = NETLINK_HEADER + 68;

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
    info(&ask(local, peer, NO_COOKIE).ok()??)
}

/// One end of a TCP connection (`struct inet_diag_msg`, and `struct tcp_info` of tcp(7)).
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Connection {
    /// The end that was asked for.
    pub(crate) local: SocketAddr,
    /// The other one.
    pub(crate) peer: SocketAddr,
    /// Whether it is ESTABLISHED: neither side has closed it.
    pub(crate) is_established: bool,
    /// By this a descriptor is recognised (`socket:[INODE]`); 0 before it is accepted.
    pub(crate) inode: u64,
    /// A number that no other socket of this boot and network namespace gets.
    pub(crate) cookie: u64,
    /// Time since data came last.
    pub(crate) since_received: Duration,
    /// Time since data was sent last, again or for the first time.
    pub(crate) since_sent: Duration,
    /// Time since the peer acknowledged anything, which it also does when it is asked whether it is there.
    pub(crate) since_acknowledged: Duration,
    /// Whether data that was sent is sent again, since the peer does not acknowledge it.
    pub(crate) is_retransmitting: bool,
}

impl Connection {
    /// For how long nothing has moved on it. A peer that is gone acknowledges nothing while data is sent
    /// again and again. One that is far away has a round trip's time for its answer to what was just sent.
    pub(crate) fn still(&self) -> Duration {
        let since_sent = if self.is_retransmitting {
            self.since_acknowledged
        } else {
            self.since_sent
        };
        self.since_received.min(since_sent)
    }
}

/// The end of a connection at `local`; none where there is no such connection.
///
/// # Errors
/// As `listener`.
pub(crate) fn connection(local: SocketAddr, peer: SocketAddr) -> io::Result<Option<Connection>> {
    Ok(ask(local, peer, NO_COOKIE)?.and_then(|answer| connection_in(&answer, local, peer)))
}

/// Ends a connection: its peer gets a reset, and who waits for it gets ECONNABORTED. Only the very socket
/// that was asked for is ended, none that has its addresses by now. `false` when it is gone already.
///
/// # Errors
/// The kernel refuses: EPERM without CAP_NET_ADMIN in the user namespace of the network namespace, EOPNOTSUPP
/// without CONFIG_INET_DIAG_DESTROY.
pub(crate) fn destroy(connection: &Connection) -> io::Result<bool> {
    let netlink = open()?;
    let (local, peer) = (connection.local, connection.peer);
    let asked = Asked::of(connection.cookie);
    let request = request(SOCK_DESTROY, local, peer, asked, libc::NLM_F_ACK);
    send(netlink.as_raw_fd(), &request, MsgFlags::empty())?;
    let mut answer = vec![0; 1024];
    let length = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT)?;
    answer.truncate(length);
    if kind(&answer).map(i32::from) != Some(libc::NLMSG_ERROR) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // An error of 0 is the acknowledgement (netlink(7)).
    let reason = refusal(&answer);
    match reason.raw_os_error() {
        Some(0) => Ok(true),
        Some(libc::ENOENT | libc::ESTALE) => Ok(false),
        _ => Err(reason),
    }
}

/// A TCP socket (`struct inet_diag_msg`).
#[derive(Clone, Debug)]
pub(crate) struct TcpSocket {
    /// Its state; `Close` of one that is bound and neither listens nor is connected.
    pub(crate) state: TcpState,
    /// Where it is bound.
    pub(crate) local: SocketAddr,
    /// The other end of its connection.
    pub(crate) peer: SocketAddr,
    /// Bytes that its process has not read; of one that listens, clients that wait to be accepted.
    pub(crate) rx_queue: u32,
    /// Bytes that its peer has not acknowledged; of one that listens, how many clients may wait.
    pub(crate) tx_queue: u32,
    /// See [`Listener`].
    pub(crate) uid: u32,
    /// See [`Listener`]; 0 of one that no process has: it is not accepted yet, or closed already.
    pub(crate) inode: u64,
    /// See [`Listener`].
    pub(crate) cookie: Option<u64>,
    /// See [`Listener`].
    pub(crate) is_v6_only: bool,
}

impl TcpSocket {
    /// What it is, if it listens.
    pub(crate) fn listener(&self) -> Option<Listener> {
        (self.state == TcpState::Listen).then_some(Listener {
            address: self.local,
            uid: self.uid,
            inode: self.inode,
            cookie: self.cookie,
            is_v6_only: self.is_v6_only,
        })
    }
}

/// A listening TCP socket.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct Listener {
    /// Where it is bound.
    pub(crate) address: SocketAddr,
    /// Effective user ID of the process that made it.
    pub(crate) uid: u32,
    /// By this a descriptor is recognised (`socket:[INODE]`).
    pub(crate) inode: u64,
    /// A number that no other socket of this boot and network namespace gets (`SO_COOKIE`, socket(7));
    /// none where /proc/net/tcp was read instead.
    pub(crate) cookie: Option<u64>,
    /// Whether it takes no connections to IPv4 addresses (`IPV6_V6ONLY`, ipv6(7)), where that is known.
    pub(crate) is_v6_only: bool,
}

/// How many clients may wait in the accept queue of this listening socket (`listen(2)`).
pub(crate) fn backlog(local: SocketAddr, inode: u64) -> Option<u32> {
    let answer = ask(local, any(local), NO_COOKIE).ok()??;
    // Where several sockets listen on one address, the answer can be another's.
    let is_it = u64::from(number(&answer, INODE)?) == inode;
    is_it.then(|| number(&answer, WRITE_QUEUE)).flatten()
}

/// The socket that listens at this address and has this cookie, if it is still there.
///
/// # Errors
/// The kernel cannot be asked: a filter of system calls, no descriptor, no memory.
pub(crate) fn listener(local: SocketAddr, cookie: u64) -> io::Result<Option<Listener>> {
    let answer = ask(local, any(local), cookie)?;
    Ok(answer.and_then(|answer| socket_in(&answer)?.listener()))
}

/// The socket that takes connections to this address, if one does; of several, one of them.
///
/// # Errors
/// As `listener`.
pub(crate) fn listener_at(local: SocketAddr) -> io::Result<Option<Listener>> {
    listener(local, NO_COOKIE)
}

/// The sockets of our network namespace that listen on this port, or on any, and are wanted; whether all were listed
/// until `end`: anybody can make a great many.
///
/// # Errors
/// As `listener`.
pub(crate) fn listeners(
    port: Option<u16>,
    end: Instant,
    mut is_wanted: impl FnMut(&Listener) -> bool,
) -> io::Result<(Vec<Listener>, bool)> {
    let mut found = Vec::new();
    let is_whole = each(States::Listening, port, end, |socket| {
        found.extend(socket.listener().filter(&mut is_wanted));
        true
    })?;
    Ok((found, is_whole))
}

/// Whether a socket of our network namespace listens on this port and is that one, or not all were listed until `end`.
///
/// # Errors
/// As `listener`.
pub(crate) fn is_listened_to(
    port: u16,
    end: Instant,
    is_it: impl Fn(&Listener) -> bool,
) -> io::Result<bool> {
    let is_other = |socket: TcpSocket| !socket.listener().is_some_and(|one| is_it(&one));
    Ok(!each(States::Listening, Some(port), end, is_other)?)
}

/// Which sockets are listed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum States {
    /// Those that listen.
    Listening,
    /// Those of connections, also of such as begin or end.
    Connected,
    /// Those that are bound to a port and neither listen nor are connected; none before Linux 6.8. The kernel can take
    /// minutes for them, in a single system call, if anybody has made 100,000 of them.
    Bound,
}

impl States {
    /// `idiag_states`: a bit for each state.
    fn bits(self) -> u32 {
        match self {
            Self::Listening => LISTENING,
            Self::Connected => ALL_STATES & !LISTENING & !BOUND,
            Self::Bound => BOUND,
        }
    }
}

/// Hands over each socket of our network namespace in these states that has this port on this side, or any, until it is
/// told to stop or until `end`. Returns whether all were handed over.
///
/// # Errors
/// As `listener`.
pub(crate) fn each(
    states: States,
    port: Option<u16>,
    end: Instant,
    mut take: impl FnMut(TcpSocket) -> bool,
) -> io::Result<bool> {
    let netlink = open()?;
    let mut buffer = vec![0; 64 << 10];
    for local in [
        SocketAddr::from(([0; 4], port.unwrap_or_default())),
        SocketAddr::from(([0_u16; 8], port.unwrap_or_default())),
    ] {
        let flags = libc::NLM_F_DUMP;
        let asked = Asked {
            states: states.bits(),
            extensions: 0,
            cookie: NO_COOKIE,
        };
        let request = request(SOCK_DIAG_BY_FAMILY, local, any(local), asked, flags);
        send(netlink.as_raw_fd(), &request, MsgFlags::empty())?;
        'answers: loop {
            if Instant::now() >= end {
                return Ok(false);
            }
            let length = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            let mut rest = buffer.get(..length).unwrap_or_default();
            while let Some(length) = number(rest, 0).and_then(|length| usize::try_from(length).ok())
            {
                let message = rest.get(..length).filter(|_| length >= NETLINK_HEADER);
                let Some(message) = message else { break };
                match kind(message).map(i32::from) {
                    Some(libc::NLMSG_DONE) => break 'answers,
                    Some(libc::NLMSG_ERROR) => return Err(refusal(message)),
                    _ => {
                        // Of those that are bound and no more, the kernel lists those of all ports.
                        let socket = socket_in(message)
                            .filter(|one| port.is_none_or(|port| one.local.port() == port));
                        if socket.is_some_and(|socket| !take(socket)) {
                            return Ok(false);
                        }
                    }
                }
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
            if length == 0 {
                break;
            }
        }
    }
    Ok(true)
}

fn any(local: SocketAddr) -> SocketAddr {
    match local {
        SocketAddr::V4(_) => SocketAddr::from(([0; 4], 0)),
        SocketAddr::V6(_) => SocketAddr::from(([0_u16; 8], 0)),
    }
}

fn open() -> nix::Result<OwnedFd> {
    socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkSockDiag,
    )
}

/// Asks for one socket; none where there is no such socket.
fn ask(local: SocketAddr, peer: SocketAddr, cookie: u64) -> io::Result<Option<Vec<u8>>> {
    let netlink = open()?;
    let request = request(SOCK_DIAG_BY_FAMILY, local, peer, Asked::of(cookie), 0);
    send(netlink.as_raw_fd(), &request, MsgFlags::empty())?;
    let mut answer = vec![0; 1024];
    let length = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT)?;
    answer.truncate(length);
    match kind(&answer) {
        Some(SOCK_DIAG_BY_FAMILY) => Ok(Some(answer)),
        Some(kind) if i32::from(kind) == libc::NLMSG_ERROR => match refusal(&answer) {
            reason if matches!(reason.raw_os_error(), Some(libc::ENOENT | libc::ESTALE)) => {
                Ok(None)
            }
            reason => Err(reason),
        },
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// The type of a netlink message (`struct nlmsghdr`, netlink(7)).
fn kind(message: &[u8]) -> Option<u16> {
    Some(u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?))
}

/// The error that a message of type NLMSG_ERROR holds.
fn refusal(message: &[u8]) -> io::Error {
    let negative =
        number(message, NETLINK_HEADER).map(|number| i32::from_ne_bytes(number.to_ne_bytes()));
    io::Error::from_raw_os_error(negative.map_or(libc::EIO, i32::saturating_neg))
}

fn socket_in(message: &[u8]) -> Option<TcpSocket> {
    let family = i32::from(*message.get(NETLINK_HEADER)?);
    let port = |at| {
        Some(u16::from_be_bytes(
            message.get(at..at + 2)?.try_into().ok()?,
        ))
    };
    let address = |at| {
        let bytes = message.get(at..at + 16)?;
        let address: IpAddr = match family {
            libc::AF_INET => <[u8; 4]>::try_from(&bytes[..4]).ok()?.into(),
            libc::AF_INET6 => <[u8; 16]>::try_from(bytes).ok()?.into(),
            _ => return None,
        };
        Some(address)
    };
    Some(TcpSocket {
        state: TcpState::from_u8(*message.get(NETLINK_HEADER + 1)?)?,
        local: SocketAddr::new(address(SOURCE)?, port(PORT)?),
        peer: SocketAddr::new(address(DESTINATION)?, port(PEER_PORT)?),
        rx_queue: number(message, READ_QUEUE)?,
        tx_queue: number(message, WRITE_QUEUE)?,
        uid: number(message, UID)?,
        inode: number(message, INODE)?.into(),
        cookie: Some(cookie(message)?),
        is_v6_only: attribute(message, INET_DIAG_SKV6ONLY).is_some_and(|set| set != [0]),
    })
}

fn cookie(message: &[u8]) -> Option<u64> {
    Some(u64::from(number(message, COOKIE)?) | u64::from(number(message, COOKIE + 4)?) << 32)
}

fn connection_in(message: &[u8], local: SocketAddr, peer: SocketAddr) -> Option<Connection> {
    let state = *message.get(NETLINK_HEADER + 1)?;
    // Where there is no such connection, the kernel answers with who listens at its address.
    if state == LISTEN {
        return None;
    }
    let info = tcp_info(message)?;
    // In milliseconds.
    let since = |at| Some(Duration::from_millis(number(info, at)?.into()));
    Some(Connection {
        local,
        peer,
        is_established: state == ESTABLISHED,
        inode: number(message, INODE)?.into(),
        cookie: cookie(message)?,
        since_received: since(offset_of!(libc::tcp_info, tcpi_last_data_recv))?,
        since_sent: since(offset_of!(libc::tcp_info, tcpi_last_data_sent))?,
        since_acknowledged: since(offset_of!(libc::tcp_info, tcpi_last_ack_recv))?,
        is_retransmitting: *info.get(offset_of!(libc::tcp_info, tcpi_retransmits))? > 0,
    })
}

fn long(answer: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(answer.get(at..at + 8)?.try_into().ok()?))
}

fn number(answer: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(answer.get(at..at + 4)?.try_into().ok()?))
}

/// What is asked for besides addresses.
#[derive(Clone, Copy)]
struct Asked {
    /// In these states.
    states: u32,
    /// With these attributes, a bit for each.
    extensions: u8,
    /// With this cookie.
    cookie: u64,
}

impl Asked {
    /// All that is known of the socket with this cookie.
    fn of(cookie: u64) -> Self {
        Self {
            states: ALL_STATES,
            extensions: 1 << (INET_DIAG_INFO - 1),
            cookie,
        }
    }
}

/// `struct inet_diag_req_v2` (linux/inet_diag.h) behind its netlink header.
fn request(
    kind: u16,
    local: SocketAddr,
    peer: SocketAddr,
    asked: Asked,
    flags: libc::c_int,
) -> Vec<u8> {
    let family = if local.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    let mut body = vec![
        u8::try_from(family).unwrap_or_default(),
        u8::try_from(libc::IPPROTO_TCP).unwrap_or_default(),
        asked.extensions,
        0,
    ];
    body.extend(asked.states.to_ne_bytes());
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
    body.extend(asked.cookie.to_ne_bytes());
    let length = u32::try_from(NETLINK_HEADER + body.len()).unwrap_or_default();
    let mut request = Vec::from(length.to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    let flags = u16::try_from(libc::NLM_F_REQUEST | flags).unwrap_or_default();
    request.extend(flags.to_ne_bytes());
    request.extend([0; 8]);
    request.extend(body);
    request
}

/// What `struct tcp_info` (tcp(7)) says of the peer.
fn info(answer: &[u8]) -> Option<Received> {
    let info = tcp_info(answer)?;
    // In milliseconds.
    let ago = number(info, offset_of!(libc::tcp_info, tcpi_last_data_recv))?;
    Some(Received {
        ago: Duration::from_millis(ago.into()),
        bytes: long(info, offset_of!(libc::tcp_info, tcpi_bytes_received))?,
        was_answered: number(info, offset_of!(libc::tcp_info, tcpi_data_segs_out))? > 0,
    })
}

/// The attribute that is a `struct tcp_info`; shorter on older kernels.
fn tcp_info(answer: &[u8]) -> Option<&[u8]> {
    attribute(answer, INET_DIAG_INFO)
}

/// The attribute of this kind (`struct rtattr`, rtnetlink(7)).
fn attribute(answer: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut attributes = answer.get(HEADERS..)?;
    loop {
        let length = usize::from(u16::from_ne_bytes(attributes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(attributes.get(2..4)?.try_into().ok()?);
        let value = attributes.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Instant;

    use super::*;
    use crate::fuzz::{fuzz, linear};
    use crate::skip::skip;

    #[test]
    fn the_kernel_knows_what_a_peer_has_sent() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                skip(&format!("{address} cannot be bound"));
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
                skip(&format!("{address} cannot be bound"));
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
    fn the_kernel_knows_who_listens_and_by_which_socket() {
        for address in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"] {
            let Ok(socket) = TcpListener::bind(address) else {
                skip(&format!("{address} cannot be bound"));
                continue;
            };
            let local = socket.local_addr().unwrap();
            let later = Instant::now() + Duration::from_secs(60);
            let (all, _) = listeners(Some(local.port()), later, |_| true).unwrap();
            let found = all.iter().find(|one| one.address == local).unwrap();
            assert_eq!(found.uid, nix::unistd::geteuid().as_raw());
            let cookie = found.cookie.unwrap();
            assert_eq!(listener(local, cookie).unwrap().as_ref(), Some(found));
            assert_eq!(listener(local, cookie + 1).unwrap(), None);
            drop(socket);
            assert_eq!(listener(local, cookie).unwrap(), None);
        }
    }

    #[test]
    fn the_kernel_lists_the_sockets_of_a_port() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = socket.local_addr().unwrap();
        let later = Instant::now() + Duration::from_secs(60);
        let (on_port, is_whole) = listeners(Some(at.port()), later, |_| true).unwrap();
        assert!(is_whole && on_port.iter().all(|one| one.address.port() == at.port()));
        let found = on_port.iter().find(|one| one.address == at).unwrap();
        assert_eq!(listener_at(at).unwrap().as_ref(), Some(found));
        assert!(is_listened_to(at.port(), later, |one| one == found).unwrap());
        assert!(!is_listened_to(at.port(), later, |one| one.inode == found.inode + 1).unwrap());
        let is_other = |one: &Listener| one.address == other.local_addr().unwrap();
        let (others, is_whole) = listeners(None, later, is_other).unwrap();
        assert!(is_whole && others.len() == 1);
        let (_, is_whole) = listeners(None, Instant::now(), |_| true).unwrap();
        assert!(!is_whole, "there was no time for it");
        let client = TcpStream::connect(at).unwrap();
        let (_accepted, _) = socket.accept().unwrap();
        let of_client = client.local_addr().unwrap();
        let seen = |port| {
            let mut seen = Vec::new();
            let mut take = |socket| {
                seen.push(socket);
                true
            };
            for states in [States::Connected, States::Listening] {
                assert!(each(states, port, later, &mut take).unwrap());
            }
            seen
        };
        let connects = |port: u16, peer: SocketAddr| {
            let mut seen = seen(Some(port)).into_iter();
            seen.any(|one| one.state == TcpState::Established && one.peer == peer)
        };
        assert!(connects(at.port(), of_client) && connects(of_client.port(), at));
        let all = seen(None);
        assert!(
            [at, of_client]
                .iter()
                .all(|at| all.iter().any(|one| one.local == *at))
        );
    }

    #[test]
    fn a_socket_of_ipv6_alone_says_so() {
        for only in [true, false] {
            let socket =
                socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::STREAM, None).unwrap();
            socket.set_only_v6(only).unwrap();
            let any: SocketAddr = ([0_u16; 8], 0).into();
            if socket.bind(&any.into()).is_err() {
                return skip("there is no IPv6");
            }
            socket.listen(1).unwrap();
            let port = socket.local_addr().unwrap().as_socket().unwrap().port();
            let later = Instant::now() + Duration::from_secs(60);
            let (found, _) = listeners(Some(port), later, |_| true).unwrap();
            let ours = found.iter().find(|one| one.address.is_ipv6()).unwrap();
            assert_eq!(ours.is_v6_only, only);
        }
    }

    #[test]
    fn a_connection_is_known_with_what_has_moved_on_it() {
        for (bound, asked) in [
            ("127.0.0.1:0", "127.0.0.1"),
            ("[::1]:0", "::1"),
            ("[::]:0", "127.0.0.1"),
        ] {
            let Ok(listener) = TcpListener::bind(bound) else {
                skip(&format!("{bound} cannot be bound"));
                continue;
            };
            let at: SocketAddr = SocketAddr::new(
                asked.parse().unwrap(),
                listener.local_addr().unwrap().port(),
            );
            let mut client = TcpStream::connect(at).unwrap();
            let peer = client.local_addr().unwrap();
            let seen = || connection(at, peer).unwrap();
            // A dual-stack socket is found by the IPv4 addresses of its connection.
            let waiting = seen().unwrap();
            assert!(waiting.is_established && waiting.inode == 0, "{bound}");
            let (mut server, _) = listener.accept().unwrap();
            let accepted = seen().unwrap();
            assert!(accepted.inode != 0 && accepted.cookie == waiting.cookie);
            let began = Instant::now();
            while seen().unwrap().still() < Duration::from_millis(50) {
                assert!(began.elapsed() < Duration::from_secs(60), "{bound}");
                std::thread::yield_now();
            }
            client.write_all(b"GET").unwrap();
            server.peek(&mut [0; 3]).unwrap();
            server.write_all(b"HTTP").unwrap();
            let moved = seen().unwrap();
            assert!(moved.still() < accepted.still() + Duration::from_secs(60));
            client.read_exact(&mut [0; 4]).unwrap();
            drop(client);
            assert!(!seen().unwrap().is_established);
            drop(server);
            assert_eq!(seen(), None, "{bound}");
        }
    }

    #[test]
    fn what_moves_on_a_connection_is_data_that_comes_or_is_taken() {
        let connection =
            |since_received, since_sent, since_acknowledged, is_retransmitting| Connection {
                local: ([127, 0, 0, 1], 1).into(),
                peer: ([127, 0, 0, 1], 2).into(),
                is_established: true,
                inode: 1,
                cookie: 1,
                since_received: Duration::from_secs(since_received),
                since_sent: Duration::from_secs(since_sent),
                since_acknowledged: Duration::from_secs(since_acknowledged),
                is_retransmitting,
            };
        for (received, sent, acknowledged, again, still) in [
            (74, 80, 80, false, 74),
            // It sends.
            (1, 80, 80, false, 1),
            // It does not read: the kernel asks, and it answers that there is no room.
            (74, 70, 1, false, 70),
            // It is gone: the kernel sends again.
            (74, 1, 70, true, 70),
            // It reads.
            (74, 1, 2, false, 1),
            // It has waited to be accepted, and gets the first answer of its TLS handshake.
            (74, 1, 74, false, 1),
        ] {
            let seen = connection(received, sent, acknowledged, again).still();
            assert_eq!(seen.as_secs(), still, "{received} {sent} {acknowledged}");
        }
    }

    #[test]
    fn an_answer_that_is_cut_says_nothing() {
        let answer = vec![0; 300];
        for length in 0..answer.len() {
            assert_eq!(info(&answer[..length]), None);
            let local = ([127, 0, 0, 1], 1).into();
            assert_eq!(connection_in(&answer[..length], local, local), None);
        }
        assert_eq!(number(&[1, 0, 0], 0), None);
    }

    #[test]
    fn fuzz_proc_parsers_sock_diag() {
        let mut one = vec![0_u8; 300];
        one[HEADERS..HEADERS + 4].copy_from_slice(&[200, 0, 2, 0]);
        one[NETLINK_HEADER..NETLINK_HEADER + 2].copy_from_slice(&[2, 10]);
        let mut many = vec![0_u8; HEADERS];
        many.extend([4_u8, 0, 1, 0].repeat(50));
        let target = |bytes: &[u8]| {
            info(bytes);
            connection_in(bytes, ([0; 4], 0).into(), ([0; 4], 0).into());
            socket_in(bytes);
            attribute(bytes, INET_DIAG_SKV6ONLY);
            kind(bytes);
            let _ = refusal(bytes).to_string();
        };
        fuzz(&[&one, &many], target);
        linear(
            |size| [vec![0; HEADERS], [4_u8, 0, 1, 0].repeat(size / 4)].concat(),
            target,
        );
    }
}
