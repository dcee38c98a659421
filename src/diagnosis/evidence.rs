//! What /proc shows of a server: states, threads, sockets, children and limits.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

use nix::sys::statvfs::statvfs;
use procfs::net::{TcpNetEntry, TcpState};
use procfs::process::FDTarget;

use super::oom::{self, Victim};
use super::secrets;
use super::server_log;
use super::tcp_info::{self, Received};
use super::wait::{Doing, doing};
use super::{Question, Seen};
use crate::process::find;

/// Looking through other processes for who holds a pipe or a port ends after this time.
const SEARCH: Duration = Duration::from_millis(250);
/// From one reading of the CPU times to the next, where a thread runs.
const SAMPLE: Duration = Duration::from_millis(100);

/// All that was seen.
#[derive(Clone, Debug)]
pub(crate) struct Evidence {
    pub(crate) port: u16,
    pub(crate) addresses: Vec<IpAddr>,
    /// Whether the URL's host is another machine.
    pub(crate) elsewhere: bool,
    pub(crate) tls: bool,
    pub(crate) seen: Seen,
    pub(crate) since_healthy: Option<Duration>,
    pub(crate) programs: Vec<Program>,
    pub(crate) listeners: Vec<Listener>,
    /// Directories of the server's whose disk is full.
    pub(crate) full: Vec<PathBuf>,
    pub(crate) machine: Machine,
    /// The last interpreter that the OOM killer ended, where no process is found.
    pub(crate) victim: Option<Victim>,
    /// The server's own log, and its last lines.
    pub(crate) log: Option<(PathBuf, Vec<String>)>,
}

/// One process of the server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Program {
    pub(crate) pid: i32,
    pub(crate) command: String,
    /// The letter of `proc_pid_stat(5)`.
    pub(crate) state: char,
    /// The kernel function it waits in, where that can be seen.
    pub(crate) kernel: Option<String>,
    pub(crate) age: Duration,
    /// CPU time that it has used in its life.
    pub(crate) cpu: Duration,
    /// Bytes of memory in use, and swapped out.
    pub(crate) resident: u64,
    pub(crate) swapped: u64,
    /// Who traces it.
    pub(crate) tracer: Option<Other>,
    pub(crate) threads: Vec<Thread>,
    /// What the main thread waits for.
    pub(crate) wait: Wait,
    /// Open descriptors, where they can be counted, and how many it may have.
    pub(crate) descriptors: Option<usize>,
    pub(crate) most_descriptors: Option<u64>,
    /// Its TCP sockets by state.
    pub(crate) sockets: BTreeMap<String, usize>,
    pub(crate) children: Vec<Other>,
    /// Memory in use and the limit of its control group, in bytes.
    pub(crate) group: Option<(u64, u64)>,
}

/// Another process that has to do with it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Other {
    pub(crate) pid: i32,
    pub(crate) command: String,
    pub(crate) state: char,
    pub(crate) age: Duration,
}

#[derive(Clone, Debug)]
pub(crate) struct Thread {
    pub(crate) tid: i32,
    pub(crate) name: String,
    pub(crate) state: char,
    pub(crate) doing: Doing,
    /// Percent of a CPU that it used during the look.
    pub(crate) percent: u64,
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
        peer: SocketAddr,
        writing: bool,
        queued: u32,
        received: Option<Received>,
    },
    /// For another host.
    Remote {
        peer: SocketAddr,
        connecting: bool,
    },
    /// For a child, or for whoever holds the other end of a pipe.
    Process(Other),
    /// For a file: reading, opening or locking it.
    File {
        path: String,
        what: &'static str,
    },
    /// For a lock of its own.
    Lock,
    /// For a client to come.
    Idle,
    Sleeping,
    /// For something that is not named.
    Unknown(String),
}

