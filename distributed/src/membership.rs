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
/// Who was welcomed and is not ready by then is waited for no longer: that includes opening its device.
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
                    let mut away = std::mem::take(&mut call.before);
                    away.sort_unstable();
                    away.dedup();
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

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }
    /// As text: an error of the system has no other likeness.
    fn said(commands: &[Command]) -> String {
        format!("{commands:?}")
    }
    fn tick(expected: usize) -> Event {
        Event::Tick { expected, given_up: false }
    }
    fn joined(number: u64) -> Event {
        Event::Joined { number, process: 100 + number as u32, rank: None }
    }
    /// That calls for those of the processes 101 and 102, at one second.
    fn called(before: &[u32]) -> Membership {
        let mut membership = Membership::new();
        let call = Event::Call { least: 1, patience: PATIENCE, before: before.to_vec() };
        assert!(membership.handle(seconds(1.0), call).is_empty());
        membership
    }
    /// Two have come and are welcomed to term 7, at the given time.
    fn assembling(membership: &mut Membership, now: f64, numbers: [u64; 2]) {
        numbers.into_iter().for_each(|n| drop(membership.handle(seconds(now), joined(n))));
        assert_eq!(said(&membership.handle(seconds(now), tick(2))), "[Begin]");
        let welcome = membership.handle(seconds(now), Event::Began { term: 7 });
        assert_eq!(said(&welcome), format!("[Welcome {{ term: 7, seats: {numbers:?} }}]"));
    }

    #[test]
    fn a_term_begins_once_all_are_there_and_ready() {
        let mut m = called(&[]);
        m.handle(seconds(1.0), joined(1));
        assert!(m.handle(seconds(60.0), tick(2)).is_empty(), "one is missing");
        m.handle(seconds(60.2), Event::Left { number: 1 });
        assembling(&mut m, 60.5, [2, 3]);
        assert!(m.handle(seconds(61.0), Event::Ready { rank: 1 }).is_empty());
        assert!(m.handle(seconds(61.0), Event::Ready { rank: 1 }).is_empty(), "it has said so");
        assert_eq!(said(&m.handle(seconds(61.0), Event::Ready { rank: 0 })), "[Finish(Ok(()))]");
        assert!(!m.has_waiting());
    }

    #[test]
    fn ranks_go_to_who_asks_first() {
        let mut m = called(&[]);
        for (number, rank) in [(1, None), (2, Some(0)), (3, Some(0)), (4, Some(9)), (5, Some(3))] {
            m.handle(seconds(1.0), Event::Joined { number, process: 0, rank });
        }
        m.handle(seconds(1.0), Event::Left { number: 4 });
        m.handle(seconds(1.0), tick(4));
        let welcome = m.handle(seconds(1.0), Event::Began { term: 1 });
        assert_eq!(said(&welcome), "[Welcome { term: 1, seats: [2, 1, 3, 5] }]");
    }

    #[test]
    fn who_is_not_there_in_time_is_not_waited_for() {
        let mut m = called(&[]);
        m.handle(seconds(1.0), joined(1));
        assert!(m.handle(seconds(61.0), tick(2)).is_empty());
        assert_eq!(said(&m.handle(seconds(61.1), tick(2))), "[Begin]");
        let mut m = called(&[]);
        m.handle(seconds(2.0), Event::Refused("a stranger".into()));
        let error = said(&m.handle(seconds(61.1), tick(2)));
        assert!(error.contains("Missing { joined: 0, world: 2, seconds: 60, last: Some(\"a stranger\") }"), "{error}");
        let error = said(&called(&[]).handle(seconds(1.1), tick(0)));
        assert!(error.contains("Missing"), "nobody is left to come: {error}");
    }

    /// A well one was fenced as soon as a term did not come about that it was welcomed to.
    #[test]
    fn who_was_let_go_has_time_to_come_back_each_time() {
        let mut m = called(&[101, 102]);
        assert!(m.handle(seconds(3.0), tick(2)).is_empty());
        assembling(&mut m, 3.0, [1, 2]);
        assert_eq!(said(&m.handle(seconds(8.0), Event::Failed("cannot reach".into()))), "[Dismiss]");
        assert!(m.handle(seconds(8.1), tick(2)).is_empty(), "it is too early to fence anybody");
        m.handle(seconds(8.1), joined(1));
        // And once only.
        assert_eq!(said(&m.handle(seconds(10.1), tick(2))), "[Fence([102])]");
        assert!(m.handle(seconds(10.2), tick(2)).is_empty());
    }

    /// One that was stopped while a term began ended the job, after a minute.
    #[test]
    fn who_does_not_get_ready_is_fenced_like_others() {
        let mut m = called(&[]);
        assembling(&mut m, 50.0, [1, 2]);
        m.handle(seconds(50.1), Event::Ready { rank: 0 });
        assert!(m.handle(seconds(65.0), tick(2)).is_empty());
        assert_eq!(said(&m.handle(seconds(65.1), tick(2))), "[Dismiss]");
        m.handle(seconds(65.2), joined(1));
        assert!(m.handle(seconds(66.0), tick(2)).is_empty());
        assert_eq!(said(&m.handle(seconds(67.2), tick(2))), "[Fence([102])]");
    }

    /// Where it had taken long until all had come, one that was lost right then ended the job.
    #[test]
    fn a_term_that_does_not_come_about_is_tried_again_however_long_it_took() {
        let mut m = called(&[]);
        for attempt in 1..ATTEMPTS {
            assembling(&mut m, 70.0, [1, 2]);
            let dismissed = m.handle(seconds(70.0), Event::Failed("it is gone".into()));
            assert_eq!(said(&dismissed), "[Dismiss]", "{attempt}");
            assert!(m.handle(seconds(70.0), Event::Failed("it too".into())).is_empty());
        }
        assembling(&mut m, 70.0, [1, 2]);
        let last = said(&m.handle(seconds(70.0), Event::Failed("it is gone".into())));
        assert_eq!(last, "[Dismiss, Finish(Err(Refused(\"it is gone\")))]");
    }

    #[test]
    fn nobody_is_waited_for_whom_nobody_wants() {
        let given_up = || Event::Tick { expected: 2, given_up: true };
        assert!(said(&called(&[]).handle(seconds(1.1), given_up())).contains("Missing"));
        let mut m = called(&[]);
        assembling(&mut m, 1.0, [1, 2]);
        assert_eq!(said(&m.handle(seconds(1.1), given_up())), "[Dismiss]");
        assert!(said(&m.handle(seconds(1.1), given_up())).contains("did not get ready"));
    }
}
