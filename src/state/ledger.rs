//! The part of the state that is about what happened: since when the server is down, its restarts, and
//! why the next one waits. Plain values; `state` reads and writes them, `policy` decides on them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::time::Time;

/// How the server was at the last change.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Condition {
    /// It answers.
    #[default]
    Up,
    /// It does not.
    Down,
    /// It does not, and a restart waits.
    Held,
    /// It does not, and a restart did not help or nothing could be touched.
    Failed,
}

/// An outage that goes on.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub(crate) struct Down {
    /// Incident ID, the same in all its lines of the history.
    pub(crate) id: String,
    /// Slug of its first cause.
    pub(crate) cause: String,
    /// Who or what is to blame.
    pub(crate) culprit: Option<String>,
    /// What kind of thing that is: `client`, `child`, `peer`, `file`, `proxy` or `process`.
    pub(crate) culprit_kind: Option<String>,
    /// The cause's sentence.
    pub(crate) text: String,
    /// The event of this outage that was last announced.
    pub(crate) announced: Option<String>,
    /// Why it was held when that was last announced.
    pub(crate) held: Option<String>,
    /// When that was announced.
    pub(crate) announced_at: Option<Time>,
    /// Number of reminders since then that were sent or left out.
    pub(crate) reminders: u32,
    /// Whether a run has begun to unwedge or to restart the server. If that run was killed, the recovery is announced.
    pub(crate) treated: bool,
    /// Whether it began with an answer, and not with the first check that ever took place.
    pub(crate) was_up: bool,
    /// Seconds of it during pauses.
    pub(crate) planned_s: u64,
    /// Seconds of it that the lines of the history count.
    pub(crate) counted: u64,
}

/// A client whose connection was destroyed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Destroyed {
    /// When.
    pub(crate) at: Time,
    /// Its address, without the port.
    pub(crate) client: String,
}

/// How a restart ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Restarted {
    /// The server answered.
    Answered,
    /// It did not; so is a restart written down that has only begun.
    Failed,
}

/// A restart, from the moment before the first signal.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Attempt {
    /// When it began.
    pub(crate) at: Time,
    /// How it ended.
    pub(crate) outcome: Restarted,
    /// Whether the server then answered for 10 minutes; none as long as that is open.
    #[serde(default)]
    pub(crate) lasted: Option<bool>,
    /// Incident ID, the same in all its lines of the history.
    #[serde(default)]
    pub(crate) id: String,
    /// The restart command's hash: another command begins a new count.
    #[serde(default)]
    pub(crate) command: u64,
    /// Slug of the cause that it was made for.
    #[serde(default)]
    pub(crate) cause: String,
    /// That cause's slug and the culprit, as flapping is counted.
    #[serde(default)]
    pub(crate) blame: String,
    /// Whether it counts no more for the back-off and the limit.
    #[serde(default)]
    pub(crate) settled: bool,
}

/// Why the next restart waits. It outlives the phase `held` while it has something in `tried`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub(crate) struct Hold {
    /// When it is tried again; none where that takes another verdict or another setting.
    pub(crate) until: Option<Time>,
    /// What keeps it: `failed`, `limit`, `policy`, or a cause's slug with what it names.
    pub(crate) why: String,
    /// What a restart was tried for already: a certificate's fingerprint, a status, a disk.
    pub(crate) tried: BTreeMap<String, String>,
}

/// Counts since the state file was made.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub(crate) struct Totals {
    /// Restarts, by outcome.
    pub(crate) restarts: Restarts,
    /// Times that the server was healed without a restart.
    pub(crate) unwedged: u64,
    /// Seconds that the server was away.
    pub(crate) away_s: u64,
    /// Times that it stopped answering, by the cause's slug.
    pub(crate) incidents: BTreeMap<String, u64>,
}

/// Numbers of restarts.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub(crate) struct Restarts {
    /// After which the server answered.
    pub(crate) answered: u64,
    /// After which it did not.
    pub(crate) failed: u64,
}

/// All of that.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub(crate) struct Ledger {
    /// How the server is.
    pub(crate) phase: Condition,
    /// Since when it answers, or since when it does not.
    pub(crate) since: Option<Time>,
    /// The outage, while there is one.
    pub(crate) down: Option<Down>,
    /// Restarts of the last hours, the oldest first.
    pub(crate) restarts: Vec<Attempt>,
    /// When the server was unwedged or that was tried, in the last hour.
    pub(crate) unwedged: Vec<Time>,
    /// Why the next restart waits, where it does.
    pub(crate) hold: Option<Hold>,
    /// Since when the server is away during a pause.
    pub(crate) planned: Option<Time>,
    /// Since when there are three restarts within an hour that worked.
    pub(crate) flapping: Option<Time>,
    /// Restarts that worked, by what they were blamed on, from the hour before the server flapped until it is stable.
    pub(crate) blamed: BTreeMap<String, u32>,
    /// Clients whose connections were destroyed in the last hour.
    pub(crate) destroyed: Vec<Destroyed>,
    /// Counts.
    pub(crate) totals: Totals,
}
