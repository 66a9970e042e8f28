//! `thalweg plan`: what runs. Every launch with its buffers, and the memory it all takes, before anything has run.

use std::io::Write;

use clap::Args;
use thalweg::Cluster;
use thalweg::graph::Bindings;
use thalweg::runtime::Session;

use super::graph::Which;

/// `thalweg plan`.
#[derive(Args)]
pub(crate) struct PlanCommand {
    #[command(flatten)]
    which: Which,
    /// Values of named dimensions: `--bind batch=64`.
    #[arg(long, value_parser = binding)]
    bind: Vec<(String, u64)>,
}

pub(super) fn binding(text: &str) -> Result<(String, u64), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=NUMBER")?;
    Ok((name.to_string(), value.parse().map_err(|_| format!("`{value}` is no number"))?))
}

impl PlanCommand {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let graph = self.which.load()?;
        let program = graph
            .programs
            .first()
            .map(|p| p.name.clone())
            .ok_or_else(|| anyhow::anyhow!("a graph without programs"))?;
        let bindings: Bindings = self.bind.iter().map(|(n, v)| (n.as_str().into(), *v)).collect();
        let mut session = Session::new(graph, thalweg::open_device(&Cluster::local().devices[0])?)?;
        let plan = session.plan(&program, &bindings)?;
        let mut out = std::io::stdout().lock();
        // Comments: what is derived is no part of the plan, and whoever reads it again passes over them.
        for (device, memory) in plan.devices.iter().zip(plan.memory(&session.borrows())) {
            writeln!(out, "// memory of {}: {memory}", device.device)?;
        }
        writeln!(out, "{plan}")?;
        Ok(())
    }
}
