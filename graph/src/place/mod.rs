//! Placement: where every value of a program lives, and how it is spread there. A value has, per axis of the mesh, one
//! [`Spread`]; a few are given (inputs, variables), all others follow from the kernels' text by [`rules`](self::Part).
//!
//! The points of a mesh are **leaves**, virtual devices fixed for the life of a job. A device hosts one leaf or several, and
//! runs each with the same extents and kernels; so which device hosts which leaf changes no bit of any result.

mod assign;
mod linear;
mod rules;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use assign::place;
pub(crate) use rules::ways;
pub use rules::{Cut, Part, Way};

use crate::id::{Arena, Side};
use crate::ir::{Graph, NodeId, Site, Value, VarId, VarKind, Variable};
use crate::kernel::{BufferType, Monoid};
use crate::lower::{Share, StateLayout, StateMap};

/// A named grid of leaves, and which device hosts each.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Mesh {
    /// Name and extent of each axis, outermost first.
    pub axes: Vec<(Arc<str>, u16)>,
    /// By leaf, in row-major order: its device, by its place in the cluster.
    pub devices: Vec<u16>,
}

impl Mesh {
    /// One axis of `leaves` leaves over `devices` devices, as evenly as can be, in order.
    ///
    /// # Panics
    /// If there are no devices, or fewer leaves than devices.
    pub fn line(name: &str, leaves: u16, devices: u16) -> Self {
        assert!(0 < devices && devices <= leaves, "{leaves} leaves cannot be spread over {devices} devices");
        let host = |leaf: u16| (u32::from(leaf) * u32::from(devices) / u32::from(leaves)) as u16;
        Self { axes: vec![(name.into(), leaves)], devices: (0..leaves).map(host).collect() }
    }
    /// How many leaves.
    pub fn leaves(&self) -> usize {
        self.devices.len()
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
    /// The devices of some leaves, each once, in order of first leaf.
    pub fn devices_of(&self, leaves: &[usize]) -> Vec<u16> {
        let mut devices = Vec::new();
        for leaf in leaves {
            if !devices.contains(&self.devices[*leaf]) {
                devices.push(self.devices[*leaf]);
            }
        }
        devices
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
    /// `elements` elements over `devices` devices.
    pub fn owned(elements: u64, devices: usize) -> Self {
        Spread::Owned { cuts: shares(elements, devices).into() }
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
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
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
}

impl Request {
    /// How a variable is spread.
    pub fn variable(&self, variable: &Variable) -> Placement {
        if let Some(axes) = self.axes_of(variable)
            && let Some(ty) = BufferType::of(&variable.ty)
            && let Some(spread) = assign::asked(&ty, axes, &self.mesh)
        {
            return spread;
        }
        let elements = BufferType::of(&variable.ty).map_or(0, |t| t.len() as u64);
        let devices = self.mesh.devices.iter().max().map_or(0, |d| usize::from(*d) + 1);
        let owned = self.owns_slots && variable.kind == VarKind::Slot && elements >= GRAIN * devices as u64;
        match owned && self.mesh.axes.len() == 1 && devices > 1 {
            true => vec![Spread::owned(elements, devices)],
            false => vec![Spread::Replicate; self.mesh.axes.len()],
        }
    }
    /// What is said of a variable, or of the parameter that it is a slot of: `adamw.m.fc1.weight` is one of `fc1.weight`.
    fn axes_of(&self, variable: &Variable) -> Option<&[Option<u16>]> {
        let slot_of = |name: &str| variable.kind == VarKind::Slot && variable.name.ends_with(&format!(".{name}"));
        let said = self.variables.iter().find(|(name, _)| **name == variable.name || slot_of(name));
        said.map(|(_, axes)| &axes[..])
    }
    /// The coordinates of the first leaf that a device hosts. What is spread over an axis of several leaves of one device has no
    /// one place there: strategies spread variables only over axes with a device per leaf.
    fn seat(&self, device: usize) -> Vec<usize> {
        let leaf = self.mesh.devices.iter().position(|d| usize::from(*d) == device).unwrap_or(0);
        self.mesh.coordinates(leaf)
    }
    /// The variables as a device has them: its share of those that are spread, and of those that are shared out its elements as
    /// a vector.
    pub fn local_state(&self, graph: &Graph, device: usize) -> Arena<VarId, Variable> {
        let local = |variable: &Variable| match &self.variable(variable)[..] {
            [Spread::Owned { cuts }] => {
                let ty = variable.ty.dtype.of(&[cuts[device + 1] - cuts[device]][..]);
                Variable { ty, ..variable.clone() }
            }
            placement => {
                let share = BufferType::of(&variable.ty).map(|ty| share_type(&ty, placement, &self.seat(device)));
                let ty = share.map_or_else(|| variable.ty.clone(), |t| t.dtype.of(&t.shape[..]));
                Variable { ty, ..variable.clone() }
            }
        };
        graph.state.values().iter().map(local).collect()
    }
    /// Where the variables of `graph` lie on each of `devices` devices, and together.
    pub fn state(&self, graph: &Graph, devices: usize) -> (Vec<StateLayout>, StateMap) {
        let local = |device| Graph { state: self.local_state(graph, device), ..Graph::default() };
        let layouts: Vec<StateLayout> = (0..devices).map(|device| StateLayout::of(&local(device))).collect();
        let held = |id: VarId, variable: &Variable, device: usize| {
            let slot = &layouts[device].slots[id];
            let whole = BufferType::of(&variable.ty).expect("a variable's extents are numbers");
            let (view, start) = match &self.variable(variable)[..] {
                [Spread::Owned { cuts }] => (vec![whole.len() as u64], vec![cuts[device]]),
                placement => {
                    let ranges = share(&whole, placement, &self.seat(device));
                    (whole.shape.clone(), ranges.into_iter().map(|r| r.start).collect())
                }
            };
            Share { device: device as u16, offset: slot.offset, ty: slot.ty.clone(), view, start }
        };
        let shares = |(id, v): (VarId, &Variable)| (0..devices).map(|d| held(id, v, d)).collect();
        let shares = graph.state.iter().map(shares).collect();
        let bytes = layouts.iter().map(|l| l.bytes).collect();
        (layouts, StateMap { bytes, shares })
    }
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
    /// The type of a value's buffer.
    pub fn ty(&self, value: Value) -> BufferType {
        BufferType::of(self.graph.ty(value)).expect("a placed graph has no named dimensions")
    }
    /// Which nodes the program needs.
    pub fn needed(&self) -> Side<NodeId, bool> {
        self.graph.needed_by(&self.graph.programs[0])
    }
}

/// Something that placement had to do and that costs: a value that is brought together on every device, since no leaf can
/// compute its share of what reads it.
#[derive(Clone, PartialEq, Debug)]
pub struct Note {
    /// The reader.
    pub label: String,
    /// Its line.
    pub site: Site,
    /// What is brought together, and why.
    pub what: String,
    /// Bytes that every device then receives, at most.
    pub bytes: u64,
}
