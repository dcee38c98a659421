//! The part of a run that keeps what later ones need: the ledger of outages and restarts, the history and the
//! last check. It also reads what was asked of it meanwhile: a pause, or the end of a hold.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::Run;
use super::wording::{held_off, name_of};
use crate::diagnosis::{Finding, Kind, disks};
use crate::health::Verdict;
use crate::notice::Notice;
use crate::policy::{self, Found, Knobs, Note, Outage, Ruling, Server};
use crate::recovery::{self, Event, Outcome, Plan, Prospects, Purpose};
use crate::state;
use crate::state::history::{self, Entry, HistoryEvent};
use crate::state::last::Last;
use crate::state::ledger::{Down, Hold, Restarted};
use crate::state::pause::{self, Current};
use crate::state::time::Time;
use crate::sys::bounded;
use crate::text::{self, end, one_line};

/// Time limit of writing a line of the history, and of looking at a disk that was full.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);
/// Time limit of asking for the server's certificate.
const CERTIFICATE_TIMEOUT: Duration = Duration::from_secs(2);
/// Who restored the service, where that was this program.
const MONITOR: &str = "monitor";

/// Why a restart waits, and the sentence of the cause that decided it.
pub(super) struct Held {
    hold: Hold,
    cause: String,
}

impl Held {
    fn of(hold: Hold, findings: &[Finding]) -> Self {
        let slug = hold.why.split(' ').next();
        let mut decisive = findings.iter();
        let decisive = decisive.find(|one| Some(one.kind.slug()) == slug);
        let cause = decisive.map_or_else(|| hold.why.clone(), |one| one.text.clone());
        Self { hold, cause }
    }
}

