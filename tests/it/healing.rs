//! Whole runs on the stand-in, compared as transcripts.
use std::fs;

use crate::rig;
use crate::rig::{Site, run, wait_until, with_bare_environment};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const BEGINNING: &str = "[INFO] Starting health check for http://127.0.0.1:PORT\n\
    [DEBUG] Checking server health: http://127.0.0.1:PORT\n";
const REFUSED: &str =
    "[ERROR] ✗ Server is unresponsive: Connection error: 127.0.0.1:PORT: Connection refused\n";
const HUNG: &str = "[ERROR] ✗ Server is unresponsive: Server request timed out after 2 seconds (waiting for headers)\n";
const RESTARTING: &str = "[INFO] ================================================================================\n\
    [INFO] RESTARTING SERVER\n\
    [INFO] ================================================================================\n";
const STOPPING: &str = "[INFO] Stopping server processes: [PID]\n\
    [INFO] Sent SIGTERM to PID PID\n\
    [INFO] Waiting for processes to terminate...\n";
const STOPPED: &str = "[INFO] All processes terminated successfully\n";
const STARTING: &str =
    "[INFO] Starting server with command: SITE/bin/python3 SITE/myvnc/manage.py start\n";
const HEALED: &str = "[INFO] Server started successfully (PID: PID)\n\
    [INFO] Waiting for server to become responsive...\n\
    [INFO] Server is now responsive after N seconds\n\
    [INFO] ================================================================================\n";
const FAILED: &str = "[INFO] ================================================================================\n\
    [CRITICAL] Server restart failed\n";

/// One server runs and answers, and it is not that one.
fn assert_healed(site: &Site, before: &[i32]) {
    let servers = site.servers();
    assert_eq!(servers.len(), 1, "{}", site.log());
    assert!(!before.contains(&servers[0]));
    assert!(site.answers());
}

#[test]
fn a_healthy_server_gives_the_four_lines_of_the_manual() {
    let site = Site::new("");
    let server = site.start();
    let monitored = run(&mut site.monitor());
    assert_eq!(monitored.code(), Some(0));
    let expected = format!(
        "{BEGINNING}[DEBUG] Server responded with status 200\n[INFO] ✓ Server is healthy (status: 200)\n"
    );
    assert_eq!(site.transcript(), expected);
    assert_eq!(monitored.stdout, site.log());
    assert_eq!(monitored.stderr, "");
    assert!(server.is_alive());
}

#[test]
fn a_dead_server_is_started() {
    let site = Site::new("");
    assert_eq!(run(&mut site.monitor()).code(), Some(0));
    let expected = format!(
        "{BEGINNING}{REFUSED}{RESTARTING}[INFO] No server process found\n{STARTING}{HEALED}"
    );
    assert_eq!(site.transcript(), expected);
    assert_healed(&site, &[]);
}

#[test]
fn a_server_blocked_by_an_idle_client_is_restarted() {
    let site = Site::new("");
    let _server = site.start();
    let before = site.servers();
    let _client = site.idle_client();
    assert_eq!(run(&mut site.monitor()).code(), Some(0));
    let expected = format!("{BEGINNING}{HUNG}{RESTARTING}{STOPPING}{STOPPED}{STARTING}{HEALED}");
    assert_eq!(site.transcript(), expected);
    assert_healed(&site, &before);
}

#[test]
fn hazard_5_a_stopped_server_is_continued_so_that_it_can_act_on_sigterm() {
    let site = Site::new("on-term = 20");
    let _server = site.start();
    let before = site.servers();
    kill(Pid::from_raw(before[0]), Signal::SIGSTOP).unwrap();
    assert_eq!(run(&mut site.monitor()).code(), Some(0));
    let expected = format!("{BEGINNING}{HUNG}{RESTARTING}{STOPPING}{STOPPED}{STARTING}{HEALED}");
    assert_eq!(site.transcript(), expected);
    assert_healed(&site, &before);
}

