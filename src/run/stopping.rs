//! The part of a run that looks for the server's processes and ends them.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use nix::unistd::Uid;
use tokio::time::Instant;

use super::Run;
use crate::health::{Stage, Trouble};
use crate::journal::{BANNER, Level, plain, seconds};
use crate::proc::process::Proc;
use crate::recovery::{Event, Phase, Purpose};
use crate::secrets;
use crate::server::process::{Found, Process};
use crate::server::restart_command;
use crate::server::search::{self, Search};
use crate::server::select::config_dir;
use crate::server::stop::Held;
use crate::sys::account;
use crate::sys::signals::Signals;

/// Between SIGKILL and giving up.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

impl Run<'_> {
    /// Looks at everything that can keep a restart from working, before anything is touched.
    pub(super) async fn survey(&mut self) -> Event {
        if let Err(reason) = Signals::catch_children() {
            self.journal
                .error(&format!("cannot catch signals: {}", plain(&reason)));
            return Event::Unable;
        }
        if self.settings.purpose != Purpose::Heal && self.trouble.is_some() {
            self.say_unresponsive();
        }
        let found = match self.find().await {
            Ok(found) => found,
            Err(reason) => {
                self.journal.error(&format!(
                    "Cannot look for the server's processes in /proc: {reason}"
                ));
                return Event::Unable;
            }
        };
        self.diagnose(&found).await;
        if self.settings.purpose == Purpose::Collect {
            return Event::Absent;
        }
        if self.was_not_asked()
            && !found.server.is_empty()
            && self.settings.process_pattern.is_none()
        {
            self.journal.error(&format!(
                "The URL's host has no address, so the server was not asked: {} may be well, and is left alone; \
                 correct --url or the name service, or say with --process-pattern that it is the server",
                describe(&found.server[0])
            ));
            return Event::Unable;
        }
        if let Some(reason) = restart_command::unusable(&self.settings.restart_cmd).await {
            self.journal.error(&format!(
                "The restart command cannot be run: {reason}; correct --restart-cmd"
            ));
            return Event::Unable;
        }
        for (process, reason) in &found.spared {
            self.journal
                .warning(&format!("Left alone: {}: {reason}", describe(process)));
        }
        self.spared = found
            .spared
            .into_iter()
            .map(|(process, _)| process)
            .collect();
        self.held = found.server.into_iter().filter_map(Held::new).collect();
        let forbidden: Vec<_> = self
            .held
            .iter()
            .filter_map(|held| held.forbidden().map(|reason| (&held.process, reason)))
            .collect();
        let mut names: BTreeMap<u32, String> = BTreeMap::new();
        for (process, reason) in &forbidden {
            // One question for each user: an account database that hangs takes its time.
            let owner = names
                .entry(process.owner.as_raw())
                .or_insert_with(|| name_of(process.owner));
            let remedy = if process.owner.is_root() {
                "root".to_owned()
            } else {
                format!("root or {owner}")
            };
            self.journal.error(&format!(
                "Cannot signal {} of user {owner}: {reason}; run as {remedy}, or narrow with --user",
                describe(process)
            ));
        }
        if !forbidden.is_empty() {
            return Event::Unable;
        }
        if self.settings.purpose == Purpose::Rehearse {
            return Event::Running;
        }
        let was_dumped = self.dump(&found.listening).await;
        if self.told_to_stop {
            return Event::Interrupted;
        }
        if was_dumped {
            // It took its time, in which the server can have come back.
            let event = self.check(Phase::Surveying, Duration::ZERO).await;
            if event != Event::Silent {
                return event;
            }
        }
        for line in [BANNER, "RESTARTING SERVER", BANNER] {
            self.journal.info(line);
        }
        for held in &self.held {
            self.journal
                .detail(&format!("Found {}", describe(&held.process)));
        }
        if self.held.is_empty() {
            self.journal.info("No server process found");
            return Event::Absent;
        }
        Event::Running
    }

    /// The end of a run that only looks.
    pub(super) fn say_what_would_be_done(&self) {
        if self.settings.purpose != Purpose::Rehearse {
            return;
        }
        let stop = if self.held.is_empty() {
            "nothing".to_owned()
        } else {
            pids(&self.held)
        };
        self.journal.info(&format!("Would stop: {stop}"));
        self.journal.info(&format!(
            "Would run: {}",
            secrets::without(&self.settings.restart_cmd)
        ));
    }

    pub(super) async fn find(&self) -> Result<Found, String> {
        search::find(&Search {
            pattern: self.settings.process_pattern.clone(),
            config_dir: config_dir(&self.settings.restart_cmd),
            user: self.settings.user,
            by_port_alone: self.settings.by_port_alone,
            port: self.settings.port(),
            addresses: self.checker.addresses(),
        })
        .await
    }

    /// Whether the last check ended with the name of the URL's host.
    fn was_not_asked(&self) -> bool {
        matches!(
            self.trouble,
            Some(
                Trouble::Resolution { .. }
                    | Trouble::TimedOut {
                        stage: Stage::Resolving,
                        ..
                    }
            )
        )
    }

    pub(super) fn terminate(&mut self) {
        self.journal
            .info(&format!("Stopping server processes: {}", pids(&self.held)));
        self.send("SIGTERM", Level::Info, Held::terminate);
        self.journal.info("Waiting for processes to terminate...");
        self.deadline = Instant::now() + self.settings.stop_timeout;
    }

    pub(super) fn kill(&mut self) {
        self.held.retain(Held::is_alive);
        self.send("SIGKILL", Level::Warning, Held::kill);
        self.deadline = Instant::now() + KILL_TIMEOUT;
    }

    fn send(&self, name: &str, level: Level, signal: fn(&Held) -> io::Result<bool>) {
        for held in &self.held {
            let pid = held.process.pid;
            match signal(held) {
                Ok(true) => self
                    .journal
                    .log(level, &format!("Sent {name} to PID {pid}")),
                Ok(false) => self.journal.debug(&format!("PID {pid} had already ended")),
                Err(reason) => self.journal.error(&format!(
                    "Cannot send {name} to PID {pid}: {}",
                    plain(&reason)
                )),
            }
        }
    }

    pub(super) async fn await_exits(&mut self, phase: Phase) -> Event {
        let held = &self.held;
        let all_ended = async {
            for process in held {
                process.ended().await;
            }
        };
        tokio::select! {
            biased;
            () = all_ended => {
                self.journal.info("All processes terminated successfully");
                self.held.clear();
                Event::AllEnded
            }
            name = self.signals.next() => {
                self.told(phase, name);
                Event::Interrupted
            }
            () = tokio::time::sleep_until(self.deadline) => {
                self.held.retain(Held::is_alive);
                if phase == Phase::Terminating {
                    let waited = seconds(self.settings.stop_timeout);
                    self.journal.warning(&format!("Processes still running after {waited}s: {}", pids(&self.held)));
                    return Event::Expired;
                }
                for held in &self.held {
                    let pid = held.process.pid;
                    self.journal.critical(&format!(
                        "PID {pid} is still there {}s after SIGKILL, in state {}: nothing was started",
                        KILL_TIMEOUT.as_secs(),
                        Proc::here().state(pid)
                    ));
                }
                Event::Expired
            }
        }
    }
}

fn describe(process: &Process) -> String {
    format!(
        "PID {} ({})",
        process.pid,
        secrets::without(&process.command)
    )
}

fn pids(held: &[Held]) -> String {
    let pids: Vec<i32> = held.iter().map(|held| held.process.pid).collect();
    format!("{pids:?}")
}

/// The name of a user, or the number where the account database does not tell.
fn name_of(user: Uid) -> String {
    match account::by_uid(user) {
        Ok(Some(account)) => account.name,
        _ => user.to_string(),
    }
}
