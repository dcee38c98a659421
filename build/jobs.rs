//! The cron job, the systemd units, and the rotation of the logs.

use crate::defaults::{
    CONFIG_FILE, LOG_DIR, MANUAL_LOG_STEM, PROGRAM, TIMER_SECONDS, USER_STATE_DIR,
};

/// Each file, with its path in the tree.
pub(crate) fn files() -> Vec<(&'static str, String)> {
    vec![
        ("cron.d/monitor_myvnc", cron()),
        ("logrotate/monitor_myvnc", logrotate()),
        ("systemd/monitor_myvnc.service", service()),
        ("systemd/monitor_myvnc.timer", timer()),
    ]
}

fn cron() -> String {
    format!(
        "\
# Checks the MyVNC servers in {CONFIG_FILE} every minute, and restarts
# those that do not respond. If that file names no server, the job does nothing.
# The job also does nothing while monitor_myvnc.timer is active, and after the
# package was removed.
#
# The job runs as root. To run it as the servers' owner, for example myvnc,
# replace root with myvnc in the line below, and let myvnc read the configuration
# and write the logs:
#   chown root:myvnc {CONFIG_FILE}; chmod 640 {CONFIG_FILE}
#   chown -R myvnc {LOG_DIR}
# The state directory is then ~myvnc/{USER_STATE_DIR}.
SHELL=/bin/sh
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
* * * * * root [ -x {PROGRAM} ] || exit 0; [ -d /run/systemd/system ] && systemctl --quiet is-active monitor_myvnc.timer && exit 0; exec {PROGRAM} --quiet --config {CONFIG_FILE}
"
    )
}

/// logrotate(8) refuses a file that two patterns match, so the logs are each `*.log` that does not
/// end in `.restart.log`.
fn logrotate() -> String {
    let ours = format!("{LOG_DIR}/");
    let mut text = format!(
        "\
# Rotates the logs of monitor_myvnc.
#
# logrotate reports an error for a log that two patterns match. So the patterns
# with [!...] match each *.log except *.restart.log, which has its own block.
#
# If {LOG_DIR} belongs to a user other than root, add the line
# `su OWNER GROUP` to the two blocks for that directory.
"
    );
    for (stem, own) in [(ours.as_str(), None), (MANUAL_LOG_STEM, Some(".log"))] {
        let own = own.map(|own| format!("{stem}{own}"));
        let logs: Vec<_> = own.into_iter().chain(all_but(".restart", stem)).collect();
        text += &rotation(&logs.join("\n"), "create 0640");
        text += "\n# Output of the restart command. The server that it started may hold the file\n# open, so the file is copied and truncated, not replaced.\n";
        text += &rotation(&format!("{stem}*.restart.log"), "copytruncate");
        text.push('\n');
    }
    text.truncate(text.trim_end().len() + 1);
    text
}

fn rotation(logs: &str, how: &str) -> String {
    format!(
        "\
{logs}
{{
    daily
    rotate 30
    compress
    delaycompress
    missingok
    notifempty
    {how}
}}
"
    )
}

/// Patterns (glob(7)) that match each `STEM*.log` once, but for those that end in `UNWANTED.log`.
fn all_but(unwanted: &str, stem: &str) -> Vec<String> {
    let mut patterns = Vec::new();
    for (at, letter) in unwanted.char_indices().rev() {
        let tail = &unwanted[at + letter.len_utf8()..];
        patterns.push(format!("{stem}*[!{letter}]{tail}.log"));
        if !tail.is_empty() {
            patterns.push(format!("{stem}{tail}.log"));
        }
    }
    patterns
}

fn service() -> String {
    format!(
        "\
[Unit]
Description=Check the MyVNC servers and restart those that do not respond
Documentation=man:monitor_myvnc(1) man:monitor_myvnc.toml(5)
After=network.target

[Service]
Type=oneshot
ExecStart={PROGRAM} --quiet --config {CONFIG_FILE}
# A server that the restart command starts stays in this unit's control group.
# With KillMode=process, systemd ends only the monitor: the server continues to
# run when a check ends and when this unit is stopped.
KillMode=process
# The monitor writes its own log. What it writes to stderr goes to the journal as
# an error. LogLevelMax hides the warning that systemd would otherwise log at each
# check, because the server is left over in the control group.
SyslogLevel=err
LogLevelMax=err
# A server that the restart command starts, and the commands that the server runs,
# inherit these restrictions. So only what none of them needs is forbidden.
LockPersonality=yes
RestrictRealtime=yes
CapabilityBoundingSet=~CAP_SYS_MODULE CAP_SYS_BOOT CAP_SYS_RAWIO CAP_SYS_TIME CAP_MAC_ADMIN CAP_MAC_OVERRIDE
"
    )
}

fn timer() -> String {
    format!(
        "\
[Unit]
Description=Check the MyVNC servers every {TIMER_SECONDS} seconds
Documentation=man:monitor_myvnc(1)

[Timer]
OnCalendar=*:*:0/{TIMER_SECONDS}
AccuracySec=1s

[Install]
WantedBy=timers.target
"
    )
}
