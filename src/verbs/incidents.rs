//! Lines of the history, put together to incidents.

use std::collections::VecDeque;

use crate::state::history::{HistoryEvent, Line, Text};
use crate::state::time::Time;

/// Number of incidents that can get further lines. Older ones are passed on.
const OPEN: usize = 8;

/// What happened to a server once.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Incident {
    pub(crate) id: String,
    pub(crate) server: String,
    /// When it began.
    pub(crate) began: Time,
    /// Its last event that is about how it went.
    pub(crate) event: HistoryEvent,
    pub(crate) cause: Option<String>,
    pub(crate) culprit: Option<String>,
    /// Whether the culprit is a client, whose port says nothing.
    pub(crate) is_client: bool,
    /// How long the server was away, in seconds.
    pub(crate) away: u64,
    /// Who restored the service, if that was not the monitor.
    pub(crate) by: Option<String>,
    /// Restarts that are in the history.
    pub(crate) restarts: u32,
    /// Whether the server then answered for 10 minutes, as far as that is known.
    pub(crate) lasted: Option<bool>,
}

impl Incident {
    fn new(line: &Line) -> Self {
        Self {
            id: line.id.clone().into_owned(),
            server: line.server.clone().into_owned(),
            began: line.began(),
            event: line.event,
            cause: None,
            culprit: None,
            is_client: false,
            away: 0,
            by: None,
            restarts: 0,
            lasted: None,
        }
    }

    /// `paused`: seconds of the line's time away in which the monitor was paused.
    fn take(&mut self, line: Line, paused: u64) {
        match line.event {
            HistoryEvent::Lasted => return self.lasted = Some(true),
            HistoryEvent::FellAgain => return self.lasted = Some(false),
            _ => self.restarts += u32::from(line.is_restart()),
        }
        self.event = line.event;
        self.away += line.away_s.unwrap_or(0).saturating_sub(paused);
        let owned = |text: Text| text.0.into_owned();
        if let Some(cause) = line.cause.map(owned) {
            // Another cause has a culprit of its own, or none.
            if self.cause.as_ref() != Some(&cause) {
                self.culprit = None;
            }
            self.cause = Some(cause);
        }
        if let Some(culprit) = line.culprit {
            self.is_client = line.culprit_kind.is_some_and(|kind| kind.0 == "client");
            self.culprit = Some(owned(culprit));
        }
        if let Some(by) = line.by {
            self.by = Some(by).filter(|by| by.0 != "monitor").map(owned);
        }
    }

    /// The culprit, without the port that a client had.
    pub(crate) fn who(&self) -> Option<&str> {
        let culprit = self.culprit.as_deref()?;
        Some(match culprit.rsplit_once(':') {
            Some((address, port))
                if self.is_client && port.bytes().all(|byte| byte.is_ascii_digit()) =>
            {
                address
            }
            _ => culprit,
        })
    }

    /// Cause and culprit, with what there is of them.
    pub(crate) fn what(&self, culprit: Option<&str>) -> String {
        match (self.cause.as_deref(), culprit) {
            (Some(cause), Some(culprit)) => [cause, " ", culprit].concat(),
            (one, other) => one.or(other).unwrap_or_default().to_owned(),
        }
    }
}

/// Whether lines of that kind tell of an incident.
pub(crate) fn is_incident(event: HistoryEvent) -> bool {
    !matches!(
        event,
        HistoryEvent::Unwatched | HistoryEvent::Planned | HistoryEvent::Other
    )
}

/// Puts lines together. An incident is passed on when many others have begun since, so that it needs
/// the memory of a few.
#[derive(Debug, Default)]
pub(crate) struct Incidents {
    open: VecDeque<Incident>,
    /// The last pauses in which a server was away. The line of a pause comes before that of an outage that goes on
    /// after it.
    pauses: VecDeque<PausedSpan>,
}

/// When a server was away during a pause.
#[derive(Debug)]
struct PausedSpan {
    server: String,
    from: Time,
    until: Time,
}

impl PausedSpan {
    /// Seconds of the line's time away that are within it.
    fn within(&self, line: &Line) -> u64 {
        if self.server != line.server {
            return 0;
        }
        let (from, until) = (self.from.max(line.began()), self.until.min(line.at));
        from.before(until).map_or(0, |span| span.as_secs())
    }
}

