//! Scalar programs compiled for tiles. Instructions are sorted by how often their value changes (never, per tile, per
//! step of a fold), so that a step runs only what depends on it; registers share slots where lives do not overlap.

mod pairs;
mod uniform;

use thalweg_graph::DType;
use thalweg_graph::kernel::{Binary, Reg, ScalarOp};

use crate::access::{self, Offsets, Reader, Tiles};
use crate::ahead::Ahead;
use crate::domain::{Access, Domain, Lowered, LoweredOp};
use crate::isa::Isa;
use crate::kind::Kind;
use crate::lanes::{self, LaneOp};
use crate::tile::{LANES, LaneMap, Origin, Tile};

/// A place for one register.
pub(crate) type Slot = u16;

/// Hands out slots and knows where each lies.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    /// Size of a lane and offset of each slot.
    places: Vec<(usize, usize)>,
    free: Vec<Slot>,
    bytes: usize,
}

impl Slots {
    pub(crate) fn take(&mut self, kind: Kind) -> Slot {
        let size = kind.size_bytes();
        if let Some(i) = self.free.iter().rposition(|s| self.places[*s as usize].0 == size) {
            return self.free.remove(i);
        }
        // One line more than the lanes, so that registers do not all compete for the same sets of the cache.
        self.places.push((size, self.bytes));
        self.bytes += (LANES * size).next_multiple_of(64) + 64;
        (self.places.len() - 1) as Slot
    }
    fn give(&mut self, slot: Slot) {
        self.free.push(slot);
    }
    /// Ends a program: what the next one keeps must not share slots with what this one passes through.
    fn close(&mut self) {
        self.free.clear();
    }
}

/// How often a value changes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Level {
    Constant,
    Tile,
    Step,
}

#[derive(Debug)]
enum What {
    Read { read: u16, in_place: bool },
    Valid(u16),
    Iota(LaneMap),
    Compute(LaneOp, [Slot; 3]),
}
#[derive(Debug)]
struct Inst {
    what: What,
    to: Slot,
    /// Of the first lane alone.
    single: bool,
}

/// A program for tiles of one shape.
#[derive(Debug)]
pub(crate) struct Program {
    levels: [Vec<Inst>; 3],
    pub(crate) readers: Vec<Reader>,
    lanes: usize,
    /// The slot of each register that is live.
    slots: Vec<Option<Slot>>,
    /// Frames of offsets that its reads need.
    pub(crate) depth: usize,
}

/// What a program is compiled from.
pub(crate) struct Source<'a> {
    pub(crate) code: &'a [Lowered],
    pub(crate) accesses: &'a [Access],
    pub(crate) domain: &'a Domain,
    /// Registers whose values are wanted.
    pub(crate) outputs: &'a [Reg],
    /// The slot of each part of each fold.
    pub(crate) folded: &'a [Vec<Slot>],
    /// Whether the outputs are folded before anything is written: then they may be read where operands lie.
    pub(crate) folds: bool,
}

