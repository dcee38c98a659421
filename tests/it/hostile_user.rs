//! What an unprivileged user can do to a monitor that runs as root: nothing but hold the server's port, which the
//! log then says. Each test is named after its row of the hazards, on a machine of its own with a second `MyVNC`
//! that must come to no harm.
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use crate::rig;
use crate::rig::machine::{
    MYVNC, Machine, NOBODY, OTHER, PORT, Ran, bind, is_alive, on_own_machine, user_of,
};
use crate::rig::{MONITOR, Process, wait_until};
use nix::mount::MsFlags;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};

/// A run that takes longer was delayed by a stranger: more than ten times of what it takes alone.
const DELAYED: Duration = Duration::from_secs(15);
/// A log of a run without a dump and the server's own log is no longer, in bytes.
const LONGEST_LOG: usize = 64 << 10;
/// No more processes that are left alone are named.
const MOST_NAMED: usize = 20;

/// Heals a dead server that was never seen, a hung one, and a dead one that is known, beside these strangers, who are
/// left alone.
fn beside(strangers: impl FnOnce(&mut Machine) -> Vec<Process>) {
    on_own_machine(MYVNC, |machine| {
        let strangers = strangers(machine);
        let dead = machine.run(&mut machine.monitor());
        check(machine, &strangers, &dead);
        let client = machine.ours.idle_client();
        let hung = machine.run(&mut machine.monitor());
        check(machine, &strangers, &hung);
        drop(client);
        machine.ours.kill();
        let known = machine.run(&mut machine.monitor());
        check(machine, &strangers, &known);
    });
}

fn check(machine: &Machine, strangers: &[Process], ran: &Ran) {
    machine.assert_healed(ran);
    for stranger in strangers {
        ran.assert_unharmed(stranger);
    }
    assert!(ran.run.took < DELAYED, "{:?}", ran.run.took);
    assert!(ran.log.len() <= LONGEST_LOG, "{} bytes", ran.log.len());
    let named = ran.log.matches("Left alone: PID ").count();
    assert!(named <= MOST_NAMED, "{named} are named");
}

#[test]
fn hazard_25_a_silent_look_alike() {
    beside(|machine| vec![machine.look_alike(NOBODY, "")]);
}

/// A look-alike of a stranger that no signal ends.
fn unkillable(machine: &Machine, settings: &str) -> Process {
    let script = machine.path("evil/myvnc/main.py").display().to_string();
    let argv = ["tracer", "python3", &script, "--host", "x"];
    machine.stranger(NOBODY, &argv, &format!("unkillable = yes\n{settings}"))
}

#[test]
fn hazard_25_an_unkillable_look_alike() {
    beside(|machine| vec![unkillable(machine, "")]);
}

#[test]
fn hazard_25_an_unkillable_look_alike_that_holds_the_port_is_named_with_its_user() {
    on_own_machine(MYVNC, |machine| {
        machine.let_a_known_server_die();
        let _taker = unkillable(machine, &format!("listen = 127.0.0.1:{PORT}"));
        let ran = machine.run(&mut machine.monitor());
        assert_eq!(ran.code(), Some(1), "{ran:?}");
        let critical = ran.lines("CRITICAL").concat();
        assert!(
            critical.contains("and holds the server's port: nothing was started"),
            "{ran:?}"
        );
        let errors = ran.errors().concat();
        let user =
            format!(" of user nobody holds 127.0.0.1:{PORT}, but the server runs as user myvnc");
        assert!(
            errors.contains("The server's port is taken: PID "),
            "{ran:?}"
        );
        assert!(errors.contains(&user), "{ran:?}");
        assert!(errors.contains("set user = \"nobody\""), "{ran:?}");
        machine.assert_other_unharmed(&ran);
    });
}

#[test]
fn hazard_25_an_unkillable_look_alike_that_matches_a_pattern_stops_no_start() {
    on_own_machine(MYVNC, |machine| {
        machine.let_a_known_server_die();
        let _look_alike = unkillable(machine, "");
        let mut monitor = machine.monitor();
        let ran =
            machine.run(monitor.args(["--process-pattern", "^python3 .*evil/myvnc/main[.]py"]));
        machine.assert_healed(&ran);
        let survivor = "it does not hold the server's port, so the server is started";
        assert!(!ran.warnings_with(survivor).is_empty(), "{ran:?}");
    });
}

#[test]
fn hazard_25_a_look_alike_that_may_not_be_signalled_stops_no_start() {
    on_own_machine(MYVNC, |machine| {
        machine.wrapper = ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups"]
            .map(Into::into)
            .to_vec();
        for directory in ["state", "log"] {
            let path = machine.path(directory);
            let _ = fs::create_dir(&path);
            chown(&path, Some(MYVNC), Some(MYVNC)).unwrap();
        }
        let look_alikes = machine.look_alike(NOBODY, "forks = 30");
        let mut monitor = machine.monitor();
        let ran = machine.run(monitor.args(["--process-pattern", "myvnc/main[.]py --host x"]));
        machine.assert_healed(&ran);
        ran.assert_unharmed(&look_alikes);
        let said = " of user nobody: it may not be signalled, and holds no port";
        assert_eq!(ran.warnings_with(said).len(), 20, "{ran:?}");
        assert_eq!(
            ran.warnings_with("Left alone: 11 further processes").len(),
            1,
            "{ran:?}"
        );
    });
}

#[test]
fn hazard_44_of_many_instances_that_end_20_are_named() {
    on_own_machine(MYVNC, |machine| {
        machine.let_a_known_server_die();
        let _look_alikes = machine.look_alike(MYVNC, "forks = 3000");
        let command = format!(
            "pkill -KILL -f 'ev[i]l/myvnc/main.py'; {}",
            machine.ours.restart_command()
        );
        let mut monitor = machine.monitor();
        let ran = machine.run(monitor.args(["--restart-cmd", &command]));
        assert_eq!(ran.code(), Some(1), "{ran:?}");
        assert!(machine.ours.answers(), "{ran:?}");
        let named = ", another instance that was left alone, ended during the restart: ";
        assert_eq!(ran.log.matches(named).count(), 20, "{ran:?}");
        assert!(ran.log.contains(" further instances ended too"), "{ran:?}");
        assert!(ran.log.len() < 64 << 10, "{} bytes", ran.log.len());
    });
}

#[test]
fn hazard_25_a_look_alike_with_roots_rights_from_a_setuid_program() {
    beside(|machine| vec![machine.setuid_look_alike(NOBODY, "")]);
}

#[test]
fn hazard_26_the_port_of_a_dead_server_is_taken_with_roots_rights_from_a_setuid_program() {
    on_own_machine(MYVNC, |machine| {
        machine.let_a_known_server_die();
        let settings = format!("listen = 0.0.0.0:{PORT}");
        let taker = machine.setuid_look_alike(NOBODY, &settings);
        let ran = machine.run(&mut machine.monitor());
        assert_eq!(ran.code(), Some(1), "{ran:?}");
        ran.assert_unharmed(&taker);
        machine.assert_other_unharmed(&ran);
    });
}

#[test]
fn a_dry_run_beside_a_taken_port_has_only_looked() {
    on_own_machine(MYVNC, |machine| {
        let settings = format!("listen = 0.0.0.0:{PORT}");
        let taker = machine.stranger(NOBODY, &["nc", "-l", "9143"], &settings);
        let ran = machine.run(machine.monitor().arg("--dry-run"));
        assert_eq!(ran.code(), Some(0), "{ran:?}");
        ran.assert_unharmed(&taker);
        let taken = ran.log.find("The server's port is taken");
        assert!(ran.log.contains("holds 0.0.0.0:9143"), "{ran:?}");
        let down = ran.log.find("✗ Server is unresponsive");
        assert!(down.is_some() && down < taken, "{ran:?}");
        assert!(ran.log.contains("Would stop: nothing"), "{ran:?}");
        assert!(ran.log.contains("Would run: nothing"), "{ran:?}");
        assert!(!ran.log.contains("[CRITICAL]"), "{ran:?}");
    });
}

#[test]
fn hazard_25_a_look_alike_that_listens_on_another_port() {
    beside(|machine| vec![machine.look_alike(NOBODY, "listen = 127.0.0.1:9300")]);
}

#[test]
fn hazard_25_a_directory_is_renamed_above_a_strangers_process() {
    beside(|machine| {
        let plain = machine.make_directory("evil/plain", NOBODY, 0o755);
        let victim = machine.stranger_in(&plain, OTHER, &["python3", "main.py"], "");
        let below = machine.make_directory("evil/above", NOBODY, 0o755);
        fs::rename(&plain, below.join("myvnc")).unwrap();
        let directory = fs::read_link(format!("/proc/{}/cwd", victim.pid)).unwrap();
        assert!(directory.ends_with("above/myvnc"));
        vec![victim]
    });
}

#[test]
fn hazard_31_two_hundred_look_alikes() {
    beside(|machine| vec![machine.look_alike(NOBODY, "forks = 200")]);
}

#[test]
fn hazard_31_twelve_look_alikes_with_20000_descriptors() {
    beside(|machine| vec![machine.look_alike(NOBODY, "descriptors = 19900\nforks = 12")]);
}

/// A look-alike with these further arguments.
fn with_arguments(machine: &Machine, more: &[&str], settings: &str) -> Process {
    let script = machine.path("evil/myvnc/main.py").display().to_string();
    let argv = [&["python3", &script], more].concat();
    machine.stranger(NOBODY, &argv, settings)
}

#[test]
fn hazard_31_200_look_alikes_with_a_mebibyte_of_arguments() {
    beside(|machine| {
        let long = "x".repeat(131_000);
        vec![with_arguments(machine, &[long.as_str(); 8], "forks = 200")]
    });
}

#[test]
fn hazard_31_320000_arguments() {
    beside(|machine| vec![with_arguments(machine, &vec!["-p"; 320_000], "")]);
}

#[test]
fn hazard_44_long_arguments_of_strangers_hide_nothing_of_a_run() {
    on_own_machine(MYVNC, |machine| {
        let server = machine.ours.start();
        machine.run_healthy();
        // Four bytes a character.
        let long = "\u{1f300}".repeat(3000);
        let strangers = with_arguments(machine, &[&long], "sockets = 150\nforks = 49");
        let _client = machine.ours.idle_client();
        let ran = machine.run(&mut machine.monitor());
        machine.assert_healed(&ran);
        ran.assert_unharmed(&strangers);
        for said in [
            "Cause: ",
            &format!("Sent SIGTERM to PID {}", server.pid),
            "Server is now responsive after ",
            "Service was away ",
        ] {
            assert!(ran.log.contains(said), "{said}: {ran:?}");
        }
        assert!(ran.log.len() < LONGEST_LOG, "{}", ran.log.len());
    });
}

#[test]
fn hazard_26_who_takes_the_port_with_long_arguments_is_named_with_its_user() {
    on_own_machine(MYVNC, |machine| {
        machine.let_a_known_server_die();
        let settings = format!("listen = 0.0.0.0:{PORT}");
        let taker = machine.stranger(NOBODY, &["nc", &"x".repeat(3000)], &settings);
        let ran = machine.run(&mut machine.monitor());
        machine.assert_takeover(&taker, &ran);
    });
}

#[test]
fn hazard_44_3000_look_alikes() {
    beside(|machine| vec![machine.look_alike(NOBODY, "forks = 3000")]);
}

#[test]
fn hazard_44_those_who_are_left_alone_are_named_and_then_counted() {
    on_own_machine(MYVNC, |machine| {
        let stranger = machine.look_alike(NOBODY, "forks = 49");
        let ran = machine.run(&mut machine.monitor());
        check(machine, &[stranger], &ran);
        let named = ran.log.matches("Left alone: PID ").count();
        // The other MyVNC may be one of those.
        let rest = [50, 51].map(|all| format!(" {} ", all - named));
        let counts = |line: &str| rest.iter().any(|count| line.contains(count));
        let counted = ran.log.lines().filter(|line| counts(line)).count();
        assert!(named > 0 && counted > 0, "{named} are named: {ran:?}");
    });
}

