//! Products of matrices that need not exist in memory: convolutions, both their gradients, anything with windows, borders
//! or holes. A panel of a few vectors of rows is packed straight from the operand, block by block of depth, and
//! multiplied with all columns while it is warm. Everything is cut by the nest alone, so bits do not depend on threads.

mod epilogue;
mod line;
pub(crate) mod micro;
mod pack;
mod residues;
mod run;
mod store;
#[cfg(target_arch = "x86_64")]
pub(crate) mod wide;

use std::ops::Range;

use thalweg_graph::DType;
use thalweg_graph::kernel::Affine;

use crate::contract::Draft;
use crate::isa::Isa;
use epilogue::Epilogue;
use line::{Groups, Line, borders};
use pack::{DEPTH_STEP, Matrix};
pub(crate) use residues::split;
pub(crate) use run::Real;

/// Groups of tasks; each has its own buffers, so that groups can run at the same time.
const GROUPS: usize = 16;
/// Most steps of depth in a block: a panel of 48 rows is then 144 KB of f32, which stays in the second cache. Shorter
/// blocks add to the result more often.
const BLOCK: usize = 768;
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
/// Most panels that are multiplied with a tile's columns before the next columns are looked at.
const AT_ONCE: usize = 4;
/// Bytes of columns over a block of depth that may pass by for every panel: more than that leave the second cache.
const PASSING: usize = 512 << 10;
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
    /// What becomes of sums before they are stored.
    epilogue: Option<Epilogue>,
    /// Groups of rows that make a panel.
    panels: Vec<Range<usize>>,
    /// How many of them meet a tile's columns while these are near: one, unless all columns together are too much.
    at_once: usize,
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
    /// Room for a packed panel.
    panel: usize,
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

/// Which axes are what, innermost first.
struct Roles {
    /// The operand whose rows are held in vectors; the other one's are columns.
    row_side: usize,
    rows: Vec<usize>,
    columns: Vec<usize>,
    depth: Vec<usize>,
    /// The rest, with extents, outermost first.
    loops: Vec<(usize, i64)>,
    depth_loops: Vec<(usize, i64)>,
}

impl Roles {
    fn of(draft: &Draft, width: Width) -> Self {
        let parallel = 0..draft.domain.parallel;
        let fold: Vec<usize> = (draft.domain.parallel..draft.domain.extents.len()).collect();
        let only = [0, 1].map(|s| {
            let own = |a: &usize| draft.uses(s, *a) && !draft.uses(1 - s, *a);
            parallel.clone().filter(own).collect::<Vec<_>>()
        });
        let depth = draft.size(&fold) as f64;
        let cost = [0, 1].map(|s| cost_as_rows(draft, s, [&only[s], &only[1 - s]], depth, width));
        let row_side = if cost[1] < cost[0] { 1 } else { 0 };
        // Innermost in the result first, so that stores are whole vectors.
        let mut rows = only[row_side].clone();
        rows.sort_by_key(|a| draft.result.coefficient(*a as u16).abs());
        let rows = take(rows.into_iter(), draft, LISTED);
        let columns = take(only[1 - row_side].iter().rev().copied(), draft, MOST_COLUMNS);
        let depth = take(fold.iter().rev().copied(), draft, LISTED);
        let rest = |axes: &mut dyn Iterator<Item = usize>| {
            let left = |a: &usize| ![&rows, &columns, &depth].iter().any(|taken| taken.contains(a));
            axes.filter(left).map(|a| (a, draft.extent(a))).collect::<Vec<_>>()
        };
        let (loops, depth_loops) = (rest(&mut parallel.clone()), rest(&mut fold.iter().copied()));
        Self { row_side, rows, columns, depth, loops, depth_loops }
    }
}

