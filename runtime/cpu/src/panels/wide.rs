//! Packing and storing with masks of sixteen lanes: borders cost a comparison a vector, not a branch an element.

use std::arch::x86_64::*;
use std::ops::Range;

use super::line::{Border, Groups, Line};
use super::pack::{Along, DEPTH_STEP, Matrix};

/// Elements that the next lines are asked for ahead of use.
const AHEAD: usize = 64;

/// Whether a border is one that the code here tests.
pub(crate) fn knows(border: &Border) -> bool {
    match border {
        Border::Limit { .. } => true,
        Border::Holes { step, .. } => step.count_ones() == 1,
    }
}

/// See [`Matrix::pack`].
///
/// # Safety
/// As there; and the machine has AVX-512.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
pub(crate) unsafe fn pack(
    matrix: &Matrix,
    from: *const f32,
    at: &[i32],
    groups: Range<usize>,
    depth: Range<usize>,
    out: *mut f32,
) {
    let width = matrix.row_groups.width;
    let limits = matrix.borders.iter().all(|b| matches!(b, Border::Limit { .. }));
    let single = groups.clone().all(|g| matrix.row_groups.runs(g).len() == 1);
    // SAFETY: the caller's promise.
    unsafe {
        if matrix.along == Along::Rows && width == 16 && limits && single {
            match (groups.len(), matrix.borders.len()) {
                (1, 0) => return pack_runs::<1, 0>(matrix, from, at, groups.start, depth, out),
                (2, 0) => return pack_runs::<2, 0>(matrix, from, at, groups.start, depth, out),
                (3, 0) => return pack_runs::<3, 0>(matrix, from, at, groups.start, depth, out),
                (1, 1) => return pack_runs::<1, 1>(matrix, from, at, groups.start, depth, out),
                (2, 1) => return pack_runs::<2, 1>(matrix, from, at, groups.start, depth, out),
                (3, 1) => return pack_runs::<3, 1>(matrix, from, at, groups.start, depth, out),
                (1, 2) => return pack_runs::<1, 2>(matrix, from, at, groups.start, depth, out),
                (2, 2) => return pack_runs::<2, 2>(matrix, from, at, groups.start, depth, out),
                (3, 2) => return pack_runs::<3, 2>(matrix, from, at, groups.start, depth, out),
                _ => {}
            }
        }
        let stride = matrix.stored * groups.len();
        for (i, group) in groups.enumerate() {
            pack_group(matrix, from, at, group, depth.clone(), out.add(i * matrix.stored), stride);
        }
    }
}

/// Groups that are one run each, with `BORDERS` limits: everything about them stays in registers.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn pack_runs<const GROUPS: usize, const BORDERS: usize>(
    matrix: &Matrix,
    from: *const f32,
    at: &[i32],
    first: usize,
    depth: Range<usize>,
    out: *mut f32,
) {
    let Matrix { rows, depth: steps, borders, .. } = matrix;
    let mut valid = [0; GROUPS];
    let mut start = [from; GROUPS];
    let mut own = [[_mm512_setzero_si512(); BORDERS]; GROUPS];
    let mut extents = [_mm512_setzero_si512(); BORDERS];
    let mut coordinates: [&[i32]; BORDERS] = [&[]; BORDERS];
    for c in 0..BORDERS {
        let Border::Limit { extent } = borders[c] else { unreachable!("asked by the caller") };
        extents[c] = _mm512_set1_epi32(extent);
        coordinates[c] = &steps.coordinates[c][depth.clone()];
    }
    for g in 0..GROUPS {
        let lane = (first + g) * 16;
        valid[g] = mask(0, 16.min(rows.len - lane));
        start[g] = from.wrapping_offset(rows.offsets[lane] as isize);
        for c in 0..BORDERS {
            // SAFETY: lists have room for whole vectors.
            let part = unsafe { _mm512_loadu_si512(rows.coordinates[c].as_ptr().add(lane).cast()) };
            own[g][c] = _mm512_add_epi32(part, _mm512_set1_epi32(at[c]));
        }
    }
    let mut to = out;
    for (k, offset) in steps.offsets[depth].iter().enumerate() {
        let mut other = [_mm512_setzero_si512(); BORDERS];
        for c in 0..BORDERS {
            other[c] = _mm512_set1_epi32(coordinates[c][k]);
        }
        for g in 0..GROUPS {
            let mut inside = valid[g];
            for c in 0..BORDERS {
                inside = _mm512_mask_cmplt_epu32_mask(inside, _mm512_add_epi32(own[g][c], other[c]), extents[c]);
            }
            // SAFETY: only lanes that are inside are read; the panel has room.
            unsafe {
                let v = _mm512_maskz_loadu_ps(inside, start[g].wrapping_offset(*offset as isize));
                _mm512_storeu_ps(to.add(16 * g), v);
            }
        }
        to = to.wrapping_add(16 * GROUPS);
    }
}

