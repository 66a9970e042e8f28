//! How workers come together: they join, learn who they are, and are connected to each other and to the driver. Ranks go by
//! who came first; since all workers host the same kind of device, nothing depends on it.

use std::net::SocketAddr;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::access::{Access, Reach};
use crate::auth::{HANDSHAKE_LIMIT, JobKey, Party, Pass, Purpose};
use crate::control::{Attending, Hearing, Line, Reception};
use crate::coordinator::Event;
use crate::data::DataPlane;
use crate::driver::Workers;
use crate::message::{Cause, Order, Report};
use crate::remote::{Answer, Remote};
use crate::stream::Stream;
use crate::{HostError, TERM, VERSION, lock};

/// A door at which workers come together.
pub struct Gathering {
    reception: Reception,
    access: Access,
    key: JobKey,
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
    /// On a free port of this machine.
    ///
    /// # Errors
    /// If there is none.
    pub fn open(key: &JobKey) -> Result<Self, HostError> {
        Self::open_at(key, Reach::default())
    }
    /// Where it can be reached.
    ///
    /// # Errors
    /// If that is not possible, or not protected.
    pub fn open_at(key: &JobKey, reach: Reach) -> Result<Self, HostError> {
        let address = reach.address();
        if address.ip().is_unspecified() {
            let why = format!("workers are told where to find the driver: {address} is no address that they can reach");
            return Err(HostError::Job(why));
        }
        let pass = Pass { key: key.clone(), term: TERM, purpose: Purpose::Control };
        let access = Access::new(key, address.ip(), reach.encryption)?;
        let reception = Reception::open(access.bind(address)?, access.tls.clone(), pass, Party::Driver)?;
        Ok(Self { reception, access, key: key.clone() })
    }
    /// Where workers are to [join](crate::Worker::join).
    pub fn address(&self) -> SocketAddr {
        self.reception.address()
    }
    /// Waits until a worker has come for each device, given by name and threads; joins them to each other.
    ///
    /// # Errors
    /// If they do not come `within` the time, or cannot reach each other.
    pub fn workers(self, devices: &[(String, usize)], within: Duration) -> Result<Workers, HostError> {
        if devices.is_empty() || devices.len() > usize::from(u16::MAX) {
            let why = format!("it takes between one and {} workers, not {}", u16::MAX, devices.len());
            return Err(HostError::Job(why));
        }
        let joined = self.wait(devices.len(), within)?;
        let addresses: Vec<SocketAddr> = joined.iter().map(|j| j.address).collect();
        let welcomed = joined.into_iter().zip(devices).zip(0..);
        let welcomed = welcomed.map(|((joined, device), rank)| Self::welcome(joined, rank, &addresses, device));
        let mut welcomed = welcomed.collect::<Result<Vec<_>, _>>()?;
        let peers = self.reach(&addresses)?;
        for worker in &mut welcomed {
            Self::await_ready(worker, within)?;
        }
        let (events, happened) = mpsc::channel();
        let mut remotes = Vec::with_capacity(welcomed.len());
        for (worker, rank) in welcomed.into_iter().zip(0..) {
            remotes.push(worker.remote.clone());
            worker.remote.hear();
            let events = events.clone();
            let hearing = thread::Builder::new().name(format!("hearing rank {rank}"));
            let spawned = hearing.spawn(move || worker.hear_all(rank, &events));
            spawned.map_err(HostError::io("cannot start a thread"))?;
        }
        let broke = Mutex::new(events);
        let on_break = move |cause: &Cause| {
            let _ = lock(&broke).send(Event::Fault(cause.clone()));
        };
        let plane = DataPlane::new(Party::Driver, &self.key, TERM, peers, Box::new(on_break))?;
        Ok(Workers { remotes, plane, happened })
    }

