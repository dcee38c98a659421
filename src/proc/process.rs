//! One process, by its directory below /proc (`proc(5)`).

use std::ffi::CStr;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::libc;
use procfs::process::Stat;
use procfs::{FromRead, Uptime};
use rustix::fs::{Mode, OFlags};

use super::parse::number_after;

/// Descriptors of one process that are read, at most, the lowest first.
pub(crate) const MOST_DESCRIPTORS: usize = 4096;
/// Size of a page at least, in bytes.
const PAGE: usize = 4096;
/// The number of that capability (`linux/capability.h`).
const CAP_SYS_PTRACE: u32 = 19;
/// Read limit of a small file of /proc, in bytes.
pub(super) const SMALL: u64 = 64 << 10;

/// A mounted /proc, or a captured directory that looks like one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Proc<'a>(pub(crate) &'a Path);

/// Who a process is (`proc_pid_status(5)`).
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Ids {
    /// Effective user ID.
    pub(crate) uid: u32,
    /// Whether a setuid program gave it root's rights: anybody can start one, under any arguments.
    pub(crate) is_setuid: bool,
    /// Effective group ID.
    pub(crate) gid: u32,
    /// The thread group that a thread ID belongs to.
    pub(crate) tgid: i32,
    /// Whether it lives in another PID namespace than the reader.
    pub(crate) is_in_other_namespace: bool,
}

/// An open file of a process: a link in its directory `fd` (`proc_pid_fd(5)`).
#[derive(Debug)]
pub(crate) struct Descriptor<'a> {
    directory: BorrowedFd<'a>,
    name: &'a CStr,
    target: &'a [u8],
}

impl Descriptor<'_> {
    /// Inode of the socket that it is.
    pub(crate) fn socket(&self) -> Option<u64> {
        inode(self.target, b"socket:[")
    }

    /// Inode of the pipe that it is an end of.
    pub(crate) fn pipe(&self) -> Option<u64> {
        inode(self.target, b"pipe:[")
    }

    /// Whether it is open for reading, and whether for writing: the permissions of the link say so.
    pub(crate) fn access(&self) -> (bool, bool) {
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        let link = rustix::fs::statat(self.directory, self.name, flags);
        let mode = link.map_or(Mode::empty(), |link| Mode::from_raw_mode(link.st_mode));
        (mode.contains(Mode::RUSR), mode.contains(Mode::WUSR))
    }
}

/// Whether an error means that the process has ended. Every other error (EMFILE, EIO, EACCES) says
/// nothing of the kind.
pub(crate) fn means_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// Whether nothing of a process is left but its exit status: its first thread can end before the
/// others, and is a zombie as long as they live.
pub(crate) fn is_dead(stat: &Stat) -> bool {
    matches!(stat.state, 'Z' | 'X' | 'x') && stat.num_threads <= 1
}

impl Proc<'static> {
    /// The machine's own.
    pub(crate) fn here() -> Self {
        Self(Path::new("/proc"))
    }
}

