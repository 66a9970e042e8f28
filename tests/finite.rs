//! A value that is not finite fails its step before anything is committed, and the error names the first node to blame,
//! with its line. Looking changes no bit.

mod common;

use thalweg::prelude::*;
use thalweg::runtime::{NotFinite, RunError, Session};

#[track_caller]
fn not_finite(outcome: thalweg::Result<thalweg::runtime::Outputs>) -> NotFinite {
    match outcome {
        Err(thalweg::Error::Run(RunError::NotFinite(found))) => *found,
        other => panic!("this should not be finite: {other:?}"),
    }
}

fn numbers(values: &[f32]) -> Array {
    Array::from_slice(&[values.len() as u64], values)
}

#[test]
fn the_logarithm_of_a_negative_number_is_found_on_the_way_to_the_loss() {
    let g = Graph::new("log");
    let x = g.input("x", F32, [4]);
    let w = g.parameter("w", F32, [4], Init::Constant(1.0));
    let scaled = x * w;
    let line = line!() + 1;
    let logs = scaled.log();
    let loss = (logs * logs).mean().named("loss").check_finite();
    g.program("train").outputs([loss]).update(Sgd::new(0.1).minimize(loss));
    let mut model = g.compile(&Cluster::cpu(2)).unwrap();
    model.run("train", feed! { x: &numbers(&[1.0, 2.0, 3.0, 4.0]) }).unwrap();
    let before = model.digest().unwrap();

    let error = model.run("train", feed! { x: &numbers(&[1.0, 2.0, -3.0, -4.0]) }).unwrap_err();
    let drawn = error.to_string();
    for part in [
        "error[finite]: `log` is not finite: 2 of 4 elements, the first at [2] is NaN",
        "tests/finite.rs:",
        "let logs = scaled.log();",
        "`x` is f32[4], finite, from -",
        "in program `train`, after 1 committed steps; nothing was committed",
        "help: it is undefined for some of its operands",
    ] {
        assert!(drawn.contains(part), "missing {part:?} in\n{drawn}");
    }
    let found = not_finite(Err(error));
    assert_eq!(
        (found.site.line, found.count, &found.index[..], &*found.value, found.step),
        (line, 2, &[2][..], "NaN", 1)
    );
    assert_eq!(model.digest().unwrap(), before, "nothing was committed");
    model.run("train", feed! { x: &numbers(&[1.0, 2.0, 3.0, 4.0]) }).unwrap();
    assert_ne!(model.digest().unwrap(), before, "it goes on");
}

#[test]
fn a_division_by_zero_deep_in_the_third_layer_is_found_by_the_switch() {
    let g = Graph::new("deep");
    let mut h = g.input("x", F32, [2, 3]);
    let mut line = 0;
    for i in 0..5 {
        h = g.scope(&format!("l{i}"), || {
            let w = g.parameter("w", F32, [3, 3], Init::Uniform { low: -0.5, high: 0.5 });
            let d = g.parameter("d", F32, [3], Init::Constant(1.0));
            line = line!() + 1;
            (h.matmul(w).tanh() + 2.0) / d
        });
    }
    // What is infinite in between leaves no trace in the output.
    let out = h.minimum(g.parameter("cap", F32, (), Init::Constant(1.0))).named("out");
    g.program("predict").outputs([out]);
    for (name, device) in common::devices() {
        let mut session = Session::new(g.finish().unwrap(), device).unwrap();
        let x = Array::from_slice(&[2, 3], &[0.1f32, 0.2, 0.3, -0.1, -0.2, -0.3]);
        let run = |s: &mut Session| s.run("predict", &[("x", &x)]);
        let plain = run(&mut session).unwrap();
        session.check_finite(true);
        let checked = run(&mut session).unwrap();
        assert_eq!(plain.get("out").unwrap().bytes(), checked.get("out").unwrap().bytes(), "{name}");

        session.set("l3.d", &numbers(&[1.0, 0.0, 1.0])).unwrap();
        let Err(RunError::NotFinite(found)) = run(&mut session) else { panic!("{name}: not found") };
        assert_eq!((&*found.label, found.site.line), ("l3: div", line), "{name}");
        assert_eq!((found.count, &found.index[..], &*found.value), (2, &[0, 1][..], "inf"), "{name}");
        assert!(found.to_string().contains("`rhs` is f32[3], finite, from 0.0 to 1.0"), "{found}");
        session.check_finite(false);
        run(&mut session).unwrap_or_else(|e| panic!("{name}: nobody looks any more, but {e}"));
    }
}

