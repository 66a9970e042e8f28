//! What this CPU really does, measured in a second or two: a small kernel for each sort of work, run by [`CpuDevice`] as any
//! plan is. The best of many runs counts: whatever else the machine does only makes a run slower.

use std::sync::Arc;
use std::time::{Duration, Instant};

use thalweg_graph::DType::{F32, I32};
use thalweg_graph::cost::{Rates, Work};
use thalweg_graph::id::Arena;
use thalweg_graph::ir::Site;
use thalweg_graph::kernel::build::{Axes, Expr, found, read, read_or, sum};
use thalweg_graph::kernel::{Attention, BufferType, Kernel, Literal, Monoid};
use thalweg_graph::plan::{
    Buffer, BufferId, Channel, ChannelId, DevicePlan, Endpoint, Instruction, KernelId, Launch, Memory, Plan,
};
use thalweg_runtime::device::{Device, DeviceError};
use thalweg_runtime::executor::{Exchange, Executor, Fetch};

use crate::device::CpuDevice;

/// A probe runs for so long.
const LONG_ENOUGH: Duration = Duration::from_millis(60);
/// Hops of the step whose hops are timed.
const HOPS: usize = 32;

/// Measures a CPU device of `threads` threads, and what a neighbour of it in this process costs. Nothing else should be
/// running.
///
/// # Errors
/// If threads cannot be started, or there is no room for the probes (some 300 MiB).
pub fn measure(threads: usize) -> Result<Rates, DeviceError> {
    let of = |kernel: &Kernel| time(threads, kernel);
    let launch_seconds = of(&scaled(64, 0))?;
    // Of what a probe took, only what the sort of work itself did: the rest is known by then.
    let mut rates = Rates { launch_seconds, ..Rates::DEFAULT };
    let rest = |kernel: &Kernel| Ok::<_, DeviceError>((of(kernel)? - launch_seconds).max(1e-9));
    for (rate, elements) in
        [(&mut rates.near_bytes, 1 << 16), (&mut rates.shared_bytes, 1 << 20), (&mut rates.far_bytes, 1 << 24)]
    {
        *rate = 8.0 * elements as f64 / rest(&scaled(elements, 0))?;
    }
    let long = scaled(LANES, CHAIN);
    rates.lane_ops = Work::of(&long).lane_ops / rest(&long)?;
    let (dear, cheap) = (heavy(LANES), Work::of(&heavy(LANES)).lane_ops / rates.lane_ops);
    rates.heavy_ops = Work::of(&dear).heavy_ops / (rest(&dear)? - cheap).max(1e-9);
    let (rows, cheap) = (row_sums(512, 512), Work::of(&row_sums(512, 512)).lane_ops / rates.lane_ops);
    rates.folded = Work::of(&rows).folded / (rest(&rows)? - cheap).max(1e-9);
    let turned = transposed(512);
    rates.strided = Work::of(&turned).strided / rest(&turned)?;
    let scattered = scatter(1 << 14);
    rates.scattered = Work::of(&scattered).scattered / rest(&scattered)?;
    // A square product multiplies much for what it packs, a flat one little.
    let (square, flat) = (product(512, 512, 512), product(16, 512, 512));
    let [(a, b, x), (c, d, y)] = [&square, &flat].map(|kernel| (Work::of(kernel), kernel)).map(|(w, kernel)| {
        let took = rest(kernel).unwrap_or(f64::INFINITY);
        (w.product_flops, w.packed, took)
    });
    let packing = (y * a - x * c) / (d * a - b * c);
    rates.packed = if packing > 0.0 { (1.0 / packing).min(1e12) } else { 1e12 };
    rates.product_flops = a / (x - b / rates.packed).max(1e-9);
    let plain = rest(&square)?;
    let finished = product_and(512, CHAIN / 2);
    rates.epilogue_ops = Work::of(&finished).epilogue_ops / (rest(&finished)? - plain).max(1e-9);
    let [forward, back, weight] = convolution(16, 64, 16);
    let unpacked = |kernel: &Kernel| {
        // Packing that is hidden behind other work never leaves less than half.
        let took = rest(kernel)?;
        Ok::<_, DeviceError>((took - Work::of(kernel).packed / rates.packed).max(took / 2.0))
    };
    let [x, y, z] = [unpacked(&forward)?, unpacked(&back)?, unpacked(&weight)?];
    rates.window_flops = Work::of(&forward).window_flops / x;
    rates.back_flops = Work::of(&back).back_flops / y;
    rates.weight_flops = Work::of(&weight).weight_flops / z;
    let attended = attention();
    rates.attention_flops = Work::of(&attended).attention_flops / rest(&attended)?;

    // What is lent costs nothing, whatever its size; what is not is copied.
    (rates.feed_seconds, rates.feed_bytes) = (launch_seconds, rates.shared_bytes / 2.0);
    rates.step_seconds = step(&hops(0, 1))?;
    let hop = |seconds: f64| ((seconds - rates.step_seconds) / HOPS as f64).max(1e-9);
    rates.hop_seconds = hop(step(&hops(HOPS, 16))?);
    const MEGA: u64 = 1 << 18;
    let large = hop(step(&hops(HOPS, MEGA))?);
    rates.hop_bytes = 4.0 * MEGA as f64 / (large - rates.hop_seconds).max(1e-9);
    Ok(rates)
}

