//! How element types live in registers and in memory. Halves are storage only: a register holds them as f32, rounded
//! after every operation; truth values are bytes 0 and 1.

use half::{bf16, f16};
use thalweg_graph::DType;
use thalweg_graph::kernel::interpret::{Number, Precision, round};

/// What a register lane is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    F32,
    F64,
    I32,
    I64,
    U32,
    U8,
}

impl Kind {
    pub(crate) fn of(dtype: DType) -> Self {
        match dtype {
            DType::Bool | DType::U8 => Kind::U8,
            DType::U32 => Kind::U32,
            DType::I32 => Kind::I32,
            DType::I64 => Kind::I64,
            DType::F16 | DType::BF16 | DType::F32 => Kind::F32,
            DType::F64 => Kind::F64,
        }
    }
    pub(crate) fn size_bytes(self) -> usize {
        match self {
            Kind::U8 => 1,
            Kind::F32 | Kind::I32 | Kind::U32 => 4,
            Kind::F64 | Kind::I64 => 8,
        }
    }
}

/// A type that register lanes can have.
pub(crate) trait Lane: Copy + PartialOrd + Send + Sync + 'static {
    /// The lane whose encoding (see [`encode`]) is `bits`.
    fn decode(bits: u64) -> Self;
    /// As an index; only used of integers.
    fn index(self) -> i64;
}
macro_rules! lane {
    ($($t:ty: $from:expr),*) => { $(
        impl Lane for $t {
            #[inline(always)]
            fn decode(bits: u64) -> Self { ($from)(bits) }
            #[inline(always)]
            fn index(self) -> i64 { self as i64 }
        }
    )* };
}
lane!(f32: |b| f32::from_bits(b as u32), f64: f64::from_bits, i32: |b| b as i32, i64: |b| b as i64, u32: |b| b as u32,
    u8: |b| b as u8);

/// A type that elements in memory can have.
pub(crate) trait Stored: Copy + Send + Sync + 'static {
    type Reg: Lane;
    /// Whether memory and register have the same representation.
    const PLAIN: bool = true;
    fn load(self) -> Self::Reg;
    fn store(lane: Self::Reg) -> Self;
}
macro_rules! stored {
    ($($t:ty),*) => { $(
        impl Stored for $t {
            type Reg = $t;
            #[inline(always)]
            fn load(self) -> $t { self }
            #[inline(always)]
            fn store(lane: $t) -> $t { lane }
        }
    )* };
}
stored!(f32, f64, i32, i64, u32, u8);
macro_rules! stored_half {
    ($($t:ty),*) => { $(
        impl Stored for $t {
            type Reg = f32;
            const PLAIN: bool = false;
            #[inline(always)]
            fn load(self) -> f32 { self.to_f32() }
            #[inline(always)]
            fn store(lane: f32) -> $t { <$t>::from_f32(lane) }
        }
    )* };
}
stored_half!(f16, bf16);

/// Evaluates an expression with `$S` bound to the [`Stored`] type of a dtype.
macro_rules! with_stored {
    ($dtype:expr, $S:ident => $body:expr) => {
        match $dtype {
            thalweg_graph::DType::Bool | thalweg_graph::DType::U8 => {
                type $S = u8;
                $body
            }
            thalweg_graph::DType::U32 => {
                type $S = u32;
                $body
            }
            thalweg_graph::DType::I32 => {
                type $S = i32;
                $body
            }
            thalweg_graph::DType::I64 => {
                type $S = i64;
                $body
            }
            thalweg_graph::DType::F16 => {
                type $S = half::f16;
                $body
            }
            thalweg_graph::DType::BF16 => {
                type $S = half::bf16;
                $body
            }
            thalweg_graph::DType::F32 => {
                type $S = f32;
                $body
            }
            thalweg_graph::DType::F64 => {
                type $S = f64;
                $body
            }
        }
    };
}
/// Evaluates an expression with `$T` bound to the [`Lane`] type of a kind.
macro_rules! with_lane {
    ($kind:expr, $T:ident => $body:expr) => {
        match $kind {
            $crate::kind::Kind::F32 => {
                type $T = f32;
                $body
            }
            $crate::kind::Kind::F64 => {
                type $T = f64;
                $body
            }
            $crate::kind::Kind::I32 => {
                type $T = i32;
                $body
            }
            $crate::kind::Kind::I64 => {
                type $T = i64;
                $body
            }
            $crate::kind::Kind::U32 => {
                type $T = u32;
                $body
            }
            $crate::kind::Kind::U8 => {
                type $T = u8;
                $body
            }
        }
    };
}
pub(crate) use {with_lane, with_stored};

/// The bits of a register lane that holds `number` rounded to `dtype`.
pub(crate) fn encode(number: Number, dtype: DType) -> u64 {
    let number = round(number, dtype, Precision::Exact);
    match Kind::of(dtype) {
        Kind::F32 => u64::from((number.f64() as f32).to_bits()),
        Kind::F64 => number.f64().to_bits(),
        Kind::I32 => u64::from(number.i64() as i32 as u32),
        Kind::I64 => number.i64() as u64,
        Kind::U32 => u64::from(number.i64() as u32),
        Kind::U8 => u64::from(number.i64() as u8),
    }
}
