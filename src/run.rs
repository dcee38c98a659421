//! One run over one server: observe, decide, record and act, until the decision is to finish.

mod address;
mod announce;
mod certificate;
mod diagnose;
mod grace;
mod journald;
mod metrics;
mod owner;
mod pause;
mod ping;
mod port;
mod preflight;
mod recognise;
mod record;
mod ruling;
mod start;
mod stop;
mod unwedge;
mod wording;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use self::address::Files;
use self::ruling::Held;
use self::start::Restart;
use crate::announce::Announcement;
use crate::diagnosis::Finding;
use crate::health::{CheckError, Checker, Verdict};
use crate::journal::{BANNER, Journal, Level};
use crate::lock::{Reserved, RestartFile, RestartLock, RunLock, Taken};
use crate::policy::{self, Outage};
use crate::recovery::{self, Action, Event, Outcome, Phase, Policy, Purpose};
use crate::server::process::Process;
use crate::server::restart_command::Prepared;
use crate::server::select::{Facts, Selection};
use crate::server::stop::ProcessHandle;
use crate::settings::Settings;
use crate::state::StateFile;
use crate::state::last::LastFile;
use crate::state::time::Time;
use crate::sys::files::Directory;
use crate::sys::progress::Progress;
use crate::sys::signals::Signals;
use crate::text::{errno_text, seconds};

/// A run that holds its lock for longer than this is worth a warning.
const LONG_RUN: Duration = Duration::from_secs(600);

/// Mode of the log's directory where it has to be made.
const LOG_DIR_MODE: u32 = 0o755;

/// Runs once over one server. Returns whether that was a success. A log or a run lock that cannot be used is
/// an error, and no reason not to check and restart.
pub(crate) async fn run(settings: &Settings) -> bool {
    let directory = settings.logfile.parent().unwrap_or(Path::new("/"));
    let directory = Directory::make(directory, LOG_DIR_MODE);
    let taken = take_lock(settings, directory.as_ref());
    let opened = in_directory(directory.as_ref(), |directory| {
        directory.append(
            settings.logfile.file_name().unwrap_or_default(),
            Journal::MODE,
        )
    });
    drop(directory);
    let mut journal = Journal::new(
        &settings.logfile,
        opened,
        settings.quiet,
        Level::least(settings.log_level, settings.debug),
    );
    if let Some(name) = &settings.name {
        journal = journal.named(name);
    }
    let lock_path = RunLock::path(&settings.logfile);
    let lock = match taken {
        Ok(Some(Taken::Ours(lock))) => {
            journal.detail(&format!(
                "Lock acquired (PID: {}): {}",
                std::process::id(),
                lock_path.display()
            ));
            Ok(Some(lock))
        }
        Ok(Some(Taken::Busy { pid, since })) => {
            say_busy(&journal, pid, since);
            return !journal.is_lost();
        }
        Ok(None) => Ok(None),
        Ok(Some(Taken::Theirs { holder })) => {
            let remedy = "give another --logfile, in a directory that no other user can change";
            say_unusable(&journal, &lock_path, &holder, remedy);
            Err(())
        }
        Err(reason) => {
            let remedy = "remove that file, or give another --logfile";
            say_unusable(&journal, &lock_path, &errno_text(&reason), remedy);
            Err(())
        }
    };
    let (outcome, summary) = Run::new(settings, &journal).await.go().await;
    let is_success =
        outcome.is_success() || settings.purpose != Purpose::Heal && outcome.has_looked();
    let is_success = is_success && lock.is_ok() && !journal.is_lost();
    let is_to_ping = !matches!(outcome, Outcome::SteppedAside | Outcome::Interrupted);
    if settings.purpose == Purpose::Heal && is_to_ping {
        ping::ping(settings, &journal, lock, is_success, summary).await;
    }
    is_success
}

