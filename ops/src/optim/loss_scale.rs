//! Loss scaling (Micikevicius et al., *Mixed Precision Training*, ICLR 2018): gradients smaller than a half type holds are
//! kept by differentiating a multiple of the loss, and divided by it in the parameters' own type. The factor is a variable
//! and what becomes of it ordinary graph: no host looks at a gradient, and a checkpoint holds it with the rest.

use thalweg_graph::{Builder, DType, Init, TensorType, VarId, VarKind, Variable};

use crate::graph::variable;
use crate::tensor::Tensor;

/// What the loss is multiplied by while it is differentiated: `AdamW::new(3e-3).loss_scale(LossScale::dynamic())`.
///
/// An update in which a gradient is infinite or NaN is skipped: parameters and the optimizer's slots stay as they are, to
/// the bit, and the rule counts it as no update. Batch statistics and the step go on.
#[derive(Clone, Debug, PartialEq)]
pub struct LossScale {
    initial: f64,
    grow_after: u64,
    falls: bool,
}

/// The scale stays within these, powers of two as all that it is multiplied by.
const BOUNDS: [f64; 2] = [1.0 / 16384.0, 16_777_216.0];
/// How the group of its variables ends.
const GROUP: &str = ".loss_scale";

impl LossScale {
    /// 65,536 at first, halved by each update that is skipped, doubled after 2,000 in a row that are not; between 2⁻¹⁴ and
    /// 2²⁴. The optimizer's variables `loss_scale.scale` (f32), `loss_scale.good` (i32: updates since it last changed) and
    /// `loss_scale.skipped` (i32: updates skipped in all) hold it: `adamw.loss_scale.scale`.
    pub fn dynamic() -> Self {
        Self { initial: 65536.0, grow_after: 2000, falls: true }
    }
    /// Always this factor; updates are skipped all the same.
    pub fn constant(factor: f64) -> Self {
        Self { initial: factor, grow_after: 0, falls: false }
    }
    /// What a dynamic scale is at first.
    pub fn initial(mut self, factor: f64) -> Self {
        self.initial = factor;
        self
    }
    /// After how many good updates a dynamic scale is doubled, 0 for never.
    pub fn grow_after(mut self, updates: u64) -> Self {
        self.grow_after = updates.min(i32::MAX as u64);
        self
    }

    /// What is wrong with its numbers, if anything is.
    pub(super) fn mistake(&self) -> Option<String> {
        let fits = (BOUNDS[0]..=BOUNDS[1]).contains(&self.initial);
        let what = || format!("a loss cannot be scaled by {}: it takes 2⁻¹⁴ to 2²⁴", self.initial);
        (!fits).then(what)
    }
    /// Its variables, for the optimizer `name`.
    pub(super) fn declare<'g>(&self, graph: &'g Builder, name: &str) -> Scaling<'g> {
        let group = format!("{name}{GROUP}");
        let slot = |what: &str, dtype: DType, init: f64| {
            let ty: TensorType = dtype.of(());
            variable(graph, &format!("{group}.{what}"), ty, VarKind::Slot, Init::Constant(init), &group)
        };
        let (scale, good) = (slot("scale", DType::F32, self.initial), slot("good", DType::I32, 0.0));
        Scaling { of: self.clone(), scale, good, skipped: slot("skipped", DType::I32, 0.0) }
    }
    /// Whether a variable is part of some optimizer's scale.
    pub(crate) fn owns(variable: &Variable) -> bool {
        variable.kind == VarKind::Slot && variable.group.ends_with(GROUP)
    }
}

/// A variable's value and id.
type State<'g> = (Tensor<'g>, Option<VarId>);

/// A scale in a graph.
pub(super) struct Scaling<'g> {
    of: LossScale,
    pub(super) scale: State<'g>,
    good: State<'g>,
    pub(super) skipped: State<'g>,
}

impl<'g> Scaling<'g> {
    /// What its variables become after an update that was all `finite` or else skipped.
    #[track_caller]
    pub(super) fn after(&self, finite: Tensor<'g>) -> [(State<'g>, Tensor<'g>); 3] {
        let (scale, good, skipped) = (self.scale.0, self.good.0, self.skipped.0);
        let (next, mut larger, mut counted) = (good + 1.0, scale, good + 1.0);
        if self.of.grow_after > 0 {
            let grows = next.ge(self.of.grow_after as f64);
            larger = grows.select((scale * 2.0).minimum(BOUNDS[1]), scale);
            counted = grows.select(good.zeros_like(), next);
        }
        let smaller = if self.of.falls { (scale * 0.5).maximum(BOUNDS[0]) } else { scale };
        [
            (self.scale, finite.select(larger, smaller)),
            (self.good, finite.select(counted, 0.0)),
            (self.skipped, finite.select(skipped, skipped + 1.0)),
        ]
    }
}

/// Whether every element of all `values`, at least one of them, is finite.
#[track_caller]
pub(super) fn all_finite<'g>(values: impl IntoIterator<Item = Tensor<'g>>) -> Option<Tensor<'g>> {
    let each = values.into_iter().map(|t| t.abs().lt(f64::INFINITY).all());
    each.reduce(|a, b| a.select(b, a))
}
