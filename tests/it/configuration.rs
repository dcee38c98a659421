//! One file, several servers: what it says, what is refused, and that no server is another's bystander.
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::rig;
use crate::rig::machine::{MYVNC, on_own_machine};
use crate::rig::{MONITOR, Run, Site, in_private_namespace, run};

/// Runs the monitor on a configuration file of this text; nothing is watched.
fn check(text: &str, arguments: &[&str]) -> (Run, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("m.toml");
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let mut monitor = Command::new(MONITOR);
    monitor.args(["--check-config", "--config", file, "--state-dir", "/state"]);
    let checked = run(monitor.args(arguments));
    (checked, file.to_owned())
}

#[test]
fn each_mistake_has_its_place_and_the_nearest_key() {
    let server = "[server.a]\nurl = \"http://vm\"\nrestart-cmd = \"true\"\n";
    let table: &[(&str, &str)] = &[
        ("timeout = ", ":1:11: not TOML: "),
        (
            "\n  tiemout = 3",
            ":2:3: unknown key tiemout: the nearest valid key is timeout",
        ),
        (
            "restart_cmd = 'x'",
            ":1:1: unknown key restart_cmd: the nearest valid key is restart-cmd",
        ),
        ("config = 'x'", ":1:1: unknown key config: "),
        ("help = true", ":1:1: unknown key help: "),
        ("timeout = 0", ":1:1: timeout 0: give seconds"),
        ("timeout = 'ten'", ":1:1: timeout ten: give seconds"),
        ("timeout = true", ":1:1: timeout: give a number"),
        (
            "retries = 99999999999999999999",
            ":1:1: retries: give a smaller number",
        ),
        ("retries = 101", ":1:1: retries 101: give a whole number"),
        ("quiet = 'yes'", ":1:1: quiet: give true or false"),
        ("user = 0", ":1:1: user: give a text in quotes"),
        (
            "log-level = 'loud'",
            ":1:1: log-level loud: give one of debug, info",
        ),
        ("server = 3", ":1:1: unknown key server: "),
        ("[server]\na = 1", ":2:1: server.a: a server is a table"),
        (
            "[server.'../a']",
            ":1:9: server \"../a\": a name is letters",
        ),
        (
            "[server.a]\nurl = 'http://vm'\ntimeuot = 3",
            ":3:1: unknown key timeuot: the nearest valid key is timeout",
        ),
        (
            "[server.a]\nrestart-cmd = 'x'",
            ":1:9: server a: url is missing",
        ),
        (
            "[server.a]\nurl = 'http://vm'",
            ":1:9: server a: restart-cmd is missing",
        ),
        (
            "[server.a]\nrestart-cmd = 'x'\nurl = 'ftp://vm'",
            ":3:1: server a: url ftp://vm: the scheme is ftp",
        ),
        (
            "user = 'no-such-user-here'\n",
            ":1:1: server a: user no-such-user-here: no such user",
        ),
        (
            "process-pattern = '.'\n",
            ":1:1: server a: process-pattern .: this matches every process",
        ),
    ];
    for (text, expected) in table {
        let text = if text.ends_with('\n') {
            format!("{text}{server}")
        } else {
            (*text).to_owned()
        };
        let (refused, file) = check(&text, &[]);
        assert_eq!(refused.code(), Some(2), "{text}: {}", refused.stderr);
        assert_eq!(refused.stdout, "");
        assert_eq!(
            refused.stderr.lines().count(),
            1,
            "{text}: {}",
            refused.stderr
        );
        let start = format!("monitor_myvnc: {file}{expected}");
        assert!(
            refused.stderr.starts_with(&start),
            "{text}: {}",
            refused.stderr
        );
    }
}

