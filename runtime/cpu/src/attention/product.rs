//! Products of a packed panel and matrices where they lie, tile by tile: [`micro`](crate::panels::micro) for attention.

use std::mem::MaybeUninit;

use super::element::{Addition, Element};
use crate::panels::Width;
use crate::panels::micro::{Columns, Rows, TILE};

/// `out[column][lane] = Σ panel[k][lane] · columns[k][column]` over `depth`.
#[derive(Clone, Copy)]
pub(super) struct Product<T> {
    pub(super) depth: usize,
    /// `[depth][vectors · lanes]`, side by side.
    pub(super) panel: *const T,
    pub(super) vectors: usize,
    pub(super) columns: Columns<T>,
    pub(super) count: usize,
}

/// A tile in whole cache lines.
#[repr(align(64))]
struct Aligned<T>([T; TILE]);

impl<T: Element> Product<T> {
    fn rows(&self, width: Width) -> Rows<T> {
        Rows { at: self.panel, depth: (self.vectors * width.lanes) as isize }
    }
    fn columns_from(&self, first: usize) -> Columns<T> {
        Columns { at: self.columns.at.wrapping_offset(first as isize * self.columns.column), ..self.columns }
    }

    /// Writes the product to `out`, `[count][vectors · lanes]` side by side.
    ///
    /// # Safety
    /// Both sides hold `depth` steps, `out` has room and overlaps neither, and `width` is of this machine.
    pub(super) unsafe fn write(&self, width: Width, out: *mut T) {
        let row = self.vectors * width.lanes;
        for first in (0..self.count).step_by(width.columns) {
            let count = width.columns.min(self.count - first);
            // SAFETY: the caller's promise.
            unsafe {
                let multiply = T::tile(width.isa, self.vectors, count);
                multiply(self.depth, self.rows(width), self.columns_from(first), out.wrapping_add(first * row));
            }
        }
    }

    /// Adds the first `lanes` lanes of each row of the product to a row of `out`, these `stride` apart; and multiplies what
    /// was there by `factors`, one per lane, before.
    ///
    /// # Safety
    /// As [`Product::write`]; there are as many factors as lanes.
    pub(super) unsafe fn add(&self, width: Width, out: *mut T, stride: usize, lanes: usize, factors: Option<*const T>) {
        let row = self.vectors * width.lanes;
        let mut tile = MaybeUninit::<Aligned<T>>::uninit();
        let tile = tile.as_mut_ptr().cast::<T>();
        for first in (0..self.count).step_by(width.columns) {
            let count = width.columns.min(self.count - first);
            let to = out.wrapping_add(first * stride);
            let sum = Addition {
                rows: count,
                columns: lanes,
                from: tile.cast_const(),
                from_stride: row,
                to,
                to_stride: stride,
                factors,
            };
            // SAFETY: the caller's promise; the tile has room for what is multiplied.
            unsafe {
                let multiply = T::tile(width.isa, self.vectors, count);
                multiply(self.depth, self.rows(width), self.columns_from(first), tile);
                T::add_rows(width.isa, sum);
            }
        }
    }
}
