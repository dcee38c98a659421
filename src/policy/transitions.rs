//! How the ledger changes: each method is something that a run saw or did.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{HOUR, Knobs, Outage, Row, counted, decisive, row_of};
use crate::cli::RestartPolicy;
use crate::diagnosis::Kind;
use crate::notice::Notice;
use crate::state::ledger::{Attempt, Condition, Destroyed, Down, Hold, Ledger, Restarted};
use crate::state::time::Time;

/// Unwedgings in an hour, at most.
pub(crate) const MOST_UNWEDGINGS: usize = 30;
/// A restart has lasted when the server has answered for this time; those before no longer count then.
const LASTING: Duration = Duration::from_secs(10 * 60);
/// After answers for this time a server flaps no longer.
const STABLE: Duration = Duration::from_secs(30 * 60);
/// Restarts that worked within an hour from which on a server flaps.
const FLAPPING: usize = 3;
/// Attempts that are kept: with 200 bytes each, most of what is read of a state file.
const MOST_ATTEMPTS: usize = 100;

/// When an outage that goes on is announced again, in hours since it was announced.
const REMINDERS: [u64; 7] = [1, 4, 28, 52, 76, 100, 124];
/// A client whose connections were destroyed so often within an hour is named.
const RECURRENT: usize = 3;
/// Destroyed connections that are kept.
const MOST_DESTROYED: usize = 30;
/// Length limit of what a restart is blamed on, in characters.
const LONGEST_BLAME: usize = 60;
/// Things to blame that are counted apart.
const MOST_BLAMED: usize = 20;
/// What stands for the others.
const OTHERS: &str = "other causes";

/// What a check shows beyond its answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Note {
    /// The server answered for 10 minutes after the restart of this incident.
    Lasted {
        /// The incident.
        id: String,
    },
    /// It did not.
    FellAgain {
        /// The incident.
        id: String,
    },
    /// It answers again, and this run has done nothing for it.
    Recovered {
        /// The outage.
        down: Down,
        /// How long it was away.
        away: Duration,
    },
    /// It no longer flaps.
    Stable {
        /// Restarts while it did, by what they were blamed on.
        blamed: BTreeMap<String, u32>,
    },
}

/// How it ended when something was done for the server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Ended {
    /// How long the server was away; none where it still is.
    pub(crate) away: Option<Duration>,
    /// What is to be announced. Nothing of restarts that work while the server flaps.
    pub(crate) notices: Vec<Notice>,
}

/// Whether that was within the last hour.
fn is_recent(at: Time, now: Time) -> bool {
    at.after(HOUR) > now
}

impl Ledger {
    /// Whether an answer changes something that is told or written down.
    pub(crate) fn changes_with_answer(&self, now: Time) -> bool {
        let is_quiet =
            self.phase == Condition::Up && self.restarts.is_empty() && self.flapping.is_none();
        self.planned.is_some() || !is_quiet && !self.clone().answered(now).is_empty()
    }

    /// A check was answered. Most healthy runs change nothing.
    pub(crate) fn answered(&mut self, now: Time) -> Vec<Note> {
        let mut notes = Vec::new();
        if self.phase != Condition::Up {
            let (down, away) = self.comes_back(now);
            notes.push(Note::Recovered { down, away });
        }
        let since = *self.since.get_or_insert(now);
        let answered = since.before(now).unwrap_or_default();
        if answered >= LASTING {
            if let Some(last) = self.restarts.last_mut().filter(|last| is_open(last)) {
                last.lasted = Some(true);
                notes.push(Note::Lasted {
                    id: last.id.clone(),
                });
            }
            self.settle();
        }
        if answered >= STABLE && self.flapping.take().is_some() {
            notes.push(Note::Stable {
                blamed: std::mem::take(&mut self.blamed),
            });
        }
        notes
    }

