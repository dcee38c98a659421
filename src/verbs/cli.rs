//! The verbs' command line: clap and std only, so that the build can render it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::notice::Notice;

/// Longest span that a verb takes, in seconds: ten years.
const LONGEST: u64 = 10 * 365 * 86_400;

/// Show the state of the servers, pause the monitor, test notifications.
#[derive(Debug, Parser)]
#[command(
    name = "monitor_myvnc",
    version,
    about = "Show the state of the servers, pause the monitor, test notifications",
    max_term_width = 80,
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Print how each server is, how available it was, and its last incidents
    Status(Status),
    /// Print what happened to the servers
    History(History),
    /// Print a summary of a week, for a mail or as a web page
    Report(Report),
    /// Stop and restart nothing for a while. Checks go on
    Pause(Pause),
    /// End a pause and a hold-off: the next run restarts a server that is down
    Resume(Resume),
    /// Run a command, and stop and restart nothing as long as it runs
    Inhibit(Inhibit),
    /// Run the notify command with a sample of an event
    #[command(override_usage = "monitor_myvnc notify [SERVER]... --test [EVENT] [OPTIONS]")]
    Notify(Notify),
}

/// Which servers.
#[derive(Args, Debug)]
pub(crate) struct Which {
    /// Names of servers [default: all]
    #[arg(value_name = "SERVER")]
    pub(crate) servers: Vec<String>,

    #[command(flatten)]
    pub(crate) place: Place,
}

/// Where the servers are written down.
#[derive(Args, Clone, Debug)]
pub(crate) struct Place {
    /// Only the servers of this configuration file [default: those of
    /// /etc/monitor_myvnc.toml, and all of the state directory]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// The state directory [default: that of the configuration file, else
    /// /var/lib/monitor_myvnc for root, ~/.local/state/monitor_myvnc for other users]
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
}

/// `status`.
#[derive(Args, Debug)]
pub(crate) struct Status {
    #[command(flatten)]
    pub(crate) which: Which,

    /// Print one JSON object
    #[arg(long, conflicts_with_all = ["short", "nagios"])]
    pub(crate) json: bool,

    /// Print one line for each server
    #[arg(long, conflicts_with = "nagios")]
    pub(crate) short: bool,

    /// Print one line with performance data, and exit as a Nagios plugin does
    #[arg(long)]
    pub(crate) nagios: bool,

    /// Print the names of the servers, for completions
    #[arg(long, hide = true, conflicts_with_all = ["json", "short", "nagios"])]
    pub(crate) names: bool,
}

/// `history`.
#[derive(Args, Debug)]
pub(crate) struct History {
    #[command(flatten)]
    pub(crate) which: Which,

    /// How far back: a number and s, m, h or d
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = span)]
    pub(crate) since: Duration,

    /// Count by cause, and how often a restart has helped, or by culprit
    #[arg(long, value_name = "WHAT")]
    pub(crate) by: Option<By>,

    /// Print one JSON array
    #[arg(long, conflicts_with = "by")]
    pub(crate) json: bool,
}

/// `report`.
#[derive(Args, Debug)]
pub(crate) struct Report {
    #[command(flatten)]
    pub(crate) which: Which,

    /// How far back: a number and s, m, h or d [default: 7d, or 30d with --html]
    #[arg(long, value_name = "TIME", value_parser = span)]
    pub(crate) since: Option<Duration>,

    /// Print a web page, in one file without scripts
    #[arg(long)]
    pub(crate) html: bool,
}

impl Report {
    /// How far back it looks.
    pub(crate) fn span(&self) -> Duration {
        let days = if self.html { 30 } else { 7 };
        self.since.unwrap_or(Duration::from_secs(days * 86_400))
    }
}

/// By what incidents are counted.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum By {
    /// What was wrong
    Cause,
    /// Who or what is to blame
    Culprit,
}

/// `pause`.
#[derive(Args, Debug)]
pub(crate) struct Pause {
    #[command(flatten)]
    pub(crate) which: Which,

    /// How long: a number and s, m, h or d; at most 7d [default: 1h]
    #[arg(long = "for", value_name = "TIME", value_parser = pause_span, conflicts_with = "until")]
    pub(crate) span: Option<Duration>,

