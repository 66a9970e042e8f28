//! `avg_pool2d` — the mean of each window of each image plane. What lies outside the plane counts as 0 and is counted.
//!
//! * **C1** `image` is floats [batch, channels, height, width], and all but the batch are numbers.
//! * **C2** a window fits; size and stride are at least 1.

use thalweg_graph::kernel::build::{Axes, lit, read_or, sum};
use thalweg_graph::kernel::{BufferType, Kernel};
use thalweg_graph::{Accuracy, OpError, Schema, TensorType, Types};

use super::conv2d_input_grad::Conv2dInputGrad;
use crate::Tensor;
use crate::op::{Gradients, Op, VjpCx};
use crate::sample::Sample;

thalweg_graph::attrs! {
    /// The mean of each window.
    pub struct AvgPool2d {
        /// Height and width of a window.
        size: [u64; 2] = [2, 2],
        /// From window to window.
        stride: [u64; 2] = [2, 2],
        /// Zeros around the image.
        pad: [u64; 2] = [0, 0],
    }
}

impl AvgPool2d {
    fn windows(&self) -> super::Windows {
        super::Windows { size: self.size, stride: self.stride, pad: self.pad, dilation: [1, 1] }
    }
    fn count(&self) -> f64 {
        (self.size[0] * self.size[1]) as f64
    }
}

impl Op for AvgPool2d {
    const SCHEMA: Schema =
        Schema { name: "avg_pool2d", operands: &["image"], results: &["out"], accuracy: Accuracy::Ulps(8) };
    fn infer(&self, operands: &[TensorType]) -> Result<Types, OpError> {
        let image = &operands[0];
        let [c, h, w] = super::require_image("avg_pool2d.C1", "the image", image)?;
        Ok(vec![image.dtype.of(super::pooled("avg_pool2d.C2", image, c, [h, w], &self.windows())?)])
    }
    fn lower(&self, operands: &[BufferType], results: &[BufferType]) -> Option<Kernel> {
        let windows = self.windows();
        let mut axes = Axes::new();
        let [n, c, y, x] = axes.par(results[0].shape[..].try_into().ok()?);
        let [i, j] = axes.fold(self.size);
        let value = read_or(0, [n.into(), c.into(), windows.place(0, y, i), windows.place(1, x, j)], 0.0);
        Some(axes.nest(operands, results, [sum(value) / lit(self.count())]))
    }
    fn gradient<'g>(&self, cx: &VjpCx<'g>) -> Option<Gradients<'g>> {
        // A convolution of each plane by itself, with planes for images of one channel.
        let (image, ct) = (cx.operand(0).shape(), cx.ct().shape());
        let (&[height, width], [y, x]) = (&super::plane(&cx.operand(0).ty())?, super::plane(&cx.ct().ty())?);
        let planes = ct[0].times(&ct[1])?;
        let weight = cx.ct().full(1.0 / self.count(), [1, 1, self.size[0], self.size[1]]);
        let &Self { stride, pad, .. } = self;
        let back = Conv2dInputGrad { stride, pad, dilation: [1, 1], groups: 1, height, width };
        let flat = cx.ct().reshape(vec![planes, 1u64.into(), y.into(), x.into()]);
        Some(vec![Some(flat.apply(back, [weight]).reshape(image))])
    }
    fn samples() -> Vec<Sample<Self>> {
        let case = |size, stride, pad, image: &[u64]| Sample::f32(Self { size, stride, pad }, [image]);
        vec![
            case([2, 2], [2, 2], [0, 0], &[2, 2, 4, 6]),
            case([3, 2], [2, 1], [1, 1], &[1, 2, 5, 4]),
            case([1, 1], [1, 1], [0, 0], &[0, 2, 2, 2]),
        ]
    }
}

impl<'g> Tensor<'g> {
    /// The mean of each window.
    #[track_caller]
    pub fn avg_pool2d(self, pool: AvgPool2d) -> Self {
        self.apply(pool, [])
    }
    /// The mean of each window of `size` × `size`, side by side.
    #[track_caller]
    pub fn avg_pool(self, size: u64) -> Self {
        self.avg_pool2d(AvgPool2d { size: [size; 2], stride: [size; 2], pad: [0; 2] })
    }
    /// The mean of each image plane: `[N, C, H, W]` → `[N, C]`.
    #[track_caller]
    pub fn global_avg_pool(self) -> Self {
        self.mean_over(&[-2, -1])
    }
}
