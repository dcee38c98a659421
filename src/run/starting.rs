//! The part of a run that starts the server and sees it answer.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::time::Instant;

use super::Run;
use crate::health::{Checker, Trouble, Verdict};
use crate::journal::{BANNER, plain, seconds};
use crate::process::start::{self, Running};
use crate::recovery::{Event, Outcome, Phase};

/// Between two checks of a server that is starting.
const POLL: Duration = Duration::from_millis(50);

/// The restart command, from its start on.
#[derive(Debug)]
pub(super) struct Restart {
    command: Running,
    began: Instant,
    /// How the command ended, once it has.
    status: Option<ExitStatus>,
    /// Whether the log says by now that the server was started.
    announced: bool,
}

impl Run<'_> {
    pub(super) fn start(&mut self) -> Result<(), String> {
        self.journal.info(&format!(
            "Starting server with command: {}",
            self.settings.restart_cmd
        ));
        let output = self.settings.logfile.with_extension("restart.log");
        let began = Instant::now();
        let (command, lost) =
            start::start(&self.settings.restart_cmd, &output).map_err(|reason| plain(&reason))?;
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
        if let Some(target) = &mut self.reserved {
            target.note_restart();
        }
        self.deadline = began + self.settings.start_timeout;
        self.restart = Some(Restart {
            command,
            began,
            status: None,
            announced: false,
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
                self.announce(&mut restart);
                let waited = restart.began.elapsed().as_secs_f64().ceil();
                self.journal.info(&format!("Server is now responsive after {waited} seconds"));
                self.journal.detail(&format!("It took {} seconds", seconds(restart.began.elapsed())));
                Event::Answers
            }
            name = self.signals.next() => {
                self.told(Phase::Starting, name);
                Event::Interrupted
            }
            ended = restart.command.ended(), if restart.status.is_none() => self.command_ended(&mut restart, ended),
            () = tokio::time::sleep_until(self.deadline) => Event::Expired,
        };
        self.restart = Some(restart);
        event
    }

    fn command_ended(&self, restart: &mut Restart, ended: io::Result<ExitStatus>) -> Event {
        let took = seconds(restart.began.elapsed());
        match ended {
            Ok(status) if status.success() => {
                restart.status = Some(status);
                self.journal.detail(&format!(
                    "The restart command exited with status 0 after {took} seconds"
                ));
                if !self.server_pids().is_empty() {
                    self.announce(restart);
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
    fn announce(&self, restart: &mut Restart) {
        if restart.announced {
            return;
        }
        restart.announced = true;
        let pids = self.server_pids();
        let pids = if pids.is_empty() {
            "none found here".to_owned()
        } else {
            pids.join(", ")
        };
        self.journal
            .info(&format!("Server started successfully (PID: {pids})"));
        self.journal
            .info("Waiting for server to become responsive...");
    }

    /// What serves now: what listens on the port, or else whatever is found.
    fn server_pids(&self) -> Vec<String> {
        let found = self.find().unwrap_or_default();
        let pids = if found.listening.is_empty() {
            found.server.iter().map(|process| process.pid).collect()
        } else {
            found.listening
        };
        pids.iter().map(ToString::to_string).collect()
    }

    /// Says how a start ended, and what an administrator should look at.
    pub(super) fn report_start(&self, outcome: Outcome) {
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
                self.last_healthy.note();
                return;
            }
            Outcome::InterruptedAfterStart => {
                self.journal.info(BANNER);
                self.journal
                    .warning("The server was started; stopping as told");
                return;
            }
            Outcome::CommandFailed => self.log_output(),
            _ => self.report_silence(),
        }
        self.failed();
    }

    fn log_output(&self) {
        self.journal
            .error(&format!("Still no answer: {}", self.last_trouble()));
        let Some(restart) = &self.restart else {
            return;
        };
        match restart.command.last_lines() {
            Ok(lines) if lines.is_empty() => {
                self.journal.error("The restart command wrote nothing");
            }
            Ok(lines) => {
                for line in lines {
                    self.journal.error(&format!("Restart command: {line}"));
                }
            }
            Err(reason) => self
                .journal
                .error(&format!("Cannot read its output: {}", plain(&reason))),
        }
    }

    fn report_silence(&self) {
        let waited = seconds(self.settings.start_timeout);
        let last = self.last_trouble();
        let Some(restart) = &self.restart else {
            return;
        };
        let text = match restart.status {
            None => format!(
                "The server did not become responsive within {waited} seconds ({last}); the restart command \
                 (PID {}) still runs and is left alone",
                restart.command.pid()
            ),
            Some(_) if self.server_pids().is_empty() => format!(
                "The restart command exited with status 0, but there is no server process and nothing answered \
                 within {waited} seconds ({last}); does it lack a verb such as start or restart?"
            ),
            Some(_) => format!(
                "Server started but did not become responsive within {waited} seconds ({last})"
            ),
        };
        self.journal.error(&text);
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
