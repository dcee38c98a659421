//! Flags in, one validated `Settings` out: whatever is wrong with a flag is said here.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::Uid;
use regex_lite::Regex;
use url::Url;

use crate::cli::{Cli, LogLevel, RestartPolicy};
use crate::defaults;
use crate::recovery::Purpose;
use crate::redact;
use crate::state;
use crate::sys::account::{self, Account};
use crate::sys::name_services::NameServiceError;
use crate::text::errno_text;
use crate::tls::Trust;
use crate::usage::UsageError;

/// All that one run over one server needs, valid.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Its name in the configuration file.
    pub(crate) name: Option<String>,
    /// Whether only its port tells it from another server of the configuration file.
    pub(crate) by_port_alone: bool,
    /// What is checked.
    pub(crate) url: Url,
    /// The URL as the log shows it: as it was given, without a password.
    pub(crate) shown_url: String,
    /// Absolute path of the log.
    pub(crate) logfile: PathBuf,
    /// The shell command that starts the server.
    pub(crate) restart_cmd: String,
    /// What the run is for.
    pub(crate) purpose: Purpose,
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
    /// Where the server itself listens, where that is said.
    pub(crate) listen: Option<SocketAddr>,
    /// Who the restart command runs as, where that is said.
    pub(crate) run_as: Option<Account>,
    /// When to restart.
    pub(crate) restart_policy: RestartPolicy,
    /// Restarts in an hour; 0 is no limit.
    pub(crate) max_restarts: u32,
    /// Age up to which a server is waited for.
    pub(crate) start_grace: Duration,
    /// How long healing without a restart is tried; none where it is not.
    pub(crate) unwedge_for: Option<Duration>,
    /// How far back a diagnosis shows the server's own log.
    pub(crate) log_history: Duration,
    /// Where that log is, where the server holds none open (`glob(7)`).
    pub(crate) server_log: Option<String>,
    /// What is run before the server is stopped.
    pub(crate) dump_cmd: Option<String>,
    /// What is run for each event.
    pub(crate) notify_cmd: Option<String>,
    /// Whether events are written to the systemd journal.
    pub(crate) journal: bool,
    /// What is requested at the end of each run.
    pub(crate) ping_url: Option<Url>,
    /// Absolute path of the directory of the metrics.
    pub(crate) metrics_dir: Option<PathBuf>,
    /// Days before the certificate expires from which that is announced; 0 is never.
    pub(crate) cert_warn_days: u32,
    /// The state directory.
    pub(crate) state_dir: PathBuf,
}

impl Settings {
    /// Settings of the flags; an error is about one flag.
    pub(crate) fn from_flags(cli: Cli) -> Result<Self, UsageError> {
        let missing = |option: &str| UsageError::of(option, "is missing");
        let url_text = cli.url.ok_or_else(|| missing("url"))?;
        let logfile = cli.logfile.ok_or_else(|| missing("logfile"))?;
        let restart_cmd = cli.restart_cmd.ok_or_else(|| missing("restart-cmd"))?;
        let url = parse_url("url", &url_text)?;
        if restart_cmd.trim().is_empty() {
            return Err(UsageError::of(
                "restart-cmd",
                "is empty: give the command that starts the server",
            ));
        }
        let trust = match (&cli.ca_cert, cli.no_verify_ssl) {
            (Some(file), _) => Trust::system_and(file).map_err(|reason| {
                UsageError::of("ca-cert", format!("{}: {reason}", file.display()))
            })?,
            (None, true) => Trust::Anybody,
            (None, false) => Trust::System,
        };
        Ok(Self {
            name: None,
            log_history: Duration::from_secs(u64::from(cli.log_history_minutes) * 60),
            server_log: cli.server_log.map(parse_glob).transpose()?,
            dump_cmd: cli.dump_cmd,
            notify_cmd: cli.notify_cmd.map(parse_command).transpose()?,
            journal: cli.journal,
            ping_url: cli.ping_url.as_deref().map(parse_ping_url).transpose()?,
            metrics_dir: cli
                .metrics_dir
                .as_deref()
                .map(|dir| absolute("metrics-dir", dir))
                .transpose()?,
            cert_warn_days: cli.cert_warn_days,
            purpose: match (cli.collect_diagnostics, cli.dry_run) {
                (true, _) => Purpose::Collect,
                (false, true) => Purpose::DryRun,
                (false, false) => Purpose::Heal,
            },
            by_port_alone: false,
            shown_url: shown(&url_text, &url),
            url,
            logfile: parse_logfile(&logfile)?,
            restart_cmd,
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
            restart_policy: cli.restart_policy,
            max_restarts: cli.max_restarts,
            start_grace: cli.start_grace,
            unwedge_for: cli.unwedge.then_some(cli.unwedge_for),
            user: cli.user.as_deref().map(parse_user).transpose()?,
            listen: cli.listen,
            run_as: cli.run_as.as_deref().map(parse_run_as).transpose()?,
            state_dir: cli
                .state_dir
                .as_deref()
                .map_or_else(default_state_dir, |dir| absolute("state-dir", dir))?,
        })
    }
}