/// A socket that listens on the URL's port.
#[derive(Clone, Debug)]
pub(crate) struct Listener {
    pub(crate) address: SocketAddr,
    /// Connections that wait to be accepted.
    pub(crate) waiting: u32,
    /// Who listens, and whether that is one of the server's processes.
    pub(crate) holder: Option<Other>,
    pub(crate) ours: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Machine {
    pub(crate) load: f32,
    pub(crate) cpus: usize,
    /// Bytes of memory that can be had, of all.
    pub(crate) available: u64,
    pub(crate) memory: u64,
    /// Percent of the last 10 seconds in which something stood still for want of memory.
    pub(crate) pressure: f32,
}

/// Gathers it.
pub(crate) fn gather(question: &Question) -> Evidence {
    let end = Instant::now() + SEARCH;
    let rows = find::tcp_sockets();
    let mut programs: Vec<Program> = question
        .server
        .iter()
        .filter_map(|process| program(process.pid, &process.command, &rows, end))
        .collect();
    if programs
        .iter()
        .flat_map(|program| &program.threads)
        .any(|thread| thread.state == 'R')
    {
        sample(&mut programs);
    }
    let pids: Vec<i32> = programs.iter().map(|program| program.pid).collect();
    let listeners = rows
        .iter()
        .filter(|row| row.state == TcpState::Listen && row.local_address.port() == question.port)
        .map(|row| {
            let holder = holder(&pids, end, |target| *target == FDTarget::Socket(row.inode));
            Listener {
                address: row.local_address,
                waiting: row.rx_queue,
                ours: holder
                    .as_ref()
                    .is_some_and(|holder| pids.contains(&holder.pid)),
                holder,
            }
        })
        .collect();
    Evidence {
        port: question.port,
        addresses: question.addresses.clone(),
        elsewhere: find::is_elsewhere(&question.addresses),
        tls: question.tls,
        seen: question.seen.clone(),
        since_healthy: question.since_healthy,
        full: full_directories(&pids),
        listeners,
        machine: machine(),
        victim: programs.is_empty().then(oom::last_interpreter).flatten(),
        log: server_log::last(&pids, &question.log),
        programs,
    }
}

fn program(pid: i32, command: &str, rows: &[TcpNetEntry], end: Instant) -> Option<Program> {
    let stat = find::stat_at(&format!("/proc/{pid}/stat"))?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kibibytes = |name: &str| number_after::<u64>(&status, name).unwrap_or_default();
    let ticks = procfs::ticks_per_second().max(1);
    let targets: Option<HashMap<i32, FDTarget>> =
        find::descriptors(pid).map(|all| all.into_iter().collect());
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd"));
    let descriptors = descriptors.ok().map(Iterator::count);
    let threads = threads(pid);
    let children = children(pid);
    let (mut sockets, mut ports) = (BTreeMap::new(), Vec::new());
    for row in rows {
        let is_own = |target: &FDTarget| *target == FDTarget::Socket(row.inode);
        if row.inode != 0 && targets.iter().flat_map(HashMap::values).any(is_own) {
            *sockets.entry(named(&row.state).to_owned()).or_default() += 1;
            if row.state == TcpState::Listen {
                ports.push(row.local_address.port());
            }
        }
    }
    let main = threads
        .iter()
        .find(|thread| thread.tid == pid)
        .map(|thread| thread.doing.clone());
    let around = Around {
        pid,
        targets: targets.unwrap_or_default(),
        rows,
        ports,
        children: &children,
        end,
    };
    let kernel = std::fs::read_to_string(format!("/proc/{pid}/wchan")).ok();
    Some(Program {
        pid,
        command: secrets::without(command),
        state: stat.state,
        kernel: kernel.filter(|name| !matches!(name.as_str(), "" | "0")),
        age: find::age(pid).unwrap_or_default(),
        cpu: Duration::from_secs((stat.utime + stat.stime) / ticks),
        resident: kibibytes("VmRSS:") * 1024,
        swapped: kibibytes("VmSwap:") * 1024,
        tracer: number_after(&status, "TracerPid:")
            .filter(|pid| *pid > 0)
            .and_then(other),
        wait: main.map_or(Wait::Hidden, |doing| around.wait(&doing)),
        threads,
        descriptors,
        most_descriptors: std::fs::read_to_string(format!("/proc/{pid}/limits"))
            .ok()
            .and_then(|limits| number_after(&limits, "Max open files")),
        sockets,
        children,
        group: memory_of_group(pid),
    })
}

/// A state of a TCP socket as tcp(7) and ss(8) name it.
fn named(state: &TcpState) -> &'static str {
    match state {
        TcpState::Established => "ESTABLISHED",
        TcpState::SynSent => "SYN_SENT",
        TcpState::SynRecv | TcpState::NewSynRecv => "SYN_RECV",
        TcpState::FinWait1 => "FIN_WAIT1",
        TcpState::FinWait2 => "FIN_WAIT2",
        TcpState::TimeWait => "TIME_WAIT",
        TcpState::Close => "CLOSE",
        TcpState::CloseWait => "CLOSE_WAIT",
        TcpState::LastAck => "LAST_ACK",
        TcpState::Listen => "LISTEN",
        TcpState::Closing => "CLOSING",
    }
}

