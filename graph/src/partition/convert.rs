//! From one placement of a value to another: what the field calls boxing. Along one axis of the mesh at a time; each
//! intermediate stands in the table, so that whoever needs it next finds it.

use std::sync::Arc;

use super::ends::leads;
use super::{Cutter, Instances, owns};
use crate::ir::Value;
use crate::kernel::{BufferType, Kernel};
use crate::place::{Cut, Part, Placement, Spread, Way, share_type, ways};

/// What becomes of which axis of the mesh, one after the other. Along each axis sums come first, while the tensors are small or
/// still whole; a share of a sum is cut out of it. No axis of a tensor is ever cut over two axes of the mesh: what is cut over
/// another one as yet is brought together before.
fn steps(from: &Placement, to: &Placement) -> Vec<(usize, Spread)> {
    let (mut at, mut steps) = (from.clone(), vec![]);
    let mut step = |at: &mut Placement, m: usize, spread: &Spread| {
        if at[m] != *spread {
            at[m] = spread.clone();
            steps.push((m, spread.clone()));
        }
    };
    let axis_of = |spread: &Spread| if let Spread::Shard { axis, .. } = spread { Some(*axis) } else { None };
    for m in 0..to.len() {
        let straight = matches!((&at[m], &to[m]), (Spread::Partial(_), Spread::Owned { .. }));
        if at[m] == to[m] {
            continue;
        }
        if !straight {
            step(&mut at, m, &Spread::Replicate);
        }
        for other in m + 1..to.len() {
            if axis_of(&to[m]).is_some() && axis_of(&at[other]) == axis_of(&to[m]) {
                step(&mut at, other, &Spread::Replicate);
            }
        }
        step(&mut at, m, &to[m]);
    }
    steps
}

