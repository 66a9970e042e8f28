//! Writes the part of the corpus that is Thalweg's own formats: graphs, kernels and plans of two small models, as text
//! and as bytes. To be run again when a format changes. The other files were made by `runtime/data/tests/fixtures/make.py`
//! or by hand.
//!
//! Expected output: `wrote 14 files`, give or take.

use std::path::Path;

use thalweg_graph::DType::{F32, I32};
use thalweg_graph::{Bindings, Init, shape};
use thalweg_ops::nn::{Conv2d, Layer, Linear, Sequential, cross_entropy};
use thalweg_ops::optim::{AdamW, Sgd};
use thalweg_runtime::{ReferenceDevice, Session};

fn line() -> thalweg_ops::Graph {
    let g = thalweg_ops::Graph::new("line");
    let n = g.dim("n", 1..=64);
    let (x, y) = (g.input("x", F32, shape![n]), g.input("y", F32, shape![n]));
    let slope = g.parameter("slope", F32, (), Init::Constant(0.5));
    let error = x * slope - y;
    let loss = (error * error).mean().named("loss");
    g.program("train").outputs([loss]).update(Sgd::new(0.1).minimize(loss));
    g
}

fn picture() -> thalweg_ops::Graph {
    let g = thalweg_ops::Graph::new("picture").seed(3);
    let n = g.dim("n", 1..=8);
    let (image, label) = (g.input("image", F32, shape![n, 1, 4, 4]), g.input("label", I32, shape![n]));
    let body = Sequential::new("body").push("a", Conv2d::new(2, 3).pad(1)).relu().max_pool(2).flatten().dropout(0.5);
    let loss = cross_entropy(body.push("b", Linear::new(3)).call(image), label).mean().named("loss");
    g.program("train").outputs([loss]).update(AdamW::new(1e-2).minimize(loss));
    g
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut written = 0;
    let mut write = |folder: &str, name: &str, bytes: &[u8]| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(folder);
        written += 1;
        std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(folder.join(name), bytes))
    };
    for (name, g) in [("line", line()), ("picture", picture())] {
        let graph = g.finish().map_err(|mistakes| mistakes[0].to_string())?;
        write("graph_text", name, graph.to_string().as_bytes())?;
        write("graph_bytes", name, &graph.to_bytes())?;
        let mut session = Session::new(graph, Box::new(ReferenceDevice::default()))?;
        let plan = session.plan("train", &Bindings::from([("n".into(), 4)]))?;
        write("plan_text", name, plan.to_string().as_bytes())?;
        write("plan_bytes", name, &plan.to_bytes())?;
        // Kernels of different kinds: the first few and the last.
        let kernels = plan.kernels.values();
        for i in [0, kernels.len() / 2, kernels.len() - 1] {
            write("kernel_text", &format!("{name}-{i}"), kernels[i].to_string().as_bytes())?;
            write("kernel_bytes", &format!("{name}-{i}"), &kernels[i].to_bytes())?;
        }
    }
    println!("wrote {written} files");
    Ok(())
}
