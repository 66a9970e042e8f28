//! The law of placement: a program cut for any leaves on any devices computes what it computes whole. By the interpreter,
//! which knows nothing of devices, and in which a sum in another order is the only difference there can be.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use common::{Feeds, assert_near};
use proptest::prelude::{ProptestConfig, proptest};
use thalweg::graph::evaluate::{Evaluated, Named, evaluate, evaluate_devices};
use thalweg::graph::init::initial_value;
use thalweg::graph::kernel::BufferType;
use thalweg::graph::kernel::interpret::{Precision, Values};
use thalweg::graph::lower::{Share, StateMap, lower_devices};
use thalweg::graph::partition::partition;
use thalweg::graph::passes::{STANDARD, run_passes, select_program};
use thalweg::graph::place::{Mesh, Request, place};
use thalweg::graph::plan::{ChannelId, Endpoint, Instruction, Memory, Plan};
use thalweg::graph::{Bindings, Graph as Ir, VarId};
use thalweg::prelude::*;
use thalweg::runtime::{Device, ReferenceDevice};

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
    let (fed, feeds) = (feeds, named(feeds));
    let whole = evaluate(&bound, &bound.programs[0], &feeds, &state, Precision::Exact).expect("it has a meaning");
    let want = results(&whole);
    let placed = place(&bound, request).expect("it can be placed");
    let parts = partition(&placed, devices);
    for device in &parts.devices {
        let faults = device.graph.verify();
        assert!(faults.is_empty(), "{}\n{}", faults[0], device.graph);
    }
    let (layouts, map) = request.state(&bound, devices);
    let local = |device: usize| -> Named {
        let share = |(id, v): (VarId, &thalweg::graph::Variable)| {
            let own = map.shares[id].iter().find(|s| usize::from(s.device) == device).expect("a share");
            let mut array = Array::zeros(own.ty.dtype, &own.ty.shape);
            array.bytes_mut().copy_from_slice(&cut_out(&initial_value(v, bound.seed), own));
            (v.name.clone(), Values::from_array(&array))
        };
        bound.state.iter().map(share).collect()
    };
    let states: Vec<Named> = (0..devices).map(local).collect();
    let done = evaluate_devices(&parts, &feeds, &states, Precision::Exact).expect("no device waits for ever");
    // What leaves for the driver, put together.
    let mut got: BTreeMap<String, Values> = BTreeMap::new();
    for (d, (device, evaluated)) in parts.devices.iter().zip(&done).enumerate() {
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
            let id = bound.variable(name).expect("a variable");
            let own = map.shares[id].iter().find(|s| usize::from(s.device) == d).expect("a share");
            let whole = got.entry(name.to_string()).or_insert_with(|| want[&**name].clone());
            for (there, here, n) in own.runs() {
                let [there, here, n] = [there, here, n].map(|x| x as usize);
                whole.data[there..there + n].copy_from_slice(&value.data[here..here + n]);
            }
        }
    }
    for (name, want) in &want {
        let got = got.get(name).unwrap_or_else(|| panic!("nobody made {name}"));
        let numbers = |v: &Values| v.data.iter().map(|x| x.f64()).collect::<Vec<_>>();
        assert_near(name, &numbers(got), &numbers(want), tolerance, 1.0);
    }
    // And as a plan.
    let target = ReferenceDevice::default();
    let targets = vec![target.target(); devices];
    let plan = Arc::new(lower_devices(&parts, bindings, &layouts, &targets).expect("it is lowered"));
    let faults = plan.verify();
    assert!(faults.is_empty(), "{}\n{plan}", faults[0]);
    let ran = walk(&plan, &map, &bound, fed);
    for (name, got) in &got {
        let bits = |v: &Values| v.to_array().bytes().to_vec();
        assert_eq!(ran[name].bytes(), bits(got), "{name}: the plan is not what was cut\n{plan}");
    }
}

