//! Where a program meets its caller: what is fed to which leaf, and what is fetched from which. Whole rows of an array lie side
//! by side, so a leaf's rows are a range of it, and nobody copies them together.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::{Cutter, Instances};
use crate::ir::{Node, NodeId, Value};
use crate::kernel::{BufferType, Kernel};
use crate::place::{Spread, share};
use crate::plan::{Channel, Endpoint};
use crate::structural::Input;

impl Cutter<'_> {
    /// The rows of an input that each leaf needs in a stage, from the driver.
    pub(super) fn feed(&mut self, id: NodeId, node: &Node, input: &Input, stage: u16) -> Instances {
        let placed = self.placed;
        let (ty, placement) = (placed.ty(id.into()), placed.of(id.into()));
        let mut known: HashMap<(u16, u64, u64), Value> = HashMap::new();
        let mut of = Vec::new();
        for leaf in 0..self.leaf_count() {
            let (device, at) = (placed.mesh().device(stage, leaf), placed.mesh().coordinates(leaf));
            let ranges = share(&ty, placement, &at);
            // Rows of the outermost axis lie side by side; of another axis they do not, and each device takes all.
            let (share_ty, start, rest) = contiguous(&ty, &ranges);
            let key = (device, start, share_ty.len() as u64);
            let whole = *known.entry(key).or_insert_with(|| {
                let (from, to) = (Endpoint::Driver, Endpoint::Device(device));
                let (ty, label) = (share_ty.clone(), input.name.clone());
                self.arrive(device, Channel { from, to, ty, start, label }, node).1
            });
            of.push(rest.into_iter().fold(whole, |of, (axis, range)| {
                self.emit(device, node, Kernel::slice(self.ty(device, of), axis, range), vec![of])
            }));
        }
        Instances { stage, of }
    }
    /// An output, from those that have it: rows from each leaf, or all of it from the first.
    pub(super) fn fetch(&mut self, name: &Arc<str>, value: Value) {
        let placed = self.placed;
        let mut placement = placed.of(value).clone();
        let ty = placed.ty(value);
        // Rows, as they lie over one axis of the mesh.
        let rows = placement.iter().position(|s| matches!(s, Spread::Shard { axis, .. } if leads(&ty, *axis)));
        let others = placement.iter_mut().enumerate().filter(|(m, _)| Some(*m) != rows);
        others.for_each(|(_, spread)| *spread = Spread::Replicate);
        let stage = placed.stage(value, 0);
        let instances = self.get(value, &placement, stage);
        let (mut known, whole) = (Vec::new(), ty);
        for (leaf, value) in instances.of.into_iter().enumerate() {
            let (device, at) = (placed.mesh().device(stage, leaf), placed.mesh().coordinates(leaf));
            let (ty, start, rest) = contiguous(&whole, &share(&whole, &placement, &at));
            assert!(rest.is_empty(), "only rows of the outermost axis are fetched in parts");
            let what = (start, ty.len());
            if known.contains(&what) || (ty.is_empty() && !whole.is_empty()) {
                continue;
            }
            known.push(what);
            let (from, to) = (Endpoint::Device(device), Endpoint::Driver);
            let channel = self.channels.push(Channel { from, to, ty, start, label: name.clone() });
            self.leaves[usize::from(device)].push((channel, value));
        }
    }
}

/// Whether ranges of an axis are ranges of the whole tensor: all axes in front of it have one element.
pub(super) fn leads(ty: &BufferType, axis: u16) -> bool {
    ty.shape[..usize::from(axis)].iter().all(|n| *n == 1)
}

/// The range of whole rows around a box: its type, its first element, and what has to be cut out of it along which axes.
fn contiguous(ty: &BufferType, ranges: &[Range<u64>]) -> (BufferType, u64, Vec<(u16, Range<u64>)>) {
    let cut = (0..ty.rank()).filter(|d| ranges[*d] != (0..ty.shape[*d]));
    let mut rest: Vec<(u16, Range<u64>)> = cut.map(|d| (d as u16, ranges[d].clone())).collect();
    let (mut part, mut start) = (ty.clone(), 0);
    if let Some((axis, rows)) = rest.first().filter(|(axis, _)| leads(ty, *axis)).cloned() {
        let d = usize::from(axis);
        part.shape[d] = rows.end - rows.start;
        start = rows.start * ty.shape[d + 1..].iter().product::<u64>();
        rest.remove(0);
    }
    (part, start, rest)
}
