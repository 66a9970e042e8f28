//! Layers and optimizers: what they declare, and that it learns.

mod common;

use common::Trainer;
use thalweg_graph::{Array, Bindings, DType, Init, Mode, VarKind, shape};
use thalweg_ops::nn::{
    BatchNorm, Conv2d, Embedding, Layer, LayerNorm, Linear, SelfAttention, Sequential, cross_entropy, layer,
};
use thalweg_ops::optim::{AdamW, Sgd};
use thalweg_ops::{Graph, Tensor};

const F32: DType = DType::F32;
const I32: DType = DType::I32;

/// The digits network, as its documentation writes it.
fn digits() -> thalweg_graph::Graph {
    let g = Graph::new("digits").seed(0);
    let batch = g.dim("batch", 1..=512);
    let image = g.input("image", F32, shape![batch, 1, 8, 8]);
    let label = g.input("label", I32, shape![batch]);
    let body = Sequential::new("body")
        .push("conv1", Conv2d::new(16, 3).pad(1))
        .relu()
        .push("conv2", Conv2d::new(32, 3).pad(1))
        .relu()
        .max_pool(2)
        .flatten()
        .dropout(0.3)
        .push("head", Linear::new(10));
    let logits = body.call(image);
    let loss = cross_entropy(logits, label).mean().named("loss");
    let accuracy = logits.argmax(-1).eq(label).mean().named("accuracy");
    g.program("train").outputs([loss, accuracy]).update(AdamW::new(3e-3).minimize(loss));
    g.program("eval").outputs([loss, accuracy]);
    g.program("predict").inputs([image]).outputs([logits.softmax(-1).named("probs")]);
    g.finish().unwrap_or_else(|mistakes| panic!("{}", mistakes[0]))
}

#[test]
fn the_digits_network_has_the_variables_one_expects() {
    let graph = digits();
    let of = |kind| {
        let wanted = graph.state.iter().filter(move |(_, v)| v.kind == kind);
        wanted.map(|(_, v)| format!("{}: {}", v.name, v.ty)).collect::<Vec<_>>()
    };
    let params = [
        "body.conv1.weight: f32[16, 1, 3, 3]",
        "body.conv1.bias: f32[16]",
        "body.conv2.weight: f32[32, 16, 3, 3]",
        "body.conv2.bias: f32[32]",
        "body.head.weight: f32[10, 512]",
        "body.head.bias: f32[10]",
    ];
    assert_eq!(of(VarKind::Param), params);
    let slots = params.iter().flat_map(|p| [format!("adamw.m.{p}"), format!("adamw.v.{p}")]).collect::<Vec<_>>();
    assert_eq!(of(VarKind::Slot), slots);
    assert_eq!(of(VarKind::Counter), ["step: i64[]"]);
    let group = |name: &str| graph.state[graph.variable(name).expect("it is there")].group.to_string();
    assert_eq!(group("adamw.m.body.head.bias"), "adamw.m");
    assert_eq!(group("body.head.bias"), "");
    let bound = 1.0 / 144f64.sqrt();
    let conv2 = &graph.state[graph.variable("body.conv2.bias").expect("it is there")];
    assert_eq!(conv2.init, Init::Uniform { low: -bound, high: bound });
}

#[test]
fn the_digits_network_has_the_programs_one_expects() {
    let graph = digits();
    let inputs = |name: &str| {
        let inputs = graph.inputs_of(graph.program(name).expect("it is there"));
        inputs.iter().map(|(_, i)| format!("{}: {}", i.name, i.ty)).collect::<Vec<_>>()
    };
    assert_eq!(inputs("train"), ["image: f32[batch, 1, 8, 8]", "label: i32[batch]"]);
    assert_eq!(inputs("predict"), ["image: f32[batch, 1, 8, 8]"]);
    let modes: Vec<_> = graph.programs.iter().map(|p| (&*p.name, p.mode(), p.updates.len())).collect();
    assert_eq!(modes, [("train", Mode::Train, 19), ("eval", Mode::Infer, 0), ("predict", Mode::Infer, 0)]);
    let scopes: Vec<_> =
        graph.nodes.iter().filter(|(_, n)| n.op.schema().name == "conv2d").map(|(_, n)| &*n.scope).collect();
    assert_eq!(scopes, ["body.conv1", "body.conv2"]);
}

