//! The part of a run before anything is stopped: which processes are the server, whether it answers at its own address,
//! and whether a restart can work.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use nix::unistd::{Uid, geteuid};
use tokio::time::Instant;

use super::Run;
use super::address::{Address, Files, reachable, shown};
use super::start::RETRY;
use super::wording::{describe, described, first_of, pids};
use crate::health::{CheckError, Verdict};
use crate::proc::net::{self, Locality, takes, unmapped};
use crate::recovery::{Event, Phase, Plan, PortHolder, Purpose, Situation};
use crate::redact;
use crate::server::config_dir::config_dir;
use crate::server::process::Process;
use crate::server::restart_command::{self, PrepareError, Prepared};
use crate::server::search::{self, Recorded, Search, SearchError};
use crate::server::select::{self, Asked, Facts, Selection, Spared};
use crate::server::stop::ProcessHandle;
use crate::sys::account::{Account, name_of};
use crate::sys::name_services::NameServiceError;
use crate::sys::signals;
use crate::text::{errno_text, seconds};

/// Time between two warnings of the restart command.
const WARNING_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

impl Run<'_> {
    /// Searches at that address.
    pub(super) async fn facts(
        &self,
        address: &Address,
        files: &Files,
    ) -> Result<Facts, SearchError> {
        let known = self.state.known();
        let recorded = known.and_then(|known| {
            Some(Recorded {
                pid: known.pid?,
                start_time: known.start?,
                argv: known.argv?,
            })
        });
        let mut users = self.proven(files);
        users.extend(known.and_then(|known| known.uid));
        users.extend(known.and_then(|known| known.socket_uid));
        let search = Search {
            pattern: self.settings.process_pattern.clone(),
            addresses: address.ips.clone(),
            port: address.port,
            script: restart_command::myvnc_script(&self.settings.restart_cmd),
            config_dir: config_dir(&self.settings.restart_cmd),
            recorded,
            users,
            recorded_user: known.and_then(|known| known.uid),
            is_started: self.is_starting,
        };
        search::search(&search).await
    }

    /// Decides which processes are the server.
    pub(super) fn choose(&self, facts: Facts, address: &Address, files: &Files) -> Selection {
        let known = self.state.known();
        let is_refused = self.error().is_some_and(CheckError::is_refused);
        let asked = Asked {
            is_named: self.settings.process_pattern.is_some(),
            user: self.settings.user.map(Uid::as_raw),
            by_port_alone: self.settings.by_port_alone,
            is_remote: address.is_of_url && net::locality(&address.ips) == Locality::Elsewhere,
            is_refused: is_refused && self.is_at_url(address),
            recorded: known.and_then(|known| known.pid.zip(known.start)),
            cookie: known.and_then(|known| known.cookie),
            uid: known.and_then(|known| known.uid),
            started: self.state.state.started.clone(),
            proven: self.proven(files),
            holders: self.holders(address, files),
        };
        select::choose(facts, &asked, address.port)
    }

    /// Looks for the server's processes and for who holds its address.
    pub(super) async fn search(&mut self) -> Event {
        signals::keep_children();
        let files = self.files().await;
        let address = self.address(&files);
        let facts = match self.facts(&address, &files).await {
            Ok(facts) => facts,
            Err(reason) => {
                self.journal.error(&format!(
                    "Cannot look for the server's processes in /proc: {reason}"
                ));
                return Event::Unable;
            }
        };
        let selection = self.choose(facts, &address, &files);
        let situation = self.situation(&selection);
        self.selection = Some(selection);
        Event::Searched(situation)
    }

    fn situation(&self, selection: &Selection) -> Situation {
        let has_no_address = self.checker.addresses().is_empty();
        Situation {
            is_running: !selection.server.is_empty(),
            port: selection.port,
            was_asked: self.error().is_none_or(|error| !error.is_not_asked()),
            is_elsewhere: self.error().is_some()
                && selection
                    .address
                    .is_some_and(|address| self.leads_elsewhere(address)),
            may_be_hidden: has_no_address && self.is_any_of_server(&selection.spared),
            is_young: self.young(selection).is_some(),
        }
    }

    /// Whether one of these runs as a user who runs the server. Others can choose their arguments.
    fn is_any_of_server(&self, spared: &[(Process, Spared)]) -> bool {
        let mut users = spared.iter().map(|(process, _)| process.uid);
        users.any(|uid| self.is_known_or_proven(uid))
    }

    /// Asks the server at its own address: what stands before it may be to blame.
    pub(super) async fn ask_itself(&mut self) -> Event {
        let Some(bound) = self.selection.as_ref().and_then(|one| one.address) else {
            return Event::NotAsked;
        };
        let address = SocketAddr::new(reachable(bound.ip()), bound.port());
        self.journal
            .debug(&format!("Checking the server itself at {address}"));
        let verdict = tokio::select! {
            biased;
            name = self.signals.next() => {
                self.on_signal(Phase::Searching, name);
                return Event::Interrupted;
            }
            verdict = self.checker.ask(address, self.settings.timeout) => verdict,
        };
        let status = match &verdict {
            Verdict::Healthy { status, .. } => *status,
            Verdict::Unhealthy(error) if error.is_not_asked() => {
                self.journal.warning(&format!(
                    "The server itself cannot be asked at {address}: {error}"
                ));
                return Event::NotAsked;
            }
            Verdict::Unhealthy(error) => {
                self.journal.warning(&format!(
                    "The server itself does not answer at {address} either: {error}"
                ));
                return Event::Silent;
            }
        };
        if let Some(event) = self.taken_by_who_answers() {
            return event;
        }
        let urls = self.checker.addresses();
        let is_same =
            bound.port() == self.settings.port() && (urls.is_empty() || takes(bound.ip(), &urls));
        if self.error().is_some_and(CheckError::is_not_asked) {
            self.journal.error(&format!(
                "The server itself answers at {address} (status: {status}), but {} cannot be asked: {}; correct --url, \
                 the name service or this machine's network",
                self.settings.shown_url,
                self.last_error()
            ));
            return Event::OnlyItselfAnswers;
        }
        let before = self.who_is_before(bound).await;
        if is_same {
            self.verdict = Some(verdict);
            self.journal.warning(&format!(
                "The server answers at {address} (status: {status}), but {} leads to {before} too; write {address} in the \
                 URL, or set listen",
                self.settings.shown_url
            ));
            return Event::AnswersAmongOthers;
        }
        self.journal.error(&format!(
            "The server itself answers at {address} (status: {status}), but the check of {} fails at {before}: {}; look at \
             that proxy",
            self.settings.shown_url,
            self.last_error()
        ));
        Event::OnlyItselfAnswers
    }

    /// At the server's own address answers a user who is neither the recorded one nor proven.
    fn taken_by_who_answers(&mut self) -> Option<Event> {
        let selection = self.selection.as_ref()?;
        let socket = selection.socket.clone()?;
        let recorded = self.state.known().and_then(|known| known.socket_uid)?;
        let is_proven = self.proven(self.files.as_ref()?).contains(&socket.uid);
        if recorded == socket.uid || is_proven {
            return None;
        }
        let mut server = selection.server.iter();
        let process = server.find(|one| selection.listening.contains(&one.pid));
        let place = unmapped(socket.address).to_string();
        Some(self.taken_over(&place, socket.uid, process.cloned().as_ref()))
    }

    /// Who holds the URL's address besides the server's own socket, in words.
    async fn who_is_before(&mut self, own: SocketAddr) -> String {
        let urls: Vec<IpAddr> = self.checker.addresses();
        let ips: Vec<IpAddr> = urls
            .iter()
            .filter(|ip| own.port() != self.settings.port() || !takes(own.ip(), &[**ip]))
            .copied()
            .collect();
        let port = self.settings.port();
        let place = ips.first().map_or(
            self.settings.url.host_str().unwrap_or_default().to_owned(),
            |ip| SocketAddr::new(*ip, port).to_string(),
        );
        if net::locality(&ips) != Locality::Here {
            return format!("the proxy at {place}");
        }
        let address = Address {
            ips,
            port,
            is_of_url: true,
            is_of_config: false,
        };
        let files = self.files().await;
        let Ok(facts) = self.facts(&address, &files).await else {
            return format!("the proxy at {place}");
        };
        let inodes: Vec<u64> = facts
            .listeners
            .iter()
            .flatten()
            .map(|one| one.inode)
            .collect();
        let candidate = facts.candidates.iter().find(|one| {
            let own = one.listens.as_deref().unwrap_or_default();
            own.iter().any(|held| inodes.contains(&held.inode))
        });
        let process = facts
            .holder
            .or_else(|| candidate.map(|one| one.process.clone()));
        let uid = facts.listeners.iter().flatten().map(|one| one.uid).next();
        match (process, uid) {
            (Some(process), _) => format!("the proxy at {place}, {}", described(&process)),
            (None, Some(uid)) => {
                format!("the proxy at {place}, a process of user {}", name_of(uid))
            }
            (None, None) => format!("{place}, where nobody listens"),
        }
    }

    /// Says why nothing can be done about the server.
    pub(super) fn say_why_not(&self) {
        let Some(selection) = &self.selection else {
            return;
        };
        let files = self.files.clone().unwrap_or_default();
        let address = self.address(&files);
        let place = shown(&address);
        let text = match (&selection.in_doubt, &selection.stranger, selection.port) {
            (Some(process), _, _) => format!(
                "{} can be the server, but its state cannot be read, so nothing is started beside it: find out why \
                 /proc/{pid}/stat or /proc/{pid}/status cannot be read; if the process is not the server, end it",
                describe(process),
                pid = process.pid
            ),
            (None, Some(stranger), _) => {
                let bound = unmapped(stranger.address).to_string();
                self.taken(&bound, stranger.uid, stranger.process.as_ref())
            }
            (None, None, PortHolder::Several) => format!(
                "More than one process can be the server at {place}, and nothing proves which one is; set listen, user or \
                 process-pattern"
            ),
            (None, None, _) => format!(
                "Who listens at {place} cannot be read, so nothing proves which process is the server; allow the monitor \
                 netlink sockets or /proc/net/tcp, and CAP_SYS_PTRACE, or set process-pattern"
            ),
        };
        self.journal.error(&text);
    }

    /// Whose the port is by now, in words.
    pub(super) fn who_holds(&self, place: &str, uid: u32, holder: Option<&Process>) -> String {
        let who = holder.map_or_else(|| "a process that cannot be seen".to_owned(), describe);
        // A socket can be handed to another user's process.
        let other = holder.filter(|one| one.uid != uid);
        let of = name_of(other.map_or(uid, |one| one.uid));
        let what = other.map_or(String::new(), |_| {
            format!("the socket of user {} at ", name_of(uid))
        });
        let known = self.state.known();
        let recorded = known.and_then(|known| known.socket_uid);
        let whose = match recorded {
            Some(recorded) if recorded != uid => {
                format!(", but the server runs as user {}", name_of(recorded))
            }
            _ => String::new(),
        };
        format!("{who} of user {of} holds {what}{place}{whose}")
    }

    /// Says whose the port is by now, and how to accept that user.
    pub(super) fn taken(&self, place: &str, uid: u32, holder: Option<&Process>) -> String {
        let (user, who) = (name_of(uid), self.who_holds(place, uid, holder));
        let files = self.files.clone().unwrap_or_default();
        let holders = self.holders(&self.address(&files), &files);
        let can_hold = holders.is_none_or(|holders| holders.contains(&uid));
        let remedy = if can_hold && self.proven(&files).contains(&uid) {
            "if it is a proxy, set listen to the server's own ADDRESS:PORT; if it is the server, set process-pattern; \
             otherwise end it"
                .to_owned()
        } else {
            format!(
                "if it is the server, set user = \"{user}\"; if it is a proxy, set listen to the server's own ADDRESS:PORT; \
                 otherwise end it"
            )
        };
        format!("The server's port is taken: {who}; {remedy}")
    }

    /// Says that the server was not asked, and why.
    pub(super) fn say_not_asked(&self) {
        let running = self
            .selection
            .as_ref()
            .and_then(|selection| {
                let spared = selection.spared.iter().map(|(process, _)| process);
                selection.server.iter().chain(spared).next()
            })
            .map(|process| format!("; {} can be healthy and is left alone", describe(process)));
        let (what, remedy) = match self.error() {
            Some(error) if error.is_unresolved() => (
                "The URL's host has no address",
                "correct --url or the name service",
            ),
            Some(CheckError::Incompatible(_)) => (
                "The monitor has no TLS in common with the server",
                "see BUGS of monitor_myvnc(1)",
            ),
            _ => (
                "The check failed on the monitor's own side",
                "look at this machine's network, limits and filters",
            ),
        };
        self.journal.error(&format!(
            "{what}, so the server was not asked{}; {remedy}",
            running.unwrap_or_default()
        ));
    }

    /// Looks at everything that can keep a restart from working, and gets ready what it needs.
    pub(super) async fn prepare(&mut self, plan: Plan) -> Event {
        let command = &self.settings.restart_cmd;
        if let Some(reason) = restart_command::unusable(command).await {
            self.journal.error(&format!(
                "The restart command cannot be run: {reason}; correct --restart-cmd"
            ));
            return Event::Unable;
        }
        let Some(selection) = self.selection.clone() else {
            return Event::Unable;
        };
        // Whether one whose start time is not known ends during the restart cannot be seen.
        let spared = selection.spared.iter();
        let spared = spared.filter(|(_, reason)| *reason != Spared::StateUnreadable);
        self.spared = spared.map(|(process, _)| process.clone()).collect();
        let owner = match self.owner(&selection) {
            Ok(owner) => owner,
            Err(unproven) => {
                let user = name_of(unproven.uid);
                self.journal.error(&format!(
                    "{} of user {user} holds the server's port, and nothing proves that {user} runs the server, so the \
                     restart command's user is not known; set run-as to the server's user; if that is not {user}, end the \
                     process",
                    describe(&unproven)
                ));
                return Event::Unable;
            }
        };
        let accounts = |run: &Self| run.account_of(owner);
        let account = match self
            .patiently(plan, accounts, |error| Some(error.reason))
            .await
        {
            Ok(account) => account,
            Err(reason) => {
                self.journal.error(&reason.to_string());
                return Event::Unable;
            }
        };
        if self.settings.purpose == Purpose::DryRun {
            self.warn_of_mistake().await;
        }
        if self.settings.purpose == Purpose::Heal {
            self.warn_of_command(account.as_ref()).await;
            if !self.get_ready(plan, account.as_ref()).await {
                return Event::Unable;
            }
        }
        if plan == Plan::Restart && !self.open_handles(&selection) {
            return Event::Unable;
        }
        Event::Prepared
    }

    /// Looks something up; if that lacked a process or memory, tries again each second for as long as a start may take.
    async fn patiently<T, E>(
        &mut self,
        plan: Plan,
        look_up: impl Fn(&Self) -> Result<T, E>,
        reason: impl Fn(&E) -> Option<NameServiceError>,
    ) -> Result<T, E> {
        let deadline = Instant::now() + self.settings.start_timeout;
        loop {
            let found = look_up(self);
            let reason = found.as_ref().err().and_then(&reason);
            let Some(lack) = reason.filter(NameServiceError::is_for_lack) else {
                return found;
            };
            if self.is_stopping || Instant::now() >= deadline {
                return found;
            }
            self.journal.warning(&format!(
                "Cannot look up the restart command's user: {lack}; next attempt in {} second",
                seconds(RETRY)
            ));
            tokio::select! {
                biased;
                name = self.signals.next() => self.on_signal(Phase::Preparing(plan), name),
                () = tokio::time::sleep(RETRY) => (),
            }
        }
    }

    /// Opens all that the start needs. Returns whether that is there.
    async fn get_ready(&mut self, plan: Plan, account: Option<&Account>) -> bool {
        let output = self.settings.output();
        let prepare =
            |run: &Self| Prepared::new(&run.settings.restart_cmd, &run.settings.output(), account);
        let reason = |error: &PrepareError| match error {
            PrepareError::Groups(_, reason) => Some(*reason),
            _ => None,
        };
        match self.patiently(plan, prepare, reason).await {
            Ok((prepared, lost)) => {
                self.prepared = Some(prepared);
                let other = account.filter(|account| !account.is_own());
                self.runs_as = other.map(Account::shown);
                if let Some(reason) = lost {
                    self.journal.warning(&format!(
                        "Cannot write {}: {}; the restart command's output is discarded",
                        output.display(),
                        errno_text(&reason)
                    ));
                }
                true
            }
            Err(reason) => {
                self.journal.error(&format!(
                    "The restart command could not be started: {reason}"
                ));
                false
            }
        }
    }

    /// Names what matches and is left alone.
    pub(super) fn say_spared(&self) {
        let Some(selection) = &self.selection else {
            return;
        };
        let (first, more) = first_of(&selection.spared);
        for (process, reason) in first {
            self.journal
                .warning(&format!("Left alone: {}: {reason}", describe(process)));
        }
        if more > 0 {
            self.journal
                .warning(&format!("Left alone: {more} further processes"));
        }
    }

    /// Opens a handle of each process of the server. Returns whether they may be signalled.
    fn open_handles(&mut self, selection: &Selection) -> bool {
        self.handles = selection
            .server
            .iter()
            .cloned()
            .filter_map(ProcessHandle::new)
            .collect();
        let handles = std::mem::take(&mut self.handles).into_iter();
        let (unrelated, handles) = handles.partition(|handle| {
            let process = &handle.process;
            handle.forbidden().is_some()
                && !selection.listening.contains(&process.pid)
                && !self.is_known_or_proven(process.uid)
        });
        self.handles = handles;
        self.say_unrelated(&unrelated);
        let forbidden: Vec<_> = self
            .handles
            .iter()
            .filter_map(|handle| handle.forbidden().map(|reason| (&handle.process, reason)))
            .collect();
        let (first, more) = first_of(&forbidden);
        for (process, reason) in first {
            let owner = name_of(process.uid);
            let remedy = if process.uid == 0 {
                "root".to_owned()
            } else {
                format!("root or {owner}")
            };
            self.journal.error(&format!(
                "Cannot signal {} of user {owner}: {reason}; run the monitor as {remedy}, or restrict the search with --user",
                describe(process)
            ));
        }
        if more > 0 {
            self.journal
                .error(&format!("Cannot signal {more} further processes"));
        }
        forbidden.is_empty()
    }

    /// Names processes of unknown users that match, hold no port and may not be signalled. They are left alone: a
    /// process must not keep the server down by its arguments alone.
    fn say_unrelated(&self, unrelated: &[ProcessHandle]) {
        let (first, more) = first_of(unrelated);
        for handle in first {
            let process = &handle.process;
            self.journal.warning(&format!(
                "Left alone: {} of user {}: it may not be signalled, and holds no port",
                describe(process),
                name_of(process.uid)
            ));
        }
        if more > 0 {
            self.journal
                .warning(&format!("Left alone: {more} further processes"));
        }
    }

    /// Once a day, warns of a restart command that cannot work, or, as root, that others can change.
    pub(super) async fn warn_of_command(&mut self, account: Option<&Account>) {
        if !self.is_warning_due() {
            return;
        }
        let command = &self.settings.restart_cmd;
        let writable = restart_command::writable_by_others(command, account, geteuid());
        if let Some(text) = writable.await {
            self.journal.warning(&text);
        }
        self.warn_of_mistake().await;
        self.state.state.warned = unix_time();
    }

    /// Warns of a restart command that cannot work.
    pub(super) async fn warn_of_mistake(&self) {
        if let Some(mistake) = restart_command::mistake(&self.settings.restart_cmd).await {
            self.journal
                .warning(&redact::redacted(&mistake.to_string()));
        }
    }

    pub(super) fn is_warning_due(&self) -> bool {
        let warned = self.state.state.warned.unwrap_or_default();
        unix_time().is_some_and(|now| now.abs_diff(warned) >= WARNING_INTERVAL.as_secs())
    }

    /// Logs, at the end of `--dry-run`, what a run would stop and start.
    pub(super) fn say_what_would_be_done(&self) {
        if self.settings.purpose != Purpose::DryRun {
            return;
        }
        self.say_what_would_be_ended();
        let stop = if self.handles.is_empty() {
            "nothing".to_owned()
        } else {
            pids(&self.handles)
        };
        self.would_stop(&stop);
        self.journal.info(&format!(
            "Would run: {}",
            redact::redacted(&self.settings.restart_cmd)
        ));
    }

    /// Logs, at the end of `--dry-run`, that a run would stop and start nothing.
    pub(super) fn say_nothing_would_be_done(&self) {
        if self.settings.purpose == Purpose::DryRun {
            self.would_stop("nothing");
            self.journal.info("Would run: nothing");
        }
    }

    fn would_stop(&self, what: &str) {
        self.journal.info(&format!("Would stop: {what}"));
    }
}

fn unix_time() -> Option<u64> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.ok().map(|now| now.as_secs())
}
