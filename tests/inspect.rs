//! Looking inside a static graph: taps return what no program declared as an output, `eval_at` computes any prefix. Neither
//! changes a variable.

mod common;

use thalweg::nn::cross_entropy;
use thalweg::prelude::*;

fn two_layers(g: &Graph, tapped: bool) -> Tensor<'_> {
    let n = g.dim("n", 1..=8);
    let (x, y) = (g.input("x", F32, shape![n, 3]), g.input("y", I32, shape![n]));
    let h = g.scope("first", || Linear::new(4).call(x).tanh().named("hidden"));
    let scaled = (h * 2.0).named("scaled");
    if tapped {
        h.tap("h").tap_grad("dh");
        scaled.tap("scaled");
    }
    let logits = g.scope("second", || Linear::new(2).call(scaled.dropout(0.5)));
    let loss = cross_entropy(logits, y).mean().named("loss");
    g.program("train").outputs([loss]).update(Sgd::new(0.1).minimize(loss));
    g.program("eval").outputs([loss]);
    g.program("predict").inputs([x]).outputs([logits.named("logits")]);
    h
}

fn feeds() -> (Array, Array) {
    let x = Array::from_slice(&[2, 3], &[0.5f32, -1.0, 0.25, 1.0, 0.0, -0.5]);
    (x, Array::from_slice(&[2], &[0i32, 1]))
}

#[test]
fn taps_are_returned_by_the_programs_that_compute_them() {
    let g = Graph::new("tapped").seed(5);
    let h = two_layers(&g, true);
    let mut model = g.compile(&Cluster::cpu(2)).unwrap();
    let (x, y) = feeds();
    let exact = model.eval_at(h, feed! { x: &x }).unwrap();
    let out = model.run("predict", feed! { x: &x }).unwrap();
    let names: Vec<&str> = out.iter().map(|(n, _)| n).collect();
    assert_eq!(names, ["logits", "h", "scaled"]);
    common::assert_near("h", &out.get("h").unwrap().to_f64(), &exact.to_f64(), 1e-6, 1.0);
    let twice: Vec<f64> = out.get("h").unwrap().to_f64().iter().map(|h| 2.0 * h).collect();
    assert_eq!(out.get("scaled").unwrap().to_f64(), twice, "the tap is what the others are computed from");
    let out = model.run("train", feed! { x: &x, y: &y }).unwrap();
    let names: Vec<&str> = out.iter().map(|(n, _)| n).collect();
    assert_eq!(names, ["loss", "h", "dh", "scaled"]);

    // The same model untapped learns the same to the last bit: what is tapped here is not fused into a fold.
    let plain = Graph::new("tapped").seed(5);
    two_layers(&plain, false);
    let mut plain = plain.compile(&Cluster::cpu(2)).unwrap();
    plain.run("train", feed! { x: &x, y: &y }).unwrap();
    assert_eq!(plain.digest().unwrap(), model.digest().unwrap());
}

#[test]
fn the_gradient_that_is_tapped_is_the_gradient() {
    let g = Graph::new("gradient");
    let x = g.input("x", F32, [3]);
    let w = g.parameter("w", F32, [3], Init::Constant(2.0));
    let square = (x * w).tap_grad("d_product");
    let loss = (square * square).sum().named("loss");
    g.program("train").outputs([loss]).update(Sgd::new(0.5).minimize(loss));
    let mut model = g.compile(&Cluster::cpu(1)).unwrap();
    let x = Array::from_slice(&[3], &[1.0f32, -2.0, 3.0]);
    let out = model.run("train", feed! { x: &x }).unwrap();
    assert_eq!(out.get("d_product").unwrap().to_f64(), [4.0, -8.0, 12.0]);
    assert_eq!(model.get("w").unwrap().to_f64(), [2.0 - 2.0, 2.0 - 8.0, 2.0 - 18.0]);
}

#[test]
fn taps_that_cannot_be_returned_are_mistakes_at_their_lines() {
    let mistakes = |g: &Graph| match g.finish() {
        Err(list) => list.into_iter().map(|d| (d.message, d.site.line)).collect::<Vec<_>>(),
        Ok(_) => vec![],
    };
    let g = Graph::new("twice");
    let x = g.input("x", F32, [3]);
    let y = x.exp().tap("y");
    let second = line!() + 1;
    let z = x.tanh().tap("y");
    let third = line!() + 1;
    let wrong = x.matmul(z);
    g.program("run").outputs([(y + wrong).named("out")]);
    let found = mistakes(&g);
    assert_eq!(found.iter().map(|(_, line)| *line).collect::<Vec<_>>(), [second, third], "{found:?}");
    assert_eq!(found[0].0, "two taps are called `y`");

    let g = Graph::new("taken");
    let x = g.input("x", F32, [3]);
    let line = line!() + 1;
    let y = x.exp().tap("out");
    g.program("run").outputs([(y + 1.0).named("out")]);
    assert_eq!(mistakes(&g), [("program `run` returns another value as `out` already".into(), line)]);

    let g = Graph::new("unused");
    let x = g.input("x", F32, [3]);
    let line = line!() + 1;
    let _ = x.exp().tap("lost").tap_grad("d_lost");
    g.program("run").outputs([x.relu().named("out")]);
    assert_eq!(
        mistakes(&g),
        [
            ("`lost` is tapped, but no program computes it".into(), line),
            ("no program computes the gradient tapped as `d_lost`".into(), line)
        ]
    );

    let g = Graph::new("same");
    let out = g.input("x", F32, [3]).exp().named("out").tap("out");
    g.program("run").outputs([out]);
    assert_eq!(mistakes(&g), [], "a tap of what is returned under that name already says nothing new");
}

