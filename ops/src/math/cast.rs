//! `cast` — the same numbers in another element type: floats round to nearest even, to integers truncate and saturate
//! (NaN is 0), to bool compare with zero.

use thalweg_graph::kernel::build::{Axes, read};
use thalweg_graph::kernel::{BufferType, Kernel};
use thalweg_graph::{Accuracy, DType, OpError, Schema, TensorType, Types};

use crate::Tensor;
use crate::op::{Gradients, Op, VjpCx};
use crate::sample::{Data, Sample};

thalweg_graph::attrs! {
    /// Conversion to another element type.
    pub struct Cast {
        /// The element type wanted.
        to: DType = DType::F32,
    }
}

impl Op for Cast {
    const SCHEMA: Schema = Schema { name: "cast", operands: &["x"], results: &["out"], accuracy: Accuracy::Exact };
    fn infer(&self, operands: &[TensorType]) -> Result<Types, OpError> {
        Ok(vec![self.to.of(&operands[0].shape)])
    }
    fn lower(&self, operands: &[BufferType], results: &[BufferType]) -> Option<Kernel> {
        let mut axes = Axes::new();
        let at = axes.par_over(&results[0].shape);
        Some(axes.nest(operands, results, [read(0, at).cast(self.to)]))
    }
    fn gradient<'g>(&self, cx: &VjpCx<'g>) -> Option<Gradients<'g>> {
        let back = cx.operand(0).dtype();
        Some(vec![(self.to.is_float() && back.is_float()).then(|| cx.ct().cast(back))])
    }
    fn samples() -> Vec<Sample<Self>> {
        let mut samples = vec![Sample::f32(Self { to: DType::F64 }, [&[2, 3]])];
        for to in [DType::I32, DType::I64, DType::U8, DType::Bool, DType::F32] {
            samples.push(Sample::f32(Self { to }, [&[7]]).all(Data::Uniform(-3.0, 300.0)).no_gradient());
            samples.push(Sample::new(Self { to }, [DType::I32.of([5])]).no_gradient());
        }
        samples.push(Sample::new(Self { to: DType::F32 }, [DType::Bool.of([4])]).no_gradient());
        samples
    }
}

impl<'g> Tensor<'g> {
    /// Converted to `dtype`; itself if it is that already.
    #[track_caller]
    pub fn cast(self, dtype: DType) -> Self {
        if self.dtype() == dtype { self } else { self.apply(Cast { to: dtype }, []) }
    }
}
