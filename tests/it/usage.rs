//! Bad input is one clear line and exit status 2, before anything is touched.
use std::process::Command;

use crate::rig::{MONITOR, in_private_namespace, run};

#[test]
fn hazard_22_bad_input_is_refused_before_anything_is_touched() {
    // A pattern that is not refused would match, and end, every process of the machine.
    in_private_namespace(refuse_bad_input);
}

fn refuse_bad_input() {
    let directory = tempfile::tempdir().unwrap();
    let garbage = directory.path().join("garbage.pem");
    std::fs::write(&garbage, "no certificate\n").unwrap();
    let garbage = garbage.to_str().unwrap();
    let table: &[(&[&str], &str)] = &[
        (&["--log", "/"], "--logfile /: this names no file"),
        (&["--restart", ""], "--restart-cmd is empty"),
        (&["--time", "0"], "--timeout 0: give seconds"),
        (&["--timeout", "0"], "--timeout"),
        (&["--timeout", "-1"], "--timeout"),
        (&["--timeout", "nan"], "--timeout"),
        (&["--timeout", "inf"], "--timeout"),
        (&["--timeout", "1e9"], "--timeout"),
        (&["--timeout", "100000"], "--timeout"),
        (&["--timeout", "ten"], "--timeout"),
        (&["--timeout", ""], "--timeout"),
        (&["--stop-timeout", "0"], "--stop-timeout"),
        (&["--start-timeout", "0.0"], "--start-timeout"),
        (&["--retry-delay", "-0.5"], "--retry-delay"),
        (&["--retries", "-1"], "--retries"),
        (&["--log-history-minutes", "0"], "--log-history-minutes"),
        (&["--server-log", "a***"], "--server-log"),
        (&["--retries", "101"], "--retries"),
        (&["--retries", "1.5"], "--retries"),
        (&["--url", ""], "--url"),
        (&["--url", "localhost"], "--url"),
        (&["--url", "localhost:9143"], "--url"),
        (&["--url", "ftp://localhost"], "--url"),
        (&["--url", "http://"], "--url"),
        (&["--url", "http://localhost:0"], "--url"),
        (&["--url", "http://localhost:65536"], "--url"),
        (&["--url", "http://a b/"], "--url"),
        (&["--logfile", ""], "--logfile"),
        (&["--logfile", "/"], "--logfile"),
        (&["--logfile", "logs/"], "--logfile"),
        (&["--logfile", ".."], "--logfile"),
        (&["--restart-cmd", ""], "--restart-cmd"),
        (&["--restart-cmd", "  "], "--restart-cmd"),
        (&["--log-level", "loud"], "--log-level"),
        (&["--process-pattern", ""], "--process-pattern"),
        (&["--process-pattern", ".*"], "--process-pattern"),
        (&["--process-pattern", "."], "--process-pattern"),
        (&["--process-pattern", "\\w+"], "--process-pattern"),
        (&["--process-pattern", "("], "--process-pattern"),
        (&["--user", "no-such-user-here"], "--user"),
        (&["--ca-cert", "/nonexistent/ca.pem"], "--ca-cert"),
        (&["--ca-cert", garbage], "--ca-cert"),
        (
            &["--ca-cert", "/etc/passwd", "--no-verify-ssl"],
            "--ca-cert",
        ),
        (&["--tiemout", "3"], "--timeout"),
        (&["--url"], "--url"),
        (&["extra"], "extra"),
    ];
    for (arguments, named) in table {
        let work = tempfile::tempdir().unwrap();
        let mut monitor = Command::new(MONITOR);
        monitor.current_dir(work.path());
        monitor.args([
            "--url",
            "http://127.0.0.1:1",
            "--logfile",
            "log/monitor.log",
            "--restart-cmd",
            "touch ran",
        ]);
        let refused = run(monitor.args(["--state-dir", "state"]).args(*arguments));
        assert_eq!(refused.code(), Some(2), "{arguments:?}: {}", refused.stderr);
        assert_eq!(
            refused.stderr.lines().count(),
            1,
            "{arguments:?}: {}",
            refused.stderr
        );
        assert!(
            refused.stderr.contains(named),
            "{arguments:?}: {}",
            refused.stderr
        );
        assert_eq!(refused.stdout, "");
        assert_eq!(
            std::fs::read_dir(work.path()).unwrap().count(),
            0,
            "{arguments:?}"
        );
    }
}

#[test]
fn what_is_required_is_named() {
    let refused = run(&mut Command::new(MONITOR));
    assert_eq!(refused.code(), Some(2));
    let expected = "monitor_myvnc: the following required arguments were not provided: \
        --url <URL> --logfile <FILE> --restart-cmd <COMMAND> (see --help)\n";
    assert_eq!(refused.stderr, expected);
}

#[test]
fn without_a_file_the_packages_file_is_checked() {
    let checked = run(Command::new(MONITOR).arg("--check-config"));
    let path = "/etc/monitor_myvnc.toml";
    assert!(
        (checked.stdout + &checked.stderr).contains(path) || std::path::Path::new(path).exists(),
    );
}

#[test]
fn help_names_every_option_within_80_columns() {
    let help = run(Command::new(MONITOR).arg("--help"));
    assert_eq!(help.code(), Some(0));
    for option in [
        "--url",
        "--logfile",
        "--restart-cmd",
        "--config",
        "--server",
        "--check-config",
        "--collect-diagnostics",
        "--dry-run",
        "--quiet",
        "--timeout",
        "--no-verify-ssl",
        "--ca-cert",
        "--debug",
        "--log-level",
        "--stop-timeout",
        "--start-timeout",
        "--retries",
        "--retry-delay",
        "--process-pattern",
        "--user",
        "--state-dir",
        "--log-history-minutes",
        "--server-log",
        "--dump-cmd",
        "--help",
        "--version",
    ] {
        assert!(help.stdout.contains(&format!(" {option}")), "{option}");
    }
    for line in help.stdout.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[test]
fn the_version_is_that_of_the_package() {
    let version = run(Command::new(MONITOR).arg("--version"));
    assert_eq!(version.code(), Some(0));
    assert_eq!(
        version.stdout,
        concat!("monitor_myvnc ", env!("CARGO_PKG_VERSION"), "\n")
    );
}

#[test]
fn the_last_of_a_repeated_flag_counts() {
    let version = run(Command::new(MONITOR).args(["--timeout", "1", "--timeout", "0"]));
    assert_eq!(version.code(), Some(2));
    assert!(
        version.stderr.contains("--timeout 0: give seconds"),
        "{}",
        version.stderr
    );
}

#[test]
fn every_option_of_the_readme_is_one_of_the_program() {
    let readme =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let mut help = run(Command::new(MONITOR).arg("--help")).stdout;
    for verb in [
        "status", "history", "report", "pause", "resume", "inhibit", "notify",
    ] {
        help += &run(Command::new(MONITOR).args([verb, "--help"])).stdout;
    }
    let words = readme.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    let ours = words.filter(|word| word.starts_with("--") && !word.ends_with('-'));
    for option in ours.filter(|option| {
        !matches!(
            *option,
            "--release" | "--example" | "--locked" | "--now" | "--host" | "--show-keys"
        )
    }) {
        assert!(help.contains(option), "{option}");
    }
}
