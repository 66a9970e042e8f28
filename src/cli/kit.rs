//! `thalweg kit`: one case of the benchmark kit, checked and timed. With `--serve` it speaks the protocol of the kit's driver,
//! one JSON line per answer, so that it takes turns with its peers.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use thalweg::Array;
use thalweg::Precision;
use thalweg::kit::{self, Case, NAMES, Options, Reference, rel_err};
use thalweg::runtime::ProfileRow;

use super::allreduce::{self, AllReduces};
use super::place::Where;
use super::trace::Tracing;
use super::workers;

/// `thalweg kit`.
#[derive(Args)]
pub(crate) struct Kit {
    /// Which case.
    #[arg(long)]
    case: String,
    /// Threads of the CPU are pinned to the highest-numbered cores.
    #[command(flatten)]
    place: Where,
    /// In which type the products of a model run, `f32`, `f16` or `bf16`; everything else stays f32.
    #[arg(long, default_value = "f32", value_parser = super::demo::precision)]
    precision: Precision,
    /// Sequences of a step of `gpt2_train`, 4 unless this says otherwise.
    #[arg(long)]
    batch: Option<u64>,
    /// Tokens of each of them, 1024 unless this says otherwise.
    #[arg(long)]
    context: Option<u64>,
    /// Layers of that model, 12 unless this says otherwise; other numbers make it another model.
    #[arg(long)]
    layers: Option<u64>,
    /// Only check the results; exit 1 if they are wrong.
    #[arg(long)]
    check: bool,
    /// How many losses of a case that trains are compared with the reference, of at most ten.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u8).range(1..=10))]
    losses: u8,
    /// Only show what runs, layer by layer.
    #[arg(long, conflicts_with_all = ["serve", "check"])]
    summary: bool,
    /// Wait for `rep` and `quit` on stdin.
    #[arg(long)]
    serve: bool,
    /// Seconds that a repeat should take.
    #[arg(long, default_value_t = 0.4)]
    rep_s: f64,
    /// Repeats, if not serving.
    #[arg(long, default_value_t = 7)]
    reps: usize,
    /// A file of references; those built in know the cheap training cases.
    #[arg(long)]
    refs: Option<PathBuf>,
    /// Print JSON where text would do.
    #[arg(long)]
    json: bool,
    /// Repeat everything once more with a clock at every launch, and print where the time went, on stderr. What is reported
    /// as the time of a step is without these clocks.
    #[arg(long, conflicts_with_all = ["serve", "check"])]
    profile: bool,
    /// Write when every launch of the last 100 steps ran, as a Chrome trace, which Perfetto opens.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["serve", "check"])]
    trace: Option<std::path::PathBuf>,
    /// End a step in which any value is infinite or NaN before it commits, and say where that came from.
    #[arg(long)]
    check_finite: bool,
    /// Workers of distributed cases, which are started: `--case dp_mlp_train --procs 2` is `dp_mlp_train_p2` on two workers,
    /// `ps_mlp_train` has a parameter server beside, and `allreduce` sums over them. None said: those of the job that was launched.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    procs: Option<u16>,
    #[command(flatten)]
    reduce: AllReduces,
}

/// How wrong a result may be, and how wrong if products run in a half type.
const TOLERANCE: f64 = 1e-4;
const TOLERANCE_HALF: f64 = 1e-2;

/// A case and how it went so far.
struct Runner {
    case: Case,
    /// Steps so far, and per repeat.
    step: usize,
    steps_per_rep: usize,
    /// Per step of each repeat: wall time and processor time.
    times: Vec<[f64; 2]>,
}