/// Takes the run lock. A trial run takes none, because it may examine the server while another run restarts it.
fn take_lock(
    settings: &Settings,
    directory: Result<&Directory, &io::Error>,
) -> io::Result<Option<Taken>> {
    if settings.purpose != Purpose::Heal {
        return Ok(None);
    }
    let path = RunLock::path(&settings.logfile);
    let name = path.file_name().unwrap_or_default();
    in_directory(directory, |directory| {
        RunLock::take(directory, name).map(Some)
    })
}

fn in_directory<T>(
    directory: Result<&Directory, &io::Error>,
    open: impl FnOnce(&Directory) -> io::Result<T>,
) -> io::Result<T> {
    match directory {
        Ok(directory) => open(directory),
        Err(reason) => Err(io::Error::new(reason.kind(), errno_text(reason))),
    }
}

fn say_unusable(journal: &Journal, lock: &Path, reason: &str, remedy: &str) {
    journal.error(&format!(
        "Cannot use the run lock {}: {reason}; this run continues without it, so another run can work at the same time: {remedy}",
        lock.display()
    ));
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

/// Makes what an earlier run has written this run's own.
fn adopt(state: &mut StateFile, settings: &Settings, began: Time) {
    if let Some(listen) = settings.listen {
        state.forget_another_address(listen);
    }
    if policy::is_absurd(&state.state.ledger, began) {
        state.set_aside("it contains times in the future");
    }
    state.state.server = settings.shown_name();
    state.state.url.clone_from(&settings.shown_url);
    state.state.log = Some(settings.logfile.display().to_string());
}

/// A run and all that it has taken hold of.
struct Run<'a> {
    settings: &'a Settings,
    journal: &'a Journal,
    checker: Checker,
    signals: Signals,
    is_stopping: bool,
    /// When the run began.
    began: Time,
    /// When the last completed check began.
    checked: SystemTime,
    /// How long it took.
    took: Duration,
    /// The last check's verdict.
    verdict: Option<Verdict>,
    state: StateFile,
    restart_lock: Option<RestartLock>,
    /// What the restart command's files say, once they were read.
    files: Option<Files>,
    /// Which processes are the server, once they were searched for.
    selection: Option<Selection>,
    /// The causes that the diagnosis found, the most specific first.
    causes: Vec<Finding>,
    /// What it read beside them, as the log shows it.
    evidence: Vec<String>,
    /// What is to be announced when this run ends.
    announcements: Vec<Announcement>,
    /// Those that could not be.
    unkept: Vec<Announcement>,
    /// What the diagnosis found that blocks the server and could be ended without it.
    blocking: Vec<Finding>,
    /// What the run before this one saw.
    last: LastFile,
    /// What the restart policy was asked about.
    outage: Option<Outage>,
    /// Whether the state directory could be used when the events were put into the outbox.
    can_use_outbox: bool,
    /// Why a line could not be appended to the history.
    history_failed: Option<String>,
    /// When the end of a hold was last asked for.
    resume: Option<Time>,
    /// Why a restart waits.
    hold: Option<Held>,
    /// Whether something that blocked the server was ended.
    has_unwedged: bool,
    /// The processes that were stopped.
    stopped: Vec<i32>,
    /// Handles of the processes that are to be stopped.
    handles: Vec<ProcessHandle>,
    /// The user of the server before it was stopped.
    owner: Option<u32>,
    /// UID of the old server's listening socket.
    stopped_socket_uid: Option<u32>,
    /// Who answers in the server's place, in words.
    taker: Option<String>,
    /// Other instances, which are left alone.
    spared: Vec<Process>,
    prepared: Option<Prepared>,
    /// The user that the restart command runs as, if that is another.
    runs_as: Option<String>,
    /// Whether the restart command was run.
    is_starting: bool,
    /// What was last seen at the server's address after the start.
    answering: Option<Facts>,
    /// What the restart command started.
    started: Vec<Process>,
    restart: Option<Restart>,
    /// When this phase is over.
    deadline: Instant,
}

