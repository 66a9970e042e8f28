//! `extent` — the number of elements of a shape, as a float without axes. A node and not a constant, because a named
//! dimension has no number until data comes; after that it is one literal.
//!
//! * **C1** the result is a float.

use thalweg_graph::kernel::build::{Axes, lit};
use thalweg_graph::kernel::{BufferType, Kernel};
use thalweg_graph::{Accuracy, DType, OpError, Schema, Shape, TensorType, Types, require};

use crate::op::{Gradients, Op, VjpCx};
use crate::sample::Sample;

thalweg_graph::attrs! {
    /// The number of elements of a shape.
    pub struct Extent {
        /// The shape, which may name dimensions.
        shape: Shape = Shape::scalar(),
        /// Element type of the result.
        dtype: DType = DType::F32,
    }
}

impl Op for Extent {
    const SCHEMA: Schema = Schema { name: "extent", operands: &[], results: &["out"], accuracy: Accuracy::Exact };
    fn infer(&self, _: &[TensorType]) -> Result<Types, OpError> {
        require!(self.dtype.is_float(), "extent.C1", "is a float, not {}", self.dtype);
        Ok(vec![self.dtype.of(())])
    }
    fn lower(&self, operands: &[BufferType], results: &[BufferType]) -> Option<Kernel> {
        let elements = self.shape.elements()?.fixed()?;
        Some(Axes::new().nest(operands, results, [lit(elements as f64)]))
    }
    fn gradient<'g>(&self, _: &VjpCx<'g>) -> Option<Gradients<'g>> {
        Some(vec![])
    }
    fn samples() -> Vec<Sample<Self>> {
        let case = |shape: &[u64], dtype| Sample::new(Self { shape: shape.into(), dtype }, []);
        vec![case(&[2, 3], DType::F32), case(&[], DType::F64), case(&[4, 0], DType::F32)]
    }
}
