//! The rim of a worker: sockets, threads and a device around its [machine](crate::machine). One thread hears the driver, one
//! (`Hands`) does what takes long, and the caller's holds the machine between them, so that a step can be given up while it
//! runs.

use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use thalweg_graph::Hash;
use thalweg_graph::plan::{Memory, Plan};
use thalweg_runtime::executor::{Exchange, Fetch, Prepared};
use thalweg_runtime::{AbortFlag, Device, DeviceError, Executor};

use crate::auth::{HANDSHAKE_LIMIT, JobKey, Party, Pass, Purpose, greet};
use crate::data::DataPlane;
use crate::listener::{Listener, Port};
use crate::machine::{Command, Event, Machine};
use crate::message::{Cause, Line, Order, Report, hear};
use crate::null::Null;
use crate::striped;
use crate::{BEAT, HostError, TERM, VERSION, lock, short};

/// How long the others may take to connect, once all have joined.
const MEETING_LIMIT: Duration = Duration::from_secs(60);

/// What a worker is started with.
#[derive(Clone, Debug)]
pub struct Worker {
    /// Where the driver takes connections.
    pub join: SocketAddr,
    /// The job's secret.
    pub key: JobKey,
}

/// Opens a device by its name and number of threads.
pub type Open<'a> = dyn Fn(&str, usize) -> Result<Box<dyn Device>, DeviceError> + 'a;

/// A worker that is joined to all others.
struct Member {
    rank: u16,
    workers: usize,
    device: Box<dyn Device>,
    null: bool,
    line: Line,
    from_driver: TcpStream,
    peers: Vec<(Party, TcpStream)>,
}

/// Takes part in a job until it is over.
///
/// # Errors
/// If it is not let in, and if the job ends other than by the driver's leave.
pub fn serve(worker: &Worker, open: &Open<'_>) -> Result<(), HostError> {
    match join(worker, open)? {
        Some(member) => take_part(member, &worker.key),
        // The others did not come together.
        None => Ok(()),
    }
}

fn join(Worker { join, key }: &Worker, open: &Open<'_>) -> Result<Option<Member>, HostError> {
    let pass = |purpose| Pass { key: key.clone(), term: TERM, purpose };
    let refused = |e: &dyn std::fmt::Display| HostError::Refused(format!("cannot join the job at {join}: {e}"));
    let stream = dial(*join).map_err(|e| refused(&e))?;
    greet(&stream, &pass(Purpose::Control), Party::Joining, Party::Driver).map_err(|e| refused(&e))?;
    let mut from_driver = stream.try_clone().map_err(HostError::io("cannot use a connection"))?;
    let (line, port) = (Line::new(stream, key, TERM), Port::bind()?);
    let (version, process) = (VERSION.to_string(), std::process::id());
    line.say(&Report::Join { version, address: port.address(), process }, &[]).map_err(|e| refused(&e))?;
    let (rank, workers, device, null) = match hear(&mut from_driver, key.job(), TERM).map_err(|e| refused(&e))?.0 {
        Order::Welcome { rank, workers, device, threads, null } => {
            let opened = open(&device, threads as usize).map_err(|e| refused(&e))?;
            (rank, workers, if null { Box::new(Null(opened)) } else { opened }, null)
        }
        Order::Refuse(why) => return Err(refused(&why)),
        Order::Leave => return Ok(None),
        other => return Err(refused(&format!("the driver begins with {other:?}"))),
    };
    let (me, pass) = (Party::Worker(rank), pass(Purpose::Data));
    let peers = meet(me, rank, &workers, Listener::open(port, pass.clone(), me)?, &pass)?;
    Ok(Some(Member { rank, workers: workers.len(), device, null, line, from_driver, peers }))
}

