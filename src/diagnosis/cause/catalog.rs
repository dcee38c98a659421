//! Every cause of a hang: its slug, its sentence, its culprit, its rank, and its entry in the manual.
//! Only `std`: `build.rs` generates the manual's section CAUSES from it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::diagnosis::phrase::{Mentioned, Sight, ago, list, mebibytes};

/// A cause, with what its sentence names.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cause {
    /// No process of the server was found; the time since the last healthy check, if one is known.
    NotRunning { since_healthy: Option<Duration> },
    /// The OOM killer ended the server, or a process that may have been the server.
    OomKilled {
        /// None if the kernel numbers it in another PID namespace than ours.
        pid: Option<i32>,
        name: String,
        ago: Duration,
        /// Whether it is the recorded server.
        is_known: bool,
    },
    /// The OOM killer ended a process of the server's control group.
    OomKilledInGroup(String),
    /// A thread waits for somebody or something with a name.
    Waiting { awaited: Awaited, waiter: Waiter },
    /// A process, or the thread `tid` of it, is in state D.
    Uninterruptible {
        pid: i32,
        tid: Option<i32>,
        place: Option<KernelPlace>,
    },
    /// State T.
    Stopped { pid: i32 },
    /// State t; its tracer, if that can be seen.
    Traced { pid: i32, tracer: Option<Mentioned> },
    /// A thread used this percentage of a CPU.
    Spinning {
        pid: i32,
        tid: i32,
        name: String,
        percent: u128,
        /// Whether it was ready to run the rest of the time.
        is_starved: bool,
    },
    /// The main thread waits for a lock, and no thread runs.
    Deadlock {
        pid: i32,
        threads: usize,
        /// Whether some threads sleep for a time instead of waiting for a lock.
        some_sleep: bool,
    },
    /// A process does what a healthy one does.
    Unremarkable { pid: i32 },
    /// Few or no descriptors are left.
    Descriptors { pid: i32, open: u64, most: u64 },
    /// Connections in CLOSE_WAIT.
    Leak { pid: i32, connections: usize },
    /// No thread is left in a limit.
    Threads {
        pid: i32,
        limited: Limited,
        used: u64,
        most: u64,
    },
    /// No thread is left on the machine.
    MachineThreads { used: u64, most: u64 },
    /// The monitor cannot start a process, for this reason.
    CannotFork(String),
    /// A control group is at its limit, in bytes.
    GroupMemory { pid: i32, used: u64, most: u64 },
    /// The machine is short of memory, in bytes; with its pressure in percent.
    MachineMemory {
        available: u64,
        total: u64,
        pressure: Option<f32>,
    },
    /// More bytes of a process are swapped out than in memory.
    Swapped { pid: i32, bytes: u64 },
    /// Clients wait to be accepted; with a backlog, more connections than it allows.
    AcceptQueue {
        address: SocketAddr,
        waiting: u32,
        clients: usize,
        full: Option<u32>,
    },
    /// Another process listens at the URL's address; the server, if it listens elsewhere.
    PortTaken {
        address: SocketAddr,
        holder: Mentioned,
        server: Option<ServerProcess>,
    },
    /// The server listens at another address of its port.
    OtherAddress(SocketAddr),
    /// The server listens nowhere on its port.
    NotListening { port: u16 },
    /// Another MyVNC server listens, on another port than the URL's.
    OtherPort {
        port: u16,
        address: SocketAddr,
        process: Mentioned,
    },
    /// The URL's host, with these addresses, is another machine.
    Elsewhere(Vec<IpAddr>),
    /// The URL's host has no address, for this reason.
    Dns {
        reason: String,
        server: Option<ServerProcess>,
    },
    /// A proxy answers that the server does not.
    Proxy {
        proxy: Option<Mentioned>,
        status: u16,
        behind: Behind,
    },
    /// A status that is not healthy.
    HttpStatus(u16),
    /// The certificate is not accepted, for this reason.
    Certificate(String),
    /// The answer is not HTTP or not TLS.
    NotMyvnc(String),
    /// The disk of a directory has no free block, or no free inode.
    DiskFull { directory: PathBuf, inodes: bool },
    /// The machine has more to run than its CPUs can; with its pressure in percent.
    Overload {
        load: f32,
        cpus: u16,
        pressure: Option<f32>,
    },
    /// The machine waits for its disks; its pressure in percent.
    DiskPressure(f32),
    /// The server speaks the other scheme; the URL that is right.
    Scheme { url: String, speaks_tls: bool },
    /// More redirects on the URL's host than are followed.
    RedirectLoop,
    /// The check failed on the monitor's own side, for this reason.
    LocalFailure {
        reason: String,
        server: Option<ServerProcess>,
    },
    /// What the process waits for may not be seen.
    HiddenWait { pid: i32, sight: Sight },
    /// Who listens may not be seen.
    HiddenHolder { address: SocketAddr, sight: Sight },
    /// A process is blocked in something without a name; with its kernel wait channel.
    Blocked {
        pid: i32,
        what: String,
        channel: Option<String>,
    },
    /// A process sleeps for a time that it chose.
    Sleeping { pid: i32 },
    /// The main thread waits for a lock that another thread may release.
    Lock { pid: i32 },
    /// Only the process's state is known; with its kernel wait channel.
    State {
        pid: i32,
        state: char,
        channel: Option<String>,
    },
    /// The time limit passed while this was read.
    TimedOut(String),
    /// /proc did not respond within this time.
    ProcTimedOut(Duration),
}

