//! The TCP sockets of our network namespace, and which addresses are this machine's.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufReader};
use std::net::{IpAddr, SocketAddr};

use procfs::FromBufReadSI;
use procfs::net::{TcpNetEntries, TcpNetEntry, TcpState};

use super::process::Proc;
use super::sock_diag::Listener;

/// The TCP sockets of our network namespace, by inode.
#[derive(Debug)]
pub(crate) struct Sockets {
    rows: Vec<TcpNetEntry>,
    by_inode: HashMap<u64, usize>,
    listening_ports: HashSet<u16>,
}

impl Sockets {
    /// All of them.
    pub(crate) fn all(&self) -> &[TcpNetEntry] {
        &self.rows
    }

    /// Those of now.
    pub(crate) fn read(proc: Proc) -> Self {
        let rows = tcp_sockets(proc);
        let numbered = rows.iter().enumerate();
        // What is not accepted yet, or closed already, has inode 0.
        let by_inode = numbered
            .filter(|(_, row)| row.inode != 0)
            .map(|(number, row)| (row.inode, number))
            .collect();
        let listening = rows.iter().filter(|row| row.state == TcpState::Listen);
        Self {
            listening_ports: listening.map(|row| row.local_address.port()).collect(),
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
        let listening = |row: &&TcpNetEntry| {
            row.state == TcpState::Listen
                && row.local_address.port() == address.port()
                && takes(row.local_address.ip(), &[address.ip()])
        };
        // Elsewhere, the same port says nothing.
        let is_here = locality(&[address.ip()]) == Locality::Here;
        let mut rows = self.rows.iter().filter(|_| is_here);
        rows.find(listening).map(|row| row.inode)
    }

    /// The other end of a connection, where it is of this machine.
    pub(crate) fn other_end(&self, row: &TcpNetEntry) -> Option<&TcpNetEntry> {
        let ends = |row: &TcpNetEntry| (unmapped(row.local_address), unmapped(row.remote_address));
        let (local, remote) = ends(row);
        self.rows
            .iter()
            .find(|other| ends(other) == (remote, local))
    }

    /// The socket with this inode.
    pub(crate) fn by_inode(&self, inode: u64) -> Option<&TcpNetEntry> {
        self.rows.get(*self.by_inode.get(&inode)?)
    }
}

/// The TCP sockets of our network namespace (`proc_pid_net(5)`).
fn tcp_sockets(proc: Proc) -> Vec<TcpNetEntry> {
    let tables = ["self/net/tcp", "self/net/tcp6"].map(|name| table(proc, name));
    tables.into_iter().flatten().flatten().collect()
}

fn table(proc: Proc, name: &str) -> io::Result<Vec<TcpNetEntry>> {
    let file = BufReader::new(File::open(proc.0.join(name))?);
    let table = TcpNetEntries::from_buf_read(file, procfs::current_system_info());
    Ok(table.map_err(io::Error::other)?.0)
}

/// The sockets of our network namespace that listen, without their cookies: where the kernel cannot be
/// asked by `sock_diag(7)`, which is a hundred times faster.
///
/// # Errors
/// Neither table can be read.
pub(crate) fn listeners(proc: Proc) -> io::Result<Vec<Listener>> {
    let mut found = Vec::new();
    let mut failed = None;
    for name in ["self/net/tcp", "self/net/tcp6"] {
        match table(proc, name) {
            Ok(table) => found.extend(table),
            // A kernel without IPv6 has no such table.
            Err(reason) => failed = failed.or(Some((name, reason))),
        }
    }
    if let Some(("self/net/tcp", reason)) = failed {
        return Err(reason);
    }
    let listening = found
        .into_iter()
        .filter(|row| row.state == TcpState::Listen);
    Ok(listening
        .map(|row| Listener {
            address: row.local_address,
            uid: row.uid,
            inode: row.inode,
            cookie: None,
        })
        .collect())
}

/// Whether a socket that is bound to this address takes connections to one of those; to any, where
/// they are not known. `::` takes IPv4 too (ipv6(7)).
pub(crate) fn takes(bound: IpAddr, asked: &[IpAddr]) -> bool {
    let bound = bound.to_canonical();
    let is_taken = |asked: &IpAddr| match bound {
        IpAddr::V4(any) if any.is_unspecified() => asked.is_ipv4(),
        _ => bound.is_unspecified() || *asked == bound,
    };
    // A client that asks for `0.0.0.0` or `::` is led to this host's loopback.
    asked.is_empty()
        || asked
            .iter()
            .map(IpAddr::to_canonical)
            .any(|asked| asked.is_unspecified() || is_taken(&asked))
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
