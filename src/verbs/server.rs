//! What the state directory says of one server, read once.

use std::collections::{BTreeMap, VecDeque};

use super::incidents::{Incident, Incidents, is_incident};
use super::spans::Timeline;
use super::targets::Target;
use crate::state::history::{self, HistoryEvent, Line};
use crate::state::last::{self, Checked};
use crate::state::ledger::{Condition, Down, Hold, Ledger};
use crate::state::pause::{self, Current, Requested};
use crate::state::time::Time;
use crate::text::errno_text;

/// A day, in seconds.
pub(crate) const DAY: u64 = 86_400;
/// How far back the status looks, in seconds.
pub(crate) const MONTH: u64 = 30 * DAY;
/// So many incidents of a server are shown at most.
pub(crate) const SHOWN: usize = 5;

/// How a server is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum How {
    Up,
    Down,
    Held,
    Failed,
    Paused,
    /// No run looks after it.
    Stale,
}

impl How {
    /// Its name in JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Held => "held",
            Self::Failed => "failed",
            Self::Paused => "paused",
            Self::Stale => "stale",
        }
    }

    /// Its name for people.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Held => "held off",
            other => other.name(),
        }
    }

    /// Whether nobody has to do anything.
    pub(crate) fn is_well(self) -> bool {
        matches!(self, Self::Up | Self::Paused)
    }
}

/// The process of a server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ShownProcess {
    pub(crate) pid: i32,
    /// Login name, or the user ID in digits.
    pub(crate) user: Option<String>,
    pub(crate) started: Option<Time>,
}

/// Numbers by cause, then by culprit.
pub(crate) type Counts = BTreeMap<String, BTreeMap<String, u32>>;

/// What happened in the span that was read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Past {
    pub(crate) timeline: Timeline,
    /// The last incidents, the oldest first.
    pub(crate) incidents: VecDeque<Incident>,
    /// Their lines, and others', as they stand in the file.
    pub(crate) lines: VecDeque<Vec<u8>>,
    /// Incidents by cause, then by culprit.
    pub(crate) counts: Counts,
    /// Restarts in 24 hours.
    pub(crate) day: u32,
    /// Restarts in the whole span.
    pub(crate) month: u32,
}

/// All that is known of a server.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) url: Option<String>,
    pub(crate) checked: Option<Checked>,
    pub(crate) ledger: Ledger,
    pub(crate) certificate_expires: Option<Time>,
    pub(crate) asked: Requested,
    /// The last `resume` that a run has carried out.
    pub(crate) resumed: Option<Time>,
    pub(crate) process: Option<ShownProcess>,
    pub(crate) past: Past,
    /// What could not be read, a line for each.
    pub(crate) damage: Vec<String>,
}

impl Server {
    /// Reads its files, and of its history that many seconds, with the last lines if they are wanted. `process` looks up the process of its record; `seen`
    /// gets each incident.
    pub(crate) fn read(
        target: &Target,
        now: Time,
        span: u64,
        keeps_lines: bool,
        process: impl FnOnce(&crate::state::State) -> Option<ShownProcess>,
        seen: &mut dyn FnMut(&Incident),
    ) -> Self {
        let mut damage: Vec<String> = Vec::new();
        let mut note = |extension: &str, reason: &str| {
            damage.push(format!("{}: {reason}", target.file(extension).display()));
        };
        if let Some(reason) = &target.damage {
            note(".json", reason);
        }
        let checked = last::read(&target.file(".last")).unwrap_or_else(|reason| {
            note(".last", &errno_text(&reason));
            None
        });
        let asked = pause::current(&target.file(".pause"), now);
        if let Current::Unreadable(reason) = &asked.current {
            note(".pause", &format!("{reason}; this is no pause"));
        }
        let state = target.state.clone().unwrap_or_default();
        let process = process(&state);
        let mut server = Self {
            name: target.name.clone(),
            url: target.url.clone(),
            checked,
            ledger: state.ledger,
            certificate_expires: state.certificate_expires,
            asked,
            resumed: state.resumed,
            process,
            past: Past::default(),
            damage: Vec::new(),
        };
        let mut reader = Reader::new(now, span, keeps_lines, seen);
        if let Err(reason) =
            history::read_lines(&target.file(".history.jsonl"), |line| reader.take(line))
        {
            note(".history.jsonl", &errno_text(&reason));
        }
        server.past = reader.past(&server, now);
        server.damage = damage;
        server
    }

    /// Whether a run was ever made.
    pub(crate) fn is_known(&self) -> bool {
        self.checked.is_some() || self.past.timeline.first.is_some()
    }

    /// How it is.
    pub(crate) fn how(&self, now: Time) -> How {
        let Some(checked) = self.checked.filter(|checked| !checked.is_stale(now)) else {
            return How::Stale;
        };
        if matches!(
            self.asked.current,
            Current::Paused(_) | Current::Inhibited(_)
        ) {
            return How::Paused;
        }
        match self.phase() {
            Condition::Up if checked.last.is_up => How::Up,
            Condition::Held if !self.is_resumed() => How::Held,
            Condition::Failed => How::Failed,
            _ => How::Down,
        }
    }

    /// The phase that was written down, unless a later check has answered: on a full disk only the check
    /// is still written.
    fn phase(&self) -> Condition {
        let is_later = |checked: Checked| self.ledger.since.is_none_or(|since| since <= checked.at);
        match self.checked {
            Some(checked) if checked.last.is_up && is_later(checked) => Condition::Up,
            _ => self.ledger.phase,
        }
    }

