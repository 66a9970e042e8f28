//! The rim of the driver: where workers come together, and the [`Conductor`] that has steps run on them. A thread hears each
//! worker; what is said goes to the [coordinator](crate::coordinator), which runs on the session's own thread.

use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use thalweg_graph::plan::{ChannelId, Endpoint, Plan};
use thalweg_runtime::executor::{Carried, Conductor, Exchange, Fetch, Prepared, Wire};
use thalweg_runtime::{AbortFlag, Device, DeviceError, Executor};

use crate::auth::{JobKey, Party, Pass, Purpose, greet};
use crate::coordinator::{Command, Coordinator, Event, Outcome};
use crate::data::{DataPlane, prefix};
use crate::listener::{Listener, Port};
use crate::message::{Cause, Line, Order, Report, hear};
use crate::remote::{Remote, RemoteDevice};
use crate::worker::dial;
use crate::{HostError, TERM, VERSION};

/// How often it looks whether the caller wants no more.
const LOOK: Duration = Duration::from_millis(20);
/// How long workers may take to answer that a step is to end.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Prefixes of plans' hashes that are kept.
const PLANS_KEPT: usize = 64;

/// A door at which workers come together.
pub struct Gathering {
    listener: Listener,
    key: JobKey,
}

impl Gathering {
    /// On a free port of this machine.
    ///
    /// # Errors
    /// If there is none.
    pub fn open(key: &JobKey) -> Result<Self, HostError> {
        let pass = Pass { key: key.clone(), term: TERM, purpose: Purpose::Control };
        Ok(Self { listener: Listener::open(Port::bind()?, pass, Party::Driver)?, key: key.clone() })
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
        let Self { listener, key } = self;
        let world = devices.len();
        if world == 0 || world > usize::from(u16::MAX) {
            return Err(HostError::Job(format!("it takes between one and {} workers, not {world}", u16::MAX)));
        }
        let mut joined = Vec::with_capacity(world);
        let (until, mut last) = (Instant::now() + within, None);
        while joined.len() < world {
            let refused = match listener.next(until.saturating_duration_since(Instant::now())) {
                None => {
                    let (joined, seconds) = (joined.len(), within.as_secs());
                    return Err(HostError::Missing { joined, world, seconds, last });
                }
                Some(Ok((Party::Joining, stream))) => match self::joined(&stream, &key) {
                    Ok((address, process)) => {
                        joined.push((stream, address, process));
                        continue;
                    }
                    Err(why) => {
                        // It may be gone already.
                        let _ = Line::new(stream, &key, TERM).say(&Order::Refuse(why.clone()), &[]);
                        why
                    }
                },
                Some(Ok((party, _))) => format!("{party} is no worker that joins"),
                Some(Err(why)) => why,
            };
            last = Some(refused);
        }
        let workers: Vec<SocketAddr> = joined.iter().map(|(_, address, _)| *address).collect();
        let (events, happened) = mpsc::channel();
        let (mut remotes, mut readers) = (vec![], vec![]);
        for (rank, ((stream, _, process), (device, threads))) in joined.into_iter().zip(devices).enumerate() {
            let failed = || HostError::io(format!("cannot use the connection to rank {rank}"));
            readers.push(stream.try_clone().map_err(failed())?);
            let (answered, answers) = mpsc::channel();
            let name = format!("rank {rank} (process {process})").into();
            let (line, answers) = (Line::new(stream, &key, TERM), Mutex::new(answers));
            let (rank, workers, device, threads) = (rank as u16, workers.clone(), device.clone(), *threads as u32);
            line.say(&Order::Welcome { rank, workers, device, threads }, &[]).map_err(failed())?;
            remotes.push((Arc::new(Remote { name, line, answers }), answered));
        }
        let mut peers = vec![];
        let pass = Pass { key: key.clone(), term: TERM, purpose: Purpose::Data };
        for (rank, address) in workers.iter().enumerate() {
            let to = Party::Worker(rank as u16);
            let refused = |e: &dyn std::fmt::Display| HostError::Refused(format!("cannot reach {to}: {e}"));
            let stream = dial(*address).map_err(|e| refused(&e))?;
            greet(&stream, &pass, Party::Driver, to).map_err(|e| refused(&e))?;
            peers.push((to, stream));
        }
        for (rank, reader) in readers.iter_mut().enumerate() {
            let refused = |e: String| HostError::Refused(format!("rank {rank} did not get ready: {e}"));
            let _ = reader.set_read_timeout(Some(within.max(Duration::from_secs(1))));
            match hear(reader, key.job(), TERM).map_err(|e| refused(e.to_string()))?.0 {
                Report::Ready => {}
                other => return Err(refused(format!("it says {other:?}"))),
            }
            let _ = reader.set_read_timeout(None);
        }
        let (remotes, answered): (Vec<Arc<Remote>>, Vec<_>) = remotes.into_iter().unzip();
        for (rank, (mut reader, answered)) in readers.into_iter().zip(answered).enumerate() {
            let (events, job, name) = (events.clone(), key.job(), remotes[rank].name.clone());
            let hearing = thread::Builder::new().name(format!("hearing rank {rank}"));
            let all = move || {
                let why = loop {
                    match hear(&mut reader, job, TERM) {
                        Ok((Report::Answer(result), bytes)) => drop(answered.send((result, bytes))),
                        Ok((report, _)) => drop(events.send(Event::From { rank: rank as u16, report })),
                        Err(error) => break error,
                    }
                };
                let _ = events.send(Event::Gone { rank: rank as u16, why: format!("{name} is gone: {why}") });
            };
            hearing.spawn(all).map_err(HostError::io("cannot start a thread"))?;
        }
        let broke = Mutex::new(events.clone());
        let on_break = move |cause: &Cause| {
            let _ = broke.lock().unwrap_or_else(PoisonError::into_inner).send(Event::Fault(cause.clone()));
        };
        let plane = DataPlane::new(Party::Driver, &key, TERM, peers, Box::new(on_break))?;
        Ok(Workers { remotes, plane, happened })
    }
}

