//! Healthy checks, against curl and `check_http`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::binary;
use crate::child::{Spent, bare, installed, median, millis, peak, rounds, run};
use crate::peers::{self, http as http_url, https as https_url};
use crate::table::{Row, Table};

/// Pairs of runs, ours and the peer's, for a median of times.
const PAIRS: usize = 100;
/// Pairs for peak memory, which hardly varies.
const MEMORY_PAIRS: usize = 9;
const STORE: &str = "/etc/ssl/certs/ca-certificates.crt";
/// The most system calls of a healthy http check.
const MOST_CALLS: u64 = 160;
/// The most threads.
const MOST_THREADS: u64 = 2;

/// The most that ours may be of the peer's.
struct Targets {
    wall: f64,
    cpu: f64,
    memory: f64,
}

/// The packages' program has a shared unwinder and no packed relocations: both count for memory.
const CHECK_HTTP: Targets = Targets {
    wall: 1.0,
    cpu: 1.0,
    memory: 1.2,
};

/// A folder for the monitor, and the monitor's command in there.
struct Place(TempDir);

impl Place {
    /// With a copy of the monitor, as a package installs one: what a linker has written, piece by
    /// piece, lies in smaller pieces in the page cache, and costs more to map.
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::copy(binary::monitor(), place.file("monitor_myvnc")).unwrap();
        place
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// As cron runs it, but for `--quiet`: the lines that it prints are part of the cost.
    fn monitor(&self, url: &str) -> Command {
        let mut monitor = bare(self.file("monitor_myvnc"));
        monitor.args(["--url", url, "--restart-cmd", "/nonexistent/start"]);
        monitor.arg("--logfile").arg(self.file("monitor.log"));
        monitor.arg("--state-dir").arg(self.file("state"));
        monitor
    }
}

pub(crate) fn http(table: &mut Table) {
    let place = Place::new();
    let port = peers::healthy();
    let url = http_url(port);
    let monitor = || place.monitor(&url);
    let targets = Targets {
        wall: 0.30,
        cpu: 0.25,
        memory: 0.40,
    };
    compare(
        table,
        "http",
        "curl",
        &targets,
        monitor,
        |curl| silent_curl(curl, &url),
        place.0.path(),
    );
    compare(
        table,
        "http",
        "check_http",
        &CHECK_HTTP,
        monitor,
        |plugin| check_http(plugin, port),
        place.0.path(),
    );
}

pub(crate) fn https(table: &mut Table) {
    let place = Place::new();
    let (port, ca) = peers::healthy_tls();
    let Ok(store) = fs::read_to_string(STORE) else {
        return table.push(Row::skipped("https", &format!("no {STORE}")));
    };
    let file = place.file("store.pem");
    // The last of all, as far from the beginning as it can be.
    fs::write(&file, format!("{store}\n{ca}")).unwrap();
    let url = https_url(port);
    let monitor = || {
        let mut monitor = place.monitor(&url);
        monitor.env("SSL_CERT_FILE", &file);
        monitor
    };
    assert_eq!(run(&mut monitor()).code, Some(0), "it trusts the store");
    assert_ne!(run(&mut place.monitor(&url)).code, Some(0), "it verifies");
    let roots = store.matches("BEGIN CERTIFICATE").count() + 1;
    let what = format!("https, {roots} roots");
    let targets = Targets {
        wall: 0.15,
        cpu: 0.12,
        memory: 0.40,
    };
    compare(
        table,
        &what,
        "curl",
        &targets,
        monitor,
        |curl| {
            let mut curl = silent_curl(curl, &url);
            curl.arg("--cacert").arg(&file);
            curl
        },
        place.0.path(),
    );
    // It does not verify; ours does.
    compare(
        table,
        &what,
        "check_http",
        &CHECK_HTTP,
        monitor,
        |plugin| {
            let mut plugin = check_http(plugin, port);
            plugin.arg("--ssl");
            plugin
        },
        place.0.path(),
    );
}

fn silent_curl(curl: &Path, url: &str) -> Command {
    let mut curl = bare(curl);
    curl.args(["-s", "-o", "/dev/null", url]);
    curl
}

fn check_http(plugin: &Path, port: u16) -> Command {
    let mut plugin = bare(plugin);
    plugin.args(["-I", "127.0.0.1", "-p", &port.to_string()]);
    plugin
}

