//! Each cause of a hang, injected for real, and the sentence that names it.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod rig;

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rig::{Run, Site, run};

/// A look at the site, which leaves it alone.
fn collect(site: &Site) -> Run {
    let collected = run(site
        .monitor()
        .args(["--collect-diagnostics", "--timeout", "0.5"]));
    assert_eq!(collected.code(), Some(0), "{}", site.log());
    assert!(!site.log().contains("RESTARTING"), "{}", site.log());
    collected
}

/// The causes in the log, the first one first.
fn causes(site: &Site) -> Vec<String> {
    let log = site.log();
    let lines = log
        .lines()
        .filter_map(|line| line.split_once("[WARNING] Cause: "));
    lines.map(|(_, cause)| cause.to_owned()).collect()
}

/// The first cause of a server that the monitor's own check makes hang so.
fn cause_of(site: &Site) -> String {
    collect(site);
    let causes = causes(site);
    causes
        .first()
        .unwrap_or_else(|| panic!("no cause: {}", site.log()))
        .clone()
}

fn hung(settings: &str) -> (Site, rig::Server) {
    let site = Site::new(settings);
    let server = site.start();
    (site, server)
}

#[test]
fn cause_1_not_running_and_since_when() {
    let site = Site::new("");
    assert_eq!(cause_of(&site), "the server is not running");
    let server = site.start();
    assert_eq!(run(&mut site.monitor()).code(), Some(0));
    drop(server);
    rig::wait_until("it is gone", || !site.answers());
    collect(&site);
    let last = causes(&site).pop().unwrap();
    assert!(
        last.starts_with("the server is not running; it last answered "),
        "{last}"
    );
    assert!(last.ends_with(" s ago"), "{last}");
}

#[test]
fn cause_2_blocked_reading_from_an_idle_client() {
    let (site, _server) = hung("");
    let client = site.idle_client();
    let peer = client.local_addr().unwrap();
    let pid = site.servers()[0];
    let cause = cause_of(&site);
    let start = format!("blocked reading from idle client {peer}, connected for ");
    assert!(cause.starts_with(&start), "{cause}");
    assert!(
        cause.ends_with(&format!(" s and sent nothing (PID {pid})")),
        "{cause}"
    );
}

#[test]
fn cause_2_an_idle_client_that_began_its_request() {
    let (site, _server) = hung("");
    let mut client = site.idle_client();
    client.write_all(b"GET / HT").unwrap();
    let cause = cause_of(&site);
    assert!(cause.contains(" after 8 bytes (PID "), "{cause}");
}

#[test]
fn cause_4_blocked_writing_to_a_client_that_does_not_read() {
    let (site, _server) = hung("hang = write");
    let mut client = site.idle_client();
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let peer = client.local_addr().unwrap();
    let cause = cause_of(&site);
    let start = format!("blocked writing to client {peer}, which does not read: ");
    assert!(cause.starts_with(&start), "{cause}");
    assert!(!cause.contains(" 0 bytes"), "{cause}");
}

#[test]
fn cause_5_waiting_for_a_child() {
    for mode in ["child", "captured"] {
        let (site, _server) = hung(&format!("hang = {mode}"));
        let cause = cause_of(&site);
        let pid = site.servers()[0];
        assert!(
            cause.starts_with(&format!("PID {pid} waits for PID ")),
            "{mode}: {cause}"
        );
        assert!(cause.ends_with("): bjobs 299"), "{mode}: {cause}");
        assert!(cause.contains("(state S, for "), "{mode}: {cause}");
        end_children(pid);
    }
}

/// Ends what the stand-in waits for, which would outlive it.
fn end_children(pid: i32) {
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    for child in list.split_whitespace() {
        kill(Pid::from_raw(child.parse().unwrap()), Signal::SIGKILL).unwrap();
    }
}

#[test]
fn cause_6_waiting_on_another_host() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = silent.local_addr().unwrap();
    let (site, _server) = hung(&format!("hang = remote\npeer = {peer}"));
    let cause = cause_of(&site);
    assert!(
        cause.starts_with(&format!("waiting for an answer of {peer}")),
        "{cause}"
    );
}

