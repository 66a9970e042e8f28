//! `max` — `out = max x` over some axes. NaN wins; nothing at all
//! gives −∞ (or the smallest integer). The gradient is shared equally between the places that tie.
//!
//! * **C1** `axes` are axes of the operand, each once (negative ones from the end; none: all).
//! * **C2** the operand holds numbers.

use crate::sample::Data;
use thalweg_graph::Accuracy;

super::reduction! {
    /// The largest element; NaN wins.
    Max, "max", Numbers, Max, Accuracy::Exact,
    methods: max, max_over, max_keep,
    gradient: |this, cx| super::extremum_gradient(cx, &this.axes),
    samples: |s| s.all(Data::Distinct),
}
