use nix::unistd::Uid;

use super::Configured::{Alike, Apart, Otherwise, Unknown};
use super::*;

const LOOPBACK: [u8; 4] = [127, 0, 0, 1];

/// A URL of port 9143 on this host, which something listens on, or nothing.
fn asked(is_taken: bool) -> Asked {
    let taken = is_taken.then(|| SocketAddr::from((LOOPBACK, 9143)));
    Asked {
        port: 9143,
        addresses: vec![LOOPBACK.into()],
        taken: taken.into_iter().collect(),
        is_named: false,
        by_port_alone: false,
    }
}

fn free() -> Asked {
    asked(false)
}

fn taken() -> Asked {
    asked(true)
}

/// A match, by its PID, its parent's and where it listens; `None`: we may not see that.
fn at(pid: i32, parent: i32, listens: Option<&[SocketAddr]>) -> Candidate {
    Candidate {
        process: Process {
            pid,
            parent,
            start_time: 0,
            owner: Uid::from_raw(1000),
            command: String::new(),
            is_manager: false,
        },
        listens: listens.map(|listens| listens.iter().copied().collect()),
        is_elsewhere: false,
        configured: Unknown,
    }
}

/// The same by its ports on all addresses.
fn one(pid: i32, parent: i32, ports: Option<&[u16]>) -> Candidate {
    let any = |port: &u16| SocketAddr::from(([0; 4], *port));
    let listens = ports.map(|ports| ports.iter().map(any).collect::<Vec<_>>());
    at(pid, parent, listens.as_deref())
}

fn manager(candidate: Candidate) -> Candidate {
    Candidate {
        process: Process {
            is_manager: true,
            ..candidate.process
        },
        ..candidate
    }
}

#[test]
fn every_doubt_spares() {
    let named = |asked: Asked| Asked {
        is_named: true,
        ..asked
    };
    let by_port = |asked: Asked| Asked {
        by_port_alone: true,
        ..asked
    };
    let none = || Some(&[][..]);
    let (ours, other) = (|| Some(&[9143][..]), || Some(&[9144][..]));
    let table = vec![
        ("it listens", vec![one(7, 1, ours())], taken(), &[7][..]),
        (
            "another instance beside it",
            vec![one(7, 1, ours()), one(8, 1, other())],
            taken(),
            &[7],
        ),
        (
            "one that cannot be seen beside it",
            vec![one(7, 1, ours()), one(8, 1, None)],
            taken(),
            &[7],
        ),
        (
            "a reloader and a worker",
            vec![one(6, 1, none()), one(7, 6, ours()), one(8, 7, none())],
            taken(),
            &[6, 7, 8],
        ),
        (
            "manage.py in the foreground",
            vec![manager(one(6, 1, none())), one(7, 6, ours())],
            taken(),
            &[6, 7],
        ),
        (
            "an instance that it has started",
            vec![one(7, 1, ours()), one(8, 7, other())],
            taken(),
            &[7],
        ),
        (
            "another one on the same port of another address",
            vec![
                at(7, 1, Some(&[(LOOPBACK, 9143).into()])),
                at(8, 1, Some(&[([127, 0, 0, 2], 9143).into()])),
            ],
            taken(),
            &[7],
        ),
        (
            "it hangs before it listens",
            vec![one(7, 1, none())],
            free(),
            &[7],
        ),
        (
            "manage.py that starts another behind a proxy",
            vec![manager(one(7, 1, none()))],
            taken(),
            &[],
        ),
        (
            "manage.py that starts another",
            vec![manager(one(7, 1, none()))],
            free(),
            &[],
        ),
        (
            "it is dead, another lives",
            vec![one(8, 1, other())],
            free(),
            &[],
        ),
        (
            "it is dead, another lives on another address",
            vec![at(8, 1, Some(&[([127, 0, 0, 2], 9143).into()]))],
            free(),
            &[],
        ),
        (
            "it is dead, another with a reloader lives",
            vec![one(6, 1, none()), one(8, 6, other())],
            free(),
            &[],
        ),
        (
            "it is dead, another cannot be seen",
            vec![one(8, 1, None)],
            free(),
            &[],
        ),
        (
            "one behind a proxy",
            vec![one(8, 1, other())],
            taken(),
            &[8],
        ),
        (
            "two behind a proxy",
            vec![one(8, 1, other()), one(9, 1, Some(&[9145]))],
            taken(),
            &[],
        ),
        ("one that may listen", vec![one(8, 1, None)], taken(), &[8]),
        (
            "one that may listen, one elsewhere",
            vec![one(8, 1, None), one(9, 1, other())],
            taken(),
            &[8],
        ),
        (
            "two that may listen",
            vec![one(8, 1, None), one(9, 1, None)],
            taken(),
            &[],
        ),
        (
            "a family that may listen",
            vec![one(8, 1, None), one(9, 8, None)],
            taken(),
            &[8, 9],
        ),
        (
            "named",
            vec![one(8, 1, None), one(9, 1, other())],
            named(free()),
            &[8, 9],
        ),
        (
            "named, and one is on the port",
            vec![one(8, 1, ours()), one(9, 1, other())],
            named(taken()),
            &[8],
        ),
        (
            "told apart by the port",
            vec![one(8, 1, none())],
            by_port(free()),
            &[],
        ),
        (
            "told apart by the port, on it",
            vec![one(8, 1, ours())],
            by_port(taken()),
            &[8],
        ),
        (
            "a circle of parents",
            vec![one(8, 9, none()), one(9, 8, none())],
            free(),
            &[8, 9],
        ),
        ("nothing", vec![], free(), &[]),
    ];
    for (what, candidates, asked, expected) in table {
        let count = candidates.len();
        let found = choose(candidates, &asked);
        let server: Vec<i32> = found.server.iter().map(|process| process.pid).collect();
        assert_eq!(server, expected, "{what}");
        assert_eq!(found.spared.len(), count - expected.len(), "{what}");
    }
}

