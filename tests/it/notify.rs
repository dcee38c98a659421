//! The notify command, the outbox and the notifiers of the packages, against a real sendmail and a real curl.
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::rig::{self, MONITOR, Mounted, PATIENCE, Site, is_root, run, skip, wait_until};

const NOTIFIERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/notifiers");

/// A file of the site's server in the state directory.
pub(crate) fn state_file(site: &Site, extension: &str) -> PathBuf {
    site.path(&format!("state/127.0.0.1_{}.{extension}", site.port))
}

/// The monitor with a restart command of that verb, and that notify command.
pub(crate) fn monitor(site: &Site, verb: &str, notify: &str) -> Command {
    let mut monitor = site.bare_monitor();
    monitor.args(["--restart-cmd", &site.manage(verb)]);
    monitor.args(["--process-pattern", &site.pattern()]);
    monitor.args(["--notify-cmd", notify, "--timeout", "0.5"]);
    monitor
}

/// A notify command that writes down the events that it takes.
pub(crate) fn noting(site: &Site) -> String {
    let file = site.path("events");
    format!(
        "echo \"$MONITOR_MYVNC_EVENT $MONITOR_MYVNC_DEDUP_KEY\" >> '{}'",
        file.display()
    )
}

/// The events that were written down, as (event, dedup key).
pub(crate) fn noted(site: &Site) -> Vec<(String, String)> {
    let events = fs::read_to_string(site.path("events")).unwrap_or_default();
    let pair = |line: &str| {
        let (event, key) = line.split_once(' ').unwrap();
        (event.to_owned(), key.to_owned())
    };
    events.lines().map(pair).collect()
}

fn events(site: &Site) -> Vec<String> {
    noted(site).into_iter().map(|(event, _)| event).collect()
}

fn waiting(site: &Site) -> Vec<Value> {
    let Ok(files) = fs::read_dir(state_file(site, "outbox")) else {
        return Vec::new();
    };
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    let events = files.iter().map(|file| fs::read_to_string(file).unwrap());
    events
        .filter_map(|text| serde_json::from_str(&text).ok())
        .collect()
}

#[test]
fn a_restart_is_one_event_in_the_environment_and_on_stdin() {
    let site = Site::new("");
    let out = site.path("out");
    let notify = format!(
        "env | grep ^MONITOR_MYVNC_ | sort > '{0}.env'; cat > '{0}.json'; echo said",
        out.display()
    );
    let mut monitor = monitor(&site, "start", &notify);
    // Values come from here alone.
    monitor.env("MONITOR_MYVNC_CULPRIT", "forged");
    // That of the tests.
    monitor.env_remove("MONITOR_MYVNC_CACHE");
    assert_eq!(run(&mut monitor).code(), Some(0), "{}", site.log());
    let environment = fs::read_to_string(site.path("out.env")).unwrap();
    let json = fs::read_to_string(site.path("out.json")).unwrap();
    let json: Value = serde_json::from_str(&json).unwrap();
    let keys = [
        "event",
        "server",
        "host",
        "url",
        "summary",
        "cause",
        "culprit",
        "since",
        "away_seconds",
        "log",
        "dedup_key",
    ];
    assert_eq!(environment.lines().count(), keys.len(), "{environment}");
    for key in keys {
        let value = match &json[key] {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        };
        let line = format!("MONITOR_MYVNC_{}={value}", key.to_uppercase());
        assert!(
            environment.lines().any(|one| one == line),
            "{line}\n{environment}"
        );
    }
    assert_eq!(json["event"], "restarted");
    assert_eq!(json["server"], "monitor");
    assert_eq!(json["url"], site.url());
    assert_eq!(json["log"], site.path("monitor.log").display().to_string());
    let summary = json["summary"].as_str().unwrap();
    assert!(
        summary.starts_with("monitor was restarted after "),
        "{summary}"
    );
    assert!(summary.contains(json["causes"][0]["text"].as_str().unwrap()));
    assert_eq!(json["cause"], json["causes"][0]["cause"]);
    assert!(!json["evidence"].as_array().unwrap().is_empty());
    assert_eq!(json["history"][0]["event"], "restarted");
    assert_eq!(json["dropped"], 0);
    let log = site.log();
    assert!(log.contains("[INFO] Notify command: said\n"), "{log}");
    assert!(log.contains("[INFO] The notify command has taken the event restarted\n"));
    assert!(!state_file(&site, "outbox").exists());
    // The next run is healthy, and tells nothing.
    fs::remove_file(site.path("out.json")).unwrap();
    assert_eq!(run(&mut monitor).code(), Some(0));
    assert!(!site.path("out.json").exists());
}

