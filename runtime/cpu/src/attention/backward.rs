//! The gradient of attention, of some panels of keys: each meets the queries that see it, block by block, and finds the weights
//! again from their logsumexp. A key stays in its lane, so that weights and cotangents of scores, `[query][key]`, are what
//! the products for keys and values take as they are; the product for the queries goes along the lanes.

use std::ops::Range;

use super::element::{Addition, Cotangents, Element, Turn};
use super::product::Product;
use super::{BLOCK, Buffers, Lie, PANELS, TileAttention, aligned};
use crate::panels::micro::{Columns, MOST_VECTORS};

/// One group's buffers, for one panel at a time; and which keys are in them.
#[derive(Clone, Copy)]
struct Own<T> {
    /// Keys and values of the panel, `[feature][lane]`; keys are scaled.
    keys: *mut T,
    values: *mut T,
    /// Keys `[key][feature]`, scaled, in panels of a few vectors of features.
    key_rows: *mut T,
    /// Of a block: `[query][lane]`.
    weights: *mut T,
    d_scores: *mut T,
    /// Sums over queries, `[feature][lane]`.
    d_keys: *mut T,
    d_values: *mut T,
    first: usize,
    count: usize,
    lanes: usize,
}

/// A block of queries, and what goes with them: row 0 is that of query `first`.
struct Block<T> {
    first: usize,
    count: usize,
    query: Lie<*const T>,
    d_out: Lie<*const T>,
    logsumexp: Lie<*const T>,
    delta: Lie<*const T>,
    /// Where this task's share of the queries' cotangents is summed.
    d_query: Lie<*mut T>,
}

impl TileAttention {
    /// Vectors of features.
    fn feature_vectors(&self) -> usize {
        self.features.div_ceil(self.width.lanes)
    }
    /// Panels of features, as vectors.
    fn feature_panels(&self) -> impl Iterator<Item = Range<usize>> {
        let (vectors, panels) = (self.feature_vectors(), self.feature_vectors().div_ceil(MOST_VECTORS));
        (0..panels).map(move |k| vectors * k / panels..vectors * (k + 1) / panels)
    }
    /// What all panels share: queries and their cotangents of a block, weights, cotangents of scores.
    fn block_sizes(&self) -> [usize; 4] {
        [self.features, self.values, self.lanes(), self.lanes()].map(|n| aligned(n * BLOCK))
    }
    /// What each panel has: keys, values, keys by rows, cotangents of keys and of values.
    fn sums_sizes(&self) -> [usize; 5] {
        let rows = self.feature_vectors() * self.width.lanes;
        [self.features, self.values, rows, self.features, self.values].map(|n| aligned(n * self.lanes()))
    }
    pub(super) fn backward_elements(&self) -> usize {
        self.block_sizes().iter().sum::<usize>() + PANELS * self.sums_sizes().iter().sum::<usize>()
    }

