//! /proc → the server's processes. Reads the arguments of every process, and more only of
//! those whose arguments match.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::time::Duration;

use nix::unistd::Uid;
use procfs::FromRead;
use procfs::net::{TcpNetEntry, TcpState};
use procfs::process::{FDTarget, Stat};
use regex_lite::Regex;

use super::identity;

/// As much of a process's arguments is read, in bytes.
const LONGEST_CMDLINE: u64 = 1 << 20;

/// A process, as (PID, start time): the PID alone may be another's by now.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    /// The process ID in our PID namespace.
    pub(crate) pid: i32,
    /// Its parent's.
    parent: i32,
    /// Clock ticks from boot to its start (`proc_pid_stat(5)`, field 22).
    pub(crate) start_time: u64,
    /// Whose it is (effective user ID).
    pub(crate) owner: Uid,
    /// Its arguments, joined by spaces.
    pub(crate) command: String,
}

/// Which processes are the server.
#[derive(Debug)]
pub(crate) struct Search<'a> {
    /// In place of the built-in rule.
    pub(crate) pattern: Option<&'a Regex>,
    /// Only this user's.
    pub(crate) user: Option<Uid>,
    /// Whether another server is told from this one by its port alone.
    pub(crate) by_port_alone: bool,
    /// The URL's port.
    pub(crate) port: u16,
    /// The addresses of the URL's host; empty where they are not known.
    pub(crate) addresses: &'a [IpAddr],
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The server's processes, in the order of their PIDs.
    pub(crate) server: Vec<Process>,
    /// Those of them that listen on the URL's port, where that can be seen.
    pub(crate) listening: Vec<i32>,
    /// What matches and is not this server, each with the reason.
    pub(crate) spared: Vec<(Process, String)>,
}

/// Looks for the server. Fails only where /proc itself cannot be read.
pub(crate) fn find(search: &Search) -> io::Result<Found> {
    let matching = matching(search)?;
    if matching.is_empty() {
        return Ok(Found::default());
    }
    if search.by_port_alone {
        return Ok(narrow(matching, search));
    }
    match place(search.addresses) {
        Place::Here | Place::Unknown => Ok(narrow(matching, search)),
        Place::Elsewhere if search.pattern.is_none() => {
            let reason = "the URL is another host's; --process-pattern says otherwise";
            Ok(Found {
                spared: with_reason(matching, reason),
                ..Found::default()
            })
        }
        Place::Elsewhere => Ok(Found {
            server: matching,
            ..Found::default()
        }),
    }
}

/// A process's arguments, joined by spaces; empty where it has none.
pub(crate) fn command(pid: i32) -> String {
    let cmdline = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    joined(cmdline.strip_suffix(b"\0").unwrap_or(&cmdline))
}

/// The process that has this PID now.
#[cfg(test)]
pub(crate) fn process(pid: i32) -> Option<Process> {
    look(pid, &std::fs::read(format!("/proc/{pid}/cmdline")).ok()?)
}

/// Whether this very process still runs, and not as a zombie.
pub(crate) fn is_alive(pid: i32, start_time: u64) -> bool {
    stat(pid)
        .is_some_and(|stat| stat.starttime == start_time && !matches!(stat.state, 'Z' | 'X' | 'x'))
}

/// How long a process has run, in whole seconds.
pub(crate) fn age(pid: i32) -> Option<Duration> {
    let started = stat(pid)?.starttime / procfs::ticks_per_second();
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let uptime: u64 = uptime.split('.').next()?.parse().ok()?;
    Some(Duration::from_secs(uptime.saturating_sub(started)))
}

/// The state letter of a process (`proc_pid_stat(5)`) and the kernel function it waits in, where that can be read.
pub(crate) fn state(pid: i32) -> String {
    let letter = stat(pid).map_or('?', |stat| stat.state);
    match std::fs::read_to_string(format!("/proc/{pid}/wchan")) {
        Ok(wchan) if !matches!(wchan.trim(), "" | "0") => format!("{letter} in {}", wchan.trim()),
        _ => letter.to_string(),
    }
}

