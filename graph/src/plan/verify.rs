//! What a sound plan is, byte by byte: every id exists, every buffer lies inside its arena, every launch gets what its
//! kernel asks for, every byte is written before it is read and read before something else is written over it, nothing
//! is computed for nobody, the body leaves state alone, and no old value is read after its update.
//!
//! Nothing is taken on trust, for a plan may come from a stranger: a fact that one check relies on has been checked
//! before, no number of the plan sizes an allocation, and the list of faults is cut off. What it cannot see is whether
//! this is the plan of *that* graph: a sound plan of another program passes. That is what the hash is for.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{BufferId, ChannelId, DevicePlan, Endpoint, Instruction, Launch, Memory, Plan};
use crate::kernel::{BufferType, Kernel};

/// More faults than these are not listed: a plan of one mistake can have as many as it has instructions.
const MOST_FAULTS: usize = 100;
/// No arena is larger, so that addresses fit an i64 (and a pointer) with room to spare.
const MAX_ARENA: u64 = 1 << 48;

pub(super) fn verify(plan: &Plan) -> Vec<String> {
    let mut faults = Vec::new();
    let mut sound = Vec::with_capacity(plan.kernels.len());
    for (id, kernel) in plan.kernels.iter() {
        let list = kernel.verify();
        sound.push(list.is_empty());
        let room = MOST_FAULTS.saturating_sub(faults.len());
        faults.extend(list.into_iter().take(room).map(|f| format!("kernel {id}: {f}")));
    }
    if plan.devices.len() > usize::from(u16::MAX) {
        faults.push(format!("{} devices are more than can be numbered", plan.devices.len()));
        return faults;
    }
    let mut ends: Vec<Vec<ChannelId>> = vec![vec![]; plan.devices.len()];
    for (id, channel) in plan.channels.iter() {
        let mut exists = channel.from != channel.to;
        for end in [channel.from, channel.to] {
            let Endpoint::Device(device) = end else { continue };
            match ends.get_mut(usize::from(device)) {
                Some(list) => list.push(id),
                None => exists = false,
            }
        }
        if !exists && faults.len() < MOST_FAULTS {
            faults.push(format!("channel {id} does not join two ends that exist"));
        }
    }
    for (index, (device, ends)) in plan.devices.iter().zip(&ends).enumerate() {
        let mut check = Check::new(plan, &sound, device, index as u16);
        if check.buffers() {
            check.walk();
            check.channels(ends);
        }
        let room = MOST_FAULTS.saturating_sub(faults.len());
        faults.extend(check.faults.into_iter().take(room).map(|f| format!("{}: {f}", device.device)));
    }
    faults
}

/// Whose bytes these are now, by first byte: end and owner. Spans are never empty and never overlap.
type Owners = BTreeMap<u64, (u64, BufferId)>;

struct Check<'a> {
    plan: &'a Plan,
    /// Which kernels have passed.
    sound: &'a [bool],
    device: &'a DevicePlan,
    me: Endpoint,
    /// Of state, those bytes are owned that have been updated.
    owners: BTreeMap<Memory, Owners>,
    /// Which instructions wrote the bytes of a buffer last.
    writers: BTreeMap<BufferId, Vec<(Range<u64>, usize)>>,
    /// Whether anybody needs what an instruction writes.
    needed: Vec<bool>,
    faults: Vec<String>,
}

impl<'a> Check<'a> {
    fn new(plan: &'a Plan, sound: &'a [bool], device: &'a DevicePlan, index: u16) -> Self {
        let (owners, writers) = (BTreeMap::new(), BTreeMap::new());
        let needed = vec![false; device.instructions.len()];
        Self { plan, sound, device, me: Endpoint::Device(index), owners, writers, needed, faults: vec![] }
    }

    fn require(&mut self, holds: bool, otherwise: impl FnOnce() -> String) -> bool {
        if !holds && self.faults.len() < MOST_FAULTS {
            self.faults.push(otherwise());
        }
        holds
    }

