use std::net::SocketAddr;
use std::time::Duration;

use super::catalog::tests::is_in_the_manual;
use super::catalog::{Cause, Kind, ServerProcess, Waiter};
use super::causes as values;
use crate::diagnosis::finding::{Blocker, Child, Finding};
use crate::diagnosis::oom::Victim;
use crate::diagnosis::phrase::{Mentioned, Sight};
use crate::diagnosis::question::Seen;
use crate::diagnosis::snapshot::{
    Cpu, Full, Inspected, PortListener, Snapshot, Stage, Thread, Wait,
};
use crate::proc::cgroup::{Limit, LimitKind};
use crate::proc::machine::{Machine, Pressure};
use crate::proc::sock_diag::Received;
use crate::proc::syscall::{Activity, Operation};
use crate::server::process::Process;

fn causes(snapshot: &Snapshot) -> Vec<String> {
    let causes = values(snapshot);
    causes.iter().map(ToString::to_string).collect()
}

fn peer() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 7], 51234))
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], port))
}

fn other(pid: i32, command: &str) -> Mentioned {
    Mentioned {
        pid,
        command: command.to_owned(),
        state: 'S',
        age: Duration::from_secs(90),
        start_time: 500,
        is_hidden: false,
    }
}

fn thread(tid: i32, activity: Activity, wait: Wait, ran: u128) -> Thread {
    Thread {
        tid,
        name: "python3".to_owned(),
        state: 'S',
        activity,
        wait,
        cpu: Cpu::default(),
        ran,
        waited: 0,
    }
}

fn identity(pid: i32) -> Process {
    Process {
        pid,
        ..Process::default()
    }
}

/// A server, PID 7, whose main thread waits so.
fn process(wait: Wait) -> Inspected {
    let doing = if wait == Wait::Lock {
        Activity::Lock
    } else {
        Activity::Running
    };
    Inspected {
        process: identity(7),
        state: 'S',
        threads: vec![thread(7, doing, wait, 0)],
        listens: vec![(address(9143), 1)],
        ..Inspected::default()
    }
}

fn hung(process: Inspected) -> Snapshot {
    Snapshot {
        sight: Sight::Own,
        port: 9143,
        is_port_of_url: true,
        addresses: Vec::new(),
        elsewhere: false,
        tls: false,
        seen: Seen::Silent,
        since_healthy: Some(Duration::from_secs(180)),
        is_running: true,
        listeners: vec![PortListener {
            clients: 0,
            ..listener("python3", 1, true)
        }],
        processes: vec![process],
        instances: Vec::new(),
        full: Vec::new(),
        machine: Machine::default(),
        victim: None,
        log: None,
        stage: Stage::All,
    }
}

fn listener(holder: &str, waiting: u32, ours: bool) -> PortListener {
    PortListener {
        address: address(9143),
        is_v6_only: false,
        waiting,
        backlog: Some(5),
        clients: 2,
        closing: 0,
        holder: Some(other(42, holder)),
        ours,
    }
}

fn waits(wait: Wait) -> Snapshot {
    hung(process(wait))
}

fn gone() -> Snapshot {
    Snapshot {
        processes: Vec::new(),
        listeners: Vec::new(),
        is_running: false,
        ..waits(Wait::Idle)
    }
}

fn client(writing: bool, queued: u32, bytes: u64) -> Wait {
    Wait::Client {
        inode: 82,
        local: address(9143),
        peer: peer(),
        process: None,
        writing,
        queued,
        received: Some(Received {
            ago: Duration::from_secs(74),
            bytes,
            was_answered: bytes > 500,
        }),
    }
}

fn remote(connecting: bool) -> Wait {
    Wait::Remote {
        process: None,
        peer: peer(),
        connecting,
    }
}

fn chain(chain: Vec<Mentioned>, last: Option<Wait>) -> Wait {
    Wait::Process {
        chain,
        last: last.map(Box::new),
    }
}

fn on_file(mount: Option<&str>) -> Wait {
    Wait::File {
        path: "/home/x".to_owned(),
        operation: Operation::Opening,
        mount: mount.map(str::to_owned),
    }
}

fn stuck(state: char, wait: Wait) -> Snapshot {
    hung(Inspected {
        state,
        kernel: Some("nfs_wait".to_owned()),
        ..process(wait)
    })
}

