//! A simulated driver: the real [`Membership`] and the real [`Coordinator`], and around them what their rims do
//! ([`gathering`](crate::gathering), [`driver`](crate::driver), [`remote`](crate::remote)), in virtual time. What the session
//! does is in `session.rs`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::faults::Mutant;
use super::network::{Body, Conn, Envelope, Ground, Notice, Pid, Purpose, Timer};
use super::session::{Phase, Session};
use crate::auth::Party;
use crate::coordinator::{self, Coordinator};
use crate::membership::{self, Membership};
use crate::message::{Cause, Order, Report};
use crate::{JOINING, SILENCE_LIMIT, VERSION};

mod steps;

/// How often it looks.
const LOOK: Duration = Duration::from_millis(20);
/// As in `hosts.rs`.
const PATIENCE: Duration = Duration::from_secs(60);
/// As in `driver.rs`.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// A worker of a term.
pub(super) struct Remote {
    pub(super) conn: Conn,
    pub(super) pid: Pid,
    data: Option<Conn>,
    heard: Duration,
    /// Nothing is heard any more.
    over: bool,
}

/// A term, from the welcome on.
pub(super) struct Term {
    pub(super) number: u32,
    pub(super) remotes: Vec<Remote>,
    /// All are ready.
    pub(super) whole: bool,
    coordinator: Coordinator,
    pub(super) attempt: u64,
    happened: VecDeque<coordinator::Event>,
    broken: Option<Cause>,
    due: Option<Duration>,
    fetched: BTreeSet<u16>,
    asking: bool,
    stopped: bool,
    /// What was noticed first.
    first: Option<Cause>,
}

/// How a driver ends.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Ended {
    Well,
    Badly(String),
}

pub(super) struct Driver {
    pub(super) pid: Pid,
    port: u16,
    membership: Membership,
    numbers: u64,
    /// Who has joined and is in no term yet: connection, process.
    waiting: BTreeMap<u64, (Conn, Pid, u16)>,
    /// Whose first word is awaited.
    strangers: BTreeSet<Conn>,
    pub(super) term: Option<Term>,
    pub(super) session: Session,
    pub(super) ended: Option<Ended>,
}

impl Driver {
    pub(super) fn start(pid: Pid, ground: &mut Ground) -> Self {
        let port = ground.bind(pid);
        let session = Session::new(ground);
        let mut driver = Self {
            pid,
            port,
            membership: Membership::new(),
            numbers: 0,
            waiting: BTreeMap::new(),
            strangers: BTreeSet::new(),
            term: None,
            session,
            ended: None,
        };
        if !ground.spend(pid) {
            ground.disk.address = Some(port);
        }
        driver.gather(ground);
        ground.wake(pid, LOOK, Timer::Look);
        driver
    }

