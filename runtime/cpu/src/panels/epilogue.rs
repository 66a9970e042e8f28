//! What a nest does with its sums, done to a tile of them while it is in the nearest cache. The tile is one register of the
//! machine that runs element-wise nests; what is read beside it is fetched into others, through lists of rows and columns
//! as the result is stored. So a bias or an activation costs no pass over memory, and there is one scalar machine.

use std::ops::Range;

use thalweg_graph::DType;
use thalweg_graph::kernel::{Affine, ScalarOp};

use super::line::{Groups, Line};
use super::micro::TILE;
use super::run::{Origin, at};
use crate::ahead::Ahead;
use crate::contract::Draft;
use crate::domain::{Domain, LoweredOp};
use crate::isa::{Isa, multiversion};
use crate::kind::{Kind, Stored, with_stored};
use crate::program::{Layout, Machine, Program, Slot, Slots, Source};
use crate::tile::Tile;

/// Lanes that are copied at once.
const PIECE: usize = 16;

/// A program over sums.
#[derive(Debug)]
pub(super) struct Epilogue {
    isa: Isa,
    program: Program,
    layout: Layout,
    /// The register that sums come in, and the one with what they become.
    sum: Slot,
    value: Slot,
    feeds: Vec<Feed>,
}

/// A register with a value of its own for every element.
#[derive(Debug)]
struct Feed {
    slot: Slot,
    of: Fed,
    /// Its position at the task's origin, and what rows and columns add to that.
    origin: Affine,
    rows: Rows,
    columns: Line,
    /// All columns hold the same.
    once: bool,
}

#[derive(Clone, Copy, Debug)]
enum Fed {
    Operand(usize, DType),
    /// The position itself.
    Index,
}

/// How the rows of a feed lie.
#[derive(Debug)]
enum Rows {
    Same,
    SideBySide,
    Runs(Groups),
    /// For positions.
    Listed(Line),
}

/// Elements of the result: some groups of rows by some columns, as `[column][group][lane]`.
#[derive(Clone, Debug)]
pub(super) struct Block {
    pub(super) panel: Range<usize>,
    pub(super) columns: Range<usize>,
    /// Lanes of a group.
    pub(super) lanes: usize,
    /// Rows that there are in all.
    pub(super) rows: usize,
}

impl Block {
    /// Lanes of a column.
    pub(super) fn height(&self) -> usize {
        self.panel.len() * self.lanes
    }
    /// Rows of a column that there are.
    pub(super) fn filled(&self) -> usize {
        self.height().min(self.rows - self.panel.start * self.lanes)
    }
}

impl Epilogue {
    /// What `draft` does with its sums, if anything, with rows and columns along these axes. The outer `None`: numbers do
    /// not fit.
    pub(super) fn of(draft: &Draft, axes: [&[(usize, i64)]; 2], lanes: usize) -> Option<Option<Self>> {
        let Some(then) = &draft.then else { return Some(None) };
        let mut slots = Slots::default();
        let sum = slots.take(Kind::of(draft.dtype));
        let (mut folded, mut feeds) = (vec![vec![sum]], Vec::new());
        let mut code = then.code.clone();
        for inst in &mut code {
            let (of, map) = match &inst.op {
                LoweredOp::Plain(ScalarOp::Read(k)) => {
                    let access = &then.reads[usize::from(*k)];
                    (Fed::Operand(access.operand, access.dtype), access.linear)
                }
                LoweredOp::Iota(map) => (Fed::Index, *map),
                LoweredOp::Plain(ScalarOp::Valid(_)) => {
                    inst.op = LoweredOp::Literal(1);
                    continue;
                }
                _ => continue,
            };
            let origin = draft.domain.maps[map].clone();
            let slot = slots.take(Kind::of(inst.dtype));
            let [rows, columns] = axes.map(|a| Line::new(a, &origin, &[]));
            let (rows, columns) = (Rows::of(rows?, of, lanes), columns?);
            let once = columns.offsets[..columns.len].iter().all(|o| *o == 0);
            feeds.push(Feed { slot, of, origin, rows, columns, once });
            inst.op = LoweredOp::Plain(ScalarOp::Folded { fold: folded.len() as u16, part: 0 });
            folded.push(vec![slot]);
        }
        let line =
            Domain { extents: vec![TILE as i64], parallel: 1, fold_is_empty: false, is_empty: false, maps: vec![] };
        let tile = Tile::new(&line, 1, TILE);
        let outputs = [then.value];
        let source =
            Source { code: &code, accesses: &[], domain: &line, outputs: &outputs, folded: &folded, folds: false };
        let program = Program::compile(&source, &tile, &mut slots);
        let (layout, value) = (Layout::new(&slots, 0), program.slot(then.value));
        Some(Some(Self { isa: Isa::detect(), program, layout, sum, value, feeds }))
    }
    pub(super) fn thread_bytes(&self) -> usize {
        self.layout.bytes
    }
    /// Instructions that compute.
    pub(super) fn computes(&self) -> usize {
        self.program.computes()
    }
    /// It on a machine in a thread's memory of [`Epilogue::thread_bytes`].
    ///
    /// # Safety
    /// The memory is aligned to 64 and lives as long.
    pub(super) unsafe fn on(&self, memory: *mut u8) -> Ready<'_> {
        // SAFETY: the caller's promise.
        unsafe {
            let machine = Machine::new(self.isa, &[], &self.layout, memory);
            machine.constants(&self.program);
            Ready { epilogue: self, machine }
        }
    }
}

