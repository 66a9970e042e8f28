//! `iota` — 0, 1, 2, … along one axis, the same along all others.
//!
//! * **C1** `axis` is an axis of `shape` (a negative one counts from the end).
//! * **C2** the elements are numbers.

use thalweg_graph::kernel::build::{Axes, index};
use thalweg_graph::kernel::{BufferType, Kernel};
use thalweg_graph::{Accuracy, DType, OpError, Schema, Shape, TensorType, Types, require};

use crate::op::{Gradients, Op, VjpCx};
use crate::sample::Sample;

thalweg_graph::attrs! {
    /// The index along an axis.
    pub struct Iota {
        /// The axis that is counted.
        axis: i64 = 0,
        /// Extents.
        shape: Shape = Shape::scalar(),
        /// Element type.
        dtype: DType = DType::I32,
    }
}

impl Op for Iota {
    const SCHEMA: Schema = Schema { name: "iota", operands: &[], results: &["out"], accuracy: Accuracy::Exact };
    fn infer(&self, _: &[TensorType]) -> Result<Types, OpError> {
        let axis = super::axes_once(&[self.axis], self.shape.rank());
        require!(axis.is_some(), "iota.C1", "{} is no axis of {}", self.axis, self.shape);
        require!(self.dtype != DType::Bool, "iota.C2", "counts in numbers, not in {}", self.dtype);
        Ok(vec![self.dtype.of(&self.shape)])
    }
    fn lower(&self, operands: &[BufferType], results: &[BufferType]) -> Option<Kernel> {
        let mut axes = Axes::new();
        let out = axes.par_over(&results[0].shape);
        let axis = super::axes_once(&[self.axis], out.len())?[0];
        Some(axes.nest(operands, results, [index(out[axis])]))
    }
    fn gradient<'g>(&self, _: &VjpCx<'g>) -> Option<Gradients<'g>> {
        Some(vec![])
    }
    fn samples() -> Vec<Sample<Self>> {
        let case = |axis, shape: &[u64], dtype| Sample::new(Self { axis, shape: shape.into(), dtype }, []);
        vec![case(0, &[4], DType::I32), case(-1, &[2, 3], DType::F32), case(1, &[2, 300, 2], DType::U8)]
    }
}
