//! Restarts of the stand-in: what the monitor adds to the server's own time.

use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::binary;
use crate::child::{bare, median, millis, rounds, run};
use crate::rig::{self, Site};
use crate::table::{Row, Table};

/// Pairs of restarts, by the monitor and by hand.
const PAIRS: usize = 15;
/// The monitor's check of a hung server.
const TIMEOUT: Duration = Duration::from_millis(500);

pub(crate) fn restarts(table: &mut Table) {
    let program = std::path::Path::new(rig::MONITOR).with_file_name("examples/stand_in");
    if !program.exists() {
        let reason = "run `cargo build --locked --release --example stand_in` before";
        return table.push(Row::skipped("restarts", reason));
    }
    dead(table);
    hung(table);
}

fn dead(table: &mut Table) {
    let site = Site::new("bind-after = 100");
    let pairs: Vec<(f64, f64)> = (0..rounds(PAIRS))
        .map(|_| {
            let ours = millis(heal(&site));
            clear(&site);
            let by_hand = millis(start_by_hand(&site));
            clear(&site);
            (ours, by_hand)
        })
        .collect();
    report(
        table,
        "restart of a dead server, ready in 100 ms",
        &pairs,
        100.0,
    );
}

fn hung(table: &mut Table) {
    let site = Site::new("on-term = 50\nbind-after = 100");
    let pairs: Vec<(f64, f64)> = (0..rounds(PAIRS))
        .map(|_| {
            let server = site.start();
            let client = site.idle_client();
            let ours = millis(heal(&site).saturating_sub(TIMEOUT));
            drop((client, server));
            clear(&site);

            let server = site.start();
            let client = site.idle_client();
            let began = Instant::now();
            for pid in site.servers() {
                kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
            }
            while server.is_alive() {
                std::thread::sleep(Duration::from_micros(300));
            }
            start_by_hand(&site);
            let by_hand = millis(began.elapsed());
            drop(client);
            clear(&site);
            (ours, by_hand)
        })
        .collect();
    report(
        table,
        "restart of a hung server, gone in 50 ms, ready in 100 ms (less the 0.5 s of the check)",
        &pairs,
        120.0,
    );
}

fn report(table: &mut Table, what: &str, pairs: &[(f64, f64)], most: f64) {
    let added: Vec<f64> = pairs.iter().map(|(ours, by_hand)| ours - by_hand).collect();
    let least = added.iter().copied().fold(f64::MAX, f64::min);
    let greatest = added.iter().copied().fold(f64::MIN, f64::max);
    let added = median(added);
    table.push(
        Row::new(what)
            .monitor(format!(
                "{:.1} ms: adds {added:.1} ms ({least:.1} to {greatest:.1})",
                median(pairs.iter().map(|pair| pair.0).collect()),
            ))
            .peer(format!(
                "{:.1} ms by hand",
                median(pairs.iter().map(|pair| pair.1).collect())
            ))
            .limit(format!("adds ≤ {most:.0} ms"), added <= most),
    );
}

/// One run of the monitor, which restarts the server.
fn heal(site: &Site) -> Duration {
    let mut monitor: Command = bare(binary::monitor());
    let timeout = TIMEOUT.as_secs_f64().to_string();
    monitor.args(site.monitor().get_args());
    monitor.args(["--timeout", &timeout]);
    let spent = run(&mut monitor);
    assert_eq!(spent.code, Some(0), "{}", site.log());
    assert!(site.answers());
    spent.wall
}

/// The restart command by itself, until the server answers.
fn start_by_hand(site: &Site) -> Duration {
    let began = Instant::now();
    let mut shell = bare("/bin/bash");
    let mut command = shell.args(["-c", &site.manage("start")]).spawn().unwrap();
    while !site.answers() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let took = began.elapsed();
    command.wait().unwrap();
    took
}

/// Ends what was started, so that the server is dead again.
pub(crate) fn clear(site: &Site) {
    for pid in site.servers() {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    rig::wait_until("no server is left", || site.servers().is_empty());
}
