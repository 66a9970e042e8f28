//! `logical_not` — `out = whether x does not hold`, for every element.
//!
//! * **C1** the operand holds truth values.

use crate::sample::Sample;
use thalweg_graph::{Accuracy, DType};

super::unary! {
    /// `out = whether x does not hold`, for every element.
    LogicalNot, "logical_not", logical_not, Bools -> |d| d, Accuracy::Exact,
    kernel: |x| x.logical_not(),
    gradient: |_cx| None,
    samples: |s| Sample::new(LogicalNot {}, [DType::Bool.of(&s.operands[0].0.shape)]),
}
