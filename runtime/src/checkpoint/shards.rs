//! Shards: files of a checkpoint that are written where the variables are, by workers, each what the driver has asked it for. A
//! worker copies its pieces at the boundary of a step and writes beside the steps; what it wrote is nothing until the driver
//! publishes the manifest.
//!
//! A driver names no paths. It names a root that the worker was started with, and a name below it.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};
use thalweg_graph::kernel::BufferType;
use thalweg_graph::lower::Share;
use thalweg_graph::plan::Memory;

use super::disk;
use super::error::CheckpointError;
use super::manifest::{Digest, PieceEntry, ShardEntry, VariableEntry};
use super::names::{CheckpointId, Part, Place, temporary};
use super::read::covered;
use super::tensors::{Layout, ReadError, Tensor, TensorFile};
use super::write::write_shard;
use crate::crash;
use crate::device::{Device, DeviceError};

type Result<T> = std::result::Result<T, CheckpointError>;

/// A directory that driver and workers know by the same name, wherever it is for each of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Root {
    /// What it is called.
    pub name: String,
    /// Where it is here.
    pub path: PathBuf,
}

impl Root {
    /// What `NAME=DIRECTORY` says.
    ///
    /// # Errors
    /// If it says something else, or there is no such directory.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        let (name, path) =
            text.split_once('=').filter(|(n, p)| !n.is_empty() && !p.is_empty()).ok_or("it takes NAME=DIRECTORY")?;
        let path = std::fs::canonicalize(path).map_err(|e| format!("{path}: {e}"))?;
        Ok(Self { name: name.into(), path })
    }
    /// The name of a directory below this one, if it is.
    pub(crate) fn name_of(&self, directory: &Path) -> Option<String> {
        let directory = std::fs::canonicalize(directory).ok()?;
        Some(directory.strip_prefix(&self.path).ok()?.to_str()?.to_string())
    }
    /// The directory of this name below it.
    pub(crate) fn directory(&self, name: &str) -> Option<PathBuf> {
        let plain = Path::new(name).components().all(|c| matches!(c, Component::Normal(_)));
        plain.then(|| self.path.join(name))
    }
}

/// What one worker is to write of a checkpoint.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ShardOrder {
    /// The name of a [`Root`].
    pub root: String,
    /// The name of a directory below it, which is there.
    pub directory: String,
    /// Which checkpoint.
    pub id: CheckpointId,
    /// Which of its shards.
    pub place: Place,
    /// What is in it.
    pub pieces: Vec<PieceOrder>,
}

impl ShardOrder {
    /// The files that this takes: one for each part of which there is something.
    fn files(&self) -> impl Iterator<Item = (Part, String)> {
        let parts = Part::ALL.into_iter().filter(|part| self.pieces.iter().any(|piece| piece.part == *part));
        parts.map(|part| (part, part.file(self.id, self.place)))
    }
}

/// A piece of a variable.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PieceOrder {
    /// What its tensor is called.
    pub tensor: String,
    /// In which file.
    pub part: Part,
    /// Its type.
    pub ty: BufferType,
    /// Its first byte in the worker's state.
    pub offset: u64,
}

/// What a worker has written, under temporary names.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ShardReport {
    /// By part, of those that have anything.
    pub files: Vec<ShardEntry>,
    /// By piece: the hash of its bytes.
    pub digests: Vec<Digest>,
}

/// Waits for what a worker has to say.
pub type Pending = Box<dyn FnOnce() -> std::result::Result<ShardReport, DeviceError> + Send>;

/// Copies of a worker's pieces, to be written.
pub struct Shard {
    order: ShardOrder,
    directory: PathBuf,
    /// By piece.
    copies: Vec<Vec<u8>>,
}