impl Settings {
    /// Where the restart command's output goes.
    pub(crate) fn output(&self) -> PathBuf {
        self.logfile.with_extension("restart.log")
    }

    /// The server's name: that of its table in the configuration file, else its log's without the extension.
    pub(crate) fn shown_name(&self) -> String {
        let stem = || {
            self.logfile
                .file_stem()
                .map(|stem| stem.to_string_lossy().into_owned())
        };
        self.name.clone().or_else(stem).unwrap_or_default()
    }

    /// The arguments with which a verb finds this server: its name, and its state directory if that is not the
    /// default.
    pub(crate) fn as_arguments(&self) -> String {
        let quoted = |text: &str| shlex::try_quote(text).unwrap_or_default().into_owned();
        let name = quoted(&self.shown_name());
        let is_default = default_state_dir().is_ok_and(|directory| directory == self.state_dir);
        if is_default {
            return name;
        }
        let directory = quoted(&self.state_dir.to_string_lossy());
        format!("{name} --state-dir {directory}")
    }

    /// The ping URL's scheme, host and port: whoever knows the rest can ping too.
    pub(crate) fn shown_ping_url(&self) -> Option<String> {
        let url = self.ping_url.as_ref()?;
        Some(format!("{}/***", url.origin().ascii_serialization()))
    }

    /// The URL's port.
    pub(crate) fn port(&self) -> u16 {
        self.url.port_or_known_default().unwrap_or_default()
    }

    /// A file of this server in the state directory.
    pub(crate) fn state_file(&self, extension: &str) -> PathBuf {
        let host = self.url.host_str().unwrap_or_default();
        state::path(&self.state_dir, host, self.port(), extension)
    }
}

/// The URL that `option` gives.
fn parse_url(option: &str, text: &str) -> Result<Url, UsageError> {
    let shown = redact(text);
    let wrong = |reason: &str| UsageError::of(option, format!("{shown}: {reason}"));
    let no_scheme = || wrong("no scheme; give a URL such as http://localhost:9143");
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(url::ParseError::RelativeUrlWithoutBase) => return Err(no_scheme()),
        Err(reason) => {
            return Err(wrong(&format!(
                "{reason}; give a URL such as http://localhost:9143"
            )));
        }
    };
    if !matches!(url.scheme(), "http" | "https") {
        // `localhost:9143` has the form of a scheme and a path.
        if !text.contains("://") {
            return Err(no_scheme());
        }
        return Err(wrong(&format!(
            "the scheme is {}, not http or https",
            url.scheme()
        )));
    }
    if url.port() == Some(0) {
        return Err(wrong("port 0 cannot be connected to"));
    }
    Ok(url)
}

/// The URL of the dead man's switch.
fn parse_ping_url(text: &str) -> Result<Url, UsageError> {
    let mut url = parse_url("ping-url", text)?;
    url.set_fragment(None);
    Ok(url)
}

fn parse_command(text: String) -> Result<String, UsageError> {
    if text.trim().is_empty() {
        let what = "is empty: give the command that an event is handed to";
        return Err(UsageError::of("notify-cmd", what));
    }
    Ok(text)
}

/// The URL as it was given, unless it holds a password.
pub(crate) fn shown(text: &str, url: &Url) -> String {
    if url.password().is_none() && url.username().is_empty() {
        return redact::redacted(text.trim_end_matches('/'));
    }
    redact::redacted(&without_password(url))
}

