//! A process needs no more memory than its plans say: what the system says of the process beside [`Plan::memory`], for a model
//! of a few hundred megabytes. Not an allocator that counts: it would not see which pages of an arena are touched, and pages
//! are what a machine runs out of.
//!
//! The most that a process has had is never forgotten; so each case runs in a process of its own, this test again.

#![cfg(target_os = "linux")]

use std::process::Command;

use serde_json::{Value, json};
use thalweg::graph::Bindings;
use thalweg::graph::plan::{Endpoint, Plan};
use thalweg::prelude::*;

/// Names the case that a process is to run.
const CASE: &str = "THALWEG_MEMORY_CASE";
/// What there is beside plans: code, threads, the graph, what the allocator keeps.
const BESIDE: u64 = 64 << 20;
/// A layer's parameters are 25 MiB.
const WIDTH: u64 = 2560;

/// On one device, and on two; with steps of several batch sizes, each of which has a plan; with saves. In `lent` a tensor of 128
/// MiB is fed and one returned.
const CASES: [&str; 7] = ["one", "one save", "dp", "dp batches", "zero1", "zero1 save", "lent"];

/// A figure of the kernel's about this process, in bytes.
fn status(figure: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("a kernel that says so");
    let line = text.lines().find_map(|line| line.strip_prefix(figure)).expect("such a figure");
    let kib: u64 = line.trim_matches(|c: char| !c.is_ascii_digit()).parse().expect("a number");
    kib << 10
}

/// Four wide layers: 100 MiB of parameters, twice as much for AdamW.
fn wide() -> Graph {
    let g = Graph::new("wide").seed(0);
    let batch = g.dim("batch", 1..=256);
    let (x, y) = (g.input("x", F32, shape![batch, WIDTH]), g.input("y", I32, shape![batch]));
    let layer = || Linear::new(WIDTH);
    let body = Sequential::new("body").push("a", layer()).relu().push("b", layer()).relu().push("c", layer()).relu();
    let h = body.push("d", layer()).relu().call(x);
    let loss = cross_entropy(Sequential::new("head").push("fc", Linear::new(10)).call(h), y).mean().named("loss");
    g.program("train").outputs([loss]).update(AdamW::new(1e-3).minimize(loss));
    g
}

/// Nothing but what is fed and returned.
fn lent() -> Graph {
    let g = Graph::new("lent").seed(0);
    let batch = g.dim("batch", 1..=1 << 20);
    let x = g.input("x", F32, shape![batch, WIDTH]);
    g.program("run").outputs([(x * 2.0).exp().named("y")]);
    g
}

/// The most bytes of what any of the plans needs, by arena, as the arenas of a session are. Channels are no more than in
/// one plan: all have as many, of the same sizes.
fn most(plans: &[std::sync::Arc<Plan>], borrows: &[bool]) -> u64 {
    let each: Vec<_> = plans.iter().map(|plan| plan.memory(borrows)).collect();
    let of = |device: usize| {
        let most = |figure: fn(&thalweg::graph::plan::DeviceMemory) -> u64| {
            each.iter().map(|plan| figure(&plan[device])).max().unwrap_or(0)
        };
        most(|m| m.state_bytes) + most(|m| m.scratch_bytes) + most(|m| m.staging_bytes) + most(|m| m.channel_bytes)
    };
    (0..borrows.len()).map(of).sum()
}

/// What a case takes and may take, in bytes.
fn measure(case: &str) -> Value {
    let (g, program, sizes) = match case {
        "lent" => (lent(), "run", &[13_108][..]),
        "dp batches" => (wide(), "train", &[16, 32, 48, 64, 80, 96][..]),
        _ => (wide(), "train", &[64][..]),
    };
    let label = |n: u64| Array::zeros(I32, &[n]);
    let image = |n: u64| {
        // Filled in place: what is only there for a while would count as well.
        let mut image = Array::zeros(F32, &[n, WIDTH]);
        image.bytes_mut().fill(0x3c);
        image
    };
    let feeds: Vec<(Array, Array)> = sizes.iter().map(|n| (image(*n), label(*n))).collect();
    let before = status("VmRSS:");
    let strategy = Strategy::data_parallel();
    let mut model = match case.split(' ').next() {
        Some("dp") => g.compile_with(&Cluster::cpus(2), &strategy),
        Some("zero1") => g.compile_with(&Cluster::cpus(2), &strategy.shard_state()),
        _ => g.compile(&Cluster::cpu(2)),
    }
    .expect("no mistakes");
    let mut plans = vec![];
    for (x, y) in &feeds {
        let bindings: Bindings = [("batch".into(), x.shape()[0])].into();
        let feeds: &[(&str, &Array)] = if program == "train" { &[("x", x), ("y", y)] } else { &[("x", x)] };
        for _ in 0..2 {
            model.run(program, feeds).expect("it runs");
        }
        plans.push(model.session().plan(program, &bindings).expect("it was made"));
    }
    let borrows = model.session().borrows();
    let mut said = most(&plans, &borrows);
    if case.ends_with("save") {
        let directory = std::env::temp_dir().join(format!("thalweg-memory-{}", std::process::id()));
        for _ in 0..2 {
            model.save_and_wait(&directory).expect("room on the disk");
        }
        std::fs::remove_dir_all(&directory).expect("it was made");
        said += model.session().snapshot_bytes();
    }
    let returned = |plan: &Plan| {
        let all = plan.channels.values().iter().filter(|c| c.to == Endpoint::Driver);
        all.map(|c| c.ty.size_bytes()).sum::<u64>()
    };
    let returned = plans.iter().map(|plan| returned(plan)).max().expect("a plan");
    let channels: u64 = plans[0].memory(&borrows).iter().map(|m| m.channel_bytes).sum();
    json!({"took": status("VmHWM:").saturating_sub(before), "said": said, "returned": returned, "channels": channels})
}

#[test]
fn a_process_needs_no_more_memory_than_its_plans_say() {
    if let Ok(case) = std::env::var(CASE) {
        println!("\n{}", measure(&case));
        return;
    }
    let this = std::env::current_exe().expect("this test");
    let name = "a_process_needs_no_more_memory_than_its_plans_say";
    for case in CASES {
        let output = Command::new(&this).args([name, "--exact", "--nocapture"]).env(CASE, case).output();
        let output = output.expect("it starts");
        assert!(output.status.success(), "{case}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("text");
        let line = text.lines().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("no figures in {text}"));
        let told: Value = serde_json::from_str(line).expect("one object");
        let [took, said, returned, channels] =
            ["took", "said", "returned", "channels"].map(|figure| told[figure].as_u64().expect("a number"));
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        println!(
            "{case}: {:.1} MiB where plans say {:.1} ({:.1} of channels) and {:.1} are returned",
            mib(took),
            mib(said),
            mib(channels),
            mib(returned)
        );
        // Otherwise a second copy of something could hide.
        let crosses = case.starts_with("dp") || case.starts_with("zero1");
        assert!(said + returned >= 2 * BESIDE && (channels > 2 * BESIDE) == crosses, "{case}: too small to tell");
        assert!(took <= said + returned + BESIDE, "{case}: {took} bytes, {said} said and {returned} returned");
        assert!(took + BESIDE >= said + returned, "{case}: {took} bytes, much less than {said} said");
    }
}