    /// Checks arenas and buffers. All that follows relies on it: ranges are exact and pieces have no pieces.
    fn buffers(&mut self) -> bool {
        let device = self.device;
        for memory in Memory::ALL {
            let bytes = device.bytes(memory);
            self.require(bytes <= MAX_ARENA, || format!("the {} arena has {bytes} bytes", memory.name()));
        }
        for (id, buffer) in device.buffers.iter() {
            let element = buffer.ty.dtype.size_bytes() as u64;
            let bytes = buffer.ty.checked_len().and_then(|n| n.checked_mul(element));
            let end = bytes.and_then(|b| buffer.offset.checked_add(b));
            let inside = end.is_some_and(|end| end <= device.bytes(buffer.memory)) && buffer.offset % element == 0;
            self.require(inside, || format!("buffer {id} leaves its arena"));
            if buffer.pieces.is_empty() {
                continue;
            }
            let mut next = buffer.offset;
            for piece in &buffer.pieces {
                let of = device.buffers.get(piece.buffer);
                if !self.require(of.is_some(), || format!("buffer {id} is made of {piece}, which is not there")) {
                    continue;
                }
                let fits = of.is_some_and(|of| {
                    let alike = of.memory == buffer.memory && of.ty.dtype == buffer.ty.dtype && of.pieces.is_empty();
                    let inside = piece.start <= piece.end && of.ty.checked_len().is_some_and(|n| piece.end <= n);
                    alike && inside && of.piece(piece).start == next
                });
                if !self.require(fits, || format!("buffer {id}: {piece} does not lie end to end with the rest")) {
                    break;
                }
                next = of.map_or(next, |of| of.piece(piece).end);
            }
            self.require(next == buffer.range().end, || format!("buffer {id}: its pieces do not fill it"));
        }
        self.faults.is_empty()
    }

    fn walk(&mut self) {
        let device = self.device;
        let mut in_tail = false;
        for (at, instruction) in device.instructions.iter().enumerate() {
            match instruction {
                Instruction::Launch(launch) => self.launch(at, launch, in_tail),
                Instruction::Copy { from, to } => self.copy(at, *from, *to, in_tail),
                Instruction::Wait { channel, buffer } | Instruction::Post { channel, buffer } => {
                    self.require(!in_tail, || format!("{at}: a channel in the tail"));
                    if !self.known(at, &[*buffer]) {
                        continue;
                    }
                    let ch = self.plan.channels.get(*channel);
                    if !self.require(ch.is_some(), || format!("{at}: there is no channel {channel}")) {
                        continue;
                    }
                    let ty = &device.buffers[*buffer].ty;
                    self.require(ch.is_some_and(|ch| alike(&ch.ty, ty)), || {
                        format!("{at}: channel {channel} does not carry what {buffer} holds, {ty}")
                    });
                    match instruction {
                        Instruction::Wait { .. } => self.write(at, *buffer, in_tail),
                        _ => self.read(at, *buffer),
                    }
                }
                Instruction::Grant(channel) | Instruction::Sent(channel) => {
                    let receives = matches!(instruction, Instruction::Grant(_));
                    let end = self.plan.channels.get(*channel).map(|ch| if receives { ch.to } else { ch.from });
                    self.require(end == Some(self.me), || {
                        format!(
                            "{at}: {channel} is no channel that {} here",
                            if receives { "arrives" } else { "leaves" }
                        )
                    });
                }
                Instruction::Snapshot => {}
                Instruction::Commit => {
                    self.require(!in_tail, || format!("{at}: a second commit"));
                    in_tail = true;
                }
            }
        }
        for (at, instruction) in device.instructions.iter().enumerate() {
            let computes = matches!(instruction, Instruction::Launch(_) | Instruction::Copy { .. });
            self.require(!computes || self.needed[at], || format!("{at}: nobody reads what it writes"));
        }
    }

    fn known(&mut self, at: usize, ids: &[BufferId]) -> bool {
        let missing = ids.iter().find(|b| self.device.buffers.get(**b).is_none()).copied();
        self.require(missing.is_none(), || format!("{at}: there is no buffer {}", missing.unwrap_or(BufferId(0))))
    }

    fn copy(&mut self, at: usize, from: BufferId, to: BufferId, in_tail: bool) {
        if !self.known(at, &[from, to]) {
            return;
        }
        let (a, b) = (&self.device.buffers[from], &self.device.buffers[to]);
        self.require(alike(&a.ty, &b.ty), || format!("{at}: copies {} to {}", a.ty, b.ty));
        let clash = a.memory == b.memory && overlap(&a.range(), &b.range());
        self.require(!clash, || format!("{at}: copies {from} over itself"));
        self.read(at, from);
        self.write(at, to, in_tail);
    }

