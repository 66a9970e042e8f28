//! How a worker comes to take part in a term, and in the next when that has ended: the worker's side of coming together, as a
//! state machine without clock or socket. [`worker`](crate::worker) is the rim around it, and the simulation another one.
//!
//! ```text
//! Seeking ── Joined ──▶ Joined ── Welcome ──▶ Opening ── Opened ──▶ Meeting ── all are here ──▶ In
//!    ▲                                                                                           │
//!    └────────────────────── lost, and it has not been too long ────────────────────────────────┘
//! ```

use std::net::SocketAddr;
use std::time::Duration;

use crate::auth::Party;
use crate::machine::Exit;
use crate::message::Order;

/// How long the others may take to connect, once all have joined.
pub(crate) const MEETING_LIMIT: Duration = Duration::from_secs(60);

/// Something that happened.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Event {
    /// Time has passed.
    Tick,
    /// The driver was found, and knows that somebody would take part.
    Joined,
    /// The driver says something, before the term has begun here.
    Said(Order),
    /// The device is open.
    Opened,
    /// A connection to another one stands, whoever made it.
    Met(Party),
    /// Somebody was not let in.
    Refused(String),
    /// Whatever was being done has ended.
    Ended(Exit),
}

/// Something to do.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Command {
    /// Find the driver, and say that somebody would take part.
    Seek,
    /// Open a device by its name and number of threads.
    Open {
        device: String,
        threads: u32,
        /// Only what sending takes is to be measured.
        null: bool,
    },
    /// Connect to these, by rank, and let the others in.
    Meet { seat: Seat, reach: Vec<(u16, SocketAddr)> },
    /// This connection is nobody's who is waited for.
    TurnAway,
    /// Do what the driver says, until the term ends.
    TakePart,
    /// Nothing of the term that was to be is left.
    HangUp,
    /// Wait a little.
    Rest,
    /// The job is over here, or why it has to be.
    Finish(Result<(), String>),
}

/// Who a worker is in a term.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Seat {
    pub(crate) term: u32,
    pub(crate) rank: u16,
    /// Where all of them take connections.
    pub(crate) workers: Vec<SocketAddr>,
}

#[derive(PartialEq, Debug)]
enum State {
    Resting,
    Seeking,
    Joined,
    Opening(Seat),
    Meeting { seat: Seat, awaited: Vec<Party>, until: Duration, refused: Option<String> },
    In,
    Over,
}

/// Joins one term after the other.
pub(crate) struct Joining {
    patience: Duration,
    /// Since when it has been without a driver; `None` if there is to be one from the start.
    lost: Option<Duration>,
    state: State,
}

impl Joining {
    /// That looks for a driver for so long once it has lost it, and also at first if `may_wait`.
    pub(crate) fn new(patience: Duration, may_wait: bool, now: Duration) -> Self {
        Self { patience, lost: may_wait.then_some(now), state: State::Resting }
    }
    /// What is to be done now that this has happened. `now` is counted from whatever the rim likes, always the same.
    pub(crate) fn handle(&mut self, now: Duration, event: Event) -> Vec<Command> {
        match (event, &mut self.state) {
            (_, State::Over) => vec![],
            (Event::Tick, State::Resting) => {
                self.state = State::Seeking;
                vec![Command::Seek]
            }
            (Event::Tick, State::Meeting { seat, awaited, until, refused }) if now > *until => {
                let names: Vec<String> = awaited.iter().map(Party::to_string).collect();
                let last = refused.take().map_or(String::new(), |r| format!("; refused: {r}"));
                let (me, names) = (Party::Worker(seat.rank), names.join(", "));
                let why = format!("{me}: {names} did not connect within {MEETING_LIMIT:?}{last}");
                self.end(now, Exit::Lost(why))
            }
            (Event::Tick, _) => vec![],
            (Event::Joined, State::Seeking) => {
                self.state = State::Joined;
                vec![]
            }
            (Event::Said(order), State::Joined) => self.welcome(now, order),
            (Event::Said(order), State::Meeting { .. }) => self.said_early(now, order),
            (Event::Said(_), _) => vec![],
            (Event::Opened, State::Opening(seat)) => {
                let awaited = (0..seat.workers.len() as u16).filter(|rank| *rank != seat.rank).map(Party::Worker);
                let awaited = awaited.chain([Party::Driver]).collect();
                let higher = (0..).zip(&seat.workers).filter(|(rank, _)| *rank > seat.rank);
                let reach = higher.map(|(rank, address)| (rank, *address)).collect();
                let (seat, until, refused) = (seat.clone(), now + MEETING_LIMIT, None);
                self.state = State::Meeting { seat: seat.clone(), awaited, until, refused };
                vec![Command::Meet { seat, reach }]
            }
            (Event::Met(party), State::Meeting { awaited, refused, .. }) => {
                let Some(at) = awaited.iter().position(|p| *p == party) else {
                    *refused = Some(format!("{party} came twice, or should not have come"));
                    return vec![Command::TurnAway];
                };
                awaited.remove(at);
                if !awaited.is_empty() {
                    return vec![];
                }
                self.state = State::In;
                vec![Command::TakePart]
            }
            (Event::Met(_), _) => vec![Command::TurnAway],
            (Event::Refused(why), State::Meeting { refused, .. }) => {
                *refused = Some(why);
                vec![]
            }
            (Event::Joined | Event::Opened | Event::Refused(_), _) => vec![],
            (Event::Ended(exit), _) => self.end(now, exit),
        }
    }

