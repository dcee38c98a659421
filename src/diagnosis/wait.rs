//! What a thread waits for: what stands behind the descriptor, the path or the child that its
//! system call names.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use procfs::net::{TcpState, UdpNetEntry};
use procfs::process::FDTarget;

use super::mentioned;
use super::phrase::Mentioned;
use super::snapshot::Wait;
use crate::proc::fd_owners::{End, FdOwners};
use crate::proc::net::{Sockets, unmapped};
use crate::proc::process::Proc;
use crate::proc::syscall::{Activity, Operation, Polled, activity};
use crate::proc::{fd_owners, sock_diag};

/// No longer chain of processes that wait for each other is followed.
const LONGEST_CHAIN: usize = 6;
/// File systems whose server can be away (`filesystems(5)`), by the beginnings of their names.
const REMOTE: [&str; 13] = [
    "nfs",
    "cifs",
    "smb",
    "lustre",
    "gpfs",
    "ceph",
    "beegfs",
    "afs",
    "9p",
    "fuse",
    "autofs",
    "orangefs",
    "glusterfs",
];

/// What a process's descriptors and children are, to say what it waits for.
pub(super) struct WaitResolver<'a, 'p> {
    pub(super) proc: Proc<'p>,
    pub(super) pid: i32,
    pub(super) targets: &'a HashMap<i32, FDTarget>,
    pub(super) sockets: &'a Sockets,
    pub(super) children: &'a [Mentioned],
    pub(super) holders: &'a mut FdOwners<'p>,
    /// Whether it is asked, too, what the one that is waited for waits for.
    pub(super) asks_on: bool,
}

impl WaitResolver<'_, '_> {
    pub(super) fn wait(&mut self, doing: &Activity) -> Wait {
        match doing {
            Activity::Hidden => Wait::Hidden,
            Activity::Running => Wait::Running,
            Activity::Using(descriptor, operation) => self.on(*descriptor, *operation),
            Activity::Naming(path, operation) => self.file(path.as_deref(), *operation),
            Activity::Child(Some(pid)) => match mentioned::of(self.proc, *pid) {
                Some(child) => self.process(child),
                None => Wait::Unknown("a child".into()),
            },
            Activity::Child(None) => match self.children {
                [] => Wait::Unknown("a child".into()),
                [only] => self.process(only.clone()),
                several => Wait::Children(several.to_vec()),
            },
            Activity::Forking => match self.children.last().cloned() {
                Some(child) => self.process(child),
                None => Wait::Unknown("a child that it starts".into()),
            },
            Activity::Polling(all) => self.any(all),
            Activity::Accepting => Wait::Idle,
            Activity::Lock => Wait::Lock,
            Activity::Sleeping => Wait::Sleeping,
            Activity::Other(number) => Wait::Unknown(format!("system call {number}")),
        }
    }

    /// One of several descriptors. Where a client can connect meanwhile, it is idle, whoever else
    /// is waited for; where different ones are waited for, none of them is to blame.
    fn any(&mut self, all: &[Polled]) -> Wait {
        let mut decisive: Option<Wait> = None;
        for one in all {
            let operation = if one.writing {
                Operation::Writing
            } else {
                Operation::Reading
            };
            match self.on(one.descriptor, operation) {
                Wait::Idle => return Wait::Idle,
                wait if !wait.is_decisive() => (),
                wait if decisive.as_ref().is_none_or(|first| is_same(first, &wait)) => {
                    decisive.get_or_insert(wait);
                }
                _ => return Wait::Unknown(format!("poll of {} descriptors", all.len())),
            }
        }
        match decisive {
            Some(wait) => wait,
            None if all.is_empty() => Wait::Sleeping,
            None => Wait::Unknown("poll".into()),
        }
    }

    fn on(&mut self, descriptor: i32, operation: Operation) -> Wait {
        match self.targets.get(&descriptor) {
            Some(FDTarget::Socket(inode)) => self.socket(*inode, operation),
            Some(FDTarget::Pipe(inode)) => self.pipe(*inode, operation),
            Some(FDTarget::Path(path)) => self.file(Some(path), operation),
            _ => Wait::Unknown(format!("descriptor {descriptor}")),
        }
    }

