//! Writing a checkpoint. At every instant, also if this process or the machine dies there, the directory holds the
//! checkpoint before, or this one, whole: files get their bytes under temporary names and are synced, then get their
//! names, the directory is synced, and only then the manifest appears, by a link that replaces nothing. What is older
//! goes last, each manifest before the files that it names. The order is the point; `tests/checkpoint_faults.rs` watches it.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::disk::{self, Listing, Lock};
use super::error::CheckpointError;
use super::manifest::{Digest, FORMAT, GraphName, Manifest, ShardEntry, VariableEntry};
use super::names::{CheckpointId, Part, Place, temporary};
use super::read::Checkpoint;
use super::snapshot::{ModelDigest, Snapshot, State, Variables};
use super::tensors::{Layout, Tensor};

use crate::crash;

type Result<T> = std::result::Result<T, CheckpointError>;

/// A checkpoint that is on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// Which.
    pub id: CheckpointId,
    /// Its manifest's path.
    pub path: PathBuf,
    /// The hash of all variables.
    pub digest: Digest,
}

/// What came of a save.
pub(super) struct Outcome {
    pub result: Result<Saved>,
    /// What readers can now find, also where something failed after that.
    pub published: Option<CheckpointId>,
}

/// Which directory, whatever it is called.
pub(super) type DirectoryKey = (u64, u64);

/// What a session knows of a directory: which checkpoint there it goes on from, and which are not to be counted on.
#[derive(Clone, Debug)]
pub(super) struct Lineage {
    pub newest: CheckpointId,
    pub damaged: Vec<CheckpointId>,
}

/// Which directory this is.
pub(super) fn key_of(directory: &Path) -> Result<DirectoryKey> {
    let metadata = std::fs::metadata(directory).map_err(|e| CheckpointError::io("look at", directory, &e))?;
    Ok((metadata.dev(), metadata.ino()))
}

/// A directory that nobody else is saving to, and to which this session may.
pub(super) struct Target {
    directory: PathBuf,
    pub key: DirectoryKey,
    listing: Listing,
    damaged: Vec<CheckpointId>,
    _lock: Lock,
}

