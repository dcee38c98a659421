//! The part of a run that writes the metrics.

use super::Run;
use crate::metrics::{Metrics, MetricsFile, Until};
use crate::recovery::{Outcome, Purpose};
use crate::state::ledger::Condition;
use crate::state::pause::{self, Current};
use crate::state::time::Time;

impl Run<'_> {
    /// Writes the metrics where they are wanted. `ended`: when the run had ended, but for what it tells others.
    pub(super) async fn write_metrics(&self, outcome: Outcome, ended: Time) {
        let Some(directory) = &self.settings.metrics_dir else {
            return;
        };
        // Another run over the server writes them.
        if self.settings.purpose != Purpose::Heal || outcome == Outcome::SteppedAside {
            return;
        }
        let Some((has_answered, status, took)) = self.answer() else {
            return;
        };
        let state = &self.state.state;
        let ledger = &state.ledger;
        // What answered can be another user's process.
        let is_up = has_answered && ledger.phase != Condition::Failed;
        let healthy = if is_up {
            Some(ended)
        } else {
            self.last_answer().map(Time::from)
        };
        let asked = pause::asked(&self.settings.state_file(".pause"), ended).await;
        let metrics = Metrics {
            server: &state.server,
            is_up,
            status,
            took,
            checked: ended,
            healthy,
            totals: (!self.state.is_unusable()).then_some(&ledger.totals),
            away: self.away().map_or(0, |away| away.as_secs()),
            held: match ledger.held() {
                Some(hold) => hold.until.map_or(Until::Open, Until::At),
                None => Until::Never,
            },
            paused: match asked.current {
                Current::Paused(pause) => Until::At(pause.until),
                Current::Inhibited(_) => Until::Open,
                Current::None | Current::Unreadable(_) => Until::Never,
            },
            expires: state.certificate_expires,
            pending: self.outbox().count().await,
        };
        let file = MetricsFile::new(directory, &state.server);
        if let Err(reason) = file.write(&metrics.render(), self.journal.device()).await {
            self.journal.warning(&format!(
                "Cannot write the metrics {}: {reason}; create the directory and let the monitor write to it, or give \
                 another --metrics-dir",
                file.path().display()
            ));
        }
    }
}
