//! `pow` — `out = lhs to the power rhs`, element by element, with broadcasting.
//!
//! * **C1** the operands have one element type, and hold floats.
//! * **C2** their shapes broadcast: aligned at the right, extents are equal or 1.

use crate::sample::Data;
use thalweg_graph::Accuracy;

super::binary! {
    /// `out = lhs to the power rhs`, element by element, with broadcasting.
    Pow, "pow", pow, Floats, Pow, Accuracy::Ulps(4),
    gradient: |cx| [
            Some(cx.ct() * cx.operand(1) * cx.operand(0).pow(cx.operand(1) - 1.0)),
            Some(cx.ct() * cx.result() * cx.operand(0).log()),
        ],
    samples: |s| s.all(Data::Uniform(0.5, 2.0)),
}
