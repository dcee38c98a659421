//! What runs the program, and what rotates its logs.

use crate::defaults::{CONFIG_FILE, LOG_DIR, MANUAL_LOG_STEM, PROGRAM, TIMER_SECONDS};

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
# Checks the MyVNC servers of {CONFIG_FILE} every minute, and restarts
# those that do not answer. Without a server in that file it does nothing.
#
# To run it as the servers' owner instead of root, say the owner is myvnc: write
# myvnc for root in the line below, and let it read its configuration and write
# its logs (its state is in its home then):
#   chown root:myvnc {CONFIG_FILE}; chmod 640 {CONFIG_FILE}
#   chown -R myvnc {LOG_DIR}
#
# It steps aside while monitor_myvnc.timer runs, and when the program is gone.
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
# The logs of monitor_myvnc: each *.log but *.restart.log, whose turn is below it.
# Where {LOG_DIR} is not root's, `su OWNER GROUP` in its two blocks
# rotates them as their owner.
"
    );
    for (stem, own) in [(ours.as_str(), None), (MANUAL_LOG_STEM, Some(".log"))] {
        let own = own.map(|own| format!("{stem}{own}"));
        let logs: Vec<_> = own.into_iter().chain(all_but(".restart", stem)).collect();
        text += &rotation(&logs.join("\n"), "create 0640");
        text += "\n# What the restart command writes; the server that it started holds it open.\n";
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
Description=Check the MyVNC servers, and restart those that do not answer
Documentation=man:monitor_myvnc(1) man:monitor_myvnc.toml(5)
After=network.target

[Service]
Type=oneshot
ExecStart={PROGRAM} --quiet --config {CONFIG_FILE}
# The server that the restart command starts lives on after this service.
KillMode=process
# Every run is in the program's own log; the journal has what goes wrong. At a lower
# level systemd warns of the server that lives on each time this service starts.
SyslogLevel=err
LogLevelMax=err
# A started server inherits what stands here, and so do the commands that it runs:
# only what none of them needs is taken away.
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
