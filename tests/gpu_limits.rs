//! Every op on an adapter that is smaller than any there is: four bindings of 4 KiB. What an op needs of memory decides
//! whether it runs, never how much of it a shader sees at once.

#![cfg(feature = "gpu")]

mod common;

use common::{assert_near, borrowed, by_interpreter, gpu, magnitude, named_results, needs_f64, try_by_plan};
use thalweg::DType;
use thalweg::gpu::{GpuDevice, Limits};
use thalweg::graph::kernel::interpret::Precision;
use thalweg::graph::passes::{STANDARD, run_passes};
use thalweg::graph::{Builder, Site, TensorType};
use thalweg::ops::OPS;
use thalweg::ops::sample::in_half;
use thalweg::prelude::*;
use thalweg::runtime::Session;

fn small(binding_bytes: u64, bindings: u32) -> Box<GpuDevice> {
    let lower = Limits { binding_bytes: Some(binding_bytes), bindings: Some(bindings), ..Limits::default() };
    Box::new(GpuDevice::with_limits("gpu:0", 0, &lower).expect("it opens"))
}

/// Of what these read, a single point or query reads more than four windows show.
const WIDE: [&str; 3] = ["matmul sample 8", "attention sample 9", "attention_grad sample 5"];

/// Alone, and beside another tensor, which makes the arena larger than a window.
#[test]
fn every_sample_of_every_op_runs_on_the_smallest_adapter() {
    if gpu("every_sample_of_every_op_runs_on_the_smallest_adapter").is_none() {
        return;
    }
    let mut cases = 0;
    for row in OPS {
        for (k, sample) in (row.samples)().iter().enumerate() {
            for (half, beside) in [(None, 0), (None, 3000), (Some(DType::F16), 3000)] {
                let Some(sample) = half.map_or(Some(sample.clone()), |half| in_half(sample, half)) else { continue };
                let name = format!("{} sample {k}", row.schema.name);
                let what = format!("{name} in {half:?} beside {beside}");
                let types: Vec<TensorType> = sample.operands.iter().map(|(t, _)| t.clone()).collect();
                let builder = Builder::new("one_op");
                let input = |i: usize, t: &TensorType| builder.input(&format!("x{i}"), t.clone(), Site::default());
                let inputs: Vec<_> = types.iter().enumerate().map(|(i, t)| input(i, t)).collect();
                let mut outputs: Vec<_> = builder
                    .apply(sample.op.clone(), &inputs, Site::default())
                    .into_iter()
                    .enumerate()
                    .map(|(i, v)| (format!("y{i}").into(), v))
                    .collect();
                let aside = builder.input("aside", DType::F32.of([beside.max(1)]), Site::default());
                outputs.push(("aside".into(), aside));
                builder.program("run", outputs, vec![], Site::default());
                let Ok(graph) = builder.finish() else { continue };
                let data = sample.operands.iter().zip(&types).enumerate();
                let mut feeds: Vec<_> =
                    data.map(|(i, ((_, d), t))| (format!("x{i}"), d.make(t, 11 + i as u64))).collect();
                feeds.push(("aside".into(), Array::from_slice(&[beside.max(1)], &vec![1f32; beside.max(1) as usize])));
                let mut bindings = 4;
                if WIDE.contains(&&*name) {
                    let error = try_by_plan(&graph, small(4096, 4), &feeds).expect_err("it does not fit").to_string();
                    assert!(error.contains("windows of 4096 bytes") && error.contains("have 4"), "{what}: {error}");
                    bindings = 16;
                }
                let got = match try_by_plan(&graph, small(4096, bindings), &feeds) {
                    Err(e) if needs_f64(&graph) => {
                        assert!(e.to_string().contains("f64"), "{what}: {e}");
                        continue;
                    }
                    got => got.unwrap_or_else(|e| panic!("{what}: {e}")),
                };
                let primitive = run_passes(&graph, STANDARD, &mut |_, _| {});
                let want = named_results(&by_interpreter(&primitive, &Default::default(), &feeds, Precision::Exact));
                let entering = magnitude(feeds.iter().flat_map(|(_, a)| a.to_f64()));
                let allowed = if half.is_some() { 4e-2 } else { 1e-4 };
                for (name, want) in &want {
                    assert_near(&format!("{what}, {name}"), &got[name].to_f64(), &want.to_f64(), allowed, entering);
                }
                cases += 1;
            }
        }
    }
    println!("{cases} cases of {} ops", OPS.len());
    assert!(cases > 5 * OPS.len(), "{cases}");
}

