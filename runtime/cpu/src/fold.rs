//! Folds by lane: every lane of a tile keeps its own state, and states merge pairwise at the end. The shape of that
//! tree is the tile's, so that the bits of a sum depend on the nest and on nothing else.

use thalweg_graph::DType;
use thalweg_graph::kernel::Monoid;
use thalweg_graph::kernel::interpret::neutral;

use crate::isa::{Isa, multiversion};
use crate::kind::{Kind, Lane, encode, with_lane};
use crate::lanes::math::Float;
use crate::lanes::round_half;
use crate::program::{Slot, Slots};

/// One fold's state: a register per part.
#[derive(Clone, Debug)]
pub(crate) struct Accumulator {
    monoid: Monoid,
    dtype: DType,
    pub(crate) parts: Vec<Slot>,
}

/// Up to three parts of a state, in memory.
pub(crate) type Parts = [*mut u8; 3];

impl Accumulator {
    pub(crate) fn new(monoid: Monoid, dtype: DType, slots: &mut Slots) -> Self {
        let parts = (0..monoid.parts()).map(|p| slots.take(Kind::of(monoid.part_dtype(p, dtype)))).collect();
        Self { monoid, dtype, parts }
    }
    /// Bytes of a lane of part `part`.
    pub(crate) fn lane_bytes(&self, part: usize) -> usize {
        Kind::of(self.monoid.part_dtype(part, self.dtype)).size_bytes()
    }
    /// Sets `n` lanes to the neutral element.
    pub(crate) unsafe fn clear(&self, parts: Parts, n: usize) {
        for (p, number) in neutral(self.monoid, self.dtype).into_iter().enumerate() {
            let dtype = self.monoid.part_dtype(p, self.dtype);
            let bits = encode(number, dtype);
            with_lane!(Kind::of(dtype), T => {
                // SAFETY: the caller promises `n` lanes of each part.
                unsafe { std::slice::from_raw_parts_mut(parts[p].cast::<T>(), n) }.fill(T::decode(bits));
            });
        }
    }
    /// Combines `n` lanes of inputs into the state; by pairs, the first of each being the earlier.
    pub(crate) unsafe fn accumulate(&self, isa: Isa, parts: Parts, inputs: [*const u8; 2], n: usize) {
        // SAFETY: the caller's promise.
        unsafe { combine(isa, self.monoid, self.dtype, parts, [inputs[0], inputs[1], std::ptr::null()], true, n) }
    }
    /// Merges the states of `n` lanes at `others` into those at `parts`.
    pub(crate) unsafe fn merge(&self, isa: Isa, parts: Parts, others: Parts, n: usize) {
        // SAFETY: the caller's promise.
        unsafe { combine(isa, self.monoid, self.dtype, parts, others.map(|p| p.cast_const()), false, n) }
    }
    /// Whether the state is one value, and folding a value into a neutral state leaves that value: the first values are
    /// then a state as they are.
    pub(crate) fn starts_with_values(&self) -> bool {
        !matches!(self.dtype, DType::F16 | DType::BF16)
            && matches!(self.monoid, Monoid::Sum | Monoid::Prod | Monoid::Max | Monoid::Min)
            && self.dtype != DType::Bool
    }
    /// Folds `fold` groups of `lanes` lanes of values into one group of states: what clearing, combining and
    /// [`Accumulator::fold_lanes`] give, at once.
    ///
    /// # Safety
    /// Only where [`Accumulator::starts_with_values`]; `values` and the state have that many lanes and do not overlap.
    pub(crate) unsafe fn fold_values(&self, isa: Isa, parts: Parts, values: *const u8, fold: usize, lanes: usize) {
        // SAFETY: the caller's promise.
        unsafe { tree(isa, self.monoid, self.dtype, parts[0], values, fold, lanes) }
    }
    /// Merges `fold` groups of `lanes` lanes into the first group.
    pub(crate) unsafe fn fold_lanes(&self, isa: Isa, parts: Parts, mut fold: usize, lanes: usize) {
        while fold > 1 {
            let keep = fold.div_ceil(2);
            let mut others = parts;
            for (p, other) in others.iter_mut().enumerate().take(self.parts.len()) {
                *other = other.wrapping_add(keep * lanes * self.lane_bytes(p));
            }
            // SAFETY: the upper groups lie behind the lower ones in the same registers.
            unsafe { self.merge(isa, parts, others, (fold - keep) * lanes) };
            fold = keep;
        }
    }
}

