//! The server, two bystanders, and what must be true after each run.

use std::fs::{self, Permissions};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};
use tempfile::TempDir;

use super::errnos;
use super::rig::{self, MONITOR, Site};
use super::tracer::{self, Call, Ended, Exited, Names, Purpose};

/// No run may take longer: the check, the search, the diagnosis, 0.5 s and 5 s for the stop, 5 s for the start.
const LIMIT: Duration = Duration::from_secs(25);
/// A server that was started needs no longer to answer.
const GRACE: Duration = Duration::from_secs(2);
/// Bystanders end themselves after 300 s: they are replaced before.
const OLDEST: Duration = Duration::from_secs(120);
/// The user of the look-alike.
const NOBODY: u32 = 65534;
/// A user without an account.
const NAMELESS: u32 = 3_141_592;
/// A user with an account on every Linux machine.
const SYSTEM_USER: &str = "daemon";

/// The monitor's log.
const LOG: &str = "monitor.log";
/// The monitor's state directory.
const STATE: &str = "state";

/// What the monitor meets.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Scene {
    /// Nothing runs; the server was seen healthy before.
    Dead,
    /// An idle client blocks the server, which was seen healthy before.
    Hung,
    /// An idle client blocks the server, which the monitor has never seen.
    HungUnseen,
    /// The server answers, and the monitor has never seen it.
    HealthyUnseen,
    /// The server answers, as it did in the run before.
    Healthy,
    /// Like `Dead`, but the server was a user's.
    UsersDead,
    /// Like `Hung`, but the server is one of a user without an account.
    UsersHung,
}

impl Scene {
    pub const ALL: [Self; 7] = [
        Self::Dead,
        Self::Hung,
        Self::HungUnseen,
        Self::HealthyUnseen,
        Self::Healthy,
        Self::UsersDead,
        Self::UsersHung,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Hung => "hung",
            Self::HungUnseen => "hung, no record",
            Self::HealthyUnseen => "healthy, no record",
            Self::Healthy => "healthy",
            Self::UsersDead => "dead, of a user",
            Self::UsersHung => "hung, of a user",
        }
    }

    /// The scene that differs only in what the monitor remembers, or in the server's user, for one of the two.
    pub fn twin(self) -> Option<Self> {
        match self {
            Self::HungUnseen | Self::UsersHung => Some(Self::Hung),
            Self::HealthyUnseen => Some(Self::Healthy),
            Self::UsersDead => Some(Self::Dead),
            _ => None,
        }
    }

    /// Whether the server is one of another user than root.
    pub fn is_users(self) -> bool {
        self.owner() != 0
    }

    /// The server's user.
    fn owner(self) -> u32 {
        match self {
            Self::UsersDead => {
                let account = User::from_name(SYSTEM_USER).unwrap();
                account.unwrap().uid.as_raw()
            }
            Self::UsersHung => NAMELESS,
            _ => 0,
        }
    }

    fn is_dead(self) -> bool {
        matches!(self, Self::Dead | Self::UsersDead)
    }

    fn was_seen(self) -> bool {
        !matches!(self, Self::HungUnseen | Self::HealthyUnseen)
    }

    fn is_hung(self) -> bool {
        matches!(self, Self::Hung | Self::HungUnseen | Self::UsersHung)
    }

    fn is_healthy(self) -> bool {
        matches!(self, Self::Healthy | Self::HealthyUnseen)
    }
}

/// What one run came to, and the run after it.
#[derive(Default)]
pub struct Verdict {
    /// The call failed as asked.
    pub has_failed: bool,
    /// The server answers after the first run.
    pub is_restored: bool,
    pub took: Duration,
    /// How the first run ended.
    pub end: String,
    /// What must not be.
    pub problems: Vec<String>,
    /// The last lines of the first run's log.
    pub log: String,
    pub calls: Vec<Call>,
}

struct Bystander {
    pid: Pid,
    what: &'static str,
}

/// A private namespace with a server and its bystanders.
pub struct Host {
    /// What the monitor keeps.
    own: TempDir,
    owner: u32,
    site: Site,
    other: Site,
    exited: Exited,
    bystanders: Vec<Bystander>,
    names: Names,
    began: Instant,
    python: PathBuf,
}

