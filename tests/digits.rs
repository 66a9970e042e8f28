//! The main job, measured: the demo's model reaches the accuracy that the same network reaches elsewhere, in seconds.

use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

/// The last line that `thalweg demo --json` prints, per seed; run once for all tests here.
fn demos() -> &'static [Value] {
    static DEMOS: OnceLock<Vec<Value>> = OnceLock::new();
    DEMOS.get_or_init(|| (0..10).map(|seed| demo(&["--seed", &seed.to_string()])).collect())
}

fn demo(flags: &[&str]) -> Value {
    let run = Command::new(env!("CARGO_BIN_EXE_thalweg")).args(["demo", "--json"]).args(flags).output();
    let output = run.expect("the command runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("JSON is text");
    let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).expect("one object per line")).collect();
    lines.last().expect("at least one line").clone()
}

/// PyTorch, the same network and split, ten seeds: mean 0.983, 0.978 to 0.989.
#[test]
fn ten_seeds_reach_97_8_percent_in_under_five_seconds_each() {
    let accuracies: Vec<f64> = demos().iter().map(|d| d["test_accuracy"].as_f64().expect("a number")).collect();
    let seconds: Vec<f64> = demos().iter().map(|d| d["train_seconds"].as_f64().expect("a number")).collect();
    let mean = accuracies.iter().sum::<f64>() / accuracies.len() as f64;
    println!("accuracies {accuracies:.4?}, mean {mean:.4}; seconds {seconds:.2?}");
    assert!(mean >= 0.978, "mean {mean}");
    assert!(seconds.iter().all(|s| *s < 5.0), "{seconds:?}");
}

/// Three seeds each, in mixed precision; the same seeds in f32 are those above.
#[test]
fn products_in_halves_reach_the_same_accuracy() {
    let accuracy = |d: &Value| d["test_accuracy"].as_f64().expect("a number");
    let wide = demos()[..3].iter().map(accuracy).sum::<f64>() / 3.0;
    for half in ["f16", "bf16"] {
        let seeds = 0..3;
        let runs = seeds.map(|seed| demo(&["--precision", half, "--seed", &seed.to_string()])).collect::<Vec<_>>();
        let mean = runs.iter().map(accuracy).sum::<f64>() / 3.0;
        println!("{half}: {:.4?}, mean {mean:.4}; f32: {wide:.4}", runs.iter().map(accuracy).collect::<Vec<_>>());
        assert!((mean - wide).abs() <= 0.01, "{half}: {mean}, f32 {wide}");
        assert_ne!(runs[0]["digest"], demos()[0]["digest"], "{half} is not f32");
    }
}

#[test]
fn the_last_line_says_what_was_done_and_on_what() {
    let demo = &demos()[0];
    assert_eq!(demo["devices"], serde_json::json!(["cpu:0"]));
    assert_eq!(demo["world"], 1);
    assert_eq!(demo["steps"], 690);
    assert_eq!(demo["digest"].as_str().map(str::len), Some(64));
}

#[test]
fn the_same_seed_gives_the_same_bits_on_one_thread_and_on_two() {
    let digest = |threads| demo(&["--passes", "3", "--threads", threads])["digest"].clone();
    assert_eq!(digest("1"), digest("2"));
    assert_ne!(demos()[0]["digest"], demos()[1]["digest"], "another seed is another model");
}
