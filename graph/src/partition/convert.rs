//! From one placement of a value to another: what the field calls boxing. Along one axis of the mesh at a time; each
//! intermediate stands in the table, so that whoever needs it next finds it.

use super::ends::leads;
use super::{Cutter, Instances};
use crate::ir::Value;
use crate::kernel::{BufferType, Kernel};
use crate::place::{Cut, Part, Placement, Spread, Way, share_type, ways};

impl Cutter<'_> {
    /// The instances of a value under `placement`.
    pub(super) fn get(&mut self, value: Value, placement: &Placement) -> Instances {
        if let Some(known) = self.made.get(&(value, placement.clone())) {
            return known.clone();
        }
        let mut at = self.placed.of(value).clone();
        for m in 0..at.len() {
            // Sums first, while the tensors are small or still whole; a share of a sum is cut out of it.
            for spread in [Spread::Replicate, placement[m].clone()] {
                let straight = matches!((&at[m], &placement[m]), (Spread::Partial(_), Spread::Owned { .. }));
                if at[m] == spread || at[m] == placement[m] || (straight && spread == Spread::Replicate) {
                    continue;
                }
                let mut to = at.clone();
                to[m] = spread;
                if !self.made.contains_key(&(value, to.clone())) {
                    let instances = self.along(value, m, &at, &to);
                    self.made.insert((value, to.clone()), instances);
                }
                at = to;
            }
        }
        self.made[&(value, placement.clone())].clone()
    }

    /// From `from` to `to`, which differ along axis `m` of the mesh.
    fn along(&mut self, value: Value, m: usize, from: &Placement, to: &Placement) -> Instances {
        match (&from[m], &to[m]) {
            (Spread::Partial(monoid), Spread::Replicate) => self.sum_one(value, m, from, *monoid),
            (Spread::Shard { axis, .. }, Spread::Replicate) => self.gather(value, m, from, *axis),
            (Spread::Replicate, Spread::Shard { .. }) => {
                self.again(value, m, from, to).unwrap_or_else(|| self.slices(value, m, from, to))
            }
            (Spread::Partial(monoid), Spread::Owned { cuts }) => self.scatter_sum(value, m, from, *monoid, cuts),
            (Spread::Replicate, Spread::Owned { cuts }) => self.own(value, from, cuts),
            (Spread::Owned { .. }, Spread::Replicate) => self.collect(value, from),
            (from, to) => unreachable!("from {from:?} to {to:?} by way of all of it"),
        }
    }

    /// Shares computed by each leaf for itself, where that costs nothing to bring: the node reads only what is everywhere, and
    /// its kernel can be cut as wanted.
    fn again(&mut self, value: Value, m: usize, from: &Placement, to: &Placement) -> Option<Instances> {
        let placed = self.placed;
        let node = &placed.graph.nodes[value.node];
        let base = placed.of(value);
        let everywhere = base.iter().all(|s| *s == Spread::Replicate) && from == base;
        let Spread::Shard { axis, cuts } = &to[m] else { return None };
        if !everywhere || node.types.len() > 1 || placed.ways[value.node].is_empty() {
            return None;
        }
        let operands: Vec<BufferType> = node.operands.iter().map(|v| placed.ty(*v)).collect();
        let kernel = node.op.lower(&operands, &[placed.ty(value)])?;
        let makes = |way: &Way| way.results[0] == Part::Along(*axis) && matches!(way.cut, Cut::Loop(_));
        let way = ways(&kernel).into_iter().find(makes)?;
        let mut instances = Vec::new();
        for ((operand, part), want) in node.operands.iter().zip(&way.operands).zip(&placed.wants[value.node]) {
            let mut want = want.clone();
            if let Part::Along(along) = part {
                want[m] = Spread::Shard { axis: *along, cuts: cuts.clone() };
            }
            instances.push(self.get(*operand, &want));
        }
        let nothing = Way { cut: Cut::Nothing, operands: vec![], results: vec![Part::Whole] };
        let (mut ways, mut at) = (vec![nothing; to.len()], vec![std::sync::Arc::default(); to.len()]);
        (ways[m], at[m]) = (way, cuts.clone());
        self.compute(value.node, &ways, &at, &instances, std::slice::from_ref(to));
        self.made.get(&(value, to.clone())).cloned()
    }

    /// Shares cut out of what every leaf has.
    fn slices(&mut self, value: Value, m: usize, from: &Placement, to: &Placement) -> Instances {
        let placed = self.placed;
        let node = &placed.graph.nodes[value.node];
        let whole = self.get(value, from);
        let Spread::Shard { axis, cuts } = &to[m] else { unreachable!("a share is cut out") };
        let mut known = std::collections::HashMap::new();
        let mut out = Vec::new();
        for (leaf, of) in whole.into_iter().enumerate() {
            let (device, i) = (self.device(leaf), placed.mesh().coordinates(leaf)[m]);
            let range = cuts[i]..cuts[i + 1];
            let ty = share_type(&placed.ty(value), from, &placed.mesh().coordinates(leaf));
            let key = (device, of, i);
            out.push(
                *known.entry(key).or_insert_with(|| self.emit(device, node, Kernel::slice(ty, *axis, range), vec![of])),
            );
        }
        out
    }

    /// Each device's range of all elements, looked at where it lies.
    fn own(&mut self, value: Value, from: &Placement, cuts: &[u64]) -> Instances {
        let placed = self.placed;
        let node = &placed.graph.nodes[value.node];
        let whole = self.get(value, from);
        let mut known = std::collections::BTreeMap::new();
        let mut out = Vec::new();
        for (leaf, of) in whole.into_iter().enumerate() {
            let device = self.device(leaf);
            out.push(*known.entry(device).or_insert_with(|| {
                let (flat, i) = (self.flat(device, node, of), usize::from(device));
                self.row(device, node, vec![flat], cuts[i], cuts[i + 1])
            }));
        }
        out
    }
    /// All elements on every device, from those that own some.
    fn collect(&mut self, value: Value, from: &Placement) -> Instances {
        let placed = self.placed;
        let node = &placed.graph.nodes[value.node];
        let shares = self.get(value, from);
        let leaves: Vec<usize> = (0..self.leaf_count()).collect();
        let mut devices = placed.mesh().devices_of(&leaves);
        devices.sort_unstable();
        let owner = |device: &u16| leaves.iter().find(|l| placed.mesh().devices[**l] == *device).copied();
        let mut whole = std::collections::BTreeMap::new();
        for device in &devices {
            let mut parts = Vec::new();
            for from in &devices {
                parts.push(self.bring(*from, shares[owner(from).expect("a device hosts a leaf")], *device, node));
            }
            let row = self.end_to_end(*device, node, parts);
            whole.insert(*device, self.relabel(*device, node, row, &placed.ty(value).shape));
        }
        leaves.iter().map(|leaf| whole[&self.device(*leaf)]).collect()
    }

    /// All shares on every device that has one of them.
    fn gather(&mut self, value: Value, m: usize, from: &Placement, axis: u16) -> Instances {
        let placed = self.placed;
        let node = &placed.graph.nodes[value.node];
        let shares = self.get(value, from);
        let mut out = shares.clone();
        for group in placed.mesh().groups(m) {
            for device in placed.mesh().devices_of(&group) {
                let parts: Vec<Value> =
                    group.iter().map(|leaf| self.bring(self.device(*leaf), shares[*leaf], device, node)).collect();
                let types: Vec<BufferType> = parts.iter().map(|v| self.ty(device, *v)).collect();
                let whole = if leads(&types[0], axis) {
                    // Rows lie end to end: nothing has to be moved.
                    let mut shape = types[0].shape.clone();
                    shape[usize::from(axis)] = types.iter().map(|t| t.shape[usize::from(axis)]).sum();
                    let flat: Vec<Value> = parts.iter().map(|v| self.flat(device, node, *v)).collect();
                    let row = self.end_to_end(device, node, flat);
                    self.relabel(device, node, row, &shape)
                } else {
                    self.emit(device, node, Kernel::join(&types, axis), parts)
                };
                for leaf in group.iter().filter(|leaf| self.device(**leaf) == device) {
                    out[*leaf] = whole;
                }
            }
        }
        out
    }
}
