//! Which of several servers of one machine is stopped: the one that the URL asks for, or none.
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use crate::rig::{Process, Site, in_private_namespace, run, wait_until};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// A server of a site, started with more arguments or another environment than usual.
struct Started(Process);

impl Started {
    fn new(site: &Site, prepare: impl FnOnce(&mut Command), event: &str) -> Self {
        let mut server = Command::new(site.path("bin/python3"));
        server
            .arg(site.path("myvnc/main.py"))
            .args(["--host", "127.0.0.1"]);
        prepare(&mut server);
        let child = server
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        wait_until("it is there", || !site.pids(event).is_empty());
        Self(child.into())
    }

    fn is_alive(&self) -> bool {
        self.0.is_alive()
    }
}

fn assert_left_alone(site: &Site, other: &Started, reason: &str) {
    let log = site.log();
    assert!(other.is_alive(), "{log}");
    assert!(
        log.contains("Left alone: PID ") && log.contains(reason),
        "{log}"
    );
    assert!(site.answers(), "{log}");
}

#[test]
fn an_instance_on_the_same_port_of_another_address() {
    in_private_namespace(|| {
        let (ours, theirs) = (Site::new(""), Site::new(""));
        theirs.configure(&format!("listen = 127.0.0.2:{}", ours.port));
        let other = Started::new(&theirs, |_| (), "listening");
        let _server = ours.start();
        let _client = ours.idle_client();
        assert_eq!(
            run(&mut ours.monitor_by_rule()).code(),
            Some(0),
            "{}",
            ours.log()
        );
        assert_left_alone(&ours, &other, "this is another instance");
    });
}

#[test]
fn an_instance_that_starts_with_another_configuration_while_ours_is_dead() {
    in_private_namespace(|| {
        let (ours, theirs) = (Site::new(""), Site::new("bind-after = 600000"));
        let with = |server: &mut Command| {
            server.env("MYVNC_CONFIG_DIR", theirs.path("config"));
        };
        let other = Started::new(&theirs, with, "server");
        let mut monitor = ours.monitor_by_rule();
        let directory = ours.path("config").display().to_string();
        let command = ours.manage(&format!("--config_dir={directory} start"));
        let healed = run(monitor.args(["--restart-cmd", &command]));
        assert_eq!(healed.code(), Some(0), "{}", ours.log());
        assert_left_alone(&ours, &other, "its --config_dir differs from ");
    });
}

#[test]
fn an_instance_in_another_network_namespace() {
    in_private_namespace(|| {
        let (ours, theirs) = (Site::new(""), Site::new("bind-after = 600000"));
        let apart = |server: &mut Command| {
            let mut unshare = Command::new("unshare");
            unshare
                .arg("--net")
                .arg(server.get_program())
                .args(server.get_args());
            *server = unshare;
        };
        let other = Started::new(&theirs, apart, "server");
        assert_eq!(
            run(&mut ours.monitor_by_rule()).code(),
            Some(0),
            "{}",
            ours.log()
        );
        assert_left_alone(&ours, &other, "another network namespace");
    });
}

#[test]
fn two_instances_of_which_either_can_be_behind_the_urls_port() {
    in_private_namespace(|| {
        let (one, two) = (Site::new(""), Site::new(""));
        let servers = [
            Started::new(&one, |_| (), "listening"),
            Started::new(&two, |_| (), "listening"),
        ];
        let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", proxy.local_addr().unwrap());
        let failed = run(one
            .monitor_by_rule()
            .args(["--url", &url, "--start-timeout", "0.5"]));
        assert_eq!(failed.code(), Some(1));
        let said = "set listen to the server's own ADDRESS:PORT";
        assert!(one.log().contains(said), "{}", one.log());
        let test = format!("PID {} (", std::process::id());
        assert!(
            one.log().contains(&test),
            "the port's holder is named: {}",
            one.log()
        );
        assert!(servers.iter().all(Started::is_alive), "{}", one.log());
    });
}

#[test]
fn a_healthy_server_where_the_urls_name_has_no_address() {
    in_private_namespace(|| {
        let site = Site::new("");
        let server = Started::new(&site, |_| (), "listening");
        let url = format!("http://no-such-host.invalid:{}", site.port);
        let failed = run(site.monitor_by_rule().args(["--url", &url]));
        assert_eq!(failed.code(), Some(1));
        let log = site.log();
        assert!(
            log.contains(
                "[ERROR] The URL's host has no address, so the server was not asked; PID "
            ),
            "{log}"
        );
        assert!(
            log.contains("Cause: the URL's host cannot be resolved: "),
            "{log}"
        );
        assert!(server.is_alive() && site.answers(), "{log}");
        assert!(site.pids("manage").is_empty());
    });
}

#[test]
fn a_dead_server_where_the_urls_name_has_no_address_is_started() {
    in_private_namespace(|| {
        let site = Site::new("");
        let url = format!("http://no-such-host.invalid:{}", site.port);
        let failed = run(site
            .monitor_by_rule()
            .args(["--url", &url, "--start-timeout", "1"]));
        assert_eq!(
            failed.code(),
            Some(1),
            "nobody can see it answer by that name"
        );
        wait_until("it is up all the same", || site.answers());
    });
}

