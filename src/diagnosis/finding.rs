//! A cause as the diagnosing child hands it to the run: its kind, its sentence, who is to blame, and
//! what can be done about that without a restart.

use std::net::SocketAddr;

use serde::de::{Error, Unexpected};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::cause::catalog::{Cause, Culprit, CulpritKind, Kind, Waiter};
use super::phrase::Mentioned;
use super::snapshot::{Inspected, Snapshot, Wait};
use crate::text::{one_line, shortened};

/// A cause that was found. Its texts are printable and short, whatever names the users of the machine have chosen.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Finding {
    pub(crate) kind: Kind,
    /// The sentence.
    pub(crate) text: String,
    pub(crate) culprit: Option<Culprit>,
    /// What must change before a restart can help: a status, a disk's directory, else whom it names.
    pub(crate) subject: String,
    /// Whether no signal reaches the process: it is in state D, or waits for a network file system.
    pub(crate) is_stuck: bool,
    /// What the server's main thread, or its only one that waits for something with a name, waits for,
    /// if that could be ended without the server.
    pub(crate) blocker: Option<Blocker>,
}

/// What a thread of the server was seen to be blocked by.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum Blocker {
    /// One connection: the server reads from it or writes to it.
    Client {
        /// The server's process.
        pid: i32,
        /// The inode of the socket that its system call names.
        inode: u64,
        /// The server's end.
        local: SocketAddr,
        peer: SocketAddr,
    },
    /// A child whose output or end the server awaits, then the one that this child waits for, and so on.
    Child {
        /// The server's process.
        pid: i32,
        chain: Vec<Child>,
    },
}

/// A process that is waited for.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Child {
    pub(crate) pid: i32,
    /// When it was started, in clock ticks since boot.
    pub(crate) start_time: u64,
    /// The name of its program.
    pub(crate) name: String,
}

impl Finding {
    /// A cause in the snapshot that shows it.
    pub(super) fn of(cause: &Cause, snapshot: &Snapshot) -> Self {
        Self {
            blocker: blocker(cause, snapshot),
            ..Self::bare(cause)
        }
    }

    /// A cause without a blocker.
    pub(super) fn bare(cause: &Cause) -> Self {
        let subject = cause.subject();
        Self {
            kind: cause.kind(),
            text: one_line(&cause.to_string()),
            subject: match cause {
                // Later runs look at the disk of this directory.
                Cause::DiskFull { .. } => one_line(&subject),
                _ => name(&subject),
            },
            is_stuck: cause.is_stuck(),
            culprit: cause.culprit().map(|culprit| Culprit {
                name: name(&culprit.name),
                ..culprit
            }),
            blocker: None,
        }
    }
}

/// A name from outside, as it is shown and kept.
fn name(text: &str) -> String {
    shortened(one_line(text))
}

fn blocker(cause: &Cause, snapshot: &Snapshot) -> Option<Blocker> {
    let Cause::Waiting { waiter, .. } = cause else {
        return None;
    };
    let process = |pid| snapshot.processes.iter().find(|one| one.pid() == pid);
    let (process, wait) = match waiter {
        Waiter::Main { pid, .. } => {
            let process = process(*pid)?;
            (process, process.wait())
        }
        Waiter::Thread { pid, .. } => {
            let process = process(*pid)?;
            (process, only_decisive(process)?)
        }
    };
    match wait {
        Wait::Client {
            inode, local, peer, ..
        } => Some(Blocker::Client {
            pid: process.pid(),
            inode: *inode,
            local: *local,
            peer: *peer,
        }),
        Wait::Process { chain, .. } => {
            // A process of the server itself is not ended, and neither is one that cannot be examined: that
            // the server waits for it is then a guess.
            let is_server = |one: &Mentioned| {
                snapshot
                    .processes
                    .iter()
                    .any(|other| other.pid() == one.pid)
            };
            if chain.iter().any(|one| one.is_hidden || is_server(one)) {
                return None;
            }
            let chain = chain.iter().map(|one| Child {
                pid: one.pid,
                start_time: one.start_time,
                name: name(&one.program()),
            });
            Some(Blocker::Child {
                pid: process.pid(),
                chain: chain.collect(),
            })
        }
        _ => None,
    }
}

