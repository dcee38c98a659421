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

    /// MESSAGE_ID of its records in the systemd journal, under which the message catalog explains it: a random
    /// number (sd_id128_t), which never changes.
    pub(crate) fn message_id(self) -> &'static str {
        match self {
            Self::Restarted => "951d6ac25d8e46e3a621364d7616ba5c",
            Self::Unwedged => "e6816c21ac81406892bedd3865db48d2",
            Self::Failed => "1577dd8215324162ba07f565f40b4147",
            Self::Held => "1c68dccb9bee4d56ac947f32cd2eddaf",
            Self::Reminder => "b34c4f8c2004476ab673786d7672d77d",
            Self::Recovered => "f8b10b0c1d0c436f99a5f7e486d64463",
            Self::Flapping => "f5f9db7feadd4bf9b6f5faee31d2f78b",
            Self::Stable => "e70cc9afba8a4b49b7decf1356c54e37",
            Self::Expiring => "95efe57bd84e4136b953dea32228d881",
        }
    }
}
