//! The part of a run that heals the server without a restart: it ends the connection or the child that
//! blocks it, and asks the server again, until it answers or a limit is reached.

use std::fmt;
use std::time::Duration;

use nix::libc;
use tokio::time::Instant;

use super::Run;
use crate::diagnosis::{self, Blocker, Child, Finding, Kind, Seen};
use crate::health::Verdict;
use crate::proc::process::Proc;
use crate::proc::sock_diag::{self, Connection};
use crate::recovery::{Event, Phase, RulingKind};
use crate::server::process::Process;
use crate::server::stop;
use crate::server::unwedge::{self, Acts, Descendant, Refusal};
use crate::state::time::Time;
use crate::text::errno_text;

/// Time from one look at what blocks the server to the next.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Time for the check to join the clients that wait, before the first of them is dealt with; and for the server
/// to go on to the next one.
const HEAD_START: Duration = Duration::from_millis(20);
/// Length of a chain of parents, at most.
const LONGEST_ANCESTRY: usize = 64;

/// What blocks the server and may be ended.
enum Target {
    Client { kind: Kind, connection: Connection },
    Child { child: Child, age: Duration },
}

/// Why the server was not healed.
enum Failure {
    /// What blocks it may not be ended.
    Refused(Refusal),
    /// The kernel did not allow it, for this reason.
    NotAllowed(String),
    /// The limit of an hour is reached.
    TooMany,
    /// It does not answer, after so many acts.
    NoAnswer(usize),
    /// It is another process by now.
    OtherProcess,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => write!(f, "{refusal}"),
            Self::NotAllowed(reason) => f.write_str(reason),
            Self::TooMany => f.write_str("this was done 30 times in the last hour"),
            Self::NoAnswer(0) => f.write_str("what blocked it is gone, and it does not answer"),
            Self::NoAnswer(1) => {
                f.write_str("it does not answer, although what blocked it was ended")
            }
            Self::NoAnswer(acts) => {
                write!(
                    f,
                    "it does not answer, although what blocked it was ended {acts} times"
                )
            }
            Self::OtherProcess => f.write_str("it is another process by now"),
        }
    }
}

/// What was done to heal the server without a restart, and what was seen meanwhile.
#[derive(Default)]
struct Unwedging {
    acts: Acts,
    /// What was seen to block the server at the look before.
    before: Vec<Blocker>,
    /// Children that were sent SIGTERM, as (PID, start time).
    signalled: Vec<(i32, u64)>,
    /// Whether the server has answered since the first act.
    has_answered: bool,
    /// Clients whose connections were destroyed.
    destroyed: Vec<String>,
    /// Why the last look led to no act.
    refusal: Option<Refusal>,
}

