//! A restart beside another user's processes whose arguments are those of a MyVNC server: numerous, with
//! many descriptors, with huge arguments.
//!
//! Without a record of the server, so that the monitor has to search for it each time.

use std::io::Read;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;

use crate::binary;
use crate::child::{bare, median, rounds};
use crate::healing::clear;
use crate::namespace;
use crate::rig::{self, Site};
use crate::table::{Row, Table};

/// Makes this program a look-alike that holds so many descriptors.
pub(crate) const DESCRIPTORS: &str = "MONITOR_BENCH_LOOK_ALIKE";

/// The user that the look-alikes belong to.
const USER: u32 = 65_534;
const ARGUMENT: &str = "/tmp/evil/myvnc/main.py";
/// Descriptors that one holds in all.
const MANY: usize = 20_000;
/// Words of three bytes with their NUL, which make 1 MiB of arguments.
const WORDS: usize = (1 << 20) / 3;
/// Of the stack, which bounds the arguments of an exec: see execve(2).
const STACK: usize = 64 << 20;

const RUNS: usize = 5;
/// The monitor's check of a hung server, in seconds.
const CHECK: &str = "0.5";
/// A run that takes longer is ended.
const LONGEST: Duration = Duration::from_secs(60);
/// The most that look-alikes may add to a run.
const MOST_MORE: Duration = Duration::from_secs(1);
/// The most memory of the monitor and its children together, in KiB.
const MOST_MEMORY: u64 = 32 << 10;
/// The most that a run may log, in bytes.
const MOST_LOG: u64 = 64 << 10;

const WHAT: &str = "restart beside look-alikes";

pub(crate) fn restarts(table: &mut Table) {
    if !rig::is_root() {
        return table.push(Row::skipped(WHAT, "only root can be another user"));
    }
    namespace::run(table, "lookalikes", WHAT);
}

#[derive(Clone, Copy)]
enum Server {
    Hung,
    Dead,
}

impl Server {
    fn name(self) -> &'static str {
        match self {
            Self::Hung => "a hung server",
            Self::Dead => "a dead server",
        }
    }
}

const SERVERS: [Server; 2] = [Server::Hung, Server::Dead];

/// In the namespaces.
pub(crate) fn inside(table: &mut Table) {
    let site = Site::new("");
    let without = SERVERS.map(|server| measure(&site, server));

    let mut crowd = Crowd::new();
    crowd.add(12, MANY, 0);
    crowd.add(500, 0, WORDS);
    for (server, without) in SERVERS.into_iter().zip(&without) {
        let with = measure(&site, server);
        let added = with.took - without.took;
        table.push(
            Row::new(format!(
                "restart of {}, without a record, beside 12 look-alikes with {MANY} descriptors and 500 with 1 MiB of arguments",
                server.name()
            ))
            .monitor(format!("{:.2} s: adds {added:.2} s", with.took))
            .peer(format!("{:.2} s without them", without.took))
            .limit(
                format!("adds ≤ {} s", MOST_MORE.as_secs()),
                added <= MOST_MORE.as_secs_f64(),
            )
            .unless(with.wrong.clone().or_else(|| crowd.losses())),
        );
    }
    drop(crowd);

    let mut crowd = Crowd::new();
    crowd.add(200, MANY, WORDS);
    for (server, without) in SERVERS.into_iter().zip(&without) {
        let with = measure(&site, server);
        let wrong = with.wrong.clone().or_else(|| crowd.losses());
        let what = format!(
            "restart of {}, without a record, beside 200 look-alikes with both",
            server.name()
        );
        table.push(
            Row::new(format!("{what}: memory of monitor and children together"))
                .monitor(format!("{} KiB", with.memory))
                .peer(format!("{} KiB without them", without.memory))
                .limit(
                    format!("≤ {MOST_MEMORY} KiB"),
                    (1..=MOST_MEMORY).contains(&with.memory),
                )
                .unless(wrong.clone()),
        );
        table.push(
            Row::new(format!("{what}: the run's log"))
                .monitor(format!("{} bytes", with.log))
                .peer(format!("{} bytes without them", without.log))
                .limit(format!("≤ {MOST_LOG} bytes"), with.log <= MOST_LOG)
                .unless(wrong.clone()),
        );
        table.push(
            Row::new(format!("{what}: time"))
                .monitor(format!("{:.2} s", with.took))
                .peer(format!("{:.2} s without them", without.took)),
        );
    }
    table.command("lookalikes", &command(&site), &site.path(""));
    table.note(
        "lookalikes: memory is the greatest sum of VmHWM over those processes of the monitor's program that lived at \
         one time, sampled every 0.5 ms: pages that a fork shares count for each process. The restart command's \
         processes do not count. No log of the server's own and no dump is in the log.",
    );
}

/// Processes of another user, which are ended when dropped.
struct Crowd {
    folder: TempDir,
    members: Vec<Child>,
}

