//! Prints how fast characteristic kernels run on one thread and on two, beside what memory and arithmetic allow.
//!
//! `cargo run --release -p thalweg-cpu --example kernel_figures [PART OF A NAME]`

use std::time::Instant;

use thalweg_cpu::CompiledKernel;
use thalweg_graph::DType::{self, BF16, F16, F32, I64};
use thalweg_graph::kernel::build::*;
use thalweg_graph::kernel::{Attention, BufferType, Kernel, Literal, Monoid};

/// Best seconds of one run over a fifth of a second.
fn best(mut run: impl FnMut()) -> f64 {
    run();
    let start = Instant::now();
    let mut best = f64::INFINITY;
    while start.elapsed().as_secs_f64() < 0.2 {
        let before = Instant::now();
        run();
        best = best.min(before.elapsed().as_secs_f64());
    }
    best
}

fn f32s(shape: &[u64]) -> BufferType {
    BufferType { dtype: F32, shape: shape.to_vec() }
}

/// Seconds alone and with two threads.
fn measure(kernel: &Kernel) -> ([f64; 2], String) {
    let compiled = CompiledKernel::compile(kernel).expect("verifies");
    let buffer = |bytes: usize| vec![[0x3f00_0000_3f00_0000u64; 8]; bytes.div_ceil(64)];
    let mut operands: Vec<_> = kernel.operands().iter().map(|t| buffer(t.size_bytes() as usize)).collect();
    let mut results: Vec<_> = kernel.results().iter().map(|t| buffer(t.size_bytes() as usize)).collect();
    let mut workspace = buffer(compiled.workspace_bytes() + 64);
    let from: Vec<_> = operands.iter_mut().map(|b| b.as_ptr().cast::<u8>()).collect();
    let to: Vec<_> = results.iter_mut().map(|b| b.as_mut_ptr().cast::<u8>()).collect();
    let space = workspace.as_mut_ptr().cast::<u8>();
    let space = space.wrapping_add(space.align_offset(64));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("threads can be started");
    let seconds = [None, Some(&pool)].map(|pool| {
        // SAFETY: live, disjoint buffers of the kernel's types.
        best(|| unsafe { compiled.run(&from, &to, space, pool) })
    });
    (seconds, compiled.strategy())
}

fn report(name: &str, kernel: &Kernel) {
    if std::env::args().nth(1).is_some_and(|part| !name.contains(&part)) {
        return;
    }
    let ([one, two], strategy) = measure(kernel);
    let (us, gflops) = (1e6, kernel.cost().flops / one / 1e9);
    println!("{name:44} {:9.1} µs {:9.1} µs on two  {gflops:7.1} GFLOP/s  {strategy}", one * us, two * us);
}

fn matmul(m: u64, k: u64, n: u64) -> Kernel {
    let mut axes = Axes::new();
    let ([i, j], [l]) = (axes.par([m, n]), axes.fold([k]));
    axes.nest(&[f32s(&[m, k]), f32s(&[k, n])], &[f32s(&[m, n])], [sum(read(0, [i, l]) * read(1, [l, j]))])
}

