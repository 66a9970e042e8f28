//! `sin` — `out = sin x`, for every element.
//!
//! * **C1** the operand holds floats.

use thalweg_graph::Accuracy;

super::unary! {
    /// `out = sin x`, for every element.
    Sin, "sin", sin, Floats -> |d| d, Accuracy::Ulps(2),
    kernel: |x| x.sin(),
    gradient: |cx| (cx.ct() * cx.operand(0).cos()).into(),
    samples: |s| s,
}
