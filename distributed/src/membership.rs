//! Who is waited for, welcomed, fenced and given up: the driver's side of coming together, as a state machine without clock or
//! socket. [`gathering`](crate::gathering) is the rim around it, and the simulation another one.
//!
//! ```text
//! Idle ── Call ──▶ Waiting ── enough have come ──▶ Beginning ── Began ──▶ Assembling ── all are ready ──▶ Idle
//!                     ▲                                                      │
//!                     └───────────── somebody does not see it through ──────┘
//! ```
//!
//! Those who wait are known by numbers that the rim gives them, one to each connection: a process that comes twice is two.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::HostError;

/// Who was there and has not come again by then is stopped, or cut off.
pub(crate) const FENCE_LIMIT: Duration = Duration::from_secs(2);
/// Who was welcomed and is not ready by then is waited for no longer.
const READY_LIMIT: Duration = Duration::from_secs(15);
/// How many terms in a row may fail to come about.
const ATTEMPTS: u32 = 8;

/// Something that happened.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Event {
    /// Workers are wanted. Those of `before` were there, and are to come again.
    Call { least: usize, patience: Duration, before: Vec<u32> },
    /// A worker has joined: its number, its process and the rank it asks for.
    Joined { number: u64, process: u32, rank: Option<u16> },
    /// The connection of one that waits has ended.
    Left { number: u64 },
    /// Somebody was not let in.
    Refused(String),
    /// Time has passed; so many workers can be expected, and whether nobody is wanted any more.
    Tick { expected: usize, given_up: bool },
    /// A term has been begun.
    Began { term: u32 },
    /// Who was welcomed as this rank is joined to all others.
    Ready { rank: u16 },
    /// Somebody who was welcomed does not see it through.
    Failed(String),
}

/// Something to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// These processes are not to come back as who they were.
    Fence(Vec<u32>),
    /// Begin a term.
    Begin,
    /// Join these to each other in this term, by rank.
    Welcome { term: u32, seats: Vec<u64> },
    /// Those who were welcomed are free to join the next term.
    Dismiss,
    /// They are together, or will not be.
    Finish(Result<(), HostError>),
}

/// Who has come and is in no term yet.
#[derive(Clone)]
struct Waiting {
    number: u64,
    process: u32,
    rank: Option<u16>,
}

enum State {
    Idle,
    Waiting,
    Beginning,
    Assembling { since: Duration, awaited: BTreeSet<u16>, processes: Vec<u32> },
}

/// What was asked for.
struct Call {
    /// Since when those are waited for who are away: a term that does not come about lets them go again, and each time they have
    /// as long to come back.
    since: Duration,
    least: usize,
    patience: Duration,
    before: Vec<u32>,
    fenced: bool,
    /// How many terms have not come about.
    failures: u32,
    /// Why somebody was not let in.
    refused: Option<String>,
    /// Why the last term that was begun did not come about.
    failed: Option<String>,
}

/// Brings workers together.
pub(crate) struct Membership {
    waiting: Vec<Waiting>,
    call: Call,
    state: State,
}

impl Membership {
    /// Of nobody.
    pub(crate) fn new() -> Self {
        let (since, least, patience, before) = (Duration::ZERO, 0, Duration::ZERO, vec![]);
        let call = Call { since, least, patience, before, fenced: true, failures: 0, refused: None, failed: None };
        Self { waiting: vec![], call, state: State::Idle }
    }
    /// Whether somebody has come who is in no term yet.
    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
    /// Whether those who were welcomed are getting ready.
    pub(crate) fn is_assembling(&self) -> bool {
        matches!(self.state, State::Assembling { .. })
    }

