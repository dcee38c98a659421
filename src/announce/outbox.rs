//! The events of one server that the notify command has not taken yet: a directory with one file for each, in the
//! order of their names. It exists only while there are any.
//!
//! `NUMBER.json` is an event. `NUMBER-COUNT.dropped` stands in the place of the last one that was dropped, and COUNT is
//! the number of all that were dropped since the last one that was taken.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{
    Access, AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags, RenameFlags, Stat, flock,
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::Announcement;
use crate::state::file;
use crate::state::history::{self, Entry};
use crate::state::time::Time;
use crate::sys::{bounded, cached};
use crate::text::errno_text;

/// Events that are kept, at most.
const MOST: usize = 50;
/// How long an event is kept.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// Mode of an event's file.
const FILE_MODE: u32 = 0o600;
/// Read limit of an event, in bytes.
const LARGEST: u64 = 1 << 20;
/// Lines of the history that an event has.
const HISTORY_LINES: usize = 10;
/// Time limit of a change.
const TIMEOUT: Duration = Duration::from_secs(2);
/// From this age on, a file that was being written counts as left by a run that was killed.
const ABANDONED: Duration = Duration::from_secs(60);
const EVENT: &str = ".json";
const DROPPED: &str = ".dropped";
const TEMPORARY: &str = ".tmp";

/// The oldest event that waits.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Waiting {
    name: String,
    /// The event, with the number of those that were dropped before it.
    pub(crate) announcement: Announcement,
    /// Number of events that wait, this one included.
    pub(crate) count: usize,
}

/// What there is to be handed over.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Next {
    /// The oldest event; none where none waits.
    pub(crate) waiting: Option<Waiting>,
    /// Number of events that were dropped just now.
    pub(crate) dropped: u64,
}

/// The outbox of one server.
#[derive(Debug)]
pub(crate) struct Outbox {
    path: PathBuf,
}

impl Outbox {
    /// The outbox at that path.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether nothing waits, as far as that can be seen without waiting for a disk. One system call.
    pub(crate) fn is_empty(&self) -> bool {
        let found = cached::open(CWD, &self.path, directory_flags());
        matches!(found, Err(Errno::NOENT))
    }

    /// Locks it against other runs as long as the descriptor is open; none where another run hands its events over,
    /// or has just done so.
    ///
    /// # Errors
    /// It cannot be read, or is not ours.
    pub(crate) async fn lock(&self) -> Result<Option<OwnedFd>, String> {
        // First in a child, because the disk can block without end.
        let exists = |path: &Path| match open(path) {
            Err(reason) if reason.kind() == io::ErrorKind::NotFound => Ok(false),
            opened => opened.map(|_| true),
        };
        if !self.ask(exists).await? {
            return Ok(None);
        }
        let directory = open(&self.path).map_err(|reason| errno_text(&reason))?;
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => Ok(None),
            // A file system without locks: no worse than before.
            _ => Ok(Some(directory)),
        }
    }

    /// Number of events that wait; none where it cannot be read.
    pub(crate) async fn count(&self) -> Option<usize> {
        if self.is_empty() {
            return Some(0);
        }
        let count = |path: &Path| match open(path) {
            Err(reason) if reason.kind() == io::ErrorKind::NotFound => Ok(0),
            opened => Ok(Names::read(&opened?)?.events.len()),
        };
        self.ask(count).await.ok()
    }

    /// Adds events, with the last lines of the history in that file; the number of older ones that were dropped for
    /// them.
    ///
    /// # Errors
    /// They cannot be written, or the directory is not ours.
    pub(crate) async fn put(
        &self,
        announcements: &[Announcement],
        history: &Path,
    ) -> Result<u64, String> {
        self.ask(|path| put(path, announcements, history)).await
    }

    /// Drops what is too old, and reads the oldest event. `taken` was handed over, and is removed first.
    ///
    /// # Errors
    /// The directory cannot be read or written, or is not ours.
    pub(crate) async fn next(&self, taken: Option<&Waiting>) -> Result<Next, String> {
        self.ask(|path| next(path, taken.map(|taken| taken.name.as_str())))
            .await
    }

    async fn ask<T: Serialize + serde::de::DeserializeOwned>(
        &self,
        work: impl FnOnce(&Path) -> io::Result<T>,
    ) -> Result<T, String> {
        bounded::on_disk(TIMEOUT, || work(&self.path)).await
    }
}

