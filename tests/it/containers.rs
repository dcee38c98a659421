//! Where the monitor may not see or do everything: containers, restricted /proc, refused system calls, few descriptors.
//! What cannot be read is not "none". Server and bystander are of one user, each on a machine of the test's own.
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::rig;
use crate::rig::MONITOR;
use crate::rig::machine::{
    Machine, NOBODY, OTHER, PORT, bind, mount_proc, on_own_machine, user_of,
};
use crate::rig::{Mounted, wait_until};
use nix::libc;
use nix::mount::MsFlags;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// Docker's default capabilities.
const DOCKER: &str = "-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,\
    +net_bind_service,+net_raw,+sys_chroot,+mknod,+audit_write,+setfcap";

fn with_dockers_capabilities(machine: &mut Machine) {
    machine.wrapper = ["setpriv", "--bounding-set", DOCKER]
        .map(OsString::from)
        .to_vec();
}

/// What must become of a hung server.
#[derive(Clone, Copy)]
enum Hung {
    /// It can be proved to be the server.
    Healed,
    /// Restarted, or left as it was with exit status 1.
    HealedOrLeft,
}

/// Nothing runs on the port, then a server hangs that was seen healthy before.
fn known(machine: &Machine, expected: Hung) {
    nothing_runs(machine);
    let server = machine.ours.start();
    machine.run_healthy();
    hung(machine, server.pid, expected);
}

/// Nothing runs on the port: a server is started, and the bystander lives.
fn nothing_runs(machine: &Machine) {
    let ran = machine.run(&mut machine.monitor());
    machine.assert_healed(&ran);
    machine.ours.kill();
}

/// A server hangs that was never seen: the first time beside the bystander, then as the only `MyVNC`.
fn unknown(machine: &Machine, beside: Hung, alone: Hung) {
    let _ = fs::remove_dir_all(machine.path("state"));
    let server = machine.ours.start();
    hung(machine, server.pid, beside);
    let _ = fs::remove_dir_all(machine.path("state"));
    machine.other.kill();
    let server = machine.ours.start();
    hung_alone(machine, server.pid, alone);
}

fn hung(machine: &Machine, pid: i32, expected: Hung) {
    let ran = hung_alone(machine, pid, expected);
    machine.assert_other_unharmed(&ran);
}

fn hung_alone(machine: &Machine, pid: i32, expected: Hung) -> rig::machine::Ran {
    let client = machine.ours.idle_client();
    let ran = machine.run(&mut machine.monitor());
    let servers = machine.ours.servers();
    match expected {
        Hung::HealedOrLeft if servers == [pid] => {
            assert_eq!(ran.code(), Some(1), "{ran:?}");
            for done in ["Sent SIG", "Starting server"] {
                assert!(!ran.log.contains(done), "{ran:?}");
            }
        }
        _ => {
            assert_eq!(ran.code(), Some(0), "{ran:?}");
            assert_ne!(machine.ours.server(), pid, "{ran:?}");
            assert!(machine.ours.answers(), "{ran:?}");
        }
    }
    drop(client);
    machine.ours.kill();
    ran
}

#[test]
fn hazard_23_dockers_capabilities_and_nothing_runs() {
    on_own_machine(OTHER, |machine| {
        with_dockers_capabilities(machine);
        nothing_runs(machine);
    });
}

#[test]
fn hazard_23_dockers_capabilities_and_a_known_server() {
    on_own_machine(OTHER, |machine| {
        with_dockers_capabilities(machine);
        known(machine, Hung::Healed);
    });
}

#[test]
fn hazard_23_dockers_capabilities_and_an_unknown_server() {
    on_own_machine(OTHER, |machine| {
        with_dockers_capabilities(machine);
        unknown(machine, Hung::HealedOrLeft, Hung::Healed);
    });
}

#[test]
fn hazard_45_a_server_whose_user_is_not_proven_does_not_come_back_as_root() {
    on_own_machine(OTHER, |machine| {
        machine.give_our_script_to_root();
        machine.other.kill();
        let server = machine.ours.start();
        let _client = machine.ours.idle_client();
        for sees_sockets in [true, false] {
            if !sees_sockets {
                with_dockers_capabilities(machine);
            }
            let ran = machine.run(&mut machine.monitor());
            assert_eq!(ran.code(), Some(1), "{ran:?}");
            ran.assert_unharmed(&server);
            let errors = ran.errors().concat();
            assert!(
                errors.contains("set run-as to the server's user"),
                "{ran:?}"
            );
        }
    });
}

