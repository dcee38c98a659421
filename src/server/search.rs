//! /proc and the socket tables → facts: which processes can be the server, and who holds its
//! listening socket. A process or a disk can block the reader, so the search runs in a process of
//! its own, which is started again without what blocked it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use regex_lite::Regex;
use serde::{Deserialize, Serialize};

use super::argv::{self, LONGEST_CMDLINE, arguments};
use super::config_dir::{self, Configured};
use super::monitors::Monitors;
use super::process::{Process, hash};
use super::select::{Candidate, Facts};
use crate::proc::net;
use crate::proc::process::{MOST_DESCRIPTORS, Proc, Sweep, is_dead, joined, means_gone};
use crate::proc::sock_diag::{self, Listener};
use crate::sys::bounded::{self, Ended};
use crate::text::{LONGEST_LINE, errno_text};

/// Time limit of a search.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit between two signs of life of a search.
const STALL: Duration = Duration::from_secs(1);
/// Processes between two such signs.
const STRIDE: usize = 128;
/// Time limit for reading of processes that have nothing to do with the server's users, which can be
/// made slow to read.
const OTHERS_TIMEOUT: Duration = Duration::from_millis(500);
/// So many sockets of strangers on the server's port are looked at.
const MOST_STRANGERS: usize = 100;
/// Time limit of the comparison before the first signal.
const COMPARE_TIMEOUT: Duration = Duration::from_secs(1);
/// The process of the record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Recorded {
    /// Its PID.
    pub(crate) pid: i32,
    /// Its start time, in clock ticks since boot.
    pub(crate) start_time: u64,
    /// Hash of its arguments.
    pub(crate) argv: u64,
}

/// What is looked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Search {
    /// In place of the argv rule.
    pub(crate) pattern: Option<Regex>,
    /// The addresses that the server listens on; any, where they are not known.
    pub(crate) addresses: Vec<IpAddr>,
    /// The port that it listens on.
    pub(crate) port: u16,
    /// The restart command's MyVNC script.
    pub(crate) script: Option<PathBuf>,
    /// The restart command's configuration directory.
    pub(crate) config_dir: Option<PathBuf>,
    /// The process of the record.
    pub(crate) recorded: Option<Recorded>,
    /// Users whose processes can be the server while nobody listens.
    pub(crate) users: Vec<u32>,
    /// The user of the record.
    pub(crate) recorded_user: Option<u32>,
    /// Whether the restart command was run: what it started is looked at first, and if the server is
    /// among that, at nothing else.
    pub(crate) is_started: bool,
}

impl Search {
    /// Whether that user's processes can be the server.
    fn is_of_user(&self, uid: u32) -> bool {
        self.recorded_user == Some(uid) || self.users.contains(&uid)
    }
}

/// What a search reports as it goes.
#[derive(Clone, Debug, Deserialize, Serialize)]
enum SearchMessage {
    /// The sockets that take connections to the server's address; none where that cannot be read.
    Listeners(Option<Vec<Listener>>),
    /// It is about to read of this process.
    Reading(i32),
    /// A process that can be the server.
    Candidate(Box<Candidate>),
    /// On which sockets such a process listens, found later.
    Sockets(i32, Vec<Listener>),
    /// Who holds the server's socket and cannot be the server.
    Holder(Process),
    /// /proc cannot be listed.
    Failed(String),
}

/// The reports of a search so far, with those of attempts that stalled.
#[derive(Default)]
struct Reports {
    facts: Facts,
    reading: Option<i32>,
    failed: Option<String>,
}

impl Reports {
    fn take(&mut self, report: SearchMessage) {
        match report {
            SearchMessage::Listeners(listeners) => self.facts.listeners = listeners,
            SearchMessage::Reading(pid) => self.reading = Some(pid),
            SearchMessage::Candidate(candidate) => self.facts.candidates.push(*candidate),
            SearchMessage::Sockets(pid, sockets) => {
                let mut candidates = self.facts.candidates.iter_mut().rev();
                if let Some(one) = candidates.find(|one| one.process.pid == pid) {
                    one.listens = Some(sockets);
                }
            }
            SearchMessage::Holder(process) => self.facts.holder = Some(process),
            SearchMessage::Failed(reason) => self.failed = Some(reason),
        }
    }