#[test]
fn an_outage_is_told_once_and_its_end_with_the_same_key() {
    let site = Site::new("");
    let notify = noting(&site);
    for _ in 0..3 {
        assert_eq!(run(&mut monitor(&site, "fail", &notify)).code(), Some(1));
    }
    assert_eq!(events(&site), ["failed"]);
    // An hour later.
    let path = state_file(&site, "json");
    let mut state: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(state["down"]["reminders"], 0);
    state["down"]["announced_at"] = json!("2025-01-01T00:00:00Z");
    fs::write(&path, state.to_string()).unwrap();
    for _ in 0..2 {
        assert_eq!(run(&mut monitor(&site, "fail", &notify)).code(), Some(1));
    }
    assert_eq!(events(&site), ["failed", "reminder"]);
    let server = site.start();
    let file = site.path("summary");
    let tell = format!(
        "{notify}; echo \"$MONITOR_MYVNC_SUMMARY\" > '{}'",
        file.display()
    );
    assert_eq!(run(&mut monitor(&site, "fail", &tell)).code(), Some(0));
    assert_eq!(run(&mut monitor(&site, "fail", &tell)).code(), Some(0));
    assert_eq!(events(&site), ["failed", "reminder", "recovered"]);
    let keys: Vec<_> = noted(&site).into_iter().map(|(_, key)| key).collect();
    assert!(keys[0].contains("/monitor/"), "{keys:?}");
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    let summary = fs::read_to_string(file).unwrap();
    let by = format!("served by PID {} of user ", server.pid);
    assert!(
        summary.starts_with("monitor answers again after "),
        "{summary}"
    );
    assert!(
        summary.contains(&by) && summary.contains(", started "),
        "{summary}"
    );
}

#[test]
fn a_pause_is_not_told_and_at_its_end_only_what_has_changed() {
    let site = Site::new("");
    let notify = noting(&site);
    assert_eq!(run(&mut monitor(&site, "fail", &notify)).code(), Some(1));
    let pause = |until: &str| {
        let asked = json!({"format": 1, "pause": {"until": until, "by": "eve", "at": "2025-01-01T00:00:00Z"}});
        fs::write(state_file(&site, "pause"), asked.to_string()).unwrap();
        fs::set_permissions(state_file(&site, "pause"), PermissionsExt::from_mode(0o600)).unwrap();
    };
    let soon: chrono::DateTime<chrono::Utc> =
        (std::time::SystemTime::now() + Duration::from_secs(3600)).into();
    pause(&soon.to_rfc3339_opts(chrono::SecondsFormat::Secs, true));
    let path = state_file(&site, "json");
    let mut state: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    state["down"]["announced_at"] = json!("2025-01-01T00:00:00Z");
    fs::write(&path, state.to_string()).unwrap();
    assert_eq!(
        run(&mut monitor(&site, "fail", &notify)).code(),
        Some(0),
        "{}",
        site.log()
    );
    assert!(
        site.log().contains("the monitor is paused"),
        "{}",
        site.log()
    );
    fs::remove_file(state_file(&site, "pause")).unwrap();
    // It was down before and is down still.
    assert_eq!(run(&mut monitor(&site, "fail", &notify)).code(), Some(1));
    assert_eq!(events(&site), ["failed"]);
    assert_eq!(run(&mut monitor(&site, "start", &notify)).code(), Some(0));
    assert_eq!(events(&site), ["failed", "recovered"]);
}

#[test]
fn a_notifier_that_does_not_work_changes_nothing_else() {
    let plain = Site::new("");
    assert_eq!(run(&mut plain.monitor()).code(), Some(0));
    let healing = |site: &Site| {
        let transcript = site.transcript();
        let lines = transcript.lines();
        let others = lines.filter(|line| !line.contains("otify command"));
        others.fold(String::new(), |text, line| text + line + "\n")
    };
    for (notify, said) in [
        ("exit 3", "it exited with status 3"),
        ("/no/such/notifier", "it exited with status 127"),
        ("exec 0<&- 1>&- 2>&-; exit 1", "it exited with status 1"),
        ("kill -SEGV $$", "it was ended by signal 11"),
        ("seq 1000000; exit 1", "it exited with status 1"),
        ("sleep 30 & sleep 30 & exit 1", "it exited with status 1"),
    ] {
        let site = Site::new("");
        let done = run(site.monitor().args(["--notify-cmd", notify]));
        assert_eq!(done.code(), Some(0), "{notify}: {}", site.log());
        assert_eq!(healing(&site), healing(&plain), "{notify}");
        let log = site.log();
        let said = format!(
            "[WARNING] The notify command has not taken the event restarted: {said}; it waits for the next run\n"
        );
        assert!(log.contains(&said), "{notify}: {log}");
        assert!(log.matches("Notify command: ").count() <= 5, "{log}");
        assert_eq!(waiting(&site).len(), 1, "{notify}");
        // One that works is handed the event in the next run, which is healthy.
        let done = run(site.monitor().args(["--notify-cmd", &noting(&site)]));
        assert_eq!(done.code(), Some(0));
        assert_eq!(events(&site), ["restarted"], "{notify}");
        assert!(waiting(&site).is_empty());
    }
}

