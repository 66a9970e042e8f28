//! The kit's cheap cases against references that others computed in f64, and the protocol that its driver speaks.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use serde_json::Value;
use thalweg::Cluster;
use thalweg::kit::{Case, NAMES, Reference, rel_err};
use thalweg::prelude::*;

fn references() -> BTreeMap<String, Reference> {
    serde_json::from_str(include_str!("../data/kit_refs.json")).expect("references")
}

fn open(name: &str) -> Case {
    Case::open(name, &Cluster::cpu(1), None).expect("it compiles").expect("there is such a case")
}

#[test]
fn losses_of_the_first_ten_steps_are_right() {
    for (name, reference) in references() {
        // The others take seconds a step.
        if name.contains("resnet18") || name.contains("gpt") {
            continue;
        }
        let error = open(&name).check(&reference).expect("it runs");
        println!("{name}: {error:.1e}");
        assert!(error <= 1e-4, "{name}: relative error {error:.1e}");
    }
}

#[test]
fn twenty_epochs_of_digits_reach_the_accuracy_of_the_reference() {
    let mut case = open("mlp_small_train");
    assert_eq!(case.epochs(), 880);
    (0..880).for_each(|i| drop(case.step(i).expect("it runs")));
    let accuracy = case.accuracy().expect("it runs").expect("it has a test set");
    let Reference::Losses { accuracy: Some(want), .. } = references()["mlp_small_train"] else { panic!("no accuracy") };
    assert!((accuracy - want).abs() <= 0.003, "{accuracy}");
}

/// The definition itself: worst probe by the largest probe, or the norm's.
#[test]
fn errors_are_relative_as_the_specification_says() {
    let result: Vec<f32> = (0..33u8).map(f32::from).collect();
    let probe: Vec<f64> = (0..16).map(|i| f64::from(2 * i)).collect();
    let l2 = result.iter().map(|x| f64::from(x * x)).sum::<f64>().sqrt();
    let of = |result: &[f32], probe: &[f64]| {
        rel_err(&[Array::from_slice(&[33], result)], &Reference::Digest { l2, probe: probe.to_vec() })
    };
    assert_eq!(of(&result, &probe), 0.0);
    let mut other = probe.clone();
    other[3] += 3.0;
    assert!((of(&result, &other) - 0.1).abs() < 1e-12);
    assert_eq!(of(&[f32::NAN; 33], &probe), f64::INFINITY);
    let losses = Reference::Losses { losses: vec![0.5, 4.0], accuracy: None };
    let error = rel_err(&[Array::scalar(0.25f32), Array::scalar(4.0f32)], &losses);
    assert_eq!(error, 0.25, "small losses count absolutely");
}

/// Ops and models of the kit that are too dear to run in a test are declared and planned.
#[test]
fn every_case_opens() {
    let dear = ["resnet50", "bert", "2048", "4096", "gpt2", "_256"];
    let cheap = |name: &&&str| dear.iter().all(|d| !name.contains(d));
    for name in NAMES.iter().filter(cheap) {
        open(name);
    }
    assert!(Case::open("no_such_case", &Cluster::cpu(1), None).expect("no error").is_none());
}

fn serve(case: &str, words: &[&str]) -> Vec<Value> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_thalweg"))
        .args(["kit", "--case", case, "--threads", "1", "--serve", "--rep-s", "0.01"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the command runs");
    let (mut ask, answers) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
    let mut answers = BufReader::new(answers).lines().map(|l| serde_json::from_str(&l.expect("text")).expect("JSON"));
    let mut said: Vec<Value> = answers.next().into_iter().collect();
    for word in words {
        // One that has ended listens no more.
        if writeln!(ask, "{word}").is_ok() {
            said.extend(answers.next());
        }
    }
    assert!(child.wait().expect("it ends").success());
    said
}

#[test]
fn the_driver_is_answered_line_by_line() {
    let said = serve("mlp_small_train", &["rep", "rep", "quit"]);
    assert_eq!(said.len(), 4);
    assert_eq!(said[0]["ready"], true);
    assert!(said[1..3].iter().all(|s| s["t"].as_f64().is_some_and(|t| t > 0.0)));
    let last = &said[3];
    for (key, want) in [("case", "mlp_small_train"), ("framework", "thalweg"), ("mode", "plan"), ("unit", "sample")] {
        assert_eq!(last[key], want);
    }
    for key in ["threads", "median_s", "min_s", "cpu_s", "reps", "items_per_s", "peak_rss_mb"] {
        assert!(last[key].as_f64().is_some_and(|x| x > 0.0), "{key} in {last}");
    }
    assert_eq!(last["reps"], 2);
    assert!(last["extra"]["rel_err"].as_f64().is_some_and(|e| e <= 1e-4));
    assert!(serve("no_such_case", &["rep"]).is_empty(), "a case that is not there is not ready");
}
