//! What one device does in a step, made ready when its plan is loaded: stretches for the device, and what crosses channels
//! between them, with everything looked up that need not be looked up again.

use std::collections::HashMap;
use std::ops::Range;

use thalweg_graph::plan::{BufferId, ChannelId, DevicePlan, Endpoint, Instruction, Memory, Plan};

use crate::device::{Device, Loaded};
use crate::lend::lendable;

/// Feeds and outputs smaller than this are copied: they stay in the cache, and the arenas are aligned for every vector.
const WORTH_LENDING_BYTES: u64 = 64 << 10;
/// The same between devices, where a buffer that moves is as well aligned and has been written by another core anyway.
const WORTH_MOVING_BYTES: u64 = 4 << 10;

/// A device's part of a plan.
pub(super) struct Part {
    pub(super) loaded: Loaded,
    pub(super) actions: Vec<Action>,
}

/// A place in a device's arenas.
pub(super) type Place = (Memory, u64);

/// Where the bytes are that leave.
pub(super) enum Source {
    Arena(Place),
    /// In the memory that stands in for this channel's buffer: what was fed, or received, or made to be sent.
    Held(ChannelId),
}

/// One thing to do.
pub(super) enum Action {
    /// A stretch of the device's. It uses what is lent for these channels.
    Run {
        range: Range<usize>,
        lent: Vec<ChannelId>,
        in_tail: bool,
    },
    /// From the caller, to this place unless it is lent.
    Feed {
        channel: ChannelId,
        to: Option<Place>,
    },
    /// To the caller; what is lent is there already.
    Fetch {
        posts: Vec<(ChannelId, Option<Source>)>,
    },
    Grant {
        channel: ChannelId,
    },
    Post {
        at: usize,
        channel: ChannelId,
        from: Source,
    },
    /// To this place unless the device reads it where it is.
    Wait {
        at: usize,
        channel: ChannelId,
        to: Option<Place>,
    },
    /// The body has ended.
    Meet {
        at: usize,
        commits: bool,
    },
}

/// Which memory stands in for which buffer of a part.
pub(super) struct Lending {
    /// By channel: the buffer.
    by_channel: HashMap<ChannelId, BufferId>,
    by_buffer: HashMap<BufferId, ChannelId>,
}

impl Lending {
    /// What is lent to `device` for part `index`.
    pub(super) fn of(plan: &Plan, index: usize, device: &dyn Device, loaded: Loaded) -> Self {
        let (part, me) = (&plan.devices[index], Endpoint::Device(index as u16));
        let mut by_channel = HashMap::new();
        for (id, channel) in plan.channels.iter().filter(|(_, c)| c.from == me || c.to == me) {
            let with_caller = channel.from == Endpoint::Driver || channel.to == Endpoint::Driver;
            let worth = if with_caller { WORTH_LENDING_BYTES } else { WORTH_MOVING_BYTES };
            if channel.ty.size_bytes() < worth || !device.borrows(loaded, id) {
                continue;
            }
            let Some(buffer) = lendable(part, id) else { continue };
            // What moves to another device is not here any more.
            let moves = channel.from == me && !with_caller;
            if !moves || !read_after_post(part, id, buffer) {
                by_channel.insert(id, buffer);
            }
        }
        let by_buffer = by_channel.iter().map(|(c, b)| (*b, *c)).collect();
        Self { by_channel, by_buffer }
    }
    pub(super) fn is_lent(&self, channel: ChannelId) -> bool {
        self.by_channel.contains_key(&channel)
    }
    /// What launches and copies among `instructions` use, in order.
    fn used(&self, instructions: &[Instruction]) -> Vec<ChannelId> {
        if self.by_buffer.is_empty() {
            return vec![];
        }
        let used = instructions.iter().flat_map(uses).filter_map(|b| self.by_buffer.get(&b));
        let mut used: Vec<ChannelId> = used.copied().collect();
        used.sort();
        used.dedup();
        used
    }
}

