//! Plans over two and three devices, small enough to follow; and devices that misbehave on demand.

#![allow(dead_code)]

#[path = "../common/odd.rs"]
mod odd;

use std::sync::Arc;

use thalweg_cpu::CpuDevice;
use thalweg_graph::DType;
use thalweg_graph::kernel::build::{Axes, Expr, read};
use thalweg_graph::kernel::{BufferType, Kernel};
use thalweg_graph::plan::{ChannelId, Instruction, Memory, Plan};
use thalweg_runtime::executor::{Exchange, Fetch, Prepared};
use thalweg_runtime::{Device, DeviceError, Executor, ReferenceDevice};

#[allow(unused_imports)] // Not all who look at these plans spoil anything.
pub(crate) use odd::odd;

/// Elements that are copied wherever they go, and elements that are worth lending.
pub(crate) const SIZES: [u64; 2] = [5, 20_003];

/// Element by element over `n`.
fn each(n: u64, operands: usize, value: impl Fn(&dyn Fn(u16) -> Expr) -> Expr) -> Kernel {
    let ty = BufferType { dtype: DType::F32, shape: vec![n] };
    let mut axes = Axes::new();
    let at = axes.par_over(&[n]);
    let value = value(&|operand| read(operand, at.iter().copied()));
    axes.nest(&vec![ty.clone(); operands], &[ty], [value])
}

#[track_caller]
pub(crate) fn parsed(text: &str) -> Arc<Plan> {
    let plan = Plan::parse(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_eq!(plan.verify(), Vec::<String>::new(), "{text}");
    Arc::new(plan)
}

/// A stretch of memory for f32s, a multiple of a line.
pub(crate) fn room(n: u64) -> u64 {
    (4 * n).next_multiple_of(64)
}

/// `x` has two halves; each device doubles its own and adds 1, gets the other's and adds both (`total`); `y` is the total
/// and the own half, and comes from both. `w` lies on both and grows by the total; of `v` each has two columns, which
/// double; `step` counts. Device 0 goes on reading what it has sent and is granted before anything else is done; device 1 makes
/// its own for sending, and is granted ahead.
pub(crate) fn exchange(n: u64) -> Arc<Plan> {
    let (affine, add, double) =
        (each(n, 1, |x| x(0) * 2.0 + 1.0), each(n, 2, |x| x(0) + x(1)), each(4, 1, |x| x(0) + x(0)));
    let mut axes = Axes::new();
    let step = [BufferType { dtype: DType::I64, shape: vec![] }];
    axes.par([]);
    let count = axes.nest(&step, &step, [read(0, Vec::<i64>::new()) + 1.0]);
    let at = |k: u64| k * room(n);
    let (state, scratch, staging) = (at(1) + 128, at(4), at(2));
    let buffers = format!(
        "b0: f32[{n}] = staging at 0
         b1: f32[{n}] = scratch at 0
         b2: f32[{n}] = staging at {}
         b3: f32[{n}] = scratch at {}
         b4: f32[{n}] = scratch at {}
         b5: f32[{n}] = state at 0
         b6: f32[4] = state at {}
         b7: f32[{n}] = scratch at {}
         b8: i64[] = state at {}",
        at(1),
        at(1),
        at(2),
        at(1),
        at(3),
        at(1) + 64
    );
    parsed(&format!(
        r#"plan "exchange" program "run" {{
          k0 = {affine} k1 = {add} k2 = {double} k3 = {count}
          #0: f32[{n}] = driver -> device 0 "x"
          #1: f32[{n}] = driver -> device 1 at {n} "x"
          #2: f32[{n}] = device 0 -> device 1 "left"
          #3: f32[{n}] = device 1 -> device 0 "right"
          #4: f32[{n}] = device 0 -> driver "y"
          #5: f32[{n}] = device 1 -> driver at {n} "y"
          #6: f32[{n}] = device 0 -> driver "total"
          device 0 "zero" state {state} scratch {scratch} staging {staging} {{
            {buffers}
            wait #0 b0
            launch k0 b0 -> b1 "own"
            post #2 b1
            wait #3 b2
            launch k1 b1, b2 -> b3 "total"
            grant #3
            sent #2
            launch k1 b3, b1 -> b4 "y"
            post #4 b4
            post #6 b3
            commit
            launch k1 b5, b3 -> b5 "w"
            launch k2 b6 -> b6 "v"
            launch k3 b8 -> b8 "step"
          }}
          device 1 "one" state {state} scratch {scratch} staging {staging} {{
            {buffers}
            grant #2
            wait #1 b0
            launch k0 b0 -> b7 "for the other"
            post #3 b7
            sent #3
            launch k0 b0 -> b1 "own"
            wait #2 b2
            launch k1 b2, b1 -> b3 "total"
            launch k1 b3, b1 -> b4 "y"
            post #5 b4
            commit
            launch k1 b5, b3 -> b5 "w"
            launch k2 b6 -> b6 "v"
            launch k3 b8 -> b8 "step"
          }}
        }}"#
    ))
}

/// The same; but device 0 grants only when it has computed, and device 1 may have made what it sends before that.
pub(crate) fn granted_late(n: u64) -> Arc<Plan> {
    let mut plan = Plan::clone(&exchange(n));
    let instructions = &mut plan.devices[0].instructions;
    let grant = Instruction::Grant(ChannelId(3));
    instructions.retain(|i| *i != grant);
    let computed = instructions.iter().position(|i| matches!(i, Instruction::Launch(_))).expect("it computes");
    instructions.insert(computed + 1, grant);
    parsed(&plan.to_string())
}

