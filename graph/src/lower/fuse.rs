//! Fusion: an element-wise launch whose result has one reader is written into that reader, and one pass over memory is
//! saved. Never into a contraction, which devices run as a product of what lies in memory; never where the reader
//! looks at an element more than once; never into an update, whose launches join over flat segments instead.

use std::collections::{HashMap, HashSet};

use super::{Places, Root, Step};
use crate::kernel::{Binary, Coord, Kernel, LoopNest, Monoid, ScalarOp};

/// Kernels do not grow beyond this: devices bind a limited number of buffers and hold a limited number of values.
const MAX_OPERANDS: usize = 8;
const MAX_INSTRUCTIONS: usize = 48;

/// Fuses launches. What is fetched stays, and so do updates, on both sides.
pub(super) fn fuse(steps: Vec<Step>, places: &Places, fetched: &HashSet<Root>, updates: &HashSet<Root>) -> Vec<Step> {
    let mut launches = Launches { slots: vec![], maker: HashMap::new(), readers: HashMap::new() };
    for (i, step) in steps.iter().enumerate() {
        let distinct: HashSet<Root> = step.reads.iter().copied().collect();
        distinct.into_iter().for_each(|r| *launches.readers.entry(r).or_default() += 1);
        if let [only] = step.writes[..]
            && places.is_scratch(only)
            && !fetched.contains(&only)
            && !updates.contains(&only)
        {
            launches.maker.insert(only, i);
        }
    }
    launches.slots = steps.into_iter().map(Some).collect();
    for i in 0..launches.slots.len() {
        let is_update = |s: &Step| s.writes.iter().any(|w| updates.contains(w));
        if let Some(step) = launches.slots[i].take_if(|s| !is_update(s)) {
            launches.slots[i] = Some(launches.absorb(step));
        }
    }
    launches.slots.into_iter().flatten().collect()
}

struct Launches {
    /// In order; what was written into its reader is gone.
    slots: Vec<Option<Step>>,
    /// Which launch makes a place, where it may be written into its reader.
    maker: HashMap<Root, usize>,
    /// How many launches read a place.
    readers: HashMap<Root, usize>,
}

impl Launches {
    /// `step` with every producer written into it that can be.
    fn absorb(&mut self, mut step: Step) -> Step {
        let mut refused: HashSet<Root> = HashSet::new();
        loop {
            let mine = |r: &Root| self.maker.contains_key(r) && self.readers.get(r) == Some(&1) && !refused.contains(r);
            let Some(root) = step.reads.iter().copied().find(mine) else { return step };
            let slot = &mut self.slots[self.maker[&root]];
            let Some(fused) = slot.as_ref().and_then(|producer| join(&step, producer, root)) else {
                refused.insert(root);
                continue;
            };
            // What both read is now read by one.
            let producer = slot.take().expect("it was just looked at");
            let shared: HashSet<Root> = producer.reads.into_iter().filter(|r| step.reads.contains(r)).collect();
            shared.into_iter().for_each(|r| *self.readers.entry(r).or_default() -= 1);
            step = fused;
        }
    }
}

/// `step` with the launch that makes `root` written into it.
fn join(step: &Step, producer: &Step, root: Root) -> Option<Step> {
    let Kernel::Nest(nest) = &step.kernel else { return None };
    let mut kernel = step.kernel.clone();
    let mut reads = step.reads.clone();
    if is_contraction(nest) {
        return None;
    }
    while let Some(k) = reads.iter().position(|r| *r == root) {
        let Kernel::Nest(now) = &kernel else { return None };
        if !looks_once(now, k) {
            return None;
        }
        kernel = kernel.with_producer(k, &producer.kernel)?;
        reads.remove(k);
        reads.extend(&producer.reads);
    }
    while let Some((keep, drop)) = twins(&reads) {
        kernel = kernel.with_shared_operand(keep, drop)?;
        reads.remove(drop);
    }
    let Kernel::Nest(fused) = &kernel else { return None };
    let fits = reads.len() <= MAX_OPERANDS && fused.body.insts.len() + fused.epilogue.insts.len() <= MAX_INSTRUCTIONS;
    let label = joined(&producer.label, " + ", &step.label).into();
    fits.then(|| Step { kernel, reads, writes: step.writes.clone(), label, site: step.site.clone() })
}

/// `body: lt + select`: a scope that both share is said once.
pub(super) fn joined(first: &str, with: &str, second: &str) -> String {
    let scope = |label: &str| label.split_once(": ").map_or(0, |(scope, _)| scope.len() + 2);
    let (a, b) = (scope(first), scope(second));
    let rest = if first[..a] == second[..b] { &second[b..] } else { second };
    format!("{first}{with}{rest}")
}

fn twins(reads: &[Root]) -> Option<(usize, usize)> {
    (0..reads.len()).find_map(|drop| Some((reads[..drop].iter().position(|r| *r == reads[drop])?, drop)))
}

/// Whether no element of operand `k` is looked at from more points than one.
fn looks_once(nest: &LoopNest, k: usize) -> bool {
    let in_body = |read: usize| {
        nest.body.insts.iter().any(|i| matches!(i.op, ScalarOp::Read(r) | ScalarOp::Valid(r) if r as usize == read))
    };
    let mut reads = nest.reads.iter().enumerate().filter(|(_, r)| r.operand as usize == k);
    reads.all(|(i, read)| {
        let axes = nest.axes.iter().filter(|a| !a.fold || in_body(i));
        let points = axes.fold(1u64, |n, a| n.saturating_mul(a.extent));
        let plain = read.coords.iter().all(|c| matches!(c, Coord::Affine(_)));
        plain && points <= nest.operands[k].len() as u64
    })
}

/// Whether devices run this as a matrix product or a convolution.
pub(super) fn is_contraction(nest: &LoopNest) -> bool {
    let product = nest.body.insts.iter().any(|i| match i.op {
        ScalarOp::Binary(Binary::Mul, a, b) => {
            [a, b].iter().all(|r| matches!(nest.body.insts[*r as usize].op, ScalarOp::Read(_)))
        }
        _ => false,
    });
    product && nest.body.insts.len() == 3 && nest.folds.iter().any(|f| f.monoid == Monoid::Sum)
}