/// Who or what a thread waits for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Awaited {
    /// A client that sends nothing.
    IdleClient {
        client: Client,
        silence: Option<Silence>,
    },
    /// The same, of a server that speaks TLS.
    IdleTlsClient {
        client: Client,
        silence: Option<Silence>,
        /// Whether the handshake cannot have ended.
        is_handshake: bool,
    },
    /// A client that does not read; the bytes that wait to be sent.
    SlowReader { client: Client, queued: u32 },
    /// A child or the holder of the other end of a pipe, then what that one waits for, and so on; and what
    /// the last one waits for.
    Child {
        chain: Vec<Mentioned>,
        last: Option<Box<Awaited>>,
    },
    /// Any of several children.
    AnyChild(Vec<Mentioned>),
    /// Another service, with its process if it is one of this machine.
    Peer {
        address: SocketAddr,
        process: Option<Mentioned>,
        is_connecting: bool,
    },
    /// A file.
    File(File),
}

/// A client, with its process if that is one of this machine.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    pub(crate) process: Option<Mentioned>,
}

/// How long ago a client sent its last byte, or connected, and how many bytes it sent in all.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Silence {
    pub(crate) ago: Duration,
    pub(crate) bytes: u64,
}

/// What is done with a file ("opening"), its path, and the network file system that it is on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct File {
    pub(crate) operation: String,
    pub(crate) path: String,
    pub(crate) mount: Option<String>,
}

/// The thread that waits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Waiter {
    /// The main thread.
    Main { pid: i32, is_in_state_d: bool },
    /// Another one; the main thread waits for a lock.
    Thread { pid: i32, tid: i32 },
}

/// Where a thread is in the kernel.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum KernelPlace {
    File(File),
    /// The kernel wait channel (`proc_pid_wchan(5)`).
    Channel(String),
}

/// Whose threads are limited.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Limited {
    Group,
    User,
}

/// The server's first process, and where it listens, if that can be seen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ServerProcess {
    pub(crate) pid: i32,
    pub(crate) listens: Vec<SocketAddr>,
}

/// What is known of the server behind a proxy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Behind {
    /// It is on another machine.
    Elsewhere,
    Running(Option<ServerProcess>),
    NotRunning {
        since_healthy: Option<Duration>,
    },
}

/// Who or what is to blame.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Culprit {
    pub(crate) kind: CulpritKind,
    /// The address of a client or a peer, the name of a child's, a proxy's or a process's program, the
    /// path of a file.
    pub(crate) name: String,
}

/// The kinds of [`Culprit`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum CulpritKind {
    Client,
    Child,
    Peer,
    File,
    Proxy,
    Process,
}

impl CulpritKind {
    /// All kinds.
    pub(crate) const ALL: [Self; 6] = [
        Self::Client,
        Self::Child,
        Self::Peer,
        Self::File,
        Self::Proxy,
        Self::Process,
    ];

    /// The name of the kind in interfaces (JSON, history).
    pub(crate) fn slug(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Child => "child",
            Self::Peer => "peer",
            Self::File => "file",
            Self::Proxy => "proxy",
            Self::Process => "process",
        }
    }

    /// The kind with this slug.
    pub(crate) fn from_slug(slug: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.slug() == slug)
    }
}

/// The order in which causes are named, the most specific first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Rank {
    /// The answer itself.
    Answer,
    Elsewhere,
    /// What a process waits for.
    Blocked,
    /// What a process has used up.
    UsedUp,
    Spinning,
    Deadlock,
    Proxy,
    /// Whether and where the server runs.
    Placed,
    Queue,
    Leak,
    Memory,
    Disk,
    /// What a process waits for cannot be seen or has no name.
    Unseen,
    Machine,
    Unremarkable,
    Monitor,
}

macro_rules! kinds {
    ($($kind:ident $slug:literal),+ $(,)?) => {
        /// What causes have in common: a slug and an entry in the manual.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub(crate) enum Kind {
            $(#[doc = $slug] $kind),+
        }

        impl Kind {
            /// All kinds, in the order of the manual.
            pub(crate) const ALL: &[Self] = &[$(Self::$kind),+];

            /// The name of the kind in interfaces (JSON, metrics, history, journal).
            pub(crate) fn slug(self) -> &'static str {
                match self {
                    $(Self::$kind => $slug),+
                }
            }

            /// The kind with this slug.
            pub(crate) fn from_slug(slug: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|kind| kind.slug() == slug)
            }
        }
    };
}

