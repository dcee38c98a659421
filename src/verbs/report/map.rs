//! A server's days by the hour.

use std::fmt::Write;

use chrono::{Datelike, Local, NaiveDate, NaiveTime, TimeDelta, TimeZone};

use super::super::spans::{Part, Timeline};
use super::super::words::{local, number, seconds};
use super::markup::Markup;
use crate::state::time::Time;

/// The map shows the last days of the span, this number at most.
const MOST_DAYS: usize = 62;
/// Up to that number, each day has its date in the picture; else the Mondays.
const MOST_DATES: usize = 14;
/// Up to so many seconds away in an hour, and its class in the style sheet; the last is for more.
const LEVELS: [(u64, &str); 3] = [(60, "a1"), (600, "a2"), (1800, "a3")];
const MOST_LEVEL: &str = "a4";

/// Lengths in the picture.
const LABEL: usize = 62;
const COLUMN: usize = 13;
const ROW: usize = 11;
const HEAD: usize = 14;
/// Before each Monday.
const WEEK: usize = 4;
const WIDTH: usize = LABEL + 24 * COLUMN;

/// How a server was in an hour.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Hour {
    /// It is to come, or before the span or the first run; or the clock has left it out.
    Blank,
    Up,
    /// So many seconds.
    Away(u64),
    /// So many seconds away during a pause.
    Planned(u64),
    /// For most of it.
    Unwatched,
}

/// A day of the local time zone.
struct Day {
    date: NaiveDate,
    hours: [Hour; 24],
    /// Seconds away, away during pauses, and not watched.
    away: u64,
    planned: u64,
    unwatched: u64,
}

/// The days of a span, the oldest first.
pub(super) struct Map {
    days: Vec<Day>,
}

impl Map {
    pub(super) fn of(timeline: &Timeline, from: Time, now: Time) -> Self {
        let last = local(now).date_naive();
        let first = local(from).date_naive();
        let number = usize::try_from((last - first).num_days()).unwrap_or(0) + 1;
        let dates = first.iter_days().skip(number.saturating_sub(MOST_DAYS));
        let dates = dates.take(number.min(MOST_DAYS));
        // Before the first run, nothing is known.
        let from = timeline.first.map_or(now, |first| first.max(from));
        let days = dates.map(|date| Day::of(timeline, date, from.0, now.0));
        Self {
            days: days.collect(),
        }
    }

    /// The picture. A screen reader reads its title and its description, and not each hour.
    pub(super) fn draw(&self, name: &str, page: &mut Markup) {
        let mondays = self
            .days
            .iter()
            .skip(1)
            .filter(|day| day.is_monday())
            .count();
        let height = HEAD + self.days.len() * ROW + mondays * WEEK;
        let size = format!("0 0 {WIDTH} {height}");
        let attributes = [
            ("class", "map"),
            ("viewBox", size.as_str()),
            ("role", "img"),
        ];
        page.element("svg", &attributes, |svg| {
            svg.leaf("title", &[], &format!("{name} by the hour"));
            svg.leaf("desc", &[], &self.description());
            svg.element("g", &[("aria-hidden", "true")], |hours| self.hours(hours));
        });
    }

    fn hours(&self, svg: &mut Markup) {
        for hour in (0..24).step_by(6) {
            let x = (LABEL + hour * COLUMN).to_string();
            svg.leaf("text", &[("x", &x), ("y", "10")], &format!("{hour:02}:00"));
        }
        let mut y = HEAD;
        for (number, day) in self.days.iter().enumerate() {
            if number > 0 && day.is_monday() {
                y += WEEK;
            }
            if self.days.len() <= MOST_DATES || number == 0 || day.is_monday() {
                let at = (y + ROW - 2).to_string();
                svg.leaf("text", &[("x", "0"), ("y", &at)], &day.name());
            }
            let (mut up, mut unwatched) = (String::new(), String::new());
            for (hour, how) in day.hours.iter().enumerate() {
                let x = LABEL + hour * COLUMN;
                let (width, height) = (COLUMN - 1, ROW - 1);
                let cell = format!("M{x} {y}h{width}v{height}h-{width}z");
                match how {
                    Hour::Blank => (),
                    Hour::Up => up.push_str(&cell),
                    Hour::Unwatched => unwatched.push_str(&cell),
                    Hour::Away(away) => {
                        let text = format!("away for {}", seconds(*away));
                        day.cell(hour, level(*away), &cell, &text, svg);
                    }
                    Hour::Planned(away) => {
                        let text = format!("away for {} during a pause", seconds(*away));
                        day.cell(hour, "planned", &cell, &text, svg);
                    }
                }
            }
            for (class, cells) in [("up", up), ("unwatched", unwatched)] {
                if !cells.is_empty() {
                    svg.element("path", &[("class", class), ("d", &cells)], |_| ());
                }
            }
            y += ROW;
        }
    }

