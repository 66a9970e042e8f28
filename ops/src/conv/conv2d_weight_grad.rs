//! `conv2d_weight_grad` — the gradient of `conv2d` by its weight:
//! `out[o,c,i,j] = Σ image[n, c, y·stride + i·dilation − pad, x·stride + j·dilation − pad] · ct[n,o,y,x]` over n, y, x; the image
//! is 0 outside.
//!
//! * **C1** `image` and `ct` are floats [batch, channels, height, width] of one type and one batch, and all but the batch
//!   are numbers.
//! * **C2** `groups` divides both numbers of channels.
//! * **C3** the image has as many windows of `kernel` as `ct` has places.

use thalweg_graph::kernel::build::{Axes, read, read_or, sum_of_products};
use thalweg_graph::kernel::{BufferType, Kernel};
use thalweg_graph::{Accuracy, InHalf, OpError, Schema, TensorType, Types, require};

use super::conv2d::Conv2d;
use super::conv2d_input_grad::Conv2dInputGrad;
use crate::op::{Gradients, Op, VjpCx};
use crate::sample::Sample;

super::conv_attrs! {
    /// The gradient of a convolution by its weight.
    Conv2dWeightGrad {
        /// Height and width of the weight.
        kernel: [u64; 2] = [1, 1],
    }
}

impl Op for Conv2dWeightGrad {
    const SCHEMA: Schema = Schema {
        name: "conv2d_weight_grad",
        operands: &["image", "ct"],
        results: &["out"],
        accuracy: Accuracy::Ulps(16),
    };
    const IN_HALF: InHalf = InHalf::Gains(2);
    fn infer(&self, operands: &[TensorType]) -> Result<Types, OpError> {
        let [image, ct] = operands else { unreachable!("arity is checked") };
        let [cin, h, w] = super::require_image("conv2d_weight_grad.C1", "the image", image)?;
        let [cout, y, x] = super::require_image("conv2d_weight_grad.C1", "the cotangent", ct)?;
        let alike = image.dtype == ct.dtype && image.shape[0] == ct.shape[0];
        require!(alike, "conv2d_weight_grad.C1", "one type and one batch, got {image} and {ct}");
        let (rules, of) = (["conv2d_weight_grad.C2", "conv2d_weight_grad.C3"], (image.dtype, image.shape[0].clone()));
        let shapes = super::shapes(rules, of, [cin, cout], [h, w], &self.windows(self.kernel), self.groups)?;
        require!(
            shapes.out == [y, x],
            "conv2d_weight_grad.C3",
            "{:?} has {:?} windows, not {:?}",
            [h, w],
            shapes.out,
            [y, x]
        );
        Ok(vec![image.dtype.of([cout, cin / self.groups, self.kernel[0], self.kernel[1]])])
    }
    fn lower(&self, operands: &[BufferType], results: &[BufferType]) -> Option<Kernel> {
        let [cout, cin, kh, kw] = results[0].shape[..] else { return None };
        let [n, _, oh, ow] = operands[1].shape[..] else { return None };
        let (windows, per_group) = (self.windows(self.kernel), cout / self.groups);
        let mut axes = Axes::new();
        let [g, o, c, i, j] = axes.par([self.groups, per_group, cin, kh, kw]);
        let [n, y, x] = axes.fold([n, oh, ow]);
        let out = g * per_group as i64 + o;
        let image = [n.into(), g * cin as i64 + c, windows.place(0, y, i), windows.place(1, x, j)];
        let ct = read(1, [n.into(), out.clone(), y.into(), x.into()]);
        let value = sum_of_products(read_or(0, image, 0.0), ct, operands[0].dtype);
        Some(axes.nest_at(operands, results, [(value, vec![out, c.into(), i.into(), j.into()])]))
    }
    fn gradient<'g>(&self, cx: &VjpCx<'g>) -> Option<Gradients<'g>> {
        let (image, ct, weight) = (cx.operand(0), cx.operand(1), cx.ct());
        let &Self { stride, pad, dilation, groups, .. } = self;
        let [height, width] = super::plane(&image.ty())?;
        let by_image = ct.apply(Conv2dInputGrad { stride, pad, dilation, groups, height, width }, [weight]);
        let by_ct = image.apply(Conv2d { stride, pad, dilation, groups }, [weight]);
        Some(vec![Some(by_image), Some(by_ct)])
    }
    fn samples() -> Vec<Sample<Self>> {
        let case = |(image, weight, stride, pad, dilation, groups): &super::ConvCase| {
            let kernel = [weight[2], weight[3]];
            let op = Self { stride: *stride, pad: *pad, dilation: *dilation, groups: *groups, kernel };
            let [y, x] = op.windows(kernel).count([image[2], image[3]]).expect("a sample's window fits");
            Sample::f32(op, [&image[..], &[image[0], weight[0], y, x]])
        };
        super::CASES.iter().map(case).collect()
    }
}
