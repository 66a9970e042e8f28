//! Folds over axes.

pub mod all;
pub mod any;
pub mod argmax;
pub mod argmin;
pub mod max;
pub mod mean;
pub mod min;
pub mod prod;
pub mod sum;

use thalweg_graph::kernel::build::{Affine, Axes, AxisVar, fold_part, index, read};
use thalweg_graph::kernel::{BufferType, Kernel, Monoid};
use thalweg_graph::{DType, Dim, OpError, Shape, TensorType, Types, require};

use crate::op::{Gradients, VjpCx};

/// Which axes are folded: `axes` of a tensor of `rank`, negative ones from the end, none meaning all. `None` where one
/// is out of range or named twice.
pub(crate) fn folded(axes: &[i64], rank: usize) -> Option<Vec<bool>> {
    let named = crate::layout::axes_once(axes, rank)?;
    Some((0..rank).map(|i| axes.is_empty() || named.contains(&i)).collect())
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

/// The types of an argmax or argmin: rules are C1 the axis, C2 numbers, C3 not empty.
pub(crate) fn infer_arg(rules: [&'static str; 3], x: &TensorType, axis: i64) -> Result<Types, OpError> {
    let shape = infer_shape(rules[0], &x.shape, &[axis], false)?;
    require!(x.dtype != DType::Bool, rules[1], "needs numbers, got {x}");
    let empty =
        x.shape.iter().zip(folded(&[axis], x.rank()).unwrap_or_default()).any(|(d, f)| f && *d == Dim::Fixed(0));
    require!(!empty, rules[2], "there is nothing to choose from in {}", x.shape);
    Ok(vec![DType::I32.of(shape)])
}

/// The kernel of an argmax or argmin: the index that the fold found.
pub(crate) fn lower_arg(monoid: Monoid, axis: i64, operands: &[BufferType], results: &[BufferType]) -> Kernel {
    let (axes, at, fold) = axes_of(&operands[0].shape, &[axis], false);
    let best = fold_part(monoid, vec![read(0, at), index(fold[0])], 1);
    axes.nest(operands, results, [best])
}

/// The operand's shape with `axes` at extent 1.
pub(crate) fn kept(shape: &Shape, axes: &[i64]) -> Shape {
    infer_shape("axes", shape, axes, true).unwrap_or_default()
}

/// The gradient of a maximum or minimum: shared equally between all places that tie.
pub(crate) fn extremum_gradient<'g>(cx: &VjpCx<'g>, axes: &[i64]) -> Option<Gradients<'g>> {
    let x = cx.operand(0);
    let kept = kept(&x.shape(), axes);
    let chosen = x.eq(cx.result().reshape(&kept)).cast(x.dtype());
    let share = cx.ct().reshape(&kept) / chosen.sum_keep(axes);
    Some(vec![Some(chosen * share)])
}

/// Declares a fold by a monoid over axes in its own file: C1 the axes, C2 what it takes.
macro_rules! reduction {
    ($(#[$doc:meta])* $op:ident, $name:literal, $takes:ident, $monoid:ident, $accuracy:expr,
     methods: $all:ident, $over:ident, $keep:ident,
     gradient: |$this:ident, $cx:ident| $gradient:expr, samples: $data:expr $(,)?) => {
        thalweg_graph::attrs! {
            $(#[$doc])*
            pub struct $op {
                /// The axes; none: all.
                axes: Vec<i64> = vec![],
                /// Whether they stay, with extent 1.
                keep: bool = false,
            }
        }
        impl $crate::op::Op for $op {
            const SCHEMA: thalweg_graph::Schema =
                thalweg_graph::Schema { name: $name, operands: &["x"], results: &["out"], accuracy: $accuracy };
            fn infer(&self, operands: &[thalweg_graph::TensorType]) -> Result<thalweg_graph::Types, thalweg_graph::OpError> {
                let (x, takes) = (&operands[0], $crate::math::Takes::$takes);
                thalweg_graph::require!(takes.accepts(x.dtype), concat!($name, ".C2"), "needs {}, got {x}", takes.name());
                Ok(vec![x.dtype.of(super::infer_shape(concat!($name, ".C1"), &x.shape, &self.axes, self.keep)?)])
            }
            fn lower(&self, operands: &[thalweg_graph::kernel::BufferType], results: &[thalweg_graph::kernel::BufferType]) -> Option<thalweg_graph::kernel::Kernel> {
                let (axes, at, _) = super::axes_of(&operands[0].shape, &self.axes, self.keep);
                let value = thalweg_graph::kernel::build::fold(
                    thalweg_graph::kernel::Monoid::$monoid, thalweg_graph::kernel::build::read(0, at));
                Some(axes.nest(operands, results, [value]))
            }
            fn gradient<'g>(&self, $cx: &$crate::op::VjpCx<'g>) -> Option<$crate::op::Gradients<'g>> {
                let $this = self;
                $gradient
            }
            fn samples() -> Vec<$crate::sample::Sample<Self>> {
                let dtype = if $crate::math::Takes::$takes.accepts(thalweg_graph::DType::F32) { thalweg_graph::DType::F32 } else { thalweg_graph::DType::Bool };
                let case = |shape: &[u64], axes: &[i64], keep| {
                    $crate::sample::Sample::new(Self { axes: axes.to_vec(), keep }, [dtype.of(shape)])
                };
                let adjust: fn($crate::sample::Sample<Self>) -> $crate::sample::Sample<Self> = $data;
                [
                    case(&[2, 3, 4], &[], false), case(&[2, 3, 4], &[1], false), case(&[2, 3, 4], &[0, -1], true),
                    case(&[3, 70], &[1], false), case(&[70, 3], &[0], false), case(&[2, 0], &[1], false).no_gradient(), case(&[], &[], false),
                ].into_iter().map(adjust).collect()
            }
        }
        impl<'g> $crate::tensor::Tensor<'g> {
            /// Over everything:
            $(#[$doc])*
            #[track_caller]
            pub fn $all(self) -> Self { self.$over(&[]) }
            /// Over `axes` (none: all), which disappear:
            $(#[$doc])*
            #[track_caller]
            pub fn $over(self, axes: &[i64]) -> Self { self.apply($op { axes: axes.to_vec(), keep: false }, []) }
            /// Over `axes`, which stay with extent 1:
            $(#[$doc])*
            #[track_caller]
            pub fn $keep(self, axes: &[i64]) -> Self { self.apply($op { axes: axes.to_vec(), keep: true }, []) }
        }
    };
}
pub(crate) use reduction;