    fn launch(&mut self, at: usize, launch: &Launch, in_tail: bool) {
        let Some(kernel) = self.plan.kernels.get(launch.kernel) else {
            self.require(false, || format!("{at}: there is no kernel {}", launch.kernel));
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
        if !self
            .require(typed, || format!("{at}: `{}` does not get what kernel {} asks for", launch.label, launch.kernel))
        {
            return;
        }
        launch.reads.iter().for_each(|b| self.read(at, *b));
        let sound = self.sound[launch.kernel.0 as usize];
        self.clashes(at, launch, sound.then_some(kernel));
        let workspace = launch.workspace.0..launch.workspace.0.saturating_add(launch.workspace.1);
        self.take(Memory::Scratch, workspace, None);
        launch.writes.iter().for_each(|b| self.write(at, *b, in_tail));
    }

    /// What a launch uses at once must not share bytes, but where its kernel may write in place. Nothing is asked of a
    /// kernel that is not sound: it has been reported.
    fn clashes(&mut self, at: usize, launch: &Launch, kernel: Option<&Kernel>) {
        let (buffers, label) = (&self.device.buffers, &launch.label);
        let (offset, bytes) = launch.workspace;
        let workspace = offset..offset.saturating_add(bytes);
        self.require(workspace.end <= self.device.scratch_bytes, || {
            format!("{at}: workspace of `{label}` leaves the scratch arena")
        });
        let works_over =
            |id: &BufferId| buffers[*id].memory == Memory::Scratch && overlap(&workspace, &buffers[*id].range());
        let shared = |a: &BufferId, b: &BufferId| {
            let (a, b) = (&buffers[*a], &buffers[*b]);
            a.memory == b.memory && overlap(&a.range(), &b.range())
        };
        for id in launch.reads.iter().chain(&launch.writes) {
            self.require(!works_over(id), || format!("{at}: `{label}` works over {id} while it uses it"));
        }
        for (w, to) in launch.writes.iter().enumerate() {
            for (r, from) in launch.reads.iter().enumerate().filter(|(_, from)| shared(from, to)) {
                let in_place = buffers[*from].range() == buffers[*to].range()
                    && kernel.is_none_or(|kernel| kernel.may_write_in_place(w, r));
                self.require(in_place, || format!("{at}: `{label}` writes {to} over {from} while reading it"));
            }
            for other in launch.writes[..w].iter().filter(|other| shared(other, to)) {
                self.require(false, || format!("{at}: `{label}` writes {other} and {to} to one place"));
            }
        }
    }

    /// Bytes pass to a new owner (or to nobody). Gives whether anybody owned any of them.
    fn take(&mut self, memory: Memory, range: Range<u64>, owner: Option<BufferId>) -> bool {
        if range.is_empty() {
            return false;
        }
        let owners = self.owners.entry(memory).or_default();
        let hit: Vec<_> = spans(owners, &range).map(|(s, (e, o))| (*s, *e, *o)).collect();
        for (start, end, old) in &hit {
            owners.remove(start);
            if *start < range.start {
                owners.insert(*start, (range.start, *old));
            }
            if *end > range.end {
                owners.insert(range.end, (*end, *old));
            }
        }
        if let Some(owner) = owner {
            owners.insert(range.start, (range.end, owner));
        }
        !hit.is_empty()
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
                let fresh = spans(owners, &range).next().is_none();
                self.require(fresh, || format!("{at}: reads {leaf} of the state after its update"));
                continue;
            }
            // From the last span to the first: each has to reach to where the one behind it begins.
            let mut begin = range.end;
            for (start, (end, owner)) in spans(owners, &range) {
                if *owner != leaf || *end < begin {
                    break;
                }
                begin = *start;
            }
            self.require(begin <= range.start || range.is_empty(), || {
                format!("{at}: reads {leaf}, which is not whole there: never written, or written over")
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
            let owned = self.take(memory, range, Some(leaf));
            if memory == Memory::State {
                self.needed[at] = true;
                self.require(in_tail, || format!("{at}: the body writes {leaf} of the state"));
                self.require(!owned, || format!("{at}: updates {leaf} of the state twice"));
            }
        }
    }

    /// Every channel of this device is used once, at the right end.
    fn channels(&mut self, ends: &[ChannelId]) {
        let mut uses: BTreeMap<ChannelId, (usize, usize)> = ends.iter().map(|id| (*id, (0, 0))).collect();
        for instruction in &self.device.instructions {
            match instruction {
                Instruction::Wait { channel, .. } => uses.entry(*channel).or_default().0 += 1,
                Instruction::Post { channel, .. } => uses.entry(*channel).or_default().1 += 1,
                _ => {}
            }
        }
        for (id, (waits, posts)) in uses {
            let Some(channel) = self.plan.channels.get(id) else { continue };
            let want = (usize::from(channel.to == self.me), usize::from(channel.from == self.me));
            self.require((waits, posts) == want, || {
                format!("channel {id} ({}) is waited for {waits} times and posted {posts} times here", channel.label)
            });
        }
    }
}

/// The spans that share bytes with `range`.
fn spans<'o>(owners: &'o Owners, range: &Range<u64>) -> impl Iterator<Item = (&'o u64, &'o (u64, BufferId))> {
    let start = if range.is_empty() { u64::MAX } else { range.start };
    owners.range(..range.end).rev().take_while(move |(_, (end, _))| *end > start)
}

/// Whether a tensor of one type is, byte for byte, one of the other: shapes may differ.
fn alike(a: &BufferType, b: &BufferType) -> bool {
    a.dtype == b.dtype && a.checked_len().is_some() && a.checked_len() == b.checked_len()
}

/// Whether there is a byte in both; an empty range has none.
fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start.max(b.start) < a.end.min(b.end)
}
