//! `exp` — `out = eˣ`, for every element.
//!
//! * **C1** the operand holds floats.

use thalweg_graph::Accuracy;

super::unary! {
    /// `out = eˣ`, for every element.
    Exp, "exp", exp, Floats -> |d| d, Accuracy::Ulps(2),
    kernel: |x| x.exp(),
    gradient: |cx| (cx.ct() * cx.result()).into(),
    samples: |s| s,
}
