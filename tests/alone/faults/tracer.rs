//! Runs a command, lists the system calls of its main thread and its children, or lets one of them fail.
//!
//! By `ptrace(2)` and not by strace: strace counts the calls of each process apart, and so cannot let the third `openat` of a
//! child fail without that of its parent. Here a fault meets exactly one call, and after it the run goes on untraced.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::errnos::{self, Known};

/// The event of `ptrace(2)` for `execve`.
const EXEC: i32 = libc::PTRACE_EVENT_EXEC;
const BRK: i64 = libc::SYS_brk;
const CLOSE: i64 = libc::SYS_close;
const SOCKET: i64 = libc::SYS_socket;
const WRITE: i64 = libc::SYS_write;
/// No argument that is shown is longer, in bytes.
const LONGEST: usize = 200;

/// A process of the run: 0 is the main thread, then its children in the order of their start.
pub type Who = usize;

/// A call that the recording has seen.
pub struct Call {
    pub who: Who,
    pub number: i64,
    /// Its count among the calls of this number by this process that are about the same, from 1.
    pub nth: usize,
    pub arguments: [u64; 6],
    pub known: Result<Known, i64>,
}

/// A call that is to fail.
#[derive(Clone, Debug)]
pub struct Fault {
    pub who: Who,
    pub number: i64,
    /// What it is about. To count calls is not enough: how often a run waits for events varies.
    pub about: String,
    pub nth: usize,
    pub errno: Errno,
}

/// Paths and PIDs that differ from run to run, and the names that stand for them.
#[derive(Default)]
pub struct Names {
    pub paths: Vec<(String, &'static str)>,
    pub pids: Vec<(Pid, &'static str)>,
}

impl Names {
    pub fn put_into(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (path, name) in &self.paths {
            text = text.replace(path, name);
        }
        let mut parts: Vec<&str> = text.split('/').collect();
        for at in 1..parts.len() {
            let named = |(pid, _): &&(Pid, &str)| parts[at].parse() == Ok(pid.as_raw());
            if parts[at - 1] == "proc" {
                if let Some((_, name)) = self.pids.iter().find(named) {
                    parts[at] = name;
                }
            }
        }
        parts.join("/")
    }
}

/// What to do with the calls.
pub enum Purpose {
    /// Nothing: it runs untraced.
    Run,
    /// List them.
    Record(Vec<Call>),
    /// Let one fail.
    Fail(Fault),
}

/// How a run ended.
pub struct Ended {
    /// The exit status, unless a signal ended it.
    pub code: Option<i32>,
    pub signal: Option<Signal>,
    pub took: Duration,
    /// It took too long and was killed.
    pub was_late: bool,
    /// The run came to the call, which failed.
    pub has_failed: bool,
    /// What the child with the fault wrote to its stderr.
    pub child_stderr: Vec<String>,
    pub calls: Vec<Call>,
}

/// Children of this process that ended; `waitpid` tells only once.
#[derive(Default)]
pub struct Exited(HashSet<Pid>);

impl Exited {
    /// A new process has this PID.
    pub fn forget(&mut self, pid: Pid) {
        self.0.remove(&pid);
    }

    pub fn has(&mut self, pid: Pid) -> bool {
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
            match status {
                WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _) => {
                    self.0.insert(pid);
                }
                WaitStatus::StillAlive => break,
                // A process of a run that is over.
                other => {
                    if let Some(pid) = other.pid() {
                        let _ = ptrace::detach(pid, None);
                    }
                }
            }
        }
        self.0.contains(&pid)
    }
}

/// A process that is stopped at a call.
pub struct Tracee<'a> {
    pid: Pid,
    /// The domains of its sockets, by descriptor.
    sockets: &'a HashMap<i32, i32>,
    names: &'a Names,
}