/// Binds a FIFO over a file of a process in /proc: who opens it to read waits for ever.
fn block(machine: &Machine, process: &Process, name: &str) {
    let fifo = machine.path(&format!("fifo-{name}"));
    mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IROTH).unwrap();
    bind(&fifo, Path::new(&format!("/proc/{}/{name}", process.pid)));
}

#[test]
fn hazard_31_a_process_whose_arguments_cannot_be_read() {
    beside(|machine| {
        let victim = machine.stranger(OTHER, &["sleep", "999"], "");
        block(machine, &victim, "cmdline");
        vec![victim]
    });
}

/// Opening this file of a process waits in state D, and no signal ends that: as for a process in a page fault on a
/// dead disk.
fn block_for_ever(process: &Process, name: &str) -> Option<rig::dead_disk::DeadDisk> {
    let file = format!("/proc/{}/{name}", process.pid);
    let dead = rig::dead_disk::DeadDisk::mount_file(Path::new(&file));
    if dead.is_none() {
        rig::skip("no file system in user space can be mounted here");
    }
    dead
}

#[test]
fn hazard_31_a_process_whose_arguments_never_come() {
    on_own_machine(MYVNC, |machine| {
        let server = machine.ours.start();
        let victim = machine.stranger(OTHER, &["sleep", "999"], "");
        let Some(_dead) = block_for_ever(&victim, "cmdline") else {
            return;
        };
        let client = machine.ours.idle_client();
        let ran = machine.run(&mut machine.monitor());
        check(machine, &[victim], &ran);
        assert!(!server.is_alive(), "{ran:?}");
        drop(client);
    });
}

#[test]
fn hazard_44_a_search_that_is_held_up_shows_no_secret() {
    on_own_machine(MYVNC, |machine| {
        let secrets = ["--password=hunter2", "--token", "hunter3"];
        let look_alikes = [0, 1].map(|_| with_arguments(machine, &secrets, ""));
        let victim = machine.look_alike(NOBODY, "");
        let last = with_arguments(machine, &secrets, "");
        let Some(_dead) = block_for_ever(&victim, "cmdline") else {
            return;
        };
        let ran = machine.run(&mut machine.monitor());
        for output in [&ran.log, &ran.run.stdout, &ran.run.stderr] {
            assert!(!output.contains("hunter"), "{ran:?}");
        }
        check(machine, &look_alikes, &ran);
        check(machine, &[victim, last], &ran);
    });
}

#[test]
fn hazard_31_a_known_server_whose_arguments_never_come() {
    on_own_machine(MYVNC, |machine| {
        let server = machine.ours.start();
        machine.run_healthy();
        let Some(_dead) = block_for_ever(&server, "cmdline") else {
            return;
        };
        let _client = machine.ours.idle_client();
        let ran = machine.run(&mut machine.monitor());
        check(machine, &[], &ran);
        assert!(!server.is_alive(), "{ran:?}");
    });
}

#[test]
fn hazard_31_a_look_alike_whose_environment_cannot_be_read() {
    beside(|machine| {
        let look_alike = machine.look_alike(NOBODY, "");
        block(machine, &look_alike, "environ");
        vec![look_alike]
    });
}

#[test]
fn hazard_31_a_process_whose_status_cannot_be_read() {
    on_own_machine(MYVNC, |machine| {
        let server = machine.ours.start();
        let victim = machine.stranger(OTHER, &["sleep", "999"], "");
        block(machine, &victim, "status");
        block(machine, &victim, "stat");
        let client = machine.ours.idle_client();
        let ran = machine.run(&mut machine.monitor());
        machine.assert_healed(&ran);
        assert!(!server.is_alive() && ran.run.took < DELAYED, "{ran:?}");
        // Its state in /proc cannot be read here either.
        assert!(kill(Pid::from_raw(victim.pid), None).is_ok(), "{ran:?}");
        let named = format!("PID {}", victim.pid);
        assert!(!ran.log.contains(&named), "{ran:?}");
        drop(client);
    });
}

#[test]
fn hazard_31_a_known_server_whose_arguments_cannot_be_read() {
    on_own_machine(MYVNC, |machine| {
        let server = machine.ours.start();
        machine.run_healthy();
        block(machine, &server, "cmdline");
        let _client = machine.ours.idle_client();
        let ran = machine.run(&mut machine.monitor());
        machine.assert_healed(&ran);
        assert!(!server.is_alive() && ran.run.took < DELAYED, "{ran:?}");
    });
}

/// Who has the dead server's port.
struct Squatter {
    /// The server was seen healthy before.
    is_known: bool,
    answer: Option<&'static str>,
    /// Its arguments are those of a `MyVNC`.
    is_alike: bool,
}

fn squatted(squatter: &Squatter) {
    on_own_machine(MYVNC, |machine| {
        if squatter.is_known {
            machine.let_a_known_server_die();
        }
        let mut settings = format!("listen = 127.0.0.1:{PORT}\n");
        if let Some(answer) = squatter.answer {
            settings = format!("{settings}answer = {answer}\n");
        }
        let stranger = if squatter.is_alike {
            machine.look_alike(NOBODY, &settings)
        } else {
            machine.stranger(NOBODY, &["nc", "-l", "9143"], &settings)
        };
        let mut monitor = if squatter.answer.is_some() {
            machine.patient_monitor()
        } else {
            machine.monitor()
        };
        let ran = machine.run(&mut monitor);
        machine.assert_other_unharmed(&ran);
        match (squatter.answer, squatter.is_known, squatter.is_alike) {
            (Some("200 OK"), true, _) => {
                machine.assert_takeover(&stranger, &ran);
                assert!(!ran.log.contains("Starting server"), "{ran:?}");
            }
            (Some("200 OK"), false, _) => {
                assert_eq!(ran.code(), Some(0), "{ran:?}");
                ran.assert_unharmed(&stranger);
                let accepting = "user = \"nobody\"";
                assert_eq!(ran.warnings_with(accepting).len(), 1, "{ran:?}");
                let again = machine.run(&mut monitor);
                assert_eq!(again.code(), Some(0), "{again:?}");
                assert_eq!(again.warnings_with(accepting).len(), 0, "{again:?}");
            }
            (_, _, true) => {
                assert!(!stranger.is_alive(), "{ran:?}");
                machine.assert_healed(&ran);
                assert_ne!(user_of(machine.ours.server()), NOBODY, "{ran:?}");
            }
            (_, _, false) => {
                assert_eq!(ran.code(), Some(1), "{ran:?}");
                ran.assert_unharmed(&stranger);
                assert!(!ran.log.contains("Starting server"), "{ran:?}");
                let names = |line: &&str| {
                    line.contains(&format!("PID {} (", stranger.pid))
                        && line.contains("of user nobody holds 127.0.0.1:9143")
                        && line.contains("if it is the server, set user = \"nobody\"")
                };
                assert!(ran.errors().iter().any(names), "{ran:?}");
            }
        }
    });
}

macro_rules! squatters {
    ($($name:ident: $is_known:expr, $answer:expr, $is_alike:expr;)+) => {$(
        #[test]
        fn $name() {
            let (is_known, answer, is_alike) = ($is_known, $answer, $is_alike);
            squatted(&Squatter { is_known, answer, is_alike });
        }
    )+};
}

squatters! {
    hazard_26_an_unknown_servers_port_is_held_by_a_silent_stranger: false, None, false;
    hazard_26_an_unknown_servers_port_is_held_by_a_silent_look_alike: false, None, true;
    hazard_26_an_unknown_servers_port_is_held_by_a_stranger_with_500: false, Some("500 Broken"), false;
    hazard_26_an_unknown_servers_port_is_held_by_a_look_alike_with_500: false, Some("500 Broken"), true;
    hazard_28_an_unknown_server_is_a_stranger_with_200: false, Some("200 OK"), false;
    hazard_28_an_unknown_server_is_a_look_alike_with_200: false, Some("200 OK"), true;
    hazard_26_a_known_servers_port_is_held_by_a_silent_stranger: true, None, false;
    hazard_26_a_known_servers_port_is_held_by_a_silent_look_alike: true, None, true;
    hazard_26_a_known_servers_port_is_held_by_a_stranger_with_500: true, Some("500 Broken"), false;
    hazard_26_a_known_servers_port_is_held_by_a_look_alike_with_500: true, Some("500 Broken"), true;
    hazard_28_a_known_servers_port_is_held_by_a_stranger_with_200: true, Some("200 OK"), false;
    hazard_28_a_known_servers_port_is_held_by_a_look_alike_with_200: true, Some("200 OK"), true;
}

#[test]
fn hazard_28_a_server_whose_port_another_answers_on_is_down() {
    on_own_machine(MYVNC, |machine| {
        machine.let_a_known_server_die();
        let settings = format!("listen = 127.0.0.1:{PORT}\nanswer = 200 OK");
        let taker = machine.stranger(NOBODY, &["nc", "-l", "9143"], &settings);
        let ran = machine.run(&mut machine.patient_monitor());
        assert_eq!(ran.code(), Some(1), "{ran:?}");
        let state = machine.path("state").display().to_string();
        let said = |verb: &str, flags: &[&str]| {
            let mut command = Command::new(MONITOR);
            command.args([verb, "--state-dir", &state]).args(flags);
            let output = command.output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            (output.status.code(), text)
        };
        let who = format!(
            "PID {} (nc -l 9143) of user nobody holds 127.0.0.1:9143",
            taker.pid
        );
        let (code, status) = said("status", &["--json"]);
        assert_eq!(code, Some(1), "{status}");
        assert!(
            status.contains("\"port_taken\"") && status.contains(&who),
            "{status}"
        );
        assert_eq!(said("status", &["--nagios"]).0, Some(2));
        assert!(
            said("history", &[]).1.contains("port_taken"),
            "{:?}",
            said("history", &[])
        );
        drop(taker);
        let healed = machine.run(&mut machine.monitor());
        machine.assert_healed(&healed);
        assert_eq!(said("status", &[]).0, Some(0), "{:?}", said("status", &[]));
    });
}

#[test]
fn hazard_26_the_port_is_bound_by_a_stranger_that_does_not_listen() {
    on_own_machine(MYVNC, |machine| {
        if !knows_bound_sockets() {
            return rig::skip("before Linux 6.8, the kernel does not list bound sockets");
        }
        let settings = format!("bind = 127.0.0.1:{PORT}");
        let stranger = machine.stranger(NOBODY, &["holder"], &settings);
        let ran = machine.run(machine.monitor().args(["--start-timeout", "2"]));
        assert_eq!(ran.code(), Some(1), "{ran:?}");
        ran.assert_unharmed(&stranger);
        machine.assert_other_unharmed(&ran);
        let names = |line: &&str| {
            line.contains(&format!("PID {}", stranger.pid))
                && (line.contains("nobody") || line.contains("65534"))
                && line.contains("without listening")
        };
        assert!(ran.errors().iter().any(names), "{ran:?}");
    });
}

/// After a start that failed, the ERROR says who keeps the server from its port, and how.
fn keeps_the_port(settings: &str, parts: &[&str]) {
    on_own_machine(MYVNC, |machine| {
        let keeper = machine.stranger(NOBODY, &["keeper"], settings);
        let ran = machine.run(machine.monitor().args(["--start-timeout", "2"]));
        assert_eq!(ran.code(), Some(1), "{ran:?}");
        ran.assert_unharmed(&keeper);
        machine.assert_other_unharmed(&ran);
        assert!(ran.log.contains("Starting server"), "{ran:?}");
        let who = format!("PID {} (keeper) of user nobody ", keeper.pid);
        let says = |line: &&str| {
            line.contains("The server's port is taken: ")
                && parts
                    .iter()
                    .all(|part| line.contains(&part.replace("WHO ", &who)))
        };
        assert_eq!(ran.errors().into_iter().filter(says).count(), 1, "{ran:?}");
    });
}

