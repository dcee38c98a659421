//! `status`: how the servers are, from the state directory alone.

mod json;
mod nagios;
mod table;

use std::fmt::Write;

pub(super) use self::nagios::{CERTIFICATE_DAYS, unknown};
pub(super) use self::table::{outcome, what};
use super::cli;
use super::server::{How, Server};
use super::words::{Style, clock, end, local, number, quoted, short, since, wrap};
use crate::diagnosis::Kind;
use crate::state::ledger::{Hold, Restarted};
use crate::state::pause::Current;
use crate::state::time::Time;
use crate::text::one_line;

/// Longest name that is shown whole, in characters.
const LONGEST_NAME: usize = 16;
/// Least width of the names, in columns.
const LEAST_NAME: usize = 4;
/// Width of the words for how a server is.
const WORDS: usize = 8;

/// What the command prints, and its exit status. `flags` choose the form.
pub(super) fn report(
    flags: &cli::Status,
    servers: &mut [Server],
    host: &str,
    now: Time,
    style: Style,
) -> (String, u8) {
    // What nobody looks after comes first.
    servers.sort_by_key(|server| server.how(now) != How::Stale);
    let is_well = servers.iter().all(|server| server.how(now).is_well());
    if flags.nagios {
        return nagios::line(servers, now);
    }
    let text = if flags.json {
        json::object(servers, host, now)
    } else if flags.short {
        style.plain(lines(servers, now))
    } else {
        page(servers, host, now, style)
    };
    (text, u8::from(!is_well))
}

/// One line for each server.
fn lines(servers: &[Server], now: Time) -> String {
    let names = servers.iter().map(|server| one_line(&server.name));
    let width = names.clone().map(|name| name.chars().count()).max();
    let width = width.unwrap_or(0).max(LEAST_NAME);
    let mut text = String::new();
    for (server, name) in servers.iter().zip(names) {
        let how = server.how(now).words();
        let what = one_line(&summary(server, now));
        let _ = writeln!(text, "{name:width$}  {how:WORDS$}  {what}");
    }
    text
}

fn page(servers: &[Server], host: &str, now: Time, style: Style) -> String {
    let date = local(now).format("%a %d %b %Y %H:%M:%S");
    let mut text = format!("{}, {date}\n\n", one_line(host));
    let width = name_width(servers);
    for server in servers {
        paragraph(server, width, now, style, &mut text);
    }
    text.push('\n');
    table::availability(servers, width, now, style, &mut text);
    table::incidents(servers, width, now, &mut text);
    style.plain(text)
}

fn name_width(servers: &[Server]) -> usize {
    let widths = servers.iter().map(|server| server.name.chars().count());
    widths.max().unwrap_or(0).clamp(LEAST_NAME, LONGEST_NAME)
}

/// A server: how it is, and what an administrator can do about it.
fn paragraph(server: &Server, width: usize, now: Time, style: Style, text: &mut String) {
    let how = server.how(now);
    let (symbol, ascii, color) = match how {
        How::Up => ('●', '*', 32),
        How::Held => ('▲', '!', 33),
        How::Paused => ('‖', '=', 36),
        How::Down | How::Failed => ('▼', 'x', 31),
        How::Stale => ('?', '?', 31),
    };
    let symbol = if style.is_unicode { symbol } else { ascii };
    let name = short(&server.name, LONGEST_NAME);
    let words = how.words();
    let head = format!("{symbol} {name:width$}  {words:WORDS$}  ");
    let indent = " ".repeat(head.chars().count());
    let mut first = String::new();
    wrap(&head, &one_line(&summary(server, now)), &mut first);
    let (painted, rest) = match how {
        How::Stale => first.split_at(first.len() - 1),
        _ => first.split_at(head.trim_end().len()),
    };
    text.push_str(&style.paint(color, painted));
    text.push_str(rest);
    for line in details(server, how, now) {
        wrap(&indent, &one_line(&line), text);
    }
}

