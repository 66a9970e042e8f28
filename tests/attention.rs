//! Attention against the same written in other ops: the numbers agree, and the matrices of queries by keys, which the other
//! ops keep for the gradient, are nowhere in the plan. `--nocapture` prints bytes and seconds.

mod common;

use std::time::Instant;

use common::{assert_near, borrowed, cpu};
use thalweg::Array;
use thalweg::graph::Bindings;
use thalweg::ops::autodiff::gradients;
use thalweg::ops::layout::iota::Iota;
use thalweg::prelude::*;
use thalweg::runtime::Session;

const FEATURES: u64 = 64;

/// Causal attention as its definition has it.
fn composed<'g>(query: Tensor<'g>, key: Tensor<'g>, value: Tensor<'g>) -> Tensor<'g> {
    let scores = (query * (FEATURES as f64).sqrt().recip()).matmul(key.transpose(&[0, 1, 3, 2]));
    let length = query.shape()[2].fixed().expect("a number");
    let places = |axis, shape: [u64; 2]| query.source(Iota { axis, shape: shape.into(), dtype: I32 });
    let seen = places(1, [1, length]).le(places(0, [length, 1]));
    scores.where_(seen, f64::NEG_INFINITY).softmax(-1).matmul(value)
}

/// A program of attention over `length` places in `heads` heads, and its three gradients.
fn session(heads: u64, length: u64, own: bool) -> Session {
    let g = Graph::new("attention");
    let input = |name: &str| g.input(name, F32, [1, heads, length, FEATURES]);
    let ([query, key, value], weight) = (["query", "key", "value"].map(input), input("weight"));
    let out = if own { query.attention(key, value, true) } else { composed(query, key, value) }.named("out");
    let found = gradients((out * weight).sum(), &[query, key, value]);
    // A name is a node's, and these are results of one.
    let [d_query, d_key, d_value] = [0, 1, 2].map(|k| (found[k] * 1.0).named(["d_query", "d_key", "d_value"][k]));
    g.program("run").outputs([out, d_query, d_key, d_value]);
    Session::new(g.finish().expect("no mistakes"), cpu(1)).expect("it fits")
}

fn feeds(heads: u64, length: u64) -> common::Feeds {
    let data = |k: u64| {
        let place = |i: u64| ((i * (2 * k + 3) * 7919 + k) % 1009) as f32 / 504.5 - 1.0;
        Array::from_slice(&[1, heads, length, FEATURES], &(0..heads * length * FEATURES).map(place).collect::<Vec<_>>())
    };
    ["query", "key", "value", "weight"].iter().zip(0..).map(|(n, k)| (n.to_string(), data(k))).collect()
}

#[test]
fn the_numbers_are_those_of_its_definition() {
    let feeds = feeds(2, 300);
    let [own, other] = [true, false].map(|own| {
        let mut session = session(2, 300, own);
        session.run("run", &borrowed(&feeds)).unwrap_or_else(|e| panic!("{e}"))
    });
    assert_eq!(own.iter().count(), 4);
    for ((name, a), (_, b)) in own.iter().zip(other.iter()) {
        assert_near(name, &a.to_f64(), &b.to_f64(), 1e-5, 0.0);
    }
}

#[test]
fn no_matrix_of_queries_by_keys_is_in_the_plan() {
    let (heads, length) = (6, 2048);
    let matrix = heads * length * length * 4;
    let feeds = feeds(heads, length);
    let bytes = [true, false].map(|own| {
        let mut session = session(heads, length, own);
        let bytes = session.plan("run", &Bindings::new()).expect("a plan").devices[0].scratch_bytes;
        let mut seconds = f64::INFINITY;
        for _ in 0..3 {
            let start = Instant::now();
            session.run("run", &borrowed(&feeds)).unwrap_or_else(|e| panic!("{e}"));
            seconds = seconds.min(start.elapsed().as_secs_f64());
        }
        let what = if own { "attention" } else { "in other ops" };
        println!("{what}: {:.1} MB of scratch, {:.0} ms a step", bytes as f64 / 1e6, seconds * 1e3);
        bytes
    });
    assert!(bytes[0] * 3 < matrix, "{} bytes of scratch, {matrix} of one matrix", bytes[0]);
    assert!(bytes[1] > 2 * matrix, "the other way keeps matrices: {} bytes", bytes[1]);
}