/// Walks a plan on interpreters, one instruction at a time, whoever can go on: no thread, no executor.
fn walk(plan: &Arc<Plan>, state: &StateMap, graph: &Ir, feeds: &Feeds) -> BTreeMap<String, Array> {
    let mut devices: Vec<ReferenceDevice> = plan.devices.iter().map(|_| ReferenceDevice::default()).collect();
    let mut loaded = Vec::new();
    for (part, device) in devices.iter_mut().enumerate() {
        device.reserve_state(state.bytes[part]).expect("room");
        for (id, variable) in graph.state.iter() {
            let value = initial_value(variable, graph.seed);
            let own = state.shares[id].iter().find(|s| usize::from(s.device) == part).expect("a share");
            device.write(Memory::State, own.offset, &cut_out(&value, own)).expect("it is written");
        }
        loaded.push(device.load(plan, part).expect("it loads"));
    }
    let mut at = vec![0; devices.len()];
    let mut crossing: BTreeMap<ChannelId, Vec<u8>> = BTreeMap::new();
    let mut granted: BTreeSet<ChannelId> = BTreeSet::new();
    let mut got: BTreeMap<String, Array> = BTreeMap::new();
    let mut moved = true;
    while std::mem::take(&mut moved) {
        for (d, device) in devices.iter_mut().enumerate() {
            let part = &plan.devices[d];
            while let Some(instruction) = part.instructions.get(at[d]) {
                let bytes = |c: &ChannelId| plan.channels[*c].ty.size_bytes() as usize;
                match instruction {
                    Instruction::Launch(_) | Instruction::Copy { .. } => {
                        device.run(loaded[d], at[d]..at[d] + 1, None).expect("it runs");
                    }
                    Instruction::Grant(channel) => drop(granted.insert(*channel)),
                    Instruction::Wait { channel, buffer } => {
                        let (ch, to) = (&plan.channels[*channel], &part.buffers[*buffer]);
                        let start = ch.start as usize * ch.ty.dtype.size_bytes();
                        let fed = feeds.iter().find(|(name, _)| *name == *ch.label).map(|(_, a)| &a.bytes()[start..]);
                        let arrived = match ch.from {
                            Endpoint::Driver => fed.map(|f| f[..bytes(channel)].to_vec()),
                            Endpoint::Device(_) => crossing.get(channel).cloned(),
                        };
                        let Some(arrived) = arrived else { break };
                        device.write(to.memory, to.offset, &arrived).expect("it is written");
                    }
                    Instruction::Post { channel, buffer } => {
                        let (ch, from) = (&plan.channels[*channel], &part.buffers[*buffer]);
                        let mut sent = vec![0; bytes(channel)];
                        device.read(from.memory, from.offset, &mut sent).expect("it is read");
                        match ch.to {
                            Endpoint::Device(_) if !granted.contains(channel) => break,
                            Endpoint::Device(_) => drop(crossing.insert(*channel, sent)),
                            Endpoint::Driver => {
                                let ty = graph.programs[0].outputs.iter().find(|(n, _)| *n == ch.label);
                                let ty = BufferType::of(graph.ty(ty.expect("an output").1)).expect("bound");
                                let whole = got.entry(ch.label.to_string());
                                let whole = whole.or_insert_with(|| Array::zeros(ty.dtype, &ty.shape));
                                let start = ch.start as usize * ty.dtype.size_bytes();
                                whole.bytes_mut()[start..start + sent.len()].copy_from_slice(&sent);
                            }
                        }
                    }
                    Instruction::Sent(_) | Instruction::Snapshot => {}
                    // Nobody's tail begins before everybody's body has ended: what a tail writes nobody else reads.
                    Instruction::Commit => {}
                }
                (at[d], moved) = (at[d] + 1, true);
            }
        }
    }
    for (d, part) in plan.devices.iter().enumerate() {
        assert!(at[d] == part.instructions.len(), "{} stopped at {}:\n{plan}", part.device, at[d]);
    }
    for (id, variable) in graph.state.iter() {
        let mut whole = initial_value(variable, graph.seed);
        let element = whole.dtype().size_bytes();
        let mut seen = BTreeMap::new();
        for share in &state.shares[id] {
            let mut value = vec![0; share.ty.size_bytes() as usize];
            let device = &mut devices[usize::from(share.device)];
            device.read(Memory::State, share.offset, &mut value).expect("it is read");
            for (there, here, n) in share.runs() {
                let [there, here, n] = [there, here, n].map(|x| x as usize * element);
                let bytes = &value[here..here + n];
                let before = seen.insert(there, bytes.to_vec());
                assert!(before.is_none_or(|b| b == bytes), "{} differs from device to device", variable.name);
                whole.bytes_mut()[there..there + n].copy_from_slice(bytes);
            }
        }
        got.insert(variable.name.to_string(), whole);
    }
    got
}