#[test]
fn the_digits_network_learns_two_pictures() {
    let mut trainer = Trainer::new(&digits(), "train", &Bindings::from([("batch".into(), 2)]));
    let mut images = Array::zeros(F32, &[2, 1, 8, 8]);
    images.as_mut_slice::<f32>()[..64].fill(1.0);
    let feeds = [("image", images), ("label", Array::from_slice(&[2], &[3i32, 7]))];
    let first = trainer.step(&feeds)[0];
    for _ in 0..7 {
        trainer.step(&feeds);
    }
    let last = trainer.step(&feeds)[0];
    assert!(last < 0.5 * first, "the loss went from {first} to {last}");
    assert_eq!(trainer.get("step"), [9.0]);
}

/// `(w · x − 1)²`, minimized by what `optimize` says.
fn parabola(optimize: impl for<'g> Fn(&'g Graph, Tensor<'g>) -> thalweg_ops::Update) -> Trainer {
    let g = Graph::new("parabola");
    let w = g.parameter("w", F32, [2], Init::Constant(0.5));
    let error = w * g.input("x", F32, [2]) - 1.0;
    let loss = (error * error).sum().named("loss");
    let update = optimize(&g, loss);
    g.program("train").outputs([loss]).update(update);
    Trainer::new(&g.finish().expect("no mistakes"), "train", &Bindings::new())
}

const X: [f32; 2] = [2.0, -0.5];

fn close(have: &[f64], want: &[f64]) {
    let close = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-5 * b.abs().max(1.0);
    assert!(have.iter().zip(want).all(close), "{have:?} is not {want:?}");
}

#[test]
fn adamw_follows_its_paper() {
    let mut trainer = parabola(|_, loss| AdamW::new(0.1).betas(0.8, 0.9).weight_decay(0.05).minimize(loss));
    let (mut w, mut m, mut v) = ([0.5f64; 2], [0.0; 2], [0.0; 2]);
    for t in 1..=5 {
        trainer.step(&[("x", Array::from_slice(&[2], &X))]);
        for i in 0..2 {
            let x = f64::from(X[i]);
            let g = 2.0 * (w[i] * x - 1.0) * x;
            m[i] = 0.8 * m[i] + 0.2 * g;
            v[i] = 0.9 * v[i] + 0.1 * g * g;
            let (mean, square) = (m[i] / (1.0 - 0.8f64.powi(t)), v[i] / (1.0 - 0.9f64.powi(t)));
            w[i] = w[i] * (1.0 - 0.1 * 0.05) - 0.1 * mean / (square.sqrt() + 1e-8);
        }
        close(&trainer.get("w"), &w);
        close(&trainer.get("adamw.m.w"), &m);
        close(&trainer.get("adamw.v.w"), &v);
    }
}

#[test]
fn sgd_follows_its_momentum_and_its_schedule() {
    fn schedule<'g>(g: &'g Graph, loss: Tensor<'g>) -> thalweg_ops::Update {
        let lr = 0.1 / (g.step().cast(F32) + 1.0);
        Sgd::new(0.0).lr_schedule(lr).momentum(0.5).named("descent").minimize(loss)
    }
    let mut trainer = parabola(schedule);
    let (mut w, mut v) = ([0.5f64; 2], [0.0; 2]);
    for t in 0..4 {
        trainer.step(&[("x", Array::from_slice(&[2], &X))]);
        for i in 0..2 {
            let x = f64::from(X[i]);
            v[i] = 0.5 * v[i] + 2.0 * (w[i] * x - 1.0) * x;
            w[i] -= 0.1 / f64::from(t + 1) * v[i];
        }
        close(&trainer.get("w"), &w);
        close(&trainer.get("descent.v.w"), &v);
    }
    let plain = parabola(|_, loss| Sgd::new(0.1).minimize(loss));
    assert!(plain.graph.state.iter().all(|(_, v)| v.kind != VarKind::Slot), "no momentum, no buffer");
}

