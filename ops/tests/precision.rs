//! Mixed precision: what the pass makes halves, what it leaves alone, and that what it makes still learns.

mod common;

use std::collections::BTreeSet;

use common::{Trainer, noise};
use thalweg_graph::evaluate::{Named, evaluate};
use thalweg_graph::init::initial_value;
use thalweg_graph::kernel::interpret::{Number, Precision as Digits, Values};
use thalweg_graph::passes::{STANDARD, run_passes, select_program};
use thalweg_graph::{Array, Bindings, DType, Init, Value};
use thalweg_ops::autodiff::gradients;
use thalweg_ops::nn::{Conv2d, Embedding, Layer, LayerNorm, Linear, TransformerBlock, cross_entropy};
use thalweg_ops::optim::{AdamW, LossScale, Schedule, Sgd};
use thalweg_ops::precision::mixed_precision;
use thalweg_ops::{Graph, Precision, Tensor};

const F16: DType = DType::F16;
const BF16: DType = DType::BF16;
const F32: DType = DType::F32;

/// A convolution, a norm, a transformer block and a classifier: every sort of op that the pass knows.
fn model(g: &Graph) -> (Tensor<'_>, Tensor<'_>) {
    let image = g.input("image", F32, [2, 1, 4, 4]);
    let label = g.input("label", DType::I32, [2]);
    let x = g.scope("conv", || Conv2d::new(8, 3).pad(1).call(image)).relu();
    let x = x.reshape([2, 8, 16]).transpose(&[0, 2, 1]);
    let x = g.scope("norm", || LayerNorm::new().call(x));
    let x = g.scope("block", || TransformerBlock::new(2).call(x));
    let x = x.max_over(&[1]) + 0.25;
    let logits = g.scope("head", || Linear::new(3).call(x)).named("logits");
    (logits, cross_entropy(logits, label).mean().named("loss"))
}

fn finished(g: &Graph) -> thalweg_graph::Graph {
    g.finish().unwrap_or_else(|m| panic!("{}", m[0]))
}

fn only<'a>(graph: &'a thalweg_graph::Graph, program: &str) -> Vec<&'a thalweg_graph::Node> {
    let needed = graph.needed_by(graph.program(program).expect("it is there"));
    graph.nodes.iter().filter(|(id, _)| needed[*id]).map(|(_, n)| n).collect()
}

#[test]
fn products_become_halves_and_the_rest_stays() {
    for half in [F16, BF16] {
        let g = Graph::new("mixed");
        let (_, loss) = model(&g);
        let adamw = AdamW::new(1e-3).loss_scale(LossScale::dynamic());
        g.program("train").precision(Precision::Mixed(half)).outputs([loss]).update(adamw.minimize(loss));
        let graph = finished(&g);
        assert_eq!(graph.verify(), []);
        let mut seen = BTreeSet::new();
        for node in only(&graph, "train") {
            let name = node.op.schema().name;
            seen.insert(name);
            let operands = graph.operand_types(node);
            match name {
                "matmul" | "conv2d" | "conv2d_weight_grad" | "attention" | "attention_grad" | "conv2d_input_grad" => {
                    assert_eq!((operands[0].dtype, node.types[0].dtype), (half, half), "{node:?}");
                }
                "layer_norm" | "cross_entropy" | "softmax" | "sum" | "mean" | "adamw" | "exp" | "max" | "gelu" => {
                    let is_half = |t: &thalweg_graph::TensorType| t.dtype == half;
                    assert!(!operands.iter().chain(&node.types).any(is_half), "{node:?}");
                }
                "relu" => assert_eq!(node.types[0].dtype, half, "{node:?}"),
                _ => {}
            }
        }
        for op in
            ["matmul", "conv2d", "conv2d_weight_grad", "attention", "attention_grad", "layer_norm", "adamw", "relu"]
        {
            assert!(seen.contains(op), "the model has no {op}: {seen:?}");
        }
        assert!(graph.state.values().iter().all(|v| v.ty.dtype != half), "variables stay");
    }
}