#[test]
fn a_process_pattern_does_not_match_the_shell_of_another_monitor() {
    in_private_namespace(|| {
        let site = Site::new("");
        let pattern = site.pattern().trim_start_matches('^').to_owned();
        let line = format!(
            "exec 3>&1; sleep 600 & wait $!; monitor_myvnc --process-pattern '{pattern}' --restart-cmd '{}'",
            site.manage("start")
        );
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &line])
            .stdin(Stdio::null())
            .process_group(0);
        let mut shell = shell.spawn().unwrap();
        let mut monitor = site.bare_monitor();
        monitor.args(["--restart-cmd", &site.manage("start")]);
        let healed = run(monitor.args(["--process-pattern", &pattern]));
        assert_eq!(healed.code(), Some(0), "{}", site.log());
        assert!(
            site.log().contains("No server process found"),
            "{}",
            site.log()
        );
        assert!(shell.try_wait().unwrap().is_none());
        let group = Pid::from_raw(i32::try_from(shell.id()).unwrap());
        killpg(group, Signal::SIGKILL).unwrap();
        shell.wait().unwrap();
    });
}

#[test]
fn manage_py_that_listens_on_nothing_is_no_server() {
    in_private_namespace(|| {
        let site = Site::new("");
        let mut manage = Command::new(site.path("bin/python3"));
        manage.arg(site.path("myvnc/manage.py")).arg("migrate");
        manage.env("STAND_IN_DECOY", "1");
        let mut child = manage
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        wait_until("it runs under its own arguments", || {
            std::fs::read(format!("/proc/{}/cmdline", child.id()))
                .is_ok_and(|argv| argv.ends_with(b"migrate\0"))
        });
        assert_eq!(
            run(&mut site.monitor_by_rule()).code(),
            Some(0),
            "{}",
            site.log()
        );
        assert!(child.try_wait().unwrap().is_none(), "{}", site.log());
        let reason = "this manage.py listens on no port, so it does not count as the server";
        assert!(site.log().contains(reason), "{}", site.log());
        child.kill().unwrap();
        child.wait().unwrap();
    });
}

#[test]
fn a_server_whose_first_thread_has_ended_is_stopped_to_its_last_thread() {
    in_private_namespace(|| {
        let site = Site::new("first-thread = ends");
        let server = Started::new(&site, |_| (), "listening");
        let pid = server.0.pid;
        let stat = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        wait_until("its first thread has ended", || stat().contains(") Z "));
        let _client = site.idle_client();
        assert_eq!(
            run(&mut site.monitor_by_rule()).code(),
            Some(0),
            "{}",
            site.log()
        );
        let log = site.log();
        assert!(
            log.contains(&format!("Sent SIGTERM to PID {pid}\n")),
            "{log}"
        );
        assert!(site.answers(), "{log}");
    });
}

#[test]
fn what_the_restart_command_does_to_another_instance_is_said() {
    in_private_namespace(|| {
        let (ours, theirs) = (Site::new(""), Site::new(""));
        let other = Started::new(&theirs, |_| (), "listening");
        let command = format!("kill {}; {}", other.0.pid, ours.manage("start"));
        let healed = run(ours.monitor_by_rule().args(["--restart-cmd", &command]));
        assert_eq!(healed.code(), Some(1), "{}", ours.log());
        assert!(ours.answers());
        let said = format!(
            "[ERROR] PID {}, another instance that was left alone, ended during the restart: ",
            other.0.pid
        );
        assert!(ours.log().contains(&said), "{}", ours.log());
    });
}

#[test]
fn secrets_of_processes_and_commands_reach_no_log() {
    in_private_namespace(|| {
        let (ours, theirs) = (Site::new(""), Site::new(""));
        let with = |server: &mut Command| {
            server.args(["--password=hunter2", "--token", "hunter3"]);
        };
        let _other = Started::new(&theirs, with, "listening");
        let command = format!("API_TOKEN=hunter4 {}", ours.manage("start"));
        let url = format!("{}/?token=hunter5&x=y", ours.url());
        let ran = run(ours
            .monitor_by_rule()
            .args(["--restart-cmd", &command, "--url", &url]));
        assert_eq!(ran.code(), Some(0), "{}", ours.log());
        let log = ours.log();
        for shown in [
            "--password=*** --token ***",
            "API_TOKEN=*** ",
            "/?token=***&x=y",
        ] {
            assert!(log.contains(shown), "{shown}: {log}");
        }
        assert!(
            !log.contains("hunter") && !ran.stdout.contains("hunter"),
            "{log}"
        );
    });
}

#[test]
fn a_server_that_comes_back_while_it_is_dumped_is_not_stopped() {
    let site = Site::new("");
    let server = Started::new(&site, |_| (), "listening");
    let client = site.idle_client();
    let marker = site.path("dumped");
    let dump = format!("touch {}; sleep 1", marker.display());
    let releasing = std::thread::spawn(move || {
        wait_until("the dump runs", || marker.exists());
        drop(client);
    });
    let healed = run(site.monitor().args(["--dump-cmd", &dump, "--timeout", "5"]));
    releasing.join().unwrap();
    assert_eq!(healed.code(), Some(0), "{}", site.log());
    assert!(!site.log().contains("SIGTERM"), "{}", site.log());
    assert!(site.log().contains("✓ Server is healthy"), "{}", site.log());
    assert!(server.is_alive());
}
