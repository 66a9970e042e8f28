//! Devices of other processes, as a cluster. A job's workers come together when the driver asks for them, and not before: a
//! command that was launched and needs none has none. A worker that is lost is replaced, by one that was started in its place
//! or by those that are left, and what was lost is done again: whoever trains sees a step that took long.
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

mod again;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use thalweg_distributed::contract::Contract;
use thalweg_distributed::{Call, Door, Gathering, HostError, Job, Worker, Workers};
use thalweg_graph::Cluster;
use thalweg_graph::cluster::{DeviceKind, DeviceSpec, Link};
use thalweg_runtime::checkpoint::Root;
use thalweg_runtime::{Device, DeviceError};

use crate::error::{Error, Result};
pub(crate) use again::Again;

/// Directories that driver and workers know by names, where an engine has started them.
const ROOTS_VARIABLE: &str = "THALWEG_ROOTS";
/// How long workers may take to come, at first and whenever somebody is lost.
const JOIN_LIMIT: Duration = Duration::from_secs(60);
/// How long a worker looks for the driver once it has lost it.
const REJOIN_LIMIT: Duration = Duration::from_secs(30);
/// What one connection within a machine does, for predictions: TCP over loopback took 29 µs there and back for four bytes,
/// and carried 1.5 GB/s.
const LATENCY_SECONDS: f64 = 1.5e-5;
const BYTES_PER_SECOND: f64 = 1.5e9;

/// Workers that have come together, and their devices.
pub struct Hosts {
    cluster: Cluster,
    workers: Workers,
    meeting: Meeting,
    is_restart: bool,
}

impl Hosts {
    /// Their devices: one CPU of one thread each.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }
    /// Whether this process takes the place of a driver that was lost: a program that saves goes on from its newest checkpoint
    /// then, whatever it was told.
    pub fn is_restart(&self) -> bool {
        self.is_restart
    }
    pub(crate) fn into_parts(self) -> (Cluster, Workers, Meeting) {
        (self.cluster, self.workers, self.meeting)
    }
}

/// A job that `thalweg launch`, or an engine, has begun.
pub struct Launched(As);

enum As {
    Driver(Job),
    /// One of several processes that an engine has started alike.
    One(Contract),
}

/// The job that this process was launched for; nothing if it was not. `thalweg launch` starts a driver and its workers; an
/// engine (torchrun, `srun`, `mpirun`, Kubernetes) so many processes alike, of which rank 0 drives and the others are its
/// workers.
///
/// # Errors
/// If what they left makes no sense: see [`Contract::of`].
pub fn launched() -> Result<Option<Launched>> {
    if let Some(job) = Job::of_launcher().map_err(refused)? {
        return Ok(Some(Launched(As::Driver(job))));
    }
    Ok(Contract::of_environment().map_err(refused)?.map(|contract| Launched(As::One(contract))))
}

/// Whether this process was launched to be the driver of a job.
pub fn is_launched() -> bool {
    std::env::var_os(thalweg_distributed::JOB_VARIABLE).is_some()
}

fn refused(error: HostError) -> Error {
    Error::Cluster(error.to_string())
}

impl Launched {
    /// Its workers, once all have come: they are started when this asks for them. Where an engine has started this process
    /// as one of the workers, this is where it works, and **ends with the job**: only the driver returns.
    ///
    /// # Errors
    /// If not all come; for a worker, if the job did not end in peace.
    pub fn workers(self) -> Result<Hosts> {
        self.gather(false)
    }
    /// The same, of workers that compute nothing and check nothing: what they send each other is what a plan says, and
    /// means nothing. For measuring what sending takes.
    ///
    /// # Errors
    /// If not all come.
    pub fn workers_for_null_replay(self) -> Result<Hosts> {
        self.gather(true)
    }
    fn gather(self, null: bool) -> Result<Hosts> {
        let (job, is_ours) = match self.0 {
            As::Driver(job) => (job, false),
            As::One(contract) if contract.rank > 0 => {
                let folder = Job::folder_of(&contract).map_err(refused)?;
                serve(Door::Of(folder), Some(contract.rank - 1), None, roots_of_environment()?)?;
                std::process::exit(0);
            }
            As::One(contract) => {
                let job = Job::of_contract(&contract).map_err(refused)?;
                job.share(&roots_of_environment()?).map_err(refused)?;
                (job, true)
            }
        };
        thalweg_runtime::crash::this_is("driver");
        let is_restart = job.terms().map_err(refused)? > 0;
        let mut gathering = Gathering::open(&job.key, job.reach).map_err(refused)?;
        if null {
            gathering.for_null_replay();
        }
        job.publish(gathering.address()).map_err(refused)?;
        let mut meeting = Meeting { job, is_ours, gathering };
        let workers = meeting.gather(&|| false).map_err(refused)?;
        Ok(Hosts { cluster: cluster(workers.len() as u16), workers, meeting, is_restart })
    }
}

