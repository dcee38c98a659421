//! Texts of the log: one printable line, durations, errno texts and dates.

use std::borrow::Cow;
use std::fmt::Write;
use std::io;
use std::time::Duration;

use chrono::{DateTime, Local};
use nix::errno::Errno;

/// The longest text of one line, in characters; what is longer ends in `…`.
pub(crate) const LONGEST_LINE: usize = 2000;
/// Characters of a command line, or of a name, that are shown, at most.
const LONGEST_COMMAND: usize = 200;
/// Bytes of them.
const MOST_BYTES: usize = 400;

/// Text from outside as one printable line: control characters, line separators and
/// characters that turn the writing direction become `?`; at most `LONGEST_LINE` characters.
pub(crate) fn one_line(text: &str) -> String {
    printable(text).into_owned()
}

/// The same, without a copy of a text that is such a line.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| (b' '..=b'~').contains(&byte);
    if text.len() <= LONGEST_LINE && text.bytes().all(is_plain) {
        return text.into();
    }
    let mut starts = text.char_indices().skip(LONGEST_LINE - 1);
    let line = match (starts.next(), starts.next()) {
        (Some((last, _)), Some(_)) => text[..last].replace(is_hostile, "?") + "…",
        _ => text.replace(is_hostile, "?"),
    };
    line.into()
}

/// The first 200 characters (400 bytes) of a command line or a name from outside, then `…`: a line keeps room for what
/// follows, and a log for what comes after the names of many processes. Secrets are masked before: half of one is not
/// recognised.
pub(crate) fn shortened(text: String) -> String {
    cut(text, LONGEST_COMMAND, MOST_BYTES)
}

/// A sentence, cut to half a line: what to do, which follows it, stays on the line.
pub(crate) fn half_a_line(sentence: &str) -> String {
    cut(sentence.to_owned(), LONGEST_LINE / 2, usize::MAX)
}

fn cut(text: String, most_characters: usize, most_bytes: usize) -> String {
    let mut characters = text.char_indices().enumerate();
    let is_over = |(count, (at, c)): &(usize, (usize, char))| {
        *count == most_characters || at + c.len_utf8() > most_bytes
    };
    match characters.find(is_over) {
        Some((_, (end, _))) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// JSON in which the characters that `printable` replaces are escapes. serde escapes only those before the space.
pub(crate) fn escaped(json: String) -> String {
    let is_escaped = |c: char| c >= '\u{7f}' && is_hostile(c);
    let is_plain = json.is_ascii() && memchr::memchr(0x7f, json.as_bytes()).is_none();
    if is_plain || !json.contains(is_escaped) {
        return json;
    }
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if is_escaped(c) {
            let _ = write!(text, "\\u{:04x}", u32::from(c));
        } else {
            text.push(c);
        }
    }
    text
}

fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{feff}'
        )
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A duration in seconds, to the millisecond and without needless zeros: `10`, `2.5`. Below a
/// millisecond, down to the first digit that is not 0: `0.0005`.
pub(crate) fn seconds(duration: Duration) -> String {
    if duration.subsec_nanos() == 0 {
        return duration.as_secs().to_string();
    }
    if duration < Duration::from_millis(1) {
        let places = (4..=9).find(|places| duration.as_nanos() >= 10_u128.pow(9 - places));
        return format!(
            "{:.*}",
            places.unwrap_or(9) as usize,
            duration.as_secs_f64()
        );
    }
    let text = format!("{:.3}", duration.as_secs_f64());
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// An error's text as glibc's `strerror(3)` has it, whatever C library this is built with, and without Rust's
/// `(os error 2)`.
pub(crate) fn errno_text(error: &io::Error) -> String {
    let text = error.to_string();
    let number = text
        .rsplit_once(" (os error ")
        .and_then(|(_, number)| number.strip_suffix(')')?.parse().ok());
    let Some(number) = number else {
        return text;
    };
    // What stands before the errno text says what the error is about.
    let of_errno = io::Error::from_raw_os_error(number).to_string();
    let before = text.strip_suffix(&of_errno).unwrap_or_default();
    match Errno::from_raw(number) {
        Errno::UnknownErrno => format!("{before}Unknown error {number}"),
        errno => format!("{before}{}", strerror(errno)),
    }
}

/// Where the kernel's own description, which nix has, is not glibc's.
fn strerror(errno: Errno) -> &'static str {
    match errno {
        Errno::EAFNOSUPPORT => "Address family not supported by protocol",
        Errno::EAGAIN => "Resource temporarily unavailable",
        Errno::EBADF => "Bad file descriptor",
        Errno::EBADMSG => "Bad message",
        Errno::EDEADLK => "Resource deadlock avoided",
        Errno::EDOM => "Numerical argument out of domain",
        Errno::EDQUOT => "Disk quota exceeded",
        Errno::EILSEQ => "Invalid or incomplete multibyte or wide character",
        Errno::EIO => "Input/output error",
        Errno::ELOOP => "Too many levels of symbolic links",
        Errno::ENETRESET => "Network dropped connection on reset",
        Errno::ENFILE => "Too many open files in system",
        Errno::ENOLCK => "No locks available",
        Errno::ENOMEM => "Cannot allocate memory",
        Errno::ENOTTY => "Inappropriate ioctl for device",
        Errno::EOPNOTSUPP => "Operation not supported",
        Errno::ERANGE => "Numerical result out of range",
        Errno::EXDEV => "Invalid cross-device link",
        errno => errno.desc(),
    }
}

/// The end of something at a Unix time: the local time of the minute in which it is over, with the date where
/// that is another day's.
pub(crate) fn end(unix_seconds: u64) -> String {
    let time = i64::try_from(unix_seconds.div_ceil(60).saturating_mul(60))
        .ok()
        .and_then(|time| DateTime::from_timestamp(time, 0));
    let Some(time) = time.map(|time| time.with_timezone(&Local)) else {
        return "an unknown time".into();
    };
    let is_today = time.date_naive() == Local::now().date_naive();
    let format = if is_today { "%H:%M" } else { "%Y-%m-%d %H:%M" };
    time.format(format).to_string()
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
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;
    use crate::fuzz::{fuzz, linear};

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

    proptest! {
        #[test]
        fn escaped_json_means_the_same_and_is_printable(text in text()) {
            let json = serde_json::to_string(&text).unwrap();
            let escaped = escaped(json);
            prop_assert!(!escaped.contains(is_hostile), "{escaped:?}");
            prop_assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), text);
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
            (
                io::Error::other(format!("/dev/null: {}", of(Errno::EMFILE))),
                "/dev/null: Too many open files",
            ),
        ] {
            assert_eq!(errno_text(&error), shown);
        }
        for number in -1..200 {
            let text = errno_text(&io::Error::from_raw_os_error(number));
            assert!(!text.is_empty() && !text.contains("os error"), "{text}");
        }
    }

    #[test]
    #[cfg(target_env = "gnu")]
    fn errors_have_the_texts_of_glibc() {
        // The numbers of errno(3) on Linux.
        for number in 1..=133 {
            let error = io::Error::from_raw_os_error(number);
            let shown = format!("{} (os error {number})", errno_text(&error));
            assert_eq!(shown, error.to_string());
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
            let shown = one_line(&text);
            assert!(!shown.contains(is_hostile), "{shown:?}");
            assert!(shown.chars().count() <= LONGEST_LINE);
        };
        fuzz(&seeds, target);
        for piece in ["\n", "é", "\u{202e}", "x"] {
            linear(|size| piece.repeat(size / piece.len()).into_bytes(), target);
        }
    }
}