#[test]
fn a_value_is_cast_once_and_no_pair_of_casts_cancels() {
    let g = Graph::new("mixed");
    let (_, loss) = model(&g);
    g.program("train").precision(Precision::Mixed(BF16)).outputs([loss]).update(Sgd::new(0.1).minimize(loss));
    let graph = finished(&g);
    let casts: Vec<_> = only(&graph, "train").into_iter().filter(|n| n.op.schema().name == "cast").collect();
    let made: BTreeSet<(Value, DType)> = casts.iter().map(|n| (n.operands[0], n.types[0].dtype)).collect();
    assert_eq!(made.len(), casts.len(), "each once");
    assert!(casts.len() > 10, "there are casts: {}", casts.len());
    for cast in casts {
        let from = &graph.nodes[cast.operands[0].node];
        assert_ne!(from.op.schema().name, "cast", "{from:?} and {cast:?}");
    }
}

#[test]
fn a_cast_of_the_users_own_is_undone() {
    let g = Graph::new("cast");
    let x = g.input("x", F32, [4, 4]);
    let y = x.matmul(x).cast(F16).named("y");
    g.program("run").precision(Precision::Mixed(F16)).outputs([y]);
    let graph = finished(&g);
    let names: Vec<_> = only(&graph, "run").iter().map(|n| n.op.schema().name).collect();
    assert_eq!(names, ["input", "cast", "matmul"]);
}

#[test]
fn what_is_beside_halves_decides() {
    let g = Graph::new("beside");
    let x = g.input("x", F32, [4, 4]);
    let b = g.parameter("b", F32, [4], Init::Constant(0.5));
    let y = x.matmul(x);
    let kept = [y + b, y + 1.0, y.maximum(0.0), y.reshape([16])];
    let wide = [y + x, y - 1e9, y + 1e-7, y * 2.0, y.exp()];
    g.program("run").precision(Precision::Mixed(F16)).outputs([kept[0], kept[1], kept[2], kept[3]]);
    g.program("not").precision(Precision::Mixed(F16)).outputs([wide[0], wide[1], wide[2], wide[3], wide[4]]);
    let graph = finished(&g);
    let of = |program: &str| -> Vec<(&str, DType)> {
        let outputs = &graph.program(program).expect("it is there").outputs;
        let made = |v: &Value| {
            let node = &graph.nodes[v.node];
            let by = if node.op.schema().name == "cast" { &graph.nodes[node.operands[0].node] } else { node };
            (by.op.schema().name, by.types[0].dtype)
        };
        outputs.iter().map(|(_, v)| made(v)).collect()
    };
    assert_eq!(of("run"), [("add", F16), ("add", F16), ("maximum", F16), ("reshape", F16)]);
    assert_eq!(of("not"), [("add", F32), ("sub", F32), ("add", F32), ("mul", F32), ("exp", F32)]);
}

#[test]
fn programs_that_do_not_ask_are_left_alone() {
    let declared = |precision| {
        let g = Graph::new("mixed");
        let (logits, loss) = model(&g);
        g.program("train").precision(precision).outputs([loss]).update(Sgd::new(0.1).minimize(loss));
        g.program("predict").outputs([logits]);
        finished(&g)
    };
    let (plain, mixed) = (declared(Precision::Declared), declared(Precision::Mixed(BF16)));
    assert_eq!(plain, mixed_precision(&plain, "no such program", BF16).expect("nothing to do"));
    assert_eq!(plain.programs[1], mixed.programs[1]);
    let upto = plain.nodes.len();
    assert_eq!(plain.nodes.values(), &mixed.nodes.values()[..upto], "handles still mean what they meant");
    assert!(mixed.nodes.len() > upto);
    let f64s = {
        let g = Graph::new("f64");
        let x = g.input("x", DType::F64, [4, 4]);
        g.program("run").precision(Precision::Mixed(F16)).outputs([x.matmul(x).relu()]);
        (finished(&g), g.builder().finish().expect("no mistakes"))
    };
    assert_eq!(f64s.0, f64s.1, "only f32 is mixed");
}

