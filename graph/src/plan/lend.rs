//! Where other memory may stand in for a buffer of a plan. A plan says where each tensor lies as if all of them lay in
//! their device's arenas; a large feed is better read where the caller has it, a large output written where the caller
//! will look, and what crosses to another device written and read in the buffer that crosses. That changes nothing else, if
//! whoever names the buffer goes to the same place and nobody finds its bytes under another name.
//!
//! In a sound plan bytes are read by the name under which they were written, so names are enough. What is left to ask is who
//! writes: a feed nobody but the caller, an output one launch, all of it.
//!
//! This is not the runtime's, though only the runtime lends: how much memory a plan needs follows from it as well.

use std::collections::HashMap;

use super::{Buffer, BufferId, ChannelId, DevicePlan, Endpoint, Instruction, Memory, Plan};

/// Feeds and outputs smaller than this are copied: they stay in the cache, and the arenas are aligned for every vector.
const WORTH_LENDING_BYTES: u64 = 64 << 10;
/// The same between devices, where a buffer that moves is as well aligned and has been written by another core anyway.
const WORTH_MOVING_BYTES: u64 = 4 << 10;

/// Which memory stands in for which buffers of a device's part.
pub struct Lending {
    by_channel: HashMap<ChannelId, BufferId>,
    by_buffer: HashMap<BufferId, ChannelId>,
}

