//! How a simulated driver sees steps through: what the rim around the real `Coordinator` does ([`driver`](crate::driver)).

use super::{ANSWER_LIMIT, Driver};
use crate::coordinator::{self, Outcome};
use crate::message::{Cause, Order, Report};
use crate::simulation::faults::Mutant;
use crate::simulation::network::{Body, Conn, Ground};

impl Driver {
    /// Begins a step.
    pub(in crate::simulation) fn step(&mut self, ground: &mut Ground, batch: u64) {
        ground.point(self.pid, true, "running");
        let Some(term) = &mut self.term else { return };
        term.attempt += 1;
        (term.due, term.asking, term.stopped, term.first) = (None, false, false, None);
        term.fetched.clear();
        let (step, number) = (term.attempt, term.number);
        let loaded = vec![0; term.remotes.len()];
        let feeds: Vec<Conn> = term.remotes.iter().filter_map(|r| r.data).collect();
        self.conduct(ground, coordinator::Event::Start { step, loaded, draws: vec![] });
        if !self.session.phase.is_stepping() {
            return;
        }
        for conn in feeds {
            ground.send(self.pid, conn, number, Body::Feed { step, batch });
        }
        if let Some(cause) = self.term.as_ref().and_then(|t| t.broken.clone()) {
            self.conduct(ground, coordinator::Event::Fault(cause));
        }
    }
    /// Hands the coordinator what has happened, while a step runs.
    pub(in crate::simulation) fn pump(&mut self, ground: &mut Ground) {
        while self.session.phase.is_stepping() && !ground.is_dead(self.pid) {
            let Some(term) = &mut self.term else { return };
            if term.asking {
                let next = match &term.broken {
                    Some(cause) => coordinator::Event::Fault(cause.clone()),
                    None if term.fetched.len() == term.remotes.len() => {
                        let commit = !ground.random.one_in(30);
                        coordinator::Event::Decided { commit }
                    }
                    None => return,
                };
                term.asking = false;
                self.conduct(ground, next);
                continue;
            }
            let Some(event) = term.happened.pop_front() else { return };
            self.conduct(ground, event);
        }
    }
    pub(super) fn conduct(&mut self, ground: &mut Ground, event: coordinator::Event) {
        let Some(term) = &mut self.term else { return };
        let number = term.number;
        let mut events = vec![event];
        match &events[0] {
            coordinator::Event::From { rank, report: Report::Voted { step } } if ground.is(Mutant::FirstVoteCounts) => {
                let (step, others) = (*step, (0..term.remotes.len() as u16).filter(|r| r != rank));
                let report = || Report::Voted { step };
                let votes: Vec<_> = others.map(|rank| coordinator::Event::From { rank, report: report() }).collect();
                events.extend(votes);
            }
            coordinator::Event::From { report: Report::Failed { cause, .. }, .. }
            | coordinator::Event::Fault(cause) => {
                term.first.get_or_insert(cause.clone());
            }
            coordinator::Event::Gone { why, .. } => {
                term.first.get_or_insert(Cause::Gone(why.clone()));
            }
            _ => {}
        }
        let commands: Vec<_> = events.into_iter().flat_map(|event| term.coordinator.handle(event)).collect();
        for command in commands {
            let Some(term) = &mut self.term else { return };
            match command {
                coordinator::Command::Send { rank, order } => {
                    if let Order::Decide { step, commit } = &order {
                        if !ground.is_dead(self.pid) {
                            ground.truth.decided(number, *step, *commit);
                        }
                        ground.point(self.pid, true, "deciding");
                    }
                    ground.send(self.pid, term.remotes[usize::from(rank)].conn, number, Body::Order(order, 0));
                }
                coordinator::Command::Ask => {
                    ground.point(self.pid, true, "voted");
                    term.asking = true;
                }
                coordinator::Command::Hurry => term.due = Some(ground.now + ANSWER_LIMIT),
                coordinator::Command::Finish(outcome) => {
                    if !ground.is_dead(self.pid) {
                        self.stepped(ground, outcome);
                    }
                    return;
                }
            }
        }
    }
    pub(super) fn stepped(&mut self, ground: &mut Ground, outcome: Outcome) {
        match outcome {
            Outcome::Ended { committed: true } => self.committed(ground),
            Outcome::Ended { committed: false } => {
                ground.truth.count("the caller says no");
                self.again();
            }
            Outcome::Failed(cause) if !cause.ends_term() => self.again(),
            Outcome::Torn(cause) => {
                ground.truth.count("torn");
                self.lose(ground, &cause);
            }
            Outcome::Failed(cause) => {
                let first = self.term.as_mut().and_then(|t| t.first.take()).filter(|_| ground.is(Mutant::FirstCause));
                self.lose(ground, &first.unwrap_or(cause));
            }
        }
    }
}