impl Crowd {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let anybody = fs::Permissions::from_mode(0o755);
        fs::set_permissions(folder.path(), anybody).unwrap();
        fs::copy(env::current_exe().unwrap(), folder.path().join("python3")).unwrap();
        Self {
            folder,
            members: Vec::new(),
        }
    }

    fn add(&mut self, count: usize, descriptors: usize, words: usize) {
        let mut member = bare(self.folder.path().join("python3"));
        member
            .arg0("python3")
            .arg(ARGUMENT)
            .args(std::iter::repeat_n("-p", words))
            .env(DESCRIPTORS, descriptors.to_string())
            .uid(USER)
            .gid(USER)
            .stdout(Stdio::piped());
        let open_files = raise(Resource::Nofile, MANY);
        let stack = raise(Resource::Stack, STACK);
        for _ in 0..count {
            self.members.push(member.spawn().unwrap());
        }
        setrlimit(Resource::Nofile, open_files).unwrap();
        setrlimit(Resource::Stack, stack).unwrap();
        for member in self.members.iter_mut().rev().take(count) {
            let mut output = member.stdout.take().unwrap();
            assert_eq!(output.read(&mut [0]).unwrap(), 1, "a look-alike is ready");
        }
    }

    /// How many were ended by somebody else, if any.
    fn losses(&mut self) -> Option<String> {
        let gone = self
            .members
            .iter_mut()
            .filter_map(|member| member.try_wait().unwrap())
            .count();
        (gone > 0).then(|| format!("{gone} look-alikes were ended"))
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for member in &mut self.members {
            let _ = member.kill();
        }
        for member in &mut self.members {
            let _ = member.wait();
        }
    }
}

/// Raises a limit for the processes that are started from now on; returns what it was.
fn raise(resource: Resource, least: usize) -> Rlimit {
    let least = u64::try_from(least).unwrap();
    let before = getrlimit(resource);
    let raised = Rlimit {
        current: before.current.map(|current| current.max(least)),
        maximum: before.maximum.map(|maximum| maximum.max(least)),
    };
    let said = setrlimit(resource, raised);
    said.unwrap_or_else(|reason| panic!("{resource:?} cannot be raised to {least}: {reason}"));
    before
}

/// In such a process: holds so many descriptors of one socket, says so, and stays.
pub(crate) fn pretend(descriptors: &str) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let count: usize = descriptors.parse().unwrap();
    // The limit counts what it has inherited, too.
    let copies = (0..count).map_while(|_| socket.try_clone().ok());
    let copies: Vec<socket2::Socket> = copies.collect();
    assert!(copies.len() + 20 >= count, "{}", copies.len());
    println!();
    loop {
        thread::park();
        assert!(copies.len() <= MANY);
    }
}

/// What restarts came to: medians.
struct Restarts {
    /// Seconds.
    took: f64,
    /// KiB.
    memory: u64,
    /// Bytes.
    log: u64,
    /// What went wrong, if anything did.
    wrong: Option<String>,
}

fn measure(site: &Site, server: Server) -> Restarts {
    let (mut times, mut memory, mut log, mut wrong) = (Vec::new(), 0, 0, None);
    for _ in 0..rounds(RUNS) {
        let restart = restart(site, server);
        times.push(restart.took);
        memory = memory.max(restart.memory);
        log = log.max(restart.log);
        if restart.wrong.is_some() {
            // It takes long enough once.
            wrong = restart.wrong;
            break;
        }
    }
    Restarts {
        took: median(times),
        memory,
        log,
        wrong,
    }
}

fn command(site: &Site) -> Command {
    let mut monitor = bare(binary::monitor());
    monitor
        .args(["--url", &site.url(), "--timeout", CHECK])
        .args(["--restart-cmd", &site.manage("start")])
        .arg("--logfile")
        .arg(site.path("monitor.log"))
        .arg("--state-dir")
        .arg(site.path("state"));
    monitor
}

fn restart(site: &Site, server: Server) -> Restarts {
    for name in ["state", "notes"] {
        let _ = fs::remove_dir_all(site.path(name));
        let _ = fs::remove_file(site.path(name));
    }
    let _ = fs::remove_file(site.path("monitor.log"));
    let hung: Option<(rig::Process, TcpStream)> = match server {
        Server::Hung => {
            let server = site.start();
            Some((server, site.idle_client()))
        }
        Server::Dead => None,
    };
    let began = Instant::now();
    let mut monitor = command(site).spawn().unwrap();
    let mut memory = 0;
    let status = loop {
        if let Some(status) = monitor.try_wait().unwrap() {
            break Some(status);
        }
        if began.elapsed() > LONGEST {
            monitor.kill().unwrap();
            monitor.wait().unwrap();
            break None;
        }
        memory = memory.max(memory_of(monitor.id(), binary::monitor()));
        thread::sleep(Duration::from_micros(500));
    };
    let took = began.elapsed().as_secs_f64();
    let log = site.log();
    let last = || log.lines().last().unwrap_or_default().to_owned();
    let wrong = match status {
        None => Some(format!("ended after {} s: {}", LONGEST.as_secs(), last())),
        Some(status) if status.code() != Some(0) => Some(format!("{status}: {}", last())),
        Some(_) if !site.answers() => Some("the server does not answer".into()),
        Some(_) => None,
    };
    drop(hung);
    clear(site);
    Restarts {
        took,
        memory,
        log: u64::try_from(log.len()).unwrap(),
        wrong,
    }
}

/// The peaks (VmHWM) of a process and its descendants, those of this program, in KiB.
fn memory_of(pid: u32, program: &Path) -> u64 {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let own = match fs::read_link(process.join("exe")) {
        Ok(running) if running == program => fs::read_to_string(process.join("status"))
            .ok()
            .and_then(|status| {
                let line = status
                    .lines()
                    .find_map(|line| line.strip_prefix("VmHWM:"))?;
                line.trim_end_matches("kB").trim().parse::<u64>().ok()
            }),
        _ => None,
    };
    let threads = fs::read_dir(process.join("task")).into_iter().flatten();
    let children = threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|children| {
            let children = children.split_whitespace();
            let children: Vec<u32> = children.filter_map(|child| child.parse().ok()).collect();
            children
        });
    own.unwrap_or_default() + children.map(|child| memory_of(child, program)).sum::<u64>()
}