/// An epilogue with its registers.
pub(super) struct Ready<'a> {
    epilogue: &'a Epilogue,
    machine: Machine<'a>,
}

impl Ready<'_> {
    /// Has what [`Ready::apply`] will read for a block brought nearer, while that is still being multiplied: its rows lie
    /// apart, and no hardware sees them coming.
    pub(super) fn expect(&self, block: &Block, origin: &Origin, operands: &[*const u8]) {
        for feed in &self.epilogue.feeds {
            if let Fed::Operand(operand, dtype) = feed.of {
                let (start, size) = (at(&feed.origin, origin) as isize, dtype.size_bytes());
                feed.expect(block, size, operands[operand].wrapping_offset(start * size as isize));
            }
        }
    }
    /// What the sums in `tile` become; that lies in the machine, or where the tile does.
    ///
    /// # Safety
    /// The block of the task at `origin` lies in the result; operands are those of the kernel.
    pub(super) unsafe fn apply(
        &self,
        block: &Block,
        origin: &Origin,
        operands: &[*const u8],
        tile: *mut u8,
    ) -> *const u8 {
        let Self { epilogue, machine } = self;
        // SAFETY: the caller's promise; every feed has a register of its own, of its kind.
        unsafe {
            machine.place(epilogue.sum, tile);
            for feed in &epilogue.feeds {
                let to = machine.register(feed.slot);
                let start = at(&feed.origin, origin);
                match feed.of {
                    Fed::Index => feed.number(block, start, to.cast()),
                    Fed::Operand(operand, dtype) => {
                        fetch(epilogue.isa, feed, block, dtype, operands[operand], start, to)
                    }
                }
            }
            let lanes = block.height() * block.columns.len();
            machine.tile(&epilogue.program, &[], lanes, &mut Ahead::new(None));
            machine.register(epilogue.value).cast_const()
        }
    }
}

impl Rows {
    fn of(line: Line, of: Fed, lanes: usize) -> Self {
        match of {
            _ if line.offsets[..line.len].iter().all(|o| *o == 0) => Rows::Same,
            Fed::Index => Rows::Listed(line),
            Fed::Operand(..) if line.step(0..line.len) == Some(1) => Rows::SideBySide,
            Fed::Operand(..) => Rows::Runs(Groups::new(&line, lanes)),
        }
    }
}

