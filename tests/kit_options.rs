//! What cases of the kit may be asked to do otherwise, and those whose data stay on the device: what they compute, since no
//! references are in a file. Those of the GPT of 124 M parameters come from PyTorch in f64 (`benches/gpu_torch.py`): of a
//! small one they are here, of the whole one they are computed where there is a PyTorch.

use std::process::Command;

use thalweg::Cluster;
use thalweg::kit::{Case, Options, Reference, rel_err};
use thalweg::prelude::*;

fn open(name: &str, options: &Options) -> Case {
    Case::open_with(name, &Cluster::cpu(2), None, options).expect("it compiles").expect("there is such a case")
}

/// The relative error of so many losses.
fn error_of(case: &mut Case, reference: &Reference) -> f64 {
    let Reference::Losses { losses, .. } = reference else { panic!("losses are wanted") };
    let results: Vec<Array> = (0..losses.len()).map(|i| case.result(i).expect("it runs")).collect();
    rel_err(&results, reference)
}

#[test]
fn products_that_stay_on_the_device_are_products_in_their_type() {
    let n = 96;
    for (dtype, within) in [(F32, 1e-6), (F16, 1e-3), (BF16, 8e-3)] {
        let mut case = open(&format!("matmul_{n}_{}", dtype.name()), &Options::default());
        case.step(0).expect("it runs");
        let [a, b, out] = ["a", "b", "out"].map(|v| case.model().get(v).expect("a variable"));
        assert_eq!([a.dtype(), b.dtype(), out.dtype()], [dtype; 3]);
        let [a, b, out] = [a, b, out].map(|v| v.to_f64());
        assert!(a.iter().any(|x| *x > 0.5) && a != b, "operands are drawn");
        for i in 0..n * n {
            let products = (0..n).map(|k| a[i / n * n + k] * b[k * n + i % n]);
            let (want, scale) = products.fold((0.0, 0.0), |(s, m), p| (s + p, m + f64::abs(p)));
            assert!((out[i] - want).abs() <= within * scale, "{dtype:?}: {} for {want} at {i}", out[i]);
        }
    }
}

#[test]
fn memory_bound_nests_compute_what_their_names_say() {
    let values = |m: f32| (0..256 * 1024).map(|i| (i % 251) as f32 * m - 1.0).collect::<Vec<_>>();
    let (a, b) = (values(0.25), values(0.5));
    let mut case = open("add_1", &Options::default());
    for (name, values) in [("a", &a), ("b", &b)] {
        case.model().set(name, &Array::from_slice(&[256, 1024], values)).expect("a variable");
    }
    case.step(0).expect("it runs");
    let sums: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
    assert_eq!(case.model().get("out").expect("a variable").as_slice::<f32>(), sums);

    let mut case = open("row_sum_1", &Options::default());
    case.model().set("a", &Array::from_slice(&[256, 1024], &a)).expect("a variable");
    case.step(0).expect("it runs");
    // Quarters: exact in any order.
    let sums: Vec<f32> = a.chunks(1024).map(|row| row.iter().sum()).collect();
    assert_eq!(case.model().get("out").expect("a variable").as_slice::<f32>(), sums);
}

/// What makes it a measurement: one launch does the work, and nothing is fed.
#[test]
fn a_case_on_the_device_is_one_launch_and_a_counter() {
    for name in ["matmul_64_f16", "add_1", "row_sum_1"] {
        let mut case = open(name, &Options::default());
        let graph = case.model().graph();
        assert_eq!(graph.inputs_of(&graph.programs[0]).len(), 0, "{name} is fed");
        let plan = case.plan().expect("it has a plan");
        let launches: Vec<_> = plan.devices[0].launches().map(|(_, l)| l.label.to_string()).collect();
        assert_eq!(launches.len(), 2, "{name}: {launches:?}");
    }
}

