//! Products of matrices that lie in memory with constant strides: the gemm crate multiplies, one thread a block. Blocks
//! depend on the nest alone, and partial sums over depth are combined by a fixed tree.

use gemm::Parallelism;
use thalweg_graph::DType;
use thalweg_graph::kernel::Affine;

use crate::contract::Draft;
use crate::pool::{self, Shared};

/// Blocks that a large product is cut into, and partial sums that a deep one is.
const PIECES: i64 = 8;
/// Least depth of a partial sum.
const LEAST_DEPTH: i64 = 512;
/// Multiplications below which tiles do as well.
const WORTH: i64 = 128;

/// One operand: the map that places its blocks, and its strides along rows (or columns) and depth.
#[derive(Debug)]
struct Side {
    operand: usize,
    linear: Affine,
    row: i64,
    depth: i64,
}

/// A product made ready.
#[derive(Debug)]
pub(crate) struct Strided {
    dtype: DType,
    m: i64,
    n: i64,
    depth: i64,
    left: Side,
    right: Side,
    result: Affine,
    result_row: i64,
    result_column: i64,
    /// Axes walked block by block, with extents.
    loops: Vec<(usize, i64)>,
    /// How many blocks of rows and of columns, and how long but for the last.
    row_blocks: (usize, i64),
    column_blocks: (usize, i64),
    /// Partial sums over depth.
    parts: usize,
}

/// Numbers that the gemm crate multiplies.
trait Real: Copy + Send + Sync + std::ops::Add<Output = Self> + 'static {
    const ONE: Self;
}
impl Real for f32 {
    const ONE: Self = 1.0;
}
impl Real for f64 {
    const ONE: Self = 1.0;
}

impl Draft {
    /// The stride of `axes`, innermost first, as one axis of `map`.
    fn merged(&self, axes: &[usize], map: &Affine) -> Option<i64> {
        let mut next = axes.first().map_or(1, |a| map.coefficient(*a as u16));
        let first = next;
        for axis in axes {
            if map.coefficient(*axis as u16) != next {
                return None;
            }
            next *= self.extent(*axis);
        }
        Some(first)
    }
    /// Those of `axes` that are one axis of the result, innermost first.
    fn group(&self, mut axes: Vec<usize>) -> Vec<usize> {
        let stride = |a: usize| self.result.coefficient(a as u16);
        axes.sort_by_key(|a| stride(*a));
        let mut group: Vec<usize> = Vec::new();
        for axis in axes {
            if group.last().is_none_or(|last| stride(axis) == stride(*last) * self.extent(*last)) {
                group.push(axis);
            }
        }
        group
    }
}

impl Strided {
    /// `None` where a side is not a matrix with strides, or it is not worth it.
    pub(crate) fn of(draft: &Draft) -> Option<Self> {
        let parallel = 0..draft.domain.parallel;
        let of = |left: bool, right: bool| {
            let only = parallel.clone().filter(|a| draft.uses(0, *a) == left && draft.uses(1, *a) == right);
            draft.group(only.collect())
        };
        let (rows, columns) = (of(true, false), of(false, true));
        let in_block = |a: &usize| rows.contains(a) || columns.contains(a);
        let loops: Vec<_> = parallel.clone().filter(|a| !in_block(a)).map(|a| (a, draft.extent(a))).collect();
        let fold: Vec<usize> = (draft.domain.parallel..draft.domain.extents.len()).rev().collect();
        let (m, n, depth) = (draft.size(&rows), draft.size(&columns), draft.size(&fold));
        if m * n * depth < WORTH || m * n == 1 {
            return None;
        }
        let side = |s: usize, group: &[usize]| {
            let access = &draft.sides[s];
            let linear = draft.domain.maps[access.linear].clone();
            let (row, depth) = (draft.merged(group, &linear)?, draft.merged(&fold, &linear)?);
            access.checks.is_empty().then_some(Side { operand: access.operand, linear, row, depth })
        };
        let tasks: i64 = loops.iter().map(|l| l.1).product();
        let few_results = tasks < PIECES && m * n <= 64 << 10;
        let parts = if few_results { (depth / LEAST_DEPTH).clamp(1, PIECES) as usize } else { 1 };
        let mut product = Self {
            dtype: draft.dtype,
            m,
            n,
            depth,
            left: side(0, &rows)?,
            right: side(1, &columns)?,
            result: draft.result.clone(),
            result_row: draft.merged(&rows, &draft.result)?,
            result_column: draft.merged(&columns, &draft.result)?,
            loops,
            row_blocks: (1, m),
            column_blocks: (1, n),
            parts,
        };
        // A single large product is cut along its longer side.
        if parts == 1 && tasks < PIECES && m * n * depth > 1 << 22 {
            let long = m.max(n);
            let block = ((long as u64).div_ceil(4).max(64).next_multiple_of(16) as i64).min(long);
            let blocks = ((long as u64).div_ceil(block as u64) as usize, block);
            *if m >= n { &mut product.row_blocks } else { &mut product.column_blocks } = blocks;
        }
        Some(product)
    }

