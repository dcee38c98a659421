//! How sentences write a process, a duration and an amount. Only `std`: `build.rs` includes it.

use std::fmt;
use std::time::Duration;

/// Programs that run a script, without the digits of a version at their end.
const INTERPRETERS: [&str; 10] = [
    "sh", "bash", "dash", "ksh", "zsh", "csh", "tcsh", "perl", "python", "ruby",
];

/// Whose processes a run may see (`ptrace(2)`, "Ptrace access mode checking").
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Sight {
    /// Those of its own user, who is not root.
    Own,
    /// It is root, and lacks CAP_SYS_PTRACE.
    WithoutCapability,
    /// Everybody's.
    All,
}

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
    /// The name of its program; of a script, where an interpreter runs one.
    pub(crate) fn program(&self) -> String {
        let file = |word: &str| {
            // A kernel thread's name can contain a slash.
            let directories = word.rfind('/').filter(|_| !word.starts_with('['));
            word[directories.map_or(0, |slash| slash + 1)..].to_owned()
        };
        let mut words = self.command.split_whitespace();
        let program = words.next().map(file).unwrap_or_default();
        let bare = program.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
        let script = words.next().filter(|word| !word.starts_with('-'));
        match script {
            Some(script) if INTERPRETERS.contains(&bare) => file(script),
            _ => program,
        }
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
    let (number, unit) = match seconds {
        0..=119 => (seconds, " s"),
        120..=7199 => (seconds / 60, " min"),
        7200..=172_799 => (seconds / 3600, " h"),
        _ => (seconds / 86_400, " days"),
    };
    number.to_string() + unit
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_named_and_not_its_interpreter() {
        for (command, program) in [
            ("/usr/bin/bjobs -u all", "bjobs"),
            ("sh /opt/lsf/bin/bjobs -u all", "bjobs"),
            ("/usr/bin/python3.11 /opt/wrap.py x", "wrap.py"),
            ("bash -c bjobs", "bash"),
            ("sh", "sh"),
            ("sleep 1000", "sleep"),
            ("[kworker/0:1]", "[kworker/0:1]"),
            ("", ""),
        ] {
            let mentioned = Mentioned {
                command: command.to_owned(),
                ..Mentioned::default()
            };
            assert_eq!(mentioned.program(), program, "{command}");
        }
    }
}
