//! The message catalog of the systemd journal (<https://systemd.io/CATALOG>): what `journalctl -x` shows below
//! each event. Words between @ stand for fields of the record.

use clap::ValueEnum;

use crate::notice::Notice;

/// What the cause is, as its record explains it.
const CAUSE: &str = "\
Cause: @MYVNC_CAUSE@. @MYVNC_MEANING@

What to do: @MYVNC_ADVICE@

";
/// Where there is more.
const MORE: &str = "\
The log @MYVNC_LOG@ has the details; monitor_myvnc(1) explains each line.
";

/// The catalog.
pub(crate) fn text() -> String {
    let entries = Notice::value_variants().iter().map(|notice| {
        let (subject, meaning, has_cause) = entry(*notice);
        let cause = if has_cause { CAUSE } else { "" };
        format!(
            "
-- {}
Subject: {subject}
Defined-By: monitor_myvnc
Documentation: man:monitor_myvnc(1)

{meaning}

{cause}{MORE}",
            notice.message_id()
        )
    });
    let head = "# What monitor_myvnc writes to the systemd journal, for journalctl -x.\n";
    std::iter::once(head.to_owned()).chain(entries).collect()
}

/// The subject of an event, what it means, and whether it has a cause.
fn entry(notice: Notice) -> (&'static str, &'static str, bool) {
    match notice {
        Notice::Restarted => (
            "MyVNC server @MYVNC_SERVER@ was restarted, and responds",
            "The server did not respond. monitor_myvnc stopped and started it; it responds again.",
            true,
        ),
        Notice::Unwedged => (
            "MyVNC server @MYVNC_SERVER@ responds again, without a restart",
            "The server did not respond. monitor_myvnc ended the connection or the child\nprocess that blocked it; the server responds again, and was not restarted.",
            true,
        ),
        Notice::Failed => (
            "MyVNC server @MYVNC_SERVER@ does not respond",
            "The server does not respond. A restart did not help, or the monitor could not restart it.\nEach further run of monitor_myvnc checks it, and restarts it unless restarts are held off.",
            true,
        ),
        Notice::Held => (
            "MyVNC server @MYVNC_SERVER@ does not respond, and its restart is held off",
            "The server does not respond, and restarts are held off. The log says why and until\nwhen. To restart at the next run: monitor_myvnc resume @MYVNC_SERVER@",
            true,
        ),
        Notice::Reminder => (
            "MyVNC server @MYVNC_SERVER@ still does not respond",
            "The server has not responded since it was announced as failed or held. monitor_myvnc status\nshows until when restarts are held off.",
            true,
        ),
        Notice::Recovered => (
            "MyVNC server @MYVNC_SERVER@ responds again",
            "The server responds again, after it was announced as failed or held.",
            true,
        ),
        Notice::Flapping => (
            "MyVNC server @MYVNC_SERVER@ hangs again and again",
            "Three restarts within an hour worked. Further ones are not\nannounced until the server has responded for 30 minutes. To see what they have in\ncommon: monitor_myvnc history --by culprit",
            true,
        ),
        Notice::Stable => (
            "MyVNC server @MYVNC_SERVER@ is stable again",
            "The server has responded for 30 minutes.",
            false,
        ),
        Notice::Expiring => (
            "The certificate of MyVNC server @MYVNC_SERVER@ expires soon",
            "Renew the certificate: when it has expired, browsers refuse the server, and\nmonitor_myvnc counts it as down.",
            false,
        ),
    }
}