#[test]
fn a_newcomers_mistake_is_answered_with_the_right_form() {
    let server = "url = 'http://vm'\nrestart-cmd = 'true'\n";
    let path = "give an absolute path, such as /var/log/monitor_myvnc/NAME.log";
    let scheme = "no scheme; give a URL such as http://localhost:9143";
    let table: &[(String, String)] = &[
        (
            format!("[server.myvnc.example.com]\n{server}"),
            ":1:9: [server.myvnc.example.com]: a name with dots needs quotes: [server.\"myvnc.example.com\"]".into(),
        ),
        (
            format!("[servers.a]\n{server}"),
            ":1:2: unknown table [servers.a]: did you mean [server.a]?".into(),
        ),
        (
            format!("[Server.a]\n{server}"),
            ":1:2: unknown table [Server.a]: did you mean [server.a]?".into(),
        ),
        (
            format!("[myvnc]\n{server}"),
            ":1:2: unknown table [myvnc]: did you mean [server.myvnc]?".into(),
        ),
        (
            format!("[[server]]\n{server}"),
            ":1:3: unknown table [[server]]: did you mean [server.NAME]?".into(),
        ),
        (
            server.into(),
            ": logfile is missing: give it, or put the settings in a table [server.NAME], whose log is \
             /var/log/monitor_myvnc/NAME.log"
                .into(),
        ),
        (
            "[server.a]\nURL = 'http://vm'\n".into(),
            ":2:1: unknown key URL: the nearest valid key is url".into(),
        ),
        (
            format!("[server.a]\n{server}user = nobody\n"),
            ":4:8: not TOML: a text needs quotes: user = 'nobody'".into(),
        ),
        (
            format!("[server.a]\n{server}logfile = 'log/m.log'\n"),
            format!(":4:1: logfile log/m.log: {path}"),
        ),
        (
            format!("[server.a]\n{server}logfile = '~/m.log'\n"),
            format!(":4:1: logfile ~/m.log: {path}"),
        ),
        (
            format!("[server.a]\n{server}retries = 1.5\n"),
            ":4:1: retries 1.5: give a whole number from 0 to 100".into(),
        ),
        (
            "process-pattern = \"main\\.py\"\n".into(),
            ":1:25: not TOML: a backslash in double quotes begins an escape; use single quotes: \
             process-pattern = 'main\\.py'"
                .into(),
        ),
        (
            "[server.a]\nurl = 'myvnc.example.com'\nrestart-cmd = 'x'\n".into(),
            format!(":2:1: server a: url myvnc.example.com: {scheme}"),
        ),
        (
            "[server.a]\nurl = 'vm:9143'\nrestart-cmd = 'x'\n".into(),
            format!(":2:1: server a: url vm:9143: {scheme}"),
        ),
    ];
    for (text, expected) in table {
        let (refused, file) = check(text, &[]);
        let expected = format!("monitor_myvnc: {file}{expected} (see monitor_myvnc.toml(5))\n");
        assert_eq!(
            (refused.code(), refused.stdout, refused.stderr),
            (Some(2), String::new(), expected)
        );
    }
}

#[test]
fn a_mistake_in_one_server_is_no_other_servers() {
    in_private_namespace(|| {
        let site = Site::new("");
        let _running = site.start();
        let file = site.path("m.toml");
        configure(&file, &[("a", &site)], true);
        let mut text = std::fs::read_to_string(&file).unwrap();
        text += "[server.c]\nurl = 'ftp://vm'\nrestart-cmd = 'x'\n[server.b]\ntiemout = 3\n";
        std::fs::write(&file, text).unwrap();
        let mut monitor = Command::new(MONITOR);
        let whole = run(monitor.arg("--config").arg(&file));
        assert_eq!(whole.code(), Some(2), "{}{}", whole.stdout, whole.stderr);
        let said: Vec<&str> = whole.stderr.lines().collect();
        assert_eq!(said.len(), 2, "{}", whole.stderr);
        assert!(said[0].contains("server c: url ftp://vm: the scheme is ftp"));
        assert!(said[1].contains("unknown key tiemout: the nearest valid key is timeout"));
        assert!(site.log().contains("✓ Server is healthy"), "{}", site.log());
        let alone = run(monitor.args(["--server", "a"]));
        assert_eq!((alone.code(), alone.stderr), (Some(0), String::new()));
    });
}

#[test]
fn all_mistakes_are_told_at_once() {
    let (refused, file) = check("timeout = 0\nquiet = 1\n[server.a]\nx = 1\n", &[]);
    let lines: Vec<_> = refused.stderr.lines().collect();
    assert_eq!(lines.len(), 3, "{}", refused.stderr);
    for (line, at) in lines.iter().zip([":1:1: ", ":2:1: ", ":4:1: "]) {
        assert!(
            line.starts_with(&format!("monitor_myvnc: {file}{at}")),
            "{line}"
        );
    }
}

