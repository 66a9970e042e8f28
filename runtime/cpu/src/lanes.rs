//! One operation over all lanes of a tile. A match per tile, not per element: each arm is a loop that the compiler
//! vectorizes. Loops are `for`, because `for_each` of a long closure becomes a call to a function compiled without the
//! caller's vector instructions. Halves compute in f32 and round; truth values are bytes, on which wrapping arithmetic is logic.

use thalweg_graph::DType;
use thalweg_graph::kernel::{Binary, Unary, philox};

use crate::isa::multiversion;
use crate::kind::{Kind, Lane, with_lane};
use crate::tile::LANES;
mod joined;
pub(crate) mod math;
pub(crate) use joined::Pair;
use joined::{pair_after, splat};
use math::Float;

/// What is computed from registers, with the types that decide how.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum LaneOp {
    /// These register bits in every lane.
    Literal(Kind, u64),
    Unary(Unary, DType),
    Binary(Binary, DType),
    /// Of f32, with an operand that is the same in every lane: which one. The others' cache is not spent on copies of it.
    Splat(Binary, u8),
    /// Two of f32 after each other, each rounded: what is between is not stored.
    Pair(Pair),
    Select(Kind),
    Fma(DType),
    Cast(DType, DType),
    Philox(u64),
}

multiversion! {
    /// Computes `n` lanes of `out` from those of `a`, `b` and `c`, as many as the operation takes.
    ///
    /// # Safety
    /// Each register that the operation takes is live, of its type and has `n` lanes, at most [`LANES`]; `out`
    /// overlaps none of them.
    pub(crate) unsafe fn apply(op: LaneOp, out: *mut u8, args: [*const u8; 3], n: usize) {
        let regs = Regs { out, args, n };
        // SAFETY: the caller's promise; each arm takes registers as the types that the verifier saw.
        unsafe {
            match op {
                LaneOp::Literal(kind, bits) => with_lane!(kind, T => regs.out::<T>().fill(T::decode(bits))),
                LaneOp::Unary(op, dtype) => unary(op, dtype, &regs),
                LaneOp::Binary(op, dtype) => binary(op, dtype, &regs),
                LaneOp::Pair(pair) => match pair.first {
                    Binary::Add => pair_after(pair, &regs, |a, b| a + b),
                    Binary::Sub => pair_after(pair, &regs, |a, b| a - b),
                    _ => pair_after(pair, &regs, |a, b| a * b),
                },
                LaneOp::Splat(op, 0) => splat(op, &regs, 1, |one, x| (one, x)),
                LaneOp::Splat(op, _) => splat(op, &regs, 0, |one, x| (x, one)),
                LaneOp::Select(kind) => with_lane!(kind, T => {
                    let (c, a, b) = (regs.arg::<u8>(0), regs.arg::<T>(1), regs.arg::<T>(2));
                    let lanes = regs.out::<T>().iter_mut().zip(c).zip(a).zip(b);
                    for (((o, c), a), b) in lanes {
                        *o = if *c != 0 { *a } else { *b };
                    }
                }),
                LaneOp::Fma(DType::F64) => fma::<f64>(&regs),
                LaneOp::Fma(dtype) => {
                    fma::<f32>(&regs);
                    round_half(dtype, regs.out());
                }
                LaneOp::Cast(from, to) => cast(from, to, &regs),
                LaneOp::Philox(key) => {
                    let (index, step) = (regs.arg::<i64>(0), regs.arg::<i64>(1));
                    let lanes = regs.out::<u32>().iter_mut().zip(index).zip(step);
                    for ((o, i), s) in lanes {
                        let words = philox::block(key, (*i as u64) / 4, *s as u64);
                        let (low, high) = if *i & 1 == 0 { (words[0], words[2]) } else { (words[1], words[3]) };
                        *o = if *i & 2 == 0 { low } else { high };
                    }
                }
            }
        }
    }
}

