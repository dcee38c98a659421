//! The rows of the policy, and the ledger's changes.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;

use super::*;
use crate::notice::Notice;
use crate::state::ledger::{Condition, Down};

const MINUTE: Duration = Duration::from_secs(60);
const START: Time = Time(1_764_000_000);
const BARE: Knobs = Knobs {
    policy: RestartPolicy::Always,
    max_restarts: 0,
    command: 1,
};
/// Without limit and back-off, so that only the cause rules.
const USEFUL: Knobs = Knobs {
    policy: RestartPolicy::Useful,
    ..BARE
};
const PACKAGED: Knobs = Knobs {
    max_restarts: 30,
    ..USEFUL
};

fn minutes(number: u32) -> Time {
    START.after(MINUTE * number)
}

fn outage(kind: Kind, subject: &str, server: Server) -> Outage {
    Outage {
        causes: vec![Found::new(kind, subject)],
        server,
        is_disk_full: false,
    }
}

fn silent(kind: Kind, subject: &str) -> Outage {
    outage(kind, subject, Server::Silent)
}

fn down(id: &str, cause: &str) -> Down {
    Down {
        id: id.to_owned(),
        cause: cause.to_owned(),
        ..Down::default()
    }
}

/// A restart with that outcome, of a server that is down since then.
fn attempt(ledger: &mut Ledger, knobs: Knobs, now: Time, outage: &Outage, outcome: Restarted) {
    ledger.fell(now, now, down("a", outage.causes[0].kind.slug()));
    ledger.begin(knobs, now, outage, "a");
    ledger.ended(now, outcome);
}

/// Rules, and holds if that is the ruling.
fn obey(ledger: &mut Ledger, knobs: Knobs, now: Time, outage: &Outage) -> Ruling {
    let ruling = rule(knobs, ledger, now, outage);
    match &ruling {
        Ruling::Hold(hold) | Ruling::Leave(hold) => {
            ledger.hold(now, hold.clone());
        }
        Ruling::Restart | Ruling::RestartAfterCheck => (),
    }
    ruling
}

fn held(until: Option<Time>, why: &str) -> Hold {
    Hold {
        until,
        why: why.to_owned(),
        ..Hold::default()
    }
}

/// The ruling without what was tried.
fn plain(ruling: Ruling) -> Ruling {
    let forget = |hold: Hold| held(hold.until, &hold.why);
    match ruling {
        Ruling::Hold(hold) => Ruling::Hold(forget(hold)),
        Ruling::Leave(hold) => Ruling::Leave(forget(hold)),
        ruling => ruling,
    }
}

/// What `useful` does about a cause again and again.
#[derive(Clone, Copy, Debug)]
enum Course {
    /// A restart each time.
    Restart,
    /// One more check each time.
    Check,
    /// A restart, then one every 6 hours.
    Once,
    /// A restart every 6 hours.
    Wait,
    /// No restart.
    Never,
    /// No signal.
    Leave,
}

