//! `sigmoid` — `out = 1 / (1 + e⁻ˣ)`, for every element.
//!
//! * **C1** the operand holds floats.

use thalweg_graph::Accuracy;

super::unary! {
    /// `out = 1 / (1 + e⁻ˣ)`, for every element.
    Sigmoid, "sigmoid", sigmoid, Floats -> |d| d, Accuracy::Ulps(4),
    kernel: |x| 1.0 / (1.0 + (-x).exp()),
    gradient: |cx| (cx.ct() * cx.result() * (1.0 - cx.result())).into(),
    samples: |s| s,
}
