//! One timestamped line for each event: to the log file, and to the terminal.

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Local};
use nix::libc;

use crate::cli::LogLevel;

/// The longest text of one line, in characters; what is longer ends in `…`.
pub(crate) const LONGEST_LINE: usize = 2000;
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
    quiet: bool,
    least: Level,
    complained: Cell<bool>,
}

impl Journal {
    /// Opens the log for appending. A log that cannot be opened is no error.
    pub(crate) fn open(path: &Path, quiet: bool, least: Level) -> Self {
        // O_NONBLOCK: a FIFO without a reader must not hold the run.
        let opened = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o644)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path);
        let mut journal = Self {
            path: path.to_owned(),
            file: None,
            quiet,
            least,
            complained: Cell::new(false),
        };
        match opened {
            Ok(file) => journal.file = Some(file),
            Err(reason) => journal.complain(&reason),
        }
        journal
    }

    /// Writes one line, with one `write`, whatever the text holds.
    pub(crate) fn log(&self, level: Level, text: &str) {
        if level < self.least {
            return;
        }
        let line = format!(
            "[{}] [{}] {}\n",
            Local::now().format("%Y-%m-%d %H:%M:%S"),
            level.name(),
            one_line(text)
        );
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
        // A terminal that is gone must not end the run either.
        let _ = if level >= Level::Error {
            io::stderr().write_all(line.as_bytes())
        } else {
            io::stdout().write_all(line.as_bytes())
        };
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

/// One line on stderr, for what no log can take.
pub(crate) fn complain(text: &str) {
    let _ = writeln!(
        io::stderr(),
        "{}: {}",
        env!("CARGO_PKG_NAME"),
        one_line(text)
    );
}

/// Text from outside as one printable line: control characters, line separators and
/// characters that turn the writing direction become `?`; at most `LONGEST_LINE` characters.
pub(crate) fn one_line(text: &str) -> String {
    let mut line: String = text
        .chars()
        .take(LONGEST_LINE)
        .map(|c| if is_hostile(c) { '?' } else { c })
        .collect();
    if text.chars().nth(LONGEST_LINE).is_some() {
        line.pop();
        line.push('…');
    }
    line
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
    let text = format!("{:.3}", duration.as_secs_f64());
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// An error's text as `strerror(3)` has it, without Rust's `(os error 2)`.
pub(crate) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(end) if error.raw_os_error().is_some() => text[..end].to_owned(),
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
