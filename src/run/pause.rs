//! The part of a run that reads what verbs have asked of it: a pause, or the end of a hold.

use super::Run;
use crate::recovery::Event;
use crate::state::pause::{self, Current};
use crate::text::{end, one_line, shortened};

impl Run<'_> {
    /// Looks whether somebody has paused the monitor, and ends a hold where somebody asked for that.
    pub(super) async fn read_pause(&mut self) -> Event {
        self.forget_other_boots();
        let path = self.settings.state_file(".pause");
        let asked = pause::asked(&path, self.began).await;
        // Where no state can be written, each run would carry it out again.
        let is_unusable = self.state.is_unusable();
        self.resume = asked.resume.filter(|_| !is_unusable);
        if self.carry_out_resume() {
            self.journal
                .info("Restarts are no longer held off: monitor_myvnc resume was run");
        }
        let (since, text) = match asked.current {
            Current::None => return Event::NotPaused,
            // The WARNING about the state directory says it.
            Current::Unreadable(_) if is_unusable => return Event::NotPaused,
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
                    shortened(one_line(&inhibit.command))
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

    /// Ends a hold, if that was asked for and no run has done it yet. Returns whether it did.
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
}
