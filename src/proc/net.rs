//! The TCP sockets of our network namespace, and which addresses are this machine's.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::sockopt::ReuseAddr;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket,
};
use procfs::FromBufReadSI;
use procfs::net::{TcpNetEntries, TcpState};

use super::process::{self, Proc};
use super::sock_diag::{self, Listener, States, TcpSocket};

/// Time limit of listing what listens: anybody can make a great many sockets.
const LISTENERS_TIMEOUT: Duration = Duration::from_millis(500);
/// Time limit of listing all sockets, and how many are kept.
const SOCKETS_TIMEOUT: Duration = Duration::from_millis(200);
const MOST_SOCKETS: usize = 100_000;

/// The TCP sockets of our network namespace, by inode.
#[derive(Debug)]
pub(crate) struct Sockets {
    rows: Vec<TcpSocket>,
    by_inode: HashMap<u64, usize>,
    listening_ports: HashSet<u16>,
}

impl Sockets {
    /// All of them.
    pub(crate) fn all(&self) -> &[TcpSocket] {
        &self.rows
    }

    /// Those of now: of this port all, of other ones as many as can be listed in time.
    pub(crate) fn read(proc: Proc, port: u16) -> Self {
        let end = Instant::now() + SOCKETS_TIMEOUT;
        let rows = if proc.is_machine() {
            asked_for(port, MOST_SOCKETS, end)
        } else {
            Err(io::ErrorKind::Unsupported.into())
        };
        let rows = rows
            .or_else(|_| Ok(tables(proc, end, |_| true)?.0))
            .unwrap_or_else(|_: io::Error| Vec::new());
        let numbered = rows.iter().enumerate();
        // What is not accepted yet, or closed already, has inode 0.
        let by_inode = numbered
            .filter(|(_, row)| row.inode != 0)
            .map(|(number, row)| (row.inode, number))
            .collect();
        let listening = rows.iter().filter(|row| row.state == TcpState::Listen);
        Self {
            listening_ports: listening.map(|row| row.local.port()).collect(),
            by_inode,
            rows,
        }
    }

    /// Whether anything listens on that port: the kernel lets nobody connect from such a port.
    pub(crate) fn is_listened_to(&self, port: u16) -> bool {
        self.listening_ports.contains(&port)
    }

    /// The inode of a socket of this machine that listens at that address.
    pub(crate) fn listening_at(&self, address: SocketAddr) -> Option<u64> {
        // Elsewhere, the same port says nothing.
        if locality(&[address.ip()]) != Locality::Here {
            return None;
        }
        let mut listening = self.rows.iter().filter_map(TcpSocket::listener);
        let found = listening
            .find(|one| one.address.port() == address.port() && one.takes(&[address.ip()]));
        found.map(|one| one.inode)
    }

    /// The other end of a connection, where it is of this machine.
    pub(crate) fn other_end(&self, row: &TcpSocket) -> Option<&TcpSocket> {
        let ends = |row: &TcpSocket| (unmapped(row.local), unmapped(row.peer));
        let (local, remote) = ends(row);
        self.rows
            .iter()
            .find(|other| ends(other) == (remote, local))
    }

    /// The socket with this inode.
    pub(crate) fn by_inode(&self, inode: u64) -> Option<&TcpSocket> {
        self.rows.get(*self.by_inode.get(&inode)?)
    }
}

/// By `sock_diag(7)`, at most so many: first what listens on the port, then connections, those of the port before others.
/// What is bound and no more is not listed.
fn asked_for(port: u16, most: usize, end: Instant) -> io::Result<Vec<TcpSocket>> {
    let mut rows = Vec::new();
    let steps = [
        (States::Listening, Some(port), most / 2),
        (States::Connected, Some(port), most),
        (States::Connected, None, most),
        (States::Listening, None, most),
    ];
    for (states, of, most) in steps {
        sock_diag::each(states, of, end, |socket| {
            let is_new = of.is_some() || socket.local.port() != port;
            rows.extend(is_new.then_some(socket));
            rows.len() < most
        })?;
    }
    Ok(rows)
}

