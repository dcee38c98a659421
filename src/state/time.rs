//! A moment as the state files have it.

use std::fmt;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment, in whole seconds since 1970. In files it is written after RFC 3339, in UTC.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Time(pub(crate) u64);

impl Time {
    /// The system's time.
    pub(crate) fn now() -> Self {
        Self::from(SystemTime::now())
    }

    /// How long before `later` it was; none where it is later than that.
    pub(crate) fn before(self, later: Self) -> Option<Duration> {
        later.0.checked_sub(self.0).map(Duration::from_secs)
    }

    /// That much later.
    pub(crate) fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration.as_secs()))
    }

    /// In the time zone of UTC; 1970 where it is out of chrono's range.
    pub(crate) fn utc(self) -> DateTime<Utc> {
        let seconds = i64::try_from(self.0).ok();
        seconds
            .and_then(|seconds| DateTime::from_timestamp(seconds, 0))
            .unwrap_or_default()
    }

    /// Reads a moment after RFC 3339; none where it is not one, or is before 1970.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let time = DateTime::parse_from_rfc3339(text).ok()?;
        u64::try_from(time.timestamp()).ok().map(Self)
    }
}

impl From<SystemTime> for Time {
    fn from(time: SystemTime) -> Self {
        Self(
            time.duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs(),
        )
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.utc().to_rfc3339_opts(SecondsFormat::Secs, true))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not a time after RFC 3339"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_and_read_after_rfc_3339() {
        let time = Time(1_764_052_868);
        let text = serde_json::to_string(&time).unwrap();
        assert_eq!(text, "\"2025-11-25T06:41:08Z\"");
        assert_eq!(serde_json::from_str::<Time>(&text).unwrap(), time);
        assert_eq!(Time::parse("2025-11-25T07:41:08+01:00"), Some(time));
        assert_eq!(Time::parse("1969-12-31T00:00:00Z"), None);
        assert_eq!(Time::parse("yesterday"), None);
        assert_eq!(
            time.before(time.after(Duration::from_secs(9)))
                .unwrap()
                .as_secs(),
            9
        );
        assert_eq!(time.after(Duration::from_secs(9)).before(time), None);
    }
}
