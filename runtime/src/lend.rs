//! Where the caller's memory may stand in for a buffer of a plan. A plan says where each tensor lies as if all of them lay in
//! the device's arenas; a large feed is better read where the caller has it, and a large output written where the caller
//! will look. That changes nothing else, if whoever names the buffer goes to the same place and nobody finds its bytes
//! under another name.
//!
//! In a sound plan bytes are read by the name under which they were written, so names are enough. What is left to ask is who
//! writes: a feed nobody but the caller, an output one launch, all of it.

use thalweg_graph::plan::{Buffer, BufferId, ChannelId, DevicePlan, Instruction, Memory};

/// The buffer that `channel` arrives in or leaves from, if another memory may stand in for it for a whole step. `device` is a
/// part of a verified plan.
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

    use thalweg_graph::DType;
    use thalweg_graph::id::{Arena, Id};
    use thalweg_graph::kernel::BufferType;
    use thalweg_graph::plan::{KernelId, Launch, Piece};

    use super::*;

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
