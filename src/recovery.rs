//! What to do next: a pure function of what was seen, total over its inputs.
//!
//! A run goes down this list, and each arrow is a row of the test at the end:
//! check → recognise who answered; or
//! check → look for a pause → reserve the server → search → wait for a server that has just started → ask the
//! server itself → diagnose → unwedge → prepare → dump → compare → terminate → kill → start → identify who
//! answers → ask the proxy.

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
    DryRun,
    /// To log what it is doing, whether it answers or not (`--collect-diagnostics`).
    Collect,
}

/// What a search came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Situation {
    /// Whether there are processes to stop.
    pub(crate) is_running: bool,
    /// Who holds the server's address.
    pub(crate) port: PortHolder,
    /// Whether a check reached the server, or failed on our own side.
    pub(crate) was_asked: bool,
    /// Whether the failed check can have reached something other than the server, because the URL leads to an
    /// address at which the server does not listen, such as a proxy's. The server's own address is asked then.
    pub(crate) is_elsewhere: bool,
    /// Whether other processes match, and the URL's host has no address: any of them can be the server.
    pub(crate) may_be_hidden: bool,
    /// Whether a process that matches is younger than the start grace.
    pub(crate) is_young: bool,
}

/// Who holds the server's address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum PortHolder {
    /// Nobody listens there.
    Nobody,
    /// The server.
    Server,
    /// Somebody else.
    Other,
    /// Several that can be the server.
    Several,
    /// It cannot be read.
    Unknown,
}

/// What the restart policy says of a server that does not answer, without the reason (`policy::Ruling`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum RulingKind {
    /// Restart it.
    Restart,
    /// Ask it once more, with more time, and restart it then.
    AskFirst,
    /// Not now.
    Hold,
}

/// What a diagnosis came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Prospects {
    /// What the restart policy says.
    pub(crate) ruling: RulingKind,
    /// Whether a client or a child blocks the server, and may be dealt with instead of a restart.
    pub(crate) can_unwedge: bool,
}

/// What is to be done about a server that does not answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Plan {
    /// Stop it, and start it.
    Restart,
    /// Start it.
    Start,
    /// Nothing: the run ends so.
    Leave(Outcome),
}

