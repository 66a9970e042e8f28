//! Layers: functions of a tensor that declare their parameters when called, and infer from the tensor what they can. A
//! layer has no name; whoever holds it opens a scope ([`Sequential`](super::Sequential), `g.scope`).

use thalweg_graph::{Builder, DType, Init, VarKind};

use super::batch_norm;
use crate::Tensor;
use crate::conv::{avg_pool2d::AvgPool2d, conv2d, max_pool2d::MaxPool2d};
use crate::graph::variable;
use crate::linalg::matmul::MatMul;

/// A function of a tensor, with parameters of its own if it likes: [`Tensor::parameter`], or other layers in scopes of
/// their own (`x.graph().scope(…)`). Functions are layers; closures are where they are passed through [`layer`].
pub trait Layer {
    /// Declares it, and its parameters in the open scope.
    #[track_caller]
    fn call<'g>(&self, x: Tensor<'g>) -> Tensor<'g>;
}

impl<F: for<'g> Fn(Tensor<'g>) -> Tensor<'g>> Layer for F {
    fn call<'g>(&self, x: Tensor<'g>) -> Tensor<'g> {
        self(x)
    }
}

/// A closure as a layer: `.push("gate", layer(|x| x * Linear::new(64).call(x).sigmoid()))`. It changes nothing; it tells the
/// compiler that the closure takes tensors of any graph, which it cannot infer from the bound `impl Layer`.
pub fn layer<F: for<'g> Fn(Tensor<'g>) -> Tensor<'g>>(function: F) -> F {
    function
}

#[track_caller]
pub(crate) fn parameter<'g>(graph: &'g Builder, name: &str, dtype: DType, shape: &[u64], init: Init) -> Tensor<'g> {
    variable(graph, name, dtype.of(shape), VarKind::Param, init, "").0
}

/// Uniform within ±1/√fan_in.
fn within(fan_in: u64) -> Init {
    let bound = 1.0 / (fan_in.max(1) as f64).sqrt();
    Init::Uniform { low: -bound, high: bound }
}

/// The extent of axis `axis`. 1 where there is none or it is no number: the op that follows says what is wrong.
pub(crate) fn features(x: Tensor<'_>, axis: Option<usize>) -> u64 {
    axis.and_then(|axis| x.shape().get(axis)?.fixed()).unwrap_or(1)
}

/// The dtype that parameters for `x` have: its own, where that is a float.
pub(crate) fn parameter_dtype(x: Tensor<'_>) -> DType {
    if x.dtype().is_float() { x.dtype() } else { DType::F32 }
}

/// `x · weightᵀ + bias`; parameters `weight` `[out, in]` and `bias` `[out]`, uniform within ±1/√in.
#[derive(Clone, Debug)]
pub struct Linear {
    features: u64,
    bias: bool,
}

impl Linear {
    /// To `features` out; in-features are the last extent of what it is called with.
    pub fn new(features: u64) -> Self {
        Self { features, bias: true }
    }
    /// Without a bias.
    pub fn no_bias(mut self) -> Self {
        self.bias = false;
        self
    }
}

impl Layer for Linear {
    #[track_caller]
    fn call<'g>(&self, x: Tensor<'g>) -> Tensor<'g> {
        if x.is_poison() {
            return x;
        }
        let (dtype, fan_in) = (parameter_dtype(x), features(x, x.rank().checked_sub(1)));
        let weight = parameter(x.graph(), "weight", dtype, &[self.features, fan_in], within(fan_in));
        let y = x.apply(MatMul { transpose_lhs: false, transpose_rhs: true }, [weight]);
        if self.bias { y + parameter(x.graph(), "bias", dtype, &[self.features], within(fan_in)) } else { y }
    }
}

/// Convolution of images `[N, C, H, W]`; parameters `weight` `[out, in / groups, size, size]` and `bias` `[out]`, uniform within
/// ±1/√(in / groups · size²).
#[derive(Clone, Debug)]
pub struct Conv2d {
    channels: u64,
    size: [u64; 2],
    conv: conv2d::Conv2d,
    bias: bool,
}

impl Conv2d {
    /// To `channels` out, with windows of `size` × `size`; channels in are those of what it is called with.
    pub fn new(channels: u64, size: u64) -> Self {
        Self { channels, size: [size; 2], conv: conv2d::Conv2d::default(), bias: true }
    }
    /// With zeros around the image, 0 otherwise.
    pub fn pad(mut self, pad: u64) -> Self {
        self.conv.pad = [pad; 2];
        self
    }
    /// From window to window, 1 otherwise.
    pub fn stride(mut self, stride: u64) -> Self {
        self.conv.stride = [stride; 2];
        self
    }
    /// From place to place of a window, 1 otherwise.
    pub fn dilation(mut self, dilation: u64) -> Self {
        self.conv.dilation = [dilation; 2];
        self
    }
    /// Groups of channels that do not see each other, 1 otherwise.
    pub fn groups(mut self, groups: u64) -> Self {
        self.conv.groups = groups;
        self
    }
    /// Without a bias.
    pub fn no_bias(mut self) -> Self {
        self.bias = false;
        self
    }
}