/// What it costs to hold the rows of side `s` in vectors, in multiplications: an element packed costs some sixteen, one
/// stored apart from its neighbours 128. `axes` are those of that side alone, then those of the other.
fn cost_as_rows(draft: &Draft, s: usize, axes: [&Vec<usize>; 2], depth: f64, width: Width) -> f64 {
    let beside = |map: &Affine| axes[0].iter().any(|a| map.coefficient(*a as u16) == 1);
    let [rows, columns] = axes.map(|a| draft.size(a));
    let rows = (rows as u64).next_multiple_of(width.lanes as u64) as i64;
    let checked = |s: usize| !draft.sides[s].checks.is_empty();
    let read = !checked(s) && columns <= FEW_COLUMNS as i64 && beside(&draft.domain.maps[draft.sides[s].linear]);
    let packed = if read { 0 } else { rows } + if checked(1 - s) { columns } else { 0 };
    let stored = if beside(&draft.result) { 0.0 } else { 128.0 * (depth / BLOCK as f64).ceil() };
    (rows * columns.max(4)) as f64 * (depth + stored) + 16.0 * depth * packed as f64
}

impl Panels {
    /// `None` where numbers do not fit.
    pub(crate) fn of(draft: &Draft) -> Option<Self> {
        let width = Width::of(draft.dtype);
        let roles = Roles::of(draft, width);
        let listed = |axes: &[usize]| axes.iter().rev().map(|a| (*a, draft.extent(*a))).collect::<Vec<_>>();
        let n = draft.size(&roles.columns) as usize;
        let tiles = n.div_ceil(width.columns);
        let per_tile = n.div_ceil(tiles);
        let [row_axes, column_axes, depth_axes] = [&roles.rows, &roles.columns, &roles.depth].map(|a| listed(a));
        let rows = Side::of(draft, roles.row_side, [&row_axes, &depth_axes], [width.lanes; 2])?;
        let columns = Side::of(draft, 1 - roles.row_side, [&column_axes, &depth_axes], [per_tile, width.columns])?;
        let result_rows = Line::new(&row_axes, &draft.result, &[])?;
        let result_columns = Line::new(&column_axes, &draft.result, &[])?;
        let epilogue = Epilogue::of(draft, [&row_axes, &column_axes], width.lanes)?;

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

        let same_for_all = roles.loops.iter().all(|(a, _)| !draft.uses(1 - roles.row_side, *a));
        let whole = tiles * width.columns * points(&roles.depth_loops) * depth;
        let form = match columns.direct(&blocks) {
            Some(direct) => direct,
            None if same_for_all && whole <= ONCE => Form::Once,
            None => Form::Own,
        };
        let mut product = Self {
            dtype: draft.dtype,
            width,
            rows,
            columns,
            form,
            rows_step,
            loops: roles.loops,
            depth_loops: roles.depth_loops,
            blocks,
            result: draft.result.clone(),
            result_rows: Groups::new(&result_rows, width.lanes),
            result_columns,
            epilogue,
            panels,
            at_once: 1,
            per_tile,
            cuts: [1; 3],
            layout: Layout::default(),
        };
        product.cuts = product.cut(block);
        if n * block * draft.dtype.size_bytes() / product.cuts[1] > PASSING {
            product.at_once = product.panels.len().div_ceil(product.cuts[0]).min(AT_ONCE);
        }
        product.layout = product.lay_out(block);
        Some(product)
    }

