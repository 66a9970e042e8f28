//! Numbers of the interpreter and arithmetic on them: every integer as i64 and every float as f64, rounded after each
//! operation to the type that it stands for, or, of floats, not at all.

use crate::kernel::scalar::{Binary, Unary};
use crate::types::DType;

/// How floats are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Precision {
    /// Each operation rounds to its own type.
    Exact,
    /// Floats stay f64.
    Reference,
}

/// One value: truth values are integers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// Integer or truth value.
    Int(i64),
    /// Float.
    Float(f64),
}

impl Number {
    /// As a float.
    pub fn f64(self) -> f64 {
        match self {
            Number::Int(i) => i as f64,
            Number::Float(x) => x,
        }
    }
    /// As an integer, truncated and saturated; NaN is 0.
    pub fn i64(self) -> i64 {
        match self {
            Number::Int(i) => i,
            Number::Float(x) => x as i64,
        }
    }
}

/// Rounds `x` to `dtype` (always for integers, for floats when exact).
pub fn round(x: Number, dtype: DType, precision: Precision) -> Number {
    match dtype {
        DType::Bool => Number::Int(match x {
            Number::Int(i) => i64::from(i != 0),
            Number::Float(x) => i64::from(x != 0.0),
        }),
        DType::U8 => Number::Int(to_integer(x, 0, 255)),
        DType::U32 => Number::Int(to_integer(x, 0, i64::from(u32::MAX))),
        DType::I32 => Number::Int(to_integer(x, i64::from(i32::MIN), i64::from(i32::MAX))),
        DType::I64 => Number::Int(x.i64()),
        _ if precision == Precision::Reference => Number::Float(x.f64()),
        DType::F16 => Number::Float(half::f16::from_f64(x.f64()).to_f64()),
        DType::BF16 => Number::Float(half::bf16::from_f64(x.f64()).to_f64()),
        DType::F32 => Number::Float(f64::from(x.f64() as f32)),
        DType::F64 => Number::Float(x.f64()),
    }
}
/// A float saturates, an integer wraps.
fn to_integer(x: Number, low: i64, high: i64) -> i64 {
    match x {
        Number::Int(i) => wrap(i, low, high),
        Number::Float(x) => (x as i64).clamp(low, high),
    }
}
fn wrap(i: i64, low: i64, high: i64) -> i64 {
    let span = i128::from(high) - i128::from(low) + 1;
    ((i128::from(i) - i128::from(low)).rem_euclid(span) + i128::from(low)) as i64
}

pub(super) fn fma(a: Number, b: Number, c: Number, dtype: DType, precision: Precision) -> Number {
    match (a, b, c) {
        (Number::Int(a), Number::Int(b), Number::Int(c)) => Number::Int(a.wrapping_mul(b).wrapping_add(c)),
        _ if dtype == DType::F32 && precision == Precision::Exact => {
            Number::Float(f64::from((a.f64() as f32).mul_add(b.f64() as f32, c.f64() as f32)))
        }
        _ => Number::Float(a.f64().mul_add(b.f64(), c.f64())),
    }
}

pub(super) fn unary(op: Unary, a: Number) -> Number {
    if let Number::Int(i) = a {
        return match op {
            Unary::Neg => Number::Int(i.wrapping_neg()),
            Unary::Abs => Number::Int(i.wrapping_abs()),
            Unary::Sign => Number::Int(i.signum()),
            Unary::Not => Number::Int(i64::from(i == 0)),
            Unary::IsNan => Number::Int(0),
            Unary::Floor => a,
            _ => Number::Float(float_unary(op, i as f64)),
        };
    }
    let x = a.f64();
    match op {
        Unary::Not => Number::Int(i64::from(x == 0.0)),
        Unary::IsNan => Number::Int(i64::from(x.is_nan())),
        _ => Number::Float(float_unary(op, x)),
    }
}
fn float_unary(op: Unary, x: f64) -> f64 {
    match op {
        Unary::Neg => -x,
        Unary::Abs => x.abs(),
        Unary::Sign => {
            if x > 0.0 {
                1.0
            } else if x < 0.0 {
                -1.0
            } else {
                x
            }
        }
        Unary::Exp => x.exp(),
        Unary::Log => x.ln(),
        Unary::Sqrt => x.sqrt(),
        Unary::Tanh => x.tanh(),
        Unary::Sin => x.sin(),
        Unary::Cos => x.cos(),
        Unary::Erf => libm::erf(x),
        Unary::Floor => x.floor(),
        Unary::Not | Unary::IsNan => unreachable!("these give truth values"),
    }
}

/// The larger, where NaN wins; of equals the first.
pub fn max_nan(a: f64, b: f64) -> f64 {
    if a.is_nan() || a >= b { a } else { b }
}
/// The smaller, where NaN wins; of equals the first.
pub fn min_nan(a: f64, b: f64) -> f64 {
    if a.is_nan() || a <= b { a } else { b }
}

pub(super) fn binary(op: Binary, a: Number, b: Number, dtype: DType) -> Number {
    let truth = |t: bool| Number::Int(i64::from(t));
    if let (Number::Int(a), Number::Int(b)) = (a, b) {
        let bits = 8 * dtype.size_bytes() as i64;
        return match op {
            Binary::Add => Number::Int(a.wrapping_add(b)),
            Binary::Sub => Number::Int(a.wrapping_sub(b)),
            Binary::Mul => Number::Int(a.wrapping_mul(b)),
            Binary::Div => Number::Int(if b == 0 { 0 } else { a.wrapping_div(b) }),
            Binary::Rem => Number::Int(if b == 0 { 0 } else { a.wrapping_rem(b) }),
            Binary::Pow => Number::Float((a as f64).powf(b as f64)),
            Binary::Max => Number::Int(a.max(b)),
            Binary::Min => Number::Int(a.min(b)),
            Binary::Lt => truth(a < b),
            Binary::Le => truth(a <= b),
            Binary::Eq => truth(a == b),
            Binary::Ne => truth(a != b),
            Binary::And => Number::Int(a & b),
            Binary::Or => Number::Int(a | b),
            Binary::Xor => Number::Int(a ^ b),
            Binary::Shl => Number::Int(a.wrapping_shl(b.rem_euclid(bits) as u32)),
            Binary::Shr => Number::Int(a.wrapping_shr(b.rem_euclid(bits) as u32)),
        };
    }
    let (a, b) = (a.f64(), b.f64());
    match op {
        Binary::Add => Number::Float(a + b),
        Binary::Sub => Number::Float(a - b),
        Binary::Mul => Number::Float(a * b),
        Binary::Div => Number::Float(a / b),
        Binary::Rem => Number::Float(a % b),
        Binary::Pow => Number::Float(a.powf(b)),
        Binary::Max => Number::Float(max_nan(a, b)),
        Binary::Min => Number::Float(min_nan(a, b)),
        Binary::Lt => truth(a < b),
        Binary::Le => truth(a <= b),
        Binary::Eq => truth(a == b),
        Binary::Ne => truth(a != b),
        Binary::And | Binary::Or | Binary::Xor | Binary::Shl | Binary::Shr => {
            unreachable!("verified: not for floats")
        }
    }
}
