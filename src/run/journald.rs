//! The part of a run that writes its events to the systemd journal, as records with fields of their own
//! (systemd.journal-fields(7)). Without journald nothing happens.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use clap::ValueEnum;
use log::{Level, Record};
use systemd_journal_logger::JournalLog;

use super::Run;
use crate::announce::Announcement;
use crate::diagnosis::Kind;
use crate::notice::Notice;
use crate::sys::bounded;
use crate::text::one_line;

/// Where journald takes records (its native protocol).
const SOCKET: &str = "/run/systemd/journal/socket";
/// Severity of each record, PRIORITY=3. journald drops what is less severe than `LogLevelMax=` of the sender's unit
/// (systemd.exec(5)), and that of monitor_myvnc.service is `err`.
const LEVEL: Level = Level::Error;
/// Time limit of writing all records of a run.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

impl Run<'_> {
    /// Writes what is to be announced to the journal.
    pub(super) async fn write_to_journald(&self) {
        if !self.settings.journal || self.announcements.is_empty() {
            return;
        }
        let announcements = self.announcements.clone();
        // Not in a child process: journald reads in /proc what the sender is.
        bounded::in_thread(WRITE_TIMEOUT, move || {
            for announcement in &announcements {
                if is_ready() {
                    let _ = write(announcement);
                }
            }
        })
        .await;
    }
}

/// Whether journald takes records at the moment. The crate would wait as long as its socket is full.
fn is_ready() -> bool {
    let asked = UnixDatagram::unbound().and_then(|socket| {
        socket.set_nonblocking(true)?;
        // journald ignores an empty record.
        socket.send_to(&[], SOCKET)
    });
    asked.is_ok()
}

fn write(announcement: &Announcement) -> std::io::Result<()> {
    let Ok(notice) = Notice::from_str(&announcement.event, false) else {
        return Ok(());
    };
    let mut log = JournalLog::empty()?.with_syslog_identifier(env!("CARGO_PKG_NAME").to_owned());
    for (name, value) in fields(notice, announcement) {
        log = log.add_extra_field(name, one_line(&value));
    }
    let record = &mut Record::builder();
    record.level(LEVEL).target(env!("CARGO_PKG_NAME"));
    log.journal_send(
        &record
            .args(format_args!("{}", one_line(&announcement.summary)))
            .build(),
    )
}

/// The fields that are ours. The message catalog shows MYVNC_MEANING and MYVNC_ADVICE.
fn fields(notice: Notice, announcement: &Announcement) -> Vec<(&'static str, String)> {
    let cause = announcement.cause.as_deref();
    let entry = cause.map(|cause| Kind::from_slug(cause).unwrap_or(Kind::Unknown).entry());
    let away = announcement.away_seconds;
    let filled = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let fields = [
        ("MESSAGE_ID", Some(notice.message_id().to_owned())),
        ("MYVNC_EVENT", Some(notice.slug().to_owned())),
        ("MYVNC_SERVER", Some(announcement.server.clone())),
        ("MYVNC_URL", filled(&announcement.url)),
        ("MYVNC_LOG", filled(&announcement.log)),
        ("MYVNC_CAUSE", cause.map(str::to_owned)),
        ("MYVNC_CULPRIT", announcement.culprit.clone()),
        (
            "MYVNC_AWAY_USEC",
            away.map(|away| away.saturating_mul(1_000_000).to_string()),
        ),
        ("MYVNC_MEANING", entry.map(|entry| entry.meaning.to_owned())),
        ("MYVNC_ADVICE", entry.map(|entry| entry.advice.to_owned())),
    ];
    let fields = fields.into_iter();
    fields
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Longest field that the message catalog takes in, in bytes with its name (REPLACE_VAR_MAX in systemd's
    /// sd-journal.c).
    const LONGEST: usize = 256;

    #[test]
    fn the_catalog_takes_in_what_each_cause_means() {
        for kind in Kind::ALL {
            let announcement = Announcement {
                cause: Some(kind.slug().to_owned()),
                ..Announcement::default()
            };
            for (name, value) in fields(Notice::Failed, &announcement) {
                let field = format!("{name}={value}");
                assert!(field.len() <= LONGEST, "{field}");
                assert_eq!(one_line(&value), value);
            }
        }
    }
}
