//! Cuts a graph down to one program: its nodes and all variables. Passes that need to know whether a program learns
//! look at graphs of one program.

use super::drop_dead_nodes;
use crate::ir::Graph;

/// The graph of one program alone; `None` if there is none of that name.
pub fn select_program(graph: &Graph, name: &str) -> Option<Graph> {
    let program = graph.program(name)?.clone();
    Some(drop_dead_nodes(&Graph { programs: vec![program], ..graph.clone() }))
}
