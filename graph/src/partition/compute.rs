//! One node on every leaf: the kernel that each runs of it, once per device where leaves of a device run the same.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::{Cutter, Instances, with_kernel};
use crate::ir::{NodeId, Value};
use crate::kernel::{BufferType, Kernel};
use crate::place::{Cut, Part, Placed, Placement, Spread, Way, share, share_type};

impl Cutter<'_> {
    /// Emits a node, spread as `ways` say, on every leaf; notes the instances of its results. Where a loop is cut, `cuts` say
    /// where, by axis of the mesh.
    pub(super) fn compute(
        &mut self,
        id: NodeId,
        ways: &[Way],
        cuts: &[Arc<[u64]>],
        operands: &[Instances],
        results: &[Placement],
    ) {
        let placed = self.placed;
        let node = &placed.graph.nodes[id];
        let kernel = OnceKernel::default();
        // By device, what is read, and which part is made.
        type Key = (u16, Vec<Value>, Vec<(u64, u64)>);
        let mut known: HashMap<Key, NodeId> = HashMap::new();
        let mut instances: Vec<Instances> = vec![vec![]; node.types.len()];
        for leaf in 0..self.leaf_count() {
            let (device, at) = (self.device(leaf), placed.mesh().coordinates(leaf));
            let reads: Vec<Value> = operands.iter().map(|o| o[leaf]).collect();
            let ranges: Vec<(u64, u64)> = results
                .iter()
                .enumerate()
                .flat_map(|(slot, p)| share(&placed.ty(Value { node: id, slot: slot as u16 }), p, &at))
                .map(|r| (r.start, r.end))
                .chain(folded(ways, &at))
                .collect();
            let emitted = *known.entry((device, reads.clone(), ranges)).or_insert_with(|| {
                let to = self.on(device);
                if ways.iter().all(|w| w.cut == Cut::Nothing) {
                    return to.copy(node, reads);
                }
                let types =
                    |slot: usize, p: &Placement| share_type(&placed.ty(Value { node: id, slot: slot as u16 }), p, &at);
                let to_types: Vec<BufferType> = results.iter().enumerate().map(|(s, p)| types(s, p)).collect();
                let from_types = reads.iter().map(|v| self.ty(device, *v)).collect();
                let kernel = cut(kernel.of(placed, id), ways, cuts, &at, from_types, to_types);
                to.copy(&with_kernel(node, kernel), reads)
            });
            for (slot, of) in instances.iter_mut().enumerate() {
                of.push(Value { node: emitted, slot: slot as u16 });
            }
        }
        for (slot, (of, placement)) in instances.into_iter().zip(results).enumerate() {
            self.made.insert((Value { node: id, slot: slot as u16 }, placement.clone()), of);
        }
    }

    /// Emits an element-wise node over each device's range of all elements.
    pub(super) fn compute_flat(&mut self, id: NodeId, operands: &[Instances]) {
        let placed = self.placed;
        let (node, kernel) = (&placed.graph.nodes[id], OnceKernel::default());
        let mut known: BTreeMap<u16, NodeId> = BTreeMap::new();
        let mut instances: Vec<Instances> = vec![vec![]; node.types.len()];
        for leaf in 0..self.leaf_count() {
            let device = self.device(leaf);
            let emitted = *known.entry(device).or_insert_with(|| {
                let Spread::Owned { cuts } = &placed.values[id][0][0] else { unreachable!("a flat way owns") };
                let i = usize::from(device);
                let kernel = kernel.of(placed, id).flattened(cuts[i + 1] - cuts[i]).expect("placing has flattened it");
                let reads = operands.iter().zip(kernel.operands());
                let reads = reads.map(|(o, ty)| self.relabel(device, node, o[leaf], &ty.shape)).collect();
                self.on(device).copy(&with_kernel(node, kernel), reads)
            });
            for (slot, of) in instances.iter_mut().enumerate() {
                of.push(Value { node: emitted, slot: slot as u16 });
            }
        }
        for (slot, of) in instances.into_iter().enumerate() {
            self.made.insert((Value { node: id, slot: slot as u16 }, placed.values[id][slot].clone()), of);
        }
    }
}

/// The kernel of a node, made when it is first needed.
#[derive(Default)]
struct OnceKernel(std::cell::OnceCell<Kernel>);

impl OnceKernel {
    fn of(&self, placed: &Placed, id: NodeId) -> &Kernel {
        self.0.get_or_init(|| {
            let node = &placed.graph.nodes[id];
            let operands: Vec<BufferType> = node.operands.iter().map(|v| placed.ty(*v)).collect();
            let results: Vec<BufferType> = node.values(id).map(|v| placed.ty(v)).collect();
            node.op.lower(&operands, &results).expect("placing has lowered it")
        })
    }
}

/// The kernel that the leaf at `at` runs.
fn cut(
    kernel: &Kernel,
    ways: &[Way],
    cuts: &[Arc<[u64]>],
    at: &[usize],
    operands: Vec<BufferType>,
    results: Vec<BufferType>,
) -> Kernel {
    let mut kernel = kernel.clone();
    for (m, way) in ways.iter().enumerate() {
        let (operands, results) = (operands.clone(), results.clone());
        kernel = match way.cut {
            Cut::Nothing => continue,
            Cut::Flat => unreachable!("what is flat is not cut by leaves"),
            Cut::Tensors(_) => kernel.cut_tensors(operands, results),
            Cut::Relabel => Kernel::relabel(operands[0].clone(), results[0].clone()),
            Cut::Loop(axis) => kernel.cut_loop(axis, cuts[m][at[m]]..cuts[m][at[m] + 1], operands, results),
        };
    }
    kernel
}

/// What tells leaves apart that make the same range of a result: the parts of a fold that they have.
fn folded<'w>(ways: &'w [Way], at: &'w [usize]) -> impl Iterator<Item = (u64, u64)> + 'w {
    let partial = |w: &Way| w.cut != Cut::Nothing && w.results.iter().any(|p| matches!(p, Part::Partial(_)));
    ways.iter().zip(at).map(move |(w, i)| if partial(w) { (*i as u64, 1) } else { (0, 0) })
}