#[test]
fn batch_norm_updates_its_statistics_in_programs_that_train_and_need_it() {
    let g = Graph::new("norm");
    let x = g.input("x", F32, [4, 3]);
    let y = Sequential::new("net").push("norm", BatchNorm::new().momentum(1.0)).push("out", Linear::new(1)).call(x);
    let loss = (y * y).mean().named("loss");
    g.program("train").outputs([loss]).update(Sgd::new(0.1).minimize(loss));
    g.program("eval").outputs([loss]);
    let graph = g.finish().expect("no mistakes");
    let names: Vec<_> = graph.state.iter().filter(|(_, v)| v.kind == VarKind::Stat).map(|(_, v)| &*v.name).collect();
    assert_eq!(names, ["net.norm.running_mean", "net.norm.running_var"]);
    let mut trainer = Trainer::new(&graph, "train", &Bindings::new());
    let data: Vec<f32> = (0..12u8).map(f32::from).collect();
    trainer.step(&[("x", Array::from_slice(&[4, 3], &data))]);
    close(&trainer.get("net.norm.running_mean"), &[4.5, 5.5, 6.5]);
    close(&trainer.get("net.norm.running_var"), &[15.0; 3]);
    assert!(graph.program("eval").expect("it is there").updates.is_empty());
}

#[test]
fn functions_and_models_inside_models_are_layers() {
    fn twice(x: Tensor<'_>) -> Tensor<'_> {
        x + x
    }
    let g = Graph::new("nested");
    let x = g.input("x", F32, [2, 4]);
    let block = Sequential::new("block").push("fc", Linear::new(4).no_bias()).then(|x| x.tanh());
    let y = Sequential::new("net").push("first", block).push("twice", twice).call(x);
    let z = g.scope("head", || Linear::new(1).call(y));
    g.program("run").outputs([z.named("z")]);
    let graph = g.finish().expect("no mistakes");
    let names: Vec<_> = graph.state.iter().map(|(_, v)| &*v.name).collect();
    assert_eq!(names, ["net.first.block.fc.weight", "head.weight", "head.bias"]);
}

#[test]
fn means_over_a_named_batch_divide_by_its_size_when_it_is_known() {
    let g = Graph::new("named");
    let batch = g.dim("batch", 1..=8);
    let x = g.input("x", F32, shape![batch, 2]);
    let w = g.parameter("w", F32, (), Init::Constant(1.0));
    let loss = (x * w).mean().named("loss");
    g.program("train").outputs([loss]).update(Sgd::new(1.0).minimize(loss));
    let graph = g.finish().expect("no mistakes");
    for n in [1u64, 3] {
        let mut trainer = Trainer::new(&graph, "train", &Bindings::from([("batch".into(), n)]));
        let x = Array::from_slice(&[n, 2], &vec![0.25f32; 2 * n as usize]);
        assert_eq!(trainer.step(&[("x", x)]), [0.25]);
        assert_eq!(trainer.get("w"), [0.75]);
    }
}

#[test]
fn layers_of_transformers_have_the_variables_one_expects() {
    let g = Graph::new("block");
    let (batch, tokens) = (g.dim("batch", 1..=4), 5u64);
    let x = Embedding::new(11, 6).call(g.input("tokens", I32, shape![batch, tokens]));
    let y =
        Sequential::new("block").push("norm", LayerNorm::new()).push("attn", SelfAttention::new(2).causal()).call(x);
    let loss = (x + y).gelu().mean().named("loss");
    g.program("train").outputs([loss]).update(AdamW::new(1e-3).minimize(loss));
    let graph = g.finish().expect("no mistakes");
    let params = graph.state.iter().filter(|(_, v)| v.kind == VarKind::Param);
    assert_eq!(
        params.map(|(_, v)| format!("{}: {}", v.name, v.ty)).collect::<Vec<_>>(),
        [
            "weight: f32[11, 6]",
            "block.norm.weight: f32[6]",
            "block.norm.bias: f32[6]",
            "block.attn.qkv.weight: f32[18, 6]",
            "block.attn.qkv.bias: f32[18]",
            "block.attn.proj.weight: f32[6, 6]",
            "block.attn.proj.bias: f32[6]",
        ]
    );
    let mut trainer = Trainer::new(&graph, "train", &Bindings::from([("batch".into(), 2)]));
    let tokens = Array::from_slice(&[2, 5], &[0i32, 3, 10, 1, 1, 2, 2, 9, 4, 0]);
    let (first, second) = (trainer.step(&[("tokens", tokens.clone())])[0], trainer.step(&[("tokens", tokens)])[0]);
    assert!(second < first, "the loss went from {first} to {second}");
}

/// With the causal mask, what comes later cannot change what came before.
#[test]
fn causal_attention_does_not_look_ahead() {
    let g = Graph::new("causal");
    let x = g.input("x", F32, [1, 4, 2]);
    let program = |name: &str, y: Tensor<'_>| drop(g.program(name).outputs([y.named(name)]));
    program("causal", x.attention(x, x, true));
    program("open", x.attention(x, x, false));
    let graph = g.finish().expect("no mistakes");
    let run = |program: &str, last: f32| {
        let trainer = Trainer::new(&graph, program, &Bindings::new());
        let x = Array::from_slice(&[1, 4, 2], &[0.5, -1.0, 2.0, 0.25, -0.75, 1.5, last, 1.0]);
        trainer.outputs(&[("x", x)])
    };
    assert_eq!(run("causal", 3.0)[..6], run("causal", -3.0)[..6]);
    assert_eq!(run("causal", 3.0)[..2], [0.5, -1.0], "the first sees itself alone");
    assert_ne!(run("open", 3.0)[..6], run("open", -3.0)[..6]);
}

/// A layer as somebody outside these crates writes it.
struct Scale;

impl Layer for Scale {
    #[track_caller]
    fn call<'g>(&self, x: Tensor<'g>) -> Tensor<'g> {
        x * x.parameter("scale", F32, [3], Init::Constant(2.0))
    }
}