#[test]
fn a_notifier_that_hangs_is_killed_after_ten_seconds_with_its_children_and_after_the_healing() {
    let site = Site::new("");
    let pids = site.path("pids");
    let answers = format!("curl -s -o /dev/null -w '%{{http_code}}' {}", site.url());
    let notify = format!(
        "{answers} > '{0}.status'; sleep 300.5 & echo $! > '{0}'; yes | head -c 100000000 >/dev/null; echo last; wait",
        pids.display()
    );
    let began = Instant::now();
    assert_eq!(run(&mut monitor(&site, "start", &notify)).code(), Some(0));
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(10), "{took:?}");
    let with = took;
    let other = Site::new("");
    let plain = run(&mut monitor(&other, "start", "true")).took;
    assert!(
        with < plain + Duration::from_secs(13),
        "{with:?}, else {plain:?}"
    );
    assert_eq!(fs::read_to_string(site.path("pids.status")).unwrap(), "200");
    let child = fs::read_to_string(&pids).unwrap();
    let child: i32 = child.trim().parse().unwrap();
    wait_until("the child is ended", || {
        !crate::rig::machine::is_alive(child)
    });
    let log = site.log();
    assert!(
        log.contains("it did not end within 10 s and was killed; it waits for the next run"),
        "{log}"
    );
    assert!(log.contains("[WARNING] Notify command: last\n"), "{log}");
}

#[test]
fn what_waits_is_tried_once_in_a_run_and_handed_over_in_order() {
    let site = Site::new("");
    let tries = site.path("tries");
    let fails = format!("echo x >> '{}'; exit 1", tries.display());
    assert_eq!(run(&mut monitor(&site, "fail", &fails)).code(), Some(1));
    assert_eq!(run(&mut monitor(&site, "start", &fails)).code(), Some(0));
    let server = site.servers();
    kill(Pid::from_raw(server[0]), Signal::SIGKILL).unwrap();
    wait_until("it is dead", || site.servers().is_empty());
    assert_eq!(run(&mut monitor(&site, "start", &fails)).code(), Some(0));
    assert_eq!(fs::read_to_string(&tries).unwrap().lines().count(), 3);
    let log = site.log();
    assert!(log.contains("has not taken the event failed: it exited with status 1; 3 events wait for the next run"), "{log}");
    let events_waiting: Vec<_> = waiting(&site)
        .iter()
        .map(|event| event["event"].clone())
        .collect();
    assert_eq!(events_waiting, ["failed", "recovered", "restarted"]);
    assert_eq!(
        run(&mut monitor(&site, "start", &noting(&site))).code(),
        Some(0)
    );
    assert_eq!(events(&site), ["failed", "recovered", "restarted"]);
    assert!(!state_file(&site, "outbox").exists());
}

#[test]
fn without_a_notify_command_there_is_no_outbox() {
    let site = Site::new("");
    assert_eq!(run(&mut site.monitor()).code(), Some(0));
    assert!(!state_file(&site, "outbox").exists());
}

#[test]
fn nothing_of_an_event_is_put_into_a_command_line() {
    let site = Site::new("");
    let mut monitor = monitor(&site, "start", &noting(&site));
    let marker = site.path("marker");
    let hostile = format!("{}/$(touch {0})`touch {0}`';touch {0};'", marker.display());
    monitor.args(["--url", &format!("{}/?x={hostile}", site.url())]);
    let file = site.path("argv");
    monitor.args([
        "--notify-cmd",
        &format!("tr '\\0' ' ' < /proc/$$/cmdline > '{}'", file.display()),
    ]);
    run(&mut monitor);
    let argv = fs::read_to_string(file).unwrap();
    assert!(
        argv.contains("/proc/$$/cmdline") && !argv.contains("touch"),
        "{argv}"
    );
    assert!(!marker.exists());
}

#[test]
fn an_outbox_that_cannot_be_used_costs_a_warning_and_no_event() {
    for case in ["file", "link", "theirs", "open"] {
        if case == "theirs" && !is_root() {
            skip("only root can make a directory for others");
            continue;
        }
        let site = Site::new("");
        let outbox = state_file(&site, "outbox");
        fs::create_dir_all(outbox.parent().unwrap()).unwrap();
        match case {
            "file" => fs::write(&outbox, "").unwrap(),
            "link" => std::os::unix::fs::symlink("/tmp", &outbox).unwrap(),
            _ => fs::create_dir(&outbox).unwrap(),
        }
        if case == "theirs" {
            std::os::unix::fs::chown(&outbox, Some(1234), None).unwrap();
        }
        if case == "open" {
            fs::set_permissions(&outbox, PermissionsExt::from_mode(0o777)).unwrap();
        }
        assert_eq!(
            run(&mut monitor(&site, "start", &noting(&site))).code(),
            Some(0)
        );
        assert_eq!(events(&site), ["restarted"], "{case}: {}", site.log());
        let log = site.log();
        let warning = format!("[WARNING] Cannot keep events in {}: ", outbox.display());
        assert_eq!(log.matches(&warning).count(), 1, "{case}: {log}");
        let answer = run(&mut monitor(&site, "start", &noting(&site)));
        assert_eq!(answer.code(), Some(0), "{case}");
        assert_eq!(events(&site).len(), 1, "{case}");
    }
}

