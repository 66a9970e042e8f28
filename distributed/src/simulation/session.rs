//! What the session of a simulated driver does, by its rules: variables are made from the newest manifest or the start, steps
//! that were lost are done again, and then it goes on, saves now and then, and moves to more workers if there are more. The
//! rules are those of `runtime/src/session/recovery.rs`; variables are one number, which says which steps made it.

use std::collections::VecDeque;
use std::time::Duration;

use thalweg_graph::plan::Memory;

use super::driver::Driver;
use super::faults::Mutant;
use super::network::{Body, Ground, Timer};
use crate::message::{Cause, Order};

/// As in `recovery.rs`.
const ATTEMPTS: u32 = 8;

/// What is being done.
#[derive(Debug)]
pub(super) enum Phase {
    /// Workers are called together.
    Gathering,
    /// One worker after the other is asked something.
    Asking {
        queue: VecDeque<(u16, Order, u64)>,
        asked: Option<u16>,
        answers: Vec<u64>,
        then: Then,
    },
    /// Nothing; something may begin.
    Between,
    Stepping,
    /// A save that is running has to end before workers are called together.
    Saving,
}

/// What follows answers.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Then {
    GoOn,
    Save,
    Grow,
    End,
}

impl Phase {
    /// Who is asked.
    pub(super) fn asked(&self) -> Option<u16> {
        if let Phase::Asking { asked, .. } = self { *asked } else { None }
    }
    pub(super) fn is_stepping(&self) -> bool {
        matches!(self, Phase::Stepping)
    }
}

pub(super) struct Session {
    pub(super) phase: Phase,
    /// How many steps make the job, and after how many each it saves.
    total: u64,
    every: u64,
    /// Where variables are made from: after so many steps they were that.
    from: (u64, u64),
    /// How many steps they have seen that are in the workers now.
    at: u64,
    /// How many the caller knows of.
    pub(super) done: u64,
    /// What is being written.
    saving: Option<(u64, u64)>,
    saved: u64,
    recovering: bool,
    attempts: u32,
}

impl Session {
    /// From what is on the disk.
    pub(super) fn new(ground: &mut Ground) -> Self {
        let start = (0, ground.truth.variables(0));
        let newest = ground.disk.manifests.last_key_value().map(|(steps, _)| *steps);
        let from = newest.map(|steps| (steps, ground.disk.shards.get(&steps).map(|(value, _)| *value)));
        let from = from.map_or(start, |(steps, value)| {
            if value.is_none() {
                ground.truth.accuse(|| format!("the manifest after {steps} steps names what is not on the disk"));
            }
            (steps, value.unwrap_or_default())
        });
        let (total, every) = ground.size;
        let (at, done, saved) = (from.0, from.0, from.0);
        Self {
            phase: Phase::Gathering,
            total,
            every,
            from,
            at,
            done,
            saving: None,
            saved,
            recovering: false,
            attempts: 0,
        }
    }
}

