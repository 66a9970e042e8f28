//! Steps whose devices are hosted by several processes. A process walks the parts that it hosts; a channel of which only
//! one end is here is a [`Link`] whose other end is a [`Wire`]. The caller's feeds and fetches are such channels as well
//! where the caller is elsewhere, so that a worker's executor is fed by nobody but the wire.
//!
//! The process of the caller hosts nothing and has the rest: feeds leave it, fetches arrive, and a [`Conductor`] sees to it
//! that all others walk their parts and agree. Nothing here knows of a network.
//!
//! What arrives is read straight into the slot. So that nobody reads into a buffer that a finished step has put back, slots
//! are open while a step runs, and closing them waits for whoever is reading.

use std::sync::Arc;

use thalweg_graph::plan::lend::{Crossing, Lending};
use thalweg_graph::plan::{Channel, ChannelId, Endpoint, Plan};

use super::link::{Carried, Link, Way};
use super::{ControlMessages, Exchange, Prepared};
use crate::device::{AbortFlag, DeviceError};
use crate::memory::LineBuffer;
use crate::source::{Facts, SourceSpec};
use crate::trace::ChannelEvent;

/// Carries what leaves this process by the channels of the step that is running.
pub trait Wire: Send + Sync {
    /// Sends what crosses `channel`; the bytes are the caller's again when this returns. It may wait until the process at
    /// the other end has read, which it does whatever its devices are doing.
    ///
    /// # Errors
    /// If it cannot be sent: the step is given up then.
    fn send(&self, channel: ChannelId, bytes: &[u8]) -> Result<(), DeviceError>;
    /// Says that the slot of `channel`, which arrives here, is the sender's again.
    ///
    /// # Errors
    /// As [`Wire::send`].
    fn grant(&self, channel: ChannelId) -> Result<(), DeviceError>;
}

/// Runs steps whose devices other processes host.
pub trait Conductor: Send {
    /// Runs a step as [`Executor::run`](super::Executor::run) does, with the same results; `abort` ends it where that can
    /// still be. The numbers under which the plan is loaded are [`Prepared::loaded`]'s, outputs are
    /// [fetched](Prepared::fetch), and what crossed between devices is [noted](Prepared::note).
    ///
    /// # Errors
    /// The one cause for which the step ended.
    fn run(&mut self, prepared: &Prepared, exchange: Exchange<'_>, abort: &AbortFlag) -> Result<bool, DeviceError>;
    /// Opens a data set at whoever may read it, for [draws](Exchange::draws).
    ///
    /// # Errors
    /// If nobody can, with what everybody says.
    fn open(&mut self, spec: &SourceSpec) -> Result<Facts, DeviceError>;
    /// Bytes that were fed so far: what was drawn is not among them.
    fn fed_bytes(&self) -> u64;
    /// Has what crosses channels noted from here on, or no longer.
    fn watch_channels(&mut self, on: bool);
    /// By device, what crossed in the last step, which was one of this plan, on the device's own clock.
    fn crossed(&mut self, prepared: &Prepared) -> Vec<Vec<ChannelEvent>>;
    /// What steering the others has cost so far.
    fn control_messages(&self) -> ControlMessages;
}

/// Which ends of a plan's channels are here.
pub(super) enum Hosts {
    /// All of them.
    All,
    /// Those of some parts.
    Parts(Vec<u16>, Arc<dyn Wire>),
    /// The caller's.
    Caller(Box<dyn Conductor>),
}

impl Hosts {
    /// The plan's number of the device that has place `index` here.
    pub(super) fn part(&self, index: usize) -> usize {
        match self {
            Hosts::Parts(parts, _) => usize::from(parts[index]),
            Hosts::All | Hosts::Caller(_) => index,
        }
    }
    pub(super) fn wire(&self) -> Option<&dyn Wire> {
        if let Hosts::Parts(_, wire) = self { Some(&**wire) } else { None }
    }
    /// Whether feeds and fetches are the caller's own memory.
    pub(super) fn has_caller(&self) -> bool {
        matches!(self, Hosts::All)
    }
    fn is_here(&self, end: Endpoint) -> bool {
        match (self, end) {
            (Hosts::All, _) | (Hosts::Caller(_), Endpoint::Driver) => true,
            (Hosts::Parts(parts, _), Endpoint::Device(device)) => parts.contains(&device),
            (Hosts::Caller(_), Endpoint::Device(_)) | (Hosts::Parts(..), Endpoint::Driver) => false,
        }
    }
    /// What stands for a channel here, if anything does; `lending` are the devices' that are here.
    pub(super) fn link(&self, plan: &Plan, id: ChannelId, channel: &Channel, lending: &[Lending]) -> Option<Link> {
        let between = matches!((channel.from, channel.to), (Endpoint::Device(_), Endpoint::Device(_)));
        let way = match (self.is_here(channel.from), self.is_here(channel.to)) {
            (true, true) if between => Way::Here,
            // A caller's feed leaves from the caller's own memory.
            (true, false) if channel.from != Endpoint::Driver => Way::Out,
            (false, true) => Way::In,
            (false, false) if between => Way::Away,
            _ => return None,
        };
        let nothing = Lending::of(plan, 0, false);
        let sender = match channel.from {
            Endpoint::Device(from) => (0..lending.len()).find(|i| self.part(*i) == usize::from(from)),
            Endpoint::Driver => None,
        };
        let sender = sender.filter(|_| matches!(way, Way::Here | Way::Out)).map_or(&nothing, |i| &lending[i]);
        let with_caller = || {
            let (bytes, sender_writes) = (channel.ty.size_bytes(), sender.is_lent(id));
            Crossing { bytes, starts_granted: true, sender_writes }
        };
        Some(Link::new(Crossing::of(plan, id, sender).unwrap_or_else(with_caller), way))
    }
}

/// The slot of a channel while something is read into it. Dropped before it is [whole](Arriving::whole), it is as it was.
pub struct Arriving<'a> {
    link: &'a Link,
    buffer: Option<LineBuffer>,
}

