//! Conformance of devices: every op, every sample and random shapes, through declaration, plan and device, against the
//! interpreter in both precisions. The table of ops drives it; a new op is tested by being in it.

mod common;

use std::sync::Arc;

use common::{Feeds, assert_near, by_interpreter, by_plan_of, devices, magnitude, named_results};
use thalweg::graph::kernel::interpret::Precision;
use thalweg::graph::op::{Accuracy, DynOp};
use thalweg::graph::passes::{STANDARD, run_passes};
use thalweg::graph::{Array, Builder, DType, Graph, Site, TensorType};
use thalweg::ops::OPS;
use thalweg::ops::sample::{DynSample, in_half};

/// A graph of one program that applies `op` to inputs of these types.
fn graph_of(op: &Arc<dyn DynOp>, operands: &[TensorType]) -> Result<Graph, String> {
    let builder = Builder::new("one_op");
    let inputs: Vec<_> =
        operands.iter().enumerate().map(|(i, t)| builder.input(&format!("x{i}"), t.clone(), Site::default())).collect();
    let results = builder.apply(op.clone(), &inputs, Site::default());
    let outputs = results.iter().enumerate().map(|(i, v)| (format!("y{i}").into(), *v)).collect();
    builder.program("run", outputs, vec![], Site::default());
    builder.finish().map_err(|mistakes| mistakes[0].to_string())
}

/// The largest error allowed, relative to the largest magnitude: ulps of the op's arithmetic type, and of the fold.
fn tolerance(accuracy: Accuracy, graph: &Graph, ulp: f64) -> f64 {
    let folded = graph.nodes.values().iter().flat_map(|n| &n.types).filter_map(|t| t.size_bytes()).max().unwrap_or(1);
    match accuracy {
        Accuracy::Exact => 0.0,
        Accuracy::Ulps(n) => f64::from(n) * ulp * (folded as f64).sqrt().max(4.0),
    }
}

/// The distance from 1 to the next number of the narrowest float type among `types`.
fn ulp(types: &[TensorType]) -> f64 {
    let of = |t: &TensorType| match t.dtype {
        DType::F16 => 1.0 / 1024.0,
        DType::BF16 => 1.0 / 128.0,
        _ => f64::from(f32::EPSILON),
    };
    types.iter().map(of).fold(f64::from(f32::EPSILON), f64::max)
}

fn check(what: &str, op: &Arc<dyn DynOp>, types: &[TensorType], feeds: &Feeds) {
    let graph = graph_of(op, types).unwrap_or_else(|e| panic!("{what}: {e}"));
    let primitive = run_passes(&graph, STANDARD, &mut |_, _| {});
    let none = Default::default();
    let exact = named_results(&by_interpreter(&primitive, &none, feeds, Precision::Exact));
    let reference = by_interpreter(&primitive, &none, feeds, Precision::Reference);
    let ulp = ulp(types);
    let allowed = tolerance(op.schema().accuracy, &primitive, ulp);
    let entering = magnitude(feeds.iter().flat_map(|(_, a)| a.to_f64()));
    for (device_name, device) in devices() {
        let Some(got) = by_plan_of(device_name, &graph, device, feeds) else { continue };
        for (k, (name, want)) in exact.iter().enumerate() {
            let what = format!("{what} on {device_name}, {name}");
            if device_name == "reference" {
                assert_eq!(got[name].bytes(), want.bytes(), "{what}: the plan's bits are the interpreter's");
                continue;
            }
            assert_near(&what, &got[name].to_f64(), &want.to_f64(), allowed, entering);
            let precise: Vec<f64> = reference.outputs[k].1.data.iter().map(|x| x.f64()).collect();
            let rounding = allowed.max(8.0 * ulp);
            let float = want.dtype().is_float();
            if float {
                assert_near(&format!("{what} against f64"), &got[name].to_f64(), &precise, rounding, entering);
            }
        }
    }
}

fn feeds_of(sample: &DynSample, types: &[TensorType], seed: u64) -> Feeds {
    let data = sample.operands.iter().zip(types).enumerate();
    data.map(|(i, ((_, d), t))| (format!("x{i}"), d.make(t, seed + 97 * i as u64))).collect()
}

#[test]
fn every_sample_of_every_op_agrees_with_the_interpreter_on_every_device() {
    let mut cases = 0;
    for row in OPS {
        for (k, sample) in (row.samples)().iter().enumerate() {
            let types: Vec<TensorType> = sample.operands.iter().map(|(t, _)| t.clone()).collect();
            check(&format!("{} sample {k}", row.schema.name), &sample.op, &types, &feeds_of(sample, &types, k as u64));
            cases += 1;
        }
    }
    println!("{cases} samples of {} ops", OPS.len());
    assert!(cases > 3 * OPS.len(), "every op has samples");
}

