//! How the verbs write times, and lines for a terminal.

use std::borrow::Cow;
use std::fmt::Write;
use std::time::Duration;

use chrono::{DateTime, Datelike, Local, TimeZone, Timelike};

pub(crate) use crate::diagnosis::phrase::ago;
use crate::state::time::Time;
use crate::text::printable;

/// Width of a terminal that no line exceeds, in columns.
pub(crate) const WIDTH: usize = 79;

/// In the local time zone.
pub(crate) fn local(time: Time) -> DateTime<Local> {
    Local.from_utc_datetime(&time.utc().naive_utc())
}

/// Adds a moment with its date: `2025-12-24 04:22:07`, many times as fast as chrono formats it.
pub(crate) fn put_date(line: &mut String, time: Time) {
    // With its zone, it would be converted for each of the numbers.
    let there = local(time).naive_local();
    let year = u32::try_from(there.year()).unwrap_or_default();
    let mut date = *b"0000-00-00 00:00:00";
    for (at, number) in [
        (0, year / 100),
        (2, year),
        (5, there.month()),
        (8, there.day()),
        (11, there.hour()),
        (14, there.minute()),
        (17, there.second()),
    ] {
        let [number, ..] = (number % 100).to_le_bytes();
        date[at] += number / 10;
        date[at + 1] += number % 10;
    }
    line.push_str(&String::from_utf8_lossy(&date));
}

/// A moment near now: `10:22`, `Tue 04:22`, `2025-12-24 04:22`.
pub(crate) fn clock(time: Time, now: Time) -> String {
    let (there, here) = (local(time), local(now));
    let days = (there.date_naive() - here.date_naive()).num_days();
    let format = match days {
        0 => "%H:%M",
        -6..=6 => "%a %H:%M",
        _ => "%Y-%m-%d %H:%M",
    };
    there.format(format).to_string()
}

/// The end of something, as `clock` writes it: not before the minute in which it is over.
pub(crate) fn end(time: Time, now: Time) -> String {
    clock(Time(time.0.div_ceil(60).saturating_mul(60)), now)
}

/// The beginning of an incident in five columns: `06:41` today, `Tue` in the last days, `11-25` before.
pub(crate) fn day(time: Time, now: Time) -> String {
    let (there, here) = (local(time), local(now));
    let days = (here.date_naive() - there.date_naive()).num_days();
    let format = match days {
        0 => "%H:%M",
        1..=6 => "%a",
        _ => "%m-%d",
    };
    there.format(format).to_string()
}

/// How long ago a moment was.
pub(crate) fn since(time: Time, now: Time) -> String {
    ago(time.before(now).unwrap_or_default())
}

/// Seconds as `ago` writes them.
pub(crate) fn seconds(seconds: u64) -> String {
    ago(Duration::from_secs(seconds))
}

/// A number and its noun: `1 restart`, `2 restarts`.
pub(crate) fn number(number: u64, noun: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{s}")
}

/// The name as an argument of a shell's command.
pub(crate) fn quoted(name: &str) -> String {
    shlex::try_quote(name).map_or_else(|_| name.to_owned(), Cow::into_owned)
}

/// Untrusted text in at most so many columns.
pub(crate) fn short(text: &str, most: usize) -> Cow<'_, str> {
    let text = printable(text);
    if text.chars().count() <= most {
        return text;
    }
    let kept: String = text.chars().take(most.saturating_sub(1)).collect();
    (kept + "…").into()
}

/// Breaks a text at spaces: the first line begins with `head`, others with as many spaces as that is wide.
pub(crate) fn wrap(head: &str, text: &str, out: &mut String) {
    let indent = head.chars().count();
    out.push_str(head);
    let mut column = indent;
    let mut is_first = true;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let width = word.chars().count();
        if !is_first && column + 1 + width > WIDTH {
            let _ = write!(out, "\n{:indent$}", "");
            column = indent;
        } else if !is_first {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += width;
        is_first = false;
    }
    out.truncate(out.trim_end_matches(' ').len());
    out.push('\n');
}

/// How a terminal is written to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    /// Whether it shows more than ASCII.
    pub(crate) is_unicode: bool,
    pub(crate) has_color: bool,
}

impl Style {
    /// The style of standard output: the locale decides on characters (setlocale(3)), the terminal and
    /// NO_COLOR (no-color.org) on colour.
    pub(crate) fn of_stdout() -> Self {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let locale = set("LC_ALL")
            .or_else(|| set("LC_CTYPE"))
            .or_else(|| set("LANG"));
        let locale = locale.map(|locale| locale.to_string_lossy().to_ascii_lowercase());
        let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stdout());
        let is_dumb = set("TERM").is_some_and(|term| term == "dumb");
        Self {
            is_unicode: locale
                .is_some_and(|locale| locale.contains("utf-8") || locale.contains("utf8")),
            has_color: is_terminal && !is_dumb && set("NO_COLOR").is_none(),
        }
    }

    /// The text in a colour (console_codes(4)).
    pub(crate) fn paint(self, color: u8, text: &str) -> String {
        if self.has_color {
            format!("\x1b[{color}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// The text in characters that the terminal shows.
    pub(crate) fn plain(self, text: String) -> String {
        if self.is_unicode || text.is_ascii() {
            return text;
        }
        let shown = text.chars().map(|c| match c {
            '…' => '~',
            c if c.is_ascii() => c,
            _ => '?',
        });
        shown.collect()
    }
}
