//! One case of the kit, ready to run: a compiled model and what it is fed, step after step. Whoever runs it decides how often
//! and takes the time; what is right comes from references in f64.

use std::sync::Arc;

use thalweg_graph::plan::Plan;
use thalweg_graph::{Array, Bindings, Cluster, DType::F32, DType::I32, Init, Strategy, Summary, shape};
use thalweg_ops::nn::{cross_entropy, layer_norm::LayerNorm};
use thalweg_ops::optim::Sgd;
use thalweg_ops::{Graph, Tensor};
use thalweg_runtime::Outputs;

use super::generator::{integers, permutation, uniform};
use super::options::Options;
use super::{gpt, models, resident};
use crate::data::{Dataset, all_digits};
use crate::error::Result;
use crate::hosts::Hosts;
use crate::model::{Compile, Model};

/// The cases there are. Sizes of the last five can be others: `matmul_512_f16`.
pub const NAMES: &[&str] = &[
    "mlp_train",
    "mlp_small_train",
    "lenet_train",
    "resnet18_cifar_train",
    "gpt_train",
    "gpt2_train",
    "dp_mlp_train_p2",
    "dp_resnet18_train_p2",
    "ps_mlp_train_p2",
    "ps_resnet18_train_p2",
    "resnet50_infer_b1",
    "resnet50_infer_b8",
    "bert_base_infer",
    "tiny_ops",
    "elementwise_fused",
    "matmul_1024",
    "matmul_2048",
    "conv3x3_64_56_b8",
    "matmul_4096_f32",
    "matmul_4096_f16",
    "matmul_4096_bf16",
    "add_256",
    "row_sum_256",
];

/// Steps of one epoch of the digits, and epochs of a run.
const EPOCH: usize = 44;
const EPOCHS: usize = 20;
const BATCH: usize = 32;