/// A URL with `***` in the place of its password.
fn without_password(url: &Url) -> String {
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

fn parse_glob(pattern: String) -> Result<String, UsageError> {
    match glob::Pattern::new(&pattern) {
        Ok(_) => Ok(pattern),
        Err(reason) => Err(UsageError::of(
            "server-log",
            format!("{pattern}: {}", reason.msg),
        )),
    }
}

fn parse_logfile(path: &Path) -> Result<PathBuf, UsageError> {
    if path.file_name().is_none() || path.as_os_str().as_encoded_bytes().ends_with(b"/") {
        return Err(UsageError::of(
            "logfile",
            format!("{}: this names no file", path.display()),
        ));
    }
    absolute("logfile", path)
}

fn absolute(option: &str, path: &Path) -> Result<PathBuf, UsageError> {
    std::path::absolute(path).map_err(|reason| {
        let (path, reason) = (path.display(), errno_text(&reason));
        UsageError::of(option, format!("{path}: {reason}; give an absolute path"))
    })
}

fn parse_pattern(text: &str) -> Result<Regex, UsageError> {
    let wrong = |reason: &str| UsageError::of("process-pattern", format!("{text}: {reason}"));
    let pattern = Regex::new(text).map_err(|reason| wrong(&reason.to_string()))?;
    // What matches two unlike single characters names nothing: `.`, `\w`, `.+`.
    if pattern.is_match("") || (pattern.is_match("x") && pattern.is_match("7")) {
        return Err(wrong(
            "this matches every process; name what only the server has in its arguments",
        ));
    }
    Ok(pattern)
}

fn parse_user(name: &str) -> Result<Uid, UsageError> {
    let wrong = |reason: &str| UsageError::of("user", format!("{name}: {reason}"));
    match account::uid_of(name) {
        Ok(Some(uid)) => Ok(uid),
        Ok(None) => Err(wrong(&no_such_user())),
        Err(reason) => Err(wrong(&reason.to_string())),
    }
}

/// What is wrong with a name that the name services do not know.
fn no_such_user() -> String {
    if account::know_all_users() {
        "no such user".to_owned()
    } else {
        NameServiceError::Unknown.to_string()
    }
}

/// Who the restart command runs as. Nobody but root can run it as another user.
fn parse_run_as(name: &str) -> Result<Account, UsageError> {
    let wrong = |reason: &str| UsageError::of("run-as", format!("{name}: {reason}"));
    let account = match Account::named(name) {
        Ok(Some(account)) => account,
        Ok(None) => return Err(wrong(&no_such_user())),
        Err(reason) => return Err(wrong(&reason.to_string())),
    };
    if !account.is_own() && !nix::unistd::geteuid().is_root() {
        return Err(wrong(&format!(
            "only root can run the restart command as another user; run the monitor as root, or run it as {name} and \
             leave this setting out"
        )));
    }
    Ok(account)
}

/// The state directory where none is named.
///
/// # Errors
/// There is no home directory.
pub(crate) fn default_state_dir() -> Result<PathBuf, UsageError> {
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
                .map(|account| account.home)
        })
        .map(|home| home.join(defaults::USER_STATE_DIR))
        .ok_or_else(|| {
            UsageError::of(
                "state-dir",
                "is missing: there is no home directory to keep the state in",
            )
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, clippy::unwrap_used)]

    use clap::Parser;
    use proptest::prelude::*;

    use super::*;

    const SECRET: &str = "s3cret-Hunter2";

    /// Settings of these flags; what a run needs and they do not name is filled in first.
    fn settings(flags: &[&str]) -> Result<Settings, String> {
        let needed = [
            "monitor_myvnc",
            "--url=http://localhost:9143",
            "--logfile=/var/log/m.log",
            "--restart-cmd=/opt/myvnc/manage.py start",
            "--state-dir=/var/lib/m",
        ];
        let cli = Cli::try_parse_from(needed.iter().chain(flags)).expect("flags clap takes");
        Settings::from_flags(cli).map_err(|error| error.to_string())
    }

    fn refusal(flags: &[&str]) -> String {
        let reason = settings(flags).expect_err(&format!("{flags:?}"));
        assert_eq!(reason.lines().count(), 1, "{reason}");
        assert!(!reason.contains("os error"), "{reason}");
        reason
    }

    #[test]
    fn what_no_flag_says_has_its_default() {
        let settings = settings(&[]).unwrap();
        assert_eq!(settings.shown_url, "http://localhost:9143");
        assert_eq!(settings.logfile, Path::new("/var/log/m.log"));
        assert_eq!(settings.state_dir, Path::new("/var/lib/m"));
        assert_eq!(settings.timeout, Duration::from_secs(10));
        assert_eq!(settings.stop_timeout, Duration::from_secs(10));
        assert_eq!(settings.start_timeout, Duration::from_secs(30));
        assert!(matches!(settings.trust, Trust::System));
        assert!(settings.process_pattern.is_none() && settings.user.is_none());
        assert!(!settings.quiet && !settings.debug);
    }

    #[test]
    fn bad_urls_are_refused_by_name() {
        for url in [
            "",
            " ",
            "localhost",
            "localhost:9143",
            "/status",
            "//localhost:9143",
            "127.0.0.1:9143",
            "http",
            "http:",
            "http://",
            "https://",
            "http://:9143",
            "http://?x",
            "http://local host:9143",
            "http://localhost: 9143",
            "http://localhost:port",
            "http://localhost:65536",
            "http://localhost:-1",
            "http://localhost:0",
            "https://localhost:0/status",
            "http://[::1",
            "http://[nonsense]",
            "http://256.1.1.1",
            "http://a%00b",
            "http://a<b>",
            "ftp://localhost",
            "ws://localhost",
            "file:///etc/passwd",
            "unix:/run/myvnc.sock",
            "mailto:root@localhost",
            "javascript:0",
            "htp://localhost",
        ] {
            let reason = refusal(&["--url", url]);
            assert!(reason.starts_with("--url "), "{url:?}: {reason}");
        }
    }

    #[test]
    fn good_urls_are_shown_as_they_were_given() {
        for (url, shown) in [
            ("http://localhost", "http://localhost"),
            ("http://localhost/", "http://localhost"),
            (
                "https://vm.example.com:9143/api/server/status",
                "https://vm.example.com:9143/api/server/status",
            ),
            ("HTTPS://VM:443", "HTTPS://VM:443"),
            ("http://[::1]:9143/", "http://[::1]:9143"),
            ("http://127.0.0.1:65535", "http://127.0.0.1:65535"),
            ("http://ada@vm", "http://ada@vm"),
            ("http://ada:pw@vm/x?y#z", "http://ada:***@vm/x?y#z"),
            ("http://:pw@vm", "http://:***@vm"),
            ("http://vm/?a=b&token=x&c=d", "http://vm/?a=b&token=***&c=d"),
            ("http://ada:p%40w@vm", "http://ada:***@vm"),
            ("http://ada:p@w@vm", "http://ada:***@vm"),
        ] {
            assert_eq!(settings(&["--url", url]).unwrap().shown_url, shown);
        }
    }

    proptest! {
        #[test]
        fn a_password_is_never_shown(
            scheme in prop_oneof![
                Just(""), Just("http:"), Just("http:/"), Just("http://"), Just("HTTPS://"),
                Just("http:\\\\"), Just("ftp://"), Just("//"), Just(" http://"), Just("http://http://"),
            ],
            user in "[a-z:/ ?#%]{0,5}",
            host in prop_oneof![
                Just("vm"), Just(""), Just("vm:0"), Just("vm:99999"), Just("http://vm"), Just("a b"),
                Just("[::1"), Just("vm/?next=http://other"), Just("vm/a@b"), Just("@vm"), Just("\n"),
            ],
        ) {
            let url = format!("{scheme}{user}:{SECRET}@{host}");
            let said = match settings(&["--url", &url]) {
                // After `/`, `?` or `#` it is no password, but part of the address.
                Ok(settings) if settings.url.password().is_none() => String::new(),
                Ok(settings) => settings.shown_url,
                Err(reason) => reason,
            };
            prop_assert!(!said.contains(SECRET), "{url}: {said}");
        }
    }

    #[test]
    fn what_may_be_a_password_is_redacted() {
        for (text, shown) in [
            ("http://vm", "http://vm"),
            ("http://ada:pw@vm:0", "http://***@vm:0"),
            ("ada:pw@vm", "***@vm"),
            ("ada:pw@http://vm", "***@http://vm"),
            ("token@http://vm", "***@http://vm"),
            ("ada:pw://x@vm", "***@vm"),
            ("http://ada:p@w@vm", "http://***@vm"),
        ] {
            assert_eq!(redact(text), shown);
        }
    }

    #[test]
    fn patterns_that_cannot_tell_processes_apart_are_refused() {
        for pattern in [
            "", "^", "$", ".*", "x?", "(a|)", "(?i)", "[a-z]*", "^$", "server|",
        ] {
            let reason = refusal(&["--process-pattern", pattern]);
            let start = format!("--process-pattern {pattern}: this matches every process");
            assert!(reason.starts_with(&start), "{reason}");
        }
        for pattern in [
            "(",
            "[a",
            "a{2,1}",
            "*",
            "\\",
            "(?P<>x)",
            r"\p{Greek}",
            r"(a)\1",
        ] {
            let reason = refusal(&["--process-pattern", pattern]);
            let start = format!("--process-pattern {pattern}: ");
            assert!(
                reason.starts_with(&start) && reason.len() > start.len(),
                "{reason}"
            );
        }
        let pattern = settings(&["--process-pattern", "-m myvnc( |$)"])
            .unwrap()
            .process_pattern;
        assert!(pattern.unwrap().is_match("python3 -m myvnc --port 9143"));
    }

    #[test]
    fn a_logfile_names_a_file() {
        for path in [
            "/",
            "/var/log/",
            "m/",
            "..",
            "/var/log/..",
            ".",
            "./",
            "../..",
        ] {
            let reason = refusal(&["--logfile", path]);
            assert_eq!(reason, format!("--logfile {path}: this names no file"));
        }
        let here = std::env::current_dir().unwrap();
        for path in ["m.log", "./m.log"] {
            assert_eq!(
                settings(&["--logfile", path]).unwrap().logfile,
                here.join("m.log")
            );
        }
    }

    #[test]
    fn an_empty_restart_command_is_refused() {
        for command in ["", " ", "\t\n "] {
            assert!(refusal(&["--restart-cmd", command]).starts_with("--restart-cmd is empty"));
        }
    }

    #[test]
    fn a_user_is_one_there_is() {
        for name in ["no-such-user-here", "", " root", "root ", "4294967295"] {
            assert_eq!(
                refusal(&["--user", name]),
                format!("--user {name}: no such user")
            );
        }
        assert_eq!(
            settings(&["--user", "root"]).unwrap().user,
            Some(Uid::from_raw(0))
        );
        // The log says "set user" of a user ID without an account too.
        assert_eq!(
            settings(&["--user", "3999999"]).unwrap().user,
            Some(Uid::from_raw(3_999_999))
        );
    }

    #[test]
    fn the_restart_command_runs_as_a_user_there_is() {
        for name in ["no-such-user-here", "", " root", "4000000"] {
            let expected = format!("--run-as {name}: no such user");
            assert_eq!(refusal(&["--run-as", name]), expected);
        }
        let own = nix::unistd::geteuid();
        let root = settings(&["--run-as", "root"]);
        if own.is_root() {
            for name in ["root", "0"] {
                let account = settings(&["--run-as", name]).unwrap().run_as.unwrap();
                assert_eq!((account.uid, account.is_own()), (own, true));
            }
            assert!(settings(&["--run-as", "nobody"]).is_ok());
        } else {
            assert!(root.unwrap_err().contains("only root can"));
        }
        assert!(settings(&[]).unwrap().run_as.is_none());
    }

    #[test]
    fn a_certificate_file_holds_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        let shown = path.to_str().unwrap();
        let refused = |what: &str| {
            let reason = refusal(&["--ca-cert", shown]);
            let start = format!("--ca-cert {shown}: {what}");
            assert!(reason.starts_with(&start), "{reason}");
        };
        refused("No such file or directory");
        for garbage in [
            &b""[..],
            b"garbage",
            b"\xff\x00\xfe",
            b"-----BEGIN CERTIFICATE-----\n",
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        ] {
            std::fs::write(&path, garbage).unwrap();
            refused("no certificate in it");
        }
        let own = rcgen::generate_simple_self_signed(["vm".to_owned()]).unwrap();
        std::fs::write(&path, format!("# of vm\n{}", own.cert.pem())).unwrap();
        let trust = settings(&["--ca-cert", shown]).unwrap().trust;
        assert!(matches!(trust, Trust::SystemAnd(certificates) if certificates.len() == 1));
    }
}
