//! `--timeout 2` against whatever keeps a client waiting.

use std::fs;
use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use crate::binary;
use crate::child::{bare, installed, rounds, run};
use crate::peers;
use crate::table::{Row, Table};

const MOST: Duration = Duration::from_millis(2300);
/// The longest of so many runs counts.
const RUNS: usize = 3;
/// An address of the loopback interface where no name server listens.
const NAME_SERVER: &str = "127.53.53.53";
/// Binds its first two arguments over the resolver's files, then becomes the rest.
const WITH_RESOLVER: &str = "mount --bind \"$1\" /etc/resolv.conf && \
    mount --bind \"$2\" /etc/nsswitch.conf && shift 2 && exec \"$@\"";

pub(crate) fn timeouts(table: &mut Table) {
    for (name, url) in peers::stallers() {
        let folder = tempfile::tempdir().unwrap();
        let mut monitor = bare(binary::monitor());
        measure(table, name, &mut monitor, &url, folder.path());
    }
    stalled_resolver(table);
}

/// The restart command cannot be run, so a run ends with its check and touches nothing.
fn measure(
    table: &mut Table,
    name: &str,
    monitor: &mut Command,
    url: &str,
    folder: &std::path::Path,
) {
    let log = folder.join("monitor.log");
    monitor.args(["--url", url, "--timeout", "2"]);
    monitor.args(["--restart-cmd", "/nonexistent/start"]);
    monitor.arg("--logfile").arg(&log);
    monitor.arg("--state-dir").arg(folder.join("state"));
    let mut longest = Duration::ZERO;
    for _ in 0..rounds(RUNS) {
        let spent = run(monitor);
        assert_eq!(spent.code, Some(1), "{name}: it is unhealthy");
        longest = longest.max(spent.wall);
    }
    let said = fs::read_to_string(&log).unwrap_or_default();
    let stage = said
        .lines()
        .filter_map(|line| line.split_once("timed out after 2 seconds "))
        .map(|(_, stage)| stage)
        .next_back()
        .unwrap_or_else(|| panic!("{name}: no time-out:\n{said}"));
    table.push(
        Row::new(format!("--timeout 2, {name}"))
            .monitor(format!("{:.3} s {stage}", longest.as_secs_f64()))
            .limit("≤ 2.3 s", longest <= MOST),
    );
}

/// In a mount namespace of its own, where the resolver asks a name server that never answers.
fn stalled_resolver(table: &mut Table) {
    let name = "resolver stalls 20 s";
    let skip = |table: &mut Table, reason: &str| {
        table.push(Row::skipped(format!("--timeout 2, {name}"), reason));
    };
    let Some(unshare) = installed("unshare") else {
        return skip(table, "unshare is not installed");
    };
    let name_server = match UdpSocket::bind((NAME_SERVER, 53)) {
        Ok(name_server) => name_server,
        Err(reason) => return skip(table, &format!("{NAME_SERVER}:53: {reason}")),
    };
    let folder = tempfile::tempdir().unwrap();
    let (resolv, nsswitch) = (folder.path().join("resolv"), folder.path().join("nsswitch"));
    let options = "options timeout:20 attempts:1";
    fs::write(&resolv, format!("nameserver {NAME_SERVER}\n{options}\n")).unwrap();
    fs::write(&nsswitch, "passwd: files\ngroup: files\nhosts: dns\n").unwrap();
    let inside = || {
        let mut inside = bare(&unshare);
        inside
            .args(["--mount", "sh", "-c", WITH_RESOLVER, "sh"])
            .args([&resolv, &nsswitch]);
        inside
    };
    if run(inside().arg("true")).code != Some(0) {
        return skip(table, "no private mount namespace can be made here");
    }
    let mut monitor = inside();
    monitor.arg(binary::monitor());
    let url = "http://myvnc.example:9143/";
    measure(table, name, &mut monitor, url, folder.path());
    let mut question = [0; 512];
    name_server
        .set_read_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    assert!(name_server.recv(&mut question).is_ok(), "it was asked");
}