    fn socket(&mut self, inode: u64, operation: Operation) -> Wait {
        let Some(row) = self.sockets.by_inode(inode) else {
            return datagrams(inode);
        };
        let (local, peer) = (row.local, row.peer);
        if row.state == TcpState::Listen {
            Wait::Idle
        } else if self.sockets.is_listened_to(local.port()) {
            let other_end = self.sockets.other_end(row).map(|row| row.inode);
            let process = other_end.and_then(|inode| self.holders.of_socket(inode, &[]));
            Wait::Client {
                inode,
                local: unmapped(local),
                peer: unmapped(peer),
                process: process.and_then(|pid| mentioned::of(self.proc, pid)),
                writing: operation == Operation::Writing,
                queued: row.tx_queue,
                received: sock_diag::received(local, peer),
            }
        } else {
            let other_end = self.sockets.other_end(row).map(|row| row.inode);
            // What is not accepted yet has no inode: its listener is asked then.
            let other_end = other_end.filter(|inode| *inode != 0);
            let inode = other_end.or_else(|| self.sockets.listening_at(unmapped(peer)));
            let process = inode.and_then(|inode| self.holders.of_socket(inode, &[]));
            Wait::Remote {
                peer: unmapped(peer),
                process: process.and_then(|pid| mentioned::of(self.proc, pid)),
                connecting: row.state == TcpState::SynSent,
            }
        }
    }

    /// Whoever has the other end: what is read from is written by somebody.
    fn pipe(&mut self, inode: u64, operation: Operation) -> Wait {
        let end = if operation == Operation::Writing {
            End::Read
        } else {
            End::Write
        };
        let children: Vec<i32> = self.children.iter().map(|child| child.pid).collect();
        let holders = self.holders.of_pipe(inode, end, &children);
        let holder = holders.into_iter().find(|pid| *pid != self.pid);
        match holder.and_then(|pid| mentioned::of(self.proc, pid)) {
            Some(holder) => self.process(holder),
            None => match self.hidden_child() {
                Some(child) => self.process(child),
                None => Wait::Unknown("a pipe".into()),
            },
        }
    }

    /// The only child whose descriptors cannot be read: it runs as another user, and has the other end
    /// for all that is seen of the rest.
    fn hidden_child(&self) -> Option<Mentioned> {
        let mut hidden = self.children.iter().filter(|child| self.is_hidden(child));
        match (hidden.next(), hidden.next()) {
            (Some(child), None) => Some(Mentioned {
                is_hidden: true,
                ..child.clone()
            }),
            _ => None,
        }
    }

    /// Whether a process lives and its descriptors cannot be read.
    fn is_hidden(&self, one: &Mentioned) -> bool {
        fd_owners::descriptors(self.proc, one.pid).is_none()
            && self.proc.is_alive(one.pid, one.start_time)
    }

    /// A process, what it waits for itself while it has one child, and what the last one waits for.
    fn process(&mut self, first: Mentioned) -> Wait {
        let mut chain = vec![first];
        while chain.len() < LONGEST_CHAIN {
            let Some(last) = chain.last() else { break };
            match mentioned::children(self.proc, last.pid).as_slice() {
                [only] if last.state == 'S' && only.pid != self.pid => chain.push(only.clone()),
                _ => break,
            }
        }
        if let Some(last) = chain.last_mut() {
            last.is_hidden = last.is_hidden || self.is_hidden(last);
        }
        let last = chain.last().filter(|_| self.asks_on).map(|last| {
            let wait = wait_of(self.proc, last.pid, self.sockets, self.holders);
            matches!(wait, Wait::Remote { .. } | Wait::File { .. }).then(|| Box::new(wait))
        });
        Wait::Process {
            chain,
            last: last.flatten(),
        }
    }

