#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::unistd::{geteuid, getpid, getppid};

use super::*;
use crate::server::monitors::MARK;
use crate::skip::skip;

/// A process number that no process of this machine has (`pid_max`, proc_sys_kernel(5)).
const FIRST: i32 = 5_000_000;
const SERVER: i32 = FIRST;
const OTHER: i32 = FIRST + 1;
const THIRD: i32 = FIRST + 2;
const SERVER_ARGV: &[&str] = &["python3", "/opt/myvnc/main.py"];
/// An inode that no socket of this machine has.
const NO_INODE: u64 = u64::MAX - 1;

/// A captured /proc.
struct Captured(tempfile::TempDir);

impl Captured {
    fn new() -> Self {
        let captured = Self(tempfile::tempdir().unwrap());
        captured.link("self/ns/net", "net:[1]");
        captured
    }

    /// With a process that has this parent and these arguments, and lives in our network namespace.
    fn with(self, pid: i32, parent: i32, argv: &[&str]) -> Self {
        self.stat(pid, parent, 'S', 500);
        let uid = geteuid();
        self.status(pid, &format!("{uid}\t{uid}"), "1");
        let cmdline = argv.join("\0") + "\0";
        self.write(&format!("{pid}/cmdline"), &cmdline);
        self.link(&format!("{pid}/cwd"), "/");
        self.link(&format!("{pid}/ns/net"), "net:[1]");
        std::fs::create_dir(self.0.path().join(format!("{pid}/fd"))).unwrap();
        self
    }

    /// With a descriptor of a socket.
    fn holding(self, pid: i32, inode: u64) -> Self {
        self.link(&format!("{pid}/fd/3"), &format!("socket:[{inode}]"));
        self
    }

    fn stat(&self, pid: i32, parent: i32, state: char, session: i32) {
        let stat = format!(
            "{pid} (python3) {state} {parent} {pid} {session} 0 -1 4194560 1 0 0 0 1 2 0 0 20 0 1 0 4242 1 1 \
            18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
        );
        self.write(&format!("{pid}/stat"), &stat);
    }

    fn status(&self, pid: i32, uids: &str, namespaces: &str) {
        let status = format!(
            "Name:\tpython3\nTgid:\t{pid}\nUid:\t{uids}\nGid:\t7\t8\nNSpid:\t{namespaces}\n"
        );
        self.write(&format!("{pid}/status"), &status);
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn link(&self, name: &str, target: &str) {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = std::fs::remove_file(&path);
        symlink(target, path).unwrap();
    }

    fn proc(&self) -> Proc<'static> {
        Proc(Box::leak(self.0.path().into()))
    }

    /// What a search of it reports.
    fn reports(&self, search: &Search, skipped: &[i32], is_careful: bool) -> Vec<SearchMessage> {
        self.by(search, skipped, is_careful, |looker| {
            looker.look();
        })
        .1
    }

    /// What a looker at it answers, and what it reports.
    fn by<T>(
        &self,
        search: &Search,
        skipped: &[i32],
        is_careful: bool,
        work: impl for<'l> FnOnce(Looker<'l>) -> T,
    ) -> (T, Vec<SearchMessage>) {
        let mut reports = Vec::new();
        let mut tell = |report: &SearchMessage| reports.push(report.clone());
        let mut looker = Looker::new(search, skipped, is_careful, &mut tell);
        looker.proc = self.proc();
        let answer = work(looker);
        (answer, reports)
    }

    /// The candidates of a search of it.
    fn candidates(&self, search: &Search) -> Vec<Candidate> {
        candidates(self.reports(search, &[], false))
    }
}

fn candidates(reports: Vec<SearchMessage>) -> Vec<Candidate> {
    let candidate = |report| match report {
        SearchMessage::Candidate(candidate) => Some(*candidate),
        _ => None,
    };
    reports.into_iter().filter_map(candidate).collect()
}

fn pids(candidates: &[Candidate]) -> Vec<i32> {
    let mut pids: Vec<i32> = candidates.iter().map(|one| one.process.pid).collect();
    pids.sort_unstable();
    pids
}

fn read_in_turn(reports: &[SearchMessage]) -> Vec<i32> {
    let reading = |report: &SearchMessage| match report {
        SearchMessage::Reading(pid) => Some(*pid),
        _ => None,
    };
    reports.iter().filter_map(reading).collect()
}

fn holder_in(reports: &[SearchMessage]) -> Option<i32> {
    reports.iter().find_map(|report| match report {
        SearchMessage::Holder(process) => Some(process.pid),
        _ => None,
    })
}

