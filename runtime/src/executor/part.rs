//! What one device does in a step, made ready when its plan is loaded: stretches for the device, and what crosses channels
//! between them, with everything looked up that need not be looked up again.

use std::ops::Range;

use thalweg_graph::plan::lend::Lending;
use thalweg_graph::plan::{BufferId, ChannelId, Endpoint, Instruction, Memory, Plan};

use super::link::Link;
use crate::device::Loaded;

/// A device's part of a plan.
pub(super) struct Part {
    /// Its number in the plan.
    pub(super) of: usize,
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

/// The channels whose memory launches and copies among `instructions` use, in order.
fn used(instructions: &[Instruction], lending: &Lending) -> Vec<ChannelId> {
    let mut used: Vec<ChannelId> =
        instructions.iter().flat_map(Instruction::uses).filter_map(|b| lending.channel(b)).collect();
    used.sort();
    used.dedup();
    used
}

fn runs(instruction: &Instruction) -> bool {
    matches!(instruction, Instruction::Launch(_) | Instruction::Copy { .. })
}

/// Part `of` of a verified plan; `links` are its channels to other devices, and to the caller unless it `has_caller`.
pub(super) fn part(
    plan: &Plan,
    of: usize,
    loaded: Loaded,
    lending: &Lending,
    links: &[Option<Link>],
    has_caller: bool,
) -> Part {
    let device = &plan.devices[of];
    let (instructions, tail) = (&device.instructions, device.tail_start());
    let place = |buffer: BufferId| (device.buffers[buffer].memory, device.buffers[buffer].offset);
    let source = |buffer: BufferId| match lending.channel(buffer) {
        Some(channel) => Source::Held(channel),
        None => Source::Arena(place(buffer)),
    };
    let to_caller = |i: &Instruction| match i {
        Instruction::Post { channel, buffer } if has_caller && plan.channels[*channel].to == Endpoint::Driver => {
            Some((*channel, *buffer))
        }
        _ => None,
    };
    let starts_granted = |c: ChannelId| links[c.0 as usize].as_ref().is_some_and(Link::starts_granted);
    let (mut actions, mut at) = (Vec::new(), 0);
    while at < instructions.len() {
        let instruction = &instructions[at];
        let start = at;
        at += 1;
        actions.push(match instruction {
            Instruction::Launch(_) | Instruction::Copy { .. } => {
                let range = start..start + instructions[start..].iter().take_while(|i| runs(i)).count();
                at = range.end;
                let lent = used(&instructions[range.clone()], lending);
                Action::Run { range, lent, in_tail: start >= tail }
            }
            Instruction::Wait { channel, buffer } => {
                let (channel, to) = (*channel, (!lending.is_lent(*channel)).then(|| place(*buffer)));
                match plan.channels[channel].from {
                    Endpoint::Driver if has_caller => Action::Feed { channel, to },
                    Endpoint::Driver | Endpoint::Device(_) => Action::Wait { at: start, channel, to },
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
            // Nobody has to be told what all know when the next step begins.
            Instruction::Grant(channel) if starts_granted(*channel) => continue,
            Instruction::Grant(channel) => Action::Grant { channel: *channel },
            Instruction::Commit => Action::Meet { at: start, commits: true },
            // What was posted has been taken; snapshots are made between steps.
            Instruction::Sent(_) | Instruction::Snapshot => continue,
        });
    }
    if !instructions.contains(&Instruction::Commit) {
        actions.push(Action::Meet { at: instructions.len(), commits: false });
    }
    Part { of, loaded, actions }
}
