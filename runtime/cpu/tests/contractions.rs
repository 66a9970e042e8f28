//! Contractions: the recognizer fires for matrix products, convolutions and both their gradients, and agrees with the
//! interpreter and with the tiles that know nothing of it. What is written into their epilogues gives the bits that it
//! gives alone.

mod common;

use common::products::{Conv, readers};
use common::{Random, check_on, device, ty};
use thalweg_cpu::CompiledKernel;
use thalweg_graph::DType::{BF16, F16, F32, F64};
use thalweg_graph::kernel::Kernel;
use thalweg_graph::kernel::build::*;
use thalweg_graph::kernel::interpret::Precision;

/// The kernel is recognized, and right.
#[track_caller]
fn recognized(kernel: &Kernel) {
    let compiled = CompiledKernel::compile(kernel).expect("verifies");
    assert!(compiled.strategy().starts_with("contraction"), "not recognized: {}", compiled.strategy());
    let mut random = Random(21);
    let operands: Vec<_> = kernel.operands().iter().map(|t| random.values(t)).collect();
    let work = kernel.cost().flops;
    if work < 6e6 {
        check_on(&compiled, kernel, &operands, Precision::Reference, 1e-3);
    }
    let generic = CompiledKernel::compile_generic(kernel).expect("verifies");
    let (have, want) = (device(&compiled, kernel, &operands), device(&generic, kernel, &operands));
    for (a, b) in have[0].data.iter().zip(&want[0].data) {
        assert!(common::close(*a, *b, 1e-3), "{a:?} is not {b:?} ({})", compiled.strategy());
    }
    for reader in readers(&kernel.results()[0]) {
        followed(kernel, &compiled, &reader);
    }
}

/// The bits are those of both launches one after the other, unless the reader turns the result around.
#[track_caller]
fn followed(kernel: &Kernel, alone: &CompiledKernel, reader: &Kernel) {
    let both = kernel.with_reader(reader, 0).expect("one launch");
    assert_eq!(both.verify(), [""; 0]);
    let compiled = CompiledKernel::compile(&both).expect("verifies");
    let strategy = compiled.strategy();
    assert!(strategy.contains("instructions on each tile") || strategy.contains(", then tiles"), "{strategy}");
    let mut random = Random(24);
    let operands: Vec<_> = both.operands().iter().map(|t| random.values(t)).collect();
    let have = device(&compiled, &both, &operands);
    let count = kernel.operands().len();
    let mut sums = device(alone, kernel, &operands[..count]);
    sums[0].ty = reader.operands()[0].clone();
    sums.extend_from_slice(&operands[count..]);
    let then = CompiledKernel::compile(reader).expect("verifies");
    let want = device(&then, reader, &sums);
    // Where the result lies otherwise, rows may be columns, and a long depth cut in other places.
    let moved =
        reader.results()[0].shape.iter().rev().eq(&reader.operands()[0].shape) && reader.results()[0].rank() > 1;
    for (i, (a, b)) in have[0].data.iter().zip(&want[0].data).enumerate() {
        let same = a.f64().to_bits() == b.f64().to_bits() || moved && common::close(*a, *b, 1e-4);
        assert!(same, "[{i}] is {a:?}, not {b:?} ({strategy}; {})", alone.strategy());
    }
}

#[test]
fn matrix_products_with_any_transpose() {
    for (m, n, k) in [(64, 10, 32), (1, 40, 100), (7, 1, 300), (33, 65, 129), (300, 200, 100), (5, 6, 20_000)] {
        for dtype in [F32, F64] {
            for flips in 0..8 {
                let mut axes = Axes::new();
                let ([i, j], [l]) = (axes.par([m, n]), axes.fold([k]));
                let flip = |bit: u32, a: [AxisVar; 2]| if flips >> bit & 1 == 1 { [a[1], a[0]] } else { a };
                let shape = |bit: u32, s: [u64; 2]| ty(dtype, &if flips >> bit & 1 == 1 { [s[1], s[0]] } else { s });
                let product = sum(read(0, flip(0, [i, l])) * read(1, flip(1, [l, j])));
                recognized(&axes.nest_at(
                    &[shape(0, [m, k]), shape(1, [k, n])],
                    &[shape(2, [m, n])],
                    [(product, flip(2, [i, j]).map(Affine::from).to_vec())],
                ));
            }
        }
    }
}

