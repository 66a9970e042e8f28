//! Questions and changes that lowering needs of kernels: may it write in place, does it only relabel, does it yield one
//! number everywhere, is it element-wise over flat memory. All derived from the text of the nest, none declared.

use super::affine::{Affine, Coord};
use super::nest::{Axis, Monoid};
use super::scalar::{Binary, Inst, Literal, ScalarOp};
use super::{BufferType, Kernel};

impl Kernel {
    /// Whether result `result` may lie at exactly the address of operand `operand`: they have the same size, nothing is
    /// folded, and every point reads that operand only where it writes that result. A scatter may update what it starts
    /// from; a group may write over an operand whose row has been read.
    pub fn may_write_in_place(&self, result: usize, operand: usize) -> bool {
        let nest = match self {
            Kernel::Nest(nest) => nest,
            Kernel::Group(group) => return group.may_write_in_place(result, operand),
            Kernel::Scatter(s) => {
                let starts = s.init.map(usize::from) == Some(operand);
                return starts && s.reads.iter().all(|r| r.operand as usize != operand);
            }
            Kernel::Attention(_) | Kernel::AttentionGrad(_) => return false,
        };
        let (Some(from), Some(to)) = (nest.operands.get(operand), nest.results.get(result)) else { return false };
        let Some(write) = nest.writes.iter().find(|w| w.result as usize == result) else { return false };
        let same_place = |written: &Affine, coords: &[Coord]| {
            let inside = |(c, extent): (&Coord, &u64)| match c {
                Coord::Affine(i) => i.range(&nest.axes).is_some_and(|(low, high)| low >= 0 && (high as u64) < *extent),
                _ => false,
            };
            let affine: Vec<Affine> = coords.iter().filter_map(|c| c.index().cloned()).collect();
            from.is_empty()
                || coords.iter().zip(&from.shape).all(inside) && moving(flat(&affine, from), &nest.axes) == *written
        };
        let written = moving(flat(&write.coords, to), &nest.axes);
        nest.folds.is_empty()
            && from.dtype.size_bytes() == to.dtype.size_bytes()
            && from.checked_len() == to.checked_len()
            && nest.reads.iter().filter(|r| r.operand as usize == operand).all(|r| same_place(&written, &r.coords))
    }

    /// Whether its one result is its one operand's elements in row-major order, all of them and nothing else: a reshape,
    /// which moves nothing. The first rows of a matrix lie where they should, and yet they are not the matrix.
    pub fn only_relabels(&self) -> bool {
        let Kernel::Nest(nest) = self else { return false };
        let ([operand], [result], [read], [write]) =
            (&nest.operands[..], &nest.results[..], &nest.reads[..], &nest.writes[..])
        else {
            return false;
        };
        let copies = matches!(&nest.epilogue.insts[..], [Inst { op: ScalarOp::Read(0), .. }]);
        if !copies || !nest.folds.is_empty() || operand.dtype != result.dtype {
            return false;
        }
        if operand.checked_len() != result.checked_len() || read.fill.is_some() {
            return false;
        }
        if operand.is_empty() {
            return true;
        }
        let Some(from) = flat_read(&read.coords, operand, &nest.axes) else { return false };
        moving(flat(&write.coords, result), &nest.axes) == moving(from, &nest.axes)
    }

    /// Whether each element of its one result is a sum of one element of its one operand, in the same order: what a leaf has
    /// of a sum whose terms are a leaf's each. It is its operand, but for the sign of a zero.
    pub fn sums_single_terms(&self) -> bool {
        let Kernel::Nest(nest) = self else { return false };
        let [fold] = &nest.folds[..] else { return false };
        let [Inst { op: ScalarOp::Read(0), dtype }] = nest.body.insts[..] else { return false };
        let once = nest.axes.iter().filter(|a| a.fold).all(|a| a.extent == 1);
        let same = fold.monoid == Monoid::Sum && fold.dtype == dtype;
        let kept = match &nest.epilogue.insts[..] {
            [Inst { op: ScalarOp::Folded { .. }, .. }] => true,
            [Inst { op: ScalarOp::Folded { .. }, .. }, zero, Inst { op: ScalarOp::Binary(Binary::Add, 0, 1), .. }] => {
                matches!(&zero.op, ScalarOp::Literal(x) if x.as_f64() == 0.0)
            }
            _ => false,
        };
        if !(once && same && kept) || nest.writes.iter().any(|w| usize::from(w.value) + 1 != nest.epilogue.insts.len())
        {
            return false;
        }
        let mut moved = nest.clone();
        moved.folds.clear();
        moved.epilogue = std::mem::take(&mut moved.body);
        Kernel::Nest(moved).only_relabels()
    }

    /// The number that its one result holds everywhere, if it reads nothing.
    pub fn literal(&self) -> Option<Literal> {
        let Kernel::Nest(nest) = self else { return None };
        match (&nest.operands[..], &nest.results[..], &nest.epilogue.insts[..]) {
            ([], [_], [Inst { op: ScalarOp::Literal(x), .. }]) => Some(*x),
            _ => None,
        }
    }

