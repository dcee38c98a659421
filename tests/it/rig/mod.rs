//! What the tests share: a site (a temp dir with a stand-in `MyVNC`), runs of the built
//! monitor on it, and private PID namespaces.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::missing_panics_doc,
    clippy::must_use_candidate
)]

pub mod dead_disk;
pub mod devtools;
pub mod frozen_disk;
pub mod machine;
pub mod refused;
mod skip;

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{self, SigHandler, Signal};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

pub use self::skip::skip;

/// The built monitor.
pub const MONITOR: &str = env!("CARGO_BIN_EXE_monitor_myvnc");
/// Names the test that runs in a private PID namespace, where it is set.
const INSIDE: &str = "MONITOR_TEST_INSIDE";
/// No wait of a test takes longer.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// A temp dir with a stand-in `MyVNC` that listens on a port of its own.
pub struct Site {
    directory: TempDir,
    reserved: Socket,
    pub port: u16,
}

/// Lets the programs that the tests start heed what asks them to stop, also where the tests run behind a
/// shell's `&`, which ignores SIGINT, or under `nohup(1)`, which ignores SIGHUP.
#[allow(unsafe_code)]
fn heed_signals() {
    for signal in [Signal::SIGINT, Signal::SIGHUP, Signal::SIGTERM] {
        // SAFETY: `SIG_DFL` installs no handler (`signal(2)`).
        unsafe { signal::signal(signal, SigHandler::SigDfl) }.unwrap();
    }
}

impl Site {
    /// A site whose server is healthy once it is started; `settings` are further lines for its `main.py`.
    pub fn new(settings: &str) -> Self {
        heed_signals();
        let directory = tempfile::Builder::new().prefix("site-").tempdir().unwrap();
        let (reserved, port) = reserve_port();
        let site = Self {
            directory,
            reserved,
            port,
        };
        fs::create_dir_all(site.path("bin")).unwrap();
        fs::create_dir_all(site.path("myvnc")).unwrap();
        std::os::unix::fs::symlink(stand_in(), site.path("bin/python3")).unwrap();
        site.configure(settings);
        site.configure_manage("");
        site
    }

    /// What the next server does.
    pub fn configure(&self, settings: &str) {
        let listen = if settings.contains("listen = ") {
            String::new()
        } else {
            format!("listen = 127.0.0.1:{}\n", self.port)
        };
        fs::write(self.path("myvnc/main.py"), format!("{listen}{settings}\n")).unwrap();
    }

