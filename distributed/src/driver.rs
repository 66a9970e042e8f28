//! The rim of the driver: the [`Conductor`] that has steps run on workers. A thread hears each of them; what is said goes to
//! the [coordinator](crate::coordinator), which runs on the session's own thread.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use thalweg_graph::plan::{ChannelId, Endpoint, Plan};
use thalweg_runtime::executor::{Carried, Conductor, ControlMessages, Exchange, Fetch, Prepared, Wire};
use thalweg_runtime::trace::ChannelEvent;
use thalweg_runtime::{AbortFlag, Device, DeviceError, Executor};

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

/// Workers that have come together. Dropped, or with the executor that is made of them, they leave.
pub struct Workers {
    pub(crate) remotes: Vec<Arc<Remote>>,
    pub(crate) plane: Arc<DataPlane>,
    pub(crate) happened: Receiver<Event>,
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
                    let _ = self.workers.remotes[usize::from(rank)].say(&order, &[]);
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
    /// Somebody has not been heard of for too long.
    fn silent(&self) -> Option<Event> {
        let mut all = self.workers.remotes.iter().zip(0..).filter(|(_, rank)| !self.coordinator.is_gone(*rank));
        all.find_map(|(remote, rank)| Some(Event::Gone { rank, why: remote.silence()? }))
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
    fn watch_channels(&mut self, on: bool) {
        self.workers.remotes.iter().for_each(|remote| remote.watch(on));
    }
    fn crossed(&mut self, prepared: &Prepared) -> Vec<Vec<ChannelEvent>> {
        self.workers.remotes.iter().map(|remote| remote.crossed(prepared)).collect()
    }
    fn control_messages(&self) -> ControlMessages {
        self.workers.remotes.iter().fold(Default::default(), |all, remote| remote.tally.so_far().and(&all))
    }
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
