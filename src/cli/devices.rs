//! `thalweg devices`: what this machine can run on, what of it is used, and what is not and why. The only verb that looks
//! for every adapter; others open the one they are told to.

use std::io::Write;
use std::path::Path;

use clap::Args;
use serde_json::json;
use thalweg::graph::cost::Rates;
use thalweg::measured::{self, Entry};

/// `thalweg devices`.
#[derive(Args)]
pub(crate) struct Devices {
    /// Print one JSON object per device instead of text.
    #[arg(long)]
    json: bool,
    /// Measure the CPU and every adapter, which takes seconds each: arithmetic, memory, launches, transfers. Nothing else
    /// should be running. The figures are kept, shown by `thalweg devices` and used by `thalweg explain` from then on.
    #[arg(long)]
    measure: bool,
}

impl Devices {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let file = measured::file();
        let kept = file.as_ref().map_or(Ok(vec![]), |path| measured::load(path));
        if self.measure {
            // Before anything is measured in vain.
            let path = file.as_ref().map_err(|e| anyhow::anyhow!("{e}"))?;
            kept.as_ref().map_err(|e| anyhow::anyhow!("{e}"))?;
            writeln!(std::io::stderr(), "the figures are kept in {}", path.display())?;
        }
        let mut kept = kept.unwrap_or_else(|e| {
            eprintln!("{e}");
            vec![]
        });
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        if let (true, Ok(path)) = (self.measure, &file) {
            // One thread is a device of several, all of them are the device that is there without being asked for.
            for threads in [1, threads].into_iter().take(threads.min(2)) {
                measured::keep(path, Entry::Cpu(measured::measure_cpu(threads)?))?;
            }
            kept = measured::load(path)?;
        }
        let mut out = std::io::stdout().lock();
        let figures = [1, threads].map(|n| measured::find_cpu(&kept, n));
        let [one, all] = figures;
        if self.json {
            let line = json!({
                "name": "cpu:0", "kind": "cpu", "threads": threads, "cpu": measured::cpu_name(),
                "measured": all.map(|m| m.rates), "measured_one_thread": one.map(|m| m.rates),
            });
            writeln!(out, "{line}")?;
        } else {
            writeln!(out, "cpu:0  {threads} threads ({})", measured::cpu_name())?;
            match one {
                Some(m) => writeln!(out, "       one thread  {}", rates_of(&m.rates))?,
                None => writeln!(out, "       measured  not yet: `thalweg devices --measure`")?,
            }
            if let Some(m) = all.filter(|m| m.threads > 1) {
                writeln!(out, "       {} threads   {}", m.threads, rates_of(&m.rates))?;
            }
        }
        self.adapters(&mut out, file.as_deref().ok(), &kept)
    }

    #[cfg(feature = "gpu")]
    fn adapters(&self, out: &mut impl Write, file: Option<&Path>, kept: &[Entry]) -> anyhow::Result<()> {
        let all = thalweg::gpu::adapters();
        for a in &all {
            let figures = match file {
                Some(path) if self.measure => {
                    let new = measured::measure(a.index)?;
                    measured::keep(path, Entry::Gpu(new.clone()))?;
                    Some(new)
                }
                _ => measured::find(kept, a).cloned(),
            };
            if self.json {
                writeln!(
                    out,
                    "{}",
                    json!({
                        "name": format!("gpu:{}", a.index), "kind": a.kind, "adapter": a.name, "backend": a.backend,
                        "driver": a.driver, "max_buffer_bytes": a.max_buffer_bytes,
                        "max_binding_bytes": a.max_binding_bytes, "workgroup_bytes": a.workgroup_bytes,
                        "enabled": a.enabled, "measured": figures,
                        "disabled": a.disabled.iter().map(|(what, why)| json!({"what": what, "why": why})).collect::<Vec<_>>(),
                    })
                )?;
                continue;
            }
            writeln!(out, "gpu:{}  {} ({}, {}, {})", a.index, a.name, a.kind, a.backend, a.driver)?;
            let mib = |bytes: u64| bytes >> 20;
            let (arena, window) = (mib(a.max_buffer_bytes), mib(a.max_binding_bytes));
            writeln!(
                out,
                "       limits    arenas of {arena} MiB in windows of {window} MiB, {} KiB a workgroup",
                a.workgroup_bytes >> 10
            )?;
            match figures {
                Some(m) => writeln!(out, "       measured  {}", figures_of(&m))?,
                None => writeln!(out, "       measured  not yet: `thalweg devices --measure`")?,
            }
            writeln!(out, "       used      {}", a.enabled.join(", "))?;
            for (what, why) in &a.disabled {
                writeln!(out, "       not used  {what}: {why}")?;
            }
        }
        if self.json {
            return Ok(());
        }
        if all.is_empty() {
            writeln!(out, "no GPU: no adapter was found (Mesa's `mesa-vulkan-drivers` has one in software)")?;
        }
        for (what, why) in thalweg::gpu::disabled() {
            writeln!(out, "not in this build: {what}: {why}")?;
        }
        Ok(())
    }

    #[cfg(not(feature = "gpu"))]
    fn adapters(&self, out: &mut impl Write, _: Option<&Path>, _: &[Entry]) -> anyhow::Result<()> {
        if !self.json {
            writeln!(out, "not in this build: GPUs, which the feature `gpu` brings")?;
        }
        Ok(())
    }
}

/// Figures on one line, for people.
#[cfg(feature = "gpu")]
fn figures_of(m: &measured::Measured) -> String {
    format!(
        "{:.1} Gflop/s of f32, {:.1} GB/s copied, {:.1} GB/s up, {:.1} GB/s down, {:.1} µs a launch, {:.0} µs to and fro",
        m.f32_flops / 1e9,
        m.copy_bytes / 1e9,
        m.upload_bytes / 1e9,
        m.download_bytes / 1e9,
        m.launch_seconds * 1e6,
        m.round_trip_seconds * 1e6
    )
}

/// Rates of a CPU on one line, for people.
fn rates_of(r: &Rates) -> String {
    format!(
        "{:.1} Gflop/s in products, {:.1} in convolutions; {:.1}, {:.1}, {:.1} GB/s in a core's cache, the shared one, \
         memory; {:.2} µs a launch; a hop {:.1} µs and {:.1} GB/s",
        r.product_flops / 1e9,
        r.window_flops / 1e9,
        r.near_bytes / 1e9,
        r.shared_bytes / 1e9,
        r.far_bytes / 1e9,
        r.launch_seconds * 1e6,
        r.hop_seconds * 1e6,
        r.hop_bytes / 1e9
    )
}
