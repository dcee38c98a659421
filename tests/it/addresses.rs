//! The server's own address and the URL's, where they differ: what is asked, what is named, and what is left alone.
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::rig::certified;
use crate::rig::dead_disk::DeadDisk;
use crate::rig::machine::{MYVNC, Machine, NOBODY, OTHER, PORT, Ran, on_own_machine, user_of};
use crate::rig::{Process, skip};

/// Where a proxy listens.
const PROXY: u16 = 9300;

/// A proxy of another user, which answers so, or never.
fn proxy(machine: &Machine, answer: Option<&str>) -> Process {
    let answer = answer.map_or_else(String::new, |status| format!("\nanswer = {status}"));
    let settings = format!("listen = 127.0.0.1:{PROXY}{answer}");
    let argv = ["haproxy", "-f", "/etc/haproxy/haproxy.cfg"];
    machine.stranger(NOBODY, &argv, &settings)
}

/// A monitor whose URL is the proxy's; `timeout`: the time limit of a check, in seconds.
fn monitor_behind(machine: &Machine, timeout: &str) -> Command {
    let mut monitor = machine.monitor();
    monitor.args(["--url", &format!("http://127.0.0.1:{PROXY}")]);
    monitor.args(["--timeout", timeout]);
    monitor
}

/// The proxy is named with its process and user, and nothing was touched.
#[track_caller]
fn assert_proxy_is_named(machine: &Machine, proxy: &Process, server: &Process, ran: &Ran) {
    assert_eq!(ran.code(), Some(1), "{ran:?}");
    let errors = ran.errors().concat();
    let itself =
        format!("The server itself answers at 127.0.0.1:{PORT} (status: 200), but the check of ");
    assert!(errors.contains(&itself), "{ran:?}");
    let named = format!(
        "fails at the proxy at 127.0.0.1:{PROXY}, PID {} (haproxy ",
        proxy.pid
    );
    assert!(errors.contains(&named), "{ran:?}");
    assert!(errors.contains(" of user nobody: "), "{ran:?}");
    for process in [proxy, server] {
        ran.assert_unharmed(process);
    }
    machine.assert_other_unharmed(ran);
    assert!(!ran.log.contains("Starting server"), "{ran:?}");
}

#[test]
fn hazard_46_a_proxy_that_fails_is_named_and_its_server_left_alone() {
    on_own_machine(MYVNC, |machine| {
        let server = machine.ours.start();
        let listen = format!("127.0.0.1:{PORT}");
        for answer in [
            Some("502 Bad Gateway"),
            Some("503 Service Unavailable"),
            None,
        ] {
            let proxy = proxy(machine, answer);
            let timeout = if answer.is_some() { "10" } else { "2" };
            let mut monitor = monitor_behind(machine, timeout);
            let ran = machine.run(monitor.args(["--listen", &listen]));
            assert_proxy_is_named(machine, &proxy, &server, &ran);
        }
        let proxy = proxy(machine, Some("200 OK"));
        kill(Pid::from_raw(proxy.pid), Signal::SIGSTOP).unwrap();
        let mut monitor = monitor_behind(machine, "2");
        let ran = machine.run(monitor.args(["--listen", &listen]));
        assert_proxy_is_named(machine, &proxy, &server, &ran);
    });
}

/// Writes that `server_config.json` into a directory of the server's owner, and gives a restart command that names it.
fn configured(machine: &Machine, text: &str) -> String {
    let directory = machine.make_directory("configuration", MYVNC, 0o755);
    machine.make_file("configuration/server_config.json", MYVNC, 0o644, text);
    let command = machine.ours.restart_command();
    command.replace(
        " start",
        &format!(" --config_dir={} start", directory.display()),
    )
}

#[test]
fn the_servers_own_configuration_says_where_it_listens() {
    on_own_machine(MYVNC, |machine| {
        let proxy = proxy(machine, Some("503 Service Unavailable"));
        let text = format!("{{\"host\": \"127.0.0.1\", \"port\": {PORT}}}");
        let command = configured(machine, &text);
        let run = |timeout: &str| {
            let mut monitor = monitor_behind(machine, timeout);
            machine.run(monitor.args(["--restart-cmd", &command]))
        };
        // Healthy behind a proxy that fails.
        let server = machine.ours.start();
        let ran = run("10");
        assert_proxy_is_named(machine, &proxy, &server, &ran);
        // Hung.
        let client = machine.ours.idle_client();
        let ran = run("2");
        assert_eq!(ran.code(), Some(0), "{ran:?}");
        assert!(!server.is_alive() && machine.ours.answers(), "{ran:?}");
        assert_eq!(user_of(machine.ours.server()), MYVNC, "{ran:?}");
        drop(client);
        // Dead.
        machine.ours.kill();
        let ran = run("10");
        assert_eq!(ran.code(), Some(0), "{ran:?}");
        assert!(machine.ours.answers(), "{ran:?}");
        assert_eq!(user_of(machine.ours.server()), MYVNC, "{ran:?}");
        ran.assert_unharmed(&proxy);
        machine.assert_other_unharmed(&ran);
    });
}

