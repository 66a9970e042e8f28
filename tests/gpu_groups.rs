//! Groups of nests on the GPU: what hands rows to each other is one launch and one dispatch, through workgroup memory, and
//! means what it meant. A softmax, a norm, a cross entropy, rows short and long, more rows than a block, halves.

#![cfg(feature = "gpu")]

mod common;

use common::{assert_near, borrowed, by_interpreter, gpu, named_results};
use thalweg::DType;
use thalweg::gpu::{GpuDevice, Limits};
use thalweg::graph::kernel::Kernel;
use thalweg::graph::kernel::interpret::Precision;
use thalweg::graph::passes::{STANDARD, run_passes};
use thalweg::ops::nn::layer_norm::LayerNorm;
use thalweg::prelude::*;
use thalweg::runtime::Session;

/// What is declared over `x: [rows, width]` and labels.
fn declare(name: &str, dtype: DType, rows: u64, width: u64) -> thalweg::graph::Graph {
    let g = Graph::new("rows");
    let x = g.input("x", F32, [rows, width]).cast(dtype);
    let y = match name {
        "softmax" => x.softmax(-1),
        "log_softmax" => x.log_softmax(-1),
        "layer_norm" => {
            let (scale, offset) =
                (g.input("scale", F32, [width]).cast(dtype), g.input("offset", F32, [width]).cast(dtype));
            x.apply(LayerNorm::default(), [scale, offset])
        }
        _ => cross_entropy(x, g.input("label", I32, [rows])),
    };
    g.program("run").outputs([y.named("y")]);
    g.finish().expect("no mistakes")
}

fn feeds(rows: u64, width: u64, name: &str) -> Vec<(String, Array)> {
    let floats = |n: u64, seed: u64| -> Vec<f32> {
        (0..n).map(|i| ((i * 2_654_435_761 + seed) % 1009) as f32 / 168.0 - 3.0).collect()
    };
    let array = |shape: &[u64], seed| Array::from_slice(shape, &floats(shape.iter().product(), seed));
    let mut all = vec![("x".to_string(), array(&[rows, width], 1))];
    if name == "layer_norm" {
        all.push(("scale".into(), array(&[width], 2)));
        all.push(("offset".into(), array(&[width], 3)));
    }
    if name == "cross_entropy" {
        let labels: Vec<i32> = (0..rows).map(|i| (i * 7 % width) as i32).collect();
        all.push(("label".into(), Array::from_slice(&[rows], &labels)));
    }
    all
}

#[test]
fn rows_are_one_launch_and_one_dispatch() {
    if gpu("rows_are_one_launch_and_one_dispatch").is_none() {
        return;
    }
    for name in ["softmax", "log_softmax", "layer_norm", "cross_entropy"] {
        for (dtype, rows, width) in
            [(F32, 70, 10), (F32, 33, 100), (F32, 40, 700), (F32, 1, 64), (F32, 300, 3), (F16, 20, 130), (BF16, 50, 31)]
        {
            let what = format!("{name} of {rows} × {width} in {dtype}");
            let (graph, feeds) = (declare(name, dtype, rows, width), feeds(rows, width, name));
            let primitive = run_passes(&graph, STANDARD, &mut |_, _| {});
            let want = named_results(&by_interpreter(&primitive, &Default::default(), &feeds, Precision::Exact));
            let tolerance = if dtype == F32 { 1e-5 } else { 4e-2 };
            // And a part of the rows at a time.
            let lower = Limits { binding_bytes: Some(4096), bindings: Some(12), ..Limits::default() };
            for (how, device) in [
                ("whole", GpuDevice::new("gpu:0", 0)),
                ("in small windows", GpuDevice::with_limits("gpu:0", 0, &lower)),
            ] {
                let mut session = Session::new(graph.clone(), Box::new(device.expect("it opens"))).expect("it fits");
                let got = session.run("run", &borrowed(&feeds)).unwrap_or_else(|e| panic!("{what} {how}: {e}"));
                let want = &want["output y"];
                let have = got.get("y").expect("it is one");
                assert_near(&format!("{what} {how}"), &have.to_f64(), &want.to_f64(), tolerance, 1.0);
                let plan = session.plan("run", &Default::default()).expect("a plan");
                // What is made half as wide is not of the norm.
                let launches = plan.devices[0].launches().map(|(_, l)| l.label.to_string());
                let launches: Vec<_> = launches.filter(|l| l != "cast").collect();
                assert_eq!(launches.len(), 1, "{what}: {launches:?}");
                for kernel in plan.kernels.values().iter().filter(|k| matches!(k, Kernel::Group(_))) {
                    let shaders = thalweg::gpu::shaders(kernel).expect("it is one");
                    assert_eq!(shaders.len(), 1, "{what}");
                }
            }
        }
    }
}
