//! The innermost product: a few vectors of rows by a few columns, kept in registers over a whole block of depth. Every
//! element is one chain of fused multiply-adds in the order of depth, so its bits depend neither on the shape of the
//! tile nor on the width of the vectors.

/// Most vectors of rows and most columns of a tile, on any instruction set.
pub(crate) const MOST_VECTORS: usize = 3;
pub(crate) const MOST_COLUMNS: usize = 8;
/// Elements that a tile has room for: the widest vectors are of sixteen.
pub(crate) const TILE: usize = MOST_VECTORS * MOST_COLUMNS * 16;

/// Vectors of one element type on one instruction set.
pub(crate) trait Simd {
    type T: Copy;
    type V: Copy;
    const LANES: usize;
    unsafe fn zero() -> Self::V;
    unsafe fn splat(x: Self::T) -> Self::V;
    unsafe fn load(from: *const Self::T) -> Self::V;
    unsafe fn store(to: *mut Self::T, v: Self::V);
    /// `a · b + c`, rounded once where the machine can.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
}

/// Where the columns' operand lies: a step from column to column and one along depth.
#[derive(Clone, Copy)]
pub(crate) struct Columns<T> {
    pub(crate) at: *const T,
    pub(crate) column: isize,
    pub(crate) depth: isize,
}

/// Where the rows lie: `M` vectors side by side, and a step along depth.
#[derive(Clone, Copy)]
pub(crate) struct Rows<T> {
    pub(crate) at: *const T,
    pub(crate) depth: isize,
}

/// `out[column][row] = Σ rows[k][row] · columns[k][column]` over `depth`.
///
/// # Safety
/// All of that lies in memory, and the machine has the instructions of `S`.
#[inline(always)]
unsafe fn tile<S: Simd, const M: usize, const N: usize>(
    depth: usize,
    rows: Rows<S::T>,
    columns: Columns<S::T>,
    out: *mut S::T,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[S::zero(); M]; N];
        let mut starts = [columns.at; N];
        for (j, start) in starts.iter_mut().enumerate() {
            *start = columns.at.wrapping_offset(j as isize * columns.column);
        }
        let (mut from, mut along) = (rows.at, 0isize);
        for _ in 0..depth {
            let mut vectors = [S::zero(); M];
            for (i, v) in vectors.iter_mut().enumerate() {
                *v = S::load(from.wrapping_add(i * S::LANES));
            }
            for (sums, start) in sums.iter_mut().zip(starts) {
                let x = S::splat(*start.wrapping_offset(along));
                for (sum, v) in sums.iter_mut().zip(vectors) {
                    *sum = S::fma(v, x, *sum);
                }
            }
            from = from.wrapping_offset(rows.depth);
            along += columns.depth;
        }
        for (j, sums) in sums.iter().enumerate() {
            for (i, sum) in sums.iter().enumerate() {
                S::store(out.add((j * M + i) * S::LANES), *sum);
            }
        }
    }
}

/// A tile function for given numbers of vectors and columns.
pub(crate) type Tile<T> = unsafe fn(usize, Rows<T>, Columns<T>, *mut T);