impl Shard {
    /// Copies what the driver has asked for.
    ///
    /// # Errors
    /// If the order names a root that this worker does not have, a path, or what is not in its state.
    pub fn copy(order: ShardOrder, roots: &[Root], device: &mut dyn Device) -> std::result::Result<Self, String> {
        let known = || roots.iter().map(|r| format!("`{}`", r.name)).collect::<Vec<_>>().join(", ");
        let root = roots.iter().find(|r| r.name == order.root);
        let root = root.ok_or_else(|| format!("this worker has no root `{}`; it has: {}", order.root, known()))?;
        let directory = root.directory(&order.directory);
        let directory = directory.ok_or_else(|| format!("`{}` is no name below a root", order.directory))?;
        let there = device.reserved(Memory::State);
        let (mut copies, mut all) = (Vec::with_capacity(order.pieces.len()), 0_u64);
        for piece in &order.pieces {
            let bytes = piece.ty.checked_len().and_then(|n| n.checked_mul(piece.ty.dtype.size_bytes() as u64));
            let end = bytes.and_then(|bytes| piece.offset.checked_add(bytes));
            let Some(bytes) = bytes.filter(|_| end.is_some_and(|end| end <= there)) else {
                return Err(format!("`{}` is not in {there} bytes of state", piece.tensor));
            };
            all = all.saturating_add(bytes);
            if all > there {
                return Err(format!("its pieces are more than {there} bytes of state"));
            }
            let mut copy = vec![0; bytes as usize];
            device.read(Memory::State, piece.offset, &mut copy).map_err(|e| e.to_string())?;
            copies.push(copy);
        }
        crash::point("snapshot");
        Ok(Self { order, directory, copies })
    }
    /// Writes them; they are on the disk when this returns.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write(&self) -> Result<ShardReport> {
        let Self { order, directory, copies } = self;
        let mut files = vec![];
        for (part, name) in order.files() {
            let pieces = order.pieces.iter().zip(copies).filter(|(piece, _)| piece.part == part);
            let tensors = pieces.map(|(p, bytes)| Tensor { name: &p.tensor, ty: &p.ty, bytes });
            let layout = Layout::of(tensors.collect())?;
            // Of somebody who was asked before, and is gone.
            disk::remove(&directory.join(temporary(&name)))?;
            files.push(write_shard(directory, &name, &layout)?);
            crash::point("writing");
        }
        Ok(ShardReport { files, digests: copies.iter().map(|c| blake3::hash(c).into()).collect() })
    }
}

/// A checkpoint that workers are writing: what each was asked for, and its answer to come.
pub(crate) struct Sharded {
    pub(crate) id: CheckpointId,
    pub(crate) orders: Vec<ShardOrder>,
    /// By order, whose it is.
    pub(crate) devices: Vec<usize>,
    pub(crate) pending: Vec<Pending>,
    /// By variable, in order of name: shards by their places in `orders`.
    pub(crate) pieces: Vec<(VariableEntry, Vec<PieceEntry>)>,
}

