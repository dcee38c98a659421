//! The system interfaces that no crate offers without `unsafe`.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dlmalloc::Dlmalloc;
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use nix::unistd::{ForkResult, Gid, Pid, Uid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// One allocator with every C library: that of musl takes more than twice the time, and more system calls.
#[global_allocator]
static ALLOCATOR: Allocator = Allocator(Mutex::new(Dlmalloc::new()));

/// dlmalloc behind a lock, which `fork` holds meanwhile. Its methods are not inlined: the program would be 40 KB larger, and
/// no faster.
struct Allocator(Mutex<Dlmalloc>);

impl Allocator {
    fn heap(&self) -> MutexGuard<'_, Dlmalloc> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// SAFETY: each method is the heap's own of the same contract, and the lock keeps them apart. Neither the lock, which is
// a futex(2), nor the heap allocates by this allocator or unwinds.
unsafe impl GlobalAlloc for Allocator {
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is that of the heap.
        unsafe { self.heap().malloc(layout.size(), layout.align()) }
    }

    #[inline(never)]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { self.heap().calloc(layout.size(), layout.align()) }
    }

    #[inline(never)]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above; the block is of this heap, because there is no other.
        unsafe { self.heap().free(block, layout.size(), layout.align()) }
    }

    #[inline(never)]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        unsafe {
            self.heap()
                .realloc(block, layout.size(), layout.align(), size)
        }
    }
}

/// Lets the event loop watch a descriptor for being readable (`epoll(7)`).
pub(crate) fn watch(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is open, is owned by the `AsyncFd`, and an `OwnedFd` keeps its number.
    let watched = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
    Ok(watched?)
}

/// The same for signals.
pub(crate) fn watch_signals(descriptor: SignalFd) -> io::Result<AsyncFd<SignalFd>> {
    // SAFETY: as for `watch`: a `SignalFd` owns one descriptor and keeps its number.
    let watched = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
    Ok(watched?)
}

/// A copy of a descriptor that this process was started with, closed when dropped. It refers to the
/// same open file description, and so to the same `flock`.
///
/// # Errors
/// The number is not open, or no descriptor is left.
pub(crate) fn duplicate(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: makes a new descriptor and leaves the old one as it is, whoever owns it.
    let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, libc::STDERR_FILENO + 1) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Closes nothing yet, but lets no descriptor of ours other than stdin, stdout and stderr go on to
/// what is executed next. Async-signal-safe.
fn close_on_exec() {
    let first = libc::STDERR_FILENO + 1;
    // SAFETY: it changes a flag of descriptors, and is no matter of memory (close_range(2), Linux 5.11).
    let all = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            RawFd::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if all != 0 {
        for descriptor in first..highest() {
            // SAFETY: as above; EBADF for what is not open.
            unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
}

/// Upper bound of the descriptors that are visited one by one.
const MOST_DESCRIPTORS: libc::rlim_t = 1 << 16;

/// One more than the highest descriptor that can be open, by `RLIMIT_NOFILE`.
fn highest() -> RawFd {
    let mut limit = libc::rlimit {
        rlim_cur: MOST_DESCRIPTORS,
        rlim_max: MOST_DESCRIPTORS,
    };
    // SAFETY: the structure is ours and outlives the call; where it fails, it keeps its value.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    RawFd::try_from(limit.rlim_cur.min(MOST_DESCRIPTORS)).unwrap_or(RawFd::MAX)
}

/// Who a process becomes.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    /// User ID.
    pub(crate) uid: Uid,
    /// Primary group.
    pub(crate) gid: Gid,
    /// All supplementary groups.
    pub(crate) groups: Vec<Gid>,
}

/// The error of a process that could become root again once it had ceased to be, as with
/// `SECBIT_NO_SETUID_FIXUP` (`capabilities(7)`): it has executed nothing. No call that is made between
/// fork and exec has this one of its own.
pub(crate) const STILL_ROOT: Errno = Errno::ENOTRECOVERABLE;

/// Changes this process for good. Async-signal-safe, like all that it calls (`signal-safety(7)`;
/// `setgroups(2)` is a plain system call).
fn become_user(user: &Credentials) -> io::Result<()> {
    nix::unistd::setgroups(&user.groups)?;
    nix::unistd::setgid(user.gid)?;
    nix::unistd::setuid(user.uid)?;
    if nix::unistd::setuid(Uid::from_raw(0)).is_ok() {
        return Err(STILL_ROOT.into());
    }
    // The directory that we run in, if this user can enter it (chdir(2) asks for search permission).
    if nix::unistd::chdir(c".").is_err() {
        nix::unistd::chdir(c"/")?;
    }
    Ok(())
}

/// Lets the command run in a session of its own (`setsid(2)`), with no signal blocked and none of our
/// descriptors but stdin; its stdout and stderr are `output`, or what stdin is where there is none. With
/// a `user`, other than root, it runs as that user, or does not run.
pub(crate) fn detach(command: &mut Command, output: Option<Arc<File>>, user: Option<Credentials>) {
    // SAFETY: between fork and exec the closure makes only system calls that are async-signal-safe
    // (dup2, close_range, getrlimit, fcntl, setsid, pthread_sigmask, setgroups, setgid, setuid, chdir),
    // allocates and frees nothing, and keeps `output` open as long as the command can be spawned.
    unsafe {
        command.pre_exec(move || {
            let output = output
                .as_ref()
                .map_or(libc::STDIN_FILENO, AsRawFd::as_raw_fd);
            for standard in [libc::STDOUT_FILENO, libc::STDERR_FILENO] {
                if libc::dup2(output, standard) < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            close_on_exec();
            nix::unistd::setsid()?;
            // Not before: what ends our own process group must not end the start.
            unblock();
            user.as_ref().map_or(Ok(()), become_user)
        });
    }
}

/// Lets the command run with no signal blocked.
pub(crate) fn with_no_signal_blocked(command: &mut Command) {
    // SAFETY: between fork and exec the closure makes only an async-signal-safe call (pthread_sigmask).
    unsafe {
        command.pre_exec(|| {
            unblock();
            Ok(())
        });
    }
}

/// Blocks no signal any more. `Command` lets a program inherit what we block (`signals::Signals`): a
/// server would be deaf to SIGTERM as long as it lives, and its children too.
fn unblock() {
    let _ = SigSet::empty().thread_set_mask();
}

/// Does the work in a child process, then ends the child. It has no descriptor of ours but `keep`
/// (so no lock of ours, wherever it gets stuck), and /dev/null as stdin, stdout and stderr.
///
/// # Safety
/// The child has one thread. A lock that another thread of the parent held at the fork stays locked in
/// the child. So `work` may allocate, read and write files, and use what it has brought along. It must not wait
/// for another thread, log, use tokio, or take a lock that another thread may hold, which includes
/// the one of the environment (`Command` takes it).
///
/// # Errors
/// As `fork(2)`: EAGAIN, ENOMEM, ENOSYS. Nothing was done.
pub(crate) unsafe fn fork(keep: OwnedFd, work: impl FnOnce(OwnedFd)) -> io::Result<Pid> {
    // So that no other thread has its lock in the child.
    let heap = ALLOCATOR.heap();
    // SAFETY: the child runs on with this thread alone, and only system calls and `work` follow,
    // which the caller answers for.
    let forked = unsafe { nix::unistd::fork() };
    drop(heap);
    match forked? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            close_all_but(keep.as_raw_fd());
            // Not in the parent, which may have no descriptor to spare. The lowest free ones are 0, 1
            // and 2.
            if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
                let _ = null.into_raw_fd();
                for standard in [libc::STDOUT_FILENO, libc::STDERR_FILENO] {
                    // SAFETY: nothing owns the standard descriptors here.
                    unsafe { libc::dup2(libc::STDIN_FILENO, standard) };
                }
            }
            // Where panics unwind, none may leave through our caller, who is another process.
            let _ = catch_unwind(AssertUnwindSafe(|| work(keep)));
            // SAFETY: ends this process, without running what the parent registered for its own end.
            unsafe { libc::_exit(0) }
        }
    }
}

