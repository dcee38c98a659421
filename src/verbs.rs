//! The verbs beside the check: how the servers are, what happened to them, and pauses. They read and
//! write files of the state directory, and ask no server.

mod caller;
pub(crate) mod cli;
mod groups;
mod history;
mod incidents;
mod inhibit;
mod notify;
mod pause;
mod report;
mod server;
mod spans;
mod status;
mod targets;
mod words;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches};

use self::cli::{Cli, Verb};
use self::server::{MONTH, Server, ShownProcess};
use self::targets::Targets;
use self::words::Style;
use crate::journal::warn_stderr;
use crate::proc::machine::host_name;
use crate::proc::process::Proc;
use crate::state::State;
use crate::state::time::Time;
use crate::sys::account::name_of;
use crate::text::{errno_text, one_line};
use crate::usage::{self, Place, UsageError};

/// What ended a verb early.
enum Refusal {
    /// A mistake of the command line or the configuration file.
    Usage(UsageError),
    /// It could not be done.
    Failure,
}

impl From<UsageError> for Refusal {
    fn from(error: UsageError) -> Self {
        Self::Usage(error)
    }
}

/// Does what the verb says. Returns the exit status.
pub(crate) fn run(arguments: &[OsString]) -> ExitCode {
    let parsed = Cli::command()
        .try_get_matches_from(arguments)
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let verb = match parsed {
        Ok(cli) => cli.verb,
        Err(error) if error.kind() == ErrorKind::DisplayHelp => {
            return match print(&error.render().to_string()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            };
        }
        Err(error) => {
            // Only the words before `--` are options.
            let options = arguments.iter().take_while(|argument| *argument != "--");
            let is_plugin = arguments.get(1).is_some_and(|verb| verb == "status")
                && options.into_iter().any(|option| option == "--nagios");
            return refuse(&explained(&error), arguments, is_plugin);
        }
    };
    let is_plugin = matches!(&verb, Verb::Status(flags) if flags.nagios);
    let done = match verb {
        Verb::Status(flags) => show_status(&flags),
        Verb::History(flags) => history::show(&flags),
        Verb::Report(flags) => report::show(&flags),
        Verb::Pause(flags) => pause::pause(&flags),
        Verb::Resume(flags) => pause::resume(&flags),
        Verb::Inhibit(flags) => inhibit::inhibit(&flags),
        Verb::Notify(flags) => notify::notify(&flags),
    };
    match done {
        Ok(status) => ExitCode::from(status),
        Err(Refusal::Usage(error)) => refuse(&error, arguments, is_plugin),
        Err(Refusal::Failure) => ExitCode::FAILURE,
    }
}

/// Says what is wrong. Returns the exit status.
fn refuse(error: &UsageError, arguments: &[OsString], is_plugin: bool) -> ExitCode {
    if is_plugin {
        let (line, status) = status::unknown(&error.to_string());
        return match print(&line) {
            Ok(()) => ExitCode::from(status),
            Err(_) => ExitCode::FAILURE,
        };
    }
    let names = Cli::command();
    let mut names = names.get_subcommands().map(clap::Command::get_name);
    let verb = arguments.get(1).and_then(|verb| verb.to_str());
    let verb = verb.filter(|verb| names.any(|name| name == *verb));
    let see = match verb {
        Some(verb) => format!("{} {verb} --help", env!("CARGO_PKG_NAME")),
        None => "--help".to_owned(),
    };
    warn_stderr(&format!("{error} (see {see})"));
    ExitCode::from(usage::EXIT_STATUS)
}

/// What clap says, without advice that is wrong here.
fn explained(error: &clap::Error) -> UsageError {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let command = Cli::command();
            let names = command.get_subcommands().map(clap::Command::get_name);
            let names: Vec<&str> = names.collect();
            let unknown = text(ContextKind::InvalidSubcommand).unwrap_or_default();
            let unknown = words::quoted(unknown);
            let reason = format!(
                "{unknown}: no such command; give one of {}, or the options of a check",
                names.join(", ")
            );
            UsageError::new(reason, Place::Flags)
        }
        ErrorKind::UnknownArgument => {
            let unknown = text(ContextKind::InvalidArg).unwrap_or_default();
            let reason = format!("unexpected argument {unknown}");
            UsageError::new(reason, Place::Flags)
        }
        _ => UsageError::from(error),
    }
}