#[test]
fn a_server_configuration_that_cannot_be_read_says_nothing() {
    on_own_machine(MYVNC, |machine| {
        let text = format!("{{\"host\": \"127.0.0.1\", \"port\": {PORT}}}");
        let command = configured(machine, &text);
        let file = machine.path("configuration/server_config.json");
        let Some(_dead) = DeadDisk::mount_file(&file) else {
            return skip("no file system in user space can be mounted here");
        };
        let _server = machine.ours.start();
        let _client = machine.ours.idle_client();
        // At the URL's address, the server is found without it.
        let ran = machine.run(machine.monitor().args(["--restart-cmd", &command]));
        machine.assert_healed(&ran);
        // Reading it may take a second.
        assert!(ran.run.took < Duration::from_secs(20), "{ran:?}");
    });
}

#[test]
fn the_servers_own_configuration_says_where_its_log_is() {
    on_own_machine(MYVNC, |machine| {
        let logs = machine.make_directory("logs", MYVNC, 0o755);
        let text = format!("{{\"port\": {PORT}, \"logdir\": \"{}\"}}", logs.display());
        let command = configured(machine, &text);
        let server = machine.ours.start();
        let now = chrono::Local::now().format("%Y-%m-%d %H:%M:%S,123");
        let line = format!("{now} - myvnc - INFO - server.py:294 - it is in logdir\n");
        machine.make_file(
            &format!("logs/myvnc_{}.log", server.pid),
            MYVNC,
            0o644,
            &line,
        );
        let _client = machine.ours.idle_client();
        let ran = machine.run(machine.monitor().args(["--restart-cmd", &command]));
        machine.assert_healed(&ran);
        assert!(
            ran.log.contains("server.py:294 - it is in logdir"),
            "{ran:?}"
        );
    });
}

/// A check of that URL names the right one as the cause, and stops and starts nothing. On a busy machine the server may
/// not answer in the short time limit for the other scheme: then the check is repeated.
#[track_caller]
fn assert_scheme_is_named(machine: &Machine, url: &str, cause: &str) {
    let check = || {
        let mut monitor = machine.patient_monitor();
        machine.run(monitor.args(["--url", url, "--restart-policy", "never"]))
    };
    let mut ran = check();
    for _ in 0..10 {
        if ran.log.contains(cause) {
            break;
        }
        ran = check();
    }
    assert!(ran.log.contains(cause), "{ran:?}");
    assert_eq!(ran.code(), Some(1), "{ran:?}");
    assert!(!ran.log.contains("RESTARTING SERVER"), "{ran:?}");
    let file = machine.path("state").join(format!("127.0.0.1_{PORT}.json"));
    let state: serde_json::Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    assert_eq!(state["down"]["cause"], "scheme", "{state}");
}

#[test]
fn hazard_47_https_to_a_server_of_plain_http_is_named_with_the_right_url() {
    on_own_machine(OTHER, |machine| {
        let server = machine.ours.start();
        let url = format!("https://127.0.0.1:{PORT}");
        let cause = format!(
            "Cause: the server speaks plain HTTP here, not TLS: the right URL is http://127.0.0.1:{PORT}"
        );
        assert_scheme_is_named(machine, &url, &cause);
        assert!(server.is_alive());
        let useful = || {
            let mut monitor = machine.patient_monitor();
            monitor.args(["--url", &url, "--start-timeout", "1"]);
            machine.run(monitor.args(["--restart-policy", "useful"]))
        };
        let first = useful();
        assert_eq!(first.code(), Some(1), "{first:?}");
        assert!(
            first.log.contains("RESTARTING SERVER"),
            "one try: {first:?}"
        );
        let restarted = machine.ours.server();
        let second = useful();
        assert_eq!(second.code(), Some(1), "{second:?}");
        assert!(second.log.contains("Restart held off until "), "{second:?}");
        assert!(
            second.log.contains("a restart does not cure this: "),
            "{second:?}"
        );
        assert_eq!(machine.ours.server(), restarted, "{second:?}");
        assert!(machine.ours.answers(), "{second:?}");
        machine.assert_other_unharmed(&second);
    });
}

#[test]
fn hazard_47_http_to_a_server_of_tls_is_named_with_the_right_url() {
    on_own_machine(OTHER, |machine| {
        let (config, _) = certified(|_| ());
        let listener = TcpListener::bind(("127.0.0.1", PORT)).unwrap();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let session = rustls::ServerConnection::new(config.clone()).unwrap();
                let mut stream = rustls::StreamOwned::new(session, client);
                if stream.read(&mut [0; 4096]).is_ok() {
                    let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n");
                }
            }
        });
        let url = format!("http://127.0.0.1:{PORT}");
        let cause = format!(
            "Cause: the server speaks TLS here, not plain HTTP: the right URL is https://127.0.0.1:{PORT}"
        );
        assert_scheme_is_named(machine, &url, &cause);
    });
}
