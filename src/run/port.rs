//! The part of a run that says, after a start that failed, who keeps the server from its port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use nix::unistd::Uid;
use procfs::net::TcpState;
use serde::{Deserialize, Serialize};

use super::Run;
use super::wording::describe;
use crate::proc::net::{self, can_take, unmapped};
use crate::proc::sock_diag::{self, TcpSocket};
use crate::server::process::Process;
use crate::server::search;
use crate::sys::account::name_of;
use crate::sys::bounded;

/// Time limit of listing the sockets of the port.
const LIST_TIMEOUT: Duration = Duration::from_millis(500);

impl Run<'_> {
    /// Whether anybody listens on the server's port. What cannot be read is listened to.
    pub(super) fn is_listened_to(&self) -> bool {
        let files = self.files.clone().unwrap_or_default();
        net::is_listened_to(self.address(&files).port, None)
    }

    /// Says who has the server's port, if that is neither the server nor what was started: who listens at its address,
    /// or else whoever makes the kernel refuse it.
    pub(super) async fn say_who_has_port(&self) {
        if self.is_listened_to() {
            if let Some(text) = self.taken_meanwhile() {
                return self.journal.error(&text);
            }
        }
        let files = self.files.clone().unwrap_or_default();
        let address = self.address(&files);
        // Where nothing but the URL is known, the server may ask for all addresses of its port.
        let ips = if address.is_of_url || address.ips.is_empty() {
            vec![all_of(&address.ips)]
        } else {
            address.ips
        };
        let port = address.port;
        let mut refused = ips.iter().map(|ip| SocketAddr::new(*ip, port));
        let Some(refused) = refused.find(|address| net::is_in_use(*address)) else {
            return;
        };
        let is_its = |uid| self.may_be_servers(uid);
        let looking = bounded::ask(LIST_TIMEOUT, || Keepers::in_use(refused, is_its));
        let mut keepers = looking.await.ok().flatten().unwrap_or_default();
        if keepers
            .worst
            .as_ref()
            .is_none_or(|worst| worst.hold > Hold::Listening)
        {
            // A dump that does not return costs nothing of what was seen.
            let looking = bounded::ask(LIST_TIMEOUT, || Keepers::bound(refused, is_its));
            keepers.add(looking.await.ok().flatten().unwrap_or_default());
        }
        if keepers.is_its_own {
            return;
        }
        let Some(worst) = keepers.worst else {
            return self.journal.error(&format!(
                "The server's port is taken: the kernel lets nobody use {refused}, and does not show who has it; look at the \
                 output of ss -tanp 'sport = :{port}' as root"
            ));
        };
        let who = match worst.inode {
            0 => None,
            inode => search::holder(inode, worst.uid).await,
        };
        self.journal.error(&worst.told(who.as_ref()));
    }

    /// Whether a socket of that user may be that of the server that was started: of its own user, where that is known.
    fn may_be_servers(&self, uid: u32) -> bool {
        let recorded = self.state.known().and_then(|known| known.socket_uid);
        let run_as = self.settings.run_as.as_ref();
        let run_as = run_as.map(|account| account.uid.as_raw());
        let user = self.settings.user.map(Uid::as_raw);
        let known = [recorded, self.stopped_socket_uid, run_as, user];
        let mut known = known.into_iter().flatten().peekable();
        match known.peek() {
            Some(_) => known.any(|known| known == uid),
            None => self.is_of_server(uid),
        }
    }

    /// Whether that user's sockets can be the server's.
    pub(super) fn is_of_server(&self, uid: u32) -> bool {
        let files = self.files.clone().unwrap_or_default();
        let recorded = self.state.known().and_then(|known| known.socket_uid);
        recorded.or(self.stopped_socket_uid) == Some(uid) || self.proven(&files).contains(&uid)
    }
}

/// All addresses of this machine of the kind of these: IPv4, unless there are only others.
fn all_of(ips: &[IpAddr]) -> IpAddr {
    let is_other = |ip: &IpAddr| ip.to_canonical().is_ipv6();
    if !ips.is_empty() && ips.iter().all(is_other) {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    }
}

/// How a socket has its port, what keeps others from it most surely first.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
enum Hold {
    Listening,
    Bound,
    Connected,
    /// It is connected, and its user runs the server: it may have been the server's.
    ConnectedOwn,
    /// Its process has closed it, and its peer does not take the rest.
    Closed,
    /// TIME_WAIT: it has ended, and the kernel no longer knows whose it was.
    Ended,
}

/// A socket that keeps the server from its port.
#[derive(Debug, Deserialize, Serialize)]
struct Keeper {
    hold: Hold,
    local: SocketAddr,
    peer: SocketAddr,
    uid: u32,
    /// The socket that a process has: itself, or of one that was closed the other end; 0 if that is not of this machine.
    inode: u64,
}

/// What has the server's port.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Keepers {
    worst: Option<Keeper>,
    /// Whether the server's user listens there, or is about to.
    is_its_own: bool,
}

impl Keepers {
    /// What listens at this address or is connected from there. `is_its`: whether a user's sockets may be the server's.
    fn in_use(refused: SocketAddr, is_its: impl Fn(u32) -> bool) -> Self {
        let mut keepers = Self::default();
        let end = Instant::now() + LIST_TIMEOUT;
        let take = |socket| keepers.take(&socket, refused, &is_its);
        // What was seen by then counts.
        let _ = sock_diag::sockets(Some(refused.port()), end, take);
        if let Some(worst) = keepers
            .worst
            .as_mut()
            .filter(|one| one.hold == Hold::Closed)
        {
            worst.inode = other_end(worst, end).unwrap_or_default();
        }
        keepers
    }

    /// What is bound there and no more.
    fn bound(refused: SocketAddr, is_its: impl Fn(u32) -> bool) -> Self {
        let mut keepers = Self::default();
        let end = Instant::now() + LIST_TIMEOUT;
        let take = |socket| keepers.take(&socket, refused, &is_its);
        let _ = sock_diag::bound(refused.port(), end, take);
        keepers
    }

    fn take(
        &mut self,
        socket: &TcpSocket,
        refused: SocketAddr,
        is_its: impl Fn(u32) -> bool,
    ) -> bool {
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
        true
    }

    fn add(&mut self, other: Self) {
        self.is_its_own |= other.is_its_own;
        let all = self.worst.take().into_iter().chain(other.worst);
        self.worst = all.min_by_key(|one| one.hold);
    }
}

/// The inode of the other end of a connection, if a process of this machine has it.
fn other_end(one: &Keeper, end: Instant) -> Option<u64> {
    let mut inode = None;
    let take = |socket: TcpSocket| {
        let is_it = (unmapped(socket.local), unmapped(socket.peer)) == (one.peer, one.local);
        inode = inode.or((is_it && socket.inode != 0).then_some(socket.inode));
        inode.is_none()
    };
    let _ = sock_diag::sockets(Some(one.peer.port()), end, take);
    inode
}

impl Keeper {
    /// What is said of it. `process`: who has the socket of that inode.
    fn told(&self, process: Option<&Process>) -> String {
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
                let other = process.map_or(String::new(), |one| format!(" by {}", describe(one)));
                format!(
                    "The server's port is taken: user {user} has closed a connection from {local}, but its last data was not \
                     taken at {peer}{other}; end it with ss -K src {local} dst {peer}"
                )
            }
            Hold::Ended => format!(
                "The server's port is taken: a connection from {local} to {peer} has ended, and the kernel keeps its port for \
                 up to a minute; the next run tries again; if this goes on, somebody connects from that port again and again"
            ),
        }
    }
}
