//! Cutting: a placed program → one graph per device, and the channels between them. Each leaf's share of each value is a value
//! of its device's graph; what several leaves of a device have in common is there once. Whatever crosses does so once per step.
//!
//! A device's graph is an ordinary graph of one program. What arrives is an input called after its channel, `#3`; what leaves
//! is an output. So it prints, verifies, evaluates and is lowered as any other graph, and nothing later is opaque.

mod buckets;
mod convert;
mod reduce;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::builder::Builder;
use crate::id::{Arena, Id, Side};
use crate::ir::{Graph, Node, NodeId, Program, Value};
use crate::kernel::{BufferType, Kernel};
use crate::lower::LowerError;
use crate::passes::drop_dead_nodes;
use crate::place::{Cut, Part, Placed, Placement, Spread, Way, share, share_type};
use crate::plan::{Channel, ChannelId, Endpoint};
use crate::structural::{Input, KernelOp, ReadVariable, Row};

/// What one device does of a program.
#[derive(Clone, Debug)]
pub struct DeviceGraph {
    /// One program: its inputs are what arrives, its outputs what leaves, its updates those of the device's variables.
    pub graph: Graph,
    /// Which channel each input arrives by.
    pub arrives: BTreeMap<Arc<str>, ChannelId>,
    /// Which channel each output leaves by, in order.
    pub leaves: Vec<ChannelId>,
}

/// A program over several devices.
#[derive(Clone, Debug)]
pub struct Partitioned {
    /// The program's name.
    pub program: Arc<str>,
    /// What crosses.
    pub channels: Arena<ChannelId, Channel>,
    /// By device.
    pub devices: Vec<DeviceGraph>,
}

impl Partitioned {
    /// A program on one device: nothing crosses but feeds and fetches.
    ///
    /// # Errors
    /// If a type has named dimensions.
    pub fn single(graph: &Graph, program: &Program) -> Result<Self, LowerError> {
        let bound = |value: Value| {
            let node = &graph.nodes[value.node];
            let (label, site, ty) = (node.label(), node.site.clone(), graph.ty(value).to_string());
            BufferType::of(graph.ty(value)).ok_or(LowerError::Unbound { label, site, ty })
        };
        let mut channels = Arena::default();
        let mut arrives = BTreeMap::new();
        for (id, input) in graph.inputs_of(program) {
            let ty = bound(id.into())?;
            let (from, to) = (Endpoint::Driver, Endpoint::Device(0));
            arrives.insert(
                input.name.clone(),
                channels.push(Channel { from, to, ty, start: 0, label: input.name.clone() }),
            );
        }
        let mut leaves = Vec::new();
        for (name, value) in &program.outputs {
            let ty = bound(*value)?;
            let (from, to) = (Endpoint::Device(0), Endpoint::Driver);
            leaves.push(channels.push(Channel { from, to, ty, start: 0, label: name.clone() }));
        }
        let graph = Graph { programs: vec![program.clone()], ..graph.clone() };
        let devices = vec![DeviceGraph { graph, arrives, leaves }];
        Ok(Self { program: program.name.clone(), channels, devices })
    }
}

