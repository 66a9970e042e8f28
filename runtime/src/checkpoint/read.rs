//! Reading checkpoints: the newest that is whole, with what is wrong with those that are newer. Readers take no lock and
//! change nothing. A file that is not what was written is *damage*, and the checkpoint before it is the one to take; a
//! file that may not be read, or that another build wrote, is an error: going back would lose steps for no reason.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek};
use std::path::{Path, PathBuf};

use super::disk;
use super::error::{CheckpointError, Damaged};
use super::manifest::{Digest, FORMAT, Manifest, ManifestError, VariableEntry};
use super::names::{CheckpointId, Kind, Part, Place, classify};
use super::shards::assemble;
use super::snapshot::{ModelDigest, are_elements};
use super::tensors::{ReadError, TensorFile};
use crate::broken::{self, What};

/// No manifest is as long as this: ten million variables.
const LONGEST_MANIFEST: u64 = 1 << 32;

/// Why one checkpoint is not taken.
pub(super) enum Fault {
    /// Try the one before.
    Damaged(String),
    /// Go no further.
    Stop(CheckpointError),
}

impl Fault {
    fn io(path: &Path, error: &std::io::Error) -> Self {
        // EIO has no kind of its own: the disk cannot read what it once wrote.
        let unreadable = error.raw_os_error() == Some(5);
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::UnexpectedEof | ErrorKind::IsADirectory => {
                Fault::Damaged(format!("{}: {error}", name_of(path)))
            }
            _ if unreadable => Fault::Damaged(format!("{}: {error}", name_of(path))),
            _ => Fault::Stop(CheckpointError::io("read", path, error)),
        }
    }
    fn read(path: &Path, error: ReadError) -> Self {
        match error {
            ReadError::Io(error) => Fault::io(path, &error),
            ReadError::Content(why) => Fault::Damaged(format!("{}: {why}", name_of(path))),
        }
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned())
}

/// Takes the bytes of variables: the variable's place in the manifest, the first byte's place in the variable, bytes.
pub(super) type Sink<'a> = &'a mut dyn FnMut(usize, usize, &[u8]);

/// Whether a checkpoint, of which the manifest has been read, is the one that is wanted.
pub(super) type Accept<'a> = &'a dyn Fn(&Path, &Manifest) -> Result<(), CheckpointError>;

/// A checkpoint whose manifest and headers are sound; its bytes have still to be checked.
pub(super) struct Checkpoint<R = File> {
    /// Of the manifest.
    pub path: PathBuf,
    pub manifest: Manifest,
    files: Vec<TensorFile<R>>,
}

impl Checkpoint {
    pub(super) fn open(directory: &Path, id: CheckpointId) -> Result<Self, Fault> {
        let path = directory.join(id.manifest());
        let manifest = read_manifest(&path)?;
        Self::of(path, id, manifest, &mut TensorFile::open)
    }
}

