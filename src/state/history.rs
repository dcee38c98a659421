//! The history of one server: a file of JSON lines in the state directory, to which runs only append.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Take, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};
use serde::de::IntoDeserializer;
use serde::de::value::StrDeserializer;
use serde::{Deserialize, Serialize};

use super::time::Time;
use super::{MODE, file};

/// A file of this length is renamed before the next line is appended, in bytes.
const FULL: u64 = 1 << 20;
/// Longest line that is read, in bytes.
const LONGEST: usize = 64 << 10;

/// What a line of the history says.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum HistoryEvent {
    /// Down and healed by a restart.
    Restarted,
    /// Down and healed without one.
    Unwedged,
    /// A restart did not help, or nothing could be touched.
    Failed,
    /// Down, and the restart waits.
    Held,
    /// Answers again after `failed` or `held`, and the monitor has not restarted it.
    Recovered,
    /// Of the incident `id`: the server answered for 10 minutes afterwards.
    Lasted,
    /// Of the incident `id`: it did not.
    FellAgain,
    /// No run watched the server, for `away_s` seconds until `at`.
    Unwatched,
    /// The server was away during a pause, for `away_s` seconds until `at`.
    Planned,
    /// A newer version's.
    #[serde(other)]
    Other,
}

/// A line of the history. Keys are only ever added.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Entry {
    /// Names the incident, the same in all of its lines.
    pub(crate) id: String,
    /// When this was written.
    pub(crate) at: Time,
    /// The server's name.
    pub(crate) server: String,
    /// What happened.
    pub(crate) event: HistoryEvent,
    /// Slug of the first cause.
    #[serde(default)]
    pub(crate) cause: Option<String>,
    /// Who or what is to blame.
    #[serde(default)]
    pub(crate) culprit: Option<String>,
    /// What kind of thing that is.
    #[serde(default)]
    pub(crate) culprit_kind: Option<String>,
    /// Seconds that the server was away; since the line before of the same incident, if there is one.
    #[serde(default)]
    pub(crate) away_s: Option<u64>,
    /// How it ended: `answered`, `failed`, `held`; `untouched` where no restart was made.
    #[serde(default)]
    pub(crate) outcome: Option<String>,
    /// Processes that were stopped.
    #[serde(default)]
    pub(crate) pids: Vec<i32>,
    /// Who restored the service: `monitor`, or the user of the process that answers.
    #[serde(default)]
    pub(crate) by: Option<String>,
}

/// A line as it is read: what a count of many needs of it, and no copies.
#[derive(Debug, Deserialize)]
pub(crate) struct Line<'a> {
    #[serde(borrow)]
    pub(crate) id: Cow<'a, str>,
    pub(crate) at: Time,
    #[serde(borrow)]
    pub(crate) server: Cow<'a, str>,
    pub(crate) event: HistoryEvent,
    #[serde(borrow, default)]
    pub(crate) cause: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(crate) culprit: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(crate) culprit_kind: Option<Text<'a>>,
    #[serde(default)]
    pub(crate) away_s: Option<u64>,
    #[serde(borrow, default)]
    pub(crate) outcome: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(crate) by: Option<Text<'a>>,
}

/// A text that is borrowed from the line where it has no escapes, as serde does it for a plain `Cow` only.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(crate) struct Text<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

impl<'a> Line<'a> {
    /// Reads a line; none where it is damaged.
    pub(crate) fn parse(line: &'a [u8]) -> Option<Self> {
        Self::of_plain(line).or_else(|| serde_json::from_slice(line).ok())
    }