#[test]
fn useful_does_what_the_table_says() {
    use Course::{Check, Leave, Never, Once, Restart, Wait};
    use Kind as K;
    // Cause, what it names, what is done if the server runs, and if it does not.
    let table = [
        (K::NotRunning, "", Restart, Restart),
        (K::Oom, "", Restart, Restart),
        (K::Deadlock, "", Restart, Restart),
        (K::Spinning, "", Restart, Restart),
        (K::Stopped, "", Restart, Restart),
        (K::Traced, "gdb", Restart, Restart),
        (K::Descriptors, "", Restart, Restart),
        (K::Threads, "", Restart, Restart),
        (K::Unknown, "", Restart, Restart),
        (K::Unremarkable, "", Restart, Restart),
        (K::AcceptQueue, "", Restart, Restart),
        (K::Swapped, "", Restart, Restart),
        (K::Misplaced, "", Restart, Restart),
        (K::IdleClient, "10.1.2.3:51234", Restart, Restart),
        (K::IdleTlsClient, "10.1.2.3:51234", Restart, Restart),
        (K::SlowReader, "10.1.2.3:51234", Restart, Restart),
        (K::Child, "bjobs", Restart, Restart),
        (K::Proxy, "nginx", Restart, Restart),
        (K::HttpStatus, "401", Once, Once),
        (K::HttpStatus, "403", Once, Once),
        (K::HttpStatus, "404", Once, Once),
        (K::HttpStatus, "429", Once, Once),
        (K::HttpStatus, "500", Restart, Restart),
        (K::HttpStatus, "503", Restart, Restart),
        (K::HttpStatus, "399", Restart, Restart),
        (K::Peer, "10.1.2.3:389", Restart, Restart),
        (K::Certificate, "sha256:aa", Once, Once),
        (K::Dns, "", Never, Restart),
        (K::LocalFailure, "", Never, Restart),
        (K::DiskFull, "/data", Once, Once),
        (K::Uninterruptible, "", Leave, Restart),
        (K::File, "/data/fifo", Restart, Restart),
        (K::Overload, "", Check, Restart),
        (K::Memory, "", Check, Restart),
        (K::PortTaken, "nc", Wait, Never),
        (K::NotMyvnc, "", Wait, Never),
        (K::Elsewhere, "", Never, Never),
        (K::Scheme, "", Once, Once),
        (K::RedirectLoop, "", Once, Once),
    ];
    for kind in Kind::ALL {
        assert!(table.iter().any(|row| row.0 == *kind), "{kind:?}");
    }
    for (kind, subject, running, gone) in table {
        for (server, course) in [(Server::Silent, running), (Server::Gone, gone)] {
            let what = format!("{kind:?} {subject} {server:?}");
            let mut outage = outage(kind, subject, server);
            let why = why(kind, subject);
            let mut ledger = Ledger::default();
            let ruling = obey(&mut ledger, USEFUL, START, &outage);
            let (first, later, at_last) = match course {
                Restart => (Ruling::Restart, Ruling::Restart, Ruling::Restart),
                Check => {
                    let check = Ruling::RestartAfterCheck;
                    (check.clone(), check.clone(), check)
                }
                Once | Wait => {
                    let hold = Ruling::Hold(held(Some(minutes(360)), &why));
                    match course {
                        Once => (Ruling::Restart, hold, Ruling::Restart),
                        _ => (hold.clone(), hold, Ruling::Restart),
                    }
                }
                Never => {
                    let hold = Ruling::Hold(held(None, &why));
                    (hold.clone(), hold.clone(), hold)
                }
                Leave => {
                    let leave = Ruling::Leave(held(None, &why));
                    (leave.clone(), leave.clone(), leave)
                }
            };
            assert_eq!(plain(ruling.clone()), first, "{what}");
            if !matches!(ruling, Ruling::Hold(_) | Ruling::Leave(_)) {
                attempt(&mut ledger, USEFUL, START, &outage, Restarted::Failed);
            }
            outage.is_disk_full = kind == Kind::DiskFull;
            for minute in [1, 2, 359] {
                let ruling = obey(&mut ledger, USEFUL, minutes(minute), &outage);
                assert_eq!(plain(ruling), later, "{what}, minute {minute}");
            }
            let ruling = obey(&mut ledger, USEFUL, minutes(360), &outage);
            assert_eq!(plain(ruling), at_last, "{what}");
            if !matches!(course, Never | Leave) {
                attempt(
                    &mut ledger,
                    USEFUL,
                    minutes(360),
                    &outage,
                    Restarted::Failed,
                );
                let again = obey(&mut ledger, USEFUL, minutes(361), &outage);
                let waits = matches!(course, Once | Wait);
                assert_eq!(matches!(again, Ruling::Hold(_)), waits, "{what}");
            }
        }
    }
}

#[test]
fn a_server_that_answers_behind_a_proxy_is_left_alone_whatever_the_policy() {
    let proxy = outage(Kind::Proxy, "nginx", Server::Answers);
    let unnamed = Outage {
        causes: Vec::new(),
        ..proxy.clone()
    };
    for policy in [
        RestartPolicy::Always,
        RestartPolicy::Useful,
        RestartPolicy::Never,
    ] {
        let knobs = Knobs { policy, ..BARE };
        for (outage, why) in [(&proxy, "proxy nginx"), (&unnamed, "proxy")] {
            let ruling = rule(knobs, &Ledger::default(), START, outage);
            assert_eq!(ruling, Ruling::Leave(held(None, why)), "{policy:?}");
        }
    }
}

#[test]
fn bare_flags_always_restart() {
    let mut ledger = Ledger::default();
    for minute in 0..200 {
        for kind in Kind::ALL {
            for server in [Server::Silent, Server::Gone] {
                let mut outage = outage(*kind, "404", server);
                outage.causes[0].is_stuck = true;
                outage.is_disk_full = true;
                let ruling = rule(BARE, &ledger, minutes(minute), &outage);
                assert_eq!(ruling, Ruling::Restart, "{kind:?}");
            }
        }
        let outage = silent(Kind::DiskFull, "/data");
        attempt(
            &mut ledger,
            BARE,
            minutes(minute),
            &outage,
            Restarted::Failed,
        );
    }
    assert_eq!(ledger.hold, None, "no disk to look at");
    assert_eq!(ledger.restarts.len(), 100);
    assert_eq!(ledger.totals.restarts.failed, 200);
}

#[test]
fn never_holds_whatever_is_wrong_and_resume_does_not_change_that() {
    let knobs = Knobs {
        policy: RestartPolicy::Never,
        ..PACKAGED
    };
    let mut ledger = Ledger::default();
    for kind in Kind::ALL {
        for server in [Server::Silent, Server::Gone] {
            let ruling = obey(&mut ledger, knobs, START, &outage(*kind, "", server));
            assert_eq!(ruling, Ruling::Hold(held(None, "policy")), "{kind:?}");
            ledger.clear();
        }
    }
}