    /// What was seen; of each process, what was seen last.
    fn into_facts(self) -> Result<Facts, SearchError> {
        if let Some(reason) = self.failed {
            return Err(SearchError(reason));
        }
        let mut facts = self.facts;
        facts.candidates.reverse();
        facts.candidates.sort_by_key(|one| one.process.pid);
        facts.candidates.dedup_by_key(|one| one.process.pid);
        Ok(facts)
    }
}

/// /proc cannot be listed, for this reason.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct SearchError(String);

impl fmt::Display for SearchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Searches, for 5 s at most; what was seen by then counts.
///
/// # Errors
/// /proc cannot be listed.
pub(crate) async fn search(search: &Search) -> Result<Facts, SearchError> {
    let began = Instant::now();
    let (mut skipped, mut is_careful) = (Vec::new(), false);
    let mut reports = Reports::default();
    loop {
        reports.reading = None;
        let left = TIMEOUT.saturating_sub(began.elapsed());
        let ended = bounded::stream(
            STALL,
            left,
            |tell| Looker::new(search, &skipped, is_careful, tell).look(),
            |report| reports.take(report),
        )
        .await;
        match ended {
            Ok(Ended::Done) => reports.facts.is_complete = skipped.is_empty(),
            // No process can be created: the server may have used them up.
            Err(_) => {
                let mut tell = |report: &SearchMessage| reports.take(report.clone());
                Looker::new(search, &[], false, &mut tell).look();
                reports.facts.is_complete = true;
            }
            Ok(Ended::Stalled | Ended::Died) if !left.is_zero() => {
                if is_careful {
                    skipped.extend(reports.reading);
                }
                is_careful = true;
                continue;
            }
            Ok(_) => (),
        }
        return reports.into_facts();
    }
}

/// The MyVNC servers of this machine, as PIDs by user ID: of each family of processes the topmost.
pub(crate) fn running() -> BTreeMap<u32, Vec<i32>> {
    let mut reports = Reports::default();
    let mut tell = |report: &SearchMessage| reports.take(report.clone());
    Looker::new(&Search::default(), &[], false, &mut tell).look();
    let all = reports.facts.candidates;
    let is_child = |process: &Process| {
        let mut parents = all.iter().map(|one| &one.process);
        parents.any(|one| one.pid == process.parent && one.uid == process.uid)
    };
    let mut servers: BTreeMap<u32, Vec<i32>> = BTreeMap::new();
    for process in all.iter().map(|one| &one.process) {
        if !is_child(process) && !process.is_manager {
            servers.entry(process.uid).or_default().push(process.pid);
        }
    }
    servers
}

/// Which process has this socket open, within the time limit for others; the socket's `uid` is asked first.
pub(crate) async fn holder(inode: u64, uid: u32) -> Option<Process> {
    let looking = bounded::ask(2 * OTHERS_TIMEOUT, || {
        let search = Search::default();
        let mut tell = |_: &SearchMessage| ();
        let mut looker = Looker::new(&search, &[], false, &mut tell);
        let sweep = Sweep::new(looker.proc, LONGEST_CMDLINE).ok()?;
        let mut pids = looker.proc.pids().ok()?;
        pids.sort_by_key(|pid| sweep.owner(*pid).ok() != Some(uid));
        let end = Instant::now() + OTHERS_TIMEOUT;
        looker.holder_of(&[(inode, uid)], &pids, end)
    });
    looking.await.ok().flatten().flatten()
}

/// Which of these processes became something else since they were found: other arguments, user or
/// start time. What cannot be read within the time limit is something else, unless it is known
/// (`is_known`) to be the server.
pub(crate) async fn changed(processes: &[Process], is_known: bool) -> Vec<i32> {
    let comparing = bounded::ask(COMPARE_TIMEOUT, || {
        let changed = processes.iter().filter(|one| has_changed(one, is_known));
        changed.map(|one| one.pid).collect::<Vec<i32>>()
    });
    match comparing.await {
        Ok(Some(changed)) => changed,
        // No process can be had: what can block is compared here.
        Err(_) => {
            let changed = processes.iter().filter(|one| has_changed(one, is_known));
            changed.map(|one| one.pid).collect()
        }
        Ok(None) if is_known => Vec::new(),
        Ok(None) => processes.iter().map(|one| one.pid).collect(),
    }
}

