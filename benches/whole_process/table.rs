//! The table of results, in Markdown.

use std::fmt;

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
}

/// The rows so far.
#[derive(Debug, Default)]
pub(crate) struct Table(Vec<Row>);

impl Table {
    pub(crate) fn push(&mut self, row: Row) {
        self.0.push(row);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| what | monitor | peer | ratio | target | |")?;
        writeln!(f, "|---|---|---|---|---|---|")?;
        for row in &self.0 {
            let ratio = row
                .ratio
                .map_or_else(String::new, |ratio| format!("{ratio:.3}"));
            writeln!(
                f,
                "| {} | {} | {} | {ratio} | {} | {} |",
                row.what, row.monitor, row.peer, row.target, row.verdict
            )?;
        }
        Ok(())
    }
}
