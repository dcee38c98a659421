//! One process of the server: what /proc shows of it (`proc(5)`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::time::Duration;

use procfs::FromRead;
use procfs::net::TcpState;
use procfs::process::{FDTarget, Schedstat, Stat};

use crate::diagnosis::mentioned;
use crate::diagnosis::snapshot::{Cpu, Inspected, Thread, Wait};
use crate::diagnosis::wait::WaitResolver;
use crate::proc::fd_owners::FdOwners;
use crate::proc::net::{Sockets, unmapped};
use crate::proc::parse::number_after;
use crate::proc::process::Proc;
use crate::proc::syscall::activity;
use crate::proc::{cgroup, fd_owners};
use crate::redact;
use crate::server::process::Process;

/// Threads whose wait is resolved, at most.
const MOST_THREADS: usize = 200;
/// Functions of the kernel that are named, at most.
const MOST_FRAMES: usize = 8;

/// Reads of a process what cannot block.
pub(super) fn outline(proc: Proc, found: &Process) -> Option<Inspected> {
    let pid = found.pid;
    let stat = proc.stat(pid).ok()?;
    let ticks = procfs::ticks_per_second().max(1);
    let kernel = std::fs::read_to_string(proc.path(pid, "wchan")).ok();
    Some(Inspected {
        process: Process {
            command: redact::redacted(&found.command),
            ..found.clone()
        },
        state: stat.state,
        kernel: kernel.filter(|name| !matches!(name.as_str(), "" | "0")),
        stack: if stat.state == 'D' {
            stack(proc, pid)
        } else {
            Vec::new()
        },
        age: proc.age(pid).unwrap_or_default(),
        cpu: Duration::from_secs((stat.utime + stat.stime) / ticks),
        ..Inspected::default()
    })
}

/// Everything, and its open files that can be logs or data.
pub(super) fn read<'p>(
    proc: Proc<'p>,
    found: &Process,
    sockets: &Sockets,
    holders: &mut FdOwners<'p>,
) -> Option<(Inspected, Vec<PathBuf>)> {
    let pid = found.pid;
    let mut process = outline(proc, found)?;
    let text_of = |name: &str| std::fs::read_to_string(proc.path(pid, name));
    let status = text_of("status").unwrap_or_default();
    let rlimits = text_of("limits").unwrap_or_default();
    let kibibytes = |name: &str| number_after::<u64>(&status, name).unwrap_or_default();
    process.resident = kibibytes("VmRSS:") * 1024;
    process.swapped = kibibytes("VmSwap:") * 1024;
    process.tracer = number_after(&status, "TracerPid:")
        .filter(|tid| *tid > 0)
        .and_then(|tid| proc.ids(tid).ok())
        .and_then(|ids| mentioned::of(proc, ids.tgid));
    process.children = mentioned::children(proc, pid);
    let open = fd_owners::descriptors(proc, pid);
    // Their number shows to those who may not see what they are.
    let listed = std::fs::read_dir(proc.path(pid, "fd"));
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
    process.limits = cgroup::near(proc, pid, &status, &rlimits);
    let mut resolver = WaitResolver {
        proc,
        pid,
        targets: &targets,
        sockets,
        children: &process.children,
        holders,
        asks_on: true,
    };
    process.threads = threads(proc, pid, &mut resolver);
    Some((process, paths))
}

/// What a thread has had of the CPUs (Documentation/scheduler/sched-stats.rst); in clock ticks alone,
/// where the kernel keeps no more.
pub(super) fn cpu(proc: Proc, pid: i32, tid: i32) -> Option<Cpu> {
    let path = proc.path(pid, &format!("task/{tid}/schedstat"));
    if let Ok(schedstat) = Schedstat::from_file(path) {
        return Some(Cpu {
            ran: Duration::from_nanos(schedstat.sum_exec_runtime),
            waited: Duration::from_nanos(schedstat.run_delay),
        });
    }
    let stat = thread_stat(proc, pid, tid)?;
    let tick = 1000 / procfs::ticks_per_second().max(1);
    Some(Cpu {
        ran: Duration::from_millis((stat.utime + stat.stime) * tick),
        waited: Duration::ZERO,
    })
}

fn thread_stat(proc: Proc, pid: i32, tid: i32) -> Option<Stat> {
    proc.thread_stat(pid, tid).ok()
}

