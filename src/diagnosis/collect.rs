//! Takes the snapshot of /proc in stages, the most reliable first. What can block, such as a disk that
//! does not respond, comes last and costs nothing of what was read before.

mod process;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use procfs::net::TcpState;

use super::phrase::{Mentioned, Sight};
use super::question::Question;
use super::snapshot::{Inspected, PortListener, Snapshot, Stage};
use super::{disks, mentioned, oom, server_log};
use crate::proc::fd_owners::FdOwners;
use crate::proc::machine::{self, Machine};
use crate::proc::net::{self, Sockets, can_take, unmapped};
use crate::proc::process::Proc;
use crate::proc::sock_diag::{self, TcpSocket};
use crate::server::process::Process;

/// Looking through other processes, for who holds a pipe or a port and for other instances, ends after this time.
const SEARCH: Duration = Duration::from_millis(250);
/// So many sockets that listen on the port are looked at, those that the URL leads to first, and so many of another
/// instance.
const MOST_LISTENERS: usize = 10;
/// From one reading of the CPU times to the next at least, where a thread runs.
const SAMPLE: Duration = Duration::from_millis(100);

/// A collection in progress. It reports its snapshot after each step.
pub(super) struct Collect<'a> {
    proc: Proc<'a>,
    question: &'a Question,
    snapshot: Snapshot,
    tell: &'a mut dyn FnMut(&Snapshot),
}

/// Whose processes this run may see.
fn sight(proc: Proc) -> Sight {
    if proc.may_trace() {
        Sight::All
    } else if nix::unistd::geteuid().is_root() {
        Sight::WithoutCapability
    } else {
        Sight::Own
    }
}

impl<'a> Collect<'a> {
    /// Nothing was read yet.
    pub(super) fn new(
        proc: Proc<'a>,
        question: &'a Question,
        tell: &'a mut dyn FnMut(&Snapshot),
    ) -> Self {
        let snapshot = Snapshot {
            port: question.port,
            is_port_of_url: question.is_port_of_url,
            addresses: question.addresses.clone(),
            elsewhere: false,
            sight: sight(proc),
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
            proc,
            question,
            snapshot,
            tell,
        }
    }

    fn next(&mut self, next: Stage) {
        self.snapshot.stage = next;
        (self.tell)(&self.snapshot);
    }

    /// Reads what /proc shows, which does not block the reader.
    pub(super) fn at_proc(&mut self) -> Vec<PathBuf> {
        let (proc, question) = (self.proc, self.question);
        let end = Instant::now() + SEARCH;
        let mut holders = FdOwners::until(proc, end);
        self.snapshot.machine = machine::look(proc);
        self.snapshot.elsewhere = net::locality(&question.addresses) == net::Locality::Elsewhere;
        let sockets = Sockets::read(proc, question.port);
        let began = Instant::now();
        let (mut processes, mut paths) = (Vec::new(), Vec::new());
        for found in &question.server {
            self.snapshot.processes.clone_from(&processes);
            self.snapshot
                .processes
                .extend(process::outline(proc, found));
            self.next(Stage::Processes);
            if let Some((process, open)) = process::read(proc, found, &sockets, &mut holders) {
                processes.push(process);
                paths.extend(open);
            }
        }
        self.snapshot.listeners = listeners(proc, question, &processes, &sockets, &mut holders);
        self.snapshot.instances = instances(proc, &question.others, &sockets, end);
        sample(proc, &mut processes, began);
        self.snapshot.processes = processes;
        self.next(Stage::KernelLog);
        if question.server.is_empty() {
            self.snapshot.victim = oom::last_victim(&question.known);
        }
        self.next(Stage::ServerLog);
        paths
    }

    /// Reads what each process waits for, and nothing else: no other process is searched.
    pub(super) fn at_waits(&mut self) {
        let (proc, question) = (self.proc, self.question);
        let mut holders = FdOwners::until(proc, Instant::now());
        let sockets = Sockets::read(proc, question.port);
        for found in &question.server {
            let read = process::read(proc, found, &sockets, &mut holders);
            self.snapshot
                .processes
                .extend(read.map(|(process, _)| process));
        }
        (self.tell)(&self.snapshot);
    }

