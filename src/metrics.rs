//! The metrics of one server: their text, which is a pure function of values, and the file that the textfile
//! collector of the Prometheus node exporter reads.

use std::fmt::{Display, Write as _};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::diagnosis::Kind;
use crate::state::ledger::Totals;
use crate::state::time::Time;
use crate::sys::{bounded, cached};
use crate::text::errno_text;

/// What each name begins with.
const PREFIX: &str = "monitor_myvnc_";
/// Length limit of the server's name in the file's name, in bytes.
const LONGEST_NAME: usize = 200;
/// Mode of the file: the node exporter runs as a user of its own.
const MODE: u32 = 0o644;
/// Time limit of writing the file.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);

/// Until when something holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Until {
    /// It does not.
    Never,
    /// Until this time.
    At(Time),
    /// Without an end that is known.
    Open,
}

/// What the metrics of a server show.
#[derive(Clone, Debug)]
pub(crate) struct Metrics<'a> {
    /// The server's name.
    pub(crate) server: &'a str,
    /// Whether it answered the last check.
    pub(crate) is_up: bool,
    /// Status of the last answer; 0 where there was none.
    pub(crate) status: u16,
    /// How long the last check took.
    pub(crate) took: Duration,
    /// When the last check ended.
    pub(crate) checked: Time,
    /// When the server last answered, if that is known.
    pub(crate) healthy: Option<Time>,
    /// Counts; none where the state directory cannot be used. The series are left out then: counters that fall
    /// to 0 and come back would look like a burst of events.
    pub(crate) totals: Option<&'a Totals>,
    /// Seconds of the outage that goes on, which `totals` do not contain yet.
    pub(crate) away: u64,
    /// Until when restarts are held off.
    pub(crate) held: Until,
    /// Until when the server is paused.
    pub(crate) paused: Until,
    /// When its certificate expires, if it has one.
    pub(crate) expires: Option<Time>,
    /// Number of events that the notify command has not taken, if that can be read.
    pub(crate) pending: Option<usize>,
}

impl Metrics<'_> {
    /// The text (Prometheus' exposition formats, version 0.0.4). The help texts must not change: node_exporter
    /// reads the files of several versions and servers together, and drops series whose help differs.
    pub(crate) fn render(&self) -> String {
        let mut text = Text {
            text: String::with_capacity(8 << 10),
            server: escaped(self.server),
        };
        text.gauge(
            "up",
            "Whether the server answered the last health check (1) or not (0).",
            u8::from(self.is_up),
        );
        text.gauge(
            "http_status_code",
            "Status of the last answer; 0 where there was none.",
            self.status,
        );
        text.gauge(
            "check_duration_seconds",
            "Time that the last health check took.",
            format_args!("{:.6}", self.took.as_secs_f64()),
        );
        text.gauge(
            "last_check_timestamp_seconds",
            "When the last health check ended, in Unix time.",
            self.checked.0,
        );
        if let Some(healthy) = self.healthy {
            text.gauge(
                "last_healthy_timestamp_seconds",
                "When the server last answered, in Unix time.",
                healthy.0,
            );
        }
        if let Some(totals) = self.totals {
            self.counters(totals, &mut text);
        }
        text.gauge(
            "hold_until_timestamp_seconds",
            "Until when restarts are held off, in Unix time; 0 where they are not.",
            self.held,
        );
        text.gauge(
            "pause_until_timestamp_seconds",
            "Until when the server is paused, in Unix time; 0 where it is not.",
            self.paused,
        );
        if let Some(expires) = self.expires {
            text.gauge(
                "certificate_expiry_timestamp_seconds",
                "When the server's certificate expires, in Unix time.",
                expires.0,
            );
        }
        if let Some(pending) = self.pending {
            text.gauge(
                "notifications_pending",
                "Events that the notify command has not taken yet.",
                pending,
            );
        }
        text.family(
            "build_info",
            "gauge",
            "Version of monitor_myvnc that watches this server; always 1.",
        );
        text.sample(
            "build_info",
            Some(("version", env!("CARGO_PKG_VERSION"))),
            1,
        );
        text.text
    }

    fn counters(&self, totals: &Totals, text: &mut Text) {
        text.family(
            "incidents_total",
            "counter",
            "Times that the server stopped answering, by cause.",
        );
        for kind in Kind::ALL {
            let count = totals.incidents.get(kind.slug()).copied();
            let cause = ("cause", kind.slug());
            text.sample("incidents_total", Some(cause), count.unwrap_or_default());
        }
        text.family("restarts_total", "counter", "Restarts, by outcome.");
        for (outcome, count) in [
            ("answered", totals.restarts.answered),
            ("failed", totals.restarts.failed),
        ] {
            text.sample("restarts_total", Some(("outcome", outcome)), count);
        }
        text.counter(
            "unwedged_total",
            "Times that the server was healed without a restart.",
            totals.unwedged,
        );
        text.counter(
            "away_seconds_total",
            "Time that the server was away, in all.",
            totals.away_s.saturating_add(self.away),
        );
    }
}

