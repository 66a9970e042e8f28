//! Attention of some panels of queries to all the keys they see, block by block (Dao et al., *FlashAttention*, 2022; the
//! running maximum is Milakov and Gimelshein's, *Online normalizer calculation for softmax*, 2018). A query stays in its
//! lane: scores are `[key][query]`, so that weights are what the product with the values takes, as they are.

use std::ops::Range;

use super::element::{Element, Softening, Turn};
use super::product::Product;
use super::{BLOCK, Buffers, Lie, PANELS, TileAttention, aligned};
use crate::finite;
use crate::lanes::math::Float;
use crate::panels::micro::Columns;

/// One group's buffers, for one panel at a time; and which queries are in them.
#[derive(Clone, Copy)]
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
    first: usize,
    count: usize,
    lanes: usize,
}

impl TileAttention {
    /// What all panels share: keys and values of a block, weights, factors.
    fn shared_sizes(&self) -> [usize; 4] {
        let lanes = self.lanes();
        [self.features * BLOCK, self.values * BLOCK, BLOCK * lanes, lanes].map(aligned)
    }
    /// What each panel has: queries, out, tops, sums.
    fn panel_sizes(&self) -> [usize; 4] {
        let lanes = self.lanes();
        [self.features * lanes, self.values * lanes, lanes, lanes].map(aligned)
    }
    pub(super) fn forward_elements(&self) -> usize {
        self.shared_sizes().iter().sum::<usize>() + PANELS * self.panel_sizes().iter().sum::<usize>()
    }

    /// Some panels of queries of one part.
    ///
    /// # Safety
    /// See `CompiledKernel::run`; `own` is this group's buffer.
    pub(super) unsafe fn forward<T: Element>(&self, buffers: Buffers<T>, own: *mut T, part: usize, task: usize) {
        let mut next = own;
        let mut take = |size: usize| {
            let at = next;
            next = next.wrapping_add(size);
            at
        };
        let [key_block, value_block, weights, factors] = self.shared_sizes().map(&mut take);
        let buffers_of_panels: [_; PANELS] = std::array::from_fn(|_| self.panel_sizes().map(&mut take));
        let [query, key, value] = [0, 1, 2].map(|k| self.operand(&buffers, k, part));
        let panels = (task * PANELS..self.panels().min((task + 1) * PANELS)).zip(buffers_of_panels);
        let panels = panels.map(|(panel, [queries, out, tops, sums])| {
            let first = panel * self.lanes();
            let count = self.lanes().min(self.queries - first);
            let lanes = count.next_multiple_of(self.width.lanes);
            Own { queries, weights, out, tops, sums, factors, first, count, lanes }
        });
        // SAFETY: buffers have room for whole panels; rows below `count` and keys below `seen` are there.
        unsafe {
            for own in panels.clone() {
                let Own { first, count, lanes, .. } = own;
                self.pack(query, first, count, lanes, self.features, self.scale, own.queries);
                std::slice::from_raw_parts_mut(own.tops, lanes).fill(T::LOWEST);
                std::slice::from_raw_parts_mut(own.sums, lanes).fill(T::default());
                std::slice::from_raw_parts_mut(own.out, self.values * lanes).fill(T::default());
            }
            let seen = |own: &Own<T>| self.seen(own.first + own.count - 1);
            let keys = panels.clone().map(|own| seen(&own)).max().unwrap_or(0);
            for start in (0..keys).step_by(BLOCK) {
                let block = start..keys.min(start + BLOCK);
                let block_keys = Self::gather(key, block.clone(), self.features, key_block);
                let block_values = Self::gather(value, block.clone(), self.values, value_block);
                for own in panels.clone().filter(|own| seen(own) > start) {
                    let block = start..seen(&own).min(block.end);
                    self.weigh(&own, block_keys, block.clone());
                    self.add_values(&own, block_values, block);
                }
            }
            panels.for_each(|own| self.put(&own, &buffers, part));
        }
    }

    /// Weights of a block of keys, and what they make of maxima and sums.
    unsafe fn weigh<T: Element>(&self, own: &Own<T>, keys: Lie<*const T>, block: Range<usize>) {
        let &Own { lanes, weights, tops, sums, factors, .. } = own;
        let columns = Columns { at: keys.at, column: keys.stride as isize, depth: 1 };
        let vectors = lanes / self.width.lanes;
        let scores = Product { depth: self.features, panel: own.queries, vectors, columns, count: block.len() };
        let (run, keys) = (self.width.lanes, block.len());
        // SAFETY: the caller's promise.
        unsafe {
            scores.write(self.width, weights);
            for (i, key) in block.enumerate() {
                let hidden = self.hidden(own.first, key).min(lanes);
                std::slice::from_raw_parts_mut(weights.add(i * lanes), hidden).fill(T::LOWEST);
            }
            T::soften(self.width.isa, Softening { run, lanes, keys, scores: weights, tops, sums, factors });
        }
    }

    /// How many of the queries from `first` on do not see `key`: the first ones.
    fn hidden(&self, first: usize, key: usize) -> usize {
        if self.causal { key.saturating_sub(first + self.ahead()) } else { 0 }
    }

    /// `out = out · factors + values · weights` over a block of keys.
    unsafe fn add_values<T: Element>(&self, own: &Own<T>, values: Lie<*const T>, block: Range<usize>) {
        let &Own { lanes, weights, out, .. } = own;
        let vectors = lanes / self.width.lanes;
        let hidden = |i: usize| self.hidden(own.first, block.start + i);
        // A weight of zero keeps a value away only if that is finite.
        let whole = (0..block.len()).find(|i| hidden(*i) > 0).unwrap_or(block.len());
        // SAFETY: the caller's promise.
        unsafe {
            let finite = self.is_finite(values, whole..block.len(), self.values);
            let depth = if finite { block.len() } else { whole };
            let columns = Columns { at: values.at, column: 1, depth: values.stride as isize };
            let product = Product { depth, panel: weights, vectors, columns, count: self.values };
            product.add(self.width, out, lanes, lanes, Some(own.factors));
            for i in depth..block.len() {
                for feature in 0..self.values {
                    let x = *values.row(i).add(feature);
                    for lane in hidden(i)..lanes {
                        let to = out.add(feature * lanes + lane);
                        *to = *to + *weights.add(i * lanes + lane) * x;
                    }
                }
            }
        }
    }

    /// Divides by the sums, and writes the rows.
    unsafe fn put<T: Element>(&self, own: &Own<T>, buffers: &Buffers<T>, part: usize) {
        let &Own { first, count, lanes, .. } = own;
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
            let (from, to) = (own.out.cast_const(), out.row(first));
            let (rows, columns, by) = (self.values, count, T::of(1.0));
            let turn = Turn { rows, columns, from, from_stride: lanes, to, to_stride: out.stride, by };
            T::turn(self.width.isa, turn);
        }
    }

    /// Whether some rows hold neither infinities nor NaN.
    ///
    /// # Safety
    /// The rows are there.
    pub(super) unsafe fn is_finite<T: Element>(&self, of: Lie<*const T>, rows: Range<usize>, columns: usize) -> bool {
        let (from, rows) = (of.row(rows.start).cast(), rows.len());
        // SAFETY: the caller's promise.
        unsafe {
            finite::all(self.width.isa, finite::Rows { dtype: self.dtype, from, rows, columns, stride: of.stride })
        }
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