#[test]
fn half_types_are_used_where_they_are_asked_for_and_losses_stay_near() {
    let references: std::collections::BTreeMap<String, Reference> =
        serde_json::from_str(include_str!("../data/kit_refs.json")).expect("references");
    let reference = &references["mlp_train"];
    let whole = error_of(&mut open("mlp_train", &Options::default()), reference);
    assert!(whole <= 1e-6, "{whole:.1e}");
    for half in [F16, BF16] {
        let options = Options { precision: Precision::Mixed(half), ..Default::default() };
        let mut case = open("mlp_train", &options);
        let error = error_of(&mut case, reference);
        println!("mlp_train{options}: {error:.1e}");
        assert!(error <= 1e-3 && error > 10.0 * whole, "{half:?}: {error:.1e}, in f32 {whole:.1e}");
        // What f16 cannot hold is scaled.
        assert_eq!(case.model().get("sgd.loss_scale.scale").is_ok(), half == F16);
    }
}

#[test]
fn what_does_not_belong_to_a_case_is_refused() {
    let refused = |name: &str, options: Options| {
        let opened = Case::open_with(name, &Cluster::cpu(1), None, &options);
        opened.map(|_| ()).expect_err("it is refused").to_string()
    };
    let error = refused("gpt_train", Options { layers: Some(3), ..Default::default() });
    assert!(error.contains("gpt_train") && error.contains("gpt2_train` alone"), "{error}");
    let error = refused("matmul_64_f16", Options { precision: Precision::Mixed(F16), ..Default::default() });
    assert!(error.contains("has its type in its name"), "{error}");
    let error = refused("gpt2_train", Options { context: Some(1025), ..Default::default() });
    assert!(error.contains("context is 1025, and can be 1 to 1024"), "{error}");
    let error = refused("gpt2_train", Options { batch: Some(0), ..Default::default() });
    assert!(error.contains("batch is 0"), "{error}");
}

/// One layer of the twelve, with the whole vocabulary and its tied embedding. The fifth loss is of the first batch again: it
/// falls to half only if four updates were right.
#[test]
fn a_small_gpt2_learns_as_pytorch_does_in_f64() {
    // gpu_torch.py --device cpu --case gpt2_train --batch 2 --context 12 --layers 1 --losses 5 --float64
    let losses =
        vec![11.205887149445092, 10.973949891550731, 11.112964296792681, 10.894849242406485, 5.829637554978452];
    let reference = Reference::Losses { losses, accuracy: None };
    let options = Options { batch: Some(2), context: Some(12), layers: Some(1), ..Default::default() };
    let error = error_of(&mut open("gpt2_train", &options), &reference);
    println!("gpt2_train{options}: {error:.1e}");
    assert!(error <= 1e-5, "{error:.1e}");
}

/// All twelve layers, beside PyTorch here and now. Skipped by name without it (`PYTHON` says which Python has it), which
/// `THALWEG_REQUIRE=torch` makes a failure.
#[test]
fn the_whole_gpt2_learns_as_pytorch_does_in_f64() {
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".into());
    if !Command::new(&python).args(["-c", "import torch"]).output().is_ok_and(|o| o.status.success()) {
        let required = std::env::var("THALWEG_REQUIRE").is_ok_and(|r| r.split(',').any(|r| r == "torch"));
        assert!(!required, "THALWEG_REQUIRE says torch, and {python} has none");
        println!("skipped: the_whole_gpt2_learns_as_pytorch_does_in_f64: {python} has no torch");
        return;
    }
    let said = Command::new(&python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/gpu_torch.py"))
        .args([
            "--device",
            "cpu",
            "--case",
            "gpt2_train",
            "--batch",
            "1",
            "--context",
            "16",
            "--losses",
            "3",
            "--float64",
        ])
        .output()
        .expect("it starts");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let references: std::collections::BTreeMap<String, Reference> =
        serde_json::from_slice(&said.stdout).expect("references");
    let options = Options { batch: Some(1), context: Some(16), ..Default::default() };
    let error = error_of(&mut open("gpt2_train", &options), &references["gpt2_train"]);
    println!("gpt2_train{options}: {error:.1e}");
    assert!(error <= 1e-5, "{error:.1e}");
}