/// Elements of the probes of instructions: registers and buffers stay in the nearest caches.
const LANES: u64 = 1 << 15;
/// Instructions of the chain whose instructions are timed.
const CHAIN: usize = 32;

fn f32s(shape: &[u64]) -> BufferType {
    BufferType { dtype: F32, shape: shape.to_vec() }
}

/// So many elements copied, with a chain of products and sums on the way.
fn scaled(n: u64, chain: usize) -> Kernel {
    let mut axes = Axes::new();
    let [i] = axes.par([n]);
    let end = (0..chain).fold(read(0, [i]), |x, k| if k % 2 == 0 { x * 0.5 } else { x + read(0, [i]) });
    axes.nest(&[f32s(&[n])], &[f32s(&[n])], [end])
}

fn heavy(n: u64) -> Kernel {
    let mut axes = Axes::new();
    let [i] = axes.par([n]);
    let x: Expr = read(0, [i]);
    axes.nest(&[f32s(&[n])], &[f32s(&[n])], [(x.exp() * 0.25).tanh()])
}

fn row_sums(rows: u64, columns: u64) -> Kernel {
    let mut axes = Axes::new();
    let ([i], [j]) = (axes.par([rows]), axes.fold([columns]));
    axes.nest(&[f32s(&[rows, columns])], &[f32s(&[rows])], [sum(read(0, [i, j]))])
}

fn transposed(n: u64) -> Kernel {
    let mut axes = Axes::new();
    let [i, j] = axes.par([n, n]);
    axes.nest(&[f32s(&[n, n])], &[f32s(&[n, n])], [read(0, [j, i])])
}

fn scatter(n: u64) -> Kernel {
    let places = 1024;
    let indices = BufferType { dtype: I32, shape: vec![n] };
    let mut axes = Axes::new();
    let [i] = axes.par([n]);
    axes.scatter(&[indices, f32s(&[n])], &f32s(&[places]), None, Monoid::Sum, [found(read(0, [i]))], read(1, [i]))
}

fn product(m: u64, k: u64, n: u64) -> Kernel {
    let mut axes = Axes::new();
    let ([i, j], [l]) = (axes.par([m, n]), axes.fold([k]));
    axes.nest(&[f32s(&[m, k]), f32s(&[k, n])], &[f32s(&[m, n])], [sum(read(0, [i, l]) * read(1, [l, j]))])
}

/// A square product with a chain of products and sums on each of its sums.
fn product_and(n: u64, chain: usize) -> Kernel {
    let mut axes = Axes::new();
    let ([i, j], [l]) = (axes.par([n, n]), axes.fold([n]));
    let other = || read(2, [i, j]);
    let start = sum(read(0, [i, l]) * read(1, [l, j]));
    let end = (0..chain).fold(start, |x, k| if k % 2 == 0 { x * 0.5 } else { x + other() });
    axes.nest(&[f32s(&[n, n]), f32s(&[n, n]), f32s(&[n, n])], &[f32s(&[n, n])], [end])
}

