//! Tensors larger than a binding, and launches with more of them than a shader has bindings: the same results, through
//! several windows or in parts. Adapters are made small for it, so that all is quick; one test is as large as this
//! machine's adapter makes it.

mod common;

use common::draw::any_nest;
use common::products::Conv;
use common::{Random, check, gpu, plan_of, run, ty};
use thalweg_gpu::{GpuDevice, Limits, adapters};
use thalweg_graph::DType::{self, BF16, Bool, F16, F32, I64, U8};
use thalweg_graph::kernel::build::*;
use thalweg_graph::kernel::interpret::{Number, Values};
use thalweg_graph::kernel::{Attention, Binary, BufferType, Kernel, Literal, Monoid};
use thalweg_graph::plan::Memory;
use thalweg_runtime::device::Device;

/// The first adapter with windows of so many bytes, of which a shader has so many.
fn small(what: &str, binding_bytes: u64, bindings: u32) -> Option<GpuDevice> {
    gpu(what)?;
    let lower = Limits { binding_bytes: Some(binding_bytes), bindings: Some(bindings), ..Limits::default() };
    Some(GpuDevice::with_limits("gpu:0", 0, &lower).expect("it opens"))
}

fn operands(kernel: &Kernel, seed: u64) -> Vec<Values> {
    let mut random = Random(seed);
    kernel.operands().iter().map(|t| random.values(t)).collect()
}

/// How a kernel runs.
fn strategy(device: &mut GpuDevice, kernel: &Kernel) -> String {
    let plan = std::sync::Arc::new(plan_of(kernel, device, 0));
    let loaded = device.load(&plan, 0).expect("it loads");
    let strategy = device.strategy(loaded, 0);
    device.unload(loaded);
    strategy
}

fn each(shape: &[u64], operands: &[DType], result: DType, f: impl FnOnce(Vec<Expr>) -> Expr) -> Kernel {
    let mut axes = Axes::new();
    let at = axes.par_over(shape);
    let types: Vec<BufferType> = operands.iter().map(|d| ty(*d, shape)).collect();
    let reads = (0..operands.len()).map(|k| read(k as u16, at.clone())).collect();
    axes.nest(&types, &[ty(result, shape)], [f(reads)])
}

fn product([m, n, k]: [u64; 3]) -> Kernel {
    let mut axes = Axes::new();
    let ([i, j], [l]) = (axes.par([m, n]), axes.fold([k]));
    let value = sum(read(0, [i, l]) * read(1, [l, j]));
    axes.nest(&[ty(F32, &[m, k]), ty(F32, &[k, n])], &[ty(F32, &[m, n])], [value])
}

/// A row of the table for each number.
fn gather(rows: u64, width: u64, count: u64, dtype: DType) -> Kernel {
    let mut axes = Axes::new();
    let [i, j] = axes.par([count, width]);
    let value = read_or(1, [found(read(0, [i])), j.into()], 0.0);
    axes.nest(&[ty(I64, &[count]), ty(dtype, &[rows, width])], &[ty(dtype, &[count, width])], [value])
}

/// Rows added where numbers say.
fn scatter_add(rows: u64, width: u64, count: u64) -> Kernel {
    let mut axes = Axes::new();
    let [i, j] = axes.par([count, width]);
    let at = [found(read(0, [i])), j.into()];
    let result = ty(F32, &[rows, width]);
    axes.scatter(&[ty(I64, &[count]), ty(F32, &[count, width])], &result, None, Monoid::Sum, at, read(1, [i, j]))
}

