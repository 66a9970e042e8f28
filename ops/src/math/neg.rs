//! `neg` — `out = −x`, for every element.
//!
//! * **C1** the operand holds numbers.

use thalweg_graph::Accuracy;

super::unary! {
    /// `out = −x`, for every element.
    Neg, "neg", negated, Numbers -> |d| d, Accuracy::Exact,
    kernel: |x| -x,
    gradient: |cx| cx.ct().negated().into(),
    samples: |s| s,
    half: Follows,
}

impl<'g> std::ops::Neg for crate::Tensor<'g> {
    type Output = crate::Tensor<'g>;
    #[track_caller]
    fn neg(self) -> Self::Output {
        self.negated()
    }
}