impl Run<'_> {
    /// Ends what blocks the server, and asks it.
    pub(super) async fn unwedge(&mut self, phase: Phase) -> Event {
        let Some(limit) = self.settings.unwedge_for else {
            return Event::NotUnwedged;
        };
        let ledger = &mut self.state.state.ledger;
        let healed = if ledger.allows_unwedging(Time::now()) {
            let mut unwedging = Unwedging {
                before: self.blockers(),
                ..Unwedging::default()
            };
            // Before the first act, for the run can be killed.
            self.state.state.ledger.treat();
            self.state.save_changes().await;
            let healed = self.heal(phase, limit, &mut unwedging).await;
            if unwedging.acts.count() > 0 {
                self.has_unwedged = true;
                let ledger = &mut self.state.state.ledger;
                ledger.note_unwedging(Time::now());
                ledger.note_destroyed(Time::now(), unwedging.destroyed);
            }
            healed
        } else {
            Err(Failure::TooMany)
        };
        let failure = match healed {
            Ok(event) => return event,
            Err(failure) => failure,
        };
        let then = match phase {
            Phase::Unwedging(RulingKind::Hold) => "the restart is held off",
            _ => "it is restarted",
        };
        self.journal.warning(&format!(
            "The server cannot be healed without a restart: {failure}; {then}"
        ));
        Event::NotUnwedged
    }

    async fn heal(
        &mut self,
        phase: Phase,
        limit: Duration,
        unwedging: &mut Unwedging,
    ) -> Result<Event, Failure> {
        let began = Instant::now();
        let deadline = began + limit;
        let _progress = self.progress("the server to answer without a restart", limit);
        let server = self.blocked_process();
        loop {
            let asked = self.ask_pending(phase, began, deadline, unwedging).await?;
            let is_same = server
                .as_ref()
                .is_some_and(|server| Proc::here().is_alive(server.pid, server.start_time));
            match asked {
                CheckEnd::Interrupted => return Ok(Event::Interrupted),
                CheckEnd::Answers if !is_same => return Err(Failure::OtherProcess),
                CheckEnd::Answers => {
                    unwedging.has_answered = true;
                    tokio::time::sleep(LOOK_INTERVAL).await;
                    self.look(unwedging).await;
                    if !unwedging.is_blocked_by_clients() {
                        break;
                    }
                }
                // It has answered: what blocks it now are clients that come back.
                CheckEnd::Late if unwedging.has_answered && is_same => {
                    self.journal.warning(&format!(
                        "Clients keep blocking the server: {} connections were destroyed in {} s; a proxy in front of the \
                         server keeps them away from it",
                        unwedging.acts.count(),
                        limit.as_secs()
                    ));
                    break;
                }
                CheckEnd::Late => {
                    let acts = unwedging.acts.count();
                    let refusal = unwedging.refusal.clone().filter(|_| acts == 0);
                    return Err(refusal.map_or(Failure::NoAnswer(acts), Failure::Refused));
                }
            }
        }
        let pid = server.map(|server| server.pid.to_string());
        self.journal.info(&format!(
            "Server is now responsive, not restarted (PID {})",
            pid.unwrap_or_default()
        ));
        Ok(Event::Unwedged)
    }

    /// Asks the server until `deadline`, and looks meanwhile what blocks it; what may be ended is ended.
    async fn ask_pending(
        &mut self,
        phase: Phase,
        began: Instant,
        deadline: Instant,
        unwedging: &mut Unwedging,
    ) -> Result<CheckEnd, Failure> {
        let itself = self.own_address();
        let timeout = self.settings.timeout;
        let mut wait = HEAD_START;
        loop {
            let checker = &self.checker;
            let left = deadline.saturating_duration_since(Instant::now());
            let limit = timeout.min(left);
            let mut asking = Box::pin(async move {
                match itself {
                    Some(address) => checker.ask(address, limit).await,
                    None => checker.check(limit).await,
                }
            });
            let verdict = loop {
                let next =
                    deadline.min(Instant::now() + std::mem::replace(&mut wait, LOOK_INTERVAL));
                tokio::select! {
                    biased;
                    name = self.signals.next() => {
                        drop(asking);
                        self.on_signal(phase, name);
                        return Ok(CheckEnd::Interrupted);
                    }
                    verdict = &mut asking => break verdict,
                    () = tokio::time::sleep_until(next) => (),
                }
                if Instant::now() >= deadline {
                    return Ok(CheckEnd::Late);
                }
                if self.look_and_act(began, deadline, unwedging).await? {
                    wait = HEAD_START;
                }
            };
            drop(asking);
            let is_healthy = matches!(verdict, Verdict::Healthy { .. });
            if is_healthy || !unwedging.has_answered {
                self.verdict = Some(verdict);
            }
            if is_healthy {
                return Ok(CheckEnd::Answers);
            }
            tokio::time::sleep(LOOK_INTERVAL.min(left)).await;
        }
    }

    /// Looks what blocks the server, and ends what may be ended. Returns whether anything was.
    async fn look_and_act(
        &self,
        began: Instant,
        deadline: Instant,
        unwedging: &mut Unwedging,
    ) -> Result<bool, Failure> {
        let before = unwedging.before.clone();
        let findings = self.look(unwedging).await;
        unwedging.refusal = None;
        let before_acts = unwedging.acts.count();
        for finding in &findings {
            let Some(blocker) = &finding.blocker else {
                continue;
            };
            let at = began.elapsed();
            let was_seen = before.contains(blocker);
            let is_client = matches!(blocker, Blocker::Client { .. });
            if !(was_seen || is_client) || !unwedging.acts.allows(at) {
                continue;
            }
            let needed = unwedging.acts.needed(self.settings.timeout, was_seen);
            match self.target(finding.kind, blocker, needed, &unwedging.signalled) {
                Ok(target) => {
                    if self.end(&target).map_err(Failure::NotAllowed)? {
                        unwedging.acts.note(at);
                        match target {
                            Target::Child { child, .. } => {
                                unwedging.signalled.push((child.pid, child.start_time));
                            }
                            Target::Client { connection, .. } => {
                                unwedging.destroyed.push(connection.peer.ip().to_string());
                            }
                        }
                    }
                }
                Err(refusal) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if unwedging.acts.count() == 0
                        && refusal.passes().is_none_or(|passes| passes > left)
                    {
                        return Err(Failure::Refused(refusal));
                    }
                    unwedging.refusal = Some(refusal);
                }
            }
        }
        Ok(unwedging.acts.count() > before_acts)
    }

    /// Looks what blocks the server.
    async fn look(&self, unwedging: &mut Unwedging) -> Vec<Finding> {
        let findings = diagnosis::look(&self.question(Seen::Silent)).await;
        let blockers = findings.iter().filter_map(|one| one.blocker.clone());
        unwedging.before = blockers.collect();
        findings
    }

    /// What may be ended of what blocks the server.
    fn target(
        &self,
        kind: Kind,
        blocker: &Blocker,
        needed: Duration,
        signalled: &[(i32, u64)],
    ) -> Result<Target, Refusal> {
        let proc = Proc::here();
        match blocker {
            Blocker::Client {
                pid,
                inode,
                local,
                peer,
            } => {
                let own = i32::try_from(std::process::id()).unwrap_or_default();
                let networks = proc.network(*pid).ok().zip(proc.network(own).ok());
                let is_same_network = networks.is_some_and(|(theirs, ours)| theirs == ours);
                let connection = sock_diag::connection(*local, *peer).ok().flatten();
                let listener = self.selection.as_ref().and_then(|one| one.address);
                let listener = listener.ok_or(Refusal::OtherEnd { local: *local })?;
                let connection = connection.as_ref();
                let allowed =
                    unwedge::may_destroy(connection, *inode, listener, is_same_network, needed)?;
                Ok(Target::Client {
                    kind,
                    connection: allowed.clone(),
                })
            }
            Blocker::Child { pid, chain } => {
                let server = self.server_process(*pid).ok_or(Refusal::NotDescendant)?;
                let described: Vec<Descendant> = chain
                    .iter()
                    .map(|child| describe(child, server, signalled))
                    .collect();
                // The server has waited for it for so long, whatever was ended before.
                let needed = needed.max(self.settings.timeout);
                let number = unwedge::may_end(&described, server.uid, needed)?;
                let (child, seen) = chain
                    .get(number)
                    .zip(described.get(number))
                    .ok_or(Refusal::Ended)?;
                Ok(Target::Child {
                    child: child.clone(),
                    age: seen.age,
                })
            }
        }
    }

    /// Ends it; `false` where it was gone already.
    fn end(&self, target: &Target) -> Result<bool, String> {
        match target {
            Target::Client { connection, .. } => match sock_diag::destroy(connection) {
                Ok(false) => return Ok(false),
                Ok(true) => (),
                Err(reason) => {
                    let hint = match reason.raw_os_error() {
                        Some(libc::EPERM) => " (CAP_NET_ADMIN is needed)",
                        Some(libc::EOPNOTSUPP) => " (this kernel has no CONFIG_INET_DIAG_DESTROY)",
                        _ => "",
                    };
                    return Err(format!(
                        "cannot destroy the connection of {}: {}{hint}",
                        connection.peer,
                        errno_text(&reason)
                    ));
                }
            },
            Target::Child { child, .. } => match stop::end_child(child.pid, child.start_time) {
                Ok(false) => return Ok(false),
                Ok(true) => (),
                Err(reason) => {
                    return Err(format!(
                        "cannot send SIGTERM to {} (PID {}): {}",
                        child.name,
                        child.pid,
                        errno_text(&reason)
                    ));
                }
            },
        }
        self.journal.info(&target.done());
        Ok(true)
    }

    /// Says what a run without --dry-run would end first.
    pub(super) fn say_what_would_be_ended(&self) {
        if self.settings.unwedge_for.is_none() {
            return;
        }
        let blocking = self.blocking.iter();
        let mut targets = blocking.filter_map(|finding| {
            let blocker = finding.blocker.as_ref()?;
            Some(self.target(finding.kind, blocker, self.settings.timeout, &[]))
        });
        match targets.next() {
            Some(Ok(target)) => self.journal.info(&format!(
                "{}; if the server then answers, nothing else would be done",
                target.wanted()
            )),
            Some(Err(refusal)) => self
                .journal
                .info(&format!("Would not unwedge the server: {refusal}")),
            None => (),
        }
    }

    fn blockers(&self) -> Vec<Blocker> {
        let blocking = self.blocking.iter();
        blocking.filter_map(|one| one.blocker.clone()).collect()
    }

    /// The server's process that the diagnosis saw blocked.
    fn blocked_process(&self) -> Option<Process> {
        let pid = match self.blockers().first()? {
            Blocker::Client { pid, .. } | Blocker::Child { pid, .. } => *pid,
        };
        self.server_process(pid).cloned()
    }

    fn server_process(&self, pid: i32) -> Option<&Process> {
        let selection = self.selection.as_ref()?;
        selection.server.iter().find(|one| one.pid == pid)
    }
}

