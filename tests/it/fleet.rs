//! `examples/ansible` and `examples/icinga`: each file is read by the tool that it is for.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use chrono::Utc;
use regex_lite::Regex;
use tempfile::TempDir;

use crate::rig::{MONITOR, run, skip};

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
const ICINGA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/icinga");
/// What NRPE and Icinga run.
const CHECK: &str = "/usr/bin/monitor_myvnc status --nagios";

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(EXAMPLES).join(path)).unwrap()
}

/// The lines of a file that are no comment.
fn settings(path: &str) -> Vec<String> {
    let text = read(path);
    let lines = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}

/// Exit status and output of a tool in `examples/ansible`, or nothing where it is not installed.
fn ansible(program: &str, arguments: &[&str]) -> Option<(Option<i32>, String)> {
    let home = tempfile::tempdir().unwrap();
    let ran = Command::new(program)
        .args(arguments)
        .current_dir(Path::new(EXAMPLES).join("ansible"))
        .env("HOME", home.path())
        .env("ANSIBLE_HOME", home.path())
        .env("XDG_CACHE_HOME", home.path())
        .env("ANSIBLE_NOCOLOR", "1")
        .env("NO_COLOR", "1")
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .output();
    match ran {
        Ok(ran) => {
            let said = String::from_utf8([ran.stdout, ran.stderr].concat()).unwrap();
            Some((ran.status.code(), said))
        }
        Err(reason) if reason.kind() == std::io::ErrorKind::NotFound => {
            skip(&format!("{program} is not installed"));
            None
        }
        Err(reason) => panic!("{program}: {reason}"),
    }
}

#[test]
fn ansible_lint_has_nothing_to_say_about_the_role() {
    let lint = ["--offline", "--strict", "--profile", "production", "-q"];
    if let Some(said) = ansible("ansible-lint", &lint) {
        assert_eq!(said, (Some(0), String::new()));
    }
}

#[test]
fn ansible_reads_the_playbook() {
    let check = ["--inventory", "inventory.yml", "--syntax-check", "site.yml"];
    let Some((code, said)) = ansible("ansible-playbook", &check) else {
        return;
    };
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("WARNING"), "{said}");
}

/// The template's file for a host of the inventory, as the play renders it.
fn rendered(host: &str, extra: &str) -> Option<(TempDir, PathBuf)> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("m.toml");
    let playbook = directory.path().join("render.yml");
    let task = format!(
        "- hosts: {host}\n  gather_facts: false\n  vars_files: {EXAMPLES}/ansible/roles/monitor_myvnc/defaults/main.yml\n  \
         tasks:\n    - ansible.builtin.template:\n        \
         src: {EXAMPLES}/ansible/roles/monitor_myvnc/templates/monitor_myvnc.toml.j2\n        dest: {}\n        \
         mode: '0644'\n        validate: {MONITOR} --config %s --check-config\n",
        file.display()
    );
    fs::write(&playbook, task).unwrap();
    let arguments = [
        "--connection=local",
        "--inventory",
        "inventory.yml",
        "--extra-vars",
        extra,
        playbook.to_str().unwrap(),
    ];
    let (code, said) = ansible("ansible-playbook", &arguments)?;
    assert_eq!(code == Some(0), file.exists(), "{said}");
    assert!(code == Some(0) || said.contains("retries"), "{said}");
    Some((directory, file))
}

