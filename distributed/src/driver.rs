//! The rim of the driver: the [`Conductor`] that has steps run on workers. What they say goes to
//! the [coordinator](crate::coordinator), which runs on the session's own thread.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use thalweg_graph::plan::{ChannelId, Endpoint, Plan};
use thalweg_runtime::executor::{Carried, Conductor, ControlMessages, Exchange, Fetch, Prepared, Wire};
use thalweg_runtime::source::{Facts, SourceSpec};
use thalweg_runtime::trace::ChannelEvent;
use thalweg_runtime::{AbortFlag, Device, DeviceError, Executor, crash};

use crate::coordinator::{Command, Coordinator, Event, Outcome};
use crate::data::DataPlane;
use crate::message::{Cause, Drawn, Order, Report};
use crate::remote::{Remote, RemoteDevice, hang_up};
use crate::sources::Sources;
use crate::{lock, patience, short};

/// How often it looks whether the caller wants no more.
const LOOK: Duration = Duration::from_millis(20);
/// How long workers may take to answer that a step is to end.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// A step that takes longer is explained; and longer than so many times the longest of its plan.
const LONG: Duration = Duration::from_secs(4);
const LONG_TIMES: u32 = 10;
/// Prefixes of plans' hashes that are kept.
const PLANS_KEPT: usize = 64;

/// Workers that have come together. Dropped, or with the executor that is made of them, they leave, unless another
/// term was begun before.
pub struct Workers {
    pub(crate) connections: Arc<Connections>,
    pub(crate) happened: Receiver<Event>,
    /// Tells people what is not an error.
    pub(crate) tell: Tell,
}

/// Tells people something.
pub type Tell = Box<dyn Fn(&str) + Send>;

/// What leads to them.
pub(crate) struct Connections {
    pub(crate) remotes: Vec<Arc<Remote>>,
    pub(crate) plane: Arc<DataPlane>,
}

impl Connections {
    /// Ends the term. Who hears nothing more than that joins again.
    pub(crate) fn end(&self) {
        hang_up(&self.remotes);
        self.plane.close();
    }
}

impl Workers {
    /// How many they are.
    pub fn len(&self) -> usize {
        self.connections.remotes.len()
    }
    /// Who is told of steps that take long; standard error, unless this is called.
    pub fn tell(mut self, tell: Tell) -> Self {
        self.tell = tell;
        self
    }
    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.connections.remotes.is_empty()
    }
    /// An executor whose devices are theirs. Of each device there is a twin here, of the same name and kind, that says what
    /// lowering has to know; nothing is loaded on it.
    ///
    /// # Errors
    /// If there is not a twin for each.
    pub fn executor(self, twins: Vec<Box<dyn Device>>) -> Result<Executor, DeviceError> {
        let remotes = &self.connections.remotes;
        if twins.len() != remotes.len() {
            let cause = format!("{} twins for {} workers", twins.len(), remotes.len());
            return Err(DeviceError::Open { device: "workers".into(), cause });
        }
        let devices = remotes.iter().zip(twins);
        let devices = devices.map(|(remote, twin)| Box::new(RemoteDevice { remote: remote.clone(), twin }) as _);
        let (devices, coordinator) = (devices.collect(), Coordinator::new(remotes.len() as u16));
        Executor::conducting(devices, Box::new(Driver::new(self, coordinator)))
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for remote in &self.connections.remotes {
            // Who is gone has left.
            let _ = remote.line.say(&Order::Leave, &[]);
        }
        self.connections.end();
    }
}

/// Conducts steps.
struct Driver {
    workers: Workers,
    coordinator: Coordinator,
    /// Steps that were begun.
    step: u64,
    /// The youngest last.
    plans: Vec<Known>,
    sources: Sources,
    /// Bytes of what was fed.
    fed: u64,
}

/// What is known of a plan.
struct Known {
    plan: Arc<Plan>,
    /// A prefix of its hash.
    prefix: u64,
    /// What its longest step has taken.
    longest: Duration,
}

