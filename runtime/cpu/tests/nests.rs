//! Nests on tiles against the interpreter, one feature of the kernel IR at a time.

mod common;

use common::{Random, check, check_random, ty};
use thalweg_cpu::CompiledKernel;
use thalweg_graph::DType::{self, BF16, Bool, F16, F32, F64, I32, I64, U8, U32};
use thalweg_graph::kernel::build::*;
use thalweg_graph::kernel::{Axis, Beyond, Binary, Kernel, Monoid, Unary};

fn nest_of(kernel: &mut Kernel) -> &mut thalweg_graph::kernel::LoopNest {
    match kernel {
        Kernel::Nest(nest) => nest,
        _ => panic!("a nest"),
    }
}

#[test]
fn every_unary_function_of_every_type() {
    for dtype in DType::ALL {
        for op in Unary::ALL {
            let mut axes = Axes::new();
            let [i] = axes.par([1300]);
            let value = read(0, [i]).unary(*op);
            let result = if matches!(op, Unary::Not | Unary::IsNan) { Bool } else { dtype };
            let kernel = axes.nest(&[ty(dtype, &[1300])], &[ty(result, &[1300])], [value]);
            if !kernel.verify().is_empty() {
                continue;
            }
            let rounded = matches!(op, Unary::Exp | Unary::Log | Unary::Tanh | Unary::Sin | Unary::Cos | Unary::Erf);
            let tolerance = match dtype {
                _ if !rounded => 0.0,
                F16 => 1e-3,
                BF16 => 1e-2,
                _ => 3e-7,
            };
            check(&kernel, &[Random(1).wild_values(&ty(dtype, &[1300]))], tolerance);
        }
    }
}

#[test]
fn what_is_read_across_the_grain_is_what_lies_there() {
    // Whole tiles, parts of them, none at all; halves, which are converted on the way.
    for (dtype, [n, m]) in
        [(F32, [64, 48]), (F32, [100, 33]), (F16, [24, 130]), (F64, [7, 1000]), (F32, [0, 16]), (Bool, [40, 40])]
    {
        let mut axes = Axes::new();
        let [k, i, j] = axes.par([3, m, n]);
        let types = [ty(dtype, &[n, m, 3]), ty(dtype, &[3, n, m])];
        let value = select(valid(read_or(0, [j - 1, i.into(), k.into()], 0.0)), read(1, [k, j, i]), read(0, [j, i, k]));
        let kernel = axes.nest(&types, &[ty(dtype, &[3, m, n])], [value]);
        check_random(&kernel, 9, 0.0);
    }
}

#[test]
fn every_binary_function_of_every_type() {
    for dtype in DType::ALL {
        for op in Binary::ALL {
            let mut axes = Axes::new();
            let [i] = axes.par([1300]);
            let value = read(0, [i]).binary(*op, read(1, [i]));
            let result = if op.compares() { Bool } else { dtype };
            let types = [ty(dtype, &[1300]), ty(dtype, &[1300])];
            let kernel = axes.nest(&types, &[ty(result, &[1300])], [value]);
            if !kernel.verify().is_empty() {
                continue;
            }
            let tolerance = match (op, dtype) {
                (Binary::Pow, BF16) => 1e-2,
                (Binary::Pow, F16) => 2e-3,
                (Binary::Pow, _) => 1e-6,
                _ => 0.0,
            };
            let mut random = Random(2);
            check(&kernel, &types.each_ref().map(|t| random.wild_values(t)), tolerance);
        }
    }
}

#[test]
fn every_cast() {
    for from in DType::ALL {
        for to in DType::ALL {
            let mut axes = Axes::new();
            let [i] = axes.par([777]);
            let kernel = axes.nest(&[ty(from, &[777])], &[ty(to, &[777])], [read(0, [i]).cast(to)]);
            let mut values = Random(3).wild_values(&ty(from, &[777]));
            if from.is_float() {
                values.data[5] = thalweg_graph::kernel::interpret::Number::Float(3e9);
            }
            check(&kernel, &[values], 0.0);
        }
    }
}

