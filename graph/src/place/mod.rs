//! Placement: where every value of a program lives, and how it is spread there. A value has, per axis of the mesh, one
//! [`Spread`]; a few are given (inputs, variables), all others follow from the kernels' text by [`rules`](self::Part).
//!
//! The points of a mesh are **leaves**, virtual devices fixed for the life of a job. A device hosts one leaf or several, and
//! runs each with the same extents and kernels; so which device hosts which leaf changes no bit of any result.

mod assign;
pub(crate) mod balance;
mod linear;
mod rules;
mod servers;
mod stages;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use assign::place;
pub(crate) use rules::ways;
pub use rules::{Cut, Part, Way};
pub use servers::{Consistency, Servers};
pub(crate) use servers::{SERVERS, WORKERS};
pub use stages::{Home, PipelineSchedule, Stages};

use crate::id::{Arena, Side};
use crate::ir::{Graph, NodeId, Sharding, Site, Value, VarId, VarKind, Variable};
use crate::kernel::{BufferType, Monoid};
use crate::lower::{Share, StateLayout, StateMap};

/// A named grid of leaves, and which device hosts each. A graph that is cut into stages has a host per stage and leaf: a leaf
/// then goes from device to device, as a microbatch of a pipeline does.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Mesh {
    /// Name and extent of each axis, outermost first.
    pub axes: Vec<(Arc<str>, u16)>,
    /// By stage, and by leaf in row-major order: its device, by its place in the cluster.
    pub stages: Vec<Vec<u16>>,
}

impl Mesh {
    /// One axis of `leaves` leaves over `devices` devices, as evenly as can be, in order.
    ///
    /// # Panics
    /// If there are no devices, or fewer leaves than devices.
    pub fn line(name: &str, leaves: u16, devices: u16) -> Self {
        assert!(0 < devices && devices <= leaves, "{leaves} leaves cannot be spread over {devices} devices");
        let host = |leaf: u16| (u32::from(leaf) * u32::from(devices) / u32::from(leaves)) as u16;
        Self { axes: vec![(name.into(), leaves)], stages: vec![(0..leaves).map(host).collect()] }
    }
    /// One axis of `leaves` leaves over as many devices as there are shares, in that proportion, in order. `None` if a device
    /// would host none.
    pub fn in_proportion(name: &str, leaves: u16, shares: &[u16]) -> Option<Self> {
        let all: u32 = shares.iter().map(|s| u32::from(*s)).sum();
        let mut hosts = vec![];
        let mut before = 0;
        for (device, share) in shares.iter().enumerate() {
            before += u32::from(*share);
            let end = (u32::from(leaves) * before + all / 2).checked_div(all)? as usize;
            if end <= hosts.len() {
                return None;
            }
            hosts.resize(end, device as u16);
        }
        Some(Self { axes: vec![(name.into(), leaves)], stages: vec![hosts] })
    }
    /// Per axis of this mesh, which axis of a tensor is spread over it.
    pub fn spread_over(&self, sharding: &Sharding) -> Vec<Option<u16>> {
        let place = |name: &Arc<str>| sharding.iter().position(|axis| axis.as_ref() == Some(name)).map(|a| a as u16);
        self.axes.iter().map(|(name, _)| place(name)).collect()
    }
    /// Whether no device of a stage hosts two leaves that stand at different places along an axis.
    fn is_apart(&self, stage: u16, axis: usize) -> bool {
        let apart = |group: Vec<usize>| self.devices_of(stage, group.iter().copied()).len() == group.len();
        self.groups(axis).into_iter().all(apart)
    }
    /// How many leaves.
    pub fn leaves(&self) -> usize {
        self.stages[0].len()
    }
    /// The host of a leaf in a stage.
    pub fn device(&self, stage: u16, leaf: usize) -> u16 {
        self.stages[usize::from(stage)][leaf]
    }
    /// Where a leaf stands along each axis.
    pub fn coordinates(&self, mut leaf: usize) -> Vec<usize> {
        let mut at = vec![0; self.axes.len()];
        for (to, (_, extent)) in at.iter_mut().zip(&self.axes).rev() {
            (*to, leaf) = (leaf % usize::from(*extent), leaf / usize::from(*extent));
        }
        at
    }
    /// The leaves that differ from one another along `axis` only, in order, group by group.
    pub fn groups(&self, axis: usize) -> Vec<Vec<usize>> {
        let mut groups: BTreeMap<Vec<usize>, Vec<usize>> = BTreeMap::new();
        for leaf in 0..self.leaves() {
            let mut at = self.coordinates(leaf);
            at[axis] = 0;
            groups.entry(at).or_default().push(leaf);
        }
        groups.into_values().collect()
    }
    /// The devices of some leaves in a stage, each once, in order of first leaf.
    pub fn devices_of(&self, stage: u16, leaves: impl IntoIterator<Item = usize>) -> Vec<u16> {
        let mut devices = Vec::new();
        for leaf in leaves {
            if !devices.contains(&self.device(stage, leaf)) {
                devices.push(self.device(stage, leaf));
            }
        }
        devices
    }
    /// All devices of a stage, in their own order.
    pub fn hosts(&self, stage: u16) -> Vec<u16> {
        let mut hosts = self.devices_of(stage, 0..self.leaves());
        hosts.sort_unstable();
        hosts
    }
}

