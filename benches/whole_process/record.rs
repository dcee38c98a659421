//! The system calls of a healthy run that finds a valid record of the server in its state directory,
//! against the program of an earlier commit.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use crate::binary::{self, BASELINE};
use crate::child::{bare, installed, rounds, run};
use crate::namespace;
use crate::rig::Site;
use crate::table::{Row, Table};

/// The most system calls that a run may make more than that one.
const MOST_MORE: u64 = 10;
const RUNS: usize = 5;

const WHAT: &str = "healthy http with a record of the server";

pub(crate) fn calls(table: &mut Table) {
    if installed("strace").is_none() {
        return table.push(Row::skipped(WHAT, "strace is not installed"));
    }
    namespace::run(table, "record", WHAT);
}

/// In the namespaces.
pub(crate) fn inside(table: &mut Table) {
    let site = Site::new("");
    let _server = site.start();
    let ours = Measured::of(&site, binary::monitor(), "ours");
    let monitor = command(&site, binary::monitor(), "ours");
    table.command("record", &monitor, &site.path(""));
    table.note(&format!(
        "record: the state directory holds {:?}",
        ours.state
    ));
    let what = format!("{WHAT}: system calls");
    let Some(baseline) = env::var_os(BASELINE) else {
        table.push(Row::new(&what).monitor(ours.describe()));
        let reason = format!("{BASELINE} does not name the program of an earlier commit");
        return table.push(Row::skipped(format!("{what}, against it"), &reason));
    };
    let before = Measured::of(&site, Path::new(&baseline), "before");
    let limit = before.repeated.total() + MOST_MORE;
    table.push(
        Row::new(&what)
            .monitor(ours.describe())
            .peer(before.describe())
            .limit(
                format!("≤ {limit}, {MOST_MORE} more"),
                ours.repeated.total() <= limit,
            ),
    );
    table.push(
        Row::new(format!("{WHAT}: reads of other processes in /proc"))
            .monitor(ours.others.to_string())
            .peer(before.others.to_string())
            .limit("≤ 0", ours.others == 0),
    );
    let names: BTreeSet<&String> = (ours.repeated.0.keys())
        .chain(before.repeated.0.keys())
        .collect();
    let changes: Vec<String> = names
        .iter()
        .map(|name| (name, ours.repeated.of(name), before.repeated.of(name)))
        .filter(|(_, ours, before)| ours != before)
        .map(|(name, ours, before)| format!("{name} {before} to {ours}"))
        .collect();
    table.note(&format!("record: what changed: {}", changes.join(", ")));
}

/// System calls by name.
struct Calls(BTreeMap<String, u64>);

impl Calls {
    fn total(&self) -> u64 {
        self.0.values().sum()
    }

    fn of(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or_default()
    }
}

struct Measured {
    /// Of the first run, which has no record.
    first: u64,
    /// Of a later run: of several, that with the fewest.
    repeated: Calls,
    /// How often a later run named another process's files in /proc, or read another's memory.
    others: usize,
    /// The names of the files that the runs left in their state directory.
    state: Vec<String>,
}

impl Measured {
    fn of(site: &Site, program: &Path, name: &str) -> Self {
        let first = count(site, program, name).total();
        let repeated = (0..rounds(RUNS))
            .map(|_| count(site, program, name))
            .min_by_key(Calls::total)
            .unwrap();
        let entries = fs::read_dir(state(site, name)).into_iter().flatten();
        let state = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        Self {
            first,
            repeated,
            others: looks_at_others(site, program, name),
            state,
        }
    }

    fn describe(&self) -> String {
        let total = self.repeated.total();
        let is_recorded = self.state.iter().any(|name| {
            Path::new(name)
                .extension()
                .is_some_and(|extension| extension == "json")
        });
        let record = if is_recorded { "" } else { ", no record" };
        format!("{total} (first run: {}{record})", self.first)
    }
}

fn state(site: &Site, name: &str) -> PathBuf {
    site.path(&format!("state-{name}"))
}

fn command(site: &Site, program: &Path, name: &str) -> Command {
    let mut monitor = bare(program);
    monitor
        .args(["--url", &site.url()])
        .args(["--restart-cmd", &site.manage("start")])
        .arg("--logfile")
        .arg(site.path(&format!("{name}.log")))
        .arg("--state-dir")
        .arg(state(site, name));
    monitor
}

fn strace(site: &Site, program: &Path, name: &str, options: &[&str]) -> String {
    let report = site.path("strace");
    let command = command(site, program, name);
    let mut traced = bare(installed("strace").unwrap());
    traced
        .arg("-f")
        .args(options)
        .arg("-o")
        .arg(&report)
        .arg(command.get_program())
        .args(command.get_args());
    assert_eq!(run(&mut traced).code, Some(0), "{traced:?}");
    fs::read_to_string(report).unwrap()
}

fn count(site: &Site, program: &Path, name: &str) -> Calls {
    let report = strace(site, program, name, &["-c"]);
    // % time, seconds, usecs/call, calls, errors if there are any, name
    let calls = report.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let calls = words.get(3)?.parse().ok()?;
        Some(((*words.last()?).to_owned(), calls))
    });
    Calls(calls.filter(|(name, _)| name != "total").collect())
}

fn looks_at_others(site: &Site, program: &Path, name: &str) -> usize {
    let report = strace(
        site,
        program,
        name,
        &["-e", "trace=%file,process_vm_readv,pidfd_open"],
    );
    report
        .lines()
        .filter(|line| {
            let names_another = line
                .split("\"/proc/")
                .nth(1)
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
            names_another || line.contains("process_vm_readv") || line.contains("pidfd_open")
        })
        .count()
}
