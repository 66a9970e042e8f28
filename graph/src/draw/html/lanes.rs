//! Which lane of a picture a node stands in: what is computed forward, its gradients as a mirror beside it, and what becomes of
//! variables. Nobody says so when a graph is declared; it follows from what needs what.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use crate::id::Side;
use crate::ir::{Graph, NodeId, Program, VarKind};

/// A lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Lane {
    Forward,
    Backward,
    Update,
}

/// Where each node stands, and below which names.
pub(super) struct Lanes {
    pub(super) of: Side<NodeId, Lane>,
    /// Nodes that make the next value of one parameter only, by that parameter: optimizers declare no scopes.
    pub(super) parameter: BTreeMap<NodeId, Arc<str>>,
}

impl Lanes {
    pub(super) fn of(graph: &Graph) -> Self {
        let is_gradient = |id: NodeId| graph.nodes[id].origin.as_deref().is_some_and(|o| o.starts_with("grad."));
        let mut after = Side::filled(graph.nodes.len(), false);
        for (id, node) in graph.nodes.iter() {
            after[id] = is_gradient(id) || node.operands.iter().any(|v| after[v.node]);
        }
        let (mut forward, mut updated) =
            (Side::filled(graph.nodes.len(), false), Side::filled(graph.nodes.len(), false));
        for program in &graph.programs {
            let mut returns = Program { updates: vec![], checks: vec![], ..program.clone() };
            returns.outputs.retain(|(_, v)| !after[v.node]);
            let (returned, needed) = (graph.needed_by(&returns), graph.needed_by(program));
            for id in graph.nodes.ids() {
                forward[id] |= returned[id];
                updated[id] |= needed[id];
            }
        }
        let mut before = Side::filled(graph.nodes.len(), false);
        for (id, node) in graph.nodes.iter().rev() {
            if is_gradient(id) || before[id] {
                node.operands.iter().for_each(|v| before[v.node] = true);
            }
        }
        let mut of = Side::filled(graph.nodes.len(), Lane::Forward);
        for id in graph.nodes.ids() {
            of[id] = match () {
                () if is_gradient(id) => Lane::Backward,
                () if forward[id] || !updated[id] => Lane::Forward,
                () if before[id] => Lane::Backward,
                () => Lane::Update,
            };
        }
        Self { parameter: parameters(graph, &of), of }
    }
}

/// By node of the lane of updates, the one parameter for whose next value it is needed.
fn parameters(graph: &Graph, lanes: &Side<NodeId, Lane>) -> BTreeMap<NodeId, Arc<str>> {
    // What makes a parameter's next value makes those of its slots as well.
    let mut last: BTreeMap<NodeId, Arc<str>> = BTreeMap::new();
    for (variable, value) in graph.programs.iter().flat_map(|p| &p.updates) {
        let variable = &graph.state[*variable];
        if variable.kind == VarKind::Param || !last.contains_key(&value.node) {
            last.insert(value.node, variable.name.clone());
        }
    }
    // None: several.
    let mut claims: BTreeMap<NodeId, Option<Arc<str>>> = last.into_iter().map(|(id, name)| (id, Some(name))).collect();
    for (id, node) in graph.nodes.iter().rev().filter(|(id, _)| lanes[*id] == Lane::Update) {
        let Some(claim) = claims.get(&id).cloned() else { continue };
        for operand in &node.operands {
            let there = claims.entry(operand.node).or_insert_with(|| claim.clone());
            if *there != claim {
                *there = None;
            }
        }
    }
    let own = |(id, claim): (NodeId, Option<Arc<str>>)| Some((id, claim.filter(|_| lanes[id] == Lane::Update)?));
    claims.into_iter().filter_map(own).collect()
}
