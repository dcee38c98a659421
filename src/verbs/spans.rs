//! Spans of time: how long a server was away, and how much of that somebody watched.

use crate::state::time::Time;

/// Spans in seconds since 1970, each with its end, in any order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spans(Vec<(u64, u64)>);

impl Spans {
    /// Adds one that ended then and was so many seconds long.
    pub(crate) fn add(&mut self, end: Time, seconds: u64) {
        let start = end.0.saturating_sub(seconds);
        match self.0.last_mut() {
            // Lines of one incident follow each other without a gap.
            Some(last) if last.0 <= start && start <= last.1 => last.1 = last.1.max(end.0),
            _ if start < end.0 => self.0.push((start, end.0)),
            _ => (),
        }
    }

    /// In order, and without what two of them share.
    pub(crate) fn merge(&mut self) {
        self.0.sort_unstable();
        self.0.dedup_by(|next, last| {
            let is_within = next.0 <= last.1;
            if is_within {
                last.1 = last.1.max(next.1);
            }
            is_within
        });
    }

    /// What of these is in none of the others; both are merged.
    pub(crate) fn without(&self, others: &Self) -> Self {
        let mut left = Vec::new();
        let mut next = 0;
        for &(mut start, end) in &self.0 {
            while others.0.get(next).is_some_and(|other| other.1 <= start) {
                next += 1;
            }
            for other in others.0[next..].iter().take_while(|other| other.0 < end) {
                if start < other.0 {
                    left.push((start, other.0));
                }
                start = start.max(other.1);
            }
            if start < end {
                left.push((start, end));
            }
        }
        Self(left)
    }

    /// Seconds of them between two moments; they are merged.
    pub(crate) fn between(&self, from: u64, to: u64) -> u64 {
        let inside = |(start, end): &(u64, u64)| (*end).min(to).saturating_sub((*start).max(from));
        let first = self.0.partition_point(|(_, end)| *end <= from);
        let spans = self.0[first..].iter();
        spans.take_while(|(start, _)| *start < to).map(inside).sum()
    }
}

/// What is known of a server's past. All spans are merged.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timeline {
    /// When the first run was, as far as that is known.
    pub(crate) first: Option<Time>,
    /// When it was away and somebody watched, pauses excepted.
    pub(crate) away: Spans,
    /// When nobody watched.
    pub(crate) unwatched: Spans,
    /// When it was away during a pause.
    pub(crate) planned: Spans,
}

/// How available a server was in a span.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Availability {
    /// Of the time that was watched, in hundredths of a per cent, rounded down.
    pub(crate) up: u16,
    /// Length of the span, in seconds.
    pub(crate) seconds: u64,
    /// How much of it nobody watched.
    pub(crate) unwatched: u64,
}

impl Availability {
    /// In per cent, without the sign: `99.95`.
    pub(crate) fn percent(&self) -> String {
        format!("{}.{:02}", self.up / 100, self.up % 100)
    }

    /// The per cent of the span that were watched, if more than one was not.
    pub(crate) fn watched(&self) -> Option<u64> {
        let is_much = self.unwatched * 100 > self.seconds;
        is_much.then(|| 100 - (self.unwatched * 100).div_ceil(self.seconds))
    }
}

impl Timeline {
    /// The availability in the seconds before now, or since the first run; none where nobody watched.
    pub(crate) fn availability(&self, seconds: u64, now: Time) -> Option<Availability> {
        let from = now.0.saturating_sub(seconds).max(self.first?.0);
        let seconds = now.0.checked_sub(from)?;
        let unwatched = self.unwatched.between(from, now.0);
        let watched = seconds
            .checked_sub(unwatched)
            .filter(|watched| *watched > 0)?;
        let up = watched.saturating_sub(self.away.between(from, now.0));
        Some(Availability {
            up: u16::try_from(up * 10_000 / watched).unwrap_or(10_000),
            seconds,
            unwatched,
        })
    }