#[test]
fn what_lives_in_another_network_namespace_is_another_server() {
    for asked in [free(), taken()] {
        let other = Candidate {
            is_elsewhere: true,
            ..one(8, 1, Some(&[]))
        };
        let found = choose(vec![other, one(7, 1, Some(&[]))], &asked);
        assert_eq!(found.server[0].pid, 7);
        assert_eq!(found.spared[0].0.pid, 8);
    }
}

#[test]
fn what_was_started_with_another_configuration_is_another_server() {
    let with = |pid, configured| Candidate {
        configured,
        ..one(pid, 1, Some(&[]))
    };
    for (asked, others) in [(free(), vec![Apart]), (taken(), vec![Apart, Otherwise])] {
        for other in others {
            let found = choose(vec![with(7, Alike), with(8, other)], &asked);
            assert_eq!((found.server.len(), found.server[0].pid), (1, 7));
            assert_eq!(choose(vec![with(8, other)], &asked).spared.len(), 1);
        }
        assert_eq!(choose(vec![with(8, Unknown)], &asked).server.len(), 1);
    }
    assert_eq!(choose(vec![with(8, Otherwise)], &free()).server.len(), 1);
    // Both where a name leads: `localhost` has two addresses.
    let both = Asked {
        addresses: vec![LOOPBACK.into(), std::net::Ipv6Addr::LOCALHOST.into()],
        ..taken()
    };
    let on = |pid, address: SocketAddr, configured| Candidate {
        configured,
        ..at(pid, 1, Some(&[address]))
    };
    let (v4, v6) = (
        SocketAddr::from((LOOPBACK, 9143)),
        SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, 9143)),
    );
    let found = choose(vec![on(7, v4, Alike), on(8, v6, Apart)], &both);
    assert_eq!((found.server.len(), found.listening), (1, vec![7]));
    let found = choose(vec![on(7, v4, Unknown), on(8, v6, Unknown)], &both);
    assert_eq!((found.server.len(), found.spared.len()), (0, 2));
    let one_socket = vec![on(7, v4, Unknown), on(8, v4, Unknown)];
    assert_eq!(choose(one_socket, &both).server.len(), 2);
    for (command, expected) in [
        (
            "/opt/manage.py --config_dir=/etc/one start",
            Some("/etc/one"),
        ),
        (
            "/opt/manage.py --config_dir /etc/one/ start",
            Some("/etc/one"),
        ),
        (
            "'/opt/manage.py' '--config_dir=/etc/my one' start",
            Some("/etc/my one"),
        ),
        (
            "env MYVNC_CONFIG_DIR=/etc/one setsid -f python3 /opt/main.py",
            Some("/etc/one"),
        ),
        (
            "OTHER=/x MYVNC_CONFIG_DIR=/etc/one /opt/main.py",
            Some("/etc/one"),
        ),
        ("/opt/manage.py --config_dir=conf start", None),
        ("/opt/manage.py --config_dir=$HOME/x start", None),
        ("/opt/manage.py --config_dirs=/x start", None),
        ("export MYVNC_CONFIG_DIR=/etc/one; manage.py start", None),
        ("systemctl restart myvnc", None),
        ("it's", None),
    ] {
        assert_eq!(
            config_dir(command),
            expected.map(PathBuf::from),
            "{command}"
        );
    }
}

#[test]
fn an_address_takes_what_the_kernel_brings_to_it() {
    for (bound, asked, expected) in [
        ("0.0.0.0", "127.0.0.1", true),
        ("0.0.0.0", "::1", false),
        ("::", "127.0.0.1", true),
        ("::", "::1", true),
        ("127.0.0.1", "127.0.0.1", true),
        ("::ffff:127.0.0.1", "127.0.0.1", true),
        ("127.0.0.2", "127.0.0.1", false),
        ("127.0.0.1", "0.0.0.0", true),
        ("::1", "127.0.0.1", false),
    ] {
        let (bound, asked): (IpAddr, IpAddr) = match (bound.parse(), asked.parse()) {
            (Ok(bound), Ok(asked)) => (bound, asked),
            _ => unreachable!("these are addresses"),
        };
        assert_eq!(takes(bound, &[asked]), expected, "{bound} {asked}");
        assert!(takes(bound, &[]));
    }
}
