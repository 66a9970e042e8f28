//! Models that whole runs are tested on, small enough to train in a test: the digits' convolutions with dropout, an MLP with
//! momentum, LeNet, and a transformer with a causal mask.

use thalweg::Result;
use thalweg::kit::generator::{integers, uniform};
use thalweg::nn::{Embedding, LayerNorm, SelfAttention};
use thalweg::prelude::*;
use thalweg::runtime::Outputs;

/// A model, and what it is fed.
pub(crate) struct Trained {
    pub(crate) name: &'static str,
    declare: fn() -> Graph,
    feeds: fn(usize) -> Vec<(&'static str, Array)>,
}

pub(crate) const ALL: [Trained; 4] = [
    Trained { name: "digits", declare: digits, feeds: |i| images(i, &[64, 1, 8, 8]) },
    Trained { name: "mlp", declare: mlp, feeds: |i| images(i, &[32, 64]) },
    Trained { name: "lenet", declare: lenet, feeds: |i| images(i, &[16, 1, 28, 28]) },
    Trained { name: "gpt", declare: gpt, feeds: tokens },
];

impl Trained {
    pub(crate) fn compile(&self, threads: usize) -> Model {
        (self.declare)().compile(&Cluster::cpu(threads)).expect("no mistakes")
    }
    /// Spread over a cluster as `strategy` says.
    pub(crate) fn compile_with(&self, cluster: &Cluster, strategy: &Strategy) -> Model {
        (self.declare)().compile_with(cluster, strategy).expect("no mistakes")
    }
    /// What step `i` is fed.
    pub(crate) fn feeds(&self, i: usize) -> Vec<(&'static str, Array)> {
        (self.feeds)(i)
    }
    /// One training step.
    pub(crate) fn step(&self, model: &mut Model, i: usize) -> Result<Outputs> {
        let feeds = self.feeds(i);
        model.run("train", &feeds.iter().map(|(n, a)| (*n, a)).collect::<Vec<_>>())
    }
}

fn images(i: usize, shape: &[u64]) -> Vec<(&'static str, Array)> {
    let y = integers(&format!("y{i}"), &shape[..1], 10);
    vec![("x", uniform(&format!("x{i}"), shape, 1.0, 0.0)), ("y", y)]
}

fn tokens(i: usize) -> Vec<(&'static str, Array)> {
    let row = |name: &str| integers(&format!("{name}{i}"), &[4, 16], 20);
    vec![("x", row("x")), ("y", row("y"))]
}

fn classify<'g>(g: &'g Graph, logits: Tensor<'g>, y: Tensor<'g>, update: fn(Tensor<'g>) -> thalweg::ops::Update) {
    let loss = cross_entropy(logits, y).mean().named("loss");
    g.program("train").outputs([loss]).update(update(loss));
    g.program("eval").outputs([loss]);
}

fn digits() -> Graph {
    let g = Graph::new("digits").seed(1);
    let batch = g.dim("batch", 1..=512);
    let (x, y) = (g.input("x", F32, shape![batch, 1, 8, 8]), g.input("y", I32, shape![batch]));
    let body = Sequential::new("body")
        .push("conv1", Conv2d::new(16, 3).pad(1))
        .relu()
        .push("conv2", Conv2d::new(32, 3).pad(1))
        .relu()
        .max_pool(2)
        .flatten()
        .dropout(0.3)
        .push("head", Linear::new(10));
    classify(&g, body.call(x), y, |loss| AdamW::new(3e-3).minimize(loss));
    g
}

fn mlp() -> Graph {
    let g = Graph::new("mlp").seed(2);
    let (x, y) = (g.input("x", F32, [32, 64]), g.input("y", I32, [32]));
    let body = Sequential::new("body").push("fc1", Linear::new(128)).relu().push("fc2", Linear::new(10));
    classify(&g, body.call(x), y, |loss| Sgd::new(0.05).momentum(0.9).minimize(loss));
    g
}

fn lenet() -> Graph {
    let g = Graph::new("lenet").seed(3);
    let (x, y) = (g.input("x", F32, [16, 1, 28, 28]), g.input("y", I32, [16]));
    let body = Sequential::new("body")
        .push("conv1", Conv2d::new(6, 5).pad(2))
        .relu()
        .max_pool(2)
        .push("conv2", Conv2d::new(16, 5))
        .relu()
        .max_pool(2)
        .flatten()
        .push("fc1", Linear::new(120))
        .relu()
        .push("fc2", Linear::new(84))
        .relu()
        .push("fc3", Linear::new(10));
    classify(&g, body.call(x), y, |loss| Sgd::new(0.05).minimize(loss));
    g
}

fn gpt() -> Graph {
    let g = Graph::new("gpt").seed(4);
    let (x, y) = (g.input("x", I32, [4, 16]), g.input("y", I32, [4, 16]));
    let mut h = g.scope("wte", || Embedding::new(20, 32).call(x));
    for i in 0..2 {
        h = g.scope(&format!("h{i}"), || {
            let a = g.scope("ln1", || LayerNorm::new().call(h));
            let h = h + SelfAttention::new(4).causal().call(a);
            let m = g.scope("ln2", || LayerNorm::new().call(h));
            let m = g.scope("fc1", || Linear::new(64).call(m)).gelu_tanh();
            h + g.scope("fc2", || Linear::new(32).call(m))
        });
    }
    let logits = g.scope("head", || Linear::new(20).no_bias().call(h));
    classify(&g, logits, y, |loss| AdamW::new(1e-3).minimize(loss));
    g
}
