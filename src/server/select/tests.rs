use std::net::IpAddr;

use proptest::prelude::*;

use super::Configured::{Different, NotNamed, Same, Unknown};
use super::*;

const PORT: u16 = 9143;
const SERVER: u32 = 1000;
const HOSTILE: u32 = 65534;

fn socket(port: u16, inode: u64) -> Listener {
    on([0, 0, 0, 0], port, inode)
}

fn on(address: [u8; 4], port: u16, inode: u64) -> Listener {
    Listener {
        address: SocketAddr::new(IpAddr::from(address), port),
        uid: SERVER,
        inode,
        cookie: Some(inode),
        is_v6_only: false,
    }
}

/// A match by its PID, its parent's and the sockets on which it listens; `None`: they cannot be read.
fn one(pid: i32, parent: i32, listens: Option<&[Listener]>) -> Candidate {
    Candidate {
        process: Process {
            pid,
            parent,
            start_time: 1,
            uid: SERVER,
            gid: SERVER,
            command: String::new(),
            argv: 0,
            is_manager: false,
        },
        listens: listens.map(<[_]>::to_vec),
        is_elsewhere: Some(false),
        configured: Unknown,
        is_beside: false,
        is_unreadable: false,
    }
}

fn of(uid: u32, mut one: Candidate) -> Candidate {
    one.process.uid = uid;
    one
}

fn configured(configured: Configured, one: Candidate) -> Candidate {
    Candidate { configured, ..one }
}

fn manager(mut one: Candidate) -> Candidate {
    one.process.is_manager = true;
    one
}

fn elsewhere(is_elsewhere: Option<bool>, one: Candidate) -> Candidate {
    Candidate {
        is_elsewhere,
        ..one
    }
}

fn asked() -> Asked {
    Asked::default()
}

fn recorded(pid: i32) -> Asked {
    Asked {
        recorded: Some((pid, 1)),
        uid: Some(SERVER),
        cookie: Some(1),
        ..asked()
    }
}

fn proven() -> Asked {
    Asked {
        proven: vec![0, SERVER],
        ..asked()
    }
}

fn named() -> Asked {
    Asked {
        is_named: true,
        ..proven()
    }
}

fn facts(listeners: Option<&[Listener]>, candidates: Vec<Candidate>) -> Facts {
    Facts {
        listeners: listeners.map(<[_]>::to_vec),
        candidates,
        holder: None,
        is_complete: true,
    }
}

fn chosen(facts: Facts, asked: &Asked) -> Vec<i32> {
    let selection = choose(facts, asked, PORT);
    selection.server.iter().map(|one| one.pid).collect()
}

