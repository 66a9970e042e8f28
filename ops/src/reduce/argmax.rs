//! `argmax` — `out = the index (i32) of the largest x` along one axis; of equals the first, NaN wins.
//!
//! * **C1** `axis` is an axis of the operand (a negative one counts from the end).
//! * **C2** the operand holds numbers.
//! * **C3** the axis is not empty.

use thalweg_graph::kernel::{BufferType, Kernel, Monoid};
use thalweg_graph::{Accuracy, OpError, Schema, TensorType, Types};

use crate::Tensor;
use crate::op::{Gradients, Op, VjpCx};
use crate::sample::{Data, Sample};

thalweg_graph::attrs! {
    /// Where the largest element is.
    pub struct ArgMax {
        /// The axis, which disappears.
        axis: i64 = -1,
    }
}

impl Op for ArgMax {
    const SCHEMA: Schema = Schema { name: "argmax", operands: &["x"], results: &["out"], accuracy: Accuracy::Exact };
    fn infer(&self, operands: &[TensorType]) -> Result<Types, OpError> {
        super::infer_arg(["argmax.C1", "argmax.C2", "argmax.C3"], &operands[0], self.axis)
    }
    fn lower(&self, operands: &[BufferType], results: &[BufferType]) -> Option<Kernel> {
        Some(super::lower_arg(Monoid::ArgMax, self.axis, operands, results))
    }
    fn gradient<'g>(&self, _: &VjpCx<'g>) -> Option<Gradients<'g>> {
        Some(vec![None])
    }
    fn samples() -> Vec<Sample<Self>> {
        let case = |axis, shape: &[u64]| Sample::f32(Self { axis }, [shape]).no_gradient();
        vec![
            case(-1, &[3, 7]).data(0, Data::Distinct),
            case(0, &[3, 7]),
            case(1, &[2, 70, 2]).data(0, Data::Uniform(0.0, 0.0)),
            case(0, &[1]),
            case(0, &[2, 0]),
        ]
    }
}

impl<'g> Tensor<'g> {
    /// The index (i32) of the largest element along `axis`; of equals the first, NaN wins.
    #[track_caller]
    pub fn argmax(self, axis: i64) -> Self {
        self.apply(ArgMax { axis }, [])
    }
}
