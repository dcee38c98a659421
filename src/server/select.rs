//! Which of the MyVNC servers of this machine is the one that the URL asks for: a pure function.
//! Every doubt spares.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::proc::net::takes;

use super::process::{Found, Process};

/// A process whose arguments are a MyVNC server's.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) process: Process,
    /// Where it listens; none where we may not see that.
    pub(super) listens: Option<HashSet<SocketAddr>>,
    /// Whether it lives in another network namespace than we do.
    pub(super) is_elsewhere: bool,
    pub(super) configured: Configured,
}

/// With which configuration a process was started, as against that of the restart command.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Configured {
    /// One of the two is not known.
    Unknown,
    /// The same.
    Alike,
    /// Another one.
    Apart,
    /// It was told none, and the restart command tells one.
    Otherwise,
}

impl Candidate {
    /// Whether it is seen to listen where this holds.
    fn listens_where(&self, holds: impl Fn(&SocketAddr) -> bool) -> bool {
        self.listens
            .as_ref()
            .is_some_and(|addresses| addresses.iter().any(holds))
    }

    fn listens(&self) -> bool {
        self.listens_where(|_| true)
    }
}

/// What is asked for.
#[derive(Debug)]
pub(super) struct Asked {
    /// The URL's port.
    pub(super) port: u16,
    /// The addresses of its host; none where they are not known.
    pub(super) addresses: Vec<IpAddr>,
    /// Where anything at all listens.
    pub(super) taken: Vec<SocketAddr>,
    /// Whether the administrator has named the server (`--process-pattern`).
    pub(super) is_named: bool,
    /// Whether only the port tells it from another server of the configuration file.
    pub(super) by_port_alone: bool,
}

impl Asked {
    /// Whether what listens there takes connections to the URL.
    fn is_at(&self, listening: &SocketAddr) -> bool {
        listening.port() == self.port && takes(listening.ip(), &self.addresses)
    }
}

/// Those that listen on the port and their matching kin are the server. Where none is seen to:
/// what the administrator has named, or the one family that it can be.
pub(super) fn choose(candidates: Vec<Candidate>, asked: &Asked) -> Found {
    let families = families(&candidates);
    let family = |one: &Candidate| families[&one.process.pid];
    let port = asked.port;
    let on_port: BTreeSet<i32> = candidates
        .iter()
        .filter(|one| one.listens_where(|address| asked.is_at(address)))
        .map(|one| one.process.pid)
        .collect();
    if !on_port.is_empty() {
        let kin: HashSet<i32> = on_port.iter().map(|pid| families[pid]).collect();
        let kin = the_one_of(kin, &candidates, &families, asked);
        let mut found = part(candidates, |one| {
            let is_kin = kin.contains(&family(one))
                && (on_port.contains(&one.process.pid) || !one.listens());
            (!is_kin).then(|| {
                if kin.is_empty() {
                    return format!("several servers listen where the URL asks, on port {port}; --process-pattern or --user says which");
                }
                format!("another process of its kind listens on port {port}: this is another instance")
            })
        });
        let server = found.server.iter().map(|process| process.pid);
        found.listening = server.filter(|pid| on_port.contains(pid)).collect();
        return found;
    }
    if asked.by_port_alone {
        return part(candidates, |_| {
            Some(format!(
                "it does not listen on port {port}, by which alone this server is told from another of the configuration; a process-pattern for each says otherwise"
            ))
        });
    }
    if asked.is_named {
        return part(candidates, |_| None);
    }
    let is_taken = asked.taken.iter().any(|address| asked.is_at(address));
    let of = |holds: fn(&Candidate) -> bool| -> HashSet<i32> {
        let holding = candidates.iter().filter(|one| holds(one));
        holding.map(family).collect()
    };
    let elsewhere = of(|one| one.is_elsewhere);
    let configured: HashSet<i32> = {
        let is_apart = |one: &&Candidate| match one.configured {
            Configured::Apart => true,
            // Where only a proxy speaks for it, what is told nothing is another's.
            Configured::Otherwise => is_taken,
            Configured::Alike | Configured::Unknown => false,
        };
        candidates.iter().filter(is_apart).map(family).collect()
    };
    let listening = of(Candidate::listens);
    let hidden = of(|one| one.listens.is_none());
    let all: HashSet<i32> = candidates.iter().map(family).collect();
    // What cannot be seen may be what listens there; what is seen to listen elsewhere can only be
    // behind a proxy.
    let behind = if hidden.is_empty() {
        all
    } else {
        hidden.clone()
    };
    let behind: HashSet<i32> = behind
        .into_iter()
        .filter(|one| !elsewhere.contains(one) && !configured.contains(one))
        .collect();
    part(candidates, |one| {
        let family = family(one);
        if elsewhere.contains(&family) {
            return Some("it lives in another network namespace".to_owned());
        }
        if configured.contains(&family) {
            return Some(
                "it was started with another --config_dir than the restart command's: this is another instance"
                    .to_owned(),
            );
        }
        if one.process.is_manager && !listening.contains(&family) {
            return Some(
                "manage.py starts and stops a server, and one that listens on no port is none; --process-pattern says otherwise"
                    .to_owned(),
            );
        }
        if is_taken {
            return if behind.len() > 1 {
                Some(format!(
                    "which of several servers is behind port {port} cannot be seen; --process-pattern or --user says which"
                ))
            } else {
                (!behind.contains(&family))
                    .then(|| format!("it does not listen on port {port}: this is another instance"))
            };
        }
        if listening.contains(&family) {
            return Some(format!(
                "it listens, but not where the URL asks, on port {port}: this is another instance; --url or --process-pattern says otherwise"
            ));
        }
        if hidden.contains(&family) {
            return Some(format!(
                "nothing listens on port {port}, and whether it listens on another is shown to its owner and to root alone"
            ));
        }
        None
    })
}

