//! IDX, the format of MNIST (LeCun, *The MNIST database*): two zero bytes, a code for the element type, the number of
//! axes, the extents, the elements; all numbers big-endian. Gzipped files, as they are handed around, are read as they
//! are.

use std::path::Path;

use thalweg_graph::{Array, DType};

use crate::error::{DataError, Place, Result};
use crate::file::{Limits, array_bytes, extents, from_stored, gunzip, name_of, read_file, widened};

/// The array in an IDX file, gzipped or not. Signed bytes and 16-bit integers become `i32`.
///
/// # Errors
/// A file that cannot be read, or is not what its first bytes say.
pub fn read(path: impl AsRef<Path>) -> Result<Array> {
    parse(&name_of(path.as_ref()), &read_file(path.as_ref())?, &Limits::default())
}

/// The same from bytes; `file` is what errors call them.
pub fn parse(file: &str, bytes: &[u8], limits: &Limits) -> Result<Array> {
    let bytes = &*gunzip(file, bytes, limits)?;
    let fault = |at: usize, what: String| Err(DataError::malformed(file, Place::Byte(at as u64), what));
    let [zero, zero2, code, rank, rest @ ..] = bytes else {
        return fault(bytes.len(), format!("an IDX file begins with four bytes, and this one has {}", bytes.len()));
    };
    if (*zero, *zero2) != (0, 0) {
        let found = format!("{zero:02x} {zero2:02x}");
        return fault(0, format!("an IDX file begins with two zero bytes, found {found}: this is some other format"));
    }
    // Element type and, where there is none as narrow, the width to read.
    let (dtype, narrow) = match code {
        0x08 => (DType::U8, None),
        0x09 => (DType::I32, Some(1)),
        0x0b => (DType::I32, Some(2)),
        0x0c => (DType::I32, None),
        0x0d => (DType::F32, None),
        0x0e => (DType::F64, None),
        _ => {
            let known = "08 (u8), 09 (i8), 0b (i16), 0c (i32), 0d (f32), 0e (f64)";
            return fault(2, format!("no element type has the code {code:02x}; expected {known}"));
        }
    };
    let rank = usize::from(*rank);
    if rest.len() < 4 * rank {
        let what = format!("the extents of {rank} axes need {} bytes, and the file has {}", 4 * rank, rest.len());
        return fault(4, format!("{what} more: it was cut short"));
    }
    let (head, data) = rest.split_at(4 * rank);
    let extent = |b: &[u8]| u64::from(u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
    let shape: Vec<u64> = head.chunks_exact(4).map(extent).collect();
    let width = narrow.unwrap_or(dtype.size_bytes());
    let Some(size) = array_bytes(dtype, &shape, limits).map(|n| n / dtype.size_bytes() * width) else {
        let what = format!(
            "the header promises {} elements, beyond the limit of {} bytes",
            extents(&shape),
            limits.unpacked_bytes
        );
        return fault(4, format!("{what}: if it is meant to, raise the limit `unpacked_bytes`"));
    };
    if data.len() != size {
        let (says, has) = (extents(&shape), data.len());
        let why = if has < size { "it was cut short: fetch it again" } else { "it is damaged, or not IDX" };
        return fault(4 + 4 * rank, format!("{says} elements take {size} bytes, and the file has {has} more: {why}"));
    }
    Ok(match narrow {
        Some(width) => widened(&shape, data, width, true, true),
        None => from_stored(dtype, &shape, data, true),
    })
}
