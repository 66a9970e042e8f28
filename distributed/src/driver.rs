//! The rim of the driver: the [`Conductor`] that has steps run on workers. A thread hears each of them; what is said goes to
//! the [coordinator](crate::coordinator), which runs on the session's own thread.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use thalweg_graph::plan::{ChannelId, Endpoint, Plan};
use thalweg_runtime::executor::{Carried, Conductor, Exchange, Fetch, Prepared, Wire};
use thalweg_runtime::{AbortFlag, Device, DeviceError, Executor, crash};

use crate::coordinator::{Command, Coordinator, Event, Outcome};
use crate::data::DataPlane;
use crate::message::{Cause, Order, Report};
use crate::remote::{Remote, RemoteDevice};
use crate::short;

/// How often it looks whether the caller wants no more.
const LOOK: Duration = Duration::from_millis(20);
/// How long workers may take to answer that a step is to end.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Prefixes of plans' hashes that are kept.
const PLANS_KEPT: usize = 64;

/// Workers that have come together. Dropped, or with the executor that is made of them, they leave, unless their term was
/// [ended](Connections::end) before.
pub struct Workers {
    pub(crate) connections: Arc<Connections>,
    pub(crate) happened: Receiver<Event>,
}

/// What leads to them.
pub(crate) struct Connections {
    pub(crate) remotes: Vec<Arc<Remote>>,
    pub(crate) plane: Arc<DataPlane>,
}

impl Connections {
    /// Ends the term. Who hears nothing more than that joins again.
    pub(crate) fn end(&self) {
        self.remotes.iter().for_each(|remote| remote.line.hang_up());
        self.plane.close();
    }
}

impl Workers {
    /// How many they are.
    pub fn len(&self) -> usize {
        self.connections.remotes.len()
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
        Executor::conducting(devices, Box::new(Driver { workers: self, coordinator, step: 0, plans: vec![] }))
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
        let prefix = short(&plan.hash().0);
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
                    let _ = self.workers.connections.remotes[usize::from(rank)].line.say(&order, &[]);
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
                Command::Hurry => *due = Some(Instant::now() + ANSWER_LIMIT),
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
    fn see_through(&mut self, prepared: &Prepared, mut exchange: Exchange<'_>, abort: &AbortFlag) -> Outcome {
        let loaded = (0..self.workers.connections.remotes.len()).map(|i| prepared.loaded(i).0 as u32).collect();
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
    fn run(&mut self, prepared: &Prepared, exchange: Exchange<'_>, abort: &AbortFlag) -> Result<bool, DeviceError> {
        self.step += 1;
        let plan = self.prefix(prepared.plan());
        self.workers.connections.plane.begin(self.step, prepared, plan);
        let outcome = self.see_through(prepared, exchange, abort);
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