    /// The outage that goes on, and since when.
    pub(crate) fn down(&self) -> Option<(&Down, Time)> {
        if self.phase() == Condition::Up {
            return None;
        }
        Some((self.ledger.down.as_ref()?, self.ledger.since?))
    }

    /// Why the next restart waits; none once its end was asked for.
    pub(crate) fn hold(&self) -> Option<&Hold> {
        self.ledger.held().filter(|_| !self.is_resumed())
    }

    /// Whether the next run ends the hold-off.
    pub(crate) fn is_resumed(&self) -> bool {
        self.asked.resume.is_some() && self.asked.resume != self.resumed
    }
}

/// Puts the lines of the history together.
struct Reader<'a> {
    /// Nothing before it counts.
    from: Time,
    day: Time,
    past: Past,
    incidents: Incidents,
    keeps_lines: bool,
    /// Gets each incident.
    seen: &'a mut dyn FnMut(&Incident),
}

impl<'a> Reader<'a> {
    fn new(now: Time, span: u64, keeps_lines: bool, seen: &'a mut dyn FnMut(&Incident)) -> Self {
        Self {
            from: Time(now.0.saturating_sub(span)),
            day: Time(now.0.saturating_sub(DAY)),
            past: Past::default(),
            incidents: Incidents::default(),
            keeps_lines,
            seen,
        }
    }

    fn take(&mut self, text: &[u8]) {
        let Some(line) = Line::parse(text) else {
            return;
        };
        let timeline = &mut self.past.timeline;
        let away = line.away_s.unwrap_or(0);
        let began = line.began();
        timeline.first = Some(timeline.first.map_or(began, |first| first.min(began)));
        if line.at < self.from {
            return;
        }
        match line.event {
            HistoryEvent::Unwatched => timeline.unwatched.add(line.at, away),
            HistoryEvent::Planned => timeline.planned.add(line.at, away),
            _ => timeline.away.add(line.at, away),
        }
        if !is_incident(line.event) {
            return;
        }
        if line.is_restart() {
            self.past.month += 1;
            self.past.day += u32::from(line.at >= self.day);
        }
        if self.keeps_lines {
            let lines = &mut self.past.lines;
            if lines.len() >= 4 * SHOWN {
                lines.pop_front();
            }
            lines.push_back(text.to_owned());
        }
        if let Some(incident) = self.incidents.take(line) {
            self.past.count(&incident);
            (self.seen)(&incident);
        }
    }

    fn past(self, server: &Server, now: Time) -> Past {
        let mut past = self.past;
        let mut incidents = self.incidents.rest();
        past.outage(server, &mut incidents, now);
        for incident in &incidents {
            past.count(incident);
            (self.seen)(incident);
        }
        let surplus = incidents.len().saturating_sub(SHOWN);
        past.incidents = incidents.split_off(surplus);
        let timeline = &mut past.timeline;
        if let Some(checked) = server.checked {
            // After it, nobody knows.
            if let Some(silence) = checked.unwatched(now) {
                timeline.unwatched.add(now, silence.as_secs());
            }
        }
        let known = [
            timeline.first,
            server.ledger.since,
            server.checked.map(|checked| checked.at),
        ];
        timeline.first = known.into_iter().flatten().min();
        timeline.unwatched.merge();
        timeline.away.merge();
        if let Some(more) = server.ledger.planned.and_then(|since| since.before(now)) {
            timeline.planned.add(now, more.as_secs());
        }
        timeline.planned.merge();
        let away = timeline.away.without(&timeline.unwatched);
        timeline.away = away.without(&timeline.planned);
        past
    }
}

impl Past {
    fn count(&mut self, incident: &Incident) {
        let Some(cause) = incident.cause.as_deref() else {
            return;
        };
        let who = incident.who().unwrap_or_default();
        if let Some(count) = self.counts.get_mut(cause).and_then(|by| by.get_mut(who)) {
            *count += 1;
            return;
        }
        let by = self.counts.entry(cause.to_owned()).or_default();
        by.insert(who.to_owned(), 1);
    }

    /// Adds what of the outage that goes on is in no line yet.
    fn outage(&mut self, server: &Server, incidents: &mut VecDeque<Incident>, now: Time) {
        let Some((down, since)) = server.down() else {
            return;
        };
        let mut until = now;
        if let Some(checked) = server.checked.filter(|checked| checked.is_stale(now)) {
            until = checked.at;
        }
        match &server.asked.current {
            Current::Paused(pause) => until = until.min(pause.at),
            Current::Inhibited(inhibit) => until = until.min(inhibit.at),
            _ => (),
        }
        let counted = Time(since.0.saturating_add(down.counted));
        let more = counted.before(until);
        let more = more.map_or(0, |more| more.as_secs());
        self.timeline.away.add(until, more);
        let mut open = incidents.iter_mut();
        if let Some(incident) = open.find(|incident| incident.id == down.id) {
            incident.away += more;
            return;
        }
        let event = match server.ledger.phase {
            Condition::Held => HistoryEvent::Held,
            _ => HistoryEvent::Failed,
        };
        let text = |text: &String| (!text.is_empty()).then(|| text.clone());
        let incident = Incident {
            id: down.id.clone(),
            server: server.name.clone(),
            began: since,
            event,
            cause: text(&down.cause),
            culprit: down.culprit.clone(),
            is_client: down.culprit_kind.as_deref() == Some("client"),
            away: more,
            by: None,
            restarts: 0,
            lasted: None,
        };
        incidents.push_back(incident);
    }
}
