//! The memory of one device, twice: in bytes, where a buffer is what lies at its address, and by name, where every buffer
//! has a place of its own and old state lies apart from new. By name is what the plan means; in bytes is what a device
//! does. Whenever something is read, the two have to agree.

use std::collections::HashMap;
use std::ops::Range;

use super::bytes::{Bytes, Run, join, name, provenance};
use super::harm::{Happened, HarmKind};
use super::kernels::Kernels;
use crate::kernel::{BufferType, Kernel};
use crate::plan::{BufferId, DevicePlan, Launch, Memory, Plan};

pub(super) struct Machine<'a> {
    plan: &'a Plan,
    part: &'a DevicePlan,
    kernels: &'a Kernels,
    arenas: [Bytes; 3],
    named: HashMap<BufferId, Bytes>,
    /// State by name, when the step began and with its updates.
    old: Bytes,
    new: Bytes,
    /// Which bytes of the state have been updated in this step.
    updated: Bytes,
    in_tail: bool,
    /// Who wrote those that have no bytes.
    empty: HashMap<BufferId, u32>,
    /// Of instructions that compute: whether anybody used what they made.
    pub(super) used: Vec<bool>,
}

/// A launch between its begin and its end.
pub(super) struct Running {
    reads: Vec<Vec<Run>>,
}

fn malformed<T>(message: String) -> Result<T, Happened> {
    Err((HarmKind::Malformed, message))
}

impl<'a> Machine<'a> {
    pub(super) fn new(plan: &'a Plan, part: &'a DevicePlan, kernels: &'a Kernels, state: u64) -> Self {
        let mut old = Bytes::default();
        old.put(0, &[Run { len: part.state_bytes, value: state, first: 0, writer: None }]);
        let (arenas, used) = ([old.clone(), Bytes::default(), Bytes::default()], vec![false; part.instructions.len()]);
        let (named, new, updated, empty) = (HashMap::new(), old.clone(), Bytes::default(), HashMap::new());
        Self { plan, part, kernels, arenas, named, old, new, updated, in_tail: false, empty, used }
    }

    /// The bytes of a type, where it has a number of them.
    fn size(ty: &BufferType) -> Option<u64> {
        ty.checked_len()?.checked_mul(ty.dtype.size_bytes() as u64)
    }

    /// Where a buffer lies.
    pub(super) fn locate(&self, id: BufferId) -> Result<(Memory, Range<u64>), Happened> {
        let Some(buffer) = self.part.buffers.get(id) else { return malformed(format!("there is no {id}")) };
        let end = Self::size(&buffer.ty).and_then(|size| buffer.offset.checked_add(size));
        let aligned = buffer.offset % buffer.ty.dtype.size_bytes() as u64 == 0;
        match end.filter(|end| aligned && *end <= self.part.bytes(buffer.memory)) {
            Some(end) => Ok((buffer.memory, buffer.offset..end)),
            None => malformed(format!("{id} is not aligned or leaves its arena")),
        }
    }

    /// The buffers of their own that a buffer is made of, and which of their bytes.
    fn parts(&self, id: BufferId) -> Result<Vec<(BufferId, Range<u64>)>, Happened> {
        let (_, range) = self.locate(id)?;
        let buffer = &self.part.buffers[id];
        if buffer.pieces.is_empty() {
            return Ok(vec![(id, 0..range.end - range.start)]);
        }
        let element = buffer.ty.dtype.size_bytes() as u64;
        let mut left = range.end - range.start;
        let mut parts = Vec::new();
        for piece in &buffer.pieces {
            let (_, of) = self.locate(piece.buffer)?;
            let part = (piece.start.checked_mul(element).zip(piece.end.checked_mul(element))).map(|(a, b)| a..b);
            let part = part.filter(|p| p.start <= p.end && p.end <= of.end - of.start && p.end - p.start <= left);
            let whole = self.part.buffers[piece.buffer].pieces.is_empty();
            let Some(part) = part.filter(|_| whole) else { return malformed(format!("{piece} is no piece of {id}")) };
            left -= part.end - part.start;
            parts.push((piece.buffer, part));
        }
        if left > 0 { malformed(format!("the pieces of {id} do not fill it")) } else { Ok(parts) }
    }

    fn arena(&mut self, memory: Memory) -> &mut Bytes {
        &mut self.arenas[memory as usize]
    }

    /// What a buffer holds, by name; in bytes it has to be the same.
    pub(super) fn read(&mut self, id: BufferId) -> Result<Vec<Run>, Happened> {
        let (memory, range) = self.locate(id)?;
        let mut meant = Vec::new();
        for (part, bytes) in self.parts(id)? {
            let of = &self.part.buffers[part];
            let runs = match of.memory {
                Memory::State => self.old.get(&(of.offset + bytes.start..of.offset + bytes.end)),
                _ if bytes.is_empty() => {
                    self.empty.get(&part).into_iter().for_each(|writer| self.used[*writer as usize] = true);
                    Ok(vec![])
                }
                _ => self.named.get(&part).map_or(Err(0), |own| own.get(&bytes)),
            };
            let Ok(runs) = runs else {
                return Err((HarmKind::Poison, format!("{id} is read, and {part} has not been written in this step")));
            };
            runs.into_iter().for_each(|run| join(&mut meant, run));
        }
        for writer in meant.iter().filter_map(|run| run.writer) {
            self.used[writer as usize] = true;
        }
        self.check(id, memory, &range, &meant)?;
        Ok(meant)
    }

