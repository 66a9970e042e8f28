//! The rim of a worker: sockets, threads and a device around its [machine](crate::machine). One thread hears the driver, one
//! (`Hands`) does what takes long, and the caller's holds the machine between them, so that a step can be given up while it
//! runs. How it comes into a term is in `coming.rs`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use thalweg_graph::Hash;
use thalweg_graph::plan::{Memory, Plan};
use thalweg_runtime::checkpoint::{Root, Shard};
use thalweg_runtime::executor::{Exchange, Fetch, Position, Prepared};
use thalweg_runtime::source::Opener;
use thalweg_runtime::{AbortFlag, Device, DeviceError, Executor, crash};

use crate::access::Encryption;
use crate::auth::{JobKey, Party};
use crate::coming::Coming;
use crate::control::Line;
use crate::data::DataPlane;
use crate::joining::{self, Joining};
use crate::machine::{Command, Event, Exit, Machine};
use crate::message::{Cause, Drawn, Order, Report};
use crate::reading::{Library, Reading, Shelves};
use crate::stream::Stream;
use crate::{BEAT, HostError, lock, short};

/// What a worker is started with.
#[derive(Clone, Debug)]
pub struct Worker {
    /// Where the driver takes connections, and the job's secret.
    pub join: Door,
    /// Which rank it asks for.
    pub rank: Option<u16>,
    /// How long it looks for the driver once it has lost it.
    pub patience: Duration,
    /// Where it takes connections of other workers: an address, and a port or 0. If nothing is said, the address from which it
    /// reaches the driver.
    pub listen: Option<SocketAddr>,
    /// Where it may write shards of checkpoints, and read data.
    pub roots: Vec<Root>,
    /// Opens data sets below them.
    pub opener: Option<Arc<dyn Opener>>,
}

/// Where a driver is found.
#[derive(Clone, Debug)]
pub enum Door {
    /// Always there. Whether connections are encrypted has to be what the driver was told.
    At(SocketAddr, JobKey, Encryption),
    /// Where the [job](crate::Job) in this folder says: another one may come if the driver is gone.
    Of(PathBuf),
}

impl Door {
    pub(crate) fn find(&self) -> Result<(SocketAddr, JobKey, Encryption), Exit> {
        let nowhere = || Exit::Lost("the driver is nowhere to be found".into());
        match self {
            Door::At(address, key, encryption) => Ok((*address, key.clone(), *encryption)),
            Door::Of(folder) if !folder.exists() => Err(nowhere()),
            Door::Of(folder) => {
                let job = crate::Job::at(folder).map_err(|e| Exit::Lost(e.to_string()))?;
                Ok((job.address().ok_or_else(nowhere)?, job.key, job.reach.encryption))
            }
        }
    }
    /// Whether there was a job and it is over.
    pub(crate) fn is_over(&self, was_there: &mut bool) -> bool {
        let Door::Of(folder) = self else { return false };
        let is_there = folder.exists();
        *was_there |= is_there;
        *was_there && !is_there
    }
}

/// Opens a device by its name and number of threads.
pub type Open<'a> = dyn Fn(&str, usize) -> Result<Box<dyn Device>, DeviceError> + 'a;

/// A worker that is joined to all others.
pub(crate) struct Member {
    pub(crate) key: JobKey,
    pub(crate) term: u32,
    pub(crate) rank: u16,
    pub(crate) workers: usize,
    pub(crate) device: Box<dyn Device>,
    pub(crate) null: bool,
    pub(crate) line: Line<Report>,
    pub(crate) peers: Vec<(Party, Stream)>,
    pub(crate) events: Sender<Event>,
    pub(crate) happened: Receiver<Event>,
}