#[test]
fn batches_broadcasts_and_permuted_results() {
    let mut axes = Axes::new();
    let ([b, h, i, j], [l]) = (axes.par([3, 4, 20, 24]), axes.fold([16]));
    // Attention scores from interleaved heads.
    let product = sum(read(0, [b, i, h, l]) * read(1, [b, j, h, l]));
    recognized(&axes.nest(
        &[ty(F32, &[3, 20, 4, 16]), ty(F32, &[3, 24, 4, 16])],
        &[ty(F32, &[3, 4, 20, 24])],
        [product],
    ));
    let mut axes = Axes::new();
    let ([b, t, j], [l]) = (axes.par([5, 12, 9]), axes.fold([40]));
    let product = sum(read(1, [j, l]) * read(0, [b, t, l]));
    recognized(&axes.nest(&[ty(F32, &[5, 12, 40]), ty(F32, &[9, 40])], &[ty(F32, &[5, 12, 9])], [product]));
    let mut axes = Axes::new();
    let ([i, j], [b, t]) = (axes.par([30, 9]), axes.fold([50, 70]));
    let product = sum(read(0, [b, i, t]) * read(1, [t, b, j]));
    recognized(&axes.nest(&[ty(F32, &[50, 30, 70]), ty(F32, &[70, 50, 9])], &[ty(F32, &[30, 9])], [product]));
}

#[test]
fn convolutions_and_both_gradients() {
    let plain = Conv {
        n: 3,
        ci: 5,
        co: 6,
        groups: 1,
        size: [8, 9],
        window: [3, 3],
        stride: 1,
        dilation: 1,
        pad: 1,
        dtype: F32,
    };
    for conv in [
        Conv { ..plain },
        Conv { pad: 0, ..plain },
        Conv { n: 64, ci: 16, co: 32, size: [8, 8], ..plain },
        Conv { n: 40, ci: 1, co: 16, size: [8, 8], ..plain },
        Conv { stride: 2, size: [9, 12], ..plain },
        Conv { stride: 3, pad: 2, window: [5, 4], size: [14, 15], ..plain },
        Conv { dilation: 2, pad: 2, ..plain },
        Conv { groups: 3, ..plain },
        Conv { groups: 2, stride: 2, dilation: 2, pad: 3, size: [16, 20], ..plain },
        Conv { window: [1, 1], pad: 0, ..plain },
        Conv { window: [1, 1], pad: 0, stride: 2, n: 16, ..plain },
        Conv { n: 1, ci: 3, co: 8, size: [50, 60], window: [5, 5], pad: 2, ..plain },
        // More rows and more depth than one list or block holds.
        Conv { n: 3, ci: 20, co: 10, size: [60, 61], ..plain },
        Conv { n: 2, ci: 90, co: 9, size: [31, 30], stride: 2, ..plain },
        Conv { n: 2, ci: 3, co: 20, size: [64, 60], window: [7, 7], stride: 2, pad: 3, ..plain },
        Conv { n: 5, ci: 70, co: 20, size: [7, 7], dtype: F64, ..plain },
        Conv { stride: 2, size: [9, 12], dtype: F64, ..plain },
    ] {
        recognized(&conv.forward());
        recognized(&conv.input_gradient());
        recognized(&conv.weight_gradient());
    }
}