    fn file(&self, path: Option<&Path>, operation: Operation) -> Wait {
        let Some(path) = path else {
            return Wait::File {
                path: "a file".into(),
                operation,
                mount: None,
            };
        };
        let absolute = if path.is_absolute() {
            path.to_owned()
        } else {
            let cwd = std::fs::read_link(self.proc.path(self.pid, "cwd")).unwrap_or_default();
            cwd.join(path)
        };
        Wait::File {
            mount: remote_mount(self.proc, self.pid, &absolute),
            path: absolute.display().to_string(),
            operation,
        }
    }
}

/// What a process's main thread waits for.
fn wait_of<'p>(proc: Proc<'p>, pid: i32, sockets: &Sockets, holders: &mut FdOwners<'p>) -> Wait {
    let open = fd_owners::descriptors(proc, pid).into_iter().flatten();
    let targets = open.map(|one| (one.fd, one.target)).collect();
    let mut resolver = WaitResolver {
        proc,
        pid,
        targets: &targets,
        sockets,
        children: &[],
        holders,
        asks_on: false,
    };
    resolver.wait(&activity(proc, pid, pid))
}

/// Whether two waits are for the same one.
fn is_same(one: &Wait, other: &Wait) -> bool {
    match (one, other) {
        (Wait::Process { chain: one, .. }, Wait::Process { chain: other, .. }) => {
            one.first().map(|first| first.pid) == other.first().map(|first| first.pid)
        }
        (Wait::Client { peer: one, .. }, Wait::Client { peer: other, .. })
        | (Wait::Remote { peer: one, .. }, Wait::Remote { peer: other, .. }) => one == other,
        _ => one == other,
    }
}

/// A socket that is none of TCP: connected by UDP, as a resolver's is, or local.
fn datagrams(inode: u64) -> Wait {
    let tables = [procfs::net::udp(), procfs::net::udp6()];
    let mut rows = tables.into_iter().flatten().flatten();
    let is_it = |row: &UdpNetEntry| row.inode == inode && row.remote_address.port() != 0;
    match rows.find(is_it) {
        Some(row) => Wait::Remote {
            peer: unmapped(row.remote_address),
            process: None,
            connecting: false,
        },
        None => Wait::Unknown("a local socket".into()),
    }
}

