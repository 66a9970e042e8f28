//! Products of matrices that need not exist in memory: convolutions, both their gradients, anything with windows, borders
//! or holes. A panel of a few vectors of rows is packed straight from the operand, block by block of depth, and
//! multiplied with all columns while it is warm. Everything is cut by the nest alone, so bits do not depend on threads.

mod line;
pub(crate) mod micro;
mod pack;
mod residues;
mod run;
#[cfg(target_arch = "x86_64")]
pub(crate) mod wide;

use std::ops::Range;

use thalweg_graph::DType;
use thalweg_graph::kernel::Affine;

use crate::contract::Draft;
use crate::isa::Isa;
use line::{Groups, Line, borders};
use pack::{DEPTH_STEP, Matrix};
pub(crate) use residues::split;
pub(crate) use run::Real;

/// Groups of tasks; each has its own buffers, so that groups can run at the same time.
const GROUPS: usize = 16;
/// Most steps of depth in a block: a panel of 48 rows is then 96 KB of f32, which stays in the second cache.
const BLOCK: usize = 384;
/// The same where rows are not packed.
const SHALLOW: usize = 32;
/// Rows (and steps of depth) that are listed: axes are taken innermost first until there are so many.
const LISTED: i64 = 768;
/// Columns that are listed at most.
const MOST_COLUMNS: i64 = 1 << 16;
/// Most elements of the columns' operand that are packed once for all tasks: 16 MB of f32.
const ONCE: usize = 4 << 20;
/// Most elements of it that a task packs for itself.
const OWN: usize = 128 << 10;
/// Columns for which rows that lie side by side are not worth packing.
const FEW_COLUMNS: usize = 32;
/// Most borders that an operand has.
const MOST_BORDERS: usize = 8;

/// One operand as a matrix.
#[derive(Debug)]
struct Side {
    operand: usize,
    linear: Affine,
    borders: Vec<Affine>,
    matrix: Matrix,
}

/// How the columns' operand gets to the tiles.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Form {
    /// It is read where it lies, with these steps.
    Direct { column: isize, depth: isize },
    /// It is packed before anything else.
    Once,
    /// Every task packs its part.
    Own,
}

/// What depends on the instruction set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Width {
    pub(crate) lanes: usize,
    /// Columns that a tile has room for.
    pub(crate) columns: usize,
    pub(crate) isa: Isa,
}

impl Width {
    pub(crate) fn of(dtype: DType) -> Self {
        let isa = Isa::detect();
        let (bytes, columns) = match isa {
            Isa::Base => (16, 4),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => (32, 4),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => (64, 8),
        };
        Self { lanes: bytes / dtype.size_bytes(), columns, isa }
    }
}

/// A product made ready.
#[derive(Debug)]
pub(crate) struct Panels {
    dtype: DType,
    width: Width,
    rows: Side,
    columns: Side,
    form: Form,
    /// The step along depth, where rows are read where they lie.
    rows_step: Option<isize>,
    /// Parallel axes walked task by task, and fold axes walked block by block, with extents.
    loops: Vec<(usize, i64)>,
    depth_loops: Vec<(usize, i64)>,
    /// The listed depth in blocks.
    blocks: Vec<Range<usize>>,
    result: Affine,
    result_rows: Groups,
    result_columns: Line,
    /// Groups of rows that make a panel.
    panels: Vec<Range<usize>>,
    /// Columns of a tile: as many as there is room for, or fewer, so that all tiles have work.
    per_tile: usize,
    /// Pieces that rows, columns and depth are cut into.
    cuts: [usize; 3],
    layout: Layout,
}

/// Where things begin in the workspace, in elements.
#[derive(Clone, Copy, Debug, Default)]
struct Layout {
    buffers: usize,
    /// Per group of tasks: rows, then columns.
    row_buffer: usize,
    column_buffer: usize,
    partials: usize,
    partial: usize,
    total: usize,
}

/// Elements that keep the next thing aligned.
fn aligned(elements: usize) -> usize {
    elements.next_multiple_of(16)
}