#[test]
fn the_socket_decides() {
    let ours = [socket(PORT, 1)];
    let other = [socket(PORT + 1, 2)];
    let held = Some(&ours[..]);
    let table: Vec<(&str, Vec<Candidate>, Asked, &[i32])> = vec![
        ("it listens", vec![one(7, 1, held)], asked(), &[7]),
        (
            "another instance beside it",
            vec![one(7, 1, held), one(8, 1, Some(&other))],
            asked(),
            &[7],
        ),
        (
            "one that cannot be read beside it",
            vec![one(7, 1, held), one(8, 1, None)],
            asked(),
            &[7],
        ),
        (
            "a reloader and a worker",
            vec![one(6, 1, Some(&[])), one(7, 6, held), one(8, 7, Some(&[]))],
            asked(),
            &[6, 7, 8],
        ),
        (
            "a child of another user",
            vec![one(7, 1, held), of(HOSTILE, one(8, 7, Some(&[])))],
            asked(),
            &[7],
        ),
        (
            "an instance that it has started",
            vec![one(7, 1, held), one(8, 7, Some(&other))],
            asked(),
            &[7],
        ),
        (
            "an instance that it has started, and that the pattern matches",
            vec![one(7, 1, held), one(8, 7, Some(&other))],
            named(),
            &[7],
        ),
        (
            "manage.py in the foreground",
            vec![manager(one(6, 1, Some(&[]))), one(7, 6, held)],
            asked(),
            &[6, 7],
        ),
        (
            "a look-alike that does not listen",
            vec![one(7, 1, held), of(HOSTILE, one(8, 1, Some(&[])))],
            asked(),
            &[7],
        ),
        (
            "a holder without a proven user hangs",
            vec![of(HOSTILE, one(7, 1, held))],
            proven(),
            &[7],
        ),
        (
            "two processes with one socket",
            vec![one(7, 1, held), one(8, 1, held)],
            asked(),
            &[7, 8],
        ),
        (
            "unreadable, the only family of the socket's user",
            vec![one(7, 1, None), one(8, 7, None)],
            asked(),
            &[7, 8],
        ),
        (
            "unreadable, two families of the socket's user",
            vec![one(7, 1, None), one(8, 1, None)],
            asked(),
            &[],
        ),
        (
            "unreadable, of another user than the socket's",
            vec![of(HOSTILE, one(7, 1, None))],
            asked(),
            &[],
        ),
        (
            "seen not to hold it",
            vec![one(7, 1, Some(&other))],
            proven(),
            &[],
        ),
    ];
    for (what, candidates, asked, expected) in table {
        assert_eq!(chosen(facts(held, candidates), &asked), expected, "{what}");
    }
}

#[test]
fn several_holders_are_narrowed_or_left_alone() {
    let v4 = on([127, 0, 0, 1], PORT, 1);
    let v6 = on([127, 0, 0, 2], PORT, 2);
    let both = [v4.clone(), v6.clone()];
    let pair = |second: Candidate| vec![one(7, 1, Some(std::slice::from_ref(&v4))), second];
    let second = || one(8, 1, Some(std::slice::from_ref(&v6)));
    let table: Vec<(&str, Vec<Candidate>, Asked, &[i32])> = vec![
        ("nothing tells", pair(second()), asked(), &[]),
        (
            "by the recorded user",
            pair(of(HOSTILE, second())),
            Asked {
                uid: Some(SERVER),
                ..asked()
            },
            &[7],
        ),
        (
            "by a proven user",
            pair(of(HOSTILE, second())),
            proven(),
            &[7],
        ),
        (
            "by the script",
            pair(Candidate {
                is_beside: true,
                ..second()
            }),
            asked(),
            &[8],
        ),
        (
            "by the configuration",
            pair(configured(Same, second())),
            asked(),
            &[8],
        ),
        (
            "both have the configuration",
            vec![
                configured(Same, one(7, 1, Some(std::slice::from_ref(&v4)))),
                configured(Same, second()),
            ],
            asked(),
            &[],
        ),
        ("by the administrator", pair(second()), named(), &[7, 8]),
        (
            "two share a socket, and one of them has the script",
            vec![
                one(7, 1, Some(std::slice::from_ref(&v4))),
                Candidate {
                    is_beside: true,
                    ..one(8, 1, Some(std::slice::from_ref(&v4)))
                },
                one(9, 1, Some(std::slice::from_ref(&v6))),
            ],
            asked(),
            &[7, 8],
        ),
    ];
    for (what, candidates, asked, expected) in table {
        let selection = choose(facts(Some(&both), candidates), &asked, PORT);
        let pids: Vec<i32> = selection.server.iter().map(|one| one.pid).collect();
        assert_eq!(pids, expected, "{what}");
        assert_eq!(
            selection.port == PortHolder::Several,
            expected.is_empty(),
            "{what}"
        );
    }
}

