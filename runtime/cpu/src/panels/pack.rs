//! Copies a block of a [`Matrix`] into a panel, `[depth][lanes]`: either a vector of rows per step of depth, or sixteen
//! steps of depth per row and then a transpose, whichever lies side by side in memory.

use std::ops::Range;

use super::line::{Border, Groups, Line};

/// How a matrix is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Along {
    Rows,
    Depth,
}

/// Rows by depth, found in memory through two lists.
#[derive(Clone, Debug)]
pub(crate) struct Matrix {
    pub(crate) rows: Line,
    pub(crate) depth: Line,
    pub(crate) borders: Vec<Border>,
    pub(crate) along: Along,
    pub(crate) row_groups: Groups,
    /// Elements per group and step of depth in a panel; those beyond the group's width mean nothing.
    pub(crate) stored: usize,
    pub(crate) depth_groups: Groups,
}

/// Steps of depth that are transposed at once; blocks begin at multiples of it.
pub(crate) const DEPTH_STEP: usize = 16;

impl Matrix {
    pub(crate) fn new(rows: Line, depth: Line, borders: Vec<Border>, width: usize, stored: usize) -> Self {
        let (row_groups, depth_groups) = (Groups::new(&rows, width), Groups::new(&depth, DEPTH_STEP));
        // Runs cover as many lanes as they can; a group of eight has half as many to cover.
        let per_element = |g: &Groups| g.raggedness() / g.width as f64;
        let along = match per_element(&row_groups) <= 1.5 * per_element(&depth_groups) {
            true => Along::Rows,
            false => Along::Depth,
        };
        Self { rows, depth, borders, along, row_groups, stored, depth_groups }
    }

    /// Copies the rows of some groups and the steps `depth` to `out`, side by side for each step; lanes without a row are
    /// zero. `from` is where the block lies, `at` the block's part of each border's coordinate.
    ///
    /// # Safety
    /// What is inside the borders lies in the operand, `out` has room, and `depth` begins at a multiple of
    /// [`DEPTH_STEP`].
    #[inline]
    pub(crate) unsafe fn pack<T: Copy + Default>(
        &self,
        wide: bool,
        from: *const T,
        at: &[i32],
        groups: Range<usize>,
        depth: Range<usize>,
        out: *mut T,
    ) {
        #[cfg(target_arch = "x86_64")]
        if wide && size_of::<T>() == 4 && self.borders.iter().all(super::wide::knows) {
            // SAFETY: the caller's promise; `wide` says that the machine has AVX-512; four bytes are moved, not
            // interpreted.
            return unsafe { super::wide::pack(self, from.cast(), at, groups, depth, out.cast()) };
        }
        let _ = wide;
        let stride = self.stored * groups.len();
        for (i, group) in groups.enumerate() {
            // SAFETY: the caller's promise.
            unsafe { self.pack_plain(from, at, group, depth.clone(), out.wrapping_add(i * self.stored), stride) };
        }
    }

    unsafe fn pack_plain<T: Copy + Default>(
        &self,
        from: *const T,
        at: &[i32],
        group: usize,
        depth: Range<usize>,
        out: *mut T,
        stride: usize,
    ) {
        let (width, first) = (self.row_groups.width, group * self.row_groups.width);
        let lanes = width.min(self.rows.len - first);
        let (reach, runs) = (&self.row_groups.reach[group], self.row_groups.runs(group));
        for (i, k) in depth.enumerate() {
            let to = out.wrapping_add(i * stride);
            let from = from.wrapping_offset(self.depth.offsets[k] as isize);
            let coordinate = |c: usize| self.depth.coordinates[c][k] + at[c];
            let within = |c: usize| match self.borders[c] {
                Border::Limit { extent } => reach[c].0 + coordinate(c) >= 0 && reach[c].1 + coordinate(c) < extent,
                Border::Holes { .. } => false,
            };
            // SAFETY: what is inside lies in the operand; the panel has room for `width` lanes.
            unsafe {
                if (0..self.borders.len()).all(within) {
                    for run in runs {
                        let source = from.wrapping_offset(run.offset as isize);
                        to.add(run.lane as usize).copy_from_nonoverlapping(source, run.len as usize);
                    }
                } else {
                    for lane in 0..lanes {
                        let row = first + lane;
                        let shift = |sum: Option<i32>, c: usize| {
                            let inside = self.borders[c].shift(self.rows.coordinates[c][row] + coordinate(c));
                            Some(sum? + inside?)
                        };
                        let shift = (0..self.borders.len()).fold(Some(0), shift);
                        let element = shift.map(|s| *from.wrapping_offset((self.rows.offsets[row] + s) as isize));
                        to.add(lane).write(element.unwrap_or_default());
                    }
                }
                (lanes..width).for_each(|lane| to.add(lane).write(T::default()));
            }
        }
    }
}
