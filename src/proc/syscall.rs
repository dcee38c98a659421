//! What a thread does, by the system call that it is blocked in (`proc_pid_syscall(5)`).

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use nix::libc;

use procfs::FromRead;
use procfs::process::Syscall;

use super::parse::number_after;
use super::process::Proc;

/// No more descriptors of one `poll(2)`, `select(2)` or `epoll_wait(2)` are looked at.
const MOST_POLLED: usize = 1024;

/// A system call that a thread is blocked in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct BlockedCall {
    /// Its number.
    number: libc::c_long,
    /// Its first four arguments.
    arguments: [u64; 4],
}

/// What a thread does, as far as its system call tells.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Activity {
    /// We may not see it.
    Hidden,
    /// It runs, or is about to.
    Running,
    /// Something with this descriptor.
    Using(i32, Operation),
    /// Something with this path, where it can be read.
    Naming(Option<PathBuf>, Operation),
    /// Waiting for this child; for any, where it is none.
    Child(Option<i32>),
    /// Waiting until the child that it has just forked runs its program (`vfork(2)`).
    Forking,
    /// Waiting until one of these descriptors is ready.
    Polling(Vec<Polled>),
    /// Waiting for a client to connect.
    Accepting,
    /// Waiting for a lock of the program's own (`futex(2)`).
    Lock,
    /// Sleeping, or waiting for a lock, for a time of its own.
    Sleeping,
    /// Another system call, by its number.
    Other(libc::c_long),
}

/// A descriptor that a thread waits for among others.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Polled {
    pub(crate) descriptor: i32,
    /// Whether it waits to write to it and not to read from it.
    pub(crate) writing: bool,
}

/// What is done with a descriptor or a path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Operation {
    /// `read(2)`, `recv(2)` and the like.
    Reading,
    /// `write(2)`, `send(2)` and the like.
    Writing,
    /// `connect(2)`.
    Connecting,
    /// `flock(2)`, `fcntl(2)`.
    Locking,
    /// `getdents(2)`.
    Listing,
    /// `fsync(2)`.
    Syncing,
    /// `close(2)`.
    Closing,
    /// `open(2)`.
    Opening,
    /// `stat(2)`, `access(2)`, `readlink(2)`, `statfs(2)`.
    Examining,
    /// `mkdir(2)`, `unlink(2)`, `rename(2)`.
    Changing,
    /// `execve(2)`.
    Executing,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reading => "reading",
            Self::Writing => "writing to",
            Self::Connecting => "connecting",
            Self::Locking => "locking",
            Self::Listing => "listing",
            Self::Syncing => "syncing",
            Self::Closing => "closing",
            Self::Opening => "opening",
            Self::Examining => "examining",
            Self::Changing => "changing",
            Self::Executing => "executing",
        })
    }
}

/// Reads what a thread does.
pub(crate) fn activity(proc: Proc, pid: i32, tid: i32) -> Activity {
    match std::fs::read(proc.path(pid, &format!("task/{tid}/syscall"))) {
        Err(_) => Activity::Hidden,
        Ok(text) => parse(&text).map_or(Activity::Running, |call| meaning(proc, pid, call)),
    }
}

/// The system call; none for a thread that runs, or is blocked outside of one (`-1`, with fewer fields).
fn parse(text: &[u8]) -> Option<BlockedCall> {
    let Ok(Syscall::Blocked {
        syscall_number: number @ 0..,
        argument_registers: [first, second, third, fourth, ..],
        ..
    }) = Syscall::from_read(text)
    else {
        return None;
    };
    Some(BlockedCall {
        number,
        arguments: [first, second, third, fourth],
    })
}

