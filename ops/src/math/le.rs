//! `le` — `out = whether lhs ≤ rhs`, element by element, with broadcasting.
//!
//! * **C1** the operands have one element type, and hold numbers.
//! * **C2** their shapes broadcast: aligned at the right, extents are equal or 1.

use thalweg_graph::Accuracy;

super::binary! {
    /// `out = whether lhs ≤ rhs`, element by element, with broadcasting.
    Le, "le", le, Numbers, Le, Accuracy::Exact,
    gradient: |_cx| [None, None],
    samples: |s| s.no_gradient(),
    half: Follows,
}

impl<'g> crate::Tensor<'g> {
    /// Whether each element is greater than or equal to its counterpart.
    #[track_caller]
    pub fn ge(self, other: impl Into<super::Operand<'g>>) -> Self {
        other.into().beside(self).le(self)
    }
}
