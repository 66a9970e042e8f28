//! Lowering: graphs of primitives with all extents bound, one per device → a plan. Kernels become launches, relabelings
//! and constants disappear, updates move behind `commit` and are done in place, every buffer gets its offset.

mod fuse;
mod group;
mod limit;
mod offsets;
mod order;
mod rows;
mod state;
mod steps;
mod tail;

use std::collections::HashMap;
use std::sync::Arc;

use rayon::prelude::*;

pub use state::{Share, StateLayout, StateMap, StateSlot};

use rows::Span;

use crate::id::{Arena, Id};
use crate::ir::{Graph, Program, Site, VarId};
use crate::kernel::{BufferType, Kernel};
use crate::partition::{Levels, Partitioned};
use crate::plan::{Buffer, BufferId, ChannelId, DevicePlan, Instruction, KernelId, Launch, Memory, Piece, Plan};
use crate::types::Bindings;

/// What lowering asks of the device that it lowers for.
pub trait Target: Sync {
    /// The device's name in the plan.
    fn name(&self) -> Arc<str>;
    /// Scratch that `kernel` needs while it runs, in bytes.
    fn workspace_bytes(&self, kernel: &Kernel) -> u64;
    /// Whether a contraction costs it no more for what its epilogue does and reads; no device has to.
    fn runs_epilogues(&self) -> bool {
        false
    }
    /// Whether it runs [`Kernel::Group`]; no device has to.
    fn runs_groups(&self) -> bool {
        false
    }
    /// What one launch may be.
    fn limits(&self) -> LaunchLimits {
        LaunchLimits::default()
    }
}

/// What a launch may be. What is more becomes several, or is not fused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaunchLimits {
    /// Operands and results that it names.
    pub buffers: usize,
    /// Elements of a tensor that was put together from neighbours.
    pub elements: u64,
    /// Bytes of a row of what one member of a [`Kernel::Group`] reads of others.
    pub row_bytes: u64,
    /// Bytes of a row of all that passes between members, elements smaller than a word as words.
    pub group_bytes: u64,
}

impl Default for LaunchLimits {
    /// Any number of buffers and elements; a row has to fit a cache.
    fn default() -> Self {
        Self { buffers: usize::MAX, elements: u64::MAX, row_bytes: 256 << 10, group_bytes: u64::MAX }
    }
}

/// Why a graph has no plan.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LowerError {
    /// A named dimension has no value.
    #[error("`{label}` at {site} is {ty}: give every named dimension a value")]
    Unbound {
        /// Which node.
        label: String,
        /// Its line.
        site: Site,
        /// Its type.
        ty: String,
    },
    /// An op is neither a primitive nor structural.
    #[error("`{label}` at {site} is no primitive: expand composites first")]
    NotPrimitive {
        /// Which node.
        label: String,
        /// Its line.
        site: Site,
    },
    /// A strategy spreads a tensor along an axis that it has not.
    #[error("`{label}` at {site} has no such axis to be spread along: look at what the strategy says of it")]
    Axis {
        /// Which input or variable.
        label: String,
        /// Its line.
        site: Site,
    },
    /// A node reads a variable that is not there: the graph was not verified.
    #[error("there is no variable `{0}`")]
    NoVariable(Arc<str>),
    /// The op's kernel is wrong: a fault of the op, not of the model.
    #[error("the kernel of `{label}` at {site} is not sound: {}", faults.join("; "))]
    Kernel {
        /// Which node.
        label: String,
        /// Its line.
        site: Site,
        /// What is wrong.
        faults: Vec<String>,
    },
}

/// Where a tensor lies, before offsets are known. Several values share a root when one only relabels the other.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
struct Root(usize);

#[derive(Clone, Debug, PartialEq)]
enum Home {
    State(VarId),
    Staging,
    Scratch,
    /// Stretches of other places that lie end to end.
    Row(Vec<Span>),
    /// Neighbouring variables, from the first.
    StateRow(VarId),
}

#[derive(Clone, Debug)]
struct Place {
    ty: BufferType,
    home: Home,
}

#[derive(Clone, Debug)]
struct Step {
    /// When it is due: see [`Levels`](crate::partition::Levels).
    level: u32,
    kernel: Kernel,
    reads: Vec<Root>,
    writes: Vec<Root>,
    label: Arc<str>,
    site: Site,
}

/// What comes after `commit`, and what the body does last for its sake.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // Nearly all are launches.
enum Action {
    Launch(Step),
    Copy(Root, Root),
}

impl Action {
    fn reads(&self) -> &[Root] {
        match self {
            Action::Launch(step) => &step.reads,
            Action::Copy(from, _) => std::slice::from_ref(from),
        }
    }
    fn writes(&self) -> &[Root] {
        match self {
            Action::Launch(step) => &step.writes,
            Action::Copy(_, to) => std::slice::from_ref(to),
        }
    }
}

