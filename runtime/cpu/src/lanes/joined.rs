//! Operations of f32 that need less of the cache than one at a time from whole registers: two after each other, whose value
//! between is not stored, and one with a number. Each rounds as it does alone: what is joined is not contracted.

use thalweg_graph::kernel::Binary;

use super::Regs;
use super::math::Float;

/// `(a first b) second c`, or `c second (a first b)`; sums, differences and products.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pair {
    pub(crate) first: Binary,
    pub(crate) second: Binary,
    pub(crate) flipped: bool,
    /// `b` is the same in every lane.
    pub(crate) splat: bool,
}

impl Pair {
    /// Whether an operation may be in a pair.
    pub(crate) fn takes(op: Binary) -> bool {
        matches!(op, Binary::Add | Binary::Sub | Binary::Mul)
    }
}

#[inline(always)]
pub(super) unsafe fn pair_after(pair: Pair, regs: &Regs, first: impl Fn(f32, f32) -> f32) {
    // SAFETY: as for `apply`.
    unsafe {
        match (pair.second, pair.flipped) {
            (Binary::Add, _) => pair_of(pair, regs, |a, b, c| first(a, b) + c),
            (Binary::Sub, false) => pair_of(pair, regs, |a, b, c| first(a, b) - c),
            (Binary::Sub, true) => pair_of(pair, regs, |a, b, c| c - first(a, b)),
            _ => pair_of(pair, regs, |a, b, c| first(a, b) * c),
        }
    }
}

#[inline(always)]
unsafe fn pair_of(pair: Pair, regs: &Regs, f: impl Fn(f32, f32, f32) -> f32) {
    // SAFETY: as for `apply`.
    let (out, a, b, c) = unsafe { (regs.out::<f32>(), regs.arg::<f32>(0), regs.arg::<f32>(1), regs.arg::<f32>(2)) };
    if pair.splat {
        let b = b[0];
        for ((o, a), c) in out.iter_mut().zip(a).zip(c) {
            *o = f(*a, b, *c);
        }
    } else {
        for (((o, a), b), c) in out.iter_mut().zip(a).zip(b).zip(c) {
            *o = f(*a, *b, *c);
        }
    }
}

/// Operand `many` changes from lane to lane, the other does not; `order` puts them in theirs.
#[inline(always)]
pub(super) unsafe fn splat(op: Binary, regs: &Regs, many: usize, order: impl Fn(f32, f32) -> (f32, f32)) {
    // SAFETY: as for `apply`.
    unsafe {
        let one = regs.arg::<f32>(1 - many)[0];
        let regs = &Regs { out: regs.out, args: [regs.args[many]; 3], n: regs.n };
        match op {
            Binary::Add => regs.map(|x| {
                let (a, b) = order(one, x);
                Float::add(a, b)
            }),
            Binary::Sub => regs.map(|x| {
                let (a, b) = order(one, x);
                Float::sub(a, b)
            }),
            Binary::Mul => regs.map(|x| {
                let (a, b) = order(one, x);
                Float::mul(a, b)
            }),
            Binary::Div => regs.map(|x| {
                let (a, b) = order(one, x);
                Float::div(a, b)
            }),
            Binary::Max => regs.map(|x| {
                let (a, b) = order(one, x);
                a.max_nan(b)
            }),
            Binary::Min => regs.map(|x| {
                let (a, b) = order(one, x);
                a.min_nan(b)
            }),
            _ => unreachable!("only these are made"),
        }
    }
}
