//! Which processes are the server: a pure function. The listening socket decides; without one, only
//! what is known to be the server counts. When in doubt, a process is left alone.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::config_dir::Configured;
use super::process::Process;
use crate::proc::sock_diag::Listener;
use crate::recovery::PortHolder;

/// A process whose arguments are a MyVNC server's, or match the administrator's pattern.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Candidate {
    /// The process.
    pub(crate) process: Process,
    /// The sockets on which it listens; none where its descriptors were not or could not be read.
    pub(crate) listens: Option<Vec<Listener>>,
    /// Whether its network namespace differs from the monitor's; none if that cannot be read.
    pub(crate) is_elsewhere: Option<bool>,
    /// Its configuration directory, compared with the restart command's.
    pub(crate) configured: Configured,
    /// Whether its script lies beside the restart command's.
    pub(crate) is_beside: bool,
    /// Whether its state in /proc cannot be read: then its start time and its parent are not known, and its user is
    /// the owner of its directory.
    pub(crate) is_unreadable: bool,
}

impl Candidate {
    fn listens(&self) -> bool {
        self.listens
            .as_ref()
            .is_some_and(|sockets| !sockets.is_empty())
    }

    fn holds(&self, sockets: &[Listener]) -> bool {
        let own = self.listens.as_deref().unwrap_or_default();
        own.iter()
            .any(|one| sockets.iter().any(|other| other.inode == one.inode))
    }
}

/// What a search has seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// The sockets that take connections to the server's address; none where that cannot be read.
    pub(crate) listeners: Option<Vec<Listener>>,
    /// The processes that can be the server.
    pub(crate) candidates: Vec<Candidate>,
    /// Who holds one of these sockets and is no candidate, where that was seen.
    pub(crate) holder: Option<Process>,
    /// Whether the search examined everything.
    pub(crate) is_complete: bool,
}

/// What is known before the search.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    /// Whether the administrator has named the server (`--process-pattern`).
    pub(crate) is_named: bool,
    /// Only this user's processes are the server (`--user`).
    pub(crate) user: Option<u32>,
    /// Whether only the port distinguishes it from another server of the configuration file.
    pub(crate) by_port_alone: bool,
    /// Whether the server's address is another machine's.
    pub(crate) is_remote: bool,
    /// Whether the check was refused: then nobody listens, whatever cannot be read.
    pub(crate) is_refused: bool,
    /// The process of the record, as (PID, start time).
    pub(crate) recorded: Option<(i32, u64)>,
    /// The cookie of the recorded socket.
    pub(crate) cookie: Option<u64>,
    /// The recorded user of the server's process.
    pub(crate) uid: Option<u32>,
    /// Processes that the previous restart command started, as (PID, start time).
    pub(crate) started: Vec<(i32, u64)>,
    /// Users that are proven to run the server.
    pub(crate) proven: Vec<u32>,
    /// Who can hold the server's address for it, if a file that its owner can change says where that is; none for
    /// anybody. Otherwise that owner could name the address of somebody else's server.
    pub(crate) holders: Option<Vec<u32>>,
}

impl Asked {
    fn is_trusted(&self, uid: u32) -> bool {
        self.uid == Some(uid) || self.proven.contains(&uid)
    }
}

/// Who holds the server's address and is not the server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Stranger {
    /// The socket's user.
    pub(crate) uid: u32,
    /// The process, where it was seen.
    pub(crate) process: Option<Process>,
    /// Where it is bound.
    pub(crate) address: SocketAddr,
}

/// What was decided.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Selection {
    /// The server's processes, in the order of their PIDs.
    pub(crate) server: Vec<Process>,
    /// Those of them that hold the listening socket, where that can be seen.
    pub(crate) listening: Vec<i32>,
    /// What matches and is not this server, each with the reason.
    pub(crate) spared: Vec<(Process, Spared)>,
    /// Who holds the server's address.
    pub(crate) port: PortHolder,
    /// More about [`PortHolder::Other`].
    pub(crate) stranger: Option<Stranger>,
    /// Where the server listens, if it does.
    pub(crate) address: Option<SocketAddr>,
    /// Its listening socket.
    pub(crate) socket: Option<Listener>,
    /// Who can be the server and cannot be read, where nothing else is the server.
    pub(crate) in_doubt: Option<Process>,
}

