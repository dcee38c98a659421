//! A machine of a test's own: private PID, mount and network namespaces with accounts, two `MyVNC` servers, and
//! processes of strangers.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::process::{Resource, Rlimit, setrlimit};
use seccompiler::BpfProgram;
use tempfile::TempDir;

use super::{
    INSIDE, MONITOR, Mounted, Process, Run, assert_harmless, is_inside, is_root, skip, stand_in,
    test_name, wait_until,
};

/// The server's port, on which nothing else listens in the network namespace.
pub const PORT: u16 = 9143;
/// The port of the other `MyVNC` of this host.
pub const OTHER_PORT: u16 = 9200;
/// The account `myvnc`, which owns the server.
pub const MYVNC: u32 = 1000;
/// The account `other`.
pub const OTHER: u32 = 1234;
/// The account `nobody`, which owns nothing here but its own processes.
pub const NOBODY: u32 = 65534;

/// No run takes longer, whatever holds it.
const LONGEST_RUN: Duration = Duration::from_secs(40);

const ACCOUNTS: &str = "root:x:0:0:root:/root:/bin/sh\n\
    myvnc:x:1000:1000::/nonexistent:/bin/sh\n\
    other:x:1234:1234::/nonexistent:/bin/sh\n\
    nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
const GROUPS: &str = "root:x:0:\nmyvnc:x:1000:\nother:x:1234:\nnogroup:x:65534:\n";
const HOSTS: &str = "127.0.0.1 localhost\n::1 localhost\n";

/// Runs the rest of a test on a machine of its own, where the monitor may search for any process: the test runs
/// itself again in there. Both servers belong to that user, and the other one runs.
pub fn on_own_machine(user: u32, body: impl FnOnce(&mut Machine)) {
    if is_inside() {
        return body(&mut Machine::new(user));
    }
    let test = &test_name();
    if !is_root() {
        return skip("only root can have processes of several users");
    }
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--pid", "--net", "--fork", "--kill-child"]);
    unshare.args(["--mount-proc", "sh", "-c"]);
    let possible = Command::new(unshare.get_program())
        .args(unshare.get_args())
        .arg("ip link set lo up")
        .output()
        .is_ok_and(|output| output.status.success());
    if !possible {
        return skip("no private namespaces with a loopback interface can be made here");
    }
    // A shell stays as PID 1, which reaps what its children leave behind.
    unshare.args(["ip link set lo up && \"$@\"; exit $?", "sh"]);
    unshare.arg(std::env::current_exe().unwrap());
    unshare.args([test, "--exact", "--nocapture", "--test-threads=1"]);
    let run = super::run(unshare.env(INSIDE, test));
    let said = format!("{}{}", run.stdout, run.stderr);
    assert!(run.status.success(), "inside the namespaces:\n{said}");
    assert!(run.stdout.contains("1 passed"), "no test {test}:\n{said}");
    run.repeat_skips();
}

/// A `MyVNC`: its directory, port and owner.
pub struct Installation {
    pub directory: PathBuf,
    pub port: u16,
    pub user: u32,
}

impl Installation {
    fn new(directory: PathBuf, port: u16, user: u32) -> Self {
        let this = Self {
            directory,
            port,
            user,
        };
        fs::create_dir(&this.directory).unwrap();
        fs::create_dir(this.path("bin")).unwrap();
        fs::create_dir(this.path("myvnc")).unwrap();
        fs::copy(stand_in(), this.path("bin/python3")).unwrap();
        for name in ["notes", "port"] {
            File::create(this.path(name)).unwrap();
            fs::set_permissions(this.path(name), Permissions::from_mode(0o666)).unwrap();
        }
        fs::write(this.path("myvnc/manage.py"), "\n").unwrap();
        this.configure("");
        chown(this.path("myvnc"), Some(user), Some(user)).unwrap();
        for name in ["myvnc/main.py", "myvnc/manage.py"] {
            chown(this.path(name), Some(user), Some(user)).unwrap();
        }
        this
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// What the next server does.
    pub fn configure(&self, settings: &str) {
        let text = format!("listen = 127.0.0.1:{}\n{settings}\n", self.port);
        fs::write(self.path("myvnc/main.py"), text).unwrap();
    }

    pub fn restart_command(&self) -> String {
        let python = self.path("bin/python3").display().to_string();
        format!("{python} {} start", self.path("myvnc/manage.py").display())
    }

    /// Starts the server as its owner, and waits until it listens.
    pub fn start(&self) -> Process {
        self.start_as(self.user)
    }

    pub fn start_as(&self, user: u32) -> Process {
        let before = self.noted("listening").len();
        let server = self.spawn_as(user);
        wait_until("it listens", || self.noted("listening").len() > before);
        server
    }

    /// Starts the server as that user.
    pub fn spawn_as(&self, user: u32) -> Process {
        let mut server = Command::new(self.path("bin/python3"));
        server.arg(self.path("myvnc/main.py"));
        server.args(["--port", &self.port.to_string()]);
        let child = server
            .uid(user)
            .gid(user)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let child = child
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        Process::from(child)
    }

    fn noted(&self, event: &str) -> Vec<i32> {
        let notes = fs::read_to_string(self.path("notes")).unwrap();
        let lines = notes.lines().filter_map(|line| line.split_once(' '));
        let lines = lines.filter(|(noted, _)| *noted == event);
        lines.map(|(_, pid)| pid.parse().unwrap()).collect()
    }

    /// The PIDs of its servers that live.
    pub fn servers(&self) -> Vec<i32> {
        let mut pids = self.noted("server");
        pids.retain(|pid| is_alive(*pid));
        pids
    }

    /// The PID of its one server that lives.
    pub fn server(&self) -> i32 {
        let servers = self.servers();
        assert_eq!(servers.len(), 1, "{servers:?}");
        servers[0]
    }

    /// Ends its servers at once.
    pub fn kill(&self) {
        for pid in self.servers() {
            kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        }
        wait_until("its servers are dead", || self.servers().is_empty());
    }

    /// A client that connects, sends nothing and stays, and so blocks the server.
    pub fn idle_client(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).unwrap()
    }

