//! One run over one server: look, decide, record and act, until the decision is to finish.

mod diagnosing;
mod starting;
mod stopping;

use std::path::Path;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use self::starting::Restart;
use crate::health::{Checker, Trouble, Verdict};
use crate::journal::{BANNER, Journal, Level, complain, plain, seconds};
use crate::lock::{Reserved, RunLock, Taken, TargetFile, TargetLock};
use crate::proc::net;
use crate::recovery::{self, Action, Event, Outcome, Phase, Policy, Purpose};
use crate::server::process::Process;
use crate::server::restart_command;
use crate::server::stop::Held;
use crate::settings::Settings;
use crate::state::LastHealthy;
use crate::sys::files;
use crate::sys::signals::Signals;

/// The host in the name of the restart lock of a server of this host.
const THIS_HOST: &str = "localhost";
/// A run that holds its lock for longer than this is worth a warning.
const LONG_RUN: Duration = Duration::from_secs(600);

/// Runs once over one server; whether that was a success.
pub(crate) async fn run(settings: &Settings) -> bool {
    let lock_path = RunLock::path(&settings.logfile);
    let taken = make_room(settings).and_then(|owner| {
        if let Some(owner) = owner {
            files::make(&settings.logfile, Journal::MODE, owner);
            files::make(&lock_path, RunLock::MODE, owner);
            files::make(&settings.output(), restart_command::OUTPUT_MODE, owner);
        }
        Ok((take_lock(settings, &lock_path)?, owner))
    });
    let (taken, owner) = match taken {
        Ok(taken) => taken,
        Err(reason) => {
            complain(&format!(
                "{reason}; nothing was done, give another --logfile"
            ));
            return false;
        }
    };
    let mut journal = Journal::open(
        &settings.logfile,
        owner.is_some(),
        settings.quiet,
        Level::least(settings.log_level, settings.debug),
    );
    if let Some(name) = &settings.name {
        journal = journal.named(name);
    }
    let lock = match taken {
        Some(Taken::Ours(lock)) => Some(lock),
        Some(Taken::Busy { pid, since }) => {
            say_busy(&journal, pid, since);
            return true;
        }
        None => None,
    };
    if lock.is_some() {
        journal.detail(&format!(
            "Lock acquired (PID: {}): {}",
            std::process::id(),
            lock_path.display()
        ));
    }
    match Run::new(settings, &journal) {
        Ok(run) => run.go().await.is_success(),
        Err(reason) => {
            journal.critical(&format!("{reason}; nothing was done"));
            if settings.quiet {
                complain(&format!("{reason}; nothing was done"));
            }
            false
        }
    }
}

/// Takes the run lock; not for a run that only looks, which may look while another restarts.
fn take_lock(settings: &Settings, path: &Path) -> Result<Option<Taken>, String> {
    if settings.purpose != Purpose::Heal {
        return Ok(None);
    }
    let taken = RunLock::take(path);
    taken
        .map(Some)
        .map_err(|reason| format!("cannot lock {}: {}", path.display(), plain(&reason)))
}

/// Makes the directory of the log, and says when the path can never be a log. Returns whose the
/// directory is, where we are root and somebody else owns it.
fn make_room(settings: &Settings) -> Result<Option<u32>, String> {
    let log = &settings.logfile;
    let cannot = |reason: &str| format!("cannot log to {}: {reason}", log.display());
    let directory = log.parent().unwrap_or(Path::new("/"));
    let metadata = std::fs::metadata(directory).or_else(|_| {
        std::fs::create_dir_all(directory)?;
        std::fs::metadata(directory)
    });
    let metadata = metadata.map_err(|reason| cannot(&plain(&reason)))?;
    if !metadata.is_dir() {
        return Err(cannot("Not a directory"));
    }
    if log.is_dir() {
        return Err(cannot("Is a directory"));
    }
    Ok(files::beside_root(&metadata))
}

