//! The part of a run that starts the server and sees it answer.

use std::io;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::time::Instant;

use super::Run;
use crate::health::{Checker, Verdict};
use crate::journal::BANNER;
use crate::proc::process::Proc;
use crate::recovery::{Event, Outcome, Phase};
use crate::redact;
use crate::server::process::Process;
use crate::server::restart_command::{self, Prepared, Running};
use crate::sys::{descriptors, signals};
use crate::text::{errno_text, seconds};

/// Between two checks of a server that is starting.
const POLL: Duration = Duration::from_millis(50);
/// Between two attempts to run the restart command, or to look up its user.
pub(super) const RETRY: Duration = Duration::from_secs(1);

/// The restart command, from its start on.
#[derive(Debug)]
pub(super) struct Restart {
    command: Running,
    began: Instant,
    /// How the command ended, once it has.
    status: Option<ExitStatus>,
    /// The server's processes that the log has named as started; none as long as it has named none.
    announced: Option<Vec<i32>>,
    /// Whether the processes that it started have all ended.
    has_ended: bool,
    /// Who had the server's port at that moment, in a sentence.
    pub(super) port_was_taken: Option<String>,
}

impl Run<'_> {
    /// Runs the restart command.
    pub(super) async fn start(&mut self) -> Event {
        self.journal.info(&format!(
            "Starting server with command: {}",
            redact::redacted(&self.settings.restart_cmd)
        ));
        if let Some(user) = &self.runs_as {
            self.journal
                .info(&format!("The restart command runs as user {user}"));
        }
        // What is waited for no longer needs its descriptors.
        self.handles.clear();
        signals::subreaper();
        self.is_starting = true;
        self.deadline = Instant::now() + self.settings.start_timeout;
        self.spawn().await
    }

    /// Runs it after a second: what was lacking may be there again.
    pub(super) async fn start_later(&mut self) -> Event {
        tokio::select! {
            biased;
            name = self.signals.next() => self.on_signal(Phase::Starting, name),
            () = tokio::time::sleep(RETRY) => (),
        }
        if Instant::now() >= self.deadline {
            return Event::Expired;
        }
        self.spawn().await
    }

    async fn spawn(&mut self) -> Event {
        let spawned = self.prepared.as_mut().map(Prepared::spawn);
        let command = match spawned {
            Some(Ok(command)) => command,
            Some(Err(reason)) if descriptors::is_for_lack(&reason) => {
                self.journal.warning(&format!(
                    "Cannot run the restart command: {}; next attempt in {} second",
                    errno_text(&reason),
                    seconds(RETRY)
                ));
                return Event::Lacking;
            }
            Some(Err(reason)) => {
                self.journal.error(&format!(
                    "Cannot run the restart command: {}",
                    errno_text(&reason)
                ));
                return Event::CommandFailed;
            }
            None => return Event::CommandFailed,
        };
        let began = Instant::now();
        self.journal.detail(&format!(
            "The restart command runs as PID {}",
            command.pid()
        ));
        if let Some(lock) = &mut self.restart_lock {
            lock.note_restart();
        }
        self.deadline = began + self.settings.start_timeout;
        self.restart = Some(Restart {
            command,
            began,
            status: None,
            announced: None,
            has_ended: false,
            port_was_taken: None,
        });
        self.await_start().await
    }

    /// Waits for the first of: the server answers, a signal, the command ends, the deadline.
    pub(super) async fn await_start(&mut self) -> Event {
        let Some(mut restart) = self.restart.take() else {
            return Event::CommandFailed;
        };
        let itself = self.own_address();
        let left = self.deadline.saturating_duration_since(Instant::now());
        let _progress = self.progress("the server to answer", left);
        let event = loop {
            break tokio::select! {
                biased;
                () = first_answer(&self.checker, itself, self.settings.timeout, self.deadline, &mut self.verdict) => {
                    let pids = self.server_pids().await;
                    self.log_started(&mut restart, &pids);
                    let waited = restart.began.elapsed().as_secs_f64().ceil();
                    self.journal.info(&format!("Server is now responsive after {waited} seconds"));
                    self.journal.detail(&format!("It took {} seconds", seconds(restart.began.elapsed())));
                    Event::Answers
                }
                name = self.signals.next() => {
                    self.on_signal(Phase::Starting, name);
                    Event::Interrupted
                }
                ended = restart.command.ended(), if restart.status.is_none() => self.command_ended(&mut restart, ended).await,
                () = all_ended(&self.started), if restart.status.is_some() && !restart.has_ended => {
                    restart.has_ended = true;
                    // Whoever kept the server from its port can have let go of it at the deadline.
                    restart.port_was_taken = self.who_has_port().await;
                    continue;
                }
                () = tokio::time::sleep_until(self.deadline) => Event::Expired,
            };
        };
        self.restart = Some(restart);
        event
    }

    async fn command_ended(
        &mut self,
        restart: &mut Restart,
        ended: io::Result<ExitStatus>,
    ) -> Event {
        let took = seconds(restart.began.elapsed());
        match ended {
            Ok(status) if status.success() => {
                restart.status = Some(status);
                self.journal.detail(&format!(
                    "The restart command exited with status 0 after {took} seconds"
                ));
                let pids = self.server_pids().await;
                if !pids.is_empty() {
                    self.log_started(restart, &pids);
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
                    errno_text(&reason)
                ));
                Event::CommandFailed
            }
        }
    }

    /// Says, once, that the server was started, and which processes it has.
    fn log_started(&self, restart: &mut Restart, pids: &[i32]) {
        if restart.announced.is_some() {
            return;
        }
        restart.announced = Some(pids.to_vec());
        let pids = if pids.is_empty() {
            "none found here".to_owned()
        } else {
            listed(pids)
        };
        self.journal
            .info(&format!("Server started successfully (PID: {pids})"));
        self.journal
            .info("Waiting for server to become responsive...");
    }

    /// What serves now: what listens on the port, or else whatever is found.
    async fn server_pids(&mut self) -> Vec<i32> {
        let files = self.files().await;
        let address = self.answering_address(&files);
        let Ok(facts) = self.facts(&address, &files).await else {
            return Vec::new();
        };
        let started = facts.candidates.iter().map(|one| one.process.clone());
        let started: Vec<Process> = started
            .filter(|process| restart_command::started_by_us(process.pid))
            .collect();
        let selection = self.choose(facts.clone(), &address, &files);
        self.answering = Some(facts);
        let found = if !selection.listening.is_empty() {
            selection.listening
        } else if selection.server.is_empty() {
            started.iter().map(|process| process.pid).collect()
        } else {
            selection.server.iter().map(|process| process.pid).collect()
        };
        self.started = started;
        found
    }

    /// Says how a start ended, and what an administrator should look at.
    pub(super) async fn report_start(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Restarted | Outcome::OwnerChanged | Outcome::InstanceEnded => {
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
                return;
            }
            Outcome::InterruptedAfterStart => {
                self.journal.info(BANNER);
                self.journal
                    .warning("The server was started; this run ends because it received a signal");
                self.note_started().await;
                return;
            }
            Outcome::CommandFailed => {
                self.journal.error(&format!(
                    "The server still does not respond: {}",
                    self.last_error()
                ));
                self.log_output();
                if self.is_listened_to() {
                    self.server_pids().await;
                }
                self.say_who_has_port().await;
            }
            Outcome::TakenOver => (),
            _ => self.report_silence().await,
        }
        self.say_ended_instances();
        self.note_started().await;
        self.failed();
    }

    /// Notes what the restart command started: the next run may have to stop it.
    async fn note_started(&mut self) {
        let started = self.started.iter();
        self.state.state.started = started.map(|one| (one.pid, one.start_time)).collect();
        self.state.save_changes().await;
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
            Err(reason) => self.journal.error(&format!(
                "Cannot read the restart command's output: {}",
                errno_text(&reason)
            )),
        }
    }

    async fn report_silence(&mut self) {
        let waited = seconds(self.settings.start_timeout);
        let last = self.last_error();
        let pids = self.server_pids().await;
        let Some(restart) = &self.restart else {
            return;
        };
        let text = match restart.status {
            None => format!(
                "The server did not become responsive within {waited} seconds ({last}); the restart command \
                 (PID {}) still runs and is left alone",
                restart.command.pid()
            ),
            Some(_) if pids.is_empty() => match &restart.announced {
                Some(pids) if !pids.is_empty() => format!(
                    "The server was started (PID: {}) and has ended, and nothing answered within {waited} seconds \
                     ({last}); look at the server's own log",
                    listed(pids)
                ),
                _ => {
                    let doubt = if restart_command::has_verb(&self.settings.restart_cmd) {
                        "; look at the server's own log"
                    } else {
                        "; if it runs manage.py, add start or restart to it"
                    };
                    format!(
                        "The restart command exited with status 0, but there is no server process and nothing \
                         answered within {waited} seconds ({last}){doubt}"
                    )
                }
            },
            Some(_) => format!(
                "Server started but did not become responsive within {waited} seconds ({last})"
            ),
        };
        self.journal.error(&text);
        if restart.status.is_some() && pids.is_empty() {
            self.log_output();
        }
        self.say_who_has_port().await;
    }
}

fn listed(pids: &[i32]) -> String {
    let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
    pids.join(", ")
}

/// Waits until these have ended; for ever, if there are none.
async fn all_ended(processes: &[Process]) {
    if processes.is_empty() {
        return std::future::pending().await;
    }
    let is_alive = |one: &Process| Proc::here().is_alive(one.pid, one.start_time);
    while processes.iter().any(is_alive) {
        tokio::time::sleep(POLL).await;
    }
}

/// Checks until the server answers. Behind a proxy, the server `itself` is asked.
async fn first_answer(
    checker: &Checker,
    itself: Option<SocketAddr>,
    timeout: Duration,
    deadline: Instant,
    last: &mut Option<Verdict>,
) {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let limit = timeout.min(left);
        let verdict = match itself {
            Some(address) => checker.ask(address, limit).await,
            None => checker.check(limit).await,
        };
        let is_healthy = verdict.error().is_none();
        *last = Some(verdict);
        if is_healthy {
            return;
        }
        tokio::time::sleep(POLL).await;
    }
}