#[test]
fn a_server_overrides_what_is_shared_and_a_flag_overrides_both() {
    let text = "timeout = 3\nretries = 2\nno-verify-ssl = true\nrestart-cmd = \"a \\\"b\\\"\"\n\
        [server.two]\nurl = \"https://ada:hunter2@vm:2\"\nca-cert = \"/etc/ssl/certs/ca-certificates.crt\"\n\
        [server.one]\nurl = \"http://vm:1\"\ntimeout = 0.5\n";
    let (checked, file) = check(text, &["--retries", "7", "--server", "one"]);
    assert_eq!(checked.code(), Some(0), "{}", checked.stderr);
    let expected = "[server.one]\nurl = \"http://vm:1\"  # FILE:9\nlogfile = \"/var/log/monitor_myvnc/one.log\"\n\
        restart-cmd = \"a \\\"b\\\"\"  # FILE:4\ntimeout = 0.5  # FILE:10\nretries = 7  # command line\n\
        retry-delay = 5\nno-verify-ssl = true  # FILE:3\nstop-timeout = 10\nstart-timeout = 30\nrestart-policy = \"always\"\nmax-restarts = 0\nstart-grace = 0\n\
        unwedge = false\nunwedge-for = 5\nlog-history-minutes = 2\njournal = false\ncert-warn-days = 0\nquiet = false\nlog-level = \"debug\"\n\
        debug = false\nstate-dir = \"/state\"  # command line\n";
    assert_eq!(checked.stdout, expected.replace("FILE", &file));
    let (checked, _) = check(text, &[]);
    assert_eq!(checked.code(), Some(0), "{}", checked.stderr);
    let (two, one) = checked.stdout.split_once("\n\n").unwrap();
    assert!(one.starts_with("[server.one]"), "in the order of the file");
    assert!(
        two.contains("\"https://ada:***@vm:2\"") && !two.contains("hunter2"),
        "{two}"
    );
    assert!(two.contains("no-verify-ssl = false\nca-cert = "), "{two}");
    let (checked, _) = check(&checked.stdout.replace("***", "hunter2"), &[]);
    assert_eq!(
        checked.code(),
        Some(0),
        "what is printed can be read: {}",
        checked.stderr
    );
}

#[test]
fn keys_that_exclude_each_other_are_named_as_in_the_file() {
    let text = "[server.a]\nurl = 'http://vm'\nrestart-cmd = 'x'\nno-verify-ssl = true\nca-cert = '/c.pem'\n";
    let (refused, file) = check(text, &[]);
    let mistake =
        ":5:1: server a: ca-cert cannot be used with no-verify-ssl (see monitor_myvnc.toml(5))";
    let expected = format!("monitor_myvnc: {file}{mistake}\n");
    assert_eq!((refused.code(), refused.stderr), (Some(2), expected));
}

#[test]
fn servers_that_cannot_be_told_apart_are_refused() {
    let two = |one: &str, other: &str| {
        let text = format!(
            "restart-cmd = 'x'\n[server.a]\nurl = 'http://vm:80'\n{one}\n[server.b]\nurl = 'http://vm'\n{other}\n"
        );
        check(&text, &[]).0
    };
    for (one, other) in [
        ("", ""),
        ("process-pattern = 'one'", ""),
        ("process-pattern = 'one'", "process-pattern = 'one'"),
        ("user = 'root'", "user = 'root'"),
    ] {
        let refused = two(one, other);
        assert_eq!(refused.code(), Some(2), "{one} {other}");
        let expected =
            "servers a and b cannot be told apart, because their URLs have the same port";
        assert!(refused.stderr.contains(expected), "{}", refused.stderr);
    }
    for (one, other) in [
        ("process-pattern = 'one'", "process-pattern = 'two'"),
        ("user = 'root'", "user = 'daemon'"),
    ] {
        let one_state = two(one, other);
        let expected = "servers a and b have one state file, /state/vm_80.json, ";
        assert!(one_state.stderr.contains(expected), "{}", one_state.stderr);
        let text = format!(
            "restart-cmd = 'x'\n[server.a]\nurl = 'http://vm'\n{one}\n[server.b]\nurl = 'http://other'\n{other}\n"
        );
        let taken = check(&text, &[]).0;
        assert_eq!(taken.code(), Some(0), "{one} {other}: {}", taken.stderr);
    }
    let shared = two(
        "process-pattern = 'one'\nlogfile = '/x/m.log'",
        "process-pattern = 'two'\nlogfile = '/x/m.txt'",
    );
    assert!(
        shared.stderr.contains("have one lock, /x/.m.lock"),
        "{}",
        shared.stderr
    );
}