/// A socket that listens on this machine, what the kernel says of it, and a search for its server.
fn listening() -> (TcpListener, Listener, Search) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let port = address.port();
    let found = net::listeners(Proc::here(), Some(port), |_| true).unwrap();
    let mut all = found.0.into_iter();
    let listener = all.find(|one| one.address == address).unwrap();
    let search = Search {
        addresses: vec![address.ip()],
        port: address.port(),
        ..Search::default()
    };
    (socket, listener, search)
}

fn made_up(uid: u32, inode: u64) -> Listener {
    Listener {
        address: ([127, 0, 0, 1], 9143).into(),
        uid,
        inode,
        cookie: None,
        is_v6_only: false,
    }
}

#[test]
fn a_process_with_the_arguments_of_a_server_is_a_candidate() {
    let machine = Captured::new()
        .with(SERVER, 1, SERVER_ARGV)
        .with(OTHER, SERVER, SERVER_ARGV)
        .with(THIRD, 1, &["python3", "/opt/django/main.py"]);
    let found = machine.candidates(&Search::default());
    assert_eq!(pids(&found), [SERVER, OTHER]);
    let server = found.iter().find(|one| one.process.pid == SERVER).unwrap();
    let expected = Process {
        pid: SERVER,
        parent: 1,
        start_time: 4242,
        uid: geteuid().as_raw(),
        gid: 8,
        command: SERVER_ARGV.join(" "),
        argv: hash(b"python3\0/opt/myvnc/main.py\0"),
        is_manager: false,
    };
    assert_eq!(server.process, expected);
    assert_eq!(server.is_elsewhere, Some(false));
    assert_eq!(server.configured, Configured::Unknown);
    assert!(!server.is_beside);
    let machine = machine.with(FIRST + 3, 1, &["python3", "/opt/myvnc/manage.py", "start"]);
    let found = machine.candidates(&Search::default());
    let managers = found.iter().filter(|one| one.process.is_manager);
    let managers: Vec<i32> = managers.map(|one| one.process.pid).collect();
    assert_eq!(managers, [FIRST + 3]);
}

#[test]
fn what_is_ending_or_in_a_container_or_setuid_is_no_candidate() {
    let machine = Captured::new().with(SERVER, 1, SERVER_ARGV);
    let found = || !machine.candidates(&Search::default()).is_empty();
    assert!(found());
    machine.stat(SERVER, 1, 'Z', 500);
    assert!(!found(), "a zombie");
    machine.stat(SERVER, 1, 'S', 500);
    machine.status(SERVER, "1000\t1000", "5000000\t7");
    assert!(!found(), "in another PID namespace");
    machine.status(SERVER, "1000\t0", "5000000");
    assert!(!found(), "anybody can have started it");
    machine.status(SERVER, "1000\t1000", "5000000");
    assert!(found());
}

#[test]
fn a_process_in_another_network_namespace_is_elsewhere() {
    let machine = Captured::new().with(SERVER, 1, SERVER_ARGV);
    let found = || {
        machine
            .candidates(&Search::default())
            .remove(0)
            .is_elsewhere
    };
    machine.link(&format!("{SERVER}/ns/net"), "net:[2]");
    assert_eq!(found(), Some(true));
    std::fs::remove_file(machine.0.path().join("self/ns/net")).unwrap();
    assert_eq!(found(), None);
}

#[test]
fn a_server_beside_the_restart_commands_script_is_seen() {
    let machine = Captured::new().with(SERVER, 1, SERVER_ARGV).with(
        OTHER,
        1,
        &["python3", "/srv/myvnc/main.py"],
    );
    let search = Search {
        script: Some("/opt/myvnc/manage.py".into()),
        ..Search::default()
    };
    let found = machine.candidates(&search).into_iter();
    let beside: Vec<i32> = found
        .filter(|one| one.is_beside)
        .map(|one| one.process.pid)
        .collect();
    assert_eq!(beside, [SERVER]);
}

#[test]
fn a_configuration_is_compared_where_the_process_is_near() {
    let argv = [
        "python3",
        "/opt/myvnc/main.py",
        "--config_dir=/etc/myvnc-test",
    ];
    let machine = Captured::new().with(SERVER, 1, &argv).holding(SERVER, 42);
    let search = Search {
        config_dir: Some("/etc/myvnc-test".into()),
        ..Search::default()
    };
    let cmdline: String = argv.map(|one| format!("{one}\0")).concat();
    let seen = |is_near| {
        let look = |mut looker: Looker| {
            looker.of_users = Some(vec![made_up(0, 42), made_up(0, 43)]);
            looker
                .candidate(SERVER, cmdline.as_bytes(), is_near)
                .unwrap()
        };
        let candidate = machine.by(&search, &[], false, look).0;
        (candidate.configured, candidate.listens)
    };
    assert_eq!(seen(true), (Configured::Same, Some(vec![made_up(0, 42)])));
    assert_eq!(seen(false), (Configured::Unknown, None));
}