/// Writes to stdout. What cannot be written is reported.
fn print(text: &str) -> Result<(), Refusal> {
    let mut out = std::io::stdout();
    written(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// Reports what could not be written; a reader that has gone away needs no more.
fn written(done: io::Result<()>) -> Result<(), Refusal> {
    match done {
        Err(reason) if reason.kind() != io::ErrorKind::BrokenPipe => {
            warn_stderr(&format!("cannot write the output: {}", errno_text(&reason)));
            Err(Refusal::Failure)
        }
        _ => Ok(()),
    }
}

/// The servers that a verb is about. Warnings go to stderr.
///
/// # Errors
/// As for `Targets::of`.
fn targets(which: &cli::Which) -> Result<Targets, UsageError> {
    let targets = Targets::of(which)?;
    for warning in &targets.warnings {
        warn_stderr(&format!("warning: {warning}"));
    }
    Ok(targets)
}

/// What is said where there is nothing to read, in one line: no run has written anything yet, or it cannot be read.
fn nothing(targets: &Targets, damage: Option<&str>) -> String {
    let directories = targets.directories();
    let directories: Vec<_> = directories
        .iter()
        .map(|path| path.to_string_lossy())
        .collect();
    let directories = directories.join(", ");
    let sudo = if nix::unistd::geteuid().is_root() {
        ""
    } else {
        "; use sudo for the servers that root watches"
    };
    let reason = match damage.or(targets.warnings.first().map(String::as_str)) {
        Some(damage) => format!("the state cannot be read: {damage}{sudo}"),
        None => format!("no server was checked yet: there is no state in {directories}{sudo}"),
    };
    one_line(&reason)
}

fn show_status(flags: &cli::Status) -> Result<u8, Refusal> {
    let targets = targets(&flags.which)?;
    if flags.names {
        let names = targets.all.iter().map(|one| format!("{}\n", one.word()));
        print(&names.collect::<String>())?;
        return Ok(0);
    }
    let now = Time::now();
    let processes = Processes::new(now);
    let read = |target| {
        Server::read(
            target,
            now,
            MONTH,
            flags.json,
            |state| processes.of(state),
            &mut |_| (),
        )
    };
    let mut servers: Vec<Server> = targets.all.iter().map(read).collect();
    if !flags.json && !servers.iter().any(Server::is_known) {
        let damage = servers.iter().flat_map(|server| &server.damage).next();
        let nothing = nothing(&targets, damage.map(String::as_str));
        if flags.nagios {
            let (line, status) = status::unknown(&nothing);
            print(&line)?;
            return Ok(status);
        }
        print(&format!("{nothing}\n"))?;
        return Ok(1);
    }
    let style = Style::of_stdout();
    let (text, status) = status::report(flags, &mut servers, &host_name(), now, style);
    print(&text)?;
    let is_empty = servers.is_empty();
    Ok(if is_empty { 1 } else { status })
}

/// Looks up the processes of records: users and times.
struct Processes {
    now: Time,
    /// Time since boot, in seconds.
    uptime: Option<u64>,
}

impl Processes {
    fn new(now: Time) -> Self {
        let text = std::fs::read_to_string(Proc::here().0.join("uptime")).unwrap_or_default();
        let whole = text.split(['.', ' ']).next();
        Self {
            now,
            uptime: whole.and_then(|whole| whole.parse().ok()),
        }
    }

    /// The process of the known server; none where it is of another boot.
    fn of(&self, state: &State) -> Option<ShownProcess> {
        let known = state.known.as_ref().filter(|_| state.is_of_this_boot())?;
        let start = known.start.map(|ticks| ticks / procfs::ticks_per_second());
        let age = start.and_then(|start| self.uptime?.checked_sub(start));
        Some(ShownProcess {
            pid: known.pid?,
            user: known.uid.map(name_of),
            started: age.map(|age| Time(self.now.0.saturating_sub(age))),
        })
    }
}
