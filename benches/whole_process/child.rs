//! One process from exec to exit: wall time, CPU time and peak memory of it alone.
#![allow(
    unsafe_code,
    reason = "wait4 tells of one child what getrusage tells only of all, and pre_exec makes std fork"
)]

use std::ffi::OsStr;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::libc;

/// What a process has spent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spent {
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
    pub(crate) peak_kib: i64,
    pub(crate) code: Option<i32>,
}

/// A command in a bare environment, with nothing to read and nobody to read it.
pub(crate) fn bare(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Where that program is installed.
pub(crate) fn installed(name: &str) -> Option<PathBuf> {
    [
        "/usr/bin",
        "/bin",
        "/usr/lib/nagios/plugins",
        "/usr/lib64/nagios/plugins",
    ]
    .iter()
    .map(|folder| Path::new(folder).join(name))
    .find(|path| path.exists())
}

/// Runs a command to its end.
#[allow(clippy::zombie_processes, reason = "wait4 waits for it")]
pub(crate) fn run(command: &mut Command) -> Spent {
    let began = Instant::now();
    let child = command
        .spawn()
        .unwrap_or_else(|reason| panic!("{command:?}: {reason}"));
    let pid = libc::pid_t::try_from(child.id()).unwrap();
    let mut status = 0;
    // SAFETY: a `rusage` is plain numbers, for which zero is valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to locals that outlive the call; nobody else waits for the child.
    let ended = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
    let wall = began.elapsed();
    assert_eq!(ended, pid, "{}", std::io::Error::last_os_error());
    Spent {
        wall,
        cpu: duration(usage.ru_utime) + duration(usage.ru_stime),
        peak_kib: usage.ru_maxrss,
        code: ExitStatus::from_raw(status).code(),
    }
}

/// The peak memory of a command, in KiB.
pub(crate) fn peak(mut command: Command) -> i64 {
    // A child that shares our memory until its exec, as std makes it, starts with our peak for its own
    // (setmax_mm_hiwater_rss in the kernel's exec). One that is forked starts with our dirty pages only.
    // SAFETY: the closure does nothing at all.
    unsafe { command.pre_exec(|| Ok(())) };
    run(&mut command).peak_kib
}

fn duration(time: libc::timeval) -> Duration {
    let part = |number| u64::try_from(number).unwrap();
    Duration::from_secs(part(time.tv_sec)) + Duration::from_micros(part(time.tv_usec))
}

/// Asks for few runs of each measurement.
pub(crate) const QUICK: &str = "MONITOR_BENCH_QUICK";

/// How often to measure: so often, or three times if `QUICK` is set.
pub(crate) fn rounds(full: usize) -> usize {
    if std::env::var_os(QUICK).is_some() {
        full.min(3)
    } else {
        full
    }
}

/// The middle of these.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    if figures.len() % 2 == 1 {
        figures[middle]
    } else {
        f64::midpoint(figures[middle - 1], figures[middle])
    }
}

pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