impl Situation {
    /// The plan for this situation: a process is stopped only where it is the server for certain, and
    /// one is started only where the port is free for it.
    fn plan(self) -> Plan {
        match (self.was_asked, self.port, self.is_running) {
            (false, PortHolder::Nobody, false) if !self.may_be_hidden => Plan::Start,
            (false, _, _) => Plan::Leave(Outcome::NotAsked),
            (true, PortHolder::Nobody, false) => Plan::Start,
            // `Other` with a running server: a proxy holds the port, and --process-pattern names the server.
            (true, PortHolder::Nobody | PortHolder::Server | PortHolder::Other, true) => {
                Plan::Restart
            }
            (true, PortHolder::Other, false) => Plan::Leave(Outcome::PortTaken),
            (true, PortHolder::Server | PortHolder::Several | PortHolder::Unknown, _) => {
                Plan::Leave(Outcome::Unproven)
            }
        }
    }
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Phase {
    /// Asking the server, after so many checks that failed.
    Checking {
        /// Failed checks so far.
        failed: u32,
    },
    /// It answers: looking who that is.
    Recognising,
    /// The server is down: looking whether somebody has paused the monitor.
    Permitting,
    /// Taking the restart lock.
    Reserving,
    /// Another run has restarted the server since we asked it: asking again.
    Rechecking,
    /// Looking for its processes and for who holds its address.
    Searching,
    /// A process that matches has just started: asking until it answers or its start grace is over.
    Growing,
    /// Looking again, after that.
    SearchingAgain,
    /// It listens at another address than the URL's: asking there.
    AskingItself(Situation),
    /// Writing down why it does not answer.
    Diagnosing(Plan),
    /// Dealing with the client or the child that blocks the server; the restart policy's ruling, where that fails.
    Unwedging(RulingKind),
    /// Asking once more, with more time.
    AskingLonger(Plan),
    /// Looking at everything that can keep a restart from working.
    Preparing(Plan),
    /// Running the dump command.
    Dumping,
    /// The dump took its time, in which the server can have come back: asking again.
    Reasking,
    /// Comparing once more, with each process in hand, that it is what was found.
    Comparing,
    /// SIGTERM is sent. From here on the server is owed a start.
    Terminating,
    /// SIGKILL is sent.
    Killing,
    /// The restart command is to run or runs; the server does not answer yet.
    Starting,
    /// The restart command has succeeded; the server does not answer yet.
    Awaiting,
    /// The restart command failed: asking the server a last time.
    Confirming,
    /// It answers after a start: looking who that is.
    Identifying,
    /// It answers, and the run will end so: asking whether a proxy before it does too.
    AskingProxy(Outcome),
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
    /// The server could not be asked at its own address, for a reason on our own side.
    NotAsked,
    /// The server answers at its own address, and what the URL leads to does not.
    OnlyItselfAnswers,
    /// The server answers at its own address; the URL's host also resolves to other addresses.
    AnswersAmongOthers,
    /// No proxy stands before the server.
    NoProxy,
    /// Somebody has paused the monitor.
    Paused,
    /// Nobody has.
    NotPaused,
    /// The server answers again without a restart, and is the same process.
    Unwedged,
    /// It does not.
    NotUnwedged,
    /// Whoever answers is the server.
    Recognised,
    /// Whoever answers is of a user who is not known to run the server.
    TakenOver,
    /// The server came back as another user than before.
    OwnerChanged,
    /// The restart command ended another instance.
    InstanceEnded,
    /// The restart lock is ours, or cannot be used, which costs only the lock.
    Reserved,
    /// The restart lock is ours, and another run had it since our check began.
    ReservedLate,
    /// Another run holds the restart lock.
    Busy,
    /// The search is done.
    Searched(Situation),
    /// The diagnosis is in the log.
    Diagnosed(Prospects),
    /// A restart can work.
    Prepared,
    /// It cannot, as was logged.
    Unable,
    /// The dump command ran.
    Dumped,
    /// There was none to run, or it could not be run.
    NotDumped,
    /// What is to be stopped is what was found.
    Same,
    /// Nothing that was found is the server any more, and nobody holds its port.
    NoneLeft,
    /// All processes have ended.
    AllEnded,
    /// Processes outlived SIGKILL, and hold the server's port.
    Survived,
    /// Processes outlived SIGKILL, and do not hold the port.
    SurvivedElsewhere,
    /// The restart command ended with exit status 0.
    CommandSucceeded,
    /// The restart command could not be run, or failed.
    CommandFailed,
    /// The restart command could not be run for lack of a resource.
    Lacking,
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
    /// See who answered.
    Recognise,
    /// Look whether the monitor is paused.
    ReadPause,
    /// Take the restart lock.
    Reserve,
    /// Look for processes and for who holds the server's address.
    Search,
    /// Ask until the server answers, or its start grace is over.
    AwaitYoung,
    /// Deal with what blocks the server.
    Unwedge,
    /// Ask the server with more time.
    CheckLonger,
    /// Ask the server at its own address.
    AskItself,
    /// Write down what there is to see.
    Diagnose(Plan),
    /// Look at permissions, the command and the account, and get ready what the start needs.
    Prepare(Plan),
    /// Run the dump command.
    Dump,
    /// Compare once more what is to be stopped.
    Compare,
    /// Send SIGTERM.
    Terminate,
    /// Send SIGKILL.
    Kill,
    /// Run the restart command.
    Start,
    /// Run it after a second.
    StartLater,
    /// See who answers after the start.
    Identify,
    /// Ask at the URL, if a proxy stands before the server.
    AskProxy,
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
    /// It did not, and does again without a restart.
    Unwedged,
    /// It is down, and somebody has paused the monitor.
    Paused,
    /// It is down, and the restart policy says to wait.
    Held,
    /// Another run is restarting it.
    SteppedAside,
    /// It is down, and nothing could be done.
    Untouched,
    /// It was not asked, and nothing was touched.
    NotAsked,
    /// Somebody else holds its port, and nothing was touched.
    PortTaken,
    /// Which process is the server cannot be proved, and nothing was touched.
    Unproven,
    /// It answers at its own address: what stands before it does not.
    ProxyFails,
    /// Somebody else answers in its place.
    TakenOver,
    /// It came back as another user.
    OwnerChanged,
    /// It came back, and another instance ended meanwhile.
    InstanceEnded,
    /// The run was a trial: it has logged what it found.
    Looked,
    /// A process outlived SIGKILL and holds the port; nothing was started.
    Unkillable,
    /// The restart command failed.
    CommandFailed,
    /// The server did not answer in time.
    NoAnswer,
    /// A signal ended the run before it stopped or started anything.
    Interrupted,
    /// A signal ended the run, after it had started the server.
    InterruptedAfterStart,
}

impl Outcome {
    /// Whether a trial run has logged all that it was started for.
    pub(crate) fn has_looked(self) -> bool {
        matches!(
            self,
            Self::NotAsked | Self::PortTaken | Self::Unproven | Self::ProxyFails | Self::Held
        )
    }

