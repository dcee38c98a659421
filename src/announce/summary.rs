//! Each event in one line that reads well as the subject of a mail. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

/// What happened.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// Down, and healed by a restart.
    Restarted {
        /// How long it was away.
        away: Duration,
    },
    /// Down, and healed without one.
    Unwedged {
        /// How long it was away.
        away: Duration,
    },
    /// It is down.
    Failed {
        /// Whether a restart was made. Else nothing could be touched.
        was_restarted: bool,
    },
    /// It is down, and the restart waits.
    Held {
        /// Until when, as the log shows it.
        until: Option<String>,
        /// Why, unless the cause says so.
        why: Option<String>,
    },
    /// It is still down.
    Reminder {
        /// For how long.
        away: Duration,
        /// Until when the restart waits, if it does.
        until: Option<String>,
    },
    /// It answers again.
    Recovered {
        /// How long it was away.
        away: Duration,
        /// Who answers, or who has healed it.
        by: Option<String>,
    },
    /// It was restarted several times within an hour.
    Flapping {
        /// These restarts, by what they were blamed on.
        blamed: BTreeMap<String, u32>,
        /// Clients that blocked it again and again, and how often.
        clients: BTreeMap<String, usize>,
    },
    /// It is not restarted any more.
    Stable {
        /// The restarts before, by what they were blamed on.
        blamed: BTreeMap<String, u32>,
    },
    /// The certificate expires.
    Expiring {
        /// When, as a sentence.
        text: String,
    },
}

/// The event in one line. `cause`: the sentence of the first cause, or nothing.
pub(crate) fn summary(server: &str, what: &What, cause: &str) -> String {
    let is_over = matches!(
        what,
        What::Restarted { .. } | What::Unwedged { .. } | What::Recovered { .. }
    );
    let end = match cause {
        "" => String::new(),
        cause if is_over => format!("; cause: {cause}"),
        cause => format!(": {cause}"),
    };
    let until = |until: &Option<String>| {
        let until = until.as_ref();
        until.map_or_else(String::new, |until| format!(" until {until}"))
    };
    match what {
        What::Restarted { away } => {
            format!(
                "{server} was restarted after {} without an answer{end}",
                span(*away)
            )
        }
        What::Unwedged { away } => format!(
            "{server} was healed without a restart after {} without an answer{end}",
            span(*away)
        ),
        What::Failed {
            was_restarted: true,
        } => format!("{server} is down, and a restart did not help{end}"),
        What::Failed {
            was_restarted: false,
        } => format!("{server} is down, and nothing could be done about it{end}"),
        What::Held { until: time, why } => {
            let why = why.as_ref().map(|why| format!(" because {why}"));
            let why = why.unwrap_or_default();
            format!(
                "{server} is down, and its restart is held off{}{why}{end}",
                until(time)
            )
        }
        What::Reminder { away, until: None } => {
            format!("{server} is still down after {}{end}", span(*away))
        }
        What::Reminder { away, until: time } => format!(
            "{server} is still down after {}, and its restart is held off{}{end}",
            span(*away),
            until(time)
        ),
        What::Recovered { away, by } => {
            let by = by.as_ref().map(|by| format!(", {by}"));
            format!(
                "{server} answers again after {}{}{end}",
                span(*away),
                by.unwrap_or_default()
            )
        }
        What::Flapping { blamed, clients } => {
            let times = blamed.values().sum::<u32>();
            let clients = counts(clients);
            let clients = match clients.as_str() {
                "" => String::new(),
                clients => format!("; connections of the same client destroyed: {clients}"),
            };
            format!(
                "{server} is flapping, restarted {times} times within an hour: {}{clients}",
                counts(blamed)
            )
        }
        What::Stable { blamed } => {
            let times = blamed.values().sum::<u32>();
            let (before, s) = (counts(blamed), if times == 1 { "" } else { "s" });
            let before = match before.as_str() {
                "" => String::new(),
                before => format!(" after {times} restart{s}: {before}"),
            };
            format!("{server} is stable again{before}")
        }
        What::Expiring { text } => format!("{server}: {text}"),
    }
}

