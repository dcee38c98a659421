//! The part of a run that says why the server does not answer.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::Run;
use crate::diagnosis::server_log::Wanted;
use crate::diagnosis::{self, BUDGET, Diagnosis, Question, Seen};
use crate::health::Trouble;
use crate::journal::{BANNER, plain};
use crate::process::find::Process;

/// `--dump-cmd` is given this time.
const DUMP_TIMEOUT: Duration = Duration::from_secs(10);
/// As much of its output is logged, in bytes.
const MOST_DUMPED: u64 = 64 << 10;

impl Run<'_> {
    /// Looks at the server and writes down what there is to see, within its budget.
    pub(super) async fn diagnose(&mut self, server: &[Process]) {
        let question = Question {
            server: server.to_vec(),
            port: self
                .settings
                .url
                .port_or_known_default()
                .unwrap_or_default(),
            addresses: self.checker.addresses(),
            tls: self.settings.url.scheme() == "https",
            seen: self.seen(),
            since_healthy: self.last_healthy.ago(),
            log: Wanted {
                pattern: self.settings.server_log.clone(),
                history: self.settings.log_history,
                ours: vec![
                    self.settings.logfile.clone(),
                    self.settings.logfile.with_extension("restart.log"),
                ],
            },
        };
        let looking = tokio::task::spawn_blocking(move || diagnosis::look(&question));
        let Diagnosis { causes, record } = match tokio::time::timeout(BUDGET, looking).await {
            Ok(Ok(diagnosis)) => diagnosis,
            _ => Diagnosis {
                causes: vec![format!(
                    "not known: /proc did not answer within {} ms",
                    BUDGET.as_millis()
                )],
                record: Vec::new(),
            },
        };
        for line in [BANNER, "DIAGNOSIS", BANNER] {
            self.journal.info(line);
        }
        for cause in &causes {
            self.journal.warning(&format!("Cause: {cause}"));
        }
        for line in &record {
            self.journal.info(line);
        }
        self.cause = causes.into_iter().next();
    }

    /// Runs `--dump-cmd` on the server's first process.
    pub(super) async fn dump(&self) {
        let (Some(command), Some(held)) = (&self.settings.dump_cmd, self.held.first()) else {
            return;
        };
        let command = command.replace("{pid}", &held.process.pid.to_string());
        self.journal.info(&format!("Running {command}"));
        let cannot = |reason: &str| {
            self.journal
                .warning(&format!("Cannot run {command}: {reason}"));
        };
        let shell = Command::new("/bin/sh")
            .args(["-c", &format!("exec 2>&1; {command}")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        let mut shell = match shell {
            Ok(shell) => shell,
            Err(reason) => return cannot(&plain(&reason)),
        };
        let Some(output) = shell.stdout.take() else {
            return;
        };
        let reading = tokio::task::spawn_blocking(move || {
            let mut text = Vec::new();
            let _ = output.take(MOST_DUMPED).read_to_end(&mut text);
            text
        });
        match tokio::time::timeout(DUMP_TIMEOUT, reading).await {
            Ok(text) => {
                for line in String::from_utf8_lossy(&text.unwrap_or_default()).lines() {
                    self.journal.info(&format!("Dump: {line}"));
                }
            }
            Err(_) => cannot(&format!(
                "it did not end within {} s",
                DUMP_TIMEOUT.as_secs()
            )),
        }
        // It may still write, or have left children: its process group ends with it.
        if let Ok(group) = i32::try_from(shell.id()) {
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
        let _ = shell.try_wait();
    }

    fn seen(&self) -> Seen {
        match &self.trouble {
            None => Seen::Healthy,
            Some(Trouble::Status(status)) => Seen::Status(*status),
            Some(Trouble::Certificate(what)) => Seen::Certificate(what.clone()),
            Some(_) => Seen::Silent,
        }
    }

    /// How long the server was away, and why.
    pub(super) fn sum_up(&self) {
        let away = self.away_since.and_then(|since| since.elapsed().ok());
        if let (Some(away), Some(cause)) = (away, &self.cause) {
            self.journal
                .info(&format!("Service was away {} s: {cause}", away.as_secs()));
        }
    }
}
