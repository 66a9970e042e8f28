//! `concat` — the operands one after the other along one axis.
//!
//! * **C1** there is an operand, and all have one element type and one number of axes.
//! * **C2** `axis` is one of them (a negative one counts from the end).
//! * **C3** all other extents agree.

use thalweg_graph::kernel::{BufferType, Kernel};
use thalweg_graph::{Accuracy, Dim, InHalf, OpError, Schema, Shape, TensorType, Types, require};

use crate::Tensor;
use crate::op::{Gradients, Op, VjpCx};
use crate::sample::Sample;

thalweg_graph::attrs! {
    /// Tensors one after the other.
    pub struct Concat {
        /// Along which axis.
        axis: i64 = 0,
    }
}

impl Op for Concat {
    const SCHEMA: Schema =
        Schema { name: "concat", operands: &["parts*"], results: &["out"], accuracy: Accuracy::Exact };
    const IN_HALF: InHalf = InHalf::Follows;
    fn infer(&self, operands: &[TensorType]) -> Result<Types, OpError> {
        let Some(first) = operands.first() else {
            return Err(OpError::new("concat.C1", "needs something to put together"));
        };
        let alike = operands.iter().all(|t| t.dtype == first.dtype && t.rank() == first.rank());
        require!(alike, "concat.C1", "needs one element type and one number of axes, got {operands:?}");
        let axis = super::axes_once(&[self.axis], first.rank()).map(|a| a[0]);
        require!(axis.is_some(), "concat.C2", "{} is no axis of {}", self.axis, first.shape);
        let axis = axis.unwrap_or_default();
        let mut shape = first.shape.clone();
        shape.0[axis] = Dim::Fixed(0);
        for t in operands {
            let same = t.shape.iter().zip(shape.iter()).enumerate().all(|(d, (a, b))| d == axis || a == b);
            require!(same, "concat.C3", "{} and {} differ beside axis {axis}", first.shape, t.shape);
            shape.0[axis] = shape[axis]
                .plus(&t.shape[axis])
                .ok_or_else(|| OpError::new("concat.C3", "the sum of the extents is too large"))?;
        }
        Ok(vec![first.dtype.of(shape)])
    }
    fn lower(&self, operands: &[BufferType], results: &[BufferType]) -> Option<Kernel> {
        let axis = super::axes_once(&[self.axis], results[0].rank())?[0];
        Some(Kernel::join(operands, axis as u16))
    }
    fn gradient<'g>(&self, cx: &VjpCx<'g>) -> Option<Gradients<'g>> {
        let axis = super::axes_once(&[self.axis], cx.result().rank())?[0];
        let mut start = Dim::Fixed(0);
        let mut out = Vec::new();
        for part in &cx.operands {
            let stop = start.plus(&part.dim(axis))?;
            out.push(Some(cx.ct().slice(self.axis, start..stop.clone())));
            start = stop;
        }
        Some(out)
    }
    fn samples() -> Vec<Sample<Self>> {
        let case = |axis, parts: &[&[u64]]| {
            Sample::new(Self { axis }, parts.iter().map(|s| thalweg_graph::DType::F32.of(Shape::from(*s))))
        };
        vec![
            case(0, &[&[2, 3], &[1, 3]]),
            case(-1, &[&[2, 1], &[2, 0], &[2, 4], &[2, 2]]),
            case(1, &[&[2, 3, 2]]),
            case(0, &[&[0], &[0]]),
        ]
    }
}

/// The tensors one after the other along `axis` (a negative one counts from the end).
///
/// # Panics
/// If there are none: then there is no graph either.
#[track_caller]
pub fn concat<'g>(parts: &[Tensor<'g>], axis: i64) -> Tensor<'g> {
    let (first, rest) = parts.split_first().expect("something to put together");
    first.apply(Concat { axis }, rest.iter().copied())
}