impl Layer for Conv2d {
    #[track_caller]
    fn call<'g>(&self, x: Tensor<'g>) -> Tensor<'g> {
        if x.is_poison() {
            return x;
        }
        let (dtype, [h, w]) = (parameter_dtype(x), self.size);
        let channels = features(x, Some(1)) / self.conv.groups.max(1);
        let init = within(channels * h * w);
        let weight = parameter(x.graph(), "weight", dtype, &[self.channels, channels, h, w], init);
        let y = x.conv2d(weight, self.conv.clone());
        if !self.bias {
            return y;
        }
        y + parameter(x.graph(), "bias", dtype, &[self.channels], init).reshape([self.channels, 1, 1])
    }
}

/// Normalization of channels over the batch; parameters `weight` (1) and `bias` (0), statistics `running_mean` (0) and
/// `running_var` (1), which every training program that needs this layer updates.
#[derive(Clone, Debug, Default)]
pub struct BatchNorm {
    op: batch_norm::BatchNorm,
}

impl BatchNorm {
    /// Over the whole batch, momentum 0.1, eps 1e-5.
    pub fn new() -> Self {
        Self::default()
    }
    /// How many equal blocks of the batch have statistics of their own.
    pub fn groups(mut self, groups: u64) -> Self {
        self.op.groups = groups;
        self
    }
    /// How much of a batch's statistics goes into the running ones.
    pub fn momentum(mut self, momentum: f64) -> Self {
        self.op.momentum = momentum;
        self
    }
    /// Added to the variance.
    pub fn eps(mut self, eps: f64) -> Self {
        self.op.eps = eps;
        self
    }
}

impl Layer for BatchNorm {
    #[track_caller]
    fn call<'g>(&self, x: Tensor<'g>) -> Tensor<'g> {
        if x.is_poison() {
            return x;
        }
        let (graph, ty) = (x.graph(), parameter_dtype(x).of([features(x, Some(1))]));
        let (weight, _) = variable(graph, "weight", ty.clone(), VarKind::Param, Init::Constant(1.0), "");
        let (bias, _) = variable(graph, "bias", ty.clone(), VarKind::Param, Init::Constant(0.0), "");
        let (mean, mean_id) = variable(graph, "running_mean", ty.clone(), VarKind::Stat, Init::Constant(0.0), "");
        let (var, var_id) = variable(graph, "running_var", ty, VarKind::Stat, Init::Constant(1.0), "");
        let results = x.apply_all(self.op.clone(), [weight, bias, mean, var]);
        for (id, new) in [(mean_id, results[1]), (var_id, results[2])] {
            if let (Some(id), false) = (id, new.is_poison()) {
                graph.update_stat(id, new.value());
            }
        }
        results[0]
    }
}

/// Random zeros in training.
#[derive(Clone, Copy, Debug)]
pub struct Dropout(
    /// The share that becomes zero.
    pub f64,
);

impl Layer for Dropout {
    #[track_caller]
    fn call<'g>(&self, x: Tensor<'g>) -> Tensor<'g> {
        x.dropout(self.0)
    }
}

/// The largest element of each window.
#[derive(Clone, Debug)]
pub struct MaxPool(
    /// The windows.
    pub MaxPool2d,
);

impl MaxPool {
    /// Windows of `size` × `size`, side by side.
    pub fn new(size: u64) -> Self {
        Self(MaxPool2d { size: [size; 2], stride: [size; 2], pad: [0; 2] })
    }
    /// From window to window; `size` otherwise.
    pub fn stride(mut self, stride: u64) -> Self {
        self.0.stride = [stride; 2];
        self
    }
    /// Places around the image, 0 otherwise.
    pub fn pad(mut self, pad: u64) -> Self {
        self.0.pad = [pad; 2];
        self
    }
}

impl Layer for MaxPool {
    #[track_caller]
    fn call<'g>(&self, x: Tensor<'g>) -> Tensor<'g> {
        x.max_pool2d(self.0.clone())
    }
}

/// The mean of each window.
#[derive(Clone, Debug)]
pub struct AvgPool(
    /// The windows.
    pub AvgPool2d,
);

impl AvgPool {
    /// Windows of `size` × `size`, side by side.
    pub fn new(size: u64) -> Self {
        Self(AvgPool2d { size: [size; 2], stride: [size; 2], pad: [0; 2] })
    }
}

impl Layer for AvgPool {
    #[track_caller]
    fn call<'g>(&self, x: Tensor<'g>) -> Tensor<'g> {
        x.avg_pool2d(self.0.clone())
    }
}

/// All axes but the batch made one.
#[derive(Clone, Copy, Debug)]
pub struct Flatten;

impl Layer for Flatten {
    #[track_caller]
    fn call<'g>(&self, x: Tensor<'g>) -> Tensor<'g> {
        if x.rank() < 2 { x } else { x.flatten(1) }
    }
}