#[test]
fn hazard_23_a_proc_with_processes_alone_and_nothing_runs() {
    on_own_machine(OTHER, |machine| {
        mount_proc("subset=pid");
        nothing_runs(machine);
    });
}

#[test]
fn hazard_23_a_proc_with_processes_alone_and_a_known_server() {
    on_own_machine(OTHER, |machine| {
        mount_proc("subset=pid");
        known(machine, Hung::Healed);
    });
}

#[test]
fn hazard_23_a_proc_with_processes_alone_and_an_unknown_server() {
    on_own_machine(OTHER, |machine| {
        mount_proc("subset=pid");
        unknown(machine, Hung::Healed, Hung::Healed);
    });
}

#[test]
fn hazard_23_a_proc_with_processes_alone_and_dockers_capabilities() {
    on_own_machine(OTHER, |machine| {
        mount_proc("subset=pid");
        with_dockers_capabilities(machine);
        known(machine, Hung::Healed);
        unknown(machine, Hung::HealedOrLeft, Hung::Healed);
    });
}

#[test]
fn hazard_23_a_proc_that_hides_the_processes_of_others_from_others() {
    on_own_machine(OTHER, |machine| {
        mount_proc("hidepid=2");
        known(machine, Hung::Healed);
        unknown(machine, Hung::Healed, Hung::Healed);
    });
}

#[test]
fn hazard_23_a_proc_that_hides_the_processes_of_others_from_root() {
    on_own_machine(OTHER, |machine| {
        // It hides nothing from the members of a group, by default that of root.
        mount_proc("hidepid=2,gid=1234");
        with_dockers_capabilities(machine);
        known(machine, Hung::HealedOrLeft);
        unknown(machine, Hung::HealedOrLeft, Hung::HealedOrLeft);
    });
}

#[test]
fn hazard_23_the_servers_owner_monitors_it_where_processes_are_hidden() {
    on_own_machine(OTHER, |machine| {
        mount_proc("hidepid=2");
        let directory = machine.make_directory("own", OTHER, 0o700);
        let program = machine.path("monitor_myvnc");
        fs::copy(MONITOR, &program).unwrap();
        let server = machine.ours.start();
        let _client = machine.ours.idle_client();
        let as_root = machine.monitor();
        let mut own = Command::new(program);
        own.args(as_root.get_args()).uid(OTHER).gid(OTHER);
        own.arg("--logfile").arg(directory.join("m.log"));
        own.arg("--state-dir").arg(directory.join("state"));
        let ran = machine.run(&mut own);
        machine.assert_healed(&ran);
        assert!(!server.is_alive(), "{ran:?}");
    });
}

fn filter(rules: BTreeMap<i64, Vec<SeccompRule>>, reason: i32) -> BpfProgram {
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(reason.try_into().unwrap()),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    filter.unwrap().try_into().unwrap()
}

/// Sockets of netlink, of all its protocols or of one, are refused.
fn without_netlink(protocol: Option<i32>, reason: i32) -> BpfProgram {
    let is = |argument, value: i32| {
        let value = u64::try_from(value).unwrap();
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value).unwrap()
    };
    let mut conditions = vec![is(0, libc::AF_NETLINK)];
    conditions.extend(protocol.map(|protocol| is(2, protocol)));
    let rule = SeccompRule::new(conditions).unwrap();
    filter([(libc::SYS_socket, vec![rule])].into(), reason)
}

fn without(calls: &[i64], reason: i32) -> BpfProgram {
    filter(calls.iter().map(|call| (*call, vec![])).collect(), reason)
}

/// The same with each of these filters.
fn refused(filters: impl IntoIterator<Item = BpfProgram>) {
    on_own_machine(OTHER, |machine| {
        for one in filters {
            machine.filter = Some(one);
            known(machine, Hung::Healed);
            let _ = fs::remove_dir_all(machine.path("state"));
            let server = machine.ours.start();
            hung(machine, server.pid, Hung::Healed);
        }
    });
}

#[test]
fn hazard_23_netlink_is_refused() {
    refused([libc::EPERM, libc::EAFNOSUPPORT].map(|reason| without_netlink(None, reason)));
}