/// What a process's descriptors are, to say what it waits for.
struct Around<'a> {
    pid: i32,
    targets: HashMap<i32, FDTarget>,
    rows: &'a [TcpNetEntry],
    ports: Vec<u16>,
    children: &'a [Other],
    end: Instant,
}

impl Around<'_> {
    fn wait(&self, doing: &Doing) -> Wait {
        match doing {
            Doing::Hidden => Wait::Hidden,
            Doing::Running => Wait::Running,
            Doing::Reading(descriptor) => self.on(*descriptor, "reading"),
            Doing::Writing(descriptor) => self.on(*descriptor, "writing to"),
            Doing::Connecting(descriptor) => self.on(*descriptor, "connecting"),
            Doing::FileLock(descriptor) => self.on(*descriptor, "locking"),
            Doing::Opening(path) => Wait::File {
                path: path
                    .as_ref()
                    .map_or("a file".into(), |path| path.display().to_string()),
                what: "opening",
            },
            Doing::Child(pid) => {
                let is_it = |child: &&Other| pid.is_none_or(|pid| pid == child.pid);
                let child = self.children.iter().find(is_it).cloned();
                let child = child.or_else(|| pid.and_then(other));
                child.map_or(Wait::Unknown("a child".into()), Wait::Process)
            }
            Doing::Polling(descriptors) => {
                let waits = descriptors
                    .iter()
                    .map(|descriptor| self.on(*descriptor, "reading"));
                let known = waits.filter(|wait| !matches!(wait, Wait::Unknown(_)));
                known
                    .min_by_key(|wait| *wait == Wait::Idle)
                    .unwrap_or(Wait::Unknown("poll".into()))
            }
            Doing::Accepting => Wait::Idle,
            Doing::Lock => Wait::Lock,
            Doing::Sleeping => Wait::Sleeping,
            Doing::Other(number) => Wait::Unknown(format!("system call {number}")),
        }
    }

    fn on(&self, descriptor: i32, what: &'static str) -> Wait {
        let unknown = || Wait::Unknown(format!("descriptor {descriptor}"));
        match self.targets.get(&descriptor) {
            Some(FDTarget::Socket(inode)) => self.socket(*inode, what).unwrap_or_else(unknown),
            Some(FDTarget::Pipe(inode)) => {
                let children: Vec<i32> = self.children.iter().map(|child| child.pid).collect();
                let is_pipe = |target: &FDTarget| *target == FDTarget::Pipe(*inode);
                let holder = holder_but(&children, self.pid, self.end, is_pipe);
                holder.map_or_else(unknown, Wait::Process)
            }
            Some(FDTarget::Path(path)) => Wait::File {
                path: path.display().to_string(),
                what,
            },
            _ => unknown(),
        }
    }

    fn socket(&self, inode: u64, what: &str) -> Option<Wait> {
        let row = self.rows.iter().find(|row| row.inode == inode)?;
        let (local, peer) = (row.local_address, row.remote_address);
        let shown = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        Some(if row.state == TcpState::Listen {
            Wait::Idle
        } else if self.ports.contains(&local.port()) {
            Wait::Client {
                peer: shown,
                writing: what == "writing to",
                queued: row.tx_queue,
                received: tcp_info::received(local, peer),
            }
        } else {
            Wait::Remote {
                peer: shown,
                connecting: row.state == TcpState::SynSent,
            }
        })
    }
}

fn threads(pid: i32) -> Vec<Thread> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    let numbers = tasks.into_iter().flatten().flatten();
    numbers
        .filter_map(|task| task.file_name().to_str()?.parse().ok())
        .filter_map(|tid| {
            let stat = find::stat_at(&format!("/proc/{pid}/task/{tid}/stat"))?;
            Some(Thread {
                tid,
                name: stat.comm,
                state: stat.state,
                doing: doing(pid, tid),
                percent: 0,
            })
        })
        .collect()
}

/// CPU ticks of a thread.
fn ticks(pid: i32, tid: i32) -> Option<u64> {
    let stat = find::stat_at(&format!("/proc/{pid}/task/{tid}/stat"))?;
    Some(stat.utime + stat.stime)
}

