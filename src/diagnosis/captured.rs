//! A captured /proc for tests: a temporary directory with the files that a test names.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::proc::process::Proc;

/// A server, PID 7, that listens on 127.0.0.1:9143 (socket 81) and has a client, 10.0.0.7:51234
/// (socket 82), whose FIN has come, and a connection to 10.0.0.7:389 (socket 83).
const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:23B7 00000000:0000 0A 00000000:00000003 00:00000000 00000000  1000        0 81 1 0000000000000000 100 0 0 10 0
   1: 0100007F:23B7 0700000A:C822 08 00000005:00000000 00:00000000 00000000  1000        0 82 1 0000000000000000 100 0 0 10 0
   2: 0100007F:B000 0700000A:0185 02 00000000:00000000 00:00000000 00000000  1000        0 83 1 0000000000000000 100 0 0 10 0
";

/// The directory; it is removed with this.
pub(super) struct Captured(TempDir);

impl Captured {
    /// A /proc with sockets and no process.
    pub(super) fn new() -> Self {
        let captured = Self(tempfile::tempdir().unwrap());
        captured.file("self/net/tcp", TCP);
        captured.file("uptime", "1000.00 2000.00\n");
        captured.file("loadavg", "0.50 0.40 0.30 2/345 99\n");
        let others = "MemFree Buffers Cached SwapCached Active Inactive SwapTotal SwapFree Dirty Writeback AnonPages Mapped Shmem Slab \
                      SReclaimable SUnreclaim KernelStack PageTables NFS_Unstable Bounce WritebackTmp CommitLimit Committed_AS VmallocTotal VmallocUsed VmallocChunk";
        let others = others.split(' ').map(|name| format!("{name}: 0 kB\n"));
        let memory = "MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\n";
        captured.file(
            "meminfo",
            &(memory.to_owned() + &others.collect::<String>()),
        );
        captured.file(
            "pressure/cpu",
            "some avg10=12.00 avg60=0.00 avg300=0.00 total=0\n",
        );
        captured.file(
            "pressure/memory",
            "some avg10=9.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=3.00 avg60=0.00 avg300=0.00 total=0\n",
        );
        captured.file("pressure/io", "some avg10=9.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=4.00 avg60=0.00 avg300=0.00 total=0\n");
        captured
    }

    /// A process with one thread, which is blocked in this system call.
    pub(super) fn process(&self, pid: i32, state: char, argv: &str, syscall: &str) {
        let comm = argv.split('\0').next().unwrap();
        let zeros = " 0".repeat(30);
        let stat = format!(
            "{pid} ({comm}) {state} 1 7 7 0 -1 4194304 0 0 0 0 300 100 0 0 20 0 1 0 500{zeros}\n"
        );
        let status = format!(
            "Name:\t{comm}\nTgid:\t{pid}\nPid:\t{pid}\nTracerPid:\t0\nUid:\t1000\t1000\t1000\t1000\n\
             Gid:\t1000\t1000\t1000\t1000\nNSpid:\t{pid}\nVmRSS:\t    4096 kB\nVmSwap:\t    1024 kB\n"
        );
        for (name, text) in [
            ("stat", stat.as_str()),
            ("status", status.as_str()),
            ("cmdline", argv),
            ("wchan", "wait_woken"),
            (
                "limits",
                "Max open files            64                   64                   files\n",
            ),
            (&format!("task/{pid}/stat"), stat.as_str()),
            (&format!("task/{pid}/children"), ""),
            (&format!("task/{pid}/syscall"), syscall),
            (
                &format!("task/{pid}/schedstat"),
                "4000000000 1000000000 9\n",
            ),
        ] {
            self.file(&format!("{pid}/{name}"), text);
        }
        fs::create_dir(self.0.path().join(format!("{pid}/fd"))).unwrap();
        fs::create_dir(self.0.path().join(format!("{pid}/fdinfo"))).unwrap();
    }

    /// A file with this text.
    pub(super) fn file(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A link, such as a descriptor or a working directory.
    pub(super) fn link(&self, path: &str, target: &str) {
        std::os::unix::fs::symlink(target, self.0.path().join(path)).unwrap();
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(super) fn proc(&self) -> Proc<'_> {
        Proc(self.path())
    }
}

/// What a thread's file `syscall` shows of this system call and its first argument.
pub(super) fn blocked_in(number: nix::libc::c_long, first: u64) -> String {
    format!("{number} {first:#x} 0x0 0x0 0x0 0x0 0x0 0x7ffd 0x7f00\n")
}
