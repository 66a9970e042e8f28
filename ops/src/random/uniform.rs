//! `uniform` — `out[i] = the top 24 bits of philox::word(key, i, step) / 2²⁴`, in [0, 1), i being the element's row-major place in
//! the whole value.
//!
//! * **C1** `step` is an i64 without axes.

use thalweg_graph::kernel::build::{Affine, Axes, index, lit, philox, read};
use thalweg_graph::kernel::{BufferType, Kernel};
use thalweg_graph::{Accuracy, DType, OpError, Schema, Shape, TensorType, Types, require};

use crate::Tensor;
use crate::op::{Gradients, Op, VjpCx};
use crate::sample::Sample;

thalweg_graph::attrs! {
    /// Uniform random numbers in [0, 1), f32.
    pub struct Uniform {
        /// The stream's key: see `philox::stream_key`.
        key: u64 = 0,
        /// Extents.
        shape: Shape = Shape::scalar(),
    }
}

impl Op for Uniform {
    const SCHEMA: Schema =
        Schema { name: "uniform", operands: &["step"], results: &["out"], accuracy: Accuracy::Exact };
    fn infer(&self, operands: &[TensorType]) -> Result<Types, OpError> {
        require!(
            operands[0] == DType::I64.of(()),
            "uniform.C1",
            "the step must be an i64 without axes, got {}",
            operands[0]
        );
        Ok(vec![DType::F32.of(&self.shape)])
    }
    fn lower(&self, operands: &[BufferType], results: &[BufferType]) -> Option<Kernel> {
        let mut axes = Axes::new();
        let at = axes.par_over(&results[0].shape);
        let place = at.iter().zip(results[0].strides()).fold(Affine::constant(0), |sum, (a, stride)| sum + *a * stride);
        let word = philox(self.key, index(place), read(0, [0i64; 0]));
        Some(axes.nest(operands, results, [word.shr(lit(8.0)).cast(DType::F32) * lit(1.0 / 16_777_216.0)]))
    }
    fn gradient<'g>(&self, _: &VjpCx<'g>) -> Option<Gradients<'g>> {
        Some(vec![None])
    }
    fn samples() -> Vec<Sample<Self>> {
        let case = |key, shape: &[u64]| Sample::new(Self { key, shape: shape.into() }, [DType::I64.of(())]);
        vec![case(7, &[3, 5]), case(u64::MAX - 3, &[]), case(1 << 40, &[2, 0]), case(9, &[2, 3, 4])]
    }
}

impl<'g> Tensor<'g> {
    /// Uniform random numbers in [0, 1) of `shape`, of the stream `key`, at this step (i64, no axes).
    #[track_caller]
    pub fn uniform(self, key: u64, shape: impl Into<Shape>) -> Self {
        self.apply(Uniform { key, shape: shape.into() }, [])
    }
}
