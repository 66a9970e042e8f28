//! What cutting gives: a graph per device and the channels between them; and what follows from these alone, such as which of
//! them nobody reads, and how far apart in crossings things are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::id::{Arena, Id, Side};
use crate::ir::{Graph, NodeId, Program, Value};
use crate::kernel::BufferType;
use crate::lower::LowerError;
use crate::passes::drop_dead_nodes;
use crate::plan::{Channel, ChannelId, Endpoint};
use crate::structural::Input;

/// What one device does of a program.
#[derive(Clone, Debug)]
pub struct DeviceGraph {
    /// One program: its inputs are what arrives, its outputs what leaves, its updates those of the device's variables.
    pub graph: Graph,
    /// Which channel each input arrives by.
    pub arrives: BTreeMap<Arc<str>, ChannelId>,
    /// Which channel each output leaves by, in order.
    pub leaves: Vec<ChannelId>,
    /// Of some nodes, not before which turn of a pipeline they are due.
    pub turns: BTreeMap<NodeId, u32>,
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
        let devices = vec![DeviceGraph { graph, arrives, leaves, turns: BTreeMap::new() }];
        Ok(Self { program: program.name.clone(), channels, devices })
    }
    /// Takes away what arrives and nobody reads, with what was computed for it alone, and numbers the other channels anew.
    pub(super) fn drop_unread(&mut self) {
        loop {
            let mut unread: BTreeSet<ChannelId> = BTreeSet::new();
            for device in &mut self.devices {
                let needed = device.graph.needed_by(&device.graph.programs[0]);
                let now = device.graph.nodes.ids().filter(|id| needed[*id]).enumerate();
                let now: BTreeMap<NodeId, NodeId> = now.map(|(i, was)| (was, Id::new(i))).collect();
                device.turns = device.turns.iter().filter_map(|(id, turn)| Some((*now.get(id)?, *turn))).collect();
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
    /// When everything is due.
    pub fn levels(&self) -> Levels {
        let own = |c: &Channel| u32::from(c.from != Endpoint::Driver && c.to != Endpoint::Driver);
        let channels = self.channels.iter().map(|(id, c)| (id, own(c))).collect();
        let nodes = self.devices.iter().map(|d| Side::filled(d.graph.nodes.len(), 0)).collect();
        let mut levels = Levels { channels, nodes };
        loop {
            let mut changed = false;
            for (device, of) in self.devices.iter().zip(&mut levels.nodes) {
                let graph = &device.graph;
                for (id, node) in graph.nodes.iter() {
                    // What the program does not need arrives by no channel.
                    let channel = node.op_as::<Input>().and_then(|i| device.arrives.get(&i.name));
                    let arrived = channel.map(|c| levels.channels[c]).or_else(|| device.turns.get(&id).copied());
                    of[id] = node.operands.iter().map(|v| of[v.node]).chain(arrived).max().unwrap_or(0);
                }
                for ((_, value), channel) in graph.programs[0].outputs.iter().zip(&device.leaves) {
                    let level = of[value.node] + own(&self.channels[*channel]);
                    let known = levels.channels.entry(*channel).or_default();
                    changed |= *known < level;
                    *known = level.max(*known);
                }
            }
            if !changed {
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

/// When things are due, as a number that grows along every way from a device to another and is nowhere less than that of what
/// is read: over how many crossings it has come, and not before its turn. Whoever does what is due first waits for nobody who
/// waits for him.
#[derive(Clone, Debug)]
pub struct Levels {
    /// When what arrives by each channel does so.
    pub channels: BTreeMap<ChannelId, u32>,
    /// By device and node.
    pub nodes: Vec<Side<NodeId, u32>>,
}