/// The bytes of a share.
fn cut_out(value: &Array, share: &Share) -> Vec<u8> {
    let element = value.dtype().size_bytes();
    let run = |(there, _, n): (u64, u64, u64)| &value.bytes()[there as usize * element..(there + n) as usize * element];
    share.runs().into_iter().flat_map(run).copied().collect()
}

fn data_parallel(leaves: u16, devices: u16, owns_slots: bool) -> Request {
    let rows = |name: &str| (name.into(), vec![Some(0)]);
    let inputs = [rows("x"), rows("index")].into();
    Request { inputs, owns_slots, ..Request::new(Mesh::line("dp", leaves, devices)) }
}

/// Declarations in any stages, one after the other or to and fro.
fn any_stages(graph: &Ir, mut request: Request, devices: u16, seed: u64) -> Request {
    let stages = 1 + devices;
    let first = request.mesh.stages[0].clone();
    let shifted = |by: u16| first.iter().map(|d| (d + by) % devices).collect();
    request.mesh.stages = (0..stages).map(shifted).collect();
    request.stages.pipeline = stages;
    let stage = |stem: u32| (seed.rotate_right(stem).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % u64::from(stages);
    request.stages.stems = graph.nodes.values().iter().map(|n| (n.stem, stage(n.stem) as u16)).collect();
    request.stages.stems.retain(|stem, _| stem % 4 != 1);
    request.stages.settle(graph);
    request
}

/// Some of the nodes to be spread somehow over the axes `dp`, `tp` and `sp`.
fn sharded(mut graph: Ir, seed: u64) -> Ir {
    let mut state = seed;
    let mut next = |below: usize| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for id in graph.nodes.ids() {
        let rank = graph.nodes[id].types[0].rank();
        let mut axes = vec![None; rank];
        for name in ["dp", "tp", "sp"] {
            if next(2) == 0 && rank > 0 {
                axes[next(rank)] = Some(name.into());
            }
        }
        graph.nodes[id].sharding = (next(3) == 0).then(|| axes.into());
    }
    assert!(graph.verify().is_empty());
    graph
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
        for owns in [false, true] {
            let request = data_parallel(leaves, devices, owns);
            check(&graph, &Bindings::new(), &feeds, &request, usize::from(devices), 1e-5);
        }
    }
}

/// Two layers, the first cut by its columns and the second by its rows, on two groups of two devices.
#[test]
fn a_perceptron_by_columns_and_rows() {
    let g = Graph::new("mlp").seed(3);
    let x = g.input("x", F32, shape![8, 6]);
    let label = g.input("index", I32, shape![8]);
    let hidden = g.scope("fc2", || Linear::new(6).call(g.scope("fc1", || Linear::new(9).call(x)).relu()));
    let loss = cross_entropy(hidden, label).mean().named("loss");
    g.program("run").outputs([loss]).update(AdamW::new(0.1).minimize(loss));
    let graph = g.finish().unwrap();
    let feeds = random::feeds(8, 5);
    let strategy = Strategy::data_parallel().tensor_parallel(2).shard("fc2.fc1.weight", 0);
    let strategy = strategy.shard("*fc1.bias", 0).shard("fc2.weight", 1);
    for devices in [2, 4, 6] {
        let request = strategy.request(&graph, &Cluster::cpus(devices)).expect("it fits");
        check(&graph, &Bindings::new(), &feeds, &request, devices, 1e-4);
    }
    let wide = |s: &Strategy, n| s.request(&graph, &Cluster::cpus(n)).expect_err("it does not fit").to_string();
    assert!(wide(&strategy, 3).contains("groups of 2"), "{}", wide(&strategy, 3));
    assert!(wide(&strategy.clone().shard("fc3.weight", 0), 2).contains("no such parameter"));
    assert!(wide(&strategy.shard("fc2.bias", 1), 2).contains("along axis 1"));
}

