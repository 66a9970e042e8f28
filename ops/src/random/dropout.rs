//! `dropout` — in training, `out = uniform(key, step) < 1 − p ? x / (1 − p) : 0`; otherwise `out = x`. Which elements stay is a
//! function of the stream's key and the step: the gradient draws the same ones again.
//!
//! * **C1** `x` holds floats.
//! * **C2** `step` is an i64 without axes.
//! * **C3** `0 ≤ p < 1`.

use thalweg_graph::kernel::philox;
use thalweg_graph::{Accuracy, DType, Mode, OpError, Schema, TensorType, Types, require};

use crate::Tensor;
use crate::op::Op;
use crate::sample::Sample;

thalweg_graph::attrs! {
    /// Random zeros in training.
    pub struct Dropout {
        /// The share that becomes zero.
        p: f64 = 0.5,
        /// The stream's key.
        key: u64 = 0,
    }
}

impl Op for Dropout {
    const SCHEMA: Schema =
        Schema { name: "dropout", operands: &["x", "step"], results: &["out"], accuracy: Accuracy::Ulps(2) };
    fn infer(&self, operands: &[TensorType]) -> Result<Types, OpError> {
        let [x, step] = operands else { unreachable!("arity is checked") };
        require!(x.dtype.is_float(), "dropout.C1", "needs floats, got {x}");
        require!(*step == DType::I64.of(()), "dropout.C2", "the step must be an i64 without axes, got {step}");
        require!((0.0..1.0).contains(&self.p), "dropout.C3", "cannot drop a share of {}", self.p);
        Ok(vec![x.clone()])
    }
    fn expand<'g>(&self, operands: &[Tensor<'g>], mode: Mode) -> Option<Vec<Tensor<'g>>> {
        let [x, step] = *operands else { return None };
        if mode == Mode::Infer || self.p == 0.0 {
            return Some(vec![x]);
        }
        let keep = 1.0 - self.p;
        Some(vec![step.uniform(self.key, x.shape()).lt(keep).select(x / keep, 0.0)])
    }
    fn samples() -> Vec<Sample<Self>> {
        let case = |p, key, shape: &[u64]| Sample::new(Self { p, key }, [DType::F32.of(shape), DType::I64.of(())]);
        vec![case(0.5, 3, &[4, 5]), case(0.0, 3, &[2, 2]), case(0.9, 8, &[0, 3]), case(0.25, 1 << 50, &[])]
    }
}

impl<'g> Tensor<'g> {
    /// Zero with probability `p`, else scaled so that the mean stays, in programs that train; unchanged in others. Draws
    /// from a stream of its own, which depends on the open scope and on how many there were before.
    #[track_caller]
    pub fn dropout(self, p: f64) -> Self {
        let graph = self.graph();
        let key = philox::stream_key(graph.seed(), graph.stream());
        self.apply(Dropout { p, key }, [crate::graph::step(graph)])
    }
}
