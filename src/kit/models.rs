//! The kit's models as graphs, and their initial values. Parameters have the specification's names; layers find the rest
//! out for themselves, so that a model is a few lines.

use thalweg_graph::{Array, DType::F32, Dim, Init, Site, VarKind};
use thalweg_ops::linalg::matmul::MatMul;
use thalweg_ops::nn::{BatchNorm, Conv2d, Flatten, Layer, LayerNorm, Linear, MaxPool, SelfAttention};
use thalweg_ops::{Graph, Tensor};

use super::generator::uniform;
use crate::error::Result;
use crate::model::Model;

/// How wide gpt and bert draw their weights.
const NARROW: f64 = 0.02 * 1.732_050_807_568_877_2;

/// Calls a layer in a scope of its own; what it declares is the caller's.
#[track_caller]
fn at<'g>(g: &Graph, name: &str, x: Tensor<'g>, layer: impl Layer) -> Tensor<'g> {
    let site = Site::here();
    g.scope(name, || g.builder().at_site(site, || layer.call(x)))
}

pub(super) fn mlp<'g>(g: &Graph, x: Tensor<'g>) -> Tensor<'g> {
    let h = at(g, "fc1", x, Linear::new(512)).relu();
    let h = at(g, "fc2", h, Linear::new(512)).relu();
    at(g, "fc3", h, Linear::new(10))
}

pub(super) fn mlp_small<'g>(g: &Graph, x: Tensor<'g>) -> Tensor<'g> {
    let h = at(g, "fc1", x, Linear::new(32)).relu();
    at(g, "fc2", h, Linear::new(10))
}

pub(super) fn lenet<'g>(g: &Graph, x: Tensor<'g>) -> Tensor<'g> {
    let h = at(g, "conv1", x, Conv2d::new(6, 5).pad(2)).relu().max_pool(2);
    let h = at(g, "conv2", h, Conv2d::new(16, 5)).relu().max_pool(2);
    let h = at(g, "fc1", Flatten.call(h), Linear::new(120)).relu();
    let h = at(g, "fc2", h, Linear::new(84)).relu();
    at(g, "fc3", h, Linear::new(10))
}

/// A convolution without a bias, normalized.
#[track_caller]
fn normalized<'g>(g: &Graph, [conv, norm]: [&str; 2], x: Tensor<'g>, layer: Conv2d, groups: u64) -> Tensor<'g> {
    at(g, norm, at(g, conv, x, layer.no_bias()), BatchNorm::new().groups(groups))
}

/// What is added to a block's result: its input, where need be in another shape.
#[track_caller]
fn shortcut<'g>(g: &Graph, x: Tensor<'g>, channels: u64, stride: u64, groups: u64) -> Tensor<'g> {
    if stride == 1 && x.dim(1) == channels.into() {
        return x;
    }
    normalized(g, ["down", "dbn"], x, Conv2d::new(channels, 1).stride(stride), groups)
}

/// Stages of blocks, each of twice the width and half the resolution of the one before.
fn stages<'g>(
    g: &Graph,
    blocks: [u64; 4],
    x: Tensor<'g>,
    block: impl Fn(Tensor<'g>, u64, u64) -> Tensor<'g>,
) -> Tensor<'g> {
    let stage = |x, (l, count): (u64, u64)| {
        (0..count).fold(x, |x, b| {
            let stride = if l > 0 && b == 0 { 2 } else { 1 };
            g.scope(&format!("layer{}.{b}", l + 1), || block(x, 64 << l, stride))
        })
    };
    (0..).zip(blocks).fold(x, stage)
}

/// Batches are normalized in `groups` equal blocks.
pub(super) fn resnet18<'g>(g: &Graph, x: Tensor<'g>, groups: u64) -> Tensor<'g> {
    let h = normalized(g, ["conv1", "bn1"], x, Conv2d::new(64, 3).pad(1), groups).relu();
    let h = stages(g, [2; 4], h, |x, width, stride| {
        let y = normalized(g, ["conv1", "bn1"], x, Conv2d::new(width, 3).stride(stride).pad(1), groups).relu();
        let y = normalized(g, ["conv2", "bn2"], y, Conv2d::new(width, 3).pad(1), groups);
        (y + shortcut(g, x, width, stride, groups)).relu()
    });
    at(g, "fc", h.global_avg_pool(), Linear::new(10))
}

pub(super) fn resnet50<'g>(g: &Graph, x: Tensor<'g>) -> Tensor<'g> {
    let h = normalized(g, ["conv1", "bn1"], x, Conv2d::new(64, 7).stride(2).pad(3), 1).relu();
    let h = MaxPool::new(3).stride(2).pad(1).call(h);
    let h = stages(g, [3, 4, 6, 3], h, |x, width, stride| {
        let y = normalized(g, ["conv1", "bn1"], x, Conv2d::new(width, 1), 1).relu();
        let y = normalized(g, ["conv2", "bn2"], y, Conv2d::new(width, 3).stride(stride).pad(1), 1).relu();
        let y = normalized(g, ["conv3", "bn3"], y, Conv2d::new(4 * width, 1), 1);
        (y + shortcut(g, x, 4 * width, stride, 1)).relu()
    });
    at(g, "fc", h.global_avg_pool(), Linear::new(1000))
}

