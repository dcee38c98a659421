//! The log is best effort, the job is not.
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::rig;
use crate::rig::{Mounted, Run, Site, run};

/// Heals a dead server with that log, quietly.
fn heal(site: &Site, log: &Path) -> Run {
    run(site.monitor().arg("--quiet").arg("--logfile").arg(log))
}

fn assert_healed_with_one_complaint(site: &Site, healed: &Run, log: &Path, reason: &str) {
    assert_eq!(healed.code(), Some(1), "{}", healed.stderr);
    let expected = format!(
        "monitor_myvnc: cannot write the log {}: {reason}; this run continues without it\n",
        log.display()
    );
    assert_eq!(healed.stderr, expected);
    assert_eq!(healed.stdout, "");
    assert!(site.answers());
}

#[test]
fn hazard_16_a_full_disk_is_told_once_and_the_server_is_healed() {
    let site = Site::new("");
    let log = site.path("full.log");
    symlink("/dev/full", &log).unwrap();
    let healed = heal(&site, &log);
    assert_healed_with_one_complaint(&site, &healed, &log, "No space left on device");
}

#[test]
fn hazard_16_on_a_disk_without_a_free_byte_the_lock_holds_and_the_server_is_healed() {
    rig::in_private_namespace(|| {
        let site = Site::new("");
        let disk = site.path("disk");
        let _mounted = Mounted::full_tmpfs(&disk);
        let log = disk.join("monitor.log");
        let healed = run(site.monitor().args(["--quiet", "--logfile"]).arg(&log));
        assert_healed_with_one_complaint(&site, &healed, &log, "No space left on device");
    });
}

#[test]
fn a_limit_on_file_sizes_is_no_end_of_the_run() {
    let site = Site::new("");
    let log = site.path("monitor.log");
    fs::write(&log, vec![b'\n'; 1024]).unwrap();
    let mut limited = Command::new("sh");
    let monitor = site.monitor();
    limited
        .args(["-c", "ulimit -f 1; exec \"$@\"", "sh"])
        .arg(monitor.get_program())
        .args(monitor.get_args());
    let healed = run(limited.arg("--quiet"));
    assert_healed_with_one_complaint(&site, &healed, &log, "File too large");
}

#[test]
fn a_fifo_without_a_reader_does_not_hold_the_run() {
    let site = Site::new("");
    let log = site.path("fifo.log");
    assert!(Command::new("mkfifo").arg(&log).status().unwrap().success());
    let healed = heal(&site, &log);
    assert_healed_with_one_complaint(&site, &healed, &log, "not a regular file");
}

#[test]
fn a_restart_output_that_cannot_be_written_is_said_in_the_log() {
    let site = Site::new("");
    fs::create_dir(site.path("monitor.restart.log")).unwrap();
    assert_eq!(run(&mut site.monitor()).code(), Some(0));
    let expected = "[WARNING] Cannot write SITE/monitor.restart.log: Is a directory; the restart command's output is discarded\n";
    assert!(site.transcript().contains(expected), "{}", site.log());
    assert!(site.answers());
}

#[test]
fn hazard_42_a_restart_output_that_is_a_symlink_of_others_is_not_followed() {
    let site = Site::new("");
    let victim = site.path("victim");
    fs::write(&victim, "precious\n").unwrap();
    symlink(&victim, site.path("monitor.restart.log")).unwrap();
    let shared = fs::Permissions::from_mode(0o777);
    fs::set_permissions(site.path(""), shared).unwrap();
    assert_eq!(run(&mut site.monitor()).code(), Some(0));
    assert!(site.log().contains("output is discarded"), "{}", site.log());
    assert_eq!(fs::read_to_string(victim).unwrap(), "precious\n");
}

#[test]
fn a_path_that_can_never_be_a_log_is_one_line_and_the_server_is_healed() {
    for (log, reason) in [
        ("state-of-things", "Is a directory"),
        ("file/monitor.log", "Not a directory"),
        ("file/below/monitor.log", "Not a directory"),
        ("hard", "the file has 2 names (hard links)"),
        (
            "shared/monitor.log",
            "a symbolic link in a directory that others can write to",
        ),
    ] {
        let site = Site::new("");
        fs::write(site.path("file"), "precious\n").unwrap();
        fs::hard_link(site.path("file"), site.path("hard")).unwrap();
        fs::create_dir(site.path("state-of-things")).unwrap();
        fs::create_dir(site.path("shared")).unwrap();
        symlink(site.path("new"), site.path("shared/monitor.log")).unwrap();
        fs::set_permissions(site.path("shared"), fs::Permissions::from_mode(0o1777)).unwrap();
        let path = site.path(log);
        let healed = heal(&site, &path);
        assert_healed_with_one_complaint(&site, &healed, &path, reason);
        assert_eq!(fs::read_to_string(site.path("file")).unwrap(), "precious\n");
        assert!(!site.path("new").exists());
    }
}

