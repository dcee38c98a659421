//! What of that which blocks the server may be ended without a restart: a pure function.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::proc::net::{takes, unmapped};
use crate::proc::sock_diag::Connection;

/// Acts in each `WINDOW` of an incident, at most.
const MOST_ACTS: usize = 8;
/// See `MOST_ACTS`.
const WINDOW: Duration = Duration::from_secs(5);
/// For so long nothing has moved on a connection that is ended after the first one of an incident. A client that
/// has just been accepted sends its next bytes after one round trip; and `MOST_ACTS` allow no more haste.
const LATER_STILL: Duration = Duration::from_millis(500);

/// Why something is not ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Refusal {
    /// The server is in another network namespace, or in one that cannot be read.
    OtherNetwork,
    /// The connection is gone, or its addresses are another socket's by now.
    Gone,
    /// One side has closed it.
    Closed,
    /// The server's end is not at an address where the server listens.
    OtherEnd { local: SocketAddr },
    /// Something has moved on it.
    Moved { ago: Duration, needed: Duration },
    /// The process has ended, or its PID is another's by now.
    Ended,
    /// It does not descend from the server.
    NotDescendant,
    /// It runs as another user than the server, or with another user's rights.
    OtherUser,
    /// It is too young.
    Young { age: Duration, needed: Duration },
    /// It was sent a signal already.
    Signalled,
}

impl Refusal {
    /// For how long it will be refused for this reason; none where that does not end.
    pub(crate) fn passes(&self) -> Option<Duration> {
        match self {
            Self::Moved { ago: since, needed } | Self::Young { age: since, needed } => {
                Some(needed.saturating_sub(*since))
            }
            // The next look shows what is there instead.
            Self::Gone | Self::Ended | Self::Closed | Self::Signalled => Some(Duration::ZERO),
            Self::OtherNetwork | Self::OtherEnd { .. } | Self::NotDescendant | Self::OtherUser => {
                None
            }
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherNetwork => f.write_str(
                "the server is in another network namespace, or in one that cannot be read",
            ),
            Self::Gone => f.write_str("the connection is gone"),
            Self::Closed => f.write_str("the connection is closed by one side"),
            Self::OtherEnd { local } => {
                write!(
                    f,
                    "the connection ends at {local}, where the server does not listen"
                )
            }
            Self::Moved { ago, needed } => write!(
                f,
                "the connection was used {:.1} s ago, and must be unused for {:.1} s",
                ago.as_secs_f32(),
                needed.as_secs_f32()
            ),
            Self::Ended => f.write_str("the child has ended"),
            Self::NotDescendant => f.write_str("the process is no descendant of the server"),
            Self::OtherUser => f.write_str("the child runs as another user than the server"),
            Self::Young { age, needed } => write!(
                f,
                "the child runs for {:.1} s, and must run for {:.1} s",
                age.as_secs_f32(),
                needed.as_secs_f32()
            ),
            Self::Signalled => f.write_str("the child was sent SIGTERM, and does not end"),
        }
    }
}

/// Whether the server's end of a connection may be ended. `inode`: that of the socket which the server's system
/// call names. `listener`: where the server listens. `needed`: the least time without data on the connection.
pub(crate) fn may_destroy(
    connection: Option<&Connection>,
    inode: u64,
    listener: SocketAddr,
    is_same_network: bool,
    needed: Duration,
) -> Result<&Connection, Refusal> {
    if !is_same_network {
        return Err(Refusal::OtherNetwork);
    }
    let connection = connection.ok_or(Refusal::Gone)?;
    if inode == 0 || connection.inode != inode {
        return Err(Refusal::Gone);
    }
    let local = unmapped(connection.local);
    if local.port() != listener.port() || !takes(listener.ip(), &[local.ip()]) {
        return Err(Refusal::OtherEnd { local });
    }
    if !connection.is_established {
        return Err(Refusal::Closed);
    }
    let ago = connection.still();
    if ago < needed {
        return Err(Refusal::Moved { ago, needed });
    }
    Ok(connection)
}

/// A child in the chain of those that wait for each other.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Descendant {
    /// Effective user ID; none where the process has ended.
    pub(crate) uid: Option<u32>,
    /// Whether a setuid program gave it its rights.
    pub(crate) is_setuid: bool,
    /// Whether the server is its parent, or its parent's parent, and so on.
    pub(crate) descends: bool,
    /// How long it has run.
    pub(crate) age: Duration,
    /// Whether it was sent a signal before.
    pub(crate) is_signalled: bool,
}