#[test]
fn fused_multiply_add_rounds_once_only_where_it_is_asked_for() {
    let mut axes = Axes::new();
    let [i] = axes.par([600]);
    let types = [ty(F32, &[600]), ty(F32, &[600]), ty(F32, &[600])];
    let value = read(0, [i]) * read(1, [i]) + read(2, [i]);
    let mut kernel = axes.nest(&types, &[ty(F32, &[600])], [value]);
    check_random(&kernel, 4, 0.0);
    let insts = &mut nest_of(&mut kernel).epilogue.insts;
    let last = insts.len() - 1;
    insts[last].op = thalweg_graph::kernel::ScalarOp::Fma(0, 1, 3);
    check_random(&kernel, 4, 0.0);
}

#[test]
fn broadcasts_transposes_and_many_writes() {
    let mut axes = Axes::new();
    let [i, j, k] = axes.par([7, 33, 20]);
    let sum = read(0, [i, j, k]) + read(1, [j]);
    let product = sum.clone() * read(2, [k, i]);
    let results = [ty(F32, &[7, 33, 20]), ty(F32, &[20, 7, 33]), ty(F64, &[33, 140])];
    let (x, y, z) = (Affine::from(i), Affine::from(j), Affine::from(k));
    let kernel = axes.nest_at(
        &[ty(F32, &[7, 33, 20]), ty(F32, &[33]), ty(F32, &[20, 7])],
        &results,
        [
            (sum.clone(), vec![x.clone(), y.clone(), z.clone()]),
            (product, vec![z, x, y.clone()]),
            (sum.cast(F64), vec![y, i * 20 + k]),
        ],
    );
    check_random(&kernel, 5, 0.0);
}

#[test]
fn rank_zero_and_empty_axes() {
    let kernel = Axes::new().nest(&[ty(F32, &[])], &[ty(F32, &[])], [read::<AxisVar>(0, []) + 1.0]);
    check_random(&kernel, 6, 0.0);
    for monoid in Monoid::ALL {
        let dtype = if matches!(monoid, Monoid::Any | Monoid::All) { Bool } else { F32 };
        let mut axes = Axes::new();
        let ([i], [k]) = (axes.par([3]), axes.fold([0]));
        let mut inputs = vec![read_or(0, [i + k], 0.0)];
        if monoid.inputs() == 2 {
            inputs.push(index(k));
        }
        let parts = (0..monoid.parts()).map(|p| fold_part(*monoid, inputs.clone(), p as u16));
        let results: Vec<_> = (0..monoid.parts()).map(|p| ty(monoid.part_dtype(p, dtype), &[3])).collect();
        check_random(&axes.nest(&[ty(dtype, &[3])], &results, parts), 7, 0.0);
    }
    let mut axes = Axes::new();
    let [i, j] = axes.par([0, 5]);
    check_random(&axes.nest(&[ty(F32, &[0, 5])], &[ty(F32, &[0, 5])], [read(0, [i, j])]), 8, 0.0);
}

#[test]
fn fills_holes_digits_and_validity() {
    let mut axes = Axes::new();
    let [i, j] = axes.par([11, 40]);
    let padded = read_or(0, [i - 2, j - 3], 7.5);
    let holed = read_or(0, [holes(i - 1, 3), holes(j * 2 + 1, 3)], -1.0);
    let digits = read(1, [digit(i * 40 + j, 7, 9)]);
    let value = select(valid(padded.clone()), padded.clone() + holed.clone(), digits) - padded;
    let kernel = axes.nest(
        &[ty(F32, &[6, 30]), ty(F32, &[9])],
        &[ty(F32, &[11, 40]), ty(Bool, &[11, 40])],
        [value, valid(holed)],
    );
    check_random(&kernel, 9, 0.0);
}

#[test]
fn padding_of_long_rows() {
    let mut axes = Axes::new();
    let [i, j] = axes.par([3, 1500]);
    let kernel = axes.nest(&[ty(I64, &[3, 1000])], &[ty(I64, &[3, 1500])], [read_or(0, [i.into(), j - 250], 3.0)]);
    check_random(&kernel, 10, 0.0);
}