impl Program {
    pub(crate) fn compile(source: &Source<'_>, tile: &Tile, slots: &mut Slots) -> Self {
        let Source { accesses, domain, outputs, folded, folds, .. } = *source;
        let readers = access::readers(accesses, domain, tile);
        let uniform = uniform::uniform(source.code, &readers);
        let code = &pairs::joined(source, &uniform)[..];
        let source = &Source { code, ..*source };
        let live = live(code, outputs);
        let single = uniform::single(code, outputs, &live, &uniform);
        let levels = levels(source);
        let mut last_use = vec![0; code.len()];
        for (i, inst) in code.iter().enumerate().filter(|(i, _)| live[*i]) {
            uses(&inst.op).iter().for_each(|r| last_use[*r as usize] = i);
        }
        outputs.iter().for_each(|r| last_use[*r as usize] = usize::MAX);
        let top = levels.iter().copied().max().unwrap_or(Level::Constant);
        let mut at: Vec<Option<Slot>> = vec![None; code.len()];
        let mut compiled = [vec![], vec![], vec![]];
        // Levels run one after the other, so slots are handed out in that order; only the last level reuses them.
        for level in [Level::Constant, Level::Tile, Level::Step] {
            for (i, inst) in code.iter().enumerate().filter(|(i, _)| live[*i] && levels[*i] == level) {
                if let LoweredOp::Plain(ScalarOp::Folded { fold, part }) = inst.op {
                    at[i] = Some(folded[fold as usize][part as usize]);
                    continue;
                }
                let to = slots.take(Kind::of(inst.dtype));
                at[i] = Some(to);
                let arg = |r: Reg| at[r as usize].unwrap_or_default();
                let lane = |op, regs: &[Reg]| {
                    let mut args = [0; 3];
                    args.iter_mut().zip(regs).for_each(|(a, r)| *a = arg(*r));
                    What::Compute(op, args)
                };
                let of = |r: Reg| code[r as usize].dtype;
                let what = match &inst.op {
                    LoweredOp::Literal(bits) => lane(LaneOp::Literal(Kind::of(inst.dtype), *bits), &[]),
                    LoweredOp::Pair(pair, args) => lane(LaneOp::Pair(*pair), args),
                    LoweredOp::Iota(map) => What::Iota(tile.lane_map(&domain.maps[*map])),
                    LoweredOp::Plain(op) => match *op {
                        ScalarOp::Read(read) => What::Read { read, in_place: folds || !outputs.contains(&(i as Reg)) },
                        ScalarOp::Valid(read) => What::Valid(read),
                        ScalarOp::Philox { key, index, step } => lane(LaneOp::Philox(key), &[index, step]),
                        ScalarOp::Unary(op, a) => lane(LaneOp::Unary(op, of(a)), &[a]),
                        ScalarOp::Binary(op, a, b) => {
                            lane(LaneOp::binary(op, of(a), [a, b].map(|r| uniform[r as usize])), &[a, b])
                        }
                        ScalarOp::Select(c, a, b) => lane(LaneOp::Select(Kind::of(inst.dtype)), &[c, a, b]),
                        ScalarOp::Fma(a, b, c) => lane(LaneOp::Fma(inst.dtype), &[a, b, c]),
                        ScalarOp::Cast(a) => lane(LaneOp::Cast(of(a), inst.dtype), &[a]),
                        ScalarOp::Literal(_) | ScalarOp::Index(_) | ScalarOp::Folded { .. } => {
                            unreachable!("lowered before")
                        }
                    },
                };
                compiled[level as usize].push(Inst { what, to, single: single[i] });
                if level == top {
                    let mut ended = uses(&inst.op);
                    ended.sort_unstable();
                    ended.dedup();
                    for r in ended.iter().map(|r| *r as usize).filter(|r| levels[*r] == top && last_use[*r] == i) {
                        if !is_folded(&code[r].op) {
                            at[r].into_iter().for_each(|s| slots.give(s));
                        }
                    }
                }
            }
        }
        slots.close();
        let depth = readers.iter().map(Reader::depth).max().unwrap_or(1);
        Self { levels: compiled, readers, lanes: tile.lanes(), slots: at, depth }
    }

    /// The slot of an output.
    pub(crate) fn slot(&self, reg: Reg) -> Slot {
        self.slots[reg as usize].unwrap_or_default()
    }
    /// Instructions that compute, of a tile and a step of its fold.
    pub(crate) fn computes(&self) -> usize {
        let insts = self.levels[1].iter().chain(&self.levels[2]);
        insts.filter(|i| matches!(i.what, What::Compute(..))).count()
    }
    /// A guess at the nanoseconds of one tile (without what is constant).
    pub(crate) fn cost(&self) -> f64 {
        let per_lane = |inst: &Inst| match &inst.what {
            What::Read { read, .. } => self.readers[*read as usize].cost(self.lanes),
            What::Valid(_) => 1.0,
            What::Iota(_) => 0.1,
            What::Compute(op, _) => op.cost(),
        };
        let insts = self.levels[1].iter().chain(&self.levels[2]);
        insts.map(|i| 8.0 + self.lanes as f64 * per_lane(i)).sum()
    }
}

impl LaneOp {
    /// `uniform`: which operands are the same in every lane.
    fn binary(op: Binary, dtype: DType, uniform: [bool; 2]) -> Self {
        let plain = matches!(op, Binary::Add | Binary::Sub | Binary::Mul | Binary::Div | Binary::Max | Binary::Min);
        match uniform {
            [true, false] if plain && dtype == DType::F32 => LaneOp::Splat(op, 0),
            [false, true] if plain && dtype == DType::F32 => LaneOp::Splat(op, 1),
            _ => LaneOp::Binary(op, dtype),
        }
    }
    /// A guess at nanoseconds per lane.
    fn cost(self) -> f64 {
        use thalweg_graph::kernel::Unary;
        match self {
            LaneOp::Philox(_) => 5.0,
            LaneOp::Unary(Unary::Sin | Unary::Cos | Unary::Log | Unary::Exp | Unary::Tanh | Unary::Erf, DType::F64)
            | LaneOp::Unary(Unary::Sin | Unary::Cos, _)
            | LaneOp::Binary(Binary::Pow | Binary::Rem, _) => 8.0,
            LaneOp::Unary(Unary::Log | Unary::Exp | Unary::Tanh | Unary::Erf, _) => 0.6,
            _ => 0.06,
        }
    }
}