#[test]
fn what_blocked_an_earlier_search_is_skipped_and_so_is_the_monitor_itself() {
    let (us, parent) = (getpid().as_raw(), FIRST + 3);
    let machine = Captured::new()
        .with(SERVER, 1, SERVER_ARGV)
        .with(OTHER, 1, SERVER_ARGV)
        .with(1, 0, SERVER_ARGV)
        .with(us, parent, SERVER_ARGV)
        .with(parent, 1, SERVER_ARGV);
    let search = Search::default();
    assert_eq!(pids(&machine.candidates(&search)), [SERVER, OTHER]);
    let reports = machine.reports(&search, &[OTHER], false);
    assert_eq!(pids(&candidates(reports)), [SERVER]);
    let ourselves = machine
        .by(&search, &[], false, |looker| looker.ourselves())
        .0;
    assert_eq!(ourselves, HashSet::from([1, us, parent]));
    // Its parent cannot be read.
    std::fs::remove_dir_all(machine.0.path().join(parent.to_string())).unwrap();
    let ourselves = machine
        .by(&search, &[], false, |looker| looker.ourselves())
        .0;
    assert_eq!(ourselves, HashSet::from([1, us, parent]));
}

#[test]
fn a_careful_search_reports_each_process_before_it_reads_it() {
    let machine = (0..130).fold(Captured::new(), |machine, number| {
        machine.with(FIRST + number, 1, &["sleep"])
    });
    let careful = machine.reports(&Search::default(), &[], true);
    assert_eq!(read_in_turn(&careful).len(), 130);
    let quick = machine.reports(&Search::default(), &[], false);
    let all = read_in_turn(&careful);
    assert_eq!(read_in_turn(&quick), [all[0], all[STRIDE]]);
}

#[test]
fn what_takes_connections_to_the_servers_address_is_reported() {
    let (_socket, listener, search) = listening();
    let (_other, _, _) = listening();
    let taking = |search: &Search| {
        let reports = Captured::new().reports(search, &[], false);
        let listeners = |report| match report {
            SearchMessage::Listeners(listeners) => listeners,
            _ => None,
        };
        reports.into_iter().find_map(listeners).unwrap()
    };
    assert_eq!(taking(&search), [listener]);
    let elsewhere = Search {
        addresses: vec![[127, 0, 0, 2].into()],
        ..search
    };
    assert_eq!(taking(&elsewhere), []);
}

#[test]
fn the_users_of_the_record_and_proven_ones_are_near_and_those_of_sockets_for_a_while() {
    let search = Search {
        users: vec![0, 6],
        recorded_user: Some(7),
        ..Search::default()
    };
    let look = |mut looker: Looker| {
        looker.taking = Some(vec![made_up(5, NO_INODE), made_up(7, NO_INODE)]);
        (looker.users(), looker.of_sockets())
    };
    let (users, of_sockets) = Captured::new().by(&search, &[], false, look).0;
    assert_eq!(users, HashSet::from([6, 7]));
    assert_eq!(of_sockets, BTreeSet::from([5]));
}

#[test]
fn roots_processes_are_read_before_those_of_other_users() {
    if !geteuid().is_root() {
        return skip("only root can make directories for others");
    }
    let machine = [SERVER, OTHER, THIRD]
        .into_iter()
        .fold(Captured::new(), |machine, pid| {
            machine.with(pid, 1, &["sleep"])
        });
    let root = |pid: i32| {
        for one in [SERVER, OTHER, THIRD] {
            let uid = if one == pid { 0 } else { 3_999_999 };
            let path = machine.0.path().join(one.to_string());
            std::os::unix::fs::chown(path, Some(uid), None).unwrap();
        }
        read_in_turn(&machine.reports(&Search::default(), &[], true))[0]
    };
    assert_eq!([SERVER, OTHER, THIRD].map(root), [SERVER, OTHER, THIRD]);
}

