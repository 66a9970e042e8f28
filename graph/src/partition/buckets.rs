//! Which sums are formed together. Gradients become ready one after the other while the backward pass runs, and nobody needs
//! their sums before it ends: neighbours go as one row, in the order of their variables, so that an update can read the row as
//! it is. A row leaves as soon as its last gradient is there. What comes back is looked at when nothing is left that needs
//! nobody: lowering orders launches by how often what they read has crossed.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::Side;
use crate::ir::{NodeId, Value, VarId};
use crate::kernel::Monoid;
use crate::place::{Placed, Placement, Spread};

/// A row is not made longer than this by another member.
const FULL_BYTES: u64 = 4 << 20;

/// Values that are summed together.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    pub(super) values: Vec<Value>,
    /// Along which axis of the mesh.
    pub(super) axis: usize,
    /// How they are all spread.
    pub(super) from: Placement,
}

#[derive(Default)]
pub(super) struct Buckets {
    /// Nodes that need a bucket's sum.
    late: BTreeSet<NodeId>,
    /// By the node that is made last: what is then ready.
    by_last: BTreeMap<NodeId, Vec<Bucket>>,
}

impl Buckets {
    pub(super) fn is_late(&self, id: NodeId) -> bool {
        self.late.contains(&id)
    }
    /// What is to be summed once `id` has been made.
    pub(super) fn ready(&mut self, id: NodeId) -> Vec<Bucket> {
        self.by_last.remove(&id).unwrap_or_default()
    }

    pub(super) fn of(placed: &Placed) -> Self {
        let (graph, needed) = (&placed.graph, placed.needed());
        let program = &graph.programs[0];
        // Who reads what, and how.
        let mut readers: BTreeMap<Value, Vec<(NodeId, usize)>> = BTreeMap::new();
        for (id, node) in graph.nodes.iter().filter(|(id, _)| needed[*id]) {
            node.operands.iter().enumerate().for_each(|(k, v)| readers.entry(*v).or_default().push((id, k)));
        }
        let converts =
            |id: NodeId, k: usize| placed.wants[id].get(k).is_some_and(|w| w != placed.of(graph.nodes[id].operands[k]));
        let sums = |id: NodeId, k: usize| {
            let from = placed.of(graph.nodes[id].operands[k]);
            from.iter()
                .zip(&placed.wants[id][k])
                .all(|(f, w)| f == w || (f == &Spread::Partial(Monoid::Sum) && w == &Spread::Replicate))
        };
        // Nodes behind which something is converted.
        let mut before = Side::filled(graph.nodes.len(), false);
        for (id, node) in graph.nodes.iter().rev().filter(|(id, _)| needed[*id]) {
            let behind = before[id] || (0..node.operands.len()).any(|k| converts(id, k));
            for operand in node.operands.iter().filter(|_| behind) {
                before[operand.node] = true;
            }
        }
        let fetched: BTreeSet<Value> = program.outputs.iter().map(|(_, v)| *v).collect();
        let last = |v: &Value| {
            let reads = readers.get(v).map_or(&[][..], |r| r);
            let partial = placed.of(*v).contains(&Spread::Partial(Monoid::Sum));
            partial
                && !fetched.contains(v)
                && reads.iter().all(|(id, k)| {
                    converts(*id, *k)
                        && !before[*id]
                        && (0..placed.wants[*id].len()).all(|k| !converts(*id, k) || sums(*id, k))
                })
        };
        let values = graph.nodes.iter().filter(|(id, _)| needed[*id]).flat_map(|(id, n)| n.values(id));
        let summed: Vec<Value> = values.filter(last).collect();

        let mut buckets = Self::default();
        let set: BTreeSet<Value> = summed.iter().copied().collect();
        for (id, node) in graph.nodes.iter().filter(|(id, _)| needed[*id]) {
            if node.operands.iter().any(|v| set.contains(v) || buckets.late.contains(&v.node)) {
                buckets.late.insert(id);
            }
        }
        let mut open: Vec<(Bucket, u64)> = Vec::new();
        for value in summed {
            let from = placed.of(value).clone();
            let partial = |s: &Spread| *s == Spread::Partial(Monoid::Sum);
            let Some(axis) = from.iter().position(partial).filter(|_| from.iter().filter(|s| partial(s)).count() == 1)
            else {
                continue;
            };
            let ty = placed.ty(value);
            let alike = |b: &Bucket| {
                let first = b.values[0];
                b.from == from
                    && placed.ty(first).dtype == ty.dtype
                    && placed.stages[first.node] == placed.stages[value.node]
            };
            let fits = |(b, bytes): &(Bucket, u64)| alike(b) && (*bytes == 0 || bytes + ty.size_bytes() <= FULL_BYTES);
            match open.iter_mut().find(|b| fits(b)) {
                Some((bucket, bytes)) => {
                    bucket.values.push(value);
                    *bytes += ty.size_bytes();
                }
                None => {
                    // A full one leaves; what has another type goes on.
                    if let Some(i) = open.iter().position(|(b, _)| alike(b)) {
                        buckets.close(open.remove(i).0, placed, &readers);
                    }
                    open.push((Bucket { values: vec![value], axis, from }, ty.size_bytes()));
                }
            }
        }
        for (bucket, _) in open {
            buckets.close(bucket, placed, &readers);
        }
        buckets
    }

    fn close(&mut self, mut bucket: Bucket, placed: &Placed, readers: &BTreeMap<Value, Vec<(NodeId, usize)>>) {
        let last = bucket.values.iter().map(|v| v.node).max().expect("a bucket has a member");
        bucket.values.sort_by_key(|v| (variable(placed, *v, readers), *v));
        self.by_last.entry(last).or_default().push(bucket);
    }
}

/// The variable that a gradient changes: the first one found among what is computed from it and has its shape.
fn variable(placed: &Placed, value: Value, readers: &BTreeMap<Value, Vec<(NodeId, usize)>>) -> Option<VarId> {
    let graph = &placed.graph;
    let updates: BTreeMap<Value, VarId> = graph.programs[0].updates.iter().map(|(var, v)| (*v, *var)).collect();
    let shape = &graph.ty(value).shape;
    let (mut queue, mut seen) = (vec![value], BTreeSet::new());
    let mut found: Option<VarId> = None;
    while let Some(next) = queue.pop() {
        if !seen.insert(next) || graph.ty(next).shape != *shape {
            continue;
        }
        found = updates.get(&next).copied().into_iter().chain(found).min();
        for (id, _) in readers.get(&next).into_iter().flatten() {
            queue.extend(graph.nodes[*id].values(*id));
        }
    }
    found
}
