//! Where a tile of a product goes: into the result, after what the nest makes of it, or among partial sums that meet when
//! all of them are there.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::Panels;
use super::epilogue::{Block, Ready};
use super::line::Groups;
use super::micro::TILE;
use super::run::{Buffers, Origin, Real, at};

/// A tile in whole cache lines.
#[repr(align(64))]
pub(super) struct Aligned<T>([T; TILE]);

impl Panels {
    /// A panel by a tile's columns.
    pub(super) fn block(&self, panel: &Range<usize>, columns: usize) -> Block {
        let first = columns * self.per_tile;
        let columns = first..(first + self.per_tile).min(self.result_columns.len);
        Block { panel: panel.clone(), columns, lanes: self.width.lanes, rows: self.rows.matrix.rows.len }
    }

    /// Puts a tile where it belongs in the result: after what `then` makes of it, and of what is there where it is to be
    /// added to that.
    #[inline]
    pub(super) unsafe fn store<T: Real>(
        &self,
        buffers: Buffers<'_, T>,
        tile: *mut T,
        block: &Block,
        origin: &Origin,
        mut add: bool,
        then: Option<&Ready<'_>>,
    ) {
        let target = buffers.result.wrapping_offset(at(&self.result, origin) as isize);
        let mut from = tile.cast_const();
        // SAFETY: rows and columns lie in the result, of which nobody else has this block.
        unsafe {
            if let Some(then) = then {
                if std::mem::take(&mut add) {
                    self.for_each_group(block, target, |group, at, there| {
                        add_group(self.is_wide(), &self.result_rows, group, there, tile.wrapping_add(at));
                    });
                }
                from = then.apply(block, origin, buffers.operands, tile.cast()).cast();
            }
            self.for_each_group(block, target, |group, at, to| {
                put_group(self.is_wide(), &self.result_rows, group, from.wrapping_add(at), to, add);
            });
        }
    }
    /// Has the place where a tile will go brought nearer, while the tile is still being multiplied: columns lie pages
    /// apart, and waiting for them took a tenth of the time, in large products a quarter.
    #[inline]
    pub(super) fn expect<T: Real>(&self, buffers: Buffers<'_, T>, block: &Block, origin: &Origin) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
            let target = buffers.result.wrapping_offset(at(&self.result, origin) as isize);
            self.for_each_group(block, target, |group, _, to| {
                let place = to.wrapping_offset(self.result_rows.runs(group)[0].offset as isize);
                // SAFETY: fetching ahead touches no memory.
                unsafe { _mm_prefetch::<_MM_HINT_ET0>(place.cast()) };
            });
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (buffers, block, origin);
    }
    /// Calls `work` with every group of rows in every column of a block: where it is in a tile, and where its column is.
    #[inline(always)]
    fn for_each_group<T: Real>(&self, block: &Block, target: *mut T, mut work: impl FnMut(usize, usize, *mut T)) {
        for (j, column) in block.columns.clone().enumerate() {
            let to = target.wrapping_offset(self.result_columns.offsets[column] as isize);
            for (i, group) in block.panel.clone().enumerate() {
                work(group, j * block.height() + i * block.lanes, to);
            }
        }
    }
    /// Puts a tile among the partial sums.
    pub(super) unsafe fn keep<T: Real>(&self, tile: *const T, block: &Block, partial: *mut T, add: bool) {
        let (lanes, rows) = (self.width.lanes, self.rows.matrix.rows.len);
        for (j, column) in block.columns.clone().enumerate() {
            for (i, group) in block.panel.clone().enumerate() {
                let from = tile.wrapping_add((j * block.panel.len() + i) * lanes);
                let to = partial.wrapping_add(column * rows + group * lanes);
                // SAFETY: the caller's promise.
                unsafe { put(from, to, lanes.min(rows - group * lanes), add) };
            }
        }
    }

    pub(super) fn partial(&self, task: usize, part: usize) -> usize {
        self.layout.partials + (task * self.cuts[2] + part) * self.layout.partial
    }
    /// Adds the partial sums of a task, pairwise, and puts them where they belong.
    pub(super) unsafe fn combine<T: Real>(&self, buffers: Buffers<'_, T>, task: usize, then: Option<&Ready<'_>>) {
        let origin = self.origin(task);
        let (m, n, parts) = (self.rows.matrix.rows.len, self.result_columns.len, self.cuts[2]);
        let partial = |part: usize| buffers.workspace.wrapping_add(self.partial(task, part));
        let mut apart = 1;
        // SAFETY: the partial sums lie in the workspace, apart from each other and from the result.
        unsafe {
            while apart < parts {
                for part in (0..parts - apart).step_by(2 * apart) {
                    put(partial(part + apart), partial(part), m * n, true);
                }
                apart *= 2;
            }
            for panel in &self.panels {
                for columns in 0..self.tiles() {
                    let block = self.block(panel, columns);
                    let mut tile = MaybeUninit::<Aligned<T>>::uninit();
                    let tile = tile.as_mut_ptr().cast::<T>();
                    for (j, column) in block.columns.clone().enumerate() {
                        let from = partial(0).wrapping_add(column * m + panel.start * block.lanes);
                        put(from, tile.wrapping_add(j * block.height()), block.filled(), false);
                    }
                    self.store(buffers, tile, &block, &origin, false, then);
                }
            }
        }
    }
}

/// Copies or adds `len` elements.
#[inline(always)]
unsafe fn put<T: Real>(from: *const T, to: *mut T, len: usize, add: bool) {
    for i in 0..len {
        // SAFETY: the caller's promise.
        unsafe { *to.add(i) = if add { *to.add(i) + *from.add(i) } else { *from.add(i) } };
    }
}
/// Adds what lies in the rows of a group to a vector of a tile.
#[inline(always)]
unsafe fn add_group<T: Real>(wide: bool, groups: &Groups, group: usize, from: *const T, to: *mut T) {
    #[cfg(target_arch = "x86_64")]
    if wide && size_of::<T>() == 4 {
        // SAFETY: as for `put_group`.
        return unsafe { super::wide::add(groups, group, from.cast(), to.cast()) };
    }
    let _ = wide;
    for run in groups.runs(group) {
        let (from, to) = (from.wrapping_offset(run.offset as isize), to.wrapping_add(run.lane as usize));
        // SAFETY: the caller's promise.
        unsafe { put(from, to, run.len as usize, true) };
    }
}
#[inline(always)]
unsafe fn put_group<T: Real>(wide: bool, groups: &Groups, group: usize, from: *const T, to: *mut T, add: bool) {
    #[cfg(target_arch = "x86_64")]
    if wide && size_of::<T>() == 4 {
        // SAFETY: the caller's promise; the only element of four bytes is f32.
        return unsafe { super::wide::store(groups, group, from.cast(), to.cast(), add) };
    }
    let _ = wide;
    for run in groups.runs(group) {
        let (from, to) = (from.wrapping_add(run.lane as usize), to.wrapping_offset(run.offset as isize));
        // SAFETY: the caller's promise.
        unsafe { put(from, to, run.len as usize, add) };
    }
}