#[test]
fn a_file_without_a_server_is_no_error() {
    for text in ["", "timeout = 3\n", "[server]\n"] {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("m.toml");
        std::fs::write(&file, text).unwrap();
        let mut monitor = Command::new(MONITOR);
        let idle = run(monitor.arg("--config").arg(&file));
        let said = format!(
            "no server in {}: nothing to watch; add a table [server.NAME], see monitor_myvnc.toml(5)\n",
            file.display()
        );
        assert_eq!(
            (idle.code(), idle.stdout, idle.stderr),
            (Some(0), said, String::new())
        );
        let idle = run(monitor.arg("--quiet"));
        assert_eq!(
            (idle.code(), idle.stdout + &idle.stderr),
            (Some(0), String::new())
        );
    }
    let (refused, _) = check("", &["--server", "a"]);
    assert_eq!(refused.code(), Some(2));
    assert!(
        refused.stderr.contains("--server a: no such server"),
        "{}",
        refused.stderr
    );
}

#[test]
fn a_file_that_others_can_write_is_refused_as_root() {
    if !rig::is_root() {
        return rig::skip("only root is refused such a file");
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("m.toml");
    let checked = |mode: u32, owner: u32| {
        std::fs::write(&file, "").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        std::os::unix::fs::chown(&file, Some(owner), None).unwrap();
        let ran = run(Command::new(MONITOR).arg("--config").arg(&file));
        let _ = std::fs::remove_file(&file);
        ran
    };
    assert_eq!(checked(0o640, 0).code(), Some(0));
    for (mode, owner, why) in [
        (0o660, 0, "others can write it"),
        (0o646, 0, "others can write it"),
        (0o600, 65534, "it is not root's"),
    ] {
        let refused = checked(mode, owner);
        assert_eq!(refused.code(), Some(2), "{why}");
        assert!(refused.stderr.contains(why), "{}", refused.stderr);
    }
}

/// A configuration file with drop-ins, in a directory of its own.
struct DropIns {
    directory: tempfile::TempDir,
}

impl DropIns {
    fn new(main: &str, drop_ins: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("m.toml.d")).unwrap();
        let made = Self { directory };
        std::fs::write(made.file(), main).unwrap();
        for (name, text) in drop_ins {
            std::fs::write(made.drop_in(name), text).unwrap();
        }
        made
    }

    fn file(&self) -> String {
        self.directory.path().join("m.toml").display().to_string()
    }

    fn drop_in(&self, name: &str) -> String {
        format!("{}.d/{name}", self.file())
    }

    fn check(&self, arguments: &[&str]) -> Run {
        let mut monitor = Command::new(MONITOR);
        monitor.args([
            "--check-config",
            "--config",
            &self.file(),
            "--state-dir",
            "/state",
        ]);
        run(monitor.args(arguments))
    }
}

#[test]
fn a_later_drop_in_wins_and_each_value_names_its_file() {
    let made = DropIns::new(
        "timeout = 3\nretries = 1\nno-verify-ssl = true\n[server.a]\nurl = 'http://vm:1'\nrestart-cmd = 'true'\nretries = 2\n",
        &[
            (
                "20-b.toml",
                "timeout = 7\nca-cert = '/etc/ssl/certs/ca-certificates.crt'\n[server.b]\nurl = 'https://vm:2'\n",
            ),
            (
                "10-shared.toml",
                "timeout = 5\nretries = 4\nrestart-cmd = 'shared'\n",
            ),
            (".hidden.toml", "not toml"),
            ("30-old.toml~", "not toml"),
            ("README", "not toml"),
        ],
    );
    let checked = made.check(&[]);
    assert_eq!(checked.code(), Some(0), "{}", checked.stderr);
    let (a, b) = checked.stdout.split_once("\n\n").unwrap();
    assert!(
        a.starts_with("[server.a]") && b.starts_with("[server.b]"),
        "{a}{b}"
    );
    let (main, first, last) = (
        made.file(),
        made.drop_in("10-shared.toml"),
        made.drop_in("20-b.toml"),
    );
    for (server, line) in [
        (a, format!("timeout = 7  # {last}:1")),
        (a, format!("retries = 2  # {main}:7")),
        (a, format!("restart-cmd = \"true\"  # {main}:6")),
        (b, format!("restart-cmd = \"shared\"  # {first}:3")),
        (b, format!("retries = 4  # {first}:2")),
        (b, format!("url = \"https://vm:2\"  # {last}:4")),
        // The last of two keys that exclude each other.
        (b, "no-verify-ssl = false".to_owned()),
        (
            b,
            format!("ca-cert = \"/etc/ssl/certs/ca-certificates.crt\"  # {last}:2"),
        ),
        (b, "stop-timeout = 10".to_owned()),
    ] {
        assert!(server.lines().any(|one| one == line), "{line}: {server}");
    }
    let by_hand = made.check(&["--timeout", "1"]);
    assert_eq!(
        by_hand
            .stdout
            .matches("timeout = 1  # command line\n")
            .count(),
        2
    );
}

