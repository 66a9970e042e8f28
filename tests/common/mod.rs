//! What tests of whole programs share: evaluating a graph by the interpreter, running it on a device, and comparing.

#![allow(dead_code)]

pub(crate) mod models;
pub(crate) mod state;

use std::collections::BTreeMap;
use std::sync::Arc;

use thalweg::graph::evaluate::{Evaluated, Named, evaluate};
use thalweg::graph::init::initial_value;
use thalweg::graph::kernel::interpret::{Precision, Values};
use thalweg::graph::{Bindings, Graph};
use thalweg::runtime::{Device, ReferenceDevice, Session};
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

/// A device to test: the interpreter behind a plan, or the CPU.
pub(crate) fn devices() -> Vec<(&'static str, Box<dyn Device>)> {
    vec![
        ("reference", Box::new(ReferenceDevice::default())),
        ("cpu with one thread", cpu(1)),
        ("cpu with two threads", cpu(2)),
    ]
}

/// Outputs and variables after one step of program 0.
#[track_caller]
pub(crate) fn by_plan(graph: &Graph, device: Box<dyn Device>, feeds: &Feeds) -> BTreeMap<String, Array> {
    let mut session = Session::new(graph.clone(), device).expect("it fits");
    let program = graph.programs[0].name.clone();
    let outputs = session.run(&program, &borrowed(feeds)).unwrap_or_else(|e| panic!("{e}"));
    let mut all: BTreeMap<_, _> = outputs.iter().map(|(n, a)| (format!("output {n}"), a.clone())).collect();
    for (id, _) in &graph.programs[0].updates {
        let name = &graph.state[*id].name;
        all.insert(format!("variable {name}"), session.get(name).expect("it is there"));
    }
    all
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
