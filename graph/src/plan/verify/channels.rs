//! The rules of channels: who may name one, how often, and where. Between devices each end does two things once a step;
//! with the driver one end does one. What is found here the other checks rely on: of every channel between devices, the
//! four instructions that use it and the slot it arrives in.

use std::collections::BTreeMap;

use super::fault::{FaultKind, Faults, Place};
use crate::id::Id;
use crate::plan::{BufferId, Channel, ChannelId, Endpoint, Instruction, Plan};

/// A channel between devices whose rules are kept.
#[derive(Clone, Copy)]
pub(super) struct Between {
    pub(super) post: Place,
    pub(super) sent: Place,
    pub(super) wait: Place,
    pub(super) grant: Place,
    /// Where it arrives, on the device that waits.
    pub(super) slot: BufferId,
}

impl Between {
    /// Whether the grant frees the slot for the next step's value.
    pub(super) fn granted_ahead(&self) -> bool {
        self.grant.instruction > self.wait.instruction
    }
}

/// What is done with a channel.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Post,
    Sent,
    Grant,
    Wait,
}
use Use::*;

impl Use {
    const ALL: [Use; 4] = [Post, Sent, Grant, Wait];
    fn of(instruction: &Instruction) -> Option<(Use, ChannelId)> {
        match instruction {
            Instruction::Post { channel, .. } => Some((Post, *channel)),
            Instruction::Sent(channel) => Some((Sent, *channel)),
            Instruction::Grant(channel) => Some((Grant, *channel)),
            Instruction::Wait { channel, .. } => Some((Wait, *channel)),
            _ => None,
        }
    }
    /// At which end it belongs, and how often.
    fn belongs(self, channel: &Channel) -> (Endpoint, usize) {
        let end = if matches!(self, Post | Sent) { channel.from } else { channel.to };
        let with_driver = channel.from == Endpoint::Driver || channel.to == Endpoint::Driver;
        let times = usize::from(end != Endpoint::Driver && !(with_driver && matches!(self, Sent | Grant)));
        (end, times)
    }
    fn verb(self) -> &'static str {
        match self {
            Post => "posted",
            Sent => "taken back (`sent`)",
            Grant => "granted",
            Wait => "waited for",
        }
    }
}

/// Checks the rules; gives the channels between devices that keep them.
pub(super) fn channels(plan: &Plan, faults: &mut Faults<'_>) -> BTreeMap<ChannelId, Between> {
    let mut uses: Vec<[Vec<Place>; 4]> = vec![Default::default(); plan.channels.len()];
    for (device, part) in (0u16..).zip(&plan.devices) {
        let tail = part.tail_start();
        for (at, instruction) in part.instructions.iter().enumerate() {
            let Some((what, id)) = Use::of(instruction) else { continue };
            if at >= tail {
                faults.at(FaultKind::Channel, device, Some(at), || "a channel in the tail".into());
            }
            let Some(channel) = plan.channels.get(id) else {
                faults.at(FaultKind::Missing, device, Some(at), || format!("there is no channel {id}"));
                continue;
            };
            if what.belongs(channel).0 != Endpoint::Device(device) {
                let verb = if matches!(what, Post | Sent) { "leaves" } else { "arrives" };
                faults.at(FaultKind::Channel, device, Some(at), || format!("{id} is no channel that {verb} here"));
                continue;
            }
            uses[id.index()][what as usize].push(Place { device, instruction: at });
        }
    }
    let mut between = BTreeMap::new();
    for ((id, channel), uses) in plan.channels.iter().zip(&uses) {
        if !ends(plan, id, channel, faults) {
            continue;
        }
        let mut kept = true;
        for what in Use::ALL {
            let ((_, times), places) = (what.belongs(channel), &uses[what as usize]);
            if places.len() != times {
                let Channel { from, to, label, .. } = channel;
                let (n, verb, times) = (places.len(), what.verb(), if times == 1 { "once" } else { "never" });
                let message =
                    format!("channel {id} ({label}, {from} -> {to}) is {verb} {n} times in a step, not {times}");
                faults.add(FaultKind::Channel, places.iter().take(10).copied().collect(), message);
                kept = false;
            }
        }
        let [&[post], &[sent], &[grant], &[wait]] = [&uses[0][..], &uses[1][..], &uses[2][..], &uses[3][..]] else {
            continue;
        };
        if kept && sent.instruction < post.instruction {
            let message = || format!("`sent {id}` stands before its `post`, which is {}", post.instruction);
            faults.at(FaultKind::Channel, sent.device, Some(sent.instruction), message);
            kept = false;
        }
        let arrives = &plan.devices[usize::from(wait.device)].instructions[wait.instruction];
        if let (true, Instruction::Wait { buffer, .. }) = (kept, arrives) {
            between.insert(id, Between { post, sent, wait, grant, slot: *buffer });
        }
    }
    driver(plan, faults);
    between
}

/// Whether the channel joins two ends that are there.
fn ends(plan: &Plan, id: ChannelId, channel: &Channel, faults: &mut Faults<'_>) -> bool {
    let there = |end| match end {
        Endpoint::Driver => true,
        Endpoint::Device(device) => usize::from(device) < plan.devices.len(),
    };
    let joins = channel.from != channel.to && there(channel.from) && there(channel.to);
    if !joins {
        faults.add(FaultKind::Missing, vec![], format!("channel {id} does not join two ends that exist"));
    }
    joins
}

/// What crosses between devices is whole; what is fed or returned in parts has parts of one type, and parts that are
/// returned do not overlap.
fn driver(plan: &Plan, faults: &mut Faults<'_>) {
    // By direction and label: from which element to which.
    type Parts = Vec<(u64, u64, ChannelId)>;
    let mut arrays: BTreeMap<(bool, &str), Parts> = BTreeMap::new();
    for (id, channel) in plan.channels.iter() {
        if channel.from != Endpoint::Driver && channel.to != Endpoint::Driver {
            if channel.start != 0 {
                let message = format!("channel {id} ({}) starts at {} between devices", channel.label, channel.start);
                faults.add(FaultKind::Channel, vec![], message);
            }
            continue;
        }
        match channel.ty.checked_len().and_then(|n| channel.start.checked_add(n)) {
            Some(end) => {
                let fed = channel.from == Endpoint::Driver;
                arrays.entry((fed, &channel.label)).or_default().push((channel.start, end, id));
            }
            None => {
                let message = format!("channel {id} ({}) lies beyond any array", channel.label);
                faults.add(FaultKind::Type, vec![], message);
            }
        }
    }
    for ((fed, label), mut parts) in arrays {
        parts.sort_unstable();
        let mut reached = (0, None);
        for (start, end, id) in parts {
            let Some(before) = reached.1 else {
                reached = (end, Some(id));
                continue;
            };
            let [a, b] = [before, id].map(|id| plan.channels[id].ty.dtype);
            if a != b {
                faults.add(
                    FaultKind::Type,
                    vec![],
                    format!("{label} is {a} in channel {before} and {b} in channel {id}"),
                );
            }
            if !fed && start < reached.0 && start < end {
                let message = format!("channels {before} and {id} both return {label} from element {start} on");
                faults.add(FaultKind::Channel, vec![], message);
            }
            reached = if end > reached.0 { (end, Some(id)) } else { reached };
        }
    }
}