#[test]
fn hazard_26_the_port_is_kept_by_a_connection_from_it() {
    keeps_the_port(
        &format!("connect = 127.0.0.1:{PORT}"),
        &[
            "WHO has a connection from 127.0.0.1:9143 to 127.0.0.1:",
            "end that process",
        ],
    );
}

#[test]
fn hazard_26_the_port_is_kept_by_a_connection_that_has_ended() {
    keeps_the_port(
        &format!("ended = 127.0.0.1:{PORT}"),
        &[
            "a connection from 127.0.0.1:9143 to 127.0.0.1:",
            " has ended",
            "the next run tries again",
        ],
    );
}

#[test]
fn hazard_26_the_port_is_kept_by_a_connection_whose_last_data_is_not_taken() {
    keeps_the_port(
        &format!("closed = 127.0.0.1:{PORT}"),
        &[
            "user nobody has closed a connection from 127.0.0.1:9143 to 127.0.0.1:",
            " (keeper) has read the rest; end it with ss -K src 127.0.0.1:9143 dst 127.0.0.1:",
        ],
    );
}

#[test]
fn hazard_26_what_the_kernel_takes_minutes_to_list_costs_the_run_a_second() {
    on_own_machine(MYVNC, |machine| {
        let _many = bound_elsewhere(machine);
        let _keeper = machine.look_alike(NOBODY, &format!("bind = 127.0.0.1:{PORT}"));
        let ran = machine.run(machine.monitor().args(["--start-timeout", "2"]));
        assert_eq!(ran.code(), Some(1), "{ran:?}");
        assert!(ran.errors().concat().contains("port is taken"), "{ran:?}");
        assert!(ran.run.took < DELAYED, "{ran:?}");
    });
}

#[test]
fn hazard_31_what_the_kernel_takes_minutes_to_list_does_not_hide_what_a_server_waits_for() {
    says_what_it_waits_for_beside(bound_elsewhere);
}

#[test]
fn hazard_31_who_has_very_many_descriptors_does_not_hide_what_a_server_waits_for() {
    says_what_it_waits_for_beside(|machine| {
        let settings = "descriptors = 19900\nforks = 20";
        vec![
            machine.look_alike(NOBODY, settings),
            machine.stranger(NOBODY, &["many"], settings),
        ]
    });
}

/// The cause of a hung server is found beside these.
fn says_what_it_waits_for_beside(strangers: impl FnOnce(&Machine) -> Vec<Process>) {
    on_own_machine(MYVNC, |machine| {
        let _strangers = strangers(machine);
        let _server = machine.ours.start();
        let ran = heal_until_diagnosed(|| {
            let _ = fs::remove_dir_all(machine.path("state"));
            let _client = machine.ours.idle_client();
            let ran = machine.run(&mut machine.monitor());
            machine.assert_healed(&ran);
            assert!(ran.run.took < DELAYED, "{ran:?}");
            ran
        });
        let causes = ran.warnings_with("Cause: ").concat();
        assert!(causes.contains("idle client"), "{ran:?}");
    });
}

/// Heals the server until the diagnosis was complete, five times at most.
fn heal_until_diagnosed(mut heal: impl FnMut() -> Ran) -> Ran {
    let mut ran = heal();
    for _ in 1..5 {
        if !ran.is_hurried() {
            break;
        }
        ran = heal();
    }
    ran
}

/// 57,000 sockets that are bound and no more.
fn bound_elsewhere(machine: &Machine) -> Vec<Process> {
    (0..3)
        .map(|_| machine.stranger(NOBODY, &["many"], "bound = 19000"))
        .collect()
}

#[test]
fn hazard_27_a_server_whose_configured_name_has_an_address_of_a_stranger() {
    on_own_machine(MYVNC, |machine| {
        let config = machine.make_directory("config", MYVNC, 0o755);
        let text = format!("{{\"host\": \"localhost\", \"port\": {PORT}}}");
        machine.make_file("config/server_config.json", MYVNC, 0o644, &text);
        let command = machine.ours.restart_command();
        let option = format!(" --config_dir={} start", config.display());
        let command = command.replace(" start", &option);
        let flags = ["--restart-cmd", &command];
        let _server = machine.ours.start();
        let known = machine.run(machine.patient_monitor().args(flags));
        assert_eq!(known.code(), Some(0), "{known:?}");
        machine.ours.kill();
        let settings = format!("only-v6 = yes\nlisten = [::1]:{PORT}");
        let beside = machine.stranger(NOBODY, &["nc"], &settings);
        let ran = machine.run(machine.monitor().args(flags));
        machine.assert_healed(&ran);
        ran.assert_unharmed(&beside);
    });
}

/// A server that was seen to answer behind such a proxy, and is dead by now.
fn let_a_server_behind_a_proxy_die(machine: &Machine) {
    let _server = machine.ours.start();
    let _proxy = proxy_beside(machine, "200 OK");
    let known = machine.run(machine.patient_monitor().args(behind_it()));
    assert_eq!(known.code(), Some(0), "{known:?}");
    machine.ours.kill();
}

/// A proxy of root's, on the server's port at another address.
fn proxy_beside(machine: &Machine, status: &str) -> Process {
    let settings = format!("listen = 127.0.0.2:{PORT}\nanswer = {status}");
    machine.stranger(0, &["haproxy", "-f", "/etc/haproxy/haproxy.cfg"], &settings)
}

fn behind_it() -> [String; 4] {
    let [url, listen] = ["127.0.0.2", "127.0.0.1"].map(|ip| format!("{ip}:{PORT}"));
    [
        "--url".into(),
        format!("http://{url}"),
        "--listen".into(),
        listen,
    ]
}

#[test]
fn hazard_53_a_proxy_on_the_servers_port_at_another_address_is_not_recorded() {
    on_own_machine(OTHER, |machine| {
        machine.give_our_script_to_root();
        let_a_server_behind_a_proxy_die(machine);
        let _proxy = proxy_beside(machine, "503 Service Unavailable");
        let ran = machine.run(machine.patient_monitor().args(behind_it()));
        assert!(machine.ours.answers(), "{ran:?}");
        assert_eq!(user_of(machine.ours.server()), OTHER, "{ran:?}");
    });
}

#[test]
fn hazard_28_behind_a_proxy_who_answers_at_the_servers_own_address_is_looked_at() {
    on_own_machine(MYVNC, |machine| {
        let_a_server_behind_a_proxy_die(machine);
        let _proxy = proxy_beside(machine, "502 Bad Gateway");
        let settings = format!("listen = 127.0.0.1:{PORT}\nanswer = 200 OK");
        let taker = machine.look_alike(NOBODY, &settings);
        let ran = machine.run(machine.patient_monitor().args(behind_it()));
        machine.assert_takeover(&taker, &ran);
    });
}

#[test]
fn hazard_28_who_takes_the_port_during_the_dump_is_looked_at() {
    on_own_machine(MYVNC, |machine| {
        let server = machine.ours.start();
        machine.run_healthy();
        let _client = machine.ours.idle_client();
        let settings = format!("grab = 127.0.0.1:{PORT}\nanswer = 200 OK");
        let taker = machine.stranger(NOBODY, &["nc"], &settings);
        let ended = "S=$(cat /proc/PID/stat 2>/dev/null); [ -z \"$S\" ] || [ -z \"${S##*) Z *}\" ]";
        let is_taken = format!("grep -q ':{PORT:04X} 00000000:0000 0A' /proc/net/tcp");
        let dump = format!("kill -KILL PID; until {ended} && {is_taken}; do :; done");
        let dump = dump.replace("PID", &server.pid.to_string());
        let ran = machine.run(machine.monitor().args(["--dump-cmd", &dump]));
        machine.assert_takeover(&taker, &ran);
    });
}

#[test]
fn hazard_31_3000_strangers_with_the_servers_arguments_and_a_process_pattern() {
    on_own_machine(MYVNC, |machine| {
        let server = machine.ours.start();
        let [python, script] = ["bin/python3", "myvnc/main.py"]
            .map(|name| machine.ours.path(name).display().to_string());
        let pattern = format!("^{python} {script}");
        let flags = ["--process-pattern", &pattern];
        let known = machine.run(machine.patient_monitor().args(flags));
        assert_eq!(known.code(), Some(0), "{known:?}");
        let alike = machine.stranger(NOBODY, &[&python, &script, "--host", "x"], "forks = 3000");
        let _client = machine.ours.idle_client();
        let ran = machine.run(machine.monitor().args(flags));
        machine.assert_healed(&ran);
        ran.assert_unharmed(&alike);
        assert!(!server.is_alive(), "{ran:?}");
        // Each of its searches may take 5 s on a busy machine.
        assert!(ran.run.took < 2 * DELAYED, "{ran:?}");
    });
}

#[test]
fn hazard_31_many_descriptors_of_a_stranger_at_the_other_address_of_the_name() {
    on_own_machine(MYVNC, |machine| {
        let many = machine.look_alike(NOBODY, "descriptors = 19900\nforks = 60");
        let beside = on_the_other_address(machine, None);
        let server = machine.ours.start();
        let _client = machine.ours.idle_client();
        let ran = machine.run(machine.monitor().args(localhost()));
        machine.assert_healed(&ran);
        assert!(!server.is_alive(), "{ran:?}");
        ran.assert_unharmed(&many);
        drop(beside);
        assert!(ran.run.took < DELAYED, "{ran:?}");
    });
}

#[test]
fn hazard_25_a_look_alike_keeps_no_server_down_whose_name_has_no_address() {
    on_own_machine(MYVNC, |machine| {
        machine.let_a_known_server_die();
        machine.other.kill();
        let alike = machine.look_alike(NOBODY, "");
        let url = format!("http://nowhere.invalid:{PORT}");
        let mut monitor = machine.monitor();
        let ran = machine.run(monitor.args(["--url", &url, "--start-timeout", "2"]));
        ran.assert_unharmed(&alike);
        assert!(machine.ours.answers(), "{ran:?}");
    });
}

#[test]
fn hazard_45_who_answered_once_and_was_no_myvnc_does_not_become_the_servers_user() {
    on_own_machine(MYVNC, |machine| {
        let settings = format!("listen = 127.0.0.1:{PORT}\nanswer = 200 OK");
        let once = machine.stranger(NOBODY, &["nc", "-l", "9143"], &settings);
        let accepted = machine.run(&mut machine.patient_monitor());
        assert_eq!(
            accepted.warnings_with("is recorded as the server").len(),
            1,
            "{accepted:?}"
        );
        drop(once);
        let ran = machine.run(&mut machine.monitor());
        assert!(machine.ours.answers(), "{ran:?}");
        assert_eq!(user_of(machine.ours.server()), MYVNC, "{ran:?}");
    });
}

#[test]
fn hazard_26_who_keeps_the_port_only_while_the_server_starts_is_named() {
    on_own_machine(MYVNC, |machine| {
        let directory = machine.make_directory("signs", NOBODY, 0o777);
        let [starts, kept, ended] = ["starts", "kept", "ended"].map(|name| {
            let file = directory.join(name);
            file.display().to_string()
        });
        let settings = format!("bind = 127.0.0.1:{PORT}\nwhile = {starts} {kept} {ended}");
        let keeper = machine.stranger(NOBODY, &["keeper"], &settings);
        // The server has a moment in which it is seen, and the keeper lets go a second after it has ended.
        machine
            .ours
            .configure(&format!("listen = 127.0.0.1:{PORT}\nbind-after = 300"));
        let command = format!(
            "touch {starts}; until [ -e {kept} ]; do :; done; {}; (sleep 2; touch {ended}) >/dev/null 2>&1 &",
            machine.ours.restart_command()
        );
        let mut monitor = machine.monitor();
        monitor.args(["--start-timeout", "4", "--restart-cmd", &command]);
        let ran = machine.run(&mut monitor);
        assert_eq!(ran.code(), Some(1), "{ran:?}");
        ran.assert_unharmed(&keeper);
        assert!(Path::new(&ended).exists(), "it has let go");
        let who = format!(
            "When the server that was started ended: The server's port is taken: PID {} (keeper) of user nobody is bound to \
             127.0.0.1:9143 without listening",
            keeper.pid
        );
        assert!(ran.errors().concat().contains(&who), "{ran:?}");
    });
}

