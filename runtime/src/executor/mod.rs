//! The executor: the devices of one process, and steps of plans over them. One device runs on the caller's thread. Several
//! run on a thread each, which sleeps between steps; they meet in channels, and once more where their bodies end: all go on
//! to their tails, or none does. A plan may have more devices than there are here: see [`Executor::hosting`].
//!
//! The threads are a pool of which every thread takes exactly one device's part (a broadcast), so that what a caller feeds
//! and fetches is lent to them and not copied. They never take work from each other: a part that waits would wait for
//! itself.

mod apart;
mod control;
mod gate;
mod link;
mod part;
mod position;
mod room;
mod seat;
mod together;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use thalweg_graph::plan::lend::Lending;
use thalweg_graph::plan::{Channel, ChannelId, Endpoint, Memory, Plan};

pub use apart::{Arriving, Conductor, Wire};
pub use control::ControlMessages;
pub use link::Carried;
pub use position::Position;
pub use seat::Fetch;

use crate::device::{AbortFlag, Device, DeviceError, Loaded};
use crate::source::{Draw, Facts, SourceSpec};
use crate::trace::ChannelEvent;
use apart::Hosts;
use gate::Watch;
use link::Link;
use part::Part;
use room::Room;
use seat::{Seat, Stops, describe};

/// How long all devices of a step may wait before it is given up, unless told otherwise.
const WAIT_LIMIT: Duration = Duration::from_secs(60);

/// Devices of one process and the threads that run them.
pub struct Executor {
    devices: Vec<Box<dyn Device>>,
    /// A thread per device where there are several, in this process or elsewhere.
    threads: Option<rayon::ThreadPool>,
    hosts: Hosts,
    abort: AbortFlag,
    wait_limit: Duration,
    /// Why variables may be of different steps.
    torn: Option<DeviceError>,
    /// By device, while channels are watched: what crossed in the last step.
    events: Option<Vec<Vec<ChannelEvent>>>,
    room: Room,
    position: Position,
    /// When it was made.
    made: Instant,
}

/// A plan that is loaded on all devices. It stays so until it is given to [`Executor::unload`].
#[derive(Clone)]
pub struct Prepared(Arc<Inner>);

struct Inner {
    plan: Arc<Plan>,
    parts: Vec<Part>,
    /// By channel; those that join devices.
    links: Vec<Option<Link>>,
    /// Those of them that have buffers, see [`room::by_size`].
    by_size: Vec<usize>,
}

/// What crosses between a step and its caller.
pub struct Exchange<'a> {
    /// By channel: the bytes of those that come from the caller, as many as the channel carries; of others, and of those that
    /// are drawn, none.
    pub feeds: &'a [&'a [u8]],
    /// What is read where the devices are, if they are [elsewhere](Executor::conducting): the values of all channels from the
    /// caller that are called as one of its fields.
    pub draws: &'a [Draw],
    /// By channel.
    pub fetches: Vec<Fetch<'a>>,
    /// Asked once, when all bodies have ended and everything was fetched: whether variables may be updated.
    pub agrees: &'a (dyn Fn() -> bool + Sync),
}

impl Prepared {
    /// The plan.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.0.plan
    }
    /// Its number on a device.
    pub fn loaded(&self, device: usize) -> Loaded {
        self.0.parts[device].loaded
    }
    /// What has crossed the channels between devices since it was loaded.
    pub fn carried(&self) -> impl Iterator<Item = (ChannelId, Carried)> {
        let links = self.0.plan.channels.iter().zip(&self.0.links);
        let between = |c: &Channel| matches!((c.from, c.to), (Endpoint::Device(_), Endpoint::Device(_)));
        links.filter_map(move |((id, c), link)| Some((id, link.as_ref().filter(|_| between(c))?.carried())))
    }
}

impl Inner {
    fn link(&self, channel: ChannelId) -> &Link {
        self.links[channel.0 as usize].as_ref().expect("a channel between devices")
    }
    fn stalled(&self, index: usize, watch: &Watch) -> DeviceError {
        let name = |device: usize| &self.plan.devices[self.parts[device].of].device;
        let place = |device: usize| describe(&self.plan, self.parts[device].of, watch.at(device));
        let (device, doing, limit) = (name(index).clone(), place(index), watch.limit);
        let others = (0..self.parts.len()).filter(|d| *d != index);
        let others = others.map(|d| format!("{} is at {}", name(d), place(d))).collect();
        DeviceError::Stalled { device, doing, limit, others }
    }
    fn wake(&self) {
        self.links.iter().flatten().for_each(Link::wake);
    }
}

