//! Where the server listens, and who can run it: what the settings, the record, the restart command's files and the URL
//! say.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::{Uid, geteuid};

use super::Run;
use crate::proc::net::{self, Locality, takes, unmapped};
use crate::proc::sock_diag;
use crate::server::config_dir::{self, ServerConfig, config_dir};
use crate::server::restart_command;
use crate::sys::bounded;
use crate::sys::hosts;

/// Time limit of reading `server_config.json`.
const CONFIG_TIMEOUT: Duration = Duration::from_secs(1);
/// Time limit of resolving the host in it.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(2);

/// Where the server listens, as far as it is known.
#[derive(Clone, Debug, Default)]
pub(super) struct Address {
    /// Addresses to which it may be bound; any, where there are none.
    pub(super) ips: Vec<IpAddr>,
    pub(super) port: u16,
    /// Whether nothing but the URL says so.
    pub(super) is_of_url: bool,
    /// Whether `server_config.json` says so.
    pub(super) is_of_config: bool,
}

/// What the restart command's files say.
#[derive(Clone, Debug, Default)]
pub(super) struct Files {
    pub(super) config: ServerConfig,
    /// Who owns it, if others than root can change it.
    pub(super) open_to: Option<u32>,
    /// The addresses of the host in it.
    pub(super) ips: Vec<IpAddr>,
    /// Who owns the script and the configuration directory.
    pub(super) owners: Vec<u32>,
    /// Who owns the directory of the server's log.
    pub(super) log_owner: Option<u32>,
}

