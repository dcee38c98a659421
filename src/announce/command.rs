//! The notify command: run for one event, which it gets in its environment and as JSON on stdin.

use std::fmt;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};

use super::Announcement;
use crate::server::restart_command::missing_environment;
use crate::server::shell_command::{Keep, ShellCommand};
use crate::text::errno_text;

/// Time limit of the command, for all the events of one run.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);
/// Lines of its output that are logged, the last ones.
const LAST_LINES: usize = 5;

/// Why the command has not taken an event.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Failure {
    /// It could not be started, for this reason.
    NotStarted(String),
    /// It failed.
    Exited(Option<ExitStatus>),
    /// It did not end in this time.
    Late(Duration),
    /// The monitor was asked to stop, by this signal.
    Interrupted(&'static str),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted(reason) => write!(f, "it could not be started: {reason}"),
            Self::Exited(Some(status)) => match (status.code(), status.signal()) {
                (Some(code), _) => write!(f, "it exited with status {code}"),
                (None, signal) => {
                    write!(f, "it was ended by signal {}", signal.unwrap_or_default())
                }
            },
            Self::Exited(None) => f.write_str("its exit status is not known"),
            Self::Late(limit) => write!(
                f,
                "it did not end within {} s and was killed",
                limit.as_secs_f64().ceil()
            ),
            Self::Interrupted(signal) => write!(f, "it was killed because of {signal}"),
        }
    }
}

/// Hands an event to the command; what it said last, and why it has not taken the event, if so. `stop` ends it
/// before `limit`. The command line is the administrator's alone: nothing of the event is put into it.
pub(crate) async fn hand_over(
    command: &str,
    announcement: &Announcement,
    limit: Duration,
    stop: impl Future<Output = &'static str>,
) -> (Vec<String>, Result<(), Failure>) {
    let started = ShellCommand::start(command, Keep::Last, |shell| {
        shell.envs(missing_environment());
        shell.envs(environment(announcement));
        // From a file in memory: a command that does not read it blocks nobody. Without one, the environment
        // says the same.
        if let Ok(json) = json_file(announcement) {
            shell.stdin(json);
        }
    });
    let mut running = match started {
        Ok(running) => running,
        Err(reason) => {
            return (Vec::new(), Err(Failure::NotStarted(errno_text(&reason))));
        }
    };
    let killed = tokio::select! {
        () = running.ended() => None,
        () = tokio::time::sleep(limit) => Some(Failure::Late(limit)),
        signal = stop => Some(Failure::Interrupted(signal)),
    };
    if let Some(failure) = killed {
        return (last_lines(&running.end()), Err(failure));
    }
    let (status, said) = running.finish();
    let is_taken = status.is_some_and(|status| status.success());
    let taken = is_taken.then_some(()).ok_or(Failure::Exited(status));
    (last_lines(&said), taken)
}

