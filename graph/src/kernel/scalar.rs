//! Scalar programs: straight-line SSA over one loop point. Typed per instruction, with no hidden conversions and no
//! implied fma, so that two devices that follow the text compute the same thing.

use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};

use super::affine::Affine;
use crate::types::DType;

/// An instruction of the same program, by position: `v3`.
pub type Reg = u16;

/// A constant; truth values are the integers 0 and 1. Compared by bits, so that NaN equals itself.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Literal {
    /// An integer or a truth value.
    Int(i64),
    /// A float, rounded to its instruction's type when it is used.
    Float(f64),
}

impl PartialEq for Literal {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Literal::Int(a), Literal::Int(b)) => a == b,
            (Literal::Float(a), Literal::Float(b)) => a.to_bits() == b.to_bits(),
            _ => false,
        }
    }
}
impl Eq for Literal {}
impl Hash for Literal {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Literal::Int(i) => (0u8, *i as u64).hash(state),
            Literal::Float(x) => (1u8, x.to_bits()).hash(state),
        }
    }
}
impl Literal {
    /// As a float.
    pub fn as_f64(self) -> f64 {
        match self {
            Literal::Int(i) => i as f64,
            Literal::Float(x) => x,
        }
    }
    /// As an integer, truncated and saturated.
    pub fn as_i64(self) -> i64 {
        match self {
            Literal::Int(i) => i,
            Literal::Float(x) => x as i64,
        }
    }
    /// The same number as a literal of `dtype`: floats truncate and saturate to integers, truth is being other than zero.
    pub fn to(self, dtype: DType) -> Literal {
        let saturated = |low: i64, high: i64| Literal::Int(self.as_i64().clamp(low, high));
        match dtype {
            DType::Bool => Literal::Int(i64::from(self.as_f64() != 0.0)),
            DType::U8 => saturated(0, i64::from(u8::MAX)),
            DType::U32 => saturated(0, i64::from(u32::MAX)),
            DType::I32 => saturated(i64::from(i32::MIN), i64::from(i32::MAX)),
            DType::I64 => Literal::Int(self.as_i64()),
            DType::F16 | DType::BF16 | DType::F32 | DType::F64 => Literal::Float(self.as_f64()),
        }
    }
}

macro_rules! named_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* $variant),* }
        impl $name {
            /// Every one of them.
            pub const ALL: &[$name] = &[$($name::$variant),*];
            /// The name used in text.
            pub const fn name(self) -> &'static str { match self { $($name::$variant => $text),* } }
            /// The one called `name`.
            pub fn from_name(name: &str) -> Option<Self> { Self::ALL.iter().copied().find(|x| x.name() == name) }
        }
    };
}
pub(crate) use named_enum;

named_enum! {
    /// Functions of one operand. The result has the operand's type, except `not` and `isnan`, which are bool.
    Unary {
        /// −x.
        Neg = "neg",
        /// |x|.
        Abs = "abs",
        /// −1, 0 or 1; NaN stays.
        Sign = "sign",
        /// eˣ.
        Exp = "exp",
        /// Natural logarithm.
        Log = "log",
        /// Square root.
        Sqrt = "sqrt",
        /// Hyperbolic tangent.
        Tanh = "tanh",
        /// Sine.
        Sin = "sin",
        /// Cosine.
        Cos = "cos",
        /// The error function, 2/√π · ∫₀ˣ e^(−t²) dt.
        Erf = "erf",
        /// Largest integer not above.
        Floor = "floor",
        /// Logical negation.
        Not = "not",
        /// Whether it is not a number.
        IsNan = "isnan",
    }
}

named_enum! {
    /// Functions of two operands of one type. Comparisons give bool. Integers wrap; an integer divided by zero is 0.
    Binary {
        /// Sum.
        Add = "add",
        /// Difference.
        Sub = "sub",
        /// Product.
        Mul = "mul",
        /// Quotient; integers truncate.
        Div = "div",
        /// Remainder with the sign of the dividend.
        Rem = "rem",
        /// Power (floats).
        Pow = "pow",
        /// The larger; NaN wins.
        Max = "max",
        /// The smaller; NaN wins.
        Min = "min",
        /// Less than.
        Lt = "lt",
        /// Less than or equal.
        Le = "le",
        /// Equal.
        Eq = "eq",
        /// Not equal.
        Ne = "ne",
        /// Both (bool) or bitwise (integers).
        And = "and",
        /// Either (bool) or bitwise (integers).
        Or = "or",
        /// Exclusive or.
        Xor = "xor",
        /// Left shift, by less than the width.
        Shl = "shl",
        /// Logical right shift for unsigned, arithmetic for signed; by less than the width.
        Shr = "shr",
    }
}