/// The same said in the model, over meshes of one, two and three axes; and what is wrong with one.
#[test]
fn a_perceptron_as_the_model_says() {
    let g = Graph::new("mlp").seed(3);
    let x = g.input("x", F32, shape![8, 6]).shard([None, Some("sp")]);
    let label = g.input("index", I32, shape![8]);
    let hidden = g.scope("fc1", || Linear::new(12).call(x)).relu().shard([Some("dp"), Some("tp")]);
    let logits = g.scope("fc2", || Linear::new(6).call(hidden)).shard([None, Some("sp")]);
    g.shard("*fc1.weight", [Some("tp"), Some("sp")]);
    g.shard("fc1.bias", [Some("tp")]);
    g.shard("fc2.weight", [None, Some("tp")]);
    let loss = cross_entropy(logits, label).mean().named("loss");
    g.program("run").outputs([loss]).update(AdamW::new(0.1).minimize(loss));
    let graph = g.finish().unwrap();
    // In mixed precision as well, where what is computed is computed by other nodes.
    g.program("mixed").outputs([logits.named("logits")]).precision(thalweg::Precision::Mixed(BF16));
    let mixed = g.finish().unwrap();
    let halves = mixed.nodes.values().iter().filter(|n| n.types[0].dtype == BF16 && n.sharding.is_some());
    assert_eq!(halves.count(), 2, "{mixed}");
    let feeds = random::feeds(8, 5);
    let dp = Strategy::data_parallel;
    for (strategy, devices, cut) in [
        (dp(), 1, false),
        (dp(), 3, false),
        (dp().mesh(&[("dp", 1), ("tp", 3), ("sp", 1)]), 3, true),
        (dp().mesh(&[("dp", 2), ("tp", 2), ("sp", 1)]).leaves(4), 4, true),
        (dp().mesh(&[("dp", 2), ("sp", 2), ("tp", 2)]), 8, true),
        (Strategy::pipeline(2).microbatches(2).mesh(&[("dp", 1), ("sp", 1), ("tp", 2)]), 4, true),
    ] {
        let request = strategy.request(&graph, &Cluster::cpus(devices)).expect("it fits");
        let weight = &graph.state[graph.variable("fc1.weight").expect("declared")];
        let is_cut = format!("{:?}", request.variable(weight)).contains("Shard");
        assert_eq!(is_cut, cut, "{strategy}");
        // Rows are those of a batch, whatever is said of columns.
        assert_eq!(request.inputs["x"][0], Some(0), "{strategy}");
        check(&graph, &Bindings::new(), &feeds, &request, devices, 1e-4);
    }
    let wrong = |s: Strategy| s.request(&graph, &Cluster::cpus(4)).expect_err("it does not fit").to_string();
    for (axes, says) in [
        (&[("dp", 2), ("tp", 2)][..], "is to be spread over `sp`; the mesh has `dp`, `tp`"),
        (&[("dp", 4)], "over `sp`; the mesh has `dp`"),
        (&[], "an axis at least"),
        (&[("dp", 1), ("tp", 3), ("sp", 1)], "groups of 3 devices cannot be made of 4"),
        (&[("dp", 1), ("tp", 2), ("sp", 1)], "the mesh dp 1 × tp 2 × sp 1 is of 2 devices, and there are 4"),
        (&[("dp", 2), ("dp", 2)], "a name of its own"),
        (&[("dp", 2), ("tp", 0)], "with devices"),
    ] {
        let said = wrong(dp().mesh(axes));
        assert!(said.contains(says), "{said}");
    }
    assert!(wrong(dp().tensor_parallel(2)).contains("the mesh has `dp`, `tp`"));
}

/// What cannot be granted is said, and computed all the same.
#[test]
fn what_cannot_be_spread_is_said() {
    let g = Graph::new("mlp").seed(3);
    let x = g.input("x", F32, shape![8, 6]);
    let w = g.parameter("w", F32, [6, 6], Init::Uniform { low: -1.0, high: 1.0 }).shard([Some("dp"), None]);
    let shifted = x.matmul(w).slice(1, 1u64..6).shard([None, Some("tp")]);
    g.program("run").outputs([shifted.named("shifted")]);
    let graph = g.finish().unwrap();
    // Four leaves on two devices: a device cannot have two places of a variable.
    let strategy = Strategy::data_parallel().mesh(&[("dp", 2), ("tp", 2)]).leaves(4);
    let request = strategy.request(&graph, &Cluster::cpus(4)).expect("it fits");
    let warnings = format!("{:?}", request.stages.warnings);
    assert!(warnings.contains("`w` is not cut over `dp`: a device has several places along it"), "{warnings}");
    let bound = run_passes(&graph, STANDARD, &mut |_, _| {});
    let notes = format!("{:?}", place(&bound, &request).expect("it is placed").notes);
    assert!(notes.contains("axis 1 cannot be spread over `tp`"), "{notes}");
    check(&graph, &Bindings::new(), &random::feeds(8, 5), &request, 4, 1e-5);
}

