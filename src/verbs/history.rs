//! `history`: what happened to the servers.

use std::io::{self, BufWriter, Write};

use super::cli;
use super::groups::Groups;
use super::incidents::{Incident, Incidents};
use super::status::{outcome, what};
use super::words::{Style, local, seconds, short};
use super::{Refusal, nothing, print, targets, written};
use crate::journal::warn_stderr;
use crate::state::history::{self, Entry, HistoryEvent, Line};
use crate::state::time::Time;
use crate::text::errno_text;

/// Longest name that is shown whole, in characters.
const LONGEST_NAME: usize = 32;

/// Prints the incidents; the exit status.
pub(super) fn show(flags: &cli::History) -> Result<u8, Refusal> {
    let targets = targets(&flags.which)?;
    if targets.all.is_empty() && !flags.json {
        print(&format!("{}\n", nothing(&targets, None)))?;
        return Ok(1);
    }
    let now = Time::now();
    let from = Time(now.0.saturating_sub(flags.since.as_secs()));
    let files = targets.all.iter().map(|one| one.file(".history.jsonl"));
    let mut is_whole = true;
    let mut read = |path: &std::path::Path, each: &mut dyn FnMut(&[u8])| {
        if let Err(reason) = history::read_lines(path, each) {
            warn_stderr(&format!("{}: {}", path.display(), errno_text(&reason)));
            is_whole = false;
        }
    };
    if flags.json {
        let mut array = Array::new(targets.all.len() == 1);
        for path in files {
            read(&path, &mut |line| {
                let entry = serde_json::from_slice(line).ok();
                if let Some(entry) = entry.filter(|entry: &Entry| entry.at >= from) {
                    array.add(&entry);
                }
            });
        }
        array.end()?;
    } else {
        let mut incidents = Vec::new();
        let mut groups = Groups::default();
        for path in files {
            let mut open = Incidents::default();
            let mut pass = |incident: Incident| match flags.by {
                Some(by) => groups.add(by, &incident),
                None => incidents.push(incident),
            };
            read(&path, &mut |line| {
                let line = Line::parse(line).filter(|line| line.at >= from);
                line.and_then(|line| open.take(line))
                    .into_iter()
                    .for_each(&mut pass);
            });
            open.rest().into_iter().for_each(pass);
        }
        let text = match flags.by {
            Some(_) => groups.rows(),
            None => lines(&mut incidents),
        };
        let text = if text.is_empty() && is_whole {
            format!("no incident in {}\n", seconds(flags.since.as_secs()))
        } else {
            text
        };
        print(&Style::of_stdout().plain(text))?;
    }
    Ok(u8::from(!is_whole))
}

/// An array of JSON: a server's lines as they come, those of several in order of time.
struct Array {
    out: BufWriter<std::io::Stdout>,
    is_one: bool,
    is_empty: bool,
    /// What became of the last write.
    done: io::Result<()>,
    others: Vec<(Time, String)>,
}

impl Array {
    fn new(is_one: bool) -> Self {
        Self {
            out: BufWriter::new(std::io::stdout()),
            is_one,
            is_empty: true,
            done: Ok(()),
            others: Vec::new(),
        }
    }

    fn add(&mut self, entry: &Entry) {
        let Ok(text) = serde_json::to_string(entry) else {
            return;
        };
        if self.is_one {
            self.write(&text);
        } else {
            self.others.push((entry.at, text));
        }
    }

    fn write(&mut self, text: &str) {
        let before = if self.is_empty { "[" } else { ",\n" };
        self.is_empty = false;
        self.put(before);
        self.put(text);
    }

    /// Writes, unless that has failed before.
    fn put(&mut self, text: &str) {
        if self.done.is_ok() {
            self.done = self.out.write_all(text.as_bytes());
        }
    }

    fn end(mut self) -> Result<(), Refusal> {
        let mut others = std::mem::take(&mut self.others);
        others.sort_by_key(|(at, _)| *at);
        for (_, text) in others {
            self.write(&text);
        }
        self.put(if self.is_empty { "[]\n" } else { "]\n" });
        let flushed = self.out.flush();
        written(self.done.and(flushed))
    }
}

/// A line for each incident, the oldest first.
fn lines(incidents: &mut Vec<Incident>) -> String {
    incidents.retain(|incident| incident.event != HistoryEvent::Other);
    incidents.sort_by_key(|incident| incident.began);
    let widths = incidents.iter().map(|one| one.server.chars().count());
    let width = widths.max().unwrap_or(0).min(LONGEST_NAME);
    let outcomes = incidents.iter().map(|one| outcome_of(one).len());
    let outcomes = outcomes.max().unwrap_or(0);
    let mut text = String::new();
    for incident in incidents {
        let began = local(incident.began).format("%Y-%m-%d %H:%M:%S");
        let name = short(&incident.server, width);
        let away = seconds(incident.away);
        let outcome = outcome_of(incident);
        let line = format!(
            "{began}  {name:width$}  {away:>6}  {outcome:outcomes$}  {}",
            what(incident)
        );
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// How an incident went, and whether that lasted.
fn outcome_of(incident: &Incident) -> String {
    let lasted = match incident.lasted {
        Some(true) => ", lasted",
        Some(false) => ", fell again",
        None => "",
    };
    format!("{}{lasted}", outcome(incident.event))
}
