//! `pause` and `resume`: what is asked of the next runs.

use chrono::{Local, NaiveTime, TimeZone};

use super::caller::caller;
use super::cli;
use super::targets::Target;
use super::words::{ago, end, short};
use super::{Refusal, nothing, print, targets};
use crate::journal::warn_stderr;
use crate::state::pause::{self, Current, Pause};
use crate::state::time::Time;
use crate::sys::account::name_of;
use crate::text::errno_text;
use crate::usage::UsageError;

/// Longest reason that is kept, in characters.
const LONGEST_REASON: usize = 200;

/// Sets a pause in the place of an older one. Returns the exit status.
pub(super) fn pause(flags: &cli::Pause) -> Result<u8, Refusal> {
    let now = Time::now();
    let until = match (&flags.until, flags.span) {
        (Some(until), _) => moment(until, now)?,
        (None, span) => now.after(span.unwrap_or(cli::DEFAULT_PAUSE)),
    };
    let asked = Pause {
        until,
        by: caller(),
        reason: flags
            .reason
            .as_deref()
            .map(|text| short(text, LONGEST_REASON).into_owned()),
        at: now,
    };
    each(&flags.which, "pause", |target| {
        pause::change(&target.file(".pause"), |requests| {
            requests.pause = Some(asked.clone());
        })?;
        let long = ago(now.before(until).unwrap_or_default());
        Ok(format!("paused until {} ({long})", end(until, now)))
    })
}

/// Says that the runs of root do not heed what root has asked for, because another user owns the state directory.
pub(super) fn only_for(target: &Target) -> Option<String> {
    let uid = pause::only_for(&target.file(".pause"))?;
    let user = name_of(uid);
    Some(format!(
        "only the runs of user {user} heed this, not those of root, because {user} owns the state directory"
    ))
}

/// Ends a pause, also that of a command which still runs, a hold-off and the back-off. Returns the exit status.
pub(super) fn resume(flags: &cli::Resume) -> Result<u8, Refusal> {
    let now = Time::now();
    each(&flags.which, "resume", |target| {
        let path = target.file(".pause");
        let before = pause::current(&path, now).current;
        pause::change(&path, |requests| {
            requests.pause = None;
            requests.inhibit.clear();
            requests.resume = Some(now);
        })?;
        let hold = target
            .state
            .as_ref()
            .and_then(|state| state.ledger.hold.as_ref());
        Ok(match (before, hold) {
            (Current::Inhibited(inhibit), _) => format!(
                "resumed, although this may still run: {} (under PID {} of {})",
                inhibit.command, inhibit.pid, inhibit.by
            ),
            (_, Some(_)) => "resumed; the next run restarts it if it does not answer".to_owned(),
            (Current::Paused(pause), None) => {
                let until = end(pause.until, now);
                format!("resumed; it was paused until {until} by {}", pause.by)
            }
            _ => "was neither paused nor held off".to_owned(),
        })
    })
}

/// Does this to each server, and says what was done.
pub(super) fn each(
    which: &cli::Which,
    verb: &str,
    mut change: impl FnMut(&Target) -> std::io::Result<String>,
) -> Result<u8, Refusal> {
    let found = targets(which)?;
    if found.all.is_empty() {
        warn_stderr(&format!("cannot {verb}: {}", nothing(&found, None)));
        return Err(Refusal::Failure);
    }
    let mut status = 0;
    for target in &found.all {
        match change(target) {
            Ok(done) => {
                let whose = only_for(target).map(|whose| format!("; {whose}"));
                let done = format!("{}: {done}{}", target.name, whose.unwrap_or_default());
                print(&format!("{}\n", crate::text::one_line(&done)))?;
            }
            Err(reason) => {
                warn_stderr(&refused(target, verb, &reason));
                status = 1;
            }
        }
    }
    Ok(status)
}

/// Why something could not be asked.
pub(super) fn refused(target: &Target, verb: &str, reason: &std::io::Error) -> String {
    let hint = if reason.kind() == std::io::ErrorKind::PermissionDenied {
        "; give the command as the user of the runs, or with sudo"
    } else {
        ""
    };
    let (name, path) = (&target.name, target.file(".pause"));
    let reason = errno_text(reason);
    format!("{name}: cannot {verb}: {}: {reason}{hint}", path.display())
}

/// Reads the end of a pause.
fn moment(text: &str, now: Time) -> Result<Time, UsageError> {
    let wrong = |reason: &str| UsageError::of("until", format!("{text}: {reason}"));
    let time = match NaiveTime::parse_from_str(text, "%H:%M") {
        Ok(time) if text.len() == "HH:MM".len() => next(time, now),
        _ => Time::parse(text),
    };
    let time = time.ok_or_else(|| {
        wrong("give HH:MM, or a date and a time after RFC 3339 such as 2026-12-24T18:00:00+01:00")
    })?;
    if time <= now {
        return Err(wrong("this has passed"));
    }
    if time > now.after(cli::LONGEST_PAUSE) {
        return Err(wrong("a pause lasts 7 days at most"));
    }
    Ok(time)
}

/// When a clock of the local time zone shows that time next. One that is left out in spring is an hour
/// later, and one that there is twice in autumn is the first to come.
fn next(time: NaiveTime, now: Time) -> Option<Time> {
    let today = super::words::local(now).date_naive();
    let days = [today, today.succ_opt()?];
    let moments = days.into_iter().flat_map(|day| {
        let at = |time| Local.from_local_datetime(&day.and_time(time));
        let found = match at(time) {
            chrono::LocalResult::None => at(time + chrono::Duration::hours(1)),
            found => found,
        };
        [found.earliest(), found.latest()]
    });
    let seconds = moments
        .flatten()
        .filter_map(|moment| u64::try_from(moment.timestamp()).ok());
    seconds.map(Time).find(|moment| *moment > now)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const NOW: Time = Time(1_764_052_868);

    #[test]
    fn a_clock_s_time_is_the_next_one() {
        let now = super::super::words::local(NOW);
        let later = |minutes: i64| {
            let there = now + chrono::Duration::minutes(minutes);
            moment(&there.format("%H:%M").to_string(), NOW).unwrap()
        };
        let whole = NOW.0 - NOW.0 % 60;
        assert_eq!(later(1), Time(whole + 60));
        assert_eq!(later(60), Time(whole + 3600));
        assert_eq!(later(-1), Time(whole + 86_400 - 60));
        assert_eq!(later(0), Time(whole + 86_400), "this minute has begun");
    }

    #[test]
    fn other_ends_of_a_pause_are_refused() {
        for (text, reason) in [
            ("", "give HH:MM"),
            ("noon", "give HH:MM"),
            ("24:00", "give HH:MM"),
            ("9:00", "give HH:MM"),
            ("12:00:00", "give HH:MM"),
            ("2025-11-25", "give HH:MM"),
            ("2025-11-25T06:41:08Z", "this has passed"),
            ("1969-01-01T00:00:00Z", "give HH:MM"),
            ("2025-12-02T06:41:09Z", "at most"),
        ] {
            let error = moment(text, NOW).unwrap_err().to_string();
            assert!(
                error.starts_with("--until ") && error.contains(reason),
                "{error}"
            );
        }
        let longest = moment("2025-12-02T07:41:08+01:00", NOW).unwrap();
        assert_eq!(longest, Time(NOW.0 + 7 * 86_400));
    }
}
