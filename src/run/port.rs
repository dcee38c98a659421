//! The part of a run that says, after a start that failed, who keeps the server from its port.

mod keepers;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::unistd::Uid;

use self::keepers::Keepers;
use super::Run;
use crate::proc::net;

impl Run<'_> {
    /// Whether anybody listens on the server's port. What cannot be read is listened to.
    pub(super) fn is_listened_to(&self) -> bool {
        let files = self.files.clone().unwrap_or_default();
        net::is_listened_to(self.address(&files).port, None)
    }

    /// Says who has the server's port, or had it when the server that was started had ended, or that only root may.
    pub(super) async fn say_who_has_port(&self) {
        let restart = self.restart.as_ref();
        let earlier = restart.and_then(|restart| restart.port_was_taken.as_ref());
        match (self.who_has_port().await, earlier) {
            (Some(text), _) => self.journal.error(&text),
            (None, Some(text)) => self
                .journal
                .error(&format!("When the server that was started ended: {text}")),
            (None, None) => self.say_port_is_roots(),
        }
    }

    /// Who has the server's port, if that is neither the server nor what was started: who listens at its address, or
    /// else whoever makes the kernel refuse it.
    pub(super) async fn who_has_port(&self) -> Option<String> {
        if self.is_listened_to() {
            if let Some(text) = self.taken_meanwhile() {
                return Some(text);
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
        let refused = refused.find(|address| net::is_in_use(*address))?;
        let keepers = Keepers::look(refused, |uid| self.may_be_servers(uid)).await;
        if keepers.is_its_own {
            return None;
        }
        let Some(worst) = keepers.worst else {
            return Some(format!(
                "The server's port is taken: the kernel lets nobody use {refused}, and does not show who has it; look at the \
                 output of ss -tanp 'sport = :{port}' as root"
            ));
        };
        let process = worst.process().await;
        Some(worst.told(process.as_ref()))
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