impl Executor {
    /// Takes devices over, and starts a thread for each where there are several.
    ///
    /// # Errors
    /// If there is none, or threads cannot be started.
    pub fn new(devices: Vec<Box<dyn Device>>) -> Result<Self, DeviceError> {
        Self::on(devices, Hosts::All)
    }
    /// Takes devices over on which only those `parts` of plans run that are named, in the devices' order; the others, and
    /// the caller, are in other processes. What leaves for them goes by `wire`, what arrives is put into
    /// [slots](Prepared::slot). Its steps are neither fed nor fetched, and [`Exchange::agrees`] asks the others. Nobody here
    /// can tell whether the others still work: a step waits until its flag is raised.
    ///
    /// # Errors
    /// As [`Executor::new`].
    pub fn hosting(devices: Vec<Box<dyn Device>>, parts: Vec<u16>, wire: Arc<dyn Wire>) -> Result<Self, DeviceError> {
        if parts.len() != devices.len() {
            let cause = format!("{} parts of plans for {} devices", parts.len(), devices.len());
            return Err(DeviceError::Open { device: "executor".into(), cause });
        }
        let mut made = Self::on(devices, Hosts::Parts(parts, wire))?;
        made.wait_limit = Duration::MAX;
        Ok(made)
    }
    /// Devices that other processes host, where `conductor` has steps run. A device here stands for one there: it is asked
    /// for its target and its state, and plans are loaded on it.
    ///
    /// # Errors
    /// As [`Executor::new`].
    pub fn conducting(devices: Vec<Box<dyn Device>>, conductor: Box<dyn Conductor>) -> Result<Self, DeviceError> {
        Self::on(devices, Hosts::Caller(conductor))
    }
    fn on(devices: Vec<Box<dyn Device>>, hosts: Hosts) -> Result<Self, DeviceError> {
        let failed = |cause: String| DeviceError::Open { device: "executor".into(), cause };
        if devices.is_empty() || devices.len() > usize::from(u16::MAX) {
            return Err(failed(format!("it takes between one and {} devices, not {}", u16::MAX, devices.len())));
        }
        let names: Vec<Arc<str>> = devices.iter().map(|d| d.target().name()).collect();
        let pool = || {
            let named = move |i: usize| format!("device {}", names[i]);
            rayon::ThreadPoolBuilder::new().num_threads(devices.len()).thread_name(named).build()
        };
        let threads =
            (devices.len() > 1 || hosts.wire().is_some()).then(pool).transpose().map_err(|e| failed(e.to_string()))?;
        let (abort, wait_limit, torn, events, room) = (AbortFlag::default(), WAIT_LIMIT, None, None, Room::default());
        let (position, made) = (Position::default(), Instant::now());
        Ok(Self { devices, threads, hosts, abort, wait_limit, torn, events, room, position, made })
    }
    /// The devices, in the order of the plans' parts.
    pub fn devices(&self) -> &[Box<dyn Device>] {
        &self.devices
    }
    /// The plans' number of the device at place `index`.
    pub fn part(&self, index: usize) -> usize {
        self.hosts.part(index)
    }
    /// The clock of what this process notes: the first device's, or where devices are elsewhere one of this process.
    pub(crate) fn now(&self) -> Duration {
        if let Hosts::Caller(_) = self.hosts { self.made.elapsed() } else { self.devices[0].now() }
    }
    /// Whether [`Executor::now`] is the clock of the device at place `index`.
    pub(crate) fn is_clock(&self, index: usize) -> bool {
        index == 0 && !matches!(self.hosts, Hosts::Caller(_))
    }
    /// Bytes of the buffers that cross between devices: what the figures of plans are compared with.
    pub fn channel_bytes(&self) -> u64 {
        self.room.bytes()
    }
    /// One of the devices, between steps.
    pub fn device_mut(&mut self, index: usize) -> &mut dyn Device {
        &mut *self.devices[index]
    }
    /// Raise it, from any thread, to end the bodies that are running, also where they wait.
    pub fn abort_flag(&self) -> AbortFlag {
        self.abort.clone()
    }
    /// Tells, from any thread, where the devices are in the step that runs, if there are several or others beside.
    pub fn position(&self) -> Position {
        self.position.clone()
    }
    /// How long all devices may wait at once before the step is given up; 60 s unless set. A device that computes is not
    /// waited for in vain, however long it takes.
    pub fn set_wait_limit(&mut self, limit: Duration) {
        self.wait_limit = limit;
    }
    /// Takes the place of another executor: who holds its flag holds this one's.
    pub(crate) fn follow(&mut self, other: &Executor) {
        (self.abort, self.wait_limit, self.made) = (other.abort.clone(), other.wait_limit, other.made);
    }
    /// Makes room for variables on every device; as many numbers as there are devices. Called once, before anything is loaded.
    pub fn reserve_state(&mut self, bytes: &[u64]) -> Result<(), DeviceError> {
        self.devices.iter_mut().zip(bytes).try_for_each(|(device, bytes)| device.reserve_state(*bytes))
    }