/// Any group.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn pack_group(
    matrix: &Matrix,
    from: *const f32,
    at: &[i32],
    group: usize,
    depth: Range<usize>,
    out: *mut f32,
    stride: usize,
) {
    let width = matrix.row_groups.width;
    let first = group * width;
    let lanes = width.min(matrix.rows.len - first);
    let valid = mask(0, lanes);
    let Matrix { rows, depth: steps, borders, stored, .. } = matrix;
    // SAFETY: the caller's promise: masked lanes are not touched, and lists have room for whole vectors.
    unsafe {
        if matrix.along == Along::Rows {
            let vector = Lanes::new(rows, &matrix.row_groups, group, first, borders, valid);
            for (i, k) in depth.enumerate() {
                let v =
                    vector.load(from.wrapping_offset(steps.offsets[k] as isize), |c| steps.coordinates[c][k] + at[c]);
                keep(out.add(i * stride), v, *stored);
            }
            return;
        }
        let mut start = depth.start;
        while start < depth.end {
            let count = DEPTH_STEP.min(depth.end - start);
            let vector = Lanes::new(steps, &matrix.depth_groups, start / DEPTH_STEP, start, borders, mask(0, count));
            let mut block = [_mm512_setzero_ps(); 16];
            for (lane, v) in block.iter_mut().enumerate().take(lanes) {
                let row = first + lane;
                let from = from.wrapping_offset(rows.offsets[row] as isize);
                // Sixteen streams are more than the machine follows by itself.
                _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(steps.offsets[start] as usize + AHEAD).cast());
                *v = vector.load(from, |c| rows.coordinates[c][row] + at[c]);
            }
            let block = transpose(block);
            let to = out.add((start - depth.start) * stride);
            for (i, v) in block.iter().enumerate().take(count) {
                keep(to.add(i * stride), *v, *stored);
            }
            start += count;
        }
    }
}

/// Stores 16 or 8 lanes. Not by a mask: loads behind a masked store wait for it.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn keep(to: *mut f32, v: __m512, lanes: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        match lanes {
            8 => _mm256_storeu_ps(to, _mm512_castps512_ps256(v)),
            _ => _mm512_storeu_ps(to, v),
        }
    }
}

/// Bits `from..from + len`.
#[inline(always)]
fn mask(from: usize, len: usize) -> __mmask16 {
    (((1u32 << len) - 1) << from) as u16
}

/// Sixteen neighbours of one line, ready to be read at any point of the other.
struct Lanes<'a> {
    borders: &'a [Border],
    coordinates: &'a [Vec<i32>],
    first: usize,
    valid: __mmask16,
    runs: [(__mmask16, isize); Groups::MOST_RUNS],
    /// How many runs; none where lanes are gathered.
    count: usize,
    offsets: __m512i,
}

impl<'a> Lanes<'a> {
    #[inline(always)]
    unsafe fn new(
        line: &'a Line,
        groups: &Groups,
        group: usize,
        first: usize,
        borders: &'a [Border],
        valid: __mmask16,
    ) -> Self {
        let found = groups.runs(group);
        let holes = borders.iter().any(|b| matches!(b, Border::Holes { .. }));
        let count = if found.len() <= Groups::MOST_RUNS && !holes { found.len() } else { 0 };
        let mut runs = [(0, 0); Groups::MOST_RUNS];
        for (to, run) in runs.iter_mut().zip(&found[..count]) {
            *to = (mask(run.lane as usize, run.len as usize) & valid, run.offset as isize - run.lane as isize);
        }
        // SAFETY: lists have room for whole vectors.
        let offsets = unsafe { _mm512_loadu_si512(line.offsets.as_ptr().add(first).cast()) };
        Self { borders, coordinates: &line.coordinates, first, valid, runs, count, offsets }
    }
    /// Zero where it is outside.
    #[inline(always)]
    unsafe fn load(&self, from: *const f32, other: impl Fn(usize) -> i32) -> __m512 {
        // SAFETY: only lanes that are inside are read.
        unsafe {
            let (mut inside, mut offsets) = (self.valid, self.offsets);
            for (c, border) in self.borders.iter().enumerate() {
                let own = _mm512_loadu_si512(self.coordinates[c].as_ptr().add(self.first).cast());
                let sum = _mm512_add_epi32(own, _mm512_set1_epi32(other(c)));
                match *border {
                    Border::Limit { extent } => {
                        inside = _mm512_mask_cmplt_epu32_mask(inside, sum, _mm512_set1_epi32(extent));
                    }
                    Border::Holes { step, extent, stride } => {
                        inside = _mm512_mask_testn_epi32_mask(inside, sum, _mm512_set1_epi32(step - 1));
                        let shift = _mm_cvtsi32_si128(step.trailing_zeros() as i32);
                        let quotient = _mm512_srl_epi32(sum, shift);
                        inside = _mm512_mask_cmplt_epu32_mask(inside, quotient, _mm512_set1_epi32(extent));
                        let add = _mm512_mullo_epi32(quotient, _mm512_set1_epi32(stride));
                        offsets = _mm512_add_epi32(offsets, add);
                    }
                }
            }
            if self.count == 0 {
                return _mm512_mask_i32gather_ps::<4>(_mm512_setzero_ps(), inside, offsets, from);
            }
            let mut v = _mm512_maskz_loadu_ps(inside & self.runs[0].0, from.wrapping_offset(self.runs[0].1));
            for (run, offset) in &self.runs[1..self.count] {
                v = _mm512_mask_loadu_ps(v, inside & run, from.wrapping_offset(*offset));
            }
            v
        }
    }
}