impl Driver {
    fn new(workers: Workers, coordinator: Coordinator) -> Self {
        Self { workers, coordinator, step: 0, plans: vec![], sources: Sources::default(), fed: 0 }
    }
    fn known(&mut self, plan: &Arc<Plan>) -> &mut Known {
        let at = self.plans.iter().position(|known| Arc::ptr_eq(&known.plan, plan)).unwrap_or_else(|| {
            if self.plans.len() == PLANS_KEPT {
                self.plans.remove(0);
            }
            let prefix = short(&plan.hash().0);
            self.plans.push(Known { plan: plan.clone(), prefix, longest: Duration::ZERO });
            self.plans.len() - 1
        });
        &mut self.plans[at]
    }
    /// Says where everybody is in a step that takes long.
    fn explain(&self, prepared: &Prepared, took: Duration) {
        let all = self.workers.connections.remotes.iter().map(|remote| {
            let doing = lock(&remote.doing);
            match &**doing {
                "" => format!("\n  {} has not said where it is", remote.name),
                doing => format!("\n  {} is at {doing}", remote.name),
            }
        });
        let (program, places) = (&prepared.plan().program, all.collect::<Vec<_>>().concat());
        (self.workers.tell)(&format!("a step of `{program}` has taken {:.1} s so far:{places}", took.as_secs_f64()));
    }
    /// Sends what is fed; what is drawn the workers have themselves.
    fn feed(&mut self, prepared: &Prepared, exchange: &Exchange<'_>, abort: &AbortFlag) -> Result<(), Cause> {
        for ((id, channel), bytes) in prepared.plan().channels.iter().zip(exchange.feeds) {
            if abort.is_raised() {
                return Err(Cause::Aborted);
            }
            if channel.from == Endpoint::Driver && !exchange.draws.iter().any(|draw| draw.has(&channel.label)) {
                self.fed += bytes.len() as u64;
                // What broke on the way is told by who noticed.
                self.workers.connections.plane.send(id, bytes).map_err(|e| Cause::Unreachable(e.to_string()))?;
            }
        }
        Ok(())
    }
    fn fetch(&self, prepared: &Prepared, fetches: &mut [Fetch<'_>]) -> Result<(), Cause> {
        // A connection that is cut off does not end by itself.
        let still = || self.workers.connections.plane.failure().is_none() && self.silent().is_none();
        for (at, fetch) in fetches.iter_mut().enumerate() {
            let (id, mut word) = (ChannelId(at as u32), [0; 4]);
            let came = match fetch {
                Fetch::Nothing => true,
                Fetch::Into(bytes) => prepared.fetch(id, bytes, &still),
                Fetch::Status(_) => prepared.fetch(id, &mut word, &still),
            };
            if !came {
                let cause = || Cause::Unreachable(format!("channel {id} brought nothing"));
                return Err(self.workers.connections.plane.failure().unwrap_or_else(cause));
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
                    let commits = matches!(order, Order::Decide { commit: true, .. });
                    let _ = self.workers.connections.remotes[usize::from(rank)].say(&order, &[]);
                    if commits {
                        crash::point("committing");
                    }
                }
                Command::Ask => {
                    crash::point("voted");
                    let next = match self.fetch(prepared, &mut exchange.fetches) {
                        Ok(()) => Event::Decided { commit: (exchange.agrees)() },
                        Err(cause) => self.silent().unwrap_or(Event::Fault(cause)),
                    };
                    commands.extend(self.coordinator.handle(next));
                }
                Command::Hurry => *due = Some(Instant::now() + patience(ANSWER_LIMIT)),
                Command::Finish(outcome) => return Some(outcome),
            }
        }
        None
    }
    /// Somebody has not been heard of for too long.
    fn silent(&self) -> Option<Event> {
        let mut all =
            self.workers.connections.remotes.iter().zip(0..).filter(|(_, rank)| !self.coordinator.is_gone(*rank));
        all.find_map(|(remote, rank)| {
            let why = remote.silence()?;
            Some(Event::Gone { rank, why: format!("{}: {why}", remote.name) })
        })
    }
    fn see_through(
        &mut self,
        prepared: &Prepared,
        mut exchange: Exchange<'_>,
        draws: Vec<Arc<[Drawn]>>,
        abort: &AbortFlag,
    ) -> Outcome {
        let loaded = (0..self.workers.connections.remotes.len()).map(|i| prepared.loaded(i).0 as u32).collect();
        let (step, mut due, mut stopped) = (self.step, None, false);
        let mut next = Some(Event::Start { step, loaded, draws });
        let mut fed = false;
        let began = Instant::now();
        let mut long = LONG.max(LONG_TIMES * self.known(prepared.plan()).longest);
        loop {
            if began.elapsed() > long {
                self.explain(prepared, began.elapsed());
                long *= 2;
            }
            if let Some(event) = next.take()
                && let Some(outcome) = self.obey(event, prepared, &mut exchange, &mut due)
            {
                return outcome;
            }
            if !fed {
                fed = true;
                next = self.feed(prepared, &exchange, abort).err().map(Event::Fault);
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
            next = self.silent();
            if next.is_some() {
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
    fn open(&mut self, spec: &SourceSpec) -> Result<Facts, DeviceError> {
        self.sources.open(spec, &self.workers.connections.remotes)
    }
    fn fed_bytes(&self) -> u64 {
        self.fed
    }
    fn watch_channels(&mut self, on: bool) {
        self.workers.connections.remotes.iter().for_each(|remote| remote.watch(on));
    }
    fn crossed(&mut self, prepared: &Prepared) -> Vec<Vec<ChannelEvent>> {
        self.workers.connections.remotes.iter().map(|remote| remote.crossed(prepared)).collect()
    }
    fn control_messages(&self) -> ControlMessages {
        self.workers.connections.remotes.iter().fold(Default::default(), |all, remote| remote.tally.so_far().and(&all))
    }
    fn run(&mut self, prepared: &Prepared, exchange: Exchange<'_>, abort: &AbortFlag) -> Result<bool, DeviceError> {
        let draws = self.sources.draw(prepared.plan(), exchange.draws, &self.workers.connections.remotes)?;
        self.step += 1;
        let (plan, began) = (self.known(prepared.plan()).prefix, Instant::now());
        self.workers.connections.plane.begin(self.step, prepared, plan);
        let outcome = self.see_through(prepared, exchange, draws, abort);
        let known = self.known(prepared.plan());
        known.longest = known.longest.max(began.elapsed());
        self.workers.connections.plane.end();
        let error = |cause: Cause| {
            let place = format!("term {}, step {} of it", self.workers.connections.plane.term(), self.step);
            let (place, text) = (Arc::from(place), cause.text().to_string());
            match cause {
                Cause::Aborted => DeviceError::Aborted,
                cause if cause.ends_term() => DeviceError::Gone { place, cause: text },
                _ => DeviceError::Elsewhere { place, cause: text },
            }
        };
        match outcome {
            Outcome::Ended { committed } => Ok(committed),
            Outcome::Failed(cause) => Err(error(cause)),
            Outcome::Torn(cause) => Err(DeviceError::Torn { cause: Box::new(error(cause)) }),
        }
    }
}
