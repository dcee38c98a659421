//! The look itself: /proc in, evidence out, one thing after the other, the surest first. What can
//! block, such as a disk that does not answer, comes last and costs nothing of what was seen before.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use procfs::net::{TcpNetEntry, TcpState};
use procfs::process::FDTarget;

use super::Question;
use super::evidence::{Evidence, Listener, Looked, Other, Program};
use super::{disks, oom, program, server_log};
use crate::proc::fd_owners::Holders;
use crate::proc::machine::Machine;
use crate::proc::net::{self, plainly};
use crate::proc::process::{Proc, joined};
use crate::proc::{fd_owners, machine, sock_diag};
use crate::redact;
use crate::server::process::Process;

/// Looking through other processes for who holds a pipe or a port ends after this time.
const SEARCH: Duration = Duration::from_millis(250);
/// Read limit of another process's arguments, in bytes.
const LONGEST_CMDLINE: u64 = 16 << 10;
/// So many characters of another process's command line are shown.
const LONGEST_COMMAND: usize = 200;
/// From one reading of the CPU times to the next at least, where a thread runs.
const SAMPLE: Duration = Duration::from_millis(100);

/// A look that goes on. What it has seen is told after each step.
pub(super) struct Look<'a> {
    question: &'a Question,
    evidence: Evidence,
    tell: &'a mut dyn FnMut(&Evidence),
}

impl<'a> Look<'a> {
    /// Nothing was looked at yet.
    pub(super) fn new(question: &'a Question, tell: &'a mut dyn FnMut(&Evidence)) -> Self {
        let evidence = Evidence {
            port: question.port,
            is_port_of_url: question.is_port_of_url,
            addresses: question.addresses.clone(),
            elsewhere: false,
            is_root: nix::unistd::geteuid().is_root(),
            tls: question.tls,
            seen: question.seen.clone(),
            since_healthy: question.since_healthy,
            is_running: !question.server.is_empty(),
            programs: Vec::new(),
            listeners: Vec::new(),
            instances: Vec::new(),
            full: Vec::new(),
            machine: Machine::default(),
            victim: None,
            log: None,
            looked: Looked::default(),
        };
        Self {
            question,
            evidence,
            tell,
        }
    }

    fn next(&mut self, next: Looked) {
        self.evidence.looked = next;
        (self.tell)(&self.evidence);
    }

    /// Looks at what /proc shows, which does not hold whoever reads it.
    pub(super) fn at_proc(&mut self) -> Vec<PathBuf> {
        let question = self.question;
        let mut holders = Holders::until(Instant::now() + SEARCH);
        self.evidence.machine = machine::look();
        self.evidence.elsewhere = net::place(&question.addresses) == net::Place::Elsewhere;
        let sockets = Sockets::read();
        let began = Instant::now();
        let (mut programs, mut paths) = (Vec::new(), Vec::new());
        for process in &question.server {
            self.evidence.programs.clone_from(&programs);
            self.evidence.programs.extend(program::outline(process));
            self.next(Looked::Processes);
            if let Some((program, open)) = program::look(process, &sockets, &mut holders) {
                programs.push(program);
                paths.extend(open);
            }
        }
        self.evidence.listeners = listeners(question, &programs, &sockets, &mut holders);
        self.evidence.instances = instances(&question.others, &sockets);
        sample(&mut programs, began);
        self.evidence.programs = programs;
        self.next(Looked::KernelLog);
        if question.server.is_empty() {
            self.evidence.victim = oom::last_victim(&question.known);
        }
        self.next(Looked::ServerLog);
        paths
    }

    /// Looks at the server's own log and at the disks, the server's `paths` among them.
    pub(super) fn at_disks(&mut self, mut paths: Vec<PathBuf>) {
        let log = server_log::last(&paths, &self.question.log);
        paths.extend(log.as_ref().map(|(path, _)| path.clone()));
        self.evidence.log = log;
        self.next(Looked::Disks);
        let pids = self.question.server.iter().map(|process| process.pid);
        self.evidence.full = disks::full(pids, &paths);
        self.next(Looked::All);
    }
}

/// The TCP sockets of our network namespace, by inode.
#[derive(Debug)]
pub(super) struct Sockets {
    rows: Vec<TcpNetEntry>,
    by_inode: HashMap<u64, usize>,
    listening_ports: HashSet<u16>,
}

