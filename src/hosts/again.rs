//! A model over workers that goes on when some are lost: as many as come are called together for another term, the same graph
//! is spread over them on as many leaves as before, and the session does the rest. Each time a line on stderr says who was lost
//! and where it goes on.

use std::time::Instant;

use thalweg_distributed::Model as Declared;
use thalweg_graph::{Graph, Strategy};
use thalweg_runtime::session::{Origin, Recovered, Recovery};
use thalweg_runtime::{AbortFlag, Device, DeviceError};

use super::{Meeting, cluster};
use crate::error::{Error, Result};
use crate::model::{open_device, spread};

/// Calls workers together again.
pub(crate) struct Again {
    meeting: Meeting,
    graph: Graph,
    strategy: Strategy,
    world: usize,
    lost: Option<Instant>,
}

impl Again {
    /// For a graph that is spread over so many workers by `strategy`, on `leaves` leaves from now on.
    ///
    /// # Errors
    /// If the job computes something else: see [`Job::declare`](thalweg_distributed::Job::declare).
    pub(crate) fn new(meeting: Meeting, graph: &Graph, strategy: &Strategy, leaves: u16, world: usize) -> Result<Self> {
        let declared = Declared {
            graph: graph.name.to_string(),
            hash: graph.hash().to_string(),
            seed: graph.seed,
            leaves,
            strategy: strategy.to_string(),
        };
        meeting.job.declare(&declared).map_err(|e| Error::Cluster(e.to_string()))?;
        Ok(Self { meeting, graph: graph.clone(), strategy: strategy.clone().leaves(leaves), world, lost: None })
    }
    fn call(&mut self, abort: &AbortFlag) -> std::result::Result<Recovered, DeviceError> {
        let workers = self.meeting.gather(&|| abort.is_raised());
        if abort.is_raised() {
            return Err(DeviceError::Aborted);
        }
        let refused = |cause: String| DeviceError::Open { device: "workers".into(), cause };
        let workers = workers.map_err(|e| refused(e.to_string()))?;
        self.world = workers.len();
        let cluster = cluster(self.world as u16);
        let twins = cluster.devices.iter().map(open_device).collect::<Result<Vec<Box<dyn Device>>>>();
        let twins = twins.map_err(|e| refused(e.to_string()))?;
        let (planner, _) = spread(&self.graph, &cluster, &self.strategy, &twins).map_err(|e| refused(e.to_string()))?;
        Ok(Recovered { executor: workers.executor(twins)?, planner })
    }
}

impl Recovery for Again {
    fn recover(&mut self, cause: &DeviceError, abort: &AbortFlag) -> std::result::Result<Recovered, DeviceError> {
        self.lost.get_or_insert_with(Instant::now);
        // It is made anew, whether variables were torn or not.
        let cause = if let DeviceError::Torn { cause } = cause { cause } else { cause };
        eprintln!("{cause}; calling the workers together again");
        self.call(abort).map_err(|error| match error {
            DeviceError::Open { cause: why, .. } => DeviceError::Open {
                device: "workers".into(),
                cause: format!(
                    "{cause}, and the job cannot go on: {why}. Start it anew and resume from its last checkpoint"
                ),
            },
            error => error,
        })
    }
    fn recovered(&mut self, from: &Origin, replayed: u64) {
        let took = self.lost.take().map_or(0.0, |lost| lost.elapsed().as_secs_f64());
        let from = match from {
            Origin::Start => "the start".into(),
            Origin::Copy => "the driver's copy".into(),
            Origin::Checkpoint { id, directory } => format!("{}", directory.join(id.manifest()).display()),
        };
        let workers = if self.world == 1 { "1 worker".into() } else { format!("{} workers", self.world) };
        eprintln!("going on with {workers} after {took:.2} s: from {from}, {replayed} steps done again");
    }
    fn has_more(&mut self) -> bool {
        // Whether somebody waits costs nothing to know, how many are expected a file.
        self.meeting.gathering.has_waiting() && self.world < self.meeting.job.expected()
    }
}
