//! `thalweg demo`: the main job, end to end. Trains on 1,437 handwritten digits, looks at the 360 test digits once, at
//! the end, and shows a few of them.

use std::io::{IsTerminal, Write, stdout};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use thalweg::graph::cluster::{DeviceKind, DeviceSpec};
use thalweg::prelude::*;
use thalweg::runtime::checkpoint::published;

use super::place::Where;
use super::trace::Tracing;
use super::{digits_model, feeding, picture, profile};

/// Flags of `thalweg demo`.
#[derive(Args)]
pub(crate) struct Demo {
    /// What all random numbers start from.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Passes over the training data.
    #[arg(long, default_value_t = 30)]
    passes: u64,
    /// Steps, instead of passes.
    #[arg(long, conflicts_with = "passes")]
    steps: Option<u64>,
    /// Samples per step.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=512))]
    batch: u64,
    /// Have the training digits read where the devices are, by each worker what its leaves take, and not fed by the driver:
    /// `digits` for those that come with the program, or `ROOT/PATH` for an `.npz` with `image` and `label`, or a folder with
    /// `image.npy` and `label.npy`, below a root.
    #[arg(long, value_name = "WHAT")]
    source: Option<String>,
    /// A directory below which `--source` is read where there are no workers. To a job `thalweg launch` says it.
    #[arg(long = "root", value_name = "NAME=DIR", requires = "source")]
    roots: Vec<String>,
    #[command(flatten)]
    place: Where,
    /// In what products run: `f32`, or `f16` or `bf16` beside f32 (mixed precision).
    #[arg(long, default_value = "f32", value_parser = precision)]
    precision: Precision,
    /// Print one JSON object per line instead of text.
    #[arg(long)]
    json: bool,
    /// Time every launch and print where the time went, on stderr.
    #[arg(long)]
    profile: bool,
    /// Write when every launch of the last 100 steps ran, as a Chrome trace, which Perfetto opens.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// End a step in which any value is infinite or NaN before it commits, and say where that came from.
    #[arg(long)]
    check_finite: bool,
    /// Save checkpoints to this directory, the last one at the end.
    #[arg(long, value_name = "DIR")]
    save: Option<PathBuf>,
    /// Steps from one save to the next.
    #[arg(long, value_name = "STEPS", default_value_t = 100, requires = "save",
        value_parser = clap::value_parser!(u64).range(1..))]
    save_every: u64,
    /// Go on from the newest checkpoint there, if there is one.
    #[arg(long, requires = "save")]
    resume: bool,
}

/// A precision by the type that products run in.
pub(super) fn precision(text: &str) -> Result<Precision, String> {
    match text {
        "f32" => Ok(Precision::Declared),
        "f16" => Ok(Precision::Mixed(F16)),
        "bf16" => Ok(Precision::Mixed(BF16)),
        _ => Err(format!("`{text}` is no precision: `f32`, `f16` or `bf16`")),
    }
}

/// What checkpoints call the training digits.
const SOURCE: &str = "digits";

impl Demo {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let (train, test) = thalweg::data::digits()?;
        let hosts = self.place.hosts()?;
        let cluster = hosts.as_ref().map_or_else(|| self.place.cluster(), |h| Ok(h.cluster().clone()))?;
        // Whoever takes the place of a driver that was killed goes on where that one was.
        let resume = self.resume || hosts.as_ref().is_some_and(|h| h.is_restart());
        let world = if hosts.is_some() { cluster.devices.len() } else { 1 };
        let digits = digits_model(self.seed, self.precision);
        let mut model = match hosts {
            Some(hosts) => self.place.compile_on(hosts, &digits)?,
            None => self.place.compile(&digits)?,
        };
        let data = self.data(&mut model, &train)?;
        let steps = self.steps.unwrap_or(self.passes * data.steps_per_pass());
        if !self.json {
            let threads = |d: &DeviceSpec| match (&d.kind, d.threads) {
                (DeviceKind::Cpu, 1) => " (1 thread)".into(),
                (DeviceKind::Cpu, n) => format!(" ({n} threads)"),
                _ => String::new(),
            };
            let devices: Vec<_> = cluster.devices.iter().map(|d| format!("{}{}", d.name, threads(d))).collect();
            writeln!(
                stdout(),
                "{} training digits, {} test digits, on {}",
                train.len(),
                test.len(),
                devices.join(", ")
            )?;
        }
        if let Some(choice) = model.spread().and_then(|s| s.choice.as_ref()).filter(|_| !self.json) {
            writeln!(stdout(), "{choice}")?;
        }
        let first = self.first_pass(&mut model, resume)?;
        let progress = Progress::new(steps, model.step());