#[test]
fn a_server_deaf_to_sigterm_is_killed() {
    let site = Site::new("on-term = ignore");
    let _server = site.start();
    let before = site.servers();
    let _client = site.idle_client();
    assert_eq!(
        run(site.monitor().args(["--stop-timeout", "0.2"])).code(),
        Some(0)
    );
    let killed =
        "[WARNING] Processes still running after 0.2s: [PID]\n[WARNING] Sent SIGKILL to PID PID\n";
    let transcript = site.transcript().replace(&before[0].to_string(), "PID");
    let expected =
        format!("{BEGINNING}{HUNG}{RESTARTING}{STOPPING}{killed}{STOPPED}{STARTING}{HEALED}");
    assert_eq!(transcript, expected);
    assert_healed(&site, &before);
}

#[test]
fn a_server_slow_to_stop_is_given_its_time() {
    let site = Site::new("on-term = 300");
    let _server = site.start();
    let before = site.servers();
    let _client = site.idle_client();
    assert_eq!(run(&mut site.monitor()).code(), Some(0));
    assert!(!site.log().contains("SIGKILL"), "{}", site.log());
    assert_healed(&site, &before);
}

#[test]
fn hazard_19_a_server_slow_to_start_is_waited_for() {
    let site = Site::new("bind-after = 1500");
    assert_eq!(run(&mut site.monitor()).code(), Some(0));
    let log = site.log();
    let (_, waited) = log.split_once("Server is now responsive after ").unwrap();
    let waited: u32 = waited.split(' ').next().unwrap().parse().unwrap();
    assert!(waited >= 2, "it binds after 1.5 s: {log}");
    assert_healed(&site, &[]);
}

#[test]
fn every_process_of_a_multi_process_server_is_stopped() {
    let site = Site::new("workers = 3\non-term = 10");
    let _server = site.start();
    wait_until("the workers run", || site.pids("worker").len() == 3);
    let before = [site.servers(), site.pids("worker")].concat();
    let _client = site.idle_client();
    site.configure("");
    assert_eq!(run(&mut site.monitor()).code(), Some(0));
    for pid in before {
        assert!(
            site.log().contains(&format!("Sent SIGTERM to PID {pid}\n")),
            "{}",
            site.log()
        );
        assert!(
            !fs::read_to_string(format!("/proc/{pid}/stat"))
                .is_ok_and(|stat| !stat.contains(") Z "))
        );
    }
    assert_eq!(site.servers().len(), 1);
}

#[test]
fn hazard_8_a_foreground_restart_command_that_keeps_writing_is_left_running() {
    let site = Site::new("chatter = 1");
    let healed = run(site.bare_monitor().args([
        "--process-pattern",
        &site.pattern(),
        "--restart-cmd",
        &site.manage("foreground"),
    ]));
    assert_eq!(healed.code(), Some(0), "{}", site.log());
    assert!(healed.stdout.contains("Server started successfully"));
    let output = site.path("monitor.restart.log");
    let length = || fs::metadata(&output).unwrap().len();
    let at_exit = length();
    wait_until("the server goes on writing", || length() > at_exit + 100);
    assert_healed(&site, &[]);
}

#[test]
fn hazard_9_a_restart_command_that_outlives_its_server_start_is_normal() {
    let site = Site::new("");
    site.configure_manage("delay = 30000");
    let healed = run(&mut site.monitor());
    assert_eq!(healed.code(), Some(0), "{}", site.log());
    assert_healed(&site, &[]);
}