/// Kernels of every sort that look at some ten thousand bytes.
fn kernels() -> Vec<(&'static str, Kernel, f64)> {
    let mut all = vec![
        ("add", each(&[3000], &[F32, F32], F32, |r| r[0].clone() + r[1].clone()), 0.0),
        ("halves", each(&[70, 101], &[F16, BF16], BF16, |r| r[0].clone().cast(BF16) * r[1].clone()), 8e-3),
        ("bytes", each(&[9001], &[U8, U8], U8, |r| r[0].clone() + r[1].clone()), 0.0),
        (
            "flags",
            each(&[9001], &[Bool, I64], Bool, |r| r[0].clone().binary(Binary::And, r[1].clone().lt(lit(0.0)))),
            0.0,
        ),
        ("wide", each(&[1501], &[I64, I64], I64, |r| r[0].clone() * r[1].clone() - lit(7.0)), 0.0),
        ("product", product([70, 41, 65]), 1e-4),
        ("a long depth", product([9, 10, 500]), 1e-4),
        ("gather", gather(300, 17, 50, F32), 0.0),
        ("gather of halves", gather(300, 17, 50, F16), 0.0),
        ("scatter", scatter_add(300, 17, 50), 0.0),
    ];
    let mut axes = Axes::new();
    let ([i], [j]) = (axes.par([40]), axes.fold([129]));
    all.push(("rows", axes.nest(&[ty(F32, &[40, 129])], &[ty(F32, &[40])], [sum(read(0, [i, j]))]), 1e-5));
    let mut axes = Axes::new();
    let ([j], [i]) = (axes.par([129]), axes.fold([40]));
    all.push(("columns", axes.nest(&[ty(F32, &[40, 129])], &[ty(F32, &[129])], [sum(read(0, [i, j]))]), 1e-5));
    let mut axes = Axes::new();
    let [i, j] = axes.fold([40, 129]);
    all.push(("all", axes.nest(&[ty(F32, &[40, 129])], &[ty(F32, &[])], [sum(read(0, [i, j]))]), 1e-5));
    let conv = Conv {
        n: 3,
        ci: 8,
        co: 9,
        groups: 1,
        size: [12, 13],
        window: [3, 3],
        stride: 1,
        dilation: 1,
        pad: 1,
        dtype: F32,
    };
    all.push(("convolution", conv.forward(), 1e-4));
    all.push(("gradient of its input", conv.input_gradient(), 1e-4));
    all.push(("gradient of its weight", conv.weight_gradient(), 1e-4));
    let t = |width: u64| ty(F32, &[2, 30, 3, width]);
    let numbers = ty(F32, &[2, 30, 3]);
    let forward = Attention {
        operands: vec![t(9), t(9), t(11)],
        results: vec![t(11), numbers],
        rows: 1,
        causal: true,
        scale: Literal::Float(0.4),
    };
    all.push(("attention", Kernel::Attention(forward), 2e-5));
    all
}

#[test]
fn tensors_larger_than_a_binding_are_seen_through_several() {
    let Some(mut device) = small("tensors_larger_than_a_binding_are_seen_through_several", 2048, 32) else { return };
    for (name, kernel, tolerance) in kernels() {
        println!("{name}: {}", strategy(&mut device, &kernel));
        check(&mut device, &kernel, &operands(&kernel, 5), tolerance);
    }
}

#[test]
fn launches_with_more_windows_than_a_shader_has_run_in_parts() {
    let Some(mut device) = small("launches_with_more_windows_than_a_shader_has_run_in_parts", 4096, 8) else { return };
    let mut parts = 0;
    for (name, kernel, tolerance) in kernels() {
        let strategy = strategy(&mut device, &kernel);
        println!("{name}: {strategy}");
        parts += usize::from(strategy.contains("parts, the first"));
        check(&mut device, &kernel, &operands(&kernel, 6), tolerance);
    }
    assert!(parts >= 5, "{parts} of them ran in parts");
}

#[test]
fn any_nest_means_the_same_through_the_smallest_windows() {
    let Some(mut device) = small("any_nest_means_the_same_through_the_smallest_windows", 256, 6) else { return };
    let mut ran = 0;
    for seed in 0..150 {
        let (kernel, operands) = any_nest(0x11d0_0000 + seed);
        let bytes: u64 = kernel.operands().iter().chain(kernel.results()).map(BufferType::size_bytes).sum();
        if !kernel.verify().is_empty() || thalweg_gpu::shaders(&kernel).is_err() || bytes < 1024 {
            continue;
        }
        match run(&mut device, &kernel, &operands) {
            Ok(_) => check(&mut device, &kernel, &operands, 1e-6),
            // Sums over more than six windows hold are what no small adapter can do.
            Err(e) => assert!(e.to_string().contains("windows of 256 bytes"), "{e}"),
        }
        ran += 1;
    }
    println!("{ran} nests");
    assert!(ran > 20, "{ran}");
}

#[test]
fn what_no_number_of_parts_helps_is_refused_with_its_size() {
    let Some(mut device) = small("what_no_number_of_parts_helps_is_refused_with_its_size", 4096, 3) else { return };
    let mut axes = Axes::new();
    let [i] = axes.fold([9000]);
    let kernel = axes.nest(&[ty(F32, &[9000])], &[ty(F32, &[])], [sum(read(0, [i]))]);
    let said = run(&mut device, &kernel, &operands(&kernel, 1)).expect_err("nine windows are needed").to_string();
    assert!(said.contains("windows of 4096 bytes") && said.contains("have 3") && said.contains("tested"), "{said}");
}