/// What comes before the errno in the output of a program that could not be executed.
pub(crate) const NOT_EXECUTED: u8 = 0;

/// Runs a program (its path, then its arguments) in a session of its own, with no signal blocked and no descriptor of
/// ours but `output`, its stdout. It is killed when the thread that starts it has ended, however that ends
/// (`PR_SET_PDEATHSIG(2const)`). Unlike `Command`, this does not wait until it is executed, which takes for ever on a disk
/// that does not answer; where it cannot be, the output is `NOT_EXECUTED` and the errno.
///
/// # Errors
/// As `fork(2)`.
pub(crate) fn execute(words: &[CString], output: OwnedFd) -> io::Result<Pid> {
    let starter = nix::unistd::getpid();
    let run = |output: OwnedFd| {
        // SAFETY: nothing owns the standard descriptors here. stdin is /dev/null, and would be closed by execve(2).
        unsafe {
            libc::fcntl(libc::STDIN_FILENO, libc::F_SETFD, 0);
            libc::dup2(output.as_raw_fd(), libc::STDOUT_FILENO);
        }
        let _ = nix::unistd::setsid();
        let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
        // If the starter ended before that call, no signal comes.
        if nix::unistd::getppid() != starter {
            return;
        }
        default_action(libc::SIGPIPE);
        unblock();
        let program = words.first().map_or(c"", CString::as_c_str);
        let Err(errno) = nix::unistd::execv(program, words);
        let errno = u8::try_from(errno as i32).unwrap_or_default();
        let _ = nix::unistd::write(output, &[NOT_EXECUTED, errno]);
    };
    // SAFETY: `run` makes system calls, and allocates for execv.
    unsafe { fork(output, run) }
}

/// Closes every other descriptor (`close_range(2)`, Linux 5.9), the standard ones too.
fn close_all_but(keep: RawFd) {
    let close = |from: RawFd, to: RawFd| {
        // SAFETY: the owners of these descriptors are never dropped in this process.
        from > to || unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) } == 0
    };
    if close(0, keep - 1) && close(keep + 1, RawFd::MAX) {
        return;
    }
    for descriptor in (0..highest()).filter(|descriptor| *descriptor != keep) {
        // SAFETY: as above; EBADF for what is not open.
        unsafe { libc::close(descriptor) };
    }
}

/// Whether a signal is ignored (`sigaction(2)`).
pub(crate) fn is_ignored(signal: libc::c_int) -> bool {
    // SAFETY: an all-zero `sigaction` is a valid value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: it only asks, and the structure is ours and outlives the call.
    let asked = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) };
    asked == 0 && action.sa_sigaction == libc::SIG_IGN
}

/// Whether a signal waits to be delivered to this process or thread (`sigpending(2)`).
pub(crate) fn is_pending(signal: libc::c_int) -> bool {
    // SAFETY: an all-zero set is a valid value; both calls only read and write this one.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigpending(&raw mut set) == 0 && libc::sigismember(&raw const set, signal) == 1
    }
}

/// Gives a signal its default action (`signal(2)`).
pub(crate) fn default_action(signal: libc::c_int) {
    // SAFETY: no handler of ours is replaced, and the default action runs no code of this process.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}
