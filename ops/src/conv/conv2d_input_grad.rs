//! `conv2d_input_grad` — the gradient of `conv2d` by its image, and a transposed convolution by itself:
//! `out[n,c,h,w] = Σ ct[n, o, (h + pad − i·dilation) / stride, (w + pad − j·dilation) / stride] · weight[o,c,i,j]` over the o of
//! c's group and the i, j where both divisions are exact; ct is 0 outside.
//!
//! * **C1** `ct` is floats [batch, channels, height, width], `weight` [channels, in / groups, height, width] of the same
//!   type, and all but the batch are numbers.
//! * **C2** `groups` divides both numbers of channels, and `weight` has as many as `ct`.
//! * **C3** an image of `height` × `width` has as many windows as `ct` has places.

use thalweg_graph::kernel::build::{Axes, Ix, holes, read, read_or, sum_of_products};
use thalweg_graph::kernel::{BufferType, Kernel};
use thalweg_graph::{Accuracy, InHalf, OpError, Schema, TensorType, Types, require};

use super::conv2d::Conv2d;
use super::conv2d_weight_grad::Conv2dWeightGrad;
use crate::op::{Gradients, Op, VjpCx};
use crate::sample::Sample;

super::conv_attrs! {
    /// The gradient of a convolution by its image.
    Conv2dInputGrad {
        /// Height of the image.
        height: u64 = 0,
        /// Width of the image.
        width: u64 = 0,
    }
}

impl Op for Conv2dInputGrad {
    const SCHEMA: Schema = Schema {
        name: "conv2d_input_grad",
        operands: &["ct", "weight"],
        results: &["out"],
        accuracy: Accuracy::Ulps(16),
    };
    const IN_HALF: InHalf = InHalf::Gains(2);
    fn infer(&self, operands: &[TensorType]) -> Result<Types, OpError> {
        let [ct, weight] = operands else { unreachable!("arity is checked") };
        let [channels, h, w] = super::require_image("conv2d_input_grad.C1", "the cotangent", ct)?;
        let kernel = weight.shape.fixed().filter(|s| s.len() == 4 && weight.dtype == ct.dtype);
        let Some([cout, per_group, kh, kw]) = kernel.as_deref() else {
            let what = format!("the weight must be {}[out, channels, height, width], got {weight}", ct.dtype);
            return Err(OpError::new("conv2d_input_grad.C1", what));
        };
        require!(channels == *cout, "conv2d_input_grad.C2", "{channels} channels and a weight for {cout}");
        let (rules, of) = (["conv2d_input_grad.C2", "conv2d_input_grad.C3"], (ct.dtype, ct.shape[0].clone()));
        let (cin, image) = (per_group.saturating_mul(self.groups), [self.height, self.width]);
        let shapes = super::shapes(rules, of, [cin, channels], image, &self.windows([*kh, *kw]), self.groups)?;
        require!(
            shapes.out == [h, w],
            "conv2d_input_grad.C3",
            "{image:?} has {:?} windows, not {:?}",
            shapes.out,
            [h, w]
        );
        Ok(vec![shapes.image_type()])
    }
    fn lower(&self, operands: &[BufferType], results: &[BufferType]) -> Option<Kernel> {
        let [cout, cin, kh, kw] = operands[1].shape[..] else { return None };
        let [n, _, height, width] = results[0].shape[..] else { return None };
        let (windows, per_group) = (self.windows([kh, kw]), cout / self.groups);
        let mut axes = Axes::new();
        let [n, g, c, h, w] = axes.par([n, self.groups, cin, height, width]);
        let [o, i, j] = axes.fold([per_group, kh, kw]);
        let out = g * per_group as i64 + o;
        let y = holes(windows.window(0, h, i), self.stride[0]);
        let x = holes(windows.window(1, w, j), self.stride[1]);
        let ct = read_or(0, [Ix::from(n), out.clone().into(), y, x], 0.0);
        let value = sum_of_products(ct, read(1, [out, c.into(), i.into(), j.into()]), operands[0].dtype);
        Some(axes.nest_at(operands, results, [(value, vec![n.into(), g * cin as i64 + c, h.into(), w.into()])]))
    }
    fn gradient<'g>(&self, cx: &VjpCx<'g>) -> Option<Gradients<'g>> {
        let (ct, weight, image) = (cx.operand(0), cx.operand(1), cx.ct());
        let &Self { stride, pad, dilation, groups, .. } = self;
        let kernel = super::plane(&weight.ty())?;
        let by_ct = image.apply(Conv2d { stride, pad, dilation, groups }, [weight]);
        let by_weight = image.apply(Conv2dWeightGrad { stride, pad, dilation, groups, kernel }, [ct]);
        Some(vec![Some(by_ct), Some(by_weight)])
    }
    fn samples() -> Vec<Sample<Self>> {
        let case = |(image, weight, stride, pad, dilation, groups): &super::ConvCase| {
            let &[n, _, height, width] = image;
            let op = Self { stride: *stride, pad: *pad, dilation: *dilation, groups: *groups, height, width };
            let [y, x] = op.windows([weight[2], weight[3]]).count([height, width]).expect("a sample's window fits");
            Sample::f32(op, [&[n, weight[0], y, x], &weight[..]])
        };
        super::CASES.iter().map(case).collect()
    }
}
