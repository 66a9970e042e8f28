//! Weights alone: one safetensors file of parameters and statistics, for other tools and other runs. It says nothing of
//! steps, optimizers or data; to go on training, resume a checkpoint.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use thalweg_graph::kernel::BufferType;

use super::disk;
use super::error::CheckpointError;
use super::manifest::Digest;
use super::mismatch::{Entry, compare};
use super::names::Part;
use super::snapshot::{Slot, are_elements};
use super::tensors::{Layout, ReadError, Tensor, TensorFile};
use crate::session::Session;

type Result<T> = std::result::Result<T, CheckpointError>;

fn unreadable(path: &Path) -> impl Fn(ReadError) -> CheckpointError {
    move |error| match error {
        ReadError::Io(error) => CheckpointError::io("read", path, &error),
        ReadError::Content(why) => CheckpointError::Malformed { path: path.into(), why },
    }
}

fn is_weight(slot: &&Slot) -> bool {
    Part::of(slot.kind) == Part::Weights
}

impl Session {
    /// Writes parameters and statistics to one safetensors file; what was called so before is replaced once the new file
    /// is whole and on the disk.
    pub fn save_weights(&mut self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        self.saver.finish()?;
        let variables = self.variables();
        self.read_state(&variables)?;
        let state = &self.saver.buffer;
        let weights = variables.slots.iter().filter(is_weight);
        let layout =
            Layout::of(weights.map(|s| Tensor { name: &s.name, ty: &s.ty, bytes: &state[s.range()] }).collect())?;
        let unfinished = temporary_beside(path);
        disk::remove(&unfinished)?;
        let written = disk::write_new(&unfinished, &mut |out| layout.write(out))
            .and_then(|()| disk::rename(&unfinished, path))
            .and_then(|()| disk::sync_directory(disk::parent(path)));
        if written.is_err() {
            // As far as the disk lets us; the next save removes it otherwise.
            _ = disk::remove(&unfinished);
        }
        written
    }
    /// Sets parameters and statistics to what a safetensors file holds, which must be all of them and nothing else.
    ///
    /// # Errors
    /// With every difference in names and types. The session is then as it was.
    pub fn load_weights(&mut self, path: impl AsRef<Path>) -> Result<()> {
        self.take_weights(path.as_ref(), true).map(drop)
    }
    /// Sets those parameters and statistics that a safetensors file holds as well, such as all but a new head; the others stay
    /// as they are.
    ///
    /// # Errors
    /// With every difference in the types of what both have. The session is then as it was.
    pub fn load_shared_weights(&mut self, path: impl AsRef<Path>) -> Result<Unshared> {
        self.take_weights(path.as_ref(), false)
    }
    fn take_weights(&mut self, path: &Path, strict: bool) -> Result<Unshared> {
        self.saver.finish()?;
        let variables = self.variables();
        let mut file = TensorFile::open(path).map_err(unreadable(path))?;
        let names = file.names();
        let theirs: Vec<_> = names.iter().map(|n| (n.as_str(), file.ty(n).expect("one of its names"))).collect();
        let mut theirs: Vec<Entry<'_>> =
            theirs.iter().map(|(n, ty)| (*n, ty.as_ref().map_err(String::as_str))).collect();
        let mut ours: Vec<Entry<'_>> =
            variables.slots.iter().filter(is_weight).map(|s| (&*s.name, Ok(&s.ty))).collect();
        let mut unshared = Unshared::default();
        if !strict {
            let apart = |of: &[Entry<'_>], from: &[Entry<'_>]| -> Vec<String> {
                let from: BTreeSet<&str> = from.iter().map(|(name, _)| *name).collect();
                of.iter().filter(|(name, _)| !from.contains(name)).map(|(name, _)| name.to_string()).collect()
            };
            unshared = Unshared { missing: apart(&ours, &theirs), left_over: apart(&theirs, &ours) };
            unshared.left_over.sort();
            ours.retain(|(name, _)| !unshared.missing.iter().any(|m| m == name));
            theirs.retain(|(name, _)| !unshared.left_over.iter().any(|l| l == name));
        }
        let differences = compare(&ours, &theirs);
        if !differences.is_empty() {
            return Err(CheckpointError::Mismatch { path: path.into(), differences });
        }
        // Around the new weights the state stays what it is.
        self.read_state(&variables)?;
        for slot in
            variables.slots.iter().filter(is_weight).filter(|s| !unshared.missing.iter().any(|m| **m == *s.name))
        {
            let to = &mut self.saver.buffer[slot.range()];
            let mut at = 0;
            let mut sink = |bytes: &[u8]| {
                to[at..][..bytes.len()].copy_from_slice(bytes);
                at += bytes.len();
            };
            file.read(&slot.name, &mut sink).map_err(unreadable(path))?;
            if !are_elements(slot.ty.dtype, to) {
                let why = format!("`{}` has truth values above 1", slot.name);
                return Err(CheckpointError::Malformed { path: path.into(), why });
            }
        }
        self.write_state()?;
        self.copy()?;
        Ok(unshared)
    }
}

/// What a model and a file of weights do not share, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unshared {
    /// What the model has and the file has not: it stays as it was.
    pub missing: Vec<String>,
    /// What the file has and the model has not.
    pub left_over: Vec<String>,
}

fn temporary_beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(".tmp");
    name.into()
}

/// A tensor of a safetensors file.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorEntry {
    /// Its name.
    pub name: String,
    /// Its type; as the file calls it if Thalweg has none such.
    pub ty: std::result::Result<BufferType, String>,
    /// How long it is.
    pub bytes: u64,
    /// The hash of its bytes.
    pub digest: Digest,
}

/// Looks at a safetensors file, whoever wrote it, without a model; in order of name.
pub fn inspect_tensors(path: &Path) -> Result<Vec<TensorEntry>> {
    let mut file = TensorFile::open(path).map_err(unreadable(path))?;
    let mut out = Vec::new();
    for name in file.names() {
        let ty = file.ty(&name).expect("one of its names");
        let (mut hash, mut bytes) = (blake3::Hasher::new(), 0);
        let mut sink = |piece: &[u8]| {
            hash.update(piece);
            bytes += piece.len() as u64;
        };
        file.read(&name, &mut sink).map_err(unreadable(path))?;
        let digest = hash.finalize().into();
        out.push(TensorEntry { name, ty, bytes, digest });
    }
    out.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(out)
}
