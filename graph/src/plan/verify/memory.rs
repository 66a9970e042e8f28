//! What happens to the bytes of one device in a step: who has written them, who may read them, and whose they are while
//! a channel has them. One walk over the instructions, in order; what other devices do shows in grants, waits, posts and
//! `sent`s alone. A slot that is granted ahead is the peer's already when the step begins, and still when it ends: that
//! one walk stands for any number of steps.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::Range;

use super::channels::Between;
use super::fault::{FaultKind, Faults, Place};
use super::spans::Spans;
use crate::kernel::{BufferType, Kernel};
use crate::plan::{BufferId, ChannelId, DevicePlan, Instruction, Launch, Memory, Plan};

/// No arena is larger, so that addresses fit an i64 (and a pointer) with room to spare.
const MAX_ARENA: u64 = 1 << 48;

/// Checks the memory of one device. Of its kernels those are `sound` that have passed.
pub(super) fn memory(
    plan: &Plan,
    sound: &[bool],
    index: u16,
    between: &BTreeMap<ChannelId, Between>,
    faults: &mut Faults<'_>,
) {
    let device = &plan.devices[usize::from(index)];
    let needed = vec![false; device.instructions.len()];
    let (owners, lent, writers) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let mut check = Check { plan, sound, device, index, between, owners, lent, writers, needed, faults };
    if check.buffers() {
        check.walk();
    }
}

/// Whose bytes these are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// They are what this buffer holds. Of state: they have been updated.
    Buffer(BufferId),
    /// They are the sender's, from the grant of this channel to its wait.
    Peer(ChannelId),
}

struct Check<'a, 'f> {
    plan: &'a Plan,
    sound: &'a [bool],
    device: &'a DevicePlan,
    index: u16,
    between: &'a BTreeMap<ChannelId, Between>,
    owners: BTreeMap<Memory, Spans<Owner>>,
    /// What is posted and not yet taken: by how many channels, and one of them.
    lent: BTreeMap<Memory, Spans<(u32, ChannelId)>>,
    /// Which instructions wrote the bytes of a buffer last.
    writers: BTreeMap<BufferId, Vec<(Range<u64>, usize)>>,
    /// Whether anybody needs what an instruction writes.
    needed: Vec<bool>,
    faults: &'a mut Faults<'f>,
}

