//! The command as people meet it: what it prints, where, and what it says when something is wrong.

#[path = "common/command.rs"]
mod command;

use std::process::{Command, Output, Stdio};

use command::{THALWEG, thalweg};

#[track_caller]
fn stdout(arguments: &[&str]) -> String {
    command::printed(&thalweg(arguments))
}

#[test]
fn a_graph_that_was_shown_is_read_again() {
    let text = stdout(&["graph", "show"]);
    let folder = std::env::temp_dir().join(format!("thalweg-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    let file = folder.join("digits.tw");
    std::fs::write(&file, &text).expect("room");
    let path = file.to_str().expect("a plain path");
    assert_eq!(stdout(&["graph", "show", path]), text);
    assert!(stdout(&["graph", "draw", path, "--format", "mermaid"]).contains("flowchart"));
    assert!(stdout(&["graph", "draw", path, "--program", "predict"]).contains("subgraph cluster"));
    assert!(stdout(&["graph", "show", path, "--program", "predict", "--primitives"]).contains("exp"));

    std::fs::write(&file, text.replace("conv2d %0", "conv2d %77")).expect("room");
    let output = thalweg(&["graph", "show", path]);
    let said = command::said(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("line ") && said.contains("%77 has not been declared"), "{said}");
    std::fs::remove_dir_all(&folder).expect("it was there");
}

#[test]
fn a_plan_is_shown_before_anything_runs() {
    let plan = stdout(&["plan", "--program", "train", "--bind", "batch=64"]);
    for part in ["commit", "scratch", "launch", "adamw"] {
        assert!(plan.contains(part), "no {part} in the plan");
    }
    assert!(plan.starts_with("// memory of cpu:0: ") && plan.contains("MiB: state "), "{plan:.200}");
    let output = thalweg(&["plan", "--program", "train"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("give every named dimension a value"));
}

#[test]
fn unknown_programs_and_files_are_named() {
    let said = |arguments: &[&str]| String::from_utf8_lossy(&thalweg(arguments).stderr).into_owned();
    assert!(said(&["graph", "show", "--program", "trian"]).contains("did you mean `train`?"));
    assert!(said(&["graph", "show", "nowhere.tw"]).contains("cannot read nowhere.tw"));
    assert_eq!(thalweg(&["grph"]).status.code(), Some(2));
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let plan = &["plan", "--program", "train", "--bind", "batch=64"][..];
    for arguments in [plan, &["demo", "--passes", "1"], &["devices"], &["graph", "show"]] {
        let mut child = Command::new(THALWEG)
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command runs");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("it ends");
        let said = command::said(&output);
        assert!(output.status.success() && !said.contains("panicked"), "{arguments:?}: {said}");
    }
}

#[test]
fn the_demo_shows_digits_and_keeps_progress_off_stdout() {
    let text = stdout(&["demo", "--passes", "1"]);
    assert!(text.contains("test accuracy") && text.contains("%@"), "{text}");
    assert!(!text.contains("steps  "), "{text}");
}

#[test]
fn the_demo_writes_a_trace_and_checks_values_if_asked() {
    let file = std::env::temp_dir().join(format!("thalweg-trace-{}.json", std::process::id()));
    let path = file.to_str().expect("a plain path");
    let last = |text: String| text.lines().last().map(|l| serde_json::from_str::<serde_json::Value>(l).expect("JSON"));
    let plain = last(stdout(&["demo", "--passes", "1", "--json"])).expect("a line");
    let looked = last(stdout(&["demo", "--passes", "1", "--json", "--check-finite", "--trace", path])).expect("a line");
    assert_eq!(plain["digest"], looked["digest"], "looking changes nothing");
    let trace: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&file).expect("it was written")).expect("JSON");
    std::fs::remove_file(&file).expect("it was there");
    let events = trace["traceEvents"].as_array().expect("a list");
    assert!(events.iter().filter(|e| e["cat"] == "step").count() > 20 && events.len() > 1000);
    let output = thalweg(&["demo", "--passes", "1", "--trace", "/nowhere/at/all.json"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot write /nowhere/at/all.json"));
}

#[test]
fn a_summary_is_a_table_or_json() {
    let table = stdout(&["graph", "summary", "--bind", "batch=64"]);
    for part in ["program `train`, batch = 64", "body.conv2", "f32[batch, 32, 8, 8]", "4,640", "peak scratch"] {
        assert!(table.contains(part), "no {part} in\n{table}");
    }
    let text = stdout(&["kit", "--case", "lenet_train", "--summary", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(json["total"]["parameters"], 61_706);
}

#[test]
fn devices_are_listed_with_what_is_not_used_and_why() {
    let text = stdout(&["devices"]);
    assert!(text.starts_with("cpu:0"), "{text}");
    assert!(!cfg!(feature = "gpu") || text.contains("no GPU") || text.contains("gpu:0"), "{text}");
    assert!(text.contains("not in this build"), "{text}");
    for line in stdout(&["devices", "--json"]).lines() {
        let device: serde_json::Value = serde_json::from_str(line).expect("one object per line");
        assert!(device["name"].is_string() && device["kind"].is_string(), "{line}");
    }
    let output = thalweg(&["demo", "--device", "gpu:99"]);
    let said = String::from_utf8_lossy(&output.stderr).to_string();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("gpu:99"), "{said}");
    let said = String::from_utf8_lossy(&thalweg(&["demo", "--device", "tpu"]).stderr).to_string();
    assert!(said.contains("`tpu` is no device") && said.contains("thalweg devices"), "{said}");
}

/// Where there is an adapter: its figures make sense, are kept, and are shown from then on; a damaged file is refused before
/// anything is measured.
#[test]
fn what_is_measured_is_kept_and_shown() {
    let cache = std::env::temp_dir().join(format!("thalweg-cache-{}", std::process::id()));
    let run = |arguments: &[&str]| {
        let mut command = Command::new(THALWEG);
        command.args(arguments).env("XDG_CACHE_HOME", &cache).output().expect("the command runs")
    };
    let gpus = |output: &Output| -> Vec<serde_json::Value> {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines = std::str::from_utf8(&output.stdout).expect("text").lines();
        let all = lines.map(|l| serde_json::from_str::<serde_json::Value>(l).expect("JSON"));
        all.filter(|d| d["kind"] != "cpu").collect()
    };
    let before = gpus(&run(&["devices", "--json"]));
    if before.is_empty() {
        println!("skipped: what_is_measured_is_kept_and_shown: there is no adapter");
        return;
    }
    assert!(before.iter().all(|d| d["measured"].is_null()));
    let measured = gpus(&run(&["devices", "--json", "--measure"]));
    for device in &measured {
        for figure in ["f32_flops", "copy_bytes", "upload_bytes", "download_bytes"] {
            assert!(device["measured"][figure].as_f64().is_some_and(|x| x > 1e6 && x < 1e16), "{figure}: {device}");
        }
        for figure in ["launch_seconds", "round_trip_seconds"] {
            assert!(device["measured"][figure].as_f64().is_some_and(|x| x > 1e-8 && x < 0.1), "{figure}: {device}");
        }
    }
    assert_eq!(gpus(&run(&["devices", "--json"])), measured, "kept, and shown");

    let file = cache.join("thalweg").join("devices.json");
    std::fs::write(&file, "{").expect("it is ours");
    let refused = run(&["devices", "--measure"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("devices.json") && said.contains("delete it"), "{said}");
    std::fs::remove_dir_all(&cache).expect("it was made");
}

#[test]
fn a_plan_is_shown_to_be_sound_or_what_is_wrong_with_it_is_said() {
    let text = stdout(&["verify", "--devices", "cpu:0,cpu:1", "--leaves", "4"]);
    for part in ["digits train, batch 64 on 2 devices", "sound: ", "nobody waits for ever", "cpu:1 needs", "no harm"] {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    let text = stdout(&["verify", "--model", "mlp_train", "--devices", "cpu:0,cpu:1", "--mutate", "48", "--json"]);
    let all: serde_json::Value = serde_json::from_str(&text).expect("one object");
    let (mutants, total) = (&all["mutants"], &all["mutants"]["total"]);
    assert_eq!((&all["sound"], &total["let_through"]), (&true.into(), &0.into()), "{text}");
    assert!(mutants["count"].as_u64() > Some(40) && total["harmful"].as_u64() > Some(20), "{text}");
    assert_eq!(mutants["operators"].as_object().map(serde_json::Map::len), Some(12), "{text}");

    // A plan in a file, as it was printed and with a line missing.
    let plan = stdout(&["plan", "--program", "train", "--bind", "batch=64"]);
    let file = std::env::temp_dir().join(format!("thalweg-{}.plan", std::process::id()));
    let path = file.to_str().expect("a plain path");
    std::fs::write(&file, &plan).expect("room");
    assert!(stdout(&["verify", "--model", path]).contains("sound: "));
    let commit = plan.lines().find(|line| line.trim() == "commit").expect("it learns");
    std::fs::write(&file, plan.replace(&format!("{commit}\n"), "")).expect("room");
    let output = thalweg(&["verify", "--model", path, "--mutate", "10"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("State: cpu:0:") && said.contains("the body writes"), "{said}");
    for (arguments, why) in [
        (&["verify", "--model", path, "--leaves", "2"][..], "says itself where it runs"),
        (&["verify", "--model", "mlp_train", "--batch", "7"], "of the digits' model alone"),
        (&["verify", "--model", "nobody"], "nor a file of plan text"),
        (&["verify", "--model", "Cargo.toml"], "Cargo.toml is no plan: line 1"),
        (&["verify", "--devices", "cpu:0,cpu:1", "--leaves", "1"], "cannot be spread over 2 devices"),
    ] {
        let output = thalweg(arguments);
        let said = command::said(&output);
        assert!(output.status.code() == Some(1) && said.contains(why), "{arguments:?}: {said}");
    }
    std::fs::remove_file(&file).expect("it was there");
}

/// What is measured of the CPU is kept, and explain predicts by it; a plan is drawn; what cannot be is refused.
#[test]
fn a_step_is_explained_compared_and_drawn() {
    let folder = std::env::temp_dir().join(format!("thalweg-explain-{}", std::process::id()));
    let run = |arguments: &[&str]| {
        let mut command = Command::new(THALWEG);
        command.args(arguments).env("XDG_CACHE_HOME", &folder).output().expect("the command runs")
    };
    let two = ["explain", "--model", "mlp_train", "--devices", "cpu:0,cpu:1", "--leaves", "4"];
    let json = |more: &[&str]| -> serde_json::Value {
        let output = run(&[&two[..], more].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("one object")
    };
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    let picture = folder.join("mlp.svg");
    let told = json(&["--json", "--analyze", "--steps", "3", "--draw", picture.to_str().expect("a plain path")]);
    let seconds = |v: &serde_json::Value| v.as_f64().expect("a number");
    assert_eq!(told["devices"][0]["rates_known"], false, "nothing was measured here");
    let launches = told["launches"].as_array().expect("a list");
    assert!(launches.iter().all(|l| seconds(&l["measured_seconds"]) > 0.0 && seconds(&l["seconds"]) > 0.0));
    for why in ["cut along axis 0 with x", "sum over 4 leaves", "combines what came by #", "updates variables"] {
        assert!(launches.iter().any(|l| l["why"].as_str().is_some_and(|w| w.contains(why))), "no {why}");
    }
    // One buffer for each channel: of what crosses nobody has two.
    let sum = |list: &str, figure: &str| -> u64 {
        told[list].as_array().expect("a list").iter().filter_map(|row| row[figure].as_u64()).sum()
    };
    assert!(sum("channels", "bytes") > 0 && sum("devices", "channel_bytes") == sum("channels", "bytes"));
    assert!(sum("devices", "state_bytes") >= 2 * told["snapshot_bytes"].as_u64().expect("a number"), "on both devices");
    // The path is a chain: nothing on it begins before what stands before it ended, and it ends with the step.
    let path = told["path"].as_array().expect("a list");
    let mut end = 0.0;
    for row in path {
        assert!((seconds(&row["begin_seconds"]) - end).abs() < 1e-7, "{row} does not begin at {end}");
        end = seconds(&row["begin_seconds"]) + seconds(&row["seconds"]);
    }
    let step = seconds(&told["step_seconds"]);
    assert!(end <= step && end > 0.5 * step, "{end} of {step}");
    let drawn = std::fs::read_to_string(&picture).expect("it was drawn");
    assert!(drawn.starts_with("<svg") && drawn.contains("cpu:1") && drawn.contains("(backward)"), "{drawn}");

    let text = run(&two).stdout;
    for part in ["was not measured", "MiB: state ", ", channels ", "memory in all: ", "from the first save on"] {
        assert!(String::from_utf8_lossy(&text).contains(part), "no {part}: {}", String::from_utf8_lossy(&text));
    }
    let refused = run(&[&two[..], &["--draw", "mlp.png"]].concat());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("a picture is"));
    let refused = run(&["explain", "--model", "mlp_tarin"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("there is no model `mlp_tarin`"));
    std::fs::remove_dir_all(&folder).expect("it was made");
}
