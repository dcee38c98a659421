//! Which system calls can fail, and how: the errnos of their manual pages that can occur in a run. A call that
//! the recording meets and this table lacks makes the test fail, so the table stays complete.

use nix::errno::Errno::{self, *};
use nix::libc::{self, c_long};

use super::tracer::{Tracee, signed};

/// How the arguments of a call are shown.
#[derive(Clone, Copy)]
enum Shown {
    /// The call has no argument worth showing.
    Nothing,
    /// A path, after the descriptor of its directory where there is one.
    Path(usize),
    /// A path and the flags of `open(2)` after it.
    Open(usize),
    /// A descriptor.
    Fd(usize),
    /// A descriptor, after "file" where it is a regular file and none of the kernel's own.
    Closed,
    /// A descriptor and the command of `fcntl(2)`.
    Command,
    /// The operation of `epoll_ctl(2)` and its descriptor.
    Epoll,
    /// The domain of `socket(2)`.
    Domain,
    /// A number.
    Number(usize),
}

/// One system call, or those of its uses whose arguments contain `uses`; the first row that fits counts.
struct Row {
    number: c_long,
    name: &'static str,
    shown: Shown,
    uses: &'static str,
    errnos: &'static [Errno],
}

macro_rules! rows {
    ($($name:ident $call:ident $shown:expr, $uses:literal => [$($errno:ident)*];)*) => {
        &[$(Row {
            number: libc::$call,
            name: stringify!($name),
            shown: $shown,
            uses: $uses,
            errnos: &[$($errno),*],
        }),*]
    };
}

use Shown::{Closed, Command, Domain, Epoll, Fd, Nothing, Number, Open, Path};