/// 3×3 windows over square images with a border: forward, and the gradients by image and weights.
fn convolution(n: u64, c: u64, size: u64) -> [Kernel; 3] {
    let (x, w) = (f32s(&[n, c, size, size]), f32s(&[c, c, 3, 3]));
    let window = |back: bool| {
        let mut axes = Axes::new();
        let ([b, o, h, v], [k, p, q]) = (axes.par([n, c, size, size]), axes.fold([c, 3, 3]));
        let at = if back { [h - p + 1, v - q + 1] } else { [h + p - 1, v + q - 1] };
        let [row, column] = at;
        let weights = if back { [k, o, p, q] } else { [o, k, p, q] };
        let image = read_or(0, [b.into(), k.into(), row, column], 0.0);
        axes.nest(&[x.clone(), w.clone()], std::slice::from_ref(&x), [sum(image * read(1, weights))])
    };
    let mut axes = Axes::new();
    let ([o, i, p, q], [b, h, v]) = (axes.par([c, c, 3, 3]), axes.fold([n, size, size]));
    let image = read_or(1, [b.into(), i.into(), h + p - 1, v + q - 1], 0.0);
    let weight = axes.nest(&[x.clone(), x.clone()], std::slice::from_ref(&w), [sum(read(0, [b, o, h, v]) * image)]);
    [window(false), window(true), weight]
}

fn attention() -> Kernel {
    let (matrix, numbers) = (f32s(&[4, 128, 4, 64]), f32s(&[4, 128, 4]));
    let (operands, results) = (vec![matrix.clone(); 3], vec![matrix, numbers]);
    Kernel::Attention(Attention { operands, results, rows: 1, causal: true, scale: Literal::Float(0.125) })
}

/// Best seconds of a launch of `kernel`.
fn time(threads: usize, kernel: &Kernel) -> Result<f64, DeviceError> {
    let mut device = CpuDevice::new("cpu:0", threads)?;
    let (plan, fill) = alone(kernel, &device);
    // Zero pages are all one page, and would never leave the cache.
    device.reserve_state(0)?;
    let loaded = device.load(&Arc::new(plan), 0)?;
    for (offset, bytes, of_indices) in fill {
        let word = if of_indices { 7i32.to_ne_bytes() } else { 1.0f32.to_ne_bytes() };
        device.write(Memory::Scratch, offset, &word.repeat(bytes as usize / 4))?;
    }
    // Several at once where they are short: a look at the clock takes a while as well.
    let (mut best, mut many, begun) = (f64::INFINITY, 1u32, Instant::now());
    device.run(loaded, 0..1, None)?;
    while begun.elapsed() < LONG_ENOUGH {
        let before = Instant::now();
        for _ in 0..many {
            device.run(loaded, 0..1, None)?;
        }
        let took = before.elapsed();
        best = best.min(took.as_secs_f64() / f64::from(many));
        if took < Duration::from_micros(50) {
            many *= 2;
        }
    }
    Ok(best)
}

/// A plan of one launch; and the bytes that are to be written before it runs: offset, size, whether they are indices.
fn alone(kernel: &Kernel, device: &CpuDevice) -> (Plan, Vec<(u64, u64, bool)>) {
    let (mut buffers, mut fill, mut end) = (Arena::default(), vec![], 0u64);
    let mut place = |ty: &BufferType| {
        let offset = end;
        fill.push((offset, ty.size_bytes(), ty.dtype == I32));
        end = (end + ty.size_bytes()).next_multiple_of(64);
        buffers.push(Buffer { memory: Memory::Scratch, offset, ty: ty.clone(), pieces: vec![] })
    };
    let reads: Vec<BufferId> = kernel.operands().iter().map(&mut place).collect();
    let writes: Vec<BufferId> = kernel.results().iter().map(&mut place).collect();
    let bytes = device.target().workspace_bytes(kernel);
    let mut kernels = Arena::default();
    let launch = Launch {
        kernel: kernels.push(kernel.clone()),
        reads,
        writes,
        workspace: (end, bytes),
        label: "probe".into(),
        site: Site::default(),
    };
    let part = DevicePlan {
        device: device.target().name(),
        state_bytes: 0,
        scratch_bytes: end + bytes,
        staging_bytes: 0,
        buffers,
        instructions: vec![Instruction::Launch(launch)],
    };
    (plan(kernels, Arena::default(), vec![part]), fill)
}

