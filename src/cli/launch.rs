//! `thalweg launch`: a command as the driver of so many workers, on this machine unless more are to come from others; none
//! that is started here outlives the others. The exit code is the driver's.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use thalweg::distributed::{Encryption, Reach, launch, read_key};

/// Whether connections are encrypted; a launcher and all its workers have to say the same.
#[derive(Args)]
pub(crate) struct Encrypting {
    /// Encrypt all connections, also within this machine. Beyond it they are.
    #[arg(long, conflicts_with = "plaintext")]
    tls: bool,
    /// Encrypt none, not even beyond this machine: who can read or change what passes may.
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
    /// The command that drives them: `-- thalweg demo --leaves 4`, or a program of yours that asks `thalweg::hosts`.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Launch {
    /// Gives the exit code.
    pub(crate) fn run(self) -> anyhow::Result<u8> {
        let program = std::env::current_exe().context("where is this program?")?;
        let reach = Reach { listen: self.listen, encryption: self.encryption.into() };
        let key = self.key.as_deref().map(read_key).transpose()?;
        let (here, elsewhere, driver) = (self.workers, self.elsewhere, self.command);
        Ok(launch::launch(&launch::Launch { here, elsewhere, reach, key, driver, program })?)
    }
}
