//! The flags of the command line: clap and std only, so that the build can render them.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgAction, Command, Parser, ValueEnum};

use crate::defaults;

/// Watches a MyVNC server and restarts it when it stops answering.
#[derive(Debug, Parser)]
#[command(
    name = "monitor_myvnc",
    version,
    about = "Watches a MyVNC server and restarts it when it stops answering",
    after_help = "Example:\n  \
        monitor_myvnc --url https://myvnc.example.com \\\n    \
        --logfile /var/log/myvnc-monitor.log \\\n    \
        --restart-cmd \"/opt/myvnc/manage.py --config_dir=/etc/myvnc restart\"\n\n\
        Exit status: 0 healthy, restarted, or another run is at work; 1 not healthy, or\n\
        an error; 2 usage error, nothing was touched.",
    max_term_width = 80,
    override_usage = "monitor_myvnc --url URL --logfile FILE --restart-cmd COMMAND [OPTIONS]\n       \
        monitor_myvnc --config FILE [--server NAME]... [OPTIONS]",
    args_override_self = true
)]
// clap would keep a group of all options, which nothing asks about.
#[group(skip)]
pub(crate) struct Cli {
    /// URL of the MyVNC server to monitor (http or https)
    #[arg(long, value_name = "URL", required_unless_present_any = ["config", "check_config"])]
    pub(crate) url: Option<String>,

    /// Log file; the run lock .STEM.lock and the restart command's output
    /// STEM.restart.log are beside it
    #[arg(long, value_name = "FILE", required_unless_present_any = ["config", "check_config"])]
    pub(crate) logfile: Option<PathBuf>,

    /// Command that starts the server, run by bash (or sh)
    #[arg(
        long,
        value_name = "COMMAND",
        allow_hyphen_values = true,
        required_unless_present_any = ["config", "check_config"]
    )]
    pub(crate) restart_cmd: Option<String>,

    /// Read settings from this TOML file, whose keys are these options' names;
    /// flags override it
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Watch only this server of the configuration file; may be repeated
    #[arg(long, value_name = "NAME", action = clap::ArgAction::Append)]
    pub(crate) server: Vec<String>,

    /// Print the resolved settings of each server, what is wrong with them, and
    /// warnings; without --config and --url, of /etc/monitor_myvnc.toml
    #[arg(long)]
    pub(crate) check_config: bool,

    /// Log what the server is doing, healthy or not, and exit; nothing is stopped or
    /// started
    #[arg(long)]
    pub(crate) collect_diagnostics: bool,

    /// Check, diagnose, and log what would be stopped and run; nothing is stopped or
    /// started
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Write to the log file only, nothing to stdout or stderr
    #[arg(long)]
    pub(crate) quiet: bool,

    /// Bound on one health check: name resolution, connect, TLS and headers
    #[arg(long, value_name = "SECONDS", default_value = defaults::TIMEOUT,
          value_parser = seconds, allow_negative_numbers = true)]
    pub(crate) timeout: Duration,

    /// Do not verify the server's TLS certificate
    #[arg(long, conflicts_with = "ca_cert")]
    pub(crate) no_verify_ssl: bool,

    /// Also trust the certificates in this PEM file: a CA, or the server's own
    /// self-signed certificate; name and expiry are still checked
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_cert: Option<PathBuf>,

    /// Log every detail, whatever --log-level says
    #[arg(long)]
    pub(crate) debug: bool,

    /// Least severe lines to log
    #[arg(long, value_name = "LEVEL", default_value = defaults::LOG_LEVEL)]
    pub(crate) log_level: LogLevel,

    /// Time from SIGTERM to SIGKILL
    #[arg(long, value_name = "SECONDS", default_value = defaults::STOP_TIMEOUT,
          value_parser = seconds, allow_negative_numbers = true)]
    pub(crate) stop_timeout: Duration,

    /// Time for the server to answer once the restart command runs
    #[arg(long, value_name = "SECONDS", default_value = defaults::START_TIMEOUT,
          value_parser = seconds, allow_negative_numbers = true)]
    pub(crate) start_timeout: Duration,

    /// Further checks before the server counts as down
    #[arg(long, value_name = "NUMBER", default_value = defaults::RETRIES,
          value_parser = retries,
          allow_negative_numbers = true)]
    pub(crate) retries: u32,

    /// Time between these checks
    #[arg(long, value_name = "SECONDS", default_value = defaults::RETRY_DELAY,
          value_parser = seconds, allow_negative_numbers = true)]
    pub(crate) retry_delay: Duration,

    /// What the server's arguments, joined by spaces, match, in place of the
    /// built-in rule (Python running main.py, run_server.py or manage.py of a MyVNC)
    #[arg(long, value_name = "REGEX", allow_hyphen_values = true)]
    pub(crate) process_pattern: Option<String>,

    /// Only processes of this user are the server; accepts this user as its owner
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,

    /// Where the server itself listens, if the URL leads to a proxy [default: from
    /// server_config.json in the --config_dir of the restart command, else from
    /// the record, else from the URL]
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = listen)]
    pub(crate) listen: Option<SocketAddr>,

    /// Run the restart command as this user (name or number; another user than the
    /// monitor's only as root) [default: for root, the server's owner if the command
    /// names a MyVNC script, else the monitor's user]
    #[arg(long, value_name = "USER")]
    pub(crate) run_as: Option<String>,

    /// Minutes of the server's own log that a diagnosis shows, at most 200 lines
    #[arg(long, value_name = "NUMBER", default_value = defaults::LOG_HISTORY_MINUTES,
          value_parser = minutes,
          allow_negative_numbers = true)]
    pub(crate) log_history_minutes: u32,

    /// The server's own log, where it holds none open; the newest that matches
    #[arg(long, value_name = "GLOB")]
    pub(crate) server_log: Option<String>,

    /// Command to run before the server is stopped, 10 seconds at most, with its
    /// output in the log; {pid} in it is the server's PID
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true)]
    pub(crate) dump_cmd: Option<String>,

    /// Directory of the record of the known server and of the restart lock
    /// [default: /var/lib/monitor_myvnc for root, ~/.local/state/monitor_myvnc for
    /// others]
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
}

