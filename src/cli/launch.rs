//! `thalweg launch`: a command as the driver of so many workers, all on this machine; none outlives the others. The exit
//! code is the driver's.

use std::ffi::OsString;

use anyhow::Context as _;
use clap::Args;
use thalweg::distributed::launch;
use thalweg::runtime::checkpoint::Root;

/// Flags of `thalweg launch`.
#[derive(Args)]
pub(crate) struct Launch {
    /// How many workers: processes that host a CPU of one thread each.
    #[arg(short = 'n', long = "workers", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: u16,
    /// How many processes that are killed are started anew, in all. Then the job goes on with the workers that are left.
    #[arg(long, value_name = "COUNT", default_value_t = 8)]
    restarts: u32,
    /// A directory that driver and workers know by a name: checkpoints below it the workers write themselves, each what it
    /// holds.
    #[arg(long = "root", value_name = "NAME=DIR", value_parser = Root::parse)]
    roots: Vec<Root>,
    /// The command that drives them: `-- thalweg demo --leaves 4`, or a program of yours that asks `thalweg::hosts`.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Launch {
    /// Gives the exit code.
    pub(crate) fn run(self) -> anyhow::Result<u8> {
        let program = std::env::current_exe().context("where is this program?")?;
        Ok(launch::launch(&launch::Launch {
            world: self.workers,
            driver: self.command,
            program,
            roots: self.roots,
            restarts: self.restarts,
        })?)
    }
}