impl Host {
    /// Only in a private PID namespace: all else in it is killed again and again.
    pub fn new() -> Self {
        let own = fs::read_to_string("/proc/1/cmdline").unwrap();
        assert!(
            own.starts_with("sh\0-c\0") && own.contains("every_system_call_fails_once"),
            "PID 1 is not this test's own: {own}"
        );
        // The users must be able to run it.
        let python = std::env::temp_dir().join("python3");
        fs::copy(rig::stand_in(), &python).unwrap();
        let owner = 0;
        let mut host = Self {
            own: tempfile::tempdir().unwrap(),
            owner,
            site: site_of(owner, &python),
            other: site_of(owner, &python),
            exited: Exited::default(),
            bystanders: Vec::new(),
            names: Names::default(),
            began: Instant::now(),
            python,
        };
        host.reset(owner);
        host
    }

    /// The monitor's arguments, with that limit for each check in seconds.
    fn monitor(&self, timeout: &str) -> Command {
        let mut monitor = Command::new(MONITOR);
        monitor
            .args(["--url", &self.site.url(), "--timeout", timeout])
            .args(["--stop-timeout", "0.5", "--start-timeout", "5", "--quiet"])
            .args(["--restart-cmd", &self.site.manage("start")])
            .arg("--logfile")
            .arg(self.path(LOG))
            .arg("--state-dir")
            .arg(self.path(STATE));
        rig::assert_harmless(&monitor);
        monitor
    }