/// Options that are about the configuration file itself, or about one run.
const NOT_KEYS: [&str; 5] = [
    "config",
    "server",
    "check-config",
    "collect-diagnostics",
    "dry-run",
];

/// The options that can stand in the configuration file.
pub(crate) fn keys(command: &Command) -> impl Iterator<Item = &Arg> {
    command
        .get_arguments()
        .filter(|arg| arg.get_long().is_some_and(|long| !NOT_KEYS.contains(&long)))
}

/// Whether an option is on or off, without a value.
pub(crate) fn is_switch(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::SetTrue)
}

/// Whether an option takes a number.
pub(crate) fn is_number(arg: &Arg) -> bool {
    is_seconds(arg) || is_named(arg, "NUMBER")
}

/// Whether an option takes seconds.
pub(crate) fn is_seconds(arg: &Arg) -> bool {
    is_named(arg, "SECONDS")
}

fn is_named(arg: &Arg, value: &str) -> bool {
    let names = arg.get_value_names().unwrap_or_default();
    names.iter().any(|name| name == value)
}

/// Severity of a log line, as `--log-level` names it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum LogLevel {
    /// Every check too, and what each step rests on.
    Debug,
    /// What was done.
    Info,
    /// What may need attention.
    Warning,
    /// What failed.
    Error,
    /// What needs attention now.
    Critical,
}