    /// A check failed. `since`: the last answer, or the first check that failed; it counts where an outage
    /// begins. `down`: what this run found. Where an outage goes on, it replaces what earlier runs found.
    pub(crate) fn fell(&mut self, now: Time, since: Time, down: Down) -> Option<Note> {
        if self.phase != Condition::Up {
            let known = self.down.get_or_insert_default();
            *known = Down {
                id: std::mem::take(&mut known.id),
                announced: known.announced.take(),
                held: known.held.take(),
                announced_at: known.announced_at,
                reminders: known.reminders,
                treated: known.treated,
                was_up: known.was_up,
                planned_s: known.planned_s,
                counted: known.counted,
                ..down
            };
            return None;
        }
        let up = self.since.unwrap_or(since);
        let since = since.max(up).min(now);
        let incidents = &mut self.totals.incidents;
        *incidents.entry(down.cause.clone()).or_default() += 1;
        self.phase = Condition::Down;
        self.down = Some(Down {
            was_up: self.since.is_some(),
            ..down
        });
        self.since = Some(since);
        let last = self.restarts.last_mut().filter(|last| is_open(last))?;
        let has_lasted = up.before(since).unwrap_or_default() >= LASTING;
        last.lasted = Some(has_lasted);
        (!has_lasted).then(|| Note::FellAgain {
            id: last.id.clone(),
        })
    }

    /// A restart for the incident `id` begins. To be written before the first signal: a run that is killed
    /// midway has failed.
    pub(crate) fn begin(&mut self, knobs: Knobs, now: Time, outage: &Outage, id: &str) {
        let found = decisive(self, outage);
        let is_useful = knobs.policy == RestartPolicy::Useful;
        let is_once = is_useful && row_of(&found, outage.server) == Row::Once;
        let mut tried = self.hold.take().unwrap_or_default().tried;
        let cause = found.kind.slug().to_owned();
        if is_once {
            tried.insert(cause.clone(), found.subject);
        }
        self.keep_tried(tried);
        self.phase = Condition::Down;
        self.treat();
        let blame = self.down.as_ref().map(blame).unwrap_or_default();
        self.restarts.push(Attempt {
            at: now,
            outcome: Restarted::Failed,
            lasted: None,
            id: id.to_owned(),
            command: knobs.command,
            cause,
            blame,
            settled: false,
        });
        self.totals.restarts.failed += 1;
        self.prune(now);
    }

    /// The restart that began last ended so.
    pub(crate) fn ended(&mut self, now: Time, outcome: Restarted) -> Ended {
        if outcome == Restarted::Failed {
            return Ended {
                away: None,
                notices: self.untouched(now).into_iter().collect(),
            };
        }
        if let Some(last) = self.restarts.last_mut() {
            last.outcome = outcome;
        }
        let restarts = &mut self.totals.restarts;
        restarts.failed = restarts.failed.saturating_sub(1);
        restarts.answered += 1;
        let was_flapping = self.flapping.is_some();
        if was_flapping {
            self.count_last();
        } else if self.recently_answered() >= FLAPPING {
            self.flapping = Some(now);
            self.count_recent();
        }
        let (down, away) = self.comes_back(now);
        let was_announced = down.announced.is_some();
        let mut notices = Vec::new();
        if was_announced {
            notices.push(Notice::Recovered);
        }
        match self.flapping {
            Some(_) if was_flapping => (),
            Some(_) => notices.push(Notice::Flapping),
            None if was_announced => (),
            None => notices.push(Notice::Restarted),
        }
        Ended {
            away: Some(away),
            notices,
        }
    }

    /// Whether the server may be unwedged: not more than 30 times in an hour.
    pub(crate) fn allows_unwedging(&self, now: Time) -> bool {
        let recent = self.unwedged.iter().filter(|at| is_recent(**at, now));
        recent.count() < MOST_UNWEDGINGS
    }

    /// Something is about to be done for the server. To be written before, as for `begin`.
    pub(crate) fn treat(&mut self) {
        self.down.get_or_insert_default().treated = true;
    }

