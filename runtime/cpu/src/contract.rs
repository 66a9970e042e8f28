//! Finds the matrix product in a nest: a sum of products of two operands, whatever windows, borders and holes they are read
//! through. Matrix products, convolutions and both their gradients are all of this sort, and one engine multiplies them.

use thalweg_graph::DType;
use thalweg_graph::kernel::{Affine, Binary, LoopNest, Monoid, ScalarOp};

use crate::domain::{Access, Check, Domain, LoweredOp};
use crate::panels::{self, Panels};

/// A nest that multiplies matrices.
#[derive(Debug)]
pub(crate) struct Contraction {
    dtype: DType,
    /// One after another; each gives its own part of the result.
    parts: Vec<Panels>,
    /// How much of the result is zero before, since the parts leave some of it out.
    clear_bytes: usize,
    /// What holes are multiplied with, which the parts leave out: operands with their lengths. Unless all of it is finite,
    /// zero times it is not zero, and the product runs whole.
    finite: Vec<(usize, usize)>,
    whole: Option<Box<Panels>>,
}

/// Multiplications below which tiles do as well.
const WORTH: i64 = 128;

impl Contraction {
    /// The product that `nest` is, if it is one and worth it.
    pub(crate) fn recognize(nest: &LoopNest) -> Option<Self> {
        let draft = Draft::of(nest)?;
        let work: i64 = draft.domain.extents.iter().product();
        if work < WORTH || draft.is_dot() {
            return None;
        }
        let size = |d: &Draft| d.size(&(0..d.domain.parallel).collect::<Vec<_>>());
        let (rows, dtype) = (size(&draft), draft.dtype);
        let holed = |s: usize| draft.sides[s].checks.iter().any(|c| matches!(c, Check::Holes { .. }));
        let others = (0..2).filter(|s| holed(*s)).map(|s| draft.sides[1 - s].operand);
        let finite: Vec<_> = others.map(|o| (o, nest.operands[o].len())).collect();
        let drafts = panels::split(draft.clone());
        let given: i64 = drafts.iter().map(size).sum();
        let whole = if drafts.len() > 1 || given < rows { Some(Box::new(Panels::of(&draft)?)) } else { None };
        let parts = drafts.iter().map(Panels::of).collect::<Option<Vec<_>>>()?;
        let clear_bytes = if given == rows { 0 } else { nest.results[0].size_bytes() as usize };
        Some(Self { dtype, parts, clear_bytes, finite, whole })
    }
    pub(crate) fn workspace_bytes(&self) -> usize {
        self.parts.iter().chain(self.whole.as_deref()).map(Panels::workspace_bytes).max().unwrap_or(0)
    }
    pub(crate) fn strategy(&self) -> String {
        let largest = self.parts.iter().max_by_key(|p| p.depth()).map(Panels::strategy).unwrap_or_default();
        match self.parts.len() {
            0 | 1 => largest,
            count => format!("{largest}, and {} more", count - 1),
        }
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
        // SAFETY: the caller's promise.
        unsafe {
            if let Some(whole) = &self.whole
                && !self.finite.iter().all(|(o, len)| self.is_finite(operands[*o], *len))
            {
                return whole.run(operands, results, workspace, pool);
            }
            results[0].write_bytes(0, self.clear_bytes);
            self.parts.iter().for_each(|p| p.run(operands, results, workspace, pool));
        }
    }

    /// # Safety
    /// So many elements lie there.
    unsafe fn is_finite(&self, at: *const u8, len: usize) -> bool {
        // SAFETY: the caller's promise. No early end: the loop is a few vector instructions per cache line.
        unsafe {
            match self.dtype {
                DType::F64 => {
                    std::slice::from_raw_parts(at.cast::<f64>(), len).iter().fold(true, |all, x| all & x.is_finite())
                }
                _ => std::slice::from_raw_parts(at.cast::<f32>(), len).iter().fold(true, |all, x| all & x.is_finite()),
            }
        }
    }
}

/// The nest by axes.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) dtype: DType,
    pub(crate) domain: Domain,
    pub(crate) sides: [Access; 2],
    pub(crate) result: Affine,
}

impl Draft {
    pub(crate) fn of(nest: &LoopNest) -> Option<Self> {
        let ([fold], [write]) = (&nest.folds[..], &nest.writes[..]) else { return None };
        let dtype = fold.dtype;
        if fold.monoid != Monoid::Sum || !matches!(dtype, DType::F32 | DType::F64) {
            return None;
        }
        let mut domain = Domain::new(&nest.axes);
        let accesses = domain.accesses(&nest.reads, &nest.operands, &nest.axes);
        let body = domain.program(&nest.body, &nest.axes);
        let plain = |r: u16| match &body[r as usize].op {
            LoweredOp::Plain(op) => Some(op.clone()),
            _ => None,
        };
        let ScalarOp::Binary(Binary::Mul, a, b) = plain(fold.inputs[0])? else { return None };
        let (ScalarOp::Read(a), ScalarOp::Read(b)) = (plain(a)?, plain(b)?) else { return None };
        let value = &nest.epilogue.insts.get(write.value as usize)?.op;
        if !matches!(value, ScalarOp::Folded { .. }) {
            return None;
        }
        let sides = [accesses[a as usize].clone(), accesses[b as usize].clone()];
        let windowed = |c: &Check| matches!(c, Check::Limit { .. } | Check::Holes { .. });
        let zero_filled =
            |bits: u64| if dtype == DType::F32 { bits as u32 & !(1 << 31) == 0 } else { bits & !(1 << 63) == 0 };
        let sound = sides.iter().all(|s| {
            s.checks.iter().all(windowed) && (s.checks.is_empty() || s.fill.is_some_and(zero_filled)) && !s.absent
        });
        let result = domain.linear(&write.coords, &nest.results[0]);
        domain.collapse();
        let has_work = !domain.is_empty && !domain.fold_is_empty && domain.extents.len() > domain.parallel;
        let result = domain.maps[result].clone();
        (sound && has_work).then_some(Self { dtype, domain, sides, result })
    }

    pub(crate) fn uses(&self, side: usize, axis: usize) -> bool {
        self.domain.uses(&self.sides[side], &self.sides, &|a| a == axis)
    }
    pub(crate) fn extent(&self, axis: usize) -> i64 {
        self.domain.extents[axis]
    }
    pub(crate) fn size(&self, axes: &[usize]) -> i64 {
        axes.iter().map(|a| self.extent(*a)).product()
    }
    /// Every element is the product of two vectors of its own: nothing is used twice.
    fn is_dot(&self) -> bool {
        let mut parallel = 0..self.domain.parallel;
        !parallel.any(|a| self.uses(0, a) != self.uses(1, a))
    }
}
