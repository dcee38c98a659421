//! The only place of each default and installed path.

/// Time limit of one health check, in seconds.
pub(crate) const TIMEOUT: &str = "10";
/// Time from SIGTERM to SIGKILL, in seconds.
pub(crate) const STOP_TIMEOUT: &str = "10";
/// Time from the start of the restart command to the first response, in seconds.
pub(crate) const START_TIMEOUT: &str = "30";
/// Additional checks before a server counts as down.
pub(crate) const RETRIES: &str = "0";
/// Pause before each additional check, in seconds.
pub(crate) const RETRY_DELAY: &str = "5";
/// When to restart.
pub(crate) const RESTART_POLICY: &str = "always";
/// Restarts in an hour; 0 is no limit.
pub(crate) const MAX_RESTARTS: &str = "0";
/// Largest number of restarts in an hour that can be set.
pub(crate) const MOST_RESTARTS: i64 = 100;
/// Age up to which a server is waited for, in seconds.
pub(crate) const START_GRACE: &str = "0";
/// Time limit of healing without a restart, in seconds.
pub(crate) const UNWEDGE_FOR: &str = "5";
/// Largest value of that limit: the next run begins a minute after this one.
pub(crate) const LONGEST_UNWEDGE: u64 = 55;
/// Days before a certificate expires from which that is announced; 0 is never.
pub(crate) const CERT_WARN_DAYS: &str = "0";
/// Largest number of these days.
pub(crate) const MOST_CERT_WARN_DAYS: i64 = 365;
/// Directory of the shipped notify commands.
#[allow(dead_code, reason = "the build writes it into what it generates")]
pub(crate) const NOTIFIERS: &str = "/usr/libexec/monitor_myvnc";
/// Least severe lines to log.
pub(crate) const LOG_LEVEL: &str = "debug";
/// Largest value of an option that takes seconds.
pub(crate) const LONGEST_SECONDS: u32 = 3600;
/// Largest number of additional checks.
pub(crate) const MOST_RETRIES: i64 = 100;
/// State directory of root.
pub(crate) const STATE_DIR: &str = "/var/lib/monitor_myvnc";
/// State directory of other users, below the home directory (XDG Base Directory Specification,
/// `$XDG_STATE_HOME`).
pub(crate) const USER_STATE_DIR: &str = ".local/state/monitor_myvnc";
/// The configuration file of the packages.
pub(crate) const CONFIG_FILE: &str = "/etc/monitor_myvnc.toml";
/// Directory of the log of each server of the configuration file, NAME.log.
pub(crate) const LOG_DIR: &str = "/var/log/monitor_myvnc";
/// The program that asks the name services (getent(1)). It comes with the C library of every distribution.
pub(crate) const GETENT: &str = "/usr/bin/getent";
/// The program of the packages.
#[allow(dead_code, reason = "the build writes it into what it generates")]
pub(crate) const PROGRAM: &str = "/usr/bin/monitor_myvnc";
/// The log of the Python monitor's manual, without `.log`.
#[allow(dead_code, reason = "the build writes it into what it generates")]
pub(crate) const MANUAL_LOG_STEM: &str = "/var/log/myvnc-monitor";
/// Interval of the timer, in seconds.
#[allow(dead_code, reason = "the build writes it into what it generates")]
pub(crate) const TIMER_SECONDS: u32 = 20;
/// Minutes of the server's own log that a diagnosis shows.
pub(crate) const LOG_HISTORY_MINUTES: &str = "2";
/// Largest number of these minutes.
pub(crate) const MOST_HISTORY_MINUTES: i64 = 1440;
/// MyVNC's own logs, for a server that holds none open (`glob(7)`).
pub(crate) const SERVER_LOGS: [&str; 4] = [
    "/localdev/myvnc/logs/myvnc_*.log",
    "/mnt/myvnc/logs/myvnc_*.log",
    "/var/log/myvnc/myvnc_*.log",
    "/var/log/myvnc_*.log",
];
