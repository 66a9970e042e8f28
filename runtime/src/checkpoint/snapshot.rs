//! A copy of all variables at the boundary of a step, in host memory. The copy belongs to the session and is made again
//! and again in the same place: a save allocates nothing the second time. While it is being written, the session goes
//! on with the variables themselves.

use std::collections::BTreeMap;
use std::sync::Arc;

use thalweg_graph::kernel::BufferType;
use thalweg_graph::lower::StateLayout;
use thalweg_graph::{DType, Graph, Hash, VarKind};

use super::error::CheckpointError;
use super::manifest::{Digest, Manifest, VariableEntry};
use super::mismatch;
use super::shards::Sharded;
use crate::cursor::Cursor;

/// One variable and its place in the copy.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) name: Arc<str>,
    pub(crate) kind: VarKind,
    pub(crate) ty: BufferType,
    pub(crate) offset: usize,
}

impl Slot {
    /// What a manifest says of it, but for the hash of its bytes.
    pub(super) fn entry(&self) -> VariableEntry {
        let (name, dtype, shape) = (self.name.to_string(), self.ty.dtype, self.ty.shape.clone());
        VariableEntry { name, dtype, shape, kind: self.kind, digest: Digest([0; 32]), pieces: vec![] }
    }
    pub(super) fn range(&self) -> std::ops::Range<usize> {
        self.offset..self.offset + self.ty.size_bytes() as usize
    }
}

/// Whether `bytes` may be elements of this type. Kernels rely on it: a truth value is 0 or 1.
pub(super) fn are_elements(dtype: DType, bytes: &[u8]) -> bool {
    dtype != DType::Bool || bytes.iter().all(|b| *b <= 1)
}

/// Everything about a session's variables but their values.
#[derive(Debug)]
pub(crate) struct Variables {
    pub(super) graph: Arc<str>,
    pub(super) hash: Hash,
    pub(super) seed: u64,
    /// In order of name.
    pub(super) slots: Vec<Slot>,
    /// Bytes of the copy.
    pub(super) bytes: u64,
}

impl Variables {
    pub(crate) fn of(graph: &Graph, layout: &StateLayout) -> Self {
        let slot = |(id, v): (_, &thalweg_graph::Variable)| {
            let place = &layout.slots[id];
            Slot { name: v.name.clone(), kind: v.kind, ty: place.ty.clone(), offset: place.offset as usize }
        };
        let mut slots: Vec<Slot> = graph.state.iter().map(slot).collect();
        slots.sort_by(|a, b| a.name.cmp(&b.name));
        Self { graph: graph.name.clone(), hash: graph.hash(), seed: graph.seed, slots, bytes: layout.bytes }
    }
    /// Puts bytes of the slot at place `at` into a copy of all, from `offset` of the variable on.
    pub(super) fn put(&self, copy: &mut [u8], at: usize, offset: usize, bytes: &[u8]) {
        copy[self.slots[at].offset + offset..][..bytes.len()].copy_from_slice(bytes);
    }
    /// The slot of this name.
    pub(super) fn find(&self, name: &str) -> Option<&Slot> {
        self.slots.binary_search_by(|s| (*s.name).cmp(name)).ok().map(|i| &self.slots[i])
    }
    /// Checks that a checkpoint is one of this model.
    pub(super) fn check(&self, path: &std::path::Path, manifest: &Manifest, same: Same) -> Result<(), CheckpointError> {
        let differences = mismatch::variables(self, manifest);
        if !differences.is_empty() {
            return Err(CheckpointError::Mismatch { path: path.into(), differences });
        }
        if same == Same::Graph && manifest.graph.hash.0 != self.hash.0 {
            let what = mismatch::graphs(self, &manifest.graph);
            return Err(CheckpointError::OtherGraph { path: path.into(), what });
        }
        Ok(())
    }
}

/// How much of a model has to be the same for a checkpoint to be loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Same {
    /// Everything: the run goes on bit for bit as if it had never been interrupted.
    Graph,
    /// The variables: names, types and kinds. Programs, rates and the seed may have changed.
    Variables,
}

/// Hashes a model: names, types and the bytes' hashes of all variables, in order of name. Of hashes, so that nobody has to have
/// the bytes of all.
#[derive(Default)]
pub(crate) struct ModelDigest(blake3::Hasher);

impl ModelDigest {
    /// The next variable, and the hash of its bytes.
    pub(crate) fn variable(&mut self, name: &str, ty: &BufferType, digest: Digest) {
        self.0.update(format!("{name}: {} {digest}\n", ty.dtype.of(&ty.shape[..])).as_bytes());
    }
    pub(crate) fn finish(&self) -> Digest {
        self.0.finalize().into()
    }
}

/// The state of a session between two steps.
pub(super) struct Snapshot {
    pub variables: Arc<Variables>,
    pub state: State,
    pub cursors: BTreeMap<String, Cursor>,
    pub step: u64,
}

/// Where the copy is.
pub(super) enum State {
    Here(Vec<u8>),
    /// With the workers, who write it.
    There(Sharded),
}

/// Makes room for `bytes`, unless there is room already.
pub(super) fn reserve(buffer: &mut Vec<u8>, bytes: u64) -> Result<(), CheckpointError> {
    let length = usize::try_from(bytes).map_err(|_| CheckpointError::OutOfMemory { bytes })?;
    if buffer.len() < length {
        let more = length - buffer.len();
        buffer.try_reserve_exact(more).map_err(|_| CheckpointError::OutOfMemory { bytes })?;
        buffer.resize(length, 0);
    }
    Ok(())
}