/// `nfs4 server:/export on /home`, where that is what a path is on.
fn remote_mount(proc: Proc, pid: i32, path: &Path) -> Option<String> {
    let mounts = procfs::process::Process::new_with_root(proc.0.join(pid.to_string()))
        .ok()?
        .mountinfo()
        .ok()?;
    // The last one hides what is mounted below it.
    let mount = mounts
        .into_iter()
        .filter(|mount| path.starts_with(&mount.mount_point))
        .max_by_key(|mount| mount.mount_point.as_os_str().len())?;
    let is_remote = REMOTE.iter().any(|kind| mount.fs_type.starts_with(kind));
    is_remote.then(|| {
        let source = mount.mount_source.unwrap_or_default();
        let point: PathBuf = mount.mount_point;
        format!("{} {source} on {}", mount.fs_type, point.display())
    })
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests {
    use std::time::{Duration, Instant};

    use nix::libc;

    use super::*;
    use crate::diagnosis::captured::{Captured, blocked_in};

    /// What PID 7 waits for in this system call.
    fn wait_in(captured: &Captured, number: libc::c_long, first: u64) -> Wait {
        let proc = captured.proc();
        captured.file("7/task/7/syscall", &blocked_in(number, first));
        let sockets = Sockets::read(proc, 0);
        let mut holders = FdOwners::until(proc, Instant::now() + Duration::from_secs(60));
        let open = fd_owners::descriptors(proc, 7).into_iter().flatten();
        let targets = open.map(|one| (one.fd, one.target)).collect();
        let mut resolver = WaitResolver {
            proc,
            pid: 7,
            targets: &targets,
            sockets: &sockets,
            children: &mentioned::children(proc, 7),
            holders: &mut holders,
            asks_on: true,
        };
        resolver.wait(&activity(proc, 7, 7))
    }

    fn server() -> Captured {
        let captured = Captured::new();
        captured.process(7, 'S', "python3\0main.py\0", "running\n");
        captured.link("7/fd/3", "socket:[81]");
        captured.link("7/fd/4", "socket:[82]");
        captured.link("7/fd/5", "socket:[83]");
        captured.link("7/fd/6", "pipe:[90]");
        captured.link("7/fd/7", "/home/x/users.json");
        captured
    }

    #[test]
    fn a_socket_is_a_client_a_peer_or_the_listener() {
        let captured = server();
        let accepting = wait_in(&captured, libc::SYS_accept4, 3);
        assert_eq!(accepting, Wait::Idle);
        assert_eq!(wait_in(&captured, libc::SYS_read, 3), Wait::Idle);
        let Wait::Client {
            local,
            peer,
            writing,
            queued,
            ..
        } = wait_in(&captured, libc::SYS_sendto, 4)
        else {
            panic!("no client");
        };
        assert_eq!(local.to_string(), "127.0.0.1:9143");
        assert_eq!(peer.to_string(), "10.0.0.7:51234");
        assert!(writing && queued == 5);
        let Wait::Remote {
            peer, connecting, ..
        } = wait_in(&captured, libc::SYS_connect, 5)
        else {
            panic!("no peer");
        };
        assert_eq!(peer.to_string(), "10.0.0.7:389");
        assert!(connecting);
        let unknown = Wait::Unknown("descriptor 99".to_owned());
        assert_eq!(wait_in(&captured, libc::SYS_read, 99), unknown);
    }

    #[test]
    fn a_chain_of_processes_is_followed_to_its_end() {
        let captured = server();
        captured.process(42, 'S', "sh\0-c\0bjobs\0", "running\n");
        captured.process(43, 'S', "bjobs\0", &blocked_in(libc::SYS_read, 0));
        captured.link("43/fd/0", "/dev/ttyS0");
        captured.link("42/fd/1", "pipe:[90]");
        captured.file("7/task/7/children", "42 ");
        captured.file("42/task/42/children", "43 ");
        for (number, first) in [(libc::SYS_wait4, 42), (libc::SYS_read, 6)] {
            let Wait::Process { chain, last } = wait_in(&captured, number, first) else {
                panic!("no process");
            };
            let commands: Vec<&str> = chain.iter().map(|one| one.command.as_str()).collect();
            assert_eq!(commands, ["sh -c bjobs", "bjobs"]);
            let reads =
                matches!(last.as_deref(), Some(Wait::File { path, .. }) if path == "/dev/ttyS0");
            assert!(reads, "{last:?}");
        }
        captured.file("7/task/7/children", "42 43 ");
        let any = wait_in(&captured, libc::SYS_wait4, u64::from(u32::MAX));
        assert!(matches!(any, Wait::Children(two) if two.len() == 2));
    }

    #[test]
    fn a_file_is_named_with_the_network_file_system_that_it_is_on() {
        let captured = server();
        let file = |captured: &Captured| match wait_in(captured, libc::SYS_read, 7) {
            Wait::File { path, mount, .. } => (path, mount),
            other => (format!("{other:?}"), None),
        };
        let root = "20 1 8:1 / / rw - ext4 /dev/sda1 rw\n";
        captured.file("7/mountinfo", root);
        assert_eq!(file(&captured), ("/home/x/users.json".to_owned(), None));
        let home = format!("{root}21 20 0:40 / /home rw - nfs4 vm:/export rw\n");
        captured.file("7/mountinfo", &home);
        assert_eq!(
            file(&captured).1.as_deref(),
            Some("nfs4 vm:/export on /home")
        );
    }

    #[test]
    fn what_cannot_be_read_is_hidden() {
        let captured = server();
        std::fs::remove_file(captured.path().join("7/task/7/syscall")).unwrap_or_default();
        let proc = captured.proc();
        let mut holders = FdOwners::until(proc, Instant::now());
        let sockets = Sockets::read(proc, 0);
        assert_eq!(wait_of(proc, 7, &sockets, &mut holders), Wait::Hidden);
        assert_eq!(wait_of(proc, 8, &sockets, &mut holders), Wait::Hidden);
    }
}
