//! The status as one JSON object. Every key is always there, and keys are only ever added.

use serde_json::{Value, json};

use super::super::server::{MONTH, Server};
use super::table;
use crate::state::history::Entry;
use crate::state::pause::Current;
use crate::state::time::Time;
use crate::text::escaped;

/// The version of the format.
const FORMAT: u32 = 1;

/// The object and a newline.
pub(super) fn object(servers: &[Server], host: &str, now: Time) -> String {
    let shown = table::last(servers);
    let lines = servers.iter().flat_map(|server| &server.past.lines);
    let mut lines: Vec<Entry> = lines
        .filter_map(|line| serde_json::from_slice(line).ok())
        .filter(|line: &Entry| {
            let is_of =
                |line: &Entry, id: &str, server: &str| line.id == id && line.server == server;
            shown.iter().any(|one| is_of(line, &one.id, &one.server))
        })
        .collect();
    lines.sort_by_key(|line| std::cmp::Reverse(line.at));
    let object = json!({
        "format": FORMAT,
        "host": host,
        "now": now,
        "servers": servers.iter().map(|server| of(server, now)).collect::<Vec<Value>>(),
        "incidents": lines,
    });
    escaped(format!("{object}\n"))
}

fn of(server: &Server, now: Time) -> Value {
    let timeline = &server.past.timeline;
    let [day, week, month] = table::SPANS.map(|(_, seconds)| timeline.availability(seconds, now));
    let percent = |span: Option<super::super::spans::Availability>| {
        span.map(|span| f64::from(span.up) / 100.0)
    };
    json!({
        "name": server.name,
        "url": server.url,
        "state": server.how(now).name(),
        "check": server.checked.map(|checked| json!({
            "at": checked.at,
            "status": (checked.last.status > 0).then_some(checked.last.status),
            "seconds": checked.last.took.as_secs_f64(),
        })),
        "process": server.process.as_ref().map(|process| json!({
            "pid": process.pid,
            "user": process.user,
            "started": process.started,
        })),
        "certificate_expires": server.certificate_expires,
        "down": server.down().map(|(down, since)| json!({
            "since": since,
            "cause": some(&down.cause),
            "culprit": down.culprit,
            "text": some(&down.text),
        })),
        "hold": server.hold().map(|hold| json!({
            "until": hold.until,
            "why": some(&hold.why),
        })),
        "pause": pause(&server.asked.current),
        "availability": {
            "24h": percent(day),
            "7d": percent(week),
            "30d": percent(month),
            "since": timeline.first.map(|first| first.max(Time(now.0.saturating_sub(MONTH)))),
            "unwatched_s": month.map(|month| month.unwatched),
        },
        "restarts": {
            "24h": server.past.day,
            "30d": server.past.month,
        },
    })
}

fn some(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

fn pause(current: &Current) -> Option<Value> {
    match current {
        Current::Paused(pause) => Some(json!({
            "until": pause.until,
            "by": some(&pause.by),
            "reason": pause.reason,
        })),
        Current::Inhibited(inhibit) => Some(json!({
            "until": null,
            "by": some(&inhibit.by),
            "reason": format!("{} runs (under PID {})", inhibit.command, inhibit.pid),
        })),
        Current::None | Current::Unreadable(_) => None,
    }
}
