//! Whom the kernel's OOM killer ended: the kernel log (`/dev/kmsg`, Documentation/ABI/testing/dev-kmsg).

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use nix::libc;

/// No more records are read.
const MOST_RECORDS: usize = 20_000;

/// A process that the kernel ended for want of memory.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Victim {
    pub(crate) pid: i32,
    pub(crate) name: String,
    pub(crate) ago: Duration,
}

/// The last interpreter that was ended so; none where the kernel log cannot be read.
pub(crate) fn last_interpreter() -> Option<Victim> {
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    let uptime = Duration::try_from_secs_f64(uptime).ok()?;
    let mut log = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/kmsg")
        .ok()?;
    let mut record = [0; 8192];
    let mut last = None;
    for _ in 0..MOST_RECORDS {
        match log.read(&mut record) {
            Ok(length) => {
                let text = String::from_utf8_lossy(&record[..length]);
                last = victim(&text, uptime).or(last);
            }
            // Records that were overwritten meanwhile.
            Err(reason) if reason.raw_os_error() == Some(libc::EPIPE) => {}
            Err(_) => break,
        }
    }
    last
}

/// `LEVEL,NUMBER,MICROSECONDS,FLAGS;Out of memory: Killed process PID (NAME) …`
fn victim(record: &str, uptime: Duration) -> Option<Victim> {
    let (head, text) = record.split_once(';')?;
    let at = Duration::from_micros(head.split(',').nth(2)?.parse().ok()?);
    let (_, killed) = text.split_once("ut of memory: Killed process ")?;
    let (pid, rest) = killed.split_once(" (")?;
    let (name, _) = rest.split_once(')')?;
    let is_interpreter = name.starts_with("python") || name.starts_with("pypy");
    is_interpreter.then(|| {
        Some(Victim {
            pid: pid.parse().ok()?,
            name: name.to_owned(),
            ago: uptime.saturating_sub(at),
        })
    })?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_names_its_victims() {
        let uptime = Duration::from_secs(100);
        let of =
            |record: &str| victim(record, uptime).map(|victim| (victim.pid, victim.ago.as_secs()));
        for (record, expected) in [
            (
                "3,9,60000000,-;Out of memory: Killed process 812 (python3) total-vm:1kB\n",
                Some((812, 40)),
            ),
            (
                "3,9,99000000,-;Memory cgroup out of memory: Killed process 7 (python3.11) total-vm:1kB\n",
                Some((7, 1)),
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
    }
}
