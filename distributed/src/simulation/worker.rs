//! A simulated worker: the real [`Joining`] and the real [`Machine`], and around them what their rims do
//! ([`worker`](crate::worker), [`data`](crate::data)), in virtual time. Its device holds one number.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::faults::Mutant;
use super::network::{Body, Conn, Envelope, Ground, Notice, Pid, Purpose, Timer, mix};
use crate::auth::Party;
use crate::joining::{self, Joining, Seat};
use crate::machine::{self, Exit, Machine};
use crate::message::{Cause, Order, Report};
use crate::{BEAT, JOINING, VERSION};

/// As in `worker.rs`.
const RETRY: Duration = Duration::from_millis(20);
/// As in `hosts.rs`.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

mod coming;

/// What the hands do.
#[derive(Clone, PartialEq, Debug)]
enum Hands {
    Idle,
    Doing(Order, u64),
    /// The body computes, and then waits for what it is sent.
    Body {
        sent: bool,
        fetched: bool,
    },
    Voted,
    Tail {
        commit: bool,
    },
}

pub(super) struct Worker {
    pub(super) pid: Pid,
    pub(super) rank: u16,
    joining: Joining,
    seat: Option<Seat>,
    port: Option<u16>,
    driver: Option<Conn>,
    /// Is connected to, and has joined.
    joined: bool,
    /// Who is being reached, and who is connected.
    reaching: BTreeMap<Conn, Party>,
    peers: BTreeMap<Party, Conn>,
    /// Who has knocked before anybody opened.
    knocks: Vec<(Conn, Purpose)>,
    /// What the driver has said before the others were met.
    early: VecDeque<Option<Envelope>>,
    opening: bool,

    machine: Option<Machine>,
    hands: Hands,
    turn: u64,
    ballots: VecDeque<bool>,
    stopped: bool,
    broken: bool,
    leaving: Option<Exit>,
    step: u64,
    running: bool,
    frames: BTreeMap<Party, VecDeque<Body>>,
    hops: BTreeMap<u16, u64>,
    batch: Option<u64>,
    value: u64,

    /// When it last had to do with a driver.
    met: Duration,
    pub(super) ended: Option<Result<(), String>>,
}

impl Worker {
    pub(super) fn start(pid: Pid, rank: u16, ground: &mut Ground) -> Self {
        let mut worker = Self {
            pid,
            rank,
            joining: Joining::new(PATIENCE, true, ground.now),
            seat: None,
            port: None,
            driver: None,
            joined: false,
            reaching: BTreeMap::new(),
            peers: BTreeMap::new(),
            knocks: vec![],
            early: VecDeque::new(),
            opening: false,
            machine: None,
            hands: Hands::Idle,
            turn: 0,
            ballots: VecDeque::new(),
            stopped: false,
            broken: false,
            leaving: None,
            step: 0,
            running: false,
            frames: BTreeMap::new(),
            hops: BTreeMap::new(),
            batch: None,
            value: 0,
            met: ground.now,
            ended: None,
        };
        worker.join(ground, joining::Event::Tick);
        ground.wake(pid, BEAT, Timer::Beat);
        worker
    }
    fn me(&self) -> Party {
        Party::Worker(self.seat.as_ref().map_or(0, |s| s.rank))
    }

    fn take_part(&mut self, ground: &mut Ground) {
        (self.hands, self.stopped, self.leaving, self.broken) = (Hands::Idle, false, None, false);
        (self.step, self.running, self.value) = (0, false, 0);
        self.ballots.clear();
        self.frames.clear();
        self.machine = Some(Machine::new());
        ground.point(self.pid, false, "ready");
        self.report(ground, Report::Ready, 0);
    }
    fn report(&mut self, ground: &mut Ground, report: Report, value: u64) {
        let (Some(conn), Some(seat)) = (self.driver, &self.seat) else { return };
        if let (Report::Done { step, .. } | Report::Failed { step, .. }, false) = (&report, ground.is_dead(self.pid)) {
            ground.truth.answered(seat.term, *step, seat.rank);
        }
        ground.send(self.pid, conn, seat.term, Body::Report(report, value));
    }

