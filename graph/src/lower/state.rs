//! Where variables lie: fixed addresses for as long as a session lives. Variables of one kind, element type and group
//! lie end to end in order of declaration (a flat segment), so that parameters and their slots are congruent and one
//! launch can update them all.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::id::Arena;
use crate::ir::{Graph, VarId};
use crate::kernel::BufferType;
use crate::types::DType;

/// Segments and arenas start at multiples of this.
pub(super) const ALIGN: u64 = 64;

/// The place of one variable.
#[derive(Clone, Debug, PartialEq)]
pub struct StateSlot {
    /// First byte in the state arena.
    pub offset: u64,
    /// What lies there.
    pub ty: BufferType,
}

/// Where all variables of a graph lie.
#[derive(Clone, Debug, PartialEq)]
pub struct StateLayout {
    /// One per variable.
    pub slots: Arena<VarId, StateSlot>,
    /// Bytes of the state arena.
    pub bytes: u64,
}

/// What one device holds of a variable: a box of its elements, row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct Share {
    /// Which device, by its place in the plans.
    pub device: u16,
    /// First byte in that device's state arena.
    pub offset: u64,
    /// Element type, and extents of the box.
    pub ty: BufferType,
    /// The extents under which the variable is cut: its own, or one axis of all its elements.
    pub view: Vec<u64>,
    /// Where the box begins, one coordinate per axis of the view.
    pub start: Vec<u64>,
}

impl Share {
    /// Runs of elements that lie side by side in both: first element in the variable, first element here, how many.
    pub fn runs(&self) -> Vec<(u64, u64, u64)> {
        let elements = self.ty.len() as u64;
        if elements == 0 {
            return vec![];
        }
        // The innermost axes that the box covers whole belong to a run, and the axis around them.
        let whole = self.view.iter().zip(&self.ty.shape).rev().take_while(|(v, n)| v == n).count();
        let outer = self.view.len().saturating_sub(whole + 1);
        let run: u64 = self.ty.shape[outer..].iter().product();
        let strides = BufferType { dtype: self.ty.dtype, shape: self.view.clone() }.strides();
        let at = |mut here: u64| {
            let mut there = 0;
            for axis in (0..self.view.len()).rev() {
                let extent = self.ty.shape[axis];
                there += (self.start[axis] + here % extent) * strides[axis] as u64;
                here /= extent;
            }
            there
        };
        (0..elements).step_by(run as usize).map(|here| (at(here), here, run)).collect()
    }
}

/// Where all variables of a session lie, over all its devices.
#[derive(Clone, Debug, PartialEq)]
pub struct StateMap {
    /// Bytes of each device's state arena.
    pub bytes: Vec<u64>,
    /// Who holds what of each variable: together every element, some of them perhaps more than once. Equal elements are
    /// equal between steps.
    pub shares: Arena<VarId, Vec<Share>>,
}

impl StateMap {
    /// One device that holds everything.
    pub fn single(layout: &StateLayout) -> Self {
        Self::replicated(layout, 1)
    }
    /// So many devices, each of which holds everything.
    pub fn replicated(layout: &StateLayout, devices: usize) -> Self {
        let share = |slot: &StateSlot, device: usize| {
            let StateSlot { offset, ty } = slot.clone();
            let (view, start) = (ty.shape.clone(), vec![0; ty.rank()]);
            Share { device: device as u16, offset, ty, view, start }
        };
        let shares = |slot: &StateSlot| (0..devices).map(|d| share(slot, d)).collect();
        Self { bytes: vec![layout.bytes; devices], shares: layout.slots.values().iter().map(shares).collect() }
    }
}

impl StateLayout {
    /// The layout of `graph`'s variables.
    ///
    /// # Panics
    /// If a variable has named dimensions, which the builder refuses.
    pub fn of(graph: &Graph) -> Self {
        let mut segments: BTreeMap<(&str, DType, Arc<str>), Vec<VarId>> = BTreeMap::new();
        for (id, v) in graph.state.iter() {
            segments.entry((v.kind.name(), v.ty.dtype, v.group.clone())).or_default().push(id);
        }
        let ty = |v: &crate::ir::Variable| BufferType::of(&v.ty).expect("a variable's extents are numbers");
        let mut slots: Arena<VarId, StateSlot> =
            graph.state.values().iter().map(|v| StateSlot { offset: 0, ty: ty(v) }).collect();
        let mut end = 0u64;
        for members in segments.values() {
            end = end.next_multiple_of(ALIGN);
            for id in members {
                slots[*id].offset = end;
                end += slots[*id].ty.size_bytes();
            }
        }
        Self { slots, bytes: end.next_multiple_of(ALIGN) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_a_box_are_as_long_as_they_can_be() {
        let share = |view: &[u64], start: &[u64], shape: &[u64]| Share {
            device: 0,
            offset: 0,
            ty: BufferType { dtype: DType::F32, shape: shape.to_vec() },
            view: view.to_vec(),
            start: start.to_vec(),
        };
        assert_eq!(share(&[], &[], &[]).runs(), [(0, 0, 1)]);
        assert_eq!(share(&[4, 3], &[0, 0], &[4, 3]).runs(), [(0, 0, 12)]);
        assert_eq!(share(&[4, 3], &[1, 0], &[2, 3]).runs(), [(3, 0, 6)]);
        assert_eq!(share(&[4, 3], &[1, 2], &[2, 1]).runs(), [(5, 0, 1), (8, 1, 1)]);
        assert_eq!(share(&[2, 4, 3], &[0, 1, 0], &[2, 2, 3]).runs(), [(3, 0, 6), (15, 6, 6)]);
        assert_eq!(share(&[4, 0], &[0, 0], &[4, 0]).runs(), []);
        assert_eq!(share(&[7], &[5], &[2]).runs(), [(5, 0, 2)]);
    }
}