fn directory_flags() -> OFlags {
    file::flags(OFlags::RDONLY | OFlags::DIRECTORY)
}

/// Opens the directory. If others than root and this user can write to it, its events cannot be trusted.
fn open(path: &Path) -> io::Result<OwnedFd> {
    let directory = rustix::fs::open(path, directory_flags(), Mode::empty())?;
    let stat = rustix::fs::fstat(&directory)?;
    if !file::is_ours(&stat) {
        let reason = format!("it belongs to UID {}", stat.st_uid);
        return Err(io::Error::other(reason));
    }
    if Mode::from_raw_mode(stat.st_mode).intersects(Mode::WGRP | Mode::WOTH) {
        return Err(io::Error::other("other users can write to it"));
    }
    // A file system that is read-only shows it here: an event that cannot be removed would be announced for ever.
    rustix::fs::accessat(&directory, ".", Access::WRITE_OK, AtFlags::EACCESS)?;
    Ok(directory)
}

fn open_or_make(path: &Path) -> io::Result<OwnedFd> {
    match open(path) {
        Err(reason) if reason.kind() == io::ErrorKind::NotFound => (),
        opened => return opened,
    }
    file::make_directory(path)?;
    open(path)
}

/// What is in the directory.
#[derive(Default)]
struct Names {
    /// The numbers of the events, in order.
    events: Vec<u64>,
    /// The marks of dropped ones, as (number, count), in order.
    marks: Vec<(u64, u64)>,
    /// Files that are, or were, being written.
    temporary: Vec<String>,
}

impl Names {
    fn read(directory: &OwnedFd) -> io::Result<Self> {
        let mut names = Self::default();
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            if let Some(number) = name.strip_suffix(EVENT) {
                // A name that is not ours would be found again after each removal.
                let number = number.parse::<u64>().ok();
                let is_file = entry.file_type() != FileType::Directory;
                let number = number.filter(|number| is_file && event_name(*number) == name);
                names
                    .events
                    .extend(number.filter(|number| *number < u64::MAX));
            } else if let Some(mark) = name.strip_suffix(DROPPED) {
                let mark = mark.split_once('-').and_then(|(number, count)| {
                    Some((number.parse::<u64>().ok()?, count.parse::<u64>().ok()?))
                });
                let is_ours = |mark: &(u64, u64)| mark_name(mark.0, mark.1) == name;
                names.marks.extend(mark.filter(is_ours));
            } else if name.ends_with(TEMPORARY) {
                names.temporary.push(name.to_owned());
            }
        }
        names.events.sort_unstable();
        names.marks.sort_unstable();
        Ok(names)
    }

    /// The number of the next event.
    fn next(&self) -> u64 {
        let marks = self.marks.iter().map(|mark| mark.0);
        let last = marks.chain(self.events.iter().copied()).max();
        last.unwrap_or(0).saturating_add(1)
    }

    /// Number of events that were dropped since the last one that was taken.
    fn dropped(&self) -> u64 {
        self.marks.last().map_or(0, |mark| mark.1)
    }

    /// Puts a mark in the place of the oldest event.
    fn drop_oldest(&mut self, directory: &OwnedFd) -> io::Result<()> {
        if self.events.is_empty() {
            return Ok(());
        }
        let number = self.events.remove(0);
        let count = self.dropped().saturating_add(1);
        rustix::fs::renameat(
            directory,
            event_name(number),
            directory,
            mark_name(number, count),
        )?;
        // The newer mark counts: a run that is killed here leaves one too many, and no wrong number.
        self.remove_marks(directory)?;
        self.marks.push((number, count));
        Ok(())
    }

    fn remove_marks(&mut self, directory: &OwnedFd) -> io::Result<()> {
        for (number, count) in self.marks.drain(..) {
            remove(directory, &mark_name(number, count))?;
        }
        Ok(())
    }

    /// Removes what runs that were killed were writing.
    fn clean(&self, directory: &OwnedFd, now: Time) {
        for name in &self.temporary {
            let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
            if stat.is_ok_and(|stat| age(&stat, now) >= ABANDONED) {
                let _ = remove(directory, name);
            }
        }
    }
}

fn event_name(number: u64) -> String {
    format!("{number:012}{EVENT}")
}

fn mark_name(number: u64, count: u64) -> String {
    format!("{number:012}-{count}{DROPPED}")
}

