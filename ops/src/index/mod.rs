//! Places that data decides. Indices are i32 or i64; one out of range never reads or writes elsewhere: gathers give NaN
//! (0 for integers), scatters drop the update.

pub mod gather;
pub mod one_hot;
pub mod pick;
pub mod scatter_add;

use thalweg_graph::DType;

/// Whether this is a type of indices.
pub(crate) fn is_index(dtype: DType) -> bool {
    matches!(dtype, DType::I32 | DType::I64)
}