fn tls(snapshot: Snapshot) -> Snapshot {
    Snapshot {
        tls: true,
        ..snapshot
    }
}

fn seen(seen: Seen) -> Snapshot {
    Snapshot {
        seen,
        ..waits(Wait::Idle)
    }
}

fn limited(kind: LimitKind, used: u64, most: u64) -> Snapshot {
    hung(Inspected {
        limits: vec![Limit { kind, used, most }],
        ..process(Wait::Idle)
    })
}

fn on_machine(machine: Machine) -> Snapshot {
    Snapshot {
        machine,
        ..waits(Wait::Idle)
    }
}

fn threaded(others: Vec<Thread>) -> Snapshot {
    let mut process = process(Wait::Lock);
    process.threads.extend(others);
    hung(process)
}

#[test]
fn each_evidence_has_its_sentence() {
    let table: Vec<(Snapshot, &str)> = vec![
        (
            waits(client(false, 0, 0)),
            "blocked reading from idle client 10.0.0.7:51234, connected for 74 s and sent nothing (PID 7)",
        ),
        (
            waits(client(false, 0, 8)),
            "blocked reading from idle client 10.0.0.7:51234, silent for 74 s after 8 bytes (PID 7)",
        ),
        (
            tls(waits(client(false, 0, 0))),
            "blocked in a TLS handshake with idle client 10.0.0.7:51234, connected for 74 s and sent nothing (PID 7)",
        ),
        (
            tls(waits(client(false, 0, 7))),
            "blocked in a TLS handshake with idle client 10.0.0.7:51234, silent for 74 s after 7 bytes (PID 7)",
        ),
        (
            tls(waits(client(false, 0, 700))),
            "blocked in a TLS handshake or read with idle client 10.0.0.7:51234, silent for 74 s after 700 bytes (PID 7)",
        ),
        (
            waits(Wait::Client {
                inode: 82,
                local: address(9143),
                peer: peer(),
                process: Some(other(42, "nc vm 9143")),
                writing: false,
                queued: 0,
                received: None,
            }),
            "blocked reading from idle client 10.0.0.7:51234 (PID 42: nc vm 9143), silent (PID 7)",
        ),
        (
            Snapshot {
                port: 443,
                ..tls(waits(client(false, 0, 0)))
            },
            "blocked reading from idle client 10.0.0.7:51234, connected for 74 s and sent nothing (PID 7)",
        ),
        (
            waits(client(true, 2_500_000, 9)),
            "blocked writing to client 10.0.0.7:51234, which does not read: 2500000 bytes wait to be sent (PID 7)",
        ),
        (
            waits(chain(vec![other(42, "bjobs -u all")], None)),
            "waiting for PID 42 (state S, for 90 s): bjobs -u all (PID 7)",
        ),
        (
            waits(chain(
                vec![other(42, "sh -c bjobs"), other(43, "bjobs")],
                Some(remote(false)),
            )),
            "waiting for PID 42 (state S, for 90 s): sh -c bjobs, which waits for PID 43 (state S, for 90 s): bjobs, \
             which is waiting for a reply from 10.0.0.7:51234 (PID 7)",
        ),
        (
            waits(chain(vec![other(42, "bjobs")], Some(on_file(None)))),
            "waiting for PID 42 (state S, for 90 s): bjobs, which is opening /home/x (PID 7)",
        ),
        (
            waits(remote(true)),
            "waiting for a connection to 10.0.0.7:51234, which does not answer (PID 7)",
        ),
        (
            waits(remote(false)),
            "waiting for a reply from 10.0.0.7:51234 (PID 7)",
        ),
        (waits(on_file(None)), "blocked opening /home/x (PID 7)"),
        (
            stuck('D', on_file(Some("nfs4 vm:/export on /home"))),
            "PID 7 is stuck in the kernel (state D), opening /home/x (nfs4 vm:/export on /home)",
        ),
        (
            stuck('D', Wait::Hidden),
            "PID 7 is stuck in the kernel (state D), kernel wait channel: nfs_wait",
        ),
        (
            stuck('D', chain(vec![other(42, "main.py")], None)),
            "waiting for PID 42 (state S, for 90 s): main.py (PID 7, in state D)",
        ),
        (
            stuck('T', client(false, 0, 0)),
            "PID 7 is stopped (SIGSTOP or job control)",
        ),
        (stuck('t', Wait::Hidden), "PID 7 is stopped by a tracer"),
        (
            hung(Inspected {
                state: 't',
                tracer: Some(other(42, "strace")),
                ..process(Wait::Hidden)
            }),
            "PID 7 is stopped by its tracer, PID 42 (state S, for 90 s): strace",
        ),
        (
            threaded(vec![thread(8, Activity::Running, Wait::Running, 99)]),
            "PID 7 spins: thread 8 (python3) used 99 % of a CPU during the diagnosis",
        ),
        (
            threaded(vec![Thread {
                waited: 70,
                ..thread(8, Activity::Running, Wait::Running, 25)
            }]),
            "PID 7 spins: thread 8 (python3) used 25 % of a CPU during the diagnosis and was ready to run the rest of the time",
        ),
        (
            threaded(vec![thread(8, Activity::Lock, Wait::Lock, 0)]),
            "deadlock: the main thread of PID 7 waits for a lock, and none of its 2 threads runs",
        ),
        (
            waits(Wait::Lock),
            "deadlock: the main thread of PID 7 waits for a lock, and it has no other thread",
        ),
        (
            threaded(vec![
                thread(8, Activity::Lock, Wait::Lock, 0),
                thread(9, Activity::Running, remote(false), 0),
            ]),
            "waiting for a reply from 10.0.0.7:51234 \
             (PID 7, thread 9, while its main thread waits for a lock)",
        ),
        (
            threaded(vec![thread(8, Activity::Running, Wait::Running, 5)]),
            "not known: the main thread of PID 7 waits for a lock",
        ),
        (
            threaded(vec![thread(8, Activity::Sleeping, Wait::Sleeping, 0)]),
            "the main thread of PID 7 waits for a lock, and none of its 2 threads runs",
        ),
        (
            threaded(vec![Thread {
                state: 'D',
                ..thread(8, Activity::Running, on_file(None), 0)
            }]),
            "PID 7, thread 8, is stuck in the kernel (state D), opening /home/x",
        ),
        (
            waits(Wait::Children(vec![
                other(42, "bjobs"),
                other(43, "helper"),
            ])),
            "waiting for any of its 2 children to exit: PID 42 (state S, for 90 s): bjobs; \
             PID 43 (state S, for 90 s): helper (PID 7)",
        ),
        (
            hung(Inspected {
                descriptors: Some(1024),
                most_descriptors: Some(1024),
                ..process(Wait::Idle)
            }),
            "PID 7 is out of file descriptors: 1024 of 1024",
        ),
        (
            hung(Inspected {
                descriptors: Some(1022),
                most_descriptors: Some(1024),
                ..process(Wait::Idle)
            }),
            "PID 7 has too few file descriptors left for a request: 1022 of 1024 are open",
        ),
        (
            limited(LimitKind::GroupMemory, 4 << 30, 4 << 30),
            "PID 7 is at the memory limit of its control group: 4096 of 4096 MiB",
        ),
        (
            limited(LimitKind::GroupThreads, 512, 512),
            "PID 7 is out of threads: its control group has 512 of 512",
        ),
        (
            limited(LimitKind::UserThreads, 30, 30),
            "PID 7 is out of threads: its user has 30 of 30",
        ),
        (
            hung(Inspected {
                swapped: 300 << 20,
                resident: 1 << 20,
                ..process(Wait::Idle)
            }),
            "PID 7 is swapped out: 300 MiB",
        ),
        (
            hung(Inspected {
                sockets: [("CLOSE_WAIT", 40)].into(),
                ..process(Wait::Idle)
            }),
            "PID 7 leaks 40 connections that clients have closed (CLOSE_WAIT)",
        ),
        (
            Snapshot {
                listeners: vec![listener("python3", 6, true)],
                ..waits(Wait::Idle)
            },
            "the accept queue of 0.0.0.0:9143 is full: 6 connections wait in it, 2 of them with a client, and its backlog is 5",
        ),
        (
            Snapshot {
                listeners: vec![listener("python3", 3, true)],
                ..waits(Wait::Idle)
            },
            "2 clients wait in the accept queue of 0.0.0.0:9143",
        ),
        (
            waits(Wait::Hidden),
            "not visible: what PID 7 waits for is shown only to its owner and to root",
        ),
        (
            stuck('S', Wait::Unknown("system call 281".to_owned())),
            "not known: PID 7 is blocked in system call 281, kernel wait channel: nfs_wait",
        ),
        (
            waits(Wait::Idle),
            "PID 7 waits for clients as a healthy server does: it may be slow, or the check may not reach it",
        ),
        (
            Snapshot {
                elsewhere: true,
                ..waits(Wait::Idle)
            },
            "the URL's host is another machine: its server is not on this one, and nothing is stopped without \
             --listen or --process-pattern",
        ),
        (
            Snapshot {
                listeners: Vec::new(),
                ..waits(Wait::Sleeping)
            },
            "the server runs, but nothing listens on port 9143",
        ),
        (
            Snapshot {
                listeners: vec![listener("nginx", 0, false)],
                ..gone()
            },
            "the server is not running; it last answered 3 min ago",
        ),
        (
            Snapshot {
                full: vec![Full {
                    directory: "/var/log".into(),
                    inodes: false,
                }],
                ..waits(Wait::Idle)
            },
            "the disk of /var/log is full",
        ),
        (
            Snapshot {
                full: vec![Full {
                    directory: "/var/log".into(),
                    inodes: true,
                }],
                ..waits(Wait::Idle)
            },
            "the disk of /var/log has no free inode",
        ),
        (
            on_machine(Machine {
                available: 1,
                memory: 8 << 30,
                ..Machine::default()
            }),
            "the machine is out of memory: 0 of 8192 MiB available",
        ),
        (
            on_machine(Machine {
                load: 99.0,
                cpus: 2,
                ..Machine::default()
            }),
            "the machine is overloaded: load 99 on 2 CPUs",
        ),
        (
            on_machine(Machine {
                cpus: 2,
                pressure: Some(Pressure {
                    cpu: 95.0,
                    ..Pressure::default()
                }),
                ..Machine::default()
            }),
            "the machine is overloaded: load 0 on 2 CPUs, cpu pressure 95 % (10 s average)",
        ),
        (
            on_machine(Machine {
                threads: 32_700,
                most_threads: 32_768,
                ..Machine::default()
            }),
            "the machine is out of threads: 32700 of 32768",
        ),
        (
            on_machine(Machine {
                pressure: Some(Pressure {
                    io: 80.0,
                    ..Pressure::default()
                }),
                ..Machine::default()
            }),
            "the machine waits for its disks, io pressure 80 % (10 s average)",
        ),
        (
            seen(Seen::Status(503)),
            "the server answers, but with status 503",
        ),
        (
            seen(Seen::RedirectLoop),
            "the server's redirects do not end: more than ten on its own host",
        ),
        (
            seen(Seen::Certificate("expired on 2026-01-01".to_owned())),
            "the server's certificate is not accepted: expired on 2026-01-01",
        ),
        (
            seen(Seen::Unresolved("Name or service not known".to_owned())),
            "the URL's host cannot be resolved: Name or service not known; the server (PID 7, which listens on \
             0.0.0.0:9143) was not asked",
        ),
        (
            seen(Seen::Strange("the server does not speak TLS".to_owned())),
            "what answers is no MyVNC server: the server does not speak TLS",
        ),
    ];
    for (snapshot, expected) in table {
        assert_eq!(
            causes(&snapshot).first().map(String::as_str),
            Some(expected),
            "{snapshot:?}"
        );
        for cause in values(&snapshot) {
            assert!(is_in_the_manual(&cause), "{cause}");
        }
    }
}

