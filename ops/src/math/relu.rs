//! `relu` — `out = max(x, 0); NaN stays`, for every element.
//!
//! Its gradient looks at the result and not at the operand, which nothing then has to keep.
//!
//! * **C1** the operand holds numbers.

use crate::sample::Data;
use thalweg_graph::Accuracy;

super::unary! {
    /// `out = max(x, 0); NaN stays`, for every element.
    Relu, "relu", relu, Numbers -> |d| d, Accuracy::Exact,
    kernel: |x| x.max(0.0),
    gradient: |cx| cx.result().gt(0.0).select(cx.ct(), 0.0).into(),
    samples: |s| s.all(Data::Distinct),
    half: Follows,
}
