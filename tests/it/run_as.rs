//! Who the restart command runs as, and what its start needs: another user, descriptors, processes.
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use crate::rig::refused::where_refused;
use crate::rig::{MONITOR, Run, Site, has_strace, is_root, run, skip, wait_for, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A user who is not in the machine's account database, but in the tests' own.
const USER: u32 = 3_141_592;
/// Primary group.
const GROUP: u32 = 3_141_593;

/// No program that starts the monitor.
const DIRECTLY: &[&str] = &[];

/// A site with an account database of its own, in which USER is `vnctest`, in three groups.
struct Accounts(Site);

impl Accounts {
    fn new() -> Option<Self> {
        if !is_root() {
            skip("only root can run a command as another user");
            return None;
        }
        let site = Site::new("");
        fs::set_permissions(site.path(""), fs::Permissions::from_mode(0o755)).unwrap();
        let passwd = format!(
            "root:x:0:0:root:/root:/bin/bash\nvnctest:x:{USER}:{GROUP}::/home/vnctest:/bin/sh\n"
        );
        let group = format!(
            "root:x:0:\nvnctest:x:{GROUP}:\nhpc:x:3141600:vnctest,other\nviz:x:3141601:vnctest\nno:x:3141602:other\n"
        );
        fs::write(site.path("passwd"), passwd).unwrap();
        fs::write(site.path("group"), group).unwrap();
        Some(Self(site))
    }

    /// The monitor among these accounts, started by `before`, in that directory, over a server that
    /// does not run.
    fn run(
        &self,
        before: &[impl AsRef<OsStr>],
        directory: &Path,
        command: &str,
        options: &[&str],
    ) -> Run {
        let site = &self.0;
        let mut monitor = site.bare_monitor();
        let mut script = Command::new("unshare");
        script
            .args(["--mount", "sh", "-c"])
            .arg("mount --bind \"$0/passwd\" /etc/passwd && mount --bind \"$0/group\" /etc/group && exec \"$@\"")
            .arg(site.path(""))
            .args(before)
            .arg(monitor.get_program())
            .args(monitor.get_args())
            .args(["--restart-cmd", command, "--process-pattern", &site.pattern()])
            .args(options)
            .current_dir(directory)
            .env_clear()
            .envs([("USER", "root"), ("LOGNAME", "root"), ("HOME", "/root")])
            .envs([("SHELL", "/bin/bash"), ("KEPT", "yes"), ("PATH", "/usr/bin:/bin:/usr/sbin")]);
        monitor.stdin(std::process::Stdio::null());
        run(&mut script)
    }

    fn output(&self) -> String {
        fs::read_to_string(self.0.path("monitor.restart.log")).unwrap_or_default()
    }
}

/// What a process says about itself.
const FACTS: &str = "id -u; id -g; id -G; pwd; grep -E '^(Uid|Gid|CapEff|Groups):' /proc/self/status | tr '\t' ' '; \
    env | grep -E '^(USER|LOGNAME|HOME|SHELL|KEPT)=' | sort; ls -l /proc/self/fd | wc -l; exit 3";

#[test]
fn hazard_45_run_as_changes_user_groups_and_environment_for_good() {
    let Some(accounts) = Accounts::new() else {
        return;
    };
    let site = accounts.0.path("");
    for name in ["vnctest", "3141592"] {
        fs::remove_file(accounts.0.path("monitor.restart.log")).unwrap_or_default();
        let ran = accounts.run(DIRECTLY, &site, FACTS, &["--run-as", name]);
        assert_eq!(ran.code(), Some(1), "{}", accounts.0.log());
        let output = accounts.output();
        let expected = format!(
            "{USER}\n{GROUP}\n{GROUP} 3141600 3141601\n{}\n\
             Uid: {USER} {USER} {USER} {USER}\nGid: {GROUP} {GROUP} {GROUP} {GROUP}\n\
             Groups: {GROUP} 3141600 3141601 \nCapEff: 0000000000000000\n\
             HOME=/home/vnctest\nKEPT=yes\nLOGNAME=vnctest\nSHELL=/bin/sh\nUSER=vnctest\n",
            site.to_str().unwrap().trim_end_matches('/')
        );
        assert!(output.starts_with(&expected), "{output}\n{expected}");
        let owner = fs::metadata(accounts.0.path("monitor.restart.log")).unwrap();
        assert_eq!((owner.uid(), owner.mode() & 0o777), (0, 0o640));
    }
}

#[test]
fn hazard_42_the_restart_command_cannot_read_what_earlier_ones_wrote() {
    let Some(accounts) = Accounts::new() else {
        return;
    };
    let options = ["--run-as", "vnctest"];
    let earlier = "an earlier restart";
    fs::write(accounts.0.path("monitor.restart.log"), earlier).unwrap();
    let command = "[ -z \"$(cat <&1 2>/dev/null)\" ] && echo unread; exit 3";
    accounts.run(DIRECTLY, Path::new("/"), command, &options);
    assert_eq!(accounts.output(), format!("{earlier}unread\n"));
    assert!(
        accounts.0.log().contains("Restart command: unread"),
        "{}",
        accounts.0.log()
    );
}

/// Starts what follows with that script in the place of getent(1), in a file of the site.
fn with_getent(accounts: &Accounts, script: &str) -> Vec<String> {
    with_file(
        accounts,
        "/usr/bin/getent",
        &format!("#!/bin/sh\n{script}\n"),
    )
}

/// Starts what follows with that order of the name services.
fn with_services(accounts: &Accounts, lines: &str) -> Vec<String> {
    with_file(accounts, "/etc/nsswitch.conf", &format!("{lines}\n"))
}

fn with_file(accounts: &Accounts, place: &str, text: &str) -> Vec<String> {
    let file = accounts.0.path(place.rsplit('/').next().unwrap());
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    let mount = "mount --bind \"$0\" \"$1\" && shift && exec \"$@\"";
    let file = file.to_str().unwrap();
    ["setpriv", "sh", "-c", mount, file, place]
        .map(str::to_owned)
        .to_vec()
}

#[test]
fn a_user_and_groups_that_only_the_name_services_know() {
    let Some(accounts) = Accounts::new() else {
        return;
    };
    // LDAP adds a group to those of a local account.
    let ldap = format!(
        "case $* in\n\
         'passwd ldapuser') echo 'ldapuser:*:{}:{GROUP}:x:/home/ldap:/sbin/nologin' ;;\n\
         'initgroups ldapuser') echo 'ldapuser    3141700' ;;\n\
         'passwd ad') echo 'ad@example.org:*:{}:{GROUP}::/home/ad:/bin/sh' ;;\n\
         'initgroups ad@example.org') echo 'ad@example.org 3141700' ;;\n\
         'initgroups vnctest') echo 'vnctest     3141600 3141700' ;;\n\
         *) exit 2 ;;\nesac",
        USER + 100,
        USER + 101
    );
    let before = with_getent(&accounts, &ldap);
    for (name, expected) in [
        (
            "ldapuser",
            format!(
                "{} {GROUP} 3141700 ldapuser /home/ldap /bin/sh\n",
                USER + 100
            ),
        ),
        // sssd can know a user by a longer name than the one that is asked for.
        (
            "ad",
            format!(
                "{} {GROUP} 3141700 ad@example.org /home/ad /bin/sh\n",
                USER + 101
            ),
        ),
        (
            "vnctest",
            format!("{USER} {GROUP} 3141600 3141700 vnctest /home/vnctest /bin/sh\n"),
        ),
    ] {
        fs::remove_file(accounts.0.path("monitor.restart.log")).unwrap_or_default();
        let command = "echo $(id -u) $(id -G) $USER $HOME $SHELL; exit 3";
        accounts.run(&before, Path::new("/"), command, &["--run-as", name]);
        assert_eq!(accounts.output(), expected, "{}", accounts.0.log());
    }
}

#[test]
fn a_user_who_writes_lines_into_an_account_becomes_nobody_else() {
    let Some(accounts) = Accounts::new() else {
        return;
    };
    // A comment of LDAP (gecos), which its user may change, with a line break in it.
    let uid = USER + 100;
    let ldap = format!(
        "[ \"$1\" = passwd ] || exit 2\n\
         printf '%s\\n' 'ldapuser:*:{uid}:{GROUP}:x' 'ldapuser:*:{uid}:0::/:/bin/sh' ':/home/ldap:/bin/sh'"
    );
    let before = with_getent(&accounts, &ldap);
    let options = ["--run-as", "ldapuser"];
    let refused = accounts.run(&before, Path::new("/"), "id", &options);
    assert_eq!(refused.code(), Some(2), "{}", accounts.output());
    assert!(
        refused.stderr.contains("ldapuser: no such user"),
        "{}",
        refused.stderr
    );
}

#[test]
fn what_the_name_services_complain_of_is_no_answer() {
    let Some(accounts) = Accounts::new() else {
        return;
    };
    let complains = "echo 'nss_x: 7 of 8 servers do not answer' >&2\n\
                     [ \"$1\" = initgroups ] || exit 2\n\
                     echo 'vnctest     3141600 3141700'\n\
                     echo 'nss_x: tried 0 again' >&2";
    let before = with_getent(&accounts, complains);
    let options = ["--run-as", "vnctest"];
    accounts.run(&before, Path::new("/"), "id -G; exit 3", &options);
    let expected = format!("{GROUP} 3141600 3141700\n");
    assert_eq!(accounts.output(), expected, "{}", accounts.0.log());
}

#[test]
fn where_the_name_services_do_not_answer_nothing_is_run() {
    let Some(accounts) = Accounts::new() else {
        return;
    };
    let before = with_getent(&accounts, "exec sleep 77");
    let run_as = |name| accounts.run(&before, Path::new("/"), "id", &["--run-as", name]);
    let refused = run_as("ldapuser");
    assert_eq!(refused.code(), Some(2));
    let reason = "--run-as ldapuser: the name services did not answer within 5 seconds";
    assert!(refused.stderr.contains(reason), "{}", refused.stderr);
    // A local account, whose groups nobody tells.
    assert_eq!(run_as("vnctest").code(), Some(1));
    let reason = "The restart command could not be started: the groups of vnctest: the name services did not answer \
                  within 5 seconds";
    assert!(accounts.0.log().contains(reason), "{}", accounts.0.log());
    assert_eq!(accounts.output(), "");
}

#[test]
fn an_account_is_that_of_the_service_that_comes_first() {
    let Some(accounts) = Accounts::new() else {
        return;
    };
    let group = GROUP + 100;
    let ldap = format!(
        "echo \"$*\" >>{}\ncase $* in\n\
         'passwd vnctest') echo 'vnctest:*:{USER}:{group}:x:/home/ldap:/bin/sh' ;;\n\
         'initgroups vnctest') echo 'vnctest   ' ;;\n\
         *) exit 2 ;;\nesac",
        accounts.0.path("asked").display()
    );
    let asked = || fs::read_to_string(accounts.0.path("asked")).unwrap_or_default();
    for (services, gid, home) in [
        ("passwd: files ldap", GROUP, "/home/vnctest"),
        ("group: files", GROUP, "/home/vnctest"),
        ("passwd: ldap files", group, "/home/ldap"),
    ] {
        fs::remove_file(accounts.0.path("monitor.restart.log")).unwrap_or_default();
        let before = [
            with_getent(&accounts, &ldap),
            with_services(&accounts, services),
        ]
        .concat();
        let command = "echo $(id -u) $(id -g) $HOME; exit 3";
        let options = ["--run-as", "vnctest"];
        accounts.run(&before, Path::new("/"), command, &options);
        let expected = format!("{USER} {gid} {home}\n");
        assert_eq!(accounts.output(), expected, "{}", accounts.0.log());
    }
    // Root's account is local on every machine.
    assert!(!asked().contains("passwd root") && !asked().contains("passwd 0"));
}

#[test]
fn where_the_first_service_does_not_know_an_account_the_local_one_counts() {
    let Some(accounts) = Accounts::new() else {
        return;
    };
    let down = "[ \"$1\" = initgroups ] || exit 2\necho \"$2\"";
    let before = [
        with_getent(&accounts, down),
        with_services(&accounts, "passwd: ldap files"),
    ]
    .concat();
    let options = ["--run-as", "vnctest"];
    accounts.run(&before, Path::new("/"), "id -u; exit 3", &options);
    assert_eq!(
        accounts.output(),
        format!("{USER}\n"),
        "{}",
        accounts.0.log()
    );
}

#[test]
fn a_user_whose_service_may_be_down_is_not_said_to_be_none() {
    let Some(accounts) = Accounts::new() else {
        return;
    };
    for (services, reason) in [
        ("passwd: files systemd", "no such user"),
        (
            "passwd: files ldap",
            "the name services know no such user, or one of them is down",
        ),
    ] {
        let before = with_services(&accounts, services);
        for option in ["--run-as", "--user"] {
            let options = [option, "no-such-user-here"];
            let refused = accounts.run(&before, Path::new("/"), "id", &options);
            assert_eq!(refused.code(), Some(2));
            let expected = format!("{option} no-such-user-here: {reason}");
            assert!(refused.stderr.contains(&expected), "{}", refused.stderr);
        }
    }
}

#[test]
fn without_groups_nothing_is_run() {
    let Some(accounts) = Accounts::new() else {
        return;
    };
    for answer in ["exit 2", "echo nss_x: no", "exit 0"] {
        let before = with_getent(&accounts, answer);
        let options = ["--run-as", "vnctest"];
        let ran = accounts.run(&before, Path::new("/"), "id", &options);
        assert_eq!(ran.code(), Some(1), "{answer}");
        let reason =
            "could not be started: the groups of vnctest: the name services know no such user";
        assert!(accounts.0.log().contains(reason), "{}", accounts.0.log());
        assert_eq!(accounts.output(), "", "{answer}");
    }
}

#[test]
fn a_service_that_does_not_answer_is_waited_for_once_and_not_for_each_server() {
    let Some(accounts) = Accounts::new() else {
        return;
    };
    let asked = accounts.0.path("asked");
    let hangs = format!("echo x >>{}\nexec sleep 77", asked.display());
    let before = with_getent(&accounts, &hangs);
    let servers = [1, 2, 3, 4, 5].map(|n| format!("[server.s{n}]\nrun-as = 'ldap{n}'\n"));
    let config = accounts.0.path("m.toml");
    fs::write(&config, servers.concat()).unwrap();
    let options = ["--config", config.to_str().unwrap(), "--check-config"];
    let refused = accounts.run(&before, Path::new("/"), "id", &options);
    let reason = "the name services did not answer within 5 seconds";
    let said = format!("{}{}", refused.stdout, refused.stderr);
    assert_eq!(said.matches(reason).count(), 5, "{said}");
    assert_eq!(fs::read_to_string(asked).unwrap(), "x\n");
}

#[test]
fn a_directory_that_the_user_cannot_enter_is_left() {
    let Some(accounts) = Accounts::new() else {
        return;
    };
    let closed = accounts.0.path("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    let command = "echo \"in $(pwd)\"; exit 3";
    accounts.run(DIRECTLY, &closed, command, &["--run-as", "vnctest"]);
    assert_eq!(accounts.output(), "in /\n");
    chown(&closed, Some(USER), None).unwrap();
    accounts.run(DIRECTLY, &closed, command, &["--run-as", "vnctest"]);
    assert_eq!(
        accounts.output(),
        format!("in /\nin {}\n", closed.display())
    );
}

#[test]
fn root_run_as_root_changes_nothing() {
    let Some(accounts) = Accounts::new() else {
        return;
    };
    let command = "id -u; echo $USER $HOME $SHELL; exit 3";
    accounts.run(DIRECTLY, Path::new("/"), command, &["--run-as", "root"]);
    assert_eq!(accounts.output(), "0\nroot /root /bin/bash\n");
}

#[test]
fn a_command_that_could_become_root_again_is_not_run() {
    let Some(accounts) = Accounts::new() else {
        return;
    };
    let before = ["setpriv", "--securebits", "+no_setuid_fixup"];
    let ran = accounts.run(&before, Path::new("/"), "id -u", &["--run-as", "vnctest"]);
    let log = accounts.0.log();
    assert_eq!(ran.code(), Some(1), "{log}{}", ran.stderr);
    assert_eq!(accounts.output(), "", "{log}");
    assert!(
        log.contains("setuid(0) was allowed after the change of user, so nothing was run"),
        "{log}"
    );
}

#[test]
fn where_the_user_cannot_be_changed_nothing_is_run() {
    let Some(accounts) = Accounts::new() else {
        return;
    };
    for missing in ["-setuid", "-setgid"] {
        let before = ["setpriv", "--bounding-set", missing, "--inh-caps", missing];
        let ran = accounts.run(&before, Path::new("/"), "id -u", &["--run-as", "vnctest"]);
        let log = accounts.0.log();
        assert_eq!(ran.code(), Some(1), "{missing}: {log}{}", ran.stderr);
        assert_eq!(accounts.output(), "", "{missing}: {log}");
        assert!(
            log.contains("Cannot run the restart command: Operation not permitted"),
            "{log}"
        );
    }
}

#[test]
fn an_unknown_user_is_a_usage_error_and_so_is_another_for_who_is_not_root() {
    let site = Site::new("");
    let ran = run(site.monitor().args(["--run-as", "no-such-user-here"]));
    assert_eq!(ran.code(), Some(2));
    assert!(
        ran.stderr
            .contains("--run-as no-such-user-here: no such user"),
        "{}",
        ran.stderr
    );
    assert!(!site.path("monitor.log").exists());
    if !is_root() {
        return skip("the rest needs another user to start as");
    }
    let program = site.reachable_copy(Path::new(MONITOR));
    for (name, expected) in [("root", Some(2)), ("nobody", Some(1))] {
        use std::os::unix::process::CommandExt;
        let mut monitor = site.bare_monitor_at(&program);
        monitor.args([
            "--restart-cmd",
            "false",
            "--process-pattern",
            &site.pattern(),
        ]);
        let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
        monitor.uid(nobody.uid.as_raw()).gid(nobody.gid.as_raw());
        let ran = run(monitor.args(["--run-as", name]));
        assert_eq!(ran.code(), expected, "{}", ran.stderr);
        let refused = "only root can run the restart command as another user";
        assert_eq!(
            ran.stderr.contains(refused),
            name == "root",
            "{}",
            ran.stderr
        );
    }
}

/// Runs the monitor over a server that does not run, with one `clone` of its main thread refused.
fn with_clone_refused(site: &Site, number: u32) -> Run {
    let monitor = site.monitor();
    let mut strace = Command::new("strace");
    strace
        .args(["-qq", "-o", "/dev/null", "-e"])
        .arg(format!(
            "inject=clone,clone3,?fork,?vfork:error=EAGAIN:when={number}"
        ))
        .arg(monitor.get_program())
        .args(monitor.get_args())
        .args(["--start-timeout", "60"]);
    run(&mut strace)
}

#[test]
fn hazard_34_a_start_that_fails_for_lack_of_a_process_is_tried_again() {
    if !has_strace() {
        return skip("strace is not installed");
    }
    let retried = "Cannot run the restart command: Resource temporarily unavailable; next attempt in 1 second";
    for number in 1..20 {
        let site = Site::new("");
        let ran = with_clone_refused(&site, number);
        if ran.stderr.contains("ptrace") && site.log().is_empty() {
            return skip("no process can be traced here");
        }
        assert_eq!(ran.code(), Some(0), "clone {number}: {}", site.log());
        assert!(site.answers(), "clone {number}");
        assert_eq!(
            site.pids("manage").len(),
            1,
            "clone {number}: {}",
            site.log()
        );
        if site.log().contains(retried) {
            return;
        }
    }
    panic!("no run was refused its start");
}

/// Which call of the monitor asks for groups, by starting getent(1), in this record of strace(1): its name, and its count among those of that name.
fn start_of_question(record: &str) -> (String, usize) {
    let lines = record.lines().filter_map(|line| line.split_once(' '));
    let lines: Vec<_> = lines.map(|(pid, call)| (pid, call.trim_start())).collect();
    let who_ran = |words: &str| {
        let mut ran = lines
            .iter()
            .filter(|(_, call)| call.starts_with("execve(") && call.contains(words));
        ran.next_back().unwrap().0
    };
    let (monitor, getent) = (who_ran(MONITOR), who_ran("\"initgroups\""));
    let own = lines.iter().filter(|(pid, _)| *pid == monitor);
    let starts: Vec<_> = own
        .filter_map(|(_, call)| {
            let (name, rest) = call.split_once('(')?;
            let (_, child) = rest.rsplit_once("= ")?;
            (name != "execve").then_some((name, child))
        })
        .collect();
    let at = starts
        .iter()
        .position(|(_, child)| *child == getent)
        .unwrap();
    let name = starts[at].0;
    let before = starts[..at].iter().filter(|(other, _)| *other == name);
    (name.to_owned(), before.count() + 1)
}

#[test]
fn hazard_34_groups_that_cannot_be_asked_for_are_asked_for_until_the_start_has_no_time_left() {
    let Some(accounts) = Accounts::new() else {
        return;
    };
    if !has_strace() {
        return skip("strace is not installed");
    }
    let record = accounts.0.path("record");
    let run = |inject: &str, limit| {
        for name in ["monitor.log", "monitor.restart.log"] {
            fs::remove_file(accounts.0.path(name)).unwrap_or_default();
        }
        fs::remove_dir_all(accounts.0.path("state")).unwrap_or_default();
        let strace = [
            "strace",
            "-f",
            "-qq",
            "-e",
            inject,
            "-o",
            record.to_str().unwrap(),
        ];
        let options = ["--run-as", "vnctest", "--start-timeout", limit];
        accounts.run(&strace, Path::new("/"), "id -u; exit 3", &options)
    };
    let ran = run("trace=clone,clone3,?fork,?vfork,execve", "60");
    if ran.stderr.contains("ptrace") && accounts.0.log().is_empty() {
        return skip("no process can be traced here");
    }
    let (call, first) = start_of_question(&fs::read_to_string(&record).unwrap());
    // Other runs have some calls less; what was to be read in a process is read without one then.
    let first = first.saturating_sub(3).max(1);
    let again = "Cannot look up the restart command's user: cannot run /usr/bin/getent: Resource temporarily unavailable; \
                 next attempt in 1 second";
    let missing = "could not be started: the groups of vnctest: cannot run /usr/bin/getent: Resource temporarily unavailable";
    for (refused, limit, output, expected) in [
        (
            format!("{first}..{}", first + 5),
            "60",
            format!("{USER}\n"),
            again,
        ),
        (format!("{first}+"), "0.5", String::new(), missing),
    ] {
        let ran = run(&format!("inject={call}:error=EAGAIN:when={refused}"), limit);
        assert_eq!(ran.code(), Some(1));
        let log = accounts.0.log();
        assert!(log.contains(expected), "{log}");
        assert_eq!(accounts.output(), output, "{log}");
    }
}

/// The monitor under a limit of descriptors, one of them inherited as from `flock(1)`, over a server that hangs.
fn under_limit(site: &Site, limit: u32) -> Run {
    let monitor = site.monitor();
    let mut limited = Command::new("bash");
    limited
        .args([
            "-c",
            "exec 9</dev/null; exec 10<&-; ulimit -n \"$0\"; exec \"$@\"",
            &limit.to_string(),
        ])
        .arg(monitor.get_program())
        .args(monitor.get_args())
        .args(["--timeout", "0.5"]);
    run(&mut limited)
}

#[test]
fn hazard_33_sixteen_descriptors_are_enough() {
    for limit in [16, 17, 20] {
        let site = Site::new("");
        let server = site.start();
        let _client = site.idle_client();
        let ran = under_limit(&site, limit);
        assert_eq!(ran.code(), Some(0), "{limit}: {}{}", site.log(), ran.stderr);
        assert!(!server.is_alive());
        assert!(site.answers(), "{limit}");
    }
}

#[test]
fn hazard_33_sixteen_descriptors_are_enough_for_another_user() {
    let Some(accounts) = Accounts::new() else {
        return;
    };
    let limited = [
        "bash",
        "-c",
        "exec 9</dev/null; ulimit -n 16; exec \"$@\"",
        "bash",
    ];
    let options = ["--run-as", "vnctest"];
    accounts.run(&limited, Path::new("/"), "id -u; exit 3", &options);
    let expected = format!("{USER}\n");
    assert_eq!(accounts.output(), expected, "{}", accounts.0.log());
}

#[test]
fn hazard_33_with_fewer_descriptors_the_run_ends_without_a_panic() {
    for limit in 3..16 {
        let site = Site::new("");
        let ran = under_limit(&site, limit);
        assert!(matches!(ran.code(), Some(0 | 1 | 127)), "{limit}: {ran:?}");
        assert!(!ran.stderr.contains("panic"), "{limit}: {ran:?}");
    }
}

#[test]
fn hazard_33_with_fewer_descriptors_the_server_is_left_as_it_was() {
    for limit in 3..16 {
        let site = Site::new("");
        let server = site.start();
        let _client = site.idle_client();
        let ran = under_limit(&site, limit);
        let is_healed = ran.code() == Some(0) && site.answers();
        let is_as_it_was = server.is_alive() && !site.log().contains("Sent SIG");
        assert!(is_healed || is_as_it_was, "{limit}: {}", site.log());
    }
}

#[test]
fn the_restart_command_has_no_signal_of_ours_blocked_or_ignored() {
    let site = Site::new("");
    let facts = site.path("facts");
    let command = format!(
        "grep ^Sig /proc/self/status > {}; {}",
        facts.display(),
        site.manage("start")
    );
    let healed = run(site.monitor().args(["--restart-cmd", &command]));
    assert_eq!(healed.code(), Some(0), "{}", site.log());
    let facts = fs::read_to_string(facts).unwrap();
    for name in ["SigBlk", "SigIgn"] {
        let of = |status: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let mask = line.unwrap().trim_start_matches(':').trim();
            // What a shell ignores of itself, and what this test was started with.
            u64::from_str_radix(mask, 16).unwrap()
        };
        let own = of(&fs::read_to_string("/proc/self/status").unwrap());
        let stop: u64 = [1, 2, 15, 20, 25]
            .iter()
            .map(|number| 1 << (number - 1))
            .sum();
        assert_eq!(of(&facts) & stop & !own, 0, "{name}: {facts}");
    }
}

#[test]
fn the_restart_command_has_none_of_our_descriptors_and_locks() {
    let count = "ls /proc/self/fd | wc -l; exit 3";
    for refused in [&[][..], &[nix::libc::SYS_close_range]] {
        let site = Site::new("");
        let mut monitor = site.bare_monitor();
        monitor.args(["--restart-cmd", count, "--process-pattern", &site.pattern()]);
        let mut script = Command::new("sh");
        script
            .args(["-c", "exec 7</dev/null 8</dev/null; exec \"$0\" \"$@\""])
            .arg(monitor.get_program())
            .args(monitor.get_args());
        let ran = where_refused(refused, nix::libc::ENOSYS, || run(&mut script));
        assert_eq!(ran.code(), Some(1), "{}", site.log());
        let output = fs::read_to_string(site.path("monitor.restart.log")).unwrap();
        // stdin, stdout, stderr, and the directory that is listed. The monitor holds both locks meanwhile.
        assert_eq!(output.trim(), "4", "{refused:?}");
    }
}

#[test]
fn hazard_37_a_pidfd_that_cannot_signal_gives_way_to_kill() {
    for errno in [nix::libc::EPERM, nix::libc::ENOSYS] {
        let site = Site::new("");
        let server = site.start();
        let _client = site.idle_client();
        let refused = [nix::libc::SYS_pidfd_send_signal];
        let healed = where_refused(&refused, errno, || run(&mut site.monitor()));
        assert_eq!(healed.code(), Some(0), "{}", site.log());
        assert!(!server.is_alive() && site.answers());
    }
}

#[test]
fn hazard_40_a_signal_that_was_ignored_at_start_ends_no_run() {
    for (ignored, asked) in [
        (Signal::SIGHUP, Signal::SIGTERM),
        (Signal::SIGINT, Signal::SIGTERM),
        (Signal::SIGTERM, Signal::SIGHUP),
    ] {
        let site = Site::new("");
        let monitor = site.monitor();
        let mut ignoring = Command::new("sh");
        let trap = format!("trap '' {}; exec \"$0\" \"$@\"", &ignored.as_str()[3..]);
        let mut child = ignoring
            .args(["-c", &trap])
            .arg(monitor.get_program())
            .args(monitor.get_args())
            .args(["--retries", "1", "--retry-delay", "600", "--quiet"])
            .spawn()
            .unwrap();
        wait_until("the run waits", || {
            site.log().contains("Check 1 of 2 failed")
        });
        let pid = Pid::from_raw(child.id().try_into().unwrap());
        kill(pid, ignored).unwrap();
        kill(pid, asked).unwrap();
        assert_eq!(wait_for(&mut child).code(), Some(128 + asked as i32));
        let log = site.log();
        assert!(log.contains(&format!("Received {asked}")), "{log}");
        assert!(!log.contains(&format!("Received {ignored}")), "{log}");
    }
}
