//! Why a launch is where it is, and in that shape: how placement spread the node that it computes. A launch carries the
//! label of the nodes that it is made of; where several nodes have one label, as both gradients of a product do, the one
//! whose shares have the launch's extents is meant.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ir::{NodeId, Value};
use crate::kernel::BufferType;
use crate::place::{Cut, Part, Placed, WORKERS, share_type};
use crate::plan::{BufferId, ChannelId, Endpoint, Instruction, Launch, Place, Plan};

/// How nodes are spread, by the labels that launches have.
pub(super) struct Reasons<'a> {
    placed: &'a Placed,
    by_label: BTreeMap<String, Vec<NodeId>>,
}

impl<'a> Reasons<'a> {
    pub(super) fn new(placed: &'a Placed) -> Self {
        let mut by_label: BTreeMap<String, Vec<NodeId>> = BTreeMap::new();
        for (id, node) in placed.graph.nodes.iter() {
            by_label.entry(node.label()).or_default().push(id);
            // What was cut has its kernel for an op, and the op for its origin.
            let origin = node.origin.clone().unwrap_or_else(|| node.op.schema().name.into());
            let origin = match origin.strip_prefix("grad.") {
                Some(of) => format!("gradient of {of}"),
                None => origin.to_string(),
            };
            let path = node.path();
            let scope = if path.is_empty() { String::new() } else { format!("{path}: ") };
            by_label.entry(format!("{scope}kernel ({origin})")).or_default().push(id);
        }
        Self { placed, by_label }
    }

    /// How the first node of a launch with these operands and results is spread; nothing if there is no such node.
    fn of(&self, label: &str, operands: &[BufferType], results: &[BufferType]) -> Option<String> {
        let first = [" + ", " | ", " … "].iter().filter_map(|by| label.find(by)).min().unwrap_or(label.len());
        let nodes = self.by_label.get(&label[..first])?;
        let score = |id: NodeId| {
            let node = &self.placed.graph.nodes[id];
            let size = |ty: &BufferType, placement: &[_]| {
                let at = vec![0; self.placed.mesh().axes.len()];
                share_type(ty, placement, &at).len()
            };
            let has = |types: &[BufferType], n: usize| types.iter().any(|t| t.len() == n);
            let read = node.operands.iter().zip(&self.placed.wants[id]);
            let read = read.filter(|(v, want)| has(operands, size(&self.placed.ty(**v), want))).count();
            let written = size(&self.placed.ty(id.into()), self.placed.of(id.into()));
            (usize::from(has(results, written)) + read, usize::MAX - node.operands.len())
        };
        let best = nodes.iter().map(|id| score(*id)).max()?;
        let mut said: Vec<String> = vec![];
        for id in nodes.iter().filter(|id| score(**id) == best) {
            let one = self.node(*id);
            if !said.contains(&one) {
                said.push(one);
            }
        }
        Some(said.join(" or "))
    }

    fn node(&self, id: NodeId) -> String {
        let (node, mesh) = (&self.placed.graph.nodes[id], self.placed.mesh());
        let axis = |((_, leaves), way): (&(Arc<str>, u16), &crate::place::Way)| {
            let along = |part: &Part| match part {
                Part::Along(d) => Some(*d),
                _ => None,
            };
            let with = way.operands.iter().position(|p| along(p).is_some());
            let with = with.map_or(String::new(), |k| format!(" with {}", self.name(node.operands[k])));
            match (way.cut, way.results.first()) {
                (Cut::Nothing, Some(Part::Partial(_))) => format!("{leaves} parts of a sum, not yet added"),
                (Cut::Nothing, _) => "everywhere".into(),
                (_, Some(Part::Partial(monoid))) => format!("{} over {leaves} leaves{with}", monoid.name()),
                (_, Some(Part::Along(d))) => format!("cut along axis {d}{with}"),
                (_, _) => format!("cut{with}"),
            }
        };
        let said: Vec<String> = mesh.axes.iter().zip(&self.placed.ways[id]).map(axis).collect();
        let said = if said.is_empty() { "everywhere".into() } else { said.join(", ") };
        if mesh.stages.len() == 1 { said } else { format!("{}; {said}", self.stage(id)) }
    }
    /// In which stage a node is, and why.
    fn stage(&self, id: NodeId) -> String {
        let (node, stages) = (&self.placed.graph.nodes[id], &self.placed.request.stages);
        let Some(stage) = self.placed.stages[id] else { return "in every stage that needs it".into() };
        if self.placed.request.servers.is_some() {
            return if stage == WORKERS {
                "on workers".into()
            } else {
                "on servers, with the variables it is about".into()
            };
        }
        let why = match (&node.pin, stages.stems.contains_key(&node.stem)) {
            (Some(pin), _) if stages.said(node).is_some() => format!("pinned {pin}"),
            (_, true) => "where its layer is cut to".into(),
            _ => "with most of what it reads".into(),
        };
        format!("stage {stage}, {why}")
    }

    fn name(&self, value: Value) -> String {
        let node = &self.placed.graph.nodes[value.node];
        if let Some(input) = node.op_as::<crate::structural::Input>() {
            return input.name.to_string();
        }
        let path = node.path();
        if path.is_empty() { node.op.schema().name.into() } else { path }
    }
}

/// Why a launch is where it is.
pub(super) fn of_launch(plan: &Plan, place: Place, launch: &Launch, reasons: Option<&Reasons<'_>>) -> String {
    let Some(reasons) = reasons else { return "the only device".into() };
    let part = &plan.devices[usize::from(place.device)];
    if place.instruction >= part.tail_start() {
        return "updates variables where they lie".into();
    }
    let arrived = arrivals(plan, place, &launch.reads);
    if !arrived.is_empty() {
        let list: Vec<String> = arrived.iter().take(3).map(ChannelId::to_string).collect();
        let more = if arrived.len() > 3 { format!(" and {} more", arrived.len() - 3) } else { String::new() };
        return format!("combines what came by {}{more}", list.join(", "));
    }
    let kernel = &plan.kernels[launch.kernel];
    let found = reasons.of(&launch.label, kernel.operands(), kernel.results());
    found.unwrap_or_else(|| "part of a sum or an exchange between leaves".into())
}

/// By which channels from other devices these buffers, or what they are put together of, arrived.
fn arrivals(plan: &Plan, place: Place, reads: &[BufferId]) -> Vec<ChannelId> {
    let part = &plan.devices[usize::from(place.device)];
    let pieces = |b: &BufferId| part.buffers[*b].pieces.iter().map(|p| p.buffer).collect::<Vec<_>>();
    let all: Vec<BufferId> = reads.iter().flat_map(|b| [vec![*b], pieces(b)].concat()).collect();
    let waits = part.instructions.iter().filter_map(|i| match i {
        Instruction::Wait { channel, buffer } if all.contains(buffer) => Some(*channel),
        _ => None,
    });
    waits.filter(|c| plan.channels[*c].from != Endpoint::Driver).collect()
}
