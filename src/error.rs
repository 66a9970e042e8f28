//! The one error a user of the library sees. Printed it shows the user's own lines; printing and debugging look the
//! same, so that a `main` that returns it shows the picture and not the insides.

use std::fmt;
use std::io::IsTerminal;

use thalweg_data::DataError;
use thalweg_graph::Diagnostic;
use thalweg_runtime::{CheckpointError, DeviceError, RunError};

use crate::draw::DrawError;

/// Anything that can go wrong, by whose it is to mend.
#[derive(Clone, PartialEq)]
pub enum Error {
    /// Mistakes of the model, all of them.
    Model(Vec<Diagnostic>),
    /// A program did not run.
    Run(RunError),
    /// Nothing was saved or loaded.
    Checkpoint(CheckpointError),
    /// Data could not be read.
    Data(DataError),
    /// A cluster that this version cannot use.
    Cluster(String),
    /// Nothing was drawn.
    Draw(DrawError),
    /// A case of the benchmark kit that cannot be as it was asked for.
    Case(String),
}

/// What fallible functions return.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The mistakes of the model, if that is what it is.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        match self {
            Error::Model(list) => list,
            _ => &[],
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Model(list) => {
                for diagnostic in list {
                    writeln!(f, "{}\n", drawn(diagnostic))?;
                }
                let s = if list.len() == 1 { "" } else { "s" };
                write!(f, "{} mistake{s} in the model; nothing was run", list.len())
            }
            Error::Run(RunError::NotFinite(found)) => f.write_str(&drawn(&found.diagnostic)),
            Error::Run(error) => error.fmt(f),
            Error::Checkpoint(error) => error.fmt(f),
            Error::Data(error) => error.fmt(f),
            Error::Draw(error) => error.fmt(f),
            Error::Cluster(what) | Error::Case(what) => f.write_str(what),
        }
    }
}

/// On the user's source, where that can be read.
fn drawn(diagnostic: &Diagnostic) -> String {
    let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    diagnostic.render(color, &|path| std::fs::read_to_string(path).ok())
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl std::error::Error for Error {}

impl From<Vec<Diagnostic>> for Error {
    fn from(list: Vec<Diagnostic>) -> Self {
        Error::Model(list)
    }
}
impl From<RunError> for Error {
    fn from(error: RunError) -> Self {
        Error::Run(error)
    }
}
impl From<DataError> for Error {
    fn from(error: DataError) -> Self {
        Error::Data(error)
    }
}
impl From<CheckpointError> for Error {
    fn from(error: CheckpointError) -> Self {
        Error::Checkpoint(error)
    }
}
impl From<DrawError> for Error {
    fn from(error: DrawError) -> Self {
        Error::Draw(error)
    }
}
impl From<DeviceError> for Error {
    fn from(error: DeviceError) -> Self {
        Error::Run(error.into())
    }
}