#[test]
fn a_proxys_answer_says_whether_the_server_is_up() {
    let behind = |snapshot: Snapshot| Snapshot {
        seen: Seen::Status(502),
        listeners: vec![listener("nginx", 0, false)],
        ..snapshot
    };
    let proxy =
        "a proxy, PID 42 (state S, for 90 s): nginx, answers with status 502 in the server's place";
    let up = causes(&behind(hung(Inspected {
        listens: vec![(address(9200), 0)],
        ..process(Wait::Idle)
    })));
    assert_eq!(
        up,
        [format!(
            "{proxy}; the server itself is up: PID 7, which listens on 0.0.0.0:9200"
        )]
    );
    let down = causes(&behind(gone()));
    assert_eq!(
        down,
        [format!(
            "{proxy}; the server is not running; it last answered 3 min ago"
        )]
    );
    let blocked = causes(&behind(waits(client(false, 0, 0))));
    assert!(
        blocked[0].starts_with("blocked reading") && blocked[1].starts_with(proxy),
        "{blocked:?}"
    );
    let remote = causes(&Snapshot {
        elsewhere: true,
        listeners: Vec::new(),
        ..behind(gone())
    });
    assert_eq!(
        remote[1],
        "a proxy answers with status 502 in the server's place"
    );
}