    /// How the parts of the seconds before now were, the oldest first.
    pub(crate) fn parts(&self, number: u64, seconds: u64, now: Time) -> Vec<Part> {
        let length = seconds / number;
        let start = now.0.saturating_sub(seconds);
        let parts = (0..number).map(|part| (start + part * length, start + (part + 1) * length));
        parts.map(|(from, to)| self.part(from, to)).collect()
    }

    /// How it was between two moments.
    pub(crate) fn part(&self, from: u64, to: u64) -> Part {
        let Some(first) = self.first.filter(|first| first.0 < to) else {
            return Part::Before;
        };
        let from = from.max(first.0);
        if self.unwatched.between(from, to) * 2 > to - from {
            Part::Unwatched
        } else {
            Part::Away(self.away.between(from, to))
        }
    }
}

/// How a part of a span was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Part {
    /// No run was made yet.
    Before,
    /// Nobody watched, for the most of it.
    Unwatched,
    /// The server was away for so many seconds.
    Away(u64),
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spans(all: &[(u64, u64)]) -> Spans {
        let mut spans = Spans::default();
        for (start, end) in all {
            spans.add(Time(*end), end - start);
        }
        spans.merge();
        spans
    }

    fn is_in(spans: &[(u64, u64)], second: u64) -> bool {
        spans
            .iter()
            .any(|(start, end)| (*start..*end).contains(&second))
    }

    proptest! {
        #[test]
        fn spans_count_each_second_once(
            one in proptest::collection::vec((0..60_u64, 0..9_u64), 0..9),
            other in proptest::collection::vec((0..60_u64, 0..9_u64), 0..9),
            from in 0..70_u64,
            length in 0..70_u64,
        ) {
            let ends = |all: Vec<(u64, u64)>| -> Vec<_> {
                all.into_iter().map(|(start, length)| (start, start + length)).collect()
            };
            let (one, other) = (ends(one), ends(other));
            let counted = spans(&one).without(&spans(&other)).between(from, from + length);
            let expected = (from..from + length)
                .filter(|second| is_in(&one, *second) && !is_in(&other, *second))
                .count();
            prop_assert_eq!(counted, expected as u64);
        }
    }

    #[test]
    fn availability_is_of_the_time_that_was_watched() {
        let timeline = |away: &[(u64, u64)], unwatched: &[(u64, u64)], first: u64| {
            let (away, unwatched) = (spans(away), spans(unwatched));
            Timeline {
                first: Some(Time(first)),
                away: away.without(&unwatched),
                unwatched,
                ..Timeline::default()
            }
        };
        let up = |timeline: Timeline| timeline.availability(1000, Time(2000));
        let full = up(timeline(&[], &[], 0)).unwrap();
        assert_eq!((full.up, full.watched()), (10_000, None));
        assert_eq!(up(timeline(&[(900, 1100)], &[], 0)).unwrap().up, 9000);
        assert_eq!(up(timeline(&[(1999, 2000)], &[], 1990)).unwrap().up, 9000);
        let half = up(timeline(&[(1000, 1100)], &[(1050, 1550)], 0)).unwrap();
        assert_eq!(
            (half.up, half.watched(), half.unwatched),
            (9000, Some(50), 500)
        );
        let barely = up(timeline(&[], &[(1000, 1010)], 0)).unwrap();
        assert_eq!(barely.watched(), None, "1 % is nothing");
        assert_eq!(up(timeline(&[], &[(0, 3000)], 0)), None);
        assert_eq!(up(timeline(&[], &[], 2000)), None);
        assert_eq!(up(timeline(&[], &[], 2001)), None);
        assert_eq!(Timeline::default().availability(1000, Time(2000)), None);
    }

    #[test]
    fn parts_show_what_was_not_watched() {
        let timeline = Timeline {
            first: Some(Time(1300)),
            away: spans(&[(1900, 1910)]),
            unwatched: spans(&[(1500, 1751)]),
            ..Timeline::default()
        };
        assert_eq!(
            timeline.parts(4, 1000, Time(2000)),
            [Part::Before, Part::Away(0), Part::Unwatched, Part::Away(10)]
        );
    }
}