    /// Whether bytes hold what they are meant to.
    pub(super) fn check(
        &mut self,
        id: BufferId,
        memory: Memory,
        range: &Range<u64>,
        meant: &[Run],
    ) -> Result<(), Happened> {
        match self.arena(memory).get(range) {
            Ok(found) if found == meant => Ok(()),
            Ok(_) => Err((HarmKind::Overwritten, format!("{id} is read, and its bytes hold another value"))),
            Err(at) => {
                let memory = memory.name();
                Err((HarmKind::Poison, format!("{id} is read, and byte {at} of the {memory} arena holds nothing")))
            }
        }
    }

    /// Writes a buffer, in bytes and by name.
    fn write(&mut self, id: BufferId, runs: &[Run]) -> Result<(), Happened> {
        let (memory, range) = self.locate(id)?;
        self.arena(memory).put(range.start, runs);
        self.write_named(id, runs)
    }

    /// Writes a buffer by name: its bytes have been written by somebody else.
    pub(super) fn write_named(&mut self, id: BufferId, runs: &[Run]) -> Result<(), Happened> {
        let maker = runs.first().and_then(|run| run.writer);
        let mut value = Bytes::default();
        value.put(0, runs);
        let mut at = 0;
        for (part, bytes) in self.parts(id)? {
            let size = bytes.end - bytes.start;
            let runs =
                value.get(&(at..at + size)).map_err(|_| (HarmKind::Malformed, format!("{id} is written in part")))?;
            at += size;
            let of = &self.part.buffers[part];
            if let (0, Some(writer)) = (size, maker) {
                let state = of.memory == Memory::State;
                self.used[writer as usize] |= state;
                self.empty.insert(part, writer);
                continue;
            }
            if of.memory != Memory::State {
                self.named.entry(part).or_default().put(bytes.start, &runs);
                continue;
            }
            let place = of.offset + bytes.start..of.offset + bytes.end;
            if !self.in_tail {
                return Err((HarmKind::State, format!("the body writes {part} of the state")));
            }
            if self.updated.holds_any(&place) {
                return Err((HarmKind::State, format!("{part} of the state is updated twice")));
            }
            self.updated.put(place.start, &runs);
            self.new.put(place.start, &runs);
            for writer in runs.iter().filter_map(|run| run.writer) {
                self.used[writer as usize] = true;
            }
        }
        Ok(())
    }

    /// Bytes become poison; by name nothing changes.
    pub(super) fn wipe(&mut self, id: BufferId) -> Result<(), Happened> {
        let (memory, range) = self.locate(id)?;
        self.arena(memory).wipe(&range);
        Ok(())
    }

    /// Somebody else writes a slot.
    pub(super) fn land(&mut self, id: BufferId, runs: &[Run]) -> Result<(), Happened> {
        let (memory, range) = self.locate(id)?;
        // Whoever made it did so elsewhere.
        let runs: Vec<Run> = runs.iter().map(|run| Run { writer: None, ..*run }).collect();
        self.arena(memory).put(range.start, &runs);
        Ok(())
    }

    /// Writes what the driver feeds.
    pub(super) fn feed(&mut self, id: BufferId, value: u64, first: u64) -> Result<(), Happened> {
        let (_, range) = self.locate(id)?;
        self.write(id, &[Run { len: range.end - range.start, value, first, writer: None }])
    }

    /// Whether a buffer can hold `ty`.
    pub(super) fn fits(&self, id: BufferId, ty: &BufferType) -> Result<(), Happened> {
        let (_, range) = self.locate(id)?;
        let holds = &self.part.buffers[id].ty;
        let same = holds.dtype == ty.dtype && Self::size(ty) == Some(range.end - range.start);
        if same { Ok(()) } else { malformed(format!("{id} holds {holds} and is used as {ty}")) }
    }

    pub(super) fn copy(&mut self, at: usize, from: BufferId, to: BufferId) -> Result<u64, Happened> {
        let ty = self.part.buffers.get(from).map(|b| b.ty.clone());
        let Some(ty) = ty else { return malformed(format!("there is no {from}")) };
        self.fits(to, &ty)?;
        let ((m, a), (n, b)) = (self.locate(from)?, self.locate(to)?);
        if m == n && overlap(&a, &b) {
            return malformed(format!("{from} is copied over itself"));
        }
        let mut runs = self.read(from)?;
        if runs.is_empty() {
            runs.push(Run { len: 0, value: 0, first: 0, writer: None });
        }
        runs.iter_mut().for_each(|run| run.writer = Some(at as u32));
        self.write(to, &runs)?;
        Ok(a.end - a.start)
    }

