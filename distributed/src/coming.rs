//! The rim of a worker on its way into a term, around its [`Joining`](crate::joining::Joining): it finds the driver, opens a
//! device and is connected to all others, one thing at a time and each on the caller's thread.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use thalweg_runtime::{Device, crash};

use crate::auth::{HANDSHAKE_LIMIT, Party, Pass, Purpose, greet};
use crate::joining::{Event, Seat};
use crate::listener::{Listener, Port};
use crate::machine::{self, Exit};
use crate::message::{Line, Order, Report, hear};
use crate::worker::{Member, Open, Worker};
use crate::{JOINING, VERSION};

/// How long it waits before it tries again to join.
const RETRY: Duration = Duration::from_millis(20);

/// A worker on its way into a term.
pub(crate) struct Coming<'a> {
    worker: &'a Worker,
    stage: Stage,
}

/// How far it is.
enum Stage {
    Away,
    /// The driver knows of it.
    Joined {
        address: SocketAddr,
        stream: TcpStream,
        port: Port,
    },
    Opened {
        stream: TcpStream,
        port: Port,
        device: Box<dyn Device>,
    },
    Meeting {
        member: Member,
        listener: Listener,
        pass: Pass,
        reach: VecDeque<(u16, SocketAddr)>,
    },
}

impl<'a> Coming<'a> {
    /// That has nothing yet.
    pub(crate) fn new(worker: &'a Worker) -> Self {
        Self { worker, stage: Stage::Away }
    }
    /// Lets go of whatever it has.
    pub(crate) fn rest(&mut self) {
        self.stage = Stage::Away;
        thread::sleep(RETRY);
    }
    fn pass(&self, purpose: Purpose, term: u32) -> Pass {
        Pass { key: self.worker.key.clone(), term, purpose }
    }
    /// Finds the driver, and says that somebody would take part.
    pub(crate) fn seek(&mut self) -> Result<Event, Exit> {
        let address = self.worker.join.address()?;
        let why = |e: &dyn std::fmt::Display| format!("cannot join the job at {address}: {e}");
        let lost = |e: &dyn std::fmt::Display| Exit::Lost(why(e));
        let refused = |e: &dyn std::fmt::Display| Exit::Refused(why(e));
        let stream = dial(address).map_err(|e| lost(&e))?;
        greet(&stream, &self.pass(Purpose::Control, JOINING), Party::Joining, Party::Driver).map_err(|e| lost(&e))?;
        let joining = stream.try_clone().map_err(|e| refused(&e))?;
        let port = Port::bind().map_err(|e| Exit::Refused(e.to_string()))?;
        crash::point("joining");
        let (version, process) = (VERSION.to_string(), std::process::id());
        let said = Report::Join { version, address: port.address(), process, rank: self.worker.rank };
        Line::new(joining, &self.worker.key, JOINING).say(&said, &[]).map_err(|e| lost(&e))?;
        self.stage = Stage::Joined { address, stream, port };
        Ok(Event::Joined)
    }
    /// Opens the device.
    pub(crate) fn open(&mut self, open: &Open<'_>, device: &str, threads: u32) -> Result<Event, Exit> {
        let Stage::Joined { address, stream, port } = std::mem::replace(&mut self.stage, Stage::Away) else {
            return Err(Exit::Lost("the driver says two things at once".into()));
        };
        let device = open(device, threads as usize);
        let device = device.map_err(|e| Exit::Refused(format!("cannot join the job at {address}: {e}")))?;
        self.stage = Stage::Opened { stream, port, device };
        Ok(Event::Opened)
    }
    /// Lets others in, and hears the driver, from here on.
    pub(crate) fn meet(&mut self, seat: Seat, reach: Vec<(u16, SocketAddr)>) -> Result<(), Exit> {
        let Stage::Opened { stream, port, device } = std::mem::replace(&mut self.stage, Stage::Away) else {
            return Err(Exit::Lost("its device is not open".into()));
        };
        let refused = |e: &dyn std::fmt::Display| Exit::Refused(e.to_string());
        let (term, rank, key) = (seat.term, seat.rank, &self.worker.key);
        let (events, happened) = mpsc::channel();
        let (job, heard, from_driver) = (key.job(), events.clone(), stream.try_clone().map_err(|e| refused(&e))?);
        let hearing = thread::Builder::new().name("from the driver".into());
        hearing.spawn(move || hear_all(from_driver, job, term, &heard)).map_err(|e| refused(&e))?;
        let line = Line::new(stream, key, term);
        let pass = self.pass(Purpose::Data, term);
        let listener = Listener::open(port, pass.clone(), Party::Worker(rank)).map_err(|e| refused(&e))?;
        let (workers, peers) = (seat.workers.len(), vec![]);
        let member = Member { term, rank, workers, device, line, peers, events, happened };
        if reach.is_empty() {
            crash::point("meeting");
        }
        self.stage = Stage::Meeting { member, listener, pass, reach: reach.into() };
        Ok(())
    }
    /// Waits for what happens next.
    pub(crate) fn next(&mut self) -> Event {
        match &mut self.stage {
            Stage::Joined { address, stream, .. } => {
                let why = |e: &dyn std::fmt::Display| format!("cannot join the job at {address}: {e}");
                match hear(stream, self.worker.key.job(), JOINING) {
                    Ok((Order::Refuse(e), _)) => Event::Said(Order::Refuse(why(&e))),
                    Ok((order, _)) => Event::Said(order),
                    Err(e) => Event::Ended(Exit::Lost(why(&e))),
                }
            }
            Stage::Meeting { member, listener, pass, reach } => match meet_next(member, listener, pass, reach) {
                Ok(event) => event,
                Err(exit) => Event::Ended(exit),
            },
            Stage::Away | Stage::Opened { .. } => Event::Tick,
        }
    }
    /// Closes the connection that was made last.
    pub(crate) fn turn_away(&mut self) {
        if let Stage::Meeting { member, .. } = &mut self.stage {
            member.peers.pop();
        }
    }
    /// Who has met everybody.
    pub(crate) fn member(&mut self) -> Option<Member> {
        match std::mem::replace(&mut self.stage, Stage::Away) {
            Stage::Meeting { member, .. } => Some(member),
            _ => None,
        }
    }
    /// Lets the driver know that nothing comes of it.
    pub(crate) fn hang_up(&mut self) {
        if let Some(member) = self.member() {
            member.line.hang_up();
        }
    }
}