impl Proc<'_> {
    /// Whether it is the machine's own: then the kernel can be asked by other means, too.
    pub(crate) fn is_machine(self) -> bool {
        self.0 == Proc::here().0
    }

    /// The path of a process's file.
    pub(crate) fn path(self, pid: i32, name: &str) -> PathBuf {
        self.0.join(pid.to_string()).join(name)
    }

    /// The numbers of all processes that are listed.
    ///
    /// # Errors
    /// /proc cannot be opened or listed.
    pub(crate) fn pids(self) -> io::Result<Vec<i32>> {
        let mut pids = Vec::new();
        for entry in std::fs::read_dir(self.0)? {
            let name = entry?.file_name();
            pids.extend(name.to_str().and_then(|name| name.parse::<i32>().ok()));
        }
        Ok(pids)
    }

    /// State, parent, start time and more (`proc_pid_stat(5)`).
    ///
    /// # Errors
    /// The file cannot be read; see `means_gone`.
    pub(crate) fn stat(self, pid: i32) -> io::Result<Stat> {
        stat_at(&self.path(pid, "stat"))
    }

    /// The same of one thread.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn thread_stat(self, pid: i32, tid: i32) -> io::Result<Stat> {
        stat_at(&self.path(pid, &format!("task/{tid}/stat")))
    }

    /// Who it is.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn ids(self, pid: i32) -> io::Result<Ids> {
        // Its first line is the program's name, which can be any bytes.
        let status = read(&self.path(pid, "status"), SMALL)?;
        ids(&String::from_utf8_lossy(&status))
            .ok_or_else(|| io::Error::other("its status has no user"))
    }

    /// Whether this process may look into all others: whether it has CAP_SYS_PTRACE (`capabilities(7)`). What cannot be
    /// read is no.
    pub(crate) fn may_trace(self) -> bool {
        let status = read(&self.0.join("self/status"), SMALL).unwrap_or_default();
        let status = String::from_utf8_lossy(&status);
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let effective = line.and_then(|line| u64::from_str_radix(line.trim(), 16).ok());
        effective.is_some_and(|all| all & (1 << CAP_SYS_PTRACE) != 0)
    }

    /// The arguments as the kernel keeps them, each ended by NUL, at most `limit` bytes; empty for
    /// kernel threads and zombies.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn cmdline(self, pid: i32, limit: u64) -> io::Result<Vec<u8>> {
        let bytes = read(&self.path(pid, "cmdline"), limit)?;
        if bytes.is_empty() {
            // A first thread that has ended has none.
            if let Some(thread) = self.living_thread(pid) {
                return read(&self.path(thread, "cmdline"), limit);
            }
        }
        Ok(bytes)
    }

    /// The environment that it was started with, at most `limit` bytes.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn environ(self, pid: i32, limit: u64) -> io::Result<Vec<u8>> {
        read(&self.path(pid, "environ"), limit)
    }

    /// Its working directory.
    ///
    /// # Errors
    /// The link cannot be read.
    pub(crate) fn cwd(self, pid: i32) -> io::Result<PathBuf> {
        std::fs::read_link(self.path(pid, "cwd")).or_else(|reason| {
            let thread = self.living_thread(pid).ok_or(reason)?;
            std::fs::read_link(self.path(thread, "cwd"))
        })
    }

    /// The file that it runs; ` (deleted)` follows where that is gone.
    ///
    /// # Errors
    /// The link cannot be read.
    pub(crate) fn exe(self, pid: i32) -> io::Result<PathBuf> {
        std::fs::read_link(self.path(pid, "exe"))
    }

    /// The network namespace that it lives in (`network_namespaces(7)`).
    ///
    /// # Errors
    /// The link cannot be read.
    pub(crate) fn network(self, pid: i32) -> io::Result<PathBuf> {
        std::fs::read_link(self.path(pid, "ns/net"))
    }

    /// The inodes of its sockets, among its lowest descriptors: a server opens its listening socket first.
    ///
    /// # Errors
    /// The directory cannot be listed, or a link in it cannot be read: then nothing is known.
    pub(crate) fn sockets(self, pid: i32) -> io::Result<Vec<u64>> {
        let mut inodes = Vec::new();
        let mut count = 0;
        let visit = |one: &Descriptor| {
            inodes.extend(one.socket());
            count += 1;
            count < MOST_DESCRIPTORS
        };
        self.each_descriptor(pid, visit)?;
        Ok(inodes)
    }

    /// Which of these sockets it has, among its `most` lowest descriptors, as far as they can be read until `end`.
    ///
    /// # Errors
    /// As `sockets`.
    pub(crate) fn one_held(
        self,
        pid: i32,
        inodes: &[u64],
        most: usize,
        end: Instant,
    ) -> io::Result<Option<u64>> {
        let (mut held, mut count) = (None, 0);
        let visit = |one: &Descriptor| {
            held = one.socket().filter(|inode| inodes.contains(inode));
            count += 1;
            held.is_none() && count < most && Instant::now() < end
        };
        self.each_descriptor(pid, visit)?;
        Ok(held)
    }

    /// Hands over each of its descriptors, the lowest first, until it is told to stop.
    ///
    /// # Errors
    /// As `sockets`.
    pub(crate) fn each_descriptor(
        self,
        pid: i32,
        mut visit: impl FnMut(&Descriptor) -> bool,
    ) -> io::Result<()> {
        let mut has_none = true;
        self.each_descriptor_of(pid, |one| {
            has_none = false;
            visit(one)
        })?;
        // A first thread that has ended has none.
        let thread = if has_none {
            self.living_thread(pid)
        } else {
            None
        };
        thread.map_or(Ok(()), |thread| self.each_descriptor_of(thread, visit))
    }

    fn each_descriptor_of(
        self,
        pid: i32,
        mut visit: impl FnMut(&Descriptor) -> bool,
    ) -> io::Result<()> {
        let directory = self.path(pid, "fd");
        let directory = rustix::fs::open(
            &directory,
            rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )?;
        let mut directory = rustix::fs::Dir::new(directory)?;
        let mut link = Vec::new();
        while let Some(entry) = directory.read() {
            let entry = entry?;
            if !entry.file_name().to_bytes().iter().all(u8::is_ascii_digit) {
                continue;
            }
            match rustix::fs::readlinkat(directory.fd()?, entry.file_name(), link) {
                Ok(target) => {
                    let is_enough = !visit(&Descriptor {
                        directory: directory.fd()?,
                        name: entry.file_name(),
                        target: target.to_bytes(),
                    });
                    if is_enough {
                        break;
                    }
                    link = target.into_bytes();
                }
                // One that was closed meanwhile is no reason to know nothing.
                Err(rustix::io::Errno::NOENT) => link = Vec::new(),
                Err(reason) => return Err(reason.into()),
            }
        }
        Ok(())
    }

    /// The IDs of its threads.
    pub(crate) fn threads(self, pid: i32) -> impl Iterator<Item = i32> + use<> {
        numbers_in(&self.path(pid, "task"))
    }

    /// The children of all its threads (`proc_pid_task(5)`, children); where the kernel does not list
    /// them, all processes are asked for their parent.
    pub(crate) fn children(self, pid: i32) -> Vec<i32> {
        let mut children = Vec::new();
        let mut is_listed = false;
        for tid in numbers_in(&self.path(pid, "task")) {
            if let Ok(list) = read(&self.path(pid, &format!("task/{tid}/children")), SMALL) {
                is_listed = true;
                let list = String::from_utf8(list).unwrap_or_default();
                children.extend(
                    list.split_whitespace()
                        .filter_map(|pid| pid.parse::<i32>().ok()),
                );
            }
        }
        if is_listed {
            return children;
        }
        let all = self.pids().unwrap_or_default().into_iter();
        all.filter(|one| self.stat(*one).is_ok_and(|stat| stat.ppid == pid))
            .collect()
    }

    /// Whether this very process still runs, and not as a zombie. What cannot be read is alive.
    pub(crate) fn is_alive(self, pid: i32, start_time: u64) -> bool {
        match self.stat(pid) {
            Ok(stat) => stat.starttime == start_time && !is_dead(&stat),
            Err(reason) => !means_gone(&reason),
        }
    }

    /// A thread by which /proc still shows a process whose first thread has ended.
    pub(crate) fn living_thread(self, pid: i32) -> Option<i32> {
        let tasks = self.path(pid, "task");
        // A link for each thread, and two of the directory's own.
        if std::fs::metadata(&tasks).ok()?.nlink() <= 3 {
            return None;
        }
        let is_alive = |tid: &i32| self.stat(*tid).is_ok_and(|stat| !is_dead(&stat));
        numbers_in(&tasks).filter(|tid| *tid != pid).find(is_alive)
    }

    /// How long a process has run.
    pub(crate) fn age(self, pid: i32) -> Option<Duration> {
        let started = self.stat(pid).ok()?.starttime * 1000 / procfs::ticks_per_second();
        let uptime = read(&self.0.join("uptime"), SMALL).ok()?;
        let uptime = Uptime::from_read(uptime.as_slice()).ok()?;
        let started = Duration::from_millis(started);
        Some(uptime.uptime_duration().saturating_sub(started))
    }

    /// The state letter of a process (`proc_pid_stat(5)`) and the kernel function it waits in, where
    /// that can be read.
    pub(crate) fn state(self, pid: i32) -> String {
        let pid = self
            .living_thread(pid)
            .filter(|_| self.stat(pid).is_ok_and(|stat| stat.state == 'Z'))
            .unwrap_or(pid);
        let letter = self.stat(pid).map_or('?', |stat| stat.state);
        match std::fs::read_to_string(self.path(pid, "wchan")) {
            Ok(wchan) if !matches!(wchan.trim(), "" | "0") => {
                format!("{letter} in {}", wchan.trim())
            }
            _ => letter.to_string(),
        }
    }
}