#[test]
fn hazard_27_a_listener_of_ipv6_alone_is_no_cause_for_a_url_of_ipv4() {
    let beside = |is_v6_only| Snapshot {
        addresses: vec![[127, 0, 0, 1].into()],
        listeners: vec![PortListener {
            address: ([0_u16; 8], 9143).into(),
            is_v6_only,
            ..listener("nc", 0, false)
        }],
        ..gone()
    };
    let taken = "[::]:9143 is held by another process";
    assert!(causes(&beside(false)).concat().contains(taken));
    assert!(!causes(&beside(true)).concat().contains(taken));
}

#[test]
fn a_server_that_is_gone_is_said_to_be_with_what_is_known_of_its_end() {
    let of = |victim| Snapshot {
        victim: Some(victim),
        ..gone()
    };
    let victim = |is_known, seconds| Victim::Process {
        pid: Some(812),
        name: "python3".to_owned(),
        ago: Duration::from_secs(seconds),
        is_known,
    };
    let unmapped = "the server is not running; it last answered 3 min ago";
    for (snapshot, expected) in [
        (gone(), unmapped),
        (
            Snapshot {
                since_healthy: None,
                ..gone()
            },
            "the server is not running",
        ),
        (
            of(victim(true, 130)),
            "the kernel's OOM killer ended the server, PID 812 (python3), 2 min ago",
        ),
        (
            of(victim(false, 40)),
            "the server is not running; the kernel's OOM killer ended PID 812 (python3) 40 s ago, which may have been it",
        ),
        // It has answered since.
        (of(victim(false, 300)), unmapped),
        (of(victim(true, 300)), unmapped),
    ] {
        assert_eq!(causes(&snapshot), [expected]);
    }
    let in_group = of(Victim::InGroup("/system.slice/cron.service".to_owned()));
    let expected = "the kernel's OOM killer ended a process of the server's control group /system.slice/cron.service \
                    since the server was started";
    assert_eq!(causes(&in_group), [unmapped, expected]);
}