impl Panels {
    /// `None` where numbers do not fit.
    pub(crate) fn of(draft: &Draft) -> Option<Self> {
        let width = Width::of(draft.dtype);
        let fold: Vec<usize> = (draft.domain.parallel..draft.domain.extents.len()).collect();
        let only = |s: usize| {
            let own = |a: &usize| draft.uses(s, *a) && !draft.uses(1 - s, *a);
            (0..draft.domain.parallel).filter(own).collect::<Vec<_>>()
        };
        let (only, size) = ([only(0), only(1)], |axes: &[usize]| draft.size(axes));
        // Vectors hold rows: prefer the side whose rows lie side by side in the result, little padding and little to
        // pack. In multiplications: an element packed costs some sixteen, one stored apart from its neighbours 64.
        let depth = size(&fold) as f64;
        let beside = |map: &Affine, axes: &[usize]| axes.iter().any(|a| map.coefficient(*a as u16) == 1);
        let cost = |s: usize| {
            let lanes = width.lanes as i64;
            let (rows, columns) = ((size(&only[s]) + lanes - 1) / lanes * lanes, size(&only[1 - s]));
            let checked = |s: usize| !draft.sides[s].checks.is_empty();
            let apart = !beside(&draft.result, &only[s]);
            let own = &draft.domain.maps[draft.sides[s].linear];
            let read = !checked(s) && columns <= FEW_COLUMNS as i64 && beside(own, &only[s]);
            let packed = if read { 0 } else { rows } + if checked(1 - s) { columns } else { 0 };
            let stored = if apart { 64.0 * (depth / BLOCK as f64).ceil() } else { 0.0 };
            (rows * columns.max(4)) as f64 * (depth + stored) + 16.0 * depth * packed as f64
        };
        let row_side = if cost(1) < cost(0) { 1 } else { 0 };
        let columns_side = 1 - row_side;

        // Innermost in the result first, so that stores are whole vectors.
        let mut row_axes = only[row_side].clone();
        row_axes.sort_by_key(|a| draft.result.coefficient(*a as u16).abs());
        let row_axes = take(&row_axes, draft, LISTED);
        let mut column_axes = only[columns_side].clone();
        column_axes.reverse();
        let column_axes = take(&column_axes, draft, MOST_COLUMNS);
        let depth_axes = take(&fold.iter().rev().copied().collect::<Vec<_>>(), draft, LISTED);
        let with_extents = |axes: &[usize]| axes.iter().rev().map(|a| (*a, draft.extent(*a))).collect::<Vec<_>>();
        let rest = |of: &mut dyn Iterator<Item = usize>, taken: [&[usize]; 2]| {
            of.filter(|a| taken.iter().all(|t| !t.contains(a))).map(|a| (a, draft.extent(a))).collect::<Vec<_>>()
        };
        let loops = rest(&mut (0..draft.domain.parallel), [&row_axes, &column_axes]);
        let depth_loops = rest(&mut fold.iter().copied(), [&depth_axes, &[]]);

        let side = |s: usize, axes: &[usize], lanes: usize| {
            let access = &draft.sides[s];
            let (linear, borders) = (draft.domain.maps[access.linear].clone(), borders(access, &draft.domain)?);
            let rows = Line::new(&with_extents(axes), &linear, &borders)?;
            let depth = Line::new(&with_extents(&depth_axes), &linear, &borders)?;
            // Blocks move coordinates too.
            let fits = |map: &Affine| reach(map, &draft.domain.extents) < 1 << 30;
            if borders.len() > MOST_BORDERS || !fits(&linear) || !borders.iter().all(|(map, _)| fits(map)) {
                return None;
            }
            let (borders, kinds): (Vec<_>, Vec<_>) = borders.into_iter().unzip();
            let stored = if s == row_side { lanes } else { width.columns };
            let matrix = Matrix::new(rows, depth, kinds, lanes, stored);
            Some(Side { operand: access.operand, linear, borders, matrix })
        };
        let rows = side(row_side, &row_axes, width.lanes)?;
        let n = size(&column_axes) as usize;
        let tiles = n.div_ceil(width.columns);
        let per_tile = n.div_ceil(tiles);
        let columns = side(columns_side, &column_axes, per_tile)?;
        let result_rows = Line::new(&with_extents(&row_axes), &draft.result, &[])?;
        let result_columns = Line::new(&with_extents(&column_axes), &draft.result, &[])?;

        let depth = rows.matrix.depth.len;
        let rows_step = match rows.direct(std::slice::from_ref(&(0..depth))) {
            Some(Form::Direct { column: 1, depth }) if n <= FEW_COLUMNS => Some(depth),
            _ => None,
        };
        // Rows that are read where they lie are read across: many panels over little depth, as memory has them.
        let most = if rows_step.is_some() { SHALLOW } else { BLOCK };
        let block = depth.div_ceil(depth.div_ceil(most)).next_multiple_of(DEPTH_STEP);
        let blocks: Vec<_> = (0..depth).step_by(block).map(|k| k..(k + block).min(depth)).collect();
        let groups = result_rows.len.div_ceil(width.lanes);
        let count = groups.div_ceil(micro::MOST_VECTORS);
        let panels: Vec<_> = (0..count).map(|i| groups * i / count..groups * (i + 1) / count).collect();

        let loop_count = loops.iter().map(|l| l.1).product::<i64>() as usize;
        let outer_depth = depth_loops.iter().map(|l| l.1).product::<i64>() as usize;
        let padded = tiles * width.columns;
        let same_for_all = loops.iter().all(|(a, _)| !draft.uses(columns_side, *a));
        let form = match columns.direct(&blocks) {
            Some(direct) => direct,
            None if same_for_all && padded * outer_depth * depth <= ONCE => Form::Once,
            None => Form::Own,
        };

        let row_tasks = loop_count * panels.len();
        let pieces = if rows_step.is_some() { GROUPS / 4 } else { GROUPS };
        let mut cuts = [panels.len().min(pieces.div_ceil(loop_count)), 1, 1];
        if row_tasks < GROUPS / 2 {
            cuts[1] = (n / 64).clamp(1, GROUPS / row_tasks);
        }
        if form == Form::Own {
            cuts[1] = cuts[1].max((padded * block).div_ceil(OWN));
        }
        let (pieces, m) = (row_tasks * cuts[1], result_rows.len);
        if pieces < GROUPS / 2 && m * n <= 64 << 10 && outer_depth * depth >= 2048 {
            cuts[2] = (GROUPS / pieces).min(outer_depth * blocks.len());
        }
        let mut layout = Layout { row_buffer: aligned(block * micro::MOST_VECTORS * width.lanes), ..Layout::default() };
        layout.buffers = if form == Form::Once { aligned(padded * outer_depth * depth) } else { 0 };
        layout.column_buffer =
            if form == Form::Own { aligned(block * tiles.div_ceil(cuts[1]) * width.columns) } else { 0 };
        layout.partials = layout.buffers + GROUPS * (layout.row_buffer + layout.column_buffer);
        layout.partial = if cuts[2] > 1 { aligned(m * n) } else { 0 };
        layout.total = layout.partials + layout.partial * cuts[2] * loop_count;
        Some(Self {
            dtype: draft.dtype,
            width,
            rows,
            columns,
            form,
            rows_step,
            loops,
            depth_loops,
            blocks,
            result: draft.result.clone(),
            result_rows: Groups::new(&result_rows, width.lanes),
            result_columns,
            panels,
            per_tile,
            cuts,
            layout,
        })
    }

