//! `gelu` — `out = x · Φ(x)`, Φ being the normal distribution's, for every element (Hendrycks and Gimpel, *Gaussian Error Linear
//! Units*, 2016): `Φ(x) = (1 + erf(x/√2)) / 2`, or the approximation `(1 + tanh(√(2/π)·(x + 0.044715·x³))) / 2`, which older
//! models were trained with.
//!
//! * **C1** the operand holds floats.

use thalweg_graph::{Accuracy, Mode, OpError, Schema, TensorType, Types, require};

use crate::Tensor;
use crate::op::Op;
use crate::sample::Sample;

thalweg_graph::attrs! {
    /// Each element times the probability that a normal variable is less.
    pub struct Gelu {
        /// Whether by the hyperbolic tangent instead of the error function.
        tanh: bool = false,
    }
}

impl Op for Gelu {
    const SCHEMA: Schema = Schema { name: "gelu", operands: &["x"], results: &["out"], accuracy: Accuracy::Ulps(8) };
    fn infer(&self, operands: &[TensorType]) -> Result<Types, OpError> {
        let x = &operands[0];
        require!(x.dtype.is_float(), "gelu.C1", "needs floats, got {x}");
        Ok(vec![x.clone()])
    }
    fn expand<'g>(&self, operands: &[Tensor<'g>], _: Mode) -> Option<Vec<Tensor<'g>>> {
        let x = operands[0];
        let twice = match self.tanh {
            true => ((x + x * x * x * 0.044715) * (std::f64::consts::FRAC_2_PI).sqrt()).tanh(),
            false => (x * std::f64::consts::FRAC_1_SQRT_2).erf(),
        };
        Some(vec![x * 0.5 * (twice + 1.0)])
    }
    fn samples() -> Vec<Sample<Self>> {
        let case = |tanh, shape: &[u64]| Sample::f32(Self { tanh }, [shape]);
        vec![case(false, &[3, 5]), case(true, &[3, 5]), case(false, &[]), case(true, &[2, 0])]
    }
}

impl<'g> Tensor<'g> {
    /// `x · Φ(x)` by the error function, for every element.
    #[track_caller]
    pub fn gelu(self) -> Self {
        self.apply(Gelu { tanh: false }, [])
    }
    /// `x · Φ(x)` approximated by the hyperbolic tangent, for every element.
    #[track_caller]
    pub fn gelu_tanh(self) -> Self {
        self.apply(Gelu { tanh: true }, [])
    }
}