impl Target {
    /// Makes and locks a directory.
    pub(super) fn open(directory: &Path, lineage: &dyn Fn(DirectoryKey) -> Option<Lineage>) -> Result<Self> {
        disk::make_directories(directory)?;
        let lock = Lock::take(directory)?;
        let key = key_of(directory)?;
        let listing = disk::list(directory)?.unwrap_or_default();
        let lineage = lineage(key);
        // What this model neither saved nor resumed is somebody's work: it is not to be crowded out.
        let known = lineage.as_ref().map(|l| l.newest);
        if let Some(found) = listing.published.last().copied().filter(|found| Some(*found) > known) {
            return Err(CheckpointError::Foreign { directory: directory.into(), found });
        }
        let damaged = lineage.map_or(vec![], |l| l.damaged);
        Ok(Self { directory: directory.into(), key, listing, damaged, _lock: lock })
    }
    /// What a save at `step` is called.
    pub(super) fn next(&self, step: u64) -> CheckpointId {
        CheckpointId::after(self.listing.published.last().copied(), step)
    }
    /// The newest there is.
    pub(super) fn newest(&self) -> Option<CheckpointId> {
        self.listing.published.last().copied()
    }
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }
    fn at(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// Writes a checkpoint, and removes those that are older than the `keep` newest.
pub(super) fn write(target: &Target, snapshot: &mut Snapshot, keep: usize) -> Outcome {
    let id = match begin(target, snapshot) {
        Ok(Begun::Already(id, digest)) => return finish(target, id, digest, keep),
        Ok(Begun::New(id)) => id,
        Err(error) => return Outcome { result: Err(error), published: None },
    };
    match contents(target, snapshot, id).and_then(|contents| publish(target, snapshot, contents, id)) {
        Ok(digest) => finish(target, id, digest, keep),
        Err(error) => {
            abandon(target);
            Outcome { result: Err(error), published: None }
        }
    }
}

/// A checkpoint that is to be, or one that says it all already.
enum Begun {
    New(CheckpointId),
    Already(CheckpointId, Digest),
}

fn begin(target: &Target, snapshot: &Snapshot) -> Result<Begun> {
    let state = match &snapshot.state {
        State::Here(state) => state,
        State::There(sharded) => return Ok(Begun::New(sharded.id)),
    };
    clean(target)?;
    if let Some((id, digest)) = already(target, snapshot, state) {
        return Ok(Begun::Already(id, digest));
    }
    Ok(Begun::New(target.next(snapshot.step)))
}

/// What is left to do once readers can find it.
fn finish(target: &Target, id: CheckpointId, digest: Digest, keep: usize) -> Outcome {
    let after = disk::sync_directory(&target.directory)
        .and_then(|()| disk::remove(&target.at(&temporary(&id.manifest()))))
        .and_then(|()| prune(target, id, keep));
    let saved = Saved { id, path: target.at(&id.manifest()), digest };
    let after = after.map_err(|problem| CheckpointError::AfterPublication { id, problem: Box::new(problem) });
    Outcome { result: after.map(|()| saved), published: Some(id) }
}

/// Removes what saves left that were killed. First of all: a full disk may be full of it.
pub(super) fn clean(target: &Target) -> Result<()> {
    target.listing.leftovers.iter().try_for_each(|path| disk::remove(path))
}

/// The newest checkpoint, if it already says all that is to be saved. Saving twice between two steps is one save.
fn already(target: &Target, snapshot: &Snapshot, state: &[u8]) -> Option<(CheckpointId, Digest)> {
    let id = target.listing.published.last().copied().filter(|id| id.step == snapshot.step)?;
    // A damaged one, or one that cannot be read, is no reason not to save.
    let mut found = Checkpoint::open(&target.directory, id).ok()?;
    let m = &found.manifest;
    let same = m.digest == digest_of(&variables_of(&snapshot.variables, state))
        && m.cursors == cursors(snapshot)
        && m.graph == graph_name(snapshot);
    let digest = m.digest;
    (same && found.check(&mut |_, _, _| {}).is_ok()).then_some((id, digest))
}

fn cursors(snapshot: &Snapshot) -> std::collections::BTreeMap<String, super::manifest::CursorEntry> {
    snapshot.cursors.iter().map(|(name, c)| (name.clone(), c.into())).collect()
}

fn graph_name(snapshot: &Snapshot) -> GraphName {
    let v = &snapshot.variables;
    GraphName { name: v.graph.to_string(), hash: Digest(v.hash.0), seed: v.seed }
}

fn variables_of(variables: &Variables, state: &[u8]) -> Vec<VariableEntry> {
    variables
        .slots
        .iter()
        .map(|slot| VariableEntry { digest: blake3::hash(&state[slot.range()]).into(), ..slot.entry() })
        .collect()
}

/// The hash of all variables.
fn digest_of(variables: &[VariableEntry]) -> Digest {
    let mut digest = ModelDigest::default();
    variables.iter().for_each(|v| digest.variable(&v.name, &v.ty(), v.digest));
    digest.finish()
}

/// Every file under its temporary name, and what is in them.
fn contents(
    target: &Target,
    snapshot: &mut Snapshot,
    id: CheckpointId,
) -> Result<(Vec<ShardEntry>, Vec<VariableEntry>)> {
    let state = match &mut snapshot.state {
        State::Here(state) => &*state,
        State::There(sharded) => return sharded.finish(&target.directory),
    };
    let mut shards = Vec::new();
    for part in Part::ALL {
        let slots = snapshot.variables.slots.iter().filter(|s| Part::of(s.kind) == part);
        let tensors: Vec<Tensor<'_>> =
            slots.map(|s| Tensor { name: &s.name, ty: &s.ty, bytes: &state[s.range()] }).collect();
        if !tensors.is_empty() {
            shards.push(write_shard(&target.directory, &part.file(id, Place::ONLY), &Layout::of(tensors)?)?);
        }
    }
    Ok((shards, variables_of(&snapshot.variables, state)))
}

/// Everything up to the instant at which readers find it.
fn publish(
    target: &Target,
    snapshot: &Snapshot,
    (shards, variables): (Vec<ShardEntry>, Vec<VariableEntry>),
    id: CheckpointId,
) -> Result<Digest> {
    for shard in &shards {
        disk::rename(&target.at(&temporary(&shard.file)), &target.at(&shard.file))?;
    }
    disk::sync_directory(&target.directory)?;

    let digest = digest_of(&variables);
    let (graph, cursors) = (graph_name(snapshot), cursors(snapshot));
    let manifest = Manifest { format: FORMAT, term: id.term, step: id.step, graph, digest, cursors, variables, shards };
    let (bytes, name) = (manifest.to_bytes(), id.manifest());
    let unfinished = target.at(&temporary(&name));
    disk::write_new(&unfinished, &mut |out| out.write_all(&bytes))?;
    crash::point("unpublished");
    let linked = disk::link(&unfinished, &target.at(&name));
    crash::point("published");
    // A network may lose the answer and not the deed.
    let names = std::fs::metadata(&unfinished).map_or(0, |m| m.nlink());
    if names == 2 { Ok(digest) } else { linked.map(|()| digest) }
}

/// Writes a file under its temporary name.
pub(super) fn write_shard(directory: &Path, name: &str, layout: &Layout<'_>) -> Result<ShardEntry> {
    struct Hashing<'a>(&'a mut dyn Write, blake3::Hasher, u64);
    impl Write for Hashing<'_> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let written = self.0.write(bytes)?;
            self.1.update(&bytes[..written]);
            self.2 += written as u64;
            Ok(written)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            self.0.flush()
        }
    }
    let (mut bytes, mut checksum) = (0, Digest([0; 32]));
    disk::write_new(&directory.join(temporary(name)), &mut |out| {
        let mut out = Hashing(out, blake3::Hasher::new(), 0);
        layout.write(&mut out)?;
        (bytes, checksum) = (out.2, out.1.finalize().into());
        Ok(())
    })?;
    Ok(ShardEntry { file: name.into(), bytes, checksum })
}

/// Takes back what a save that failed has written, as far as the disk lets us: it may be full. What stays behind, the
/// next save removes.
fn abandon(target: &Target) {
    // Whoever else saves here is locked out: what is unfinished is this save's, or of one that was killed.
    let left = disk::list(&target.directory).ok().flatten().unwrap_or_default().leftovers;
    left.iter().for_each(|path| _ = disk::remove(path));
}

/// Removes checkpoints older than the newest `keep` that are whole, as far as this session knows.
fn prune(target: &Target, id: CheckpointId, keep: usize) -> Result<()> {
    let mut all = target.listing.published.clone();
    all.insert(id);
    let whole = all.iter().rev().filter(|id| !target.damaged.contains(id));
    let Some(oldest) = whole.take(keep).last().copied() else { return Ok(()) };
    let old: Vec<CheckpointId> = all.into_iter().filter(|id| *id < oldest).collect();
    if old.is_empty() {
        return Ok(());
    }
    old.iter().try_for_each(|id| disk::remove(&target.at(&id.manifest())))?;
    // No manifest may come back without its files.
    disk::sync_directory(&target.directory)?;
    let files = old.iter().filter_map(|id| target.listing.shards.get(id)).flatten();
    files.into_iter().try_for_each(|path| disk::remove(path))
}