    pub(super) fn notice(&mut self, ground: &mut Ground, notice: Notice) {
        match notice {
            Notice::Knock { conn, port, purpose } if self.port == Some(port) => self.knock(ground, conn, purpose),
            Notice::Knock { conn, .. } => ground.close(self.pid, conn),
            Notice::Connected(conn) if self.driver == Some(conn) => {
                let port = ground.bind(self.pid);
                self.port = Some(port);
                let (version, address) = (VERSION.into(), Ground::address(port));
                let join = Report::Join { version, address, process: self.pid, rank: Some(self.rank) };
                ground.send(self.pid, conn, JOINING, Body::Report(join, 0));
                (self.joined, self.met) = (true, ground.now);
                ground.point(self.pid, false, "joined");
                self.join(ground, joining::Event::Joined);
            }
            Notice::Connected(conn) => {
                if let Some(party) = self.reaching.remove(&conn) {
                    self.meets(ground, party, conn);
                }
            }
            Notice::Refused(conn) | Notice::Closed(conn) if self.reaching.remove(&conn).is_some() => {
                self.join(ground, joining::Event::Ended(Exit::Lost("cannot reach another one".into())));
            }
            Notice::Refused(conn) | Notice::Closed(conn) if self.driver == Some(conn) => self.hear(ground, None),
            Notice::Message(conn, envelope) if self.driver == Some(conn) => self.hear(ground, Some(envelope)),
            Notice::Closed(conn) => self.carried(ground, conn, None),
            Notice::Message(conn, envelope) => self.carried(ground, conn, Some(envelope)),
            Notice::Refused(_) => {}
            Notice::Timer(Timer::Rest) => self.join(ground, joining::Event::Tick),
            Notice::Timer(Timer::Opened(turn)) if turn == self.turn => self.join(ground, joining::Event::Opened),
            Notice::Timer(Timer::Beat) => {
                ground.wake(self.pid, BEAT, Timer::Beat);
                if self.machine.is_some() && self.leaving.is_none() {
                    self.report(ground, Report::Alive { doing: String::new() }, 0);
                }
                self.join(ground, joining::Event::Tick);
            }
            Notice::Timer(Timer::Hands(turn)) if turn == self.turn => self.work(ground),
            Notice::Timer(Timer::Stopped(turn)) if turn == self.turn => self.notice_stop(ground),
            Notice::Timer(_) => {}
        }
    }
    /// What the driver says, or that it is gone.
    fn hear(&mut self, ground: &mut Ground, envelope: Option<Envelope>) {
        if self.opening {
            return self.early.push_back(envelope);
        }
        let term = self.seat.as_ref().map_or(JOINING, |s| s.term);
        if self.joined {
            self.met = ground.now;
        }
        let envelope = envelope.filter(|e| e.term == term || ground.is(Mutant::AnyTerm));
        let order = match envelope {
            Some(Envelope { body: Body::Order(order, value), term: of, .. }) => {
                if let (Some(seat), Some(_)) = (&self.seat, &self.machine) {
                    ground.truth.obeys(seat.rank, seat.term, of);
                }
                Some((order, value))
            }
            _ => None,
        };
        if self.machine.is_some() {
            let event = match order {
                Some((order, value)) => machine::Event::Order(order, value.to_le_bytes().to_vec()),
                None => machine::Event::DriverGone("the driver is gone".into()),
            };
            return self.handle(ground, event);
        }
        self.said(ground, order.map(|(order, _)| order));
    }
    fn said(&mut self, ground: &mut Ground, order: Option<Order>) {
        self.join(
            ground,
            match order {
                Some(order) => joining::Event::Said(order),
                None => joining::Event::Ended(Exit::Lost("the driver is gone".into())),
            },
        );
    }
    /// What a channel brings, or that it brings nothing more.
    fn carried(&mut self, ground: &mut Ground, conn: Conn, envelope: Option<Envelope>) {
        let Some(party) = self.peers.iter().find(|(_, c)| **c == conn).map(|(party, _)| *party) else { return };
        let me = self.me();
        let term = self.seat.as_ref().map_or(0, |s| s.term);
        match envelope {
            Some(e) if e.damaged => self.breaks(ground, conn, Cause::Damage(format!("from {party} to {me}"))),
            Some(e) if e.term == term => {
                self.frames.entry(party).or_default().push_back(e.body);
                self.read(ground);
            }
            _ => self.breaks(ground, conn, Cause::Unreachable(format!("from {party} to {me}"))),
        }
    }
    fn breaks(&mut self, ground: &mut Ground, conn: Conn, cause: Cause) {
        ground.close(self.pid, conn);
        if self.leaving.is_some() || self.broken {
            return;
        }
        self.broken = true;
        if matches!(cause, Cause::Damage(_)) {
            ground.truth.count("damage");
        }
        if !ground.is(Mutant::IgnoresBreaks) {
            self.handle(ground, machine::Event::Broken(cause));
        }
    }
    /// Takes what has come, as far as a step wants it.
    fn read(&mut self, ground: &mut Ground) {
        for (party, frames) in &mut self.frames {
            while let Some(Body::Hop { step, .. } | Body::Feed { step, .. }) = frames.front() {
                if *step > self.step {
                    break;
                }
                let wanted = self.running && (*step == self.step || ground.is(Mutant::OldFrames));
                match (frames.pop_front(), party) {
                    (Some(Body::Hop { value, .. }), Party::Worker(rank)) if wanted => {
                        ground.point(self.pid, false, "mid-hop");
                        self.hops.insert(*rank, value);
                    }
                    (Some(Body::Feed { batch, .. }), _) if wanted => self.batch = Some(batch),
                    _ => {}
                }
            }
        }
        self.fetch(ground);
    }

