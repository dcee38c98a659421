//! One timestamped line for each event: to the log file, and to the terminal.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Local, SubsecRound};
use nix::libc;

use crate::cli::LogLevel;
use crate::secrets;
use crate::sys::terminal;

/// The longest text of one line, in characters; what is longer ends in `…`.
pub(crate) const LONGEST_LINE: usize = 2000;
/// A run logs no more below ERROR, in bytes, apart from what it quotes.
const MOST_LOGGED: usize = 64 << 10;
/// A run logs no more of the restart command's output, in bytes.
const MOST_OUTPUT: usize = 16 << 10;
/// Above and below a restart.
pub(crate) const BANNER: &str =
    "================================================================================";

/// How severe a line is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Level {
    /// Only with `--debug`; shown as DEBUG.
    Detail,
    /// How a step went.
    Debug,
    /// What was done.
    Info,
    /// What may need attention.
    Warning,
    /// What failed.
    Error,
    /// What needs attention now.
    Critical,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Detail | Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warning => "WARNING",
            Self::Error => "ERROR",
            Self::Critical => "CRITICAL",
        }
    }

    /// The least severe level that is logged.
    pub(crate) fn least(level: LogLevel, debug: bool) -> Self {
        match level {
            _ if debug => Self::Detail,
            LogLevel::Debug => Self::Debug,
            LogLevel::Info => Self::Info,
            LogLevel::Warning => Self::Warning,
            LogLevel::Error => Self::Error,
            LogLevel::Critical => Self::Critical,
        }
    }
}

/// The log of one server. Best effort: what cannot be written is told to stderr once.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: Option<File>,
    /// Before each line on the terminal.
    prefix: String,
    quiet: bool,
    least: Level,
    complained: Cell<bool>,
    /// Bytes that may still be logged below ERROR; none once that was said.
    room: Cell<Option<usize>>,
    /// Bytes that may still be logged of the restart command's output; none once that was said.
    output_room: Cell<Option<usize>>,
}

impl Journal {
    /// Its owner writes it, the owner's group reads it.
    pub(crate) const MODE: u32 = 0o640;

    /// The log at that path, opened for appending. A log that could not be opened is said once, on
    /// stderr.
    pub(crate) fn new(path: &Path, opened: io::Result<File>, quiet: bool, least: Level) -> Self {
        let mut journal = Self {
            path: path.to_owned(),
            file: None,
            prefix: String::new(),
            quiet,
            least,
            complained: Cell::new(false),
            room: Cell::new(Some(MOST_LOGGED)),
            output_room: Cell::new(Some(MOST_OUTPUT)),
        };
        match opened {
            Ok(file) => journal.file = Some(file),
            Err(reason) => journal.complain(&reason),
        }
        journal
    }

    /// Whether something could not be written to the log.
    pub(crate) fn is_lost(&self) -> bool {
        self.complained.get()
    }

    /// Names the server before each line on the terminal, which several servers share.
    pub(crate) fn named(mut self, name: &str) -> Self {
        self.prefix = format!("{name}: ");
        self
    }

    /// Writes one line, with one `write`, whatever the text holds. Once a run has logged 64 KiB, lines
    /// below ERROR are left out.
    pub(crate) fn log(&self, level: Level, text: &str) {
        if level < self.least {
            return;
        }
        let line = line(level, text);
        let kept = level >= Level::Error
            || spend(&self.room, line.len(), || {
                let limit = MOST_LOGGED >> 10;
                self.write(
                    Level::Warning,
                    &format!("This run has logged {limit} KiB: lines below ERROR are left out from here on"),
                );
            });
        if kept {
            self.put(level, &line);
        }
    }

    /// Writes a line of somebody else's text (a dump, the server's log), without its secrets, behind
    /// `prefix: `. How many there are is the caller's business.
    pub(crate) fn quote(&self, level: Level, prefix: &str, text: &str) {
        self.write(level, &format!("{prefix}: {}", secrets::without(text)));
    }

    /// Writes a line of the restart command's output as an ERROR, without its secrets; of all such
    /// lines no more than 16 KiB. The rest is in the file `whole`.
    pub(crate) fn output(&self, text: &str, whole: &Path) {
        let text = format!("Restart command: {}", secrets::without(text));
        let line = line(Level::Error, &text);
        let kept = spend(&self.output_room, line.len(), || {
            let whole = whole.display();
            self.write(
                Level::Error,
                &format!("Restart command: more than can be shown here, see {whole}"),
            );
        });
        if kept && Level::Error >= self.least {
            self.put(Level::Error, &line);
        }
    }

