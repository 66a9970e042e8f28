//! Running kernels on the machine's first adapter and in the interpreter, and comparing. Where there is no adapter a test is
//! skipped by name; `THALWEG_REQUIRE=vulkan` makes that a failure.

#![allow(dead_code, reason = "each test binary uses its part")]

#[path = "../../../cpu/tests/common/draw.rs"]
pub(crate) mod draw;
#[path = "../../../cpu/tests/common/products.rs"]
pub(crate) mod products;
#[path = "../../../cpu/tests/common/values.rs"]
pub(crate) mod values;

use std::sync::Arc;

use thalweg_gpu::{GpuDevice, adapters};
use thalweg_graph::id::Arena;
use thalweg_graph::ir::Site;
use thalweg_graph::kernel::Kernel;
use thalweg_graph::kernel::interpret::{self, Precision, Values};
use thalweg_graph::plan::{Buffer, DevicePlan, Instruction, Launch, Memory, Plan};
use thalweg_runtime::device::{Device, DeviceError};

pub(crate) use values::*;

/// The first adapter, if there is one.
pub(crate) fn gpu(what: &str) -> Option<GpuDevice> {
    if adapters().is_empty() {
        let required = std::env::var("THALWEG_REQUIRE").is_ok_and(|r| r.split(',').any(|r| r == "vulkan"));
        assert!(!required, "THALWEG_REQUIRE says vulkan, and there is no adapter");
        println!("skipped: {what}: there is no adapter");
        return None;
    }
    Some(GpuDevice::new("gpu:0", 0).expect("the adapter opens"))
}

/// A plan of one launch, with every buffer in scratch, one behind the other; `apart` bytes between them.
pub(crate) fn plan_of(kernel: &Kernel, device: &GpuDevice, apart: u64) -> Plan {
    let mut buffers = Arena::default();
    let mut end = 0;
    let mut lay = |ty: &thalweg_graph::kernel::BufferType| {
        let buffer = Buffer { memory: Memory::Scratch, offset: end, ty: ty.clone(), pieces: vec![] };
        end = (buffer.range().end + apart).next_multiple_of(64);
        buffers.push(buffer)
    };
    let reads = kernel.operands().iter().map(&mut lay).collect();
    let writes = kernel.results().iter().map(&mut lay).collect();
    let workspace = (end, device.target().workspace_bytes(kernel));
    let mut kernels = Arena::default();
    let kernel = kernels.push(kernel.clone());
    let launch = Launch { kernel, reads, writes, workspace, label: "tested".into(), site: Site::default() };
    let instructions = vec![Instruction::Launch(launch)];
    let scratch_bytes = end + workspace.1;
    let device =
        DevicePlan { device: "gpu:0".into(), state_bytes: 0, scratch_bytes, staging_bytes: 0, buffers, instructions };
    let (graph, program, bindings) = ("tested".into(), "tested".into(), Default::default());
    Plan { graph, program, bindings, kernels, channels: Arena::default(), devices: vec![device] }
}

/// What the device gives, and the bytes around results that it was not to touch.
pub(crate) fn run(device: &mut GpuDevice, kernel: &Kernel, operands: &[Values]) -> Result<Vec<Values>, DeviceError> {
    let plan = Arc::new(plan_of(kernel, device, 0));
    let loaded = device.load(&plan, 0)?;
    let part = &plan.devices[0];
    let Instruction::Launch(launch) = &part.instructions[0] else { unreachable!("just made") };
    device.write(Memory::Scratch, 0, &vec![0xA5; part.scratch_bytes as usize])?;
    for (id, values) in launch.reads.iter().zip(operands) {
        device.write(Memory::Scratch, part.buffers[*id].offset, &to_bytes(values))?;
    }
    device.run(loaded, 0..1, None)?;
    let mut results = vec![];
    for id in &launch.writes {
        let buffer = &part.buffers[*id];
        let (size, padded) = (buffer.ty.size_bytes() as usize, buffer.ty.size_bytes().next_multiple_of(64) as usize);
        let mut bytes = vec![0; padded.min((part.scratch_bytes - buffer.offset) as usize)];
        device.read(Memory::Scratch, buffer.offset, &mut bytes)?;
        assert!(bytes[size..].iter().all(|b| *b == 0xA5), "writes beyond a result\n{kernel:?}");
        results.push(Values { ty: buffer.ty.clone(), data: from_bytes(&buffer.ty, &bytes[..size]) });
    }
    device.unload(loaded);
    Ok(results)
}

/// Compares the device with the interpreter; tolerance 0 asks for equality.
#[track_caller]
pub(crate) fn check(device: &mut GpuDevice, kernel: &Kernel, operands: &[Values], tolerance: f64) {
    let refs: Vec<_> = operands.iter().collect();
    let want = interpret::run(kernel, &refs, Precision::Exact);
    let have = run(device, kernel, operands).unwrap_or_else(|e| panic!("{e}\n{kernel:?}"));
    for (r, (have, want)) in have.iter().zip(&want).enumerate() {
        for (i, (a, b)) in have.data.iter().zip(&want.data).enumerate() {
            let what = || format!("result {r}[{i}] of {} is {a:?}, should be {b:?}", have.ty);
            let shaders = || thalweg_gpu::shaders(kernel).unwrap_or_default().join("\n");
            assert!(close(*a, *b, tolerance), "{}\n{kernel:?}\n{}", what(), shaders());
        }
    }
}

/// How the interpreter rounds in these tests.
pub(crate) fn exact() -> Precision {
    Precision::Exact
}
