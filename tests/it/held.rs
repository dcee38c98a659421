//! What could hold a run for ever, and with it the lock: then monitoring would end, and nobody would know.
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::rig;
use crate::rig::{MONITOR, Site, assert_harmless, in_private_namespace, run, wait_for, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};

fn fifo(site: &Site, name: &str) -> String {
    let path = site.path(name);
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    path.display().to_string()
}

#[test]
fn a_fifo_as_configuration_or_certificate_is_refused() {
    let site = Site::new("");
    let fifo = fifo(&site, "fifo");
    for flag in ["--config", "--ca-cert"] {
        let refused = run(site.monitor().args([flag, &fifo]));
        assert_eq!(refused.code(), Some(2));
        let expected = format!("{flag} {fifo}: not a regular file");
        assert!(refused.stderr.contains(&expected), "{}", refused.stderr);
    }
    assert_eq!(site.log(), "");
}

#[test]
fn a_fifo_as_the_systems_certificates_is_none() {
    let site = Site::new("");
    let fifo = fifo(&site, "fifo");
    let (config, _) = rig::certified(|_| ());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (client, _) = listener.accept().unwrap();
        let session = rustls::ServerConnection::new(config).unwrap();
        let _ = std::io::Read::read(
            &mut rustls::StreamOwned::new(session, client),
            &mut [0; 1024],
        );
    });
    let mut monitor = site.monitor();
    monitor.args(["--collect-diagnostics", "--url", &url]);
    monitor
        .env("SSL_CERT_FILE", &fifo)
        .env("SSL_CERT_DIR", site.path(""));
    assert_eq!(run(&mut monitor).code(), Some(0));
    assert!(site.log().contains("unknown issuer"), "{}", site.log());
}

/// A pipe that takes nothing more, and its reader, who does not read.
fn full_pipe() -> (OwnedFd, OwnedFd) {
    let (reader, writer) = nix::unistd::pipe().unwrap();
    nix::fcntl::fcntl(
        &writer,
        nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK),
    )
    .unwrap();
    while nix::unistd::write(&writer, &[b'x'; 4096]).is_ok() {}
    let blocking = nix::fcntl::OFlag::empty();
    nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFL(blocking)).unwrap();
    (reader, writer)
}

#[test]
fn a_terminal_that_nobody_reads_holds_no_run() {
    let site = Site::new("");
    let (_reader, writer) = full_pipe();
    let mut monitor = site.monitor();
    monitor.stdout(writer.try_clone().unwrap()).stderr(writer);
    assert_harmless(&monitor);
    let mut monitor = monitor.spawn().unwrap();
    assert_eq!(wait_for(&mut monitor).code(), Some(0), "{}", site.log());
    assert!(site.answers());
    assert!(
        site.log().contains("Server is now responsive"),
        "{}",
        site.log()
    );
}

#[test]
fn a_run_cannot_be_made_to_stand_still() {
    let site = Site::new("bind-after = 300");
    let mut monitor = site.monitor();
    assert_harmless(&monitor);
    let mut monitor = monitor
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pid = Pid::from_raw(i32::try_from(monitor.id()).unwrap());
    let lines = BufReader::new(monitor.stdout.take().unwrap()).lines();
    for line in lines.map_while(Result::ok) {
        if line.contains("Starting server with command") {
            kill(pid, Signal::SIGTSTP).unwrap();
        }
    }
    assert_eq!(wait_for(&mut monitor).code(), Some(0), "{}", site.log());
    assert!(site.answers());
}

#[test]
fn a_parent_that_ignores_its_children_is_no_failure() {
    let site = Site::new("");
    let monitor = site.monitor();
    assert_harmless(&monitor);
    let mut careless = Command::new("sh");
    careless.args(["-c", "trap '' CHLD; exec \"$0\" \"$@\""]);
    careless.arg(MONITOR).args(monitor.get_args());
    let healed = run(&mut careless);
    assert_eq!(healed.code(), Some(0), "{}", site.log());
    assert!(!site.log().contains("Cannot wait"), "{}", site.log());
}

#[test]
fn told_to_stop_during_a_dump_it_stops_at_once() {
    let site = Site::new("");
    let server = site.start();
    let _client = site.idle_client();
    let mut monitor = site.monitor();
    monitor.args(["--timeout", "3", "--dump-cmd", "sleep 9"]);
    assert_harmless(&monitor);
    let mut monitor = monitor
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pid = Pid::from_raw(i32::try_from(monitor.id()).unwrap());
    let mut lines = BufReader::new(monitor.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.is_ok_and(|line| line.contains("Running sleep 9"))));
    kill(pid, Signal::SIGTERM).unwrap();
    assert_eq!(lines.count(), 1, "no further check: {}", site.log());
    assert_eq!(wait_for(&mut monitor).code(), Some(143), "{}", site.log());
    assert!(
        site.log().contains("Received SIGTERM: this run ends now"),
        "{}",
        site.log()
    );
    assert!(!site.log().contains("Sent SIG") && server.is_alive());
}

#[test]
fn what_a_dump_says_without_end_is_cut() {
    let site = Site::new("");
    let _server = site.start();
    let _client = site.idle_client();
    let healed = run(site
        .monitor()
        .args(["--timeout", "0.5", "--dump-cmd", "yes"]));
    assert_eq!(healed.code(), Some(0), "{}", site.log());
    let dumped = site.log().matches("Dump: y").count();
    assert!((1000..40_000).contains(&dumped), "{dumped}");
}

