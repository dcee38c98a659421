//! One process of the server: what /proc shows of it (`proc(5)`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::time::Duration;

use procfs::net::TcpState;
use procfs::process::{FDTarget, Stat};

use crate::diagnosis::peer;
use crate::diagnosis::snapshot::{Cpu, Process, Thread, Wait};
use crate::diagnosis::wait::WaitResolver;
use crate::proc::fd_owners::Holders;
use crate::proc::net::{Sockets, plainly};
use crate::proc::parse::number_after;
use crate::proc::process::Proc;
use crate::proc::syscall::doing;
use crate::proc::{cgroup, fd_owners};
use crate::redact;
use crate::server;

/// Threads whose wait is resolved, at most.
const MOST_THREADS: usize = 200;
/// As many functions of the kernel are named.
const MOST_FRAMES: usize = 8;

/// What can be seen of a process without any risk that the look stops there.
pub(super) fn outline(found: &server::process::Process) -> Option<Process> {
    let pid = found.pid;
    let stat = Proc::here().stat(pid).ok()?;
    let ticks = procfs::ticks_per_second().max(1);
    let kernel = std::fs::read_to_string(format!("/proc/{pid}/wchan")).ok();
    Some(Process {
        pid,
        command: redact::redacted(&found.command),
        state: stat.state,
        kernel: kernel.filter(|name| !matches!(name.as_str(), "" | "0")),
        stack: if stat.state == 'D' {
            stack(pid)
        } else {
            Vec::new()
        },
        age: Proc::here().age(pid).unwrap_or_default(),
        cpu: Duration::from_secs((stat.utime + stat.stime) / ticks),
        ..Process::default()
    })
}

/// Everything, and its open files that can be logs or data.
pub(super) fn read(
    found: &server::process::Process,
    sockets: &Sockets,
    holders: &mut Holders,
) -> Option<(Process, Vec<PathBuf>)> {
    let pid = found.pid;
    let mut process = outline(found)?;
    let text_of = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}"));
    let status = text_of("status").unwrap_or_default();
    let rlimits = text_of("limits").unwrap_or_default();
    let kibibytes = |name: &str| number_after::<u64>(&status, name).unwrap_or_default();
    process.resident = kibibytes("VmRSS:") * 1024;
    process.swapped = kibibytes("VmSwap:") * 1024;
    process.tracer = number_after(&status, "TracerPid:")
        .filter(|tid| *tid > 0)
        .and_then(|tid| Proc::here().ids(tid).ok())
        .and_then(|ids| peer::of(ids.tgid));
    process.children = peer::children(pid);
    let open = fd_owners::descriptors(pid);
    // Their number shows to those who may not see what they are.
    let listed = std::fs::read_dir(format!("/proc/{pid}/fd"));
    process.descriptors = listed.ok().map(Iterator::count);
    process.most_descriptors = number_after(&rlimits, "Max open files");
    let mut paths = Vec::new();
    let mut targets = HashMap::new();
    for one in open.into_iter().flatten() {
        if let FDTarget::Path(path) = &one.target {
            paths.push(path.clone());
        }
        targets.insert(one.fd, one.target);
    }
    (process.sockets, process.listens) = tcp(&targets, sockets);
    process.limits = cgroup::near(pid, &status, &rlimits);
    let mut around = WaitResolver {
        pid,
        targets: &targets,
        sockets,
        children: &process.children,
        holders,
        asks_on: true,
    };
    process.threads = threads(pid, &mut around);
    Some((process, paths))
}

/// What a thread has had of the CPUs (Documentation/scheduler/sched-stats.rst); in clock ticks alone,
/// where the kernel keeps no more.
pub(super) fn cpu(pid: i32, tid: i32) -> Option<Cpu> {
    let path = format!("/proc/{pid}/task/{tid}/schedstat");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut numbers = text.split_whitespace().map_while(|one| one.parse().ok());
    if let (Some(ran), Some(waited)) = (numbers.next(), numbers.next()) {
        return Some(Cpu {
            ran: Duration::from_nanos(ran),
            waited: Duration::from_nanos(waited),
        });
    }
    let stat = thread_stat(pid, tid)?;
    let tick = 1000 / procfs::ticks_per_second().max(1);
    Some(Cpu {
        ran: Duration::from_millis((stat.utime + stat.stime) * tick),
        waited: Duration::ZERO,
    })
}

fn thread_stat(pid: i32, tid: i32) -> Option<Stat> {
    Proc::here().thread_stat(pid, tid).ok()
}

fn threads(pid: i32, around: &mut WaitResolver) -> Vec<Thread> {
    let mut threads = Vec::new();
    for tid in Proc::here().threads(pid) {
        let Some(stat) = thread_stat(pid, tid) else {
            continue;
        };
        let doing = doing(pid, tid);
        let wait = if threads.len() < MOST_THREADS {
            around.wait(&doing)
        } else {
            Wait::Hidden
        };
        threads.push(Thread {
            tid,
            name: stat.comm,
            state: stat.state,
            doing,
            wait,
            cpu: cpu(pid, tid).unwrap_or_default(),
            ran: 0,
            waited: 0,
        });
    }
    threads
}

type Tcp = (
    BTreeMap<&'static str, usize>,
    Vec<(std::net::SocketAddr, u32)>,
);

/// Each socket counts once, however many descriptors refer to it (`dup(2)`).
fn tcp(targets: &HashMap<i32, FDTarget>, sockets: &Sockets) -> Tcp {
    let (mut states, mut listens) = (BTreeMap::new(), Vec::new());
    let inodes = targets.values().filter_map(|target| match target {
        FDTarget::Socket(inode) => Some(*inode),
        _ => None,
    });
    let inodes: BTreeSet<u64> = inodes.collect();
    for row in inodes.iter().filter_map(|inode| sockets.by_inode(*inode)) {
        *states.entry(named(&row.state)).or_default() += 1;
        if row.state == TcpState::Listen {
            listens.push((plainly(row.local_address), row.rx_queue));
        }
    }
    listens.sort_unstable();
    (states, listens)
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

/// The functions of the kernel that a process is in; root alone may see them.
fn stack(pid: i32) -> Vec<String> {
    let stack = std::fs::read_to_string(format!("/proc/{pid}/stack")).unwrap_or_default();
    // `[<0>] rpc_wait_bit_killable+0x24/0x40 [sunrpc]`
    let frames = stack.lines().filter_map(|line| {
        let (_, function) = line.split_once("] ")?;
        function.split('+').next().map(str::to_owned)
    });
    frames.take(MOST_FRAMES).collect()
}
