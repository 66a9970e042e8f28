//! The kit's training models over worker processes: right by the references that others computed in f64, and bit for bit
//! what threads of one process give under the same plan. What takes longer is in `benches/hosts_kit.sh`.

#![cfg(target_os = "linux")]
#![allow(missing_docs)]

#[path = "common/command.rs"]
mod command;

use command::{said, summary, thalweg};

/// The last line of a run, which has to succeed.
#[track_caller]
fn last_line(arguments: &[&str]) -> serde_json::Value {
    summary(&thalweg(arguments))
}

fn launched<'a>(world: &'a str, arguments: &[&'a str]) -> Vec<&'a str> {
    [&["launch", "-n", world, "--", "thalweg"], arguments].concat()
}

/// As many CPUs of one process.
fn threads(world: &str) -> String {
    let names: Vec<String> = (0..world.parse().expect("a number")).map(|i: usize| format!("cpu:{i}")).collect();
    names.join(",")
}

/// Ten losses each: those of ResNet-18 and of GPT take most of the time.
#[test]
fn every_training_model_agrees_with_its_reference() {
    for (case, worlds) in [
        ("mlp_train", &["2", "4"][..]),
        ("mlp_small_train", &["2", "4"]),
        ("lenet_train", &["2", "4"]),
        ("dp_mlp_train_p2", &["2", "4"]),
        ("gpt_train", &["2"]),
        ("resnet18_cifar_train", &["2"]),
    ] {
        for world in worlds {
            let line = last_line(&launched(world, &["kit", "--case", case, "--check", "--json"]));
            let error = line["rel_err"].as_f64().expect("a number");
            println!("{case} on {world}: {error:.1e}");
            assert!(error <= 1e-4 && line["right"] == true, "{line}");
            assert!(line["bytes_sent"].as_u64().expect("a number") > 0, "{line}");
        }
    }
}

/// As the kit's driver asks: one command, which starts as many workers, and with servers one process more. Servers change no
/// bit of what two workers compute, and neither do processes.
#[test]
fn distributed_cases_start_their_own_workers() {
    let one = last_line(&["kit", "--case", "dp_mlp_train_p2", "--leaves", "2", "--check", "--json"]);
    for case in ["dp_mlp_train", "ps_mlp_train"] {
        let line = last_line(&["kit", "--case", case, "--procs", "2", "--check", "--json"]);
        assert_eq!(line["case"], format!("{case}_p2"));
        assert!(line["right"] == true && line["bytes_sent"].as_u64().expect("a number") > 0, "{line}");
        assert_eq!(line["digest"], one["digest"], "{line}");
    }
    let timed =
        last_line(&["kit", "--case", "ps_mlp_train", "--procs", "1", "--json", "--reps", "1", "--rep-s", "0.01"]);
    assert_eq!((timed["threads"].as_u64(), timed["extra"]["procs"].as_u64()), (Some(1), Some(2)), "{timed}");
    assert!(timed["median_s"].as_f64().expect("a time") > 0.0 && timed["cpu_s"].is_null(), "{timed}");
    // The driver of the kit asks every peer for every case.
    let out = thalweg(&["kit", "--case", "ps_of_nothing", "--procs", "2"]);
    assert!(out.status.success() && out.stdout.is_empty());
    let out = thalweg(&["kit", "--case", "ps_mlp_train_p2"]);
    let said = said(&out);
    assert!(!out.status.success() && said.contains("1 of 1 devices cannot be parameter servers"), "{said}");
}

const DIGITS: &[&str] = &["demo", "--json", "--steps", "20"];
const MLP: &[&str] = &["kit", "--case", "mlp_train", "--check", "--json"];
const LENET: &[&str] = &["kit", "--case", "lenet_train", "--check", "--json"];
const GPT: &[&str] = &["kit", "--case", "gpt_train", "--losses", "2", "--check", "--json"];
/// By columns and by rows.
const GROUPS: &[&str] =
    &["--tensor-parallel", "2", "--shard", "*fc1.weight:0", "--shard", "*fc1.bias:0", "--shard", "*fc2.weight:1"];
const CONV: &[&str] = &["--tensor-parallel", "2", "--shard", "*conv2.weight:0", "--shard", "*conv2.bias:0"];
const SERVERS: &[&str] = &["--strategy", "ps", "--servers", "2", "--leaves", "2"];
const PIPELINE: &[&str] = &["--strategy", "pp", "--stages", "2", "--microbatches", "4"];

/// Tensor parallel, and products of strategies. The same plan over threads of one process is the reference.
#[test]
fn every_plan_gives_the_digest_of_one_process() {
    for (model, strategy, worlds) in [
        (MLP, GROUPS, &["2", "4"][..]),
        (MLP, PIPELINE, &["2", "4"]),
        (MLP, &["--strategy", "zero1"], &["2", "4"]),
        (MLP, &["--reduction", "fast"], &["4"]),
        (MLP, SERVERS, &["3", "4"]),
        (LENET, PIPELINE, &["4"]),
        (LENET, &["--strategy", "zero1"], &["4"]),
        (GPT, GROUPS, &["4"]),
        (DIGITS, CONV, &["2", "4"]),
        (DIGITS, PIPELINE, &["4"]),
    ] {
        for world in worlds {
            let (here, arguments) = (threads(world), [model, strategy].concat());
            let one = last_line(&[&arguments[..], &["--devices", &here]].concat());
            let several = last_line(&launched(world, &arguments));
            assert_eq!(several["digest"], one["digest"], "{arguments:?} on {world}");
            assert!(one["digest"].is_string(), "{one}");
            assert_eq!(several["bytes_sent"], one["bytes_sent"], "{arguments:?} on {world}");
            assert!(several["bytes_sent"].as_u64().expect("a number") > 0, "{several}");
        }
    }
}

/// A plan is shown to be sound for the very workers that are to run it.
#[test]
fn a_plan_is_verified_for_workers() {
    for model in ["digits", "lenet_train"] {
        let said = last_line(&launched("2", &["verify", "--model", model, "--json"]));
        assert_eq!(said["sound"], true, "{said}");
        let there = &said["certificate"]["devices"][1]["device"];
        assert_eq!(there, "worker1/cpu:0", "{said}");
    }
}