fn matching(search: &Search) -> io::Result<Vec<Process>> {
    let untouchable = ourselves();
    let mut found = Vec::new();
    let mut cmdline = Vec::with_capacity(4096);
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        cmdline.clear();
        // A process that ended meanwhile has no file; kernel threads and zombies have no arguments.
        let read = File::open(format!("/proc/{pid}/cmdline"))
            .and_then(|file| file.take(LONGEST_CMDLINE).read_to_end(&mut cmdline));
        if read.is_ok() && !cmdline.is_empty() && !untouchable.contains(&pid) {
            let argv = cmdline.strip_suffix(b"\0").unwrap_or(&cmdline);
            if arguments_match(search.pattern, argv, pid) {
                found.extend(
                    look(pid, argv)
                        .filter(|process| search.user.is_none_or(|user| user == process.owner)),
                );
            }
        }
    }
    found.sort_by_key(|process| process.pid);
    Ok(found)
}

/// Ourselves, our ancestors, and init.
fn ourselves() -> HashSet<i32> {
    let mut pids = HashSet::from([1]);
    let mut pid = nix::unistd::getpid().as_raw();
    while pid > 0 && pids.insert(pid) {
        pid = stat(pid).map_or(0, |stat| stat.ppid);
    }
    pids
}

fn arguments_match(pattern: Option<&Regex>, argv: &[u8], pid: i32) -> bool {
    match pattern {
        Some(pattern) => pattern.is_match(&joined(argv)),
        None => identity::is_server(argv.split(|byte| *byte == 0), || {
            std::fs::read_link(format!("/proc/{pid}/cwd")).ok()
        }),
    }
}

/// Arguments as one line of text; what is not UTF-8 in them becomes U+FFFD.
fn joined(argv: &[u8]) -> String {
    String::from_utf8_lossy(argv).replace('\0', " ")
}

/// The process behind a PID, unless it is a zombie or lives in another PID namespace.
fn look(pid: i32, argv: &[u8]) -> Option<Process> {
    let stat = stat(pid).filter(|stat| !matches!(stat.state, 'Z' | 'X' | 'x'))?;
    let status = procfs::process::Status::from_file(format!("/proc/{pid}/status")).ok()?;
    // NSpid (proc_pid_status(5)): one number for each PID namespace from ours down to its own.
    let elsewhere = status.nspid.is_some_and(|pids| pids.len() > 1);
    (!elsewhere).then(|| Process {
        pid,
        parent: stat.ppid,
        start_time: stat.starttime,
        owner: Uid::from_raw(status.euid),
        command: joined(argv),
    })
}

fn stat(pid: i32) -> Option<Stat> {
    stat_at(&format!("/proc/{pid}/stat"))
}

/// A process's or a thread's file of that name (`proc_pid_stat(5)`).
#[inline(never)]
pub(crate) fn stat_at(path: &str) -> Option<Stat> {
    Stat::from_file(path).ok()
}

/// The TCP sockets of our network namespace (`proc_pid_net(5)`).
pub(crate) fn tcp_sockets() -> Vec<TcpNetEntry> {
    let tables = [procfs::net::tcp(), procfs::net::tcp6()];
    tables.into_iter().flatten().flatten().collect()
}

/// What a process's descriptors are, by number; none where they cannot be read.
pub(crate) fn descriptors(pid: i32) -> Option<Vec<(i32, FDTarget)>> {
    let descriptors = procfs::process::Process::new(pid).ok()?.fd().ok()?;
    let targets = descriptors.map(|one| one.map(|one| (one.fd, one.target)));
    targets.collect::<Result<_, _>>().ok()
}

/// Whether these are addresses of another machine.
pub(crate) fn is_elsewhere(addresses: &[IpAddr]) -> bool {
    place(addresses) == Place::Elsewhere
}

/// Where the URL's host is.
#[derive(Debug, Eq, PartialEq)]
enum Place {
    Here,
    Elsewhere,
    Unknown,
}

