//! `is_nan` — `out = whether x is not a number`, for every element.
//!
//! * **C1** the operand holds floats.

use thalweg_graph::Accuracy;

super::unary! {
    /// `out = whether x is not a number`, for every element.
    IsNan, "is_nan", is_nan, Floats -> |_| thalweg_graph::DType::Bool, Accuracy::Exact,
    kernel: |x| x.is_nan(),
    gradient: |_cx| None,
    samples: |s| s.no_gradient(),
}