fn say_busy(journal: &Journal, pid: Option<i32>, since: Option<Duration>) {
    let holder = pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string());
    let age = since.map_or_else(
        || "an unknown time".to_owned(),
        |since| format!("{} seconds", since.as_secs()),
    );
    let text =
        format!("Another run holds the lock (PID: {holder}, for {age}): nothing to do this time");
    let is_long = since.is_some_and(|since| since > LONG_RUN);
    journal.log(if is_long { Level::Warning } else { Level::Info }, &text);
}

/// A run and all that it has taken hold of.
struct Run<'a> {
    settings: &'a Settings,
    journal: &'a Journal,
    checker: Checker,
    signals: Signals,
    told_to_stop: bool,
    /// When the check began whose verdict holds.
    checked: SystemTime,
    /// The status of the last healthy answer.
    status: u16,
    /// What the last unhealthy check saw.
    trouble: Option<Trouble>,
    target: TargetFile,
    reserved: Option<TargetLock>,
    last_healthy: LastHealthy,
    /// The first cause that the look found.
    cause: Option<String>,
    /// When the server answered last; when it was asked first, where that is not known.
    away_since: Option<SystemTime>,
    held: Vec<Held>,
    /// Other instances, which are none of our business.
    spared: Vec<Process>,
    restart: Option<Restart>,
    /// When this phase is over.
    deadline: Instant,
}

impl<'a> Run<'a> {
    fn new(settings: &'a Settings, journal: &'a Journal) -> Result<Self, String> {
        let host = settings.url.host_str().unwrap_or_default();
        let target = TargetFile::prepare(&settings.state_dir, host, settings.port())?;
        Ok(Self {
            settings,
            journal,
            checker: Checker::new(&settings.url, &settings.trust)
                .map_err(|reason| format!("cannot set up the check: {reason}"))?,
            signals: Signals::catch()
                .map_err(|reason| format!("cannot catch signals: {}", plain(&reason)))?,
            told_to_stop: false,
            checked: SystemTime::now(),
            status: 0,
            trouble: None,
            last_healthy: LastHealthy::at(target.beside(".healthy")),
            cause: None,
            away_since: None,
            target,
            reserved: None,
            held: Vec::new(),
            spared: Vec::new(),
            restart: None,
            deadline: Instant::now(),
        })
    }

    async fn go(mut self) -> Outcome {
        let policy = Policy {
            purpose: self.settings.purpose,
            retries: self.settings.retries,
        };
        self.journal.info(&format!(
            "Starting health check for {}",
            self.settings.shown_url
        ));
        let (mut phase, mut action) = recovery::BEGINNING;
        loop {
            if let Action::Finish(outcome) = action {
                self.finish(outcome).await;
                return outcome;
            }
            let event = self.act(phase, action).await;
            if let Some(name) = self.signals.pending().await {
                self.told(phase, name);
            }
            (phase, action) = recovery::decide(policy, phase, event, self.told_to_stop);
        }
    }

    async fn act(&mut self, phase: Phase, action: Action) -> Event {
        match action {
            Action::Check => self.check(phase, Duration::ZERO).await,
            Action::CheckLater => self.check(phase, self.settings.retry_delay).await,
            Action::Reserve => self.reserve(),
            Action::Survey => self.survey().await,
            Action::Terminate => {
                self.terminate();
                self.wait(phase).await
            }
            Action::Kill => {
                self.kill();
                self.wait(phase).await
            }
            Action::Start => match self.start() {
                Ok(()) => self.wait(phase).await,
                Err(reason) => {
                    self.journal
                        .error(&format!("Cannot run the restart command: {reason}"));
                    Event::CommandFailed
                }
            },
            Action::Wait | Action::Finish(_) => self.wait(phase).await,
        }
    }

    async fn wait(&mut self, phase: Phase) -> Event {
        match phase {
            Phase::Terminating | Phase::Killing => self.await_exits(phase).await,
            Phase::Starting => self.await_start().await,
            _ => self.check(phase, Duration::ZERO).await,
        }
    }

    fn told(&mut self, phase: Phase, name: &str) {
        self.told_to_stop = true;
        let owed = matches!(
            phase,
            Phase::Terminating | Phase::Killing | Phase::Starting | Phase::Confirming
        );
        let what = if owed {
            "stopping once the server is started"
        } else {
            "stopping at once, nothing was done"
        };
        self.journal.warning(&format!("Received {name}: {what}"));
    }