#[test]
fn a_server_that_ends_after_its_start_is_reported_as_ended() {
    let site = Site::new("status = 500 Broken");
    let python = site.path("bin/python3").display().to_string();
    let script = site.path("myvnc/main.py").display().to_string();
    let failed = run(site.bare_monitor().args([
        "--process-pattern",
        &site.pattern(),
        "--start-timeout",
        "6",
        "--restart-cmd",
        &format!("timeout 1 {python} {script} >/dev/null 2>&1 & sleep 0.4"),
    ]));
    assert_eq!(failed.code(), Some(1));
    let log = site.log();
    assert!(log.contains("Server started successfully (PID: "), "{log}");
    assert!(
        log.contains(") and has ended, and nothing answered"),
        "{log}"
    );
    assert!(!log.contains("add start or restart"), "{log}");
}

#[test]
fn a_command_with_a_verb_is_not_said_to_lack_one() {
    let site = Site::new("");
    let failed = run(site.bare_monitor().args([
        "--process-pattern",
        &site.pattern(),
        "--start-timeout",
        "0.5",
        "--restart-cmd",
        "true start",
    ]));
    assert_eq!(failed.code(), Some(1));
    let log = site.log();
    assert!(log.contains("there is no server process"), "{log}");
    assert!(!log.contains("add start or restart"), "{log}");
}

#[test]
fn a_command_that_starts_nothing_is_told_as_such() {
    let site = Site::new("");
    let failed = run(site.bare_monitor().args([
        "--process-pattern",
        &site.pattern(),
        "--start-timeout",
        "0.5",
        "--restart-cmd",
        &site.manage("--config_dir=/x"),
    ]));
    assert_eq!(failed.code(), Some(1));
    let expected = "[ERROR] The restart command exited with status 0, but there is no server process and nothing \
        answered within 0.5 seconds (Connection error: 127.0.0.1:PORT: Connection refused); if it runs manage.py, add \
        start or restart to it\n\
        [ERROR] Restart command: usage: manage.py {start,stop,restart,status}\n";
    assert!(
        site.transcript().ends_with(&format!("{expected}{FAILED}")),
        "{}",
        site.log()
    );
}

#[test]
fn a_server_that_never_answers_is_left_alone_at_the_deadline() {
    let site = Site::new("bind-after = 60000");
    let failed = run(site.monitor().args(["--start-timeout", "0.5"]));
    assert_eq!(failed.code(), Some(1));
    let expected = "[ERROR] Server started but did not become responsive within 0.5 seconds \
        (Connection error: 127.0.0.1:PORT: Connection refused)\n";
    assert!(
        site.transcript().ends_with(&format!("{expected}{FAILED}")),
        "{}",
        site.log()
    );
    assert_eq!(site.servers().len(), 1);
}

#[test]
fn a_foreground_command_that_never_answers_is_left_alone_and_named() {
    let site = Site::new("bind-after = 60000");
    let command = site.manage("foreground");
    let pattern = site.pattern();
    let failed = run(site.bare_monitor().args([
        "--process-pattern",
        &pattern,
        "--restart-cmd",
        &command,
        "--start-timeout",
        "0.5",
    ]));
    assert_eq!(failed.code(), Some(1));
    assert!(
        failed.stderr.contains("still runs and is left alone"),
        "{}",
        failed.stderr
    );
    assert_eq!(site.servers().len(), 1);
}

#[test]
fn hazard_17_a_failed_command_leaves_its_last_50_lines_in_the_log_each_as_a_line() {
    let site = Site::new("");
    let command = site.manage("fail");
    let failed = run(site.bare_monitor().args([
        "--process-pattern",
        &site.pattern(),
        "--restart-cmd",
        &command,
    ]));
    assert_eq!(failed.code(), Some(1));
    let transcript = site.transcript();
    let output: Vec<&str> = transcript
        .lines()
        .filter_map(|line| line.strip_prefix("[ERROR] Restart command: "))
        .collect();
    assert_eq!(output.len(), 50);
    assert_eq!(output[0], "line 12");
    assert_eq!(output[48], "line 60");
    assert_eq!(output[49], "caf\u{fffd} ?[31mred");
    assert!(
        transcript.contains("[ERROR] The restart command exited with status 3 after "),
        "{transcript}"
    );
    assert!(transcript.ends_with(FAILED));
}

