use std::collections::BTreeSet;

use regex_lite::Regex;

use super::*;

fn mentioned(command: &str) -> Mentioned {
    Mentioned {
        pid: 42,
        command: command.to_owned(),
        state: 'S',
        age: Duration::from_secs(90),
        start_time: 500,
        is_hidden: false,
    }
}

fn address() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 7], 51234))
}

fn client() -> Client {
    Client {
        address: address(),
        process: Some(mentioned("nc vm 9143")),
    }
}

fn file() -> File {
    File {
        operation: "opening".to_owned(),
        path: "/home/x".to_owned(),
        mount: Some("nfs4 vm:/export on /home".to_owned()),
    }
}

fn waiting(awaited: Awaited) -> Cause {
    let waiter = Waiter::Main {
        pid: 7,
        is_in_state_d: false,
    };
    Cause::Waiting { awaited, waiter }
}

fn idle_tls(is_handshake: bool) -> Cause {
    waiting(Awaited::IdleTlsClient {
        client: client(),
        silence: None,
        is_handshake,
    })
}

fn awaited_peer(is_connecting: bool) -> Cause {
    waiting(Awaited::Peer {
        address: address(),
        process: None,
        is_connecting,
    })
}

fn killed(is_known: bool) -> Cause {
    Cause::OomKilled {
        pid: is_known.then_some(812),
        name: "python3".to_owned(),
        ago: Duration::from_secs(40),
        is_known,
    }
}

fn proxy(proxy: Option<Mentioned>) -> Cause {
    Cause::Proxy {
        proxy,
        status: 502,
        behind: Behind::Elsewhere,
    }
}

fn queue(full: Option<u32>) -> Cause {
    Cause::AcceptQueue {
        address: address(),
        waiting: 6,
        clients: 2,
        full,
    }
}

/// A cause for each term of the manual.
fn examples() -> Vec<Cause> {
    let text = || "reason".to_owned();
    vec![
        Cause::NotRunning {
            since_healthy: Some(Duration::from_secs(180)),
        },
        killed(true),
        killed(false),
        Cause::OomKilledInGroup("/system.slice/cron.service".to_owned()),
        waiting(Awaited::IdleClient {
            client: client(),
            silence: None,
        }),
        idle_tls(true),
        idle_tls(false),
        waiting(Awaited::SlowReader {
            client: client(),
            queued: 9,
        }),
        waiting(Awaited::Child {
            chain: vec![
                mentioned("/bin/sh -c bjobs"),
                mentioned("/opt/lsf/bjobs -u all"),
            ],
            last: None,
        }),
        waiting(Awaited::AnyChild(vec![
            mentioned("bjobs"),
            mentioned("helper"),
        ])),
        awaited_peer(false),
        awaited_peer(true),
        waiting(Awaited::File(file())),
        Cause::Uninterruptible {
            pid: 7,
            tid: None,
            place: Some(KernelPlace::File(file())),
        },
        Cause::Uninterruptible {
            pid: 7,
            tid: Some(8),
            place: Some(KernelPlace::Channel("nfs_wait".to_owned())),
        },
        Cause::Stopped { pid: 7 },
        Cause::Traced {
            pid: 7,
            tracer: Some(mentioned("strace -p 7")),
        },
        Cause::Traced {
            pid: 7,
            tracer: None,
        },
        Cause::Spinning {
            pid: 7,
            tid: 8,
            name: "python3".to_owned(),
            percent: 99,
            is_starved: false,
        },
        Cause::Deadlock {
            pid: 7,
            threads: 2,
            some_sleep: false,
        },
        Cause::Deadlock {
            pid: 7,
            threads: 2,
            some_sleep: true,
        },
        Cause::Unremarkable { pid: 7 },
        Cause::Descriptors {
            pid: 7,
            open: 64,
            most: 64,
        },
        Cause::Descriptors {
            pid: 7,
            open: 63,
            most: 64,
        },
        Cause::Leak {
            pid: 7,
            connections: 40,
        },
        Cause::Threads {
            pid: 7,
            limited: Limited::User,
            used: 30,
            most: 30,
        },
        Cause::MachineThreads {
            used: 100,
            most: 100,
        },
        Cause::CannotFork(text()),
        Cause::GroupMemory {
            pid: 7,
            used: 1,
            most: 1,
        },
        Cause::MachineMemory {
            available: 1,
            total: 2,
            pressure: None,
        },
        Cause::Swapped { pid: 7, bytes: 1 },
        queue(Some(5)),
        queue(None),
        Cause::PortTaken {
            address: address(),
            holder: mentioned("nginx"),
            server: None,
        },
        Cause::OtherAddress(address()),
        Cause::NotListening { port: 9143 },
        Cause::OtherPort {
            port: 9143,
            address: address(),
            process: mentioned("python3 main.py"),
        },
        Cause::Elsewhere(Vec::new()),
        Cause::Dns {
            reason: text(),
            server: None,
        },
        proxy(None),
        proxy(Some(mentioned("nginx"))),
        Cause::HttpStatus(503),
        Cause::Certificate(text()),
        Cause::NotMyvnc(text()),
        Cause::DiskFull {
            directory: "/var/log".into(),
            inodes: false,
        },
        Cause::DiskFull {
            directory: "/var/log".into(),
            inodes: true,
        },
        Cause::Overload {
            load: 99.0,
            cpus: 2,
            pressure: None,
        },
        Cause::DiskPressure(80.0),
        Cause::Scheme {
            url: "https://vm".to_owned(),
            speaks_tls: true,
        },
        Cause::Scheme {
            url: "http://vm".to_owned(),
            speaks_tls: false,
        },
        Cause::RedirectLoop,
        Cause::LocalFailure {
            reason: text(),
            server: None,
        },
        Cause::HiddenWait {
            pid: 7,
            sight: Sight::Own,
        },
        Cause::HiddenHolder {
            address: address(),
            sight: Sight::WithoutCapability,
        },
        Cause::Blocked {
            pid: 7,
            what: "poll".to_owned(),
            channel: None,
        },
        Cause::Sleeping { pid: 7 },
        Cause::Lock { pid: 7 },
        Cause::State {
            pid: 7,
            state: 'S',
            channel: None,
        },
        Cause::TimedOut("the kernel's log".to_owned()),
        Cause::ProcTimedOut(Duration::from_millis(500)),
    ]
}