impl Binary {
    /// Whether the result is a truth value whatever the operands are.
    pub fn compares(self) -> bool {
        matches!(self, Binary::Lt | Binary::Le | Binary::Eq | Binary::Ne)
    }
}

/// One operation.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum ScalarOp {
    /// A constant.
    Literal(Literal),
    /// What read `r` of the nest finds (its fill where it is outside).
    Read(u16),
    /// Whether read `r` is inside its operand.
    Valid(u16),
    /// The global index along an axis (i64).
    Index(u16),
    /// Part `part` of fold `fold`; epilogues only.
    Folded {
        /// Which fold.
        fold: u16,
        /// Which part of its state.
        part: u16,
    },
    /// Word `index mod 4` of Philox-4x32-10 at counter (index / 4, step) under `key` (u32).
    Philox {
        /// The stream.
        key: u64,
        /// Global element index (i64).
        index: Reg,
        /// Step counter (i64).
        step: Reg,
    },
    /// A function of one operand.
    Unary(Unary, Reg),
    /// A function of two.
    Binary(Binary, Reg, Reg),
    /// The second where the first (bool) holds, else the third.
    Select(Reg, Reg, Reg),
    /// `a·b + c`, rounded once.
    Fma(Reg, Reg, Reg),
    /// Conversion to the instruction's type: to a float it rounds to nearest even, from a float to an integer it
    /// truncates and saturates (NaN is 0), between integers it wraps, to bool it compares with zero.
    Cast(Reg),
}

impl ScalarOp {
    /// The registers it reads.
    pub fn uses(&self) -> Vec<Reg> {
        match *self {
            ScalarOp::Literal(_)
            | ScalarOp::Read(_)
            | ScalarOp::Valid(_)
            | ScalarOp::Index(_)
            | ScalarOp::Folded { .. } => vec![],
            ScalarOp::Philox { index, step, .. } => vec![index, step],
            ScalarOp::Unary(_, a) | ScalarOp::Cast(a) => vec![a],
            ScalarOp::Binary(_, a, b) => vec![a, b],
            ScalarOp::Select(a, b, c) | ScalarOp::Fma(a, b, c) => vec![a, b, c],
        }
    }
}

impl ScalarOp {
    /// The same operation on other registers.
    pub(super) fn on(&self, reg: impl Fn(Reg) -> Reg) -> ScalarOp {
        match self.clone() {
            ScalarOp::Philox { key, index, step } => ScalarOp::Philox { key, index: reg(index), step: reg(step) },
            ScalarOp::Unary(op, a) => ScalarOp::Unary(op, reg(a)),
            ScalarOp::Cast(a) => ScalarOp::Cast(reg(a)),
            ScalarOp::Binary(op, a, b) => ScalarOp::Binary(op, reg(a), reg(b)),
            ScalarOp::Select(a, b, c) => ScalarOp::Select(reg(a), reg(b), reg(c)),
            ScalarOp::Fma(a, b, c) => ScalarOp::Fma(reg(a), reg(b), reg(c)),
            op => op,
        }
    }
}

/// One instruction: its result's type and what it does.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Inst {
    /// Type of the result.
    pub dtype: DType,
    /// What is done.
    pub op: ScalarOp,
}

/// A straight-line program; instruction `i` defines register `i`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Scalar {
    /// The instructions; each uses earlier ones only.
    pub insts: Vec<Inst>,
}

impl Scalar {
    /// The type of a register.
    pub fn dtype(&self, reg: Reg) -> DType {
        self.insts[reg as usize].dtype
    }
    /// Appends the value of an affine map of the axes (i64).
    pub(super) fn push_affine(&mut self, affine: &Affine) -> Reg {
        let mut i64 = |op| self.push(Inst { dtype: DType::I64, op });
        let mut total = None;
        for (axis, c) in &affine.terms {
            let mut term = i64(ScalarOp::Index(*axis));
            if *c != 1 {
                let c = i64(ScalarOp::Literal(Literal::Int(*c)));
                term = i64(ScalarOp::Binary(Binary::Mul, term, c));
            }
            total = Some(total.map_or(term, |t| i64(ScalarOp::Binary(Binary::Add, t, term))));
        }
        match total {
            Some(t) if affine.offset == 0 => t,
            None => i64(ScalarOp::Literal(Literal::Int(affine.offset))),
            Some(t) => {
                let offset = i64(ScalarOp::Literal(Literal::Int(affine.offset)));
                i64(ScalarOp::Binary(Binary::Add, t, offset))
            }
        }
    }
    /// Appends `inst`, or finds its twin.
    pub fn push(&mut self, inst: Inst) -> Reg {
        let found = self.insts.iter().position(|i| *i == inst);
        found.unwrap_or_else(|| {
            self.insts.push(inst);
            self.insts.len() - 1
        }) as Reg
    }
}
