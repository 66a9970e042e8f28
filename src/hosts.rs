//! Devices of other processes, as a cluster. A job's workers come together when the driver asks for them, and not before: a
//! command that was launched and needs none has none.
//!
//! ```no_run
//! use thalweg::prelude::*;
//!
//! # fn main() -> thalweg::Result<()> {
//! # let g = Graph::new("line");
//! let strategy = Strategy::data_parallel();
//! let mut model = match thalweg::hosts::launched()? {
//!     Some(job) => g.compile_on(job.workers()?, &strategy)?,
//!     None => g.compile_with(&Cluster::local(), &strategy)?,
//! };
//! # Ok(())
//! # }
//! ```

use std::sync::Arc;
use std::time::Duration;

use thalweg_distributed::{Gathering, HostError, Job, Worker, Workers};
use thalweg_graph::Cluster;
use thalweg_graph::cluster::{DeviceKind, DeviceSpec, Link};
use thalweg_runtime::{Device, DeviceError};

use crate::error::{Error, Result};

/// How long workers may take to come.
const JOIN_LIMIT: Duration = Duration::from_secs(60);
/// What one connection within a machine does, for predictions: TCP over loopback took 29 µs there and back for four bytes,
/// and carried 1.5 GB/s.
const LATENCY_SECONDS: f64 = 1.5e-5;
const BYTES_PER_SECOND: f64 = 1.5e9;

/// Workers that have come together, and their devices.
pub struct Hosts {
    cluster: Cluster,
    workers: Workers,
}

impl Hosts {
    /// Their devices: one CPU of one thread each.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }
    pub(crate) fn into_parts(self) -> (Cluster, Workers) {
        (self.cluster, self.workers)
    }
}

/// A job that `thalweg launch` has begun, and whose driver this process is to be.
pub struct Launched(Job);

/// The job that this process was launched for; nothing if it was not.
///
/// # Errors
/// If what the launcher left makes no sense.
pub fn launched() -> Result<Option<Launched>> {
    Ok(Job::of_launcher().map_err(refused)?.map(Launched))
}

fn refused(error: HostError) -> Error {
    Error::Cluster(error.to_string())
}

impl Launched {
    /// Its workers, once all have come: they are started when this asks for them.
    ///
    /// # Errors
    /// If not all come.
    pub fn workers(self) -> Result<Hosts> {
        self.gather(|gathering| gathering)
    }
    /// The same, of workers that compute nothing and check nothing: what they send each other is what a plan says, and
    /// means nothing. For measuring what sending takes.
    ///
    /// # Errors
    /// If not all come.
    pub fn workers_for_null_replay(self) -> Result<Hosts> {
        self.gather(Gathering::for_null_replay)
    }
    fn gather(self, how: impl FnOnce(Gathering) -> Gathering) -> Result<Hosts> {
        let Self(job) = self;
        let cluster = cluster(job.world);
        let gathering = how(Gathering::open(&job.key).map_err(refused)?);
        job.publish(gathering.address()).map_err(refused)?;
        let devices: Vec<(String, usize)> = cluster.devices.iter().map(|d| (d.name.to_string(), d.threads)).collect();
        let workers = gathering.workers(&devices, JOIN_LIMIT);
        job.forget();
        Ok(Hosts { cluster, workers: workers.map_err(refused)? })
    }
}

/// So many workers of this machine, joined by loopback.
fn cluster(world: u16) -> Cluster {
    let names: Vec<Arc<str>> = (0..world).map(|rank| format!("worker{rank}/cpu:0").into()).collect();
    let devices = names.iter().map(|name| DeviceSpec::new(name.clone(), DeviceKind::Cpu, 1)).collect();
    let link = |from: &Arc<str>, to: &Arc<str>| Link {
        from: from.clone(),
        to: to.clone(),
        latency_seconds: LATENCY_SECONDS,
        bytes_per_second: BYTES_PER_SECOND,
    };
    let pairs = names.iter().enumerate().flat_map(|(i, from)| names[i + 1..].iter().map(move |to| link(from, to)));
    Cluster { devices, links: pairs.collect() }
}

/// Takes part in a job with a CPU of this machine, until the job is over.
///
/// # Errors
/// If it is not let in, and if the job does not end in peace.
pub fn serve(worker: &Worker) -> Result<()> {
    let open = |name: &str, threads: usize| -> std::result::Result<Box<dyn Device>, DeviceError> {
        Ok(Box::new(thalweg_cpu::CpuDevice::new(name, threads)?))
    };
    thalweg_distributed::serve(worker, &open).map_err(refused)
}