impl Lending {
    /// Of part `index` of a verified plan; nothing, where the device does not borrow.
    pub fn of(plan: &Plan, index: usize, borrows: bool) -> Self {
        let (part, me) = (&plan.devices[index], Endpoint::Device(index as u16));
        let mut by_channel = HashMap::new();
        for (id, channel) in plan.channels.iter().filter(|(_, c)| borrows && (c.from == me || c.to == me)) {
            let with_caller = channel.from == Endpoint::Driver || channel.to == Endpoint::Driver;
            let worth = if with_caller { WORTH_LENDING_BYTES } else { WORTH_MOVING_BYTES };
            if channel.ty.size_bytes() < worth {
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
    /// Whether memory of its own stands in for the buffer of this channel.
    pub fn is_lent(&self, channel: ChannelId) -> bool {
        self.by_channel.contains_key(&channel)
    }
    /// The channel whose memory stands in for this buffer.
    pub fn channel(&self, buffer: BufferId) -> Option<ChannelId> {
        self.by_buffer.get(&buffer).copied()
    }
}

fn read_after_post(part: &DevicePlan, channel: ChannelId, buffer: BufferId) -> bool {
    let posts = |i: &Instruction| matches!(i, Instruction::Post { channel: c, .. } if *c == channel);
    let later = part.instructions.iter().skip_while(|i| !posts(i));
    later.flat_map(Instruction::uses).any(|b| b == buffer)
}

/// The buffers of a channel between two devices. They change hands: a full one goes to the receiver, and comes back with the
/// grant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Crossing {
    /// Bytes of a buffer.
    pub bytes: u64,
    /// Whether the slot is the sender's from the start of every step: the receiver grants it for the next step, or before it
    /// does anything else. Devices begin a step together, so nobody has to wait for such a grant.
    pub starts_granted: bool,
    /// Whether the sender's launch writes the buffer that moves.
    pub sender_writes: bool,
}

impl Crossing {
    /// That of `channel`, if it joins two devices; `sender` is what is lent to the one that posts.
    pub fn of(plan: &Plan, channel: ChannelId, sender: &Lending) -> Option<Self> {
        let of = &plan.channels[channel];
        let (Endpoint::Device(_), Endpoint::Device(to)) = (of.from, of.to) else { return None };
        let starts_granted = starts_granted(&plan.devices[usize::from(to)], channel);
        Some(Self { bytes: of.ty.size_bytes(), starts_granted, sender_writes: sender.is_lent(channel) })
    }
    /// Whether there are two of them: the sender may be writing what it will send before the other one is granted.
    pub fn has_spare(&self) -> bool {
        self.sender_writes && !self.starts_granted
    }
}

/// See [`Crossing::starts_granted`]. `receiver` is the part that waits.
fn starts_granted(receiver: &DevicePlan, channel: ChannelId) -> bool {
    let mut first = true;
    for instruction in &receiver.instructions {
        match instruction {
            Instruction::Grant(c) if *c == channel => return first,
            Instruction::Wait { channel: c, .. } if *c == channel => return true,
            Instruction::Grant(_) => {}
            _ => first = false,
        }
    }
    false
}

/// The buffer that `channel` arrives in or leaves from, if another memory may stand in for it for a whole step. `device` is a
/// part of a verified plan. Whether that is worth anything is [`Lending`]'s to say.
pub fn lendable(device: &DevicePlan, channel: ChannelId) -> Option<BufferId> {
    let (id, arrives) = device.instructions.iter().find_map(|i| match i {
        Instruction::Wait { channel: c, buffer } if *c == channel => Some((*buffer, true)),
        Instruction::Post { channel: c, buffer } if *c == channel => Some((*buffer, false)),
        _ => None,
    })?;
    let buffer = &device.buffers[id];
    // Buffers that are used as one lie end to end, which the caller's do not. What has no elements has no place.
    let has = |other: &Buffer| other.pieces.iter().any(|p| p.buffer == id);
    let alone = buffer.pieces.is_empty() && !device.buffers.values().iter().any(has);
    if !alone || buffer.range().is_empty() {
        return None;
    }
    let (mut waits, mut posts, mut launches, mut copies) = (0, 0, 0, 0);
    for instruction in &device.instructions {
        match instruction {
            Instruction::Wait { buffer, .. } => waits += usize::from(*buffer == id),
            Instruction::Post { buffer, .. } => posts += usize::from(*buffer == id),
            Instruction::Launch(launch) => launches += launch.writes.iter().filter(|w| **w == id).count(),
            Instruction::Copy { to, .. } => copies += usize::from(*to == id),
            Instruction::Grant(_) | Instruction::Sent(_) | Instruction::Snapshot | Instruction::Commit => {}
        }
    }
    // State outlives the step, and what is posted twice cannot lie in two arrays.
    let may = match arrives {
        true => buffer.memory == Memory::Staging && (waits, launches + copies) == (1, 0),
        false => buffer.memory == Memory::Scratch && (launches, waits + copies, posts) == (1, 0, 1),
    };
    may.then_some(id)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::DType;
    use crate::id::{Arena, Id};
    use crate::kernel::BufferType;
    use crate::plan::{KernelId, Launch, Piece};

    const IN: ChannelId = ChannelId(0);
    const OUT: ChannelId = ChannelId(1);

    fn launch(reads: &[u32], writes: &[u32]) -> Instruction {
        let ids = |list: &[u32]| list.iter().map(|b| BufferId(*b)).collect();
        let (label, site) = (Arc::from("work"), Default::default());
        let kernel = KernelId::new(0);
        Instruction::Launch(Launch { kernel, reads: ids(reads), writes: ids(writes), workspace: (0, 0), label, site })
    }
    fn wait(buffer: u32) -> Instruction {
        Instruction::Wait { channel: IN, buffer: BufferId(buffer) }
    }
    fn post(buffer: u32) -> Instruction {
        Instruction::Post { channel: OUT, buffer: BufferId(buffer) }
    }
    /// Whether feed and output are lent. Buffer 0 lies in staging, 1 and 2 in scratch; 3 is made of 6 and 7; 4 lies in the state
    /// and 5 has no elements.
    fn lends(instructions: Vec<Instruction>) -> [bool; 2] {
        let whole = |b: &u32| Piece { buffer: BufferId(*b), start: 0, end: 16 };
        let at = |memory, offset, n, pieces: &[u32]| Buffer {
            memory,
            offset,
            ty: BufferType { dtype: DType::F32, shape: vec![n] },
            pieces: pieces.iter().map(whole).collect(),
        };
        let (state, scratch) = (Memory::State, Memory::Scratch);
        let mut buffers = Arena::default();
        buffers.push(at(Memory::Staging, 0, 16, &[]));
        buffers.push(at(scratch, 0, 16, &[]));
        buffers.push(at(scratch, 64, 16, &[]));
        buffers.push(at(scratch, 128, 32, &[6, 7]));
        buffers.push(at(state, 0, 16, &[]));
        buffers.push(at(scratch, 0, 0, &[]));
        buffers.push(at(scratch, 128, 16, &[]));
        buffers.push(at(scratch, 192, 16, &[]));
        let (device, [state_bytes, scratch_bytes, staging_bytes]) = ("d".into(), [64, 256, 64]);
        let device = DevicePlan { device, state_bytes, scratch_bytes, staging_bytes, buffers, instructions };
        [IN, OUT].map(|c| lendable(&device, c).is_some())
    }

    #[test]
    fn feeds_that_are_only_read_and_outputs_that_one_launch_writes() {
        assert_eq!(lends(vec![wait(0), launch(&[0], &[1]), post(1)]), [true, true]);
        let tail = [Instruction::Commit, launch(&[1], &[4])];
        let body = [wait(0), launch(&[0], &[1]), launch(&[1], &[2]), post(1)];
        assert_eq!(lends(body.into_iter().chain(tail).collect()), [true, true], "whoever reads finds it");
    }

    #[test]
    fn what_others_write_lies_in_the_arena() {
        let copy = |from, to| Instruction::Copy { from: BufferId(from), to: BufferId(to) };
        assert_eq!(lends(vec![wait(0), launch(&[0], &[1]), launch(&[1], &[0]), post(0)]), [false, false]);
        assert_eq!(lends(vec![wait(0), launch(&[0], &[1]), copy(1, 0), post(1)]), [false, true]);
        assert_eq!(lends(vec![wait(0), launch(&[0], &[1]), launch(&[0], &[1]), post(1)]), [true, false]);
        assert_eq!(lends(vec![wait(0), launch(&[0], &[1, 1]), post(1)]), [true, false], "in two parts");
        assert_eq!(lends(vec![wait(0), copy(0, 1), post(1)]), [true, false]);
        assert_eq!(lends(vec![wait(1), launch(&[1], &[1]), post(1)]), [false, false], "a feed, and then an output");
        assert_eq!(lends(vec![wait(1), launch(&[1], &[2]), post(2)]), [false, true], "scratch is reused");
    }

    #[test]
    fn what_is_not_alone_in_its_place_lies_in_the_arena() {
        assert_eq!(lends(vec![wait(0), post(0)]), [true, false], "a feed that is returned");
        assert_eq!(lends(vec![wait(0), launch(&[0], &[4]), post(4)]), [true, false], "a variable");
        assert_eq!(lends(vec![wait(0), launch(&[0], &[1]), post(1), post(1)]), [true, false], "two names");
        assert_eq!(lends(vec![wait(0), launch(&[0], &[6, 7]), post(6)]), [true, false], "end to end with another");
        assert_eq!(lends(vec![wait(0), launch(&[0], &[3]), post(3)]), [true, false], "made of others");
        assert_eq!(lends(vec![wait(0), launch(&[0], &[5]), post(5)]), [true, false], "no elements");
        assert_eq!(lends(vec![]), [false, false], "no such channel here");
    }
}