#[test]
fn shardings_that_mean_nothing_are_mistakes() {
    let g = Graph::new("wrong");
    let x = g.input("x", F32, shape![8, 6]);
    let w = g.parameter("fc.weight", F32, [6, 6], Init::Constant(0.0)).shard([Some("tp")]);
    let y = x.matmul(w).shard([Some("tp"), Some("tp")]).tanh().shard([None, Some("t p")]);
    g.shard("*fc.wieght", [None, Some("tp")]);
    g.program("run").outputs([y.named("y")]);
    let mistakes: Vec<String> = g.finish().expect_err("mistakes").iter().map(ToString::to_string).collect();
    let says = [
        "1 axes are told how to be spread, and f32[6, 6] has 2",
        "two axes cannot both be spread over `tp`",
        "\"t p\" cannot be an axis of a mesh",
        "there is no parameter `*fc.wieght`; did you mean `fc.weight`?",
    ];
    assert_eq!(mistakes.len(), says.len(), "{mistakes:#?}");
    for (mistake, says) in mistakes.iter().zip(says) {
        assert!(mistake.contains(says) && mistake.contains("placement.rs"), "{mistake}");
    }
}

/// Four layers in stages, alone and side by side, with all that goes with them.
#[test]
fn a_perceptron_in_stages() {
    let g = Graph::new("mlp").seed(3);
    let x = g.input("x", F32, shape![8, 6]);
    let label = g.input("index", I32, shape![8]);
    let mut hidden = x;
    for (i, width) in [9, 16, 7, 6].into_iter().enumerate() {
        hidden = g.scope(&format!("fc{i}"), || Linear::new(width).call(hidden).relu());
    }
    let loss = cross_entropy(hidden, label).mean().named("loss");
    let rate = AdamW::new(0.1).clip_norm(0.5).schedule(Schedule::cosine(10));
    g.program("run").outputs([loss]).update(rate.minimize(loss));
    let graph = g.finish().unwrap();
    let feeds = random::feeds(8, 5);
    let pipeline = |stages, count| Strategy::pipeline(stages).microbatches(count);
    for (strategy, devices) in [
        (pipeline(2, 4), 2),
        (pipeline(2, 4).schedule(PipelineSchedule::GPipe), 2),
        (pipeline(3, 8), 3),
        (pipeline(4, 3), 4),
        (pipeline(2, 4), 4),
        (pipeline(2, 2).shard_state(), 4),
        (pipeline(2, 4).tensor_parallel(2).shard("fc1.weight", 0).shard("fc1.bias", 0), 4),
        (pipeline(2, 2).shares(&[1, 3]), 4),
    ] {
        let request = strategy.request(&graph, &Cluster::cpus(devices)).expect("it fits");
        assert!(request.stages.warnings.is_empty());
        check(&graph, &Bindings::new(), &feeds, &request, devices, 1e-5);
    }
}

/// The devices behind the first ones are servers.
fn served(graph: &Ir, leaves: u16, workers: u16, servers: u16) -> Request {
    let mut request = data_parallel(leaves, workers, false);
    let all = workers + servers;
    request.mesh.stages.push((0..leaves).map(|leaf| workers + leaf * servers / leaves).collect());
    request.serve(graph, &(workers..all).collect::<Vec<_>>(), all.into());
    request
}