impl Feed {
    /// Writes positions.
    unsafe fn number(&self, block: &Block, start: i64, to: *mut i64) {
        let first = block.panel.start * block.lanes;
        for (j, column) in block.columns.clone().enumerate() {
            let column = start + i64::from(self.columns.offsets[column]);
            for lane in 0..block.filled() {
                let row = if let Rows::Listed(line) = &self.rows { line.offsets[first + lane] } else { 0 };
                // SAFETY: the register has room for the block.
                unsafe { *to.add(j * block.height() + lane) = column + i64::from(row) };
            }
        }
    }
    #[inline(always)]
    unsafe fn fetch<S: Stored>(&self, block: &Block, from: *const S, to: *mut S::Reg) {
        let (height, filled) = (block.height(), block.filled());
        let columns = &self.columns.offsets[block.columns.clone()];
        let columns = if self.once { &columns[..1] } else { columns };
        let places =
            columns.iter().enumerate().map(|(j, o)| (from.wrapping_offset(*o as isize), to.wrapping_add(j * height)));
        // SAFETY: the caller's promise; lanes beyond the rows mean nothing.
        unsafe {
            match &self.rows {
                Rows::Same => places.for_each(|(from, to)| {
                    let value = (*from).load();
                    in_pieces(height, to, |_| [value; PIECE], |_| value);
                }),
                Rows::SideBySide => places.for_each(|(from, to)| {
                    let from = from.wrapping_add(block.panel.start * block.lanes);
                    let piece = |at| std::array::from_fn(|l| (*from.add(at + l)).load());
                    in_pieces(filled, to, piece, |at| (*from.add(at)).load());
                }),
                Rows::Runs(groups) => places.for_each(|(from, to)| {
                    for (i, group) in block.panel.clone().enumerate() {
                        for run in groups.runs(group) {
                            let to = to.add(i * block.lanes + usize::from(run.lane));
                            let from = from.wrapping_offset(run.offset as isize);
                            (0..usize::from(run.len)).for_each(|l| *to.add(l) = (*from.add(l)).load());
                        }
                    }
                }),
                Rows::Listed(_) => unreachable!("only positions are listed"),
            }
            for j in columns.len()..block.columns.len() {
                let first = to.cast_const();
                in_pieces(height, to.add(j * height), |at| *first.add(at).cast(), |at| *first.add(at));
            }
        }
    }
    /// Has what it fetches for a block brought nearer.
    #[inline(always)]
    fn expect(&self, block: &Block, size: usize, start: *const u8) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let (rows, bytes) = match &self.rows {
                Rows::SideBySide => (block.panel.start * block.lanes * size, block.filled() * size),
                Rows::Runs(groups) => (groups.runs(block.panel.start)[0].offset as usize * size, block.filled() * size),
                // A single number a column, or a single column.
                _ => return,
            };
            if self.once {
                return;
            }
            for offset in &self.columns.offsets[block.columns.clone()] {
                let from = start.wrapping_offset(*offset as isize * size as isize).wrapping_add(rows);
                // SAFETY: fetching ahead touches no memory.
                (0..bytes)
                    .step_by(64)
                    .for_each(|line| unsafe { _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(line).cast()) });
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (block, size, start);
    }
}

/// Writes `height` lanes, most of them in pieces of a constant size: a loop of unknown length is made for many more
/// lanes than a column has, and a call costs more than a copy.
#[inline(always)]
unsafe fn in_pieces<R: Copy>(height: usize, to: *mut R, piece: impl Fn(usize) -> [R; PIECE], one: impl Fn(usize) -> R) {
    let whole = height / PIECE * PIECE;
    // SAFETY: the caller promises room for so many lanes.
    unsafe {
        (0..whole).step_by(PIECE).for_each(|at| *to.add(at).cast::<[R; PIECE]>() = piece(at));
        (whole..height).for_each(|at| *to.add(at) = one(at));
    }
}

multiversion! {
    /// Fetches what an operand holds for a block.
    ///
    /// # Safety
    /// It lies in the operand, which has this type; the register has room for it.
    unsafe fn fetch(feed: &Feed, block: &Block, dtype: DType, operand: *const u8, start: i64, to: *mut u8) {
        with_stored!(dtype, S => {
            // SAFETY: the caller's promise.
            unsafe { feed.fetch::<S>(block, operand.cast::<S>().wrapping_offset(start as isize), to.cast()) }
        })
    }
}
