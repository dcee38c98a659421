//! `history`: what happened to the servers. It is printed as it is read, in a memory that does not grow with it.

use std::io::{self, BufWriter, Stdout, Write};
use std::path::PathBuf;

use super::cli;
use super::groups::Groups;
use super::incidents::{Incident, Incidents};
use super::status::{outcome, what};
use super::words::{Style, put_date, seconds, short};
use super::{Refusal, nothing, print, targets, written};
use crate::journal::warn_stderr;
use crate::state::history::{Entry, HistoryEvent, Line, Lines};
use crate::state::time::Time;
use crate::text::{errno_text, escaped};

/// Longest name that is shown whole, in characters.
const LONGEST_NAME: usize = 32;
/// Longest time that the server was away as it is written, in characters: `99 min`.
const LONGEST_TIME: usize = 6;
/// Length of most lines, in bytes.
const TYPICAL_LINE: usize = 128;
/// Number of incidents that are put in order and have common columns.
const TOGETHER: usize = 2048;

/// Prints the incidents. Returns the exit status.
pub(super) fn show(flags: &cli::History) -> Result<u8, Refusal> {
    let targets = targets(&flags.which)?;
    if targets.all.is_empty() && !flags.json {
        print(&format!("{}\n", nothing(&targets, None)))?;
        return Ok(1);
    }
    let now = Time::now();
    let from = Time(now.0.saturating_sub(flags.since.as_secs()));
    let files = targets.all.iter().map(|one| one.file(".history.jsonl"));
    if flags.json {
        return array(files.map(|file| Source::<Raw>::open(file, from)).collect());
    }
    let mut all = Merged::new(files.map(|file| Source::<Open>::open(file, from)).collect());
    let mut out = Output::new();
    let mut is_empty = true;
    if let Some(by) = flags.by {
        let mut groups = Groups::default();
        while let Some(incident) = all.next() {
            groups.add(by, &incident);
        }
        let rows = groups.rows();
        is_empty = rows.is_empty();
        out.put(&Style::of_stdout().plain(rows));
    } else {
        let mut table = Table::default();
        while let Some(incident) = all.next() {
            if incident.event != HistoryEvent::Other {
                table.add(incident, &mut out);
                is_empty = false;
            }
        }
        let rest = table.incidents.len();
        table.print(rest, &mut out);
    }
    let is_whole = all.end();
    if is_empty && is_whole {
        out.put(&format!(
            "no incident in {}\n",
            seconds(flags.since.as_secs())
        ));
    }
    out.end()?;
    Ok(u8::from(!is_whole))
}

/// Prints the lines as an array of JSON. Returns the exit status.
fn array(sources: Vec<Source<Raw>>) -> Result<u8, Refusal> {
    let mut all = Merged::new(sources);
    let mut out = Output::new();
    let mut before = "[";
    while let Some((_, line)) = all.next() {
        out.put(before);
        out.put(&line);
        before = ",\n";
    }
    out.put(if before == "[" { "[]\n" } else { "]\n" });
    let is_whole = all.end();
    out.end()?;
    Ok(u8::from(!is_whole))
}

/// Standard output. What cannot be written is reported at the end.
struct Output {
    out: BufWriter<Stdout>,
    done: io::Result<()>,
}

impl Output {
    fn new() -> Self {
        Self {
            out: BufWriter::new(std::io::stdout()),
            done: Ok(()),
        }
    }

    /// Writes, unless that has failed before.
    fn put(&mut self, text: &str) {
        if self.done.is_ok() {
            self.done = self.out.write_all(text.as_bytes());
        }
    }

    fn end(mut self) -> Result<(), Refusal> {
        let flushed = self.out.flush();
        written(self.done.and(flushed))
    }
}

/// What becomes of the lines of one server.
trait Pieces: Default {
    type Piece: Dated;

    /// Takes a line; what has become whole with it.
    fn take(&mut self, line: &[u8], from: Time) -> Option<Self::Piece>;

    /// What has become whole with the end.
    fn rest(&mut self) -> Option<Self::Piece>;
}

trait Dated {
    /// By what the pieces of several servers are put in order.
    fn time(&self) -> Time;
}

/// Lines put together to incidents.
#[derive(Default)]
struct Open(Incidents);

impl Pieces for Open {
    type Piece = Incident;

    fn take(&mut self, line: &[u8], from: Time) -> Option<Incident> {
        let line = Line::parse(line).filter(|line| line.at >= from)?;
        self.0.take(line)
    }

    fn rest(&mut self) -> Option<Incident> {
        self.0.first()
    }
}

impl Dated for Incident {
    fn time(&self) -> Time {
        self.began
    }
}

/// Lines as they are in the file, but with no character that a terminal obeys.
#[derive(Default)]
struct Raw;