fn plan(kernels: Arena<KernelId, Kernel>, channels: Arena<ChannelId, Channel>, devices: Vec<DevicePlan>) -> Plan {
    Plan { graph: "probe".into(), program: "probe".into(), bindings: Default::default(), kernels, channels, devices }
}

/// Two devices between which `n` numbers go to and fro so many times.
fn hops(count: usize, n: u64) -> Plan {
    let (ty, bytes) = (f32s(&[n]), (4 * n).next_multiple_of(64));
    let mut channels = Arena::default();
    let part = |i: u32| DevicePlan {
        device: format!("cpu:{i}").into(),
        state_bytes: bytes,
        scratch_bytes: 0,
        staging_bytes: count as u64 * bytes,
        buffers: Arena::default(),
        instructions: vec![],
    };
    let mut parts = [part(0), part(1)];
    let buffer = |memory, offset| Buffer { memory, offset, ty: ty.clone(), pieces: vec![] };
    let mut last = [0, 1].map(|d| parts[d].buffers.push(buffer(Memory::State, 0)));
    for hop in 0..count {
        let (from, to) = (hop % 2, 1 - hop % 2);
        let ends = [from, to].map(|d| Endpoint::Device(d as u16));
        let label = "hop".into();
        let channel = channels.push(Channel { from: ends[0], to: ends[1], ty: ty.clone(), start: 0, label });
        let post = Instruction::Post { channel, buffer: last[from] };
        parts[from].instructions.extend([post, Instruction::Sent(channel)]);
        let slot = parts[to].buffers.push(buffer(Memory::Staging, hop as u64 * bytes));
        let wait = Instruction::Wait { channel, buffer: slot };
        parts[to].instructions.extend([Instruction::Grant(channel), wait]);
        last[to] = slot;
    }
    plan(Arena::default(), channels, parts.to_vec())
}

/// Best seconds of a step of two devices.
fn step(plan: &Plan) -> Result<f64, DeviceError> {
    let plan = Arc::new(plan.clone());
    let open = |i| Ok::<_, DeviceError>(Box::new(CpuDevice::new(&format!("cpu:{i}"), 1)?) as Box<dyn Device>);
    let mut executor = Executor::new(vec![open(0)?, open(1)?])?;
    executor.reserve_state(&plan.devices.iter().map(|d| d.state_bytes).collect::<Vec<_>>())?;
    let prepared = executor.load(&plan)?;
    let feeds = vec![&[][..]; plan.channels.len()];
    let (mut best, begun) = (f64::INFINITY, Instant::now());
    while begun.elapsed() < 2 * LONG_ENOUGH {
        let before = Instant::now();
        let fetches = feeds.iter().map(|_| Fetch::Nothing).collect();
        executor.run(&prepared, Exchange { feeds: &feeds, draws: &[], fetches, agrees: &|| true })?;
        best = best.min(before.elapsed().as_secs_f64());
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_probe_is_sound_and_asks_for_the_work_it_is_for() {
        let device = CpuDevice::new("cpu:0", 1).expect("it opens");
        let [forward, back, weight] = convolution(16, 64, 16);
        type Probe = (Kernel, fn(&Work) -> f64);
        let probes: [Probe; 11] = [
            (scaled(LANES, CHAIN), |w| w.lane_ops),
            (heavy(LANES), |w| w.heavy_ops),
            (row_sums(512, 512), |w| w.folded),
            (transposed(512), |w| w.strided),
            (scatter(1 << 14), |w| w.scattered),
            (product(512, 512, 512), |w| w.product_flops),
            (product_and(512, 16), |w| w.epilogue_ops),
            (forward, |w| w.window_flops),
            (back, |w| w.back_flops),
            (weight, |w| w.weight_flops),
            (attention(), |w| w.attention_flops),
        ];
        for (kernel, sort) in probes {
            assert_eq!(kernel.verify(), Vec::<String>::new());
            assert!(sort(&Work::of(&kernel)) > 1e4, "{kernel}");
            // Nobody reads what a probe makes, and its operands are written from outside: that alone is not sound.
            assert!(alone(&kernel, &device).0.devices[0].scratch_bytes > 0);
        }
        assert_eq!(hops(HOPS, 16).verify(), Vec::<String>::new());
    }
}