impl Arriving<'_> {
    /// Where it is put.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.buffer.as_mut().map_or(&mut [], LineBuffer::bytes_mut)
    }
    /// All of it is there, and checked: who waits for it may have it.
    pub fn whole(mut self) {
        if let Some(buffer) = self.buffer.take() {
            self.link.arrived(buffer, true);
        }
    }
}

impl Drop for Arriving<'_> {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            self.link.arrived(buffer, false);
        }
    }
}

impl Prepared {
    fn link_of(&self, channel: ChannelId, way: Way) -> Option<&Link> {
        self.0.links.get(channel.0 as usize)?.as_ref().filter(|l| l.way() == way)
    }
    /// The slot of a channel by which something arrives from another process, once it has been granted in a step that
    /// runs. Nothing if no such channel ends here, and as soon as `still` says that nobody wants it any more.
    pub fn slot(&self, channel: ChannelId, still: &dyn Fn() -> bool) -> Option<Arriving<'_>> {
        let link = self.link_of(channel, Way::In)?;
        Some(Arriving { link, buffer: Some(link.slot(still)?) })
    }
    /// Copies what has arrived by a channel to the caller; waits for it while `still` says so. Gives whether it came.
    pub fn fetch(&self, channel: ChannelId, into: &mut [u8], still: &dyn Fn() -> bool) -> bool {
        let Some(link) = self.link_of(channel, Way::In) else { return false };
        let Some(buffer) = link.arrival(still) else { return false };
        into.copy_from_slice(buffer.bytes());
        link.put_back(buffer);
        true
    }
    /// The other end of a channel that leaves here has granted it.
    pub fn granted(&self, channel: ChannelId) {
        if let Some(link) = self.link_of(channel, Way::Out) {
            link.grant(None);
        }
    }
    /// Notes what has crossed a channel between two devices that are both elsewhere.
    pub fn note(&self, channel: ChannelId, carried: Carried) {
        if let Some(link) = self.link_of(channel, Way::Away) {
            link.note(carried);
        }
    }
    pub(super) fn open(&self) {
        self.0.links.iter().flatten().for_each(Link::open);
    }
    /// Ends a step: all buffers are back, and every channel as before the first step.
    pub(super) fn close(&self) {
        self.0.links.iter().flatten().for_each(Link::close);
        self.0.links.iter().flatten().for_each(Link::rewind);
    }
}