#[test]
fn a_command_killed_by_a_signal_is_told_as_such() {
    let site = Site::new("");
    let failed = run(site.bare_monitor().args([
        "--process-pattern",
        &site.pattern(),
        "--restart-cmd",
        "kill -9 $$",
    ]));
    assert_eq!(failed.code(), Some(1));
    assert!(
        failed
            .stderr
            .contains("The restart command was killed by signal 9"),
        "{}",
        failed.stderr
    );
}

#[test]
fn a_failed_command_is_no_failure_when_the_server_answers() {
    let site = Site::new("");
    let command = format!(
        "{}; until (exec 3<>/dev/tcp/127.0.0.1/{}) 2>/dev/null || [ ! -e {} ]; do :; done; exit 4",
        site.manage("start"),
        site.port,
        site.path("myvnc").display()
    );
    let healed = run(site.bare_monitor().args([
        "--process-pattern",
        &site.pattern(),
        "--restart-cmd",
        &command,
    ]));
    assert_eq!(healed.code(), Some(0), "{}", site.log());
    assert_healed(&site, &[]);
}

#[test]
fn hazard_18_a_restart_command_that_does_not_exist_leaves_the_server_untouched() {
    let site = Site::new("");
    let server = site.start();
    let _client = site.idle_client();
    for (command, reason) in [
        (
            "/nonexistent/manage.py start",
            "/nonexistent/manage.py: No such file or directory",
        ),
        ("/etc/passwd start", "/etc/passwd: Permission denied"),
        ("/etc start", "/etc: is a directory"),
    ] {
        let failed = run(site.bare_monitor().args([
            "--process-pattern",
            &site.pattern(),
            "--restart-cmd",
            command,
        ]));
        assert_eq!(failed.code(), Some(1));
        let expected =
            format!("The restart command cannot be run: {reason}; correct --restart-cmd");
        assert!(failed.stderr.contains(&expected), "{}", failed.stderr);
        assert!(
            failed
                .stderr
                .contains("Server was not restarted: nothing was touched")
        );
    }
    assert!(server.is_alive());
    assert!(!site.log().contains("SIGTERM"));
}

#[test]
fn an_error_status_counts_as_down() {
    let site = Site::new("status = 500 Internal Server Error");
    let _server = site.start();
    let before = site.servers();
    site.configure("");
    assert_eq!(run(&mut site.monitor()).code(), Some(0));
    assert!(site.transcript().contains(
        "[DEBUG] Server responded with status 500\n[ERROR] ✗ Server is unresponsive: Server returned error status: 500\n"
    ));
    assert_healed(&site, &before);
}

#[test]
fn retries_let_a_short_absence_pass() {
    let site = Site::new("");
    let mut monitor = site.monitor();
    let mut monitor = monitor
        .args(["--retries", "100", "--retry-delay", "0.1", "--quiet"])
        .spawn()
        .unwrap();
    wait_until("a check failed", || {
        site.log().contains("Check 1 of 101 failed: ")
    });
    let _server = site.start();
    assert_eq!(rig::wait_for(&mut monitor).code(), Some(0));
    assert!(
        site.transcript()
            .ends_with("[INFO] ✓ Server is healthy (status: 200)\n"),
        "{}",
        site.log()
    );
    assert!(site.pids("manage").is_empty());
}

#[test]
fn cron_sets_no_user_and_the_restart_command_gets_one() {
    let site = Site::new("");
    site.configure_manage(&format!(
        "environment = {}",
        site.path("environment").display()
    ));
    let mut monitor = site.monitor();
    let monitor = with_bare_environment(&mut monitor)
        .env("LOGNAME", "somebody")
        .env("HOME", "/home/x")
        .env("SHELL", "/bin/sh");
    assert_eq!(run(monitor).code(), Some(0));
    let environment = fs::read_to_string(site.path("environment")).unwrap();
    for expected in [
        "USER=somebody\n",
        "LOGNAME=somebody\n",
        "HOME=/home/x\n",
        "SHELL=/bin/sh\n",
        "PATH=/usr/bin:/bin\n",
    ] {
        assert!(
            environment.contains(expected),
            "{expected} is not in {environment}"
        );
    }
}