kinds! {
    NotRunning "not_running",
    Oom "oom",
    IdleClient "idle_client",
    IdleTlsClient "idle_tls_client",
    SlowReader "slow_reader",
    Child "child",
    Peer "peer",
    File "file",
    Uninterruptible "uninterruptible",
    Stopped "stopped",
    Traced "traced",
    Spinning "spinning",
    Deadlock "deadlock",
    Unremarkable "unremarkable",
    Descriptors "descriptors",
    Threads "threads",
    Memory "memory",
    Swapped "swapped",
    AcceptQueue "accept_queue",
    PortTaken "port_taken",
    Misplaced "misplaced",
    Elsewhere "elsewhere",
    Dns "dns",
    Proxy "proxy",
    HttpStatus "http_status",
    Certificate "certificate",
    NotMyvnc "not_myvnc",
    DiskFull "disk_full",
    Overload "overload",
    Scheme "scheme",
    LocalFailure "local_failure",
    RedirectLoop "redirect_loop",
    Unknown "unknown",
}

/// What to do about a client that blocks the server.
const KEEP_CLIENTS_AWAY: &str = "Find out who it is. A proxy in front of the server keeps such clients away from it; see \
                                 \"Avoiding the hang\" in NOTES of monitor_myvnc(1).";

/// A kind's entry in the manual.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ManualEntry {
    /// How its sentences begin; words in capitals are placeholders.
    pub(crate) terms: &'static [&'static str],
    /// What that means.
    pub(crate) meaning: &'static str,
    /// What to do.
    pub(crate) advice: &'static str,
}

impl Kind {
    /// Whether one client blocks the server, which a proxy prevents.
    pub(crate) fn is_by_client(self) -> bool {
        matches!(
            self,
            Self::IdleClient | Self::IdleTlsClient | Self::SlowReader
        )
    }

