//! The part of a run that starts the server and sees it answer.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::time::Instant;

use super::Run;
use crate::diagnosis::server_log;
use crate::health::{Checker, Trouble, Verdict};
use crate::journal::{BANNER, plain, seconds};
use crate::proc::process::Proc;
use crate::recovery::{Event, Outcome, Phase};
use crate::secrets;
use crate::server::restart_command::{Prepared, Running};
use crate::state::Known;
use crate::sys::descriptors;

/// Between two checks of a server that is starting.
const POLL: Duration = Duration::from_millis(50);
/// Between two attempts to run the restart command.
const RETRY: Duration = Duration::from_secs(1);

/// The restart command, from its start on.
#[derive(Debug)]
pub(super) struct Restart {
    command: Running,
    began: Instant,
    /// How the command ended, once it has.
    status: Option<ExitStatus>,
    /// Whether the log says by now that the server was started.
    announced: bool,
    /// What serves since then.
    pids: Vec<i32>,
}

impl Run<'_> {
    pub(super) async fn start(&mut self) -> Result<(), String> {
        self.journal.info(&format!(
            "Starting server with command: {}",
            secrets::without(&self.settings.restart_cmd)
        ));
        let output = self.settings.output();
        let (mut prepared, lost) = Prepared::new(
            &self.settings.restart_cmd,
            &output,
            self.settings.run_as.as_ref(),
        )
        .map_err(|reason| plain(&reason))?;
        let until = Instant::now() + self.settings.start_timeout;
        let command = loop {
            match prepared.spawn() {
                Ok(command) => break command,
                Err(reason)
                    if descriptors::is_for_lack(&reason) && Instant::now() + RETRY < until =>
                {
                    self.journal.warning(&format!(
                        "Cannot run the restart command: {}; next attempt in {} second",
                        plain(&reason),
                        seconds(RETRY)
                    ));
                    tokio::time::sleep(RETRY).await;
                }
                Err(reason) => return Err(plain(&reason)),
            }
        };
        let began = Instant::now();
        if let Some(reason) = lost {
            self.journal.warning(&format!(
                "Its output is lost: cannot write {}: {}",
                output.display(),
                plain(&reason)
            ));
        }
        self.journal.detail(&format!(
            "The restart command runs as PID {}",
            command.pid()
        ));
        if let Some(lock) = &mut self.reserved {
            lock.note_restart();
        }
        self.deadline = began + self.settings.start_timeout;
        self.restart = Some(Restart {
            command,
            began,
            status: None,
            announced: false,
            pids: Vec::new(),
        });
        Ok(())
    }

    /// Waits for the first of: the server answers, a signal, the command ends, the deadline.
    pub(super) async fn await_start(&mut self) -> Event {
        let Some(mut restart) = self.restart.take() else {
            return Event::CommandFailed;
        };
        let event = tokio::select! {
            biased;
            status = first_answer(&self.checker, self.settings.timeout, self.deadline, &mut self.trouble) => {
                self.status = status;
                self.announce(&mut restart, &self.server_pids().await);
                let waited = restart.began.elapsed().as_secs_f64().ceil();
                self.journal.info(&format!("Server is now responsive after {waited} seconds"));
                self.journal.detail(&format!("It took {} seconds", seconds(restart.began.elapsed())));
                Event::Answers
            }
            name = self.signals.next() => {
                self.told(Phase::Starting, name);
                match restart.status {
                    Some(status) if status.success() => Event::CommandSucceeded,
                    _ => Event::Interrupted,
                }
            }
            ended = restart.command.ended(), if restart.status.is_none() => self.command_ended(&mut restart, ended).await,
            () = tokio::time::sleep_until(self.deadline) => Event::Expired,
        };
        self.restart = Some(restart);
        event
    }

    async fn command_ended(&self, restart: &mut Restart, ended: io::Result<ExitStatus>) -> Event {
        let took = seconds(restart.began.elapsed());
        match ended {
            Ok(status) if status.success() => {
                restart.status = Some(status);
                self.journal.detail(&format!(
                    "The restart command exited with status 0 after {took} seconds"
                ));
                let pids = self.server_pids().await;
                if !pids.is_empty() {
                    self.announce(restart, &pids);
                }
                Event::CommandSucceeded
            }
            Ok(status) => {
                restart.status = Some(status);
                let how = match (status.code(), status.signal()) {
                    (Some(code), _) => format!("exited with status {code}"),
                    (None, Some(signal)) => format!("was killed by signal {signal}"),
                    (None, None) => "failed".into(),
                };
                self.journal
                    .error(&format!("The restart command {how} after {took} seconds"));
                Event::CommandFailed
            }
            Err(reason) => {
                self.journal.error(&format!(
                    "Cannot wait for the restart command: {}",
                    plain(&reason)
                ));
                Event::CommandFailed
            }
        }
    }

    /// Says, once, that the server was started, and which processes it has.
    fn announce(&self, restart: &mut Restart, pids: &[i32]) {
        restart.pids = pids.to_vec();
        if restart.announced {
            return;
        }
        restart.announced = true;
        let pids = if pids.is_empty() {
            "none found here".to_owned()
        } else {
            let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
            pids.join(", ")
        };
        self.journal
            .info(&format!("Server started successfully (PID: {pids})"));
        self.journal
            .info("Waiting for server to become responsive...");
    }

    /// What serves now: what listens on the port, or else whatever is found.
    async fn server_pids(&self) -> Vec<i32> {
        let found = self.find().await.unwrap_or_default();
        if found.listening.is_empty() {
            found.server.iter().map(|process| process.pid).collect()
        } else {
            found.listening
        }
    }

    /// Says how a start ended, and what an administrator should look at.
    pub(super) async fn report_start(&self, outcome: Outcome) {
        let ended = self
            .spared
            .iter()
            .filter(|one| !Proc::here().is_alive(one.pid, one.start_time));
        for process in ended {
            self.journal.warning(&format!(
                "PID {} was left alone as another instance, and has ended since: look whether the restart command ends it",
                process.pid
            ));
        }
        match outcome {
            Outcome::Restarted => {
                let failed = self
                    .restart
                    .as_ref()
                    .and_then(|restart| restart.status)
                    .is_some_and(|status| !status.success());
                if failed {
                    self.journal
                        .warning("The restart command failed, but the server answers");
                }
                self.journal.info(BANNER);
                self.sum_up();
                let pids = self.restart.as_ref().map(|restart| restart.pids.clone());
                let pids = pids.unwrap_or_default();
                let log = match pids.first() {
                    Some(pid) => server_log::open_log(*pid).await,
                    None => None,
                };
                let started = Known::of(pids, log);
                self.last_healthy.note_started(&started);
                return;
            }
            Outcome::InterruptedAfterStart => {
                self.journal.info(BANNER);
                self.journal
                    .warning("The server was started; stopping as told");
                return;
            }
            Outcome::CommandFailed => {
                self.journal
                    .error(&format!("Still no answer: {}", self.last_trouble()));
                self.log_output();
            }
            _ => self.report_silence().await,
        }
        self.failed();
    }

    fn log_output(&self) {
        let Some(restart) = &self.restart else {
            return;
        };
        match restart.command.last_lines() {
            Ok(lines) if lines.is_empty() => {
                self.journal.error("The restart command wrote nothing");
            }
            Ok(lines) => {
                let whole = self.settings.output();
                for line in lines {
                    self.journal.output(&line, &whole);
                }
            }
            Err(reason) => self
                .journal
                .error(&format!("Cannot read its output: {}", plain(&reason))),
        }
    }

    async fn report_silence(&self) {
        let waited = seconds(self.settings.start_timeout);
        let last = self.last_trouble();
        let Some(restart) = &self.restart else {
            return;
        };
        let pids = self.server_pids().await;
        let text = match restart.status {
            None => format!(
                "The server did not become responsive within {waited} seconds ({last}); the restart command \
                 (PID {}) still runs and is left alone",
                restart.command.pid()
            ),
            Some(_) if pids.is_empty() => format!(
                "The restart command exited with status 0, but there is no server process and nothing answered \
                 within {waited} seconds ({last}); does it lack a verb such as start or restart?"
            ),
            Some(_) => format!(
                "Server started but did not become responsive within {waited} seconds ({last})"
            ),
        };
        self.journal.error(&text);
        if restart.status.is_some() && pids.is_empty() {
            self.log_output();
        }
    }
}

/// Checks until the server answers; returns the status.
async fn first_answer(
    checker: &Checker,
    timeout: Duration,
    deadline: Instant,
    trouble: &mut Option<Trouble>,
) -> u16 {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match checker.check(timeout.min(left)).await {
            Verdict::Healthy { status, .. } => return status,
            Verdict::Unhealthy(seen) => *trouble = Some(seen),
        }
        tokio::time::sleep(POLL).await;
    }
}
