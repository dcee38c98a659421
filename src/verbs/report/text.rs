//! The report as text, for a mail.

use std::fmt::Write;

use super::super::groups::Groups;
use super::super::status::{outcome, what};
use super::super::words::{number, seconds, short, wrap};
use super::{MOST, Report, helped, moment};
use crate::text::one_line;

/// Longest name that is shown whole, in characters.
const LONGEST_NAME: usize = 16;
/// The same of a cause or a culprit.
const LONGEST_GROUP: usize = 32;

/// The whole text.
pub(super) fn page(report: &Report) -> String {
    if report.is_quiet() {
        let mut text = String::new();
        let line = format!("{}: {} Nothing to do.", report.host, report.summary());
        wrap("", &one_line(&line), &mut text);
        return text;
    }
    let mut text = format!("{}, {}\n\n", one_line(&report.host), report.period());
    wrap("", &one_line(&report.summary()), &mut text);
    text.push('\n');
    servers(report, &mut text);
    groups("Cause", &report.causes, &mut text);
    groups("Culprit", &report.culprits, &mut text);
    longest(report, &mut text);
    for (kind, count) in report.advice() {
        let of = number(report.total.incidents.into(), "incident");
        let _ = writeln!(text, "\nWhat to do about {} ({count} of {of})", kind.slug());
        wrap("  ", kind.entry().advice, &mut text);
    }
    text
}

fn servers(report: &Report, text: &mut String) {
    let names = report
        .servers
        .iter()
        .map(|one| one.server.name.chars().count());
    let width = names.max().unwrap_or(0).clamp("Server".len(), LONGEST_NAME);
    let _ = writeln!(
        text,
        "{:width$}  {:>8}  {:>7}  incidents  restarts  helped  unwedged",
        "Server", "up", "away"
    );
    for one in &report.servers {
        let name = short(&one.server.name, LONGEST_NAME);
        let (up, away) = (one.availability(report), seconds(one.away));
        let count = &one.count;
        let _ = writeln!(
            text,
            "{name:width$}  {up:>8}  {away:>7}  {:>9}  {:>8}  {:>6}  {:>8}",
            count.incidents, count.restarts, count.lasted, count.unwedged
        );
        for note in &one.notes {
            wrap(&format!("{:width$}  ", ""), &one_line(note), text);
        }
    }
}

/// Most frequent causes or culprits.
fn groups(title: &str, groups: &Groups, text: &mut String) {
    let groups = groups.sorted();
    let groups = groups.into_iter().filter(|(name, _)| *name != "-");
    let groups: Vec<_> = groups.take(MOST).collect();
    if groups.is_empty() {
        return;
    }
    let names = groups.iter().map(|(name, _)| name.chars().count());
    let width = names.max().unwrap_or(0).clamp(title.len(), LONGEST_GROUP);
    let _ = writeln!(
        text,
        "\n{title:width$}  incidents  {:>7}  did restarting help?",
        "away"
    );
    for (name, group) in groups {
        let name = short(name, width);
        let away = seconds(group.away);
        let head = format!("{name:width$}  {:>9}  {away:>7}  ", group.incidents);
        wrap(
            &head,
            &helped(group).unwrap_or_else(|| "-".to_owned()),
            text,
        );
    }
}

fn longest(report: &Report, text: &mut String) {
    if report.longest.is_empty() {
        return;
    }
    text.push_str("\nLongest outages\n");
    let rows = report.longest.iter().map(|incident| {
        let began = moment(incident.began);
        let name = short(&incident.server, LONGEST_NAME).into_owned();
        (began, name, seconds(incident.away), incident)
    });
    let rows: Vec<_> = rows.collect();
    let width = |of: &dyn Fn(&(String, String, String, &_)) -> usize| rows.iter().map(of).max();
    let name_width = width(&|row| row.1.chars().count()).unwrap_or(0);
    for (began, name, away, incident) in &rows {
        let outcome = outcome(incident.event);
        let head = format!("{began}  {name:name_width$}  {away:>7}  {outcome:10}  ");
        wrap(&head, &what(incident), text);
    }
}
