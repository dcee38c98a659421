//! The last check of one server: 40 bytes, which every run overwrites. The file's modification time is
//! that of the check.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, OFlags, Stat};
use serde::{Deserialize, Serialize};

use super::time::Time;
use super::{MODE, READ_TIMEOUT, WRITE_TIMEOUT, file};
use crate::sys::{bounded, cached};
use crate::text::errno_text;

/// Length of the file, in bytes.
const LENGTH: usize = 40;
/// The least time without a run after which a server counts as unwatched.
const LEAST_STALE: Duration = Duration::from_secs(180);
/// So many intervals without a run are too many.
const STALE_INTERVALS: u32 = 3;
/// Largest gap that is written, in seconds.
const LONGEST_GAP: u64 = 9_999_999_999;
/// Longest check that is written, in milliseconds.
const LONGEST_CHECK: u128 = 9_999_999;
/// How far a time of the state may be in the future before it is absurd.
const CLOCK_STEP: Duration = Duration::from_secs(300);

/// What the last check found.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Last {
    /// Whether the server answered, and with a healthy status.
    pub(crate) is_up: bool,
    /// The HTTP status; 0 where there was no answer.
    pub(crate) status: u16,
    /// How long the check took, in whole milliseconds.
    pub(crate) took: Duration,
    /// Seconds between runs: the smaller of the last two gaps; 0 where there was no run before.
    pub(crate) interval: u64,
    /// Seconds between this run and the one before it; 0 where there was none.
    pub(crate) gap: u64,
}

/// The last check, and when it was.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Checked {
    pub(crate) last: Last,
    pub(crate) at: Time,
}

impl Last {
    /// The record of a check now, after that one before it.
    pub(crate) fn new(
        is_up: bool,
        status: u16,
        took: Duration,
        before: Option<&Checked>,
        now: Time,
    ) -> Self {
        let gap = before.and_then(|before| before.at.before(now));
        let gap = gap.map_or(0, |gap| gap.as_secs()).min(LONGEST_GAP);
        let earlier = before.map_or(0, |before| before.last.gap);
        let interval = match (earlier, gap) {
            (0, gap) | (gap, 0) => gap,
            (earlier, gap) => gap.min(earlier),
        };
        Self {
            is_up,
            status,
            took,
            interval,
            gap,
        }
    }

    /// `ok 200 0.012 60 61` or `down 0 10.000 60 61`, padded to 39 characters, and a newline.
    pub(crate) fn render(&self) -> [u8; LENGTH] {
        let word = if self.is_up { "ok" } else { "down" };
        let millis = self.took.as_millis().min(LONGEST_CHECK);
        let text = format!(
            "{word} {} {}.{:03} {} {}",
            self.status.min(999),
            millis / 1000,
            millis % 1000,
            self.interval.min(LONGEST_GAP),
            self.gap.min(LONGEST_GAP),
        );
        let mut bytes = [b' '; LENGTH];
        for (byte, written) in bytes.iter_mut().zip(text.bytes()) {
            *byte = written;
        }
        bytes[LENGTH - 1] = b'\n';
        bytes
    }

    /// Reads what `render` writes, and words that a newer version adds; none where it is anything else.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(text).ok()?.split_ascii_whitespace();
        let is_up = match words.next()? {
            "ok" => true,
            "down" => false,
            _ => return None,
        };
        let status = words.next()?.parse().ok()?;
        let took = words.next()?.parse().ok()?;
        Some(Self {
            is_up,
            status,
            took: Duration::try_from_secs_f64(took).ok()?,
            interval: words.next()?.parse().ok()?,
            gap: words.next()?.parse().ok()?,
        })
    }

    /// How long after it the next run is overdue: three intervals, at least 3 minutes.
    pub(crate) fn stale_after(&self) -> Duration {
        let interval = Duration::from_secs(self.interval.min(LONGEST_GAP));
        (interval * STALE_INTERVALS).max(LEAST_STALE)
    }
}

impl Checked {
    /// How long nobody has watched the server, if the next run is overdue.
    pub(crate) fn unwatched(&self, now: Time) -> Option<Duration> {
        let ago = self.at.before(now)?;
        (ago > self.last.stale_after()).then_some(ago)
    }

