//! Whether a server that does not answer may be restarted now: pure functions of the ledger, the time and
//! the verdict. The changes of the ledger are in `transitions`; the run writes it, and does what is ruled.

pub(crate) mod expiry;
mod transitions;

use std::collections::BTreeMap;
use std::time::Duration;

pub(crate) use self::transitions::Note;
use crate::cli::RestartPolicy;
use crate::diagnosis::Kind;
use crate::state::ledger::{Attempt, Hold, Ledger, Restarted};
use crate::state::time::Time;

/// Time from a hold of `useful` to the next try.
const HOLD: Duration = Duration::from_secs(6 * 3600);
/// The time in which `max_restarts` counts.
const HOUR: Duration = Duration::from_secs(3600);
/// Time from the start of a restart to the next one beyond the limit.
const OVER_LIMIT: Duration = Duration::from_secs(5 * 60);
/// Minutes from the start of a failed restart to the next, by the number of those that failed before.
const BACK_OFF: [u64; 6] = [0, 1, 2, 4, 8, 15];
/// A restart that would be due so soon is due: a timer's runs come at different seconds of a minute.
const EARLY: Duration = Duration::from_secs(10);
/// A time further ahead than this was not written by a clock that is right now.
const AHEAD: Duration = Duration::from_secs(5 * 60);

/// What the settings say about restarts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Knobs {
    /// When to restart.
    pub(crate) policy: RestartPolicy,
    /// Restarts in an hour; 0 means neither limit nor back-off.
    pub(crate) max_restarts: u32,
    /// Hash of the restart command. Attempts with another one do not count.
    pub(crate) command: u64,
}

/// How the server is, whatever the URL leads to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Server {
    /// None of its processes runs.
    Gone,
    /// It runs, and does not answer or answers with an error.
    Silent,
    /// It answers at its own address; a proxy in front of it does not.
    Answers,
}

/// A cause that a diagnosis found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Found {
    /// Its kind.
    pub(crate) kind: Kind,
    /// What it names: a culprit, a disk's directory, a status, a certificate's fingerprint; else empty.
    pub(crate) subject: String,
    /// Whether the thread is in state D or waits for a network file system. Implied by
    /// `Kind::Uninterruptible`.
    pub(crate) is_stuck: bool,
}

impl Found {
    /// A cause of a thread that is not stuck.
    pub(crate) fn new(kind: Kind, subject: impl Into<String>) -> Self {
        Self {
            kind,
            subject: subject.into(),
            is_stuck: false,
        }
    }

    /// Its slug with what it names.
    fn why(&self) -> String {
        why(self.kind, &self.subject)
    }
}

/// What a run knows of a server that does not answer.
#[derive(Clone, Debug)]
pub(crate) struct Outage {
    /// The causes, the most specific first.
    pub(crate) causes: Vec<Found>,
    /// How the server is.
    pub(crate) server: Server,
    /// Whether the disk that `Ledger::full_disk` names is still full.
    pub(crate) is_disk_full: bool,
}

/// What may be done.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Ruling {
    /// Stop what runs, and start the server.
    Restart,
    /// The same, unless one more check with doubled timeout is answered.
    RestartAfterCheck,
    /// No restart now. The server can be unwedged.
    Hold(Hold),
    /// No signal at all: no restart, and no unwedging.
    Leave(Hold),
}

/// What `useful` does about a cause.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Row {
    Restart,
    RestartAfterCheck,
    /// A restart cannot help: one try for each thing that the cause names, then one every 6 hours.
    Once,
    /// A restart cannot help, but one is tried every 6 hours.
    Wait,
    /// The server is not what is wrong, or nothing of it may be touched.
    Never,
    /// A signal would end the server when the kernel lets it go, and not before.
    Leave,
}

