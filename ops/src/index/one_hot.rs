//! `one_hot` — `out[i…, k] = 1 where indices[i…] = k, else 0`, for k below `classes`. All zeros for an index out of range.
//!
//! * **C1** `indices` are i32 or i64.

use thalweg_graph::kernel::build::{Axes, index, lit, lit_as, read, select};
use thalweg_graph::kernel::{BufferType, Kernel};
use thalweg_graph::{Accuracy, Array, DType, Dim, OpError, Schema, Shape, TensorType, Types, require};

use crate::Tensor;
use crate::op::{Gradients, Op, VjpCx};
use crate::sample::{Data, Sample};

thalweg_graph::attrs! {
    /// Indices as rows with a single one.
    pub struct OneHot {
        /// Extent of the new last axis.
        classes: u64 = 0,
        /// Element type of the result.
        dtype: DType = DType::F32,
    }
}

impl Op for OneHot {
    const SCHEMA: Schema =
        Schema { name: "one_hot", operands: &["indices"], results: &["out"], accuracy: Accuracy::Exact };
    fn infer(&self, operands: &[TensorType]) -> Result<Types, OpError> {
        let indices = &operands[0];
        require!(super::is_index(indices.dtype), "one_hot.C1", "indices must be i32 or i64, got {indices}");
        let shape = indices.shape.iter().cloned().chain([Dim::Fixed(self.classes)]).collect();
        Ok(vec![self.dtype.of(Shape(shape))])
    }
    fn lower(&self, operands: &[BufferType], results: &[BufferType]) -> Option<Kernel> {
        let mut axes = Axes::new();
        let all = axes.par_over(&results[0].shape);
        let (class, at) = all.split_last()?;
        let here = read(0, at.iter().copied()).cast(DType::I64).eq(index(*class));
        Some(axes.nest(operands, results, [select(here, lit_as(1.0, self.dtype), lit(0.0))]))
    }
    fn gradient<'g>(&self, _: &VjpCx<'g>) -> Option<Gradients<'g>> {
        Some(vec![None])
    }
    fn samples() -> Vec<Sample<Self>> {
        let case = |classes, dtype, indices: Array| {
            Sample::new(Self { classes, dtype }, [indices.ty()]).data(0, Data::Given(indices))
        };
        vec![
            case(4, DType::F32, Array::from_slice(&[3], &[2i32, 0, 3])),
            case(3, DType::Bool, Array::from_slice(&[1, 4], &[2i64, -1, 3, 0])),
            case(2, DType::I32, Array::scalar(1i32)),
        ]
    }
}

impl<'g> Tensor<'g> {
    /// These indices as rows with a single one: `[…]` → `[…, classes]` of `dtype`.
    #[track_caller]
    pub fn one_hot(self, classes: u64, dtype: DType) -> Self {
        self.apply(OneHot { classes, dtype }, [])
    }
}
