//! The status as a plugin of Nagios and Icinga prints it (Monitoring Plugins Development Guidelines).

use super::super::server::{DAY, How, Server};
use super::{flapping, summary};
use crate::state::time::Time;
use crate::text::one_line;

/// Days before the end of a certificate from which it is a warning.
pub(in super::super) const CERTIFICATE_DAYS: u64 = 21;

/// How grave it is. The greatest one decides.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Grade {
    Ok,
    Warning,
    Unknown,
    Critical,
}

impl Grade {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
            Self::Unknown => "UNKNOWN",
        }
    }

    fn status(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Critical => 2,
            Self::Unknown => 3,
        }
    }
}

/// One line, and the exit status.
pub(super) fn line(servers: &[Server], now: Time) -> (String, u8) {
    let mut grades: Vec<(Grade, &Server)> = servers
        .iter()
        .map(|server| (grade(server, now), server))
        .collect();
    grades.sort_by_key(|(grade, _)| std::cmp::Reverse(*grade));
    let worst = grades.first().map_or(Grade::Unknown, |(grade, _)| *grade);
    let texts: Vec<String> = grades
        .iter()
        .map(|(_, server)| {
            let how = server.how(now).words();
            let flapping = server.ledger.flapping.map(|since| flapping(since, now));
            let flapping = flapping.map(|text| format!("; {text}")).unwrap_or_default();
            format!("{} {how}, {}{flapping}", server.name, summary(server, now))
        })
        .collect();
    let text = cleaned(&texts.join(" / "));
    let data: Vec<String> = servers.iter().map(|server| data(server, now)).collect();
    let line = format!("MYVNC {} - {text} | {}\n", worst.word(), data.join(" "));
    (line, worst.status())
}

/// What is said where there is no server to speak of, and the exit status.
pub(in super::super) fn unknown(reason: &str) -> (String, u8) {
    let line = format!("MYVNC {} - {}\n", Grade::Unknown.word(), cleaned(reason));
    (line, Grade::Unknown.status())
}

/// The bar begins the data.
fn cleaned(text: &str) -> String {
    one_line(text).replace('|', "/")
}

fn grade(server: &Server, now: Time) -> Grade {
    let expires_soon = server.certificate_expires.is_some_and(|expires| {
        let left = now.before(expires).unwrap_or_default();
        left.as_secs() <= CERTIFICATE_DAYS * DAY
    });
    match server.how(now) {
        How::Stale => Grade::Unknown,
        How::Down | How::Held | How::Failed => Grade::Critical,
        How::Paused => Grade::Ok,
        How::Up if expires_soon || server.ledger.flapping.is_some() => Grade::Warning,
        How::Up => Grade::Ok,
    }
}

/// `'main up'=1;;;0;1 …`: no quote or equals sign may be in a label.
fn data(server: &Server, now: Time) -> String {
    let name = cleaned(&server.name).replace(['\'', '='], "_");
    let is_up = server.checked.is_some_and(|checked| checked.last.is_up);
    let mut data = vec![format!("'{name} up'={};;;0;1", u8::from(is_up))];
    if let Some(checked) = server.checked {
        data.push(format!(
            "'{name} time'={:.3}s;;;0",
            checked.last.took.as_secs_f64()
        ));
    }
    if let Some(day) = server.past.timeline.availability(DAY, now) {
        let percent = day.percent();
        data.push(format!("'{name} availability'={percent}%;;;0;100"));
    }
    data.push(format!("'{name} restarts'={};;;0", server.past.day));
    data.join(" ")
}