/// Rules on a restart of a server that does not answer.
pub(crate) fn rule(knobs: Knobs, ledger: &Ledger, now: Time, outage: &Outage) -> Ruling {
    let hold = |until, why: String| Hold {
        until,
        why,
        tried: tried(ledger).cloned().unwrap_or_default(),
    };
    if outage.server == Server::Answers {
        let mut causes = outage.causes.iter();
        let proxy = causes.find(|found| found.kind == Kind::Proxy);
        return Ruling::Leave(hold(None, proxy.map_or_else(proxy_slug, Found::why)));
    }
    let row = match knobs.policy {
        RestartPolicy::Never => return Ruling::Hold(hold(None, "policy".to_owned())),
        RestartPolicy::Always => Row::Restart,
        RestartPolicy::Useful => {
            let mut causes = outage.causes.iter();
            let is_gone = outage.server == Server::Gone;
            let stuck = causes.find(|found| row_of(found, Server::Silent) == Row::Leave);
            if let Some(stuck) = stuck.filter(|_| !is_gone) {
                return Ruling::Leave(hold(None, stuck.why()));
            }
            let decisive = decisive(ledger, outage);
            let row = row_of(&decisive, outage.server);
            let next = match row {
                Row::Once => tried_at(knobs, ledger, &decisive).map(|at| at.after(HOLD)),
                Row::Wait => Some(waits_until(ledger, now, &decisive)),
                Row::Never => return Ruling::Hold(hold(None, decisive.why())),
                Row::Restart | Row::RestartAfterCheck | Row::Leave => None,
            };
            if let Some(until) = next.filter(|until| !is_due(*until, now)) {
                return Ruling::Hold(hold(Some(until), decisive.why()));
            }
            row
        }
    };
    match delay(knobs, ledger, now).filter(|(until, _)| !is_due(*until, now)) {
        Some((until, why)) => Ruling::Hold(hold(Some(until), why.to_owned())),
        None if row == Row::RestartAfterCheck => Ruling::RestartAfterCheck,
        None => Ruling::Restart,
    }
}

/// Whether a time of the ledger is so far ahead that the clock was wrong when it was written, or is now.
pub(crate) fn is_absurd(ledger: &Ledger, now: Time) -> bool {
    let past = ledger.restarts.iter().map(|attempt| attempt.at);
    let past = past.chain(ledger.since).chain(ledger.flapping);
    let until = ledger.hold.as_ref().and_then(|hold| hold.until);
    past.max() > Some(now.after(AHEAD)) || until > Some(now.after(HOLD).after(AHEAD))
}

/// What `useful` does about this cause.
fn row_of(found: &Found, server: Server) -> Row {
    let is_gone = server == Server::Gone;
    match found.kind {
        Kind::Uninterruptible if !is_gone => Row::Leave,
        _ if found.is_stuck && !is_gone => Row::Leave,
        Kind::Memory | Kind::Overload if !is_gone => Row::RestartAfterCheck,
        Kind::Certificate | Kind::DiskFull | Kind::Scheme | Kind::RedirectLoop => Row::Once,
        Kind::HttpStatus if is_client_error(&found.subject) => Row::Once,
        Kind::NotMyvnc | Kind::PortTaken if !is_gone => Row::Wait,
        Kind::NotMyvnc | Kind::PortTaken | Kind::Elsewhere => Row::Never,
        Kind::Dns | Kind::LocalFailure if !is_gone => Row::Never,
        Kind::NotRunning
        | Kind::Oom
        | Kind::IdleClient
        | Kind::IdleTlsClient
        | Kind::SlowReader
        | Kind::Child
        | Kind::Peer
        | Kind::File
        | Kind::Uninterruptible
        | Kind::Stopped
        | Kind::Traced
        | Kind::Spinning
        | Kind::Deadlock
        | Kind::Unremarkable
        | Kind::Descriptors
        | Kind::Threads
        | Kind::Memory
        | Kind::Swapped
        | Kind::AcceptQueue
        | Kind::Misplaced
        | Kind::Dns
        | Kind::Proxy
        | Kind::HttpStatus
        | Kind::Overload
        | Kind::LocalFailure
        | Kind::Unknown => Row::Restart,
    }
}

/// Whether a status says that the request is wrong.
fn is_client_error(status: &str) -> bool {
    let status = status.parse::<u16>();
    status.is_ok_and(|status| (400..500).contains(&status))
}

