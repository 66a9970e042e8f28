//! Running kernels on the device and in the interpreter, and comparing. Every run is repeated with pools of one and two
//! threads, which must not change a bit.

#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod draw;
pub(crate) mod products;
pub(crate) mod values;

use std::sync::OnceLock;

use thalweg_cpu::CompiledKernel;
use thalweg_graph::kernel::Kernel;
use thalweg_graph::kernel::interpret::{self, Precision, Values};

pub(crate) use values::*;

/// Bytes aligned for anything.
pub(crate) struct Buffer(Vec<[u64; 8]>, usize);
impl Buffer {
    /// Zeros, off by nothing from 64-byte lines.
    pub(crate) fn new(bytes: usize) -> Self {
        Self(vec![[0xA5A5_A5A5_A5A5_A5A5; 8]; bytes.div_ceil(64) + 2], bytes)
    }
    /// With this content.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut buffer = Self::new(bytes.len());
        buffer.bytes_mut().copy_from_slice(bytes);
        buffer
    }
    /// The content.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        let start = self.ptr();
        // SAFETY: the vector holds more than `self.1` bytes from there on.
        unsafe { std::slice::from_raw_parts_mut(start, self.1) }
    }
    /// The first byte, aligned to 64.
    pub(crate) fn ptr(&mut self) -> *mut u8 {
        let start = self.0.as_mut_ptr().cast::<u8>();
        start.wrapping_add(start.align_offset(64))
    }
    fn overrun(&mut self) -> bool {
        let (start, len) = (self.ptr(), self.1);
        // SAFETY: the vector has at least 64 bytes behind the content.
        (len..len + 32).any(|i| unsafe { *start.add(i) } != 0xA5)
    }
}

fn pools() -> &'static [rayon::ThreadPool; 2] {
    static POOLS: OnceLock<[rayon::ThreadPool; 2]> = OnceLock::new();
    POOLS.get_or_init(|| {
        [1, 2].map(|n| rayon::ThreadPoolBuilder::new().num_threads(n).build().expect("threads can be started"))
    })
}

/// The results' bytes.
pub(crate) fn run_bytes(
    compiled: &CompiledKernel,
    kernel: &Kernel,
    operands: &[Vec<u8>],
    pool: Option<&rayon::ThreadPool>,
) -> Vec<Vec<u8>> {
    let mut inputs: Vec<_> = operands.iter().map(|o| Buffer::of(o)).collect();
    let mut outputs: Vec<_> = kernel.results().iter().map(|r| Buffer::new(r.size_bytes() as usize)).collect();
    let mut workspace = Buffer::new(compiled.workspace_bytes());
    let from: Vec<*const u8> = inputs.iter_mut().map(|b| b.ptr().cast_const()).collect();
    let to: Vec<*mut u8> = outputs.iter_mut().map(Buffer::ptr).collect();
    // SAFETY: buffers are of the kernel's types, disjoint, and live through the call.
    unsafe { compiled.run(&from, &to, workspace.ptr(), pool) };
    assert!(!workspace.overrun(), "writes beyond the workspace");
    outputs.iter_mut().for_each(|o| assert!(!o.overrun(), "writes beyond a result"));
    outputs.iter_mut().map(|o| o.bytes_mut().to_vec()).collect()
}

/// Runs `kernel` on the device, on no pool and on pools of one and two threads, which must agree in every bit.
#[track_caller]
pub(crate) fn device(compiled: &CompiledKernel, kernel: &Kernel, operands: &[Values]) -> Vec<Values> {
    let bytes: Vec<_> = operands.iter().map(to_bytes).collect();
    let alone = run_bytes(compiled, kernel, &bytes, None);
    for pool in pools() {
        assert!(run_bytes(compiled, kernel, &bytes, Some(pool)) == alone, "threads change the result");
    }
    let results = alone.iter().zip(kernel.results());
    results.map(|(bytes, ty)| Values { ty: ty.clone(), data: from_bytes(ty, bytes) }).collect()
}

/// Compares the device with the interpreter at a precision.
#[track_caller]
pub(crate) fn check_on(
    compiled: &CompiledKernel,
    kernel: &Kernel,
    operands: &[Values],
    precision: Precision,
    tolerance: f64,
) {
    let refs: Vec<_> = operands.iter().collect();
    let want = interpret::run(kernel, &refs, precision);
    let have = device(compiled, kernel, operands);
    for (r, (have, want)) in have.iter().zip(&want).enumerate() {
        for (i, (a, b)) in have.data.iter().zip(&want.data).enumerate() {
            assert!(
                close(*a, *b, tolerance),
                "result {r}[{i}] of {} is {a:?}, should be {b:?} ({})\n{kernel:?}",
                have.ty,
                compiled.strategy()
            );
        }
    }
}

/// Compiles and compares; tolerance 0 asks for equality.
#[track_caller]
pub(crate) fn check(kernel: &Kernel, operands: &[Values], tolerance: f64) {
    let compiled = CompiledKernel::compile(kernel).expect("verifies");
    check_on(&compiled, kernel, operands, Precision::Exact, tolerance);
}

/// [`check`] on small random operands.
#[track_caller]
pub(crate) fn check_random(kernel: &Kernel, seed: u64, tolerance: f64) {
    let mut random = Random(seed);
    let operands: Vec<_> = kernel.operands().iter().map(|ty| random.values(ty)).collect();
    check(kernel, &operands, tolerance);
}
