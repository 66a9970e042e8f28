//! Merges nodes that compute the same thing: equal op, attributes and operands. The first one stays, with its name and
//! line; where several are to be spread over a mesh, as the first that says so. Random ops carry their stream as an attribute, so two dropouts never merge.

use std::collections::HashMap;

use super::{copy, rebuild};
use crate::ir::{Graph, Value};

/// The graph in which no two nodes compute the same.
pub fn merge_common_nodes(graph: &Graph) -> Graph {
    let mut seen: HashMap<(&'static str, String, Vec<Value>, String), Vec<Value>> = HashMap::new();
    rebuild(graph, |to, _, node, operands| {
        let key = (
            node.op.schema().name,
            format!("{:?}", node.op.attrs()),
            operands.clone(),
            // Structural ops state their types; for all others they follow from the rest.
            if operands.is_empty() { format!("{:?}", node.types) } else { String::new() },
        );
        let values = seen.entry(key).or_insert_with(|| copy(to, node, operands)).clone();
        if let Some(first) = values.first() {
            to.shard_like(*first, node);
        }
        values
    })
}
