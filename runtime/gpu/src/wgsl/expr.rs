//! Values of scalar programs as WGSL expressions, and how each type is kept in a register. An i64 that is known to fit 32
//! bits (an index, mostly) is kept as an i32: pairs of words are for those that may not.

use half::{bf16, f16};
use thalweg_graph::kernel::Literal;
use thalweg_graph::types::DType;

use super::shader::{Param, Shader};

/// How a value is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Repr {
    /// `bool`.
    Bool,
    /// `u32` below 256.
    U8,
    /// `u32`.
    U32,
    /// `i32`.
    I32,
    /// An i64 in this range, which fits an `i32`.
    Narrow(i64, i64),
    /// An i64 as `vec2<u32>`.
    Wide,
    /// `f32`.
    F32,
    /// An `f32` that an f16 holds.
    F16,
    /// An `f32` that a bf16 holds.
    BF16,
    /// An f64, nearly: the sum of a `vec2<f32>`.
    Pair,
}

/// Whether all of a range fits 32 bits.
pub(super) fn fits(low: i64, high: i64) -> bool {
    low >= i64::from(i32::MIN) && high <= i64::from(i32::MAX)
}

impl Repr {
    /// How values of a type are kept, when nothing more is known of them.
    pub(super) fn of(dtype: DType) -> Self {
        match dtype {
            DType::Bool => Repr::Bool,
            DType::U8 => Repr::U8,
            DType::U32 => Repr::U32,
            DType::I32 => Repr::I32,
            DType::I64 => Repr::Wide,
            DType::F32 => Repr::F32,
            DType::F16 => Repr::F16,
            DType::BF16 => Repr::BF16,
            DType::F64 => Repr::Pair,
        }
    }
    /// The WGSL type.
    pub(super) fn wgsl(self) -> &'static str {
        match self {
            Repr::Bool => "bool",
            Repr::U8 | Repr::U32 => "u32",
            Repr::I32 | Repr::Narrow(..) => "i32",
            Repr::Wide => "vec2<u32>",
            Repr::F32 | Repr::F16 | Repr::BF16 => "f32",
            Repr::Pair => "vec2<f32>",
        }
    }
    /// Whether it is kept as one `f32`.
    pub(super) fn is_float(self) -> bool {
        matches!(self, Repr::F32 | Repr::F16 | Repr::BF16)
    }
}

/// An expression without effects, and how its value is kept.
#[derive(Clone, Debug)]
pub(super) struct Value {
    pub(super) text: String,
    pub(super) repr: Repr,
}

impl Value {
    pub(super) fn new(text: impl Into<String>, repr: Repr) -> Self {
        Self { text: text.into(), repr }
    }
    /// The value as an i64 of two words, if it is an i64.
    pub(super) fn wide(&self) -> String {
        match self.repr {
            Repr::Narrow(..) => format!("i64_of({})", self.text),
            _ => self.text.clone(),
        }
    }
    /// Rounds an `f32` to what this type holds.
    pub(super) fn rounded(text: String, repr: Repr) -> Self {
        match repr {
            Repr::F16 => Value::new(format!("to_f16({text})"), repr),
            Repr::BF16 => Value::new(format!("to_bf16({text})"), repr),
            _ => Value::new(text, repr),
        }
    }
}

/// A float that a compiler does not know.
fn float(sh: &mut Shader, x: f32) -> String {
    format!("bitcast<f32>({})", sh.param(Param::Number(x.to_bits() as i32)))
}

/// A constant of a type. Compilers do not get to know it: what they know to be zero they multiply away, and an infinity
/// with it; what they see divided by zero they take for something that cannot happen.
pub(super) fn literal(sh: &mut Shader, x: Literal, dtype: DType) -> Value {
    let repr = Repr::of(dtype);
    // What an interpreter does with a literal: takes it as it is, then rounds it to the instruction's type.
    let text = match repr {
        Repr::Bool => (x.as_i64() != 0).to_string(),
        Repr::U8 => format!("u32({})", sh.param(Param::Number(i32::from(x.as_i64() as u8)))),
        Repr::U32 => format!("u32({})", sh.param(Param::Number(x.as_i64() as i32))),
        Repr::I32 => sh.param(Param::Number(x.as_i64() as i32)),
        Repr::Wide | Repr::Narrow(..) => {
            let i = x.as_i64();
            return if fits(i, i) {
                Value::new(sh.param(Param::Number(i as i32)), Repr::Narrow(i, i))
            } else {
                Value::new(format!("vec2<u32>({}u, {}u)", i as u32, (i >> 32) as u32), Repr::Wide)
            };
        }
        Repr::F32 => float(sh, x.as_f64() as f32),
        Repr::F16 => float(sh, f16::from_f64(x.as_f64()).to_f32()),
        Repr::BF16 => float(sh, bf16::from_f64(x.as_f64()).to_f32()),
        Repr::Pair => {
            // What is finite stays so: the largest number is what others are compared with.
            let most = f64::from(f32::MAX);
            let x = if x.as_f64().is_finite() { x.as_f64().clamp(-most, most) } else { x.as_f64() };
            let head = x as f32;
            let tail = if head.is_finite() { (x - f64::from(head)) as f32 } else { 0.0 };
            format!("vec2<f32>({}, {})", float(sh, head), float(sh, tail))
        }
    };
    Value::new(text, repr)
}