#[test]
fn a_file_on_a_dead_server_and_state_d_are_left_alone_even_behind_another_cause() {
    let mut stuck = silent(Kind::File, "/nfs/myvnc");
    stuck.causes[0].is_stuck = true;
    let leave = |why| Ruling::Leave(held(None, why));
    let ledger = Ledger::default();
    let ruling = |outage: &Outage| rule(PACKAGED, &ledger, START, outage);
    assert_eq!(ruling(&stuck), leave("file /nfs/myvnc"));
    let mut behind = silent(Kind::IdleClient, "10.1.2.3:51234");
    behind.causes.push(Found::new(Kind::Uninterruptible, ""));
    assert_eq!(ruling(&behind), leave("uninterruptible"));
    for outage in [&mut stuck, &mut behind] {
        outage.server = Server::Gone;
        assert_eq!(ruling(outage), Ruling::Restart);
    }
}

#[test]
fn a_cause_that_says_little_gives_way_to_the_machines() {
    use Kind as K;
    let ruling = |kinds: &[Kind]| {
        let outage = Outage {
            causes: kinds.iter().map(|kind| Found::new(*kind, "")).collect(),
            server: Server::Silent,
            is_disk_full: true,
        };
        let mut ledger = Ledger::default();
        attempt(&mut ledger, USEFUL, START, &outage, Restarted::Failed);
        plain(rule(USEFUL, &ledger, minutes(1), &outage))
    };
    let full = Ruling::Hold(held(Some(minutes(360)), "disk_full"));
    for (kinds, expected) in [
        (&[K::NotRunning, K::DiskFull][..], full.clone()),
        (&[K::Misplaced, K::DiskFull], full.clone()),
        (&[K::Unknown, K::DiskFull, K::Overload], full),
        (&[K::AcceptQueue, K::Overload], Ruling::RestartAfterCheck),
        (&[K::Unremarkable, K::Memory], Ruling::RestartAfterCheck),
        (&[K::IdleClient, K::DiskFull], Ruling::Restart),
        (&[K::Spinning, K::Overload], Ruling::Restart),
        (&[K::NotRunning, K::Certificate], Ruling::Restart),
        (&[], Ruling::Restart),
    ] {
        if kinds.is_empty() {
            let none = Outage {
                causes: Vec::new(),
                ..silent(K::Unknown, "")
            };
            let ruling = rule(USEFUL, &Ledger::default(), START, &none);
            assert_eq!(ruling, expected);
        } else {
            assert_eq!(ruling(kinds), expected, "{kinds:?}");
        }
    }
}

#[test]
fn restarts_that_fail_are_made_less_and_less_often() {
    let gone = outage(Kind::NotRunning, "", Server::Gone);
    for policy in [RestartPolicy::Always, RestartPolicy::Useful] {
        let knobs = Knobs { policy, ..PACKAGED };
        let mut ledger = Ledger::default();
        let mut now = START;
        for (failed, wait) in [0, 1, 2, 4, 8, 15, 15, 15].into_iter().enumerate() {
            assert_eq!(ledger.failures(1), failed);
            assert_eq!(rule(knobs, &ledger, now, &gone), Ruling::Restart);
            attempt(&mut ledger, knobs, now, &gone, Restarted::Failed);
            let due = now.after(MINUTE * wait);
            let ruling = |time| rule(knobs, &ledger, time, &gone);
            if wait > 0 {
                let hold = Ruling::Hold(held(Some(due), "failed"));
                assert_eq!(ruling(now.after(Duration::from_secs(1))), hold);
                assert_eq!(ruling(Time(due.0 - 11)), hold);
            }
            assert_eq!(ruling(Time(due.0 - 10)), Ruling::Restart);
            now = due;
        }
    }
}

#[test]
fn a_restart_that_works_delays_nothing_and_clears_nothing() {
    let gone = outage(Kind::NotRunning, "", Server::Gone);
    let mut ledger = Ledger::default();
    for minute in 0..3 {
        attempt(
            &mut ledger,
            PACKAGED,
            minutes(minute),
            &gone,
            Restarted::Failed,
        );
    }
    attempt(
        &mut ledger,
        PACKAGED,
        minutes(4),
        &gone,
        Restarted::Answered,
    );
    ledger.answered(minutes(5));
    assert_eq!(ledger.failures(1), 3);
    assert_eq!(
        rule(PACKAGED, &ledger, minutes(5), &gone),
        Ruling::Restart,
        "at once"
    );
    attempt(&mut ledger, PACKAGED, minutes(5), &gone, Restarted::Failed);
    let hold = Ruling::Hold(held(Some(minutes(9)), "failed"));
    assert_eq!(rule(PACKAGED, &ledger, minutes(6), &gone), hold, "a fourth");
}