struct Regs {
    out: *mut u8,
    args: [*const u8; 3],
    n: usize,
}
impl Regs {
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    unsafe fn out<T>(&self) -> &mut [T] {
        // SAFETY: the caller of `apply` promises a register of `n` lanes that overlaps no argument.
        unsafe { std::slice::from_raw_parts_mut(self.out.cast(), self.n) }
    }
    #[inline(always)]
    unsafe fn arg<T>(&self, k: usize) -> &[T] {
        // SAFETY: the caller of `apply` promises a register of `n` lanes.
        unsafe { std::slice::from_raw_parts(self.args[k].cast(), self.n) }
    }
    #[inline(always)]
    unsafe fn map<T: Copy, U>(&self, f: impl Fn(T) -> U) {
        // SAFETY: as for `apply`.
        let (out, a) = unsafe { (self.out::<U>(), self.arg::<T>(0)) };
        for (o, a) in out.iter_mut().zip(a) {
            *o = f(*a);
        }
    }
    #[inline(always)]
    unsafe fn zip<T: Copy, U>(&self, f: impl Fn(T, T) -> U) {
        // SAFETY: as for `apply`.
        let (out, a, b) = unsafe { (self.out::<U>(), self.arg::<T>(0), self.arg::<T>(1)) };
        for ((o, a), b) in out.iter_mut().zip(a).zip(b) {
            *o = f(*a, *b);
        }
    }
}

/// Rounds lanes to the half type that they stand for, if they do.
#[inline(always)]
pub(crate) fn round_half(dtype: DType, lanes: &mut [f32]) {
    use half::slice::HalfFloatSliceExt;
    match dtype {
        DType::F16 => {
            let mut rounded = [half::f16::ZERO; LANES];
            rounded[..lanes.len()].convert_from_f32_slice(lanes);
            rounded[..lanes.len()].convert_to_f32_slice(lanes);
        }
        DType::BF16 => {
            for x in lanes {
                *x = half::bf16::from_f32(*x).to_f32();
            }
        }
        _ => {}
    }
}

#[inline(always)]
unsafe fn unary(op: Unary, dtype: DType, regs: &Regs) {
    // SAFETY: as for `apply`.
    unsafe {
        match dtype {
            DType::F64 => float_unary::<f64>(op, regs),
            DType::F32 | DType::F16 | DType::BF16 => {
                float_unary::<f32>(op, regs);
                if !matches!(op, Unary::Not | Unary::IsNan) {
                    round_half(dtype, if dtype == DType::F32 { &mut [] } else { regs.out() });
                }
            }
            DType::I32 => int_unary::<i32>(op, regs),
            DType::I64 => int_unary::<i64>(op, regs),
            DType::U32 => int_unary::<u32>(op, regs),
            DType::U8 => int_unary::<u8>(op, regs),
            DType::Bool => match op {
                Unary::Not => regs.map(|x: u8| x ^ 1),
                Unary::IsNan => regs.map(|_: u8| 0u8),
                _ => regs.map(|x: u8| x),
            },
        }
    }
}

#[inline(always)]
unsafe fn float_unary<T: Float>(op: Unary, regs: &Regs) {
    // SAFETY: as for `apply`.
    unsafe {
        match op {
            Unary::Neg => regs.map(|x: T| x.neg()),
            Unary::Abs => regs.map(|x: T| x.abs()),
            Unary::Sign => regs.map(|x: T| x.sign()),
            Unary::Exp => regs.map(|x: T| x.exp()),
            Unary::Log => regs.map(|x: T| x.log()),
            Unary::Sqrt => regs.map(|x: T| x.sqrt()),
            Unary::Tanh => regs.map(|x: T| x.tanh()),
            Unary::Sin => regs.map(|x: T| x.sin()),
            Unary::Cos => regs.map(|x: T| x.cos()),
            Unary::Erf => regs.map(|x: T| x.erf()),
            Unary::Floor => regs.map(|x: T| x.floor()),
            Unary::Not => regs.map(|x: T| u8::from(x.is_zero())),
            Unary::IsNan => regs.map(|x: T| u8::from(x.is_nan())),
        }
    }
}

