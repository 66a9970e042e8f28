//! What tests of whole programs share: evaluating a graph by the interpreter, running it on a device, and comparing.

#![allow(dead_code)]

pub(crate) mod command;
pub(crate) mod models;
pub(crate) mod required;
pub(crate) mod state;

use std::collections::BTreeMap;
use std::sync::Arc;

use thalweg::graph::evaluate::{Evaluated, Named, evaluate};
use thalweg::graph::init::initial_value;
use thalweg::graph::kernel::interpret::{Precision, Values};
use thalweg::graph::{Bindings, Graph};
use thalweg::runtime::{Device, ReferenceDevice, RunError, Session};
use thalweg::{Array, Cluster};

/// Arrays by name.
pub(crate) type Feeds = Vec<(String, Array)>;

/// The feeds as a session takes them.
pub(crate) fn borrowed(feeds: &Feeds) -> Vec<(&str, &Array)> {
    feeds.iter().map(|(n, a)| (n.as_str(), a)).collect()
}

/// What program 0 of a graph of primitives gives, by the interpreter, from initial state.
#[track_caller]
pub(crate) fn by_interpreter(graph: &Graph, bindings: &Bindings, feeds: &Feeds, precision: Precision) -> Evaluated {
    let bound = graph.bind(bindings).expect("bindings fit");
    let named = |n: &str, a: &Array| (Arc::from(n), Values::from_array(a));
    let feeds: Named = feeds.iter().map(|(n, a)| named(n, a)).collect();
    let state: Named = bound.state.values().iter().map(|v| named(&v.name, &initial_value(v, bound.seed))).collect();
    evaluate(&bound, &bound.programs[0], &feeds, &state, precision).expect("it evaluates")
}

/// The CPU with this many threads.
pub(crate) fn cpu(threads: usize) -> Box<dyn Device> {
    thalweg::open_device(&Cluster::cpu(threads).devices[0]).expect("threads start")
}

/// The machine's first adapter, if there is one. Without, `what` is skipped by name, or fails where
/// `THALWEG_REQUIRE` has `vulkan` in it.
pub(crate) fn gpu(what: &str) -> Option<Box<dyn Device>> {
    #[cfg(feature = "gpu")]
    let count = thalweg::gpu::adapters().len();
    #[cfg(not(feature = "gpu"))]
    let count = 0;
    if count == 0 {
        required::skip(what, "vulkan");
        return None;
    }
    Some(thalweg::open_device(&Cluster::gpu(0).devices[0]).expect("the adapter opens"))
}

/// A device to test: the interpreter behind a plan, the CPU, or the GPU where there is one.
pub(crate) fn devices() -> Vec<(&'static str, Box<dyn Device>)> {
    let mut all: Vec<(&'static str, Box<dyn Device>)> = vec![
        ("reference", Box::new(ReferenceDevice::default())),
        ("cpu with one thread", cpu(1)),
        ("cpu with two threads", cpu(2)),
    ];
    all.extend(gpu("the GPU's part").map(|device| ("gpu", device)));
    all
}

/// Whether a GPU has to refuse this graph.
pub(crate) fn needs_f64(graph: &Graph) -> bool {
    let is_f64 = |t: &thalweg::graph::TensorType| t.dtype == thalweg::DType::F64;
    graph.nodes.values().iter().any(|n| n.types.iter().any(is_f64))
}

/// Outputs and variables after one step of program 0.
#[track_caller]
pub(crate) fn by_plan(graph: &Graph, device: Box<dyn Device>, feeds: &Feeds) -> BTreeMap<String, Array> {
    try_by_plan(graph, device, feeds).unwrap_or_else(|e| panic!("{e}"))
}

/// The same, or why it does not run.
pub(crate) fn try_by_plan(
    graph: &Graph,
    device: Box<dyn Device>,
    feeds: &Feeds,
) -> Result<BTreeMap<String, Array>, RunError> {
    let mut session = Session::new(graph.clone(), device)?;
    let program = graph.programs[0].name.clone();
    let outputs = session.run(&program, &borrowed(feeds))?;
    let mut all: BTreeMap<_, _> = outputs.iter().map(|(n, a)| (format!("output {n}"), a.clone())).collect();
    for (id, _) in &graph.programs[0].updates {
        let name = &graph.state[*id].name;
        all.insert(format!("variable {name}"), session.get(name).expect("it is there"));
    }
    Ok(all)
}

/// What a device of [`devices`] gives; nothing where a GPU refuses what needs f64, as it must.
#[track_caller]
pub(crate) fn by_plan_of(
    name: &str,
    graph: &Graph,
    device: Box<dyn Device>,
    feeds: &Feeds,
) -> Option<BTreeMap<String, Array>> {
    if name != "gpu" || !needs_f64(graph) {
        return Some(by_plan(graph, device, feeds));
    }
    // What is folded away or only moved needs no arithmetic.
    match try_by_plan(graph, device, feeds) {
        Ok(results) => Some(results),
        Err(error) => {
            assert!(error.to_string().contains("f64"), "{error}");
            None
        }
    }
}

/// The same, as the interpreter gave it.
pub(crate) fn named_results(evaluated: &Evaluated) -> BTreeMap<String, Array> {
    let outputs = evaluated.outputs.iter().map(|(n, v)| (format!("output {n}"), v.to_array()));
    let updates = evaluated.updates.iter().map(|(n, v)| (format!("variable {n}"), v.to_array()));
    outputs.chain(updates).collect()
}

/// The largest finite magnitude among `values`.
pub(crate) fn magnitude(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().filter(|x| x.is_finite()).fold(0.0, |m, x| x.abs().max(m))
}

/// Panics unless the elements are as near as `tolerance` times the largest magnitude, of `want` or `entering`; NaN
/// only equals NaN.
#[track_caller]
pub(crate) fn assert_near(what: &str, got: &[f64], want: &[f64], tolerance: f64, entering: f64) {
    assert_eq!(got.len(), want.len(), "{what}: number of elements");
    let scale = magnitude(want.iter().copied()).max(entering);
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let same = g == w || (g.is_nan() && w.is_nan()) || (g - w).abs() <= tolerance * scale;
        assert!(same, "{what}: element {i} is {g}, expected {w} (tolerance {tolerance:e} of {scale:e})");
    }
}
