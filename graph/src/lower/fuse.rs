//! Fusion: an element-wise launch whose result has one reader is written into that reader, and one pass over memory is
//! saved. Never into a contraction, which devices run as a product of what lies in memory; never where the reader
//! looks at an element more than once; never into an update, whose launches join over flat segments instead.
//!
//! Then, the other way round, an element-wise launch that alone reads what a contraction makes is written into the
//! contraction's epilogue. Then, because what was element-wise is a fold afterwards, and can be in no other reader.

use std::collections::{HashMap, HashSet};

use super::{LaunchLimits, Places, Root, Step};
use crate::kernel::{BufferType, Coord, Kernel, LoopNest, ScalarOp};

/// Kernels do not grow beyond this: devices bind a limited number of buffers and hold a limited number of values.
const MAX_OPERANDS: usize = 8;
const MAX_INSTRUCTIONS: usize = 48;

/// What fusion leaves alone: what others than launches look at, and updates.
#[derive(Clone, Copy)]
pub(super) struct Kept<'a> {
    pub(super) places: &'a Places,
    pub(super) fetched: &'a HashSet<Root>,
    pub(super) updates: &'a HashSet<Root>,
    pub(super) limits: LaunchLimits,
}

/// Writes producers into their readers.
pub(super) fn producers(steps: Vec<Step>, kept: Kept<'_>) -> Vec<Step> {
    Launches::new(steps, kept).each(kept, Launches::absorb)
}

/// Writes readers into the epilogues of contractions.
pub(super) fn epilogues(steps: Vec<Step>, kept: Kept<'_>) -> Vec<Step> {
    Launches::new(steps, kept).each(kept, Launches::attach)
}

struct Launches {
    /// In order; what was written into another is gone.
    slots: Vec<Option<Step>>,
    /// Which launch makes a place, where the two may become one.
    maker: HashMap<Root, usize>,
    /// How many launches read a place.
    readers: HashMap<Root, usize>,
    limits: LaunchLimits,
}

impl Launches {
    fn new(steps: Vec<Step>, kept: Kept<'_>) -> Self {
        let (mut maker, mut readers) = (HashMap::new(), HashMap::new());
        for (i, step) in steps.iter().enumerate() {
            let distinct: HashSet<Root> = step.reads.iter().copied().collect();
            distinct.into_iter().for_each(|r| *readers.entry(r).or_default() += 1);
            if let [only] = step.writes[..]
                && kept.places.is_scratch(only)
                && !kept.fetched.contains(&only)
                && !kept.updates.contains(&only)
            {
                maker.insert(only, i);
            }
        }
        Self { slots: steps.into_iter().map(Some).collect(), maker, readers, limits: kept.limits }
    }
    /// The launches after `join` has seen each that is no update, in order.
    fn each(mut self, kept: Kept<'_>, join: fn(&mut Self, Step) -> Step) -> Vec<Step> {
        let is_update = |s: &Step| s.writes.iter().any(|w| kept.updates.contains(w));
        for i in 0..self.slots.len() {
            if let Some(step) = self.slots[i].take_if(|s| !is_update(s)) {
                self.slots[i] = Some(join(&mut self, step));
            }
        }
        self.slots.into_iter().flatten().collect()
    }
    /// Whether nobody but one launch looks at `root`, and another makes it.
    fn passes(&self, root: &Root) -> bool {
        self.maker.contains_key(root) && self.readers.get(root) == Some(&1)
    }

    /// `step` in the epilogue of the latest contraction whose result it alone reads, if that can be.
    fn attach(&mut self, step: Step) -> Step {
        // `y + y` reads one tensor, by two names.
        let step = apart(&step).unwrap_or(step);
        let mut makers: Vec<(usize, usize)> = Vec::new();
        for (k, root) in step.reads.iter().enumerate().filter(|(_, r)| self.passes(r)) {
            makers.push((self.maker[root], k));
        }
        makers.sort_unstable();
        for (maker, k) in makers.into_iter().rev() {
            let attached =
                self.slots[maker].as_ref().and_then(|contraction| follow(contraction, &step, k, self.limits));
            if let Some(attached) = attached {
                self.slots[maker] = None;
                return attached;
            }
        }
        step
    }

    /// `step` with every producer written into it that can be.
    fn absorb(&mut self, mut step: Step) -> Step {
        let mut refused: HashSet<Root> = HashSet::new();
        loop {
            let mine = |r: &Root| self.passes(r) && !refused.contains(r);
            let Some(root) = step.reads.iter().copied().find(mine) else { return step };
            let slot = &mut self.slots[self.maker[&root]];
            let Some(fused) = slot.as_ref().and_then(|producer| join(&step, producer, root, self.limits)) else {
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
fn join(step: &Step, producer: &Step, root: Root, limits: LaunchLimits) -> Option<Step> {
    let Kernel::Nest(nest) = &step.kernel else { return None };
    if nest.contraction().is_some() {
        return None;
    }
    let mut kernel = step.kernel.clone();
    let mut reads = step.reads.clone();
    while let Some(k) = reads.iter().position(|r| *r == root) {
        let Kernel::Nest(now) = &kernel else { return None };
        if !looks_once(now, k) {
            return None;
        }
        kernel = kernel.with_producer(k, &producer.kernel)?;
        reads.remove(k);
        reads.extend(&producer.reads);
    }
    one_launch(kernel, reads, producer, step, limits)
}

/// The same launch, in which no two operands are the same tensor; `None` if that cannot be said of it.
fn apart(step: &Step) -> Option<Step> {
    let mut step = step.clone();
    while let Some((keep, drop)) = twins(&step.reads) {
        step.kernel = step.kernel.with_shared_operand(keep, drop)?;
        step.reads.remove(drop);
    }
    Some(step)
}

/// `contraction` with its reader `step` in its epilogue; what it makes is operand `k` there.
fn follow(contraction: &Step, step: &Step, k: usize, limits: LaunchLimits) -> Option<Step> {
    if step.reads.iter().filter(|r| **r == step.reads[k]).count() > 1 {
        return None;
    }
    let kernel = contraction.kernel.with_reader(&step.kernel, k)?;
    let others = step.reads.iter().enumerate().filter(|(i, _)| *i != k).map(|(_, r)| r);
    one_launch(kernel, contraction.reads.iter().chain(others).copied().collect(), contraction, step, limits)
}

/// The launch that two have become, if it has not grown too large.
fn one_launch(
    mut kernel: Kernel,
    mut reads: Vec<Root>,
    first: &Step,
    second: &Step,
    limits: LaunchLimits,
) -> Option<Step> {
    while let Some((keep, drop)) = twins(&reads) {
        kernel = kernel.with_shared_operand(keep, drop)?;
        reads.remove(drop);
    }
    let Kernel::Nest(nest) = &kernel else { return None };
    // What the first one reads would have to be kept until the second is due: not if that is more than what it makes of it.
    let bytes = |types: &[BufferType]| types.iter().map(BufferType::size_bytes).sum::<u64>();
    if first.level < second.level && bytes(first.kernel.operands()) > bytes(first.kernel.results()) {
        return None;
    }
    let operands = MAX_OPERANDS.min(limits.buffers.saturating_sub(second.writes.len()));
    let fits = reads.len() <= operands && nest.body.insts.len() + nest.epilogue.insts.len() <= MAX_INSTRUCTIONS;
    let label = joined(&first.label, " + ", &second.label).into();
    let level = first.level.max(second.level);
    fits.then(|| Step { level, kernel, reads, writes: second.writes.clone(), label, site: second.site.clone() })
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
