//! A process on its way from the search to the signal and to the diagnosis.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde::{Deserialize, Serialize};

/// A process. PID and start time together identify it: the PID alone may be another's by now.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct Process {
    /// The process ID in our PID namespace.
    pub(crate) pid: i32,
    /// Its parent's.
    pub(crate) parent: i32,
    /// Clock ticks from boot to its start (`proc_pid_stat(5)`, field 22).
    pub(crate) start_time: u64,
    /// Effective user ID.
    pub(crate) uid: u32,
    /// Effective group ID.
    pub(crate) gid: u32,
    /// Its arguments, joined by spaces.
    pub(crate) command: String,
    /// Hash of its arguments (`hash`).
    pub(crate) argv: u64,
    /// Whether it is `manage.py`, which starts and stops a server and seldom is one.
    pub(crate) is_manager: bool,
}

/// A number by which the arguments of a process are recognised, as far as they are read.
pub(crate) fn hash(cmdline: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    cmdline.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_arguments_have_another_hash() {
        let argv = b"python3\0/opt/myvnc/main.py\0";
        assert_eq!(hash(argv), hash(argv));
        assert_ne!(hash(argv), hash(b"python3\0/opt/myvnc/main.p"));
        assert_ne!(hash(argv), hash(b""));
    }
}