    /// Returns whether the run exits with 0.
    pub(crate) fn is_success(self) -> bool {
        matches!(
            self,
            Self::Healthy
                | Self::Restarted
                | Self::Unwedged
                | Self::Paused
                | Self::SteppedAside
                | Self::Looked
        )
    }
}

/// The first phase and action of a run.
pub(crate) const BEGINNING: (Phase, Action) = (Phase::Checking { failed: 0 }, Action::Check);

/// Whether the server was signalled, or its restart command run: a request to stop waits for its start.
pub(crate) fn is_owed_a_start(phase: Phase) -> bool {
    matches!(
        phase,
        Phase::Terminating
            | Phase::Killing
            | Phase::Starting
            | Phase::Awaiting
            | Phase::Confirming
            | Phase::Identifying
            | Phase::AskingProxy(_)
    )
}

/// Whether the server counts as down from here on: no check is left that could find it healthy.
pub(crate) fn is_found_down(before: Phase, after: Phase) -> bool {
    match before {
        // A paused monitor says so in a line of its own.
        Phase::Permitting => after == Phase::Reserving,
        Phase::Checking { .. } => after == Phase::Searching,
        _ => false,
    }
}

/// Whether the restart begins here.
pub(crate) fn begins_restart(before: Phase, after: Phase) -> bool {
    !is_owed_a_start(before) && is_owed_a_start(after)
}

/// The next phase and action. `is_stopping`: whether an `Interrupted` came so far.
pub(crate) fn decide(
    policy: Policy,
    phase: Phase,
    event: Event,
    is_stopping: bool,
) -> (Phase, Action) {
    use Event as E;
    use Phase as P;
    let finish = |outcome| (P::Finished, Action::Finish(outcome));
    let diagnose = |plan| (P::Diagnosing(plan), Action::Diagnose(plan));
    let follow = |plan, ruling| match ruling {
        RulingKind::Restart => (P::Preparing(plan), Action::Prepare(plan)),
        RulingKind::AskFirst => (P::AskingLonger(plan), Action::CheckLonger),
        RulingKind::Hold => finish(Outcome::Held),
    };
    let heals = policy.purpose == Purpose::Heal;
    match (phase, event) {
        (phase, _) if is_stopping && !is_owed_a_start(phase) => finish(Outcome::Interrupted),

        (P::Checking { .. }, E::Answers) if policy.purpose == Purpose::Collect => {
            (P::Searching, Action::Search)
        }
        (
            P::Checking { .. } | P::Rechecking | P::Growing | P::AskingLonger(_) | P::Reasking,
            E::Answers,
        ) => (P::Recognising, Action::Recognise),
        (P::Recognising, E::Recognised) => finish(Outcome::Healthy),
        (P::Recognising, E::TakenOver) => finish(Outcome::TakenOver),
        (P::Checking { failed }, E::Silent) if failed < policy.retries => {
            (P::Checking { failed: failed + 1 }, Action::CheckLater)
        }
        (P::Checking { .. }, E::Silent) if !heals => (P::Searching, Action::Search),
        (P::Checking { .. }, E::Silent) => (P::Permitting, Action::ReadPause),

        (P::Permitting, E::Paused) => finish(Outcome::Paused),
        (P::Permitting, E::NotPaused) => (P::Reserving, Action::Reserve),

        (P::Reserving, E::Reserved) => (P::Searching, Action::Search),
        (P::Reserving, E::ReservedLate) => (P::Rechecking, Action::Check),
        (P::Reserving, E::Busy) => finish(Outcome::SteppedAside),
        (P::Rechecking, E::Silent) => (P::Searching, Action::Search),

        (P::Searching, E::Searched(_)) if policy.purpose == Purpose::Collect => {
            diagnose(Plan::Leave(Outcome::Looked))
        }
        (P::Searching, E::Searched(situation)) if situation.is_young && heals => {
            (P::Growing, Action::AwaitYoung)
        }
        (P::Growing, E::Silent) => (P::SearchingAgain, Action::Search),
        (P::Searching | P::SearchingAgain, E::Searched(situation)) if situation.is_elsewhere => {
            (P::AskingItself(situation), Action::AskItself)
        }
        (P::Searching | P::SearchingAgain, E::Searched(situation)) => diagnose(situation.plan()),
        (P::AskingItself(_), E::OnlyItselfAnswers) => diagnose(Plan::Leave(Outcome::ProxyFails)),
        (P::AskingItself(_), E::AnswersAmongOthers) => finish(Outcome::Healthy),
        (P::AskingItself(_), E::TakenOver) => finish(Outcome::TakenOver),
        (P::AskingItself(situation), event @ (E::Silent | E::NotAsked)) => diagnose(
            Situation {
                was_asked: event == E::Silent,
                ..situation
            }
            .plan(),
        ),
        (P::Diagnosing(Plan::Leave(outcome)), E::Diagnosed(_)) => finish(outcome),
        (P::Diagnosing(plan), E::Diagnosed(found)) if !heals => match found.ruling {
            RulingKind::Hold if !found.can_unwedge => finish(Outcome::Held),
            _ => (P::Preparing(plan), Action::Prepare(plan)),
        },
        (P::Diagnosing(Plan::Restart), E::Diagnosed(found)) if found.can_unwedge => {
            (P::Unwedging(found.ruling), Action::Unwedge)
        }
        (P::Diagnosing(plan), E::Diagnosed(found)) => follow(plan, found.ruling),
        (P::Unwedging(_), E::Unwedged) => finish(Outcome::Unwedged),
        (P::Unwedging(ruling), E::NotUnwedged) => follow(Plan::Restart, ruling),
        (P::AskingLonger(plan), E::Silent) => (P::Preparing(plan), Action::Prepare(plan)),
        (P::Preparing(_), E::Prepared) if !heals => finish(Outcome::Looked),
        (P::Preparing(Plan::Restart), E::Prepared) => (P::Dumping, Action::Dump),
        (P::Preparing(_), E::Prepared) => (P::Starting, Action::Start),
        (P::Dumping, E::NotDumped) => (P::Comparing, Action::Compare),
        (P::Dumping, E::Dumped) => (P::Reasking, Action::Check),
        (P::Reasking, E::Silent) => (P::Comparing, Action::Compare),
        (P::Comparing, E::Same) => (P::Terminating, Action::Terminate),
        (P::Comparing, E::NoneLeft) => (P::Starting, Action::Start),

        (P::Terminating, E::Expired) => (P::Killing, Action::Kill),
        (P::Terminating | P::Killing, E::AllEnded) | (P::Killing, E::SurvivedElsewhere) => {
            (P::Starting, Action::Start)
        }
        (P::Killing, E::Survived) => finish(Outcome::Unkillable),

        (P::Starting | P::Awaiting | P::Confirming, E::Answers) => {
            (P::Identifying, Action::Identify)
        }
        (P::Starting, E::CommandSucceeded) | (P::Awaiting, E::Interrupted) if is_stopping => {
            finish(Outcome::InterruptedAfterStart)
        }
        (P::Starting, E::CommandSucceeded) => (P::Awaiting, Action::Wait),
        (P::Starting, E::CommandFailed) => (P::Confirming, Action::Check),
        (P::Starting, E::Lacking) => (P::Starting, Action::StartLater),
        (P::Starting | P::Awaiting, E::Expired) => finish(Outcome::NoAnswer),
        (P::Confirming, E::Silent) => finish(Outcome::CommandFailed),
        (P::Confirming, _) => (P::Confirming, Action::Check),

        (P::Identifying, E::TakenOver) => finish(Outcome::TakenOver),
        (P::Identifying, E::OwnerChanged) => finish(Outcome::OwnerChanged),
        (P::Identifying, E::InstanceEnded) => {
            (P::AskingProxy(Outcome::InstanceEnded), Action::AskProxy)
        }
        (P::Identifying, E::Recognised) if is_stopping => finish(Outcome::InterruptedAfterStart),
        (P::Identifying, E::Recognised) => (P::AskingProxy(Outcome::Restarted), Action::AskProxy),
        (P::Identifying, _) => (P::Identifying, Action::Identify),
        (P::AskingProxy(Outcome::Restarted), _) if is_stopping => {
            finish(Outcome::InterruptedAfterStart)
        }
        (P::AskingProxy(outcome), _) => finish(outcome),

        (phase, _) if is_owed_a_start(phase) => (phase, Action::Wait),
        _ => finish(Outcome::Untouched),
    }
}

#[cfg(test)]
mod tests {
    use super::Action as A;
    use super::Event as E;
    use super::Outcome as O;
    use super::Phase as P;
    use super::*;