        if self.profile {
            model.session().start_profile();
        }
        let tracing = self.trace.as_deref().map(|path| Tracing::start(model.session(), path)).transpose()?;
        model.check_finite(self.check_finite);
        let started = Instant::now();
        let mut seen = 0;
        for pass in first..steps.div_ceil(data.steps_per_pass()) {
            let (mut loss, mut accuracy, mut samples) = (0.0, 0.0, 0);
            for batch in data.batches(&mut model, pass + 1)? {
                let batch = batch?;
                if model.step() == steps {
                    break;
                }
                let out = batch.run(&mut model, "train")?;
                loss += out.item("loss") * batch.len() as f64;
                accuracy += out.item("accuracy") * batch.len() as f64;
                samples += batch.len();
                progress.step(batch.len() as u64, out.item("loss"), out.item("accuracy"));
                if let Some(directory) = self.save.as_ref().filter(|_| model.step().is_multiple_of(self.save_every)) {
                    model.save(directory)?;
                }
            }
            seen += samples;
            let (loss, accuracy) = (loss / samples as f64, accuracy / samples as f64);
            if self.json {
                let seconds = started.elapsed().as_secs_f64();
                writeln!(
                    stdout(),
                    "{}",
                    json!({"pass": pass + 1, "loss": loss, "accuracy": accuracy, "seconds": seconds})
                )?;
            }
        }
        if let Some(directory) = &self.save {
            model.save_and_wait(directory)?;
        }
        let (train_seconds, fed) = (started.elapsed().as_secs_f64(), model.bytes_fed());
        progress.finish();
        if self.profile {
            profile::print(&model.session().finish_profile(), train_seconds);
        }
        if let Some(tracing) = tracing {
            tracing.finish(model.session())?;
        }