/// How a value is spread along one axis of a mesh.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Spread {
    /// Every leaf has all of it.
    Replicate,
    /// Leaf `i` has the elements `cuts[i]..cuts[i + 1]` of an axis.
    Shard {
        /// Which axis of the tensor.
        axis: u16,
        /// Where each leaf's share begins, and the end.
        cuts: Arc<[u64]>,
    },
    /// Every leaf has a tensor of the whole type; combined they are the value.
    Partial(Monoid),
    /// Device `i` (not leaf) has the elements `cuts[i]..cuts[i + 1]` of all, row-major, as a vector.
    Owned {
        /// Where each device's share begins, and the end.
        cuts: Arc<[u64]>,
    },
}

impl Spread {
    /// `elements` elements over `owners`, some of `devices` devices, in ascending order.
    pub fn owned(elements: u64, owners: &[u16], devices: usize) -> Self {
        let shares = shares(elements, owners.len());
        let before = |device: usize| owners.iter().filter(|o| usize::from(**o) < device).count();
        Spread::Owned { cuts: (0..=devices).map(|d| shares[before(d)]).collect() }
    }
    /// The axis of extent `extent` cut for `leaves` leaves, as evenly as can be.
    pub fn even(axis: u16, extent: u64, leaves: u16) -> Self {
        let cut = |i: u64| (u128::from(extent) * u128::from(i) / u128::from(leaves.max(1))) as u64;
        Spread::Shard { axis, cuts: (0..=u64::from(leaves)).map(cut).collect() }
    }
}

/// Shares of devices begin at multiples of this many elements, so that vectors of every device stay whole.
const GRAIN: u64 = 16;

/// Where each of `devices` shares of `elements` elements begins, and the end: as even as the grain allows.
pub(crate) fn shares(elements: u64, devices: usize) -> Vec<u64> {
    let cut = |i: usize| {
        let at = (u128::from(elements) * i as u128 / devices.max(1) as u128) as u64;
        if i == devices { elements } else { at / GRAIN * GRAIN }
    };
    (0..=devices).map(cut).collect()
}

/// How a value is spread: one [`Spread`] per axis of the mesh.
pub type Placement = Vec<Spread>;

/// What `placement` leaves of a tensor of type `ty` at the coordinates `at`, by axis of the tensor.
pub fn share(ty: &BufferType, placement: &[Spread], at: &[usize]) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = ty.shape.iter().map(|n| 0..*n).collect();
    for (spread, i) in placement.iter().zip(at) {
        if let Spread::Shard { axis, cuts } = spread {
            ranges[usize::from(*axis)] = cuts[*i]..cuts[i + 1];
        }
    }
    ranges
}

/// The type of that share.
pub fn share_type(ty: &BufferType, placement: &[Spread], at: &[usize]) -> BufferType {
    let shape = share(ty, placement, at).into_iter().map(|r| r.end - r.start).collect();
    BufferType { dtype: ty.dtype, shape }
}

/// What a strategy says of a graph; everything else follows.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Request {
    /// The leaves, and where they are.
    pub mesh: Mesh,
    /// By input: per axis of the mesh, which axis of the tensor is spread over it. What is not named is everywhere.
    pub inputs: BTreeMap<Arc<str>, Vec<Option<u16>>>,
    /// By parameter: per axis of the mesh, which axis of the tensor is spread over it. What an optimizer keeps of a parameter is
    /// spread alike. What is not named is everywhere.
    pub variables: BTreeMap<Arc<str>, Vec<Option<u16>>>,
    /// Whether what optimizers keep is cut into one share per device, and each device updates its share of the parameters for
    /// all (ZeRO stage 1). Only on meshes of one axis.
    pub owns_slots: bool,
    /// In which order what leaves have in parts is added up.
    pub reduction: Reduction,
    /// Which stage of the mesh is whose.
    pub stages: Stages,
    /// What servers keep, where there are servers: then the mesh has a stage of workers and one of servers.
    pub servers: Option<Servers>,
}