#[test]
fn layers_of_ones_own_declare_parameters_and_learn_beside_others() {
    let g = Graph::new("own");
    let x = g.input("x", F32, [2, 3]);
    let body = Sequential::new("body")
        .push("first", Scale)
        .push("gate", layer(|x| x * Linear::new(3).call(x).sigmoid()))
        .push("second", Scale);
    let loss = body.call(x).mean().named("loss");
    g.program("train").outputs([loss]).update(Sgd::new(0.1).minimize(loss));
    let graph = g.finish().expect("no mistakes");
    let params = graph.state.iter().filter(|(_, v)| v.kind == VarKind::Param);
    assert_eq!(
        params.map(|(_, v)| format!("{}: {}", v.name, v.ty)).collect::<Vec<_>>(),
        [
            "body.first.scale: f32[3]",
            "body.gate.weight: f32[3, 3]",
            "body.gate.bias: f32[3]",
            "body.second.scale: f32[3]",
        ]
    );
    let mut trainer = Trainer::new(&graph, "train", &Bindings::new());
    let x = Array::from_slice(&[2, 3], &[0.5f32, 1.0, -1.5, 2.0, 0.25, 1.0]);
    let (first, second) = (trainer.step(&[("x", x.clone())])[0], trainer.step(&[("x", x)])[0]);
    assert!(second < first, "the loss went from {first} to {second}");
    assert!(trainer.get("body.second.scale").iter().any(|s| *s != 2.0));
}

#[test]
fn the_same_parameter_twice_in_a_scope_is_a_mistake_at_the_line_that_calls_the_layer() {
    let g = Graph::new("twice");
    let x = g.input("x", F32, [2, 3]);
    Scale.call(x);
    let line = line!() + 1;
    Scale.call(x);
    let mistakes = g.finish().expect_err("`scale` is there already");
    assert_eq!(mistakes.len(), 1, "{mistakes:?}");
    assert!(mistakes[0].to_string().contains("scale"), "{}", mistakes[0]);
    assert_eq!(mistakes[0].site.line, line, "{:?}", mistakes[0].site);
}
