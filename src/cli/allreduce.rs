//! `thalweg kit --case allreduce`: the sum of every rank's row in its place, over processes; checked, then timed between
//! steps. The rows never come here: what is timed is what workers do, and what it takes to have them do it.
//!
//! With `--null` nothing is added up and no checksum taken: the same plan, hops, bytes, sockets and processes, that much and
//! no more. What a collective takes beyond it is its own.

use std::io::{Write, stdout};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;
use thalweg::hosts;
use thalweg::kit::allreduce::AllReduce;
use thalweg::prelude::Reduction;

use super::kit::{median, peak_rss_mb, say};
use super::workers;

/// What else is said of `allreduce`.
#[derive(Args, Clone)]
pub(crate) struct AllReduces {
    /// All-reduces in a step of `allreduce`, each on the result of the one before; unless said, as many as suit the size.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    calls: Option<u32>,
    /// Only what `allreduce` sends and receives: nothing is added, no checksum taken.
    #[arg(long)]
    null: bool,
}

/// The kit's sizes, and one from which on a collective should be bound by bytes.
const SIZES: [u64; 5] = [4 << 10, 64 << 10, 1 << 20, 25 << 20, 100 << 20];

/// The sizes of a case, and its processes if it says so: `allreduce`, `allreduce_4096` or `allreduce_4096_p2`. `None` if it is
/// another case.
pub(super) fn parse(case: &str) -> Option<(Vec<u64>, Option<u16>)> {
    let rest = case.strip_prefix("allreduce")?;
    if rest.is_empty() {
        return Some((SIZES.to_vec(), None));
    }
    let one = rest.strip_prefix('_')?;
    let (size, procs) = one.split_once("_p").map_or((one, None), |(size, procs)| (size, Some(procs)));
    let procs = match procs {
        None => None,
        Some(procs) => Some(procs.parse().ok().filter(|n| (2..=256).contains(n))?),
    };
    Some((vec![size.parse().ok()?], procs))
}

/// Calls between two barriers, as the kit has it, and how many of them are in a step here.
fn calls(bytes: u64) -> (u32, u32) {
    match bytes {
        0..=16_384 => (200, 100),
        16_385..=262_144 => (100, 20),
        262_145..=2_097_152 => (20, 4),
        _ => (2, 1),
    }
}

impl AllReduces {
    pub(crate) fn run(
        self,
        sizes: Vec<u64>,
        procs: Option<u16>,
        reduction: Reduction,
        reps: usize,
        as_json: bool,
    ) -> anyhow::Result<()> {
        let launched = std::env::var_os(thalweg::distributed::JOB_VARIABLE).is_some();
        if let Some(world) = procs.filter(|_| !launched) {
            return sizes.iter().try_for_each(|size| workers::launch_this(&format!("allreduce_{size}"), world));
        }
        let job = hosts::launched()?;
        let job = job.ok_or_else(|| anyhow::anyhow!("--procs has to say how many processes `allreduce` is over"))?;
        let [bytes] = sizes[..] else { anyhow::bail!("a job is of one size: `--case allreduce_4096`") };
        let (between, suited) = calls(bytes);
        let calls = self.calls.unwrap_or(suited);
        let job = if self.null { job.workers_for_null_replay()? } else { job.workers()? };
        let mut reduce = AllReduce { bytes, calls, reduction }.prepare(job)?;
        if !self.null {
            reduce.check()?;
        }
        let steps = between.div_ceil(calls);
        let mut repeat = || -> anyhow::Result<Duration> {
            let started = Instant::now();
            (0..steps).try_for_each(|_| reduce.step())?;
            Ok(started.elapsed() / (steps * calls))
        };
        repeat()?;
        let times = (0..reps.max(1)).map(|_| repeat()).collect::<anyhow::Result<Vec<_>>>()?;
        let mut times: Vec<f64> = times.iter().map(Duration::as_secs_f64).collect();
        let sent = reduce.bytes_sent();
        reduce.step()?;
        let (world, sent) = (reduce.world(), (reduce.bytes_sent() - sent) / u64::from(calls));
        times.sort_by(f64::total_cmp);
        let median = median(&times);
        let algbw = bytes as f64 / median / 1e9;
        let busbw = algbw * 2.0 * (world - 1) as f64 / world as f64;
        let mode = if self.null { "null" } else { "plan" };
        let case = format!("allreduce_{bytes}_p{world}");
        if !as_json {
            writeln!(
                stdout(),
                "{case:24} {mode}: median {:.4} ms, min {:.4} ms, busbw {busbw:.4} GB/s, {} B sent per rank and call, {calls} calls in a step",
                median * 1e3,
                times[0] * 1e3,
                sent / world
            )?;
            return Ok(());
        }
        say(&json!({
            "case": case, "framework": "thalweg", "mode": mode, "version": env!("CARGO_PKG_VERSION"), "threads": 1,
            "median_s": median, "min_s": times[0], "cpu_s": null, "reps": times.len(),
            "items_per_s": bytes as f64 / 1e9 / median, "unit": "GB", "peak_rss_mb": peak_rss_mb(),
            "extra": { "procs": world, "algbw_gbs": algbw, "busbw_gbs": busbw, "sent_per_rank": sent / world,
                "calls_in_a_step": calls, "sums": format!("{reduction:?}").to_lowercase(), "rel_err": null },
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_say_sizes_and_processes() {
        assert_eq!(parse("allreduce"), Some((SIZES.to_vec(), None)));
        assert_eq!(parse("allreduce_4096"), Some((vec![4096], None)));
        assert_eq!(parse("allreduce_4096_p4"), Some((vec![4096], Some(4))));
        for other in
            ["allreduce_", "allreduce_x", "allreduce_4096_p1", "allreduce_4096_p", "allreduce4096", "mlp_train"]
        {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