#[derive(Default, Debug)]
struct Places {
    places: Vec<Place>,
    neighbours: rows::Neighbours,
}

impl Places {
    fn add(&mut self, ty: BufferType, home: Home) -> Root {
        self.places.push(Place { ty, home });
        Root(self.places.len() - 1)
    }
    fn at(&self, root: Root) -> &Place {
        &self.places[root.0]
    }
    fn is_scratch(&self, root: Root) -> bool {
        self.at(root).home == Home::Scratch
    }
    fn variable(&self, root: Root) -> Option<VarId> {
        match self.at(root).home {
            Home::State(v) => Some(v),
            _ => None,
        }
    }
}

/// The plan of `program` on one device. `graph` holds primitives only and no named dimensions; `layout` is that of the
/// whole session.
pub fn lower(
    graph: &Graph,
    program: &Program,
    bindings: &Bindings,
    layout: &StateLayout,
    target: &dyn Target,
) -> Result<Plan, LowerError> {
    lower_devices(&Partitioned::single(graph, program)?, bindings, std::slice::from_ref(layout), &[target])
}

/// The plan of a program that was cut for several devices, each with its layout of variables and its target.
///
/// # Panics
/// If there are not as many layouts and targets as devices.
pub fn lower_devices(
    parts: &Partitioned,
    bindings: &Bindings,
    layouts: &[StateLayout],
    targets: &[&dyn Target],
) -> Result<Plan, LowerError> {
    assert!((layouts.len(), targets.len()) == (parts.devices.len(), parts.devices.len()), "one of each per device");
    let (levels, mut kernels) = (parts.levels(), Kernels::default());
    let own = |at: usize| {
        let mut own = Kernels::default();
        Ok((device(parts, at, &levels, &layouts[at], targets[at], &mut own)?, own))
    };
    let made: Vec<Result<_, LowerError>> = match parts.devices.len() {
        1 => vec![own(0)],
        n => (0..n).into_par_iter().map(own).collect(),
    };
    let mut devices = Vec::with_capacity(made.len());
    for part in made {
        let (mut part, own) = part?;
        let now: Vec<KernelId> = own.table.values().iter().map(|kernel| kernels.add(kernel)).collect();
        part.launches_mut().for_each(|launch| launch.kernel = now[launch.kernel.index()]);
        devices.push(part);
    }
    Ok(Plan {
        graph: parts.devices[0].graph.name.clone(),
        program: parts.program.clone(),
        bindings: bindings.clone(),
        kernels: kernels.table,
        channels: parts.channels.clone(),
        devices,
    })
}

