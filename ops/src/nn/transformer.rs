//! The layers of transformers: embedding, layer normalization, self-attention, and a whole block.

use thalweg_graph::{DType, Dim, Init, Shape, Site};

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

/// A transformer's layer on [batch, length, features], normalized first: `x + attn(ln1(x))`, then `x + fc2(gelu(fc1(ln2(x))))`.
/// Layers `ln1`, `attn`, `ln2`, `fc1` (four times as wide) and `fc2`.
#[derive(Clone, Debug)]
pub struct TransformerBlock {
    attention: SelfAttention,
    wider: u64,
    dropout: f64,
}

impl TransformerBlock {
    /// With attention in `heads` heads, which divide the features.
    pub fn new(heads: u64) -> Self {
        Self { attention: SelfAttention::new(heads), wider: 4, dropout: 0.0 }
    }
    /// Each place sees only those before it and itself.
    pub fn causal(mut self) -> Self {
        self.attention = self.attention.causal();
        self
    }
    /// How many times wider `fc1` is; 4 otherwise.
    pub fn wider(mut self, times: u64) -> Self {
        self.wider = times;
        self
    }
    /// Random zeros in training, with this probability, where a branch joins.
    pub fn dropout(mut self, p: f64) -> Self {
        self.dropout = p;
        self
    }
}

impl Layer for TransformerBlock {
    #[track_caller]
    fn call<'g>(&self, x: Tensor<'g>) -> Tensor<'g> {
        if x.is_poison() {
            return x;
        }
        let site = Site::here();
        let within = |name: &str, layer: &dyn Layer, x: Tensor<'g>| {
            x.graph().scope(name, || x.graph().at_site(site.clone(), || layer.call(x)))
        };
        let join = |x: Tensor<'g>, branch: Tensor<'g>| {
            x + if self.dropout > 0.0 { branch.dropout(self.dropout) } else { branch }
        };
        let x = join(x, within("attn", &self.attention, within("ln1", &LayerNorm::new(), x)));
        let width = features(x, x.rank().checked_sub(1));
        let wide = within("fc1", &Linear::new(self.wider * width), within("ln2", &LayerNorm::new(), x)).gelu();
        join(x, within("fc2", &Linear::new(width), wide))
    }
}
