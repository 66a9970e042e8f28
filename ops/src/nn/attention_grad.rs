//! `attention_grad` — the cotangents of query, key and value, given that of `out`, and of each query its `logsumexp` and
//! `delta = Σ out · d_out − d_logsumexp`. With scores `s = query · keyᵀ / √d` and weights `p = exp(s − logsumexp)`:
//! `ds = p · (d_out · valueᵀ − delta)`, `d_query = ds · key / √d`, `d_key = dsᵀ · query / √d`, `d_value = pᵀ · d_out`. Its own
//! gradient is that of these formulas as ops, with matrices of queries by keys in memory.
//!
//! * **C1** the first three are operands of attention; `d_out` is as its result, `logsumexp` and `delta` as its logsumexp.

use thalweg_graph::kernel::{BufferType, Kernel};
use thalweg_graph::{Accuracy, DType, Dim, InHalf, OpError, Schema, Shape, TensorType, Types, require};

use super::attention::{Attention, more};
use crate::Tensor;
use crate::autodiff::through_composition;
use crate::layout::iota::Iota;
use crate::linalg::matmul::MatMul;
use crate::op::{Gradients, Op, VjpCx};
use crate::sample::{Data, Sample};

thalweg_graph::attrs! {
    /// The gradient of attention.
    pub struct AttentionGrad {
        /// As in attention.
        causal: bool = false,
        /// As in attention.
        interleaved: bool = false,
    }
}

impl Op for AttentionGrad {
    const SCHEMA: Schema = Schema {
        name: "attention_grad",
        operands: &["query", "key", "value", "d_out", "logsumexp", "delta"],
        results: &["d_query", "d_key", "d_value"],
        accuracy: Accuracy::Ulps(64),
    };
    const IN_HALF: InHalf = InHalf::Gains(4);
    fn infer(&self, operands: &[TensorType]) -> Result<Types, OpError> {
        let [out, numbers] = &self.attention().infer(operands)?[..] else { unreachable!("attention has two results") };
        let [.., d_out, logsumexp, delta] = operands else { unreachable!("arity is checked") };
        let fits = d_out == out && logsumexp == numbers && delta == numbers;
        require!(
            fits,
            "attention_grad.C1",
            "needs {out}, {numbers} and {numbers}, got {d_out}, {logsumexp} and {delta}"
        );
        Ok(operands[..3].to_vec())
    }
    fn lower(&self, operands: &[BufferType], results: &[BufferType]) -> Option<Kernel> {
        Some(Kernel::AttentionGrad(self.attention().kernel(operands, results)))
    }
    fn gradient<'g>(&self, cx: &VjpCx<'g>) -> Option<Gradients<'g>> {
        let features = cx.operand(0).shape().last()?.fixed()?;
        through_composition(cx, |operands| self.compose(operands, Attention::scale(features)))
    }
    fn samples() -> Vec<Sample<Self>> {
        let case = |causal, interleaved, [query, key, value, out]: [&[u64]; 4]| {
            let numbers = &out[..out.len() - 1];
            // Weights of at most 1 or so, as attention has them.
            let sample = Sample::f32(Self { causal, interleaved }, [query, key, value, out, numbers, numbers]);
            sample.data(4, Data::Uniform(3.0, 4.0))
        };
        vec![
            case(false, false, [&[3, 2], &[4, 2], &[4, 5], &[3, 5]]),
            case(true, false, [&[2, 3, 2], &[2, 4, 2], &[2, 4, 2], &[2, 3, 2]]),
            case(true, true, [&[2, 4, 3, 2], &[2, 4, 3, 2], &[2, 4, 3, 1], &[2, 4, 3, 1]]),
            case(false, true, [&[0, 3, 2], &[2, 3, 2], &[2, 3, 1], &[0, 3, 1]]),
            case(true, false, [&[2, 1, 3], &[2, 1, 3], &[2, 1, 3], &[2, 1, 3]]),
            case(true, false, [&[2, 70, 8], &[2, 150, 8], &[2, 150, 9], &[2, 70, 9]]).no_gradient(),
        ]
    }
}

impl AttentionGrad {
    fn attention(&self) -> Attention {
        let &Self { causal, interleaved } = self;
        Attention { causal, interleaved }
    }

    /// The same in other ops.
    fn compose<'g>(&self, operands: &[Tensor<'g>], scale: f64) -> Vec<Tensor<'g>> {
        let wide = operands[4].dtype();
        let parted = |k: usize| self.swapped(operands[k], operands[0].rank()).cast(wide);
        let column = |t: Tensor<'g>| t.reshape(Shape([&t.shape()[..], &[Dim::Fixed(1)]].concat()));
        let [query, key, value, d_out] = [0, 1, 2, 3].map(parted);
        let [logsumexp, delta] = [4, 5].map(|k| column(parted(k)));
        let product =
            |a: Tensor<'g>, b, transpose_lhs, transpose_rhs| a.apply(MatMul { transpose_lhs, transpose_rhs }, [b]);
        let scores = product(query * scale, key, false, true);
        let scores = if self.causal { scores.where_(seen(scores), f64::NEG_INFINITY) } else { scores };
        let weights = (scores - logsumexp).exp();
        let d_scores = weights * (product(d_out, value, false, true) - delta) * scale;
        let d_query = product(d_scores, key, false, false);
        let d_key = product(d_scores, query, true, false);
        let d_value = product(weights, d_out, true, false);
        let back = |(k, d): (usize, Tensor<'g>)| self.swapped(d.cast(operands[k].dtype()), operands[0].rank());
        [d_query, d_key, d_value].into_iter().enumerate().map(back).collect()
    }
    /// With rows and heads in the other order where they are interleaved; of a tensor that has rows on the axis on which
    /// one of `rank` axes has them.
    fn swapped<'g>(&self, t: Tensor<'g>, rank: usize) -> Tensor<'g> {
        if !self.interleaved {
            return t;
        }
        let mut axes: Vec<i64> = (0..t.rank() as i64).collect();
        axes.swap(rank - 3, rank - 2);
        t.transpose(&axes)
    }
}

/// Which keys a query sees.
fn seen<'g>(scores: Tensor<'g>) -> Tensor<'g> {
    let shape = scores.shape();
    let [queries, keys] = [2, 1].map(|from_end| shape[shape.rank() - from_end].clone());
    let count = |axis, shape: [&Dim; 2]| {
        scores.source(Iota { axis, shape: Shape(shape.map(Dim::clone).to_vec()), dtype: DType::I32 })
    };
    let (one, ahead) = (Dim::Fixed(1), more(&keys, &queries).unwrap_or(0));
    count(1, [&one, &keys]).le(count(0, [&queries, &one]) + ahead as f64)
}
