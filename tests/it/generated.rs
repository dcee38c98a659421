//! What the build generates is what is committed, and it works: manual pages, completions, jobs,
//! rotation and the sample configuration.
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::rig;
use crate::rig::{MONITOR, run};

const TREE: &str = env!("CARGO_MANIFEST_DIR");
const GENERATED: &str = concat!(env!("OUT_DIR"), "/generated");

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(TREE).join(path)).unwrap()
}

/// The files that the build generates, as paths in the tree.
fn generated() -> Vec<PathBuf> {
    let mut files = Vec::new();
    for directory in std::fs::read_dir(GENERATED).unwrap() {
        for file in std::fs::read_dir(directory.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            files.push(path.strip_prefix(GENERATED).unwrap().to_owned());
        }
    }
    files
}

/// The standard output of a program, or nothing where it is not installed.
fn output(program: &str, arguments: &[&str]) -> Option<(bool, String)> {
    let ran = Command::new(program)
        .args(arguments)
        .current_dir(TREE)
        .stdin(Stdio::null())
        .output();
    match ran {
        Ok(ran) => {
            let said = [ran.stdout, ran.stderr].concat();
            Some((ran.status.success(), String::from_utf8(said).unwrap()))
        }
        Err(reason) if reason.kind() == std::io::ErrorKind::NotFound => {
            rig::skip(&format!("{program} is not installed"));
            None
        }
        Err(reason) => panic!("{program}: {reason}"),
    }
}

fn options() -> Vec<String> {
    let help = run(Command::new(MONITOR).arg("--help")).stdout;
    let options = help.lines().filter_map(|line| {
        let line = line.trim_start();
        let line = line.split_once(", ").map_or(
            line,
            |(short, long)| {
                if short.len() == 2 { long } else { line }
            },
        );
        let name = line.strip_prefix("--")?.split([' ', '\n']).next()?;
        Some(name.to_owned())
    });
    let options: Vec<_> = options.collect();
    assert!(options.len() >= 21, "{options:?}");
    options
}

#[test]
fn what_is_committed_is_what_the_build_writes() {
    let files = generated();
    assert!(files.len() >= 10, "{files:?}");
    let is_clone = Path::new(TREE).join(".git").exists();
    for path in files {
        let written = std::fs::read_to_string(Path::new(GENERATED).join(&path)).unwrap();
        let path = path.to_str().unwrap();
        assert!(read(path) == written, "{path} is not what the build writes");
        if is_clone {
            let (_, staged) = output("git", &["show", &format!(":{path}")]).unwrap();
            assert!(
                staged == written,
                "{path} is not what the build writes: git add it"
            );
        }
    }
}

/// Keys that the sample configuration sets.
const SET: [&str; 6] = [
    "restart-policy",
    "max-restarts",
    "start-grace",
    "unwedge",
    "journal",
    "cert-warn-days",
];

#[test]
fn every_option_is_in_manual_completions_and_sample_configuration() {
    let (manual, keys) = (
        read("man/monitor_myvnc.1"),
        read("man/monitor_myvnc.toml.5"),
    );
    let sample = read("packaging/monitor_myvnc.toml");
    for option in options() {
        let escaped = option.replace('-', "\\-");
        assert!(manual.contains(&format!("\\-\\-{escaped}\\fR")), "{option}");
        for script in ["monitor_myvnc.bash", "_monitor_myvnc"] {
            let script = read(&format!("completions/{script}"));
            assert!(script.contains(&format!("--{option}")), "{option}");
        }
        let fish = read("completions/monitor_myvnc.fish");
        assert!(fish.contains(&format!("-l {option} ")), "{option}");
        let not_keys = "config server check-config collect-diagnostics dry-run help version";
        if not_keys.split(' ').any(|name| name == option) {
            continue;
        }
        let is_set = SET.contains(&option.as_str());
        let comment = if is_set { "" } else { "#" };
        assert!(
            sample.contains(&format!("\n{comment}{option} = ")),
            "{option}"
        );
        assert!(keys.contains(&format!("\\fB{escaped}\\fR (")), "{option}");
    }
}

