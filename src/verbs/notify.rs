//! `notify --test`: hands a sample of an event to the notify command of each server.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use tokio::task::{LocalSet, spawn_local};

use super::{Refusal, cli, print};
use crate::announce::command::{self, Failure, hand_over};
use crate::announce::summary::{What, summary};
use crate::announce::{Announcement, ShownCause};
use crate::defaults;
use crate::journal::warn_stderr;
use crate::notice::Notice;
use crate::proc::machine::host_name;
use crate::redact;
use crate::servers::{self, Request};
use crate::settings::Settings;
use crate::state::time::Time;
use crate::sys::signals::Signals;
use crate::text::{errno_text, one_line};
use crate::usage::{Place, UsageError};

/// How long the server of the sample is away, in seconds.
const AWAY: u64 = 74;
const CLIENT: &str = "192.0.2.1:51234";

/// Hands the sample over, and prints what the command says. Returns the exit status.
pub(super) fn notify(flags: &cli::Notify) -> Result<u8, Refusal> {
    let (found, is_complete) = configured(flags)?;
    let without = |server: &&Settings| server.notify_cmd.is_none();
    if let Some(server) = found.iter().find(without) {
        if found.iter().all(|server| server.notify_cmd.is_none()) || !flags.which.servers.is_empty()
        {
            let reason = format!("{}: notify-cmd is not set", server.shown_name());
            return Err(UsageError::new(reason, Place::Flags).into());
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|reason| {
            warn_stderr(&format!(
                "cannot set up event handling: {}",
                errno_text(&reason)
            ));
            Refusal::Failure
        })?;
    let commands = LocalSet::new();
    runtime.block_on(commands.run_until(async {
        // All at once: each can take its whole time.
        let tried: Vec<_> = found
            .iter()
            .filter_map(|server| {
                let command = server.notify_cmd.clone()?;
                let sample = sample(flags.test, server);
                let handing = async move {
                    let mut signals = Signals::catch();
                    hand_over(&command, &sample, command::LIMIT, signals.next()).await
                };
                Some((one_line(&server.shown_name()), spawn_local(handing)))
            })
            .collect();
        let mut outcome = Ok(u8::from(!is_complete));
        for (name, handing) in tried {
            // Also where nothing can be printed any more: the time limit of a command ends with this process.
            let handed = handing.await;
            outcome = match (outcome, handed) {
                (Ok(status), Ok((said, taken))) => report(&name, flags.test, &said, taken)
                    .map(|is_taken| status.max(u8::from(!is_taken))),
                (Ok(_), Err(_)) => Err(Refusal::Failure),
                (refused, _) => refused,
            };
        }
        outcome
    }))
}

/// Prints what the command of a server said. Returns whether it has taken the event.
fn report(
    name: &str,
    event: Notice,
    said: &[String],
    taken: Result<(), Failure>,
) -> Result<bool, Refusal> {
    let lines = said.iter().map(|line| {
        let line = one_line(&redact::redacted(line));
        format!("{name}: {line}\n")
    });
    print(&lines.collect::<String>())?;
    match taken {
        Ok(()) => {
            let event = event.slug();
            print(&format!(
                "{name}: the notify command has taken the event {event}\n"
            ))?;
            Ok(true)
        }
        Err(failure) => {
            warn_stderr(&format!("{name}: the notify command has failed: {failure}"));
            Ok(false)
        }
    }
}

/// The servers of the configuration file that are meant, and whether all could be read.
fn configured(flags: &cli::Notify) -> Result<(Vec<Settings>, bool), UsageError> {
    let place = &flags.which.place;
    let packaged = Path::new(defaults::CONFIG_FILE);
    let path = match &place.config {
        Some(path) => path.as_path(),
        None if packaged.exists() => packaged,
        None => {
            let reason = format!(
                "is missing: notify-cmd is a setting of a configuration file, and there is no {}",
                packaged.display()
            );
            return Err(UsageError::of("config", reason));
        }
    };
    let mut arguments: Vec<OsString> = vec![env!("CARGO_PKG_NAME").into(), "--config".into()];
    arguments.push(path.into());
    for name in &flags.which.servers {
        arguments.push("--server".into());
        arguments.push(name.into());
    }
    let nothing = |text: &str| UsageError::new(text.trim_end(), Place::Flags);
    match servers::read_request(&arguments) {
        Ok(Request::Watch { servers, wrong }) => {
            for error in &wrong {
                warn_stderr(&error.to_string());
            }
            Ok((servers, wrong.is_empty()))
        }
        Ok(Request::PrintText(text) | Request::PrintSettings { text, .. }) => Err(nothing(&text)),
        Err(mut wrong) if !wrong.is_empty() => Err(wrong.swap_remove(0)),
        Err(_) => Err(nothing("there is no server")),
    }
}

/// An event as a run would announce it, of a client that has blocked the server.
fn sample(notice: Notice, server: &Settings) -> Announcement {
    let away = std::time::Duration::from_secs(AWAY);
    let blamed = || [(format!("idle_client {CLIENT}"), 3)].into();
    let what = match notice {
        Notice::Restarted => What::Restarted { away },
        Notice::Unwedged => What::Unwedged { away },
        Notice::Failed => What::Failed {
            was_restarted: true,
        },
        Notice::Held => What::Held {
            until: None,
            why: Some("the last restart did not help".to_owned()),
        },
        Notice::Reminder => What::Reminder { away, until: None },
        Notice::Recovered => What::Recovered { away, by: None },
        Notice::Flapping => What::Flapping {
            blamed: blamed(),
            clients: BTreeMap::new(),
        },
        Notice::Stable => What::Stable { blamed: blamed() },
        Notice::Expiring => What::Expiring {
            text: "the certificate expires soon".to_owned(),
        },
    };
    let (name, host) = (server.shown_name(), host_name());
    let cause = "this is a test of the notify command, nothing is wrong".to_owned();
    let summary = format!("TEST: {}", summary(&name, &what, &cause));
    let now = Time::now();
    Announcement {
        event: notice.slug().to_owned(),
        summary,
        url: server.shown_url.clone(),
        cause: Some("idle_client".to_owned()),
        culprit: Some(CLIENT.to_owned()),
        since: Some(Time(now.0.saturating_sub(AWAY))),
        away_seconds: Some(AWAY),
        log: server.logfile.display().to_string(),
        dedup_key: format!("{host}/{name}/test"),
        causes: vec![ShownCause {
            cause: "idle_client".to_owned(),
            culprit: Some(CLIENT.to_owned()),
            text: cause,
        }],
        evidence: vec!["The evidence of the diagnosis follows here".to_owned()],
        server: name,
        host,
        ..Announcement::default()
    }
    .cleaned()
}