#[test]
fn while_nobody_listens_only_what_is_known_counts() {
    let other = [socket(PORT + 1, 2)];
    let silent = Some(&[][..]);
    let alike = |one: Candidate| configured(Same, one);
    let with_user = Asked {
        user: Some(SERVER),
        ..proven()
    };
    let by_port = Asked {
        by_port_alone: true,
        ..named()
    };
    let table: Vec<(&str, Vec<Candidate>, Asked, &[i32])> = vec![
        ("a match", vec![one(7, 1, silent)], proven(), &[]),
        (
            "the recorded one",
            vec![one(7, 1, silent)],
            recorded(7),
            &[7],
        ),
        (
            "the recorded one, of which nothing can be read",
            vec![elsewhere(None, one(7, 1, None))],
            recorded(7),
            &[7],
        ),
        (
            "the recorded one and its worker",
            vec![one(7, 1, silent), one(8, 7, silent), one(9, 1, silent)],
            recorded(7),
            &[7, 8],
        ),
        (
            "another has its PID",
            vec![one(8, 1, silent)],
            recorded(7),
            &[],
        ),
        (
            "what the restart command started",
            vec![one(7, 1, silent)],
            Asked {
                started: vec![(7, 1)],
                ..asked()
            },
            &[7],
        ),
        (
            "user and configuration",
            vec![alike(one(7, 1, silent))],
            proven(),
            &[7],
        ),
        (
            "the configuration of an unproven user",
            vec![alike(of(HOSTILE, one(7, 1, silent)))],
            proven(),
            &[],
        ),
        (
            "the configuration, unreadable sockets",
            vec![alike(one(7, 1, None))],
            proven(),
            &[],
        ),
        (
            "the configuration, unreadable namespace",
            vec![elsewhere(None, alike(one(7, 1, silent)))],
            proven(),
            &[],
        ),
        (
            "the configuration on another port",
            vec![alike(one(7, 1, Some(&other)))],
            proven(),
            &[],
        ),
        (
            "manage.py with the configuration",
            vec![manager(alike(one(7, 1, silent)))],
            proven(),
            &[],
        ),
        (
            "another configuration",
            vec![configured(Different, one(7, 1, silent))],
            proven(),
            &[],
        ),
        (
            "no configuration",
            vec![configured(NotNamed, one(7, 1, silent))],
            proven(),
            &[],
        ),
        (
            "named by the administrator",
            vec![one(7, 1, silent)],
            named(),
            &[7],
        ),
        (
            "named, but only the port distinguishes it",
            vec![one(7, 1, silent)],
            by_port,
            &[],
        ),
        (
            "the administrator's user",
            vec![one(7, 1, silent)],
            with_user.clone(),
            &[7],
        ),
        (
            "the administrator's user on another port",
            vec![one(7, 1, Some(&other))],
            with_user.clone(),
            &[],
        ),
        (
            "not the administrator's user",
            vec![of(HOSTILE, one(7, 1, silent))],
            with_user,
            &[],
        ),
    ];
    for (what, candidates, asked, expected) in table {
        let selection = choose(facts(Some(&[]), candidates), &asked, PORT);
        let pids: Vec<i32> = selection.server.iter().map(|one| one.pid).collect();
        assert_eq!(pids, expected, "{what}");
        assert_eq!(selection.port, PortHolder::Nobody, "{what}");
    }
}