fn place(addresses: &[IpAddr]) -> Place {
    if addresses.is_empty() {
        return Place::Unknown;
    }
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else {
        return Place::Unknown;
    };
    let ours: HashSet<IpAddr> = interfaces
        .filter_map(|interface| interface.address)
        .filter_map(|address| {
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        })
        .collect();
    let is_here = |address: &IpAddr| {
        let address = address.to_canonical();
        address.is_loopback() || address.is_unspecified() || ours.contains(&address)
    };
    if addresses.iter().any(is_here) {
        Place::Here
    } else {
        Place::Elsewhere
    }
}

/// Of several matches, those that listen on the URL's port and their matching kin are the
/// server. Where nothing at all listens on that port, one that listens on another is another
/// instance, unless the administrator has named it (`--process-pattern`); and where a server is
/// told from another by its port alone, so is one that listens on none.
fn narrow(matching: Vec<Process>, search: &Search) -> Found {
    let port = search.port;
    let listeners = listening_sockets();
    let ports: HashMap<i32, HashSet<u16>> = matching
        .iter()
        .map(|process| (process.pid, ports_of(process.pid, &listeners)))
        .collect();
    let on_port: BTreeSet<i32> = ports
        .iter()
        .filter(|(_, ports)| ports.contains(&port))
        .map(|(pid, _)| *pid)
        .collect();
    if !on_port.is_empty() {
        let kin = kin(&matching, &ports, &on_port);
        let (server, others) = matching
            .into_iter()
            .partition(|process| kin.contains(&process.pid));
        let reason =
            format!("another process of its kind listens on port {port}: this is another instance");
        return Found {
            server,
            listening: on_port.into_iter().collect(),
            spared: with_reason(others, &reason),
        };
    }
    if search.by_port_alone {
        let reason = format!(
            "it does not listen on port {port}, by which alone this server is told from another of the configuration; a process-pattern for each says otherwise"
        );
        return Found {
            spared: with_reason(matching, &reason),
            ..Found::default()
        };
    }
    let spare_none = search.pattern.is_some() || listeners.values().any(|taken| *taken == port);
    let (server, others): (Vec<_>, Vec<_>) = matching
        .into_iter()
        .partition(|process| spare_none || ports[&process.pid].is_empty());
    let reason = format!(
        "it listens, but not on port {port}: this is another instance; --url or --process-pattern says otherwise"
    );
    Found {
        server,
        spared: with_reason(others, &reason),
        ..Found::default()
    }
}

fn with_reason(processes: Vec<Process>, reason: &str) -> Vec<(Process, String)> {
    processes
        .into_iter()
        .map(|process| (process, reason.to_owned()))
        .collect()
}

/// The families of those on the port: up to the topmost ancestor that matches without a gap,
/// and what descends from it so, but for what listens on other ports only.
fn kin(
    matching: &[Process],
    ports: &HashMap<i32, HashSet<u16>>,
    on_port: &BTreeSet<i32>,
) -> HashSet<i32> {
    let parent_of: HashMap<i32, i32> = matching
        .iter()
        .map(|process| (process.pid, process.parent))
        .collect();
    let root_of = |mut pid: i32| {
        while let Some(parent) = parent_of
            .get(&pid)
            .filter(|parent| parent_of.contains_key(parent))
        {
            pid = *parent;
        }
        pid
    };
    let roots: HashSet<i32> = on_port.iter().map(|pid| root_of(*pid)).collect();
    matching
        .iter()
        .map(|process| process.pid)
        .filter(|pid| {
            roots.contains(&root_of(*pid)) && (on_port.contains(pid) || ports[pid].is_empty())
        })
        .collect()
}

/// Socket inode → port, of everything that listens in our network namespace.
fn listening_sockets() -> HashMap<u64, u16> {
    tcp_sockets()
        .into_iter()
        .filter(|row| row.state == TcpState::Listen)
        .map(|row| (row.inode, row.local_address.port()))
        .collect()
}

/// The ports that a process listens on; empty where its descriptors cannot be read.
fn ports_of(pid: i32, listeners: &HashMap<u64, u16>) -> HashSet<u16> {
    descriptors(pid)
        .into_iter()
        .flatten()
        .filter_map(|(_, target)| match target {
            FDTarget::Socket(inode) => listeners.get(&inode).copied(),
            _ => None,
        })
        .collect()
}
