//! What a run of the packages' monitor costs as a whole process, measured against peers in the same
//! run, with the target beside each figure:
//!
//! ```text
//! cargo build --locked --release --example stand_in
//! cargo bench --locked --bench whole_process [-- SECTION…]
//! ```
//!
//! A peer that is not installed is reported as `skipped`. Run it as root, with no other load.
//!
//! Environment:
//!
//! - `MONITOR_BENCH_BINARY`: the program to measure; otherwise the packages' x86_64 program, which
//!   `packaging/build --program` builds if it is missing or older than the sources.
//! - `MONITOR_BENCH_BASELINE`: the program of an earlier commit, for the section `record`.
//! - `MONITOR_BENCH_QUICK`: if set, at most three runs of each measurement.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::print_stdout, clippy::print_stderr, missing_docs)]

mod binary;
mod bounded;
mod child;
mod crowd;
mod healing;
mod healthy;
mod look;
mod lookalikes;
mod namespace;
mod peers;
mod record;
#[path = "../../tests/it/rig/mod.rs"]
mod rig;
mod table;

use std::fs;

use table::{Row, Table};

/// What one section measures, by the name that chooses it.
type Section = (&'static str, fn(&mut Table));

const SECTIONS: [Section; 12] = [
    ("size", size),
    ("http", healthy::http),
    ("https", healthy::https),
    ("instructions", healthy::instructions),
    ("calls", healthy::calls),
    ("record", record::calls),
    ("timeout", bounded::timeouts),
    ("restart", healing::restarts),
    ("search", crowd::search),
    ("lookalikes", lookalikes::restarts),
    ("look", look::times),
    ("sentences", look::sentences),
];

/// What runs in private namespaces of these sections.
const INSIDE: [Section; 4] = [
    ("record", record::inside),
    ("search", crowd::inside),
    ("lookalikes", lookalikes::inside),
    ("look", look::inside),
];

/// The most that the stripped binary may have, in bytes.
const LARGEST: u64 = 5_000_000;

fn main() {
    // A look-alike has huge arguments: this comes before they are read.
    if let Ok(descriptors) = std::env::var(lookalikes::DESCRIPTORS) {
        return lookalikes::pretend(&descriptors);
    }
    if let Ok(section) = std::env::var(namespace::INSIDE) {
        let (_, measure) = INSIDE.iter().find(|(name, _)| *name == section).unwrap();
        let mut table = Table::default();
        measure(&mut table);
        return table.hand_over();
    }
    // `cargo bench` adds a flag of its own.
    let chosen: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    if chosen.iter().any(|name| name == look::HOLD) {
        return look::hold();
    }
    for name in &chosen {
        assert!(
            SECTIONS.iter().any(|(section, _)| section == name),
            "no section {name}; there are {:?}",
            SECTIONS.map(|(section, _)| section)
        );
    }
    println!("{}\n\nMeasured: {}\n", machine(), binary::describe());
    let mut table = Table::default();
    for (name, measure) in SECTIONS {
        if chosen.is_empty() || chosen.iter().any(|chosen| chosen == name) {
            eprintln!("measuring: {name}");
            measure(&mut table);
        }
    }
    println!("{table}");
}

fn size(table: &mut Table) {
    let size = fs::metadata(binary::monitor()).unwrap().len();
    table.push(
        Row::new("size of the program")
            .monitor(format!("{size} bytes"))
            .limit(format!("≤ {LARGEST}"), size <= LARGEST),
    );
}

/// What a reader needs to know of the machine, and nothing that names it.
fn machine() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = read("/proc/loadavg");
    format!(
        "{cores} cores ({model}), Linux {}, load average before: {}",
        read("/proc/sys/kernel/osrelease").trim(),
        load.split(' ').next().unwrap_or_default()
    )
}