impl<'a> Check<'a, '_> {
    /// A fault of the device unless `holds`.
    fn require(&mut self, kind: FaultKind, holds: bool, otherwise: impl FnOnce() -> String) -> bool {
        if !holds {
            self.faults.at(kind, self.index, None, otherwise);
        }
        holds
    }
    /// A fault of instruction `at` unless `holds`.
    fn require_at(&mut self, at: usize, kind: FaultKind, holds: bool, otherwise: impl FnOnce() -> String) -> bool {
        if !holds {
            self.faults.at(kind, self.index, Some(at), otherwise);
        }
        holds
    }

    /// Checks arenas and buffers. All that follows relies on it: ranges are exact and pieces have no pieces.
    fn buffers(&mut self) -> bool {
        let (device, before) = (self.device, self.faults.count());
        for memory in Memory::ALL {
            let bytes = device.bytes(memory);
            self.require(FaultKind::Buffer, bytes <= MAX_ARENA, || {
                format!("the {} arena has {bytes} bytes", memory.name())
            });
        }
        for (id, buffer) in device.buffers.iter() {
            let element = buffer.ty.dtype.size_bytes() as u64;
            let bytes = buffer.ty.checked_len().and_then(|n| n.checked_mul(element));
            let end = bytes.and_then(|b| buffer.offset.checked_add(b));
            let inside = end.is_some_and(|end| end <= device.bytes(buffer.memory)) && buffer.offset % element == 0;
            self.require(FaultKind::Buffer, inside, || format!("buffer {id} leaves its arena"));
            if buffer.pieces.is_empty() {
                continue;
            }
            let mut next = buffer.offset;
            for piece in &buffer.pieces {
                let of = device.buffers.get(piece.buffer);
                if !self.require(FaultKind::Buffer, of.is_some(), || {
                    format!("buffer {id} is made of {piece}, which is not there")
                }) {
                    continue;
                }
                let fits = of.is_some_and(|of| {
                    let alike = of.memory == buffer.memory && of.ty.dtype == buffer.ty.dtype && of.pieces.is_empty();
                    let inside = piece.start <= piece.end && of.ty.checked_len().is_some_and(|n| piece.end <= n);
                    alike && inside && of.piece(piece).start == next
                });
                if !self.require(FaultKind::Buffer, fits, || {
                    format!("buffer {id}: {piece} does not lie end to end with the rest")
                }) {
                    break;
                }
                next = of.map_or(next, |of| of.piece(piece).end);
            }
            self.require(FaultKind::Buffer, next == buffer.range().end, || {
                format!("buffer {id}: its pieces do not fill it")
            });
        }
        self.faults.count() == before
    }

    fn walk(&mut self) {
        let device = self.device;
        // What the step before has granted.
        for (channel, b) in self.between {
            if b.wait.device == self.index && b.granted_ahead() {
                self.grant(b.grant.instruction, *channel, b.slot);
            }
        }
        let mut in_tail = false;
        for (at, instruction) in device.instructions.iter().enumerate() {
            match instruction {
                Instruction::Launch(launch) => self.launch(at, launch, in_tail),
                Instruction::Copy { from, to } => self.copy(at, *from, *to, in_tail),
                Instruction::Wait { channel, buffer } | Instruction::Post { channel, buffer } => {
                    if !self.known(at, &[*buffer]) {
                        continue;
                    }
                    let Some(ch) = self.plan.channels.get(*channel) else { continue };
                    let ty = &device.buffers[*buffer].ty;
                    self.require_at(at, FaultKind::Type, alike(&ch.ty, ty), || {
                        format!("channel {channel} does not carry what {buffer} holds, {ty}")
                    });
                    match instruction {
                        Instruction::Wait { .. } => self.wait(at, *channel, *buffer, in_tail),
                        _ => self.post(at, *channel, *buffer),
                    }
                }
                Instruction::Grant(channel) => match self.between.get(channel) {
                    Some(b) if b.grant == self.place(at) => self.grant(at, *channel, b.slot),
                    _ => {}
                },
                Instruction::Sent(channel) => self.sent(at, *channel),
                Instruction::Snapshot => {}
                Instruction::Commit => {
                    self.require_at(at, FaultKind::State, !in_tail, || "a second commit".into());
                    in_tail = true;
                }
            }
        }
        for (at, instruction) in device.instructions.iter().enumerate() {
            let computes = matches!(instruction, Instruction::Launch(_) | Instruction::Copy { .. });
            let needed = !computes || self.needed[at];
            self.require_at(at, FaultKind::Waste, needed, || "nobody reads what it writes".into());
        }
    }

    fn known(&mut self, at: usize, ids: &[BufferId]) -> bool {
        let missing = ids.iter().find(|b| self.device.buffers.get(**b).is_none()).copied();
        self.require_at(at, FaultKind::Missing, missing.is_none(), || {
            format!("there is no buffer {}", missing.unwrap_or(BufferId(0)))
        })
    }

    fn copy(&mut self, at: usize, from: BufferId, to: BufferId, in_tail: bool) {
        if !self.known(at, &[from, to]) {
            return;
        }
        let (a, b) = (&self.device.buffers[from], &self.device.buffers[to]);
        self.require_at(at, FaultKind::Type, alike(&a.ty, &b.ty), || format!("copies {} to {}", a.ty, b.ty));
        let clash = a.memory == b.memory && overlap(&a.range(), &b.range());
        self.require_at(at, FaultKind::Clash, !clash, || format!("copies {from} over itself"));
        self.read(at, from);
        self.write(at, to, in_tail);
    }

    fn launch(&mut self, at: usize, launch: &Launch, in_tail: bool) {
        let Some(kernel) = self.plan.kernels.get(launch.kernel) else {
            self.require_at(at, FaultKind::Missing, false, || format!("there is no kernel {}", launch.kernel));
            return;
        };
        if !self.known(at, &launch.reads) || !self.known(at, &launch.writes) {
            return;
        }
        let buffers = &self.device.buffers;
        let fits = |ids: &[BufferId], types: &[BufferType]| {
            ids.len() == types.len() && ids.iter().zip(types).all(|(b, t)| alike(&buffers[*b].ty, t))
        };
        let typed = fits(&launch.reads, kernel.operands()) && fits(&launch.writes, kernel.results());
        if !self.require_at(at, FaultKind::Type, typed, || {
            format!("`{}` does not get what kernel {} asks for", launch.label, launch.kernel)
        }) {
            return;
        }
        launch.reads.iter().for_each(|b| self.read(at, *b));
        let sound = self.sound[launch.kernel.0 as usize];
        self.clashes(at, launch, sound.then_some(kernel));
        let workspace = launch.workspace.0..launch.workspace.0.saturating_add(launch.workspace.1);
        self.touch(at, Memory::Scratch, &workspace, "works over", "scratch");
        self.owners.entry(Memory::Scratch).or_default().put(&workspace, None);
        launch.writes.iter().for_each(|b| self.write(at, *b, in_tail));
    }

    /// What a launch uses at once must not share bytes, but where its kernel may write in place. Nothing is asked of a
    /// kernel that is not sound: it has been reported.
    fn clashes(&mut self, at: usize, launch: &Launch, kernel: Option<&Kernel>) {
        let (buffers, label) = (&self.device.buffers, &launch.label);
        let (offset, bytes) = launch.workspace;
        let workspace = offset..offset.saturating_add(bytes);
        self.require_at(at, FaultKind::Buffer, workspace.end <= self.device.scratch_bytes, || {
            format!("workspace of `{label}` leaves the scratch arena")
        });
        let works_over =
            |id: &BufferId| buffers[*id].memory == Memory::Scratch && overlap(&workspace, &buffers[*id].range());
        let shared = |a: &BufferId, b: &BufferId| {
            let (a, b) = (&buffers[*a], &buffers[*b]);
            a.memory == b.memory && overlap(&a.range(), &b.range())
        };
        for id in launch.reads.iter().chain(&launch.writes) {
            self.require_at(at, FaultKind::Clash, !works_over(id), || {
                format!("`{label}` works over {id} while it uses it")
            });
        }
        for (w, to) in launch.writes.iter().enumerate() {
            for (r, from) in launch.reads.iter().enumerate().filter(|(_, from)| shared(from, to)) {
                let in_place = buffers[*from].range() == buffers[*to].range()
                    && kernel.is_none_or(|kernel| kernel.may_write_in_place(w, r));
                self.require_at(at, FaultKind::Clash, in_place, || {
                    format!("`{label}` writes {to} over {from} while reading it")
                });
            }
            for other in launch.writes[..w].iter().filter(|other| shared(other, to)) {
                self.require_at(at, FaultKind::Clash, false, || {
                    format!("`{label}` writes {other} and {to} to one place")
                });
            }
        }
    }

    /// The buffers that `id` stands for, and which of their bytes: its pieces, or itself.
    fn leaves(&self, id: BufferId) -> impl Iterator<Item = (BufferId, Range<u64>)> + use<'a> {
        let (buffers, buffer) = (&self.device.buffers, &self.device.buffers[id]);
        let pieces = buffer.pieces.iter().map(|p| (p.buffer, buffers[p.buffer].piece(p)));
        pieces.chain(buffer.pieces.is_empty().then(|| (id, buffer.range())))
    }

    fn read(&mut self, at: usize, id: BufferId) {
        let device = self.device;
        for (leaf, range) in self.leaves(id) {
            let memory = device.buffers[leaf].memory;
            for (_, writer) in
                self.writers.get(&leaf).iter().flat_map(|w| w.iter()).filter(|w| w.0 == range || overlap(&w.0, &range))
            {
                self.needed[*writer] = true;
            }
            let owners = self.owners.entry(memory).or_default();
            if memory == Memory::State {
                let fresh = owners.over(&range).next().is_none();
                self.require_at(at, FaultKind::State, fresh, || format!("reads {leaf} of the state after its update"));
                continue;
            }
            // From the last run to the first: each has to reach to where the one behind it begins.
            let mut begin = range.end;
            let mut peer = None;
            for (run, owner) in owners.over(&range) {
                if let Owner::Peer(channel) = owner {
                    peer = Some(channel);
                }
                if owner != Owner::Buffer(leaf) || run.end < begin {
                    break;
                }
                begin = run.start;
            }
            let whole = begin <= range.start || range.is_empty();
            let kind = if peer.is_some() { FaultKind::Lent } else { FaultKind::Unwritten };
            self.require_at(at, kind, whole, || match peer {
                Some(channel) => {
                    format!("reads {leaf}, whose bytes are the sender's from `grant {channel}` to its wait")
                }
                None => format!("reads {leaf}, which is not whole there: never written, or written over"),
            });
        }
    }

    fn write(&mut self, at: usize, id: BufferId, in_tail: bool) {
        let device = self.device;
        for (leaf, range) in self.leaves(id) {
            let memory = device.buffers[leaf].memory;
            let writers = self.writers.entry(leaf).or_default();
            writers.retain(|(old, _)| old.start < range.start || old.end > range.end);
            writers.push((range.clone(), at));
            self.touch(at, memory, &range, "writes", leaf);
            let owners = self.owners.entry(memory).or_default();
            let owned = owners.over(&range).next().is_some();
            owners.put(&range, Some(Owner::Buffer(leaf)));
            if memory == Memory::State {
                self.needed[at] = true;
                self.require_at(at, FaultKind::State, in_tail, || format!("the body writes {leaf} of the state"));
                self.require_at(at, FaultKind::State, !owned, || format!("updates {leaf} of the state twice"));
            }
        }
    }

    /// Bytes are about to change: nobody else may have them.
    fn touch(&mut self, at: usize, memory: Memory, range: &Range<u64>, verb: &str, what: impl Display) {
        let peer = self.owners.entry(memory).or_default().over(range).find_map(|(_, owner)| match owner {
            Owner::Peer(channel) => Some(channel),
            Owner::Buffer(_) => None,
        });
        if let Some(channel) = peer {
            let message = || format!("{verb} {what}, whose bytes are the sender's from `grant {channel}` to its wait");
            self.faults.at(FaultKind::Lent, self.index, Some(at), message);
        }
        if let Some((_, (_, channel))) = self.lent.entry(memory).or_default().over(range).next() {
            let message = || format!("{verb} {what}, whose bytes may not have been taken before `sent {channel}`");
            self.faults.at(FaultKind::Lent, self.index, Some(at), message);
        }
    }

    fn place(&self, at: usize) -> Place {
        Place { device: self.index, instruction: at }
    }

    fn region(&self, id: BufferId) -> (Memory, Range<u64>) {
        (self.device.buffers[id].memory, self.device.buffers[id].range())
    }

    /// From here on the bytes of the slot are the sender's.
    fn grant(&mut self, at: usize, channel: ChannelId, slot: BufferId) {
        if self.device.buffers.get(slot).is_none() {
            return; // The wait says so.
        }
        let (memory, range) = self.region(slot);
        self.touch(at, memory, &range, "grants", slot);
        self.owners.entry(memory).or_default().put(&range, Some(Owner::Peer(channel)));
    }

    fn wait(&mut self, at: usize, channel: ChannelId, buffer: BufferId, in_tail: bool) {
        if self.between.get(&channel).is_some_and(|b| b.wait == self.place(at)) {
            let (memory, range) = self.region(buffer);
            let owners = self.owners.entry(memory).or_default();
            owners.change(&range, |owner| owner.filter(|owner| *owner != Owner::Peer(channel)));
        }
        self.write(at, buffer, in_tail);
    }

    fn post(&mut self, at: usize, channel: ChannelId, buffer: BufferId) {
        self.read(at, buffer);
        if self.between.get(&channel).is_some_and(|b| b.post == self.place(at)) {
            let (memory, range) = self.region(buffer);
            let by_one_more = |lent: Option<(u32, _)>| Some((lent.map_or(0, |(n, _)| n).saturating_add(1), channel));
            self.lent.entry(memory).or_default().change(&range, by_one_more);
        }
    }

    fn sent(&mut self, at: usize, channel: ChannelId) {
        let Some(b) = self.between.get(&channel).filter(|b| b.sent == self.place(at)) else { return };
        let posted = self.device.instructions.get(b.post.instruction);
        let Some(Instruction::Post { buffer, .. }) = posted else { return };
        if self.device.buffers.get(*buffer).is_some() {
            let (memory, range) = self.region(*buffer);
            let by_one_less = |lent: Option<(u32, _)>| lent.filter(|(n, _)| *n > 1).map(|(n, by)| (n - 1, by));
            self.lent.entry(memory).or_default().change(&range, by_one_less);
        }
    }
}

/// Whether a tensor of one type is, byte for byte, one of the other: shapes may differ.
fn alike(a: &BufferType, b: &BufferType) -> bool {
    a.dtype == b.dtype && a.checked_len().is_some() && a.checked_len() == b.checked_len()
}

/// Whether there is a byte in both; an empty range has none.
fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start.max(b.start) < a.end.min(b.end)
}
