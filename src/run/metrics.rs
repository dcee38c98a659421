//! The part of a run that writes the metrics.

use std::ffi::CStr;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::Run;
use crate::metrics::{Metrics, MetricsFile, Until};
use crate::recovery::{Outcome, Purpose};
use crate::state::ledger::Condition;
use crate::state::pause::{self, Current};
use crate::state::time::Time;
use crate::sys::bounded;

/// Time limit of reading the outbox.
const READ_TIMEOUT: Duration = Duration::from_secs(1);
/// How the names of events in the outbox end.
const EVENT: &[u8] = b".json";

impl Run<'_> {
    /// Writes the metrics where they are wanted. `ended`: when the last check had ended.
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
        let asked = pause::asked(&self.state_file(".pause"), ended).await;
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
            pending: pending(&self.state_file(".outbox")).await,
        };
        let file = MetricsFile::new(directory, &state.server);
        if let Err(reason) = file.write(&metrics.render()).await {
            self.journal.warning(&format!(
                "Cannot write the metrics {}: {reason}; create the directory and let the monitor write to it, or give \
                 another --metrics-dir",
                file.path().display()
            ));
        }
    }
}

/// Number of events in the outbox; none where it cannot be read.
async fn pending(outbox: &Path) -> Option<usize> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat2(CWD, outbox, flags, Mode::empty(), ResolveFlags::CACHED);
    match opened {
        Err(Errno::NOENT) => Some(0),
        Ok(directory) => events(Dir::new(directory).ok()?),
        Err(_) => {
            let count = || match rustix::fs::open(outbox, flags, Mode::empty()) {
                Err(Errno::NOENT) => Some(0),
                opened => events(Dir::new(opened.ok()?).ok()?),
            };
            bounded::ask(READ_TIMEOUT, count).await.ok()??
        }
    }
}

/// Number of the files in it that are whole events.
fn events(directory: Dir) -> Option<usize> {
    let mut count = 0;
    for entry in directory {
        let entry = entry.ok()?;
        let is_event = CStr::to_bytes(entry.file_name()).ends_with(EVENT);
        let is_file = matches!(entry.file_type(), FileType::RegularFile | FileType::Unknown);
        count += usize::from(is_file && is_event);
    }
    Some(count)
}