#[test]
fn a_signal_ends_the_notifier_and_the_event_waits() {
    let site = Site::new("");
    let begun = site.path("begun");
    let notify = format!("touch '{}'; sleep 300.25", begun.display());
    let mut child = monitor(&site, "start", &notify).spawn().unwrap();
    wait_until("the notifier runs", || begun.exists());
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    let status = crate::rig::wait_for(&mut child);
    assert_eq!(status.code(), Some(0), "the server was restarted");
    assert!(
        site.log()
            .contains("it was killed because of SIGTERM; it waits"),
        "{}",
        site.log()
    );
    run(&mut monitor(&site, "start", &noting(&site)));
    assert_eq!(events(&site), ["restarted"]);
}

/// A configuration file with these servers, as (name, notify command).
fn configuration(site: &Site, servers: &[(&str, Option<&str>)]) -> PathBuf {
    let mut text = String::new();
    for (name, notify) in servers {
        let port = site.port;
        write!(
            text,
            "[server.{name}]\nurl = \"http://127.0.0.1:{port}/{name}\"\nrestart-cmd = \"true\"\n\
             process-pattern = \"no process is called so, {name}\"\nlogfile = '{}'\nstate-dir = '{}'\n",
            site.path(&format!("{name}.log")).display(),
            site.path(&format!("state/{name}")).display(),
        )
        .unwrap();
        if let Some(notify) = notify {
            writeln!(text, "notify-cmd = {notify:?}").unwrap();
        }
    }
    let path = site.path("monitor.toml");
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn notify_test_hands_a_sample_of_each_event_to_each_server_s_command() {
    let site = Site::new("");
    let show = "echo \"$MONITOR_MYVNC_EVENT: $MONITOR_MYVNC_SUMMARY\"; echo >&2 error";
    let config = configuration(
        &site,
        &[
            ("main", Some(show)),
            ("test", Some("exit 4")),
            ("dev", None),
        ],
    );
    let notify = |arguments: &[&str]| {
        let mut command = Command::new(MONITOR);
        command
            .arg("notify")
            .args(arguments)
            .arg("--config")
            .arg(&config);
        run(&mut command)
    };
    let all = notify(&["--test"]);
    assert_eq!(all.code(), Some(1), "{all:?}");
    assert!(
        all.stdout.starts_with(
            "main: failed: TEST: main is down, and a restart did not help: this is a test"
        ),
        "{all:?}"
    );
    assert!(all.stdout.contains("\nmain: error\n"), "{all:?}");
    assert!(
        all.stderr
            .contains("test: the notify command has failed: it exited with status 4"),
        "{all:?}"
    );
    for event in [
        "restarted",
        "unwedged",
        "failed",
        "held",
        "reminder",
        "recovered",
        "flapping",
        "stable",
        "expiring",
    ] {
        let one = notify(&["main", "--test", event]);
        assert_eq!(one.code(), Some(0), "{event}: {one:?}");
        assert!(
            one.stdout
                .starts_with(&format!("main: {event}: TEST: main")),
            "{one:?}"
        );
        assert!(
            one.stdout.lines().next().unwrap().contains(": TEST: "),
            "{one:?}"
        );
    }
    for wrong in [
        &["main", "--test", "none"][..],
        &["main"],
        &["dev", "--test"],
        &["nobody", "--test"],
    ] {
        let refused = notify(wrong);
        assert_eq!(refused.code(), Some(2), "{wrong:?}: {refused:?}");
    }
    let nobody = configuration(&site, &[("main", None)]);
    let refused = run(Command::new(MONITOR)
        .args(["notify", "--test", "--config"])
        .arg(nobody));
    assert_eq!(refused.code(), Some(2), "{refused:?}");
    assert!(
        refused.stderr.contains("notify-cmd is not set"),
        "{refused:?}"
    );
    assert!(
        !site.path("state").exists() && !site.path("main.log").exists(),
        "nothing is kept"
    );
}

#[test]
fn notify_test_tries_all_servers_at_once() {
    let site = Site::new("");
    // Each command waits for the other one.
    let meets = |own: &str, other: &str| {
        let (own, other) = (site.path(own), site.path(other));
        format!(
            "touch '{}'; until [ -e '{}' ]; do sleep 0.05; done",
            own.display(),
            other.display()
        )
    };
    let (main, test) = (meets("a", "b"), meets("b", "a"));
    let config = configuration(
        &site,
        &[("main", Some(main.as_str())), ("test", Some(test.as_str()))],
    );
    let all = run(Command::new(MONITOR)
        .args(["notify", "--test", "--config"])
        .arg(config));
    assert_eq!(all.code(), Some(0), "{all:?}");
    let taken = "the notify command has taken the event failed";
    assert_eq!(all.stdout, format!("main: {taken}\ntest: {taken}\n"));
}

#[test]
fn notify_test_waits_for_all_commands_where_nothing_can_be_printed() {
    let site = Site::new("");
    let ended = site.path("ended");
    let slow = format!("sleep 0.3; touch '{}'", ended.display());
    let servers = [("main", Some("true")), ("test", Some(slow.as_str()))];
    let mut tried = Command::new(MONITOR);
    tried
        .args(["notify", "--test", "--config"])
        .arg(configuration(&site, &servers))
        .stdout(fs::File::create("/dev/full").unwrap());
    let mut tried = tried.spawn().unwrap();
    assert_eq!(rig::wait_for(&mut tried).code(), Some(1));
    assert!(ended.exists(), "the second command was left behind");
}

#[test]
fn the_notifiers_are_clean_shell() {
    let notifiers = fs::read_dir(NOTIFIERS)
        .unwrap()
        .map(|one| one.unwrap().path());
    let notifiers: Vec<_> = notifiers.collect();
    assert_eq!(notifiers.len(), 3);
    for notifier in &notifiers {
        let mode = fs::metadata(notifier).unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{}", notifier.display());
    }
    let checked = Command::new("shellcheck")
        .args(["--shell", "sh"])
        .args(&notifiers)
        .output();
    let Ok(checked) = checked else {
        return skip("shellcheck is not installed");
    };
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success(), "{said}");
}

