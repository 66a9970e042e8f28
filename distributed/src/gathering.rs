//! How workers come together, at the start of a job and again whenever somebody is lost: they join, learn who they are and
//! which term it is, and are connected to each other and to the driver. There is one way in: who was there before, who was
//! started anew and who comes late all join alike, with nothing left of what they did.
//!
//! Ranks go by what those who join ask for, and then by who came first; since all workers host the same kind of device,
//! nothing but names depends on it.

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use thalweg_runtime::crash;

use crate::access::{Access, Reach};
use crate::auth::{HANDSHAKE_LIMIT, JobKey, Party, Pass, Purpose};
use crate::control::{Attending, Hearing, Line, Reception};
use crate::coordinator::Event;
use crate::data::DataPlane;
use crate::driver::{Connections, Workers};
use crate::message::{Cause, Order, Report};
use crate::remote::{Answer, Remote, hang_up};
use crate::stream::Stream;
use crate::tally::Tally;
use crate::{HostError, JOINING, VERSION, lock};

/// How often it looks whether as many have come as are expected.
const LOOK: Duration = Duration::from_millis(20);
/// Who was there and has not come again by then is stopped, or cut off.
const FENCE_LIMIT: Duration = Duration::from_secs(2);

/// A door at which workers come together, open as long as the job lasts.
pub struct Gathering {
    reception: Reception,
    access: Access,
    key: JobKey,
    /// Of the term that is, or was last.
    current: Option<Arc<Connections>>,
    /// Who has come and is in no term yet.
    waiting: Vec<Joined>,
    null: bool,
}

/// Who is called together.
pub struct Call<'a> {
    /// How many can be expected by now; asked again and again.
    pub expected: &'a dyn Fn() -> usize,
    /// How many are enough once patience has run out.
    pub least: usize,
    /// How long all that are expected may take.
    pub patience: Duration,
    /// What a rank is to open: a device's name and threads.
    pub device: &'a dyn Fn(u16) -> (String, usize),
    /// Begins a term and gives its number, from 1: every time another one.
    pub begin: &'a dyn Fn() -> Result<u32, HostError>,
    /// These processes were there, and neither have they come again nor are their connections closed: they are not to come
    /// back as who they were.
    pub fence: &'a dyn Fn(&[u32]),
    /// Whether nobody is wanted any more.
    pub give_up: &'a dyn Fn() -> bool,
}

/// A worker that has joined.
struct Joined {
    line: Line<Order>,
    from: Hearing<Report, Order>,
    /// Where it takes connections.
    address: SocketAddr,
    process: u32,
    rank: Option<u16>,
}

impl Joined {
    /// Whether its connection is open.
    fn is_there(&self) -> bool {
        self.line.is_open()
    }
}

/// A worker that knows who it is, and what is still read of it here.
struct Welcomed {
    remote: Arc<Remote>,
    from: Hearing<Report, Order>,
    answered: Sender<Answer>,
}

impl Gathering {
    /// Where it can be reached.
    ///
    /// # Errors
    /// If that is not possible, or not protected.
    pub fn open(key: &JobKey, reach: Reach) -> Result<Self, HostError> {
        let address = reach.address()?;
        let access = Access::new(key, address.ip(), reach.encryption)?;
        let pass = Pass { key: key.clone(), term: JOINING, purpose: Purpose::Control };
        let reception = Reception::open(access.bind(address)?, access.tls.clone(), pass, Party::Driver)?;
        Ok(Self { reception, access, key: key.clone(), current: None, waiting: vec![], null: false })
    }
    /// The workers are to do nothing but send and receive what plans say: for measuring what that takes.
    pub fn for_null_replay(&mut self) {
        self.null = true;
    }
    /// Where workers are to [join](crate::Worker::join).
    pub fn address(&self) -> SocketAddr {
        self.reception.address()
    }
    /// Whether somebody has come who is in no term yet.
    pub fn has_waiting(&mut self) -> bool {
        while let Some(arrival) = self.reception.next(Duration::ZERO) {
            // Whoever is refused has been told.
            let _ = self.let_in(arrival);
        }
        self.waiting.retain(Joined::is_there);
        !self.waiting.is_empty()
    }
    /// Ends the term that is, waits until workers have come, begins a term and joins them to each other. Who does not see it
    /// through is left behind, and the next term is begun.
    ///
    /// # Errors
    /// If too few come, or none of them can be joined.
    pub fn workers(&mut self, call: &Call<'_>) -> Result<Workers, HostError> {
        let before: Vec<u32> = self.current.take().map_or(vec![], |current| {
            current.end();
            current.remotes.iter().map(|remote| remote.process).collect()
        });
        let (began, mut failed) = (Instant::now(), None);
        loop {
            let joined = self.wait(call, began, &before).map_err(|error| failed.take().unwrap_or(error))?;
            let term = (call.begin)()?;
            match self.assemble(joined, term, call) {
                Ok(workers) => {
                    self.current = Some(workers.connections.clone());
                    return Ok(workers);
                }
                Err(error) if began.elapsed() > call.patience || (call.give_up)() => return Err(error),
                Err(error) => failed = Some(error),
            }
        }
    }

