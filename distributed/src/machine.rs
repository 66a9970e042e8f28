//! A worker as a state machine, like the [coordinator](crate::coordinator): no clock, no socket, no device. It does one thing
//! at a time, in the order in which it was told to; only a body can be given up.

use std::sync::Arc;

use thalweg_runtime::checkpoint::ShardReport;

use crate::message::{Cause, Drawn, Order, Report};

/// Something that happened.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Event {
    /// The driver wants something; bytes came with it.
    Order(Order, Vec<u8>),
    /// What was to be [done](Command::Do) is.
    Done(Result<u64, String>, Vec<u8>),
    /// The devices' bodies have ended, and wait for the decision.
    BodyEnded,
    /// The step has ended on the devices; the report says so.
    Ended(Report),
    /// What was copied is written, whatever runs meanwhile.
    Saved(Result<ShardReport, String>),
    /// A connection to another one broke.
    Broken(Cause),
    /// The connection to the driver ended.
    DriverGone(String),
}

/// Something to do.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Command {
    Report(Report, Vec<u8>),
    /// Something between steps.
    Do(Order, Vec<u8>),
    /// A step.
    Run {
        step: u64,
        loaded: u32,
        draws: Arc<[Drawn]>,
    },
    /// The devices are to end their bodies.
    Stop,
    /// What the devices wait for once their bodies have ended.
    Decide {
        commit: bool,
    },
    Exit(Exit),
}

/// Why a term ends here.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Exit {
    /// The job is over.
    Left,
    /// The driver is gone; there may be another term.
    Lost(String),
    /// What the driver wants makes no sense, or it wants nothing of this worker.
    Refused(String),
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum State {
    Idle,
    /// Something between steps is being done.
    Busy,
    Body(u64),
    /// A body that is given up.
    Stopping(u64),
    Voted(u64),
    Tail(u64),
}