/// The TCP sockets of our network namespace whose rows are wanted, as far as they can be read until `end`, and whether
/// that was all (`proc_pid_net(5)`).
///
/// # Errors
/// The table of IPv4 sockets cannot be read.
fn tables(
    proc: Proc,
    end: Instant,
    is_wanted: impl Fn(&str) -> bool,
) -> io::Result<(Vec<TcpSocket>, bool)> {
    let (mut rows, mut is_whole) = table(proc, "self/net/tcp", end, &is_wanted)?;
    // A kernel without IPv6 has no such table.
    if let Ok((others, are_whole)) = table(proc, "self/net/tcp6", end, &is_wanted) {
        rows.extend(others);
        is_whole = is_whole && are_whole;
    }
    Ok((rows, is_whole))
}

fn table(
    proc: Proc,
    name: &str,
    end: Instant,
    is_wanted: impl Fn(&str) -> bool,
) -> io::Result<(Vec<TcpSocket>, bool)> {
    let file = BufReader::new(File::open(proc.0.join(name))?);
    let (mut wanted, mut is_whole) = (String::new(), true);
    for (number, line) in file.lines().enumerate() {
        let line = line?;
        if number == 0 || is_wanted(&line) {
            wanted.push_str(&line);
            wanted.push('\n');
        }
        if Instant::now() >= end {
            is_whole = false;
            break;
        }
    }
    let rows = TcpNetEntries::from_buf_read(wanted.as_bytes(), procfs::current_system_info());
    let rows = rows.map_err(io::Error::other)?.0.into_iter();
    let rows = rows
        .map(|row| TcpSocket {
            state: row.state,
            local: row.local_address,
            peer: row.remote_address,
            rx_queue: row.rx_queue,
            tx_queue: row.tx_queue,
            uid: row.uid,
            inode: row.inode,
            cookie: None,
            is_v6_only: false,
        })
        .collect();
    Ok((rows, is_whole))
}

/// The sockets of our network namespace that listen on this port, or on any, and are wanted; whether all were listed
/// in time. Where the kernel cannot be asked by `sock_diag(7)`, they are read from /proc, without their cookies, which
/// takes a hundred times as long.
///
/// # Errors
/// Neither is possible.
pub(crate) fn listeners(
    proc: Proc,
    port: Option<u16>,
    mut is_wanted: impl FnMut(&Listener) -> bool,
) -> io::Result<(Vec<Listener>, bool)> {
    let end = Instant::now() + LISTENERS_TIMEOUT;
    let found = sock_diag::listeners(port, end, &mut is_wanted);
    found.or_else(|_| listed_in_proc(proc, port, end, is_wanted))
}

/// Whether a socket listens on this port; with an inode, whether that one does. What cannot be read, or not in time,
/// listens.
pub(crate) fn is_listened_to(port: u16, inode: Option<u64>) -> bool {
    let is_it = |one: &Listener| inode.is_none_or(|inode| one.inode == inode);
    let end = Instant::now() + LISTENERS_TIMEOUT;
    let in_proc = |_: io::Error| {
        let (found, is_whole) = listed_in_proc(Proc::here(), Some(port), end, is_it)?;
        io::Result::Ok(!found.is_empty() || !is_whole)
    };
    let asked = sock_diag::is_listened_to(port, end, is_it);
    asked.or_else(in_proc).unwrap_or(true)
}

fn listed_in_proc(
    proc: Proc,
    port: Option<u16>,
    end: Instant,
    is_wanted: impl FnMut(&Listener) -> bool,
) -> io::Result<(Vec<Listener>, bool)> {
    let is_on_port = |row: &str| port.is_none_or(|port| port_in(row) == Some(port));
    let (rows, is_whole) = tables(proc, end, |row| is_listening(row) && is_on_port(row))?;
    let found = rows.iter().filter_map(TcpSocket::listener);
    Ok((found.filter(is_wanted).collect(), is_whole))
}

/// `  NUMBER: ADDRESS:PORT ADDRESS:PORT STATE …`, in hexadecimal.
fn is_listening(row: &str) -> bool {
    row.split_ascii_whitespace().nth(3) == Some("0A")
}

fn port_in(row: &str) -> Option<u16> {
    let (_, port) = row.split_ascii_whitespace().nth(1)?.rsplit_once(':')?;
    u16::from_str_radix(port, 16).ok()
}

impl Listener {
    /// Whether it takes connections to one of these addresses, or keeps a server from being bound to one; to any, where
    /// they are not known.
    pub(crate) fn takes(&self, asked: &[IpAddr]) -> bool {
        can_take(self.address.ip(), self.is_v6_only, asked)
    }
}