    /// Whether the next run is overdue, or the time of the check makes no sense.
    pub(crate) fn is_stale(&self, now: Time) -> bool {
        self.unwatched(now).is_some() || self.at > now.after(CLOCK_STEP)
    }
}

/// Reads the file, without a time limit; none where it is missing or makes no sense.
///
/// # Errors
/// It cannot be read, is not a regular file, or belongs to somebody other than root and us.
pub(crate) fn read(path: &Path) -> io::Result<Option<Checked>> {
    let (file, stat) = match file::open(path, OFlags::RDONLY) {
        Err(reason) if reason.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut text = [0; LENGTH];
    let read = file.read_at(&mut text, 0)?;
    Ok(checked(&text[..read], &stat))
}

fn checked(text: &[u8], stat: &Stat) -> Option<Checked> {
    let at = Time(u64::try_from(stat.st_mtime).ok()?);
    Last::parse(text).map(|last| Checked { last, at })
}

/// The file of one server, for a run: read at its start and written at its end.
#[derive(Debug)]
pub(crate) struct LastFile {
    path: PathBuf,
    /// The open file, if writing it waits for no other disk than the log's.
    file: Option<File>,
    /// What the run before found.
    pub(crate) before: Option<Checked>,
}

impl LastFile {
    /// Reads the file, with few system calls if it is in the page cache. `log`: the device of the log.
    pub(crate) async fn open(path: PathBuf, log: Option<u64>) -> Self {
        let (file, before) = if let Some(quick) = quick(&path, log) {
            quick
        } else {
            let read = bounded::ask(READ_TIMEOUT, || read(&path).ok().flatten()).await;
            (None, read.ok().flatten().flatten())
        };
        Self { path, file, before }
    }

    /// Writes what this run found. One system call if the file was in the page cache, on the disk of the log.
    ///
    /// # Errors
    /// It cannot be written, for this reason.
    pub(crate) async fn write(&self, last: &Last) -> Result<(), String> {
        let text = last.render();
        if let Some(file) = &self.file {
            let written = file.write_all_at(&text, 0);
            return written.map_err(|reason| errno_text(&reason));
        }
        let write = || {
            let (file, _) = file::open_or_make(&self.path, OFlags::WRONLY, MODE)?;
            file.write_all_at(&text, 0)?;
            file.set_len(LENGTH as u64)
        };
        bounded::on_disk(WRITE_TIMEOUT, write).await
    }
}

/// Reads the file without waiting for a disk, and keeps it open if that holds for writing it too, apart from the disk
/// of `log`. None where it cannot be read so, and where it has another length than it should.
fn quick(path: &Path, log: Option<u64>) -> Option<(Option<File>, Option<Checked>)> {
    let flags = file::flags(OFlags::RDWR);
    let file = File::from(cached::open(CWD, path, flags).ok()?);
    let stat = file::check(&file).ok()?;
    if usize::try_from(stat.st_size) != Ok(LENGTH) || stat.st_nlink > 1 {
        return None;
    }
    let mut text = [0; LENGTH];
    let read = cached::read(&file, &mut text).ok()?;
    let before = checked(text.get(..read)?, &stat);
    let is_quick = cached::writes_at_once(&file, stat.st_dev, log);
    Some((is_quick.then_some(file), before))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const NOW: Time = Time(1_764_052_868);

    fn last(is_up: bool, status: u16, millis: u64) -> Last {
        Last::new(is_up, status, Duration::from_millis(millis), None, NOW)
    }

    fn ago(seconds: u64, last: Last) -> Checked {
        let at = Time(NOW.0 - seconds);
        Checked { last, at }
    }

    #[test]
    fn a_check_is_written_as_40_bytes_and_read_again() {
        let before = ago(60, last(true, 200, 12));
        let ok = Last::new(true, 200, Duration::from_millis(12), Some(&before), NOW);
        let text = ok.render();
        assert_eq!(
            std::str::from_utf8(&text).unwrap(),
            format!("{:39}\n", "ok 200 0.012 60 60")
        );
        assert_eq!(Last::parse(&text), Some(ok));
        let widest = Last {
            is_up: false,
            status: 999,
            took: Duration::from_millis(9_999_999),
            interval: u64::MAX,
            gap: u64::MAX,
        };
        let shown = widest.render();
        assert_eq!(&shown[..], b"down 999 9999.999 9999999999 9999999999\n");
        assert_eq!(Last::parse(&shown).unwrap().took, widest.took);
    }

    #[test]
    fn what_is_no_check_is_none() {
        for text in [
            "",
            "ok",
            "up 200 0.012 60 60",
            "ok 200 0.012 60",
            "ok -1 0.012 60 60",
            "ok 200 NaN 60 60",
            "ok 200 -1 60 60",
            "ok 200 1e300 60 60",
            "ok 200 0.012 60 99999999999999999999",
        ] {
            assert_eq!(Last::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Last::parse(&[0xff; 40]), None);
        assert!(Last::parse(b"down 0 10.000 60 60 new").is_some());
    }

    #[test]
    fn the_interval_is_the_smaller_of_the_last_two_gaps() {
        let mut last = last(true, 200, 12);
        assert_eq!((last.interval, last.gap), (0, 0));
        for (gap, interval) in [(60, 60), (7, 7), (53, 7), (61, 53), (86_400, 61), (60, 60)] {
            let before = ago(gap, last);
            last = Last::new(true, 200, Duration::ZERO, Some(&before), NOW);
            assert_eq!((last.interval, last.gap), (interval, gap));
        }
    }

    #[test]
    fn a_run_is_overdue_after_three_intervals_and_at_least_three_minutes() {
        for (interval, limit) in [(0, 180), (20, 180), (60, 180), (61, 183), (3600, 10_800)] {
            let mut last = last(true, 200, 12);
            last.interval = interval;
            assert_eq!(ago(limit, last).unwatched(NOW), None, "{interval}");
            let late = ago(limit + 1, last);
            assert_eq!(late.unwatched(NOW).unwrap().as_secs(), limit + 1);
            assert!(late.is_stale(NOW));
        }
        let at = |seconds| Checked {
            last: last(true, 200, 12),
            at: Time(NOW.0 + seconds),
        };
        assert!(!at(300).is_stale(NOW), "the clock was set back");
        assert!(at(301).is_stale(NOW) && at(301).unwatched(NOW).is_none());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_run_reads_what_the_one_before_has_written() {
        let directory = tempfile::tempdir().unwrap();
        let log = cached::device(File::open(directory.path()).unwrap());
        let path = directory.path().join("new/x.last");
        let file = LastFile::open(path.clone(), log).await;
        assert_eq!(file.before, None);
        file.write(&last(true, 200, 12)).await.unwrap();
        let file = LastFile::open(path.clone(), log).await;
        assert_eq!(file.before.unwrap().last, last(true, 200, 12));
        file.write(&last(false, 0, 10_000)).await.unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("{:39}\n", "down 0 10.000 0 0"));
        assert_eq!(read(&path).unwrap().unwrap().last, last(false, 0, 10_000));
        std::fs::write(&path, "garbage\n".repeat(100)).unwrap();
        let file = LastFile::open(path.clone(), log).await;
        assert_eq!(file.before, None);
        file.write(&last(true, 200, 12)).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 40);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn nothing_but_a_file_is_read_or_written() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::fs::write(at("file"), last(true, 200, 12).render()).unwrap();
        std::os::unix::fs::symlink(at("file"), at("link")).unwrap();
        std::fs::create_dir(at("directory")).unwrap();
        for name in ["fifo", "link", "directory"] {
            let file = LastFile::open(at(name), None).await;
            assert_eq!(file.before, None, "{name}");
            assert!(file.write(&last(false, 0, 1)).await.is_err(), "{name}");
        }
        assert_eq!(read(&at("missing")).unwrap(), None);
        assert_eq!(
            std::fs::read(at("file")).unwrap(),
            last(true, 200, 12).render()
        );
    }
}