#[test]
fn what_a_restart_command_has_started_is_looked_at_first() {
    let (us, parent) = (getpid().as_raw(), getppid().as_raw());
    let machine = Captured::new()
        .with(us, parent, &["cargo"])
        .with(SERVER, parent, &["sh"])
        .with(OTHER, SERVER, SERVER_ARGV)
        .with(THIRD, 1, SERVER_ARGV);
    let search = Search::default();
    let descendants = machine
        .by(&search, &[], false, |looker| looker.descendants())
        .0;
    assert_eq!(
        HashSet::from_iter(descendants),
        HashSet::from([SERVER, OTHER])
    );
    assert_eq!(pids(&machine.candidates(&search)), [OTHER, THIRD]);
    let mut started = Search {
        is_started: true,
        ..Search::default()
    };
    assert_eq!(pids(&machine.candidates(&started)), [OTHER]);
    // A pattern is compared with all.
    started.pattern = Some(Regex::new("main").unwrap());
    assert_eq!(pids(&machine.candidates(&started)), [OTHER, THIRD]);
    // The server is not among them.
    started.pattern = None;
    machine.write(&format!("{OTHER}/cmdline"), "sleep\0");
    assert_eq!(pids(&machine.candidates(&started)), [THIRD]);
}

#[test]
fn what_a_restart_command_has_started_is_the_server_if_it_holds_the_socket() {
    let (_socket, listener, search) = listening();
    let machine = Captured::new()
        .with(OTHER, getppid().as_raw(), SERVER_ARGV)
        .with(THIRD, 1, SERVER_ARGV);
    let started = Search {
        is_started: true,
        ..search
    };
    assert_eq!(pids(&machine.candidates(&started)), [OTHER, THIRD]);
    let machine = machine.holding(OTHER, listener.inode);
    assert_eq!(pids(&machine.candidates(&started)), [OTHER]);
}

#[test]
fn the_holder_of_the_socket_is_looked_for_where_no_candidate_holds_it() {
    let (_socket, listener, search) = listening();
    let machine = Captured::new()
        .with(SERVER, 1, SERVER_ARGV)
        .with(OTHER, 1, &["nginx"])
        .with(THIRD, 1, &["sleep"])
        .holding(OTHER, listener.inode);
    let reports = machine.reports(&search, &[], false);
    assert_eq!(holder_in(&reports), Some(OTHER));
    let server = &candidates(reports)[0];
    assert_eq!(server.listens, Some(vec![]));
    let elsewhere = Search {
        addresses: vec![[127, 0, 0, 2].into()],
        ..search.clone()
    };
    assert_eq!(holder_in(&machine.reports(&elsewhere, &[], false)), None);
    // A child of a server inherits its socket.
    let machine = machine.holding(SERVER, listener.inode);
    let reports = machine.reports(&search, &[], false);
    assert_eq!(holder_in(&reports), None);
    assert_eq!(candidates(reports)[0].listens, Some(vec![listener]));
}

#[test]
fn the_sockets_of_a_candidate_that_was_not_near_are_found_later() {
    let (_socket, listener, search) = listening();
    let machine = Captured::new()
        .with(SERVER, 1, SERVER_ARGV)
        .with(OTHER, 1, &["nginx"])
        .holding(OTHER, listener.inode);
    let find = |machine: &Captured| {
        let look = |mut looker: Looker| {
            looker.taking = Some(vec![listener.clone()]);
            let candidate = looker.candidate(SERVER, b"python3\0x\0", false).unwrap();
            looker.find_holder(&[candidate], &[OTHER], &[]);
        };
        machine.by(&search, &[], false, look).1
    };
    let sockets = |reports: &[SearchMessage]| {
        reports.iter().find_map(|report| match report {
            SearchMessage::Sockets(pid, sockets) => Some((*pid, sockets.clone())),
            _ => None,
        })
    };
    let reports = find(&machine);
    assert_eq!(sockets(&reports), None);
    assert_eq!(holder_in(&reports), Some(OTHER));
    let machine = machine.holding(SERVER, listener.inode);
    let reports = find(&machine);
    assert_eq!(sockets(&reports), Some((SERVER, vec![listener.clone()])));
    assert_eq!(holder_in(&reports), None);
}

