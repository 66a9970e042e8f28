//! `mean` — `out = Σ x / n` over some axes, n being how many elements each result is made of, in the whole value and not
//! on one device. A mean of nothing is NaN.
//!
//! * **C1** `axes` are axes of the operand, each once (negative ones from the end; none: all).
//! * **C2** the operand holds floats.

use thalweg_graph::{Accuracy, DType, Mode, OpError, Schema, Shape, TensorType, Types, require};

use crate::Tensor;
use crate::layout::extent::Extent;
use crate::op::{Gradients, Op, VjpCx};
use crate::sample::Sample;

thalweg_graph::attrs! {
    /// Mean over axes.
    pub struct Mean {
        /// The axes; none: all.
        axes: Vec<i64> = vec![],
        /// Whether they stay, with extent 1.
        keep: bool = false,
    }
}

impl Mean {
    /// How many elements of `x` each result is made of, as a scalar of its element type.
    #[track_caller]
    fn count<'g>(&self, x: Tensor<'g>) -> Tensor<'g> {
        let folded = super::folded(&self.axes, x.rank()).unwrap_or_default();
        let dims = x.shape().iter().zip(folded).filter(|(_, f)| *f).map(|(d, _)| d.clone()).collect();
        x.source(Extent { shape: Shape(dims), dtype: x.dtype() })
    }
}

impl Op for Mean {
    const SCHEMA: Schema = Schema { name: "mean", operands: &["x"], results: &["out"], accuracy: Accuracy::Ulps(8) };
    fn infer(&self, operands: &[TensorType]) -> Result<Types, OpError> {
        let x = &operands[0];
        require!(x.dtype.is_float(), "mean.C2", "needs floats, got {x}"; help: "cast it to f32 first");
        Ok(vec![x.dtype.of(super::infer_shape("mean.C1", &x.shape, &self.axes, self.keep)?)])
    }
    fn expand<'g>(&self, operands: &[Tensor<'g>], _: Mode) -> Option<Vec<Tensor<'g>>> {
        let x = operands[0];
        let sum = if self.keep { x.sum_keep(&self.axes) } else { x.sum_over(&self.axes) };
        Some(vec![sum / self.count(x)])
    }
    fn gradient<'g>(&self, cx: &VjpCx<'g>) -> Option<Gradients<'g>> {
        let x = cx.operand(0);
        let kept = super::kept(&x.shape(), &self.axes);
        Some(vec![Some((cx.ct() / self.count(x)).reshape(kept).broadcast_to(x.shape()))])
    }
    fn samples() -> Vec<Sample<Self>> {
        let case = |shape: &[u64], axes: &[i64], keep| Sample::f32(Self { axes: axes.to_vec(), keep }, [shape]);
        vec![
            case(&[2, 3, 4], &[], false),
            case(&[2, 3, 4], &[1], false),
            case(&[2, 3, 4], &[0, -1], true),
            case(&[], &[], false),
            case(&[2, 0], &[1], false).no_gradient(),
        ]
    }
}

impl<'g> Tensor<'g> {
    /// Mean of everything; truth values count as 0 and 1.
    #[track_caller]
    pub fn mean(self) -> Self {
        self.mean_over(&[])
    }
    /// Mean over `axes` (none: all), which disappear; truth values count as 0 and 1.
    #[track_caller]
    pub fn mean_over(self, axes: &[i64]) -> Self {
        self.countable().apply(Mean { axes: axes.to_vec(), keep: false }, [])
    }
    /// Mean over `axes`, which stay with extent 1; truth values count as 0 and 1.
    #[track_caller]
    pub fn mean_keep(self, axes: &[i64]) -> Self {
        self.countable().apply(Mean { axes: axes.to_vec(), keep: true }, [])
    }
    #[track_caller]
    fn countable(self) -> Self {
        if self.dtype() == DType::Bool { self.cast(DType::F32) } else { self }
    }
}
