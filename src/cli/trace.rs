//! `--trace FILE`: the last steps of a run as a file that Perfetto opens.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use thalweg::runtime::Session;

/// Steps that are kept; a trace of them opens in a second.
const STEPS: usize = 100;

/// A trace being taken.
pub(crate) struct Tracing {
    path: PathBuf,
    file: File,
}

impl Tracing {
    /// Starts a trace of `session` that goes to `path`, which is made at once: better now than after the run.
    pub(crate) fn start(session: &mut Session, path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        session.start_trace(STEPS);
        Ok(Self { path: path.into(), file })
    }
    /// Ends it and writes the file; says so on stderr.
    pub(crate) fn finish(self, session: &mut Session) -> anyhow::Result<()> {
        let trace = session.finish_trace();
        let path = self.path.display();
        trace.write(BufWriter::new(self.file)).with_context(|| format!("cannot write {path}"))?;
        let (kept, dropped) = (trace.steps.len(), trace.dropped);
        let earlier = if dropped > 0 { format!(", of {} in all,", kept as u64 + dropped) } else { String::new() };
        let off = trace.clock_errors.iter().max().copied().unwrap_or_default();
        // Clocks of one process are read within a microsecond of each other.
        let clocks = if off > Duration::from_micros(1) {
            format!("; the workers' clocks agree to {:.1} µs", off.as_secs_f64() * 1e6)
        } else {
            String::new()
        };
        eprintln!("the last {kept} steps{earlier} are in {path}: open it in ui.perfetto.dev{clocks}");
        Ok(())
    }
}