/// The most frequent first: `idle_client 10.1.2.3 (14), child bjobs (3)`.
fn counts<N: Copy + Ord + std::fmt::Display>(counts: &BTreeMap<String, N>) -> String {
    let mut counts: Vec<_> = counts.iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let counts = counts
        .iter()
        .map(|(what, count)| format!("{what} ({count})"));
    counts.collect::<Vec<_>>().join(", ")
}

/// A duration in a unit that suits it.
fn span(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAUSE: &str = "the server waits for a request of client 10.1.2.3:51234";

    fn says(what: &What, expected: &str) {
        let summary = summary("main", what, CAUSE);
        assert_eq!(summary, expected);
    }

    #[test]
    fn restarted() {
        let away = Duration::from_secs(74);
        says(
            &What::Restarted { away },
            "main was restarted after 74 s without an answer; \
             cause: the server waits for a request of client 10.1.2.3:51234",
        );
    }

    #[test]
    fn unwedged() {
        let away = Duration::from_secs(200);
        says(
            &What::Unwedged { away },
            "main was healed without a restart after 3 min without an answer; \
             cause: the server waits for a request of client 10.1.2.3:51234",
        );
    }

    #[test]
    fn failed() {
        says(
            &What::Failed {
                was_restarted: true,
            },
            "main is down, and a restart did not help: \
             the server waits for a request of client 10.1.2.3:51234",
        );
        says(
            &What::Failed {
                was_restarted: false,
            },
            "main is down, and nothing could be done about it: \
             the server waits for a request of client 10.1.2.3:51234",
        );
    }

    #[test]
    fn held() {
        let held = What::Held {
            until: Some("12:30".to_owned()),
            why: Some("the last 4 restarts did not help".to_owned()),
        };
        says(
            &held,
            "main is down, and its restart is held off until 12:30 because the last 4 restarts did not help: \
             the server waits for a request of client 10.1.2.3:51234",
        );
        let held = What::Held {
            until: None,
            why: None,
        };
        let full = summary("main", &held, "no space is left in /data");
        assert_eq!(
            full,
            "main is down, and its restart is held off: no space is left in /data"
        );
    }

    #[test]
    fn reminder() {
        let away = Duration::from_secs(28 * 3600 + 100);
        says(
            &What::Reminder { away, until: None },
            "main is still down after 28 h: the server waits for a request of client 10.1.2.3:51234",
        );
        let until = Some("12:30".to_owned());
        says(
            &What::Reminder { away, until },
            "main is still down after 28 h, and its restart is held off until 12:30: \
             the server waits for a request of client 10.1.2.3:51234",
        );
    }

    #[test]
    fn recovered() {
        let away = Duration::from_secs(21 * 60);
        let by = Some("served by PID 4711 of user myvnc, started 40 s ago".to_owned());
        says(
            &What::Recovered { away, by },
            "main answers again after 21 min, served by PID 4711 of user myvnc, started 40 s ago; \
             cause: the server waits for a request of client 10.1.2.3:51234",
        );
        let unknown = What::Recovered { away, by: None };
        assert_eq!(
            summary("main", &unknown, ""),
            "main answers again after 21 min"
        );
    }

    #[test]
    fn flapping_and_stable() {
        let blamed = BTreeMap::from([
            ("child bjobs".to_owned(), 1),
            ("idle_client 10.1.2.3".to_owned(), 2),
        ]);
        let clients = BTreeMap::from([("10.1.2.3".to_owned(), 5)]);
        let flapping = What::Flapping {
            blamed: blamed.clone(),
            clients,
        };
        assert_eq!(
            summary("main", &flapping, CAUSE),
            "main is flapping, restarted 3 times within an hour: idle_client 10.1.2.3 (2), child bjobs (1); \
             connections of the same client destroyed: 10.1.2.3 (5)"
        );
        assert_eq!(
            summary("main", &What::Stable { blamed }, ""),
            "main is stable again after 3 restarts: idle_client 10.1.2.3 (2), child bjobs (1)"
        );
    }

    #[test]
    fn expiring() {
        assert_eq!(
            summary(
                "main",
                &What::Expiring {
                    text: "The certificate expires in 14 days".to_owned(),
                },
                "",
            ),
            "main: The certificate expires in 14 days"
        );
    }
}
