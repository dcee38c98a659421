//! `inhibit`: a pause exactly as long as a command runs.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};

use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

use super::caller::caller;
use super::cli;
use super::pause::{only_for, refused};
use super::words::short;
use super::{Refusal, nothing, targets};
use crate::journal::warn_stderr;
use crate::redact;
use crate::state::pause::{Inhibit, Inhibition};
use crate::sys::progress::Progress;
use crate::sys::signals;
use crate::text::errno_text;

/// Longest command that is kept, in characters.
const LONGEST: usize = 200;
/// Exit statuses of a command that cannot be run, as shells have them (bash(1), EXIT STATUS).
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;
/// What a signal's number is added to for the exit status of a command that it ended.
const SIGNALLED: i32 = 128;

/// Runs the command; its exit status.
pub(super) fn inhibit(flags: &cli::Inhibit) -> Result<u8, Refusal> {
    let found = targets(&flags.which)?;
    if found.all.is_empty() {
        warn_stderr(&format!("cannot inhibit: {}", nothing(&found, None)));
        return Err(Refusal::Failure);
    }
    let words: Vec<_> = flags
        .command
        .iter()
        .map(|word| word.to_string_lossy())
        .collect();
    let command = redact::redacted(&words.join(" "));
    let by = Inhibit::now(caller(), short(&command, LONGEST).into_owned());
    let mut inhibitions = Vec::new();
    for target in &found.all {
        match Inhibition::begin(&target.file(".pause"), by.clone()) {
            Ok(inhibition) => {
                inhibitions.push(inhibition);
                if let Some(whose) = only_for(target) {
                    warn_stderr(&format!("{}: {whose}", target.name));
                }
            }
            Err(reason) => {
                warn_stderr(&refused(target, "inhibit", &reason));
                end(inhibitions);
                return Err(Refusal::Failure);
            }
        }
    }
    let status = run(flags, &by.command);
    end(inhibitions);
    Ok(status)
}

/// The command is over: its servers are watched as before, whatever it has left behind.
fn end(inhibitions: Vec<Inhibition>) {
    for inhibition in inhibitions {
        if let Err(reason) = inhibition.end() {
            warn_stderr(&format!("cannot tidy up: {}", errno_text(&reason)));
        }
    }
}

fn run(flags: &cli::Inhibit, shown: &str) -> u8 {
    let Some((program, arguments)) = flags.command.split_first() else {
        return NOT_FOUND;
    };
    signals::keep_children();
    let mut command = Command::new(program);
    command.args(arguments);
    let signals = signals::beside_a_child(&mut command);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(reason) => {
            warn_stderr(&format!("{shown}: {}", errno_text(&reason)));
            return if reason.kind() == io::ErrorKind::NotFound {
                NOT_FOUND
            } else {
                NOT_EXECUTABLE
            };
        }
    };
    let pid = i32::try_from(child.id()).unwrap_or_default();
    let progress = (!flags.quiet).then(|| Progress::beside_a_child(shown, pid));
    let ended = wait(&mut child, Pid::from_raw(pid), &signals);
    drop(progress);
    match ended {
        Ok(status) => {
            let signal = || status.signal().map(|signal| SIGNALLED + signal);
            let code = status.code().or_else(signal).unwrap_or(1);
            u8::try_from(code).unwrap_or(1)
        }
        Err(reason) => {
            warn_stderr(&format!("{shown}: {}", errno_text(&reason)));
            1
        }
    }
}

/// Waits for the command, and passes on the signals that come meanwhile.
fn wait(child: &mut Child, pid: Pid, signals: &SigSet) -> io::Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        match signals.wait()? {
            Signal::SIGCHLD => (),
            // One that runs as root, as sudo(8) does, may refuse it: it is awaited all the same.
            signal => drop(kill(pid, signal)),
        }
    }
}
