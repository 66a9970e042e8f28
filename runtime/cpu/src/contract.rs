//! Finds the matrix product in a nest: a sum of products of two operands, whatever windows, borders and holes they are read
//! through. Matrix products, convolutions and both their gradients are all of this sort, and one engine multiplies them.
//! What the nest does with the sum is done tile by tile, before a tile leaves the cache, wherever the product is one.

use thalweg_graph::DType;
use thalweg_graph::kernel::{Affine, LoopNest, Reg, ScalarOp};

use crate::domain::{Access, Check, Domain, Lowered, LoweredOp};
use crate::finite;
use crate::isa::Isa;
use crate::nest::TileNest;
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
    /// What becomes of the sums, in their place, where the parts do not see to it themselves.
    after: Option<Box<TileNest>>,
}

/// Multiplications below which tiles do as well.
const WORTH: i64 = 128;
/// A result of fewer bytes is still in the second cache when the product is done: what becomes of it is then one pass
/// over long tiles, which costs less than many starts on short ones.
const NEAR_BYTES: u64 = 256 << 10;

impl Contraction {
    /// Whether [`Contraction::recognize`] has a chance; costs nothing beside it.
    pub(crate) fn is_likely(nest: &LoopNest) -> bool {
        Draft::of(nest).is_some_and(|draft| draft.is_worth_it())
    }
    /// The product that `nest` is, if it is one and worth it.
    pub(crate) fn recognize(nest: &LoopNest) -> Option<Self> {
        let draft = Draft::of(nest).filter(Draft::is_worth_it)?;
        let drafts = panels::split(draft.clone());
        let rows: i64 = drafts.iter().map(Draft::rows).sum();
        // Zeros of the result become something too, and that no part computes.
        let leaves_out = rows < draft.rows();
        let is_near = nest.results[0].size_bytes() <= NEAR_BYTES;
        if !nest.is_bare_sum() && (is_near || leaves_out || draft.then.is_none()) {
            let (bare, then) = nest.parted()?;
            let after = Some(Box::new(TileNest::compile(&then)));
            return Some(Self { after, ..Self::recognize(&bare)? });
        }
        let holed = |s: usize| draft.sides[s].checks.iter().any(|c| matches!(c, Check::Holes { .. }));
        let others = (0..2).filter(|s| holed(*s)).map(|s| draft.sides[1 - s].operand);
        let whole = if drafts.len() > 1 || leaves_out { Some(Box::new(Panels::of(&draft)?)) } else { None };
        Some(Self {
            dtype: draft.dtype,
            parts: drafts.iter().map(Panels::of).collect::<Option<Vec<_>>>()?,
            clear_bytes: if leaves_out { nest.results[0].size_bytes() as usize } else { 0 },
            finite: others.map(|o| (o, nest.operands[o].len())).collect(),
            whole,
            after: None,
        })
    }
    fn panels(&self) -> impl Iterator<Item = &Panels> {
        self.parts.iter().chain(self.whole.as_deref())
    }
    pub(crate) fn workspace_bytes(&self) -> usize {
        self.panels().map(Panels::workspace_bytes).max().unwrap_or(0)
    }
    pub(crate) fn thread_bytes(&self) -> usize {
        let after = self.after.as_ref().map_or(0, |nest| nest.thread_bytes());
        self.panels().map(Panels::thread_bytes).fold(after, usize::max)
    }
    pub(crate) fn strategy(&self) -> String {
        let largest = self.parts.iter().max_by_key(|p| p.depth()).map(Panels::strategy).unwrap_or_default();
        let mut text = match self.parts.len() {
            0 | 1 => largest,
            count => format!("{largest}, and {} more", count - 1),
        };
        if let Some(after) = &self.after {
            text += &format!(", then {}", after.strategy());
        }
        text
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
        // SAFETY: the caller's promise; operands have their lengths. What comes after reads the sums where it writes.
        unsafe {
            let is_finite = |(o, len): &(usize, usize)| {
                let rows = finite::Rows { dtype: self.dtype, from: operands[*o], rows: 1, columns: *len, stride: *len };
                finite::all(Isa::detect(), rows)
            };
            match &self.whole {
                Some(whole) if !self.finite.iter().all(is_finite) => whole.run(operands, results, workspace, pool),
                _ => {
                    results[0].write_bytes(0, self.clear_bytes);
                    self.parts.iter().for_each(|p| p.run(operands, results, workspace, pool));
                }
            }
            if let Some(after) = &self.after {
                let from: Vec<*const u8> = operands.iter().copied().chain([results[0].cast_const()]).collect();
                after.run(&from, results, workspace, pool);
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
    /// What becomes of a sum, where that is as simple as `Then` has it; a bare sum needs nothing.
    pub(crate) then: Option<Then>,
}
/// A program over a sum, and over what is read at the same point, all of which is inside.
#[derive(Clone, Debug)]
pub(crate) struct Then {
    pub(crate) code: Vec<Lowered>,
    pub(crate) value: Reg,
    /// All reads of the nest.
    pub(crate) reads: Vec<Access>,
}

impl Draft {
    pub(crate) fn of(nest: &LoopNest) -> Option<Self> {
        let sum = nest.contraction().filter(|c| matches!(c.dtype, DType::F32 | DType::F64))?;
        let plain = |read: &usize| nest.operands[usize::from(nest.reads[*read].operand)].dtype == sum.dtype;
        let write =
            nest.writes.first().filter(|_| nest.results[0].dtype == sum.dtype && sum.factors.iter().all(plain))?;
        let mut domain = Domain::new(&nest.axes);
        let reads = domain.accesses(&nest.reads, &nest.operands, &nest.axes);
        let sides = sum.factors.map(|read| reads[read].clone());
        let windowed = |c: &Check| matches!(c, Check::Limit { .. } | Check::Holes { .. });
        let zero_filled =
            |bits: u64| if sum.dtype == DType::F32 { bits as u32 & !(1 << 31) == 0 } else { bits & !(1 << 63) == 0 };
        let sound = sides.iter().all(|s| {
            s.checks.iter().all(windowed) && (s.checks.is_empty() || s.fill.is_some_and(zero_filled)) && !s.absent
        });
        let code = domain.program(&nest.epilogue, &nest.axes);
        let simple = code.iter().all(|inst| match inst.op {
            LoweredOp::Plain(ScalarOp::Read(k) | ScalarOp::Valid(k)) => reads[usize::from(k)].checks.is_empty(),
            _ => true,
        });
        let then = (simple && !nest.is_bare_sum()).then_some(Then { code, value: write.value, reads });
        let result = domain.linear(&write.coords, &nest.results[0]);
        domain.collapse();
        let has_work = !domain.is_empty && !domain.fold_is_empty && domain.extents.len() > domain.parallel;
        let result = domain.maps[result].clone();
        (sound && has_work).then_some(Self { dtype: sum.dtype, domain, sides, result, then })
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
    /// Elements of the result.
    fn rows(&self) -> i64 {
        self.domain.extents[..self.domain.parallel].iter().product()
    }
    /// Whether there is enough to multiply, and something is used twice: not where every element is the product of two
    /// vectors of its own.
    fn is_worth_it(&self) -> bool {
        let mut parallel = 0..self.domain.parallel;
        let work: i64 = self.domain.extents.iter().product();
        work >= WORTH && parallel.any(|a| self.uses(0, a) != self.uses(1, a))
    }
}
