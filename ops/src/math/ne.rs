//! `ne` — `out = whether lhs ≠ rhs`, element by element, with broadcasting.
//!
//! * **C1** the operands have one element type.
//! * **C2** their shapes broadcast: aligned at the right, extents are equal or 1.

use thalweg_graph::Accuracy;

super::binary! {
    /// `out = whether lhs ≠ rhs`, element by element, with broadcasting.
    Ne, "ne", ne, Anything, Ne, Accuracy::Exact,
    gradient: |_cx| [None, None],
    samples: |s| s.no_gradient(),
    half: Follows,
}
