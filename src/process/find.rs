//! /proc → the server's processes. Reads the arguments of every process, and more only of
//! those whose arguments match.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use nix::unistd::Uid;
use procfs::net::{TcpNetEntry, TcpState};
use procfs::process::{FDInfo, FDTarget, Stat};
use procfs::{FromRead, ProcError};
use regex_lite::Regex;

use super::found::{Found, Process};
use super::instance::{self, Asked, Candidate, Configured};
use super::{aside, configured, identity};
use crate::journal::plain;

/// As much of a process's arguments is read, in bytes.
const LONGEST_CMDLINE: u64 = 1 << 20;

/// Which processes are the server.
#[derive(Clone, Debug)]
pub(crate) struct Search {
    /// In place of the built-in rule.
    pub(crate) pattern: Option<Regex>,
    /// The configuration that the restart command starts the server with, where it says so.
    pub(crate) config_dir: Option<PathBuf>,
    /// Only this user's.
    pub(crate) user: Option<Uid>,
    /// Whether another server is told from this one by its port alone.
    pub(crate) by_port_alone: bool,
    /// The URL's port.
    pub(crate) port: u16,
    /// The addresses of the URL's host; empty where they are not known.
    pub(crate) addresses: Vec<IpAddr>,
}

/// A search takes no longer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Looks for the server, or says why that cannot be done. A process in state D can hold whoever reads
/// of it, and so can its disk: the search is a process of its own.
pub(crate) async fn find(search: &Search) -> Result<Found, String> {
    let searching = aside::in_process(TIMEOUT, |out| {
        let _ = match search_here(search) {
            Ok(found) => found.write(out),
            Err(reason) => out.write_all(plain(&reason).as_bytes()),
        };
    });
    let Ok(said) = searching.await else {
        // No process can be had: the server may have used them up. What can hold us is not asked.
        let search = Search {
            config_dir: None,
            ..search.clone()
        };
        return search_here(&search).map_err(|reason| plain(&reason));
    };
    let said = String::from_utf8_lossy(&said);
    match Found::read(&said) {
        Some(found) => Ok(found),
        None if said.is_empty() => Err(format!(
            "no answer within {} seconds; look for processes in state D",
            TIMEOUT.as_secs()
        )),
        None => Err(said.into_owned()),
    }
}

/// Fails only where /proc itself cannot be read.
fn search_here(search: &Search) -> io::Result<Found> {
    let matching = matching(search)?;
    if matching.is_empty() {
        return Ok(Found::default());
    }
    if search.by_port_alone {
        return Ok(narrow(matching, search));
    }
    match place(&search.addresses) {
        Place::Here | Place::Unknown => Ok(narrow(matching, search)),
        Place::Elsewhere if search.pattern.is_none() => {
            let reason = "the URL is another host's; --process-pattern says otherwise";
            Ok(Found::none_but(matching, reason))
        }
        Place::Elsewhere => Ok(Found {
            server: matching,
            ..Found::default()
        }),
    }
}

/// Which of the matching processes are the server that is asked for, by what they listen on; where
/// that does not tell, by their configuration.
fn narrow(matching: Vec<Process>, search: &Search) -> Found {
    let listeners = listening_sockets();
    let network = network(nix::unistd::getpid().as_raw());
    let mut candidates: Vec<Candidate> = matching
        .into_iter()
        .map(|process| Candidate {
            listens: listens(process.pid, &listeners),
            is_elsewhere: self::network(process.pid)
                .is_some_and(|other| network.as_ref().is_some_and(|ours| *ours != other)),
            configured: Configured::Unknown,
            process,
        })
        .collect();
    let asked = Asked {
        port: search.port,
        addresses: search.addresses.clone(),
        taken: listeners.values().copied().collect(),
        is_named: search.pattern.is_some(),
        by_port_alone: search.by_port_alone,
    };
    if let Some(ours) = &search.config_dir {
        for one in &mut candidates {
            one.configured = configured::as_against(&one.process, ours);
        }
    }
    instance::choose(candidates, &asked)
}

/// The network namespace that a process lives in (`network_namespaces(7)`), where that can be seen.
fn network(pid: i32) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/ns/net")).ok()
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
    stat(pid).is_some_and(|stat| stat.starttime == start_time && !is_dead(&stat))
}

/// Whether nothing of a process is left but its exit status: its first thread can end before the
/// others, and is a zombie as long as they live.
fn is_dead(stat: &Stat) -> bool {
    matches!(stat.state, 'Z' | 'X' | 'x') && stat.num_threads <= 1
}

/// A thread by which /proc still shows a process whose first thread has ended.
fn living_thread(pid: i32) -> Option<i32> {
    let tasks = format!("/proc/{pid}/task");
    // A link for each thread, and two of the directory's own.
    if std::fs::metadata(&tasks).ok()?.nlink() <= 3 {
        return None;
    }
    let threads = std::fs::read_dir(tasks).ok()?.flatten();
    let mut numbers = threads.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.find(|tid| *tid != pid && stat(*tid).is_some_and(|stat| !is_dead(&stat)))
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
    let pid = living_thread(pid)
        .filter(|_| stat(pid).is_some_and(|stat| stat.state == 'Z'))
        .unwrap_or(pid);
    let letter = stat(pid).map_or('?', |stat| stat.state);
    match std::fs::read_to_string(format!("/proc/{pid}/wchan")) {
        Ok(wchan) if !matches!(wchan.trim(), "" | "0") => format!("{letter} in {}", wchan.trim()),
        _ => letter.to_string(),
    }
}