fn has_changed(process: &Process, is_known: bool) -> bool {
    let proc = Proc::here();
    let is_other = match twice(|| proc.stat(process.pid)) {
        Ok(stat) => stat.starttime != process.start_time,
        Err(_) => !is_known,
    };
    let is_other_user = match twice(|| proc.ids(process.pid)) {
        Ok(ids) => ids.uid != process.uid,
        Err(_) => !is_known,
    };
    let is_other_program = match twice(|| proc.cmdline(process.pid, LONGEST_CMDLINE)) {
        // Of a process that is ending, nothing is left.
        Ok(cmdline) => !cmdline.is_empty() && hash(&cmdline) != process.argv,
        Err(_) => !is_known,
    };
    is_other || is_other_user || is_other_program
}

/// Whether an error means that the server is not the process of that number. /proc with hidepid=1 answers
/// EPERM of a process that the reader may not trace, where hidepid=2 hides it: any user can have such a process.
fn is_not_there(reason: &io::Error) -> bool {
    means_gone(reason) || reason.raw_os_error() == Some(nix::libc::EPERM)
}

/// What fails once for a moment's lack of memory need not fail again.
fn twice<T>(read: impl Fn() -> io::Result<T>) -> io::Result<T> {
    read().or_else(|_| read())
}

/// A search at work.
struct Looker<'a> {
    proc: Proc<'static>,
    search: &'a Search,
    /// Processes that blocked an earlier search.
    skipped: &'a [i32],
    /// Whether each process is reported before it is read.
    is_careful: bool,
    tell: &'a mut dyn FnMut(&SearchMessage),
    /// What takes connections to the server's address; none if that could not be listed.
    taking: Option<Vec<Listener>>,
    /// What listens on any port and was made by users whose processes can be the server; none if that could not be
    /// listed in time.
    of_users: Option<Vec<Listener>>,
    /// See `OTHERS_TIMEOUT`.
    others_timeout: Duration,
    count: usize,
}

impl<'a> Looker<'a> {
    fn new(
        search: &'a Search,
        skipped: &'a [i32],
        is_careful: bool,
        tell: &'a mut dyn FnMut(&SearchMessage),
    ) -> Self {
        Self {
            proc: Proc::here(),
            search,
            skipped,
            is_careful,
            tell,
            taking: None,
            of_users: None,
            others_timeout: OTHERS_TIMEOUT,
            count: 0,
        }
    }