/// What a worker says when it joins, if it fits this build.
fn joined(stream: &std::net::TcpStream, key: &JobKey) -> Result<(SocketAddr, u32), String> {
    let mut stream = stream;
    let _ = stream.set_read_timeout(Some(crate::auth::HANDSHAKE_LIMIT));
    let heard = hear(&mut stream, key.job(), TERM).map_err(|e| format!("a worker that joins: {e}"))?.0;
    let _ = stream.set_read_timeout(None);
    match heard {
        Report::Join { version, address, process } if version == VERSION => Ok((address, process)),
        Report::Join { version, process, .. } => Err(format!(
            "the worker of process {process} is of version {version}, and the driver of {VERSION}: start both from one build"
        )),
        other => Err(format!("a worker begins with {other:?}")),
    }
}

/// Workers that have come together. Dropped, or with the executor that is made of them, they leave.
pub struct Workers {
    remotes: Vec<Arc<Remote>>,
    plane: Arc<DataPlane>,
    happened: Receiver<Event>,
}

impl Workers {
    /// An executor whose devices are theirs. Of each device there is a twin here, of the same name and kind, that says what
    /// lowering has to know; nothing is loaded on it.
    ///
    /// # Errors
    /// If there is not a twin for each.
    pub fn executor(self, twins: Vec<Box<dyn Device>>) -> Result<Executor, DeviceError> {
        if twins.len() != self.remotes.len() {
            let cause = format!("{} twins for {} workers", twins.len(), self.remotes.len());
            return Err(DeviceError::Open { device: "workers".into(), cause });
        }
        let devices = self.remotes.iter().zip(twins);
        let devices = devices.map(|(remote, twin)| Box::new(RemoteDevice { remote: remote.clone(), twin }) as _);
        let (devices, coordinator) = (devices.collect(), Coordinator::new(self.remotes.len() as u16));
        Executor::conducting(devices, Box::new(Driver { workers: self, coordinator, step: 0, plans: vec![] }))
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for remote in &self.remotes {
            // Who is gone has left.
            let _ = remote.line.say(&Order::Leave, &[]);
            remote.line.hang_up();
        }
        self.plane.close();
    }
}

/// Conducts steps.
struct Driver {
    workers: Workers,
    coordinator: Coordinator,
    /// Steps that were begun.
    step: u64,
    /// Plans with prefixes of their hashes, the youngest last.
    plans: Vec<(Arc<Plan>, u64)>,
}

