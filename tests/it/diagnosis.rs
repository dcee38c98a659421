//! What a look writes down, beside the cause: the record, the server's log, the dump, the summary.
use std::io::Write;
use std::process::{Command, Stdio};

use crate::rig;
use crate::rig::{Site, run};

#[test]
fn a_healthy_server_can_be_looked_at() {
    let (site, server) = Site::hung("");
    let collected = site.collect();
    let pid = site.servers()[0];
    assert_eq!(site.causes(), Vec::<String>::new());
    assert!(
        collected
            .stdout
            .contains(&format!("PID {pid}: state S, age ")),
        "{}",
        collected.stdout
    );
    let port = format!(
        "Port {}: PID {pid} listens on 127.0.0.1:{}, 0 waiting",
        site.port, site.port
    );
    assert!(collected.stdout.contains(&port), "{}", collected.stdout);
    assert!(server.is_alive());
}

#[test]
fn the_record_of_a_hang_by_a_client_ends_with_how_to_keep_it_away() {
    let advice = "[INFO] Advice: Find out who it is. A proxy in front of the server keeps such clients away from it; \
                  see \"Avoiding the hang\" in NOTES of monitor_myvnc(1).";
    for (settings, is_by_client) in [("", true), ("hang = write", true), ("hang = child", false)] {
        let (site, server) = Site::hung(settings);
        let mut client = site.idle_client();
        if !settings.is_empty() {
            client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        }
        site.collect();
        rig::end_children(server.pid);
        let log = site.log();
        let last = log.lines().last().unwrap();
        assert_eq!(last.ends_with(advice), is_by_client, "{settings}: {log}");
        let lines = log.matches("Advice: ").count();
        assert_eq!(lines, usize::from(is_by_client), "{settings}: {log}");
    }
}

#[test]
fn a_socket_counts_once_however_many_descriptors_refer_to_it() {
    let (site, _server) = Site::hung("hang = sleep");
    let pid = site.servers()[0];
    site.collect();
    // The stand-in has two descriptors for its connection.
    let sockets = format!("/proc/{pid}/fd");
    let sockets = std::fs::read_dir(sockets).unwrap().filter(|descriptor| {
        let target = std::fs::read_link(descriptor.as_ref().unwrap().path());
        target.is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
    });
    assert_eq!(sockets.count(), 3);
    let log = site.log();
    let report = format!("PID {pid}: state S, ");
    let line = log.lines().find(|line| line.contains(&report)).unwrap();
    // The check has given up by then, or not.
    let is_one = line.contains(", sockets 1 ESTABLISHED and 1 LISTEN")
        || line.contains(", sockets 1 CLOSE_WAIT and 1 LISTEN");
    assert!(is_one, "{line}");
    assert!(
        line.contains(", 1 thread (S), kernel wait channel: "),
        "{line}"
    );
}

#[test]
fn a_dry_run_says_what_it_would_do_and_touches_nothing() {
    let (site, server) = Site::hung("");
    let _client = site.idle_client();
    let rehearsed = run(site.monitor().args(["--dry-run", "--timeout", "0.5"]));
    assert_eq!(rehearsed.code(), Some(0));
    let log = site.log();
    assert!(
        log.contains("Cause: blocked reading from idle client "),
        "{log}"
    );
    assert!(
        log.contains(&format!("Would stop: [{}]\n", site.servers()[0])),
        "{log}"
    );
    assert!(
        log.contains(&format!("Would run: {}\n", site.manage("start"))),
        "{log}"
    );
    assert!(!log.contains("SIGTERM") && server.is_alive());
}

