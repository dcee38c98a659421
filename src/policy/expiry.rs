//! Whether it is announced that a certificate expires: pure.

use crate::state::time::Time;

/// Days before a certificate expires at which that is announced.
const DAYS: [u32; 5] = [21, 14, 7, 3, 1];
/// A day, in seconds.
const DAY: u64 = 86_400;

/// The days of the announcement that is due now; none where there is none. `within`: only those from so many days
/// on are made. `announced`: the days of the last announcement for this certificate.
pub(crate) fn due(within: u32, expires: Time, announced: Option<u32>, now: Time) -> Option<u32> {
    let left = now.before(expires)?.as_secs();
    let is_reached = |days: &u32| *days <= within && left <= u64::from(*days) * DAY;
    let days = DAYS.into_iter().rfind(is_reached)?;
    (left > 0 && announced.is_none_or(|before| days < before)).then_some(days)
}

/// The days that are left, the last one included.
pub(crate) fn days_left(expires: Time, now: Time) -> u64 {
    let left = now.before(expires).unwrap_or_default();
    left.as_secs().div_ceil(DAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time(1_764_052_868);

    fn in_hours(hours: u64) -> Time {
        Time(NOW.0 + hours * 3600)
    }

    #[test]
    fn each_threshold_is_announced_once_for_a_certificate() {
        for (within, hours, announced, expected, what) in [
            (21, 22 * 24, None, None, "it is early"),
            (21, 21 * 24 + 1, None, None, "an hour before the first one"),
            (21, 21 * 24, None, Some(21), "the first one"),
            (21, 20 * 24, Some(21), None, "it was announced"),
            (21, 14 * 24, Some(21), Some(14), "the second one"),
            (
                21,
                5 * 24,
                None,
                Some(7),
                "it is first seen with 5 days left",
            ),
            (21, 5 * 24, Some(7), None, "that was announced"),
            (
                21,
                2 * 24,
                Some(21),
                Some(3),
                "no run for weeks: only the last one",
            ),
            (21, 3, Some(3), Some(1), "the last day"),
            (21, 3, Some(1), None, "that was announced"),
            (21, 15 * 24, Some(14), None, "the clock was set back"),
            (21, 0, None, None, "it has expired: the check fails"),
            (10, 10 * 24, None, None, "10 is no threshold"),
            (10, 14 * 24, None, None, "14 days are too early for it"),
            (10, 7 * 24, None, Some(7), "the first one within 10 days"),
            (365, 30 * 24, None, None, "before the first one"),
            (1, 24, None, Some(1), "only the last day"),
            (0, 1, None, None, "off"),
        ] {
            let expires = in_hours(hours);
            assert_eq!(due(within, expires, announced, NOW), expected, "{what}");
        }
        let past = Time(NOW.0 - 1);
        assert_eq!(due(21, past, None, NOW), None, "it has expired");
        // Another certificate, which was never announced.
        assert_eq!(due(21, in_hours(90 * 24), None, NOW), None, "renewed");
    }

    #[test]
    fn the_days_left_are_those_of_the_threshold() {
        for (hours, days) in [(21 * 24, 21), (20 * 24 + 1, 21), (24, 1), (1, 1), (0, 0)] {
            assert_eq!(days_left(in_hours(hours), NOW), days);
        }
        assert_eq!(days_left(Time(0), NOW), 0);
    }
}