/// The gradients of a mixed program in its own arithmetic, against central differences in f64 of the program as declared:
/// within 0.5 % of the gradient's length times the direction's in f16, 4 % in bf16.
#[test]
fn gradients_are_what_differences_of_the_wide_program_say() {
    for (half, within) in [(F16, 0.005), (BF16, 0.04)] {
        let g = Graph::new("mixed").seed(3);
        let (_, loss) = model(&g);
        let params: Vec<Tensor<'_>> = g
            .builder()
            .with_graph(|b| {
                b.nodes
                    .iter()
                    .filter(|(_, n)| b.variable_read(n).is_some())
                    .map(|(id, _)| Value::from(id))
                    .collect::<Vec<_>>()
            })
            .into_iter()
            .map(|v| Tensor::new(g.builder(), v))
            .collect();
        let cts = gradients(loss, &params);
        let outputs =
            |all: &[Tensor<'_>]| all.iter().enumerate().map(|(i, t)| (format!("o{i}").into(), t.value())).collect();
        let at = thalweg_graph::Site::default;
        g.builder().program("mixed", outputs(&cts), vec![], at());
        g.builder().program("wide", outputs(&[loss]), vec![], at());
        let whole = mixed_precision(&finished(&g), "mixed", half).expect("no mistakes");
        let ready =
            |program: &str| run_passes(&select_program(&whole, program).expect("declared"), STANDARD, &mut |_, _| {});
        let (mixed, wide) = (ready("mixed"), ready("wide"));
        let feeds = Named::from([
            ("image".into(), noise(&F32.of([2, 1, 4, 4]), 5)),
            ("label".into(), Values::from_array(&Array::from_slice(&[2], &[2i32, 0]))),
        ]);
        let state: Named = initial(&whole);
        let run = |graph: &thalweg_graph::Graph, state: &Named, digits| {
            let done = evaluate(graph, &graph.programs[0], &feeds, state, digits).expect("it evaluates");
            done.outputs.into_iter().map(|(_, v)| v).collect::<Vec<_>>()
        };
        let found = run(&mixed, &state, Digits::Exact);
        let mut worst = 0f64;
        for (k, (param, gradient)) in params.iter().zip(&found).enumerate() {
            let node = g.builder().node(param.value());
            let name = node.op_as::<thalweg_graph::structural::ReadVariable>().expect("a parameter").variable.clone();
            let direction = noise(&param.ty(), 100 + k as u64);
            let moved = |h: f64| {
                let mut state = state.clone();
                let x = state.get_mut(&name).expect("a variable");
                x.data.iter_mut().zip(&direction.data).for_each(|(x, d)| *x = Number::Float(x.f64() + h * d.f64()));
                run(&wide, &state, Digits::Reference)[0].data[0].f64()
            };
            let differences = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            let dot = |a: &Values, b: &Values| a.data.iter().zip(&b.data).map(|(a, b)| a.f64() * b.f64()).sum::<f64>();
            let size = (dot(gradient, gradient) * dot(&direction, &direction)).sqrt().max(1e-2);
            let error = (dot(gradient, &direction) - differences).abs() / size;
            worst = worst.max(error);
            assert!(error <= within, "{half}, {name}: {} and {differences}", dot(gradient, &direction));
        }
        println!("{half}: {worst:.5} at worst");
        assert!(worst > 1e-6, "it was not in halves");
    }
}

/// Initial values by name.
fn initial(graph: &thalweg_graph::Graph) -> Named {
    let value = |v: &thalweg_graph::Variable| (v.name.clone(), Values::from_array(&initial_value(v, graph.seed)));
    graph.state.values().iter().map(value).collect()
}

#[test]
fn wrong_precisions_are_mistakes() {
    let rules = |declare: fn(&Graph, Tensor<'_>)| -> Vec<_> {
        let g = Graph::new("wrong");
        let w = g.parameter("w", F32, [2, 2], Init::Constant(0.5));
        declare(&g, w.matmul(w).sum());
        g.finish().err().unwrap_or_default().iter().map(|m| m.code.clone()).collect()
    };
    assert_eq!(
        rules(|g, loss| drop(g.program("p").precision(Precision::Mixed(DType::F64)).outputs([loss]))),
        ["precision.C1"]
    );
    let f16 = Precision::Mixed(F16);
    assert_eq!(rules(|g, loss| drop(g.program("p").precision(f16_mixed()).update(sgd(loss)))), ["precision.C2"]);
    assert_eq!(rules(|g, loss| drop(g.program("p").precision(f16_mixed()).outputs([loss]))), [""; 0], "{f16:?}");
    assert_eq!(rules(|g, loss| drop(g.program("p").precision(Precision::Mixed(BF16)).update(sgd(loss)))), [""; 0]);
    let zero = |g: &Graph, loss: Tensor<'_>| {
        drop(g.program("p").update(scaled_sgd(loss)));
    };
    assert_eq!(rules(zero), ["loss_scale.C1"]);
}
fn f16_mixed() -> Precision {
    Precision::Mixed(F16)
}
fn sgd(loss: Tensor<'_>) -> thalweg_ops::Update {
    Sgd::new(0.1).minimize(loss)
}
fn scaled_sgd(loss: Tensor<'_>) -> thalweg_ops::Update {
    Sgd::new(0.1).loss_scale(LossScale::constant(0.0)).minimize(loss)
}

