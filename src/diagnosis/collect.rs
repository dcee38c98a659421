//! Takes the snapshot of /proc in stages, the most reliable first. What can block, such as a disk that
//! does not respond, comes last and costs nothing of what was read before.

mod process;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use procfs::net::{TcpNetEntry, TcpState};
use procfs::process::FDTarget;

use super::phrase::Peer;
use super::question::Question;
use super::snapshot::{Listener, Process, Snapshot, Stage};
use super::{disks, oom, peer, server_log};
use crate::proc::fd_owners::Holders;
use crate::proc::machine::Machine;
use crate::proc::net::{self, Sockets, plainly};
use crate::proc::{fd_owners, machine, sock_diag};
use crate::server;

/// Looking through other processes for who holds a pipe or a port ends after this time.
const SEARCH: Duration = Duration::from_millis(250);
/// From one reading of the CPU times to the next at least, where a thread runs.
const SAMPLE: Duration = Duration::from_millis(100);

/// A look that goes on. What it has seen is told after each step.
pub(super) struct Collect<'a> {
    question: &'a Question,
    snapshot: Snapshot,
    tell: &'a mut dyn FnMut(&Snapshot),
}

impl<'a> Collect<'a> {
    /// Nothing was read yet.
    pub(super) fn new(question: &'a Question, tell: &'a mut dyn FnMut(&Snapshot)) -> Self {
        let snapshot = Snapshot {
            port: question.port,
            is_port_of_url: question.is_port_of_url,
            addresses: question.addresses.clone(),
            elsewhere: false,
            is_root: nix::unistd::geteuid().is_root(),
            tls: question.tls,
            seen: question.seen.clone(),
            since_healthy: question.since_healthy,
            is_running: !question.server.is_empty(),
            processes: Vec::new(),
            listeners: Vec::new(),
            instances: Vec::new(),
            full: Vec::new(),
            machine: Machine::default(),
            victim: None,
            log: None,
            stage: Stage::default(),
        };
        Self {
            question,
            snapshot,
            tell,
        }
    }

    fn next(&mut self, next: Stage) {
        self.snapshot.stage = next;
        (self.tell)(&self.snapshot);
    }

    /// Looks at what /proc shows, which does not hold whoever reads it.
    pub(super) fn at_proc(&mut self) -> Vec<PathBuf> {
        let question = self.question;
        let mut holders = Holders::until(Instant::now() + SEARCH);
        self.snapshot.machine = machine::look();
        self.snapshot.elsewhere = net::place(&question.addresses) == net::Place::Elsewhere;
        let sockets = Sockets::read();
        let began = Instant::now();
        let (mut processes, mut paths) = (Vec::new(), Vec::new());
        for found in &question.server {
            self.snapshot.processes.clone_from(&processes);
            self.snapshot.processes.extend(process::outline(found));
            self.next(Stage::Processes);
            if let Some((process, open)) = process::read(found, &sockets, &mut holders) {
                processes.push(process);
                paths.extend(open);
            }
        }
        self.snapshot.listeners = listeners(question, &processes, &sockets, &mut holders);
        self.snapshot.instances = instances(&question.others, &sockets);
        sample(&mut processes, began);
        self.snapshot.processes = processes;
        self.next(Stage::KernelLog);
        if question.server.is_empty() {
            self.snapshot.victim = oom::last_victim(&question.known);
        }
        self.next(Stage::ServerLog);
        paths
    }

    /// Looks at the server's own log and at the disks, the server's `paths` among them.
    pub(super) fn at_disks(&mut self, mut paths: Vec<PathBuf>) {
        let log = server_log::last(&paths, &self.question.log);
        paths.extend(log.as_ref().map(|(path, _)| path.clone()));
        self.snapshot.log = log;
        self.next(Stage::Disks);
        let pids = self.question.server.iter().map(|process| process.pid);
        self.snapshot.full = disks::full(pids, &paths);
        self.next(Stage::All);
    }
}

fn listeners(
    question: &Question,
    processes: &[Process],
    sockets: &Sockets,
    holders: &mut Holders,
) -> Vec<Listener> {
    let pids: Vec<i32> = processes.iter().map(|process| process.pid).collect();
    let listening = |row: &&TcpNetEntry| {
        row.state == TcpState::Listen && row.local_address.port() == question.port
    };
    let rows = sockets.all().iter().filter(listening);
    rows.map(|row| {
        let holder = holders.of_socket(row.inode, &pids);
        let on_port = |state, is_queued: bool| {
            let is_it = |other: &&TcpNetEntry| {
                other.state == state
                    && other.local_address.port() == row.local_address.port()
                    && (!is_queued || other.inode == 0)
            };
            sockets.all().iter().filter(is_it).count()
        };
        Listener {
            address: row.local_address,
            waiting: row.rx_queue,
            backlog: sock_diag::backlog(row.local_address, row.inode),
            // What is accepted has an inode.
            clients: on_port(TcpState::Established, true),
            closing: on_port(TcpState::CloseWait, false),
            ours: holder.is_some_and(|holder| pids.contains(&holder)),
            holder: holder.and_then(peer::of),
        }
    })
    .collect()
}

fn instances(
    others: &[server::process::Process],
    sockets: &Sockets,
) -> Vec<(Peer, Vec<SocketAddr>)> {
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
        .filter_map(|process| Some((peer::of(process.pid)?, listens(process.pid))));
    seen.collect()
}

/// How much CPU each thread has used since the look began.
fn sample(processes: &mut [Process], began: Instant) {
    let mut threads = processes.iter().flat_map(|process| &process.threads);
    if threads.any(|thread| thread.state == 'R') {
        std::thread::sleep(SAMPLE.saturating_sub(began.elapsed()));
    }
    let took = began.elapsed();
    // What was seen for less than some turns of the scheduler proves nothing.
    if took < SAMPLE {
        return;
    }
    let percent = |part: Duration| (part.as_nanos() * 100 / took.as_nanos().max(1)).min(100);
    for process in processes {
        for thread in &mut process.threads {
            let after = process::cpu(process.pid, thread.tid).unwrap_or(thread.cpu);
            thread.ran = percent(after.ran.saturating_sub(thread.cpu.ran));
            thread.waited = percent(after.waited.saturating_sub(thread.cpu.waited));
        }
    }
}
