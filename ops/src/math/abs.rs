//! `abs` — `out = |x|`, for every element.
//!
//! * **C1** the operand holds numbers.

use crate::sample::Data;
use thalweg_graph::Accuracy;

super::unary! {
    /// `out = |x|`, for every element.
    Abs, "abs", abs, Numbers -> |d| d, Accuracy::Exact,
    kernel: |x| x.abs(),
    gradient: |cx| (cx.ct() * cx.operand(0).sign()).into(),
    samples: |s| s.all(Data::Distinct),
    half: Follows,
}