#[test]
fn ten_minutes_of_answers_resume_and_another_command_begin_anew() {
    let gone = outage(Kind::NotRunning, "", Server::Gone);
    let mut failed = Ledger::default();
    for minute in 0..8 {
        attempt(
            &mut failed,
            PACKAGED,
            minutes(minute),
            &gone,
            Restarted::Failed,
        );
    }
    assert!(matches!(
        obey(&mut failed, PACKAGED, minutes(8), &gone),
        Ruling::Hold(_)
    ));
    let other = Knobs {
        command: 2,
        ..PACKAGED
    };
    assert_eq!(rule(other, &failed, minutes(8), &gone), Ruling::Restart);

    let mut resumed = failed.clone();
    resumed.clear();
    assert_eq!(resumed.phase, Condition::Down);
    assert_eq!(resumed.hold, None);
    assert_eq!(rule(PACKAGED, &resumed, minutes(8), &gone), Ruling::Restart);

    for (good, failures) in [(9, 8), (10, 0)] {
        let mut healed = failed.clone();
        healed.answered(minutes(8));
        healed.answered(minutes(8 + good));
        assert_eq!(healed.failures(1), failures);
        let before = healed.clone();
        healed.answered(minutes(8 + good));
        assert_eq!(healed, before, "a healthy run changes nothing");
    }
}

#[test]
fn past_the_limit_there_is_one_restart_in_five_minutes() {
    let knobs = Knobs {
        policy: RestartPolicy::Always,
        max_restarts: 3,
        command: 1,
    };
    let gone = outage(Kind::NotRunning, "", Server::Gone);
    let mut ledger = Ledger::default();
    for minute in 0..3 {
        assert_eq!(
            rule(knobs, &ledger, minutes(minute), &gone),
            Ruling::Restart
        );
        attempt(
            &mut ledger,
            knobs,
            minutes(minute),
            &gone,
            Restarted::Answered,
        );
    }
    let hold = Ruling::Hold(held(Some(minutes(7)), "limit"));
    assert_eq!(rule(knobs, &ledger, minutes(3), &gone), hold);
    assert_eq!(rule(knobs, &ledger, minutes(6), &gone), hold);
    assert_eq!(rule(knobs, &ledger, minutes(7), &gone), Ruling::Restart);
    attempt(&mut ledger, knobs, minutes(7), &gone, Restarted::Failed);
    // The longer of both.
    let hold = Ruling::Hold(held(Some(minutes(12)), "limit"));
    assert_eq!(rule(knobs, &ledger, minutes(8), &gone), hold);
    // The first two are more than an hour ago.
    let hour = minutes(61);
    ledger.restarts[3].at = minutes(60);
    assert_eq!(rule(knobs, &ledger, hour, &gone), Ruling::Restart);
}

#[test]
fn each_certificate_and_each_status_is_tried_once() {
    for (kind, first, second) in [
        (Kind::Certificate, "sha256:aa", "sha256:bb"),
        (Kind::HttpStatus, "404", "403"),
    ] {
        let mut ledger = Ledger::default();
        let (first, second) = (silent(kind, first), silent(kind, second));
        attempt(&mut ledger, USEFUL, START, &first, Restarted::Failed);
        let Ruling::Hold(hold) = obey(&mut ledger, USEFUL, minutes(1), &first) else {
            panic!("not held");
        };
        assert_eq!(hold.tried[kind.slug()], first.causes[0].subject);

        // Another verdict in between does not use up the hold.
        let gone = outage(Kind::NotRunning, "", Server::Gone);
        assert_eq!(rule(USEFUL, &ledger, minutes(2), &gone), Ruling::Restart);
        attempt(&mut ledger, USEFUL, minutes(2), &gone, Restarted::Failed);
        let hold = Ruling::Hold(held(Some(minutes(360)), &first.causes[0].why()));
        let again = obey(&mut ledger, USEFUL, minutes(3), &first);
        assert_eq!(plain(again), hold);

        assert_eq!(rule(USEFUL, &ledger, minutes(4), &second), Ruling::Restart);
        attempt(&mut ledger, USEFUL, minutes(4), &second, Restarted::Failed);
        let again = rule(USEFUL, &ledger, minutes(5), &second);
        assert!(matches!(again, Ruling::Hold(_)));

        let other = Knobs {
            command: 2,
            ..USEFUL
        };
        assert_eq!(rule(other, &ledger, minutes(5), &second), Ruling::Restart);

        let mut resumed = ledger.clone();
        resumed.clear();
        let ruling = rule(USEFUL, &resumed, minutes(5), &second);
        assert_eq!(ruling, Ruling::Restart);

        // It answered in between: what was tried has changed.
        ledger.answered(minutes(6));
        assert_eq!(ledger.hold, None);
        ledger.fell(minutes(7), minutes(7), down("b", kind.slug()));
        assert_eq!(rule(USEFUL, &ledger, minutes(7), &second), Ruling::Restart);
    }
}