fn remove(directory: &OwnedFd, name: &str) -> io::Result<()> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Err(reason) if reason != Errno::NOENT => Err(reason.into()),
        _ => Ok(()),
    }
}

#[allow(
    clippy::useless_conversion,
    clippy::unnecessary_fallible_conversions,
    reason = "its width depends on the architecture"
)]
fn age(stat: &Stat, now: Time) -> Duration {
    let written = Time(u64::try_from(stat.st_mtime).unwrap_or_default());
    written.before(now).unwrap_or_default()
}

fn put(path: &Path, announcements: &[Announcement], history: &Path) -> io::Result<u64> {
    let mut directory = open_or_make(path)?;
    let mut names = Names::read(&directory)?;
    names.clean(&directory, Time::now());
    let lines = last_lines(history);
    let mut number = names.next();
    for announcement in announcements {
        let mut announcement = announcement.clone();
        announcement.history.clone_from(&lines);
        number = match add(&directory, &announcement, number) {
            // Another run has removed it meanwhile, because it was empty.
            Err(reason) if reason.kind() == io::ErrorKind::NotFound => {
                directory = open_or_make(path)?;
                add(&directory, &announcement, number)?
            }
            added => added?,
        };
        names.events.push(number);
        number = number.saturating_add(1);
    }
    rustix::fs::fsync(&directory)?;
    let surplus = names.events.len().saturating_sub(MOST);
    for _ in 0..surplus {
        names.drop_oldest(&directory)?;
    }
    Ok(surplus as u64)
}

/// Adds an event under that number, or the next one that is free.
fn add(directory: &OwnedFd, announcement: &Announcement, mut number: u64) -> io::Result<u64> {
    let temporary = format!("{}{TEMPORARY}", std::process::id());
    remove(directory, &temporary)?;
    let flags = file::flags(OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL);
    let mode = Mode::from_raw_mode(FILE_MODE);
    let mut file = File::from(rustix::fs::openat(directory, &temporary, flags, mode)?);
    let written = serde_json::to_vec(announcement)
        .map_err(io::Error::from)
        .and_then(|json| file.write_all(&json))
        .and_then(|()| file.sync_data())
        .and_then(|()| {
            loop {
                // A process of a run that was killed may still be writing here.
                match rename_new(directory, &temporary, &event_name(number)) {
                    Err(Errno::EXIST) => number = number.saturating_add(1),
                    renamed => return Ok(renamed?),
                }
            }
        });
    if written.is_err() {
        let _ = remove(directory, &temporary);
    }
    written.map(|()| number)
}

/// Renames a file, and replaces none where the file system can tell.
fn rename_new(directory: &OwnedFd, from: &str, to: &str) -> rustix::io::Result<()> {
    match rustix::fs::renameat_with(directory, from, directory, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) => rustix::fs::renameat(directory, from, directory, to),
        renamed => renamed,
    }
}

fn next(path: &Path, taken: Option<&str>) -> io::Result<Next> {
    let directory = match open(path) {
        Err(reason) if reason.kind() == io::ErrorKind::NotFound => return Ok(Next::default()),
        opened => opened?,
    };
    let now = Time::now();
    let mut names = Names::read(&directory)?;
    names.clean(&directory, now);
    if let Some(taken) = taken {
        // The marks first: what was told with this event is not told with the next one.
        names.remove_marks(&directory)?;
        remove(&directory, taken)?;
        names.events.retain(|number| event_name(*number) != taken);
    }
    let mut next = Next::default();
    while let Some(number) = names.events.first().copied() {
        let name = event_name(number);
        if let Some(announcement) = read(&directory, &name, now)? {
            next.waiting = Some(Waiting {
                name,
                announcement: Announcement {
                    dropped: names.dropped(),
                    ..announcement
                },
                count: names.events.len(),
            });
            return Ok(next);
        }
        names.drop_oldest(&directory)?;
        next.dropped += 1;
    }
    // Fails where something is left in it.
    let _ = rustix::fs::rmdir(path);
    Ok(next)
}

/// Reads an event; none where it is too old, or is not what was written.
fn read(directory: &OwnedFd, name: &str, now: Time) -> io::Result<Option<Announcement>> {
    let flags = file::flags(OFlags::RDONLY);
    let file = match rustix::fs::openat(directory, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        // A link, or it is gone.
        Err(Errno::LOOP | Errno::NOENT) => return Ok(None),
        Err(reason) => return Err(reason.into()),
    };
    let Ok(stat) = file::check(&file) else {
        return Ok(None);
    };
    if age(&stat, now) > LONGEST {
        return Ok(None);
    }
    let mut json = Vec::new();
    file.take(LARGEST).read_to_end(&mut json)?;
    Ok(serde_json::from_slice(&json).ok())
}