#[test]
fn cause_7_blocked_in_a_file() {
    let (site, _server) = hung("hang = fifo");
    let fifo = site.path("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let cause = cause_of(&site);
    assert!(
        cause.ends_with(&format!(" is blocked opening {}", fifo.display())),
        "{cause}"
    );
}

#[test]
fn cause_8_stopped() {
    let (site, _server) = hung("");
    let pid = site.servers()[0];
    kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
    let _clients: Vec<TcpStream> = (0..3).map(|_| site.idle_client()).collect();
    let cause = cause_of(&site);
    assert_eq!(
        cause,
        format!("PID {pid} is stopped (SIGSTOP or job control)")
    );
    let queue = causes(&site)
        .into_iter()
        .find(|cause| cause.contains("accept queue"))
        .unwrap();
    let waiting: usize = queue.split(' ').next().unwrap().parse().unwrap();
    assert!(waiting >= 3, "cause 11: {queue}");
}

#[test]
fn cause_9_spinning() {
    let (site, _server) = hung("hang = spin");
    let cause = cause_of(&site);
    let pid = site.servers()[0];
    assert!(
        cause.starts_with(&format!("PID {pid} spins: thread {pid} (")),
        "{cause}"
    );
}

#[test]
fn cause_10_out_of_descriptors() {
    let site = Site::new("hang = descriptors");
    let mut limited = Command::new("/bin/sh");
    limited.args(["-c", "ulimit -n 64; exec \"$@\"", "sh"]);
    limited
        .arg(site.path("bin/python3"))
        .arg(site.path("myvnc/main.py"));
    let mut server = limited
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    rig::wait_until("it listens", || !site.pids("listening").is_empty());
    let cause = cause_of(&site);
    let pid = site.servers()[0];
    // One more where the suite left the shell a descriptor above its limit.
    let start = format!("PID {pid} is out of file descriptors: 6");
    assert!(
        cause.starts_with(&start) && cause.ends_with(" of 64"),
        "{cause}"
    );
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn cause_12_deadlock() {
    let (site, _server) = hung("hang = deadlock");
    let cause = cause_of(&site);
    assert!(
        cause.starts_with("deadlock: the main thread of PID "),
        "{cause}"
    );
}

#[test]
fn cause_13_the_port_is_held_by_another_process() {
    let site = Site::new("");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let looked =
        run(site
            .monitor()
            .args(["--collect-diagnostics", "--timeout", "0.3", "--url", &url]));
    assert_eq!(looked.code(), Some(0));
    let ours = std::process::id();
    let cause = causes(&site).remove(0);
    let start = format!(
        "{} is held by another process, PID {ours} (",
        listener.local_addr().unwrap()
    );
    assert!(cause.starts_with(&start), "{cause}");
}

#[test]
fn cause_14_listening_where_the_url_does_not_ask() {
    let site = Site::new("");
    site.configure(&format!("listen = 127.0.0.2:{}", site.port));
    let _server = site.start();
    let cause = cause_of(&site);
    let expected = format!(
        "the server listens on 127.0.0.2:{}, which is not where the URL asks",
        site.port
    );
    assert_eq!(cause, expected);
}

#[test]
fn cause_14_the_url_is_another_hosts() {
    let (site, _server) = hung("");
    let elsewhere = [
        "--collect-diagnostics",
        "--timeout",
        "0.2",
        "--url",
        "http://192.0.2.1:1",
    ];
    assert_eq!(run(site.monitor().args(elsewhere)).code(), Some(0));
    assert!(
        causes(&site)[0].starts_with("the URL's host is another machine"),
        "{}",
        site.log()
    );
}

#[test]
fn cause_15_an_error_status() {
    let (site, _server) = hung("status = 503 Service Unavailable");
    assert_eq!(
        cause_of(&site),
        "a proxy answers with status 503 in the server's place"
    );
    let (site, _server) = hung("status = 500 Internal Server Error");
    assert_eq!(cause_of(&site), "the server answers, but with status 500");
}

#[test]
fn as_another_user_it_says_what_it_could_not_see() {
    if !rig::is_root() {
        return rig::skip("only root can be another user");
    }
    let (site, _server) = hung("");
    let _client = site.idle_client();
    let program = site.reachable_copy(std::path::Path::new(rig::MONITOR));
    let mut monitor = site.bare_monitor_at(&program);
    monitor.args([
        "--restart-cmd",
        "true",
        "--process-pattern",
        &site.pattern(),
    ]);
    monitor
        .args(["--collect-diagnostics", "--timeout", "0.5"])
        .uid(65534)
        .gid(65534);
    assert_eq!(run(&mut monitor).code(), Some(0), "{}", site.log());
    let causes = causes(&site);
    assert!(
        causes
            .iter()
            .any(|cause| cause.starts_with("not visible: what PID ")),
        "{causes:?}"
    );
    let guesses = ["idle client", "not running", "held by another"];
    for cause in &causes {
        assert!(
            !guesses.iter().any(|guess| cause.contains(guess)),
            "{cause}"
        );
    }
}

#[test]
fn as_another_user_a_server_that_is_not_recognised_is_not_called_dead() {
    if !rig::is_root() {
        return rig::skip("only root can be another user");
    }
    for hangs in [true, false] {
        let (site, _server) = hung("");
        let _client = hangs.then(|| site.idle_client());
        let program = site.reachable_copy(std::path::Path::new(rig::MONITOR));
        let mut monitor = site.bare_monitor_at(&program);
        monitor.args([
            "--restart-cmd",
            "true",
            "--process-pattern",
            "no process is called so",
        ]);
        monitor
            .args(["--collect-diagnostics", "--timeout", "0.5"])
            .uid(65534)
            .gid(65534);
        assert_eq!(run(&mut monitor).code(), Some(0), "{}", site.log());
        let expected = format!(
            "not visible: who listens on 127.0.0.1:{} is shown to its owner and to root alone",
            site.port
        );
        let expected = hangs.then_some(expected);
        assert_eq!(causes(&site).first(), expected.as_ref(), "{}", site.log());
    }
}

#[test]
fn a_healthy_server_can_be_looked_at() {
    let (site, mut server) = hung("");
    let collected = collect(&site);
    let pid = site.servers()[0];
    assert_eq!(causes(&site), Vec::<String>::new());
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
fn a_dry_run_says_what_it_would_do_and_touches_nothing() {
    let (site, mut server) = hung("");
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
    let (site, _server) = hung("");
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
    std::fs::write(&restart, "ours\n").unwrap();
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
    collect(&site);
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
    assert!(!said.contains("old\n") && !said.contains("ours"), "{said}");
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
    let (site, _server) = hung("");
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
    let (site, _server) = hung("");
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
        log.contains("it did not end within 10 s") && log.contains("Server is now responsive"),
        "{log}"
    );
    let running = Command::new("pgrep")
        .args(["-f", &format!("sleep {marker}")])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(running.stdout).unwrap(), "");
}