/// Answers one request after the other, and sends on what it was sent: the head and the body.
fn http_sink() -> (u16, Receiver<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, received) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut head, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                if let Some(value) = line.to_lowercase().strip_prefix("content-length: ") {
                    length = value.trim().parse().unwrap();
                }
                if line.trim().is_empty() {
                    break;
                }
                head += &line;
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let status = if head.contains(" /refused ") {
                "500 Error"
            } else {
                "202 Accepted"
            };
            let answer =
                format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
            stream.write_all(answer.as_bytes()).unwrap();
            if sender
                .send((head, String::from_utf8(body).unwrap()))
                .is_err()
            {
                return;
            }
        }
    });
    (port, received)
}

/// A notifier with the environment of an event of these values.
fn notifier(name: &str, event: &[(&str, &str)]) -> Command {
    let mut command = Command::new(Path::new(NOTIFIERS).join(name));
    command
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    for key in [
        "EVENT",
        "SERVER",
        "HOST",
        "URL",
        "SUMMARY",
        "CAUSE",
        "CULPRIT",
        "SINCE",
        "AWAY_SECONDS",
        "LOG",
        "DEDUP_KEY",
    ] {
        command.env(format!("MONITOR_MYVNC_{key}"), "");
    }
    for (key, value) in event {
        command.env(format!("MONITOR_MYVNC_{key}"), value);
    }
    command
}

const SUMMARY: &str = "main is down: \"größer\" \\ <!channel> & 'x' $(id) `id` %s \\n @everyone 字";

fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        skip(&format!("{program} is not installed"));
    }
    found
}

#[test]
fn the_webhook_sends_the_bodies_of_slack_mattermost_and_discord() {
    if !has("curl") {
        return;
    }
    let (port, received) = http_sink();
    let event = [
        ("EVENT", "failed"),
        ("SUMMARY", SUMMARY),
        ("HOST", "h"),
        ("LOG", "/l"),
    ];
    let post = |kind: Option<&str>, path: &str| {
        let mut command = notifier("notify-webhook", &event);
        command.env("WEBHOOK_URL", format!("http://127.0.0.1:{port}{path}"));
        command.envs(kind.map(|kind| ("WEBHOOK_KIND", kind)));
        let done = run(&mut command);
        (done, received.recv_timeout(PATIENCE).unwrap())
    };
    let escaped = SUMMARY
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    for kind in [None, Some("slack"), Some("mattermost")] {
        let (done, (head, body)) = post(kind, "/services/T/B/secret");
        assert_eq!(done.code(), Some(0), "{done:?}");
        assert!(
            head.starts_with("POST /services/T/B/secret HTTP/1.1\r\n"),
            "{head}"
        );
        assert!(
            head.to_lowercase()
                .contains("content-type: application/json\r\n"),
            "{head}"
        );
        let body: Value = serde_json::from_str(&body).unwrap();
        // Mattermost would mention everybody.
        let text = match kind {
            Some("mattermost") => escaped.replace('@', "@ "),
            _ => escaped.clone(),
        };
        let text = format!(":red_circle: {text}\nfailed on h, log /l");
        assert_eq!(body, json!({"text": text}));
    }
    let (done, (_, body)) = post(Some("discord"), "/api/webhooks/1/secret");
    assert_eq!(done.code(), Some(0), "{done:?}");
    let body: Value = serde_json::from_str(&body).unwrap();
    let summary = SUMMARY.replace('@', "@ ");
    let content = format!(":red_circle: {summary}\nfailed on h, log /l");
    assert_eq!(
        body,
        json!({"content": content, "allowed_mentions": {"parse": []}})
    );
    let (done, _) = post(None, "/refused");
    assert_ne!(done.code(), Some(0), "{done:?}");
    let mut without = notifier("notify-webhook", &event);
    let refused = run(&mut without);
    assert_eq!(refused.code(), Some(1));
    assert!(refused.stderr.contains("WEBHOOK_URL is not set"));
    // What is too long ends with a whole character.
    let long = "字".repeat(1000);
    let mut command = notifier(
        "notify-webhook",
        &[("EVENT", "restarted"), ("SUMMARY", &long)],
    );
    command
        .env("WEBHOOK_URL", format!("http://127.0.0.1:{port}/"))
        .env("WEBHOOK_KIND", "discord");
    assert_eq!(run(&mut command).code(), Some(0));
    let (_, body) = received.recv_timeout(PATIENCE).unwrap();
    let body: Value = serde_json::from_str(&body).unwrap();
    let content = body["content"].as_str().unwrap();
    assert!(
        content.starts_with(":green_circle: 字字") && content.contains("字...\n"),
        "{content}"
    );
    assert!(content.chars().count() < 2000);
}

