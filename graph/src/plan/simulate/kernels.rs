//! What a simulation knows of kernels: the name of each, and which of its results may lie over which operand. Found once
//! for all runs.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use super::bytes::name;
use super::harm::{Harm, HarmKind};
use super::in_place::in_place;
use crate::id::Id;
use crate::kernel::Kernel;
use crate::plan::{KernelId, Plan};

pub(super) struct Kernels {
    names: Vec<u64>,
    /// By kernel, result and operand.
    in_place: RefCell<HashMap<(KernelId, usize, usize), bool>>,
}

impl Kernels {
    /// The kernels of a plan, if all are sound.
    pub(super) fn new(plan: &Plan) -> Result<Self, Box<Harm>> {
        let mut names = Vec::with_capacity(plan.kernels.len());
        for (id, kernel) in plan.kernels.iter() {
            if let Some(fault) = kernel.verify().into_iter().next() {
                let (kind, message) = (HarmKind::Malformed, format!("kernel {id}: {fault}"));
                return Err(Box::new(Harm { kind, seed: None, step: 0, at: Duration::ZERO, place: None, message }));
            }
            names.push(name(kernel));
        }
        Ok(Self { names, in_place: RefCell::default() })
    }
    /// The name of a kernel that is there.
    pub(super) fn name(&self, id: KernelId) -> u64 {
        self.names[id.index()]
    }
    /// Whether `kernel`, which is called `id`, may write a result over an operand.
    pub(super) fn in_place(&self, id: KernelId, kernel: &Kernel, result: usize, operand: usize) -> bool {
        let mut known = self.in_place.borrow_mut();
        *known.entry((id, result, operand)).or_insert_with(|| in_place(kernel, result, operand))
    }
}