    /// The kernel with operand `operand`, known to hold `value` everywhere, gone; later operands move up. `None` where
    /// that operand cannot be replaced by a number (it is an index, what a scatter starts from, or a matrix of attention).
    pub fn with_literal(&self, operand: usize, value: Literal) -> Option<Kernel> {
        let mut kernel = self.clone();
        let (operands, reads, programs) = match &mut kernel {
            Kernel::Nest(n) => (&mut n.operands, &mut n.reads, vec![&mut n.body, &mut n.epilogue]),
            Kernel::Scatter(s) => {
                match &mut s.init {
                    Some(init) if *init as usize == operand => return None,
                    Some(init) if *init as usize > operand => *init -= 1,
                    _ => {}
                }
                if s.at.iter().any(|c| matches!(c, Coord::Value { .. })) {
                    return None;
                }
                (&mut s.operands, &mut s.reads, vec![&mut s.body])
            }
            // Lowering forms groups after constants have found their readers.
            Kernel::Group(_) => return None,
            Kernel::Attention(_) | Kernel::AttentionGrad(_) => return None,
        };
        let gone: Vec<bool> = reads.iter().map(|r| r.operand as usize == operand).collect();
        let is_index = reads
            .iter()
            .flat_map(|r| &r.coords)
            .any(|c| matches!(c, Coord::Value { read, .. } if gone[*read as usize]));
        let filled = reads.iter().zip(&gone).any(|(r, g)| *g && r.fill.is_some());
        if is_index || filled {
            return None;
        }
        let renumbered = |k: u16| k - gone[..k as usize].iter().filter(|g| **g).count() as u16;
        for program in programs {
            for inst in &mut program.insts {
                match &mut inst.op {
                    ScalarOp::Read(k) if gone[*k as usize] => inst.op = ScalarOp::Literal(value.to(inst.dtype)),
                    ScalarOp::Valid(k) if gone[*k as usize] => inst.op = ScalarOp::Literal(Literal::Int(1)),
                    ScalarOp::Read(k) | ScalarOp::Valid(k) => *k = renumbered(*k),
                    _ => {}
                }
            }
        }
        let mut k = 0;
        reads.retain(|_| (!gone[k], k += 1).0);
        for read in reads.iter_mut() {
            read.operand -= u16::from(read.operand as usize > operand);
            for coord in &mut read.coords {
                if let Coord::Value { read, .. } = coord {
                    *read = renumbered(*read);
                }
            }
        }
        operands.remove(operand);
        Some(kernel)
    }

    /// The same element-wise kernel over `n` elements in a row, if it is element-wise: every operand is read either
    /// where the results are written or, having one element, at that one; and no index is looked at.
    pub fn flattened(&self, n: u64) -> Option<Kernel> {
        let Kernel::Nest(nest) = self else { return None };
        let shape = &nest.results.first()?.shape;
        let looks = |i: &Inst| matches!(i.op, ScalarOp::Index(_) | ScalarOp::Valid(_));
        if !nest.folds.is_empty()
            || nest.epilogue.insts.iter().any(looks)
            || nest.results.iter().any(|r| r.shape != *shape)
        {
            return None;
        }
        let identity = |coords: &[Affine]| {
            coords
                .iter()
                .zip(shape)
                .enumerate()
                .all(|(d, (c, e))| c.as_axis() == Some(d as u16) || (*e == 1 && c.terms.is_empty()))
        };
        let mut flat = nest.clone();
        flat.axes = vec![Axis::new(n, false)];
        for (read, was) in flat.reads.iter_mut().zip(&nest.reads) {
            let operand = &nest.operands[was.operand as usize];
            let plain: Vec<Affine> = was
                .coords
                .iter()
                .map(|c| if let Coord::Affine(a) = c { Some(a.clone()) } else { None })
                .collect::<Option<_>>()?;
            if operand.shape == *shape && identity(&plain) {
                read.coords = vec![Coord::Affine(Affine::axis(0))];
            } else if operand.len() == 1 {
                read.coords = vec![Coord::Affine(Affine::constant(0))];
            } else {
                return None;
            }
            read.fill = None;
        }
        for (operand, was) in flat.operands.iter_mut().zip(&nest.operands) {
            operand.shape = vec![if was.shape == *shape { n } else { 1 }];
        }
        for write in &mut flat.writes {
            if !identity(&write.coords) {
                return None;
            }
            write.coords = vec![Affine::axis(0)];
        }
        flat.results.iter_mut().for_each(|r| r.shape = vec![n]);
        Some(Kernel::Nest(flat))
    }
}

/// The row-major position of a place as an affine map.
pub(super) fn flat(coords: &[Affine], of: &BufferType) -> Affine {
    coords.iter().zip(of.strides()).fold(Affine::constant(0), |sum, (c, s)| sum + c.clone().scaled(s))
}

/// Without the axes that never move.
pub(super) fn moving(mut position: Affine, axes: &[Axis]) -> Affine {
    position.terms.retain(|(a, _)| axes[*a as usize].extent > 1);
    position
}

/// The row-major position of a read as an affine map, where it is one.
fn flat_read(coords: &[Coord], from: &BufferType, axes: &[Axis]) -> Option<Affine> {
    let strides = from.strides();
    // All coordinates are digits of one position: together they are that position.
    if let Some(Coord::Digit { index, .. }) = coords.first() {
        let whole = coords.iter().zip(&from.shape).zip(&strides).all(|((c, extent), stride)| {
            matches!(c, Coord::Digit { index: i, divide, modulo } if i == index && *divide as i64 == *stride && modulo == extent)
        });
        let fits =
            index.range(axes).is_some_and(|(low, high)| low >= 0 && (high as u64) < from.checked_len().unwrap_or(0));
        return (whole && fits).then(|| index.clone());
    }
    let plain = |c: &Coord| if let Coord::Affine(a) = c { Some(a.clone()) } else { None };
    Some(flat(&coords.iter().map(plain).collect::<Option<Vec<_>>>()?, from))
}
