//! What outlives a run: when the server last answered, and what it was when it was last started.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use nix::fcntl::AT_FDCWD;
use nix::libc;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

/// As much of the file is read, in bytes.
const LONGEST: u64 = 4096;

/// A file whose time is that of the last healthy check, and whose text is the server as it was
/// when it was last started.
#[derive(Debug)]
pub(crate) struct LastHealthy {
    path: PathBuf,
}

/// A server as it was started.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Known {
    /// Its processes.
    pub(crate) pids: Vec<i32>,
    /// Its control group, and how many processes the OOM killer had ended in it by then.
    pub(crate) group: Option<(String, u64)>,
    /// Its own log.
    pub(crate) log: Option<PathBuf>,
}

impl Known {
    /// What these processes are, and their log.
    pub(crate) fn of(pids: Vec<i32>, log: Option<PathBuf>) -> Self {
        let group = pids.first().and_then(|pid| {
            let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
            let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
            Some((group.to_owned(), oom_kills(group)?))
        });
        Self { pids, group, log }
    }

    fn text(&self) -> String {
        let pids: Vec<String> = self.pids.iter().map(ToString::to_string).collect();
        let group = self.group.as_ref();
        let group = group.map(|(group, kills)| format!("{kills} {group}"));
        let log = self.log.as_ref().map(|log| log.display().to_string());
        format!(
            "{}\n{}\n{}\n",
            pids.join(" "),
            group.unwrap_or_default(),
            log.unwrap_or_default()
        )
    }

    fn parse(text: &str) -> Self {
        let mut lines = text.lines();
        let pids = lines.next().unwrap_or_default().split(' ');
        let group = lines.next().and_then(|line| line.split_once(' '));
        Self {
            pids: pids.filter_map(|pid| pid.parse().ok()).collect(),
            group: group.and_then(|(kills, group)| Some((group.to_owned(), kills.parse().ok()?))),
            log: lines
                .next()
                .filter(|line| !line.is_empty())
                .map(PathBuf::from),
        }
    }
}

/// How many processes of a control group the OOM killer has ended (`memory.events`).
pub(crate) fn oom_kills(group: &str) -> Option<u64> {
    let events = std::fs::read_to_string(format!("/sys/fs/cgroup{group}/memory.events")).ok()?;
    let count = events
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill "))?;
    count.parse().ok()
}

impl LastHealthy {
    /// Kept in this file.
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// Notes that the server answers. Where that cannot be kept, nothing but the age of the next
    /// outage is lost.
    pub(crate) fn note(&self) {
        let now = TimeSpec::UTIME_NOW;
        let dated = utimensat(
            AT_FDCWD,
            &self.path,
            &now,
            &now,
            UtimensatFlags::NoFollowSymlink,
        );
        if dated.is_err() {
            let _: Result<File, _> = OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&self.path);
        }
    }

    /// Notes that the server answers, and what it is since it was started.
    pub(crate) fn note_started(&self, server: &Known) {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&self.path);
        let _ = file.and_then(|mut file| file.write_all(server.text().as_bytes()));
        self.note();
    }

    /// How long ago it answered.
    pub(crate) fn ago(&self) -> Option<Duration> {
        let noted = std::fs::symlink_metadata(&self.path).and_then(|file| file.modified());
        SystemTime::now().duration_since(noted.ok()?).ok()
    }

    /// What it was when it was last started, where that was our doing.
    pub(crate) fn known(&self) -> Known {
        let mut text = String::new();
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&self.path);
        match file.and_then(|file| file.take(LONGEST).read_to_string(&mut text)) {
            Ok(_) => Known::parse(&text),
            Err(_) => Known::default(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_last_healthy_check_is_remembered() {
        let directory = tempfile::tempdir().unwrap();
        let last = LastHealthy::at(directory.path().join("healthy"));
        assert_eq!(last.ago(), None);
        assert_eq!(last.known(), Known::default());
        last.note();
        let file = File::options().write(true).open(&last.path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(90))
            .unwrap();
        assert_eq!(last.ago().unwrap().as_secs(), 90);
        last.note();
        assert!(last.ago().unwrap() < Duration::from_secs(60));
        let nowhere = LastHealthy::at(directory.path().join("no/such/directory"));
        nowhere.note();
        nowhere.note_started(&Known::default());
        assert_eq!(nowhere.ago(), None);
    }

    #[test]
    fn a_server_is_remembered_as_it_was_started() {
        let directory = tempfile::tempdir().unwrap();
        let last = LastHealthy::at(directory.path().join("healthy"));
        for group in [None, Some(("/system.slice/my vnc.service".to_owned(), 3))] {
            let known = Known {
                pids: vec![72451, 72452],
                group,
                log: Some("/var/log/myvnc_1.log".into()),
            };
            last.note_started(&known);
            last.note();
            assert_eq!(last.known(), known);
        }
        assert_eq!(
            Known::of(vec![std::process::id().try_into().unwrap()], None)
                .pids
                .len(),
            1
        );
        for garbage in ["", "\n\n", "x y\n- z\n", "7"] {
            assert_eq!(Known::parse(garbage).group, None);
        }
    }
}