/// An open /proc, for a search through all processes: three system calls read the arguments of one.
#[derive(Debug)]
pub(crate) struct Sweep {
    directory: OwnedFd,
    buffer: Vec<u8>,
}

impl Sweep {
    /// A sweep that reads at most `limit` bytes of a process's arguments.
    ///
    /// # Errors
    /// /proc cannot be opened.
    pub(crate) fn new(proc: Proc, limit: u64) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::PATH;
        Ok(Self {
            directory: rustix::fs::open(proc.0, flags, Mode::empty())?,
            buffer: vec![0; usize::try_from(limit).unwrap_or(usize::MAX)],
        })
    }

    /// The owner of a process's directory: its effective user, or root where it gave up privileges
    /// (proc_pid(5), "dumpable").
    ///
    /// # Errors
    /// The process is gone, or cannot be seen.
    pub(crate) fn owner(&self, pid: i32) -> io::Result<u32> {
        let flags = rustix::fs::AtFlags::empty();
        Ok(rustix::fs::statat(&self.directory, pid.to_string(), flags)?.st_uid)
    }

    /// Its arguments, as `Proc::cmdline`; empty also for a first thread that has ended.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn cmdline(&mut self, pid: i32) -> io::Result<&[u8]> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let path = format!("{pid}/cmdline");
        let file = rustix::fs::openat(&self.directory, path, flags, Mode::empty())?;
        let mut length = 0;
        loop {
            let read = rustix::io::read(&file, &mut self.buffer[length..])?;
            length += read;
            // The kernel fills the buffer as far as there are arguments, up to a page at a time.
            if read == 0
                || length == self.buffer.len()
                || self.buffer[length - 1] == 0 && read < PAGE
            {
                return Ok(&self.buffer[..length]);
            }
        }
    }
}

