//! Steps of whole models on the machine's first adapter: what is compiled when, what travels together, the GPU's clock, and
//! what happens when the adapter is lost. Skipped by name where there is none.

#![cfg(feature = "gpu")]

mod common;

use thalweg::gpu::{GpuDevice, Limits, Watch};
use thalweg::prelude::*;
use thalweg::runtime::{DeviceError, RunError, Same, Session};

/// A device that shares nothing with those of other tests, and a handle to it.
fn alone(what: &str, lower: Limits) -> Option<(Box<GpuDevice>, Watch)> {
    drop(common::gpu(what)?);
    let device = GpuDevice::with_limits("gpu:0", 0, &lower).expect("it opens");
    let watch = device.watch();
    Some((Box::new(device), watch))
}

/// Two layers with dropout, learned with AdamW; batches of any size.
fn network() -> thalweg::graph::Graph {
    let g = Graph::new("network").seed(5);
    let n = g.dim("n", 1..=3000);
    let (x, label) = (g.input("x", F32, shape![n, 12]), g.input("label", I32, shape![n]));
    let body = Sequential::new("body").push("hidden", Linear::new(16)).relu().dropout(0.1);
    let logits = body.push("head", Linear::new(4)).call(x);
    let loss = cross_entropy(logits, label).mean().named("loss");
    let accuracy = logits.argmax(-1).eq(label).mean().named("accuracy");
    g.program("train").outputs([loss, accuracy]).update(AdamW::new(1e-2).minimize(loss));
    g.finish().expect("no mistakes")
}

fn batch(n: u64, k: u64) -> [Array; 2] {
    let xs: Vec<f32> = (0..n * 12).map(|i| ((i * 37 + k * 11) % 101) as f32 / 50.0 - 1.0).collect();
    let labels: Vec<i32> = (0..n).map(|i| ((i * 7 + k) % 4) as i32).collect();
    [Array::from_slice(&[n, 12], &xs), Array::from_slice(&[n], &labels)]
}

fn train(session: &mut Session, n: u64, k: u64) -> Result<f64, RunError> {
    let [x, label] = batch(n, k);
    session.run("train", &[("x", &x), ("label", &label)]).map(|outputs| outputs.item("loss"))
}

#[test]
fn a_new_batch_size_compiles_nothing_once_its_kind_has_run() {
    let what = "a_new_batch_size_compiles_nothing_once_its_kind_has_run";
    let Some((device, watch)) = alone(what, Limits::default()) else { return };
    let mut session = Session::new(network(), device).expect("it fits");
    // A batch of one is another kind: its extent is no axis to step along. So are those too short to be multiplied in tiles,
    // and those whose mean a workgroup shares.
    for n in [1, 2, 20, 300] {
        train(&mut session, n, 0).expect("it runs");
    }
    let warm = watch.pipelines_compiled();
    assert!(warm > 5, "{warm}");
    for n in [3, 5, 7, 16, 21, 31, 40, 63, 64, 65, 100, 128, 200, 256, 257, 299] {
        train(&mut session, n, n).expect("it runs");
        assert_eq!(watch.pipelines_compiled(), warm, "a batch of {n}");
    }
    println!("{warm} pipelines for 20 batch sizes");
}

#[test]
fn a_step_is_one_submission_and_its_tail_another() {
    let Some((device, watch)) = alone("a_step_is_one_submission_and_its_tail_another", Limits::default()) else {
        return;
    };
    let mut session = Session::new(network(), device).expect("it fits");
    train(&mut session, 50, 0).expect("it runs");
    let before = watch.submissions();
    for k in 0..10 {
        train(&mut session, 50, k).expect("it runs");
    }
    let per_step = (watch.submissions() - before) as f64 / 10.0;
    let plan = session.plan("train", &[("n".into(), 50)].into_iter().collect()).expect("it is there");
    println!("{per_step} submissions for {} launches, two feeds and two outputs", plan.devices[0].launches().count());
    assert!(plan.devices[0].launches().count() > 10);
    assert_eq!(per_step, 2.0);
}

