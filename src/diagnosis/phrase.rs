//! How sentences write a process, a duration and an amount. Only `std`: `build.rs` includes it.

use std::fmt;
use std::time::Duration;

/// A process that a sentence mentions.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Mentioned {
    pub(crate) pid: i32,
    pub(crate) command: String,
    pub(crate) state: char,
    pub(crate) age: Duration,
    /// When it was started, in clock ticks since boot.
    pub(crate) start_time: u64,
    /// Whether its descriptors cannot be read.
    pub(crate) is_hidden: bool,
}

impl Mentioned {
    /// The name of its program.
    pub(crate) fn program(&self) -> String {
        let first = self.command.split_whitespace().next().unwrap_or_default();
        let name = first.rsplit('/').next().unwrap_or_default();
        name.to_owned()
    }
}

impl fmt::Display for Mentioned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = if self.is_hidden {
            ", of another user, descriptors not visible"
        } else {
            ""
        };
        write!(
            f,
            "PID {} (state {}, for {}{hidden}): {}",
            self.pid,
            self.state,
            ago(self.age),
            self.command
        )
    }
}

/// A duration as an administrator says it.
pub(crate) fn ago(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Bytes in MiB.
pub(crate) fn mebibytes(bytes: u64) -> u64 {
    bytes >> 20
}

/// All items, with this between them.
pub(crate) fn list<T: fmt::Display>(items: &[T], between: &str) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    items.join(between)
}
