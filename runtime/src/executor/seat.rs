//! One device walking its part of a plan: what crosses channels is done here, what lies between is the device's. The same
//! for one device on the caller's thread and for each of several on threads of their own; alone it has nobody to wait for.

use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use thalweg_graph::plan::{ChannelId, Endpoint, Instruction};

use super::Inner;
use super::apart::Wire;
use super::gate::Watch;
use super::link::Way;
use super::part::{Action, Part, Place, Source};
use crate::device::{AbortFlag, Device, DeviceError, Lent, ReadInto};
use crate::memory::LineBuffer;
use crate::trace::{ChannelEvent, Span};

/// Where what leaves by a channel to the caller goes.
#[derive(Default)]
pub enum Fetch<'a> {
    /// The channel is none to the caller.
    #[default]
    Nothing,
    /// To an array of the caller's, or a part of it, as long as the channel says.
    Into(&'a mut [u8]),
    /// A single i32 that the step is decided by.
    Status(&'a AtomicI32),
}

/// What gives up a body.
pub(super) enum Stops<'a> {
    /// The caller's flag.
    Alone(&'a AbortFlag),
    /// That, or any of the others.
    Together(&'a Watch),
}

impl Stops<'_> {
    fn flag(&self) -> &AbortFlag {
        match self {
            Stops::Alone(flag) => flag,
            Stops::Together(watch) => &watch.stop,
        }
    }
}

/// A device at work on a step.
pub(super) struct Seat<'a> {
    pub(super) device: &'a mut dyn Device,
    /// Its place among the devices of this process.
    pub(super) index: usize,
    pub(super) plan: &'a Inner,
    pub(super) part: &'a Part,
    /// By channel; empty for those that do not come from the caller.
    pub(super) feeds: &'a [&'a [u8]],
    /// By channel.
    pub(super) fetches: Vec<Fetch<'a>>,
    pub(super) agrees: &'a (dyn Fn() -> bool + Sync),
    pub(super) stops: Stops<'a>,
    /// Where channels lead that end in other processes.
    pub(super) wire: Option<&'a dyn Wire>,
    /// By channel, the buffers that move and are here. None at all where no channel joins devices.
    pub(super) held: Vec<Option<LineBuffer>>,
    /// What crossed when, if anybody wants to know.
    pub(super) events: Option<Vec<ChannelEvent>>,
}

