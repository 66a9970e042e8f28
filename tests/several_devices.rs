//! What a user sees of several devices: the same model and the same numbers. The digits as the command trains them, and the
//! kit's models beside their references.

#![allow(missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use thalweg::kit::{Case, Reference, rel_err};
use thalweg::prelude::*;

fn demo(devices: usize, strategy: &str) -> serde_json::Value {
    let names: Vec<String> = (0..devices).map(|i| format!("cpu:{i}")).collect();
    let out = Command::new(env!("CARGO_BIN_EXE_thalweg"))
        .args([
            "demo",
            "--json",
            "--leaves",
            "8",
            "--steps",
            "50",
            "--strategy",
            strategy,
            "--devices",
            &names.join(","),
        ])
        .output()
        .expect("it starts");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).expect("text");
    serde_json::from_str(text.lines().last().expect("a summary")).expect("JSON")
}

#[test]
fn the_same_leaves_give_the_same_digest_on_any_number_of_devices() {
    let mut digests = BTreeSet::new();
    for (strategy, devices) in [
        ("dp", &[1, 2, 3, 4, 8][..]),
        ("zero1", &[1, 2, 3, 4, 8]),
        ("pp", &[2, 3, 4, 8]),
        ("ps", &[2, 3, 4, 8]),
        ("auto", &[2, 4]),
    ] {
        for devices in devices.iter().copied() {
            let summary = demo(devices, strategy);
            let sent = summary["bytes_sent"].as_u64().expect("a number");
            assert_eq!((sent > 0, summary["steps"].as_u64()), (devices > 1, Some(50)), "{summary}");
            digests.insert(summary["digest"].as_str().expect("a digest").to_string());
        }
    }
    assert_eq!(digests.len(), 1, "{digests:?}");
}

/// Of two devices that host one subtree each, each sends half of every gradient and half of every sum: 2 · (n − 1) / n.
#[test]
fn gradients_cross_as_often_as_they_must() {
    let parameters = 16 * 9 + 16 + 32 * 16 * 9 + 32 + 512 * 10 + 10;
    let sent = demo(2, "dp")["bytes_sent"].as_u64().expect("a number");
    let least = 50 * 2 * parameters * 4;
    assert!((least..least + 50 * 16).contains(&sent), "{sent} bytes, at least {least}");
}

/// Runs the first steps of a case; gives how far their losses are from the reference's, and the case.
fn against_reference(name: &str, losses: usize, devices: usize, strategy: &Strategy) -> (f64, Case) {
    let references: BTreeMap<String, Reference> =
        serde_json::from_str(include_str!("../data/kit_refs.json")).expect("references");
    let case = Case::open(name, &Cluster::cpus(devices), Some(strategy)).expect("it compiles");
    let mut case = case.expect("there is such a case");
    let results: Vec<Array> = (0..losses).map(|i| case.result(i).expect("it runs")).collect();
    (rel_err(&results, &references[name]), case)
}

/// A ring sends as much, to one neighbour only, and adds up in another order.
#[test]
fn a_ring_goes_to_neighbours_only() {
    let mut sent = BTreeMap::new();
    for reduction in [Reduction::Canonical, Reduction::Fast] {
        let strategy = Strategy::data_parallel().reduction(reduction);
        let (error, mut case) = against_reference("mlp_train", 10, 4, &strategy);
        assert!(error < 2e-6, "{reduction:?}: {error}");
        let plan = case.plan().expect("it is planned");
        let long = plan.channels.values().iter().filter(|c| c.ty.size_bytes() > 1 << 16);
        let ends: BTreeSet<String> = long.map(|c| format!("{:?} {:?}", c.from, c.to)).collect();
        let between = ends.iter().filter(|e| !e.contains("Driver")).count();
        assert_eq!(between, if reduction == Reduction::Fast { 4 } else { 12 }, "{ends:?}");
        sent.insert(between, case.model().bytes_sent());
    }
    // A device's slice begins at a multiple of sixteen elements: a few bytes more or less.
    assert!(sent[&4].abs_diff(sent[&12]) * 1000 < sent[&12], "{sent:?}");
}