    fn look(mut self) {
        self.look_at_port();
        (self.tell)(&SearchMessage::Listeners(self.taking.clone()));
        self.look_at_users();
        // Before the list of all processes, which takes long where there are many and the machine is busy.
        let mut found: Vec<Candidate> = self.recorded().into_iter().collect();
        let pids = match self.proc.pids() {
            Ok(pids) => pids,
            Err(reason) => return (self.tell)(&SearchMessage::Failed(errno_text(&reason))),
        };
        let untouchable = self.ourselves();
        let pids: Vec<i32> = pids
            .into_iter()
            .filter(|pid| !untouchable.contains(pid) && !self.skipped.contains(pid))
            .collect();
        let mut sweep = match Sweep::new(self.proc, LONGEST_CMDLINE) {
            Ok(sweep) => sweep,
            Err(reason) => return (self.tell)(&SearchMessage::Failed(errno_text(&reason))),
        };
        let users = self.users();
        let (mut first, others): (Vec<i32>, Vec<i32>) = pids.into_iter().partition(|pid| {
            let owner = sweep.owner(*pid);
            owner.map_or(true, |uid| users.contains(&uid))
        });
        let of_sockets = self.of_sockets();
        let (near, mut others): (Vec<i32>, Vec<i32>) = others.into_iter().partition(|pid| {
            let owner = sweep.owner(*pid);
            owner.is_ok_and(|uid| of_sockets.contains(&uid))
        });
        // Root's before those of users who have nothing to do with the server.
        others.sort_by_key(|pid| sweep.owner(*pid).map_or(1, |uid| u32::from(uid != 0)));
        let is_proven = |pid: i32| {
            sweep
                .owner(pid)
                .is_ok_and(|uid| self.search.users.contains(&uid))
        };
        let others: Vec<(i32, bool)> = others
            .into_iter()
            .map(|pid| (pid, is_proven(pid)))
            .collect();
        if self.search.is_started && self.search.pattern.is_none() {
            for pid in self.descendants() {
                self.read(&mut sweep, pid, true, &mut found);
            }
            let taking = self.taking.clone().unwrap_or_default();
            let is_there = if taking.is_empty() {
                !found.is_empty()
            } else {
                found.iter().any(|one| holds(one, &taking))
            };
            if is_there {
                return;
            }
        }
        for pid in &first {
            self.read(&mut sweep, *pid, true, &mut found);
        }
        for user in of_sockets {
            let end = Instant::now() + self.others_timeout;
            for pid in &near {
                if Instant::now() > end {
                    break;
                }
                if sweep.owner(*pid).is_ok_and(|uid| uid == user) {
                    self.read(&mut sweep, *pid, true, &mut found);
                }
            }
        }
        first.extend(near);
        let end = Instant::now() + self.others_timeout;
        for (pid, is_proven) in &others {
            if Instant::now() > end {
                break;
            }
            self.read(&mut sweep, *pid, *is_proven, &mut found);
        }
        let others: Vec<i32> = others.into_iter().map(|(pid, _)| pid).collect();
        if self.search.pattern.is_some() {
            self.sort_out_monitors(&mut found);
        }
        let is_held = self.taking.as_ref().is_some_and(|taking| {
            !taking.is_empty() && !found.iter().any(|one| holds(one, taking))
        });
        if is_held {
            self.find_holder(&found, &first, &others);
        }
    }

    /// Of what matches a pattern, reports what is no other monitor and does not belong to one: first what can be the
    /// server's, then what strangers have, as far as there is time.
    fn sort_out_monitors(&mut self, found: &mut Vec<Candidate>) {
        let monitors = Monitors::new(self.proc);
        let search = self.search;
        found.sort_by_key(|one| !search.is_of_user(one.process.uid));
        let end = Instant::now() + self.others_timeout;
        found.retain(|one| {
            if self.is_certain(one) {
                return true;
            }
            let pid = one.process.pid;
            if !search.is_of_user(one.process.uid) && Instant::now() > end {
                return false;
            }
            (self.tell)(&SearchMessage::Reading(pid));
            if monitors.include(pid) {
                return false;
            }
            (self.tell)(&SearchMessage::Candidate(Box::new(one.clone())));
            true
        });
    }

    /// Whether a candidate counts whatever a pattern matches besides: it is recorded, or holds the server's socket.
    fn is_certain(&self, one: &Candidate) -> bool {
        let (pid, start_time) = (one.process.pid, one.process.start_time);
        let recorded = self.search.recorded.as_ref();
        recorded.is_some_and(|one| (one.pid, one.start_time) == (pid, start_time))
            || self
                .taking
                .as_ref()
                .is_some_and(|taking| holds(one, taking))
    }

    /// Lists what takes connections to the server's address: all that can be the server's, and of strangers' sockets as
    /// many as are needed to see that the address is taken.
    fn look_at_port(&mut self) {
        let search = self.search;
        let mut strangers = 0;
        let found = net::listeners(self.proc, Some(search.port), |one| {
            let is_taking = one.takes(&search.addresses);
            strangers += usize::from(is_taking && !search.is_of_user(one.uid));
            is_taking && (search.is_of_user(one.uid) || strangers <= MOST_STRANGERS)
        });
        let Ok((mut taking, is_whole)) = found else {
            return;
        };
        let mut is_known = is_whole;
        if !is_whole {
            let addresses = search.addresses.iter();
            let at = addresses.map(|ip| SocketAddr::new(*ip, search.port));
            let asked: io::Result<Vec<_>> = at.map(sock_diag::listener_at).collect();
            is_known = !search.addresses.is_empty() && asked.is_ok();
            taking.extend(asked.into_iter().flatten().flatten());
            taking.sort_by_key(|one| one.inode);
            taking.dedup();
        }
        // An empty list that was cut short does not say that nobody listens.
        self.taking = (is_known || !taking.is_empty()).then_some(taking);
    }

