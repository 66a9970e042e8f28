//! The rim of a worker on its way into a term, around its [`Joining`](crate::joining::Joining): it finds the driver, opens a
//! device and is connected to all others, one thing at a time and each on the caller's thread.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use thalweg_runtime::{Device, crash};

use crate::access::Access;
use crate::auth::{JobKey, Party, Pass, Purpose};
use crate::control::{Hearing, Line, attend};
use crate::joining::{Event, Seat};
use crate::listener::{Listener, Port};
use crate::machine::{self, Exit};
use crate::message::{Order, Report};
use crate::null::Null;
use crate::stream::Stream;
use crate::striped;
use crate::worker::{Member, Open, Worker};
use crate::{JOINING, VERSION};

/// How long it waits before it tries again to join.
const RETRY: Duration = Duration::from_millis(20);

/// A worker on its way into a term.
pub(crate) struct Coming<'a> {
    worker: &'a Worker,
    stage: Stage,
    /// The job was seen once: if it is not there any more, it is over.
    was_there: bool,
}

/// What leads to the driver, and to others.
struct Ways {
    key: JobKey,
    access: Access,
    line: Line<Report>,
    from: Hearing<Order, Report>,
    port: Port,
}

/// How far it is.
enum Stage {
    Away,
    /// The driver knows of it.
    Joined {
        address: SocketAddr,
        ways: Ways,
    },
    Opened {
        ways: Ways,
        device: Box<dyn Device>,
        null: bool,
    },
    Meeting(Box<Meeting>),
}

/// Who meets the others.
struct Meeting {
    member: Member,
    access: Access,
    listener: Listener<(Party, Stream)>,
    pass: Pass,
    reach: VecDeque<(u16, SocketAddr)>,
    /// Connections that others have made, by whom and in their order, of who has not made all of them.
    partial: Vec<(Party, u8, Stream)>,
    /// How many connections came from, or lead to, whoever was met last.
    newest: usize,
}