        let accuracy = model.run("eval", &test.feeds())?.item("accuracy");
        let digest = model.digest()?;
        if self.json {
            let devices: Vec<_> = cluster.devices.iter().map(|d| d.name.to_string()).collect();
            let strategy = model.spread().map(|s| s.strategy.to_string());
            let summary = json!({
                "strategy": strategy, "test_accuracy": accuracy, "train_seconds": train_seconds, "devices": devices, "world": world,
                "bytes_sent": model.bytes_sent(), "bytes_fed": fed, "control_messages": model.control_messages(), "digest": digest, "steps": model.step(), "seed": self.seed,
            });
            writeln!(stdout(), "{summary}")?;
            return Ok(());
        }
        let rate = seen as f64 / train_seconds;
        if self.precision == Precision::Mixed(F16) {
            let [skipped, scale] =
                ["skipped", "scale"].map(|what| model.get(&format!("adamw.loss_scale.{what}")).map(|x| x.item()));
            writeln!(stdout(), "the loss was scaled by {} at the end; {} updates were skipped", scale?, skipped?)?;
        }
        writeln!(stdout(), "trained {} steps in {train_seconds:.2} s ({rate:.0} images/s)", model.step())?;
        writeln!(
            stdout(),
            "test accuracy {:.2} % (of {} digits never looked at before)",
            100.0 * accuracy,
            test.len()
        )?;
        writeln!(stdout(), "digest {digest}\n")?;
        self.show(&mut model, &test)
    }

    /// What is trained on: read here and fed, or read where the devices are.
    fn data(&self, model: &mut Model, train: &thalweg::data::Dataset) -> anyhow::Result<feeding::Feeding> {
        let Some(source) = &self.source else {
            return Ok(feeding::Feeding::here(train.shuffle(self.seed).batch(self.batch as usize).named(SOURCE)));
        };
        self.roots.iter().try_for_each(|root| model.add_root(root))?;
        let data = feeding::digits_files(source)?.shuffle(self.seed).batch(self.batch as usize).named(SOURCE);
        feeding::Feeding::there(model, data)
    }

    /// The pass to begin with: the first, or that of the newest checkpoint. Where in the pass, the batches know.
    fn first_pass(&self, model: &mut Model, resume: bool) -> anyhow::Result<u64> {
        let Some(directory) = &self.save else { return Ok(0) };
        if !resume {
            // The first save would say so too, but only after steps that are then lost.
            let found = published(directory)?;
            let taken = found.last().map(|id| format!("{} holds {}", directory.display(), id.manifest()));
            anyhow::ensure!(taken.is_none(), "{}: add --resume, or save elsewhere", taken.unwrap_or_default());
            return Ok(0);
        }
        let Some(resumed) = model.resume_or_init(directory)? else {
            eprintln!("no checkpoint in {} yet: beginning at step 0", directory.display());
            return Ok(0);
        };
        eprintln!("resumed {}: step {}, digest {}", resumed.path.display(), resumed.id.step, resumed.digest);
        let place = model.session().cursors().get(SOURCE);
        let place = place.with_context(|| format!("{} does not say where the digits stand", resumed.path.display()))?;
        Ok(place.pass)
    }

    /// A few test digits with what the model takes them for.
    fn show(&self, model: &mut Model, test: &thalweg::data::Dataset) -> anyhow::Result<()> {
        let few = test.select(&[0, 1, 2, 3, 4, 5]);
        let (Some(image), Some(label)) = (few.get("image"), few.get("label")) else { return Ok(()) };
        let out = model.run("predict", feed! { image: image })?;
        let probs = out.get("probs").map(|p| p.to_f64()).unwrap_or_default();
        let caption = |(p, label): (&[f64], &i32)| {
            let best = (0..10).max_by(|a, b| p[*a].total_cmp(&p[*b])).unwrap_or(0);
            let wrong = if best as i32 == *label { String::new() } else { format!(" not {label}") };
            format!("{best} {:.0}%{wrong}", 100.0 * p[best])
        };
        let captions: Vec<String> = probs.chunks_exact(10).zip(label.as_slice::<i32>()).map(caption).collect();
        let images: Vec<&[f32]> = image.as_slice::<f32>().chunks_exact(64).collect();
        let color = stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Ok(write!(stdout(), "{}", picture::side_by_side(&images, 8, &captions, color))?)
    }
}

/// Progress on stderr: a bar in a terminal, a line every ten seconds elsewhere.
struct Progress {
    bar: ProgressBar,
    plain: bool,
    started: Instant,
    printed: std::cell::Cell<Duration>,
    samples: std::cell::Cell<u64>,
}

impl Progress {
    /// `done` of `steps` are behind us.
    fn new(steps: u64, done: u64) -> Self {
        let plain = !std::io::stderr().is_terminal();
        let bar = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr_with_hz(10));
        let style = "{bar:30} {pos}/{len} steps  {msg}  {eta} left";
        bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_position(done);
        bar.reset_eta();
        Self { bar, plain, started: Instant::now(), printed: Default::default(), samples: Default::default() }
    }
    fn step(&self, samples: u64, loss: f64, accuracy: f64) {
        self.samples.set(self.samples.get() + samples);
        self.bar.inc(1);
        let elapsed = self.started.elapsed();
        let due = Duration::from_millis(if self.plain { 10_000 } else { 100 });
        if elapsed - self.printed.get() < due {
            return;
        }
        self.printed.set(elapsed);
        let rate = self.samples.get() as f64 / elapsed.as_secs_f64();
        let message = format!("{rate:.0} images/s  loss {loss:.3}  accuracy {:.1} %", 100.0 * accuracy);
        if self.plain {
            let (done, all) = (self.bar.position(), self.bar.length().unwrap_or(0));
            eprintln!("{done}/{all} steps  {message}  {:.0?} left", self.bar.eta());
        } else {
            self.bar.set_message(message);
        }
    }
    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
