//! debian/changelog (deb-changelog(5)), from CHANGELOG.md.

use std::fmt::Write;

/// The longest line that lintian accepts, in columns.
const WIDTH: usize = 80;
/// The time of a release in its trailer: CHANGELOG.md has only the day.
const TIME: &str = "12:00:00 +0000";

/// Renders the released versions: `## [VERSION] - YYYY-MM-DD` begins one, `- ` a change, and the lines
/// indented by two spaces below it continue it. `None` if a version has no valid date or no change, or
/// if there is no version.
pub(crate) fn debian(changelog: &str, package: &str, maintainer: &str) -> Option<String> {
    let mut text = String::new();
    for section in changelog.split("\n## ").skip(1) {
        let (heading, body) = section.split_once('\n')?;
        if heading == "[Unreleased]" {
            continue;
        }
        let (version, day) = heading.strip_prefix('[')?.split_once("] - ")?;
        let changes = changes(body);
        if changes.is_empty() {
            return None;
        }
        if !text.is_empty() {
            text.push('\n');
        }
        writeln!(text, "{package} ({version}-1) unstable; urgency=medium\n").ok()?;
        for change in changes {
            wrap(&change, &mut text);
        }
        writeln!(text, "\n -- {maintainer}  {} {TIME}", date(day)?).ok()?;
    }
    (!text.is_empty()).then_some(text)
}

/// Each change as one line without Markdown's backticks.
fn changes(body: &str) -> Vec<String> {
    let mut changes: Vec<String> = Vec::new();
    for line in body.lines() {
        if let Some(first) = line.strip_prefix("- ") {
            changes.push(first.to_owned());
        } else if let (Some(more), Some(change)) = (line.strip_prefix("  "), changes.last_mut()) {
            change.push(' ');
            change.push_str(more);
        }
    }
    changes
        .into_iter()
        .map(|change| change.replace('`', ""))
        .collect()
}

fn wrap(change: &str, text: &mut String) {
    let mut line = String::from("  *");
    for word in change.split_whitespace() {
        if line.len() + 1 + word.len() > WIDTH {
            text.push_str(&line);
            text.push('\n');
            line = String::from("   ");
        }
        line.push(' ');
        line.push_str(word);
    }
    text.push_str(&line);
    text.push('\n');
}

/// `2026-11-24` as `Tue, 24 Nov 2026`.
fn date(day: &str) -> Option<String> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
    // Sakamoto's method for the day of the week.
    const OFFSETS: [usize; 12] = [0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4];
    let parts: Vec<usize> = day
        .split('-')
        .map(|part| part.parse().ok())
        .collect::<Option<_>>()?;
    let [year, month, day] = parts[..] else {
        return None;
    };
    let name = MONTHS.get(month.checked_sub(1)?)?;
    let from_march = if month < 3 { year - 1 } else { year };
    let weekday = (from_march + from_march / 4 - from_march / 100
        + from_march / 400
        + OFFSETS[month - 1]
        + day)
        % 7;
    Some(format!("{}, {day:02} {name} {year}", DAYS[weekday]))
}
