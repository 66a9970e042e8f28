//! The coordinator as a state machine: what happens goes in, what is to be done comes out. It has no clock and no socket, so
//! that every order of events can be tried. A step is a body, which anything may end, a vote, and a tail, which nothing ends:
//!
//! ```text
//! Idle ── Start ──▶ Body ── all voted ──▶ Asking ── Decided ──▶ Tail ── all done ──▶ Idle
//!                     └───── a cause ─────────┴──▶ Stopping ── all have answered ──▶ Idle, or Over if somebody is gone
//! ```
//!
//! Whatever ends a step, one cause is told: the deepest that anybody knows of once all have answered.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::message::{Cause, Drawn, Order, Report};

/// Something that happened.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Event {
    /// A step is wanted; by rank, under which number its plan is loaded, and what is read there.
    Start { step: u64, loaded: Vec<u32>, draws: Vec<Arc<[Drawn]>> },
    /// A worker says something.
    From { rank: u16, report: Report },
    /// A worker's connection has ended.
    Gone { rank: u16, why: String },
    /// The caller has looked at what was fetched.
    Decided { commit: bool },
    /// Something went wrong here, or the caller wants no more.
    Fault(Cause),
    /// Who has not answered by now will not.
    Expired,
}

/// Something to do.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Command {
    Send {
        rank: u16,
        order: Order,
    },
    /// Fetch what the step returns, and ask the caller.
    Ask,
    /// Answers are due within the limit.
    Hurry,
    /// The step has ended.
    Finish(Outcome),
}

/// How a step ended.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Outcome {
    /// All went on to their tails, or none did since the caller said no.
    Ended { committed: bool },
    /// Nobody went on.
    Failed(Cause),
    /// Some may have gone on, others not.
    Torn(Cause),
}

#[derive(Clone, PartialEq, Debug)]
enum State {
    Idle,
    Body {
        waiting: BTreeSet<u16>,
    },
    Asking,
    Tail {
        commit: bool,
        waiting: BTreeSet<u16>,
        cause: Option<Cause>,
    },
    Stopping {
        waiting: BTreeSet<u16>,
        cause: Cause,
    },
    /// Somebody is gone: there are no more steps.
    Over(Cause),
}

/// Sees steps through.
pub(crate) struct Coordinator {
    world: u16,
    step: u64,
    gone: BTreeSet<u16>,
    /// Why the first of them is.
    over: Option<Cause>,
    state: State,
}

impl Coordinator {
    /// Of so many workers, all of which are there.
    pub(crate) fn new(world: u16) -> Self {
        Self { world, step: 0, gone: BTreeSet::new(), over: None, state: State::Idle }
    }
    /// Whether a worker is known to be gone.
    pub(crate) fn is_gone(&self, rank: u16) -> bool {
        self.gone.contains(&rank)
    }
    fn here(&self) -> BTreeSet<u16> {
        (0..self.world).filter(|rank| !self.gone.contains(rank)).collect()
    }
    fn all(&self, order: impl Fn(u16) -> Order) -> Vec<Command> {
        self.here().into_iter().map(|rank| Command::Send { rank, order: order(rank) }).collect()
    }

    /// What is to be done now that this has happened.
    pub(crate) fn handle(&mut self, event: Event) -> Vec<Command> {
        match event {
            Event::Start { step, loaded, draws } => self.start(step, &loaded, &draws),
            Event::From { rank, report } => self.report(rank, report),
            Event::Gone { rank, why } => {
                self.gone.insert(rank);
                let cause = Cause::Gone(why);
                self.over.get_or_insert(cause.clone());
                self.cause(Some(rank), cause)
            }
            Event::Decided { commit } if self.state == State::Asking => {
                self.state = State::Tail { commit, waiting: self.here(), cause: None };
                let step = self.step;
                self.all(|_| Order::Decide { step, commit })
            }
            Event::Decided { .. } => vec![],
            Event::Fault(cause) => self.cause(None, cause),
            Event::Expired => self.expire(),
        }
    }

    fn start(&mut self, step: u64, loaded: &[u32], draws: &[Arc<[Drawn]>]) -> Vec<Command> {
        if let State::Over(cause) = &self.state {
            return vec![Command::Finish(Outcome::Failed(cause.clone()))];
        }
        self.step = step;
        self.state = State::Body { waiting: self.here() };
        self.all(|rank| {
            let loaded = loaded.get(usize::from(rank)).copied().unwrap_or_default();
            Order::Run { step, loaded, draws: draws.get(usize::from(rank)).cloned().unwrap_or_default() }
        })
    }

    fn report(&mut self, rank: u16, report: Report) -> Vec<Command> {
        let of_this = |step: u64| step == self.step;
        match (&mut self.state, report) {
            (State::Body { waiting }, Report::Voted { step }) if of_this(step) => {
                waiting.remove(&rank);
                if !waiting.is_empty() {
                    return vec![];
                }
                self.state = State::Asking;
                vec![Command::Ask]
            }
            (State::Tail { .. }, Report::Done { step, .. }) if of_this(step) => self.answered(rank),
            (State::Tail { .. }, Report::Failed { step, cause, .. }) if of_this(step) => self.cause(Some(rank), cause),
            (State::Stopping { .. }, Report::Done { step, .. }) if of_this(step) => self.answered(rank),
            (_, Report::Failed { step, cause, .. }) if of_this(step) => self.cause(Some(rank), cause),
            // Of a step that is over, or before a decision was known of.
            _ => vec![],
        }
    }

