//! `conv2d` — `out[n,o,y,x] = Σ image[n, c, y·stride + i·dilation − pad, x·stride + j·dilation − pad] · weight[o,c,i,j]`
//! over c, i, j of o's group; the image is 0 outside. (A cross-correlation, as everybody has it.)
//!
//! * **C1** `image` is floats [batch, channels, height, width], `weight` [out, channels / groups, height, width] of the same
//!   type, and all but the batch are numbers.
//! * **C2** `groups` divides both numbers of channels, and `weight` has the image's channels.
//! * **C3** a window fits; stride and dilation are at least 1.

use thalweg_graph::kernel::build::{Axes, read, read_or, sum_of_products};
use thalweg_graph::kernel::{BufferType, Kernel};
use thalweg_graph::{Accuracy, InHalf, OpError, Schema, TensorType, Types, require};

use super::conv2d_input_grad::Conv2dInputGrad;
use super::conv2d_weight_grad::Conv2dWeightGrad;
use crate::Tensor;
use crate::op::{Gradients, Op, VjpCx};
use crate::sample::Sample;

super::conv_attrs! {
    /// Convolution of images.
    Conv2d {}
}

impl Op for Conv2d {
    const SCHEMA: Schema =
        Schema { name: "conv2d", operands: &["image", "weight"], results: &["out"], accuracy: Accuracy::Ulps(16) };
    const IN_HALF: InHalf = InHalf::Gains(2);
    fn infer(&self, operands: &[TensorType]) -> Result<Types, OpError> {
        let [image, weight] = operands else { unreachable!("arity is checked") };
        let [cin, h, w] = super::require_image("conv2d.C1", "the image", image)?;
        let kernel = weight.shape.fixed().filter(|s| s.len() == 4 && weight.dtype == image.dtype);
        let Some([cout, per_group, kh, kw]) = kernel.as_deref() else {
            let what = format!("the weight must be {}[out, channels, height, width], got {weight}", image.dtype);
            return Err(OpError::new("conv2d.C1", what));
        };
        let fits = per_group.checked_mul(self.groups) == Some(cin);
        require!(
            fits,
            "conv2d.C2",
            "the image has {cin} channels, the weight is for {per_group} in each of {} groups",
            self.groups
        );
        let (rules, of) = (["conv2d.C2", "conv2d.C3"], (image.dtype, image.shape[0].clone()));
        let shapes = super::shapes(rules, of, [cin, *cout], [h, w], &self.windows([*kh, *kw]), self.groups)?;
        Ok(vec![shapes.out_type()])
    }
    fn lower(&self, operands: &[BufferType], results: &[BufferType]) -> Option<Kernel> {
        let [cout, cin, kh, kw] = operands[1].shape[..] else { return None };
        let [n, _, oh, ow] = results[0].shape[..] else { return None };
        let (windows, per_group) = (self.windows([kh, kw]), cout / self.groups);
        let mut axes = Axes::new();
        let [n, g, o, y, x] = axes.par([n, self.groups, per_group, oh, ow]);
        let [c, i, j] = axes.fold([cin, kh, kw]);
        let out = g * per_group as i64 + o;
        let image = [n.into(), g * cin as i64 + c, windows.place(0, y, i), windows.place(1, x, j)];
        let weight = read(1, [out.clone(), c.into(), i.into(), j.into()]);
        let value = sum_of_products(read_or(0, image, 0.0), weight, operands[0].dtype);
        Some(axes.nest_at(operands, results, [(value, vec![n.into(), out, y.into(), x.into()])]))
    }
    fn gradient<'g>(&self, cx: &VjpCx<'g>) -> Option<Gradients<'g>> {
        let (image, weight, ct) = (cx.operand(0), cx.operand(1), cx.ct());
        let &Self { stride, pad, dilation, groups } = self;
        let [height, width] = super::plane(&image.ty())?;
        let kernel = super::plane(&weight.ty())?;
        let image_ct = ct.apply(Conv2dInputGrad { stride, pad, dilation, groups, height, width }, [weight]);
        let weight_ct = image.apply(Conv2dWeightGrad { stride, pad, dilation, groups, kernel }, [ct]);
        Some(vec![Some(image_ct), Some(weight_ct)])
    }
    fn samples() -> Vec<Sample<Self>> {
        let case = |(image, weight, stride, pad, dilation, groups): &super::ConvCase| {
            let op = Self { stride: *stride, pad: *pad, dilation: *dilation, groups: *groups };
            Sample::f32(op, [&image[..], &weight[..]])
        };
        super::CASES.iter().map(case).collect()
    }
}

impl<'g> Tensor<'g> {
    /// Convolution with `weight` `[out, channels / groups, height, width]`; see [`Conv2d`].
    #[track_caller]
    pub fn conv2d(self, weight: Tensor<'g>, conv: Conv2d) -> Self {
        self.apply(conv, [weight])
    }
}
