//! The table of results, in Markdown, and the commands that were measured.

use std::ffi::OsStr;
use std::fmt;
use std::path::Path;
use std::process::Command;

use crate::binary;

/// One line of it.
#[derive(Debug, Default)]
pub(crate) struct Row {
    what: String,
    monitor: String,
    peer: String,
    ratio: Option<f64>,
    target: String,
    verdict: String,
}

impl Row {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            ..Self::default()
        }
    }

    pub(crate) fn skipped(what: impl Into<String>, reason: &str) -> Self {
        Self {
            verdict: format!("skipped: {reason}"),
            ..Self::new(what)
        }
    }

    /// A section that panicked; the message is on standard error.
    pub(crate) fn failed(what: impl Into<String>) -> Self {
        Self {
            verdict: "**failed**: see above".into(),
            ..Self::new(what)
        }
    }

    pub(crate) fn monitor(self, monitor: impl Into<String>) -> Self {
        Self {
            monitor: monitor.into(),
            ..self
        }
    }

    pub(crate) fn peer(self, peer: impl Into<String>) -> Self {
        Self {
            peer: peer.into(),
            ..self
        }
    }

    /// The ratio of ours to theirs, and the most that it may be.
    pub(crate) fn ratio(self, ratio: f64, most: f64) -> Self {
        Self {
            ratio: Some(ratio),
            ..self
        }
        .limit(format!("≤ {most:.2}"), ratio <= most)
    }

    pub(crate) fn limit(self, target: impl Into<String>, is_met: bool) -> Self {
        Self {
            target: target.into(),
            verdict: if is_met { "met" } else { "**missed**" }.into(),
            ..self
        }
    }

    /// Misses the target whatever was measured, for that reason, if there is one.
    pub(crate) fn unless(self, reason: Option<String>) -> Self {
        match reason {
            Some(reason) => Self {
                verdict: format!("**missed**: {reason}"),
                ..self
            },
            None => self,
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ratio = self.ratio.map(|ratio| format!("{ratio:.3}"));
        write!(
            f,
            "| {} | {} | {} | {} | {} | {} |",
            self.what,
            self.monitor,
            self.peer,
            ratio.unwrap_or_default(),
            self.target,
            self.verdict
        )
    }
}

/// The lines so far.
#[derive(Default)]
pub(crate) struct Table {
    /// Rows, and lines that a table in another process made of them.
    rows: Vec<Box<dyn fmt::Display>>,
    notes: Vec<String>,
}

impl Table {
    pub(crate) fn push(&mut self, row: Row) {
        self.rows.push(Box::new(row));
    }

    /// A line below the table.
    pub(crate) fn note(&mut self, note: &str) {
        let note = format!("- {note}");
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// The command line that `what` measured, as a line below the table.
    pub(crate) fn command(&mut self, what: &str, command: &Command, folder: &Path) {
        let quoted = |word: &OsStr| {
            shlex::try_quote(word.to_str().unwrap())
                .unwrap()
                .into_owned()
        };
        let environment = command.get_envs().filter_map(|(name, value)| {
            let (name, value) = (name.to_str()?, value?);
            Some(format!("{name}={}", quoted(value)))
        });
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words: Vec<String> = environment.chain(words.map(quoted)).collect();
        let line = format!("env -i {}", words.join(" "));
        let line = line.replace(folder.to_str().unwrap().trim_end_matches('/'), "DIR");
        let line = line.replace(binary::monitor().to_str().unwrap(), "monitor_myvnc");
        self.note(&format!("{what}: `{line}`"));
    }

    /// Takes over what a table of another process printed.
    pub(crate) fn take_over(&mut self, lines: &str) {
        for line in lines.lines() {
            match line.get(..2) {
                Some("| ") => self.rows.push(Box::new(line.to_owned())),
                Some("- ") => self.notes.push(line.into()),
                _ => println!("{line}"),
            }
        }
    }

    /// Prints the lines, as `take_over` takes them.
    pub(crate) fn hand_over(&self) {
        for row in &self.rows {
            println!("{row}");
        }
        for note in &self.notes {
            println!("{note}");
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| what | monitor | peer | ratio | target | |")?;
        writeln!(f, "|---|---|---|---|---|---|")?;
        for row in &self.rows {
            writeln!(f, "{row}")?;
        }
        if !self.notes.is_empty() {
            writeln!(f, "\nWhat was run, where DIR is a temporary folder:\n")?;
        }
        for note in &self.notes {
            writeln!(f, "{note}")?;
        }
        Ok(())
    }
}