    /// The driver's first word.
    fn welcome(&mut self, now: Duration, order: Order) -> Vec<Command> {
        let exit = match order {
            Order::Welcome { rank, workers, .. } if usize::from(rank) >= workers.len() => {
                Exit::Refused(format!("the driver wants a rank {rank} of {} workers", workers.len()))
            }
            Order::Welcome { term, rank, workers, device, threads, null } => {
                self.state = State::Opening(Seat { term, rank, workers });
                return vec![Command::Open { device, threads, null }];
            }
            Order::Refuse(why) => Exit::Refused(why),
            Order::Leave => Exit::Left,
            other => Exit::Refused(format!("the driver begins with {other:?}")),
        };
        self.end(now, exit)
    }
    /// There is nothing to be ordered yet.
    fn said_early(&mut self, now: Duration, order: Order) -> Vec<Command> {
        self.end(
            now,
            match order {
                Order::Leave => Exit::Left,
                other => Exit::Lost(format!("it is not joined to the others yet, and hears {other:?}")),
            },
        )
    }
    /// Whatever it is in ends.
    fn end(&mut self, now: Duration, exit: Exit) -> Vec<Command> {
        let before = std::mem::replace(&mut self.state, State::Over);
        let mut commands = vec![];
        if matches!(before, State::Meeting { .. }) {
            commands.push(Command::HangUp);
        }
        commands.push(match exit {
            Exit::Left => Command::Finish(Ok(())),
            Exit::Refused(why) => Command::Finish(Err(why)),
            Exit::Lost(why) => {
                // As long as it hangs on a driver it has one, whatever comes of it.
                let had = matches!(before, State::Joined | State::Opening(_) | State::Meeting { .. });
                if matches!(before, State::In) || (had && self.lost.is_some()) {
                    self.lost = Some(now);
                }
                if self.lost.is_none_or(|since| now.saturating_sub(since) > self.patience) {
                    Command::Finish(Err(why))
                } else {
                    self.state = State::Resting;
                    Command::Rest
                }
            }
        });
        commands
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }
    fn address(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }
    fn lost() -> Event {
        Event::Ended(Exit::Lost("gone".into()))
    }
    fn welcome() -> Event {
        let workers = vec![address(1), address(2), address(3)];
        Event::Said(Order::Welcome { term: 4, rank: 1, workers, device: "cpu".into(), threads: 2, null: true })
    }
    /// Looks for a driver from the start, and has found one.
    fn joined() -> Joining {
        let mut joining = Joining::new(PATIENCE, true, seconds(0));
        assert_eq!(joining.handle(seconds(0), Event::Tick), [Command::Seek]);
        assert_eq!(joining.handle(seconds(0), Event::Joined), []);
        joining
    }
    fn meeting() -> Joining {
        let mut joining = joined();
        let open = Command::Open { device: "cpu".into(), threads: 2, null: true };
        assert_eq!(joining.handle(seconds(1), welcome()), [open]);
        let meet = joining.handle(seconds(1), Event::Opened);
        assert!(matches!(&meet[..], [Command::Meet { seat, reach }] if seat.rank == 1 && *reach == [(2, address(3))]));
        joining
    }

