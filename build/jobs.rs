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
# those that do not respond. If neither that file nor one in
# {CONFIG_FILE}.d names a server, the job does nothing.
# The job also does nothing while monitor_myvnc.timer is active, and after the
# package was removed.
#
# The job runs as root. To run it as the servers' owner, for example myvnc,
# replace root with myvnc in the line below, and let myvnc read the configuration
# and write the logs:
#   chown root:myvnc {CONFIG_FILE}; chmod 640 {CONFIG_FILE}
#   chown -R myvnc {LOG_DIR}
# The state directory is then ~myvnc/{USER_STATE_DIR}.
#
# cron mails what the job writes, to MAILTO or to the job's user. With --quiet that
# is only what keeps a run from working at all. To get each ERROR and CRITICAL line
# of the logs by mail, remove --quiet and append >/dev/null to the line below, there
# where it has --config. With --log-level critical, only CRITICAL lines are mailed,
# and logged. notify-cmd in {CONFIG_FILE} is the alternative.
SHELL=/bin/sh
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
* * * * * root [ -x {PROGRAM} ] || exit 0; [ -d /run/systemd/system ] && systemctl --quiet is-active monitor_myvnc.timer && exit 0; exec {PROGRAM} --quiet --config {CONFIG_FILE}
"
    )
}

/// logrotate(8) refuses a file that two patterns match, so a log of the manual's stem is dated or not by
/// its name: those of this century begin with `-20` and two digits.
fn logrotate() -> String {
    let stem = MANUAL_LOG_STEM;
    let hidden = stem.replace("/myvnc", "/.myvnc");
    let dated = "-20[0-9][0-9]*";
    format!(
        "\
# Rotates the logs of monitor_myvnc, and the output of the restart command beside
# them (*.restart.log). The server that it started may hold that file open, so files
# are copied and truncated, not replaced; owner, group and mode stay.
#
# If {LOG_DIR} belongs to a user other than root, add the line
# `su OWNER adm` to the first block. adm is the logs' group: logrotate 3.14 (RHEL 8,
# Ubuntu 20.04) fails with another one.
{}
{}
# A log for each day, such as {stem}-$(date +%Y%m%d).log, with its
# lock: removed 30 days after the last line.
{stem}{dated}.log
{hidden}{dated}.lock
{{
    daily
    minage 30
    rotate 0
    nocreate
    missingok
}}
",
        rotation(&format!("{LOG_DIR}/*.log")),
        rotation(&format!(
            "{stem}.log\n{stem}[!-]*.log\n{stem}-[!2]*.log\n{stem}-2.log\n{stem}-2[!0]*.log"
        )),
    )
}

fn rotation(logs: &str) -> String {
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
    copytruncate
}}
"
    )
}

fn service() -> String {
    format!(
        "\
[Unit]
Description=Check the MyVNC servers and restart those that do not respond
Documentation=man:monitor_myvnc(1) man:monitor_myvnc.toml(5)
After=network.target nss-lookup.target nss-user-lookup.target

[Service]
Type=oneshot
ExecStart={PROGRAM} --quiet --config {CONFIG_FILE}
# A server that the restart command starts stays in this unit's control group.
# With KillMode=process, systemd ends only the monitor: the server continues to
# run when a check ends and when this unit is stopped.
KillMode=process
# A run that leaves a server down (exit status 1), or a wrong configuration (2), makes
# this unit failed until a run succeeds, so that `systemctl --failed` lists it. A run
# that `systemctl stop` ends does not: it exits with 128 + SIGTERM. It first completes
# a restart that it has begun.
SuccessExitStatus=143
# The monitor writes its own log. What it writes to stderr goes to the journal as
# an error. LogLevelMax hides the warning that systemd would otherwise log at each
# check, because the server is left over in the control group.
SyslogLevel=err
LogLevelMax=err
#
# Restrictions. A server that the restart command starts, the commands that the
# server runs and desktops that it starts on this host inherit all of them. So only
# what none of these needs is forbidden. `systemd-analyze security
# monitor_myvnc.service` lists the rest. Not set, and why:
# - User=, the other capabilities: the monitor examines and signals processes of any
#   user (CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH, CAP_KILL), runs the restart command as
#   the server's owner (CAP_SETUID, CAP_SETGID, CAP_CHOWN), closes connections
#   (CAP_NET_ADMIN) and reads the kernel's log (CAP_SYSLOG, ProtectKernelLogs=). A
#   program with a file capability that is not in the set cannot be executed: ping,
#   gnome-keyring, kwin, powerdevil. podman makes device nodes (CAP_MKNOD).
# - NoNewPrivileges=, RestrictSUIDSGID=: sudo, fusermount, LSF's eauth; chmod g+s.
# - PrivateTmp=, ProtectSystem=, ProtectHome=, RootDirectory=: the X sockets in /tmp,
#   the server's files, home directories.
# - ProtectProc=, ProcSubset=, PrivateUsers=: the monitor finds processes of any user.
# - ProtectControlGroups=, RestrictNamespaces=: browsers' sandboxes, containers. (With
#   ProtectKernelTunables=, a container below the server cannot mount a /proc of its
#   own; jobs of the cluster's scheduler are not below the server.)
# - PrivateDevices=, DeviceAllow=, ProtectClock= (it restricts devices too): GPUs,
#   /dev/fuse.
# - PrivateNetwork=, IPAddressDeny=, ProtectHostname=: the server's network and host
#   name are the host's.
# - MemoryDenyWriteExecute=: just-in-time compilers, as in browsers and Java.
# - SystemCallArchitectures=: 32-bit programs. SystemCallFilter= of the other groups:
#   debuggers (dump-cmd too), FUSE, Wine, nice and ulimit.
# - UMask=: the server's files would get another mode.
LockPersonality=yes
RestrictRealtime=yes
CapabilityBoundingSet=~CAP_SYS_MODULE CAP_SYS_BOOT CAP_SYS_RAWIO CAP_SYS_TIME CAP_MAC_ADMIN CAP_MAC_OVERRIDE
CapabilityBoundingSet=~CAP_SYS_PACCT CAP_SYS_TTY_CONFIG CAP_LINUX_IMMUTABLE CAP_LEASE CAP_BLOCK_SUSPEND CAP_BPF
SystemCallFilter=~@clock @module @raw-io @reboot @swap
SystemCallErrorNumber=EPERM
# Packet capture, and old protocols whose sockets load kernel modules.
RestrictAddressFamilies=~AF_PACKET AF_AX25 AF_IPX AF_APPLETALK AF_NETROM AF_X25 AF_ROSE AF_LLC AF_PPPOX
# These need a mount namespace. Mounts of the host, autofs's too, appear in it; what
# the server or its desktops mount (FUSE) is not seen outside of it.
PrivateMounts=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
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
