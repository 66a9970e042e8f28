//! Models on the machine's first adapter: what a user does, end to end. Skipped by name where there is no adapter, which
//! `THALWEG_REQUIRE=vulkan` makes a failure.

#![cfg(feature = "gpu")]

mod common;

use common::{assert_near, cpu, gpu};
use thalweg::graph::plan::Memory;
use thalweg::prelude::*;
use thalweg::runtime::{DeviceError, RunError, Session};

/// The line of `examples/line.rs`.
fn line() -> thalweg::graph::Graph {
    let g = Graph::new("line").seed(0);
    let n = g.dim("n", 1..=1024);
    let (x, y) = (g.input("x", F32, shape![n]), g.input("y", F32, shape![n]));
    let slope = g.parameter("slope", F32, (), Init::Constant(0.0));
    let offset = g.parameter("offset", F32, (), Init::Constant(0.0));
    let error = x * slope + offset - y;
    let loss = (error * error).mean().named("loss");
    g.program("train").outputs([loss]).update(Sgd::new(0.1).momentum(0.5).minimize(loss));
    g.finish().expect("no mistakes")
}

fn points(n: u64) -> [Array; 2] {
    let xs: Vec<f32> = (0..n).map(|i| 2.0 * i as f32 / n as f32 - 1.0).collect();
    let ys: Vec<f32> = xs.iter().enumerate().map(|(i, x)| 2.0 * x + 1.0 + 0.1 * (i as f32 * 1.7).sin()).collect();
    [xs, ys].map(|v| Array::from_slice(&[n], &v))
}

#[test]
fn a_line_is_learned_from_batches_of_any_size() {
    let Some(device) = gpu("a_line_is_learned_from_batches_of_any_size") else { return };
    let mut session = Session::new(line(), device).expect("it fits");
    let batches = [64, 48, 60, 5].map(points);
    for step in 0..400 {
        let [x, y] = &batches[step % 4];
        session.run("train", &[("x", x), ("y", y)]).expect("it runs");
    }
    let (slope, offset) = (session.get("slope").expect("there").item(), session.get("offset").expect("there").item());
    assert!((slope - 2.0).abs() < 0.05 && (offset - 1.0).abs() < 0.05, "y = {slope} x + {offset}");
}

/// Convolutions, pooling, dropout, cross entropy, AdamW with a schedule: a few steps of both devices side by side.
#[test]
fn a_network_learns_as_it_does_on_the_cpu() {
    let Some(device) = gpu("a_network_learns_as_it_does_on_the_cpu") else { return };
    let graph = || {
        let g = Graph::new("digits").seed(3);
        let batch = g.dim("batch", 1..=64);
        let (image, label) = (g.input("image", F32, shape![batch, 1, 8, 8]), g.input("label", I32, shape![batch]));
        let body = Sequential::new("body").push("conv", Conv2d::new(6, 3).pad(1)).relu().max_pool(2).flatten();
        let logits = body.dropout(0.2).push("head", Linear::new(10)).call(image);
        let loss = cross_entropy(logits, label).mean().named("loss");
        let rate = Schedule::cosine(50).warmup(3);
        g.program("train").outputs([loss]).update(AdamW::new(1e-2).schedule(rate).minimize(loss));
        g.finish().expect("no mistakes")
    };
    let (data, _) = thalweg::data::digits().expect("they are here");
    let [mut on_gpu, mut on_cpu] = [device, cpu(1)].map(|d| Session::new(graph(), d).expect("it fits"));
    for batch in data.shuffle(1).batch(32).epochs(1).into_iter().take(8) {
        let batch = batch.expect("it reads");
        let [a, b] = [&mut on_gpu, &mut on_cpu].map(|s| s.run("train", &batch.feeds()).expect("it runs").item("loss"));
        // Eight steps of another order of summation, and Adam's quotients of small numbers.
        assert!((a - b).abs() < 2e-3 * b, "{a} on the GPU, {b} on the CPU");
    }
    let names: Vec<String> = on_cpu.graph().state.values().iter().map(|v| v.name.to_string()).collect();
    for name in names {
        let [a, b] = [&mut on_gpu, &mut on_cpu].map(|s| s.get(&name).expect("there").to_f64());
        assert_near(&name, &a, &b, 2e-2, 0.01);
    }
}

#[test]
fn the_same_steps_give_the_same_bits() {
    let digest = || {
        let device = gpu("the_same_steps_give_the_same_bits")?;
        let mut session = Session::new(line(), device).expect("it fits");
        let [x, y] = points(300);
        for _ in 0..5 {
            session.run("train", &[("x", &x), ("y", &y)]).expect("it runs");
        }
        Some(session.digest().expect("it reads"))
    };
    assert_eq!(digest(), digest());
}

#[test]
fn a_model_in_f64_is_refused_at_the_users_line() {
    let Some(device) = gpu("a_model_in_f64_is_refused_at_the_users_line") else { return };
    let g = Graph::new("double");
    let x = g.input("x", F64, [3]);
    let line = line!() + 1;
    g.program("run").outputs([x.exp().named("y")]);
    let mut session = Session::new(g.finish().expect("no mistakes"), device).expect("it fits");
    let fed = Array::from_slice(&[3], &[1.0f64, 2.0, 3.0]);
    let error = session.run("run", &[("x", &fed)]).expect_err("f64");
    let said = error.to_string();
    assert!(said.contains("f64") && said.contains("exp") && said.contains(&format!("tests/gpu.rs:{line}")), "{said}");
}

#[test]
fn an_aborted_step_leaves_the_variables() {
    let Some(device) = gpu("an_aborted_step_leaves_the_variables") else { return };
    let mut session = Session::new(line(), device).expect("it fits");
    let [x, y] = points(10);
    session.run("train", &[("x", &x), ("y", &y)]).expect("it runs");
    let before = session.digest().expect("it reads");
    session.abort_flag().raise();
    let error = session.run("train", &[("x", &x), ("y", &y)]).expect_err("aborted");
    assert_eq!(error, RunError::Device(DeviceError::Aborted));
    assert_eq!(session.digest().expect("it reads"), before);
}

#[test]
fn arenas_hold_what_the_plan_says() {
    let Some(device) = gpu("arenas_hold_what_the_plan_says") else { return };
    let mut session = Session::new(line(), device).expect("it fits");
    let [x, y] = points(700);
    session.run("train", &[("x", &x), ("y", &y)]).expect("it runs");
    let plan = session.plan("train", &[("n".into(), 700)].into_iter().collect()).expect("made");
    for memory in Memory::ALL {
        let planned = plan.devices[0].bytes(memory).max(256).next_multiple_of(256);
        assert_eq!(session.device().reserved(memory), planned, "{}", memory.name());
    }
}
