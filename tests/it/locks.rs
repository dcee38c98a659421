//! One run at a time for each log, one restart at a time for each target.
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime};

use crate::rig;
use crate::rig::machine::{Installation, MYVNC, PORT, on_own_machine};
use crate::rig::{Mounted, Site, run, wait_for, wait_until};
use nix::mount::MsFlags;

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

/// Heals a dead server beside a run lock that cannot be used: one ERROR, exit status 1.
fn assert_healed_without_lock(site: &Site, log: &Path, reason: &str) {
    let healed = run(site.monitor().arg("--logfile").arg(log));
    let text = fs::read_to_string(log).unwrap();
    assert_eq!(healed.code(), Some(1), "{text}");
    assert!(site.answers(), "{text}");
    let expected = format!(
        "[ERROR] Cannot use the run lock {}: {reason}; this run continues without it, so another run can work at \
         the same time: remove that file, or give another --logfile",
        log.with_file_name(".monitor.lock").display()
    );
    assert_eq!(text.matches(&expected).count(), 1, "{text}");
    assert_eq!(text.matches("run lock").count(), 1, "{text}");
}

#[test]
fn a_run_lock_that_cannot_be_used_is_an_error_and_the_server_is_healed() {
    type Make<'a> = (&'a str, &'a dyn Fn(&Path));
    let make: [Make; 4] = [
        ("Is a directory", &|lock| fs::create_dir(lock).unwrap()),
        ("not a regular file", &|lock| {
            let made = Command::new("mkfifo").arg(lock).status().unwrap();
            assert!(made.success());
        }),
        ("the file has 2 names (hard links)", &|lock| {
            fs::hard_link(lock.with_file_name("victim"), lock).unwrap();
        }),
        (
            "a symbolic link in a directory that others can write to",
            &|lock| {
                let directory = lock.parent().unwrap();
                fs::set_permissions(directory, fs::Permissions::from_mode(0o777)).unwrap();
                std::os::unix::fs::symlink(lock.with_file_name("victim"), lock).unwrap();
            },
        ),
    ];
    for (reason, make) in make {
        let site = Site::new("");
        let victim = site.path("victim");
        fs::write(&victim, "precious, and longer than a PID\n").unwrap();
        fs::set_permissions(&victim, fs::Permissions::from_mode(0o644)).unwrap();
        make(&site.path(".monitor.lock"));
        assert_healed_without_lock(&site, &site.path("monitor.log"), reason);
        assert_eq!(
            fs::read_to_string(&victim).unwrap(),
            "precious, and longer than a PID\n"
        );
        assert_eq!(fs::metadata(&victim).unwrap().mode() & 0o777, 0o644);
    }
}

#[test]
fn hazard_43_a_lock_of_somebody_else_in_a_shared_directory_is_left_as_it_is() {
    if !rig::is_root() {
        return rig::skip("only root can make files of somebody else");
    }
    let site = Site::new("");
    let shared = site.path("shared");
    fs::create_dir(&shared).unwrap();
    let lock = shared.join(".monitor.lock");
    fs::write(&lock, "somebody else's\n").unwrap();
    fs::set_permissions(&lock, fs::Permissions::from_mode(0o666)).unwrap();
    std::os::unix::fs::chown(&lock, Some(4711), None).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o1777)).unwrap();
    assert_healed_without_lock(
        &site,
        &shared.join("monitor.log"),
        "the file belongs to UID 4711, in a directory that others can write to",
    );
    assert_eq!(fs::read_to_string(&lock).unwrap(), "somebody else's\n");
    assert_eq!(fs::metadata(&lock).unwrap().mode() & 0o777, 0o666);
}

#[test]
fn a_lock_that_is_a_link_of_the_administrators_is_followed() {
    let site = Site::new("");
    std::os::unix::fs::symlink("elsewhere", site.path(".monitor.lock")).unwrap();
    let holder = waiting_run(&site);
    assert!(!is_free(&site.path("elsewhere")));
    assert_eq!(run(&mut site.monitor()).code(), Some(0));
    end(holder);
}

/// Each restart command waits for the other one to begin, so both restarts go on at the same time.
#[test]
fn hazard_38_two_servers_on_one_port_of_two_addresses_restart_at_the_same_time() {
    on_own_machine(MYVNC, |machine| {
        machine.other.kill();
        let settings = format!("listen = 127.0.0.2:{PORT}");
        machine.other.configure(&settings);
        let monitor = |ip: &str, installation: &Installation, own: &str, others: &str| {
            let [own, others] = [own, others].map(|name| machine.path(name).display().to_string());
            let command = installation.restart_command();
            let command =
                format!("touch {own}; until [ -e {others} ]; do sleep 0.02; done; {command}");
            let mut monitor = machine.monitor();
            monitor.args(["--url", &format!("http://{ip}:{PORT}")]);
            monitor.args(["--restart-cmd", &command]);
            monitor.args(["--logfile", &format!("{own}.log")]);
            monitor
        };
        let mut first = monitor("127.0.0.1", &machine.ours, "first", "second");
        let mut second = monitor("127.0.0.2", &machine.other, "second", "first");
        let (first, second) = thread::scope(|scope| {
            let first = scope.spawn(|| run(&mut first));
            let second = scope.spawn(|| run(&mut second));
            (first.join().unwrap(), second.join().unwrap())
        });
        for ran in [&first, &second] {
            assert_eq!(ran.code(), Some(0), "{ran:?}");
            assert!(ran.stdout.contains("Server is now responsive"), "{ran:?}");
        }
        for ip in [[127, 0, 0, 1], [127, 0, 0, 2]] {
            let answer = rig::get((ip, PORT).into(), Duration::from_secs(5));
            assert!(answer.is_some_and(|answer| answer.starts_with("HTTP/1.0 200")));
        }
        assert_eq!(machine.ours.servers().len(), 1, "{first:?}");
        assert_eq!(machine.other.servers().len(), 1, "{second:?}");
    });
}