#[inline(always)]
unsafe fn fma<T: Float>(regs: &Regs) {
    // SAFETY: as for `apply`.
    let (out, a, b, c) = unsafe { (regs.out::<T>(), regs.arg::<T>(0), regs.arg::<T>(1), regs.arg::<T>(2)) };
    for (((o, a), b), c) in out.iter_mut().zip(a).zip(b).zip(c) {
        *o = a.fma(*b, *c);
    }
}

trait Int: Lane + Ord {
    const ZERO: Self;
    const BITS: i64;
    fn neg(self) -> Self;
    fn abs(self) -> Self;
    fn sign(self) -> Self;
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;
    fn rem(self, other: Self) -> Self;
    fn and(self, other: Self) -> Self;
    fn or(self, other: Self) -> Self;
    fn xor(self, other: Self) -> Self;
    fn shl(self, by: u32) -> Self;
    fn shr(self, by: u32) -> Self;
}
macro_rules! int {
    ($($t:ty: $abs:expr, $sign:expr);*) => { $(
        #[allow(clippy::inline_always)]
        impl Int for $t {
            const ZERO: Self = 0;
            const BITS: i64 = <$t>::BITS as i64;
            #[inline(always)]
            fn neg(self) -> Self { self.wrapping_neg() }
            #[inline(always)]
            fn abs(self) -> Self { ($abs)(self) }
            #[inline(always)]
            fn sign(self) -> Self { ($sign)(self) }
            #[inline(always)]
            fn add(self, other: Self) -> Self { self.wrapping_add(other) }
            #[inline(always)]
            fn sub(self, other: Self) -> Self { self.wrapping_sub(other) }
            #[inline(always)]
            fn mul(self, other: Self) -> Self { self.wrapping_mul(other) }
            #[inline(always)]
            fn div(self, other: Self) -> Self { if other == 0 { 0 } else { self.wrapping_div(other) } }
            #[inline(always)]
            fn rem(self, other: Self) -> Self { if other == 0 { 0 } else { self.wrapping_rem(other) } }
            #[inline(always)]
            fn and(self, other: Self) -> Self { self & other }
            #[inline(always)]
            fn or(self, other: Self) -> Self { self | other }
            #[inline(always)]
            fn xor(self, other: Self) -> Self { self ^ other }
            #[inline(always)]
            fn shl(self, by: u32) -> Self { self.wrapping_shl(by) }
            #[inline(always)]
            fn shr(self, by: u32) -> Self { self.wrapping_shr(by) }
        }
    )* };
}
int!(i32: i32::wrapping_abs, i32::signum; i64: i64::wrapping_abs, i64::signum; u32: |x| x, |x: u32| x.min(1);
    u8: |x| x, |x: u8| x.min(1));

#[inline(always)]
unsafe fn int_unary<T: Int>(op: Unary, regs: &Regs) {
    // SAFETY: as for `apply`.
    unsafe {
        match op {
            Unary::Neg => regs.map(|x: T| x.neg()),
            Unary::Abs => regs.map(|x: T| x.abs()),
            Unary::Sign => regs.map(|x: T| x.sign()),
            Unary::Not => regs.map(|x: T| u8::from(x == T::ZERO)),
            Unary::IsNan => regs.map(|_: T| 0u8),
            Unary::Floor => regs.map(|x: T| x),
            Unary::Exp | Unary::Log | Unary::Sqrt | Unary::Tanh | Unary::Sin | Unary::Cos | Unary::Erf => {
                unreachable!("verified: of floats only")
            }
        }
    }
}