impl Kit {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        if let Some((sizes, procs)) = allreduce::parse(&self.case) {
            return self.reduce.run(sizes, procs.or(self.procs), self.place.sums(), self.reps, self.json);
        }
        if let Some(workers) = self.procs {
            let known = workers::distributed(&self.case, workers).filter(|(case, _)| kit::is_case_of_workers(case));
            let Some((case, world)) = known else {
                // The driver asks for cases that not every peer has.
                eprintln!("there is no case `{}` for --procs", self.case);
                return Ok(());
            };
            return workers::launch_this(&case, world);
        }
        let started = Instant::now();
        let threads = pin(self.place.pinned())?;
        let reference = self.reference()?;
        let Some(mut case) = self.place.case(&self.case, &self.options())? else {
            // The driver asks for cases that not every peer has.
            eprintln!("there is no case `{}`; there are {}", self.case, NAMES.join(", "));
            return Ok(());
        };
        if self.summary {
            let summary = case.summary()?;
            return if self.json {
                say(&serde_json::to_value(&summary)?)
            } else {
                Ok(write!(std::io::stdout(), "{summary}")?)
            };
        }
        case.model().check_finite(self.check_finite);
        let first = Instant::now();
        let results: Vec<Array> = (0..if case.trains { usize::from(self.losses) } else { 1 })
            .map(|i| case.result(i))
            .collect::<Result<_, _>>()?;
        let mut extra = json!({ "first_s": first.elapsed().as_secs_f64() });
        let error = reference.as_ref().map(|r| rel_err(&results, r));
        extra["rel_err"] = json!(error);
        if case.trains {
            extra["losses"] = results.iter().map(Array::item).collect();
        }
        for i in results.len()..case.epochs() {
            case.step(i)?;
        }
        let accuracy = case.accuracy()?;
        if let Some(accuracy) = accuracy {
            extra["accuracy"] = json!(accuracy);
        }
        if self.check {
            let (digest, sent) = (case.model().digest()?, case.model().bytes_sent());
            let line = json!({
                "case": self.case, "options": self.options().to_string().trim(), "rel_err": error, "accuracy": accuracy,
                "digest": digest, "bytes_sent": sent,
            });
            return self.verdict(reference.as_ref(), error, accuracy, line);
        }
        let step = if case.epochs() > 0 { 0 } else { results.len() };
        let mut runner = Runner { steps_per_rep: case.quantum, case, step, times: vec![] };
        runner.warm_up(self.rep_s)?;
        extra["setup_s"] = json!(started.elapsed().as_secs_f64());
        extra["steps_per_rep"] = json!(runner.steps_per_rep);
        if self.serve {
            let ready =
                json!({ "ready": true, "rel_err": error, "setup_s": extra["setup_s"], "k": runner.steps_per_rep });
            say(&ready)?;
            for line in std::io::stdin().lock().lines() {
                if line?.trim() != "rep" {
                    break;
                }
                let [wall, cpu] = runner.repeat()?;
                say(&json!({ "t": wall, "cpu": cpu }))?;
            }
        } else {
            let session = runner.case.model().session();
            let tracing = self.trace.as_deref().map(|path| Tracing::start(session, path)).transpose()?;
            for _ in 0..self.reps.max(1) {
                runner.repeat()?;
            }
            if let Some(tracing) = tracing {
                tracing.finish(runner.case.model().session())?;
            }
            if self.profile {
                let (rows, seconds, steps) = runner.profile(self.reps.max(1))?;
                super::profile::print(&rows, seconds);
                let per_step = |row: &ProfileRow| row.total.as_secs_f64() / steps as f64;
                extra["launches_s"] = json!(rows.iter().map(per_step).sum::<f64>());
            }
        }
        if runner.times.is_empty() {
            return Ok(());
        }
        extra["options"] = json!(self.options().to_string().trim());
        let mut summary = runner.summary(&self.case, &self.place.to_string(), threads, extra);
        if thalweg::hosts::is_launched() {
            // A thread each. What the driver takes of processor and memory says nothing of them.
            let names: Vec<_> = runner.case.model().session().devices().iter().map(|d| d.target().name()).collect();
            summary["device"] = json!(names.join(","));
            summary["threads"] = json!(1);
            summary["extra"]["procs"] = json!(names.len());
            ["cpu_s", "peak_rss_mb"].into_iter().for_each(|what| summary[what] = Value::Null);
        }
        if self.serve || self.json { say(&summary) } else { self.tell(&summary) }
    }

    fn options(&self) -> Options {
        Options { precision: self.precision, batch: self.batch, context: self.context, layers: self.layers }
    }

    fn reference(&self) -> anyhow::Result<Option<Reference>> {
        let text = match &self.refs {
            Some(path) => std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?,
            None => include_str!("../../data/kit_refs.json").to_string(),
        };
        let mut all: Value = serde_json::from_str(&text).context("references are JSON")?;
        let of_case = all.get_mut(kit::reference_name(&self.case)).map(Value::take);
        of_case.map(|r| serde_json::from_value(r).context("a reference has losses, or l2 and probe")).transpose()
    }

    /// Says in `line` whether the results are right; an error if they are not.
    fn verdict(
        &self,
        reference: Option<&Reference>,
        error: Option<f64>,
        accuracy: Option<f64>,
        mut line: Value,
    ) -> anyhow::Result<()> {
        let error = error.with_context(|| format!("no reference for `{}`: give --refs (for models of language, `benches/gpu_torch.py --float64` makes one)", self.case))?;
        let tolerance = if self.precision == Precision::Declared { TOLERANCE } else { TOLERANCE_HALF };
        let accuracy_right = match (reference, accuracy) {
            (Some(Reference::Losses { accuracy: Some(want), .. }), Some(have)) => (have - want).abs() <= 0.003,
            _ => true,
        };
        let right = error <= tolerance && accuracy_right;
        line["right"] = json!(right);
        if self.json {
            say(&line)?;
        } else {
            let accuracy = accuracy.map_or(String::new(), |a| format!(", accuracy {a:.4}"));
            writeln!(std::io::stdout(), "{}{}: relative error {error:.1e}{accuracy}", self.case, self.options())?;
        }
        anyhow::ensure!(right, "{}{} is wrong", self.case, self.options());
        Ok(())
    }

    fn tell(&self, summary: &Value) -> anyhow::Result<()> {
        let ms = |key: &str| summary[key].as_f64().unwrap_or(f64::NAN) * 1e3;
        let rate = summary["items_per_s"].as_f64().unwrap_or(f64::NAN);
        let launches = summary["extra"]["launches_s"].as_f64();
        let launches = launches.map_or(String::new(), |s| format!(", launches {:.4} ms", s * 1e3));
        let cpu = summary["cpu_s"].as_f64().map_or(String::new(), |s| format!(", cpu {:.4} ms", s * 1e3));
        let memory = summary["peak_rss_mb"].as_f64().map_or(String::new(), |mb| format!(", {mb} MB"));
        let error = summary["extra"]["rel_err"].as_f64().map_or("unknown".to_string(), |e| format!("{e:.1e}"));
        writeln!(
            std::io::stdout(),
            "{}{} on {}, {} threads: median {:.4} ms, min {:.4} ms{launches}{cpu}, {rate:.1} {}/s{memory}, relative error {error}",
            self.case,
            self.options(),
            summary["device"].as_str().unwrap_or(""),
            summary["threads"],
            ms("median_s"),
            ms("min_s"),
            summary["unit"].as_str().unwrap_or(""),
        )?;
        Ok(())
    }
}

