//! `pad` — the operand with `value` around it, `low` before and `high` after, and `inner` between neighbours, along each
//! axis. Its gradient is a `slice`, and that one's is a `pad`.
//!
//! * **C1** there is one `low`, one `high` and one `inner ≥ 0` (none: all 0) per axis.
//! * **C2** an axis with something between neighbours has a number for an extent.

use thalweg_graph::kernel::build::{Affine, Axes, holes, read_or};
use thalweg_graph::kernel::{BufferType, Kernel};
use thalweg_graph::{Accuracy, DType, Dim, InHalf, OpError, Schema, Shape, TensorType, Types, require};

use crate::Tensor;
use crate::op::{Gradients, Op, VjpCx};
use crate::sample::Sample;

thalweg_graph::attrs! {
    /// A tensor with something around it.
    pub struct Pad {
        /// How much before, per axis.
        low: Shape = Shape::scalar(),
        /// How much after, per axis.
        high: Shape = Shape::scalar(),
        /// How much between neighbours, per axis; none: 0.
        inner: Vec<i64> = vec![],
        /// What is there.
        value: f64 = 0.0,
    }
}

impl Pad {
    fn step(&self, axis: usize) -> u64 {
        self.inner.get(axis).map_or(1, |i| *i as u64 + 1)
    }
    /// What `n` elements are with those between neighbours.
    fn spread(&self, axis: usize, n: &Dim) -> Option<Dim> {
        match (self.step(axis), n.fixed()) {
            (1, _) => Some(n.clone()),
            (_, Some(0)) => Some(Dim::Fixed(0)),
            (step, Some(n)) => (n - 1).checked_mul(step)?.checked_add(1).map(Dim::Fixed),
            (_, None) => None,
        }
    }
}

impl Op for Pad {
    const SCHEMA: Schema = Schema { name: "pad", operands: &["x"], results: &["out"], accuracy: Accuracy::Exact };
    const IN_HALF: InHalf = InHalf::Follows;
    fn infer(&self, operands: &[TensorType]) -> Result<Types, OpError> {
        let (x, rank) = (&operands[0], operands[0].rank());
        let counted = self.low.rank() == rank
            && self.high.rank() == rank
            && (self.inner.is_empty() || self.inner.len() == rank)
            && self.inner.iter().all(|i| (0..1 << 31).contains(i));
        require!(counted, "pad.C1", "needs how much before, after and between for each axis of {}", x.shape);
        let mut shape = Vec::new();
        for d in 0..rank {
            let spread = self.spread(d, &x.shape[d]);
            let extent = spread.and_then(|n| n.plus(&self.low[d])?.plus(&self.high[d]));
            require!(extent.is_some(), "pad.C2", "axis {d} of {} has no number that could be spread", x.shape);
            shape.extend(extent);
        }
        Ok(vec![x.dtype.of(Shape(shape))])
    }
    fn lower(&self, operands: &[BufferType], results: &[BufferType]) -> Option<Kernel> {
        let mut axes = Axes::new();
        let out = axes.par_over(&results[0].shape);
        let low = self.low.fixed()?;
        let at = out.iter().enumerate().map(|(d, axis)| holes(Affine::from(*axis) - low[d] as i64, self.step(d)));
        Some(axes.nest(operands, results, [read_or(0, at, self.value)]))
    }
    fn gradient<'g>(&self, cx: &VjpCx<'g>) -> Option<Gradients<'g>> {
        let x = cx.operand(0).shape();
        let stop = |d: usize| self.spread(d, &x[d]).and_then(|n| n.plus(&self.low[d]));
        let stops = (0..x.rank()).map(stop).collect::<Option<Vec<_>>>()?;
        let steps = self.inner.iter().map(|i| i + 1).collect();
        let slice = super::slice::Slice { starts: self.low.clone(), stops: Shape(stops), steps };
        Some(vec![Some(cx.ct().apply(slice, []))])
    }
    fn samples() -> Vec<Sample<Self>> {
        let case = |from: &[u64], low: &[u64], high: &[u64], inner: &[i64], value| {
            Sample::f32(Self { low: low.into(), high: high.into(), inner: inner.to_vec(), value }, [from])
        };
        vec![
            case(&[2, 3], &[1, 0], &[0, 2], &[], 0.0),
            case(&[3], &[2], &[1], &[2], 1.5),
            case(&[2, 3], &[0, 0], &[1, 1], &[0, 1], f64::NEG_INFINITY).no_gradient(),
            case(&[0, 2], &[1, 0], &[1, 0], &[3, 0], 7.0),
            case(&[], &[], &[], &[], 1.0),
            Sample::new(
                Self { low: [1u64].into(), high: [1u64].into(), inner: vec![], value: 1.0 },
                [DType::Bool.of([2])],
            ),
        ]
    }
}

impl<'g> Tensor<'g> {
    /// With `value` around it: `low` and `high` elements before and after, per axis.
    #[track_caller]
    pub fn pad(self, low: impl Into<Shape>, high: impl Into<Shape>, value: f64) -> Self {
        self.apply(Pad { low: low.into(), high: high.into(), inner: vec![], value }, [])
    }
}
