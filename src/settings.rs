//! Flags in, one validated `Settings` out: whatever is wrong with a flag is said here.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::Uid;
use regex_lite::Regex;
use url::Url;

use crate::account;
use crate::cli::{Cli, LogLevel};
use crate::defaults;
use crate::journal::plain;
use crate::trust::Trust;

/// All that one run over one server needs, valid.
#[derive(Debug)]
pub(crate) struct Settings {
    /// What is checked.
    pub(crate) url: Url,
    /// The URL as the log shows it: as it was given, without a password.
    pub(crate) shown_url: String,
    /// Absolute path of the log.
    pub(crate) logfile: PathBuf,
    /// The shell command that starts the server.
    pub(crate) restart_cmd: String,
    /// Nothing to stdout and stderr.
    pub(crate) quiet: bool,
    /// Whether the finest detail is logged.
    pub(crate) debug: bool,
    /// The least severe lines that are logged.
    pub(crate) log_level: LogLevel,
    /// Bound on one health check.
    pub(crate) timeout: Duration,
    /// Whom TLS trusts.
    pub(crate) trust: Trust,
    /// From SIGTERM to SIGKILL.
    pub(crate) stop_timeout: Duration,
    /// From the restart command to the first answer.
    pub(crate) start_timeout: Duration,
    /// Further checks before the server counts as down.
    pub(crate) retries: u32,
    /// Between these checks.
    pub(crate) retry_delay: Duration,
    /// Replaces the built-in rule of which process is the server.
    pub(crate) process_pattern: Option<Regex>,
    /// Only this user's processes are the server.
    pub(crate) user: Option<Uid>,
    /// Where the restart lock stands.
    pub(crate) state_dir: PathBuf,
}

impl Settings {
    /// Settings of the flags, or one line that says which flag is wrong and why.
    pub(crate) fn from_flags(cli: Cli) -> Result<Self, String> {
        let url = parse_url(&cli.url)?;
        if cli.restart_cmd.trim().is_empty() {
            return Err("--restart-cmd is empty: give the command that starts the server".into());
        }
        let trust = match (&cli.ca_cert, cli.no_verify_ssl) {
            (Some(file), _) => Trust::system_and(file)
                .map_err(|reason| format!("--ca-cert {}: {reason}", file.display()))?,
            (None, true) => Trust::Anybody,
            (None, false) => Trust::System,
        };
        Ok(Self {
            shown_url: shown(&cli.url, &url),
            url,
            logfile: parse_logfile(&cli.logfile)?,
            restart_cmd: cli.restart_cmd,
            quiet: cli.quiet,
            debug: cli.debug,
            log_level: cli.log_level,
            timeout: cli.timeout,
            trust,
            stop_timeout: cli.stop_timeout,
            start_timeout: cli.start_timeout,
            retries: cli.retries,
            retry_delay: cli.retry_delay,
            process_pattern: cli
                .process_pattern
                .as_deref()
                .map(parse_pattern)
                .transpose()?,
            user: cli.user.as_deref().map(parse_user).transpose()?,
            state_dir: cli
                .state_dir
                .as_deref()
                .map_or_else(default_state_dir, |dir| absolute("--state-dir", dir))?,
        })
    }
}

fn parse_url(text: &str) -> Result<Url, String> {
    let shown = redact(text);
    let url = Url::parse(text).map_err(|reason| {
        format!("--url {shown}: {reason}; give a URL such as http://localhost:9143")
    })?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!(
            "--url {shown}: the scheme is {}, not http or https",
            url.scheme()
        ));
    }
    if url.port() == Some(0) {
        return Err(format!("--url {shown}: port 0 cannot be connected to"));
    }
    Ok(url)
}

/// The URL as it was given, unless it holds a password.
fn shown(text: &str, url: &Url) -> String {
    if url.password().is_none() && url.username().is_empty() {
        return text.trim_end_matches('/').to_owned();
    }
    without_password(url)
}

/// A URL with `***` in the place of its password.
pub(crate) fn without_password(url: &Url) -> String {
    let mut url = url.clone();
    if url.password().is_some() {
        // Only a URL without a host refuses a password, and that has none to hide.
        let _ = url.set_password(Some("***"));
    }
    url.as_str().trim_end_matches('/').to_owned()
}

/// Text that may hold `user:password@`, for an error about a URL that could not be parsed.
fn redact(text: &str) -> String {
    let Some(at) = text.rfind('@') else {
        return text.to_owned();
    };
    let scheme = text
        .find("://")
        .filter(|colon| !text[..*colon].contains([':', '@']))
        .map_or(0, |colon| colon + 3);
    format!("{}***{}", &text[..scheme], &text[at..])
}

fn parse_logfile(path: &Path) -> Result<PathBuf, String> {
    if path.file_name().is_none() || path.as_os_str().as_encoded_bytes().ends_with(b"/") {
        return Err(format!("--logfile {}: this names no file", path.display()));
    }
    absolute("--logfile", path)
}

fn absolute(flag: &str, path: &Path) -> Result<PathBuf, String> {
    std::path::absolute(path).map_err(|reason| {
        format!(
            "{flag} {}: {}; give an absolute path",
            path.display(),
            plain(&reason)
        )
    })
}

fn parse_pattern(text: &str) -> Result<Regex, String> {
    let pattern =
        Regex::new(text).map_err(|reason| format!("--process-pattern {text}: {reason}"))?;
    if pattern.is_match("") {
        return Err(format!(
            "--process-pattern {text}: this matches every process; name what only the server has in its arguments"
        ));
    }
    Ok(pattern)
}

fn parse_user(name: &str) -> Result<Uid, String> {
    match account::by_name(name) {
        Ok(Some(user)) => Ok(user.uid),
        Ok(None) => Err(format!("--user {name}: no such user")),
        Err(reason) => Err(format!("--user {name}: {reason}")),
    }
}

fn default_state_dir() -> Result<PathBuf, String> {
    if nix::unistd::geteuid().is_root() {
        return Ok(defaults::STATE_DIR.into());
    }
    let set = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    if let Some(xdg) = set("XDG_STATE_HOME") {
        return Ok(xdg.join(env!("CARGO_PKG_NAME")));
    }
    set("HOME")
        .or_else(|| {
            account::by_uid(nix::unistd::geteuid())
                .ok()
                .flatten()
                .map(|user| user.dir)
        })
        .map(|home| home.join(defaults::USER_STATE_DIR))
        .ok_or_else(|| "no home directory to keep state in: give --state-dir DIR".into())
}
