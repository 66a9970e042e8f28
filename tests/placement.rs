//! The law of placement: a program cut for any leaves on any devices computes what it computes whole. By the interpreter,
//! which knows nothing of devices, and in which a sum in another order is the only difference there can be.

mod common;

use std::collections::BTreeMap;

use common::{Feeds, assert_near};
use proptest::prelude::*;
use thalweg::graph::evaluate::{Evaluated, Named, evaluate, evaluate_devices};
use thalweg::graph::init::initial_value;
use thalweg::graph::kernel::interpret::{Precision, Values};
use thalweg::graph::partition::partition;
use thalweg::graph::passes::{STANDARD, run_passes, select_program};
use thalweg::graph::place::{Mesh, Request, place};
use thalweg::graph::{Bindings, Graph as Ir};
use thalweg::prelude::*;

#[path = "common/random.rs"]
mod random;

/// What a program returns and what variables become, by name.
fn results(whole: &Evaluated) -> BTreeMap<String, Values> {
    let outputs = whole.outputs.iter().map(|(n, v)| (n.to_string(), v.clone()));
    outputs.chain(whole.updates.iter().map(|(n, v)| (n.to_string(), v.clone()))).collect()
}

fn named(feeds: &Feeds) -> Named {
    feeds.iter().map(|(n, a)| (n.as_str().into(), Values::from_array(a))).collect()
}

/// Cuts `graph`'s one program and compares what all devices make of it with what it means.
fn check(graph: &Ir, bindings: &Bindings, feeds: &Feeds, request: &Request, devices: usize, tolerance: f64) {
    let name = &graph.programs[0].name;
    let alone = select_program(graph, name).expect("its program");
    let bound = run_passes(&alone, STANDARD, &mut |_, _| {}).bind(bindings).expect("bound");
    let state: Named = bound
        .state
        .values()
        .iter()
        .map(|v| (v.name.clone(), Values::from_array(&initial_value(v, bound.seed))))
        .collect();
    let feeds = named(feeds);
    let whole = evaluate(&bound, &bound.programs[0], &feeds, &state, Precision::Exact).expect("it has a meaning");
    let want = results(&whole);
    let placed = place(&bound, request).expect("it can be placed");
    let parts = partition(&placed, devices);
    for device in &parts.devices {
        let faults = device.graph.verify();
        assert!(faults.is_empty(), "{}\n{}", faults[0], device.graph);
    }
    let done = evaluate_devices(&parts, &feeds, &state, Precision::Exact).expect("no device waits for ever");
    // What leaves for the driver, put together.
    let mut got: BTreeMap<String, Values> = BTreeMap::new();
    for (device, evaluated) in parts.devices.iter().zip(&done) {
        for ((_, value), channel) in evaluated.outputs.iter().zip(&device.leaves) {
            let channel = &parts.channels[*channel];
            if channel.to != thalweg::graph::plan::Endpoint::Driver {
                continue;
            }
            let whole = got.entry(channel.label.to_string()).or_insert_with(|| want[&*channel.label].clone());
            let start = channel.start as usize;
            whole.data[start..start + value.data.len()].copy_from_slice(&value.data);
        }
        for (name, value) in &evaluated.updates {
            let got = got.entry(name.to_string()).or_insert_with(|| value.clone());
            assert_eq!(format!("{got:?}"), format!("{value:?}"), "{name} differs from device to device");
        }
    }
    for (name, want) in &want {
        let got = got.get(name).unwrap_or_else(|| panic!("nobody made {name}"));
        let numbers = |v: &Values| v.data.iter().map(|x| x.f64()).collect::<Vec<_>>();
        assert_near(name, &numbers(got), &numbers(want), tolerance, 1.0);
    }
}

fn data_parallel(leaves: u16, devices: u16) -> Request {
    let rows = |name: &str| (name.into(), vec![Some(0)]);
    Request { mesh: Mesh::line("dp", leaves, devices), inputs: [rows("x"), rows("index")].into(), variables: [].into() }
}

#[test]
fn a_perceptron_by_rows() {
    let g = Graph::new("mlp").seed(3);
    let x = g.input("x", F32, shape![8, 6]);
    let label = g.input("index", I32, shape![8]);
    let hidden = g.scope("fc2", || Linear::new(6).call(g.scope("fc1", || Linear::new(9).call(x)).relu()));
    let loss = cross_entropy(hidden, label).mean().named("loss");
    g.program("run").outputs([loss]).update(Sgd::new(0.1).momentum(0.9).minimize(loss));
    let graph = g.finish().unwrap();
    let feeds = random::feeds(8, 5);
    for (leaves, devices) in [(1, 1), (2, 1), (2, 2), (3, 2), (4, 4), (8, 3)] {
        check(&graph, &Bindings::new(), &feeds, &data_parallel(leaves, devices), usize::from(devices), 1e-5);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: random::cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_graph_by_rows(choices in random::choices(), train: bool, n in 1u64..9, leaves in 1u16..6, devices in 1u16..5) {
        let graph = random::grow(&choices, train);
        let devices = devices.min(leaves);
        let request = data_parallel(leaves, devices);
        check(&graph, &random::binding(n), &random::feeds(n, 3), &request, usize::from(devices), if train { 2e-2 } else { 1e-4 });
    }
}