/// Left out everywhere: EBADF, EFAULT, EINVAL and the like (errors of the program), EWOULDBLOCK of a lock and EEXIST
/// (true answers, not faults), EINTR of a call that does not block.
const TABLE: &[Row] = rows! {
    // Files.
    open SYS_open Open(0), "create" => [EACCES EDQUOT EIO EMFILE ENFILE ENOENT ENOMEM ENOSPC EROFS];
    open SYS_open Open(0), "" => [EACCES EIO EMFILE ENFILE ENOENT ENOMEM];
    openat SYS_openat Open(1), "create" => [EACCES EDQUOT EIO EMFILE ENFILE ENOENT ENOMEM ENOSPC EROFS];
    openat SYS_openat Open(1), "" => [EACCES EIO EMFILE ENFILE ENOENT ENOMEM];
    openat2 SYS_openat2 Path(1), "" => [EACCES EAGAIN EIO EMFILE ENFILE ENOENT ENOMEM ENOSYS];
    // Runs, then reports the error: Linux has released the descriptor in any case (close(2)).
    // Only what was written can be lost then.
    close SYS_close Closed, "file" => [EINTR EIO];
    close SYS_close Closed, "" => [];
    close_range SYS_close_range Nothing, "" => [ENOSYS];
    // A process that ended since its file was opened is ESRCH.
    read SYS_read Fd(0), "/proc/" => [EINTR EIO ENOMEM ESRCH];
    read SYS_read Fd(0), "pipe:" => [EINTR];
    read SYS_read Fd(0), "anon_inode:[eventfd]" => [];
    read SYS_read Fd(0), "" => [EINTR EIO];
    readv SYS_readv Fd(0), "" => [EINTR EIO];
    pread64 SYS_pread64 Fd(0), "" => [EINTR EIO];
    preadv SYS_preadv Fd(0), "" => [EINTR EIO];
    preadv2 SYS_preadv2 Fd(0), "" => [EAGAIN EINTR EIO ENOSYS EOPNOTSUPP];
    write SYS_write Fd(0), "anon_inode:[eventfd]" => [];
    write SYS_write Fd(0), "pipe:" => [EINTR EPIPE];
    write SYS_write Fd(0), "" => [EDQUOT EINTR EIO ENOSPC];
    writev SYS_writev Fd(0), "socket" => [ECONNRESET ENOBUFS ENOMEM EPIPE];
    writev SYS_writev Fd(0), "" => [EDQUOT EINTR EIO ENOSPC];
    pwrite64 SYS_pwrite64 Fd(0), "" => [EDQUOT EINTR EIO ENOSPC];
    pwritev SYS_pwritev Fd(0), "" => [EDQUOT EINTR EIO ENOSPC];
    lseek SYS_lseek Fd(0), "" => [];
    stat SYS_stat Path(0), "" => [EACCES ENOENT ENOMEM];
    lstat SYS_lstat Path(0), "" => [EACCES ENOENT ENOMEM];
    fstat SYS_fstat Fd(0), "" => [ENOMEM];
    newfstatat SYS_newfstatat Path(1), "fd " => [ENOMEM];
    newfstatat SYS_newfstatat Path(1), "" => [EACCES ENOENT ENOMEM];
    statx SYS_statx Path(1), "fd " => [ENOMEM ENOSYS];
    statx SYS_statx Path(1), "" => [EACCES ENOENT ENOMEM ENOSYS];
    statfs SYS_statfs Path(0), "" => [EACCES EINTR EIO ENOENT ENOMEM ENOSYS];
    fstatfs SYS_fstatfs Fd(0), "" => [EINTR EIO ENOMEM ENOSYS];
    access SYS_access Path(0), "" => [EACCES EIO ENOENT ENOMEM];
    faccessat SYS_faccessat Path(1), "" => [EACCES EIO ENOENT ENOMEM];
    faccessat2 SYS_faccessat2 Path(1), "" => [EACCES EIO ENOENT ENOMEM ENOSYS];
    getdents64 SYS_getdents64 Fd(0), "" => [EIO ENOENT ENOMEM];
    readlink SYS_readlink Path(0), "" => [EACCES EIO ENOENT ENOMEM];
    readlinkat SYS_readlinkat Path(1), "" => [EACCES EIO ENOENT ENOMEM];
    utimensat SYS_utimensat Path(1), "" => [EACCES EIO EROFS];
    mkdir SYS_mkdir Path(0), "" => [EACCES EDQUOT ENOENT ENOMEM ENOSPC EROFS];
    mkdirat SYS_mkdirat Path(1), "" => [EACCES EDQUOT ENOENT ENOMEM ENOSPC EROFS];
    rename SYS_rename Path(0), "" => [EACCES EDQUOT ENOENT ENOMEM ENOSPC EROFS];
    renameat SYS_renameat Path(1), "" => [EACCES EDQUOT ENOENT ENOMEM ENOSPC EROFS];
    renameat2 SYS_renameat2 Path(1), "" => [EACCES EDQUOT ENOENT ENOMEM ENOSPC ENOSYS EROFS];
    link SYS_link Path(0), "" => [EACCES EDQUOT EIO ENOMEM ENOSPC EPERM EROFS];
    linkat SYS_linkat Path(1), "" => [EACCES EDQUOT EIO ENOMEM ENOSPC EPERM EROFS];
    unlink SYS_unlink Path(0), "" => [EACCES EBUSY EIO ENOENT ENOMEM EPERM EROFS];
    unlinkat SYS_unlinkat Path(1), "" => [EACCES EBUSY EIO ENOENT ENOMEM EPERM EROFS];
    rmdir SYS_rmdir Path(0), "" => [EACCES EBUSY ENOENT ENOMEM EPERM EROFS];
    ftruncate SYS_ftruncate Fd(0), "" => [EINTR EIO];
    fchmod SYS_fchmod Fd(0), "" => [EIO EPERM EROFS];
    chmod SYS_chmod Path(0), "" => [EACCES EIO ENOENT ENOMEM EPERM EROFS];
    fchmodat SYS_fchmodat Path(1), "" => [EACCES EIO ENOENT ENOMEM EPERM EROFS];
    fchown SYS_fchown Fd(0), "" => [EIO EPERM EROFS];
    fchownat SYS_fchownat Path(1), "" => [EACCES EIO ENOENT ENOMEM EPERM EROFS];
    fsync SYS_fsync Fd(0), "" => [EDQUOT EINTR EIO ENOSPC];
    fdatasync SYS_fdatasync Fd(0), "" => [EDQUOT EINTR EIO ENOSPC];
    fallocate SYS_fallocate Fd(0), "" => [EINTR EIO ENOSPC EOPNOTSUPP];
    flock SYS_flock Fd(0), "" => [EINTR ENOLCK];
    getcwd SYS_getcwd Nothing, "" => [EACCES ENOENT ENOMEM];
    chdir SYS_chdir Path(0), "" => [EACCES EIO ENOENT ENOMEM];
    fchdir SYS_fchdir Fd(0), "" => [EACCES];
    umask SYS_umask Nothing, "" => [];

    // Descriptors.
    fcntl SYS_fcntl Command, "F_DUPFD" => [EMFILE];
    fcntl SYS_fcntl Command, "LK" => [EINTR ENOLCK];
    fcntl SYS_fcntl Command, "" => [];
    dup SYS_dup Fd(0), "" => [EMFILE];
    dup2 SYS_dup2 Fd(0), "" => [EBUSY EINTR];
    dup3 SYS_dup3 Fd(0), "" => [EBUSY EINTR];
    pipe2 SYS_pipe2 Nothing, "" => [EMFILE ENFILE];
    ioctl SYS_ioctl Fd(0), "" => [];

    // Events.
    signalfd4 SYS_signalfd4 Nothing, "" => [EMFILE ENFILE ENODEV ENOMEM];
    rt_sigpending SYS_rt_sigpending Nothing, "" => [];
    epoll_create1 SYS_epoll_create1 Nothing, "" => [EMFILE ENFILE ENOMEM];
    epoll_ctl SYS_epoll_ctl Epoll, "ADD anon_inode:[eventfd]" => [];
    epoll_ctl SYS_epoll_ctl Epoll, "ADD" => [ENOMEM ENOSPC];
    epoll_ctl SYS_epoll_ctl Epoll, "MOD" => [ENOMEM];
    epoll_ctl SYS_epoll_ctl Epoll, "" => [];
    epoll_wait SYS_epoll_wait Nothing, "" => [EINTR];
    epoll_pwait SYS_epoll_pwait Nothing, "" => [EINTR];
    epoll_pwait2 SYS_epoll_pwait2 Nothing, "" => [EINTR ENOSYS];
    poll SYS_poll Nothing, "" => [EINTR ENOMEM];
    ppoll SYS_ppoll Nothing, "" => [EINTR ENOMEM];
    // The runtime's own.
    eventfd2 SYS_eventfd2 Nothing, "" => [];
    inotify_init1 SYS_inotify_init1 Nothing, "" => [EMFILE ENFILE ENOMEM];
    inotify_add_watch SYS_inotify_add_watch Path(1), "" => [EACCES ENOENT ENOMEM ENOSPC];
    timerfd_create SYS_timerfd_create Nothing, "" => [EMFILE ENFILE ENODEV ENOMEM];
    timerfd_settime SYS_timerfd_settime Nothing, "" => [];
    nanosleep SYS_nanosleep Nothing, "" => [EINTR];
    clock_nanosleep SYS_clock_nanosleep Nothing, "" => [EINTR];
    clock_gettime SYS_clock_gettime Nothing, "" => [];

    // Sockets, none of which blocks but those of netlink. What the runtime tells itself of signals goes through a
    // pair of unix sockets: its own, like its eventfd.
    socket SYS_socket Domain, "" => [EACCES EAFNOSUPPORT EMFILE ENFILE ENOBUFS ENOMEM];
    socketpair SYS_socketpair Domain, "" => [EMFILE ENFILE ENOMEM];
    connect SYS_connect Fd(0), "netlink" => [];
    connect SYS_connect Fd(0), "" => [EACCES EADDRNOTAVAIL EAGAIN ECONNREFUSED ENETUNREACH ENOBUFS EPERM ETIMEDOUT];
    bind SYS_bind Fd(0), "netlink" => [EADDRINUSE ENOMEM];
    bind SYS_bind Fd(0), "" => [EACCES EADDRINUSE EADDRNOTAVAIL];
    listen SYS_listen Fd(0), "" => [EADDRINUSE];
    getsockname SYS_getsockname Fd(0), "" => [ENOBUFS];
    getpeername SYS_getpeername Fd(0), "" => [ENOBUFS];
    getsockopt SYS_getsockopt Fd(0), "" => [ENOBUFS ENOMEM];
    setsockopt SYS_setsockopt Fd(0), "" => [ENOBUFS ENOMEM];
    sendto SYS_sendto Fd(0), "unix" => [];
    sendto SYS_sendto Fd(0), "netlink" => [ECONNREFUSED EINTR ENOBUFS ENOMEM];
    sendto SYS_sendto Fd(0), "" => [ECONNRESET ENOBUFS ENOMEM EPIPE];
    sendmsg SYS_sendmsg Fd(0), "netlink" => [ECONNREFUSED EINTR ENOBUFS ENOMEM];
    sendmsg SYS_sendmsg Fd(0), "" => [ECONNRESET ENOBUFS ENOMEM EPIPE];
    recvfrom SYS_recvfrom Fd(0), "unix" => [];
    recvfrom SYS_recvfrom Fd(0), "netlink" => [EINTR ENOBUFS ENOMEM];
    recvfrom SYS_recvfrom Fd(0), "" => [ECONNRESET ENOMEM ETIMEDOUT];
    recvmsg SYS_recvmsg Fd(0), "netlink" => [EINTR ENOBUFS ENOMEM];
    recvmsg SYS_recvmsg Fd(0), "" => [ECONNRESET ENOMEM ETIMEDOUT];
    shutdown SYS_shutdown Fd(0), "" => [];

    // Processes.
    fork SYS_fork Nothing, "" => [EAGAIN ENOMEM];
    vfork SYS_vfork Nothing, "" => [EAGAIN ENOMEM];
    clone SYS_clone Nothing, "" => [EAGAIN ENOMEM];
    clone3 SYS_clone3 Nothing, "" => [EAGAIN ENOMEM ENOSYS];
    execve SYS_execve Path(0), "" => [EAGAIN EIO EMFILE ENFILE ENOMEM ETXTBSY];
    wait4 SYS_wait4 Nothing, "" => [EINTR];
    waitid SYS_waitid Nothing, "" => [EINTR];
    kill SYS_kill Number(1), "" => [EPERM ESRCH];
    tgkill SYS_tgkill Nothing, "" => [];
    pidfd_open SYS_pidfd_open Nothing, "" => [EMFILE ENFILE ENODEV ENOMEM ENOSYS];
    pidfd_send_signal SYS_pidfd_send_signal Number(1), "" => [ENOSYS EPERM ESRCH];
    pidfd_getfd SYS_pidfd_getfd Nothing, "" => [EMFILE ENOSYS EPERM];
    process_vm_readv SYS_process_vm_readv Nothing, "" => [ENOMEM ENOSYS EPERM];
    // PR_SET_CHILD_SUBREAPER is unknown to Linux before 3.4, and names and deaths of parents cannot fail.
    prctl SYS_prctl Number(0), "36" => [EINVAL];
    prctl SYS_prctl Number(0), "" => [];
    // A process that was just forked leads no group.
    setsid SYS_setsid Nothing, "" => [];
    setpgid SYS_setpgid Nothing, "" => [];
    getpgid SYS_getpgid Nothing, "" => [];
    getpgrp SYS_getpgrp Nothing, "" => [];
    getsid SYS_getsid Nothing, "" => [];
    setgroups SYS_setgroups Nothing, "" => [ENOMEM EPERM];
    setgid SYS_setgid Nothing, "" => [EPERM];
    setuid SYS_setuid Nothing, "" => [EAGAIN EPERM];
    setresgid SYS_setresgid Nothing, "" => [EPERM];
    setresuid SYS_setresuid Nothing, "" => [EAGAIN EPERM];
    setpriority SYS_setpriority Nothing, "" => [EACCES EPERM];
    getpid SYS_getpid Nothing, "" => [];
    gettid SYS_gettid Nothing, "" => [];
    set_tid_address SYS_set_tid_address Nothing, "" => [];
    getppid SYS_getppid Nothing, "" => [];
    getuid SYS_getuid Nothing, "" => [];
    geteuid SYS_geteuid Nothing, "" => [];
    getgid SYS_getgid Nothing, "" => [];
    getegid SYS_getegid Nothing, "" => [];
    getgroups SYS_getgroups Nothing, "" => [];
    getresuid SYS_getresuid Nothing, "" => [];
    getresgid SYS_getresgid Nothing, "" => [];
    capget SYS_capget Nothing, "" => [];
    prlimit64 SYS_prlimit64 Nothing, "" => [];
    sched_getaffinity SYS_sched_getaffinity Nothing, "" => [];
    sched_yield SYS_sched_yield Nothing, "" => [];
    uname SYS_uname Nothing, "" => [];
    sysinfo SYS_sysinfo Nothing, "" => [];
    set_robust_list SYS_set_robust_list Nothing, "" => [];
    rseq SYS_rseq Nothing, "" => [];
    futex SYS_futex Nothing, "" => [];
    exit SYS_exit Nothing, "" => [];
    exit_group SYS_exit_group Nothing, "" => [];

    // Signals.
    rt_sigaction SYS_rt_sigaction Nothing, "" => [];
    rt_sigprocmask SYS_rt_sigprocmask Nothing, "" => [];
    rt_sigreturn SYS_rt_sigreturn Nothing, "" => [];
    restart_syscall SYS_restart_syscall Nothing, "" => [];
    sigaltstack SYS_sigaltstack Nothing, "" => [];

    // Memory.
    brk SYS_brk Nothing, "" => [ENOMEM];
    mmap SYS_mmap Nothing, "" => [ENOMEM];
    mremap SYS_mremap Nothing, "" => [ENOMEM];
    munmap SYS_munmap Nothing, "" => [ENOMEM];
    mprotect SYS_mprotect Nothing, "" => [ENOMEM];
    madvise SYS_madvise Nothing, "" => [ENOMEM];
    // GRND_INSECURE is unknown to Linux before 5.6; without GRND_NONBLOCK it may wait.
    getrandom SYS_getrandom Number(2), "4" => [EINVAL ENOSYS];
    getrandom SYS_getrandom Number(2), "1" => [EAGAIN ENOSYS];
    getrandom SYS_getrandom Number(2), "" => [EINTR ENOSYS];
};