fn compare(
    table: &mut Table,
    what: &str,
    peer: &str,
    targets: &Targets,
    ours: impl Fn() -> Command,
    theirs: impl Fn(&Path) -> Command,
    folder: &Path,
) {
    let Some(program) = installed(peer) else {
        let reason = format!("{peer} is not installed");
        return table.push(Row::skipped(format!("{what}, against {peer}"), &reason));
    };
    let (mut our_command, mut their_command) = (ours(), theirs(&program));
    let healthy = |command: &mut Command| {
        let spent = run(command);
        assert_eq!(spent.code, Some(0), "{command:?}");
        spent
    };
    table.command(what, &our_command, folder);
    table.command(&format!("{what}, {peer}"), &their_command, folder);
    for _ in 0..5 {
        healthy(&mut our_command);
        healthy(&mut their_command);
    }
    let pairs: Vec<(Spent, Spent)> = (0..rounds(PAIRS))
        .map(|turn| {
            // Neither always runs in the other's wake.
            if turn % 2 == 0 {
                let first = healthy(&mut our_command);
                (first, healthy(&mut their_command))
            } else {
                let first = healthy(&mut their_command);
                (healthy(&mut our_command), first)
            }
        })
        .collect();
    let mut times = |name: &str, most, figure: fn(&Spent) -> f64| {
        let of = |side: fn(&(Spent, Spent)) -> &Spent| {
            median(pairs.iter().map(|pair| figure(side(pair))).collect())
        };
        let ratio = median(
            pairs
                .iter()
                .map(|(ours, theirs)| figure(ours) / figure(theirs))
                .collect(),
        );
        table.push(
            Row::new(format!("{what}, against {peer}: {name}"))
                .monitor(format!("{:.2} ms", of(|pair| &pair.0)))
                .peer(format!("{:.2} ms", of(|pair| &pair.1)))
                .ratio(ratio, most),
        );
    };
    times("wall", targets.wall, |spent| millis(spent.wall));
    times("CPU", targets.cpu, |spent| millis(spent.cpu));
    let peaks: Vec<(f64, f64)> = (0..rounds(MEMORY_PAIRS))
        .map(|_| (kib(ours()), kib(theirs(&program))))
        .collect();
    table.push(
        Row::new(format!("{what}, against {peer}: peak memory"))
            .monitor(format!(
                "{} KiB",
                median(peaks.iter().map(|pair| pair.0).collect())
            ))
            .peer(format!(
                "{} KiB",
                median(peaks.iter().map(|pair| pair.1).collect())
            ))
            .ratio(
                median(peaks.iter().map(|pair| pair.0 / pair.1).collect()),
                targets.memory,
            ),
    );
}

fn kib(command: Command) -> f64 {
    i32::try_from(peak(command)).unwrap().into()
}

pub(crate) fn instructions(table: &mut Table) {
    let what = "http, against curl: instructions";
    let Some(valgrind) = installed("valgrind") else {
        return table.push(Row::skipped(what, "valgrind is not installed"));
    };
    let Some(curl) = installed("curl") else {
        return table.push(Row::skipped(what, "curl is not installed"));
    };
    let place = Place::new();
    let url = http_url(peers::healthy());
    // The first run has a state directory to make.
    run(&mut place.monitor(&url));
    let ours = count_instructions(&valgrind, &place.monitor(&url));
    let theirs = count_instructions(&valgrind, &silent_curl(&curl, &url));
    table.push(
        Row::new(what)
            .monitor(format!("{:.2} M", ours / 1e6))
            .peer(format!("{:.2} M", theirs / 1e6))
            .ratio(ours / theirs, 0.06),
    );
}

/// The instructions in user space, by callgrind.
fn count_instructions(valgrind: &Path, command: &Command) -> f64 {
    let mut counted = bare(valgrind);
    counted
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(command.get_program())
        .args(command.get_args())
        .stderr(Stdio::piped());
    let output = counted.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    said.lines()
        .find_map(|line| line.split_once("Collected : "))
        .and_then(|(_, count)| count.trim().parse().ok())
        .unwrap_or_else(|| panic!("no count: {said}"))
}

pub(crate) fn calls(table: &mut Table) {
    let Some(strace) = installed("strace") else {
        return table.push(Row::skipped(
            "http: system calls",
            "strace is not installed",
        ));
    };
    let place = Place::new();
    let port = peers::healthy();
    let by_name = format!("http://localhost:{port}/");
    for (what, url) in [("by address", http_url(port)), ("by name", by_name)] {
        run(&mut place.monitor(&url));
        let (calls, threads) = trace(&strace, &place.monitor(&url), &place.file("calls"));
        let row = Row::new(format!("http {what}: system calls")).monitor(calls.to_string());
        table.push(if what == "by address" {
            row.limit(format!("≤ {MOST_CALLS}"), calls <= MOST_CALLS)
        } else {
            row
        });
        table.push(
            Row::new(format!("http {what}: threads"))
                .monitor(threads.to_string())
                .limit(format!("≤ {MOST_THREADS}"), threads <= MOST_THREADS),
        );
    }
}

/// System calls and threads of a command.
fn trace(strace: &Path, command: &Command, report: &Path) -> (u64, u64) {
    let mut traced = bare(strace);
    traced
        .args(["-f", "-c", "-o"])
        .arg(report)
        .arg(command.get_program())
        .args(command.get_args());
    assert_eq!(run(&mut traced).code, Some(0), "{traced:?}");
    let report = fs::read_to_string(report).unwrap();
    let count = |name: &str| {
        report
            .lines()
            .filter(|line| line.split_whitespace().next_back() == Some(name))
            .filter_map(|line| line.split_whitespace().nth(3)?.parse::<u64>().ok())
            .sum::<u64>()
    };
    (count("total"), 1 + count("clone") + count("clone3"))
}