/// A table of tiles, `[vectors − 1][columns − 1]`, compiled with the instructions of `$S`.
macro_rules! tiles {
    ($name:ident, $S:ty, $T:ty $(, $feature:literal)?) => {
        pub(crate) fn $name(vectors: usize, columns: usize) -> Tile<$T> {
            $(#[target_feature(enable = $feature)])?
            unsafe fn one<const M: usize, const N: usize>(depth: usize, rows: Rows<$T>, columns: Columns<$T>, out: *mut $T) {
                // SAFETY: the caller's promise.
                unsafe { tile::<$S, M, N>(depth, rows, columns, out) }
            }
            tiles!(@table one, vectors, columns, 1 2 3)
        }
    };
    (@table $one:ident, $vectors:ident, $columns:ident, $($m:literal)*) => {
        match $vectors {
            $($m => match $columns {
                1 => $one::<$m, 1>, 2 => $one::<$m, 2>, 3 => $one::<$m, 3>, 4 => $one::<$m, 4>,
                5 => $one::<$m, 5>, 6 => $one::<$m, 6>, 7 => $one::<$m, 7>, _ => $one::<$m, 8>,
            },)*
            _ => unreachable!("a tile has at most three vectors of rows"),
        }
    };
}

/// Lanes without vector instructions of a known sort: the compiler makes of them what the target promises.
pub(crate) struct Plain<T>(std::marker::PhantomData<T>);
macro_rules! plain {
    ($T:ty, $lanes:literal) => {
        impl Simd for Plain<$T> {
            type T = $T;
            type V = [$T; $lanes];
            const LANES: usize = $lanes;
            #[inline(always)]
            unsafe fn zero() -> Self::V {
                [0.0; $lanes]
            }
            #[inline(always)]
            unsafe fn splat(x: $T) -> Self::V {
                [x; $lanes]
            }
            #[inline(always)]
            unsafe fn load(from: *const $T) -> Self::V {
                // SAFETY: the caller's promise.
                unsafe { from.cast::<Self::V>().read_unaligned() }
            }
            #[inline(always)]
            unsafe fn store(to: *mut $T, v: Self::V) {
                // SAFETY: the caller's promise.
                unsafe { to.cast::<Self::V>().write_unaligned(v) }
            }
            #[inline(always)]
            unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
                // A fused multiply-add without an instruction for it is a call into the C library.
                let fused = cfg!(any(target_arch = "aarch64", target_feature = "fma"));
                std::array::from_fn(|i| if fused { a[i].mul_add(b[i], c[i]) } else { a[i] * b[i] + c[i] })
            }
        }
    };
}
plain!(f32, 4);
plain!(f64, 2);
tiles!(plain_f32, Plain<f32>, f32);
tiles!(plain_f64, Plain<f64>, f64);

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::*;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Columns, Rows, Simd, Tile, tile};

    macro_rules! vectors {
        ($name:ident, $T:ty, $V:ty, $lanes:literal, $zero:ident, $splat:ident, $load:ident, $store:ident,
         $fma:ident) => {
            pub(crate) struct $name;
            impl Simd for $name {
                type T = $T;
                type V = $V;
                const LANES: usize = $lanes;
                #[inline(always)]
                unsafe fn zero() -> $V {
                    // SAFETY: the machine has the instruction.
                    unsafe { $zero() }
                }
                #[inline(always)]
                unsafe fn splat(x: $T) -> $V {
                    // SAFETY: the machine has the instruction.
                    unsafe { $splat(x) }
                }
                #[inline(always)]
                unsafe fn load(from: *const $T) -> $V {
                    // SAFETY: the caller's promise.
                    unsafe { $load(from) }
                }
                #[inline(always)]
                unsafe fn store(to: *mut $T, v: $V) {
                    // SAFETY: the caller's promise.
                    unsafe { $store(to, v) }
                }
                #[inline(always)]
                unsafe fn fma(a: $V, b: $V, c: $V) -> $V {
                    // SAFETY: the machine has the instruction.
                    unsafe { $fma(a, b, c) }
                }
            }
        };
    }
    vectors!(
        Avx512F32,
        f32,
        __m512,
        16,
        _mm512_setzero_ps,
        _mm512_set1_ps,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_fmadd_ps
    );
    vectors!(
        Avx512F64,
        f64,
        __m512d,
        8,
        _mm512_setzero_pd,
        _mm512_set1_pd,
        _mm512_loadu_pd,
        _mm512_storeu_pd,
        _mm512_fmadd_pd
    );
    vectors!(
        Avx2F32,
        f32,
        __m256,
        8,
        _mm256_setzero_ps,
        _mm256_set1_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_fmadd_ps
    );
    vectors!(
        Avx2F64,
        f64,
        __m256d,
        4,
        _mm256_setzero_pd,
        _mm256_set1_pd,
        _mm256_loadu_pd,
        _mm256_storeu_pd,
        _mm256_fmadd_pd
    );
    tiles!(avx512_f32, Avx512F32, f32, "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma");
    tiles!(avx512_f64, Avx512F64, f64, "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma");
    tiles!(avx2_f32, Avx2F32, f32, "avx2,fma");
    tiles!(avx2_f64, Avx2F64, f64, "avx2,fma");
}