/// Takes part in a job until it is over: in one term after the other, each begun anew by joining.
///
/// # Errors
/// If it is not let in, and if the driver is lost and not found again.
pub fn serve(worker: &Worker, open: &Open<'_>) -> Result<(), HostError> {
    let began = Instant::now();
    let mut joining = Joining::new(worker.patience, matches!(worker.join, Door::Of(_)), Duration::ZERO);
    let mut coming = Coming::new(worker);
    let mut next = Some(joining::Event::Tick);
    let (roots, opener) = (worker.roots.clone(), worker.opener.clone());
    let shelves = Shelves { library: Library::default(), roots, opener };
    loop {
        let event = next.take().unwrap_or_else(|| coming.next());
        for command in joining.handle(began.elapsed(), event) {
            let ended = |outcome: Result<joining::Event, Exit>| Some(outcome.unwrap_or_else(joining::Event::Ended));
            match command {
                joining::Command::Seek => next = ended(coming.seek()),
                joining::Command::Open { device, threads, null } => {
                    next = ended(coming.open(open, &device, threads, null));
                }
                joining::Command::Meet { seat, reach } => {
                    next = coming.meet(seat, reach).err().map(joining::Event::Ended)
                }
                joining::Command::TurnAway => coming.turn_away(),
                joining::Command::TakePart => {
                    let nobody = || Exit::Lost("nobody was met".into());
                    let exit = coming.member().map_or_else(nobody, |member| take_part(member, &shelves));
                    next = Some(joining::Event::Ended(exit));
                }
                joining::Command::HangUp => coming.hang_up(),
                joining::Command::Rest => {
                    coming.rest();
                    next = Some(joining::Event::Tick);
                }
                joining::Command::Finish(outcome) => return outcome.map_err(HostError::Refused),
            }
        }
    }
}

/// From the first order of a term to the last.
fn take_part(member: Member, shelves: &Shelves) -> Exit {
    let rank = member.rank;
    match see_through(member, shelves.clone()) {
        Ok(end) => end,
        Err(error) => Exit::Refused(format!("rank {rank}: {error}")),
    }
}

fn see_through(member: Member, shelves: Shelves) -> Result<Exit, HostError> {
    let Member { key, term, rank, workers, device, null, line, peers, events, happened } = member;
    let broke = Mutex::new(events.clone());
    let on_break = move |cause: &Cause| {
        let _ = lock(&broke).send(Event::Broken(cause.clone()));
    };
    let plane = DataPlane::new(Party::Worker(rank), &key, term, peers, null, Box::new(on_break))?;
    let executor = Executor::hosting(vec![device], vec![rank], plane.clone());
    let executor = executor.map_err(|e| HostError::Refused(e.to_string()))?;
    let position = executor.position();
    let (abort, (jobs, to_do), (ballots, decisions)) = (executor.abort_flag(), mpsc::channel(), mpsc::channel());
    let (plans, decisions) = (vec![], Mutex::new(decisions));
    let roots = shelves.roots.clone();
    let reading = Reading::new(shelves, rank, plane.clone(), abort.clone());
    let hands =
        Hands { executor, rank, world: workers, plans, plane: plane.clone(), events, decisions, roots, reading };
    let working = thread::Builder::new().name(format!("rank {rank}"));
    let working = working.spawn(move || hands.work(to_do)).map_err(HostError::io("cannot start a thread"))?;
    let end = match line.say(&Report::Ready, &[]) {
        Ok(()) => decide(happened, &line, &abort, &position, &jobs, &ballots),
        Err(e) => Exit::Lost(format!("the driver is gone: {e}")),
    };
    // Whatever it is doing: it ends when nobody wants it any more. Only then may it join again.
    abort.raise();
    plane.close();
    drop((jobs, ballots));
    let _ = working.join();
    line.hang_up();
    Ok(match end {
        Exit::Lost(why) => Exit::Lost(format!("rank {rank}: {why}")),
        Exit::Refused(why) => Exit::Refused(format!("rank {rank}: {why}")),
        Exit::Left => Exit::Left,
    })
}

