//! The part of a run that tells others what happened. It comes after the healing and cannot change the outcome.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Run;
use super::wording::why_held;
use crate::announce::command::{self, Failure};
use crate::announce::outbox::Outbox;
use crate::announce::summary::{What, summary};
use crate::announce::{Announcement, ShownCause};
use crate::diagnosis::Finding;
use crate::journal::{Journal, Level};
use crate::notice::Notice;
use crate::proc::machine::host_name;
use crate::proc::process::Proc;
use crate::recovery::Purpose;
use crate::redact;
use crate::state::ledger::{Condition, Down};
use crate::state::time::Time;
use crate::sys::account::name_of;
use crate::text::{end, seconds};

/// After this time, no further event is handed over; the rest wait for the next run.
const LAST_HANDOVER: Duration = Duration::from_secs(5);

/// How the summary of a failure ends that no run can write down.
const AGAIN: &str = "; sent by each run until the state directory can be used";

impl Run<'_> {
    /// Notes what is to be announced when this run ends. `down`: the outage that it is about, `away`: how long the
    /// server is or was away.
    pub(super) fn queue(&mut self, notice: Notice, down: Option<&Down>, away: Option<Duration>) {
        let what = self.what(notice, down, away.unwrap_or_default());
        self.queue_of(notice, &what, down, away);
    }

    /// Notes that the certificate expires, with a sentence that says when.
    pub(super) fn queue_expiring(&mut self, text: String) {
        self.queue_of(Notice::Expiring, &What::Expiring { text }, None, None);
    }

    /// Notes that the server flaps no longer.
    pub(super) fn queue_stable(&mut self, blamed: BTreeMap<String, u32>) {
        self.queue_of(Notice::Stable, &What::Stable { blamed }, None, None);
    }

    fn queue_of(
        &mut self,
        notice: Notice,
        what: &What,
        down: Option<&Down>,
        away: Option<Duration>,
    ) {
        let filled = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        let now = Time::now();
        let server = &self.state.state.server;
        let host = host_name();
        // Without the incident ID: where no state can be written, each run would have another one.
        let what_about = match notice {
            Notice::Flapping | Notice::Stable => "flapping",
            Notice::Expiring => "certificate",
            _ => "outage",
        };
        let cause = down.map(|down| down.text.as_str()).unwrap_or_default();
        let announcement = Announcement {
            event: notice.slug().to_owned(),
            server: server.clone(),
            url: self.settings.shown_url.clone(),
            summary: summary(server, what, cause),
            cause: down.and_then(|down| filled(&down.cause)),
            culprit: down.and_then(|down| down.culprit.clone()),
            since: away.map(|away| Time(now.0.saturating_sub(away.as_secs()))),
            away_seconds: away.map(|away| away.as_secs()),
            log: self.settings.logfile.display().to_string(),
            dedup_key: format!("{host}/{server}/{what_about}"),
            host,
            causes: self.causes.iter().map(shown).collect(),
            evidence: self.evidence.clone(),
            ..Announcement::default()
        };
        self.announcements.push(announcement.cleaned());
    }

    /// What the event is, with what belongs to it.
    fn what(&self, notice: Notice, down: Option<&Down>, away: Duration) -> What {
        let ledger = &self.state.state.ledger;
        let hold = ledger.held();
        let until = hold.and_then(|hold| hold.until).map(|until| end(until.0));
        match notice {
            Notice::Restarted => What::Restarted { away },
            Notice::Unwedged => What::Unwedged { away },
            Notice::Failed => {
                let last = ledger.restarts.last();
                let is_of_this_run = last.is_some_and(|last| last.at >= self.began);
                What::Failed {
                    was_restarted: is_of_this_run
                        && last.map(|last| &last.id) == down.map(|down| &down.id),
                }
            }
            Notice::Held => {
                let failures = ledger.failures(self.knobs().command);
                let why = hold.and_then(|hold| why_held(hold, failures));
                What::Held { until, why }
            }
            Notice::Reminder => What::Reminder {
                away,
                until: until.filter(|_| ledger.phase == Condition::Held),
            },
            Notice::Recovered => What::Recovered {
                away,
                by: self.by_whom(),
            },
            Notice::Flapping => What::Flapping {
                blamed: ledger.blamed.clone(),
                clients: ledger.recurrent(Time::now()),
            },
            // Queued with what belongs to them.
            Notice::Stable | Notice::Expiring => What::Stable {
                blamed: BTreeMap::new(),
            },
        }
    }

    /// Who answers again, or what this run has done for it.
    fn by_whom(&self) -> Option<String> {
        if self.restart.is_some() {
            return Some("restarted by the monitor".to_owned());
        }
        let known = self.state.known()?;
        let process = known.pid.map(|pid| format!("PID {pid}"));
        let user = known.uid.map(|uid| format!("user {}", name_of(uid)));
        let who: Vec<String> = process.into_iter().chain(user).collect();
        let age = known.pid.and_then(|pid| Proc::here().age(pid));
        let age = age.map(|age| {
            format!(
                ", started {} s ago",
                seconds(Duration::from_secs(age.as_secs()))
            )
        });
        let who = Some(who.join(" of ")).filter(|who| !who.is_empty())?;
        Some(format!("served by {who}{}", age.unwrap_or_default()))
    }

    /// Puts what is to be announced into the outbox. To be done before the ledger says that it was announced.
    pub(super) async fn post(&mut self) {
        let new = &self.announcements;
        if new.is_empty() || self.settings.notify_cmd.is_none() {
            return;
        }
        let outbox = self.outbox();
        let put = if self.state.is_unusable() {
            Err(None)
        } else {
            let history = self.settings.state_file(".history.jsonl");
            outbox.put(new, &history).await.map_err(Some)
        };
        match put {
            Ok(dropped) => self.say_dropped(dropped),
            Err(reason) => {
                if let Some(reason) = reason {
                    self.journal.warning(&format!(
                        "Cannot keep events in {}: {reason}; they are lost if the notify command fails now",
                        outbox.path().display()
                    ));
                }
                self.unkept.extend_from_slice(new);
            }
        }
    }

    /// Keeps only what this run itself has seen fail or has healed: where the state cannot be written, each run would
    /// announce the rest again. A failure is announced again, rather than never, and says so.
    pub(super) fn forget_what_repeats(&mut self, has_acted: bool) {
        let is_own = |one: &Announcement| {
            let is = |notice: Notice| one.event == notice.slug();
            has_acted && !is(Notice::Expiring) || is(Notice::Failed)
        };
        self.announcements.retain(is_own);
        self.unkept.retain(is_own);
        for one in self.announcements.iter_mut().chain(&mut self.unkept) {
            if one.event == Notice::Failed.slug() {
                one.summary.push_str(AGAIN);
            }
        }
    }

    /// Sends the events to journald, then to the notify command.
    pub(super) async fn deliver(&mut self) {
        self.write_to_journald().await;
        if self.settings.purpose == Purpose::Heal {
            self.notify().await;
        }
    }

    /// Hands the events that wait to the notify command, the oldest first, until it fails.
    async fn notify(&mut self) {
        let Some(command) = self.settings.notify_cmd.as_deref() else {
            return;
        };
        let began = Instant::now();
        // Events in the outbox are older, so they go first.
        let mut can_go_on = self.deliver_outbox(command, began).await;
        for event in std::mem::take(&mut self.unkept) {
            can_go_on &= !self.is_stopping && began.elapsed() < LAST_HANDOVER;
            let failure = if can_go_on {
                let taken = self.hand_over(command, &event, began).await;
                taken.err().map(|failure| failure.to_string())
            } else {
                Some("earlier events still wait".to_owned())
            };
            let Some(failure) = failure else {
                continue;
            };
            can_go_on = false;
            self.journal.warning(&format!(
                "The notify command has not taken the event {}: {failure}; the event is lost",
                event.event
            ));
        }
    }

    /// Hands over the events that wait. Returns whether none is left that can be read.
    async fn deliver_outbox(&mut self, command: &str, began: Instant) -> bool {
        let outbox = self.outbox();
        if !self.can_use_outbox || outbox.is_empty() {
            return true;
        }
        let cannot = |journal: &Journal, reason: String| {
            let outbox = outbox.path().display();
            journal.warning(&format!("Cannot use the outbox {outbox}: {reason}"));
            true
        };
        let _lock = match outbox.lock().await {
            Ok(Some(lock)) => lock,
            Ok(None) => {
                self.journal
                    .debug("Another run hands over the events that wait");
                return true;
            }
            Err(reason) => return cannot(self.journal, reason),
        };
        let mut taken = None;
        loop {
            let next = match outbox.next(taken.as_ref()).await {
                Ok(next) => next,
                Err(reason) => return cannot(self.journal, reason),
            };
            self.say_dropped(next.dropped);
            let Some(waiting) = next.waiting else {
                return true;
            };
            if self.is_stopping || began.elapsed() >= LAST_HANDOVER {
                return false;
            }
            if let Err(failure) = self.hand_over(command, &waiting.announcement, began).await {
                self.journal.warning(&format!(
                    "The notify command has not taken the event {}: {failure}; {} for the next run",
                    waiting.announcement.event,
                    match waiting.count {
                        1 => "it waits".to_owned(),
                        count => format!("{count} events wait"),
                    }
                ));
                return false;
            }
            taken = Some(waiting);
        }
    }

    /// Hands an event over, within what is left of the limit since `began`.
    async fn hand_over(
        &mut self,
        command: &str,
        event: &Announcement,
        began: Instant,
    ) -> Result<(), Failure> {
        let limit = command::LIMIT.saturating_sub(began.elapsed());
        let _progress = self.progress("the notify command", limit);
        let (said, taken) = command::hand_over(command, event, limit, self.signals.next()).await;
        let level = match taken {
            Ok(()) => Level::Info,
            Err(_) => Level::Warning,
        };
        for line in said {
            self.journal.log(
                level,
                &format!("Notify command: {}", redact::redacted(&line)),
            );
        }
        if taken.is_ok() {
            self.journal.info(&format!(
                "The notify command has taken the event {}",
                event.event
            ));
        }
        taken
    }

    pub(super) fn outbox(&self) -> Outbox {
        Outbox::new(self.settings.state_file(".outbox"))
    }

    fn say_dropped(&self, count: u64) {
        if count > 0 {
            self.journal.warning(&format!(
                "Dropped events that were too old, too many or damaged: {count}"
            ));
        }
    }
}

fn shown(finding: &Finding) -> ShownCause {
    ShownCause {
        cause: finding.kind.slug().to_owned(),
        culprit: finding.culprit.as_ref().map(|culprit| culprit.name.clone()),
        text: finding.text.clone(),
    }
}
