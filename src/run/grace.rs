//! The part of a run that waits: for a server that has just started, and once more for one on a busy machine.

use std::time::Duration;

use tokio::time::Instant;

use super::Run;
use super::wording::describe;
use crate::health::Verdict;
use crate::proc::process::Proc;
use crate::recovery::{Event, Phase};
use crate::server::process::Process;
use crate::server::select::{Selection, Spared};
use crate::text::seconds;

/// Between two checks of a server that has just started.
const POLL: Duration = Duration::from_millis(250);

impl Run<'_> {
    /// The youngest process that may become the server, and how much of its start grace is left. Whoever
    /// started it, its user must be one of the server's: others could put a restart off for ever.
    pub(super) fn young(&self, selection: &Selection) -> Option<(Process, Duration)> {
        let grace = self.settings.start_grace;
        if grace.is_zero() {
            return None;
        }
        let files = self.files.clone().unwrap_or_default();
        let mut trusted = self.proven(&files);
        trusted.extend(self.state.known().and_then(|known| known.uid));
        let spared = selection.spared.iter();
        let spared = spared
            .filter(|(process, why)| may_become_the_server(*why) && trusted.contains(&process.uid));
        let all = selection
            .server
            .iter()
            .chain(spared.map(|(process, _)| process));
        let left = |process: &Process| grace.checked_sub(Proc::here().age(process.pid)?);
        let young =
            all.filter_map(|one| Some((one.clone(), left(one).filter(|left| !left.is_zero())?)));
        young.max_by_key(|(_, left)| *left)
    }

    /// Asks until the server answers, the process has ended, or its start grace is over.
    pub(super) async fn await_young(&mut self) -> Event {
        let young = self
            .selection
            .as_ref()
            .and_then(|selection| self.young(selection));
        let Some((process, left)) = young else {
            return Event::Silent;
        };
        self.journal.info(&format!(
            "{} has just started: waiting up to {} seconds for it to answer",
            describe(&process),
            seconds(left)
        ));
        let deadline = Instant::now() + left;
        let _progress = self.progress("the server that has just started", left);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !Proc::here().is_alive(process.pid, process.start_time) {
                return Event::Silent;
            }
            let limit = self.settings.timeout.min(left);
            let verdict = tokio::select! {
                biased;
                name = self.signals.next() => {
                    self.on_signal(Phase::Growing, name);
                    return Event::Interrupted;
                }
                verdict = self.checker.check(limit) => verdict,
            };
            let is_healthy = matches!(verdict, Verdict::Healthy { .. });
            self.verdict = Some(verdict);
            if is_healthy {
                return Event::Answers;
            }
            tokio::time::sleep(POLL.min(left)).await;
        }
    }

    /// Asks once more, with twice the time: on a machine that is short of CPUs or memory a healthy server is
    /// slow, and a restart makes it slower.
    pub(super) async fn check_longer(&mut self, phase: Phase) -> Event {
        let limit = self.settings.timeout * 2;
        self.journal.info(&format!(
            "The machine is busy: checking once more, for up to {} seconds",
            seconds(limit)
        ));
        self.check_within(phase, Duration::ZERO, limit).await
    }
}

/// Whether a process that was left alone for this reason can be a server that has not begun to listen.
fn may_become_the_server(why: Spared) -> bool {
    match why {
        Spared::NotKnown(_)
        | Spared::Manager
        | Spared::ByPortAlone(_)
        | Spared::Ambiguous(_)
        | Spared::PortUnreadable(_)
        | Spared::SocketsUnreadable(_)
        | Spared::NetworkUnreadable(_)
        | Spared::StateUnreadable => true,
        Spared::NotTheHolder(_)
        | Spared::ListensElsewhere(_)
        | Spared::OtherNetwork
        | Spared::OtherConfiguration
        | Spared::UnprovenUser(_)
        | Spared::Remote => false,
    }
}