#[test]
fn a_restart_is_held_while_the_disk_that_was_named_first_is_full() {
    let mut ledger = Ledger::default();
    let full = silent(Kind::DiskFull, "/data");
    attempt(&mut ledger, PACKAGED, START, &full, Restarted::Answered);
    assert_eq!(ledger.full_disk(), Some("/data"));
    assert_eq!(ledger.held(), None, "it answers");
    ledger.answered(minutes(1));

    let mut later = outage(Kind::NotRunning, "", Server::Gone);
    later.is_disk_full = true;
    ledger.fell(minutes(2), minutes(2), down("b", "not_running"));
    let hold = Ruling::Hold(held(Some(minutes(360)), "disk_full /data"));
    assert_eq!(plain(obey(&mut ledger, PACKAGED, minutes(2), &later)), hold);
    assert!(ledger.held().is_some());

    let mut other = silent(Kind::DiskFull, "/var");
    assert_eq!(
        rule(PACKAGED, &ledger, minutes(3), &other),
        Ruling::Restart,
        "/data has space"
    );
    other.is_disk_full = true;
    assert_eq!(plain(rule(PACKAGED, &ledger, minutes(3), &other)), hold);

    // What hangs on something else does not wait for the disk, which anybody may have filled.
    let mut client = silent(Kind::IdleClient, "10.0.0.7");
    client.is_disk_full = true;
    let ruling = rule(PACKAGED, &ledger, minutes(3), &client);
    assert_eq!(ruling, Ruling::Restart);

    // The next try is for the disk too, so that the one after waits as long.
    assert_eq!(
        rule(PACKAGED, &ledger, minutes(360), &later),
        Ruling::Restart
    );
    attempt(
        &mut ledger,
        PACKAGED,
        minutes(360),
        &later,
        Restarted::Failed,
    );
    let hold = Ruling::Hold(held(Some(minutes(720)), "disk_full /data"));
    assert_eq!(
        plain(obey(&mut ledger, PACKAGED, minutes(361), &later)),
        hold
    );
    later.is_disk_full = false;
    assert_eq!(
        rule(PACKAGED, &ledger, minutes(362), &later),
        Ruling::Restart
    );

    ledger.answered(minutes(363));
    ledger.answered(minutes(373));
    assert_eq!(ledger.full_disk(), None, "it lasted");
}

#[test]
fn a_run_that_is_killed_midway_has_failed() {
    let gone = outage(Kind::NotRunning, "", Server::Gone);
    let mut ledger = Ledger::default();
    ledger.fell(START, START, down("a", "not_running"));
    ledger.hold(START, held(Some(START), "limit"));
    for minute in 0..2 {
        ledger.begin(PACKAGED, minutes(minute), &gone, "a");
    }
    assert_eq!(ledger.phase, Condition::Down);
    assert_eq!(ledger.failures(1), 2);
    assert_eq!(ledger.totals.restarts.failed, 2);
    attempt(
        &mut ledger,
        PACKAGED,
        minutes(2),
        &gone,
        Restarted::Answered,
    );
    assert_eq!(ledger.totals.restarts.failed, 2);
    assert_eq!(ledger.totals.restarts.answered, 1);
}

#[test]
fn an_outage_is_counted_from_the_last_answer_to_the_next() {
    let mut ledger = Ledger::default();
    assert_eq!(ledger.answered(START), []);
    assert_eq!(ledger.since, Some(START));
    ledger.fell(minutes(3), minutes(2), down("a", "child"));
    assert_eq!(
        (ledger.phase, ledger.since),
        (Condition::Down, Some(minutes(2)))
    );
    assert!(ledger.hold(START, held(None, "policy")).is_some());
    ledger.fell(minutes(4), minutes(4), down("b", "not_running"));
    let known = ledger.down.clone().unwrap();
    assert_eq!(known.id, "a");
    assert_eq!(known.cause, "not_running");
    assert_eq!(known.announced.as_deref(), Some("held"));
    assert_eq!(ledger.since, Some(minutes(2)));
    let recovered = Note::Recovered {
        down: known,
        away: MINUTE * 3,
    };
    assert_eq!(ledger.answered(minutes(5)), [recovered]);
    assert_eq!(ledger.totals.away_s, 180);
    assert_eq!(ledger.totals.incidents["child"], 1);
    assert_eq!(ledger.totals.incidents.len(), 1);

    ledger.fell(minutes(6), minutes(6), down("c", "child"));
    ledger.down.as_mut().unwrap().planned_s = 20;
    let ended = ledger.unwedged(minutes(7));
    assert_eq!(ledger.totals.away_s, 220, "a pause does not count");
    assert_eq!(ended.away, Some(MINUTE));
    assert_eq!(ended.notices, [Notice::Unwedged]);
    assert_eq!(ledger.totals.unwedged, 1);

    ledger.fell(minutes(8), minutes(8), down("d", "child"));
    ledger.untouched(START);
    assert_eq!(ledger.phase, Condition::Failed);
    assert_eq!(ledger.unwedged(minutes(9)).notices, [Notice::Recovered]);
}