/// A concatenation of thirty tensors, and a sum of thirty: more than a launch may name.
#[test]
fn launches_of_many_tensors_become_several() {
    if gpu("launches_of_many_tensors_become_several").is_none() {
        return;
    }
    let declare = || {
        let g = Graph::new("many");
        let parts: Vec<_> = (0..30).map(|i| g.input(&format!("x{i}"), F32, [7, 40 + i])).collect();
        let all = thalweg::ops::layout::concat(&parts, 1).named("all");
        let sum = parts.iter().skip(1).fold(parts[0].sum(), |s, p| s + p.tanh().sum()).named("sum");
        g.program("run").outputs([all, sum]);
        g.finish().expect("no mistakes")
    };
    let arrays: Vec<(String, Array)> = (0..30u64)
        .map(|i| {
            let values: Vec<f32> = (0..7 * (40 + i)).map(|k| (k * 31 + i * 7) as f32 % 17.0 / 8.0 - 1.0).collect();
            (format!("x{i}"), Array::from_slice(&[7, 40 + i], &values))
        })
        .collect();
    let mut on_the_cpu = Session::new(declare(), common::cpu(1)).expect("it fits");
    let want = on_the_cpu.run("run", &borrowed(&arrays)).expect("it runs");
    for (bytes, bindings) in [(4096, 4), (2048, 8), (1 << 20, 8)] {
        let mut session = Session::new(declare(), small(bytes, bindings)).expect("it fits");
        let got = session.run("run", &borrowed(&arrays)).unwrap_or_else(|e| panic!("{bytes}, {bindings}: {e}"));
        assert_eq!(
            got.get("all").expect("it is one").bytes(),
            want.get("all").expect("it is one").bytes(),
            "{bytes}, {bindings}"
        );
        assert_near(
            "sum",
            &got.get("sum").expect("it is one").to_f64(),
            &want.get("sum").expect("it is one").to_f64(),
            1e-5,
            30.0,
        );
        let plan = session.plan("run", &Default::default()).expect("a plan");
        let most = plan.kernels.values().iter().map(|k| k.operands().len() + k.results().len()).max();
        assert!(most.is_some_and(|n| n <= bindings as usize), "{most:?} buffers, {bindings} bindings");
    }
}

/// AdamW over a network, whose parameters and slots are larger than a window: the same steps as without limits.
#[test]
fn a_network_trains_on_the_smallest_adapter() {
    let Some(device) = gpu("a_network_trains_on_the_smallest_adapter") else { return };
    let declare = || {
        let g = Graph::new("small").seed(1);
        let (x, label) = (g.input("x", F32, [20, 30]), g.input("label", I32, [20]));
        let body = Sequential::new("body").push("a", Linear::new(50)).relu().push("b", Linear::new(10));
        let loss = cross_entropy(body.call(x), label).mean().named("loss");
        g.program("train").outputs([loss]).update(AdamW::new(1e-2).minimize(loss));
        g.finish().expect("no mistakes")
    };
    let x: Vec<f32> = (0..600).map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0).collect();
    let labels: Vec<i32> = (0..20).map(|i| i * 7 % 10).collect();
    let feeds = [("x", &Array::from_slice(&[20, 30], &x)), ("label", &Array::from_slice(&[20], &labels))];
    let mut losses = [device, small(4096, 8), small(4096, 5)].map(|device| {
        let mut session = Session::new(declare(), device).expect("it fits");
        (0..6)
            .map(|_| session.run("train", &feeds).expect("it runs").get("loss").expect("it is one").item())
            .collect::<Vec<f64>>()
    });
    println!("{losses:?}");
    let want = std::mem::take(&mut losses[0]);
    assert!(want[5] < want[0]);
    for have in &losses[1..] {
        assert_near("loss", have, &want, 1e-4, 1.0);
    }
}