/// Arguments as one line of text; what is not UTF-8 in them becomes U+FFFD.
pub(crate) fn joined(cmdline: &[u8]) -> String {
    let argv = cmdline.strip_suffix(b"\0").unwrap_or(cmdline);
    String::from_utf8_lossy(argv).replace('\0', " ")
}

/// Parses a `stat` (`proc_pid_stat(5)`): `PID (NAME) STATE …`. procfs panics on other forms, which only
/// something mounted over /proc can have.
fn stat_at(path: &Path) -> io::Result<Stat> {
    stat(&read(path, SMALL)?)
}

fn stat(bytes: &[u8]) -> io::Result<Stat> {
    let text = bytes.trim_ascii();
    let name = text.iter().position(|byte| *byte == b'(');
    let end = text.iter().rposition(|byte| *byte == b')');
    let is_sound = matches!((name, end), (Some(name), Some(end)) if name < end
        && text[..name].ends_with(b" ")
        && text[0].is_ascii_digit()
        && text[..name].is_ascii()
        && text[end + 1..].starts_with(b" ")
        && text.get(end + 2).is_some_and(u8::is_ascii_alphabetic));
    if !is_sound {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Stat::from_read(text).map_err(io::Error::other)
}

fn ids(status: &str) -> Option<Ids> {
    let fields = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().split_whitespace()
    };
    // Real, effective, saved, of the file system.
    let real: u32 = fields("Uid:").next()?.parse().ok()?;
    let uid = fields("Uid:").nth(1)?.parse().ok()?;
    Some(Ids {
        uid,
        is_setuid: uid == 0 && real != 0,
        gid: fields("Gid:").nth(1)?.parse().ok()?,
        tgid: number_after(status, "\nTgid:")?,
        // One number for each PID namespace from the reader's down to its own.
        is_in_other_namespace: fields("NSpid:").count() > 1,
    })
}