    /// What is to be done now that this has happened. `now` is counted from whatever the rim likes, always the same.
    pub(crate) fn handle(&mut self, now: Duration, event: Event) -> Vec<Command> {
        match event {
            Event::Call { least, patience, before } => {
                let fenced = before.is_empty();
                self.call =
                    Call { since: now, least, patience, before, fenced, failures: 0, refused: None, failed: None };
                self.state = State::Waiting;
                vec![]
            }
            Event::Joined { number, process, rank } => {
                self.waiting.push(Waiting { number, process, rank });
                vec![]
            }
            Event::Left { number } => {
                self.waiting.retain(|w| w.number != number);
                vec![]
            }
            Event::Refused(why) => {
                self.call.refused = Some(why);
                vec![]
            }
            Event::Tick { expected, given_up } => self.look(now, expected, given_up),
            Event::Began { term } => {
                let most = self.waiting.len().min(usize::from(u16::MAX));
                let joined: Vec<Waiting> = self.waiting.drain(..most).collect();
                let processes = joined.iter().map(|w| w.process).collect();
                let seats = by_rank(joined);
                let awaited = (0..seats.len() as u16).collect();
                self.state = State::Assembling { since: now, awaited, processes };
                vec![Command::Welcome { term, seats }]
            }
            Event::Ready { rank } => {
                let State::Assembling { awaited, .. } = &mut self.state else { return vec![] };
                awaited.remove(&rank);
                if !awaited.is_empty() {
                    return vec![];
                }
                self.finish(Ok(()))
            }
            Event::Failed(why) => self.fail(now, why),
        }
    }

    /// A term does not come about.
    fn fail(&mut self, now: Duration, why: String) -> Vec<Command> {
        let State::Assembling { processes, .. } = &mut self.state else { return vec![] };
        let call = &mut self.call;
        call.before.append(processes);
        (call.since, call.fenced) = (now, false);
        call.failures += 1;
        let mut commands = vec![Command::Dismiss];
        if call.failures == ATTEMPTS {
            commands.extend(self.finish(Err(HostError::Refused(why))));
        } else {
            call.failed = Some(why);
            self.state = State::Waiting;
        }
        commands
    }
    fn finish(&mut self, outcome: Result<(), HostError>) -> Vec<Command> {
        self.state = State::Idle;
        vec![Command::Finish(outcome)]
    }
    fn look(&mut self, now: Duration, expected: usize, given_up: bool) -> Vec<Command> {
        let (waited, call) = (now.saturating_sub(self.call.since), &mut self.call);
        let late = waited > call.patience;
        match &self.state {
            State::Idle | State::Beginning => vec![],
            State::Assembling { since, awaited, .. } => {
                if now.saturating_sub(*since) > READY_LIMIT || given_up {
                    let why = format!("{} workers did not get ready in time", awaited.len());
                    return self.fail(now, why);
                }
                vec![]
            }
            State::Waiting => {
                let joined = self.waiting.len();
                if joined >= expected.max(1) || (late && joined >= call.least.max(1)) {
                    self.state = State::Beginning;
                    return vec![Command::Begin];
                }
                if late || expected < call.least.max(1) || given_up {
                    if let Some(why) = call.failed.take() {
                        return self.finish(Err(HostError::Refused(why)));
                    }
                    let world = expected.max(call.least);
                    let missing =
                        HostError::Missing { joined, world, seconds: waited.as_secs(), last: call.refused.take() };
                    return self.finish(Err(missing));
                }
                if !call.fenced && waited > FENCE_LIMIT {
                    call.fenced = true;
                    let mut away = call.before.clone();
                    away.retain(|process| self.waiting.iter().all(|w| w.process != *process));
                    return vec![Command::Fence(away)];
                }
                vec![]
            }
        }
    }
}

/// In the order of ranks: those who ask for one have it, if it is there and nobody else's.
fn by_rank(waiting: Vec<Waiting>) -> Vec<u64> {
    let mut seats: Vec<Option<u64>> = waiting.iter().map(|_| None).collect();
    let mut others = vec![];
    for one in waiting {
        match one.rank.and_then(|rank| seats.get_mut(usize::from(rank))).filter(|seat| seat.is_none()) {
            Some(seat) => *seat = Some(one.number),
            None => others.push(one.number),
        }
    }
    let mut others = others.into_iter();
    seats.into_iter().filter_map(|seat| seat.or_else(|| others.next())).collect()
}
