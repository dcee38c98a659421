//! The monitor is told to stop, or killed, in every phase of a run.
use std::process::Child;

use crate::rig::{Site, run, wait_for, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const REQUESTS: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];

/// Starts a run and returns once its log has that line.
fn run_until(site: &Site, arguments: &[&str], line: &str) -> Child {
    let monitor = site
        .monitor()
        .args(arguments)
        .arg("--quiet")
        .spawn()
        .unwrap();
    wait_until(line, || site.log().contains(line));
    monitor
}

fn interrupt(monitor: &mut Child, signal: Signal) -> Option<i32> {
    kill(Pid::from_raw(monitor.id().try_into().unwrap()), signal).unwrap();
    wait_for(monitor).code()
}

/// A server that is up after at most one more run.
fn assert_up_after_one_more_run(site: &Site) {
    site.configure("");
    assert_eq!(run(&mut site.monitor()).code(), Some(0), "{}", site.log());
    wait_until("one server is left", || site.servers().len() == 1);
    assert!(site.answers());
}

#[test]
fn told_to_stop_before_the_first_signal_it_stops_at_once() {
    for signal in REQUESTS {
        let site = Site::new("");
        let server = site.start();
        let _client = site.idle_client();
        let mut monitor = run_until(&site, &["--timeout", "60"], "Checking server health");
        assert_eq!(interrupt(&mut monitor, signal), Some(128 + signal as i32));
        let said = format!("[WARNING] Received {signal}: this run ends now; nothing was touched\n");
        assert!(site.transcript().ends_with(&said), "{}", site.log());
        assert!(server.is_alive());
        assert!(site.pids("manage").is_empty());
    }
}

#[test]
fn told_to_stop_between_two_checks_it_stops_at_once() {
    for signal in REQUESTS {
        let site = Site::new("");
        let mut monitor = run_until(
            &site,
            &["--retries", "1", "--retry-delay", "60"],
            "Check 1 of 2 failed",
        );
        assert_eq!(interrupt(&mut monitor, signal), Some(128 + signal as i32));
        assert!(
            site.log()
                .contains("this run ends now; nothing was touched")
        );
        assert!(site.pids("manage").is_empty());
    }
}

#[test]
fn told_to_stop_after_the_first_signal_it_starts_the_server_first() {
    for signal in REQUESTS {
        let site = Site::new("on-term = 500");
        let _server = site.start();
        let before = site.servers();
        let _client = site.idle_client();
        let mut monitor = run_until(
            &site,
            &["--timeout", "0.5"],
            "Waiting for processes to terminate...",
        );
        assert_eq!(interrupt(&mut monitor, signal), Some(128 + signal as i32));
        let log = site.log();
        assert!(
            log.contains(&format!(
                "Received {signal}: this run ends once the server is started\n"
            )),
            "{log}"
        );
        assert!(
            log.ends_with("The server was started; this run ends because it received a signal\n"),
            "{log}"
        );
        wait_until("the new server answers", || site.answers());
        assert_eq!(site.servers().len(), 1);
        assert_ne!(site.servers(), before);
    }
}

#[test]
fn told_to_stop_while_it_kills_it_starts_the_server_first() {
    let site = Site::new("on-term = ignore");
    let _server = site.start();
    let _client = site.idle_client();
    let mut monitor = run_until(
        &site,
        &["--timeout", "0.5", "--stop-timeout", "1"],
        "Waiting for processes",
    );
    assert_eq!(interrupt(&mut monitor, Signal::SIGTERM), Some(143));
    assert!(site.log().contains("Sent SIGKILL"), "{}", site.log());
    wait_until("the new server answers", || site.answers());
    assert_eq!(site.servers().len(), 1);
}

#[test]
fn told_to_stop_while_the_server_starts_it_does_not_take_it_along() {
    for signal in REQUESTS {
        let site = Site::new("bind-after = 1000");
        site.configure_manage("delay = 500");
        let mut monitor = run_until(&site, &[], "Starting server with command");
        assert_eq!(interrupt(&mut monitor, signal), Some(128 + signal as i32));
        assert!(
            site.log()
                .ends_with("The server was started; this run ends because it received a signal\n"),
            "{}",
            site.log()
        );
        wait_until("the server answers", || site.answers());
        assert_eq!(site.servers().len(), 1);
    }
}

#[test]
fn killed_in_any_phase_the_next_run_heals() {
    let phases: [(&str, &str); 4] = [
        ("", "Checking server health"),
        ("on-term = 500", "Waiting for processes to terminate..."),
        ("on-term = ignore", "Sent SIGKILL"),
        ("bind-after = 1000", "Starting server with command"),
    ];
    for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGINT] {
        for (settings, line) in phases {
            let site = Site::new(settings);
            let _server = site.start();
            let _client = site.idle_client();
            let mut monitor =
                run_until(&site, &["--timeout", "0.5", "--stop-timeout", "0.3"], line);
            interrupt(&mut monitor, signal);
            assert_up_after_one_more_run(&site);
        }
    }
}

#[test]
fn an_interrupted_run_gives_its_locks_back() {
    let site = Site::new("");
    let mut monitor = run_until(
        &site,
        &["--retries", "1", "--retry-delay", "60"],
        "Check 1 of 2 failed",
    );
    interrupt(&mut monitor, Signal::SIGKILL);
    assert_up_after_one_more_run(&site);
    assert!(!site.log().contains("Another run"), "{}", site.log());
}
