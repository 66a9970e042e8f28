//! `cos` — `out = cos x`, for every element.
//!
//! * **C1** the operand holds floats.

use thalweg_graph::Accuracy;

super::unary! {
    /// `out = cos x`, for every element.
    Cos, "cos", cos, Floats -> |d| d, Accuracy::Ulps(2),
    kernel: |x| x.cos(),
    gradient: |cx| (cx.ct() * cx.operand(0).sin()).negated().into(),
    samples: |s| s,
}
