//! The kit's language models that learn: `gpt_train`, a row of the specification, and `gpt2_train`, the smallest GPT-2
//! (Radford et al., *Language Models are Unsupervised Multitask Learners*, 2019) with its 124,439,808 parameters, which is
//! large enough to keep a GPU busy. The second has no references in a file, since its sizes can be said: whoever wants them
//! computes them for the same sizes (`benches/gpu_torch.py --float64`).

use thalweg_graph::{Array, DType::I32};
use thalweg_ops::Graph;
use thalweg_ops::optim::AdamW;

use super::case::{Feeds, Made, learn};
use super::generator::integers;
use super::models::{self, Gpt};
use super::options::Options;
use crate::error::{Error, Result};

/// `gpt_train`.
pub(super) fn kit(g: &Graph, options: &Options) -> Made {
    let gpt = Gpt { layers: 6, width: 384, heads: 6, vocabulary: 65, context: 128, tied: false };
    made(g, "gpt", &gpt, [8, 128], options)
}

/// `gpt2_train`. Four sequences are what a card of 16 GB has room for.
pub(super) fn gpt2(g: &Graph, options: &Options) -> Result<Made> {
    let Options { batch, context, layers, .. } = *options;
    let whole = Gpt { layers: 12, width: 768, heads: 12, vocabulary: 50257, context: 1024, tied: true };
    let (batch, length) = (batch.unwrap_or(4), context.unwrap_or(whole.context));
    let gpt = Gpt { layers: layers.unwrap_or(whole.layers), ..whole };
    for (what, have, most) in [("batch", batch, 512), ("context", length, gpt.context), ("layers", gpt.layers, 96)] {
        if !(1..=most).contains(&have) {
            return Err(Error::Case(format!("`gpt2_train`: {what} is {have}, and can be 1 to {most}")));
        }
    }
    Ok(made(g, "gpt2", &gpt, [batch, length], options))
}

/// A model that learns to say what comes next, from four batches of random tokens in turn.
fn made(g: &Graph, name: &'static str, gpt: &Gpt, [batch, length]: [u64; 2], options: &Options) -> Made {
    let (x, y) = (g.input("x", I32, [batch, length]), g.input("y", I32, [batch, length]));
    let adamw = AdamW::new(3e-4).betas(0.9, 0.99).eps(1e-8).weight_decay(0.1);
    learn(g, models::gpt(g, x, gpt), y, options, |loss| options.scaled(adamw.clone()).minimize(loss));
    let feed = |j: usize| {
        let tokens = integers(&format!("{name}/tokens{j}"), &[batch, length + 1], gpt.vocabulary);
        let part = |from: usize| {
            let rows = tokens.as_slice::<i32>().chunks_exact(length as usize + 1);
            let part: Vec<i32> = rows.flat_map(|row| &row[from..from + length as usize]).copied().collect();
            Array::from_slice(&[batch, length], &part)
        };
        vec![("x", part(0)), ("y", part(1))]
    };
    (Some(name), "train", Feeds::Fixed((0..4).map(feed).collect()), (batch * length) as f64, "token")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As everybody counts them: 50257 · 768 once, for what is embedded and what is said.
    #[test]
    fn gpt2_has_124_439_808_parameters_however_long_its_sequences() {
        for context in [None, Some(16)] {
            let g = Graph::new("gpt2_train");
            gpt2(&g, &Options { context, ..Default::default() }).expect("these sizes can be");
            let graph = g.finish().expect("no mistakes");
            let learned = graph.state.values().iter().filter(|v| v.kind == thalweg_graph::VarKind::Param);
            let count = |v: &thalweg_graph::Variable| v.ty.shape.fixed().expect("numbers").iter().product::<u64>();
            assert_eq!(learned.map(count).sum::<u64>(), 124_439_808);
        }
    }
}
