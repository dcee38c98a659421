//! One run at a time for each log, one restart at a time for each target.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod rig;

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use rig::{Site, run, wait_for, wait_until};

/// `flock(1)` that holds the lock until it is dropped.
struct Holder(Child);

impl Holder {
    fn new(lock: &Path) -> Self {
        let mut flock = Command::new("flock");
        // `-o`: the holder is the flock process itself and not its child.
        flock
            .arg("-o")
            .arg(lock)
            .args(["sh", "-c", "echo held; read line"]);
        let mut child = flock
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 5];
        child.stdout.take().unwrap().read_exact(&mut said).unwrap();
        Self(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn is_free(lock: &Path) -> bool {
    Command::new("flock")
        .arg("-n")
        .arg(lock)
        .arg("true")
        .status()
        .unwrap()
        .success()
}

/// A run that holds its lock: it waits between two checks.
fn waiting_run(site: &Site) -> Child {
    let mut monitor = site.monitor();
    let monitor = monitor
        .args(["--retries", "1", "--retry-delay", "600", "--quiet"])
        .spawn()
        .unwrap();
    wait_until("the run waits", || {
        site.log().contains("Check 1 of 2 failed")
    });
    monitor
}

fn end(mut monitor: Child) {
    monitor.kill().unwrap();
    monitor.wait().unwrap();
}

#[test]
fn hazard_15_the_lock_file_is_private_and_holds_the_pid() {
    let site = Site::new("");
    let lock = site.path(".monitor.lock");
    fs::write(&lock, "99999999\n").unwrap();
    fs::set_permissions(&lock, fs::Permissions::from_mode(0o644)).unwrap();
    let monitor = waiting_run(&site);
    assert_eq!(
        fs::read_to_string(&lock).unwrap(),
        format!("{}\n", monitor.id())
    );
    assert_eq!(fs::metadata(&lock).unwrap().mode() & 0o777, 0o600);
    assert!(!is_free(&lock));
    end(monitor);
    assert!(is_free(&lock));
}

#[test]
fn hazard_14_a_run_that_finds_the_lock_held_says_by_whom_and_leaves_the_pid() {
    let site = Site::new("");
    let lock = site.path(".monitor.lock");
    let holder = waiting_run(&site);
    let second = run(&mut site.monitor());
    assert_eq!(second.code(), Some(0));
    let expected = format!(
        "[INFO] Another run holds the lock (PID: {}, for ",
        holder.id()
    );
    assert!(second.stdout.contains(&expected), "{}", second.stdout);
    assert_eq!(second.stdout.lines().count(), 1);
    assert_eq!(
        fs::read_to_string(&lock).unwrap(),
        format!("{}\n", holder.id())
    );

    let long_ago = SystemTime::now() - Duration::from_secs(700);
    File::options()
        .write(true)
        .open(&lock)
        .unwrap()
        .set_modified(long_ago)
        .unwrap();
    let third = run(&mut site.monitor());
    assert_eq!(third.code(), Some(0));
    let expected = format!(
        "[WARNING] Another run holds the lock (PID: {}, for 70",
        holder.id()
    );
    assert!(third.stdout.contains(&expected), "{}", third.stdout);
    end(holder);
}

#[test]
fn flock_of_util_linux_keeps_a_run_out_and_is_named() {
    let site = Site::new("");
    let holder = Holder::new(&site.path(".monitor.lock"));
    let second = run(&mut site.monitor());
    assert_eq!(second.code(), Some(0));
    let expected = format!(
        "[INFO] Another run holds the lock (PID: {}, for ",
        holder.0.id()
    );
    assert!(second.stdout.contains(&expected), "{}", second.stdout);
    assert_eq!(run(site.monitor().arg("--quiet")).stdout, "");
    drop(holder);
    assert_eq!(run(&mut site.monitor()).code(), Some(0));
    assert!(site.answers());
}

#[test]
fn a_lock_that_cannot_be_made_is_one_line_and_nothing_is_done() {
    let site = Site::new("");
    let lock = site.path(".monitor.lock");
    let target = site.path("target");
    let make: [(&str, &dyn Fn()); 3] = [
        ("Too many levels of symbolic links", &|| {
            std::os::unix::fs::symlink(&target, &lock).unwrap();
        }),
        ("Is a directory", &|| fs::create_dir(&lock).unwrap()),
        ("not a regular file", &|| {
            let made = Command::new("mkfifo").arg(&lock).status().unwrap();
            assert!(made.success());
        }),
    ];
    for (reason, make) in make {
        make();
        let failed = run(site.monitor().arg("--quiet"));
        assert_eq!(failed.code(), Some(1));
        let path = lock.display();
        let expected = format!(
            "monitor_myvnc: cannot lock {path}: {reason}; nothing was done, give another --logfile\n"
        );
        assert_eq!(failed.stderr, expected);
        assert!(!target.exists());
        fs::remove_file(&lock)
            .or_else(|_| fs::remove_dir(&lock))
            .unwrap();
    }
    assert_eq!(site.pids("manage"), []);
}

#[test]
fn a_state_directory_that_cannot_be_made_is_one_line_and_nothing_is_done() {
    let site = Site::new("");
    fs::write(site.path("file"), "").unwrap();
    let failed = run(site
        .monitor()
        .arg("--quiet")
        .arg("--state-dir")
        .arg(site.path("file/state")));
    assert_eq!(failed.code(), Some(1));
    assert_eq!(failed.stderr.lines().count(), 1, "{}", failed.stderr);
    assert!(
        failed.stderr.contains("cannot use the restart lock"),
        "{}",
        failed.stderr
    );
    assert!(
        failed
            .stderr
            .contains("Not a directory; give --state-dir DIR"),
        "{}",
        failed.stderr
    );
    assert_eq!(site.pids("manage"), []);
}

#[test]
fn the_lock_can_be_removed_by_hand() {
    let site = Site::new("");
    let lock = site.path(".monitor.lock");
    let holder = waiting_run(&site);
    fs::remove_file(&lock).unwrap();
    assert_eq!(run(&mut site.monitor()).code(), Some(0));
    assert!(site.answers());
    end(holder);
}

#[test]
fn neither_the_command_nor_the_server_inherits_a_lock() {
    let site = Site::new("");
    assert_eq!(run(&mut site.monitor()).code(), Some(0));
    assert!(site.answers());
    assert!(is_free(&site.path(".monitor.lock")));
    for pid in site.servers() {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        for descriptor in descriptors.flatten() {
            let target = fs::read_link(descriptor.path()).unwrap_or_default();
            assert!(
                target
                    .extension()
                    .is_none_or(|extension| extension != "lock"),
                "{}",
                target.display()
            );
        }
    }
}

fn twenty(site: &Site, log: impl Fn(usize) -> String) -> Vec<Child> {
    (0..20)
        .map(|number| {
            let mut monitor = site.monitor();
            monitor
                .arg("--quiet")
                .arg("--logfile")
                .arg(site.path(&log(number)));
            monitor.stderr(Stdio::inherit()).spawn().unwrap()
        })
        .collect()
}

#[test]
fn twenty_monitors_with_one_log_restart_a_dead_server_once() {
    let site = Site::new("bind-after = 300");
    for mut monitor in twenty(&site, |_| "monitor.log".into()) {
        assert_eq!(wait_for(&mut monitor).code(), Some(0));
    }
    assert_eq!(site.pids("manage").len(), 1, "{}", site.log());
    assert_eq!(site.servers().len(), 1);
    assert!(site.answers());
}

#[test]
fn twenty_monitors_with_twenty_logs_restart_a_dead_server_once() {
    let site = Site::new("bind-after = 300");
    for mut monitor in twenty(&site, |number| format!("monitor-{number}.log")) {
        assert_eq!(wait_for(&mut monitor).code(), Some(0));
    }
    assert_eq!(site.pids("manage").len(), 1);
    assert_eq!(site.servers().len(), 1);
    assert!(site.answers());
}

#[test]
fn two_names_of_this_host_are_one_target() {
    let site = Site::new("bind-after = 1500");
    let started = |name: &str| {
        let mut monitor = site.monitor();
        let url = format!("http://{name}:{}", site.port);
        monitor
            .args(["--url", &url, "--logfile"])
            .arg(site.path(&format!("{name}.log")));
        rig::assert_harmless(&monitor);
        monitor
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut monitors = [started("localhost"), started("127.0.0.1")];
    for monitor in &mut monitors {
        assert_eq!(wait_for(monitor).code(), Some(0));
    }
    assert_eq!(site.pids("manage").len(), 1);
}

#[test]
fn a_run_that_comes_late_checks_again_before_it_restarts() {
    let site = Site::new("");
    let _server = site.start();
    let client = site.idle_client();
    let mut late = site
        .monitor()
        .args(["--timeout", "1.5", "--quiet"])
        .spawn()
        .unwrap();
    wait_until("it checks", || {
        site.log().contains("Checking server health")
    });
    // Another run restarted the server meanwhile: its mark is the time of the lock file.
    let lock = site.path(&format!("state/localhost_{}.lock", site.port));
    fs::write(&lock, "1\n").unwrap();
    wait_until("the verdict", || site.log().contains("unresponsive"));
    drop(client);
    assert_eq!(wait_for(&mut late).code(), Some(0));
    assert!(
        site.log()
            .contains("Another run has just restarted this server: checking again"),
        "{}",
        site.log()
    );
    assert_eq!(site.pids("manage"), [], "{}", site.log());
}

#[test]
fn a_run_that_restarted_nothing_makes_no_later_run_check_twice() {
    let site = Site::new("");
    for _ in 0..3 {
        let mut monitor = site.bare_monitor();
        monitor.args([
            "--restart-cmd",
            "/nonexistent/start",
            "--process-pattern",
            &site.pattern(),
        ]);
        assert_eq!(run(&mut monitor).code(), Some(1));
    }
    assert!(!site.log().contains("checking again"), "{}", site.log());
}