#[test]
fn hazard_38_a_lock_that_is_held_for_us_is_ours() {
    let site = Site::new("");
    let lock = site.path(".monitor.lock");
    let monitor = site.monitor();
    for wrap in [
        "flock -n LOCK \"$@\"",
        "flock -n -o LOCK \"$@\"",
        "flock -n -o LOCK sh -c '\"$@\"; true' sh \"$@\"",
        "exec 9>LOCK; flock -n 9; \"$@\"",
    ] {
        let _ = fs::remove_file(site.path("monitor.log"));
        let mut wrapped = Command::new("sh");
        wrapped
            .args([
                "-c",
                &wrap.replace("LOCK", &lock.display().to_string()),
                "sh",
            ])
            .arg(monitor.get_program())
            .args(monitor.get_args());
        assert_eq!(run(&mut wrapped).code(), Some(0), "{wrap}");
        assert!(
            site.log().contains("✓") || site.log().contains("now responsive"),
            "{wrap}: {}",
            site.log()
        );
        assert!(is_free(&lock), "{wrap}");
    }
    assert!(site.answers());
}

#[test]
fn hazard_39_a_lock_that_cannot_be_given_back_is_no_error() {
    if !rig::has_strace() {
        return rig::skip("strace is not installed");
    }
    let site = Site::new("");
    let _server = site.start();
    let monitor = site.monitor();
    let mut traced = Command::new("strace");
    traced
        .args([
            "-f",
            "-o",
            "/dev/null",
            "-e",
            "inject=flock:error=ENOLCK:when=2+",
        ])
        .arg(monitor.get_program())
        .args(monitor.get_args());
    let healthy = run(&mut traced);
    assert_eq!(healthy.code(), Some(0), "{}", healthy.stderr);
    assert_eq!(healthy.stderr, "");
}

/// Heals a dead server, checks it, and heals it again when it hangs, with that state directory: one WARNING a run.
fn assert_healed_without_restart_lock(site: &Site, state: &Path, reason: &str) {
    let expected = format!(
        "[WARNING] Cannot use the state directory {}: {reason}; this run continues without the record and the \
         restart lock: make the directory writable, or give another --state-dir",
        state.display()
    );
    let check = |arguments: &[&str]| {
        let before = site.log().len();
        let ran = run(site.monitor().arg("--state-dir").arg(state).args(arguments));
        let log = site.log().split_off(before);
        assert_eq!(ran.code(), Some(0), "{log}");
        assert!(site.answers(), "{log}");
        assert_eq!(log.matches(&expected).count(), 1, "{log}");
        assert_eq!(log.matches("state directory").count(), 1, "{log}");
        assert!(log.matches("[ERROR]").count() <= 1, "{log}");
        log
    };
    check(&[]);
    let healthy = check(&["--timeout", "10"]);
    assert!(healthy.contains("✓ Server is healthy"), "{healthy}");
    let _client = site.idle_client();
    check(&[]);
}

#[test]
fn hazard_32_a_state_directory_that_cannot_be_made_costs_a_warning() {
    let site = Site::new("");
    fs::write(site.path("file"), "").unwrap();
    assert_healed_without_restart_lock(&site, &site.path("file/state"), "Not a directory");
}

#[test]
fn hazard_32_a_state_directory_without_room_or_read_only_costs_a_warning() {
    rig::in_private_namespace(|| {
        for (options, reason) in [
            ("nr_inodes=1", "No space left on device"),
            ("ro", "Read-only file system"),
        ] {
            let site = Site::new("");
            let state = site.path("disk");
            let _mounted = Mounted::tmpfs(&state, MsFlags::empty(), options);
            assert_healed_without_restart_lock(&site, &state, reason);
        }
    });
}

#[test]
fn hazard_32_the_restart_lock_needs_no_room_on_the_disk() {
    rig::in_private_namespace(|| {
        let site = Site::new("");
        let state = site.path("disk");
        let _mounted = Mounted::full_tmpfs(&state);
        assert_eq!(
            run(site.monitor().arg("--state-dir").arg(&state)).code(),
            Some(0)
        );
        assert!(site.answers());
        let said = site.log().matches("No space left on device").count();
        assert_eq!(said, 1, "the record needs room: {}", site.log());
        assert!(state.join(format!("127.0.0.1_{}.lock", site.port)).exists());
    });
}

#[test]
fn a_healthy_run_makes_no_restart_lock() {
    let site = Site::new("");
    let _server = site.start();
    assert_eq!(run(&mut site.monitor()).code(), Some(0));
    assert!(
        !site
            .path(&format!("state/127.0.0.1_{}.lock", site.port))
            .exists()
    );
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
    let lock = site.path(&format!("state/127.0.0.1_{}.lock", site.port));
    fs::create_dir_all(site.path("state")).unwrap();
    fs::write(&lock, "1\n").unwrap();
    wait_until("the verdict", || site.log().contains("unresponsive"));
    drop(client);
    assert_eq!(wait_for(&mut late).code(), Some(0));
    assert!(
        site.log()
            .contains("Another run has restarted this server, or tried to: checking again"),
        "{}",
        site.log()
    );
    assert!(site.pids("manage").is_empty(), "{}", site.log());
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
