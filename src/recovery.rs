//! What to do next: a pure function of what was seen, total over its inputs.
//!
//! A run goes down this list, and each arrow is a row of the test at the end:
//! check → reserve the target → survey → terminate → kill → start → finish.

/// What the settings say about the course of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    /// What the run is for.
    pub(crate) purpose: Purpose,
    /// Further checks before the server counts as down.
    pub(crate) retries: u32,
}

/// What a run is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Purpose {
    /// To restart a server that does not answer.
    Heal,
    /// To say what would be done to it (`--dry-run`).
    Rehearse,
    /// To look at it, whether it answers or not (`--collect-diagnostics`).
    Collect,
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Phase {
    /// Asking the server, after so many checks that failed.
    Checking {
        /// Failed checks so far.
        failed: u32,
    },
    /// The server is down: taking the lock of the target.
    Reserving,
    /// Another run has restarted the server since we asked it: asking again.
    Rechecking,
    /// Looking for processes to stop and at the command to run.
    Surveying,
    /// SIGTERM is sent. From here on the server is owed a start.
    Terminating,
    /// SIGKILL is sent.
    Killing,
    /// The restart command runs or has succeeded; the server does not answer yet.
    Starting,
    /// The restart command failed: asking the server a last time.
    Confirming,
    /// Nothing is left to do.
    Finished,
}

/// What was seen in that phase.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Event {
    /// A check ended healthy.
    Answers,
    /// A check did not.
    Silent,
    /// The target lock is ours.
    Reserved,
    /// The target lock is ours, and another run had it since our check began.
    ReservedLate,
    /// Another run holds the target lock.
    Busy,
    /// The lock, /proc, a process or the restart command cannot be used, as was logged.
    Unable,
    /// There are processes to stop.
    Running,
    /// There are none.
    Absent,
    /// All processes have ended.
    AllEnded,
    /// The restart command ended with exit status 0.
    CommandSucceeded,
    /// The restart command could not be run, or failed.
    CommandFailed,
    /// The time for this phase is over.
    Expired,
    /// SIGTERM, SIGINT or SIGHUP came for us.
    Interrupted,
}

/// What to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Action {
    /// Ask the server.
    Check,
    /// Ask the server after the retry delay.
    CheckLater,
    /// Take the target lock.
    Reserve,
    /// Look for processes, permissions and the command.
    Survey,
    /// Send SIGTERM.
    Terminate,
    /// Send SIGKILL.
    Kill,
    /// Run the restart command.
    Start,
    /// Wait for the next event of this phase.
    Wait,
    /// End the run.
    Finish(Outcome),
}

/// How a run ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    /// The server answers.
    Healthy,
    /// It did not, and does again.
    Restarted,
    /// Another run is restarting it.
    SteppedAside,
    /// It is down, and nothing could be done.
    Untouched,
    /// Nothing was to be done but to look.
    Looked,
    /// A process outlived SIGKILL; nothing was started.
    Unkillable,
    /// The restart command failed.
    CommandFailed,
    /// The server did not answer in time.
    NoAnswer,
    /// We were told to stop, before anything was done.
    Interrupted,
    /// We were told to stop, and have started the server first.
    InterruptedAfterStart,
}

impl Outcome {
    /// The exit status for it.
    pub(crate) fn is_success(self) -> bool {
        matches!(
            self,
            Self::Healthy | Self::Restarted | Self::SteppedAside | Self::Looked
        )
    }
}

/// The first phase and action of a run.
pub(crate) const BEGINNING: (Phase, Action) = (Phase::Checking { failed: 0 }, Action::Check);

