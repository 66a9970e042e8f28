//! What a sound plan is. Of each device, byte by byte: every id exists, every buffer lies inside its arena, every launch
//! gets what its kernel asks for, every byte is written before it is read and read before something else is written over
//! it, nothing is computed for nobody, the body leaves state alone, and no old value is read after its update. Of all
//! devices: each channel is used once at either end, its slot has one owner at a time, and nobody waits for ever.
//!
//! Nothing is taken on trust, for a plan may come from a stranger: a fact that one check relies on has been checked
//! before, no number of the plan sizes an allocation, and the list of faults is cut off. What it cannot see is whether
//! this is the plan of *that* graph: a sound plan of another program passes. That is what the hash is for.

mod certificate;
mod channels;
mod fault;
mod memory;
mod order;
mod spans;

pub use certificate::{Certificate, Peak};
pub use fault::{Fault, FaultKind, Place};

use super::Plan;
use fault::Faults;
use order::Order;

/// What is shown of a plan, or what is wrong with it.
pub(super) fn certify(plan: &Plan) -> Result<Certificate, Vec<Fault>> {
    examine(plan).map(|order| Certificate::new(plan, &order))
}

/// What is wrong with a plan.
pub(super) fn verify(plan: &Plan) -> Vec<Fault> {
    examine(plan).err().unwrap_or_default()
}

fn examine(plan: &Plan) -> Result<Order, Vec<Fault>> {
    let mut faults = Faults::new(plan);
    let mut sound = Vec::with_capacity(plan.kernels.len());
    for (id, kernel) in plan.kernels.iter() {
        let list = kernel.verify();
        sound.push(list.is_empty());
        list.into_iter().for_each(|f| faults.add(FaultKind::Kernel, vec![], format!("kernel {id}: {f}")));
    }
    if plan.devices.len() > usize::from(u16::MAX) {
        let message = format!("{} devices are more than can be numbered", plan.devices.len());
        faults.add(FaultKind::Missing, vec![], message);
        return Err(faults.list());
    }
    let before = faults.count();
    let between = channels::channels(plan, &mut faults);
    let kept = faults.count() == before;
    for device in 0..plan.devices.len() as u16 {
        memory::memory(plan, &sound, device, &between, &mut faults);
    }
    // Of channels that break their rules, the order means nothing.
    let order = kept.then(|| order::order(plan, &between, &mut faults)).flatten();
    match (order, faults.list()) {
        (Some(order), list) if list.is_empty() => Ok(order),
        (_, list) => Err(list),
    }
}
