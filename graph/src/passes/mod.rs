//! Passes: functions from graph to graph, one to a file named by a verb phrase, in one commented list. None names an
//! op: what has to know ops lives beside them.

mod drop_dead_nodes;
mod expand_composites;
mod merge_common_nodes;
mod select_program;

use std::collections::BTreeMap;

pub use drop_dead_nodes::drop_dead_nodes;
pub use expand_composites::expand_composites;
pub use merge_common_nodes::merge_common_nodes;
pub use select_program::select_program;

use crate::builder::Builder;
use crate::ir::{Graph, Node, NodeId, Value};

/// A pass and its name.
#[derive(Clone, Copy)]
pub struct Pass {
    /// Its name, a verb phrase.
    pub name: &'static str,
    /// What it does.
    pub run: fn(&Graph) -> Graph,
}

macro_rules! pass {
    ($name:ident) => {
        Pass { name: stringify!($name), run: $name }
    };
}

/// What happens to a program between declaration and placement.
pub const STANDARD: &[Pass] = &[
    pass!(merge_common_nodes), // first, while a softmax is still one thing
    pass!(expand_composites),  // before placement, which needs primitives
    pass!(merge_common_nodes), // again: the expansion of a gradient repeats that of its forward op
    pass!(drop_dead_nodes),
]; // fusion is not here: it belongs to one device's kernels, after the schedule

/// Runs `passes` in order; `observe` sees the graph after each, by the pass's name.
///
/// # Panics
/// If a pass leaves a graph that does not verify: the pass is wrong, and is named.
pub fn run_passes(graph: &Graph, passes: &[Pass], observe: &mut dyn FnMut(&str, &Graph)) -> Graph {
    passes.iter().fold(graph.clone(), |graph, pass| {
        let next = (pass.run)(&graph);
        observe(pass.name, &next);
        let faults = next.verify();
        assert!(faults.is_empty(), "the pass `{}` left an unsound graph: {}", pass.name, faults[0]);
        next
    })
}

/// Makes a graph anew, node by node: `replace` says which values stand for the node's results.
fn rebuild(graph: &Graph, mut replace: impl FnMut(&Builder, NodeId, &Node, Vec<Value>) -> Vec<Value>) -> Graph {
    let to = Builder::like(graph);
    let mut now: BTreeMap<Value, Value> = BTreeMap::new();
    for (id, node) in graph.nodes.iter() {
        let operands: Option<Vec<Value>> = node.operands.iter().map(|v| now.get(v).copied()).collect();
        // An operand that was dropped drops its readers.
        let Some(operands) = operands else { continue };
        for (old, new) in node.values(id).zip(replace(&to, id, node, operands)) {
            now.insert(old, new);
        }
    }
    let mut made = to.into_graph();
    made.programs = graph.programs.clone();
    for program in &mut made.programs {
        program.outputs.iter_mut().for_each(|(_, v)| *v = now[v]);
        program.updates.iter_mut().for_each(|(_, v)| *v = now[v]);
        program.checks.iter_mut().for_each(|c| (c.of, c.status) = (now[&c.of], now[&c.status]));
    }
    made
}

/// The results of a copy of `node`.
fn copy(to: &Builder, node: &Node, operands: Vec<Value>) -> Vec<Value> {
    let id = to.copy(node, operands);
    node.values(id).collect()
}
