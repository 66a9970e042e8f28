//! `sum` — `out = Σ x` over some axes. An empty sum is zero.
//!
//! * **C1** `axes` are axes of the operand, each once (negative ones from the end; none: all).
//! * **C2** the operand holds numbers.

use thalweg_graph::kernel::build::{lit, read, sum};
use thalweg_graph::kernel::{BufferType, Kernel};
use thalweg_graph::{Accuracy, DType, Dim, OpError, Schema, Shape, TensorType, Types, require};

use crate::Tensor;
use crate::op::{Gradients, Op, VjpCx};
use crate::sample::Sample;

thalweg_graph::attrs! {
    /// Sum over axes.
    pub struct Sum {
        /// The axes; none: all.
        axes: Vec<i64> = vec![],
        /// Whether they stay, with extent 1.
        keep: bool = false,
    }
}

impl Op for Sum {
    const SCHEMA: Schema = Schema { name: "sum", operands: &["x"], results: &["out"], accuracy: Accuracy::Ulps(8) };
    fn infer(&self, operands: &[TensorType]) -> Result<Types, OpError> {
        let x = &operands[0];
        require!(x.dtype != DType::Bool, "sum.C2", "needs numbers, got {x}"; help: "cast truth values to i32 to count them");
        Ok(vec![x.dtype.of(super::infer_shape("sum.C1", &x.shape, &self.axes, self.keep)?)])
    }
    fn lower(&self, operands: &[BufferType], results: &[BufferType]) -> Option<Kernel> {
        let (axes, at, _) = super::axes_of(&operands[0].shape, &self.axes, self.keep);
        // + 0 turns the −0 of an empty sum into 0 and changes nothing else.
        Some(axes.nest(operands, results, [sum(read(0, at)) + lit(0.0)]))
    }
    fn gradient<'g>(&self, cx: &VjpCx<'g>) -> Option<Gradients<'g>> {
        let shape = cx.operand(0).shape();
        let kept = super::infer_shape("sum.C1", &shape, &self.axes, true).unwrap_or_default();
        Some(vec![Some(cx.ct().reshape(kept).broadcast_to(shape))])
    }
    fn samples() -> Vec<Sample<Self>> {
        let case = |shape: &[u64], axes: &[i64], keep| Sample::f32(Self { axes: axes.to_vec(), keep }, [shape]);
        vec![
            case(&[2, 3, 4], &[], false),
            case(&[2, 3, 4], &[1], false),
            case(&[2, 3, 4], &[0, -1], true),
            case(&[3, 700], &[1], false),
            case(&[700, 3], &[0], false),
            case(&[2, 0], &[1], false),
            case(&[], &[], false),
            case(&[1, 5], &[0], false),
        ]
    }
}

impl<'g> Tensor<'g> {
    /// Sum of everything.
    #[track_caller]
    pub fn sum(self) -> Self {
        self.sum_over(&[])
    }
    /// Sum over `axes` (none: all), which disappear.
    #[track_caller]
    pub fn sum_over(self, axes: &[i64]) -> Self {
        self.apply(Sum { axes: axes.to_vec(), keep: false }, [])
    }
    /// Sum over `axes`, which stay with extent 1.
    #[track_caller]
    pub fn sum_keep(self, axes: &[i64]) -> Self {
        self.apply(Sum { axes: axes.to_vec(), keep: true }, [])
    }
    /// Sum down to `shape`, of which this is a broadcast: what a gradient through broadcasting needs.
    #[track_caller]
    pub fn sum_to(self, shape: &Shape) -> Self {
        let have = self.shape();
        if self.is_poison() || have == *shape {
            return self;
        }
        let skip = have.rank() - shape.rank();
        let repeated = |i: &usize| *i < skip || (shape[i - skip] == Dim::Fixed(1) && have[*i] != Dim::Fixed(1));
        let axes: Vec<i64> = (0..have.rank()).filter(repeated).map(|i| i as i64).collect();
        if axes.is_empty() { self.reshape(shape) } else { self.sum_over(&axes).reshape(shape) }
    }
}