#[test]
fn hazard_41_the_log_and_the_restart_output_are_not_for_all_to_read() {
    let site = Site::new("");
    let monitor = site.monitor();
    let mut open = Command::new("sh");
    open.args(["-c", "umask 0; exec \"$@\"", "sh"])
        .arg(monitor.get_program())
        .args(monitor.get_args());
    assert_eq!(run(&mut open).code(), Some(0));
    for name in ["monitor.log", "monitor.restart.log"] {
        let mode = fs::metadata(site.path(name)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o640, "{name}");
    }
}

#[test]
fn the_directory_of_the_log_is_made() {
    let site = Site::new("");
    let log = site.path("new/deep/monitor.log");
    assert_eq!(heal(&site, &log).code(), Some(0));
    assert!(
        fs::read_to_string(log)
            .unwrap()
            .contains("Server is now responsive")
    );
}

#[test]
fn hazard_20_a_password_in_the_url_is_written_nowhere() {
    let site = Site::new("");
    let url = format!("http://admin:s3cret@127.0.0.1:{}/", site.port);
    let healed = run(site.monitor().args(["--debug", "--url", &url]));
    assert_eq!(healed.code(), Some(0));
    assert!(
        site.log().contains("http://admin:***@127.0.0.1"),
        "{}",
        site.log()
    );
    for text in [site.log(), healed.stdout, healed.stderr] {
        assert!(!text.contains("s3cret"), "{text}");
    }
    for bad in [
        "http://u:s3cret@h:99999/",
        "ftp://u:s3cret@h/",
        "u:s3cret@h",
        "http://u:s3cret@",
    ] {
        let refused = run(site.monitor().args(["--url", bad]));
        assert_eq!(refused.code(), Some(2), "{bad}");
        assert!(!refused.stderr.contains("s3cret"), "{}", refused.stderr);
    }
}

#[test]
fn levels_choose_the_lines_and_quiet_silences_the_terminal() {
    let site = Site::new("");
    let _server = site.start();
    let lines = |arguments: &[&str]| {
        let _ = fs::remove_file(site.path("monitor.log"));
        let watched = run(site.monitor().args(arguments));
        assert_eq!(watched.code(), Some(0));
        assert_eq!(watched.stderr, "");
        assert_eq!(
            watched.stdout,
            if arguments.contains(&"--quiet") {
                String::new()
            } else {
                site.log()
            }
        );
        site.log().lines().count()
    };
    assert_eq!(lines(&[]), 4);
    assert_eq!(lines(&["--quiet"]), 4);
    assert_eq!(lines(&["--log-level", "info"]), 2);
    assert!(!site.log().contains("DEBUG"));
    assert_eq!(lines(&["--log-level", "warning"]), 0);
    assert_eq!(lines(&["--log-level", "critical"]), 0);
    assert!(lines(&["--debug"]) > 4);
    assert!(lines(&["--debug", "--log-level", "info"]) > 4);
}

#[test]
fn errors_go_to_stderr_and_the_rest_to_stdout() {
    let site = Site::new("");
    let healed = run(&mut site.monitor());
    assert!(
        healed
            .stderr
            .lines()
            .all(|line| line.contains("[ERROR]") || line.contains("[CRITICAL]"))
    );
    assert!(!healed.stdout.contains("[ERROR]"));
    assert_eq!(
        healed.stdout.lines().count() + healed.stderr.lines().count(),
        site.log().lines().count()
    );
}

#[test]
fn a_terminal_that_goes_away_does_no_harm() {
    let site = Site::new("");
    let mut monitor = site
        .monitor()
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop((monitor.stdout.take(), monitor.stderr.take()));
    assert_eq!(rig::wait_for(&mut monitor).code(), Some(0));
    assert!(site.answers());

    let site = Site::new("");
    let monitor = site.monitor();
    let mut closed = Command::new("sh");
    closed
        .args(["-c", "exec \"$@\" <&- >&- 2>&-", "sh"])
        .arg(monitor.get_program())
        .args(monitor.get_args());
    assert_eq!(run(&mut closed).code(), Some(0), "{}", site.log());
    assert!(site.answers());
    assert!(site.log().contains("Server is now responsive"));
}
