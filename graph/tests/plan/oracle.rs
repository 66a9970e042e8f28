//! A tiny symbolic executor of plans: the judge over `Plan::verify`, with which it shares no code. It does not look for
//! faults but runs the plan three times and compares: *by name*, with a memory of its own for each buffer and old state
//! apart from new, which is what the plan means; and in real bytes, with the points of each launch going up and going
//! down, which is what a device may do. A value is the hash of everything it came from. A plan is harmful if one of the
//! runs touches poison, leaves an arena, waits for what never comes or breaks the rules of state, or if they disagree.

#![allow(unreachable_pub)] // A module of a test.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{Hash, Hasher};

use thalweg_graph::kernel::{Affine, Axis, Coord, Group, Kernel, LoopNest, Member, Passed};
use thalweg_graph::plan::{BufferId, ChannelId, DevicePlan, Endpoint, Instruction, Launch, Memory, Plan};

/// A byte: of which value, and which of its bytes. `None` is poison.
type Cell = Option<(u64, u8)>;

/// What a plan did: what it sent and what its state became.
#[derive(PartialEq, Debug)]
pub struct Outcome {
    sent: BTreeMap<u32, Vec<Cell>>,
    /// Only what is new.
    state: BTreeMap<usize, Cell>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    ByName,
    Up,
    Down,
}

/// What the plan does, or what harm.
pub fn judge(plan: &Plan) -> Result<Outcome, String> {
    let meant = Run::new(plan, Mode::ByName)?.run()?;
    for mode in [Mode::Up, Mode::Down] {
        if Run::new(plan, mode)?.run()? != meant {
            return Err("what it does is not what its names say".into());
        }
    }
    Ok(meant)
}

fn hash(of: impl Hash) -> u64 {
    let mut to = DefaultHasher::new();
    of.hash(&mut to);
    to.finish()
}

/// What a byte of the state holds before the step.
fn old(byte: usize) -> Cell {
    Some((hash(("state", byte)), 0))
}

/// Memory by its name: an arena or, in runs by name, one buffer.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Region {
    Arena(Memory),
    NewState,
    Own(BufferId),
}

struct Run<'a> {
    plan: &'a Plan,
    device: &'a DevicePlan,
    mode: Mode,
    memory: HashMap<Region, Vec<Cell>>,
    in_tail: bool,
    /// What must not be written again: by this instruction or, of state, in this step.
    written: HashSet<(Region, u64)>,
    waits: BTreeMap<u32, usize>,
    sent: BTreeMap<u32, Vec<Cell>>,
}

impl<'a> Run<'a> {
    fn new(plan: &'a Plan, mode: Mode) -> Result<Self, String> {
        let [device] = &plan.devices[..] else { return Err("not one device".into()) };
        let mut memory = HashMap::new();
        for arena in Memory::ALL {
            memory.insert(Region::Arena(arena), vec![None; device.bytes(arena) as usize]);
        }
        let old: Vec<Cell> = (0..device.state_bytes as usize).map(old).collect();
        memory.insert(Region::Arena(Memory::State), old.clone());
        memory.insert(Region::NewState, old);
        let (written, waits, sent) = (HashSet::new(), BTreeMap::new(), BTreeMap::new());
        Ok(Self { plan, device, mode, memory, in_tail: false, written, waits, sent })
    }