/// From the first order to the last.
fn take_part(member: Member, key: &JobKey) -> Result<(), HostError> {
    let Member { rank, workers, device, null, line, from_driver, peers } = member;
    let refused = |why: String| HostError::Refused(format!("rank {rank}: {why}"));
    let (events, happened) = mpsc::channel();
    let broke = Mutex::new(events.clone());
    let on_break = move |cause: &Cause| {
        let _ = lock(&broke).send(Event::Broken(cause.clone()));
    };
    let plane = DataPlane::new(Party::Worker(rank), key, TERM, peers, null, Box::new(on_break))?;
    let executor = Executor::hosting(vec![device], vec![rank], plane.clone()).map_err(|e| refused(e.to_string()))?;
    let (abort, (jobs, to_do), (ballots, decisions)) = (executor.abort_flag(), mpsc::channel(), mpsc::channel());
    let (plans, decisions, job) = (vec![], Mutex::new(decisions), key.job());
    let hands =
        Hands { executor, rank, world: workers, plans, plane: plane.clone(), events: events.clone(), decisions };
    let failed = || HostError::io("cannot start a thread");
    let hearing = thread::Builder::new().name("from the driver".into());
    hearing.spawn(move || hear_all(from_driver, job, &events)).map_err(failed())?;
    let working = thread::Builder::new().name(format!("rank {rank}"));
    let working = working.spawn(move || hands.work(to_do)).map_err(failed())?;
    let outcome = match line.say(&Report::Ready, &[]) {
        Ok(()) => decide(happened, &line, &abort, &jobs, &ballots),
        Err(e) => Err(e.to_string()),
    };
    // Whatever it is doing: it ends when nobody wants it any more.
    abort.raise();
    plane.close();
    drop((jobs, ballots));
    let _ = working.join();
    line.hang_up();
    outcome.map_err(refused)
}

/// A connection to another process of this machine.
pub(crate) fn dial(address: SocketAddr) -> std::io::Result<TcpStream> {
    if !address.ip().is_loopback() {
        let why = format!("{address} is not on this machine; what processes send each other is not encrypted yet");
        return Err(std::io::Error::other(why));
    }
    TcpStream::connect_timeout(&address, HANDSHAKE_LIMIT)
}

/// Connections to all others: to those of a higher rank it goes, the others come.
fn meet(
    me: Party,
    rank: u16,
    workers: &[SocketAddr],
    listener: Listener,
    pass: &Pass,
) -> Result<Vec<(Party, TcpStream)>, HostError> {
    let refused = |to: Party, e: &dyn std::fmt::Display| HostError::Refused(format!("{me} cannot reach {to}: {e}"));
    let (mut peers, of) = (Vec::with_capacity(workers.len()), striped::connections(workers.len()));
    for (other, address) in workers.iter().enumerate().skip(usize::from(rank) + 1) {
        let to = Party::Worker(other as u16);
        for number in 0..of {
            let stream = dial(*address).map_err(|e| refused(to, &e))?;
            greet(&stream, pass, me, to).map_err(|e| refused(to, &e))?;
            striped::announce(&stream, number, of).map_err(|e| refused(to, &e))?;
            peers.push((to, number, stream));
        }
    }
    let mut awaited: Vec<Party> = (0..rank).map(Party::Worker).chain([Party::Driver]).collect();
    let (until, mut last) = (Instant::now() + MEETING_LIMIT, None);
    while !awaited.is_empty() {
        match listener.next(until.saturating_duration_since(Instant::now())) {
            Some(Ok((party, stream))) => {
                let said = if party == Party::Driver { Ok((0, 1)) } else { striped::announced(&stream) };
                let known = |number| peers.iter().any(|(p, n, _)| (*p, *n) == (party, number));
                match said {
                    Ok((number, of)) if awaited.contains(&party) && !known(number) => {
                        peers.push((party, number, stream));
                        if peers.iter().filter(|(p, ..)| *p == party).count() == usize::from(of) {
                            awaited.retain(|p| *p != party);
                        }
                    }
                    Ok(_) => last = Some(format!("{party} came twice, or should not have come")),
                    Err(error) => last = Some(format!("{party} does not say which connection it is: {error}")),
                }
            }
            Some(Err(why)) => last = Some(why),
            None => {
                let names: Vec<String> = awaited.iter().map(Party::to_string).collect();
                let last = last.map_or(String::new(), |l| format!("; refused: {l}"));
                let why = format!("{} did not connect within {MEETING_LIMIT:?}{last}", names.join(", "));
                return Err(HostError::Refused(format!("{me}: {why}")));
            }
        }
    }
    peers.sort_by_key(|(_, number, _)| *number);
    Ok(peers.into_iter().map(|(party, _, stream)| (party, stream)).collect())
}