impl Display for Until {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Never => f.write_str("0"),
            Self::At(time) => time.0.fmt(f),
            Self::Open => f.write_str("+Inf"),
        }
    }
}

struct Text {
    text: String,
    /// The server's name as the value of a label.
    server: String,
}

impl Text {
    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(name, None, value);
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "counter", help);
        self.sample(name, None, value);
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(
            self.text,
            "# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} {kind}\n"
        );
    }

    fn sample(&mut self, name: &str, label: Option<(&str, &str)>, value: impl Display) {
        let server = &self.server;
        let _ = write!(self.text, "{PREFIX}{name}{{server=\"{server}\"");
        if let Some((label, of)) = label {
            let _ = write!(self.text, ",{label}=\"{of}\"");
        }
        let _ = writeln!(self.text, "}} {value}");
    }
}

/// The value of a label: backslash, quote and newline are escaped.
fn escaped(value: &str) -> String {
    let mut text = String::new();
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
    text
}

/// The file of a server's metrics.
#[derive(Clone, Debug)]
pub(crate) struct MetricsFile {
    directory: PathBuf,
    name: String,
    /// The name under which it is written; the collector reads no file of another extension than `.prom`.
    temporary: String,
}

impl MetricsFile {
    /// The file of that server. A name has the characters of those in the configuration file; others, which a
    /// log's name can have, become `_`.
    pub(crate) fn new(directory: &Path, server: &str) -> Self {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let server = server.chars().take(LONGEST_NAME);
        let server: String = server.map(|c| if is_plain(c) { c } else { '_' }).collect();
        let name = format!("{PREFIX}{server}.prom");
        Self {
            directory: directory.to_owned(),
            temporary: format!(".{name}.tmp"),
            name,
        }
    }

    /// Its path.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.join(&self.name)
    }

    /// Replaces the file atomically. Done here if the file is in the page cache and on the disk of the log, whose device
    /// is `log`, or has no disk; else in a child process, which costs a third of a millisecond.
    ///
    /// # Errors
    /// It cannot be written, for this reason.
    pub(crate) async fn write(&self, text: &str, log: Option<u64>) -> Result<(), String> {
        if let Some(directory) = self.quick(log) {
            return self
                .replace(&directory, text)
                .map_err(|reason| errno_text(&reason));
        }
        let write = || {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let directory = rustix::fs::open(&self.directory, flags, Mode::empty())?;
            self.replace(directory, text)
        };
        bounded::on_disk(WRITE_TIMEOUT, write).await
    }

    /// The directory, if it holds the file already and replacing that one waits for no other disk than the log's.
    fn quick(&self, log: Option<u64>) -> Option<impl AsFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = cached::open(CWD, &self.directory, flags).ok()?;
        let file = cached::open(&directory, self.name.as_ref(), OFlags::RDONLY | SAFE).ok()?;
        cached::read(&file, &mut [0]).ok()?;
        let device = cached::device(&file)?;
        cached::writes_at_once(&file, device, log).then_some(directory)
    }

    /// Others may write to the directory: what has the temporary name there is removed, never written to.
    fn replace(&self, directory: impl AsFd, text: &str) -> io::Result<()> {
        let directory = directory.as_fd();
        let mode = Mode::from_raw_mode(MODE);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | SAFE;
        let open = || rustix::fs::openat(directory, &self.temporary, flags, mode);
        let remove = || rustix::fs::unlinkat(directory, &self.temporary, AtFlags::empty());
        let opened = match open() {
            Err(Errno::EXIST) => remove().and_then(|()| open()),
            opened => opened,
        };
        let mut file = File::from(opened?);
        let written = file.write_all(text.as_bytes()).and_then(|()| {
            // Whatever the umask is.
            rustix::fs::fchmod(&file, mode)?;
            rustix::fs::renameat(directory, &self.temporary, directory, &self.name)?;
            Ok(())
        });
        if written.is_err() {
            let _ = remove();
        }
        written
    }
}