impl Runner {
    /// Two repeats of the fewest steps tell how many fill `rep_s`.
    fn warm_up(&mut self, rep_s: f64) -> anyhow::Result<()> {
        let quantum = self.case.quantum;
        self.repeat()?;
        let took = self.repeat()?[0].min(self.times[0][0]) * quantum as f64;
        self.steps_per_rep = ((rep_s / took).round() as usize).max(1) * quantum;
        self.times.clear();
        Ok(())
    }
    /// Wall time and processor time per step.
    fn repeat(&mut self) -> anyhow::Result<[f64; 2]> {
        let (cpu, wall) = (cpu_time(), Instant::now());
        for _ in 0..self.steps_per_rep {
            self.case.step(self.step)?;
            self.step += 1;
        }
        let took = [wall.elapsed(), cpu_time() - cpu].map(|d| d.as_secs_f64() / self.steps_per_rep as f64);
        self.times.push(took);
        Ok(took)
    }
    /// As many repeats with a clock at every launch: rows, seconds that the steps took, and how many steps there were.
    fn profile(&mut self, reps: usize) -> anyhow::Result<(Vec<ProfileRow>, f64, usize)> {
        let timed = self.times.len();
        self.case.model().session().start_profile();
        for _ in 0..reps {
            self.repeat()?;
        }
        let seconds = self.times.drain(timed..).map(|t| t[0] * self.steps_per_rep as f64).sum();
        Ok((self.case.model().session().finish_profile(), seconds, reps * self.steps_per_rep))
    }
    fn summary(&self, case: &str, device: &str, threads: usize, extra: Value) -> Value {
        let sorted = |k: usize| {
            let mut times: Vec<f64> = self.times.iter().map(|t| t[k]).collect();
            times.sort_by(f64::total_cmp);
            times
        };
        let (wall, cpu) = (sorted(0), sorted(1));
        json!({
            "case": case, "framework": "thalweg", "mode": "plan", "version": env!("CARGO_PKG_VERSION"),
            "device": device, "threads": threads, "median_s": median(&wall), "min_s": wall[0], "cpu_s": median(&cpu),
            "reps": self.times.len(), "items_per_s": self.case.items / median(&wall), "unit": self.case.unit,
            "peak_rss_mb": peak_rss_mb(), "extra": extra,
        })
    }
}

/// The median of sorted times.
pub(super) fn median(times: &[f64]) -> f64 {
    f64::midpoint(times[(times.len() - 1) / 2], times[times.len() / 2])
}

/// Prints one line of JSON, at once.
pub(super) fn say(line: &Value) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// Pins this process to the `threads` highest-numbered cores that it may use; gives how many threads it has.
fn pin(threads: Option<usize>) -> anyhow::Result<usize> {
    let may = sched_getaffinity(None).context("cannot ask for cores")?;
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|c| may.is_set(*c)).collect();
    let threads = threads.unwrap_or(cores.len()).max(1);
    if threads < cores.len() {
        let mut set = CpuSet::new();
        cores.iter().rev().take(threads).for_each(|c| set.set(*c));
        sched_setaffinity(None, &set).context("cannot choose cores")?;
    }
    Ok(threads)
}

/// Processor time of this process, over all threads.
fn cpu_time() -> Duration {
    let t = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

/// The most memory that this process has had.
pub(super) fn peak_rss_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")?.trim().strip_suffix("kB")?.trim().parse().ok());
    peak.map_or(0.0, |kb: f64| (kb / 102.4).round() / 10.0)
}