/// What updates variables, and norms over all gradients, on servers.
#[test]
fn a_perceptron_on_servers() {
    let g = Graph::new("mlp").seed(3);
    let x = g.input("x", F32, shape![8, 6]);
    let label = g.input("index", I32, shape![8]);
    let hidden = g.scope("fc1", || Linear::new(900).call(x)).relu();
    let logits = g.scope("fc2", || Linear::new(6).call(hidden));
    let loss = cross_entropy(logits, label).mean().named("loss");
    let rate = AdamW::new(0.1).clip_norm(0.5).schedule(Schedule::cosine(10));
    g.program("run").outputs([loss]).update(rate.minimize(loss));
    let graph = g.finish().unwrap();
    let feeds = random::feeds(8, 5);
    for (strategy, devices) in [
        (Strategy::servers(1), 2),
        (Strategy::servers(1).leaves(4), 3),
        (Strategy::servers(2), 4),
        (Strategy::servers(3).leaves(4), 5),
        (Strategy::servers_on(&["cpu:0", "cpu:2"]).leaves(3), 4),
        (Strategy::servers(1).mesh(&[("dp", 2), ("tp", 1)]), 3),
    ] {
        let request = strategy.request(&graph, &Cluster::cpus(devices)).expect("it fits");
        check(&graph, &Bindings::new(), &feeds, &request, devices, 1e-4);
    }
    let wrong = |s: Strategy| s.request(&graph, &Cluster::cpus(3)).expect_err("it does not fit").to_string();
    for (strategy, says) in [
        (Strategy::servers(0), "there has to be a server and a worker"),
        (Strategy::servers(3), "3 of 3 devices cannot be parameter servers"),
        (Strategy::servers_on(&["cpu:1", "cpu:1"]), "nobody is named twice"),
        (Strategy::servers_on(&["cpu:7"]), "`cpu:7`; there are `cpu:0`"),
        (Strategy::servers(2), "2 parameter servers for 1 leaves"),
        (Strategy::servers(1).shard_state(), "do not go with sharing out"),
        (Strategy::servers(1).tensor_parallel(2), "do not go with groups of devices"),
    ] {
        let said = wrong(strategy);
        assert!(said.contains(says), "{said}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: random::cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_graph_by_rows(
        choices in random::choices(), train: bool, owns: bool, n in 1u64..9, leaves in 1u16..6, devices in 1u16..5,
    ) {
        let graph = random::grow(&choices, train);
        let devices = devices.min(leaves);
        let request = data_parallel(leaves, devices, owns);
        check(&graph, &random::binding(n), &random::feeds(n, 3), &request, usize::from(devices), if train { 2e-2 } else { 1e-4 });
    }

    #[test]
    fn any_graph_with_any_shardings(
        choices in random::choices(), train: bool, n in 1u64..9, (dp, tp, sp) in (1u16..4, 1u16..4, 1u16..3),
        more in 0u16..3, seed: u64,
    ) {
        let graph = sharded(random::grow(&choices, train), seed);
        let strategy = Strategy::data_parallel().mesh(&[("dp", dp), ("tp", tp), ("sp", sp)]).leaves(dp + more);
        let devices = usize::from(dp * tp * sp);
        let request = strategy.request(&graph, &Cluster::cpus(devices)).expect("it fits");
        check(&graph, &random::binding(n), &random::feeds(n, 3), &request, devices, if train { 2e-2 } else { 1e-4 });
    }

    #[test]
    fn any_graph_on_servers(
        choices in random::choices(), train: bool, n in 1u64..9, leaves in 1u16..6, workers in 1u16..4, servers in 1u16..4,
    ) {
        let graph = random::grow(&choices, train);
        let (workers, servers) = (workers.min(leaves), servers.min(leaves));
        let request = served(&graph, leaves, workers, servers);
        let devices = usize::from(workers + servers);
        check(&graph, &random::binding(n), &random::feeds(n, 3), &request, devices, if train { 2e-2 } else { 1e-4 });
    }

    #[test]
    fn any_graph_in_any_stages(
        choices in random::choices(), train: bool, owns: bool, n in 1u64..9, leaves in 1u16..6, devices in 1u16..5, seed: u64,
    ) {
        let graph = random::grow(&choices, train);
        let devices = devices.min(leaves);
        let request = any_stages(&graph, data_parallel(leaves, devices, owns), devices, seed);
        check(&graph, &random::binding(n), &random::feeds(n, 3), &request, usize::from(devices), if train { 2e-2 } else { 1e-4 });
    }
}