#[inline(always)]
unsafe fn binary(op: Binary, dtype: DType, regs: &Regs) {
    // SAFETY: as for `apply`.
    unsafe {
        match dtype {
            DType::F64 => float_binary::<f64>(op, regs),
            DType::F32 | DType::F16 | DType::BF16 => {
                float_binary::<f32>(op, regs);
                if !op.compares() && dtype != DType::F32 {
                    round_half(dtype, regs.out());
                }
            }
            DType::I32 => int_binary::<i32>(op, regs),
            DType::I64 => int_binary::<i64>(op, regs),
            DType::U32 => int_binary::<u32>(op, regs),
            DType::U8 => int_binary::<u8>(op, regs),
            DType::Bool => bool_binary(op, regs),
        }
    }
}

#[inline(always)]
unsafe fn float_binary<T: Float>(op: Binary, regs: &Regs) {
    // SAFETY: as for `apply`.
    unsafe {
        match op {
            Binary::Add => regs.zip(|a: T, b: T| a.add(b)),
            Binary::Sub => regs.zip(|a: T, b: T| a.sub(b)),
            Binary::Mul => regs.zip(|a: T, b: T| a.mul(b)),
            Binary::Div => regs.zip(|a: T, b: T| a.div(b)),
            Binary::Rem => regs.zip(|a: T, b: T| a.rem(b)),
            Binary::Pow => regs.zip(|a: T, b: T| a.pow(b)),
            Binary::Max => regs.zip(|a: T, b: T| a.max_nan(b)),
            Binary::Min => regs.zip(|a: T, b: T| a.min_nan(b)),
            Binary::Lt => regs.zip(|a: T, b: T| u8::from(a < b)),
            Binary::Le => regs.zip(|a: T, b: T| u8::from(a <= b)),
            Binary::Eq => regs.zip(|a: T, b: T| u8::from(a == b)),
            Binary::Ne => regs.zip(|a: T, b: T| u8::from(a != b)),
            Binary::And | Binary::Or | Binary::Xor | Binary::Shl | Binary::Shr => {
                unreachable!("verified: not of floats")
            }
        }
    }
}

#[inline(always)]
unsafe fn int_binary<T: Int>(op: Binary, regs: &Regs) {
    // SAFETY: as for `apply`.
    unsafe {
        match op {
            Binary::Add => regs.zip(|a: T, b: T| a.add(b)),
            Binary::Sub => regs.zip(|a: T, b: T| a.sub(b)),
            Binary::Mul => regs.zip(|a: T, b: T| a.mul(b)),
            Binary::Div => regs.zip(|a: T, b: T| a.div(b)),
            Binary::Rem => regs.zip(|a: T, b: T| a.rem(b)),
            Binary::Max => regs.zip(|a: T, b: T| a.max(b)),
            Binary::Min => regs.zip(|a: T, b: T| a.min(b)),
            Binary::Lt => regs.zip(|a: T, b: T| u8::from(a < b)),
            Binary::Le => regs.zip(|a: T, b: T| u8::from(a <= b)),
            Binary::Eq => regs.zip(|a: T, b: T| u8::from(a == b)),
            Binary::Ne => regs.zip(|a: T, b: T| u8::from(a != b)),
            Binary::And => regs.zip(|a: T, b: T| a.and(b)),
            Binary::Or => regs.zip(|a: T, b: T| a.or(b)),
            Binary::Xor => regs.zip(|a: T, b: T| a.xor(b)),
            Binary::Shl => regs.zip(|a: T, b: T| a.shl(b.index().rem_euclid(T::BITS) as u32)),
            Binary::Shr => regs.zip(|a: T, b: T| a.shr(b.index().rem_euclid(T::BITS) as u32)),
            Binary::Pow => unreachable!("verified: of floats only"),
        }
    }
}

