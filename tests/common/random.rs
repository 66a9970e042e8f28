//! Random graphs of real ops, grown from numbers, so that a failing case shrinks to a short list of them.

#![allow(dead_code)] // Not every test uses all of it.

use proptest::prelude::*;
use proptest::strategy::Strategy;
use thalweg::graph::{Bindings, Graph as Ir};
use thalweg::ops::sample::Data;
use thalweg::prelude::*;

use crate::common::Feeds;

/// Grows a graph from numbers: each picks an op and its operands among what there is. Ops are tame (no overflow), so
/// that devices can be compared by relative error.
pub(crate) fn grow(choices: &[(u8, u8, u8)], train: bool) -> Ir {
    let g = Graph::new("random").seed(7);
    let n = g.dim("n", 1..=16);
    let x = g.input("x", F32, shape![n, 6]);
    let index = g.input("index", I32, shape![n]);
    let w = g.parameter("w", F32, [6, 6], Init::Uniform { low: -0.4, high: 0.4 });
    let b = g.parameter("b", F32, [6], Init::Uniform { low: -1.0, high: 1.0 });
    let mut made = vec![x, x.matmul(w) + b];
    for (op, i, j) in choices {
        let pick = |k: &u8| made[*k as usize % made.len()];
        let (a, c) = (pick(i), pick(j));
        made.push(match op % 20 {
            0 => a + c,
            1 => a * c.tanh(),
            2 => a - b,
            3 => a.tanh(),
            4 => a.relu(),
            5 => a.sigmoid().matmul(w),
            6 => a.softmax(-1) * 3.0,
            7 => a.max_over(&[1]).reshape(shape![n, 1]) + c.tanh(),
            8 => a.lt(c).select(a, c),
            9 => a.tanh().matmul(w.transpose(&[1, 0])),
            10 => a.mean_over(&[0]) + c,
            11 => a.reshape(shape![n, 2, 3]).transpose(&[0, 2, 1]).reshape(shape![n, 6]),
            12 => a.tanh() / (c * c + 1.0),
            13 => a.maximum(c),
            14 => b.gather(index, 0).reshape(shape![n, 1]) + a,
            15 => a.tanh().exp(),
            16 => a.dropout(0.25),
            17 => a.sum_over(&[1]).tanh().reshape(shape![n, 1]).broadcast_to(shape![n, 6]),
            18 => a.log_softmax(-1),
            _ => a.argmax(-1).cast(F32).reshape(shape![n, 1]).tanh() + c,
        });
    }
    let last = made[made.len() - 1];
    // Whatever was picked, the loss depends on both parameters.
    let always = made[1].tanh().mean();
    let loss = (cross_entropy(last.tanh(), index).mean() + made[made.len() / 2].tanh().mean() + always).named("loss");
    let program = g.program("run").outputs([loss, last.named("last")]);
    drop(match (train, choices.len() % 2) {
        (false, _) => program,
        (true, 0) => program.update(AdamW::new(0.01).minimize(loss)),
        (true, _) => program.update(Sgd::new(0.1).momentum(0.9).minimize(loss)),
    });
    g.finish().unwrap_or_else(|mistakes| panic!("{}", mistakes[0]))
}

pub(crate) fn feeds(n: u64, seed: u64) -> Feeds {
    let x = Data::Uniform(-1.5, 1.5).make(&F32.of([n, 6]), seed);
    vec![("x".into(), x), ("index".into(), Data::Uniform(0.0, 6.0).make(&I32.of([n]), seed + 1))]
}

pub(crate) fn binding(n: u64) -> Bindings {
    [("n".into(), n)].into()
}

pub(crate) fn choices() -> impl Strategy<Value = Vec<(u8, u8, u8)>> {
    prop::collection::vec(any::<(u8, u8, u8)>(), 0..14)
}

/// Graphs per law: 60, or what `THALWEG_CASES` says.
pub(crate) fn cases() -> u32 {
    std::env::var("THALWEG_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(60)
}
