//! What is announced: the events of notifications, the journal and the history's readers. clap and std only, so
//! that the build can render them.

use clap::ValueEnum;

/// An event that is announced.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Notice {
    /// Down, and healed by a restart in the same run
    Restarted,
    /// Down, and healed without a restart
    Unwedged,
    /// A restart did not help, or nothing could be touched
    Failed,
    /// Down, and the restart is held off
    Held,
    /// Still failed or held
    Reminder,
    /// Answers again after failed or held
    Recovered,
    /// The third restart within an hour that worked
    Flapping,
    /// Flapping has ended
    Stable,
    /// The certificate expires soon
    Expiring,
}

impl Notice {
    /// Its name in files, variables and fields.
    pub(crate) fn slug(self) -> &'static str {
        match self {
            Self::Restarted => "restarted",
            Self::Unwedged => "unwedged",
            Self::Failed => "failed",
            Self::Held => "held",
            Self::Reminder => "reminder",
            Self::Recovered => "recovered",
            Self::Flapping => "flapping",
            Self::Stable => "stable",
            Self::Expiring => "expiring",
        }
    }
}
