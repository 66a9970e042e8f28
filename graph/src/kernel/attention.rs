//! Attention and its gradient, which are no loop nests: a query's weights are folded over the keys twice, for their sum and
//! for the values, and nobody wants to keep them. As kernels of their own they let a device go through the keys block by
//! block, so that no matrix of queries by keys is ever in memory.

use serde::{Deserialize, Serialize};

use super::BufferType;
use super::cost::Cost;
use super::interpret::{Number, Precision, Values, max_nan, round};
use super::scalar::Literal;
use crate::types::DType;

/// `out = softmax(scale · query · keyᵀ) · value`, or the gradient of that: [`Kernel`](super::Kernel) says which.
///
/// One axis of the operands counts rows (queries; keys and values), the last one features; all others (batch, heads) are
/// parted, and alike in all operands. Axes may stand in either order, so that heads side by side in one row need no
/// transpose: `[batch, heads, time, features]` with `rows` 2, `[batch, time, heads, features]` with `rows` 1.
///
/// | | operands | results |
/// |---|---|---|
/// | attention | query, key, value | out, logsumexp |
/// | its gradient | query, key, value, d_out, logsumexp, delta | d_query, d_key, d_value |
///
/// Of each query, `logsumexp` is `ln Σⱼ exp(scale · query · keyⱼ)`; it and `delta` have no axis of features. `delta` is
/// `Σ out · d_out`, less the cotangent of `logsumexp`: with weights `p = exp(s − logsumexp)`, the cotangent of a score `s` is
/// `p · (d_out · valueᵀ − delta)`. What has no keys is zero, and its `logsumexp` −∞. All arithmetic is in the type of
/// `logsumexp`, f32 or f64.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Attention {
    /// Types of the operands.
    pub operands: Vec<BufferType>,
    /// Types of the results.
    pub results: Vec<BufferType>,
    /// The axis of rows.
    pub rows: u16,
    /// Whether a query sees only some keys: the last query all of them, and each one before it one key less. What it does
    /// not see does not reach it, not even as 0 · ∞.
    pub causal: bool,
    /// What scores are multiplied by: a float.
    pub scale: Literal,
}

/// Where the rows of one operand or result lie, part by part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rows {
    /// How many rows.
    pub count: usize,
    /// Elements of a row, side by side.
    pub columns: usize,
    /// Parts whose rows are interleaved.
    interleaved: usize,
}

impl Rows {
    /// Elements from a row to the next one of the same part.
    pub fn stride(&self) -> usize {
        self.interleaved * self.columns
    }
    /// The first element of a part's first row.
    pub fn start(&self, part: usize) -> usize {
        let (outer, inner) = (part / self.interleaved.max(1), part % self.interleaved.max(1));
        outer * self.count * self.stride() + inner * self.columns
    }
    /// The first element of a row.
    pub fn at(&self, part: usize, row: usize) -> usize {
        self.start(part) + row * self.stride()
    }
}

/// Operands of the gradient beyond query, key and value, by position.
const D_OUT: usize = 3;
const LOGSUMEXP: usize = 4;
const DELTA: usize = 5;

impl Attention {
    /// The type in which attention over `dtype` computes, and of its `logsumexp`.
    pub fn accumulator(dtype: DType) -> DType {
        if dtype == DType::F64 { DType::F64 } else { DType::F32 }
    }
    /// Where the rows of a matrix (query, key, value, out and their cotangents) lie.
    pub fn matrix(&self, ty: &BufferType) -> Rows {
        let (columns, before) = ty.shape.split_last().map_or((1, &[][..]), |(c, b)| (*c as usize, b));
        Rows { columns, ..self.vector(before) }
    }
    /// Where one number per row (`logsumexp`, `delta`) lies.
    pub fn numbers(&self, ty: &BufferType) -> Rows {
        self.vector(&ty.shape)
    }
    fn vector(&self, shape: &[u64]) -> Rows {
        let rows = usize::from(self.rows);
        let interleaved = shape[rows + 1..].iter().product::<u64>() as usize;
        Rows { count: shape[rows] as usize, columns: 1, interleaved }
    }
    /// How many parts: pairs of an example and a head.
    pub fn parts(&self) -> usize {
        let query = &self.operands[0].shape;
        let apart = query[..query.len() - 1].iter().enumerate().filter(|(axis, _)| *axis != usize::from(self.rows));
        apart.map(|(_, extent)| *extent).product::<u64>() as usize
    }
    /// How many keys query `query` sees.
    pub fn seen(&self, query: usize) -> usize {
        let (queries, keys) = (self.matrix(&self.operands[0]).count, self.matrix(&self.operands[1]).count);
        if self.causal { query + 1 + keys - queries } else { keys }
    }
    /// The factor of scores.
    pub fn scale(&self) -> f64 {
        self.scale.as_f64()
    }

