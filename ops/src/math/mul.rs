//! `mul` — `out = lhs · rhs`, element by element, with broadcasting.
//!
//! * **C1** the operands have one element type, and hold numbers.
//! * **C2** their shapes broadcast: aligned at the right, extents are equal or 1.

use thalweg_graph::Accuracy;

super::binary! {
    /// `out = lhs · rhs`, element by element, with broadcasting.
    Mul, "mul", times, Numbers, Mul, Accuracy::Exact,
    gradient: |cx| [Some(cx.ct() * cx.operand(1)), Some(cx.ct() * cx.operand(0))],
    samples: |s| s,
}

super::operator!(Mul, mul, times);