#[test]
fn mistakes_in_drop_ins_have_their_places_and_a_server_is_declared_once() {
    let server = |name: &str, port: u16| {
        format!("[server.{name}]\nurl = 'http://vm:{port}'\nrestart-cmd = 'true'\n")
    };
    let made = DropIns::new(
        &(server("a", 1) + &server("b", 2)),
        &[
            ("1.toml", &format!("\n{}", server("b", 3))),
            ("2.toml", &(server("c", 4) + "tiemout = 3\n")),
            ("3.toml", &(server("d", 5) + "user = 'no-such-user-here'\n")),
        ],
    );
    let checked = made.check(&[]);
    assert_eq!(checked.code(), Some(2));
    assert!(
        checked.stdout.starts_with("[server.a]"),
        "{}",
        checked.stdout
    );
    assert_eq!(
        checked.stdout.matches("[server.").count(),
        1,
        "{}",
        checked.stdout
    );
    let expected = [
        format!(
            "{}:2:9: server b: already declared in {}:4:9: a server is declared once",
            made.drop_in("1.toml"),
            made.file()
        ),
        format!(
            "{}:4:1: unknown key tiemout: the nearest valid key is timeout",
            made.drop_in("2.toml")
        ),
        format!(
            "{}:4:1: server d: user no-such-user-here: no such user",
            made.drop_in("3.toml")
        ),
    ]
    .map(|line| format!("monitor_myvnc: {line} (see monitor_myvnc.toml(5))\n"));
    assert_eq!(checked.stderr, expected.concat());

    // What is wrong outside of the servers' tables stops all, and all of it is said.
    std::fs::write(made.drop_in("2.toml"), "timeout =\n").unwrap();
    std::fs::write(made.file(), "retries = true\n").unwrap();
    let checked = made.check(&[]);
    assert_eq!((checked.code(), checked.stdout), (Some(2), String::new()));
    let lines: Vec<_> = checked.stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{}", checked.stderr);
    assert!(
        lines[0].contains("m.toml:1:1: retries: give a number"),
        "{}",
        lines[0]
    );
    assert!(lines[1].contains("2.toml:1:10: not TOML: "), "{}", lines[1]);
}

#[test]
fn servers_of_two_drop_ins_must_differ_too() {
    let made = DropIns::new(
        "restart-cmd = 'x'\n",
        &[
            ("a.toml", "[server.a]\nurl = 'http://vm'\n"),
            ("b.toml", "[server.b]\nurl = 'http://vm'\n"),
        ],
    );
    let checked = made.check(&[]);
    assert_eq!(checked.code(), Some(2));
    let expected = format!(
        "monitor_myvnc: {}: servers a and b cannot be told apart",
        made.drop_in("b.toml")
    );
    assert!(checked.stderr.starts_with(&expected), "{}", checked.stderr);
}