#[test]
fn any_prefix_is_evaluated_from_the_inputs_that_it_needs() {
    let g = Graph::new("prefix").seed(5);
    let h = two_layers(&g, false);
    let mut model = g.compile(&Cluster::cpu(1)).unwrap();
    let (x, y) = feeds();
    model.run("train", feed! { x: &x, y: &y }).unwrap();
    let before = model.digest().unwrap();
    let by_handle = model.eval_at(h, feed! { x: &x }).unwrap();
    for name in ["first.hidden", "hidden", &format!("{}", h.value())] {
        assert_eq!(model.eval_at(name, feed! { x: &x }).unwrap().bytes(), by_handle.bytes(), "{name}");
    }
    assert_eq!(model.eval_at(h, feed! { x: &x, y: &y }).unwrap().bytes(), by_handle.bytes(), "more may be fed");
    assert_eq!(by_handle.shape(), [2, 4]);
    let weight = model.get("first.weight").unwrap();
    assert_eq!(model.eval_at("first.weight", &[]).unwrap().bytes(), weight.bytes(), "a variable needs no feeds");

    // As a program that learns it is dropped, and as one that does not it is not.
    let predicted = model.run("predict", feed! { x: &x }).unwrap();
    let logits = model.eval_at("logits", feed! { x: &x }).unwrap();
    common::assert_near("logits", &logits.to_f64(), &predicted.get("logits").unwrap().to_f64(), 1e-6, 1.0);
    let learning = model.eval_in("train", "logits", feed! { x: &x }).unwrap();
    assert_ne!(learning.bytes(), logits.bytes());
    let loss = model.eval_in("train", "loss", feed! { x: &x, y: &y }).unwrap().item();
    assert_eq!(model.digest().unwrap(), before, "nothing was changed");
    let trained = model.run("train", feed! { x: &x, y: &y }).unwrap().item("loss");
    common::assert_near("loss", &[loss], &[trained], 1e-6, 1.0);
}

#[test]
fn what_cannot_be_evaluated_says_why() {
    let g = Graph::new("prefix").seed(5);
    let h = two_layers(&g, false);
    let mut model = g.compile(&Cluster::cpu(1)).unwrap();
    let (x, y) = feeds();
    let mut said = |at: &str, feeds: &[(&str, &Array)]| model.eval_at(at, feeds).unwrap_err().to_string();
    assert!(said("first.hiden", feed! { x: &x }).contains("did you mean `first.hidden`?"));
    assert_eq!(said("hidden", &[]), "program `eval_at` also needs `x`: f32[n, 3]; it expects `x`: f32[n, 3]");
    assert!(said("hidden", feed! { z: &x }).contains("has no input `z`"));
    assert!(said("hidden", feed! { x: &y }).contains("input `x` is f32[n, 3], but i32[2] was fed"));
    assert!(said("%999", &[]).contains("there is no value %999"));

    let late = h.exp();
    let error = model.eval_at(late, feed! { x: &x }).unwrap_err().to_string();
    assert!(error.contains("declared after the model was compiled"), "{error}");
    let other = Graph::new("other");
    let foreign = other.input("x", F32, [3]);
    let error = model.eval_at(foreign, feed! { x: &x }).unwrap_err().to_string();
    assert!(error.contains("belongs to another graph"), "{error}");
    let poison = other.input("a", F32, [2]) + other.input("b", F32, [3]);
    let error = model.eval_at(poison, feed! { x: &x }).unwrap_err().to_string();
    assert!(error.contains("stems from a mistake"), "{error}");

    let g = Graph::new("unbound");
    let n = g.dim("n", 1..=8);
    let x = g.input("x", F32, shape![n]);
    let ones = x.ones_like().named("ones");
    g.program("run").outputs([(x + ones).named("y")]);
    let mut model = g.compile(&Cluster::cpu(1)).unwrap();
    let error = model.eval_at(ones, &[]).unwrap_err().to_string();
    assert!(error.contains("give every named dimension a value"), "{error}");
    let three = Array::from_slice(&[3], &[0.0f32; 3]);
    assert_eq!(model.eval_at(ones, feed! { x: &three }).unwrap().to_f64(), [1.0; 3], "what is fed says how many");
}
