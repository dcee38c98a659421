//! The part of a run that sees who answers: the known server, a server that is accepted, or somebody
//! who has taken its place.

use std::net::SocketAddr;

use nix::unistd::Uid;

use super::Run;
use super::address::{Address, Files};
use super::wording::{describe, first_of};
use crate::diagnosis::server_log;
use crate::health::Verdict;
use crate::proc::net::{self, Locality, takes, unmapped};
use crate::proc::process::Proc;
use crate::proc::sock_diag::{self, Listener};
use crate::recovery::Event;
use crate::server::config_dir::config_dir;
use crate::server::process::Process;
use crate::server::restart_command;
use crate::server::select::{Candidate, Facts};
use crate::state::KnownServer;
use crate::sys::account::name_of;

/// Who answers.
enum Answering {
    /// The recorded socket.
    Known,
    /// Nobody of this machine, or nobody who can be seen.
    Unseen,
    /// This socket, and the process that holds it.
    Socket {
        socket: Listener,
        process: Option<Process>,
        /// The server's processes.
        pids: Vec<i32>,
        /// Whether the search saw everything.
        is_complete: bool,
    },
}

impl Run<'_> {
    /// Sees who answered a check: one question to the kernel while the record is valid.
    pub(super) async fn recognise(&mut self) -> Event {
        self.judge_who_answers(false).await
    }

    async fn judge_who_answers(&mut self, is_started: bool) -> Event {
        match self.who_answers().await {
            Answering::Known | Answering::Unseen => Event::Recognised,
            Answering::Socket {
                socket,
                process,
                pids,
                is_complete,
            } => {
                // A record without its process is worth little: the next run may see more.
                let is_enough = process.is_some() || is_complete;
                self.judge(&socket, process.as_ref(), pids, is_started, is_enough)
                    .await
            }
        }
    }

    /// Sees who answers after a start, and what became of other instances.
    pub(super) async fn identify(&mut self) -> Event {
        // What was recorded before the start is another socket.
        let event = self.judge_who_answers(true).await;
        if event != Event::Recognised {
            return event;
        }
        if self.say_ended_instances() {
            Event::InstanceEnded
        } else {
            Event::Recognised
        }
    }

    /// Names the other instances that ended during the restart. Returns whether any did.
    pub(super) fn say_ended_instances(&self) -> bool {
        let ended: Vec<i32> = self
            .spared
            .iter()
            .filter(|one| !Proc::here().is_alive(one.pid, one.start_time))
            .map(|one| one.pid)
            .collect();
        let (first, more) = first_of(&ended);
        for pid in first {
            self.journal.error(&format!(
                "PID {pid}, another instance that was left alone, ended during the restart: check whether the restart \
                 command ended it (manage.py looks servers up by user), and give each server a user of its own"
            ));
        }
        if more > 0 {
            self.journal
                .error(&format!("{more} further instances ended too"));
        }
        !ended.is_empty()
    }

    /// The server itself answers: says whether the proxy before it does.
    pub(super) async fn ask_proxy(&self) -> Event {
        if self.own_address().is_none() {
            return Event::NoProxy;
        }
        match self.checker.check(self.settings.timeout).await {
            Verdict::Healthy { .. } => Event::Answers,
            Verdict::Unhealthy(error) => {
                self.journal.warning(&format!(
                    "The server itself answers, but {} does not answer yet: {error}; if that continues, look at the proxy",
                    self.settings.shown_url
                ));
                Event::Silent
            }
        }
    }

    /// Says who holds the server's address by now, if that is neither the server nor what was started.
    pub(super) fn taken_meanwhile(&self) -> Option<String> {
        let facts = self.answering.as_ref()?;
        let socket = facts.listeners.iter().flatten().next()?;
        let held = [socket.clone()];
        let candidate = facts.candidates.iter().find(|one| {
            let own = one.listens.as_deref().unwrap_or_default();
            own.contains(&held[0])
        });
        let process = facts.holder.as_ref().or(candidate.map(|one| &one.process));
        let is_known = self.is_of_server(socket.uid)
            || process.is_some_and(|one| restart_command::started_by_us(one.pid));
        let place = unmapped(socket.address).to_string();
        (!is_known).then(|| self.taken(&place, socket.uid, process))
    }

    async fn who_answers(&mut self) -> Answering {
        if self.is_record_valid() {
            return Answering::Known;
        }
        let has_address = self.settings.listen.is_some()
            || config_dir(&self.settings.restart_cmd).is_some()
            || self
                .state
                .known()
                .is_some_and(|known| known.listens.is_some());
        let is_remote = self
            .peer()
            .is_some_and(|from| net::locality(&[from.ip()]) == Locality::Elsewhere);
        if is_remote && !has_address {
            return Answering::Unseen;
        }
        let files = self.files().await;
        let address = self.answering_address(&files);
        if let Some(facts) = self.answering.take() {
            return self.holder(facts, &address, &files);
        }
        match self.facts(&address, &files).await {
            Ok(facts) => self.holder(facts, &address, &files),
            Err(_) => Answering::Unseen,
        }
    }

    /// Whether the recorded socket still listens where the server should. No process is read.
    fn is_record_valid(&mut self) -> bool {
        self.forget_other_boots();
        let Some(known) = self.state.known() else {
            return false;
        };
        let (Some(listens), Some(cookie)) = (known.listens, known.cookie) else {
            return false;
        };
        let command = config_dir(&self.settings.restart_cmd);
        let command = command.map(|directory| directory.display().to_string());
        let is_asked = match (self.settings.listen, self.peer()) {
            (None, Some(from)) if listens.port() == from.port() => {
                takes(listens.ip(), &[from.ip()])
            }
            _ => true,
        };
        is_asked
            && known.config_dir == command
            && matches!(sock_diag::listener(listens, cookie), Ok(Some(_)))
    }

    /// Where whoever answered listens: the server's own address, or the peer of the check.
    pub(super) fn answering_address(&self, files: &Files) -> Address {
        let address = self.address(files);
        let from = self.peer().map(unmapped);
        match from {
            Some(from) if address.is_of_url || self.is_at(&address, from) => Address {
                ips: vec![from.ip()],
                port: from.port(),
                ..address
            },
            _ => address,
        }
    }

    /// Whether who answered at `from` can be the server at that address. If the address is set or configured, who answers
    /// on its port at another address is a proxy.
    fn is_at(&self, address: &Address, from: SocketAddr) -> bool {
        let is_set = self.settings.listen.is_some() || address.is_of_config;
        from.port() == address.port
            && (!is_set
                || address.ips.is_empty()
                || address.ips.iter().any(|ip| takes(*ip, &[from.ip()])))
    }

    fn holder(&self, facts: Facts, address: &Address, files: &Files) -> Answering {
        let Some(socket) = facts.listeners.iter().flatten().next().cloned() else {
            return Answering::Unseen;
        };
        let holds = |one: &&Candidate| {
            let own = one.listens.as_deref().unwrap_or_default();
            own.iter().any(|held| held.inode == socket.inode)
        };
        let candidate = facts.candidates.iter().find(holds);
        let is_complete = facts.is_complete;
        let holder = facts.holder.clone();
        let holder = holder.or_else(|| candidate.map(|one| one.process.clone()));
        let selection = self.choose(facts, address, files);
        let held = selection.server.iter();
        let mut held = held.filter(|one| selection.listening.contains(&one.pid));
        let is_only = selection.server.len() == 1;
        let process = held.next().or(selection.server.first().filter(|_| is_only));
        Answering::Socket {
            socket: selection.socket.clone().unwrap_or(socket),
            process: process.cloned().or(holder),
            pids: selection.server.iter().map(|one| one.pid).collect(),
            is_complete,
        }
    }

    /// Accepts who answers, or says that somebody has taken the server's place.
    async fn judge(
        &mut self,
        socket: &Listener,
        process: Option<&Process>,
        pids: Vec<i32>,
        is_started: bool,
        is_enough: bool,
    ) -> Event {
        let files = self.files().await;
        let known = self.state.known().cloned().unwrap_or_default();
        let is_started_by_us =
            || is_started && process.is_some_and(|one| restart_command::started_by_us(one.pid));
        let is_proven = self.proven(&files).contains(&socket.uid) || is_started_by_us();
        let place = unmapped(socket.address).to_string();
        let now = process.map_or(socket.uid, |process| process.uid);
        if !is_started_by_us() && !self.can_answer_for_it(now, &files) {
            return self.taken_over(&place, socket.uid, process);
        }
        let recorded = known
            .socket_uid
            .or(self.settings.user.map(Uid::as_raw))
            // What was stopped, or was about to be, was found without a record: another may not take its place.
            .or(self
                .stopped_socket_uid
                .filter(|uid| (is_started || self.prepared.is_some()) && *uid != socket.uid));
        match recorded {
            Some(recorded) if recorded != socket.uid && !is_proven => {
                return self.taken_over(&place, socket.uid, process);
            }
            None if !is_proven => {
                let is_match = process.is_some_and(|one| pids.contains(&one.pid));
                self.say_accepted(socket, process, &place, is_match);
            }
            _ => (),
        }
        if !is_enough {
            return Event::Recognised;
        }
        let before = self.owner.or(known.uid).or(known.socket_uid);
        let is_match = process.is_some_and(|one| pids.contains(&one.pid));
        let is_same_user = known.socket_uid == Some(socket.uid);
        let new = KnownServer::of(socket, process.filter(|_| is_match));
        let changes = match (known.uid, new.uid) {
            (Some(old), Some(new)) => (old != new).then_some((old, new)),
            _ => known
                .socket_uid
                .filter(|old| *old != socket.uid)
                .map(|old| (old, socket.uid)),
        };
        self.state.state.known = Some(KnownServer {
            uid: new.uid.or(known.uid.filter(|_| is_same_user)),
            gid: new.gid.or(known.gid.filter(|_| is_same_user)),
            config_dir: config_dir(&self.settings.restart_cmd)
                .map(|directory| directory.display().to_string()),
            log: match process.filter(|_| is_match) {
                Some(process) => server_log::open_log(process.pid)
                    .await
                    .map(|log| log.display().to_string()),
                None => None,
            }
            .or(known.log),
            pids,
            ..new
        });
        self.state.state.started.clear();
        let accepted = self.settings.user.map(Uid::as_raw);
        let accepted = accepted.or(self.settings.run_as.as_ref().map(|one| one.uid.as_raw()));
        if let Some(before) = before {
            if is_started && before != now && accepted != Some(now) {
                let (old, new) = (name_of(before), name_of(now));
                self.journal.critical(&format!(
                    "The server ran as user {old} and now runs as user {new}; if that is wrong, set run-as = \"{old}\", and \
                     start the server again as {old}"
                ));
                return Event::OwnerChanged;
            }
        }
        if let Some((old, new)) = changes {
            self.journal.info(&format!(
                "The server's recorded user changes from {} to {}",
                name_of(old),
                name_of(new)
            ));
        }
        Event::Recognised
    }

    pub(super) fn taken_over(&mut self, place: &str, uid: u32, process: Option<&Process>) -> Event {
        let text = self.taken(place, uid, process);
        self.journal.error(&text);
        self.taker = Some(self.who_holds(place, uid, process));
        Event::TakenOver
    }

    /// Whether a process of that user can be the server behind who answered: where only a file that a user can change
    /// leads to it, that user could name the address of somebody else's server.
    fn can_answer_for_it(&self, uid: u32, files: &Files) -> bool {
        let address = self.answering_address(files);
        let is_at_url = self.peer().is_some_and(|from| from.port() == address.port);
        let holders = self.holders(&address, files);
        is_at_url || holders.is_none_or(|holders| holders.contains(&uid))
    }

    /// Says whom the first answer comes from.
    fn say_accepted(
        &self,
        socket: &Listener,
        process: Option<&Process>,
        place: &str,
        is_match: bool,
    ) {
        let user = name_of(socket.uid);
        let who = process.map_or_else(|| "a process that cannot be seen".to_owned(), describe);
        let proxy = if is_match {
            ""
        } else {
            "; if it is a proxy, set listen to the server's own ADDRESS:PORT"
        };
        self.journal.warning(&format!(
            "There is no record of this server yet: {who} of user {user} answers at {place} and is recorded as the server; if \
             it is the server, set user = \"{user}\"{proxy}; otherwise end it and remove {}",
            self.state.path().display()
        ));
    }
}