#[test]
fn hazard_24_nothing_is_started_beside_a_process_that_cannot_be_read() {
    let other = [socket(PORT + 1, 2)];
    let unreadable = |mut one: Candidate| {
        one.is_unreadable = true;
        one.process.start_time = 0;
        one
    };
    let silent = || unreadable(one(7, 1, Some(&[])));
    let hidden = || unreadable(elsewhere(None, one(7, 1, None)));
    let started = Asked {
        started: vec![(7, 1)],
        ..proven()
    };
    let table: Vec<(&str, Vec<Candidate>, Asked, bool)> = vec![
        ("the recorded one", vec![silent()], recorded(7), true),
        (
            "nothing of it can be read",
            vec![hidden()],
            recorded(7),
            true,
        ),
        (
            "another user has its PID",
            vec![of(HOSTILE, hidden())],
            recorded(7),
            false,
        ),
        ("another PID", vec![silent()], recorded(8), false),
        (
            "what the restart command started",
            vec![silent()],
            started.clone(),
            true,
        ),
        (
            "another user has that PID",
            vec![of(HOSTILE, silent())],
            started,
            false,
        ),
        ("named by the administrator", vec![silent()], named(), true),
        (
            "named, of another user",
            vec![of(HOSTILE, silent())],
            named(),
            false,
        ),
        (
            "user and configuration",
            vec![configured(Same, silent())],
            proven(),
            true,
        ),
        ("a match", vec![silent()], proven(), false),
        (
            "it listens elsewhere",
            vec![configured(Same, unreadable(one(7, 1, Some(&other))))],
            proven(),
            false,
        ),
    ];
    for (what, candidates, asked, is_in_doubt) in table {
        let process = candidates[0].process.clone();
        let selection = choose(facts(Some(&[]), candidates), &asked, PORT);
        assert_eq!(selection.server, [], "{what}");
        assert_eq!(
            selection.spared,
            [(process.clone(), Spared::StateUnreadable)],
            "{what}"
        );
        assert_eq!(selection.in_doubt, is_in_doubt.then_some(process), "{what}");
        let port = if is_in_doubt {
            PortHolder::Unknown
        } else {
            PortHolder::Nobody
        };
        assert_eq!(selection.port, port, "{what}");
    }
    // Another process of the server can be read: it is stopped.
    let family = vec![one(6, 1, Some(&[])), unreadable(one(7, 6, Some(&[])))];
    let selection = choose(facts(Some(&[]), family), &recorded(6), PORT);
    assert_eq!((selection.server.len(), selection.in_doubt), (1, None));
    // The recorded socket proves who has it, and no other does.
    let ours = [socket(PORT, 1)];
    let holding = || facts(Some(&ours), vec![unreadable(one(7, 1, Some(&ours)))]);
    assert_eq!(chosen(holding(), &recorded(7)), [7]);
    let reopened = Asked {
        cookie: Some(9),
        ..recorded(7)
    };
    for asked in [reopened, recorded(8), proven()] {
        let selection = choose(holding(), &asked, PORT);
        assert_eq!(selection.server, []);
        assert_eq!(selection.port, PortHolder::Server);
        assert!(selection.in_doubt.is_some());
    }
}

#[test]
fn the_record_counts_while_its_process_holds_the_socket() {
    let ours = [socket(PORT, 1)];
    let theirs = [socket(PORT, 9)];
    let held = Some(&ours[..]);
    assert_eq!(
        chosen(facts(held, vec![one(7, 1, held)]), &recorded(7)),
        [7]
    );
    // Its descriptors cannot be read, and the cookie of the socket is the recorded one.
    assert_eq!(
        chosen(facts(held, vec![one(7, 1, None)]), &recorded(7)),
        [7]
    );
    // Another process holds the socket by now.
    let candidates = vec![one(7, 1, Some(&[])), one(8, 1, Some(&theirs))];
    assert_eq!(chosen(facts(Some(&theirs), candidates), &recorded(7)), [8]);
    // Who listens cannot be read.
    assert_eq!(
        chosen(facts(None, vec![one(7, 1, None)]), &recorded(7)),
        [7]
    );
    assert!(chosen(facts(None, vec![one(7, 1, None)]), &proven()).is_empty());
    // Of several that listen, and of several that cannot be read, it is the recorded one.
    let both = [socket(PORT, 1), on([127, 0, 0, 2], PORT, 2)];
    let reopened = Asked {
        cookie: Some(9),
        ..recorded(7)
    };
    let candidates = vec![one(7, 1, Some(&both[..1])), one(8, 1, Some(&both[1..]))];
    assert_eq!(chosen(facts(Some(&both), candidates), &reopened), [7]);
    let candidates = vec![one(7, 1, None), one(8, 1, None)];
    assert_eq!(chosen(facts(held, candidates), &recorded(7)), [7]);
}

