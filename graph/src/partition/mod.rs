//! Cutting: a placed program → one graph per device, and the channels between them. Each leaf's share of each value is a value
//! of its device's graph; what several leaves of a device have in common is there once. Whatever crosses does so once per step.
//!
//! A device's graph is an ordinary graph of one program. What arrives is an input called after its channel, `#3`; what leaves
//! is an output. So it prints, verifies, evaluates and is lowered as any other graph, and nothing later is opaque.

mod buckets;
mod compute;
mod convert;
mod ends;
mod parts;
mod reduce;
mod turns;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub use parts::{DeviceGraph, Levels, Partitioned};

use crate::builder::Builder;
use crate::id::Arena;
use crate::ir::{Graph, Node, NodeId, Program, Value};
use crate::kernel::{BufferType, Kernel};
use crate::place::{Cut, Placed, Placement, Spread, Way};
use crate::plan::{Channel, ChannelId, Endpoint};
use crate::structural::{Input, KernelOp, ReadVariable, Row};

/// Cuts a placed program for `devices` devices.
pub fn partition(placed: &Placed, devices: usize) -> Partitioned {
    let mut cutter = Cutter::new(placed, devices);
    cutter.nodes();
    cutter.finish()
}

/// A value under some placement: each leaf's share, in the graph of the device that hosts the leaf in a stage.
#[derive(Clone)]
struct Instances {
    stage: u16,
    of: Vec<Value>,
}

/// In the place of what a device has nothing of; nobody asks for it.
const NOWHERE: Value = Value { node: NodeId(u32::MAX), slot: 0 };

/// Whether a device owns some elements.
fn owns(cuts: &[u64], device: u16) -> bool {
    cuts[usize::from(device)] < cuts[usize::from(device) + 1]
}

struct Cutter<'a> {
    placed: &'a Placed,
    devices: Vec<Builder>,
    channels: Arena<ChannelId, Channel>,
    arrives: Vec<BTreeMap<Arc<str>, ChannelId>>,
    leaves: Vec<Vec<(ChannelId, Value)>>,
    /// Values as they are, as they were converted, and in which stage.
    made: HashMap<(Value, Placement, u16), Instances>,
    /// What has crossed, by where it was and where it went.
    crossed: HashMap<(u16, Value, u16), Value>,
    /// Which sums are formed together.
    buckets: buckets::Buckets,
    /// When what is computed is due.
    turns: turns::Turns,
}

impl<'a> Cutter<'a> {
    fn new(placed: &'a Placed, devices: usize) -> Self {
        Self {
            placed,
            devices: (0..devices).map(|d| local(placed, d)).collect(),
            channels: Arena::default(),
            arrives: vec![BTreeMap::new(); devices],
            leaves: vec![vec![]; devices],
            made: HashMap::new(),
            crossed: HashMap::new(),
            buckets: buckets::Buckets::of(placed),
            turns: turns::Turns::of(placed, devices),
        }
    }
    fn on(&self, device: u16) -> &Builder {
        &self.devices[usize::from(device)]
    }
    /// The type of a value of a device's graph.
    fn ty(&self, device: u16, value: Value) -> BufferType {
        BufferType::of(&self.on(device).ty(value)).expect("a placed graph has no named dimensions")
    }
    fn leaf_count(&self) -> usize {
        self.placed.mesh().leaves()
    }

    /// Every node that is in one stage, in order; but those that read what buckets sum up come when that is there.
    fn nodes(&mut self) {
        let (placed, needed) = (self.placed, self.placed.needed());
        let nodes = placed.graph.nodes.ids().filter(|id| needed[*id]);
        let nodes: Vec<_> = nodes.filter_map(|id| Some((id, placed.stages[id]?))).collect();
        let (late, early): (Vec<_>, Vec<_>) = nodes.into_iter().partition(|(id, _)| self.buckets.is_late(*id));
        for (id, stage) in early {
            self.node(id, stage);
            for bucket in self.buckets.ready(id) {
                self.sum_bucket(&bucket, stage);
            }
        }
        late.into_iter().for_each(|(id, stage)| self.node(id, stage));
    }