/// In which order what leaves have in parts is added up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Reduction {
    /// By one balanced tree over the leaves, so that no bit depends on who hosts them.
    #[default]
    Canonical,
    /// In whichever order is best for the devices that there are: long sums go around a ring.
    Fast,
}

impl Request {
    /// On one stage, as all strategies without pipelines have it.
    pub fn new(mesh: Mesh) -> Self {
        let (inputs, variables) = (BTreeMap::new(), BTreeMap::new());
        let (reduction, stages) = (Reduction::default(), Stages::default());
        Self { mesh, inputs, variables, owns_slots: false, reduction, stages, servers: None }
    }
    /// Variables that are to be cut along an axis of which one device has several leaves, or that servers keep, stay whole, with a
    /// warning.
    pub(crate) fn keep_apart(&mut self, graph: &Graph) {
        for (id, node) in graph.nodes.iter() {
            let Some(variable) = graph.variable_read(node).map(|variable| &graph.state[variable]) else { continue };
            let (homes, all) = (self.lives_in(variable), self.mesh.axes.len());
            let Some(axes) = self.variables.get(&variable.name) else { continue };
            let bad = |m: usize| axes[m].is_some() && !homes.clone().all(|stage| self.mesh.is_apart(stage, m));
            let bad: Vec<usize> = (0..all).filter(|m| self.servers.is_some() || bad(*m)).collect();
            if bad.is_empty() {
                continue;
            }
            let over = bad.iter().map(|m| format!("`{}`", self.mesh.axes[*m].0)).collect::<Vec<_>>().join(", ");
            let why = if self.servers.is_some() { "servers keep it" } else { "a device has several places along it" };
            let what = format!("`{}` is not cut over {over}: {why}", variable.name);
            let (label, site) = (graph.nodes[id].label(), graph.nodes[id].site.clone());
            let bytes = variable.ty.size_bytes().unwrap_or_default();
            self.stages.warnings.push(Note { label, site, what, bytes });
            let name = variable.name.clone();
            let axes = self.variables.get_mut(&name).expect("it was there");
            bad.into_iter().for_each(|m| axes[m] = None);
        }
    }
    /// How a variable is spread, on the devices of the stage where it lives.
    pub fn variable(&self, variable: &Variable) -> Placement {
        if let Some(owned) = self.servers.as_ref().and_then(|s| s.spread(variable)) {
            return vec![owned];
        }
        if let Some(axes) = self.axes_of(variable)
            && let Some(ty) = BufferType::of(&variable.ty)
            && let Some(spread) = assign::asked(&ty, axes, &self.mesh)
        {
            return spread;
        }
        let elements = BufferType::of(&variable.ty).map_or(0, |t| t.len() as u64);
        let homes = self.lives_in(variable);
        let owners = self.mesh.hosts(homes.start);
        let owned = self.owns_slots && variable.kind == VarKind::Slot && elements >= GRAIN * owners.len() as u64;
        if owned && self.mesh.axes.len() == 1 && owners.len() > 1 && homes.len() == 1 {
            let devices = self.mesh.stages.iter().flatten().max().map_or(0, |d| usize::from(*d) + 1);
            return vec![Spread::owned(elements, &owners, devices)];
        }
        vec![Spread::Replicate; self.mesh.axes.len()]
    }
    /// What is said of a variable, or of the parameter that it is a slot of: `adamw.m.fc1.weight` is one of `fc1.weight`.
    fn axes_of(&self, variable: &Variable) -> Option<&[Option<u16>]> {
        let mut names = [&*variable.name].into_iter().chain(kept_of(variable));
        names.find_map(|name| self.variables.get(name)).map(|axes| &axes[..])
    }
    /// The stages in which a variable lives.
    pub fn lives_in(&self, variable: &Variable) -> std::ops::Range<u16> {
        let stages = self.mesh.stages.len() as u16;
        self.stages.home(&variable.name).filter(|_| stages > 1).map_or(0..stages, |home| home..home + 1)
    }
    /// What a device has of a variable: the type of its share, and where that begins in which view of the whole. Nothing where
    /// the variable lives in other stages.
    fn share_of(&self, variable: &Variable, whole: &BufferType, device: usize) -> (BufferType, Vec<u64>, Vec<u64>) {
        let vector = |start, end| BufferType { dtype: whole.dtype, shape: vec![end - start] };
        let n = whole.len() as u64;
        // The first leaf that the device hosts. What is spread over an axis of several leaves of one device has no one place
        // there: strategies spread variables only over axes with a device per leaf.
        let seat = self.lives_in(variable).find_map(|stage| {
            let hosts = &self.mesh.stages[usize::from(stage)];
            hosts.iter().position(|d| usize::from(*d) == device)
        });
        match (&self.variable(variable)[..], seat) {
            (_, None) => (vector(0, 0), vec![n], vec![0]),
            ([Spread::Owned { cuts }], _) => (vector(cuts[device], cuts[device + 1]), vec![n], vec![cuts[device]]),
            (placement, Some(leaf)) => {
                let at = self.mesh.coordinates(leaf);
                let start = share(whole, placement, &at).into_iter().map(|r| r.start).collect();
                (share_type(whole, placement, &at), whole.shape.clone(), start)
            }
        }
    }
    /// The variables as a device has them: its share of those that are spread, and of those that are shared out its elements as
    /// a vector.
    pub fn local_state(&self, graph: &Graph, device: usize) -> Arena<VarId, Variable> {
        let local = |variable: &Variable| {
            let share = BufferType::of(&variable.ty).map(|ty| self.share_of(variable, &ty, device).0);
            let ty = share.map_or_else(|| variable.ty.clone(), |t| t.dtype.of(&t.shape[..]));
            Variable { ty, ..variable.clone() }
        };
        graph.state.values().iter().map(local).collect()
    }
    /// Where the variables of `graph` lie on each of `devices` devices, and together.
    pub fn state(&self, graph: &Graph, devices: usize) -> (Vec<StateLayout>, StateMap) {
        let local = |device| Graph { state: self.local_state(graph, device), ..Graph::default() };
        let layouts: Vec<StateLayout> = (0..devices).map(|device| StateLayout::of(&local(device))).collect();
        let held = |id: VarId, variable: &Variable, device: usize| {
            let whole = BufferType::of(&variable.ty).expect("a variable's extents are numbers");
            let (ty, view, start) = self.share_of(variable, &whole, device);
            Share { device: device as u16, offset: layouts[device].slots[id].offset, ty, view, start }
        };
        let shares = |(id, v): (VarId, &Variable)| (0..devices).map(|d| held(id, v, d)).collect();
        let shares = graph.state.iter().map(shares).collect();
        let bytes = layouts.iter().map(|l| l.bytes).collect();
        (layouts, StateMap { bytes, shares })
    }
}