#[test]
fn every_part_of_the_manual_is_filled_in() {
    let part = regex_lite::Regex::new(r"\{[A-Z_]+\}").unwrap();
    for page in ["man/monitor_myvnc.1", "man/monitor_myvnc.toml.5"] {
        let text = read(page);
        let left = part.find(&text).map(|found| found.as_str());
        assert_eq!(left, None, "{page}");
    }
}

#[test]
fn mandoc_has_nothing_to_say() {
    for page in ["man/monitor_myvnc.1", "man/monitor_myvnc.toml.5"] {
        if let Some((_, said)) = output("mandoc", &["-Tlint", page]) {
            assert_eq!(said, "", "{page}");
        }
    }
}

#[test]
fn the_manual_fits_80_columns() {
    for page in ["man/monitor_myvnc.1", "man/monitor_myvnc.toml.5"] {
        let Some((_, text)) = output("mandoc", &["-Tutf8", "-Owidth=80", page]) else {
            return;
        };
        // Bold is a letter, a backspace and the letter again.
        for line in text.lines() {
            let struck = line.matches('\u{8}').count();
            let width = line.chars().count() - 2 * struck;
            let is_crontab = line.contains("* * * * *");
            assert!(width <= 80 || is_crontab, "{page}: {line}");
        }
    }
}

/// A page's source as its text, without fonts and escapes.
fn unescaped(page: &str) -> String {
    [
        (r"\-", "-"),
        (r"\fB", ""),
        (r"\fR", ""),
        (r"\&", ""),
        (r"\*(Aq", "'"),
    ]
    .iter()
    .fold(read(page), |text, (escape, plain)| {
        text.replace(escape, plain)
    })
}

/// All that the program can say, each literal on one line.
fn sources() -> String {
    fn collect(directory: &Path, text: &mut String) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, text);
            } else {
                text.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut text = String::new();
    collect(&Path::new(TREE).join("src"), &mut text);
    let joined = regex_lite::Regex::new(r"\\\n\s*").unwrap();
    joined.replace_all(&text, "").into_owned()
}

#[test]
fn every_diagnostic_is_a_message_of_the_program() {
    let sources = sources();
    // An upper-case word stands for what differs.
    let differs =
        regex_lite::Regex::new(r"\[PID, \.\.\.\]|PID N \(COMMAND\)|\bNs\b|\b[A-Z]+\b").unwrap();
    for page in ["man/monitor_myvnc.1", "man/monitor_myvnc.toml.5"] {
        let text = unescaped(page);
        let (_, section) = text.split_once(".SH DIAGNOSTICS\n").unwrap();
        let (section, _) = section.split_once(".SH ").unwrap();
        let lines: Vec<&str> = section.lines().collect();
        let terms = lines
            .windows(2)
            .filter(|pair| matches!(pair[0], ".TP" | ".TQ"));
        for term in terms.map(|pair| pair[1]) {
            // The explanation stands behind what is left of a term that is wrapped.
            assert!(term.chars().count() <= 70, "{page}: {term}");
            // The system's word, and what is put together of two messages.
            let term = term
                .replace(": Connection refused", "")
                .replace("SSL certificate error: ", "")
                .replace("The restart command was", "was");
            for said in differs.split(&term) {
                let said = said.trim_matches(|c: char| !c.is_alphanumeric());
                assert!(sources.contains(said), "{page}: {said}, of {term}");
            }
        }
    }
}

#[test]
fn every_complaint_of_a_run_is_in_the_manual() {
    let manual = unescaped("man/monitor_myvnc.1").replace('\n', " ");
    let complaint = regex_lite::Regex::new(
        r#"journal\s*\.(?:warning|error|critical)\((?:&format!\()?\s*"([^"{]{4,})["{]"#,
    )
    .unwrap();
    let sources = sources();
    let complaints: Vec<_> = complaint
        .captures_iter(&sources)
        .map(|found| found.get(1).unwrap().as_str().trim_end())
        .filter(|said| !["warning", "error", "critical", "lost"].contains(said))
        .collect();
    assert!(complaints.len() >= 20, "{complaints:?}");
    for said in complaints {
        assert!(manual.contains(said), "{said}");
    }
}