/// Does what the driver says.
pub(crate) struct Machine {
    state: State,
    /// What broke: it ends the step that runs, and all later ones.
    broken: Option<Cause>,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self { state: State::Idle, broken: None }
    }
    /// What is to be done now that this has happened.
    pub(crate) fn handle(&mut self, event: Event) -> Vec<Command> {
        match event {
            Event::Order(order, bytes) => self.order(order, bytes),
            Event::Done(result, bytes) => {
                self.state = State::Idle;
                vec![Command::Report(Report::Answer(result), bytes)]
            }
            Event::BodyEnded => match self.state {
                State::Body(step) => {
                    self.state = State::Voted(step);
                    vec![Command::Report(Report::Voted { step }, vec![])]
                }
                _ => vec![Command::Decide { commit: false }],
            },
            Event::Ended(report) => {
                let report = self.deepest(report);
                self.state = State::Idle;
                vec![Command::Report(report, vec![])]
            }
            Event::Saved(result) => vec![Command::Report(Report::Saved(result), vec![])],
            Event::Broken(cause) => {
                self.broken.get_or_insert(cause);
                // Who has voted has all it needs, and the decision is the driver's.
                self.stop()
            }
            Event::DriverGone(why) => {
                let mut commands = match self.state {
                    State::Voted(_) => vec![Command::Decide { commit: false }],
                    _ => self.stop(),
                };
                commands.push(Command::Exit(Exit::Lost(why)));
                commands
            }
        }
    }
    fn stop(&mut self) -> Vec<Command> {
        let State::Body(step) = self.state else { return vec![] };
        self.state = State::Stopping(step);
        vec![Command::Stop]
    }
    fn order(&mut self, order: Order, bytes: Vec<u8>) -> Vec<Command> {
        match (order, self.state) {
            (Order::Leave, _) => vec![Command::Exit(Exit::Left)],
            (Order::Refuse(why), _) => vec![Command::Exit(Exit::Refused(why))],
            (Order::Run { step, loaded, draws }, State::Idle) => match self.broken.clone() {
                Some(cause) => {
                    vec![Command::Report(Report::Failed { step, cause, in_tail: false }, vec![])]
                }
                None => {
                    self.state = State::Body(step);
                    vec![Command::Run { step, loaded, draws }]
                }
            },
            (Order::Decide { step, commit }, State::Voted(voted)) if step == voted => {
                self.state = State::Tail(step);
                vec![Command::Decide { commit }]
            }
            (Order::Abort { step }, State::Body(running)) if step == running => self.stop(),
            (Order::Abort { step }, State::Voted(voted)) if step == voted => {
                self.state = State::Stopping(step);
                vec![Command::Decide { commit: false }]
            }
            // It has ended here, or is being given up already.
            (Order::Abort { .. }, _) => vec![],
            (order @ (Order::Run { .. } | Order::Decide { .. } | Order::Welcome { .. }), state) => {
                let why = format!("the driver says {order:?} to a worker that is {state:?}");
                vec![Command::Exit(Exit::Refused(why))]
            }
            (order, State::Idle) => {
                self.state = State::Busy;
                vec![Command::Do(order, bytes)]
            }
            (order, state) => {
                let why = format!("the driver wants {order:?} of a worker that is {state:?}");
                vec![Command::Exit(Exit::Refused(why))]
            }
        }
    }
    /// That a body was stopped is not why; nor has a step gone well of which it had ended already, just then.
    fn deepest(&self, report: Report) -> Report {
        match (report, &self.broken, self.state) {
            (Report::Failed { step, cause: Cause::Aborted, in_tail }, Some(cause), _) => {
                Report::Failed { step, cause: cause.clone(), in_tail }
            }
            (Report::Done { step, committed: false, .. }, Some(cause), State::Stopping(_)) => {
                Report::Failed { step, cause: cause.clone(), in_tail: false }
            }
            (report, ..) => report,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: u64 = 7;

    fn order(order: Order) -> Event {
        Event::Order(order, vec![])
    }
    fn said(report: Report) -> Vec<Command> {
        vec![Command::Report(report, vec![])]
    }
    fn failed(cause: Cause) -> Report {
        Report::Failed { step: STEP, cause, in_tail: false }
    }
    fn running() -> Machine {
        let mut machine = Machine::new();
        let run = order(Order::Run { step: STEP, loaded: 2, draws: [].into() });
        assert_eq!(machine.handle(run), [Command::Run { step: STEP, loaded: 2, draws: [].into() }]);
        machine
    }

    #[test]
    fn a_step_is_a_body_a_vote_and_a_tail() {
        let mut machine = running();
        assert_eq!(machine.handle(Event::BodyEnded), said(Report::Voted { step: STEP }));
        let decided = machine.handle(order(Order::Decide { step: STEP, commit: true }));
        assert_eq!(decided, [Command::Decide { commit: true }]);
        assert_eq!(machine.handle(order(Order::Abort { step: STEP })), [], "a tail is not given up");
        let done = Report::Done { step: STEP, committed: true, carried: vec![] };
        assert_eq!(machine.handle(Event::Ended(done.clone())), said(done));
        assert_eq!(machine.state, State::Idle);
    }

    #[test]
    fn a_body_is_given_up_before_and_after_the_vote() {
        let mut machine = running();
        assert_eq!(machine.handle(order(Order::Abort { step: STEP - 1 })), [], "another step");
        assert_eq!(machine.handle(order(Order::Abort { step: STEP })), [Command::Stop]);
        // It was just about to end.
        assert_eq!(machine.handle(Event::BodyEnded), [Command::Decide { commit: false }]);
        assert_eq!(machine.handle(Event::Ended(failed(Cause::Aborted))), said(failed(Cause::Aborted)));
        let mut machine = running();
        machine.handle(Event::BodyEnded);
        assert_eq!(machine.handle(order(Order::Abort { step: STEP })), [Command::Decide { commit: false }]);
    }

    #[test]
    fn what_broke_is_the_cause_and_ends_later_steps_too() {
        let broken = || Cause::Unreachable("rank 1".into());
        let mut machine = running();
        assert_eq!(machine.handle(Event::Broken(broken())), [Command::Stop]);
        assert_eq!(machine.handle(Event::Ended(failed(Cause::Aborted))), said(failed(broken())));
        let next = machine.handle(order(Order::Run { step: STEP, loaded: 0, draws: [].into() }));
        assert_eq!(next, said(failed(broken())));
        // The body had just ended: nobody waits for a vote that does not come.
        let mut machine = running();
        machine.handle(Event::Broken(broken()));
        assert_eq!(machine.handle(Event::BodyEnded), [Command::Decide { commit: false }]);
        let done = Report::Done { step: STEP, committed: false, carried: vec![] };
        assert_eq!(machine.handle(Event::Ended(done)), said(failed(broken())));
        // Who has voted waits for the decision.
        let mut machine = running();
        machine.handle(Event::BodyEnded);
        assert_eq!(machine.handle(Event::Broken(broken())), []);
        let decided = machine.handle(order(Order::Decide { step: STEP, commit: true }));
        assert_eq!(decided, [Command::Decide { commit: true }]);
    }

    #[test]
    fn without_the_driver_nothing_is_committed() {
        let gone = || Event::DriverGone("it is gone".into());
        let exit = || Command::Exit(Exit::Lost("it is gone".into()));
        assert_eq!(Machine::new().handle(gone()), [exit()]);
        assert_eq!(running().handle(gone()), [Command::Stop, exit()]);
        let mut machine = running();
        machine.handle(Event::BodyEnded);
        assert_eq!(machine.handle(gone()), [Command::Decide { commit: false }, exit()]);
    }

    #[test]
    fn orders_out_of_turn_end_it() {
        for wrong in [
            Order::Load([0; 32]),
            Order::Run { step: 8, loaded: 0, draws: [].into() },
            Order::Decide { step: STEP, commit: true },
        ] {
            let commands = running().handle(order(wrong));
            assert!(matches!(&commands[..], [Command::Exit(Exit::Refused(_))]), "{commands:?}");
        }
        let mut machine = Machine::new();
        assert!(matches!(machine.handle(order(Order::Unload(1)))[..], [Command::Do(..)]));
        assert_eq!(machine.handle(Event::Done(Ok(0), vec![])), said(Report::Answer(Ok(0))));
        assert_eq!(machine.handle(order(Order::Leave)), [Command::Exit(Exit::Left)]);
    }
}
