//! Where a pipeline is cut if nobody says: between declarations, so that the slowest stage is as fast as can be. What a layer
//! takes is what everything that stems from its declaration takes, gradients included; what crosses a cut counts for both
//! sides. Exact for that measure, by dynamic programming over the layers in their order (as PipeDream partitions,
//! Narayanan et al., SOSP 2019).

use std::collections::{BTreeMap, BTreeSet};

use crate::cost::{Rates, seconds};
use crate::id::Side;
use crate::ir::{Graph, NodeId, Value};
use crate::kernel::BufferType;

/// What a stage runs on.
pub(crate) struct StageOn {
    /// How fast its device is.
    pub(crate) rates: Rates,
    /// Bytes per second to the next stage.
    pub(crate) bytes_per_second: f64,
}

/// The declarations that a pipeline is made of: those that have a gradient, and those between them that need none, such as
/// the sum behind a residual branch. All, where nothing has a gradient.
pub(crate) fn layers(declared: &Graph) -> BTreeSet<u32> {
    let nodes = &declared.nodes;
    let is_gradient = |origin: &str| origin.starts_with("grad.");
    let gradients = nodes.values().iter().filter(|n| n.origin.as_deref().is_some_and(is_gradient));
    let mut layers: BTreeSet<u32> = gradients.map(|n| n.stem).collect();
    if layers.is_empty() {
        return nodes.values().iter().filter(|n| !n.operands.is_empty()).map(|n| n.stem).collect();
    }
    let is_layer = |id: NodeId| nodes[id].stem == id.0 && layers.contains(&id.0);
    let (mut behind, mut before) = (Side::filled(nodes.len(), false), Side::filled(nodes.len(), false));
    for (id, node) in nodes.iter() {
        behind[id] = node.operands.iter().any(|v| behind[v.node] || is_layer(v.node));
    }
    for (id, node) in nodes.iter().rev().filter(|(id, node)| node.stem == id.0) {
        if before[id] || is_layer(id) {
            node.operands.iter().for_each(|v| before[v.node] = true);
        }
    }
    layers.extend(nodes.ids().filter(|id| behind[*id] && before[*id]).map(|id| id.0));
    layers
}

/// The stage of each layer. `bound` is one program, in primitives, with all extents bound. `None` if there are fewer layers
/// than stages.
pub(crate) fn balance(layers: &BTreeSet<u32>, bound: &Graph, stages: &[StageOn]) -> Option<BTreeMap<u32, u16>> {
    let present: BTreeSet<u32> = bound.nodes.values().iter().map(|n| n.stem).filter(|s| layers.contains(s)).collect();
    let order: Vec<u32> = present.into_iter().collect();
    let n = order.len();
    if n < stages.len() {
        return None;
    }
    let place: BTreeMap<u32, usize> = order.iter().enumerate().map(|(i, stem)| (*stem, i)).collect();
    let of = |node: NodeId| place.get(&bound.nodes[node].stem).copied();

    // Seconds of the first so many layers on each stage's device, and bytes that cross in front of each.
    let mut took = vec![vec![0.0; n + 1]; stages.len()];
    let mut crossing = vec![0i64; n + 1];
    let mut reach: BTreeMap<Value, (usize, usize, usize)> = BTreeMap::new();
    for (id, node) in bound.nodes.iter() {
        let here = of(id);
        for operand in &node.operands {
            if let (Some(made), Some(read)) = (of(operand.node), here) {
                let (_, low, high) = reach.entry(*operand).or_insert((made, made, made));
                (*low, *high) = ((*low).min(read), (*high).max(read));
            }
        }
        let types = |types: &[crate::TensorType]| types.iter().map(BufferType::of).collect::<Option<Vec<_>>>();
        let Some((operands, results)) = types(&bound.operand_types(node)).zip(types(&node.types)) else { continue };
        if let (Some(here), Some(kernel)) = (here, node.op.lower(&operands, &results)) {
            let mut known: Vec<(&Rates, f64)> = vec![];
            for (stage, on) in stages.iter().enumerate() {
                let priced = known.iter().find(|(rates, _)| **rates == on.rates).map(|(_, seconds)| *seconds);
                let one = priced.unwrap_or_else(|| seconds(&kernel, &on.rates));
                known.push((&on.rates, one));
                took[stage][here + 1] += one;
            }
        }
    }
    for (value, (made, low, high)) in reach {
        let bytes = bound.ty(value).size_bytes().unwrap_or(0) as i64;
        for (from, to) in [(made, high), (low, made)] {
            if from < to {
                crossing[from + 1] += bytes;
                crossing[to + 1] -= bytes;
            }
        }
    }
    for i in 0..n {
        crossing[i + 1] += crossing[i];
        took.iter_mut().for_each(|t| t[i + 1] += t[i]);
    }

    // By number of stages so far and layers so far: the slowest stage at best, and where its last one begins.
    let cross = |at: usize, stage: usize| crossing[at] as f64 / stages[stage].bytes_per_second;
    let mut best = vec![vec![(f64::INFINITY, 0); n + 1]; stages.len()];
    for k in 0..stages.len() {
        for end in k + 1..=n - (stages.len() - 1 - k) {
            let begins = if k == 0 { 0..1 } else { k..end };
            for begin in begins {
                let before = if k == 0 { 0.0 } else { best[k - 1][begin].0 };
                let own = took[k][end] - took[k][begin] + cross(begin, k.max(1) - 1) + cross(end, k);
                let slowest = before.max(own);
                if slowest < best[k][end].0 {
                    best[k][end] = (slowest, begin);
                }
            }
        }
    }
    let (mut stage_of, mut end) = (BTreeMap::new(), n);
    for k in (0..stages.len()).rev() {
        let begin = best[k][end].1;
        stage_of.extend(order[begin..end].iter().map(|stem| (*stem, k as u16)));
        end = begin;
    }
    Some(stage_of)
}
