//! Values of the interpreter made up, as bytes, and compared: what tests of every device need.

use half::{bf16, f16};
use thalweg_graph::DType;
use thalweg_graph::kernel::BufferType;
use thalweg_graph::kernel::interpret::{self, Number, Precision, Values};

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
