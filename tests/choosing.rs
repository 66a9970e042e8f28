//! What `Strategy::auto` chooses, and whether anything that a person could have written is predicted to be faster. On clusters
//! that are only described: nothing runs, so the machine's moods do not matter.

#![allow(missing_docs)]

use thalweg::graph::choose::{Choice, choose};
use thalweg::graph::cost::{CostModel, Rates};
use thalweg::graph::lower::{Target, lower_devices};
use thalweg::graph::partition::partition;
use thalweg::graph::passes::{STANDARD, run_passes, select_program};
use thalweg::graph::place::place;
use thalweg::graph::plan::simulate::{Options, simulate};
use thalweg::prelude::*;
use thalweg::runtime::{Device, ReferenceDevice};

/// Devices of one thread each, so many times as fast as one of which nothing is known.
fn cluster(speeds: &[f64]) -> Cluster {
    let mut cluster = Cluster::cpus(speeds.len());
    for (device, speed) in cluster.devices.iter_mut().zip(speeds) {
        let mut rates = Rates::DEFAULT;
        for rate in [
            &mut rates.product_flops,
            &mut rates.window_flops,
            &mut rates.back_flops,
            &mut rates.weight_flops,
            &mut rates.epilogue_ops,
            &mut rates.packed,
            &mut rates.lane_ops,
            &mut rates.heavy_ops,
            &mut rates.folded,
            &mut rates.strided,
            &mut rates.near_bytes,
            &mut rates.shared_bytes,
            &mut rates.far_bytes,
        ] {
            *rate *= speed;
        }
        device.rates = Some(rates);
    }
    cluster
}

fn perceptron(layers: usize, width: u64) -> thalweg::graph::Graph {
    let g = Graph::new("deep").seed(1);
    let batch = g.dim("batch", 1..=512);
    let x = g.input("x", F32, shape![batch, width]);
    let label = g.input("label", I32, shape![batch]);
    let mut h = x;
    for layer in 0..layers {
        h = g.scope(&format!("fc{layer}"), || Linear::new(width).call(h)).relu();
    }
    let loss = cross_entropy(g.scope("head", || Linear::new(10).call(h)), label).mean().named("loss");
    g.program("train").outputs([loss]).update(AdamW::new(1e-3).minimize(loss));
    g.finish().expect("no mistakes")
}

/// What a step of a batch of 64 is predicted to take under a strategy of one's own.
fn predicted(strategy: &Strategy, graph: &thalweg::graph::Graph, cluster: &Cluster, targets: &[&dyn Target]) -> f64 {
    let request = strategy.request(graph, cluster).expect("it fits");
    let alone = select_program(graph, "train").expect("its program");
    let bound = run_passes(&alone, STANDARD, &mut |_, _| {}).bind(&[("batch".into(), 64)].into()).expect("bound");
    let parts = partition(&place(&bound, &request).expect("it is placed"), cluster.devices.len());
    let (layouts, _) = request.state(&bound, cluster.devices.len());
    let plan = lower_devices(&parts, &Default::default(), &layouts, targets).expect("it is lowered");
    let cost = CostModel::new(&plan, cluster);
    let step = simulate(&plan, &cost, &Options { steps: 1, seeds: 0..0, replicas: false }).expect("no harm");
    (step.end + cost.step()).as_secs_f64()
}

fn chosen(graph: &thalweg::graph::Graph, cluster: &Cluster, targets: &[&dyn Target]) -> Choice {
    let choice = choose(&Strategy::auto(), graph, cluster, targets).expect("something fits");
    println!("{choice}");
    choice
}

/// Whether the choice is within a tenth of the best of these.
fn holds(speeds: &[f64], manual: &[Strategy]) {
    let (cluster, interpreter) = (cluster(speeds), ReferenceDevice::default());
    let targets = vec![interpreter.target(); speeds.len()];
    for (layers, width) in [(4, 64), (6, 512), (12, 256)] {
        let graph = perceptron(layers, width);
        let choice = chosen(&graph, &cluster, &targets);
        let own = choice.candidates[0].outcome.as_ref().expect("it fits").step_seconds;
        assert_eq!(choice.candidates[0].strategy, choice.strategy);
        for strategy in manual {
            let other = predicted(strategy, &graph, &cluster, &targets);
            assert!(own <= other * 1.1, "{layers} layers of {width}: {own} s where {strategy} takes {other} s");
        }
    }
}

