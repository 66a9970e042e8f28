//! How workers come together: they join, learn who they are, and are connected to each other and to the driver. Ranks go by
//! who came first; since all workers host the same kind of device, nothing depends on it.

use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::auth::{HANDSHAKE_LIMIT, JobKey, Party, Pass, Purpose, greet};
use crate::coordinator::Event;
use crate::data::DataPlane;
use crate::driver::Workers;
use crate::listener::{Listener, Port};
use crate::message::{Cause, Line, Order, Report, hear};
use crate::remote::{Answer, Remote};
use crate::worker::dial;
use crate::{HostError, TERM, VERSION, lock};

/// A door at which workers come together.
pub struct Gathering {
    listener: Listener,
    key: JobKey,
    null: bool,
}

/// A worker that has joined.
struct Joined {
    stream: TcpStream,
    /// Where it takes connections.
    address: SocketAddr,
    process: u32,
}

/// A worker that knows who it is, and what is still read of it here.
struct Welcomed {
    remote: Arc<Remote>,
    from: TcpStream,
    answered: Sender<Answer>,
}

impl Gathering {
    /// On a free port of this machine.
    ///
    /// # Errors
    /// If there is none.
    pub fn open(key: &JobKey) -> Result<Self, HostError> {
        let pass = Pass { key: key.clone(), term: TERM, purpose: Purpose::Control };
        let listener = Listener::open(Port::bind()?, pass, Party::Driver)?;
        Ok(Self { listener, key: key.clone(), null: false })
    }
    /// The workers are to do nothing but send and receive what plans say: for measuring what that takes.
    pub fn for_null_replay(self) -> Self {
        Self { null: true, ..self }
    }
    /// Where workers are to [join](crate::Worker::join).
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
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
        let welcomed = welcomed.map(|((joined, device), rank)| self.welcome(joined, rank, &addresses, device));
        let mut welcomed = welcomed.collect::<Result<Vec<_>, _>>()?;
        let peers = self.reach(&addresses)?;
        for worker in &mut welcomed {
            self.await_ready(worker, within)?;
        }
        let (events, happened) = mpsc::channel();
        let mut remotes = Vec::with_capacity(welcomed.len());
        for (worker, rank) in welcomed.into_iter().zip(0..) {
            remotes.push(worker.remote.clone());
            worker.remote.hear();
            let (events, job) = (events.clone(), self.key.job());
            let hearing = thread::Builder::new().name(format!("hearing rank {rank}"));
            let spawned = hearing.spawn(move || worker.hear_all(rank, job, &events));
            spawned.map_err(HostError::io("cannot start a thread"))?;
        }
        let broke = Mutex::new(events);
        let on_break = move |cause: &Cause| {
            let _ = lock(&broke).send(Event::Fault(cause.clone()));
        };
        let plane = DataPlane::new(Party::Driver, &self.key, TERM, peers, self.null, Box::new(on_break))?;
        Ok(Workers { remotes, plane, happened })
    }

    /// Until as many have joined as are wanted.
    fn wait(&self, world: usize, within: Duration) -> Result<Vec<Joined>, HostError> {
        let (until, mut last) = (Instant::now() + within, None);
        let mut all = Vec::with_capacity(world);
        while all.len() < world {
            let refused = match self.listener.next(until.saturating_duration_since(Instant::now())) {
                None => {
                    let (joined, seconds) = (all.len(), within.as_secs());
                    return Err(HostError::Missing { joined, world, seconds, last });
                }
                Some(Ok((Party::Joining, stream))) => match self.join(stream) {
                    Ok(joined) => {
                        all.push(joined);
                        continue;
                    }
                    Err(why) => why,
                },
                Some(Ok((party, _))) => format!("{party} is no worker that joins"),
                Some(Err(why)) => why,
            };
            last = Some(refused);
        }
        Ok(all)
    }
    /// What a worker says when it joins, if it fits this build.
    fn join(&self, mut stream: TcpStream) -> Result<Joined, String> {
        let _ = stream.set_read_timeout(Some(HANDSHAKE_LIMIT));
        let said = hear(&mut stream, self.key.job(), TERM).map_err(|e| format!("a worker that joins: {e}"))?.0;
        let _ = stream.set_read_timeout(None);
        let why = match said {
            Report::Join { version, address, process } if version == VERSION => {
                return Ok(Joined { stream, address, process });
            }
            Report::Join { version, process, .. } => format!(
                "the worker of process {process} is of version {version}, and the driver of {VERSION}: start both from \
                 one build"
            ),
            other => format!("a worker begins with {other:?}"),
        };
        // It may be gone already.
        let _ = Line::new(stream, &self.key, TERM).say(&Order::Refuse(why.clone()), &[]);
        Err(why)
    }
    fn welcome(
        &self,
        joined: Joined,
        rank: u16,
        workers: &[SocketAddr],
        (device, threads): &(String, usize),
    ) -> Result<Welcomed, HostError> {
        let failed = || HostError::io(format!("cannot use the connection to rank {rank}"));
        let Joined { stream, process, .. } = joined;
        let from = stream.try_clone().map_err(failed())?;
        let (answered, answers) = mpsc::channel();
        let (line, answers, heard) =
            (Line::new(stream, &self.key, TERM), Mutex::new(answers), Mutex::new(Instant::now()));
        let (workers, device, threads) = (workers.to_vec(), device.clone(), *threads as u32);
        let null = self.null;
        line.say(&Order::Welcome { rank, workers, device, threads, null }, &[]).map_err(failed())?;
        let name = format!("rank {rank} (process {process})").into();
        Ok(Welcomed { remote: Arc::new(Remote { name, line, answers, heard }), from, answered })
    }
    /// A connection to each worker, for what channels carry.
    fn reach(&self, workers: &[SocketAddr]) -> Result<Vec<(Party, TcpStream)>, HostError> {
        let pass = Pass { key: self.key.clone(), term: TERM, purpose: Purpose::Data };
        let reach = |(address, rank): (&SocketAddr, u16)| {
            let to = Party::Worker(rank);
            let refused = |e: &dyn std::fmt::Display| HostError::Refused(format!("cannot reach {to}: {e}"));
            let stream = dial(*address).map_err(|e| refused(&e))?;
            greet(&stream, &pass, Party::Driver, to).map_err(|e| refused(&e))?;
            Ok((to, stream))
        };
        workers.iter().zip(0..).map(reach).collect()
    }
    fn await_ready(&self, worker: &mut Welcomed, within: Duration) -> Result<(), HostError> {
        let Welcomed { remote, from, .. } = worker;
        let refused = |e: &dyn std::fmt::Display| HostError::Refused(format!("{} did not get ready: {e}", remote.name));
        let _ = from.set_read_timeout(Some(within.max(HANDSHAKE_LIMIT)));
        let (said, _): (Report, _) = hear(from, self.key.job(), TERM).map_err(|e| refused(&e))?;
        let _ = from.set_read_timeout(None);
        if said == Report::Ready { Ok(()) } else { Err(refused(&format!("it says {said:?}"))) }
    }
}

impl Welcomed {
    /// Hands on what it says, until the connection ends.
    fn hear_all(mut self, rank: u16, job: u64, events: &Sender<Event>) {
        let why = loop {
            let said = hear(&mut self.from, job, TERM);
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