    /// Reads a line as `append` writes it, with all keys in their order and without escapes, several times as fast
    /// as serde does: a status reads thousands. None where it has another form, sound or not.
    fn of_plain(line: &'a [u8]) -> Option<Self> {
        if memchr::memchr(b'\\', line).is_some() {
            return None;
        }
        let mut rest = Rest {
            text: std::str::from_utf8(line).ok()?,
            at: 0,
        };
        let id = rest.text(b"{\"id\":")??;
        let at = rest.text(b",\"at\":")??;
        let server = rest.text(b",\"server\":")??;
        let event = rest.text(b",\"event\":")??;
        let cause = rest.text(b",\"cause\":")?;
        let culprit = rest.text(b",\"culprit\":")?;
        let culprit_kind = rest.text(b",\"culprit_kind\":")?;
        let away_s = rest.number(b",\"away_s\":")?;
        let outcome = rest.text(b",\"outcome\":")?;
        rest.numbers(b",\"pids\":[")?;
        let by = rest.text(b",\"by\":")?;
        let optional = |text: Option<&'a str>| text.map(|text| Text(Cow::Borrowed(text)));
        (line.get(rest.at..) == Some(b"}")).then_some(())?;
        Some(Self {
            id: Cow::Borrowed(id),
            at: Time::parse(at)?,
            server: Cow::Borrowed(server),
            event: event_of(event)?,
            cause: optional(cause),
            culprit: optional(culprit),
            culprit_kind: optional(culprit_kind),
            away_s,
            outcome: optional(outcome),
            by: optional(by),
        })
    }

    /// Reads a line if it is one object of JSON, as `append` writes it, with all keys that this version knows.
    pub(crate) fn of_written(line: &'a [u8]) -> Option<Self> {
        let read = Self::of_plain(line)?;
        let is_known = read.event != HistoryEvent::Other;
        (is_known && !has_control(line)).then_some(read)
    }

    /// Whether it is about a restart, which has ended one way or the other.
    pub(crate) fn is_restart(&self) -> bool {
        let is_failed = || {
            self.outcome
                .as_ref()
                .is_some_and(|outcome| outcome.0 == "failed")
        };
        match self.event {
            HistoryEvent::Restarted => true,
            HistoryEvent::Failed => is_failed(),
            _ => false,
        }
    }

    /// When the time away began that it tells of.
    pub(crate) fn began(&self) -> Time {
        Time(self.at.0.saturating_sub(self.away_s.unwrap_or(0)))
    }
}

/// Whether a line has a control character of ASCII: eight bytes at once, each of which borrows from its highest bit
/// if it is less than a space (Bit Twiddling Hacks, hasless).
fn has_control(line: &[u8]) -> bool {
    const EACH: u64 = u64::MAX / 255;
    let mut words = line.chunks_exact(8);
    let has = |word: &[u8]| {
        let word = word.try_into().map_or(0, u64::from_ne_bytes);
        word.wrapping_sub(EACH * u64::from(b' ')) & !word & (EACH << 7) != 0
    };
    words.any(has) || words.remainder().iter().any(|byte| *byte < b' ')
}

/// A line, and how far it was read, in bytes. Each function takes a key, with what is before it, and its value; none
/// where something else is there.
struct Rest<'a> {
    text: &'a str,
    at: usize,
}

#[allow(clippy::option_option, reason = "a value that is null, or no value")]
impl<'a> Rest<'a> {
    fn take(&mut self, word: &[u8]) -> Option<()> {
        let end = self.at + word.len();
        if self.text.as_bytes().get(self.at..end)? != word {
            return None;
        }
        self.at = end;
        Some(())
    }

    /// What is before the next such byte of ASCII, which is taken too.
    fn until(&mut self, byte: u8) -> Option<&'a str> {
        let left = self.text.get(self.at..)?;
        let length = memchr::memchr(byte, left.as_bytes())?;
        self.at += length + 1;
        left.get(..length)
    }

    /// A text, or none.
    fn text(&mut self, key: &[u8]) -> Option<Option<&'a str>> {
        self.take(key)?;
        if self.text.as_bytes().get(self.at) != Some(&b'"') {
            return self.take(b"null").map(|()| None);
        }
        self.at += 1;
        self.until(b'"').map(Some)
    }

    /// A number, or none.
    fn number(&mut self, key: &[u8]) -> Option<Option<u64>> {
        self.take(key)?;
        let number = self.until(b',')?;
        self.at -= 1;
        if number == "null" {
            return Some(None);
        }
        is_number(number).then(|| number.parse().ok().map(Some))?
    }

    /// Numbers that are not read.
    fn numbers(&mut self, key: &[u8]) -> Option<()> {
        self.take(key)?;
        let numbers = self.until(b']')?;
        let is_sound = numbers.is_empty() || numbers.split(',').all(is_number);
        is_sound.then_some(())
    }
}