#[test]
fn an_outage_begins_after_the_last_recovery_and_not_in_the_future() {
    for (since, expected) in [(4, 5), (6, 6), (8, 7)] {
        let mut ledger = Ledger::default();
        ledger.answered(minutes(5));
        ledger.fell(minutes(7), minutes(since), down("a", ""));
        assert_eq!(ledger.since, Some(minutes(expected)));
    }
}

#[test]
fn the_time_of_a_hold_is_that_of_its_cause() {
    let mut ledger = Ledger::default();
    let strange = silent(Kind::NotMyvnc, "");
    obey(&mut ledger, USEFUL, START, &strange);
    let taken = silent(Kind::PortTaken, "nc");
    let hold = Ruling::Hold(held(Some(minutes(370)), "port_taken nc"));
    assert_eq!(obey(&mut ledger, USEFUL, minutes(10), &taken), hold);
    assert_eq!(obey(&mut ledger, USEFUL, minutes(20), &taken), hold);
}

#[test]
fn a_restart_lasts_if_ten_minutes_of_answers_follow() {
    let gone = outage(Kind::NotRunning, "", Server::Gone);
    let mut ledger = Ledger::default();
    attempt(&mut ledger, PACKAGED, START, &gone, Restarted::Answered);
    assert_eq!(ledger.answered(Time(minutes(10).0 - 1)), []);
    let id = "a".to_owned();
    assert_eq!(ledger.answered(minutes(10)), [Note::Lasted { id }]);
    assert_eq!(ledger.restarts[0].lasted, Some(true));
    assert_eq!(ledger.answered(minutes(11)), []);
    assert_eq!(ledger.fell(minutes(12), minutes(12), down("b", "")), None);

    ledger.begin(PACKAGED, minutes(12), &gone, "b");
    ledger.ended(minutes(12), Restarted::Answered);
    let fell = ledger.fell(minutes(20), minutes(20), down("c", ""));
    let id = "b".to_owned();
    assert_eq!(fell, Some(Note::FellAgain { id }));
    assert_eq!(ledger.restarts[1].lasted, Some(false));
    assert_eq!(ledger.fell(minutes(21), minutes(21), down("c", "")), None);
    // Whoever repaired it then, that restart did not.
    ledger.answered(minutes(22));
    assert_eq!(ledger.answered(minutes(40)), []);
}

#[test]
fn a_server_flaps_from_the_third_restart_within_an_hour_that_worked() {
    use Restarted::{Answered, Failed};
    let gone = outage(Kind::NotRunning, "", Server::Gone);
    let mut ledger = Ledger::default();
    let bjobs = Down {
        culprit: Some("bjobs".to_owned()),
        culprit_kind: Some("child".to_owned()),
        ..down("a", "child")
    };
    let fall = |ledger: &mut Ledger, minute, outcome| {
        ledger.fell(minutes(minute), minutes(minute), bjobs.clone());
        ledger.begin(BARE, minutes(minute), &gone, "a");
        ledger.ended(minutes(minute), outcome).notices
    };
    assert_eq!(fall(&mut ledger, 0, Answered), [Notice::Restarted]);
    assert_eq!(fall(&mut ledger, 6, Failed), [Notice::Failed]);
    assert_eq!(fall(&mut ledger, 7, Failed), []);
    assert_eq!(fall(&mut ledger, 8, Answered), [Notice::Recovered]);
    // The first is an hour ago.
    assert_eq!(fall(&mut ledger, 60, Answered), [Notice::Restarted]);
    assert_eq!(ledger.flapping, None);
    assert_eq!(fall(&mut ledger, 66, Answered), [Notice::Flapping]);
    assert_eq!(ledger.flapping, Some(minutes(66)));
    assert_eq!(fall(&mut ledger, 67, Answered), []);
    assert_eq!(fall(&mut ledger, 70, Failed), [Notice::Failed]);
    assert_eq!(fall(&mut ledger, 71, Answered), [Notice::Recovered]);
    ledger.fell(minutes(72), minutes(72), down("b", ""));
    assert_eq!(ledger.hold(START, held(None, "limit")), Some(Notice::Held));
    assert_eq!(ledger.hold(START, held(None, "policy")), Some(Notice::Held));
    ledger.answered(minutes(73));
    ledger.answered(minutes(102));
    assert!(ledger.flapping.is_some());
    let blamed = BTreeMap::from([("child bjobs".to_owned(), 5)]);
    assert_eq!(ledger.answered(minutes(103)), [Note::Stable { blamed }]);
    assert_eq!(ledger.flapping, None);
    assert!(ledger.blamed.is_empty());
}