#[test]
fn gathers_clamp_or_are_outside() {
    for beyond in [Beyond::Clamp, Beyond::Outside] {
        for dtype in [I64, I32, U8] {
            let mut axes = Axes::new();
            let [i, j] = axes.par([50, 17]);
            let at = Ix::Value(read(1, [Ix::Value(read(2, [i]), Beyond::Clamp)]), beyond);
            let value = read_or(0, [at, j.into()], -9.0);
            let types = [ty(F32, &[4, 17]), ty(dtype, &[6]), ty(I64, &[50])];
            check_random(&axes.nest(&types, &[ty(F32, &[50, 17])], [value]), 11, 0.0);
        }
    }
}

#[test]
fn indices_are_global_when_axes_are_cut() {
    let mut axes = Axes::new();
    let ([i, j], [k]) = (axes.par([6, 10]), axes.fold([5]));
    let where_best = fold_part(Monoid::ArgMax, vec![read(0, [i + j * 2 + k]), index(k * 3 + j)], 1);
    let mut kernel =
        axes.nest(&[ty(F32, &[28])], &[ty(I64, &[6, 10]), ty(I64, &[6, 10])], [where_best, index(i * 100 + j - 3)]);
    nest_of(&mut kernel).axes[1] = Axis { extent: 10, fold: false, origin: 30, whole: 50 };
    nest_of(&mut kernel).axes[2] = Axis { extent: 5, fold: true, origin: 7, whole: 12 };
    check_random(&kernel, 12, 0.0);
}

#[test]
fn random_bits_are_those_of_the_interpreter() {
    let mut axes = Axes::new();
    let [i, j] = axes.par([9, 100]);
    let bits = philox(0x1234_5678_9ABC, index(i * 100 + j), read(0, [0]));
    let kernel = axes.nest(&[ty(I64, &[1])], &[ty(U32, &[9, 100])], [bits]);
    check_random(&kernel, 13, 0.0);
}

#[test]
fn every_fold_of_every_type_in_every_shape() {
    // Few results of long folds, many of short, contiguous along either, and over two axes.
    for (par, fold, strides) in [
        ([1, 1], [1, 3000], [0, 0, 0, 1]),
        ([1, 5], [1, 700], [0, 700, 0, 1]),
        ([1, 600], [1, 9], [0, 1, 0, 600]),
        ([3, 4], [50, 33], [33, 0, 100, 1]),
        ([1, 1], [4, 60_000], [0, 0, 60_000, 1]),
        ([30, 40], [2, 2], [1, 30, 5, 7]),
    ] {
        for monoid in Monoid::ALL {
            for dtype in DType::ALL {
                let mut axes = Axes::new();
                let ([a, b], [c, d]) = (axes.par(par), axes.fold(fold));
                let at = a * strides[0] + b * strides[1] + c * strides[2] + d * strides[3];
                let len = at.range(&[par, fold].concat().iter().map(|e| Axis::new(*e, false)).collect::<Vec<_>>());
                let len = len.expect("small").1 as u64 + 1;
                let mut inputs = vec![read(0, [at.clone()])];
                if monoid.inputs() == 2 {
                    inputs.push(index(at));
                }
                let held = dtype.accumulator();
                let parts = (0..monoid.parts()).map(|p| fold_part(*monoid, inputs.clone(), p as u16));
                let results: Vec<_> = (0..monoid.parts()).map(|p| ty(monoid.part_dtype(p, held), &par)).collect();
                let kernel = axes.nest(&[ty(dtype, &[len])], &results, parts);
                if !kernel.verify().is_empty() || (len > 100_000 && !matches!(dtype, F32 | I64)) {
                    continue;
                }
                let exact =
                    !held.is_float() || matches!(monoid, Monoid::Max | Monoid::Min | Monoid::ArgMax | Monoid::ArgMin);
                let mut values = if exact {
                    Random(14).wild_values(&ty(dtype, &[len]))
                } else {
                    Random(14).values(&ty(dtype, &[len]))
                };
                if *monoid == Monoid::Prod && held.is_float() {
                    values.data.iter_mut().for_each(|x| {
                        *x = thalweg_graph::kernel::interpret::Number::Float(if x.f64() < 0.0 { -1.0 } else { 1.0 });
                    });
                }
                let tolerance = if exact {
                    0.0
                } else if held == F64 {
                    1e-11
                } else {
                    1e-4 * (1.0 + (len as f64).sqrt() / 50.0)
                };
                check(&kernel, &[values], tolerance);
            }
        }
    }
}