impl Sharded {
    /// Of variables that lie in these shares; nothing if they are not all there, each element once.
    pub(crate) fn plan<'a>(
        root: &str,
        directory: &str,
        id: CheckpointId,
        devices: usize,
        variables: impl Iterator<Item = (VariableEntry, Vec<&'a Share>)>,
    ) -> Option<Self> {
        let mut asked: Vec<Vec<PieceOrder>> = vec![vec![]; devices];
        let mut bytes = vec![0; devices];
        let mut pieces = vec![];
        for (variable, shares) in variables {
            let size = variable.ty().size_bytes();
            // Who has all of it and the least to write writes it; where nobody has, each what is its own.
            let whole = shares.iter().filter(|s| s.ty.len() == variable.ty().len());
            let one = whole.min_by_key(|s| bytes[usize::from(s.device)]);
            let mut of_it = vec![];
            for share in one.map_or(&shares[..], std::slice::from_ref) {
                let at = usize::from(share.device);
                let whole = one.is_some();
                let (start, shape) = match whole {
                    true => (vec![0; variable.shape.len()], variable.shape.clone()),
                    false => (share.start.clone(), share.ty.shape.clone()),
                };
                let piece = PieceEntry { shard: share.device, start, shape };
                if of_it.iter().any(|p: &PieceEntry| p.start == piece.start) {
                    continue;
                }
                bytes[at] += if whole { size } else { share.ty.size_bytes() };
                let (tensor, ty, offset) = (piece.tensor(&variable), piece.ty(&variable), share.offset);
                asked[at].push(PieceOrder { tensor, part: Part::of(variable.kind), ty, offset });
                of_it.push(piece);
            }
            covered(&VariableEntry { pieces: of_it.clone(), ..variable.clone() }).ok()?;
            pieces.push((variable, of_it));
        }
        let busy: Vec<usize> = (0..devices).filter(|d| !asked[*d].is_empty()).collect();
        let of = busy.len() as u16;
        let order = |(index, device): (u16, &usize)| ShardOrder {
            root: root.into(),
            directory: directory.into(),
            id,
            place: Place { index, of },
            pieces: std::mem::take(&mut asked[*device]),
        };
        let orders = (0..).zip(&busy).map(order).collect();
        for (_, pieces) in &mut pieces {
            for piece in pieces {
                piece.shard = busy.iter().position(|d| *d == usize::from(piece.shard))? as u16;
            }
        }
        Some(Self { id, orders, devices: busy, pending: vec![], pieces })
    }
    /// All files and variables, once all workers are done.
    pub(super) fn finish(&mut self, directory: &Path) -> Result<(Vec<ShardEntry>, Vec<VariableEntry>)> {
        let Self { id, orders, pending, pieces, .. } = self;
        let (pending, pieces) = (std::mem::take(pending), std::mem::take(pieces));
        // All of them, before anything is given up: nobody may be writing still.
        let reports: Vec<_> = pending.into_iter().map(|pending| pending()).collect();
        let reports = reports.into_iter().collect::<std::result::Result<Vec<_>, _>>()?;
        let mut files: Vec<(Part, usize, ShardEntry)> = vec![];
        for (at, (order, report)) in orders.iter().zip(&reports).enumerate() {
            let same = order.files().map(|(_, name)| name).eq(report.files.iter().map(|f| f.file.clone()));
            if !same || report.digests.len() != order.pieces.len() {
                let why = format!("shard {} of {id} is not what was asked for", order.place.index + 1);
                return Err(CheckpointError::Internal(why));
            }
            files.extend(order.files().zip(&report.files).map(|((part, _), file)| (part, at, file.clone())));
        }
        files.sort_by_key(|(part, at, _)| (*part, *at));
        let place_of = |part: Part, at: usize| files.iter().position(|(p, a, _)| (*p, *a) == (part, at));
        let mut variables = Vec::with_capacity(pieces.len());
        for (mut variable, pieces) in pieces {
            let part = Part::of(variable.kind);
            let whole = pieces.iter().find(|p| p.shape == variable.shape);
            variable.digest = match whole {
                Some(piece) => {
                    let (at, tensor) = (usize::from(piece.shard), piece.tensor(&variable));
                    let asked = orders[at].pieces.iter().position(|p| p.tensor == tensor);
                    asked.map(|i| reports[at].digests[i]).expect("it was asked for")
                }
                // Nobody has seen all of it: it is read as it was written.
                None => {
                    let bytes = assemble(&variable, &pieces, &mut |piece, sink| {
                        let name = part.file(*id, orders[usize::from(piece.shard)].place);
                        let mut file = TensorFile::open(&directory.join(temporary(&name)))?;
                        file.read(&piece.tensor(&variable), sink)
                    });
                    let unreadable = |e: ReadError| CheckpointError::Internal(format!("`{}`: {e}", variable.name));
                    blake3::hash(&bytes.map_err(unreadable)?).into()
                }
            };
            let place = |mut piece: PieceEntry| {
                let at = place_of(part, usize::from(piece.shard)).expect("its file is there");
                piece.shard = at as u16;
                piece
            };
            variable.pieces = pieces.into_iter().map(place).collect();
            variables.push(variable);
        }
        Ok((files.into_iter().map(|(.., file)| file).collect(), variables))
    }
}