/// A product of halves, with its sums in f32.
fn matmul_of(dtype: DType, n: u64) -> Kernel {
    let mut axes = Axes::new();
    let ([i, j], [l]) = (axes.par([n, n]), axes.fold([n]));
    let ty = BufferType { dtype, shape: vec![n, n] };
    let product = sum_of_products(read(0, [i, l]), read(1, [l, j]), dtype);
    axes.nest(&[ty.clone(), ty.clone()], &[ty], [product])
}
/// `x · wᵀ`, `x · w` and the two gradients of a linear layer.
fn linear(m: u64, k: u64, n: u64, flip: [bool; 2]) -> Kernel {
    let mut axes = Axes::new();
    let ([i, j], [l]) = (axes.par([m, n]), axes.fold([k]));
    let (x, w) = (if flip[0] { [l, i] } else { [i, l] }, if flip[1] { [j, l] } else { [l, j] });
    let shape = |flip: bool, s: [u64; 2]| f32s(&if flip { [s[1], s[0]] } else { s });
    axes.nest(&[shape(flip[0], [m, k]), shape(flip[1], [k, n])], &[f32s(&[m, n])], [sum(read(0, x) * read(1, w))])
}
/// A convolution as a layer of a residual network has it.
fn forward(n: u64, ci: u64, co: u64, size: u64, window: u64, stride: u64) -> Kernel {
    let (pad, out) = (window / 2, size.div_ceil(stride));
    let (x, w, y) = (f32s(&[n, ci, size, size]), f32s(&[co, ci, window, window]), f32s(&[n, co, out, out]));
    let mut axes = Axes::new();
    let ([b, o, h, v], [c, p, q]) = (axes.par([n, co, out, out]), axes.fold([ci, window, window]));
    let (stride, pad) = (stride as i64, pad as i64);
    let image = [b.into(), c.into(), h * stride + p - pad, v * stride + q - pad];
    let image = if window == 1 { read(0, image) } else { read_or(0, image, 0.0) };
    axes.nest(&[x, w], &[y], [sum(image * read(1, [o, c, p, q]))])
}
/// Square images, 3×3 windows, a border of 1: forward, input gradient, weight gradient.
fn convolutions(n: u64, ci: u64, co: u64, s: u64) -> [Kernel; 3] {
    let (x, w, y) = (f32s(&[n, ci, s, s]), f32s(&[co, ci, 3, 3]), f32s(&[n, co, s, s]));
    let mut axes = Axes::new();
    let ([b, o, h, v], [c, p, q]) = (axes.par([n, co, s, s]), axes.fold([ci, 3, 3]));
    let product = read_or(0, [b.into(), c.into(), h + p - 1, v + q - 1], 0.0) * read(1, [o, c, p, q]);
    let forward = axes.nest(&[x.clone(), w.clone()], std::slice::from_ref(&y), [sum(product)]);
    let mut axes = Axes::new();
    let ([b, c, h, v], [o, p, q]) = (axes.par([n, ci, s, s]), axes.fold([co, 3, 3]));
    let product = read_or(0, [b.into(), o.into(), h - p + 1, v - q + 1], 0.0) * read(1, [o, c, p, q]);
    let input = axes.nest(&[y.clone(), w.clone()], std::slice::from_ref(&x), [sum(product)]);
    let mut axes = Axes::new();
    let ([o, c, p, q], [b, h, v]) = (axes.par([co, ci, 3, 3]), axes.fold([n, s, s]));
    let product = read(0, [b, o, h, v]) * read_or(1, [b.into(), c.into(), h + p - 1, v + q - 1], 0.0);
    let weight = axes.nest(&[y, x], &[w], [sum(product)]);
    [forward, input, weight]
}

/// Attention of `time` queries to as many keys, and its gradient; heads side by side, as a projection gives them.
fn attention(batch: u64, time: u64, heads: u64, features: u64, causal: bool) -> [Kernel; 2] {
    let (matrix, numbers) = (f32s(&[batch, time, heads, features]), f32s(&[batch, time, heads]));
    let scale = Literal::Float(1.0 / (features as f64).sqrt());
    let of = |operands, results| Attention { operands, results, rows: 1, causal, scale };
    let matrices = vec![matrix.clone(); 3];
    let operands = [&matrices[..], &[matrix.clone(), numbers.clone(), numbers.clone()]].concat();
    [Kernel::Attention(of(matrices.clone(), vec![matrix, numbers])), Kernel::AttentionGrad(of(operands, matrices))]
}