    /// What the picture shows, in a few sentences.
    fn description(&self) -> String {
        let hours = |is: fn(&Hour) -> bool| {
            let hours = self.days.iter().flat_map(|day| &day.hours);
            hours.filter(|hour| is(hour)).count() as u64
        };
        let away = hours(|hour| matches!(hour, Hour::Away(_)));
        let planned = hours(|hour| matches!(hour, Hour::Planned(_)));
        let unwatched = hours(|hour| *hour == Hour::Unwatched);
        let days = self.days.iter().filter(|day| day.away > 0).count() as u64;
        let mut parts = Vec::new();
        if away > 0 {
            let (hours, days) = (number(away, "hour"), number(days, "day"));
            parts.push(format!("away in {hours} on {days}"));
        }
        if planned > 0 {
            let hours = number(planned, "hour");
            parts.push(format!("away during pauses in {hours}"));
        }
        if unwatched > 0 {
            parts.push(format!("not watched in {}", number(unwatched, "hour")));
        }
        let what = match parts.as_slice() {
            // Less than half an hour not watched is in the table alone.
            [] if self.is_quiet() => "Nothing happened on any day.".to_owned(),
            [] => "The table below says what happened.".to_owned(),
            parts => format!(
                "The server was {}. The table below says when.",
                parts.join("; ")
            ),
        };
        format!("A row for each day, a column for each hour. {what}")
    }

    /// The same as a table, of the days on which something was.
    pub(super) fn table(&self, name: &str, page: &mut Markup) {
        page.element("table", &[], |table| {
            table.leaf(
                "caption",
                &[],
                &format!("{name} by day; on other days nothing happened"),
            );
            table.element("thead", &[], |head| {
                head.element("tr", &[], |row| {
                    row.leaf("th", &[("scope", "col")], "Day");
                    row.leaf("th", &[("scope", "col")], "What happened");
                });
            });
            table.element("tbody", &[], |body| {
                for day in self.days.iter().filter(|day| !day.is_quiet()) {
                    body.element("tr", &[], |row| {
                        let attributes = [("scope", "row"), ("class", "figure")];
                        row.leaf("th", &attributes, &day.name());
                        row.leaf("td", &[], &day.text());
                    });
                }
            });
        });
    }

    /// Whether nothing happened on any day.
    pub(super) fn is_quiet(&self) -> bool {
        self.days.iter().all(Day::is_quiet)
    }
}

impl Day {
    /// What is known of the seconds from `from` to `now` on that day.
    fn of(timeline: &Timeline, date: NaiveDate, from: u64, now: u64) -> Self {
        let within = |moment: u64| moment.clamp(from, now);
        let mut starts = [0; 25];
        for (hour, start) in (0..).zip(&mut starts) {
            *start = within(start_of(date, hour));
        }
        let mut hours = [Hour::Blank; 24];
        for (hour, bounds) in hours.iter_mut().zip(starts.windows(2)) {
            let &[start, end] = bounds else { continue };
            if start < end {
                *hour = match timeline.part(start, end) {
                    Part::Before => Hour::Blank,
                    Part::Unwatched => Hour::Unwatched,
                    Part::Away(0) => match timeline.planned.between(start, end) {
                        0 => Hour::Up,
                        planned => Hour::Planned(planned),
                    },
                    Part::Away(away) => Hour::Away(away),
                };
            }
        }
        let [start, .., end] = starts;
        Self {
            date,
            hours,
            away: timeline.away.between(start, end),
            planned: timeline.planned.between(start, end),
            unwatched: timeline.unwatched.between(start, end),
        }
    }

    fn is_monday(&self) -> bool {
        self.date.weekday() == chrono::Weekday::Mon
    }

    fn is_quiet(&self) -> bool {
        self.away + self.planned + self.unwatched == 0
    }

    fn name(&self) -> String {
        self.date.format("%a %d %b").to_string()
    }

    fn cell(&self, hour: usize, class: &str, path: &str, text: &str, svg: &mut Markup) {
        svg.element("path", &[("class", class), ("d", path)], |cell| {
            cell.leaf(
                "title",
                &[],
                &format!("{} {hour:02}:00: {text}", self.name()),
            );
        });
    }

    fn text(&self) -> String {
        let mut parts = Vec::new();
        if self.away > 0 {
            let mut text = format!("away for {}, at ", seconds(self.away));
            let mut between = "";
            for (hour, how) in self.hours.iter().enumerate() {
                if let Hour::Away(away) = how {
                    let _ = write!(text, "{between}{hour:02}:00 ({})", seconds(*away));
                    between = ", ";
                }
            }
            parts.push(text.trim_end_matches(", at ").to_owned());
        }
        if self.planned > 0 {
            parts.push(format!("away for {} during pauses", seconds(self.planned)));
        }
        if self.unwatched > 0 {
            parts.push(format!("not watched for {}", seconds(self.unwatched)));
        }
        parts.join("; ")
    }
}

/// The class of an hour with so many seconds away.
fn level(away: u64) -> &'static str {
    let mut levels = LEVELS.iter();
    let level = levels.find(|(most, _)| away <= *most);
    level.map_or(MOST_LEVEL, |(_, class)| class)
}

/// When that hour of the local time zone begins, in seconds since 1970. An hour that the clock leaves out begins
/// with the next one.
fn start_of(date: NaiveDate, hour: i64) -> u64 {
    let start = date.and_time(NaiveTime::MIN);
    let mut moments = (hour..hour + 24).filter_map(|hour| {
        let moment = start.checked_add_signed(TimeDelta::hours(hour))?;
        Local.from_local_datetime(&moment).earliest()
    });
    let moment = moments.next().map_or(0, |moment| moment.timestamp());
    u64::try_from(moment).unwrap_or(0)
}
