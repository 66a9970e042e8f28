//! `maximum` — `out = the larger of lhs and rhs; NaN wins`, element by element, with broadcasting.
//!
//! * **C1** the operands have one element type, and hold numbers.
//! * **C2** their shapes broadcast: aligned at the right, extents are equal or 1.

use crate::sample::Data;
use thalweg_graph::Accuracy;

super::binary! {
    /// `out = the larger of lhs and rhs; NaN wins`, element by element, with broadcasting.
    Maximum, "maximum", maximum, Numbers, Max, Accuracy::Exact,
    gradient: |cx| {
            let left = cx.operand(0).ge(cx.operand(1));
            [Some(left.select(cx.ct(), 0.0)), Some(left.select(cx.ct().zeros_like(), cx.ct()))]
        },
    samples: |s| s.data(0, Data::Distinct).data(1, Data::Uniform(0.01, 0.05)),
    half: Follows,
}
