//! What was last told to the dead man's switch: `ok` or `fail`, and the Unix time of the last warning about it.
//! The file's modification time is that of the ping.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::time::Time;
use super::{MODE, file};

/// Least time between two pings: 20 seconds, less a second by which a timer may be early.
const INTERVAL: Duration = Duration::from_secs(19);
/// Read limit of the file, in bytes.
const LONGEST: u64 = 64;

/// The last ping.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Ping {
    is_success: bool,
    /// When the log last said that a ping did not get through; none if the last one did.
    warned: Option<Time>,
}

impl Ping {
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let is_success = match words.next()? {
            "ok" => true,
            "fail" => false,
            _ => return None,
        };
        let warned = words.next().and_then(|word| word.parse().ok()).map(Time);
        Some(Self { is_success, warned })
    }

    fn render(self) -> String {
        let word = if self.is_success { "ok" } else { "fail" };
        let warned = self.warned.map(|warned| format!(" {}", warned.0));
        format!("{word}{}\n", warned.unwrap_or_default())
    }
}

/// Whether a ping is due.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum Due {
    /// The last one was a moment ago.
    Not,
    /// It is written down as sent.
    Now {
        /// When the log last said that a ping did not get through; none if the last one did.
        warned: Option<Time>,
    },
}

/// Writes down a ping now, if one is due: 20 seconds after the last one, or at once where a success becomes a
/// failure.
///
/// # Errors
/// The file cannot be read and written, is not a regular file, or belongs to somebody other than root and us.
pub(crate) fn begin(path: &Path, is_success: bool) -> io::Result<Due> {
    let (file, before) = open(path)?;
    if let Some(before) = before {
        let fell = before.is_success && !is_success;
        // A time in the future is no reason to wait for it.
        let age = SystemTime::now().duration_since(file.metadata()?.modified()?);
        if !fell && age.is_ok_and(|age| age < INTERVAL) {
            return Ok(Due::Not);
        }
    }
    let warned = before.and_then(|before| before.warned);
    write(&file, Ping { is_success, warned })?;
    Ok(Due::Now { warned })
}

/// Keeps when the log last said that a ping did not get through. The time of the ping stays.
///
/// # Errors
/// As for `begin`.
pub(crate) fn keep(path: &Path, warned: Option<Time>) -> io::Result<()> {
    let (file, before) = open(path)?;
    let at = file.metadata()?.modified()?;
    let before = before.unwrap_or_default();
    write(&file, Ping { warned, ..before })?;
    file.set_modified(at)
}

fn open(path: &Path) -> io::Result<(File, Option<Ping>)> {
    let (file, _) = file::open_or_make(path, OFlags::RDWR, MODE)?;
    let mut text = Vec::new();
    (&file).take(LONGEST).read_to_end(&mut text)?;
    let before = Ping::parse(&String::from_utf8_lossy(&text));
    Ok((file, before))
}

fn write(file: &File, ping: Ping) -> io::Result<()> {
    let text = ping.render();
    file.write_all_at(text.as_bytes(), 0)?;
    file.set_len(text.len() as u64)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn pings_are_20_seconds_apart_unless_a_success_becomes_a_failure() {
        const FIRST: Due = Due::Now { warned: None };
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.ping");
        let age = |seconds| {
            let file = File::options().write(true).open(&path).unwrap();
            let now = SystemTime::now();
            let at = now.checked_sub(Duration::from_secs(seconds)).unwrap();
            file.set_modified(at).unwrap();
        };
        for (seconds, is_success, expected) in [
            (None, true, FIRST),
            (Some(0), true, Due::Not),
            (Some(18), true, Due::Not),
            (Some(20), true, FIRST),
            (Some(1), false, FIRST),
            (Some(1), false, Due::Not),
            (Some(1), true, Due::Not),
            (Some(20), true, FIRST),
            (Some(1), false, FIRST),
            (Some(20), false, FIRST),
        ] {
            if let Some(seconds) = seconds {
                age(seconds);
            }
            assert_eq!(begin(&path, is_success).unwrap(), expected, "{seconds:?}");
        }
        let future = SystemTime::now() + Duration::from_secs(3600);
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(future).unwrap();
        assert_eq!(
            begin(&path, false).unwrap(),
            FIRST,
            "the clock was set back"
        );
        std::fs::write(&path, "garbage").unwrap();
        assert_eq!(begin(&path, true).unwrap(), FIRST);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "ok\n");
    }

    #[test]
    fn a_warning_is_kept_and_the_time_of_the_ping_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.ping");
        begin(&path, false).unwrap();
        let at = std::fs::metadata(&path).unwrap().modified().unwrap();
        let warned = Some(Time(1_764_052_868));
        keep(&path, warned).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().modified().unwrap(), at);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "fail 1764052868\n");
        let long_ago = SystemTime::UNIX_EPOCH;
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(long_ago)
            .unwrap();
        assert_eq!(begin(&path, true).unwrap(), Due::Now { warned });
        keep(&path, None).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "ok\n");
    }
}
