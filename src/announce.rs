//! Announcements: events with all that a notification contains.

pub(crate) mod command;
pub(crate) mod outbox;
pub(crate) mod summary;

use serde::{Deserialize, Serialize};

use crate::redact;
use crate::state::history::Entry;
use crate::state::time::Time;
use crate::text::one_line;

/// Lines of evidence that an event has, at most.
const MOST_EVIDENCE: usize = 50;

/// An event, as notify commands get it: a JSON object with these keys. Untrusted text in it is cleaned and redacted
/// as a log line is.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub(crate) struct Announcement {
    /// The slug of a `Notice`.
    pub(crate) event: String,
    /// The server's name.
    pub(crate) server: String,
    /// The name of this machine.
    pub(crate) host: String,
    /// The URL, without a password.
    pub(crate) url: String,
    /// All of it in one line, with the server's name: the subject of a mail.
    pub(crate) summary: String,
    /// Slug of the first cause.
    pub(crate) cause: Option<String>,
    /// Who or what is to blame.
    pub(crate) culprit: Option<String>,
    /// Since when the server is, or was, away.
    pub(crate) since: Option<Time>,
    /// How long it is, or was, away.
    pub(crate) away_seconds: Option<u64>,
    /// Path of the log.
    pub(crate) log: String,
    /// The same from `failed` to `recovered` of one outage.
    pub(crate) dedup_key: String,
    /// All causes, the most specific first.
    pub(crate) causes: Vec<ShownCause>,
    /// What the diagnosis read, as the log shows it.
    pub(crate) evidence: Vec<String>,
    /// The last lines of this server's history, the oldest first.
    pub(crate) history: Vec<Entry>,
    /// Events that were dropped since the last one that was taken.
    pub(crate) dropped: u64,
}

/// A cause in an announcement.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub(crate) struct ShownCause {
    /// Its slug.
    pub(crate) cause: String,
    /// Who or what is to blame.
    pub(crate) culprit: Option<String>,
    /// Its sentence.
    pub(crate) text: String,
}

impl Announcement {
    /// With its texts as the log shows them: each is one line, without secrets.
    pub(crate) fn cleaned(mut self) -> Self {
        for text in [
            &mut self.server,
            &mut self.host,
            &mut self.url,
            &mut self.summary,
            &mut self.log,
        ] {
            *text = cleaned(text);
        }
        for text in [&mut self.cause, &mut self.culprit] {
            *text = text.as_deref().map(cleaned);
        }
        for cause in &mut self.causes {
            cause.culprit = cause.culprit.as_deref().map(cleaned);
            cause.text = cleaned(&cause.text);
        }
        self.evidence.truncate(MOST_EVIDENCE);
        for line in &mut self.evidence {
            *line = cleaned(line);
        }
        self
    }
}

/// A line of the history, cleaned in the same way.
fn cleaned_entry(mut entry: Entry) -> Entry {
    entry.server = cleaned(&entry.server);
    entry.culprit = entry.culprit.as_deref().map(cleaned);
    entry
}

fn cleaned(text: &str) -> String {
    one_line(&redact::redacted(text))
}
