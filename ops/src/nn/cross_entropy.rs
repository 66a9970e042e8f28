//! `cross_entropy` — `loss[b…] = ln Σₖ e^(logits[b…, k] − m) − (logits[b…, labels[b…]] − m)`, m being the row's maximum: how many nats
//! the right class comes as a surprise. A label that is no class gives NaN, and the gradient of the softmax alone.
//!
//! * **C1** `logits` holds floats, with the classes along the last axis.
//! * **C2** `labels` are i32 or i64.
//! * **C3** `labels` has the axes of `logits` before the classes.

use thalweg_graph::{Accuracy, Array, DType, Dim, Mode, OpError, Schema, Shape, TensorType, Types, require};

use crate::Tensor;
use crate::layout::iota::Iota;
use crate::op::{Gradients, Op, VjpCx};
use crate::sample::{Data, Sample};

thalweg_graph::attrs! {
    /// The surprise at labels, given unnormalized log-probabilities.
    pub struct CrossEntropy {}
}

impl Op for CrossEntropy {
    const SCHEMA: Schema = Schema {
        name: "cross_entropy",
        operands: &["logits", "labels"],
        results: &["loss"],
        accuracy: Accuracy::Ulps(8),
    };
    fn infer(&self, operands: &[TensorType]) -> Result<Types, OpError> {
        let [logits, labels] = operands else { unreachable!("arity is checked") };
        let rows = logits.shape.split_last().filter(|_| logits.dtype.is_float());
        let Some((_, rows)) = rows else {
            return Err(OpError::new(
                "cross_entropy.C1",
                format!("logits must be floats [batch, classes], got {logits}"),
            ));
        };
        require!(crate::index::is_index(labels.dtype), "cross_entropy.C2", "labels must be i32 or i64, got {labels}";
            help: "labels are class numbers; for probabilities p, sum -p times `log_softmax` of the logits over the last axis");
        require!(labels.shape[..] == *rows, "cross_entropy.C3", "labels must be {}, got {}", Shape::from(rows), labels.shape;
            help: "one class number per row of logits");
        Ok(vec![logits.dtype.of(rows)])
    }
    fn expand<'g>(&self, operands: &[Tensor<'g>], _: Mode) -> Option<Vec<Tensor<'g>>> {
        let [logits, labels] = *operands else { return None };
        let z = logits - logits.max_keep(&[-1]);
        // The sum keeps its axis, so that it is the same node as in the gradient's softmax.
        let total = z.exp().sum_keep(&[-1]).log().reshape(labels.shape());
        Some(vec![total - z.pick(labels)])
    }
    fn gradient<'g>(&self, cx: &VjpCx<'g>) -> Option<Gradients<'g>> {
        let (logits, labels, ct) = (cx.operand(0), cx.operand(1), cx.ct());
        let apart: Vec<Dim> = labels.shape().iter().cloned().chain([Dim::Fixed(1)]).collect();
        let classes = Shape(vec![logits.shape().last()?.clone()]);
        let classes = labels.source(Iota { axis: 0, shape: classes, dtype: labels.dtype() });
        let right = labels.reshape(apart.clone()).eq(classes).cast(logits.dtype());
        Some(vec![Some((logits.softmax(-1) - right) * ct.reshape(apart)), None])
    }
    fn samples() -> Vec<Sample<Self>> {
        let case = |logits: &[u64], labels: Array| {
            Sample::new(Self {}, [DType::F32.of(logits), labels.ty()]).data(1, Data::Given(labels))
        };
        vec![
            case(&[3, 4], Array::from_slice(&[3], &[2i32, 0, 3])),
            case(&[2, 2, 3], Array::from_slice(&[2, 2], &[2i64, 0, 1, 1])),
            case(&[5], Array::scalar(4i32)).all(Data::Uniform(-200.0, 200.0)),
            case(&[2, 3], Array::from_slice(&[2], &[3i32, 1])).no_gradient(),
            case(&[0, 3], Array::from_slice::<i32>(&[0], &[])),
        ]
    }
}

/// The surprise (in nats) at `labels` (i32 or i64), given unnormalized log-probabilities along the last axis.
#[track_caller]
pub fn cross_entropy<'g>(logits: Tensor<'g>, labels: Tensor<'g>) -> Tensor<'g> {
    logits.apply(CrossEntropy {}, [labels])
}