    /// Something ends the step; `from` has nothing more to say.
    fn cause(&mut self, from: Option<u16>, new: Cause) -> Vec<Command> {
        let step = self.step;
        match &mut self.state {
            State::Idle => {
                if let Some(over) = &self.over {
                    self.state = State::Over(over.clone());
                }
                vec![]
            }
            State::Over(_) => vec![],
            State::Body { .. } | State::Asking => {
                let mut waiting = self.here();
                waiting.retain(|rank| Some(*rank) != from);
                let mut commands: Vec<Command> =
                    waiting.iter().map(|rank| Command::Send { rank: *rank, order: Order::Abort { step } }).collect();
                commands.push(Command::Hurry);
                self.state = State::Stopping { waiting, cause: new };
                commands.extend(self.finished());
                commands
            }
            State::Stopping { waiting, cause } => {
                waiting.retain(|rank| Some(*rank) != from);
                if new.is_deeper(cause) {
                    *cause = new;
                }
                self.finished()
            }
            State::Tail { waiting, cause, .. } => {
                waiting.retain(|rank| Some(*rank) != from);
                if from.is_some() && cause.as_ref().is_none_or(|c| new.is_deeper(c)) {
                    *cause = Some(new);
                }
                self.finished()
            }
        }
    }

    fn answered(&mut self, from: u16) -> Vec<Command> {
        if let State::Tail { waiting, .. } | State::Stopping { waiting, .. } = &mut self.state {
            waiting.remove(&from);
        }
        self.finished()
    }

    fn expire(&mut self) -> Vec<Command> {
        let (State::Stopping { waiting, .. } | State::Tail { waiting, .. }) = &self.state else { return vec![] };
        let silent: Vec<u16> = waiting.iter().copied().collect();
        let gone = |rank: u16| Event::Gone { rank, why: format!("rank {rank} does not answer") };
        silent.into_iter().flat_map(|rank| self.handle(gone(rank))).collect()
    }

    /// Ends the step if nobody is waited for any more.
    fn finished(&mut self) -> Vec<Command> {
        let outcome = match &self.state {
            State::Stopping { waiting, cause } if waiting.is_empty() => Outcome::Failed(cause.clone()),
            State::Tail { waiting, commit, cause } if waiting.is_empty() => match cause {
                None => Outcome::Ended { committed: *commit },
                // Nobody was to update anything.
                Some(cause) if !commit => Outcome::Failed(cause.clone()),
                Some(cause) => Outcome::Torn(cause.clone()),
            },
            _ => return vec![],
        };
        self.state = self.over.clone().map_or(State::Idle, State::Over);
        vec![Command::Finish(outcome)]
    }
}

#[cfg(test)]
mod tests {
    use thalweg_runtime::source::Samples;

    use super::*;

    const STEP: u64 = 7;

    fn to(rank: u16, order: Order) -> Command {
        Command::Send { rank, order }
    }
    fn voted(rank: u16) -> Event {
        Event::From { rank, report: Report::Voted { step: STEP } }
    }
    fn done(rank: u16, committed: bool) -> Event {
        Event::From { rank, report: Report::Done { step: STEP, committed, carried: vec![] } }
    }
    fn failed(rank: u16, cause: Cause) -> Event {
        Event::From { rank, report: Report::Failed { step: STEP, cause, in_tail: false } }
    }
    fn fault(text: &str) -> Cause {
        Cause::Fault(text.into())
    }
    /// Two workers in the body of a step.
    fn running() -> Coordinator {
        let mut coordinator = Coordinator::new(2);
        let samples = Samples { seed: Some(1), pass: 2, first: 3, count: 4 };
        let draws: Arc<[Drawn]> = [Drawn { source: 5, samples, fields: vec![0], next: None }].into();
        let started =
            coordinator.handle(Event::Start { step: STEP, loaded: vec![3, 4], draws: vec![[].into(), draws.clone()] });
        let run = |rank, loaded, draws| to(rank, Order::Run { step: STEP, loaded, draws });
        assert_eq!(started, [run(0, 3, [].into()), run(1, 4, draws)]);
        coordinator
    }
    fn abort(rank: u16) -> Command {
        to(rank, Order::Abort { step: STEP })
    }
    fn ended(outcome: Outcome) -> Vec<Command> {
        vec![Command::Finish(outcome)]
    }

