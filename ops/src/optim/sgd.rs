//! `sgd` — one step of gradient descent with momentum μ, element by element: `v' = μ·v + g`, `param' = param − lr·v'`. Without
//! momentum there is no v, and the step is plain arithmetic.
//!
//! * **C1** `param` holds floats; `grad` and `v` are of its type.
//! * **C2** `lr` is of its element type, without axes.

use thalweg_graph::kernel::build::{Axes, lit, read};
use thalweg_graph::kernel::{BufferType, Kernel};
use thalweg_graph::{Accuracy, OpError, Schema, TensorType, Types};

use super::{Optimizer, Rule, Step, require_alike};
use crate::Tensor;
use crate::op::Op;
use crate::sample::Sample;

thalweg_graph::attrs! {
    /// One step of gradient descent with momentum.
    pub struct SgdStep {
        /// How much of the last step stays.
        momentum: f64 = 0.9,
    }
}

impl Op for SgdStep {
    const SCHEMA: Schema = Schema {
        name: "sgd",
        operands: &["param", "grad", "v", "lr"],
        results: &["param", "v"],
        accuracy: Accuracy::Ulps(4),
    };
    fn infer(&self, operands: &[TensorType]) -> Result<Types, OpError> {
        require_alike(["sgd.C1", "sgd.C2"], &operands[0], &operands[1..3], &operands[3..])?;
        Ok(vec![operands[0].clone(); 2])
    }
    fn lower(&self, operands: &[BufferType], results: &[BufferType]) -> Option<Kernel> {
        let mut axes = Axes::new();
        let at = axes.par_over(&results[0].shape);
        let [w, g, v] = [0, 1, 2].map(|k| read(k, at.iter().copied()));
        let v = lit(self.momentum) * v + g;
        Some(axes.nest(operands, results, [w - read(3, [0i64; 0]) * v.clone(), v]))
    }
    fn samples() -> Vec<Sample<Self>> {
        let case = |momentum, shape: &[u64]| Sample::f32(Self { momentum }, [shape, shape, shape, &[]]).no_gradient();
        vec![case(0.9, &[3, 4]), case(0.5, &[]), case(0.9, &[0])]
    }
}

/// Gradient descent: `Sgd::new(0.1).momentum(0.9).minimize(loss)`.
pub type Sgd<'g> = Optimizer<'g, SgdStep>;

impl Sgd<'_> {
    /// With this learning rate, without momentum.
    pub fn new(lr: f64) -> Self {
        Self::by(SgdStep { momentum: 0.0 }, lr)
    }
    /// How much of the last step stays.
    pub fn momentum(mut self, momentum: f64) -> Self {
        self.rule.momentum = momentum;
        self
    }
}

impl Rule for SgdStep {
    const NAME: &'static str = "sgd";
    fn slots(&self) -> &'static [&'static str] {
        if self.momentum == 0.0 { &[] } else { &["v"] }
    }
    #[track_caller]
    fn step<'g>(&self, Step { param, gradient, slots, lr, .. }: Step<'g, '_>) -> Vec<Tensor<'g>> {
        match slots {
            [v] => param.apply_all(self.clone(), [gradient, *v, lr]),
            _ => vec![param - lr * gradient],
        }
    }
}