fn hear_all(mut from: TcpStream, job: u64, events: &Sender<Event>) {
    loop {
        let event = match hear(&mut from, job, TERM) {
            Ok((order, bytes)) => Event::Order(order, bytes),
            Err(error) => Event::DriverGone(format!("the driver is gone: {error}")),
        };
        let last = matches!(event, Event::DriverGone(_));
        if events.send(event).is_err() || last {
            return;
        }
    }
}

/// The machine, until it leaves.
fn decide(
    happened: Receiver<Event>,
    line: &Line,
    abort: &AbortFlag,
    jobs: &Sender<Job>,
    ballots: &Sender<bool>,
) -> Result<(), String> {
    let mut machine = Machine::new();
    loop {
        let event = match happened.recv_timeout(BEAT) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => {
                line.say(&Report::Alive, &[]).map_err(|e| format!("the driver is gone: {e}"))?;
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return Err("nobody is left who could say anything".into()),
        };
        for command in machine.handle(event) {
            match command {
                Command::Report(report, bytes) => {
                    line.say(&report, &bytes).map_err(|e| format!("the driver is gone: {e}"))?;
                }
                Command::Do(order, bytes) => drop(jobs.send(Job::Do(order, bytes))),
                Command::Run { step, loaded } => {
                    abort.clear();
                    drop(jobs.send(Job::Run { step, loaded }));
                }
                Command::Stop => abort.raise(),
                Command::Decide { commit } => drop(ballots.send(commit)),
                Command::Exit(how) => return how,
            }
        }
    }
}

/// What takes long.
enum Job {
    Do(Order, Vec<u8>),
    Run { step: u64, loaded: u32 },
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
}

impl Hands {
    fn work(mut self, to_do: Receiver<Job>) {
        for job in to_do {
            let event = match job {
                Job::Do(order, bytes) => match self.answer(order, &bytes) {
                    Ok((number, bytes)) => Event::Done(Ok(number), bytes),
                    Err(why) => Event::Done(Err(why), vec![]),
                },
                Job::Run { step, loaded } => Event::Ended(self.run(step, loaded)),
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
            Order::Load(hash) => Ok((self.load(hash, bytes)?, vec![])),
            Order::Unload(number) => {
                let taken = self.plans.get_mut(number as usize).and_then(Option::take);
                let (prepared, _) = taken.ok_or_else(|| format!("there is no plan {number}"))?;
                self.executor.unload(&prepared);
                nothing
            }
            Order::Write(memory, offset) => {
                self.within(memory, offset, bytes.len() as u64)?;
                self.executor.device_mut(0).write(memory, offset, bytes).map_err(|e| e.to_string())?;
                nothing
            }
            Order::Read(memory, offset, len) => {
                self.within(memory, offset, u64::from(len))?;
                let mut bytes = vec![0; len as usize];
                self.executor.device_mut(0).read(memory, offset, &mut bytes).map_err(|e| e.to_string())?;
                Ok((0, bytes))
            }
            Order::Reserved(memory) => Ok((self.executor.devices()[0].reserved(memory), vec![])),
            other => Err(format!("{other:?} is nothing to be done between steps")),
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
    fn run(&mut self, step: u64, loaded: u32) -> Report {
        let Some(Some((prepared, plan))) = self.plans.get(loaded as usize).cloned() else {
            let cause = Cause::Fault(format!("there is no plan {loaded}"));
            return Report::Failed { step, cause, in_tail: false };
        };
        let before: Vec<_> = prepared.carried().collect();
        self.plane.begin(step, &prepared, plan);
        let channels = prepared.plan().channels.len();
        let mut fetches = Vec::with_capacity(channels);
        fetches.resize_with(channels, Fetch::default);
        let (feeds, events, decisions) = (vec![&[][..]; channels], Mutex::new(&self.events), &self.decisions);
        let agrees = || {
            let said = lock(&events).send(Event::BodyEnded);
            let decision = || lock(decisions).recv().ok();
            said.ok().and_then(|()| decision()).unwrap_or(false)
        };
        let outcome = self.executor.run(&prepared, Exchange { feeds: &feeds, fetches, agrees: &agrees });
        self.plane.end();
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
                let cause = match error {
                    DeviceError::Aborted => Cause::Aborted,
                    _ if on_the_way => Cause::Aborted,
                    error => Cause::Fault(format!("rank {}: {error}", self.rank)),
                };
                Report::Failed { step, cause, in_tail }
            }
        }
    }
}