/// Of which parameter a variable may be what an optimizer keeps, by its name, the likeliest first: `adamw.m.b.w` is kept of
/// `b.w` if there is one, and not of `w`.
fn kept_of(variable: &Variable) -> impl Iterator<Item = &str> {
    let name = if variable.kind == VarKind::Slot { &*variable.name } else { "" };
    name.match_indices('.').map(move |(dot, _)| &name[dot + 1..])
}

/// A program, where its values live, and how its kernels are spread.
#[derive(Clone, Debug)]
pub struct Placed {
    /// One program, in primitives, with all extents bound.
    pub graph: Graph,
    /// What was asked for.
    pub request: Request,
    /// Per node and result.
    pub values: Arena<NodeId, Vec<Placement>>,
    /// Per node and axis of the mesh, how its kernel is spread; none for what has no kernel.
    pub ways: Arena<NodeId, Vec<Way>>,
    /// Per node and operand, how it needs it.
    pub wants: Arena<NodeId, Vec<Placement>>,
    /// Per node, in which stage it is computed; none: in each that needs it.
    pub stages: Arena<NodeId, Option<u16>>,
    /// What the program's needs cost beyond what the strategy asks for.
    pub notes: Vec<Note>,
}

impl Placed {
    /// The leaves.
    pub fn mesh(&self) -> &Mesh {
        &self.request.mesh
    }
    /// How a value is spread.
    pub fn of(&self, value: Value) -> &Placement {
        &self.values[value.node][usize::from(value.slot)]
    }
    /// The stage in which a value is made, where somebody in stage `asked` needs it.
    pub fn stage(&self, value: Value, asked: u16) -> u16 {
        self.stages[value.node].unwrap_or(asked)
    }
    /// The type of a value's buffer.
    pub fn ty(&self, value: Value) -> BufferType {
        BufferType::of(self.graph.ty(value)).expect("a placed graph has no named dimensions")
    }
    /// Which nodes the program needs.
    pub fn needed(&self) -> Side<NodeId, bool> {
        self.graph.needed_by(&self.graph.programs[0])
    }
}

/// Something that placement had to do and that was not asked for: a value is brought together on every device, since no leaf can
/// compute its share of what reads it; or a variable is elsewhere than where it was wished for.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Note {
    /// The reader.
    pub label: String,
    /// Its line.
    pub site: Site,
    /// What is brought together, and why.
    pub what: String,
    /// Bytes that every device then receives for it, at most.
    pub bytes: u64,
}