/// The rest of a test, with a disk that does not answer.
fn with_dead_disk(body: impl FnOnce(&Site, &Path)) {
    in_private_namespace(|| {
        let site = Site::new("");
        let directory = site.path("dead");
        let Some(_dead) = rig::dead_disk::DeadDisk::mount(&directory) else {
            return rig::skip("no file system in user space can be mounted here");
        };
        body(&site, &directory);
    });
}

#[test]
fn a_restart_command_on_a_disk_that_does_not_answer() {
    with_dead_disk(|site, dead| {
        let command = format!("{} start", dead.join("manage.py").display());
        let began = Instant::now();
        let failed = run(site
            .monitor()
            .args(["--restart-cmd", &command, "--start-timeout", "1"]));
        assert_eq!(failed.code(), Some(1), "{}", site.log());
        assert!(began.elapsed() < Duration::from_secs(40));
        assert!(
            site.log().contains("still runs and is left alone"),
            "{}",
            site.log()
        );
        // Nothing that was left behind holds the lock.
        assert_eq!(run(&mut site.monitor()).code(), Some(0), "{}", site.log());
        assert!(site.answers());
    });
}

#[test]
fn a_server_log_on_a_disk_that_does_not_answer() {
    with_dead_disk(|site, dead| {
        let _server = site.start();
        let client = site.idle_client();
        let pattern = dead.join("*.log").display().to_string();
        let healed = run(site
            .monitor()
            .args(["--server-log", &pattern, "--timeout", "0.5"]));
        assert_eq!(healed.code(), Some(0), "{}", site.log());
        let log = site.log();
        let peer = client.local_addr().unwrap();
        assert!(
            log.contains(&format!("Cause: blocked reading from idle client {peer}")),
            "{log}"
        );
        let early = "Diagnosis incomplete: timed out reading the server's own log";
        assert!(log.contains(early), "{log}");
        assert!(site.answers());
    });
}

#[test]
fn hazard_32_a_state_directory_on_a_disk_that_takes_no_writes() {
    in_private_namespace(|| {
        let site = Site::new("");
        let state = site.path("disk");
        let Some(mut disk) = rig::frozen_disk::FrozenDisk::mount(&state) else {
            return rig::skip("no ext4 can be made on a loop device here");
        };
        let monitor = || {
            let mut monitor = site.monitor();
            monitor.arg("--state-dir").arg(&state);
            monitor
        };
        assert_eq!(run(&mut monitor()).code(), Some(0), "{}", site.log());
        for server in site.servers() {
            kill(Pid::from_raw(server), Signal::SIGKILL).unwrap();
        }
        wait_until("the server is dead", || !site.answers());
        disk.freeze();
        let healed = run(&mut monitor());
        assert!(healed.took < Duration::from_secs(15), "{}", site.log());
        assert_eq!(healed.code(), Some(0), "{}", site.log());
        assert!(site.answers(), "{}", site.log());
        let expected = format!(
            "[WARNING] Cannot use the state directory {}: its disk does not respond; this run continues",
            state.display()
        );
        assert_eq!(site.log().matches(&expected).count(), 1, "{}", site.log());
    });
}

#[test]
fn where_no_thread_and_no_process_can_be_had_it_checks_and_looks_all_the_same() {
    let site = Site::new("");
    let server = site.start();
    let monitor = site.monitor();
    assert_harmless(&monitor);
    let user = nix::unistd::geteuid();
    let program = site.reachable_copy(Path::new(MONITOR));
    let limited = |url: &str| {
        let mut limited = Command::new("prlimit");
        limited
            .arg("--nproc=1")
            .arg(&program)
            .args(monitor.get_args());
        limited.args(["--dry-run", "--timeout", "2", "--url", url]);
        if user.is_root() {
            // Root is held to no such limit.
            limited.uid(61_238).gid(61_238);
        }
        run(&mut limited)
    };
    let url = format!("http://localhost:{}", site.port);
    let healthy = limited(&url);
    assert_eq!(
        healthy.code(),
        Some(0),
        "{} {}",
        healthy.stdout,
        healthy.stderr
    );
    assert!(
        healthy.stdout.contains("✓ Server is healthy"),
        "{}",
        healthy.stdout
    );
    drop(server);
    let dead = limited(&url);
    assert!(
        dead.stdout.contains("Cause: the server is not running"),
        "{}",
        dead.stdout
    );
    let why = "Cause: no further process can be started: Resource temporarily unavailable";
    assert!(dead.stdout.contains(why), "{}", dead.stdout);
}

#[test]
fn what_root_makes_in_somebody_elses_directory_is_theirs() {
    if !rig::is_root() {
        return rig::skip("only root can make files for others");
    }
    let user = 61_239;
    let site = Site::new("");
    let directory = site.path("theirs");
    fs::create_dir(&directory).unwrap();
    nix::unistd::chown(&directory, Some(user.into()), None).unwrap();
    let log = directory.join("m.log");
    let healed = run(site.monitor().arg("--logfile").arg(&log));
    assert_eq!(healed.code(), Some(0), "{}", healed.stderr);
    for name in ["m.log", ".m.lock", "m.restart.log"] {
        assert_eq!(
            fs::metadata(directory.join(name)).unwrap().uid(),
            user,
            "{name}"
        );
    }
    // A link of theirs leads root nowhere.
    let target = site.path("roots");
    fs::write(&target, "untouched\n").unwrap();
    let link = directory.join("link.log");
    std::os::unix::fs::symlink(&target, &link).unwrap();
    let told = run(site.monitor().arg("--logfile").arg(&link));
    assert_eq!(told.code(), Some(1));
    assert!(
        told.stderr.contains("cannot write the log"),
        "{}",
        told.stderr
    );
    assert_eq!(fs::read_to_string(&target).unwrap(), "untouched\n");
}