    /// Everything that is wrong with it as attention or as its gradient; sizes have been looked at.
    pub(super) fn verify(&self, gradient: bool) -> Vec<String> {
        let mut faults = Vec::new();
        let (operands, results) = if gradient { (6, 3) } else { (3, 2) };
        if (self.operands.len(), self.results.len()) != (operands, results) {
            faults.push(format!("takes {operands} operands and gives {results} results"));
            return faults;
        }
        let [query, key, value] = [0, 1, 2].map(|k| &self.operands[k]);
        let (rank, rows) = (query.rank(), usize::from(self.rows));
        if [query, key, value].iter().any(|t| t.rank() != rank) || rows + 2 > rank {
            faults.push(format!("rows on axis {rows}, and features behind it, of {query}, {key} and {value}"));
            return faults;
        }
        if !query.dtype.is_float() || [key, value].iter().any(|t| t.dtype != query.dtype) {
            faults.push(format!("needs three of one float type, got {query}, {key} and {value}"));
        }
        let apart = |t: &BufferType| (0..rank - 1).filter(|a| *a != rows).map(|a| t.shape[a]).collect::<Vec<_>>();
        if apart(query) != apart(key) || apart(query) != apart(value) {
            faults.push(format!("parts differ: {query}, {key} and {value}"));
        }
        if query.shape[rank - 1] != key.shape[rank - 1] || key.shape[rows] != value.shape[rows] {
            faults.push(format!("queries {query} do not fit keys {key}, or these values {value}"));
        }
        if self.causal && query.shape[rows] > key.shape[rows] {
            faults.push(format!("{} queries in order and only {} keys", query.shape[rows], key.shape[rows]));
        }
        if !matches!(self.scale, Literal::Float(x) if x.is_finite()) {
            faults.push("the scale is no finite float".into());
        }
        let out = with_last(query, query.dtype, value.shape.last().copied());
        let numbers = with_last(query, Self::accumulator(query.dtype), None);
        let mut want = |what: &str, have: &BufferType, want: &BufferType| {
            if have != want {
                faults.push(format!("{what} is {have}, should be {want}"));
            }
        };
        if gradient {
            want("d_out", &self.operands[D_OUT], &out);
            want("logsumexp", &self.operands[LOGSUMEXP], &numbers);
            want("delta", &self.operands[DELTA], &numbers);
            ["d_query", "d_key", "d_value"].iter().enumerate().for_each(|(k, what)| {
                want(what, &self.results[k], &self.operands[k]);
            });
        } else {
            want("out", &self.results[0], &out);
            want("logsumexp", &self.results[1], &numbers);
        }
        faults
    }

    /// What it costs: products, and a few operations for each weight. No weight is written.
    pub(super) fn cost(&self, gradient: bool) -> Cost {
        let bytes = |b: &[BufferType]| b.iter().map(|b| b.size_bytes() as f64).sum();
        let [query, key, value] = [0, 1, 2].map(|k| self.matrix(&self.operands[k]));
        let (queries, keys) = (query.count as f64, key.count as f64);
        let unseen = if self.causal { queries * (queries - 1.0) / 2.0 } else { 0.0 };
        let pairs = self.parts() as f64 * (queries * keys - unseen).max(0.0);
        let (features, width) = (query.columns as f64, value.columns as f64);
        let each = if gradient { 6.0 * features + 4.0 * width + 5.0 } else { 2.0 * features + 2.0 * width + 5.0 };
        Cost { flops: pairs * each, bytes_read: bytes(&self.operands), bytes_written: bytes(&self.results) }
    }

    /// What it means: one query after the other, and every operation rounded.
    pub(super) fn run(&self, gradient: bool, operands: &[&Values], precision: Precision) -> Vec<Values> {
        let zeros = |ty: &BufferType| Values { ty: ty.clone(), data: vec![Number::Float(0.0); ty.len()] };
        let mut results: Vec<Values> = self.results.iter().map(zeros).collect();
        let queries = self.matrix(&self.operands[0]).count;
        for part in 0..self.parts() {
            for query in 0..queries {
                let row = OneQuery { attention: self, operands, precision, part, query };
                if gradient { row.backward(&mut results) } else { row.forward(&mut results) }
            }
        }
        if gradient {
            let last = OneQuery { attention: self, operands, precision, part: 0, query: 0 };
            let scaled = results[..2].iter_mut().flat_map(|r| &mut r.data);
            scaled.for_each(|x| *x = Number::Float(last.keep(x.f64() * self.scale())));
        }
        for result in &mut results {
            let dtype = result.ty.dtype;
            result.data.iter_mut().for_each(|x| *x = round(*x, dtype, precision));
        }
        results
    }
}