    /// Ends the term that is, and calls for workers.
    pub(super) fn gather(&mut self, ground: &mut Ground) {
        let before = self.end_term(ground);
        self.session.phase = Phase::Gathering;
        let call = membership::Event::Call { least: 1, patience: PATIENCE, before };
        self.decide(ground, call);
    }
    fn end_term(&mut self, ground: &mut Ground) -> Vec<Pid> {
        let Some(term) = self.term.take() else { return ground.disk.members.clone() };
        for remote in &term.remotes {
            if !ground.is_dead(self.pid) {
                ground.truth.lets_go(remote.pid, ground.now);
            }
            ground.close(self.pid, remote.conn);
            remote.data.iter().for_each(|data| ground.close(self.pid, *data));
        }
        term.remotes.iter().map(|remote| remote.pid).collect()
    }
    fn decide(&mut self, ground: &mut Ground, event: membership::Event) {
        let mut commands: VecDeque<_> = self.membership.handle(ground.now, event).into();
        while let Some(command) = commands.pop_front() {
            match command {
                membership::Command::Fence(processes) => {
                    for pid in processes {
                        if !ground.spend(self.pid) && !ground.is(Mutant::FencesNobody) {
                            ground.truth.fences(pid, ground.now);
                            ground.note(|| format!("driver: process {pid} is fenced"));
                            ground.disk.fenced.insert(pid);
                        }
                    }
                }
                membership::Command::Begin => {
                    if ground.spend(self.pid) {
                        return;
                    }
                    ground.disk.term += 1;
                    if !ground.is(Mutant::TermNotSynced) {
                        ground.disk.synced_term = ground.disk.term;
                    }
                    let term = ground.disk.term;
                    ground.point(self.pid, true, "assembling");
                    commands.extend(self.membership.handle(ground.now, membership::Event::Began { term }));
                }
                membership::Command::Welcome { term, seats } => self.welcome(ground, term, &seats),
                membership::Command::Dismiss => {
                    ground.truth.count("assembly given up");
                    self.end_term(ground);
                }
                membership::Command::Finish(Ok(())) => {
                    let term = self.term.as_mut().expect("they were welcomed");
                    term.whole = true;
                    let (number, world) = (term.number, term.remotes.len());
                    ground.note(|| format!("driver: term {number} with {world} workers"));
                    self.restore(ground);
                }
                membership::Command::Finish(Err(error)) => self.give_up(ground, &error.to_string()),
            }
        }
    }
    fn welcome(&mut self, ground: &mut Ground, number: u32, seats: &[u64]) {
        let joined: Vec<_> = seats.iter().filter_map(|seat| self.waiting.remove(seat)).collect();
        let addresses: Vec<_> = joined.iter().map(|(_, _, port)| Ground::address(*port)).collect();
        if ground.is_dead(self.pid) {
            return;
        }
        ground.note(|| {
            format!(
                "driver: term {number} is to begin with processes {:?}",
                joined.iter().map(|j| j.1).collect::<Vec<_>>()
            )
        });
        if ground.spend(self.pid) {
            return;
        }
        ground.disk.members = joined.iter().map(|j| j.1).collect();
        ground.truth.begin(number, joined.iter().map(|j| j.1).collect(), ground.now);
        let mut remotes = vec![];
        for ((conn, pid, _), rank) in joined.iter().zip(0..) {
            let (workers, device) = (addresses.clone(), format!("worker{rank}/cpu:0"));
            let welcome = Order::Welcome { term: number, rank, workers, device, threads: 1, null: false };
            ground.send(self.pid, *conn, JOINING, Body::Order(welcome, 0));
            remotes.push(Remote { conn: *conn, pid: *pid, data: None, heard: ground.now, over: false });
        }
        ground.point(self.pid, true, "welcomed");
        for ((_, _, port), rank) in joined.iter().zip(0..) {
            let purpose = Purpose::Data { term: number, from: Party::Driver, to: Party::Worker(rank) };
            remotes[usize::from(rank)].data = Some(ground.dial(self.pid, *port, purpose));
        }
        let coordinator = Coordinator::new(remotes.len() as u16);
        self.term = Some(Term {
            number,
            remotes,
            whole: false,
            coordinator,
            attempt: 0,
            happened: VecDeque::new(),
            broken: None,
            due: None,
            fetched: BTreeSet::new(),
            asking: false,
            stopped: false,
            first: None,
        });
    }
    fn left(&mut self, ground: &mut Ground, conn: Conn) {
        self.strangers.remove(&conn);
        let number = self.waiting.iter().find(|(_, (c, ..))| *c == conn).map(|(number, _)| *number);
        if let Some(number) = number {
            self.waiting.remove(&number);
            self.decide(ground, membership::Event::Left { number });
        }
    }
    fn joins(&mut self, ground: &mut Ground, conn: Conn, envelope: Envelope) {
        self.strangers.remove(&conn);
        match envelope.body {
            Body::Report(Report::Join { version, address, process, rank }, _)
                if envelope.term == JOINING && version == VERSION =>
            {
                ground.point(self.pid, true, "joining");
                self.numbers += 1;
                self.waiting.insert(self.numbers, (conn, process, address.port()));
                self.decide(ground, membership::Event::Joined { number: self.numbers, process, rank });
            }
            _ => ground.close(self.pid, conn),
        }
    }
    pub(super) fn has_more(&self, ground: &Ground) -> bool {
        self.term.as_ref().is_some_and(|t| t.remotes.len() < ground.disk.expected) && self.membership.has_waiting()
    }
    pub(super) fn give_up(&mut self, ground: &mut Ground, why: &str) {
        ground.note(|| format!("driver: gives up: {why}"));
        self.ended = Some(Ended::Badly(why.into()));
    }
    /// The job is done: all are told.
    pub(super) fn leave(&mut self, ground: &mut Ground) {
        ground.point(self.pid, true, "leaving");
        if ground.is_dead(self.pid) {
            return;
        }
        let waiting: Vec<_> = self.waiting.values().map(|(conn, ..)| (*conn, JOINING)).collect();
        let term = self.term.iter().flat_map(|t| t.remotes.iter().map(|r| (r.conn, t.number)));
        for (conn, term) in term.chain(waiting).collect::<Vec<_>>() {
            if !ground.is(Mutant::TellsNobody) {
                ground.send(self.pid, conn, term, Body::Order(Order::Leave, 0));
            }
        }
        self.end_term(ground);
        self.ended = Some(Ended::Well);
    }

