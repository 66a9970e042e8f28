//! What attention does between products, lane by lane: weights out of scores, and cotangents of scores. Compiled for every
//! instruction set; lanes go in runs of a constant length, because the compiler does not vectorize short loops whose length
//! it does not know.

use std::ops::{Div, Mul, Sub};

use crate::isa::{Isa, multiversion};
use crate::lanes::math::Float;
use crate::panels::Real;

/// Numbers that attention computes with.
pub(super) trait Element: Real + Float + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self> {
    const LOWEST: Self;
    fn of(x: f64) -> Self;
    fn f64(self) -> f64;
    /// # Safety
    /// See [`Softening`].
    unsafe fn soften(isa: Isa, block: Softening<Self>);
    /// # Safety
    /// See [`Cotangents`].
    unsafe fn cotangents(isa: Isa, block: Cotangents<Self>);
    /// # Safety
    /// See [`Addition`].
    unsafe fn add_rows(isa: Isa, block: Addition<Self>);
    /// # Safety
    /// See [`Turn`].
    unsafe fn turn(isa: Isa, block: Turn<Self>);
}

/// A block of scores `[keys][lanes]`, a query to a lane, that become weights; and what is known of each query.
#[derive(Clone, Copy)]
pub(super) struct Softening<T> {
    /// Lanes of a vector, and of the block: a multiple of it.
    pub(super) run: usize,
    pub(super) lanes: usize,
    pub(super) keys: usize,
    pub(super) scores: *mut T,
    /// The largest score so far, the sum of weights so far, and what to multiply sums up to now with.
    pub(super) tops: *mut T,
    pub(super) sums: *mut T,
    pub(super) factors: *mut T,
}

/// A block of scores `[queries][lanes]`, a key to a lane, that become weights; and of cotangents of weights, that become
/// cotangents of scores.
#[derive(Clone, Copy)]
pub(super) struct Cotangents<T> {
    pub(super) run: usize,
    pub(super) lanes: usize,
    pub(super) queries: usize,
    pub(super) weights: *mut T,
    pub(super) d_scores: *mut T,
    /// One number per query each, this far apart.
    pub(super) logsumexp: *const T,
    pub(super) delta: *const T,
    pub(super) stride: usize,
}

/// Rows that are added to others; these are multiplied by factors, one per column, first where there are any.
#[derive(Clone, Copy)]
pub(super) struct Addition<T> {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) from: *const T,
    pub(super) from_stride: usize,
    pub(super) to: *mut T,
    pub(super) to_stride: usize,
    pub(super) factors: Option<*const T>,
}

/// A transpose: `to[column][row] = by · from[row][column]`.
#[derive(Clone, Copy)]
pub(super) struct Turn<T> {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) from: *const T,
    pub(super) from_stride: usize,
    pub(super) to: *mut T,
    pub(super) to_stride: usize,
    pub(super) by: T,
}

/// Calls a function with the constant that `run` is.
macro_rules! with_run {
    ($name:ident::<$T:ty>($block:ident)) => {
        match $block.run {
            16 => $name::<$T, 16>($block),
            8 => $name::<$T, 8>($block),
            4 => $name::<$T, 4>($block),
            _ => $name::<$T, 2>($block),
        }
    };
}

#[inline(always)]
unsafe fn load<T: Copy, const N: usize>(from: *const T) -> [T; N] {
    // SAFETY: the caller's promise.
    unsafe { from.cast::<[T; N]>().read_unaligned() }
}
#[inline(always)]
unsafe fn store<T: Copy, const N: usize>(to: *mut T, run: [T; N]) {
    // SAFETY: the caller's promise.
    unsafe { to.cast::<[T; N]>().write_unaligned(run) }
}

#[inline(always)]
unsafe fn soften<T: Element, const N: usize>(block: Softening<T>) {
    for lane in (0..block.lanes).step_by(N) {
        let at = |key: usize| block.scores.wrapping_add(key * block.lanes + lane);
        let [tops, sums, factors] = [block.tops, block.sums, block.factors].map(|p| p.wrapping_add(lane));
        // SAFETY: the caller's promise.
        unsafe {
            let before: [T; N] = load(tops);
            let mut top = before;
            for key in 0..block.keys {
                let score: [T; N] = load(at(key));
                for i in 0..N {
                    top[i] = if score[i] > top[i] { score[i] } else { top[i] };
                }
            }
            // Where all scores are −∞ any base will do, but −∞ less itself is none.
            let mut base = top;
            let mut factor = top;
            for i in 0..N {
                base[i] = if top[i] == T::LOWEST { T::default() } else { top[i] };
                factor[i] = Float::exp(before[i] - base[i]);
            }
            let mut sum = [T::default(); N];
            for key in 0..block.keys {
                let mut score: [T; N] = load(at(key));
                for i in 0..N {
                    score[i] = Float::exp(score[i] - base[i]);
                }
                for i in 0..N {
                    sum[i] = sum[i] + score[i];
                }
                store(at(key), score);
            }
            let mut all: [T; N] = load(sums);
            for i in 0..N {
                all[i] = all[i] * factor[i] + sum[i];
            }
            store(tops, top);
            store(factors, factor);
            store(sums, all);
        }
    }
}