#[test]
fn pagerduty_gets_an_incident_that_the_recovery_resolves() {
    if !has("curl") {
        return;
    }
    let site = Site::new("");
    let (port, received) = http_sink();
    let key = site.path("key");
    fs::write(&key, "R0UT1NGK3Y\n").unwrap();
    let notify = format!(
        "PAGERDUTY_KEY_FILE='{}' PAGERDUTY_URL=http://127.0.0.1:{port}/v2/enqueue {NOTIFIERS}/notify-pagerduty",
        key.display()
    );
    assert_eq!(run(&mut monitor(&site, "fail", &notify)).code(), Some(1));
    assert_eq!(run(&mut monitor(&site, "start", &notify)).code(), Some(0));
    let next = || {
        let (head, body) = received.recv_timeout(PATIENCE).unwrap();
        assert!(head.starts_with("POST /v2/enqueue HTTP/1.1\r\n"), "{head}");
        serde_json::from_str::<Value>(&body).unwrap()
    };
    let (trigger, resolve) = (next(), next());
    for event in [&trigger, &resolve] {
        assert_eq!(event["routing_key"], "R0UT1NGK3Y");
        assert_eq!(event["payload"]["component"], "monitor");
        assert!(!event["payload"]["source"].as_str().unwrap().is_empty());
    }
    assert_eq!(trigger["event_action"], "trigger");
    assert_eq!(trigger["payload"]["severity"], "critical");
    let summary = trigger["payload"]["summary"].as_str().unwrap();
    assert!(
        summary.starts_with("monitor is down, and a restart did not help: "),
        "{summary}"
    );
    assert_eq!(trigger["payload"]["custom_details"]["event"], "failed");
    assert_eq!(resolve["event_action"], "resolve");
    assert_eq!(resolve["dedup_key"], trigger["dedup_key"]);
    assert!(!trigger["dedup_key"].as_str().unwrap().is_empty());
    let secret = fs::read_to_string(format!("{NOTIFIERS}/notify-pagerduty")).unwrap();
    assert!(secret.contains("--config -"));
    let hostile = [
        ("EVENT", "flapping"),
        ("SUMMARY", SUMMARY),
        ("AWAY_SECONDS", "7x}"),
        ("HOST", "a\"b\\"),
    ];
    let mut command = notifier("notify-pagerduty", &hostile);
    command.env("PAGERDUTY_KEY", "k").env(
        "PAGERDUTY_URL",
        format!("http://127.0.0.1:{port}/v2/enqueue"),
    );
    assert_eq!(run(&mut command).code(), Some(0));
    let event = next();
    assert_eq!(event["payload"]["summary"], SUMMARY);
    assert_eq!(event["payload"]["source"], "a\"b\\");
    assert_eq!(event["payload"]["severity"], "warning");
    assert_eq!(event["payload"]["custom_details"]["away_seconds"], 7);
}

/// A mail server that takes one mail after the other, and sends on each one: its recipients and its text.
fn smtp_sink() -> (u16, Receiver<(Vec<String>, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, received) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { continue };
            let mail = take_mail(stream);
            if mail.is_some_and(|mail| sender.send(mail).is_err()) {
                return;
            }
        }
    });
    (port, received)
}

/// One session (RFC 5321).
fn take_mail(mut stream: TcpStream) -> Option<(Vec<String>, String)> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let (mut recipients, mut mail) = (Vec::new(), None);
    stream.write_all(b"220 sink ESMTP\r\n").ok()?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return mail;
        }
        let verb = line.to_uppercase();
        let answer = if verb.starts_with("EHLO") {
            "250-sink\r\n250 8BITMIME\r\n"
        } else if verb.starts_with("RCPT TO:") {
            recipients.push(line[8..].trim().to_owned());
            "250 ok\r\n"
        } else if verb.starts_with("DATA") {
            stream.write_all(b"354 go on\r\n").ok()?;
            let mut text = String::new();
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).ok()?;
                if line == ".\r\n" {
                    break;
                }
                text += line.strip_prefix('.').unwrap_or(&line);
            }
            mail = Some((recipients.clone(), text));
            "250 ok\r\n"
        } else if verb.starts_with("QUIT") {
            let _ = stream.write_all(b"221 bye\r\n");
            return mail;
        } else {
            "250 ok\r\n"
        };
        stream.write_all(answer.as_bytes()).ok()?;
    }
}

