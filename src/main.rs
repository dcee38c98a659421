//! A watchdog for a MyVNC server: asks it over HTTP whether it answers, and when it does
//! not, stops its processes, starts it again, sees it answer, and writes down what was wrong.

mod announce;
mod cli;
mod config;
mod defaults;
mod diagnosis;
#[cfg(test)]
mod fuzz;
mod health;
mod journal;
mod lock;
mod metrics;
mod notice;
mod policy;
mod proc;
mod recovery;
mod redact;
#[cfg(test)]
#[allow(unreachable_pub)]
#[path = "../tests/it/rig/refused.rs"]
mod refused;
mod run;
mod server;
mod servers;
mod settings;
#[cfg(test)]
#[allow(unreachable_pub)]
#[path = "../tests/it/rig/skip.rs"]
mod skip;
mod state;
mod sys;
mod text;
mod tls;
mod usage;
mod verbs;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use crate::journal::warn_stderr;
use crate::servers::Request;
use crate::settings::Settings;
use crate::sys::{descriptors, signals};
use crate::usage::UsageError;

/// Exit status of a run that a signal ended, plus the signal's number: the shell's for a process that a signal killed.
const SIGNAL: u8 = 128;
/// Descriptors of an event loop: epoll and its copy, eventfd, both ends of the signals' pipe and a copy.
const EVENT_LOOP: usize = 6;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let is_verb = |word: &OsString| !word.as_encoded_bytes().starts_with(b"-");
    if arguments.get(1).is_some_and(is_verb) {
        return verbs::run(&arguments);
    }
    let (servers, wrong) = match servers::read_request(&arguments) {
        Ok(Request::Watch { servers, wrong }) => (servers, wrong),
        Ok(Request::PrintText(text)) => {
            // A terminal that is gone needs no answer.
            let _ = std::io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Ok(Request::PrintSettings {
            text,
            doubts,
            wrong,
        }) => {
            let _ = std::io::stdout().write_all(text.as_bytes());
            for doubt in doubts {
                warn_stderr(&format!("warning: {doubt}"));
            }
            return refuse(&wrong);
        }
        Err(wrong) => return refuse(&wrong),
    };
    let refused = refuse(&wrong);
    match watch_all(&servers) {
        _ if !wrong.is_empty() => refused,
        true => ExitCode::SUCCESS,
        false => signals::received().map_or(ExitCode::FAILURE, |signal| {
            ExitCode::from(SIGNAL + signal as u8)
        }),
    }
}

/// Says what is wrong. Returns the exit status.
fn refuse(wrong: &[UsageError]) -> ExitCode {
    for error in wrong {
        warn_stderr(&format!("{error} ({})", error.reference()));
    }
    if wrong.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(usage::EXIT_STATUS)
    }
}

/// Runs once over each server, all at the same time. Returns whether each of them was a success. Each has a
/// thread of its own: whatever holds one of them holds no other.
fn watch_all(servers: &[Settings]) -> bool {
    let Some((first, others)) = servers.split_first() else {
        return true;
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = others
            .iter()
            .map(|server| {
                let thread = std::thread::Builder::new().spawn_scoped(scope, || watch(server));
                (thread, server)
            })
            .collect();
        let mut is_success = watch(first);
        for (thread, server) in threads {
            is_success &= match thread {
                Ok(thread) => thread.join().unwrap_or(false),
                // No thread can be created: after the others, then.
                Err(_) => watch(server),
            };
        }
        is_success
    })
}

fn watch(server: &Settings) -> bool {
    // If the pipe of the signals cannot be created, tokio panics.
    if !descriptors::can_open(EVENT_LOOP) {
        warn_stderr(
            "too few file descriptors: allow 16 or more (ulimit -n, LimitNOFILE=); nothing was touched",
        );
        return false;
    }
    // Deadlines are looked at between any two steps: a peer that floods us is one long series of steps.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(1)
        .build();
    match runtime {
        Ok(runtime) => {
            let is_success = runtime.block_on(run::run(server));
            // To take it down, piece by piece, would gain nothing before the process ends.
            std::mem::forget(runtime);
            is_success
        }
        Err(reason) => {
            warn_stderr(&format!(
                "cannot set up event handling: {}; nothing was touched",
                text::errno_text(&reason)
            ));
            false
        }
    }
}
