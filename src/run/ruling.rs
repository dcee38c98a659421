//! The part of a run that takes the causes into the ledger and asks the restart policy whether to restart.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::time::Duration;

use super::Run;
use super::wording::held_off;
use crate::diagnosis::{Finding, Kind, disks};
use crate::policy::{self, Found, Knobs, Outage, Ruling, Server};
use crate::recovery::{self, Outcome, Plan, Prospects, Purpose};
use crate::state::ledger::{Down, Hold};
use crate::state::time::Time;
use crate::sys::bounded;

/// Time limit of asking for the server's certificate.
const CERTIFICATE_TIMEOUT: Duration = Duration::from_secs(2);
/// Time limit of looking at a disk that was full.
const DISK_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a restart waits, and the sentence of the cause that decided it.
pub(super) struct Held {
    pub(super) hold: Hold,
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
            Ruling::Restart => (recovery::RulingKind::Restart, may_unwedge),
            Ruling::RestartAfterCheck => (recovery::RulingKind::AskFirst, may_unwedge),
            Ruling::Hold(hold) => {
                self.hold = Some(Held::of(hold, findings));
                (recovery::RulingKind::Hold, may_unwedge)
            }
            Ruling::Leave(hold) => {
                self.hold = Some(Held::of(hold, findings));
                (recovery::RulingKind::Hold, false)
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

    async fn is_disk_full(&self) -> bool {
        let Some(directory) = self.state.state.ledger.full_disk() else {
            return false;
        };
        let looking = bounded::ask(DISK_TIMEOUT, || disks::is_full(Path::new(directory)));
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
}

/// The outage, as this run's first cause shows it.
fn down(began: Time, findings: &[Finding]) -> Down {
    let first = findings.first();
    let culprit = first.and_then(|one| one.culprit.clone());
    Down {
        id: incident(began),
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

/// Another process answers in the server's place. `text`: which.
pub(super) fn taken_over(began: Time, text: String) -> Down {
    Down {
        id: incident(began),
        cause: Kind::PortTaken.slug().to_owned(),
        text,
        ..Down::default()
    }
}

/// The ID of an outage that this run has found.
fn incident(began: Time) -> String {
    let began = began.utc().format("%Y%m%dT%H%M%SZ");
    format!("{began}-{}", std::process::id())
}

fn found(finding: &Finding) -> Found {
    let mut found = Found::new(finding.kind, finding.subject.clone());
    found.is_stuck = finding.is_stuck;
    found
}
