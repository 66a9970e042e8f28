//! A producer written into its reader: the reader computes what it would have read. Exact, because scalar programs round
//! every operation to its own type, stored or not. Whether it is worth it is for lowering to say.

use super::affine::{Affine, Coord};
use super::nest::{LoopNest, Read};
use super::scalar::{Inst, Literal, Reg, Scalar, ScalarOp};
use super::{Kernel, nest::Axis};
use crate::types::DType;

impl Kernel {
    /// This kernel with operand `operand` computed in place by `producer`, whose operands come after the others. `None`
    /// unless both are nests, the producer is element-wise over exactly that operand, and every read of it is plain.
    pub fn with_producer(&self, operand: usize, producer: &Kernel) -> Option<Kernel> {
        let (Kernel::Nest(into), Kernel::Nest(from)) = (self, producer) else { return None };
        let [write] = &from.writes[..] else { return None };
        let in_order = write.coords.iter().enumerate().all(|(d, c)| c.as_axis() == Some(d as u16));
        let whole = |axes: &[Axis]| axes.iter().all(|a| a.origin == 0 && a.extent == a.whole);
        let fits = from.folds.is_empty()
            && in_order
            && write.coords.len() == from.axes.len()
            && from.results[0] == into.operands[operand]
            && whole(&into.axes)
            && whole(&from.axes);
        if !fits {
            return None;
        }
        let mut nest = into.clone();
        nest.operands.extend(from.operands.iter().cloned());
        let mut splice = Splice { from, value: write.value, replaced: vec![None; into.reads.len()] };
        for (k, read) in into.reads.iter().enumerate() {
            if read.operand as usize != operand {
                continue;
            }
            let plain = |c: &Coord| if let Coord::Affine(a) = c { Some(a.clone()) } else { None };
            let at: Vec<Affine> = read.coords.iter().map(plain).collect::<Option<_>>()?;
            if read.fill.is_some() || is_index(&into.reads, k) {
                return None;
            }
            let base = nest.reads.len() as u16;
            nest.reads.extend(from.reads.iter().map(|r| moved(r, &at, base, into.operands.len() as u16)));
            splice.replaced[k] = Some((base, at));
        }
        let body = splice.rewrite(&mut nest.body);
        let epilogue = splice.rewrite(&mut nest.epilogue);
        nest.folds.iter_mut().flat_map(|f| &mut f.inputs).for_each(|r| *r = body[*r as usize]);
        nest.writes.iter_mut().for_each(|w| w.value = epilogue[w.value as usize]);
        nest.tidy();
        nest.drop_operand(operand);
        Some(Kernel::Nest(nest))
    }

    /// This nest with operand `drop`, the same tensor as operand `keep`, read as that one.
    pub fn with_shared_operand(&self, keep: usize, drop: usize) -> Option<Kernel> {
        let Kernel::Nest(nest) = self else { return None };
        if nest.operands[keep] != nest.operands[drop] {
            return None;
        }
        let mut nest = nest.clone();
        nest.reads.iter_mut().filter(|r| r.operand as usize == drop).for_each(|r| r.operand = keep as u16);
        nest.tidy();
        nest.drop_operand(drop);
        Some(Kernel::Nest(nest))
    }
}

/// Whether another read takes its coordinate from read `k`.
pub(super) fn is_index(reads: &[Read], k: usize) -> bool {
    reads.iter().flat_map(|r| &r.coords).any(|c| matches!(c, Coord::Value { read, .. } if *read as usize == k))
}

/// A read of the producer where the reader reads its result at `at`.
pub(super) fn moved(read: &Read, at: &[Affine], base: u16, operands: u16) -> Read {
    let coord = |c: &Coord| match c {
        Coord::Affine(i) => Coord::Affine(i.substituted(at)),
        Coord::Holes { index, step } => Coord::Holes { index: index.substituted(at), step: *step },
        Coord::Digit { index, divide, modulo } => {
            Coord::Digit { index: index.substituted(at), divide: *divide, modulo: *modulo }
        }
        Coord::Value { read, beyond } => Coord::Value { read: base + read, beyond: *beyond },
    };
    Read { operand: operands + read.operand, coords: read.coords.iter().map(coord).collect(), fill: read.fill }
}

/// Puts the producer's program in the place of reads of its result.
struct Splice<'a> {
    from: &'a LoopNest,
    value: Reg,
    /// Per read of the reader: where the producer's reads begin, and where its result was read.
    replaced: Vec<Option<(u16, Vec<Affine>)>>,
}

