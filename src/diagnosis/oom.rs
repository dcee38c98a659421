//! Whom the kernel's OOM killer ended: the kernel log (`/dev/kmsg`, Documentation/ABI/testing/dev-kmsg)
//! and the events of the server's control group (Documentation/admin-guide/cgroup-v2.rst, `memory.events`).

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use nix::libc;

use crate::proc::cgroup;
use crate::state::KnownServer;

/// Records that are read, at most.
const MOST_RECORDS: usize = 20_000;

/// The number of `/proc/self/ns/pid` in the initial PID namespace (`PROC_PID_INIT_INO`, include/linux/proc_ns.h).
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";

/// What the kernel ended for want of memory.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Victim {
    /// A process of the kernel log.
    Process {
        /// None if the kernel's log numbers it in another PID namespace than ours.
        pid: Option<i32>,
        name: String,
        ago: Duration,
        /// Whether that was the server as we last started it.
        is_known: bool,
    },
    /// A process of the control group in which we last started the server.
    InGroup(String),
}

/// The last of them that can have been the server; none where neither can be read.
pub(super) fn last_victim(known: &KnownServer) -> Option<Victim> {
    in_kernel_log(known).or_else(|| {
        let (group, kills) = known.group.as_ref().zip(known.oom)?;
        (cgroup::oom_kills(group)? > kills).then(|| Victim::InGroup(group.clone()))
    })
}

fn in_kernel_log(known: &KnownServer) -> Option<Victim> {
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    let uptime = Duration::try_from_secs_f64(uptime).ok()?;
    let mut log = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/kmsg")
        .ok()?;
    let mut record = [0; 8192];
    let namespace = std::fs::read_link("/proc/self/ns/pid").ok()?;
    let numbers_are_ours = namespace.as_os_str() == INITIAL_PID_NAMESPACE;
    let mut last = None;
    for _ in 0..MOST_RECORDS {
        match log.read(&mut record) {
            Ok(length) => {
                let text = String::from_utf8_lossy(&record[..length]);
                last = victim(&text, uptime, known, numbers_are_ours).or(last);
            }
            // Records that were overwritten meanwhile.
            Err(reason) if reason.raw_os_error() == Some(libc::EPIPE) => {}
            Err(_) => break,
        }
    }
    last
}

/// `LEVEL,NUMBER,MICROSECONDS,FLAGS;Out of memory: Killed process PID (NAME) …`, where that is the
/// server as we know it, or else any interpreter. The kernel's log has the PIDs of the initial PID namespace.
fn victim(
    record: &str,
    uptime: Duration,
    known: &KnownServer,
    numbers_are_ours: bool,
) -> Option<Victim> {
    let (head, text) = record.split_once(';')?;
    let at = Duration::from_micros(head.split(',').nth(2)?.parse().ok()?);
    let (_, killed) = text.split_once("ut of memory: Killed process ")?;
    let (pid, rest) = killed.split_once(" (")?;
    let (name, _) = rest.split_once(')')?;
    let pid: i32 = pid.parse().ok()?;
    let pid = numbers_are_ours.then_some(pid);
    let is_known = pid.is_some_and(|pid| known.pids.contains(&pid));
    let is_interpreter = name.starts_with("python") || name.starts_with("pypy");
    (is_known || is_interpreter).then(|| Victim::Process {
        pid,
        name: name.to_owned(),
        ago: uptime.saturating_sub(at),
        is_known,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_names_its_victims() {
        let uptime = Duration::from_secs(100);
        let known = KnownServer {
            pids: vec![9],
            ..KnownServer::default()
        };
        let of = |record: &str| match victim(record, uptime, &known, true) {
            Some(Victim::Process {
                pid, ago, is_known, ..
            }) => Some((pid?, ago.as_secs(), is_known)),
            _ => None,
        };
        for (record, expected) in [
            (
                "3,9,60000000,-;Out of memory: Killed process 812 (python3) total-vm:1kB\n",
                Some((812, 40, false)),
            ),
            (
                "3,9,99000000,-;Memory cgroup out of memory: Killed process 7 (python3.11) total-vm:1kB\n",
                Some((7, 1, false)),
            ),
            (
                "3,9,60000000,-;Out of memory: Killed process 9 (myvnc) total-vm:1kB\n",
                Some((9, 40, true)),
            ),
            (
                "3,9,60000000,-;Out of memory: Killed process 812 (firefox) total-vm:1kB\n",
                None,
            ),
            ("6,9,60000000,-;eth0: link up\n", None),
            ("", None),
        ] {
            assert_eq!(of(record), expected, "{record}");
        }
        let record = "3,9,60000000,-;Out of memory: Killed process 9 (python3) total-vm:1kB\n";
        let in_container = victim(record, uptime, &known, false);
        let expected = Victim::Process {
            pid: None,
            name: "python3".to_owned(),
            ago: Duration::from_secs(40),
            is_known: false,
        };
        assert_eq!(in_container, Some(expected));
    }
}