    pub(crate) fn workspace_bytes(&self) -> usize {
        self.layout.total * self.dtype.size_bytes()
    }
    pub(crate) fn strategy(&self) -> String {
        let (m, n) = (self.rows.matrix.rows.len, self.result_columns.len);
        let form = match self.form {
            Form::Direct { .. } => "strided",
            Form::Once => "packed once",
            Form::Own => "packed",
        };
        let mut text = format!("contraction {m}×{n}×{}, panels by {form}", self.depth());
        let tasks = self.loop_count() * self.cuts[0] * self.cuts[1];
        if tasks > 1 {
            text += &format!(", {tasks} tasks");
        }
        if self.cuts[2] > 1 {
            text += &format!(", depth in {} parts", self.cuts[2]);
        }
        text
    }
    /// Steps of depth.
    pub(crate) fn depth(&self) -> usize {
        self.rows.matrix.depth.len * self.outer_depth()
    }
    fn loop_count(&self) -> usize {
        self.loops.iter().map(|l| l.1).product::<i64>() as usize
    }
    fn outer_depth(&self) -> usize {
        self.depth_loops.iter().map(|l| l.1).product::<i64>() as usize
    }
}

/// How far `map` is from zero at most.
fn reach(map: &Affine, extents: &[i64]) -> i128 {
    let term = |(a, c): &(u16, i64)| i128::from(*c).abs() * i128::from(extents[*a as usize]);
    i128::from(map.offset).abs() + map.terms.iter().map(term).sum::<i128>()
}

/// Axes from `order` until there are `enough` points.
fn take(order: &[usize], draft: &Draft, enough: i64) -> Vec<usize> {
    let mut taken: Vec<usize> = Vec::new();
    for axis in order {
        if draft.size(&taken) >= enough {
            break;
        }
        taken.push(*axis);
    }
    taken
}

impl Side {
    /// Steps with which tiles can read it where it lies: the same between all columns, and along depth in all blocks.
    fn direct(&self, blocks: &[Range<usize>]) -> Option<Form> {
        let Matrix { rows, depth, borders, .. } = &self.matrix;
        let column = rows.step(0..rows.len)?;
        let mut steps = blocks.iter().map(|b| depth.step(b.clone()));
        let first = steps.next()??;
        let same = steps.all(|s| s == Some(first));
        (borders.is_empty() && same).then_some(Form::Direct { column: column as isize, depth: first as isize })
    }
}
