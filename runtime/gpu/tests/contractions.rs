//! Contractions as tiles: matrix products, convolutions and both their gradients are recognized, and agree with the
//! interpreter and with the threads per point that know nothing of tiles; so does what follows them in their epilogues.

mod common;

use common::products::{Conv, readers};
use common::{Random, close, gpu, run, ty};
use thalweg_gpu::GpuDevice;
use thalweg_graph::DType::{BF16, F16, F32};
use thalweg_graph::kernel::build::*;
use thalweg_graph::kernel::interpret::{self, Number, Precision, Values};
use thalweg_graph::kernel::{BufferType, Kernel};

/// Operations that the interpreter is asked for.
const MOST: f64 = 1e7;

fn text(kernel: &Kernel) -> String {
    thalweg_gpu::shaders(kernel).expect("it runs on a GPU").join("\n")
}

fn operands(kernel: &Kernel, seed: u64) -> Vec<Values> {
    let mut random = Random(seed);
    kernel.operands().iter().map(|t| random.values(t)).collect()
}

/// The kernel runs as tiles, and is right.
#[track_caller]
fn agrees(device: &mut GpuDevice, kernel: &Kernel, tolerance: f64) {
    assert_eq!(kernel.verify(), [""; 0]);
    let text = text(kernel);
    assert!(text.contains("var<workgroup> strip"), "not recognized: {kernel:?}\n{text}");
    assert!(kernel.cost().flops < MOST, "too large to check");
    let operands = operands(kernel, 31);
    let have = run(device, kernel, &operands).unwrap_or_else(|e| panic!("{e}\n{kernel:?}\n{text}"));
    let want = interpret::run(kernel, &operands.iter().collect::<Vec<_>>(), Precision::Reference);
    let wrong = |(a, b): &(&Number, &Number)| !close(**a, **b, tolerance);
    let pairs = || have[0].data.iter().zip(&want[0].data);
    if let Some(i) = pairs().position(|p| wrong(&p)) {
        let wrong = pairs().filter(wrong).count();
        let (a, b) = (have[0].data[i], want[0].data[i]);
        panic!("[{i}] is {a:?}, not {b:?}, and {wrong} of {} are wrong\n{kernel:?}\n{text}", have[0].data.len());
    }
    // Again, and the bits are the same.
    let again = run(device, kernel, &operands).expect("it ran before");
    assert!(again[0].data.iter().zip(&have[0].data).all(|(a, b)| a.f64().to_bits() == b.f64().to_bits()));
}

fn product([m, n, k]: [u64; 3], flips: u32) -> Kernel {
    let mut axes = Axes::new();
    let ([i, j], [l]) = (axes.par([m, n]), axes.fold([k]));
    let flip = |bit: u32, a: [AxisVar; 2]| if flips >> bit & 1 == 1 { [a[1], a[0]] } else { a };
    let shape = |bit: u32, s: [u64; 2]| ty(F32, &if flips >> bit & 1 == 1 { [s[1], s[0]] } else { s });
    let value = sum(read(0, flip(0, [i, l])) * read(1, flip(1, [l, j])));
    axes.nest_at(
        &[shape(0, [m, k]), shape(1, [k, n])],
        &[shape(2, [m, n])],
        [(value, flip(2, [i, j]).map(Affine::from).to_vec())],
    )
}

#[test]
fn matrix_products_of_random_shapes_with_any_transpose() {
    let Some(mut device) = gpu("matrix_products_of_random_shapes_with_any_transpose") else { return };
    let mut random = Random(5);
    let mut shapes = vec![[64, 10, 32], [130, 150, 40], [20, 8, 5000], [8, 8, 8], [64, 64, 16], [9, 400, 33]];
    shapes.extend((0..12).map(|_| [0; 3].map(|_| 8 + random.below(90))));
    for (i, shape) in shapes.into_iter().enumerate() {
        agrees(&mut device, &product(shape, i as u32 * 3), 1e-4);
    }
    // All else being equal, all numbers are parameters.
    let before = device.pipelines_compiled();
    agrees(&mut device, &product([131, 149, 41], 3), 1e-4);
    assert_eq!(device.pipelines_compiled(), before);
}

