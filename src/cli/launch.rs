//! `thalweg launch`: a command as the driver of so many workers, on this machine unless more are to come from others; of those
//! that are started here none outlives the others. The exit code is the driver's.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use thalweg::distributed::{Encryption, Reach, launch, read_key};
use thalweg::runtime::checkpoint::Root;

/// Whether connections are encrypted: all processes of a job have to be told the same.
#[derive(Args)]
pub(crate) struct Encrypting {
    /// Encrypt all connections, also where all are within this machine. Beyond it they are.
    #[arg(long, conflicts_with = "plaintext")]
    tls: bool,
    /// Encrypt none, not even beyond this machine: whoever can read or change what passes there may.
    #[arg(long)]
    plaintext: bool,
}

impl From<Encrypting> for Encryption {
    fn from(said: Encrypting) -> Self {
        match said {
            Encrypting { tls: true, .. } => Encryption::Always,
            Encrypting { plaintext: true, .. } => Encryption::Never,
            _ => Encryption::BeyondThisMachine,
        }
    }
}

/// Flags of `thalweg launch`.
#[derive(Args)]
pub(crate) struct Launch {
    /// How many workers: processes that host a CPU of one thread each.
    #[arg(short = 'n', long = "workers", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: u16,
    /// How many more come from other machines: `thalweg worker --join ADDRESS --key FILE`, with the same key.
    #[arg(long, value_name = "N", default_value_t = 0, requires = "listen", requires = "key")]
    #[arg(value_parser = clap::value_parser!(u16).range(0..=256))]
    elsewhere: u16,
    /// Where the driver takes connections: an address of this machine that all workers can reach, with its port. Unless it is
    /// given, only this machine can.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// A file with the job's key, 64 hexadecimal digits that nobody else may be able to read. Unless it is given, a new one.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    #[command(flatten)]
    encryption: Encrypting,
    /// How many processes that are killed are started anew, in all. Then the job goes on with the workers that are left.
    #[arg(long, value_name = "COUNT", default_value_t = 8)]
    restarts: u32,
    /// A directory that driver and workers know by a name: checkpoints below it the workers write themselves, each what it
    /// holds, and data below it they read themselves.
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
            elsewhere: self.elsewhere,
            reach: Reach { listen: self.listen, encryption: self.encryption.into() },
            key: self.key.as_deref().map(read_key).transpose()?,
            driver: self.command,
            program,
            roots: self.roots,
            restarts: self.restarts,
        })?)
    }
}