impl<'a> Coming<'a> {
    /// That has nothing yet.
    pub(crate) fn new(worker: &'a Worker) -> Self {
        Self { worker, stage: Stage::Away, was_there: false }
    }
    /// Lets go of whatever it has.
    pub(crate) fn rest(&mut self) {
        self.stage = Stage::Away;
        thread::sleep(RETRY);
    }
    /// Finds the driver, and says that somebody would take part.
    pub(crate) fn seek(&mut self) -> Result<Event, Exit> {
        if self.worker.join.is_over(&mut self.was_there) {
            return Err(Exit::Left);
        }
        let (address, key, encryption) = self.worker.join.find()?;
        let why = |e: &dyn std::fmt::Display| format!("cannot join the job at {address}: {e}");
        let lost = |e: &dyn std::fmt::Display| Exit::Lost(why(e));
        let refused = |e: &dyn std::fmt::Display| Exit::Refused(why(e));
        let plain = |e: crate::HostError| Exit::Refused(e.to_string());
        let access = Access::new(&key, address.ip(), encryption).map_err(plain)?;
        let asked_for = self.worker.listen.map(|address| access.bind(address)).transpose().map_err(plain)?;
        let joining = Pass { key: key.clone(), term: JOINING, purpose: Purpose::Control };
        let socket = access.dial(address, &joining, Party::Joining, Party::Driver).map_err(|e| lost(&e))?;
        let here = socket.local().map_err(|e| refused(&e))?.ip();
        let port = asked_for.map_or_else(|| access.bind((here, 0).into()), Ok).map_err(plain)?;
        let (line, from) = attend(socket).map_err(|e| lost(&e))?;
        crash::point("joining");
        let (version, process, mut mine) = (VERSION.to_string(), std::process::id(), port.address());
        if mine.ip().is_unspecified() {
            // Everywhere: the others try where this one reaches the driver from.
            mine.set_ip(here);
        }
        let said = Report::Join { version, address: mine, process, rank: self.worker.rank };
        line.say(&said, &[]).map_err(|e| lost(&e))?;
        self.stage = Stage::Joined { address, ways: Ways { key, access, line, from, port } };
        Ok(Event::Joined)
    }
    /// Opens the device.
    pub(crate) fn open(&mut self, open: &Open<'_>, device: &str, threads: u32, null: bool) -> Result<Event, Exit> {
        let Stage::Joined { address, ways } = std::mem::replace(&mut self.stage, Stage::Away) else {
            return Err(Exit::Lost("the driver says two things at once".into()));
        };
        let device = open(device, threads as usize);
        let device = device.map_err(|e| Exit::Refused(format!("cannot join the job at {address}: {e}")))?;
        let device = if null { Box::new(Null(device)) } else { device };
        self.stage = Stage::Opened { ways, device, null };
        Ok(Event::Opened)
    }
    /// Lets others in, and hears the driver, from here on.
    pub(crate) fn meet(&mut self, seat: Seat, reach: Vec<(u16, SocketAddr)>) -> Result<(), Exit> {
        let Stage::Opened { ways, device, null } = std::mem::replace(&mut self.stage, Stage::Away) else {
            return Err(Exit::Lost("its device is not open".into()));
        };
        let refused = |e: &dyn std::fmt::Display| Exit::Refused(e.to_string());
        let Ways { key, access, line, from, port } = ways;
        let (term, rank) = (seat.term, seat.rank);
        let (events, happened) = mpsc::channel();
        let heard = events.clone();
        let hearing = from.each(move |said| {
            // Whoever is told may have gone.
            let _ = heard.send(match said {
                Ok((order, bytes)) => machine::Event::Order(order, bytes),
                Err(error) => machine::Event::DriverGone(format!("the driver is gone: {error}")),
            });
        });
        hearing.map_err(|e| refused(&e))?;
        let pass = Pass { key: key.clone(), term, purpose: Purpose::Data };
        let listener = Listener::open(port, access.tls.clone(), pass.clone(), Party::Worker(rank));
        let listener = listener.map_err(|e| refused(&e))?;
        let (workers, peers) = (seat.workers.len(), vec![]);
        let member = Member { key, term, rank, workers, device, null, line, peers, events, happened };
        if reach.is_empty() {
            crash::point("meeting");
        }
        let (reach, partial) = (reach.into(), vec![]);
        let meeting = Meeting { member, access, listener, pass, reach, partial, newest: 0 };
        self.stage = Stage::Meeting(Box::new(meeting));
        Ok(())
    }
    /// Waits for what happens next.
    pub(crate) fn next(&mut self) -> Event {
        match &mut self.stage {
            Stage::Joined { address, ways } => {
                let why = |e: &dyn std::fmt::Display| format!("cannot join the job at {address}: {e}");
                match ways.from.hear() {
                    Ok((Order::Refuse(e), _)) => Event::Said(Order::Refuse(why(&e))),
                    Ok((order, _)) => Event::Said(order),
                    Err(e) => Event::Ended(Exit::Lost(why(&e))),
                }
            }
            Stage::Meeting(meeting) => match meeting.next() {
                Ok(event) => event,
                Err(exit) => Event::Ended(exit),
            },
            Stage::Away | Stage::Opened { .. } => Event::Tick,
        }
    }
    /// Closes the connections to whoever was met last.
    pub(crate) fn turn_away(&mut self) {
        if let Stage::Meeting(meeting) = &mut self.stage {
            let left = meeting.member.peers.len().saturating_sub(meeting.newest);
            meeting.member.peers.truncate(left);
            meeting.newest = 0;
        }
    }
    /// Who has met everybody.
    pub(crate) fn member(&mut self) -> Option<Member> {
        match std::mem::replace(&mut self.stage, Stage::Away) {
            Stage::Meeting(meeting) => Some(meeting.member),
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

impl Meeting {
    /// To those of a higher rank it goes, one after the other; the others come. Or the driver says that nobody waits for it any
    /// more.
    fn next(&mut self) -> Result<Event, Exit> {
        let me = Party::Worker(self.member.rank);
        if let Some((other, address)) = self.reach.pop_front() {
            let to = Party::Worker(other);
            let lost = |e: &dyn std::fmt::Display| Exit::Lost(format!("{me} cannot reach {to}: {e}"));
            let of = striped::connections(self.member.workers);
            for number in 0..of {
                let socket = self.access.dial(address, &self.pass, me, to).map_err(|e| lost(&e))?;
                let mut stream = socket.into_blocking().map_err(|e| lost(&e))?;
                striped::announce(&mut stream, number, of).map_err(|e| lost(&e))?;
                self.member.peers.push((to, stream));
            }
            self.newest = of.into();
            if self.reach.is_empty() {
                crash::point("meeting");
            }
            return Ok(Event::Met(to));
        }
        match self.member.happened.try_recv() {
            Ok(machine::Event::DriverGone(why)) => return Err(Exit::Lost(why)),
            Ok(machine::Event::Order(order, _)) => return Ok(Event::Said(order)),
            _ => {}
        }
        Ok(match self.listener.next(RETRY) {
            Some(Ok((party, stream))) => self.came(party, stream),
            Some(Err(why)) => Event::Refused(why),
            None => Event::Tick,
        })
    }
    /// Somebody has made a connection: all that it makes are one meeting.
    fn came(&mut self, party: Party, mut stream: Stream) -> Event {
        let said = if party == Party::Driver { Ok((0, 1)) } else { striped::announced(&mut stream) };
        let (number, of) = match said {
            Ok(said) => said,
            Err(error) => return Event::Refused(format!("{party} does not say which connection it is: {error}")),
        };
        if self.partial.iter().any(|(p, n, _)| (*p, *n) == (party, number)) {
            return Event::Refused(format!("{party} came twice with connection {}", number + 1));
        }
        self.partial.push((party, number, stream));
        if self.partial.iter().filter(|(p, ..)| *p == party).count() < usize::from(of) {
            return Event::Tick;
        }
        let (mut all, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.partial).into_iter().partition(|(p, ..)| *p == party);
        all.sort_by_key(|(_, number, _)| *number);
        (self.partial, self.newest) = (rest, all.len());
        self.member.peers.extend(all.into_iter().map(|(party, _, stream)| (party, stream)));
        Event::Met(party)
    }
}