#[inline(always)]
unsafe fn cotangents<T: Element, const N: usize>(block: Cotangents<T>) {
    for query in 0..block.queries {
        // SAFETY: the caller's promise.
        unsafe {
            let logsumexp = *block.logsumexp.wrapping_add(query * block.stride);
            let delta = *block.delta.wrapping_add(query * block.stride);
            for lane in (0..block.lanes).step_by(N) {
                let at = query * block.lanes + lane;
                let (mut weight, mut d): ([T; N], [T; N]) = (load(block.weights.add(at)), load(block.d_scores.add(at)));
                for weight in &mut weight {
                    *weight = Float::exp(*weight - logsumexp);
                }
                for i in 0..N {
                    d[i] = weight[i] * (d[i] - delta);
                }
                store(block.weights.add(at), weight);
                store(block.d_scores.add(at), d);
            }
        }
    }
}

#[inline(always)]
unsafe fn add_rows<T: Element>(block: Addition<T>) {
    for row in 0..block.rows {
        // SAFETY: the caller's promise; what is added lies elsewhere.
        unsafe {
            let to = std::slice::from_raw_parts_mut(block.to.wrapping_add(row * block.to_stride), block.columns);
            let from = std::slice::from_raw_parts(block.from.wrapping_add(row * block.from_stride), block.columns);
            match block.factors {
                Some(factors) => {
                    let factors = std::slice::from_raw_parts(factors, block.columns);
                    for ((to, from), by) in to.iter_mut().zip(from).zip(factors) {
                        *to = *to * *by + *from;
                    }
                }
                None => to.iter_mut().zip(from).for_each(|(to, from)| *to = *to + *from),
            }
        }
    }
}

#[inline(always)]
unsafe fn turn<T: Element>(block: Turn<T>) {
    for column in 0..block.columns {
        for row in 0..block.rows {
            // SAFETY: the caller's promise.
            unsafe {
                let x = *block.from.wrapping_add(row * block.from_stride + column);
                *block.to.wrapping_add(column * block.to_stride + row) = x * block.by;
            }
        }
    }
}

/// [`turn`] by blocks of sixteen by sixteen.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn turn_wide(block: Turn<f32>) {
    use std::arch::x86_64::*;
    let by = _mm512_set1_ps(block.by);
    let mask = |len: usize| ((1u32 << len) - 1) as u16;
    for row in (0..block.rows).step_by(16) {
        let rows = (block.rows - row).min(16);
        for column in (0..block.columns).step_by(16) {
            let columns = (block.columns - column).min(16);
            let mut lines = [_mm512_setzero_ps(); 16];
            for (i, line) in lines.iter_mut().enumerate().take(rows) {
                let from = block.from.wrapping_add((row + i) * block.from_stride + column);
                // SAFETY: the caller's promise; a mask keeps to the columns that are there.
                *line = _mm512_mul_ps(unsafe { _mm512_maskz_loadu_ps(mask(columns), from) }, by);
            }
            for (i, line) in crate::panels::wide::transpose(lines).into_iter().enumerate().take(columns) {
                let to = block.to.wrapping_add((column + i) * block.to_stride + row);
                // SAFETY: as above. Loads behind a masked store wait for it: whole vectors are stored as such.
                unsafe {
                    match rows {
                        16 => _mm512_storeu_ps(to, line),
                        _ => _mm512_mask_storeu_ps(to, mask(rows), line),
                    }
                }
            }
        }
    }
}

macro_rules! element {
    ($T:ty, $soften:ident, $cotangents:ident, $add_rows:ident, $turn:ident, $wide:expr) => {
        multiversion! {
            unsafe fn $soften(block: Softening<$T>) {
                // SAFETY: the caller's promise.
                unsafe { with_run!(soften::<$T>(block)) }
            }
        }
        multiversion! {
            unsafe fn $cotangents(block: Cotangents<$T>) {
                // SAFETY: the caller's promise.
                unsafe { with_run!(cotangents::<$T>(block)) }
            }
        }
        multiversion! {
            unsafe fn $add_rows(block: Addition<$T>) {
                // SAFETY: the caller's promise.
                unsafe { add_rows::<$T>(block) }
            }
        }
        multiversion! {
            unsafe fn $turn(block: Turn<$T>) {
                // SAFETY: the caller's promise.
                unsafe { turn::<$T>(block) }
            }
        }
        impl Element for $T {
            const LOWEST: Self = <$T>::NEG_INFINITY;
            fn of(x: f64) -> Self {
                x as $T
            }
            fn f64(self) -> f64 {
                f64::from(self)
            }
            unsafe fn soften(isa: Isa, block: Softening<Self>) {
                // SAFETY: the caller's promise.
                unsafe { $soften(isa, block) }
            }
            unsafe fn cotangents(isa: Isa, block: Cotangents<Self>) {
                // SAFETY: the caller's promise.
                unsafe { $cotangents(isa, block) }
            }
            unsafe fn add_rows(isa: Isa, block: Addition<Self>) {
                // SAFETY: the caller's promise.
                unsafe { $add_rows(isa, block) }
            }
            unsafe fn turn(isa: Isa, block: Turn<Self>) {
                // SAFETY: the caller's promise.
                unsafe {
                    match isa {
                        #[cfg(target_arch = "x86_64")]
                        Isa::Avx512 => $wide(block),
                        _ => $turn(isa, block),
                    }
                }
            }
        }
    };
}
element!(f32, soften_f32, cotangents_f32, add_rows_f32, turn_f32, turn_wide);
element!(f64, soften_f64, cotangents_f64, add_rows_f64, turn_f64, |block| turn_f64(Isa::Avx512, block));
