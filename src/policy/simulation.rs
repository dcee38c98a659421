//! A day of 1,440 runs, a minute apart, with servers that restarts help differently. The table of the results is
//! in `benches/RESULTS.md`.

use std::fmt::Write as _;

use super::*;
use crate::state::ledger::{Condition, Down};

/// Runs in a day.
const RUNS: u64 = 1440;
const START: Time = Time(1_764_000_000);
/// What a start takes, in seconds.
const STARTING: u64 = 1;
/// How long a server answers that hangs again and again, in seconds.
const WORKING: u64 = 300;
const HOURS: u64 = 3600;

/// What is wrong with the server, from the first run on.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    /// It hangs 5 minutes after every start.
    Hangs,
    /// It does not come back.
    Dead,
    /// Its certificate has expired. After 10 hours it serves another one, which has expired too, and
    /// after 20 hours a valid one.
    Certificate,
    /// Its disk is full for 5 hours; a server that is started then ends at once.
    Disk,
}

/// A day's figures.
#[derive(Debug, Eq, PartialEq)]
struct Day {
    restarts: u64,
    /// Percent of the day, rounded.
    up: u64,
    /// Runs in which a restart was withheld.
    held: u64,
    messages: usize,
    /// Minutes of the first restarts.
    first: Vec<u64>,
}

/// The server and what is wrong with it.
struct World {
    trouble: Trouble,
    /// When it was last started, if that worked, in seconds since the first run.
    started: Option<u64>,
}

impl World {
    fn answers(&self, at: u64) -> bool {
        match (self.trouble, self.started) {
            (Trouble::Dead, _) => false,
            // It loads a new certificate by itself.
            (Trouble::Certificate, _) => at >= 20 * HOURS,
            (Trouble::Hangs, Some(started)) => (started..started + WORKING).contains(&at),
            (Trouble::Disk, Some(started)) => at >= started,
            (Trouble::Hangs | Trouble::Disk, None) => false,
        }
    }

    /// Whether the server then answers.
    fn restart(&mut self, at: u64) -> bool {
        let works = match self.trouble {
            Trouble::Hangs => true,
            Trouble::Dead | Trouble::Certificate => false,
            Trouble::Disk => !Self::is_disk_full(at),
        };
        self.started = works.then_some(at + STARTING);
        works
    }

    fn is_disk_full(at: u64) -> bool {
        at < 5 * HOURS
    }

    fn outage(&self, at: u64, ledger: &Ledger) -> Outage {
        let is_first = ledger.restarts.is_empty();
        let (found, server) = match self.trouble {
            Trouble::Hangs => (Found::new(Kind::Unknown, ""), Server::Silent),
            Trouble::Dead => (Found::new(Kind::NotRunning, ""), Server::Gone),
            Trouble::Certificate => {
                let fingerprint = if at < 10 * HOURS {
                    "sha256:aa"
                } else {
                    "sha256:bb"
                };
                let found = Found::new(Kind::Certificate, fingerprint);
                (found, Server::Silent)
            }
            Trouble::Disk if is_first => (Found::new(Kind::DiskFull, "/data"), Server::Silent),
            Trouble::Disk => (Found::new(Kind::NotRunning, ""), Server::Gone),
        };
        let directory = ledger.full_disk();
        Outage {
            causes: vec![found],
            server,
            is_disk_full: directory == Some("/data") && Self::is_disk_full(at),
        }
    }
}

/// A day under that policy.
fn day(trouble: Trouble, knobs: Knobs) -> Day {
    let mut world = World {
        trouble,
        started: None,
    };
    let mut ledger = Ledger::default();
    ledger.answered(START);
    let (mut up, mut held, mut messages, mut first) = (0, 0, 0, Vec::new());
    for minute in 0..RUNS {
        let at = minute * 60;
        let now = Time(START.0 + at);
        let mut ends = at;
        assert!(!is_absurd(&ledger, now));
        if world.answers(at) {
            for note in ledger.answered(now) {
                messages += usize::from(match &note {
                    Note::Recovered { down, .. } => down.announced.is_some() || down.treated,
                    Note::Stable { .. } => true,
                    Note::Lasted { .. } | Note::FellAgain { .. } => false,
                });
            }
        } else {
            let outage = world.outage(at, &ledger);
            let down = Down {
                cause: outage.causes[0].kind.slug().to_owned(),
                ..Down::default()
            };
            ledger.fell(now, now, down);
            match rule(knobs, &ledger, now, &outage) {
                Ruling::Restart | Ruling::RestartAfterCheck => {
                    ledger.begin(knobs, now, &outage, "");
                    ends += STARTING;
                    if first.len() < 8 {
                        first.push(minute);
                    }
                    let outcome = if world.restart(at) {
                        Restarted::Answered
                    } else {
                        Restarted::Failed
                    };
                    messages += ledger.ended(now, outcome).notices.len();
                }
                Ruling::Hold(hold) | Ruling::Leave(hold) => {
                    held += 1;
                    messages += usize::from(ledger.hold(now, hold).is_some());
                }
            }
            messages += usize::from(ledger.remind(now, false).is_some());
        }
        up += (at..at + 60)
            .filter(|second| world.answers(*second))
            .count();
        let is_up = world.answers(ends);
        assert_eq!(is_up, ledger.phase == Condition::Up, "minute {minute}");
    }
    let counts = ledger.totals.restarts;
    Day {
        restarts: counts.answered + counts.failed,
        up: (u64::try_from(up).unwrap_or_default() * 100 + RUNS * 30) / (RUNS * 60),
        held,
        messages,
        first,
    }
}