    /// Looks at the server's own log and at the disks, the server's `paths` among them.
    pub(super) fn at_disks(&mut self, mut paths: Vec<PathBuf>) {
        let log = server_log::last(&paths, &self.question.log);
        paths.extend(log.as_ref().map(|(path, _)| path.clone()));
        self.snapshot.log = log;
        self.next(Stage::Disks);
        let pids = self.question.server.iter().map(|process| process.pid);
        self.snapshot.full = disks::full(self.proc, pids, &paths);
        self.next(Stage::All);
    }
}

fn listeners(
    proc: Proc,
    question: &Question,
    processes: &[Inspected],
    sockets: &Sockets,
    holders: &mut FdOwners,
) -> Vec<PortListener> {
    let pids: Vec<i32> = processes.iter().map(Inspected::pid).collect();
    let listening =
        |row: &&TcpSocket| row.state == TcpState::Listen && row.local.port() == question.port;
    let rows = sockets.all().iter().filter(listening);
    let is_asked = |row: &TcpSocket| can_take(row.local.ip(), row.is_v6_only, &question.addresses);
    let (mut rows, beside): (Vec<_>, Vec<_>) = rows.partition(|row| is_asked(row));
    rows.extend(beside);
    rows.truncate(MOST_LISTENERS);
    rows.into_iter()
        .map(|row| {
            let holder = holders.of_socket(row.inode, &pids);
            let on_port = |state, is_queued: bool| {
                let is_it = |other: &&TcpSocket| {
                    other.state == state
                        && other.local.port() == row.local.port()
                        && (!is_queued || other.inode == 0)
                };
                sockets.all().iter().filter(is_it).count()
            };
            PortListener {
                address: row.local,
                is_v6_only: row.is_v6_only,
                waiting: row.rx_queue,
                backlog: sock_diag::backlog(row.local, row.inode),
                // What is accepted has an inode.
                clients: on_port(TcpState::Established, true),
                closing: on_port(TcpState::CloseWait, false),
                ours: holder.is_some_and(|holder| pids.contains(&holder)),
                holder: holder.and_then(|pid| mentioned::of(proc, pid)),
            }
        })
        .collect()
}

/// Other instances, and where they listen, as far as they can be looked at until `end`.
fn instances(
    proc: Proc,
    others: &[Process],
    sockets: &Sockets,
    end: Instant,
) -> Vec<(Mentioned, Vec<SocketAddr>)> {
    let listens = |pid: i32| {
        let held = proc.sockets(pid).unwrap_or_default().into_iter();
        let rows = held.filter_map(|inode| sockets.by_inode(inode));
        let listening = rows.filter(|row| row.state == TcpState::Listen);
        let addresses = listening.map(|row| unmapped(row.local));
        addresses.take(MOST_LISTENERS).collect()
    };
    let in_time = others.iter().take_while(|_| Instant::now() < end);
    let seen = in_time
        .filter_map(|process| Some((mentioned::of(proc, process.pid)?, listens(process.pid))));
    seen.collect()
}