    fn tasks(&self) -> usize {
        let loops: i64 = self.loops.iter().map(|l| l.1).product();
        loops as usize * self.row_blocks.0 * self.column_blocks.0
    }
    /// Elements of a partial sum, so that the next one is aligned.
    fn partial(&self) -> usize {
        ((self.m * self.n) as usize).next_multiple_of(16)
    }
    pub(crate) fn workspace_bytes(&self) -> usize {
        if self.parts == 1 { 0 } else { self.partial() * self.parts * self.tasks() * self.dtype.size_bytes() }
    }
    pub(crate) fn strategy(&self) -> String {
        let Self { m, n, depth, parts, .. } = self;
        let mut text = format!("contraction {m}×{n}×{depth}, strided");
        if self.tasks() > 1 {
            text += &format!(", {} blocks", self.tasks());
        }
        if *parts > 1 {
            text += &format!(", depth in {parts} parts");
        }
        text
    }

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
        let sources = [&self.left, &self.right].map(|s| operands[s.operand].cast::<T>());
        let shared = Shared((sources, result, workspace));
        let pieces = self.tasks() * self.parts;
        let groups = pieces.min(PIECES as usize);
        let work = (self.m * self.n * self.depth * self.loops.iter().map(|l| l.1).product::<i64>()) as f64;
        pool::for_each(pool, groups, work / 50.0, |group| {
            let (sources, result, workspace) = shared.get();
            for piece in pieces * group / groups..pieces * (group + 1) / groups {
                // SAFETY: pieces write disjoint parts of the result or of the partial sums.
                unsafe { self.piece(piece, sources, result, workspace) };
            }
        });
        if self.parts > 1 {
            for task in 0..self.tasks() {
                // SAFETY: all partial sums are written.
                unsafe { self.combine(task, result, workspace) };
            }
        }
    }

    /// One block over one part of the depth.
    unsafe fn piece<T: Real>(&self, piece: usize, sources: [*const T; 2], result: *mut T, workspace: *mut T) {
        let (task, part) = (piece / self.parts, piece as i64 % self.parts as i64);
        let Place { origin, row, column, m, n } = self.place(task);
        let cut = |i: i64| self.depth * i / self.parts as i64;
        let depth = cut(part)..cut(part + 1);
        let (to, to_row, to_column) = if self.parts > 1 {
            (workspace.wrapping_add(piece * self.partial()), 1, self.m)
        } else {
            let at = at(&self.result, &origin) + row * self.result_row + column * self.result_column;
            (result.wrapping_offset(at as isize), self.result_row, self.result_column)
        };
        let from = |k: usize, side: &Side, skip: i64| {
            let at = at(&side.linear, &origin) + skip * side.row + depth.start * side.depth;
            sources[k].wrapping_offset(at as isize)
        };
        let (left, right) = (from(0, &self.left, row), from(1, &self.right, column));
        // SAFETY: both matrices have `m` or `n` rows by this depth at these strides; the target is written by this piece
        // alone.
        unsafe {
            gemm::gemm(
                m as usize,
                n as usize,
                (depth.end - depth.start) as usize,
                to,
                to_column as isize,
                to_row as isize,
                false,
                left,
                self.left.depth as isize,
                self.left.row as isize,
                right,
                self.right.row as isize,
                self.right.depth as isize,
                T::ONE,
                T::ONE,
                false,
                false,
                false,
                Parallelism::None,
            );
        }
    }

    /// Adds the partial sums of a task, pairwise, into the result.
    unsafe fn combine<T: Real>(&self, task: usize, result: *mut T, workspace: *mut T) {
        let (size, parts) = ((self.m * self.n) as usize, self.parts);
        let partial = |part: usize| workspace.wrapping_add((task * parts + part) * self.partial());
        let mut apart = 1;
        // SAFETY: the partial sums lie in the workspace, apart from each other and from the result.
        unsafe {
            while apart < parts {
                for part in (0..parts - apart).step_by(2 * apart) {
                    let into = std::slice::from_raw_parts_mut(partial(part), size);
                    let from = std::slice::from_raw_parts(partial(part + apart), size);
                    into.iter_mut().zip(from).for_each(|(a, b)| *a = *a + *b);
                }
                apart *= 2;
            }
            let to = result.wrapping_offset(at(&self.result, &self.place(task).origin) as isize);
            for column in 0..self.n {
                let from = partial(0).wrapping_offset((column * self.m) as isize);
                for row in 0..self.m {
                    *to.offset((row * self.result_row + column * self.result_column) as isize) =
                        *from.add(row as usize);
                }
            }
        }
    }

    fn place(&self, task: usize) -> Place {
        let mut index = task as i64;
        let mut digit = |extent: i64| {
            let i = index % extent;
            index /= extent;
            i
        };
        let column = digit(self.column_blocks.0 as i64) * self.column_blocks.1;
        let row = digit(self.row_blocks.0 as i64) * self.row_blocks.1;
        let mut origin = [0; 32];
        self.loops.iter().rev().for_each(|(axis, extent)| origin[*axis] = digit(*extent));
        let (m, n) = (self.row_blocks.1.min(self.m - row), self.column_blocks.1.min(self.n - column));
        Place { origin, row, column, m, n }
    }
}

/// Where a task's block begins, and its size.
struct Place {
    origin: [i64; 32],
    row: i64,
    column: i64,
    m: i64,
    n: i64,
}

/// `map` at `origin`.
fn at(map: &Affine, origin: &[i64; 32]) -> i64 {
    map.terms.iter().fold(map.offset, |sum, (a, c)| sum + c * origin[*a as usize])
}