    /// Whether a server of this installation answers, and nobody in its place.
    pub fn answers(&self) -> bool {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let answer = super::get(address, Duration::from_secs(5)).unwrap_or_default();
        answer.starts_with("HTTP/1.0 200") && answer.contains("Server: stand-in")
    }
}

/// A process that lives, zombies not included.
pub fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().unwrap_or_default();
    !state.is_empty() && !state.starts_with(['Z', 'X'])
}

/// The user of a process.
pub fn user_of(pid: i32) -> u32 {
    fs::metadata(format!("/proc/{pid}")).unwrap().uid()
}

/// What a run came to, with what it added to the log.
pub struct Ran {
    pub run: Run,
    pub log: String,
}

impl fmt::Debug for Ran {
    /// Without what log and stdout both have.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Run {
            status,
            stderr,
            took,
            ..
        } = &self.run;
        let log: String = self.log.chars().take(20_000).collect();
        writeln!(
            f,
            "{status} after {took:?}; its log:\n{log}its stderr:\n{stderr}"
        )
    }
}

impl Ran {
    pub fn code(&self) -> Option<i32> {
        self.run.code()
    }

    /// The lines of that level in the log.
    pub fn lines(&self, level: &str) -> Vec<&str> {
        let mark = format!("] [{level}] ");
        self.log
            .lines()
            .filter(|line| line.contains(&mark))
            .collect()
    }

    /// The lines of ERROR and CRITICAL.
    pub fn errors(&self) -> Vec<&str> {
        [self.lines("ERROR"), self.lines("CRITICAL")].concat()
    }

    /// The process lives, and no signal was sent to it.
    #[track_caller]
    pub fn assert_unharmed(&self, process: &Process) {
        assert!(process.is_alive(), "PID {} died: {self:?}", process.pid);
        for signal in ["SIGTERM", "SIGKILL"] {
            let sent = format!("Sent {signal} to PID {}\n", process.pid);
            assert!(!self.log.contains(&sent), "{self:?}");
        }
    }

    /// Whether the diagnosis ended early, as it can on a busy machine.
    pub fn is_hurried(&self) -> bool {
        let said = ["timed out reading ", "/proc did not respond"];
        said.iter().any(|text| self.log.contains(text))
    }

    /// The warnings with that text.
    pub fn warnings_with(&self, text: &str) -> Vec<&str> {
        let mut warnings = self.lines("WARNING");
        warnings.retain(|line| line.contains(text));
        warnings
    }
}

pub struct Machine {
    directory: TempDir,
    mounted: Vec<Mounted>,
    is_root_read_only: bool,
    pub ours: Installation,
    pub other: Installation,
    pub other_server: Process,
    /// What the monitor is run by: a program and its arguments.
    pub wrapper: Vec<OsString>,
    /// System calls that are refused to the monitor and its children.
    pub filter: Option<BpfProgram>,
}