    /// Lists what those who can be the server listen on.
    fn look_at_users(&mut self) {
        let of_sockets = self.of_sockets();
        let is_wanted =
            |one: &Listener| of_sockets.contains(&one.uid) || self.search.is_of_user(one.uid);
        let found = net::listeners(self.proc, None, is_wanted).ok();
        self.of_users = found.and_then(|(found, is_whole)| is_whole.then_some(found));
    }

    /// Users whose processes can be the server and are looked at without a time limit of their own: that of the record,
    /// and proven ones. Root is proven, and has many processes that have nothing to do with it.
    fn users(&self) -> HashSet<u32> {
        let proven = self.search.users.iter().copied().filter(|uid| *uid != 0);
        proven.chain(self.search.recorded_user).collect()
    }

    /// Other users who have sockets at the server's address.
    fn of_sockets(&self) -> BTreeSet<u32> {
        let users = self.users();
        let sockets = self.taking.iter().flatten().map(|socket| socket.uid);
        sockets.filter(|uid| !users.contains(uid)).collect()
    }

    /// The monitor, its ancestors, and init.
    fn ourselves(&self) -> HashSet<i32> {
        let mut pids = HashSet::from([1]);
        // This runs in a child of the monitor.
        let mut pid = nix::unistd::getpid().as_raw();
        while pid > 0 && pids.insert(pid) {
            pid = self.proc.stat(pid).map_or(0, |stat| stat.ppid);
        }
        pids
    }

    /// All that the monitor has started, and what that has started. The monitor is the subreaper of it.
    fn descendants(&self) -> Vec<i32> {
        let own = nix::unistd::getpid().as_raw();
        // This runs in a child of the monitor.
        let mut below = self.proc.children(nix::unistd::getppid().as_raw());
        let mut all = Vec::new();
        while let Some(pid) = below.pop() {
            if pid != own && !all.contains(&pid) {
                all.push(pid);
                below.extend(self.proc.children(pid));
            }
        }
        all
    }

    fn report_reading(&mut self, pid: i32) {
        if self.is_careful || self.count % STRIDE == 0 {
            (self.tell)(&SearchMessage::Reading(pid));
        }
        self.count += 1;
    }

    /// The process of the record, whatever its arguments are; what cannot be read is no obstacle.
    fn recorded(&mut self) -> Option<Candidate> {
        let recorded = self.search.recorded?;
        match twice(|| self.proc.stat(recorded.pid)) {
            Ok(stat) if stat.starttime != recorded.start_time || is_dead(&stat) => return None,
            Err(reason) if is_not_there(&reason) => return None,
            _ => (),
        }
        let cmdline = if self.skipped.contains(&recorded.pid) {
            Vec::new()
        } else {
            self.report_reading(recorded.pid);
            let cmdline = self.proc.cmdline(recorded.pid, LONGEST_CMDLINE);
            cmdline.unwrap_or_default()
        };
        if !cmdline.is_empty() && hash(&cmdline) != recorded.argv {
            return None;
        }
        let mut candidate = self.candidate(recorded.pid, &cmdline, true)?;
        if candidate.is_unreadable {
            candidate.process.start_time = recorded.start_time;
        } else if candidate.process.start_time != recorded.start_time {
            return None;
        }
        candidate.process.argv = recorded.argv;
        self.report(&candidate);
        Some(candidate)
    }

    fn read(&mut self, sweep: &mut Sweep, pid: i32, is_near: bool, found: &mut Vec<Candidate>) {
        if found.iter().any(|one| one.process.pid == pid) {
            return;
        }
        self.report_reading(pid);
        let Ok(mut cmdline) = sweep.cmdline(pid) else {
            return;
        };
        // A process whose main thread has ended has no arguments of its own; kernel threads and zombies have none at all.
        let of_thread = if cmdline.is_empty() {
            self.proc.cmdline(pid, LONGEST_CMDLINE).unwrap_or_default()
        } else {
            Vec::new()
        };
        if cmdline.is_empty() {
            cmdline = &of_thread;
        }
        if cmdline.is_empty() || !self.matches(pid, cmdline) {
            return;
        }
        if let Some(candidate) = self.candidate(pid, cmdline, is_near) {
            self.report(&candidate);
            found.push(candidate);
        }
    }