/// Of several families that listen where the URL asks, on sockets of their own, the one that has the
/// restart command's configuration; none of them where that does not tell.
fn the_one_of(
    kin: HashSet<i32>,
    candidates: &[Candidate],
    families: &HashMap<i32, i32>,
    asked: &Asked,
) -> HashSet<i32> {
    let sockets = |family: i32| -> BTreeSet<SocketAddr> {
        let members = candidates
            .iter()
            .filter(|one| families[&one.process.pid] == family);
        let listens = members.filter_map(|one| one.listens.as_ref()).flatten();
        listens
            .filter(|address| asked.is_at(address))
            .copied()
            .collect()
    };
    let shared: BTreeSet<_> = kin.iter().map(|family| sockets(*family)).collect();
    if shared.len() < 2 || asked.is_named {
        return kin;
    }
    let is_alike = |family: &i32| {
        let mut members = candidates
            .iter()
            .filter(|one| families[&one.process.pid] == *family);
        members.any(|one| one.configured == Configured::Alike)
    };
    let alike: HashSet<i32> = kin.into_iter().filter(is_alike).collect();
    if alike.len() == 1 {
        alike
    } else {
        HashSet::new()
    }
}

/// How `manage.py` and `main.py` are told their configuration.
const CONFIG_OPTION: &str = "--config_dir";
pub(super) const CONFIG_VARIABLE: &str = "MYVNC_CONFIG_DIR";

/// The configuration that a command line names, for `manage.py` or for the server itself.
pub(crate) fn config_dir(command: &str) -> Option<PathBuf> {
    let words = shlex::split(command)?;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let value = match word.split_once('=') {
            Some((CONFIG_OPTION | CONFIG_VARIABLE, value)) => value,
            None if word == CONFIG_OPTION => words.next()?,
            _ => continue,
        };
        // What the shell would expand, or what depends on where it stands, is not known here.
        let path = Path::new(value);
        let is_plain = path.is_absolute() && !value.contains(|c| "$`*?~;&|<>(){}[]#!".contains(c));
        return is_plain.then(|| path.components().collect());
    }
    None
}

/// Parts the server from what is left alone for a reason.
fn part(candidates: Vec<Candidate>, spare: impl Fn(&Candidate) -> Option<String>) -> Found {
    let mut found = Found::default();
    for one in candidates {
        match spare(&one) {
            Some(reason) => found.spared.push((one.process, reason)),
            None => found.server.push(one.process),
        }
    }
    found
}

/// Each process's topmost ancestor that matches without a gap.
fn families(candidates: &[Candidate]) -> HashMap<i32, i32> {
    let parents: HashMap<i32, i32> = candidates
        .iter()
        .map(|one| (one.process.pid, one.process.parent))
        .collect();
    let topmost = |mut pid: i32| {
        // A PID that was given away meanwhile could lead in a circle.
        for _ in 0..parents.len() {
            match parents
                .get(&pid)
                .filter(|parent| parents.contains_key(parent))
            {
                Some(parent) => pid = *parent,
                None => break,
            }
        }
        pid
    };
    parents.keys().map(|pid| (*pid, topmost(*pid))).collect()
}

#[cfg(test)]
mod tests;
