//! What a session promises: programs share state, updates commit together, a step that is given up leaves no trace, and
//! wrong values are refused before anything happens.

mod common;

use thalweg::graph::Bindings;
use thalweg::graph::builder::Builder;
use thalweg::graph::id::Id;
use thalweg::graph::ir::VarId;
use thalweg::graph::{Init, Site, VarKind};
use thalweg::ops::Update;
use thalweg::prelude::*;
use thalweg::runtime::{DeviceError, FeedError, RunError, Session};

fn line() -> Graph {
    let g = Graph::new("line").seed(3);
    let n = g.dim("n", 1..=8);
    let x = g.input("x", F32, shape![n]);
    let y = g.input("y", F32, shape![n]);
    let slope = g.parameter("slope", F32, (), Init::Constant(0.5));
    let offset = g.parameter("offset", F32, (), Init::Constant(0.0));
    let guess = (x * slope + offset).named("guess");
    let loss = ((guess - y) * (guess - y)).mean().named("loss");
    g.program("train").outputs([loss]).update(Sgd::new(0.05).minimize(loss));
    g.program("eval").outputs([loss]);
    g.program("predict").inputs([x]).outputs([guess]);
    g
}

fn numbers(values: &[f32]) -> Array {
    Array::from_slice(&[values.len() as u64], values)
}

#[test]
fn a_line_is_fitted_and_seen_by_every_program() {
    let mut model = line().compile(&Cluster::cpu(1)).unwrap();
    let (x, y) = (numbers(&[0.0, 1.0, 2.0, 3.0]), numbers(&[1.0, 3.0, 5.0, 7.0]));
    let before = model.run("eval", feed! { x: &x, y: &y }).unwrap().item("loss");
    for _ in 0..800 {
        model.run("train", feed! { x: &x, y: &y }).unwrap();
    }
    assert_eq!(model.step(), 800);
    let after = model.run("eval", feed! { x: &x, y: &y }).unwrap().item("loss");
    assert!(after < 1e-6 && before > 1.0, "{before} → {after}");
    let guess = model.run("predict", feed! { x: &numbers(&[10.0, -1.0]) }).unwrap();
    common::assert_near("guess", &guess.get("guess").unwrap().to_f64(), &[21.0, -1.0], 1e-3, 1.0);
    assert_eq!(model.step(), 800, "only training counts");
}

#[test]
fn many_steps_in_one_call_are_the_same_steps() {
    let (x, y) = (numbers(&[0.0, 1.0]), numbers(&[1.0, 3.0]));
    let mut one = line().compile(&Cluster::cpu(1)).unwrap();
    let mut many = line().compile(&Cluster::cpu(1)).unwrap();
    for _ in 0..25 {
        one.run("train", feed! { x: &x, y: &y }).unwrap();
    }
    let batches = (0..25).map(|_| vec![("x", &x), ("y", &y)]);
    assert!(many.run_many("train", batches).unwrap().is_some());
    assert_eq!(one.digest().unwrap(), many.digest().unwrap());
}

#[test]
fn updates_read_the_old_values_of_each_other() {
    let b = Builder::new("swap");
    let ty = thalweg::DType::F32.of([3]);
    let var = |name, x| b.variable(name, ty.clone(), VarKind::Param, Init::Constant(x), "", Site::default()).unwrap();
    let (p, q, r) = (var("p", 1.0), var("q", 2.0), var("r", 3.0));
    let read = |v| b.read(v, Site::default());
    // p ← q, q ← p + r, r ← r: a circle, with a value in it that has to be computed first.
    let sum = thalweg::Tensor::new(&b, read(p)) + thalweg::Tensor::new(&b, read(r));
    b.program(
        "step",
        vec![("was".into(), read(p))],
        vec![(p, read(q)), (q, sum.value()), (r, read(r))],
        Site::default(),
    );
    for (name, device) in common::devices() {
        let mut session = Session::new(b.finish().unwrap(), device).unwrap();
        let mut state = [1.0, 2.0, 3.0];
        for _ in 0..5 {
            let out = session.run("step", &[]).unwrap();
            assert_eq!(out.get("was").unwrap().to_f64(), [state[0]; 3], "{name}");
            state = [state[1], state[0] + state[2], state[2]];
            let got = ["p", "q", "r"].map(|v| session.get(v).unwrap().get_f64(0));
            assert_eq!(got, state, "{name}");
        }
    }
}

#[test]
fn an_aborted_step_leaves_state_as_it_was() {
    let mut model = line().compile(&Cluster::cpu(2)).unwrap();
    let (x, y) = (numbers(&[0.0, 1.0]), numbers(&[1.0, 3.0]));
    model.run("train", feed! { x: &x, y: &y }).unwrap();
    let before = model.digest().unwrap();
    let abort = model.abort_flag();
    abort.raise();
    let error = model.run("train", feed! { x: &x, y: &y }).unwrap_err();
    assert_eq!(error, thalweg::Error::Run(RunError::Device(DeviceError::Aborted)));
    assert_eq!(model.digest().unwrap(), before);
    abort.clear();
    model.run("train", feed! { x: &x, y: &y }).unwrap();
    assert_ne!(model.digest().unwrap(), before);
}

