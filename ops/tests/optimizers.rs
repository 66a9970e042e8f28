//! Schedules, clipping and accumulation against the numbers that their formulas give.

mod common;

use common::Trainer;
use thalweg_graph::{Array, Bindings, DType, Init};
use thalweg_ops::nn::{Embedding, Layer, TransformerBlock};
use thalweg_ops::optim::{AdamW, Schedule, Sgd};
use thalweg_ops::{Graph, Tensor, Update};

const F32: DType = DType::F32;

/// Learns w and v from x: mean((w·x + v − 1)²).
fn two(update: impl for<'g> Fn(Tensor<'g>) -> Update) -> Trainer {
    let g = Graph::new("two");
    let x = g.input("x", F32, [4, 2]);
    let w = g.parameter("w", F32, [2], Init::Constant(0.5));
    let error = x * w + g.parameter("v", F32, (), Init::Constant(2.0)) - 1.0;
    let loss = (error * error).mean().named("loss");
    g.program("train").outputs([loss]).update(update(loss));
    trainer(&g)
}

fn trainer(g: &Graph) -> Trainer {
    Trainer::new(&g.finish().unwrap_or_else(|m| panic!("{}", m[0])), "train", &Bindings::new())
}

fn rows(from: usize) -> Array {
    let data: Vec<f32> = (0..8).map(|i| ((from * 8 + i) as f32 * 0.7).sin()).collect();
    Array::from_slice(&[4, 2], &data)
}

#[track_caller]
fn close(have: &[f64], want: &[f64], within: f64) {
    let near = |(a, b): (&f64, &f64)| (a - b).abs() <= within * b.abs().max(1e-3);
    assert!(have.len() == want.len() && have.iter().zip(want).all(near), "{have:?} is not {want:?}");
}

/// The factor of every update, read off what one parameter with a gradient of 1 loses.
#[track_caller]
fn factors(schedule: Schedule, want: &[f64]) {
    let g = Graph::new("one");
    let w = g.parameter("w", F32, (), Init::Constant(0.0));
    let loss = (w * 1.0).named("loss");
    g.program("train").outputs([loss]).update(Sgd::new(1.0).schedule(schedule).minimize(loss));
    let mut trainer = trainer(&g);
    let mut have = vec![];
    for _ in want {
        let before = trainer.get("w")[0];
        trainer.step(&[]);
        have.push(before - trainer.get("w")[0]);
    }
    close(&have, want, 1e-5);
}

#[test]
fn schedules_follow_their_formulas() {
    factors(Schedule::constant().warmup(4), &[0.25, 0.5, 0.75, 1.0, 1.0, 1.0]);
    factors(Schedule::linear(4), &[1.0, 0.75, 0.5, 0.25, 0.0, 0.0]);
    factors(Schedule::linear(2).warmup(2).floor(0.2), &[0.5, 1.0, 1.0, 0.6, 0.2, 0.2]);
    let half = |x: f64| 0.1 + 0.9 * (0.5 + 0.5 * (std::f64::consts::PI * x).cos());
    factors(Schedule::cosine(4).floor(0.1), &[1.0, half(0.25), half(0.5), half(0.75), 0.1, 0.1]);
    factors(Schedule::steps(2, 0.5).floor(0.2), &[1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.2]);
}

#[test]
fn clipping_scales_all_gradients_to_the_common_norm() {
    let gradient = |clip: Option<f64>| {
        let mut trainer = two(|loss| {
            let sgd = Sgd::new(1.0);
            clip.map_or(sgd.clone(), |norm| sgd.clip_norm(norm)).minimize(loss)
        });
        let before: Vec<f64> = ["w", "v"].iter().flat_map(|n| trainer.get(n)).collect();
        trainer.step(&[("x", rows(0))]);
        let after: Vec<f64> = ["w", "v"].iter().flat_map(|n| trainer.get(n)).collect();
        before.iter().zip(&after).map(|(a, b)| a - b).collect::<Vec<_>>()
    };
    let whole = gradient(None);
    let norm = whole.iter().map(|g| g * g).sum::<f64>().sqrt();
    assert!(norm > 0.5, "the case must be clipped: {norm}");
    close(&gradient(Some(0.5)), &whole.iter().map(|g| g * 0.5 / norm).collect::<Vec<_>>(), 1e-4);
    close(&gradient(Some(1e3)), &whole, 1e-5);
}

/// Four microbatches of one row each are one batch of four; and nothing moves before the last.
#[test]
fn microbatches_accumulate_to_one_batch() {
    let build = |rows: u64, update: &dyn for<'g> Fn(Tensor<'g>) -> Update| {
        let g = Graph::new("two");
        let x = g.input("x", F32, [rows, 2]);
        let w = g.parameter("w", F32, [2], Init::Constant(0.5));
        let error = x * w - 1.0;
        let loss = (error * error).mean().named("loss");
        g.program("train").outputs([loss]).update(update(loss));
        trainer(&g)
    };
    let rule = || AdamW::new(0.1).schedule(Schedule::linear(5)).clip_norm(0.3);
    let mut whole = build(4, &|loss| rule().minimize(loss));
    let mut parts = build(1, &|loss| rule().accumulate(4).minimize(loss));
    for step in 0..3 {
        let batch = rows(step);
        whole.step(&[("x", batch.clone())]);
        for row in 0..4 {
            let before = parts.get("w");
            let values: Vec<f32> = (0..2).map(|i| batch.as_slice::<f32>()[2 * row + i]).collect();
            parts.step(&[("x", Array::from_slice(&[1, 2], &values))]);
            assert_eq!(parts.get("w") == before, row < 3, "only the last of four microbatches updates");
        }
        for name in ["w", "adamw.m.w", "adamw.v.w"] {
            close(&parts.get(name), &whole.get(name), 1e-4);
        }
        close(&parts.get("adamw.accumulated.w"), &[0.0, 0.0], 0.0);
    }
    assert_eq!((whole.get("step"), parts.get("step")), (vec![3.0], vec![12.0]));
}

#[test]
fn a_transformer_block_has_the_parameters_one_expects() {
    let g = Graph::new("block");
    let token = g.input("token", DType::I32, [2, 5]);
    let x = g.scope("embed", || Embedding::new(7, 6).call(token));
    let y = g.scope("h0", || TransformerBlock::new(2).causal().wider(3).dropout(0.1).call(x));
    assert_eq!(y.ty(), x.ty());
    let loss = (y * y).mean().named("loss");
    g.program("train").outputs([loss]).update(AdamW::new(1e-2).minimize(loss));
    let graph = g.finish().expect("no mistakes");
    let shape = |name: &str| graph.state[graph.variable(name).unwrap_or_else(|| panic!("no {name}"))].ty.to_string();
    assert_eq!(shape("h0.attn.qkv.weight"), "f32[18, 6]");
    assert_eq!(shape("h0.fc1.weight"), "f32[18, 6]");
    assert_eq!(shape("h0.fc2.weight"), "f32[6, 18]");
    assert_eq!(shape("h0.ln2.bias"), "f32[6]");
    let mut trainer = Trainer::new(&graph, "train", &Bindings::new());
    let tokens = Array::from_slice(&[2, 5], &[0i32, 1, 2, 3, 4, 5, 6, 0, 1, 2]);
    let before = trainer.get("h0.fc1.weight");
    trainer.step(&[("token", tokens)]);
    assert_ne!(trainer.get("h0.fc1.weight"), before);
    assert!(trainer.graph.state.len() > 20);
}
