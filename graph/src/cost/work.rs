//! The work that a kernel's text asks for, sorted by what a device is differently fast at. Other than
//! [`Kernel::cost`](crate::kernel::Kernel::cost), which counts arithmetic for people, it counts what takes time: a load is an
//! instruction, a transposed read is dear, and the elements that a product packs are counted beside those it multiplies.

use serde::Serialize;

use super::Rates;
use crate::kernel::scalar::{Binary, Scalar, ScalarOp, Unary};
use crate::kernel::{Axis, Coord, Kernel, LoopNest, Monoid, Read, Scatter};

/// How much of each sort one run of a kernel asks for; see the fields of [`Rates`] of the same names.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Work {
    /// Operations of plain products.
    pub product_flops: f64,
    /// Operations of products one of whose operands is gathered from an image.
    pub window_flops: f64,
    /// Operations of products that read windows backwards.
    pub back_flops: f64,
    /// Operations of products of windows, summed over images.
    pub weight_flops: f64,
    /// Instructions on tiles of products.
    pub epilogue_ops: f64,
    /// Elements that products pack.
    pub packed: f64,
    /// Cheap instructions.
    pub lane_ops: f64,
    /// Dear ones.
    pub heavy_ops: f64,
    /// Elements folded.
    pub folded: f64,
    /// Elements read out of order.
    pub strided: f64,
    /// Contributions scattered.
    pub scattered: f64,
    /// Operations of attention.
    pub attention_flops: f64,
    /// Bytes of operands and results.
    pub bytes: f64,
    /// Nests that run one after the other.
    pub nests: f64,
}

impl Work {
    /// What `kernel` asks for.
    pub fn of(kernel: &Kernel) -> Self {
        let cost = kernel.cost();
        let mut work = Work { bytes: cost.bytes_read + cost.bytes_written, ..Work::default() };
        match kernel {
            Kernel::Nest(nest) => work.nest(nest),
            Kernel::Group(group) => group.members.iter().for_each(|m| work.nest(&m.nest)),
            Kernel::Scatter(scatter) => work.scatter(scatter),
            Kernel::Attention(_) | Kernel::AttentionGrad(_) => {
                work.attention_flops += cost.flops;
                work.nests += 1.0;
            }
        }
        work
    }
    /// How long it takes a device that works and fetches at the same time.
    pub fn seconds(&self, rates: &Rates) -> f64 {
        let work = self.product_flops / rates.product_flops
            + self.window_flops / rates.window_flops
            + self.back_flops / rates.back_flops
            + self.weight_flops / rates.weight_flops
            + self.epilogue_ops / rates.epilogue_ops
            + self.packed / rates.packed
            + self.lane_ops / rates.lane_ops
            + self.heavy_ops / rates.heavy_ops
            + self.folded / rates.folded
            + self.strided / rates.strided
            + self.scattered / rates.scattered
            + self.attention_flops / rates.attention_flops;
        let fetched = self.bytes / rates.bytes_per_second(self.bytes as u64);
        work.max(fetched) + rates.launch_seconds * self.nests.max(1.0)
    }

    fn nest(&mut self, nest: &LoopNest) {
        self.nests += 1.0;
        let points = extent(&nest.axes, false);
        let all = points * extent(&nest.axes, true);
        if let Some(sum) = nest.contraction() {
            let factors = sum.factors.map(|read| &nest.reads[read]);
            let dense: f64 = nest.reads.iter().flat_map(|r| &r.coords).map(density).product();
            let flops = 2.0 * all * dense;
            match factors.into_iter().find(|read| gathers(read)) {
                Some(image) if is_backward(image) => self.back_flops += flops,
                Some(image) if sums_images(image, &nest.axes) => self.weight_flops += flops,
                Some(_) => self.window_flops += flops,
                None => self.product_flops += flops,
            }
            self.packed += factors.iter().map(|read| used(read, &nest.axes)).sum::<f64>();
            let sums = nest.epilogue.insts.iter().filter(|i| !matches!(i.op, ScalarOp::Literal(_)));
            // The sum itself is no instruction.
            self.epilogue_ops += points * sums.count().saturating_sub(1) as f64;
            return;
        }
        if !nest.folds.is_empty() {
            self.program(&nest.body, &nest.reads, &nest.axes, all);
            let dear = nest.folds.iter().filter(|f| f.monoid == Monoid::LogSumExp).count() as f64;
            self.folded += all * nest.folds.len() as f64;
            self.heavy_ops += all * dear;
        }
        self.program(&nest.epilogue, &nest.reads, &nest.axes, points);
        self.lane_ops += points * nest.writes.len() as f64;
    }