/// Whether a sentence begins as a term of the manual does.
fn is_sentence_of(term: &str, sentence: &str) -> bool {
    let placeholders = [
        "N",
        "T",
        "P",
        "S",
        "ADDRESS",
        "FILE",
        "DIRECTORY",
        "COMMAND",
        "PROCESS",
        "URL",
    ];
    let words = term.split(' ').map(|word| {
        let core = word.trim_matches(|c: char| !c.is_alphanumeric());
        if placeholders.contains(&core) {
            regex_lite::escape(word).replace(core, ".+?")
        } else {
            regex_lite::escape(word)
        }
    });
    let pattern = format!("^{}", words.collect::<Vec<_>>().join(" "));
    Regex::new(&pattern).is_ok_and(|pattern| pattern.is_match(sentence))
}

/// Whether the manual has a term for a cause.
pub(in super::super) fn is_in_the_manual(cause: &Cause) -> bool {
    let sentence = cause.to_string();
    let terms = cause.kind().entry().terms.iter();
    terms.copied().any(|term| is_sentence_of(term, &sentence))
}

#[test]
fn the_slugs_are_those_of_the_interface() {
    let slugs = "not_running oom idle_client idle_tls_client slow_reader child peer file \
                 uninterruptible stopped traced spinning deadlock unremarkable descriptors threads \
                 memory swapped accept_queue port_taken misplaced elsewhere dns proxy http_status \
                 certificate not_myvnc disk_full overload scheme local_failure redirect_loop unknown";
    let kinds: Vec<&str> = Kind::ALL.iter().map(|kind| kind.slug()).collect();
    assert_eq!(kinds.join(" "), slugs);
}

#[test]
fn each_kind_has_examples_and_each_sentence_a_term() {
    let examples = examples();
    let slugs: BTreeSet<&str> = examples.iter().map(|cause| cause.kind().slug()).collect();
    let all: BTreeSet<&str> = Kind::ALL.iter().map(|kind| kind.slug()).collect();
    assert_eq!(slugs, all);
    for cause in &examples {
        assert!(is_in_the_manual(cause), "{cause}");
        assert!(!cause.kind().entry().advice.is_empty());
    }
    for kind in Kind::ALL {
        for term in kind.entry().terms {
            let mut of_kind = examples.iter().filter(|cause| cause.kind() == *kind);
            assert!(
                of_kind.any(|cause| is_sentence_of(term, &cause.to_string())),
                "no example of {term}"
            );
        }
    }
}