/// By the GPU's clock and by the host's, in the profile and in the trace: every launch, inside its step.
#[test]
fn launches_are_profiled_and_traced_by_either_clock() {
    for no_timestamps in [false, true] {
        let lower = Limits { no_timestamps, ..Limits::default() };
        let Some((device, _)) = alone("launches_are_profiled_and_traced_by_either_clock", lower) else { return };
        let mut session = Session::new(network(), device).expect("it fits");
        let untimed = (0..3).map(|k| train(&mut session, 30, k).expect("it runs")).collect::<Vec<_>>();
        session.reset().expect("it begins anew");
        let launches = session
            .plan("train", &[("n".into(), 30)].into_iter().collect())
            .map(|p| p.devices[0].launches().count())
            .expect("it is there");
        session.start_profile();
        session.start_trace(10);
        let timed = (0..3).map(|k| train(&mut session, 30, k).expect("it runs")).collect::<Vec<_>>();
        assert_eq!(timed, untimed, "timing changes no bit");
        let trace = session.finish_trace();
        let rows = session.finish_profile();
        assert_eq!(trace.steps.len(), 3);
        for step in &trace.steps {
            assert_eq!(step.devices[0].launches.len(), launches);
            let end = step.span.start + step.span.took;
            let inside = |s: &thalweg::runtime::trace::Span| s.start >= step.span.start && s.start + s.took <= end;
            assert!(step.devices[0].launches.iter().all(|(span, _)| inside(span)), "{step:?}");
        }
        assert!(rows.iter().all(|r| r.runs == 3) && rows.len() == launches, "{rows:?}");
        assert!(rows.iter().any(|r| !r.total.is_zero()));
    }
}

#[test]
fn a_session_whose_adapter_is_lost_says_so_and_another_goes_on_from_its_checkpoint() {
    let what = "a_session_whose_adapter_is_lost_says_so_and_another_goes_on_from_its_checkpoint";
    let Some((device, _)) = alone(what, Limits::default()) else { return };
    let mut undisturbed = Session::new(network(), device).expect("it fits");
    for k in 0..12 {
        train(&mut undisturbed, 40, k).expect("it runs");
    }
    let want = undisturbed.digest().expect("it reads");

    let directory = std::env::temp_dir().join(format!("thalweg-lost-{}", std::process::id()));
    let Some((device, watch)) = alone(what, Limits::default()) else { return };
    let mut session = Session::new(network(), device).expect("it fits");
    for k in 0..7 {
        train(&mut session, 40, k).expect("it runs");
        if k == 4 {
            session.save_and_wait(&directory).expect("it saves");
        }
    }
    watch.lose();
    let error = train(&mut session, 40, 7).expect_err("the adapter is lost");
    println!("{error}");
    let RunError::Device(DeviceError::Lost { device, .. }) = &error else { panic!("{error:?}") };
    assert_eq!(&**device, "gpu:0");
    let said = error.to_string();
    assert!(said.contains("declared at") && said.contains("resume from the last checkpoint"), "{said}");
    assert!(said.contains("gpu_steps.rs:"), "it names the user's line: {said}");
    assert_eq!(train(&mut session, 40, 7).expect_err("still"), error);
    assert!(session.digest().is_err() && session.save_and_wait(&directory).is_err(), "nothing is saved of it");
    drop(session);

    let Some((device, _)) = alone(what, Limits::default()) else { return };
    let mut resumed = Session::new(network(), device).expect("it fits");
    let from = resumed.resume(&directory, Same::Graph).expect("the checkpoint is whole");
    assert_eq!(from.id.step, 5);
    for k in 5..12 {
        train(&mut resumed, 40, k).expect("it runs");
    }
    assert_eq!(resumed.digest().expect("it reads"), want);
    std::fs::remove_dir_all(&directory).expect("it was made");
}

#[test]
fn a_batch_too_large_for_the_adapter_is_refused_and_a_smaller_one_runs() {
    let what = "a_batch_too_large_for_the_adapter_is_refused_and_a_smaller_one_runs";
    let lower = Limits { buffer_bytes: Some(64 << 10), ..Limits::default() };
    let Some((device, _)) = alone(what, lower) else { return };
    let mut session = Session::new(network(), device).expect("it fits");
    train(&mut session, 4, 0).expect("it runs");
    let before = session.digest().expect("it reads");
    let error = train(&mut session, 2000, 0).expect_err("too large");
    assert!(matches!(error, RunError::Device(DeviceError::OutOfMemory { .. })), "{error}");
    let said = error.to_string();
    println!("{said}");
    assert!(
        said.contains("at most 65536") && said.contains("gpu_steps.rs:") && said.contains("smaller batch"),
        "{said}"
    );
    assert_eq!(session.digest().expect("it reads"), before);
    train(&mut session, 5, 1).expect("it runs");
}
