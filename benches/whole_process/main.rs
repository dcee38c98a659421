//! What a run of the built monitor costs as a whole process, measured against peers in the same
//! run, with the target beside each figure:
//!
//! ```text
//! cargo build --locked --release --example stand_in
//! cargo bench --locked --bench whole_process [-- SECTION…]
//! ```
//!
//! A peer that is not installed is told as `skipped`. Best run as root, with nothing else at work.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::print_stdout, clippy::print_stderr, missing_docs)]

mod bounded;
mod child;
mod crowd;
mod healing;
mod healthy;
mod look;
mod peers;
#[path = "../../tests/rig/mod.rs"]
mod rig;
mod table;

use std::fs;

use table::{Row, Table};

/// What one section measures, by the name that chooses it.
type Section = (&'static str, fn(&mut Table));

const SECTIONS: [Section; 10] = [
    ("size", size),
    ("http", healthy::http),
    ("https", healthy::https),
    ("instructions", healthy::instructions),
    ("calls", healthy::calls),
    ("timeout", bounded::timeouts),
    ("restart", healing::restarts),
    ("search", crowd::search),
    ("look", look::times),
    ("sentences", look::sentences),
];

/// The most that the stripped binary may have, in bytes.
const LARGEST: u64 = 5_000_000;

fn main() {
    // `cargo bench` adds a flag of its own.
    let chosen: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    if chosen.iter().any(|name| name == crowd::INSIDE) {
        return crowd::inside();
    }
    if chosen.iter().any(|name| name == look::INSIDE) {
        return look::inside();
    }
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
    println!("{}\n", machine());
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
    let size = fs::metadata(rig::MONITOR).unwrap().len();
    table.push(
        Row::new("release binary, stripped")
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
