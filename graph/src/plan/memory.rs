//! How much memory a plan needs where it runs. Not the sum of its arenas: where other memory stands in for a buffer, its room
//! in an arena is never touched, and a system gives memory page by page when it is touched; and what crosses between two
//! devices lies in buffers beside the arenas. So both are derived here from what is lent, which the executor asks as well.

use std::fmt::{self, Display, Formatter};
use std::ops::Range;

use serde::Serialize;

use super::lend::{Crossing, Lending};
use super::{Buffer, BufferId, DevicePlan, Endpoint, Instruction, Memory, Plan};
use crate::id::Id;

/// Bytes that a device's part of a plan needs, and touches. What is fed and returned is the caller's and not counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct DeviceMemory {
    /// Variables.
    pub state_bytes: u64,
    /// Everything between: the peak of what is alive together.
    pub scratch_bytes: u64,
    /// Where feeds and what other devices sent are copied to.
    pub staging_bytes: u64,
    /// Buffers that cross between devices: those that it receives, and those in which it makes what it sends before they are
    /// granted.
    pub channel_bytes: u64,
}

impl DeviceMemory {
    /// All of it.
    pub fn total_bytes(&self) -> u64 {
        let beside = self.staging_bytes.saturating_add(self.channel_bytes);
        self.state_bytes.saturating_add(self.scratch_bytes).saturating_add(beside)
    }
}

/// In MiB: `505.9 MiB: state 300.4, scratch 105.1, staging 0.0, channels 100.4`.
impl Display for DeviceMemory {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let parts = [self.state_bytes, self.scratch_bytes, self.staging_bytes, self.channel_bytes].map(mib);
        let ([state, scratch, staging, channels], total) = (parts, mib(self.total_bytes()));
        write!(
            f,
            "{total:.1} MiB: state {state:.1}, scratch {scratch:.1}, staging {staging:.1}, channels {channels:.1}"
        )
    }
}

/// Bytes in MiB, to be printed.
pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

impl Plan {
    /// What each device needs, in the order of the plan's parts. The plan is verified; `borrows` says of each device whether
    /// other memory may stand in for its buffers. Arenas are counted to the byte: a system that gives pages may give a page
    /// more at either end of what is touched, and one that gives huge pages unasked may give whole arenas.
    ///
    /// # Panics
    /// If it says so of another number of devices.
    pub fn memory(&self, borrows: &[bool]) -> Vec<DeviceMemory> {
        assert_eq!(borrows.len(), self.devices.len(), "of each device");
        let lending: Vec<Lending> = borrows.iter().enumerate().map(|(i, b)| Lending::of(self, i, *b)).collect();
        let parts = self.devices.iter().zip(&lending);
        let arenas = |(part, lending): (&DevicePlan, &Lending)| DeviceMemory {
            state_bytes: part.bytes(Memory::State),
            scratch_bytes: touched(part, Memory::Scratch, lending),
            staging_bytes: touched(part, Memory::Staging, lending),
            channel_bytes: 0,
        };
        let mut all: Vec<DeviceMemory> = parts.map(arenas).collect();
        for (id, channel) in self.channels.iter() {
            let (Endpoint::Device(from), Endpoint::Device(to)) = (channel.from, channel.to) else { continue };
            let Some(crossing) = Crossing::of(self, id, &lending[usize::from(from)]) else { continue };
            all[usize::from(to)].channel_bytes += crossing.bytes;
            if crossing.has_spare() {
                all[usize::from(from)].channel_bytes += crossing.bytes;
            }
        }
        all
    }
}

/// Bytes of an arena that some instruction reads or writes.
fn touched(part: &DevicePlan, memory: Memory, lending: &Lending) -> u64 {
    let mut used = vec![false; part.buffers.len()];
    let mut spans: Vec<Range<u64>> = vec![];
    for instruction in &part.instructions {
        let own = match instruction {
            Instruction::Wait { buffer, .. } | Instruction::Post { buffer, .. } => Some(*buffer),
            _ => None,
        };
        own.into_iter().chain(instruction.uses()).for_each(|id| used[id.index()] = true);
        if let (Instruction::Launch(launch), Memory::Scratch) = (instruction, memory) {
            let (start, bytes) = launch.workspace;
            spans.push(start..start.saturating_add(bytes));
        }
    }
    // What is made of others lies where they do.
    let made_of = |(_, b): (_, &Buffer)| b.pieces.iter().map(|p| p.buffer).collect::<Vec<_>>();
    let pieces: Vec<BufferId> = part.buffers.iter().filter(|(id, _)| used[id.index()]).flat_map(made_of).collect();
    pieces.into_iter().for_each(|id| used[id.index()] = true);
    let here = part.buffers.iter().filter(|(id, b)| used[id.index()] && b.memory == memory && b.pieces.is_empty());
    spans.extend(here.filter(|(id, _)| lending.channel(*id).is_none()).map(|(_, b)| b.range()));
    spans.sort_by_key(|s| s.start);
    let (mut bytes, mut reached) = (0, 0);
    for span in spans {
        bytes += span.end.saturating_sub(span.start.max(reached));
        reached = reached.max(span.end);
    }
    bytes
}
