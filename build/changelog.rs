//! debian/changelog and rpm/changelog, from CHANGELOG.md.

/// The longest line that lintian accepts, in columns.
const WIDTH: usize = 80;
/// The time of a release in its trailer: CHANGELOG.md has only the day.
const TIME: &str = "12:00:00 +0000";

/// A released version of CHANGELOG.md.
pub(crate) struct Release {
    version: String,
    date: Date,
    /// Each change as one line.
    changes: Vec<String>,
}

/// The day of a release.
struct Date {
    weekday: &'static str,
    day: usize,
    month: &'static str,
    year: usize,
}

/// Parses the released versions: `## [VERSION] - YYYY-MM-DD` begins one, `- ` a change, and the lines
/// indented by two spaces below it continue it. `None` if a version has no valid date or no change, or
/// if there is no version.
pub(crate) fn releases(changelog: &str) -> Option<Vec<Release>> {
    let mut releases = Vec::new();
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
        releases.push(Release {
            version: version.to_owned(),
            date: date(day)?,
            changes,
        });
    }
    (!releases.is_empty()).then_some(releases)
}

/// Renders debian/changelog (deb-changelog(5)).
pub(crate) fn debian(releases: &[Release], package: &str, maintainer: &str) -> String {
    let entries = releases.iter().map(|release| {
        let Date { weekday, day, month, year } = &release.date;
        format!(
            "{package} ({}-1) unstable; urgency=medium\n\n{}\n -- {maintainer}  {weekday}, {day:02} {month} {year} {TIME}\n",
            release.version,
            list(&release.changes, "  * ", "    "),
        )
    });
    entries.collect::<Vec<_>>().join("\n")
}

/// Renders the rpm's `%changelog`.
pub(crate) fn rpm(releases: &[Release], maintainer: &str) -> String {
    let entries = releases.iter().map(|release| {
        let Date {
            weekday,
            day,
            month,
            year,
        } = &release.date;
        let version = &release.version;
        // A percent sign begins a macro.
        let changes = list(&release.changes, "- ", "  ").replace('%', "%%");
        format!("* {weekday} {month} {day:02} {year} {maintainer} - {version}-1\n{changes}")
    });
    entries.collect::<Vec<_>>().join("\n")
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

/// The changes as lines of at most [`WIDTH`] columns: each begins with `mark` and goes on with `indent`.
fn list(changes: &[String], mark: &str, indent: &str) -> String {
    let mut text = String::new();
    for change in changes {
        let mut line = mark.to_owned();
        let mut words = change.split_whitespace();
        line.extend(words.next());
        for word in words {
            if line.len() + 1 + word.len() > WIDTH {
                text.push_str(&line);
                text.push('\n');
                line = format!("{indent}{word}");
            } else {
                line.push(' ');
                line.push_str(word);
            }
        }
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// Reads `2026-11-24`.
fn date(day: &str) -> Option<Date> {
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
    let month_name = MONTHS.get(month.checked_sub(1)?)?;
    let from_march = if month < 3 { year - 1 } else { year };
    let weekday = (from_march + from_march / 4 - from_march / 100
        + from_march / 400
        + OFFSETS[month - 1]
        + day)
        % 7;
    Some(Date {
        weekday: DAYS[weekday],
        day,
        month: month_name,
        year,
    })
}
