//! Causes that lie with one process of the server: what it waits for, and what it has no more of.

use std::fmt::Write;

use crate::diagnosis::phrase::{Peer, ago, mebibytes};
use crate::diagnosis::snapshot::{Process, Snapshot, Thread, Wait};
use crate::proc::cgroup::{Limit, LimitKind};
use crate::proc::sock_diag::Received;
use crate::proc::syscall::Doing;

/// The kernel's name for a socket whose peer has closed while the server has not.
const CLOSE_WAIT: &str = "CLOSE_WAIT";
/// So many of them are no accident.
const MANY_CLOSING: usize = 10;
/// A request needs more than these: its socket, and a file or a pipe.
const FEW_DESCRIPTORS: u64 = 2;
/// No more threads are named beside the first.
const MOST_THREADS: usize = 3;

pub(super) fn stopped(process: &Process) -> Option<String> {
    let pid = process.pid;
    match (process.state, &process.tracer) {
        ('T', _) => Some(format!("PID {pid} is stopped (SIGSTOP or job control)")),
        ('t', Some(tracer)) => Some(format!(
            "PID {pid} is stopped by its tracer, {}",
            tracer.to_string()
        )),
        ('t', None) => Some(format!("PID {pid} is stopped by a tracer")),
        // It starts a child (vfork(2)), and that is what it waits for.
        ('D', _) if matches!(process.wait(), Wait::Process { .. }) => None,
        ('D', _) => {
            let place = match (process.wait(), &process.kernel) {
                (Wait::File { .. }, _) => file(process.wait()).map(|file| format!(", {file}")),
                (_, Some(kernel)) => Some(format!(", in {kernel}")),
                _ => None,
            };
            let place = place.unwrap_or_default();
            Some(format!("PID {pid} is stuck in the kernel (state D){place}"))
        }
        _ => stuck(process),
    }
}

/// A thread that the kernel holds, where the first one has ended or waits for a lock.
fn stuck(process: &Process) -> Option<String> {
    if process.state != 'Z' && *process.wait() != Wait::Lock {
        return None;
    }
    let thread = process.threads.iter().find(|thread| thread.state == 'D')?;
    let file = file(&thread.wait).map(|file| format!(", {file}"));
    Some(format!(
        "PID {}, thread {}, is stuck in the kernel (state D){}",
        process.pid,
        thread.tid,
        file.unwrap_or_default()
    ))
}

/// `opening /home/x (nfs4 server:/export on /home)`.
fn file(wait: &Wait) -> Option<String> {
    let Wait::File { path, deed, mount } = wait else {
        return None;
    };
    let mount = mount.as_ref().map(|mount| format!(" ({mount})"));
    Some(format!("{deed} {path}{}", mount.unwrap_or_default()))
}

/// What a process has no more of: descriptors and threads.
pub(super) fn out_of(process: &Process) -> Vec<String> {
    let pid = process.pid;
    let mut found = Vec::new();
    let open = process
        .descriptors
        .and_then(|open| u64::try_from(open).ok());
    if let (Some(open), Some(most)) = (open, process.most_descriptors) {
        if open >= most {
            found.push(format!(
                "PID {pid} is out of file descriptors: {open} of {most}"
            ));
        } else if open + FEW_DESCRIPTORS >= most {
            found.push(format!(
                "PID {pid} has too few file descriptors left for a request: {open} of {most} are open"
            ));
        }
    }
    for limit in &process.limits {
        let whose = match limit.kind {
            LimitKind::GroupThreads => "its control group",
            LimitKind::UserThreads => "its user",
            LimitKind::GroupMemory => continue,
        };
        found.push(format!(
            "PID {pid} is out of threads: {whose} has {} of {}",
            limit.used, limit.most
        ));
    }
    found
}

pub(super) fn short_of_memory(process: &Process) -> Vec<String> {
    let pid = process.pid;
    let of_group = |limit: &&Limit| limit.kind == LimitKind::GroupMemory;
    let group = process.limits.iter().find(of_group).map(|limit| {
        format!(
            "PID {pid} is at the memory limit of its control group: {} of {} MiB",
            mebibytes(limit.used),
            mebibytes(limit.most)
        )
    });
    let is_swapped = process.swapped > process.resident && process.swapped > 64 << 20;
    let swapped = is_swapped.then(|| {
        format!(
            "PID {pid} is swapped out: {} MiB",
            mebibytes(process.swapped)
        )
    });
    group.into_iter().chain(swapped).collect()
}

