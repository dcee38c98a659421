//! `report`: what a span of time was like, for a mail or as a web page.

mod html;
mod map;
mod markup;
mod text;

use super::cli::{self, By};
use super::groups::{Group, Groups};
use super::incidents::Incident;
use super::server::{DAY, How, Server};
use super::status::{CERTIFICATE_DAYS, flapping, summary};
use super::targets::Targets;
use super::words::{Style, local, number, seconds};
use super::{Refusal, nothing, print, targets};
use crate::diagnosis::Kind;
use crate::proc::machine::host_name;
use crate::state::time::Time;

/// Number of the longest outages, of causes and of culprits that are shown.
const MOST: usize = 5;

/// What is reported.
struct Report {
    host: String,
    from: Time,
    now: Time,
    servers: Vec<Watched>,
    /// All incidents.
    total: Group,
    causes: Groups,
    culprits: Groups,
    /// The longest first.
    longest: Vec<Incident>,
}

/// A server in that time.
struct Watched {
    server: Server,
    count: Group,
    /// Seconds that it was away, pauses excepted.
    away: u64,
    /// What there is to know beside the figures, a sentence for each.
    notes: Vec<String>,
}

/// Prints the report. Returns the exit status.
pub(super) fn show(flags: &cli::Report) -> Result<u8, Refusal> {
    let targets = targets(&flags.which)?;
    let now = Time::now();
    let report = Report::read(&targets, flags.span().as_secs(), now);
    let is_known = report.servers.iter().any(|one| one.server.is_known());
    let mut damage = report.servers.iter().flat_map(|one| &one.server.damage);
    let damage = damage.next().map(String::as_str);
    let missing = (!is_known).then(|| nothing(&targets, damage));
    if flags.html {
        print(&html::page(&report, missing.as_deref()))?;
    } else {
        let text = match &missing {
            Some(missing) => format!("{missing}\n"),
            None => text::page(&report),
        };
        print(&Style::of_stdout().plain(text))?;
    }
    Ok(u8::from(damage.is_some() || !is_known))
}

impl Report {
    fn read(targets: &Targets, span: u64, now: Time) -> Self {
        let from = Time(now.0.saturating_sub(span));
        let mut report = Self {
            host: host_name(),
            from,
            now,
            servers: Vec::new(),
            total: Group::default(),
            causes: Groups::default(),
            culprits: Groups::default(),
            longest: Vec::new(),
        };
        for target in &targets.all {
            let mut count = Group::default();
            let server = Server::read(target, now, span, false, |_| None, &mut |incident| {
                count.add(incident);
                report.add(incident);
            });
            let away = server.past.timeline.away.between(from.0, now.0);
            let notes = notes(&server, from, now);
            report.servers.push(Watched {
                server,
                count,
                away,
                notes,
            });
        }
        report
    }

    fn add(&mut self, incident: &Incident) {
        self.total.add(incident);
        self.causes.add(By::Cause, incident);
        self.culprits.add(By::Culprit, incident);
        let place = self
            .longest
            .partition_point(|other| other.away >= incident.away);
        if place < MOST {
            self.longest.truncate(MOST - 1);
            self.longest.insert(place, incident.clone());
        }
    }

    /// Its length, in words.
    fn span(&self) -> String {
        seconds(self.now.0 - self.from.0)
    }

    /// Its beginning and its end.
    fn period(&self) -> String {
        let moment = |time, format| local(time).format(format).to_string();
        let day = "%a %d %b %Y %H:%M";
        format!("{} to {}", moment(self.from, day), moment(self.now, day))
    }

    /// Whether there is nothing to say.
    fn is_quiet(&self) -> bool {
        self.total.incidents == 0 && self.servers.iter().all(|one| one.notes.is_empty())
    }

    /// The report in a sentence or two.
    fn summary(&self) -> String {
        let names: Vec<&str> = self.servers.iter().map(|one| &*one.server.name).collect();
        let span = self.span();
        let mut text = match (self.total.incidents, names.as_slice()) {
            (0, [one]) => format!("No incident in {span}: {one} was up."),
            (0, [some @ .., last]) if some.len() < MOST => {
                format!(
                    "No incident in {span}: {} and {last} were up.",
                    some.join(", ")
                )
            }
            (0, all) => format!("No incident in {span}: all {} servers were up.", all.len()),
            (incidents, _) => {
                let away = seconds(self.servers.iter().map(|one| one.away).sum());
                let incidents = number(incidents.into(), "incident");
                let mut text = format!("{incidents} in {span}; away for {away} in all.");
                if let Some(helped) = helped(&self.total) {
                    text = format!("{text} Did restarting help? {}.", capital(&helped));
                }
                text
            }
        };
        let is_sick = |one: &&Watched| !one.server.how(self.now).is_well();
        let sick = self.servers.iter().filter(is_sick);
        let sick: Vec<&str> = sick.map(|one| &*one.server.name).collect();
        if self.total.incidents == 0 && !self.is_quiet() {
            text = format!("No incident in {span}.");
        }
        if !sick.is_empty() {
            text = format!("{text} Needs attention: {}.", sick.join(", "));
        }
        text
    }

