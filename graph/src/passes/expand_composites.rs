//! Replaces composite ops by the primitives they are made of. Expanded nodes inherit the line and scope of the op they
//! came from, and its name, so that `explain` and the row-group recognizer still see a softmax.

use super::{copy, rebuild};
use crate::ir::Graph;
use crate::op::Mode;

/// Composites nest at most this deep; deeper means that one expands into itself.
const MAX_DEPTH: usize = 16;

/// The graph with primitives and structural ops only. A graph of several programs is expanded as one that learns if any
/// of them does.
pub fn expand_composites(graph: &Graph) -> Graph {
    let learns = graph.programs.iter().any(|p| p.mode() == Mode::Train);
    let mode = if learns { Mode::Train } else { Mode::Infer };
    let mut graph = graph.clone();
    for _ in 0..MAX_DEPTH {
        let mut expanded = 0;
        graph = rebuild(&graph, |to, _, node, operands| {
            let origin = node.origin.clone().unwrap_or_else(|| node.op.schema().name.into());
            match to.derived(node, Some(origin), || node.op.expand(to, &operands, mode)) {
                None => copy(to, node, operands),
                Some(values) => {
                    expanded += 1;
                    debug_assert_eq!(values.iter().map(|v| to.ty(*v)).collect::<Vec<_>>(), node.types);
                    if !operands.contains(&values[0]) {
                        if let Some(name) = &node.name {
                            to.name(values[0], name);
                        }
                        to.shard_like(values[0], node);
                    }
                    values
                }
            }
        });
        if expanded == 0 {
            break;
        }
    }
    graph
}