#[test]
fn a_server_on_another_port_is_named_first_where_the_url_never_was_right() {
    let elsewhere = |since_healthy, is_port_of_url| {
        let instance = (other(42, "python3 main.py"), vec![address(9200)]);
        causes(&Snapshot {
            since_healthy,
            is_port_of_url,
            instances: vec![instance],
            ..gone()
        })
    };
    let there = "the URL has port 9143, and a MyVNC server listens on 0.0.0.0:9200, \
                 PID 42 (state S, for 90 s): python3 main.py";
    assert_eq!(elsewhere(None, true), [there, "the server is not running"]);
    assert_eq!(elsewhere(Some(Duration::from_secs(60)), true)[1], there);
    // Its configuration says that it listens there: the other one is another instance.
    assert_eq!(elsewhere(None, false), ["the server is not running"]);
}

#[test]
fn who_waits_for_another_of_the_server_is_named_after_it() {
    let child = Inspected {
        process: identity(42),
        state: 'D',
        threads: vec![thread(42, Activity::Running, on_file(None), 0)],
        ..Inspected::default()
    };
    let mut snapshot = stuck('D', chain(vec![other(42, "main.py")], None));
    snapshot.processes.push(child);
    let causes = causes(&snapshot);
    assert_eq!(
        causes[0],
        "PID 42 is stuck in the kernel (state D), opening /home/x"
    );
    assert!(causes[1].starts_with("waiting for PID 42 "), "{causes:?}");
}

