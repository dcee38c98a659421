//! The flags of the command line: clap and std only, so that the build can render them.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgAction, Command, Parser, ValueEnum};

use crate::defaults;

/// Watch a MyVNC server and restart it when it hangs.
#[derive(Debug, Parser)]
#[command(
    name = "monitor_myvnc",
    version,
    about = "Watch a MyVNC server and restart it when it hangs",
    after_help = "Example:\n  \
        monitor_myvnc --url https://myvnc.example.com \\\n    \
        --logfile /var/log/myvnc-monitor.log \\\n    \
        --restart-cmd \"/opt/myvnc/manage.py --config_dir=/etc/myvnc start\"\n\n\
        Add --dry-run to see what a run would do without stopping or starting anything.\n\n\
        Commands (monitor_myvnc COMMAND --help describes each):\n  \
        status   how the servers are, and how available they were\n  \
        history  what happened to them\n  \
        report   a summary of a week, for a mail or as a web page\n  \
        pause    stop and restart nothing for a while\n  \
        resume   end a pause and a hold-off\n  \
        inhibit  stop and restart nothing as long as a command runs\n  \
        notify   try the notify command\n\n\
        Exit status:\n  \
        0  the server is healthy, was restarted, or another run holds the lock\n  \
        1  the server is not healthy, or an error; the log says what\n  \
        2  usage or configuration error; only servers without a mistake were watched",
    max_term_width = 80,
    override_usage = "monitor_myvnc --url URL --logfile FILE --restart-cmd COMMAND [OPTIONS]\n       \
        monitor_myvnc --config FILE [--server NAME]... [OPTIONS]\n       \
        monitor_myvnc COMMAND [SERVER]... [OPTIONS]",
    args_override_self = true,
    disable_help_flag = true,
    disable_version_flag = true,
    arg = Arg::new("help").short('h').long("help").action(ArgAction::Help)
        .help("Print this help").help_heading(OTHER),
    arg = Arg::new("version").short('V').long("version").action(ArgAction::Version)
        .help("Print the version").help_heading(OTHER)
)]
// clap would keep a group of all options, which nothing asks about.
#[group(skip)]
pub(crate) struct Cli {
    /// URL of the MyVNC server (http or https)
    #[arg(long, value_name = "URL", required_unless_present_any = ["config", "check_config"], help_heading = SERVER)]
    pub(crate) url: Option<String>,

    /// Log file. The run lock, .STEM.lock, and the restart command's output,
    /// STEM.restart.log, are beside it; STEM is the log's name without its extension
    #[arg(long, value_name = "FILE", required_unless_present_any = ["config", "check_config"], help_heading = SERVER)]
    pub(crate) logfile: Option<PathBuf>,

