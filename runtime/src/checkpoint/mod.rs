//! Checkpoints: all variables and the places of the sources of data, on disk, so that a run that was killed goes on as
//! if it had not been. Not a dump of memory: safetensors files that any tool reads, and a manifest that says what they
//! are and by which it is known whether they still are. `docs/checkpoints.md` has the format.

mod disk;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod manifest;
mod mismatch;
mod names;
mod read;
mod saver;
mod session;
mod shards;
mod snapshot;
mod tensors;
mod weights;
mod write;

pub use error::{CheckpointError, Damaged};
pub use manifest::{CursorEntry, Digest, FORMAT, GraphName, Manifest, PieceEntry, ShardEntry, VariableEntry};
pub use names::{CheckpointId, Part, Place};
pub use read::{Inspected, inspect, published};
pub use saver::Saving;
pub use session::Resumed;
pub use shards::{Pending, PieceOrder, Root, Shard, ShardOrder, ShardReport};
pub use snapshot::Same;
pub use weights::{TensorEntry, Unshared, inspect_tensors};
pub use write::Saved;

pub(crate) use saver::Saver;
pub(crate) use snapshot::{ModelDigest, Variables};
