//! Pipelines as their users see them: where layers go, what a step takes in theory and in the simulator, what is kept of how
//! many microbatches, and what is said where stages and devices do not fit.

#![allow(missing_docs)]

use std::time::Duration;

use thalweg::graph::place::Request;
use thalweg::graph::plan::simulate::{Cost, Options, simulate};
use thalweg::graph::plan::{Channel, Launch, Plan};
use thalweg::prelude::*;

/// So many layers of one product each, every one a stage. The first has something to differentiate before it, so that all
/// stages do as much: one product forwards, two backwards.
fn layers(stages: u16) -> Graph {
    let g = Graph::new("layers");
    let mut x = g.input("x", F32, [48, 32]);
    for stage in 0..stages {
        x = g.stage(stage, || {
            let x = if stage == 0 { x * g.parameter("scale", F32, [32], Init::Constant(1.0)) } else { x };
            g.scope(&format!("fc{stage}"), || Linear::new(32).call(x))
        });
    }
    let loss = g.stage(stages - 1, || (x * x).mean().named("loss"));
    g.program("train").outputs([loss]).update(Sgd::new(0.1).minimize(loss));
    g
}

fn plan(g: &Graph, strategy: &Strategy, devices: usize) -> std::sync::Arc<Plan> {
    let mut model = g.compile_with(&Cluster::cpus(devices), strategy).expect("it fits");
    model.session().plan("train", &Default::default()).expect("it is planned")
}

/// A product forwards takes one second, backwards two, and nothing else any time. The gradient of the weights, which nobody
/// waits for, is counted with that of the layer's input: theory has both as one.
struct Products<'a>(&'a Plan);

impl Cost for Products<'_> {
    fn launch(&self, _: u16, launch: &Launch) -> Duration {
        let kernel = &self.0.kernels[launch.kernel];
        let of_weights = kernel.results()[0].shape == [32, 32];
        let is_back = launch.label.contains("gradient of matmul");
        Duration::from_secs(match launch.label.contains("matmul") {
            true if is_back && of_weights => 0,
            true => 1 + u64::from(is_back),
            false => 0,
        })
    }
    fn copy(&self, _: u16, _: u64) -> Duration {
        Duration::ZERO
    }
    fn channel(&self, _: &Channel) -> (Duration, Duration) {
        (Duration::ZERO, Duration::ZERO)
    }
}

/// Of m microbatches over K stages each stage works 3 m units, and the step takes 3 (m + K − 1): the bubble is (K − 1) of
/// (m + K − 1), whichever the schedule (Narayanan et al., SC 2021, section 2.2.1).
#[test]
fn the_bubble_is_as_theory_has_it() {
    for stages in [2, 3, 4] {
        let g = layers(stages);
        for microbatches in [1, 2, 4, 8] {
            for schedule in [PipelineSchedule::GPipe, PipelineSchedule::OneForwardOneBackward] {
                let strategy = Strategy::pipeline(stages).microbatches(microbatches).schedule(schedule);
                let plan = plan(&g, &strategy, stages.into());
                let options = Options { steps: 1, seeds: 0..0, replicas: false };
                let step = simulate(&plan, &Products(&plan), &options).expect("no harm");
                let theory = 3 * u64::from(microbatches + stages - 1);
                assert_eq!(step.end, Duration::from_secs(theory), "{schedule:?}: {stages} stages, {microbatches}");
            }
        }
    }
}

