//! What runs leave for each other: the ledger, the history, holds, pauses and the start grace.
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime};

use nix::mount::MsFlags;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::rig::{self, Mounted, Site, run, wait_until};

/// A file of the site's server in the state directory.
fn state_file(site: &Site, extension: &str) -> PathBuf {
    site.path(&format!("state/127.0.0.1_{}.{extension}", site.port))
}

fn state(site: &Site) -> Value {
    let text = fs::read_to_string(state_file(site, "json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The lines of the history.
fn history(site: &Site) -> Vec<Value> {
    let text = fs::read_to_string(state_file(site, "history.jsonl")).unwrap_or_default();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn events(site: &Site) -> Vec<String> {
    let text = |line: &Value| line["event"].as_str().unwrap().to_owned();
    history(site).iter().map(text).collect()
}

/// The log of one run, and its exit status.
fn ran(site: &Site, monitor: &mut Command) -> (String, Option<i32>) {
    let before = site.log().len();
    let code = run(monitor).code();
    (site.log()[before..].to_owned(), code)
}

fn rfc3339(time: SystemTime) -> String {
    let time: chrono::DateTime<chrono::Utc> = time.into();
    time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

fn ask(site: &Site, what: &Value) {
    fs::create_dir_all(site.path("state")).unwrap();
    fs::write(state_file(site, "pause"), what.to_string()).unwrap();
}

#[test]
fn a_run_leaves_its_check_and_a_restart_its_line_in_the_history() {
    let site = Site::new("");
    assert_eq!(run(&mut site.monitor()).code(), Some(0));
    let state = state(&site);
    assert_eq!(state["phase"], "up");
    assert_eq!(state["server"], "monitor");
    assert_eq!(state["totals"]["restarts"]["answered"], 1);
    // The kernel's log may name a victim of the OOM killer.
    let cause = history(&site)[0]["cause"].as_str().unwrap().to_owned();
    assert!(["not_running", "oom"].contains(&cause.as_str()), "{cause}");
    assert_eq!(state["totals"]["incidents"][&cause], 1);
    let line = &history(&site)[0];
    assert_eq!(line["event"], "restarted");
    assert_eq!(line["outcome"], "answered");
    assert_eq!(line["by"], "monitor");
    let last = || fs::read_to_string(state_file(&site, "last")).unwrap();
    assert!(last().starts_with("ok 200 0."), "{}", last());
    assert_eq!((last().len(), last().ends_with('\n')), (40, true));
    let written = fs::metadata(state_file(&site, "json")).unwrap();
    assert_eq!(run(&mut site.monitor()).code(), Some(0));
    let again = fs::metadata(state_file(&site, "json")).unwrap();
    assert_eq!(
        std::os::unix::fs::MetadataExt::ino(&written),
        std::os::unix::fs::MetadataExt::ino(&again),
        "a healthy run writes the last check alone"
    );
    assert_eq!(history(&site).len(), 1);
}

#[test]
fn with_bare_flags_every_run_restarts() {
    let site = Site::new("");
    for _ in 0..4 {
        let mut monitor = site.bare_monitor();
        monitor.args(["--restart-cmd", &site.manage("fail")]);
        let (log, code) = ran(&site, monitor.args(["--process-pattern", &site.pattern()]));
        assert_eq!(code, Some(1));
        assert!(log.contains("Starting server with command"), "{log}");
        assert!(!log.contains("held off"), "{log}");
    }
    assert_eq!(state(&site)["totals"]["restarts"]["failed"], 4);
    assert_eq!(state(&site)["phase"], "failed");
    assert_eq!(history(&site).len(), 4);
}

#[test]
fn restarts_that_do_not_help_wait_longer_and_resume_ends_that() {
    let site = Site::new("");
    let attempt = || {
        let mut monitor = site.bare_monitor();
        monitor.args([
            "--restart-cmd",
            &site.manage("fail"),
            "--max-restarts",
            "30",
        ]);
        ran(&site, monitor.args(["--process-pattern", &site.pattern()])).0
    };
    for _ in 0..2 {
        assert!(attempt().contains("Starting server with command"));
    }
    let held = attempt();
    assert!(!held.contains("Starting server with command"), "{held}");
    assert!(held.contains("[WARNING] Restart held off until "), "{held}");
    assert!(held.contains("the last 2 restarts did not help"), "{held}");
    // As it stands in the log, the command finds the server.
    let (_, command) = held.split_once("to try at once: monitor_myvnc ").unwrap();
    let command = command.lines().next().unwrap();
    let mut resume = Command::new(rig::MONITOR);
    let said = resume.args(command.split(' ')).output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.starts_with("monitor: resumed"), "{command}: {said}");
    assert!(held.contains("Cause: the server is not running"), "{held}");
    assert_eq!(state(&site)["phase"], "held");
    let resumed = attempt();
    assert!(
        resumed.contains("Restarts are no longer held off"),
        "{resumed}"
    );
    assert!(
        resumed.contains("Starting server with command"),
        "{resumed}"
    );
    // What was asked for once is done once.
    assert!(!attempt().contains("no longer held off"));
}

#[test]
fn a_run_that_comes_late_counts_the_restart_of_the_other_run() {
    let site = Site::new("");
    let _server = site.start();
    let _client = site.idle_client();
    let mut late = site.monitor();
    let mut late = late.args(["--timeout", "1.5", "--quiet"]).spawn().unwrap();
    wait_until("it checks", || {
        site.log().contains("Checking server health")
    });
    // What a run with another log leaves that has restarted the server meanwhile, in vain.
    let now = rfc3339(SystemTime::now());
    let other = json!({
        "format": 1, "phase": "failed", "since": now,
        "down": {"id": "other", "cause": "idle_client", "announced": "failed"},
        "restarts": [{"at": now, "outcome": "failed", "id": "other"}],
        "totals": {"restarts": {"answered": 0, "failed": 1}},
    });
    fs::create_dir_all(site.path("state")).unwrap();
    fs::write(state_file(&site, "json"), other.to_string()).unwrap();
    fs::write(state_file(&site, "lock"), "1\n").unwrap();
    assert_eq!(late.wait().unwrap().code(), Some(0));
    let state = state(&site);
    let expected = json!({"answered": 1, "failed": 1});
    assert_eq!(state["totals"]["restarts"], expected, "{state}");
    assert_eq!(history(&site)[0]["id"], "other", "the same outage");
}

#[test]
fn restarts_count_as_they_ended_where_the_history_cannot_be_written() {
    let site = Site::new("");
    fs::create_dir_all(state_file(&site, "history.jsonl")).unwrap();
    for _ in 0..2 {
        let (log, code) = ran(&site, site.monitor().args(["--max-restarts", "30"]));
        assert_eq!(code, Some(0), "{log}");
        let warning = format!(
            "[WARNING] Cannot write {}: ",
            state_file(&site, "history.jsonl").display()
        );
        assert_eq!(log.matches(&warning).count(), 1, "{log}");
        for pid in site.servers() {
            kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        }
        wait_until("it is gone", || site.servers().is_empty());
    }
    let expected = json!({"answered": 2, "failed": 0});
    assert_eq!(state(&site)["totals"]["restarts"], expected);
}

#[test]
fn another_restart_command_begins_anew() {
    let site = Site::new("");
    let attempt = |verb: &str| {
        let mut monitor = site.bare_monitor();
        monitor.args(["--restart-cmd", &site.manage(verb), "--max-restarts", "30"]);
        ran(&site, monitor.args(["--process-pattern", &site.pattern()]))
    };
    for _ in 0..3 {
        assert_eq!(attempt("fail").1, Some(1));
    }
    assert_eq!(state(&site)["phase"], "held");
    assert_eq!(attempt("start").1, Some(0));
    assert_eq!(state(&site)["phase"], "up");
}

#[test]
fn with_the_policy_never_a_run_says_what_is_wrong_and_no_more() {
    let site = Site::new("");
    for _ in 0..2 {
        let (log, code) = ran(&site, site.monitor().args(["--restart-policy", "never"]));
        assert_eq!(code, Some(1));
        assert!(
            log.contains("Restart held off: restart-policy is never"),
            "{log}"
        );
        assert!(!log.contains("RESTARTING"), "{log}");
    }
    assert!(site.servers().is_empty());
    assert_eq!(events(&site), ["held"], "a hold is written down once");
}

#[test]
fn a_status_that_a_restart_does_not_change_is_held_until_it_changes() {
    let site = Site::new("status = 404 Not Found");
    let _server = site.start();
    let useful = || {
        ran(
            &site,
            site.monitor()
                .args(["--restart-policy", "useful", "--start-timeout", "1"]),
        )
    };
    let (log, code) = useful();
    assert_eq!(code, Some(1));
    assert!(log.contains("RESTARTING"), "one try: {log}");
    let before = site.servers();
    let (log, code) = useful();
    assert_eq!(code, Some(1));
    assert!(log.contains("Restart held off until "), "{log}");
    assert!(log.contains("a restart does not cure this: "), "{log}");
    assert_eq!(site.servers(), before, "{log}");
    assert_eq!(events(&site), ["failed", "held"]);
    // Another status is another matter.
    kill(Pid::from_raw(before[0]), Signal::SIGKILL).unwrap();
    wait_until("it is gone", || site.servers().is_empty());
    site.configure("status = 500 Internal Server Error");
    let _server = site.start();
    let (log, _) = useful();
    assert!(log.contains("RESTARTING"), "{log}");
}

/// Changes the state as if somebody else had written it.
fn edit(site: &Site, change: impl FnOnce(&mut Value)) {
    let mut edited = state(site);
    change(&mut edited);
    fs::write(state_file(site, "json"), edited.to_string()).unwrap();
}

#[test]
fn a_hold_that_is_over_is_tried_again_and_begins_anew() {
    let site = Site::new("status = 404 Not Found");
    let _server = site.start();
    let useful = || {
        let options = ["--restart-policy", "useful", "--start-timeout", "1"];
        ran(&site, site.monitor().args(options)).0
    };
    assert!(useful().contains("RESTARTING"));
    assert!(useful().contains("Restart held off until "));
    let hours_ago = rfc3339(SystemTime::now() - Duration::from_secs(6 * 3600 + 60));
    edit(&site, |state| {
        for time in ["/since", "/hold/until", "/restarts/0/at"] {
            *state.pointer_mut(time).unwrap() = hours_ago.clone().into();
        }
    });
    let log = useful();
    assert!(log.contains("RESTARTING"), "{log}");
    assert!(useful().contains("Restart held off until "));
}

#[test]
fn after_a_reboot_earlier_restarts_do_not_count() {
    let site = Site::new("");
    let attempt = || {
        let fail = site.manage("fail");
        let options = ["--restart-cmd", &fail, "--max-restarts", "30"];
        ran(&site, site.monitor().args(options)).0
    };
    for _ in 0..3 {
        attempt();
    }
    assert_eq!(state(&site)["phase"], "held");
    edit(&site, |state| state["boot"] = "that of another boot".into());
    let log = attempt();
    assert!(log.contains("Starting server with command"), "{log}");
}

#[test]
fn a_full_disk_is_held_until_there_is_space() {
    rig::in_private_namespace(|| {
        let site = Site::new("");
        let disk = site.path("disk");
        let _mounted = Mounted::tmpfs(&disk, MsFlags::empty(), "size=64k");
        site.configure(&format!("log = {}", disk.join("myvnc_7.log").display()));
        let server = site.start();
        assert_eq!(run(&mut site.monitor()).code(), Some(0));
        drop(server);
        let attempt = || {
            let mut monitor = site.bare_monitor();
            monitor.args(["--restart-cmd", &site.manage("fail")]);
            monitor.args(["--restart-policy", "useful"]);
            ran(&site, monitor.args(["--process-pattern", &site.pattern()])).0
        };
        let _ = fs::write(disk.join("ballast"), vec![b'x'; 1 << 20]);
        let log = attempt();
        assert!(log.contains("Starting server with command"), "{log}");
        for _ in 0..2 {
            let log = attempt();
            let held = format!(
                "a restart does not cure this: the disk of {} is full",
                disk.display()
            );
            assert!(log.contains(&held), "{log}");
            assert!(!log.contains("Starting server with command"), "{log}");
        }
        fs::remove_file(disk.join("ballast")).unwrap();
        let log = attempt();
        assert!(log.contains("Starting server with command"), "{log}");
    });
}

#[test]
fn an_answer_after_an_outage_that_the_monitor_did_not_end_is_a_recovery() {
    let site = Site::new("");
    assert_eq!(
        run(site.monitor().args(["--restart-policy", "never"])).code(),
        Some(1)
    );
    let _server = site.start();
    let (log, code) = ran(&site, site.monitor().args(["--restart-policy", "never"]));
    assert_eq!(code, Some(0));
    assert_eq!(events(&site), ["held", "recovered"]);
    let away = log.lines().find(|line| line.contains("Service was away "));
    let away = away.expect("how long the server was away");
    assert!(away.contains(" s: the server is not running"), "{away}");
    let line = &history(&site)[1];
    assert_eq!(line["id"], history(&site)[0]["id"]);
    assert_eq!(line["cause"], history(&site)[0]["cause"]);
    assert_eq!(state(&site)["phase"], "up");
}

#[test]
fn a_paused_monitor_checks_and_touches_nothing() {
    let site = Site::new("");
    let later = SystemTime::now() + Duration::from_secs(3600);
    let pause = json!({"until": rfc3339(later), "by": "alice", "reason": "upgrade\u{1b}[2J", "at": rfc3339(SystemTime::now())});
    ask(&site, &json!({"format": 1, "pause": pause}));
    let (log, code) = ran(&site, &mut site.monitor());
    assert_eq!(code, Some(0));
    assert!(log.contains("[INFO] Server is unresponsive: "), "{log}");
    assert!(
        log.contains("paused until ") && log.contains("by alice: upgrade?[2J"),
        "{log}"
    );
    assert!(
        !log.contains("RESTARTING") && !log.contains("[ERROR]"),
        "{log}"
    );
    let (log, code) = ran(&site, &mut site.monitor());
    assert_eq!(code, Some(0));
    assert!(
        !log.contains("[INFO] Server is unresponsive"),
        "said once: {log}"
    );
    assert!(log.contains("[DEBUG] Server is unresponsive: "), "{log}");
    assert!(site.servers().is_empty());
    let last = fs::read_to_string(state_file(&site, "last")).unwrap();
    assert!(last.starts_with("down 0 "), "{last}");
    // It ends by itself, and the outage in it is apart.
    let earlier = SystemTime::now() - Duration::from_secs(5);
    let over = json!({"until": rfc3339(earlier), "by": "alice", "at": rfc3339(earlier)});
    ask(&site, &json!({"format": 1, "pause": over}));
    let (log, code) = ran(&site, &mut site.monitor());
    assert_eq!(code, Some(0));
    assert!(log.contains("Starting server with command"), "{log}");
    run(&mut site.monitor());
    assert!(
        events(&site).contains(&"planned".to_owned()),
        "{:?}",
        events(&site)
    );
}

#[test]
fn after_a_pause_a_server_was_away_since_it_was_seen_down() {
    let site = Site::new("");
    let server = site.start();
    run(&mut site.monitor());
    // It has been up for three days.
    let mut long_up = state(&site);
    long_up["since"] = rfc3339(SystemTime::now() - Duration::from_secs(3 * 86_400)).into();
    fs::write(state_file(&site, "json"), long_up.to_string()).unwrap();
    drop(server);
    let pause = |until: SystemTime| {
        let at = rfc3339(SystemTime::now());
        let pause = json!({"until": rfc3339(until), "by": "alice", "at": at});
        ask(&site, &json!({"format": 1, "pause": pause}));
    };
    pause(SystemTime::now() + Duration::from_secs(3600));
    run(&mut site.monitor());
    pause(SystemTime::now() - Duration::from_secs(1));
    let (log, code) = ran(&site, &mut site.monitor());
    assert_eq!(code, Some(0));
    let away = log.split("Service was away ").nth(1).unwrap();
    let away: u64 = away.split(' ').next().unwrap().parse().unwrap();
    assert!(away < 3600, "{log}");
    let cause = log.lines().find(|line| line.contains("Cause: ")).unwrap();
    assert!(
        cause.contains("it last answered ") && cause.ends_with(" s ago"),
        "{log}"
    );
}

/// Seconds that the lines of this event say the server was away.
fn away(site: &Site, event: &str) -> u64 {
    let lines = history(site);
    let of_event = lines.iter().filter(|line| line["event"] == event);
    of_event.filter_map(|line| line["away_s"].as_u64()).sum()
}

#[test]
fn an_outage_keeps_its_seconds_beside_a_time_without_runs() {
    let site = Site::new("");
    let server = site.start();
    run(&mut site.monitor());
    let last = fs::File::options()
        .write(true)
        .open(state_file(&site, "last"))
        .unwrap();
    last.set_modified(SystemTime::now() - Duration::from_secs(7200))
        .unwrap();
    drop(server);
    site.configure("bind-after = 3000");
    assert_eq!(run(&mut site.monitor()).code(), Some(0));
    let (unwatched, restarted) = (away(&site, "unwatched"), away(&site, "restarted"));
    assert!((7190..7400).contains(&unwatched), "{unwatched}");
    assert!((3..100).contains(&restarted), "{restarted}");
}

#[test]
fn an_outage_that_goes_on_is_described_as_the_last_run_saw_it() {
    let site = Site::new("");
    let server = site.start();
    let never = || run(site.monitor().args(["--restart-policy", "never"])).code();
    assert_eq!(never(), Some(0));
    drop(server);
    let text = || state(&site)["down"]["text"].as_str().unwrap().to_owned();
    assert_eq!(never(), Some(1));
    let first = text();
    wait_until("another run finds it down for longer", || {
        assert_eq!(never(), Some(1));
        text() != first
    });
    assert_eq!(events(&site), ["held"]);
}

#[test]
fn a_pause_that_cannot_be_read_is_no_pause() {
    let site = Site::new("");
    fs::create_dir_all(site.path("state")).unwrap();
    fs::write(state_file(&site, "pause"), "{").unwrap();
    let (log, code) = ran(&site, &mut site.monitor());
    assert_eq!(code, Some(0));
    assert!(log.contains("[WARNING] Cannot read "), "{log}");
    assert!(log.contains("Starting server with command"), "{log}");
}

#[test]
fn a_server_that_has_just_started_is_waited_for() {
    let site = Site::new("bind-after = 1500");
    let server = site.spawn();
    wait_until("the server runs", || !site.servers().is_empty());
    let (log, code) = ran(&site, site.monitor().args(["--start-grace", "60"]));
    assert_eq!(code, Some(0));
    assert!(log.contains("has just started: waiting up to "), "{log}");
    assert!(log.contains("✓ Server is healthy"), "{log}");
    assert!(!log.contains("RESTARTING"), "{log}");
    assert_eq!(site.servers(), [server.pid]);
}

#[test]
fn a_server_that_still_hangs_when_its_grace_is_over_is_restarted() {
    let (site, _server) = Site::hung("");
    let before = site.servers();
    let _client = site.idle_client();
    let mut monitor = site.monitor();
    let (log, code) = ran(
        &site,
        monitor.args(["--start-grace", "3", "--timeout", "0.5"]),
    );
    assert_eq!(code, Some(0));
    assert!(log.contains("has just started: waiting up to "), "{log}");
    assert!(log.contains("Sent SIGTERM"), "{log}");
    assert!(!site.servers().contains(&before[0]), "{log}");
}

#[test]
fn a_run_that_is_killed_in_the_middle_of_a_restart_has_tried() {
    let site = Site::new("on-term = ignore");
    let _server = site.start();
    let _client = site.idle_client();
    let mut monitor = site.monitor();
    let mut child = monitor
        .args(["--stop-timeout", "60", "--timeout", "0.5"])
        .spawn()
        .unwrap();
    wait_until("the server is asked to end", || {
        site.log().contains("Sent SIGTERM")
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let state = state(&site);
    assert_eq!(state["restarts"][0]["outcome"], "failed", "{state}");
    assert_eq!(state["down"]["cause"], "idle_client", "{state}");
}

#[test]
fn a_state_that_makes_no_sense_is_set_aside_and_said_once() {
    let site = Site::new("");
    let _server = site.start();
    let ahead = SystemTime::now() + Duration::from_secs(3600);
    let ahead = json!({"format": 1, "phase": "down", "since": rfc3339(ahead)}).to_string();
    for text in [
        "",
        "{\"format\":1,\"pha",
        "[1]",
        "{\"format\":1,\"restarts\":7}",
        &ahead,
    ] {
        fs::create_dir_all(site.path("state")).unwrap();
        fs::write(state_file(&site, "json"), text).unwrap();
        let (log, code) = ran(&site, &mut site.monitor());
        assert_eq!(code, Some(0), "{text}");
        assert_eq!(
            log.matches("[WARNING]").count(),
            1 + log.matches("There is no record").count(),
            "{text}: {log}"
        );
        assert!(log.contains("cannot be understood"), "{text}: {log}");
        let kept = fs::read_to_string(state_file(&site, "json.bad")).unwrap();
        assert_eq!(kept, text);
        let (log, _) = ran(&site, &mut site.monitor());
        assert!(!log.contains("cannot be understood"), "{log}");
    }
    // A newer version's file is left as it is.
    let newer = "{\"format\":2,\"phase\":\"up\",\"mood\":\"fine\"}";
    fs::write(state_file(&site, "json"), newer).unwrap();
    assert_eq!(ran(&site, &mut site.monitor()).1, Some(0));
    assert_eq!(
        fs::read_to_string(state_file(&site, "json")).unwrap(),
        newer
    );
}

#[test]
fn a_time_without_runs_is_written_down_as_unwatched() {
    let site = Site::new("");
    let _server = site.start();
    run(&mut site.monitor());
    let last = fs::File::options()
        .write(true)
        .open(state_file(&site, "last"))
        .unwrap();
    last.set_modified(SystemTime::now() - Duration::from_secs(7200))
        .unwrap();
    run(&mut site.monitor());
    assert_eq!(events(&site), ["unwatched"]);
    let away = history(&site)[0]["away_s"].as_u64().unwrap();
    assert!((7190..7400).contains(&away), "{away}");
}
