//! Causes that lie with one process of the server: what it waits for, and what it has no more of.

use super::catalog::{
    Awaited, Cause, Client, File, KernelPlace, Limited, ServerProcess, Silence, Waiter,
};
use crate::diagnosis::phrase::Sight;
use crate::diagnosis::snapshot::{Inspected, Snapshot, Thread, Wait};
use crate::proc::cgroup::LimitKind;
use crate::proc::sock_diag::Received;
use crate::proc::syscall::Activity;

/// The kernel's name for a socket whose peer has closed while the server has not.
const CLOSE_WAIT: &str = "CLOSE_WAIT";
/// From this number on, such sockets are a leak.
const MANY_CLOSING: usize = 10;
/// Free descriptors with which no request can be served: it needs a socket, and a file or a pipe.
const FEW_DESCRIPTORS: u64 = 2;
/// Threads that are named beside the main thread, at most.
const MOST_THREADS: usize = 3;
/// Less swapped memory than this is no cause, in bytes.
const MUCH_SWAPPED: u64 = 64 << 20;

/// What each process waits for, and what keeps it from running; those that wait for another process of
/// the server last.
pub(super) fn blocked(snapshot: &Snapshot) -> Vec<Cause> {
    let processes = &snapshot.processes;
    let (others, first): (Vec<_>, Vec<_>) = processes
        .iter()
        .partition(|process| waits_for_one_of(process, snapshot));
    let mut found = Vec::new();
    for process in first.into_iter().chain(others) {
        found.extend(stopped(process));
        found.extend(waiting(process, snapshot));
    }
    found.extend(processes.iter().filter_map(spinning));
    found.extend(processes.iter().filter_map(deadlocked));
    found
}

/// What a process has too little of.
pub(super) fn shortages(process: &Inspected) -> Vec<Cause> {
    let mut found = Vec::new();
    found.extend(descriptors(process));
    found.extend(limits(process));
    found.extend(leaking(process));
    found.extend(swapped(process));
    found
}

fn stopped(process: &Inspected) -> Option<Cause> {
    let pid = process.pid();
    match process.state {
        'T' => Some(Cause::Stopped { pid }),
        't' => Some(Cause::Traced {
            pid,
            tracer: process.tracer.clone(),
        }),
        // It starts a child (vfork(2)), and that is what it waits for.
        'D' if matches!(process.wait(), Wait::Process { .. }) => None,
        'D' => Some(Cause::Uninterruptible {
            pid,
            tid: None,
            place: place(process.wait())
                .or_else(|| process.kernel.clone().map(KernelPlace::Channel)),
        }),
        _ => stuck(process),
    }
}

/// A thread that the kernel holds, where the first one has ended or waits for a lock.
fn stuck(process: &Inspected) -> Option<Cause> {
    if process.state != 'Z' && *process.wait() != Wait::Lock {
        return None;
    }
    let thread = process.threads.iter().find(|thread| thread.state == 'D')?;
    Some(Cause::Uninterruptible {
        pid: process.pid(),
        tid: Some(thread.tid),
        place: place(&thread.wait),
    })
}

fn place(wait: &Wait) -> Option<KernelPlace> {
    match awaited(wait, false, 0)? {
        Awaited::File(file) => Some(KernelPlace::File(file)),
        _ => None,
    }
}

fn descriptors(process: &Inspected) -> Option<Cause> {
    let open = u64::try_from(process.descriptors?).ok()?;
    let most = process.most_descriptors?;
    (open + FEW_DESCRIPTORS >= most).then_some(Cause::Descriptors {
        pid: process.pid(),
        open,
        most,
    })
}

fn limits(process: &Inspected) -> impl Iterator<Item = Cause> {
    let pid = process.pid();
    process.limits.iter().map(move |limit| {
        let (used, most) = (limit.used, limit.most);
        let limited = match limit.kind {
            LimitKind::GroupThreads => Limited::Group,
            LimitKind::UserThreads => Limited::User,
            LimitKind::GroupMemory => return Cause::GroupMemory { pid, used, most },
        };
        Cause::Threads {
            pid,
            limited,
            used,
            most,
        }
    })
}

fn swapped(process: &Inspected) -> Option<Cause> {
    let bytes = process.swapped;
    (bytes > process.resident && bytes > MUCH_SWAPPED).then_some(Cause::Swapped {
        pid: process.pid(),
        bytes,
    })
}

fn leaking(process: &Inspected) -> Option<Cause> {
    let connections = *process.sockets.get(CLOSE_WAIT)?;
    (connections >= MANY_CLOSING).then_some(Cause::Leak {
        pid: process.pid(),
        connections,
    })
}