#[test]
fn hazard_26_the_port_is_kept_by_who_listens_at_another_address() {
    on_own_machine(MYVNC, |machine| {
        machine.ours.configure(&format!("listen = 0.0.0.0:{PORT}"));
        let settings = format!("listen = 127.0.0.2:{PORT}");
        let keeper = machine.stranger(NOBODY, &["keeper"], &settings);
        let ran = machine.run(machine.monitor().args(["--start-timeout", "2"]));
        assert_eq!(ran.code(), Some(1), "{ran:?}");
        ran.assert_unharmed(&keeper);
        let who = format!(
            "The server's port is taken: PID {} (keeper) of user nobody listens on 127.0.0.2:9143, so the server cannot \
             use it; end that process",
            keeper.pid
        );
        assert!(ran.errors().concat().contains(&who), "{ran:?}");
    });
}

#[test]
fn a_process_of_roots_that_keeps_the_port_of_a_users_server_is_named() {
    on_own_machine(MYVNC, |machine| {
        machine.ours.configure(&format!("listen = 0.0.0.0:{PORT}"));
        machine.let_a_known_server_die();
        let settings = format!("only-v6 = yes\nlisten = [::]:{PORT}\nbind = 127.0.0.2:{PORT}");
        let keeper = machine.stranger(0, &["keeper"], &settings);
        let ran = machine.run(machine.monitor().args(["--start-timeout", "2"]));
        assert_eq!(ran.code(), Some(1), "{ran:?}");
        ran.assert_unharmed(&keeper);
        let who = format!(
            "The server's port is taken: PID {} (keeper) of user root is bound to 127.0.0.2:9143 without listening, so \
             the server cannot use it; end that process",
            keeper.pid
        );
        assert!(ran.errors().concat().contains(&who), "{ran:?}");
    });
}

#[test]
fn a_start_that_failed_for_another_reason_accuses_nobody() {
    on_own_machine(MYVNC, |machine| {
        // It is at the port, and keeps nobody from it.
        let settings = format!("listen = 127.0.0.2:{PORT}");
        let beside = machine.stranger(NOBODY, &["beside"], &settings);
        let mut monitor = machine.monitor();
        monitor.args(["--listen", &format!("127.0.0.1:{PORT}")]);
        let ran = machine.run(monitor.args(["--restart-cmd", "exit 3"]));
        assert_eq!(ran.code(), Some(1), "{ran:?}");
        ran.assert_unharmed(&beside);
        assert!(!ran.log.contains("port is taken"), "{ran:?}");
    });
}

#[test]
fn hazard_27_a_dead_server_of_ipv4_beside_a_stranger_on_ipv6_alone() {
    on_own_machine(MYVNC, |machine| {
        machine.ours.configure(&format!("listen = 0.0.0.0:{PORT}"));
        machine.let_a_known_server_die();
        for address in ["[::1]", "[::]"] {
            let settings = format!("only-v6 = yes\nlisten = {address}:{PORT}");
            let beside = machine.stranger(NOBODY, &["nc", "-l", "9143"], &settings);
            let ran = machine.run(&mut machine.monitor());
            machine.assert_healed(&ran);
            ran.assert_unharmed(&beside);
            machine.ours.kill();
        }
    });
}

/// The ERROR names the process that holds the port.
fn is_named(take: impl FnOnce(&Machine) -> Process) {
    on_own_machine(MYVNC, |machine| {
        machine.let_a_known_server_die();
        let taker = take(machine);
        let ran = machine.run(&mut machine.monitor());
        assert_eq!(ran.code(), Some(1), "{ran:?}");
        ran.assert_unharmed(&taker);
        let who = format!("The server's port is taken: PID {} (", taker.pid);
        assert!(ran.errors().concat().contains(&who), "{ran:?}");
    });
}

#[test]
fn hazard_28_who_holds_the_port_with_roots_rights_from_a_setuid_program_is_named() {
    is_named(|machine| machine.setuid_look_alike(NOBODY, &format!("listen = 127.0.0.1:{PORT}")));
}

#[test]
fn hazard_28_who_holds_the_port_among_many_descriptors_is_named() {
    is_named(|machine| {
        let settings = format!("descriptors = 10000\nlisten = 127.0.0.1:{PORT}");
        machine.stranger(NOBODY, &["nc", "-l", "9143"], &settings)
    });
}

#[test]
fn hazard_28_who_holds_the_port_in_another_pid_namespace_is_named() {
    is_named(|machine| {
        let settings = format!("namespace = {NOBODY}\nlisten = 127.0.0.1:{PORT}");
        machine.stranger(0, &["nc", "-l", "9143"], &settings)
    });
}

#[test]
fn hazard_31_a_hundred_thousand_listening_sockets_of_a_stranger() {
    beside(|machine| {
        (0..5)
            .map(|_| machine.stranger(NOBODY, &["nc"], "sockets = 19900"))
            .collect()
    });
}

/// Whether `TCPF_BOUND_INACTIVE` is there (sock_diag(7); Linux 6.8).
fn knows_bound_sockets() -> bool {
    let names = nix::sys::utsname::uname().unwrap();
    let release = names.release().to_str().unwrap();
    let mut numbers = release
        .split(['.', '-'])
        .map(|part| part.parse().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(8))
}

/// Somebody takes the port as soon as the hung server is stopped.
fn grabbed(is_known: bool, answer: Option<&str>) {
    on_own_machine(MYVNC, |machine| {
        let server = machine.ours.start();
        if is_known {
            machine.run_healthy();
        }
        // The next one comes late.
        machine.ours.configure("bind-after = 300");
        let _client = machine.ours.idle_client();
        let answer = answer.map_or(String::new(), |status| format!("\nanswer = {status}"));
        let settings = format!("grab = 127.0.0.1:{PORT}{answer}");
        let taker = machine.look_alike(NOBODY, &settings);
        let ran = machine.run(machine.monitor().args(["--start-timeout", "2"]));
        assert!(!server.is_alive(), "{ran:?}");
        machine.assert_takeover(&taker, &ran);
        if is_known && !answer.is_empty() {
            let again = machine.run(&mut machine.patient_monitor());
            machine.assert_takeover(&taker, &again);
        }
    });
}

#[test]
fn hazard_28_the_port_is_taken_between_stop_and_start_and_answers() {
    grabbed(true, Some("200 OK"));
}

#[test]
fn hazard_28_the_port_is_taken_between_stop_and_start_and_is_silent() {
    grabbed(true, None);
}

#[test]
fn hazard_28_the_port_of_a_server_that_was_never_seen_healthy_is_taken() {
    grabbed(false, Some("200 OK"));
}

#[test]
fn moving_the_server_to_another_user_is_a_line_of_the_configuration() {
    on_own_machine(MYVNC, |machine| {
        machine.let_a_known_server_die();
        let moved = machine.ours.start_as(OTHER);
        let refused = machine.run(&mut machine.patient_monitor());
        assert_eq!(refused.code(), Some(1), "{refused:?}");
        let advice = "user = \"other\"";
        let mut errors = refused.errors().into_iter();
        assert!(errors.any(|line| line.contains(advice)), "{refused:?}");
        refused.assert_unharmed(&moved);
        let config = format!(
            "[server.main]\nurl = \"http://127.0.0.1:{PORT}\"\nrestart-cmd = \"{}\"\n{advice}\n\
                logfile = \"{}\"\nstate-dir = \"{}\"\n",
            machine.ours.restart_command(),
            machine.path("log/m.log").display(),
            machine.path("state").display()
        );
        let config = machine.make_file("monitor.toml", 0, 0o644, &config);
        let mut configured = Command::new(MONITOR);
        configured.arg("--config").arg(config);
        let accepted = machine.run(&mut configured);
        assert_eq!(accepted.code(), Some(0), "{accepted:?}");
        assert!(accepted.log.contains("✓ Server is healthy"), "{accepted:?}");
        assert!(accepted.errors().is_empty(), "{accepted:?}");
        // From then on it is known, with that line and without it.
        let said = |ran: &Ran| {
            ran.log
                .contains("[INFO] The server's recorded user changes from")
        };
        assert!(said(&accepted), "{accepted:?}");
        assert!(!said(&machine.run_healthy()), "it is said once");
        accepted.assert_unharmed(&moved);
    });
}

#[test]
fn moving_the_server_to_another_user_is_a_flag() {
    on_own_machine(MYVNC, |machine| {
        machine.let_a_known_server_die();
        let moved = machine.ours.start_as(OTHER);
        let accepted = machine.run(machine.patient_monitor().args(["--user", "other"]));
        assert_eq!(accepted.code(), Some(0), "{accepted:?}");
        machine.run_healthy();
        // The new owner's server is restarted like the old one's.
        let _client = machine.ours.idle_client();
        let healed = machine.run(machine.monitor().args(["--user", "other"]));
        machine.assert_healed(&healed);
        healed.assert_unharmed(&machine.other_server);
        assert!(!moved.is_alive(), "{healed:?}");
        assert_eq!(user_of(machine.ours.server()), OTHER, "{healed:?}");
    });
}

#[test]
fn hazard_53_listen_is_set_after_a_proxy_was_recorded() {
    on_own_machine(MYVNC, |machine| {
        let _server = machine.ours.start();
        let settings = format!("listen = 127.0.0.2:{PORT}\nanswer = 200 OK");
        let argv = ["haproxy", "-f", "/etc/haproxy/haproxy.cfg"];
        let proxy = machine.stranger(0, &argv, &settings);
        let url = format!("http://127.0.0.2:{PORT}");
        let before = machine.run(machine.patient_monitor().args(["--url", &url]));
        assert_eq!(before.code(), Some(0), "{before:?}");
        let listen = format!("127.0.0.1:{PORT}");
        let flags = ["--url", &url, "--listen", &listen];
        let healthy = machine.run(machine.patient_monitor().args(flags));
        assert_eq!(healthy.code(), Some(0), "{healthy:?}");
        assert!(healthy.errors().is_empty(), "{healthy:?}");
        let _client = machine.ours.idle_client();
        drop(proxy);
        let ran = machine.run(machine.monitor().args(flags));
        // As the server's user, not the proxy's.
        machine.assert_healed(&ran);
        assert_eq!(user_of(machine.ours.server()), MYVNC, "{ran:?}");
    });
}

#[test]
fn hazard_53_a_proxy_of_root_that_was_taken_for_the_server_hangs() {
    on_own_machine(MYVNC, |machine| {
        let _server = machine.ours.start();
        let settings = format!("listen = 127.0.0.2:{PORT}\nanswer = 200 OK");
        let argv = ["nginx:", "master", "process"];
        let proxy = machine.stranger(0, &argv, &settings);
        let flags = ["--url", &format!("http://127.0.0.2:{PORT}")];
        let before = machine.run(machine.patient_monitor().args(flags));
        assert_eq!(before.code(), Some(0), "{before:?}");
        kill(Pid::from_raw(proxy.pid), Signal::SIGSTOP).unwrap();
        let ran = machine.run(machine.monitor().args(flags));
        assert_eq!(ran.code(), Some(1), "{ran:?}");
        ran.assert_unharmed(&proxy);
        machine.assert_other_unharmed(&ran);
        assert!(machine.ours.answers(), "{ran:?}");
        let asks = |line: &&str| line.contains("if it is a proxy, set listen");
        assert!(ran.errors().iter().any(asks), "{ran:?}");
        let state = fs::read_to_string(format!("/proc/{}/stat", proxy.pid)).unwrap();
        assert!(state.contains(") T "), "no SIGCONT was sent: {state}");
    });
}

