//! The plans: of the digits on eight leaves, of the kit's models with a leaf per device and as pipelines, of random graphs.

use std::sync::Arc;

use thalweg::Cluster;
use thalweg::graph::plan::Plan;
use thalweg::graph::{Bindings, PipelineSchedule, Reduction, Strategy};
use thalweg::kit::Case;
use thalweg::prelude::Model;
use thalweg::runtime::{Device, Placing, ReferenceDevice, Session};

use crate::common::{self, models};
use crate::random;

/// A plan by a name for people.
pub(crate) type Named = (String, Arc<Plan>);

/// The samples of a step of the digits' model.
pub(crate) const BATCH: u64 = 64;

/// The digits' model.
pub(crate) fn digits(devices: usize, leaves: u16) -> Model {
    compiled("digits", devices, leaves)
}

fn compiled(name: &str, devices: usize, leaves: u16) -> Model {
    let model = models::ALL.iter().find(|m| m.name == name).expect("a model");
    model.compile_with(&Cluster::cpus(devices), &Strategy::data_parallel().leaves(leaves))
}

/// Whether every device of a plan has all variables: of those of pipelines each has its own, and workers have none where
/// there are servers.
pub(crate) fn replicas(name: &str) -> bool {
    !name.contains("stages") && !name.contains("servers")
}

/// A program of one of the tests' models, cut for these leaves.
pub(crate) fn model(name: &str, program: &str, devices: usize, leaves: u16) -> Named {
    let mut model = compiled(name, devices, leaves);
    let bindings: Bindings = model.graph().dims.keys().map(|dim| (dim.clone(), BATCH)).collect();
    let plan = model.session().plan(program, &bindings).expect("it is planned");
    (format!("{name} {program}, {leaves} leaves on {devices}"), plan)
}

/// A case of the kit, with a leaf per device.
pub(crate) fn case(name: &str, devices: usize, reduction: Reduction) -> Named {
    let case = Case::open(name, &Cluster::cpus(devices), Some(&Strategy::data_parallel().reduction(reduction)));
    let mut case = case.expect("no mistakes").expect("a case");
    (format!("{name} on {devices}, {reduction:?}"), case.plan().expect("it is planned"))
}

/// A case of the kit as a pipeline of two stages, or as two of them side by side.
pub(crate) fn pipeline(name: &str, devices: usize, schedule: PipelineSchedule) -> Named {
    let strategy = Strategy::pipeline(2).microbatches(4).schedule(schedule);
    let case = Case::open(name, &Cluster::cpus(devices), Some(&strategy));
    let mut case = case.expect("no mistakes").expect("a case");
    (format!("{name} in 2 stages on {devices}, {schedule:?}"), case.plan().expect("it is planned"))
}

/// A case of the kit with two parameter servers.
pub(crate) fn served(name: &str, devices: usize) -> Named {
    let case = Case::open(name, &Cluster::cpus(devices), Some(&Strategy::servers(2)));
    let mut case = case.expect("no mistakes").expect("a case");
    (format!("{name} with 2 servers on {devices}"), case.plan().expect("it is planned"))
}

/// A graph of random ops on interpreters or on threads.
pub(crate) fn session(choices: &[(u8, u8, u8)], train: bool, leaves: u16, devices: Vec<Box<dyn Device>>) -> Session {
    let graph = random::grow(choices, train);
    let request =
        Strategy::data_parallel().leaves(leaves).request(&graph, &Cluster::cpus(devices.len())).expect("it fits");
    let planner = Box::new(Placing::new(&graph, request, devices.len()));
    Session::over(graph, devices, planner).expect("it opens")
}

/// The plan of a random graph.
pub(crate) fn by_chance(seed: u64, devices: usize) -> Named {
    let byte = |i: u64| (seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(i as u32 * 7) ^ i) as u8;
    let choices: Vec<_> = (0..4 + seed % 9).map(|i| (byte(3 * i), byte(3 * i + 1), byte(3 * i + 2))).collect();
    let interpreters = (0..devices).map(|_| Box::new(ReferenceDevice::default()) as Box<dyn Device>).collect();
    let mut session = session(&choices, !seed.is_multiple_of(3), 4, interpreters);
    let plan = session.plan("run", &random::binding(8)).expect("it is planned");
    (format!("random {seed} on {devices}"), plan)
}

/// One thread each.
pub(crate) fn threads(devices: usize) -> Vec<Box<dyn Device>> {
    (0..devices).map(|_| common::cpu(1)).collect()
}

/// All of them.
pub(crate) fn all() -> Vec<Named> {
    let mut all = Vec::new();
    for devices in [1, 2, 3, 4, 8] {
        all.extend(["train", "eval"].map(|program| model("digits", program, devices, 8)));
    }
    for devices in [2, 4] {
        let cases = ["mlp_train", "mlp_small_train", "lenet_train", "gpt_train", "resnet18_cifar_train"];
        all.extend(cases.map(|name| case(name, devices, Reduction::Canonical)));
        all.push(case("mlp_train", devices, Reduction::Fast));
    }
    for devices in [2, 4] {
        all.push(pipeline("mlp_train", devices, PipelineSchedule::GPipe));
        for name in ["mlp_train", "lenet_train", "gpt_train"] {
            all.push(pipeline(name, devices, PipelineSchedule::OneForwardOneBackward));
        }
    }
    all.extend(["mlp_train", "lenet_train", "gpt_train", "resnet18_cifar_train"].map(|name| served(name, 4)));
    all.extend((0..12).map(|seed| by_chance(seed, 2 + seed as usize % 3)));
    all
}