    /// Notes that connections of these clients were destroyed.
    pub(crate) fn note_destroyed(&mut self, now: Time, clients: Vec<String>) {
        self.destroyed.retain(|one| is_recent(one.at, now));
        let new = clients
            .into_iter()
            .map(|client| Destroyed { at: now, client });
        self.destroyed.extend(new);
        let surplus = self.destroyed.len().saturating_sub(MOST_DESTROYED);
        self.destroyed.drain(..surplus);
    }

    /// The clients that came back: their connections were destroyed at least three times within the last hour, and
    /// how often.
    pub(crate) fn recurrent(&self, now: Time) -> BTreeMap<String, usize> {
        let mut clients = BTreeMap::new();
        for one in self.destroyed.iter().filter(|one| is_recent(one.at, now)) {
            *clients.entry(one.client.clone()).or_default() += 1;
        }
        clients.retain(|_, times| *times >= RECURRENT);
        clients
    }

    /// Notes that it is unwedged now, or that this is tried.
    pub(crate) fn note_unwedging(&mut self, now: Time) {
        self.unwedged.retain(|at| is_recent(*at, now));
        self.unwedged.push(now);
    }

    /// The server was healed without a restart.
    pub(crate) fn unwedged(&mut self, now: Time) -> Ended {
        self.totals.unwedged += 1;
        let (down, away) = self.comes_back(now);
        let notice = match down.announced {
            Some(_) => Notice::Recovered,
            None => Notice::Unwedged,
        };
        Ended {
            away: Some(away),
            notices: vec![notice],
        }
    }

    /// A restart is withheld. Announced once for each cause; because of earlier restarts, only where the
    /// outage was not announced yet.
    pub(crate) fn hold(&mut self, now: Time, hold: Hold) -> Option<Notice> {
        let down = self.down.get_or_insert_default();
        let is_news = if is_of_restarts(&hold.why) {
            down.announced.is_none()
        } else {
            down.held.as_ref() != Some(&hold.why)
        };
        if is_news {
            announce(down, now, Notice::Held);
            down.held = Some(hold.why.clone());
        }
        self.phase = Condition::Held;
        self.hold = Some(hold);
        is_news.then_some(Notice::Held)
    }

    /// Nothing could be touched. Announced once, and not after a hold because of the cause.
    pub(crate) fn untouched(&mut self, now: Time) -> Option<Notice> {
        self.phase = Condition::Failed;
        let down = self.down.get_or_insert_default();
        let is_news = match down.announced.as_deref() {
            None => true,
            Some("held") => down.held.as_deref().is_some_and(is_of_restarts),
            Some(_) => false,
        };
        if is_news {
            announce(down, now, Notice::Failed);
        }
        is_news.then_some(Notice::Failed)
    }

    /// The outage goes on, and nothing new was announced. Of several reminders that are due, one is sent; none where
    /// a pause has just ended.
    pub(crate) fn remind(&mut self, now: Time, is_after_pause: bool) -> Option<Notice> {
        let down = self.down.as_mut().filter(|down| down.announced.is_some())?;
        // An older version has not written it down.
        let announced = *down.announced_at.get_or_insert(now);
        let hours = announced.before(now).unwrap_or_default().as_secs() / 3600;
        let due = REMINDERS.iter().filter(|after| **after <= hours).count();
        let due = u32::try_from(due).unwrap_or_default();
        let is_due = due > down.reminders;
        down.reminders = down.reminders.max(due);
        (is_due && !is_after_pause).then_some(Notice::Reminder)
    }

    /// `resume`, or a reboot: earlier restarts no longer count.
    pub(crate) fn clear(&mut self) {
        self.settle();
        if self.phase == Condition::Held {
            self.phase = Condition::Down;
        }
    }

    /// Why the next restart waits, while it does.
    pub(crate) fn held(&self) -> Option<&Hold> {
        let hold = self.hold.as_ref();
        hold.filter(|_| self.phase == Condition::Held)
    }

    /// The directory of the full disk that a restart was tried for.
    pub(crate) fn full_disk(&self) -> Option<&str> {
        let tried = &self.hold.as_ref()?.tried;
        tried.get(Kind::DiskFull.slug()).map(String::as_str)
    }

