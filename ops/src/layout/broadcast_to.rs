//! `broadcast_to` — the operand repeated along new axes and along axes of extent 1.
//!
//! * **C1** the operand's shape broadcasts to `shape`.

use thalweg_graph::kernel::build::Axes;
use thalweg_graph::kernel::{BufferType, Kernel};
use thalweg_graph::{Accuracy, InHalf, OpError, Schema, Shape, TensorType, Types, require};

use crate::Tensor;
use crate::math::{broadcast, read_broadcast};
use crate::op::{Gradients, Op, VjpCx};
use crate::sample::Sample;

thalweg_graph::attrs! {
    /// The operand repeated to fill a shape.
    pub struct BroadcastTo {
        /// Extents of the result.
        shape: Shape = Shape::scalar(),
    }
}

impl Op for BroadcastTo {
    const SCHEMA: Schema =
        Schema { name: "broadcast_to", operands: &["x"], results: &["out"], accuracy: Accuracy::Exact };
    const IN_HALF: InHalf = InHalf::Follows;
    fn infer(&self, operands: &[TensorType]) -> Result<Types, OpError> {
        let fits = broadcast(&operands[0].shape, &self.shape).as_ref() == Some(&self.shape);
        require!(fits, "broadcast_to.C1", "{} does not broadcast to {}", operands[0].shape, self.shape);
        Ok(vec![operands[0].dtype.of(&self.shape)])
    }
    fn lower(&self, operands: &[BufferType], results: &[BufferType]) -> Option<Kernel> {
        let mut axes = Axes::new();
        let at = axes.par_over(&results[0].shape);
        Some(axes.nest(operands, results, [read_broadcast(0, &operands[0], &results[0], &at)]))
    }
    fn gradient<'g>(&self, cx: &VjpCx<'g>) -> Option<Gradients<'g>> {
        Some(vec![Some(cx.ct().sum_to(&cx.operand(0).shape()))])
    }
    fn samples() -> Vec<Sample<Self>> {
        let case = |from: &[u64], to: &[u64]| Sample::f32(Self { shape: to.into() }, [from]);
        vec![case(&[], &[3]), case(&[3], &[2, 3]), case(&[2, 1, 4], &[5, 2, 3, 4]), case(&[1], &[0]), case(&[2], &[2])]
    }
}

impl<'g> Tensor<'g> {
    /// Repeated to fill `shape`; itself if it has that shape already.
    #[track_caller]
    pub fn broadcast_to(self, shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        if self.shape() == shape { self } else { self.apply(BroadcastTo { shape }, []) }
    }
}