#[test]
fn innocents_are_not_named() {
    let healthy = |process| Snapshot {
        seen: Seen::Healthy,
        ..hung(process)
    };
    for wait in [Wait::Idle, client(false, 0, 700), remote(false)] {
        assert_eq!(causes(&healthy(process(wait))), Vec::<String>::new());
    }
    let beside = |state, wait| {
        let process = Inspected {
            state,
            children: vec![other(42, "helper")],
            ..process(wait)
        };
        causes(&hung(process))
    };
    for causes in [beside('T', Wait::Idle), beside('S', client(false, 0, 0))] {
        assert!(causes.iter().all(|cause| !cause.contains("helper")));
    }
    // A client that another thread reads from keeps nobody waiting while new ones are taken.
    let mut pool = process(Wait::Idle);
    pool.threads
        .push(thread(8, Activity::Running, client(false, 0, 700), 0));
    assert!(
        causes(&hung(pool))
            .iter()
            .all(|cause| !cause.contains("10.0.0.7"))
    );
}

#[test]
fn what_was_not_looked_at_is_not_said_to_be_missing() {
    for stage in [Stage::Machine, Stage::Processes, Stage::Port] {
        let early = Snapshot { stage, ..gone() };
        assert_eq!(
            causes(&early),
            [format!("not known: timed out reading {stage}")]
        );
    }
}

#[test]
fn hazard_49_a_child_of_another_user_is_named_with_what_is_not_visible() {
    let squeue = Mentioned {
        is_hidden: true,
        ..other(42, "squeue")
    };
    let causes = causes(&waits(chain(vec![squeue], None)));
    let expected = "waiting for PID 42 (state S, for 90 s, of another user, descriptors not visible): squeue (PID 7)";
    assert_eq!(causes.first().map(String::as_str), Some(expected));
}

#[test]
fn hazard_52_a_peer_of_this_machine_is_named_with_its_state() {
    let slapd = Mentioned {
        state: 'T',
        ..other(42, "slapd")
    };
    let wait = Wait::Remote {
        peer: peer(),
        process: Some(slapd),
        connecting: false,
    };
    let causes = causes(&waits(wait));
    let expected =
        "waiting for a reply from 10.0.0.7:51234 (PID 42 (state T, for 90 s): slapd) (PID 7)";
    assert_eq!(causes.first().map(String::as_str), Some(expected));
}

#[test]
fn hazard_53_a_dead_server_is_the_cause_before_who_holds_its_port() {
    let mut snapshot = waits(Wait::Idle);
    snapshot.processes.clear();
    snapshot.is_running = false;
    snapshot.listeners = vec![listener("haproxy", 0, false)];
    let causes = causes(&snapshot);
    assert!(
        causes[0].starts_with("the server is not running"),
        "{causes:?}"
    );
    assert!(
        causes[1].contains("is held by another process"),
        "{causes:?}"
    );
}

#[test]
fn hazard_54_a_parent_that_has_forked_is_said_to_be_in_state_d() {
    let mut snapshot = waits(chain(vec![other(42, "python3")], None));
    snapshot.processes[0].state = 'D';
    let causes = causes(&snapshot);
    let expected = "waiting for PID 42 (state S, for 90 s): python3 (PID 7, in state D)";
    assert_eq!(causes.first().map(String::as_str), Some(expected));
}

#[test]
fn hazard_54_root_is_told_which_capability_it_lacks_and_only_if_it_lacks_it() {
    let mut snapshot = waits(Wait::Hidden);
    for (sight, why) in [
        (
            Sight::WithoutCapability,
            "is shown only to root with CAP_SYS_PTRACE, which this run lacks",
        ),
        (Sight::All, "could not be read in time, or not at all"),
    ] {
        snapshot.sight = sight;
        let causes = causes(&snapshot);
        let expected = format!("not visible: what PID 7 waits for {why}");
        assert_eq!(causes.first(), Some(&expected));
    }
}

