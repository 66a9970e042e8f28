//! Runs a product panel by panel: who takes which piece, what is packed when, which tile meets which columns.

use std::mem::MaybeUninit;

use thalweg_graph::DType;
use thalweg_graph::kernel::Affine;

use super::epilogue::Ready;
use super::micro::{self, Columns, Rows, Tile};
use super::store::Aligned;
use super::{AT_ONCE, Form, GROUPS, MOST_BORDERS, Panels, Side};
use crate::isa::Isa;
use crate::pool::{self, Shared};
use crate::scratch;

/// Elements that can be multiplied here.
pub(crate) trait Real: Copy + Default + Send + Sync + std::ops::Add<Output = Self> + 'static {
    fn tile(isa: Isa, vectors: usize, columns: usize) -> Tile<Self>;
}
impl Real for f32 {
    fn tile(isa: Isa, vectors: usize, columns: usize) -> Tile<f32> {
        match isa {
            Isa::Base => micro::plain_f32(vectors, columns),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => micro::avx2_f32(vectors, columns),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => micro::avx512_f32(vectors, columns),
        }
    }
}
impl Real for f64 {
    fn tile(isa: Isa, vectors: usize, columns: usize) -> Tile<f64> {
        match isa {
            Isa::Base => micro::plain_f64(vectors, columns),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => micro::avx2_f64(vectors, columns),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => micro::avx512_f64(vectors, columns),
        }
    }
}

/// A point of all axes; those that a block lists are zero.
pub(super) type Origin = [i64; 32];

/// The buffers of a launch.
#[derive(Clone, Copy)]
pub(super) struct Buffers<'a, T> {
    pub(super) operands: &'a [*const u8],
    rows: *const T,
    columns: *const T,
    pub(super) result: *mut T,
    pub(super) workspace: *mut T,
}

impl Panels {
    /// # Safety
    /// See `CompiledKernel::run`.
    pub(crate) unsafe fn run(
        &self,
        operands: &[*const u8],
        results: &[*mut u8],
        workspace: *mut u8,
        pool: Option<&rayon::ThreadPool>,
    ) {
        // SAFETY: the caller's promise; the dtype is that of both operands and the result.
        unsafe {
            match self.dtype {
                DType::F64 => self.run_as::<f64>(operands, results[0].cast(), workspace.cast(), pool),
                _ => self.run_as::<f32>(operands, results[0].cast(), workspace.cast(), pool),
            }
        }
    }

