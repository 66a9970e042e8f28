//! `thalweg inspect`: what a checkpoint or a safetensors file holds, without the model. Every byte is read and checked,
//! so what is printed is what would be loaded.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use thalweg::runtime::checkpoint::{Inspected, TensorEntry, inspect, inspect_tensors};

/// `thalweg inspect`.
#[derive(Args)]
pub(crate) struct Inspect {
    /// A directory of checkpoints, of which the newest whole one is looked at; a manifest; or a safetensors file.
    path: PathBuf,
    /// Print the hash of all variables and nothing else.
    #[arg(long)]
    digest: bool,
    /// Print one JSON object.
    #[arg(long, conflicts_with = "digest")]
    json: bool,
}

impl Inspect {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        if self.path.extension().is_some_and(|e| e == "safetensors") {
            anyhow::ensure!(!self.digest, "{} holds tensors only: a checkpoint has a digest", self.path.display());
            return self.tensors(&inspect_tensors(&self.path)?);
        }
        let found = inspect(&self.path)?;
        for damaged in &found.damaged {
            eprintln!("warning: {damaged}");
        }
        self.checkpoint(&found)
    }

    fn checkpoint(&self, found: &Inspected) -> anyhow::Result<()> {
        let (mut out, m) = (std::io::stdout().lock(), &found.manifest);
        if self.digest {
            return Ok(writeln!(out, "{}", m.digest)?);
        }
        if self.json {
            let damaged: Vec<_> =
                found.damaged.iter().map(|d| json!({"manifest": d.id.manifest(), "why": d.why})).collect();
            let object = json!({"path": found.path, "checkpoint": m, "damaged": damaged});
            return Ok(writeln!(out, "{object}")?);
        }
        let (count, bytes) = (m.variables.len(), m.state_bytes());
        writeln!(out, "{}: step {}, term {}, {count} variables, {bytes} bytes", found.path.display(), m.step, m.term)?;
        writeln!(out, "graph `{}`, seed {}, hash {}", m.graph.name, m.graph.seed, m.graph.hash)?;
        for (name, c) in &m.cursors {
            writeln!(
                out,
                "data `{name}`: pass {}, next sample {}, seed {}, {}",
                c.pass, c.next, c.seed, c.fingerprint
            )?;
        }
        let width = m.variables.iter().map(|v| v.name.len()).max().unwrap_or(0);
        let rows: Vec<_> = m.variables.iter().map(|v| (v, v.ty().to_string())).collect();
        let wide = rows.iter().map(|(_, ty)| ty.len()).max().unwrap_or(0);
        for (v, ty) in rows {
            let (name, kind, size) = (&v.name, v.kind.name(), v.ty().size_bytes());
            writeln!(out, "  {name:width$}  {ty:wide$}  {kind:7}  {size:>10} bytes  {:.16}", v.digest.to_string())?;
        }
        for shard in &m.shards {
            writeln!(out, "{}: {} bytes, checksum right", shard.file, shard.bytes)?;
        }
        Ok(writeln!(out, "digest {}", m.digest)?)
    }

    fn tensors(&self, tensors: &[TensorEntry]) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        let shown = |t: &TensorEntry| t.ty.as_ref().map_or_else(String::clone, |ty| ty.to_string());
        if self.json {
            let object = |t: &TensorEntry| json!({"name": t.name, "type": shown(t), "bytes": t.bytes, "digest": t.digest.to_string()});
            let list: Vec<_> = tensors.iter().map(object).collect();
            return Ok(writeln!(out, "{}", json!({"path": self.path, "tensors": list}))?);
        }
        let width = tensors.iter().map(|t| t.name.len()).max().unwrap_or(0);
        for t in tensors {
            let (name, ty, digest) = (&t.name, shown(t), t.digest.to_string());
            writeln!(out, "  {name:width$}  {ty:20}  {:>10} bytes  {digest:.16}", t.bytes)?;
        }
        Ok(())
    }
}