impl Driver {
    fn all(&self) -> std::ops::Range<u16> {
        0..self.term.as_ref().map_or(0, |t| t.remotes.len() as u16)
    }
    fn ask(&mut self, orders: Vec<(u16, Order, u64)>, then: Then) {
        self.session.phase = Phase::Asking { queue: orders.into(), asked: None, answers: vec![], then };
    }
    /// Everything on the workers there are now.
    pub(super) fn restore(&mut self, ground: &mut Ground) {
        let (steps, value) = self.session.from;
        self.session.at = steps;
        let orders = self.all().flat_map(|rank| {
            let orders = [Order::ReserveState(8), Order::Load([0; 32]), Order::Write(Memory::State, 0)];
            orders.map(|order| (rank, order, value))
        });
        let orders = orders.collect();
        ground.note(|| format!("driver: makes variables as after {steps} steps"));
        self.ask(orders, Then::GoOn);
    }
    pub(super) fn answered(&mut self, ground: &mut Ground, rank: u16, result: Result<u64, String>) {
        let Phase::Asking { asked, answers, .. } = &mut self.session.phase else { return };
        if *asked != Some(rank) {
            return;
        }
        *asked = None;
        match result {
            Ok(value) => answers.push(value),
            Err(why) => ground.truth.accuse(|| format!("rank {rank} cannot do what it is told: {why}")),
        }
    }
    /// Goes on as far as it can.
    pub(super) fn advance(&mut self, ground: &mut Ground) {
        while !ground.is_dead(self.pid) && self.ended.is_none() {
            self.pump(ground);
            match &mut self.session.phase {
                Phase::Gathering | Phase::Stepping => return,
                Phase::Saving if self.session.saving.is_some() => return,
                Phase::Saving => self.gather(ground),
                Phase::Between => {
                    self.begin(ground);
                    if matches!(self.session.phase, Phase::Between) {
                        return;
                    }
                }
                Phase::Asking { asked: Some(rank), .. } => {
                    let rank = *rank;
                    if !self.is_over(rank) {
                        return;
                    }
                    self.lose(ground, &Cause::Gone(format!("rank {rank} is gone")));
                }
                Phase::Asking { queue, asked, answers, then } => match queue.pop_front() {
                    Some((rank, order, value)) => {
                        *asked = Some(rank);
                        match order {
                            Order::Load(_) => ground.point(self.pid, true, "loading"),
                            Order::Write(..) => ground.point(self.pid, true, "restoring"),
                            _ => {}
                        }
                        let Some(term) = &self.term else { return };
                        ground.send(
                            self.pid,
                            term.remotes[usize::from(rank)].conn,
                            term.number,
                            Body::Order(order, value),
                        );
                    }
                    None => {
                        let (answers, then) = (std::mem::take(answers), *then);
                        self.session.phase = Phase::Between;
                        self.answers(ground, &answers, then);
                    }
                },
            }
        }
    }
    fn answers(&mut self, ground: &mut Ground, answers: &[u64], then: Then) {
        let done = self.session.done;
        if then != Then::GoOn {
            for value in answers {
                ground.truth.read("the variables that were read", done, *value);
            }
        }
        match then {
            Then::GoOn => {}
            Then::Save => {
                ground.point(self.pid, true, "snapshot");
                self.session.saving = answers.first().map(|value| (done, *value));
                ground.wake(self.pid, Duration::from_millis(1), Timer::Save(0));
            }
            Then::Grow => {
                ground.truth.count("moves to more workers");
                self.session.from = (done, answers.first().copied().unwrap_or_default());
                self.recover(ground);
            }
            Then::End => self.leave(ground),
        }
    }
    /// What is next.
    fn begin(&mut self, ground: &mut Ground) {
        let read = |rank| (rank, Order::Read(Memory::State, 0, 8), 0);
        let has_more = self.has_more(ground);
        let session = &mut self.session;
        if session.at < session.done && ground.is(Mutant::ReplaysOneTooFew) && session.at + 1 == session.done {
            session.at += 1;
        }
        if session.at < session.done {
            ground.point(self.pid, true, "replaying");
            let batch = session.at;
            session.phase = Phase::Stepping;
            return self.step(ground, batch);
        }
        if std::mem::take(&mut session.recovering) {
            session.attempts = 0;
            let done = session.done;
            ground.truth.count("recovered");
            ground.note(|| format!("driver: goes on after {done} steps"));
        }
        if session.done == session.total {
            if session.saving.is_none() {
                let orders = self.all().map(read).collect();
                self.ask(orders, Then::End);
            }
        } else if session.done >= session.saved + session.every && session.saving.is_none() {
            self.ask(vec![read(0)], Then::Save);
        } else if has_more {
            ground.point(self.pid, true, "growing");
            self.ask(vec![read(0)], Then::Grow);
        } else {
            let batch = session.done;
            session.phase = Phase::Stepping;
            self.step(ground, batch);
        }
    }
    /// A step has been committed by all.
    pub(super) fn committed(&mut self, ground: &mut Ground) {
        let session = &mut self.session;
        session.phase = Phase::Between;
        if session.at < session.done {
            ground.truth.count("steps done again");
        } else {
            session.done += 1;
        }
        session.at += 1;
    }
    /// A step has come to nothing, and the caller wants it again.
    pub(super) fn again(&mut self) {
        self.session.phase = Phase::Between;
    }
    /// Workers are lost.
    pub(super) fn lose(&mut self, ground: &mut Ground, cause: &Cause) {
        if ground.is_dead(self.pid) {
            return;
        }
        let (term, step) = self.term.as_ref().map_or((0, 0), |t| (t.number, t.attempt));
        ground.note(|| format!("driver: term {term} ends: {cause:?}"));
        ground.truth.told(term, step, self.session.phase.is_stepping(), cause, ground.now);
        self.session.attempts += 1;
        if self.session.attempts > ATTEMPTS {
            return self.give_up(ground, cause.text());
        }
        self.recover(ground);
    }
    fn recover(&mut self, ground: &mut Ground) {
        self.session.recovering = true;
        if self.session.saving.is_some() {
            self.session.phase = Phase::Saving;
        } else {
            self.gather(ground);
        }
    }
    /// A save goes on, at one point after the other at which it may be cut short.
    pub(super) fn save(&mut self, ground: &mut Ground, stage: u64) {
        let Some((steps, value)) = self.session.saving else { return };
        if ground.spend(self.pid) {
            return;
        }
        let first = ground.is(Mutant::ManifestFirst);
        let disk = &mut ground.disk;
        match stage {
            0 => {
                disk.shards.insert(steps, (value, false));
                if first {
                    disk.manifests.insert(steps, true);
                }
                ground.point(self.pid, true, "unsynced");
            }
            1 => {
                disk.shards.insert(steps, (value, !first));
                ground.point(self.pid, true, "unpublished");
            }
            2 => {
                disk.manifests.insert(steps, first);
                ground.point(self.pid, true, "published");
            }
            _ => {
                disk.shards.insert(steps, (value, true));
                disk.manifests.insert(steps, true);
                let session = &mut self.session;
                (session.saving, session.saved, session.from) = (None, steps, (steps, value));
                return ground.truth.count("saved");
            }
        }
        let after = ground.random.micros(200, 6_000);
        ground.wake(self.pid, after, Timer::Save(stage + 1));
    }
}
