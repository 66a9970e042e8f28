//! `any` — `out = whether any x holds` over some axes. Of nothing at all: no.
//!
//! * **C1** `axes` are axes of the operand, each once (negative ones from the end; none: all).
//! * **C2** the operand holds truth values.

use crate::sample::Data;
use thalweg_graph::Accuracy;

super::reduction! {
    /// Whether any element holds.
    Any, "any", Bools, Any, Accuracy::Exact,
    methods: any, any_over, any_keep,
    gradient: |this, cx| { let _ = (this, cx); Some(vec![None]) },
    samples: |s| s.all(Data::Uniform(0.0, 2.0)),
}