/// `socket:[4711]`
fn inode(link: &[u8], kind: &[u8]) -> Option<u64> {
    let digits = link.strip_prefix(kind)?.strip_suffix(b"]")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn numbers_in(directory: &Path) -> impl Iterator<Item = i32> + use<> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// A file's first bytes, at most `limit`.
pub(super) fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // O_NONBLOCK: something else can be mounted over a file of /proc, such as a FIFO.
    let file: File = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::fuzz::{fuzz, linear};

    /// A captured /proc with one process, 7, and these files.
    fn captured(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join("7").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        directory
    }

    const STATUS: &str = "Name:\tpython3\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t7\nPid:\t7\n\
        Uid:\t0\t1000\t1000\t1000\nGid:\t0\t100\t100\t100\nNSpid:\t7\n";

    #[test]
    fn without_its_capability_nobody_may_look_into_all_processes() {
        for (status, may) in [
            (
                "CapPrm:\t0000000000080000\nCapEff:\t0000000000080000\n",
                true,
            ),
            // Docker's default for root.
            (
                "CapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\n",
                false,
            ),
            (
                "CapPrm:\t0000000000080000\nCapEff:\t0000000000000000\n",
                false,
            ),
            ("Name:\tmonitor\n", false),
        ] {
            let directory = tempfile::tempdir().unwrap();
            assert!(!Proc(directory.path()).may_trace());
            std::fs::create_dir(directory.path().join("self")).unwrap();
            std::fs::write(directory.path().join("self/status"), status).unwrap();
            assert_eq!(Proc(directory.path()).may_trace(), may, "{status}");
        }
    }

    #[test]
    fn the_effective_user_counts_and_another_namespace_shows() {
        let directory = captured(&[("status", STATUS)]);
        let ids = Proc(directory.path()).ids(7).unwrap();
        assert_eq!((ids.uid, ids.gid, ids.tgid), (1000, 100, 7));
        assert!(!ids.is_setuid, "it gave up privileges");
        let setuid = STATUS.replace("0\t1000\t1000\t1000", "1000\t0\t0\t0");
        assert!(super::ids(&setuid).unwrap().is_setuid);
        assert!(!ids.is_in_other_namespace);
        let inner = STATUS.replace("NSpid:\t7", "NSpid:\t7\t1");
        assert!(super::ids(&inner).unwrap().is_in_other_namespace);
        assert_eq!(super::ids("Name:\tx\n"), None);
    }

    #[test]
    fn hazard_24_what_cannot_be_read_is_alive() {
        let stat = "7 (my (odd) name) S 1 7 7 0 -1 4194560 1 0 0 0 1 2 0 0 20 0 1 0 4242 1 1 \
            18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n";
        let directory = captured(&[("stat", stat)]);
        let proc = Proc(directory.path());
        assert!(proc.is_alive(7, 4242));
        assert!(!proc.is_alive(7, 4243), "another process has its number");
        assert!(!proc.is_alive(8, 4242), "it is gone");
        std::fs::write(directory.path().join("7/stat"), "garbage").unwrap();
        assert!(proc.is_alive(7, 4242), "unreadable is alive");
        std::fs::write(directory.path().join("7/stat"), stat.replace(" S ", " Z ")).unwrap();
        assert!(!proc.is_alive(7, 4242), "a zombie is dead");
    }

    #[test]
    fn a_pipe_in_the_place_of_a_file_holds_nobody() {
        let directory = captured(&[("status", STATUS)]);
        let fifo = directory.path().join("7/cmdline");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(Proc(directory.path()).cmdline(7, 100).unwrap(), b"");
    }

    #[test]
    fn sockets_are_told_from_other_descriptors() {
        let directory = captured(&[("status", STATUS)]);
        let fds = directory.path().join("7/fd");
        std::fs::create_dir(&fds).unwrap();
        for (number, target) in [("0", "/dev/null"), ("3", "socket:[99]"), ("4", "pipe:[5]")] {
            std::os::unix::fs::symlink(target, fds.join(number)).unwrap();
        }
        assert_eq!(Proc(directory.path()).sockets(7).unwrap(), [99]);
        assert!(Proc(directory.path()).sockets(8).is_err());
    }

    #[test]
    fn arguments_are_cut_at_their_limit() {
        let directory = captured(&[("cmdline", "python3\0/a/main.py\0")]);
        let proc = Proc(directory.path());
        assert_eq!(proc.cmdline(7, 100).unwrap(), b"python3\0/a/main.py\0");
        assert_eq!(proc.cmdline(7, 9).unwrap(), b"python3\0/");
        assert_eq!(joined(b"python3\0/a/main.py\0"), "python3 /a/main.py");
    }

    #[test]
    fn fuzz_proc_parsers_process() {
        let seeds: [&[u8]; 4] = [
            STATUS.as_bytes(),
            b"7 (my (odd) name) S 1 7 7 0 -1 4194560 1 0 0 0 1 2 0 0 20 0 1 0 4242 1 1 1",
            b"socket:[4711]",
            b"python3\0/a/main.py\0",
        ];
        let target = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            ids(&text);
            let _: Option<f64> = number_after(&text, "Uid:");
            inode(bytes, b"socket:[");
            joined(bytes);
            let _ = stat(bytes);
        };
        fuzz(&seeds, target);
        for piece in ["Uid:\t", "\nTgid:", "a\0", "1 ("] {
            linear(|size| piece.repeat(size / piece.len()).into_bytes(), target);
        }
    }
}