fn uses(op: &LoweredOp) -> Vec<Reg> {
    match op {
        LoweredOp::Plain(op) => op.uses(),
        LoweredOp::Pair(_, args) => args.to_vec(),
        LoweredOp::Literal(_) | LoweredOp::Iota(_) => vec![],
    }
}
fn is_folded(op: &LoweredOp) -> bool {
    matches!(op, LoweredOp::Plain(ScalarOp::Folded { .. }))
}

fn live(code: &[Lowered], outputs: &[Reg]) -> Vec<bool> {
    let mut live = vec![false; code.len()];
    outputs.iter().for_each(|r| live[*r as usize] = true);
    for i in (0..code.len()).rev() {
        if live[i] {
            uses(&code[i].op).iter().for_each(|r| live[*r as usize] = true);
        }
    }
    live
}

fn levels(source: &Source<'_>) -> Vec<Level> {
    let Source { code, accesses, domain, .. } = *source;
    let mut levels: Vec<Level> = Vec::new();
    for inst in code {
        let level = match &inst.op {
            LoweredOp::Literal(_) => Level::Constant,
            LoweredOp::Iota(map) => {
                let folds = domain.maps[*map].terms.iter().any(|(a, _)| domain.folds(*a as usize));
                if folds { Level::Step } else { Level::Tile }
            }
            LoweredOp::Plain(ScalarOp::Read(r) | ScalarOp::Valid(r)) => {
                let access = &accesses[*r as usize];
                let uses = |is: &dyn Fn(usize) -> bool| domain.uses(access, accesses, is);
                match (uses(&|a| domain.folds(a)), uses(&|_| true)) {
                    (true, _) => Level::Step,
                    (_, true) => Level::Tile,
                    _ => Level::Constant,
                }
            }
            LoweredOp::Plain(ScalarOp::Folded { .. }) => Level::Tile,
            LoweredOp::Pair(_, args) => args.iter().map(|r| levels[*r as usize]).max().unwrap_or(Level::Constant),
            LoweredOp::Plain(op) => op.uses().iter().map(|r| levels[*r as usize]).max().unwrap_or(Level::Constant),
        };
        levels.push(level);
    }
    levels
}

/// One thread's registers and what they are computed from.
pub(crate) struct Machine<'a> {
    pub(crate) isa: Isa,
    pub(crate) operands: &'a [*const u8],
    layout: &'a Layout,
    scratch: *mut u8,
}

/// Where things lie in a thread's scratch memory.
#[derive(Debug)]
pub(crate) struct Layout {
    /// Offset of each slot.
    slots: Vec<usize>,
    /// Offset of two tables of a pointer per slot: where each register is, and where it is written.
    pointers: usize,
    offsets: usize,
    /// In all.
    pub(crate) bytes: usize,
}

impl Layout {
    pub(crate) fn new(slots: &Slots, depth: usize) -> Self {
        let pointers = slots.bytes;
        let offsets = (pointers + 2 * slots.places.len() * size_of::<*mut u8>()).next_multiple_of(64);
        let bytes = offsets + depth * size_of::<Offsets>();
        Self { slots: slots.places.iter().map(|p| p.1).collect(), pointers, offsets, bytes }
    }
}