#[test]
fn a_port_that_somebody_else_holds_is_foreign() {
    let theirs = [Listener {
        uid: HOSTILE,
        ..socket(PORT, 9)
    }];
    let squatter = of(HOSTILE, one(9, 1, None)).process;
    let seen = |candidates| Facts {
        holder: Some(squatter.clone()),
        ..facts(Some(&theirs), candidates)
    };
    let selection = choose(seen(vec![one(7, 1, Some(&[]))]), &recorded(7), PORT);
    assert_eq!(selection.server, []);
    let stranger = Stranger {
        uid: HOSTILE,
        process: Some(squatter.clone()),
        address: theirs[0].address,
    };
    assert_eq!(selection.port, PortHolder::Other);
    assert_eq!(selection.stranger, Some(stranger));
    // The administrator's pattern counts behind a proxy, for a user who is known to run the server.
    assert_eq!(chosen(seen(vec![one(7, 1, Some(&[]))]), &named()), [7]);
    let hostile = vec![of(HOSTILE, one(7, 1, Some(&[])))];
    assert!(chosen(seen(hostile), &named()).is_empty());
}

#[test]
fn a_url_of_another_machine_stops_nothing_that_is_not_named() {
    let remote = |asked: Asked| Asked {
        is_remote: true,
        ..asked
    };
    let candidates = || vec![configured(Same, one(7, 1, Some(&[])))];
    assert!(chosen(facts(Some(&[]), candidates()), &remote(proven())).is_empty());
    // Another server of this machine that listens on all addresses has the port, not the URL's address.
    let every = [socket(PORT, 1)];
    let neighbour = || vec![configured(Same, one(7, 1, Some(&every)))];
    assert!(chosen(facts(Some(&every), neighbour()), &remote(proven())).is_empty());
    assert_eq!(
        chosen(facts(Some(&[]), candidates()), &remote(named())),
        [7]
    );
}

/// Any candidate: one of a few users, in any family, with any sockets, readable or not.
fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
    let listens = prop_oneof![
        Just(None),
        Just(Some(Vec::new())),
        Just(Some(vec![socket(PORT, 1)])),
        Just(Some(vec![socket(PORT, 2)])),
        Just(Some(vec![socket(PORT + 1, 3)])),
    ];
    let configured = prop_oneof![Just(Unknown), Just(Same), Just(Different), Just(NotNamed)];
    let user = prop_oneof![Just(0_u32), Just(SERVER), Just(HOSTILE)];
    let place = proptest::option::of(any::<bool>());
    let any = (
        user,
        1..12_i32,
        listens,
        configured,
        place,
        any::<(bool, bool, bool)>(),
    );
    proptest::collection::vec(any, 0..8).prop_map(|all| {
        let mut candidates = Vec::new();
        for (pid, (uid, parent, listens, configured, is_elsewhere, flags)) in (2..).zip(all) {
            let mut one = of(uid, one(pid, parent, None));
            one.listens = listens;
            one.process.is_manager = flags.0;
            candidates.push(Candidate {
                configured,
                is_elsewhere,
                is_beside: flags.1,
                is_unreadable: flags.2,
                ..one
            });
        }
        candidates
    })
}

/// Whether both are below one candidate, by candidates of one user alone.
fn is_related(candidates: &[Candidate], one: i32, other: i32) -> bool {
    let process = |pid: i32| {
        let its = candidates.iter().find(|one| one.process.pid == pid);
        its.map(|one| &one.process)
    };
    let chain = |pid: i32| {
        let mut chain = vec![pid];
        let mut here = process(pid);
        while let Some(child) = here {
            here = process(child.parent)
                .filter(|parent| parent.uid == child.uid && !chain.contains(&parent.pid));
            chain.extend(here.map(|parent| parent.pid));
        }
        chain
    };
    let (one, other) = (chain(one), chain(other));
    one.iter().any(|pid| other.contains(pid))
}

