//! Convolution and pooling over images `[N, C, H, W]`. A convolution and its two gradients are three nests over the same
//! seven axes; each one's gradient is the other two, so that any order of derivative exists.

pub mod avg_pool2d;
pub mod conv2d;
pub mod conv2d_input_grad;
pub mod conv2d_weight_grad;
pub mod max_pool2d;
pub mod max_pool2d_grad;

use thalweg_graph::kernel::build::{Affine, AxisVar};
use thalweg_graph::{DType, Dim, OpError, TensorType, require};

/// How windows lie on an image, per axis.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Windows {
    pub(crate) size: [u64; 2],
    pub(crate) stride: [u64; 2],
    pub(crate) pad: [u64; 2],
    pub(crate) dilation: [u64; 2],
}

impl Windows {
    /// How many windows there are along each axis of an image; `None` where not one fits or a number is senseless.
    pub(crate) fn count(&self, image: [u64; 2]) -> Option<[u64; 2]> {
        let mut out = [0; 2];
        for d in 0..2 {
            if self.size[d] == 0 || self.stride[d] == 0 || self.dilation[d] == 0 || self.stride[d] >= 1 << 31 {
                return None;
            }
            let reach = (self.size[d] - 1).checked_mul(self.dilation[d])?.checked_add(1)?;
            let room = image[d].checked_add(self.pad[d].checked_mul(2)?)?.checked_sub(reach)?;
            out[d] = room / self.stride[d] + 1;
        }
        Some(out)
    }
    /// Where place `k` of window `i` lies on the image, along axis `d`.
    pub(crate) fn place(&self, d: usize, i: AxisVar, k: AxisVar) -> Affine {
        i * self.stride[d] as i64 + k * self.dilation[d] as i64 - self.pad[d] as i64
    }
    /// `stride ·` the window that has place `x` of the image at its place `k`, along axis `d`.
    pub(crate) fn window(&self, d: usize, x: AxisVar, k: AxisVar) -> Affine {
        Affine::from(x) + self.pad[d] as i64 - k * self.dilation[d] as i64
    }
}

/// Height and width of `[N, C, H, W]`, if they are numbers.
pub(crate) fn plane(image: &TensorType) -> Option<[u64; 2]> {
    match &image.shape[..] {
        [_, _, Dim::Fixed(h), Dim::Fixed(w)] => Some([*h, *w]),
        _ => None,
    }
}

/// `what` is `[N, C, H, W]` of floats, and all but N are numbers.
pub(crate) fn require_image(rule: &'static str, what: &str, image: &TensorType) -> Result<[u64; 3], OpError> {
    match &image.shape[..] {
        [_, Dim::Fixed(c), Dim::Fixed(h), Dim::Fixed(w)] if image.dtype.is_float() => Ok([*c, *h, *w]),
        _ => Err(OpError::new(rule, format!("{what} must be floats [batch, channels, height, width], got {image}"))
            .help("all but the batch must be numbers")),
    }
}

/// The types of convolution's three tensors, given the image's plane and the kernel's size. Rules: C1 what the two
/// operands are, C2 channels and groups, C3 windows.
pub(crate) struct Shapes {
    pub(crate) dtype: DType,
    pub(crate) batch: Dim,
    /// Channels in and out.
    pub(crate) channels: [u64; 2],
    pub(crate) image: [u64; 2],
    pub(crate) out: [u64; 2],
}

impl Shapes {
    pub(crate) fn image_type(&self) -> TensorType {
        let [h, w] = self.image;
        self.dtype.of(vec![self.batch.clone(), self.channels[0].into(), h.into(), w.into()])
    }
    pub(crate) fn out_type(&self) -> TensorType {
        let [h, w] = self.out;
        self.dtype.of(vec![self.batch.clone(), self.channels[1].into(), h.into(), w.into()])
    }
}

/// Fits an image (in channels × plane) to windows and groups.
pub(crate) fn shapes(
    rules: [&'static str; 2],
    (dtype, batch): (DType, Dim),
    channels: [u64; 2],
    image: [u64; 2],
    windows: &Windows,
    groups: u64,
) -> Result<Shapes, OpError> {
    let divides = groups > 0 && channels.iter().all(|c| c % groups == 0);
    require!(divides, rules[0], "{groups} groups do not divide {} channels in and {} out", channels[0], channels[1]);
    let out = windows.count(image);
    require!(
        out.is_some(),
        rules[1],
        "no window of {:?} fits an image of {image:?}: stride {:?}, pad {:?}, dilation {:?}",
        windows.size,
        windows.stride,
        windows.pad,
        windows.dilation
    );
    Ok(Shapes { dtype, batch, channels, image, out: out.unwrap_or_default() })
}

/// The attributes that a convolution and its gradients share.
macro_rules! conv_attrs {
    ($(#[$doc:meta])* $op:ident { $($(#[$fdoc:meta])* $field:ident: $ty:ty = $default:expr),* $(,)? }) => {
        thalweg_graph::attrs! {
            $(#[$doc])*
            pub struct $op {
                /// From window to window.
                stride: [u64; 2] = [1, 1],
                /// Zeros around the image.
                pad: [u64; 2] = [0, 0],
                /// From place to place of one window.
                dilation: [u64; 2] = [1, 1],
                /// Groups of channels that do not see each other.
                groups: u64 = 1,
                $($(#[$fdoc])* $field: $ty = $default),*
            }
        }
        impl $op {
            fn windows(&self, size: [u64; 2]) -> $crate::conv::Windows {
                $crate::conv::Windows { size, stride: self.stride, pad: self.pad, dilation: self.dilation }
            }
        }
    };
}
pub(crate) use conv_attrs;

/// The cases on which a convolution and its gradients are tested: image, weight, stride, pad, dilation, groups.
pub(crate) type ConvCase = ([u64; 4], [u64; 4], [u64; 2], [u64; 2], [u64; 2], u64);
pub(crate) const CASES: &[ConvCase] = &[
    ([2, 3, 5, 4], [4, 3, 3, 3], [1, 1], [1, 1], [1, 1], 1),
    ([1, 2, 7, 6], [2, 2, 3, 2], [2, 3], [1, 0], [1, 1], 1),
    ([1, 2, 7, 7], [2, 2, 2, 2], [1, 2], [2, 1], [3, 2], 1),
    ([2, 4, 4, 4], [6, 2, 3, 3], [2, 2], [1, 1], [1, 1], 2),
    ([1, 3, 5, 5], [3, 1, 3, 3], [1, 1], [1, 1], [1, 1], 3),
    ([2, 3, 4, 4], [5, 3, 1, 1], [1, 1], [0, 0], [1, 1], 1),
    ([1, 2, 5, 5], [2, 2, 1, 1], [2, 2], [0, 0], [1, 1], 1),
    ([0, 1, 3, 3], [1, 1, 3, 3], [1, 1], [0, 0], [1, 1], 1),
];

/// The shape of a pooled image.
pub(crate) fn pooled(
    rule: &'static str,
    image: &TensorType,
    channels: u64,
    plane: [u64; 2],
    windows: &Windows,
) -> Result<thalweg_graph::Shape, OpError> {
    let out = windows.count(plane);
    require!(
        out.is_some(),
        rule,
        "no window of {:?} fits an image of {plane:?}: stride {:?}, pad {:?}",
        windows.size,
        windows.stride,
        windows.pad
    );
    let [y, x] = out.unwrap_or_default();
    Ok(vec![image.shape[0].clone(), channels.into(), y.into(), x.into()].into())
}