#[test]
fn verbs_read_drop_ins() {
    let made = DropIns::new(
        "state-dir = '/nowhere'\n[server.a]\nurl = 'http://vm:1'\n",
        &[
            (
                "1.toml",
                "state-dir = '/state'\n[server.c]\nurl = 'http://vm:3'\n",
            ),
            (
                "2.toml",
                "[server.b]\nurl = 'http://vm:2'\n[server.a]\nurl = 'http://vm:4'\n",
            ),
        ],
    );
    let mut monitor = Command::new(MONITOR);
    let named = run(monitor.args(["status", "--names", "--config", &made.file()]));
    assert_eq!(
        (named.stdout.as_str(), named.code()),
        ("a\nc\nb\n", Some(0)),
        "{}",
        named.stderr
    );
    std::fs::write(made.drop_in("2.toml"), "[server.b\n").unwrap();
    let mut monitor = Command::new(MONITOR);
    let refused = run(monitor.args(["status", "--config", &made.file()]));
    assert_eq!(refused.code(), Some(2), "{}", refused.stdout);
    let expected = format!("--config {}: not TOML", made.drop_in("2.toml"));
    assert!(refused.stderr.contains(&expected), "{}", refused.stderr);
}

#[test]
fn drop_ins_that_others_can_write_are_refused_as_root() {
    if !rig::is_root() {
        return rig::skip("only root is refused such a file");
    }
    let made = DropIns::new("", &[("a.toml", "")]);
    let directory = made.drop_in("");
    let changed = |path: &str, mode: u32, owner: u32| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        std::os::unix::fs::chown(path, Some(owner), None).unwrap();
    };
    assert_eq!(made.check(&[]).code(), Some(0));
    for (path, good) in [
        (directory.as_str(), 0o755),
        (&made.drop_in("a.toml"), 0o640),
    ] {
        for (mode, owner, why) in [
            (good | 0o020, 0, "others can write it"),
            (good | 0o002, 0, "others can write it"),
            (good, 65534, "it is not root's"),
        ] {
            changed(path, mode, owner);
            let refused = made.check(&[]);
            assert_eq!(refused.code(), Some(2), "{path}: {why}");
            let expected = format!("{}: {why}", path.trim_end_matches('/'));
            assert!(refused.stderr.contains(&expected), "{}", refused.stderr);
        }
        changed(path, good, 0);
    }
    std::fs::remove_file(made.drop_in("a.toml")).unwrap();
    std::fs::remove_dir(&directory).unwrap();
    std::fs::write(directory.trim_end_matches('/'), "").unwrap();
    let refused = made.check(&[]);
    assert!(
        refused.stderr.contains("m.toml.d: Not a directory"),
        "{}",
        refused.stderr
    );
}

/// A file with these sites' servers, told apart by port alone or by pattern.
fn configure(path: &Path, sites: &[(&str, &Site)], by_pattern: bool) {
    let mut text = "timeout = 3\n".to_owned();
    for (name, site) in sites {
        let mut settings = vec![
            format!("[server.{name}]"),
            format!("url = '{}'", site.url()),
            format!("restart-cmd = '{}'", site.manage("start")),
            format!("logfile = '{}'", site.path("monitor.log").display()),
            format!("state-dir = '{}'", site.path("state").display()),
        ];
        if by_pattern {
            settings.push(format!("process-pattern = '{}'", site.pattern()));
        }
        text += &(settings.join("\n") + "\n");
    }
    std::fs::write(path, text).unwrap();
}

#[test]
fn one_hung_server_delays_no_other_and_the_exit_status_is_the_worst() {
    in_private_namespace(|| {
        let sites = [Site::new(""), Site::new(""), Site::new("")];
        let [healthy, hung, dead] = &sites;
        let _running = healthy.start();
        let _hung = hung.start();
        let _client = hung.idle_client();
        let file = hung.path("m.toml");
        let named = [("healthy", healthy), ("hung", hung), ("dead", dead)];
        configure(&file, &named, true);
        let healed = run(Command::new(MONITOR).arg("--config").arg(&file));
        assert_eq!(healed.code(), Some(0), "{}{}", healed.stdout, healed.stderr);
        for site in [hung, dead] {
            assert!(
                site.log().contains("Server is now responsive"),
                "{}",
                site.log()
            );
            assert!(site.answers());
        }
        assert!(
            healthy.log().contains("✓ Server is healthy"),
            "{}",
            healthy.log()
        );
        assert!(healed.stdout.contains("\nhealthy: ["), "{}", healed.stdout);
        let at = |site: &Site, what: &str| {
            let log = site.log();
            let line = log.lines().find(|line| line.contains(what)).unwrap();
            line[1..20].to_owned()
        };
        assert!(
            at(dead, "Starting server") < at(hung, "✗ Server is unresponsive"),
            "the dead one waited for the hung one: {} {}",
            dead.log(),
            hung.log()
        );
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(dead.servers()[0]),
            nix::sys::signal::Signal::SIGKILL,
        )
        .unwrap();
        rig::wait_until("it is gone", || !dead.answers());
        std::fs::remove_file(dead.path("bin/python3")).unwrap();
        let failed = run(Command::new(MONITOR).arg("--config").arg(&file));
        assert_eq!(failed.code(), Some(1), "{}{}", failed.stdout, failed.stderr);
    });
}