    /// What the next `manage.py` does.
    pub fn configure_manage(&self, settings: &str) {
        fs::write(self.path("myvnc/manage.py"), format!("{settings}\n")).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The restart command with that verb.
    pub fn manage(&self, verb: &str) -> String {
        format!(
            "{} {} {verb}",
            self.path("bin/python3").display(),
            self.path("myvnc/manage.py").display()
        )
    }

    /// A site, and its server that listens; `settings` say how it hangs.
    pub fn hung(settings: &str) -> (Self, Process) {
        let site = Self::new(settings);
        let server = site.start();
        (site, server)
    }

    /// Starts the server as a child of the test and waits until it listens.
    pub fn start(&self) -> Process {
        let before = self.pids("listening").len();
        let server = self.spawn();
        wait_until("the stand-in listens", || {
            self.pids("listening").len() > before
        });
        server
    }

    /// Starts the server as a child of the test.
    pub fn spawn(&self) -> Process {
        let child = Command::new(self.path("bin/python3"))
            .arg(self.path("myvnc/main.py"))
            .args(["--host", "127.0.0.1"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Process::from(child)
    }

    /// The PIDs of the stand-ins that noted this event, in order.
    pub fn pids(&self, event: &str) -> Vec<i32> {
        let notes = fs::read_to_string(self.path("notes")).unwrap_or_default();
        notes
            .lines()
            .filter_map(|line| line.split_once(' '))
            .filter(|(noted, _)| *noted == event)
            .map(|(_, pid)| pid.parse().unwrap())
            .collect()
    }

    /// The servers of this site that live.
    pub fn servers(&self) -> Vec<i32> {
        self.pids("server")
            .into_iter()
            .filter(|pid| self.is_ours(*pid))
            .collect()
    }

    fn is_ours(&self, pid: i32) -> bool {
        let site = self.directory.path().as_os_str().as_encoded_bytes();
        fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|argv| argv.windows(site.len()).any(|part| part == site))
    }

    /// A client that connects, sends nothing and stays, and so blocks the server.
    pub fn idle_client(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).unwrap()
    }

    pub fn answers(&self) -> bool {
        get(
            SocketAddr::from(([127, 0, 0, 1], self.port)),
            Duration::from_secs(5),
        )
        .is_some_and(|answer| answer.starts_with("HTTP/1.0 200"))
    }

    /// The monitor on this site, with what no test needs to say; it can find only this site's server.
    pub fn monitor(&self) -> Command {
        let mut monitor = self.bare_monitor();
        monitor.args([
            "--restart-cmd",
            &self.manage("start"),
            "--process-pattern",
            &self.pattern(),
        ]);
        monitor
    }

    /// The monitor with its own rule for what the server is: only in a private PID namespace.
    pub fn monitor_by_rule(&self) -> Command {
        let mut monitor = self.bare_monitor();
        monitor.args(["--restart-cmd", &self.manage("start"), "--timeout", "0.5"]);
        monitor
    }

    /// Collects a diagnosis, which leaves the server alone.
    pub fn collect(&self) -> Run {
        let mut monitor = self.monitor();
        monitor.args(["--collect-diagnostics", "--timeout", "0.5"]);
        let collected = self.look(&mut monitor);
        assert_eq!(collected.code(), Some(0), "{}", self.log());
        assert!(!self.log().contains("RESTARTING"), "{}", self.log());
        collected
    }

    /// What matches this site's server and nothing else on the machine.
    pub fn pattern(&self) -> String {
        format!(
            "^{}/bin/python3 {}/myvnc/main[.]py",
            self.directory.path().display(),
            self.directory.path().display()
        )
    }

    /// The monitor without a restart command and without a pattern.
    pub fn bare_monitor(&self) -> Command {
        self.bare_monitor_at(Path::new(MONITOR))
    }

    /// A copy of a program that any user can run, in a site that any user can write to: the build
    /// directory may be closed to others than its owner.
    pub fn reachable_copy(&self, program: &Path) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(self.path(""), fs::Permissions::from_mode(0o777)).unwrap();
        let copy = self.path(program.file_name().unwrap().to_str().unwrap());
        // By another process: a child that another test starts meanwhile would have our descriptor,
        // and a program that is open for writing cannot be run.
        let copied = Command::new("cp").arg(program).arg(&copy).status();
        assert!(copied.unwrap().success());
        copy
    }

    /// Lets a server of another user than root's run here.
    pub fn give_to(&self, user: u32) {
        let owner = Some(nix::unistd::Uid::from_raw(user));
        nix::unistd::chown(&self.path("myvnc"), owner, None).unwrap();
        // `SO_REUSEPORT` is for sockets of one user.
        nix::unistd::fchown(&self.reserved, owner, None).unwrap();
    }

