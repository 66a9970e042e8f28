//! What an adapter really does, measured in a second or two: what a placer has to know and no driver tells. The ways that
//! bytes go are those of [`GpuDevice`], staging and all; for arithmetic there is a kernel made for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use thalweg_graph::id::Arena;
use thalweg_graph::ir::Site;
use thalweg_graph::kernel::{BufferType, Kernel, LoopNest};
use thalweg_graph::plan::{Buffer, DevicePlan, Instruction, Launch, Memory, Plan};
use thalweg_graph::types::DType;
use thalweg_runtime::device::{Device, DeviceError};

use crate::adapter::adapters;
use crate::device::GpuDevice;
use crate::wgsl::Slot;

/// What an adapter does, with what it was measured on. Rates are per second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The adapter, by its maker's name.
    pub adapter: String,
    /// The driver and its version.
    pub driver: String,
    /// The version of Thalweg that measured.
    pub version: String,
    /// Arithmetic operations on f32 in registers, a fused multiply-add being two.
    pub f32_flops: f64,
    /// Bytes that a copy within its memory reads and writes, both counted.
    pub copy_bytes: f64,
    /// Seconds that a launch costs in a prepared step, be it ever so small.
    pub launch_seconds: f64,
    /// Seconds from handing over one small launch to having its result here.
    pub round_trip_seconds: f64,
    /// Bytes that go up to it as large feeds.
    pub upload_bytes: f64,
    /// Bytes that come down from it as large outputs.
    pub download_bytes: f64,
}

/// The version that measures.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A probe repeats until it has taken so long.
const LONG_ENOUGH: Duration = Duration::from_millis(100);
/// What is copied and transferred.
const BYTES: u64 = 64 << 20;
/// Launches of the plan whose launches are timed.
const LAUNCHES: usize = 500;

/// Measures adapter `index`, which nobody else should be using.
///
/// # Errors
/// If it cannot be opened, has no room for the probes (some 200 MiB), or fails.
pub fn measure(index: usize) -> Result<Measured, DeviceError> {
    let mut device = GpuDevice::new(&format!("gpu:{index}"), index)?;
    let found = adapters().swap_remove(index);
    let bytes = BYTES.min(found.max_binding_bytes).min(found.max_buffer_bytes) / 2 / 256 * 256;
    let f32_flops = flops(&mut device)?;

    device.guarded(|d| [Memory::Scratch, Memory::Staging].into_iter().try_for_each(|m| d.reserve(m, bytes)))?;
    let copy_seconds = seconds(&mut device, |d, n| d.guarded(|d| copy(d, bytes, n)))?;
    let mut word = [0; 4];
    let launches = loaded(&mut device, 64, LAUNCHES)?;
    let step_seconds = seconds(&mut device, |d, n| {
        (0..n).try_for_each(|_| d.run(launches, 0..LAUNCHES, None))?;
        d.read(Memory::Scratch, 0, &mut word)
    })?;
    let round_trip_seconds = seconds(&mut device, |d, n| {
        (0..n).try_for_each(|_| {
            d.run(launches, 0..1, None)?;
            d.read(Memory::Scratch, 0, &mut word)
        })
    })?;

    let mut data = vec![1; bytes as usize];
    let up_seconds = seconds(&mut device, |d, n| {
        (0..n).try_for_each(|_| {
            d.write(Memory::Staging, 0, &data)?;
            // A feed has arrived when what came after it has.
            d.read(Memory::Staging, bytes - 4, &mut word)
        })
    })?;
    let down_seconds = seconds(&mut device, |d, n| (0..n).try_for_each(|_| d.read(Memory::Staging, 0, &mut data)))?;
    Ok(Measured {
        adapter: found.name,
        driver: found.driver,
        version: VERSION.into(),
        f32_flops,
        copy_bytes: 2.0 * bytes as f64 / copy_seconds,
        launch_seconds: step_seconds / LAUNCHES as f64,
        round_trip_seconds,
        upload_bytes: bytes as f64 / up_seconds,
        download_bytes: bytes as f64 / down_seconds,
    })
}

/// Seconds that one of `n` repetitions takes, as many as make it long enough; the first one is not counted.
fn seconds(
    device: &mut GpuDevice,
    mut repeat: impl FnMut(&mut GpuDevice, u32) -> Result<(), DeviceError>,
) -> Result<f64, DeviceError> {
    repeat(device, 1)?;
    let mut n = 1;
    loop {
        let started = Instant::now();
        repeat(device, n)?;
        let took = started.elapsed();
        if took >= LONG_ENOUGH || n >= 1 << 16 {
            return Ok(took.as_secs_f64() / f64::from(n));
        }
        let wanted = LONG_ENOUGH.as_secs_f64() / took.as_secs_f64().max(1e-6) * 1.2;
        n = (f64::from(n) * wanted.clamp(2.0, 64.0)) as u32;
    }
}