#[test]
fn a_server_told_apart_by_its_port_alone_is_no_bystander_of_another() {
    in_private_namespace(|| {
        let sites = [
            Site::new(""),
            Site::new(""),
            Site::new("bind-after = 60000"),
        ];
        let [dead, hung, starting] = &sites;
        let _hung = hung.start();
        let _client = hung.idle_client();
        let not_yet = starting.spawn();
        let file = dead.path("m.toml");
        configure(&file, &[("dead", dead), ("hung", hung)], false);
        let healed = run(Command::new(MONITOR).arg("--config").arg(&file));
        assert_eq!(healed.code(), Some(0), "{}{}", healed.stdout, healed.stderr);
        assert!(
            dead.log().contains("No server process found"),
            "{}",
            dead.log()
        );
        assert!(
            hung.log().contains("Stopping server processes"),
            "{}",
            hung.log()
        );
        assert!(dead.answers() && hung.answers());
        assert!(not_yet.is_alive(), "{}{}", dead.log(), hung.log());
    });
}

#[test]
fn hazard_48_two_servers_of_one_user_are_doubtful() {
    let server = |name: &str, port: u16, more: &str| {
        format!(
            "[server.{name}]\nurl = 'http://127.0.0.1:{port}'\nrestart-cmd = '/opt/myvnc-{name}/manage.py restart'\n{more}\n"
        )
    };
    let doubt = "warning: servers a and b are started by manage.py and can have the same user";
    let both = server("a", 9143, "") + &server("b", 9144, "");
    let (checked, _) = check(&both, &[]);
    assert_eq!(checked.code(), Some(0), "{}", checked.stderr);
    assert!(checked.stderr.contains(doubt), "{}", checked.stderr);
    let by_systemd = both.replace(
        "/opt/myvnc-b/manage.py restart",
        "systemctl restart myvnc-b",
    );
    let (checked, _) = check(&by_systemd, &[]);
    assert!(!checked.stderr.contains(doubt), "{}", checked.stderr);
    let apart = server("a", 9143, "user = 'root'") + &server("b", 9144, "user = 'nobody'");
    let (checked, _) = check(&apart, &[]);
    assert!(!checked.stderr.contains(doubt), "{}", checked.stderr);
}

#[test]
fn hazard_48_two_running_servers_of_one_user_are_doubtful() {
    in_private_namespace(|| {
        let (one, two) = (Site::new(""), Site::new(""));
        let text = format!(
            "url = '{}'\nlogfile = '/l'\nrestart-cmd = '{}'\n",
            one.url(),
            one.manage("start")
        );
        let (_first, doubt) = (one.start(), "runs 2 MyVNC servers on this host");
        let (checked, _) = check(&text, &[]);
        assert!(
            !checked.stderr.contains("MyVNC servers"),
            "{}",
            checked.stderr
        );
        let _second = two.start();
        let (checked, _) = check(&text, &[]);
        assert_eq!(checked.code(), Some(0), "{}", checked.stderr);
        assert!(checked.stderr.contains(doubt), "{}", checked.stderr);
    });
}

#[test]
fn hazard_48_of_many_users_with_two_servers_20_are_named() {
    on_own_machine(MYVNC, |machine| {
        let look_alikes: Vec<_> = (5001..=5023)
            .flat_map(|user| [machine.look_alike(user, ""), machine.look_alike(user, "")])
            .collect();
        let mut monitor = machine.monitor();
        let checked = machine.run(monitor.arg("--check-config"));
        let errors = std::fs::read_to_string(machine.path("stderr")).unwrap();
        assert_eq!(checked.code(), Some(0), "{errors}");
        let named = errors
            .matches(" runs 2 MyVNC servers on this host (PIDs ")
            .count();
        assert_eq!(named, 20, "{errors}");
        let more = "warning: 3 more users run several MyVNC servers on this host";
        assert!(errors.contains(more), "{errors}");
        drop(look_alikes);
    });
}

