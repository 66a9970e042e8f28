//! `full` — one number everywhere. A kernel without operands, which lowering folds into its readers.

use thalweg_graph::kernel::build::{Axes, lit};
use thalweg_graph::kernel::{BufferType, Kernel};
use thalweg_graph::{Accuracy, DType, OpError, Schema, Shape, TensorType, Types};

use crate::op::{Gradients, Op, VjpCx};
use crate::sample::Sample;

thalweg_graph::attrs! {
    /// One number everywhere.
    pub struct Full {
        /// The number.
        value: f64 = 0.0,
        /// Element type.
        dtype: DType = DType::F32,
        /// Extents.
        shape: Shape = Shape::scalar(),
    }
}

impl Op for Full {
    const SCHEMA: Schema = Schema { name: "full", operands: &[], results: &["out"], accuracy: Accuracy::Exact };
    fn infer(&self, _: &[TensorType]) -> Result<Types, OpError> {
        Ok(vec![self.dtype.of(&self.shape)])
    }
    fn lower(&self, operands: &[BufferType], results: &[BufferType]) -> Option<Kernel> {
        let mut axes = Axes::new();
        axes.par_over(&results[0].shape);
        Some(axes.nest(operands, results, [lit(self.value)]))
    }
    fn gradient<'g>(&self, _: &VjpCx<'g>) -> Option<Gradients<'g>> {
        Some(vec![])
    }
    fn samples() -> Vec<Sample<Self>> {
        let case = |value, dtype, shape: &[u64]| Sample::new(Self { value, dtype, shape: shape.into() }, []);
        vec![
            case(1.5, DType::F32, &[]),
            case(-0.0, DType::F32, &[2, 3]),
            case(7.0, DType::I32, &[4]),
            case(1.0, DType::Bool, &[0, 2]),
            case(f64::NAN, DType::F32, &[2]),
        ]
    }
}