impl Pieces for Raw {
    type Piece = (Time, String);

    fn take(&mut self, line: &[u8], from: Time) -> Option<(Time, String)> {
        if let Some(Line { at, .. }) = Line::of_written(line) {
            let text = (at >= from).then(|| String::from_utf8(line.to_owned()).ok());
            return Some((at, escaped(text.flatten()?)));
        }
        // Every key is to be there.
        let entry: Entry = serde_json::from_slice(line).ok()?;
        let text = (entry.at >= from).then(|| serde_json::to_string(&entry).ok());
        Some((entry.at, escaped(text.flatten()?)))
    }

    fn rest(&mut self) -> Option<(Time, String)> {
        None
    }
}

impl Dated for (Time, String) {
    fn time(&self) -> Time {
        self.0
    }
}

/// The history of one server.
struct Source<P: Pieces> {
    path: PathBuf,
    from: Time,
    lines: Lines,
    pieces: P,
    /// The next piece.
    next: Option<P::Piece>,
}

impl<P: Pieces> Source<P> {
    /// Nothing before `from` counts.
    fn open(path: PathBuf, from: Time) -> Self {
        let mut source = Self {
            lines: Lines::open(&path),
            path,
            from,
            pieces: P::default(),
            next: None,
        };
        source.read();
        source
    }

    /// Reads on up to the next piece.
    fn read(&mut self) {
        while let Some(line) = self.lines.next() {
            self.next = self.pieces.take(line, self.from);
            if self.next.is_some() {
                return;
            }
        }
        self.next = self.pieces.rest();
    }
}

/// The pieces of several servers, in order of time.
struct Merged<P: Pieces>(Vec<Source<P>>);

impl<P: Pieces> Merged<P> {
    fn new(sources: Vec<Source<P>>) -> Self {
        Self(sources)
    }

    fn next(&mut self) -> Option<P::Piece> {
        let sources = self.0.iter_mut();
        let some = sources.filter(|source| source.next.is_some());
        let first = some.min_by_key(|source| source.next.as_ref().map(Dated::time))?;
        let piece = first.next.take();
        first.read();
        piece
    }

    /// Whether all could be read.
    fn end(self) -> bool {
        let mut is_whole = true;
        for source in self.0 {
            if let Err(reason) = source.lines.end() {
                let path = source.path.display();
                warn_stderr(&format!("{path}: {}", errno_text(&reason)));
                is_whole = false;
            }
        }
        is_whole
    }
}

/// A line for each incident, the oldest first.
#[derive(Default)]
struct Table {
    incidents: Vec<Incident>,
    /// Widths of the columns.
    name: usize,
    outcome: usize,
}

impl Table {
    fn add(&mut self, incident: Incident, out: &mut Output) {
        let name = incident.server.chars().count().min(LONGEST_NAME);
        self.name = self.name.max(name);
        let (outcome, lasted) = outcome_of(&incident);
        self.outcome = self.outcome.max(outcome.len() + lasted.len());
        self.incidents.push(incident);
        if self.incidents.len() >= TOGETHER {
            self.print(TOGETHER / 2, out);
        }
    }

    /// Prints the first ones.
    fn print(&mut self, number: usize, out: &mut Output) {
        self.incidents.sort_by_key(|incident| incident.began);
        let style = Style::of_stdout();
        let mut line = String::with_capacity(TYPICAL_LINE);
        for incident in self.incidents.drain(..number) {
            let (outcome, lasted) = outcome_of(&incident);
            let name = short(&incident.server, self.name);
            let away = seconds(incident.away);
            put_date(&mut line, incident.began);
            line.push_str("  ");
            line.push_str(&name);
            pad(&mut line, self.name.saturating_sub(name.chars().count()));
            line.push_str("  ");
            pad(&mut line, LONGEST_TIME.saturating_sub(away.len()));
            line.push_str(&away);
            line.push_str("  ");
            line.push_str(outcome);
            line.push_str(lasted);
            pad(&mut line, self.outcome - outcome.len() - lasted.len());
            line.push_str("  ");
            line.push_str(&what(&incident));
            line.truncate(line.trim_end().len());
            line.push('\n');
            line = style.plain(line);
            out.put(&line);
            line.clear();
        }
    }
}

/// Adds that many spaces, of which a column has at most `LONGEST_NAME`.
fn pad(line: &mut String, number: usize) {
    const SPACES: &str = "                                ";
    line.push_str(SPACES.get(..number).unwrap_or(SPACES));
}

/// How an incident went, and whether that lasted.
fn outcome_of(incident: &Incident) -> (&'static str, &'static str) {
    let lasted = match incident.lasted {
        Some(true) => ", lasted",
        Some(false) => ", fell again",
        None => "",
    };
    (outcome(incident.event), lasted)
}