#[test]
fn the_completion_for_bash_completes_options_files_and_users() {
    let complete = |words: &str| {
        let script = format!(
            "source completions/monitor_myvnc.bash; COMP_WORDS=(monitor_myvnc {words}); \
             COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); compopt() {{ :; }}; \
             _monitor_myvnc monitor_myvnc \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        output("bash", &["-c", &script]).map(|(_, said)| said)
    };
    for (words, expected) in [
        ("--st", "--stop-timeout\n--start-timeout\n--state-dir\n"),
        ("--check", "--check-config\n"),
        ("--user roo", "root\n"),
        ("--ca-cert /etc/passw", "/etc/passwd\n"),
        ("--config /etc/passw", "/etc/passwd\n"),
        ("--log-level cr", "critical\n"),
        // As bash splits --log-level=cr.
        ("--log-level = cr", "critical\n"),
        ("--user = roo", "root\n"),
        ("--user =", "root\n"),
        ("--run-as roo", "root\n"),
        ("--ca-cert = /etc/passw", "/etc/passwd\n"),
    ] {
        let Some(said) = complete(words) else { return };
        for line in expected.lines() {
            assert!(said.lines().any(|said| said == line), "{words}: {said}");
        }
    }
}

/// A state directory with one server, as its runs leave it.
fn state_of(name: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let state = format!("{{\"format\":1,\"server\":\"{name}\"}}\n");
    std::fs::write(directory.path().join("h_1.json"), state).unwrap();
    directory
}

#[test]
fn the_completions_know_the_verbs_and_the_servers() {
    let states = state_of("main");
    let states = states.path().to_str().unwrap();
    let program = Path::new(MONITOR).parent().unwrap().to_str().unwrap();
    let bash = |words: &str| {
        let script = format!(
            "PATH={program}:$PATH; source completions/monitor_myvnc.bash; COMP_WORDS=(monitor_myvnc {words}); \
             COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); compopt() {{ :; }}; \
             _monitor_myvnc monitor_myvnc \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        output("bash", &["-c", &script]).map(|(_, said)| said)
    };
    let fish = |words: &str| {
        let script = format!(
            "set PATH {program} $PATH; source completions/monitor_myvnc.fish; complete -C 'monitor_myvnc {words}'"
        );
        output("fish", &["--no-config", "-c", &script]).map(|(_, said)| said)
    };
    for (words, expected) in [
        ("inh".to_owned(), "inhibit"),
        ("pause --unt".to_owned(), "--until"),
        ("history --by ca".to_owned(), "cause"),
        (format!("status --state-dir {states} ma"), "main"),
        (format!("resume --state-dir {states} ma"), "main"),
        (format!("inhibit --state-dir {states} main -- tru"), "true"),
    ] {
        for said in [bash(&words), fish(&words)].into_iter().flatten() {
            let mut lines = said.lines();
            let is_found = lines.any(|line| line.split('\t').next() == Some(expected));
            assert!(is_found, "{words}: {said}");
        }
    }
    for script in ["monitor_myvnc.bash", "_monitor_myvnc", "monitor_myvnc.fish"] {
        let script = read(&format!("completions/{script}"));
        let asked = script.matches("--names").count() + script.matches("-l names").count();
        assert_eq!(asked, 1, "the option is for the scripts: {script}");
        assert!(script.contains("_monitor_myvnc_servers"), "{script}");
    }
}

/// What a shell completes after these words; in its working directory, which is the first argument.
fn completed(shell: &str, directory: &Path, program: &Path, words: &str) -> Option<String> {
    let (directory, program) = (directory.display(), program.display());
    let begin = format!("cd {directory}; PATH={program}:$PATH; source {TREE}/completions");
    let said = match shell {
        "bash" => {
            let script = format!(
                "{begin}/monitor_myvnc.bash; COMP_WORDS=(monitor_myvnc {words} ''); compopt() {{ :; }}; \
                 COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
                 _monitor_myvnc monitor_myvnc '' \"${{COMP_WORDS[-2]}}\"; printf '%s\n' \"${{COMPREPLY[@]}}\""
            );
            output("bash", &["-c", &script])
        }
        "zsh" => {
            // Without a terminal there is no compadd.
            let script = format!(
                "compdef() {{ :; }}; compadd() {{ print -rl -- \"${{(@P)2}}\"; }}; autoload -Uz _call_program; \
                 {begin}/_monitor_myvnc; LBUFFER='monitor_myvnc {words} '; _monitor_myvnc_servers"
            );
            output("zsh", &["-f", "-c", &script])
        }
        _ => {
            let script = format!(
                "cd {directory}; set PATH {program} $PATH; source {TREE}/completions/monitor_myvnc.fish; \
                 complete -C 'monitor_myvnc {words} '"
            );
            output("fish", &["--no-config", "-c", &script])
        }
    };
    said.map(|(_, said)| said)
}

#[test]
fn a_completion_runs_nothing_that_a_name_says() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let evil = "$(id >&2; touch made)`touch made`";
    let states = at("states");
    std::fs::create_dir(&states).unwrap();
    for (file, text) in [
        (format!("{evil}.json"), "{".to_owned()),
        ("h_1.json".to_owned(), format!("{{\"server\":\"{evil}\"}}")),
        ("h_2.json".to_owned(), "{\"server\":\"main\"}".to_owned()),
    ] {
        std::fs::write(states.join(file), text).unwrap();
    }
    let servers =
        ["main", "b c", evil].map(|name| format!("[server.'{name}']\nurl = 'http://h'\n"));
    std::fs::write(at("servers.toml"), servers.concat()).unwrap();
    // Whatever the program prints.
    let other = at("bin/monitor_myvnc");
    std::fs::create_dir(at("bin")).unwrap();
    std::fs::write(
        &other,
        format!("#!/bin/sh\nprintf '%s\\n' main 'b c' '{evil}'\n"),
    )
    .unwrap();
    std::fs::set_permissions(&other, PermissionsExt::from_mode(0o755)).unwrap();
    let program = Path::new(MONITOR).parent().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        for (program, words) in [
            (program, format!("status --state-dir {}", states.display())),
            (
                program,
                format!("resume --config {}", at("servers.toml").display()),
            ),
            (&at("bin"), "pause".to_owned()),
        ] {
            let Some(said) = completed(shell, directory.path(), program, &words) else {
                continue;
            };
            let has = |name: &str| {
                said.lines()
                    .any(|line| line.split('\t').next() == Some(name))
            };
            assert!(has("main"), "{shell}, {words}: {said}");
            assert!(
                !at("made").exists() && !said.contains("uid="),
                "{shell}, {words}: {said}"
            );
            if shell == "bash" {
                // It puts words into the command line as they are.
                assert!(!has(evil), "{words}: {said}");
                assert_eq!(has("b\\ c"), !words.contains("states"), "{words}: {said}");
            }
        }
    }
}

