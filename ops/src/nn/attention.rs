//! `attention` — `out = softmax(query · keyᵀ / √d) · value`, d being the number of features of a query (Vaswani et al., *Attention
//! Is All You Need*, 2017). With `causal`, query i sees the keys up to i. One op, so that a device may have a kernel for it; the
//! leading axes, batch and heads, are parted.
//!
//! * **C1** the operands have two axes or more, and one float type.
//! * **C2** the leading axes are equal.
//! * **C3** a query has as many features as a key, a number above 0, and there are as many keys as values.
//! * **C4** with `causal`, there are as many queries as keys.

use thalweg_graph::{Accuracy, DType, Dim, Mode, OpError, Schema, Shape, TensorType, Types, require};

use crate::Tensor;
use crate::layout::iota::Iota;
use crate::linalg::matmul::MatMul;
use crate::op::Op;
use crate::sample::Sample;

thalweg_graph::attrs! {
    /// Means of values, weighted by how well their keys fit a query.
    pub struct Attention {
        /// Whether a query sees only the keys before it and its own.
        causal: bool = false,
    }
}

impl Op for Attention {
    const SCHEMA: Schema = Schema {
        name: "attention",
        operands: &["query", "key", "value"],
        results: &["out"],
        accuracy: Accuracy::Ulps(32),
    };
    fn infer(&self, operands: &[TensorType]) -> Result<Types, OpError> {
        let [query, key, value] = operands else { unreachable!("arity is checked") };
        let matrices = query.dtype.is_float() && operands.iter().all(|t| t.rank() >= 2 && t.dtype == query.dtype);
        require!(matrices, "attention.C1", "needs three of one float type, got {query}, {key} and {value}");
        let parts = |t: &TensorType| {
            let (batch, [rows, columns]) = t.shape.split_last_chunk::<2>().expect("C1 was checked");
            (batch.to_vec(), rows.clone(), columns.clone())
        };
        let [(batch, queries, d), (key_batch, keys, key_d), (value_batch, values, width)] =
            [query, key, value].map(parts);
        let alike = batch == key_batch && batch == value_batch;
        require!(alike, "attention.C2", "leading axes differ: {query}, {key} and {value}");
        let fits = d == key_d && d.fixed().is_some_and(|d| d > 0) && keys == values;
        require!(fits, "attention.C3", "queries {query} do not fit keys {key}, or these values {value}");
        require!(!self.causal || queries == keys, "attention.C4", "{queries} queries and {keys} keys in order");
        Ok(vec![query.dtype.of([&batch[..], &[queries, width]].concat())])
    }
    fn expand<'g>(&self, operands: &[Tensor<'g>], _: Mode) -> Option<Vec<Tensor<'g>>> {
        let [query, key, value] = *operands else { return None };
        let d = query.shape().last()?.fixed()?;
        let fits =
            (query * (d as f64).sqrt().recip()).apply(MatMul { transpose_rhs: true, ..Default::default() }, [key]);
        let fits = if self.causal { fits.where_(seen(fits), f64::NEG_INFINITY) } else { fits };
        Some(vec![fits.softmax(-1).matmul(value)])
    }
    fn samples() -> Vec<Sample<Self>> {
        let case = |causal, shapes: [&[u64]; 3]| Sample::f32(Self { causal }, shapes);
        vec![
            case(false, [&[3, 2], &[4, 2], &[4, 5]]),
            case(true, [&[4, 2], &[4, 2], &[4, 3]]),
            case(true, [&[2, 2, 3, 2], &[2, 2, 3, 2], &[2, 2, 3, 2]]),
            case(false, [&[0, 3, 2], &[0, 4, 2], &[0, 4, 1]]),
        ]
    }
}

/// Which keys a query sees: those up to it.
fn seen<'g>(fits: Tensor<'g>) -> Tensor<'g> {
    let shape = fits.shape();
    let count = |axis: usize| {
        let mut along = [Dim::Fixed(1), Dim::Fixed(1)];
        along[axis] = shape[shape.rank() - 2 + axis].clone();
        fits.source(Iota { axis: axis as i64, shape: Shape(along.to_vec()), dtype: DType::I32 })
    };
    count(1).le(count(0))
}

impl<'g> Tensor<'g> {
    /// Means of `values`, weighted by how well their `keys` fit these queries: `softmax(self · keysᵀ / √d) · values`. With
    /// `causal`, query i sees the keys up to i.
    #[track_caller]
    pub fn attention(self, keys: Tensor<'g>, values: Tensor<'g>, causal: bool) -> Self {
        self.apply(Attention { causal }, [keys, values])
    }
}
