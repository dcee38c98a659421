//! The name services, asked through getent(1): another one is mounted in its place.
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::rig::dead_disk::DeadDisk;
use crate::rig::machine::{MYVNC, PORT, bind, on_own_machine, user_of};
use crate::rig::{Site, in_private_namespace, run, skip, wait_until};
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

/// A user ID that no machine of a test has an account for.
const STRANGER: u32 = 4711;

/// Puts a script of that mode in the place of getent(1), in the mount namespace of a test.
fn replace_getent(site: &Site, mode: u32, script: &str) {
    let file = site.path("getent");
    fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    bind(&file, "/usr/bin/getent".as_ref());
}

/// Puts a getent(1) that never answers in its place; the file that it writes its PID to.
fn hang_getent(site: &Site) -> PathBuf {
    let asked = site.path("asked");
    let hangs = format!("echo $$ >{}\nexec sleep 77", asked.display());
    replace_getent(site, 0o755, &hangs);
    asked
}

/// The PID in that file, once it is there.
fn asked_pid(asked: &Path) -> Option<Pid> {
    let said = fs::read_to_string(asked).ok()?;
    said.trim().parse().map(Pid::from_raw).ok()
}

/// Puts these lines in the place of the order of the name services, by that file.
fn order_services(file: &Path, lines: &str) {
    fs::write(file, format!("{lines}\n")).unwrap();
    bind(file, "/etc/nsswitch.conf".as_ref());
}

/// A check of the server by that name, which leaves it alone.
fn check(site: &Site, host: &str) -> Command {
    let mut monitor = site.monitor();
    let url = format!("http://{host}:{}", site.port);
    monitor.args(["--dry-run", "--url", &url, "--timeout", "1"]);
    monitor
}

#[test]
fn a_host_that_only_the_name_services_know_is_asked() {
    in_private_namespace(|| {
        let site = Site::new("");
        let _server = site.start();
        let known = "[ \"$*\" = 'ahosts myvnc.ldap' ] || exit 2\n\
                     printf '127.0.0.1 %s\\n' 'STREAM x' DGRAM RAW";
        replace_getent(&site, 0o755, known);
        let healthy = run(&mut check(&site, "myvnc.ldap"));
        assert_eq!(healthy.code(), Some(0), "{}", site.log());
        assert!(site.log().contains("Server is healthy"), "{}", site.log());
        run(&mut check(&site, "nobody.ldap"));
        let reason = "Connection error: cannot resolve nobody.ldap: `getent ahosts nobody.ldap` finds no address";
        assert!(site.log().contains(reason), "{}", site.log());
    });
}

#[test]
fn a_host_of_the_machines_own_list_needs_no_process_where_that_list_comes_first() {
    in_private_namespace(|| {
        let site = Site::new("");
        let _server = site.start();
        replace_getent(&site, 0o755, "echo 127.0.0.9");
        let hosts = site.path("hosts");
        fs::write(&hosts, "127.0.0.1 localhost MyVNC.example\n").unwrap();
        bind(&hosts, "/etc/hosts".as_ref());
        for (services, is_healthy) in [
            ("hosts: files dns", true),
            ("hosts: files [NOTFOUND=return] dns", true),
            ("hosts: dns files", false),
            ("passwd: files", false),
        ] {
            fs::remove_file(site.path("monitor.log")).unwrap_or_default();
            order_services(&site.path("nsswitch.conf"), services);
            run(&mut check(&site, "myvnc.example"));
            let log = site.log();
            assert_eq!(
                log.contains("Server is healthy"),
                is_healthy,
                "{services}: {log}"
            );
        }
    });
}

#[test]
fn a_name_service_that_does_not_answer_is_killed_when_the_time_is_up() {
    in_private_namespace(|| {
        let site = Site::new("");
        let asked = hang_getent(&site);
        run(&mut check(&site, "myvnc.ldap"));
        let late = "Server request timed out after 1 seconds (resolving the name)";
        assert!(site.log().contains(late), "{}", site.log());
        let pid = asked_pid(&asked).unwrap();
        wait_until("getent is gone", || kill(pid, None) == Err(Errno::ESRCH));
    });
}

