//! What was seen of a server: states, threads, sockets, children and limits.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::oom::Victim;
use super::phrase::{Mentioned, Sight};
use super::question::Seen;
use crate::proc::cgroup::Limit;
use crate::proc::machine::Machine;
use crate::proc::sock_diag::Received;
use crate::proc::syscall::{Activity, Operation};
use crate::server::process::Process;

/// All that was seen.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) port: u16,
    /// Whether nothing but the URL says that the server should listen there.
    pub(crate) is_port_of_url: bool,
    pub(crate) addresses: Vec<IpAddr>,
    /// Whether the URL's host is another machine.
    pub(crate) elsewhere: bool,
    /// Whose processes it may see.
    pub(crate) sight: Sight,
    pub(crate) tls: bool,
    pub(crate) seen: Seen,
    pub(crate) since_healthy: Option<Duration>,
    /// Whether processes of the server were found, whatever else was seen of them.
    pub(crate) is_running: bool,
    pub(crate) processes: Vec<Inspected>,
    pub(crate) listeners: Vec<PortListener>,
    /// Other MyVNC servers of this machine, and where they listen.
    pub(crate) instances: Vec<(Mentioned, Vec<SocketAddr>)>,
    /// Directories of the server's whose disk is full.
    pub(crate) full: Vec<Full>,
    pub(crate) machine: Machine,
    /// What the OOM killer ended, where no process is found.
    pub(crate) victim: Option<Victim>,
    /// The server's own log, and its last lines.
    pub(crate) log: Option<(PathBuf, Vec<String>)>,
    /// How far the collection has come.
    pub(crate) stage: Stage,
}

/// Steps of the collection, in order: a step is complete once the next one has begun.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Stage {
    /// At the machine's memory and load.
    #[default]
    Machine,
    /// At the server's processes.
    Processes,
    /// At who listens on the URL's port.
    Port,
    /// At the kernel's log.
    KernelLog,
    /// At the server's own log.
    ServerLog,
    /// At the disks of its directories.
    Disks,
    /// At everything.
    All,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Machine => "the machine's memory and load",
            Self::Processes => "the server's processes",
            Self::Port => "the listening sockets",
            Self::KernelLog => "the kernel's log",
            Self::ServerLog => "the server's own log",
            Self::Disks => "the disks of the server's directories",
            Self::All => "nothing more",
        })
    }
}

/// One process of the server, and what was read of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inspected {
    /// The process, without secrets in its command line.
    pub(crate) process: Process,
    /// The letter of `proc_pid_stat(5)`.
    pub(crate) state: char,
    /// The kernel function it waits in, where that can be seen.
    pub(crate) kernel: Option<String>,
    /// The functions of the kernel that it is in, the innermost first, where it is in state D.
    pub(crate) stack: Vec<String>,
    pub(crate) age: Duration,
    /// CPU time that it has used in its life.
    pub(crate) cpu: Duration,
    /// Bytes of memory in use, and swapped out.
    pub(crate) resident: u64,
    pub(crate) swapped: u64,
    /// Who traces it.
    pub(crate) tracer: Option<Mentioned>,
    pub(crate) threads: Vec<Thread>,
    /// Open descriptors, where they can be counted, and how many it may have.
    pub(crate) descriptors: Option<usize>,
    pub(crate) most_descriptors: Option<u64>,
    /// Its TCP sockets by state.
    pub(crate) sockets: BTreeMap<&'static str, usize>,
    /// Where it listens, and how many clients wait there to be accepted.
    pub(crate) listens: Vec<(SocketAddr, u32)>,
    pub(crate) children: Vec<Mentioned>,
    /// Use and limit of what it is at or near the end of.
    pub(crate) limits: Vec<Limit>,
}

impl Inspected {
    pub(crate) fn pid(&self) -> i32 {
        self.process.pid
    }