#[test]
fn the_record_of_the_server_stands_in_the_state_directory() {
    on_own_machine(MYVNC, |machine| {
        let server = machine.ours.start();
        machine.run_healthy();
        let file = machine.path(&format!("state/127.0.0.1_{PORT}.json"));
        let record = fs::read_to_string(&file).unwrap().replace(' ', "");
        assert!(
            record.contains(&format!("\"pid\":{}", server.pid)),
            "{record}"
        );
        assert!(record.contains(&format!("\"uid\":{MYVNC}")), "{record}");
        // Nobody else can write it, and not all can read it.
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o027, 0);
        // It is written when it changes.
        let written = fs::metadata(&file).unwrap().ino();
        machine.run_healthy();
        assert_eq!(fs::metadata(&file).unwrap().ino(), written);
    });
}

#[test]
fn hazard_45_what_a_user_already_has_keeps_its_owner_and_mode() {
    on_own_machine(MYVNC, |machine| {
        for directory in ["hers", "hers/state"] {
            machine.make_directory(directory, MYVNC, 0o750);
        }
        let files = [
            "hers/m.log",
            "hers/m.restart.log",
            "hers/.m.lock",
            &format!("hers/state/127.0.0.1_{PORT}.lock"),
        ];
        for file in files {
            machine.make_file(file, MYVNC, 0o600, "");
        }
        let mut monitor = machine.monitor();
        monitor.arg("--logfile").arg(machine.path("hers/m.log"));
        monitor.arg("--state-dir").arg(machine.path("hers/state"));
        let ran = machine.run(&mut monitor);
        assert_eq!(ran.code(), Some(0), "{ran:?}");
        assert!(machine.ours.answers(), "{ran:?}");
        for file in files {
            let metadata = fs::metadata(machine.path(file)).unwrap();
            let (owner, mode) = (metadata.uid(), metadata.mode() & 0o777);
            assert_eq!((owner, mode), (MYVNC, 0o600), "{file}");
        }
        for written in &files[..2] {
            assert!(
                fs::metadata(machine.path(written)).unwrap().len() > 0,
                "{written}"
            );
        }
    });
}