/// Copies from scratch to staging, `n` times, and waits: the driver's own copy, which knows how best to.
fn copy(device: &mut GpuDevice, bytes: u64, n: u32) -> Result<(), DeviceError> {
    let GpuDevice { stream, arenas, context, .. } = device;
    let copied = match [Memory::Scratch, Memory::Staging].map(|m| arenas.buffer(m)) {
        [Some(from), Some(to)] => {
            let encoder = stream.encoder(context);
            (0..n).for_each(|_| encoder.copy_buffer_to_buffer(from, 0, to, 0, bytes));
            stream.wait(context)
        }
        _ => Err("an arena that was not reserved".into()),
    };
    copied.map_err(|e| device.failed("probe", e))
}

/// A plan of `n` launches that copy `bytes` from the start of the scratch to behind it.
fn loaded(device: &mut GpuDevice, bytes: u64, n: usize) -> Result<thalweg_runtime::device::Loaded, DeviceError> {
    let (mut buffers, mut kernels) = (Arena::default(), Arena::default());
    let ty = BufferType { dtype: DType::F32, shape: vec![bytes / 4] };
    let memory = Memory::Scratch;
    let [from, to] = [0, bytes].map(|offset| buffers.push(Buffer { memory, offset, ty: ty.clone(), pieces: vec![] }));
    let kernel = kernels.push(Kernel::Nest(LoopNest::copy(ty.clone(), ty.clone())));
    let (reads, writes, workspace) = (vec![from], vec![to], (0, 0));
    let launch = Launch { kernel, reads, writes, workspace, label: "probe".into(), site: Site::default() };
    let instructions = vec![Instruction::Launch(launch); n];
    let (name, scratch_bytes) = (device.target.name.clone(), 2 * bytes);
    let part = DevicePlan { device: name, state_bytes: 0, scratch_bytes, staging_bytes: 0, buffers, instructions };
    let (graph, program, bindings) = ("probe".into(), "probe".into(), Default::default());
    let plan = Plan { graph, program, bindings, kernels, channels: Arena::default(), devices: vec![part] };
    device.load(&Arc::new(plan), 0)
}

/// Eight chains of multiply-adds on vectors of four per thread: enough for every lane to have something to do while
/// another result is on its way.
const CHAINS: &str = "
@group(0) @binding(0) var<uniform> p: vec4<u32>;
@group(0) @binding(1) var<storage, read_write> out: array<vec4<f32>>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let s = vec4<f32>(f32(id.x) * 1e-9);
    let k = vec4<f32>(bitcast<f32>(p.y));
    var a = s + 1.0; var b = s + 2.0; var c = s + 3.0; var d = s + 4.0;
    var e = s + 5.0; var f = s + 6.0; var g = s + 7.0; var h = s + 8.0;
    for (var i = 0u; i < p.x; i++) {
        a = fma(a, k, s); b = fma(b, k, s); c = fma(c, k, s); d = fma(d, k, s);
        e = fma(e, k, s); f = fma(f, k, s); g = fma(g, k, s); h = fma(h, k, s);
    }
    let all = a + b + c + d + e + f + g + h;
    // Written where it never is what it is compared with: the compiler cannot know.
    if (all.x == -1.0) { out[0] = all; }
}
";

/// Operations on f32 per second.
fn flops(device: &mut GpuDevice) -> Result<f64, DeviceError> {
    const GROUPS: u32 = 4096;
    const ROUNDS: u32 = 64;
    device.guarded(|d| {
        let context = d.context.clone();
        let words = Slot { words: true, parts: false };
        context.pipelines(&[(CHAINS, &[words])]).map_err(|(_, e)| d.failed("probe", e))?;
        let pipeline = context.pipeline(CHAINS).ok_or_else(|| d.failed("probe", "a shader that was not compiled"))?;
        let made = context.checked(|| {
            let buffer = |usage| {
                let described =
                    wgpu::BufferDescriptor { label: Some("probe"), size: 256, usage, mapped_at_creation: false };
                context.device.create_buffer(&described)
            };
            let out = buffer(wgpu::BufferUsages::STORAGE);
            let params = buffer(wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST);
            context.queue.write_buffer(&params, 0, bytemuck::bytes_of(&[ROUNDS, 0.999f32.to_bits(), 0, 0]));
            let entries = [(0, &params), (1, &out)]
                .map(|(binding, b)| wgpu::BindGroupEntry { binding, resource: b.as_entire_binding() });
            let described = wgpu::BindGroupDescriptor { label: None, layout: &pipeline.layout, entries: &entries };
            context.device.create_bind_group(&described)
        });
        let bound = made.map_err(|e| d.failed("probe", e.to_string()))?;
        let seconds = seconds(d, |d, n| {
            {
                let mut pass = d.stream.encoder(&context).begin_compute_pass(&Default::default());
                pass.set_pipeline(&pipeline.pipeline);
                pass.set_bind_group(0, &bound, &[]);
                (0..n).for_each(|_| pass.dispatch_workgroups(GROUPS, 1, 1));
            }
            d.stream.wait(&context).map_err(|e| d.failed("probe", e))
        })?;
        let operations = f64::from(GROUPS) * 64.0 * f64::from(ROUNDS) * 8.0 * 4.0 * 2.0;
        Ok(operations / seconds)
    })
}