    /// The instances of one node's results in a stage.
    fn node(&mut self, id: NodeId, stage: u16) {
        let placed = self.placed;
        let node = &placed.graph.nodes[id];
        let given = match (node.op_as::<Input>(), node.op_as::<ReadVariable>()) {
            (Some(input), _) => Some(self.feed(id, node, input, stage)),
            (_, Some(read)) => Some(self.variable(id, node, read, stage)),
            _ => None,
        };
        if let Some(instances) = given {
            self.made.insert((id.into(), placed.of(id.into()).clone(), stage), instances);
            return;
        }
        let operands: Vec<Instances> =
            node.operands.iter().zip(&placed.wants[id]).map(|(v, want)| self.get(*v, want, stage)).collect();
        if let [Way { cut: Cut::Flat, .. }] = &placed.ways[id][..] {
            return self.compute_flat(id, stage, &operands);
        }
        let cuts: Vec<_> = (0..placed.mesh().axes.len()).map(|m| cuts_of(placed, id, m)).collect();
        self.compute(id, stage, &placed.ways[id], &cuts, &operands, &placed.values[id]);
    }
    fn variable(&mut self, id: NodeId, node: &Node, read: &ReadVariable, stage: u16) -> Instances {
        let here = |device: u16| {
            let to = self.on(device);
            let ty = to.with_graph(|g| g.state[g.variable(&read.variable).expect("placed")].ty.clone());
            let op = Arc::new(ReadVariable { variable: read.variable.clone(), ty: ty.clone() });
            to.copy(&Node { op, types: vec![ty], ..node.clone() }, vec![]).into()
        };
        match &self.placed.of(id.into())[..] {
            [Spread::Owned { cuts }] => self.once_per_owner(stage, cuts, here),
            _ => self.once_per_device(stage, here),
        }
    }
    /// The same for all leaves of a device, where the device owns some elements.
    fn once_per_owner(&self, stage: u16, cuts: &[u64], mut make: impl FnMut(u16) -> Value) -> Instances {
        self.once_per_device(stage, |device| if owns(cuts, device) { make(device) } else { NOWHERE })
    }
    /// The same for all leaves of a device.
    fn once_per_device(&self, stage: u16, mut make: impl FnMut(u16) -> Value) -> Instances {
        let mesh = self.placed.mesh();
        let made: BTreeMap<u16, Value> = mesh.hosts(stage).into_iter().map(|device| (device, make(device))).collect();
        Instances { stage, of: (0..mesh.leaves()).map(|leaf| made[&mesh.device(stage, leaf)]).collect() }
    }

    /// A kernel as a node of a device's graph, in the name of `like`.
    fn emit(&self, device: u16, like: &Node, kernel: Kernel, operands: Vec<Value>) -> Value {
        self.on(device).copy(&with_kernel(like, kernel), operands).into()
    }
    /// Some of the elements of several vectors.
    fn row(&self, device: u16, like: &Node, operands: Vec<Value>, start: u64, end: u64) -> Value {
        let to = self.on(device);
        let ty = to.ty(operands[0]).dtype.of(&[end - start][..]);
        let node = Node { op: Arc::new(Row { start, end }), types: vec![ty], name: None, ..like.clone() };
        to.copy(&node, operands).into()
    }
    /// Vectors end to end.
    fn end_to_end(&self, device: u16, like: &Node, vectors: Vec<Value>) -> Value {
        let n = vectors.iter().map(|v| self.ty(device, *v).len() as u64).sum();
        self.row(device, like, vectors, 0, n)
    }
    /// The same elements under other extents.
    fn relabel(&self, device: u16, like: &Node, value: Value, shape: &[u64]) -> Value {
        let from = self.ty(device, value);
        if from.shape == shape {
            return value;
        }
        let to = BufferType { dtype: from.dtype, shape: shape.to_vec() };
        self.emit(device, like, Kernel::relabel(from, to), vec![value])
    }
    /// As one axis.
    fn flat(&self, device: u16, like: &Node, value: Value) -> Value {
        let n = self.ty(device, value).len() as u64;
        self.relabel(device, like, value, &[n])
    }

