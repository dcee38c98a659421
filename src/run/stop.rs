//! The part of a run that ends the server's processes.

use std::io;
use std::time::Duration;

use tokio::time::Instant;

use super::Run;
use super::wording::{describe, first_of, pids};
use crate::journal::{BANNER, Level};
use crate::proc::net::{self, unmapped};
use crate::proc::process::Proc;
use crate::recovery::{Event, Phase};
use crate::server::process::Process;
use crate::server::search;
use crate::server::stop::ProcessHandle;
use crate::sys::account::name_of;
use crate::text::{errno_text, seconds};

/// Between SIGKILL and giving up.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

impl Run<'_> {
    /// Says that the restart begins.
    pub(super) fn say_restarting(&self) {
        for line in [BANNER, "RESTARTING SERVER", BANNER] {
            self.journal.info(line);
        }
        for handle in &self.handles {
            self.journal
                .detail(&format!("Found {}", describe(&handle.process)));
        }
        if self.handles.is_empty() {
            self.journal.info("No server process found");
        }
    }

    /// Lets go of each process that runs another program, or as another user, since it was found. Where
    /// that leaves the server's port held, nothing can be started.
    pub(super) async fn compare(&mut self) -> Event {
        let processes: Vec<Process> = self
            .handles
            .iter()
            .map(|handle| handle.process.clone())
            .collect();
        let recorded = self.state.known().and_then(|known| known.pid);
        let is_known = processes.iter().any(|one| Some(one.pid) == recorded);
        let changed = search::changed(&processes, is_known).await;
        for process in processes.iter().filter(|one| changed.contains(&one.pid)) {
            self.journal.warning(&format!(
                "Left alone: {}: its program or its user has changed since it was found",
                describe(process)
            ));
        }
        self.handles
            .retain(|handle| !changed.contains(&handle.process.pid));
        if !self.handles.is_empty() {
            self.say_moved();
            return Event::Same;
        }
        if self.is_port_held() {
            let listening = self
                .selection
                .as_ref()
                .map(|selection| &selection.listening);
            let mut holders = processes.iter();
            let holder = holders.find(|one| listening.is_some_and(|all| all.contains(&one.pid)));
            let by = holder.map(|one| {
                let (who, user) = (describe(one), name_of(one.uid));
                format!(" by {who} of user {user}; if this happens again, end that process")
            });
            self.journal.error(&format!(
                "The processes that were found have changed; the port is still held{}",
                by.unwrap_or_default()
            ));
            return Event::Unable;
        }
        Event::NoneLeft
    }

    /// Sends SIGTERM.
    pub(super) fn terminate(&mut self) {
        self.journal.info(&format!(
            "Stopping server processes: {}",
            pids(&self.handles)
        ));
        self.stopped = self
            .handles
            .iter()
            .map(|handle| handle.process.pid)
            .collect();
        self.send("SIGTERM", Level::Info, ProcessHandle::terminate);
        self.journal.info("Waiting for processes to terminate...");
        self.deadline = Instant::now() + self.settings.stop_timeout;
    }

    pub(super) fn kill(&mut self) {
        self.handles.retain(ProcessHandle::is_alive);
        self.send("SIGKILL", Level::Warning, ProcessHandle::kill);
        self.deadline = Instant::now() + KILL_TIMEOUT;
    }

    fn send(&self, name: &str, level: Level, signal: fn(&ProcessHandle) -> io::Result<bool>) {
        for handle in &self.handles {
            let pid = handle.process.pid;
            match signal(handle) {
                Ok(true) => self
                    .journal
                    .log(level, &format!("Sent {name} to PID {pid}")),
                Ok(false) => self.journal.debug(&format!("PID {pid} had already ended")),
                Err(reason) => self.journal.error(&format!(
                    "Cannot send {name} to PID {pid}: {}",
                    errno_text(&reason)
                )),
            }
        }
    }

    pub(super) async fn await_exits(&mut self, phase: Phase) -> Event {
        let handles = &self.handles;
        let all_ended = async {
            for process in handles {
                process.ended().await;
            }
        };
        tokio::select! {
            biased;
            () = all_ended => {
                self.journal.info("All processes terminated successfully");
                self.handles.clear();
                Event::AllEnded
            }
            name = self.signals.next() => {
                self.on_signal(phase, name);
                Event::Interrupted
            }
            () = tokio::time::sleep_until(self.deadline) => {
                self.handles.retain(ProcessHandle::is_alive);
                if phase == Phase::Terminating {
                    let waited = seconds(self.settings.stop_timeout);
                    self.journal.warning(&format!("Processes still running after {waited}s: {}", pids(&self.handles)));
                    return Event::Expired;
                }
                self.survived()
            }
        }
    }

    /// Says what outlived SIGKILL; only what holds the server's port keeps it from being started.
    fn survived(&self) -> Event {
        let holds_port = self.is_port_held();
        let (first, more) = first_of(&self.handles);
        for handle in first {
            let process = &handle.process;
            let pid = process.pid;
            let state = Proc::here().state(pid);
            let limit = KILL_TIMEOUT.as_secs();
            if holds_port {
                self.journal.critical(&format!(
                    "PID {pid} is still there {limit}s after SIGKILL, in state {state}, and holds the server's port: nothing was started"
                ));
                self.say_whose_survivor(process);
            } else {
                self.journal.warning(&format!(
                    "PID {pid} is still there {limit}s after SIGKILL, in state {state}; it does not hold the server's \
                     port, so the server is started"
                ));
            }
        }
        if more > 0 {
            self.journal.warning(&format!(
                "{more} further processes are still there after SIGKILL"
            ));
        }
        if holds_port {
            Event::Survived
        } else {
            Event::SurvivedElsewhere
        }
    }

    /// Names the user of a process that holds the server's port, if that user is not known to run the server.
    fn say_whose_survivor(&self, process: &Process) {
        let Some(selection) = &self.selection else {
            return;
        };
        let is_holder = selection.listening.contains(&process.pid);
        let socket = selection.socket.as_ref().filter(|_| is_holder);
        if let Some(socket) = socket.filter(|_| !self.is_known_or_proven(process.uid)) {
            let place = unmapped(socket.address).to_string();
            self.journal
                .error(&self.taken(&place, process.uid, Some(process)));
        }
    }

    /// Whether the server's socket still listens. What cannot be read is held.
    fn is_port_held(&self) -> bool {
        let socket = self.selection.as_ref().and_then(|one| one.socket.as_ref());
        let Some(socket) = socket else {
            // Nobody listened when it was searched for.
            return false;
        };
        net::is_listened_to(socket.address.port(), Some(socket.inode))
    }
}