/// The next phase and action. `told_to_stop`: whether an `Interrupted` came so far.
pub(crate) fn decide(
    policy: Policy,
    phase: Phase,
    event: Event,
    told_to_stop: bool,
) -> (Phase, Action) {
    use Event as E;
    use Phase as P;
    let finish = |outcome| (P::Finished, Action::Finish(outcome));
    match (phase, event) {
        (P::Checking { .. } | P::Reserving | P::Rechecking | P::Surveying, _) if told_to_stop => {
            finish(Outcome::Interrupted)
        }

        (P::Checking { .. }, E::Answers) if policy.purpose == Purpose::Collect => {
            (P::Surveying, Action::Survey)
        }
        (P::Checking { .. } | P::Rechecking, E::Answers) => finish(Outcome::Healthy),
        (P::Checking { failed }, E::Silent) if failed < policy.retries => {
            (P::Checking { failed: failed + 1 }, Action::CheckLater)
        }
        (P::Checking { .. }, E::Silent) if policy.purpose != Purpose::Heal => {
            (P::Surveying, Action::Survey)
        }
        (P::Checking { .. }, E::Silent) => (P::Reserving, Action::Reserve),
        (P::Surveying, E::Running | E::Absent) if policy.purpose != Purpose::Heal => {
            finish(Outcome::Looked)
        }

        (P::Reserving, E::Reserved) => (P::Surveying, Action::Survey),
        (P::Reserving, E::ReservedLate) => (P::Rechecking, Action::Check),
        (P::Reserving, E::Busy) => finish(Outcome::SteppedAside),
        (P::Rechecking, E::Silent) => (P::Surveying, Action::Survey),

        (P::Surveying, E::Answers) => finish(Outcome::Healthy),
        (P::Surveying, E::Running) => (P::Terminating, Action::Terminate),
        (P::Surveying, E::Absent) => (P::Starting, Action::Start),

        (P::Terminating, E::Expired) => (P::Killing, Action::Kill),
        (P::Terminating | P::Killing, E::AllEnded) => (P::Starting, Action::Start),
        (P::Killing, E::Expired) => finish(Outcome::Unkillable),

        (P::Starting | P::Confirming, E::Answers) if told_to_stop => {
            finish(Outcome::InterruptedAfterStart)
        }
        (P::Starting | P::Confirming, E::Answers) => finish(Outcome::Restarted),
        (P::Starting, E::CommandSucceeded) if told_to_stop => {
            finish(Outcome::InterruptedAfterStart)
        }
        (P::Starting, E::CommandFailed) => (P::Confirming, Action::Check),
        (P::Starting, E::Expired) => finish(Outcome::NoAnswer),
        (P::Confirming, E::Silent) => finish(Outcome::CommandFailed),

        // Once the server was signalled it is owed a start: a request to stop waits for it.
        (P::Terminating | P::Killing | P::Starting | P::Confirming, _) => (phase, Action::Wait),

        (P::Checking { .. } | P::Reserving | P::Rechecking | P::Surveying | P::Finished, _) => {
            finish(Outcome::Untouched)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Action as A;
    use super::Event as E;
    use super::Outcome as O;
    use super::Phase as P;
    use super::*;

    const PHASES: [P; 9] = [
        P::Checking { failed: 0 },
        P::Checking { failed: 2 },
        P::Reserving,
        P::Rechecking,
        P::Surveying,
        P::Terminating,
        P::Killing,
        P::Starting,
        P::Confirming,
    ];
    const EVENTS: [E; 13] = [
        E::Answers,
        E::Silent,
        E::Reserved,
        E::ReservedLate,
        E::Busy,
        E::Unable,
        E::Running,
        E::Absent,
        E::AllEnded,
        E::CommandSucceeded,
        E::CommandFailed,
        E::Expired,
        E::Interrupted,
    ];
    const POLICY: Policy = Policy {
        purpose: Purpose::Heal,
        retries: 2,
    };

    fn is_owed_a_start(phase: P) -> bool {
        matches!(
            phase,
            P::Terminating | P::Killing | P::Starting | P::Confirming
        )
    }

    #[test]
    fn a_run_goes_as_the_manual_says() {
        let finish = |outcome| (P::Finished, A::Finish(outcome));
        let table = [
            (P::Checking { failed: 0 }, E::Answers, finish(O::Healthy)),
            (
                P::Checking { failed: 0 },
                E::Silent,
                (P::Checking { failed: 1 }, A::CheckLater),
            ),
            (P::Checking { failed: 1 }, E::Answers, finish(O::Healthy)),
            (
                P::Checking { failed: 1 },
                E::Silent,
                (P::Checking { failed: 2 }, A::CheckLater),
            ),
            (
                P::Checking { failed: 2 },
                E::Silent,
                (P::Reserving, A::Reserve),
            ),
            (P::Reserving, E::Reserved, (P::Surveying, A::Survey)),
            (P::Reserving, E::ReservedLate, (P::Rechecking, A::Check)),
            (P::Reserving, E::Busy, finish(O::SteppedAside)),
            (P::Reserving, E::Unable, finish(O::Untouched)),
            (P::Rechecking, E::Answers, finish(O::Healthy)),
            (P::Rechecking, E::Silent, (P::Surveying, A::Survey)),
            (P::Surveying, E::Answers, finish(O::Healthy)),
            (P::Surveying, E::Running, (P::Terminating, A::Terminate)),
            (P::Surveying, E::Absent, (P::Starting, A::Start)),
            (P::Surveying, E::Unable, finish(O::Untouched)),
            (P::Terminating, E::AllEnded, (P::Starting, A::Start)),
            (P::Terminating, E::Expired, (P::Killing, A::Kill)),
            (P::Killing, E::AllEnded, (P::Starting, A::Start)),
            (P::Killing, E::Expired, finish(O::Unkillable)),
            (P::Starting, E::Answers, finish(O::Restarted)),
            (P::Starting, E::CommandSucceeded, (P::Starting, A::Wait)),
            (P::Starting, E::CommandFailed, (P::Confirming, A::Check)),
            (P::Starting, E::Expired, finish(O::NoAnswer)),
            (P::Confirming, E::Answers, finish(O::Restarted)),
            (P::Confirming, E::Silent, finish(O::CommandFailed)),
        ];
        for (phase, event, expected) in table {
            assert_eq!(
                decide(POLICY, phase, event, false),
                expected,
                "{phase:?} {event:?}"
            );
        }
    }

    #[test]
    fn a_run_that_only_looks_touches_nothing() {
        for purpose in [Purpose::Rehearse, Purpose::Collect] {
            let policy = Policy { purpose, ..POLICY };
            for phase in PHASES.into_iter().filter(|phase| !is_owed_a_start(*phase)) {
                for event in EVENTS {
                    let (_, action) = decide(policy, phase, event, false);
                    let touches = matches!(action, A::Terminate | A::Kill | A::Start);
                    assert!(!touches, "{purpose:?} {phase:?} {event:?}");
                }
            }
            for event in [E::Running, E::Absent] {
                let (_, action) = decide(policy, P::Surveying, event, false);
                assert_eq!(action, A::Finish(O::Looked));
            }
        }
        let collect = Policy {
            purpose: Purpose::Collect,
            ..POLICY
        };
        let healthy = decide(collect, P::Checking { failed: 0 }, E::Answers, false);
        assert_eq!(healthy, (P::Surveying, A::Survey));
    }

    #[test]
    fn told_to_stop_a_run_owes_the_server_its_start_and_nothing_else() {
        for phase in PHASES.into_iter().filter(|phase| !is_owed_a_start(*phase)) {
            for event in EVENTS {
                assert_eq!(
                    decide(POLICY, phase, event, true).1,
                    A::Finish(O::Interrupted),
                    "{phase:?} {event:?}"
                );
            }
        }
        let table = [
            (P::Terminating, E::Interrupted, (P::Terminating, A::Wait)),
            (P::Terminating, E::AllEnded, (P::Starting, A::Start)),
            (P::Killing, E::Interrupted, (P::Killing, A::Wait)),
            (P::Starting, E::Interrupted, (P::Starting, A::Wait)),
            (
                P::Starting,
                E::CommandSucceeded,
                (P::Finished, A::Finish(O::InterruptedAfterStart)),
            ),
            (
                P::Starting,
                E::Answers,
                (P::Finished, A::Finish(O::InterruptedAfterStart)),
            ),
            (P::Confirming, E::Interrupted, (P::Confirming, A::Wait)),
        ];
        for (phase, event, expected) in table {
            assert_eq!(
                decide(POLICY, phase, event, true),
                expected,
                "{phase:?} {event:?}"
            );
        }
    }

    #[test]
    fn whatever_is_seen_only_a_phase_with_a_deadline_waits() {
        for phase in PHASES {
            for event in EVENTS {
                for told_to_stop in [false, true] {
                    let (next, action) = decide(POLICY, phase, event, told_to_stop);
                    if action == A::Wait {
                        assert!(
                            is_owed_a_start(phase) && next == phase,
                            "{phase:?} {event:?}"
                        );
                    }
                    if let A::Finish(_) = action {
                        assert_eq!(next, P::Finished);
                    }
                }
            }
        }
    }

    #[test]
    fn signals_go_out_and_commands_run_only_where_the_manual_says() {
        for phase in PHASES {
            for event in EVENTS {
                match decide(POLICY, phase, event, false).1 {
                    A::Terminate => assert_eq!((phase, event), (P::Surveying, E::Running)),
                    A::Kill => assert_eq!((phase, event), (P::Terminating, E::Expired)),
                    A::Start => assert!(matches!(
                        (phase, event),
                        (P::Surveying, E::Absent) | (P::Terminating | P::Killing, E::AllEnded)
                    )),
                    _ => (),
                }
            }
        }
    }

    #[test]
    fn the_exit_status_is_that_of_the_manual() {
        for outcome in [O::Healthy, O::Restarted, O::SteppedAside] {
            assert!(outcome.is_success());
        }
        for outcome in [
            O::Untouched,
            O::Unkillable,
            O::CommandFailed,
            O::NoAnswer,
            O::Interrupted,
            O::InterruptedAfterStart,
        ] {
            assert!(!outcome.is_success());
        }
    }
}
