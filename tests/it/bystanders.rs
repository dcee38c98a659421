//! Who is not stopped: the built-in rule on a whole machine, in a PID namespace of the test's own.
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::rig;
use crate::rig::{MONITOR, Process, Site, in_private_namespace, run, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A process with any arguments at all, that only waits.
struct Decoy(Process);

impl Decoy {
    fn new(directory: &Path, argv: &[&str]) -> Self {
        let mut decoy = Command::new(rig::stand_in());
        decoy.arg0(argv[0]).args(&argv[1..]).current_dir(directory);
        Self::start(&mut decoy)
    }

    /// Starts it, and returns once it waits.
    fn start(command: &mut Command) -> Self {
        command
            .env("STAND_IN_DECOY", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = [0; 8];
        child.stdout.take().unwrap().read_exact(&mut line).unwrap();
        assert_eq!(&line, b"waiting\n");
        Self(child.into())
    }

    fn is_alive(&self) -> bool {
        self.0.is_alive()
    }
}

#[test]
fn hazard_1_nobody_with_the_path_in_an_argument_is_harmed() {
    in_private_namespace(|| {
        let site = Site::new("");
        let script = site.path("myvnc/main.py").display().to_string();
        let manage = site.path("myvnc/manage.py").display().to_string();
        let other = tempfile::tempdir().unwrap();
        std::fs::write(other.path().join("manage.py"), "").unwrap();
        let here = site.path("myvnc");
        let mut decoys: Vec<(&str, Decoy)> = vec![
            ("tail", Decoy::new(&here, &["tail", &script])),
            ("an editor", Decoy::new(&here, &["vim", &script])),
            ("a pager", Decoy::new(&here, &["less", &script])),
            ("a search", Decoy::new(&here, &["grep", "main.py", &script])),
            (
                "another project",
                Decoy::new(
                    other.path(),
                    &["/usr/bin/python3", "manage.py", "runserver"],
                ),
            ),
            (
                "a remote shell",
                Decoy::new(&here, &["ssh", "host", &format!("python3 {script}")]),
            ),
            (
                "the Python monitor",
                Decoy::new(
                    &here,
                    &[
                        "python3",
                        "/x/myvnc/utils/monitor_myvnc.py",
                        "--restart-cmd",
                        &manage,
                    ],
                ),
            ),
        ];
        let quoted = format!("python3 {script}");
        decoys.push(("a shell", Decoy::new(&here, &["sh", "-c", &quoted])));
        decoys.push(("python -c", Decoy::new(&here, &["python3", "-c", &quoted])));
        decoys.push((
            "manage.py status",
            Decoy::new(&here, &["python3", &manage, "status"]),
        ));

        let _server = site.start();
        let before = site.servers();
        let _client = site.idle_client();
        let healed = run(&mut site.monitor_by_rule());
        assert_eq!(healed.code(), Some(0), "{}", site.log());
        assert!(
            site.log()
                .contains(&format!("Stopping server processes: {before:?}\n")),
            "{}",
            site.log()
        );
        for (name, decoy) in &mut decoys {
            assert!(decoy.is_alive(), "{name} was harmed: {}", site.log());
        }
    });
}

#[test]
fn hazard_1_another_instance_is_left_alone_whether_ours_hangs_or_is_dead() {
    in_private_namespace(|| {
        let (ours, theirs) = (Site::new(""), Site::new("workers = 1"));
        let other = theirs.start();
        let server = ours.start();
        let client = ours.idle_client();
        assert_eq!(
            run(&mut ours.monitor_by_rule()).code(),
            Some(0),
            "{}",
            ours.log()
        );
        assert!(ours.log().contains("Left alone: PID "), "{}", ours.log());
        assert!(other.is_alive() && theirs.answers());
        drop((client, server));
        for pid in ours.servers() {
            kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        }
        wait_until("ours is dead", || !ours.answers());
        assert_eq!(
            run(&mut ours.monitor_by_rule()).code(),
            Some(0),
            "{}",
            ours.log()
        );
        assert!(other.is_alive() && theirs.answers(), "{}", ours.log());
        assert!(ours.answers());
    });
}

#[test]
fn hazard_2_a_renamed_monitor_does_not_stop_its_own_shell() {
    in_private_namespace(|| {
        let site = Site::new("");
        let renamed = site.path("main.py");
        std::fs::copy(MONITOR, &renamed).unwrap();
        // Ancestors that match in every way: a shell under the argv of a server.
        let line = site
            .monitor_by_rule()
            .get_args()
            .map(|argument| format!("'{}'", argument.to_str().unwrap()))
            .collect::<Vec<_>>()
            .join(" ");
        let script = site.path("myvnc/main.py");
        std::fs::write(
            site.path("line"),
            format!("{} {line}\nexit $?\n", renamed.display()),
        )
        .unwrap();
        std::fs::rename(site.path("line"), site.path("myvnc/run_server.py")).unwrap();
        let mut shell = Command::new("sh");
        shell.arg0("python3").arg(site.path("myvnc/run_server.py"));
        let ran = run(&mut shell);
        assert_eq!(ran.code(), Some(0), "{} {}", ran.stderr, site.log());
        assert!(
            site.log().contains("No server process found"),
            "{}",
            site.log()
        );
        assert!(site.answers());
        assert!(script.exists());
    });
}

#[test]
fn hazard_3_a_zombie_is_dead() {
    in_private_namespace(|| {
        let site = Site::new("");
        let zombie = site.start();
        kill(Pid::from_raw(site.servers()[0]), Signal::SIGKILL).unwrap();
        wait_until("it is a zombie", || site.servers().is_empty());
        assert_eq!(run(&mut site.monitor_by_rule()).code(), Some(0));
        assert!(
            site.log().contains("No server process found"),
            "{}",
            site.log()
        );
        drop(zombie);
    });
}

#[test]
fn hazard_7_one_foreign_process_keeps_all_from_being_signalled() {
    in_private_namespace(|| {
        if std::fs::read_to_string("/proc/self/uid_map")
            .unwrap()
            .split_whitespace()
            .nth(2)
            == Some("1")
        {
            return rig::skip("a user namespace with one user has no foreign process");
        }
        let site = Site::new("");
        let foreign = site.start();
        let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
        // A second process of the same server, owned by the user who runs the monitor.
        let mut mine = Command::new(site.reachable_copy(&rig::stand_in()));
        mine.arg0("python3")
            .arg(site.path("myvnc/main.py"))
            .uid(nobody.uid.as_raw());
        let mine = Decoy::start(&mut mine);
        let _client = site.idle_client();
        let mut monitor = site.bare_monitor_at(&site.reachable_copy(Path::new(MONITOR)));
        monitor.args([
            "--restart-cmd",
            "true",
            "--timeout",
            "0.5",
            "--process-pattern",
            "/myvnc/main[.]py",
        ]);
        let failed = run(monitor.uid(nobody.uid.as_raw()).gid(nobody.gid.as_raw()));
        assert_eq!(failed.code(), Some(1));
        assert!(
            failed.stderr.contains(
                "of user root: Operation not permitted; run the monitor as root, or restrict the search with --user"
            ),
            "{}",
            failed.stderr
        );
        assert!(!site.log().contains("Sent SIG"), "{}", site.log());
        assert!(foreign.is_alive() && mine.is_alive());
    });
}

#[test]
fn a_server_in_a_container_is_another_ones() {
    in_private_namespace(|| {
        let (ours, theirs) = (Site::new(""), Site::new(""));
        let mut container = Command::new("unshare");
        container
            .args(["--pid", "--fork", "--kill-child"])
            .arg(theirs.path("bin/python3"));
        container
            .arg(theirs.path("myvnc/main.py"))
            .args(["--host", "127.0.0.1"]);
        let container = Decoy::start(&mut container);
        assert_eq!(
            run(&mut ours.monitor_by_rule()).code(),
            Some(0),
            "{}",
            ours.log()
        );
        assert!(
            ours.log().contains("No server process found"),
            "{}",
            ours.log()
        );
        assert!(container.is_alive());
    });
}

#[test]
fn without_pidfds_it_heals_the_same() {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
    let filter = SeccompFilter::new(
        [(nix::libc::SYS_pidfd_open, vec![])].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(nix::libc::ENOSYS.try_into().unwrap()),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let filter: BpfProgram = filter.unwrap().try_into().unwrap();
    let site = Site::new("on-term = 50");
    let _server = site.start();
    let before = site.servers();
    let _client = site.idle_client();
    // A filter holds for the thread that sets it and for what this thread starts.
    let healed = std::thread::scope(|scope| {
        scope
            .spawn(|| {
                seccompiler::apply_filter(&filter).unwrap();
                run(&mut site.monitor())
            })
            .join()
            .unwrap()
    });
    assert_eq!(healed.code(), Some(0), "{}", site.log());
    assert!(
        site.log().contains("All processes terminated successfully"),
        "{}",
        site.log()
    );
    assert!(site.answers() && site.servers() != before);
}