/// One forward, one backward: what a stage keeps does not grow with the number of microbatches; with GPipe it does.
#[test]
fn a_stage_keeps_few_microbatches() {
    let kept = |schedule, microbatches| {
        let strategy = Strategy::pipeline(2).microbatches(microbatches).schedule(schedule);
        // Microbatches of the same size: the more, the larger the batch.
        let g = Graph::new("deep");
        let mut x = g.input("x", F32, [u64::from(microbatches) * 64, 64]);
        for layer in 0..8 {
            x = g.stage(layer / 4, || g.scope(&format!("fc{layer}"), || Linear::new(64).call(x)).tanh());
        }
        let loss = (x * x).mean().named("loss");
        g.program("train").outputs([loss]).update(Sgd::new(0.1).minimize(loss));
        let plan = plan(&g, &strategy, 2);
        plan.devices.iter().map(|d| d.scratch_bytes).collect::<Vec<_>>()
    };
    let (few, many) =
        (kept(PipelineSchedule::OneForwardOneBackward, 4), kept(PipelineSchedule::OneForwardOneBackward, 16));
    let (all_few, all) = (kept(PipelineSchedule::GPipe, 4), kept(PipelineSchedule::GPipe, 16));
    for stage in 0..2 {
        // A few sums of gradients more, as a tree over more leaves has.
        assert!(many[stage] < few[stage] * 3 / 2, "stage {stage}: {few:?} and {many:?}");
    }
    assert!(all[0] > 2 * all_few[0] && all[0] > 2 * many[0], "{all_few:?}, {all:?}, {many:?}");
}

#[test]
fn layers_go_where_they_are_declared_with_all_that_is_kept_of_them() {
    let g = Graph::new("two");
    let x = g.input("x", F32, [8, 4]);
    let x = g.stage(0, || g.scope("first", || Linear::new(6).call(x)).relu());
    let x = g.stage(1, || g.scope("second", || Linear::new(2).call(x)));
    let loss = (x * x).mean().named("loss");
    g.program("train").outputs([loss]).update(AdamW::new(0.1).clip_norm(1.0).minimize(loss));
    let model = g.compile_with(&Cluster::cpus(2), &Strategy::pipeline(2)).expect("it fits");
    let request = &model.spread().expect("several devices").request;
    let home = |name: &str| request.stages.homes[name].clone();
    assert_eq!((home("first.weight").stage, home("adamw.m.first.weight").stage), (Some(0), Some(0)));
    assert_eq!((home("second.bias").stage, home("adamw.v.second.bias").stage), (Some(1), Some(1)));
    assert_eq!(home("step").stage, None);
    let why = home("adamw.v.second.bias").why;
    assert!(
        why.contains("kept of `second.bias`") && why.contains("pinned (stage 1)") && why.contains("pipelines.rs"),
        "{why}"
    );
}

/// By hand: each half on the device that is named, and the numbers of one device.
#[test]
fn what_is_pinned_runs_where_it_says() {
    let model = |pinned: bool| {
        let g = Graph::new("two").seed(5);
        let x = g.input("x", F32, [8, 4]);
        let first = || g.scope("first", || Linear::new(6).call(x)).relu();
        let hidden = if pinned { g.on("cpu:1", first) } else { first() };
        let second = || g.scope("second", || Linear::new(2).call(hidden));
        let out = if pinned { g.on("cpu:2", second) } else { second() };
        let loss = (out * out).mean().named("loss");
        g.program("train").outputs([loss]).update(AdamW::new(0.1).minimize(loss));
        let cluster = Cluster::cpus(if pinned { 3 } else { 1 });
        g.compile_with(&cluster, &Strategy::alone("cpu:0")).expect("it fits")
    };
    let (mut one, mut three) = (model(false), model(true));
    let x = Array::from_slice(&[8, 4], &(0..32).map(|i| i as f32 / 32.0).collect::<Vec<_>>());
    for _ in 0..3 {
        let [a, b] = [&mut one, &mut three].map(|m| m.run("train", feed! { x: &x }).expect("it runs").item("loss"));
        assert_eq!(a, b);
    }
    assert_eq!(one.digest().expect("a digest"), three.digest().expect("a digest"));
    let plan = three.session().plan("train", &Default::default()).expect("it is planned");
    let bytes: Vec<u64> = plan.devices.iter().map(|d| d.state_bytes).collect();
    // A weight of 4 × 6 and a bias, and two moments of each; the step's counter is everywhere.
    assert!(bytes[0] < 128 && bytes[1] > 3 * 30 * 4 && bytes[2] > 3 * 14 * 4, "{bytes:?}");
}