/// A home directory with a configuration of msmtp (msmtp(1)) for that mail server.
fn msmtp_home(site: &Site, port: u16) -> PathBuf {
    let home = site.path("home");
    fs::create_dir_all(&home).unwrap();
    let text = format!(
        "account default\nhost 127.0.0.1\nport {port}\ntls off\nauth off\nfrom monitor@example.com\ndomain example.com\n"
    );
    let file = home.join(".msmtprc");
    fs::write(&file, text).unwrap();
    fs::set_permissions(file, PermissionsExt::from_mode(0o600)).unwrap();
    home
}

fn sendmail_is_msmtp() -> bool {
    let version = Command::new("/usr/sbin/sendmail").arg("--version").output();
    let is_it = version.is_ok_and(|said| String::from_utf8_lossy(&said.stdout).contains("msmtp"));
    if !is_it {
        skip("msmtp-mta is not installed");
    }
    is_it
}

#[test]
fn a_mail_arrives_through_a_real_sendmail() {
    if !sendmail_is_msmtp() {
        return;
    }
    let (site, _server) = Site::hung("");
    let _client = site.idle_client();
    let (port, received) = smtp_sink();
    let notify = format!("MAILTO=admins@example.com {NOTIFIERS}/notify-mail");
    let mut monitor = monitor(&site, "start", &notify);
    monitor.env("HOME", msmtp_home(&site, port));
    assert_eq!(run(&mut monitor).code(), Some(0), "{}", site.log());
    assert!(
        site.log().contains("has taken the event restarted"),
        "{}",
        site.log()
    );
    let (recipients, mail) = received.recv_timeout(PATIENCE).unwrap();
    if let Some(file) = std::env::var_os("MONITOR_MAIL_FILE") {
        fs::write(file, &mail).unwrap();
    }
    assert_eq!(recipients, ["<admins@example.com>"]);
    let (head, body) = mail.split_once("\r\n\r\n").unwrap();
    let header = |name: &str| {
        let mut lines = head.split("\r\n");
        let found = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        found
            .unwrap_or_else(|| panic!("no {name}: {head}"))
            .to_owned()
    };
    assert_eq!(header("To"), "admins@example.com");
    let subject = header("Subject");
    // The machine's name, and of a long summary the beginning.
    let (_, summary) = subject.split_once(": ").unwrap();
    assert!(
        summary.starts_with("monitor was restarted after "),
        "{subject}"
    );
    assert!(body.starts_with(summary.trim_end_matches("...")), "{mail}");
    let mut parts = vec!["Event:    restarted", "Since:    20", "Evidence:"];
    let cause = &site.causes()[0];
    if cause.contains("idle client") {
        parts.extend(["Cause:    idle_client", "Culprit:  127.0.0.1:", "  Port "]);
    } else {
        // A machine that is busy may have had no time to find it.
        assert!(
            cause.starts_with("not known: /proc did not respond"),
            "{cause}"
        );
        parts.push("Cause:    unknown");
    }
    for part in parts {
        assert!(body.contains(part), "{part}\n{mail}");
    }
    assert!(
        body.contains(&format!("Log:      {}", site.path("monitor.log").display())),
        "{body}"
    );
}

#[test]
fn no_value_begins_a_header_and_other_letters_are_encoded() {
    if !sendmail_is_msmtp() {
        return;
    }
    let site = Site::new("");
    let (port, received) = smtp_sink();
    let summary = format!(
        "größe 字 {}\r\nBcc: eve@example.com\n\nbody",
        "ä字x".repeat(30)
    );
    let mut command = notifier(
        "notify-mail",
        &[("EVENT", "failed\nX-Forged: 1"), ("SUMMARY", &summary)],
    );
    command.env("HOME", msmtp_home(&site, port));
    command.env("MAILTO", "a@example.com\nBcc: eve@example.com");
    let json = site.path("json");
    let event = json!({"evidence": ["a \"quoted\" \\ ]line", "\"dropped\":9}"], "history": [], "dropped": 3});
    fs::write(&json, event.to_string()).unwrap();
    command.stdin(fs::File::open(json).unwrap());
    let done = run(&mut command);
    assert_eq!(done.code(), Some(0), "{done:?}");
    let (_, mail) = received.recv_timeout(PATIENCE).unwrap();
    let (head, body) = mail.split_once("\r\n\r\n").unwrap();
    for line in head.split("\r\n") {
        assert!(line.is_ascii() && line.len() <= 998, "{line}");
        assert!(
            !line.starts_with("Bcc") && !line.starts_with("X-Forged"),
            "{head}"
        );
    }
    assert!(head.contains("Subject: =?UTF-8?Q?"), "{head}");
    assert_eq!(decoded(head), shown(&summary));
    assert!(
        body.contains("  a \"quoted\" \\ ]line\r\n  \"dropped\":9}\r\n"),
        "{body}"
    );
    assert!(body.contains("could not be sent: 3"), "{body}");
}

