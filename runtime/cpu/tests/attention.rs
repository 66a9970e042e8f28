//! Attention and its gradient mean what the interpreter means, whatever the lengths, the layout, the type and the number of
//! threads, and need no memory for a matrix of queries by keys.

mod common;

use common::{Random, check_on, device, ty};
use thalweg_cpu::CompiledKernel;
use thalweg_graph::DType::{self, BF16, F16, F32, F64};
use thalweg_graph::kernel::interpret::{self, Number, Precision, Values};
use thalweg_graph::kernel::{Attention, BufferType, Kernel, Literal};

/// Attention over `[batch, heads, time, …]`, or `[batch, time, heads, …]` where heads are interleaved.
#[derive(Clone, Copy, Debug)]
struct Case {
    dtype: DType,
    batch: u64,
    heads: u64,
    queries: u64,
    keys: u64,
    features: u64,
    values: u64,
    causal: bool,
    interleaved: bool,
}

const PLAIN: Case = Case {
    dtype: F32,
    batch: 1,
    heads: 2,
    queries: 40,
    keys: 40,
    features: 16,
    values: 16,
    causal: false,
    interleaved: false,
};

impl Case {
    fn tensor(&self, rows: u64, columns: Option<u64>) -> BufferType {
        let [a, b] = if self.interleaved { [rows, self.heads] } else { [self.heads, rows] };
        let dtype = if columns.is_some() { self.dtype } else { Attention::accumulator(self.dtype) };
        ty(dtype, &[self.batch, a, b].into_iter().chain(columns).collect::<Vec<_>>())
    }
    /// Attention, and its gradient.
    fn kernels(&self) -> [Kernel; 2] {
        let [query, key] = [self.queries, self.keys].map(|n| self.tensor(n, Some(self.features)));
        let [out, value] = [self.queries, self.keys].map(|n| self.tensor(n, Some(self.values)));
        let numbers = self.tensor(self.queries, None);
        let (rows, causal) = (if self.interleaved { 1 } else { 2 }, self.causal);
        let scale = Literal::Float(1.0 / (self.features as f64).sqrt());
        let of = |operands, results| Attention { operands, results, rows, causal, scale };
        let matrices = vec![query, key, value];
        let forward = of(matrices.clone(), vec![out.clone(), numbers.clone()]);
        let operands = [&matrices[..], &[out, numbers.clone(), numbers]].concat();
        [Kernel::Attention(forward), Kernel::AttentionGrad(of(operands, matrices))]
    }
    /// Both kernels against the interpreter; the gradient at the logsumexp that attention gives, and at any delta.
    #[track_caller]
    fn check(&self, seed: u64, tolerance: f64) {
        let [forward, gradient] = self.kernels();
        let mut random = Random(seed);
        let mut operands: Vec<_> = forward.operands().iter().map(|t| random.values(t)).collect();
        let compiled = CompiledKernel::compile(&forward).expect("verifies");
        assert!(compiled.strategy().starts_with("attention"), "{}", compiled.strategy());
        check_on(&compiled, &forward, &operands, Precision::Reference, tolerance);
        let results = device(&compiled, &forward, &operands);
        operands.extend([random.values(&results[0].ty), results[1].clone(), random.values(&results[1].ty)]);
        let compiled = CompiledKernel::compile(&gradient).expect("verifies");
        check_on(&compiled, &gradient, &operands, Precision::Reference, tolerance * 4.0);
    }
}