    /// Until as many have joined as are expected, or it has been long enough and they are enough.
    fn wait(&mut self, call: &Call<'_>, began: Instant, before: &[u32]) -> Result<Vec<Joined>, HostError> {
        let (mut last, mut fenced) = (None, before.is_empty());
        loop {
            let world = (call.expected)();
            self.waiting.retain(Joined::is_there);
            let enough = self.waiting.len() >= world.max(1);
            let waited = began.elapsed();
            if enough || (waited > call.patience && self.waiting.len() >= call.least.max(1)) {
                let most = self.waiting.len().min(usize::from(u16::MAX));
                return Ok(self.waiting.drain(..most).collect());
            }
            if waited > call.patience || world < call.least.max(1) || (call.give_up)() {
                let (joined, seconds) = (self.waiting.len(), waited.as_secs());
                return Err(HostError::Missing { joined, world: world.max(call.least), seconds, last });
            }
            if !fenced && waited > FENCE_LIMIT {
                fenced = true;
                let away = |process: &&u32| self.waiting.iter().all(|j| j.process != **process);
                (call.fence)(&before.iter().filter(away).copied().collect::<Vec<_>>());
            }
            if let Some(Err(why)) = self.reception.next(LOOK).map(|arrival| self.let_in(arrival)) {
                last = Some(why);
            }
        }
    }
    fn let_in(&mut self, arrival: Result<Attending, String>) -> Result<(), String> {
        match arrival? {
            Attending { party: Party::Joining, line, hearing } => {
                let joined = join(line, hearing)?;
                crash::point("joining");
                self.waiting.push(joined);
                Ok(())
            }
            Attending { party, .. } => Err(format!("{party} is no worker that joins")),
        }
    }

    /// From those who have joined to those who take part.
    fn assemble(&self, joined: Vec<Joined>, term: u32, call: &Call<'_>) -> Result<Workers, HostError> {
        crash::point("assembling");
        let joined = by_rank(joined);
        let addresses: Vec<SocketAddr> = joined.iter().map(|j| j.address).collect();
        let (events, happened) = mpsc::channel();
        let mut half = Half(Vec::with_capacity(joined.len()));
        for (joined, rank) in joined.into_iter().zip(0..) {
            let worker = welcome(joined, rank, term, &addresses, (call.device)(rank), self.null)?;
            half.0.push(worker.remote.clone());
            worker.hear_all(rank, events.clone()).map_err(HostError::io("cannot start a thread"))?;
        }
        let peers = self.reach(&addresses, term)?;
        await_ready(half.0.len(), &happened, call)?;
        let broke = Mutex::new(events);
        let on_break = move |cause: &Cause| {
            let _ = lock(&broke).send(Event::Fault(cause.clone()));
        };
        let plane = DataPlane::new(Party::Driver, &self.key, term, peers, self.null, Box::new(on_break))?;
        let remotes = std::mem::take(&mut half.0);
        let tell = Box::new(|text: &str| eprintln!("{text}"));
        Ok(Workers { connections: Arc::new(Connections { remotes, plane }), happened, tell })
    }
    /// A connection to each worker, for what channels carry.
    fn reach(&self, workers: &[SocketAddr], term: u32) -> Result<Vec<(Party, Stream)>, HostError> {
        let pass = Pass { key: self.key.clone(), term, purpose: Purpose::Data };
        let reach = |(address, rank): (&SocketAddr, u16)| {
            let to = Party::Worker(rank);
            let refused = |e: &dyn std::fmt::Display| HostError::Refused(format!("cannot reach {to}: {e}"));
            let socket = self.access.dial(*address, &pass, Party::Driver, to).map_err(|e| refused(&e))?;
            Ok((to, socket.into_blocking().map_err(|e| refused(&e))?))
        };
        workers.iter().zip(0..).map(reach).collect()
    }
}