fn meaning(proc: Proc, pid: i32, call: BlockedCall) -> Activity {
    let [first, second, third, fourth] = call.arguments;
    // The kernel shows registers; an int is their lower half.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "an int is the lower half of a register"
    )]
    let number = first as i32;
    let using = |operation| Activity::Using(number, operation);
    let naming = |address, operation| Activity::Naming(path(proc, pid, address), operation);
    match call.number {
        libc::SYS_read
        | libc::SYS_readv
        | libc::SYS_pread64
        | libc::SYS_recvfrom
        | libc::SYS_recvmsg => using(Operation::Reading),
        libc::SYS_write
        | libc::SYS_writev
        | libc::SYS_pwrite64
        | libc::SYS_sendto
        | libc::SYS_sendmsg
        | libc::SYS_sendfile => using(Operation::Writing),
        libc::SYS_connect => using(Operation::Connecting),
        libc::SYS_flock | libc::SYS_fcntl => using(Operation::Locking),
        libc::SYS_getdents64 => using(Operation::Listing),
        libc::SYS_fsync | libc::SYS_fdatasync => using(Operation::Syncing),
        libc::SYS_close => using(Operation::Closing),
        libc::SYS_fstat | libc::SYS_fstatfs => using(Operation::Examining),
        libc::SYS_openat | libc::SYS_openat2 => naming(second, Operation::Opening),
        libc::SYS_newfstatat
        | libc::SYS_statx
        | libc::SYS_faccessat
        | libc::SYS_faccessat2
        | libc::SYS_readlinkat => naming(second, Operation::Examining),
        libc::SYS_statfs | libc::SYS_chdir => naming(first, Operation::Examining),
        libc::SYS_mkdirat | libc::SYS_unlinkat | libc::SYS_renameat2 => {
            naming(second, Operation::Changing)
        }
        libc::SYS_execve => naming(first, Operation::Executing),
        libc::SYS_wait4 => Activity::Child(Some(number).filter(|pid| *pid > 0)),
        libc::SYS_waitid => Activity::Child(match (u32::try_from(first), i32::try_from(second)) {
            (Ok(libc::P_PID), Ok(child)) => Some(child),
            (Ok(libc::P_PIDFD), Ok(descriptor)) => behind_pidfd(proc, pid, descriptor),
            _ => None,
        }),
        libc::SYS_clone | libc::SYS_clone3 => Activity::Forking,
        libc::SYS_accept | libc::SYS_accept4 => Activity::Accepting,
        // With a time to wait at most, it is no deadlock.
        libc::SYS_futex if fourth != 0 => Activity::Sleeping,
        libc::SYS_futex => Activity::Lock,
        libc::SYS_nanosleep | libc::SYS_clock_nanosleep => Activity::Sleeping,
        libc::SYS_ppoll => Activity::Polling(polled(proc, pid, first, second)),
        libc::SYS_pselect6 => Activity::Polling(selected(proc, pid, first, second, third)),
        libc::SYS_epoll_pwait | libc::SYS_epoll_pwait2 => {
            Activity::Polling(registered(proc, pid, number))
        }
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open | libc::SYS_creat => naming(first, Operation::Opening),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_stat | libc::SYS_lstat | libc::SYS_access | libc::SYS_readlink => {
            naming(first, Operation::Examining)
        }
        #[cfg(target_arch = "x86_64")]
        libc::SYS_mkdir | libc::SYS_rmdir | libc::SYS_unlink | libc::SYS_rename => {
            naming(first, Operation::Changing)
        }
        #[cfg(target_arch = "x86_64")]
        libc::SYS_vfork => Activity::Forking,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_poll => Activity::Polling(polled(proc, pid, first, second)),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_select => Activity::Polling(selected(proc, pid, first, second, third)),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_epoll_wait => Activity::Polling(registered(proc, pid, number)),
        other => Activity::Other(other),
    }
}

/// The process that a pidfd refers to (`Pid:` in `proc_pid_fdinfo(5)`).
fn behind_pidfd(proc: Proc, pid: i32, descriptor: i32) -> Option<i32> {
    let info = std::fs::read_to_string(proc.path(pid, &format!("fdinfo/{descriptor}"))).ok()?;
    number_after(&info, "\nPid:").filter(|pid| *pid > 0)
}

fn memory(proc: Proc, pid: i32, address: u64, length: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; length];
    let read = File::open(proc.path(pid, "mem"))
        .ok()?
        .read_at(&mut bytes, address)
        .ok()?;
    bytes.truncate(read);
    Some(bytes)
}