/// Integer arithmetic on 0 and 1 whose result is compared with zero.
#[inline(always)]
unsafe fn bool_binary(op: Binary, regs: &Regs) {
    // SAFETY: as for `apply`.
    unsafe {
        match op {
            Binary::Add | Binary::Or | Binary::Max => regs.zip(|a: u8, b: u8| a | b),
            Binary::Sub | Binary::Xor | Binary::Ne => regs.zip(|a: u8, b: u8| a ^ b),
            Binary::Mul | Binary::And | Binary::Min | Binary::Div => regs.zip(|a: u8, b: u8| a & b),
            Binary::Rem => regs.zip(|_: u8, _: u8| 0u8),
            Binary::Lt => regs.zip(|a: u8, b: u8| u8::from(a < b)),
            Binary::Le => regs.zip(|a: u8, b: u8| u8::from(a <= b)),
            Binary::Eq => regs.zip(|a: u8, b: u8| u8::from(a == b)),
            Binary::Shl => regs.zip(|a: u8, _: u8| a),
            Binary::Shr => regs.zip(|a: u8, b: u8| a & (b ^ 1)),
            Binary::Pow => unreachable!("verified: of floats only"),
        }
    }
}

#[inline(always)]
unsafe fn cast(from: DType, to: DType, regs: &Regs) {
    // SAFETY: as for `apply`.
    unsafe {
        match Kind::of(from) {
            Kind::F32 if matches!(to, DType::F16 | DType::BF16) => {
                regs.map(|x: f32| x);
                round_half(to, regs.out());
            }
            Kind::F32 => cast_from::<f32>(to, regs),
            Kind::F64 => cast_from::<f64>(to, regs),
            Kind::I32 => cast_from::<i32>(to, regs),
            Kind::I64 => cast_from::<i64>(to, regs),
            Kind::U32 => cast_from::<u32>(to, regs),
            Kind::U8 => cast_from::<u8>(to, regs),
        }
    }
}

#[inline(always)]
unsafe fn cast_from<T: Convert>(to: DType, regs: &Regs) {
    // SAFETY: as for `apply`.
    unsafe {
        match to {
            DType::Bool => regs.map(|x: T| u8::from(x.is_nonzero())),
            DType::U8 => regs.map(|x: T| x.u8()),
            DType::U32 => regs.map(|x: T| x.u32()),
            DType::I32 => regs.map(|x: T| x.i32()),
            DType::I64 => regs.map(|x: T| x.i64()),
            DType::F32 => regs.map(|x: T| x.f32()),
            DType::F64 => regs.map(|x: T| x.f64()),
            DType::F16 => regs.map(|x: T| half::f16::from_f64(x.f64()).to_f32()),
            DType::BF16 => regs.map(|x: T| half::bf16::from_f64(x.f64()).to_f32()),
        }
    }
}

/// Conversions: integers wrap, floats truncate and saturate, and integers become f32 by way of f64.
trait Convert: Copy {
    fn is_nonzero(self) -> bool;
    fn u8(self) -> u8;
    fn u32(self) -> u32;
    fn i32(self) -> i32;
    fn i64(self) -> i64;
    fn f32(self) -> f32;
    fn f64(self) -> f64;
}
macro_rules! convert {
    ($($t:ty: $zero:expr),*) => { $(
        impl Convert for $t {
            #[inline(always)]
            fn is_nonzero(self) -> bool { self != $zero }
            #[inline(always)]
            fn u8(self) -> u8 { self as u8 }
            #[inline(always)]
            fn u32(self) -> u32 { self as u32 }
            #[inline(always)]
            fn i32(self) -> i32 { self as i32 }
            #[inline(always)]
            fn i64(self) -> i64 { self as i64 }
            #[inline(always)]
            fn f32(self) -> f32 { self as f64 as f32 }
            #[inline(always)]
            fn f64(self) -> f64 { self as f64 }
        }
    )* };
}
convert!(f32: 0.0, f64: 0.0, i32: 0, i64: 0, u32: 0, u8: 0);
