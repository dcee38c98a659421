//! /proc → the server's processes. Reads the arguments of every process, and more only of
//! those whose arguments match.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use nix::unistd::Uid;
use procfs::net::TcpState;
use procfs::process::FDTarget;
use regex_lite::Regex;

use super::process::{Found, Process};
use super::select::{self, Asked, Candidate, Configured};
use super::{argv as server_argv, config_dir};
use crate::journal::plain;
use crate::proc::process::{Proc, is_dead, joined};
use crate::proc::{fd_owners, net};
use crate::sys::bounded;

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
    let searching = bounded::in_process(TIMEOUT, |out| {
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
    match net::place(&search.addresses) {
        net::Place::Here | net::Place::Unknown => Ok(narrow(matching, search)),
        net::Place::Elsewhere if search.pattern.is_none() => {
            let reason = "the URL is another host's; --process-pattern says otherwise";
            Ok(Found::none_but(matching, reason))
        }
        net::Place::Elsewhere => Ok(Found {
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
            one.configured = config_dir::as_against(&one.process, ours);
        }
    }
    select::choose(candidates, &asked)
}

/// The network namespace that a process lives in (`network_namespaces(7)`), where that can be seen.
fn network(pid: i32) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/ns/net")).ok()
}

/// The process that has this PID now.
#[cfg(test)]
pub(crate) fn process(pid: i32) -> Option<Process> {
    look(pid, &std::fs::read(format!("/proc/{pid}/cmdline")).ok()?)
}

fn matching(search: &Search) -> io::Result<Vec<Process>> {
    let untouchable = ourselves();
    let own = program(nix::unistd::getpid().as_raw());
    let mut found = Vec::new();
    let proc = Proc::here();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        let cmdline = proc.cmdline(pid, LONGEST_CMDLINE).unwrap_or_default();
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

/// The file that a process runs: other monitors, and what they have left behind, are no server.
fn program(pid: i32) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/exe")).ok()
}

/// Ourselves, our ancestors, and init.
fn ourselves() -> HashSet<i32> {
    let mut pids = HashSet::from([1]);
    let mut pid = nix::unistd::getpid().as_raw();
    while pid > 0 && pids.insert(pid) {
        pid = Proc::here().stat(pid).map_or(0, |stat| stat.ppid);
    }
    pids
}

fn arguments_match(pattern: Option<&Regex>, argv: &[u8], pid: i32) -> bool {
    match pattern {
        Some(pattern) => {
            let command = joined(argv);
            pattern.is_match(&command) && !server_argv::names_a_pattern(&command)
        }
        None => {
            server_argv::is_server(argv.split(|byte| *byte == 0), || Proc::here().cwd(pid).ok())
        }
    }
}

/// The process behind a PID, unless it is a zombie or lives in another PID namespace.
fn look(pid: i32, argv: &[u8]) -> Option<Process> {
    let stat = Proc::here().stat(pid).ok().filter(|stat| !is_dead(stat))?;
    let ids = Proc::here().ids(pid).ok()?;
    (!ids.is_in_other_namespace).then(|| Process {
        pid,
        parent: stat.ppid,
        start_time: stat.starttime,
        owner: Uid::from_raw(ids.uid),
        is_manager: server_argv::is_manager(argv.split(|byte| *byte == 0)),
        command: joined(argv),
    })
}

/// Socket inode → address, of everything that listens in our network namespace.
fn listening_sockets() -> HashMap<u64, SocketAddr> {
    net::tcp_sockets()
        .into_iter()
        .filter(|row| row.state == TcpState::Listen)
        .map(|row| (row.inode, row.local_address))
        .collect()
}

/// Where a process listens; none where its descriptors cannot be seen.
fn listens(pid: i32, listeners: &HashMap<u64, SocketAddr>) -> Option<HashSet<SocketAddr>> {
    let open = fd_owners::descriptors(pid)?.into_iter();
    let sockets = open.filter_map(|one| match one.target {
        FDTarget::Socket(inode) => listeners.get(&inode).copied(),
        _ => None,
    });
    Some(sockets.collect())
}
