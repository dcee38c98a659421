//! Other monitors, which are never signalled: whatever their names and builds, what they are wrapped in, and what they
//! have started.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::argv::{LONGEST_CMDLINE, arguments};
use crate::proc::process::Proc;

/// The name of the program, by which other monitors are recognised.
const MONITOR: &str = env!("CARGO_PKG_NAME");
/// The name of the Python script that it replaces, and how many arguments its interpreter can have before it.
const PYTHON_MONITOR: &str = concat!(env!("CARGO_PKG_NAME"), ".py");
const LAST_SCRIPT: usize = 4;
/// By this text in its file a build of the program is recognised, whatever its name; and read limit of a program, in
/// bytes.
pub(super) const MARK: &str = concat!(env!("CARGO_PKG_NAME"), ": no monitor signals this program");
const LONGEST_PROGRAM: u64 = 16 << 20;
/// Builds differ in size by no more than this factor.
const ALIKE: u64 = 4;

/// Other monitors, and what they are wrapped in or have started.
pub(super) struct Monitors {
    proc: Proc<'static>,
    /// Size of this program's file, in bytes.
    own: u64,
    /// What was found of a program's file, by device and inode.
    programs: RefCell<HashMap<(u64, u64), bool>>,
}

impl Monitors {
    pub(super) fn new(proc: Proc<'static>) -> Self {
        let own = std::fs::metadata(proc.0.join("self/exe"));
        Self {
            proc,
            own: own.map_or(0, |own| own.len()),
            programs: RefCell::default(),
        }
    }

    /// Whether a process is another monitor, an ancestor of one within its session, or a descendant.
    pub(super) fn include(&self, pid: i32) -> bool {
        self.is_monitor(pid) || self.has_monitor_above(pid) || self.has_monitor_below(pid)
    }

    pub(super) fn has_monitor_above(&self, pid: i32) -> bool {
        // This runs in a child of the monitor, or in the monitor.
        let us = [nix::unistd::getpid(), nix::unistd::getppid()].map(nix::unistd::Pid::as_raw);
        let mut seen = HashSet::new();
        let mut pid = pid;
        while let Ok(stat) = self.proc.stat(pid) {
            pid = stat.ppid;
            // What this run has started is below this monitor.
            if pid <= 1 || us.contains(&pid) || !seen.insert(pid) {
                return false;
            }
            if self.is_monitor(pid) {
                return true;
            }
        }
        false
    }

    fn has_monitor_below(&self, pid: i32) -> bool {
        let Ok(session) = self.proc.stat(pid).map(|stat| stat.session) else {
            return false;
        };
        let mut seen = HashSet::from([pid]);
        let mut below = self.proc.children(pid);
        while let Some(pid) = below.pop() {
            let is_in_session = self
                .proc
                .stat(pid)
                .is_ok_and(|stat| stat.session == session);
            if !is_in_session || !seen.insert(pid) {
                continue;
            }
            if self.is_monitor(pid) {
                return true;
            }
            below.extend(self.proc.children(pid));
        }
        false
    }

    pub(super) fn is_monitor(&self, pid: i32) -> bool {
        let cmdline = self.proc.cmdline(pid, LONGEST_CMDLINE).unwrap_or_default();
        let mut names = arguments(&cmdline).take(LAST_SCRIPT).map(|argument| {
            let path = Path::new(std::str::from_utf8(argument).unwrap_or_default());
            path.file_name().unwrap_or_default().to_owned()
        });
        if names.next().is_some_and(|name| name == MONITOR)
            || names.any(|name| name == PYTHON_MONITOR)
        {
            return true;
        }
        if self.proc.exe(pid).is_ok_and(|exe| is_monitors(&exe)) {
            return true;
        }
        let program = File::open(self.proc.path(pid, "exe"));
        program.is_ok_and(|program| self.is_build(&program).unwrap_or(false))
    }

    /// Whether a program is a build of the monitor, whatever its name. What is much smaller or larger than this one is
    /// not read: a server can have many children, and their programs can be far away.
    fn is_build(&self, program: &File) -> io::Result<bool> {
        let metadata = program.metadata()?;
        let (id, length) = ((metadata.dev(), metadata.ino()), metadata.len());
        if length < self.own / ALIKE || length / ALIKE > self.own {
            return Ok(false);
        }
        if let Some(known) = self.programs.borrow().get(&id) {
            return Ok(*known);
        }
        let mut bytes = Vec::new();
        program.take(LONGEST_PROGRAM).read_to_end(&mut bytes)?;
        let is_build = memchr::memmem::find(&bytes, MARK.as_bytes()).is_some();
        self.programs.borrow_mut().insert(id, is_build);
        Ok(is_build)
    }
}

/// Whether a path leads to a monitor, or to one that was replaced (` (deleted)`, proc_pid_exe(5)).
fn is_monitors(exe: &Path) -> bool {
    let name = exe.file_name().unwrap_or_default().to_string_lossy();
    name.trim_end_matches(" (deleted)") == MONITOR
}