    /// The causes that are worth advice: the most frequent, and those of servers that are down.
    fn advice(&self) -> Vec<(Kind, u32)> {
        let groups = self.causes.sorted();
        let down = self.servers.iter().filter_map(|one| {
            let (down, _) = one.server.down()?;
            Some(down.cause.as_str())
        });
        let known =
            |name: &str| Kind::from_slug(name).filter(|kind| !kind.entry().advice.is_empty());
        let first = groups.iter().find_map(|(name, _)| known(name));
        let mut kinds: Vec<Kind> = first.into_iter().chain(down.filter_map(known)).collect();
        let mut seen: Vec<Kind> = Vec::new();
        kinds.retain(|kind| {
            let is_new = !seen.contains(kind);
            seen.push(*kind);
            is_new
        });
        let count = |kind: Kind| {
            let mut groups = groups.iter();
            let group = groups.find(|(name, _)| *name == kind.slug());
            group.map_or(0, |(_, group)| group.incidents)
        };
        kinds.into_iter().map(|kind| (kind, count(kind))).collect()
    }
}

impl Watched {
    /// In per cent, of the time that was watched.
    fn availability(&self, report: &Report) -> String {
        let span = report.now.0 - report.from.0;
        let availability = self.server.past.timeline.availability(span, report.now);
        availability.map_or_else(|| "-".to_owned(), |span| format!("{} %", span.percent()))
    }
}

/// Whether restarts have helped; none where none was made and nothing was healed without one.
fn helped(group: &Group) -> Option<String> {
    let (restarts, lasted) = (group.restarts, group.lasted);
    let known = restarts.saturating_sub(group.open);
    let word = match (known, lasted) {
        (0, _) if restarts > 0 => "not known yet".to_owned(),
        (0, _) if group.unwedged == 0 => return None,
        (0, _) => "not needed".to_owned(),
        (_, 0) => "no".to_owned(),
        (known, lasted) if known == lasted => "yes".to_owned(),
        (known, lasted) if known <= 2 * lasted => "mostly".to_owned(),
        _ => "seldom".to_owned(),
    };
    let mut text = word;
    if restarts > 0 {
        text = format!("{text}, {lasted} of {}", number(restarts.into(), "restart"));
        if group.open > 0 && known > 0 {
            text = format!("{text}, {} not known yet", group.open);
        }
    }
    if group.unwedged > 0 {
        let comma = if restarts > 0 { "; " } else { ", " };
        text = format!("{text}{comma}{} unwedged", group.unwedged);
    }
    Some(text)
}

/// A moment of the span.
fn moment(time: Time) -> String {
    local(time).format("%a %d %b %H:%M").to_string()
}

fn capital(text: &str) -> String {
    let (first, rest) = text.split_at(text.len().min(1));
    first.to_uppercase() + rest
}

fn notes(server: &Server, from: Time, now: Time) -> Vec<String> {
    let mut notes = Vec::new();
    let how = server.how(now);
    if how != How::Up {
        notes.push(format!("now {}: {}", how.words(), summary(server, now)));
    }
    if let Some(since) = server.ledger.flapping {
        notes.push(flapping(since, now));
    }
    if let Some(expires) = server.certificate_expires {
        match now.before(expires).map(|left| left.as_secs() / DAY) {
            Some(days) if days <= CERTIFICATE_DAYS => {
                notes.push(format!(
                    "the certificate expires in {}",
                    number(days, "day")
                ));
            }
            None => notes.push("the certificate has expired".to_owned()),
            _ => (),
        }
    }
    let timeline = &server.past.timeline;
    let span = now.0 - from.0;
    let first = timeline
        .first
        .filter(|first| (first.0 - from.0.min(first.0)) * 100 > span);
    if let Some(first) = first {
        notes.push(format!("watched since {}", moment(first)));
    }
    let unwatched = timeline.unwatched.between(from.0, now.0);
    if unwatched > 0 {
        let watched = timeline
            .availability(span, now)
            .and_then(|span| span.watched());
        let of = watched.map_or_else(String::new, |part| {
            format!("; availability counts only the {part} % that was watched")
        });
        notes.push(format!("not watched for {}{of}", seconds(unwatched)));
    }
    let planned = timeline.planned.between(from.0, now.0);
    if planned > 0 {
        let planned = seconds(planned);
        notes.push(format!(
            "away for {planned} during pauses, which do not count"
        ));
    }
    notes.extend(server.damage.iter().cloned());
    notes
}