    fn scatter(&mut self, scatter: &Scatter) {
        self.nests += 1.0;
        let points = extent(&scatter.axes, false);
        self.program(&scatter.body, &[], &[], points);
        self.scattered += points;
    }

    /// A program that runs at so many points.
    fn program(&mut self, program: &Scalar, reads: &[Read], axes: &[Axis], points: f64) {
        for inst in &program.insts {
            match &inst.op {
                ScalarOp::Literal(_) | ScalarOp::Folded { .. } => {}
                ScalarOp::Read(k) => match reads.get(usize::from(*k)) {
                    Some(read) if is_strided(read, axes) => self.strided += points,
                    _ => self.lane_ops += points,
                },
                op if is_heavy(op) => self.heavy_ops += points,
                _ => self.lane_ops += points,
            }
        }
    }
}

fn extent(axes: &[Axis], fold: bool) -> f64 {
    axes.iter().filter(|a| a.fold == fold).map(|a| a.extent as f64).product()
}

fn is_heavy(op: &ScalarOp) -> bool {
    use Unary::{Cos, Erf, Exp, Log, Sin, Tanh};
    matches!(op, ScalarOp::Philox { .. } | ScalarOp::Unary(Exp | Log | Tanh | Erf | Sin | Cos, _))
        || matches!(op, ScalarOp::Binary(Binary::Pow, ..))
}

fn density(coord: &Coord) -> f64 {
    match coord {
        Coord::Holes { step, .. } => 1.0 / *step as f64,
        _ => 1.0,
    }
}

/// Whether a read of a product gathers windows: one coordinate goes along two axes of the loop.
fn gathers(read: &Read) -> bool {
    read.coords.iter().any(|c| match c {
        Coord::Affine(index) => index.terms.len() > 1,
        _ => true,
    })
}

/// Whether windows are read backwards, or stand apart: what an input's gradient does.
fn is_backward(read: &Read) -> bool {
    read.coords.iter().any(|c| match c {
        Coord::Affine(index) => index.terms.iter().any(|(_, c)| *c < 0),
        Coord::Holes { .. } => true,
        _ => false,
    })
}

/// Whether what goes over the image is summed: the axis of the images, which a plain coordinate follows, is folded.
fn sums_images(read: &Read, axes: &[Axis]) -> bool {
    let first = read.coords.first().and_then(Coord::index).and_then(|i| i.as_axis());
    first.is_some_and(|axis| axes[usize::from(axis)].fold)
}

/// How many elements a product packs of an operand: one for each point of the axes that the read goes along.
fn used(read: &Read, axes: &[Axis]) -> f64 {
    let along = |axis: u16| read.coords.iter().filter_map(Coord::index).any(|i| i.coefficient(axis) != 0);
    axes.iter().enumerate().filter(|(a, _)| along(*a as u16)).map(|(_, axis)| axis.extent as f64).product()
}

/// Whether neighbouring points of the loop are read at places that are not neighbours: of the innermost axis, folded or not,
/// whichever suits the read better.
fn is_strided(read: &Read, axes: &[Axis]) -> bool {
    /// A fold that is shorter is no row.
    const ROW: u64 = 8;
    let innermost = |fold: bool| axes.iter().rposition(|a| a.fold == fold && a.extent > if fold { ROW } else { 1 });
    let steps: Vec<u16> = [false, true].into_iter().filter_map(innermost).map(|a| a as u16).collect();
    !steps.is_empty() && steps.into_iter().all(|axis| strides(read, axis))
}

/// Whether a step along an axis of the loop is a stride in the operand.
fn strides(read: &Read, axis: u16) -> bool {
    let last = read.coords.len().saturating_sub(1);
    read.coords.iter().enumerate().any(|(d, coord)| match coord {
        Coord::Affine(index) => match index.coefficient(axis) {
            0 => false,
            1 => d != last,
            _ => true,
        },
        // Digits of a position change slowly; what is found by a value lies anywhere.
        other => other.index().is_none_or(|i| i.coefficient(axis) != 0),
    })
}
