//! `sqrt` — `out = √x`, for every element.
//!
//! * **C1** the operand holds floats.

use crate::sample::Data;
use thalweg_graph::Accuracy;

super::unary! {
    /// `out = √x`, for every element.
    Sqrt, "sqrt", sqrt, Floats -> |d| d, Accuracy::Exact,
    kernel: |x| x.sqrt(),
    gradient: |cx| (cx.ct() * 0.5 / cx.result()).into(),
    samples: |s| s.all(Data::Uniform(0.5, 3.0)),
}