/// Reads whole or decimal seconds, more than 0 and at most an hour.
fn seconds(text: &str) -> Result<Duration, String> {
    let longest = Duration::from_secs(defaults::LONGEST_SECONDS.into());
    let plain = text.bytes().any(|b| b.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        && text.len() <= 32;
    let duration = plain
        .then(|| text.parse::<f64>().ok())
        .flatten()
        .and_then(|number| Duration::try_from_secs_f64(number).ok())
        .filter(|duration| !duration.is_zero() && *duration <= longest);
    duration.ok_or_else(|| {
        format!(
            "give seconds, more than 0 and at most {}, such as 10 or 2.5",
            defaults::LONGEST_SECONDS
        )
    })
}

fn retries(text: &str) -> Result<u32, String> {
    whole(text, 0, defaults::MOST_RETRIES)
}

fn minutes(text: &str) -> Result<u32, String> {
    whole(text, 1, defaults::MOST_HISTORY_MINUTES)
}

/// Reads a whole number in these limits.
fn whole(text: &str, least: u32, most: i64) -> Result<u32, String> {
    text.parse()
        .ok()
        .filter(|number| *number >= least && i64::from(*number) <= most)
        .ok_or_else(|| format!("give a whole number from {least} to {most}"))
}

/// Reads an address and a port other than 0.
fn listen(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse().ok();
    address
        .filter(|address: &SocketAddr| address.port() != 0)
        .ok_or_else(|| {
            "give ADDRESS:PORT, such as 127.0.0.1:9143, 0.0.0.0:9143 or [::1]:9143".to_owned()
        })
}

/// The options of the Python monitor, which took every abbreviation that named one of them only.
const ABBREVIATED: [&str; 7] = [
    "url",
    "logfile",
    "restart-cmd",
    "quiet",
    "timeout",
    "no-verify-ssl",
    "help",
];

/// The arguments with the Python monitor's abbreviated options (`--restart`, `--log`) written out.
pub(crate) fn unabbreviated(command: &Command, arguments: &[OsString]) -> Vec<OsString> {
    let (mut is_value, mut is_over) = (false, false);
    let whole = arguments.iter().map(|argument| {
        let option = argument.to_str().and_then(|text| text.strip_prefix("--"));
        let Some(option) = option.filter(|_| !is_over && !std::mem::take(&mut is_value)) else {
            is_value = false;
            return argument.clone();
        };
        is_over = option.is_empty();
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (option, None),
        };
        let find = |name: &str| {
            let mut all = command.get_arguments();
            all.find(|arg| arg.get_long() == Some(name))
        };
        let mut meant = ABBREVIATED.iter().filter(|long| long.starts_with(name));
        let long = match (find(name), meant.next(), meant.next()) {
            (None, Some(only), None) if !is_over => only,
            _ => name,
        };
        is_value = value.is_none() && find(long).is_some_and(|arg| arg.get_action().takes_values());
        match value {
            Some(value) => format!("--{long}={value}").into(),
            None => format!("--{long}").into(),
        }
    });
    whole.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_has_the_paths_of_the_defaults() {
        use clap::CommandFactory;
        let command = Cli::command();
        let mut all = command.get_arguments();
        let state = all.find(|arg| arg.get_long() == Some("state-dir"));
        let help = state
            .and_then(Arg::get_long_help)
            .or(state.and_then(Arg::get_help));
        let help = help.map(ToString::to_string).unwrap_or_default();
        for path in [defaults::STATE_DIR, defaults::USER_STATE_DIR] {
            assert!(help.contains(path), "{help}");
        }
    }

    #[test]
    fn the_python_monitors_abbreviations_are_written_out() {
        use clap::CommandFactory;
        for (given, meant) in [
            ("--log x", "--logfile x"),
            ("--restart --log", "--restart-cmd --log"),
            ("--re=a=b", "--restart-cmd=a=b"),
            (
                "--no-verify --q --t 3",
                "--no-verify-ssl --quiet --timeout 3",
            ),
            ("--log-level info", "--log-level info"),
            ("--retries 3 --stop 3", "--retries 3 --stop 3"),
            ("--dump-cmd --log -- --log", "--dump-cmd --log -- --log"),
        ] {
            let given: Vec<OsString> = given.split(' ').map(OsString::from).collect();
            let whole = unabbreviated(&Cli::command(), &given);
            let meant: Vec<OsString> = meant.split(' ').map(OsString::from).collect();
            assert_eq!(whole, meant);
        }
    }

    #[test]
    fn seconds_are_whole_or_decimal_positive_and_bounded() {
        for (text, millis) in [
            ("10", 10_000),
            ("2.5", 2_500),
            (".5", 500),
            ("3600", 3_600_000),
            ("1.", 1_000),
        ] {
            assert_eq!(seconds(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in [
            "0",
            "0.0",
            "-1",
            "",
            ".",
            "1e3",
            "inf",
            "nan",
            "NaN",
            "3600.1",
            "99999999999999999999",
            "1.2.3",
            "ten",
            " 1",
            "1s",
            "+1",
            "0x10",
            "0.0000000001",
            "١",
        ] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
