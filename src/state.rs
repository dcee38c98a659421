//! What outlives a run: when the server last answered.

use std::fs::{File, OpenOptions};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

/// A file whose time is that of the last healthy check.
#[derive(Debug)]
pub(crate) struct LastHealthy {
    path: PathBuf,
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

    /// How long ago that was.
    pub(crate) fn ago(&self) -> Option<Duration> {
        let noted = std::fs::symlink_metadata(&self.path).and_then(|file| file.modified());
        SystemTime::now().duration_since(noted.ok()?).ok()
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
        last.note();
        let file = File::options().write(true).open(&last.path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(90))
            .unwrap();
        assert_eq!(last.ago().unwrap().as_secs(), 90);
        last.note();
        assert!(last.ago().unwrap() < Duration::from_secs(60));
        let nowhere = LastHealthy::at(directory.path().join("no/such/directory"));
        nowhere.note();
        assert_eq!(nowhere.ago(), None);
    }
}