#[test]
fn the_manual_describes_each_verb_and_its_options() {
    let manual = unescaped("man/monitor_myvnc.1");
    let (_, commands) = manual.split_once("\n.SH COMMANDS\n").unwrap();
    let (commands, _) = commands.split_once("\n.SH ").unwrap();
    let help = run(Command::new(MONITOR).arg("--help")).stdout;
    for verb in ["status", "history", "report", "pause", "resume", "inhibit"] {
        assert!(help.contains(&format!("\n  {verb} ")), "{help}");
        let heading = format!(".SS \"monitor_myvnc {verb} ");
        let (_, section) = commands
            .split_once(&heading)
            .unwrap_or_else(|| panic!("{verb}"));
        let section = section.split("\n.SS ").next().unwrap();
        assert!(section.replace('\n', " ").contains("exit status"), "{verb}");
        let help = run(Command::new(MONITOR).args([verb, "--help"])).stdout;
        let options = help.lines().filter_map(|line| {
            let option = line.trim_start().strip_prefix("--")?;
            option.split(' ').next()
        });
        for option in options {
            let text = if ["config", "state-dir"].contains(&option) {
                commands
            } else {
                section
            };
            assert!(text.contains(&format!("\n--{option}")), "{verb} --{option}");
        }
    }
}

