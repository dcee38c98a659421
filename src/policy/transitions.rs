//! How the ledger changes: each method is something that a run saw or did.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{HOUR, Knobs, Outage, Row, counted, decisive, row_of};
use crate::cli::RestartPolicy;
use crate::diagnosis::Kind;
use crate::notice::Notice;
use crate::state::ledger::{Attempt, Condition, Down, Hold, Ledger, Restarted};
use crate::state::time::Time;

/// The server is unwedged in an hour, at most.
const MOST_INCIDENTS: usize = 30;
/// After answers for this time a restart has lasted, and those before no longer count.
const LASTING: Duration = Duration::from_secs(10 * 60);
/// After answers for this time a server flaps no longer.
const STABLE: Duration = Duration::from_secs(30 * 60);
/// With so many restarts within an hour that worked, a server flaps.
const FLAPPING: usize = 3;
/// Attempts that are kept: with 200 bytes each, most of what is read of a state file.
const MOST_ATTEMPTS: usize = 100;

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
        /// The outage; it was announced if `down.announced` is set.
        down: Down,
        /// How the server was.
        was: Condition,
        /// How long it was away.
        away: Duration,
    },
    /// It no longer flaps.
    Stable,
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
    /// A check was answered. Most healthy runs change nothing.
    pub(crate) fn answered(&mut self, now: Time) -> Vec<Note> {
        let mut notes = Vec::new();
        if self.phase != Condition::Up {
            let was = self.phase;
            let (down, away) = self.comes_back(now);
            notes.push(Note::Recovered { down, was, away });
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
            notes.push(Note::Stable);
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
                reminders: known.reminders,
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
        self.since = Some(since);
        self.down = Some(down);
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
        self.restarts.push(Attempt {
            at: now,
            outcome: Restarted::Failed,
            lasted: None,
            id: id.to_owned(),
            command: knobs.command,
            cause,
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
                notices: self.untouched().into_iter().collect(),
            };
        }
        if let Some(last) = self.restarts.last_mut() {
            last.outcome = outcome;
        }
        let restarts = &mut self.totals.restarts;
        restarts.failed = restarts.failed.saturating_sub(1);
        restarts.answered += 1;
        let was_flapping = self.flapping.is_some();
        if !was_flapping && self.recently_answered() >= FLAPPING {
            self.flapping = Some(now);
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
        recent.count() < MOST_INCIDENTS
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
    pub(crate) fn hold(&mut self, hold: Hold) -> Option<Notice> {
        let down = self.down.get_or_insert_default();
        let is_news = if is_of_restarts(&hold.why) {
            down.announced.is_none()
        } else {
            down.held.as_ref() != Some(&hold.why)
        };
        if is_news {
            down.announced = Some("held".to_owned());
            down.held = Some(hold.why.clone());
        }
        self.phase = Condition::Held;
        self.hold = Some(hold);
        is_news.then_some(Notice::Held)
    }

    /// Nothing could be touched. Announced once, and not after a hold because of the cause.
    pub(crate) fn untouched(&mut self) -> Option<Notice> {
        self.phase = Condition::Failed;
        let down = self.down.get_or_insert_default();
        let is_news = match down.announced.as_deref() {
            None => true,
            Some("held") => down.held.as_deref().is_some_and(is_of_restarts),
            Some(_) => false,
        };
        if is_news {
            down.announced = Some("failed".to_owned());
        }
        is_news.then_some(Notice::Failed)
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
        self.totals.away_s += away.as_secs();
        self.phase = Condition::Up;
        let mut tried = self.hold.take().unwrap_or_default().tried;
        tried.retain(|slug, _| slug == Kind::DiskFull.slug());
        self.keep_tried(tried);
        (self.down.take().unwrap_or_default(), away)
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

    /// Restarts that worked in the hour before the last one.
    fn recently_answered(&self) -> usize {
        let Some(last) = self.restarts.last() else {
            return 0;
        };
        let counts = |attempt: &&Attempt| {
            attempt.outcome == Restarted::Answered && attempt.at.after(HOUR) > last.at
        };
        self.restarts.iter().filter(counts).count()
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