#[test]
fn hazard_23_the_sockets_of_others_are_refused() {
    let diagnosis = Some(libc::NETLINK_SOCK_DIAG);
    refused([libc::EACCES, libc::EPROTONOSUPPORT].map(|reason| without_netlink(diagnosis, reason)));
}

#[test]
fn hazard_23_the_addresses_of_this_host_are_refused() {
    refused([without_netlink(Some(libc::NETLINK_ROUTE), libc::EACCES)]);
}

#[test]
fn hazard_23_whether_an_address_is_this_hosts_cannot_be_seen() {
    on_own_machine(OTHER, |machine| {
        // One that only the list of this host's addresses shows to be its own.
        let mut ip = Command::new("ip");
        let added = ip
            .args(["addr", "add", "10.9.9.9/32", "dev", "lo"])
            .status();
        assert!(added.unwrap().success());
        machine.ours.configure(&format!("listen = 0.0.0.0:{PORT}"));
        let url = format!("http://10.9.9.9:{PORT}");
        machine.filter = Some(without_netlink(Some(libc::NETLINK_ROUTE), libc::EACCES));
        let server = machine.ours.start();
        let _client = machine.ours.idle_client();
        let ran = machine.run(machine.monitor().args(["--url", &url]));
        machine.assert_healed(&ran);
        assert!(!server.is_alive(), "{ran:?}");
    });
}

#[test]
fn hazard_23_neither_netlink_nor_a_list_of_sockets() {
    on_own_machine(OTHER, |machine| {
        mount_proc("subset=pid");
        machine.filter = Some(without_netlink(None, libc::EPERM));
        let server = machine.ours.start();
        machine.run_healthy();
        hung(machine, server.pid, Hung::HealedOrLeft);
        // Whether the port is free cannot be seen: nothing but the bystander counts.
        let ran = machine.run(&mut machine.monitor());
        machine.assert_other_unharmed(&ran);
    });
}

/// Lets each read of a process's status fail with EIO: that is what /proc/PID/mem answers where nothing is mapped.
fn make_unreadable(pid: i32) -> [Mounted; 2] {
    ["stat", "status"].map(|name| {
        let file = format!("/proc/{pid}/{name}");
        bind(Path::new("/proc/1/mem"), Path::new(&file));
        let error = fs::read(&file).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EIO), "{file}");
        Mounted(file.into())
    })
}

/// Makes this process the recorded one, in the place of a server that has ended.
fn record(machine: &Machine, process: &rig::Process) {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid)).unwrap();
    let after_name = stat.rsplit(") ").next().unwrap();
    let start: u64 = after_name.split(' ').nth(19).unwrap().parse().unwrap();
    let path = machine.path(&format!("state/127.0.0.1_{PORT}.json"));
    let mut state: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    state["known"]["pid"] = process.pid.into();
    state["known"]["start"] = start.into();
    fs::write(path, state.to_string()).unwrap();
}

#[test]
fn hazard_24_nothing_is_started_beside_a_known_server_that_cannot_be_read() {
    on_own_machine(OTHER, |machine| {
        machine.let_a_known_server_die();
        machine.ours.configure("bind-after = 290000");
        let server = machine.ours.spawn_as(OTHER);
        wait_until("it runs", || machine.ours.servers() == [server.pid]);
        record(machine, &server);
        machine.ours.configure("");
        let unreadable = make_unreadable(server.pid);
        let ran = machine.run(&mut machine.monitor());
        assert_eq!(ran.code(), Some(1), "{ran:?}");
        assert!(!ran.log.contains("Sent SIG"), "{ran:?}");
        assert!(!ran.log.contains("Starting server"), "{ran:?}");
        let (who, what) = (format!("PID {} ", server.pid), "its state cannot be read");
        let says = |line: &&str| line.contains(&who) && line.contains(what);
        assert!(ran.errors().iter().any(says), "{ran:?}");
        machine.assert_other_unharmed(&ran);
        drop(unreadable);
        assert!(server.is_alive(), "{ran:?}");
        let ran = machine.run(&mut machine.monitor());
        machine.assert_healed(&ran);
        assert!(!server.is_alive(), "{ran:?}");
    });
}

#[test]
fn hazard_24_an_unreadable_process_of_another_user_keeps_no_server_down() {
    on_own_machine(OTHER, |machine| {
        machine.let_a_known_server_die();
        let bystander = machine.look_alike(NOBODY, "");
        record(machine, &bystander);
        let unreadable = make_unreadable(bystander.pid);
        let ran = machine.run(&mut machine.monitor());
        machine.assert_healed(&ran);
        drop(unreadable);
        ran.assert_unharmed(&bystander);
    });
}

