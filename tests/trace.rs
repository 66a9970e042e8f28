//! The trace of some steps: what Perfetto needs of it, that its times make sense, and that it does not grow without bound.

mod common;

use common::models::ALL;
use serde_json::Value;
use thalweg::runtime::Trace;

fn events(trace: &Trace) -> Vec<Value> {
    let mut text = Vec::new();
    trace.write(&mut text).expect("memory takes it");
    let whole: Value =
        serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&text)));
    assert_eq!(whole["otherData"]["droppedSteps"], trace.dropped);
    whole["traceEvents"].as_array().expect("a list").clone()
}

/// Start and end in whole nanoseconds.
fn span(event: &Value) -> (u64, u64) {
    let nanos = |key: &str| (event[key].as_f64().expect("a time") * 1000.0).round() as u64;
    (nanos("ts"), nanos("ts") + nanos("dur"))
}

fn of<'a>(events: &'a [Value], cat: &str) -> Vec<&'a Value> {
    events.iter().filter(|e| e["cat"] == cat).collect()
}

#[test]
fn a_trace_has_what_perfetto_needs_and_its_times_make_sense() {
    for case in &ALL {
        let mut model = case.compile(2);
        model.start_trace(4);
        (0..7).for_each(|i| drop(case.step(&mut model, i).expect("it runs")));
        let trace = model.finish_trace();
        assert_eq!((trace.steps.len(), trace.dropped), (4, 3), "the last steps are kept");
        let events = events(&trace);

        for event in &events {
            assert!(event["name"].is_string() && event["pid"].is_u64() && event["tid"].is_u64(), "{event}");
            match event["ph"].as_str() {
                Some("M") => assert!(event["args"]["name"].is_string(), "{event}"),
                Some("X") => assert!(event["ts"].is_f64() && event["dur"].is_f64(), "{event}"),
                other => panic!("{other:?} in {event}"),
            }
        }
        let names: Vec<_> = events.iter().filter(|e| e["ph"] == "M").map(|e| e["args"]["name"].clone()).collect();
        assert_eq!(names, [case.name, "session", "cpu:0", "launches", "channels"]);

        let (steps, launches) = (of(&events, "step"), of(&events, "launch"));
        assert_eq!(steps.iter().map(|s| s["args"]["step"].as_u64()).collect::<Vec<_>>(), [3, 4, 5, 6].map(Some));
        assert!(steps.windows(2).all(|w| span(w[0]).1 <= span(w[1]).0), "steps follow each other");
        assert!(launches.windows(2).all(|w| span(w[0]).1 <= span(w[1]).0), "launches of one device follow each other");
        let plan = model.session().plan("train", &bindings(case.name)).expect("it is there");
        for step in &steps {
            let (start, end) = span(step);
            let inside = |e: &&&Value| (start..=end).contains(&span(e).0) && span(e).1 <= end;
            let of_step: Vec<&&Value> = launches.iter().filter(inside).collect();
            let part = &plan.devices[0];
            let copies =
                part.instructions.iter().filter(|i| matches!(i, thalweg::graph::plan::Instruction::Copy { .. }));
            assert_eq!(of_step.len(), part.launches().count() + copies.count(), "{}: every launch is there", case.name);
            let total: u64 = of_step.iter().map(|e| span(e).1 - span(e).0).sum();
            assert!(total <= end - start, "launches take no longer than their step");
            for kind in ["feed", "fetch"] {
                let copies =
                    of(&events, kind).iter().filter(inside).map(|e| e["args"]["bytes"].as_u64()).collect::<Vec<_>>();
                let expected = if kind == "feed" { case.feeds(0).len() } else { 1 };
                assert_eq!(copies.len(), expected, "{}: {kind}", case.name);
                assert!(copies.iter().all(|b| b.is_some_and(|b| b > 0)));
            }
        }
        for launch in &launches {
            let args = &launch["args"];
            assert!(
                args["site"].as_str().is_some_and(|s| s.contains("models.rs") || s.contains("ops/src")),
                "{launch}"
            );
            assert!(args["strategy"].as_str().is_some_and(|s| !s.is_empty()), "{launch}");
            assert!(args["bytes"].as_f64().is_some_and(|b| b > 0.0) && args["flops"].is_number(), "{launch}");
        }
    }
}

fn bindings(name: &str) -> thalweg::graph::Bindings {
    if name == "digits" { [("batch".into(), 64)].into() } else { Default::default() }
}

/// A profile and a trace at once get the same launches, and a step that fails is in the trace as one that did.
#[test]
fn a_profile_and_a_trace_agree_and_failures_are_seen() {
    let case = &ALL[0];
    let mut model = case.compile(1);
    model.session().start_profile();
    model.start_trace(100);
    (0..5).for_each(|i| drop(case.step(&mut model, i).expect("it runs")));
    model.abort_flag().raise();
    case.step(&mut model, 5).expect_err("it was aborted");
    let trace = model.finish_trace();
    let rows = model.session().finish_profile();
    assert!(rows.iter().all(|r| r.runs == 5), "{rows:?}");
    let events = events(&trace);
    assert_eq!(of(&events, "launch").len(), 5 * rows.len());
    let total: u128 = rows.iter().map(|r| r.total.as_nanos()).sum();
    assert_eq!(u128::from(of(&events, "launch").iter().map(|e| span(e).1 - span(e).0).sum::<u64>()), total);
    let done: Vec<_> = of(&events, "step").iter().map(|s| s["args"]["done"].as_bool()).collect();
    assert_eq!(done, [true, true, true, true, true, false].map(Some));
    assert_eq!(of(&events, "plan").len(), 1);
    // Off again: nothing more is noted.
    model.abort_flag().clear();
    case.step(&mut model, 6).expect("it runs");
    assert!(model.finish_trace().steps.is_empty() && model.session().finish_profile().is_empty());
}

/// Names are the user's: whatever is in them, the file is JSON.
#[test]
fn odd_names_are_escaped() {
    use thalweg::prelude::*;
    let g = Graph::new("a \"graph\"\\\n\u{1}é");
    let x = g.input("x", F32, [3]);
    g.program("run").outputs([x.exp().named("\"\\")]);
    let mut model = g.compile(&Cluster::cpu(1)).expect("no mistakes");
    model.start_trace(1);
    model.run("run", feed! { x: &Array::from_slice(&[3], &[1.0f32; 3]) }).expect("it runs");
    let events = events(&model.finish_trace());
    assert_eq!(events[0]["args"]["name"], "a \"graph\"\\\n\u{1}é");
    assert_eq!(of(&events, "fetch")[0]["name"], "\"\\");
}