    /// Makes a verified plan ready: each part on its device, by its thread; and the buffers of the channels between them.
    ///
    /// # Errors
    /// If there is no memory, or a device refuses its part. Nothing is loaded then.
    ///
    /// # Panics
    /// If the plan has another number of parts than there are devices, or has not those that are hosted here.
    pub fn load(&mut self, plan: &Arc<Plan>) -> Result<Prepared, DeviceError> {
        let parts: Vec<usize> = (0..self.devices.len()).map(|i| self.hosts.part(i)).collect();
        let fits = self.hosts.wire().is_some() || plan.devices.len() == parts.len();
        assert!(fits && parts.iter().all(|p| *p < plan.devices.len()), "a plan has a part for each device");
        let loaded = self.on_each(|index, device| device.load(plan, parts[index]));
        let prepared = if loaded.iter().all(Result::is_ok) { self.join(plan, &loaded) } else { Err(None) };
        prepared.map_err(|error| {
            let mut first = error;
            for (device, loaded) in self.devices.iter_mut().zip(loaded) {
                match loaded {
                    Ok(loaded) => device.unload(loaded),
                    Err(error) => first = first.take().or(Some(error)),
                }
            }
            first.expect("something failed")
        })
    }
    /// What a plan needs beside its parts. `loaded` are all there.
    fn join(
        &mut self,
        plan: &Arc<Plan>,
        loaded: &[Result<Loaded, DeviceError>],
    ) -> Result<Prepared, Option<DeviceError>> {
        let loaded: Vec<Loaded> = loaded.iter().flatten().copied().collect();
        let devices = self.devices.iter().enumerate();
        let hosts = &self.hosts;
        let lending = devices.map(|(i, device)| Lending::of(plan, hosts.part(i), device.borrows()));
        let lending: Vec<Lending> = lending.collect();
        let links: Vec<Option<Link>> = plan.channels.iter().map(|(id, c)| hosts.link(plan, id, c, &lending)).collect();
        let by_size = room::by_size(&links);
        let bytes = |at: &usize| links[*at].as_ref().map_or(0, Link::bytes);
        self.room.enlarge(by_size.iter().map(bytes)).map_err(|place| {
            let channel = &plan.channels[ChannelId(by_size[place] as u32)];
            let device = match channel.to {
                Endpoint::Device(to) => plan.devices[usize::from(to)].device.clone(),
                Endpoint::Driver => "driver".into(),
            };
            let detail = format!(", for \"{}\"", channel.label);
            DeviceError::OutOfMemory { device, memory: "channels", needed: channel.ty.size_bytes(), detail }
        })?;
        let (parts, has_caller) = (loaded.iter().zip(&lending).enumerate(), self.hosts.has_caller());
        let part = |(i, (loaded, lending)): (usize, (&Loaded, &Lending))| {
            part::part(plan, self.hosts.part(i), *loaded, lending, &links, has_caller)
        };
        let parts = parts.map(part).collect();
        Ok(Prepared(Arc::new(Inner { plan: plan.clone(), parts, links, by_size })))
    }
    /// Frees what was made ready.
    pub fn unload(&mut self, prepared: &Prepared) {
        self.room.take_from(prepared);
        for (device, part) in self.devices.iter_mut().zip(&prepared.0.parts) {
            device.unload(part.loaded);
        }
    }
    /// Does something with each device, on its thread.
    fn on_each<R: Send>(&mut self, work: impl Fn(usize, &mut dyn Device) -> R + Sync) -> Vec<R> {
        let Some(threads) = &self.threads else {
            return self.devices.iter_mut().enumerate().map(|(i, d)| work(i, &mut **d)).collect();
        };
        let devices: Vec<Mutex<&mut Box<dyn Device>>> = self.devices.iter_mut().map(Mutex::new).collect();
        threads.broadcast(|thread| {
            let mut device = devices[thread.index()].lock().unwrap_or_else(PoisonError::into_inner);
            work(thread.index(), &mut ***device)
        })
    }