    /// The kind's entry in the manual.
    pub(crate) fn entry(self) -> ManualEntry {
        let entry = |terms, meaning, advice| ManualEntry {
            terms,
            meaning,
            advice,
        };
        match self {
            Self::NotRunning => entry(
                &["the server is not running"],
                "No process of the server was found, and nobody listens. The time since the last healthy check follows if it is known.",
                "The server's own log and the kernel's log say how it ended.",
            ),
            Self::Oom => entry(
                &[
                    "the kernel's OOM killer ended the server",
                    "the server is not running; the kernel's OOM killer ended PROCESS",
                    "the kernel's OOM killer ended a process of the server's control group",
                ],
                "The kernel's log, or the control group of the server, says so. The PID is left out if the kernel's \
                 log numbers processes in another PID namespace.",
                "Give the server more memory, or find out what uses it up.",
            ),
            Self::IdleClient => entry(
                &["blocked reading from idle client ADDRESS"],
                "The server serves one client at a time, and this client has connected and sends nothing. If the \
                 client is a process of this machine, its PID and command are named.",
                KEEP_CLIENTS_AWAY,
            ),
            Self::IdleTlsClient => entry(
                &[
                    "blocked in a TLS handshake with idle client ADDRESS",
                    "blocked in a TLS handshake or read with idle client ADDRESS",
                ],
                "The server speaks TLS and serves one client at a time, and this client has connected and sends \
                 nothing, or only a part of the handshake.",
                KEEP_CLIENTS_AWAY,
            ),
            Self::SlowReader => entry(
                &["blocked writing to client ADDRESS, which does not read"],
                "The client does not take the server's answer, and the server waits until it does.",
                KEEP_CLIENTS_AWAY,
            ),
            Self::Child => entry(
                &[
                    "waiting for PID N (state S, for T): COMMAND",
                    "waiting for any of its N children to exit",
                ],
                "A child does not exit, such as bjobs when the scheduler does not respond. If the child waits for \
                 another process, a host or a file, that is named after it. \"of another user, descriptors not \
                 visible\" means that more is visible to root only.",
                "Find out what the child waits for.",
            ),
            Self::Peer => entry(
                &[
                    "waiting for a reply from ADDRESS",
                    "waiting for a connection to ADDRESS",
                ],
                "Another service does not respond: a scheduler, a directory server, a name server. If it runs on \
                 this machine, its process and state are named.",
                "Restore that service.",
            ),
            Self::File => entry(
                &["blocked opening FILE"],
                "A dead file server, a FIFO without a writer, or a lock that another process holds; \"reading\", \
                 \"locking\", \"examining\", \"listing\" and the like as well. A network file system is named with \
                 its server.",
                "Restore the file server, or find the process at the other end.",
            ),
            Self::Uninterruptible => entry(
                &[
                    "PID N is stuck in the kernel (state D)",
                    "PID N, thread T, is stuck in the kernel (state D)",
                ],
                "The process cannot be stopped until the kernel lets it go.",
                "Look at the file server or the disk.",
            ),
            Self::Stopped => entry(
                &["PID N is stopped (SIGSTOP or job control)"],
                "The process does not run until it gets SIGCONT.",
                "Find out who stopped it.",
            ),
            Self::Traced => entry(
                &[
                    "PID N is stopped by its tracer",
                    "PID N is stopped by a tracer",
                ],
                "A debugger holds the process.",
                "End the tracer.",
            ),
            Self::Spinning => entry(
                &["PID N spins: thread T used P % of a CPU"],
                "It uses a full CPU without making progress.",
                "A command for --dump-cmd such as py-spy shows where.",
            ),
            Self::Deadlock => entry(
                &[
                    "deadlock: the main thread of PID N waits for a lock",
                    "the main thread of PID N waits for a lock",
                ],
                "No thread runs. Without \"deadlock:\", some threads sleep for a time.",
                "A command for --dump-cmd such as py-spy shows which lock.",
            ),
            Self::Unremarkable => entry(
                &["PID N waits for clients as a healthy server does"],
                "Nothing wrong is visible.",
                "A firewall, or a server that was slow, may be the cause.",
            ),
            Self::Descriptors => entry(
                &[
                    "PID N is out of file descriptors",
                    "PID N has too few file descriptors left for a request",
                    "PID N leaks N connections that clients have closed (CLOSE_WAIT)",
                ],
                "The process has used up its file descriptors, or will: the server has not closed connections that \
                 its clients have closed.",
                "Raise the limit, or look for the leak.",
            ),
            Self::Threads => entry(
                &[
                    "PID N is out of threads",
                    "the machine is out of threads",
                    "no further process can be started",
                ],
                "A limit of the control group, of the user or of the machine is reached, or no memory is left for a \
                 process.",
                "Raise the limit, or look for the leak.",
            ),
            Self::Memory => entry(
                &[
                    "PID N is at the memory limit of its control group",
                    "the machine is out of memory",
                ],
                "The server, or every process, waits until memory is free.",
                "Raise the limit, or find out what uses up the memory. A restart does not cure a machine that is out \
                 of memory.",
            ),
            Self::Swapped => entry(
                &["PID N is swapped out"],
                "More of the process is swapped out than in memory.",
                "Find out what uses up the memory.",
            ),
            Self::AcceptQueue => entry(
                &[
                    "the accept queue of ADDRESS is full",
                    "N clients wait in the accept queue of ADDRESS",
                ],
                "So many clients wait for the server.",
                "The causes named before this one say why.",
            ),
            Self::PortTaken => entry(
                &["ADDRESS is held by another process"],
                "Another process listens where the URL leads to. The server, if it listens elsewhere, is named after \
                 it.",
                "End that process, or if it is a proxy, set --listen to the server's own address.",
            ),
            Self::Misplaced => entry(
                &[
                    "the server listens on ADDRESS, not at the URL's address",
                    "the server runs, but nothing listens on port N",
                    "the URL has port N, and a MyVNC server listens on ADDRESS",
                ],
                "The URL does not name the server's address, or the server does not listen yet.",
                "Correct --url or the server's configuration.",
            ),
            Self::Elsewhere => entry(
                &["the URL's host is another machine"],
                "The server is not on this machine; see NOT ASKED.",
                "Run the monitor on that machine, or correct --url.",
            ),
            Self::Dns => entry(
                &["the URL's host cannot be resolved"],
                "The server was not asked; see NOT ASKED.",
                "Look at the name servers and /etc/hosts, or put an address into --url.",
            ),
            Self::Proxy => entry(
                &[
                    "a proxy answers with status N in the server's place",
                    "a proxy, PID N (state S, for T): COMMAND, answers with status N",
                ],
                "The proxy is named if it runs here, and whether the server itself is up.",
                "Look at the proxy if the server is up.",
            ),
            Self::HttpStatus => entry(
                &["the server answers, but with status N"],
                "The status is below 200 or above 399.",
                "The server's own log has the reason.",
            ),
            Self::Certificate => entry(
                &["the server's certificate is not accepted"],
                "The reason follows.",
                "Renew the certificate, or set --ca-cert to the authority that signed it.",
            ),
            Self::NotMyvnc => entry(
                &["what answers is no MyVNC server"],
                "The reason follows: the answer is not HTTP or not TLS.",
                "Correct --url, or end the process that answers.",
            ),
            Self::DiskFull => entry(
                &[
                    "the disk of DIRECTORY is full",
                    "the disk of DIRECTORY has no free inode",
                ],
                "A directory of the server's, or of a file that it holds open, is on a full file system.",
                "Make room. A restart does not cure this.",
            ),
            Self::Overload => entry(
                &[
                    "the machine is overloaded",
                    "the machine waits for its disks",
                ],
                "The server gets no CPU, or waits for its files.",
                "Find out what uses the CPUs or the disks. A restart does not cure this.",
            ),
            Self::Scheme => entry(
                &[
                    "the server speaks TLS here, not plain HTTP: the right URL is URL",
                    "the server speaks plain HTTP here, not TLS: the right URL is URL",
                ],
                "The URL's scheme is wrong.",
                "Correct --url. A restart does not cure this.",
            ),
            Self::LocalFailure => entry(
                &["the check failed on the monitor's own side"],
                "The server was not asked; see NOT ASKED.",
                "The reason follows: restore the route, or free ports, descriptors or memory.",
            ),
            Self::RedirectLoop => entry(
                &["the server's redirects do not end"],
                "The server has redirected the check more than ten times on its own host.",
                "Open the URL in a browser, and look at the server's or the proxy's configuration.",
            ),
            Self::Unknown => entry(
                &["not visible", "not known"],
                "The rest of the line says what could not be seen, and why.",
                "Run the monitor as root, or as the server's user.",
            ),
        }
    }
}