    /// Runs the monitor in this scene for that purpose, then once more without a fault.
    pub fn run(&mut self, scene: Scene, purpose: Purpose, with_children: bool) -> Verdict {
        let fault = match &purpose {
            Purpose::Fail(fault) => Some(fault.clone()),
            _ => None,
        };
        self.reset(scene.owner());
        let mut server = Some(self.start());
        if scene.was_seen() {
            let warm = self.monitor_once("5", Purpose::Run, false);
            assert_eq!(warm.code, Some(0), "{}", self.log());
            let _ = fs::remove_file(self.path(LOG));
        }
        if scene.is_dead() {
            self.end(server.take().into_iter().collect());
        }
        let idle = scene.is_hung().then(|| self.block());
        self.name_pids(server);
        let limit = if scene.is_hung() { "0.3" } else { "3" };

        let ended = self.monitor_once(limit, purpose, with_children);
        let mut problems = Vec::new();
        let stderr = fs::read_to_string(std::env::temp_dir().join("stderr")).unwrap_or_default();
        let is_signalled = server.is_some_and(|pid| !self.is_alive(pid));
        let mut answers = self.answers(scene, server, is_signalled);
        if is_signalled && !answers {
            let deadline = Instant::now() + GRACE;
            while !answers && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(20));
                answers = self.answers(scene, server, is_signalled);
            }
        }
        let no_way = fault
            .as_ref()
            .is_some_and(|it| errnos::leaves_no_way(errnos::name(it.number), it.errno));
        let blames_the_server =
            fault.is_some_and(|it| errnos::blames_the_server(errnos::name(it.number), it.errno));
        if ended.was_late {
            problems.push(format!("it ran for more than {} s", LIMIT.as_secs()));
        }
        if let Some(panic) = panicked(&stderr) {
            problems.push(format!("it panicked at {panic}"));
        } else if !(no_way || ended.was_late) {
            if let Some(signal) = ended.signal {
                problems.push(format!("{signal} ended it"));
            }
        }
        // A thread has the stderr of the run.
        let childs = panicked(&ended.child_stderr.concat()).filter(|_| panicked(&stderr).is_none());
        if let Some(panic) = childs {
            problems.push(format!("its child panicked at {panic}"));
        }
        problems.extend(self.dead_bystanders());
        if ended.code == Some(0) && !answers {
            problems.push("exit status 0, and the server does not answer".into());
        }
        if is_signalled && !answers && !no_way {
            problems.push("stopped and not started".into());
        }
        if scene.is_healthy() && is_signalled && !blames_the_server {
            problems.push("a healthy server was stopped".into());
        }
        problems.extend(self.foreign_servers());
        let log = self.last_lines();
        let end = match (ended.code, ended.signal) {
            (Some(code), _) => format!("exit {code}"),
            (None, Some(signal)) => signal.to_string(),
            _ => String::new(),
        };

        let limit = if answers { "3" } else { limit };
        let once_more = self.monitor_once(limit, Purpose::Run, false);
        let in_time = if once_more.was_late {
            " (killed after its limit)"
        } else {
            ""
        };
        match once_more.code {
            Some(0) if self.get() => (),
            Some(0) => problems.push("one more run: exit 0, and the server does not answer".into()),
            code => problems.push(format!("one more run: exit {code:?}{in_time}")),
        }
        for problem in self
            .dead_bystanders()
            .into_iter()
            .chain(self.foreign_servers())
        {
            if !problems.contains(&problem) {
                problems.push(format!("one more run: {problem}"));
            }
        }
        drop(idle);
        Verdict {
            has_failed: ended.has_failed,
            is_restored: answers,
            took: ended.took,
            end,
            problems,
            log,
            calls: ended.calls,
        }
    }

    fn monitor_once(&mut self, timeout: &str, purpose: Purpose, with_children: bool) -> Ended {
        let monitor = self.monitor(timeout);
        tracer::run(
            &mut self.exited,
            &self.names,
            &monitor,
            purpose,
            with_children,
            LIMIT,
        )
    }

    /// Names the paths and processes of this scene.
    fn name_pids(&mut self, server: Option<Pid>) {
        let text = |path: PathBuf| path.display().to_string().trim_end_matches('/').to_owned();
        self.names.paths = vec![
            (text(self.path("")), "OWN"),
            (text(self.site.path("")), "SITE"),
            (text(self.other.path("")), "OTHER"),
            (text(std::env::temp_dir()), "TMP"),
        ];
        self.names.pids = vec![(Pid::from_raw(1), "INIT"), (Pid::this(), "TEST")];
        self.names.pids.extend(server.map(|pid| (pid, "SERVER")));
        let bystanders = self.bystanders.iter().zip(["OTHER", "LOOKALIKE"]);
        self.names
            .pids
            .extend(bystanders.map(|(one, name)| (one.pid, name)));
    }

    /// What the monitor keeps under that name.
    fn path(&self, name: &str) -> PathBuf {
        self.own.path().join(name)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path(LOG)).unwrap_or_default()
    }

    /// Servers that run as another user than the one whose server it was.
    fn foreign_servers(&self) -> Vec<String> {
        let of = |pid: &i32| fs::metadata(format!("/proc/{pid}")).map(|it| it.uid());
        let mut users: Vec<_> = self
            .site
            .servers()
            .iter()
            .filter_map(|pid| of(pid).ok())
            .collect();
        users.retain(|user| *user != self.owner);
        let foreign = users.iter();
        foreign
            .map(|_| "the server runs as another user".to_owned())
            .take(1)
            .collect()
    }

    /// Whether the server answers; a hung one that was left alone is not asked, it cannot.
    fn answers(&self, scene: Scene, server: Option<Pid>, is_signalled: bool) -> bool {
        !(scene.is_hung() && server.is_some() && !is_signalled) && self.get()
    }

    fn get(&self) -> bool {
        let address = SocketAddr::from(([127, 0, 0, 1], self.site.port));
        rig::get(address, GRACE).is_some_and(|answer| answer.starts_with("HTTP/1.0 200"))
    }

    fn start(&mut self) -> Pid {
        let pid = start(&self.site, self.owner);
        self.exited.forget(pid);
        pid
    }

    /// A client that keeps the server from answering.
    fn block(&self) -> TcpStream {
        self.site.idle_client()
    }

    fn is_alive(&mut self, pid: Pid) -> bool {
        !self.exited.has(pid)
            && fs::read_to_string(format!("/proc/{pid}/stat"))
                .is_ok_and(|stat| !stat.contains(") Z "))
    }

    fn dead_bystanders(&mut self) -> Vec<String> {
        let all: Vec<_> = self
            .bystanders
            .iter()
            .map(|one| (one.pid, one.what))
            .collect();
        all.into_iter()
            .filter(|(pid, _)| !self.is_alive(*pid))
            .map(|(_, what)| format!("a bystander was ended: {what}"))
            .collect()
    }

    /// The last lines of the log, without their time.
    fn last_lines(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log
            .lines()
            .filter_map(|line| line.split_once("] "))
            .map(|(_, text)| text)
            .filter(|text| !text.contains("====="))
            .collect();
        let last = &lines[lines.len().saturating_sub(4)..];
        shortened(&self.names.put_into(&last.join(" / ")))
    }

    /// As at first: nothing runs but the bystanders, the monitor remembers nothing, and the server is one of that user.
    fn reset(&mut self, owner: u32) {
        let is_old = self.began.elapsed() > OLDEST;
        let is_another = owner != self.owner;
        let keep: Vec<_> = if is_old || is_another || !self.dead_bystanders().is_empty() {
            Vec::new()
        } else {
            self.bystanders.iter().map(|one| one.pid).collect()
        };
        let own = Pid::this();
        let others = |keep: &[Pid]| -> Vec<Pid> {
            let entries = fs::read_dir("/proc").unwrap().flatten();
            let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
            pids.map(Pid::from_raw)
                .filter(|pid| pid.as_raw() != 1 && *pid != own && !keep.contains(pid))
                .collect()
        };
        self.end(others(&keep));
        if is_another {
            self.owner = owner;
            self.site = site_of(owner, &self.python);
            self.other = site_of(owner, &self.python);
        }
        let _ = fs::remove_dir_all(self.path(STATE));
        for name in [LOG, ".monitor.lock", "monitor.restart.log"] {
            let _ = fs::remove_file(self.path(name));
        }
        for name in ["notes", "port"] {
            let _ = fs::remove_file(self.site.path(name));
        }
        if keep.is_empty() {
            self.bystanders = vec![
                Bystander {
                    pid: start(&self.other, owner),
                    what: "another MyVNC of its user on another port",
                },
                Bystander {
                    pid: self.look_alike(),
                    what: "a look-alike of another user",
                },
            ];
            self.began = Instant::now();
            for one in &self.bystanders {
                self.exited.forget(one.pid);
            }
        }
    }

    /// Kills them and waits for their end.
    fn end(&mut self, pids: Vec<Pid>) {
        for pid in &pids {
            let _ = kill(*pid, Signal::SIGKILL);
        }
        for pid in pids {
            rig::wait_until("a process is gone", || {
                self.exited.has(pid) || !Path::new(&format!("/proc/{pid}")).exists()
            });
        }
    }

    /// A process of another user with the server's arguments, and no socket.
    fn look_alike(&self) -> Pid {
        let mut command = Command::new(&self.python);
        command
            .arg0(self.site.path("bin/python3"))
            .arg(self.site.path("myvnc/main.py"))
            .args(["--host", "127.0.0.1"])
            .env("STAND_IN_DECOY", "1")
            .uid(NOBODY)
            .gid(NOBODY)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        tracer::spawn(&mut command)
    }
}