fn matching(search: &Search) -> io::Result<Vec<Process>> {
    let untouchable = ourselves();
    let own = program(nix::unistd::getpid().as_raw());
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
        read_cmdline(pid, &mut cmdline);
        if cmdline.is_empty() {
            if let Some(thread) = living_thread(pid) {
                read_cmdline(thread, &mut cmdline);
            }
        }
        if !cmdline.is_empty() && !untouchable.contains(&pid) {
            let argv = cmdline.strip_suffix(b"\0").unwrap_or(&cmdline);
            let is_monitor = || own.is_some() && program(pid) == own;
            if arguments_match(search.pattern.as_ref(), argv, pid) && !is_monitor() {
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

/// A process that ended meanwhile has no file; kernel threads and zombies have no arguments.
fn read_cmdline(pid: i32, cmdline: &mut Vec<u8>) {
    cmdline.clear();
    let read = File::open(format!("/proc/{pid}/cmdline"))
        .and_then(|file| file.take(LONGEST_CMDLINE).read_to_end(cmdline));
    if read.is_err() {
        cmdline.clear();
    }
}

/// The file that a process runs: other monitors, and what they have left behind, are no server.
fn program(pid: i32) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/exe")).ok()
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
        Some(pattern) => {
            let command = joined(argv);
            pattern.is_match(&command) && !identity::names_a_pattern(&command)
        }
        None => identity::is_server(argv.split(|byte| *byte == 0), || {
            let thread = living_thread(pid).unwrap_or(pid);
            std::fs::read_link(format!("/proc/{pid}/cwd"))
                .or_else(|_| std::fs::read_link(format!("/proc/{thread}/cwd")))
                .ok()
        }),
    }
}

/// Arguments as one line of text; what is not UTF-8 in them becomes U+FFFD.
fn joined(argv: &[u8]) -> String {
    String::from_utf8_lossy(argv).replace('\0', " ")
}

/// The process behind a PID, unless it is a zombie or lives in another PID namespace.
fn look(pid: i32, argv: &[u8]) -> Option<Process> {
    let stat = stat(pid).filter(|stat| !is_dead(stat))?;
    // Its first line is the program's name, which can be any bytes.
    let status = std::fs::read(format!("/proc/{pid}/status")).ok()?;
    let status = String::from_utf8_lossy(&status);
    let fields = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().split_whitespace()
    };
    // Real and effective user ID (proc_pid_status(5)).
    let owner = fields("Uid:").nth(1)?.parse().ok()?;
    // One number for each PID namespace from ours down to its own.
    let elsewhere = fields("NSpid:").count() > 1;
    (!elsewhere).then(|| Process {
        pid,
        parent: stat.ppid,
        start_time: stat.starttime,
        owner: Uid::from_raw(owner),
        is_manager: identity::is_manager(argv.split(|byte| *byte == 0)),
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

/// What a process's descriptors are; none where we may not see them. One that is closed
/// meanwhile is no reason to see none.
pub(crate) fn descriptors(pid: i32) -> Option<Vec<FDInfo>> {
    let open = descriptors_of(pid);
    // A first thread that has ended has none.
    if open.as_ref().is_none_or(Vec::is_empty) {
        if let Some(thread) = living_thread(pid) {
            return descriptors_of(thread);
        }
    }
    open
}

fn descriptors_of(pid: i32) -> Option<Vec<FDInfo>> {
    let mut open = Vec::new();
    for one in procfs::process::Process::new(pid).ok()?.fd().ok()? {
        match one {
            Ok(one) => open.push(one),
            Err(ProcError::PermissionDenied(_)) => return None,
            Err(_) => (),
        }
    }
    Some(open)
}

/// Whether these are addresses of another machine.
pub(crate) fn is_elsewhere(addresses: &[IpAddr]) -> bool {
    place(addresses) == Place::Elsewhere
}

/// Whether one of these addresses is this machine's.
pub(crate) fn is_here(addresses: &[IpAddr]) -> bool {
    place(addresses) == Place::Here
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

/// Socket inode → address, of everything that listens in our network namespace.
fn listening_sockets() -> HashMap<u64, SocketAddr> {
    tcp_sockets()
        .into_iter()
        .filter(|row| row.state == TcpState::Listen)
        .map(|row| (row.inode, row.local_address))
        .collect()
}

/// Where a process listens; none where its descriptors cannot be seen.
fn listens(pid: i32, listeners: &HashMap<u64, SocketAddr>) -> Option<HashSet<SocketAddr>> {
    let open = descriptors(pid)?.into_iter();
    let sockets = open.filter_map(|one| match one.target {
        FDTarget::Socket(inode) => listeners.get(&inode).copied(),
        _ => None,
    });
    Some(sockets.collect())
}