#[test]
fn a_long_depth_is_cut_where_the_result_is_small() {
    let Some(mut device) = gpu("a_long_depth_is_cut_where_the_result_is_small") else { return };
    let kernel = product([17, 9, 7000], 0);
    assert_eq!(thalweg_gpu::shaders(&kernel).expect("it runs").len(), 2);
    agrees(&mut device, &kernel, 1e-4);
    let reader = &readers(&kernel.results()[0])[0];
    agrees(&mut device, &kernel.with_reader(reader, 0).expect("one launch"), 1e-4);
}

#[test]
fn batches_broadcasts_and_several_depths() {
    let Some(mut device) = gpu("batches_broadcasts_and_several_depths") else { return };
    let mut axes = Axes::new();
    let ([b, h, i, j], [l]) = (axes.par([3, 4, 20, 24]), axes.fold([16]));
    let value = sum(read(0, [b, i, h, l]) * read(1, [b, j, h, l]));
    let types = [ty(F32, &[3, 20, 4, 16]), ty(F32, &[3, 24, 4, 16])];
    agrees(&mut device, &axes.nest(&types, &[ty(F32, &[3, 4, 20, 24])], [value]), 1e-4);
    let mut axes = Axes::new();
    let ([b, t, j], [l]) = (axes.par([5, 12, 9]), axes.fold([40]));
    let value = sum(read(1, [j, l]) * read(0, [b, t, l]));
    agrees(
        &mut device,
        &axes.nest(&[ty(F32, &[5, 12, 40]), ty(F32, &[9, 40])], &[ty(F32, &[5, 12, 9])], [value]),
        1e-4,
    );
    let mut axes = Axes::new();
    let ([i, j], [b, t]) = (axes.par([30, 9]), axes.fold([50, 70]));
    let value = sum(read(0, [b, i, t]) * read(1, [t, b, j]));
    agrees(
        &mut device,
        &axes.nest(&[ty(F32, &[50, 30, 70]), ty(F32, &[70, 50, 9])], &[ty(F32, &[30, 9])], [value]),
        1e-4,
    );
    // A border that is not zero.
    let mut axes = Axes::new();
    let ([i, j], [l]) = (axes.par([40, 30]), axes.fold([20]));
    let value = sum(read_or(0, [i - 3, l + 2], 1.5) * read(1, [l, j]));
    agrees(&mut device, &axes.nest(&[ty(F32, &[40, 20]), ty(F32, &[20, 30])], &[ty(F32, &[40, 30])], [value]), 1e-4);
}

#[test]
fn halves_are_multiplied_and_summed_as_floats() {
    let Some(mut device) = gpu("halves_are_multiplied_and_summed_as_floats") else { return };
    for (half, tolerance) in [(F16, 2e-3), (BF16, 2e-2)] {
        let types = [ty(half, &[40, 100]), ty(half, &[100, 24])];
        for wide in [true, false] {
            let mut axes = Axes::new();
            let ([i, j], [l]) = (axes.par([40, 24]), axes.fold([100]));
            let (a, b) = (read(0, [i, l]), read(1, [l, j]));
            let value = if wide { sum(a.cast(F32) * b.cast(F32)) } else { sum_of_products(a, b, half) };
            let kernel = axes.nest(&types, &[ty(if wide { F32 } else { half }, &[40, 24])], [value]);
            agrees(&mut device, &kernel, if wide { 1e-4 } else { tolerance });
        }
    }
}

