//! The last minutes of the server's own log.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use chrono::{Local, NaiveDateTime, TimeDelta};
use procfs::process::FDTarget;

use crate::process::find;

/// No more lines are taken.
const MOST_LINES: usize = 200;
/// As much of the end of a log is read, in bytes.
const TAIL: u64 = 256 << 10;

/// Where the server's log is looked for, and what of it is wanted.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// Files to look at where the server holds no log open (`glob(7)`).
    pub(crate) pattern: Option<String>,
    /// How far back.
    pub(crate) history: Duration,
    /// The monitor's own files, which are not the server's, whoever holds them open.
    pub(crate) ours: Vec<PathBuf>,
}

/// The newest log of these processes and its lines; none where there is none.
pub(crate) fn last(pids: &[i32], wanted: &Wanted) -> Option<(PathBuf, Vec<String>)> {
    let open = pids
        .iter()
        .filter_map(|pid| find::descriptors(*pid))
        .flatten();
    let open = open.filter_map(|(_, target)| match target {
        FDTarget::Path(path) if path.extension().is_some_and(|kind| kind == "log") => Some(path),
        _ => None,
    });
    let named = wanted
        .pattern
        .iter()
        .filter_map(|pattern| glob::glob(pattern).ok());
    let path = newest(open, wanted).or_else(|| newest(named.flatten().flatten(), wanted))?;
    let lines = tail(&path, wanted.history)?;
    Some((path, lines))
}

fn newest(paths: impl Iterator<Item = PathBuf>, wanted: &Wanted) -> Option<PathBuf> {
    let dated = paths
        .filter(|path| !wanted.ours.contains(path))
        .filter_map(|path| {
            let metadata = std::fs::metadata(&path)
                .ok()
                .filter(std::fs::Metadata::is_file)?;
            Some((metadata.modified().ok()?, path))
        });
    dated.max().map(|(_, path)| path)
}

fn tail(path: &Path, history: Duration) -> Option<Vec<String>> {
    let mut file = File::open(path).ok()?;
    let metadata = file.metadata().ok()?;
    let start = metadata.len().saturating_sub(TAIL);
    file.seek(SeekFrom::Start(start)).ok()?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let is_fresh = SystemTime::now()
        .duration_since(metadata.modified().ok()?)
        .is_ok_and(|age| age <= history);
    let since = Local::now().naive_local() - TimeDelta::from_std(history).ok()?;
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

/// The date that a line begins with, with or without a bracket before it.
fn date(line: &str) -> Option<NaiveDateTime> {
    let text = line.trim_start_matches('[').get(..19)?;
    NaiveDateTime::parse_from_str(&text.replace('T', " "), "%Y-%m-%d %H:%M:%S").ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

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
    }
}
