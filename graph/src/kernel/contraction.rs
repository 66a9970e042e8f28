//! Contractions: nests that sum the products of two reads. Matrix products, convolutions and both their gradients are of
//! this one sort, and devices run them their own way.
//!
//! What comes after the sum is not part of the sort. An element-wise kernel that reads a contraction's result point by
//! point can be written into its epilogue ([`Kernel::with_reader`]), and taken out again ([`LoopNest::parted`]) by a
//! device that cannot run both at once. Neither changes a bit: programs round every operation, stored or not.

use super::affine::{Affine, Coord};
use super::group::{Group, Member, Passed};
use super::inline::{is_index, moved};
use super::nest::{Axis, LoopNest, Monoid, Read, Write};
use super::rewrite::{flat, moving};
use super::scalar::{Binary, Inst, Literal, Reg, Scalar, ScalarOp};
use super::{BufferType, Kernel};
use crate::types::DType;

/// What a contraction sums.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Contraction {
    /// The two reads whose products are summed.
    pub factors: [usize; 2],
    /// The registers of the body that are multiplied: those reads, or what they are in the sum's type.
    pub multiplied: [Reg; 2],
    /// Type of the products and of their sum.
    pub dtype: DType,
}

impl LoopNest {
    /// The sum of products of floats that this nest is, whatever follows the sum.
    pub fn contraction(&self) -> Option<Contraction> {
        let ([fold], [_]) = (&self.folds[..], &self.writes[..]) else { return None };
        let op = |r: Reg| self.body.insts.get(usize::from(r)).map(|i| &i.op);
        let ScalarOp::Binary(Binary::Mul, x, y) = op(*fold.inputs.first()?)? else { return None };
        // Halves are made f32 on the way.
        let read = |r: Reg| match op(r)? {
            ScalarOp::Cast(from) if fold.dtype == DType::F32 && self.body.dtype(*from).accumulator() == DType::F32 => {
                op(*from)
            }
            op => Some(op),
        };
        let (ScalarOp::Read(a), ScalarOp::Read(b)) = (read(*x)?, read(*y)?) else { return None };
        // A sum of squares is no product of two matrices.
        let sums = fold.monoid == Monoid::Sum && fold.dtype.is_float() && a != b;
        let factors = [usize::from(*a), usize::from(*b)];
        sums.then_some(Contraction { factors, multiplied: [*x, *y], dtype: fold.dtype })
    }

    /// Whether the sum is written as it is.
    pub fn is_bare_sum(&self) -> bool {
        let is_sum = |w: &Write| {
            let inst = self.epilogue.insts.get(usize::from(w.value));
            matches!(inst, Some(Inst { op: ScalarOp::Folded { .. }, .. }))
        };
        self.folds.len() == 1 && self.writes.iter().all(is_sum)
    }

    /// The two nests that a contraction with an epilogue is: the bare sum, and what becomes of it. The second has the
    /// first's result as its last operand, may write in its place, and has the others as this nest has them.
    pub fn parted(&self) -> Option<(LoopNest, LoopNest)> {
        let sum = self.contraction()?;
        if self.results[0].dtype == sum.dtype { self.parts(sum) } else { None }
    }

    /// The same, where the first nest's result is of the sum's type, whatever becomes of it.
    fn parts(&self, sum: Contraction) -> Option<(LoopNest, LoopNest)> {
        let write = self.writes.first()?;
        let sums = BufferType { dtype: sum.dtype, ..self.results[0].clone() };
        let mut bare = self.clone();
        bare.results[0] = sums.clone();
        let mut epilogue = Scalar::default();
        let value = epilogue.push(Inst { dtype: sum.dtype, op: ScalarOp::Folded { fold: 0, part: 0 } });
        bare.epilogue = epilogue;
        bare.writes[0].value = value;
        bare.tidy();

        let mut then = self.clone();
        let (operand, read) = (self.operands.len() as u16, self.reads.len() as u16);
        then.operands.push(sums);
        let coords = write.coords.iter().cloned().map(Coord::Affine).collect();
        then.reads.push(Read { operand, coords, fill: None });
        then.axes.retain(|a| !a.fold);
        (then.body, then.folds) = (Scalar::default(), vec![]);
        let sums = then.epilogue.insts.iter_mut().filter(|i| matches!(i.op, ScalarOp::Folded { .. }));
        sums.for_each(|i| i.op = ScalarOp::Read(read));
        then.tidy();
        Some((bare, then))
    }