    const HOLDERS: [PortHolder; 5] = [
        PortHolder::Nobody,
        PortHolder::Server,
        PortHolder::Other,
        PortHolder::Several,
        PortHolder::Unknown,
    ];
    const POLICY: Policy = Policy {
        purpose: Purpose::Heal,
        retries: 2,
    };

    fn situations() -> Vec<Situation> {
        let mut all = Vec::new();
        for port in HOLDERS {
            for bits in 0..32 {
                all.push(Situation {
                    is_running: bits & 1 > 0,
                    port,
                    was_asked: bits & 2 > 0,
                    is_elsewhere: bits & 4 > 0,
                    may_be_hidden: bits & 8 > 0,
                    is_young: bits & 16 > 0,
                });
            }
        }
        all
    }

    fn plans() -> [Plan; 3] {
        [Plan::Restart, Plan::Start, Plan::Leave(O::PortTaken)]
    }

    fn phases() -> Vec<P> {
        let mut all = vec![
            P::Checking { failed: 0 },
            P::Checking { failed: 2 },
            P::Recognising,
            P::Permitting,
            P::Reserving,
            P::Rechecking,
            P::Searching,
            P::Growing,
            P::SearchingAgain,
            P::Dumping,
            P::Reasking,
            P::Comparing,
            P::Terminating,
            P::Killing,
            P::Starting,
            P::Awaiting,
            P::Confirming,
            P::Identifying,
            P::AskingProxy(O::Restarted),
            P::AskingProxy(O::InstanceEnded),
        ];
        all.extend(situations().into_iter().map(P::AskingItself));
        all.extend(plans().map(P::Diagnosing));
        all.extend(plans().map(P::Preparing));
        all.extend(plans().map(P::AskingLonger));
        all.extend(RULINGS.map(P::Unwedging));
        all
    }

