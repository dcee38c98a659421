//! The last minutes of the server's own log.

use std::ffi::OsString;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use chrono::{Local, NaiveDate, NaiveDateTime, TimeDelta};
use procfs::process::FDTarget;

use crate::defaults;
use crate::lock::RunLock;
use crate::proc::fd_owners;
use crate::proc::process::Proc;
use crate::sys::bounded;
use crate::sys::files::{self, Shown};

/// Lines that are shown, at most.
const MOST_LINES: usize = 200;
/// Files of one place that are tried, at most; the newest first.
const MOST_TRIES: usize = 8;
/// Bytes that are read from the end of a log.
const TAIL: u64 = 256 << 10;

/// Time limit of the search for a log that the server holds open.
const LOOK_TIMEOUT: Duration = Duration::from_millis(500);

/// Where to search for the server's log, and how much of it to show.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// The log that the server held open when it was recorded.
    pub(crate) known: Option<PathBuf>,
    /// Pattern of `--server-log` (`glob(7)`).
    pub(crate) pattern: Option<String>,
    /// The directory of the logs in the server's configuration. It replaces the usual directories.
    pub(crate) logdir: Option<PathBuf>,
    /// How far back.
    pub(crate) history: Duration,
    /// The monitor's own files, which are not the server's, whoever holds them open.
    pub(crate) ours: Vec<PathBuf>,
    /// The server's user.
    pub(crate) owner: Option<u32>,
}

/// The newest log of the server and its lines; none if there is none. The first place that has one counts:
/// the server's open files, the record, `--server-log`, MyVNC's own directories.
pub(super) fn last(open: &[PathBuf], wanted: &Wanted) -> Option<(PathBuf, Vec<String>)> {
    let open: Vec<PathBuf> = open.iter().filter(|path| is_log(path)).cloned().collect();
    let named = wanted.pattern.iter().map(String::as_str).flat_map(matches);
    let configured = wanted.logdir.as_deref().and_then(logs_in);
    let usual: &[&str] = if configured.is_some() {
        &[]
    } else {
        &defaults::SERVER_LOGS
    };
    let usual = usual.iter().copied().chain(configured.as_deref());
    let usual = usual.flat_map(matches);
    newest(open, wanted)
        .or_else(|| newest(wanted.known.clone(), wanted))
        .or_else(|| newest(named, wanted))
        .or_else(|| newest(usual, wanted))
}

/// The pattern of MyVNC's logs in a directory.
fn logs_in(logdir: &Path) -> Option<String> {
    let logdir = glob::Pattern::escape(logdir.to_str()?);
    Some(format!("{logdir}/myvnc_*.log"))
}

fn is_log(path: &Path) -> bool {
    path.extension().is_some_and(|kind| kind == "log")
}

/// The log that a process holds open; none where its disk does not answer in time.
pub(crate) async fn open_log(pid: i32) -> Option<PathBuf> {
    let looking = bounded::ask(LOOK_TIMEOUT, || {
        let open = fd_owners::descriptors(Proc::here(), pid)
            .unwrap_or_default()
            .into_iter();
        let mut paths = open.filter_map(|one| match one.target {
            FDTarget::Path(path) => Some(path),
            _ => None,
        });
        let log = paths.find(|path| is_log(path) && !is_a_monitors(path));
        log.map(OsString::from)
    });
    looking.await.ok().flatten().flatten().map(PathBuf::from)
}

fn matches(pattern: &str) -> impl Iterator<Item = PathBuf> {
    glob::glob(pattern).into_iter().flatten().flatten()
}

fn newest(
    paths: impl IntoIterator<Item = PathBuf>,
    wanted: &Wanted,
) -> Option<(PathBuf, Vec<String>)> {
    // These times only say which to try first: what is shown is decided by the open file.
    let mut dated: Vec<_> = paths
        .into_iter()
        .filter(|path| !wanted.ours.contains(path) && !is_a_monitors(path))
        .filter_map(|path| {
            Some((
                std::fs::symlink_metadata(&path).ok()?.modified().ok()?,
                path,
            ))
        })
        .collect();
    dated.sort();
    let newest = dated.into_iter().rev().take(MOST_TRIES);
    let mut shown = newest.filter_map(|(_, path)| Some((tail(&path, wanted)?, path)));
    shown.next().map(|(lines, path)| (path, lines))
}