fn main() {
    for (dtype, n) in [(F16, 256), (BF16, 256), (F16, 1024), (BF16, 1024)] {
        report(&format!("matmul {n} of {dtype}"), &matmul_of(dtype, n));
    }
    let (from, mut to) = (vec![1.0f32; 1 << 20], vec![0.0f32; 1 << 20]);
    let copy = best(|| std::hint::black_box(&mut to).copy_from_slice(std::hint::black_box(&from)));
    println!(
        "memcpy of 1M f32: {:.1} µs, {:.1} GB/s read and written",
        copy * 1e6,
        8.0 * (1 << 20) as f64 / copy / 1e9
    );

    for (m, k, n) in [(1024, 1024, 1024), (256, 256, 256), (64, 784, 128), (64, 128, 10), (1, 1024, 1024)] {
        report(&format!("matmul {m}×{k}×{n}"), &matmul(m, k, n));
    }
    for (m, k, n) in [(128, 768, 768), (128, 768, 3072), (128, 3072, 768), (1024, 384, 1536)] {
        for flip in [[false, false], [false, true], [true, false]] {
            report(&format!("linear {m}×{k}×{n} {flip:?}"), &linear(m, k, n, flip));
        }
    }
    for (n, ci, co, size, window, stride) in [
        (8, 64, 64, 56, 3, 1),
        (1, 3, 64, 224, 7, 2),
        (1, 512, 512, 7, 3, 1),
        (1, 256, 256, 14, 3, 1),
        (1, 256, 64, 56, 1, 1),
        (1, 64, 256, 56, 1, 1),
        (1, 1024, 256, 14, 1, 1),
        (8, 1024, 256, 14, 1, 1),
        (1, 512, 2048, 7, 1, 1),
        (1, 1024, 2048, 14, 1, 2),
        (1, 128, 128, 56, 3, 2),
    ] {
        let name = format!("conv x[{n},{ci},{size},{size}] w[{co},{ci},{window},{window}] by {stride}");
        report(&name, &forward(n, ci, co, size, window, stride));
    }
    for (n, ci, co, s) in [(64, 16, 32, 8), (64, 1, 16, 8), (32, 64, 64, 32), (32, 128, 128, 16), (32, 512, 512, 4)] {
        for (name, kernel) in ["forward", "input gradient", "weight gradient"].iter().zip(&convolutions(n, ci, co, s)) {
            report(&format!("conv x[{n},{ci},{s},{s}] w[{co},{ci},3,3] {name}"), kernel);
        }
    }

    for (batch, time, heads, causal) in
        [(8, 128, 6, true), (1, 128, 12, false), (1, 2048, 6, true), (1, 2048, 6, false)]
    {
        for (name, kernel) in ["", " gradient"].iter().zip(&attention(batch, time, heads, 64, causal)) {
            let order = if causal { "causal " } else { "" };
            report(&format!("{order}attention [{batch},{time},{heads},64]{name}"), kernel);
        }
    }

    let mut axes = Axes::new();
    let [i, j] = axes.par([1024, 1024]);
    let square = f32s(&[1024, 1024]);
    let two = [square.clone(), square.clone()];
    let add = axes.nest(&two, std::slice::from_ref(&square), [read(0, [i, j]) + read(1, [i, j])]);
    let seconds = measure(&add).0[0];
    println!("add 1M f32: {:.0} % of memcpy's bandwidth", 150.0 * copy / seconds);
    report("add 1M f32", &add);
    for (name, op) in [
        ("exp", thalweg_graph::kernel::Unary::Exp),
        ("tanh", thalweg_graph::kernel::Unary::Tanh),
        ("log", thalweg_graph::kernel::Unary::Log),
    ] {
        let mut axes = Axes::new();
        let [i, j] = axes.par([1024, 1024]);
        let kernel = axes.nest(&two[..1], std::slice::from_ref(&square), [read(0, [i, j]).unary(op)]);
        report(&format!("{name} 1M f32"), &kernel);
    }
    let mut axes = Axes::new();
    let [i, j] = axes.par([1024, 1024]);
    report("transpose 1024×1024", &axes.nest(&two[..1], std::slice::from_ref(&square), [read(0, [j, i])]));
    let mut axes = Axes::new();
    let ([c], [n, h, w]) = (axes.par([32]), axes.fold([64, 8, 8]));
    report(
        "sum [64,32,8,8] over n,h,w",
        &axes.nest(&[f32s(&[64, 32, 8, 8])], &[f32s(&[32])], [sum(read(0, [n, c, h, w]))]),
    );
    for over_rows in [true, false] {
        let mut axes = Axes::new();
        let ([i], [k]) = (axes.par([1024]), axes.fold([1024]));
        let at = if over_rows { [i, k] } else { [k, i] };
        report(
            &format!("sum 1024×1024 over {}", if over_rows { "columns" } else { "rows" }),
            &axes.nest(&two[..1], &[f32s(&[1024])], [sum(read(0, at))]),
        );
    }
    let mut axes = Axes::new();
    let [i, j] = axes.fold([1024, 1024]);
    report("sum of 1M f32", &axes.nest(&two[..1], &[f32s(&[])], [sum(read(0, [i, j]))]));
    let mut axes = Axes::new();
    let ([n, c, y, x], [p, q]) = (axes.par([64, 32, 4, 4]), axes.fold([2, 2]));
    let place = index((y * 2 + p) * 8 + x * 2 + q);
    let pixel = read(0, [n.into(), c.into(), y * 2 + p, x * 2 + q]);
    let parts = [0, 1].map(|k| fold_part(Monoid::ArgMax, vec![pixel.clone(), place.clone()], k));
    let at = BufferType { dtype: I64, shape: vec![64, 32, 4, 4] };
    report(
        "max-pool 2×2 with places [64,32,8,8]",
        &axes.nest(&[f32s(&[64, 32, 8, 8])], &[f32s(&[64, 32, 4, 4]), at], parts),
    );
    let mut axes = Axes::new();
    let [n, c, h] = axes.par([64, 32, 64]);
    let norm = (read(0, [n, c, h]) - read(1, [c])) * read(2, [c]);
    let x = f32s(&[64, 32, 64]);
    report("normalize [64,32,8,8] per channel", &axes.nest(&[x.clone(), f32s(&[32]), f32s(&[32])], &[x], [norm]));
    let mut axes = Axes::new();
    let [i] = axes.par([1 << 20]);
    let bits = philox(7, index(i), index(0)).cast(F32);
    report("random bits 1M", &axes.nest(&[], &[f32s(&[1 << 20])], [bits]));
}