impl Driver {
    fn prefix(&mut self, plan: &Arc<Plan>) -> u64 {
        if let Some((_, known)) = self.plans.iter().find(|(p, _)| Arc::ptr_eq(p, plan)) {
            return *known;
        }
        if self.plans.len() == PLANS_KEPT {
            self.plans.remove(0);
        }
        let prefix = prefix(plan);
        self.plans.push((plan.clone(), prefix));
        prefix
    }
    fn feed(&self, prepared: &Prepared, feeds: &[&[u8]], abort: &AbortFlag) -> Result<(), Cause> {
        for ((id, channel), bytes) in prepared.plan().channels.iter().zip(feeds) {
            if abort.is_raised() {
                return Err(Cause::Aborted);
            }
            if channel.from == Endpoint::Driver {
                // What broke on the way is told by who noticed.
                self.workers.plane.send(id, bytes).map_err(|e| Cause::Unreachable(e.to_string()))?;
            }
        }
        Ok(())
    }
    fn fetch(&self, prepared: &Prepared, fetches: &mut [Fetch<'_>]) -> Result<(), Cause> {
        let still = || self.workers.plane.failure().is_none();
        for (at, fetch) in fetches.iter_mut().enumerate() {
            let (id, mut word) = (ChannelId(at as u32), [0; 4]);
            let came = match fetch {
                Fetch::Nothing => true,
                Fetch::Into(bytes) => prepared.fetch(id, bytes, &still),
                Fetch::Status(_) => prepared.fetch(id, &mut word, &still),
            };
            if !came {
                let cause = || Cause::Unreachable(format!("channel {id} brought nothing"));
                return Err(self.workers.plane.failure().unwrap_or_else(cause));
            }
            if let Fetch::Status(status) = fetch {
                status.store(i32::from_le_bytes(word), std::sync::atomic::Ordering::Release);
            }
        }
        Ok(())
    }
    /// Does what the coordinator wants; gives how the step ended, if it has.
    fn obey(
        &mut self,
        event: Event,
        prepared: &Prepared,
        exchange: &mut Exchange<'_>,
        due: &mut Option<Instant>,
    ) -> Option<Outcome> {
        if let Event::From { report: Report::Done { step, carried, .. }, .. } = &event
            && *step == self.step
        {
            for (channel, transfers, bytes, copied) in carried {
                let (transfers, bytes, copied) = (*transfers, *bytes, *copied);
                prepared.note(ChannelId(*channel), Carried { transfers, bytes, copied });
            }
        }
        let mut commands: std::collections::VecDeque<Command> = self.coordinator.handle(event).into();
        while let Some(command) = commands.pop_front() {
            match command {
                Command::Send { rank, order } => {
                    // Who does not take it is gone, which is heard as well.
                    let _ = self.workers.remotes[usize::from(rank)].line.say(&order, &[]);
                }
                Command::Ask => {
                    let next = match self.fetch(prepared, &mut exchange.fetches) {
                        Ok(()) => Event::Decided { commit: (exchange.agrees)() },
                        Err(cause) => Event::Fault(cause),
                    };
                    commands.extend(self.coordinator.handle(next));
                }
                Command::Hurry => *due = Some(Instant::now() + ANSWER_LIMIT),
                Command::Finish(outcome) => return Some(outcome),
            }
        }
        None
    }
    fn see_through(&mut self, prepared: &Prepared, mut exchange: Exchange<'_>, abort: &AbortFlag) -> Outcome {
        let loaded = (0..self.workers.remotes.len()).map(|i| prepared.loaded(i).0 as u32).collect();
        let (step, mut due, mut stopped) = (self.step, None, false);
        let mut next = Some(Event::Start { step, loaded });
        let mut fed = false;
        loop {
            if let Some(event) = next.take()
                && let Some(outcome) = self.obey(event, prepared, &mut exchange, &mut due)
            {
                return outcome;
            }
            if !fed {
                fed = true;
                next = self.feed(prepared, exchange.feeds, abort).err().map(Event::Fault);
                continue;
            }
            if abort.is_raised() && !stopped {
                stopped = true;
                next = Some(Event::Fault(Cause::Aborted));
                continue;
            }
            if due.is_some_and(|due| Instant::now() > due) {
                next = Some(Event::Expired);
                continue;
            }
            next = match self.workers.happened.recv_timeout(LOOK) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => unreachable!("the data plane keeps a sender"),
            };
        }
    }
}

impl Conductor for Driver {
    fn run(&mut self, prepared: &Prepared, exchange: Exchange<'_>, abort: &AbortFlag) -> Result<bool, DeviceError> {
        self.step += 1;
        let plan = self.prefix(prepared.plan());
        self.workers.plane.begin(self.step, prepared, plan);
        let outcome = self.see_through(prepared, exchange, abort);
        self.workers.plane.end();
        let error = |cause: Cause| {
            let advice = match cause {
                Cause::Aborted => return DeviceError::Aborted,
                Cause::Gone(_) => ". What was there is gone: start the job anew and resume from the last checkpoint",
                _ => "",
            };
            let (place, cause) = (format!("step {}", self.step).into(), format!("{}{advice}", cause.text()));
            DeviceError::Elsewhere { place, cause }
        };
        match outcome {
            Outcome::Ended { committed } => Ok(committed),
            Outcome::Failed(cause) => Err(error(cause)),
            Outcome::Torn(cause) => Err(DeviceError::Torn { cause: Box::new(error(cause)) }),
        }
    }
}