#[test]
fn the_manual_has_the_terms_of_all_kinds_and_no_other() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/man/monitor_myvnc.1");
    let page = std::fs::read_to_string(page).unwrap_or_default();
    let page = page.replace("\\-", "-").replace("\\*(Aq", "'");
    let (_, section) = page.split_once(".SH CAUSES\n").unwrap_or_default();
    let (section, _) = section.split_once(".SH ").unwrap_or_default();
    let lines: Vec<&str> = section.lines().collect();
    let pairs = lines.windows(2);
    let terms = pairs
        .filter(|pair| matches!(pair[0], ".TP" | ".TQ"))
        .map(|pair| pair[1])
        // The list of the places of a log is numbered.
        .filter(|term| !term.starts_with(|c: char| c.is_ascii_digit()));
    let expected = Kind::ALL.iter().flat_map(|kind| kind.entry().terms);
    assert!(terms.eq(expected.copied()), "{section}");
}

#[test]
fn culprits_have_a_kind_and_a_name() {
    let culprits = examples().into_iter().filter_map(|cause| {
        let Culprit { kind, name } = cause.culprit()?;
        Some(format!("{} {kind:?} {name}", cause.kind().slug()))
    });
    let expected = [
        "idle_client Client 10.0.0.7:51234",
        "idle_tls_client Client 10.0.0.7:51234",
        "idle_tls_client Client 10.0.0.7:51234",
        "slow_reader Client 10.0.0.7:51234",
        "child Child bjobs",
        "peer Peer 10.0.0.7:51234",
        "peer Peer 10.0.0.7:51234",
        "file File /home/x",
        "uninterruptible File /home/x",
        "traced Process strace",
        "port_taken Process nginx",
        "misplaced Process main.py",
        "proxy Proxy nginx",
        "disk_full File /var/log",
        "disk_full File /var/log",
    ];
    assert_eq!(culprits.collect::<Vec<_>>(), expected);
}

#[test]
fn the_most_specific_causes_come_first() {
    let mut causes = examples();
    causes.reverse();
    causes.sort_by_key(Cause::rank);
    let mut slugs: Vec<&str> = causes.iter().map(|cause| cause.kind().slug()).collect();
    slugs.dedup();
    let expected = "local_failure redirect_loop scheme not_myvnc certificate http_status dns elsewhere traced \
                    stopped uninterruptible file peer child slow_reader idle_tls_client idle_client \
                    threads descriptors spinning deadlock proxy unknown misplaced port_taken oom \
                    not_running accept_queue descriptors swapped memory disk_full unknown overload \
                    memory threads unknown unremarkable threads";
    assert_eq!(slugs.join(" "), expected);
}

#[test]
fn a_restart_cannot_help_before_a_status_a_disk_or_whom_the_cause_names_changes() {
    let subjects = examples().into_iter().filter_map(|cause| {
        let subject = cause.subject();
        (!subject.is_empty()).then(|| format!("{} {subject}", cause.kind().slug()))
    });
    let expected = [
        "idle_client 10.0.0.7:51234",
        "idle_tls_client 10.0.0.7:51234",
        "idle_tls_client 10.0.0.7:51234",
        "slow_reader 10.0.0.7:51234",
        "child bjobs",
        "peer 10.0.0.7:51234",
        "peer 10.0.0.7:51234",
        "file /home/x",
        "uninterruptible /home/x",
        "traced strace",
        "port_taken nginx",
        "misplaced main.py",
        "proxy 502",
        "proxy 502",
        "http_status 503",
        "disk_full /var/log",
        "disk_full /var/log",
    ];
    assert_eq!(subjects.collect::<Vec<_>>(), expected);
}

#[test]
fn no_signal_reaches_a_process_in_state_d_or_that_waits_for_a_network_file_system() {
    let mut causes = examples();
    let local = File {
        mount: None,
        ..file()
    };
    causes.push(waiting(Awaited::File(local)));
    causes.retain(Cause::is_stuck);
    let stuck: Vec<&str> = causes.iter().map(|cause| cause.kind().slug()).collect();
    assert_eq!(stuck, ["file", "uninterruptible", "uninterruptible"]);
}

#[test]
fn one_client_blocks_the_server_in_three_kinds() {
    let mut kinds = Kind::ALL.to_vec();
    kinds.retain(|kind| kind.is_by_client());
    let slugs: Vec<&str> = kinds.iter().map(|kind| kind.slug()).collect();
    assert_eq!(slugs, ["idle_client", "idle_tls_client", "slow_reader"]);
}
