//! A transformer that learns to write, character by character, from a text file or from this project's own Markdown. The
//! windows of text are a source of one's own: where samples come from is a trait of four functions, and order, batches,
//! threads and checkpoints follow. The length of a window is a named dimension, so that the text can grow from one
//! character on without padding.
//!
//! Run it: `cargo run --release --example characters -- [FILE [PROMPT]]`. It prints the loss as it falls, bits per
//! character on a tenth of the text that it does not train on, and goes on from the prompt (else from what the text begins
//! with) for a few hundred characters; about 15 seconds on two cores.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thalweg::data::{DataError, Dataset};
use thalweg::graph::TensorType;
use thalweg::ops::layout::iota::Iota;
use thalweg::prelude::*;

const LENGTH: usize = 64;
const WIDTH: u64 = 96;
const BLOCKS: usize = 2;
const BATCH: usize = 16;
const STEPS: usize = 800;
const GENERATED: usize = 400;
const TEMPERATURE: f64 = 0.7;

/// A sample is a stretch of text, and the same one character later: what follows each character. Clones share the text.
#[derive(Clone)]
struct Windows {
    text: Arc<[i32]>,
    /// From window to window.
    stride: usize,
}

impl Source for Windows {
    fn fields(&self) -> Vec<(String, TensorType)> {
        ["text", "next"].map(|name| (name.to_string(), I32.of([LENGTH]))).into()
    }
    fn len(&self) -> usize {
        self.text.len().checked_sub(LENGTH + 1).map_or(0, |rest| rest / self.stride + 1)
    }
    fn fingerprint(&self) -> Result<[u8; 32], DataError> {
        let name = format!("windows of {LENGTH} every {}", self.stride);
        Dataset::new([(name, Array::from_slice(&[self.text.len() as u64], &self.text))])?.fingerprint()
    }
    fn read(&self, rows: &[usize]) -> Result<Dataset, DataError> {
        if let Some(&row) = rows.iter().find(|row| **row >= self.len()) {
            return Err(DataError::NoSample { row, len: self.len() });
        }
        let field = |late: usize| {
            let at = rows.iter().map(|row| row * self.stride + late);
            let characters: Vec<i32> = at.flat_map(|at| &self.text[at..at + LENGTH]).copied().collect();
            Array::from_slice(&[rows.len() as u64, LENGTH as u64], &characters)
        };
        Dataset::new([("text", field(0)), ("next", field(1))])
    }
}

fn declare(characters: u64) -> Graph {
    let g = Graph::new("characters").seed(0);
    let batch = g.dim("batch", 1..=64);
    let length = g.dim("length", 1..=LENGTH as u64);
    let text = g.input("text", I32, shape![batch, length]);
    let next = g.input("next", I32, shape![batch, length]);

    let place = text.source(Iota { axis: 0, shape: shape![length], dtype: I32 });
    let place = g.scope("place", || Embedding::new(LENGTH as u64, WIDTH).call(place));
    let mut x = g.scope("character", || Embedding::new(characters, WIDTH).call(text)) + place;
    for i in 0..BLOCKS {
        x = g.scope(&format!("block{i}"), || TransformerBlock::new(4).causal().call(x));
    }
    let x = g.scope("norm", || LayerNorm::new().call(x));
    let logits = g.scope("head", || Linear::new(characters).call(x));
    let loss = cross_entropy(logits, next).mean().named("loss");

    const WARMUP: u64 = 50;
    let schedule = Schedule::cosine(STEPS as u64 - WARMUP).warmup(WARMUP);
    let optimizer = AdamW::new(6e-3).schedule(schedule).clip_norm(1.0);
    g.program("train").outputs([loss]).update(optimizer.minimize(loss));
    g.program("eval").outputs([loss]);
    g.program("write").inputs([text]).outputs([logits.named("logits")]);
    g
}

fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::args_os().nth(1).map(PathBuf::from);
    let text = match &file {
        Some(file) => read(file)?,
        None => own_markdown()?,
    };
    let mut alphabet: Vec<char> = text.chars().collect();
    alphabet.sort_unstable();
    alphabet.dedup();
    let number = |c| match alphabet.binary_search(&c) {
        Ok(i) => Ok(i as i32),
        Err(_) => Err(format!("the prompt has {c:?}, which the text has not: it could not be learned")),
    };
    let numbers = text.chars().map(number).collect::<Result<Vec<i32>, _>>()?;
    let prompt = match std::env::args_os().nth(2) {
        Some(prompt) => prompt.to_string_lossy().chars().map(number).collect::<Result<Vec<i32>, _>>()?,
        None => numbers.iter().copied().take(LENGTH / 4).collect(),
    };
    if prompt.is_empty() {
        return Err("there is nothing to go on from: the prompt, or the text, is empty".into());
    }
    let (train, test) = numbers.split_at(numbers.len() * 9 / 10);
    println!("{} characters, {} different ones; the last {} are held out", numbers.len(), alphabet.len(), test.len());
    let train = Windows { text: train.into(), stride: 1 };
    let test = Windows { text: test.into(), stride: LENGTH };
    if train.len() < BATCH || test.is_empty() || alphabet.len() < 2 {
        let least = 10 * (LENGTH + 1);
        return Err(
            format!("too little to learn from: give a text of at least {least} characters, not all alike").into()
        );
    }

    let mut model = declare(alphabet.len() as u64).compile(&Cluster::local())?;
    let mut loss = 0.0;
    for batch in model.batches(&train.shuffle(1).batch(BATCH).drop_last().epochs(STEPS as u64)).take(STEPS) {
        loss += model.run("train", &batch?.feeds())?.item("loss");
        if model.step().is_multiple_of(100) {
            println!("step {:3}  loss {:.3}", model.step(), loss / 100.0);
            loss = 0.0;
        }
    }

    let mut nats = 0.0;
    for batch in test.batch(BATCH).iter() {
        let batch = batch?;
        nats += model.run("eval", &batch.feeds())?.item("loss") * batch.len() as f64;
    }
    let bits = nats / test.len() as f64 / std::f64::consts::LN_2;
    let plain = bits_by_frequency(&train.text, &test.text, alphabet.len());
    println!("held out: {bits:.2} bits per character; {plain:.2} by how frequent each character is");

    let (mut written, mut random) = (prompt, Random(1));
    for _ in 0..GENERATED {
        let seen = &written[written.len().saturating_sub(LENGTH)..];
        let seen = Array::from_slice(&[1, seen.len() as u64], seen);
        let out = model.run("write", feed! { text: &seen })?;
        let logits = out.get("logits").expect("the program returns it").to_f64();
        written.push(random.choose(&logits[logits.len() - alphabet.len()..])); // what follows the last character
    }
    let text: String = written.iter().map(|i| alphabet[*i as usize]).collect();
    println!("\n{text}");
    // Of any other text nothing is known: random characters cannot be learned.
    assert!(file.is_some() || bits < 0.8 * plain);
    Ok(())
}

/// Bits per character of `test` for who knows nothing but how often each of so many characters is in `train`.
fn bits_by_frequency(train: &[i32], test: &[i32], characters: usize) -> f64 {
    let mut count = BTreeMap::new();
    train.iter().for_each(|c| *count.entry(*c).or_insert(1.0) += 1.0);
    let all = (train.len() + characters) as f64;
    test.iter().map(|c| -(count.get(c).unwrap_or(&1.0) / all).log2()).sum::<f64>() / test.len() as f64
}

/// SplitMix64 (Steele et al., *Fast Splittable Pseudorandom Number Generators*, OOPSLA 2014).
struct Random(u64);

impl Random {
    /// Uniform in [0, 1).
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
    /// One of the classes that these unnormalized log-probabilities are of.
    fn choose(&mut self, logits: &[f64]) -> i32 {
        let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = logits.iter().map(|z| ((z - most) / TEMPERATURE).exp()).collect();
        let mut left = self.unit() * weights.iter().sum::<f64>();
        let chosen = weights.iter().position(|w| {
            left -= w;
            left < 0.0
        });
        chosen.unwrap_or(logits.len() - 1) as i32
    }
}

/// A text file.
fn read(file: &Path) -> Result<String, Box<dyn Error>> {
    let bytes = std::fs::read(file).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        format!("{} is not UTF-8 text: byte {at} belongs to no character; give a text file", file.display()).into()
    })
}

/// Everything this project says about itself, in the order of the paths.
fn own_markdown() -> Result<String, Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut folders, mut files) =
        (vec![root.join("docs")], vec![root.join("README.md"), root.join("ARCHITECTURE.md")]);
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).map_err(|e| format!("cannot read {}: {e}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "md") {
                files.push(path);
            }
        }
    }
    files.sort();
    files.iter().map(|file| read(file)).collect()
}