multiversion! {
    /// Combines `n` lanes of `with` (inputs, if `raw`, else states) into `parts`.
    ///
    /// # Safety
    /// Every part and input of the monoid is live, of its type, has `n` lanes and overlaps no other.
    unsafe fn combine(
        monoid: Monoid, dtype: DType, parts: Parts, with: [*const u8; 3], raw: bool, n: usize,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            match monoid {
                Monoid::Any => zip::<u8>(parts, with, n, |a, b| a | b),
                Monoid::All => zip::<u8>(parts, with, n, |a, b| a & b),
                Monoid::MeanM2 | Monoid::LogSumExp if dtype == DType::F64 => statistics::<f64>(monoid, parts, with, raw, n),
                Monoid::MeanM2 | Monoid::LogSumExp => {
                    statistics::<f32>(monoid, parts, with, raw, n);
                    for part in parts.iter().take(monoid.parts()) {
                        round(dtype, *part, n);
                    }
                }
                _ => match dtype {
                    DType::Bool => bools(monoid, parts, with, n),
                    DType::U8 => ints(monoid, parts, with, n, u8::wrapping_add, u8::wrapping_mul),
                    DType::U32 => ints(monoid, parts, with, n, u32::wrapping_add, u32::wrapping_mul),
                    DType::I32 => ints(monoid, parts, with, n, i32::wrapping_add, i32::wrapping_mul),
                    DType::I64 => ints(monoid, parts, with, n, i64::wrapping_add, i64::wrapping_mul),
                    DType::F64 => floats::<f64>(monoid, parts, with, n),
                    DType::F32 | DType::F16 | DType::BF16 => {
                        floats::<f32>(monoid, parts, with, n);
                        round(dtype, parts[0], n);
                    }
                },
            }
        }
    }
}

multiversion! {
    /// Combines the upper half of `fold` groups of lanes with the lower, and so on, into the first group at `state`.
    ///
    /// # Safety
    /// See [`Accumulator::fold_values`].
    unsafe fn tree(
        monoid: Monoid, dtype: DType, state: *mut u8, values: *const u8, fold: usize, lanes: usize,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            match dtype {
                DType::F32 => float_tree::<f32>(monoid, state, values, fold, lanes),
                DType::F64 => float_tree::<f64>(monoid, state, values, fold, lanes),
                DType::U8 => int_tree(monoid, state, values, fold, lanes, u8::wrapping_add, u8::wrapping_mul),
                DType::U32 => int_tree(monoid, state, values, fold, lanes, u32::wrapping_add, u32::wrapping_mul),
                DType::I32 => int_tree(monoid, state, values, fold, lanes, i32::wrapping_add, i32::wrapping_mul),
                DType::I64 => int_tree(monoid, state, values, fold, lanes, i64::wrapping_add, i64::wrapping_mul),
                DType::F16 | DType::BF16 | DType::Bool => unreachable!("they do not start with values"),
            }
        }
    }
}

#[inline(always)]
unsafe fn float_tree<T: Float>(monoid: Monoid, state: *mut u8, values: *const u8, fold: usize, lanes: usize) {
    // SAFETY: as for `tree`.
    unsafe {
        match monoid {
            Monoid::Sum => halve(state, values, fold, lanes, |a: T, b| a.add(b)),
            Monoid::Prod => halve(state, values, fold, lanes, |a: T, b| a.mul(b)),
            Monoid::Max => halve(state, values, fold, lanes, |a: T, b| a.max_nan(b)),
            Monoid::Min => halve(state, values, fold, lanes, |a: T, b| a.min_nan(b)),
            _ => unreachable!("they do not start with values"),
        }
    }
}

#[inline(always)]
unsafe fn int_tree<T: Lane + Ord>(
    monoid: Monoid,
    state: *mut u8,
    values: *const u8,
    fold: usize,
    lanes: usize,
    add: impl Fn(T, T) -> T,
    mul: impl Fn(T, T) -> T,
) {
    // SAFETY: as for `tree`.
    unsafe {
        match monoid {
            Monoid::Sum => halve(state, values, fold, lanes, add),
            Monoid::Prod => halve(state, values, fold, lanes, mul),
            Monoid::Max => halve(state, values, fold, lanes, |a: T, b| a.max(b)),
            Monoid::Min => halve(state, values, fold, lanes, |a: T, b| a.min(b)),
            _ => unreachable!("they do not start with values"),
        }
    }
}

