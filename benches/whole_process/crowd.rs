//! Finding the server among 5,000 processes, against `pgrep -f`.
//!
//! A run that searches also checks, logs and runs a command (`exit 1`, so that it ends at once). What
//! the search costs is what such a run costs more among the 5,000 than among a few processes; the same
//! is taken of pgrep. All of it happens in private namespaces.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::binary;
use crate::child::{bare, installed, median, millis, rounds, run};
use crate::healing::clear;
use crate::namespace;
use crate::rig::{self, Site};
use crate::table::{Row, Table};

const CROWD: usize = 5_000;
const PAIRS: usize = 15;
/// What a server's arguments have, for pgrep.
const PATTERN: &str = "manage.py|main.py";
const MOST: f64 = 0.3;
/// Another user than the server's.
const ANOTHER: u32 = 65_534;

const WHAT: &str = "search among 5,000 processes, against pgrep -f: CPU";

pub(crate) fn search(table: &mut Table) {
    if installed("pgrep").is_none() {
        return table.push(Row::skipped(WHAT, "pgrep is not installed"));
    }
    namespace::run(table, "search", WHAT);
}

/// What is searched for.
#[derive(Clone, Copy)]
enum Wanted {
    /// A server that is not there, by the monitor's own rule.
    Dead,
    /// A server that is not there, by `--process-pattern`.
    DeadByPattern,
    /// A stopped server, which holds its listening socket. Nothing is known of it before.
    ///
    /// The cost includes its diagnosis, which for a stopped process asks nothing of the 5,000.
    Hung,
}

impl Wanted {
    fn name(self) -> &'static str {
        match self {
            Self::Dead => "a dead server, by its rule",
            Self::DeadByPattern => "a dead server, by --process-pattern",
            Self::Hung => "a hung server, without a record",
        }
    }

    fn command(self, site: &Site) -> Command {
        let mut monitor = bare(binary::monitor());
        monitor
            .args(["--url", &site.url(), "--timeout", "0.3"])
            .args(["--restart-cmd", "exit 1"])
            .arg("--logfile")
            .arg(site.path("monitor.log"))
            .arg("--state-dir")
            .arg(site.path("state"));
        if matches!(self, Self::DeadByPattern) {
            monitor.args(["--process-pattern", PATTERN]);
        }
        monitor
    }
}

/// CPU times of whole runs in milliseconds, ours and pgrep's.
type Pair = (f64, f64);

/// In the namespaces.
pub(crate) fn inside(table: &mut Table) {
    let site = Site::new("");
    let all = [Wanted::Dead, Wanted::DeadByPattern, Wanted::Hung];
    let among_few = all.map(|wanted| measure(&site, wanted));
    let mut crowd = crowd(None);
    for (wanted, few) in all.into_iter().zip(&among_few) {
        report(table, &site, wanted, "the same user", few);
    }
    if rig::is_root() {
        for member in &mut crowd {
            member.kill().unwrap();
            member.wait().unwrap();
        }
        crowd = self::crowd(Some(ANOTHER));
        let [.., few] = &among_few;
        report(table, &site, Wanted::Hung, "another user", few);
    }
    for wanted in [Wanted::DeadByPattern, Wanted::Hung] {
        table.command("search", &wanted.command(&site), &site.path(""));
    }
    table.command("search", &pgrep(), &site.path(""));
    drop(crowd);
}

fn crowd(user: Option<u32>) -> Vec<Child> {
    let mut member = bare("/bin/sleep");
    member.arg("3600");
    if let Some(user) = user {
        member.uid(user).gid(user);
    }
    (0..CROWD).map(|_| member.spawn().unwrap()).collect()
}

fn report(table: &mut Table, site: &Site, wanted: Wanted, whose: &str, few: &[Pair]) {
    let middle = |side: fn(&Pair) -> f64, pairs: &[Pair]| median(pairs.iter().map(side).collect());
    let (few_ours, few_theirs) = (middle(|pair| pair.0, few), middle(|pair| pair.1, few));
    let costs: Vec<Pair> = measure(site, wanted)
        .iter()
        .map(|(ours, theirs)| (ours - few_ours, theirs - few_theirs))
        .collect();
    table.push(
        Row::new(format!("{WHAT}, {}, the others of {whose}", wanted.name()))
            .monitor(format!("{:.1} ms", middle(|pair| pair.0, &costs)))
            .peer(format!("{:.1} ms", middle(|pair| pair.1, &costs)))
            .ratio(middle(|pair| pair.0 / pair.1, &costs), MOST),
    );
}

fn pgrep() -> Command {
    let mut pgrep = bare(installed("pgrep").unwrap());
    pgrep.args(["-f", PATTERN]);
    pgrep
}

fn measure(site: &Site, wanted: Wanted) -> Vec<Pair> {
    let (mut monitor, mut pgrep) = (wanted.command(site), pgrep());
    let pair = |_| {
        // No run knows what an earlier one has found.
        let _ = fs::remove_dir_all(site.path("state"));
        if !matches!(wanted, Wanted::Hung) {
            let (ours, theirs) = (run(&mut monitor), run(&mut pgrep));
            let codes = (ours.code, theirs.code);
            assert_eq!(codes, (Some(1), Some(1)), "none is found: {}", site.log());
            return (millis(ours.cpu), millis(theirs.cpu));
        }
        let server = site.start();
        for pid in site.servers() {
            kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
        }
        let (theirs, ours) = (run(&mut pgrep), run(&mut monitor));
        let codes = (ours.code, theirs.code);
        assert_eq!(codes, (Some(1), Some(0)), "{}", site.log());
        assert!(!server.is_alive(), "it was found: {}", site.log());
        drop(server);
        clear(site);
        let _ = fs::remove_file(site.path("notes"));
        (millis(ours.cpu), millis(theirs.cpu))
    };
    (0..rounds(PAIRS)).map(pair).collect()
}
