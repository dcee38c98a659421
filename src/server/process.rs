//! What a search of /proc has found, and its way from the process that searches to the one that asked.

use std::io::{self, Write};

use nix::unistd::Uid;

/// A process, as (PID, start time): the PID alone may be another's by now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Process {
    /// The process ID in our PID namespace.
    pub(crate) pid: i32,
    /// Its parent's.
    pub(crate) parent: i32,
    /// Clock ticks from boot to its start (`proc_pid_stat(5)`, field 22).
    pub(crate) start_time: u64,
    /// Whose it is (effective user ID).
    pub(crate) owner: Uid,
    /// Its arguments, joined by spaces.
    pub(crate) command: String,
    /// Whether it is `manage.py`, which starts and stops a server and seldom is one.
    pub(crate) is_manager: bool,
}

/// What was found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Found {
    /// The server's processes, in the order of their PIDs.
    pub(crate) server: Vec<Process>,
    /// Those of them that listen on the URL's port, where that can be seen.
    pub(crate) listening: Vec<i32>,
    /// What matches and is not this server, each with the reason.
    pub(crate) spared: Vec<(Process, String)>,
}

/// Between two fields; no argument and no reason holds it.
const BETWEEN: char = '\0';
/// The fields of one process.
const FIELDS: usize = 8;
/// The last field of all.
const END: &str = "end";

impl Found {
    /// No server, for all that matches is left alone for this reason.
    pub(super) fn none_but(matching: Vec<Process>, reason: &str) -> Self {
        let spared = matching
            .into_iter()
            .map(|process| (process, reason.to_owned()));
        Self {
            spared: spared.collect(),
            ..Self::default()
        }
    }

    /// Writes it for `read`.
    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let server = self.server.iter().map(|process| (process, ""));
        let spared = self.spared.iter();
        let spared = spared.map(|(process, reason)| (process, reason.as_str()));
        let mut text = String::new();
        for (process, reason) in server.chain(spared) {
            let fields: [String; FIELDS] = [
                process.pid.to_string(),
                process.parent.to_string(),
                process.start_time.to_string(),
                process.owner.to_string(),
                u8::from(process.is_manager).to_string(),
                u8::from(self.listening.contains(&process.pid)).to_string(),
                process.command.clone(),
                reason.to_owned(),
            ];
            for field in fields {
                text += &field;
                text.push(BETWEEN);
            }
        }
        out.write_all((text + END).as_bytes())
    }

    /// Reads what `write` has written to the end; nothing else.
    pub(super) fn read(text: &str) -> Option<Self> {
        let text = text.strip_suffix(END)?;
        let fields: Vec<&str> = text.split_terminator(BETWEEN).collect();
        let mut found = Self::default();
        for fields in fields.chunks(FIELDS) {
            let [
                pid,
                parent,
                start_time,
                owner,
                is_manager,
                listens,
                command,
                reason,
            ] = fields.try_into().ok()?;
            let process = Process {
                pid: pid.parse().ok()?,
                parent: parent.parse().ok()?,
                start_time: start_time.parse().ok()?,
                owner: Uid::from_raw(owner.parse().ok()?),
                command: command.to_owned(),
                is_manager: is_manager == "1",
            };
            if listens == "1" {
                found.listening.push(process.pid);
            }
            if reason.is_empty() {
                found.server.push(process);
            } else {
                found.spared.push((process, reason.to_owned()));
            }
        }
        Some(found)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_comes_through_whole_or_not_at_all() {
        let process = |pid, command: &str| Process {
            pid,
            parent: 1,
            start_time: u64::MAX,
            owner: Uid::from_raw(1000),
            command: command.to_owned(),
            is_manager: pid == 8,
        };
        let found = Found {
            server: vec![process(7, "python3 main.py"), process(8, "a\nend 字 ")],
            listening: vec![8],
            spared: vec![(process(9, ""), "end".to_owned())],
        };
        for found in [found, Found::default()] {
            let mut bytes = Vec::new();
            found.write(&mut bytes).unwrap();
            let text = String::from_utf8(bytes).unwrap();
            assert_eq!(Found::read(&text), Some(found));
            for (end, _) in text.char_indices() {
                assert_eq!(Found::read(&text[..end]), None, "{end}");
            }
        }
    }
}
