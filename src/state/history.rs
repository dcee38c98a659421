//! The history of one server: a file of JSON lines in the state directory, to which runs only append.

use serde::{Deserialize, Serialize};

use super::time::Time;

/// What a line of the history says.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Event {
    /// Down and healed by a restart.
    Restarted,
    /// Down and healed without one.
    Unwedged,
    /// A restart did not help, or nothing could be touched.
    Failed,
    /// Down, and the restart waits.
    Held,
    /// Answers again after `failed` or `held`, without a restart of ours.
    Recovered,
    /// Of the incident `id`: the server answered for 10 minutes afterwards.
    Lasted,
    /// Of the incident `id`: it did not.
    FellAgain,
    /// No run watched the server, for `away_s` seconds until `at`.
    Unwatched,
    /// The server was away during a pause, for `away_s` seconds until `at`.
    Planned,
    /// A newer version's.
    #[serde(other)]
    Other,
}

/// A line of the history. Keys are only ever added.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Entry {
    /// Names the incident, the same in all of its lines.
    pub(crate) id: String,
    /// When this was written.
    pub(crate) at: Time,
    /// The server's name.
    pub(crate) server: String,
    /// What happened.
    pub(crate) event: Event,
    /// Slug of the first cause.
    #[serde(default)]
    pub(crate) cause: Option<String>,
    /// Who or what is to blame.
    #[serde(default)]
    pub(crate) culprit: Option<String>,
    /// What kind of thing that is.
    #[serde(default)]
    pub(crate) culprit_kind: Option<String>,
    /// Seconds that the server was away; since the line before of the same incident, if there is one.
    #[serde(default)]
    pub(crate) away_s: Option<u64>,
    /// How it ended: `answered`, `failed`, `held`.
    #[serde(default)]
    pub(crate) outcome: Option<String>,
    /// Processes that were stopped.
    #[serde(default)]
    pub(crate) pids: Vec<i32>,
    /// Who restored the service: `monitor`, or the user of the process that answers.
    #[serde(default)]
    pub(crate) by: Option<String>,
}
