//! `reshape` — the same elements in row-major order under other extents. Buffers are dense, so lowering usually makes it
//! nothing at all; the kernel says what it means where it cannot.
//!
//! * **C1** the number of elements stays the same, for every value of every named dimension.

use thalweg_graph::kernel::{BufferType, Kernel};
use thalweg_graph::{Accuracy, Dim, InHalf, OpError, Schema, Shape, TensorType, Types, require};

use crate::Tensor;
use crate::op::{Gradients, Op, VjpCx};
use crate::sample::Sample;

thalweg_graph::attrs! {
    /// The same elements under other extents.
    pub struct Reshape {
        /// Extents of the result.
        shape: Shape = Shape::scalar(),
    }
}

impl Op for Reshape {
    const SCHEMA: Schema = Schema { name: "reshape", operands: &["x"], results: &["out"], accuracy: Accuracy::Exact };
    const IN_HALF: InHalf = InHalf::Follows;
    fn infer(&self, operands: &[TensorType]) -> Result<Types, OpError> {
        let (have, want) = (operands[0].shape.elements(), self.shape.elements());
        let count = |n: &Option<Dim>| n.as_ref().map_or("too many".to_string(), Dim::to_string);
        require!(
            have.is_some() && have == want,
            "reshape.C1",
            "{} has {} elements, {} has {}",
            operands[0].shape,
            count(&have),
            self.shape,
            count(&want)
        );
        Ok(vec![operands[0].dtype.of(&self.shape)])
    }
    fn lower(&self, operands: &[BufferType], results: &[BufferType]) -> Option<Kernel> {
        Some(Kernel::relabel(operands[0].clone(), results[0].clone()))
    }
    fn gradient<'g>(&self, cx: &VjpCx<'g>) -> Option<Gradients<'g>> {
        Some(vec![Some(cx.ct().reshape(cx.operand(0).shape()))])
    }
    fn samples() -> Vec<Sample<Self>> {
        let case = |from: &[u64], to: &[u64]| Sample::f32(Self { shape: to.into() }, [from]);
        vec![
            case(&[2, 6], &[3, 4]),
            case(&[4], &[2, 1, 2]),
            case(&[1, 1], &[]),
            case(&[0, 3], &[3, 0]),
            case(&[], &[1]),
        ]
    }
}

impl<'g> Tensor<'g> {
    /// The same elements under other extents; itself if it has them already.
    #[track_caller]
    pub fn reshape(self, shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        if self.shape() == shape { self } else { self.apply(Reshape { shape }, []) }
    }
    /// All axes from `axis` on made one.
    ///
    /// # Panics
    /// If there is no such axis.
    #[track_caller]
    pub fn flatten(self, axis: usize) -> Self {
        let shape = self.shape();
        if self.is_poison() {
            return self;
        }
        let (keep, join) = shape.split_at(axis);
        let joined = Shape::from(join).elements().unwrap_or(Dim::Fixed(u64::MAX));
        self.reshape(Shape(keep.iter().cloned().chain([joined]).collect()))
    }
}