#[test]
fn an_event_is_handed_over_where_the_last_check_cannot_be_written() {
    let site = Site::new("");
    fs::create_dir_all(state_file(&site, "last")).unwrap();
    let notify = noting(&site);
    assert_eq!(run(&mut monitor(&site, "fail", &notify)).code(), Some(1));
    assert_eq!(events(&site), ["failed"], "{}", site.log());
}

#[test]
fn without_a_state_a_failure_says_that_it_is_told_by_each_run() {
    let site = Site::new("");
    fs::write(site.path("state"), "").unwrap();
    let notify = format!(
        "echo \"$MONITOR_MYVNC_EVENT $MONITOR_MYVNC_SUMMARY\" >> '{}'",
        site.path("events").display()
    );
    for _ in 0..2 {
        assert_eq!(run(&mut monitor(&site, "fail", &notify)).code(), Some(1));
    }
    let told = noted(&site);
    let again = "; sent by each run until the state directory can be used";
    for (event, summary) in &told {
        assert_eq!(event, "failed");
        assert!(summary.ends_with(again), "{summary}");
    }
    assert_eq!(told.len(), 2, "{}", site.log());
    // What is not repeated does not say so.
    assert_eq!(
        run(&mut monitor(&site, "start", &notify)).code(),
        Some(0),
        "{}",
        site.log()
    );
    let told = noted(&site);
    assert_eq!((told.len(), &*told[2].0), (3, "restarted"));
    assert!(!told[2].1.contains("each run"), "{told:?}");
}

#[test]
fn a_recovery_that_cannot_be_written_down_is_not_told_in_each_run() {
    rig::in_private_namespace(|| {
        let site = Site::new("");
        let notify = noting(&site);
        let disk = Mounted::tmpfs(&site.path("state"), MsFlags::empty(), "size=1m");
        assert_eq!(run(&mut monitor(&site, "fail", &notify)).code(), Some(1));
        assert_eq!(events(&site), ["failed"]);
        let remount = |flags| {
            let flags = MsFlags::MS_REMOUNT | flags;
            mount(None::<&str>, &disk.0, None::<&str>, flags, None::<&str>).unwrap();
        };
        remount(MsFlags::MS_RDONLY);
        let _server = site.start();
        for _ in 0..2 {
            assert_eq!(run(&mut monitor(&site, "fail", &notify)).code(), Some(0));
        }
        assert_eq!(events(&site), ["failed"]);
        remount(MsFlags::empty());
        for _ in 0..2 {
            assert_eq!(run(&mut monitor(&site, "fail", &notify)).code(), Some(0));
        }
        assert_eq!(events(&site), ["failed", "recovered"]);
    });
}

#[test]
fn runs_of_two_logs_at_once_tell_each_event_once_and_in_order() {
    let site = Site::new("");
    let notify = noting(&site);
    assert_eq!(
        run(&mut monitor(&site, "fail", "exit 1")).code(),
        Some(1),
        "{}",
        site.log()
    );
    assert_eq!(waiting(&site).len(), 1);
    let _server = site.start();
    // Each takes its time, so that the runs meet.
    let slow = format!("sleep 0.2; {notify}");
    let with_log = |number: usize| {
        let mut monitor = monitor(&site, "fail", &slow);
        let log = site.path(&format!("{number}.log"));
        monitor.arg("--logfile").arg(log).spawn().unwrap()
    };
    let runs: Vec<_> = (0..6).map(with_log).collect();
    for mut run in runs {
        assert_eq!(run.wait().unwrap().code(), Some(0));
    }
    // What one run has kept while another one handed over.
    assert_eq!(run(&mut monitor(&site, "fail", &notify)).code(), Some(0));
    assert_eq!(events(&site), ["failed", "recovered"]);
    let history = fs::read_to_string(state_file(&site, "history.jsonl")).unwrap();
    assert_eq!(history.matches("\"recovered\"").count(), 1, "{history}");
}

/// As the subject has it: one line of at most 300 bytes.
fn shown(summary: &str) -> String {
    let line: String = summary
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let mut end = line.len().min(300);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    // The notifier leaves out the last character too, where it has several bytes.
    let cut = &line[..end];
    if line.len() > 300 {
        let cut = cut.strip_suffix(|c: char| !c.is_ascii()).unwrap_or(cut);
        return format!("{cut}...");
    }
    line
}

/// The subject without its encoding (RFC 2047).
fn decoded(head: &str) -> String {
    let (_, subject) = head.split_once("Subject: ").unwrap();
    let mut bytes = Vec::new();
    for line in subject.split("\r\n") {
        let word = line.trim_start();
        let Some(word) = word
            .strip_prefix("=?UTF-8?Q?")
            .and_then(|word| word.strip_suffix("?="))
        else {
            break;
        };
        assert!(word.len() <= 63, "a word has at most 75 characters: {word}");
        let codes = word.split('=').skip(1);
        let word: Vec<u8> = codes
            .map(|code| u8::from_str_radix(code, 16).unwrap())
            .collect();
        assert!(
            std::str::from_utf8(&word).is_ok(),
            "no character is cut: {line}"
        );
        bytes.extend(word);
    }
    String::from_utf8(bytes).unwrap()
}