/// Columns of a block, of its rows.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
pub(crate) fn transpose(rows: [__m512; 16]) -> [__m512; 16] {
    // Pairs, then quads within 128 bits, then the 128-bit pieces themselves.
    let mut a = rows;
    for i in 0..8 {
        a[2 * i] = _mm512_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
        a[2 * i + 1] = _mm512_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
    }
    let pair = |x: __m512, y: __m512, high: bool| {
        let (x, y) = (_mm512_castps_pd(x), _mm512_castps_pd(y));
        _mm512_castpd_ps(if high { _mm512_unpackhi_pd(x, y) } else { _mm512_unpacklo_pd(x, y) })
    };
    // b[4q + c]: column c of the rows 4q..4q + 4, one quad per 128 bits.
    let mut b = a;
    for q in 0..4 {
        b[4 * q] = pair(a[4 * q], a[4 * q + 2], false);
        b[4 * q + 1] = pair(a[4 * q], a[4 * q + 2], true);
        b[4 * q + 2] = pair(a[4 * q + 1], a[4 * q + 3], false);
        b[4 * q + 3] = pair(a[4 * q + 1], a[4 * q + 3], true);
    }
    let mut out = b;
    for c in 0..4 {
        let (w, x, y, z) = (b[c], b[4 + c], b[8 + c], b[12 + c]);
        let (wx_even, wx_odd) = (_mm512_shuffle_f32x4::<0x88>(w, x), _mm512_shuffle_f32x4::<0xdd>(w, x));
        let (yz_even, yz_odd) = (_mm512_shuffle_f32x4::<0x88>(y, z), _mm512_shuffle_f32x4::<0xdd>(y, z));
        out[c] = _mm512_shuffle_f32x4::<0x88>(wx_even, yz_even);
        out[8 + c] = _mm512_shuffle_f32x4::<0xdd>(wx_even, yz_even);
        out[4 + c] = _mm512_shuffle_f32x4::<0x88>(wx_odd, yz_odd);
        out[12 + c] = _mm512_shuffle_f32x4::<0xdd>(wx_odd, yz_odd);
    }
    out
}

/// Stores a vector where the rows of a group lie, or adds it to what is there.
///
/// # Safety
/// The rows lie in memory, and the machine has AVX-512.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
pub(crate) unsafe fn store(groups: &Groups, group: usize, tile: *const f32, to: *mut f32, add: bool) {
    // SAFETY: the caller's promise; masked lanes are not touched.
    unsafe {
        let v = _mm512_loadu_ps(tile);
        for run in groups.runs(group) {
            let lanes = mask(run.lane as usize, run.len as usize);
            let at = to.wrapping_offset(run.offset as isize - run.lane as isize);
            let v = if add { _mm512_add_ps(_mm512_maskz_loadu_ps(lanes, at), v) } else { v };
            _mm512_mask_storeu_ps(at, lanes, v);
        }
    }
}

/// Adds what lies in the rows of a group to a vector of a tile.
///
/// # Safety
/// As for [`store`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
pub(crate) unsafe fn add(groups: &Groups, group: usize, from: *const f32, tile: *mut f32) {
    // SAFETY: the caller's promise; masked lanes are not touched.
    unsafe {
        let mut v = _mm512_loadu_ps(tile);
        for run in groups.runs(group) {
            let lanes = mask(run.lane as usize, run.len as usize);
            let there = _mm512_maskz_loadu_ps(lanes, from.wrapping_offset(run.offset as isize - run.lane as isize));
            v = _mm512_mask_add_ps(v, lanes, there, v);
        }
        _mm512_storeu_ps(tile, v);
    }
}