#[test]
fn the_completions_for_zsh_and_fish_are_sound() {
    let zsh = read("completions/_monitor_myvnc");
    assert!(
        zsh.contains("--user=[") && zsh.contains(":NAME:_users'"),
        "{zsh}"
    );
    let fish = read("completions/monitor_myvnc.fish");
    assert!(fish.contains("__fish_complete_users"), "{fish}");
    for (shell, script) in [("zsh", "_monitor_myvnc"), ("fish", "monitor_myvnc.fish")] {
        if let Some(said) = output(shell, &["-n", &format!("completions/{script}")]) {
            assert_eq!(said, (true, String::new()), "{shell}");
        }
    }
    let ask = "source completions/monitor_myvnc.fish; complete -C 'monitor_myvnc --check'";
    if let Some((_, said)) = output("fish", &["--no-config", "-c", ask]) {
        assert!(said.starts_with("--check-config\t"), "{said}");
    }
}

/// The line that cron runs, with another program in it.
fn cron_command(program: &Path) -> String {
    let job = read("cron.d/monitor_myvnc");
    let lines: Vec<_> = job
        .lines()
        .filter(|line| line.contains("* * * * *"))
        .collect();
    let [line] = lines[..] else { panic!("{job}") };
    let command = line.strip_prefix("* * * * * root ").unwrap();
    assert!(!command.contains('%'), "cron takes % for an end of line");
    command.replace("/usr/bin/monitor_myvnc", program.to_str().unwrap())
}

#[test]
fn the_cron_job_is_silent_without_the_program_and_without_a_server() {
    let directory = tempfile::tempdir().unwrap();
    let (absent, file) = (
        directory.path().join("gone"),
        directory.path().join("m.toml"),
    );
    let sh = |command: &str| {
        let ran =
            run(rig::with_bare_environment(&mut Command::new("/bin/sh")).args(["-c", command]));
        (ran.code(), ran.stdout + &ran.stderr)
    };
    assert_eq!(sh(&cron_command(&absent)), (Some(0), String::new()));
    std::fs::copy(Path::new(TREE).join("packaging/monitor_myvnc.toml"), &file).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let with_sample =
        cron_command(Path::new(MONITOR)).replace("/etc/monitor_myvnc.toml", file.to_str().unwrap());
    assert!(with_sample.contains("--quiet --config"), "{with_sample}");
    assert_eq!(sh(&with_sample), (Some(0), String::new()));
}