/// The machine, until it leaves.
fn decide(
    happened: Receiver<Event>,
    line: &Line<Report>,
    abort: &AbortFlag,
    position: &Position,
    jobs: &Sender<Job>,
    ballots: &Sender<bool>,
) -> Exit {
    let mut machine = Machine::new();
    let gone = |e: std::io::Error| Exit::Lost(format!("the driver is gone: {e}"));
    loop {
        let event = match happened.recv_timeout(BEAT) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => {
                match line.say(&Report::Alive { doing: position.describe().concat() }, &[]) {
                    Ok(()) => continue,
                    Err(error) => return gone(error),
                }
            }
            Err(RecvTimeoutError::Disconnected) => return Exit::Lost("nobody is left who could say anything".into()),
        };
        for command in machine.handle(event) {
            match command {
                Command::Report(report, bytes) => {
                    if let Err(error) = line.say(&report, &bytes) {
                        return gone(error);
                    }
                }
                Command::Do(order, bytes) => drop(jobs.send(Job::Do(order, bytes))),
                Command::Run { step, loaded, draws } => {
                    abort.clear();
                    drop(jobs.send(Job::Run { step, loaded, draws }));
                }
                Command::Stop => abort.raise(),
                Command::Decide { commit } => drop(ballots.send(commit)),
                Command::Exit(exit) => return exit,
            }
        }
    }
}

/// What takes long.
enum Job {
    Do(Order, Vec<u8>),
    Run { step: u64, loaded: u32, draws: Arc<[Drawn]> },
}

/// Does it.
struct Hands {
    executor: Executor,
    rank: u16,
    world: usize,
    /// With prefixes of their hashes.
    plans: Vec<Option<(Prepared, u64)>>,
    plane: Arc<DataPlane>,
    events: Sender<Event>,
    decisions: Mutex<Receiver<bool>>,
    roots: Vec<Root>,
    reading: Reading,
}

