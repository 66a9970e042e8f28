//! Writes the part of the corpus that is Thalweg's own formats: graphs, kernels and plans of two small models, as text
//! and as bytes; checkpoints of them, whole and in shards; what goes between processes, and what engines say. To be run again when a format changes. The other files were made by `runtime/data/tests/fixtures/make.py`
//! or by hand.
//!
//! Expected output: `wrote 50 files`, give or take.

use std::path::Path;

use safetensors::{SafeTensors, tensor::TensorView};
use thalweg_fuzz::packed;
use thalweg_graph::DType::{F32, I32};
use thalweg_graph::{Bindings, Init, shape};
use thalweg_ops::nn::{Conv2d, Layer, Linear, Sequential, cross_entropy};
use thalweg_ops::optim::{AdamW, Sgd};
use thalweg_runtime::checkpoint::{Manifest, Part, PieceEntry, Place, ShardEntry, inspect};
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

/// The files of a checkpoint, its manifest first.
fn saved(g: thalweg_ops::Graph) -> Result<Vec<Vec<u8>>, Box<dyn std::error::Error>> {
    let graph = g.finish().map_err(|mistakes| mistakes[0].to_string())?;
    let mut session = Session::new(graph, Box::new(ReferenceDevice::default()))?;
    let folder = std::env::temp_dir().join(format!("thalweg-corpus-{}", std::process::id()));
    let saved = session.save_and_wait(&folder)?;
    let manifest = inspect(&saved.path)?.manifest;
    let mut all = vec![std::fs::read(&saved.path)?];
    for shard in &manifest.shards {
        all.push(std::fs::read(folder.join(&shard.file))?);
    }
    std::fs::remove_dir_all(&folder)?;
    Ok(all)
}

/// The same as two workers would have written it: each the half of every variable that can be cut, or all of it in turn.
fn in_shards(whole: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, Box<dyn std::error::Error>> {
    // The manifest without its checksum, which is of other bytes.
    let mut json: serde_json::Value = serde_json::from_slice(&whole[0])?;
    json.as_object_mut().ok_or("no manifest")?.remove("checksum");
    let mut manifest: Manifest = serde_json::from_value(json)?;
    let (id, mut files) = (manifest.id(), vec![vec![]]);
    let mut shards = vec![];
    for (old, bytes) in manifest.shards.clone().iter().zip(&whole[1..]) {
        let part = if old.file.starts_with("weights") { Part::Weights } else { Part::Training };
        let tensors = SafeTensors::deserialize(bytes)?;
        let first = shards.len() as u16;
        let mut halves: [Vec<(String, TensorView<'_>)>; 2] = [vec![], vec![]];
        for (at, v) in manifest.variables.iter_mut().filter(|v| Part::of(v.kind) == part).enumerate() {
            let view = tensors.tensor(&v.name)?;
            let cut = v.shape.first().is_some_and(|n| *n > 1);
            let rows = v.shape.first().copied().unwrap_or(1);
            let ranges = if cut { vec![(0, 1), (1, rows)] } else { vec![(0, rows)] };
            let row = view.data().len() / rows as usize;
            for (half, (begin, end)) in ranges.into_iter().enumerate() {
                let half = if cut { half } else { at % 2 };
                let (mut start, mut shape) = (vec![0; v.shape.len()], v.shape.clone());
                if cut {
                    (start[0], shape[0]) = (begin, end - begin);
                }
                let piece = PieceEntry { shard: first + half as u16, start, shape };
                let shape = piece.shape.iter().map(|n| *n as usize).collect();
                let data = &view.data()[begin as usize * row..end as usize * row];
                halves[half].push((piece.tensor(v), TensorView::new(view.dtype(), shape, data)?));
                v.pieces.push(piece);
            }
        }
        for (index, half) in (0..).zip(halves) {
            let bytes = safetensors::serialize(half, None)?;
            let file = part.file(id, Place { index, of: 2 });
            shards.push(ShardEntry { file, bytes: bytes.len() as u64, checksum: old.checksum });
            files.push(bytes);
        }
    }
    manifest.shards = shards;
    files[0] = manifest.to_bytes();
    Ok(files)
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
    for (name, whole) in [("line", saved(line())?), ("picture", saved(picture())?)] {
        write("manifest", name, &whole[0])?;
        write("safetensors", name, &whole[1])?;
        write("checkpoint", name, &packed(&whole))?;
        if name == "line" {
            // Too few variables for two.
            continue;
        }
        let shards = in_shards(&whole)?;
        write("manifest", &format!("{name}-shards"), &shards[0])?;
        write("safetensors", &format!("{name}-shard"), &shards[1])?;
        write("checkpoint", &format!("{name}-shards"), &packed(&shards))?;
        // One shard twice, and the other not at all.
        let same = [&shards[..1], &shards[1..2], &shards[1..2], &shards[3..]].concat();
        write("checkpoint", &format!("bad-{name}-shard-twice"), &packed(&same))?;
    }
    for (folder, name, bytes) in thalweg_distributed::fuzzing::corpus() {
        write(folder, &name, &bytes)?;
    }
    println!("wrote {written} files");
    Ok(())
}