#[test]
fn what_blocks_the_server_is_named_as_a_value_where_one_thread_alone_waits() {
    let blocker = |snapshot: &Snapshot| {
        let causes = values(snapshot);
        Finding::of(causes.first()?, snapshot).blocker
    };
    let client_of = |pid| {
        Some(Blocker::Client {
            pid,
            inode: 82,
            local: address(9143),
            peer: peer(),
        })
    };
    assert_eq!(blocker(&waits(client(false, 0, 0))), client_of(7));
    assert_eq!(blocker(&tls(waits(client(false, 0, 0)))), client_of(7));
    assert_eq!(blocker(&waits(client(true, 70_000, 0))), client_of(7));
    let sh = || other(41, "sh -c bjobs");
    let bjobs = || other(42, "/usr/bin/bjobs -u all");
    let child = |pid, name: &str| Child {
        pid,
        start_time: 500,
        name: name.to_owned(),
    };
    let expected = Blocker::Child {
        pid: 7,
        chain: vec![child(41, "sh"), child(42, "bjobs")],
    };
    let stuck = waits(chain(vec![sh(), bjobs()], None));
    assert_eq!(blocker(&stuck), Some(expected));
    // A process of the server itself is not ended, and neither is one that cannot be examined.
    let hidden = Mentioned {
        is_hidden: true,
        ..bjobs()
    };
    assert_eq!(blocker(&waits(chain(vec![hidden], None))), None);
    assert_eq!(
        blocker(&waits(chain(vec![other(7, "python3")], None))),
        None
    );
    let mut manager = waits(chain(vec![other(8, "python3 main.py")], None));
    manager.processes.push(Inspected {
        process: identity(8),
        ..process(Wait::Idle)
    });
    assert_eq!(blocker(&manager), None);
    for other in [
        Wait::Hidden,
        Wait::Idle,
        Wait::Lock,
        Wait::Children(vec![sh(), bjobs()]),
        remote(false),
        on_file(None),
    ] {
        assert_eq!(blocker(&waits(other.clone())), None, "{other:?}");
    }
    // The main thread waits for a lock: one other thread may hold it, of several none is known to.
    let mut locked = waits(Wait::Lock);
    let threads = &mut locked.processes[0].threads;
    threads.push(thread(8, Activity::Running, client(false, 0, 0), 0));
    assert_eq!(blocker(&locked), client_of(7));
    let threads = &mut locked.processes[0].threads;
    threads.push(thread(9, Activity::Running, remote(false), 0));
    assert_eq!(blocker(&locked), None);
}

fn kinds(snapshot: &Snapshot) -> Vec<Kind> {
    values(snapshot).iter().map(Cause::kind).collect()
}

#[test]
fn each_limit_of_the_machine_is_exact() {
    let pressed = |memory, io| {
        Some(Pressure {
            memory,
            cpu: 0.0,
            io,
        })
    };
    let memory = |available, memory, pressure| Machine {
        available,
        memory,
        pressure,
        ..Machine::default()
    };
    let threads = |threads| Machine {
        threads,
        most_threads: 1000,
        ..Machine::default()
    };
    let load = |load| Machine {
        load,
        cpus: 4,
        ..Machine::default()
    };
    for (machine, expected) in [
        (memory(19, 1000, None), Some(Kind::Memory)),
        (memory(20, 1000, None), None),
        (memory(900, 1000, pressed(20.0, 0.0)), Some(Kind::Memory)),
        (memory(900, 1000, pressed(19.9, 0.0)), None),
        // Nothing could be read.
        (memory(0, 0, pressed(25.0, 0.0)), None),
        (threads(980), Some(Kind::Threads)),
        (threads(979), None),
        (load(33.0), Some(Kind::Overload)),
        (load(32.0), None),
        (memory(900, 1000, pressed(0.0, 49.9)), None),
    ] {
        let found = kinds(&on_machine(machine.clone()));
        let found = found.iter().find(|kind| **kind != Kind::Unremarkable);
        assert_eq!(found.copied(), expected, "{machine:?}");
    }
}

