//! `erf` — `out = 2/√π · ∫₀ˣ e^(−t²) dt`, for every element: the error function.
//!
//! * **C1** the operand holds floats.

use thalweg_graph::Accuracy;

super::unary! {
    /// `out = 2/√π · ∫₀ˣ e^(−t²) dt`, for every element: the error function.
    Erf, "erf", erf, Floats -> |d| d, Accuracy::Ulps(4),
    kernel: |x| x.erf(),
    gradient: |cx| {
        let x = cx.operand(0);
        (cx.ct() * ((x * x).negated().exp() * std::f64::consts::FRAC_2_SQRT_PI)).into()
    },
    samples: |s| s,
}