impl<'a> Run<'a> {
    async fn new(settings: &'a Settings, journal: &'a Journal) -> Self {
        let mut state = StateFile::open(settings.state_file(".json")).await;
        let began = Time::now();
        adopt(&mut state, settings, began);
        let last = LastFile::open(settings.state_file(".last"), journal.device()).await;
        let checker = Checker::new(&settings.url, &settings.trust);
        // Who else listens at another address of the name is not the server.
        let listens = settings
            .listen
            .or(state.known().and_then(|known| known.listens));
        let listens = listens.filter(|listens| listens.port() == settings.port());
        checker.restrict_to(listens.map(|listens| listens.ip()));
        Self {
            settings,
            journal,
            checker,
            signals: Signals::catch(),
            is_stopping: false,
            began,
            checked: SystemTime::now(),
            took: Duration::ZERO,
            verdict: None,
            state,
            restart_lock: None,
            files: None,
            selection: None,
            causes: Vec::new(),
            evidence: Vec::new(),
            announcements: Vec::new(),
            can_use_outbox: false,
            history_failed: None,
            unkept: Vec::new(),
            blocking: Vec::new(),
            last,
            outage: None,
            resume: None,
            hold: None,
            has_unwedged: false,
            stopped: Vec::new(),
            handles: Vec::new(),
            owner: None,
            stopped_socket_uid: None,
            taker: None,
            spared: Vec::new(),
            prepared: None,
            runs_as: None,
            is_starting: false,
            answering: None,
            started: Vec::new(),
            restart: None,
            deadline: Instant::now(),
        }
    }