/// Hands the bytes of a piece to a sink.
type ReadPiece<'a, E> = &'a mut dyn FnMut(&PieceEntry, &mut dyn FnMut(&[u8])) -> std::result::Result<(), E>;

/// The bytes of a variable from its pieces, which fit into it.
pub(super) fn assemble<E>(
    variable: &VariableEntry,
    pieces: &[PieceEntry],
    read: ReadPiece<'_, E>,
) -> std::result::Result<Vec<u8>, E> {
    let element = variable.dtype.size_bytes() as u64;
    let mut bytes = vec![0; variable.ty().size_bytes() as usize];
    for piece in pieces {
        let mut all = vec![];
        read(piece, &mut |part| all.extend_from_slice(part))?;
        for (there, here, n) in piece.runs(variable).unwrap_or_default() {
            let [there, here, n] = [there, here, n].map(|x| (x * element) as usize);
            if let Some(from) = all.get(here..here + n) {
                bytes[there..there + n].copy_from_slice(from);
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use thalweg_graph::DType;

    use super::*;
    use crate::ReferenceDevice;

    /// A driver can have nothing written beside a root, and nothing read beside the state.
    #[test]
    fn an_order_reaches_no_further_than_it_may() {
        let path = std::env::temp_dir().join(format!("thalweg-shards-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        let roots = [Root::parse(&format!("runs={}", path.display())).unwrap()];
        let mut device = ReferenceDevice::default();
        device.reserve_state(64).unwrap();
        device.write(Memory::State, 0, &[7; 64]).unwrap();
        let there = device.reserved(Memory::State);
        let order = |root: &str, directory: &str, offset, n| ShardOrder {
            root: root.into(),
            directory: directory.into(),
            id: CheckpointId { term: 0, step: 3 },
            place: Place { index: 1, of: 2 },
            pieces: vec![PieceOrder {
                tensor: "w@4".into(),
                part: Part::Weights,
                ty: BufferType { dtype: DType::U8, shape: vec![n] },
                offset,
            }],
        };
        let mut copy = |order| Shard::copy(order, &roots, &mut device);
        for (order, says) in [
            (order("other", "a", 0, 8), "no root `other`; it has: `runs`"),
            (order("runs", "../a", 0, 8), "no name below a root"),
            (order("runs", "a/../../b", 0, 8), "no name below a root"),
            (order("runs", "/etc", 0, 8), "no name below a root"),
            (order("runs", "", there - 4, 8), "`w@4` is not in"),
            (order("runs", "", u64::MAX, 8), "`w@4` is not in"),
            (order("runs", "", 0, u64::MAX), "`w@4` is not in"),
        ] {
            let error = copy(order).map(|_| ()).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
        // However often it asks for the same, no more is copied than there is.
        let mut often = order("runs", "", 0, there);
        often.pieces = vec![often.pieces[0].clone(); 1000];
        let error = copy(often).map(|_| ()).unwrap_err();
        assert!(error.contains("its pieces are more than"), "{error}");
        let report = copy(order("runs", "", 8, 8)).unwrap().write().unwrap();
        assert_eq!(report.files[0].file, "weights-0-3-2of2.safetensors");
        assert_eq!(report.digests, [blake3::hash(&[7; 8]).into()]);
        // Not under its own name: a driver has still to publish it.
        assert!(path.join("tmp-weights-0-3-2of2.safetensors").exists());
        assert!(Root::parse("runs").is_err() && Root::parse("runs=/nowhere/at/all").is_err());
        std::fs::remove_dir_all(&path).unwrap();
    }
}
