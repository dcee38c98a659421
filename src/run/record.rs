//! The part of a run that keeps what later ones need: the ledger of outages and restarts, the history and the
//! last check.

use std::time::{Duration, SystemTime};

use super::{Run, ruling};
use crate::health::Verdict;
use crate::notice::Notice;
use crate::policy::Note;
use crate::recovery::{Outcome, Purpose};
use crate::state::history::{self, Entry, HistoryEvent};
use crate::state::last::Last;
use crate::state::ledger::{Down, Restarted};
use crate::state::time::Time;
use crate::sys::account::name_of;
use crate::sys::bounded;

/// Time limit of writing a line of the history.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);
/// Who restored the service, where that was this program.
const MONITOR: &str = "monitor";

impl Run<'_> {
    /// When the outage began: with the last answer, if a run saw that one a while ago.
    pub(super) fn fell_at(&self) -> Time {
        let checked = Time::from(self.checked);
        match &self.last.before {
            Some(before) if before.last.is_up && !before.is_stale(self.began) => {
                before.at.min(checked)
            }
            _ => checked,
        }
    }

    /// When the server last answered, if that is known: in the run before, before the outage, or before a pause
    /// in which it was seen down.
    pub(super) fn last_answer(&self) -> Option<SystemTime> {
        let before = self.last.before.filter(|before| before.last.is_up);
        let ledger = &self.state.state.ledger;
        let down = ledger.down.as_ref().filter(|down| down.was_up);
        let outage = down.and(ledger.since);
        let time = before.map(|before| before.at);
        let time = time.or(outage).or(ledger.planned)?;
        let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(time.0))?;
        Some(time.min(SystemTime::now()))
    }

    /// Writes down how the run ended: the ledger, the history and the last check.
    pub(super) async fn keep(&mut self, outcome: Outcome) {
        if self.settings.purpose != Purpose::Heal {
            return;
        }
        // Where two logs watch one server, its recovery is told by one of the runs.
        let is_news =
            outcome == Outcome::Healthy && self.state.state.ledger.changes_with_answer(Time::now());
        if is_news && !self.take_turn().await {
            self.write_last(outcome).await;
            return;
        }
        self.note_unwatched().await;
        let is_after_pause = self.state.state.ledger.planned.is_some();
        if outcome != Outcome::Paused {
            self.note_planned().await;
        }
        let now = Time::now();
        if let Some(taker) = self.taker.take().filter(|_| self.restart.is_none()) {
            let down = ruling::taken_over(self.began, taker);
            let since = self.fell_at();
            let note = self.state.state.ledger.fell(now, since, down);
            self.note(note.into_iter().collect()).await;
        }
        let ledger = &mut self.state.state.ledger;
        match outcome {
            Outcome::Healthy => {
                let notes = ledger.answered(now);
                self.note(notes).await;
            }
            Outcome::Restarted | Outcome::OwnerChanged | Outcome::InstanceEnded => {
                let down = ledger.down.clone();
                let ended = ledger.ended(now, Restarted::Answered);
                for notice in &ended.notices {
                    self.queue(*notice, down.as_ref(), ended.away);
                }
                self.write(HistoryEvent::Restarted, down, ended.away, Some("answered"))
                    .await;
            }
            Outcome::Unwedged => {
                let down = ledger.down.clone();
                let ended = ledger.unwedged(now);
                for notice in &ended.notices {
                    self.queue(*notice, down.as_ref(), ended.away);
                }
                self.write(HistoryEvent::Unwedged, down, ended.away, Some("answered"))
                    .await;
            }
            Outcome::CommandFailed | Outcome::NoAnswer | Outcome::Unkillable => {
                let ended = ledger.ended(now, Restarted::Failed);
                self.fail("failed", &ended.notices).await;
            }
            Outcome::TakenOver if self.restart.is_some() => {
                let ended = ledger.ended(now, Restarted::Failed);
                self.fail("failed", &ended.notices).await;
            }
            Outcome::Paused => {
                ledger.planned.get_or_insert(Time::from(self.checked));
            }
            Outcome::Held
            | Outcome::Untouched
            | Outcome::NotAsked
            | Outcome::PortTaken
            | Outcome::Unproven
            | Outcome::ProxyFails
            | Outcome::TakenOver => {
                let notice = match self.hold.take() {
                    Some(held) => ledger.hold(now, held.hold),
                    None => ledger.untouched(now),
                };
                match notice {
                    Some(Notice::Held) => {
                        let down = ledger.down.clone();
                        let away = self.away();
                        self.queue(Notice::Held, down.as_ref(), away);
                        self.write(HistoryEvent::Held, down, away, Some("held"))
                            .await;
                    }
                    Some(notice) => self.fail("untouched", &[notice]).await,
                    None => (),
                }
            }
            Outcome::SteppedAside
            | Outcome::Interrupted
            | Outcome::InterruptedAfterStart
            | Outcome::Looked => (),
        }
        if outcome != Outcome::SteppedAside {
            self.note_certificate().await;
        }
        self.remind(outcome, is_after_pause);
        self.post().await;
        self.state.save_changes().await;
        self.can_use_outbox = !self.state.is_unusable();
        if !self.can_use_outbox {
            self.forget_what_repeats(self.restart.is_some() || outcome == Outcome::Unwedged);
        }
        self.write_last(outcome).await;
        // What follows is no restart: the next run need not wait for a notify command.
        if let Some(lock) = self.restart_lock.take() {
            lock.release().await;
        }
    }

    /// Announces an outage again that goes on.
    fn remind(&mut self, outcome: Outcome, is_after_pause: bool) {
        let says_nothing = matches!(
            outcome,
            Outcome::Paused
                | Outcome::SteppedAside
                | Outcome::Interrupted
                | Outcome::InterruptedAfterStart
                | Outcome::Looked
        );
        if says_nothing {
            return;
        }
        let ledger = &mut self.state.state.ledger;
        if let Some(notice) = ledger.remind(Time::now(), is_after_pause) {
            let down = self.state.state.ledger.down.clone();
            self.queue(notice, down.as_ref(), self.away());
        }
    }

    /// How long the outage lasts by now.
    pub(super) fn away(&self) -> Option<Duration> {
        let ledger = &self.state.state.ledger;
        ledger.down.as_ref().and(ledger.since)?.before(Time::now())
    }

    async fn fail(&mut self, outcome: &str, notices: &[Notice]) {
        let down = self.state.state.ledger.down.clone();
        let away = self.away();
        for notice in notices {
            self.queue(*notice, down.as_ref(), away);
        }
        self.write(HistoryEvent::Failed, down, away, Some(outcome))
            .await;
    }

    /// Whether the last check was answered, with which status (0 for none), and how long it took.
    pub(super) fn answer(&self) -> Option<(bool, u16, Duration)> {
        Some(match self.verdict.as_ref()? {
            Verdict::Healthy { status, took, .. } => (true, *status, *took),
            Verdict::Unhealthy(error) => (false, error.status().unwrap_or_default(), self.took),
        })
    }

    async fn write_last(&mut self, outcome: Outcome) {
        let Some((answers, status, took)) = self.answer() else {
            return;
        };
        let is_up = answers && outcome != Outcome::TakenOver;
        let last = Last::new(is_up, status, took, self.last.before.as_ref(), self.began);
        if let Err(reason) = self.last.write(&last).await {
            self.state.give_up(reason);
        }
    }

    /// Notes that nobody has watched the server since the run before.
    async fn note_unwatched(&mut self) {
        let unwatched = self
            .last
            .before
            .and_then(|before| before.unwatched(self.began));
        if let Some(span) = unwatched {
            self.write(HistoryEvent::Unwatched, None, Some(span), None)
                .await;
        }
    }

    /// Notes how long the server was away during a pause, once that is over.
    async fn note_planned(&mut self) {
        let planned = self.state.state.ledger.planned.take();
        if let Some(away) = planned.and_then(|since| since.before(self.began)) {
            if let Some(down) = &mut self.state.state.ledger.down {
                down.planned_s += away.as_secs();
            }
            self.write(HistoryEvent::Planned, None, Some(away), None)
                .await;
        }
    }

    pub(super) async fn note(&mut self, notes: Vec<Note>) {
        for note in notes {
            match note {
                Note::Lasted { id } => self.write_of(HistoryEvent::Lasted, id).await,
                Note::FellAgain { id } => self.write_of(HistoryEvent::FellAgain, id).await,
                Note::Recovered { down, away } => {
                    if !down.text.is_empty() {
                        let away = away.as_secs();
                        let text = format!("Service was away {away} s: {}", down.text);
                        self.journal.info(&text);
                    }
                    if down.announced.is_some() || down.treated {
                        self.queue(Notice::Recovered, Some(&down), Some(away));
                    }
                    self.write(
                        HistoryEvent::Recovered,
                        Some(down),
                        Some(away),
                        Some("answered"),
                    )
                    .await;
                }
                Note::Stable { blamed } => self.queue_stable(blamed),
            }
        }
    }

    async fn write_of(&mut self, event: HistoryEvent, id: String) {
        let down = Down {
            id,
            ..Down::default()
        };
        self.write(event, Some(down), None, None).await;
    }

    /// Appends a line to the history. `away`: since the outage began; what earlier lines counted is left out.
    async fn write(
        &mut self,
        event: HistoryEvent,
        down: Option<Down>,
        away: Option<Duration>,
        outcome: Option<&str>,
    ) {
        // What ended before this run ends with its beginning.
        let at = match down {
            Some(_) => Time::now(),
            None => self.began,
        };
        let counted = down.as_ref().map_or(0, |down| down.counted);
        let away = away.map(|away| away.as_secs());
        // A line of no incident counts nothing of the outage that goes on.
        let goes_on = self.state.state.ledger.down.as_mut();
        if let (Some(goes_on), Some(_), Some(away)) = (goes_on, &down, away) {
            goes_on.counted = away;
        }
        let filled = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        let by = match event {
            HistoryEvent::Restarted | HistoryEvent::Unwedged => Some(MONITOR.to_owned()),
            HistoryEvent::Recovered => {
                let known = self.state.known();
                known.and_then(|known| known.uid).map(name_of)
            }
            _ => None,
        };
        let entry = Entry {
            id: down
                .as_ref()
                .map(|down| down.id.clone())
                .unwrap_or_default(),
            at,
            server: self.state.state.server.clone(),
            event,
            cause: down.as_ref().and_then(|down| filled(&down.cause)),
            culprit: down.as_ref().and_then(|down| down.culprit.clone()),
            culprit_kind: down.as_ref().and_then(|down| down.culprit_kind.clone()),
            away_s: away.map(|away| away.saturating_sub(counted)),
            outcome: outcome.map(str::to_owned),
            pids: std::mem::take(&mut self.stopped),
            by,
        };
        let path = self.settings.state_file(".history.jsonl");
        let written = bounded::on_disk(WRITE_TIMEOUT, || history::append(&path, &entry)).await;
        if let Err(reason) = written {
            self.history_failed = Some(reason);
        }
    }
}
