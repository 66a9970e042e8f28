//! `thalweg worker`: one process that hosts a device for a job. It says nothing unless something goes wrong, and ends with
//! the job.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::launch::Encrypting;
use clap::Args;
use thalweg::distributed::{Door, Job, launch, read_key};
use thalweg::runtime::checkpoint::Root;

/// Flags of `thalweg worker`.
#[derive(Args)]
pub(crate) struct Worker {
    /// Where the job's driver takes connections.
    #[arg(long, value_name = "ADDRESS", required_unless_present = "job", requires = "key")]
    join: Option<SocketAddr>,
    /// The file that holds the job's key; nobody else may be able to read it.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The folder of a job that was launched on this machine, where its key and its driver's address are.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["join", "key", "tls", "plaintext"])]
    job: Option<PathBuf>,
    /// Where it takes connections of other workers. Unless it is given, on a free port of the address from which it reaches the
    /// driver.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    #[command(flatten)]
    encryption: Encrypting,
    /// A directory below which it may write checkpoints and read data, and what the driver calls it.
    #[arg(long = "root", value_name = "NAME=DIR", value_parser = Root::parse, conflicts_with = "job")]
    roots: Vec<Root>,
    /// Which rank it would be.
    #[arg(long)]
    rank: Option<u16>,
    /// Standard input is a launcher's: end when it ends.
    #[arg(long, hide = true)]
    supervised: bool,
}

impl Worker {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let job = self.job.as_deref().map(Job::at).transpose()?;
        if self.supervised {
            launch::end_with_launcher(job.clone())?;
        }
        let roots = job.as_ref().map_or_else(|| Ok(self.roots.clone()), Job::roots)?;
        let join = match (job, self.join, self.key) {
            (Some(job), ..) => Door::Of(job.folder().into()),
            (None, Some(address), Some(key)) => Door::At(address, read_key(&key)?, self.encryption.into()),
            _ => anyhow::bail!("say where the job is: --join ADDRESS --key FILE"),
        };
        Ok(thalweg::hosts::serve(join, self.rank, self.listen, roots)?)
    }
}