/// Whether it is a whole number in JSON, not negative.
fn is_number(text: &str) -> bool {
    let is_plain = text == "0" || !text.starts_with('0');
    is_plain && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn event_of(word: &str) -> Option<HistoryEvent> {
    let word: StrDeserializer<serde::de::value::Error> = word.into_deserializer();
    HistoryEvent::deserialize(word).ok()
}

/// Appends a line with one write. A file of 1 MiB is renamed to `….1` before, in the place of an older one.
///
/// # Errors
/// It cannot be opened, made or written; it is not a regular file, or belongs to somebody other than
/// root and us.
pub(crate) fn append(path: &Path, entry: &Entry) -> io::Result<()> {
    let access = OFlags::RDWR | OFlags::APPEND;
    let (mut file, mut stat) = file::open_or_make(path, access, MODE)?;
    if length(stat.st_size) >= FULL {
        rotate(path, &file);
        (file, stat) = file::open_or_make(path, access, MODE)?;
    }
    let mut line = Vec::new();
    // The line before is torn: the machine stopped, or the disk was full.
    let mut last = [b'\n'];
    let end = length(stat.st_size);
    if end > 0 && file.read_at(&mut last, end - 1).is_ok() && last != *b"\n" {
        line.push(b'\n');
    }
    serde_json::to_writer(&mut line, entry)?;
    line.push(b'\n');
    file.write_all(&line)
}

fn length(size: i64) -> u64 {
    u64::try_from(size).unwrap_or_default()
}

/// Renames the file, unless another run is doing it or has done it. Where it cannot be renamed, it grows.
fn rotate(path: &Path, file: &File) {
    if flock(file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return;
    }
    let is_it = |other: (File, rustix::fs::Stat)| {
        rustix::fs::fstat(file)
            .is_ok_and(|this| (this.st_dev, this.st_ino) == (other.1.st_dev, other.1.st_ino))
    };
    if file::open(path, OFlags::RDONLY).is_ok_and(is_it) {
        let _ = std::fs::rename(path, older(path));
    }
}

/// Where the lines before those of the file are.
fn older(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".1");
    name.into()
}

/// Reads the lines of both files, as `Lines` has them.
///
/// # Errors
/// As for `Lines::end`.
pub(crate) fn read_lines(path: &Path, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let mut lines = Lines::open(path);
    while let Some(line) = lines.next() {
        each(line);
    }
    lines.end()
}

/// The lines of both files, the oldest first, each without its newline. A last one that is not whole, and those that
/// are far too long, are left out. It needs the memory of one line, and reads nothing that was appended meanwhile.
#[derive(Debug)]
pub(crate) struct Lines {
    /// What is left to be read, the first file last.
    files: Vec<BufReader<Take<File>>>,
    line: Vec<u8>,
    /// What became of the files that cannot be read.
    done: io::Result<()>,
}