/// The part of one device.
fn device(
    parts: &Partitioned,
    at: usize,
    levels: &Levels,
    layout: &StateLayout,
    target: &dyn Target,
    kernels: &mut Kernels,
) -> Result<DevicePlan, LowerError> {
    let part = &parts.devices[at];
    let mut lowered = steps::collect(&part.graph, &part.graph.programs[0], &levels.nodes[at])?;
    let limits = target.limits();
    let mut steps = limit::within(std::mem::take(&mut lowered.steps), &mut lowered.places, limits);
    // In the order in which things are due, on every device: so nobody waits for somebody who waits for him.
    steps.sort_by_key(|s| s.level);
    let leaves: Vec<(ChannelId, Root)> =
        part.leaves.iter().copied().zip(lowered.outputs.iter().map(|(_, root, _)| *root)).collect();
    // What others look at under another name stays as it is.
    let posted = leaves.iter().flat_map(|(_, root)| lowered.places.leaves(*root));
    let fetched = posted.chain(lowered.places.aliased()).chain(leaves.iter().map(|(_, r)| *r)).collect();
    let updates = lowered.updates.iter().map(|(_, root)| *root).collect();
    let kept = fuse::Kept { places: &lowered.places, fetched: &fetched, updates: &updates, limits };
    let mut steps = fuse::producers(steps, kept);
    if target.runs_epilogues() {
        steps = fuse::epilogues(steps, kept);
    }
    if target.runs_groups() {
        steps = group::group(steps, kept);
    }
    let (mut places, body, tail) =
        tail::split(layout, lowered.places, steps, &lowered.outputs, &lowered.updates, limits);

    let arrivals: Vec<(ChannelId, Root)> =
        lowered.inputs.iter().map(|(name, root)| (part.arrives[name], *root)).collect();
    let actions = order::order(&parts.channels, levels, &places, &arrivals, &leaves, body, tail);
    // What each kernel needs is asked of this target once.
    let mut workspaces: HashMap<Kernel, u64> = HashMap::new();
    let needs: Vec<u64> = actions.iter().map(|a| workspace(a, target, &mut workspaces)).collect();
    let offsets = offsets::assign(&mut places, &actions, &needs);
    let mut buffers: Arena<BufferId, Buffer> = Arena::default();
    let mut buffer_of: HashMap<Root, BufferId> = HashMap::new();
    let mut instructions = Vec::new();
    for (at, slot) in actions.into_iter().enumerate() {
        let mut id = |root: Root| buffer(root, &places, &offsets.of, layout, &mut buffers, &mut buffer_of);
        instructions.push(match slot {
            Slot::Grant(channel, _) => Instruction::Grant(channel),
            Slot::Wait(channel, root) => Instruction::Wait { channel, buffer: id(root) },
            Slot::Post(channel, root) => Instruction::Post { channel, buffer: id(root) },
            Slot::Sent(channel, _) => Instruction::Sent(channel),
            Slot::Commit => Instruction::Commit,
            Slot::Do(Action::Copy(from, to)) => Instruction::Copy { from: id(from), to: id(to) },
            Slot::Do(Action::Launch(step)) => Instruction::Launch(Launch {
                reads: step.reads.iter().map(|r| id(*r)).collect(),
                writes: step.writes.iter().map(|r| id(*r)).collect(),
                workspace: (offsets.workspaces[at], needs[at]),
                kernel: kernels.find(&step.kernel).map_err(|faults| LowerError::Kernel {
                    label: step.label.to_string(),
                    site: step.site.clone(),
                    faults,
                })?,
                label: step.label,
                site: step.site,
            }),
        });
    }
    Ok(DevicePlan {
        device: target.name(),
        state_bytes: layout.bytes,
        scratch_bytes: offsets.scratch_bytes,
        staging_bytes: offsets.staging_bytes,
        buffers,
        instructions,
    })
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // Nearly all are launches.
enum Slot {
    /// The slot of what arrives, from here on the sender's.
    Grant(ChannelId, Root),
    Wait(ChannelId, Root),
    Post(ChannelId, Root),
    /// What was posted.
    Sent(ChannelId, Root),
    Commit,
    Do(Action),
}

impl Slot {
    fn reads(&self) -> &[Root] {
        match self {
            Slot::Post(_, root) | Slot::Sent(_, root) => std::slice::from_ref(root),
            Slot::Do(action) => action.reads(),
            Slot::Grant(..) | Slot::Wait(..) | Slot::Commit => &[],
        }
    }
    fn writes(&self) -> &[Root] {
        match self {
            Slot::Grant(_, root) | Slot::Wait(_, root) => std::slice::from_ref(root),
            Slot::Do(action) => action.writes(),
            Slot::Post(..) | Slot::Sent(..) | Slot::Commit => &[],
        }
    }
}

/// Scratch that an instruction needs while it runs, in bytes.
fn workspace(slot: &Slot, target: &dyn Target, known: &mut HashMap<Kernel, u64>) -> u64 {
    let Slot::Do(Action::Launch(step)) = slot else { return 0 };
    if let Some(bytes) = known.get(&step.kernel) {
        return *bytes;
    }
    let bytes = target.workspace_bytes(&step.kernel);
    known.insert(step.kernel.clone(), bytes);
    bytes
}

/// The plan's table of kernels: each distinct one once, checked once.
#[derive(Default)]
struct Kernels {
    table: Arena<KernelId, Kernel>,
    known: HashMap<Kernel, KernelId>,
}

impl Kernels {
    fn find(&mut self, kernel: &Kernel) -> Result<KernelId, Vec<String>> {
        if let Some(id) = self.known.get(kernel) {
            return Ok(*id);
        }
        let faults = kernel.verify();
        if faults.is_empty() { Ok(self.add(kernel)) } else { Err(faults) }
    }
    /// The number of a sound kernel.
    fn add(&mut self, kernel: &Kernel) -> KernelId {
        *self.known.entry(kernel.clone()).or_insert_with(|| self.table.push(kernel.clone()))
    }
}

fn buffer(
    root: Root,
    places: &Places,
    offsets: &[u64],
    layout: &StateLayout,
    buffers: &mut Arena<BufferId, Buffer>,
    known: &mut HashMap<Root, BufferId>,
) -> BufferId {
    if let Some(id) = known.get(&root) {
        return *id;
    }
    let place = places.at(root);
    let mut pieces = vec![];
    let (memory, offset) = match &place.home {
        Home::State(v) | Home::StateRow(v) => (Memory::State, layout.slots[*v].offset),
        Home::Staging => (Memory::Staging, offsets[root.0]),
        Home::Scratch => (Memory::Scratch, offsets[root.0]),
        Home::Row(spans) => {
            let mut first = (Memory::Scratch, 0);
            for span in spans.iter().rev() {
                let id = buffer(span.root, places, offsets, layout, buffers, known);
                let piece = Piece { buffer: id, start: span.start, end: span.end };
                first = (buffers[id].memory, buffers[id].piece(&piece).start);
                pieces.insert(0, piece);
            }
            first
        }
    };
    let id = buffers.push(Buffer { memory, offset, ty: place.ty.clone(), pieces });
    known.insert(root, id);
    id
}
