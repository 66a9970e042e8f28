//! `transpose` — the axes in another order: axis `i` of the result is axis `perm[i]` of the operand. A view: lowering
//! composes it into its readers.
//!
//! * **C1** `perm` names each axis of the operand once (none: all axes reversed).

use thalweg_graph::kernel::build::{Axes, read};
use thalweg_graph::kernel::{BufferType, Kernel};
use thalweg_graph::{Accuracy, InHalf, OpError, Schema, Shape, TensorType, Types, require};

use crate::Tensor;
use crate::op::{Gradients, Op, VjpCx};
use crate::sample::Sample;

thalweg_graph::attrs! {
    /// The axes in another order.
    pub struct Transpose {
        /// Which axis of the operand each axis of the result is; none: all reversed.
        perm: Vec<i64> = vec![],
    }
}

impl Transpose {
    /// The axes of the operand in the result's order; `None` where they are no permutation.
    fn order(&self, rank: usize) -> Option<Vec<usize>> {
        if self.perm.is_empty() {
            return Some((0..rank).rev().collect());
        }
        super::axes_once(&self.perm, rank).filter(|p| p.len() == rank)
    }
}

impl Op for Transpose {
    const SCHEMA: Schema = Schema { name: "transpose", operands: &["x"], results: &["out"], accuracy: Accuracy::Exact };
    const IN_HALF: InHalf = InHalf::Follows;
    fn infer(&self, operands: &[TensorType]) -> Result<Types, OpError> {
        let x = &operands[0];
        let order = self.order(x.rank());
        require!(order.is_some(), "transpose.C1", "{:?} does not name each axis of {} once", self.perm, x.shape);
        let shape = order.unwrap_or_default().into_iter().map(|i| x.shape[i].clone()).collect();
        Ok(vec![x.dtype.of(Shape(shape))])
    }
    fn lower(&self, operands: &[BufferType], results: &[BufferType]) -> Option<Kernel> {
        let mut axes = Axes::new();
        let out = axes.par_over(&results[0].shape);
        let mut at = out.clone();
        for (axis, i) in out.iter().zip(self.order(out.len())?) {
            at[i] = *axis;
        }
        Some(axes.nest(operands, results, [read(0, at)]))
    }
    fn gradient<'g>(&self, cx: &VjpCx<'g>) -> Option<Gradients<'g>> {
        let order = self.order(cx.operand(0).rank())?;
        let mut back = vec![0; order.len()];
        order.iter().enumerate().for_each(|(i, from)| back[*from] = i as i64);
        Some(vec![Some(cx.ct().transpose(&back))])
    }
    fn samples() -> Vec<Sample<Self>> {
        let case = |perm: &[i64], shape: &[u64]| Sample::f32(Self { perm: perm.to_vec() }, [shape]);
        vec![
            case(&[], &[2, 3]),
            case(&[1, 2, 0], &[2, 3, 4]),
            case(&[0, 2, 1], &[2, 3, 4]),
            case(&[-1, 0], &[2, 0]),
            case(&[], &[]),
        ]
    }
}

impl<'g> Tensor<'g> {
    /// The axes in another order: axis `i` of the result is axis `perm[i]` of this.
    #[track_caller]
    pub fn transpose(self, perm: &[i64]) -> Self {
        self.apply(Transpose { perm: perm.to_vec() }, [])
    }
    /// All axes reversed: a matrix transposed.
    #[track_caller]
    pub fn t(self) -> Self {
        self.transpose(&[])
    }
}