impl Splice<'_> {
    /// Rewrites `program`; gives the new register of each old one.
    fn rewrite(&self, program: &mut Scalar) -> Vec<Reg> {
        let mut new = Scalar::default();
        let mut now: Vec<Reg> = Vec::new();
        for inst in &program.insts {
            let reg = match &inst.op {
                ScalarOp::Read(k) | ScalarOp::Valid(k) => match (&self.replaced[*k as usize], &inst.op) {
                    (None, _) => new.push(inst.clone()),
                    // It was read without a fill: it is inside.
                    (Some(_), ScalarOp::Valid(_)) => {
                        new.push(Inst { dtype: DType::Bool, op: ScalarOp::Literal(Literal::Int(1)) })
                    }
                    (Some((base, at)), _) => self.compute(&mut new, *base, at),
                },
                op => new.push(Inst { dtype: inst.dtype, op: op.on(|r| now[r as usize]) }),
            };
            now.push(reg);
        }
        *program = new;
        now
    }
    fn compute(&self, to: &mut Scalar, base: u16, at: &[Affine]) -> Reg {
        let mut now: Vec<Reg> = Vec::new();
        for inst in &self.from.epilogue.insts {
            let reg = match &inst.op {
                ScalarOp::Index(axis) => to.push_affine(&at[*axis as usize]),
                ScalarOp::Read(k) => to.push(Inst { dtype: inst.dtype, op: ScalarOp::Read(base + k) }),
                ScalarOp::Valid(k) => to.push(Inst { dtype: inst.dtype, op: ScalarOp::Valid(base + k) }),
                op => to.push(Inst { dtype: inst.dtype, op: op.on(|r| now[r as usize]) }),
            };
            now.push(reg);
        }
        now[self.value as usize]
    }
}

impl LoopNest {
    /// Merges equal reads, drops those that nothing looks at, and lets equal instructions meet.
    pub(super) fn tidy(&mut self) {
        // Reads in order: one that others take coordinates from comes before them.
        let mut used = vec![false; self.reads.len()];
        let looks = self.body.insts.iter().chain(&self.epilogue.insts);
        for inst in looks {
            if let ScalarOp::Read(k) | ScalarOp::Valid(k) = inst.op {
                used[k as usize] = true;
            }
        }
        for k in (0..self.reads.len()).rev() {
            let indices = self.reads[k].coords.iter().filter_map(|c| match c {
                Coord::Value { read, .. } if used[k] => Some(*read as usize),
                _ => None,
            });
            indices.collect::<Vec<_>>().into_iter().for_each(|i| used[i] = true);
        }
        let mut kept: Vec<Read> = Vec::new();
        let mut now = vec![0u16; self.reads.len()];
        for (k, read) in self.reads.iter().enumerate().filter(|(k, _)| used[*k]) {
            let mut read = read.clone();
            for coord in &mut read.coords {
                if let Coord::Value { read, .. } = coord {
                    *read = now[*read as usize];
                }
            }
            let twin = kept.iter().position(|r| *r == read);
            now[k] = twin.unwrap_or_else(|| {
                kept.push(read);
                kept.len() - 1
            }) as u16;
        }
        self.reads = kept;
        let body = renumber_reads(&mut self.body, &now);
        let epilogue = renumber_reads(&mut self.epilogue, &now);
        self.folds.iter_mut().flat_map(|f| &mut f.inputs).for_each(|r| *r = body[*r as usize]);
        self.writes.iter_mut().for_each(|w| w.value = epilogue[w.value as usize]);
    }
    /// Drops an operand that is no longer read.
    pub(super) fn drop_operand(&mut self, operand: usize) {
        self.operands.remove(operand);
        self.reads.iter_mut().for_each(|r| r.operand -= u16::from(r.operand as usize > operand));
    }
}

fn renumber_reads(program: &mut Scalar, now: &[u16]) -> Vec<Reg> {
    let mut new = Scalar::default();
    let mut regs: Vec<Reg> = Vec::new();
    for inst in &program.insts {
        let op = match inst.op.on(|r| regs[r as usize]) {
            ScalarOp::Read(k) => ScalarOp::Read(now[k as usize]),
            ScalarOp::Valid(k) => ScalarOp::Valid(now[k as usize]),
            op => op,
        };
        regs.push(new.push(Inst { dtype: inst.dtype, op }));
    }
    *program = new;
    regs
}