/// Measures how much CPU each thread has used since the collection began.
fn sample(proc: Proc, processes: &mut [Inspected], began: Instant) {
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
        let pid = process.pid();
        for thread in &mut process.threads {
            let after = process::cpu(proc, pid, thread.tid).unwrap_or(thread.cpu);
            thread.ran = percent(after.ran.saturating_sub(thread.cpu.ran));
            thread.waited = percent(after.waited.saturating_sub(thread.cpu.waited));
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::libc;

    use super::*;
    use crate::diagnosis::captured::{Captured, blocked_in};
    use crate::diagnosis::question::Seen;
    use crate::diagnosis::server_log::Wanted;
    use crate::diagnosis::snapshot::Wait;
    use crate::state::KnownServer;

    fn process(pid: i32) -> Process {
        Process {
            pid,
            parent: 1,
            start_time: 500,
            uid: 1000,
            gid: 1000,
            command: "python3 main.py".to_owned(),
            argv: 0,
            is_manager: false,
        }
    }

    fn question() -> Question {
        Question {
            server: vec![process(7)],
            others: vec![process(8)],
            port: 9143,
            is_port_of_url: true,
            addresses: Vec::new(),
            tls: false,
            seen: Seen::Silent,
            since_healthy: None,
            known: KnownServer::default(),
            log: Wanted {
                known: None,
                pattern: None,
                logdir: None,
                history: Duration::from_secs(120),
                ours: Vec::new(),
                owner: None,
            },
        }
    }

    #[test]
    fn each_stage_sends_what_was_read_before_it() {
        let captured = Captured::new();
        captured.process(7, 'S', "python3\0main.py\0", &blocked_in(libc::SYS_read, 4));
        captured.process(8, 'S', "python3\0other.py\0", "running\n");
        captured.link("7/fd/3", "socket:[81]");
        captured.link("7/fd/4", "socket:[82]");
        captured.link("8/fd/3", "socket:[81]");
        let question = question();
        let mut sent = Vec::new();
        let mut send = |snapshot: &Snapshot| sent.push(snapshot.clone());
        Collect::new(captured.proc(), &question, &mut send).at_proc();
        let stages: Vec<Stage> = sent.iter().map(|snapshot| snapshot.stage).collect();
        let expected = [Stage::Processes, Stage::KernelLog, Stage::ServerLog];
        assert_eq!(stages, expected);
        // The outline is there before anything that can take long.
        let outline = &sent[0].processes[0];
        assert!(outline.pid() == 7 && outline.threads.is_empty() && sent[0].listeners.is_empty());
        let last = &sent[2];
        assert!(matches!(last.processes[0].wait(), Wait::Client { .. }));
        let listener = &last.listeners[0];
        assert!(listener.ours && last.listeners.len() == 1);
        let counts = (listener.waiting, listener.clients, listener.closing);
        assert_eq!(counts, (3, 0, 1));
        let holder = listener.holder.as_ref().map(|holder| holder.pid);
        assert_eq!(holder, Some(7));
        let (instance, listens) = &last.instances[0];
        assert_eq!(instance.command, "python3 other.py");
        assert_eq!(*listens, [SocketAddr::from(([127, 0, 0, 1], 9143))]);
        let machine = &last.machine;
        assert_eq!((machine.available, machine.memory), (4 << 30, 8 << 30));
        assert!((machine.load - 0.5).abs() < 0.001 && machine.threads == 345);
        let pressure = machine.pressure.map(|one| [one.cpu, one.memory, one.io]);
        assert_eq!(pressure, Some([12.0, 3.0, 4.0]));
    }

    #[test]
    fn a_light_look_reads_what_the_server_waits_for() {
        let captured = Captured::new();
        captured.process(7, 'S', "python3\0main.py\0", &blocked_in(libc::SYS_read, 4));
        captured.link("7/fd/4", "socket:[82]");
        let question = question();
        let mut sent = Vec::new();
        let mut send = |snapshot: &Snapshot| sent.push(snapshot.clone());
        Collect::new(captured.proc(), &question, &mut send).at_waits();
        assert_eq!(sent.len(), 1);
        let wait = sent[0].processes[0].wait();
        assert!(matches!(wait, Wait::Client { inode: 82, .. }), "{wait:?}");
    }

    #[test]
    fn a_server_that_has_ended_leaves_the_port() {
        let captured = Captured::new();
        let question = question();
        let mut last = None;
        let mut send = |snapshot: &Snapshot| last = Some(snapshot.clone());
        Collect::new(captured.proc(), &question, &mut send).at_proc();
        let processes = last.as_ref().map(|last| last.processes.len());
        let ours = last.map(|last| last.listeners.iter().any(|one| one.ours));
        assert_eq!((processes, ours), (Some(0), Some(false)));
    }
}