/// What a worker says when it joins, if it fits this build.
fn join(line: Line<Order>, mut from: Hearing<Report, Order>) -> Result<Joined, String> {
    let said = from.hear_within(HANDSHAKE_LIMIT).map_err(|e| format!("a worker that joins: {e}"))?.0;
    let why = match said {
        Report::Join { version, address, process, rank } if version == VERSION => {
            return Ok(Joined { line, from, address, process, rank });
        }
        Report::Join { version, process, .. } => format!(
            "the worker of process {process} is of version {version}, and the driver of {VERSION}: start both from \
             one build"
        ),
        other => format!("a worker begins with {other:?}"),
    };
    // It may be gone already.
    let _ = line.say(&Order::Refuse(why.clone()), &[]);
    Err(why)
}

fn welcome(
    joined: Joined,
    rank: u16,
    term: u32,
    workers: &[SocketAddr],
    (device, threads): (String, usize),
    null: bool,
) -> Result<Welcomed, HostError> {
    let failed = HostError::io(format!("cannot use the connection to rank {rank}"));
    let Joined { line, from, process, .. } = joined;
    let (answered, answers) = mpsc::channel();
    let (answers, heard) = (Mutex::new(answers), Mutex::new(Instant::now()));
    let (workers, threads) = (workers.to_vec(), threads as u32);
    line.say(&Order::Welcome { term, rank, workers, device, threads, null }, &[]).map_err(failed)?;
    let name = format!("rank {rank} (process {process})").into();
    let remote = Remote {
        name,
        process,
        line,
        answers,
        saved: Mutex::default(),
        doing: Mutex::default(),
        tally: Tally::default(),
        heard,
    };
    Ok(Welcomed { remote: Arc::new(remote), from, answered })
}

/// Those who were welcomed to a term that has not begun. Dropped, they are free to join the next.
struct Half(Vec<Arc<Remote>>);
impl Drop for Half {
    fn drop(&mut self) {
        hang_up(&self.0);
    }
}

/// Until so many workers are joined to each other.
fn await_ready(mut world: usize, happened: &Receiver<Event>, call: &Call<'_>) -> Result<(), HostError> {
    let began = Instant::now();
    while world > 0 {
        match happened.recv_timeout(LOOK) {
            Ok(Event::From { report: Report::Ready, .. }) => world -= 1,
            Ok(Event::Gone { why, .. }) => return Err(HostError::Refused(why)),
            Ok(other) => return Err(HostError::Refused(format!("a worker that is to get ready: {other:?}"))),
            Err(_) if began.elapsed() > call.patience.max(HANDSHAKE_LIMIT) || (call.give_up)() => {
                return Err(HostError::Refused(format!("{world} workers did not get ready in time")));
            }
            Err(_) => {}
        }
    }
    Ok(())
}

impl Drop for Gathering {
    fn drop(&mut self) {
        self.has_waiting();
        for joined in self.waiting.drain(..) {
            let _ = joined.line.say(&Order::Leave, &[]);
            // Nothing is left of this process soon.
            joined.line.hang_up();
        }
    }
}

/// In the order of ranks: those who ask for one have it, if it is there and nobody else's.
fn by_rank(joined: Vec<Joined>) -> Vec<Joined> {
    let mut seats: Vec<Option<Joined>> = joined.iter().map(|_| None).collect();
    let mut others = vec![];
    for one in joined {
        match one.rank.and_then(|rank| seats.get_mut(usize::from(rank))).filter(|seat| seat.is_none()) {
            Some(seat) => *seat = Some(one),
            None => others.push(one),
        }
    }
    let mut others = others.into_iter();
    seats.into_iter().filter_map(|seat| seat.or_else(|| others.next())).collect()
}

impl Welcomed {
    /// Has it handed on what it says, until the connection ends.
    fn hear_all(self, rank: u16, events: Sender<Event>) -> io::Result<()> {
        let Self { remote, from, answered } = self;
        from.each(move |said| {
            remote.hear();
            said.iter().for_each(|(report, _)| remote.tally.heard(report));
            let event = match said {
                Ok((Report::Alive { doing }, _)) => return *lock(&remote.doing) = doing,
                // Whoever is told may have gone.
                Ok((Report::Answer(result), bytes)) => return drop(answered.send((result, bytes))),
                Ok((Report::Saved(result), _)) => {
                    let waiting = lock(&remote.saved).take();
                    return waiting.into_iter().for_each(|waiting| drop(waiting.send(result.clone())));
                }
                Ok((report, _)) => Event::From { rank, report },
                Err(error) => {
                    // Whoever waits for what it saves waits no longer.
                    *lock(&remote.saved) = None;
                    Event::Gone { rank, why: format!("{} is gone: {error}", remote.name) }
                }
            };
            let _ = events.send(event);
        })
    }
}
