//! Launches that a device can be given: one that names more buffers than a launch may becomes several, before anything is
//! fused. What is fused later stops in time.

use super::{Home, LaunchLimits, Places, Step};
use crate::kernel::{Kernel, LoopNest};

/// The launches, each within the limit, where that can be. What is no nest, or reads too much for one value, stays as it
/// is: the device has the last word.
pub(super) fn within(steps: Vec<Step>, places: &mut Places, limits: LaunchLimits) -> Vec<Step> {
    let mut out = Vec::with_capacity(steps.len());
    for step in steps {
        match step.kernel {
            Kernel::Nest(ref nest) if buffers(nest) > limits.buffers => {
                let all: Vec<usize> = (0..nest.operands.len()).collect();
                let each = if nest.results.len() > 1 { nest.by_result() } else { vec![(nest.clone(), all)] };
                for (slot, (nest, operands)) in each.into_iter().enumerate() {
                    let reads = operands.iter().map(|k| step.reads[*k]).collect();
                    let one = Step { kernel: nest.into(), reads, writes: vec![step.writes[slot]], ..step.clone() };
                    narrow(one, places, limits.buffers, &mut out);
                }
            }
            _ => out.push(step),
        }
    }
    out
}

fn buffers(nest: &LoopNest) -> usize {
    nest.operands.len() + nest.results.len()
}

/// A launch of one result, in as many as it takes.
fn narrow(mut step: Step, places: &mut Places, most: usize, out: &mut Vec<Step>) {
    let cut = |step: &Step| match &step.kernel {
        Kernel::Nest(nest) if buffers(nest) > most => nest.in_two(most),
        _ => None,
    };
    while let Some([(first, from), (second, rest)]) = cut(&step) {
        let made = places.add(first.results[0].clone(), Home::Scratch);
        let reads = from.iter().map(|k| step.reads[*k]).collect();
        out.push(Step { kernel: first.into(), reads, writes: vec![made], ..step.clone() });
        // The value is the operand behind all that there were.
        let reads = rest.iter().map(|k| step.reads.get(*k).copied().unwrap_or(made)).collect();
        step = Step { kernel: second.into(), reads, ..step };
    }
    out.push(step);
}