#[inline(always)]
unsafe fn halve<T: Copy>(state: *mut u8, values: *const u8, fold: usize, lanes: usize, f: impl Fn(T, T) -> T) {
    // SAFETY: as for `tree`.
    let (mut state, values) = unsafe { (self::lanes::<T>(state, fold * lanes), inputs::<T>(values, fold * lanes)) };
    let mut keep = fold.div_ceil(2) * lanes;
    for ((s, a), b) in state.iter_mut().zip(&values[..keep]).zip(&values[keep..]) {
        *s = f(*a, *b);
    }
    let pairs = values.len() - keep;
    state[pairs..keep].copy_from_slice(&values[pairs..keep]);
    while keep > lanes {
        let next = (keep / lanes).div_ceil(2) * lanes;
        let (low, high) = state[..keep].split_at_mut(next);
        for (a, b) in low.iter_mut().zip(high) {
            *a = f(*a, *b);
        }
        (state, keep) = (&mut state[..next], next);
    }
}

#[inline(always)]
unsafe fn round(dtype: DType, part: *mut u8, n: usize) {
    if dtype != DType::F32 {
        // SAFETY: halves live in registers of f32.
        round_half(dtype, unsafe { lanes(part, n) });
    }
}
#[inline(always)]
unsafe fn lanes<'a, T>(part: *mut u8, n: usize) -> &'a mut [T] {
    // SAFETY: the caller of `combine` promises `n` lanes of this type.
    unsafe { std::slice::from_raw_parts_mut(part.cast(), n) }
}
#[inline(always)]
unsafe fn inputs<'a, T>(input: *const u8, n: usize) -> &'a [T] {
    // SAFETY: the caller of `combine` promises `n` lanes of this type.
    unsafe { std::slice::from_raw_parts(input.cast(), n) }
}
#[inline(always)]
unsafe fn zip<T: Copy>(parts: Parts, with: [*const u8; 3], n: usize, f: impl Fn(T, T) -> T) {
    // SAFETY: as for `combine`.
    let (state, with) = unsafe { (lanes::<T>(parts[0], n), inputs::<T>(with[0], n)) };
    for (a, b) in state.iter_mut().zip(with) {
        *a = f(*a, *b);
    }
}

#[inline(always)]
unsafe fn bools(monoid: Monoid, parts: Parts, with: [*const u8; 3], n: usize) {
    // SAFETY: as for `combine`.
    unsafe {
        match monoid {
            Monoid::Sum | Monoid::Max => zip::<u8>(parts, with, n, |a, b| a | b),
            Monoid::Prod | Monoid::Min => zip::<u8>(parts, with, n, |a, b| a & b),
            _ => ints(monoid, parts, with, n, |a: u8, _| a, |a, _| a),
        }
    }
}

#[inline(always)]
unsafe fn ints<T: Lane + Ord>(
    monoid: Monoid,
    parts: Parts,
    with: [*const u8; 3],
    n: usize,
    add: impl Fn(T, T) -> T,
    mul: impl Fn(T, T) -> T,
) {
    // SAFETY: as for `combine`.
    unsafe {
        match monoid {
            Monoid::Sum => zip(parts, with, n, add),
            Monoid::Prod => zip(parts, with, n, mul),
            Monoid::Max => zip(parts, with, n, |a: T, b| a.max(b)),
            Monoid::Min => zip(parts, with, n, |a: T, b| a.min(b)),
            Monoid::ArgMax => choose(parts, with, n, |a: T, b| b > a, |a, b| a == b),
            Monoid::ArgMin => choose(parts, with, n, |a: T, b| b < a, |a, b| a == b),
            _ => unreachable!("verified: of floats or truth values only"),
        }
    }
}