    /// A contraction of halves as nests that run one after the other: its factors made f32, their contraction, and what
    /// becomes of the sums. For devices that multiply f32; no bit is another. `None` for what is no contraction of
    /// halves, or looks at a factor once more after the sum.
    pub fn widened(&self) -> Option<Group> {
        let sum = self.contraction()?;
        let mut halves = sum.factors.map(|read| usize::from(self.reads[read].operand)).to_vec();
        halves.retain(|o| self.operands[*o].dtype != sum.dtype);
        halves.dedup();
        let read_later = |inst: &Inst| match inst.op {
            ScalarOp::Read(k) | ScalarOp::Valid(k) => halves.contains(&self.reads[usize::from(k)].operand.into()),
            _ => false,
        };
        if halves.is_empty() || self.epilogue.insts.iter().any(read_later) {
            return None;
        }
        let (mut product, then) = self.parts(sum)?;
        let mut body = Scalar::default();
        let factors = sum.factors.map(|read| body.push(Inst { dtype: sum.dtype, op: ScalarOp::Read(read as u16) }));
        let value = body.push(Inst { dtype: sum.dtype, op: ScalarOp::Binary(Binary::Mul, factors[0], factors[1]) });
        (product.reads, product.body, product.folds[0].inputs) = (self.reads.clone(), body, vec![value]);
        product.tidy();

        let passed = |i: usize| Passed::Operand(i as u16);
        let mut group = Group {
            operands: self.operands.clone(),
            results: self.results.clone(),
            locals: vec![],
            rows: vec![],
            members: vec![],
        };
        let mut reads: Vec<Passed> = (0..self.operands.len()).map(passed).collect();
        for operand in halves {
            let from =
                BufferType { shape: vec![self.operands[operand].checked_len()?], ..self.operands[operand].clone() };
            let to = BufferType { dtype: sum.dtype, ..from.clone() };
            product.operands[operand].dtype = sum.dtype;
            let local = Passed::Local(group.locals.len() as u16);
            group.locals.push(to.clone());
            group.members.push(Member {
                nest: LoopNest::copy(from, to),
                reads: vec![passed(operand)],
                writes: vec![local],
            });
            reads[operand] = local;
        }
        let sums = Passed::Local(group.locals.len() as u16);
        group.locals.push(product.results[0].clone());
        group.members.push(Member { nest: product, reads, writes: vec![sums] });
        let reads = (0..self.operands.len()).map(passed).chain([sums]).collect();
        group.members.push(Member { nest: then, reads, writes: vec![Passed::Result(0)] });
        Some(group)
    }
}

impl Kernel {
    /// This contraction with `reader`, which reads its result as operand `operand`, written into its epilogue. Operands
    /// are this kernel's, then the reader's others. `None` unless the reader looks at every element of the result once,
    /// writes what a sum can stand in the place of, and reads nothing else but by affine coordinates.
    pub fn with_reader(&self, reader: &Kernel, operand: usize) -> Option<Kernel> {
        let (Kernel::Nest(from), Kernel::Nest(into)) = (self, reader) else { return None };
        let ([source], [result], [_]) = (&from.writes[..], &into.results[..], &into.writes[..]) else { return None };
        let dtype = from.contraction()?.dtype;
        let whole = |axes: &[Axis]| axes.iter().all(|a| a.origin == 0 && a.extent == a.whole && a.extent > 0);
        let fits = into.folds.is_empty()
            && [from.results[0].dtype, result.dtype] == [dtype; 2]
            && from.results[0].checked_len() == into.operands[operand].checked_len()
            && whole(&from.axes)
            && whole(&into.axes);
        let plain = |r: &Read| r.fill.is_none() && r.coords.iter().all(|c| matches!(c, Coord::Affine(_)));
        let mut looks = (0..into.reads.len()).filter(|k| usize::from(into.reads[*k].operand) == operand);
        let (Some(look), None) = (looks.next(), looks.next()) else { return None };
        if !fits || !into.reads.iter().all(plain) || is_index(&into.reads, look) {
            return None;
        }

        let parallel = from.parallel_axes();
        let seen: Vec<Affine> = into.reads[look].coords.iter().filter_map(|c| c.index().cloned()).collect();
        let mine = Digits::of(&source.coords, &from.results[0], &from.axes[..parallel])?;
        let theirs = Digits::of(&seen, &into.operands[operand], &into.axes)?;
        let common = Common::of(&mine, &theirs)?;
        let (mut nest, into) =
            (from.on_axes(&common.extents, &common.mine), into.on_axes(&common.extents, &common.theirs));

        let (reads, operands) = (nest.reads.len() as u16, nest.operands.len() as u16);
        let (own, mut now) = (nest.writes[0].value, Vec::<Reg>::new());
        for inst in &into.epilogue.insts {
            let is_sum = |read: u16| usize::from(read) == look;
            let op = match inst.op.on(|r| now[usize::from(r)]) {
                ScalarOp::Read(k) if is_sum(k) => {
                    now.push(own);
                    continue;
                }
                // It was read without a fill: it is inside.
                ScalarOp::Valid(k) if is_sum(k) => ScalarOp::Literal(Literal::Int(1)),
                ScalarOp::Read(k) => ScalarOp::Read(reads + k),
                ScalarOp::Valid(k) => ScalarOp::Valid(reads + k),
                op => op,
            };
            now.push(nest.epilogue.push(Inst { dtype: inst.dtype, op }));
        }
        let moved = |r: &Read| Read { operand: operands + r.operand, ..r.clone() };
        nest.reads.extend(into.reads.iter().map(moved));
        nest.operands.extend(into.operands);
        nest.results = into.results;
        nest.writes = into.writes;
        nest.writes[0].value = now[usize::from(nest.writes[0].value)];
        nest.tidy();
        nest.drop_operand(usize::from(operands) + operand);
        Some(Kernel::Nest(nest))
    }
}