/// Follow no link, wait for nobody at a FIFO, and pass nothing on to children.
const SAFE: OFlags = OFlags::NOFOLLOW
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn metrics(server: &str) -> Metrics<'_> {
        Metrics {
            server,
            is_up: true,
            status: 200,
            took: Duration::from_micros(12_345),
            checked: Time(1_764_052_868),
            healthy: None,
            totals: None,
            away: 0,
            held: Until::Never,
            paused: Until::Never,
            expires: None,
            pending: Some(0),
        }
    }

    #[test]
    fn each_value_is_a_sample_of_its_name() {
        let mut totals = Totals {
            unwedged: 3,
            away_s: 70,
            ..Totals::default()
        };
        totals.restarts.answered = 5;
        totals.restarts.failed = 2;
        totals.incidents.insert("idle_client".to_owned(), 4);
        totals.incidents.insert("of a newer version".to_owned(), 1);
        let text = Metrics {
            is_up: false,
            status: 0,
            healthy: Some(Time(7)),
            totals: Some(&totals),
            away: 6,
            held: Until::Open,
            paused: Until::At(Time(8)),
            expires: Some(Time(9)),
            pending: Some(1),
            ..metrics("main")
        }
        .render();
        for line in [
            "monitor_myvnc_up{server=\"main\"} 0",
            "monitor_myvnc_http_status_code{server=\"main\"} 0",
            "monitor_myvnc_check_duration_seconds{server=\"main\"} 0.012345",
            "monitor_myvnc_last_check_timestamp_seconds{server=\"main\"} 1764052868",
            "monitor_myvnc_last_healthy_timestamp_seconds{server=\"main\"} 7",
            "monitor_myvnc_incidents_total{server=\"main\",cause=\"idle_client\"} 4",
            "monitor_myvnc_incidents_total{server=\"main\",cause=\"unknown\"} 0",
            "monitor_myvnc_restarts_total{server=\"main\",outcome=\"answered\"} 5",
            "monitor_myvnc_restarts_total{server=\"main\",outcome=\"failed\"} 2",
            "monitor_myvnc_unwedged_total{server=\"main\"} 3",
            "monitor_myvnc_away_seconds_total{server=\"main\"} 76",
            "monitor_myvnc_hold_until_timestamp_seconds{server=\"main\"} +Inf",
            "monitor_myvnc_pause_until_timestamp_seconds{server=\"main\"} 8",
            "monitor_myvnc_certificate_expiry_timestamp_seconds{server=\"main\"} 9",
            "monitor_myvnc_notifications_pending{server=\"main\"} 1",
        ] {
            assert!(text.lines().any(|one| one == line), "{line}\n{text}");
        }
        assert_eq!(text.matches("incidents_total{").count(), Kind::ALL.len());
        assert!(text.ends_with("\"} 1\n"), "{text}");
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let unknown = Metrics {
            pending: None,
            ..metrics("main")
        };
        let text = unknown.render();
        for name in ["_total", "last_healthy", "certificate", "pending"] {
            assert!(!text.contains(name), "{text}");
        }
        assert!(text.contains("hold_until_timestamp_seconds{server=\"main\"} 0\n"));
    }

    #[test]
    fn a_name_cannot_end_its_label() {
        let text = metrics("a\"} 1\n\\é").render();
        assert!(
            text.contains("up{server=\"a\\\"} 1\\n\\\\é\"} 1\n"),
            "{text}"
        );
    }

    #[test]
    fn the_file_is_named_after_the_server() {
        let path = |server| MetricsFile::new(Path::new("/m"), server).path();
        assert_eq!(path("a-1.B_2"), Path::new("/m/monitor_myvnc_a-1.B_2.prom"));
        assert_eq!(path("../é x"), Path::new("/m/monitor_myvnc_..___x.prom"));
        let long = path(&"x".repeat(1000));
        assert!(long.file_name().unwrap().len() < 250);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_file_is_replaced_and_others_are_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let file = MetricsFile::new(directory.path(), "main");
        // What somebody else has put in its place: links to a file, and a FIFO.
        fs::write(at("other"), "other").unwrap();
        symlink(at("other"), at(&file.temporary)).unwrap();
        symlink(at("other"), file.path()).unwrap();
        let log = cached::device(fs::File::open(directory.path()).unwrap());
        for (text, log) in [("first", log), ("second", log), ("third", None)] {
            file.write(text, log).await.unwrap();
            assert_eq!(fs::read_to_string(file.path()).unwrap(), text);
            let metadata = fs::symlink_metadata(file.path()).unwrap();
            assert!(metadata.is_file());
            assert_eq!(metadata.permissions().mode() & 0o7777, MODE);
            let fifo = at(&file.temporary);
            assert!(!fs::exists(&fifo).unwrap());
            nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        }
        assert_eq!(fs::read_to_string(at("other")).unwrap(), "other");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_cannot_be_written_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let missing = MetricsFile::new(&directory.path().join("missing"), "main");
        let reason = missing.write("text", None).await.unwrap_err();
        assert_eq!(reason, "No such file or directory");
        let file = MetricsFile::new(directory.path(), "main");
        fs::create_dir(file.path()).unwrap();
        assert_eq!(
            file.write("text", None).await.unwrap_err(),
            "Is a directory"
        );
        let left = fs::read_dir(directory.path()).unwrap();
        assert_eq!(left.count(), 1);
    }
}