/// The descriptors of an array of `struct pollfd` (`poll(2)`).
fn polled(proc: Proc, pid: i32, address: u64, count: u64) -> Vec<Polled> {
    let count = usize::try_from(count).unwrap_or_default().min(MOST_POLLED);
    let bytes = memory(proc, pid, address, count * 8).unwrap_or_default();
    bytes.chunks_exact(8).filter_map(pollfd).collect()
}

fn pollfd(entry: &[u8]) -> Option<Polled> {
    let descriptor = i32::from_ne_bytes(entry.get(..4)?.try_into().ok()?);
    let events = i16::from_ne_bytes(entry.get(4..6)?.try_into().ok()?);
    (descriptor >= 0).then_some(Polled {
        descriptor,
        writing: events & (libc::POLLIN | libc::POLLOUT) == libc::POLLOUT,
    })
}

/// The descriptors of the first two sets of `select(2)`.
fn selected(proc: Proc, pid: i32, count: u64, reading: u64, writing: u64) -> Vec<Polled> {
    let count = usize::try_from(count).unwrap_or_default().min(MOST_POLLED);
    let set = |address, writing| {
        let bytes = if address == 0 {
            Vec::new()
        } else {
            memory(proc, pid, address, count.div_ceil(8)).unwrap_or_default()
        };
        in_set(&bytes, count)
            .into_iter()
            .map(move |descriptor| Polled {
                descriptor,
                writing,
            })
    };
    set(reading, false).chain(set(writing, true)).collect()
}

fn in_set(bytes: &[u8], count: usize) -> Vec<i32> {
    let is_set = |number: &usize| {
        bytes
            .get(number / 8)
            .is_some_and(|byte| byte >> (number % 8) & 1 == 1)
    };
    let numbers = (0..count).filter(is_set);
    numbers
        .filter_map(|number| i32::try_from(number).ok())
        .collect()
}

/// The descriptors that an epoll instance watches (`proc_pid_fdinfo(5)`).
fn registered(proc: Proc, pid: i32, descriptor: i32) -> Vec<Polled> {
    let info = std::fs::read_to_string(proc.path(pid, &format!("fdinfo/{descriptor}")));
    let info = info.unwrap_or_default();
    info.lines().take(MOST_POLLED).filter_map(tfd).collect()
}

/// `tfd: 5 events: 19 data: …`
fn tfd(line: &str) -> Option<Polled> {
    let mut words = line.strip_prefix("tfd:")?.split_whitespace();
    let descriptor = words.next()?.parse().ok()?;
    let events = words
        .nth(1)
        .and_then(|word| i64::from_str_radix(word, 16).ok())?;
    Some(Polled {
        descriptor,
        writing: events & i64::from(libc::EPOLLIN | libc::EPOLLOUT) == i64::from(libc::EPOLLOUT),
    })
}

