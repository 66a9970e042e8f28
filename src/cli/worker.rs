//! `thalweg worker`: one process that hosts a device for a job. It says nothing unless something goes wrong, and ends with
//! the job.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use super::launch::Encrypting;
use thalweg::distributed::{Worker as Joining, launch, read_key};

/// Flags of `thalweg worker`.
#[derive(Args)]
pub(crate) struct Worker {
    /// Where the job's driver takes connections.
    #[arg(long, value_name = "ADDRESS")]
    join: SocketAddr,
    /// The file that holds the job's key; nobody else may be able to read it.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Where it takes connections of other workers. Unless it is given, on a free port where it reaches the driver from.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    #[command(flatten)]
    encryption: Encrypting,
    /// Standard input is a launcher's: end when it ends.
    #[arg(long, hide = true)]
    supervised: bool,
}

impl Worker {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        if self.supervised {
            launch::end_with_launcher()?;
        }
        let key = read_key(&self.key)?;
        let Self { join, listen, encryption, .. } = self;
        Ok(thalweg::hosts::serve(&Joining { join, key, listen, encryption: encryption.into() })?)
    }
}
