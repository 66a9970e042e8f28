//! `max_pool2d` — `(out, index)`: the largest element of each window of each image plane, and where it was: the position
//! (i32) in its plane, `y · width + x`. Of equals the first, NaN wins; what lies outside the plane is never chosen.
//!
//! * **C1** `image` is floats [batch, channels, height, width], and all but the batch are numbers.
//! * **C2** a window fits; size and stride are at least 1.
//! * **C3** `pad` is less than `size`, so that every window touches the image, and a plane has fewer than 2³¹ places.

use thalweg_graph::kernel::build::{Axes, fold_part, index, lit, read_or, select, valid};
use thalweg_graph::kernel::{BufferType, Kernel, Monoid};
use thalweg_graph::{Accuracy, DType, InHalf, OpError, Schema, TensorType, Types, require};

use super::max_pool2d_grad::MaxPool2dGrad;
use crate::Tensor;
use crate::op::{Gradients, Op, VjpCx};
use crate::sample::{Data, Sample};

thalweg_graph::attrs! {
    /// The largest element of each window, and where it was.
    pub struct MaxPool2d {
        /// Height and width of a window.
        size: [u64; 2] = [2, 2],
        /// From window to window.
        stride: [u64; 2] = [2, 2],
        /// Places around the image.
        pad: [u64; 2] = [0, 0],
    }
}

impl Op for MaxPool2d {
    const SCHEMA: Schema =
        Schema { name: "max_pool2d", operands: &["image"], results: &["out", "index"], accuracy: Accuracy::Exact };
    const IN_HALF: InHalf = InHalf::Follows;
    fn infer(&self, operands: &[TensorType]) -> Result<Types, OpError> {
        let image = &operands[0];
        let [c, h, w] = super::require_image("max_pool2d.C1", "the image", image)?;
        let shape = super::pooled("max_pool2d.C2", image, c, [h, w], &self.windows())?;
        let inside = (0..2).all(|d| self.pad[d] < self.size[d]) && h.saturating_mul(w) < 1 << 31;
        require!(inside, "max_pool2d.C3", "windows of {:?} with pad {:?} on a plane of {h}×{w}", self.size, self.pad);
        Ok(vec![image.dtype.of(&shape), DType::I32.of(shape)])
    }
    fn lower(&self, operands: &[BufferType], results: &[BufferType]) -> Option<Kernel> {
        let (windows, width) = (self.windows(), operands[0].shape[3] as i64);
        let mut axes = Axes::new();
        let [n, c, y, x] = axes.par(results[0].shape[..].try_into().ok()?);
        let [i, j] = axes.fold(self.size);
        let (h, w) = (windows.place(0, y, i), windows.place(1, x, j));
        let value = read_or(0, [n.into(), c.into(), h.clone(), w.clone()], f64::NEG_INFINITY);
        // Outside, an index so large that even a plane of −∞ is preferred.
        let at = select(valid(value.clone()), index(h * width + w), lit(f64::INFINITY));
        let best = [0, 1].map(|part| fold_part(Monoid::ArgMax, vec![value.clone(), at.clone()], part));
        Some(axes.nest(operands, results, best))
    }
    fn gradient<'g>(&self, cx: &VjpCx<'g>) -> Option<Gradients<'g>> {
        let &Self { size, stride, pad } = self;
        let [height, width] = super::plane(&cx.operand(0).ty())?;
        Some(vec![Some(cx.ct().apply(MaxPool2dGrad { size, stride, pad, height, width }, [cx.results[1]]))])
    }
    fn samples() -> Vec<Sample<Self>> {
        let case =
            |size, stride, pad, image: &[u64]| Sample::f32(Self { size, stride, pad }, [image]).all(Data::Distinct);
        vec![
            case([2, 2], [2, 2], [0, 0], &[2, 2, 4, 6]),
            case([2, 2], [2, 2], [0, 0], &[1, 2, 5, 5]),
            case([3, 2], [2, 1], [1, 1], &[1, 2, 5, 4]),
            case([3, 3], [1, 1], [1, 1], &[1, 1, 3, 3]),
            case([2, 2], [2, 2], [1, 1], &[1, 1, 4, 4]).data(0, Data::Uniform(-1.0, -1.0)).no_gradient(),
            case([1, 1], [1, 1], [0, 0], &[0, 2, 2, 2]),
        ]
    }
}

impl MaxPool2d {
    fn windows(&self) -> super::Windows {
        super::Windows { size: self.size, stride: self.stride, pad: self.pad, dilation: [1, 1] }
    }
}

impl<'g> Tensor<'g> {
    /// The largest element of each window.
    #[track_caller]
    pub fn max_pool2d(self, pool: MaxPool2d) -> Self {
        self.apply_all(pool, [])[0]
    }
    /// The largest element of each window of `size` × `size`, side by side.
    #[track_caller]
    pub fn max_pool(self, size: u64) -> Self {
        self.max_pool2d(MaxPool2d { size: [size; 2], stride: [size; 2], pad: [0; 2] })
    }
}
