//! `prod` — `out = Π x` over some axes. An empty product is one.
//!
//! * **C1** `axes` are axes of the operand, each once (negative ones from the end; none: all).
//! * **C2** the operand holds numbers.

use crate::sample::Data;
use thalweg_graph::Accuracy;

super::reduction! {
    /// The product of all elements.
    Prod, "prod", Numbers, Prod, Accuracy::Ulps(16),
    methods: prod, prod_over, prod_keep,
    gradient: |this, cx| {
        // Π of the others: divide by what is not zero, and where exactly one is zero, only it has a gradient.
        let (x, kept) = (cx.operand(0), super::kept(&cx.operand(0).shape(), &this.axes));
        let zero = x.eq(0.0);
        let zeros = zero.cast(x.dtype()).sum_keep(&this.axes);
        let rest = zero.select(x.ones_like(), x);
        let others = rest.prod_keep(&this.axes) / rest;
        let counts = zero.select(zeros.eq(1.0), zeros.eq(0.0));
        Some(vec![Some(counts.select(others * cx.ct().reshape(&kept), 0.0))])
    },
    samples: |s| s.all(Data::Uniform(0.5, 1.5)),
}