/// Sockets of the server's address, of any users.
fn listeners() -> impl Strategy<Value = Vec<Listener>> {
    let users = prop_oneof![Just(0_u32), Just(SERVER), Just(HOSTILE)];
    let of = |user: u32, one: Listener| Listener { uid: user, ..one };
    (users.clone(), users, 0..4_u8).prop_map(move |(one, other, which)| {
        let both = [of(one, socket(PORT, 1)), of(other, socket(PORT, 2))];
        let chosen = both.into_iter().zip([1, 2]);
        let chosen = chosen.filter(|(_, bit)| which & bit > 0);
        chosen.map(|(socket, _)| socket).collect()
    })
}

proptest! {
    #[test]
    fn only_what_is_known_or_holds_the_socket_or_is_kin_of_a_holder_is_chosen(
        candidates in candidates(),
        listeners in proptest::option::of(listeners()),
        holder in proptest::option::of(Just(of(HOSTILE, one(99, 1, None)).process)),
        record in proptest::option::of(2..8_i32),
        started in proptest::option::of(2..8_i32),
        [is_refused, is_remote, is_complete, by_port_alone] in any::<[bool; 4]>(),
        holders in proptest::option::of(proptest::sample::subsequence(vec![0, SERVER, HOSTILE], 0..3)),
    ) {
        let asked = Asked {
            is_refused,
            is_remote,
            holders: holders.clone(),
            by_port_alone,
            started: started.map(|pid| (pid, 1)).into_iter().collect(),
            recorded: record.map(|pid| (pid, 1)),
            uid: record.map(|_| SERVER),
            cookie: record.map(|_| 1),
            ..proven()
        };
        let facts = Facts { listeners: listeners.clone(), candidates: candidates.clone(), holder, is_complete };
        let selection = choose(facts, &asked, PORT);
        let is_silent = listeners.as_ref().map_or(is_refused, Vec::is_empty);
        let sockets = listeners.unwrap_or_default();
        let is_justified = |one: &Candidate| {
            let uid = one.process.uid;
            let is_recorded = record == Some(one.process.pid);
            let is_started = started == Some(one.process.pid) && is_silent;
            let is_accepted = holders.as_ref().is_none_or(|holders| holders.contains(&uid));
            let holds = one.holds(&sockets) && is_accepted;
            let is_hidden = one.listens.is_none()
                && one.is_elsewhere != Some(true)
                && is_complete
                && is_accepted
                && sockets.iter().any(|socket| socket.uid == uid);
            let is_proven = is_silent && one.configured == Same && asked.proven.contains(&uid);
            is_recorded || is_started || holds || is_hidden || is_proven
        };
        for chosen in &selection.server {
            let is_it = |one: &Candidate| {
                one.process == *chosen && (!one.is_unreadable || record == Some(chosen.pid))
            };
            prop_assert!(candidates.iter().any(is_it));
            let mut kin = candidates.iter().filter(|other| {
                other.process.uid == chosen.uid && is_related(&candidates, other.process.pid, chosen.pid)
            });
            prop_assert!(kin.any(is_justified), "{chosen:?}");
        }
        // Each process is either chosen or left alone for a reason.
        prop_assert_eq!(selection.server.len() + selection.spared.len(), candidates.len());
    }
}

#[test]
fn the_reason_names_what_cannot_be_read() {
    let reason = |facts: Facts| {
        let selection = choose(
            facts,
            &Asked {
                proven: vec![SERVER],
                ..Asked::default()
            },
            PORT,
        );
        assert!(selection.server.is_empty());
        selection.spared[0].1
    };
    let hidden = one(7, 1, None);
    let listeners = reason(facts(None, vec![one(7, 1, Some(&[]))]));
    assert_eq!(listeners, Spared::PortUnreadable(PORT));
    let sockets = reason(facts(Some(&[]), vec![hidden]));
    assert_eq!(sockets, Spared::SocketsUnreadable(PORT));
    let namespace = Candidate {
        is_elsewhere: None,
        ..one(7, 1, Some(&[]))
    };
    let namespace = reason(facts(Some(&[]), vec![namespace]));
    assert_eq!(namespace, Spared::NetworkUnreadable(PORT));
}

