//! Finds the matrix product in a nest, and chooses who multiplies: matrices that lie in memory with constant strides go to
//! the gemm crate; whatever a window, a border or a hole keeps from being one is packed panel by panel. Convolutions and
//! both their gradients are of the second sort.

use thalweg_graph::DType;
use thalweg_graph::kernel::{Affine, Binary, LoopNest, Monoid, ScalarOp};

use crate::domain::{Access, Check, Domain, LoweredOp};
use crate::panels::{self, Panels};
use crate::strided::Strided;

/// A nest that multiplies matrices.
#[derive(Debug)]
pub(crate) enum Contraction {
    Strided(Box<Strided>),
    /// One after another; each gives its own part of the result, of which so many bytes are zero before.
    Panels {
        parts: Vec<Panels>,
        clear_bytes: usize,
    },
}

/// Multiplications below which tiles do as well.
const WORTH_PANELS: i64 = 512;
/// Least depth from which rows that lie apart are better packed than read where they lie.
const DEEP: i64 = 768;

impl Contraction {
    /// The product that `nest` is, if it is one and worth it.
    pub(crate) fn recognize(nest: &LoopNest) -> Option<Self> {
        let draft = Draft::of(nest)?;
        let strided = Strided::of(&draft).filter(|_| !draft.is_deep());
        if let Some(strided) = strided {
            return Some(Contraction::Strided(Box::new(strided)));
        }
        let work: i64 = draft.domain.extents.iter().product();
        if work < WORTH_PANELS {
            return None;
        }
        let size = |d: &Draft| d.size(&(0..d.domain.parallel).collect::<Vec<_>>());
        let (whole, drafts) = (size(&draft), panels::split(draft));
        let given: i64 = drafts.iter().map(size).sum();
        let parts = drafts.iter().map(Panels::of).collect::<Option<Vec<_>>>()?;
        let clear_bytes = if given == whole { 0 } else { nest.results[0].size_bytes() as usize };
        Some(Contraction::Panels { parts, clear_bytes })
    }
    pub(crate) fn workspace_bytes(&self) -> usize {
        match self {
            Contraction::Strided(product) => product.workspace_bytes(),
            Contraction::Panels { parts, .. } => parts.iter().map(Panels::workspace_bytes).max().unwrap_or(0),
        }
    }
    pub(crate) fn strategy(&self) -> String {
        let (parts, apart) = match self {
            Contraction::Strided(product) => return product.strategy(),
            Contraction::Panels { parts, .. } => (parts, parts.len()),
        };
        let largest = parts.iter().max_by_key(|p| p.depth()).map(Panels::strategy).unwrap_or_default();
        if apart > 1 { format!("{largest}, and {} more", apart - 1) } else { largest }
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
            match self {
                Contraction::Strided(product) => product.run(operands, results, workspace, pool),
                Contraction::Panels { parts, clear_bytes } => {
                    results[0].write_bytes(0, *clear_bytes);
                    parts.iter().for_each(|p| p.run(operands, results, workspace, pool));
                }
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
    /// Neither side's rows lie side by side, and there is much depth: reading whole rows along depth beats strides.
    fn is_deep(&self) -> bool {
        let parallel = 0..self.domain.parallel;
        let beside = |s: usize| {
            let map = &self.domain.maps[self.sides[s].linear];
            parallel.clone().any(|a| !self.uses(1 - s, a) && map.coefficient(a as u16) == 1)
        };
        let depth = self.size(&(self.domain.parallel..self.domain.extents.len()).collect::<Vec<_>>());
        let rows = |s: usize| self.size(&parallel.clone().filter(|a| self.uses(s, *a)).collect::<Vec<_>>());
        depth >= DEEP && !beside(0) && !beside(1) && rows(0).min(rows(1)) >= 64
    }
}
