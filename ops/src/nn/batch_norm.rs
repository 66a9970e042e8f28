//! `batch_norm` — `y = (x − mean) / √(var + eps) · weight + bias` per channel, and new running statistics. In training mean and
//! (biased) variance are those of each of `groups` equal blocks of the batch, and
//! `new_running = (1 − momentum) · running + momentum · (mean over the blocks of mean or unbiased variance)`; otherwise they are the
//! running ones, which stay, and `y = x · scale + shift` of two numbers per channel. Variance by two passes. Blocks make statistics independent of how many devices share a batch.
//!
//! * **C1** `x` is floats [batch, channels] or [batch, channels, height, width] with a number of channels.
//! * **C2** `weight`, `bias`, `running_mean` and `running_var` have x's type and one element per channel.
//! * **C3** `groups` is at least 1 and divides the batch, for every value of every named dimension.

use thalweg_graph::{Accuracy, DType, Dim, Mode, OpError, Schema, Shape, TensorType, Types, require};

use crate::Tensor;
use crate::layout::extent::Extent;
use crate::op::Op;
use crate::sample::{Data, Sample};

thalweg_graph::attrs! {
    /// Normalization of channels over the batch.
    pub struct BatchNorm {
        /// How many blocks of the batch have statistics of their own.
        groups: u64 = 1,
        /// Added to the variance.
        eps: f64 = 1e-5,
        /// How much of the batch's statistics goes into the running ones.
        momentum: f64 = 0.1,
    }
}

impl BatchNorm {
    /// The axes of [groups, batch / groups, channels, …] that statistics fold: all but the groups and the channels.
    fn folds(rank: usize) -> Vec<i64> {
        [1].into_iter().chain(3..=rank as i64).collect()
    }
}

impl Op for BatchNorm {
    const SCHEMA: Schema = Schema {
        name: "batch_norm",
        operands: &["x", "weight", "bias", "running_mean", "running_var"],
        results: &["out", "new_running_mean", "new_running_var"],
        accuracy: Accuracy::Ulps(32),
    };
    fn infer(&self, operands: &[TensorType]) -> Result<Types, OpError> {
        let x = &operands[0];
        let channels =
            x.shape.get(1).filter(|c| c.fixed().is_some() && [2, 4].contains(&x.rank()) && x.dtype.is_float());
        let Some(channels) = channels else {
            let what = format!("needs floats [batch, channels] or [batch, channels, height, width], got {x}");
            return Err(OpError::new("batch_norm.C1", what));
        };
        let per_channel = x.dtype.of([channels]);
        for (i, t) in operands.iter().enumerate().skip(1) {
            require!(*t == per_channel, "batch_norm.C2", "{} must be {per_channel}, got {t}", Self::SCHEMA.operand(i));
        }
        let block = x.shape[0].exact_quotient(&Dim::Fixed(self.groups));
        require!(block.is_some(), "batch_norm.C3", "{} groups do not divide a batch of {}", self.groups, x.shape[0]);
        Ok(vec![x.clone(), per_channel.clone(), per_channel])
    }
    fn expand<'g>(&self, operands: &[Tensor<'g>], mode: Mode) -> Option<Vec<Tensor<'g>>> {
        let [x, weight, bias, running_mean, running_var] = *operands else { return None };
        let shape = x.shape();
        let per_channel = |t: Tensor<'g>| {
            let ones = (2..shape.rank()).map(|_| Dim::Fixed(1));
            t.reshape(vec![Dim::Fixed(1), shape[1].clone()].into_iter().chain(ones).collect::<Vec<_>>())
        };
        let scaled = |y: Tensor<'g>| y * per_channel(weight) + per_channel(bias);
        if mode == Mode::Infer {
            let scale = weight / (running_var + self.eps).sqrt();
            let y = x * per_channel(scale) + per_channel(bias - running_mean * scale);
            return Some(vec![y, running_mean, running_var]);
        }
        let groups = Dim::Fixed(self.groups);
        let block = shape[0].exact_quotient(&groups)?;
        let blocks: Vec<Dim> = [groups.clone(), block].into_iter().chain(shape[1..].iter().cloned()).collect();
        let folds = Self::folds(shape.rank());
        let count = Shape(folds.iter().map(|axis| blocks[*axis as usize].clone()).collect());
        let x = x.reshape(blocks);
        let mean = x.mean_keep(&folds);
        let centred = x - mean;
        let var = (centred * centred).mean_keep(&folds);
        let y = scaled((centred / (var + self.eps).sqrt()).reshape(shape.clone()));
        let n = x.source(Extent { shape: count, dtype: x.dtype() });
        let unbiased = var * (n / (n - 1.0).maximum(1.0));
        let running = |old: Tensor<'g>, new: Tensor<'g>| {
            let new = new.reshape(vec![groups.clone(), shape[1].clone()]).mean_over(&[0]);
            old * (1.0 - self.momentum) + new * self.momentum
        };
        Some(vec![y, running(running_mean, mean), running(running_var, unbiased)])
    }
    fn samples() -> Vec<Sample<Self>> {
        let case = |groups, x: &[u64]| {
            let op = Self { groups, ..Self::default() };
            Sample::new(op, [x, &x[1..2], &x[1..2], &x[1..2], &x[1..2]].map(|s| DType::F32.of(s)))
                .data(4, Data::Uniform(0.5, 2.0))
        };
        let mut other = case(1, &[4, 2]);
        (other.op.eps, other.op.momentum) = (0.1, 0.3);
        vec![case(1, &[4, 3]), case(1, &[3, 2, 2, 3]), case(2, &[4, 2, 2, 2]), other]
    }
}