/// What the main thread waits for; where that is a lock, what those wait for that can hold it.
pub(super) fn waiting(process: &Process, snapshot: &Snapshot) -> Vec<String> {
    // Stopped is stopped, whatever it was doing, and stuck is told where it is stuck.
    let is_child = matches!(process.wait(), Wait::Process { .. });
    if matches!(process.state, 'T' | 't') || (process.state == 'D' && !is_child) {
        return Vec::new();
    }
    let pid = process.pid;
    if *process.wait() != Wait::Lock {
        let wait = waiting_for(process.wait(), snapshot);
        // A parent that has forked is in state D until its child runs its process (vfork(2)).
        let state = if process.state == 'D' {
            ", in state D"
        } else {
            ""
        };
        return wait
            .map(|wait| format!("{wait} (PID {pid}{state})"))
            .into_iter()
            .collect();
    }
    let others = process.threads.iter().filter(|thread| thread.tid != pid);
    let waiting = others.filter_map(|thread| {
        let wait = waiting_for(&thread.wait, snapshot)?;
        Some(format!(
            "{wait} (PID {pid}, thread {}, while its main thread waits for a lock)",
            thread.tid
        ))
    });
    waiting.take(MOST_THREADS).collect()
}

/// What is waited for, if that is somebody or something with a name.
pub(in super::super) fn waiting_for(wait: &Wait, snapshot: &Snapshot) -> Option<String> {
    match wait {
        Wait::Client {
            peer,
            process,
            writing: true,
            queued,
            ..
        } => Some(format!(
            "blocked writing to client {peer}{}, which does not read: {queued} bytes wait to be sent",
            of(process.as_ref())
        )),
        Wait::Client {
            local,
            peer,
            process,
            received,
            ..
        } => {
            // Behind a proxy that speaks TLS, the server does not.
            let tls = snapshot.tls && local.port() == snapshot.port;
            let what = match (tls, received) {
                (false, _) => "reading from",
                // The server has not said its part yet.
                (
                    true,
                    Some(Received {
                        was_answered: false,
                        ..
                    }),
                ) => "in a TLS handshake with",
                (true, _) => "in a TLS handshake or read with",
            };
            let process = of(process.as_ref());
            let silence = silence(*received);
            Some(format!(
                "blocked {what} idle client {peer}{process}, {silence}"
            ))
        }
        Wait::Remote {
            peer,
            process,
            connecting: true,
        } => Some(format!(
            "waiting for a connection to {peer}{}, which does not answer",
            local(process.as_ref())
        )),
        Wait::Remote { peer, process, .. } => Some(format!(
            "waiting for a reply from {peer}{}",
            local(process.as_ref())
        )),
        Wait::Process { chain, last } => {
            let links: Vec<String> = chain.iter().map(ToString::to_string).collect();
            let mut text = format!("waiting for {}", links.join(", which waits for "));
            if let Some(last) = last.as_deref().and_then(|last| {
                waiting_for(last, snapshot).map(|last| last.replacen("blocked ", "", 1))
            }) {
                let _ = write!(text, ", which is {last}");
            }
            Some(text)
        }
        Wait::Children(several) => {
            let several: Vec<String> = several.iter().map(ToString::to_string).collect();
            Some(format!(
                "waiting for the first to end of its children, {}",
                several.join("; ")
            ))
        }
        Wait::File { .. } => file(wait).map(|file| format!("blocked {file}")),
        Wait::Hidden
        | Wait::Running
        | Wait::Lock
        | Wait::Idle
        | Wait::Sleeping
        | Wait::Unknown(_) => None,
    }
}

/// ` (PID 42 (state T, for 5 s): slapd)`, where a peer is a process of this machine.
fn local(process: Option<&Peer>) -> String {
    process.map_or(String::new(), |process| {
        format!(" ({})", process.to_string())
    })
}