#[test]
fn a_loss_scale_that_is_too_large_overflows_in_a_gradient() {
    let g = Graph::new("scaled");
    let x = g.input("x", F32, [2, 3]);
    let w = g.scope("head", || g.parameter("w", F32, [3, 1], Init::Constant(10.0)));
    let line = line!() + 1;
    let guess = g.scope("head", || x.matmul(w).exp());
    let loss = guess.mean().named("loss");
    let scaled = loss * 1e38;
    g.program("train").outputs([loss]).update(Sgd::new(1e-38).minimize(scaled));
    let mut model = g.compile(&Cluster::cpu(1)).unwrap();
    model.check_finite(true);
    let rows = |x: f32| Array::from_slice(&[2, 3], &[x; 6]);
    model.run("train", feed! { x: &rows(-1.0) }).unwrap();
    let before = model.digest().unwrap();
    // The loss is 4e17; only what it is scaled by takes the gradient, and not the loss itself, out of range.
    let found = not_finite(model.run("train", feed! { x: &rows(1.35) }));
    assert!(found.label.contains("gradient of exp"), "{found}");
    assert_eq!((found.site.line, &*found.value), (line, "inf"));
    assert!(found.diagnostic.help.as_ref().unwrap().contains("loss scale"), "{found}");
    assert_eq!((model.digest().unwrap(), model.step()), (before, 1));
}

#[test]
fn what_was_fed_or_set_is_named_as_that() {
    let g = Graph::new("given");
    let x = g.input("x", F32, [3]);
    let w = g.parameter("w", F32, [3], Init::Constant(1.0));
    g.program("run").outputs([(x * w).mean().named("y")]);
    let mut model = g.compile(&Cluster::cpu(1)).unwrap();
    model.check_finite(true);
    let found = not_finite(model.run("run", feed! { x: &numbers(&[1.0, f32::INFINITY, 2.0]) }));
    assert_eq!(found.diagnostic.message, "input `x` is not finite: 1 of 3 elements, the first at [1] is inf");
    model.set("w", &numbers(&[1.0, 1.0, f32::NAN])).unwrap();
    let found = not_finite(model.run("run", feed! { x: &numbers(&[1.0, f32::INFINITY, 2.0]) }));
    assert_eq!(found.label, "x: input", "the first in the graph's order");
    let found = not_finite(model.run("run", feed! { x: &numbers(&[1.0; 3]) }));
    assert_eq!(found.diagnostic.message, "variable `w` is not finite: 1 of 3 elements, the first at [2] is NaN");
}

/// Dropout, batch norm, an optimizer with slots, and a causal mask, which is infinite on purpose.
#[test]
fn checking_every_value_changes_no_bit_and_takes_no_mask_for_a_mistake() {
    for model in common::models::ALL {
        let digests = [false, true].map(|check| {
            let mut trained = model.compile(2);
            trained.check_finite(check);
            (0..5).for_each(|i| drop(model.step(&mut trained, i).unwrap_or_else(|e| panic!("{}: {e}", model.name))));
            trained.digest().unwrap()
        });
        assert_eq!(digests[0], digests[1], "{}", model.name);
    }
}

/// A row in which everything is masked has nothing to choose from: that is NaN, and no mask's fault alone.
#[test]
fn a_row_that_is_masked_as_a_whole_is_found() {
    let g = Graph::new("masked");
    let (x, seen) = (g.input("x", F32, [2, 3]), g.input("seen", Bool, [2, 3]));
    let line = line!() + 1;
    let chosen = x.where_(seen, f64::NEG_INFINITY).softmax(-1);
    g.program("run").outputs([chosen.named("chosen")]);
    let mut model = g.compile(&Cluster::cpu(1)).unwrap();
    model.check_finite(true);
    let x = Array::from_slice(&[2, 3], &[1.0f32; 6]);
    let some = Array::from_bools(&[2, 3], &[true, false, false, true, true, false]);
    model.run("run", feed! { x: &x, seen: &some }).unwrap();
    let none = Array::from_bools(&[2, 3], &[true, false, false, false, false, false]);
    let found = not_finite(model.run("run", feed! { x: &x, seen: &none }));
    assert_eq!((found.label.as_str(), found.site.line), ("sub (softmax)", line));
    assert_eq!((found.count, &found.index[..], &*found.value), (3, &[1, 0][..], "NaN"));
    assert!(found.diagnostic.help.as_ref().unwrap().contains("masked"), "{found}");
}

#[test]
fn checks_that_can_say_nothing_are_mistakes() {
    let g = Graph::new("wrong");
    let x = g.input("x", F32, [3]);
    let line = line!() + 1;
    let _ = x.argmax(-1).check_finite();
    let lines = |g: &Graph| g.finish().err().map(|l| l.into_iter().map(|d| (d.code, d.site.line)).collect::<Vec<_>>());
    assert_eq!(lines(&g), Some(vec![("finiteness.C1".into(), line)]));

    let g = Graph::new("unused");
    let x = g.input("x", F32, [3]);
    let line = line!() + 1;
    let _ = x.exp().check_finite();
    g.program("run").outputs([x.relu().named("y")]);
    assert_eq!(lines(&g), Some(vec![("check_finite".into(), line)]));
}