    /// The whole run: how it ended, and that in one line.
    async fn go(mut self) -> (Outcome, String) {
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
                let summary = self.finish(outcome).await;
                return (outcome, summary);
            }
            let event = self.act(phase, action).await;
            if let Some(name) = self.signals.pending().await {
                self.on_signal(phase, name);
            }
            let before = phase;
            (phase, action) = recovery::decide(policy, phase, event, self.is_stopping);
            self.record(before, phase).await;
        }
    }

    /// Logs what a change of phase means.
    async fn record(&mut self, before: Phase, after: Phase) {
        if recovery::is_found_down(before, after) && self.error().is_some() {
            self.say_unresponsive();
        }
        if recovery::begins_restart(before, after) {
            self.say_restarting();
            self.note_attempt().await;
        }
    }

    async fn act(&mut self, phase: Phase, action: Action) -> Event {
        match action {
            Action::Check => self.check(phase, Duration::ZERO).await,
            Action::CheckLater => self.check(phase, self.settings.retry_delay).await,
            Action::CheckLonger => self.check_longer(phase).await,
            Action::ReadPause => self.read_pause().await,
            Action::AwaitYoung => self.await_young().await,
            Action::Unwedge => self.unwedge(phase).await,
            Action::Recognise => self.recognise().await,
            Action::Reserve => self.reserve().await,
            Action::Search => self.search().await,
            Action::AskItself => self.ask_itself().await,
            Action::Diagnose(plan) => self.diagnose(plan).await,
            Action::Prepare(plan) => self.prepare(plan).await,
            Action::Dump => self.dump().await,
            Action::Compare => self.compare().await,
            Action::Terminate => {
                self.terminate();
                self.wait(phase).await
            }
            Action::Kill => {
                self.kill();
                self.wait(phase).await
            }
            Action::Start => self.start().await,
            Action::StartLater => self.start_later().await,
            Action::Identify => self.identify().await,
            Action::AskProxy => self.ask_proxy().await,
            // `go` ends a run before it acts on `Finish`.
            Action::Wait | Action::Finish(_) => self.wait(phase).await,
        }
    }

    async fn wait(&mut self, phase: Phase) -> Event {
        match phase {
            Phase::Terminating | Phase::Killing => self.await_exits(phase).await,
            _ => self.await_start().await,
        }
    }

    fn on_signal(&mut self, phase: Phase, name: &str) {
        self.is_stopping = true;
        let what = if recovery::is_owed_a_start(phase) {
            "this run ends once the server is started"
        } else if self.has_unwedged || matches!(phase, Phase::Unwedging(_)) {
            "this run ends now; the server is not restarted"
        } else {
            "this run ends now; nothing was touched"
        };
        self.journal.warning(&format!("Received {name}: {what}"));
    }

    async fn check(&mut self, phase: Phase, delay: Duration) -> Event {
        self.check_within(phase, delay, self.settings.timeout).await
    }

    /// Checks the server after that delay, within that time.
    async fn check_within(&mut self, phase: Phase, delay: Duration, limit: Duration) -> Event {
        if let Phase::Checking { failed } = phase {
            if failed > 0 {
                self.journal.warning(&format!(
                    "Check {failed} of {} failed: {}; next in {} seconds",
                    self.settings.retries + 1,
                    self.last_error(),
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
            asked.check(limit).await
        };
        let verdict = tokio::select! {
            biased;
            name = self.signals.next() => {
                self.on_signal(phase, name);
                return Event::Interrupted;
            }
            verdict = checking => verdict,
        };
        self.checked = began;
        self.took = began.elapsed().unwrap_or_default();
        let event = match &verdict {
            Verdict::Healthy { status, took, .. } => {
                self.journal
                    .debug(&format!("Server responded with status {status}"));
                self.journal
                    .detail(&format!("It took {} seconds", seconds(*took)));
                Event::Answers
            }
            Verdict::Unhealthy(error) => {
                if let CheckError::Status { status } = error {
                    self.journal
                        .debug(&format!("Server responded with status {status}"));
                }
                Event::Silent
            }
        };
        self.verdict = Some(verdict);
        event
    }

    /// Why the last check failed; none where it found the server healthy.
    fn error(&self) -> Option<&CheckError> {
        self.verdict.as_ref().and_then(Verdict::error)
    }

    /// The peer of the last check, where that found the server healthy.
    fn peer(&self) -> Option<SocketAddr> {
        self.verdict.as_ref().and_then(Verdict::peer)
    }

    /// The restart lock of the server's address.
    async fn restart_file(&mut self) -> RestartFile {
        let files = self.files().await;
        let address = self.address(&files);
        // One server of this host has many names: the lock is that of its address, IPv4 first.
        let mut ips = address.ips.clone();
        ips.sort();
        let key = match ips.first() {
            Some(ip) if !ip.is_unspecified() => ip.to_canonical().to_string(),
            None if address.is_of_url => {
                self.settings.url.host_str().unwrap_or_default().to_owned()
            }
            _ => Ipv4Addr::UNSPECIFIED.to_string(),
        };
        RestartFile::new(&self.settings.state_dir, &key, address.port)
    }

    async fn reserve(&mut self) -> Event {
        let file = self.restart_file().await;
        match file.reserve(self.checked).await {
            Reserved::Ours { lock, late } => {
                self.restart_lock = Some(lock);
                self.refresh().await;
                if late {
                    self.journal
                        .info("Another run has restarted this server, or tried to: checking again");
                    return Event::ReservedLate;
                }
            }
            Reserved::Busy { pid } => {
                let holder = pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string());
                self.journal.info(&format!(
                    "Another run is restarting this server (PID: {holder}): nothing to do this time"
                ));
                return Event::Busy;
            }
            Reserved::Unusable { reason } => {
                self.state.give_up(reason);
                self.say_state();
            }
        }
        Event::Reserved
    }

    /// Takes the restart lock, so that only one run at a time writes down how the server is. Returns whether this one may.
    async fn take_turn(&mut self) -> bool {
        if self.restart_lock.is_some() {
            return true;
        }
        let file = self.restart_file().await;
        match file.reserve(self.checked).await {
            Reserved::Ours { lock, .. } => {
                self.restart_lock = Some(lock);
                self.refresh().await;
                true
            }
            Reserved::Busy { .. } => false,
            Reserved::Unusable { reason } => {
                self.state.give_up(reason);
                true
            }
        }
    }

    /// Reads the state again, for a run that has the restart lock: another run may have changed it before.
    async fn refresh(&mut self) {
        if self.state.refresh().await {
            adopt(&mut self.state, self.settings, self.began);
            self.forget_other_boots();
            self.carry_out_resume();
        }
    }

    async fn finish(&mut self, outcome: Outcome) -> String {
        match outcome {
            Outcome::Healthy => {
                if self.settings.purpose == Purpose::DryRun {
                    self.warn_of_mistake().await;
                }
                if self.settings.purpose == Purpose::Heal && self.is_warning_due() {
                    let known = self.state.known();
                    let owner = known.and_then(|known| known.uid.zip(known.gid));
                    let account = self.account_of(owner).unwrap_or_default();
                    self.warn_of_command(account.as_ref()).await;
                }
                let status = self.verdict.as_ref().and_then(Verdict::status);
                self.journal.info(&format!(
                    "✓ Server is healthy (status: {})",
                    status.unwrap_or_default()
                ));
            }
            Outcome::Unwedged => self.sum_up(),
            Outcome::Held => {
                self.say_held();
                self.say_nothing_would_be_done();
            }
            Outcome::Paused => (),
            Outcome::SteppedAside | Outcome::Interrupted | Outcome::ProxyFails => (),
            Outcome::TakenOver => {
                if self.restart.is_some() {
                    self.report_start(outcome).await;
                }
            }
            Outcome::Looked => self.say_what_would_be_done(),
            Outcome::NotAsked => self.say_not_asked(),
            Outcome::PortTaken | Outcome::Unproven => {
                self.say_why_not();
                if self.settings.purpose == Purpose::Heal {
                    self.say_untouched();
                } else {
                    self.say_nothing_would_be_done();
                }
            }
            Outcome::Untouched => self.say_untouched(),
            Outcome::Unkillable => self.failed(),
            Outcome::Restarted
            | Outcome::InterruptedAfterStart
            | Outcome::OwnerChanged
            | Outcome::InstanceEnded
            | Outcome::CommandFailed
            | Outcome::NoAnswer => {
                self.report_start(outcome).await;
            }
        }
        let ended = Time::now();
        self.keep(outcome).await;
        let summary = self.in_one_line();
        self.deliver().await;
        self.write_metrics(outcome, ended).await;
        self.say_state();
        summary
    }

    /// Says, once, that the state directory cannot be used, or that the state in it made no sense.
    fn say_state(&mut self) {
        if let Some(damage) = self.state.damage() {
            let file = self.state.path().display();
            self.journal.warning(&format!(
                "The state file {file} cannot be understood: {damage}; it is kept as {file}.bad, and a new one is begun"
            ));
        }
        if let Some(reason) = self.state.complaint() {
            self.journal.warning(&format!(
                "Cannot use the state directory {}: {reason}; this run continues without the record and the restart lock: \
                 make the directory writable, or give another --state-dir",
                self.settings.state_dir.display()
            ));
        } else if let Some(reason) = self
            .history_failed
            .take()
            .filter(|_| !self.state.is_unusable())
        {
            self.journal.warning(&format!(
                "Cannot write {}: {reason}; history and availability lack what this run has seen",
                self.settings.state_file(".history.jsonl").display()
            ));
        }
    }

    /// The end of a run that could not begin the restart.
    fn say_untouched(&self) {
        self.journal.critical(if self.has_unwedged {
            "Server was not restarted: only what blocked it was ended"
        } else {
            "Server was not restarted: nothing was touched"
        });
    }

    /// The end of a restart that did not heal the server.
    fn failed(&self) {
        self.journal.info(BANNER);
        self.journal.critical("Server restart failed");
    }

    fn say_unresponsive(&self) {
        self.journal
            .error(&format!("✗ Server is unresponsive: {}", self.last_error()));
    }

    /// Shows on a terminal what is awaited, until it is dropped.
    fn progress(&self, what: &str, limit: Duration) -> Option<Progress> {
        (!self.settings.quiet).then(|| Progress::awaiting(what, Some(limit)))
    }

    fn last_error(&self) -> String {
        self.error().map(ToString::to_string).unwrap_or_default()
    }
}