impl Partitioned {
    /// Takes away what arrives and nobody reads, with what was computed for it alone, and numbers the other channels anew.
    fn drop_unread(&mut self) {
        loop {
            let mut unread: BTreeSet<ChannelId> = BTreeSet::new();
            for device in &mut self.devices {
                device.graph = drop_dead_nodes(&device.graph);
                let read: BTreeSet<Arc<str>> =
                    device.graph.nodes.values().iter().filter_map(|n| Some(n.op_as::<Input>()?.name.clone())).collect();
                device.arrives.retain(|name, channel| {
                    let is_read = read.contains(name);
                    unread.extend((!is_read).then_some(*channel));
                    is_read
                });
            }
            if unread.is_empty() {
                break;
            }
            for device in &mut self.devices {
                let keep: Vec<bool> = device.leaves.iter().map(|c| !unread.contains(c)).collect();
                let mut kept = keep.iter();
                device.leaves.retain(|_| *kept.next().expect("one for each"));
                let mut kept = keep.iter();
                device.graph.programs[0].outputs.retain(|_| *kept.next().expect("one for each"));
            }
        }
        self.renumber();
    }
    /// Over how many crossings between devices, one behind the other, what arrives by each channel has come.
    pub fn levels(&self) -> BTreeMap<ChannelId, u32> {
        let own = |c: &Channel| u32::from(c.from != Endpoint::Driver && c.to != Endpoint::Driver);
        let mut levels: BTreeMap<ChannelId, u32> = self.channels.iter().map(|(id, c)| (id, own(c))).collect();
        loop {
            let before = levels.clone();
            for device in &self.devices {
                let graph = &device.graph;
                let mut of: Side<NodeId, u32> = Side::filled(graph.nodes.len(), 0);
                for (id, node) in graph.nodes.iter() {
                    // What the program does not need arrives by no channel.
                    let channel = node.op_as::<Input>().and_then(|i| device.arrives.get(&i.name));
                    let arrived = channel.map(|c| levels[c]);
                    of[id] = node.operands.iter().map(|v| of[v.node]).chain(arrived).max().unwrap_or(0);
                }
                for ((_, value), channel) in graph.programs[0].outputs.iter().zip(&device.leaves) {
                    let level = of[value.node] + own(&self.channels[*channel]);
                    levels.entry(*channel).and_modify(|l| *l = (*l).max(level));
                }
            }
            if levels == before {
                return levels;
            }
        }
    }
    fn renumber(&mut self) {
        let left = self.devices.iter().flat_map(|d| d.arrives.values().chain(&d.leaves));
        let left: BTreeSet<ChannelId> = left.copied().collect();
        let now: BTreeMap<ChannelId, ChannelId> = left.iter().enumerate().map(|(i, c)| (*c, Id::new(i))).collect();
        self.channels = left.iter().map(|c| self.channels[*c].clone()).collect();
        for device in &mut self.devices {
            for id in device.graph.nodes.ids() {
                let node = &mut device.graph.nodes[id];
                if let Some(input) = node.op_as::<Input>() {
                    let name = now[&device.arrives[&input.name]].to_string().into();
                    node.op = Arc::new(Input { name, ty: input.ty.clone() });
                }
            }
            device.arrives = device.arrives.values().map(|c| (now[c].to_string().into(), now[c])).collect();
            device.leaves.iter_mut().for_each(|c| *c = now[c]);
            let outputs = &mut device.graph.programs[0].outputs;
            outputs.iter_mut().zip(&device.leaves).for_each(|((name, _), c)| *name = c.to_string().into());
        }
    }
}

/// Cuts a placed program for `devices` devices.
pub fn partition(placed: &Placed, devices: usize) -> Partitioned {
    let mut cutter = Cutter::new(placed, devices);
    cutter.nodes();
    cutter.finish()
}

/// By leaf: its share of a value, in the graph of its device.
type Instances = Vec<Value>;

