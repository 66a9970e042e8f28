//! What a sound plan is, byte by byte: every id exists, every buffer lies inside its arena, every launch gets what its
//! kernel asks for, every byte is written before it is read and read before something else is written over it, the
//! body leaves state alone, and no old value is read after its update. Every fault is reported.

use std::collections::BTreeMap;

use super::{BufferId, DevicePlan, Endpoint, Instruction, Launch, Memory, Plan};
use crate::kernel::BufferType;

pub(super) fn verify(plan: &Plan) -> Vec<String> {
    let mut faults = Vec::new();
    for (id, kernel) in plan.kernels.iter() {
        faults.extend(kernel.verify().into_iter().map(|f| format!("kernel {id}: {f}")));
    }
    for (id, channel) in plan.channels.iter() {
        let exists = |e: Endpoint| {
            matches!(e, Endpoint::Device(d) if (d as usize) < plan.devices.len()) || e == Endpoint::Driver
        };
        if !exists(channel.from) || !exists(channel.to) || channel.from == channel.to {
            faults.push(format!("channel {id} does not join two ends that exist"));
        }
    }
    for (index, device) in plan.devices.iter().enumerate() {
        let mut check =
            Check { plan, device, index: index as u16, owners: BTreeMap::new(), updated: vec![], faults: vec![] };
        if check.buffers() {
            check.walk();
            check.channels();
        }
        faults.extend(check.faults.into_iter().map(|f| format!("{}: {f}", device.device)));
    }
    faults
}

/// Whose bytes these are now, by first byte: end and owner.
type Owners = BTreeMap<u64, (u64, BufferId)>;

struct Check<'a> {
    plan: &'a Plan,
    device: &'a DevicePlan,
    index: u16,
    owners: BTreeMap<Memory, Owners>,
    /// State bytes already updated.
    updated: Vec<std::ops::Range<u64>>,
    faults: Vec<String>,
}

