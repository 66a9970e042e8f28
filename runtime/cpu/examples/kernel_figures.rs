//! Prints how fast characteristic kernels run on one thread and on two, beside what memory and arithmetic allow.
//!
//! `cargo run --release -p thalweg-cpu --example kernel_figures`

use std::time::Instant;

use thalweg_cpu::CompiledKernel;
use thalweg_graph::DType::{F32, I64};
use thalweg_graph::kernel::build::*;
use thalweg_graph::kernel::{BufferType, Kernel, Monoid};

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
    let ([one, two], strategy) = measure(kernel);
    let (us, gflops) = (1e6, kernel.cost().flops / one / 1e9);
    println!("{name:44} {:9.1} µs {:9.1} µs on two  {gflops:7.1} GFLOP/s  {strategy}", one * us, two * us);
}

fn matmul(m: u64, k: u64, n: u64) -> Kernel {
    let mut axes = Axes::new();
    let ([i, j], [l]) = (axes.par([m, n]), axes.fold([k]));
    axes.nest(&[f32s(&[m, k]), f32s(&[k, n])], &[f32s(&[m, n])], [sum(read(0, [i, l]) * read(1, [l, j]))])
}
/// Images of 8×8, 3×3 windows, a border of 1: forward, input gradient, weight gradient.
fn convolutions(n: u64, ci: u64, co: u64) -> [Kernel; 3] {
    let (x, w, y) = (f32s(&[n, ci, 8, 8]), f32s(&[co, ci, 3, 3]), f32s(&[n, co, 8, 8]));
    let mut axes = Axes::new();
    let ([b, o, h, v], [c, p, q]) = (axes.par([n, co, 8, 8]), axes.fold([ci, 3, 3]));
    let product = read_or(0, [b.into(), c.into(), h + p - 1, v + q - 1], 0.0) * read(1, [o, c, p, q]);
    let forward = axes.nest(&[x.clone(), w.clone()], std::slice::from_ref(&y), [sum(product)]);
    let mut axes = Axes::new();
    let ([b, c, h, v], [o, p, q]) = (axes.par([n, ci, 8, 8]), axes.fold([co, 3, 3]));
    let product = read_or(0, [b.into(), o.into(), h - p + 1, v - q + 1], 0.0) * read(1, [o, c, p, q]);
    let input = axes.nest(&[y.clone(), w.clone()], std::slice::from_ref(&x), [sum(product)]);
    let mut axes = Axes::new();
    let ([o, c, p, q], [b, h, v]) = (axes.par([co, ci, 3, 3]), axes.fold([n, 8, 8]));
    let product = read(0, [b, o, h, v]) * read_or(1, [b.into(), c.into(), h + p - 1, v + q - 1], 0.0);
    let weight = axes.nest(&[y, x], &[w], [sum(product)]);
    [forward, input, weight]
}

fn main() {
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
    for (ci, co) in [(16, 32), (1, 16)] {
        for (name, kernel) in ["forward", "input gradient", "weight gradient"].iter().zip(&convolutions(64, ci, co)) {
            report(&format!("conv x[64,{ci},8,8] w[{co},{ci},3,3] {name}"), kernel);
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