fn path(proc: Proc, pid: i32, address: u64) -> Option<PathBuf> {
    // A page at a time: the next one may not be there.
    let first = 4096 - usize::try_from(address % 4096).unwrap_or_default();
    let mut bytes = memory(proc, pid, address, first)?;
    if !bytes.contains(&0) {
        bytes.extend(memory(proc, pid, address + first as u64, 4096)?);
    }
    let end = bytes.iter().position(|byte| *byte == 0)?;
    let text = String::from_utf8_lossy(&bytes[..end]).into_owned();
    (!text.is_empty()).then(|| text.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::{fuzz, linear};

    #[test]
    fn a_line_of_the_kernel_is_read() {
        let of = |number, arguments| Some(BlockedCall { number, arguments });
        for (line, expected) in [
            ("running\n", None),
            ("-1 0x7ffd 0x7f00\n", None),
            ("", None),
            ("0 0x3 0x7f12 0x400\n", None),
            (
                "0 0x3 0x7f12 0x400 0x0 0x0 0x0 0x7ffc 0x7f9a\n",
                of(0, [3, 0x7f12, 0x400, 0]),
            ),
            (
                "61 0xffffffff 0x0 0x0 0x0 0x0 0x0 0x7f 0x7f\n",
                of(61, [0xffff_ffff, 0, 0, 0]),
            ),
        ] {
            assert_eq!(parse(line.as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn system_calls_have_their_meaning() {
        for (number, arguments, expected) in [
            (
                libc::SYS_recvfrom,
                [5, 0, 0, 0],
                Activity::Using(5, Operation::Reading),
            ),
            (
                libc::SYS_read,
                [5, 0, 0, 0],
                Activity::Using(5, Operation::Reading),
            ),
            (
                libc::SYS_sendto,
                [5, 0, 0, 0],
                Activity::Using(5, Operation::Writing),
            ),
            (
                libc::SYS_connect,
                [5, 0, 0, 0],
                Activity::Using(5, Operation::Connecting),
            ),
            (
                libc::SYS_flock,
                [5, 2, 0, 0],
                Activity::Using(5, Operation::Locking),
            ),
            (
                libc::SYS_getdents64,
                [5, 0, 0, 0],
                Activity::Using(5, Operation::Listing),
            ),
            (
                libc::SYS_wait4,
                [0xffff_ffff, 0, 0, 0],
                Activity::Child(None),
            ),
            (libc::SYS_wait4, [77, 0, 0, 0], Activity::Child(Some(77))),
            (libc::SYS_waitid, [1, 77, 0, 0], Activity::Child(Some(77))),
            (libc::SYS_waitid, [0, 0, 0, 0], Activity::Child(None)),
            (libc::SYS_futex, [1, 0, 0, 0], Activity::Lock),
            (libc::SYS_futex, [1, 0, 0, 0x7f], Activity::Sleeping),
            (libc::SYS_accept4, [3, 0, 0, 0], Activity::Accepting),
            (
                libc::SYS_getpid,
                [0, 0, 0, 0],
                Activity::Other(libc::SYS_getpid),
            ),
        ] {
            assert_eq!(
                meaning(Proc::here(), 0, BlockedCall { number, arguments }),
                expected
            );
        }
    }

    #[test]
    fn descriptors_that_are_waited_for_are_read() {
        let polled = |descriptor, writing| {
            Some(Polled {
                descriptor,
                writing,
            })
        };
        assert_eq!(pollfd(&[5, 0, 0, 0, 1, 0, 0, 0]), polled(5, false));
        assert_eq!(pollfd(&[5, 0, 0, 0, 4, 0, 0, 0]), polled(5, true));
        assert_eq!(pollfd(&[5, 0, 0, 0, 5, 0, 0, 0]), polled(5, false));
        assert_eq!(pollfd(&[255, 255, 255, 255, 1, 0, 0, 0]), None);
        assert_eq!(
            tfd("tfd:        5 events:       19 data:                5  pos:0 ino:1 sdev:8"),
            polled(5, false)
        );
        assert_eq!(tfd("tfd: 6 events: 1c data: 6"), polled(6, true));
        assert_eq!(tfd("tfd: 6 events: 8000001c data: 6"), polled(6, true));
        assert_eq!(tfd("flags:\t02"), None);
        assert_eq!(in_set(&[0b1000_1000, 0b1], 9), [3, 7, 8]);
        assert_eq!(in_set(&[0xff], 3), [0, 1, 2]);
        assert!(in_set(&[], 64).is_empty());
    }

    #[test]
    fn a_path_is_read_from_the_memory_of_a_process() {
        let pid = nix::unistd::getpid().as_raw();
        let text = c"/home/ada/notes";
        let read = path(Proc::here(), pid, text.as_ptr() as u64);
        assert_eq!(read, Some(PathBuf::from("/home/ada/notes")));
        assert_eq!(path(Proc::here(), pid, 0), None);
    }

    #[test]
    fn fuzz_proc_parsers_syscall() {
        let seeds: [&[u8]; 4] = [
            b"0 0x3 0x7f12 0x400 0x0 0x0 0x0 0x7ffc 0x7f9a\n",
            b"-1 0x7ffd 0x7f00\n",
            b"tfd:        5 events:       19 data:                5  pos:0 ino:1 sdev:8",
            &[5, 0, 0, 0, 4, 0, 0, 0],
        ];
        let target = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            parse(bytes);
            text.lines().take(MOST_POLLED).for_each(|line| {
                tfd(line);
            });
            pollfd(bytes);
            in_set(bytes, MOST_POLLED);
        };
        fuzz(&seeds, target);
        linear(|size| b"tfd: 5 events: 1\n".repeat(size / 17), target);
    }
}
