//! Channels while a plan runs: what the four instructions do with them, who owns a slot, what is on its way, what has
//! arrived. What is posted is looked at, taken, landed and there at four times, so that whoever touches it too early is
//! seen.

use std::time::Duration;

use super::Transfer;
use super::bytes::{Run as Held, name, provenance};
use super::harm::{Happened, HarmKind};
use super::run::{Event, Run};
use crate::id::Id;
use crate::plan::{BufferId, Channel, ChannelId, Endpoint, Instruction, Plan};

/// A channel between two devices.
pub(super) struct Link {
    pub(super) from: usize,
    pub(super) to: usize,
    /// Where it arrives, as the receiver's first wait says.
    pub(super) slot: Option<BufferId>,
    /// Whether the slot is the sender's to fill.
    pub(super) granted: bool,
    /// What has been posted and not been waited for.
    pub(super) flight: Option<Flight>,
    /// What has been posted and not been given back by `sent`: whether its bytes have been taken.
    pub(super) unsent: Option<bool>,
}

/// A value on its way.
pub(super) struct Flight {
    pub(super) step: usize,
    pub(super) buffer: BufferId,
    /// What was posted.
    pub(super) meant: Vec<Held>,
    pub(super) posted: Duration,
    pub(super) taken: Duration,
    /// Whether it is there, whole.
    pub(super) arrived: bool,
}

/// The channels between devices; `None` for the driver's and those of ends that are not there.
pub(super) fn links(plan: &Plan) -> Vec<Option<Link>> {
    let link = |channel: &Channel| {
        let (Endpoint::Device(from), Endpoint::Device(to)) = (channel.from, channel.to) else { return None };
        let (from, to) = (usize::from(from), usize::from(to));
        let there = from.max(to) < plan.devices.len() && from != to;
        there.then_some(Link { from, to, slot: None, granted: true, flight: None, unsent: None })
    };
    let mut links: Vec<Option<Link>> = plan.channels.values().iter().map(link).collect();
    for (device, part) in plan.devices.iter().enumerate() {
        for instruction in &part.instructions {
            let (Instruction::Grant(channel) | Instruction::Wait { channel, .. }) = instruction else { continue };
            let Some(Some(link)) = links.get_mut(channel.index()) else { continue };
            match instruction {
                _ if link.to != device || link.slot.is_some() => {}
                Instruction::Wait { buffer, .. } => link.slot = Some(*buffer),
                // A slot that is granted before it is waited for has not been granted in the step before.
                _ => link.granted = false,
            }
        }
    }
    links
}