impl Tracee<'_> {
    /// The text at that address.
    pub fn text(&self, address: u64) -> String {
        self.bytes(address, LONGEST)
            .split(|byte| *byte == 0)
            .next()
            .map(|text| String::from_utf8_lossy(text).into_owned())
            .unwrap_or_default()
    }

    fn bytes(&self, address: u64, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        let read = File::open(format!("/proc/{}/mem", self.pid)).and_then(|memory| {
            // Up to the end of the page at least: the next one may not be there.
            match memory.read_at(&mut bytes, address) {
                Err(_) => {
                    let left = usize::try_from(4096 - address % 4096).unwrap_or_default();
                    let left = left.min(count);
                    memory.read_at(&mut bytes[..left], address)
                }
                read => read,
            }
        });
        bytes.truncate(read.unwrap_or_default());
        bytes
    }

    /// The link in /proc of a descriptor.
    pub fn link(&self, number: i32) -> PathBuf {
        format!("/proc/{}/fd/{number}", self.pid).into()
    }

    /// What a descriptor is open on; for a socket, of which family.
    pub fn descriptor(&self, number: i32) -> String {
        let Ok(target) = std::fs::read_link(self.link(number)) else {
            return number.to_string();
        };
        let target = target.display().to_string();
        if target.starts_with("pipe:") {
            return "pipe:".into();
        }
        if target.starts_with("socket:") {
            let family = match self.sockets.get(&number) {
                Some(&libc::AF_NETLINK) => "netlink",
                Some(&(libc::AF_INET | libc::AF_INET6)) => "inet",
                // Only unix sockets come in pairs.
                _ => "unix",
            };
            return format!("{family} socket");
        }
        target
    }

    /// What the call is about, in a form that is the same in each run: names for what has one, 0 for other numbers.
    fn describe(&self, number: i64, arguments: [u64; 6]) -> Result<Known, i64> {
        let mut known = errnos::describe(self, number, arguments)?;
        let about = self.names.put_into(&known.about);
        known.about = String::new();
        for c in about.chars() {
            let is_more = c.is_ascii_digit() && known.about.ends_with('0');
            match c {
                _ if is_more => (),
                '0'..='9' => known.about.push('0'),
                c if c.is_control() => known.about.push(' '),
                c => known.about.push(c),
            }
        }
        Ok(known)
    }
}

/// What is known of a traced process.
#[derive(Default)]
struct State {
    who: Who,
    counts: HashMap<(i64, String), usize>,
    sockets: HashMap<i32, i32>,
    /// The call that it is in, and its arguments.
    inside: Option<(i64, [u64; 6])>,
    /// The errno with which that call ends.
    failing: Option<Errno>,
}

/// The content of a register as a number with a sign.
pub fn signed(register: u64) -> i64 {
    i64::from_ne_bytes(register.to_ne_bytes())
}

fn unsigned(number: i64) -> u64 {
    u64::from_ne_bytes(number.to_ne_bytes())
}

impl State {
    /// Keeps the domains of its sockets.
    fn note_sockets(&mut self, number: i64, arguments: [u64; 6], returned: u64) {
        let Ok(descriptor) = i32::try_from(signed(returned)) else {
            return;
        };
        if number == SOCKET && descriptor >= 0 {
            let domain = i32::try_from(arguments[0]).unwrap_or_default();
            self.sockets.insert(descriptor, domain);
        }
        if number == CLOSE {
            let closed = i32::try_from(arguments[0]).unwrap_or_default();
            self.sockets.remove(&closed);
        }
    }
}

struct Tracer<'a> {
    main: Pid,
    exited: &'a mut Exited,
    names: &'a Names,
    purpose: Purpose,
    traced: HashMap<Pid, State>,
    next: Who,
    has_failed: bool,
    child_stderr: Vec<String>,
}

