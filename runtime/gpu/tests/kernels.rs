//! Kernels of every sort on the GPU against the interpreter, and what WGSL leaves to drivers: functions, 64-bit integers,
//! halves, the bits of parts of words. Tolerances are stated here, each with its reason.

mod common;

use common::{Random, check, gpu, run, ty};
use thalweg_graph::DType::{self, BF16, Bool, F16, F32, F64, I32, I64, U8, U32};
use thalweg_graph::kernel::build::*;
use thalweg_graph::kernel::interpret::{Number, Values};
use thalweg_graph::kernel::{Attention, Binary, BufferType, Group, Kernel, Literal, Member, Monoid, Passed, Unary};

/// An element-wise kernel of operands of one length.
fn each(n: u64, operands: &[DType], result: DType, f: impl FnOnce(Vec<Expr>) -> Expr) -> Kernel {
    let mut axes = Axes::new();
    let [i] = axes.par([n]);
    let types: Vec<BufferType> = operands.iter().map(|d| ty(*d, &[n])).collect();
    let reads = (0..operands.len()).map(|k| read(k as u16, [i])).collect();
    axes.nest(&types, &[ty(result, &[n])], [f(reads)])
}

fn floats(data: impl Iterator<Item = f32>) -> Values {
    let data: Vec<_> = data.map(|x| Number::Float(f64::from(x))).collect();
    Values { ty: ty(F32, &[data.len() as u64]), data }
}

fn ulps(have: f64, want: f64) -> f64 {
    if have.is_nan() == want.is_nan() && (have.is_nan() || have as f32 == want as f32) {
        return 0.0;
    }
    let near = (want as f32).abs().max(f32::MIN_POSITIVE);
    (have - want).abs() / f64::from(f32::from_bits(near.to_bits() + 1) - near)
}

#[test]
fn functions_are_as_near_as_they_say() {
    let Some(mut device) = gpu("functions_are_as_near_as_they_say") else { return };
    let every = |step: usize| floats((0..=u32::MAX).step_by(step).map(f32::from_bits).filter(|x| !x.is_subnormal()));
    let x = every(40_009);
    let n = x.data.len() as u64;
    type Exact = fn(f64) -> f64;
    let functions: [(Unary, Exact, f64); 7] = [
        (Unary::Exp, f64::exp, 2.0),
        (Unary::Log, f64::ln, 2.0),
        (Unary::Tanh, f64::tanh, 3.0),
        (Unary::Erf, libm::erf, 3.0),
        (Unary::Sin, f64::sin, 3.0),
        (Unary::Cos, f64::cos, 3.0),
        (Unary::Sqrt, f64::sqrt, 3.0),
    ];
    for (op, exact, most) in functions {
        let kernel = each(n, &[F32], F32, |r| r[0].clone().unary(op));
        let have = run(&mut device, &kernel, std::slice::from_ref(&x)).expect("it runs");
        let pairs = have[0].data.iter().zip(&x.data).map(|(y, x)| (ulps(y.f64(), exact(x.f64())), x.f64()));
        // What is below the smallest normal number may be flushed to zero.
        let worst = pairs.fold((0.0, 0.0), |a, b| if b.0 > a.0 { b } else { a });
        println!("{}: {:.2} ulp at {:e}", op.name(), worst.0, worst.1);
        assert!(worst.0 <= most, "{}: {} ulp at {:e}", op.name(), worst.0, worst.1);
    }
    let mut random = Random(3);
    let mut pick = |scale: f64| floats((0..50_000).map(|_| (random.unit() * scale).exp() as f32));
    let (a, b) = (pick(20.0), pick(2.0));
    let kernel = each(50_000, &[F32, F32], F32, |r| r[0].clone().binary(Binary::Pow, r[1].clone()));
    let have = run(&mut device, &kernel, &[a.clone(), b.clone()]).expect("it runs");
    let exact = a.data.iter().zip(&b.data).map(|(a, b)| a.f64().powf(b.f64()));
    let worst = have[0].data.iter().zip(exact).map(|(y, want)| ulps(y.f64(), want)).fold(0.0, f64::max);
    println!("pow: {worst:.2} ulp");
    assert!(worst <= 4.0, "pow: {worst} ulp");
}

