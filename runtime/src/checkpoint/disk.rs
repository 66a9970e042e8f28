//! The few things that a save asks of a file system, each with an error that says what was being done to which file.
//! Nothing here is clever: what is clever is their order, and that is `write`'s.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::error::CheckpointError;
use super::names::{CheckpointId, Kind, LOCK, classify};
use crate::broken::sync;

type Result<T> = std::result::Result<T, CheckpointError>;

/// Bytes per write and per read.
pub(super) const CHUNK: usize = 1 << 20;

trait Because<T> {
    fn because(self, doing: &'static str, path: &Path) -> Result<T>;
}
impl<T> Because<T> for std::io::Result<T> {
    fn because(self, doing: &'static str, path: &Path) -> Result<T> {
        self.map_err(|e| CheckpointError::io(doing, path, &e))
    }
}

/// Makes a directory and those above it that are missing, and sees to it that they are on the disk.
pub(super) fn make_directories(directory: &Path) -> Result<()> {
    let mut missing: Vec<&Path> = directory.ancestors().take_while(|d| is_missing(d)).collect();
    while let Some(path) = missing.pop() {
        match std::fs::create_dir(path) {
            // Somebody else was faster.
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            made => made.because("make the directory", path)?,
        }
        sync_directory(parent(path))?;
    }
    Ok(())
}

fn is_missing(path: &Path) -> bool {
    // The empty path is what lies above `runs`: the working directory.
    !path.as_os_str().is_empty() && matches!(std::fs::metadata(path), Err(e) if e.kind() == ErrorKind::NotFound)
}

/// The directory that `path` lies in.
pub(super) fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Names in a directory are on the disk once this returns.
pub(super) fn sync_directory(path: &Path) -> Result<()> {
    File::open(path).and_then(|d| sync(&d)).because("sync the directory", path)
}

/// Makes a file that was not there, has `fill` write it, and returns once it is on the disk.
pub(super) fn write_new(path: &Path, fill: &mut dyn FnMut(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).open(path).because("make", path)?;
    let mut out = BufWriter::with_capacity(CHUNK, file);
    fill(&mut out).because("write", path)?;
    let file = out.into_inner().map_err(|e| e.into_error()).because("write", path)?;
    sync(&file).because("sync", path)
}

/// Renames; what was called `to` is gone at once.
pub(super) fn rename(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to).because("rename to", to)
}

/// Gives a file a second name. Fails if there is a file of that name: nothing is ever replaced.
pub(super) fn link(from: &Path, to: &Path) -> Result<()> {
    std::fs::hard_link(from, to).because("publish as", to)
}

/// Removes a file; one that is not there is as good as removed.
pub(super) fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        done => done.because("remove", path),
    }
}

/// What is in a directory.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Listing {
    /// Checkpoints that have a manifest.
    pub published: BTreeSet<CheckpointId>,
    /// Their files, by checkpoint.
    pub shards: BTreeMap<CheckpointId, Vec<PathBuf>>,
    /// Files of saves that did not come to an end.
    pub leftovers: Vec<PathBuf>,
}

/// Looks through a directory; `None` if there is none.
pub(super) fn list(directory: &Path) -> Result<Option<Listing>> {
    let entries = match std::fs::read_dir(directory) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        entries => entries.because("list", directory)?,
    };
    let mut listing = Listing::default();
    for entry in entries {
        let entry = entry.because("list", directory)?;
        // A name that is no text is not one of ours.
        match entry.file_name().to_str().and_then(classify) {
            Some(Kind::Manifest(id)) => {
                listing.published.insert(id);
            }
            Some(Kind::Shard(_, id, _)) => listing.shards.entry(id).or_default().push(entry.path()),
            Some(Kind::Temporary) => listing.leftovers.push(entry.path()),
            None => {}
        }
    }
    let (whole, orphans) =
        std::mem::take(&mut listing.shards).into_iter().partition(|(id, _)| listing.published.contains(id));
    let orphans: BTreeMap<CheckpointId, Vec<PathBuf>> = orphans;
    listing.leftovers.extend(orphans.into_values().flatten());
    listing.shards = whole;
    Ok(Some(listing))
}

/// Keeps other savers out of a directory for as long as it lives; a process that dies lets go.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing is not enough: a process that was forked meanwhile has the file open as well. A failure changes
        // nothing, as the file is closed next.
        _ = self.0.unlock();
    }
}

impl Lock {
    pub(super) fn take(directory: &Path) -> Result<Self> {
        let path = directory.join(LOCK);
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = open.because("open", &path)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => Err(CheckpointError::Busy { directory: directory.into() }),
            // Some shared file systems have no locks. Publishing still replaces nothing.
            Err(TryLockError::Error(e)) if e.kind() == ErrorKind::Unsupported => Ok(Self(file)),
            Err(TryLockError::Error(e)) => Err(CheckpointError::io("lock", &path, &e)),
            Ok(()) => Ok(Self(file)),
        }
    }
}