/// A checked graph is a graph like any other: it prints, parses back, and its bytes come back.
#[test]
fn checks_survive_text_and_bytes() {
    use thalweg::graph::Graph as Ir;
    let g = Graph::new("text");
    let x = g.input("x", F32, [3]);
    let loss = x.log().check_finite().mean().named("loss");
    g.program("run").outputs([loss]);
    let (graph, registry) = (g.finish().unwrap(), thalweg::ops::registry());
    assert!(graph.to_string().contains("check %1 by %2"), "{graph}");
    let read = Ir::parse(&graph.to_string(), &registry).unwrap();
    assert_eq!(read, graph);
    assert_eq!(Ir::from_bytes(&graph.to_bytes(), &registry).unwrap(), graph);
    let mut session = Session::new(read, common::cpu(1)).unwrap();
    session.run("run", &[("x", &numbers(&[1.0; 3]))]).unwrap();
    assert!(matches!(session.run("run", &[("x", &numbers(&[-1.0; 3]))]), Err(RunError::NotFinite(_))));
}

/// In every float type, on every device: infinities and NaN, one at a time, first, last and alone; and nothing at all.
#[test]
fn every_float_type_is_checked_on_every_device() {
    for (name, device) in common::devices() {
        let g = Graph::new("types");
        let n = g.dim("n", 0..=4096);
        for dtype in [F16, BF16, F32, F64] {
            let x = g.input(dtype.name(), F32, shape![n]).cast(dtype).check_finite();
            g.program(dtype.name()).outputs([x.max().named("max")]);
        }
        let mut session = Session::new(g.finish().unwrap(), device).unwrap();
        for dtype in ["f16", "bf16", "f32", "f64"] {
            if (name, dtype) == ("gpu", "f64") {
                // It sees the infinity, and then has no tensor of f64 to find its place in.
                assert_eq!(session.run(dtype, &[(dtype, &numbers(&[1.0; 3]))]).map(|_| ()), Ok(()));
                let odd = session.run(dtype, &[(dtype, &numbers(&[1.0, f32::INFINITY, 2.0]))]).map(|_| ());
                assert!(odd.is_err_and(|e| e.to_string().contains("f64")));
                continue;
            }
            for n in [1usize, 3, 16, 1000] {
                let mut x = vec![-1.5f32; n];
                let mut run = |x: &[f32]| session.run(dtype, &[(dtype, &numbers(x))]).map(|_| ());
                assert_eq!(run(&x), Ok(()), "{name}, {dtype}");
                for at in [0, n / 2, n - 1] {
                    for odd in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
                        x[at] = odd;
                        let Err(RunError::NotFinite(found)) = run(&x) else { panic!("{name}, {dtype}: {odd} at {at}") };
                        assert_eq!((found.count, &found.index[..]), (1, &[at as u64][..]), "{name}, {dtype}");
                        x[at] = 0.5;
                    }
                }
            }
            assert_eq!(session.run(dtype, &[(dtype, &numbers(&[]))]).map(|_| ()), Ok(()), "{name}, {dtype}: nothing");
        }
    }
}

/// Looking at a value that would be fused away needs a plan of its own, and looking at a loss does not; neither changes a bit.
#[test]
fn checking_one_value_changes_no_bit() {
    let train = |checked: &str| {
        let g = Graph::new("one").seed(9);
        let (x, y) = (g.input("x", F32, [64, 48]), g.input("y", F32, [64, 48]));
        let w = g.parameter("w", F32, [48], Init::Uniform { low: -1.0, high: 1.0 });
        let product = x * w * y;
        let product = if checked == "product" { product.check_finite() } else { product };
        let loss = product.sum_over(&[1]).tanh().mean().named("loss");
        let loss = if checked == "loss" { loss.check_finite() } else { loss };
        g.program("train").outputs([loss]).update(Sgd::new(0.5).minimize(loss));
        let mut model = g.compile(&Cluster::cpu(1)).unwrap();
        model.start_trace(10);
        for i in 0..3 {
            let [x, y] = ["x", "y"].map(|n| thalweg::kit::generator::uniform(&format!("{n}{i}"), &[64, 48], 1.0, 0.0));
            model.run("train", feed! { x: &x, y: &y }).unwrap();
        }
        (model.digest().unwrap(), model.finish_trace().steps.len())
    };
    let (plain, steps) = train("");
    assert_eq!(steps, 3);
    assert_eq!(train("loss"), (plain.clone(), 3), "with the step");
    assert_eq!(train("product"), (plain, 6), "before the step");
}