#[test]
fn a_healthy_run_reads_of_no_other_process() {
    on_own_machine(MYVNC, |machine| {
        if !rig::has_strace() {
            return rig::skip("strace is not installed");
        }
        let _server = machine.ours.start();
        machine.run_healthy();
        let trace = machine.path("trace");
        machine.wrapper = ["strace", "-f", "-qq", "-o"].map(Into::into).to_vec();
        machine.wrapper.push(trace.clone().into());
        let reads = |text: &str| {
            let place = regex_lite::Regex::new(r#"\("/proc/?"|AT_FDCWD, "/proc/?"|"(/proc/)?\d+/"#);
            text.lines()
                .filter(|line| place.as_ref().unwrap().is_match(line))
                .count()
        };
        machine.run_healthy();
        let text = fs::read_to_string(&trace).unwrap();
        assert_eq!(reads(&text), 0, "{text}");
        // What a search reads is seen so.
        machine.ours.kill();
        machine.run(machine.monitor().arg("--dry-run"));
        assert!(reads(&fs::read_to_string(&trace).unwrap()) > 3);
    });
}

/// The system calls of a healthy run that is not the first one, one a line. Of several runs, that with the fewest: how
/// often a run waits is chance.
fn traced(machine: &mut Machine, name: &str, url: &str) -> Vec<String> {
    let state = machine.path(name);
    let trace = machine.path("trace");
    let strace = ["strace", "-f", "-qq", "-e", "signal=none", "-o"].map(Into::into);
    let strace = [strace.to_vec(), vec![trace.clone().into()]].concat();
    let mut runs = Vec::new();
    for wrapper in [vec![Vec::new()], vec![strace; 5]].concat() {
        machine.wrapper = wrapper;
        let mut monitor = machine.patient_monitor();
        let ran = machine.run(monitor.args(["--url", url]).arg("--state-dir").arg(&state));
        assert_eq!(ran.code(), Some(0), "{ran:?}");
        let text = fs::read_to_string(&trace).unwrap_or_default();
        // Rust's standard library checks each descriptor before it closes it, in a build for tests only.
        let is_call = |line: &&str| !["resumed>", "F_GETFD)"].iter().any(|no| line.contains(no));
        runs.push(text.lines().filter(is_call).map(str::to_owned).collect());
    }
    runs.into_iter().skip(1).min_by_key(Vec::len).unwrap()
}

#[test]
fn a_healthy_run_makes_ten_system_calls_at_most_for_the_record() {
    on_own_machine(MYVNC, |machine| {
        if Command::new("strace").arg("-V").output().is_err() {
            return rig::skip("strace is not installed");
        }
        let settings = format!("listen = 0.0.0.0:{PORT}");
        machine.ours.configure(&settings);
        let _server = machine.ours.start();
        let with = traced(machine, "with", &format!("http://127.0.0.1:{PORT}"));
        // This host takes connections to an address that is none of its own. So the run finds the server on another
        // host, and does nothing of the record.
        let mut ip = Command::new("ip");
        ip.args(["route", "add", "local", "10.9.9.0/24", "dev", "lo"]);
        assert!(ip.status().unwrap().success());
        let without = traced(machine, "without", &format!("http://10.9.9.9:{PORT}"));
        let count =
            |calls: &[String], text: &str| calls.iter().filter(|call| call.contains(text)).count();
        let [request, addresses] = ["NETLINK_SOCK_DIAG) =", "NETLINK_ROUTE) ="];
        assert_eq!((count(&with, request), count(&with, addresses)), (1, 0));
        assert_eq!(
            (count(&without, request), count(&without, addresses)),
            (0, 1)
        );
        // That no address of this host is the server's is seen in a list of them, which the other run does not read.
        let begin = without.iter().position(|call| call.contains(addresses));
        let list = without.iter().skip(begin.unwrap());
        let list = list.take_while(|call| !call.contains(" close(")).count() + 1;
        let more = with.len().saturating_sub(without.len() - list);
        assert!(
            (3..=10).contains(&more),
            "{more} more:\n{}",
            with.join("\n")
        );
        let of_others = r#"\((AT_FDCWD, |\d+, )?"(/proc/)?\d+["/]|process_vm_|ptrace\(|pidfd_"#;
        let of_others = regex_lite::Regex::new(of_others).unwrap();
        let of_others: Vec<&String> = with
            .iter()
            .filter(|call| of_others.is_match(call))
            .collect();
        assert_eq!(of_others, Vec::<&String>::new());
    });
}

#[test]
fn hazard_25_a_record_of_a_process_that_is_another_one_now() {
    on_own_machine(MYVNC, |machine| {
        let server = machine.ours.start();
        machine.run_healthy();
        let pid = server.pid;
        drop(server);
        let file = machine.path(&format!("state/127.0.0.1_{PORT}.json"));
        let record = fs::read_to_string(&file).unwrap();
        for stranger in [
            machine.look_alike(NOBODY, ""),
            machine.look_alike(MYVNC, ""),
            machine.stranger(MYVNC, &["sleep", "999"], ""),
        ] {
            fs::write(&file, of_pid(&record, pid, stranger.pid)).unwrap();
            let ran = machine.run(&mut machine.monitor());
            machine.assert_healed(&ran);
            ran.assert_unharmed(&stranger);
            machine.ours.kill();
        }
        // The other MyVNC, too.
        let other = of_pid(&record, pid, machine.other_server.pid);
        fs::write(&file, other).unwrap();
        let ran = machine.run(&mut machine.monitor());
        machine.assert_healed(&ran);
    });
}

/// The record with the PID of another process in it.
fn of_pid(record: &str, pid: i32, other: i32) -> String {
    let key = record.find("\"pid\"").unwrap();
    let (before, after) = record.split_at(key);
    let changed = after.replacen(&pid.to_string(), &other.to_string(), 1);
    assert_ne!(changed, after);
    before.to_owned() + &changed
}

#[test]
fn hazard_25_a_state_file_of_garbage() {
    on_own_machine(MYVNC, |machine| {
        machine.make_directory("state", 0, 0o700);
        let other = machine.other_server.pid;
        for (number, text) in [
            String::new(),
            "{".to_owned(),
            "\0".repeat(9000),
            format!("{{\"known\":{{\"pid\":{other}}}}}"),
            "[".repeat(100_000),
        ]
        .iter()
        .enumerate()
        {
            machine.make_file(&format!("state/127.0.0.1_{PORT}.json"), 0, 0o600, text);
            let ran = machine.run(&mut machine.monitor());
            machine.assert_healed(&ran);
            machine.ours.kill();
            assert!(ran.run.took < DELAYED, "{number}: {ran:?}");
        }
    });
}

/// Somebody listens on the other address of the name `localhost`.
fn on_the_other_address(machine: &Machine, answer: Option<&str>) -> Process {
    let answer = answer.map_or(String::new(), |status| format!("\nanswer = {status}"));
    machine.look_alike(NOBODY, &format!("listen = [::1]:{PORT}{answer}"))
}

const ANSWERS: [Option<&str>; 3] = [None, Some("200 OK"), Some("500 Broken")];

fn localhost() -> [String; 2] {
    ["--url".to_owned(), format!("http://localhost:{PORT}")]
}

#[test]
fn hazard_27_a_squatter_on_the_other_address_does_not_make_a_healthy_server_sick() {
    on_own_machine(MYVNC, |machine| {
        let server = machine.ours.start();
        let known = machine.run(machine.patient_monitor().args(localhost()));
        assert_eq!(known.code(), Some(0), "{known:?}");
        for answer in ANSWERS {
            let squatter = on_the_other_address(machine, answer);
            let ran = machine.run(machine.patient_monitor().args(localhost()));
            assert_eq!(ran.code(), Some(0), "{ran:?}");
            assert!(ran.log.contains("✓ Server is healthy"), "{ran:?}");
            ran.assert_unharmed(&server);
            ran.assert_unharmed(&squatter);
            assert!(ran.run.took < Duration::from_secs(5), "{ran:?}");
        }
    });
}

#[test]
fn hazard_27_a_silent_squatter_on_the_other_address_of_a_server_that_was_never_seen() {
    on_own_machine(MYVNC, |machine| {
        let server = machine.ours.start();
        let squatter = on_the_other_address(machine, None);
        let mut monitor = machine.monitor();
        monitor.args(localhost()).args(["--timeout", "4"]);
        let ran = machine.run(&mut monitor);
        assert_eq!(ran.code(), Some(0), "{ran:?}");
        ran.assert_unharmed(&server);
        ran.assert_unharmed(&squatter);
        machine.assert_other_unharmed(&ran);
    });
}

/// A server that is dead or hung is restarted, whoever listens on the other address of its name.
fn heals_beside_the_other_address(hangs: bool, is_known: bool) {
    on_own_machine(MYVNC, |machine| {
        let mut flags = localhost().to_vec();
        if !is_known {
            flags.extend(["--listen".to_owned(), format!("127.0.0.1:{PORT}")]);
        }
        for answer in ANSWERS {
            let server = machine.ours.start();
            if is_known {
                let known = machine.run(machine.patient_monitor().args(&flags));
                assert_eq!(known.code(), Some(0), "{known:?}");
            }
            let squatter = on_the_other_address(machine, answer);
            let client = hangs.then(|| machine.ours.idle_client());
            if !hangs {
                machine.ours.kill();
            }
            let ran = machine.run(machine.monitor().args(&flags));
            machine.assert_healed(&ran);
            ran.assert_unharmed(&squatter);
            assert!(!server.is_alive(), "{ran:?}");
            drop(client);
            machine.ours.kill();
        }
    });
}

#[test]
fn hazard_27_a_known_hung_server_beside_the_other_address() {
    heals_beside_the_other_address(true, true);
}

#[test]
fn hazard_27_a_known_dead_server_beside_the_other_address() {
    heals_beside_the_other_address(false, true);
}

#[test]
fn hazard_27_a_hung_server_with_listen_beside_the_other_address() {
    heals_beside_the_other_address(true, false);
}

#[test]
fn hazard_27_a_dead_server_with_listen_beside_the_other_address() {
    heals_beside_the_other_address(false, false);
}

#[test]
fn hazard_53_the_server_is_dead_behind_a_proxy_of_another_user() {
    on_own_machine(MYVNC, |machine| {
        let settings = format!("listen = 127.0.0.2:{PORT}\nanswer = 503 Service Unavailable");
        let argv = ["haproxy", "-f", "/etc/haproxy/haproxy.cfg"];
        let proxy = machine.stranger(OTHER, &argv, &settings);
        let mut monitor = machine.patient_monitor();
        monitor.args(["--url", &format!("http://127.0.0.2:{PORT}")]);
        monitor.args(["--listen", &format!("127.0.0.1:{PORT}")]);
        let ran = heal_until_diagnosed(|| {
            let _ = fs::remove_dir_all(machine.path("state"));
            machine.ours.kill();
            let ran = machine.run(&mut monitor);
            assert!(machine.ours.answers(), "{ran:?}");
            ran.assert_unharmed(&proxy);
            machine.assert_other_unharmed(&ran);
            assert_eq!(ran.code(), Some(0), "{ran:?}");
            // It waits for the server's own port, not for what a proxy says.
            assert!(ran.run.took < Duration::from_secs(10), "{ran:?}");
            ran
        });
        let causes = ran.warnings_with("Cause: ");
        assert!(causes[0].contains("not running"), "{ran:?}");
    });
}

/// A state directory that cannot be used costs one warning, which gives the reason, and nothing else.
fn without_a_state_directory(
    reason: Option<&str>,
    make: impl FnOnce(&mut Machine) -> Option<(std::path::PathBuf, Option<rig::dead_disk::DeadDisk>)>,
) {
    on_own_machine(MYVNC, |machine| {
        let Some((directory, _dead)) = make(machine) else {
            return rig::skip("no file system in user space can be mounted here");
        };
        let named = directory.display().to_string();
        let flags = ["--state-dir", &named];
        let check = |ran: &Ran| {
            machine.assert_healed(ran);
            let warnings = ran.warnings_with(&named);
            assert_eq!(warnings.len(), reason.iter().count(), "{ran:?}");
            assert!(
                warnings.iter().all(|line| line.contains(reason.unwrap())),
                "{ran:?}"
            );
            assert!(ran.errors().len() <= 1, "{ran:?}");
            assert!(ran.run.took < DELAYED, "{ran:?}");
        };
        check(&machine.run(machine.monitor().args(flags)));
        let healthy = machine.run(machine.patient_monitor().args(flags));
        assert_eq!(healthy.code(), Some(0), "{healthy:?}");
        assert!(healthy.log.contains("✓ Server is healthy"), "{healthy:?}");
        assert!(healthy.warnings_with(&named).len() <= 1, "{healthy:?}");
        assert!(healthy.run.took < Duration::from_secs(5), "{healthy:?}");
        let _client = machine.ours.idle_client();
        check(&machine.run(machine.monitor().args(flags)));
    });
}

#[test]
fn hazard_32_a_state_directory_without_space() {
    without_a_state_directory(Some(": No space left on device; "), |machine| {
        let directory = machine.mount_tmpfs("state", MsFlags::empty(), "size=4k");
        fs::write(directory.join("filler"), [b'x'; 4096]).unwrap();
        assert!(fs::write(directory.join("more"), "x").is_err());
        fs::remove_file(directory.join("more")).unwrap();
        Some((directory, None))
    });
}

#[test]
fn hazard_32_a_state_directory_without_its_parent() {
    without_a_state_directory(None, |machine| Some((machine.path("not/there/yet"), None)));
}

#[test]
fn hazard_32_a_state_directory_on_a_disk_that_does_not_answer() {
    without_a_state_directory(Some(": it does not respond within 1 s; "), |machine| {
        let directory = machine.path("dead");
        let dead = rig::dead_disk::DeadDisk::mount(&directory)?;
        Some((directory, Some(dead)))
    });
}

/// Lines in the form of the server's own log, as if written just now.
fn server_log(texts: &[&str]) -> String {
    let now = chrono::Local::now().format("%Y-%m-%d %H:%M:%S,123");
    let lines = texts
        .iter()
        .map(|text| format!("{now} - myvnc - INFO - server.py:294 - {text}\n"));
    lines.collect()
}

/// Looks at the healthy server, and lets a run restore it once it is blocked, with the server's own log there.
#[track_caller]
fn heal_with_server_log(machine: &Machine, server_log: &Path) -> Ran {
    let mut look = machine.patient_monitor();
    look.arg("--collect-diagnostics");
    let looked = machine.run(look.arg("--server-log").arg(server_log));
    assert_eq!(looked.code(), Some(0), "{looked:?}");
    for shown in [&looked.log, &looked.run.stdout] {
        assert!(!shown.contains("hunter2"), "{looked:?}");
    }
    let _client = machine.ours.idle_client();
    let mut monitor = machine.monitor();
    let ran = machine.run(monitor.arg("--server-log").arg(server_log));
    machine.assert_healed(&ran);
    ran
}

#[test]
fn hazard_42_a_file_of_root_is_no_server_log() {
    on_own_machine(MYVNC, |machine| {
        let _server = machine.ours.start();
        machine.run_healthy();
        let private = server_log(&["hunter2 of root"]);
        machine.make_directory("private", 0, 0o755);
        let secret = machine.make_file("private/secret.log", 0, 0o600, &private);
        let logs = machine.make_directory("logs", MYVNC, 0o755);
        // The server's own private log is shown, to see that something is.
        machine.make_file(
            "logs/own.log",
            MYVNC,
            0o600,
            &server_log(&["of the server"]),
        );
        let own = heal_until_diagnosed(|| heal_with_server_log(machine, &logs.join("*.log")));
        assert!(own.log.contains("of the server"), "{own:?}");
        fs::remove_file(logs.join("own.log")).unwrap();
        symlink(&secret, logs.join("link.log")).unwrap();
        fs::hard_link(&secret, logs.join("hard.log")).unwrap();
        machine.make_directory("evil/pub", NOBODY, 0o755);
        symlink(machine.path("private"), machine.path("evil/pub/swapped")).unwrap();
        for place in ["logs/*.log", "evil/pub/swapped/*.log"] {
            let ran = heal_with_server_log(machine, &machine.path(place));
            assert!(!ran.log.contains("hunter2"), "{ran:?}");
            assert!(!ran.run.stdout.contains("hunter2"), "{ran:?}");
        }
    });
}

#[test]
fn hazard_42_a_file_of_a_third_user_is_no_server_log() {
    on_own_machine(MYVNC, |machine| {
        let _server = machine.ours.start();
        machine.run_healthy();
        machine.make_directory("theirs", OTHER, 0o755);
        machine.make_file("theirs/a.log", OTHER, 0o600, &server_log(&["hunter2"]));
        let ran = heal_with_server_log(machine, &machine.path("theirs/*.log"));
        assert!(!ran.log.contains("hunter2"), "{ran:?}");
    });
}

#[test]
fn hazard_42_a_directory_is_swapped_while_root_looks_for_the_log_of_its_server() {
    on_own_machine(0, |machine| {
        let _server = machine.ours.start();
        machine.run_healthy();
        machine.make_directory("private", 0, 0o755);
        let private = server_log(&["hunter2 of root"]);
        machine.make_file("private/a.log", 0, 0o600, &private);
        machine.make_directory("evil/here", NOBODY, 0o755);
        machine.make_file("evil/here/a.log", NOBODY, 0o644, &server_log(&["bait"]));
        symlink(machine.path("private"), machine.path("evil/link")).unwrap();
        let pattern = machine.path("evil/here/*.log");
        // At rest first: what root's server may read is not what a stranger leads to.
        fs::rename(machine.path("evil/here"), machine.path("evil/aside")).unwrap();
        fs::rename(machine.path("evil/link"), machine.path("evil/here")).unwrap();
        let ran = heal_with_server_log(machine, &pattern);
        assert!(!ran.log.contains("hunter2"), "{ran:?}");
        let [here, aside] = ["evil/here", "evil/aside"].map(|name| machine.path(name));
        let swap = format!("swap = {} {}", here.display(), aside.display());
        let _swapping = machine.stranger(NOBODY, &["swap"], &swap);
        for _ in 0..3 {
            let ran = heal_with_server_log(machine, &pattern);
            assert!(!ran.log.contains("hunter2"), "{ran:?}");
        }
    });
}

#[test]
fn hazard_41_sessions_and_cookies_in_the_servers_log_reach_no_log() {
    on_own_machine(MYVNC, |machine| {
        // As myvnc/web/server.py and myvnc/utils/auth_manager.py write them.
        let texts = [
            "Login successful for ada, setting cookie for host: vm",
            "Cookie header: session_id=hunter01; theme=hunter02",
            "Found Cookie header: theme=hunter03; session_id=hunter04",
            "Cookie being set: session_id=hunter05; Path=/; HttpOnly; Max-Age=604800",
            "Setting session cookie: session_id=hunter06..., Max-Age=604800",
            "All cookies in request: ['session_id=hunter07', 'theme=hunter08']",
            "Extracted session_id directly: hunter09",
            "Parsed session_id cookie: hunter10",
            "Session ID from cookie: hunter11...",
            "Validating session ID: hunter12",
            "Created fallback session ID: hunter13",
            "Created new session for user ada: hunter14...",
            "Session check: {'session_id': 'hunter15', 'user': 'ada'}",
            "Session check: {\"session_id\": \"hunter16\", \"user\": \"ada\"}",
            "\"GET /session?session_id=hunter17 HTTP/1.1\" 200 -",
            "Set-Cookie: session_id=hunter18; Path=/",
            "Authorization: Basic hunter19",
            "headers: {'Cookie': 'session_id=hunter20', 'Authorization': 'Bearer hunter21'}",
            "done",
        ];
        machine.make_directory("logs", MYVNC, 0o755);
        let log = machine.make_file("logs/myvnc_1.log", MYVNC, 0o644, &server_log(&texts));
        let _server = machine.ours.start();
        let _client = machine.ours.idle_client();
        let ran = machine.run(machine.monitor().arg("--server-log").arg(log));
        machine.assert_healed(&ran);
        let leaked: Vec<_> = ran
            .log
            .lines()
            .filter(|line| line.contains("hunter"))
            .collect();
        assert!(leaked.is_empty(), "{leaked:#?}");
        assert!(!ran.run.stdout.contains("hunter"), "{ran:?}");
        for shown in ["Login successful for ada", "done"] {
            assert!(ran.log.contains(shown), "{ran:?}");
        }
    });
}

/// A run with its log there heals the dead server, and says so somewhere.
fn heal_with_log(machine: &Machine, log: &Path) -> Ran {
    let ran = machine.run(machine.monitor().arg("--logfile").arg(log));
    assert!(machine.ours.answers(), "{ran:?}");
    machine.assert_other_unharmed(&ran);
    machine.ours.kill();
    ran
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

#[test]
fn hazard_42_a_log_directory_that_is_a_link_of_a_stranger() {
    on_own_machine(MYVNC, |machine| {
        let roots = machine.make_directory("roots", 0, 0o755);
        let link = machine.path("evil/logs");
        symlink(&roots, &link).unwrap();
        std::os::unix::fs::lchown(&link, Some(NOBODY), Some(NOBODY)).unwrap();
        let ran = heal_with_log(machine, &link.join("m.log"));
        assert_eq!(names_in(&roots), [""; 0], "{ran:?}");
        assert_eq!(ran.code(), Some(1), "{ran:?}");
        let named = link.display().to_string();
        assert!(ran.run.stderr.contains(&named), "{ran:?}");
    });
}

#[test]
fn hazard_42_a_log_directory_that_its_owner_swaps() {
    on_own_machine(MYVNC, |machine| {
        let _server = machine.ours.start();
        let roots = machine.make_directory("roots", 0, 0o755);
        let here = machine.make_directory("evil/here", NOBODY, 0o755);
        let link = machine.path("evil/link");
        symlink(&roots, &link).unwrap();
        let swap = format!("swap = {} {}", here.display(), link.display());
        let _swapping = machine.stranger(NOBODY, &["swap"], &swap);
        for _ in 0..40 {
            machine.run(
                machine
                    .patient_monitor()
                    .arg("--logfile")
                    .arg(here.join("m.log")),
            );
            assert_eq!(names_in(&roots), [""; 0]);
        }
    });
}

#[test]
fn hazard_42_links_in_a_directory_that_a_group_can_write_to() {
    on_own_machine(MYVNC, |machine| {
        let roots = machine.make_directory("roots", 0, 0o755);
        let logs = machine.make_directory("varlog", 0, 0o775);
        std::os::unix::fs::chown(&logs, Some(0), Some(OTHER)).unwrap();
        // As /var/log of Ubuntu, root:syslog: a log in there is nothing unusual.
        let usual = heal_with_log(machine, &logs.join("usual.log"));
        assert_eq!(usual.code(), Some(0), "{usual:?}");
        for name in ["m.log", ".m.lock", "m.restart.log"] {
            symlink(roots.join(name), logs.join(name)).unwrap();
            std::os::unix::fs::lchown(logs.join(name), Some(OTHER), Some(OTHER)).unwrap();
        }
        let ran = heal_with_log(machine, &logs.join("m.log"));
        assert_eq!(names_in(&roots), [""; 0], "{ran:?}");
    });
}

#[test]
fn hazard_15_the_owner_of_the_logs_directory_keeps_no_run_out() {
    on_own_machine(MYVNC, |machine| {
        chown(machine.path("log"), Some(NOBODY), Some(NOBODY)).unwrap();
        machine.let_a_known_server_die();
        let lock = machine.path("log/.m.lock").display().to_string();
        assert_eq!(fs::metadata(&lock).unwrap().uid(), NOBODY);
        // The one who took the lock holds it, or has ended and left it to another.
        for (script, is_known) in [
            ("exec flock -o LOCK sh -c 'echo held; read line'", true),
            ("exec 9<>LOCK; flock 9; echo held; read line", false),
        ] {
            let mut holder = Command::new("sh");
            holder
                .args(["-c", &script.replace("LOCK", &lock)])
                .uid(NOBODY)
                .gid(NOBODY)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped());
            let mut holder = Process::from(holder.spawn().unwrap());
            let mut said = [0; 5];
            let output = holder.child.stdout.as_mut().unwrap();
            output.read_exact(&mut said).unwrap();
            let who = if is_known {
                format!("PID {} of user nobody holds it", holder.pid)
            } else {
                "a process that cannot be found holds it, and user nobody can open it".to_owned()
            };
            let ran = machine.run(&mut machine.monitor());
            assert_eq!(ran.code(), Some(1), "{ran:?}");
            assert!(machine.ours.answers(), "{ran:?}");
            machine.assert_other_unharmed(&ran);
            let expected = format!(
                "Cannot use the run lock {lock}: {who}; this run continues without it, so another run can work at the \
                 same time: give another --logfile, in a directory that no other user can change"
            );
            assert!(ran.errors()[0].ends_with(&expected), "{ran:?}");
            drop(holder.child.stdin.take());
            holder.child.wait().unwrap();
            machine.ours.kill();
        }
    });
}

#[test]
fn a_run_of_root_beside_the_log_of_another_user_keeps_the_next_one_out() {
    on_own_machine(MYVNC, |machine| {
        chown(machine.path("log"), Some(NOBODY), Some(NOBODY)).unwrap();
        let mut holder = machine.monitor();
        holder.args(["--retries", "1", "--retry-delay", "600", "--quiet"]);
        let holder = Process::from(holder.spawn().unwrap());
        wait_until("the run waits", || {
            machine.log().contains("Check 1 of 2 failed")
        });
        let ran = machine.run(&mut machine.monitor());
        assert_eq!(ran.code(), Some(0), "{ran:?}");
        let expected = format!("Another run holds the lock (PID: {}, for ", holder.pid);
        assert!(ran.log.contains(&expected), "{ran:?}");
    });
}

#[test]
fn hazard_43_a_hard_link_is_neither_changed_nor_emptied() {
    on_own_machine(MYVNC, |machine| {
        for name in [".m.lock", "m.log", "m.restart.log"] {
            let logs = machine.make_directory(&format!("logs{name}"), NOBODY, 0o755);
            let roots = machine.make_file(&format!("of-root{name}"), 0, 0o644, "precious\n");
            fs::hard_link(&roots, logs.join(name)).unwrap();
            let ran = heal_with_log(machine, &logs.join("m.log"));
            assert_eq!(
                fs::read_to_string(&roots).unwrap(),
                "precious\n",
                "{name}: {ran:?}"
            );
            assert_eq!(
                fs::metadata(&roots).unwrap().mode() & 0o777,
                0o644,
                "{name}"
            );
            assert_eq!(fs::metadata(&roots).unwrap().uid(), 0, "{name}");
        }
    });
}

#[test]
fn hazard_43_a_state_directory_of_a_stranger_leads_nowhere() {
    on_own_machine(MYVNC, |machine| {
        let _server = machine.ours.start();
        for (number, is_hard) in [true, false].into_iter().enumerate() {
            let state = machine.make_directory(&format!("evil/state{number}"), NOBODY, 0o777);
            let roots = machine.make_file(&format!("roots{number}"), 0, 0o644, "precious\n");
            for name in ["127.0.0.1", "localhost"] {
                for kind in ["json", "lock", "last", "history.jsonl", "pause", "outbox"] {
                    let name = state.join(format!("{name}_{PORT}.{kind}"));
                    if is_hard {
                        fs::hard_link(&roots, name).unwrap();
                    } else {
                        symlink(&roots, name).unwrap();
                    }
                }
            }
            let mut monitor = machine.patient_monitor();
            let healthy = machine.run(monitor.arg("--state-dir").arg(&state));
            assert_eq!(healthy.code(), Some(0), "{healthy:?}");
            machine.ours.kill();
            let ran = machine.run(machine.monitor().arg("--state-dir").arg(&state));
            machine.assert_healed(&ran);
            assert_eq!(fs::read_to_string(&roots).unwrap(), "precious\n", "{ran:?}");
            assert_eq!(fs::metadata(&roots).unwrap().mode() & 0o777, 0o644);
        }
    });
}

/// Another monitor in the middle of a restart, run as cron runs it, whose every command line names our server.
struct OtherMonitor {
    _shell: Process,
    pids: Vec<i32>,
}

impl OtherMonitor {
    fn new(machine: &Machine, program: &Path) -> Self {
        let log = machine.path("log/another.log");
        let script = machine.ours.path("myvnc/main.py").display().to_string();
        let line = format!(
            "timeout 90 flock -n {} sh -c '{} --url http://127.0.0.1:9300 --logfile {} --state-dir {} \
            --start-timeout 60 --restart-cmd \"sleep 60; : python3 {script}\"; exit $?'; exit $?",
            machine.path("another.lock").display(),
            program.display(),
            log.display(),
            machine.path("another-state").display(),
        );
        let mut shell = Command::new("setsid");
        shell.args(["sh", "-c", &line]).stdin(Stdio::null());
        let shell = shell.stdout(Stdio::null()).stderr(Stdio::null());
        let shell = Process::from(shell.spawn().unwrap());
        // The shell, timeout, flock, its shell, the monitor, the restart command, and sleep.
        let mut pids = Vec::new();
        wait_until("the other monitor restarts", || {
            pids = family(shell.pid);
            let log = fs::read_to_string(&log).unwrap_or_default();
            log.contains("Starting server with command") && pids.len() == 7
        });
        Self {
            _shell: shell,
            pids,
        }
    }
}

#[test]
fn a_pause_by_root_in_a_users_state_directory_holds_for_the_runs_of_that_user_and_says_so() {
    on_own_machine(OTHER, |machine| {
        let _server = machine.ours.start();
        machine.run_healthy();
        let state = machine.path("state");
        Command::new("chown")
            .args(["-R", &OTHER.to_string()])
            .arg(&state)
            .status()
            .unwrap();
        let mut pause = Command::new(MONITOR);
        pause
            .args(["pause", "--for", "1h", "--state-dir"])
            .arg(&state);
        let paused = pause.output().unwrap();
        let said = String::from_utf8(paused.stdout).unwrap();
        assert_eq!(paused.status.code(), Some(0), "{said}");
        let whose = "only the runs of user other heed this, not those of root";
        assert!(said.contains(whose), "{said}");
        machine.ours.kill();
        chown(machine.path("log"), Some(OTHER), None).unwrap();
        fs::remove_file(machine.path("log/.m.lock")).unwrap();
        fs::remove_file(machine.path("log/m.log")).unwrap();
        let mut monitor = machine.monitor();
        let ran = machine.run(monitor.uid(OTHER).gid(OTHER));
        assert!(ran.log.contains("the monitor is paused until"), "{ran:?}");
        let ran = machine.run(&mut machine.monitor());
        assert!(!ran.log.contains("the monitor is paused until"), "{ran:?}");
    });
}

/// A process and all that descend from it.
fn family(pid: i32) -> Vec<i32> {
    let mut pids = vec![pid];
    let mut next = 0;
    while let Some(pid) = pids.get(next) {
        let children = format!("/proc/{pid}/task/{pid}/children");
        let children = fs::read_to_string(children).unwrap_or_default();
        pids.extend(
            children
                .split_whitespace()
                .map(|pid| pid.parse::<i32>().unwrap()),
        );
        next += 1;
    }
    pids
}

/// With a pattern that all of them match, our hung server is restarted and nothing of another monitor is touched.
fn beside_another_monitor(make: impl FnOnce(&Machine) -> std::path::PathBuf, is_deleted: bool) {
    on_own_machine(MYVNC, |machine| {
        let program = make(machine);
        let another = OtherMonitor::new(machine, &program);
        if is_deleted {
            fs::remove_file(program).unwrap();
        }
        let server = machine.ours.start();
        let client = machine.ours.idle_client();
        let pattern = ["--process-pattern", "ours/myvnc/main[.]py"];
        let hung = machine.run(machine.monitor().args(pattern));
        machine.assert_healed(&hung);
        assert!(!server.is_alive(), "{hung:?}");
        assert_all_unharmed(&another, &hung);
        drop(client);
        machine.ours.kill();
        let dead = machine.run(machine.monitor().args(pattern));
        machine.assert_healed(&dead);
        assert_all_unharmed(&another, &dead);
    });
}

fn assert_all_unharmed(another: &OtherMonitor, ran: &Ran) {
    for pid in &another.pids {
        assert!(
            is_alive(*pid),
            "PID {pid} of {:?} died: {ran:?}",
            another.pids
        );
        let sent = format!("Sent SIGTERM to PID {pid}\n");
        assert!(!ran.log.contains(&sent), "{ran:?}");
    }
}

fn copy_of_the_monitor(machine: &Machine, name: &str) -> std::path::PathBuf {
    let copy = machine.path(name);
    fs::copy(MONITOR, &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    copy
}

#[test]
fn hazard_29_another_monitor_its_wrappers_and_its_restart_command() {
    beside_another_monitor(|_| MONITOR.into(), false);
}

#[test]
fn hazard_29_a_renamed_copy_of_the_monitor() {
    beside_another_monitor(|machine| copy_of_the_monitor(machine, "watch"), false);
}

#[test]
fn hazard_29_a_monitor_whose_program_was_deleted() {
    beside_another_monitor(
        |machine| copy_of_the_monitor(machine, "monitor_myvnc"),
        true,
    );
}

#[test]
fn hazard_29_a_renamed_copy_of_the_monitor_whose_program_was_deleted() {
    beside_another_monitor(|machine| copy_of_the_monitor(machine, "watch"), true);
}

#[test]
fn hazard_29_a_process_that_became_another_one_after_the_search() {
    on_own_machine(MYVNC, |machine| {
        let marker = machine.path("dumping").display().to_string();
        let script = machine.ours.path("myvnc/main.py").display().to_string();
        let argv = ["python3", &script, "--port", "9143"];
        let changing = machine.stranger(MYVNC, &argv, &format!("exec-after = {marker}"));
        let server = machine.ours.start();
        let _client = machine.ours.idle_client();
        let dump = format!(
            "touch {marker}; until grep -qx sleep /proc/{}/comm; do sleep 0.02; done",
            changing.pid
        );
        let mut monitor = machine.monitor();
        monitor.args([
            "--process-pattern",
            "ours/myvnc/main[.]py",
            "--dump-cmd",
            &dump,
        ]);
        let ran = machine.run(&mut monitor);
        machine.assert_healed(&ran);
        ran.assert_unharmed(&changing);
        assert!(!server.is_alive(), "{ran:?}");
    });
}

#[test]
fn hazard_29_a_dead_server_and_a_process_that_became_another_one() {
    on_own_machine(MYVNC, |machine| {
        let marker = machine.path("dumping").display().to_string();
        let script = machine.ours.path("myvnc/main.py").display().to_string();
        let changing = machine.stranger(
            MYVNC,
            &["python3", &script],
            &format!("exec-after = {marker}"),
        );
        let dump = format!(
            "touch {marker}; until grep -qx sleep /proc/{}/comm; do sleep 0.02; done",
            changing.pid
        );
        let mut monitor = machine.monitor();
        monitor.args([
            "--process-pattern",
            "ours/myvnc/main[.]py",
            "--dump-cmd",
            &dump,
        ]);
        let ran = machine.run(&mut monitor);
        ran.assert_unharmed(&changing);
        machine.assert_healed(&ran);
    });
}

#[test]
fn hazard_28_who_holds_the_port_and_became_another_program_is_named() {
    on_own_machine(MYVNC, |machine| {
        machine.let_a_known_server_die();
        let marker = machine.path("dumping").display().to_string();
        let settings = format!("listen = 127.0.0.1:{PORT}\nexec-after = {marker}");
        let squatter = machine.look_alike(NOBODY, &settings);
        let dump = format!(
            "touch {marker}; until grep -qx sleep /proc/{}/comm; do sleep 0.02; done",
            squatter.pid
        );
        let ran = machine.run(machine.monitor().args(["--dump-cmd", &dump]));
        assert_eq!(ran.code(), Some(1), "{ran:?}");
        ran.assert_unharmed(&squatter);
        let errors = ran.errors().concat();
        let who = format!("the port is still held by PID {} (", squatter.pid);
        assert!(errors.contains(&who), "{ran:?}");
        assert!(
            errors.contains("of user nobody; if this happens again, end that process"),
            "{ran:?}"
        );
        assert!(!ran.log.contains("and is stopped"), "{ran:?}");
    });
}

#[test]
fn hazard_45_a_server_of_a_user_comes_back_as_that_users() {
    on_own_machine(OTHER, |machine| {
        let server = machine.ours.start();
        let _client = machine.ours.idle_client();
        let ran = machine.run(&mut machine.monitor());
        machine.assert_healed(&ran);
        assert!(!server.is_alive(), "{ran:?}");
        assert_eq!(user_of(machine.ours.server()), OTHER, "{ran:?}");
    });
}

#[test]
fn hazard_45_a_server_that_needs_root_for_its_port_says_so() {
    on_own_machine(MYVNC, |machine| {
        let first = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
        if let Err(reason) = fs::write(first, (PORT + 1).to_string()) {
            return rig::skip(&format!("{first} cannot be changed: {reason}"));
        }
        machine.ours.configure(&format!("user = {MYVNC}"));
        let server = machine.ours.start_as(0);
        machine.run_healthy();
        assert_eq!(user_of(server.pid), MYVNC);
        drop(server);
        let mut monitor = machine.monitor();
        let ran = machine.run(monitor.args(["--start-timeout", "1"]));
        assert_eq!(ran.code(), Some(1), "{ran:?}");
        let said = format!("Only root may use port {PORT}: the server's socket was root's, but");
        let errors = ran.errors().join("\n");
        assert!(errors.contains(&said), "{ran:?}");
        let mut monitor = machine.monitor();
        let ran = machine.run(monitor.args(["--run-as", "root"]));
        machine.assert_healed(&ran);
        assert_eq!(user_of(machine.ours.server()), MYVNC, "{ran:?}");
    });
}

/// A stranger who listens on the server's port under the restart command's own arguments, and never answers.
fn squat_as_the_server(machine: &Machine) -> Process {
    let script = machine.ours.path("myvnc/main.py").display().to_string();
    let argv = ["python3", &script, "--host", "x"];
    machine.stranger(NOBODY, &argv, &format!("listen = 127.0.0.1:{PORT}"))
}

#[test]
fn hazard_45_a_stranger_on_the_port_of_a_server_that_was_never_seen_does_not_become_its_user() {
    on_own_machine(OTHER, |machine| {
        let squatter = squat_as_the_server(machine);
        let ran = machine.run(&mut machine.monitor());
        machine.assert_healed(&ran);
        assert!(!squatter.is_alive(), "it was silent on the server's port");
        assert_eq!(user_of(machine.ours.server()), OTHER, "{ran:?}");
        machine.assert_other_unharmed(&ran);
    });
}

#[test]
fn hazard_45_where_nothing_proves_the_servers_user_the_administrator_is_asked() {
    on_own_machine(OTHER, |machine| {
        machine.give_our_script_to_root();
        let squatter = squat_as_the_server(machine);
        let ran = machine.run(&mut machine.monitor());
        assert_eq!(ran.code(), Some(1), "{ran:?}");
        ran.assert_unharmed(&squatter);
        let errors = ran.errors().concat();
        let who = format!("PID {} (", squatter.pid);
        for part in [
            &who,
            " of user nobody holds the server's port",
            "set run-as to the server's user",
        ] {
            assert!(errors.contains(part), "{ran:?}");
        }
        let ran = machine.run(machine.monitor().args(["--run-as", &OTHER.to_string()]));
        machine.assert_healed(&ran);
        assert_eq!(user_of(machine.ours.server()), OTHER, "{ran:?}");
    });
}

#[test]
fn hazard_27_an_owner_who_names_the_address_of_roots_server_does_not_make_it_his() {
    name_the_address_of_roots_server(|machine| {
        machine.make_directory("config", OTHER, 0o755);
    });
}

#[test]
fn hazard_27_who_owns_nothing_but_the_file_with_the_address_does_not_make_roots_server_his() {
    name_the_address_of_roots_server(|machine| {
        machine.give_our_script_to_root();
        machine.make_directory("config", 0, 0o755);
    });
}

fn name_the_address_of_roots_server(prepare: impl FnOnce(&Machine)) {
    on_own_machine(OTHER, |machine| {
        prepare(machine);
        let config = machine.path("config");
        let listens_at = |port: u16| {
            let text = format!("{{\"port\": {port}}}");
            machine.make_file("config/server_config.json", OTHER, 0o644, &text);
        };
        let command = machine.ours.restart_command();
        let command = command.replace(
            " start",
            &format!(" --config_dir={} start", config.display()),
        );
        let with_config = |mut monitor: Command| {
            monitor.args(["--restart-cmd", &command]);
            machine.run(&mut monitor)
        };
        listens_at(PORT);
        // It is silent, as a server that is busy, or speaks TLS.
        let script = machine.path("roots/myvnc/main.py").display().to_string();
        let roots = machine.stranger(0, &["python3", &script], "listen = 127.0.0.1:9300");
        // His own server answers at the URL, under a new socket, so who it is is looked up.
        let answers_beside_it = || {
            listens_at(9300);
            let server = machine.ours.start();
            let ran = with_config(machine.patient_monitor());
            assert_eq!(ran.code(), Some(1), "{ran:?}");
            let errors = ran.errors().concat();
            assert!(
                errors.contains("of user root holds 127.0.0.1:9300"),
                "{ran:?}"
            );
            server
        };
        drop(answers_beside_it());
        for is_known in [false, true] {
            if is_known {
                listens_at(PORT);
                let _server = machine.ours.start();
                assert_eq!(with_config(machine.patient_monitor()).code(), Some(0));
                machine.ours.kill();
            }
            listens_at(9300);
            let ran = with_config(machine.monitor());
            ran.assert_unharmed(&roots);
            assert_eq!(ran.code(), Some(1), "{ran:?}");
            let errors = ran.errors().concat();
            assert!(
                errors.contains("of user root holds 127.0.0.1:9300"),
                "{ran:?}"
            );
            assert!(errors.contains("set user = \"root\""), "{ran:?}");
            machine.assert_other_unharmed(&ran);
        }
        drop(answers_beside_it());
        let ran = with_config(machine.monitor());
        ran.assert_unharmed(&roots);
    });
}

#[test]
fn hazard_38_flock_around_the_monitor_holds_its_own_lock() {
    on_own_machine(MYVNC, |machine| {
        let _server = machine.ours.start();
        let monitor = machine.patient_monitor();
        let mut flock = Command::new("flock");
        flock
            .arg("-n")
            .arg(machine.path("log/.m.lock"))
            .arg(monitor.get_program());
        let ran = machine.run(flock.args(monitor.get_args()));
        assert_eq!(ran.code(), Some(0), "{ran:?}");
        assert!(ran.log.contains("✓ Server is healthy"), "{ran:?}");
    });
}

#[test]
fn hazard_45_a_server_that_comes_back_as_another_user_is_critical() {
    on_own_machine(MYVNC, |machine| {
        let server = machine.ours.start();
        machine.run_healthy();
        let _client = machine.ours.idle_client();
        // No script of MyVNC's: the monitor runs it as itself.
        let text = format!("#!/bin/sh\n{}\n", machine.ours.restart_command());
        let script = machine.make_file("start.sh", 0, 0o755, &text);
        let mut monitor = machine.monitor();
        let ran = machine.run(monitor.arg("--restart-cmd").arg(&script));
        assert_eq!(ran.code(), Some(1), "{ran:?}");
        assert!(!server.is_alive() && machine.ours.answers(), "{ran:?}");
        assert_eq!(user_of(machine.ours.server()), 0, "{ran:?}");
        let critical = ran.lines("CRITICAL");
        assert_eq!(critical.len(), 1, "{ran:?}");
        assert!(
            critical[0].contains(" and now runs as user root; if that is wrong, set run-as = \""),
            "{ran:?}"
        );
    });
}

#[test]
fn hazard_45_a_restart_command_that_others_can_write_to_is_a_warning_once_a_day() {
    on_own_machine(MYVNC, |machine| {
        let _server = machine.ours.start();
        let directory = machine.make_directory("open", 0, 0o777);
        let text = "#!/bin/sh\nexit 1\n";
        machine.make_file("open/start.sh", 0, 0o755, text);
        let script = directory.join("start.sh");
        let warnings = |machine: &Machine| {
            let mut monitor = machine.patient_monitor();
            let ran = machine.run(monitor.arg("--restart-cmd").arg(&script));
            assert_eq!(ran.code(), Some(0), "{ran:?}");
            ran.warnings_with(&directory.display().to_string()).len()
        };
        assert_eq!(warnings(machine), 1);
        assert_eq!(warnings(machine), 0, "once a day");
        let file = machine.path(&format!("state/127.0.0.1_{PORT}.json"));
        for (hours, expected) in [(23, 0), (24, 1)] {
            let mut state: serde_json::Value =
                serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            let warned = now.unwrap().as_secs() - hours * 60 * 60;
            state["warned"] = warned.into();
            fs::write(&file, state.to_string()).unwrap();
            assert_eq!(warnings(machine), expected, "after {hours} hours");
        }
    });
}
