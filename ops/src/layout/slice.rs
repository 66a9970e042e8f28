//! `slice` — every `steps`-th element of a box: along axis `d`, places `starts[d]`, `starts[d] + steps[d]`, … below
//! `stops[d]`. Bounds are shapes and not plain numbers, so that an axis of a named extent can be kept or cut.
//!
//! * **C1** there is one start, one stop and one step (none: all 1) per axis, and steps are positive.
//! * **C2** `starts ≤ stops ≤` the operand's extents, for every value of every named dimension within its bounds.
//! * **C3** where a step is not 1, the bounds of that axis are numbers.

use std::ops::{Bound, RangeBounds};

use thalweg_graph::kernel::build::{Axes, read};
use thalweg_graph::kernel::{BufferType, Kernel};
use thalweg_graph::op::Demand;
use thalweg_graph::{Accuracy, Dim, InHalf, OpError, Schema, Shape, TensorType, Types, require};

use crate::Tensor;
use crate::op::{Gradients, Op, VjpCx};
use crate::sample::Sample;

thalweg_graph::attrs! {
    /// Every so-manieth element of a box.
    pub struct Slice {
        /// First place, per axis.
        starts: Shape = Shape::scalar(),
        /// Bound, per axis.
        stops: Shape = Shape::scalar(),
        /// From one place to the next, per axis; none: 1.
        steps: Vec<i64> = vec![],
    }
}

impl Slice {
    fn step(&self, axis: usize) -> u64 {
        self.steps.get(axis).map_or(1, |s| *s as u64)
    }
}

impl Op for Slice {
    const SCHEMA: Schema = Schema { name: "slice", operands: &["x"], results: &["out"], accuracy: Accuracy::Exact };
    const IN_HALF: InHalf = InHalf::Follows;
    fn infer(&self, operands: &[TensorType]) -> Result<Types, OpError> {
        let (x, rank) = (&operands[0], operands[0].rank());
        let counted = self.starts.rank() == rank
            && self.stops.rank() == rank
            && (self.steps.is_empty() || self.steps.len() == rank)
            && self.steps.iter().all(|s| *s > 0);
        require!(counted, "slice.C1", "needs a start, a stop and a positive step for each axis of {}", x.shape);
        let mut shape = Vec::new();
        for d in 0..rank {
            let (start, stop, step) = (&self.starts[d], &self.stops[d], self.step(d));
            let inside = x.shape[d].minus(stop).and(stop.minus(start));
            require!(inside.is_some(), "slice.C2", "{start}..{stop} is not inside axis {d} of {}", x.shape);
            let length = inside.unwrap_or(Dim::Fixed(0));
            shape.push(match (step, length.fixed()) {
                (1, _) => length,
                (step, Some(n)) => Dim::Fixed(n.div_ceil(step)),
                _ => return Err(OpError::new("slice.C3", format!("a step of {step} in {start}..{stop} of axis {d}"))),
            });
        }
        Ok(vec![x.dtype.of(Shape(shape))])
    }
    fn demands(&self, operands: &[TensorType]) -> Vec<Demand> {
        let mut demands = vec![];
        for (d, extent) in operands[0].shape.iter().enumerate() {
            let (start, stop) = (&self.starts[d], &self.stops[d]);
            for dim in [extent.minus(stop), stop.minus(start)].into_iter().flatten().filter(|d| d.fixed().is_none()) {
                let message =
                    format!("{start}..{stop} is not inside axis {d} of {} for every value", operands[0].shape);
                demands.push(Demand { rule: "slice.C2", dim, message });
            }
        }
        demands
    }
    fn lower(&self, operands: &[BufferType], results: &[BufferType]) -> Option<Kernel> {
        let mut axes = Axes::new();
        let out = axes.par_over(&results[0].shape);
        let starts = self.starts.fixed()?;
        let at = out.iter().enumerate().map(|(d, axis)| *axis * self.step(d) as i64 + starts[d] as i64);
        Some(axes.nest(operands, results, [read(0, at)]))
    }
    fn gradient<'g>(&self, cx: &VjpCx<'g>) -> Option<Gradients<'g>> {
        let (whole, out) = (cx.operand(0).shape(), cx.result().shape());
        let rank = whole.rank();
        // What lies after the last element taken: the extent − start − ((n − 1)·step + 1), or all − start if n is 0.
        let after = |d: usize| {
            let reach = match out[d].fixed() {
                Some(n) if self.step(d) != 1 => Dim::Fixed(if n == 0 { 0 } else { (n - 1) * self.step(d) + 1 }),
                _ => out[d].clone(),
            };
            whole[d].minus(&self.starts[d]).and_then(|rest| rest.minus(&reach))
        };
        let high = (0..rank).map(after).collect::<Option<Vec<_>>>()?;
        let inner = self.steps.iter().map(|s| s - 1).collect();
        let pad = super::pad::Pad { low: self.starts.clone(), high: Shape(high), inner, value: 0.0 };
        Some(vec![Some(cx.ct().apply(pad, []))])
    }
    fn samples() -> Vec<Sample<Self>> {
        let case = |from: &[u64], starts: &[u64], stops: &[u64], steps: &[i64]| {
            Sample::f32(Self { starts: starts.into(), stops: stops.into(), steps: steps.to_vec() }, [from])
        };
        vec![
            case(&[5, 4], &[1, 0], &[3, 4], &[]),
            case(&[7], &[1], &[7], &[3]),
            case(&[7, 3], &[0, 1], &[6, 2], &[2, 1]),
            case(&[3, 4], &[2, 2], &[2, 4], &[1, 2]),
            case(&[], &[], &[], &[]),
        ]
    }
}

impl<'g> Tensor<'g> {
    /// The places of `range` along `axis` (a negative one counts from the end); all of the other axes. Itself if that
    /// is everything.
    #[track_caller]
    pub fn slice<D: Clone + Into<Dim>>(self, axis: i64, range: impl RangeBounds<D>) -> Self {
        self.slice_by(axis, range, 1)
    }
    /// Every `step`-th place of `range` along `axis`.
    #[track_caller]
    pub fn slice_by<D: Clone + Into<Dim>>(self, axis: i64, range: impl RangeBounds<D>, step: u64) -> Self {
        let whole = self.shape();
        let (mut starts, mut stops, mut steps) = (vec![Dim::Fixed(0); whole.rank()], whole.0.clone(), vec![]);
        let one = Dim::Fixed(1);
        let next = |d: &D| d.clone().into().plus(&one).unwrap_or(Dim::Fixed(u64::MAX));
        match super::axes_once(&[axis], whole.rank()).map(|a| a[0]) {
            Some(d) => {
                match range.start_bound() {
                    Bound::Included(start) => starts[d] = start.clone().into(),
                    Bound::Excluded(start) => starts[d] = next(start),
                    Bound::Unbounded => {}
                }
                match range.end_bound() {
                    Bound::Included(stop) => stops[d] = next(stop),
                    Bound::Excluded(stop) => stops[d] = stop.clone().into(),
                    Bound::Unbounded => {}
                }
                if step != 1 {
                    steps = vec![1; whole.rank()];
                    steps[d] = step as i64;
                }
                if stops == whole.0 && starts[d] == Dim::Fixed(0) && step == 1 {
                    return self;
                }
            }
            None => stops.push(Dim::Fixed(0)), // no such axis: C1 says so
        }
        self.apply(Slice { starts: Shape(starts), stops: Shape(stops), steps }, [])
    }
}
