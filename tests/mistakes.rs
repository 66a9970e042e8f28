//! Mistakes of a model file come out at once, before anything runs, at the user's own line, with shapes and a remedy.

use thalweg::prelude::*;

fn mistakes_of(g: &Graph) -> Vec<thalweg::graph::Diagnostic> {
    match g.compile(&Cluster::cpu(1)) {
        Err(error) => error.diagnostics().to_vec(),
        Ok(_) => vec![],
    }
}

#[test]
fn every_mistake_is_reported_once_at_its_own_line() {
    let g = Graph::new("wrong");
    let batch = g.dim("batch", 1..=64);
    let image = g.input("image", F32, shape![batch, 784]);
    let label = g.input("label", I32, shape![batch]);
    let w1 = g.parameter("w1", F32, [512, 10], Init::Constant(0.0));
    let first = line!() + 1;
    let h = image.matmul(w1);
    let echo = h.relu() + h; // built on a mistake: silent
    let second = line!() + 1;
    let sum = image + label;
    let third = line!() + 1;
    let flat = image.reshape([3, 3]);
    let fourth = line!() + 1;
    let twice = g.input("image", F32, [3]);
    let loss = (echo.mean() + sum.mean() + flat.mean() + twice.mean()).named("loss");
    g.program("train").outputs([loss]).update(AdamW::new(1e-3).minimize(loss));

    let found = mistakes_of(&g);
    let places: Vec<_> = found.iter().map(|d| (d.code.as_str(), d.site.line)).collect();
    assert_eq!(places, [("matmul.C2", first), ("add.C1", second), ("reshape.C1", third), ("input", fourth)]);
    assert!(found.iter().all(|d| d.site.file.ends_with("mistakes.rs")));
}

#[test]
fn a_mistake_shows_the_source_with_shapes_and_a_remedy() {
    let g = Graph::new("wrong");
    let image = g.input("image", F32, [32, 784]);
    let w1 = g.parameter("w1", F32, [512, 10], Init::Constant(0.0));
    let _ = image.matmul(w1);
    let error = g.compile(&Cluster::cpu(1)).err().expect("a mistake").to_string();
    for part in [
        "error[matmul.C2]: matmul: cannot multiply [32, 784] by [512, 10]: inner dimensions differ, 784 and 512",
        "tests/mistakes.rs:",
        "let _ = image.matmul(w1);",
        "`lhs` is f32[32, 784]",
        "`rhs` is f32[512, 10]",
        "help: the right operand needs 784 rows",
        "1 mistake in the model; nothing was run",
    ] {
        assert!(error.contains(part), "missing {part:?} in\n{error}");
    }
}

#[test]
fn a_mistake_inside_a_layer_is_the_line_that_asked_for_it() {
    let g = Graph::new("wrong");
    let x = g.input("x", F32, [4, 3]);
    let body = Sequential::new("body");
    let line = line!() + 1;
    let body = body.push("conv", Conv2d::new(8, 3));
    let _ = body.call(x);
    let found = mistakes_of(&g);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].site.line, line, "{}", found[0]);
}

#[test]
fn names_that_clash_or_are_missing_are_mistakes() {
    let g = Graph::new("wrong");
    let x = g.input("x", F32, [4]);
    let y = g.input("y", F32, [4]);
    let _ = g.parameter("w", F32, [4], Init::Constant(0.0));
    let _ = g.parameter("w", F32, [4], Init::Constant(0.0));
    assert_eq!(mistakes_of(&g).iter().map(|d| d.code.as_str()).collect::<Vec<_>>(), ["variable"]);

    let g2 = Graph::new("needs");
    let (x2, y2) = (g2.input("x", F32, [4]), g2.input("y", F32, [4]));
    g2.program("run").inputs([x2]).outputs([(x2 + y2).named("z")]);
    let found = mistakes_of(&g2);
    assert_eq!(found.len(), 1);
    assert!(found[0].message.contains("also needs the input `y`"), "{}", found[0].message);
    let _ = x + y;
}

/// The step counter is a variable called `step`: a parameter of that name must not be taken for it.
#[test]
fn a_parameter_called_step_is_a_mistake_where_steps_are_counted() {
    let g = Graph::new("wrong");
    let own = g.parameter("step", F32, [2], Init::Constant(0.5));
    let loss = (own * own).mean().named("loss");
    g.program("train").outputs([loss]).update(Sgd::new(0.1).minimize(loss));
    let found = mistakes_of(&g);
    assert!(!found.is_empty() && found.iter().all(|d| d.code == "variable"), "{found:?}");
    assert!(found[0].message.contains("`step`"), "{}", found[0]);
}
