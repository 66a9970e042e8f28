//! `floor` — `out = the largest integer not above x`, for every element.
//!
//! * **C1** the operand holds numbers.

use thalweg_graph::Accuracy;

super::unary! {
    /// `out = the largest integer not above x`, for every element.
    Floor, "floor", floor, Numbers -> |d| d, Accuracy::Exact,
    kernel: |x| x.floor(),
    gradient: |_cx| None,
    samples: |s| s.no_gradient(),
}