#[test]
fn restarts_of_a_flapping_server_are_counted_by_what_they_are_blamed_on() {
    let child = silent(Kind::Child, "");
    let mut ledger = Ledger::default();
    let mut fall = |minute, kind: &str, culprit: &str| {
        let down = Down {
            culprit: Some(culprit.to_owned()),
            culprit_kind: Some(kind.to_owned()),
            ..down("a", "idle_client")
        };
        ledger.fell(minutes(minute), minutes(minute), down);
        ledger.begin(BARE, minutes(minute), &child, "a");
        ledger.ended(minutes(minute), Restarted::Answered);
        ledger.blamed.clone()
    };
    assert!(fall(0, "client", "10.1.2.3:51234").is_empty());
    assert!(fall(59, "client", "10.1.2.3:51299").is_empty());
    assert!(
        fall(60, "client", "[fe80::1]:7").is_empty(),
        "the first is an hour ago"
    );
    let expected = [
        ("idle_client 10.1.2.3", 1),
        ("idle_client [fe80::1]", 1),
        ("idle_client bjobs", 1),
    ];
    let expected = expected.map(|(blame, times)| (blame.to_owned(), times));
    assert_eq!(fall(61, "child", "bjobs"), BTreeMap::from(expected));
    assert_eq!(fall(62, "child", "bjobs")["idle_client bjobs"], 2);
    for minute in 63..95 {
        fall(
            minute,
            "file",
            &"x".repeat(usize::try_from(minute).unwrap()),
        );
    }
    let blamed = fall(95, "file", "last");
    assert_eq!(blamed.values().sum::<u32>(), 37);
    assert!(blamed.len() <= 21 && blamed.keys().all(|blame| blame.chars().count() <= 60));
}

#[test]
fn a_client_is_named_whose_connections_were_destroyed_three_times_within_an_hour() {
    let mut ledger = Ledger::default();
    let of = |client: &str| vec![client.to_owned()];
    ledger.note_destroyed(START, of("10.1.2.3"));
    ledger.note_destroyed(minutes(30), [of("10.1.2.3"), of("10.7.7.7")].concat());
    assert!(ledger.recurrent(minutes(30)).is_empty());
    ledger.note_destroyed(minutes(59), of("10.1.2.3"));
    let named = BTreeMap::from([("10.1.2.3".to_owned(), 3)]);
    assert_eq!(ledger.recurrent(minutes(59)), named);
    assert!(
        ledger.recurrent(minutes(60)).is_empty(),
        "the first is an hour ago"
    );
    ledger.note_destroyed(minutes(61), vec!["10.7.7.7".to_owned(); 1000]);
    assert!(ledger.destroyed.len() <= 30);
}

#[test]
fn an_outage_is_announced_again_after_1_4_and_28_hours_then_daily_and_7_times() {
    let mut ledger = Ledger::default();
    ledger.fell(START, START, down("a", "child"));
    assert_eq!(
        ledger.remind(minutes(600), false),
        None,
        "nothing was announced"
    );
    ledger.untouched(minutes(10));
    let mut at = Vec::new();
    for minute in 10..30 * 1440 {
        ledger.fell(minutes(minute), minutes(minute), down("b", "child"));
        let reminded = ledger.remind(minutes(minute), false);
        assert_eq!(ledger.untouched(minutes(minute)), None);
        if reminded.is_some() {
            at.push((minute - 10) / 60);
        }
    }
    assert_eq!(at, [1, 4, 28, 52, 76, 100, 124]);

    // Something new begins a new count.
    let later = minutes(40 * 1440);
    ledger.hold(later, held(None, "certificate sha256:aa"));
    assert_eq!(ledger.remind(later.after(MINUTE * 59), false), None);
    let reminded = ledger.remind(later.after(MINUTE * 60), false);
    assert_eq!(reminded, Some(Notice::Reminder));
    // Of several that are due, one is sent; none that fell into a pause.
    assert!(
        ledger
            .remind(later.after(MINUTE * 60 * 60), false)
            .is_some()
    );
    assert_eq!(ledger.remind(later.after(MINUTE * 60 * 61), false), None);
    assert_eq!(ledger.remind(later.after(MINUTE * 60 * 77), true), None);
    assert_eq!(ledger.remind(later.after(MINUTE * 60 * 78), false), None);
    ledger.answered(later.after(MINUTE * 60 * 100));
    assert_eq!(ledger.remind(later.after(MINUTE * 60 * 200), false), None);
}