/// Why a process is left alone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Spared {
    /// Another process holds the server's socket.
    NotTheHolder(u16),
    /// Several hold it.
    Ambiguous(u16),
    /// Nobody listens, and nothing shows that this is the server.
    NotKnown(u16),
    /// It listens on another port.
    ListensElsewhere(u16),
    /// Only the port distinguishes it from another server.
    ByPortAlone(u16),
    /// Another network namespace.
    OtherNetwork,
    /// Another configuration.
    OtherConfiguration,
    /// `manage.py` without a socket.
    Manager,
    /// Who listens on the port cannot be read.
    PortUnreadable(u16),
    /// Nobody listens, and its sockets cannot be read.
    SocketsUnreadable(u16),
    /// Nobody listens, and its network namespace cannot be read.
    NetworkUnreadable(u16),
    /// Its user is neither recorded nor proven.
    UnprovenUser(u16),
    /// Its state cannot be read.
    StateUnreadable,
    /// The URL leads to another machine.
    Remote,
}

impl fmt::Display for Spared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotTheHolder(port) => write!(
                f,
                "another process holds the listening socket on port {port}: this is another instance"
            ),
            Self::Ambiguous(port) => write!(
                f,
                "several servers listen on port {port}; set listen, user or process-pattern"
            ),
            Self::NotKnown(port) => write!(
                f,
                "nobody listens on port {port}, and nothing shows that this process is the server"
            ),
            Self::ListensElsewhere(port) => write!(
                f,
                "it listens, but not on port {port}: this is another instance"
            ),
            Self::ByPortAlone(port) => write!(
                f,
                "it does not listen on port {port}, the only thing that distinguishes this server from another of the \
                 configuration; set process-pattern"
            ),
            Self::OtherNetwork => f.write_str("it is in another network namespace"),
            Self::OtherConfiguration => f.write_str(
                "its --config_dir differs from the restart command's: this is another instance",
            ),
            Self::Manager => f.write_str(
                "this manage.py listens on no port, so it does not count as the server; if it is the server, set process-pattern",
            ),
            Self::PortUnreadable(port) => write!(f, "who listens on port {port} cannot be read"),
            Self::SocketsUnreadable(port) => write!(
                f,
                "nobody listens on port {port}, and the sockets of this process cannot be read"
            ),
            Self::NetworkUnreadable(port) => write!(
                f,
                "nobody listens on port {port}, and its network namespace cannot be read"
            ),
            Self::UnprovenUser(port) => write!(
                f,
                "another process holds port {port}, and nothing proves that this process's user runs the server; set user"
            ),
            Self::StateUnreadable => f.write_str(
                "its state in /proc cannot be read, so nothing shows whether it is the server",
            ),
            Self::Remote => f.write_str("the URL leads to another machine; set listen or process-pattern"),
        }
    }
}

/// Decides. `port` is the server's, for the texts.
pub(crate) fn choose(facts: Facts, asked: &Asked, port: u16) -> Selection {
    let Facts {
        listeners,
        candidates,
        holder,
        is_complete,
    } = facts;
    let (candidates, others): (Vec<_>, Vec<_>) = candidates
        .into_iter()
        .partition(|one| asked.user.is_none_or(|user| user == one.process.uid));
    let listeners = match listeners {
        None if asked.is_refused => Some(Vec::new()),
        listeners => listeners,
    };
    let sockets = listeners.as_deref().unwrap_or_default();
    let families = Families::of(&candidates);
    let chooser = Chooser {
        candidates: &candidates,
        families: &families,
        sockets,
        asked,
        port,
    };
    let is_unreadable = listeners.is_none();
    if let Some(recorded) = chooser.recorded(is_unreadable) {
        return chooser.select(&BTreeSet::from([recorded]), PortHolder::Server, |_| {
            Spared::NotTheHolder(port)
        });
    }
    if asked.is_remote {
        let all = chooser.families_where(|_| asked.is_named && !asked.by_port_alone);
        return chooser.select(&all, PortHolder::Nobody, |_| Spared::Remote);
    }
    if !sockets.is_empty() {
        let holder = holder.or_else(|| {
            let holding = others.iter().find(|one| one.holds(sockets));
            holding.map(|one| one.process.clone())
        });
        return chooser.by_socket(holder, is_complete);
    }
    if is_unreadable {
        return chooser.select(&BTreeSet::new(), PortHolder::Unknown, |_| {
            Spared::PortUnreadable(port)
        });
    }
    chooser.known()
}