impl Seat<'_> {
    /// Walks the body, meets the others and, if all agree, walks the tail. Gives whether they did.
    pub(super) fn walk(&mut self) -> Result<bool, DeviceError> {
        let part = self.part;
        for action in &part.actions {
            match action {
                Action::Run { range, lent, in_tail } => {
                    self.arrive_at(range.start);
                    self.run(range.clone(), lent, *in_tail)?;
                }
                Action::Feed { channel, to } => self.feed(*channel, *to)?,
                Action::Fetch { posts } => self.fetch(posts)?,
                Action::Grant { channel } => {
                    let back = self.held[channel.0 as usize].take();
                    let link = self.plan.link(*channel);
                    link.grant(back);
                    if let Some(wire) = self.wire.filter(|_| link.way() == Way::In) {
                        wire.grant(*channel)?;
                    }
                    self.moved();
                }
                Action::Post { at, channel, from } => {
                    self.arrive_at(*at);
                    self.post(*channel, from)?;
                }
                Action::Wait { at, channel, to } => {
                    self.arrive_at(*at);
                    self.receive(*channel, *to)?;
                }
                Action::Meet { at, commits } => {
                    self.arrive_at(*at);
                    if !self.meet(*commits)? {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    fn arrive_at(&self, instruction: usize) {
        if let Stops::Together(watch) = self.stops {
            watch.arrive_at(self.index, instruction);
        }
    }
    fn moved(&self) {
        if let Stops::Together(watch) = self.stops {
            watch.moved();
        }
    }
    fn started(&self) -> Option<Duration> {
        self.events.as_ref().map(|_| self.device.now())
    }
    fn note(&mut self, started: Option<Duration>, kind: &'static str, channels: &[ChannelId], bytes: usize) {
        if let (Some(events), Some(start), Some(first)) = (&mut self.events, started, channels.first()) {
            let span = Span { start, took: self.device.now().saturating_sub(start) };
            let labels: Vec<&str> = channels.iter().map(|c| &*self.plan.plan.channels[*c].label).collect();
            let name = labels.join(", ").into();
            events.push(ChannelEvent { span, kind, channel: *first, name, bytes: bytes as u64 });
        }
    }

    fn run(&mut self, range: std::ops::Range<usize>, channels: &[ChannelId], in_tail: bool) -> Result<(), DeviceError> {
        let abort = (!in_tail).then(|| self.stops.flag());
        if channels.is_empty() {
            return self.device.run(self.part.loaded, range, abort);
        }
        let mut lent = Vec::with_capacity(channels.len());
        let is_lent = |at: usize| channels.binary_search_by_key(&at, |c| c.0 as usize).is_ok();
        for channel in channels {
            let fed = self.feeds[channel.0 as usize];
            if !fed.is_empty() {
                lent.push(Lent::Feed(*channel, fed));
            }
        }
        for (at, fetch) in self.fetches.iter_mut().enumerate().filter(|(at, _)| is_lent(*at)) {
            if let Fetch::Into(bytes) = fetch {
                lent.push(Lent::Output(ChannelId(at as u32), bytes));
            }
        }
        for (at, (held, link)) in self.held.iter_mut().zip(&self.plan.links).enumerate().filter(|(at, _)| is_lent(*at))
        {
            let (Some(link), channel) = (link, ChannelId(at as u32)) else { continue };
            let sends = self.plan.plan.channels[channel].from == Endpoint::Device(self.part.of as u16);
            if sends && held.is_none() {
                // Made here to be sent from here.
                *held = link.own();
            }
            lent.extend(held.as_mut().map(|buffer| match sends {
                true => Lent::Output(channel, buffer.bytes_mut()),
                false => Lent::Feed(channel, buffer.bytes()),
            }));
        }
        self.device.run_lent(self.part.loaded, range, abort, &mut lent)
    }

    fn feed(&mut self, channel: ChannelId, to: Option<Place>) -> Result<(), DeviceError> {
        let (started, bytes) = (self.started(), self.feeds[channel.0 as usize]);
        if let Some((memory, offset)) = to {
            self.device.write(memory, offset, bytes)?;
        }
        self.note(started, "feed", &[channel], bytes.len());
        Ok(())
    }

    /// What leaves by some posts to the caller, read in one go.
    fn fetch(&mut self, posts: &[(ChannelId, Option<Source>)]) -> Result<(), DeviceError> {
        let started = self.started();
        let mut into: Vec<Fetch> = posts.iter().map(|(c, _)| std::mem::take(&mut self.fetches[c.0 as usize])).collect();
        let statuses = into.iter().filter(|f| matches!(f, Fetch::Status(_))).count();
        let mut words = vec![[0; 4]; statuses];
        let (mut reads, mut next) = (Vec::with_capacity(posts.len()), words.iter_mut());
        for ((_, from), to) in posts.iter().zip(&mut into) {
            let bytes: &mut [u8] = match to {
                Fetch::Into(bytes) => bytes,
                Fetch::Status(_) => next.next().expect("one for each"),
                Fetch::Nothing => continue,
            };
            match from {
                None => {}
                Some(Source::Arena((memory, offset))) => {
                    reads.push(ReadInto { memory: *memory, offset: *offset, bytes })
                }
                Some(Source::Held(channel)) => bytes.copy_from_slice(held(self.feeds, &self.held, *channel)),
            }
        }
        self.device.read_many(&mut reads)?;
        let all = into.iter().filter_map(|f| if let Fetch::Status(to) = f { Some(to) } else { None });
        all.zip(&words).for_each(|(to, word)| to.store(i32::from_le_bytes(*word), Ordering::Release));
        // What is lent goes on being read and written there.
        let mut fetched = (vec![], 0);
        for ((channel, _), to) in posts.iter().zip(into) {
            if let (Fetch::Into(bytes), Some(_)) = (&to, started) {
                fetched.0.push(*channel);
                fetched.1 += bytes.len();
            }
            self.fetches[channel.0 as usize] = to;
        }
        self.note(started, "fetch", &fetched.0, fetched.1);
        Ok(())
    }

    fn post(&mut self, channel: ChannelId, from: &Source) -> Result<(), DeviceError> {
        let (started, link, at) = (self.started(), self.plan.link(channel), channel.0 as usize);
        let Stops::Together(watch) = self.stops else { unreachable!("a channel joins several devices") };
        let own = matches!(from, Source::Held(own) if *own == channel);
        if let Some(wire) = self.wire.filter(|_| link.way() == Way::Out) {
            return self.send(wire, watch, channel, from, own);
        }
        let mut written = if own { self.held[at].take() } else { None };
        if !(own && link.is_made_in_slot()) {
            // What is written comes back if nobody grants; what is granted is in hand before anything can go wrong.
            match link.claim(watch, || self.plan.stalled(self.index, watch)) {
                Ok(granted) => self.held[at] = Some(granted),
                Err(error) => {
                    self.held[at] = written.take();
                    return Err(error);
                }
            }
        }
        let bytes = link.bytes() as usize;
        let full = match from {
            Source::Held(_) if own => written,
            Source::Held(other) => {
                let mut into = self.held[at].take();
                let from = held(self.feeds, &self.held, *other);
                into.iter_mut().for_each(|into| into.bytes_mut().copy_from_slice(from));
                into
            }
            Source::Arena((memory, offset)) => {
                let into = self.held[at].iter_mut();
                into.map(LineBuffer::bytes_mut).try_for_each(|into| self.device.read(*memory, *offset, into))?;
                self.held[at].take()
            }
        };
        if !own {
            link.copied(bytes);
        }
        // Before the receiver can have it: whatever holds this thread up then is no part of the way.
        self.note(started, "post", &[channel], bytes);
        full.into_iter().for_each(|full| link.post(full));
        watch.moved();
        Ok(())
    }

    /// [`Seat::post`] to another process: the bytes are sent from where they lie, and stay there.
    fn send(
        &mut self,
        wire: &dyn Wire,
        watch: &Watch,
        channel: ChannelId,
        from: &Source,
        own: bool,
    ) -> Result<(), DeviceError> {
        let (started, link, at) = (self.started(), self.plan.link(channel), channel.0 as usize);
        if !(own && link.is_made_in_slot()) {
            link.await_grant(watch, || self.plan.stalled(self.index, watch))?;
        }
        // It is sent from where it lies, or from the slot's buffer where nobody can look at it there.
        if let Source::Arena((memory, offset)) = from
            && self.device.peek(*memory, *offset, link.bytes() as usize).is_none()
        {
            self.held[at] = link.outbox();
            let into = self.held[at].iter_mut().map(LineBuffer::bytes_mut);
            into.into_iter().try_for_each(|into| self.device.read(*memory, *offset, into))?;
            link.copied(link.bytes() as usize);
        }
        let bytes = match from {
            Source::Held(other) => held(self.feeds, &self.held, *other),
            Source::Arena((memory, offset)) => match self.device.peek(*memory, *offset, link.bytes() as usize) {
                Some(there) => there,
                None => held(self.feeds, &self.held, channel),
            },
        };
        wire.send(channel, bytes)?;
        link.count(bytes.len());
        let bytes = bytes.len();
        self.note(started, "post", &[channel], bytes);
        watch.moved();
        Ok(())
    }

    fn receive(&mut self, channel: ChannelId, to: Option<Place>) -> Result<(), DeviceError> {
        let (started, link) = (self.started(), self.plan.link(channel));
        let Stops::Together(watch) = self.stops else { unreachable!("a channel joins several devices") };
        let buffer = link.receive(watch, || self.plan.stalled(self.index, watch))?;
        let buffer = self.held[channel.0 as usize].insert(buffer).bytes();
        if let Some((memory, offset)) = to {
            self.device.write(memory, offset, buffer)?;
            link.copied(buffer.len());
        }
        let bytes = buffer.len();
        self.note(started, "wait", &[channel], bytes);
        Ok(())
    }

    fn meet(&mut self, commits: bool) -> Result<bool, DeviceError> {
        match self.stops {
            // The last moment at which a step can be given up.
            Stops::Alone(abort) if commits && abort.is_raised() => Err(DeviceError::Aborted),
            Stops::Alone(_) => Ok((self.agrees)()),
            Stops::Together(watch) => watch.meet(self.agrees, || self.plan.stalled(self.index, watch)),
        }
    }

    /// Gives the buffers back that it still has.
    pub(super) fn leave(&mut self) {
        for (at, held) in self.held.iter_mut().enumerate() {
            if let Some(buffer) = held.take() {
                self.plan.link(ChannelId(at as u32)).put_back(buffer);
            }
        }
    }
}

/// The memory that stands in for a channel's buffer, to be read.
fn held<'s>(feeds: &'s [&[u8]], held: &'s [Option<LineBuffer>], channel: ChannelId) -> &'s [u8] {
    let at = channel.0 as usize;
    held.get(at).and_then(Option::as_ref).map_or(feeds[at], LineBuffer::bytes)
}

/// An instruction, for people: its place, and the channel's label.
pub(super) fn describe(plan: &thalweg_graph::plan::Plan, device: usize, at: usize) -> String {
    let label = |c: ChannelId| plan.channels.get(c).map_or("", |c| &*c.label);
    match plan.devices[device].instructions.get(at) {
        Some(Instruction::Post { channel, .. }) => format!("{at}: post {channel} \"{}\"", label(*channel)),
        Some(Instruction::Wait { channel, .. }) => format!("{at}: wait {channel} \"{}\"", label(*channel)),
        Some(Instruction::Launch(launch)) => format!("{at}: launch \"{}\"", launch.label),
        Some(Instruction::Commit) | None => format!("{at}: the end of the body"),
        Some(_) => format!("{at}"),
    }
}