/// The axes of a nest as digits of a row-major position, from the last: each point has a position of its own, and
/// every position a point.
struct Digits {
    /// Axis and extent, without axes of one point.
    axes: Vec<(usize, u64)>,
    /// Axes that there are in all.
    count: usize,
}

impl Digits {
    /// Of the position at `coords` in a buffer, if the `axes` are that.
    fn of(coords: &[Affine], ty: &BufferType, axes: &[Axis]) -> Option<Self> {
        let position = moving(flat(coords, ty), axes);
        let mut terms = position.terms;
        terms.sort_by_key(|(_, c)| *c);
        let mut below = 1u64;
        let mut digits = Vec::with_capacity(terms.len());
        for (axis, c) in terms {
            let extent = axes[usize::from(axis)].extent;
            if u64::try_from(c) != Ok(below) {
                return None;
            }
            below = below.checked_mul(extent)?;
            digits.push((usize::from(axis), extent));
        }
        let whole = position.offset == 0
            && Some(below) == ty.checked_len()
            && digits.len() == axes.iter().filter(|a| a.extent > 1).count();
        whole.then_some(Self { axes: digits, count: axes.len() })
    }
}

/// Axes that those of two nests are made of, where a position means the same in both: a tensor of `[6, 4]` that is read
/// as `[2, 3, 4]` has the axes of the latter.
struct Common {
    extents: Vec<u64>,
    /// Each axis of the one nest as a map of the common ones, and each of the other.
    mine: Vec<Affine>,
    theirs: Vec<Affine>,
}

impl Common {
    /// `None` where digits do not nest. The order is that of the other's axes, outermost first.
    fn of(mine: &Digits, theirs: &Digits) -> Option<Self> {
        // Per piece of the position: its extent and, for either nest, its axis and its step along it.
        let mut pieces: Vec<(u64, [(usize, u64); 2])> = Vec::new();
        let mut left = [mine, theirs].map(|d| d.axes.iter().copied().peekable());
        let mut steps = [1u64; 2];
        while let (Some((a, n)), Some((b, m))) = (left[0].peek().copied(), left[1].peek().copied()) {
            let rests = [n / steps[0], m / steps[1]];
            let piece = rests[0].min(rests[1]);
            if rests.iter().any(|r| r % piece != 0) {
                return None;
            }
            pieces.push((piece, [(a, steps[0]), (b, steps[1])]));
            for side in 0..2 {
                steps[side] *= piece;
                if rests[side] == piece {
                    left[side].next();
                    steps[side] = 1;
                }
            }
        }
        pieces.sort_by_key(|(_, [_, (axis, step)])| (*axis, std::cmp::Reverse(*step)));
        let maps = |side: usize, count: usize| {
            let mut maps = vec![Affine::default(); count];
            for (i, (_, of)) in pieces.iter().enumerate() {
                let (axis, step) = of[side];
                maps[axis] = maps[axis].clone() + Affine::axis(i as u16).scaled(step as i64);
            }
            maps
        };
        let (mine, theirs) = (maps(0, mine.count), maps(1, theirs.count));
        Some(Self { extents: pieces.into_iter().map(|p| p.0).collect(), mine, theirs })
    }
}

impl LoopNest {
    /// The same nest over parallel axes of these `extents`: `by` gives each of its own as a map of them. Fold axes
    /// follow as they were.
    fn on_axes(&self, extents: &[u64], by: &[Affine]) -> LoopNest {
        let parallel = self.parallel_axes();
        let folded = (0..self.axes.len() - parallel).map(|i| Affine::axis((extents.len() + i) as u16));
        let by: Vec<Affine> = by.iter().cloned().chain(folded).collect();
        let mut nest = self.clone();
        nest.axes = extents.iter().map(|e| Axis::new(*e, false)).chain(self.axes[parallel..].iter().cloned()).collect();
        nest.reads = self.reads.iter().map(|r| moved(r, &by, 0, 0)).collect();
        let (body, epilogue) = (with_indices(&mut nest.body, &by), with_indices(&mut nest.epilogue, &by));
        nest.folds.iter_mut().flat_map(|f| &mut f.inputs).for_each(|r| *r = body[usize::from(*r)]);
        for write in &mut nest.writes {
            write.value = epilogue[usize::from(write.value)];
            write.coords.iter_mut().for_each(|c| *c = c.substituted(&by));
        }
        nest
    }
}

/// Rewrites `program` with each index as a map of new ones; gives the new register of each old one.
fn with_indices(program: &mut Scalar, by: &[Affine]) -> Vec<Reg> {
    let (mut new, mut now) = (Scalar::default(), Vec::<Reg>::new());
    for inst in &program.insts {
        now.push(match &inst.op {
            ScalarOp::Index(axis) => new.push_affine(&by[usize::from(*axis)]),
            op => new.push(Inst { dtype: inst.dtype, op: op.on(|r| now[usize::from(r)]) }),
        });
    }
    *program = new;
    now
}
