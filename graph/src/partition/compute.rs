//! One node on every leaf: the kernel that each runs of it, once per device where leaves of a device run the same.

use std::collections::HashMap;
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
        stage: u16,
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
        let mut instances = vec![Instances { stage, of: vec![] }; node.types.len()];
        for leaf in 0..self.leaf_count() {
            let (device, at) = (placed.mesh().device(stage, leaf), placed.mesh().coordinates(leaf));
            let reads: Vec<Value> = operands.iter().map(|o| o.of[leaf]).collect();
            let ranges: Vec<(u64, u64)> = results
                .iter()
                .enumerate()
                .flat_map(|(slot, p)| share(&placed.ty(Value { node: id, slot: slot as u16 }), p, &at))
                .map(|r| (r.start, r.end))
                .chain(folded(ways, &at))
                .collect();
            let key = (device, reads.clone(), ranges);
            let emit = || {
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
            };
            let emitted = match known.get(&key) {
                Some(emitted) => *emitted,
                None => {
                    let emitted = emit();
                    self.turns.note(placed, id, stage, leaf, emitted);
                    known.insert(key, emitted);
                    emitted
                }
            };
            for (slot, instances) in instances.iter_mut().enumerate() {
                instances.of.push(Value { node: emitted, slot: slot as u16 });
            }
        }
        for (slot, (of, placement)) in instances.into_iter().zip(results).enumerate() {
            self.made.insert((Value { node: id, slot: slot as u16 }, placement.clone(), stage), of);
        }
    }

    /// Emits an element-wise node over each device's range of all elements.
    pub(super) fn compute_flat(&mut self, id: NodeId, stage: u16, operands: &[Instances]) {
        let placed = self.placed;
        let (node, kernel) = (&placed.graph.nodes[id], OnceKernel::default());
        let Spread::Owned { cuts } = &placed.values[id][0][0] else { unreachable!("a flat way owns") };
        let here = |device: u16| {
            let i = usize::from(device);
            let kernel = kernel.of(placed, id).flattened(cuts[i + 1] - cuts[i]).expect("placing has flattened it");
            let reads = operands.iter().zip(kernel.operands());
            let here = |o: &Instances| self.first_of(o, device);
            let reads = reads.map(|(o, ty)| self.relabel(device, node, here(o), &ty.shape)).collect();
            self.on(device).copy(&with_kernel(node, kernel), reads).into()
        };
        let made = self.once_per_owner(stage, cuts, here);
        for slot in 0..node.types.len() as u16 {
            let of = made.of.iter().map(|v| Value { slot, ..*v }).collect();
            let key = (Value { node: id, slot }, placed.values[id][usize::from(slot)].clone(), stage);
            self.made.insert(key, Instances { stage, of });
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
    // A leaf's only term is its part of the sum: nothing needs to be computed for it.
    let is_sum = ways.iter().any(|way| matches!(way.cut, Cut::Loop(_))) && kernel.sums_single_terms();
    if is_sum { Kernel::relabel(operands[0].clone(), results[0].clone()) } else { kernel }
}

/// What tells leaves apart that make the same range of a result: the parts of a fold that they have.
fn folded<'w>(ways: &'w [Way], at: &'w [usize]) -> impl Iterator<Item = (u64, u64)> + 'w {
    let partial = |w: &Way| w.cut != Cut::Nothing && w.results.iter().any(|p| matches!(p, Part::Partial(_)));
    ways.iter().zip(at).map(move |(w, i)| if partial(w) { (*i as u64, 1) } else { (0, 0) })
}