#[test]
fn processes_that_have_nothing_to_do_with_the_server_are_read_for_a_limited_time() {
    let all = [SERVER, OTHER, THIRD, FIRST + 3];
    let machine = all.into_iter().fold(Captured::new(), |machine, pid| {
        machine.with(pid, 1, SERVER_ARGV).holding(pid, NO_INODE)
    });
    let search = Search::default();
    let look = |mut looker: Looker| {
        looker.others_timeout = Duration::ZERO;
        looker.look();
    };
    let reports = machine.by(&search, &[], false, look).1;
    assert!(candidates(reports).len() < all.len());
    let holder = |found: &[i32], others: &[i32]| {
        let look = |mut looker: Looker| {
            looker.others_timeout = Duration::ZERO;
            looker.taking = Some(vec![made_up(0, 42)]);
            let candidate = |pid: &i32| looker.candidate(*pid, b"python3\0x\0", false);
            let found: Vec<Candidate> = found.iter().filter_map(candidate).collect();
            looker.find_holder(&found, &[], others);
        };
        read_in_turn(&machine.by(&search, &[], true, look).1)
    };
    assert!(holder(&all, &[]).len() < all.len());
    assert!(holder(&[], &all).len() < all.len());
}

#[test]
fn the_process_of_the_record_is_a_candidate_whatever_its_arguments_are() {
    let machine = Captured::new()
        .with(SERVER, 1, &["myvnc-server"])
        .with(OTHER, 1, &["sleep"]);
    let record = Recorded {
        pid: SERVER,
        start_time: 4242,
        argv: hash(b"myvnc-server\0"),
    };
    let found = |recorded| {
        let search = Search {
            recorded: Some(recorded),
            ..Search::default()
        };
        machine.candidates(&search)
    };
    assert_eq!(pids(&found(record)), [SERVER]);
    let others = [
        Recorded {
            pid: THIRD,
            ..record
        },
        Recorded {
            start_time: 4241,
            ..record
        },
        Recorded { argv: 1, ..record },
    ];
    for other in others {
        assert_eq!(pids(&found(other)), [] as [i32; 0], "{other:?}");
    }
    // Its arguments cannot be read, or blocked an earlier search.
    let search = Search {
        recorded: Some(record),
        ..Search::default()
    };
    let reports = machine.reports(&search, &[SERVER], true);
    assert!(!read_in_turn(&reports).contains(&SERVER));
    assert_eq!(pids(&candidates(reports)), [SERVER]);
    std::fs::remove_file(machine.0.path().join(format!("{SERVER}/cmdline"))).unwrap();
    let unreadable = found(record);
    assert_eq!(
        (unreadable.len(), unreadable[0].process.argv),
        (1, record.argv)
    );
    machine.stat(SERVER, 1, 'Z', 500);
    assert_eq!(pids(&found(record)), [] as [i32; 0], "it has ended");
}

#[test]
fn hazard_24_what_has_no_readable_status_is_no_reason_to_count_it_as_gone() {
    let machine = Captured::new()
        .with(SERVER, 1, SERVER_ARGV)
        .with(OTHER, 1, SERVER_ARGV);
    let search = Search {
        recorded: Some(Recorded {
            pid: SERVER,
            start_time: 4242,
            argv: hash(b"python3\0/opt/myvnc/main.py\0"),
        }),
        ..Search::default()
    };
    let found = || machine.candidates(&search);
    let unreadable = || {
        let mut pids: Vec<i32> = found()
            .iter()
            .filter(|one| one.is_unreadable)
            .map(|one| one.process.pid)
            .collect();
        pids.sort_unstable();
        pids
    };
    assert_eq!((found().len(), unreadable()), (2, vec![]));
    let status = |pid: i32| machine.0.path().join(format!("{pid}/status"));
    // Each in its own way: the form of the one is wrong, and the other is a directory.
    machine.write(&format!("{SERVER}/stat"), "garbage");
    std::fs::remove_file(status(OTHER)).unwrap();
    std::fs::create_dir(status(OTHER)).unwrap();
    assert_eq!(unreadable(), [SERVER, OTHER]);
    let mut server = found();
    server.retain(|one| one.process.pid == SERVER);
    let owner = machine.0.path().join(SERVER.to_string());
    assert_eq!(
        server[0].process.uid,
        std::fs::metadata(owner).unwrap().uid()
    );
    // Its arguments show that another process has its number.
    machine.write(&format!("{SERVER}/cmdline"), "sleep\0");
    assert_eq!(unreadable(), [OTHER]);
    machine.write(
        &format!("{SERVER}/cmdline"),
        "python3\0/opt/myvnc/main.py\0",
    );
    assert_eq!(unreadable(), [SERVER, OTHER]);
    std::fs::remove_file(machine.0.path().join(format!("{SERVER}/stat"))).unwrap();
    assert_eq!(unreadable(), [OTHER], "it is gone");
}