#[test]
fn the_cron_job_steps_aside_while_the_timer_runs() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let program = |name: &str, text: &str| {
        std::fs::write(at(name), text).unwrap();
        std::fs::set_permissions(at(name), std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    program("monitor", "#!/bin/sh\necho ran\n");
    std::fs::create_dir(at("systemd")).unwrap();
    let path = format!("{}:/usr/bin:/bin", directory.path().display());
    let command = cron_command(&at("monitor"))
        .replace("/run/systemd/system", at("systemd").to_str().unwrap());
    for (status, expected) in [(0, ""), (3, "ran\n")] {
        program(
            "systemctl",
            &format!(
                "#!/bin/sh\n[ \"$*\" = '--quiet is-active monitor_myvnc.timer' ] && exit {status}\necho \"$@\"\n"
            ),
        );
        let ran = run(Command::new("/bin/sh")
            .args(["-c", &command])
            .env("PATH", &path));
        assert_eq!((ran.code(), ran.stdout.as_str()), (Some(0), expected));
    }
}

#[test]
fn the_sample_configuration_is_commented_out_but_for_six_keys_and_its_defaults_are_true() {
    let sample = read("packaging/monitor_myvnc.toml");
    for line in sample.lines() {
        let is_set = SET.iter().any(|key| line.starts_with(&format!("{key} = ")));
        assert!(line.is_empty() || line.starts_with('#') || is_set, "{line}");
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("m.toml");
    let shown = |text: &str| {
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        let checked = run(Command::new(MONITOR)
            .arg("--check-config")
            .arg("--config")
            .arg(&file));
        assert_eq!(checked.code(), Some(0), "{}", checked.stderr);
        // Without the places of the values.
        let lines = checked.stdout.lines();
        let values = lines.filter_map(|line| line.split("  # ").next());
        values.collect::<Vec<_>>().join("\n")
    };
    let uncommented = |without: &[&str]| {
        let lines = sample
            .lines()
            .filter_map(|line| line.strip_prefix('#').filter(|line| !line.starts_with(' ')))
            .filter(|line| !without.iter().any(|key| line.starts_with(key)));
        lines.collect::<Vec<_>>().join("\n")
    };
    // Examples, where a key has no default; the file and the user are not there.
    let all = shown(&uncommented(&["ca-cert"]).replace("'myvnc'", "'root'"));
    for line in ["listen = \"127.0.0.1:9143\"", "run-as = \"root\""] {
        assert!(all.lines().any(|shown| shown == line), "{all}");
    }
    let examples = [
        "notify-cmd",
        "ping-url",
        "metrics-dir",
        "ca-cert",
        "listen",
        "user",
        "run-as",
        "server-log",
        "dump-cmd",
        "notify-cmd",
        "ping-url",
        "metrics-dir",
    ];
    let least = "state-dir = '/var/lib/monitor_myvnc'\n[server.main]\nurl = 'https://myvnc.example.com'\n\
        restart-cmd = '/opt/myvnc/manage.py --config_dir=/etc/myvnc start'\nprocess-pattern = '/opt/myvnc/main\\.py'\n";
    assert_eq!(shown(&uncommented(&examples)), shown(least));
}

/// The configuration of the rotation, for a directory in place of /var/log.
fn rotation(logs: &Path) -> PathBuf {
    let text = read("logrotate/monitor_myvnc").replace("/var/log", logs.to_str().unwrap());
    let file = logs.join("rotation");
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    file
}

/// logrotate on that configuration, for logs that it has last rotated long ago: it rotates a log that is new
/// to it the day after. None where it is not installed.
fn logrotate<'a>(file: &Path, names: impl Iterator<Item = &'a str>) -> Option<(bool, String)> {
    let state = file.with_file_name("state");
    let mut text = "logrotate state -- version 2\n".to_owned();
    for name in names {
        let log = file.with_file_name(name);
        let log = log.display().to_string();
        text.extend(["\"", &log, "\" 2026-1-1-0:0:0\n"]);
    }
    std::fs::write(&state, text).unwrap();
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o600)).unwrap();
    let arguments = ["--state", state.to_str().unwrap(), file.to_str().unwrap()];
    let program = ["/usr/sbin/logrotate", "logrotate"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    output(program.unwrap_or("logrotate"), &arguments)
}

#[test]
fn logrotate_turns_every_log_once_and_copies_what_a_server_holds_open() {
    let directory = tempfile::tempdir().unwrap();
    let logs = directory.path().canonicalize().unwrap();
    std::fs::create_dir(logs.join("monitor_myvnc")).unwrap();
    let file = rotation(&logs);
    let names = [
        "monitor_myvnc/main.log",
        "monitor_myvnc/main.restart.log",
        "monitor_myvnc/restart.log",
        "monitor_myvnc/a.b.log",
        "monitor_myvnc/20261124.log",
        "myvnc-monitor.log",
        "myvnc-monitor.restart.log",
        "myvnc-monitorart.log",
        "myvnc-monitor-test.log",
        "myvnc-monitor-test.restart.log",
        "myvnc-monitor-1.log",
        "myvnc-monitor-2.log",
        "myvnc-monitor-2.restart.log",
        "myvnc-monitor-21.log",
    ];
    let dated = [
        "myvnc-monitor-20261124.log",
        "myvnc-monitor-20261124.restart.log",
    ];
    let inode = |name: &str| std::fs::metadata(logs.join(name)).unwrap().ino();
    for name in names.iter().chain(&dated) {
        std::fs::write(logs.join(name), format!("{name}\n")).unwrap();
        std::fs::set_permissions(logs.join(name), std::fs::Permissions::from_mode(0o640)).unwrap();
    }
    let before = names.map(inode);
    let Some((turned, said)) = logrotate(&file, names.into_iter().chain(dated)) else {
        return;
    };
    assert!(turned && said.is_empty(), "{said}");
    for (name, before) in names.iter().zip(before) {
        let metadata = std::fs::metadata(logs.join(name)).unwrap();
        assert_eq!(
            (metadata.len(), metadata.mode() & 0o777, metadata.ino()),
            (0, 0o640, before),
            "{name}"
        );
        let old = logs.join(format!("{name}.1"));
        assert_eq!(std::fs::read_to_string(&old).unwrap(), format!("{name}\n"));
        assert_eq!(std::fs::metadata(&old).unwrap().mode() & 0o777, 0o640);
    }
    for name in dated {
        let text = std::fs::read_to_string(logs.join(name)).unwrap();
        assert_eq!(text, format!("{name}\n"), "a log of its day stays as it is");
        assert!(!logs.join(format!("{name}.1")).exists());
    }
}

