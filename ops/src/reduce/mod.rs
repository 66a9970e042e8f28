//! Folds over axes.

pub mod sum;

use thalweg_graph::kernel::build::{Affine, Axes, AxisVar};
use thalweg_graph::{Dim, OpError, Shape};

/// Which axes are folded: `axes` of a tensor of `rank`, negative ones from the end, none meaning all. `None` where one
/// is out of range or named twice.
pub(crate) fn folded(axes: &[i64], rank: usize) -> Option<Vec<bool>> {
    let mut out = vec![axes.is_empty(); rank];
    for axis in axes {
        let i = usize::try_from(if *axis < 0 { axis + rank as i64 } else { *axis }).ok()?;
        if std::mem::replace(out.get_mut(i)?, true) {
            return None;
        }
    }
    Some(out)
}

/// The shape after folding; C1 of every reduction is that `axes` are axes of the operand, each once.
pub(crate) fn infer_shape(rule: &'static str, shape: &Shape, axes: &[i64], keep: bool) -> Result<Shape, OpError> {
    let folded = folded(axes, shape.rank())
        .ok_or_else(|| OpError::new(rule, format!("{axes:?} are not axes of {shape}, each once")))?;
    let kept = |(d, f): (&Dim, &bool)| match (f, keep) {
        (false, _) => Some(d.clone()),
        (true, true) => Some(Dim::Fixed(1)),
        (true, false) => None,
    };
    Ok(Shape(shape.iter().zip(&folded).filter_map(kept).collect()))
}

/// Axes for a reduction: parallel ones per extent of the result, fold ones, and where the operand is read.
pub(crate) fn axes_of(operand: &[u64], folds: &[i64], keep: bool) -> (Axes, Vec<Affine>, Vec<AxisVar>) {
    let folded = folded(folds, operand.len()).unwrap_or_default();
    let mut axes = Axes::new();
    let extents = |want: bool| {
        let pick = |(d, f): (&u64, &bool)| match (*f == want, keep && !want) {
            (true, _) => Some(*d),
            (false, true) => Some(1),
            (false, false) => None,
        };
        operand.iter().zip(&folded).filter_map(pick).collect::<Vec<u64>>()
    };
    let mut par = axes.par_over(&extents(false)).into_iter();
    let fold = axes.fold_over(&extents(true));
    let mut next = fold.iter();
    let coords = folded
        .iter()
        .map(|f| {
            let outer = if *f && !keep { None } else { par.next() };
            let axis = if *f { next.next().copied() } else { outer };
            axis.map_or(Affine::constant(0), Affine::from)
        })
        .collect();
    (axes, coords, fold)
}
