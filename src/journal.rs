//! One timestamped line for each event: to the log file, and to the terminal.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use chrono::{Local, SubsecRound};
use nix::libc;

use crate::cli::LogLevel;
use crate::redact;
use crate::sys::{cached, progress, terminal};
use crate::text::{errno_text, one_line};

/// Limit of what a run logs below ERROR, in bytes, not counting quoted lines.
const MOST_LOGGED: usize = 40 << 10;
/// Limit of what a run logs at level ERROR, in bytes, not counting the restart command's output.
const MOST_ERRORS: usize = 8 << 10;
/// Limit of what a run logs of the restart command's output, in bytes.
const MOST_OUTPUT: usize = 16 << 10;
/// Line above and below a restart.
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

/// The log of one server. If it cannot be written, one message goes to stderr.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: Option<File>,
    /// Text before each line on the terminal.
    prefix: String,
    quiet: bool,
    least: Level,
    complained: Cell<bool>,
    /// Bytes left to log below ERROR; none after the limit was reported.
    room: Cell<Option<usize>>,
    /// Bytes left to log at level ERROR; none after the limit was reported.
    error_room: Cell<Option<usize>>,
    /// Bytes left to log of the restart command's output; none after the limit was reported.
    output_room: Cell<Option<usize>>,
}

impl Journal {
    /// Mode of a new log: its owner can write it, the owner's group can read it.
    pub(crate) const MODE: u32 = 0o640;

    /// The log at that path, opened for appending. If it could not be opened, one message goes to
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
            error_room: Cell::new(Some(MOST_ERRORS)),
            output_room: Cell::new(Some(MOST_OUTPUT)),
        };
        match opened {
            Ok(file) => journal.file = Some(file),
            Err(reason) => journal.complain(&reason),
        }
        journal
    }

    /// The device of the log, whose disk a run waits for; none if it could not be opened.
    pub(crate) fn device(&self) -> Option<u64> {
        self.file.as_ref().and_then(cached::device)
    }

    /// Whether something could not be written to the log.
    pub(crate) fn is_lost(&self) -> bool {
        self.complained.get()
    }

    /// Puts the name of the server before each line on the terminal, which several servers share.
    pub(crate) fn named(mut self, name: &str) -> Self {
        self.prefix = format!("{name}: ");
        self
    }

    /// Writes one line, with one `write`. Lines below ERROR and those of ERROR have a limit each, so that many warnings
    /// leave room for errors.
    pub(crate) fn log(&self, level: Level, text: &str) {
        if level < self.least {
            return;
        }
        let line = line(level, text);
        let (room, most, what) = match level {
            Level::Critical => return self.put(level, &line),
            Level::Error => (
                &self.error_room,
                MOST_ERRORS,
                "of errors: further ERROR lines",
            ),
            _ => (&self.room, MOST_LOGGED, "below ERROR: further such lines"),
        };
        let kept = spend(room, line.len(), || {
            let limit = most >> 10;
            self.write(
                level.max(Level::Warning),
                &format!("This run has logged {limit} KiB {what} are left out"),
            );
        });
        if kept {
            self.put(level, &line);
        }
    }

    /// Writes a line of another program's text (a dump, the server's log), with its secrets masked,
    /// after `prefix: `. The caller limits the number of lines.
    pub(crate) fn quote(&self, level: Level, prefix: &str, text: &str) {
        self.write(level, &format!("{prefix}: {}", redact::redacted(text)));
    }

    /// Writes a line of the restart command's output as an ERROR, with its secrets masked, up to 16 KiB
    /// in a run. The complete output is in the file `whole`.
    pub(crate) fn output(&self, text: &str, whole: &Path) {
        let text = format!("Restart command: {}", redact::redacted(text));
        let line = line(Level::Error, &text);
        let kept = spend(&self.output_room, line.len(), || {
            let whole = whole.display();
            self.write(
                Level::Error,
                &format!("Restart command: the complete output is in {whole}"),
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
        progress::hide();
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
            warn_stderr(&format!(
                "cannot write the log {}: {}; this run continues without it",
                self.path.display(),
                errno_text(reason)
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

/// Takes that many bytes of the room, and returns whether there were as many. Calls `full` the first
/// time that there were not.
fn spend(room: &Cell<Option<usize>>, length: usize, full: impl FnOnce()) -> bool {
    let left = room.get();
    let after = left.and_then(|left| left.checked_sub(length));
    room.set(after);
    if left.is_some() && after.is_none() {
        full();
    }
    after.is_some()
}

/// One line on stderr, for what cannot go to a log.
pub(crate) fn warn_stderr(text: &str) {
    let line = format!("{}: {}\n", env!("CARGO_PKG_NAME"), one_line(text));
    terminal::say(&io::stderr(), &line);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, clippy::unwrap_used)]

    use regex_lite::Regex;

    use super::*;

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
    fn hazard_44_a_run_logs_no_more_than_64_kib_besides_critical_lines_and_what_it_quotes() {
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
        assert!((39_000..41_500).contains(&log.len()), "{}", log.len());
        assert_eq!(log.matches("This run has logged").count(), 1);
        assert!(log.contains("logged 40 KiB below ERROR: further such lines are left out"));
        assert!(!log.contains("] warning"));
        assert!(log.contains("] error") && log.contains("] critical"));
        let log = many(&Journal::error);
        assert!((7_000..9_000).contains(&log.len()), "{}", log.len());
        assert_eq!(log.matches("This run has logged").count(), 1);
        assert!(log.contains("logged 8 KiB of errors: further ERROR lines are left out"));
        assert!(log.contains("] warning") && log.contains("] critical"));
        assert!(!log.contains("] error"));
        let log = many(&Journal::critical);
        assert!(log.len() > 500_000);
        let log = many(&|journal, text| journal.quote(Level::Info, "Server log", text));
        assert!(log.len() > 500_000 && log.contains("] warning"));
        let log = many(&|journal, text| journal.output(text, Path::new("/m.restart.log")));
        assert!((15_000..18_000).contains(&log.len()), "{}", log.len());
        assert_eq!(log.matches("output is in /m.restart.log").count(), 1);
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
}