    #[test]
    fn it_takes_part_once_all_others_are_met() {
        let mut joining = meeting();
        for party in [Party::Driver, Party::Worker(2)] {
            assert_eq!(joining.handle(seconds(1), Event::Met(party)), []);
            assert_eq!(joining.handle(seconds(1), Event::Met(party)), [Command::TurnAway]);
        }
        assert_eq!(joining.handle(seconds(1), Event::Met(Party::Worker(1))), [Command::TurnAway], "that is itself");
        assert_eq!(joining.handle(seconds(1), Event::Met(Party::Worker(0))), [Command::TakePart]);
        assert_eq!(joining.handle(seconds(9), Event::Ended(Exit::Left)), [Command::Finish(Ok(()))]);
    }

    #[test]
    fn whoever_does_not_come_is_named() {
        let mut joining = meeting();
        joining.handle(seconds(1), Event::Met(Party::Worker(2)));
        joining.handle(seconds(2), Event::Refused("a stranger".into()));
        assert_eq!(joining.handle(seconds(61), Event::Tick), []);
        // By then a driver that had anything to say would have said so.
        let mut joining = Joining { lost: None, ..joining };
        let commands = joining.handle(seconds(62), Event::Tick);
        let [Command::HangUp, Command::Finish(Err(why))] = &commands[..] else { panic!("{commands:?}") };
        assert!(why.contains("rank 0, the driver did not connect") && why.contains("refused: a stranger"), "{why}");
    }

    #[test]
    fn before_the_term_has_begun_it_is_only_welcomed_or_sent_away() {
        let refuse = || Event::Said(Order::Refuse("of another version".into()));
        let refused = Command::Finish(Err("of another version".into()));
        assert_eq!(joined().handle(seconds(1), refuse()), [refused]);
        assert_eq!(joined().handle(seconds(1), Event::Said(Order::Leave)), [Command::Finish(Ok(()))]);
        let commands = joined().handle(seconds(1), Event::Said(Order::Unload(1)));
        assert!(matches!(&commands[..], [Command::Finish(Err(why))] if why.contains("begins with")), "{commands:?}");
        let early = meeting().handle(seconds(1), Event::Said(Order::Unload(1)));
        assert_eq!(early, [Command::HangUp, Command::Rest]);
        let leave = meeting().handle(seconds(1), Event::Said(Order::Leave));
        assert_eq!(leave, [Command::HangUp, Command::Finish(Ok(()))]);
    }

    #[test]
    fn a_driver_that_has_to_be_there_is_not_waited_for() {
        let mut joining = Joining::new(PATIENCE, false, seconds(0));
        joining.handle(seconds(0), Event::Tick);
        assert_eq!(joining.handle(seconds(0), lost()), [Command::Finish(Err("gone".into()))]);
        // Also if it hangs up before anything has begun.
        let mut joining = Joining { lost: None, ..joined() };
        assert_eq!(joining.handle(seconds(1), lost()), [Command::Finish(Err("gone".into()))]);
    }

    /// It gave up a driver that was killed while all waited for one of them: that time counted as its own looking.
    #[test]
    fn it_looks_for_another_driver_as_long_as_it_may() {
        for mut joining in [joined(), meeting()] {
            assert_eq!(joining.handle(seconds(45), lost()).last(), Some(&Command::Rest));
            assert_eq!(joining.handle(seconds(45), Event::Tick), [Command::Seek]);
            assert_eq!(joining.handle(seconds(75), lost()), [Command::Rest]);
            assert_eq!(joining.handle(seconds(75), Event::Tick), [Command::Seek]);
            assert_eq!(joining.handle(seconds(76), lost()), [Command::Finish(Err("gone".into()))]);
        }
    }
}
