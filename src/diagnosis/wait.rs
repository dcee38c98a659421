//! What a thread waits for: its system call (`proc_pid_syscall(5)`), and what that call's
//! descriptor is.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use nix::libc;

/// A system call that a thread is blocked in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Call {
    /// Its number.
    pub(crate) number: libc::c_long,
    /// Its first two arguments.
    pub(crate) arguments: [u64; 2],
}

/// What a thread does, as far as its system call tells.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Doing {
    /// We may not see it.
    Hidden,
    /// It runs, or is about to.
    Running,
    /// Reading from this descriptor.
    Reading(i32),
    /// Writing to this descriptor.
    Writing(i32),
    /// Connecting this descriptor.
    Connecting(i32),
    /// Waiting for this child; for any, where it is none.
    Child(Option<i32>),
    /// Waiting until one of these descriptors is ready.
    Polling(Vec<i32>),
    /// Waiting for a client to connect.
    Accepting,
    /// Opening this file.
    Opening(Option<PathBuf>),
    /// Waiting for a lock of the program's own.
    Lock,
    /// Waiting for another process's lock on this descriptor's file.
    FileLock(i32),
    /// Sleeping for a time of its own.
    Sleeping,
    /// Another system call, by its number.
    Other(libc::c_long),
}

/// Reads what a thread does.
pub(crate) fn doing(pid: i32, tid: i32) -> Doing {
    match std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/syscall")) {
        Err(_) => Doing::Hidden,
        Ok(text) => parse(&text).map_or(Doing::Running, |call| meaning(pid, call)),
    }
}

fn parse(text: &str) -> Option<Call> {
    let mut words = text.split_whitespace();
    let number = words.next()?.parse().ok().filter(|number| *number >= 0)?;
    let mut argument = || {
        let word = words.next()?;
        u64::from_str_radix(word.trim_start_matches("0x"), 16).ok()
    };
    Some(Call {
        number,
        arguments: [argument()?, argument()?],
    })
}

fn meaning(pid: i32, call: Call) -> Doing {
    let [first, second] = call.arguments;
    // The kernel shows registers; an int is their lower half.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "an int is the lower half of a register"
    )]
    let number = first as i32;
    match call.number {
        libc::SYS_read | libc::SYS_readv | libc::SYS_recvfrom | libc::SYS_recvmsg => {
            Doing::Reading(number)
        }
        libc::SYS_write | libc::SYS_writev | libc::SYS_sendto | libc::SYS_sendmsg => {
            Doing::Writing(number)
        }
        libc::SYS_connect => Doing::Connecting(number),
        libc::SYS_wait4 => Doing::Child(Some(number).filter(|pid| *pid > 0)),
        libc::SYS_waitid => Doing::Child(
            i32::try_from(second)
                .ok()
                .filter(|pid| first == 1 && *pid > 0),
        ),
        libc::SYS_accept | libc::SYS_accept4 => Doing::Accepting,
        libc::SYS_futex => Doing::Lock,
        libc::SYS_flock | libc::SYS_fcntl => Doing::FileLock(number),
        libc::SYS_nanosleep | libc::SYS_clock_nanosleep => Doing::Sleeping,
        libc::SYS_openat => Doing::Opening(path(pid, second)),
        libc::SYS_ppoll => Doing::Polling(polled(pid, first, second)),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open => Doing::Opening(path(pid, first)),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_poll => Doing::Polling(polled(pid, first, second)),
        other => Doing::Other(other),
    }
}

fn memory(pid: i32, address: u64, length: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; length];
    let read = File::open(format!("/proc/{pid}/mem"))
        .ok()?
        .read_at(&mut bytes, address)
        .ok()?;
    bytes.truncate(read);
    Some(bytes)
}

/// The descriptors of an array of `struct pollfd` (`poll(2)`).
fn polled(pid: i32, address: u64, count: u64) -> Vec<i32> {
    let count = usize::try_from(count).unwrap_or_default().min(64);
    let bytes = memory(pid, address, count * 8).unwrap_or_default();
    let each = bytes
        .chunks_exact(8)
        .filter_map(|entry| entry.get(..4)?.try_into().ok());
    each.map(i32::from_ne_bytes)
        .filter(|descriptor| *descriptor >= 0)
        .collect()
}

fn path(pid: i32, address: u64) -> Option<PathBuf> {
    let bytes = memory(pid, address, 4096)?;
    let end = bytes.iter().position(|byte| *byte == 0)?;
    let text = String::from_utf8_lossy(&bytes[..end]).into_owned();
    (!text.is_empty()).then(|| text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernel_is_read() {
        let of = |number, arguments| Some(Call { number, arguments });
        for (line, expected) in [
            ("running\n", None),
            ("-1 0x7ffd 0x7f00\n", None),
            ("", None),
            ("0 0x3\n", None),
            (
                "0 0x3 0x7f12 0x400 0x0 0x0 0x0 0x7ffc 0x7f9a\n",
                of(0, [3, 0x7f12]),
            ),
            (
                "61 0xffffffff 0x0 0x0 0x0 0x0 0x0 0x7f 0x7f\n",
                of(61, [0xffff_ffff, 0]),
            ),
        ] {
            assert_eq!(parse(line), expected, "{line}");
        }
    }

    #[test]
    fn system_calls_have_their_meaning() {
        let meant = |number, arguments| meaning(0, Call { number, arguments });
        assert_eq!(meant(libc::SYS_recvfrom, [5, 0]), Doing::Reading(5));
        assert_eq!(meant(libc::SYS_sendto, [5, 0]), Doing::Writing(5));
        assert_eq!(meant(libc::SYS_wait4, [0xffff_ffff, 0]), Doing::Child(None));
        assert_eq!(meant(libc::SYS_wait4, [77, 0]), Doing::Child(Some(77)));
        assert_eq!(meant(libc::SYS_waitid, [1, 77]), Doing::Child(Some(77)));
        assert_eq!(meant(libc::SYS_futex, [1, 0]), Doing::Lock);
        assert_eq!(
            meant(libc::SYS_getpid, [0, 0]),
            Doing::Other(libc::SYS_getpid)
        );
    }
}