#[test]
fn folds_that_reuse_what_does_not_change_and_an_epilogue_with_reads() {
    let mut axes = Axes::new();
    let ([n, c], [h]) = (axes.par([4, 37]), axes.fold([90]));
    let centred = read(0, [n, c, h]) - read(1, [c]);
    let spread = sum(centred.clone() * centred);
    let top = fold(Monoid::Max, read(0, [n, c, h]) * lit(2.0));
    let value = (spread / 90.0 + 1e-5).sqrt() * read(2, [n, c]) + top;
    let types = [ty(F32, &[4, 37, 90]), ty(F32, &[37]), ty(F32, &[4, 37])];
    check_random(&axes.nest(&types, &[ty(F32, &[4, 37])], [value]), 15, 1e-5);
}

/// Numbers per row are taken from one lane where an operation can, and are there in all lanes where it cannot.
#[test]
fn what_is_the_same_along_a_row_meets_what_is_not() {
    let tolerance = |dtype| if dtype == F32 { 3e-7 } else { 1e-2 };
    for (dtype, [n, m]) in [(F32, [7, 1000]), (F32, [3, 2500]), (F32, [40, 20]), (F32, [5, 1]), (F16, [4, 1100])] {
        let (whole, rows) = (ty(dtype, &[n, m]), ty(dtype, &[n]));
        let types = [whole.clone(), rows.clone(), rows.clone()];
        let mut axes = Axes::new();
        let [i, j] = axes.par([n, m]);
        let (x, a, b) = (|| read(0, [i, j]), || read(1, [i]), || read(2, [i]));
        let scale = || (a() * 0.5 + b()).exp();
        let values = [
            (x() - a()) * b() + x(),
            b() - (x() + a()) * scale(),
            select(a().lt(x()), scale(), b() / x().abs().exp()),
            // Nothing of a lane's own: every lane is looked at.
            scale() * b(),
            a(),
        ];
        let results = vec![whole.clone(); values.len()];
        check_random(&axes.nest(&types, &results, values), 3, tolerance(dtype));

        let mut axes = Axes::new();
        let ([i], [j]) = (axes.par([n]), axes.fold([m]));
        let values = [
            fold(Monoid::Max, (read(0, [i, j]) - read(1, [i])) * read(2, [i]).exp()),
            fold(Monoid::Max, read(0, [i, j])),
            fold(Monoid::Min, read(1, [i]) * read(2, [i])),
        ];
        check_random(&axes.nest(&types, &vec![rows.clone(); 3], values), 4, tolerance(dtype));
    }
}

#[test]
fn max_pooling_with_the_place_of_the_maximum() {
    let mut axes = Axes::new();
    let ([n, c, y, x], [ky, kx]) = (axes.par([3, 5, 4, 4]), axes.fold([3, 3]));
    let (h, w) = (y * 2 + ky - 1, x * 2 + kx - 1);
    let pixel = read_or(0, [n.into(), c.into(), h.clone(), w.clone()], f64::NEG_INFINITY);
    let parts = [0, 1].map(|p| fold_part(Monoid::ArgMax, vec![pixel.clone(), index(h.clone() * 8 + w.clone())], p));
    let kernel = axes.nest(&[ty(F32, &[3, 5, 8, 8])], &[ty(F32, &[3, 5, 4, 4]), ty(I64, &[3, 5, 4, 4])], parts);
    check(&kernel, &[Random(16).wild_values(&ty(F32, &[3, 5, 8, 8]))], 0.0);
}

