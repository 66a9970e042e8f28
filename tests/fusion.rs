//! What is fused and what is not. That fusion changes no bit is the business of `laws.rs`.

use thalweg::graph::Bindings;
use thalweg::prelude::*;
use thalweg::runtime::{ReferenceDevice, Session};

/// Labels of the launches that `declare`'s output takes.
fn launches(declare: impl FnOnce(&Graph, Tensor<'_>, Tensor<'_>)) -> Vec<String> {
    let g = Graph::new("fusion");
    let (x, y) = (g.input("x", F32, [4, 6]), g.input("y", F32, [4, 6]));
    declare(&g, x, y);
    let mut session = Session::new(g.finish().expect("sound"), Box::new(ReferenceDevice::default())).expect("room");
    let plan = session.plan("run", &Bindings::new()).expect("a plan");
    plan.devices[0].launches().map(|(_, l)| l.label.to_string()).collect()
}

#[test]
fn a_chain_of_element_wise_ops_is_one_launch() {
    let found = launches(|g, x, y| drop(g.program("run").outputs([((x.tanh() * y + 1.0).relu() - x).named("z")])));
    assert_eq!(found, ["tanh + mul + add + relu + z: sub"]);
}

#[test]
fn producers_join_folds() {
    let found = launches(|g, x, y| drop(g.program("run").outputs([(x * y).sum().named("z")])));
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn a_value_with_two_readers_or_that_is_fetched_is_made_once_and_shared_by_the_row() {
    let found = launches(|g, x, y| {
        let twice = x.tanh();
        drop(g.program("run").outputs([(twice * y).named("a"), twice.sum_over(&[0]).named("b")]));
    });
    // The sum is over rows: it needs all of them.
    assert_eq!(found, ["tanh | a: mul", "b: sum"]);
    let found = launches(|g, x, y| {
        let fetched = x.tanh().named("t");
        drop(g.program("run").outputs([(fetched * y).named("a"), fetched]));
    });
    assert_eq!(found, ["t: tanh | a: mul"]);
}

#[test]
fn what_hands_rows_on_is_one_launch() {
    let found = launches(|g, x, _| drop(g.program("run").outputs([x.softmax(-1).named("z")])));
    assert_eq!(found.len(), 1, "{found:?}");
    let found = launches(|g, x, y| {
        let mean = x.mean_over(&[1]).reshape([4, 1]);
        drop(g.program("run").outputs([((x - mean) * y).sum_over(&[1]).named("z")]))
    });
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn a_group_ends_where_somebody_else_reads_what_it_makes() {
    let found = launches(|g, x, y| {
        let made = x.tanh();
        let product = made.matmul(y.t()).named("p");
        drop(g.program("run").outputs([product, (made * y + product.sum()).named("a")]))
    });
    // The last addition reads the product, which reads the first launch: it cannot be in a group with that.
    assert_eq!(found, ["tanh", "transpose", "p: matmul", "sum", "mul + a: add"]);
}

#[test]
fn what_follows_a_contraction_is_its_epilogue() {
    let found = launches(|g, x, y| {
        let bias = y.slice(0, 0..1).slice(1, 0..4);
        drop(g.program("run").outputs([(x.matmul(y.t()) + bias).relu().named("z")]));
    });
    assert!(found.last().is_some_and(|l| l.starts_with("matmul + add + z: relu")), "{found:?}");
    // A row sum reads it afterwards; and what has two readers, or is fetched, has to be there.
    let found = launches(|g, x, y| {
        let product = x.matmul(y.t()).named("p");
        drop(g.program("run").outputs([product.relu().named("a"), (product * 2.0).named("b")]));
    });
    assert!(found.iter().any(|l| l == "p: matmul"), "{found:?}");
    let found = launches(|g, x, y| {
        let product = x.matmul(y.t()).named("p");
        drop(g.program("run").outputs([product, product.relu().named("a")]));
    });
    assert!(found.iter().any(|l| l == "p: matmul"), "{found:?}");
    // Seen in another shape.
    let found = launches(|g, x, y| {
        let seen = x.matmul(y.t()).reshape([2, 2, 4]).tanh().named("z");
        drop(g.program("run").outputs([seen]));
    });
    assert!(found.iter().any(|l| l == "matmul + z: tanh"), "{found:?}");
}

#[test]
fn a_contraction_with_itself_is_its_epilogue() {
    let found = launches(|g, x, y| {
        let product = x.matmul(y.t());
        drop(g.program("run").outputs([(product + product).named("z")]));
    });
    assert!(found.iter().any(|l| l == "matmul + z: add"), "{found:?}");
}

#[test]
fn nothing_is_fused_into_a_contraction_or_computed_twice() {
    let product = |g: &Graph, x: Tensor<'_>, y: Tensor<'_>| {
        drop(g.program("run").outputs([x.tanh().matmul(y.t()).named("z")]));
    };
    let found = launches(product);
    assert!(found.contains(&"tanh".to_string()) && found.contains(&"z: matmul".to_string()), "{found:?}");
    // Each element of the small operand would be computed four times.
    let found = launches(|g, x, y| {
        let small = y.slice(0, 0..1).tanh();
        drop(g.program("run").outputs([(x + small).named("z")]));
    });
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn a_tensor_read_by_both_is_bound_once() {
    let found = launches(|g, x, y| drop(g.program("run").outputs([(x.tanh() * y + x * y).named("z")])));
    assert_eq!(found.len(), 1, "{found:?}");
}