fn sample(programs: &mut [Program]) {
    let began = Instant::now();
    let all = programs.iter_mut().flat_map(|program| {
        let pid = program.pid;
        program.threads.iter_mut().map(move |thread| (pid, thread))
    });
    let before: Vec<_> = all
        .map(|(pid, thread)| (pid, ticks(pid, thread.tid), thread))
        .collect();
    std::thread::sleep(SAMPLE);
    let hertz = procfs::ticks_per_second().max(1);
    let took = u64::try_from(began.elapsed().as_millis())
        .unwrap_or(u64::MAX)
        .max(1);
    for (pid, before, thread) in before {
        if let (Some(before), Some(after)) = (before, ticks(pid, thread.tid)) {
            thread.percent = after.saturating_sub(before) * 100_000 / hertz / took;
        }
    }
}

fn children(pid: i32) -> Vec<Other> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    let lists = tasks.into_iter().flatten().flatten();
    lists
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<i32>>()
        })
        .filter_map(other)
        .collect()
}

fn other(pid: i32) -> Option<Other> {
    let stat = find::stat_at(&format!("/proc/{pid}/stat"))?;
    let command = find::command(pid);
    let command = if command.is_empty() {
        format!("[{}]", stat.comm)
    } else {
        command
    };
    Some(Other {
        pid,
        command: secrets::without(&command),
        state: stat.state,
        age: find::age(pid).unwrap_or_default(),
    })
}

/// Who has such a descriptor, asked of these first.
fn holder(first: &[i32], end: Instant, is_it: impl Fn(&FDTarget) -> bool) -> Option<Other> {
    holder_but(first, 0, end, is_it)
}

fn holder_but(
    first: &[i32],
    but: i32,
    end: Instant,
    is_it: impl Fn(&FDTarget) -> bool,
) -> Option<Other> {
    let has = |pid: &i32| {
        *pid != but
            && find::descriptors(*pid)
                .is_some_and(|all| all.iter().any(|(_, target)| is_it(target)))
    };
    if let Some(pid) = first.iter().copied().find(has) {
        return other(pid);
    }
    let everybody = std::fs::read_dir("/proc").ok()?.flatten();
    let mut pids = everybody.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.by_ref()
        .take_while(|_| Instant::now() < end)
        .find(has)
        .and_then(other)
}

/// The working directory and those of the open files, where their disk has no room for others than root.
fn full_directories(pids: &[i32]) -> Vec<PathBuf> {
    let mut directories = Vec::new();
    for pid in pids {
        directories.extend(std::fs::read_link(format!("/proc/{pid}/cwd")));
        for (_, target) in find::descriptors(*pid).into_iter().flatten() {
            if let FDTarget::Path(path) = target {
                directories.extend(path.parent().map(PathBuf::from));
            }
        }
    }
    directories.sort();
    directories.dedup();
    directories.retain(|directory| {
        let is_disk = !["/dev", "/proc", "/sys"]
            .iter()
            .any(|special| directory.starts_with(special));
        is_disk
            && statvfs(directory)
                .is_ok_and(|room| room.blocks() > 0 && room.blocks_available() == 0)
    });
    directories
}

/// Use and limit of the control group's memory (cgroup v2).
fn memory_of_group(pid: i32) -> Option<(u64, u64)> {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let read = |name: &str| {
        let text = std::fs::read_to_string(format!("/sys/fs/cgroup{path}/{name}")).ok()?;
        text.trim().parse::<u64>().ok()
    };
    Some((read("memory.current")?, read("memory.max")?))
}

fn machine() -> Machine {
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let pressure = std::fs::read_to_string("/proc/pressure/memory").unwrap_or_default();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let kibibytes = |name: &str| number_after::<u64>(&memory, name).unwrap_or_default();
    Machine {
        load: number_after(&load, "").unwrap_or_default(),
        cpus: std::thread::available_parallelism().map_or(1, Into::into),
        available: kibibytes("MemAvailable:") * 1024,
        memory: kibibytes("MemTotal:") * 1024,
        pressure: number_after(&pressure, "full avg10=").unwrap_or_default(),
    }
}

/// The number that follows a name in a file of /proc.
fn number_after<T: FromStr>(text: &str, name: &str) -> Option<T> {
    let (_, rest) = text.split_once(name)?;
    rest.split_whitespace().next()?.parse().ok()
}