#[test]
fn the_restart_ends_with_how_long_the_service_was_away_and_why() {
    let (site, _server) = Site::hung("");
    assert_eq!(run(&mut site.monitor()).code(), Some(0));
    let _client = site.idle_client();
    assert_eq!(run(&mut site.monitor()).code(), Some(0));
    let log = site.log();
    let last = log.lines().last().unwrap();
    let (_, summary) = last
        .split_once("[INFO] Service was away ")
        .unwrap_or_else(|| panic!("{log}"));
    let (seconds, cause) = summary.split_once(" s: ").unwrap();
    assert!(seconds.parse::<u64>().unwrap() >= 2, "{summary}");
    assert!(
        cause.starts_with("blocked reading from idle client "),
        "{summary}"
    );
    let (diagnosis, restart) = log.split_once("RESTARTING SERVER").unwrap();
    assert!(
        diagnosis.contains("Cause: ") && restart.contains("Sent SIGTERM"),
        "{log}"
    );
}

#[test]
fn the_servers_own_log_is_shown_and_never_ours() {
    let site = Site::new("");
    let log = site.path("server.log");
    let now = now_as_logged();
    std::fs::write(
        &log,
        format!("2020-01-01 00:00:00 old\n{now} opened --password=hunter2\n"),
    )
    .unwrap();
    let restart = site.path("monitor.restart.log");
    std::fs::write(&restart, "a restart\n").unwrap();
    let mut server = Command::new("/bin/sh");
    server.args(["-c", "exec \"$0\" \"$1\" 7>>\"$2\" 8>>\"$3\""]);
    server
        .arg(site.path("bin/python3"))
        .arg(site.path("myvnc/main.py"))
        .args([&log, &restart]);
    let mut server = server
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    rig::wait_until("it listens", || !site.pids("listening").is_empty());
    let _client = site.idle_client();
    site.collect();
    let said = site.log();
    let heading = format!(
        "Server log: 1 lines of {} in the last 2 minutes",
        log.display()
    );
    assert!(said.contains(&heading), "{said}");
    assert!(
        said.contains("opened --password=***\n") && !said.contains("hunter2"),
        "{said}"
    );
    assert!(
        !said.contains("old\n") && !said.contains("a restart"),
        "{said}"
    );
    server.kill().unwrap();
    server.wait().unwrap();
    let looked = run(site
        .monitor()
        .args(["--collect-diagnostics", "--server-log"])
        .arg(site.path("ser*.log")));
    assert_eq!(site.log().matches(&heading).count(), 2, "{}", looked.stdout);
}

/// The time as a log has it.
fn now_as_logged() -> String {
    let date = Command::new("date")
        .arg("+%Y-%m-%d %H:%M:%S")
        .output()
        .unwrap();
    String::from_utf8(date.stdout).unwrap().trim().to_owned()
}

#[test]
fn the_dump_command_runs_before_the_server_is_stopped() {
    let (site, _server) = Site::hung("");
    let pid = site.servers()[0];
    let _client = site.idle_client();
    let dump = "echo stack of {pid}; kill -0 {pid} && echo alive; echo no such thing >&2";
    assert_eq!(
        run(site.monitor().args(["--dump-cmd", dump])).code(),
        Some(0)
    );
    let log = site.log();
    let (before, after) = log.split_once("RESTARTING SERVER").unwrap();
    for said in [
        &format!("Dump: stack of {pid}\n"),
        "Dump: alive\n",
        "Dump: no such thing\n",
    ] {
        assert!(before.contains(said) && !after.contains(said), "{log}");
    }
}

#[test]
fn a_dump_command_that_does_not_end_is_ended() {
    let (site, _server) = Site::hung("");
    let _client = site.idle_client();
    let marker = format!("{}0", u32::from(site.port) + 700_000);
    assert_eq!(
        run(site
            .monitor()
            .args(["--dump-cmd", &format!("sleep {marker}")]))
        .code(),
        Some(0)
    );
    let log = site.log();
    assert!(
        log.contains(" did not end within 10 s and was killed")
            && log.contains("Server is now responsive"),
        "{log}"
    );
    let running = Command::new("pgrep")
        .args(["-f", &format!("sleep {marker}")])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(running.stdout).unwrap(), "");
}
