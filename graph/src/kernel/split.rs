//! Nests that compute less: for devices whose launches name so many buffers and no more. A nest of several results is as
//! many nests of one; a nest of many operands is two, of which the first makes a value that the second reads. Both mean
//! what the one meant, number by number: values are kept in the type in which they were computed.

use std::collections::BTreeSet;

use super::BufferType;
use super::affine::{Affine, Coord};
use super::nest::{Fold, LoopNest, Read};
use super::scalar::{Reg, Scalar, ScalarOp};
use crate::types::DType;

/// A nest, and which operands of the one that it was made from it has.
pub type Less = (LoopNest, Vec<usize>);

impl LoopNest {
    /// A nest per result, with the operands that it needs.
    pub fn by_result(&self) -> Vec<Less> {
        let only = |r: usize| {
            let mut one = self.clone();
            one.results = vec![self.results[r].clone()];
            one.writes.retain(|w| usize::from(w.result) == r);
            one.writes.iter_mut().for_each(|w| w.result = 0);
            one.pruned()
        };
        (0..self.results.len()).map(only).collect()
    }

    /// Two nests: the first makes a value over the parallel axes, which the second reads as its last operand in the place
    /// of what it was made from. The first names at most `buffers` buffers; the second names fewer than this one. `None`
    /// if there is no such value.
    pub fn in_two(&self, buffers: usize) -> Option<[Less; 2]> {
        let axes = self.parallel_axes();
        let extents: Vec<u64> = self.axes[..axes].iter().map(|a| a.extent).collect();
        let at: Vec<Affine> = (0..axes).map(|a| Affine::axis(a as u16)).collect();
        // What is at a point of the axes here is at that point of the value.
        let uncut = self.axes.iter().all(|a| a.origin == 0 && a.extent == a.whole);
        let cut = |value: Reg| {
            let dtype = self.epilogue.dtype(value);
            let made = BufferType { dtype, shape: extents.clone() };
            let mut first = self.clone();
            first.results = vec![made.clone()];
            first.writes = vec![super::Write { result: 0, value, coords: at.clone() }];
            let mut second = self.clone();
            second.operands.push(made);
            let coords = at.iter().cloned().map(Coord::Affine).collect();
            second.reads.push(Read { operand: self.operands.len() as u16, coords, fill: None });
            second.epilogue.insts[usize::from(value)].op = ScalarOp::Read(self.reads.len() as u16);
            Some([first.pruned(), second.pruned()])
        };
        let whole = self.operands.len();
        let fits = |[(first, _), (second, _)]: &[Less; 2]| {
            first.operands.len() < buffers && second.operands.len() < whole && first.operands.len() < whole
        };
        // Tensors of f64 are what devices have least of.
        let values = (0..self.epilogue.insts.len() as Reg).filter(|r| self.epilogue.dtype(*r) != DType::F64);
        values.filter(|_| uncut).filter_map(cut).filter(fits).min_by_key(|[_, (second, _)]| second.operands.len())
    }

    /// Without what no write needs.
    fn pruned(mut self) -> Less {
        let wanted: Vec<Reg> = self.writes.iter().map(|w| w.value).collect();
        let (epilogue, at) = needed(&self.epilogue, &wanted);
        self.writes.iter_mut().for_each(|w| w.value = at[usize::from(w.value)]);
        self.epilogue = epilogue;

        let mut folds: Vec<Fold> = vec![];
        let mut fold_at = vec![0u16; self.folds.len()];
        for (k, fold) in std::mem::take(&mut self.folds).into_iter().enumerate() {
            let reads_it = |op: &ScalarOp| matches!(op, ScalarOp::Folded { fold, .. } if usize::from(*fold) == k);
            if self.epilogue.insts.iter().any(|i| reads_it(&i.op)) {
                fold_at[k] = folds.len() as u16;
                folds.push(fold);
            }
        }
        let inputs: Vec<Reg> = folds.iter().flat_map(|f| f.inputs.iter().copied()).collect();
        let (body, at) = needed(&self.body, &inputs);
        folds.iter_mut().flat_map(|f| &mut f.inputs).for_each(|r| *r = at[usize::from(*r)]);
        (self.folds, self.body) = (folds, body);

        let mut looked: BTreeSet<u16> = BTreeSet::new();
        for inst in self.body.insts.iter().chain(&self.epilogue.insts) {
            if let ScalarOp::Read(k) | ScalarOp::Valid(k) = inst.op {
                looked.insert(k);
            }
        }
        // A coordinate that is a value is another, earlier read.
        for k in (0..self.reads.len() as u16).rev() {
            if looked.contains(&k) {
                let values = self.reads[usize::from(k)].coords.iter();
                looked
                    .extend(values.filter_map(|c| if let Coord::Value { read, .. } = c { Some(*read) } else { None }));
            }
        }
        let read_at = |k: u16| looked.range(..k).count() as u16;
        let operands: BTreeSet<usize> =
            looked.iter().map(|k| usize::from(self.reads[usize::from(*k)].operand)).collect();
        for inst in self.body.insts.iter_mut().chain(&mut self.epilogue.insts) {
            match &mut inst.op {
                ScalarOp::Read(k) | ScalarOp::Valid(k) => *k = read_at(*k),
                ScalarOp::Folded { fold, .. } => *fold = fold_at[usize::from(*fold)],
                _ => {}
            }
        }
        let mut k = 0;
        self.reads.retain(|_| (looked.contains(&k), k += 1).0);
        for read in &mut self.reads {
            read.operand = operands.range(..usize::from(read.operand)).count() as u16;
            for coord in &mut read.coords {
                if let Coord::Value { read, .. } = coord {
                    *read = read_at(*read);
                }
            }
        }
        self.operands = operands.iter().map(|i| self.operands[*i].clone()).collect();
        // Fold axes come last: nothing is renumbered.
        let follows = |a: usize| {
            self.reads.iter().flat_map(|r| &r.coords).filter_map(Coord::index).any(|i| i.coefficient(a as u16) != 0)
        };
        while self.folds.is_empty() && self.axes.last().is_some_and(|a| a.fold) && !follows(self.axes.len() - 1) {
            self.axes.pop();
        }
        (self, operands.into_iter().collect())
    }
}

/// A program without what `wanted` does not need, and where each of its registers is now.
fn needed(program: &Scalar, wanted: &[Reg]) -> (Scalar, Vec<Reg>) {
    let mut keep = vec![false; program.insts.len()];
    wanted.iter().for_each(|r| keep[usize::from(*r)] = true);
    for i in (0..keep.len()).rev().filter(|i| keep[*i]).collect::<Vec<_>>() {
        let mut open = vec![i];
        while let Some(i) = open.pop() {
            for r in program.insts[i].op.uses() {
                if !std::mem::replace(&mut keep[usize::from(r)], true) {
                    open.push(usize::from(r));
                }
            }
        }
    }
    let (mut less, mut at) = (Scalar::default(), vec![0; keep.len()]);
    for (i, inst) in program.insts.iter().enumerate().filter(|(i, _)| keep[*i]) {
        let op = inst.op.on(|r| at[usize::from(r)]);
        at[i] = less.insts.len() as Reg;
        less.insts.push(super::Inst { dtype: inst.dtype, op });
    }
    (less, at)
}