/// A site that is that user's.
fn site_of(owner: u32, python: &Path) -> Site {
    let site = Site::new("");
    site.give_to(owner);
    chown(site.path(""), Some(owner), None).unwrap();
    fs::set_permissions(site.path(""), Permissions::from_mode(0o755)).unwrap();
    fs::remove_file(site.path("bin/python3")).unwrap();
    symlink(python, site.path("bin/python3")).unwrap();
    site
}

/// Starts a server of that user and waits until it listens.
fn start(site: &Site, owner: u32) -> Pid {
    let before = site.pids("listening").len();
    let mut command = Command::new(site.path("bin/python3"));
    command
        .arg(site.path("myvnc/main.py"))
        .args(["--host", "127.0.0.1"])
        .uid(owner)
        .gid(owner)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let pid = tracer::spawn(&mut command);
    let deadline = Instant::now() + rig::PATIENCE;
    while site.pids("listening").len() == before {
        assert!(Instant::now() < deadline, "the stand-in does not listen");
        std::thread::sleep(Duration::from_millis(1));
    }
    pid
}

/// Where a panic was, and what it said.
fn panicked(stderr: &str) -> Option<String> {
    let (_, at) = stderr.split_once("panicked at ")?;
    let text: Vec<_> = at.lines().take(2).collect();
    let text = text.join(" ");
    let (place, message) = text.split_once(": ").unwrap_or((&text, ""));
    // The sources of crates and of Rust are elsewhere on each machine.
    let place = match place.rsplit_once("/src/") {
        Some((package, file)) if package.starts_with('/') => {
            let package = package.rsplit('/').next().unwrap_or_default();
            format!("{package}/src/{file}")
        }
        _ => place.to_owned(),
    };
    let message = message.split(": ").next().unwrap_or_default();
    Some(shortened(&format!("{place}: {message}")))
}

fn shortened(text: &str) -> String {
    let text: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    match text.char_indices().nth(600) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}