impl<R: Read + Seek> Checkpoint<R> {
    /// The one of this number whose manifest lies at `path`; `open` opens its files.
    pub(super) fn of(
        path: PathBuf,
        id: CheckpointId,
        manifest: Manifest,
        open: &mut dyn FnMut(&Path) -> Result<TensorFile<R>, ReadError>,
    ) -> Result<Self, Fault> {
        let directory = disk::parent(&path);
        let damaged = |why: String| Fault::Damaged(why);
        if manifest.id() != id {
            return Err(damaged(format!("{} says that it is checkpoint {}", id.manifest(), manifest.id())));
        }
        if !manifest.variables.is_sorted_by(|a, b| a.name < b.name) {
            return Err(damaged(format!("{}: the variables are out of order", id.manifest())));
        }
        let shards = places(&manifest).map_err(damaged)?;
        let mut files = Vec::with_capacity(shards.len());
        for ((at, (part, _)), entry) in shards.iter().enumerate().zip(&manifest.shards) {
            // Names are never taken from a file: this one is what `places` has made of it.
            let (path, name) = (directory.join(&entry.file), &entry.file);
            let file = open(&path).map_err(|e| Fault::read(&path, e))?;
            if file.bytes != entry.bytes {
                return Err(damaged(format!("{name} has {} bytes and should have {}", file.bytes, entry.bytes)));
            }
            let mut count = 0;
            for v in manifest.variables_of(*part) {
                for piece in v.pieces().iter().filter(|p| usize::from(p.shard) == at || v.pieces.is_empty()) {
                    let (tensor, ty) = (piece.tensor(v), piece.ty(v));
                    if file.ty(&tensor) != Some(Ok(ty.clone())) {
                        return Err(damaged(format!("{name} has no `{tensor}` of type {ty}")));
                    }
                    count += 1;
                }
            }
            if file.names().len() != count {
                return Err(damaged(format!("{name} has more tensors than its manifest")));
            }
            files.push(file);
        }
        // By now pieces are as large as files say, and not as a manifest may.
        manifest.variables.iter().filter(|v| !v.pieces.is_empty()).try_for_each(covered).map_err(damaged)?;
        Ok(Self { path, manifest, files })
    }
    /// Checks every byte, and hands those of the variables to `sink`, which must not believe them before the end.
    pub(super) fn check(&mut self, sink: Sink<'_>) -> Result<(), Fault> {
        for (file, entry) in self.files.iter_mut().zip(&self.manifest.shards) {
            let mut hash = blake3::Hasher::new();
            file.read_all(&mut |bytes| _ = hash.update(bytes)).map_err(|e| Fault::read(&file.path, e))?;
            if differs(hash.finalize().as_bytes(), &entry.checksum) {
                return Err(Fault::Damaged(format!("{}: its checksum is not that of its bytes", entry.file)));
            }
        }
        let mut model = ModelDigest::default();
        for (i, variable) in self.manifest.variables.iter().enumerate() {
            let (mut hash, mut offset, mut sound) = (blake3::Hasher::new(), 0, true);
            let mut each = |bytes: &[u8]| {
                hash.update(bytes);
                sound &= are_elements(variable.dtype, bytes);
                sink(i, offset, bytes);
                offset += bytes.len();
            };
            let only = || {
                let id = self.manifest.id();
                let name = Part::of(variable.kind).file(id, Place::ONLY);
                self.manifest.shards.iter().position(|s| s.file == name).expect("opening saw to it")
            };
            let file = match &variable.pieces[..] {
                [] => {
                    let at = only();
                    let file = &mut self.files[at];
                    file.read(&variable.name, &mut each).map_err(|e| Fault::read(&file.path, e))?;
                    at
                }
                pieces => {
                    let files = &mut self.files;
                    let bytes = assemble(variable, pieces, &mut |piece, sink| {
                        let file = &mut files[usize::from(piece.shard)];
                        file.read(&piece.tensor(variable), sink).map_err(|e| Fault::read(&file.path, e))
                    })?;
                    each(&bytes);
                    usize::from(pieces[0].shard)
                }
            };
            let name = &self.manifest.shards[file].file;
            if !sound {
                return Err(Fault::Damaged(format!("{name}: `{}` has truth values above 1", variable.name)));
            }
            if differs(hash.finalize().as_bytes(), &variable.digest) {
                return Err(Fault::Damaged(format!("{name}: `{}` is not what was saved", variable.name)));
            }
            model.variable(&variable.name, &variable.ty(), variable.digest);
        }
        if differs(&model.finish().0, &self.manifest.digest) {
            return Err(Fault::Damaged("the variables together do not have the digest that was saved".into()));
        }
        Ok(())
    }
}

/// Whether bytes with this hash are not those that were saved.
fn differs(got: &[u8; 32], said: &Digest) -> bool {
    *got != said.0 && !broken::is(What::Checksum)
}

/// What the shards of a manifest are, in its order, if they are those that a checkpoint has.
pub(super) fn places(manifest: &Manifest) -> Result<Vec<(Part, Place)>, String> {
    let id = manifest.id();
    let other = || format!("{} names other files than a checkpoint has", id.manifest());
    let mut places = vec![];
    for shard in &manifest.shards {
        match classify(&shard.file) {
            Some(Kind::Shard(part, of, place)) if of == id => places.push((part, place)),
            _ => return Err(other()),
        }
    }
    if !places.is_sorted_by(|a, b| a < b) {
        return Err(other());
    }
    let mut used = vec![false; places.len()];
    for v in &manifest.variables {
        let part = Part::of(v.kind);
        if v.pieces.is_empty() {
            let at = places.iter().position(|p| *p == (part, Place::ONLY)).ok_or_else(other)?;
            used[at] = true;
            continue;
        }
        for piece in &v.pieces {
            let at = usize::from(piece.shard);
            if places.get(at).is_none_or(|(p, _)| *p != part) {
                return Err(other());
            }
            used[at] = true;
        }
    }
    if used.contains(&false) { Err(other()) } else { Ok(places) }
}