#[test]
fn the_template_renders_what_the_program_reads() {
    let hard = r#"{"monitor_myvnc_servers": {"main": {"url": "http://localhost:9143", "timeout": 2.5,
        "process-pattern": "^/opt/myvnc/main\\.py( |$)",
        "restart-cmd": "echo \"a\" 'b' \\c 🙂 # no comment"}}}"#;
    let Some((_directory, file)) = rendered("hpc-login2", hard) else {
        return;
    };
    let shown = run(Command::new(MONITOR)
        .arg("--check-config")
        .arg("--config")
        .arg(&file));
    assert_eq!(shown.code(), Some(0), "{}", shown.stderr);
    for line in [
        r#"restart-cmd = "echo \"a\" 'b' \\c 🙂 # no comment""#,
        r#"process-pattern = "^/opt/myvnc/main\\.py( |$)""#,
        "timeout = 2.5",
        "restart-policy = \"useful\"",
    ] {
        assert!(
            shown
                .stdout
                .lines()
                .any(|shown| shown.split("  # /").next() == Some(line)),
            "{line}: {}",
            shown.stdout
        );
    }
    let bad = r#"{"monitor_myvnc_settings": {"retries": "x"}}"#;
    let (_directory, file) = rendered("hpc-login2", bad).unwrap();
    assert!(!file.exists(), "retries = \"x\" was written");
}

#[test]
fn the_role_sets_what_the_sample_configuration_sets() {
    let sample = fs::read_to_string(format!("{EXAMPLES}/../packaging/monitor_myvnc.toml")).unwrap();
    let sample: BTreeSet<String> = sample
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.replace(" = ", ": ").replace('"', ""))
        .collect();
    for path in [
        "ansible/roles/monitor_myvnc/defaults/main.yml",
        "ansible/group_vars/myvnc.yml",
    ] {
        let text = read(path);
        let (_, below) = text.split_once("monitor_myvnc_settings:\n").unwrap();
        let set: BTreeSet<String> = below
            .lines()
            .map_while(|line| line.strip_prefix("  "))
            .filter(|line| !line.starts_with('#'))
            .map(str::to_owned)
            .collect();
        assert_eq!(set, sample, "{path}");
    }
}