    /// With a pattern, other monitors are sorted out first.
    fn report(&mut self, candidate: &Candidate) {
        if self.search.pattern.is_none() || self.is_certain(candidate) {
            (self.tell)(&SearchMessage::Candidate(Box::new(candidate.clone())));
        }
    }

    fn matches(&self, pid: i32, cmdline: &[u8]) -> bool {
        match &self.search.pattern {
            Some(pattern) => {
                let command = joined(cmdline);
                pattern.is_match(&command) && !argv::names_a_pattern(&command)
            }
            None => argv::is_server(arguments(cmdline), || self.proc.cwd(pid).ok()),
        }
    }

    fn candidate(&self, pid: i32, cmdline: &[u8], is_near: bool) -> Option<Candidate> {
        let (process, is_unreadable) = match self.process(pid, cmdline) {
            Ok(process) => (process?, false),
            Err(_) => (self.unreadable(pid, cmdline)?, true),
        };
        let script = argv::script(arguments(cmdline), self.proc.cwd(pid).ok().as_deref());
        let is_beside = match (&script, &self.search.script) {
            (Some(its), Some(ours)) => its.parent() == ours.parent(),
            _ => false,
        };
        let configured = match &self.search.config_dir {
            Some(ours) if is_near => config_dir::compare(pid, cmdline, ours),
            _ => Configured::Unknown,
        };
        let (network, own) = (
            self.proc.network(pid).ok(),
            std::fs::read_link(self.proc.0.join("self/ns/net")).ok(),
        );
        Some(Candidate {
            listens: if is_near { self.listens(pid) } else { None },
            is_elsewhere: network.zip(own).map(|(its, own)| its != own),
            configured,
            is_beside,
            is_unreadable,
            process,
        })
    }

    /// The process behind a PID, unless it is a zombie or lives in another PID namespace.
    ///
    /// # Errors
    /// It may be there, and cannot be read.
    fn process(&self, pid: i32, cmdline: &[u8]) -> io::Result<Option<Process>> {
        let found = self.any_process(pid, cmdline)?;
        Ok(found
            .filter(|(_, is_hidden)| !is_hidden)
            .map(|(process, _)| process))
    }

    /// The process behind a PID, unless it is a zombie, and whether it can be no server: it has root's rights from a
    /// setuid program, or lives in another PID namespace.
    ///
    /// # Errors
    /// As `process`.
    fn any_process(&self, pid: i32, cmdline: &[u8]) -> io::Result<Option<(Process, bool)>> {
        let reading = twice(|| Ok((self.proc.stat(pid)?, self.proc.ids(pid)?)));
        let (stat, ids) = match reading {
            Err(reason) if is_not_there(&reason) => return Ok(None),
            reading => reading?,
        };
        if is_dead(&stat) {
            return Ok(None);
        }
        let process = Process {
            pid,
            parent: stat.ppid,
            start_time: stat.starttime,
            uid: ids.uid,
            gid: ids.gid,
            argv: hash(cmdline),
            is_manager: argv::is_manager(arguments(cmdline)),
            command: shown(cmdline),
        };
        Ok(Some((process, ids.is_in_other_namespace || ids.is_setuid)))
    }

    /// What is known of a process whose state cannot be read: its user is the owner of its directory.
    fn unreadable(&self, pid: i32, cmdline: &[u8]) -> Option<Process> {
        let directory = self.proc.0.join(pid.to_string());
        Some(Process {
            pid,
            uid: twice(|| std::fs::metadata(&directory)).ok()?.uid(),
            argv: hash(cmdline),
            is_manager: argv::is_manager(arguments(cmdline)),
            command: shown(cmdline),
            ..Process::default()
        })
    }