    /// Number of restarts that failed and still count.
    pub(crate) fn failures(&self, command: u64) -> usize {
        let is_failed = |attempt: &&Attempt| attempt.outcome == Restarted::Failed;
        counted(self, command).filter(is_failed).count()
    }

    /// It answers: ends the outage. A certificate or a status that a restart was tried for has changed; a
    /// disk can be full still.
    fn comes_back(&mut self, now: Time) -> (Down, Duration) {
        let since = self.since.replace(now).unwrap_or(now);
        let away = since.before(now).unwrap_or_default();
        let down = self.down.take().unwrap_or_default();
        self.totals.away_s += away.as_secs().saturating_sub(down.planned_s);
        self.phase = Condition::Up;
        let mut tried = self.hold.take().unwrap_or_default().tried;
        tried.retain(|slug, _| slug == Kind::DiskFull.slug());
        self.keep_tried(tried);
        (down, away)
    }

    /// Counts the last restart, which worked.
    fn count_last(&mut self) {
        let last = self.restarts.last();
        let last = last.map(|last| last.blame.clone());
        self.count(last);
    }

    /// Counts the restarts that worked in the hour before the last one.
    fn count_recent(&mut self) {
        let recent: Vec<String> = self.recent().map(|one| one.blame.clone()).collect();
        self.blamed.clear();
        self.count(recent);
    }

    fn count(&mut self, blames: impl IntoIterator<Item = String>) {
        for blame in blames {
            let is_full = self.blamed.len() >= MOST_BLAMED && !self.blamed.contains_key(&blame);
            let blame = if is_full { OTHERS.to_owned() } else { blame };
            *self.blamed.entry(blame).or_default() += 1;
        }
    }

    fn keep_tried(&mut self, tried: BTreeMap<String, String>) {
        self.hold = (!tried.is_empty()).then(|| Hold {
            tried,
            ..Hold::default()
        });
    }

    fn settle(&mut self) {
        self.hold = None;
        for attempt in &mut self.restarts {
            attempt.settled = true;
        }
    }

    fn recently_answered(&self) -> usize {
        self.recent().count()
    }

    /// Restarts that worked in the hour before the last one, with that.
    fn recent(&self) -> impl Iterator<Item = &Attempt> {
        let last = self.restarts.last().map(|last| last.at);
        self.restarts.iter().filter(move |attempt| {
            attempt.outcome == Restarted::Answered && Some(attempt.at.after(HOUR)) > last
        })
    }

    /// Forgets attempts of which nothing depends any more.
    fn prune(&mut self, now: Time) {
        let is_needed = |attempt: &Attempt| !attempt.settled || attempt.at.after(HOUR) > now;
        self.restarts.retain(is_needed);
        let surplus = self.restarts.len().saturating_sub(MOST_ATTEMPTS);
        self.restarts.drain(..surplus);
    }
}

/// Whether it is open if the server answers for long after this restart.
fn is_open(attempt: &Attempt) -> bool {
    attempt.outcome == Restarted::Answered && attempt.lasted.is_none()
}

/// Whether a hold's reason is that there were restarts before.
fn is_of_restarts(why: &str) -> bool {
    matches!(why, "failed" | "limit")
}

fn announce(down: &mut Down, now: Time, notice: Notice) {
    down.announced = Some(notice.slug().to_owned());
    down.announced_at = Some(now);
    down.reminders = 0;
}

/// What a restart is blamed on: the cause's slug and the culprit, a client without its port.
fn blame(down: &Down) -> String {
    let Some(culprit) = &down.culprit else {
        return down.cause.clone();
    };
    let is_client = down.culprit_kind.as_deref() == Some("client");
    let address = culprit.rsplit_once(':').filter(|_| is_client);
    let culprit = address.map_or(culprit.as_str(), |(address, _)| address);
    let blame = format!("{} {culprit}", down.cause);
    blame.chars().take(LONGEST_BLAME).collect()
}