/// A call as the table knows it: what it is about, and the errnos with which it can fail.
pub struct Known {
    pub about: String,
    pub errnos: &'static [Errno],
}

/// Describes the call that this process has just begun; the number where the table lacks it.
pub fn describe(tracee: &Tracee, number: i64, arguments: [u64; 6]) -> Result<Known, i64> {
    let mut about = None;
    for row in TABLE {
        if row.number != number {
            continue;
        }
        let about = about.get_or_insert_with(|| show(tracee, row.shown, arguments));
        if about.contains(row.uses) {
            return Ok(Known {
                about: std::mem::take(about),
                errnos: row.errnos,
            });
        }
    }
    Err(number)
}

fn show(tracee: &Tracee, shown: Shown, arguments: [u64; 6]) -> String {
    // The kernel takes an `int` from the lower half.
    let int = |at: usize| i32::try_from(signed(arguments[at] << 32) >> 32).unwrap_or_default();
    // A path that begins at a descriptor is shown whole.
    let path = |at: usize| {
        let path = tracee.text(arguments[at]);
        match at.checked_sub(1).map(int) {
            None | Some(libc::AT_FDCWD) => path,
            Some(directory) if path.is_empty() => format!("fd {}", tracee.descriptor(directory)),
            Some(_) if path.starts_with('/') => path,
            Some(directory) => format!("{}/{path}", tracee.descriptor(directory)),
        }
    };
    match shown {
        Shown::Nothing => String::new(),
        Shown::Path(at) => path(at),
        Shown::Open(at) => {
            let path = path(at);
            let flags = int(at + 1);
            let mode = if flags & libc::O_CREAT != 0 {
                ", create"
            } else if flags & libc::O_ACCMODE != libc::O_RDONLY {
                ", write"
            } else {
                ""
            };
            path + mode
        }
        Shown::Fd(at) => tracee.descriptor(int(at)),
        Shown::Closed => {
            let shown = tracee.descriptor(int(0));
            let is_file = !shown.starts_with("/proc/")
                && !shown.starts_with("/sys/")
                && std::fs::metadata(tracee.link(int(0))).is_ok_and(|it| it.is_file());
            if is_file {
                format!("file {shown}")
            } else {
                shown
            }
        }
        Shown::Command => {
            let command = match int(1) {
                libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => "F_DUPFD",
                libc::F_SETLK | libc::F_OFD_SETLK => "F_SETLK",
                libc::F_SETLKW | libc::F_OFD_SETLKW => "F_SETLKW",
                libc::F_GETLK | libc::F_OFD_GETLK => "F_GETLK",
                _ => "flags",
            };
            format!("{command} {}", tracee.descriptor(int(0)))
        }
        Shown::Epoll => {
            let operation = match int(1) {
                libc::EPOLL_CTL_ADD => "ADD",
                libc::EPOLL_CTL_MOD => "MOD",
                _ => "DEL",
            };
            format!("{operation} {}", tracee.descriptor(int(2)))
        }
        Shown::Domain => match int(0) {
            libc::AF_UNIX => "unix".into(),
            libc::AF_NETLINK => "netlink".into(),
            libc::AF_INET | libc::AF_INET6 => "inet".into(),
            other => other.to_string(),
        },
        Shown::Number(at) => int(at).to_string(),
    }
}

/// The name of a call.
pub fn name(number: i64) -> &'static str {
    TABLE
        .iter()
        .find(|row| row.number == number)
        .map_or("?", |row| row.name)
}

/// Whether this errno is about the server and not about our own side: then a healthy server may be restarted.
pub fn blames_the_server(name: &str, errno: Errno) -> bool {
    matches!(
        name,
        "connect" | "sendto" | "sendmsg" | "writev" | "recvfrom" | "recvmsg"
    ) && matches!(errno, ECONNREFUSED | ECONNRESET | EPIPE | ETIMEDOUT)
}

/// Whether this errno leaves no way: an allocation that fails ends the process.
pub fn leaves_no_way(name: &str, errno: Errno) -> bool {
    matches!(name, "brk" | "mmap" | "mremap") && errno == ENOMEM
}