/// What a case is fed.
pub(super) enum Feeds {
    /// The same few batches in turn.
    Fixed(Vec<Vec<(&'static str, Array)>>),
    /// Rows of a data set, gathered in every step.
    Rows { train: Box<Dataset>, test: Box<Dataset>, rows: Vec<Vec<usize>> },
}

/// A case, compiled.
pub struct Case {
    model: Model,
    program: &'static str,
    feeds: Feeds,
    /// Whether it learns: its result is a loss, and only the last of many steps is waited for.
    pub trains: bool,
    /// Work of one step, in `unit`s.
    pub items: f64,
    /// What is counted.
    pub unit: &'static str,
    /// Repeats are a multiple of this many steps.
    pub quantum: usize,
}

/// What is known of a right result.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(untagged)]
pub enum Reference {
    /// Of a case that trains.
    Losses {
        /// Those of the first steps.
        losses: Vec<f64>,
        /// On the test set, after all epochs.
        accuracy: Option<f64>,
    },
    /// Of one that computes a tensor.
    Digest {
        /// The root of the sum of squares.
        l2: f64,
        /// Sixteen elements, evenly spaced.
        probe: Vec<f64>,
    },
}

impl Case {
    /// The case called `name` on a cluster, spread over it as `strategy` says; `None` where there is no such case.
    pub fn open(name: &str, cluster: &Cluster, strategy: Option<&Strategy>) -> Result<Option<Case>> {
        Case::open_with(name, cluster, strategy, &Options::default())
    }
    /// The same, with what is said otherwise.
    ///
    /// # Errors
    /// Besides those of the model: if an option does not belong to the case.
    pub fn open_with(
        name: &str,
        cluster: &Cluster,
        strategy: Option<&Strategy>,
        options: &Options,
    ) -> Result<Option<Case>> {
        Case::made(name, options, |g| strategy.map_or_else(|| g.compile(cluster), |s| g.compile_with(cluster, s)))
    }
    /// The same on the devices of other processes.
    ///
    /// # Errors
    /// As [`Case::open_with`], and if the strategy does not fit the workers.
    pub fn open_on(name: &str, hosts: Hosts, strategy: &Strategy, options: &Options) -> Result<Option<Case>> {
        Case::made(name, options, |g| g.compile_on(hosts, strategy))
    }
    fn made(name: &str, options: &Options, compile: impl FnOnce(&Graph) -> Result<Model>) -> Result<Option<Case>> {
        let g = Graph::new(name);
        let (whose, workers) = of_workers(name);
        let (model, program, feeds, items, unit) = match whose {
            "mlp_train" => trained(&g, "mlp", (128, &[784]), 0.05, workers, options, models::mlp),
            "mlp_small_train" => {
                let made = trained(&g, "mlp_small", (BATCH as u64, &[64]), 0.05, 1, options, models::mlp_small);
                (made.0, made.1, digits()?, made.3, made.4)
            }
            "lenet_train" => trained(&g, "lenet", (64, &[1, 28, 28]), 0.05, workers, options, models::lenet),
            "resnet18_cifar_train" => trained(&g, "resnet18", (32, &[3, 32, 32]), 0.001, workers, options, |g, x| {
                models::resnet18(g, x, workers)
            }),
            "gpt_train" => gpt::kit(&g, options),
            "gpt2_train" => gpt::gpt2(&g, options)?,
            "resnet50_infer_b1" => inferred(&g, "resnet50", &[1, 3, 224, 224], options, models::resnet50),
            "resnet50_infer_b8" => inferred(&g, "resnet50", &[8, 3, 224, 224], options, models::resnet50),
            "bert_base_infer" => inferred(&g, "bert", &[1, 128, 768], options, models::bert),
            _ => match op(&g, whose).or_else(|| resident::made(&g, whose)) {
                Some(made) => made,
                None => return Ok(None),
            },
        };
        options.belong_to(name, matches!(program, "train" | "infer"))?;
        let mut compiled = compile(&g)?;
        if let Some(model) = model {
            models::initialize(&mut compiled, model)?;
        }
        let quantum = if matches!(feeds, Feeds::Rows { .. }) { EPOCH } else { 1 };
        let trains = program == "train";
        Ok(Some(Case { model: compiled, program, feeds, trains, items, unit, quantum }))
    }
    /// Runs step `i`, counted from 0.
    pub fn step(&mut self, i: usize) -> Result<Outputs> {
        match &self.feeds {
            Feeds::Fixed(batches) => run(&mut self.model, self.program, &batches[i % batches.len()]),
            Feeds::Rows { train, rows, .. } => {
                self.model.run(self.program, &train.select(&rows[i % rows.len()]).feeds())
            }
        }
    }
    /// Runs step `i` and gives the loss, or the tensor that is computed.
    pub fn result(&mut self, i: usize) -> Result<Array> {
        let outputs = self.step(i)?;
        Ok(outputs.iter().next().map(|(_, out)| out.clone()).unwrap_or_else(|| Array::zeros(F32, &[])))
    }
    /// Steps of a whole run that ends in an accuracy; 0 where there is none.
    pub fn epochs(&self) -> usize {
        if matches!(self.feeds, Feeds::Rows { .. }) { EPOCH * EPOCHS } else { 0 }
    }
    /// The share of the test set that is recognized.
    pub fn accuracy(&mut self) -> Result<Option<f64>> {
        let Feeds::Rows { test, .. } = &self.feeds else { return Ok(None) };
        Ok(Some(self.model.run("eval", &test.feeds())?.item("accuracy")))
    }
    /// How far the losses of the first ten steps, or the result of the first, are from `reference`. Runs those steps.
    pub fn check(&mut self, reference: &Reference) -> Result<f64> {
        let steps = if self.trains { 10 } else { 1 };
        let results: Vec<Array> = (0..steps).map(|i| self.result(i)).collect::<Result<_>>()?;
        Ok(rel_err(&results, reference))
    }
    /// What it runs, layer by layer.
    pub fn summary(&mut self) -> Result<Summary> {
        self.model.summary(self.program, &self.bindings())
    }
    /// The plan of one step.
    pub fn plan(&mut self) -> Result<Arc<Plan>> {
        let bindings = self.bindings();
        Ok(self.model.session().plan(self.program, &bindings)?)
    }
    /// The program that a step runs.
    pub fn program(&self) -> &'static str {
        self.program
    }
    /// Extents of one step: the small network alone has a named dimension.
    pub fn bindings(&self) -> Bindings {
        let graph = self.model.graph();
        graph.dims.keys().map(|name| (name.clone(), BATCH as u64)).collect()
    }
    /// The model.
    pub fn model(&mut self) -> &mut Model {
        &mut self.model
    }
}

/// Whether it is one that several workers run, a batch each.
pub fn is_case_of_workers(name: &str) -> bool {
    of_workers(name).0 != name
}

/// Whether it is one of workers and parameter servers.
pub fn has_servers(name: &str) -> bool {
    is_case_of_workers(name) && name.starts_with("ps_")
}

/// Under which name the references know what the case `name` computes: servers change nothing of it, and one worker computes
/// what there is without others.
pub fn reference_name(name: &str) -> String {
    match of_workers(name) {
        (whose, 1) => whose.into(),
        _ => name.strip_prefix("ps_").map_or_else(|| name.into(), |rest| format!("dp_{rest}")),
    }
}

/// The largest relative error of losses, or of one result, by the specification's definition.
pub fn rel_err(results: &[Array], reference: &Reference) -> f64 {
    // NaN is as wrong as can be.
    let worst = |errors: &mut dyn Iterator<Item = f64>| {
        errors.fold(0.0f64, |a, b| if b.is_nan() { f64::INFINITY } else { a.max(b) })
    };
    match reference {
        Reference::Losses { losses, .. } => {
            let error = |(have, want): (&Array, &f64)| (have.item() - want).abs() / want.abs().max(1.0);
            worst(&mut results.iter().zip(losses).map(error))
        }
        Reference::Digest { l2, probe } => {
            let values = results.first().map(Array::to_f64).unwrap_or_default();
            let step = (values.len() / 16).max(1);
            let scale = worst(&mut probe.iter().map(|p| p.abs()));
            let probes = values.iter().step_by(step).zip(probe).map(|(have, want)| (have - want).abs() / scale);
            let have = values.iter().map(|x| x * x).sum::<f64>().sqrt();
            worst(&mut probes.chain([(have - l2).abs() / l2]))
        }
    }
}

fn run(model: &mut Model, program: &str, batch: &[(&'static str, Array)]) -> Result<Outputs> {
    model.run(program, &batch.iter().map(|(n, a)| (*n, a)).collect::<Vec<_>>())
}

/// What opening a case needs: whose initial values (none: those that variables were declared with), which program, feeds,
/// work.
pub(super) type Made = (Option<&'static str>, &'static str, Feeds, f64, &'static str);

/// The case that each worker of `name` runs, and how many there are: `dp_mlp_train_p2` is `mlp_train` for two workers, one
/// batch each. So is `ps_mlp_train_p2`, for which there are servers beside.
fn of_workers(name: &str) -> (&str, u64) {
    let parts = || {
        let (whose, workers) = name.strip_prefix("dp_").or(name.strip_prefix("ps_"))?.rsplit_once("_p")?;
        let workers = workers.parse().ok().filter(|w| (1..=64).contains(w))?;
        match whose {
            "mlp_train" => Some(("mlp_train", workers)),
            "lenet_train" => Some(("lenet_train", workers)),
            "resnet18_train" => Some(("resnet18_cifar_train", workers)),
            _ => None,
        }
    };
    parts().unwrap_or((name, 1))
}

/// A classifier of ten classes, trained by gradient descent. Worker `r` of `workers` has batch `s · workers + r` of the four in
/// step `s`; all batches of a step are fed as one.
fn trained(
    g: &Graph,
    model: &'static str,
    (batch, sample): (u64, &[u64]),
    lr: f64,
    workers: u64,
    options: &Options,
    forward: impl for<'g> Fn(&'g Graph, Tensor<'g>) -> Tensor<'g>,
) -> Made {
    let (all, one) = ([&[batch * workers], sample].concat(), [&[batch], sample].concat());
    let sgd = |loss| options.scaled(Sgd::new(lr).momentum(0.9)).minimize(loss);
    if model == "mlp_small" {
        // The test set is larger than a batch.
        let n = g.dim("n", 1..=512);
        let (x, y) = (g.input("image", F32, shape![n, 1, 8, 8]), g.input("label", I32, shape![n]));
        let logits = forward(g, x.flatten(1));
        learn(g, logits, y, options, sgd);
        g.program("eval").outputs([logits.argmax(-1).eq(y).mean().named("accuracy")]);
        return (Some(model), "train", Feeds::Fixed(vec![]), batch as f64, "sample");
    }
    let (x, y) = (g.input("x", F32, &all[..]), g.input("y", I32, [batch * workers]));
    learn(g, forward(g, x), y, options, sgd);
    let named = |what: &str, j: u64| format!("{model}/{what}{j}");
    let feed = |step: u64| {
        let batches = || (0..workers).map(|r| (step * workers + r) % 4);
        let rows: Vec<f32> =
            batches().flat_map(|j| uniform(&named("x", j), &one, 1.0, 0.0).as_slice::<f32>().to_vec()).collect();
        let labels: Vec<i32> =
            batches().flat_map(|j| integers(&named("y", j), &[batch], 10).as_slice::<i32>().to_vec()).collect();
        vec![("x", Array::from_slice(&all, &rows)), ("y", Array::from_slice(&[batch * workers], &labels))]
    };
    (Some(model), "train", Feeds::Fixed((0..4).map(feed).collect()), (batch * workers) as f64, "sample")
}

/// The program `train`.
pub(super) fn learn<'g>(
    g: &'g Graph,
    logits: Tensor<'g>,
    y: Tensor<'g>,
    options: &Options,
    minimize: impl Fn(Tensor<'g>) -> thalweg_ops::Update,
) {
    let loss = cross_entropy(logits, y).mean().named("loss");
    g.program("train").precision(options.precision).outputs([loss]).update(minimize(loss));
}

/// The digits in the order of their file, 32 rows a step.
fn digits() -> Result<Feeds> {
    let all = all_digits()?;
    let order: Vec<usize> = (0..all.len()).collect();
    let (train, test) = order.split_at(1437);
    let rows = (0..EPOCHS).flat_map(|epoch| {
        let order = permutation(&format!("mlp_small/perm{epoch}"), 1437);
        order.chunks_exact(BATCH).map(<[usize]>::to_vec).collect::<Vec<_>>()
    });
    let rows = rows.collect();
    Ok(Feeds::Rows { train: Box::new(all.select(train)), test: Box::new(all.select(test)), rows })
}

fn inferred(
    g: &Graph,
    model: &'static str,
    shape: &[u64],
    options: &Options,
    forward: impl for<'g> Fn(&'g Graph, Tensor<'g>) -> Tensor<'g>,
) -> Made {
    let x = g.input("x", F32, shape);
    g.program("infer").precision(options.precision).outputs([forward(g, x).named("out")]);
    let feeds = Feeds::Fixed(vec![vec![("x", uniform(&format!("{model}/x"), shape, 1.0, 0.0))]]);
    (Some(model), "infer", feeds, shape[0] as f64, "sample")
}

/// A case of few ops, whose inputs are named `case/name`.
fn op(g: &Graph, name: &str) -> Option<Made> {
    let input = |n: &'static str, shape: &[u64]| g.input(n, F32, shape);
    let data =
        |n: &'static str, shape: &[u64], scale, offset| (n, uniform(&format!("{name}/{n}"), shape, scale, offset));
    let (out, feeds, items, unit) = match name {
        "tiny_ops" => {
            let names = ["x", "q", "p", "r"];
            let [x, q, p, r] = names.map(|n| input(n, &[16]));
            let out = (0..250).fold(x, |x, _| (x * q + p).tanh() - r);
            (out, names.map(|n| data(n, &[16], 1.0, 0.0)).to_vec(), 1000.0, "op")
        }
        "elementwise_fused" => {
            let [x, res] = ["x", "res"].map(|n| input(n, &[4096, 1024]));
            let [a, b, gain, bias] = ["a", "b", "g", "h"].map(|n| input(n, &[1024]));
            let y = (x * a + b).gelu() * x.sigmoid() + res;
            let out = y.apply(LayerNorm { eps: 1e-5 }, [gain, bias]);
            let (large, small) = ([4096, 1024], [1024]);
            let feeds = vec![
                data("x", &large, 3.0, 0.0),
                data("res", &large, 1.0, 0.0),
                data("a", &small, 1.0, 0.0),
                data("b", &small, 1.0, 0.0),
                data("g", &small, 0.1, 1.0),
                data("h", &small, 0.1, 0.0),
            ];
            (out, feeds, 3.0 * 4.0 * 4096.0 * 1024.0 / 1e9, "GB")
        }
        "matmul_1024" | "matmul_2048" => {
            let n = if name == "matmul_1024" { 1024 } else { 2048 };
            let out = input("a", &[n, n]).matmul(input("b", &[n, n]));
            (out, ["a", "b"].map(|m| data(m, &[n, n], 1.0, 0.0)).to_vec(), 2.0 * (n as f64).powi(3) / 1e9, "GFLOP")
        }
        "conv3x3_64_56_b8" => {
            let w = g.parameter("w", F32, [64, 64, 3, 3], Init::Constant(0.0));
            let conv = thalweg_ops::conv::conv2d::Conv2d { pad: [1, 1], ..Default::default() };
            let shape = [8, 64, 56, 56];
            let flops = 2.0 * (8 * 64 * 64 * 9 * 56 * 56) as f64;
            (input("x", &shape).conv2d(w, conv), vec![data("x", &shape, 1.0, 0.0)], flops / 1e9, "GFLOP")
        }
        _ => return None,
    };
    g.program("run").outputs([out.named("out")]);
    let name = NAMES.iter().find(|n| **n == name)?;
    Some((Some(name), "run", Feeds::Fixed(vec![feeds]), items, unit))
}
