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