    /// Command that starts the server. /bin/bash runs it, or /bin/sh if there is no
    /// bash
    #[arg(
        long,
        value_name = "COMMAND",
        allow_hyphen_values = true,
        required_unless_present_any = ["config", "check_config"],
        help_heading = SERVER
    )]
    pub(crate) restart_cmd: Option<String>,

    /// Read the settings of one or more servers from this TOML file. Its keys are the
    /// long option names; options on the command line override it
    #[arg(long, value_name = "FILE", help_heading = CONFIGURATION)]
    pub(crate) config: Option<PathBuf>,

    /// Watch only this server of the configuration file. May be repeated
    #[arg(long, value_name = "NAME", action = clap::ArgAction::Append, help_heading = CONFIGURATION)]
    pub(crate) server: Vec<String>,

    /// Print the settings of each server, mistakes and warnings, and exit. Defaults that
    /// a run determines (those of listen and run-as) are not printed. Without --config
    /// and --url, /etc/monitor_myvnc.toml is read
    #[arg(long, help_heading = CONFIGURATION)]
    pub(crate) check_config: bool,

    /// Check the server; if it is down, log the cause and what would be stopped and
    /// run. Stops and starts nothing
    #[arg(long, help_heading = TRIAL)]
    pub(crate) dry_run: bool,

    /// Log what the server is doing now, healthy or not. Stops and starts nothing
    #[arg(long, help_heading = TRIAL)]
    pub(crate) collect_diagnostics: bool,

    /// Time limit of one health check: name resolution, connect, TLS and response
    /// headers together
    #[arg(long, value_name = "SECONDS", default_value = defaults::TIMEOUT,
          value_parser = seconds, allow_negative_numbers = true, help_heading = CHECK)]
    pub(crate) timeout: Duration,

    /// Additional checks before the server counts as down
    #[arg(long, value_name = "NUMBER", default_value = defaults::RETRIES,
          value_parser = retries,
          allow_negative_numbers = true, help_heading = CHECK)]
    pub(crate) retries: u32,

    /// Pause before each additional check
    #[arg(long, value_name = "SECONDS", default_value = defaults::RETRY_DELAY,
          value_parser = seconds, allow_negative_numbers = true, help_heading = CHECK)]
    pub(crate) retry_delay: Duration,

    /// Accept any TLS certificate
    #[arg(long, conflicts_with = "ca_cert", help_heading = CHECK)]
    pub(crate) no_verify_ssl: bool,

    /// Trust the certificates in this PEM file too: a CA's, or the server's own
    /// self-signed certificate. Name and expiry date are still verified
    #[arg(long, value_name = "FILE", help_heading = CHECK)]
    pub(crate) ca_cert: Option<PathBuf>,

    /// Address at which the server itself listens, if the URL leads to a proxy
    /// [default: where the last healthy check found the server, if that still listens;
    /// else host and port of server_config.json in the restart command's --config_dir;
    /// else where the server was last found; else the URL's]
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = listen, help_heading = RECOGNITION)]
    pub(crate) listen: Option<SocketAddr>,

    /// Name or ID of the user that the server runs as. Only this user's processes are the
    /// server, and an answer from this user on the server's port counts as healthy
    #[arg(long, value_name = "NAME", help_heading = RECOGNITION)]
    pub(crate) user: Option<String>,

    /// Regular expression that matches anywhere in the server's arguments, joined by
    /// spaces (^ and $ anchor it). It replaces the built-in rule for the arguments:
    /// Python runs main.py, run_server.py or manage.py of a MyVNC
    #[arg(long, value_name = "REGEX", allow_hyphen_values = true, help_heading = RECOGNITION)]
    pub(crate) process_pattern: Option<String>,

    /// User (name or number) that the restart command runs as. Only root can name
    /// a user other than its own [default: for root, the server's owner if the command
    /// names a MyVNC script, else the monitor's user]
    #[arg(long, value_name = "USER", help_heading = RESTART)]
    pub(crate) run_as: Option<String>,

    /// Time from SIGTERM to SIGKILL
    #[arg(long, value_name = "SECONDS", default_value = defaults::STOP_TIMEOUT,
          value_parser = seconds, allow_negative_numbers = true, help_heading = RESTART)]
    pub(crate) stop_timeout: Duration,

    /// Time that the server has to respond after the restart command was started
    #[arg(long, value_name = "SECONDS", default_value = defaults::START_TIMEOUT,
          value_parser = seconds, allow_negative_numbers = true, help_heading = RESTART)]
    pub(crate) start_timeout: Duration,

    /// When to restart a server that does not answer: always, only where that can help,
    /// or never
    #[arg(long, value_name = "POLICY", default_value = defaults::RESTART_POLICY, help_heading = RESTART)]
    pub(crate) restart_policy: RestartPolicy,

    /// Restarts in an hour; further ones wait until 5 minutes after the last. Restarts
    /// that do not help are made less and less often. 0: neither
    #[arg(long, value_name = "NUMBER", default_value = defaults::MAX_RESTARTS,
          value_parser = restarts, allow_negative_numbers = true, help_heading = RESTART)]
    pub(crate) max_restarts: u32,

    /// Wait for a server that was started less than this time ago, instead of
    /// restarting it
    #[arg(long, value_name = "SECONDS", default_value = defaults::START_GRACE,
          value_parser = seconds_or_none, allow_negative_numbers = true, help_heading = RESTART)]
    pub(crate) start_grace: Duration,

    /// If one client or one child of the server blocks it, close that connection or
    /// end that child first, and restart only if that does not help
    #[arg(long, help_heading = RESTART)]
    pub(crate) unwedge: bool,

    /// Time limit of --unwedge, at most 55
    #[arg(long, value_name = "SECONDS", default_value = defaults::UNWEDGE_FOR,
          value_parser = unwedge_seconds, allow_negative_numbers = true, help_heading = RESTART)]
    pub(crate) unwedge_for: Duration,

    /// Minutes of the server's own log that a diagnosis shows, 200 lines at most
    #[arg(long, value_name = "NUMBER", default_value = defaults::LOG_HISTORY_MINUTES,
          value_parser = minutes,
          allow_negative_numbers = true, help_heading = DIAGNOSIS)]
    pub(crate) log_history_minutes: u32,

    /// Where to look for the server's own log if the server holds none open and the log
    /// of its last start cannot be shown: the newest file that matches
    #[arg(long, value_name = "GLOB", help_heading = DIAGNOSIS)]
    pub(crate) server_log: Option<String>,

    /// Command to run before the server is stopped, for 10 seconds at most. Its output
    /// goes to the log; {pid} in it is replaced with the server's PID
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true, help_heading = DIAGNOSIS)]
    pub(crate) dump_cmd: Option<String>,

    /// Command that is run for each event, such as a restart that did not help, with the event
    /// in its environment and as JSON on stdin. An event is kept until the command has taken it
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true, help_heading = EVENTS)]
    pub(crate) notify_cmd: Option<String>,

    /// Write each event to the systemd journal too
    #[arg(long, help_heading = EVENTS)]
    pub(crate) journal: bool,

    /// URL to request at the end of each run, so that somebody notices when no more runs take
    /// place. After a run that did not end well, /fail is appended
    #[arg(long, value_name = "URL", help_heading = EVENTS)]
    pub(crate) ping_url: Option<String>,

    /// Directory in which a file of metrics for each server is kept, for the textfile collector
    /// of the Prometheus node exporter
    #[arg(long, value_name = "DIR", help_heading = EVENTS)]
    pub(crate) metrics_dir: Option<PathBuf>,

    /// Warn of a certificate that expires within this number of days; 0: do not warn
    #[arg(long, value_name = "NUMBER", default_value = defaults::CERT_WARN_DAYS,
          value_parser = days, allow_negative_numbers = true, help_heading = EVENTS)]
    pub(crate) cert_warn_days: u32,

    /// Write only to the log file, not to stdout and stderr. Usage errors, a log that
    /// cannot be written, and a run that cannot begin are reported on stderr all the same
    #[arg(long, help_heading = LOG)]
    pub(crate) quiet: bool,

    /// Least severe lines to log, unless --debug is given
    #[arg(long, value_name = "LEVEL", default_value = defaults::LOG_LEVEL, help_heading = LOG)]
    pub(crate) log_level: LogLevel,

    /// Log everything, whatever --log-level says, and add DEBUG lines about the lock, the
    /// processes found, the restart command's PID and durations
    #[arg(long, help_heading = LOG)]
    pub(crate) debug: bool,

    /// Directory of the server's record (its address, process and user at the last
    /// healthy check), its history, pauses and waiting events, and of the restart lock
    /// [default: /var/lib/monitor_myvnc for root, ~/.local/state/monitor_myvnc for
    /// other users]
    #[arg(long, value_name = "DIR", help_heading = LOG)]
    pub(crate) state_dir: Option<PathBuf>,
}