/// The last lines of the history, as far as it can be read.
fn last_lines(history: &Path) -> Vec<Entry> {
    let mut lines = std::collections::VecDeque::new();
    let _ = history::read_lines(history, |line| {
        if lines.len() == HISTORY_LINES {
            lines.pop_front();
        }
        lines.push_back(line.to_vec());
    });
    let entries = lines.iter().filter_map(|line| {
        let entry: Entry = serde_json::from_slice(line).ok()?;
        Some(super::cleaned_entry(entry))
    });
    entries.collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;
    use crate::skip::skip;

    fn event(number: usize) -> Announcement {
        Announcement {
            event: format!("event {number}"),
            ..Announcement::default()
        }
    }

    fn history() -> PathBuf {
        PathBuf::from("/nowhere")
    }

    /// Takes all that waits, as (event, dropped).
    fn take_all(path: &Path) -> Vec<(String, u64)> {
        let (mut all, mut taken) = (Vec::new(), None::<String>);
        while let Some(waiting) = next(path, taken.as_deref()).unwrap().waiting {
            all.push((waiting.announcement.event, waiting.announcement.dropped));
            taken = Some(waiting.name);
        }
        all
    }

    #[test]
    fn names_that_are_not_ours_are_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("h_1.outbox");
        put(&path, &[event(1)], &history()).unwrap();
        let odd = ["1.json", "18446744073709551615.json", "x.json", "notes"];
        for name in odd {
            fs::write(path.join(name), "{}").unwrap();
        }
        fs::create_dir(path.join("000000000000.json")).unwrap();
        put(&path, &[event(2)], &history()).unwrap();
        let taken = [("event 1".to_owned(), 0), ("event 2".to_owned(), 0)];
        assert_eq!(take_all(&path), taken);
        assert_eq!(fs::read_dir(&path).unwrap().count(), odd.len() + 1);
    }

    #[test]
    fn one_run_at_a_time_hands_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("h_1.outbox");
        put(&path, &[event(1)], &history()).unwrap();
        let outbox = Outbox::new(path);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let lock = outbox.lock().await.unwrap();
            assert!(lock.is_some());
            assert!(outbox.lock().await.unwrap().is_none());
            drop(lock);
            assert!(outbox.lock().await.unwrap().is_some());
        });
    }

    #[test]
    fn events_are_taken_in_order_and_nothing_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state/h_1.outbox");
        let outbox = Outbox::new(path.clone());
        assert!(next(&path, None).unwrap().waiting.is_none());
        for number in 0..12 {
            assert_eq!(put(&path, &[event(number)], &history()).unwrap(), 0);
        }
        assert!(!outbox.is_empty());
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!(mode(&path), 0o700);
        for file in fs::read_dir(&path).unwrap() {
            assert_eq!(mode(&file.unwrap().path()), 0o600);
        }
        let first = next(&path, None).unwrap().waiting.unwrap();
        assert_eq!(
            (first.announcement.event.as_str(), first.count),
            ("event 0", 12)
        );
        let again = next(&path, None).unwrap().waiting.unwrap();
        assert_eq!(again.announcement, first.announcement, "it was not taken");
        let all = (0..12).map(|number| (format!("event {number}"), 0));
        assert_eq!(take_all(&path), all.collect::<Vec<_>>());
        assert!(!path.exists() && outbox.is_empty());
    }

    #[test]
    fn what_is_too_much_is_dropped_and_counted_in_the_next_event() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("h_1.outbox");
        for number in 0..57 {
            let dropped = put(&path, &[event(number)], &history()).unwrap();
            assert_eq!(dropped, u64::from(number >= 50));
        }
        let marks = || {
            let names = fs::read_dir(&path).unwrap().flatten();
            names
                .filter(|one| one.path().extension().unwrap() == "dropped")
                .count()
        };
        assert_eq!(marks(), 1);
        let all = take_all(&path);
        assert_eq!(all.len(), 50);
        assert_eq!(all[0], ("event 7".to_owned(), 7));
        assert_eq!(all[1], ("event 8".to_owned(), 0));
        assert!(!path.exists());
    }

    #[test]
    fn what_is_too_old_or_damaged_is_dropped_and_counted_in_the_next_event() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("h_1.outbox");
        put(&path, &[event(1), event(2), event(3)], &history()).unwrap();
        let file = |number| path.join(event_name(number));
        let age = |number, seconds| {
            let old = std::time::SystemTime::now() - Duration::from_secs(seconds);
            let file = File::options().write(true).open(file(number)).unwrap();
            file.set_modified(old).unwrap();
        };
        age(1, 24 * 3600 + 2);
        age(3, 24 * 3600 - 100);
        fs::write(file(2), "{\"event\":").unwrap();
        let found = next(&path, None).unwrap();
        assert_eq!(found.dropped, 2);
        assert_eq!(take_all(&path), [("event 3".to_owned(), 2)]);

        // All that is left is the number, for the next event.
        put(&path, &[event(4)], &history()).unwrap();
        age(1, 24 * 3600 + 2);
        assert_eq!(next(&path, None).unwrap().dropped, 1);
        assert_eq!(take_all(&path), []);
        put(&path, &[event(5)], &history()).unwrap();
        assert_eq!(take_all(&path), [("event 5".to_owned(), 1)]);
    }

    #[test]
    fn a_foreign_directory_is_refused_and_foreign_files_are_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("file"), "").unwrap();
        fs::create_dir(at("open")).unwrap();
        fs::set_permissions(at("open"), PermissionsExt::from_mode(0o777)).unwrap();
        fs::create_dir(at("real")).unwrap();
        symlink(at("real"), at("link")).unwrap();
        let mut refused = vec![at("file"), at("open"), at("link")];
        if nix::unistd::geteuid().is_root() {
            fs::create_dir(at("theirs")).unwrap();
            std::os::unix::fs::chown(at("theirs"), Some(1234), None).unwrap();
            refused.push(at("theirs"));
        } else {
            skip("only root can make a directory for others");
        }
        for path in refused {
            assert!(put(&path, &[event(1)], &history()).is_err(), "{path:?}");
            assert!(next(&path, None).is_err(), "{path:?}");
        }
        assert_eq!(fs::read_dir(at("real")).unwrap().count(), 0);

        let path = at("h_1.outbox");
        put(&path, &[event(1), event(2), event(3)], &history()).unwrap();
        let secret = serde_json::to_vec(&event(7)).unwrap();
        fs::write(at("secret"), secret).unwrap();
        fs::remove_file(path.join(event_name(1))).unwrap();
        symlink(at("secret"), path.join(event_name(1))).unwrap();
        fs::remove_file(path.join(event_name(2))).unwrap();
        nix::unistd::mkfifo(&path.join(event_name(2)), nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::write(path.join("README"), "").unwrap();
        assert_eq!(take_all(&path), [("event 3".to_owned(), 2)]);
        assert!(at("secret").exists());
    }

    #[test]
    fn an_event_has_the_last_lines_of_the_history() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("h_1.outbox");
        let history = directory.path().join("h_1.history.jsonl");
        let lines = (0..30).map(|number| {
            format!(
                "{{\"id\":\"{number}\",\"at\":\"2025-11-25T06:41:08Z\",\"server\":\"a\\u0007b\",\"event\":\"failed\",\
                 \"culprit\":\"--password x\"}}\n"
            )
        });
        fs::write(&history, lines.collect::<String>() + "torn").unwrap();
        put(&path, &[event(1)], &history).unwrap();
        let event = next(&path, None).unwrap().waiting.unwrap().announcement;
        let ids: Vec<_> = event.history.iter().map(|line| line.id.as_str()).collect();
        let last: Vec<_> = (20..30).map(|number| number.to_string()).collect();
        assert_eq!(ids, last);
        assert_eq!(event.history[0].server, "a?b");
        assert_eq!(event.history[0].culprit.as_deref(), Some("--password ***"));
    }

    #[test]
    fn what_a_killed_run_has_left_is_removed_once_it_is_old() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("h_1.outbox");
        put(&path, &[event(1)], &history()).unwrap();
        let (new, old) = (path.join("7.tmp"), path.join("8.tmp"));
        fs::write(&new, "{").unwrap();
        let file = File::create(&old).unwrap();
        file.set_modified(std::time::SystemTime::now() - Duration::from_secs(70))
            .unwrap();
        assert_eq!(take_all(&path).len(), 1);
        assert!(new.exists() && !old.exists());
    }
}
