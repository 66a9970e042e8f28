//! Running kernels on the device and in the interpreter, and comparing. Every run is repeated with pools of one and two
//! threads, which must not change a bit.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::sync::OnceLock;

use half::{bf16, f16};
use thalweg_cpu::CompiledKernel;
use thalweg_graph::DType;
use thalweg_graph::kernel::interpret::{self, Number, Precision, Values};
use thalweg_graph::kernel::{BufferType, Kernel};

/// A buffer type.
pub(crate) fn ty(dtype: DType, shape: &[u64]) -> BufferType {
    BufferType { dtype, shape: shape.to_vec() }
}

/// Random numbers that need no crate (splitmix64).
pub(crate) struct Random(pub(crate) u64);
impl Random {
    /// The next word.
    pub(crate) fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    /// A number below `n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.word() % n.max(1)
    }
    /// Uniform in −1..1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.word() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
    /// A buffer of small numbers.
    pub(crate) fn values(&mut self, ty: &BufferType) -> Values {
        let mut one = || match ty.dtype {
            DType::Bool => Number::Int(self.below(2) as i64),
            DType::U8 | DType::U32 => Number::Int(self.below(7) as i64),
            DType::I32 | DType::I64 => Number::Int(self.below(13) as i64 - 6),
            dtype => interpret::round(Number::Float(4.0 * self.unit()), dtype, Precision::Exact),
        };
        let data = (0..ty.len()).map(|_| one()).collect();
        Values { ty: ty.clone(), data }
    }
    /// A buffer with ties, signed zeros, infinities and NaN among its numbers.
    pub(crate) fn wild_values(&mut self, ty: &BufferType) -> Values {
        let mut values = self.values(ty);
        for x in &mut values.data {
            *x = match (self.below(12), ty.dtype.is_float()) {
                (0, true) => Number::Float(f64::NAN),
                (1, true) => Number::Float(f64::INFINITY),
                (2, true) => Number::Float(f64::NEG_INFINITY),
                (3, true) => Number::Float(-0.0),
                (4..8, true) => Number::Float(x.f64().round()),
                _ => *x,
            };
        }
        values
    }
}

/// The bytes of a buffer.
pub(crate) fn to_bytes(values: &Values) -> Vec<u8> {
    let each = |x: &Number| -> Vec<u8> {
        match values.ty.dtype {
            DType::Bool | DType::U8 => vec![x.i64() as u8],
            DType::U32 => (x.i64() as u32).to_le_bytes().to_vec(),
            DType::I32 => (x.i64() as i32).to_le_bytes().to_vec(),
            DType::I64 => x.i64().to_le_bytes().to_vec(),
            DType::F16 => f16::from_f64(x.f64()).to_le_bytes().to_vec(),
            DType::BF16 => bf16::from_f64(x.f64()).to_le_bytes().to_vec(),
            DType::F32 => (x.f64() as f32).to_le_bytes().to_vec(),
            DType::F64 => x.f64().to_le_bytes().to_vec(),
        }
    };
    values.data.iter().flat_map(each).collect()
}
/// The numbers in some bytes.
pub(crate) fn from_bytes(ty: &BufferType, bytes: &[u8]) -> Vec<Number> {
    let each = |b: &[u8]| match ty.dtype {
        DType::Bool | DType::U8 => Number::Int(i64::from(b[0])),
        DType::U32 => Number::Int(i64::from(u32::from_le_bytes(b.try_into().expect("4 bytes")))),
        DType::I32 => Number::Int(i64::from(i32::from_le_bytes(b.try_into().expect("4 bytes")))),
        DType::I64 => Number::Int(i64::from_le_bytes(b.try_into().expect("8 bytes"))),
        DType::F16 => Number::Float(f16::from_le_bytes(b.try_into().expect("2 bytes")).to_f64()),
        DType::BF16 => Number::Float(bf16::from_le_bytes(b.try_into().expect("2 bytes")).to_f64()),
        DType::F32 => Number::Float(f64::from(f32::from_le_bytes(b.try_into().expect("4 bytes")))),
        DType::F64 => Number::Float(f64::from_le_bytes(b.try_into().expect("8 bytes"))),
    };
    bytes.chunks(ty.dtype.size_bytes()).map(each).collect()
}

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

/// Whether two numbers agree within `tolerance`, relative to `scale` for large numbers.
pub(crate) fn close(a: Number, b: Number, tolerance: f64) -> bool {
    match (a, b) {
        (Number::Int(a), Number::Int(b)) => a == b,
        _ => {
            let (a, b) = (a.f64(), b.f64());
            a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= tolerance * (1.0 + a.abs().max(b.abs()))
        }
    }
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