/// Each candidate's family, by PID: the PID of its topmost ancestor, following parents while they are
/// candidates of the same user.
struct Families(HashMap<i32, i32>);

impl Families {
    fn of(candidates: &[Candidate]) -> Self {
        let processes: HashMap<i32, &Process> = candidates
            .iter()
            .map(|one| (one.process.pid, &one.process))
            .collect();
        let topmost = |process: &Process| {
            let mut top = process;
            // A PID that was given away meanwhile could lead in a circle.
            for _ in 0..processes.len() {
                match processes.get(&top.parent) {
                    Some(parent) if parent.uid == process.uid => top = parent,
                    _ => break,
                }
            }
            top.pid
        };
        Self(
            processes
                .values()
                .map(|process| (process.pid, topmost(process)))
                .collect(),
        )
    }

    fn family(&self, one: &Candidate) -> i32 {
        self.0
            .get(&one.process.pid)
            .copied()
            .unwrap_or(one.process.pid)
    }
}

struct Chooser<'a> {
    candidates: &'a [Candidate],
    families: &'a Families,
    /// What takes connections to the server's address.
    sockets: &'a [Listener],
    asked: &'a Asked,
    port: u16,
}

impl Chooser<'_> {
    fn families_where(&self, holds: impl Fn(&Candidate) -> bool) -> BTreeSet<i32> {
        let holding = self.candidates.iter().filter(|one| holds(one));
        holding.map(|one| self.families.family(one)).collect()
    }

    /// Whether a candidate is that process, by PID and start time. Without its start time, it can be that process if it has
    /// a user who runs the server: others can get the PID of a server that has ended.
    fn is(&self, one: &Candidate, (pid, start_time): (i32, u64)) -> bool {
        let is_it = if one.is_unreadable {
            self.asked.is_trusted(one.process.uid)
        } else {
            one.process.start_time == start_time
        };
        one.process.pid == pid && is_it
    }

    /// Whether a candidate is the recorded process because it holds the recorded socket.
    fn holds_recorded(&self, one: &Candidate) -> bool {
        let recorded = self.asked.recorded.map(|(pid, _)| pid);
        let own = one.listens.as_deref().unwrap_or_default();
        recorded == Some(one.process.pid)
            && self.asked.cookie.is_some()
            && own.iter().any(|held| held.cookie == self.asked.cookie)
    }

    /// The family of the recorded process, while it holds the server's socket or nobody does.
    fn recorded(&self, is_unreadable: bool) -> Option<i32> {
        let (pid, start) = self.asked.recorded?;
        let one = self
            .candidates
            .iter()
            .find(|one| self.is(one, (pid, start)))?;
        let is_its_socket = || {
            let cookie = self.asked.cookie;
            cookie.is_some() && self.sockets.iter().any(|socket| socket.cookie == cookie)
        };
        let is_valid =
            is_unreadable || self.sockets.is_empty() || one.holds(self.sockets) || is_its_socket();
        is_valid.then(|| self.families.family(one))
    }

    /// Somebody listens where the server should.
    fn by_socket(&self, holder: Option<Process>, is_complete: bool) -> Selection {
        let holders = self.asked.holders.as_deref();
        let is_accepted =
            |one: &Candidate| holders.is_none_or(|holders| holders.contains(&one.process.uid));
        let stranger = self
            .candidates
            .iter()
            .find(|one| one.holds(self.sockets) && !is_accepted(one));
        let holder = holder.or_else(|| stranger.map(|one| one.process.clone()));
        let holding = self.families_where(|one| one.holds(self.sockets) && is_accepted(one));
        let holding = self.shared(holding);
        let (families, is_hidden) = if holding.is_empty() && holder.is_none() && is_complete {
            let users: Vec<u32> = self.sockets.iter().map(|socket| socket.uid).collect();
            let hidden = self.families_where(|one| {
                one.listens.is_none()
                    && one.is_elsewhere != Some(true)
                    && users.contains(&one.process.uid)
                    && is_accepted(one)
            });
            let groups = hidden.into_iter().map(|family| BTreeSet::from([family]));
            (groups.collect(), true)
        } else {
            (holding, false)
        };
        let port = self.port;
        match self.narrow(families) {
            Narrowed::One(families) => self.select(&families, PortHolder::Server, |_| {
                Spared::NotTheHolder(port)
            }),
            Narrowed::Several => self.select(&BTreeSet::new(), PortHolder::Several, |one| {
                if is_hidden || one.holds(self.sockets) {
                    Spared::Ambiguous(port)
                } else {
                    Spared::NotTheHolder(port)
                }
            }),
            Narrowed::None => {
                let asked = self.asked;
                let named = self.families_where(|one| {
                    asked.is_named && !asked.by_port_alone && asked.is_trusted(one.process.uid)
                });
                let its = holder.as_ref().and_then(|one| {
                    let mut sockets = self.sockets.iter();
                    sockets.find(|socket| socket.uid == one.uid)
                });
                let socket = its.unwrap_or(&self.sockets[0]);
                let stranger = Stranger {
                    uid: socket.uid,
                    process: holder,
                    address: socket.address,
                };
                let selection = self.select(&named, PortHolder::Other, |_| {
                    if asked.by_port_alone {
                        Spared::ByPortAlone(port)
                    } else if asked.is_named {
                        Spared::UnprovenUser(port)
                    } else {
                        Spared::NotTheHolder(port)
                    }
                });
                Selection {
                    stranger: Some(stranger),
                    ..selection
                }
            }
        }
    }

    /// Merges families that share a listening socket.
    fn shared(&self, families: BTreeSet<i32>) -> Vec<BTreeSet<i32>> {
        let mut groups: Vec<(BTreeSet<u64>, BTreeSet<i32>)> = Vec::new();
        for family in families {
            let members = self
                .candidates
                .iter()
                .filter(|one| self.families.family(one) == family);
            let held: BTreeSet<u64> = members
                .flat_map(|one| one.listens.iter().flatten())
                .map(|socket| socket.inode)
                .filter(|inode| self.sockets.iter().any(|socket| socket.inode == *inode))
                .collect();
            match groups
                .iter_mut()
                .find(|(inodes, _)| !inodes.is_disjoint(&held))
            {
                Some((inodes, group)) => {
                    inodes.extend(held);
                    group.insert(family);
                }
                None => groups.push((held, BTreeSet::from([family]))),
            }
        }
        groups.into_iter().map(|(_, group)| group).collect()
    }

    /// Of several groups, the one that is known by its user, or lies beside the restart command's
    /// script, or has its configuration.
    fn narrow(&self, groups: Vec<BTreeSet<i32>>) -> Narrowed {
        match groups.len() {
            0 => return Narrowed::None,
            1 => return Narrowed::One(groups.into_iter().flatten().collect()),
            _ if self.asked.is_named => {
                let trusted = self.families_where(|one| self.asked.is_trusted(one.process.uid));
                let (of_users, others): (Vec<_>, Vec<_>) = groups
                    .into_iter()
                    .partition(|group| !group.is_disjoint(&trusted));
                // Strangers can match, too: they count only where nobody else does.
                let chosen = if of_users.is_empty() {
                    others
                } else {
                    of_users
                };
                return Narrowed::One(chosen.into_iter().flatten().collect());
            }
            _ => (),
        }
        let tests: [&dyn Fn(&Candidate) -> bool; 4] = [
            &|one| self.asked.uid == Some(one.process.uid),
            &|one| self.asked.proven.contains(&one.process.uid),
            &|one| one.is_beside,
            &|one| one.configured == Configured::Same,
        ];
        for test in tests {
            let passing = self.families_where(test);
            let mut left = groups.iter().filter(|group| !group.is_disjoint(&passing));
            if let (Some(group), None) = (left.next(), left.next()) {
                return Narrowed::One(group.clone());
            }
        }
        Narrowed::Several
    }

    /// Nobody listens: only what is known to be the server.
    fn known(&self) -> Selection {
        let (asked, port) = (self.asked, self.port);
        let listening = self.families_where(Candidate::listens);
        let is_named = |one: &Candidate| {
            let by_user = asked.user.is_some()
                && one.listens.is_some()
                && !listening.contains(&self.families.family(one));
            (asked.is_named || by_user) && !asked.by_port_alone
        };
        let is_started =
            |one: &Candidate| asked.started.iter().any(|started| self.is(one, *started));
        let is_proven = |one: &Candidate| {
            one.configured == Configured::Same
                && asked.proven.contains(&one.process.uid)
                && one.is_elsewhere == Some(false)
                && one.listens.is_some()
                && !one.process.is_manager
                && !listening.contains(&self.families.family(one))
        };
        let families = self.families_where(|one| {
            (!one.is_unreadable || asked.is_trusted(one.process.uid))
                && (is_named(one) || is_started(one) || is_proven(one))
        });
        self.select(&families, PortHolder::Nobody, |one| {
            let family = self.families.family(one);
            if one.is_elsewhere == Some(true) {
                Spared::OtherNetwork
            } else if asked.by_port_alone {
                Spared::ByPortAlone(port)
            } else if one.configured == Configured::Different {
                Spared::OtherConfiguration
            } else if listening.contains(&family) {
                Spared::ListensElsewhere(port)
            } else if one.process.is_manager {
                Spared::Manager
            } else if (one.listens.is_none() || one.is_elsewhere.is_none())
                // The sockets of others were not looked at.
                && asked.is_trusted(one.process.uid)
            {
                if one.listens.is_none() {
                    Spared::SocketsUnreadable(port)
                } else {
                    Spared::NetworkUnreadable(port)
                }
            } else {
                Spared::NotKnown(port)
            }
        })
    }

    /// The members of these families that belong to the server: what listens elsewhere is another
    /// instance that the server started.
    fn select(
        &self,
        families: &BTreeSet<i32>,
        port: PortHolder,
        reason: impl Fn(&Candidate) -> Spared,
    ) -> Selection {
        let mut selection = Selection {
            server: Vec::new(),
            listening: Vec::new(),
            spared: Vec::new(),
            port,
            stranger: None,
            address: None,
            socket: None,
            in_doubt: None,
        };
        // With a pattern, a proxy may hold the port: members that listen elsewhere are still the server.
        let is_named = self.asked.is_named && selection.port != PortHolder::Server;
        for one in self.candidates {
            let process = one.process.clone();
            let is_kin = families.contains(&self.families.family(one));
            let holds = one.holds(self.sockets);
            if one.is_unreadable && !self.holds_recorded(one) {
                if is_kin && selection.in_doubt.is_none() {
                    selection.in_doubt = Some(process.clone());
                }
                selection.spared.push((process, Spared::StateUnreadable));
            } else if is_kin && (holds || !one.listens() || is_named) {
                if holds {
                    selection.listening.push(process.pid);
                    let own = one.listens.as_deref().unwrap_or_default();
                    let socket = self
                        .sockets
                        .iter()
                        .find(|socket| own.iter().any(|held| held.inode == socket.inode));
                    selection.socket = selection.socket.or(socket.cloned());
                }
                selection.server.push(process);
            } else if is_kin {
                selection
                    .spared
                    .push((process, Spared::ListensElsewhere(self.port)));
            } else {
                selection.spared.push((process, reason(one)));
            }
        }
        if selection.socket.is_none() && selection.port == PortHolder::Server {
            // Its descriptors cannot be read: the socket is that of the record, or the only one.
            let by_cookie = self
                .sockets
                .iter()
                .find(|socket| socket.cookie.is_some() && socket.cookie == self.asked.cookie);
            let only = self.sockets.first().filter(|_| self.sockets.len() == 1);
            selection.socket = by_cookie.or(only).cloned();
        }
        if selection.port == PortHolder::Server && self.sockets.is_empty() {
            selection.port = PortHolder::Nobody;
        }
        if !selection.server.is_empty() {
            selection.in_doubt = None;
        } else if selection.in_doubt.is_some() && selection.port == PortHolder::Nobody {
            // Nothing is started beside a process that can be the server.
            selection.port = PortHolder::Unknown;
        }
        if is_named && selection.socket.is_none() {
            let named = self
                .candidates
                .iter()
                .filter(|one| selection.server.contains(&one.process));
            selection.socket = named
                .flat_map(|one| one.listens.iter().flatten())
                .next()
                .cloned();
        }
        selection.address = selection.socket.as_ref().map(|socket| socket.address);
        selection
    }
}

/// What several groups of processes come to.
enum Narrowed {
    None,
    One(BTreeSet<i32>),
    Several,
}

#[cfg(test)]
mod tests;
