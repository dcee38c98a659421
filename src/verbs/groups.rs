//! Incidents counted by what they have in common.

use std::collections::BTreeMap;

use super::cli::By;
use super::incidents::{Incident, is_incident};
use super::words::{WIDTH, number, seconds, short};
use crate::state::history::HistoryEvent;

/// What is counted of incidents with one cause or one culprit.
#[derive(Clone, Debug, Default)]
pub(crate) struct Group {
    pub(crate) incidents: u32,
    pub(crate) restarts: u32,
    /// Incidents after whose last restart the server answered for 10 minutes.
    pub(crate) lasted: u32,
    /// Incidents after whose restart it has not answered for so long yet.
    pub(crate) open: u32,
    pub(crate) unwedged: u32,
    /// In seconds.
    pub(crate) away: u64,
}

impl Group {
    pub(crate) fn add(&mut self, incident: &Incident) {
        self.incidents += 1;
        self.restarts += incident.restarts;
        self.lasted += u32::from(incident.restarts > 0 && incident.lasted == Some(true));
        let is_restarted = incident.event == HistoryEvent::Restarted;
        self.open += u32::from(is_restarted && incident.lasted.is_none());
        self.unwedged += u32::from(incident.event == HistoryEvent::Unwedged);
        self.away += incident.away;
    }
}

#[derive(Debug, Default)]
pub(crate) struct Groups(BTreeMap<String, Group>);

impl Groups {
    /// Counts an incident under its cause or its culprit, `-` if it has none.
    pub(crate) fn add(&mut self, by: By, incident: &Incident) {
        if !is_incident(incident.event) {
            return;
        }
        let name = match by {
            By::Cause => incident.cause.as_deref(),
            By::Culprit => incident.who(),
        };
        let name = name.unwrap_or("-");
        if let Some(group) = self.0.get_mut(name) {
            return group.add(incident);
        }
        let group = self
            .0
            .entry(short(name, WIDTH / 2).into_owned())
            .or_default();
        group.add(incident);
    }

    /// The groups with their names, the most frequent first.
    pub(crate) fn sorted(&self) -> Vec<(&str, &Group)> {
        let groups = self.0.iter().map(|(name, group)| (name.as_str(), group));
        let mut groups: Vec<_> = groups.collect();
        groups.sort_by_key(|(_, group)| std::cmp::Reverse(group.incidents));
        groups
    }

    /// A line for each, the most frequent first.
    pub(crate) fn rows(&self) -> String {
        let width = self.0.keys().map(|name| name.chars().count()).max();
        let width = width.unwrap_or(0);
        let rows = self.sorted().into_iter().map(|(name, group)| {
            let restarts = number(group.restarts.into(), "restart");
            let lasted = group.lasted;
            let open = match group.open {
                0 => String::new(),
                number => format!(", {number} not known yet"),
            };
            let unwedged = match group.unwedged {
                0 => String::new(),
                number => format!("; {number} unwedged"),
            };
            let away = seconds(group.away);
            format!("{name:width$}  {restarts}, {lasted} lasted{open}{unwedged}; away {away}\n")
        });
        rows.collect()
    }
}