#[test]
fn what_will_not_work_is_found_before_an_outage() {
    let text = "[server.a]\nurl = 'http://vm'\nrestart-cmd = 'sh /opt/myvnc/manage.py --config_dir=/etc/myvnc'\n\
        server-log = '/no-such-directory/*.log'\ndump-cmd = 'no-such-program-here {pid}'\nlisten = '127.0.0.1:80'\n\
        user = 'nobody'\nrun-as = 'root'\nstate-dir = '/proc/version/state'\n";
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("m.toml");
    std::fs::write(&file, text).unwrap();
    if !rig::is_root() {
        return rig::skip("only root can set run-as");
    }
    let checked = run(Command::new(MONITOR)
        .arg("--check-config")
        .arg("--config")
        .arg(&file));
    assert_eq!(checked.code(), Some(0), "{}", checked.stderr);
    for key in [
        "listen = \"127.0.0.1:80\"",
        "user = \"nobody\"",
        "run-as = \"root\"",
    ] {
        assert!(checked.stdout.contains(key), "{}", checked.stdout);
    }
    for doubt in [
        "warning: server a: The restart command cannot work: no verb follows manage.py",
        "warning: server a: dump-cmd cannot run: no-such-program-here: not found in PATH",
        "run-as (UID 0) differ",
        "warning: server a: the state directory /proc/version/state cannot be written",
        "warning: server a: server-log /no-such-directory/*.log matches no file",
    ] {
        assert!(
            checked.stderr.contains(doubt),
            "{doubt}: {}",
            checked.stderr
        );
    }
}

#[test]
fn the_address_in_a_notify_command_is_a_secret() {
    let checked = run(Command::new(MONITOR).args([
        "--check-config",
        "--url=http://vm",
        "--logfile=/tmp/m.log",
        "--restart-cmd=true",
        "--notify-cmd=WEBHOOK_URL=https://hooks.example.com/services/T0/B0/tr0ub4dor /usr/libexec/notify",
    ]));
    assert_eq!(checked.code(), Some(0), "{}", checked.stderr);
    let shown = "notify-cmd = \"WEBHOOK_URL=https://hooks.example.com/*** /usr/libexec/notify\"\n";
    assert!(checked.stdout.contains(shown), "{}", checked.stdout);
}

#[test]
fn a_metrics_directory_that_cannot_be_written_is_found_before_the_first_run() {
    let directory = tempfile::tempdir().unwrap();
    let check = |metrics: &Path| {
        let checked = run(Command::new(MONITOR)
            .args([
                "--check-config",
                "--url=http://vm",
                "--logfile=/tmp/m.log",
                "--restart-cmd=true",
            ])
            .arg("--metrics-dir")
            .arg(metrics)
            .arg("--state-dir")
            .arg(directory.path()));
        assert_eq!(checked.code(), Some(0), "{}", checked.stderr);
        checked.stderr
    };
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let missing = directory.path().join("missing");
    for (metrics, reason) in [
        (missing.as_path(), "No such file or directory"),
        (&file, "Not a directory"),
    ] {
        let expected = format!(
            "monitor_myvnc: warning: the metrics directory {} cannot be written: {reason}; create it and let the monitor write to it, or \
             give another metrics-dir\n",
            metrics.display()
        );
        assert_eq!(check(metrics), expected);
    }
    assert_eq!(check(directory.path()), "");
}

#[test]
fn a_healthy_run_warns_of_a_wrong_restart_command_once_a_day() {
    in_private_namespace(|| {
        let site = Site::new("");
        let _running = site.start();
        for _ in 0..3 {
            let mut monitor = site.monitor();
            let healthy = run(monitor.args(["--restart-cmd", "no-such-program-here"]));
            assert_eq!(healthy.code(), Some(0), "{}", site.log());
        }
        let said =
            "[WARNING] The restart command cannot work: no-such-program-here: not found in PATH";
        assert_eq!(site.log().matches(said).count(), 1, "{}", site.log());
    });
}
