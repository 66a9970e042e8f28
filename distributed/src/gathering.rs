//! How workers come together, at the start of a job and again whenever somebody is lost: they join, learn who they are and
//! which term it is, and are connected to each other and to the driver. There is one way in: who was there before, who was
//! started anew and who comes late all join alike, with nothing left of what they did.
//!
//! Ranks go by what those who join ask for, and then by who came first; since all workers host the same kind of device,
//! nothing but names depends on it.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use thalweg_runtime::crash;

use crate::access::{Access, Reach};
use crate::auth::{HANDSHAKE_LIMIT, JobKey, Party, Pass, Purpose};
use crate::control::{Attending, Hearing, Line, Reception};
use crate::coordinator;
use crate::data::DataPlane;
use crate::driver::{Connections, Workers};
use crate::membership::{Command, Event, Membership};
use crate::message::{Cause, Order, Report};
use crate::remote::{Answer, Remote, hang_up};
use crate::stream::Stream;
use crate::tally::Tally;
use crate::{HostError, JOINING, VERSION, lock};

/// How often it looks whether as many have come as are expected.
const LOOK: Duration = Duration::from_millis(20);

/// A door at which workers come together, open as long as the job lasts.
pub struct Gathering {
    reception: Reception,
    access: Access,
    key: JobKey,
    null: bool,
    /// Of the term that is, or was last.
    current: Option<Arc<Connections>>,
    /// Decides; times are counted from `opened`.
    membership: Membership,
    opened: Instant,
    /// Who has come and is in no term yet, by the numbers that were given them.
    waiting: BTreeMap<u64, Joined>,
    /// How many were let in.
    let_in: u64,
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
    /// Who was there when no term has begun here yet: those that a driver before this one has noted.
    pub before: &'a dyn Fn() -> Vec<u32>,
    /// Notes who is welcomed to a term, for a driver after this one.
    pub note: &'a dyn Fn(&[u32]) -> Result<(), HostError>,
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
        let (membership, opened, waiting) = (Membership::new(), Instant::now(), BTreeMap::new());
        let (key, current) = (key.clone(), None);
        Ok(Self { reception, access, key, null: false, current, membership, opened, waiting, let_in: 0 })
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
            self.let_in(arrival);
        }
        self.look_after();
        self.membership.has_waiting()
    }
    /// Ends the term that is, waits until workers have come, begins a term and joins them to each other. Who does not see it
    /// through is left behind, and the next term is begun.
    ///
    /// # Errors
    /// If too few come, or none of them can be joined.
    pub fn workers(&mut self, call: &Call<'_>) -> Result<Workers, HostError> {
        let before: Vec<u32> = self.current.take().map_or_else(call.before, |current| {
            current.end();
            current.remotes.iter().map(|remote| remote.process).collect()
        });
        let mut half: Option<Half> = None;
        let mut commands = VecDeque::new();
        commands.extend(self.decide(Event::Call { least: call.least, patience: call.patience, before }));
        loop {
            let Some(command) = commands.pop_front() else {
                self.look_after();
                let tick = Event::Tick { expected: (call.expected)(), given_up: (call.give_up)() };
                commands.extend(self.decide(tick));
                if commands.is_empty()
                    && let Some(event) = self.next(half.as_ref())
                {
                    commands.extend(self.decide(event));
                }
                continue;
            };
            match command {
                Command::Fence(processes) => (call.fence)(&processes),
                Command::Begin => {
                    let term = (call.begin)()?;
                    commands.extend(self.decide(Event::Began { term }));
                }
                Command::Welcome { term, seats } => match self.assemble(&seats, term, call) {
                    Ok(welcomed) => half = Some(welcomed),
                    Err(error) => commands.extend(self.decide(Event::Failed(error.to_string()))),
                },
                Command::Dismiss => half = None,
                Command::Finish(Ok(())) => {
                    let workers = half.take().and_then(Half::whole).expect("they were welcomed, and are ready");
                    self.current = Some(workers.connections.clone());
                    return Ok(workers);
                }
                Command::Finish(Err(error)) => return Err(error),
            }
        }
    }

    fn decide(&mut self, event: Event) -> Vec<Command> {
        self.membership.handle(self.opened.elapsed(), event)
    }
    /// What happens next, if anything does within a moment: to those who were welcomed, or else somebody may come.
    fn next(&mut self, half: Option<&Half>) -> Option<Event> {
        let Some(half) = half else {
            let arrival = self.reception.next(LOOK)?;
            self.let_in(arrival);
            return None;
        };
        match half.happened.recv_timeout(LOOK).ok()? {
            coordinator::Event::From { rank, report: Report::Ready } => Some(Event::Ready { rank }),
            coordinator::Event::Gone { why, .. } => Some(Event::Failed(why)),
            other => Some(Event::Failed(format!("a worker that is to get ready: {other:?}"))),
        }
    }
    /// Forgets those of who waits whose connections have ended.
    fn look_after(&mut self) {
        let gone = self.waiting.iter().filter(|(_, joined)| !joined.line.is_open()).map(|(number, _)| *number);
        for number in gone.collect::<Vec<u64>>() {
            self.waiting.remove(&number);
            self.decide(Event::Left { number });
        }
    }
    fn let_in(&mut self, arrival: Result<Attending, String>) {
        let joined = arrival.and_then(|attending| match attending {
            Attending { party: Party::Joining, line, hearing } => join(line, hearing),
            Attending { party, .. } => Err(format!("{party} is no worker that joins")),
        });
        let event = match joined {
            Ok((joined, rank)) => {
                crash::point("joining");
                self.let_in += 1;
                let (number, process) = (self.let_in, joined.process);
                self.waiting.insert(number, joined);
                Event::Joined { number, process, rank }
            }
            // Whoever is refused has been told.
            Err(why) => Event::Refused(why),
        };
        self.decide(event);
    }

    /// From those who have joined to those who get ready to take part.
    fn assemble(&mut self, seats: &[u64], term: u32, call: &Call<'_>) -> Result<Half, HostError> {
        crash::point("assembling");
        let joined: Vec<Joined> = seats.iter().filter_map(|number| self.waiting.remove(number)).collect();
        (call.note)(&joined.iter().map(|j| j.process).collect::<Vec<u32>>())?;
        let addresses: Vec<SocketAddr> = joined.iter().map(|j| j.address).collect();
        let (events, happened) = mpsc::channel();
        let mut half = Half { remotes: Vec::with_capacity(joined.len()), plane: None, happened };
        for (joined, rank) in joined.into_iter().zip(0..) {
            let worker = welcome(joined, rank, term, &addresses, (call.device)(rank), self.null)?;
            half.remotes.push(worker.remote.clone());
            worker.hear_all(rank, events.clone()).map_err(HostError::io("cannot start a thread"))?;
        }
        let peers = self.reach(&addresses, term)?;
        let broke = Mutex::new(events);
        let on_break = move |cause: &Cause| {
            let _ = lock(&broke).send(coordinator::Event::Fault(cause.clone()));
        };
        half.plane = Some(DataPlane::new(Party::Driver, &self.key, term, peers, self.null, Box::new(on_break))?);
        Ok(half)
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
fn join(line: Line<Order>, mut from: Hearing<Report, Order>) -> Result<(Joined, Option<u16>), String> {
    let said = from.hear_within(HANDSHAKE_LIMIT).map_err(|e| format!("a worker that joins: {e}"))?.0;
    let why = match said {
        Report::Join { version, address, process, rank } if version == VERSION => {
            return Ok((Joined { line, from, address, process }, rank));
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
struct Half {
    remotes: Vec<Arc<Remote>>,
    plane: Option<Arc<DataPlane>>,
    happened: Receiver<coordinator::Event>,
}
impl Half {
    /// The term has begun.
    fn whole(mut self) -> Option<Workers> {
        let plane = self.plane.take()?;
        let connections = Arc::new(Connections { remotes: std::mem::take(&mut self.remotes), plane });
        let (_, nothing) = mpsc::channel();
        let tell = Box::new(|text: &str| eprintln!("{text}"));
        Some(Workers { connections, happened: std::mem::replace(&mut self.happened, nothing), tell })
    }
}
impl Drop for Half {
    fn drop(&mut self) {
        hang_up(&self.remotes);
        self.plane.iter().for_each(|plane| plane.close());
    }
}

impl Drop for Gathering {
    fn drop(&mut self) {
        self.has_waiting();
        for joined in std::mem::take(&mut self.waiting).into_values() {
            let _ = joined.line.say(&Order::Leave, &[]);
            // Nothing is left of this process soon.
            joined.line.hang_up();
        }
    }
}

impl Welcomed {
    /// Has it handed on what it says, until the connection ends.
    fn hear_all(self, rank: u16, events: Sender<coordinator::Event>) -> io::Result<()> {
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
                Ok((report, _)) => coordinator::Event::From { rank, report },
                Err(error) => {
                    // Whoever waits for what it saves waits no longer.
                    *lock(&remote.saved) = None;
                    coordinator::Event::Gone { rank, why: format!("{} is gone: {error}", remote.name) }
                }
            };
            let _ = events.send(event);
        })
    }
}