impl Machine {
    fn new(user: u32) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("machine-")
            .tempdir()
            .unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        // A mount of its own stays writable where the root becomes read-only.
        bind(directory.path(), directory.path());
        for (name, text) in [("passwd", ACCOUNTS), ("group", GROUPS), ("hosts", HOSTS)] {
            let file = directory.path().join(name);
            fs::write(&file, text).unwrap();
            bind(&file, &Path::new("/etc").join(name));
        }
        let ours = Installation::new(directory.path().join("ours"), PORT, user);
        let other = Installation::new(directory.path().join("other"), OTHER_PORT, user);
        let evil = directory.path().join("evil");
        fs::create_dir_all(evil.join("myvnc")).unwrap();
        fs::create_dir(directory.path().join("log")).unwrap();
        fs::copy(stand_in(), directory.path().join("python3")).unwrap();
        for path in [&evil, &evil.join("myvnc")] {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        // What the attackers of these tests open and pass is theirs to decide.
        let unlimited = Rlimit {
            current: Some(20_000),
            maximum: Some(20_000),
        };
        setrlimit(Resource::Nofile, unlimited).unwrap();
        let _ = setrlimit(
            Resource::Stack,
            Rlimit {
                current: Some(64 << 20),
                maximum: None,
            },
        );
        Self {
            other_server: other.start(),
            mounted: vec![Mounted(directory.path().to_owned())],
            directory,
            is_root_read_only: false,
            ours,
            other,
            wrapper: Vec::new(),
            filter: None,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// As a package installs it: then no file says whose server it is.
    pub fn give_our_script_to_root(&self) {
        for name in ["myvnc", "myvnc/main.py", "myvnc/manage.py"] {
            chown(self.ours.path(name), Some(0), Some(0)).unwrap();
        }
        self.make_directory("ours/myvnc/web", self.ours.user, 0o755);
    }

    /// Makes a directory of that user.
    pub fn make_directory(&self, name: &str, user: u32, mode: u32) -> PathBuf {
        let path = self.path(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        chown(&path, Some(user), Some(user)).unwrap();
        path
    }

    /// Writes a file of that user.
    pub fn make_file(&self, name: &str, user: u32, mode: u32, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        chown(&path, Some(user), Some(user)).unwrap();
        path
    }

    /// Mounts a file system in memory there, until the end of the test.
    pub fn mount_tmpfs(&mut self, name: &str, flags: MsFlags, options: &str) -> PathBuf {
        let path = self.path(name);
        self.mounted.push(Mounted::tmpfs(&path, flags, options));
        path
    }

    /// Leaves nothing but this machine's own directory and what is mounted to write to.
    pub fn make_root_read_only(&mut self) {
        remount_root(MsFlags::MS_RDONLY);
        self.is_root_read_only = true;
    }

    /// The monitor with the built-in rule, as root. It waits 0.5 s for an answer: enough where none comes.
    pub fn monitor(&self) -> Command {
        let mut words = self.wrapper.iter().cloned().chain([MONITOR.into()]);
        let mut monitor = Command::new(words.next().unwrap());
        monitor.args(words);
        monitor.args(["--url", &format!("http://127.0.0.1:{PORT}")]);
        monitor.args(["--restart-cmd", &self.ours.restart_command()]);
        monitor.args(["--timeout", "0.5", "--stop-timeout", "2"]);
        monitor.args(["--start-timeout", "20"]);
        monitor.arg("--logfile").arg(self.path("log/m.log"));
        monitor.arg("--state-dir").arg(self.path("state"));
        monitor
    }

    /// The monitor for a server that is expected to answer, however slow the machine is.
    pub fn patient_monitor(&self) -> Command {
        let mut monitor = self.monitor();
        monitor.args(["--timeout", "10"]);
        monitor
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log/m.log")).unwrap_or_default()
    }

    /// Runs it to its end. What outlives it and holds its output delays nothing.
    pub fn run(&self, command: &mut Command) -> Ran {
        assert_harmless(command);
        let before = self.log().len();
        let [output, errors] = ["stdout", "stderr"].map(|name| self.path(name));
        command
            .stdin(Stdio::null())
            .stdout(File::create(&output).unwrap())
            .stderr(File::create(&errors).unwrap());
        let began = Instant::now();
        let mut child = match &self.filter {
            None => command.spawn().unwrap(),
            // A filter holds for the thread that sets it and for what this thread starts.
            Some(filter) => std::thread::scope(|scope| {
                let spawning = scope.spawn(|| {
                    seccompiler::apply_filter(filter).unwrap();
                    command.spawn().unwrap()
                });
                spawning.join().unwrap()
            }),
        };
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if began.elapsed() > LONGEST_RUN {
                // It is not waited for: it may be in state D.
                child.kill().unwrap();
                panic!("the run does not end; its log:\n{}", &self.log()[before..]);
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let took = began.elapsed();
        let read = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
        let (stdout, stderr) = (read(&output), read(&errors));
        let ran = Ran {
            run: Run {
                status,
                stdout,
                stderr,
                took,
            },
            log: self.log()[before..].to_owned(),
        };
        assert_eq!(ran.run.status.signal(), None, "{ran:?}");
        assert!(!ran.run.stderr.contains("panicked"), "{ran:?}");
        ran
    }

    /// A run on a server that answers: it is healthy, and known afterwards.
    pub fn run_healthy(&self) -> Ran {
        let ran = self.run(&mut self.patient_monitor());
        assert_eq!(ran.code(), Some(0), "{ran:?}");
        assert!(ran.log.contains("✓ Server is healthy"), "{ran:?}");
        ran
    }

    /// Starts a server, lets a run see it, and ends it: it is known and dead afterwards.
    pub fn let_a_known_server_die(&self) {
        let server = self.ours.start();
        self.run_healthy();
        drop(server);
    }

    /// A process of a stranger under the argv of a `MyVNC`, ready for what it does: `settings` as in
    /// `examples/stand_in/stranger.rs`.
    pub fn look_alike(&self, user: u32, settings: &str) -> Process {
        let script = self.path("evil/myvnc/main.py").display().to_string();
        self.stranger(user, &["python3", &script, "--host", "x"], settings)
    }

    pub fn stranger(&self, user: u32, argv: &[&str], settings: &str) -> Process {
        self.stranger_in(&self.path("evil"), user, argv, settings)
    }

    pub fn stranger_in(
        &self,
        directory: &Path,
        user: u32,
        argv: &[&str],
        settings: &str,
    ) -> Process {
        Self::stranger_of(&self.path("python3"), directory, user, argv, settings)
    }

    /// A look-alike whose program gives it root's rights, which the user could not take.
    pub fn setuid_look_alike(&self, user: u32, settings: &str) -> Process {
        let program = self.path("evil/setuid");
        fs::copy(self.path("python3"), &program).unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o4755)).unwrap();
        let script = self.path("evil/myvnc/main.py").display().to_string();
        let argv = ["python3", &script, "--host", "x"];
        let process = Self::stranger_of(&program, &self.path("evil"), user, &argv, settings);
        let status = fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap();
        let uids = format!("Uid:\t{user}\t0\t");
        assert!(status.contains(&uids), "{status}");
        process
    }

    fn stranger_of(
        program: &Path,
        directory: &Path,
        user: u32,
        argv: &[&str],
        settings: &str,
    ) -> Process {
        let mut stranger = Command::new(program);
        stranger
            .arg0(argv[0])
            .args(&argv[1..])
            .current_dir(directory);
        stranger
            .env("STAND_IN_STRANGER", settings)
            .uid(user)
            .gid(user);
        stranger.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = Process::from(stranger.spawn().unwrap());
        let mut said = String::new();
        let output = process.child.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut said).unwrap();
        let pid = said.trim_end().strip_prefix("waiting ");
        let pid = pid.unwrap_or_else(|| panic!("the stranger says {said:?}"));
        process.pid = pid.parse().unwrap();
        process
    }

    /// The server runs again, the monitor says so, and the other one was not harmed.
    #[track_caller]
    pub fn assert_healed(&self, ran: &Ran) {
        assert_eq!(ran.code(), Some(0), "{ran:?}");
        assert!(self.ours.answers(), "{ran:?}");
        self.assert_other_unharmed(ran);
    }

    #[track_caller]
    pub fn assert_other_unharmed(&self, ran: &Ran) {
        ran.assert_unharmed(&self.other_server);
        assert!(self.other.answers(), "the other MyVNC: {ran:?}");
    }

    /// An ERROR names the process that has the port, its user, and how to accept that user; the exit status is 1.
    #[track_caller]
    pub fn assert_takeover(&self, taker: &Process, ran: &Ran) {
        assert_eq!(ran.code(), Some(1), "{ran:?}");
        let errors = ran.errors();
        let names = |line: &&str| {
            line.contains(&format!("PID {}", taker.pid))
                && (line.contains("nobody") || line.contains("65534"))
                && line.contains("user = \"nobody\"")
        };
        assert!(errors.iter().any(names), "{ran:?}");
        ran.assert_unharmed(taker);
        self.assert_other_unharmed(ran);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self.is_root_read_only {
            remount_root(MsFlags::empty());
        }
        // The last one first: one may lie in another.
        while self.mounted.pop().is_some() {}
    }
}

/// Mounts a file over another one.
pub fn bind(file: &Path, over: &Path) {
    mount(
        Some(file),
        over,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .unwrap();
}

/// Mounts /proc again, with these options.
pub fn mount_proc(options: &str) {
    let kind = Some("proc");
    mount(kind, "/proc", kind, MsFlags::empty(), Some(options)).unwrap();
}

fn remount_root(flags: MsFlags) {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).unwrap();
}