fn threads(proc: Proc, pid: i32, resolver: &mut WaitResolver) -> Vec<Thread> {
    let mut threads = Vec::new();
    for tid in proc.threads(pid) {
        let Some(stat) = thread_stat(proc, pid, tid) else {
            continue;
        };
        let doing = activity(proc, pid, tid);
        let wait = if threads.len() < MOST_THREADS {
            resolver.wait(&doing)
        } else {
            Wait::Hidden
        };
        threads.push(Thread {
            tid,
            name: stat.comm,
            state: stat.state,
            activity: doing,
            wait,
            cpu: cpu(proc, pid, tid).unwrap_or_default(),
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
            listens.push((unmapped(row.local), row.rx_queue));
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
fn stack(proc: Proc, pid: i32) -> Vec<String> {
    let stack = std::fs::read_to_string(proc.path(pid, "stack")).unwrap_or_default();
    // `[<0>] rpc_wait_bit_killable+0x24/0x40 [sunrpc]`
    let frames = stack.lines().filter_map(|line| {
        let (_, function) = line.split_once("] ")?;
        function.split('+').next().map(str::to_owned)
    });
    frames.take(MOST_FRAMES).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use nix::libc;

    use super::*;
    use crate::diagnosis::captured::{Captured, blocked_in};

    fn found(pid: i32) -> Process {
        Process {
            pid,
            parent: 1,
            start_time: 500,
            uid: 1000,
            gid: 1000,
            command: "python3 main.py --password=hunter2".to_owned(),
            argv: 0,
            is_manager: false,
        }
    }

    fn read_from(captured: &Captured, pid: i32) -> Option<(Inspected, Vec<PathBuf>)> {
        let proc = captured.proc();
        let mut holders = FdOwners::until(proc, Instant::now() + Duration::from_secs(60));
        read(proc, &found(pid), &Sockets::read(proc, 0), &mut holders)
    }

    #[test]
    fn a_process_is_read_with_its_descriptors_and_children() {
        let captured = Captured::new();
        captured.process(7, 'S', "python3\0main.py\0", &blocked_in(libc::SYS_read, 4));
        captured.process(42, 'S', "bjobs\0-u\0all\0", "running\n");
        captured.file("7/task/7/children", "42 ");
        captured.link("7/fd/3", "socket:[81]");
        captured.link("7/fd/4", "socket:[82]");
        captured.link("7/fd/5", "socket:[82]");
        captured.link("7/fd/6", "/var/log/myvnc_7.log");
        let (process, paths) = read_from(&captured, 7).unwrap_or_default();
        assert_eq!((process.pid(), process.state), (7, 'S'));
        assert!(
            !process.process.command.contains("hunter2"),
            "{}",
            process.process.command
        );
        assert_eq!(process.kernel.as_deref(), Some("wait_woken"));
        assert_eq!((process.resident, process.swapped), (4 << 20, 1 << 20));
        assert_eq!(
            (process.descriptors, process.most_descriptors),
            (Some(4), Some(64))
        );
        // Two descriptors refer to one of them.
        assert_eq!(process.sockets, [("CLOSE_WAIT", 1), ("LISTEN", 1)].into());
        assert_eq!(process.listens, [(([127, 0, 0, 1], 9143).into(), 3)]);
        let children: Vec<&str> = process
            .children
            .iter()
            .map(|child| child.command.as_str())
            .collect();
        assert_eq!(children, ["bjobs -u all"]);
        assert!(matches!(
            process.wait(),
            Wait::Client { writing: false, .. }
        ));
        assert_eq!(paths, [PathBuf::from("/var/log/myvnc_7.log")]);
        let cpu = Cpu {
            ran: Duration::from_secs(4),
            waited: Duration::from_secs(1),
        };
        assert_eq!(process.threads[0].cpu, cpu);
        assert!(process.tracer.is_none());
    }

    #[test]
    fn a_tracer_is_named_by_its_process() {
        let captured = Captured::new();
        captured.process(7, 't', "python3\0", "running\n");
        captured.process(42, 'S', "strace\0-p 7\0", "running\n");
        captured.file("7/status", "TracerPid:\t42\n");
        let (process, _) = read_from(&captured, 7).unwrap_or_default();
        let tracer = process.tracer.map(|tracer| tracer.command);
        assert_eq!(tracer.as_deref(), Some("strace -p 7"));
    }

    #[test]
    fn a_process_that_has_ended_is_left_out_and_its_clock_ticks_stand_in_for_nanoseconds() {
        let captured = Captured::new();
        assert!(read_from(&captured, 7).is_none());
        captured.process(7, 'D', "python3\0", "running\n");
        captured.file("7/task/7/schedstat", "");
        captured.file(
            "7/stack",
            "[<0>] rpc_wait_bit_killable+0x24/0x40 [sunrpc]\n[<0>] nfs_wait+0x1/0x2\n",
        );
        let (process, _) = read_from(&captured, 7).unwrap_or_default();
        assert_eq!(process.stack, ["rpc_wait_bit_killable", "nfs_wait"]);
        let ticks = procfs::ticks_per_second();
        assert_eq!(
            process.threads[0].cpu.ran,
            Duration::from_millis(400 * (1000 / ticks))
        );
    }
}
