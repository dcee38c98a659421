//! Lines of the history, put together to incidents.

use std::collections::VecDeque;

use crate::state::history::{Entry, Event};
use crate::state::time::Time;

/// So many incidents are kept open for further lines of theirs.
const OPEN: usize = 32;

/// What happened to a server once.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Incident {
    pub(crate) id: String,
    pub(crate) server: String,
    /// When it began.
    pub(crate) began: Time,
    /// Its last event that is about how it went.
    pub(crate) event: Event,
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
    fn new(entry: &Entry) -> Self {
        Self {
            id: entry.id.clone(),
            server: entry.server.clone(),
            began: Time(entry.at.0.saturating_sub(entry.away_s.unwrap_or(0))),
            event: entry.event,
            cause: None,
            culprit: None,
            is_client: false,
            away: 0,
            by: None,
            restarts: 0,
            lasted: None,
        }
    }

    fn take(&mut self, entry: Entry) {
        match entry.event {
            Event::Lasted => return self.lasted = Some(true),
            Event::FellAgain => return self.lasted = Some(false),
            Event::Restarted | Event::Failed => self.restarts += 1,
            _ => (),
        }
        self.event = entry.event;
        self.away += entry.away_s.unwrap_or(0);
        if entry.cause.is_some() {
            self.cause = entry.cause;
        }
        if entry.culprit.is_some() {
            self.is_client = entry.culprit_kind.as_deref() == Some("client");
            self.culprit = entry.culprit;
        }
        if entry.by.is_some() {
            self.by = entry.by.filter(|by| by != "monitor");
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
        let words = [self.cause.as_deref(), culprit];
        let words: Vec<&str> = words.into_iter().flatten().collect();
        words.join(" ")
    }
}

/// Whether lines of that kind tell of an incident.
pub(crate) fn is_incident(event: Event) -> bool {
    !matches!(event, Event::Unwatched | Event::Other)
}

/// Puts lines together. An incident is passed on when many others have begun since, so that it needs
/// the memory of a few.
#[derive(Debug, Default)]
pub(crate) struct Incidents {
    open: VecDeque<Incident>,
}

impl Incidents {
    /// Takes the next line of a server; an incident of which no further line is awaited.
    pub(crate) fn take(&mut self, entry: Entry) -> Option<Incident> {
        let mut open = self.open.iter_mut().rev();
        if let Some(incident) = open.find(|incident| incident.id == entry.id) {
            incident.take(entry);
            return None;
        }
        // Its first lines are too old to be read, or were lost with a file.
        if matches!(entry.event, Event::Lasted | Event::FellAgain) {
            return None;
        }
        let mut incident = Incident::new(&entry);
        incident.take(entry);
        self.open.push_back(incident);
        (self.open.len() > OPEN)
            .then(|| self.open.pop_front())
            .flatten()
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

    fn entry(id: &str, at: u64, event: Event, away: u64) -> Entry {
        Entry {
            id: id.to_owned(),
            at: Time(at),
            server: "main".to_owned(),
            event,
            cause: Some("idle_client".to_owned()),
            culprit: Some("[2001:db8::1]:51234".to_owned()),
            culprit_kind: Some("client".to_owned()),
            away_s: Some(away),
            outcome: None,
            pids: Vec::new(),
            by: None,
        }
    }

    #[test]
    fn lines_of_one_incident_are_one() {
        let mut incidents = Incidents::default();
        incidents.take(entry("1", 1074, Event::Failed, 74));
        incidents.take(entry("2", 2000, Event::Unwedged, 1));
        let mut recovered = entry("1", 2074, Event::Recovered, 1000);
        recovered.by = Some("alice".to_owned());
        recovered.culprit = None;
        incidents.take(recovered);
        incidents.take(entry("1", 2700, Event::Lasted, 0));
        incidents.take(entry("0", 2700, Event::FellAgain, 0));
        let rest: Vec<Incident> = incidents.rest().into();
        assert_eq!(rest.len(), 2);
        let one = &rest[0];
        assert_eq!((one.began, one.away), (Time(1000), 1074));
        assert_eq!((one.event, one.lasted), (Event::Recovered, Some(true)));
        assert_eq!((one.restarts, one.by.as_deref()), (1, Some("alice")));
        assert_eq!(one.who(), Some("[2001:db8::1]"));
        assert_eq!(one.what(one.who()), "idle_client [2001:db8::1]");
    }

    #[test]
    fn only_a_client_loses_its_port() {
        let mut incidents = Incidents::default();
        let mut peer = entry("1", 1074, Event::Failed, 74);
        peer.culprit_kind = Some("peer".to_owned());
        incidents.take(peer);
        assert_eq!(incidents.rest()[0].who(), Some("[2001:db8::1]:51234"));
    }

    #[test]
    fn old_incidents_are_passed_on() {
        let mut incidents = Incidents::default();
        let passed = (0..100).filter_map(|number| {
            let id = number.to_string();
            incidents.take(entry(&id, number, Event::Restarted, 1))
        });
        let passed: Vec<String> = passed.map(|incident| incident.id).collect();
        assert_eq!(passed.len(), 100 - OPEN);
        assert_eq!(passed[0], "0");
    }
}