#[test]
fn powers_and_remainders_of_special_values() {
    let Some(mut device) = gpu("powers_and_remainders_of_special_values") else { return };
    let odd = [0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.5, 3.0, -3.0, 2.5, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1e30];
    let pairs = || odd.iter().flat_map(|a| odd.iter().map(move |b| (*a, *b)));
    let operands = [floats(pairs().map(|p| p.0)), floats(pairs().map(|p| p.1))];
    let n = (odd.len() * odd.len()) as u64;
    for op in [Binary::Pow, Binary::Rem, Binary::Max, Binary::Min] {
        check(&mut device, &each(n, &[F32, F32], F32, |r| r[0].clone().binary(op, r[1].clone())), &operands, 1e-6);
    }
    for op in [Binary::Lt, Binary::Le, Binary::Eq, Binary::Ne] {
        check(&mut device, &each(n, &[F32, F32], Bool, |r| r[0].clone().binary(op, r[1].clone())), &operands, 0.0);
    }
}

/// Integers of all sizes, the extremes among them.
fn integers(dtype: DType, n: u64, random: &mut Random) -> Values {
    let mut one = || {
        let word = random.word() as i64;
        let word = word >> random.below(64);
        [word, i64::MIN, i64::MAX, -1, 0, 1][if random.below(3) == 0 { random.below(6) as usize } else { 0 }]
    };
    let round = |i| thalweg_graph::kernel::interpret::round(Number::Int(i), dtype, common::exact());
    Values { ty: ty(dtype, &[n]), data: (0..n).map(|_| round(one())).collect() }
}

#[test]
fn integers_of_every_width_wrap_alike() {
    let Some(mut device) = gpu("integers_of_every_width_wrap_alike") else { return };
    let mut random = Random(11);
    for dtype in [I64, I32, U32, U8, Bool] {
        let n = 3000;
        let operands = [integers(dtype, n, &mut random), integers(dtype, n, &mut random)];
        for op in Binary::ALL.iter().filter(|op| **op != Binary::Pow) {
            let to = if op.compares() { Bool } else { dtype };
            check(&mut device, &each(n, &[dtype; 2], to, |r| r[0].clone().binary(*op, r[1].clone())), &operands, 0.0);
        }
        for op in [Unary::Neg, Unary::Abs, Unary::Sign, Unary::Not] {
            let to = if op == Unary::Not { Bool } else { dtype };
            check(&mut device, &each(n, &[dtype], to, |r| r[0].clone().unary(op)), &operands[..1], 0.0);
        }
        for to in [I64, I32, U32, U8, Bool] {
            check(&mut device, &each(n, &[dtype], to, |r| r[0].clone().cast(to)), &operands[..1], 0.0);
        }
        // An f32 of a 64-bit integer is rounded once here, and twice by way of an f64.
        check(&mut device, &each(n, &[dtype], F32, |r| r[0].clone().cast(F32)), &operands[..1], 1e-7);
    }
}

