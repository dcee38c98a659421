//! The part of a run that says why the server does not answer.

use std::time::Duration;

use super::Run;
use crate::diagnosis::server_log::Wanted;
use crate::diagnosis::{self, Diagnosis, Finding, Line, Question, Seen};
use crate::health::{CheckError, CheckStage, NOT_TLS};
use crate::journal::{BANNER, Level};
use crate::recovery::{Event, Phase, Plan, Purpose};
use crate::redact;
use crate::server::shell_command::{Keep, ShellCommand};
use crate::text::{errno_text, seconds};

/// Time limit of the probe for the other scheme.
const SCHEME_TIMEOUT: Duration = Duration::from_millis(250);
/// Other instances that are looked at, at most.
const MOST_OTHERS: usize = 20;
/// `--dump-cmd` is given this time.
const DUMP_TIMEOUT: Duration = Duration::from_secs(10);

impl Run<'_> {
    /// Looks at the server and writes down what there is to see, within its budget.
    pub(super) async fn diagnose(&mut self, plan: Plan) -> Event {
        let seen = match self.error() {
            Some(error) => match self.checker.right_scheme(error, SCHEME_TIMEOUT).await {
                Some(url) => Seen::Scheme(url.to_string()),
                None => self.seen(),
            },
            None => self.seen(),
        };
        let question = self.question(seen);
        let Diagnosis { findings, report } = diagnosis::diagnose(&question).await;
        for line in [BANNER, "DIAGNOSIS", BANNER] {
            self.journal.info(line);
        }
        for finding in &findings {
            self.journal.warning(&format!("Cause: {}", finding.text));
        }
        for line in &report {
            match line {
                Line::Reading(text) => self.journal.info(text),
                Line::ServerLog(text) => self.journal.quote(Level::Info, "Server log", text),
            }
        }
        let kind = findings.first().map(|finding| finding.kind);
        if let Some(kind) = kind.filter(|kind| kind.is_by_client()) {
            self.journal
                .info(&format!("Advice: {}", kind.entry().advice));
        }
        let prospects = self.rule(&findings, plan).await;
        let has_blocker = |one: &&Finding| one.blocker.is_some();
        self.blocking = findings.iter().filter(has_blocker).cloned().collect();
        self.causes = findings;
        self.evidence = report
            .into_iter()
            .filter_map(|line| match line {
                Line::Reading(text) => Some(text),
                Line::ServerLog(_) => None,
            })
            .collect();
        if self.settings.purpose != Purpose::Collect {
            self.say_spared();
        }
        Event::Diagnosed(prospects)
    }

    /// What is asked about.
    pub(super) fn question(&self, seen: Seen) -> Question {
        let (server, others) = match &self.selection {
            Some(selection) => {
                let spared = selection.spared.iter().map(|(process, _)| process.clone());
                (selection.server.clone(), spared.take(MOST_OTHERS).collect())
            }
            None => (Vec::new(), Vec::new()),
        };
        let known = self.state.known().cloned().unwrap_or_default();
        let owner = server.first().map(|process| process.uid).or(known.uid);
        Question {
            server,
            others,
            port: self.settings.port(),
            is_port_of_url: self
                .files
                .as_ref()
                .is_none_or(|files| self.address(files).is_of_url),
            addresses: self.checker.addresses(),
            tls: self.settings.url.scheme() == "https",
            seen,
            since_healthy: self.last_answer().and_then(|at| at.elapsed().ok()),
            log: Wanted {
                known: known.log.clone().map(Into::into),
                pattern: self.settings.server_log.clone(),
                logdir: self.logdir(),
                history: self.settings.log_history,
                ours: vec![self.settings.logfile.clone()],
                owner,
            },
            known,
        }
    }

    /// Runs `--dump-cmd` on the server's process that listens, or else on its first.
    pub(super) async fn dump(&mut self) -> Event {
        let listening = self
            .selection
            .iter()
            .flat_map(|one| &one.listening)
            .copied();
        let pids = self.handles.iter().map(|handle| handle.process.pid);
        let mut pids = listening.chain(pids);
        let (Some(command), Some(pid)) = (&self.settings.dump_cmd, pids.next()) else {
            return Event::NotDumped;
        };
        let command = command.replace("{pid}", &pid.to_string());
        let shown = redact::redacted(&command);
        self.journal.info(&format!("Running {shown}"));
        let mut dump = match ShellCommand::start(&command, Keep::First, |_| ()) {
            Ok(dump) => dump,
            Err(reason) => {
                let reason = errno_text(&reason);
                self.journal
                    .warning(&format!("Cannot run {shown}: {reason}"));
                return Event::NotDumped;
            }
        };
        let _progress = self.progress("the dump", DUMP_TIMEOUT);
        let is_late = tokio::select! {
            () = dump.ended() => false,
            () = tokio::time::sleep(DUMP_TIMEOUT) => true,
            name = self.signals.next() => {
                self.on_signal(Phase::Dumping, name);
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
                "{shown} did not end within {limit} s and was killed"
            ));
        }
        Event::Dumped
    }

    fn seen(&self) -> Seen {
        match self.error() {
            None => Seen::Healthy,
            Some(CheckError::Status { status, .. }) => Seen::Status(*status),
            Some(CheckError::Certificate(what)) => Seen::Certificate(what.clone()),
            Some(CheckError::Resolution { reason, .. }) => Seen::Unresolved(reason.clone()),
            Some(CheckError::TimedOut {
                stage: CheckStage::Resolving,
                limit,
            }) => Seen::Unresolved(format!("no answer within {} s", seconds(*limit))),
            Some(CheckError::NotAsked { to, reason }) => Seen::NotAsked(format!("{to}: {reason}")),
            Some(CheckError::Incompatible(what)) => Seen::NotAsked(what.clone()),
            Some(CheckError::Redirects) => Seen::RedirectLoop,
            Some(CheckError::NotTls) => Seen::Strange(NOT_TLS.to_owned()),
            Some(CheckError::NotHttp(what) | CheckError::Tls(what)) => Seen::Strange(what.clone()),
            Some(_) => Seen::Silent,
        }
    }

    /// How long the server was away, and why.
    pub(super) fn sum_up(&self) {
        let away = self.last_answer().and_then(|since| since.elapsed().ok());
        if let (Some(away), Some(cause)) = (away, self.causes.first()) {
            self.journal.info(&format!(
                "Service was away {} s: {}",
                away.as_secs(),
                cause.text
            ));
        }
    }
}
