//! Files as bytes: what they may unpack to, and the checks that all readers share. Numbers in a file are claims; memory
//! is taken for bytes that are there.

use std::io::Read;
use std::path::Path;

use thalweg_graph::{Array, DType};

use crate::error::{DataError, Place, Result};

/// How much a file may ask for, so that a few bytes cannot ask for all memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest array or member, unpacked.
    pub unpacked_bytes: u64,
    /// Most pixels of one picture.
    pub pixels: u64,
}

impl Default for Limits {
    /// 8 GiB an array, 2²⁸ pixels (16,384 × 16,384) a picture.
    fn default() -> Self {
        Self { unpacked_bytes: 8 << 30, pixels: 1 << 28 }
    }
}

/// The name by which errors call a file.
pub(crate) fn name_of(path: &Path) -> String {
    path.display().to_string()
}

/// A whole file.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| DataError::io(path, &e))
}

/// Bytes of an array of this type, if the limits allow it. Extents of 0 do not hide large ones: rows without bytes are
/// still counted, shuffled and numbered.
pub(crate) fn array_bytes(dtype: DType, shape: &[u64], limits: &Limits) -> Option<usize> {
    let room = limits.unpacked_bytes / dtype.size_bytes() as u64;
    let elements = shape.iter().filter(|d| **d != 0).try_fold(1u64, |n, d| n.checked_mul(*d).filter(|n| *n <= room))?;
    let elements = if shape.contains(&0) { 0 } else { elements };
    usize::try_from(elements).ok()?.checked_mul(dtype.size_bytes())
}

/// Extents as people write them: `60000 × 28 × 28`.
pub(crate) fn extents(shape: &[u64]) -> String {
    match shape {
        [] => "a single number".into(),
        _ => shape.iter().map(u64::to_string).collect::<Vec<_>>().join(" × "),
    }
}

/// Everything that `packed` unpacks to, up to `limit` bytes; grows with what comes out, not with what is promised.
/// `None` if there is more.
pub(crate) fn unpack(packed: impl Read, limit: u64) -> std::io::Result<Option<Vec<u8>>> {
    let mut out = Vec::new();
    packed.take(limit.saturating_add(1)).read_to_end(&mut out)?;
    Ok((out.len() as u64 <= limit).then_some(out))
}

/// The bytes of a file that may be gzipped.
pub(crate) fn gunzip<'a>(file: &str, bytes: &'a [u8], limits: &Limits) -> Result<std::borrow::Cow<'a, [u8]>> {
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Ok(bytes.into());
    }
    let fault = |what: String| DataError::malformed(file, Place::Whole, what);
    let unpacked = unpack(flate2::read::MultiGzDecoder::new(bytes), limits.unpacked_bytes)
        .map_err(|e| fault(format!("the gzip data is damaged or cut short ({e}): fetch the file again")))?;
    let limit = limits.unpacked_bytes;
    unpacked.map(Into::into).ok_or_else(|| {
        fault(format!("unpacks to more than {limit} bytes: if it is meant to, raise the limit `unpacked_bytes`"))
    })
}

/// An array of elements as wide as `dtype`, stored with their most significant byte first or last.
pub(crate) fn from_stored(dtype: DType, shape: &[u64], bytes: &[u8], big_endian: bool) -> Array {
    let mut out = Array::zeros(dtype, shape);
    out.bytes_mut().copy_from_slice(bytes);
    if big_endian != cfg!(target_endian = "big") {
        out.bytes_mut().chunks_exact_mut(dtype.size_bytes()).for_each(<[u8]>::reverse);
    }
    out
}

/// Narrow integers, which have no element type here, as `i32`.
pub(crate) fn widened(shape: &[u64], bytes: &[u8], width: usize, signed: bool, big_endian: bool) -> Array {
    let one = |b: &[u8]| match (width, signed) {
        (1, _) => i32::from(b[0] as i8),
        _ => {
            let pair = [b[0], b[1]];
            let word = if big_endian { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) };
            if signed { i32::from(word as i16) } else { i32::from(word) }
        }
    };
    let mut out = Array::zeros(DType::I32, shape);
    for (to, from) in out.as_mut_slice::<i32>().iter_mut().zip(bytes.chunks_exact(width)) {
        *to = one(from);
    }
    out
}