impl Cutter<'_> {
    /// The instances of a value under `placement`, in a stage. A value of another stage is brought as it is needed, leaf by leaf.
    pub(super) fn get(&mut self, value: Value, placement: &Placement, stage: u16) -> Instances {
        if let Some(known) = self.made.get(&(value, placement.clone(), stage)) {
            return known.clone();
        }
        let home = self.placed.stage(value, stage);
        if home != stage {
            return self.cross(value, placement, home, stage);
        }
        let mut at = self.placed.of(value).clone();
        if !self.made.contains_key(&(value, at.clone(), stage)) {
            // What is in no one stage is made where it is first needed.
            self.node(value.node, stage);
        }
        for (m, spread) in steps(&at, placement) {
            let mut to = at.clone();
            to[m] = spread;
            if !self.made.contains_key(&(value, to.clone(), stage)) {
                let instances = self.along(value, m, &at, &to, stage);
                self.made.insert((value, to.clone(), stage), instances);
            }
            at = to;
        }
        self.made[&(value, placement.clone(), stage)].clone()
    }

    /// The instances of a value of stage `home` in another one. What devices own, each stage shares out anew.
    fn cross(&mut self, value: Value, placement: &Placement, home: u16, stage: u16) -> Instances {
        let (placed, mesh) = (self.placed, self.placed.mesh());
        if placed.request.servers.is_some() {
            let there = placed.of(value);
            let straight = match (&there[..], &placement[..]) {
                // A pull and a push.
                ([Spread::Owned { cuts }], [Spread::Replicate]) => Some(self.collect(value, cuts, home, stage)),
                ([Spread::Partial(monoid)], [Spread::Owned { cuts }]) => {
                    Some(self.scatter_sum(value, 0, there, *monoid, cuts, (home, stage)))
                }
                _ => None,
            };
            if let Some(here) = straight {
                self.made.insert((value, placement.clone(), stage), here.clone());
                return here;
            }
        }
        let owned = |s: &Spread| matches!(s, Spread::Owned { .. });
        let all = |s: &Spread| if owned(s) { Spread::Replicate } else { s.clone() };
        let crossing: Placement = placement.iter().map(all).collect();
        let there = self.get(value, &crossing, home);
        let bring = |(leaf, of): (usize, Value)| {
            self.bring(mesh.device(home, leaf), of, mesh.device(stage, leaf), &placed.graph.nodes[value.node])
        };
        let mut here = Instances { stage, of: there.of.into_iter().enumerate().map(bring).collect() };
        self.made.insert((value, crossing.clone(), stage), here.clone());
        if let Some(m) = placement.iter().position(owned) {
            here = self.along(value, m, &crossing, placement, stage);
            self.made.insert((value, placement.clone(), stage), here.clone());
        }
        here
    }

    /// From `from` to `to`, which differ along axis `m` of the mesh.
    fn along(&mut self, value: Value, m: usize, from: &Placement, to: &Placement, stage: u16) -> Instances {
        match (&from[m], &to[m]) {
            (Spread::Partial(monoid), Spread::Replicate) => self.sum_one(value, m, from, *monoid, stage),
            (Spread::Shard { axis, .. }, Spread::Replicate) => self.gather(value, m, from, *axis, stage),
            (Spread::Replicate, Spread::Shard { .. }) => {
                self.again(value, m, from, to, stage).unwrap_or_else(|| self.slices(value, m, from, to, stage))
            }
            (Spread::Partial(monoid), Spread::Owned { cuts }) => {
                self.scatter_sum(value, m, from, *monoid, cuts, (stage, stage))
            }
            (Spread::Replicate, Spread::Owned { cuts }) => self.own(value, from, cuts, stage),
            (Spread::Owned { cuts }, Spread::Replicate) => self.collect(value, cuts, stage, stage),
            (from, to) => unreachable!("from {from:?} to {to:?} by way of all of it"),
        }
    }

    /// Shares computed by each leaf for itself, where that costs nothing to bring: the node reads only what is everywhere, and
    /// its kernel can be cut as wanted.
    fn again(&mut self, value: Value, m: usize, from: &Placement, to: &Placement, stage: u16) -> Option<Instances> {
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
            instances.push(self.get(*operand, &want, stage));
        }
        let nothing = Way { cut: Cut::Nothing, operands: vec![], results: vec![Part::Whole] };
        let (mut ways, mut at) = (vec![nothing; to.len()], vec![std::sync::Arc::default(); to.len()]);
        (ways[m], at[m]) = (way, cuts.clone());
        self.compute(value.node, stage, &ways, &at, &instances, std::slice::from_ref(to));
        self.made.get(&(value, to.clone(), stage)).cloned()
    }

    /// Shares cut out of what every leaf has.
    fn slices(&mut self, value: Value, m: usize, from: &Placement, to: &Placement, stage: u16) -> Instances {
        let (placed, mesh) = (self.placed, self.placed.mesh());
        let node = &placed.graph.nodes[value.node];
        let whole = self.get(value, from, stage);
        let Spread::Shard { axis, cuts } = &to[m] else { unreachable!("a share is cut out") };
        let mut known = std::collections::HashMap::new();
        let share = |(leaf, of): (usize, Value)| {
            let (device, at) = (mesh.device(stage, leaf), mesh.coordinates(leaf));
            let range = cuts[at[m]]..cuts[at[m] + 1];
            let ty = share_type(&placed.ty(value), from, &at);
            let cut_out = || self.emit(device, node, Kernel::slice(ty, *axis, range), vec![of]);
            *known.entry((device, of, at[m])).or_insert_with(cut_out)
        };
        Instances { stage, of: whole.of.into_iter().enumerate().map(share).collect() }
    }

    /// Each device's range of all elements, looked at where it lies.
    fn own(&mut self, value: Value, from: &Placement, cuts: &[u64], stage: u16) -> Instances {
        let placed = self.placed;
        let node = &placed.graph.nodes[value.node];
        let whole = self.get(value, from, stage);
        self.once_per_owner(stage, cuts, |device| {
            let (flat, i) = (self.flat(device, node, self.first_of(&whole, device)), usize::from(device));
            self.row(device, node, vec![flat], cuts[i], cuts[i + 1])
        })
    }
    /// All elements on every device of `stage`, from those of stage `home` that own some.
    fn collect(&mut self, value: Value, cuts: &Arc<[u64]>, home: u16, stage: u16) -> Instances {
        let placed = self.placed;
        let node = &placed.graph.nodes[value.node];
        let shares = self.get(value, &vec![Spread::Owned { cuts: cuts.clone() }], home);
        let owners: Vec<u16> = placed.mesh().hosts(home).into_iter().filter(|d| owns(cuts, *d)).collect();
        let mut whole = std::collections::BTreeMap::new();
        for device in placed.mesh().hosts(stage) {
            let mut parts = Vec::new();
            for from in &owners {
                parts.push(self.bring(*from, self.first_of(&shares, *from), device, node));
            }
            let row = if parts.len() == 1 { parts[0] } else { self.end_to_end(device, node, parts) };
            whole.insert(device, self.relabel(device, node, row, &placed.ty(value).shape));
        }
        self.once_per_device(stage, |device| whole[&device])
    }
    /// What a device has for the first leaf that it hosts.
    pub(super) fn first_of(&self, instances: &Instances, device: u16) -> Value {
        let hosts = &self.placed.mesh().stages[usize::from(instances.stage)];
        let leaf = hosts.iter().position(|host| *host == device);
        instances.of[leaf.expect("a device of the stage")]
    }

    /// All shares on every device that has one of them.
    fn gather(&mut self, value: Value, m: usize, from: &Placement, axis: u16, stage: u16) -> Instances {
        let (placed, mesh) = (self.placed, self.placed.mesh());
        let node = &placed.graph.nodes[value.node];
        let shares = self.get(value, from, stage);
        let mut out = shares.clone();
        for group in mesh.groups(m) {
            for device in mesh.devices_of(stage, group.iter().copied()) {
                let parts: Vec<Value> = group
                    .iter()
                    .map(|leaf| self.bring(mesh.device(stage, *leaf), shares.of[*leaf], device, node))
                    .collect();
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
                for leaf in group.iter().filter(|leaf| mesh.device(stage, **leaf) == device) {
                    out.of[*leaf] = whole;
                }
            }
        }
        out
    }
}