/// Whether a monitor writes this log, this one or one with another log.
fn is_a_monitors(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    name.ends_with(b".restart.log") || RunLock::path(path).exists()
}

/// Our log is read by others than root: a file that not all can read is shown only if it is one of
/// the server's user, and if nobody else could have put it there.
fn may_show(shown: &Shown, owner: Option<u32>) -> bool {
    shown.is_public || shown.is_its_owners && owner == Some(shown.metadata.uid())
}

fn tail(path: &Path, wanted: &Wanted) -> Option<Vec<String>> {
    let shown = files::open_to_show(path).ok()?;
    if !may_show(&shown, wanted.owner) {
        return None;
    }
    let Shown {
        mut file, metadata, ..
    } = shown;
    let start = metadata.len().saturating_sub(TAIL);
    file.seek(SeekFrom::Start(start)).ok()?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let is_fresh = SystemTime::now()
        .duration_since(metadata.modified().ok()?)
        .is_ok_and(|age| age <= wanted.history);
    let since = Local::now().naive_local() - TimeDelta::from_std(wanted.history).ok()?;
    Some(recent(&text, since, is_fresh))
}

/// The lines from the first one on that is dated since then; without any date, all or none.
fn recent(text: &str, since: NaiveDateTime, is_fresh: bool) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let dates: Vec<_> = lines.iter().map(|line| date(line)).collect();
    let start = if dates.iter().all(Option::is_none) {
        if is_fresh { 0 } else { lines.len() }
    } else {
        let first = dates
            .iter()
            .position(|date| date.is_some_and(|date| date >= since));
        first.unwrap_or(lines.len())
    };
    let wanted = &lines[start..];
    let last = &wanted[wanted.len().saturating_sub(MOST_LINES)..];
    last.iter().map(|line| (*line).to_owned()).collect()
}

