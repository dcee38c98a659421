//! The part of a run that says why the server does not answer.

use std::time::Duration;

use super::Run;
use crate::diagnosis::server_log::Wanted;
use crate::diagnosis::{self, Diagnosis, Question, Seen};
use crate::health::{Stage, Trouble};
use crate::journal::{BANNER, Level, plain, seconds};
use crate::recovery::Phase;
use crate::secrets;
use crate::server::dump_command::Dump;
use crate::server::process::Found;

/// How a line of the server's own log begins in a diagnosis.
const SERVER_LOG: &str = "Server log: ";
/// `--dump-cmd` is given this time.
const DUMP_TIMEOUT: Duration = Duration::from_secs(10);

impl Run<'_> {
    /// Looks at the server and writes down what there is to see, within its budget.
    pub(super) async fn diagnose(&mut self, found: &Found) {
        let others = found.spared.iter().map(|(process, _)| process.clone());
        let known = self.last_healthy.known();
        let question = Question {
            server: found.server.clone(),
            others: others.collect(),
            port: self.settings.port(),
            addresses: self.checker.addresses(),
            tls: self.settings.url.scheme() == "https",
            seen: self.seen(),
            since_healthy: self.last_healthy.ago(),
            log: Wanted {
                known: known.log.clone(),
                pattern: self.settings.server_log.clone(),
                history: self.settings.log_history,
                ours: vec![self.settings.logfile.clone()],
                owner: found.server.first().map(|process| process.owner.as_raw()),
            },
            known,
        };
        let Diagnosis { causes, record } = diagnosis::look(&question).await;
        for line in [BANNER, "DIAGNOSIS", BANNER] {
            self.journal.info(line);
        }
        for cause in &causes {
            self.journal.warning(&format!("Cause: {cause}"));
        }
        for line in &record {
            match line.split_once(SERVER_LOG) {
                Some(("", text)) => self.journal.quote(Level::Info, "Server log", text),
                _ => self.journal.info(line),
            }
        }
        self.cause = causes.into_iter().next();
    }

    /// Runs `--dump-cmd` on the server's process that listens, or else on its first; whether there
    /// was one to run.
    pub(super) async fn dump(&mut self, listening: &[i32]) -> bool {
        let pids = self.held.iter().map(|held| held.process.pid);
        let mut pids = listening.iter().copied().chain(pids);
        let (Some(command), Some(pid)) = (&self.settings.dump_cmd, pids.next()) else {
            return false;
        };
        let command = command.replace("{pid}", &pid.to_string());
        let shown = secrets::without(&command);
        self.journal.info(&format!("Running {shown}"));
        let mut dump = match Dump::start(&command) {
            Ok(dump) => dump,
            Err(reason) => {
                let reason = plain(&reason);
                self.journal
                    .warning(&format!("Cannot run {shown}: {reason}"));
                return false;
            }
        };
        let is_late = tokio::select! {
            () = dump.ended() => false,
            () = tokio::time::sleep(DUMP_TIMEOUT) => true,
            name = self.signals.next() => {
                self.told(Phase::Surveying, name);
                false
            }
        };
        let text = dump.end();
        for line in text.lines() {
            self.journal.quote(Level::Info, "Dump", line);
        }
        if is_late {
            let limit = DUMP_TIMEOUT.as_secs();
            self.journal.warning(&format!(
                "{shown} did not end within {limit} s, and was ended"
            ));
        }
        true
    }

    fn seen(&self) -> Seen {
        match &self.trouble {
            None => Seen::Healthy,
            Some(Trouble::Status(status)) => Seen::Status(*status),
            Some(Trouble::Certificate(what)) => Seen::Certificate(what.clone()),
            Some(Trouble::Resolution { reason, .. }) => Seen::Unresolved(reason.clone()),
            Some(Trouble::TimedOut {
                stage: Stage::Resolving,
                limit,
            }) => Seen::Unresolved(format!("no answer within {} s", seconds(*limit))),
            Some(Trouble::NotHttp(what) | Trouble::Tls(what)) => Seen::Strange(what.clone()),
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