/// w and b learn to give y from x, all [8, 4], by a product in `precision`.
fn line(precision: Precision, times: f64, adamw: fn(AdamW<'static>) -> AdamW<'static>) -> Trainer {
    let g = Graph::new("line").seed(1);
    let (x, y) = (g.input("x", F32, [8, 4]), g.input("y", F32, [8, 4]));
    let w = g.parameter("w", F32, [4, 4], Init::Uniform { low: -0.5, high: 0.5 });
    let b = g.parameter("b", F32, [4], Init::Constant(0.0));
    let error = x.matmul(w) + b - y;
    let loss = ((error * error).mean() * times).named("loss");
    g.program("train").precision(precision).outputs([loss]).update(adamw(AdamW::new(0.05)).minimize(loss));
    Trainer::new(&finished(&g), "train", &Bindings::new())
}
fn batch(step: usize) -> [(&'static str, Array); 2] {
    let x: Vec<f32> = (0..32).map(|i| ((step * 32 + i) as f32 * 0.7).sin()).collect();
    let y: Vec<f32> = x.iter().map(|x| 2.0 * x + 0.5).collect();
    [("x", Array::from_slice(&[8, 4], &x)), ("y", Array::from_slice(&[8, 4], &y))]
}
fn broken() -> [(&'static str, Array); 2] {
    let [(_, x), y] = batch(0);
    let mut x: Vec<f32> = x.as_slice::<f32>().to_vec();
    x[5] = f32::INFINITY;
    [("x", Array::from_slice(&[8, 4], &x)), y]
}
const LEARNED: [&str; 6] = ["w", "b", "adamw.m.w", "adamw.v.w", "adamw.m.b", "adamw.v.b"];
fn learned(trainer: &Trainer) -> Vec<Vec<f64>> {
    LEARNED.iter().map(|n| trainer.get(n)).collect()
}
fn scale(trainer: &Trainer) -> [f64; 3] {
    ["scale", "good", "skipped"].map(|n| trainer.get(&format!("adamw.loss_scale.{n}"))[0])
}

/// Gradients of this loss are some thousands: f16 cannot hold them times the first scale.
#[test]
fn a_loss_that_overflows_at_first_recovers_and_trains() {
    let mut trainer = line(Precision::Mixed(F16), 4000.0, |a| a.loss_scale(LossScale::dynamic()));
    let before = learned(&trainer);
    let mut losses = vec![];
    let mut skipped = 0.0;
    for step in 0..60 {
        losses.push(trainer.step(&batch(step))[0]);
        let now = scale(&trainer);
        if now[2] == step as f64 + 1.0 {
            assert_eq!(learned(&trainer), before, "a skipped update changes nothing");
            assert_eq!(now, [65536.0 / 2f64.powi(step as i32 + 1), 0.0, step as f64 + 1.0]);
            skipped = now[2];
        }
    }
    let [last, good, all] = scale(&trainer);
    println!("{skipped} updates skipped at first, {all} in all, scale {last} after {good} good ones");
    assert!(skipped >= 2.0, "the overflow happened");
    assert!(all < 20.0 && losses[59] < 0.1 * losses[0] && losses.iter().all(|l| l.is_finite()), "{losses:?}");
}

#[test]
fn a_scale_doubles_after_so_many_good_updates() {
    let mut trainer = line(Precision::Declared, 1.0, |a| a.loss_scale(LossScale::dynamic().initial(8.0).grow_after(3)));
    let scales: Vec<[f64; 3]> = (0..4).map(|step| (drop(trainer.step(&batch(step))), scale(&trainer)).1).collect();
    assert_eq!(scales, [[8.0, 1.0, 0.0], [8.0, 2.0, 0.0], [16.0, 0.0, 0.0], [16.0, 1.0, 0.0]]);
    trainer.step(&broken());
    assert_eq!(scale(&trainer), [8.0, 0.0, 1.0]);
}

/// With powers of two all the way, f32 gives the same bits.
#[test]
fn a_scale_changes_no_bit_of_f32() {
    let mut plain = line(Precision::Declared, 1.0, |a| a);
    let mut scaled = line(Precision::Declared, 1.0, |a| a.loss_scale(LossScale::constant(1024.0)));
    for step in 0..5 {
        plain.step(&batch(step));
        scaled.step(&batch(step));
    }
    assert_eq!(learned(&plain), learned(&scaled));
}

/// A run with updates that are skipped ends as if their batches had never been, schedule, clipping and accumulation
/// included.
#[test]
fn a_skipped_update_leaves_no_trace() {
    let rules: [fn(AdamW<'static>) -> AdamW<'static>; 2] = [
        |a| a.loss_scale(LossScale::constant(64.0)).clip_norm(0.1).schedule(Schedule::linear(20)),
        |a| a.loss_scale(LossScale::constant(64.0)).accumulate(2).schedule(Schedule::linear(20)),
    ];
    for (rule, group) in rules.into_iter().zip([1, 2]) {
        let (mut whole, mut disturbed) = (line(Precision::Declared, 1.0, rule), line(Precision::Declared, 1.0, rule));
        for step in 0..8 {
            if step == 2 || step == 6 {
                let before = learned(&disturbed);
                disturbed.step(&broken());
                (1..group).for_each(|_| drop(disturbed.step(&batch(0))));
                assert_eq!(learned(&disturbed), before);
            }
            whole.step(&batch(step));
            disturbed.step(&batch(step));
        }
        assert_eq!(scale(&disturbed)[2], 2.0, "they were skipped");
        assert_eq!(learned(&whole), learned(&disturbed));
    }
}

/// A tapped gradient is that of the loss, not of its multiple.
#[test]
fn tapped_gradients_are_not_scaled() {
    let tapped = |scale: Option<LossScale>| {
        let g = Graph::new("tapped");
        let x = g.input("x", F32, [8, 4]);
        let y = g.input("y", F32, [8, 4]);
        let w = g.parameter("w", F32, [4, 4], Init::Constant(0.25));
        let product = x.matmul(w);
        product.tap_grad("ct");
        let loss = (product * y).mean();
        let sgd = scale.map_or(Sgd::new(0.1), |s| Sgd::new(0.1).loss_scale(s));
        g.program("train").outputs([]).update(sgd.minimize(loss));
        Trainer::new(&finished(&g), "train", &Bindings::new()).outputs(&batch(1))
    };
    assert_eq!(tapped(Some(LossScale::constant(512.0))), tapped(None));
}

#[test]
fn embeddings_learn_in_halves() {
    let g = Graph::new("words").seed(2);
    let word = g.input("word", DType::I32, [6]);
    let x = g.scope("words", || Embedding::new(9, 8).call(word));
    let loss = cross_entropy(g.scope("head", || Linear::new(9).call(x)), word).mean().named("loss");
    g.program("train").precision(Precision::Mixed(BF16)).outputs([loss]).update(Sgd::new(1.0).minimize(loss));
    let mut trainer = Trainer::new(&finished(&g), "train", &Bindings::new());
    let words = Array::from_slice(&[6], &[0i32, 3, 3, 8, 1, 5]);
    let losses: Vec<f64> = (0..40).map(|_| trainer.step(&[("word", words.clone())])[0]).collect();
    assert!(losses[39] < 0.2 * losses[0], "{losses:?}");
}
