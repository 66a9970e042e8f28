//! Nests split for devices whose launches name few buffers: together they mean what the one meant, bit for bit, and name
//! no more than they may.

#[path = "../../runtime/cpu/tests/common/draw.rs"]
#[allow(dead_code, reason = "devices draw more")]
mod draw;
#[path = "../../runtime/cpu/tests/common/values.rs"]
#[allow(dead_code, reason = "devices compare by it")]
mod values;

use thalweg_graph::DType::{F32, I64};
use thalweg_graph::kernel::build::*;
use thalweg_graph::kernel::interpret::{self, Number, Precision, Values};
use thalweg_graph::kernel::{BufferType, Kernel, LoopNest, Monoid};
use values::{Random, ty};

fn run(nest: &LoopNest, operands: &[&Values]) -> Vec<Values> {
    let kernel = Kernel::Nest(nest.clone());
    assert_eq!(kernel.verify(), [""; 0], "{kernel:?}");
    interpret::run(&kernel, operands, Precision::Exact)
}

#[track_caller]
fn assert_same(have: &Values, want: &Values, of: &LoopNest) {
    let bits = |x: &Number| match x {
        Number::Int(i) => *i as u64,
        Number::Float(x) if x.is_nan() => f64::NAN.to_bits(),
        Number::Float(x) => x.to_bits(),
    };
    assert_eq!(have.ty, want.ty);
    assert!(have.data.iter().map(bits).eq(want.data.iter().map(bits)), "{have:?} is not {want:?}\n{of:?}");
}

/// Splits until no nest names more than `most`, and compares; gives how many there were in the end.
fn check(nest: &LoopNest, operands: &[Values], most: usize) -> usize {
    let want = run(nest, &operands.iter().collect::<Vec<_>>());
    let mut count = 0;
    for (r, (one, from)) in nest.by_result().into_iter().enumerate() {
        let (mut rest, mut data): (LoopNest, Vec<Values>) = (one, from.iter().map(|k| operands[*k].clone()).collect());
        while rest.operands.len() + 1 > most {
            let Some([(first, a), (second, b)]) = rest.in_two(most) else { break };
            assert!(first.operands.len() < most && second.operands.len() < rest.operands.len(), "{rest:?}");
            let made = run(&first, &a.iter().map(|k| &data[*k]).collect::<Vec<_>>()).remove(0);
            data.push(made);
            data = b.iter().map(|k| data[*k].clone()).collect();
            rest = second;
            count += 1;
        }
        assert_same(&run(&rest, &data.iter().collect::<Vec<_>>())[0], &want[r], nest);
        count += 1;
    }
    count
}

#[test]
fn any_nest_in_pieces_means_what_it_meant() {
    let (mut ran, mut split) = (0, 0);
    for seed in 0..400 {
        let (kernel, operands) = draw::any_nest(0x5b11_0000 + seed);
        let Kernel::Nest(nest) = &kernel else { continue };
        if !kernel.verify().is_empty() {
            continue;
        }
        ran += 1;
        split += usize::from(check(nest, &operands, 3) > nest.results.len());
    }
    println!("{ran} nests, {split} of them cut");
    assert!(ran > 60 && split > 10, "{ran}, {split}");
}

/// A concatenation of twenty tensors through launches of eight, four and three buffers.
#[test]
fn a_concatenation_of_many_is_several() {
    const N: usize = 20;
    let mut axes = Axes::new();
    let [i, j] = axes.par([3 * N as u64, 2]);
    let piece = |k: usize| read_or(k as u16, [i - 3 * k as i64, j.into()], 0.0);
    let value =
        (0..N - 1).rfold(piece(N - 1), |rest, k| select(index(i).lt(lit(3.0 * (k + 1) as f64)), piece(k), rest));
    let types: Vec<BufferType> = vec![ty(F32, &[3, 2]); N];
    let kernel = axes.nest(&types, &[ty(F32, &[3 * N as u64, 2])], [value]);
    let Kernel::Nest(nest) = &kernel else { unreachable!("a nest") };
    let mut random = Random(4);
    let operands: Vec<Values> = types.iter().map(|t| random.values(t)).collect();
    let counts = [8, 4, 3].map(|most| check(nest, &operands, most));
    assert_eq!(counts, [4, 10, 19]);
}

/// Results that need other folds and other operands: each nest has what it needs and no more.
#[test]
fn each_result_keeps_what_it_needs() {
    let mut axes = Axes::new();
    let ([i], [j]) = (axes.par([4]), axes.fold([9]));
    let row = |k| read(k, [i, j]);
    let kernel = axes.nest(
        &[ty(F32, &[4, 9]), ty(F32, &[4, 9]), ty(F32, &[4])],
        &[ty(F32, &[4]), ty(I64, &[4]), ty(F32, &[4])],
        [sum(row(0)), fold_part(Monoid::ArgMax, vec![row(1), index(j)], 1), read(2, [i]) * 2.0],
    );
    let Kernel::Nest(nest) = &kernel else { unreachable!("a nest") };
    let each = nest.by_result();
    assert_eq!(each.iter().map(|(_, from)| from.clone()).collect::<Vec<_>>(), [[0], [1], [2]]);
    assert_eq!(each.iter().map(|(n, _)| n.folds.len()).collect::<Vec<_>>(), [1, 1, 0]);
    let mut random = Random(9);
    let operands: Vec<Values> = kernel.operands().iter().map(|t| random.values(t)).collect();
    check(nest, &operands, 2);
}