/// The variables of an event. One without a value is empty.
fn environment(announcement: &Announcement) -> [(&'static str, String); 11] {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let number = |value: Option<u64>| value.map(|value| value.to_string()).unwrap_or_default();
    let since = announcement.since.map(|since| since.to_string());
    [
        ("MONITOR_MYVNC_EVENT", announcement.event.clone()),
        ("MONITOR_MYVNC_SERVER", announcement.server.clone()),
        ("MONITOR_MYVNC_HOST", announcement.host.clone()),
        ("MONITOR_MYVNC_URL", announcement.url.clone()),
        ("MONITOR_MYVNC_SUMMARY", announcement.summary.clone()),
        ("MONITOR_MYVNC_CAUSE", text(&announcement.cause)),
        ("MONITOR_MYVNC_CULPRIT", text(&announcement.culprit)),
        ("MONITOR_MYVNC_SINCE", since.unwrap_or_default()),
        (
            "MONITOR_MYVNC_AWAY_SECONDS",
            number(announcement.away_seconds),
        ),
        ("MONITOR_MYVNC_LOG", announcement.log.clone()),
        ("MONITOR_MYVNC_DEDUP_KEY", announcement.dedup_key.clone()),
    ]
}

/// The event as JSON, in a file that is only in memory.
fn json_file(announcement: &Announcement) -> io::Result<File> {
    let mut file = File::from(memfd_create("event", MemfdFlags::CLOEXEC)?);
    let mut json = serde_json::to_vec(announcement)?;
    json.push(b'\n');
    file.write_all(&json)?;
    file.rewind()?;
    Ok(file)
}

fn last_lines(said: &str) -> Vec<String> {
    let lines: Vec<&str> = said.lines().collect();
    let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
    last.iter().map(|line| (*line).to_owned()).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::future::pending;
    use std::time::Instant;

    use super::*;
    use crate::proc::process::{Proc, is_dead};

    fn event() -> Announcement {
        Announcement {
            event: "failed".to_owned(),
            server: "main".to_owned(),
            summary: "main is down; $(touch x) `y` \"z\" 'w'".to_owned(),
            away_seconds: Some(74),
            evidence: vec!["x".repeat(100_000)],
            ..Announcement::default()
        }
    }

    async fn ran(command: &str) -> (Vec<String>, Result<(), Failure>) {
        hand_over(command, &event(), LIMIT, pending()).await
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_event_is_in_the_environment_and_on_stdin() {
        let show = "echo \"$MONITOR_MYVNC_EVENT|$MONITOR_MYVNC_SUMMARY|$MONITOR_MYVNC_AWAY_SECONDS|\
                    $MONITOR_MYVNC_CAUSE|\"; head -c 32; cat >/dev/null";
        let (said, taken) = ran(show).await;
        assert_eq!(taken, Ok(()));
        let expected = format!("failed|{}|74||", event().summary);
        assert_eq!(said[0], expected);
        assert_eq!(said[1], r#"{"event":"failed","server":"main"#);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_command_that_does_not_take_an_event_is_said_to_have_failed() {
        for (command, expected) in [
            ("exit 3", "it exited with status 3"),
            ("kill -TERM $$", "it was ended by signal 15"),
            ("/no/such/notifier", "it exited with status 127"),
            ("exec <&-; echo unread; exit 1", "it exited with status 1"),
        ] {
            let (_, taken) = ran(command).await;
            assert_eq!(taken.unwrap_err().to_string(), expected, "{command}");
        }
        let (said, taken) = ran("for i in 1 2 3 4 5 6 7; do echo $i; done; exit 1").await;
        assert!(taken.is_err());
        assert_eq!(said, ["3", "4", "5", "6", "7"]);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_a_command_leaves_behind_is_not_waited_for() {
        let began = Instant::now();
        let (said, taken) = ran("sleep 30 & echo done").await;
        assert_eq!((said.len(), taken), (1, Ok(())));
        assert!(began.elapsed() < Duration::from_secs(20));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_signal_ends_the_command_and_its_children() {
        let soon = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            "SIGTERM"
        };
        let flood = "sleep 77.125 & yes & exec sleep 77.125";
        let (said, taken) = hand_over(flood, &event(), LIMIT, soon).await;
        assert_eq!(taken, Err(Failure::Interrupted("SIGTERM")));
        assert!(said.len() <= 5);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_grandchild_in_a_session_of_its_own_is_killed_too() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().display();
        let inner = format!(r"echo \$\$ >{path}; exec sleep 77.126");
        let apart = format!("sh -c \"setsid sh -c '{inner}' & wait\" & wait");
        let pid = || -> Option<i32> {
            std::fs::read_to_string(&file)
                .ok()?
                .strip_suffix('\n')?
                .parse()
                .ok()
        };
        let is_there = async {
            while pid().is_none() {
                tokio::task::yield_now().await;
            }
            "SIGTERM"
        };
        let (_, taken) = hand_over(&apart, &event(), LIMIT, is_there).await;
        assert_eq!(taken, Err(Failure::Interrupted("SIGTERM")));
        let pid = pid().unwrap();
        let began = Instant::now();
        while Proc::here().stat(pid).is_ok_and(|stat| !is_dead(&stat)) {
            assert!(began.elapsed() < LIMIT, "PID {pid} is still there");
            tokio::task::yield_now().await;
        }
    }
}