#[test]
fn element_wise_results_may_lie_on_their_operand() {
    let mut axes = Axes::new();
    let [i, j] = axes.par([30, 50]);
    let types = [ty(F32, &[30, 50]), ty(F32, &[50, 30])];
    let results = [ty(F32, &[30, 50]), ty(I32, &[30, 50])];
    let value = read(0, [i, j]) + read(1, [j, i]);
    let kernel = axes.nest(&types, &results, [value, read(0, [i, j]).cast(I32)]);
    assert!(kernel.may_write_in_place(0, 0) && kernel.may_write_in_place(1, 0));
    assert!(!kernel.may_write_in_place(0, 1) && !kernel.may_write_in_place(2, 0));
    let mut random = Random(17);
    let operands: Vec<_> = types.iter().map(|t| common::to_bytes(&random.values(t))).collect();
    let compiled = CompiledKernel::compile(&kernel).expect("verifies");
    let apart = common::run_bytes(&compiled, &kernel, &operands, None);
    for result in 0..2 {
        let mut buffers: Vec<_> = operands.iter().chain(&apart).map(|b| common::Buffer::of(b)).collect();
        let mut at: Vec<_> = buffers.iter_mut().map(common::Buffer::ptr).collect();
        at[2 + result] = at[0];
        // SAFETY: live buffers of the kernel's types; the overlap is one that the kernel allows.
        unsafe { compiled.run(&[at[0], at[1]], &at[2..], std::ptr::null_mut(), None) };
        assert_eq!(buffers[0].bytes_mut(), &apart[result][..]);
        assert_eq!(buffers[3 - result].bytes_mut(), &apart[1 - result][..]);
    }
}

#[test]
fn a_kernel_that_does_not_verify_is_refused() {
    let mut axes = Axes::new();
    let [i] = axes.par([4]);
    let kernel = axes.nest(&[ty(F32, &[3])], &[ty(F32, &[4])], [read(0, [i])]);
    assert!(CompiledKernel::compile(&kernel).is_err());
}

#[test]
fn launches_large_enough_for_threads() {
    let mut axes = Axes::new();
    let [i, j] = axes.par([601, 499]);
    let value = (read(0, [i, j]) * read(1, [j])).tanh() + read_or(0, [i - 1, j + 2], 0.5);
    let types = [ty(F32, &[601, 499]), ty(F32, &[499])];
    check_random(&axes.nest(&types, &[ty(F32, &[601, 499])], [value]), 30, 1e-6);
    for (par, fold, strides) in [(1, 600_000, [0, 1]), (500, 600, [600, 1]), (600, 500, [1, 600])] {
        let mut axes = Axes::new();
        let ([i], [k]) = (axes.par([par]), axes.fold([fold]));
        let at = [i * strides[0] + k * strides[1]];
        let parts = [0, 1].map(|p| fold_part(Monoid::MeanM2, vec![read(0, at.clone())], p));
        let total = fold_part(Monoid::Sum, vec![read(0, at.clone())], 0);
        let results = [ty(F64, &[par]), ty(F64, &[par]), ty(F64, &[par])];
        let [mean, spread] = parts;
        check_random(&axes.nest(&[ty(F64, &[par * fold])], &results, [mean, spread, total]), 31, 1e-9);
    }
}

#[test]
fn results_larger_than_caches_are_written_around_them() {
    // Rows of an odd length: tiles begin and end within lines.
    const N: usize = 3_200_011;
    let numbers: Vec<u8> = (0..N as u32).flat_map(|i| (i as f32).to_le_bytes()).collect();
    for rows in [1, 11] {
        let n = (N / rows) as u64;
        let mut axes = Axes::new();
        let [r, i] = axes.par([rows as u64, n]);
        let types = [ty(F32, &[rows as u64 * n])];
        let value = read(0, [r * n as i64 + i]) + lit(1.0);
        let kernel = axes.nest_at(&types, &types, [(value, vec![r * n as i64 + i])]);
        let compiled = CompiledKernel::compile(&kernel).expect("verifies");
        let operand = numbers[..rows * n as usize * 4].to_vec();
        let got = common::run_bytes(&compiled, &kernel, &[operand], None);
        for (i, x) in got[0].chunks(4).enumerate() {
            assert_eq!(f32::from_le_bytes(x.try_into().expect("4 bytes")), i as f32 + 1.0, "[{i}] of {rows} rows");
        }
    }
}
