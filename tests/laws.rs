//! Laws over random graphs: no pass changes what a program means, bit for bit; a plan gives what the interpreter gives;
//! text and bytes come back as they were; scratch is what the plan says. A failing case shrinks to a short list of
//! numbers, from which the same graph grows again.

mod common;
#[path = "common/random.rs"]
mod random;

use common::{assert_near, by_interpreter, by_plan, devices, named_results};
use proptest::prelude::*;
use random::{binding, cases, choices, feeds, grow};
use thalweg::graph::kernel::interpret::Precision;
use thalweg::graph::passes::{STANDARD, expand_composites, run_passes};
use thalweg::graph::plan::Memory;
use thalweg::graph::{Graph as Ir, VarKind};
use thalweg::runtime::Session;

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