/// To those of a higher rank it goes, one after the other; the others come. Or the driver says that nobody waits for it any
/// more.
fn meet_next(
    member: &mut Member,
    listener: &Listener,
    pass: &Pass,
    reach: &mut VecDeque<(u16, SocketAddr)>,
) -> Result<Event, Exit> {
    let me = Party::Worker(member.rank);
    if let Some((other, address)) = reach.pop_front() {
        let to = Party::Worker(other);
        let lost = |e: &dyn std::fmt::Display| Exit::Lost(format!("{me} cannot reach {to}: {e}"));
        let stream = dial(address).map_err(|e| lost(&e))?;
        greet(&stream, pass, me, to).map_err(|e| lost(&e))?;
        member.peers.push((to, stream));
        if reach.is_empty() {
            crash::point("meeting");
        }
        return Ok(Event::Met(to));
    }
    match member.happened.try_recv() {
        Ok(machine::Event::DriverGone(why)) => return Err(Exit::Lost(why)),
        Ok(machine::Event::Order(order, _)) => return Ok(Event::Said(order)),
        _ => {}
    }
    Ok(match listener.next(RETRY) {
        Some(Ok((party, stream))) => {
            member.peers.push((party, stream));
            Event::Met(party)
        }
        Some(Err(why)) => Event::Refused(why),
        None => Event::Tick,
    })
}

/// A connection to another process of this machine.
pub(crate) fn dial(address: SocketAddr) -> std::io::Result<TcpStream> {
    if !address.ip().is_loopback() {
        let why = format!("{address} is not on this machine; what processes send each other is not encrypted yet");
        return Err(std::io::Error::other(why));
    }
    TcpStream::connect_timeout(&address, HANDSHAKE_LIMIT)
}

fn hear_all(mut from: TcpStream, job: u64, term: u32, events: &Sender<machine::Event>) {
    loop {
        let event = match hear(&mut from, job, term) {
            Ok((order, bytes)) => machine::Event::Order(order, bytes),
            Err(error) => machine::Event::DriverGone(format!("the driver is gone: {error}")),
        };
        let last = matches!(event, machine::Event::DriverGone(_));
        if events.send(event).is_err() || last {
            return;
        }
    }
}