/// The buffers that an instruction of the device's uses.
fn uses(instruction: &Instruction) -> Vec<BufferId> {
    match instruction {
        Instruction::Launch(launch) => launch.reads.iter().chain(&launch.writes).copied().collect(),
        Instruction::Copy { from, to } => vec![*from, *to],
        _ => vec![],
    }
}

fn read_after_post(part: &DevicePlan, channel: ChannelId, buffer: BufferId) -> bool {
    let posts = |i: &Instruction| matches!(i, Instruction::Post { channel: c, .. } if *c == channel);
    let later = part.instructions.iter().skip_while(|i| !posts(i));
    later.flat_map(uses).any(|b| b == buffer)
}

/// Whether the receiver of `channel` grants it behind its wait, for the next step.
pub(super) fn starts_granted(plan: &Plan, channel: ChannelId) -> bool {
    let Endpoint::Device(to) = plan.channels[channel].to else { return false };
    let first = plan.devices[usize::from(to)].instructions.iter().find_map(|i| match i {
        Instruction::Grant(c) if *c == channel => Some(false),
        Instruction::Wait { channel: c, .. } if *c == channel => Some(true),
        _ => None,
    });
    first.unwrap_or(false)
}

fn runs(instruction: &Instruction) -> bool {
    matches!(instruction, Instruction::Launch(_) | Instruction::Copy { .. })
}

/// Part `index` of a verified plan.
pub(super) fn part(plan: &Plan, index: usize, loaded: Loaded, lending: &Lending) -> Part {
    let device = &plan.devices[index];
    let (instructions, tail) = (&device.instructions, device.tail_start());
    let place = |buffer: BufferId| (device.buffers[buffer].memory, device.buffers[buffer].offset);
    let source = |buffer: BufferId| match lending.by_buffer.get(&buffer) {
        Some(channel) => Source::Held(*channel),
        None => Source::Arena(place(buffer)),
    };
    let to_caller = |i: &Instruction| match i {
        Instruction::Post { channel, buffer } if plan.channels[*channel].to == Endpoint::Driver => {
            Some((*channel, *buffer))
        }
        _ => None,
    };
    let (mut actions, mut at) = (Vec::new(), 0);
    while at < instructions.len() {
        let instruction = &instructions[at];
        let start = at;
        at += 1;
        actions.push(match instruction {
            Instruction::Launch(_) | Instruction::Copy { .. } => {
                let range = start..start + instructions[start..].iter().take_while(|i| runs(i)).count();
                at = range.end;
                let lent = lending.used(&instructions[range.clone()]);
                Action::Run { range, lent, in_tail: start >= tail }
            }
            Instruction::Wait { channel, buffer } => {
                let (channel, to) = (*channel, (!lending.is_lent(*channel)).then(|| place(*buffer)));
                match plan.channels[channel].from {
                    Endpoint::Driver => Action::Feed { channel, to },
                    Endpoint::Device(_) => Action::Wait { at: start, channel, to },
                }
            }
            Instruction::Post { channel, buffer } if to_caller(instruction).is_none() => {
                Action::Post { at: start, channel: *channel, from: source(*buffer) }
            }
            Instruction::Post { .. } => {
                // Read in one go.
                let posts = instructions[start..].iter().map_while(to_caller);
                let from = |c, buffer| (!lending.is_lent(c)).then(|| source(buffer));
                let posts: Vec<_> = posts.map(|(c, buffer)| (c, from(c, buffer))).collect();
                at = start + posts.len();
                Action::Fetch { posts }
            }
            Instruction::Grant(channel) => Action::Grant { channel: *channel },
            Instruction::Commit => Action::Meet { at: start, commits: true },
            // What was posted has been taken; snapshots are made between steps.
            Instruction::Sent(_) | Instruction::Snapshot => continue,
        });
    }
    if !instructions.contains(&Instruction::Commit) {
        actions.push(Action::Meet { at: instructions.len(), commits: false });
    }
    Part { loaded, actions }
}