impl Run<'_> {
    /// A file of this server in the state directory.
    pub(super) fn state_file(&self, extension: &str) -> PathBuf {
        let host = self.settings.url.host_str().unwrap_or_default();
        state::path(
            &self.settings.state_dir,
            host,
            self.settings.port(),
            extension,
        )
    }

    /// Looks whether somebody has paused the monitor, and ends a hold where somebody asked for that.
    pub(super) async fn read_pause(&mut self) -> Event {
        self.forget_other_boots();
        if self.state.is_unusable() {
            return Event::NotPaused;
        }
        let path = self.state_file(".pause");
        let asked = pause::asked(&path, self.began).await;
        self.resume = asked.resume;
        if self.carry_out_resume() {
            self.journal
                .info("Restarts are no longer held off: monitor_myvnc resume was run");
        }
        let (since, text) = match asked.current {
            Current::None => return Event::NotPaused,
            Current::Unreadable(reason) => {
                self.journal.warning(&format!(
                    "Cannot read {}, so the monitor is not paused: {reason}",
                    path.display()
                ));
                return Event::NotPaused;
            }
            Current::Paused(pause) => {
                let reason = pause
                    .reason
                    .map(|reason| format!(": {}", one_line(&reason)));
                let text = format!(
                    "until {} by {}{}",
                    end(pause.until.0),
                    one_line(&pause.by),
                    reason.unwrap_or_default()
                );
                (pause.at, text)
            }
            Current::Inhibited(inhibit) => {
                let text = format!(
                    "by {} while this runs: {}",
                    one_line(&inhibit.by),
                    one_line(&inhibit.command)
                );
                (inhibit.at, text)
            }
        };
        let text = format!(
            "Server is unresponsive: {}; nothing is done because the monitor is paused {text}",
            self.last_error()
        );
        if self.state.state.paused == Some(since) {
            self.journal.debug(&text);
        } else {
            self.state.state.paused = Some(since);
            self.journal.info(&text);
        }
        Event::Paused
    }

    /// Ends a hold, where that was asked for and no run has done it; whether this is so.
    pub(super) fn carry_out_resume(&mut self) -> bool {
        let state = &mut self.state.state;
        let is_new = self.resume.is_some() && state.resumed != self.resume;
        if is_new {
            state.resumed = self.resume;
            state.ledger.clear();
        }
        is_new
    }

    /// Forgets what holds for another boot only.
    pub(super) fn forget_other_boots(&mut self) {
        if self.state.forget_other_boots() {
            self.state.state.ledger.clear();
        }
    }

    /// Takes the causes into the ledger, and says what the restart policy makes of them.
    pub(super) async fn rule(&mut self, findings: &[Finding], plan: Plan) -> Prospects {
        let now = Time::now();
        let down = down(self.began, findings);
        let mut ledger = self.state.state.ledger.clone();
        let note = ledger.fell(now, self.fell_at(), down);
        if self.settings.purpose == Purpose::Heal {
            self.state.state.ledger = ledger.clone();
            self.note(note.into_iter().collect()).await;
        }
        let mut causes: Vec<Found> = findings.iter().map(found).collect();
        let has_certificate = causes.iter().any(|one| one.kind == Kind::Certificate);
        if has_certificate {
            let presented = self.checker.fingerprint(CERTIFICATE_TIMEOUT).await;
            for one in &mut causes {
                if one.kind == Kind::Certificate {
                    one.subject = presented.clone().unwrap_or_default();
                }
            }
        }
        let outage = Outage {
            causes,
            server: match plan {
                Plan::Leave(Outcome::ProxyFails) => Server::Answers,
                Plan::Start => Server::Gone,
                Plan::Restart | Plan::Leave(_) => Server::Silent,
            },
            is_disk_full: self.is_disk_full().await,
        };
        let ruling = policy::rule(self.knobs(), &ledger, now, &outage);
        self.outage = Some(outage);
        let has_blocker = findings.iter().any(|one| one.blocker.is_some());
        let may_unwedge = has_blocker && self.settings.unwedge_for.is_some();
        let (ruling, can_unwedge) = match ruling {
            Ruling::Restart => (recovery::Ruling::Restart, may_unwedge),
            Ruling::RestartAfterCheck => (recovery::Ruling::AskFirst, may_unwedge),
            Ruling::Hold(hold) => {
                self.hold = Some(Held::of(hold, findings));
                (recovery::Ruling::Hold, may_unwedge)
            }
            Ruling::Leave(hold) => {
                self.hold = Some(Held::of(hold, findings));
                (recovery::Ruling::Hold, false)
            }
        };
        Prospects {
            ruling,
            can_unwedge,
        }
    }

    pub(super) fn knobs(&self) -> Knobs {
        let mut hasher = DefaultHasher::new();
        self.settings.restart_cmd.hash(&mut hasher);
        Knobs {
            policy: self.settings.restart_policy,
            max_restarts: self.settings.max_restarts,
            command: hasher.finish(),
        }
    }

    /// When the outage began: with the last answer, if a run saw that one a while ago.
    fn fell_at(&self) -> Time {
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

    async fn is_disk_full(&self) -> bool {
        let Some(directory) = self.state.state.ledger.full_disk() else {
            return false;
        };
        let looking = bounded::ask(WRITE_TIMEOUT, || disks::is_full(Path::new(directory)));
        match looking.await {
            // A disk that does not respond has no room either.
            Ok(full) => full.unwrap_or(true),
            // No process can be created to look at it: that is no reason to wait.
            Err(_) => false,
        }
    }

    /// Writes down that a restart begins: before the first signal, for the run can be killed.
    pub(super) async fn note_attempt(&mut self) {
        let Some(outage) = self.outage.take() else {
            return;
        };
        let knobs = self.knobs();
        let ledger = &mut self.state.state.ledger;
        let id = ledger.down.as_ref().map(|down| down.id.clone());
        ledger.begin(knobs, Time::now(), &outage, &id.unwrap_or_default());
        self.outage = Some(outage);
        self.state.save_changes().await;
    }

    /// Says that the restart waits, and until when.
    pub(super) fn say_held(&self) {
        let Some(hold) = &self.hold else {
            return;
        };
        let failures = self.state.state.ledger.failures(self.knobs().command);
        let server = self.settings.as_arguments();
        let Held { hold, cause } = hold;
        self.journal
            .warning(&held_off(hold, failures, cause, &server));
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
            self.write_last().await;
            return;
        }
        self.note_unwatched().await;
        let is_after_pause = self.state.state.ledger.planned.is_some();
        if outcome != Outcome::Paused {
            self.note_planned().await;
        }
        let now = Time::now();
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
        self.write_last().await;
        // What follows is no restart: the next run need not wait for a notify command.
        self.restart_lock = None;
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

    async fn write_last(&mut self) {
        let Some((is_up, status, took)) = self.answer() else {
            return;
        };
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

    async fn note(&mut self, notes: Vec<Note>) {
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
        let path = self.state_file(".history.jsonl");
        let writing = bounded::ask(WRITE_TIMEOUT, || {
            history::append(&path, &entry).map_err(|reason| text::errno_text(&reason))
        });
        let failed = match writing.await {
            Ok(Some(Ok(()))) => return,
            Ok(Some(Err(reason))) => reason,
            Ok(None) => "its disk does not respond".to_owned(),
            Err(reason) => text::errno_text(&reason),
        };
        self.history_failed = Some(failed);
    }
}

/// The outage, as this run's first cause shows it.
fn down(began: Time, findings: &[Finding]) -> Down {
    let first = findings.first();
    let culprit = first.and_then(|one| one.culprit.clone());
    Down {
        id: format!(
            "{}-{}",
            began.utc().format("%Y%m%dT%H%M%SZ"),
            std::process::id()
        ),
        cause: first
            .map_or(Kind::Unknown, |one| one.kind)
            .slug()
            .to_owned(),
        culprit: culprit.as_ref().map(|one| one.name.clone()),
        culprit_kind: culprit.map(|one| one.kind.slug().to_owned()),
        text: first.map(|one| one.text.clone()).unwrap_or_default(),
        ..Down::default()
    }
}

fn found(finding: &Finding) -> Found {
    let mut found = Found::new(finding.kind, finding.subject.clone());
    found.is_stuck = finding.is_stuck;
    found
}
