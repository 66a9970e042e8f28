//! The layers of transformers: embedding, layer normalization, self-attention.

use thalweg_graph::{DType, Dim, Init, Shape};

use super::layers::{Layer, Linear, features, parameter, parameter_dtype};
use super::{attention, layer_norm};
use crate::Tensor;
use crate::index::gather::Gather;

/// A vector for each of `count` numbers; parameter `weight` f32[count, features], standard normal. Called with i32 or i64 of
/// any shape; a number out of range finds NaN.
#[derive(Clone, Debug)]
pub struct Embedding {
    count: u64,
    features: u64,
}

impl Embedding {
    /// Of the numbers below `count`, in `features` features.
    pub fn new(count: u64, features: u64) -> Self {
        Self { count, features }
    }
}

impl Layer for Embedding {
    #[track_caller]
    fn call<'g>(&self, x: Tensor<'g>) -> Tensor<'g> {
        if x.is_poison() {
            return x;
        }
        let init = Init::Normal { mean: 0.0, std: 1.0 };
        let weight = parameter(x.graph(), "weight", DType::F32, &[self.count, self.features], init);
        weight.apply(Gather::default(), [x])
    }
}

/// Normalization over the last axis; parameters `weight` (1) and `bias` (0), one element per feature.
#[derive(Clone, Debug, Default)]
pub struct LayerNorm {
    op: layer_norm::LayerNorm,
}

impl LayerNorm {
    /// With eps 1e-5.
    pub fn new() -> Self {
        Self::default()
    }
    /// Added to the variance.
    pub fn eps(mut self, eps: f64) -> Self {
        self.op.eps = eps;
        self
    }
}

impl Layer for LayerNorm {
    #[track_caller]
    fn call<'g>(&self, x: Tensor<'g>) -> Tensor<'g> {
        if x.is_poison() {
            return x;
        }
        let (dtype, shape) = (parameter_dtype(x), [features(x, x.rank().checked_sub(1))]);
        let [weight, bias] =
            [("weight", 1.0), ("bias", 0.0)].map(|(n, v)| parameter(x.graph(), n, dtype, &shape, Init::Constant(v)));
        x.apply(self.op.clone(), [weight, bias])
    }
}

/// Attention of a sequence [batch, length, features] to itself, in several heads; layers `qkv` (queries, keys and values in
/// one product, in this order, the heads side by side in each) and `proj`.
#[derive(Clone, Debug)]
pub struct SelfAttention {
    heads: u64,
    op: attention::Attention,
}

impl SelfAttention {
    /// In `heads` heads, which divide the features.
    pub fn new(heads: u64) -> Self {
        Self { heads, op: attention::Attention { interleaved: true, ..Default::default() } }
    }
    /// Each place sees only those before it and itself.
    pub fn causal(mut self) -> Self {
        self.op.causal = true;
        self
    }
}

impl Layer for SelfAttention {
    #[track_caller]
    fn call<'g>(&self, x: Tensor<'g>) -> Tensor<'g> {
        if x.is_poison() {
            return x;
        }
        let (graph, width) = (x.graph(), features(x, x.rank().checked_sub(1)));
        let qkv = graph.scope("qkv", || Linear::new(3 * width).call(x));
        let rows = &x.shape()[..x.rank().saturating_sub(1)];
        let axes = |last: &[u64]| Shape(rows.iter().cloned().chain(last.iter().map(|d| Dim::Fixed(*d))).collect());
        let heads = axes(&[self.heads, width / self.heads.max(1)]);
        // [batch, length, heads, features]: as the product gives it, with nothing to transpose.
        let part = |k: u64| qkv.slice(-1, k * width..(k + 1) * width).reshape(heads.clone());
        let y = part(0).apply(self.op.clone(), [part(1), part(2)]).reshape(x.shape());
        graph.scope("proj", || Linear::new(width).call(y))
    }
}