    fn run(mut self) -> Result<Outcome, String> {
        for instruction in &self.device.instructions {
            self.written.retain(|(region, _)| [Region::NewState, Region::Arena(Memory::State)].contains(region));
            match instruction {
                Instruction::Launch(launch) => self.launch(launch)?,
                Instruction::Copy { from, to } => {
                    for (byte, cell) in self.bytes(*from)?.into_iter().enumerate() {
                        self.put(*to, byte as u64, cell)?;
                    }
                    self.same_size(*from, *to)?;
                }
                Instruction::Wait { channel, buffer } => {
                    let size = self.channel(*channel, *buffer, |c| c.to)?;
                    *self.waits.entry(channel.0).or_default() += 1;
                    for byte in 0..size {
                        self.put(*buffer, byte, Some((hash(("fed", channel.0, byte)), 0)))?;
                    }
                }
                Instruction::Post { channel, buffer } => {
                    self.channel(*channel, *buffer, |c| c.from)?;
                    let cells = self.bytes(*buffer)?;
                    if cells.iter().any(Option::is_none) {
                        return Err("sends poison".into());
                    }
                    if self.sent.insert(channel.0, cells).is_some() {
                        return Err("sends twice".into());
                    }
                }
                Instruction::Commit if self.in_tail => return Err("commits twice".into()),
                Instruction::Commit => self.in_tail = true,
                Instruction::Grant(_) | Instruction::Sent(_) | Instruction::Snapshot => {}
            }
        }
        for (id, channel) in self.plan.channels.iter() {
            let done = match channel.to {
                Endpoint::Driver => self.sent.contains_key(&id.0),
                Endpoint::Device(_) => self.waits.get(&id.0) == Some(&1),
            };
            if !done {
                return Err("hangs".into());
            }
        }
        let last = if self.mode == Mode::ByName { Region::NewState } else { Region::Arena(Memory::State) };
        let state = self.memory.remove(&last).expect("there is state").into_iter().enumerate();
        Ok(Outcome { sent: self.sent, state: state.filter(|(byte, cell)| *cell != old(*byte)).collect() })
    }

    /// Checks that the channel has this end here and carries what the buffer holds; gives its bytes.
    fn channel(
        &self,
        id: ChannelId,
        buffer: BufferId,
        end: fn(&thalweg_graph::plan::Channel) -> Endpoint,
    ) -> Result<u64, String> {
        let channel = self.plan.channels.get(id).ok_or("no such channel")?;
        let ty = &self.device.buffers.get(buffer).ok_or("no such buffer")?.ty;
        let fits = channel.ty.dtype == ty.dtype && channel.ty.size_bytes() == ty.size_bytes();
        if fits && end(channel) == Endpoint::Device(0) { Ok(ty.size_bytes()) } else { Err("a wrong channel".into()) }
    }

    fn same_size(&self, a: BufferId, b: BufferId) -> Result<(), String> {
        let (a, b) = (&self.device.buffers[a].ty, &self.device.buffers[b].ty);
        if a.size_bytes() == b.size_bytes() && a.dtype == b.dtype { Ok(()) } else { Err("copies another type".into()) }
    }

    /// Where byte `byte` of a buffer lies.
    fn locate(&self, id: BufferId, byte: u64, writes: bool) -> Result<(Region, u64), String> {
        let buffer = self.device.buffers.get(id).ok_or("no such buffer")?;
        if byte >= buffer.ty.size_bytes() || buffer.offset % buffer.ty.dtype.size_bytes() as u64 != 0 {
            return Err("beyond the buffer, or not aligned".into());
        }
        let address = buffer.offset + byte;
        let (region, index) = match (self.mode, buffer.memory) {
            (Mode::ByName, Memory::State) if writes => (Region::NewState, address),
            (Mode::ByName, Memory::Scratch | Memory::Staging) => {
                let mut left = byte;
                let element = buffer.ty.dtype.size_bytes() as u64;
                for piece in &buffer.pieces {
                    let of = self.device.buffers.get(piece.buffer).ok_or("no such buffer")?;
                    let size =
                        piece.end.checked_sub(piece.start).ok_or("a piece that ends before it starts")? * element;
                    if left < size {
                        let at = piece.start * element + left;
                        let inside = at < of.ty.size_bytes();
                        return inside.then_some((Region::Own(piece.buffer), at)).ok_or("beyond the piece".into());
                    }
                    left -= size;
                }
                if !buffer.pieces.is_empty() {
                    return Err("beyond the pieces".into());
                }
                return Ok((Region::Own(id), byte));
            }
            (_, memory) => (Region::Arena(memory), address),
        };
        if index < self.device.bytes(buffer.memory) { Ok((region, index)) } else { Err("leaves the arena".into()) }
    }