/// The same in f16 and bf16, wherever the op takes them.
#[test]
fn every_sample_in_halves_agrees_with_the_interpreter_on_every_device() {
    let mut cases = 0;
    for half in [DType::F16, DType::BF16] {
        for row in OPS {
            for (k, sample) in (row.samples)().iter().enumerate() {
                let Some(sample) = in_half(sample, half) else { continue };
                let types: Vec<TensorType> = sample.operands.iter().map(|(t, _)| t.clone()).collect();
                let what = format!("{} sample {k} in {half}", row.schema.name);
                check(&what, &sample.op, &types, &feeds_of(&sample, &types, k as u64));
                cases += 1;
            }
        }
    }
    println!("{cases} samples");
    assert!(cases > 300, "most samples take halves: {cases}");
}

/// Samples with every extent changed at random, where the op takes that; empty and single extents among them.
#[test]
fn random_shapes_agree_with_the_interpreter() {
    let (mut tried, mut ran) = (0u64, 0);
    for row in OPS {
        for (k, sample) in (row.samples)().iter().enumerate() {
            for round in 0..6u64 {
                tried += 1;
                // One permutation of extents for all operands keeps equal extents equal.
                let pick =
                    |n: u64| thalweg::data::permutation(&format!("{}/{k}/{round}/{n}", row.schema.name), 19)[0] as u64;
                let given = sample.operands.iter().any(|(_, d)| matches!(d, thalweg::ops::sample::Data::Given(_)));
                let change = |t: &TensorType| {
                    t.dtype.of(&t.shape.fixed().expect("numbers").iter().map(|n| pick(*n)).collect::<Vec<u64>>()[..])
                };
                let types: Vec<TensorType> = sample.operands.iter().map(|(t, _)| change(t)).collect();
                if given || graph_of(&sample.op, &types).is_err() {
                    continue;
                }
                check(
                    &format!("{} sample {k} as {types:?}", row.schema.name),
                    &sample.op,
                    &types,
                    &feeds_of(sample, &types, round),
                );
                ran += 1;
            }
        }
    }
    println!("{ran} of {tried} random shapes fit their op");
    assert!(ran > 100);
}

/// Special values through every op that takes one float tensor: ties, NaN, infinities, signed zeros.
#[test]
fn ties_nan_and_infinities_agree_with_the_interpreter() {
    let odd = [1.0f32, 1.0, f32::NAN, -1.0, f32::INFINITY, 0.0, -0.0, f32::NEG_INFINITY, 2.0, 2.0, f32::NAN, 1e-40];
    for row in OPS {
        for (k, sample) in (row.samples)().iter().enumerate() {
            let types: Vec<TensorType> = sample.operands.iter().map(|(t, _)| t.clone()).collect();
            let mut feeds = feeds_of(sample, &types, 3);
            for (n, (_, array)) in feeds.iter_mut().enumerate() {
                if array.dtype() == DType::F32 {
                    let values: Vec<f32> = (0..array.len()).map(|i| odd[(i * 7 + n + k) % odd.len()]).collect();
                    *array = Array::from_slice(array.shape(), &values);
                }
            }
            check_special(&format!("{} sample {k}", row.schema.name), &sample.op, &types, &feeds);
        }
    }
}

/// As `check`, but only where each side is finite or not has to agree: how an infinity and its opposite cancel in a sum
/// depends on the order, a NaN does not.
fn check_special(what: &str, op: &Arc<dyn DynOp>, types: &[TensorType], feeds: &Feeds) {
    let graph = graph_of(op, types).unwrap_or_else(|e| panic!("{what}: {e}"));
    let primitive = run_passes(&graph, STANDARD, &mut |_, _| {});
    let exact = named_results(&by_interpreter(&primitive, &Default::default(), feeds, Precision::Exact));
    for (device_name, device) in devices().into_iter().skip(1) {
        let Some(got) = by_plan_of(device_name, &graph, device, feeds) else { continue };
        for (name, want) in &exact {
            let what = format!("{what} on {device_name}, {name}");
            assert_near(
                &what,
                &got[name].to_f64(),
                &want.to_f64(),
                tolerance(op.schema().accuracy, &primitive, ulp(types)).max(1e-6),
                2.0,
            );
        }
    }
}