    /// Some panels of keys of one part.
    ///
    /// # Safety
    /// See `CompiledKernel::run`; `own` is this group's buffer.
    pub(super) unsafe fn backward<T: Element>(&self, buffers: Buffers<T>, own: *mut T, part: usize, cut: usize) {
        let [query, key, value, d_out, logsumexp, delta] = [0, 1, 2, 3, 4, 5].map(|k| self.operand(&buffers, k, part));
        let d_query = if cut == 0 { self.result(&buffers, 0, part) } else { self.partial(&buffers, part, cut) };
        let mut next = own;
        let mut take = |size: usize| {
            let at = next;
            next = next.wrapping_add(size);
            at
        };
        let [query_block, d_out_block, weights, d_scores] = self.block_sizes().map(&mut take);
        let buffers_of_panels: [_; PANELS] = std::array::from_fn(|_| self.sums_sizes().map(&mut take));
        let all = self.panels() * cut / self.cuts..self.panels() * (cut + 1) / self.cuts;
        // SAFETY: the caller's promise; this task alone writes these rows.
        unsafe {
            for query in 0..self.queries {
                std::slice::from_raw_parts_mut(d_query.row(query), self.features).fill(T::default());
            }
            for start in all.clone().step_by(PANELS) {
                let panels = (start..all.end.min(start + PANELS)).zip(buffers_of_panels);
                let panels = panels.map(|(panel, [keys, values, key_rows, d_keys, d_values])| {
                    let first = panel * self.lanes();
                    let count = self.lanes().min(self.keys - first);
                    let lanes = count.next_multiple_of(self.width.lanes);
                    Own { keys, values, key_rows, weights, d_scores, d_keys, d_values, first, count, lanes }
                });
                panels.clone().for_each(|own| self.pack_keys(key, value, &own));
                let seen_from = |own: &Own<T>| if self.causal { own.first.saturating_sub(self.ahead()) } else { 0 };
                let from = panels.clone().map(|own| seen_from(&own)).min().unwrap_or(0);
                for first in (from..self.queries).step_by(BLOCK) {
                    let block = first..self.queries.min(first + BLOCK);
                    let query = Self::gather(query, block.clone(), self.features, query_block);
                    let d_out = Self::gather(d_out, block.clone(), self.values, d_out_block);
                    for own in panels.clone().filter(|own| seen_from(own) < block.end) {
                        let skip = seen_from(&own).saturating_sub(first);
                        let rows = Block {
                            first: first + skip,
                            count: block.len() - skip,
                            query: query.from(skip),
                            d_out: d_out.from(skip),
                            logsumexp: logsumexp.from(first + skip),
                            delta: delta.from(first + skip),
                            d_query: d_query.from(first + skip),
                        };
                        self.meet(&rows, key, &own);
                    }
                }
                panels.for_each(|own| self.put_keys(&own, &buffers, part));
            }
        }
    }

    fn partial<T>(&self, buffers: &Buffers<T>, part: usize, cut: usize) -> Lie<*mut T> {
        let at = self.layout.partials + (part * (self.cuts - 1) + cut - 1) * self.layout.partial;
        Lie { at: buffers.workspace.wrapping_add(at), stride: self.features }
    }
    /// Adds what all cuts have found for the queries, in order.
    ///
    /// # Safety
    /// All cuts of the part are done.
    pub(super) unsafe fn combine<T: Element>(&self, buffers: Buffers<T>, part: usize) {
        let to = self.result(&buffers, 0, part);
        for cut in 1..self.cuts {
            let from = self.partial(&buffers, part, cut);
            let sum = Addition {
                rows: self.queries,
                columns: self.features,
                from: from.at.cast_const(),
                from_stride: from.stride,
                to: to.at,
                to_stride: to.stride,
                factors: None,
            };
            // SAFETY: the caller's promise.
            unsafe { T::add_rows(self.width.isa, sum) };
        }
    }

    unsafe fn pack_keys<T: Element>(&self, key: Lie<*const T>, value: Lie<*const T>, own: &Own<T>) {
        let &Own { first, count, lanes, .. } = own;
        // SAFETY: buffers have room for a whole panel.
        unsafe {
            self.pack(key, first, count, lanes, self.features, self.scale, own.keys);
            self.pack(value, first, count, lanes, self.values, 1.0, own.values);
            for vectors in self.feature_panels() {
                let (start, wide) = (vectors.start * self.width.lanes, vectors.len() * self.width.lanes);
                let panel = own.key_rows.add(start * lanes);
                let there = wide.min(self.features - start);
                for row in 0..count {
                    let to = std::slice::from_raw_parts_mut(panel.add(row * wide), wide);
                    let from = std::slice::from_raw_parts(key.row(first + row).add(start), there);
                    to.iter_mut().zip(from).for_each(|(to, x)| *to = *x * T::of(self.scale));
                    to[there..].fill(T::default());
                }
            }
            std::slice::from_raw_parts_mut(own.d_keys, self.features * lanes).fill(T::default());
            std::slice::from_raw_parts_mut(own.d_values, self.values * lanes).fill(T::default());
        }
    }