struct Cutter<'a> {
    placed: &'a Placed,
    devices: Vec<Builder>,
    channels: Arena<ChannelId, Channel>,
    arrives: Vec<BTreeMap<Arc<str>, ChannelId>>,
    leaves: Vec<Vec<(ChannelId, Value)>>,
    /// Values as they are and as they were converted.
    made: HashMap<(Value, Placement), Instances>,
    /// What has crossed, by where it was and where it went.
    crossed: HashMap<(u16, Value, u16), Value>,
    /// Which sums are formed together.
    buckets: buckets::Buckets,
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
        }
    }
    fn device(&self, leaf: usize) -> u16 {
        self.placed.mesh().devices[leaf]
    }
    fn on(&self, device: u16) -> &Builder {
        &self.devices[usize::from(device)]
    }
    fn leaf_count(&self) -> usize {
        self.placed.mesh().leaves()
    }

    /// Every node, in order; but those that read what buckets sum up come when that is there.
    fn nodes(&mut self) {
        let needed = self.placed.needed();
        let nodes: Vec<NodeId> = self.placed.graph.nodes.ids().filter(|id| needed[*id]).collect();
        let (late, early): (Vec<_>, Vec<_>) = nodes.into_iter().partition(|id| self.buckets.is_late(*id));
        for id in early {
            self.node(id);
            for bucket in self.buckets.ready(id) {
                self.sum_bucket(&bucket);
            }
        }
        for bucket in self.buckets.rest() {
            self.sum_bucket(&bucket);
        }
        late.into_iter().for_each(|id| self.node(id));
    }

    /// The instances of one node's results.
    fn node(&mut self, id: NodeId) {
        let placed = self.placed;
        let node = &placed.graph.nodes[id];
        if let Some(input) = node.op_as::<Input>() {
            let instances = self.feed(id, node, input);
            self.made.insert((id.into(), placed.of(id.into()).clone()), instances);
            return;
        }
        if let Some(read) = node.op_as::<ReadVariable>() {
            let instances = self.variable(node, read);
            self.made.insert((id.into(), placed.of(id.into()).clone()), instances);
            return;
        }
        let operands: Vec<Instances> =
            node.operands.iter().zip(&placed.wants[id]).map(|(v, want)| self.get(*v, want)).collect();
        if let [Way { cut: Cut::Flat, .. }] = &placed.ways[id][..] {
            return self.compute_flat(id, &operands);
        }
        let cuts: Vec<_> = (0..placed.mesh().axes.len()).map(|m| cuts_of(placed, id, m)).collect();
        self.compute(id, &placed.ways[id], &cuts, &operands, &placed.values[id]);
    }
    /// Emits a node, spread as `ways` say, on every leaf; notes the instances of its results. Where a loop is cut, `cuts` say
    /// where, by axis of the mesh.
    fn compute(
        &mut self,
        id: NodeId,
        ways: &[Way],
        cuts: &[Arc<[u64]>],
        operands: &[Instances],
        results: &[Placement],
    ) {
        let placed = self.placed;
        let node = &placed.graph.nodes[id];
        let kernel = OnceKernel::default();
        // By device, what is read, and which part is made.
        type Key = (u16, Vec<Value>, Vec<(u64, u64)>);
        let mut known: HashMap<Key, NodeId> = HashMap::new();
        let mut instances: Vec<Instances> = vec![vec![]; node.types.len()];
        for leaf in 0..self.leaf_count() {
            let (device, at) = (self.device(leaf), placed.mesh().coordinates(leaf));
            let reads: Vec<Value> = operands.iter().map(|o| o[leaf]).collect();
            let ranges: Vec<(u64, u64)> = results
                .iter()
                .enumerate()
                .flat_map(|(slot, p)| share(&placed.ty(Value { node: id, slot: slot as u16 }), p, &at))
                .map(|r| (r.start, r.end))
                .chain(folded(ways, &at))
                .collect();
            let emitted = *known.entry((device, reads.clone(), ranges)).or_insert_with(|| {
                let to = self.on(device);
                if ways.iter().all(|w| w.cut == Cut::Nothing) {
                    return to.copy(node, reads);
                }
                let types =
                    |slot: usize, p: &Placement| share_type(&placed.ty(Value { node: id, slot: slot as u16 }), p, &at);
                let to_types: Vec<BufferType> = results.iter().enumerate().map(|(s, p)| types(s, p)).collect();
                let from_types = reads.iter().map(|v| BufferType::of(&to.ty(*v)).expect("bound")).collect();
                let kernel = cut(kernel.of(placed, id), ways, cuts, &at, from_types, to_types);
                to.copy(&with_kernel(node, kernel), reads)
            });
            for (slot, of) in instances.iter_mut().enumerate() {
                of.push(Value { node: emitted, slot: slot as u16 });
            }
        }
        for (slot, (of, placement)) in instances.into_iter().zip(results).enumerate() {
            self.made.insert((Value { node: id, slot: slot as u16 }, placement.clone()), of);
        }
    }

    /// Emits an element-wise node over each device's range of all elements.
    fn compute_flat(&mut self, id: NodeId, operands: &[Instances]) {
        let placed = self.placed;
        let (node, kernel) = (&placed.graph.nodes[id], OnceKernel::default());
        let mut known: BTreeMap<u16, NodeId> = BTreeMap::new();
        let mut instances: Vec<Instances> = vec![vec![]; node.types.len()];
        for leaf in 0..self.leaf_count() {
            let device = self.device(leaf);
            let emitted = *known.entry(device).or_insert_with(|| {
                let Spread::Owned { cuts } = &placed.values[id][0][0] else { unreachable!("a flat way owns") };
                let i = usize::from(device);
                let kernel = kernel.of(placed, id).flattened(cuts[i + 1] - cuts[i]).expect("placing has flattened it");
                let reads = operands.iter().zip(kernel.operands());
                let reads = reads.map(|(o, ty)| self.relabel(device, node, o[leaf], &ty.shape)).collect();
                self.on(device).copy(&with_kernel(node, kernel), reads)
            });
            for (slot, of) in instances.iter_mut().enumerate() {
                of.push(Value { node: emitted, slot: slot as u16 });
            }
        }
        for (slot, of) in instances.into_iter().enumerate() {
            self.made.insert((Value { node: id, slot: slot as u16 }, placed.values[id][slot].clone()), of);
        }
    }

    /// The rows of an input that each leaf needs, from the driver.
    fn feed(&mut self, id: NodeId, node: &Node, input: &Input) -> Instances {
        let placed = self.placed;
        let (ty, placement) = (placed.ty(id.into()), placed.of(id.into()));
        let mut known: HashMap<(u16, u64, u64), Value> = HashMap::new();
        let mut instances = Vec::new();
        for leaf in 0..self.leaf_count() {
            let (device, at) = (self.device(leaf), placed.mesh().coordinates(leaf));
            let ranges = share(&ty, placement, &at);
            // Rows of the outermost axis lie side by side; of another axis they do not, and each device takes all.
            let (share_ty, start, rest) = contiguous(&ty, &ranges);
            let key = (device, start, share_ty.len() as u64);
            let whole = *known.entry(key).or_insert_with(|| {
                let channel = Channel {
                    from: Endpoint::Driver,
                    to: Endpoint::Device(device),
                    ty: share_ty.clone(),
                    start,
                    label: input.name.clone(),
                };
                let channel = self.channels.push(channel);
                arrive(
                    &self.devices[usize::from(device)],
                    &mut self.arrives[usize::from(device)],
                    channel,
                    &share_ty,
                    node,
                )
            });
            instances.push(match rest {
                None => whole,
                Some((axis, range)) => self.emit(device, node, Kernel::slice(share_ty, axis, range), vec![whole]),
            });
        }
        instances
    }
    fn variable(&mut self, node: &Node, read: &ReadVariable) -> Instances {
        let mut known: BTreeMap<u16, Value> = BTreeMap::new();
        let leaves = 0..self.leaf_count();
        leaves
            .map(|leaf| {
                let device = self.device(leaf);
                *known.entry(device).or_insert_with(|| {
                    let to = self.on(device);
                    let ty = to.with_graph(|g| g.state[g.variable(&read.variable).expect("placed")].ty.clone());
                    let op = Arc::new(ReadVariable { variable: read.variable.clone(), ty: ty.clone() });
                    to.copy(&Node { op, types: vec![ty], ..node.clone() }, vec![]).into()
                })
            })
            .collect()
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
    /// The same elements under other extents.
    fn relabel(&self, device: u16, like: &Node, value: Value, shape: &[u64]) -> Value {
        let from = BufferType::of(&self.on(device).ty(value)).expect("bound");
        if from.shape == shape {
            return value;
        }
        let to = BufferType { dtype: from.dtype, shape: shape.to_vec() };
        self.emit(device, like, Kernel::relabel(from, to), vec![value])
    }
    /// As one axis.
    fn flat(&self, device: u16, like: &Node, value: Value) -> Value {
        let n = BufferType::of(&self.on(device).ty(value)).expect("bound").len() as u64;
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
        let ty = BufferType::of(&self.on(from).ty(value)).expect("bound");
        let label = like.path();
        let label = if label.is_empty() { like.op.schema().name.into() } else { label.into() };
        let ends = (Endpoint::Device(from), Endpoint::Device(to));
        let channel = self.channels.push(Channel { from: ends.0, to: ends.1, ty: ty.clone(), start: 0, label });
        self.leaves[usize::from(from)].push((channel, value));
        let arrived = arrive(&self.devices[usize::from(to)], &mut self.arrives[usize::from(to)], channel, &ty, like);
        self.crossed.insert((from, value, to), arrived);
        arrived
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
            let instances = self.get(*value, &placed.request.variable(&placed.graph.state[*variable]));
            let mut seen = vec![false; self.devices.len()];
            for (leaf, value) in instances.into_iter().enumerate() {
                let device = usize::from(self.device(leaf));
                if !std::mem::replace(&mut seen[device], true) {
                    updates[device].push((*variable, value));
                }
            }
        }
        let parts = self.devices.into_iter().zip(self.arrives).zip(self.leaves).zip(updates);
        let devices = parts.map(|(((builder, arrives), leaves), updates)| {
            let outputs = leaves.iter().map(|(channel, value)| (channel.to_string().into(), *value)).collect();
            let mut graph = builder.into_graph();
            graph.programs = vec![Program { name: program.name.clone(), outputs, updates, checks: vec![] }];
            DeviceGraph { graph, arrives, leaves: leaves.into_iter().map(|(channel, _)| channel).collect() }
        });
        let mut parts =
            Partitioned { program: program.name.clone(), devices: devices.collect(), channels: self.channels };
        parts.drop_unread();
        parts
    }
    /// An output, from those that have it: rows from each leaf, or all of it from the first.
    fn fetch(&mut self, name: &Arc<str>, value: Value) {
        let placed = self.placed;
        let mut placement = placed.of(value).clone();
        let ty = placed.ty(value);
        for spread in &mut placement {
            let rows =
                matches!(spread, Spread::Shard { axis, .. } if ty.shape[..usize::from(*axis)].iter().all(|n| *n == 1));
            if !rows {
                *spread = Spread::Replicate;
            }
        }
        let instances = self.get(value, &placement);
        let (mut known, whole) = (Vec::new(), ty);
        for (leaf, value) in instances.into_iter().enumerate() {
            let (device, at) = (self.device(leaf), placed.mesh().coordinates(leaf));
            let (ty, start, rest) = contiguous(&whole, &share(&whole, &placement, &at));
            assert!(rest.is_none(), "only rows of the outermost axis are fetched in parts");
            let what = (start, ty.len());
            if known.contains(&what) || (ty.is_empty() && !whole.is_empty()) {
                continue;
            }
            known.push(what);
            let (from, to) = (Endpoint::Device(device), Endpoint::Driver);
            let channel = self.channels.push(Channel { from, to, ty, start, label: name.clone() });
            self.leaves[usize::from(device)].push((channel, value));
        }
    }
}