/// Where workers come together.
pub(crate) struct Meeting {
    job: Job,
    /// There is no launcher that would remove it.
    is_ours: bool,
    gathering: Gathering,
}

impl Drop for Meeting {
    fn drop(&mut self) {
        if self.is_ours {
            self.job.forget();
        }
    }
}

impl Meeting {
    /// Directories that its workers reach as well.
    pub(crate) fn roots(&self) -> Result<Vec<Root>> {
        self.job.roots().map_err(refused)
    }
    /// On how many leaves the job computes, if that has been settled.
    pub(crate) fn leaves(&self) -> Result<Option<u16>> {
        Ok(self.job.model().map_err(refused)?.map(|model| model.leaves))
    }
    /// A new term with whoever comes.
    fn gather(&mut self, give_up: &dyn Fn() -> bool) -> std::result::Result<Workers, HostError> {
        let job = &self.job;
        self.gathering.workers(&Call {
            expected: &|| job.expected(),
            least: 1,
            patience: JOIN_LIMIT,
            device: &|rank| (name(rank), 1),
            begin: &|| job.begin_term(),
            before: &|| job.members(),
            note: &|processes| job.note_members(processes),
            fence: &|processes| {
                for process in processes {
                    // Whoever is not ended because of that is waited for in vain.
                    let _ = job.fence(*process);
                }
            },
            give_up,
        })
    }
}

/// What processes that an engine starts are told as `THALWEG_ROOTS=data=/sets:runs=/shared/runs`: those of `thalweg launch` have
/// flags.
fn roots_of_environment() -> Result<Vec<Root>> {
    let said = std::env::var_os(ROOTS_VARIABLE).unwrap_or_default();
    let each = std::env::split_paths(&said).filter(|path| !path.as_os_str().is_empty());
    let root = |path: std::path::PathBuf| {
        let text = path.to_str().ok_or("it is not UTF-8".to_string());
        text.and_then(Root::parse).map_err(|why| Error::Cluster(format!("{ROOTS_VARIABLE}: {why}")))
    };
    each.map(root).collect()
}

fn name(rank: u16) -> String {
    format!("worker{rank}/cpu:0")
}

/// So many workers of this machine, joined by loopback.
fn cluster(world: u16) -> Cluster {
    let names: Vec<Arc<str>> = (0..world).map(|rank| name(rank).into()).collect();
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

/// Takes part in a job with a CPU of this machine, until the job is over: as this rank, if it can be, and with connections of
/// other workers taken at this address, if one is given. It writes, and reads data, below these roots and nowhere else.
///
/// # Errors
/// If it is not let in, and if the job does not end in peace.
pub fn serve(join: Door, rank: Option<u16>, listen: Option<SocketAddr>, roots: Vec<Root>) -> Result<()> {
    thalweg_runtime::crash::this_is(&rank.map_or("worker".into(), |rank| format!("worker{rank}")));
    let open = |name: &str, threads: usize| -> std::result::Result<Box<dyn Device>, DeviceError> {
        Ok(Box::new(thalweg_cpu::CpuDevice::new(name, threads)?))
    };
    let opener = Some(Arc::new(crate::data::file_opener()) as _);
    thalweg_distributed::serve(&Worker { join, rank, patience: REJOIN_LIMIT, listen, roots, opener }, &open)
        .map_err(refused)
}