// Headings of the options, in `--help` and in the manual.
const SERVER: &str = "Server (required unless --config names a file)";
const CONFIGURATION: &str = "Configuration file";
const TRIAL: &str = "Trial runs";
const CHECK: &str = "Health check";
const RECOGNITION: &str = "Which process is the server";
const RESTART: &str = "Restart";
const DIAGNOSIS: &str = "Diagnosis";
const EVENTS: &str = "Notifications and metrics";
const LOG: &str = "Log and state";
const OTHER: &str = "Other";

/// Options that are about the configuration file itself, or about one run.
const NOT_KEYS: [&str; 7] = [
    "config",
    "server",
    "check-config",
    "collect-diagnostics",
    "dry-run",
    "help",
    "version",
];

/// The options that are keys of the configuration file.
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
    /// Also each HTTP request and its result.
    Debug,
    /// Also what the run does.
    Info,
    /// Also what may need attention.
    Warning,
    /// Also what failed.
    Error,
    /// Only what needs attention now.
    Critical,
}

/// When a server that does not answer is restarted.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum RestartPolicy {
    /// In each run that finds it down
    Always,
    /// Where it can help; elsewhere once, and then not until something has changed
    Useful,
    /// Never: only say what is wrong
    Never,
}

/// Reads seconds as `seconds` does, or 0.
fn seconds_or_none(text: &str) -> Result<Duration, String> {
    let is_zero = text.parse::<u32>() == Ok(0);
    if is_zero {
        return Ok(Duration::ZERO);
    }
    let longest = defaults::LONGEST_SECONDS;
    seconds(text).map_err(|_| format!("give seconds from 0 to {longest}, such as 30"))
}

/// Reads seconds, more than 0 and no more than a run may spend on it.
fn unwedge_seconds(text: &str) -> Result<Duration, String> {
    let longest = Duration::from_secs(defaults::LONGEST_UNWEDGE);
    let duration = seconds(text).ok().filter(|duration| *duration <= longest);
    duration.ok_or_else(|| {
        let longest = defaults::LONGEST_UNWEDGE;
        format!("give seconds, more than 0 and at most {longest}, such as 5")
    })
}

fn restarts(text: &str) -> Result<u32, String> {
    whole(text, 0, defaults::MOST_RESTARTS)
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

fn days(text: &str) -> Result<u32, String> {
    whole(text, 0, defaults::MOST_CERT_WARN_DAYS)
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
