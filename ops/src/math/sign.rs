//! `sign` — `out = −1, 0 or 1; NaN stays`, for every element.
//!
//! * **C1** the operand holds numbers.

use thalweg_graph::Accuracy;

super::unary! {
    /// `out = −1, 0 or 1; NaN stays`, for every element.
    Sign, "sign", sign, Numbers -> |d| d, Accuracy::Exact,
    kernel: |x| x.sign(),
    gradient: |_cx| None,
    samples: |s| s.no_gradient(),
}