    fn get(&self, id: BufferId, byte: u64) -> Result<Cell, String> {
        let (region, index) = self.locate(id, byte, false)?;
        Ok(self.memory.get(&region).and_then(|cells| cells.get(index as usize)).copied().flatten())
    }

    fn put(&mut self, id: BufferId, byte: u64, cell: Cell) -> Result<(), String> {
        let (region, index) = self.locate(id, byte, true)?;
        if self.device.buffers[id].memory == Memory::State && !self.in_tail {
            return Err("the body writes state".into());
        }
        if !self.written.insert((region, index)) {
            return Err("writes a byte twice".into());
        }
        let cells = self.memory.entry(region).or_default();
        cells.resize(cells.len().max(index as usize + 1), None);
        cells[index as usize] = cell;
        Ok(())
    }

    fn bytes(&self, id: BufferId) -> Result<Vec<Cell>, String> {
        let size = self.device.buffers.get(id).ok_or("no such buffer")?.ty.size_bytes();
        (0..size).map(|byte| self.get(id, byte)).collect()
    }

    /// The provenance of one element.
    fn element(&self, id: BufferId, element: u64) -> Result<u64, String> {
        let size = self.device.buffers[id].ty.dtype.size_bytes() as u64;
        let cells = (0..size).map(|k| self.get(id, element * size + k)?.ok_or("reads poison".to_string()));
        Ok(hash(cells.collect::<Result<Vec<_>, _>>()?))
    }

    fn launch(&mut self, launch: &Launch) -> Result<(), String> {
        let kernel = self.plan.kernels.get(launch.kernel).ok_or("no such kernel")?;
        let typed = |ids: &[BufferId], types: &[thalweg_graph::kernel::BufferType]| {
            let same = |(id, ty): (&BufferId, &thalweg_graph::kernel::BufferType)| {
                self.device.buffers.get(*id).is_some_and(|b| b.ty.dtype == ty.dtype)
            };
            ids.len() == types.len() && ids.iter().zip(types).all(same)
        };
        if !typed(&launch.reads, kernel.operands()) || !typed(&launch.writes, kernel.results()) {
            return Err("operands of another type".into());
        }
        self.scribble(launch.workspace)?;
        match kernel {
            Kernel::Nest(nest) => self.nest(hash(kernel), nest, launch)?,
            Kernel::Group(group) => self.group(hash(kernel), group, launch)?,
            other => return Err(format!("the judge does not know {other}")),
        }
        self.scribble(launch.workspace)
    }

    /// `points` in the order of this mode.
    fn in_order<T>(&self, mut points: Vec<T>) -> Vec<T> {
        if self.mode == Mode::Down {
            points.reverse();
        }
        points
    }

    fn nest(&mut self, name: u64, nest: &LoopNest, launch: &Launch) -> Result<(), String> {
        let mut held = Vec::new();
        for at in self.in_order(points(&nest.axes[..nest.parallel_axes()])) {
            let read = |operand: usize, element| self.element(launch.reads[operand], element);
            let new = point(name, nest, &at, &read)?;
            let new = new.into_iter().map(|(result, element, value)| (launch.writes[result], element, value)).collect();
            // By name, all is read before anything is written.
            if self.mode == Mode::ByName { held.push(new) } else { self.store(new)? }
        }
        held.into_iter().try_for_each(|new| self.store(new))
    }

