//! `thalweg doctor`: whether the workers of a job can do what a job asks of them. They join, reach each other and run plans; each
//! pair hands a value to and fro within a step. What is measured is therefore what plans get, not what sockets can.

use std::ffi::OsString;
use std::io::{Write, stdout};
use std::time::Instant;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;
use thalweg::distributed::launch;
use thalweg::hosts;
use thalweg::prelude::*;

/// `thalweg doctor`.
#[derive(Args)]
pub(crate) struct Doctor {
    /// How many workers to try, on this machine. Within `thalweg launch`, or where an engine has started it, the job's.
    #[arg(short = 'n', long = "workers", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,
    /// Print one JSON object per pair instead of text.
    #[arg(long)]
    json: bool,
}

/// How often a value goes from one to the other and back within a step.
const ROUNDS: usize = 16;
/// Elements of the value by which bandwidth is measured: 4 MiB.
const LARGE: u64 = 1 << 20;

/// What a pair does.
struct Pair {
    between: [usize; 2],
    seconds: f64,
    bytes_per_second: f64,
}

impl Doctor {
    /// Gives the exit code.
    pub(crate) fn run(self) -> anyhow::Result<u8> {
        let Some(launched) = hosts::launched()? else { return self.launch() };
        let started = Instant::now();
        let hosts = launched.workers()?;
        let joined = started.elapsed();
        let names: Vec<String> = hosts.cluster().devices.iter().map(|d| d.name.to_string()).collect();
        let graph = to_and_fro(&names);
        let mut model = graph.compile_on(hosts, &Strategy::alone(&names[0]))?;
        if !self.json {
            let (count, version) = (names.len(), env!("CARGO_PKG_VERSION"));
            writeln!(stdout(), "{count} workers of version {version} joined and reached each other in {joined:.2?}")?;
        }
        let pairs = (0..names.len()).flat_map(|i| (i + 1..names.len()).map(move |j| [i, j]));
        let pairs = pairs.map(|between| pair(&mut model, between)).collect::<anyhow::Result<Vec<_>>>()?;
        if self.json {
            for Pair { between: [a, b], seconds, bytes_per_second } in &pairs {
                let pair = json!({"from": names[*a], "to": names[*b], "seconds": seconds, "bytes_per_second": bytes_per_second});
                writeln!(stdout(), "{pair}")?;
            }
        } else if !pairs.is_empty() {
            self.table(&names, &pairs)?;
        }
        Ok(0)
    }
    /// A job of its own.
    fn launch(&self) -> anyhow::Result<u8> {
        let program = std::env::current_exe().context("where is this program?")?;
        let mut driver: Vec<OsString> = vec!["thalweg".into(), "doctor".into()];
        if self.json {
            driver.push("--json".into());
        }
        Ok(launch::launch(&launch::Launch::undisturbed(self.workers, driver, program))?)
    }
    fn table(&self, names: &[String], pairs: &[Pair]) -> anyhow::Result<()> {
        let of = |a: usize, b: usize| pairs.iter().find(|p| p.between == [a.min(b), a.max(b)]);
        let width = names.iter().map(String::len).max().unwrap_or(0);
        let table = |title: &str, show: &dyn Fn(&Pair) -> String| -> anyhow::Result<()> {
            writeln!(stdout(), "\n{title}")?;
            write!(stdout(), "{:width$}", "")?;
            names.iter().try_for_each(|name| write!(stdout(), "  {name:>width$}"))?;
            for (a, name) in names.iter().enumerate() {
                write!(stdout(), "\n{name:width$}")?;
                for b in 0..names.len() {
                    write!(stdout(), "  {:>width$}", of(a, b).map_or("".into(), show))?;
                }
            }
            Ok(writeln!(stdout())?)
        };
        table("one way, 4 bytes", &|p| format!("{:.0} µs", 1e6 * p.seconds))?;
        table("one way, 4 MiB", &|p| format!("{:.2} GB/s", 1e-9 * p.bytes_per_second))
    }
}

fn program(what: &str, between: [usize; 2]) -> String {
    format!("{what}.{}.{}", between[0], between[1])
}

/// For each pair, and each alone, a program that adds to a value here and there in turn: of one element, and of many.
fn to_and_fro(names: &[String]) -> Graph {
    let g = Graph::new("doctor");
    for (what, elements) in [("small", 1), ("large", LARGE)] {
        let value = g.input(what, F32, [elements]);
        for i in 0..names.len() {
            for j in i..names.len() {
                let mut x = g.on(&names[i], || value + 1.0);
                for _ in 0..ROUNDS {
                    x = g.on(&names[j], || x * 0.5);
                    x = g.on(&names[i], || x + 1.0);
                }
                let mean = g.on(&names[i], || x.mean()).named(&program("mean", [i, j]));
                g.program(&program(what, [i, j])).outputs([mean]);
            }
        }
    }
    g
}

/// What a step takes.
fn seconds(model: &mut Model, what: &str, between: [usize; 2], value: &Array) -> anyhow::Result<f64> {
    let started = Instant::now();
    model.run(&program(what, between), &[(what, value)])?;
    Ok(started.elapsed().as_secs_f64())
}

/// Rounds of twenty steps at most, until what crosses can be told from what does not.
const PATIENCE: usize = 20;

fn pair(model: &mut Model, between: [usize; 2]) -> anyhow::Result<Pair> {
    let mut hop = |what: &str, elements: u64| -> anyhow::Result<f64> {
        let value = Array::from_slice(&[elements], &vec![1.0f32; elements as usize]);
        // At best, in turn: whatever else runs on these machines only adds to it.
        let (mut alone, mut both) = (f64::INFINITY, f64::INFINITY);
        for _ in 0..PATIENCE {
            for _ in 0..20 {
                alone = alone.min(seconds(model, what, [between[0]; 2], &value)?);
                both = both.min(seconds(model, what, between, &value)?);
            }
            if both > alone {
                return Ok((both - alone) / (2 * ROUNDS) as f64);
            }
        }
        let [a, b] = between;
        anyhow::bail!("too much else runs on these machines: what passes between workers {a} and {b} takes no time")
    };
    let small = hop("small", 1)?;
    Ok(Pair { between, seconds: small, bytes_per_second: 4.0 * LARGE as f64 / hop("large", LARGE)? })
}