    unsafe fn run_as<T: Real>(
        &self,
        operands: &[*const u8],
        result: *mut T,
        workspace: *mut T,
        pool: Option<&rayon::ThreadPool>,
    ) {
        let operand = |side: &Side| operands[side.operand].cast::<T>();
        let (rows, columns) = (operand(&self.rows), operand(&self.columns));
        let buffers = Buffers { operands, rows, columns, result, workspace };
        let shared = Shared(buffers);
        let depth_blocks = self.outer_depth() * self.blocks.len();
        let size = (self.rows.matrix.rows.len * self.result_columns.len * self.loop_count()) as f64;
        if self.form == Form::Once {
            let count = depth_blocks.min(GROUPS);
            let elements = (self.result_columns.len * self.depth()) as f64;
            pool::for_each(pool, count, elements, |group| {
                for block in depth_blocks * group / count..depth_blocks * (group + 1) / count {
                    // SAFETY: blocks are packed to places of their own.
                    unsafe { self.pack_once(shared.get(), block) };
                }
            });
        }
        let [row_cuts, column_cuts, parts] = self.cuts;
        let pieces = self.loop_count() * row_cuts * column_cuts * parts;
        let groups = pieces.min(GROUPS);
        pool::for_each(pool, groups, size * self.depth() as f64 / 100.0, |group| {
            for piece in pieces * group / groups..pieces * (group + 1) / groups {
                // SAFETY: groups have their own buffers; pieces write disjoint parts of the result or of the partial sums.
                self.with_epilogue(parts == 1, |then| unsafe { self.piece(shared.get(), group, piece, then) });
            }
        });
        if parts > 1 {
            for task in 0..self.loop_count() {
                // SAFETY: all partial sums are written.
                self.with_epilogue(true, |then| unsafe { self.combine(buffers, task, then) });
            }
        }
    }
    /// Calls `work` with the epilogue, if there is one and it is `due`.
    fn with_epilogue(&self, due: bool, work: impl FnOnce(Option<&Ready<'_>>)) {
        match &self.epilogue {
            Some(epilogue) if due => scratch::with(epilogue.thread_bytes(), |memory| {
                // SAFETY: there is as much memory as it takes.
                let ready = unsafe { epilogue.on(memory) };
                work(Some(&ready));
            }),
            _ => work(None),
        }
    }

    pub(super) fn origin(&self, mut task: usize) -> Origin {
        let mut origin = [0; 32];
        for (axis, extent) in self.loops.iter().rev() {
            origin[*axis] = task as i64 % extent;
            task /= *extent as usize;
        }
        origin
    }
    /// Moves `origin` to a block of depth; which of the listed blocks it is.
    fn to_block(&self, origin: &mut Origin, block: usize) -> usize {
        let mut outer = block / self.blocks.len();
        for (axis, extent) in self.depth_loops.iter().rev() {
            origin[*axis] = outer as i64 % extent;
            outer /= *extent as usize;
        }
        block % self.blocks.len()
    }
    /// Where a block of the packed columns begins.
    fn packed_at(&self, block: usize) -> usize {
        let (outer, inner) = (block / self.blocks.len(), block % self.blocks.len());
        (outer * self.rows.matrix.depth.len + self.blocks[inner].start) * self.tiles() * self.width.columns
    }
    pub(super) fn tiles(&self) -> usize {
        self.result_columns.len.div_ceil(self.per_tile)
    }

    unsafe fn pack_once<T: Real>(&self, buffers: Buffers<'_, T>, block: usize) {
        let mut origin = [0; 32];
        let inner = self.to_block(&mut origin, block);
        let to = buffers.workspace.wrapping_add(self.packed_at(block));
        // SAFETY: the caller's promise.
        unsafe { self.pack_columns(buffers, &origin, inner, 0..self.tiles(), to) };
    }
    /// Packs some groups of columns over one block of depth.
    unsafe fn pack_columns<T: Real>(
        &self,
        buffers: Buffers<'_, T>,
        origin: &Origin,
        inner: usize,
        groups: std::ops::Range<usize>,
        to: *mut T,
    ) {
        let (width, depth) = (self.width.columns, self.blocks[inner].clone());
        let (from, at) = self.columns.place(buffers.columns, origin);
        for (i, group) in groups.enumerate() {
            let to = to.wrapping_add(i * width * depth.len());
            // SAFETY: the caller's promise.
            unsafe { self.columns.matrix.pack(self.is_wide(), from, &at, group..group + 1, depth.clone(), to) };
        }
    }
    pub(super) fn is_wide(&self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self.width.isa == Isa::Avx512;
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// The step along depth with which tiles can read a panel's rows where they lie: side by side, all of them, and too
    /// few columns for packing to pay.
    fn direct_rows(&self, panel: &std::ops::Range<usize>) -> Option<isize> {
        let lanes = panel.start * self.width.lanes..panel.end * self.width.lanes;
        (lanes.end <= self.rows.matrix.rows.len).then_some(self.rows_step?)
    }

    /// Some panels by some columns over some blocks of depth; `then` comes after the last.
    unsafe fn piece<T: Real>(&self, buffers: Buffers<'_, T>, group: usize, piece: usize, then: Option<&Ready<'_>>) {
        let [row_cuts, column_cuts, parts] = self.cuts;
        let part = piece % parts;
        let column_cut = piece / parts % column_cuts;
        let row_cut = piece / parts / column_cuts % row_cuts;
        let task = piece / parts / column_cuts / row_cuts;
        let cut = |count: usize, i: usize, of: usize| count * i / of..count * (i + 1) / of;
        let width = self.width.columns;
        let column_groups = cut(self.tiles(), column_cut, column_cuts);
        let depth_blocks = cut(self.outer_depth() * self.blocks.len(), part, parts);
        let panels = &self.panels[cut(self.panels.len(), row_cut, row_cuts)];

        let mut origin = self.origin(task);
        let own = self.layout.buffers + group * (self.layout.row_buffer + self.layout.column_buffer);
        let row_buffer = buffers.workspace.wrapping_add(own);
        let column_buffer = row_buffer.wrapping_add(self.layout.row_buffer);
        let partial = buffers.workspace.wrapping_add(self.partial(task, part));
        let ends = (depth_blocks.start, depth_blocks.end - 1);
        for block in depth_blocks {
            let inner = self.to_block(&mut origin, block);
            let depth = self.blocks[inner].clone();
            let (column_start, step) = match self.form {
                Form::Direct { column, depth: step } => {
                    let (from, _) = self.columns.place(buffers.columns, &origin);
                    let offset = self.columns.matrix.depth.offsets[depth.start] as isize;
                    (from.wrapping_offset(offset), Some((column, step)))
                }
                Form::Once => (buffers.workspace.wrapping_add(self.packed_at(block)).cast_const(), None),
                Form::Own => {
                    // SAFETY: the buffer is this group's.
                    unsafe { self.pack_columns(buffers, &origin, inner, column_groups.clone(), column_buffer) };
                    let before = column_groups.start * width * depth.len();
                    (column_buffer.cast_const().wrapping_sub(before), None)
                }
            };
            let (from, at) = self.rows.place(buffers.rows, &origin);
            for panels in panels.chunks(self.at_once) {
                let mut rows = [Rows { at: from, depth: 0 }; AT_ONCE];
                for (i, (rows, panel)) in rows.iter_mut().zip(panels).enumerate() {
                    let buffer = row_buffer.wrapping_add(i * self.layout.panel);
                    // SAFETY: the buffer is this group's and has room for so many panels over a block.
                    *rows = unsafe { self.rows_of(panel, from, &at, depth.clone(), buffer) };
                }
                for columns in column_groups.clone() {
                    let first = columns * self.per_tile;
                    let lie = match step {
                        Some((column, depth)) => {
                            let at = column_start.wrapping_offset(first as isize * column);
                            Columns { at, column, depth }
                        }
                        None => {
                            let at = column_start.wrapping_add(columns * width * depth.len());
                            Columns { at, column: 1, depth: width as isize }
                        }
                    };
                    for (panel, rows) in panels.iter().zip(rows) {
                        let of = self.block(panel, columns);
                        let then = then.filter(|_| block == ends.1);
                        if let Some(then) = then {
                            then.expect(&of, &origin, buffers.operands);
                        }
                        if parts == 1 {
                            self.expect(buffers, &of, &origin);
                        }
                        let mut tile = MaybeUninit::<Aligned<T>>::uninit();
                        let tile = tile.as_mut_ptr().cast::<T>();
                        // SAFETY: both operands hold `depth` steps; the tile has room; whoever made `isa` asked the
                        // machine.
                        unsafe {
                            let multiply = T::tile(self.width.isa, panel.len(), of.columns.len());
                            multiply(depth.len(), rows, lie, tile);
                            let add = block != ends.0;
                            match parts {
                                1 => self.store(buffers, tile, &of, &origin, add, then),
                                _ => self.keep(tile, &of, partial, add),
                            }
                        }
                    }
                }
            }
        }
    }
    /// A panel's rows over some steps of depth, of an operand that lies at `from`: packed to `buffer`, or where they are.
    unsafe fn rows_of<T: Real>(
        &self,
        panel: &std::ops::Range<usize>,
        from: *const T,
        at: &[i32],
        depth: std::ops::Range<usize>,
        buffer: *mut T,
    ) -> Rows<T> {
        let matrix = &self.rows.matrix;
        if let Some(step) = self.direct_rows(panel) {
            let at = matrix.rows.offsets[panel.start * self.width.lanes] + matrix.depth.offsets[depth.start];
            return Rows { at: from.wrapping_offset(at as isize), depth: step };
        }
        // SAFETY: the caller's promise.
        unsafe { matrix.pack(self.is_wide(), from, at, panel.clone(), depth, buffer) };
        Rows { at: buffer.cast_const(), depth: (panel.len() * self.width.lanes) as isize }
    }
}

impl Side {
    /// Where the block at `origin` lies, and its part of each border's coordinate.
    #[inline]
    fn place<T>(&self, from: *const T, origin: &Origin) -> (*const T, [i32; MOST_BORDERS]) {
        let mut coordinates = [0; MOST_BORDERS];
        for (to, map) in coordinates.iter_mut().zip(&self.borders) {
            *to = at(map, origin) as i32;
        }
        (from.wrapping_offset(at(&self.linear, origin) as isize), coordinates)
    }
}

/// `map` at `origin`.
pub(super) fn at(map: &Affine, origin: &Origin) -> i64 {
    map.terms.iter().fold(map.offset, |sum, (a, c)| sum + c * origin[*a as usize])
}
