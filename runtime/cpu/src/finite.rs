//! Whether floats are all finite: asked before products with zeros are left out, because zero times infinity is not zero.
//! There is no early end: a loop that always goes to its end is vectorized.

use thalweg_graph::DType;

use crate::isa::{Isa, multiversion};

/// Rows of floats.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    /// f32 or f64.
    pub(crate) dtype: DType,
    pub(crate) from: *const u8,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    /// Elements from one row to the next.
    pub(crate) stride: usize,
}

/// Whether there is neither an infinity nor NaN.
///
/// # Safety
/// The rows lie in memory; `isa` is one that the machine has.
pub(crate) unsafe fn all(isa: Isa, rows: Rows) -> bool {
    let mut finite = true;
    // SAFETY: the caller's promise.
    unsafe {
        match rows.dtype {
            DType::F64 => look_f64(isa, rows, &mut finite),
            _ => look_f32(isa, rows, &mut finite),
        }
    }
    finite
}

macro_rules! look {
    ($name:ident, $T:ty) => {
        multiversion! {
            unsafe fn $name(rows: Rows, finite: *mut bool) {
                let mut odd = false;
                for row in 0..rows.rows {
                    let row = rows.from.cast::<$T>().wrapping_add(row * rows.stride);
                    // SAFETY: the caller's promise.
                    let row = unsafe { std::slice::from_raw_parts(row, rows.columns) };
                    odd |= row.iter().fold(false, |odd, x| odd | (x * 0.0 != 0.0));
                }
                // SAFETY: the caller's promise.
                unsafe { *finite = !odd };
            }
        }
    };
}
look!(look_f32, f32);
look!(look_f64, f64);
