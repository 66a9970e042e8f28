//! `log` — `out = ln x`, for every element.
//!
//! * **C1** the operand holds floats.

use crate::sample::Data;
use thalweg_graph::Accuracy;

super::unary! {
    /// `out = ln x`, for every element.
    Log, "log", log, Floats -> |d| d, Accuracy::Ulps(2),
    kernel: |x| x.log(),
    gradient: |cx| (cx.ct() / cx.operand(0)).into(),
    samples: |s| s.all(Data::Uniform(0.5, 3.0)),
}
