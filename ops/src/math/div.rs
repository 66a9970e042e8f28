//! `div` — `out = lhs / rhs`, element by element, with broadcasting.
//!
//! * **C1** the operands have one element type, and hold numbers.
//! * **C2** their shapes broadcast: aligned at the right, extents are equal or 1.

use crate::sample::Data;
use thalweg_graph::Accuracy;

super::binary! {
    /// `out = lhs / rhs`, element by element, with broadcasting.
    Div, "div", over, Numbers, Div, Accuracy::Exact,
    gradient: |cx| [Some(cx.ct() / cx.operand(1)), Some(-(cx.ct() * cx.result() / cx.operand(1)))],
    samples: |s| s.all(Data::Uniform(0.5, 2.0)),
}

super::operator!(Div, div, over);
