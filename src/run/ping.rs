//! The last act of a run: it tells a dead man's switch how it ended. Whatever comes of that changes no exit status.

use std::time::Duration;

use tokio::time::Instant;

use super::Run;
use crate::announce::Announcement;
use crate::health::ping;
use crate::journal::Journal;
use crate::notice::Notice;
use crate::settings::Settings;
use crate::state::ping as state_of_ping;
use crate::state::ping::Due;
use crate::state::time::Time;
use crate::sys::bounded;
use crate::sys::signals::Signals;
use crate::text::one_line;

/// Time limit of the whole ping.
const LIMIT: Duration = Duration::from_secs(5);
/// Time limit of reading or writing its file in the state directory.
const FILE_TIMEOUT: Duration = Duration::from_millis(500);
/// Least time between two warnings about pings that fail.
const WARNED_EVERY: Duration = Duration::from_secs(24 * 3600);

/// Pings, if a ping URL is set and a ping is due. `lock` is released before anybody is waited for.
pub(super) async fn ping<L>(
    settings: &Settings,
    journal: &Journal,
    lock: L,
    is_success: bool,
    summary: String,
) {
    let (Some(url), Some(shown)) = (&settings.ping_url, settings.shown_ping_url()) else {
        return;
    };
    let until = Instant::now() + LIMIT;
    let path = settings.state_file(".ping");
    let begin = || state_of_ping::begin(&path, is_success).ok();
    let due = bounded::ask(FILE_TIMEOUT, begin).await;
    drop(lock);
    // If the file cannot be used, each run pings: silence would be an alarm.
    let warned = match due.ok().flatten().flatten() {
        Some(Due::Not) => return,
        Some(Due::Now { warned }) => warned,
        None => None,
    };
    let failure = (!is_success).then_some(summary);
    let left = until.saturating_duration_since(Instant::now() + FILE_TIMEOUT);
    let now = Time::now();
    let mut signals = Signals::catch();
    let pinged = tokio::select! {
        biased;
        // Whoever ends the run does not wait for a service.
        _ = signals.next() => return,
        pinged = ping::ping(url, failure, left) => pinged,
    };
    let warned_now = match pinged {
        Ok(()) => {
            journal.detail(&format!("Pinged {shown}"));
            None
        }
        Err(_) if warned.is_some_and(|warned| is_recent(warned, now)) => warned,
        Err(reason) => {
            journal.warning(&format!(
                "Cannot ping {shown}: {}; the check is not affected",
                one_line(&reason)
            ));
            Some(now)
        }
    };
    if warned_now != warned {
        let keep = || state_of_ping::keep(&path, warned_now).is_ok();
        let _ = bounded::ask(FILE_TIMEOUT, keep).await;
    }
}

fn is_recent(warned: Time, now: Time) -> bool {
    warned.before(now).is_some_and(|ago| ago < WARNED_EVERY)
}

impl Run<'_> {
    /// What this run found: of its last event, else of its last check and the outage.
    pub(super) fn in_one_line(&self) -> String {
        let is_of_outage = |one: &&Announcement| {
            let others = [Notice::Expiring, Notice::Stable];
            !others.iter().any(|other| other.slug() == one.event)
        };
        if let Some(announcement) = self.announcements.iter().rfind(is_of_outage) {
            return announcement.summary.clone();
        }
        let down = self.state.state.ledger.down.as_ref();
        let cause = down.map_or_else(String::new, |down| down.text.clone());
        let found = [self.last_error(), cause];
        let found: Vec<_> = found.into_iter().filter(|part| !part.is_empty()).collect();
        let found = if found.is_empty() {
            format!("the run failed, see {}", self.settings.logfile.display())
        } else {
            found.join("; ")
        };
        one_line(&format!("{}: {found}", self.state.state.server))
    }
}
