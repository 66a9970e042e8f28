//! NumPy's archive of arrays: a zip of `.npy` files, as `np.savez` and `np.savez_compressed` write it.

use std::path::Path;

use thalweg_graph::Array;

use crate::error::{DataError, Place, Result};
use crate::file::{Limits, name_of, read_file};
use crate::{npy, zip};

/// The arrays of a `.npz` file with their names, in the order of the file: `Dataset::new(npz::read("train.npz")?)`.
///
/// # Errors
/// A file that cannot be read, is no zip archive, or has a member that is damaged or is not an array.
pub fn read(path: impl AsRef<Path>) -> Result<Vec<(String, Array)>> {
    parse(&name_of(path.as_ref()), &read_file(path.as_ref())?, &Limits::default())
}

/// The same from bytes; `file` is what errors call them. All arrays together stay below `limits.unpacked_bytes`.
pub fn parse(file: &str, bytes: &[u8], limits: &Limits) -> Result<Vec<(String, Array)>> {
    let mut arrays: Vec<(String, Array)> = Vec::new();
    let mut left = *limits;
    for member in zip::members(file, bytes)? {
        let Some(name) = member.name.strip_suffix(".npy") else {
            let at = Place::Member { name: member.name, byte: 0 };
            return Err(DataError::malformed(file, at, "is not an array: members are called NAME.npy"));
        };
        if arrays.iter().any(|(n, _)| n == name) {
            let at = Place::Byte(member.entry as u64);
            return Err(DataError::malformed(file, at, format!("a second member `{}`", member.name)));
        }
        let unpacked = member.unpack(file, bytes, left.unpacked_bytes)?;
        let array = npy::parse_member(file, &member.name, &unpacked, &left)?;
        left.unpacked_bytes = left.unpacked_bytes.saturating_sub((unpacked.len().max(array.bytes().len())) as u64);
        arrays.push((name.into(), array));
    }
    Ok(arrays)
}