/// As [`takes`], of a socket that takes no connections to IPv4 addresses if it `is_v6_only`.
pub(crate) fn can_take(bound: IpAddr, is_v6_only: bool, asked: &[IpAddr]) -> bool {
    let is_reached = |asked: &IpAddr| !is_v6_only || asked.to_canonical().is_ipv6();
    let reached: Vec<IpAddr> = asked.iter().copied().filter(is_reached).collect();
    asked.is_empty() || !reached.is_empty() && takes(bound, &reached)
}

/// Whether a socket that is bound to this address takes connections to one of those; to any, where they are not
/// known. `::` takes IPv4 too (ipv6(7)), and `0.0.0.0` or `::` among those means all addresses of its kind.
pub(crate) fn takes(bound: IpAddr, asked: &[IpAddr]) -> bool {
    let bound = bound.to_canonical();
    let covers =
        |any: IpAddr, one: IpAddr| any.is_unspecified() && (any.is_ipv6() || one.is_ipv4());
    let is_taken = |asked: IpAddr| bound == asked || covers(bound, asked) || covers(asked, bound);
    asked.is_empty() || asked.iter().map(IpAddr::to_canonical).any(is_taken)
}

/// Whether the kernel would refuse this address to a server, since somebody has it. Nothing listens there meanwhile; who
/// asks for it with `SO_REUSEADDR`, as servers do, still gets it (socket(7)).
pub(crate) fn is_in_use(address: SocketAddr) -> bool {
    let family = if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let binding = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).and_then(|own| {
        setsockopt(&own, ReuseAddr, &true)?;
        bind(own.as_raw_fd(), &SockaddrStorage::from(address))
    });
    binding == Err(Errno::EADDRINUSE)
}

/// Whether only root may bind that port (`ip_unprivileged_port_start` in Documentation/networking/ip-sysctl.rst).
pub(crate) fn is_for_root(proc: Proc, port: u16) -> bool {
    let file = proc.0.join("sys/net/ipv4/ip_unprivileged_port_start");
    let text = process::read(&file, 16).unwrap_or_default();
    let first = String::from_utf8_lossy(&text).trim().parse();
    port < first.unwrap_or(1024)
}

/// An address as an administrator writes it: a dual-stack socket has IPv4 addresses as IPv6 ones.
pub(crate) fn unmapped(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// On which machine addresses are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Locality {
    /// One of them is this machine's.
    Here,
    /// They are another machine's.
    Elsewhere,
    /// None is known, or those of this machine cannot be asked for.
    Unknown,
}