/// What the main thread waits for; where that is a lock, what those wait for that can hold it.
fn waiting(process: &Inspected, snapshot: &Snapshot) -> Vec<Cause> {
    // These states have causes of their own.
    let is_child = matches!(process.wait(), Wait::Process { .. });
    if matches!(process.state, 'T' | 't') || (process.state == 'D' && !is_child) {
        return Vec::new();
    }
    let pid = process.pid();
    let awaited = |wait| awaited(wait, snapshot.tls, snapshot.port);
    if *process.wait() != Wait::Lock {
        let waiter = Waiter::Main {
            pid,
            is_in_state_d: process.state == 'D',
        };
        let cause = awaited(process.wait()).map(|awaited| Cause::Waiting { awaited, waiter });
        return cause.into_iter().collect();
    }
    let others = process.threads.iter().filter(|thread| thread.tid != pid);
    let waiting = others.filter_map(|thread| {
        Some(Cause::Waiting {
            awaited: awaited(&thread.wait)?,
            waiter: Waiter::Thread {
                pid,
                tid: thread.tid,
            },
        })
    });
    waiting.take(MOST_THREADS).collect()
}

/// What is waited for, if that is somebody or something with a name, by a server whose URL is https
/// (`tls`) and has this port.
pub(in super::super) fn awaited(wait: &Wait, tls: bool, port: u16) -> Option<Awaited> {
    match wait {
        Wait::Client {
            local,
            peer,
            process,
            writing,
            queued,
            received,
            ..
        } => {
            let client = Client {
                address: *peer,
                process: process.clone(),
            };
            let silence = received.map(|Received { ago, bytes, .. }| Silence { ago, bytes });
            Some(if *writing {
                Awaited::SlowReader {
                    client,
                    queued: *queued,
                }
            // Behind a proxy that speaks TLS, the server does not.
            } else if tls && local.port() == port {
                Awaited::IdleTlsClient {
                    client,
                    silence,
                    // The server has not said its part yet.
                    is_handshake: received.is_some_and(|received| !received.was_answered),
                }
            } else {
                Awaited::IdleClient { client, silence }
            })
        }
        Wait::Remote {
            peer,
            process,
            connecting,
        } => Some(Awaited::Peer {
            address: *peer,
            process: process.clone(),
            is_connecting: *connecting,
        }),
        Wait::Process { chain, last } => Some(Awaited::Child {
            chain: chain.clone(),
            last: last
                .as_deref()
                .and_then(|last| awaited(last, tls, port))
                .map(Box::new),
        }),
        Wait::Children(several) => Some(Awaited::AnyChild(several.clone())),
        Wait::File {
            path,
            operation,
            mount,
        } => Some(Awaited::File(File {
            operation: operation.to_string(),
            path: path.clone(),
            mount: mount.clone(),
        })),
        Wait::Hidden
        | Wait::Running
        | Wait::Lock
        | Wait::Idle
        | Wait::Sleeping
        | Wait::Unknown(_) => None,
    }
}

/// Whether a process waits for another of the server's, which has a cause of its own.
fn waits_for_one_of(process: &Inspected, snapshot: &Snapshot) -> bool {
    let Wait::Process { chain, .. } = process.wait() else {
        return false;
    };
    let is_process = |pid| snapshot.processes.iter().any(|one| one.pid() == pid);
    chain.iter().any(|other| is_process(other.pid))
}

/// A thread that always runs, or would if it had a CPU.
fn spinning(process: &Inspected) -> Option<Cause> {
    let busy = |thread: &Thread| thread.ran + thread.waited;
    let busiest = process.threads.iter().max_by_key(|thread| busy(thread))?;
    (busy(busiest) >= 80 && busiest.ran >= 5).then(|| Cause::Spinning {
        pid: process.pid(),
        tid: busiest.tid,
        name: busiest.name.clone(),
        percent: busiest.ran,
        is_starved: busiest.waited >= 10,
    })
}

fn deadlocked(process: &Inspected) -> Option<Cause> {
    let all = |holds: fn(&Thread) -> bool| process.threads.iter().all(holds);
    if *process.wait() != Wait::Lock || process.state != 'S' {
        return None;
    }
    let some_sleep = !all(|thread| thread.activity == Activity::Lock);
    if some_sleep && !all(|thread| matches!(thread.activity, Activity::Lock | Activity::Sleeping)) {
        return None;
    }
    Some(Cause::Deadlock {
        pid: process.pid(),
        threads: process.threads.len(),
        some_sleep,
    })
}

/// What it waits for has no name, or may not be seen.
pub(super) fn unseen(process: &Inspected, sight: Sight) -> Option<Cause> {
    let pid = process.pid();
    match process.wait() {
        Wait::Hidden => Some(Cause::HiddenWait { pid, sight }),
        Wait::Unknown(what) => Some(Cause::Blocked {
            pid,
            what: what.clone(),
            channel: process.kernel.clone(),
        }),
        _ => None,
    }
}

/// Nothing about it tells why it does not answer.
pub(super) fn unremarkable(process: &Inspected) -> Cause {
    let pid = process.pid();
    match process.wait() {
        Wait::Idle => Cause::Unremarkable { pid },
        Wait::Sleeping => Cause::Sleeping { pid },
        Wait::Lock => Cause::Lock { pid },
        _ => Cause::State {
            pid,
            state: process.state,
            channel: process.kernel.clone(),
        },
    }
}

/// A process as a sentence names it with where it listens.
pub(super) fn server(process: &Inspected) -> ServerProcess {
    let listens = process.listens.iter();
    ServerProcess {
        pid: process.pid(),
        listens: listens.map(|(address, _)| *address).collect(),
    }
}
