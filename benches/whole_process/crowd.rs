//! Finding the server among 5,000 processes, against `pgrep -f`.
//!
//! A run that searches also checks, logs and runs a command (`exit 1`, so that it ends at once). What
//! the search costs is what such a run costs more among the 5,000 than among a few processes; the same
//! is taken of pgrep. All of it happens in a private PID namespace, whose end ends the 5,000.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::child::{bare, installed, median, millis, run};
use crate::rig::{self, MONITOR};
use crate::table::{Row, Table};

/// The argument that the bench gives itself in the namespace.
pub(crate) const INSIDE: &str = "inside-the-namespace";

const CROWD: usize = 5_000;
const PAIRS: usize = 15;
/// What a server's arguments have, for pgrep.
const PATTERN: &str = "manage.py|main.py";
const MOST: f64 = 0.3;

pub(crate) fn search(table: &mut Table) {
    let what = format!("search among {CROWD} processes, against pgrep -f: CPU");
    let (Some(unshare), Some(_)) = (installed("unshare"), installed("pgrep")) else {
        return table.push(Row::skipped(what, "unshare or pgrep is not installed"));
    };
    let mut inside = bare(unshare);
    if !rig::is_root() {
        inside.args(["--user", "--map-root-user"]);
    }
    inside
        .args(["--pid", "--fork", "--mount-proc", "--kill-child"])
        .arg(std::env::current_exe().unwrap())
        .arg(INSIDE);
    inside.stdout(Stdio::piped());
    let output = inside.output().unwrap();
    if !output.status.success() {
        let reason = "no private PID namespace, or not so many processes, can be made here";
        return table.push(Row::skipped(what, reason));
    }
    let figures: Vec<f64> = String::from_utf8(output.stdout)
        .unwrap()
        .split_whitespace()
        .map(|figure| figure.parse().unwrap())
        .collect();
    for (rule, figures) in ["by its rule", "by --process-pattern"]
        .iter()
        .zip(figures.chunks(3))
    {
        table.push(
            Row::new(format!("{what}, {rule}"))
                .monitor(format!("{:.1} ms", figures[0]))
                .peer(format!("{:.1} ms", figures[1]))
                .ratio(figures[2], MOST),
        );
    }
}

/// In the namespace: prints, for each rule, the CPU time of our search and of pgrep's in
/// milliseconds, and the ratio.
pub(crate) fn inside() {
    let folder = tempfile::tempdir().unwrap();
    let reserved =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    // Bound, and nobody listens: a check is refused at once.
    reserved.bind(&any.into()).unwrap();
    let port = reserved.local_addr().unwrap().as_socket().unwrap().port();
    let pgrep = installed("pgrep").unwrap();
    let rules: [&[&str]; 2] = [&[], &["--process-pattern", PATTERN]];
    let among_few = rules.map(|rule| measure(&folder, port, rule, &pgrep));
    let _crowd: Vec<Child> = (0..CROWD)
        .map(|_| bare("/bin/sleep").arg("3600").spawn().unwrap())
        .collect();
    for (rule, few) in rules.iter().zip(among_few) {
        let (few_ours, few_theirs) = (
            median(few.iter().map(|pair| pair.0).collect()),
            median(few.iter().map(|pair| pair.1).collect()),
        );
        let costs: Vec<(f64, f64)> = measure(&folder, port, rule, &pgrep)
            .iter()
            .map(|(ours, theirs)| (ours - few_ours, theirs - few_theirs))
            .collect();
        println!(
            "{} {} {}",
            median(costs.iter().map(|pair| pair.0).collect()),
            median(costs.iter().map(|pair| pair.1).collect()),
            median(costs.iter().map(|pair| pair.0 / pair.1).collect())
        );
    }
}

/// CPU times of whole runs, ours and pgrep's.
fn measure(folder: &TempDir, port: u16, rule: &[&str], pgrep: &Path) -> Vec<(f64, f64)> {
    let mut monitor: Command = bare(MONITOR);
    monitor.args(["--url", &format!("http://127.0.0.1:{port}/")]);
    monitor.args(["--restart-cmd", "exit 1"]).args(rule);
    monitor
        .arg("--logfile")
        .arg(folder.path().join("monitor.log"));
    monitor.arg("--state-dir").arg(folder.path().join("state"));
    let mut pgrep = bare(pgrep);
    pgrep.args(["-f", PATTERN]);
    (0..PAIRS)
        .map(|_| {
            let (ours, theirs) = (run(&mut monitor), run(&mut pgrep));
            assert_eq!(
                (ours.code, theirs.code),
                (Some(1), Some(1)),
                "none is found"
            );
            (millis(ours.cpu), millis(theirs.cpu))
        })
        .collect()
}