/// Three devices in a ring: each has `v`, sends it on, then sends on what it got, and puts the mean of all three and its own in its place.
pub(crate) fn ring(n: u64) -> Arc<Plan> {
    let (add, mean) = (each(n, 2, |x| x(0) + x(1)), each(n, 2, |x| (x(0) + x(1)) * 0.25));
    let at = |k: u64| k * room(n);
    let devices: Vec<String> = (0..3)
        .map(|d| {
            // Channels 0 to 2 leave device 0 to 2 first, 3 to 5 then.
            let (from, next) = ((d + 2) % 3, d);
            format!(
                r#"device {d} "ring {d}" state {} scratch {} staging {} {{
                  b0: f32[{n}] = state at 0
                  b1: f32[{n}] = staging at 0
                  b2: f32[{n}] = staging at {}
                  b3: f32[{n}] = scratch at 0
                  b4: f32[{n}] = scratch at {}
                  post #{next} b0
                  wait #{from} b1
                  launch k0 b0, b1 -> b3 "first"
                  post #{} b1
                  sent #{next}
                  wait #{} b2
                  launch k0 b3, b2 -> b4 "second"
                  sent #{}
                  grant #{from}
                  grant #{}
                  commit
                  launch k1 b4, b0 -> b0 "v"
                }}"#,
                at(1),
                at(2),
                at(2),
                at(1),
                at(1),
                next + 3,
                from + 3,
                next + 3,
                from + 3,
            )
        })
        .collect();
    let channels: Vec<String> = (0..6)
        .map(|c| format!(r#"#{c}: f32[{n}] = device {} -> device {} "hop {c}""#, c % 3, (c % 3 + 1) % 3))
        .collect();
    let (channels, devices) = (channels.join("\n"), devices.join("\n"));
    parsed(&format!(r#"plan "ring" program "run" {{ k0 = {add} k1 = {mean} {channels} {devices} }}"#))
}

pub(crate) fn reference() -> Box<dyn Device> {
    Box::new(ReferenceDevice::default())
}
pub(crate) fn cpu(index: usize, threads: usize) -> Box<dyn Device> {
    Box::new(CpuDevice::new(&format!("cpu:{index}"), threads).expect("threads start"))
}

/// So many devices of each kind, and of both.
pub(crate) fn sets(count: usize) -> Vec<(&'static str, Vec<Box<dyn Device>>)> {
    vec![
        ("reference", (0..count).map(|_| reference()).collect()),
        ("cpu with one thread", (0..count).map(|i| cpu(i, 1)).collect()),
        ("cpu with two threads", (0..count).map(|i| cpu(i, 2)).collect()),
        ("mixed", (0..count).map(|i| if i == 0 { reference() } else { cpu(i, 1) }).collect()),
    ]
}

/// An executor with a plan loaded.
#[track_caller]
pub(crate) fn loaded(devices: Vec<Box<dyn Device>>, plan: &Arc<Plan>) -> (Executor, Prepared) {
    let mut executor = Executor::new(devices).expect("threads start");
    let state: Vec<u64> = plan.devices.iter().map(|d| d.state_bytes).collect();
    executor.reserve_state(&state).expect("room");
    let prepared = executor.load(plan).expect("room");
    (executor, prepared)
}

/// All state of all devices.
pub(crate) fn state(executor: &mut Executor, prepared: &Prepared) -> Vec<Vec<u8>> {
    let part = |(i, d): (usize, &thalweg_graph::plan::DevicePlan)| {
        let mut bytes = vec![0; d.state_bytes as usize];
        executor.device_mut(i).read(Memory::State, 0, &mut bytes).expect("it is there");
        bytes
    };
    prepared.plan().devices.iter().enumerate().map(part).collect()
}

/// What is fed as `x` in step `k`.
pub(crate) fn fed(n: u64, k: u64) -> Vec<f32> {
    (0..2 * n).map(|i| ((i * 37 + k * 11) % 101) as f32 - 50.0).collect()
}

/// Runs [`exchange`] once; gives `y` and `total`.
pub(crate) fn run(executor: &mut Executor, prepared: &Prepared, n: u64, k: u64) -> Result<[Vec<f32>; 2], DeviceError> {
    run_if(executor, prepared, n, k, true).map(|r| r.expect("it was agreed on"))
}

/// The same, if `agrees`.
pub(crate) fn run_if(
    executor: &mut Executor,
    prepared: &Prepared,
    n: u64,
    k: u64,
    agrees: bool,
) -> Result<Option<[Vec<f32>; 2]>, DeviceError> {
    let x = fed(n, k);
    let (left, right) = bytemuck::cast_slice(&x).split_at(4 * n as usize);
    let (mut y, mut total) = (vec![0f32; 2 * n as usize], vec![0f32; n as usize]);
    let (low, high) = bytemuck::cast_slice_mut(&mut y).split_at_mut(4 * n as usize);
    let fetches = vec![
        Fetch::Nothing,
        Fetch::Nothing,
        Fetch::Nothing,
        Fetch::Nothing,
        Fetch::Into(low),
        Fetch::Into(high),
        Fetch::Into(bytemuck::cast_slice_mut(&mut total)),
    ];
    let feeds = [left, right, &[], &[], &[], &[], &[]];
    let done = executor.run(prepared, Exchange { feeds: &feeds, draws: &[], fetches, agrees: &|| agrees })?;
    Ok(done.then_some([y, total]))
}

/// What [`run`] has to give.
pub(crate) fn expected(n: u64, k: u64) -> [Vec<f32>; 2] {
    let own: Vec<f32> = fed(n, k).iter().map(|x| x * 2.0 + 1.0).collect();
    let (left, right) = own.split_at(n as usize);
    let total: Vec<f32> = left.iter().zip(right).map(|(l, r)| l + r).collect();
    let y = own.iter().zip(total.iter().chain(&total)).map(|(own, t)| t + own).collect();
    [y, total]
}