impl Cause {
    /// Its kind, and its place among the causes that are found together.
    fn class(&self) -> (Kind, Rank) {
        match self {
            Self::Dns { .. } => (Kind::Dns, Rank::Answer),
            Self::LocalFailure { .. } => (Kind::LocalFailure, Rank::Answer),
            Self::Scheme { .. } => (Kind::Scheme, Rank::Answer),
            Self::RedirectLoop => (Kind::RedirectLoop, Rank::Answer),
            Self::HttpStatus(_) => (Kind::HttpStatus, Rank::Answer),
            Self::Certificate(_) => (Kind::Certificate, Rank::Answer),
            Self::NotMyvnc(_) => (Kind::NotMyvnc, Rank::Answer),
            Self::Elsewhere(_) => (Kind::Elsewhere, Rank::Elsewhere),
            Self::Waiting { awaited, .. } => (awaited.kind(), Rank::Blocked),
            Self::Uninterruptible { .. } => (Kind::Uninterruptible, Rank::Blocked),
            Self::Stopped { .. } => (Kind::Stopped, Rank::Blocked),
            Self::Traced { .. } => (Kind::Traced, Rank::Blocked),
            Self::Descriptors { .. } => (Kind::Descriptors, Rank::UsedUp),
            Self::Threads { .. } => (Kind::Threads, Rank::UsedUp),
            Self::Spinning { .. } => (Kind::Spinning, Rank::Spinning),
            Self::Deadlock { .. } => (Kind::Deadlock, Rank::Deadlock),
            Self::Proxy { .. } => (Kind::Proxy, Rank::Proxy),
            Self::NotRunning { .. } => (Kind::NotRunning, Rank::Placed),
            Self::OomKilled { .. } | Self::OomKilledInGroup(_) => (Kind::Oom, Rank::Placed),
            Self::PortTaken { .. } => (Kind::PortTaken, Rank::Placed),
            Self::OtherAddress(_) | Self::NotListening { .. } | Self::OtherPort { .. } => {
                (Kind::Misplaced, Rank::Placed)
            }
            Self::HiddenHolder { .. } => (Kind::Unknown, Rank::Placed),
            Self::AcceptQueue { .. } => (Kind::AcceptQueue, Rank::Queue),
            Self::Leak { .. } => (Kind::Descriptors, Rank::Leak),
            Self::GroupMemory { .. } => (Kind::Memory, Rank::Memory),
            Self::Swapped { .. } => (Kind::Swapped, Rank::Memory),
            Self::DiskFull { .. } => (Kind::DiskFull, Rank::Disk),
            Self::HiddenWait { .. } | Self::Blocked { .. } => (Kind::Unknown, Rank::Unseen),
            Self::MachineMemory { .. } => (Kind::Memory, Rank::Machine),
            Self::MachineThreads { .. } => (Kind::Threads, Rank::Machine),
            Self::Overload { .. } | Self::DiskPressure(_) => (Kind::Overload, Rank::Machine),
            Self::Unremarkable { .. } => (Kind::Unremarkable, Rank::Unremarkable),
            Self::Sleeping { .. }
            | Self::Lock { .. }
            | Self::State { .. }
            | Self::TimedOut(_)
            | Self::ProcTimedOut(_) => (Kind::Unknown, Rank::Unremarkable),
            Self::CannotFork(_) => (Kind::Threads, Rank::Monitor),
        }
    }

    /// Its kind.
    pub(crate) fn kind(&self) -> Kind {
        self.class().0
    }

    /// Its place among the causes that are found together.
    pub(crate) fn rank(&self) -> Rank {
        self.class().1
    }

    /// Who or what is to blame, if that is not the server itself.
    pub(crate) fn culprit(&self) -> Option<Culprit> {
        let (kind, name) = match self {
            Self::Waiting { awaited, .. } => return awaited.culprit(),
            Self::Uninterruptible {
                place: Some(KernelPlace::File(file)),
                ..
            } => (CulpritKind::File, file.path.clone()),
            Self::Traced {
                tracer: Some(process),
                ..
            }
            | Self::PortTaken {
                holder: process, ..
            }
            | Self::OtherPort { process, .. } => (CulpritKind::Process, process.program()),
            Self::Proxy {
                proxy: Some(proxy), ..
            } => (CulpritKind::Proxy, proxy.program()),
            Self::DiskFull { directory, .. } => {
                (CulpritKind::File, directory.display().to_string())
            }
            _ => return None,
        };
        Some(Culprit { kind, name })
    }

    /// What must change before a restart can help: a status, a disk's directory, else whom the cause names.
    pub(crate) fn subject(&self) -> String {
        match self {
            Self::HttpStatus(status) | Self::Proxy { status, .. } => status.to_string(),
            _ => self
                .culprit()
                .map(|culprit| culprit.name)
                .unwrap_or_default(),
        }
    }

    /// Whether no signal reaches the process before a file server responds: it is in state D, or waits for a
    /// network file system.
    pub(crate) fn is_stuck(&self) -> bool {
        match self {
            Self::Uninterruptible { .. } => true,
            Self::Waiting {
                awaited: Awaited::File(file),
                ..
            } => file.mount.is_some(),
            _ => false,
        }
    }
}