/// With hidepid=1, the kernel answers EPERM of the processes of others.
#[test]
fn hazard_24_a_process_that_may_not_be_seen_keeps_no_server_down() {
    on_own_machine(OTHER, |machine| {
        machine.let_a_known_server_die();
        // A user can start it: its directory in /proc is root's.
        let bystander = machine.setuid_look_alike(NOBODY, "");
        record(machine, &bystander);
        // It hides nothing from the members of a group, by default that of root.
        mount_proc("hidepid=1,gid=1234");
        with_dockers_capabilities(machine);
        let ran = machine.run(&mut machine.monitor());
        machine.assert_healed(&ran);
        mount_proc("");
        ran.assert_unharmed(&bystander);
    });
}

#[test]
fn hazard_24_a_hung_server_that_cannot_be_read_is_proved_by_its_recorded_socket() {
    on_own_machine(OTHER, |machine| {
        let server = machine.ours.start();
        machine.run_healthy();
        let _client = machine.ours.idle_client();
        let unreadable = make_unreadable(server.pid);
        let ran = machine.run(&mut machine.monitor());
        machine.assert_healed(&ran);
        drop(unreadable);
        assert!(!server.is_alive(), "{ran:?}");
    });
}

#[test]
fn hazard_37_pidfd_open_is_refused() {
    refused([libc::ENOSYS, libc::EPERM].map(|reason| without(&[libc::SYS_pidfd_open], reason)));
}

#[test]
fn hazard_37_pidfd_send_signal_is_refused() {
    refused(
        [libc::ENOSYS, libc::EPERM].map(|reason| without(&[libc::SYS_pidfd_send_signal], reason)),
    );
}

#[test]
fn openat2_is_refused() {
    refused([libc::ENOSYS, libc::EPERM].map(|reason| without(&[libc::SYS_openat2], reason)));
}

#[test]
fn a_state_file_of_another_user_is_refused_with_and_without_openat2() {
    on_own_machine(OTHER, |machine| {
        machine.make_directory("state", 0, 0o755);
        let name = format!("state/127.0.0.1_{PORT}.json");
        let file = machine.make_file(&name, OTHER, 0o644, "{}");
        let _server = machine.ours.start();
        for filter in [None, Some(without(&[libc::SYS_openat2], libc::ENOSYS))] {
            machine.filter = filter;
            let ran = machine.run_healthy();
            let reason = format!("state: it belongs to UID {OTHER}; this run continues without");
            assert_eq!(ran.warnings_with(&reason).len(), 1, "{ran:?}");
            assert_eq!(fs::read_to_string(&file).unwrap(), "{}", "{ran:?}");
        }
    });
}

#[test]
fn preadv2_is_refused() {
    refused([libc::ENOSYS, libc::EOPNOTSUPP].map(|reason| without(&[libc::SYS_preadv2], reason)));
}

#[test]
fn statx_is_refused() {
    refused([libc::ENOSYS, libc::EPERM].map(|reason| without(&[libc::SYS_statx], reason)));
}

#[test]
fn all_that_is_new_is_refused_as_by_an_old_container_runtime() {
    let calls = [
        libc::SYS_pidfd_open,
        libc::SYS_pidfd_send_signal,
        libc::SYS_openat2,
        libc::SYS_preadv2,
        libc::SYS_statx,
        libc::SYS_clone3,
        libc::SYS_close_range,
    ];
    // glibc takes no other errno than ENOSYS for "clone3 is not there".
    refused([without(&calls, libc::ENOSYS)]);
}