    /// A launch begins: what it reads has to be there; what it will write, and works in, is anything from now on.
    pub(super) fn begin(&mut self, launch: &Launch) -> Result<Running, Happened> {
        let Some(kernel) = self.plan.kernels.get(launch.kernel) else {
            return malformed(format!("there is no kernel {}", launch.kernel));
        };
        let sides = [(&launch.reads, kernel.operands()), (&launch.writes, kernel.results())];
        for (ids, types) in sides {
            if ids.len() != types.len() {
                return malformed(format!("{} buffers for {} of the kernel", ids.len(), types.len()));
            }
            ids.iter().zip(types).try_for_each(|(id, ty)| self.fits(*id, ty))?;
        }
        let work = launch.workspace.0..launch.workspace.0.saturating_add(launch.workspace.1);
        if work.end > self.part.scratch_bytes {
            return malformed("the workspace leaves the arena".into());
        }
        let reads = launch.reads.iter().map(|id| self.read(*id)).collect::<Result<Vec<_>, _>>()?;
        self.at_once(kernel, launch, &work)?;
        self.arena(Memory::Scratch).wipe(&work);
        for id in &launch.writes {
            let (memory, range) = self.locate(*id)?;
            let mut over = launch.reads.iter().map(|read| self.locate(*read));
            let is_read = over.any(|place| place.is_ok_and(|(m, r)| m == memory && overlap(&r, &range)));
            // State is written at the end, and judged then.
            if !is_read && memory != Memory::State {
                self.arena(memory).wipe(&range);
            }
        }
        Ok(Running { reads })
    }

    /// What a launch uses at the same time lies apart, but where its kernel writes in place.
    fn at_once(&self, kernel: &Kernel, launch: &Launch, work: &Range<u64>) -> Result<(), Happened> {
        let mut places = Vec::new();
        for id in launch.reads.iter().chain(&launch.writes) {
            places.push((*id, self.locate(*id)?));
        }
        let (reads, writes) = places.split_at(launch.reads.len());
        let clash = |a: BufferId, what: String| Err((HarmKind::Overwritten, format!("{a} shares bytes with {what}")));
        for (id, (memory, range)) in &places {
            if *memory == Memory::Scratch && overlap(range, work) {
                return clash(*id, "the workspace".into());
            }
        }
        for (w, (to, (memory, range))) in writes.iter().enumerate() {
            for (r, (from, (m, other))) in reads.iter().enumerate() {
                let shared = m == memory && overlap(range, other);
                if shared && !(range == other && self.kernels.in_place(launch.kernel, kernel, w, r)) {
                    return clash(*to, format!("{from}, which is read otherwise than where {to} is written"));
                }
            }
            for (other, (m, place)) in &writes[..w] {
                if m == memory && overlap(range, place) {
                    return clash(*to, format!("{other}, which is written too"));
                }
            }
        }
        Ok(())
    }

    /// A launch ends: what it has read was there all along, and what it writes is made of that.
    pub(super) fn end(&mut self, at: usize, launch: &Launch, running: &Running) -> Result<(), Happened> {
        for (id, meant) in launch.reads.iter().zip(&running.reads) {
            let (memory, range) = self.locate(*id)?;
            self.check(*id, memory, &range, meant)?;
        }
        let operands: Vec<u64> = running.reads.iter().map(|runs| provenance(runs)).collect();
        for (result, id) in launch.writes.iter().enumerate() {
            let (_, range) = self.locate(*id)?;
            let value = name((self.kernels.name(launch.kernel), &operands, result));
            self.write(*id, &[Run { len: range.end - range.start, value, first: 0, writer: Some(at as u32) }])?;
        }
        Ok(())
    }

    pub(super) fn commit(&mut self) -> Result<(), Happened> {
        if std::mem::replace(&mut self.in_tail, true) {
            return Err((HarmKind::State, "a second commit".into()));
        }
        Ok(())
    }
    pub(super) fn in_tail(&self) -> bool {
        self.in_tail
    }

    /// The step ends: state is what its updates say. Gives its name; nothing else is there any more, by name.
    pub(super) fn step_ends(&mut self) -> Result<u64, Happened> {
        let all = 0..self.part.state_bytes;
        let (is, meant) = (self.arenas[Memory::State as usize].get(&all), self.new.get(&all));
        let (Ok(is), Ok(meant)) = (is, meant) else {
            return Err((HarmKind::Poison, "some state holds nothing when the step ends".into()));
        };
        if is != meant {
            return Err((HarmKind::Overwritten, "state is not what its updates say".into()));
        }
        // Who made it is of no interest to the next step.
        let kept: Vec<Run> = meant.iter().map(|run| Run { writer: None, ..*run }).collect();
        self.old = Bytes::default();
        self.old.put(0, &kept);
        (self.new, self.updated, self.in_tail) = (self.old.clone(), Bytes::default(), false);
        self.named.clear();
        Ok(provenance(&meant))
    }
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end && !a.is_empty() && !b.is_empty()
}