impl Awaited {
    fn kind(&self) -> Kind {
        match self {
            Self::IdleClient { .. } => Kind::IdleClient,
            Self::IdleTlsClient { .. } => Kind::IdleTlsClient,
            Self::SlowReader { .. } => Kind::SlowReader,
            Self::Child { .. } | Self::AnyChild(_) => Kind::Child,
            Self::Peer { .. } => Kind::Peer,
            Self::File(_) => Kind::File,
        }
    }

    fn culprit(&self) -> Option<Culprit> {
        let (kind, name) = match self {
            Self::IdleClient { client, .. }
            | Self::IdleTlsClient { client, .. }
            | Self::SlowReader { client, .. } => (CulpritKind::Client, client.address.to_string()),
            Self::Child { chain, .. } => (CulpritKind::Child, chain.last()?.program()),
            Self::AnyChild(_) => return None,
            Self::Peer { address, .. } => (CulpritKind::Peer, address.to_string()),
            Self::File(file) => (CulpritKind::File, file.path.clone()),
        };
        Some(Culprit { kind, name })
    }

    /// What is done, without saying that it blocks: "reading from …", "waiting for …".
    fn activity(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IdleClient { client, silence } => {
                write!(f, "reading from idle client {client}, {}", silent(*silence))
            }
            Self::IdleTlsClient {
                client,
                silence,
                is_handshake,
            } => {
                let or_read = if *is_handshake { "" } else { " or read" };
                let silence = silent(*silence);
                write!(
                    f,
                    "in a TLS handshake{or_read} with idle client {client}, {silence}"
                )
            }
            Self::SlowReader { client, queued } => write!(
                f,
                "writing to client {client}, which does not read: {queued} bytes wait to be sent"
            ),
            Self::Child { chain, last } => {
                write!(f, "waiting for {}", list(chain, ", which waits for "))?;
                match last {
                    Some(last) => {
                        f.write_str(", which is ")?;
                        last.activity(f)
                    }
                    None => Ok(()),
                }
            }
            Self::AnyChild(children) => write!(
                f,
                "waiting for any of its {} children to exit: {}",
                children.len(),
                list(children, "; ")
            ),
            Self::Peer {
                address,
                process,
                is_connecting,
            } => {
                let what = if *is_connecting {
                    "a connection to"
                } else {
                    "a reply from"
                };
                write!(f, "waiting for {what} {address}")?;
                if let Some(process) = process {
                    write!(f, " ({process})")?;
                }
                f.write_str(if *is_connecting {
                    ", which does not answer"
                } else {
                    ""
                })
            }
            Self::File(file) => write!(f, "{file}"),
        }
    }
}

impl fmt::Display for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IdleClient { .. }
            | Self::IdleTlsClient { .. }
            | Self::SlowReader { .. }
            | Self::File(_) => f.write_str("blocked ")?,
            Self::Child { .. } | Self::AnyChild(_) | Self::Peer { .. } => (),
        }
        self.activity(f)
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        match &self.process {
            Some(process) => write!(f, " (PID {}: {})", process.pid, process.command),
            None => Ok(()),
        }
    }
}

impl fmt::Display for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.operation, self.path)?;
        match &self.mount {
            Some(mount) => write!(f, " ({mount})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Main {
                pid,
                is_in_state_d: false,
            } => write!(f, "PID {pid}"),
            // A parent that has forked is in state D until its child runs its program (vfork(2)).
            Self::Main {
                pid,
                is_in_state_d: true,
            } => write!(f, "PID {pid}, in state D"),
            Self::Thread { pid, tid } => write!(
                f,
                "PID {pid}, thread {tid}, while its main thread waits for a lock"
            ),
        }
    }
}

impl fmt::Display for KernelPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => write!(f, "{file}"),
            Self::Channel(channel) => write!(f, "kernel wait channel: {channel}"),
        }
    }
}

impl fmt::Display for ServerProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PID {}", self.pid)?;
        if self.listens.is_empty() {
            return Ok(());
        }
        write!(f, ", which listens on {}", list(&self.listens, " and "))
    }
}