/// Halves are multiplied as f32, and rounded once: within one of their ulps of what f64 says, and near what tiles give.
#[test]
fn products_of_halves() {
    for (dtype, ulp) in [(F16, 1.0 / 1024.0), (BF16, 1.0 / 128.0)] {
        let conv = Conv {
            n: 3,
            ci: 5,
            co: 6,
            groups: 1,
            size: [9, 12],
            window: [3, 3],
            stride: 2,
            dilation: 1,
            pad: 1,
            dtype,
        };
        let matmul = |left, right, result| {
            let mut axes = Axes::new();
            let ([i, j], [l]) = (axes.par([33, 65]), axes.fold([129]));
            let product = sum_of_products(read(0, [i, l]), read(1, [l, j]), F16);
            axes.nest(&[ty(left, &[33, 129]), ty(right, &[129, 65])], &[ty(result, &[33, 65])], [product])
        };
        let square = {
            let mut axes = Axes::new();
            let ([i, j], [l]) = (axes.par([40, 40]), axes.fold([50]));
            let product = sum_of_products(read(0, [i, l]), read(0, [j, l]), dtype);
            axes.nest(&[ty(dtype, &[40, 50])], &[ty(dtype, &[40, 40])], [product + lit(1.0)])
        };
        let mut kernels =
            vec![matmul(dtype, dtype, dtype), matmul(dtype, F32, dtype), matmul(dtype, dtype, F32), square];
        kernels.extend([conv.forward(), conv.input_gradient(), conv.weight_gradient()].map(wide_products));
        for kernel in &kernels {
            assert_eq!(kernel.verify(), [""; 0]);
            let compiled = CompiledKernel::compile(kernel).expect("verifies");
            assert!(compiled.strategy().contains("contraction"), "not recognized: {}", compiled.strategy());
            let mut random = Random(26);
            let operands: Vec<_> = kernel.operands().iter().map(|t| random.values(t)).collect();
            check_on(&compiled, kernel, &operands, Precision::Exact, ulp);
            let Kernel::Nest(nest) = kernel else { unreachable!("they are nests") };
            let group = Kernel::Group(nest.widened().expect("halves"));
            let [alone, parted] = [kernel, &group].map(|k| {
                thalweg_graph::kernel::interpret::run(k, &operands.iter().collect::<Vec<_>>(), Precision::Exact)
            });
            assert_eq!(alone[0].data, parted[0].data, "to widen is exact");
        }
    }
}

/// The contraction with its products in f32, as ops have it.
fn wide_products(kernel: Kernel) -> Kernel {
    use thalweg_graph::kernel::{Inst, ScalarOp};
    let Kernel::Nest(mut nest) = kernel else { unreachable!("it is a nest") };
    let mut body = thalweg_graph::kernel::Scalar::default();
    let factors = [0u16, 1].map(|read| {
        let dtype = nest.operands[usize::from(nest.reads[usize::from(read)].operand)].dtype;
        let half = body.push(Inst { dtype, op: ScalarOp::Read(read) });
        body.push(Inst { dtype: F32, op: ScalarOp::Cast(half) })
    });
    let op = ScalarOp::Binary(thalweg_graph::kernel::Binary::Mul, factors[0], factors[1]);
    nest.folds[0].inputs = vec![body.push(Inst { dtype: F32, op })];
    nest.body = body;
    Kernel::Nest(nest)
}

#[test]
fn strided_gradients_are_taken_apart() {
    let conv = Conv {
        n: 2,
        ci: 8,
        co: 8,
        groups: 1,
        size: [9, 12],
        window: [3, 3],
        stride: 2,
        dilation: 1,
        pad: 1,
        dtype: F32,
    };
    let compiled = CompiledKernel::compile(&conv.input_gradient()).expect("verifies");
    assert!(compiled.strategy().ends_with("and 3 more"), "{}", compiled.strategy());
}

#[test]
fn what_only_looks_like_a_product_runs_on_tiles() {
    let types = [ty(F32, &[20, 30]), ty(F32, &[30, 20])];
    let kernels = [
        |x: Expr, y: Expr| fold(thalweg_graph::kernel::Monoid::Max, x * y),
        |x: Expr, y: Expr| sum(x + y),
        |x: Expr, y: Expr| sum((x * y).cast(F64)).cast(F32),
    ];
    for value in kernels {
        let mut axes = Axes::new();
        let ([i, j], [l]) = (axes.par([20, 20]), axes.fold([30]));
        let kernel = axes.nest(&types, &[ty(F32, &[20, 20])], [value(read(0, [i, l]), read(1, [l, j]))]);
        let compiled = CompiledKernel::compile(&kernel).expect("verifies");
        assert!(compiled.strategy().starts_with("tiles"), "{}", compiled.strategy());
        let mut random = Random(22);
        check_on(&compiled, &kernel, &types.each_ref().map(|t| random.values(t)), Precision::Reference, 1e-4);
    }
    let mut axes = Axes::new();
    let ([i, j], [l]) = (axes.par([20, 20]), axes.fold([30]));
    let value = sum(read_or(0, [i - 1, l.into()], 1.0) * read(1, [l, j]));
    let kernel = axes.nest(&types, &[ty(F32, &[20, 20])], [value]);
    common::check_random(&kernel, 23, 1e-4);
    assert!(CompiledKernel::compile(&kernel).expect("verifies").strategy().starts_with("tiles"));
}