#[test]
fn any_attention_means_what_the_interpreter_says() {
    let cases = std::env::var("THALWEG_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(150);
    for seed in 0..cases {
        let mut random = Random(seed);
        let mut pick = |from: &[u64]| from[random.below(from.len() as u64) as usize];
        let (queries, more) = (pick(&[0, 1, 2, 15, 16, 17, 47, 48, 49, 100]), pick(&[0, 0, 1, 30, 90]));
        let case = Case {
            dtype: if pick(&[0, 0, 1]) == 0 { F32 } else { F64 },
            batch: pick(&[1, 1, 2, 0]),
            heads: pick(&[1, 2, 3]),
            queries,
            keys: queries + more,
            features: pick(&[1, 3, 8, 16, 20, 50]),
            values: pick(&[0, 1, 7, 8, 16, 33]),
            causal: pick(&[0, 1]) == 1,
            interleaved: pick(&[0, 1]) == 1,
        };
        // Queries without a mask may outnumber keys.
        let swapped = !case.causal && pick(&[0, 1]) == 1;
        let case = if swapped { Case { queries: case.keys, keys: case.queries, ..case } } else { case };
        println!("{seed}: {case:?}");
        case.check(seed, 1e-4);
    }
}

#[test]
fn lengths_around_the_blocks() {
    for (queries, keys) in [(128, 128), (127, 129), (200, 257), (49, 256)] {
        for (causal, interleaved) in [(false, false), (true, true)] {
            let queries = if causal { queries.min(keys) } else { queries };
            Case { queries, keys, causal, interleaved, ..PLAIN }.check(7, 1e-4);
        }
    }
    // Few parts and many keys: the gradient is cut, and its pieces are added up.
    Case { heads: 1, queries: 150, keys: 600, features: 5, values: 3, ..PLAIN }.check(8, 1e-4);
    Case { heads: 1, queries: 400, keys: 400, features: 70, values: 3, causal: true, ..PLAIN }.check(9, 1e-4);
}

#[test]
fn halves_are_computed_in_f32() {
    for dtype in [F16, BF16] {
        let tolerance = if dtype == F16 { 2e-3 } else { 2e-2 };
        Case { dtype, causal: true, interleaved: true, ..PLAIN }.check(3, tolerance);
        // Means of 200 ones: in a half, the sum of the weights would stop at 2048 or 256.
        let case = Case { dtype, keys: 3000, queries: 1, ..PLAIN };
        let [forward, _] = case.kernels();
        let ones = |t: &BufferType| Values { ty: t.clone(), data: vec![Number::Float(1.0); t.len()] };
        let operands: Vec<_> = forward.operands().iter().map(ones).collect();
        let results = device(&CompiledKernel::compile(&forward).expect("verifies"), &forward, &operands);
        assert!(results[0].data.iter().all(|x| x.f64() == 1.0), "{:?}", results[0].data);
    }
}

/// e^1000 is beyond f32, and so is e^−1000: only differences of scores may be raised.
#[test]
fn scores_far_from_zero() {
    let case = Case { features: 1, values: 3, keys: 300, causal: true, queries: 300, ..PLAIN };
    let [forward, _] = case.kernels();
    let mut random = Random(5);
    let mut operands: Vec<_> = forward.operands().iter().map(|t| random.values(t)).collect();
    for (k, operand) in operands[..2].iter_mut().enumerate() {
        // Whole numbers, so that scores are exact.
        operand
            .data
            .iter_mut()
            .for_each(|x| *x = Number::Float((x.f64() * 16.0).round() * if k == 0 { 64.0 } else { 1.0 }));
    }
    let compiled = CompiledKernel::compile(&forward).expect("verifies");
    check_on(&compiled, &forward, &operands, Precision::Reference, 1e-5);
    let results = device(&compiled, &forward, &operands);
    let largest = results[1].data.iter().map(|x| x.f64().abs()).fold(0.0, f64::max);
    assert!(largest > 1e5, "scores reach {largest}");
}

/// Where a number is not finite, it is so in the interpreter; and what a query does not see does not reach it.
#[test]
fn infinities_and_nan_go_where_they_should() {
    for (seed, causal) in (0..20).flat_map(|s| [(s, true), (s, false)]) {
        let case = Case { causal, queries: 70, keys: 90, features: 3, values: 2, heads: 1, ..PLAIN };
        let [forward, gradient] = case.kernels();
        for kernel in [forward, gradient] {
            let mut random = Random(seed);
            let mut operands: Vec<_> = kernel.operands().iter().map(|t| random.values(t)).collect();
            for _ in 0..2 {
                let operand = random.below(operands.len() as u64) as usize;
                let at = random.below(operands[operand].data.len() as u64) as usize;
                let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY][random.below(3) as usize];
                operands[operand].data[at] = Number::Float(odd);
            }
            let refs: Vec<_> = operands.iter().collect();
            let want = interpret::run(&kernel, &refs, Precision::Exact);
            let have = device(&CompiledKernel::compile(&kernel).expect("verifies"), &kernel, &operands);
            for (r, (have, want)) in have.iter().zip(&want).enumerate() {
                for (i, (a, b)) in have.data.iter().zip(&want.data).enumerate() {
                    let same = a.f64().is_finite() == b.f64().is_finite();
                    assert!(same, "seed {seed}: result {r}[{i}] is {a:?}, should be {b:?}\n{kernel}");
                }
            }
        }
    }
}

/// 2048 queries by 2048 keys of six heads are 96 MB in f32, and a training step would hold several of them.
#[test]
fn no_matrix_of_queries_by_keys_is_in_memory() {
    let case = Case { heads: 6, queries: 2048, keys: 2048, features: 64, values: 64, causal: true, ..PLAIN };
    let matrix = 6 * 2048 * 2048 * 4;
    for kernel in case.kernels() {
        let bytes = CompiledKernel::compile(&kernel).expect("verifies").workspace_bytes();
        println!("{bytes} bytes of workspace, {matrix} of weights");
        assert!(bytes * 10 < matrix, "{bytes} bytes of workspace");
    }
}