    fn handle(&mut self, ground: &mut Ground, event: machine::Event) {
        if self.leaving.is_some() {
            return;
        }
        let alone = matches!(event, machine::Event::DriverGone(_)) && ground.is(Mutant::CommitsAlone);
        let anyhow =
            ground.is(Mutant::CommitsAnyhow) && matches!(event, machine::Event::Order(Order::Decide { .. }, _));
        let Some(machine) = &mut self.machine else {
            // Between the last connection and the first order.
            if let machine::Event::Broken(cause) = event {
                self.join(ground, joining::Event::Ended(Exit::Lost(cause.text().into())));
            }
            return;
        };
        for command in machine.handle(event) {
            match command {
                machine::Command::Report(report, bytes) => {
                    let value = bytes.try_into().map_or(0, u64::from_le_bytes);
                    self.report(ground, report, value);
                }
                machine::Command::Do(order, bytes) => {
                    let value = bytes.try_into().map_or(0, u64::from_le_bytes);
                    self.hands_to(ground, Hands::Doing(order, value));
                }
                machine::Command::Run { step, .. } => {
                    (self.stopped, self.running, self.step, self.batch) = (false, true, step, None);
                    self.hops.clear();
                    ground.point(self.pid, false, "body");
                    self.hands_to(ground, Hands::Body { sent: false, fetched: false });
                    self.read(ground);
                }
                machine::Command::Stop => self.stop(ground),
                machine::Command::Decide { commit } => {
                    self.ballots.push_back(commit || alone || anyhow);
                    self.vote(ground);
                }
                machine::Command::Exit(exit) => self.exit(ground, exit),
            }
        }
    }
    /// What it has computed, which differs from step to step.
    fn hop(&self, ground: &Ground, batch: u64) -> u64 {
        mix(ground.truth.update(self.value, batch) ^ self.step)
    }
    fn hands_to(&mut self, ground: &mut Ground, hands: Hands) {
        self.hands = hands;
        self.turn += 1;
        let after = ground.random.micros(50, 3_000);
        ground.wake(self.pid, after, Timer::Hands(self.turn));
    }
    fn stop(&mut self, ground: &mut Ground) {
        self.stopped = true;
        let after = ground.random.micros(1, 500);
        ground.wake(self.pid, after, Timer::Stopped(self.turn));
    }
    /// The hands see that they are to stop, if that still matters.
    fn notice_stop(&mut self, ground: &mut Ground) {
        if matches!(self.hands, Hands::Body { .. }) {
            let (step, cause, in_tail) = (self.step, Cause::Aborted, false);
            self.ran(ground, Report::Failed { step, cause, in_tail });
        }
    }
    fn ran(&mut self, ground: &mut Ground, report: Report) {
        (self.hands, self.running) = (Hands::Idle, false);
        self.turn += 1;
        if self.leaving.is_some() {
            return self.gone(ground);
        }
        self.handle(ground, machine::Event::Ended(report));
    }
    /// What the body has computed leaves, once all has come that it needs.
    fn fetch(&mut self, ground: &mut Ground) {
        let Hands::Body { sent: true, fetched: fetched @ false } = &mut self.hands else { return };
        let Some(seat) = &self.seat else { return };
        let Some(batch) = self.batch.filter(|_| self.hops.len() + 1 == seat.workers.len()) else { return };
        *fetched = true;
        let (rank, term) = (seat.rank, seat.term);
        let mine = self.hop(ground, batch);
        if let Some((other, _)) = self.hops.iter().find(|(_, value)| **value != mine) {
            ground.truth.accuse(|| format!("ranks {rank} and {other} do not compute the same in term {term}"));
        }
        if let Some(conn) = self.peers.get(&Party::Driver) {
            ground.send(self.pid, *conn, term, Body::Fetch { step: self.step });
        }
        self.turn += 1;
        let after = ground.random.micros(1, 800);
        ground.wake(self.pid, after, Timer::Hands(self.turn));
        if self.stopped {
            self.stop(ground);
        }
    }
    /// What takes long has been done.
    fn work(&mut self, ground: &mut Ground) {
        let (term, rank) = self.seat.as_ref().map_or((0, 0), |s| (s.term, s.rank));
        match self.hands.clone() {
            Hands::Idle | Hands::Voted => {}
            Hands::Doing(order, value) => {
                let answer = match order {
                    Order::Write(..) => {
                        ground.point(self.pid, false, "restoring");
                        self.value = value;
                        0
                    }
                    Order::Load(_) => {
                        ground.point(self.pid, false, "loading");
                        0
                    }
                    _ => self.value,
                };
                self.hands = Hands::Idle;
                if self.leaving.is_some() {
                    return self.gone(ground);
                }
                self.handle(ground, machine::Event::Done(Ok(0), answer.to_le_bytes().to_vec()));
            }
            // Waits for what it is fed before it sends anything.
            Hands::Body { sent: false, .. } => {
                let Some(batch) = self.batch else {
                    let after = ground.random.micros(50, 500);
                    return ground.wake(self.pid, after, Timer::Hands(self.turn));
                };
                self.hands = Hands::Body { sent: true, fetched: false };
                let value = self.hop(ground, batch);
                for (party, conn) in &self.peers {
                    if *party != Party::Driver {
                        ground.send(self.pid, *conn, term, Body::Hop { step: self.step, value });
                    }
                }
                self.fetch(ground);
            }
            Hands::Body { fetched: true, .. } => {
                ground.point(self.pid, false, "body-done");
                if !ground.is_dead(self.pid) {
                    ground.truth.body_ended(term, self.step, rank);
                }
                self.hands = Hands::Voted;
                if self.leaving.is_some() {
                    self.ballots.push_back(false);
                } else {
                    self.handle(ground, machine::Event::BodyEnded);
                }
                self.vote(ground);
            }
            Hands::Body { .. } => {}
            Hands::Tail { commit } => {
                if commit && !ground.is_dead(self.pid) {
                    let batch = self.batch.unwrap_or_default();
                    self.value = ground.truth.update(self.value, batch);
                    ground.truth.commits(term, self.step, rank, batch, self.value);
                }
                let (step, carried) = (self.step, vec![]);
                self.ran(ground, Report::Done { step, committed: commit, carried });
            }
        }
    }
    fn vote(&mut self, ground: &mut Ground) {
        if self.hands == Hands::Voted
            && let Some(commit) = self.ballots.pop_front()
        {
            if commit {
                ground.point(self.pid, false, "committing");
            }
            self.hands_to(ground, Hands::Tail { commit });
        }
    }
    fn exit(&mut self, ground: &mut Ground, exit: Exit) {
        self.leaving = Some(exit);
        for conn in self.peers.values() {
            ground.close(self.pid, *conn);
        }
        match self.hands {
            Hands::Idle => self.gone(ground),
            Hands::Body { .. } => self.stop(ground),
            Hands::Voted => {
                self.ballots.push_back(false);
                self.vote(ground);
            }
            _ => {}
        }
    }
    /// The hands are empty, and the term is over here.
    fn gone(&mut self, ground: &mut Ground) {
        let Some(exit) = self.leaving.take() else { return };
        (self.machine, self.met) = (None, ground.now);
        if let Some(conn) = self.driver.take() {
            ground.close(self.pid, conn);
        }
        self.join(ground, joining::Event::Ended(exit));
    }
}