#[test]
fn hazard_32_a_read_only_root() {
    on_own_machine(OTHER, |machine| {
        // Log and state are on a tmpfs, as a container's writable volumes are.
        let volume = machine.mount_tmpfs("volume", MsFlags::empty(), "size=1m");
        machine.make_root_read_only();
        assert!(fs::write("/read-only-root", "").is_err());
        let state = Path::new("/var/lib/monitor_myvnc-of-a-test");
        let run = |timeout: &str| {
            let mut monitor = machine.monitor();
            monitor.arg("--logfile").arg(volume.join("m.log"));
            monitor
                .arg("--state-dir")
                .arg(state)
                .args(["--timeout", timeout]);
            machine.run(&mut monitor)
        };
        let log = || fs::read_to_string(volume.join("m.log")).unwrap();
        let warnings = || {
            let mark = format!("{}", state.display());
            let log = log();
            log.lines()
                .filter(|line| line.contains("] [WARNING] ") && line.contains(&mark))
                .count()
        };
        machine.assert_healed(&run("0.5"));
        assert_eq!(warnings(), 1, "{}", log());
        let healthy = run("10");
        assert_eq!(healthy.code(), Some(0), "{}", log());
        let before = warnings();
        assert!(before <= 2, "{}", log());
        let _client = machine.ours.idle_client();
        machine.assert_healed(&run("0.5"));
        assert_eq!(warnings(), before + 1, "{}", log());
    });
}

/// A hung server under a limit of open files, `ulimit -n`.
fn with_descriptors(limits: &[u32], expected: Hung) {
    on_own_machine(OTHER, |machine| {
        for limit in limits {
            machine.wrapper = vec!["prlimit".into(), format!("--nofile={limit}").into()];
            let server = machine.ours.start();
            let client = machine.ours.idle_client();
            let ran = machine.run(machine.monitor().args(["--timeout", "0.3"]));
            let servers = machine.ours.servers();
            if servers == [server.pid] {
                assert!(matches!(expected, Hung::HealedOrLeft), "{limit}: {ran:?}");
                assert_ne!(ran.code(), Some(0), "{limit}: {ran:?}");
                assert!(!ran.log.contains("Sent SIG"), "{limit}: {ran:?}");
            } else {
                assert!(
                    machine.ours.answers(),
                    "stopped and not started, {limit}: {ran:?}"
                );
                assert_eq!(ran.code(), Some(0), "{limit}: {ran:?}");
            }
            machine.assert_other_unharmed(&ran);
            drop(client);
            machine.ours.kill();
        }
    });
}

#[test]
fn hazard_33_sixteen_descriptors() {
    with_descriptors(&[16, 17], Hung::Healed);
}

#[test]
fn hazard_33_fewer_descriptors_than_it_needs() {
    with_descriptors(&[15, 14, 13, 12, 11, 10], Hung::HealedOrLeft);
}

#[test]
fn hazard_33_next_to_no_descriptors() {
    with_descriptors(&[9, 8, 7, 6, 5, 4], Hung::HealedOrLeft);
}

#[test]
fn hazard_34_a_spawn_that_fails_once_is_tried_again() {
    on_own_machine(OTHER, |machine| {
        let trace = machine.path("trace");
        if !rig::has_strace() {
            return rig::skip("strace is not installed");
        }
        for which in 1..=8 {
            machine.wrapper = ["strace", "-qq", "-o"].map(OsString::from).to_vec();
            machine.wrapper.push(trace.clone().into());
            let calls = "clone,clone3,fork,vfork";
            let inject = format!("inject={calls}:error=EAGAIN:when={which}");
            machine.wrapper.extend(["-e".into(), inject.into()]);
            let server = machine.ours.start();
            let client = machine.ours.idle_client();
            let ran = machine.run(machine.monitor().args(["--timeout", "0.3"]));
            machine.assert_other_unharmed(&ran);
            if machine.ours.servers() != [server.pid] {
                assert!(
                    machine.ours.answers(),
                    "stopped and not started, {which}: {ran:?}"
                );
                assert_eq!(ran.code(), Some(0), "{which}: {ran:?}");
            }
            drop(client);
            machine.ours.kill();
            if !fs::read_to_string(&trace).unwrap().contains("(INJECTED)") {
                break;
            }
        }
    });
}

#[test]
fn hazard_34_a_start_without_any_process_is_tried_each_second_until_its_time_is_up() {
    on_own_machine(OTHER, |machine| {
        if !rig::has_strace() {
            return rig::skip("strace is not installed");
        }
        machine.let_a_known_server_die();
        machine.wrapper = [
            "strace",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "inject=clone,clone3,fork,vfork:error=EAGAIN",
        ]
        .map(OsString::from)
        .to_vec();
        // Of no MyVNC script, so that nobody's groups are looked up before.
        let mut monitor = machine.monitor();
        let ran = machine.run(monitor.args(["--restart-cmd", "true", "--start-timeout", "5.5"]));
        assert_eq!(ran.code(), Some(1), "{ran:?}");
        let tries = ran.log.matches("; next attempt in 1 second").count();
        assert!((2..=6).contains(&tries), "{tries}: {ran:?}");
        machine.assert_other_unharmed(&ran);
        machine.wrapper.clear();
        machine.assert_healed(&machine.run(&mut machine.monitor()));
    });
}