/// `ty` in `dtype`, with another last extent or none.
fn with_last(ty: &BufferType, dtype: DType, last: Option<u64>) -> BufferType {
    let shape = ty.shape[..ty.rank() - 1].iter().copied().chain(last).collect();
    BufferType { dtype, shape }
}

/// One query of one part.
struct OneQuery<'a> {
    attention: &'a Attention,
    operands: &'a [&'a Values],
    precision: Precision,
    part: usize,
    query: usize,
}

impl OneQuery<'_> {
    fn keep(&self, x: f64) -> f64 {
        let dtype = Attention::accumulator(self.attention.operands[0].dtype);
        round(Number::Float(x), dtype, self.precision).f64()
    }
    /// Where row `row` of a matrix begins.
    fn at(&self, ty: &BufferType, row: usize) -> usize {
        self.attention.matrix(ty).at(self.part, row)
    }
    fn row(&self, operand: usize, row: usize) -> &[Number] {
        let values = self.operands[operand];
        let start = self.at(&values.ty, row);
        &values.data[start..start + self.attention.matrix(&values.ty).columns]
    }
    fn number(&self, operand: usize) -> f64 {
        let values = self.operands[operand];
        values.data[self.attention.numbers(&values.ty).at(self.part, self.query)].f64()
    }
    fn dot(&self, a: &[Number], b: &[Number]) -> f64 {
        a.iter().zip(b).fold(0.0, |sum, (a, b)| self.keep(sum + self.keep(a.f64() * b.f64())))
    }
    /// `to += factor · from`, for row `row` of a result.
    fn add(&self, to: &mut Values, row: usize, factor: f64, from: &[Number]) {
        let start = self.at(&to.ty, row);
        for (to, from) in to.data[start..].iter_mut().zip(from) {
            *to = Number::Float(self.keep(to.f64() + self.keep(factor * from.f64())));
        }
    }
    fn scores(&self) -> Vec<f64> {
        let score = |key| self.keep(self.dot(self.row(0, self.query), self.row(1, key)) * self.attention.scale());
        (0..self.attention.seen(self.query)).map(score).collect()
    }

    fn forward(&self, results: &mut [Values]) {
        let scores = self.scores();
        let top = scores.iter().copied().fold(f64::NEG_INFINITY, max_nan);
        // Where all scores are −∞ any base will do, but −∞ less itself is none.
        let base = if top == f64::NEG_INFINITY { 0.0 } else { top };
        let mut sum = 0.0;
        for (key, score) in scores.iter().enumerate() {
            let weight = self.keep(self.keep(score - base).exp());
            sum = self.keep(sum + weight);
            self.add(&mut results[0], self.query, weight, self.row(2, key));
        }
        let start = self.at(&results[0].ty, self.query);
        let width = self.attention.matrix(&results[0].ty).columns;
        for x in &mut results[0].data[start..start + width] {
            *x = Number::Float(if sum == 0.0 { 0.0 } else { self.keep(x.f64() / sum) });
        }
        let at = self.attention.numbers(&results[1].ty).at(self.part, self.query);
        results[1].data[at] = Number::Float(self.keep(base + self.keep(sum.ln())));
    }

    /// Adds what this query has to say to all three cotangents; scores are scaled at the end.
    fn backward(&self, results: &mut [Values]) {
        let (logsumexp, delta) = (self.number(LOGSUMEXP), self.number(DELTA));
        for (key, score) in self.scores().into_iter().enumerate() {
            let weight = self.keep(self.keep(score - logsumexp).exp());
            let d_weight = self.dot(self.row(D_OUT, self.query), self.row(2, key));
            let d_score = self.keep(weight * self.keep(d_weight - delta));
            self.add(&mut results[0], self.query, d_score, self.row(1, key));
            self.add(&mut results[1], key, d_score, self.row(0, self.query));
            self.add(&mut results[2], key, weight, self.row(D_OUT, self.query));
        }
    }
}
