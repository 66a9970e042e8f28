//! `tanh` — `out = tanh x`, for every element.
//!
//! * **C1** the operand holds floats.

use thalweg_graph::Accuracy;

super::unary! {
    /// `out = tanh x`, for every element.
    Tanh, "tanh", tanh, Floats -> |d| d, Accuracy::Ulps(4),
    kernel: |x| x.tanh(),
    gradient: |cx| (cx.ct() * (1.0 - cx.result() * cx.result())).into(),
    samples: |s| s,
}
