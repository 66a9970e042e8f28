//! Laws over random graphs: no pass changes what a program means, bit for bit; a plan gives what the interpreter gives;
//! text and bytes come back as they were; scratch is what the plan says. A failing case shrinks to a short list of
//! numbers, from which the same graph grows again.

mod common;

use common::{Feeds, assert_near, by_interpreter, by_plan, devices, named_results};
use proptest::prelude::*;
use thalweg::graph::kernel::interpret::Precision;
use thalweg::graph::passes::{STANDARD, expand_composites, run_passes};
use thalweg::graph::plan::Memory;
use thalweg::graph::{Bindings, Graph as Ir, VarKind};
use thalweg::ops::sample::Data;
use thalweg::prelude::*;
use thalweg::runtime::Session;

/// Grows a graph from numbers: each picks an op and its operands among what there is. Ops are tame (no overflow), so
/// that devices can be compared by relative error.
fn grow(choices: &[(u8, u8, u8)], train: bool) -> Ir {
    let g = Graph::new("random").seed(7);
    let n = g.dim("n", 1..=16);
    let x = g.input("x", F32, shape![n, 6]);
    let index = g.input("index", I32, shape![n]);
    let w = g.parameter("w", F32, [6, 6], Init::Uniform { low: -0.4, high: 0.4 });
    let b = g.parameter("b", F32, [6], Init::Uniform { low: -1.0, high: 1.0 });
    let mut made = vec![x, x.matmul(w) + b];
    for (op, i, j) in choices {
        let pick = |k: &u8| made[*k as usize % made.len()];
        let (a, c) = (pick(i), pick(j));
        made.push(match op % 20 {
            0 => a + c,
            1 => a * c.tanh(),
            2 => a - b,
            3 => a.tanh(),
            4 => a.relu(),
            5 => a.sigmoid().matmul(w),
            6 => a.softmax(-1) * 3.0,
            7 => a.max_over(&[1]).reshape(shape![n, 1]) + c.tanh(),
            8 => a.lt(c).select(a, c),
            9 => a.tanh().matmul(w.transpose(&[1, 0])),
            10 => a.mean_over(&[0]) + c,
            11 => a.reshape(shape![n, 2, 3]).transpose(&[0, 2, 1]).reshape(shape![n, 6]),
            12 => a.tanh() / (c * c + 1.0),
            13 => a.maximum(c),
            14 => b.gather(index, 0).reshape(shape![n, 1]) + a,
            15 => a.tanh().exp(),
            16 => a.dropout(0.25),
            17 => a.sum_over(&[1]).tanh().reshape(shape![n, 1]).broadcast_to(shape![n, 6]),
            18 => a.log_softmax(-1),
            _ => a.argmax(-1).cast(F32).reshape(shape![n, 1]).tanh() + c,
        });
    }
    let last = made[made.len() - 1];
    // Whatever was picked, the loss depends on both parameters.
    let always = made[1].tanh().mean();
    let loss = (cross_entropy(last.tanh(), index).mean() + made[made.len() / 2].tanh().mean() + always).named("loss");
    let program = g.program("run").outputs([loss, last.named("last")]);
    drop(match (train, choices.len() % 2) {
        (false, _) => program,
        (true, 0) => program.update(AdamW::new(0.01).minimize(loss)),
        (true, _) => program.update(Sgd::new(0.1).momentum(0.9).minimize(loss)),
    });
    g.finish().unwrap_or_else(|mistakes| panic!("{}", mistakes[0]))
}

fn feeds(n: u64, seed: u64) -> Feeds {
    let x = Data::Uniform(-1.5, 1.5).make(&F32.of([n, 6]), seed);
    vec![("x".into(), x), ("index".into(), Data::Uniform(0.0, 6.0).make(&I32.of([n]), seed + 1))]
}

fn binding(n: u64) -> Bindings {
    [("n".into(), n)].into()
}

fn choices() -> impl Strategy<Value = Vec<(u8, u8, u8)>> {
    prop::collection::vec(any::<(u8, u8, u8)>(), 0..14)
}