/// What a [`gpt`] is made of.
pub(super) struct Gpt {
    pub(super) layers: u64,
    pub(super) width: u64,
    pub(super) heads: u64,
    pub(super) vocabulary: u64,
    /// Places there are, of which a shorter sequence uses the first.
    pub(super) context: u64,
    /// Whether what embeds tokens also says which comes next.
    pub(super) tied: bool,
}

/// Pre-norm transformer over tokens [batch, length].
pub(super) fn gpt<'g>(g: &'g Graph, tokens: Tensor<'g>, of: &Gpt) -> Tensor<'g> {
    let table = |name, rows| g.parameter(name, F32, [rows, of.width], Init::Constant(0.0));
    let embedding = g.scope("wte", || table("weight", of.vocabulary));
    let (places, length) = (table("wpe", of.context), tokens.dim(1));
    let places = if length == of.context.into() { places } else { places.slice(0, Dim::from(0)..length) };
    let mut x = embedding.gather(tokens, 0) + places;
    for i in 0..of.layers {
        x = g.scope(&format!("h{i}"), || {
            let x = x + SelfAttention::new(of.heads).causal().call(at(g, "ln1", x, LayerNorm::new()));
            let y = at(g, "fc1", at(g, "ln2", x, LayerNorm::new()), Linear::new(4 * of.width)).gelu_tanh();
            x + at(g, "fc2", y, Linear::new(of.width))
        });
    }
    let x = at(g, "lnf", x, LayerNorm::new());
    match of.tied {
        true => x.apply(MatMul { transpose_lhs: false, transpose_rhs: true }, [embedding]),
        false => at(g, "head", x, Linear::new(of.vocabulary).no_bias()),
    }
}

/// Post-norm transformer over embedded tokens [batch, length, features].
pub(super) fn bert<'g>(g: &Graph, x: Tensor<'g>) -> Tensor<'g> {
    (0..12).fold(x, |x, i| {
        g.scope(&format!("h{i}"), || {
            let norm = LayerNorm::new().eps(1e-12);
            let x = at(g, "ln1", x + SelfAttention::new(12).call(x), norm.clone());
            let y = at(g, "fc1", x, Linear::new(4 * 768)).gelu();
            at(g, "ln2", x + at(g, "fc2", y, Linear::new(768)), norm)
        })
    })
}

/// Sets every parameter and statistic of `model`, by the specification's tables.
pub(super) fn initialize(model: &mut Model, name: &str) -> Result<()> {
    let wanted = |kind| matches!(kind, VarKind::Param | VarKind::Stat);
    let graph = model.session().graph();
    let shape = |path: &str| graph.state[graph.variable(path)?].ty.shape.fixed();
    let values: Vec<(String, Array)> = graph
        .state
        .values()
        .iter()
        .filter(|v| wanted(v.kind))
        .map(|v| {
            let (path, shape_of) = (v.name.to_string(), v.ty.shape.fixed().unwrap_or_default());
            let (layer, part) = path.rsplit_once('.').unwrap_or(("", &path));
            let weight = shape(&format!("{layer}.weight")).unwrap_or_default();
            let value = initial(name, layer, part, &shape_of, &weight);
            (path, value)
        })
        .collect();
    values.into_iter().try_for_each(|(path, value)| model.set(&path, &value))
}

/// The value of `part` of `layer`, whose weight has the shape `weight`.
fn initial(model: &str, layer: &str, part: &str, shape: &[u64], weight: &[u64]) -> Array {
    let path = if layer.is_empty() { part.to_string() } else { format!("{layer}.{part}") };
    let drawn = |scale, offset| uniform(&format!("{model}/{path}"), shape, scale, offset);
    let constant = |value: f64| uniform("", shape, 0.0, value);
    let own = layer.rsplit('.').next().unwrap_or("");
    let (fan_in, norm) = (weight.iter().skip(1).product::<u64>() as f64, weight.len() == 1);
    match (model, part) {
        ("gpt", "weight") if own == "wte" => uniform("gpt/wte", shape, NARROW, 0.0),
        ("resnet18" | "gpt" | "gpt2", "weight" | "running_var") if norm => constant(1.0),
        ("resnet18", "bias" | "running_mean") if norm => constant(0.0),
        ("gpt" | "gpt2", "bias") => constant(0.0),
        ("resnet50", "weight") if norm => {
            let g = if own == "bn3" { 0.5 } else { 1.0 };
            drawn(0.1 * g, g)
        }
        ("resnet50", "running_var") => drawn(0.5, 1.0),
        ("bert", "weight") if norm => drawn(0.1, 1.0),
        (_, "bias" | "running_mean") if norm => drawn(0.1, 0.0),
        ("gpt" | "gpt2" | "bert", _) => drawn(NARROW, 0.0),
        ("resnet18" | "resnet50", "weight") if weight.len() == 4 => drawn((6.0 / fan_in).sqrt(), 0.0),
        ("conv3x3_64_56_b8", _) => drawn((6.0 / 576f64).sqrt(), 0.0),
        _ => drawn(fan_in.sqrt().recip(), 0.0),
    }
}