    /// One block of queries and one panel of keys.
    unsafe fn meet<T: Element>(&self, block: &Block<T>, key: Lie<*const T>, own: &Own<T>) {
        let &Own { lanes, weights, d_scores, .. } = own;
        let (width, vectors, count) = (self.width, lanes / self.width.lanes, block.count);
        let along = |lie: Lie<*const T>| Columns { at: lie.at, column: lie.stride as isize, depth: 1 };
        let across = |lie: Lie<*const T>| Columns { at: lie.at, column: 1, depth: lie.stride as isize };
        let of_lanes = |panel: *mut T, depth, columns, count| Product { depth, panel, vectors, columns, count };
        // SAFETY: the caller's promise.
        unsafe {
            of_lanes(own.keys, self.features, along(block.query), count).write(width, weights);
            of_lanes(own.values, self.values, along(block.d_out), count).write(width, d_scores);
            let (logsumexp, delta, stride) = (block.logsumexp.at, block.delta.at, block.delta.stride);
            let (run, queries) = (width.lanes, count);
            T::cotangents(width.isa, Cotangents { run, lanes, queries, weights, d_scores, logsumexp, delta, stride });
            for query in 0..count {
                let seen = self.seen_of(own, block.first + query);
                for of in [weights, d_scores] {
                    std::slice::from_raw_parts_mut(of.add(query * lanes + seen), lanes - seen).fill(T::default());
                }
            }
            // A weight of zero keeps a row away only if that is finite.
            let whole = self.seen_of(own, block.first) == own.count;
            let safe = whole
                || self.is_finite(block.query, 0..count, self.features)
                    && self.is_finite(block.d_out, 0..count, self.values)
                    && self.is_finite(key, own.first..own.first + own.count, self.features);
            if !safe {
                return self.meet_pair_by_pair(block, key, own);
            }
            of_lanes(weights, count, across(block.d_out), self.values).add(width, own.d_values, lanes, lanes, None);
            of_lanes(d_scores, count, across(block.query), self.features).add(width, own.d_keys, lanes, lanes, None);
            let columns = Columns { at: d_scores.cast_const(), column: lanes as isize, depth: 1 };
            for vectors in self.feature_panels() {
                let start = vectors.start * width.lanes;
                let there = (vectors.len() * width.lanes).min(self.features - start);
                let panel = own.key_rows.add(start * lanes);
                let product = Product { depth: own.count, panel, vectors: vectors.len(), columns, count };
                product.add(width, block.d_query.at.add(start), block.d_query.stride, there, None);
            }
        }
    }

    /// How many keys of the panel `query` sees: the first ones.
    fn seen_of<T>(&self, own: &Own<T>, query: usize) -> usize {
        self.seen(query).saturating_sub(own.first).min(own.count)
    }

    /// The same sums, over those pairs alone that see each other.
    unsafe fn meet_pair_by_pair<T: Element>(&self, block: &Block<T>, key: Lie<*const T>, own: &Own<T>) {
        for query in 0..block.count {
            for lane in 0..self.seen_of(own, block.first + query) {
                // SAFETY: the caller's promise.
                unsafe {
                    let at = query * own.lanes + lane;
                    let (weight, d_score) = (*own.weights.add(at), *own.d_scores.add(at));
                    for feature in 0..self.values {
                        let sum = own.d_values.add(feature * own.lanes + lane);
                        *sum = *sum + weight * *block.d_out.row(query).add(feature);
                    }
                    for feature in 0..self.features {
                        let sum = own.d_keys.add(feature * own.lanes + lane);
                        *sum = *sum + d_score * *block.query.row(query).add(feature);
                        let sum = block.d_query.row(query).add(feature);
                        *sum = *sum + d_score * (*key.row(own.first + lane).add(feature) * T::of(self.scale));
                    }
                }
            }
        }
    }

    /// Writes the rows of the panel's keys and values.
    unsafe fn put_keys<T: Element>(&self, own: &Own<T>, buffers: &Buffers<T>, part: usize) {
        let put = |from: *mut T, features: usize, to: Lie<*mut T>, by: f64| Turn {
            rows: features,
            columns: own.count,
            from: from.cast_const(),
            from_stride: own.lanes,
            to: to.row(own.first),
            to_stride: to.stride,
            by: T::of(by),
        };
        // SAFETY: the caller's promise; this task alone writes these rows.
        unsafe {
            let keys = put(own.d_keys, self.features, self.result(buffers, 1, part), self.scale);
            T::turn(self.width.isa, keys);
            T::turn(self.width.isa, put(own.d_values, self.values, self.result(buffers, 2, part), 1.0));
        }
    }
}