/// Graphs per law: 60, or what `THALWEG_CASES` says.
fn cases() -> u32 {
    std::env::var("THALWEG_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_pass_changes_a_bit(choices in choices(), train: bool, n in 1u64..7, seed: u64) {
        let mut graph = expand_composites(&grow(&choices, train));
        let feeds = feeds(n, seed % 1000);
        let meaning = |g: &Ir| named_results(&by_interpreter(g, &binding(n), &feeds, Precision::Exact));
        let before = meaning(&graph);
        for pass in STANDARD {
            graph = run_passes(&graph, &[*pass], &mut |_, _| {});
            let after = meaning(&graph);
            for (name, value) in &before {
                prop_assert_eq!(value.bytes(), after[name].bytes(), "{} changed {}", pass.name, name);
            }
        }
    }

    #[test]
    fn a_plan_gives_what_the_interpreter_gives(choices in choices(), train: bool, n in 1u64..7, seed: u64) {
        let graph = grow(&choices, train);
        let feeds = feeds(n, seed % 1000);
        let primitive = run_passes(&graph, STANDARD, &mut |_, _| {});
        let want = named_results(&by_interpreter(&primitive, &binding(n), &feeds, Precision::Exact));
        for (device_name, device) in devices() {
            let got = by_plan(&graph, device, &feeds);
            for (name, want) in &want {
                if device_name == "reference" {
                    prop_assert_eq!(got[name].bytes(), want.bytes(), "{}", name);
                } else {
                    // Adam divides gradients by their own size: a rounding error of a tiny one becomes a visible step.
                    let tolerance = if train { 2e-2 } else { 1e-4 };
                    assert_near(&format!("{name} on {device_name}"), &got[name].to_f64(), &want.to_f64(), tolerance, 1.0);
                }
            }
        }
    }

    #[test]
    fn one_thread_and_two_give_the_same_bits_twice(choices in choices(), n in 1u64..17, seed: u64) {
        let graph = grow(&choices, true);
        let feeds = feeds(n, seed % 1000);
        let runs: Vec<_> = [1, 2, 2].map(|threads| by_plan(&graph, common::cpu(threads), &feeds)).into();
        for name in runs[0].keys() {
            prop_assert_eq!(runs[0][name].bytes(), runs[1][name].bytes());
            prop_assert_eq!(runs[1][name].bytes(), runs[2][name].bytes());
        }
    }

    #[test]
    fn text_and_bytes_come_back_as_they_were(choices in choices(), train: bool) {
        let graph = grow(&choices, train);
        let registry = thalweg::ops::registry();
        let primitive = run_passes(&graph, STANDARD, &mut |_, _| {});
        for graph in [graph, primitive] {
            prop_assert_eq!(&Ir::parse(&graph.to_string(), &registry).unwrap(), &graph);
            prop_assert_eq!(&Ir::from_bytes(&graph.to_bytes(), &registry).unwrap(), &graph);
        }
    }

    #[test]
    fn memory_is_what_the_plan_says(choices in choices(), n in 1u64..17) {
        let graph = grow(&choices, true);
        let mut session = Session::new(graph.clone(), common::cpu(2)).unwrap();
        let plan = session.plan("run", &binding(n)).unwrap();
        session.run("run", &common::borrowed(&feeds(n, 1))).unwrap();
        for memory in Memory::ALL {
            let planned = plan.devices[0].bytes(memory);
            prop_assert_eq!(session.device().reserved(memory), planned.next_multiple_of(64), "{}", memory.name());
        }
        let used = plan.devices[0].buffers.values().iter().filter(|b| b.memory == Memory::Scratch).map(|b| b.range().end);
        let work = plan.devices[0].launches().map(|(_, l)| l.workspace.0 + l.workspace.1);
        let peak = used.chain(work).max().unwrap_or(0).next_multiple_of(64);
        prop_assert_eq!(peak, plan.devices[0].scratch_bytes, "scratch is not a byte larger than its last buffer");
        let params = graph.state.values().iter().filter(|v| v.kind == VarKind::Param).count();
        prop_assert_eq!(params, 2);
    }
}