#[test]
fn floats_become_integers_and_halves_as_the_interpreter_has_it() {
    let Some(mut device) = gpu("floats_become_integers_and_halves_as_the_interpreter_has_it") else { return };
    let x = floats((0..=u32::MAX).step_by(65_521).map(f32::from_bits).filter(|x| !x.is_subnormal()));
    let n = x.data.len() as u64;
    for to in [I64, I32, U32, U8, Bool, F16] {
        check(&mut device, &each(n, &[F32], to, |r| r[0].clone().cast(to)), std::slice::from_ref(&x), 0.0);
    }
    // The interpreter comes from an f64, of which its library looks at 20 bits alone before it rounds to 8.
    let kernel = each(n, &[F32], BF16, |r| r[0].clone().cast(BF16));
    let have = run(&mut device, &kernel, std::slice::from_ref(&x)).expect("it runs");
    for (have, x) in have[0].data.iter().zip(&x.data) {
        let want = half::bf16::from_f32(x.f64() as f32).to_f64();
        assert!(have.f64() == want || (have.f64().is_nan() && want.is_nan()), "{x:?} is {have:?}, not {want}");
    }
    for half in [F16, BF16] {
        let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        let t = ty(half, &[1 << 16]);
        let operand = Values { data: common::from_bytes(&t, &all), ty: t };
        let normal = |x: &Number| !(x.f64() as f32).is_subnormal();
        let data: Vec<_> = operand.data.iter().copied().filter(normal).collect();
        let n = data.len() as u64;
        let operand = [Values { ty: ty(half, &[n]), data }];
        check(&mut device, &each(n, &[half], F32, |r| r[0].clone().cast(F32)), &operand, 0.0);
        // Sums of halves round to halves.
        let f = |r: Vec<Expr>| r[0].clone() + r[0].clone() * lit_as(0.37, half);
        check(&mut device, &each(n, &[half], half, f), &operand, if half == F16 { 0.0 } else { 4e-3 });
    }
}

#[test]
fn long_folds_are_shared_by_a_workgroup() {
    let Some(mut device) = gpu("long_folds_are_shared_by_a_workgroup") else { return };
    for dtype in [F32, F16, I64, I32, U8, Bool] {
        for monoid in Monoid::ALL {
            let (logical, floating) =
                (matches!(monoid, Monoid::Any | Monoid::All), matches!(monoid, Monoid::MeanM2 | Monoid::LogSumExp));
            if logical != (dtype == Bool)
                || (floating && !dtype.is_float())
                || (*monoid == Monoid::Prod && dtype.is_float())
            {
                continue;
            }
            let mut axes = Axes::new();
            let [i] = axes.par([5]);
            let [j, k] = axes.fold([37, 29]);
            let mut inputs = vec![read(0, [i.into(), j.into(), Affine::from(k)])];
            if monoid.inputs() == 2 {
                inputs.push(index(j * 29 + k));
            }
            let part = |p: usize| monoid.part_dtype(p, dtype);
            let results: Vec<_> = (0..monoid.parts()).map(|p| ty(part(p), &[5])).collect();
            let values = (0..monoid.parts()).map(|p| fold_part(*monoid, inputs.clone(), p as u16));
            let kernel = axes.nest(&[ty(dtype, &[5, 37, 29])], &results, values);
            assert_eq!(kernel.verify(), Vec::<String>::new());
            let text = thalweg_gpu::shaders(&kernel).expect("it is one").concat();
            assert!(text.contains("workgroupBarrier"), "a fold of 1073 points by five threads");
            let operand = Random(7).values(&kernel.operands()[0]);
            // Another order of summation, and of an f16 that is a thousandth.
            let exact =
                !dtype.is_float() || matches!(monoid, Monoid::Max | Monoid::Min | Monoid::ArgMax | Monoid::ArgMin);
            let tolerance = if exact {
                0.0
            } else if dtype == F32 {
                1e-5
            } else {
                0.2
            };
            check(&mut device, &kernel, &[operand], tolerance);
        }
    }
}