    fn write(&self, level: Level, text: &str) {
        if level >= self.least {
            self.put(level, &line(level, text));
        }
    }

    fn put(&self, level: Level, line: &str) {
        if let Some(mut file) = self.file.as_ref() {
            match file.write(line.as_bytes()) {
                Ok(written) if written == line.len() => (),
                Ok(_) => self.complain(&io::Error::from_raw_os_error(libc::ENOSPC)),
                Err(reason) => self.complain(&reason),
            }
        }
        if self.quiet {
            return;
        }
        let line = format!("{}{line}", self.prefix);
        if level >= Level::Error {
            terminal::say(&io::stderr(), &line);
        } else {
            terminal::say(&io::stdout(), &line);
        }
    }

    /// Logs at level DEBUG, with `--debug` only.
    pub(crate) fn detail(&self, text: &str) {
        self.log(Level::Detail, text);
    }

    /// Logs at level DEBUG.
    pub(crate) fn debug(&self, text: &str) {
        self.log(Level::Debug, text);
    }

    /// Logs at level INFO.
    pub(crate) fn info(&self, text: &str) {
        self.log(Level::Info, text);
    }

    /// Logs at level WARNING.
    pub(crate) fn warning(&self, text: &str) {
        self.log(Level::Warning, text);
    }

    /// Logs at level ERROR.
    pub(crate) fn error(&self, text: &str) {
        self.log(Level::Error, text);
    }

    /// Logs at level CRITICAL.
    pub(crate) fn critical(&self, text: &str) {
        self.log(Level::Critical, text);
    }

    fn complain(&self, reason: &io::Error) {
        if !self.complained.replace(true) {
            complain(&format!(
                "cannot write the log {}: {}; going on without it",
                self.path.display(),
                plain(reason)
            ));
        }
    }
}

fn line(level: Level, text: &str) -> String {
    format!(
        "[{}] [{}] {}\n",
        Local::now().naive_local().trunc_subsecs(0),
        level.name(),
        one_line(text)
    )
}

/// Takes that much of the room; whether there was as much. Calls `full` the first time there was not.
fn spend(room: &Cell<Option<usize>>, length: usize, full: impl FnOnce()) -> bool {
    let left = room.get();
    let after = left.and_then(|left| left.checked_sub(length));
    room.set(after);
    if left.is_some() && after.is_none() {
        full();
    }
    after.is_some()
}

/// One line on stderr, for what no log can take.
pub(crate) fn complain(text: &str) {
    let line = format!("{}: {}\n", env!("CARGO_PKG_NAME"), one_line(text));
    terminal::say(&io::stderr(), &line);
}

/// Text from outside as one printable line: control characters, line separators and
/// characters that turn the writing direction become `?`; at most `LONGEST_LINE` characters.
pub(crate) fn one_line(text: &str) -> String {
    let mut starts = text.char_indices().skip(LONGEST_LINE - 1);
    match (starts.next(), starts.next()) {
        (Some((last, _)), Some(_)) => text[..last].replace(is_hostile, "?") + "…",
        _ => text.replace(is_hostile, "?"),
    }
}

fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{feff}'
        )
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A duration in seconds, without needless zeros: `10`, `2.5`.
pub(crate) fn seconds(duration: Duration) -> String {
    if duration.subsec_nanos() == 0 {
        return duration.as_secs().to_string();
    }
    if duration < Duration::from_millis(1) {
        return duration.as_secs_f64().to_string();
    }
    let text = format!("{:.3}", duration.as_secs_f64());
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// An error's text as `strerror(3)` has it, without Rust's `(os error 2)`.
pub(crate) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(end) if text.ends_with(')') => text[..end].to_owned(),
        _ => text,
    }
}