#[test]
fn a_pattern_takes_the_place_of_the_rule_for_arguments() {
    let monitor = ["/usr/bin/monitor_myvnc", "http://vm:9143", "my-server"];
    let machine = Captured::new()
        .with(SERVER, 1, &["my-server", "--port"])
        .with(OTHER, 1, SERVER_ARGV)
        .with(THIRD, 1, &["sh", "-c", "x --process-pattern my-server"])
        .with(FIRST + 3, 1, &monitor);
    let (_socket, listener, mut search) = listening();
    search.pattern = Some(Regex::new("my-server").unwrap());
    assert_eq!(pids(&machine.candidates(&search)), [SERVER]);
    // Who holds the server's socket is no monitor.
    let machine = machine.holding(FIRST + 3, listener.inode);
    assert_eq!(pids(&machine.candidates(&search)), [SERVER, FIRST + 3]);
}

#[test]
fn monitors_and_what_belongs_to_them_are_recognised() {
    let monitor = ["/usr/sbin/monitor_myvnc", "http://vm"];
    let include = |machine: &Captured, pid| {
        let monitors = Monitors::new(machine.proc());
        monitors.include(pid)
    };
    let machine = Captured::new()
        .with(SERVER, 1, &["flock", "lock", "monitor_myvnc"])
        .with(OTHER, SERVER, &monitor)
        .with(THIRD, OTHER, &["sh"])
        .with(1, 0, &monitor)
        .with(FIRST + 3, 1, &["sleep"]);
    assert!(include(&machine, OTHER), "it is one");
    assert!(include(&machine, THIRD), "its child");
    assert!(include(&machine, SERVER), "its wrapper");
    assert!(!include(&machine, FIRST + 3), "init is nobody's monitor");
    machine.stat(OTHER, SERVER, 'S', 501);
    assert!(!include(&machine, SERVER), "another session");
    machine.link(&format!("{SERVER}/exe"), "/opt/monitor_myvnc (deleted)");
    assert!(include(&machine, SERVER), "it was replaced");
    machine.link(&format!("{SERVER}/exe"), "/usr/bin/flock");
    assert!(!include(&machine, SERVER));
}

#[test]
fn what_this_run_has_started_does_not_belong_to_another_monitor() {
    let us = getpid().as_raw();
    let machine = Captured::new()
        .with(us, 1, &["monitor_myvnc"])
        .with(SERVER, us, SERVER_ARGV);
    let monitors = Monitors::new(machine.proc());
    assert!(!monitors.include(SERVER));
}

#[test]
fn parents_that_change_while_they_are_read_end_the_search_above() {
    let machine = Captured::new()
        .with(SERVER, OTHER, SERVER_ARGV)
        .with(OTHER, SERVER, SERVER_ARGV);
    let monitors = Monitors::new(machine.proc());
    assert!(!monitors.has_monitor_above(SERVER));
}

#[test]
fn hazard_29_another_build_of_the_monitor_is_a_monitor_under_any_name() {
    let machine = Captured::new();
    let own = std::fs::read("/proc/self/exe").unwrap();
    assert!(memchr::memmem::find(&own, MARK.as_bytes()).is_some());
    let program = |text: &str| format!("{}{text}{}", "x".repeat(40_000), "y".repeat(40_000));
    for (name, text) in [
        ("self/exe", program("")),
        ("2/exe", program(MARK)),
        ("3/exe", program("monitor_myvnc")),
        ("4/exe", MARK.to_owned()),
        ("6/exe", program(MARK).repeat(5)),
    ] {
        machine.write(name, &text);
    }
    machine.link("5/exe", "../2/exe");
    let monitors = Monitors::new(machine.proc());
    let builds: Vec<i32> = (2..9).filter(|pid| monitors.is_monitor(*pid)).collect();
    assert_eq!(builds, [2, 5]);
}

#[test]
fn hazard_29_the_python_monitor_is_a_monitor_and_so_is_its_shell() {
    let script = ["python3", "-u", "/opt/monitor_myvnc.py", "--url"];
    let machine = Captured::new()
        .with(
            SERVER,
            1,
            &["sh", "-c", "python3 -u /opt/monitor_myvnc.py --url"],
        )
        .with(OTHER, SERVER, &script)
        .with(
            THIRD,
            1,
            &["python3", "main.py", "--note", "x", "monitor_myvnc.py"],
        );
    let monitors = Monitors::new(machine.proc());
    assert!(monitors.include(OTHER) && monitors.include(SERVER));
    assert!(!monitors.include(THIRD), "its arguments name one");
}