#[test]
fn icinga_takes_the_definitions() {
    let program = ["/usr/sbin/icinga2", "/usr/lib/icinga2/sbin/icinga2"];
    let Some(program) = program.into_iter().find(|path| Path::new(path).exists()) else {
        skip("icinga2 is not installed");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let configuration = format!(
        "include <itl>\ninclude <plugins>\nconst PluginDir = \"/usr/lib/nagios/plugins\"\n\
         const NodeName = \"monitoring\"\n\
         object Endpoint \"monitoring\" {{ }}\n\
         object Zone \"monitoring\" {{ endpoints = [ \"monitoring\" ] }}\n\
         object Endpoint \"b\" {{ }}\n\
         object Zone \"b\" {{ endpoints = [ \"b\" ]; parent = \"monitoring\" }}\n\
         template Host \"any\" {{ check_command = \"dummy\"; address = \"127.0.0.1\"; zone = \"monitoring\" }}\n\
         object Host \"a\" {{ import \"any\"; vars.myvnc = \"nrpe\" }}\n\
         object Host \"b\" {{ import \"any\"; vars.myvnc = \"agent\" }}\n\
         object Host \"c\" {{ import \"any\" }}\n\
         include \"{ICINGA}/monitor_myvnc.conf\"\n"
    );
    fs::write(at("icinga2.conf"), configuration).unwrap();
    let owner = |flag| {
        let said = Command::new("id").arg(flag).output().unwrap().stdout;
        String::from_utf8(said).unwrap().trim().to_owned()
    };
    let mut command = Command::new(program);
    command.args(["daemon", "--validate", "--config", &at("icinga2.conf")]);
    for directory in ["Data", "Log", "Cache", "InitRun"] {
        fs::create_dir(at(directory)).unwrap();
        command.arg(format!("-D{directory}Dir={}", at(directory)));
    }
    command.arg(format!("-DRunAsUser={}", owner("-un")));
    command.arg(format!("-DRunAsGroup={}", owner("-gn")));
    let ran = run(&mut command);
    let said = ran.stdout.clone() + &ran.stderr;
    assert_eq!(ran.code(), Some(0), "{said}");
    for complaint in ["warning/", "critical/"] {
        assert!(!said.contains(complaint), "{said}");
    }
    assert!(said.contains("2 Services."), "one each of a and b: {said}");
}

#[test]
fn nrpe_icinga_and_sudo_name_the_same_command() {
    let with_sudo = format!("/usr/bin/sudo -n {CHECK}");
    assert_eq!(
        settings("icinga/nrpe.cfg"),
        [format!("command[check_myvnc]={with_sudo}")]
    );
    let words: Vec<_> = with_sudo.split(' ').map(|w| format!("\"{w}\"")).collect();
    let definitions = read("icinga/monitor_myvnc.conf");
    let command = format!("command = [ {} ]", words.join(", "));
    assert!(definitions.contains(&command), "{definitions}");
    assert!(definitions.contains("vars.nrpe_command = \"check_myvnc\""));
    let sudoers = settings("icinga/sudoers");
    let allowed = format!("nagios ALL = (root) NOPASSWD: {CHECK}");
    assert_eq!(sudoers.last(), Some(&allowed));
    // Arguments of the caller's could name a file that root alone may read.
    assert!(
        sudoers.iter().all(|line| !line.contains('*')),
        "{sudoers:?}"
    );
    let visudo = "/usr/sbin/visudo";
    if !Path::new(visudo).exists() {
        skip("visudo is not installed");
        return;
    }
    let ran = run(Command::new(visudo)
        .args(["--check", "--strict", "--file"])
        .arg(Path::new(ICINGA).join("sudoers")));
    assert_eq!(ran.code(), Some(0), "{}{}", ran.stdout, ran.stderr);
}

/// Whether it is a label with a value and its limits.
fn is_perfdata(word: &str) -> bool {
    // 'label'=value[unit];[warn];[crit];[min];[max], as the Monitoring Plugins Development Guidelines say.
    let number = r"-?[0-9]+(\.[0-9]+)?";
    let pattern =
        format!(r"^('[^'=]+'|[^'= ]+)={number}(s|us|ms|%|B|KB|MB|GB|TB|c)?(;({number})?){{0,4}}$");
    Regex::new(&pattern).unwrap().is_match(word)
}

#[test]
fn the_plugin_says_one_line_whose_perfdata_icinga_can_read() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let state = |phase: &str| {
        let now = Utc::now().to_rfc3339();
        let state = format!(
            r#"{{"format":1,"server":"main one","boot":"{}","phase":"{phase}","since":"{now}","url":"http://h:1"}}"#,
            boot.trim()
        );
        fs::write(at("h_1.json"), state).unwrap();
    };
    let line = || {
        let ran = run(Command::new(MONITOR)
            .args(["status", "--nagios", "--state-dir"])
            .arg(directory.path()));
        assert_eq!(ran.stdout.matches('\n').count(), 1, "{}", ran.stdout);
        assert_eq!(ran.stderr, "");
        (ran.code(), ran.stdout.trim_end().to_owned())
    };
    let (code, said) = line();
    assert_eq!(code, Some(3));
    assert!(said.starts_with("MYVNC UNKNOWN - "), "{said}");
    for (phase, last, expected, word) in [
        ("up", "ok 200 0.012 60 60", 0, "OK"),
        ("down", "down 0 0.001 60 60", 2, "CRITICAL"),
    ] {
        state(phase);
        fs::write(at("h_1.last"), format!("{last:39}\n")).unwrap();
        let (code, said) = line();
        assert_eq!(code, Some(expected), "{said}");
        assert!(said.starts_with(&format!("MYVNC {word} - ")), "{said}");
        let (_, data) = said.split_once(" | ").unwrap();
        // A blank within quotes separates nothing.
        let items = Regex::new(r"('[^']*'|[^ '])+").unwrap();
        let items: Vec<_> = items.find_iter(data).map(|item| item.as_str()).collect();
        assert!(items.len() >= 3, "{data}");
        for item in items {
            assert!(is_perfdata(item), "{item} of {data}");
        }
    }
}