#[test]
fn scatters_give_the_same_bits_in_the_order_of_points() {
    let Some(mut device) = gpu("scatters_give_the_same_bits_in_the_order_of_points") else { return };
    for init in [None, Some(2)] {
        let mut axes = Axes::new();
        let [i, j] = axes.par([300, 19]);
        let (at, value) = ([found(read(0, [i])), j.into()], read(1, [i, j]) * 3.0);
        let result = ty(F32, &[5, 19]);
        let operands = [ty(I64, &[300]), ty(F32, &[300, 19]), result.clone()];
        let kernel = axes.scatter(&operands, &result, init, Monoid::Sum, at, value);
        let values: Vec<_> = kernel.operands().iter().map(|t| Random(1).values(t)).collect();
        // In order, as the interpreter: the same roundings.
        check(&mut device, &kernel, &values, 0.0);
    }
    let mut axes = Axes::new();
    let [i, j] = axes.par([9, 30]);
    let kernel = axes.scatter(&[ty(U8, &[9, 30])], &ty(U8, &[20]), None, Monoid::Sum, [i * 2 + j - 3], read(0, [i, j]));
    check(&mut device, &kernel, &[Random(3).values(&ty(U8, &[9, 30]))], 0.0);
}

#[test]
fn random_words_are_those_of_every_device() {
    let Some(mut device) = gpu("random_words_are_those_of_every_device") else { return };
    let mut axes = Axes::new();
    let [i] = axes.par([1001]);
    let kernel = axes.nest(
        &[ty(I64, &[])],
        &[ty(U32, &[1001])],
        [philox(0x1234_5678_9abc_def0, index(i) + lit_as(1e12, I64), read(0, [0i64; 0]))],
    );
    check(&mut device, &kernel, &[Values { ty: ty(I64, &[]), data: vec![Number::Int(1 << 40)] }], 0.0);
}

#[test]
fn groups_run_as_their_members_in_turn() {
    let Some(mut device) = gpu("groups_run_as_their_members_in_turn") else { return };
    let (t, row) = (ty(F32, &[6, 50]), ty(F32, &[6]));
    let mut axes = Axes::new();
    let [i] = axes.par([6]);
    let [j] = axes.fold([50]);
    let first = axes.nest(std::slice::from_ref(&t), std::slice::from_ref(&row), [fold(Monoid::Max, read(0, [i, j]))]);
    let mut axes = Axes::new();
    let [i, j] = axes.par([6, 50]);
    let second = axes.nest(&[t.clone(), row.clone()], std::slice::from_ref(&t), [read(0, [i, j]) - read(1, [i])]);
    let (Kernel::Nest(first), Kernel::Nest(second)) = (first, second) else { unreachable!("nests") };
    let members = vec![
        Member { nest: first, reads: vec![Passed::Operand(0)], writes: vec![Passed::Local(0)] },
        Member { nest: second, reads: vec![Passed::Operand(0), Passed::Local(0)], writes: vec![Passed::Result(0)] },
    ];
    let kernel: Kernel =
        Group { operands: vec![t.clone()], results: vec![t.clone()], locals: vec![row], rows: vec![6], members }.into();
    assert_eq!(kernel.verify(), Vec::<String>::new());
    check(&mut device, &kernel, &[Random(4).values(&t)], 0.0);
}

#[test]
fn attention_and_its_gradient() {
    let Some(mut device) = gpu("attention_and_its_gradient") else { return };
    for (causal, dtype) in [(false, F32), (true, F32), (true, F16)] {
        // More keys than a workgroup has threads, and more columns.
        let (queries, keys, features, width) = (70, 90, 5, 67);
        let t = |rows: u64, columns: u64| ty(dtype, &[2, rows, 3, columns]);
        let numbers = ty(F32, &[2, queries, 3]);
        let (q, k, v) = (t(queries, features), t(keys, features), t(keys, width));
        let forward = Attention {
            operands: vec![q.clone(), k.clone(), v.clone()],
            results: vec![t(queries, width), numbers.clone()],
            rows: 1,
            causal,
            scale: Literal::Float(0.4),
        };
        let backward = Attention {
            operands: vec![q.clone(), k.clone(), v.clone(), t(queries, width), numbers.clone(), numbers],
            results: vec![q, k, v],
            ..forward.clone()
        };
        // Sums of up to 90 terms in another order; halves are rounded at the end.
        let tolerance = if dtype == F32 { 2e-5 } else { 5e-3 };
        for kernel in [Kernel::Attention(forward), Kernel::AttentionGrad(backward)] {
            assert_eq!(kernel.verify(), Vec::<String>::new());
            let mut operands: Vec<_> = kernel.operands().iter().map(|t| Random(8).values(t)).collect();
            // A logsumexp that is one: weights of the gradient stay below one.
            operands.iter_mut().skip(4).take(1).flat_map(|o| &mut o.data).for_each(|x| *x = Number::Float(40.0));
            check(&mut device, &kernel, &operands, tolerance);
        }
    }
}