    pub(super) fn notice(&mut self, ground: &mut Ground, notice: Notice) {
        match notice {
            Notice::Knock { conn, purpose: Purpose::Control, port } if port == self.port => {
                self.strangers.insert(conn);
                ground.admit(conn);
            }
            Notice::Knock { conn, .. } => ground.close(self.pid, conn),
            Notice::Connected(_) => {}
            Notice::Refused(conn) => {
                let of = self.term.as_ref().is_some_and(|t| t.remotes.iter().any(|r| r.data == Some(conn)));
                if of {
                    self.decide(ground, membership::Event::Failed("cannot reach a worker".into()));
                }
            }
            Notice::Message(conn, envelope) if self.strangers.contains(&conn) => self.joins(ground, conn, envelope),
            Notice::Message(conn, envelope) => self.hear(ground, conn, Some(envelope)),
            Notice::Closed(conn) => {
                self.left(ground, conn);
                self.hear(ground, conn, None);
            }
            Notice::Timer(Timer::Look) => self.look(ground),
            Notice::Timer(Timer::Save(stage)) => self.save(ground, stage),
            Notice::Timer(_) => {}
        }
        self.assemble(ground);
        self.advance(ground);
    }
    /// What those say who are getting ready.
    fn assemble(&mut self, ground: &mut Ground) {
        while let Some(event) = self.term.as_mut().filter(|t| !t.whole).and_then(|t| t.happened.pop_front()) {
            let event = match event {
                coordinator::Event::From { rank, report: Report::Ready } => membership::Event::Ready { rank },
                coordinator::Event::Gone { why, .. } => membership::Event::Failed(why),
                other => membership::Event::Failed(format!("a worker that is to get ready: {other:?}")),
            };
            self.decide(ground, event);
        }
    }
    /// What a worker says, or that it says no more.
    fn hear(&mut self, ground: &mut Ground, conn: Conn, envelope: Option<Envelope>) {
        let Some(term) = &mut self.term else { return };
        let Some(at) = term.remotes.iter().position(|r| r.conn == conn || r.data == Some(conn)) else { return };
        let (rank, remote, number) = (at as u16, &mut term.remotes[at], term.number);
        let foreign = envelope.as_ref().is_some_and(|e| e.term != number) && !ground.is(Mutant::AnyTerm);
        let envelope = envelope.filter(|_| !foreign);
        if remote.data == Some(conn) {
            match envelope {
                Some(Envelope { body: Body::Fetch { step }, .. }) if step == term.attempt => {
                    term.fetched.extend([rank])
                }
                // Of a step that was given up.
                Some(_) => {}
                None => {
                    ground.close(self.pid, conn);
                    let cause =
                        Cause::Unreachable(format!("from rank {rank} to the driver: the connection was closed"));
                    if term.broken.is_none() {
                        term.broken = Some(cause.clone());
                        term.happened.push_back(coordinator::Event::Fault(cause));
                    }
                }
            }
        } else if !remote.over {
            remote.heard = ground.now;
            match envelope.map(|e| e.body) {
                Some(Body::Report(Report::Alive { .. }, _)) => {}
                Some(Body::Report(Report::Answer(result), value)) => self.answered(ground, rank, result.map(|_| value)),
                Some(Body::Report(report, _)) => term.happened.push_back(coordinator::Event::From { rank, report }),
                _ => {
                    // What cannot be understood ends the connection as well.
                    remote.over = true;
                    let why = format!("rank {rank} (process {}) is gone", remote.pid);
                    term.happened.push_back(coordinator::Event::Gone { rank, why });
                }
            }
        }
    }
    fn look(&mut self, ground: &mut Ground) {
        ground.wake(self.pid, LOOK, Timer::Look);
        let (expected, given_up) = (ground.disk.expected, false);
        self.decide(ground, membership::Event::Tick { expected, given_up });
        let silent = self.silent(ground);
        let now = ground.now;
        let abort = ground.aborts && ground.random.one_in(100);
        let asked = self.session.phase.asked();
        let Some(term) = self.term.as_mut().filter(|t| t.whole) else { return };
        if self.session.phase.is_stepping() {
            if let Some(event) = silent {
                term.asking = false;
                self.conduct(ground, event);
            } else if term.due.is_some_and(|due| now > due) {
                self.conduct(ground, coordinator::Event::Expired);
            } else if abort && !term.stopped && !term.asking {
                term.stopped = true;
                ground.truth.count("the caller ends a body");
                self.conduct(ground, coordinator::Event::Fault(Cause::Aborted));
            }
        } else if let (Some(rank), Some(coordinator::Event::Gone { rank: silent, why })) = (asked, silent)
            && rank == silent
        {
            self.lose(ground, &Cause::Gone(why));
        }
    }
    /// Somebody has not been heard of for too long.
    fn silent(&self, ground: &Ground) -> Option<coordinator::Event> {
        let term = self.term.as_ref().filter(|_| !ground.is(Mutant::MindsNoSilence))?;
        let asked = self.session.phase.asked();
        let minded = |rank: u16| !term.coordinator.is_gone(rank) && asked.is_none_or(|a| a == rank);
        let mut all =
            term.remotes.iter().zip(0..).filter(|(r, rank)| minded(*rank) && ground.now - r.heard > SILENCE_LIMIT);
        let (remote, rank) = all.next()?;
        let why = format!("rank {rank} (process {}): it has not been heard of", remote.pid);
        Some(coordinator::Event::Gone { rank, why })
    }
    /// Whether the connection to a worker is known to have ended.
    pub(super) fn is_over(&self, rank: u16) -> bool {
        self.term.as_ref().is_none_or(|t| t.remotes[usize::from(rank)].over)
    }
}
