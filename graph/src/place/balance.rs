//! Where a pipeline is cut if nobody says: between declarations, so that the slowest stage is as fast as can be. What a layer
//! takes is what everything that stems from its declaration takes, gradients included; what crosses a cut counts for both
//! sides. Exact for that measure, by dynamic programming over the layers in their order (as PipeDream partitions,
//! Narayanan et al., SOSP 2019).

use std::collections::{BTreeMap, BTreeSet};

use crate::cost::{Rates, Work};
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
    if order.len() < stages.len() {
        return None;
    }
    let begins = Measured::of(&order, bound, stages).cut();
    let stage = |at: usize| begins.partition_point(|begin| *begin <= at) as u16 - 1;
    Some(order.iter().enumerate().map(|(at, stem)| (*stem, stage(at))).collect())
}

/// What layers take, and what crosses between them.
struct Measured {
    /// By stage: seconds of the first so many layers on its device.
    took: Vec<Vec<f64>>,
    /// By stage: seconds for which what crosses in front of a layer is on its way to the next one.
    crossing: Vec<Vec<f64>>,
}

impl Measured {
    /// Of layers in their order.
    fn of(order: &[u32], bound: &Graph, stages: &[StageOn]) -> Self {
        let n = order.len();
        let place: BTreeMap<u32, usize> = order.iter().enumerate().map(|(i, stem)| (*stem, i)).collect();
        let of = |node: NodeId| place.get(&bound.nodes[node].stem).copied();
        let mut took = vec![vec![0.0; n + 1]; stages.len()];
        // Where each value is made, and the first and last layer that reads it.
        let mut reach: BTreeMap<Value, (usize, usize, usize)> = BTreeMap::new();
        for (id, node) in bound.nodes.iter() {
            let Some(here) = of(id) else { continue };
            for operand in &node.operands {
                if let Some(made) = of(operand.node) {
                    let (_, low, high) = reach.entry(*operand).or_insert((made, made, made));
                    (*low, *high) = ((*low).min(here), (*high).max(here));
                }
            }
            let types = |types: &[crate::TensorType]| types.iter().map(BufferType::of).collect::<Option<Vec<_>>>();
            let Some((operands, results)) = types(&bound.operand_types(node)).zip(types(&node.types)) else { continue };
            if let Some(kernel) = node.op.lower(&operands, &results) {
                let work = Work::of(&kernel);
                took.iter_mut().zip(stages).for_each(|(t, on)| t[here + 1] += work.seconds(&on.rates));
            }
        }
        let mut bytes = vec![0i64; n + 1];
        for (value, (made, low, high)) in reach {
            let size = bound.ty(value).size_bytes().unwrap_or(0) as i64;
            for (from, to) in [(made, high), (low, made)] {
                if from < to {
                    bytes[from + 1] += size;
                    bytes[to + 1] -= size;
                }
            }
        }
        for i in 0..n {
            bytes[i + 1] += bytes[i];
            took.iter_mut().for_each(|t| t[i + 1] += t[i]);
        }
        let seconds = |on: &StageOn| bytes.iter().map(|b| *b as f64 / on.bytes_per_second).collect();
        Self { took, crossing: stages.iter().map(seconds).collect() }
    }

    /// Where each stage begins, so that the slowest is as fast as can be.
    fn cut(&self) -> Vec<usize> {
        let (stages, n) = (self.took.len(), self.took[0].len() - 1);
        let takes = |k: usize, begin: usize, end: usize| {
            let comes = if k == 0 { 0.0 } else { self.crossing[k - 1][begin] };
            self.took[k][end] - self.took[k][begin] + comes + self.crossing[k][end]
        };
        // By stages and layers so far: the slowest stage at best, and where its last one begins.
        let mut best = vec![vec![(f64::INFINITY, 0); n + 1]; stages];
        for k in 0..stages {
            for end in k + 1..=n - (stages - 1 - k) {
                let begins = if k == 0 { 0..1 } else { k..end };
                for begin in begins {
                    let before = if k == 0 { 0.0 } else { best[k - 1][begin].0 };
                    let slowest = before.max(takes(k, begin, end));
                    if slowest < best[k][end].0 {
                        best[k][end] = (slowest, begin);
                    }
                }
            }
        }
        let (mut begins, mut end) = (vec![0; stages], n);
        for k in (0..stages).rev() {
            end = best[k][end].1;
            begins[k] = end;
        }
        begins
    }
}