/// Losses of the first steps. resnet18 is normalized over the whole batch, on all devices together; in `dp_resnet18_train_p2`
/// each worker normalizes its own.
#[test]
fn the_kits_models_agree_with_their_references() {
    let (dp, zero1) = (Strategy::data_parallel(), Strategy::data_parallel().shard_state());
    for (name, losses) in [("mlp_train", 10), ("lenet_train", 10), ("dp_mlp_train_p2", 10), ("dp_resnet18_train_p2", 2)]
    {
        for (devices, strategy) in [(2, &dp), (2, &zero1), (4, &dp)] {
            let (error, _) = against_reference(name, losses, devices, strategy);
            assert!(error < 2e-6, "{name} on {devices} devices, {strategy:?}: {error}");
        }
    }
}

/// Two stages, alone and two of them side by side; where there is batch norm, as many groups as microbatches.
#[test]
fn pipelines_agree_with_the_references() {
    for (name, losses, devices, microbatches) in [
        ("mlp_train", 10, 2, 4),
        ("mlp_train", 10, 4, 8),
        ("mlp_small_train", 10, 4, 4),
        ("lenet_train", 10, 2, 4),
        ("lenet_train", 10, 4, 4),
        ("gpt_train", 3, 2, 4),
        ("dp_resnet18_train_p2", 2, 2, 2),
    ] {
        let strategy = Strategy::pipeline(2).microbatches(microbatches);
        let (error, _) = against_reference(name, losses, devices, &strategy);
        assert!(error < 2e-6, "{name} on {devices} devices: {error}");
    }
}

/// The two layers of each block's perceptron by columns and rows, on a group of two devices and on two such groups.
#[test]
fn parameters_may_be_shared_by_a_group() {
    let two = Strategy::data_parallel().tensor_parallel(2);
    let strategy = two.shard("*fc1.weight", 0).shard("*fc1.bias", 0).shard("*fc2.weight", 1);
    for (name, losses, devices) in [("mlp_train", 10, 2), ("mlp_train", 10, 4), ("gpt_train", 3, 2)] {
        let (error, mut case) = against_reference(name, losses, devices, &strategy);
        assert!(error < 2e-6, "{name} on {devices} devices: {error}");
        assert!(case.model().bytes_sent() > 0);
    }
}

#[test]
fn what_does_not_fit_is_said() {
    let g = Graph::new("line");
    let x = g.input("x", F32, [6]);
    let slope = g.parameter("slope", F32, (), Init::Constant(0.5));
    g.program("run").outputs([(x * slope).named("y")]);
    let error = |cluster: &Cluster, strategy: Option<Strategy>| {
        let made = strategy.map_or_else(|| g.compile(cluster), |s| g.compile_with(cluster, &s));
        made.err().expect("it does not fit").to_string()
    };
    let (two, dp) = (Cluster::cpus(2), Strategy::data_parallel);
    for (cluster, strategy, says) in [
        (&two, None, "by a strategy such as data parallel (`compile_with`"),
        (&Cluster::cpus(3), Some(dp().leaves(2)), "2 leaves cannot be spread over 3 devices"),
        (&Cluster::cpus(0), Some(dp()), "without devices"),
        (&two, Some(dp().input("z", None)), "an input `z`; the model has `x`"),
        (&two, Some(dp().input("x", Some(1))), "`x`, which is f32[6], along axis 1"),
        (&two, Some(dp().tensor_parallel(2).shard("slope", 0)), "`slope`, which is f32[], along axis 0"),
        (&two, Some(dp().tensor_parallel(2).shard("*offset", 0)), "no such parameter"),
        (&two, Some(dp().tensor_parallel(3)), "groups of 3 devices cannot be made of 2"),
    ] {
        let said = error(cluster, strategy);
        assert!(said.contains(says), "{said}");
    }
    // What a strategy leaves open it finds: the one input is the batch.
    let mut model = g.compile_with(&two, &dp()).expect("it fits");
    let x = Array::from_slice(&[6], &[1f32, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let out = model.run("run", feed! { x: &x }).expect("it runs");
    assert_eq!(out.get("y").expect("an output").to_f64(), [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]);
}
