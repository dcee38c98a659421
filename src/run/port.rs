//! The part of a run that says, after a start that failed, who keeps the server from its port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use nix::unistd::Uid;
use procfs::net::TcpState;

use super::Run;
use super::wording::describe;
use crate::proc::net::{self, can_take, unmapped};
use crate::proc::sock_diag::{self, TcpSocket};
use crate::server::search;
use crate::sys::account::name_of;

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
        let (mut worst, mut is_its_own): (Option<(Hold, TcpSocket)>, bool) = (None, false);
        let end = Instant::now() + LIST_TIMEOUT;
        let listed = sock_diag::sockets(Some(port), |socket| {
            let is_of_server = self.may_be_servers(socket.uid);
            let hold = Hold::of(&socket, is_of_server);
            is_its_own |= is_of_server && hold <= Hold::Bound;
            let is_in_the_way = can_take(socket.local.ip(), socket.is_v6_only, &[refused.ip()]);
            if is_in_the_way && worst.as_ref().is_none_or(|(worst, _)| hold < *worst) {
                worst = Some((hold, socket));
            }
            Instant::now() < end
        });
        if is_its_own || listed.is_err() {
            return;
        }
        let text = match worst {
            Some((Hold::Ended, socket)) => format!(
                "The server's port is taken: a connection from {} to {} has ended, and the kernel keeps its port for up to a \
                 minute; the next run tries again",
                unmapped(socket.local),
                unmapped(socket.peer)
            ),
            Some((hold, socket)) => {
                let holder = search::holder(socket.inode, socket.uid).await;
                let who = holder.map_or_else(
                    || "a process that cannot be seen".to_owned(),
                    |one| describe(&one),
                );
                format!(
                    "The server's port is taken: {who} of user {} {}, so the server cannot use it; end that process",
                    name_of(socket.uid),
                    what_it_does(hold, &socket)
                )
            }
            None => format!(
                "The server's port is taken: the kernel lets nobody use {refused}, and does not show who has it; look at the \
                 output of ss -tanp 'sport = :{port}' as root"
            ),
        };
        self.journal.error(&text);
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
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
enum Hold {
    Listening,
    Bound,
    Connected,
    /// It is connected, and its user runs the server: it may have been the server's.
    ConnectedOwn,
    /// No process has it any more.
    Ended,
}

impl Hold {
    fn of(socket: &TcpSocket, is_of_server: bool) -> Self {
        match socket.state {
            TcpState::Listen => Self::Listening,
            TcpState::Close => Self::Bound,
            _ if socket.inode == 0 => Self::Ended,
            _ if is_of_server => Self::ConnectedOwn,
            _ => Self::Connected,
        }
    }
}

fn what_it_does(hold: Hold, socket: &TcpSocket) -> String {
    let local = unmapped(socket.local);
    match hold {
        Hold::Listening => format!("listens on {local}"),
        Hold::Bound => format!("is bound to {local} without listening"),
        _ => format!("has a connection from {local} to {}", unmapped(socket.peer)),
    }
}