impl<'a> Machine<'a> {
    /// Registers in `scratch`, each at home.
    ///
    /// # Safety
    /// `scratch` has [`Layout::bytes`] bytes, aligned to 64, for as long as the machine lives; `operands` are live.
    pub(crate) unsafe fn new(isa: Isa, operands: &'a [*const u8], layout: &'a Layout, scratch: *mut u8) -> Self {
        let machine = Self { isa, operands, layout, scratch };
        for (slot, offset) in layout.slots.iter().enumerate() {
            // SAFETY: the tables of pointers lie in the layout.
            unsafe {
                *machine.pointer(slot as Slot) = scratch.add(*offset);
                machine.write_to(slot as Slot, scratch.add(*offset));
            }
        }
        machine
    }
    unsafe fn pointer(&self, slot: Slot) -> *mut *mut u8 {
        // SAFETY: the table has an entry per slot.
        unsafe { self.scratch.add(self.layout.pointers).cast::<*mut u8>().add(slot as usize) }
    }
    unsafe fn home(&self, slot: Slot) -> *mut *mut u8 {
        // SAFETY: the second table follows the first.
        unsafe { self.pointer(slot).add(self.layout.slots.len()) }
    }
    /// From now on instructions write this register to `place`, which has room for the lanes that run and overlaps no
    /// operand.
    #[inline]
    pub(crate) unsafe fn write_to(&self, slot: Slot, place: *mut u8) {
        // SAFETY: slots are those of the layout.
        unsafe { *self.home(slot) = place }
    }
    /// From now on this register, which nothing writes, is at `place`.
    pub(crate) unsafe fn place(&self, slot: Slot, place: *mut u8) {
        // SAFETY: slots are those of the layout.
        unsafe { *self.pointer(slot) = place }
    }
    /// Where a register is: at home, or in an operand that is read in place.
    #[inline]
    pub(crate) unsafe fn register(&self, slot: Slot) -> *mut u8 {
        // SAFETY: slots are those of the layout.
        unsafe { *self.pointer(slot) }
    }
    pub(crate) fn offsets(&self) -> *mut Offsets {
        self.scratch.wrapping_add(self.layout.offsets).cast()
    }

    /// Runs what never changes.
    pub(crate) unsafe fn constants(&self, program: &Program) {
        let origin: Origin = [0; _];
        // SAFETY: the caller's promise, see `run`.
        unsafe { self.run(program, &program.levels[0], &origin, program.lanes, &mut Ahead::new(None)) }
    }
    /// Runs what changes with the tile.
    pub(crate) unsafe fn tile(&self, program: &Program, origin: &[i64], n: usize, ahead: &mut Ahead) {
        // SAFETY: the caller's promise, see `run`.
        unsafe { self.run(program, &program.levels[1], origin, n, ahead) }
    }
    /// Runs what changes with each step of a fold.
    pub(crate) unsafe fn step(&self, program: &Program, origin: &[i64], n: usize, ahead: &mut Ahead) {
        // SAFETY: the caller's promise, see `run`.
        unsafe { self.run(program, &program.levels[2], origin, n, ahead) }
    }

    /// Runs instructions on the first `n` lanes of the tile at `origin`, which must be a tile of the domain.
    #[inline]
    unsafe fn run(&self, program: &Program, insts: &[Inst], origin: &[i64], n: usize, ahead: &mut Ahead) {
        let cx = Tiles { readers: &program.readers, operands: self.operands, origin, offsets: self.offsets() };
        for inst in insts {
            // SAFETY: slots belong to the layout, hold the types they were taken for, and an instruction's target is
            // none of its arguments; operands are live and tiles lie in the domain that was verified.
            unsafe {
                // A register is at home again after the last that shared its slot was read in place.
                let n = if inst.single { 1 } else { n };
                let to = *self.home(inst.to);
                *self.pointer(inst.to) = to;
                match &inst.what {
                    What::Compute(op, args) => {
                        ahead.fetch_some();
                        lanes::apply(self.isa, *op, to, args.map(|a| self.register(a).cast_const()), n)
                    }
                    What::Read { read, in_place } => {
                        let reader = &program.readers[*read as usize];
                        match if *in_place { reader.in_place(&cx) } else { None } {
                            Some(place) => {
                                *self.pointer(inst.to) = place.cast_mut();
                                if let Some(next) = &ahead.next {
                                    let place_then = reader.place(self.operands, next);
                                    ahead.add(place_then, place, n * reader.dtype.size_bytes(), false);
                                }
                            }
                            None => access::fetch(self.isa, reader, &cx, n, to),
                        }
                    }
                    What::Valid(read) => {
                        access::locate(self.isa, &program.readers[*read as usize], &cx, n);
                        let inside = &(*self.offsets()).inside;
                        to.copy_from_nonoverlapping(inside.as_ptr(), n);
                    }
                    What::Iota(map) => map.write(origin, std::slice::from_raw_parts_mut(to.cast(), n)),
                }
            }
        }
    }
}