impl fmt::Display for Cause {
    #[allow(clippy::too_many_lines, reason = "one sentence for each cause")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRunning { since_healthy } => not_running(f, *since_healthy),
            Self::OomKilled {
                pid,
                name,
                ago: since,
                is_known,
            } => {
                let killed = "the kernel's OOM killer ended";
                let victim = match pid {
                    Some(pid) => format!("PID {pid} ({name})"),
                    None => format!("a process ({name})"),
                };
                let since = ago(*since);
                if *is_known {
                    write!(f, "{killed} the server, {victim}, {since} ago")
                } else {
                    write!(
                        f,
                        "the server is not running; {killed} {victim} {since} ago, which may have been it"
                    )
                }
            }
            Self::OomKilledInGroup(group) => write!(
                f,
                "the kernel's OOM killer ended a process of the server's control group {group} since the server was started"
            ),
            Self::Waiting { awaited, waiter } => write!(f, "{awaited} ({waiter})"),
            Self::Uninterruptible { pid, tid, place } => {
                write!(f, "PID {pid}")?;
                if let Some(tid) = tid {
                    write!(f, ", thread {tid},")?;
                }
                f.write_str(" is stuck in the kernel (state D)")?;
                match place {
                    Some(place) => write!(f, ", {place}"),
                    None => Ok(()),
                }
            }
            Self::Stopped { pid } => write!(f, "PID {pid} is stopped (SIGSTOP or job control)"),
            Self::Traced {
                pid,
                tracer: Some(tracer),
            } => write!(f, "PID {pid} is stopped by its tracer, {tracer}"),
            Self::Traced { pid, tracer: None } => write!(f, "PID {pid} is stopped by a tracer"),
            Self::Spinning {
                pid,
                tid,
                name,
                percent,
                is_starved,
            } => {
                let rest = if *is_starved {
                    " and was ready to run the rest of the time"
                } else {
                    ""
                };
                write!(
                    f,
                    "PID {pid} spins: thread {tid} ({name}) used {percent} % of a CPU during the diagnosis{rest}"
                )
            }
            Self::Deadlock {
                pid,
                threads,
                some_sleep,
            } => {
                if !some_sleep {
                    f.write_str("deadlock: ")?;
                }
                write!(f, "the main thread of PID {pid} waits for a lock, and ")?;
                match threads {
                    1 => f.write_str("it has no other thread"),
                    count => write!(f, "none of its {count} threads runs"),
                }
            }
            Self::Unremarkable { pid } => write!(
                f,
                "PID {pid} waits for clients as a healthy server does: it may be slow, or the check may not reach it"
            ),
            Self::Descriptors { pid, open, most } if open >= most => {
                write!(f, "PID {pid} is out of file descriptors: {open} of {most}")
            }
            Self::Descriptors { pid, open, most } => write!(
                f,
                "PID {pid} has too few file descriptors left for a request: {open} of {most} are open"
            ),
            Self::Leak { pid, connections } => write!(
                f,
                "PID {pid} leaks {connections} connections that clients have closed (CLOSE_WAIT)"
            ),
            Self::Threads {
                pid,
                limited,
                used,
                most,
            } => {
                let whose = match limited {
                    Limited::Group => "its control group",
                    Limited::User => "its user",
                };
                write!(
                    f,
                    "PID {pid} is out of threads: {whose} has {used} of {most}"
                )
            }
            Self::MachineThreads { used, most } => {
                write!(f, "the machine is out of threads: {used} of {most}")
            }
            Self::CannotFork(reason) => write!(f, "no further process can be started: {reason}"),
            Self::GroupMemory { pid, used, most } => write!(
                f,
                "PID {pid} is at the memory limit of its control group: {} of {} MiB",
                mebibytes(*used),
                mebibytes(*most)
            ),
            Self::MachineMemory {
                available,
                total,
                pressure,
            } => {
                write!(
                    f,
                    "the machine is out of memory: {} of {} MiB available",
                    mebibytes(*available),
                    mebibytes(*total)
                )?;
                average(f, "memory", *pressure)
            }
            Self::Swapped { pid, bytes } => {
                write!(f, "PID {pid} is swapped out: {} MiB", mebibytes(*bytes))
            }
            Self::AcceptQueue {
                address,
                waiting,
                clients,
                full: Some(backlog),
            } => write!(
                f,
                "the accept queue of {address} is full: {waiting} connections wait in it, {clients} of them with a client, and its backlog is {backlog}"
            ),
            Self::AcceptQueue {
                address,
                clients: 1,
                ..
            } => write!(f, "1 client waits in the accept queue of {address}"),
            Self::AcceptQueue {
                address, clients, ..
            } => write!(f, "{clients} clients wait in the accept queue of {address}"),
            Self::PortTaken {
                address,
                holder,
                server,
            } => {
                write!(f, "{address} is held by another process, {holder}")?;
                match server {
                    Some(server) => write!(f, "; the server is {server}"),
                    None => Ok(()),
                }
            }
            Self::OtherAddress(address) => {
                write!(
                    f,
                    "the server listens on {address}, not at the URL's address"
                )
            }
            Self::NotListening { port } => {
                write!(f, "the server runs, but nothing listens on port {port}")
            }
            Self::OtherPort {
                port,
                address,
                process,
            } => write!(
                f,
                "the URL has port {port}, and a MyVNC server listens on {address}, {process}"
            ),
            Self::Elsewhere(addresses) => {
                f.write_str("the URL's host is another machine")?;
                if !addresses.is_empty() {
                    write!(f, " ({})", list(addresses, ", "))?;
                }
                f.write_str(
                    ": its server is not on this one, and nothing is stopped without --listen or --process-pattern",
                )
            }
            Self::Dns { reason, server } => {
                write!(f, "the URL's host cannot be resolved: {reason}; ")?;
                not_asked(f, server.as_ref())
            }
            Self::Proxy {
                proxy,
                status,
                behind,
            } => {
                f.write_str("a proxy")?;
                if let Some(proxy) = proxy {
                    write!(f, ", {proxy},")?;
                }
                write!(f, " answers with status {status} in the server's place")?;
                match behind {
                    Behind::Elsewhere => Ok(()),
                    Behind::Running(None) => f.write_str("; the server itself is up"),
                    Behind::Running(Some(server)) => {
                        write!(f, "; the server itself is up: {server}")
                    }
                    Behind::NotRunning { since_healthy } => {
                        f.write_str("; ")?;
                        not_running(f, *since_healthy)
                    }
                }
            }
            Self::HttpStatus(status) => write!(f, "the server answers, but with status {status}"),
            Self::Certificate(reason) => {
                write!(f, "the server's certificate is not accepted: {reason}")
            }
            Self::NotMyvnc(reason) => write!(f, "what answers is no MyVNC server: {reason}"),
            Self::DiskFull { directory, inodes } => {
                let what = if *inodes {
                    "has no free inode"
                } else {
                    "is full"
                };
                write!(f, "the disk of {} {what}", directory.display())
            }
            Self::Overload {
                load,
                cpus,
                pressure,
            } => {
                write!(
                    f,
                    "the machine is overloaded: load {load:.0} on {cpus} CPUs"
                )?;
                average(f, "cpu", *pressure)
            }
            Self::DiskPressure(pressure) => {
                f.write_str("the machine waits for its disks")?;
                average(f, "io", Some(*pressure))
            }
            Self::Scheme { url, speaks_tls } => {
                let (spoken, other) = if *speaks_tls {
                    ("TLS", "plain HTTP")
                } else {
                    ("plain HTTP", "TLS")
                };
                write!(
                    f,
                    "the server speaks {spoken} here, not {other}: the right URL is {url}"
                )
            }
            Self::RedirectLoop => {
                f.write_str("the server's redirects do not end: more than ten on its own host")
            }
            Self::LocalFailure { reason, server } => {
                write!(f, "the check failed on the monitor's own side: {reason}; ")?;
                not_asked(f, server.as_ref())
            }
            Self::HiddenWait { pid, sight } => {
                let why = hidden(*sight);
                write!(f, "not visible: what PID {pid} waits for {why}")
            }
            Self::HiddenHolder { address, sight } => {
                let why = hidden(*sight);
                write!(f, "not visible: who listens on {address} {why}")
            }
            Self::Blocked { pid, what, channel } => {
                write!(f, "not known: PID {pid} is blocked in {what}")?;
                wait_channel(f, channel.as_deref())
            }
            Self::Sleeping { pid } => {
                write!(f, "not known: PID {pid} sleeps for a time that it chose")
            }
            Self::Lock { pid } => {
                write!(
                    f,
                    "not known: the main thread of PID {pid} waits for a lock"
                )
            }
            Self::State {
                pid,
                state,
                channel,
            } => {
                write!(f, "not known: PID {pid} is in state {state}")?;
                wait_channel(f, channel.as_deref())
            }
            Self::TimedOut(what) => write!(f, "not known: timed out reading {what}"),
            Self::ProcTimedOut(limit) => write!(
                f,
                "not known: /proc did not respond within {} ms",
                limit.as_millis()
            ),
        }
    }
}

