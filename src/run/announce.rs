//! The part of a run that tells others what happened: after the healing, and without a say in its outcome.

use std::time::Duration;

use super::Run;
use crate::announce::{Announcement, ShownCause};
use crate::diagnosis::Finding;
use crate::notice::Notice;
use crate::state::ledger::Down;
use crate::state::time::Time;

impl Run<'_> {
    /// Notes what is to be announced when this run ends. `down`: the outage that it is about, `away`: how long the
    /// server is or was away.
    pub(super) fn queue(&mut self, notice: Notice, down: Option<&Down>, away: Option<Duration>) {
        let filled = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        let now = Time::now();
        self.announcements.push(Announcement {
            event: notice.slug().to_owned(),
            server: self.state.state.server.clone(),
            url: self.settings.shown_url.clone(),
            summary: summary(notice, &self.state.state.server, down, away),
            cause: down.and_then(|down| filled(&down.cause)),
            culprit: down.and_then(|down| down.culprit.clone()),
            since: away.map(|away| Time(now.0.saturating_sub(away.as_secs()))),
            away_seconds: away.map(|away| away.as_secs()),
            log: self.settings.logfile.display().to_string(),
            dedup_key: down.map(|down| down.id.clone()).unwrap_or_default(),
            causes: self.causes.iter().map(shown).collect(),
            evidence: self.evidence.clone(),
            ..Announcement::default()
        });
    }

    /// Hands what is to be announced to whoever is to be told.
    pub(super) async fn deliver(&mut self) {
        self.write_to_journald().await;
        self.announcements.clear();
    }
}

fn shown(finding: &Finding) -> ShownCause {
    ShownCause {
        cause: finding.kind.slug().to_owned(),
        culprit: finding.culprit.as_ref().map(|culprit| culprit.name.clone()),
        text: finding.text.clone(),
    }
}

/// The event in one line.
fn summary(notice: Notice, server: &str, down: Option<&Down>, away: Option<Duration>) -> String {
    let away = away.map_or_else(String::new, |away| format!(" after {} s", away.as_secs()));
    let cause = down.map(|down| down.text.as_str()).unwrap_or_default();
    format!("{server}: {}{away}: {cause}", notice.slug())
}