fn refused(g: &Graph, cluster: &Cluster, strategy: &Strategy) -> String {
    g.compile_with(cluster, strategy).err().expect("it does not fit").to_string()
}

#[test]
fn what_does_not_fit_is_said() {
    let three = layers(3);
    let said = refused(&three, &Cluster::cpus(2), &Strategy::pipeline(2));
    assert!(said.contains("declares 3 stages") && said.contains("the strategy has 2"), "{said}");
    let said = refused(&three, &Cluster::cpus(4), &Strategy::pipeline(3));
    assert!(said.contains("groups of 3 devices cannot be made of 4"), "{said}");

    let g = Graph::new("line");
    let x = g.input("x", F32, [6]);
    let y = g.on("gpu:7", || x * 2.0);
    g.program("run").outputs([y.named("y")]);
    let said = refused(&g, &Cluster::cpus(2), &Strategy::data_parallel());
    assert!(said.contains("pinned to `gpu:7`; there are `cpu:0`, `cpu:1`") && said.contains("pipelines.rs"), "{said}");
    let said = g.compile(&Cluster::cpu(1)).err().expect("there is no such device").to_string();
    assert!(said.contains("pinned to `gpu:7`; there are `cpu:0`"), "{said}");

    let g = Graph::new("line");
    let y = g.input("x", F32, [6]) * 2.0;
    g.program("run").outputs([y.named("y")]);
    let said = refused(&g, &Cluster::cpus(3), &Strategy::pipeline(3));
    assert!(said.contains("too few layers for 3 stages"), "{said}");
    let said = refused(&g, &Cluster::cpus(2), &Strategy::alone("cpu:5"));
    assert!(said.contains("a device `cpu:5`; there are `cpu:0`, `cpu:1`"), "{said}");
}

/// A wish that cannot be granted is said: what an optimizer keeps of a parameter is where the parameter is.
#[test]
fn what_is_kept_of_a_parameter_stays_with_it() {
    let g = Graph::new("line");
    let x = g.input("x", F32, [8, 4]);
    let y = g.on("cpu:0", || Linear::new(4).call(x));
    let loss = (y * y).mean().named("loss");
    let update = g.on("cpu:1", || Sgd::new(0.1).momentum(0.9).minimize(loss));
    g.program("train").outputs([loss]).update(update);
    let model = g.compile_with(&Cluster::cpus(2), &Strategy::alone("cpu:0")).expect("it fits");
    let request: &Request = &model.spread().expect("several").request;
    assert_eq!(request.stages.home("weight"), request.stages.home("sgd.v.weight"));
    let said: Vec<&str> = request.stages.warnings.iter().map(|n| &*n.what).collect();
    assert!(said.iter().any(|w| w.contains("`sgd.v.weight` was asked for in stage 2")), "{said:?}");
}

/// Saved by a pipeline, read by data parallel devices: variables are whole, wherever they lay.
#[test]
fn a_checkpoint_of_a_pipeline_goes_on_elsewhere() {
    let directory = std::env::temp_dir().join(format!("thalweg-pipeline-{}", std::process::id()));
    let x = Array::from_slice(&[48, 32], &(0..48 * 32).map(|i| (i % 17) as f32 / 17.0).collect::<Vec<_>>());
    let g = layers(2);
    let piped = Strategy::pipeline(2).leaves(4);
    let mut model = g.compile_with(&Cluster::cpus(2), &piped).expect("it fits");
    model.run("train", feed! { x: &x }).expect("it runs");
    model.save_and_wait(&directory).expect("it is saved");
    let mut other = g.compile_with(&Cluster::cpus(4), &Strategy::data_parallel().leaves(4)).expect("it fits");
    other.resume(&directory).expect("it is read");
    for model in [&mut model, &mut other] {
        model.run("train", feed! { x: &x }).expect("it runs");
    }
    assert_eq!(model.digest().expect("a digest"), other.digest().expect("a digest"));
    std::fs::remove_dir_all(&directory).ok();
}