fn not_running(f: &mut fmt::Formatter<'_>, since_healthy: Option<Duration>) -> fmt::Result {
    f.write_str("the server is not running")?;
    match since_healthy {
        Some(since) => write!(f, "; it last answered {} ago", ago(since)),
        None => Ok(()),
    }
}

fn not_asked(f: &mut fmt::Formatter<'_>, server: Option<&ServerProcess>) -> fmt::Result {
    match server {
        Some(server) => write!(f, "the server ({server}) was not asked"),
        None => f.write_str("the server was not asked"),
    }
}

fn silent(silence: Option<Silence>) -> String {
    match silence {
        Some(Silence {
            ago: since,
            bytes: 0,
        }) => {
            format!("connected for {} and sent nothing", ago(since))
        }
        Some(Silence { ago: since, bytes }) => {
            format!("silent for {} after {bytes} bytes", ago(since))
        }
        None => "silent".to_owned(),
    }
}

/// Pressure, if the kernel keeps it (Documentation/accounting/psi.rst).
fn average(f: &mut fmt::Formatter<'_>, of: &str, percent: Option<f32>) -> fmt::Result {
    match percent {
        Some(percent) => write!(f, ", {of} pressure {percent:.0} % (10 s average)"),
        None => Ok(()),
    }
}

fn wait_channel(f: &mut fmt::Formatter<'_>, channel: Option<&str>) -> fmt::Result {
    match channel {
        Some(channel) => write!(f, ", kernel wait channel: {channel}"),
        None => Ok(()),
    }
}

/// Why something is not seen. A run that may see everything can lack time, or be kept from it by a security module.
fn hidden(sight: Sight) -> &'static str {
    match sight {
        Sight::Own => "is shown only to its owner and to root",
        Sight::WithoutCapability => {
            "is shown only to root with CAP_SYS_PTRACE, which this run lacks"
        }
        Sight::All => "could not be read in time, or not at all",
    }
}

#[cfg(test)]
pub(super) mod tests;