    /// The monitor from that path, without a restart command and without a pattern.
    pub fn bare_monitor_at(&self, program: &Path) -> Command {
        let mut monitor = Command::new(program);
        monitor
            .args(["--url", &self.url(), "--timeout", "2"])
            .arg("--logfile")
            .arg(self.path("monitor.log"))
            .arg("--state-dir")
            .arg(self.path("state"))
            .stdin(Stdio::null());
        monitor
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("monitor.log")).unwrap_or_default()
    }

    /// The causes in the log, the first one first.
    pub fn causes(&self) -> Vec<String> {
        let log = self.log();
        let lines = log
            .lines()
            .filter_map(|line| line.split_once("[WARNING] Cause: "));
        let causes = lines.map(|(_, cause)| cause.to_owned());
        // The machine that runs the tests may be overloaded by them.
        causes
            .filter(|cause| !cause.starts_with("the machine "))
            .collect()
    }

    /// Starts a server of that user, lets it hang, and looks at it as that user or as another: the
    /// causes are in the log then.
    pub fn look_as(&self, server: u32, monitor: u32) {
        self.look_with(Path::new(MONITOR), server, monitor);
    }

    /// The same with another build of the monitor.
    pub fn look_with(&self, program: &Path, server: u32, monitor: u32) {
        let look = self.reachable_copy(program);
        let program = self.reachable_copy(&stand_in());
        self.give_to(server);
        let mut command = Command::new(&program);
        command
            .arg0("python3")
            .arg(self.path("myvnc/main.py"))
            .uid(server)
            .gid(server);
        let server = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let server = Process::from(server);
        wait_until("it listens", || !self.pids("listening").is_empty());
        let mut client = self.idle_client();
        let script = fs::read_to_string(self.path("myvnc/main.py")).unwrap();
        if script.contains("hang") {
            client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        }
        let mut command = self.bare_monitor_at(&look);
        let pattern = format!("^python3 {}myvnc/main[.]py", self.path("").display());
        command.args(["--restart-cmd", "true", "--process-pattern", &pattern]);
        command
            .args(["--collect-diagnostics", "--timeout", "0.5"])
            .uid(monitor)
            .gid(monitor);
        assert_eq!(self.look(&mut command).code(), Some(0), "{}", self.log());
        self.servers().into_iter().for_each(end_children);
        drop(server);
    }

    /// The log without what differs from run to run: times, PIDs, port and temp dir, and without
    /// the diagnosis.
    pub fn transcript(&self) -> String {
        let mut transcript = String::new();
        for line in self.log().lines() {
            let (stamp, text) = line.split_at_checked(21).unwrap_or((line, ""));
            assert!(is_stamp(stamp), "no timestamp: {line}");
            writeln!(transcript, "{}", self.normalise(text.trim_start())).unwrap();
        }
        let banner = format!("[INFO] {}\n", "=".repeat(80));
        let heading = format!("{banner}[INFO] DIAGNOSIS\n{banner}");
        if let Some((before, after)) = transcript.split_once(&heading) {
            let evidence = [
                "[WARNING] Cause: ",
                "[INFO] PID ",
                "[INFO] Port ",
                "[INFO] Machine: ",
                "[INFO] Server log: ",
                "[INFO] Advice: ",
            ];
            let is_evidence = |line: &&str| evidence.iter().any(|start| line.starts_with(start));
            let after = after.split_inclusive('\n').skip_while(is_evidence);
            transcript = before.to_owned() + &after.collect::<String>();
        }
        transcript
            .split_inclusive('\n')
            .filter(|line| !line.starts_with("[INFO] Service was away "))
            .collect()
    }

    fn normalise(&self, text: &str) -> String {
        let text = text
            .replace(&self.directory.path().display().to_string(), "SITE")
            .replace(&self.port.to_string(), "PORT");
        let mut plain = String::new();
        let mut rest = text.as_str();
        while let Some(at) = ["PID ", "PID: ", "processes: [", "10s: ["]
            .iter()
            .filter_map(|mark| rest.find(mark).map(|at| at + mark.len()))
            .min()
        {
            plain.push_str(&rest[..at]);
            plain.push_str("PID");
            rest = rest[at..].trim_start_matches(|c: char| c.is_ascii_digit());
        }
        // A busy machine takes longer.
        let text = plain + rest;
        match text.split_once("responsive after ") {
            Some((before, after)) => {
                let after = after.trim_start_matches(|c: char| c.is_ascii_digit());
                format!("{before}responsive after N{after}")
            }
            None => text,
        }
    }

    /// Runs a look at the site until it is complete: on a busy machine it can end early.
    pub fn look(&self, look: &mut Command) -> Run {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let looked = run(look);
            let log = self.log();
            let is_complete =
                !log.contains("Diagnosis incomplete: ") && !log.contains("timed out reading ");
            if is_complete || Instant::now() > deadline {
                return looked;
            }
            fs::remove_file(self.path("monitor.log")).unwrap();
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for event in ["server", "worker", "manage"] {
            for pid in self
                .pids(event)
                .into_iter()
                .filter(|pid| self.is_ours(*pid))
            {
                let _ = nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(pid),
                    nix::sys::signal::Signal::SIGKILL,
                );
            }
        }
    }
}

/// A child of the test; ended when dropped.
pub struct Process {
    pub child: Child,
    /// The process that counts: the child, or one of its own.
    pub pid: i32,
}