#[test]
fn where_getent_cannot_be_run_the_c_library_is_asked() {
    in_private_namespace(|| {
        let site = Site::new("");
        let _server = site.start();
        replace_getent(&site, 0o644, "");
        // Otherwise the list of hosts would be asked first, by the monitor.
        order_services(&site.path("nsswitch.conf"), "hosts: db files dns");
        let healthy = run(&mut check(&site, "localhost"));
        assert_eq!(healthy.code(), Some(0), "{}", site.log());
        assert!(site.log().contains("Server is healthy"), "{}", site.log());
        run(&mut check(&site, "nonexistent.invalid"));
        let reason =
            "cannot resolve nonexistent.invalid: cannot run /usr/bin/getent: Permission denied";
        assert!(site.log().contains(reason), "{}", site.log());
    });
}

#[test]
fn a_getent_that_fails_is_named() {
    in_private_namespace(|| {
        let site = Site::new("");
        for (script, reason) in [
            ("exit 127", "/usr/bin/getent exited with status 127"),
            ("kill -KILL $$", "/usr/bin/getent was ended by a signal"),
            // As where nobody knows the name.
            ("exit 2", "`getent ahosts myvnc.ldap` finds no address"),
            (
                "echo nss_x: broken",
                "`getent ahosts myvnc.ldap` finds no address",
            ),
        ] {
            fs::remove_file(site.path("monitor.log")).unwrap_or_default();
            replace_getent(&site, 0o755, script);
            run(&mut check(&site, "myvnc.ldap"));
            let log = site.log();
            let reason = format!("Connection error: cannot resolve myvnc.ldap: {reason}");
            assert!(log.contains(&reason), "{script}: {log}");
        }
    });
}

#[test]
fn an_answer_without_end_is_cut_off() {
    in_private_namespace(|| {
        let site = Site::new("");
        replace_getent(&site, 0o755, "exec cat /dev/zero");
        let checked = run(&mut check(&site, "myvnc.ldap"));
        let reason = "cannot resolve myvnc.ldap: /usr/bin/getent printed too much";
        assert!(site.log().contains(reason), "{}", site.log());
        assert!(checked.took < Duration::from_secs(30));
    });
}

#[test]
fn what_getent_has_started_is_killed_with_it() {
    in_private_namespace(|| {
        let site = Site::new("");
        let asked = site.path("asked");
        let began = Instant::now();
        let script = format!("sleep 77 & echo $! >{}; wait", asked.display());
        replace_getent(&site, 0o755, &script);
        run(&mut check(&site, "myvnc.ldap"));
        let pid = asked_pid(&asked).unwrap();
        wait_until("it is gone", || kill(pid, None) == Err(Errno::ESRCH));
        assert!(began.elapsed() < Duration::from_secs(60), "by itself");
    });
}

#[test]
fn a_parent_that_ignores_its_children_hides_no_answer() {
    in_private_namespace(|| {
        let site = Site::new("");
        let _server = site.start();
        let monitor = check(&site, "localhost");
        let mut ignoring = Command::new("env");
        ignoring.arg("--ignore-signal=CHLD");
        ignoring.arg(monitor.get_program()).args(monitor.get_args());
        run(&mut ignoring);
        assert!(site.log().contains("Server is healthy"), "{}", site.log());
    });
}

#[test]
fn the_last_of_a_thousand_addresses_counts() {
    in_private_namespace(|| {
        let site = Site::new("");
        let _server = site.start();
        let many = "for i in $(seq 1000); do printf \"127.7.$((i / 250)).$((i % 250 + 1)) %s\\n\" \
                    'STREAM a.name.of.medium.length' DGRAM RAW; done\n\
                    printf '127.0.0.1       %s\\n' STREAM DGRAM RAW";
        replace_getent(&site, 0o755, many);
        let mut monitor = check(&site, "myvnc.ldap");
        run(monitor.args(["--timeout", "20"]));
        assert!(site.log().contains("Server is healthy"), "{}", site.log());
    });
}

#[test]
fn a_c_library_that_waits_for_dns_does_not_hold_up_the_run() {
    on_own_machine(MYVNC, |machine| {
        // It receives the questions and answers none.
        let _dns = std::net::UdpSocket::bind("127.0.0.53:53").unwrap();
        let [resolv, getent] = ["resolv", "getent"].map(|name| machine.path(name));
        fs::write(
            &resolv,
            "nameserver 127.0.0.53\noptions timeout:15 attempts:1\n",
        )
        .unwrap();
        bind(&resolv, "/etc/resolv.conf".as_ref());
        fs::write(&getent, "").unwrap();
        bind(&getent, "/usr/bin/getent".as_ref());
        let mut monitor = machine.monitor();
        monitor.args(["--dry-run", "--url", "http://myvnc.example:9143"]);
        let ran = machine.run(&mut monitor);
        assert!(ran.log.contains("(resolving the name)"), "{ran:?}");
        assert!(ran.run.took < Duration::from_secs(10), "{ran:?}");
    });
}

