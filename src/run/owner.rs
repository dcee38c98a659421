//! Whose the server is: as which user it is started again, and what is said where that is not known or changes.

use std::fmt;

use nix::unistd::{Gid, Uid, geteuid};

use super::Run;
use super::wording::describe;
use crate::proc::net;
use crate::proc::process::Proc;
use crate::recovery::PortHolder;
use crate::server::process::Process;
use crate::server::restart_command;
use crate::server::select::Selection;
use crate::sys::account::{Account, name_of};
use crate::sys::name_services::NameServiceError;

/// The server's owner cannot be looked up.
#[derive(Clone, Copy, Debug)]
pub(super) struct OwnerError {
    uid: u32,
    pub(super) reason: NameServiceError,
}

impl fmt::Display for OwnerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { uid, reason } = self;
        write!(
            f,
            "Cannot look up user {uid}, the server's owner: {reason}; the restart command must run as that user; the next \
             run tries again"
        )
    }
}

impl Run<'_> {
    /// Whether that user is the recorded one, or proven to run the server.
    pub(super) fn is_known_or_proven(&self, uid: u32) -> bool {
        let known = self.state.known();
        let files = self.files.clone().unwrap_or_default();
        known.is_some_and(|known| known.uid == Some(uid) || known.socket_uid == Some(uid))
            || self.proven(&files).contains(&uid)
    }

    /// Who owns the server that was found, as user and group, where there is no record: anybody can choose
    /// arguments and listen, so the user must be proven.
    fn owner_of(&self, selection: &Selection) -> Option<(u32, u32)> {
        let files = self.files.clone().unwrap_or_default();
        let proven = self.proven(&files);
        let mut server = selection
            .server
            .iter()
            .filter(|one| proven.contains(&one.uid));
        let listening = server
            .clone()
            .find(|one| selection.listening.contains(&one.pid));
        let owner = listening.or_else(|| server.next());
        owner.map(|process| (process.uid, process.gid))
    }

    /// Who owns the server, as user and group, where that is known.
    ///
    /// # Errors
    /// The process that holds the server's port, if nothing says as which user root is to run MyVNC's script.
    pub(super) fn owner(&mut self, selection: &Selection) -> Result<Option<(u32, u32)>, Process> {
        let known = self.state.known();
        let recorded = known.and_then(|known| {
            let of_socket = known.socket_uid.filter(|uid| *uid != 0);
            // Who answered and was no MyVNC by its arguments says less than the owner of the files.
            let of_files = |uid| self.only_owner_of_files().unwrap_or((uid, uid));
            known.uid.zip(known.gid).or_else(|| of_socket.map(of_files))
        });
        let mut owner = recorded.or_else(|| self.owner_of(selection));
        if let Some(unproven) = self.unproven(selection, owner) {
            owner = Some(self.only_owner_of_files().ok_or(unproven)?);
        }
        self.owner = owner.map(|(uid, _)| uid);
        self.stopped_socket_uid = selection.socket.as_ref().map(|socket| socket.uid);
        let files = self.files.as_ref();
        let others = files.and_then(|files| {
            let mut owners = files.owners.iter().chain(&files.log_owner);
            owners.find(|uid| **uid != 0)
        });
        if let (None, None, Some(uid), true) =
            (owner, &self.settings.run_as, others, self.runs_own_script())
        {
            let user = name_of(*uid);
            self.journal.warning(&format!(
                "The restart command runs as root: the server's owner is unknown; user {user} owns the server's script, \
                 configuration or log directory; if the server is to run as that user, set run-as = \"{user}\""
            ));
        }
        Ok(owner)
    }

    /// Who holds the server's port, if nothing says as which user root is to run MyVNC's script.
    fn unproven(&self, selection: &Selection, owner: Option<(u32, u32)>) -> Option<Process> {
        let mut server = selection.server.iter();
        let listening = server.find(|one| selection.listening.contains(&one.pid));
        // Which of them holds it may not be visible.
        let is_held = selection.port == PortHolder::Server;
        let first = selection.server.first().filter(|_| is_held);
        let holder = listening.or(first);
        let is_known = owner.is_some() || self.settings.run_as.is_some();
        let holder = holder.filter(|_| !is_known && self.runs_own_script());
        holder.cloned()
    }

    /// The user, other than root, whose files the restart command's script and configuration are, if it is one.
    fn only_owner_of_files(&self) -> Option<(u32, u32)> {
        let owners = &self.files.as_ref()?.owners;
        let mut owners = owners.iter().copied().filter(|uid| *uid != 0);
        let first = owners.next()?;
        owners.all(|uid| uid == first).then_some((first, first))
    }

    /// Says that the server which is stopped runs as another user than the known one.
    pub(super) fn say_moved(&self) {
        let files = self.files.clone().unwrap_or_default();
        let proven = self.proven(&files);
        let listening = self
            .selection
            .as_ref()
            .map(|selection| &selection.listening);
        let mut stopped = self.handles.iter().map(|handle| &handle.process);
        let moved = stopped.find(|one| listening.is_some_and(|all| all.contains(&one.pid)));
        let known = self.state.known().and_then(|known| known.uid);
        if let (Some(process), Some(known)) = (moved, known) {
            if process.uid != known && !proven.contains(&process.uid) {
                let (user, owner) = (name_of(process.uid), name_of(known));
                self.journal.warning(&format!(
                    "{} of user {user} holds the server's port and is stopped, but the recorded server runs as user {owner}; \
                     if the server was moved to {user}, set user = \"{user}\" and run-as = \"{user}\"",
                    describe(process)
                ));
            }
        }
    }

    /// Says, after a start that failed, that only root may bind the port, where the server did so and changed its user.
    pub(super) fn say_port_is_roots(&self) {
        let Some(known) = self.state.known() else {
            return;
        };
        let port = self.address(&self.files.clone().unwrap_or_default()).port;
        let was_roots = known.socket_uid == Some(0) && net::is_for_root(Proc::here(), port);
        if let (true, Some(user)) = (was_roots, &self.runs_as) {
            self.journal.error(&format!(
                "Only root may use port {port}: the server's socket was root's, but the restart command ran as user {user}; \
                 if the server changes its user itself, set run-as = \"root\""
            ));
        }
    }

    /// Whether root runs a script of MyVNC's, by a command that does not change the user itself.
    fn runs_own_script(&self) -> bool {
        let command = &self.settings.restart_cmd;
        geteuid().is_root()
            && restart_command::myvnc_script(command).is_some()
            && !restart_command::changes_user(command)
    }

    /// Who the restart command of a server of this user and group runs as; none for the monitor's own user.
    pub(super) fn account_of(
        &self,
        owner: Option<(u32, u32)>,
    ) -> Result<Option<Account>, OwnerError> {
        if let Some(account) = &self.settings.run_as {
            return Ok(Some(account.clone()));
        }
        match owner {
            Some((uid, gid)) if uid != 0 && self.runs_own_script() => {
                let account = Account::of(Uid::from_raw(uid), Gid::from_raw(gid));
                account
                    .map(Some)
                    .map_err(|reason| OwnerError { uid, reason })
            }
            _ => Ok(None),
        }
    }
}
