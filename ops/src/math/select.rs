//! `select` — `out = condition ? yes : no`, element by element, with broadcasting. What is not chosen does not leak:
//! a NaN on the other side stays there, in the gradient too.
//!
//! * **C1** the condition is bool and the other two have one element type.
//! * **C2** the three shapes broadcast.

use thalweg_graph::kernel::build::{Axes, select};
use thalweg_graph::kernel::{BufferType, Kernel};
use thalweg_graph::{Accuracy, DType, InHalf, OpError, Schema, TensorType, Types, require};

use super::{Operand, broadcast, read_broadcast};
use crate::Tensor;
use crate::op::{Gradients, Op, VjpCx};
use crate::sample::Sample;

thalweg_graph::attrs! {
    /// The second operand where the first holds, else the third.
    pub struct Select {}
}

impl Op for Select {
    const SCHEMA: Schema =
        Schema { name: "select", operands: &["condition", "yes", "no"], results: &["out"], accuracy: Accuracy::Exact };
    const IN_HALF: InHalf = InHalf::Follows;
    fn infer(&self, operands: &[TensorType]) -> Result<Types, OpError> {
        let [c, a, b] = operands else { unreachable!("arity is checked") };
        let typed = c.dtype == DType::Bool && a.dtype == b.dtype;
        require!(typed, "select.C1", "needs a condition and two of one element type, got {c}, {a} and {b}");
        let shape = broadcast(&a.shape, &b.shape).and_then(|s| broadcast(&c.shape, &s));
        require!(shape.is_some(), "select.C2", "shapes do not broadcast: {}, {} and {}", c.shape, a.shape, b.shape);
        Ok(vec![a.dtype.of(shape.unwrap_or_default())])
    }
    fn lower(&self, operands: &[BufferType], results: &[BufferType]) -> Option<Kernel> {
        let mut axes = Axes::new();
        let at = axes.par_over(&results[0].shape);
        let [c, a, b] = [0, 1, 2].map(|k| read_broadcast(k, &operands[k as usize], &results[0], &at));
        Some(axes.nest(operands, results, [select(c, a, b)]))
    }
    fn gradient<'g>(&self, cx: &VjpCx<'g>) -> Option<Gradients<'g>> {
        let (condition, ct) = (cx.operand(0), cx.ct());
        let yes = condition.select(ct, 0.0).sum_to(&cx.operand(1).shape());
        let no = condition.select(ct.zeros_like(), ct).sum_to(&cx.operand(2).shape());
        Some(vec![None, Some(yes), Some(no)])
    }
    fn samples() -> Vec<Sample<Self>> {
        let case = |c: &[u64], a: &[u64], b: &[u64]| {
            Sample::new(Self {}, [DType::Bool.of(c), DType::F32.of(a), DType::F32.of(b)])
        };
        vec![case(&[2, 3], &[2, 3], &[2, 3]), case(&[3, 1], &[4], &[]), case(&[0], &[1], &[1])]
    }
}

impl<'g> Tensor<'g> {
    /// `yes` where this (bool) holds, else `no`. Also written [`where_`](Tensor::where_).
    #[track_caller]
    pub fn select(self, yes: Tensor<'g>, no: impl Into<Operand<'g>>) -> Self {
        self.apply(Select {}, [yes, no.into().beside(yes)])
    }
    /// This where `condition` holds, else `other`.
    #[track_caller]
    pub fn where_(self, condition: Tensor<'g>, other: impl Into<Operand<'g>>) -> Self {
        condition.select(self, other)
    }
}