impl Hands {
    fn work(mut self, to_do: Receiver<Job>) {
        for job in to_do {
            let event = match job {
                Job::Do(order, bytes) => match self.answer(order, &bytes) {
                    Ok((number, bytes)) => Event::Done(Ok(number), bytes),
                    Err(why) => Event::Done(Err(why), vec![]),
                },
                Job::Run { step, loaded, draws } => Event::Ended(self.run(step, loaded, &draws)),
            };
            if self.events.send(event).is_err() {
                return;
            }
        }
    }
    fn answer(&mut self, order: Order, bytes: &[u8]) -> Result<(u64, Vec<u8>), String> {
        let nothing = Ok((0, vec![]));
        match order {
            Order::ReserveState(bytes) => {
                self.executor.reserve_state(&[bytes]).map_err(|e| e.to_string())?;
                nothing
            }
            Order::Load(hash) => {
                crash::point("loading");
                Ok((self.load(hash, bytes)?, vec![]))
            }
            Order::Unload(number) => {
                let taken = self.plans.get_mut(number as usize).and_then(Option::take);
                let (prepared, _) = taken.ok_or_else(|| format!("there is no plan {number}"))?;
                self.executor.unload(&prepared);
                nothing
            }
            Order::Write(memory, offset) => {
                self.within(memory, offset, bytes.len() as u64)?;
                crash::point("restoring");
                self.executor.device_mut(0).write(memory, offset, bytes).map_err(|e| e.to_string())?;
                nothing
            }
            Order::Read(memory, offset, len) => {
                self.within(memory, offset, u64::from(len))?;
                let mut bytes = vec![0; len as usize];
                self.executor.device_mut(0).read(memory, offset, &mut bytes).map_err(|e| e.to_string())?;
                Ok((0, bytes))
            }
            Order::Save(order) => {
                let shard = Shard::copy(order, &self.roots, self.executor.device_mut(0))?;
                let events = self.events.clone();
                let write = move || {
                    // The term may be over.
                    let _ = events.send(Event::Saved(shard.write().map_err(|e| e.to_string())));
                };
                let writing = thread::Builder::new().name("checkpoint".into()).spawn(write);
                writing.map_err(|e| format!("cannot start a thread: {e}"))?;
                nothing
            }
            Order::Open(number, spec) => Ok((0, self.reading.open(number, spec)?)),
            Order::Reserved(memory) => Ok((self.executor.devices()[0].reserved(memory), vec![])),
            other => crate::watch::answer(&other, &mut self.executor, &self.plans),
        }
    }
    /// Only what there is can be read and written, whatever the driver says.
    fn within(&self, memory: Memory, offset: u64, len: u64) -> Result<(), String> {
        let there = self.executor.devices()[0].reserved(memory);
        let inside = offset.checked_add(len).is_some_and(|end| end <= there);
        inside.then_some(()).ok_or_else(|| format!("{len} bytes at {offset} of {} with {there}", memory.name()))
    }
    /// A plan is believed once it has been verified here, and its parts fit this job.
    fn load(&mut self, hash: [u8; 32], bytes: &[u8]) -> Result<u64, String> {
        let plan = Plan::from_bytes(bytes).map_err(|e| e.to_string())?;
        // They are its canonical bytes: no other ones are read.
        let found = Hash::of(bytes);
        if found.0 != hash {
            return Err(format!("this is plan {found}, not the one that was announced"));
        }
        let Some(part) = plan.devices.get(usize::from(self.rank)).filter(|_| plan.devices.len() == self.world) else {
            return Err(format!("a plan of {} devices for {} workers", plan.devices.len(), self.world));
        };
        // A device reserves whole lines.
        let there = self.executor.devices()[0].reserved(Memory::State);
        if part.state_bytes > there {
            return Err(format!("a plan with {} bytes of state, where {there} are reserved", part.state_bytes));
        }
        if let Some(memory) = Memory::ALL.into_iter().find(|m| part.bytes(*m) > 1 << 47) {
            return Err(format!("no machine has {} bytes of {}", part.bytes(memory), memory.name()));
        }
        let prepared = self.executor.load(&Arc::new(plan)).map_err(|e| e.to_string())?;
        let free = self.plans.iter().position(Option::is_none).unwrap_or(self.plans.len());
        if free == self.plans.len() {
            self.plans.push(None);
        }
        self.plans[free] = Some((prepared, short(&hash)));
        Ok(free as u64)
    }
    fn run(&mut self, step: u64, loaded: u32, draws: &[Drawn]) -> Report {
        let Some(Some((prepared, plan))) = self.plans.get(loaded as usize).cloned() else {
            let cause = Cause::Fault(format!("there is no plan {loaded}"));
            return Report::Failed { step, cause, in_tail: false };
        };
        let before: Vec<_> = prepared.carried().collect();
        self.plane.begin(step, &prepared, plan);
        if let Err(why) = self.reading.begin(step, plan, &prepared, draws) {
            self.plane.end();
            let (_, cause) = (self.reading.end(), Cause::Fault(format!("rank {}: {why}", self.rank)));
            return Report::Failed { step, cause, in_tail: false };
        }
        let channels = prepared.plan().channels.len();
        let mut fetches = Vec::with_capacity(channels);
        fetches.resize_with(channels, Fetch::default);
        let (feeds, events, decisions) = (vec![&[][..]; channels], Mutex::new(&self.events), &self.decisions);
        let agrees = || {
            crash::point("body-done");
            let said = lock(&events).send(Event::BodyEnded);
            let decision = || lock(decisions).recv().ok();
            let commit = said.ok().and_then(|()| decision()).unwrap_or(false);
            if commit {
                crash::point("committing");
            }
            commit
        };
        let outcome = self.executor.run(&prepared, Exchange { feeds: &feeds, draws: &[], fetches, agrees: &agrees });
        self.plane.end();
        let unread = self.reading.end();
        crash::point("committed");
        let after = prepared.carried().zip(before).map(|((id, now), (_, was))| {
            (id.0, now.transfers - was.transfers, now.bytes - was.bytes, now.copied - was.copied)
        });
        let carried = after.filter(|(_, transfers, _, copied)| *transfers + *copied > 0).collect();
        match outcome {
            Ok(committed) => Report::Done { step, committed, carried },
            Err(error) => {
                let in_tail = matches!(error, DeviceError::Torn { .. });
                // What broke on the way has been told already.
                let on_the_way = matches!(error, DeviceError::Elsewhere { .. }) && self.plane.failure().is_some();
                let cause = match (error, unread) {
                    // It was stopped since it waits for that.
                    (DeviceError::Aborted, Some(why)) => Cause::Fault(why),
                    (DeviceError::Aborted, None) => Cause::Aborted,
                    _ if on_the_way => Cause::Aborted,
                    (error, _) => Cause::Fault(format!("rank {}: {error}", self.rank)),
                };
                Report::Failed { step, cause, in_tail }
            }
        }
    }
}