/// Which child of a chain may be ended: the last one that the rule allows. The reason is that of the last one.
pub(crate) fn may_end(
    chain: &[Descendant],
    server_uid: u32,
    needed: Duration,
) -> Result<usize, Refusal> {
    let judged = chain
        .iter()
        .map(|child| judge(child, server_uid, needed))
        .enumerate();
    let mut first_reason = Refusal::Ended;
    for (number, judgement) in judged.rev() {
        match judgement {
            Ok(()) => return Ok(number),
            // Nothing above it is to be ended while it has not had its time to end.
            Err(Refusal::Signalled) => return Err(Refusal::Signalled),
            Err(reason) if number + 1 == chain.len() => first_reason = reason,
            Err(_) => (),
        }
    }
    Err(first_reason)
}

fn judge(child: &Descendant, server_uid: u32, needed: Duration) -> Result<(), Refusal> {
    let uid = child.uid.ok_or(Refusal::Ended)?;
    if !child.descends {
        return Err(Refusal::NotDescendant);
    }
    if uid != server_uid || child.is_setuid {
        return Err(Refusal::OtherUser);
    }
    if child.is_signalled {
        return Err(Refusal::Signalled);
    }
    if child.age < needed {
        return Err(Refusal::Young {
            age: child.age,
            needed,
        });
    }
    Ok(())
}

/// The acts of one incident, as times since its begin.
#[derive(Clone, Debug, Default)]
pub(crate) struct Acts(Vec<Duration>);

impl Acts {
    /// How many there were.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether another one is allowed now.
    pub(crate) fn allows(&self, now: Duration) -> bool {
        let window = |time: Duration| time.as_secs() / WINDOW.as_secs();
        let in_window = |time: &&Duration| window(**time) == window(now);
        self.0.iter().filter(in_window).count() < MOST_ACTS
    }

    /// Notes one.
    pub(crate) fn note(&mut self, now: Duration) {
        self.0.push(now);
    }