/// The date that a line begins with, with or without a bracket before it: `2026-11-17 12:28:45`.
fn date(line: &str) -> Option<NaiveDateTime> {
    let text = line.trim_start_matches('[').get(..19)?;
    let mut numbers = text.split(['-', ' ', 'T', ':']).map(str::parse);
    let mut number = || numbers.next()?.ok();
    let (year, month, day): (u32, u32, u32) = (number()?, number()?, number()?);
    let day = NaiveDate::from_ymd_opt(year.try_into().ok()?, month, day)?;
    day.and_hms_opt(number()?, number()?, number()?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::fuzz::{fuzz, linear};

    #[test]
    fn lines_since_a_time_with_what_follows_them() {
        let since = date("2026-01-01 10:00:00").unwrap();
        let text = "2026-01-01 09:59:59,1 old\n[2026-01-01 10:00:01] new\n  traceback\n2026-01-01T10:00:02 last\n";
        let expected = [
            "[2026-01-01 10:00:01] new",
            "  traceback",
            "2026-01-01T10:00:02 last",
        ];
        assert_eq!(recent(text, since, false), expected);
        assert_eq!(recent("a\nb\n", since, true), ["a", "b"]);
        assert!(recent("a\nb\n", since, false).is_empty());
        assert!(recent("2026-01-01 09:00:00 a\n", since, true).is_empty());
        let many = "2026-01-01 10:00:00 x\n".repeat(500);
        assert_eq!(recent(&many, since, true).len(), MOST_LINES);
        assert!(recent("", since, true).is_empty());
        for none in [
            "2026-13-01 10:00:00",
            "2026-01-01 10:00",
            "10:00:00 2026-01-01",
            "a-b-c d:e:f g h i j",
        ] {
            assert_eq!(date(none), None, "{none}");
        }
    }

    fn wanted(ours: &Path) -> Wanted {
        Wanted {
            known: None,
            pattern: None,
            logdir: None,
            history: Duration::from_secs(120),
            ours: vec![ours.to_owned()],
            owner: Some(nix::unistd::Uid::effective().as_raw()),
        }
    }

    #[test]
    fn hazard_21_a_monitors_own_files_are_never_the_servers() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let ours = at("myvnc-monitor.log");
        let wanted = wanted(&ours);
        for name in [
            "myvnc-monitor.log",
            "other.log",
            ".other.lock",
            "m.restart.log",
        ] {
            std::fs::write(at(name), "ours\n").unwrap();
        }
        let pattern = at("*.log").to_str().unwrap().to_owned();
        let by_pattern = Wanted {
            pattern: Some(pattern),
            ..wanted.clone()
        };
        let open = [ours.clone(), at("other.log"), at("m.restart.log")];
        assert_eq!(newest(open.clone(), &wanted), None);
        assert_eq!(
            newest(matches(by_pattern.pattern.as_ref().unwrap()), &wanted),
            None
        );
        std::fs::write(at("myvnc_7.log"), "the server's\n").unwrap();
        let found = Some((at("myvnc_7.log"), vec!["the server's".to_owned()]));
        assert_eq!(last(&open, &by_pattern), found);
        assert_eq!(last(&[at("myvnc_7.log")], &wanted), found);
    }

    #[test]
    fn the_servers_configuration_says_where_its_logs_are() {
        let directory = tempfile::tempdir().unwrap();
        let logs = directory.path().join("lo[g]s");
        std::fs::create_dir(&logs).unwrap();
        std::fs::write(logs.join("other.log"), "no\n").unwrap();
        std::fs::write(logs.join("myvnc_7.log"), "yes\n").unwrap();
        let wanted = Wanted {
            logdir: Some(logs.clone()),
            ..wanted(&directory.path().join("m.log"))
        };
        let found = Some((logs.join("myvnc_7.log"), vec!["yes".to_owned()]));
        assert_eq!(last(&[], &wanted), found);
    }

    #[test]
    fn hazard_42_what_others_may_not_read_is_shown_only_if_it_is_the_servers() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let set = |name: &str, mode| {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
            std::fs::set_permissions(at(name), mode).unwrap();
        };
        std::fs::write(at("secret"), "root's\n").unwrap();
        std::os::unix::fs::symlink(at("secret"), at("link.log")).unwrap();
        nix::unistd::mkfifo(&at("fifo.log"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let ours = wanted(&at("m.log"));
        let others = Wanted {
            owner: Some(ours.owner.unwrap() + 1),
            ..ours.clone()
        };
        let unknown = Wanted {
            owner: None,
            ..ours.clone()
        };
        for none in ["link.log", "fifo.log", "absent.log"] {
            assert_eq!(newest([at(none)], &ours), None, "{none}");
        }
        std::fs::write(at("a.log"), "private\n").unwrap();
        set("a.log", 0o600);
        let log = || [at("a.log")];
        assert!(newest(log(), &ours).is_some());
        assert_eq!(newest(log(), &others), None);
        assert_eq!(newest(log(), &unknown), None);
        // Others can put files into this directory.
        set("", 0o777);
        assert_eq!(newest(log(), &ours), None);
        set("a.log", 0o644);
        assert!(newest(log(), &others).is_some());
        // Nobody else can read it: the directory is closed.
        set("", 0o700);
        assert_eq!(newest(log(), &others), None);
        // The newest is not one that may be shown.
        set("", 0o755);
        std::fs::hard_link(at("secret"), at("b.log")).unwrap();
        let both = [at("a.log"), at("b.log")];
        assert_eq!(newest(both, &ours).unwrap().0, at("a.log"));
    }

    #[test]
    fn fuzz_server_log() {
        let since = date("2026-01-01 10:00:00").unwrap();
        let seeds: [&[u8]; 3] = [
            b"2026-01-01 09:59:59,1 - myvnc - INFO - server.py:294 - old\n[2026-01-01 10:00:01] new\n  traceback\n",
            b"2026-01-01T10:00:02 last\r\n\xc3\xa9\xff\n",
            b"[[[[2026-02-30 25:61:61\n+2026--1-01 00:00:00",
        ];
        let target = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            for is_fresh in [true, false] {
                assert!(recent(&text, since, is_fresh).len() <= MOST_LINES);
            }
        };
        fuzz(&seeds, target);
        for piece in ["2026-01-01 10:00:00 x\n", "\n", "[", "2026-", "é"] {
            linear(|size| piece.repeat(size / piece.len()).into_bytes(), target);
        }
    }
}