impl<'a> Run<'a> {
    /// The channel, for an instruction of device `d` at the end that `end` says.
    fn channel(&self, d: usize, id: ChannelId, end: fn(&Channel) -> Endpoint) -> Result<&'a Channel, Happened> {
        let channel = self.plan.channels.get(id).filter(|channel| end(channel) == Endpoint::Device(d as u16));
        let Some(channel) = channel else {
            return Err((HarmKind::Malformed, format!("{id} is no channel that has this end here")));
        };
        if self.devices[d].machine.in_tail() {
            return Err((HarmKind::State, format!("{id} can fail, and the tail cannot be given up")));
        }
        Ok(channel)
    }

    fn link(&mut self, id: ChannelId) -> Result<&mut Link, Happened> {
        let link = self.links.get_mut(id.index()).and_then(Option::as_mut);
        link.ok_or_else(|| {
            (HarmKind::Protocol, format!("{id} has the driver at its other end, which asks for no such thing"))
        })
    }

    pub(super) fn grant(&mut self, d: usize, id: ChannelId) -> Result<Duration, Happened> {
        self.channel(d, id, |channel| channel.to)?;
        let link = self.link(id)?;
        if link.granted || link.flight.is_some() {
            return Err((HarmKind::Protocol, format!("the slot of {id} has been granted already")));
        }
        link.granted = true;
        if let Some(slot) = link.slot {
            self.devices[d].machine.wipe(slot)?;
        }
        Ok(Duration::ZERO)
    }

    pub(super) fn post(&mut self, d: usize, id: ChannelId, buffer: BufferId) -> Result<Option<Duration>, Happened> {
        let channel = self.channel(d, id, |channel| channel.from)?;
        self.devices[d].machine.fits(buffer, &channel.ty)?;
        let (latency, rest) = self.cost.channel(channel);
        let step = self.devices[d].step;
        if channel.to == Endpoint::Driver {
            let runs = self.devices[d].machine.read(buffer)?;
            self.uses[id.index()][0] += 1;
            let name = (channel.label.clone(), channel.start);
            self.result.steps[step].returned.insert(name, provenance(&runs));
            return Ok(Some(latency.saturating_add(rest)));
        }
        let link = self.link(id)?;
        if link.unsent.is_some() {
            return Err((HarmKind::Protocol, format!("{id} is posted again before its buffer was taken back")));
        }
        if !link.granted || link.flight.is_some() {
            return Ok(None);
        }
        let meant = self.devices[d].machine.read(buffer)?;
        self.uses[id.index()][0] += 1;
        let slow = self.slow[id.index()];
        let posted = self.now;
        let taken = posted.saturating_add(self.noisy(rest, slow));
        let arrived = taken.saturating_add(self.noisy(latency, slow));
        let looked = self.between(posted, taken);
        let landed = self.between(looked, arrived);
        for (time, event) in [
            (looked, Event::Looked(id)),
            (taken, Event::Taken(id)),
            (landed, Event::Landed(id)),
            (arrived, Event::Arrived(id)),
        ] {
            self.at(time, event);
        }
        let link = self.link(id)?;
        link.granted = false;
        link.unsent = Some(false);
        link.flight = Some(Flight { step, buffer, meant, posted, taken, arrived: false });
        Ok(Some(Duration::ZERO))
    }

    pub(super) fn sent(&mut self, d: usize, id: ChannelId) -> Result<Option<Duration>, Happened> {
        self.channel(d, id, |channel| channel.from)?;
        let link = self.link(id)?;
        match link.unsent {
            None => Err((HarmKind::Protocol, format!("nothing was posted to {id}"))),
            Some(false) => Ok(None),
            Some(true) => {
                link.unsent = None;
                Ok(Some(Duration::ZERO))
            }
        }
    }

    pub(super) fn wait(&mut self, d: usize, id: ChannelId, buffer: BufferId) -> Result<Option<Duration>, Happened> {
        let channel = self.channel(d, id, |channel| channel.to)?;
        self.devices[d].machine.fits(buffer, &channel.ty)?;
        if channel.from == Endpoint::Driver {
            self.uses[id.index()][1] += 1;
            let (latency, rest) = self.cost.channel(channel);
            let (value, element) = (name(("fed", &channel.label, self.devices[d].step)), channel.ty.dtype.size_bytes());
            let first = channel.start.wrapping_mul(element as u64);
            self.devices[d].machine.feed(buffer, value, first)?;
            return Ok(Some(latency.saturating_add(rest)));
        }
        let link = self.link(id)?;
        let Some(flight) = link.flight.take_if(|flight| flight.arrived) else { return Ok(None) };
        self.uses[id.index()][1] += 1;
        let meant: Vec<_> = flight.meant.iter().map(|run| Held { writer: None, ..*run }).collect();
        self.devices[d].machine.write_named(buffer, &meant)?;
        Ok(Some(Duration::ZERO))
    }

    /// Something happens to a value on its way.
    pub(super) fn travels(&mut self, id: ChannelId, event: Event) -> Result<(), Happened> {
        let bytes = self.plan.channels[id].ty.size_bytes();
        let exact = self.seed.is_none();
        let Some(link) = self.links.get_mut(id.index()).and_then(Option::as_mut) else { return Ok(()) };
        let Some(flight) = link.flight.as_mut() else { return Ok(()) };
        let (from, to) = (&mut self.devices[link.from].machine, link.to);
        let sender = &self.plan.devices[link.from].device;
        match event {
            Event::Looked(_) | Event::Taken(_) => {
                let (memory, range) = from.locate(flight.buffer)?;
                from.check(flight.buffer, memory, &range, &flight.meant)
                    .map_err(|(kind, what)| (kind, format!("{id}, posted by {sender}, is on its way: {what}")))?;
                if let Event::Taken(_) = event {
                    link.unsent = Some(true);
                }
            }
            Event::Landed(_) => {
                let (Some(slot), meant) = (link.slot, flight.meant.clone()) else { return Ok(()) };
                self.devices[to].machine.land(slot, &meant)?;
            }
            Event::Arrived(_) | Event::Done(_) => {
                flight.arrived = true;
                if exact {
                    let Flight { step, posted, taken, .. } = *flight;
                    let transfer = Transfer { step, channel: id, bytes, posted, taken, arrived: self.now };
                    self.result.transfers.push(transfer);
                }
            }
        }
        Ok(())
    }
}