    async fn check(&mut self, phase: Phase, delay: Duration) -> Event {
        if let Phase::Checking { failed } = phase {
            if failed > 0 {
                self.journal.warning(&format!(
                    "Check {failed} of {} failed: {}; next in {} seconds",
                    self.settings.retries + 1,
                    self.last_trouble(),
                    seconds(delay)
                ));
            }
        }
        let (asked, journal, settings) = (&self.checker, self.journal, self.settings);
        let mut began = self.checked;
        let checking = async {
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            journal.debug(&format!("Checking server health: {}", settings.shown_url));
            began = SystemTime::now();
            asked.check(settings.timeout).await
        };
        let verdict = tokio::select! {
            biased;
            name = self.signals.next() => {
                self.told(phase, name);
                return Event::Interrupted;
            }
            verdict = checking => verdict,
        };
        self.checked = began;
        match verdict {
            Verdict::Healthy { status, took } => {
                self.journal
                    .debug(&format!("Server responded with status {status}"));
                self.journal
                    .detail(&format!("It took {} seconds", seconds(took)));
                self.status = status;
                self.trouble = None;
                Event::Answers
            }
            Verdict::Unhealthy(trouble) => {
                if let Trouble::Status(status) = trouble {
                    self.journal
                        .debug(&format!("Server responded with status {status}"));
                }
                self.trouble = Some(trouble);
                if self.away_since.is_none() {
                    let last = self.last_healthy.ago();
                    self.away_since = last
                        .and_then(|ago| SystemTime::now().checked_sub(ago))
                        .or(Some(began));
                }
                Event::Silent
            }
        }
    }

    fn reserve(&mut self) -> Event {
        self.say_unresponsive();
        // One server of this host has many names.
        if net::place(&self.checker.addresses()) == net::Place::Here {
            let (state, port) = (&self.settings.state_dir, self.settings.port());
            match TargetFile::prepare(state, THIS_HOST, port) {
                Ok(target) => self.target = target,
                Err(reason) => {
                    self.journal.error(&reason);
                    return Event::Unable;
                }
            }
        }
        match self.target.reserve(self.checked) {
            Ok(Reserved::Ours { lock, late }) => {
                self.reserved = Some(lock);
                if late {
                    self.journal
                        .info("Another run has just restarted this server: checking again");
                    return Event::ReservedLate;
                }
                Event::Reserved
            }
            Ok(Reserved::Busy { pid }) => {
                let holder = pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string());
                self.journal.info(&format!(
                    "Another run is restarting this server (PID: {holder}): nothing to do this time"
                ));
                Event::Busy
            }
            Err(reason) => {
                self.journal.error(&format!(
                    "Cannot take the restart lock {}: {}",
                    self.target,
                    plain(&reason)
                ));
                Event::Unable
            }
        }
    }

    async fn finish(&self, outcome: Outcome) {
        match outcome {
            Outcome::Healthy => {
                self.last_healthy.note();
                self.journal
                    .info(&format!("✓ Server is healthy (status: {})", self.status));
            }
            Outcome::SteppedAside | Outcome::Interrupted => (),
            Outcome::Looked => self.say_what_would_be_done(),
            Outcome::Untouched => self
                .journal
                .critical("Server restart failed: nothing was touched"),
            Outcome::Unkillable => self.failed(),
            Outcome::Restarted
            | Outcome::InterruptedAfterStart
            | Outcome::CommandFailed
            | Outcome::NoAnswer => {
                self.report_start(outcome).await;
            }
        }
    }

    /// The end of a restart that did not heal the server.
    fn failed(&self) {
        self.journal.info(BANNER);
        self.journal.critical("Server restart failed");
    }

    fn say_unresponsive(&self) {
        self.journal.error(&format!(
            "✗ Server is unresponsive: {}",
            self.last_trouble()
        ));
    }

    fn last_trouble(&self) -> String {
        self.trouble
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default()
    }
}
