//! Attention of one panel of queries to all the keys they see, block by block (Dao et al., *FlashAttention*, 2022; the
//! running maximum is Milakov and Gimelshein's, *Online normalizer calculation for softmax*, 2018). A query stays in its
//! lane: scores are `[key][query]`, so that weights are what the product with the values takes, as they are.

use std::ops::Range;

use super::element::{Element, Looking, Softening, Turn};
use super::product::Product;
use super::{BLOCK, Buffers, Lie, TileAttention, aligned};
use crate::lanes::math::Float;
use crate::panels::micro::Columns;

/// One group's buffers.
struct Own<T> {
    /// Queries, `[feature][lane]`, scaled.
    queries: *mut T,
    /// Scores of a block, then its weights: `[key][lane]`.
    weights: *mut T,
    /// `[feature][lane]`, not yet divided by the sum of weights.
    out: *mut T,
    tops: *mut T,
    sums: *mut T,
    factors: *mut T,
}

impl TileAttention {
    fn forward_sizes(&self) -> [usize; 6] {
        let lanes = self.lanes();
        [self.features * lanes, BLOCK * lanes, self.values * lanes, lanes, lanes, lanes].map(aligned)
    }
    pub(super) fn forward_elements(&self) -> usize {
        self.forward_sizes().iter().sum()
    }

    /// One panel of queries of one part.
    ///
    /// # Safety
    /// See `CompiledKernel::run`; `own` is this group's buffer.
    pub(super) unsafe fn forward<T: Element>(&self, buffers: Buffers<T>, own: *mut T, part: usize, panel: usize) {
        let lanes = self.lanes();
        let first = panel * lanes;
        let count = lanes.min(self.queries - first);
        let mut next = own;
        let [queries, weights, out, tops, sums, factors] = self.forward_sizes().map(|size| {
            let at = next;
            next = next.wrapping_add(size);
            at
        });
        let own = Own { queries, weights, out, tops, sums, factors };
        let [query, key, value] = [0, 1, 2].map(|k| self.operand(&buffers, k, part));
        let vectors = count.div_ceil(self.width.lanes);
        let lanes = vectors * self.width.lanes;
        // SAFETY: buffers have room for a whole panel; rows below `count` and columns below `seen` are there.
        unsafe {
            self.pack(query, first, count, lanes, self.features, self.scale, own.queries);
            std::slice::from_raw_parts_mut(own.tops, lanes).fill(T::LOWEST);
            std::slice::from_raw_parts_mut(own.sums, lanes).fill(T::default());
            std::slice::from_raw_parts_mut(own.out, self.values * lanes).fill(T::default());
            let keys = self.seen(first + count - 1);
            for block in (0..keys).step_by(BLOCK) {
                let block = block..keys.min(block + BLOCK);
                let at = Columns { at: key.row(block.start), column: key.stride as isize, depth: 1 };
                let scores =
                    Product { depth: self.features, panel: own.queries, vectors, columns: at, count: block.len() };
                scores.write(self.width, own.weights);
                for key in block.clone() {
                    let hidden = self.hidden(first, key).min(lanes);
                    std::slice::from_raw_parts_mut(own.weights.add((key - block.start) * lanes), hidden)
                        .fill(T::LOWEST);
                }
                T::soften(
                    self.width.isa,
                    Softening {
                        run: self.width.lanes,
                        lanes,
                        keys: block.len(),
                        scores: own.weights,
                        tops: own.tops,
                        sums: own.sums,
                        factors: own.factors,
                    },
                );
                self.add_values(&own, value, first, lanes, block);
            }
            self.put(&own, &buffers, part, first, count, lanes);
        }
    }

    /// How many of the queries from `first` on do not see `key`: the first ones.
    fn hidden(&self, first: usize, key: usize) -> usize {
        if self.causal { key.saturating_sub(first + self.ahead()) } else { 0 }
    }