/// How asking ended.
enum CheckEnd {
    Answers,
    /// It has not answered in its time.
    Late,
    Interrupted,
}

impl Unwedging {
    fn is_blocked_by_clients(&self) -> bool {
        let mut before = self.before.iter();
        !self.before.is_empty() && before.all(|one| matches!(one, Blocker::Client { .. }))
    }
}

impl Target {
    /// What was done to it.
    fn done(&self) -> String {
        match self {
            Self::Client { .. } => format!("Unwedged: destroyed the connection of {self}"),
            Self::Child { .. } => format!("Unwedged: ended the stuck child {self}"),
        }
    }

    /// What would be done to it.
    fn wanted(&self) -> String {
        match self {
            Self::Client { .. } => format!("Would first destroy the connection of {self}"),
            Self::Child { .. } => format!("Would first end the stuck child {self}"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client { kind, connection } => {
                let (peer, still) = (connection.peer, connection.still().as_secs());
                match kind {
                    Kind::SlowReader => {
                        write!(f, "client {peer}, which has not read for {still} s")
                    }
                    _ => write!(f, "idle client {peer}, silent for {still} s"),
                }
            }
            Self::Child { child, age } => write!(
                f,
                "{} (PID {}), running for {} s",
                child.name,
                child.pid,
                age.as_secs()
            ),
        }
    }
}

fn describe(child: &Child, server: &Process, signalled: &[(i32, u64)]) -> Descendant {
    let proc = Proc::here();
    let is_alive = proc.is_alive(child.pid, child.start_time);
    let ids = proc.ids(child.pid).ok().filter(|_| is_alive);
    Descendant {
        uid: ids.as_ref().map(|ids| ids.uid),
        is_setuid: ids.is_some_and(|ids| ids.is_setuid),
        descends: descends(child.pid, server.pid),
        age: proc.age(child.pid).unwrap_or_default(),
        is_signalled: signalled.contains(&(child.pid, child.start_time)),
    }
}

fn descends(pid: i32, ancestor: i32) -> bool {
    let mut pid = pid;
    for _ in 0..LONGEST_ANCESTRY {
        match Proc::here().stat(pid) {
            Ok(stat) if stat.ppid == ancestor => return true,
            Ok(stat) if stat.ppid > 1 => pid = stat.ppid,
            _ => return false,
        }
    }
    false
}
