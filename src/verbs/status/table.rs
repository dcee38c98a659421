//! The table of availability, and the last incidents.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;

use super::super::incidents::Incident;
use super::super::server::{DAY, MONTH, SHOWN, Server};
use super::super::spans::{Availability, Part};
use super::super::words::{self, Style, WIDTH, short};
use super::LONGEST_NAME;
use crate::state::history::HistoryEvent;
use crate::state::time::Time;
use crate::text::printable;

/// Spans of the table, with their names.
pub(super) const SPANS: [(&str, u64); 3] = [("24 h", DAY), ("7 d", 7 * DAY), ("30 d", MONTH)];
/// Up to so many seconds away, a part of the bar has that height; the last one is for more.
const HEIGHTS: [(u64, char, char); 6] = [
    (0, '▇', '#'),
    (10, '▆', '+'),
    (120, '▅', '+'),
    (300, '▄', '-'),
    (600, '▃', '-'),
    (1200, '▂', '_'),
];
const LEAST: (char, char) = ('▁', '_');
/// Number of causes that are named as the most frequent.
const MOST_OFTEN: usize = 3;

/// A line for each server that was ever checked.
pub(super) fn availability(
    servers: &[Server],
    width: usize,
    now: Time,
    style: Style,
    text: &mut String,
) {
    // A bar of 24 hours, or of 12 times two where the names are long.
    let parts: usize = if width > super::LEAST_NAME { 12 } else { 24 };
    let _ = writeln!(
        text,
        "{:width$}  {:parts$}  {:>8} {:>8} {:>8}  restarts 24 h, 30 d",
        "", "last 24 h", SPANS[0].0, SPANS[1].0, SPANS[2].0,
    );
    for server in servers {
        let name = short(&server.name, LONGEST_NAME);
        let timeline = &server.past.timeline;
        let bar = timeline.parts(parts as u64, DAY, now).into_iter();
        let bar: String = bar.map(|part| symbol(part, style)).collect();
        let spans = SPANS.map(|(_, seconds)| timeline.availability(seconds, now));
        let [day, week, month] = spans.map(|span| span.map_or_else(|| "-".to_owned(), percent));
        let (restarts_day, restarts_month) = (server.past.day, server.past.month);
        let _ = writeln!(
            text,
            "{name:width$}  {bar}  {day:>8} {week:>8} {month:>8}{restarts_day:>12}{restarts_month:>8}",
        );
        let watched = SPANS.iter().zip(spans).filter_map(|((name, _), span)| {
            let watched = span?.watched()?;
            Some(format!("{name}: of {watched} % watched"))
        });
        let watched: Vec<String> = watched.collect();
        if !watched.is_empty() {
            words::wrap(&format!("{:width$}  ", ""), &watched.join(", "), text);
        }
    }
    text.push('\n');
}

fn symbol(part: Part, style: Style) -> char {
    let (unicode, ascii) = match part {
        Part::Before => (' ', ' '),
        Part::Unwatched => ('·', '.'),
        Part::Away(seconds) => {
            let mut heights = HEIGHTS.iter();
            let height = heights.find(|(most, ..)| seconds <= *most);
            height.map_or(LEAST, |(_, unicode, ascii)| (*unicode, *ascii))
        }
    };
    if style.is_unicode { unicode } else { ascii }
}

fn percent(availability: Availability) -> String {
    format!("{} %", availability.percent())
}

/// The last incidents of all, and what there was most often.
pub(super) fn incidents(servers: &[Server], width: usize, now: Time, text: &mut String) {
    let last = last(servers);
    if last.is_empty() {
        text.push_str("No incident in 30 days.\n");
    }
    for incident in last {
        let mut line = String::new();
        let head = head(incident, width, now);
        words::wrap(&head, &what(incident), &mut line);
        text.push_str(&line);
    }
    let mut counts: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    for (cause, by) in servers.iter().flat_map(|server| &server.past.counts) {
        for (culprit, count) in by {
            *counts.entry((cause, culprit)).or_default() += count;
        }
    }
    let mut counts: Vec<_> = counts.into_iter().filter(|(_, count)| *count > 1).collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let counts = counts.iter().take(MOST_OFTEN);
    let often: Vec<String> = counts
        .map(|((cause, culprit), count)| {
            let what = format!("{cause} {culprit}");
            format!("{} ({count})", short(what.trim_end(), WIDTH / 2))
        })
        .collect();
    if !often.is_empty() {
        words::wrap("Most often, 30 d: ", &often.join(", "), text);
    }
}

/// The last incidents of all servers, the newest first.
pub(super) fn last(servers: &[Server]) -> Vec<&Incident> {
    let incidents = servers.iter().flat_map(|server| &server.past.incidents);
    let mut incidents: Vec<&Incident> = incidents.collect();
    incidents.sort_by_key(|incident| std::cmp::Reverse(incident.began));
    incidents.truncate(SHOWN);
    incidents
}

fn head(incident: &Incident, width: usize, now: Time) -> String {
    let began = words::day(incident.began, now);
    let name = short(&incident.server, LONGEST_NAME);
    let away = words::seconds(incident.away);
    let outcome = outcome(incident.event);
    format!("{began:5} {name:width$}  {away:>6}  {outcome:10}  ")
}

/// How an incident went, in a word or two.
pub(in super::super) fn outcome(event: HistoryEvent) -> &'static str {
    match event {
        HistoryEvent::Restarted => "restarted",
        HistoryEvent::Unwedged => "unwedged",
        HistoryEvent::Failed => "not healed",
        HistoryEvent::Held => "held off",
        HistoryEvent::Recovered => "recovered",
        HistoryEvent::Planned => "planned",
        HistoryEvent::Unwatched => "unwatched",
        HistoryEvent::Lasted | HistoryEvent::FellAgain | HistoryEvent::Other => "",
    }
}

/// What it was about.
pub(in super::super) fn what(incident: &Incident) -> String {
    let mut what = incident.what(incident.culprit.as_deref());
    if let Some(by) = &incident.by {
        let comma = if what.is_empty() { "" } else { ", " };
        let _ = write!(what, "{comma}by {by}");
    }
    match printable(&what) {
        Cow::Borrowed(_) => what,
        Cow::Owned(line) => line,
    }
}