#[inline(always)]
unsafe fn floats<T: Float>(monoid: Monoid, parts: Parts, with: [*const u8; 3], n: usize) {
    let same = |a: T, b: T| (a == b) | (a.is_nan() & b.is_nan());
    // SAFETY: as for `combine`.
    unsafe {
        match monoid {
            Monoid::Sum => zip(parts, with, n, |a: T, b| a.add(b)),
            Monoid::Prod => zip(parts, with, n, |a: T, b| a.mul(b)),
            Monoid::Max => zip(parts, with, n, |a: T, b| a.max_nan(b)),
            Monoid::Min => zip(parts, with, n, |a: T, b| a.min_nan(b)),
            Monoid::ArgMax => choose(parts, with, n, |a: T, b| !a.is_nan() & (b.is_nan() | (b > a)), same),
            Monoid::ArgMin => choose(parts, with, n, |a: T, b| !a.is_nan() & (b.is_nan() | (b < a)), same),
            _ => unreachable!("handled before, or verified: of truth values only"),
        }
    }
}

/// The better value and its index; of equals the smaller index.
#[inline(always)]
unsafe fn choose<T: Lane>(
    parts: Parts,
    with: [*const u8; 3],
    n: usize,
    better: impl Fn(T, T) -> bool,
    same: impl Fn(T, T) -> bool,
) {
    // SAFETY: as for `combine`.
    let (best, at) = unsafe { (lanes::<T>(parts[0], n), lanes::<i64>(parts[1], n)) };
    // SAFETY: as for `combine`.
    let (x, i) = unsafe { (inputs::<T>(with[0], n), inputs::<i64>(with[1], n)) };
    for (((best, at), x), i) in best.iter_mut().zip(at).zip(x).zip(i) {
        let take = better(*best, *x) | (same(*best, *x) & (*i < *at));
        *best = if take { *x } else { *best };
        *at = if take { *i } else { *at };
    }
}

#[inline(always)]
unsafe fn statistics<T: Float + Real>(monoid: Monoid, parts: Parts, with: [*const u8; 3], raw: bool, n: usize) {
    // SAFETY: as for `combine`.
    let (a, b, x) = unsafe { (lanes::<T>(parts[0], n), lanes::<T>(parts[1], n), inputs::<T>(with[0], n)) };
    let zip = a.iter_mut().zip(b).zip(x);
    match (monoid, raw) {
        (Monoid::MeanM2, true) => {
            // SAFETY: as for `combine`; the third part is the count.
            let count = unsafe { lanes::<T>(parts[2], n) };
            for (((mean, m2), x), n) in zip.zip(count) {
                *n = n.add(T::ONE);
                let delta = x.sub(*mean);
                *mean = mean.add(delta.div(*n));
                *m2 = m2.add(delta.mul(x.sub(*mean)));
            }
        }
        (Monoid::MeanM2, false) => {
            // SAFETY: as for `combine`; states have three parts.
            let (count, m2s, counts) =
                unsafe { (lanes::<T>(parts[2], n), inputs::<T>(with[1], n), inputs::<T>(with[2], n)) };
            for (((((mean, m2), x), n), other), more) in zip.zip(count).zip(m2s).zip(counts) {
                if more.is_zero() {
                    continue;
                }
                if n.is_zero() {
                    (*mean, *m2, *n) = (*x, *other, *more);
                    continue;
                }
                let all = n.add(*more);
                let delta = x.sub(*mean);
                let share = more.div(all);
                *m2 = m2.add(*other).add(delta.mul(delta).mul(*n).mul(share));
                *mean = mean.add(delta.mul(share));
                *n = all;
            }
        }
        (_, true) => {
            for ((top, sum), x) in zip {
                add_exp(top, sum, *x, T::ONE);
            }
        }
        (_, false) => {
            // SAFETY: as for `combine`; states have two parts.
            let sums = unsafe { inputs::<T>(with[1], n) };
            for (((top, sum), x), other) in zip.zip(sums) {
                add_exp(top, sum, *x, *other);
            }
        }
    }
}

/// `(top, sum) ⊕ (x, other)` where each stands for `sum · exp(top)`.
#[inline(always)]
fn add_exp<T: Float>(top: &mut T, sum: &mut T, x: T, other: T) {
    let new = top.max_nan(x);
    let part = |at: T, sum: T| if (at == new) | sum.is_zero() { sum } else { sum.mul(at.sub(new).exp()) };
    *sum = part(*top, *sum).add(part(x, other));
    *top = new;
}

trait Real {
    const ONE: Self;
}
impl Real for f32 {
    const ONE: Self = 1.0;
}
impl Real for f64 {
    const ONE: Self = 1.0;
}