    /// Until when: HH:MM, or a date and a time after RFC 3339
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,

    /// Why, for who looks at the status
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) reason: Option<String>,
}

/// `resume`.
#[derive(Args, Debug)]
pub(crate) struct Resume {
    #[command(flatten)]
    pub(crate) which: Which,
}

/// `inhibit`.
#[derive(Args, Debug)]
pub(crate) struct Inhibit {
    #[command(flatten)]
    pub(crate) which: Which,

    /// Show no progress on a terminal
    #[arg(long)]
    pub(crate) quiet: bool,

    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND", num_args = 1..)]
    pub(crate) command: Vec<OsString>,
}

/// `notify`.
#[derive(Args, Debug)]
pub(crate) struct Notify {
    #[command(flatten)]
    pub(crate) which: Which,

    /// The event: failed, unless another one is given
    #[arg(long, value_name = "EVENT", required = true, num_args = 0..=1,
          default_missing_value = "failed")]
    pub(crate) test: Notice,
}

/// Reads `90s`, `30m`, `12h`, `7d`.
fn span(text: &str) -> Result<Duration, String> {
    let wrong = || "give a whole number and s, m, h or d, such as 30m or 7d".to_owned();
    let unit = match text.bytes().next_back() {
        Some(b's') => 1,
        Some(b'm') => 60,
        Some(b'h') => 3600,
        Some(b'd') => 86_400,
        _ => return Err(wrong()),
    };
    let digits = &text[..text.len() - 1];
    let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    let number = is_number.then(|| digits.parse::<u64>().ok()).flatten();
    let seconds = number.and_then(|number| number.checked_mul(unit));
    match seconds.filter(|seconds| (1..=LONGEST).contains(seconds)) {
        Some(seconds) => Ok(Duration::from_secs(seconds)),
        None => Err(wrong()),
    }
}

/// Reads a span of at most 7 days.
fn pause_span(text: &str) -> Result<Duration, String> {
    let span = span(text)?;
    if span > LONGEST_PAUSE {
        return Err("a pause lasts 7d at most; give the command again when it ends".to_owned());
    }
    Ok(span)
}

/// Longest pause.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(7 * 86_400);
/// A pause for which no time is given.
pub(crate) const DEFAULT_PAUSE: Duration = Duration::from_secs(3600);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_commands_are_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn a_verb_takes_no_flag_of_the_check() {
        for line in [
            "monitor_myvnc pause main --restart-cmd sh",
            "monitor_myvnc pause --restart-cmd=sh",
            "monitor_myvnc status --url http://h",
            "monitor_myvnc restart main",
            "monitor_myvnc inhibit main",
            "monitor_myvnc inhibit main sh -c x",
            "monitor_myvnc status --json --nagios",
            "monitor_myvnc pause --for 1h --until 12:00",
            "monitor_myvnc pause --for 8d",
            "monitor_myvnc pause --for 0m",
            "monitor_myvnc pause --for 1",
            "monitor_myvnc pause --for h",
            "monitor_myvnc pause --for +1h",
            "monitor_myvnc pause --for 1é",
            "monitor_myvnc pause --for 99999999999999999999d",
            "monitor_myvnc history --by day",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }

    #[test]
    fn spans_are_read() {
        for (text, seconds) in [("90s", 90), ("30m", 1800), ("12h", 43_200), ("7d", 604_800)] {
            let line = format!("monitor_myvnc pause --for {text}");
            let Verb::Pause(pause) = parsed(&line).unwrap().verb else {
                unreachable!()
            };
            assert_eq!(pause.span.unwrap().as_secs(), seconds);
        }
    }

    #[test]
    fn what_follows_the_dashes_is_the_command() {
        let line = "monitor_myvnc inhibit main test --quiet -- sh --quiet -- x";
        let Verb::Inhibit(inhibit) = parsed(line).unwrap().verb else {
            unreachable!()
        };
        assert_eq!(inhibit.which.servers, ["main", "test"]);
        assert_eq!(inhibit.command, ["sh", "--quiet", "--", "x"]);
    }
}