    fn events() -> Vec<E> {
        let mut all = vec![
            E::Answers,
            E::Silent,
            E::OnlyItselfAnswers,
            E::AnswersAmongOthers,
            E::NoProxy,
            E::Recognised,
            E::TakenOver,
            E::OwnerChanged,
            E::InstanceEnded,
            E::Reserved,
            E::ReservedLate,
            E::Busy,
            E::Paused,
            E::NotPaused,
            E::Unwedged,
            E::NotUnwedged,
            E::Prepared,
            E::Unable,
            E::Dumped,
            E::NotDumped,
            E::Same,
            E::NoneLeft,
            E::AllEnded,
            E::Survived,
            E::SurvivedElsewhere,
            E::CommandSucceeded,
            E::CommandFailed,
            E::Lacking,
            E::Expired,
            E::Interrupted,
        ];
        all.extend(situations().into_iter().map(E::Searched));
        for ruling in RULINGS {
            all.push(diagnosed(ruling, false));
            all.push(diagnosed(ruling, true));
        }
        all
    }

    const RULINGS: [RulingKind; 3] = [RulingKind::Restart, RulingKind::AskFirst, RulingKind::Hold];

    fn diagnosed(ruling: RulingKind, can_unwedge: bool) -> E {
        E::Diagnosed(Prospects {
            ruling,
            can_unwedge,
        })
    }

    fn situation(port: PortHolder, is_running: bool, was_asked: bool) -> Situation {
        Situation {
            is_running,
            port,
            was_asked,
            is_elsewhere: false,
            may_be_hidden: false,
            is_young: false,
        }
    }

