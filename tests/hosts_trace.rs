//! One trace of all workers: what each did, on one clock, with arrows from who sent to who waited; the same events as where
//! all devices are threads of one process.

#![cfg(target_os = "linux")]
#![allow(missing_docs)]

#[path = "common/command.rs"]
mod command;

use std::collections::{BTreeMap, BTreeSet};

use command::{Folder, printed, said, thalweg};
use serde_json::Value;

const STEPS: usize = 12;

/// The trace of a demo of so many steps over four leaves, and what was said on stderr.
#[track_caller]
fn traced(before: &[&str], after: &[&str]) -> (Value, String) {
    let folder = Folder::new(&format!("trace-{}", before.len()));
    let path = folder.at("trace.json");
    let steps = STEPS.to_string();
    let demo = ["demo", "--json", "--leaves", "4", "--steps", &steps, "--profile", "--trace"];
    let arguments = [before, &demo, &[path.to_str().expect("a plain path")], after].concat();
    let out = thalweg(&arguments);
    printed(&out);
    let text = std::fs::read(&path).expect("a trace");
    (serde_json::from_slice(&text).expect("JSON"), said(&out))
}

fn events(trace: &Value) -> &[Value] {
    trace["traceEvents"].as_array().expect("a list")
}

/// Names of processes by their numbers.
fn processes(trace: &Value) -> BTreeMap<u64, String> {
    let named = events(trace).iter().filter(|e| e["name"] == "process_name");
    let row = |e: &Value| (e["pid"].as_u64().expect("a number"), e["args"]["name"].as_str().expect("text").to_string());
    named.map(row).collect()
}

/// Arrows by what joins their ends: when and in which process they begin, and where they end.
fn arrows(trace: &Value) -> BTreeMap<String, [(f64, u64); 2]> {
    let mut ends: BTreeMap<String, [Option<(f64, u64)>; 2]> = BTreeMap::new();
    for (at, ph) in ["s", "f"].iter().enumerate() {
        for e in events(trace).iter().filter(|e| e["ph"] == *ph) {
            let end = (e["ts"].as_f64().expect("a time"), e["pid"].as_u64().expect("a number"));
            let known = &mut ends.entry(e["id"].as_str().expect("text").into()).or_default()[at];
            assert!(known.replace(end).is_none(), "two ends: {e}");
        }
    }
    ends.into_iter().map(|(id, ends)| (id, ends.map(|e| e.expect("an arrow has two ends")))).collect()
}

fn nanos(micros: f64) -> u64 {
    (micros * 1e3).round() as u64
}

/// When posts began, by process and by when their arrows leave: in the last nanosecond.
fn begins(trace: &Value) -> BTreeMap<(u64, u64), f64> {
    let posts = events(trace).iter().filter(|e| e["cat"] == "post" && e["ph"] == "X");
    let row = |e: &Value| {
        let (ts, dur) = (e["ts"].as_f64().expect("a time"), e["dur"].as_f64().expect("a time"));
        ((e["pid"].as_u64().expect("a number"), nanos(ts) + nanos(dur) - 1), ts)
    };
    posts.map(row).collect()
}

/// How many events of a kind each process has.
fn counts(trace: &Value, kind: &str) -> BTreeMap<u64, usize> {
    let mut counts = BTreeMap::new();
    for e in events(trace).iter().filter(|e| e["cat"] == kind && e["ph"] == "X") {
        *counts.entry(e["pid"].as_u64().expect("a number")).or_default() += 1;
    }
    counts
}

#[test]
fn workers_have_one_trace_on_one_clock() {
    let (there, said) = traced(&["launch", "-n", "2", "--", "thalweg"], &[]);
    let (here, _) = traced(&[], &["--devices", "cpu:0,cpu:1"]);

    let names: Vec<String> = processes(&there).into_values().collect();
    assert_eq!(names, ["digits", "worker0/cpu:0", "worker1/cpu:0"]);
    for kind in ["launch", "post", "wait", "feed", "fetch"] {
        assert!(counts(&there, kind).len() > usize::from(kind != "fetch"), "{kind}");
    }
    // Feeds and fetches of one process may go together, so that there are fewer of them.
    for kind in ["launch", "post", "wait", "step"] {
        assert_eq!(counts(&there, kind), counts(&here, kind), "{kind}");
    }

    let errors: Vec<f64> = there["otherData"]["clockErrorsUs"].as_array().expect("a list").iter().map(error).collect();
    assert!(errors.len() == 2 && errors.iter().all(|e| (0.001..5000.0).contains(e)), "{errors:?}");
    println!("clocks agree to {errors:?} µs");
    let off = errors.iter().sum::<f64>();

    let (arrows, those) = (arrows(&there), arrows(&here));
    assert!(!arrows.is_empty() && arrows.keys().collect::<BTreeSet<_>>() == those.keys().collect());
    // Who posts may be held up behind having sent, so that it is the beginning of a post that comes before its arrival.
    let posts = begins(&there);
    for (id, [(sent, from), (came, to)]) in &arrows {
        let began = posts[&(*from, nanos(*sent))];
        assert!(from != to && began <= came + off, "{id}: from {from} at {began} µs to {to} at {came} µs, ± {off} µs");
    }
    // Whatever a worker did was done while the driver waited for the step.
    let span = |e: &Value| {
        let start = e["ts"].as_f64().expect("a time");
        (start, start + e["dur"].as_f64().expect("a time"))
    };
    let steps: Vec<(f64, f64)> = events(&there).iter().filter(|e| e["cat"] == "step").map(span).collect();
    assert_eq!(steps.len(), STEPS);
    for e in events(&there).iter().filter(|e| e["ph"] == "X" && e["pid"] != 1) {
        let (start, end) = span(e);
        assert!(steps.iter().any(|s| s.0 - off <= start && end <= s.1 + off), "{e} is in no step, ± {off} µs");
    }

    assert!(said.contains("the workers' clocks agree to"), "{said}");
    let of_profile = said.lines().filter(|l| l.contains("worker1/cpu:0: ") && l.ends_with(']')).count();
    assert!(of_profile > 5, "{said}");
}

fn error(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}