    /// Into how many pieces rows, columns and depth are cut, so that there is work for some threads.
    fn cut(&self, block: usize) -> [usize; 3] {
        let (m, n, loops) = (self.rows.matrix.rows.len, self.result_columns.len, self.loop_count());
        let row_tasks = loops * self.panels.len();
        let pieces = if self.rows_step.is_some() { GROUPS / 4 } else { GROUPS };
        let mut cuts = [self.panels.len().min(pieces.div_ceil(loops)), 1, 1];
        if row_tasks < GROUPS / 2 {
            cuts[1] = (n / 64).clamp(1, GROUPS / row_tasks);
        }
        if self.form == Form::Own {
            cuts[1] = cuts[1].max((self.tiles() * self.width.columns * block).div_ceil(OWN));
        }
        let pieces = row_tasks * cuts[1];
        if pieces < GROUPS / 2 && m * n <= 64 << 10 && self.depth() >= 2048 {
            cuts[2] = (GROUPS / pieces).min(self.outer_depth() * self.blocks.len());
        }
        cuts
    }
    fn lay_out(&self, block: usize) -> Layout {
        let (lanes, columns) = (self.width.lanes, self.width.columns);
        let [_, column_cuts, parts] = self.cuts;
        let if_form = |form: Form, elements: usize| if self.form == form { aligned(elements) } else { 0 };
        let panel = aligned(block * micro::MOST_VECTORS * lanes);
        let row_buffer = panel * self.at_once;
        let column_buffer = if_form(Form::Own, block * self.tiles().div_ceil(column_cuts) * columns);
        let buffers = if_form(Form::Once, self.tiles() * columns * self.depth());
        let partials = buffers + GROUPS * (row_buffer + column_buffer);
        let partial = if parts > 1 { aligned(self.rows.matrix.rows.len * self.result_columns.len) } else { 0 };
        let total = partials + partial * parts * self.loop_count();
        Layout { buffers, panel, row_buffer, column_buffer, partials, partial, total }
    }

    pub(crate) fn workspace_bytes(&self) -> usize {
        self.layout.total * self.dtype.size_bytes()
    }
    pub(crate) fn thread_bytes(&self) -> usize {
        self.epilogue.as_ref().map_or(0, Epilogue::thread_bytes)
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
        if let Some(epilogue) = &self.epilogue {
            text += &format!(", {} instructions on each tile", epilogue.computes());
        }
        text
    }
    /// Steps of depth.
    pub(crate) fn depth(&self) -> usize {
        self.rows.matrix.depth.len * self.outer_depth()
    }
    fn loop_count(&self) -> usize {
        points(&self.loops)
    }
    fn outer_depth(&self) -> usize {
        points(&self.depth_loops)
    }
}

/// How far `map` is from zero at most.
fn reach(map: &Affine, extents: &[i64]) -> i128 {
    let term = |(a, c): &(u16, i64)| i128::from(*c).abs() * i128::from(extents[*a as usize]);
    i128::from(map.offset).abs() + map.terms.iter().map(term).sum::<i128>()
}

/// Axes from `order` until there are `enough` points.
fn take(order: impl Iterator<Item = usize>, draft: &Draft, enough: i64) -> Vec<usize> {
    order.fold(vec![], |mut taken, axis| {
        if draft.size(&taken) < enough {
            taken.push(axis);
        }
        taken
    })
}

fn points(axes: &[(usize, i64)]) -> usize {
    axes.iter().map(|a| a.1).product::<i64>() as usize
}

impl Side {
    /// Side `s` with its rows and depth along these axes; `width` rows to a group, of which a panel has room for so many.
    fn of(draft: &Draft, s: usize, axes: [&[(usize, i64)]; 2], [width, stored]: [usize; 2]) -> Option<Self> {
        let access = &draft.sides[s];
        let (linear, borders) = (draft.domain.maps[access.linear].clone(), borders(access, &draft.domain)?);
        let [rows, depth] = axes.map(|a| Line::new(a, &linear, &borders));
        // Blocks move coordinates too.
        let fits = |map: &Affine| reach(map, &draft.domain.extents) < 1 << 30;
        if borders.len() > MOST_BORDERS || !fits(&linear) || !borders.iter().all(|(map, _)| fits(map)) {
            return None;
        }
        let (borders, kinds): (Vec<_>, Vec<_>) = borders.into_iter().unzip();
        let matrix = Matrix::new(rows?, depth?, kinds, width, stored);
        Some(Self { operand: access.operand, linear, borders, matrix })
    }
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
