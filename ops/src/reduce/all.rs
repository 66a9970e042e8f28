//! `all` — `out = whether all x hold` over some axes. Of nothing at all: yes.
//!
//! * **C1** `axes` are axes of the operand, each once (negative ones from the end; none: all).
//! * **C2** the operand holds truth values.

use crate::sample::Data;
use thalweg_graph::Accuracy;

super::reduction! {
    /// Whether all elements hold.
    All, "all", Bools, All, Accuracy::Exact,
    methods: all, all_over, all_keep,
    gradient: |this, cx| { let _ = (this, cx); Some(vec![None]) },
    samples: |s| s.all(Data::Uniform(0.0, 2.0)),
}