impl From<Child> for Process {
    fn from(child: Child) -> Self {
        let pid = i32::try_from(child.id()).unwrap();
        Self { child, pid }
    }
}

impl Process {
    pub fn is_alive(&self) -> bool {
        machine::is_alive(self.pid)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory that something is mounted on; unmounted when dropped.
pub struct Mounted(pub PathBuf);

impl Mounted {
    /// A file system in memory; makes the directory.
    pub fn tmpfs(directory: &Path, flags: MsFlags, options: &str) -> Self {
        fs::create_dir_all(directory).unwrap();
        let kind = Some("tmpfs");
        mount(kind, directory, kind, flags, Some(options)).unwrap();
        Self(directory.to_owned())
    }

    /// A file system in memory without a free byte.
    pub fn full_tmpfs(directory: &Path) -> Self {
        let full = Self::tmpfs(directory, MsFlags::empty(), "size=64k");
        let _ = fs::write(directory.join("ballast"), vec![b'x'; 1 << 20]);
        full
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

fn is_stamp(stamp: &str) -> bool {
    let form = "[dddd-dd-dd dd:dd:dd]";
    stamp.len() == form.len()
        && stamp.chars().zip(form.chars()).all(|(c, expected)| {
            if expected == 'd' {
                c.is_ascii_digit()
            } else {
                c == expected
            }
        })
}

/// What a run of the monitor came to.
#[derive(Debug)]
pub struct Run {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

impl Run {
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Repeats what a test that ran itself again has skipped in there.
    fn repeat_skips(&self) {
        for line in self.stderr.lines() {
            if let Some(reason) = line.strip_prefix("skipped: ") {
                skip(reason);
            }
        }
    }
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Run {
    assert_harmless(command);
    let began = Instant::now();
    let output = command.output().unwrap();
    Run {
        status: output.status,
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
        took: began.elapsed(),
    }
}

/// The monitor searches the whole machine for processes to end: outside a private PID namespace it
/// must be given a pattern that only a site's processes match.
pub fn assert_harmless(command: &Command) {
    let arguments: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
    let checks = arguments.iter().any(|argument| argument == "--url");
    let mut patterns = arguments
        .iter()
        .zip(arguments.iter().skip(1))
        .filter(|(flag, _)| *flag == "--process-pattern")
        .map(|(_, pattern)| pattern)
        .peekable();
    let bounded = patterns.peek().is_some()
        && patterns.all(|pattern| {
            pattern.contains("/site-") || pattern.contains("no process is called so")
        });
    assert!(
        !checks || bounded || std::env::var_os(INSIDE).is_some(),
        "this run could end any process: {command:?}"
    );
}

/// Polls until it holds.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "timed out: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits for a child, with a bound.
pub fn wait_for(child: &mut Child) -> ExitStatus {
    let mut status = None;
    wait_until("a child ends", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap()
}

/// The whole answer to a GET, if there is one in time.
pub fn get(address: SocketAddr, limit: Duration) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, limit).ok()?;
    stream.set_read_timeout(Some(limit)).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// A control group of version 1 with one process in it, which it may outlive.
pub struct Group(PathBuf);

impl Group {
    /// Such a group of that controller, where one can be made.
    pub fn new(controller: &str, pid: i32) -> Option<Self> {
        let root = Path::new("/sys/fs/cgroup").join(controller);
        let group = root.join(format!("monitor-test-{pid}"));
        fs::create_dir(&group).ok()?;
        let group = Self(group);
        group.write("cgroup.procs", &pid.to_string()).ok()?;
        Some(group)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    pub fn write(&self, name: &str, text: &str) -> std::io::Result<()> {
        fs::write(self.path(name), text)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for pid in self.read("cgroup.procs").split_whitespace() {
            let pid = nix::unistd::Pid::from_raw(pid.parse().unwrap());
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
        wait_until("the group is empty", || fs::remove_dir(&self.0).is_ok());
    }
}

/// A server in state D: frozen by the freezer of cgroup v1, it cannot act on SIGKILL.
pub struct Frozen(Group);

impl Frozen {
    pub fn new(pid: i32) -> Option<Self> {
        let group = Group::new("freezer", pid)?;
        group.write("freezer.state", "FROZEN").ok()?;
        Some(Self(group))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = self.0.write("freezer.state", "THAWED");
    }
}

/// A free port of 127.0.0.1, kept: nobody is given it while the socket lives, and only a
/// stand-in can listen on it (`SO_REUSEPORT`).
pub fn reserve_port() -> (Socket, u16) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    (socket, port)
}

/// The stand-in program itself.
pub fn stand_in() -> PathBuf {
    let program = Path::new(MONITOR)
        .with_file_name("examples")
        .join("stand_in");
    assert!(
        program.exists(),
        "{} is missing: run `cargo build --example stand_in`",
        program.display()
    );
    program
}

pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Whether strace(1) is there, which not every machine has.
pub fn has_strace() -> bool {
    let version = Command::new("strace").arg("-V").output();
    version.is_ok_and(|output| output.status.success())
}

/// Runs the rest of a test in a PID namespace of its own, where the monitor may search the whole
/// machine: the test runs itself again in there.
pub fn in_private_namespace(body: impl FnOnce()) {
    if is_inside() {
        return body();
    }
    let test = &test_name();
    let mut unshare = Command::new("unshare");
    if !is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    unshare.args(["--pid", "--fork", "--mount-proc", "--kill-child"]);
    let possible = Command::new(unshare.get_program())
        .args(unshare.get_args())
        .arg("true")
        .output()
        .is_ok_and(|output| output.status.success());
    if !possible {
        return skip("no private PID namespace can be made here");
    }
    // A shell stays as PID 1, which reaps what its children leave behind.
    let own = std::env::current_exe().unwrap();
    unshare
        .args(["sh", "-c", "\"$@\"; exit $?", "sh"])
        .arg(own)
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, test);
    let run = run(&mut unshare);
    assert!(
        run.status.success(),
        "inside the namespace:\n{}{}",
        run.stdout,
        run.stderr
    );
    assert!(
        run.stdout.contains("1 passed"),
        "no test of the name {test} ran:\n{}",
        run.stdout
    );
    run.repeat_skips();
}

/// Ends what a stand-in waits for, which would outlive it.
pub fn end_children(pid: i32) {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    for child in list.split_whitespace() {
        let child = nix::unistd::Pid::from_raw(child.parse().unwrap());
        nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL).unwrap();
    }
}

/// A command in a session of its own.
pub fn with_bare_environment(command: &mut Command) -> &mut Command {
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .process_group(0)
}

/// The command that runs a test again in a mount, PID and network namespace of its own, with a tmpfs as its temp
/// dir there: `directory`, which exists. For root.
pub fn in_private_network(directory: &Path) -> Command {
    let test = test_name();
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--pid", "--net", "--fork", "--kill-child"]);
    // A shell stays as PID 1, which reaps what its children leave behind.
    let script = "mount -t tmpfs tmpfs \"$TMPDIR\" && ip link set lo up && \"$@\"; exit $?";
    unshare.args(["--mount-proc", "sh", "-c", script, "sh"]);
    unshare
        .arg(std::env::current_exe().unwrap())
        .args([&test, "--exact", "--nocapture", "--test-threads=1"])
        .env("TMPDIR", directory)
        .env(INSIDE, &test);
    unshare
}

/// Whether this is the inside of a namespace of the test that runs.
pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).as_deref() == Some(OsStr::new(&test_name()))
}

/// The path of the test that runs: the test harness gives its thread that name.
pub fn test_name() -> String {
    let thread = std::thread::current();
    thread
        .name()
        .expect("a test's thread has a name")
        .to_owned()
}

/// The configuration of a TLS server with a certificate of its own for 127.0.0.1, and that certificate (PEM). `change`
/// alters it before it is signed.
pub fn certified(
    change: impl FnOnce(&mut rcgen::CertificateParams),
) -> (std::sync::Arc<rustls::ServerConfig>, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    change(&mut parameters);
    let certificate = parameters.self_signed(&key).unwrap();
    let provider = rustls::crypto::ring::default_provider();
    let config = rustls::ServerConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            key.serialize_der().try_into().unwrap(),
        );
    (config.unwrap().into(), certificate.pem())
}