    /// Until as many have joined as are wanted.
    fn wait(&self, world: usize, within: Duration) -> Result<Vec<Joined>, HostError> {
        let (until, mut last) = (Instant::now() + within, None);
        let mut all = Vec::with_capacity(world);
        while all.len() < world {
            let refused = match self.reception.next(until.saturating_duration_since(Instant::now())) {
                None => {
                    let (joined, seconds) = (all.len(), within.as_secs());
                    return Err(HostError::Missing { joined, world, seconds, last });
                }
                Some(Ok(Attending { party: Party::Joining, line, hearing })) => match Self::join(line, hearing) {
                    Ok(joined) => {
                        all.push(joined);
                        continue;
                    }
                    Err(why) => why,
                },
                Some(Ok(Attending { party, .. })) => format!("{party} is no worker that joins"),
                Some(Err(why)) => why,
            };
            last = Some(refused);
        }
        Ok(all)
    }
    /// What a worker says when it joins, if it fits this build.
    fn join(line: Line<Order>, mut from: Hearing<Report, Order>) -> Result<Joined, String> {
        let said = from.hear_within(HANDSHAKE_LIMIT).map_err(|e| format!("a worker that joins: {e}"))?.0;
        let why = match said {
            Report::Join { version, address, process } if version == VERSION => {
                return Ok(Joined { line, from, address, process });
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
        workers: &[SocketAddr],
        (device, threads): &(String, usize),
    ) -> Result<Welcomed, HostError> {
        let failed = || HostError::io(format!("cannot use the connection to rank {rank}"));
        let Joined { line, from, process, .. } = joined;
        let (answered, answers) = mpsc::channel();
        let (answers, heard) = (Mutex::new(answers), Mutex::new(Instant::now()));
        let (workers, device, threads) = (workers.to_vec(), device.clone(), *threads as u32);
        line.say(&Order::Welcome { rank, workers, device, threads }, &[]).map_err(failed())?;
        let name = format!("rank {rank} (process {process})").into();
        Ok(Welcomed { remote: Arc::new(Remote { name, line, answers, heard }), from, answered })
    }
    /// A connection to each worker, for what channels carry.
    fn reach(&self, workers: &[SocketAddr]) -> Result<Vec<(Party, Stream)>, HostError> {
        let pass = Pass { key: self.key.clone(), term: TERM, purpose: Purpose::Data };
        let reach = |(address, rank): (&SocketAddr, u16)| {
            let to = Party::Worker(rank);
            let refused = |e: &dyn std::fmt::Display| HostError::Refused(format!("cannot reach {to}: {e}"));
            let socket = self.access.dial(*address, &pass, Party::Driver, to).map_err(|e| refused(&e))?;
            Ok((to, socket.into_blocking().map_err(|e| refused(&e))?))
        };
        workers.iter().zip(0..).map(reach).collect()
    }
    fn await_ready(worker: &mut Welcomed, within: Duration) -> Result<(), HostError> {
        let Welcomed { remote, from, .. } = worker;
        let refused = |e: &dyn std::fmt::Display| HostError::Refused(format!("{} did not get ready: {e}", remote.name));
        let (said, _) = from.hear_within(within.max(HANDSHAKE_LIMIT)).map_err(|e| refused(&e))?;
        if said == Report::Ready { Ok(()) } else { Err(refused(&format!("it says {said:?}"))) }
    }
}

impl Welcomed {
    /// Hands on what it says, until the connection ends.
    fn hear_all(mut self, rank: u16, events: &Sender<Event>) {
        let why = loop {
            let said = self.from.hear();
            self.remote.hear();
            // Whoever is told may have gone.
            match said {
                Ok((Report::Alive, _)) => {}
                Ok((Report::Answer(result), bytes)) => drop(self.answered.send((result, bytes))),
                Ok((report, _)) => drop(events.send(Event::From { rank, report })),
                Err(error) => break error,
            }
        };
        let _ = events.send(Event::Gone { rank, why: format!("{} is gone: {why}", self.remote.name) });
    }
}