    /// Row by row, and in a row member by member: locals are nowhere in memory.
    fn group(&mut self, name: u64, group: &Group, launch: &Launch) -> Result<(), String> {
        let shared: Vec<Axis> = group.rows.iter().map(|extent| Axis::new(*extent, false)).collect();
        let mut locals: BTreeMap<(Passed, u64), u64> = BTreeMap::new();
        for row in self.in_order(points(&shared)) {
            for (m, Member { nest, reads, writes }) in group.members.iter().enumerate() {
                for rest in self.in_order(points(&nest.axes[shared.len()..nest.parallel_axes()])) {
                    let read = |operand: usize, element| match reads[operand] {
                        Passed::Operand(k) => self.element(launch.reads[usize::from(k)], element),
                        Passed::Result(k) => self.element(launch.writes[usize::from(k)], element),
                        local => locals.get(&(local, element)).copied().ok_or("reads a local unwritten".to_string()),
                    };
                    let new = point(hash((name, m)), nest, &[&row[..], &rest].concat(), &read)?;
                    for (result, element, value) in new {
                        match writes[result] {
                            Passed::Result(k) => self.store(vec![(launch.writes[usize::from(k)], element, value)])?,
                            local => drop(locals.insert((local, element), value)),
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn store(&mut self, new: Vec<(BufferId, u64, u64)>) -> Result<(), String> {
        for (id, element, value) in new {
            let size = self.device.buffers[id].ty.dtype.size_bytes() as u64;
            for k in 0..size {
                self.put(id, element * size + k, Some((value, k as u8)))?;
            }
        }
        Ok(())
    }

    /// A kernel leaves nothing of use in its workspace.
    fn scribble(&mut self, (offset, bytes): (u64, u64)) -> Result<(), String> {
        if bytes == 0 || self.mode == Mode::ByName {
            return Ok(());
        }
        let scratch = self.memory.get_mut(&Region::Arena(Memory::Scratch)).expect("there is scratch");
        let cells = scratch.get_mut(offset as usize..(offset + bytes) as usize).ok_or("works outside the arena")?;
        cells.fill(None);
        Ok(())
    }
}

/// What one point writes: result, element, provenance. `read` gives the provenance of an operand's element.
fn point(
    name: u64,
    nest: &LoopNest,
    point: &[i64],
    read: &dyn Fn(usize, u64) -> Result<u64, String>,
) -> Result<Vec<(usize, u64, u64)>, String> {
    let mut from = Vec::new();
    for folded in points(&nest.axes[nest.parallel_axes()..]) {
        let at = [point, &folded[..]].concat();
        for r in &nest.reads {
            let plain = |c: &Coord| match c {
                Coord::Affine(a) => a.clone(),
                other => unreachable!("the judge knows affine coordinates alone, not {other:?}"),
            };
            let coords: Vec<Affine> = r.coords.iter().map(plain).collect();
            from.push(match flat(&coords, &nest.operands[r.operand as usize].shape, &at) {
                Some(element) => read(r.operand as usize, element)?,
                None if r.fill.is_some() => 0,
                None => return Err("reads outside an operand".into()),
            });
        }
    }
    nest.writes
        .iter()
        .map(|write| {
            let shape = &nest.results[write.result as usize].shape;
            let element = flat(&write.coords, shape, point).ok_or("writes outside a result")?;
            Ok((write.result as usize, element, hash((name, write.result, point, &from))))
        })
        .collect()
}

/// Every point of some axes, in row-major order.
fn points(axes: &[Axis]) -> Vec<Vec<i64>> {
    axes.iter().fold(vec![vec![]], |points: Vec<Vec<i64>>, axis| {
        let next = |p: &Vec<i64>| (0..axis.extent as i64).map(|i| [&p[..], &[i]].concat()).collect::<Vec<_>>();
        points.iter().flat_map(next).collect()
    })
}

/// The row-major position of coordinates, if they are inside.
fn flat(coords: &[Affine], shape: &[u64], point: &[i64]) -> Option<u64> {
    coords.iter().zip(shape).try_fold(0u64, |sum, (c, extent)| {
        let at = u64::try_from(c.at(point)).ok().filter(|at| at < extent)?;
        Some(sum * extent + at)
    })
}