#[test]
fn an_empty_environment_is_filled_from_the_account() {
    let site = Site::new("");
    site.configure_manage(&format!(
        "environment = {}",
        site.path("environment").display()
    ));
    let mut monitor = site.monitor();
    assert_eq!(run(monitor.env_clear()).code(), Some(0));
    let account = nix::unistd::User::from_uid(nix::unistd::geteuid())
        .unwrap()
        .unwrap();
    let environment = fs::read_to_string(site.path("environment")).unwrap();
    for expected in [
        format!("USER={}\n", account.name),
        format!("LOGNAME={}\n", account.name),
        format!("HOME={}\n", account.dir.display()),
        format!("SHELL={}\n", account.shell.display()),
        "PATH=/usr/local/sbin:".to_owned(),
    ] {
        assert!(
            environment.contains(&expected),
            "{expected} is not in {environment}"
        );
    }
}

#[test]
fn the_restart_command_runs_in_a_session_of_its_own_with_nothing_to_read() {
    let site = Site::new("");
    let facts = site.path("facts");
    let command = format!(
        "{{ cat /proc/self/stat; readlink /proc/$$/fd/0; }} > {}; source /dev/null && {}",
        facts.display(),
        site.manage("start")
    );
    let mut monitor = site.bare_monitor();
    monitor.args([
        "--process-pattern",
        &site.pattern(),
        "--restart-cmd",
        &command,
    ]);
    monitor.stdin(fs::File::open("/etc/passwd").unwrap());
    assert_eq!(run(&mut monitor).code(), Some(0), "{}", site.log());
    let facts = fs::read_to_string(facts).unwrap();
    let (stat, stdin) = facts.split_once('\n').unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let session: i32 = fields[3].parse().unwrap();
    assert_ne!(session, nix::unistd::getsid(None).unwrap().as_raw());
    assert_eq!(stdin, "/dev/null\n");
}

#[test]
fn hazard_6_a_server_that_outlives_sigkill_is_named_and_nothing_is_started() {
    let site = Site::new("");
    let server = site.start();
    let before = site.servers();
    let Some(frozen) = rig::Frozen::new(before[0]) else {
        return rig::skip("no cgroup v1 freezer to hold a process in state D");
    };
    let failed = run(site
        .monitor()
        .args(["--timeout", "0.5", "--stop-timeout", "0.2"]));
    assert_eq!(failed.code(), Some(1));
    let expected = "[WARNING] Sent SIGKILL to PID PID\n\
        [CRITICAL] PID PID is still there 5s after SIGKILL, in state D";
    let transcript = site.transcript();
    assert!(transcript.contains(expected), "{transcript}");
    assert!(
        transcript.ends_with(&format!(": nothing was started\n{FAILED}")),
        "{transcript}"
    );
    assert!(server.is_alive());
    assert!(site.pids("manage").is_empty());
    drop(frozen);
    wait_until("the thawed server dies of its SIGKILL", || {
        !server.is_alive()
    });
}

#[test]
fn hazard_12_the_start_is_bounded_by_a_deadline_and_not_by_a_number_of_tries() {
    // Each try takes its whole timeout: the server accepts and never answers.
    let site = Site::new("hang = sleep");
    let mut monitor = site.monitor();
    let failed = run(monitor.args(["--timeout", "1", "--start-timeout", "2.5"]));
    assert_eq!(failed.code(), Some(1));
    assert!(failed.took.as_secs() < 25, "{:?}", failed.took);
    assert!(
        failed.stderr.contains("within 2.5 seconds"),
        "{}",
        failed.stderr
    );
}