/// Starts a command; [`Exited`] sees its end.
#[allow(clippy::zombie_processes)]
pub fn spawn(command: &mut Command) -> Pid {
    let child = command.spawn().unwrap();
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

/// Runs the command to its end, or kills it after so long. Its children are traced too where `with_children` is
/// set, up to their own `execve`.
pub fn run(
    exited: &mut Exited,
    names: &Names,
    program: &Command,
    purpose: Purpose,
    with_children: bool,
    limit: Duration,
) -> Ended {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "kill -STOP $$; exec \"$@\"", "sh"]);
    command.arg(program.get_program()).args(program.get_args());
    // As cron does.
    command.env_clear().env("PATH", "/usr/bin:/bin");
    command.env("HOME", "/root").env("LOGNAME", "root");
    let output = |name: &str| File::create(std::env::temp_dir().join(name)).unwrap();
    command
        .stdin(std::process::Stdio::null())
        .stdout(output("stdout"))
        .stderr(output("stderr"));
    let main = spawn(&mut command);
    let stopped = waitpid(main, Some(WaitPidFlag::WUNTRACED)).unwrap();
    assert!(matches!(stopped, WaitStatus::Stopped(..)), "{stopped:?}");
    let mut options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACEEXEC;
    if with_children {
        options |= Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACECLONE;
    }
    ptrace::seize(main, options).unwrap();
    kill(main, Signal::SIGCONT).unwrap();
    loop {
        match waitpid(main, Some(WaitPidFlag::__WALL)).unwrap() {
            WaitStatus::PtraceEvent(_, _, EXEC) => break,
            WaitStatus::Stopped(_, signal) => ptrace::cont(main, signal).unwrap(),
            WaitStatus::PtraceEvent(..) => ptrace::cont(main, None).unwrap(),
            other => panic!("{program:?}: {other:?}"),
        }
    }
    let began = Instant::now();
    let was_late = Arc::new(AtomicBool::new(false));
    let (is_over, over) = mpsc::channel::<()>();
    let guard = {
        let was_late = was_late.clone();
        std::thread::spawn(move || {
            if over.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
                was_late.store(true, Ordering::Relaxed);
                let _ = kill(main, Signal::SIGKILL);
            }
        })
    };
    let mut tracer = Tracer {
        main,
        exited,
        names,
        purpose,
        traced: HashMap::new(),
        next: 1,
        has_failed: false,
        child_stderr: Vec::new(),
    };
    // It is still in its `execve`.
    let state = State {
        inside: Some(Default::default()),
        ..State::default()
    };
    tracer.traced.insert(main, state);
    tracer.resume(main, None);
    let (code, signal) = tracer.follow();
    let took = began.elapsed();
    drop(is_over);
    guard.join().unwrap();
    tracer.detach_all();
    Ended {
        code,
        signal,
        took,
        was_late: was_late.load(Ordering::Relaxed),
        has_failed: tracer.has_failed,
        child_stderr: tracer.child_stderr,
        calls: match tracer.purpose {
            Purpose::Record(calls) => calls,
            _ => Vec::new(),
        },
    }
}

