//! Scatters against the interpreter: contributions combine in the order of their points.

mod common;

use common::{check_random, ty};
use thalweg_graph::DType::{self, Bool, F32, I64};
use thalweg_graph::kernel::Monoid;
use thalweg_graph::kernel::build::*;

#[test]
fn rows_are_added_where_an_index_says() {
    for init in [None, Some(2)] {
        let mut axes = Axes::new();
        let [i, j] = axes.par([300, 19]);
        let at = [found(read(0, [i])), j.into()];
        let value = read(1, [i, j]) * 3.0;
        let result = ty(F32, &[5, 19]);
        let kernel = axes.scatter(
            &[ty(I64, &[300]), ty(F32, &[300, 19]), result.clone()],
            &result,
            init,
            Monoid::Sum,
            at,
            value,
        );
        check_random(&kernel, 1, 0.0);
    }
}

#[test]
fn every_monoid_and_type() {
    for dtype in DType::ALL {
        for monoid in Monoid::ALL.iter().filter(|m| m.parts() == 1) {
            let mut axes = Axes::new();
            let [i] = axes.par([700]);
            let kernel = axes.scatter(
                &[ty(I64, &[700]), ty(dtype, &[700])],
                &ty(dtype, &[4]),
                None,
                *monoid,
                [found(read(0, [i]))],
                read(1, [i]),
            );
            let logical = matches!(monoid, Monoid::Any | Monoid::All);
            if logical == (dtype == Bool) && *monoid != Monoid::Prod {
                check_random(&kernel, 2, 0.0);
            }
        }
    }
}

#[test]
fn affine_places_and_places_outside() {
    let mut axes = Axes::new();
    let [i, j] = axes.par([9, 30]);
    let kernel =
        axes.scatter(&[ty(F32, &[9, 30])], &ty(F32, &[20]), None, Monoid::Sum, [i * 2 + j - 3], read(0, [i, j]));
    check_random(&kernel, 3, 0.0);
}