    /// What the main thread waits for; where that has ended, the first that lives.
    pub(crate) fn wait(&self) -> &Wait {
        let mut living = self.threads.iter().filter(|thread| thread.state != 'Z');
        let main = living.clone().find(|thread| thread.tid == self.pid());
        main.or_else(|| living.next())
            .map_or(&Wait::Hidden, |thread| &thread.wait)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Thread {
    pub(crate) tid: i32,
    pub(crate) name: String,
    pub(crate) state: char,
    pub(crate) activity: Activity,
    pub(crate) wait: Wait,
    /// Its CPU times when the collection began.
    pub(crate) cpu: Cpu,
    /// Percentage of the sampling time in which it ran, and in which it waited for a CPU.
    pub(crate) ran: u128,
    pub(crate) waited: u128,
}

/// What a thread has had of the CPUs in its life.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Cpu {
    pub(crate) ran: Duration,
    /// Ready to run, while others ran.
    pub(crate) waited: Duration,
}

/// What a thread waits for, with what stands behind its descriptor.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) enum Wait {
    /// We may not see it.
    #[default]
    Hidden,
    Running,
    /// For a client of its own to send, or to take what is sent.
    Client {
        inode: u64,
        /// The server's end.
        local: SocketAddr,
        peer: SocketAddr,
        /// Which process that is, where it is one of this machine.
        process: Option<Mentioned>,
        writing: bool,
        queued: u32,
        received: Option<Received>,
    },
    /// For another host.
    Remote {
        peer: SocketAddr,
        /// Which process that is, where it is one of this machine.
        process: Option<Mentioned>,
        connecting: bool,
    },
    /// For a child, or for whoever holds the other end of a pipe; and if that one waits for
    /// another, for that; and what the last of them waits for, where that is another host or a file.
    Process {
        chain: Vec<Mentioned>,
        last: Option<Box<Wait>>,
    },
    /// For any of several children to exit.
    Children(Vec<Mentioned>),
    /// For a file.
    File {
        path: String,
        operation: Operation,
        /// The network file system that it is on.
        mount: Option<String>,
    },
    /// For a lock of its own.
    Lock,
    /// For a client to come.
    Idle,
    Sleeping,
    /// For something that is not named.
    Unknown(String),
}

impl Wait {
    /// Whether it names who or what is waited for.
    pub(crate) fn is_decisive(&self) -> bool {
        matches!(
            self,
            Self::Client { .. }
                | Self::Remote { .. }
                | Self::Process { .. }
                | Self::Children(_)
                | Self::File { .. }
        )
    }
}

/// A socket that listens on the URL's port.
#[derive(Clone, Debug)]
pub(crate) struct PortListener {
    pub(crate) address: SocketAddr,
    /// Whether it takes no connections to IPv4 addresses.
    pub(crate) is_v6_only: bool,
    /// Connections that wait to be accepted, and how many may.
    pub(crate) waiting: u32,
    pub(crate) backlog: Option<u32>,
    /// Those of them whose client has not given up.
    pub(crate) clients: usize,
    /// Connections that the peer has closed and the server has not, accepted or not.
    pub(crate) closing: usize,
    /// Who listens, and whether that is one of the server's processes.
    pub(crate) holder: Option<Mentioned>,
    pub(crate) ours: bool,
}

/// A directory on a disk that takes no more.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Full {
    pub(crate) directory: PathBuf,
    /// Whether there is room and no inode.
    pub(crate) inodes: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thread(tid: i32, state: char, wait: Wait) -> Thread {
        Thread {
            tid,
            name: String::new(),
            state,
            activity: Activity::Running,
            wait,
            cpu: Cpu::default(),
            ran: 0,
            waited: 0,
        }
    }

    #[test]
    fn the_first_living_thread_stands_for_a_main_thread_that_has_ended() {
        let mut process = Inspected {
            process: Process {
                pid: 7,
                ..Process::default()
            },
            threads: vec![thread(8, 'S', Wait::Lock), thread(7, 'S', Wait::Idle)],
            ..Inspected::default()
        };
        assert_eq!(*process.wait(), Wait::Idle);
        process.threads[1].state = 'Z';
        assert_eq!(*process.wait(), Wait::Lock);
        process.threads.clear();
        assert_eq!(*process.wait(), Wait::Hidden);
    }
}