    /// A value of `from`'s graph in that of `to`: itself where they are the same, else by a channel.
    fn bring(&mut self, from: u16, value: Value, to: u16, like: &Node) -> Value {
        if from == to {
            return value;
        }
        if let Some(known) = self.crossed.get(&(from, value, to)) {
            return *known;
        }
        let label = like.path();
        let label = if label.is_empty() { like.op.schema().name.into() } else { label.into() };
        let ends = (Endpoint::Device(from), Endpoint::Device(to));
        let channel = Channel { from: ends.0, to: ends.1, ty: self.ty(from, value), start: 0, label };
        let (channel, arrived) = self.arrive(to, channel, like);
        self.leaves[usize::from(from)].push((channel, value));
        self.crossed.insert((from, value, to), arrived);
        arrived
    }

    /// A channel to `device`, and the input by which it arrives there, in the name of `like`.
    fn arrive(&mut self, device: u16, channel: Channel, like: &Node) -> (ChannelId, Value) {
        let ty = channel.ty.dtype.of(&channel.ty.shape[..]);
        let channel = self.channels.push(channel);
        let name: Arc<str> = channel.to_string().into();
        let op = Arc::new(Input { name: name.clone(), ty: ty.clone() });
        self.arrives[usize::from(device)].insert(name, channel);
        let node = Node { op, types: vec![ty], operands: vec![], ..like.clone() };
        (channel, self.on(device).copy(&node, vec![]).into())
    }

    /// What the driver gets, and what variables become.
    fn finish(mut self) -> Partitioned {
        let placed = self.placed;
        let program = &placed.graph.programs[0];
        for (name, value) in &program.outputs {
            self.fetch(name, *value);
        }
        let mut updates: Vec<Vec<_>> = vec![vec![]; self.devices.len()];
        for (variable, value) in &program.updates {
            let of = &placed.graph.state[*variable];
            let mut seen = vec![false; self.devices.len()];
            let placement = placed.request.variable(of);
            for stage in placed.request.lives_in(of) {
                let instances = self.get(*value, &placement, stage);
                for (leaf, value) in instances.of.into_iter().enumerate() {
                    let device = usize::from(placed.mesh().device(stage, leaf));
                    let has = !matches!(&placement[..], [Spread::Owned { cuts }] if !owns(cuts, device as u16));
                    if has && !std::mem::replace(&mut seen[device], true) {
                        updates[device].push((*variable, value));
                    }
                }
            }
        }
        let turns = self.turns.into_devices();
        let parts = self.devices.into_iter().zip(self.arrives).zip(self.leaves).zip(updates).zip(turns);
        let devices = parts.map(|((((builder, arrives), leaves), updates), turns)| {
            let outputs = leaves.iter().map(|(channel, value)| (channel.to_string().into(), *value)).collect();
            let mut graph = builder.into_graph();
            graph.programs = vec![Program { name: program.name.clone(), outputs, updates, checks: vec![] }];
            DeviceGraph { graph, arrives, leaves: leaves.into_iter().map(|(channel, _)| channel).collect(), turns }
        });
        let mut parts =
            Partitioned { program: program.name.clone(), devices: devices.collect(), channels: self.channels };
        parts.drop_unread();
        parts
    }
}

/// An empty graph with the variables as a device has them.
fn local(placed: &Placed, device: usize) -> Builder {
    Builder::like(&Graph { state: placed.request.local_state(&placed.graph, device), ..placed.graph.clone() })
}

/// Where the loop of a node is cut along axis `m` of the mesh: as what it needs or makes is.
fn cuts_of(placed: &Placed, id: NodeId, m: usize) -> Arc<[u64]> {
    let mut spreads = placed.wants[id].iter().chain(&placed.values[id]).map(|p| &p[m]);
    let cuts = spreads.find_map(|s| if let Spread::Shard { cuts, .. } = s { Some(cuts.clone()) } else { None });
    cuts.unwrap_or_default()
}

/// A node that runs `kernel` where `like` was.
fn with_kernel(like: &Node, kernel: Kernel) -> Node {
    let types = kernel.results().iter().map(|t| t.dtype.of(&t.shape[..])).collect();
    let name = like.origin.clone().unwrap_or_else(|| like.op.schema().name.into());
    Node { op: Arc::new(KernelOp(Arc::new(kernel))), types, origin: Some(name), ..like.clone() }
}