#[test]
fn nothing_is_much_faster_on_an_equal_pair() {
    let dp = Strategy::data_parallel;
    let mut manual = vec![Strategy::alone("cpu:0"), dp(), dp().shard_state(), dp().leaves(4), dp().leaves(8)];
    for count in [2, 3, 4, 6, 8, 16, 32] {
        let pipeline = Strategy::pipeline(2).microbatches(count);
        manual.extend([pipeline.clone(), pipeline.schedule(PipelineSchedule::GPipe)]);
    }
    holds(&[1.0, 1.0], &manual);
}

#[test]
fn nothing_is_much_faster_on_a_pair_of_one_to_three() {
    let dp = Strategy::data_parallel;
    let mut manual = vec![Strategy::alone("cpu:0"), Strategy::alone("cpu:1"), dp(), dp().shard_state()];
    for shares in [[1, 1], [1, 2], [1, 3], [1, 4], [1, 5], [2, 3], [2, 5], [3, 5], [3, 8]] {
        manual.push(dp().leaves(shares.iter().sum()).shares(&shares));
    }
    manual.extend([2, 4, 8, 16].map(|count| Strategy::pipeline(2).microbatches(count)));
    holds(&[1.0, 3.0], &manual);
}

#[test]
fn nothing_is_much_faster_on_eight_devices() {
    let dp = Strategy::data_parallel;
    let mut manual = vec![Strategy::alone("cpu:3"), dp(), dp().shard_state(), dp().leaves(16)];
    for stages in [2, 4, 8] {
        manual.extend([2, 4, 8].map(|per_stage| Strategy::pipeline(stages).microbatches(stages * per_stage)));
        manual.push(Strategy::pipeline(stages).microbatches(4).shard_state());
    }
    holds(&[1.0; 8], &manual);
}

/// What does not fit a device's memory is not chosen, and where nothing fits it is said of each why.
#[test]
fn memory_is_a_limit() {
    let (mut cluster, interpreter) = (cluster(&[1.0, 1.0]), ReferenceDevice::default());
    let targets = vec![interpreter.target(); 2];
    let graph = perceptron(6, 512);
    let bytes = |choice: &Choice| {
        let fits =
            choice.candidates.iter().filter_map(|c| Some((c.name.clone(), c.outcome.as_ref().ok()?.bytes.clone())));
        fits.collect::<Vec<_>>()
    };
    let all = bytes(&chosen(&graph, &cluster, &targets));
    let need = |bytes: &[u64]| bytes.iter().max().copied().expect("two devices");
    let least = all.iter().map(|(_, b)| need(b)).min().expect("some fit");
    let (first, most) = (need(&all[0].1), all.iter().map(|(_, b)| need(b)).max().expect("some fit"));
    assert!(least < most, "{all:?}");
    for limit in [least, (least + first) / 2] {
        cluster.devices.iter_mut().for_each(|d| d.memory_bytes = Some(limit));
        let choice = chosen(&graph, &cluster, &targets);
        assert!(bytes(&choice).iter().all(|(_, b)| need(b) <= limit));
        assert!(choice.candidates.iter().any(|c| c.outcome.as_ref().is_err_and(|why| why.contains("bytes on cpu:"))));
    }
    cluster.devices.iter_mut().for_each(|d| d.memory_bytes = Some(1 << 10));
    let why = choose(&Strategy::auto(), &graph, &cluster, &targets).expect_err("nothing fits").to_string();
    assert!(why.contains("no strategy fits") && why.contains("data parallel: it needs"), "{why}");
}

/// What is said under `auto` goes for all candidates, and the model says what was chosen.
#[test]
fn what_is_said_is_kept() {
    let g = Graph::new("line");
    let x = g.input("x", F32, [8, 4]);
    let loss = Linear::new(4).call(x).mean().named("loss");
    g.program("train").outputs([loss]).update(Sgd::new(0.1).minimize(loss));
    let model = g.compile_with(&Cluster::cpus(2), &Strategy::auto().leaves(4)).expect("something fits");
    let spread = model.spread().expect("it is spread");
    assert_eq!(spread.request.mesh.leaves(), 4, "{}", spread.strategy);
    assert!(spread.choice.as_ref().is_some_and(|c| c.candidates.len() > 2));
    let undecided = Strategy::auto().request(model.graph(), &Cluster::cpus(2)).expect_err("it is open");
    assert!(undecided.to_string().contains("decided first"), "{undecided}");
    // A batch of eight has no row for each of sixteen leaves.
    let many = g.compile_with(&Cluster::cpus(2), &Strategy::auto().leaves(16)).err().expect("it cannot be").to_string();
    assert!(many.contains("a batch of 8 has no row for each of 16 leaves"), "{many}");
}
