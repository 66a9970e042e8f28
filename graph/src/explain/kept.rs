//! Where parameters are, where not every device has them all: which of them each server keeps.

use std::sync::Arc;

use serde::Serialize;

use crate::ir::VarKind;
use crate::kernel::BufferType;
use crate::place::{Placed, Spread};
use crate::plan::Plan;

/// A parameter that servers keep.
#[derive(Clone, Debug, Serialize)]
pub struct KeptRow {
    /// Its name.
    pub parameter: Arc<str>,
    /// Who keeps it, and how many bytes of it.
    pub on: Vec<(Arc<str>, u64)>,
}

/// Every parameter that servers keep, in the graph's order.
pub(super) fn kept(plan: &Plan, placed: &Placed) -> Vec<KeptRow> {
    if placed.request.servers.is_none() {
        return vec![];
    }
    let row = |variable: &crate::ir::Variable| {
        let element = BufferType::of(&variable.ty)?.dtype.size_bytes() as u64;
        let placement = placed.request.variable(variable);
        let [Spread::Owned { cuts }] = &placement[..] else { return None };
        let shares = cuts.windows(2).zip(&plan.devices).map(|(w, d)| (d.device.clone(), (w[1] - w[0]) * element));
        let on = shares.filter(|(_, bytes)| *bytes > 0).collect();
        Some(KeptRow { parameter: variable.name.clone(), on })
    };
    let parameters = placed.graph.state.values().iter().filter(|v| v.kind == VarKind::Param);
    parameters.filter_map(row).collect()
}
