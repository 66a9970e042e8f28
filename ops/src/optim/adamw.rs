//! `adamw` — one step of AdamW (Loshchilov and Hutter, *Decoupled Weight Decay Regularization*, ICLR 2019), element by element:
//! `m' = β₁·m + (1 − β₁)·g`, `v' = β₂·v + (1 − β₂)·g²`, `param' = param·(1 − lr·wd) − lr·(m'/c₁) / (√(v'/c₂) + ε)`, where
//! `c = 1 − βᵗ` at step t, from 1, comes as an operand.
//!
//! * **C1** `param` holds floats; `grad`, `m` and `v` are of its type.
//! * **C2** `lr`, `c1` and `c2` are of its element type, without axes.

use thalweg_graph::kernel::build::{Axes, Expr, lit, read};
use thalweg_graph::kernel::{BufferType, Kernel};
use thalweg_graph::{Accuracy, OpError, Schema, TensorType, Types};

use super::{Optimizer, Rule, Step, require_alike};
use crate::Tensor;
use crate::op::Op;
use crate::sample::{Data, Sample};

thalweg_graph::attrs! {
    /// One step of AdamW.
    pub struct AdamWStep {
        /// How much of the mean stays.
        beta1: f64 = 0.9,
        /// How much of the mean square stays.
        beta2: f64 = 0.999,
        /// Added to the root of the mean square.
        eps: f64 = 1e-8,
        /// How fast parameters shrink, times the rate.
        weight_decay: f64 = 0.01,
    }
}

impl Op for AdamWStep {
    const SCHEMA: Schema = Schema {
        name: "adamw",
        operands: &["param", "grad", "m", "v", "lr", "c1", "c2"],
        results: &["param", "m", "v"],
        accuracy: Accuracy::Ulps(8),
    };
    fn infer(&self, operands: &[TensorType]) -> Result<Types, OpError> {
        require_alike(["adamw.C1", "adamw.C2"], &operands[0], &operands[1..4], &operands[4..])?;
        Ok(vec![operands[0].clone(); 3])
    }
    fn lower(&self, operands: &[BufferType], results: &[BufferType]) -> Option<Kernel> {
        let mut axes = Axes::new();
        let at = axes.par_over(&results[0].shape);
        let [w, g, m, v] = [0, 1, 2, 3].map(|k| read(k, at.iter().copied()));
        let [lr, c1, c2] = [4, 5, 6].map(|k| read(k, [0i64; 0]));
        let ease = |old: Expr, new: Expr, beta: f64| lit(beta) * old + lit(1.0 - beta) * new;
        let m = ease(m, g.clone(), self.beta1);
        let v = ease(v, g.clone() * g, self.beta2);
        let step = (m.clone() / c1) / ((v.clone() / c2).sqrt() + lit(self.eps));
        let w = w * (lit(1.0) - lr.clone() * lit(self.weight_decay)) - lr * step;
        Some(axes.nest(operands, results, [w, m, v]))
    }
    fn samples() -> Vec<Sample<Self>> {
        let case = |op: Self, shape: &[u64]| {
            let sample = Sample::f32(op, [shape, shape, shape, shape, &[], &[], &[]]).no_gradient();
            let sample = sample.data(3, Data::Uniform(0.0, 1.0)).data(4, Data::Uniform(0.001, 0.1));
            sample.data(5, Data::Uniform(0.1, 1.0)).data(6, Data::Uniform(0.1, 1.0))
        };
        let other = Self { beta1: 0.5, beta2: 0.9, eps: 1e-3, weight_decay: 0.0 };
        vec![case(Self::default(), &[3, 4]), case(other, &[5]), case(Self::default(), &[]), case(Self::default(), &[0])]
    }
}

/// AdamW: `AdamW::new(3e-3).minimize(loss)`.
pub type AdamW<'g> = Optimizer<'g, AdamWStep>;

impl AdamW<'_> {
    /// With this learning rate; β = (0.9, 0.999), ε = 1e-8, weight decay 0.01.
    pub fn new(lr: f64) -> Self {
        Self::by(AdamWStep::default(), lr)
    }
    /// How much of the mean and of the mean square stays.
    pub fn betas(mut self, beta1: f64, beta2: f64) -> Self {
        (self.rule.beta1, self.rule.beta2) = (beta1, beta2);
        self
    }
    /// Added to the root of the mean square.
    pub fn eps(mut self, eps: f64) -> Self {
        self.rule.eps = eps;
        self
    }
    /// How fast parameters shrink, times the rate.
    pub fn weight_decay(mut self, weight_decay: f64) -> Self {
        self.rule.weight_decay = weight_decay;
        self
    }
}

impl Rule for AdamWStep {
    const NAME: &'static str = "adamw";
    fn slots(&self) -> &'static [&'static str] {
        &["m", "v"]
    }
    #[track_caller]
    fn step<'g>(&self, Step { param, gradient, slots, lr, t }: Step<'g, '_>) -> Vec<Tensor<'g>> {
        let correction = |beta: f64| (1.0 - t.scalar_like(beta).pow(t)).cast(param.dtype());
        let rates = [lr, correction(self.beta1), correction(self.beta2)];
        param.apply_all(self.clone(), [gradient].into_iter().chain(slots.iter().copied()).chain(rates))
    }
}