    /// For how long nothing may have moved on the next connection. The first one is as old as the hang. One that
    /// comes after it may be young, and is then ended only if it blocks the server at two looks.
    pub(crate) fn needed(&self, timeout: Duration, was_seen: bool) -> Duration {
        if self.0.is_empty() || !was_seen {
            timeout
        } else {
            LATER_STILL.min(timeout)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    fn connection(local: &str, still: u64) -> Connection {
        let since = Duration::from_secs(still);
        Connection {
            local: address(local),
            peer: ([10, 0, 0, 7], 51234).into(),
            is_established: true,
            inode: 82,
            cookie: 5,
            since_received: since,
            since_sent: since,
            since_acknowledged: since,
            is_retransmitting: false,
        }
    }

    #[allow(clippy::unwrap_used)]
    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn only_the_servers_own_still_connection_is_ended() {
        let judged = |connection: Option<&Connection>, inode, listener: &str, is_same| {
            may_destroy(connection, inode, address(listener), is_same, TIMEOUT).map(|_| ())
        };
        let ours = connection("10.0.0.1:9143", 74);
        for listener in ["0.0.0.0:9143", "[::]:9143", "10.0.0.1:9143"] {
            assert_eq!(
                judged(Some(&ours), 82, listener, true),
                Ok(()),
                "{listener}"
            );
        }
        let mapped = connection("[::ffff:10.0.0.1]:9143", 74);
        assert_eq!(judged(Some(&mapped), 82, "[::]:9143", true), Ok(()));
        // Its addresses are another socket's by now, or it is not accepted.
        for inode in [81, 0] {
            let refused = judged(Some(&ours), inode, "0.0.0.0:9143", true);
            assert_eq!(refused, Err(Refusal::Gone));
        }
        assert_eq!(judged(None, 82, "0.0.0.0:9143", true), Err(Refusal::Gone));
        let refused = judged(Some(&ours), 82, "0.0.0.0:9143", false);
        assert_eq!(refused, Err(Refusal::OtherNetwork));
        // An outgoing connection, and one to another address or port.
        for (local, listener) in [
            ("10.0.0.1:40000", "0.0.0.0:9143"),
            ("10.0.0.2:9143", "10.0.0.1:9143"),
            ("[::1]:9143", "127.0.0.1:9143"),
        ] {
            let other = connection(local, 74);
            let refused = judged(Some(&other), 82, listener, true);
            assert_eq!(
                refused,
                Err(Refusal::OtherEnd {
                    local: address(local)
                })
            );
        }
        let closed = Connection {
            is_established: false,
            ..ours.clone()
        };
        assert_eq!(
            judged(Some(&closed), 82, "0.0.0.0:9143", true),
            Err(Refusal::Closed)
        );
        let used = connection("10.0.0.1:9143", 29);
        let refused = judged(Some(&used), 82, "0.0.0.0:9143", true);
        assert_eq!(
            refused.map_err(|reason| reason.passes()),
            Err(Some(Duration::from_secs(1)))
        );
        let still = connection("10.0.0.1:9143", 30);
        assert_eq!(judged(Some(&still), 82, "0.0.0.0:9143", true), Ok(()));
    }

    #[test]
    fn each_refusal_says_why_and_for_how_long() {
        let (past, needed) = (Duration::from_millis(29_500), TIMEOUT);
        let local = address("10.0.0.2:40000");
        let (half, now) = (Some(Duration::from_millis(500)), Some(Duration::ZERO));
        for (refusal, passes, says) in [
            (Refusal::OtherNetwork, None, "network namespace"),
            (Refusal::Gone, now, "is gone"),
            (Refusal::Closed, now, "closed by one side"),
            (Refusal::OtherEnd { local }, None, "ends at 10.0.0.2:40000"),
            (
                Refusal::Moved { ago: past, needed },
                half,
                "used 29.5 s ago, and must be unused for 30.0 s",
            ),
            (Refusal::Ended, now, "the child has ended"),
            (Refusal::NotDescendant, None, "no descendant"),
            (Refusal::OtherUser, None, "another user"),
            (
                Refusal::Young { age: past, needed },
                half,
                "runs for 29.5 s, and must run for 30.0 s",
            ),
            (Refusal::Signalled, now, "was sent SIGTERM"),
        ] {
            assert_eq!(refusal.passes(), passes, "{refusal:?}");
            assert!(refusal.to_string().contains(says), "{refusal}");
        }
    }

    fn child(age: u64) -> Descendant {
        Descendant {
            uid: Some(1000),
            is_setuid: false,
            descends: true,
            age: Duration::from_secs(age),
            is_signalled: false,
        }
    }

    #[test]
    fn the_last_child_of_the_servers_own_that_is_old_enough_is_ended() {
        let judged = |chain: &[Descendant]| may_end(chain, 1000, TIMEOUT);
        let root = || Descendant {
            uid: Some(0),
            ..child(80)
        };
        let setuid = || Descendant {
            is_setuid: true,
            ..child(80)
        };
        let stranger = || Descendant {
            descends: false,
            ..child(80)
        };
        let ended = || Descendant {
            uid: None,
            ..child(80)
        };
        let signalled = || Descendant {
            is_signalled: true,
            ..child(80)
        };
        let young = Refusal::Young {
            age: Duration::from_secs(29),
            needed: TIMEOUT,
        };
        for (chain, expected) in [
            (vec![child(80)], Ok(0)),
            (vec![child(30)], Ok(0)),
            (vec![child(80), child(80)], Ok(1)),
            (vec![child(80), child(29)], Ok(0)),
            (vec![child(80), root()], Ok(0)),
            (vec![child(80), stranger()], Ok(0)),
            (vec![child(29)], Err(young)),
            (vec![root()], Err(Refusal::OtherUser)),
            (vec![setuid()], Err(Refusal::OtherUser)),
            (vec![stranger()], Err(Refusal::NotDescendant)),
            (vec![root(), ended()], Err(Refusal::Ended)),
            (vec![child(80), signalled()], Err(Refusal::Signalled)),
            (vec![], Err(Refusal::Ended)),
        ] {
            assert_eq!(judged(&chain), expected, "{chain:?}");
        }
    }

    #[test]
    fn eight_acts_are_allowed_in_each_five_seconds() {
        let mut acts = Acts::default();
        assert_eq!(acts.needed(TIMEOUT, true), TIMEOUT);
        let at = Duration::from_millis;
        for number in 0..8 {
            assert!(acts.allows(at(number * 100)));
            acts.note(at(number * 100));
        }
        assert_eq!((acts.count(), acts.needed(TIMEOUT, true)), (8, LATER_STILL));
        assert_eq!(acts.needed(TIMEOUT, false), TIMEOUT);
        assert_eq!(acts.needed(at(200), true), at(200));
        assert!(!acts.allows(at(4_999)) && acts.allows(at(5_000)));
    }
}