#[test]
fn hazard_35_a_server_that_was_not_asked_is_not_stopped() {
    on_own_machine(OTHER, |machine| {
        let server = machine.ours.start();
        for is_known in [false, true] {
            machine.filter = None;
            if is_known {
                machine.run_healthy();
            }
            for reason in [libc::EACCES, libc::EADDRNOTAVAIL, libc::ENETUNREACH] {
                machine.filter = Some(without(&[libc::SYS_connect], reason));
                // The last two lead elsewhere too, so that the server's own address is asked as well.
                for options in [
                    &["--url", "http://127.0.0.1:9143"][..],
                    &["--url", "http://localhost:9143"],
                    &["--url=http://127.0.0.2:9143", "--listen=127.0.0.1:9143"],
                ] {
                    let ran = machine.run(machine.monitor().args(options));
                    assert_eq!(ran.code(), Some(1), "{ran:?}");
                    ran.assert_unharmed(&server);
                    machine.assert_other_unharmed(&ran);
                    let said = [ran.errors(), ran.lines("WARNING")].concat();
                    let says = |line: &&str| line.contains("was not asked");
                    assert!(said.iter().any(says), "{ran:?}");
                    assert!(!ran.log.contains("Starting server"), "{ran:?}");
                    let is_asked_itself = !options.contains(&"http://127.0.0.1:9143");
                    let itself = "The server itself cannot be asked at 127.0.0.1:9143: ";
                    assert!(!is_asked_itself || ran.log.contains(itself), "{ran:?}");
                }
            }
        }
    });
}

#[test]
fn hazard_36_a_server_whose_tls_is_not_ours_is_not_stopped() {
    on_own_machine(OTHER, |machine| {
        // handshake_failure, protocol_version and insufficient_security (RFC 8446, section 6).
        for alert in [40, 70, 71] {
            let server =
                machine.look_alike(OTHER, &format!("listen = 127.0.0.1:9143\nalert = {alert}"));
            for options in [
                &["--url=https://127.0.0.1:9143"][..],
                &["--url=https://localhost:9143"],
                &["--url=https://127.0.0.2:9143", "--listen=127.0.0.1:9143"],
            ] {
                let ran = machine.run(machine.patient_monitor().args(options));
                assert_eq!(ran.code(), Some(1), "{ran:?}");
                ran.assert_unharmed(&server);
                let said = "so the server was not asked";
                assert!(ran.errors().concat().contains(said), "{ran:?}");
                if options.len() == 1 {
                    assert!(ran.log.contains("SSL error: "), "{ran:?}");
                    let said = "The monitor has no TLS in common with the server, ";
                    assert!(ran.errors().concat().contains(said), "{ran:?}");
                }
            }
            drop(server);
        }
    });
}

#[test]
fn hazard_36_a_cookie_gate_is_a_healthy_server() {
    on_own_machine(OTHER, |machine| {
        let listener = TcpListener::bind(("127.0.0.1", PORT)).unwrap();
        std::thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                let lines = BufReader::new(client.try_clone().unwrap()).lines();
                let request: Vec<String> = lines
                    .map_while(Result::ok)
                    .take_while(|line| !line.is_empty())
                    .collect();
                let answer = if request.iter().any(|line| line.contains("seen=1")) {
                    "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nok\n"
                } else {
                    "HTTP/1.0 302 Found\r\nSet-Cookie: seen=1; Path=/\r\nLocation: /?step=2\r\n\r\n"
                };
                let _ = client.write_all(answer.as_bytes());
            }
        });
        machine.run_healthy();
    });
}

#[test]
fn hazard_45_with_dockers_capabilities_a_server_comes_back_as_its_owners() {
    on_own_machine(OTHER, |machine| {
        with_dockers_capabilities(machine);
        let server = machine.ours.start();
        machine.run_healthy();
        let _client = machine.ours.idle_client();
        let ran = machine.run(&mut machine.monitor());
        machine.assert_healed(&ran);
        assert!(!server.is_alive(), "{ran:?}");
        assert_eq!(user_of(machine.ours.server()), OTHER, "{ran:?}");
    });
}