/// Raised from another thread at any instant, an abort is seen, and state is that of some whole number of steps.
#[test]
fn an_abort_from_another_thread_never_tears_a_step() {
    let (x, y) = (numbers(&[0.0, 1.0, 2.0]), numbers(&[1.0, 3.0, 4.0]));
    let mut reference = line().compile(&Cluster::cpu(1)).unwrap();
    let mut digests = vec![reference.digest().unwrap()];
    let mut model = line().compile(&Cluster::cpu(1)).unwrap();
    let (abort, done) = (model.abort_flag(), std::sync::atomic::AtomicBool::new(false));
    let (mut aborted, mut committed) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0u64.. {
                for _ in 0..(round % 61) * 30 {
                    std::hint::spin_loop();
                }
                abort.raise();
                if done.load(std::sync::atomic::Ordering::Relaxed) {
                    return;
                }
            }
        });
        for round in 0..200_000 {
            let outcome = model.run("train", feed! { x: &x, y: &y });
            abort.clear();
            *(if outcome.is_err() { &mut aborted } else { &mut committed }) += 1;
            let step = model.step() as usize;
            while digests.len() <= step {
                reference.run("train", feed! { x: &x, y: &y }).unwrap();
                digests.push(reference.digest().unwrap());
            }
            assert_eq!((step, model.digest().unwrap()), (committed, digests[step].clone()), "round {round}");
            if aborted >= 20 && committed >= 20 {
                break;
            }
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    println!("{aborted} steps aborted, {committed} committed");
    assert!(aborted > 0 && committed > 0);
}

#[test]
fn wrong_feeds_say_what_is_expected() {
    let mut model = line().compile(&Cluster::cpu(1)).unwrap();
    let (two, three) = (numbers(&[0.0, 1.0]), numbers(&[1.0, 2.0, 3.0]));
    let before = model.digest().unwrap();
    let mut feed_error = |feeds: &[(&str, &Array)]| match model.run("train", feeds) {
        Err(thalweg::Error::Run(RunError::Feed(error))) => error,
        other => panic!("{other:?}"),
    };
    let error = feed_error(&[("x", &two), ("yy", &two)]);
    assert_eq!(
        error.to_string(),
        "program `train` has no input `yy`: did you mean `y`?; it expects `x`: f32[n], `y`: f32[n]"
    );
    let error = feed_error(&[("x", &two)]);
    assert!(matches!(&error, FeedError::Missing { missing, .. } if *missing == ["`y`: f32[n]"]), "{error}");
    let error = feed_error(&[("x", &two), ("y", &three)]);
    assert_eq!(error.to_string(), "dimension `n` is 2 for one input and 3 for `y`");
    let nine = numbers(&[0.0; 9]);
    let error = feed_error(&[("x", &nine), ("y", &nine)]);
    assert_eq!(error.to_string(), "dimension `n` is 9 in `x`, but was declared as 1..=8");
    let ints = Array::from_slice(&[2], &[1i32, 2]);
    assert!(matches!(feed_error(&[("x", &ints), ("y", &two)]), FeedError::Type { .. }));
    assert_eq!(model.digest().unwrap(), before, "nothing happened");
    let error = model.run("trian", &[]).unwrap_err().to_string();
    assert_eq!(error, "there is no program `trian`; did you mean `train`? There are `train`, `eval`, `predict`");
}

#[test]
fn labels_of_64_bits_are_narrowed_with_a_check() {
    let g = Graph::new("narrow");
    let label = g.input("label", I32, [2]);
    g.program("run").outputs([(label + label).named("twice")]);
    let mut model = g.compile(&Cluster::cpu(1)).unwrap();
    let wide = Array::from_slice(&[2], &[3i64, -4]);
    let out = model.run("run", feed! { label: &wide }).unwrap();
    assert_eq!(out.get("twice").unwrap().as_slice::<i32>(), [6, -8]);
    let error = model.run("run", feed! { label: &Array::from_slice(&[2], &[3i64, 1 << 40]) }).unwrap_err();
    assert_eq!(error.to_string(), "input `label` is i32: element 1 is 1099511627776, which does not fit");
}

#[test]
fn variables_are_got_and_set_by_name() {
    let mut model = line().compile(&Cluster::cpu(1)).unwrap();
    model.set("slope", &Array::scalar(2.5f32)).unwrap();
    assert_eq!(model.get("slope").unwrap().item(), 2.5);
    let error = model.set("slope", &numbers(&[1.0])).unwrap_err().to_string();
    assert_eq!(error, "variable `slope` is f32[], not f32[1]");
    let error = model.get("slop").unwrap_err().to_string();
    assert!(error.contains("did you mean `slope`?"), "{error}");
}

