//! `max_pool2d_grad` — the gradient of `max_pool2d`: each place of the image collects the cotangents of the windows that
//! chose it. Written from the image's side, so that nothing is scattered.
//!
//! * **C1** `ct` is floats [batch, channels, height, width], `index` i32 of the same shape, and all but the batch are numbers.
//! * **C2** an image of `height` × `width` has as many windows as `ct` has places.

use thalweg_graph::kernel::build::{Axes, Ix, holes, index, lit, read, read_or, select, sum};
use thalweg_graph::kernel::{BufferType, Kernel};
use thalweg_graph::{Accuracy, Array, DType, InHalf, OpError, Schema, TensorType, Types, require};

use crate::op::{Gradients, Op, VjpCx};
use crate::sample::{Data, Sample};

thalweg_graph::attrs! {
    /// The gradient of [`MaxPool2d`](super::max_pool2d::MaxPool2d).
    pub struct MaxPool2dGrad {
        /// Height and width of a window.
        size: [u64; 2] = [2, 2],
        /// From window to window.
        stride: [u64; 2] = [2, 2],
        /// Places around the image.
        pad: [u64; 2] = [0, 0],
        /// Height of the image.
        height: u64 = 0,
        /// Width of the image.
        width: u64 = 0,
    }
}

impl MaxPool2dGrad {
    /// Windows that tile the image exactly: each place belongs to one window, so that nothing is summed.
    fn lower_tiled(&self, [n, c, y, x]: [u64; 4], operands: &[BufferType], results: &[BufferType]) -> Kernel {
        let mut axes = Axes::new();
        let [n, c, y, i, x, j] = axes.par([n, c, y, self.size[0], x, self.size[1]]);
        let (h, w) = (y * self.size[0] as i64 + i, x * self.size[1] as i64 + j);
        let at = [n, c, y, x];
        let chosen = read(1, at).cast(DType::I64).eq(index(h.clone() * self.width as i64 + w.clone()));
        let value = select(chosen, read(0, at), lit(0.0));
        axes.nest_at(operands, results, [(value, vec![n.into(), c.into(), h, w])])
    }
    fn windows(&self) -> super::Windows {
        super::Windows { size: self.size, stride: self.stride, pad: self.pad, dilation: [1, 1] }
    }
}

impl Op for MaxPool2dGrad {
    const SCHEMA: Schema =
        Schema { name: "max_pool2d_grad", operands: &["ct", "index"], results: &["out"], accuracy: Accuracy::Ulps(8) };
    const IN_HALF: InHalf = InHalf::Follows;
    fn infer(&self, operands: &[TensorType]) -> Result<Types, OpError> {
        let [ct, index] = operands else { unreachable!("arity is checked") };
        let [c, y, x] = super::require_image("max_pool2d_grad.C1", "the cotangent", ct)?;
        let alike = index.dtype == DType::I32 && index.shape == ct.shape;
        require!(alike, "max_pool2d_grad.C1", "the index must be i32{}, got {index}", ct.shape);
        let windows = self.windows().count([self.height, self.width]);
        require!(
            windows == Some([y, x]),
            "max_pool2d_grad.C2",
            "{}×{} has other windows than {y}×{x}",
            self.height,
            self.width
        );
        Ok(vec![ct.dtype.of(vec![ct.shape[0].clone(), c.into(), self.height.into(), self.width.into()])])
    }
    fn lower(&self, operands: &[BufferType], results: &[BufferType]) -> Option<Kernel> {
        let [n, c, y, x] = operands[0].shape[..].try_into().ok()?;
        let tiled = [self.height, self.width] == [y * self.stride[0], x * self.stride[1]];
        if tiled && self.size == self.stride && self.pad == [0, 0] {
            return Some(self.lower_tiled([n, c, y, x], operands, results));
        }
        let windows = self.windows();
        let mut axes = Axes::new();
        let [n, c, h, w] = axes.par(results[0].shape[..].try_into().ok()?);
        let [i, j] = axes.fold(self.size);
        let y = holes(windows.window(0, h, i), self.stride[0]);
        let x = holes(windows.window(1, w, j), self.stride[1]);
        let at = [Ix::from(n), c.into(), y, x];
        let chosen = read_or(1, at.clone(), -1.0).cast(DType::I64).eq(index(h * self.width as i64 + w));
        let value = sum(select(chosen, read_or(0, at, 0.0), lit(0.0))) + lit(0.0);
        Some(axes.nest(operands, results, [value]))
    }
    fn gradient<'g>(&self, cx: &VjpCx<'g>) -> Option<Gradients<'g>> {
        let (index, image) = (cx.operand(1), cx.ct());
        Some(vec![Some(image.flatten(2).pick(index)), None])
    }
    fn samples() -> Vec<Sample<Self>> {
        let one_window = |at: [i32; 4]| Data::Given(Array::from_slice(&[1, 1, 2, 2], &at));
        let case = |size, stride, pad, [height, width]: [u64; 2], ct: &[u64], at: Data| {
            let op = Self { size, stride, pad, height, width };
            Sample::new(op, [DType::F32.of(ct), DType::I32.of(ct)]).data(1, at)
        };
        vec![
            case([2, 2], [2, 2], [0, 0], [4, 5], &[1, 1, 2, 2], one_window([0, 3, 11, 18])),
            case([3, 3], [1, 1], [0, 0], [4, 4], &[1, 1, 2, 2], one_window([5, 6, 5, 6])),
            case([3, 2], [2, 3], [1, 1], [4, 4], &[1, 1, 2, 2], one_window([0, 2, 12, 6])),
            case([2, 2], [2, 2], [0, 0], [2, 2], &[3, 2, 1, 1], Data::Uniform(0.0, 4.0)),
            case([2, 3], [2, 3], [0, 0], [4, 6], &[1, 1, 2, 2], one_window([7, 5, 12, 22])),
        ]
    }
}