/// An empty graph with the variables as a device has them.
fn local(placed: &Placed, device: usize) -> Builder {
    Builder::like(&Graph { state: placed.request.local_state(&placed.graph, device), ..placed.graph.clone() })
}

/// The kernel of a node, made when it is first needed.
#[derive(Default)]
struct OnceKernel(std::cell::OnceCell<Kernel>);

impl OnceKernel {
    fn of(&self, placed: &Placed, id: NodeId) -> &Kernel {
        self.0.get_or_init(|| {
            let node = &placed.graph.nodes[id];
            let operands: Vec<BufferType> = node.operands.iter().map(|v| placed.ty(*v)).collect();
            let results: Vec<BufferType> = node.values(id).map(|v| placed.ty(v)).collect();
            node.op.lower(&operands, &results).expect("placing has lowered it")
        })
    }
}

/// The kernel that the leaf at `at` runs.
fn cut(
    kernel: &Kernel,
    ways: &[Way],
    cuts: &[Arc<[u64]>],
    at: &[usize],
    operands: Vec<BufferType>,
    results: Vec<BufferType>,
) -> Kernel {
    let mut kernel = kernel.clone();
    for (m, way) in ways.iter().enumerate() {
        let (operands, results) = (operands.clone(), results.clone());
        kernel = match way.cut {
            Cut::Nothing => continue,
            Cut::Flat => unreachable!("what is flat is not cut by leaves"),
            Cut::Tensors(_) => kernel.cut_tensors(operands, results),
            Cut::Relabel => Kernel::relabel(operands[0].clone(), results[0].clone()),
            Cut::Loop(axis) => kernel.cut_loop(axis, cuts[m][at[m]]..cuts[m][at[m] + 1], operands, results),
        };
    }
    kernel
}