impl Lines {
    pub(crate) fn open(path: &Path) -> Self {
        // The newer one first: if a run renames it now, it is not missed.
        let newer = file::open(path, OFlags::RDONLY);
        let older = file::open(&older(path), OFlags::RDONLY);
        let is_same = match (&newer, &older) {
            (Ok((_, one)), Ok((_, other))) => {
                (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
            }
            _ => false,
        };
        let mut lines = Self {
            files: Vec::new(),
            line: Vec::new(),
            done: Ok(()),
        };
        let both = [Some(newer), Some(older).filter(|_| !is_same)];
        for file in both.into_iter().flatten() {
            match file {
                Err(reason) if reason.kind() == io::ErrorKind::NotFound => (),
                Err(reason) => lines.done = Err(reason),
                Ok((file, stat)) => {
                    let file = file.take(length(stat.st_size));
                    lines.files.push(BufReader::with_capacity(LONGEST, file));
                }
            }
        }
        lines
    }

    /// The next line.
    pub(crate) fn next(&mut self) -> Option<&[u8]> {
        while let Some(file) = self.files.last_mut() {
            match read_line(file, &mut self.line) {
                Ok(true) => return self.line.split_last().map(|(_, whole)| whole),
                Ok(false) => drop(self.files.pop()),
                Err(reason) => {
                    self.files.pop();
                    self.done = Err(reason);
                }
            }
        }
        None
    }

    /// Whether all was read that there was.
    ///
    /// # Errors
    /// A file cannot be read, is not a regular file, or belongs to somebody other than root and us. What
    /// the other one has was read.
    pub(crate) fn end(self) -> io::Result<()> {
        self.done
    }
}

/// Reads the next whole line that is not longer than `LONGEST`. Returns whether there is one.
fn read_line(file: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    loop {
        line.clear();
        let most = LONGEST as u64 + 1;
        file.by_ref().take(most).read_until(b'\n', line)?;
        match line.last() {
            Some(b'\n') => return Ok(true),
            Some(_) if line.len() as u64 == most => drop(file.skip_until(b'\n')?),
            _ => return Ok(false),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn entry(id: &str) -> Entry {
        Entry {
            id: id.to_owned(),
            at: Time(1_764_052_868),
            server: "main".to_owned(),
            event: HistoryEvent::Restarted,
            cause: Some("idle_client".to_owned()),
            culprit: Some("10.1.2.3:51234".to_owned()),
            culprit_kind: Some("client".to_owned()),
            away_s: Some(74),
            outcome: Some("answered".to_owned()),
            pids: vec![4711],
            by: Some("monitor".to_owned()),
        }
    }

    fn read(path: &Path, mut each: impl FnMut(Entry)) -> io::Result<()> {
        read_lines(path, |line| {
            assert_eq!(
                Line::parse(line).map(|line| (line.id.into_owned(), line.at)),
                serde_json::from_slice::<Entry>(line)
                    .ok()
                    .map(|entry| (entry.id, entry.at))
            );
            serde_json::from_slice(line).into_iter().for_each(&mut each);
        })
    }

    fn ids(path: &Path) -> Vec<String> {
        let mut ids = Vec::new();
        read(path, |entry| ids.push(entry.id)).unwrap();
        ids
    }

    proptest::proptest! {
        #[test]
        fn a_line_is_read_as_serde_reads_it(
            texts in proptest::collection::vec("[ -~é]{0,9}|[a-z\"\\\\\u{7f}\n\u{1}]{0,5}", 6),
            empty in 0..64_u32,
            away in proptest::option::of(0..u64::MAX),
            pids in proptest::collection::vec(1..99_999_i32, 0..3),
            cut in 0..400_usize,
        ) {
            let text = |place: usize| Some(texts[place].clone()).filter(|_| empty >> place & 1 == 0);
            let entry = Entry {
                id: texts[0].clone(),
                cause: text(1),
                culprit: text(2),
                culprit_kind: text(3),
                outcome: text(4),
                by: text(5),
                away_s: away,
                pids,
                ..entry("")
            };
            let line = serde_json::to_vec(&entry).unwrap();
            let serde = serde_json::from_slice::<Line>(&line).unwrap();
            let read = Line::parse(&line).unwrap();
            proptest::prop_assert_eq!(format!("{:?}", read), format!("{:?}", serde));
            let cut = &line[..cut.min(line.len() - 1)];
            proptest::prop_assert!(Line::parse(cut).is_none());
        }
    }

    proptest::proptest! {
        #[test]
        fn a_control_character_is_found_wherever_it_is(text in "[ -~é\u{1f}\u{7f}\t]{0,40}") {
            let has = text.bytes().any(|byte| byte < b' ');
            proptest::prop_assert_eq!(has_control(text.as_bytes()), has);
        }
    }

    #[test]
    fn what_is_passed_on_as_it_is_written_is_sound() {
        let line = serde_json::to_string(&entry("1")).unwrap();
        assert!(Line::of_written(line.as_bytes()).is_some());
        for (part, other) in [
            ("74", "074"),
            ("74", "+74"),
            ("74", "7 4"),
            ("[4711]", "[4711,]"),
            ("[4711]", "[04]"),
            ("\"restarted\"", "\"moved\""),
            ("main", "ma\u{1}in"),
            (",\"by\":\"monitor\"", ""),
            ("}", ",\"new\":1}"),
        ] {
            let line = line.replace(part, other);
            assert!(Line::of_written(line.as_bytes()).is_none(), "{line}");
        }
    }

    #[test]
    fn the_form_that_is_written_is_read_fast() {
        let line = serde_json::to_vec(&entry("1")).unwrap();
        assert!(Line::of_plain(&line).is_some());
        let others = Entry {
            away_s: None,
            by: None,
            pids: Vec::new(),
            ..entry("1")
        };
        let line = serde_json::to_vec(&others).unwrap();
        assert!(Line::of_plain(&line).is_some());
        for other in [
            r#"{ "id":"1"}"#,
            r#"{"id":"\u0031"}"#,
            r#"{"new":[1]}"#,
            "{}x",
            "",
        ] {
            assert!(Line::of_plain(other.as_bytes()).is_none(), "{other}");
        }
    }

    #[test]
    fn what_is_appended_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/x.history.jsonl");
        assert_eq!(ids(&path), [""; 0]);
        append(&path, &entry("1")).unwrap();
        append(&path, &entry("2")).unwrap();
        let mut read_back = Vec::new();
        read(&path, |entry| read_back.push(entry)).unwrap();
        assert_eq!(read_back, [entry("1"), entry("2")]);
        let mode = rustix::fs::stat(&path).unwrap().st_mode;
        assert_eq!(mode & 0o777, 0o640);
    }

    #[test]
    fn damaged_and_torn_lines_are_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.history.jsonl");
        append(&path, &entry("1")).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for end in 1..whole.len() - 1 {
            std::fs::write(&path, &whole[..end]).unwrap();
            assert_eq!(ids(&path), [""; 0], "{end}");
            append(&path, &entry("2")).unwrap();
            assert_eq!(ids(&path), ["2"], "{end}");
        }
        // Whole but for its newline, which the next line brings.
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        append(&path, &entry("2")).unwrap();
        assert_eq!(ids(&path), ["1", "2"]);
        let long = "x".repeat(3 * LONGEST);
        for garbage in ["", "{}", "[]", "\0\0", "{\"id\":1}", "\u{fffd}", &long] {
            let mut text = whole.clone();
            text.extend(garbage.bytes());
            text.push(b'\n');
            text.extend(&whole);
            std::fs::write(&path, &text).unwrap();
            assert_eq!(ids(&path), ["1", "1"], "{garbage:.20}");
        }
        let newer = String::from_utf8(whole.clone())
            .unwrap()
            .replace("\"restarted\"", "\"moved\",\"where\":[1]");
        std::fs::write(&path, newer).unwrap();
        let mut events = Vec::new();
        read(&path, |entry| events.push(entry.event)).unwrap();
        assert_eq!(events, [HistoryEvent::Other]);
    }

    #[test]
    fn lines_across_the_reader_s_buffer_are_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.history.jsonl");
        let mut text = Vec::new();
        for number in 0..2000 {
            let id = format!("{number}{}", "-".repeat(number % 97));
            serde_json::to_writer(&mut text, &entry(&id)).unwrap();
            text.push(b'\n');
        }
        std::fs::write(&path, text).unwrap();
        let ids = ids(&path);
        assert_eq!(ids.len(), 2000);
        assert!(
            ids.iter()
                .enumerate()
                .all(|(number, id)| { id.trim_end_matches('-') == number.to_string() })
        );
    }

    #[test]
    fn a_full_file_is_renamed_and_both_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.history.jsonl");
        append(&path, &entry("old")).unwrap();
        let file = File::options().append(true).open(&path).unwrap();
        let mut filler = vec![b'x'; usize::try_from(FULL).unwrap()];
        filler.push(b'\n');
        (&file).write_all(&filler).unwrap();
        append(&path, &entry("new")).unwrap();
        assert_eq!(ids(&path), ["old", "new"]);
        assert!(std::fs::metadata(&path).unwrap().len() < 1000);
        // Another run that has it open still does not rename the new one.
        rotate(&path, &file);
        assert_eq!(ids(&path), ["old", "new"]);
    }

    #[test]
    fn nothing_but_a_file_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.history.jsonl");
        append(&older(&path), &entry("old")).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut ids = Vec::new();
        let reason = read(&path, |entry| ids.push(entry.id)).unwrap_err();
        assert_eq!(reason.to_string(), "not a regular file");
        assert_eq!(ids, ["old"]);
        assert!(append(&path, &entry("1")).is_err());
    }
}