    #[test]
    fn a_run_goes_as_the_manual_says() {
        let finish = |outcome| (P::Finished, A::Finish(outcome));
        let silent = situation(PortHolder::Server, true, true);
        let proxied = Situation {
            is_elsewhere: true,
            ..silent
        };
        let young = Situation {
            is_young: true,
            ..silent
        };
        let (restart, start) = (Plan::Restart, Plan::Start);
        let taken = Plan::Leave(O::PortTaken);
        let table = [
            (
                P::Checking { failed: 0 },
                E::Answers,
                (P::Recognising, A::Recognise),
            ),
            (P::Recognising, E::Recognised, finish(O::Healthy)),
            (P::Recognising, E::TakenOver, finish(O::TakenOver)),
            (
                P::Checking { failed: 0 },
                E::Silent,
                (P::Checking { failed: 1 }, A::CheckLater),
            ),
            (
                P::Checking { failed: 1 },
                E::Silent,
                (P::Checking { failed: 2 }, A::CheckLater),
            ),
            (
                P::Checking { failed: 2 },
                E::Silent,
                (P::Permitting, A::ReadPause),
            ),
            (P::Permitting, E::Paused, finish(O::Paused)),
            (P::Permitting, E::NotPaused, (P::Reserving, A::Reserve)),
            (
                P::Searching,
                E::Searched(young),
                (P::Growing, A::AwaitYoung),
            ),
            (P::Growing, E::Answers, (P::Recognising, A::Recognise)),
            (P::Growing, E::Silent, (P::SearchingAgain, A::Search)),
            (
                P::SearchingAgain,
                E::Searched(young),
                (P::Diagnosing(restart), A::Diagnose(restart)),
            ),
            (P::Reserving, E::Reserved, (P::Searching, A::Search)),
            (P::Reserving, E::ReservedLate, (P::Rechecking, A::Check)),
            (P::Reserving, E::Busy, finish(O::SteppedAside)),
            (P::Rechecking, E::Answers, (P::Recognising, A::Recognise)),
            (P::Rechecking, E::Silent, (P::Searching, A::Search)),
            (P::Searching, E::Unable, finish(O::Untouched)),
            (
                P::Searching,
                E::Searched(silent),
                (P::Diagnosing(restart), A::Diagnose(restart)),
            ),
            (
                P::Searching,
                E::Searched(proxied),
                (P::AskingItself(proxied), A::AskItself),
            ),
            (
                P::AskingItself(proxied),
                E::OnlyItselfAnswers,
                (
                    P::Diagnosing(Plan::Leave(O::ProxyFails)),
                    A::Diagnose(Plan::Leave(O::ProxyFails)),
                ),
            ),
            (
                P::AskingItself(proxied),
                E::AnswersAmongOthers,
                finish(O::Healthy),
            ),
            (
                P::AskingItself(proxied),
                E::Silent,
                (P::Diagnosing(restart), A::Diagnose(restart)),
            ),
            // The server itself was not asked, so that the result at the URL does not count.
            (
                P::AskingItself(proxied),
                E::NotAsked,
                (
                    P::Diagnosing(Plan::Leave(O::NotAsked)),
                    A::Diagnose(Plan::Leave(O::NotAsked)),
                ),
            ),
            // The check at the URL failed on the monitor's own side; the server itself was asked.
            (
                P::AskingItself(Situation {
                    was_asked: false,
                    ..proxied
                }),
                E::Silent,
                (P::Diagnosing(restart), A::Diagnose(restart)),
            ),
            (
                P::Diagnosing(taken),
                diagnosed(RulingKind::Restart, false),
                finish(O::PortTaken),
            ),
            (
                P::Diagnosing(restart),
                diagnosed(RulingKind::Restart, false),
                (P::Preparing(restart), A::Prepare(restart)),
            ),
            (
                P::Diagnosing(start),
                diagnosed(RulingKind::Restart, false),
                (P::Preparing(start), A::Prepare(start)),
            ),
            (
                P::Diagnosing(start),
                diagnosed(RulingKind::Restart, true),
                (P::Preparing(start), A::Prepare(start)),
            ),
            (
                P::Diagnosing(restart),
                diagnosed(RulingKind::Restart, true),
                (P::Unwedging(RulingKind::Restart), A::Unwedge),
            ),
            (
                P::Diagnosing(restart),
                diagnosed(RulingKind::Hold, true),
                (P::Unwedging(RulingKind::Hold), A::Unwedge),
            ),
            (
                P::Diagnosing(restart),
                diagnosed(RulingKind::Hold, false),
                finish(O::Held),
            ),
            (
                P::Diagnosing(start),
                diagnosed(RulingKind::AskFirst, false),
                (P::AskingLonger(start), A::CheckLonger),
            ),
            (
                P::Unwedging(RulingKind::Restart),
                E::Unwedged,
                finish(O::Unwedged),
            ),
            (
                P::Unwedging(RulingKind::Restart),
                E::NotUnwedged,
                (P::Preparing(restart), A::Prepare(restart)),
            ),
            (
                P::Unwedging(RulingKind::Hold),
                E::NotUnwedged,
                finish(O::Held),
            ),
            (
                P::AskingLonger(restart),
                E::Answers,
                (P::Recognising, A::Recognise),
            ),
            (
                P::AskingLonger(restart),
                E::Silent,
                (P::Preparing(restart), A::Prepare(restart)),
            ),
            (P::Preparing(restart), E::Unable, finish(O::Untouched)),
            (P::Preparing(start), E::Prepared, (P::Starting, A::Start)),
            (P::Preparing(restart), E::Prepared, (P::Dumping, A::Dump)),
            (P::Dumping, E::NotDumped, (P::Comparing, A::Compare)),
            (P::Comparing, E::Same, (P::Terminating, A::Terminate)),
            (P::Comparing, E::NoneLeft, (P::Starting, A::Start)),
            (P::Comparing, E::Unable, finish(O::Untouched)),
            (P::Dumping, E::Dumped, (P::Reasking, A::Check)),
            (P::Reasking, E::Answers, (P::Recognising, A::Recognise)),
            (P::Reasking, E::Silent, (P::Comparing, A::Compare)),
            (P::Terminating, E::AllEnded, (P::Starting, A::Start)),
            (P::Terminating, E::Expired, (P::Killing, A::Kill)),
            (P::Killing, E::AllEnded, (P::Starting, A::Start)),
            (P::Killing, E::SurvivedElsewhere, (P::Starting, A::Start)),
            (P::Killing, E::Survived, finish(O::Unkillable)),
            (P::Starting, E::Lacking, (P::Starting, A::StartLater)),
            (P::Starting, E::CommandSucceeded, (P::Awaiting, A::Wait)),
            (P::Awaiting, E::Answers, (P::Identifying, A::Identify)),
            (P::Awaiting, E::Expired, finish(O::NoAnswer)),
            (P::Starting, E::CommandFailed, (P::Confirming, A::Check)),
            (P::Starting, E::Expired, finish(O::NoAnswer)),
            (P::Starting, E::Answers, (P::Identifying, A::Identify)),
            (P::Confirming, E::Answers, (P::Identifying, A::Identify)),
            (P::Confirming, E::Silent, finish(O::CommandFailed)),
            (
                P::Identifying,
                E::Recognised,
                (P::AskingProxy(O::Restarted), A::AskProxy),
            ),
            (
                P::Identifying,
                E::InstanceEnded,
                (P::AskingProxy(O::InstanceEnded), A::AskProxy),
            ),
            (
                P::AskingProxy(O::Restarted),
                E::NoProxy,
                finish(O::Restarted),
            ),
            (
                P::AskingProxy(O::Restarted),
                E::Silent,
                finish(O::Restarted),
            ),
            (
                P::AskingProxy(O::InstanceEnded),
                E::Answers,
                finish(O::InstanceEnded),
            ),
            (P::Identifying, E::TakenOver, finish(O::TakenOver)),
            (P::Identifying, E::OwnerChanged, finish(O::OwnerChanged)),
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
    fn a_run_that_only_looks_goes_as_the_manual_says() {
        let finish = |outcome| (P::Finished, A::Finish(outcome));
        let young = Situation {
            is_young: true,
            ..situation(PortHolder::Server, true, true)
        };
        let (restart, taken) = (Plan::Restart, Plan::Leave(O::PortTaken));
        let looked = Plan::Leave(O::Looked);
        let prepare = (P::Preparing(restart), A::Prepare(restart));
        let (dry, collect) = (Purpose::DryRun, Purpose::Collect);
        let (first, last) = (P::Checking { failed: 0 }, P::Checking { failed: 2 });
        let table = [
            (dry, first, E::Answers, (P::Recognising, A::Recognise)),
            (dry, last, E::Silent, (P::Searching, A::Search)),
            (
                dry,
                P::Searching,
                E::Searched(young),
                (P::Diagnosing(restart), A::Diagnose(restart)),
            ),
            (
                dry,
                P::Diagnosing(taken),
                diagnosed(RulingKind::Restart, false),
                finish(O::PortTaken),
            ),
            (
                dry,
                P::Diagnosing(restart),
                diagnosed(RulingKind::Hold, false),
                finish(O::Held),
            ),
            (
                dry,
                P::Diagnosing(restart),
                diagnosed(RulingKind::Hold, true),
                prepare,
            ),
            (
                dry,
                P::Diagnosing(restart),
                diagnosed(RulingKind::AskFirst, false),
                prepare,
            ),
            (
                dry,
                P::Diagnosing(restart),
                diagnosed(RulingKind::Restart, true),
                prepare,
            ),
            (dry, P::Preparing(restart), E::Prepared, finish(O::Looked)),
            (
                dry,
                P::Preparing(Plan::Start),
                E::Prepared,
                finish(O::Looked),
            ),
            (collect, first, E::Answers, (P::Searching, A::Search)),
            (collect, last, E::Silent, (P::Searching, A::Search)),
            (
                collect,
                P::Searching,
                E::Searched(young),
                (P::Diagnosing(looked), A::Diagnose(looked)),
            ),
            (
                collect,
                P::Diagnosing(looked),
                diagnosed(RulingKind::Restart, true),
                finish(O::Looked),
            ),
        ];
        for (purpose, phase, event, expected) in table {
            let policy = Policy { purpose, ..POLICY };
            assert_eq!(
                decide(policy, phase, event, false),
                expected,
                "{purpose:?} {phase:?} {event:?}"
            );
        }
    }

    #[test]
    fn a_trial_has_looked_where_it_found_why_nothing_would_be_touched() {
        for (outcome, expected) in [
            (O::NotAsked, true),
            (O::PortTaken, true),
            (O::Unproven, true),
            (O::ProxyFails, true),
            (O::Held, true),
            (O::Looked, false),
            (O::Untouched, false),
            (O::Interrupted, false),
        ] {
            assert_eq!(outcome.has_looked(), expected, "{outcome:?}");
        }
    }

    #[test]
    fn the_plan_follows_from_who_holds_the_port() {
        let leave = Plan::Leave;
        for (port, is_running, was_asked, expected) in [
            (PortHolder::Nobody, false, true, Plan::Start),
            (PortHolder::Nobody, true, true, Plan::Restart),
            (PortHolder::Server, true, true, Plan::Restart),
            (PortHolder::Other, true, true, Plan::Restart),
            (PortHolder::Other, false, true, leave(O::PortTaken)),
            (PortHolder::Several, false, true, leave(O::Unproven)),
            (PortHolder::Unknown, false, true, leave(O::Unproven)),
            (PortHolder::Nobody, false, false, Plan::Start),
            (PortHolder::Nobody, true, false, leave(O::NotAsked)),
            (PortHolder::Server, true, false, leave(O::NotAsked)),
            (PortHolder::Other, false, false, leave(O::NotAsked)),
            (PortHolder::Unknown, false, false, leave(O::NotAsked)),
        ] {
            let situation = situation(port, is_running, was_asked);
            assert_eq!(situation.plan(), expected, "{situation:?}");
        }
        let hidden = Situation {
            may_be_hidden: true,
            ..situation(PortHolder::Nobody, false, false)
        };
        assert_eq!(hidden.plan(), leave(O::NotAsked));
    }

    #[test]
    fn a_server_is_found_down_once_and_its_restart_begins_once() {
        assert!(is_found_down(P::Permitting, P::Reserving));
        assert!(!is_found_down(P::Checking { failed: 2 }, P::Permitting));
        assert!(is_found_down(P::Checking { failed: 0 }, P::Searching));
        assert!(!is_found_down(P::Reserving, P::Searching));
        assert!(!is_found_down(P::Checking { failed: 0 }, P::Recognising));
        assert!(begins_restart(P::Comparing, P::Terminating));
        assert!(begins_restart(P::Comparing, P::Starting));
        assert!(begins_restart(P::Preparing(Plan::Start), P::Starting));
        assert!(!begins_restart(P::Terminating, P::Starting));
        assert!(!begins_restart(P::Dumping, P::Comparing));
    }

    #[test]
    fn a_server_that_was_not_asked_is_never_stopped() {
        for situation in situations() {
            if !situation.was_asked {
                assert_ne!(situation.plan(), Plan::Restart);
            }
            if !situation.is_running {
                assert_ne!(situation.plan(), Plan::Restart);
            }
        }
    }

    #[test]
    fn a_run_that_only_looks_touches_nothing() {
        for purpose in [Purpose::DryRun, Purpose::Collect] {
            let policy = Policy { purpose, ..POLICY };
            let reached = |phase: &P| {
                let is_past = matches!(phase, P::Dumping | P::Reasking | P::Comparing);
                !is_owed_a_start(*phase) && !is_past
            };
            for phase in phases().into_iter().filter(reached) {
                for event in events() {
                    let (_, action) = decide(policy, phase, event, false);
                    let touches = matches!(
                        action,
                        A::Unwedge | A::Dump | A::Terminate | A::Kill | A::Start
                    );
                    assert!(!touches, "{purpose:?} {phase:?} {event:?}");
                }
            }
        }
    }

    #[test]
    fn told_to_stop_a_run_owes_the_server_its_start_and_nothing_else() {
        for phase in phases()
            .into_iter()
            .filter(|phase| !is_owed_a_start(*phase))
        {
            for event in events() {
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
            (P::Starting, E::Lacking, (P::Starting, A::StartLater)),
            (
                P::Starting,
                E::CommandSucceeded,
                (P::Finished, A::Finish(O::InterruptedAfterStart)),
            ),
            (P::Starting, E::Answers, (P::Identifying, A::Identify)),
            (
                P::Identifying,
                E::Recognised,
                (P::Finished, A::Finish(O::InterruptedAfterStart)),
            ),
            (
                P::Awaiting,
                E::Interrupted,
                (P::Finished, A::Finish(O::InterruptedAfterStart)),
            ),
            (
                P::AskingProxy(O::Restarted),
                E::Interrupted,
                (P::Finished, A::Finish(O::InterruptedAfterStart)),
            ),
            (P::Confirming, E::Interrupted, (P::Confirming, A::Check)),
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
        for phase in phases() {
            for event in events() {
                for is_stopping in [false, true] {
                    let (next, action) = decide(POLICY, phase, event, is_stopping);
                    if action == A::Wait {
                        let has_deadline = matches!(
                            next,
                            P::Terminating | P::Killing | P::Starting | P::Awaiting
                        );
                        assert!(
                            is_owed_a_start(phase) && has_deadline,
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
        for phase in phases() {
            for event in events() {
                match decide(POLICY, phase, event, false).1 {
                    A::Terminate => assert_eq!((phase, event), (P::Comparing, E::Same)),
                    A::Unwedge => assert_eq!(phase, P::Diagnosing(Plan::Restart)),
                    A::Kill => assert_eq!((phase, event), (P::Terminating, E::Expired)),
                    A::Start => assert!(matches!(
                        (phase, event),
                        (P::Preparing(_), E::Prepared)
                            | (P::Comparing, E::NoneLeft)
                            | (P::Terminating | P::Killing, E::AllEnded)
                            | (P::Killing, E::SurvivedElsewhere)
                    )),
                    _ => (),
                }
            }
        }
    }

    #[test]
    fn the_exit_status_is_that_of_the_manual() {
        for outcome in [
            O::Healthy,
            O::Restarted,
            O::Unwedged,
            O::Paused,
            O::SteppedAside,
            O::Looked,
        ] {
            assert!(outcome.is_success());
        }
        for outcome in [
            O::Untouched,
            O::NotAsked,
            O::PortTaken,
            O::Unproven,
            O::ProxyFails,
            O::TakenOver,
            O::OwnerChanged,
            O::InstanceEnded,
            O::Unkillable,
            O::CommandFailed,
            O::NoAnswer,
            O::Held,
            O::Interrupted,
            O::InterruptedAfterStart,
        ] {
            assert!(!outcome.is_success());
        }
    }
}
