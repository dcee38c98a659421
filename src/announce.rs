//! Announcements: events with what whoever is told needs to know.

use serde::{Deserialize, Serialize};

use crate::state::history::Entry;
use crate::state::time::Time;

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
