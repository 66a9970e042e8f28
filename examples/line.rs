//! The smallest model: a line fitted to points. Declares a graph, compiles it, runs one program many times.
//!
//! Run it: `cargo run --release --example line`. It prints a slope near 2 and an offset near 1.

use thalweg::prelude::*;

const STEPS: usize = 400;

fn main() -> thalweg::Result<()> {
    let g = Graph::new("line").seed(0);
    let n = g.dim("n", 1..=1024);
    let x = g.input("x", F32, shape![n]);
    let y = g.input("y", F32, shape![n]);
    let slope = g.parameter("slope", F32, (), Init::Constant(0.0));
    let offset = g.parameter("offset", F32, (), Init::Constant(0.0));
    let error = x * slope + offset - y;
    let loss = (error * error).mean().named("loss");
    g.program("train").outputs([loss]).update(Sgd::new(0.1).momentum(0.5).minimize(loss));

    let mut model = g.compile(&Cluster::local())?;
    let xs: Vec<f32> = (0..64).map(|i| i as f32 / 32.0 - 1.0).collect();
    let ys: Vec<f32> = xs.iter().enumerate().map(|(i, x)| 2.0 * x + 1.0 + 0.1 * (i as f32 * 1.7).sin()).collect();
    let (x, y) = (Array::from_slice(&[64], &xs), Array::from_slice(&[64], &ys));
    let mut loss = f64::NAN;
    for _ in 0..STEPS {
        loss = model.run("train", feed! { x: &x, y: &y })?.item("loss");
    }
    let (slope, offset) = (model.get("slope")?.item(), model.get("offset")?.item());
    println!("y = {slope:.3} x + {offset:.3}   (loss {loss:.5} after {STEPS} steps)");
    assert!((slope - 2.0).abs() < 0.05 && (offset - 1.0).abs() < 0.05);
    Ok(())
}