    #[test]
    fn all_commit_once_all_have_voted_and_the_caller_agrees() {
        for commit in [true, false] {
            let mut c = running();
            assert_eq!(c.handle(voted(1)), []);
            assert_eq!(c.handle(voted(0)), [Command::Ask]);
            let decide = |rank| to(rank, Order::Decide { step: STEP, commit });
            assert_eq!(c.handle(Event::Decided { commit }), [decide(0), decide(1)]);
            assert_eq!(c.handle(done(0, commit)), []);
            assert_eq!(c.handle(done(1, commit)), ended(Outcome::Ended { committed: commit }));
            assert_eq!(c.state, State::Idle);
        }
    }

    #[test]
    fn a_fault_stops_the_others_and_is_the_cause() {
        let mut c = running();
        assert_eq!(c.handle(voted(0)), []);
        assert_eq!(c.handle(failed(1, fault("a launch"))), [abort(0), Command::Hurry]);
        assert_eq!(c.handle(failed(0, Cause::Aborted)), ended(Outcome::Failed(fault("a launch"))));
        assert!(
            matches!(c.handle(Event::Start { step: 8, loaded: vec![0, 0], draws: vec![] })[..], [_, _]),
            "the next step can run"
        );
    }

    /// Who was connected to the one that died often notices before the coordinator does.
    #[test]
    fn the_deepest_cause_is_told() {
        let unreachable = || Cause::Unreachable("rank 0: the connection to rank 1 was closed".into());
        let gone = || Event::Gone { rank: 1, why: "killed".into() };
        let outcome = ended(Outcome::Failed(Cause::Gone("killed".into())));
        let mut c = running();
        assert_eq!(c.handle(failed(0, unreachable())), [abort(1), Command::Hurry]);
        assert_eq!(c.handle(gone()), outcome);
        let mut c = running();
        assert_eq!(c.handle(gone()), [abort(0), Command::Hurry]);
        assert_eq!(c.handle(failed(0, unreachable())), outcome);
        // Two that lie equally deep: the first.
        let mut c = running();
        c.handle(failed(0, fault("first")));
        assert_eq!(c.handle(failed(1, fault("second"))), ended(Outcome::Failed(fault("first"))));
    }

    #[test]
    fn there_are_no_steps_without_somebody_who_is_gone() {
        for idle in [true, false] {
            let mut c = if idle { Coordinator::new(2) } else { running() };
            c.handle(Event::Gone { rank: 0, why: "killed".into() });
            c.handle(failed(1, Cause::Aborted));
            let next = c.handle(Event::Start { step: 8, loaded: vec![0, 0], draws: vec![] });
            assert_eq!(next, ended(Outcome::Failed(Cause::Gone("killed".into()))), "idle: {idle}");
        }
    }

    #[test]
    fn what_goes_wrong_after_the_decision_tears() {
        let mut c = running();
        c.handle(voted(0));
        c.handle(voted(1));
        c.handle(Event::Decided { commit: true });
        assert_eq!(c.handle(Event::Fault(Cause::Aborted)), [], "a tail is not given up");
        assert_eq!(c.handle(Event::Gone { rank: 1, why: "killed".into() }), []);
        assert_eq!(c.handle(done(0, true)), ended(Outcome::Torn(Cause::Gone("killed".into()))));
        // But not where nobody was to update anything.
        let mut c = running();
        c.handle(voted(0));
        c.handle(voted(1));
        c.handle(Event::Decided { commit: false });
        c.handle(done(0, false));
        assert_eq!(c.handle(failed(1, fault("late"))), ended(Outcome::Failed(fault("late"))));
    }

    #[test]
    fn the_caller_may_end_a_body() {
        let mut c = running();
        c.handle(voted(0));
        assert_eq!(c.handle(Event::Fault(Cause::Aborted)), [abort(0), abort(1), Command::Hurry]);
        assert_eq!(c.handle(voted(1)), [], "too late");
        assert_eq!(c.handle(failed(0, Cause::Aborted)), []);
        assert_eq!(c.handle(failed(1, Cause::Aborted)), ended(Outcome::Failed(Cause::Aborted)));
    }

    #[test]
    fn who_does_not_answer_is_gone() {
        let mut c = running();
        assert_eq!(c.handle(Event::Expired), [], "a body takes as long as it takes");
        c.handle(failed(0, fault("a launch")));
        let silent = Cause::Gone("rank 1 does not answer".into());
        assert_eq!(c.handle(Event::Expired), ended(Outcome::Failed(silent.clone())));
        assert_eq!(c.state, State::Over(silent));
    }

    /// Reports of earlier steps, votes that come twice: nobody commits for them.
    #[test]
    fn what_belongs_to_another_step_counts_for_nothing() {
        let mut c = running();
        let old = |report| Event::From { rank: 0, report };
        assert_eq!(c.handle(old(Report::Voted { step: STEP - 1 })), []);
        assert_eq!(c.handle(old(Report::Failed { step: STEP - 1, cause: fault("old"), in_tail: false })), []);
        assert_eq!(c.handle(voted(0)), []);
        assert_eq!(c.handle(voted(0)), []);
        assert_eq!(c.handle(Event::Decided { commit: true }), []);
        assert_eq!(c.handle(voted(1)), [Command::Ask]);
    }
}