/// As large as the adapter makes it: more than one binding shows, of which a few elements are looked at by the host.
#[test]
fn a_tensor_larger_than_the_largest_binding() {
    let Some(mut device) = gpu("a_tensor_larger_than_the_largest_binding") else { return };
    let adapter = &adapters()[0];
    let (width, batch) = (1000u64, 9u64);
    let rows = adapter.max_binding_bytes / (4 * width) + 5001;
    let table = 4 * rows * width;
    if adapter.max_binding_bytes > 1 << 30 || adapter.max_buffer_bytes < 2 * table + (1 << 20) {
        println!("skipped: a_tensor_larger_than_the_largest_binding: it would be of {table} bytes");
        return;
    }
    // A row is its number, and a little for the column.
    let value = |row: u64, column: u64| row as f32 + column as f32 / 1024.0;
    let bytes = |rows: std::ops::Range<u64>| -> Vec<u8> {
        rows.flat_map(|r| (0..width).flat_map(move |c| value(r, c).to_le_bytes())).collect()
    };
    let whole = bytes(0..rows);
    let ones = Values { ty: ty(F32, &[width, batch]), data: vec![Number::Float(1.0); (width * batch) as usize] };
    let picked: Vec<u64> = (0..40).map(|i| (i * 7919 + rows - 3) % rows).collect();
    let numbers: Vec<u8> = picked.iter().flat_map(|r| (*r as i64).to_le_bytes()).collect();
    let ones = common::to_bytes(&ones);
    let ends = [0, 1, rows / 2, rows - 5001, rows - 5000, rows - 1];
    let small = |data: &dyn Fn(u64) -> f32, n: u64| (0..n).flat_map(|i| data(i).to_le_bytes()).collect::<Vec<u8>>();

    let elements = each(&[rows, width], &[F32], F32, |r| r[0].clone() * lit(2.0));
    let mut axes = Axes::new();
    let ([j], [i]) = (axes.par([width]), axes.fold([rows]));
    let columns = axes.nest(&[ty(F32, &[rows, width])], &[ty(F32, &[width])], [fold(Monoid::Max, read(0, [i, j]))]);
    type Want<'a> = Box<dyn Fn(u64) -> f32 + 'a>;
    let sums = |row: u64| (0..width).map(|c| f64::from(value(row, c))).sum::<f64>() as f32;
    let added = scatter_add(rows, width, 40);
    let first = small(&|i| (i / width) as f32, 40 * width);
    type Case<'a> = (&'a str, Kernel, Vec<&'a [u8]>, Want<'a>, f32);
    let cases: Vec<Case<'_>> = vec![
        ("element-wise", elements, vec![&whole], Box::new(|e| 2.0 * value(e / width, e % width)), 0.0),
        ("a fold", columns, vec![&whole], Box::new(|e| value(rows - 1, e)), 0.0),
        ("a product", product([rows, batch, width]), vec![&whole, &ones], Box::new(|e| sums(e / batch)), 1e-4),
        (
            "a gather",
            gather(rows, width, 40, F32),
            vec![&numbers, &whole],
            Box::new(|e| value(picked[(e / width) as usize], e % width)),
            0.0,
        ),
        (
            "a scatter",
            added,
            vec![&numbers, &first],
            Box::new(|e| picked.iter().position(|r| *r == e / width).map_or(0.0, |i| i as f32)),
            0.0,
        ),
    ];
    for (name, kernel, operands, want, tolerance) in cases {
        let plan = std::sync::Arc::new(plan_of(&kernel, &device, 0));
        let part = &plan.devices[0];
        let loaded = device.load(&plan, 0).unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut ids = part.buffers.iter();
        for bytes in operands {
            let (_, buffer) = ids.next().expect("an operand");
            device.write(Memory::Scratch, buffer.offset, bytes).expect("it writes");
        }
        let started = std::time::Instant::now();
        device.run(loaded, 0..1, None).expect("it runs");
        let (_, result) = ids.next().expect("a result");
        let count = result.ty.len() as u64;
        let mut looked = 0;
        let per_row = if name == "a product" { batch } else { width };
        let rows_of = ends.iter().chain(&picked).map(|r| r * per_row).filter(|e| e + per_row <= count);
        for at in rows_of.chain(std::iter::once(count - per_row)) {
            let mut row = vec![0; 4 * per_row as usize];
            device.read(Memory::Scratch, result.offset + 4 * at, &mut row).expect("it reads");
            for (k, bytes) in row.chunks(4).enumerate() {
                let have = f32::from_le_bytes(bytes.try_into().expect("four bytes"));
                let want = want(at + k as u64);
                assert!(
                    (have - want).abs() <= tolerance * want.abs(),
                    "{name}: [{}] is {have}, not {want}",
                    at + k as u64
                );
            }
            looked += 1;
        }
        let how = device.strategy(loaded, 0);
        println!("{name}: {} bytes, {how}, {looked} rows looked at, {:?}", whole.len(), started.elapsed());
        device.unload(loaded);
    }
}