/// Where the loop of a node is cut along axis `m` of the mesh: as what it needs or makes is.
fn cuts_of(placed: &Placed, id: NodeId, m: usize) -> Arc<[u64]> {
    let mut spreads = placed.wants[id].iter().chain(&placed.values[id]).map(|p| &p[m]);
    let cuts = spreads.find_map(|s| if let Spread::Shard { cuts, .. } = s { Some(cuts.clone()) } else { None });
    cuts.unwrap_or_default()
}

/// What tells leaves apart that make the same range of a result: the parts of a fold that they have.
fn folded<'w>(ways: &'w [Way], at: &'w [usize]) -> impl Iterator<Item = (u64, u64)> + 'w {
    let partial = |w: &Way| w.cut != Cut::Nothing && w.results.iter().any(|p| matches!(p, Part::Partial(_)));
    ways.iter().zip(at).map(move |(w, i)| if partial(w) { (*i as u64, 1) } else { (0, 0) })
}

/// A node that runs `kernel` where `like` was.
fn with_kernel(like: &Node, kernel: Kernel) -> Node {
    let types = kernel.results().iter().map(|t| t.dtype.of(&t.shape[..])).collect();
    let name = like.origin.clone().unwrap_or_else(|| like.op.schema().name.into());
    Node { op: Arc::new(KernelOp(Arc::new(kernel))), types, origin: Some(name), ..like.clone() }
}