impl Sockets {
    fn read() -> Self {
        let rows = net::tcp_sockets();
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

    /// Whether anything listens on that port: the kernel makes no connection of ours from it.
    pub(super) fn is_listened_to(&self, port: u16) -> bool {
        self.listening_ports.contains(&port)
    }

    /// The inode of a socket of this machine that listens at that address.
    pub(super) fn listening_at(&self, address: SocketAddr) -> Option<u64> {
        let listening = |row: &&TcpNetEntry| {
            row.state == TcpState::Listen
                && row.local_address.port() == address.port()
                && net::takes(row.local_address.ip(), &[address.ip()])
        };
        // Elsewhere, the same port says nothing.
        let is_here = net::place(&[address.ip()]) == net::Place::Here;
        let mut rows = self.rows.iter().filter(|_| is_here);
        rows.find(listening).map(|row| row.inode)
    }

    /// The other end of a connection, where it is of this machine.
    pub(super) fn other_end(&self, row: &TcpNetEntry) -> Option<&TcpNetEntry> {
        let ends = |row: &TcpNetEntry| (plainly(row.local_address), plainly(row.remote_address));
        let (local, remote) = ends(row);
        self.rows
            .iter()
            .find(|other| ends(other) == (remote, local))
    }

    pub(super) fn by_inode(&self, inode: u64) -> Option<&TcpNetEntry> {
        self.rows.get(*self.by_inode.get(&inode)?)
    }
}

fn listeners(
    question: &Question,
    programs: &[Program],
    sockets: &Sockets,
    holders: &mut Holders,
) -> Vec<Listener> {
    let pids: Vec<i32> = programs.iter().map(|program| program.pid).collect();
    let listening = |row: &&TcpNetEntry| {
        row.state == TcpState::Listen && row.local_address.port() == question.port
    };
    let rows = sockets.rows.iter().filter(listening);
    rows.map(|row| {
        let holder = holders.of_socket(row.inode, &pids);
        let on_port = |state, is_queued: bool| {
            let is_it = |other: &&TcpNetEntry| {
                other.state == state
                    && other.local_address.port() == row.local_address.port()
                    && (!is_queued || other.inode == 0)
            };
            sockets.rows.iter().filter(is_it).count()
        };
        Listener {
            address: row.local_address,
            waiting: row.rx_queue,
            backlog: sock_diag::backlog(row.local_address, row.inode),
            // What is accepted has an inode.
            clients: on_port(TcpState::Established, true),
            closing: on_port(TcpState::CloseWait, false),
            ours: holder.is_some_and(|holder| pids.contains(&holder)),
            holder: holder.and_then(other),
        }
    })
    .collect()
}

fn instances(others: &[Process], sockets: &Sockets) -> Vec<(Other, Vec<SocketAddr>)> {
    let listens = |pid: i32| {
        let open = fd_owners::descriptors(pid).into_iter().flatten();
        let rows = open.filter_map(|one| match one.target {
            FDTarget::Socket(inode) => sockets.by_inode(inode),
            _ => None,
        });
        let listening = rows.filter(|row| row.state == TcpState::Listen);
        listening.map(|row| plainly(row.local_address)).collect()
    };
    let seen = others
        .iter()
        .filter_map(|process| Some((other(process.pid)?, listens(process.pid))));
    seen.collect()
}

/// How much CPU each thread has used since the look began.
fn sample(programs: &mut [Program], began: Instant) {
    let mut threads = programs.iter().flat_map(|program| &program.threads);
    if threads.any(|thread| thread.state == 'R') {
        std::thread::sleep(SAMPLE.saturating_sub(began.elapsed()));
    }
    let took = began.elapsed();
    // What was seen for less than some turns of the scheduler proves nothing.
    if took < SAMPLE {
        return;
    }
    let percent = |part: Duration| (part.as_nanos() * 100 / took.as_nanos().max(1)).min(100);
    for program in programs {
        for thread in &mut program.threads {
            let after = program::cpu(program.pid, thread.tid).unwrap_or(thread.cpu);
            thread.ran = percent(after.ran.saturating_sub(thread.cpu.ran));
            thread.waited = percent(after.waited.saturating_sub(thread.cpu.waited));
        }
    }
}

/// A process's arguments, joined by spaces; empty where it has none.
fn command(pid: i32) -> String {
    joined(
        &Proc::here()
            .cmdline(pid, LONGEST_CMDLINE)
            .unwrap_or_default(),
    )
}

/// A process as a sentence names it.
pub(super) fn other(pid: i32) -> Option<Other> {
    let stat = Proc::here().stat(pid).ok()?;
    let command = command(pid);
    let command = if command.is_empty() {
        format!("[{}]", stat.comm)
    } else {
        command
    };
    Some(Other {
        pid,
        command: shortened(redact::redacted(&command)),
        is_hidden: false,
        state: stat.state,
        age: Proc::here().age(pid).unwrap_or_default(),
    })
}

/// A command line that is longer than a sentence needs ends in `…`.
fn shortened(command: String) -> String {
    match command.char_indices().nth(LONGEST_COMMAND) {
        Some((end, _)) => format!("{}…", &command[..end]),
        None => command,
    }
}
