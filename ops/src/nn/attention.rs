//! `attention` — `(out, logsumexp)`: `out = softmax(query · keyᵀ / √d) · value`, d being the number of features of a query
//! (Vaswani et al., *Attention Is All You Need*, 2017), and of each query `ln Σ exp(query · keyᵀ / √d)`, from which the
//! gradient finds the weights again. A primitive, so that no matrix of queries by keys need be in memory. With `causal`, the
//! last query sees all keys and each one before it one key less: query i sees the keys up to i where there are as many.
//! Without keys, `out` is zero.
//!
//! * **C1** the operands have two axes or more (three where heads are interleaved), and one float type.
//! * **C2** the other axes (batch and heads, which are parted) are equal.
//! * **C3** a query has as many features as a key, a number above 0, and there are as many keys as values.
//! * **C4** with `causal`, there are no fewer keys than queries, by a number.

use thalweg_graph::kernel::{self, BufferType, Kernel, Literal};
use thalweg_graph::{Accuracy, Array, Dim, InHalf, OpError, Schema, TensorType, Types, require};

use super::attention_grad::AttentionGrad;
use crate::Tensor;
use crate::op::{Gradients, Op, VjpCx};
use crate::sample::{Data, Sample};

thalweg_graph::attrs! {
    /// Means of values, weighted by how well their keys fit a query.
    pub struct Attention {
        /// Whether a query sees only the keys before it and its own.
        causal: bool = false,
        /// Whether the axes are [.., rows, heads, features], as a projection gives them, and not [.., heads, rows, features].
        interleaved: bool = false,
    }
}

impl Attention {
    /// The axis of queries and keys.
    pub(super) fn rows(&self, rank: usize) -> usize {
        rank - if self.interleaved { 3 } else { 2 }
    }
    /// The factor of scores.
    pub(super) fn scale(features: u64) -> f64 {
        (features as f64).sqrt().recip()
    }
    /// The kernel with these operands, for the op or its gradient.
    pub(super) fn kernel(&self, operands: &[BufferType], results: &[BufferType]) -> kernel::Attention {
        let query = &operands[0].shape;
        kernel::Attention {
            operands: operands.to_vec(),
            results: results.to_vec(),
            rows: self.rows(query.len()) as u16,
            causal: self.causal,
            scale: Literal::Float(Self::scale(query[query.len() - 1])),
        }
    }
}

impl Op for Attention {
    const SCHEMA: Schema = Schema {
        name: "attention",
        operands: &["query", "key", "value"],
        results: &["out", "logsumexp"],
        accuracy: Accuracy::Ulps(32),
    };
    const IN_HALF: InHalf = InHalf::Gains(3);
    fn infer(&self, operands: &[TensorType]) -> Result<Types, OpError> {
        let [query, key, value, ..] = operands else { unreachable!("arity is checked") };
        let least = if self.interleaved { 3 } else { 2 };
        let matrices =
            query.dtype.is_float() && [query, key, value].iter().all(|t| t.rank() >= least && t.dtype == query.dtype);
        require!(
            matrices,
            "attention.C1",
            "needs three of one float type and {least} axes or more, got {query}, {key} and {value}"
        );
        let parts = |t: &TensorType| {
            let mut apart = t.shape.to_vec();
            let columns = apart.pop().unwrap_or(Dim::Fixed(1));
            let rows = apart.remove(self.rows(t.rank()));
            (apart, rows, columns)
        };
        let [(apart, queries, d), (key_apart, keys, key_d), (value_apart, values, width)] =
            [query, key, value].map(parts);
        let alike = apart == key_apart && apart == value_apart;
        require!(alike, "attention.C2", "the axes beside rows and features differ: {query}, {key} and {value}");
        let fits = d == key_d && d.fixed().is_some_and(|d| d > 0) && keys == values;
        require!(fits, "attention.C3", "queries {query} do not fit keys {key}, or these values {value}");
        let ordered = !self.causal || more(&keys, &queries).is_some();
        require!(ordered, "attention.C4", "{queries} queries in order and only {keys} keys");
        let rows = &query.shape[..query.rank() - 1];
        let out = query.dtype.of([rows, &[width]].concat());
        Ok(vec![out, kernel::Attention::accumulator(query.dtype).of(rows)])
    }
    fn lower(&self, operands: &[BufferType], results: &[BufferType]) -> Option<Kernel> {
        Some(Kernel::Attention(self.kernel(operands, results)))
    }
    fn gradient<'g>(&self, cx: &VjpCx<'g>) -> Option<Gradients<'g>> {
        let ([query, key, value], [out, logsumexp]) = (&cx.operands[..], &cx.results[..]) else { return None };
        let (d_out, wide) = (cx.ct(), logsumexp.dtype());
        let delta = (out.cast(wide) * d_out.cast(wide)).sum_over(&[-1]);
        let delta = cx.cotangents[1].map_or(delta, |d_logsumexp| delta - d_logsumexp);
        let &Self { causal, interleaved } = self;
        let gradient = AttentionGrad { causal, interleaved };
        Some(query.apply_all(gradient, [*key, *value, d_out, *logsumexp, delta]).into_iter().map(Some).collect())
    }
    fn samples() -> Vec<Sample<Self>> {
        let case = |causal, shapes: [&[u64]; 3]| Sample::f32(Self { causal, interleaved: false }, shapes);
        let interleaved = |causal, shapes: [&[u64]; 3]| Sample::f32(Self { causal, interleaved: true }, shapes);
        // Scores of ±1600, exact in f32: e to that power is not.
        let signs = |n: u64, by: f32| {
            let data: Vec<f32> = (0..n).map(|i| if i % 3 == 0 { by } else { -by }).collect();
            Data::Given(Array::from_slice(&[n, 1], &data))
        };
        let large = case(false, [&[5, 1], &[7, 1], &[7, 2]]).data(0, signs(5, 40.0)).data(1, signs(7, 40.0));
        vec![
            case(false, [&[3, 2], &[4, 2], &[4, 5]]),
            case(true, [&[4, 2], &[4, 2], &[4, 3]]),
            case(true, [&[2, 2, 3, 2], &[2, 2, 3, 2], &[2, 2, 3, 2]]),
            case(false, [&[0, 3, 2], &[0, 4, 2], &[0, 4, 1]]),
            case(true, [&[2, 1, 3], &[2, 1, 3], &[2, 1, 3]]),
            case(true, [&[2, 3, 2], &[2, 5, 2], &[2, 5, 2]]),
            case(false, [&[3, 2], &[0, 2], &[0, 4]]).no_gradient(),
            interleaved(true, [&[2, 5, 3, 2], &[2, 5, 3, 2], &[2, 5, 3, 4]]),
            interleaved(false, [&[3, 2, 2], &[4, 2, 2], &[4, 2, 1]]),
            case(true, [&[2, 70, 8], &[2, 150, 8], &[2, 150, 9]]).no_gradient(),
            large.no_gradient(),
        ]
    }
}

/// By how much `keys` are more than `queries`, where that is a number.
pub(super) fn more(keys: &Dim, queries: &Dim) -> Option<u64> {
    keys.minus(queries)?.fixed()
}

impl<'g> Tensor<'g> {
    /// Means of `values`, weighted by how well their `keys` fit these queries: `softmax(self · keysᵀ / √d) · values`, all of
    /// them [.., time, features]. With `causal`, the last query sees all keys, and each one before it one key less.
    #[track_caller]
    pub fn attention(self, keys: Tensor<'g>, values: Tensor<'g>, causal: bool) -> Self {
        self.apply(Attention { causal, ..Default::default() }, [keys, values])
    }
}