#[test]
fn truth_values_are_0_or_1_wherever_they_come_from() {
    let b = Builder::new("truth");
    let flags =
        b.variable("flags", thalweg::DType::Bool.of([3]), VarKind::Stat, Init::Constant(0.0), "", Site::default());
    let read = b.read(flags.unwrap(), Site::default());
    b.program("run", vec![("now".into(), read)], vec![], Site::default());
    let mut session = Session::new(b.finish().unwrap(), common::cpu(1)).unwrap();
    let mut value = Array::from_bools(&[3], &[true, false, true]);
    session.set("flags", &value).unwrap();
    value.bytes_mut()[2] = 7;
    let error = session.set("flags", &value).unwrap_err();
    assert_eq!(error.to_string(), "variable `flags` is bool: element 2 is 7, which is neither 0 nor 1");
    assert_eq!(session.get("flags").unwrap().to_f64(), [1.0, 0.0, 1.0], "nothing happened");
}

#[test]
fn many_batch_sizes_share_one_model() {
    let mut model = line().compile(&Cluster::cpu(1)).unwrap();
    for round in 0..3 {
        for n in 1..=8u64 {
            let x = Array::from_slice(&[n], &vec![1.0f32; n as usize]);
            let loss = model.run("eval", feed! { x: &x, y: &x }).unwrap().item("loss");
            assert_eq!(loss, 0.25, "round {round}, {n} samples");
        }
    }
    let bindings: Bindings = [("n".into(), 5)].into();
    let plan = model.session().plan("eval", &bindings).unwrap();
    assert_eq!(plan.devices[0].scratch_bytes % 64, 0);
}

#[test]
fn a_model_too_large_for_memory_is_an_error_and_not_a_crash() {
    let g = Graph::new("huge");
    let n = g.dim("n", 1..=1 << 27);
    let x = g.input("x", F32, shape![n]);
    let wide = x.reshape(shape![n, 1]).broadcast_to(shape![n, 1 << 20]).tanh();
    g.program("run").outputs([(wide + wide.transpose(&[1, 0]).reshape(shape![n, 1 << 20])).mean().named("mean")]);
    let mut model = g.compile(&Cluster::cpu(1)).unwrap();
    let bindings: Bindings = [("n".into(), 1 << 27)].into();
    let error = model.session().plan("run", &bindings).unwrap_err();
    assert!(matches!(error, RunError::Device(DeviceError::OutOfMemory { .. })), "{error}");
}

/// Dropout takes the step; a program that does not learn drops it, and with it whatever only the step needed.
#[test]
fn an_input_that_expansion_drops_does_not_shift_the_others() {
    use thalweg::ops::random::dropout::Dropout;
    let g = Graph::new("drops");
    let step = g.input("a_step", I64, ());
    let x = g.input("x", F32, [3]);
    let dropped = x.apply(Dropout { p: 0.5, key: 1 }, [step]);
    g.program("run").outputs([(dropped + x).named("y")]);
    let mut model = g.compile(&Cluster::cpu(1)).unwrap();
    let (step, x) = (Array::scalar(4i64), numbers(&[1.0, 2.0, 3.0]));
    let out = model.run("run", feed! { a_step: &step, x: &x }).unwrap();
    assert_eq!(out.get("y").unwrap().to_f64(), [2.0, 4.0, 6.0]);
}

#[test]
fn large_feeds_stay_where_they_are_and_mean_the_same() {
    // As large as what is lent, in every way in which a feed is used: computed with, fetched, kept.
    let n = 40_000;
    let g = Graph::new("lent");
    let x = g.input("x", F32, [n]);
    let kept = g.parameter("kept", F32, [n], Init::Constant(0.0));
    let (twice, same) = ((x + kept).named("sum"), x.named("same"));
    let update = Update { updates: vec![(VarId::new(0), x.value())] };
    g.program("run").outputs([twice, same]).update(update);
    let mut model = g.compile(&Cluster::cpu(1)).unwrap();
    let feed = |k: f32| numbers(&(0..n).map(|i| i as f32 + k).collect::<Vec<_>>());
    let (first, second) = (feed(0.5), feed(7.0));
    let before = model.run("run", feed! { x: &first }).unwrap();
    assert_eq!(before.get("sum"), Some(&first));
    let after = model.run("run", feed! { x: &second }).unwrap();
    let sum: Vec<f32> = (0..n).map(|i| 2.0 * i as f32 + 7.5).collect();
    assert_eq!(after.get("sum"), Some(&numbers(&sum)));
    assert_eq!((before.get("same"), after.get("same")), (Some(&first), Some(&second)));
    assert_eq!(model.get("kept").unwrap(), second);
}
