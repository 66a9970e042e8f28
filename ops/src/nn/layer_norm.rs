//! `layer_norm` — `y = (x − mean) / √(var + eps) · weight + bias`, mean and (biased) variance being those of x over its last axes,
//! the ones that `weight` has (Ba, Kiros and Hinton, *Layer Normalization*, 2016). Variance by two passes.
//!
//! * **C1** `x` holds floats.
//! * **C2** `weight` has x's type and x's last axes, at least one.
//! * **C3** `bias` is of the type of `weight`.

use thalweg_graph::{Accuracy, DType, Mode, OpError, Schema, TensorType, Types, require};

use crate::Tensor;
use crate::op::{Gradients, Op, VjpCx};
use crate::sample::Sample;

thalweg_graph::attrs! {
    /// Normalization of each sample over its features.
    pub struct LayerNorm {
        /// Added to the variance.
        eps: f64 = 1e-5,
    }
}

impl LayerNorm {
    /// x normalized, and 1 / √(var + eps).
    #[track_caller]
    fn normal<'g>(&self, x: Tensor<'g>, axes: &[i64]) -> (Tensor<'g>, Tensor<'g>) {
        let centred = x - x.mean_keep(axes);
        let scale = 1.0 / ((centred * centred).mean_keep(axes) + self.eps).sqrt();
        (centred * scale, scale)
    }
}

/// The last axes, those of the weight.
fn axes(weight: Tensor<'_>) -> Vec<i64> {
    (1..=weight.rank() as i64).map(|axis| -axis).collect()
}

impl Op for LayerNorm {
    const SCHEMA: Schema = Schema {
        name: "layer_norm",
        operands: &["x", "weight", "bias"],
        results: &["out"],
        accuracy: Accuracy::Ulps(32),
    };
    fn infer(&self, operands: &[TensorType]) -> Result<Types, OpError> {
        let [x, weight, bias] = operands else { unreachable!("arity is checked") };
        require!(x.dtype.is_float(), "layer_norm.C1", "needs floats, got {x}");
        let last = weight.rank() > 0 && weight.dtype == x.dtype && x.shape.ends_with(&weight.shape);
        require!(last, "layer_norm.C2", "weight must be {} with the last axes of {}, got {weight}", x.dtype, x.shape);
        require!(bias == weight, "layer_norm.C3", "bias must be {weight}, got {bias}");
        Ok(vec![x.clone()])
    }
    fn expand<'g>(&self, operands: &[Tensor<'g>], _: Mode) -> Option<Vec<Tensor<'g>>> {
        let [x, weight, bias] = *operands else { return None };
        Some(vec![self.normal(x, &axes(weight)).0 * weight + bias])
    }
    fn gradient<'g>(&self, cx: &VjpCx<'g>) -> Option<Gradients<'g>> {
        let (x, weight, ct) = (cx.operand(0), cx.operand(1), cx.ct());
        let axes = axes(weight);
        let (normal, scale) = self.normal(x, &axes);
        let (scaled, shape) = (ct * weight, weight.shape());
        let tilt = normal * (scaled * normal).mean_keep(&axes);
        let x_ct = (scaled - scaled.mean_keep(&axes) - tilt) * scale;
        Some(vec![Some(x_ct), Some((ct * normal).sum_to(&shape)), Some(ct.sum_to(&shape))])
    }
    fn samples() -> Vec<Sample<Self>> {
        let case = |eps, x: &[u64], weight: &[u64]| {
            Sample::new(Self { eps }, [x, weight, weight].map(|shape| DType::F32.of(shape)))
        };
        vec![
            case(1e-5, &[2, 6], &[6]),
            case(0.1, &[2, 3, 4], &[3, 4]),
            case(1e-5, &[5], &[5]),
            case(1e-5, &[0, 3], &[3]),
        ]
    }
}