/// An input for what arrives.
fn arrive(
    to: &Builder,
    arrives: &mut BTreeMap<Arc<str>, ChannelId>,
    channel: ChannelId,
    ty: &BufferType,
    like: &Node,
) -> Value {
    let name: Arc<str> = channel.to_string().into();
    let ty = ty.dtype.of(&ty.shape[..]);
    let node = Node {
        op: Arc::new(Input { name: name.clone(), ty: ty.clone() }),
        types: vec![ty],
        operands: vec![],
        ..like.clone()
    };
    arrives.insert(name, channel);
    to.copy(&node, vec![]).into()
}

/// The range of whole rows around a box: its type, its first element, and what has to be cut out of it along which axis.
#[allow(clippy::type_complexity)]
fn contiguous(
    ty: &BufferType,
    ranges: &[std::ops::Range<u64>],
) -> (BufferType, u64, Option<(u16, std::ops::Range<u64>)>) {
    let cut: Vec<usize> = (0..ty.rank()).filter(|d| ranges[*d] != (0..ty.shape[*d])).collect();
    let leads = |d: usize| ty.shape[..d].iter().all(|n| *n == 1);
    match cut[..] {
        [] => (ty.clone(), 0, None),
        [d] if leads(d) => {
            let mut part = ty.clone();
            part.shape[d] = ranges[d].end - ranges[d].start;
            let inner: u64 = ty.shape[d + 1..].iter().product();
            (part, ranges[d].start * inner, None)
        }
        [d, e] if leads(d) => {
            let mut part = ty.clone();
            part.shape[d] = ranges[d].end - ranges[d].start;
            let inner: u64 = ty.shape[d + 1..].iter().product();
            (part, ranges[d].start * inner, Some((e as u16, ranges[e].clone())))
        }
        [d] => (ty.clone(), 0, Some((d as u16, ranges[d].clone()))),
        _ => unreachable!("one cut per axis of a mesh of at most two axes"),
    }
}