impl Incidents {
    /// Takes the next line of a server; an incident of which no further line is awaited.
    pub(crate) fn take(&mut self, line: Line) -> Option<Incident> {
        if line.event == HistoryEvent::Planned {
            if self.pauses.len() == OPEN {
                self.pauses.pop_front();
            }
            self.pauses.push_back(PausedSpan {
                server: line.server.clone().into_owned(),
                from: line.began(),
                until: line.at,
            });
        }
        let paused = match line.event {
            HistoryEvent::Planned => 0,
            _ => self.pauses.iter().map(|span| span.within(&line)).sum(),
        };
        let mut open = self.open.iter_mut().rev();
        // Lines about no incident have no number.
        let mut same = open.by_ref().filter(|_| !line.id.is_empty());
        if let Some(incident) = same.find(|incident| incident.id == line.id) {
            incident.take(line, paused);
            return None;
        }
        // Its first lines are too old to be read, or were lost with a file.
        if matches!(line.event, HistoryEvent::Lasted | HistoryEvent::FellAgain) {
            return None;
        }
        let mut incident = Incident::new(&line);
        incident.take(line, paused);
        self.open.push_back(incident);
        let is_full = self.open.len() > OPEN;
        is_full.then(|| self.open.pop_front()).flatten()
    }

    /// The first of the others.
    pub(crate) fn first(&mut self) -> Option<Incident> {
        self.open.pop_front()
    }

    /// The others.
    pub(crate) fn rest(self) -> VecDeque<Incident> {
        self.open
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn line(id: &str, at: u64, event: HistoryEvent, away: u64) -> Line<'_> {
        let text = |text: &'static str| Some(Text(text.into()));
        Line {
            id: id.into(),
            at: Time(at),
            server: "main".into(),
            event,
            cause: text("idle_client"),
            culprit: text("[2001:db8::1]:51234"),
            culprit_kind: text("client"),
            away_s: Some(away),
            outcome: text("failed"),
            by: None,
        }
    }

    #[test]
    fn time_away_during_a_pause_does_not_count() {
        let mut incidents = Incidents::default();
        incidents.take(line("1", 1010, HistoryEvent::Failed, 10));
        incidents.take(line("", 8000, HistoryEvent::Planned, 6900));
        incidents.take(line("1", 8010, HistoryEvent::Recovered, 7000));
        let one = incidents.open.iter().find(|one| one.id == "1").unwrap();
        assert_eq!(one.away, 110);
    }

    #[test]
    fn lines_of_one_incident_are_one() {
        let mut incidents = Incidents::default();
        incidents.take(line("1", 1074, HistoryEvent::Failed, 74));
        incidents.take(line("2", 2000, HistoryEvent::Unwedged, 1));
        let mut recovered = line("1", 2074, HistoryEvent::Recovered, 1000);
        recovered.by = Some(Text("alice".into()));
        recovered.culprit = None;
        incidents.take(recovered);
        incidents.take(line("1", 2700, HistoryEvent::Lasted, 0));
        incidents.take(line("0", 2700, HistoryEvent::FellAgain, 0));
        let rest: Vec<Incident> = incidents.rest().into();
        assert_eq!(rest.len(), 2);
        let one = &rest[0];
        assert_eq!((one.began, one.away), (Time(1000), 1074));
        assert_eq!(
            (one.event, one.lasted),
            (HistoryEvent::Recovered, Some(true))
        );
        assert_eq!((one.restarts, one.by.as_deref()), (1, Some("alice")));
        assert_eq!(one.who(), Some("[2001:db8::1]"));
        assert_eq!(one.what(one.who()), "idle_client [2001:db8::1]");
    }

    #[test]
    fn lines_without_a_number_are_no_incident_s() {
        let mut incidents = Incidents::default();
        incidents.take(line("", 1074, HistoryEvent::Unwatched, 74));
        incidents.take(line("", 2000, HistoryEvent::Planned, 1));
        assert_eq!(incidents.rest().len(), 2);
    }

    #[test]
    fn only_a_client_loses_its_port() {
        let mut incidents = Incidents::default();
        let mut peer = line("1", 1074, HistoryEvent::Failed, 74);
        peer.culprit_kind = Some(Text("peer".into()));
        incidents.take(peer);
        assert_eq!(incidents.rest()[0].who(), Some("[2001:db8::1]:51234"));
    }

    #[test]
    fn old_incidents_are_passed_on() {
        let mut incidents = Incidents::default();
        let passed = (0..100).filter_map(|number| {
            let id = number.to_string();
            incidents.take(line(&id, number, HistoryEvent::Restarted, 1))
        });
        let passed: Vec<String> = passed.map(|incident| incident.id).collect();
        assert_eq!(passed.len(), 100 - OPEN);
        assert_eq!(passed[0], "0");
    }
}
