//! What can go wrong with checkpoints, and what is still there when it does.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::checkpoint::CheckpointId;
use crate::device::DeviceError;
use crate::session::RunError;

/// A checkpoint that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// Which.
    pub id: CheckpointId,
    /// What is wrong with it, with the file's name.
    pub why: String,
}

impl std::fmt::Display for Damaged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} is damaged: {}", self.id.manifest(), self.why)
    }
}

/// Why nothing was saved or loaded. Unless it says otherwise, the model and every checkpoint are as they were.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CheckpointError {
    /// The file system refused something.
    #[error("cannot {doing} {}: {cause}{}", path.display(), remedy(*kind))]
    Io {
        /// What was tried: `write`.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        cause: String,
        /// The same, for programs.
        kind: ErrorKind,
    },
    /// There is no checkpoint.
    #[error("there is no checkpoint in {}", directory.display())]
    None {
        /// Where.
        directory: PathBuf,
    },
    /// There are checkpoints, and not one of them is whole.
    #[error("no checkpoint in {} is whole: {}", directory.display(), list(damaged))]
    AllDamaged {
        /// Where.
        directory: PathBuf,
        /// All of them, newest first.
        damaged: Vec<Damaged>,
    },
    /// Written by another version of this program.
    #[error("{} has format version {found}, and this build reads version {reads}: use the build that wrote it", path.display())]
    Version {
        /// Which file.
        path: PathBuf,
        /// What it says.
        found: u64,
        /// What this build reads.
        reads: u64,
    },
    /// The variables are other ones.
    #[error("{} does not fit this model:\n  {}", path.display(), differences.join("\n  "))]
    Mismatch {
        /// Which file.
        path: PathBuf,
        /// Every difference.
        differences: Vec<String>,
    },
    /// The variables fit, but what is done with them is something else.
    #[error(
        "{} was saved by another graph over the same variables ({what}): the run would not go on as it was; \
         resume it as changed (`resume_changed`; `changed=True` in Python) to load it all the same", path.display()
    )]
    OtherGraph {
        /// Which file.
        path: PathBuf,
        /// How the graphs differ, as far as that is known.
        what: String,
    },
    /// The directory belongs to another run.
    #[error(
        "{} holds checkpoint {found}, which this model does not go on from: resume it first, or save to another directory",
        directory.display()
    )]
    Foreign {
        /// Where.
        directory: PathBuf,
        /// The newest there.
        found: CheckpointId,
    },
    /// Another process is saving there.
    #[error("another process or model is saving to {} at this moment", directory.display())]
    Busy {
        /// Where.
        directory: PathBuf,
    },
    /// A variable that safetensors cannot hold.
    #[error("variable `{name}` cannot be saved as safetensors: {why}")]
    Variable {
        /// Which.
        name: String,
        /// Why not.
        why: String,
    },
    /// A file that is no safetensors file, or does not hold what it says.
    #[error("{} cannot be read as safetensors: {why}", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// The checkpoint is published, and can be loaded; something after that failed.
    #[error("checkpoint {id} is saved, but: {problem}")]
    AfterPublication {
        /// Which.
        id: CheckpointId,
        /// What failed.
        problem: Box<CheckpointError>,
    },
    /// No memory for a copy of the variables.
    #[error("there is no room in memory for a copy of the variables ({bytes} bytes)")]
    OutOfMemory {
        /// How much was needed.
        bytes: u64,
    },
    /// The device failed. If it did so while variables were being loaded, they are neither the old nor the new ones.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Devices were lost, and what was on them cannot be made again.
    #[error("{0}")]
    Lost(String),
    /// A fault of ours.
    #[error("internal error, please report: {0}")]
    Internal(String),
}

impl From<RunError> for CheckpointError {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Device(error) => Self::Device(error),
            error => Self::Lost(error.to_string()),
        }
    }
}

impl CheckpointError {
    pub(super) fn io(doing: &'static str, path: &Path, error: &std::io::Error) -> Self {
        Self::Io { doing, path: path.to_path_buf(), cause: error.to_string(), kind: error.kind() }
    }
}

fn list(damaged: &[Damaged]) -> String {
    damaged.iter().map(Damaged::to_string).collect::<Vec<_>>().join("; ")
}

fn remedy(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            ". Make room and save again; what was saved before is whole"
        }
        ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => ". Choose a directory that can be written to",
        _ => "",
    }
}