/// What is known of a server, in one line.
pub(super) fn summary(server: &Server, now: Time) -> String {
    let Some(checked) = server.checked else {
        return "no run has checked it yet".to_owned();
    };
    let how = server.how(now);
    let last = checked.last;
    let took = format!("{:.3} s", last.took.as_secs_f64());
    let answer = match last.status {
        0 => format!("no answer in {took}"),
        status => format!("HTTP {status} in {took}"),
    };
    let ago = since(checked.at, now);
    if how == How::Stale {
        return if checked.at > now {
            let at = clock(checked.at, now);
            format!("the last check is of {at}, which is to come: {answer}; is the clock right?")
        } else {
            format!("no check for {ago}: {answer} then; does cron or the timer run?")
        };
    }
    let mut text = format!("{answer}, {ago} ago");
    match &server.asked.current {
        Current::Paused(pause) => {
            let _ = write!(text, "; until {}", end(pause.until, now));
            if !pause.by.is_empty() {
                let _ = write!(text, " by {}", pause.by);
            }
            if let Some(reason) = &pause.reason {
                let _ = write!(text, ": {reason}");
            }
        }
        Current::Inhibited(inhibit) => {
            let (pid, by) = (inhibit.pid, &inhibit.by);
            let since = clock(inhibit.at, now);
            let _ = write!(
                text,
                "; as long as {} runs (under PID {pid} of {by}, since {since})",
                inhibit.command
            );
        }
        _ => (),
    }
    if let Some((down, since_when)) = server.down() {
        let _ = write!(text, "; down {}", since(since_when, now));
        let what: Vec<&str> = [down.cause.as_str(), down.culprit.as_deref().unwrap_or("")]
            .into_iter()
            .filter(|word| !word.is_empty())
            .collect();
        if !what.is_empty() {
            let _ = write!(text, ": {}", what.join(" "));
        }
    } else if let Some(process) = server.process.as_ref().filter(|_| last.is_up) {
        let _ = write!(text, "; PID {}", process.pid);
        if let Some(user) = &process.user {
            let _ = write!(text, " of {user}");
        }
        if let Some(started) = process.started {
            let _ = write!(text, ", up {}", since(started, now));
        }
    }
    text
}

/// Further lines on a server.
fn details(server: &Server, how: How, now: Time) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(expires) = server.certificate_expires {
        lines.push(match now.before(expires) {
            Some(left) => format!(
                "certificate: {} left",
                number(left.as_secs() / 86_400, "day")
            ),
            None => format!("certificate: expired {}", clock(expires, now)),
        });
    }
    if let Some(since_when) = server.ledger.flapping {
        lines.push(flapping(since_when, now));
    }
    if !how.is_well() {
        if let Some(hold) = server.hold() {
            lines.push(held(server, hold, now));
        } else if server.is_resumed() {
            lines.push("resumed: the next run restarts it".to_owned());
        }
        if let Some((down, _)) = server.down() {
            if !down.text.is_empty() {
                lines.push(format!("cause: {}", down.text));
            }
            let advice = Kind::from_slug(&down.cause).map(|kind| kind.entry().advice);
            lines.extend(
                advice
                    .filter(|advice| !advice.is_empty())
                    .map(str::to_owned),
            );
        }
    }
    lines.extend(server.damage.iter().cloned());
    lines
}

/// Since when restarts help, but not for long.
pub(super) fn flapping(since_when: Time, now: Time) -> String {
    let since_when = clock(since_when, now);
    format!("flapping since {since_when}: restarts help, but not for long")
}

/// Why the next restart waits, until when, and what ends that.
fn held(server: &Server, hold: &Hold, now: Time) -> String {
    let attempts = || {
        server
            .ledger
            .restarts
            .iter()
            .filter(|attempt| !attempt.settled)
    };
    let why = match hold.why.as_str() {
        "failed" => {
            let failed = attempts().filter(|attempt| attempt.outcome == Restarted::Failed);
            format!("{} failed", number(failed.count() as u64, "restart"))
        }
        "limit" => {
            let hour = Time(now.0.saturating_sub(3600));
            let recent = attempts().filter(|attempt| attempt.at >= hour).count();
            format!("{} in an hour", number(recent as u64, "restart"))
        }
        "policy" => "restart-policy is never".to_owned(),
        why => {
            let cause = server.ledger.down.as_ref().map(|down| down.cause.as_str());
            if why.split(' ').next() == cause {
                "a restart does not cure this".to_owned()
            } else {
                format!("a restart does not cure {why}")
            }
        }
    };
    let Some(until) = hold.until else {
        return why;
    };
    let next = if until > now {
        end(until, now)
    } else {
        "with the next run".to_owned()
    };
    let name = quoted(&server.name);
    format!("{why}; next {next}, or: monitor_myvnc resume {name}")
}