#[test]
fn a_command_is_shown_up_to_the_length_of_a_line() {
    assert_eq!(shown(b"python3\0main.py\0"), "python3 main.py");
    let long = "ä".repeat(LONGEST_LINE + 1);
    assert_eq!(shown(long.as_bytes()), "ä".repeat(LONGEST_LINE));
}

#[test]
fn what_was_reported_so_far_are_the_facts() {
    let machine = Captured::new()
        .with(SERVER, 1, SERVER_ARGV)
        .with(OTHER, 1, SERVER_ARGV);
    let mut reports = Reports::default();
    for report in machine.reports(&Search::default(), &[], true) {
        reports.take(report);
    }
    assert!(reports.reading.is_some());
    let sockets = vec![made_up(0, 42)];
    reports.take(SearchMessage::Sockets(OTHER, sockets.clone()));
    reports.take(SearchMessage::Listeners(Some(sockets.clone())));
    let holder = process(getpid().as_raw()).unwrap();
    reports.take(SearchMessage::Holder(holder.clone()));
    let facts = reports.into_facts().unwrap();
    let listens: Vec<_> = facts
        .candidates
        .iter()
        .map(|one| one.listens.clone())
        .collect();
    assert_eq!(listens, [None, Some(sockets.clone())]);
    assert_eq!(facts.listeners, Some(sockets));
    assert_eq!(facts.holder, Some(holder));
}

#[test]
fn hazard_31_what_a_search_has_seen_before_it_stalled_counts_once() {
    let machine = Captured::new()
        .with(SERVER, 1, SERVER_ARGV)
        .with(OTHER, 1, SERVER_ARGV);
    let mut reports = Reports::default();
    let sockets = vec![made_up(0, 42)];
    for report in machine.reports(&Search::default(), &[], true) {
        reports.take(report);
    }
    for report in machine.reports(&Search::default(), &[OTHER], true) {
        reports.take(report);
    }
    reports.take(SearchMessage::Sockets(SERVER, sockets.clone()));
    let facts = reports.into_facts().unwrap();
    let seen: Vec<_> = facts
        .candidates
        .iter()
        .map(|one| (one.process.pid, one.listens.clone()))
        .collect();
    let mut expected = [(SERVER, Some(sockets)), (OTHER, None)];
    expected.sort_by_key(|(pid, _)| *pid);
    assert_eq!(seen, expected);
}

#[test]
fn a_proc_that_cannot_be_listed_is_an_error() {
    let machine = Captured::new();
    std::fs::remove_dir_all(machine.0.path()).unwrap();
    let reports = machine.reports(&Search::default(), &[], false);
    let failed = reports.iter().find_map(|report| match report {
        SearchMessage::Failed(reason) => Some(reason.as_str()),
        _ => None,
    });
    assert_eq!(failed, Some("No such file or directory"));
    assert_eq!(SearchError("reason".to_owned()).to_string(), "reason");
}

/// A shell that looks like a MyVNC server, and has the socket open, until `end`.
struct StandIn(Child);

impl StandIn {
    fn start(directory: &Path, name: &str, script: &str, socket: Option<TcpListener>) -> Self {
        let path = directory.join("myvnc");
        std::fs::create_dir_all(&path).unwrap();
        let path = path.join(name);
        std::fs::write(&path, script).unwrap();
        let mut command = Command::new("/bin/sh");
        command.arg0("python3").arg(path);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(socket) = socket {
            command.stderr(OwnedFd::from(socket));
        }
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let mut said = BufReader::new(child.stdout.as_mut().unwrap());
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self(child)
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }

    /// Its script reads the end of its input, and ends.
    fn end(mut self) {
        self.0.wait().unwrap();
    }
}

#[test]
fn the_servers_of_the_machine_are_the_topmost_of_each_family() {
    let directory = tempfile::tempdir().unwrap();
    let family = "(echo ready; read x); :";
    let server = StandIn::start(directory.path(), "main.py", family, None);
    let manager = StandIn::start(directory.path(), "manage.py", family, None);
    let children = |one: &StandIn| Proc::here().children(one.pid());
    let (worker, of_manager) = (children(&server)[0], children(&manager)[0]);
    let mut found = running();
    let ours = found.remove(&geteuid().as_raw()).unwrap();
    let all = [server.pid(), worker, manager.pid(), of_manager];
    let shown: Vec<i32> = all.into_iter().filter(|pid| ours.contains(pid)).collect();
    assert_eq!(shown, [server.pid()]);
    assert!(found.values().flatten().all(|pid| *pid != server.pid()));
    server.end();
    manager.end();
}