    /// Runs a step. Gives whether it went through: otherwise [`Exchange::agrees`] said no, and no variable was touched.
    ///
    /// # Errors
    /// What went wrong first, on whatever device. No variable was touched and the next step can run, unless it says
    /// [`DeviceError::Torn`]: then nothing runs until all variables have been written anew, and [`Executor::mended`] has been told.
    ///
    /// # Panics
    /// If feeds and fetches are not those of the plan's channels.
    pub fn run(&mut self, prepared: &Prepared, exchange: Exchange<'_>) -> Result<bool, DeviceError> {
        let inner = &*prepared.0;
        let Exchange { feeds, draws, fetches, agrees } = exchange;
        assert!(draws.is_empty() || matches!(self.hosts, Hosts::Caller(_)), "what is read here is fed");
        let caller = if self.hosts.wire().is_some() { None } else { Some(Endpoint::Driver) };
        for ((channel, feed), fetch) in inner.plan.channels.values().iter().zip(feeds).zip(&fetches) {
            let bytes = channel.ty.size_bytes() as usize;
            let fits = match fetch {
                Fetch::Nothing => Some(channel.to) != caller,
                Fetch::Into(into) => Some(channel.to) == caller && into.len() == bytes,
                Fetch::Status(_) => Some(channel.to) == caller && bytes == 4,
            };
            let is_fed = Some(channel.from) == caller && !draws.iter().any(|draw| draw.has(&channel.label));
            let fed = if is_fed { bytes } else { 0 };
            assert!(fits && feed.len() == fed, "\"{}\" is neither fed nor fetched as the plan has it", channel.label);
        }
        assert!(feeds.len() == inner.plan.channels.len() && fetches.len() == feeds.len(), "one of each per channel");
        self.whole()?;
        self.room.give(prepared);
        let exchange = Exchange { feeds, draws, fetches, agrees };
        if let Hosts::Caller(conductor) = &mut self.hosts {
            prepared.open();
            let outcome = conductor.run(prepared, exchange, &self.abort);
            prepared.close();
            if let Some(events) = &mut self.events {
                *events = conductor.crossed(prepared);
            }
            self.torn = outcome.as_ref().err().filter(|e| matches!(e, DeviceError::Torn { .. })).cloned();
            return outcome;
        }
        if self.threads.is_some() {
            prepared.open();
            let outcome = self.together(prepared, exchange);
            prepared.close();
            return outcome;
        }
        let Exchange { feeds, fetches, agrees, .. } = exchange;
        let events = self.events.as_ref().map(|_| vec![]);
        let (device, part) = (&mut *self.devices[0], &inner.parts[0]);
        let (index, held, stops, wire) = (0, vec![], Stops::Alone(&self.abort), None);
        let mut seat = Seat { device, index, plan: inner, part, feeds, fetches, agrees, stops, wire, held, events };
        let outcome = seat.walk();
        if let (Some(kept), Some(events)) = (&mut self.events, seat.events) {
            *kept = vec![events];
        }
        outcome
    }

    /// Whether all variables are those of one step.
    ///
    /// # Errors
    /// [`DeviceError::Torn`] if they are not.
    pub fn whole(&self) -> Result<(), DeviceError> {
        self.torn.clone().map_or(Ok(()), Err)
    }
    /// Says that all variables have been written anew, so that they are those of one step again.
    pub fn mended(&mut self) {
        self.torn = None;
    }
    /// Opens a data set where devices are that other processes host; nothing where all are here.
    ///
    /// # Errors
    /// If nobody can, with what everybody says.
    pub fn open_source(&mut self, spec: &SourceSpec) -> Result<Option<Facts>, DeviceError> {
        if let Hosts::Caller(conductor) = &mut self.hosts { conductor.open(spec).map(Some) } else { Ok(None) }
    }
    /// Whether other processes host the devices.
    pub fn is_conducting(&self) -> bool {
        matches!(self.hosts, Hosts::Caller(_))
    }
    /// Bytes that were fed to other processes so far; nothing where all devices are here.
    pub fn fed_bytes(&self) -> u64 {
        if let Hosts::Caller(conductor) = &self.hosts { conductor.fed_bytes() } else { 0 }
    }
    /// What steering other processes has cost so far; nothing where all devices are here.
    pub fn control_messages(&self) -> ControlMessages {
        if let Hosts::Caller(conductor) = &self.hosts { conductor.control_messages() } else { Default::default() }
    }
    /// Notes from here on what crosses channels, or no longer.
    pub fn watch_channels(&mut self, on: bool) {
        self.events = on.then(Vec::new);
        if let Hosts::Caller(conductor) = &mut self.hosts {
            conductor.watch_channels(on);
        }
    }
    /// By device, what crossed in the last step that was watched, on the device's own clock.
    pub fn crossed(&mut self) -> Vec<Vec<ChannelEvent>> {
        self.events.as_mut().map(std::mem::take).unwrap_or_default()
    }
    /// Reads bytes of a device's state.
    pub(crate) fn read_state(&mut self, device: u16, offset: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.devices[usize::from(device)].read(Memory::State, offset, bytes)
    }
    /// Writes bytes of a device's state.
    pub(crate) fn write_state(&mut self, device: u16, offset: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        self.devices[usize::from(device)].write(Memory::State, offset, bytes)
    }
}