#[test]
fn an_owner_who_cannot_be_looked_up_is_an_error_that_touches_nothing() {
    // The account is in LDAP, which is down.
    on_own_machine(STRANGER, |machine| {
        let server = machine.ours.start();
        machine.run_healthy();
        let _client = machine.ours.idle_client();
        order_services(&machine.path("nsswitch.conf"), "passwd: files ldap");
        let ran = machine.run(&mut machine.monitor());
        assert_eq!(ran.code(), Some(1), "{ran:?}");
        let expected = "Cannot look up user 4711, the server's owner: the name services know no such user, or one of \
                        them is down; the restart command must run as that user; the next run tries again";
        assert!(ran.errors().concat().contains(expected), "{ran:?}");
        ran.assert_unharmed(&server);
        // Where all users are local, this one has no account, and it comes back as it was.
        order_services(&machine.path("nsswitch.conf"), "passwd: files");
        let ran = machine.run(&mut machine.monitor());
        machine.assert_healed(&ran);
        assert_eq!(user_of(machine.ours.server()), STRANGER, "{ran:?}");
    });
}

#[test]
fn a_user_without_an_account_can_be_accepted() {
    on_own_machine(STRANGER, |machine| {
        let _server = machine.ours.start();
        let mut monitor = machine.patient_monitor();
        let ran = machine.run(monitor.args(["--user", &STRANGER.to_string()]));
        assert_eq!(ran.code(), Some(0), "{ran:?}");
        assert!(ran.log.contains("Server is healthy"), "{ran:?}");
    });
}

#[test]
fn a_name_of_this_machine_has_its_addresses_of_both_kinds() {
    on_own_machine(MYVNC, |machine| {
        // Beside the loopback addresses, the machine has one of this kind alone.
        for (only, listens) in [
            ("10.9.9.9/32", format!("[::1]:{PORT}")),
            ("2001:db8::9/128", format!("127.0.0.1:{PORT}")),
        ] {
            let ip = |verb| {
                let mut ip = Command::new("ip");
                let done = ip.args(["addr", verb, only, "dev", "lo"]).status();
                assert!(done.unwrap().success());
            };
            ip("add");
            machine.ours.configure(&format!("listen = {listens}"));
            let server = machine.ours.start();
            let mut monitor = machine.patient_monitor();
            let url = format!("http://localhost:{PORT}");
            monitor.args(["--dry-run", "--url", &url]);
            let ran = machine.run(&mut monitor);
            assert!(ran.log.contains("Server is healthy"), "{only}: {ran:?}");
            drop(server);
            ip("del");
        }
    });
}

#[test]
fn a_question_does_not_outlive_a_monitor_that_is_killed() {
    in_private_namespace(|| {
        let site = Site::new("");
        let asked = hang_getent(&site);
        let began = Instant::now();
        let mut monitor = check(&site, "myvnc.ldap");
        monitor.args(["--timeout", "70"]).stderr(Stdio::null());
        let mut monitor = monitor.spawn().unwrap();
        let mut pid = None;
        wait_until("getent is asked", || {
            pid = asked_pid(&asked);
            pid.is_some()
        });
        monitor.kill().unwrap();
        monitor.wait().unwrap();
        wait_until("it is gone", || {
            kill(pid.unwrap(), None) == Err(Errno::ESRCH)
        });
        assert!(began.elapsed() < Duration::from_secs(60), "by itself");
    });
}

#[test]
fn a_getent_on_a_disk_that_does_not_answer_does_not_hold_up_the_run() {
    on_own_machine(MYVNC, |machine| {
        let Some(_dead) = DeadDisk::mount_file("/usr/bin/getent".as_ref()) else {
            return skip("no file system in user space can be mounted here");
        };
        let mut monitor = machine.monitor();
        monitor.args(["--dry-run", "--url", "http://myvnc.example:9143"]);
        let ran = machine.run(&mut monitor);
        assert!(ran.log.contains("(resolving the name)"), "{ran:?}");
    });
}