#[test]
fn a_recovery_is_announced_after_a_run_that_was_killed_midway() {
    let treated = |ledger: &mut Ledger| match ledger.answered(minutes(2)).first() {
        Some(Note::Recovered { down, .. }) => down.announced.is_some() || down.treated,
        other => panic!("{other:?}"),
    };
    let gone = outage(Kind::NotRunning, "", Server::Gone);
    let mut ledger = Ledger::default();
    ledger.fell(START, START, down("a", "not_running"));
    let mut begun = ledger.clone();
    let mut unwedged = ledger.clone();
    assert!(!treated(&mut ledger), "nobody has done or told anything");
    begun.begin(BARE, START, &gone, "a");
    begun.fell(minutes(1), minutes(1), down("b", "not_running"));
    assert!(treated(&mut begun));
    unwedged.treat();
    assert!(treated(&mut unwedged));
}

#[test]
fn an_outage_is_announced_once_for_each_thing_that_is_new() {
    let mut ledger = Ledger::default();
    ledger.fell(START, START, down("a", "certificate"));
    assert_eq!(ledger.hold(START, held(None, "limit")), Some(Notice::Held));
    assert_eq!(ledger.hold(START, held(None, "failed")), None);
    assert_eq!(ledger.untouched(START), Some(Notice::Failed));
    assert_eq!(ledger.hold(START, held(None, "failed")), None);
    assert_eq!(ledger.untouched(START), None);
    let certificate = held(None, "certificate sha256:aa");
    assert_eq!(ledger.hold(START, certificate.clone()), Some(Notice::Held));
    assert_eq!(ledger.hold(START, certificate.clone()), None);
    assert_eq!(ledger.untouched(START), None);
    assert_eq!(ledger.hold(START, certificate), None);
    let other = held(None, "certificate sha256:bb");
    assert_eq!(ledger.hold(START, other), Some(Notice::Held));
}

#[test]
fn attempts_are_forgotten_when_nothing_depends_on_them() {
    let gone = outage(Kind::NotRunning, "", Server::Gone);
    let mut ledger = Ledger::default();
    attempt(&mut ledger, PACKAGED, START, &gone, Restarted::Answered);
    ledger.answered(minutes(10));
    attempt(&mut ledger, PACKAGED, minutes(59), &gone, Restarted::Failed);
    assert_eq!(ledger.restarts.len(), 2, "of the last hour");
    attempt(&mut ledger, PACKAGED, minutes(60), &gone, Restarted::Failed);
    assert_eq!(ledger.restarts.len(), 2);
    attempt(
        &mut ledger,
        PACKAGED,
        minutes(900),
        &gone,
        Restarted::Failed,
    );
    assert_eq!(ledger.failures(1), 3, "still counted");
}

#[test]
fn a_time_far_ahead_is_absurd() {
    let late = |seconds| Some(Time(START.0 + seconds));
    let with = |change: &dyn Fn(&mut Ledger)| {
        let mut ledger = Ledger::default();
        let gone = outage(Kind::NotRunning, "", Server::Gone);
        attempt(&mut ledger, BARE, START, &gone, Restarted::Failed);
        change(&mut ledger);
        is_absurd(&ledger, START)
    };
    assert!(!is_absurd(&Ledger::default(), START));
    assert!(!with(&|_| ()));
    for (seconds, expected) in [(300, false), (301, true)] {
        assert_eq!(with(&|ledger| ledger.since = late(seconds)), expected);
        assert_eq!(with(&|ledger| ledger.flapping = late(seconds)), expected);
        let at = |ledger: &mut Ledger| ledger.restarts[0].at = late(seconds).unwrap();
        assert_eq!(with(&at), expected);
        let until = held(late(6 * 3600 + seconds), "failed");
        assert_eq!(with(&|ledger| ledger.hold = Some(until.clone())), expected);
    }
}

#[test]
fn the_ledger_is_written_with_the_names_of_the_state_file() {
    let mut ledger = Ledger::default();
    let expired = silent(Kind::Certificate, "sha256:aa");
    attempt(&mut ledger, USEFUL, START, &expired, Restarted::Failed);
    obey(&mut ledger, USEFUL, minutes(1), &expired);
    let json = serde_json::to_value(&ledger).unwrap();
    assert_eq!(json["phase"], "held");
    assert_eq!(json["hold"]["until"], "2025-11-24T22:00:00Z");
    assert_eq!(json["hold"]["why"], "certificate sha256:aa");
    assert_eq!(json["hold"]["tried"]["certificate"], "sha256:aa");
    assert_eq!(json["restarts"][0]["outcome"], "failed");
    assert_eq!(json["down"]["announced"], "held");
    assert_eq!(serde_json::from_value::<Ledger>(json).unwrap(), ledger);
    let short = r#"{"at":"2025-11-24T16:00:00Z","outcome":"answered","lasted":true}"#;
    let attempt = serde_json::from_str::<Attempt>(short).unwrap();
    assert_eq!(attempt.lasted, Some(true));
    assert!(!attempt.settled);
}