#[test]
fn each_limit_of_a_process_is_exact() {
    let swapped = |swapped: u64, resident: u64| {
        hung(Inspected {
            swapped: swapped << 20,
            resident: resident << 20,
            ..process(Wait::Idle)
        })
    };
    for (bytes, resident, expected) in [
        (65, 64, true),
        (65, 65, false),
        (64, 0, false),
        (70, 100, false),
        (10, 0, false),
    ] {
        let is_found = kinds(&swapped(bytes, resident)).contains(&Kind::Swapped);
        assert_eq!(is_found, expected, "{bytes} {resident}");
    }
    for (descriptors, expected) in [(98, true), (97, false)] {
        let process = Inspected {
            descriptors: Some(descriptors),
            most_descriptors: Some(100),
            ..process(Wait::Idle)
        };
        let is_found = kinds(&hung(process)).contains(&Kind::Descriptors);
        assert_eq!(is_found, expected, "{descriptors}");
    }
    for (waiting, expected) in [(6, true), (5, false)] {
        let queue = PortListener {
            clients: 0,
            ..listener("python3", waiting, true)
        };
        let is_found = super::port::queued(&queue).is_some();
        assert_eq!(is_found, expected, "{waiting} of a backlog of 5");
    }
}

#[test]
fn a_thread_in_state_d_counts_beside_a_main_thread_that_ended_or_waits_for_a_lock() {
    let beside = |state, wait| {
        let mut process = Inspected {
            state,
            ..process(wait)
        };
        let mut thread = thread(8, Activity::Running, Wait::Hidden, 0);
        thread.state = 'D';
        process.threads.push(thread);
        kinds(&hung(process)).contains(&Kind::Uninterruptible)
    };
    assert!(beside('Z', Wait::Idle));
    assert!(beside('S', Wait::Lock));
    assert!(!beside('S', Wait::Idle));
}

#[test]
fn only_a_process_that_sleeps_can_be_deadlocked() {
    let running = Inspected {
        state: 'R',
        ..process(Wait::Lock)
    };
    assert!(!kinds(&hung(running)).contains(&Kind::Deadlock));
    assert!(kinds(&waits(Wait::Lock)).contains(&Kind::Deadlock));
    assert_eq!(values(&waits(Wait::Sleeping)), [Cause::Sleeping { pid: 7 }]);
}

#[test]
fn what_cannot_be_seen_is_a_cause_only_where_there_is_no_other_and_no_answer() {
    let healthy = Snapshot {
        seen: Seen::Healthy,
        ..waits(Wait::Hidden)
    };
    assert_eq!(values(&healthy), []);
    let full = Snapshot {
        full: vec![Full {
            directory: "/data".into(),
            inodes: false,
        }],
        ..waits(Wait::Hidden)
    };
    assert_eq!(kinds(&full), [Kind::DiskFull]);
}

#[test]
fn the_scheme_that_the_server_speaks_is_the_other_one() {
    for tls in [false, true] {
        let snapshot = Snapshot {
            tls,
            ..seen(Seen::Scheme("url".to_owned()))
        };
        let expected = Cause::Scheme {
            url: "url".to_owned(),
            speaks_tls: !tls,
        };
        assert_eq!(values(&snapshot)[0], expected);
    }
}

#[test]
fn a_process_that_waits_for_another_of_the_server_comes_after_it() {
    for (awaited, expected) in [(8, [8, 7]), (42, [7, 8])] {
        let mut snapshot = waits(chain(vec![other(awaited, "python3")], None));
        snapshot.processes.push(Inspected {
            process: identity(8),
            ..process(client(false, 0, 517))
        });
        let causes = super::blocked(&snapshot);
        let waiting: Vec<i32> = causes
            .iter()
            .filter_map(|cause| match cause {
                Cause::Waiting {
                    waiter: Waiter::Main { pid, .. },
                    ..
                } => Some(*pid),
                _ => None,
            })
            .collect();
        assert_eq!(waiting, expected, "{awaited}");
    }
}

#[test]
fn behind_a_port_that_is_taken_is_the_process_that_listens() {
    let silent = Inspected {
        listens: Vec::new(),
        ..process(Wait::Idle)
    };
    let mut snapshot = hung(silent);
    snapshot.processes.push(Inspected {
        process: identity(8),
        listens: vec![(address(9144), 1)],
        ..process(Wait::Idle)
    });
    snapshot.listeners = vec![listener("haproxy", 0, false)];
    let causes = values(&snapshot);
    let behind = causes.iter().find_map(|cause| match cause {
        Cause::PortTaken { server, .. } => Some(server),
        _ => None,
    });
    let expected = ServerProcess {
        pid: 8,
        listens: vec![address(9144)],
    };
    assert_eq!(behind, Some(&Some(expected)));
}