/// The cause that decides: the first one. If that only says that the server does not answer, it is a full disk for
/// which a restart was tried, as long as it is full: a server that was started may die of it at once. Else a full
/// disk or a machine short of memory or CPUs among the others decides.
fn decisive(ledger: &Ledger, outage: &Outage) -> Found {
    let unknown = Found::new(Kind::Unknown, "");
    let first = outage.causes.first().unwrap_or(&unknown);
    let says_little = matches!(
        first.kind,
        Kind::NotRunning | Kind::Misplaced | Kind::AcceptQueue | Kind::Unremarkable | Kind::Unknown
    );
    let tried = ledger.full_disk().filter(|_| outage.is_disk_full);
    if let Some(directory) = tried.filter(|_| says_little || first.kind == Kind::DiskFull) {
        return Found::new(Kind::DiskFull, directory);
    }
    let says_why = |found: &&Found| {
        let kind = found.kind;
        matches!(kind, Kind::DiskFull | Kind::Memory | Kind::Overload)
    };
    let mut others = outage.causes.iter().filter(|_| says_little);
    others.find(says_why).unwrap_or(first).clone()
}

/// When a restart was last tried for what this cause names; none where it was not, or with another command.
fn tried_at(knobs: Knobs, ledger: &Ledger, found: &Found) -> Option<Time> {
    let slug = found.kind.slug();
    tried(ledger)?
        .get(slug)
        .filter(|subject| **subject == found.subject)?;
    let mut attempts = counted(ledger, knobs.command).rev();
    let attempt = attempts.find(|attempt| attempt.cause == slug)?;
    Some(attempt.at)
}

/// End of the hold for a cause of `Row::Wait`.
fn waits_until(ledger: &Ledger, now: Time, found: &Found) -> Time {
    let hold = ledger.held().filter(|hold| hold.why == found.why());
    hold.and_then(|hold| hold.until)
        .unwrap_or_else(|| now.after(HOLD))
}

/// Until when the next restart waits because of those before, and why.
fn delay(knobs: Knobs, ledger: &Ledger, now: Time) -> Option<(Time, &'static str)> {
    if knobs.max_restarts == 0 {
        return None;
    }
    let attempts = || counted(ledger, knobs.command);
    let is_failed = |attempt: &&Attempt| attempt.outcome == Restarted::Failed;
    let failed = attempts().filter(is_failed);
    let back_off = failed.clone().next_back().map(|last| {
        let place = failed.count().min(BACK_OFF.len()) - 1;
        let wait = Duration::from_secs(60 * BACK_OFF[place]);
        (last.at.after(wait), "failed")
    });
    let is_recent = |attempt: &&Attempt| attempt.at.after(HOUR) > now;
    let recent = attempts().filter(is_recent).count();
    let limited = usize::try_from(knobs.max_restarts).is_ok_and(|most| recent >= most);
    let last = attempts().next_back().filter(|_| limited);
    let limit = last.map(|last| (last.at.after(OVER_LIMIT), "limit"));
    back_off.into_iter().chain(limit).max_by_key(|wait| wait.0)
}

/// The attempts that count, the oldest first.
fn counted(ledger: &Ledger, command: u64) -> impl DoubleEndedIterator<Item = &Attempt> + Clone {
    let counts = move |attempt: &&Attempt| !attempt.settled && attempt.command == command;
    ledger.restarts.iter().filter(counts)
}

/// What restarts were tried for.
fn tried(ledger: &Ledger) -> Option<&BTreeMap<String, String>> {
    ledger.hold.as_ref().map(|hold| &hold.tried)
}

fn is_due(until: Time, now: Time) -> bool {
    now.after(EARLY) >= until
}

fn why(kind: Kind, subject: &str) -> String {
    match subject {
        "" => kind.slug().to_owned(),
        subject => format!("{} {subject}", kind.slug()),
    }
}

fn proxy_slug() -> String {
    Kind::Proxy.slug().to_owned()
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
