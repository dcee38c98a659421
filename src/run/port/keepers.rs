//! Which sockets make the kernel refuse an address to a server, what keeps it most surely first, and the ERROR about it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use procfs::net::TcpState;
use serde::{Deserialize, Serialize};

use crate::proc::net::{can_take, unmapped};
use crate::proc::sock_diag::{self, States, TcpSocket};
use crate::run::wording::describe;
use crate::server::process::Process;
use crate::server::search;
use crate::sys::account::name_of;
use crate::sys::bounded;

/// Time limit of listing the sockets of the port in one kind of states.
const LIST_TIMEOUT: Duration = Duration::from_millis(500);

/// How a socket has its port, what keeps others from it most surely first.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
enum Hold {
    Listening,
    Bound,
    Connected,
    /// It is connected, and its user runs the server: it may have been the server's.
    ConnectedOwn,
    /// Its process has closed it, and the other end has not read the rest.
    Closed,
    /// TIME_WAIT: it has ended, and the kernel no longer knows whose it was.
    Ended,
}

/// A socket that keeps the server from its port.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Keeper {
    hold: Hold,
    local: SocketAddr,
    peer: SocketAddr,
    uid: u32,
    /// The socket that a process has: itself, or of one that was closed the other end; 0 if that is not of this machine.
    inode: u64,
}

/// What has the server's port.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(super) struct Keepers {
    /// What keeps others from it most surely.
    pub(super) worst: Option<Keeper>,
    /// Whether the server's user listens there, or is about to.
    pub(super) is_its_own: bool,
}

impl Keepers {
    /// Looks at this address, which the kernel refuses. `is_its`: whether a user's sockets may be the server's.
    pub(super) async fn look(refused: SocketAddr, is_its: impl Fn(u32) -> bool) -> Self {
        let mut keepers = Self::default();
        // One after the other: a list that never comes costs nothing of what was seen before.
        for states in [States::Listening, States::Connected, States::Bound] {
            let looking = bounded::ask(2 * LIST_TIMEOUT, || {
                Self::in_states(states, refused, &is_its)
            });
            keepers.add(looking.await.ok().flatten().unwrap_or_default());
            if keepers
                .worst
                .as_ref()
                .is_some_and(|worst| worst.hold == Hold::Listening)
            {
                break;
            }
        }
        keepers
    }

    /// What is seen in these states until the time is over.
    fn in_states(states: States, refused: SocketAddr, is_its: impl Fn(u32) -> bool) -> Self {
        let mut keepers = Self::default();
        let end = Instant::now() + LIST_TIMEOUT;
        let _ = sock_diag::each(states, Some(refused.port()), end, |socket| {
            keepers.take(&socket, refused, &is_its);
            true
        });
        let closed = keepers
            .worst
            .as_mut()
            .filter(|one| one.hold == Hold::Closed);
        if let Some(closed) = closed {
            closed.inode = closed.other_end(end).unwrap_or_default();
        }
        keepers
    }

    fn take(&mut self, socket: &TcpSocket, refused: SocketAddr, is_its: impl Fn(u32) -> bool) {
        let is_of_server = is_its(socket.uid);
        let hold = match socket.state {
            TcpState::Listen => Hold::Listening,
            TcpState::Close => Hold::Bound,
            TcpState::TimeWait => Hold::Ended,
            _ if socket.inode == 0 => Hold::Closed,
            _ if is_of_server => Hold::ConnectedOwn,
            _ => Hold::Connected,
        };
        if can_take(socket.local.ip(), socket.is_v6_only, &[refused.ip()]) {
            self.is_its_own |= is_of_server && hold <= Hold::Bound;
            self.add(Self {
                worst: Some(Keeper {
                    hold,
                    local: unmapped(socket.local),
                    peer: unmapped(socket.peer),
                    uid: socket.uid,
                    inode: socket.inode,
                }),
                is_its_own: false,
            });
        }
    }

    fn add(&mut self, other: Self) {
        self.is_its_own |= other.is_its_own;
        let all = self.worst.take().into_iter().chain(other.worst);
        self.worst = all.min_by_key(|one| one.hold);
    }
}

impl Keeper {
    /// The inode of the other end of a connection, if a process of this machine has it.
    fn other_end(&self, end: Instant) -> Option<u64> {
        let mut inode = None;
        let _ = sock_diag::each(States::Connected, Some(self.peer.port()), end, |socket| {
            let ends = (unmapped(socket.local), unmapped(socket.peer));
            let is_it = ends == (self.peer, self.local) && socket.inode != 0;
            inode = inode.or(is_it.then_some(socket.inode));
            inode.is_none()
        });
        inode
    }

    /// The process that has its socket, or the other end of it; none that can be seen.
    pub(super) async fn process(&self) -> Option<Process> {
        match self.inode {
            0 => None,
            inode => search::holder(inode, self.uid).await,
        }
    }

    /// What is said of it. `process`: who has the socket of that inode.
    pub(super) fn told(&self, process: Option<&Process>) -> String {
        let Self { local, peer, .. } = self;
        let user = name_of(self.uid);
        let who = process.map_or_else(|| "a process that cannot be seen".to_owned(), describe);
        match self.hold {
            Hold::Listening => format!(
                "The server's port is taken: {who} of user {user} listens on {local}, so the server cannot use it; end that process"
            ),
            Hold::Bound => format!(
                "The server's port is taken: {who} of user {user} is bound to {local} without listening, so the server cannot \
                 use it; end that process"
            ),
            Hold::Connected | Hold::ConnectedOwn => format!(
                "The server's port is taken: {who} of user {user} has a connection from {local} to {peer}, which can keep the \
                 server from it; end that process"
            ),
            Hold::Closed => {
                let reader = process.map_or_else(|| "the other end".to_owned(), describe);
                format!(
                    "The server's port is taken: user {user} has closed a connection from {local} to {peer}, and the kernel \
                     keeps it until {reader} has read the rest; end it with ss -K src {local} dst {peer}"
                )
            }
            Hold::Ended => format!(
                "The server's port is taken: a connection from {local} to {peer} has ended, and the kernel keeps its port for \
                 up to a minute; the next run tries again; if this goes on, somebody connects from that port again and again"
            ),
        }
    }
}
