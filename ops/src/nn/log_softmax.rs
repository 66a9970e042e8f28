//! `log_softmax` — `out = x − m − ln Σ e^(x − m)` along one axis, m being its maximum: the logarithm of `softmax`, finite where that
//! is too small for a float.
//!
//! * **C1** `axis` is an axis of the operand (a negative one counts from the end).
//! * **C2** the operand holds floats.

use thalweg_graph::{Accuracy, Mode, OpError, Schema, TensorType, Types, require};

use crate::Tensor;
use crate::op::{Gradients, Op, VjpCx};
use crate::sample::{Data, Sample};

thalweg_graph::attrs! {
    /// Logarithms of shares that add up to one along an axis.
    pub struct LogSoftmax {
        /// The axis.
        axis: i64 = -1,
    }
}

impl Op for LogSoftmax {
    const SCHEMA: Schema =
        Schema { name: "log_softmax", operands: &["x"], results: &["out"], accuracy: Accuracy::Ulps(8) };
    fn infer(&self, operands: &[TensorType]) -> Result<Types, OpError> {
        let x = &operands[0];
        let axis = crate::layout::axes_once(&[self.axis], x.rank());
        require!(axis.is_some(), "log_softmax.C1", "{} is no axis of {}", self.axis, x.shape);
        require!(x.dtype.is_float(), "log_softmax.C2", "needs floats, got {x}");
        Ok(vec![x.clone()])
    }
    fn expand<'g>(&self, operands: &[Tensor<'g>], _: Mode) -> Option<Vec<Tensor<'g>>> {
        let (x, axis) = (operands[0], [self.axis]);
        let z = x - x.max_keep(&axis);
        Some(vec![z - z.exp().sum_keep(&axis).log()])
    }
    fn gradient<'g>(&self, cx: &VjpCx<'g>) -> Option<Gradients<'g>> {
        let ct = cx.ct();
        Some(vec![Some(ct - cx.result().exp() * ct.sum_keep(&[self.axis]))])
    }
    fn samples() -> Vec<Sample<Self>> {
        let case = |axis, shape: &[u64]| Sample::f32(Self { axis }, [shape]);
        vec![
            case(-1, &[3, 5]),
            case(0, &[3, 5]),
            case(1, &[2, 3, 2]).all(Data::Uniform(-300.0, 300.0)),
            case(0, &[1]),
            case(-1, &[2, 0]),
        ]
    }
}

impl<'g> Tensor<'g> {
    /// Logarithms of shares that add up to one along `axis`.
    #[track_caller]
    pub fn log_softmax(self, axis: i64) -> Self {
        self.apply(LogSoftmax { axis }, [])
    }
}