#[test]
fn single_numbers_of_f64_are_near_and_tensors_of_them_are_refused() {
    let Some(mut device) = gpu("single_numbers_of_f64_are_near_and_tensors_of_them_are_refused") else { return };
    let one = |f: &dyn Fn(Expr, Expr) -> Expr| {
        let axes = Axes::new();
        let (x, y) = (read(0, [0i64; 0]), read(1, [0i64; 0]));
        axes.nest(&[ty(F64, &[]), ty(F64, &[])], &[ty(F64, &[])], [f(x, y)])
    };
    let unary = [Unary::Exp, Unary::Log, Unary::Sqrt, Unary::Sin, Unary::Cos, Unary::Floor, Unary::Neg, Unary::Abs];
    let binary = [Binary::Add, Binary::Sub, Binary::Mul, Binary::Div, Binary::Pow, Binary::Max, Binary::Min];
    let kernels = unary.iter().map(|op| one(&|x, _| x.unary(*op)));
    let kernels: Vec<_> = kernels.chain(binary.iter().map(|op| one(&|x, y| x.binary(*op, y)))).collect();
    for (x, y) in [(0.999, 1234.0), (0.9, 7.0), (3.25e4, 1.0 / 3.0), (2.0, -5.5), (1e-9, 2.0), (10.0, 0.1)] {
        let operands = [x, y].map(|x| Values { ty: ty(F64, &[]), data: vec![Number::Float(x)] });
        for kernel in &kernels {
            // 48 bits, of which exponentials and powers lose some.
            check(&mut device, kernel, &operands, 1e-10);
        }
    }
    // A sum of f32 that is kept in f64, by one thread and by a workgroup.
    for n in [100, 1000] {
        let mut axes = Axes::new();
        let [i] = axes.fold([n]);
        let total = axes.nest(&[ty(F32, &[n])], &[ty(F64, &[])], [sum(read(0, [i]).cast(F64))]);
        check(&mut device, &total, &[Random(n).values(&ty(F32, &[n]))], 1e-11);
    }
    let error = run(&mut device, &each(2, &[F64], F64, |r| r[0].clone() * 2.0), &[Random(1).values(&ty(F64, &[2]))]);
    assert!(error.is_err_and(|e| e.to_string().contains("f64") && e.to_string().contains("tested")));
}

#[test]
fn kernels_that_differ_in_numbers_share_a_pipeline() {
    let Some(mut device) = gpu("kernels_that_differ_in_numbers_share_a_pipeline") else { return };
    let kernel = |rows: u64, columns: u64, factor: f64| {
        let mut axes = Axes::new();
        let [i] = axes.par([rows]);
        let [j] = axes.fold([columns]);
        let (from, to) = (ty(F32, &[columns, rows + 2]), ty(F32, &[rows]));
        axes.nest(&[from], &[to], [sum(read(0, [Affine::from(j), i + 2]) * lit(factor)) + lit(0.125)])
    };
    for (k, (rows, columns, factor)) in [(7, 20, 2.0), (64, 3, -1.5), (1000, 31, 0.0)].into_iter().enumerate() {
        let kernel = kernel(rows, columns, factor);
        let operand = Random(k as u64).values(&kernel.operands()[0]);
        check(&mut device, &kernel, &[operand], 1e-5);
        assert_eq!(device.pipelines_compiled(), 1, "{rows} rows of {columns}");
    }
}
