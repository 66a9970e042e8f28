//! Drops the nodes that no program needs.

use super::{copy, rebuild};
use crate::id::Side;
use crate::ir::Graph;

/// The graph without nodes that no program needs.
pub fn drop_dead_nodes(graph: &Graph) -> Graph {
    let mut needed = Side::filled(graph.nodes.len(), false);
    for program in &graph.programs {
        let of_this = graph.needed_by(program);
        graph.nodes.ids().filter(|id| of_this[*id]).for_each(|id| needed[id] = true);
    }
    rebuild(graph, |to, id, node, operands| if needed[id] { copy(to, node, operands) } else { vec![] })
}