impl Tracer<'_> {
    /// Until the main thread ends.
    fn follow(&mut self) -> (Option<i32>, Option<Signal>) {
        loop {
            match waitpid(None, Some(WaitPidFlag::__WALL)) {
                Ok(WaitStatus::Exited(pid, code)) => {
                    self.note_exit(pid);
                    if pid == self.main {
                        return (Some(code), None);
                    }
                }
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    self.note_exit(pid);
                    if pid == self.main {
                        return (None, Some(signal));
                    }
                }
                Ok(status) => self.stopped(status),
                Err(Errno::EINTR) => (),
                Err(reason) => panic!("waitpid: {reason}"),
            }
        }
    }

    fn note_exit(&mut self, pid: Pid) {
        self.traced.remove(&pid);
        self.exited.0.insert(pid);
    }

    fn stopped(&mut self, status: WaitStatus) {
        let Some(pid) = status.pid() else {
            return;
        };
        if !self.traced.contains_key(&pid) {
            let state = State {
                who: self.next,
                ..State::default()
            };
            self.next += 1;
            self.traced.insert(pid, state);
        }
        match status {
            WaitStatus::PtraceSyscall(_) => {
                self.at_call(pid);
                self.resume(pid, None);
            }
            // What a child becomes is no part of the run.
            WaitStatus::PtraceEvent(_, _, EXEC) if pid != self.main => self.detach(pid, None),
            WaitStatus::Stopped(_, signal) => self.resume(pid, Some(signal)),
            _ => self.resume(pid, None),
        }
    }

    fn at_call(&mut self, pid: Pid) {
        let (Some(state), Ok(mut registers)) = (self.traced.get_mut(&pid), ptrace::getregs(pid))
        else {
            return;
        };
        if let Some((number, arguments)) = state.inside.take() {
            if let Some(errno) = state.failing.take() {
                if number == BRK {
                    // Its argument, which was another for the time of the call.
                    registers.rdi = arguments[0];
                } else {
                    registers.rax = unsigned(-i64::from(errno as i32));
                }
                let _ = ptrace::setregs(pid, registers);
                self.has_failed = true;
            }
            state.note_sockets(number, arguments, registers.rax);
            return;
        }
        let number = signed(registers.orig_rax);
        let arguments = [
            registers.rdi,
            registers.rsi,
            registers.rdx,
            registers.r10,
            registers.r8,
            registers.r9,
        ];
        state.inside = Some((number, arguments));
        let tracee = Tracee {
            pid,
            sockets: &state.sockets,
            names: self.names,
        };
        match &mut self.purpose {
            Purpose::Run => (),
            Purpose::Record(calls) => {
                let known = tracee.describe(number, arguments);
                let about = known
                    .as_ref()
                    .map_or(String::new(), |known| known.about.clone());
                let count = state.counts.entry((number, about)).or_default();
                *count += 1;
                calls.push(Call {
                    who: state.who,
                    number,
                    nth: *count,
                    arguments,
                    known,
                });
            }
            Purpose::Fail(fault) if fault.who != state.who => (),
            Purpose::Fail(_) if self.has_failed => {
                let stderr = u64::from(libc::STDERR_FILENO.unsigned_abs());
                if number == WRITE && arguments[0] == stderr {
                    self.child_stderr.push(tracee.text(arguments[1]));
                }
            }
            Purpose::Fail(fault) if fault.number == number => {
                let about = tracee.describe(number, arguments);
                if about.is_ok_and(|known| known.about == fault.about) {
                    let count = state.counts.entry((number, String::new())).or_default();
                    *count += 1;
                    if *count == fault.nth {
                        state.failing = Some(fault.errno);
                        match number {
                            // It fails by returning the break as it was (brk(2)).
                            BRK => registers.rdi = 0,
                            // It releases the descriptor in any case (close(2)).
                            CLOSE => (),
                            _ => registers.orig_rax = u64::MAX,
                        }
                        let _ = ptrace::setregs(pid, registers);
                    }
                }
            }
            Purpose::Fail(_) => (),
        }
    }

    fn resume(&mut self, pid: Pid, signal: Option<Signal>) {
        let Some(state) = self.traced.get(&pid) else {
            return;
        };
        // One that is gone meanwhile needs no resuming.
        let _ = match &self.purpose {
            Purpose::Run => return self.detach(pid, signal),
            Purpose::Record(_) => ptrace::syscall(pid, signal),
            // Of a child, stderr is still watched: it leads to /dev/null.
            Purpose::Fail(fault) if self.has_failed && (state.who, fault.who) == (0, 0) => {
                return self.detach(pid, signal);
            }
            Purpose::Fail(fault) if state.who == fault.who => ptrace::syscall(pid, signal),
            Purpose::Fail(_) if self.has_failed => return self.detach(pid, signal),
            Purpose::Fail(_) => ptrace::cont(pid, signal),
        };
    }

    fn detach(&mut self, pid: Pid, signal: Option<Signal>) {
        if pid != self.main {
            self.traced.remove(&pid);
        }
        let _ = ptrace::detach(pid, signal);
    }

    /// Detaches from what outlives the run.
    fn detach_all(&mut self) {
        let deadline = Instant::now() + Duration::from_millis(200);
        for pid in self.traced.keys() {
            let _ = ptrace::interrupt(*pid);
        }
        while !self.traced.is_empty() && Instant::now() < deadline {
            for pid in self.traced.keys().copied().collect::<Vec<_>>() {
                let flags = WaitPidFlag::WNOHANG | WaitPidFlag::__WALL;
                match waitpid(pid, Some(flags)) {
                    Ok(WaitStatus::StillAlive) => (),
                    Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | Err(_) => {
                        self.note_exit(pid);
                    }
                    Ok(_) => self.detach(pid, None),
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