/// The local calendar date of a Unix time.
pub(crate) fn date(unix_seconds: u64) -> String {
    i64::try_from(unix_seconds)
        .ok()
        .and_then(|time| DateTime::from_timestamp(time, 0))
        .map_or_else(
            || "an unknown date".into(),
            |time| time.with_timezone(&Local).format("%Y-%m-%d").to_string(),
        )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, clippy::unwrap_used)]

    use nix::errno::Errno;
    use proptest::prelude::*;
    use regex_lite::Regex;

    use super::*;
    use crate::fuzz::{fuzz, linear};

    const LEVELS: [Level; 6] = [
        Level::Detail,
        Level::Debug,
        Level::Info,
        Level::Warning,
        Level::Error,
        Level::Critical,
    ];

    fn journal(path: &Path, least: Level) -> Journal {
        let opened = crate::sys::files::open_append(path, Journal::MODE);
        Journal::new(path, opened, true, least)
    }

    /// What reaches the file of a journal that begins at `least`.
    fn written(least: Level, log: impl Fn(&Journal)) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("m.log");
        log(&journal(&path, least));
        std::fs::read_to_string(path).unwrap()
    }

    /// Any characters, hostile ones among them, at times more than a line takes.
    fn text() -> impl Strategy<Value = String> {
        let hostile = "[\\x00-\\x1f\\x7f-\u{9f}\u{200b}-\u{200f}\u{2028}-\u{202e}\u{2066}-\u{2069}\u{61c}\u{feff}]{0,3}";
        let piece = prop_oneof![".{0,20}", hostile, Just("\r\n".to_owned())];
        let pieces = proptest::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat());
        (pieces, prop_oneof![4 => Just(1), 1 => 1..400_usize])
            .prop_map(|(text, times)| text.repeat(times))
    }

    proptest! {
        #[test]
        fn one_line_is_one_printable_bounded_line(text in text()) {
            let line = one_line(&text);
            prop_assert!(!line.contains(char::is_control), "{line:?}");
            let turning = ['\u{61c}', '\u{200e}', '\u{200f}', '\u{2028}', '\u{2029}', '\u{feff}'];
            prop_assert!(!line.contains(turning), "{line:?}");
            prop_assert!(!line.contains(|c| ('\u{202a}'..='\u{202e}').contains(&c)), "{line:?}");
            prop_assert!(!line.contains(|c| ('\u{2066}'..='\u{2069}').contains(&c)), "{line:?}");
            prop_assert!(line.lines().count() <= 1);
            prop_assert_eq!(line.chars().count(), text.chars().count().min(LONGEST_LINE));
            prop_assert_eq!(one_line(&line), line);
        }

        #[test]
        fn one_line_leaves_printable_text_alone(text in "[ -~¡-ž…–“”€Ω字]{0,300}") {
            prop_assert_eq!(one_line(&text), text);
        }
    }

    #[test]
    fn a_long_line_is_cut_where_it_says_so() {
        let fits = "é".repeat(LONGEST_LINE);
        assert_eq!(one_line(&fits), fits);
        let cut = one_line(&format!("{fits}é"));
        assert!(cut.ends_with("é…") && cut.chars().count() == LONGEST_LINE);
    }

    #[test]
    fn whatever_is_logged_is_one_line_of_the_manuals_form() {
        let form = Regex::new(
            r"^\[[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}\] \[([A-Z]+)\] ([^\n]*)\n$",
        )
        .unwrap();
        for (text, shown) in [
            ("Server is healthy", "Server is healthy"),
            ("", ""),
            (
                "a\n[2026-01-01 00:00:00] [INFO] forged\r\n",
                "a?[2026-01-01 00:00:00] [INFO] forged??",
            ),
            ("\x1b[31mred\x07\u{85}\u{2028}\0", "?[31mred????"),
            ("\u{202e}gnp.exe", "?gnp.exe"),
            ("größe 字 100%", "größe 字 100%"),
        ] {
            for level in LEVELS {
                let line = written(Level::Detail, |journal| journal.log(level, text));
                let found = form.captures(&line).expect(&line);
                assert_eq!((&found[1], &found[2]), (level.name(), shown));
            }
        }
    }

    #[test]
    fn the_log_level_filters() {
        for (flag, debug, expected) in [
            (
                LogLevel::Debug,
                true,
                "detail debug info warning error critical",
            ),
            (
                LogLevel::Critical,
                true,
                "detail debug info warning error critical",
            ),
            (LogLevel::Debug, false, "debug info warning error critical"),
            (LogLevel::Info, false, "info warning error critical"),
            (LogLevel::Warning, false, "warning error critical"),
            (LogLevel::Error, false, "error critical"),
            (LogLevel::Critical, false, "critical"),
        ] {
            let log = written(Level::least(flag, debug), |journal| {
                journal.detail("detail");
                journal.debug("debug");
                journal.info("info");
                journal.warning("warning");
                journal.error("error");
                journal.critical("critical");
            });
            let logged: Vec<_> = log
                .lines()
                .filter_map(|line| line.split(' ').nth(3))
                .collect();
            assert_eq!(logged.join(" "), expected, "{flag:?} {debug}");
        }
    }

    #[test]
    fn hazard_44_a_run_logs_no_more_than_64_kib_besides_errors_and_what_it_quotes() {
        let many = |log: &dyn Fn(&Journal, &str)| {
            let text = "x".repeat(1000);
            written(Level::Detail, |journal| {
                (0..500).for_each(|_| log(journal, &text));
                journal.warning("warning");
                journal.error("error");
                journal.critical("critical");
            })
        };
        let log = many(&Journal::info);
        assert!((60_000..67_000).contains(&log.len()), "{}", log.len());
        assert_eq!(log.matches("This run has logged 64 KiB").count(), 1);
        assert!(!log.contains("] warning"));
        assert!(log.contains("] error") && log.contains("] critical"));
        let log = many(&|journal, text| journal.quote(Level::Info, "Server log", text));
        assert!(log.len() > 500_000 && log.contains("] warning"));
        let log = many(&|journal, text| journal.output(text, Path::new("/m.restart.log")));
        assert!((15_000..18_000).contains(&log.len()), "{}", log.len());
        assert_eq!(log.matches("see /m.restart.log").count(), 1);
        assert!(log.contains("] error"));
        let quoted = written(Level::Detail, |journal| {
            journal.quote(Level::Info, "Dump", "password=x");
            journal.output("--token x", Path::new("/m.restart.log"));
        });
        assert!(quoted.contains("Dump: password=***"), "{quoted}");
        assert!(quoted.contains("Restart command: --token ***"), "{quoted}");
    }

    #[test]
    fn a_second_journal_appends() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("m.log");
        for text in ["first", "second"] {
            journal(&path, Level::Info).info(text);
        }
        let log = std::fs::read_to_string(path).unwrap();
        assert_eq!(log.lines().count(), 2);
    }

    #[test]
    fn a_log_that_cannot_be_opened_is_no_error() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [directory.path(), &fifo, Path::new("/nowhere/at/all.log")] {
            let journal = journal(path, Level::Debug);
            journal.critical("lost");
            assert!(journal.is_lost(), "{}", path.display());
        }
    }

    #[test]
    fn seconds_have_no_needless_zeros() {
        for (nanos, shown) in [
            (0, "0"),
            (10_000_000_000, "10"),
            (100_000_000_000, "100"),
            (2_500_000_000, "2.5"),
            (500_000_000, "0.5"),
            (50_000_000, "0.05"),
            (1_234_567_890, "1.235"),
            (10_000_400_000, "10"),
            (1_999_900_000, "2"),
            (99_999_900_000, "100"),
            (100_000, "0.0001"),
            (3_600_000_000_000, "3600"),
        ] {
            assert_eq!(seconds(Duration::from_nanos(nanos)), shown, "{nanos}");
        }
    }

    #[test]
    fn errors_are_plain() {
        let of = |errno: Errno| io::Error::from(errno);
        for (error, shown) in [
            (of(Errno::ENOENT), "No such file or directory"),
            (of(Errno::EACCES), "Permission denied"),
            (of(Errno::ENOSPC), "No space left on device"),
            (of(Errno::ECONNREFUSED), "Connection refused"),
            (io::Error::other(of(Errno::EPIPE)), "Broken pipe"),
            (io::Error::other("not a regular file"), "not a regular file"),
            (io::ErrorKind::TimedOut.into(), "timed out"),
        ] {
            assert_eq!(plain(&error), shown);
        }
        for number in -1..200 {
            let text = plain(&io::Error::from_raw_os_error(number));
            assert!(!text.is_empty() && !text.contains("os error"), "{text}");
        }
    }

    #[test]
    fn any_time_has_a_date() {
        assert!(["1969-12-31", "1970-01-01"].contains(&date(0).as_str()));
        assert!(
            date(8_210_266_876_799).contains("262142")
                || date(8_210_266_876_799).contains("262143")
        );
        for absurd in [8_210_266_876_800, u64::MAX, 1 << 63] {
            assert_eq!(date(absurd), "an unknown date");
        }
    }

    #[test]
    fn fuzz_untrusted_text() {
        let seeds: [&[u8]; 3] = [
            b"a\n[2026-01-01 00:00:00] [INFO] forged\r\n",
            "\x1b[31mred\x07\u{85}\u{2028}\0\u{202e}gnp.exe 字é".as_bytes(),
            &[0xff, 0xc3, 0xf0, 0x9f, 0x98],
        ];
        let target = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            let shown = line(Level::Info, &text);
            assert!(!shown[..shown.len() - 1].contains(is_hostile), "{shown:?}");
            assert!(shown.ends_with('\n') && shown.chars().count() <= LONGEST_LINE + 40);
        };
        fuzz(&seeds, target);
        for piece in ["\n", "é", "\u{202e}", "x"] {
            linear(|size| piece.repeat(size / piece.len()).into_bytes(), target);
        }
    }
}
