//! `add` — `out = lhs + rhs`, element by element, with broadcasting.
//!
//! * **C1** the operands have one element type, and hold numbers.
//! * **C2** their shapes broadcast: aligned at the right, extents are equal or 1.

use thalweg_graph::Accuracy;

super::binary! {
    /// `out = lhs + rhs`, element by element, with broadcasting.
    Add, "add", plus, Numbers, Add, Accuracy::Exact,
    gradient: |cx| [Some(cx.ct()), Some(cx.ct())],
    samples: |s| s,
    half: Follows,
}

super::operator!(Add, add, plus);