#[test]
fn each_reason_is_a_sentence_that_names_its_port() {
    for (reason, has_port) in [
        (Spared::NotTheHolder(PORT), true),
        (Spared::Ambiguous(PORT), true),
        (Spared::NotKnown(PORT), true),
        (Spared::ListensElsewhere(PORT), true),
        (Spared::ByPortAlone(PORT), true),
        (Spared::OtherNetwork, false),
        (Spared::OtherConfiguration, false),
        (Spared::Manager, false),
        (Spared::PortUnreadable(PORT), true),
        (Spared::SocketsUnreadable(PORT), true),
        (Spared::NetworkUnreadable(PORT), true),
        (Spared::UnprovenUser(PORT), true),
        (Spared::StateUnreadable, false),
        (Spared::Remote, false),
    ] {
        let text = reason.to_string();
        assert!(text.contains(' '), "{reason:?}");
        assert_eq!(text.contains(&PORT.to_string()), has_port, "{text}");
    }
}

#[test]
fn a_refused_check_shows_that_nobody_listens() {
    let refused = Asked {
        is_refused: true,
        ..named()
    };
    let selection = choose(facts(None, vec![one(7, 1, Some(&[]))]), &refused, PORT);
    assert_eq!(selection.server.len(), 1);
    assert_eq!(selection.port, PortHolder::Nobody);
    let selection = choose(facts(None, vec![one(7, 1, Some(&[]))]), &named(), PORT);
    assert_eq!(selection.server, []);
    assert_eq!(selection.port, PortHolder::Unknown);
}

#[test]
fn only_a_trusted_user_can_hold_an_address_that_its_owner_chose() {
    let ours = [socket(PORT, 1)];
    let trusting = Asked {
        holders: Some(vec![SERVER]),
        ..proven()
    };
    let intruder = of(HOSTILE, one(9, 1, Some(&ours)));
    let candidates = vec![one(7, 1, None), intruder.clone()];
    let selection = choose(facts(Some(&ours), candidates), &trusting, PORT);
    assert_eq!(selection.server, []);
    assert_eq!(selection.port, PortHolder::Other);
    let holder = selection.stranger.and_then(|stranger| stranger.process);
    assert_eq!(holder, Some(intruder.process));
    // Root's server is not that of a user who writes its address into his configuration.
    let roots = of(0, one(9, 1, Some(&ours)));
    let selection = choose(facts(Some(&ours), vec![roots]), &trusting, PORT);
    assert_eq!(
        (selection.server, selection.port),
        (vec![], PortHolder::Other)
    );
    // One who does not hold it changes nothing.
    let candidates = vec![of(HOSTILE, one(6, 1, Some(&[]))), one(7, 1, None)];
    assert_eq!(chosen(facts(Some(&ours), candidates), &trusting), [7]);
}

#[test]
fn the_reason_tells_holders_from_others() {
    let both = [socket(PORT, 1), on([127, 0, 0, 2], PORT, 2)];
    let reasons = |listeners: &[Listener], candidates, asked: &Asked| -> Vec<Spared> {
        let selection = choose(facts(Some(listeners), candidates), asked, PORT);
        assert_eq!(selection.server, []);
        selection.spared.iter().map(|(_, reason)| *reason).collect()
    };
    let (several, other) = (Spared::Ambiguous(PORT), Spared::NotTheHolder(PORT));
    let holding = vec![
        one(7, 1, Some(&both[..1])),
        one(8, 1, Some(&both[1..])),
        one(9, 1, Some(&[])),
    ];
    assert_eq!(reasons(&both, holding, &asked()), [several, several, other]);
    let hidden = vec![one(7, 1, None), one(8, 1, None)];
    assert_eq!(reasons(&both[..1], hidden, &asked()), [several, several]);
    // The sockets of a user who is not known to run the server were not examined.
    let stranger = vec![of(HOSTILE, one(7, 1, None)), one(8, 1, Some(&[]))];
    let unknown = Spared::NotKnown(PORT);
    assert_eq!(reasons(&[], stranger, &proven()), [unknown, unknown]);
}