impl Run<'_> {
    /// What the restart command's files say; read once in a run.
    pub(super) async fn files(&mut self) -> Files {
        if let Some(files) = &self.files {
            return files.clone();
        }
        let command = &self.settings.restart_cmd;
        let directory = config_dir(command);
        let owners = restart_command::owners(command, directory.as_deref()).await;
        let (config, open_to, log_owner) = match &directory {
            Some(directory) => {
                let reading = bounded::ask(CONFIG_TIMEOUT, || {
                    let config = config_dir::read(directory);
                    let logdir = config.logdir.as_ref();
                    let owner = |path: &Path| Some(std::fs::metadata(path).ok()?.uid());
                    let log_owner = logdir.and_then(|logdir| owner(Path::new(logdir)));
                    let path = config_dir::path(directory);
                    let is_open = restart_command::can_others_change(&path);
                    let open_to = is_open.then(|| owner(&path)).flatten();
                    (config, open_to, log_owner)
                });
                reading.await.ok().flatten().unwrap_or_default()
            }
            None => (ServerConfig::default(), None, None),
        };
        let ips = match &config.host {
            Some(host) if config.port.is_some() => {
                let resolving = tokio::time::timeout(RESOLVE_TIMEOUT, hosts::addresses(host));
                let found = resolving.await.ok().and_then(Result::ok);
                found.unwrap_or_default()
            }
            _ => Vec::new(),
        };
        let files = Files {
            config,
            open_to,
            ips,
            owners,
            log_owner,
        };
        self.files = Some(files.clone());
        files
    }

    /// Where the server listens: `--listen`, else the recorded socket if that still listens, else its configuration, else
    /// the record, else the URL.
    pub(super) fn address(&self, files: &Files) -> Address {
        if let Some(listen) = self.settings.listen {
            return Address {
                ips: vec![listen.ip()],
                port: listen.port(),
                ..Address::default()
            };
        }
        // The server's owner may change the configuration, so a socket that listens comes first.
        if let Some(listens) = self.recorded_socket() {
            return Address {
                ips: vec![listens.ip()],
                port: listens.port(),
                ..Address::default()
            };
        }
        if let Some(port) = files.config.port {
            // It binds all addresses, whatever name its configuration has for users.
            let is_here = net::locality(&files.ips) == Locality::Here;
            let configured = if is_here {
                files.ips.clone()
            } else {
                Vec::new()
            };
            // A name can have more addresses than the server was bound to.
            let listened = self.state.known().and_then(|known| known.listens);
            let listened = listened
                .filter(|listens| listens.port() == port && takes(listens.ip(), &configured));
            return Address {
                ips: listened.map_or(configured, |listens| vec![listens.ip()]),
                port,
                is_of_config: true,
                ..Address::default()
            };
        }
        if let Some(listens) = self.state.known().and_then(|known| known.listens) {
            return Address {
                ips: vec![listens.ip()],
                port: listens.port(),
                ..Address::default()
            };
        }
        Address {
            ips: self.checker.addresses(),
            port: self.settings.port(),
            is_of_url: true,
            ..Address::default()
        }
    }

    /// Where the recorded socket listens, if it still does.
    fn recorded_socket(&self) -> Option<SocketAddr> {
        let known = self.state.known()?;
        let (listens, cookie) = known.listens.zip(known.cookie)?;
        let socket = sock_diag::listener(listens, cookie);
        matches!(socket, Ok(Some(_))).then_some(listens)
    }

    /// Users that are proven to run the server, besides the recorded one.
    pub(super) fn proven(&self, files: &Files) -> Vec<u32> {
        let own = [0, geteuid().as_raw()].into_iter();
        let user = self.settings.user.map(Uid::as_raw);
        let run_as = self.settings.run_as.as_ref();
        let run_as = run_as.map(|account| account.uid.as_raw());
        own.chain(user)
            .chain(run_as)
            .chain(files.owners.iter().copied())
            .collect()
    }

    /// Who can hold the server's address for it, if others than root can change the configuration that says where that
    /// is: the recorded user, else those whose files these are. Root and the monitor's own user have other servers.
    pub(super) fn holders(&self, address: &Address, files: &Files) -> Option<Vec<u32>> {
        let owner = files.open_to.filter(|_| address.is_of_config)?;
        let owners = files.owners.iter().copied().chain([owner]);
        let owners: Vec<u32> = owners.filter(|uid| *uid != 0).collect();
        let known = self.state.known();
        let known = known.and_then(|known| known.uid.or(known.socket_uid));
        let mut holders = known.map_or(owners, |known| vec![known]);
        holders.extend(self.settings.user.map(Uid::as_raw));
        holders.extend(
            self.settings
                .run_as
                .as_ref()
                .map(|account| account.uid.as_raw()),
        );
        Some(holders)
    }

    /// Whether the URL leads to that address.
    pub(super) fn is_at_url(&self, address: &Address) -> bool {
        let urls = self.checker.addresses();
        address.port == self.settings.port()
            && (address.ips.is_empty() || address.ips.iter().any(|ip| takes(*ip, &urls)))
    }

    /// Whether the URL leads to other sockets than the one that is bound there, too.
    pub(super) fn leads_elsewhere(&self, bound: SocketAddr) -> bool {
        let mut urls = self.checker.addresses().into_iter();
        bound.port() != self.settings.port() || urls.any(|ip| !takes(bound.ip(), &[ip]))
    }

    /// Where to ask the server itself, if that is not where the URL leads.
    pub(super) fn own_address(&self) -> Option<SocketAddr> {
        let files = self.files.as_ref()?;
        let address = self.address(files);
        if address.is_of_url || self.is_at_url(&address) {
            return None;
        }
        // Of a name's addresses, most servers use the IPv4 one alone.
        let ip = address.ips.iter().min_by_key(|ip| ip.is_ipv6());
        Some(SocketAddr::new(
            ip.map_or(Ipv4Addr::LOCALHOST.into(), |ip| reachable(*ip)),
            address.port,
        ))
    }

    /// The directory of the server's own log, where its configuration says so.
    pub(super) fn logdir(&self) -> Option<PathBuf> {
        let files = self.files.as_ref()?;
        files
            .config
            .logdir
            .clone()
            .map(|dir| OsString::from(dir).into())
    }
}

/// An address at which a socket that is bound to this one can be asked from here.
pub(super) fn reachable(bound: IpAddr) -> IpAddr {
    match bound {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

/// An address in a sentence.
pub(super) fn shown(address: &Address) -> String {
    match address.ips.first() {
        Some(ip) => unmapped(SocketAddr::new(*ip, address.port)).to_string(),
        None => format!("port {}", address.port),
    }
}