/// Whether the pieces of a variable are all of it, each element once.
pub(super) fn covered(v: &VariableEntry) -> Result<(), String> {
    let mut known = vec![];
    for piece in &v.pieces {
        let runs = piece.runs(v).ok_or_else(|| format!("`{}` has a piece that is none of it", v.name))?;
        known.extend(runs.into_iter().filter(|(.., n)| *n > 0).map(|(there, _, n)| (there, there + n)));
    }
    known.sort_unstable();
    // Each begins where the one before ends.
    let reached = known.iter().try_fold(0, |reached, (start, end)| (*start == reached).then_some(*end));
    let whole = reached.is_some() && reached == v.ty().checked_len();
    whole.then_some(()).ok_or_else(|| format!("the pieces of `{}` are not all of it, each element once", v.name))
}

/// A checkpoint that is wanted, and of which every byte is right.
fn whole(directory: &Path, id: CheckpointId, accept: Accept<'_>, sink: Sink<'_>) -> Result<Checkpoint, Fault> {
    let mut found = Checkpoint::open(directory, id)?;
    accept(&found.path, &found.manifest).map_err(Fault::Stop)?;
    found.check(sink)?;
    Ok(found)
}

fn read_manifest(path: &Path) -> Result<Manifest, Fault> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|f| f.take(LONGEST_MANIFEST).read_to_end(&mut bytes));
    read.map_err(|e| Fault::io(path, &e))?;
    Manifest::from_bytes(&bytes).map_err(|e| match e {
        ManifestError::Damaged(why) => Fault::Damaged(why),
        ManifestError::Version(found) => {
            Fault::Stop(CheckpointError::Version { path: path.into(), found, reads: FORMAT })
        }
    })
}

/// The newest checkpoint of a directory whose every byte is right, and those newer ones that are not.
pub(super) fn newest(
    directory: &Path,
    accept: Accept<'_>,
    sink: Sink<'_>,
) -> Result<(Checkpoint, Vec<Damaged>), CheckpointError> {
    'list: loop {
        let published = disk::list(directory)?.unwrap_or_default().published;
        let mut damaged = Vec::new();
        for id in published.iter().rev() {
            match whole(directory, *id, accept, sink) {
                Ok(found) => return Ok((found, damaged)),
                Err(Fault::Stop(error)) => return Err(error),
                // Not damaged but gone: whoever saves here has saved more since, and keeps only so many.
                Err(Fault::Damaged(_)) if directory.join(id.manifest()).symlink_metadata().is_err() => continue 'list,
                Err(Fault::Damaged(why)) => damaged.push(Damaged { id: *id, why }),
            }
        }
        let directory = directory.into();
        return Err(match damaged.is_empty() {
            true => CheckpointError::None { directory },
            false => CheckpointError::AllDamaged { directory, damaged },
        });
    }
}

/// One checkpoint and no other.
pub(super) fn exactly(
    directory: &Path,
    id: CheckpointId,
    accept: Accept<'_>,
    sink: Sink<'_>,
) -> Result<Checkpoint, CheckpointError> {
    whole(directory, id, accept, sink).map_err(|fault| match fault {
        Fault::Stop(error) => error,
        Fault::Damaged(why) => {
            CheckpointError::AllDamaged { directory: directory.into(), damaged: vec![Damaged { id, why }] }
        }
    })
}

/// A checkpoint that was looked at; every byte of it is right.
#[derive(Clone, Debug)]
pub struct Inspected {
    /// Its manifest's path.
    pub path: PathBuf,
    /// What it is.
    pub manifest: Manifest,
    /// Newer ones that are damaged, newest first.
    pub damaged: Vec<Damaged>,
}

/// Looks at the newest whole checkpoint of a directory, or at the one whose manifest is named, without a model.
pub fn inspect(path: &Path) -> Result<Inspected, CheckpointError> {
    let nothing = &mut |_: usize, _: usize, _: &[u8]| {};
    if path.is_dir() {
        let (found, damaged) = newest(path, &|_, _| Ok(()), nothing)?;
        return Ok(Inspected { path: found.path, manifest: found.manifest, damaged });
    }
    // A name that is none of ours has no checkpoint behind it either.
    let directory = disk::parent(path);
    let Some(Kind::Manifest(id)) = path.file_name().and_then(|n| n.to_str()).and_then(classify) else {
        return Err(CheckpointError::None { directory: path.into() });
    };
    let found = exactly(directory, id, &|_, _| Ok(()), nothing)?;
    Ok(Inspected { path: found.path, manifest: found.manifest, damaged: vec![] })
}

/// Every checkpoint that has been published in a directory and not been removed since, oldest first; none of them
/// looked at.
pub fn published(directory: &Path) -> Result<Vec<CheckpointId>, CheckpointError> {
    Ok(disk::list(directory)?.unwrap_or_default().published.into_iter().collect())
}