/// What it is, who listens, what matches, what is known, the server's socket.
type SocketRow<'a> = (
    &'a str,
    &'a [Listener],
    Candidate,
    Asked,
    Option<&'a Listener>,
);

#[test]
fn the_socket_is_the_servers() {
    let both = [socket(PORT, 1), on([127, 0, 0, 2], PORT, 2)];
    let other = socket(PORT + 1, 3);
    let second = [other.clone(), both[1].clone()];
    let by_cookie = Asked {
        cookie: Some(2),
        ..recorded(7)
    };
    let table: [SocketRow<'_>; 6] = [
        (
            "it holds the second, and another port's",
            &both,
            one(7, 1, Some(&second)),
            asked(),
            Some(&both[1]),
        ),
        (
            "unreadable, the cookie is the second's",
            &both,
            one(7, 1, None),
            by_cookie.clone(),
            Some(&both[1]),
        ),
        (
            "unreadable, the only one",
            &both[..1],
            one(7, 1, None),
            asked(),
            Some(&both[0]),
        ),
        (
            "unreadable, one of two",
            &both,
            one(7, 1, None),
            asked(),
            None,
        ),
        (
            "nobody listens",
            &[],
            one(7, 1, Some(&[])),
            recorded(7),
            None,
        ),
        (
            "unreadable, the only one, another's cookie",
            &both[..1],
            one(7, 1, None),
            by_cookie,
            Some(&both[0]),
        ),
    ];
    for (what, listeners, candidate, asked, expected) in table {
        let selection = choose(facts(Some(listeners), vec![candidate]), &asked, PORT);
        assert_eq!(selection.server.len(), 1, "{what}");
        assert_eq!(selection.socket.as_ref(), expected, "{what}");
        let address = expected.map(|socket| socket.address);
        assert_eq!(selection.address, address, "{what}");
        let port = if listeners.is_empty() {
            PortHolder::Nobody
        } else {
            PortHolder::Server
        };
        assert_eq!(selection.port, port, "{what}");
    }
}

#[test]
fn behind_a_proxy_the_socket_is_where_the_server_listens() {
    let proxy = Listener {
        uid: HOSTILE,
        ..on([127, 0, 0, 2], PORT, 9)
    };
    let listeners = [socket(PORT, 8), proxy.clone()];
    let other = [socket(PORT + 1, 3)];
    let holder = of(HOSTILE, one(9, 1, None)).process;
    let behind = |listens| {
        let facts = Facts {
            holder: Some(holder.clone()),
            ..facts(Some(&listeners), vec![one(7, 1, Some(listens))])
        };
        choose(facts, &named(), PORT)
    };
    let selection = behind(&other);
    assert_eq!(selection.server.len(), 1);
    assert_eq!(selection.socket.as_ref(), Some(&other[0]));
    // Of two sockets, the one of the process that was seen.
    let stranger = Stranger {
        uid: HOSTILE,
        process: Some(holder.clone()),
        address: proxy.address,
    };
    assert_eq!(selection.stranger, Some(stranger));
    // What a server that is reached through another machine holds there comes before its other sockets.
    let remote = Asked {
        is_remote: true,
        ..named()
    };
    let both = [other[0].clone(), listeners[0].clone()];
    let facts_of_both = facts(Some(&listeners[..1]), vec![one(7, 1, Some(&both))]);
    let selection = choose(facts_of_both, &remote, PORT);
    assert_eq!(selection.socket.as_ref(), Some(&listeners[0]));
    // The proxy's socket is not the server's.
    let proxied = Facts {
        holder: Some(holder.clone()),
        ..facts(Some(&listeners[1..]), vec![one(7, 1, Some(&[]))])
    };
    let selection = choose(proxied, &named(), PORT);
    assert_eq!(selection.server.len(), 1);
    assert_eq!(selection.socket, None);
}