/// Where these addresses are.
pub(crate) fn locality(addresses: &[IpAddr]) -> Locality {
    if addresses.is_empty() {
        return Locality::Unknown;
    }
    let is_loopback = |address: &IpAddr| {
        let address = address.to_canonical();
        address.is_loopback() || address.is_unspecified()
    };
    if addresses.iter().any(is_loopback) {
        return Locality::Here;
    }
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else {
        return Locality::Unknown;
    };
    let ours: HashSet<IpAddr> = interfaces
        .filter_map(|interface| interface.address)
        .filter_map(|address| {
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        })
        .collect();
    if addresses
        .iter()
        .any(|address| ours.contains(&address.to_canonical()))
    {
        Locality::Here
    } else {
        Locality::Elsewhere
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use super::*;

    const CAPTURED: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
        0: 0100007F:23B7 00000000:0000 0A 00000000:00000003 00:00000000 00000000  1000        0 42 1 x 100 0 0 10 0\n   \
        1: 0100007F:23B8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 43 1 x 100 0 0 10 0\n   \
        2: 0100007F:23B7 0100007F:C000 01 00000000:00000000 00:00000000 00000000  1000        0 44 1 x 20 4 30 10 -1\n";

    fn captured() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("self/net")).unwrap();
        std::fs::write(directory.path().join("self/net/tcp"), CAPTURED).unwrap();
        directory
    }

    #[test]
    fn without_netlink_the_tables_say_who_listens() {
        let directory = captured();
        let proc = Proc(directory.path());
        let end = Instant::now() + Duration::from_secs(60);
        let seen = |port, end, uid: u32| {
            let found = listed_in_proc(proc, port, end, |one| uid == u32::MAX || one.uid == uid);
            let (found, is_whole) = found.unwrap();
            (
                found.iter().map(|one| one.inode).collect::<Vec<u64>>(),
                is_whole,
            )
        };
        assert_eq!(seen(Some(9143), end, u32::MAX), (vec![42], true));
        assert_eq!(seen(Some(9145), end, u32::MAX), (vec![], true));
        assert_eq!(seen(None, end, u32::MAX), (vec![42, 43], true));
        assert_eq!(seen(None, end, 0), (vec![43], true));
        assert!(
            !seen(None, Instant::now(), 0).1,
            "what was not read can listen, too"
        );
        let sockets = Sockets::read(proc, 9143);
        assert!(sockets.is_listened_to(9144) && sockets.all().len() == 3);
        assert_eq!(sockets.by_inode(44).unwrap().state, TcpState::Established);
        let nowhere = Proc(Path::new("/nonexistent"));
        assert!(listed_in_proc(nowhere, None, end, |_| true).is_err());
    }

    #[test]
    fn who_listens_on_the_port_is_listed_whatever_there_is_besides() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let connect = |_| std::net::TcpStream::connect(at).unwrap();
        let clients: Vec<_> = (0..8).map(connect).collect();
        let end = Instant::now() + Duration::from_secs(60);
        let rows = asked_for(at.port(), 4, end).unwrap();
        assert!(rows.len() >= 4);
        let listens = |row: &TcpSocket| row.state == TcpState::Listen && row.local == at;
        assert!(rows.iter().any(listens), "{rows:?}");
        let all = asked_for(at.port(), 100_000, end).unwrap();
        let is_client = |row: &&TcpSocket| row.peer == at;
        assert_eq!(all.iter().filter(is_client).count(), clients.len());
    }

    #[test]
    fn hazard_27_a_socket_of_the_other_kind_keeps_no_server_from_its_address() {
        let can = |bound: &str, is_v6_only, asked: &str| {
            let asked: Vec<IpAddr> = asked
                .split_whitespace()
                .map(|ip| ip.parse().unwrap())
                .collect();
            can_take(bound.parse().unwrap(), is_v6_only, &asked)
        };
        for (bound, is_v6_only, asked, expected) in [
            ("127.0.0.1", false, "127.0.0.1", true),
            ("127.0.0.1", false, "127.0.0.2", false),
            ("127.0.0.1", false, "0.0.0.0", true),
            ("127.0.0.1", false, "::", true),
            ("127.0.0.1", false, "::1", false),
            ("127.0.0.1", false, "", true),
            ("0.0.0.0", false, "127.0.0.2", true),
            ("0.0.0.0", false, "::1", false),
            ("0.0.0.0", false, "::1 127.0.0.1", true),
            ("::1", false, "127.0.0.1", false),
            ("::1", true, "0.0.0.0", false),
            ("::1", true, "::", true),
            ("::", false, "0.0.0.0", true),
            ("::", false, "127.0.0.1", true),
            ("::", true, "0.0.0.0", false),
            ("::", true, "127.0.0.1", false),
            ("::", true, "::1", true),
            ("::", true, "::1 127.0.0.1", true),
            ("::", true, "", true),
            ("::ffff:127.0.0.1", false, "127.0.0.1", true),
        ] {
            assert_eq!(
                can(bound, is_v6_only, asked),
                expected,
                "{bound} {is_v6_only} {asked}"
            );
        }
    }

    #[test]
    fn hazard_26_whether_an_address_is_in_use_is_the_kernels_answer() {
        let holder = socket(
            AddressFamily::Inet,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .unwrap();
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        bind(holder.as_raw_fd(), &SockaddrStorage::from(any)).unwrap();
        let bound: SockaddrStorage = nix::sys::socket::getsockname(holder.as_raw_fd()).unwrap();
        let port = bound.as_sockaddr_in().unwrap().port();
        let at = |ip: [u8; 4]| SocketAddr::from((ip, port));
        assert!(is_in_use(at([127, 0, 0, 1])));
        assert!(is_in_use(at([0, 0, 0, 0])));
        assert!(!is_in_use(at([127, 0, 0, 2])));
        drop(holder);
        assert!(!is_in_use(at([127, 0, 0, 1])));
    }
}