const BARE: (&str, Knobs) = (
    "`always`, 0",
    Knobs {
        policy: RestartPolicy::Always,
        max_restarts: 0,
        command: 1,
    },
);
const ALWAYS: (&str, Knobs) = (
    "`always`, 30",
    Knobs {
        max_restarts: 30,
        ..BARE.1
    },
);
const USEFUL: (&str, Knobs) = (
    "`useful`, 30",
    Knobs {
        policy: RestartPolicy::Useful,
        ..ALWAYS.1
    },
);
const NEVER: (&str, Knobs) = (
    "`never`, 30",
    Knobs {
        policy: RestartPolicy::Never,
        ..ALWAYS.1
    },
);

#[test]
fn a_server_that_hangs_every_5_minutes_is_restarted_each_time() {
    for (_, knobs) in [BARE, ALWAYS, USEFUL] {
        let day = day(Trouble::Hangs, knobs);
        let expected = Day {
            restarts: 240,
            up: 83,
            held: 0,
            // Restarted twice, then flapping.
            messages: 3,
            first: vec![0, 6, 12, 18, 24, 30, 36, 42],
        };
        assert_eq!(day, expected);
    }
}

#[test]
fn a_server_that_does_not_come_back_is_restarted_100_times() {
    for (_, knobs) in [ALWAYS, USEFUL] {
        let day = day(Trouble::Dead, knobs);
        let expected = Day {
            restarts: 100,
            up: 0,
            held: 1340,
            // Failed, two reminders.
            messages: 3,
            first: vec![0, 1, 2, 4, 8, 16, 31, 46],
        };
        assert_eq!(day, expected);
    }
    let bare = day(Trouble::Dead, BARE.1);
    assert_eq!((bare.restarts, bare.held, bare.messages), (RUNS, 0, 3));
}

#[test]
fn an_expired_certificate_is_tried_once_and_every_6_hours() {
    let expected = Day {
        restarts: 4,
        up: 17,
        held: 20 * 60 - 4,
        // Failed, held, two reminders, held because of the other one, two reminders, recovered.
        messages: 8,
        first: vec![0, 6 * 60, 10 * 60, 16 * 60],
    };
    assert_eq!(day(Trouble::Certificate, USEFUL.1), expected);
    let always = day(Trouble::Certificate, ALWAYS.1);
    assert_eq!((always.restarts, always.up, always.messages), (84, 17, 4));
}

#[test]
fn a_full_disk_is_tried_once_and_again_when_it_is_freed() {
    let expected = Day {
        restarts: 2,
        up: 79,
        held: 5 * 60 - 1,
        // Failed, held, two reminders, recovered.
        messages: 5,
        first: vec![0, 5 * 60],
    };
    assert_eq!(day(Trouble::Disk, USEFUL.1), expected);
    let bare = day(Trouble::Disk, BARE.1);
    assert_eq!((bare.restarts, bare.up, bare.messages), (301, 79, 4));
}

#[test]
fn nothing_is_restarted_with_never() {
    for trouble in [
        Trouble::Hangs,
        Trouble::Dead,
        Trouble::Certificate,
        Trouble::Disk,
    ] {
        let day = day(trouble, NEVER.1);
        assert_eq!(day.restarts, 0);
        assert!(day.messages <= 4, "held, two reminders, recovered");
    }
}

#[test]
fn the_results_are_those_that_are_written_down() {
    let mut table = String::new();
    for (what, trouble) in [
        ("hangs 5 minutes after every start", Trouble::Hangs),
        ("does not come back", Trouble::Dead),
        (
            "expired certificate, after 10 h another, after 20 h a valid one",
            Trouble::Certificate,
        ),
        ("full disk, freed after 5 h", Trouble::Disk),
    ] {
        for (name, knobs) in [BARE, ALWAYS, USEFUL, NEVER] {
            let day = day(trouble, knobs);
            let (restarts, up, held, messages) = (day.restarts, day.up, day.held, day.messages);
            let row = format!("| {what} | {name} | {restarts} | {up} % | {held} | {messages} |");
            let written = writeln!(table, "{row}");
            assert!(written.is_ok());
        }
    }
    let results = include_str!("../../benches/RESULTS.md");
    assert!(
        results.contains(&table),
        "not in benches/RESULTS.md:\n{table}"
    );
}