impl Check<'_> {
    fn require(&mut self, holds: bool, otherwise: impl FnOnce() -> String) -> bool {
        if !holds {
            self.faults.push(otherwise());
        }
        holds
    }

    fn buffers(&mut self) -> bool {
        let known = self.device.buffers.len();
        for (id, buffer) in self.device.buffers.iter() {
            let range = buffer.range();
            let aligned = buffer.offset % buffer.ty.dtype.size_bytes() as u64 == 0;
            let inside = range.end <= self.device.bytes(buffer.memory) && range.end - range.start < u64::MAX / 2;
            self.require(inside && aligned && buffer.ty.checked_len().is_some(), || {
                format!("buffer {id} leaves its arena")
            });
            let mut end = buffer.offset;
            for part in &buffer.parts {
                let Some(p) = self.device.buffers.get(*part).filter(|_| (part.0 as usize) < known && part != &id)
                else {
                    self.faults.push(format!("buffer {id} is made of {part}, which is not there"));
                    continue;
                };
                let fits =
                    p.memory == buffer.memory && p.offset == end && p.parts.is_empty() && p.ty.dtype == buffer.ty.dtype;
                self.require(fits, || format!("buffer {id}: its part {part} does not lie end to end with the rest"));
                end = p.range().end;
            }
            self.require(buffer.parts.is_empty() || end == range.end, || {
                format!("buffer {id}: its parts do not fill it")
            });
        }
        self.faults.is_empty()
    }

    fn walk(&mut self) {
        let mut in_tail = false;
        for (at, instruction) in self.device.instructions.iter().enumerate() {
            match instruction {
                Instruction::Launch(launch) => self.launch(at, launch, in_tail),
                Instruction::Copy { from, to } => {
                    if self.known(at, &[*from, *to]) {
                        let (a, b) = (&self.device.buffers[*from].ty, &self.device.buffers[*to].ty);
                        self.require(a.dtype == b.dtype && a.len() == b.len(), || format!("{at}: copies {a} to {b}"));
                        self.read(at, *from);
                        self.write(at, *to, in_tail);
                    }
                }
                Instruction::Wait { channel, buffer } | Instruction::Post { channel, buffer } => {
                    self.require(!in_tail, || format!("{at}: a channel in the tail"));
                    if !self.known(at, &[*buffer]) {
                        continue;
                    }
                    let Some(ch) = self.plan.channels.get(*channel) else {
                        self.faults.push(format!("{at}: there is no channel {channel}"));
                        continue;
                    };
                    let ty = &self.device.buffers[*buffer].ty;
                    self.require(ch.ty.dtype == ty.dtype && ch.ty.checked_len() == ty.checked_len(), || {
                        format!("{at}: channel {channel} carries {}, the buffer is {ty}", ch.ty)
                    });
                    match instruction {
                        Instruction::Wait { .. } => self.write(at, *buffer, in_tail),
                        _ => self.read(at, *buffer),
                    }
                }
                Instruction::Grant(channel) | Instruction::Sent(channel) => {
                    self.require(self.plan.channels.get(*channel).is_some(), || {
                        format!("{at}: there is no channel {channel}")
                    });
                }
                Instruction::Snapshot => {}
                Instruction::Commit => {
                    self.require(!in_tail, || format!("{at}: a second commit"));
                    in_tail = true;
                }
            }
        }
    }

    fn known(&mut self, at: usize, ids: &[BufferId]) -> bool {
        let missing = ids.iter().find(|b| self.device.buffers.get(**b).is_none()).copied();
        self.require(missing.is_none(), || format!("{at}: there is no buffer {}", missing.unwrap_or(BufferId(0))))
    }

    fn launch(&mut self, at: usize, launch: &Launch, in_tail: bool) {
        let all: Vec<_> = launch.reads.iter().chain(&launch.writes).copied().collect();
        let Some(kernel) = self.plan.kernels.get(launch.kernel) else {
            self.faults.push(format!("{at}: there is no kernel {}", launch.kernel));
            return;
        };
        if !self.known(at, &all) {
            return;
        }
        let fits = |ids: &[BufferId], types: &[BufferType]| {
            let same = |(b, t): (&BufferId, &BufferType)| {
                let have = &self.device.buffers[*b].ty;
                have.dtype == t.dtype && have.checked_len() == t.checked_len()
            };
            ids.len() == types.len() && ids.iter().zip(types).all(same)
        };
        let typed = fits(&launch.reads, kernel.operands()) && fits(&launch.writes, kernel.results());
        self.require(typed, || format!("{at}: `{}` does not get what kernel {} asks for", launch.label, launch.kernel));
        if !typed {
            return;
        }
        let (offset, bytes) = launch.workspace;
        let workspace = offset..offset.saturating_add(bytes);
        self.require(workspace.end <= self.device.scratch_bytes, || {
            format!("{at}: workspace leaves the scratch arena")
        });
        launch.reads.iter().for_each(|b| self.read(at, *b));
        self.take(Memory::Scratch, workspace.clone(), None);
        for (w, id) in launch.writes.iter().enumerate() {
            let to = self.device.buffers[*id].range();
            for (r, from) in launch.reads.iter().enumerate() {
                let (a, b) = (&self.device.buffers[*from], &self.device.buffers[*id]);
                if a.memory == b.memory && overlap(&a.range(), &to) {
                    let in_place = a.range() == to && kernel.may_write_in_place(w, r);
                    self.require(in_place, || {
                        format!("{at}: `{}` writes {id} over {from} while reading it", launch.label)
                    });
                }
            }
            for other in &launch.writes[..w] {
                let b = &self.device.buffers[*other];
                let clash = b.memory == self.device.buffers[*id].memory && overlap(&b.range(), &to);
                self.require(!clash, || format!("{at}: `{}` writes {other} and {id} to one place", launch.label));
            }
            let clash = self.device.buffers[*id].memory == Memory::Scratch && overlap(&workspace, &to);
            self.require(!clash, || format!("{at}: `{}` works where it writes {id}", launch.label));
        }
        for id in &launch.reads {
            let b = &self.device.buffers[*id];
            let clash = b.memory == Memory::Scratch && overlap(&workspace, &b.range());
            self.require(!clash, || format!("{at}: `{}` works over {id} while reading it", launch.label));
        }
        launch.writes.iter().for_each(|b| self.write(at, *b, in_tail));
    }

    /// Bytes pass to a new owner (or to nobody).
    fn take(&mut self, memory: Memory, range: std::ops::Range<u64>, owner: Option<BufferId>) {
        if range.is_empty() {
            return;
        }
        let owners = self.owners.entry(memory).or_default();
        let hit: Vec<_> = owners
            .range(..range.end)
            .rev()
            .take_while(|(_, (end, _))| *end > range.start)
            .map(|(s, (e, o))| (*s, *e, *o))
            .collect();
        for (start, end, old) in hit {
            owners.remove(&start);
            if start < range.start {
                owners.insert(start, (range.start, old));
            }
            if end > range.end {
                owners.insert(range.end, (end, old));
            }
        }
        if let Some(owner) = owner {
            owners.insert(range.start, (range.end, owner));
        }
    }

    fn read(&mut self, at: usize, id: BufferId) {
        let buffer = &self.device.buffers[id];
        let range = buffer.range();
        if range.is_empty() {
            return;
        }
        if !buffer.parts.is_empty() && buffer.memory != Memory::State {
            return buffer.parts.clone().into_iter().for_each(|part| self.read(at, part));
        }
        if buffer.memory == Memory::State {
            let stale = self.updated.iter().any(|u| overlap(u, &range));
            self.require(!stale, || format!("{at}: reads {id} of the state after its update"));
            return;
        }
        let owners = self.owners.entry(buffer.memory).or_default();
        let whole =
            owners.range(..=range.start).next_back().is_some_and(|(_, (end, owner))| *owner == id && *end >= range.end);
        self.require(whole, || format!("{at}: reads {id}, which is not whole there: never written, or written over"));
    }

    fn write(&mut self, at: usize, id: BufferId, in_tail: bool) {
        let buffer = &self.device.buffers[id];
        let (memory, range) = (buffer.memory, buffer.range());
        if memory == Memory::State {
            self.require(in_tail, || format!("{at}: the body writes {id} of the state"));
            let twice = self.updated.iter().any(|u| overlap(u, &range));
            self.require(!twice, || format!("{at}: updates {id} of the state twice"));
            self.updated.push(range);
            return;
        }
        let parts = buffer.parts.clone();
        if parts.is_empty() {
            self.take(memory, range, Some(id));
        }
        parts.into_iter().for_each(|part| self.take(memory, self.device.buffers[part].range(), Some(part)));
    }

    /// Every channel of this device is used once, at the right end.
    fn channels(&mut self) {
        let mine = Endpoint::Device(self.index);
        for (id, channel) in self.plan.channels.iter() {
            let count = |f: &dyn Fn(&Instruction) -> bool| self.device.instructions.iter().filter(|i| f(i)).count();
            let waits = count(&|i| matches!(i, Instruction::Wait { channel, .. } if *channel == id));
            let posts = count(&|i| matches!(i, Instruction::Post { channel, .. } if *channel == id));
            let (want_waits, want_posts) = (usize::from(channel.to == mine), usize::from(channel.from == mine));
            self.require(waits == want_waits && posts == want_posts, || {
                format!("channel {id} ({}) is waited for {waits} times and posted {posts} times here", channel.label)
            });
        }
    }
}

fn overlap(a: &std::ops::Range<u64>, b: &std::ops::Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}