    /// On which sockets it listens; none where that is not known, unless one of them is at the server's address.
    fn listens(&self, pid: i32) -> Option<Vec<Listener>> {
        let inodes: HashSet<u64> = self.proc.sockets(pid).ok()?.into_iter().collect();
        let all = self.of_users.iter().chain(&self.taking).flatten();
        let held = all.filter(|one| inodes.contains(&one.inode));
        let held: BTreeMap<u64, &Listener> = held.map(|one| (one.inode, one)).collect();
        let held: Vec<Listener> = held.into_values().cloned().collect();
        (self.of_users.is_some() || !held.is_empty()).then_some(held)
    }

    /// No process examined so far holds the socket: looks through the rest, the socket's users first.
    fn find_holder(&mut self, found: &[Candidate], first: &[i32], others: &[i32]) {
        let taking = self.taking.clone().unwrap_or_default();
        let end = Instant::now() + self.others_timeout;
        for one in found.iter().filter(|one| one.listens.is_none()) {
            if Instant::now() > end {
                return;
            }
            let pid = one.process.pid;
            (self.tell)(&SearchMessage::Reading(pid));
            // Where else it listens was listed for the server's users only.
            let inodes = self.proc.sockets(pid).unwrap_or_default();
            let held = taking.iter().filter(|one| inodes.contains(&one.inode));
            let held: Vec<Listener> = held.cloned().collect();
            if !held.is_empty() {
                return (self.tell)(&SearchMessage::Sockets(pid, held));
            }
        }
        let sockets: Vec<(u64, u32)> = taking.iter().map(|one| (one.inode, one.uid)).collect();
        let pids: Vec<i32> = first.iter().chain(others).copied().collect();
        if let Some(process) = self.holder_of(&sockets, &pids, end) {
            (self.tell)(&SearchMessage::Holder(process));
        }
    }

    /// Which of these processes has one of these sockets, by inode and user: the lowest descriptors of each are looked
    /// at first.
    fn holder_of(&mut self, sockets: &[(u64, u32)], pids: &[i32], end: Instant) -> Option<Process> {
        let inodes: Vec<u64> = sockets.iter().map(|(inode, _)| *inode).collect();
        for most in [MOST_DESCRIPTORS, usize::MAX] {
            for pid in pids {
                if Instant::now() > end {
                    return None;
                }
                self.report_reading(*pid);
                let held = self.proc.one_held(*pid, &inodes, most, end).ok().flatten();
                let mut sockets = sockets.iter();
                let held = held.and_then(|held| sockets.find(|(inode, _)| *inode == held));
                if let Some(process) = held.and_then(|(_, uid)| self.holding(*pid, *uid)) {
                    return Some(process);
                }
            }
        }
        None
    }

    /// What is said of a process that has a socket of this user: whoever started a setuid program is that user.
    fn holding(&self, pid: i32, uid: u32) -> Option<Process> {
        let cmdline = self.proc.cmdline(pid, LONGEST_CMDLINE);
        let found = self.any_process(pid, &cmdline.unwrap_or_default());
        let (process, is_hidden) = found.ok().flatten()?;
        let uid = if is_hidden { uid } else { process.uid };
        Some(Process { uid, ..process })
    }
}

/// As much of the arguments as a line of the log has room for.
fn shown(cmdline: &[u8]) -> String {
    let command = joined(cmdline);
    match command.char_indices().nth(LONGEST_LINE) {
        Some((end, _)) => command[..end].to_owned(),
        None => command,
    }
}

fn holds(one: &Candidate, sockets: &[Listener]) -> bool {
    let own = one.listens.as_deref().unwrap_or_default();
    own.iter()
        .any(|held| sockets.iter().any(|socket| socket.inode == held.inode))
}

/// The process that has this PID now.
#[cfg(test)]
pub(crate) fn process(pid: i32) -> Option<Process> {
    let search = Search::default();
    let mut tell = |_: &SearchMessage| ();
    let looker = Looker::new(&search, &[], false, &mut tell);
    let cmdline = looker.proc.cmdline(pid, LONGEST_CMDLINE).ok()?;
    looker.process(pid, &cmdline).ok().flatten()
}

#[cfg(test)]
mod tests;
