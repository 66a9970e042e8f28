//! Prints what a step over several devices costs besides its work: a step that does nothing, a hop of a few bytes, and a hop
//! of a megabyte that is copied once and that moves without a copy.
//!
//! `cargo run --release -p thalweg-cpu --example executor_figures`

use std::sync::Arc;
use std::time::{Duration, Instant};

use thalweg_cpu::CpuDevice;
use thalweg_graph::DType::F32;
use thalweg_graph::kernel::BufferType;
use thalweg_graph::kernel::build::{Axes, read};
use thalweg_graph::plan::Plan;
use thalweg_runtime::executor::{Exchange, Fetch};
use thalweg_runtime::{Device, Executor};

/// Hops of a step, there and back.
const HOPS: usize = 32;

/// Median seconds of a step over half a second.
fn median(devices: usize, plan: &str) -> f64 {
    let plan = Arc::new(Plan::parse(plan).expect("it parses"));
    let open = |i| Box::new(CpuDevice::new(&format!("cpu:{i}"), 1).expect("it opens")) as Box<dyn Device>;
    let mut executor = Executor::new((0..devices).map(open).collect()).expect("threads start");
    executor.reserve_state(&plan.devices.iter().map(|d| d.state_bytes).collect::<Vec<_>>()).expect("room");
    let prepared = executor.load(&plan).expect("room");
    let feeds = vec![&[][..]; plan.channels.len()];
    let mut times = vec![];
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(500) {
        let before = Instant::now();
        let fetches = feeds.iter().map(|_| Fetch::Nothing).collect();
        executor.run(&prepared, Exchange { feeds: &feeds, draws: &[], fetches, agrees: &|| true }).expect("it runs");
        times.push(before.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Nothing on so many devices.
fn null(devices: usize) -> String {
    let part = |i| format!(r#"device {i} "d{i}" state 0 scratch 0 staging 0 {{ }}"#);
    format!(r#"plan "null" program "run" {{ {} }}"#, (0..devices).map(part).collect::<Vec<_>>().join(" "))
}

/// `n` numbers go to and fro between two devices; where `computes`, each adds 1 before it sends them on.
fn ping_pong(n: u64, computes: bool) -> String {
    let ty = BufferType { dtype: F32, shape: vec![n] };
    let mut axes = Axes::new();
    let [i] = axes.par([n]);
    let next = axes.nest(std::slice::from_ref(&ty), std::slice::from_ref(&ty), [read(0, [i]) + 1.0]);
    let bytes = (4 * n).next_multiple_of(64);
    let mut channels = String::new();
    let mut parts = [0, 1].map(|_| (String::from("b0: f32[n] = state at 0 "), String::new()));
    for hop in 0..HOPS {
        let (from, to) = (hop % 2, 1 - hop % 2);
        channels += &format!(r#"#{hop}: f32[{n}] = device {from} -> device {to} "hop" "#);
        // What arrived last is what is sent on.
        let count = |buffers: &str| buffers.matches(':').count();
        let (buffers, list) = &mut parts[from];
        let mut sent = count(buffers) - 1;
        if computes {
            sent += 1;
            *buffers += &format!("b{sent}: f32[n] = scratch at {} ", hop as u64 * bytes);
            *list += &format!(r#"launch k0 b{} -> b{sent} "next" "#, sent - 1);
        }
        *list += &format!("post #{hop} b{sent} sent #{hop} ");
        let (buffers, list) = &mut parts[to];
        let slot = count(buffers);
        *buffers += &format!("b{slot}: f32[n] = staging at {} ", hop as u64 * bytes);
        *list += &format!("grant #{hop} wait #{hop} b{slot} ");
    }
    let all = HOPS as u64 * bytes;
    let parts = parts.iter().enumerate().map(|(i, (buffers, list))| {
        let buffers = buffers.replace("[n]", &format!("[{n}]"));
        format!(r#"device {i} "d{i}" state {bytes} scratch {all} staging {all} {{ {buffers} {list} }}"#)
    });
    let parts = parts.collect::<Vec<_>>().join(" ");
    format!(r#"plan "ping pong" program "run" {{ k0 = {next} {channels} {parts} }}"#)
}

/// The same launches on one device.
fn alone(n: u64) -> String {
    let text = ping_pong(n, true);
    let kernel = &text[text.find("k0").expect("a kernel")..text.find("#0").expect("a channel")];
    let bytes = (4 * n).next_multiple_of(64);
    let mut list = format!("b0: f32[{n}] = state at 0 ");
    list.extend((0..HOPS as u64).map(|hop| format!("b{}: f32[{n}] = scratch at {} ", hop + 1, hop * bytes)));
    list.extend((0..HOPS).map(|hop| format!(r#"launch k0 b{hop} -> b{} "next" "#, hop + 1)));
    format!(
        r#"plan "alone" program "run" {{ {kernel} device 0 "d0" state {bytes} scratch {} staging 0 {{ {list} }} }}"#,
        HOPS as u64 * bytes
    )
}

fn main() {
    for devices in [1, 2, 4] {
        println!("a step that does nothing on {devices}: {:6.2} µs", median(devices, &null(devices)) * 1e6);
    }
    let idle = median(2, &null(2));
    let hop = |seconds: f64| (seconds - idle) / HOPS as f64;
    println!("a hop of 64 bytes: {:6.2} µs", hop(median(2, &ping_pong(16, false))) * 1e6);
    let mega = 1 << 18;
    let copied = hop(median(2, &ping_pong(mega, false)));
    println!("a hop of 1 MiB, copied once: {:6.2} µs, {:5.2} GB/s", copied * 1e6, (4 * mega) as f64 / copied / 1e9);
    let (together, apart) = (hop(median(2, &ping_pong(mega, true))), median(1, &alone(mega)) / HOPS as f64);
    println!(
        "a hop of 1 MiB between launches, not copied: {:6.2} µs with its launch, which takes {:6.2} µs on one device",
        together * 1e6,
        apart * 1e6
    );
}
