//! Every default and installed path, once.

/// Seconds one health check may take in all.
pub(crate) const TIMEOUT: &str = "10";
/// Seconds between SIGTERM and SIGKILL.
pub(crate) const STOP_TIMEOUT: &str = "10";
/// Seconds from the start of the restart command to the first answer.
pub(crate) const START_TIMEOUT: &str = "30";
/// Further checks before a server counts as down.
pub(crate) const RETRIES: &str = "0";
/// Seconds between those checks.
pub(crate) const RETRY_DELAY: &str = "5";
/// The least severe lines that are logged.
pub(crate) const LOG_LEVEL: &str = "debug";
/// The longest time that any option takes, in seconds.
pub(crate) const LONGEST_SECONDS: u32 = 3600;
/// The largest number of further checks.
pub(crate) const MOST_RETRIES: i64 = 100;
/// State that outlives a run, for root.
pub(crate) const STATE_DIR: &str = "/var/lib/monitor_myvnc";
/// State that outlives a run, for everybody else: below the home directory
/// (XDG Base Directory Specification, `$XDG_STATE_HOME`).
pub(crate) const USER_STATE_DIR: &str = ".local/state/monitor_myvnc";
/// The configuration file of the packages.
pub(crate) const CONFIG_FILE: &str = "/etc/monitor_myvnc.toml";
/// Where a server of the configuration file has its log, as NAME.log.
pub(crate) const LOG_DIR: &str = "/var/log/monitor_myvnc";
/// Where the packages install the program.
#[allow(dead_code, reason = "the build writes it into what it generates")]
pub(crate) const PROGRAM: &str = "/usr/bin/monitor_myvnc";
/// Where the Python monitor's manual put its log, without `*.log`.
#[allow(dead_code, reason = "the build writes it into what it generates")]
pub(crate) const MANUAL_LOG_STEM: &str = "/var/log/myvnc-monitor";
/// How often the timer runs, in seconds.
#[allow(dead_code, reason = "the build writes it into what it generates")]
pub(crate) const TIMER_SECONDS: u32 = 20;
/// Minutes of the server's own log that a diagnosis shows.
pub(crate) const LOG_HISTORY_MINUTES: &str = "2";
/// The most of them.
pub(crate) const MOST_HISTORY_MINUTES: i64 = 1440;
/// Where MyVNC has its own log, where it holds none open (`glob(7)`).
pub(crate) const SERVER_LOGS: [&str; 4] = [
    "/localdev/myvnc/logs/myvnc_*.log",
    "/mnt/myvnc/logs/myvnc_*.log",
    "/var/log/myvnc/myvnc_*.log",
    "/var/log/myvnc_*.log",
];