/// The wait of the one thread whose wait names something; none if several do.
fn only_decisive(process: &Inspected) -> Option<&Wait> {
    let waits = process.threads.iter().map(|thread| &thread.wait);
    let mut decisive = waits.filter(|wait| wait.is_decisive());
    decisive.next().filter(|_| decisive.next().is_none())
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.slug())
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let slug = String::deserialize(deserializer)?;
        Self::from_slug(&slug)
            .ok_or_else(|| D::Error::invalid_value(Unexpected::Str(&slug), &"the slug of a cause"))
    }
}

impl Serialize for CulpritKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.slug())
    }
}

impl<'de> Deserialize<'de> for CulpritKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let slug = String::deserialize(deserializer)?;
        Self::from_slug(&slug).ok_or_else(|| {
            D::Error::invalid_value(Unexpected::Str(&slug), &"the slug of a culprit")
        })
    }
}

impl Serialize for Culprit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.kind, &self.name).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Culprit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (kind, name) = Deserialize::deserialize(deserializer)?;
        Ok(Self { kind, name })
    }
}

#[cfg(test)]
mod tests {
    use super::super::cause::catalog::{Awaited, File};
    use super::*;

    #[test]
    fn a_path_that_a_user_has_chosen_stays_short_and_in_its_line() {
        let path = "/\u{1b}\u{202e}\n".repeat(1000);
        let file = File {
            operation: "reading".to_owned(),
            path,
            mount: None,
        };
        let waiting = Cause::Waiting {
            awaited: Awaited::File(file),
            waiter: Waiter::Main {
                pid: 7,
                is_in_state_d: false,
            },
        };
        let finding = Finding::bare(&waiting);
        let name = finding.culprit.as_ref().map(|one| one.name.as_str());
        let expected = format!("{}…", "/???".repeat(50));
        assert_eq!(name, Some(expected.as_str()));
        assert_eq!(finding.subject, expected);
        assert_eq!(finding.text, one_line(&finding.text));
        assert!(serde_json::to_string(&finding).unwrap_or_default().len() < 4000);
        // The disk of the directory is looked at again.
        let long = format!("/{}", "d".repeat(400));
        let full = Finding::bare(&Cause::DiskFull {
            directory: long.clone().into(),
            inodes: false,
        });
        assert_eq!(full.subject, long);
        assert_eq!(full.culprit.map(|one| one.name.chars().count()), Some(201));
    }

    #[test]
    fn a_finding_is_the_same_after_its_way_through_json() {
        let culprit = Culprit {
            kind: CulpritKind::Client,
            name: "10.0.0.7:51234".to_owned(),
        };
        let mut finding = Finding {
            kind: Kind::IdleClient,
            text: "a sentence".to_owned(),
            subject: "a subject".to_owned(),
            is_stuck: true,
            culprit: Some(culprit),
            blocker: Some(Blocker::Client {
                pid: 7,
                inode: 82,
                local: ([127, 0, 0, 1], 9143).into(),
                peer: ([10, 0, 0, 7], 51234).into(),
            }),
        };
        for kind in Kind::ALL {
            finding.kind = *kind;
            let json = serde_json::to_string(&finding).unwrap_or_default();
            assert!(
                json.contains(&format!("\"kind\":\"{}\"", kind.slug())),
                "{json}"
            );
            assert_eq!(serde_json::from_str(&json).ok(), Some(finding.clone()));
        }
        for kind in CulpritKind::ALL {
            let json = serde_json::to_string(&kind).unwrap_or_default();
            assert_eq!(serde_json::from_str(&json).ok(), Some(kind));
        }
        assert!(serde_json::from_str::<Kind>("\"nonsense\"").is_err());
        assert!(serde_json::from_str::<CulpritKind>("\"nonsense\"").is_err());
    }
}