#[test]
fn convolutions_and_both_gradients() {
    let Some(mut device) = gpu("convolutions_and_both_gradients") else { return };
    let plain = Conv {
        n: 3,
        ci: 5,
        co: 9,
        groups: 1,
        size: [8, 9],
        window: [3, 3],
        stride: 1,
        dilation: 1,
        pad: 1,
        dtype: F32,
    };
    for conv in [
        Conv { ci: 8, ..plain },
        Conv { ci: 10, stride: 2, size: [9, 12], ..plain },
        Conv { ci: 9, stride: 3, pad: 2, window: [5, 4], size: [14, 15], ..plain },
        Conv { ci: 8, groups: 2, stride: 2, dilation: 2, pad: 3, size: [16, 10], ..plain },
        Conv { n: 16, ci: 16, window: [1, 1], pad: 0, ..plain },
        Conv { n: 2, ci: 8, co: 8, size: [24, 30], pad: 2, window: [5, 5], ..plain },
    ] {
        for kernel in [conv.forward(), conv.input_gradient(), conv.weight_gradient()] {
            agrees(&mut device, &kernel, 1e-4);
        }
    }
}

#[test]
fn what_follows_a_product_is_done_where_its_sums_are() {
    let Some(mut device) = gpu("what_follows_a_product_is_done_where_its_sums_are") else { return };
    let conv = Conv {
        n: 2,
        ci: 4,
        co: 12,
        groups: 1,
        size: [8, 9],
        window: [3, 3],
        stride: 1,
        dilation: 1,
        pad: 1,
        dtype: F32,
    };
    for kernel in [product([70, 30, 40], 0), conv.forward()] {
        for reader in readers(&kernel.results()[0]) {
            let both = kernel.with_reader(&reader, 0).expect("one launch");
            // One reader multiplies a sum that is nearly nothing by up to 88.
            agrees(&mut device, &both, 1e-3);
        }
    }
}

/// Zeros that stand beyond the last row and the last step change nothing, whatever they would be multiplied with.
#[test]
fn infinities_stay_in_their_rows_and_sums_of_nothing_are_as_they_were() {
    let Some(mut device) = gpu("infinities_stay_in_their_rows_and_sums_of_nothing_are_as_they_were") else { return };
    let kernel = product([9, 11, 21], 0);
    let mut operands = operands(&kernel, 3);
    for (k, at) in [(0, 3 * 21 + 20), (1, 20 * 11 + 10)] {
        operands[k].data[at] = Number::Float(f64::INFINITY);
    }
    // A row of −0 times what is positive is −0.
    operands[0].data[..21].fill(Number::Float(-0.0));
    operands[1].data.iter_mut().for_each(|x| *x = Number::Float(x.f64().abs().min(9.0)));
    let have = run(&mut device, &kernel, &operands).expect("it runs");
    let want = interpret::run(&kernel, &operands.iter().collect::<Vec<_>>(), Precision::Reference);
    for (i, (a, b)) in have[0].data.iter().zip(&want[0].data).enumerate() {
        assert!(close(*a, *b, 1e-4), "[{i}] is {a:?}, not {b:?}");
        assert!(i >= 11 || a.f64().to_bits() == (-0.0f64).to_bits(), "[{i}] is {a:?}, not −0");
    }
    assert!(have[0].data.iter().filter(|x| x.f64().is_infinite()).count() >= 11);
}

#[test]
fn what_only_looks_like_a_product_is_threads_per_point() {
    let types: [BufferType; 2] = [ty(F32, &[20, 30]), ty(F32, &[30, 20])];
    let values = [
        |x: Expr, y: Expr| fold(thalweg_graph::kernel::Monoid::Max, x * y),
        |x: Expr, y: Expr| sum(x + y),
        |x: Expr, y: Expr| sum((x * y).exp()),
    ];
    for value in values {
        let mut axes = Axes::new();
        let ([i, j], [l]) = (axes.par([20, 20]), axes.fold([30]));
        let kernel = axes.nest(&types, &[ty(F32, &[20, 20])], [value(read(0, [i, l]), read(1, [l, j]))]);
        assert!(!text(&kernel).contains("strip"));
    }
}