/// ` (PID 42: nc vm 9143)`, where a client is a process of this machine.
fn of(process: Option<&Peer>) -> String {
    process.map_or(String::new(), |process| {
        format!(" (PID {}: {})", process.pid, process.command)
    })
}

fn silence(received: Option<Received>) -> String {
    match received {
        Some(received) if received.bytes == 0 => {
            format!("connected for {} and sent nothing", ago(received.ago))
        }
        Some(received) => format!(
            "silent for {} after {} bytes",
            ago(received.ago),
            received.bytes
        ),
        None => "silent".to_owned(),
    }
}

/// Whether a process waits for another of the server's, which has a cause of its own.
pub(super) fn waits_for_one_of(process: &Process, snapshot: &Snapshot) -> bool {
    let Wait::Process { chain, .. } = process.wait() else {
        return false;
    };
    let is_program = |pid| snapshot.processes.iter().any(|process| process.pid == pid);
    chain.iter().any(|other| is_program(other.pid))
}

/// A thread that always runs, or would if it had a CPU.
pub(super) fn spinning(process: &Process) -> Option<String> {
    let busy = |thread: &Thread| thread.ran + thread.waited;
    let busiest = process.threads.iter().max_by_key(|thread| busy(thread))?;
    let is_waiting = if busiest.waited >= 10 {
        " and waited for one the rest of the time"
    } else {
        ""
    };
    (busy(busiest) >= 80 && busiest.ran >= 5).then(|| {
        format!(
            "PID {} spins: thread {} ({}) used {} % of a CPU during the look{is_waiting}",
            process.pid, busiest.tid, busiest.name, busiest.ran
        )
    })
}

pub(super) fn deadlocked(process: &Process) -> Option<String> {
    let all = |holds: fn(&Thread) -> bool| process.threads.iter().all(holds);
    if *process.wait() != Wait::Lock || process.state != 'S' {
        return None;
    }
    let what = if all(|thread| thread.doing == Doing::Lock) {
        "deadlock: the"
    } else if all(|thread| matches!(thread.doing, Doing::Lock | Doing::Sleeping)) {
        "the"
    } else {
        return None;
    };
    let others = match process.threads.len() {
        1 => "it has no other thread".to_owned(),
        count => format!("none of its {count} threads runs"),
    };
    Some(format!(
        "{what} main thread of PID {} waits for a lock, and {others}",
        process.pid
    ))
}

pub(super) fn closing(process: &Process) -> Option<String> {
    let count = *process.sockets.get(CLOSE_WAIT)?;
    (count >= MANY_CLOSING).then(|| {
        format!("PID {} has {count} connections in CLOSE_WAIT: it does not close what its clients have left", process.pid)
    })
}

/// What it waits for has no name, or may not be seen.
pub(super) fn unseen(process: &Process, is_root: bool) -> Option<String> {
    let pid = process.pid;
    match process.wait() {
        Wait::Hidden => Some(format!(
            "not visible: what PID {pid} waits for is shown {}",
            to_whom(is_root)
        )),
        Wait::Unknown(what) => Some(format!(
            "not known: PID {pid} waits in {what}{}",
            in_kernel(process)
        )),
        _ => None,
    }
}

/// ` (do_epoll_wait)`, where that can be seen.
fn in_kernel(process: &Process) -> String {
    let kernel = process.kernel.as_ref();
    kernel.map_or(String::new(), |kernel| format!(" ({kernel})"))
}

/// Who may see it (`ptrace(2)`, "Ptrace access mode checking").
pub(super) fn to_whom(is_root: bool) -> &'static str {
    if is_root {
        "to root with CAP_SYS_PTRACE alone, which this run lacks"
    } else {
        "to its owner and to root alone"
    }
}

/// Nothing about it tells why it does not answer.
pub(super) fn unremarkable(process: &Process) -> String {
    let pid = process.pid;
    match process.wait() {
        Wait::Idle => format!(
            "PID {pid} waits for clients as a healthy server does: it may be slow, or the check may not reach it"
        ),
        Wait::Sleeping => format!("not known: PID {pid} sleeps for a time of its own"),
        Wait::Lock => format!("not known: the main thread of PID {pid} waits for a lock"),
        _ => format!(
            "not known: PID {pid} is in state {}{}",
            process.state,
            in_kernel(process)
        ),
    }
}
