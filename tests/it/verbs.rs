//! The verbs, on state directories that the tests write. They connect to nobody and look for no process.
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use chrono::{DateTime, FixedOffset, SecondsFormat, Timelike, Utc};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::rig::{MONITOR, Run, is_root, run, skip, wait_for, wait_until};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// A state directory, at one moment. It is about noon then, in a time zone of the directory's own: what was an hour ago
/// was today, at whatever hour the tests run.
pub(crate) struct States {
    directory: TempDir,
    now: DateTime<Utc>,
    zone: FixedOffset,
}

impl States {
    pub(crate) fn new() -> Self {
        let now = DateTime::from_timestamp(Utc::now().timestamp(), 0).unwrap();
        let hours = 12 - i32::try_from(now.hour()).unwrap();
        Self {
            directory: tempfile::tempdir().unwrap(),
            now,
            zone: FixedOffset::east_opt(hours * 3600).unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn at(&self, ago: i64) -> DateTime<Utc> {
        self.now - chrono::Duration::seconds(ago)
    }

    /// A moment as the files have it.
    pub(crate) fn time(&self, ago: i64) -> String {
        self.at(ago).to_rfc3339_opts(SecondsFormat::Secs, true)
    }

    pub(crate) fn state(&self, stem: &str, mut state: Value) {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        state["format"] = 1.into();
        state["boot"] = boot.trim().into();
        fs::write(self.path(&format!("{stem}.json")), state.to_string()).unwrap();
    }

    pub(crate) fn last(&self, stem: &str, text: &str, ago: i64) {
        let path = self.path(&format!("{stem}.last"));
        fs::write(&path, format!("{text:39}\n")).unwrap();
        let time = SystemTime::from(self.at(ago));
        fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(time)
            .unwrap();
    }

    /// A line of the history: number, age, event, cause, culprit and its kind, time away.
    pub(crate) fn line(&self, stem: &str, line: (&str, i64, &str, &str, &str, i64)) {
        let (id, ago, event, cause, culprit, away) = line;
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let kind = match cause {
            "idle_client" => "client",
            "child" => "child",
            _ => "file",
        };
        let outcome = match event {
            "restarted" | "unwedged" | "recovered" => "answered",
            event => event,
        };
        let line = json!({
            "id": id, "at": self.time(ago), "server": stem, "event": event, "cause": text(cause),
            "culprit": text(culprit), "culprit_kind": text(culprit).and(Some(kind)), "away_s": away,
            "outcome": outcome, "pids": [], "by": null,
        });
        let path = self.path(&format!("{stem}.history.jsonl"));
        let mut file = fs::File::options()
            .append(true)
            .create(true)
            .open(path)
            .unwrap();
        writeln!(file, "{line}").unwrap();
    }

    pub(crate) fn pause(&self, stem: &str, content: &Value) {
        fs::write(self.path(&format!("{stem}.pause")), content.to_string()).unwrap();
    }

    fn asked(&self, stem: &str) -> Value {
        let text = fs::read_to_string(self.path(&format!("{stem}.pause")));
        text.map_or(Value::Null, |text| serde_json::from_str(&text).unwrap())
    }

    /// A server that answered 7 seconds ago.
    pub(crate) fn healthy(&self, stem: &str) {
        let since = self.time(40 * DAY);
        self.state(
            stem,
            json!({"server": stem, "url": format!("https://{stem}:1"), "phase": "up", "since": since}),
        );
        self.last(stem, "ok 200 0.012 60 60", 7);
    }

    pub(crate) fn verb(&self, verb: &str) -> Command {
        let mut command = Command::new(MONITOR);
        command
            .arg(verb)
            .arg("--state-dir")
            .arg(self.directory.path())
            .env("LC_ALL", "C.UTF-8")
            // POSIX counts hours to the west.
            .env("TZ", format!("NOON{}", -self.zone.local_minus_utc() / 3600))
            .env_remove("SUDO_USER");
        command
    }

    pub(crate) fn run(&self, verb: &str, arguments: &[&str]) -> Run {
        run(self.verb(verb).args(arguments))
    }

    /// A golden file with its moments filled in: `{clock AGO}`, `{end AGO}` (up to the next minute), `{day AGO}`, `{time AGO}`, `{date AGO}`,
    /// `{full AGO}`, `{moment AGO}`, `{period AGO}`; also `{host}` and `{up}`.
    fn golden(&self, name: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden");
        let text = fs::read_to_string(path.join(name)).unwrap();
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        let place =
            regex_lite::Regex::new(r"\{(clock|end|day|time|date|full|moment|period) (-?\d+)\}")
                .unwrap();
        let text = text.replace("{host}", host.trim());
        let text = text.replace("{up}", &up_minutes().to_string());
        let today = self.now.with_timezone(&self.zone).date_naive();
        let filled = place.replace_all(&text, |found: &regex_lite::Captures| {
            let ago: i64 = found[2].parse().unwrap();
            let mut moment = self.at(ago).with_timezone(&self.zone);
            if &found[1] == "end" {
                let seconds = (60 - moment.timestamp() % 60) % 60;
                moment += chrono::Duration::seconds(seconds);
            }
            let days = (today - moment.date_naive()).num_days();
            let format = match (&found[1], days) {
                ("time", _) => return self.time(ago),
                ("full", _) => "%a %d %b %Y %H:%M:%S",
                ("period", _) => "%a %d %b %Y %H:%M",
                ("moment", _) => "%a %d %b %H:%M",
                ("date", _) => "%Y-%m-%d %H:%M:%S",
                (_, 0) => "%H:%M",
                ("clock" | "end", -6..=6) => "%a %H:%M",
                ("clock" | "end", _) => "%Y-%m-%d %H:%M",
                (_, 1..=6) => "%a  ",
                _ => "%m-%d",
            };
            moment.format(format).to_string()
        });
        filled.into_owned()
    }
}

/// What the program says of a state directory in the second in which that was written.
pub(crate) fn said(write: impl Fn(&States), ask: impl Fn(&States) -> Run) -> (States, Run) {
    for _ in 0..100 {
        let states = States::new();
        write(&states);
        let ran = ask(&states);
        if Utc::now().timestamp() == states.now.timestamp() {
            return (states, ran);
        }
    }
    panic!("a second is too short");
}

pub(crate) fn assert_golden(states: &States, ran: &Run, name: &str) {
    let expected = states.golden(name);
    assert_eq!(ran.stderr, "");
    assert!(
        ran.stdout == expected,
        "{name}:\n{}\n{expected}",
        ran.stdout
    );
    for line in ran
        .stdout
        .lines()
        .filter(|_| name.starts_with("status") || name.starts_with("report"))
    {
        assert!(line.chars().count() <= 79, "{line}");
    }
}

/// Seconds since boot.
fn uptime() -> i64 {
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    uptime.split('.').next().unwrap().parse().unwrap()
}

/// For how long the process of a server has run, in minutes: it is not older than the machine.
fn up_minutes() -> i64 {
    (uptime() / 60).min(65)
}

/// One server is up, one held off, one paused.
pub(crate) fn three(states: &States) {
    let start = (uptime() - 60 * up_minutes()) * 100;
    states.state(
        "main",
        json!({
            "server": "main", "url": "https://main:1", "phase": "up", "since": states.time(3 * HOUR),
            "known": {"pid": 72451, "start": start, "uid": 0},
            "certificate_expires": states.time(-61 * DAY - 100),
        }),
    );
    states.last("main", "ok 200 0.012 60 60", 7);
    states.line("main", ("0", 29 * DAY, "restarted", "child", "bjobs", 300));
    let client = "10.1.2.3:40022";
    states.line(
        "main",
        ("1", DAY + 100, "unwedged", "idle_client", client, 1),
    );
    states.line("main", ("1", DAY - 500, "lasted", "", "", 0));
    let client = "10.1.2.3:51234";
    states.line(
        "main",
        ("2", 3 * HOUR + 1720, "restarted", "idle_client", client, 74),
    );
    let attempts: Vec<Value> = (1..5)
        .map(|number| {
            json!({"at": states.time(1250 - number * 200), "outcome": "failed", "id": "9"})
        })
        .collect();
    states.state(
        "test",
        json!({
            "server": "test", "url": "https://test:1", "phase": "held", "since": states.time(1260),
            "down": {
                "id": "9", "cause": "disk_full", "culprit": "/data", "culprit_kind": "file",
                "text": "the disk of /data is full", "counted": 810,
            },
            "restarts": attempts,
            "hold": {"until": states.time(-480), "why": "failed"},
        }),
    );
    states.last("test", "down 0 0.001 60 60", 7);
    states.line(
        "test",
        ("8", 20 * DAY, "restarted", "idle_client", "10.1.2.3:1", 600),
    );
    for number in 1..5 {
        let ago = 1250 - 200 * number;
        let away = if number == 1 { 210 } else { 200 };
        states.line("test", ("9", ago, "failed", "disk_full", "/data", away));
    }
    states.healthy("dev");
    states.last("dev", "ok 200 0.020 60 60", 7);
    states.pause(
        "dev",
        &json!({"format": 1, "pause": {
            "until": states.time(-6000), "by": "alice", "reason": "upgrade", "at": states.time(60),
        }}),
    );
}

/// Servers that nobody looks after, that are down in other ways, and whose names are long.
fn sick(states: &States) {
    states.healthy("myvnc-production");
    states.last("myvnc-production", "ok 302 0.350 60 60", 3 * HOUR);
    states.state(
        "failed",
        json!({
            "server": "failed", "phase": "failed", "since": states.time(500), "flapping": states.time(4000),
            "down": {
                "id": "3", "cause": "idle_client", "culprit": "10.1.2.3:51234", "culprit_kind": "client",
                "text": "blocked reading from idle client 10.1.2.3:51234, silent for 74 s", "counted": 500,
            },
        }),
    );
    states.last("failed", "down 503 0.001 60 60", 5);
    states.line("failed", ("", 3 * HOUR, "unwatched", "", "", 10 * HOUR));
    states.line(
        "failed",
        ("3", 5, "failed", "idle_client", "10.1.2.3:51234", 500),
    );
    states.state(
        "held-for-ever",
        json!({
            "server": "held-for-ever", "phase": "held", "since": states.time(100),
            "down": {"id": "4", "cause": "proxy", "culprit": "nginx", "text": "the proxy nginx fails"},
            "hold": {"until": null, "why": "proxy nginx"},
        }),
    );
    states.last("held-for-ever", "down 502 0.001 60 60", 5);
    fs::write(states.path("damaged.json"), "{").unwrap();
}

#[test]
fn the_status_of_several_servers_is_as_it_is_drawn() {
    let config = |states: &States| {
        let text = "url = 'https://h'\n[server.main]\nurl = 'https://main:1'\n[server.test]\n\
             url = 'https://test:1'\n[server.dev]\nurl = 'https://dev:1'\n";
        let path = states.path("m.toml");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        for stem in ["main", "test", "dev"] {
            for extension in ["json", "last", "history.jsonl", "pause"] {
                let from = states.path(&format!("{stem}.{extension}"));
                let _ = fs::rename(from, states.path(&format!("{stem}_1.{extension}")));
            }
        }
        path
    };
    let ask = |arguments: &'static [&str], locale: &'static str| {
        move |states: &States| {
            let config = config(states);
            let mut verb = states.verb("status");
            verb.args(arguments).env("LC_ALL", locale);
            run(verb.arg("--config").arg(config))
        }
    };
    let (states, ran) = said(three, ask(&[], "C.UTF-8"));
    assert_golden(&states, &ran, "status.utf-8.txt");
    assert_eq!(ran.code(), Some(1));
    let (states, ran) = said(three, ask(&[], "C"));
    assert_golden(&states, &ran, "status.ascii.txt");
    let (states, ran) = said(three, ask(&["--short"], "C.UTF-8"));
    assert_golden(&states, &ran, "status.short.txt");
    let (states, ran) = said(three, ask(&["--nagios"], "C.UTF-8"));
    assert_golden(&states, &ran, "nagios.txt");
    assert_eq!(ran.code(), Some(2));
    let (states, ran) = said(three, ask(&["--json"], "C.UTF-8"));
    assert_eq!(ran.code(), Some(1));
    let mut object: Value = serde_json::from_str(&ran.stdout).unwrap();
    let started = object["servers"][0]["process"]["started"].take();
    let started = DateTime::parse_from_rfc3339(started.as_str().unwrap()).unwrap();
    let age = states.now.timestamp() - started.timestamp();
    assert!((age - 60 * up_minutes()).abs() < 70, "{started}");
    let expected: Value = serde_json::from_str(&states.golden("status.json")).unwrap();
    assert!(object == expected, "{object:#}\n{expected:#}");
    let (_, ran) = said(three, ask(&["dev"], "C.UTF-8"));
    assert_eq!(ran.code(), Some(0), "{}", ran.stdout);
}

#[test]
fn sick_servers_stand_with_what_to_do() {
    let (states, ran) = said(sick, |states| states.run("status", &[]));
    let damaged = states.path("damaged.json").display().to_string();
    let lines: Vec<&str> = ran.stdout.lines().collect();
    let (head, rest) = lines.split_at(
        lines
            .iter()
            .position(|line| line.contains("no run has"))
            .unwrap(),
    );
    assert_eq!(head.len(), 2, "what nobody looks after comes first");
    assert!(ran.stdout.contains("it makes no sense"), "{}", ran.stdout);
    assert!(
        ran.stdout.replace(['\n', ' '], "").contains(&damaged),
        "{}",
        ran.stdout
    );
    assert_eq!(ran.code(), Some(1));
    // The path of the damaged file is another in each run.
    let end = rest
        .iter()
        .position(|line| line.contains("myvnc-production"))
        .unwrap();
    let shown = rest[end..].join("\n") + "\n";
    let expected = states.golden("sick.txt");
    assert!(shown == expected, "{shown}\n{expected}");
    let (_, ran) = said(sick, |states| {
        states.run("status", &["--nagios", "myvnc-production"])
    });
    assert_eq!(ran.code(), Some(3), "{}", ran.stdout);
}

#[test]
fn colour_is_for_terminals_alone() {
    let states = States::new();
    three(&states);
    let plain = states.run("status", &[]).stdout;
    assert!(!plain.contains('\x1b'), "{plain}");
    let directory = states.directory.path().to_str().unwrap();
    let on_terminal = |environment: &str| {
        let line = format!("{MONITOR} status --state-dir {directory}");
        let script = Command::new("script")
            .args(["-qec", &line, "/dev/null"])
            .env("LC_ALL", "C.UTF-8")
            .env("TERM", "xterm")
            .env(environment, "1")
            .stdin(Stdio::null())
            .output();
        script.map(|ran| String::from_utf8(ran.stdout).unwrap())
    };
    match on_terminal("X") {
        Ok(said) => {
            assert!(said.contains("\x1b[32m● main  up\x1b[0m  "), "{said:?}");
            assert!(
                said.contains("\x1b[33m▲ test  held off\x1b[0m  "),
                "{said:?}"
            );
            let without = on_terminal("NO_COLOR").unwrap();
            assert!(!without.contains('\x1b'), "{without:?}");
        }
        Err(_) => skip("script(1) is not installed"),
    }
}

#[test]
fn before_the_first_run_the_status_is_one_line() {
    let states = States::new();
    for arguments in [&[][..], &["--short"]] {
        let ran = states.run("status", arguments);
        assert_eq!(ran.code(), Some(1));
        assert_eq!(ran.stdout.lines().count(), 1, "{}", ran.stdout);
        assert!(
            ran.stdout.starts_with("no server was checked yet"),
            "{}",
            ran.stdout
        );
    }
    assert_eq!(states.run("status", &["--nagios"]).code(), Some(3));
    let json = states.run("status", &["--json"]);
    let said: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((json.code(), &said["servers"]), (Some(1), &json!([])));
    assert_eq!(states.run("pause", &[]).code(), Some(1));
    let inhibit = states.run("inhibit", &["--", "echo", "ran"]);
    assert_eq!((inhibit.code(), inhibit.stdout.as_str()), (Some(1), ""));
}

#[test]
fn a_relative_state_directory_of_the_configuration_is_the_same_as_an_absolute_one() {
    let states = States::new();
    let here = fs::canonicalize(states.path("")).unwrap();
    let server = |name, directory: &str| {
        format!("[server.{name}]\nurl = \"http://127.0.0.1:1\"\nstate-dir = \"{directory}\"\n")
    };
    let absolute = here.join("a").display().to_string();
    // A run refuses an empty one.
    let servers = server("a", &absolute) + &server("b", "a") + &server("c", "");
    fs::write(here.join("servers.toml"), servers).unwrap();
    let ran = run(Command::new(MONITOR)
        .args(["status", "--config", "servers.toml"])
        .current_dir(&here));
    let expected = format!("there is no state in {absolute}");
    let said = ran.stdout.trim_end().split("; ").next().unwrap();
    assert!(said.ends_with(&expected), "{}", ran.stdout);
}

#[test]
fn where_nothing_was_written_yet_the_directory_of_the_configuration_is_named() {
    let states = States::new();
    let (a, b) = (states.path("a"), states.path("b"));
    let server = |name, directory: &Path| {
        let directory = directory.display();
        format!(
            "[server.{name}]\nurl = \"http://127.0.0.1:1\"\nrestart-cmd = \"true\"\nstate-dir = \"{directory}\"\n"
        )
    };
    let file = states.path("servers.toml");
    fs::write(&file, server("b", &b) + &server("a", &a)).unwrap();
    let verb = |verb, server: &[&str]| {
        run(Command::new(MONITOR)
            .arg(verb)
            .arg("--config")
            .arg(&file)
            .args(server))
    };
    let both = format!("there is no state in {}, {}", b.display(), a.display());
    for name in ["status", "report"] {
        let ran = verb(name, &[]);
        assert_eq!(ran.code(), Some(1));
        assert!(ran.stdout.contains(&both), "{}", ran.stdout);
    }
    let said = verb("status", &["a"]).stdout;
    assert!(
        said.contains(&format!("no state in {}", a.display())),
        "{said}"
    );
    assert!(!said.contains(&*b.to_string_lossy()), "{said}");
    fs::write(&file, "").unwrap();
    let ran = verb("status", &["a"]);
    assert_eq!(ran.code(), Some(2));
    let none = format!("there is none in {}", file.display());
    assert!(ran.stderr.contains(&none), "{}", ran.stderr);
}

#[test]
fn a_verb_has_a_grammar_of_its_own() {
    let states = States::new();
    states.healthy("main");
    let touched = states.path("touched");
    let touch = format!("touch {}", touched.display());
    for (verb, arguments, reason) in [
        (
            "pause",
            &["main", "--restart-cmd", &touch][..],
            "unexpected argument --restart-cmd",
        ),
        (
            "pause",
            &["--url=http://127.0.0.1:1"],
            "unexpected argument --url",
        ),
        (
            "pause",
            &["main", "--", "sh"],
            "sh: no such server; there is main",
        ),
        ("pause", &["nope"], "nope: no such server; there is main"),
        ("resume", &["nope"], "nope: no such server; there is main"),
        ("history", &["nope"], "nope: no such server; there is main"),
        ("report", &["nope"], "nope: no such server; there is main"),
        ("status", &["nope"], "nope: no such server; there is main"),
        (
            "inhibit",
            &["nope", "--", "touch", "x"],
            "nope: no such server; there is main",
        ),
        ("pause", &["--for", "8d"], "a pause lasts 7d at most"),
        ("pause", &["--until", "yesterday"], "give HH:MM"),
        (
            "pause",
            &["--until", "2020-01-01T00:00:00Z"],
            "this has passed",
        ),
        (
            "pause",
            &["--until", "12:00", "--for", "1h"],
            "cannot be used with",
        ),
        ("inhibit", &["main"], "required"),
        (
            "status",
            &["--config", "/nonexistent"],
            "No such file or directory",
        ),
        (
            "restart",
            &["main"],
            "restart: no such command; give one of status, history, report",
        ),
        ("", &[], "'': no such command"),
    ] {
        let ran = states.run(verb, arguments);
        assert_eq!(ran.code(), Some(2), "{verb} {arguments:?}");
        assert!(
            ran.stderr.contains(reason),
            "{verb} {arguments:?}: {}",
            ran.stderr
        );
        assert_eq!((ran.stderr.lines().count(), ran.stdout.as_str()), (1, ""));
    }
    for arguments in [&["nope"][..], &["--bogus"], &["--json"]] {
        let ran = states.run("status", &[&["--nagios"], arguments].concat());
        assert_eq!(ran.code(), Some(3), "{arguments:?}");
        assert!(ran.stdout.starts_with("MYVNC UNKNOWN - "), "{}", ran.stdout);
    }
    assert!(!touched.exists());
    assert_eq!(states.asked("main"), Value::Null, "nothing was paused");
    let flags_first = run(Command::new(MONITOR).args(["--quiet", "status"]));
    assert_eq!(flags_first.code(), Some(2));
    for verb in ["status", "history", "report", "pause", "resume", "inhibit"] {
        let ran = run(Command::new(MONITOR).args([verb, "--help"]));
        assert_eq!(ran.code(), Some(0));
        assert!(ran.stdout.contains("--state-dir <DIR>") && ran.stdout.contains("--config <FILE>"));
        assert!(!ran.stdout.contains("--names"), "{}", ran.stdout);
    }
}

#[test]
fn a_pause_is_set_replaced_and_ended() {
    let states = States::new();
    states.healthy("main");
    states.healthy("dev");
    let ran = states.run(
        "pause",
        &["main", "--for", "2h", "--reason", "new\x1b[31m\nline"],
    );
    assert_eq!((ran.code(), ran.stderr.as_str()), (Some(0), ""));
    assert!(ran.stdout.starts_with("main: paused until ") && ran.stdout.ends_with(" (2 h)\n"));
    assert_eq!(
        fs::metadata(states.path("main.pause")).unwrap().mode() & 0o777,
        0o600
    );
    let status = states.run("status", &["--short"]).stdout;
    assert!(status.contains("main  paused    HTTP 200"), "{status}");
    assert!(status.contains(": new?[31m?line"), "{status}");
    assert!(status.contains("dev   up"), "{status}");
    // Without a name, all; for an hour.
    assert_eq!(states.run("pause", &[]).stdout.lines().count(), 2);
    let until = |stem: &str| {
        let asked = states.asked(stem);
        let until = asked["pause"]["until"].as_str().unwrap().to_owned();
        assert_eq!(asked["pause"]["reason"], Value::Null);
        DateTime::parse_from_rfc3339(&until).unwrap().timestamp() - states.now.timestamp()
    };
    for stem in ["main", "dev"] {
        assert!((HOUR..HOUR + 60).contains(&until(stem)), "{}", until(stem));
    }
    let by = run(states.verb("pause").env("SUDO_USER", "carol"));
    assert_eq!(by.code(), Some(0));
    // Everybody else could give any name.
    let is_believed = states.asked("main")["pause"]["by"] == "carol";
    assert_eq!(is_believed, is_root());
    let resumed = states.run("resume", &["main"]);
    assert_eq!(resumed.code(), Some(0));
    assert!(
        resumed
            .stdout
            .starts_with("main: resumed; it was paused until "),
        "{}",
        resumed.stdout
    );
    assert_eq!(states.asked("main")["pause"], Value::Null);
    assert!(
        states
            .run("status", &["--short", "main"])
            .stdout
            .contains("main  up")
    );
    // One that is over is none.
    states.pause(
        "dev",
        &json!({"pause": {"until": states.time(1), "by": "alice"}}),
    );
    assert!(
        states
            .run("status", &["--short", "dev"])
            .stdout
            .contains("dev   up")
    );
}

#[test]
fn a_resume_is_seen_before_the_next_run() {
    let (states, _) = said(three, |states| states.run("resume", &["test"]));
    let status = states.run("status", &["test"]);
    assert!(status.stdout.contains("▼ test  down "), "{}", status.stdout);
    assert!(
        status
            .stdout
            .contains("resumed: the next run restarts it\n"),
        "{}",
        status.stdout
    );
    assert!(
        !status.stdout.contains("or: monitor_myvnc resume"),
        "{}",
        status.stdout
    );
    assert_eq!(status.code(), Some(1));
    // A run has carried it out, and holds again.
    let text = fs::read_to_string(states.path("test.json")).unwrap();
    let mut state: Value = serde_json::from_str(&text).unwrap();
    state["resumed"] = states.asked("test")["resume"].clone();
    states.state("test", state);
    let status = states.run("status", &["test"]);
    assert!(
        status.stdout.contains("▲ test  held off"),
        "{}",
        status.stdout
    );
}

#[test]
fn a_command_pauses_as_long_as_it_runs_and_its_exit_status_counts() {
    let states = States::new();
    states.healthy("main");
    let short = format!(
        "{MONITOR} status --short --state-dir {}",
        states.directory.path().display()
    );
    let inside = states.run(
        "inhibit",
        &["main", "--", "sh", "-c", &format!("{short}; exit 7")],
    );
    assert_eq!(inside.code(), Some(7));
    assert!(
        inside.stdout.contains("main  paused    HTTP 200"),
        "{}",
        inside.stdout
    );
    assert!(
        inside.stdout.contains("; as long as sh -c "),
        "{}",
        inside.stdout
    );
    assert_eq!(states.asked("main"), Value::Null, "no pause remains");
    for (command, code) in [
        (&["sh", "-c", "kill -9 $$"][..], 137),
        (&["sh", "-c", "kill -15 $$"], 143),
        (&["/nonexistent/command"], 127),
        (&["/etc/passwd"], 126),
        (&["true"], 0),
        (&["printf", "--quiet"], 0),
    ] {
        let ran = states.run("inhibit", &[&["--"], command].concat());
        assert_eq!(ran.code(), Some(code), "{command:?}");
        assert_eq!(states.asked("main"), Value::Null);
    }
    // A pause that was set before stays.
    assert_eq!(states.run("pause", &["main"]).code(), Some(0));
    let before = states.asked("main")["pause"].clone();
    assert_eq!(
        states.run("inhibit", &["main", "--", "true"]).code(),
        Some(0)
    );
    assert_eq!(states.asked("main")["pause"], before);
}

/// An `inhibit` whose command, a shell's, has written its first line, and that line.
fn inhibiting(states: &States, script: &str) -> (Child, String) {
    let mut inhibit = states
        .verb("inhibit")
        .args(["--", "sh", "-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut said = BufReader::new(inhibit.stdout.take().unwrap());
    said.read_line(&mut line).unwrap();
    (inhibit, line)
}

#[test]
fn a_killed_inhibit_pauses_until_its_command_has_ended() {
    let states = States::new();
    states.healthy("main");
    let status = || states.run("status", &["--short"]).stdout;
    let (mut inhibit, begun) = inhibiting(&states, "echo begun; read word");
    assert_eq!(begun, "begun\n");
    let stdin = inhibit.stdin.take();
    inhibit.kill().unwrap();
    assert_eq!(inhibit.wait().unwrap().signal(), Some(9));
    assert!(status().contains("paused"), "{}", status());
    drop(stdin);
    wait_until("the command ends", || status().contains("up  "));
}

#[test]
fn a_resume_ends_the_pause_of_a_command_that_runs() {
    let states = States::new();
    states.healthy("main");
    let status = || states.run("status", &["--short"]).stdout;
    let (mut inhibit, _) = inhibiting(&states, "echo begun; read word");
    assert!(status().contains("paused"), "{}", status());
    let resumed = states.run("resume", &[]);
    let expected = format!(
        "main: resumed, although this may still run: sh -c echo begun; read word (under PID {} of ",
        inhibit.id()
    );
    let (after, asked) = (status(), states.asked("main"));
    drop(inhibit.stdin.take());
    wait_for(&mut inhibit);
    assert!(resumed.stdout.starts_with(&expected), "{}", resumed.stdout);
    assert!(after.contains("main  up"), "{after}");
    assert_eq!(asked["inhibit"], json!([]));
    assert_eq!(states.asked("main")["resume"], asked["resume"]);
}

#[test]
fn an_inhibit_that_is_hung_up_ends_with_its_command() {
    for (signal, trap, code) in [
        (Signal::SIGTERM, "", 143),
        (Signal::SIGHUP, "", 129),
        (Signal::SIGTERM, "trap 'exit 7' TERM; ", 7),
    ] {
        let states = States::new();
        states.healthy("main");
        // A server that it has restarted, for whose end it waits.
        let script = format!("{trap}sleep 60 <&- >&- 2>&- & echo $!; wait");
        let (mut inhibit, server) = inhibiting(&states, &script);
        let server = Pid::from_raw(server.trim().parse().unwrap());
        let pid = Pid::from_raw(i32::try_from(inhibit.id()).unwrap());
        kill(pid, signal).unwrap();
        let ended = wait_for(&mut inhibit);
        let status = states.run("status", &["--short"]).stdout;
        kill(server, Signal::SIGKILL).unwrap();
        assert_eq!(ended.code(), Some(code), "{signal} {trap}");
        assert!(status.contains("main  up"), "{signal}: {status}");
    }
}

#[test]
fn a_server_that_a_command_leaves_behind_is_watched() {
    let states = States::new();
    states.healthy("main");
    let left = states.run(
        "inhibit",
        &["--", "sh", "-c", "sleep 60 <&- >&- 2>&- & echo $!"],
    );
    let pid: i32 = left.stdout.trim().parse().unwrap();
    let status = states.run("status", &["--short"]).stdout;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).unwrap();
    assert!(status.contains("main  up"), "{status}");
}

#[test]
fn progress_is_for_terminals_alone() {
    let states = States::new();
    states.healthy("main");
    let directory = states.directory.path().to_str().unwrap();
    let on_terminal = |flags: &str| {
        let line = format!("{MONITOR} inhibit --state-dir {directory} {flags} -- sleep 4");
        let script = Command::new("script")
            .args(["-qec", &line, "/dev/null"])
            .env("TERM", "xterm")
            .stdin(Stdio::null())
            .output();
        script.map(|ran| String::from_utf8(ran.stdout).unwrap())
    };
    match on_terminal("") {
        Ok(said) => {
            assert!(said.contains("waiting for sleep 4: 2 s"), "{said:?}");
            assert_eq!(on_terminal("--quiet").unwrap(), "");
        }
        Err(_) => skip("script(1) is not installed"),
    }
    let piped = states.run("inhibit", &["--", "sleep", "3"]);
    assert_eq!((piped.stdout.as_str(), piped.stderr.as_str()), ("", ""));
}

#[test]
fn the_history_says_what_happened_and_whether_restarts_helped() {
    let write = |states: &States| {
        three(states);
        states.line("main", ("2", 3 * HOUR, "lasted", "", "", 0));
        states.line("main", ("0", 28 * DAY, "fell_again", "", "", 0));
        states.line("main", ("", HOUR, "unwatched", "", "", 600));
        states.line("main", ("", HOUR - 60, "planned", "", "", 30));
        states.line("main", ("x", HOUR - 60, "of a newer version", "", "", 30));
    };
    let history =
        |arguments: &'static [&str]| said(write, move |states| states.run("history", arguments));
    let (states, ran) = history(&["--since", "30d"]);
    assert_golden(&states, &ran, "history.txt");
    let (states, ran) = history(&["--since", "30d", "--by", "cause"]);
    assert_golden(&states, &ran, "history.cause.txt");
    let (states, ran) = history(&["--since", "30d", "--by", "culprit"]);
    assert_golden(&states, &ran, "history.culprit.txt");
    let (_, ran) = history(&["--since", "1s", "dev"]);
    assert_eq!(
        (ran.code(), ran.stdout.as_str()),
        (Some(0), "no incident in 1 s\n")
    );
    for servers in [&["main"][..], &["main", "test"], &["dev"]] {
        let (states, _) = said(write, |states| states.run("status", &[]));
        let arguments = [&["--json", "--since", "30d"], servers].concat();
        let array: Value = serde_json::from_str(&states.run("history", &arguments).stdout).unwrap();
        let lines = array.as_array().unwrap();
        let numbers = [9, 14, 0];
        let which = ["main", "test", "dev"]
            .iter()
            .position(|one| Some(one) == servers.last());
        assert_eq!(lines.len(), numbers[which.unwrap()], "{array}");
        let keys = "at away_s by cause culprit culprit_kind event id outcome pids server";
        for line in lines {
            let have: Vec<&str> = line
                .as_object()
                .unwrap()
                .keys()
                .map(String::as_str)
                .collect();
            assert_eq!(have.join(" "), keys);
        }
    }
}

#[test]
fn a_password_of_the_command_is_not_written_down() {
    let states = States::new();
    states.healthy("main");
    let file = states.path("main.pause").display().to_string();
    let command = [
        "--",
        "sh",
        "-c",
        "cat \"$0\"",
        &file,
        "--password",
        "hunter2",
    ];
    let ran = states.run("inhibit", &command);
    assert_eq!(ran.code(), Some(0), "{}", ran.stderr);
    assert!(ran.stdout.contains("--password ***"), "{}", ran.stdout);
    assert!(!ran.stdout.contains("hunter2"), "{}", ran.stdout);
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let states = States::new();
    states.healthy("main");
    states.line("main", ("1", 60, "restarted", "child", "bjobs", 5));
    for arguments in [
        &["status"][..],
        &["history"],
        &["history", "--json"],
        &["report"],
    ] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let mut verb = states.verb(arguments[0]);
        verb.args(&arguments[1..])
            .stdout(full)
            .stderr(Stdio::piped());
        let ran = verb.spawn().unwrap().wait_with_output().unwrap();
        let said = String::from_utf8(ran.stderr).unwrap();
        assert_eq!(ran.status.code(), Some(1), "{arguments:?}");
        assert!(said.contains("No space left on device"), "{said}");
    }
}

#[test]
fn a_culprit_is_that_of_its_cause() {
    let states = States::new();
    states.healthy("main");
    states.line("main", ("1", 600, "failed", "child", "bjobs", 5));
    states.line("main", ("1", 500, "failed", "not_running", "", 5));
    let history = states.run("history", &[]).stdout;
    assert!(history.contains("not_running"), "{history}");
    assert!(!history.contains("bjobs"), "{history}");
}

#[test]
fn what_another_user_may_not_read_is_not_said_to_be_missing() {
    if !is_root() {
        return skip("only root can be another user");
    }
    let states = States::new();
    states.healthy("main");
    states.line("main", ("1", 60, "restarted", "child", "bjobs", 5));
    for name in ["main.json", "main.last", "main.history.jsonl"] {
        fs::set_permissions(states.path(name), fs::Permissions::from_mode(0o640)).unwrap();
    }
    fs::set_permissions(states.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    // The build directory may be closed to others.
    let program = states.path("monitor_myvnc");
    assert!(
        Command::new("cp")
            .arg(MONITOR)
            .arg(&program)
            .status()
            .unwrap()
            .success()
    );
    for verb in ["status", "history"] {
        let mut command = Command::new(&program);
        command.arg(verb).arg("--state-dir").arg(states.path(""));
        let ran = run(command.uid(65_534).gid(65_534));
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert_eq!(ran.code(), Some(1), "{said}");
        assert!(said.contains("Permission denied"), "{said}");
        assert!(!said.contains("no state"), "{said}");
        assert!(!said.contains("no incident"), "{said}");
    }
}

#[test]
fn the_plugin_says_why_it_warns() {
    let states = States::new();
    states.healthy("main");
    let flapping = states.time(600);
    states.state(
        "main",
        json!({"server": "main", "phase": "up", "since": flapping, "flapping": flapping}),
    );
    let ran = states.run("status", &["--nagios"]);
    assert_eq!(ran.code(), Some(1));
    assert!(ran.stdout.contains("flapping since "), "{}", ran.stdout);
}

#[test]
fn short_lines_have_whole_names() {
    let states = States::new();
    let name = "a-very-long-name-of-a-server";
    states.healthy(name);
    let short = states.run("status", &["--short"]).stdout;
    assert!(short.starts_with(&format!("{name}  up ")), "{short}");
}

#[test]
fn the_end_of_a_pause_is_not_shown_too_early() {
    let states = States::new();
    states.healthy("main");
    // 15 seconds after a full minute.
    let until = DateTime::from_timestamp(states.now.timestamp() / 60 * 60 + 3615, 0).unwrap();
    let text = until.to_rfc3339_opts(SecondsFormat::Secs, true);
    states.pause(
        "main",
        &json!({"format": 1, "pause": {"until": text, "by": "alice", "at": states.time(0)}}),
    );
    let next = (until + chrono::Duration::seconds(45)).with_timezone(&states.zone);
    let short = states.run("status", &["--short"]).stdout;
    let shown = next.format("%H:%M by alice").to_string();
    assert!(short.contains(&shown), "{short}, not {shown}");
}

/// What a file is called, and what makes it.
type Hostile<'a> = (&'a str, &'a dyn Fn(&Path));

#[test]
fn damaged_and_hostile_state_stops_no_verb() {
    let hostile: &[Hostile] = &[
        ("empty", &|path| fs::write(path, "").unwrap()),
        ("torn", &|path| {
            let text = fs::read(path).unwrap_or_default();
            fs::write(path, &text[..text.len() / 2]).unwrap();
        }),
        ("binary", &|path| {
            fs::write(path, [0xff, 0, b'{', b'\n', 0xc3]).unwrap();
        }),
        ("other", &|path| {
            fs::write(path, "[1]\n{\"at\":7}\n{\"pause\":7}\n").unwrap();
        }),
        ("deep", &|path| {
            fs::write(path, "[".repeat(100_000)).unwrap();
        }),
        ("long", &|path| {
            fs::write(path, "x".repeat(3 << 20)).unwrap();
        }),
        ("newer", &|path| {
            fs::write(path, "{\"format\":99,\"new\":{\"a\":[]},\"url\":\"u\"}\n").unwrap();
        }),
        ("future", &|path| {
            let text = fs::read_to_string(path).unwrap_or_default();
            fs::write(path, text.replace("\"20", "\"29")).unwrap();
            let future = SystemTime::now() + Duration::from_secs(1 << 32);
            fs::File::options()
                .write(true)
                .open(path)
                .unwrap()
                .set_modified(future)
                .unwrap();
        }),
        ("link", &|path| {
            let _ = fs::remove_file(path);
            std::os::unix::fs::symlink("/etc/passwd", path).unwrap();
        }),
        ("fifo", &|path| {
            let _ = fs::remove_file(path);
            nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        }),
        ("directory", &|path| {
            let _ = fs::remove_file(path);
            fs::create_dir(path).unwrap();
        }),
        ("owner", &|path| {
            std::os::unix::fs::chown(path, Some(4711), None).unwrap();
        }),
    ];
    for (how, damage) in hostile {
        if *how == "owner" && !is_root() {
            skip("only root can make a file for others");
            continue;
        }
        for extension in ["json", "last", "pause", "history.jsonl", "history.jsonl.1"] {
            let states = States::new();
            three(&states);
            fs::write(states.path("dev.history.jsonl.1"), "").unwrap();
            fs::write(states.path("dev.history.jsonl"), "").unwrap();
            damage(&states.path(&format!("dev.{extension}")));
            let what = format!("{how} {extension}");
            for arguments in [
                &["status"][..],
                &["status", "--json"],
                &["status", "--short"],
                &["status", "--nagios"],
                &["history"],
                &["history", "--json"],
                &["history", "--by", "cause"],
                &["pause"],
                &["resume"],
            ] {
                let ran = states.run(arguments[0], &arguments[1..]);
                let code = ran
                    .code()
                    .unwrap_or_else(|| panic!("{what} {arguments:?}: {}", ran.stderr));
                assert!(code <= 3, "{what} {arguments:?}: {}", ran.stderr);
                assert!(ran.took < Duration::from_secs(10), "{what} {arguments:?}");
                assert!(!ran.stderr.contains("panicked"), "{what}: {}", ran.stderr);
                assert!(ran.stderr.len() < 2000, "{what}: {}", ran.stderr);
                // The others are shown nevertheless.
                if arguments[0] == "status" {
                    assert!(
                        ran.stdout.contains("main"),
                        "{what} {arguments:?}: {}",
                        ran.stdout
                    );
                }
            }
            let ran = states.run("inhibit", &["--", "true"]);
            assert!(
                ran.code().is_some_and(|code| code <= 1),
                "{what}: {}",
                ran.stderr
            );
        }
    }
    assert_eq!(fs::metadata("/etc/passwd").unwrap().uid(), 0);
}

/// Whether a terminal would do more than show it.
fn is_hostile(c: char) -> bool {
    let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() && c != '\n' || turns
}

#[test]
fn untrusted_text_stays_in_its_line() {
    let states = States::new();
    let evil = "a\x1b]0;t\x07\n● main  up\u{202e}";
    states.state(
        "evil",
        json!({
            "server": evil, "phase": "failed", "since": states.time(60),
            "down": {"id": "1", "cause": evil, "culprit": evil, "text": evil},
        }),
    );
    states.last("evil", "down 0 0.001 60 60", 7);
    states.line("evil", ("1", 7, "failed", evil, evil, 60));
    states.line("evil", ("2", 7, "failed", evil, evil, 60));
    for arguments in [
        &["status"][..],
        &["status", "--short"],
        &["status", "--nagios"],
        &["status", "--names"],
        &["history"],
        &["history", "--by", "cause"],
        &["history", "--by", "culprit"],
        &["pause"],
        &["resume"],
    ] {
        let ran = states.run(arguments[0], &arguments[1..]);
        let said = ran.stdout + &ran.stderr;
        assert!(!said.contains(is_hostile), "{arguments:?}: {said:?}");
        assert!(
            !said.lines().any(|line| line.starts_with('●')),
            "{arguments:?}: {said}"
        );
    }
}

#[test]
fn names_of_files_and_directories_stay_in_their_line() {
    let states = States::new();
    let evil = "a\x1b]0;t\x07\n● main  up\u{9b}31m\u{202e}";
    let (empty, full) = (states.path(&format!("1{evil}")), states.path(evil));
    for directory in [&empty, &full] {
        fs::create_dir(directory).unwrap();
    }
    fs::write(full.join(format!("{evil}.json")), "{").unwrap();
    fs::write(full.join("h_1.json"), "{").unwrap();
    for directory in [&empty, &full, &full.join("h_1.json")] {
        for arguments in [
            &["status"][..],
            &["status", "--short"],
            &["status", "--nagios"],
            &["status", "--names"],
            &["history"],
            &["report"],
            &["pause", "--for", "1s"],
            &["resume"],
        ] {
            let mut command = Command::new(MONITOR);
            command.args(arguments).arg("--state-dir").arg(directory);
            let ran = run(command.env("LC_ALL", "C.UTF-8"));
            let said = ran.stdout + &ran.stderr;
            assert!(!said.contains(is_hostile), "{arguments:?}: {said:?}");
            let mut lines = said.lines();
            let is_forged = lines.any(|line| line.starts_with("● main"));
            assert!(!is_forged, "{arguments:?}: {said}");
        }
    }
}

#[test]
fn json_has_no_characters_that_a_terminal_obeys() {
    let states = States::new();
    let evil = "é\x7f\u{9b}31m\u{202e}\u{2066}\u{2028}";
    states.state(
        "evil",
        json!({
            "server": "evil", "url": evil, "phase": "failed", "since": states.time(60),
            "down": {"id": "1", "cause": evil, "culprit": evil, "text": evil},
        }),
    );
    states.last("evil", "down 0 0.001 60 60", 7);
    states.line("evil", ("1", 7, "failed", evil, evil, 60));
    states.line("evil", ("2", 7, "failed", "child", "a\x7f", 60));
    let newer = format!(
        "{{\"at\":\"{}\",\"id\":\"3\",\"server\":\"evil\",\"event\":\"failed\",\"cause\":\"{evil}\"}}\n",
        states.time(7)
    );
    let mut file = fs::File::options();
    let mut file = file
        .append(true)
        .open(states.path("evil.history.jsonl"))
        .unwrap();
    file.write_all(newer.as_bytes()).unwrap();
    let status = states.run("status", &["--json"]).stdout;
    let history = states.run("history", &["--json"]).stdout;
    for said in [&status, &history] {
        assert!(
            !said.contains(|c| is_hostile(c) || c == '\u{2028}'),
            "{said:?}"
        );
        assert!(said.contains("é\\u007f\\u009b31m"), "{said:?}");
    }
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["servers"][0]["down"]["text"], evil);
    let history: Value = serde_json::from_str(&history).unwrap();
    assert_eq!(history[0]["culprit"], evil);
    assert_eq!(history[1]["culprit"], "a\x7f");
    assert_eq!(history[2]["cause"], evil);
}

#[test]
fn a_long_history_of_two_servers_is_in_order() {
    const NUMBER: i64 = 3000;
    let states = States::new();
    for (name, shift) in [("main", 0), ("dev", 100)] {
        states.healthy(name);
        let lines = (0..NUMBER).rev().map(|number| {
            let at = states.time(number * 200 + shift);
            format!(
                "{{\"id\":\"{number}\",\"at\":\"{at}\",\"server\":\"{name}\",\"event\":\"restarted\",\
                 \"cause\":\"child\",\"culprit\":null,\"culprit_kind\":null,\"away_s\":{},\"outcome\":\"answered\",\
                 \"pids\":[1,2],\"by\":null}}\n",
                number % 7
            )
        });
        let path = states.path(&format!("{name}.history.jsonl"));
        fs::write(path, lines.collect::<String>()).unwrap();
    }
    let text = states.run("history", &["--since", "30d"]).stdout;
    let began: Vec<&str> = text.lines().map(|line| &line[..19]).collect();
    assert_eq!(began.len(), 2 * usize::try_from(NUMBER).unwrap());
    assert!(began.is_sorted(), "{text}");
    assert!(
        text.lines().all(|line| line.contains("  restarted  child")),
        "{text}"
    );
    let array = states.run("history", &["--since", "30d", "--json"]).stdout;
    let array: Value = serde_json::from_str(&array).unwrap();
    let at: Vec<&str> = array
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line["at"].as_str().unwrap())
        .collect();
    assert_eq!(at.len(), began.len());
    assert!(at.is_sorted());
}
