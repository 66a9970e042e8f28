//! Parameter servers as a user meets them: who keeps what, what crosses, and the bits of data parallel; within one process.
//! `hosts.rs` and `hosts_kit.rs` have the same over worker processes.

#![allow(missing_docs)]

#[path = "common/command.rs"]
mod command;

use std::collections::BTreeMap;

use command::{printed, summary};
use thalweg::kit::{Case, Reference, rel_err};
use thalweg::prelude::*;

#[track_caller]
fn thalweg(arguments: &[&str]) -> String {
    printed(&command::thalweg(arguments))
}

fn demo(devices: &str, more: &[&str]) -> serde_json::Value {
    let demo = ["demo", "--json", "--steps", "30", "--leaves", "4", "--devices", devices];
    summary(&command::thalweg(&[&demo, more].concat()))
}

/// Also where weights are rounded for products, and updates skipped when the loss was scaled too much.
#[test]
fn servers_give_the_bits_of_data_parallel() {
    for precision in ["f32", "f16", "bf16"] {
        let one = demo("cpu:0", &["--precision", precision]);
        for servers in ["1", "2", "cpu:0,cpu:2"] {
            let four =
                demo("cpu:0,cpu:1,cpu:2,cpu:3", &["--precision", precision, "--strategy", "ps", "--servers", servers]);
            assert_eq!(four["digest"], one["digest"], "{precision}, servers {servers}");
        }
    }
}

/// Every worker is sent all parameters and sends all of its gradient, however many servers there are; nothing else but the
/// loss and how many were right.
#[test]
fn each_worker_pulls_and_pushes_every_parameter_once() {
    let parameters = 16 * 9 + 16 + 32 * 16 * 9 + 32 + 512 * 10 + 10;
    for (devices, workers, servers) in [("cpu:0,cpu:1,cpu:2", 2, "1"), ("cpu:0,cpu:1,cpu:2,cpu:3", 2, "2")] {
        let sent = demo(devices, &["--strategy", "ps", "--servers", servers])["bytes_sent"].as_u64().expect("a number");
        // Thirty steps, and one over the test digits that pulls alone.
        let least = (30 * 2 + 1) * workers * parameters * 4;
        assert!((least..least + 31 * 64).contains(&sent), "{sent} bytes, at least {least}");
    }
}

/// Parameters and slots are on servers and nowhere else.
#[test]
fn only_servers_keep_parameters() {
    let cluster = Cluster::cpus(4);
    let case = Case::open("mlp_train", &cluster, Some(&Strategy::servers(2))).expect("it compiles");
    let plan = case.expect("a case").plan().expect("it is planned");
    let state: Vec<u64> = plan.devices.iter().map(|d| d.state_bytes).collect();
    // The step is counted everywhere, in a line of memory.
    assert!(state[..2].iter().all(|s| (8..=64).contains(s)), "{state:?}");
    let all = 2 * 4 * (784 * 512 + 512 + 512 * 512 + 512 + 512 * 10 + 10);
    let (kept, even) = (state[2] + state[3], state[2].abs_diff(state[3]));
    assert!((all..all + 1024).contains(&kept), "{state:?}, {all} bytes in all");
    assert!(even < 64 << 10, "{state:?}");
}

#[test]
fn what_servers_keep_and_everybody_sends_is_explained() {
    let arguments = [
        "explain",
        "--model",
        "mlp_train",
        "--strategy",
        "ps",
        "--servers",
        "2",
        "--devices",
        "cpu:0,cpu:1,cpu:2,cpu:3",
    ];
    let said = thalweg(&[&arguments[..], &["--json"]].concat());
    let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    let on = |name: &str| {
        let row = said["parameters"].as_array().expect("a list").iter().find(|r| r["parameter"] == name);
        let on = row.expect("a row")["on"].as_array().expect("a list").clone();
        on.iter().map(|s| (s[0].as_str().unwrap_or("").to_string(), s[1].as_u64().unwrap_or(0))).collect::<Vec<_>>()
    };
    // Half of all bytes is within the first layer's weights.
    let first = on("fc1.weight");
    assert!(
        matches!(&first[..], [(a, x), (b, y)] if a == "cpu:2" && b == "cpu:3" && x + y == 784 * 512 * 4),
        "{first:?}"
    );
    assert_eq!(on("fc2.weight"), [("cpu:3".to_string(), 512 * 512 * 4)]);
    let sent: Vec<u64> =
        said["devices"].as_array().expect("a list").iter().map(|d| d["sent_bytes"].as_u64().unwrap_or(0)).collect();
    let parameters = 4 * (784 * 512 + 512 + 512 * 512 + 512 + 512 * 10 + 10);
    assert!(sent[..2].iter().all(|s| (parameters..parameters + 64).contains(s)), "{sent:?}");
    assert_eq!(sent[2] + sent[3], 2 * parameters, "{sent:?}");
    let text = thalweg(&arguments);
    assert!(text.contains("parameters are kept by servers") && text.contains("kB sent"), "{text}");
}

#[test]
fn the_kits_models_agree_with_their_references() {
    let references: BTreeMap<String, Reference> =
        serde_json::from_str(include_str!("../data/kit_refs.json")).expect("references");
    for (name, losses, devices, strategy) in [
        ("mlp_train", 10, 3, Strategy::servers(1)),
        ("lenet_train", 10, 4, Strategy::servers(2)),
        ("dp_mlp_train_p2", 10, 3, Strategy::servers(1)),
        ("dp_resnet18_train_p2", 2, 4, Strategy::servers(2)),
        ("gpt_train", 2, 3, Strategy::servers(1)),
    ] {
        let case = Case::open(name, &Cluster::cpus(devices), Some(&strategy)).expect("it compiles");
        let mut case = case.expect("there is such a case");
        let results: Vec<Array> = (0..losses).map(|i| case.result(i).expect("it runs")).collect();
        let error = rel_err(&results, &references[name]);
        assert!(error < 2e-6, "{name} on {devices} devices, {strategy}: {error}");
    }
}
