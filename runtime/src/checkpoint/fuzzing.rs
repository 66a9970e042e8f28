//! Checkpoints as functions of bytes, for the fuzzer, which is another crate. Checksums are mended first: otherwise no change
//! would get past them. Each function says whether it took the bytes, and panics if what was taken is another thing once it is
//! written again, or less than it says that it is.

use std::io::Cursor;
use std::path::Path;

use super::manifest::{Digest, Manifest, tail};
use super::read::{Checkpoint, places};
use super::tensors::{Layout, ReadError, Tensor, TensorFile};

fn mended(bytes: &[u8]) -> Vec<u8> {
    let checked = &bytes[..bytes.len().saturating_sub(tail(&[]).len())];
    [checked, tail(checked).as_bytes()].concat()
}

fn read_manifest(bytes: &[u8]) -> Option<Manifest> {
    let manifest = Manifest::from_bytes(&mended(bytes)).ok()?;
    assert!(Manifest::from_bytes(&manifest.to_bytes()).is_ok_and(|same| same == manifest), "{manifest:?}");
    Some(manifest)
}

/// A manifest.
pub fn manifest(bytes: &[u8]) -> bool {
    let Some(manifest) = read_manifest(bytes) else { return false };
    let _ = (manifest.state_bytes(), manifest.id().manifest());
    places(&manifest).is_ok()
}

/// A file of tensors.
pub fn tensors(bytes: &[u8]) -> bool {
    fn open(bytes: &[u8]) -> Result<TensorFile<Cursor<&[u8]>>, ReadError> {
        TensorFile::of(Path::new("fuzz"), Cursor::new(bytes), bytes.len() as u64)
    }
    let Ok(mut file) = open(bytes) else { return false };
    let mut all = vec![];
    for name in file.names() {
        let ty = file.ty(&name).expect("one of its names");
        let mut bytes = vec![];
        if file.read(&name, &mut |piece| bytes.extend_from_slice(piece)).is_err() {
            panic!("its header was sound: `{name}`");
        }
        // There are types that Thalweg does not have.
        let Ok(ty) = ty else { continue };
        assert_eq!(bytes.len() as u64, ty.size_bytes(), "`{name}`");
        all.push((name, ty, bytes));
    }
    let tensor = |(name, ty, bytes)| Tensor { name, ty, bytes };
    let layout = Layout::of(all.iter().map(|(n, t, b)| tensor((n.as_str(), t, &b[..]))).collect());
    let layout = layout.expect("what was read can be written");
    let mut again = vec![];
    layout.write(&mut again).expect("memory");
    let Ok(mut again) = open(&again) else { panic!("what was written can be read") };
    for (name, ty, bytes) in &all {
        assert!(again.ty(name).is_some_and(|same| same.as_ref() == Ok(ty)), "`{name}`");
        let mut same = vec![];
        assert!(again.read(name, &mut |piece| same.extend_from_slice(piece)).is_ok() && same == *bytes, "`{name}`");
    }
    true
}

/// A manifest and its files, in its order.
pub fn checkpoint(manifest: &[u8], files: &[&[u8]]) -> bool {
    let Some(mut manifest) = read_manifest(manifest) else { return false };
    for (shard, file) in manifest.shards.iter_mut().zip(files) {
        (shard.bytes, shard.checksum) = (file.len() as u64, Digest(blake3::hash(file).into()));
    }
    let mut files = files.iter();
    let mut open = |path: &Path| {
        let file = files.next().ok_or_else(|| ReadError::Content("it is not there".into()))?;
        TensorFile::of(path, Cursor::new(*file), file.len() as u64)
    };
    let id = manifest.id();
    let Ok(mut found) = Checkpoint::of("fuzz".into(), id, manifest, &mut open) else { return false };
    let mut bytes = 0;
    let whole = found.check(&mut |_, _, piece| bytes += piece.len() as u64).is_ok();
    assert!(!whole || bytes == found.manifest.state_bytes(), "{bytes} bytes of {}", found.manifest.state_bytes());
    whole
}