#[tokio::test(flavor = "current_thread")]
async fn a_search_finds_the_server_and_what_it_listens_on() {
    let directory = tempfile::tempdir().unwrap();
    let (socket, listener, mut looked_for) = listening();
    let script = "echo ready; read x";
    let server = StandIn::start(directory.path(), "main.py", script, Some(socket));
    looked_for.script = Some(directory.path().join("myvnc/manage.py"));
    let facts = search(&looked_for).await.unwrap();
    assert!(facts.is_complete);
    assert_eq!(facts.listeners, Some(vec![listener.clone()]));
    let pid = server.pid();
    let found = facts.candidates.iter().find(|one| one.process.pid == pid);
    let found = found.unwrap();
    assert_eq!(found.listens, Some(vec![listener.clone()]));
    assert!(found.is_beside);
    // A process that another test has just created can have it open for a moment.
    let end = Instant::now() + Duration::from_secs(5);
    let held_by = || holder(listener.inode, listener.uid);
    let mut holding = held_by().await;
    while holding.as_ref().is_some_and(|one| one.pid != pid) && Instant::now() < end {
        holding = held_by().await;
    }
    assert_eq!(holding, process(pid));
    assert_eq!(holder(NO_INODE, listener.uid).await, None);
    server.end();
}

#[tokio::test(flavor = "current_thread")]
async fn hazard_4_a_process_that_became_something_else_has_changed() {
    let directory = tempfile::tempdir().unwrap();
    let script = "echo ready; read x";
    let server = StandIn::start(directory.path(), "main.py", script, None);
    let found = process(server.pid()).unwrap();
    let none: Vec<i32> = Vec::new();
    for is_known in [false, true] {
        assert_eq!(changed(std::slice::from_ref(&found), is_known).await, none);
    }
    let others = [
        Process {
            start_time: found.start_time - 1,
            ..found.clone()
        },
        Process {
            uid: found.uid + 1,
            ..found.clone()
        },
        Process {
            argv: found.argv.wrapping_add(1),
            ..found.clone()
        },
    ];
    for other in others {
        assert_eq!(
            changed(std::slice::from_ref(&other), true).await,
            [found.pid],
            "{other:?}"
        );
    }
    // What cannot be read has changed, unless it is known to be the server.
    let absent = Process {
        pid: FIRST,
        ..found.clone()
    };
    assert_eq!(changed(std::slice::from_ref(&absent), false).await, [FIRST]);
    assert_eq!(changed(&[absent], true).await, none);
    server.end();
}

#[test]
fn hazard_31_where_not_all_sockets_can_be_listed_only_those_at_the_address_are_known() {
    let (_socket, listener, search) = listening();
    let elsewhere = made_up(listener.uid, 42);
    let listens = |holding: u64, of_users: Option<Vec<Listener>>| {
        let machine = Captured::new()
            .with(SERVER, 1, SERVER_ARGV)
            .holding(SERVER, holding);
        let look = |mut looker: Looker| {
            looker.look_at_port();
            looker.of_users = of_users;
            looker.listens(SERVER)
        };
        machine.by(&search, &[], false, look).0
    };
    let all = vec![elsewhere.clone(), listener.clone()];
    assert_eq!(listens(42, Some(all.clone())), Some(vec![elsewhere]));
    assert_eq!(listens(43, Some(all.clone())), Some(vec![]));
    assert_eq!(
        listens(listener.inode, Some(all)),
        Some(vec![listener.clone()])
    );
    assert_eq!(listens(listener.inode, None), Some(vec![listener]));
    assert_eq!(listens(42, None), None);
}

#[test]
fn an_instance_on_the_servers_port_at_another_address_listens() {
    let both = (0..100).find_map(|_| {
        let ours = listening();
        let at = SocketAddr::from(([127, 0, 0, 2], ours.2.port));
        Some((ours, TcpListener::bind(at).ok()?, at))
    });
    let ((_socket, listener, search), _other, at) = both.unwrap();
    let other = sock_diag::listener_at(at).unwrap().unwrap();
    let machine = Captured::new()
        .with(SERVER, 1, SERVER_ARGV)
        .holding(SERVER, listener.inode)
        .with(OTHER, SERVER, SERVER_ARGV)
        .holding(OTHER, other.inode);
    let found = machine.candidates(&search);
    let listens = |pid: i32| {
        let mut found = found.iter();
        found
            .find(|one| one.process.pid == pid)
            .unwrap()
            .listens
            .clone()
    };
    assert_eq!(listens(SERVER), Some(vec![listener]));
    assert_eq!(listens(OTHER), Some(vec![other]));
}