    /// `out = out · factors + values · weights` over a block of keys.
    unsafe fn add_values<T: Element>(
        &self,
        own: &Own<T>,
        value: Lie<*const T>,
        first: usize,
        lanes: usize,
        block: Range<usize>,
    ) {
        let vectors = lanes / self.width.lanes;
        // A weight of zero keeps a value away only if that is finite.
        let whole = block.clone().find(|key| self.hidden(first, *key) > 0).unwrap_or(block.end);
        // SAFETY: the caller's promise.
        unsafe {
            let safe = if self.is_finite(value, whole..block.end, self.values) { block.end } else { whole };
            let columns = Columns { at: value.row(block.start), column: 1, depth: value.stride as isize };
            let depth = safe - block.start;
            let product = Product { depth, panel: own.weights, vectors, columns, count: self.values };
            product.add(self.width, own.out, lanes, lanes, Some(own.factors));
            for key in safe..block.end {
                for feature in 0..self.values {
                    let x = *value.row(key).add(feature);
                    for lane in self.hidden(first, key)..lanes {
                        let to = own.out.add(feature * lanes + lane);
                        *to = *to + *own.weights.add((key - block.start) * lanes + lane) * x;
                    }
                }
            }
        }
    }

    /// Divides by the sums, and writes the rows.
    unsafe fn put<T: Element>(
        &self,
        own: &Own<T>,
        buffers: &Buffers<T>,
        part: usize,
        first: usize,
        count: usize,
        lanes: usize,
    ) {
        let (out, logsumexp) = (self.result(buffers, 0, part), self.result(buffers, 1, part));
        // SAFETY: the caller's promise.
        unsafe {
            for lane in 0..count {
                let (top, sum) = (*own.tops.add(lane), *own.sums.add(lane));
                let base = if top == T::LOWEST { T::default() } else { top };
                *logsumexp.row(first + lane) = base + Float::log(sum);
                *own.factors.add(lane) = if sum == T::default() { T::default() } else { T::of(1.0) / sum };
            }
            for feature in 0..self.values {
                let row = std::slice::from_raw_parts_mut(own.out.add(feature * lanes), count);
                for (lane, x) in row.iter_mut().enumerate() {
                    // What saw nothing is zero, whatever the values are.
                    let by = *own.factors.add(lane);
                    *x = if by == T::default() { by } else { *x * by };
                }
            }
            let turn = Turn {
                rows: self.values,
                columns: count,
                from: own.out.cast_const(),
                from_stride: lanes,
                to: out.row(first),
                to_stride: out.stride,
                by: T::of(1.0),
            };
            T::turn(self.width.isa, turn);
        }
    }

    /// Whether some rows hold neither infinities nor NaN.
    ///
    /// # Safety
    /// The rows are there.
    pub(super) unsafe fn is_finite<T: Element>(&self, of: Lie<*const T>, rows: Range<usize>, columns: usize) -> bool {
        let block = Looking { rows: rows.len(), columns, from: of.row(rows.start), stride: of.stride };
        // SAFETY: the caller's promise.
        unsafe { T::is_finite(self.width.isa, block) }
    }

    /// `to[feature][lane]`: `count` rows from `first` on, times `by`; lanes beyond them are zero.
    ///
    /// # Safety
    /// The rows are there, and `to` has room for `features` times `lanes`.
    #[allow(clippy::too_many_arguments)] // Each is a number of its own.
    pub(super) unsafe fn pack<T: Element>(
        &self,
        from: Lie<*const T>,
        first: usize,
        count: usize,
        lanes: usize,
        features: usize,
        by: f64,
        to: *mut T,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            let (at, stride) = (from.row(first), from.stride);
            let turn = Turn {
                rows: count,
                columns: features,
                from: at,
                from_stride: stride,
                to,
                to_stride: lanes,
                by: T::of(by),
            };
            T::turn(self.width.isa, turn);
            for feature in 0..features {
                std::slice::from_raw_parts_mut(to.add(feature * lanes + count), lanes - count).fill(T::default());
            }
        }
    }
}
