//! `softmax` — `out = e^(x − m) / Σ e^(x − m)` along one axis, m being its maximum.
//!
//! * **C1** `axis` is an axis of the operand (a negative one counts from the end).
//! * **C2** the operand holds floats.

use thalweg_graph::{Accuracy, Mode, OpError, Schema, TensorType, Types, require};

use crate::Tensor;
use crate::op::{Gradients, Op, VjpCx};
use crate::sample::{Data, Sample};

thalweg_graph::attrs! {
    /// Shares that add up to one along an axis.
    pub struct Softmax {
        /// The axis.
        axis: i64 = -1,
    }
}

impl Op for Softmax {
    const SCHEMA: Schema = Schema { name: "softmax", operands: &["x"], results: &["out"], accuracy: Accuracy::Ulps(8) };
    fn infer(&self, operands: &[TensorType]) -> Result<Types, OpError> {
        let x = &operands[0];
        let axis = crate::layout::axes_once(&[self.axis], x.rank());
        require!(axis.is_some(), "softmax.C1", "{} is no axis of {}", self.axis, x.shape);
        require!(x.dtype.is_float(), "softmax.C2", "needs floats, got {x}");
        Ok(vec![x.clone()])
    }
    fn expand<'g>(&self, operands: &[Tensor<'g>], _: Mode) -> Option<Vec<Tensor<'g>>> {
        let (x, axis) = (operands[0], [self.axis]);
        let e = (x - x.max_keep(&axis)).exp();
        Some(vec![e / e.sum_keep(&axis)])
    }
    fn gradient<'g>(&self, cx: &VjpCx<'g>) -> Option<Gradients<'g>> {
        let (y, ct) = (cx.result(), cx.ct());
        Some(vec![Some(y * (ct - (ct * y).sum_keep(&[self.axis])))])
    }
    fn samples() -> Vec<Sample<Self>> {
        let case = |axis, shape: &[u64]| Sample::f32(Self { axis }, [shape]);
        vec![
            case(-1, &[3, 5]),
            case(0, &[3, 5]),
            case(1, &[2, 3, 2]).all(Data::Uniform(80.0, 100.0)),
            case(0, &[1]),
            case(-1, &[2, 0]),
        ]
    }
}

impl<'g> Tensor<'g> {
    /// Shares that add up to one along `axis`.
    #[track_caller]
    pub fn softmax(self, axis: i64) -> Self {
        self.apply(Softmax { axis }, [])
    }
}