#[test]
fn dated_logs_and_their_locks_are_removed_after_thirty_days() {
    let directory = tempfile::tempdir().unwrap();
    let logs = directory.path().canonicalize().unwrap();
    std::fs::create_dir(logs.join("monitor_myvnc")).unwrap();
    let file = rotation(&logs);
    let kept = |days: u64| {
        let names = [
            format!("myvnc-monitor-202611{days}.log"),
            format!("myvnc-monitor-202611{days}.restart.log"),
            format!(".myvnc-monitor-202611{days}.lock"),
        ];
        let age = std::time::Duration::from_secs(days * 24 * 3600);
        let written = std::time::SystemTime::now() - age;
        for name in &names {
            let file = std::fs::File::create(logs.join(name)).unwrap();
            file.set_len(1).unwrap();
            file.set_modified(written).unwrap();
        }
        names
    };
    let (new, old) = (kept(28), kept(32));
    let all = new.iter().chain(&old).map(String::as_str);
    let Some((turned, said)) = logrotate(&file, all) else {
        return;
    };
    assert!(turned && said.is_empty(), "{said}");
    let mut left: Vec<_> = std::fs::read_dir(&logs)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("-monitor-"))
        .collect();
    left.sort();
    let mut new = new.to_vec();
    new.sort();
    assert_eq!(left, new);
}

#[test]
fn systemd_takes_the_units() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let timer = read("systemd/monitor_myvnc.timer");
    let service = read("systemd/monitor_myvnc.service").replace("/usr/bin/monitor_myvnc", MONITOR);
    assert!(
        service.contains("\nKillMode=process\n"),
        "the server outlives the service"
    );
    std::fs::write(at("monitor_myvnc.timer"), timer).unwrap();
    // Its manual is installed with the package.
    let service: Vec<_> = service
        .lines()
        .filter(|line| !line.starts_with("Documentation"))
        .collect();
    std::fs::write(at("monitor_myvnc.service"), service.join("\n") + "\n").unwrap();
    let verify = [
        "verify",
        "--man=no",
        &at("monitor_myvnc.service"),
        &at("monitor_myvnc.timer"),
    ];
    if let Some((taken, said)) = output("systemd-analyze", &verify) {
        let ours: Vec<_> = said
            .lines()
            .filter(|line| line.contains("monitor_myvnc"))
            .collect();
        assert!(taken && ours.is_empty(), "{said}");
    }
}

#[test]
fn the_service_is_restricted_as_far_as_its_job_allows() {
    let service = Path::new(TREE).join("systemd/monitor_myvnc.service");
    // The threshold is in tenths.
    let arguments = [
        "security",
        "--offline=true",
        "--no-pager",
        "--threshold=70",
        service.to_str().unwrap(),
    ];
    let Some((is_at_most, said)) = output("systemd-analyze", &arguments) else {
        return;
    };
    if said.contains("unrecognized option") {
        return rig::skip("this systemd-analyze judges no file (systemd before 250)");
    }
    assert!(is_at_most, "{said}");
    assert!(said.contains("Overall exposure level"), "{said}");
    for needed in [
        "NoNewPrivileges",
        "PrivateTmp",
        "ProtectHome",
        "MemoryDenyWriteExecute",
    ] {
        let set = format!("\n{needed}=");
        assert!(
            !read("systemd/monitor_myvnc.service").contains(&set),
            "{needed}"
        );
    }
}
