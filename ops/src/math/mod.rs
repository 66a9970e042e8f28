//! Element-wise ops. Each is one expression and its derivative; what they share (broadcasting, operators, types) is
//! here, once.

pub mod abs;
pub mod add;
pub mod cast;
pub mod cos;
pub mod div;
pub mod eq;
pub mod erf;
pub mod exp;
pub mod floor;
pub mod is_nan;
pub mod le;
pub mod log;
pub mod logical_not;
pub mod lt;
pub mod maximum;
pub mod minimum;
pub mod mul;
pub mod ne;
pub mod neg;
pub mod pow;
pub mod relu;
pub mod select;
pub mod sigmoid;
pub mod sign;
pub mod sin;
pub mod sqrt;
pub mod sub;
pub mod tanh;

use thalweg_graph::kernel::build::{Affine, AxisVar, Expr, read};
use thalweg_graph::kernel::{Binary, BufferType};
use thalweg_graph::{DType, Dim, Shape, TensorType};

/// The shape of an element-wise result: NumPy's rule. Axes are aligned at the right; an axis of extent 1 repeats.
pub fn broadcast(a: &[Dim], b: &[Dim]) -> Option<Shape> {
    let rank = a.len().max(b.len());
    let one = Dim::Fixed(1);
    let at = |s: &[Dim], i: usize| if i + s.len() < rank { one.clone() } else { s[i + s.len() - rank].clone() };
    let pick = |(a, b): (Dim, Dim)| {
        if a == b || b == one {
            Some(a)
        } else if a == one {
            Some(b)
        } else {
            None
        }
    };
    (0..rank).map(|i| pick((at(a, i), at(b, i)))).collect::<Option<Vec<_>>>().map(Shape)
}

/// Operand `k` read under broadcasting at the axes of the result.
pub fn read_broadcast(k: u16, operand: &BufferType, result: &BufferType, axes: &[AxisVar]) -> Expr {
    let skip = result.rank() - operand.rank();
    read(
        k,
        operand.shape.iter().enumerate().map(|(d, extent)| match *extent {
            1 => Affine::constant(0),
            _ => Affine::from(axes[skip + d]),
        }),
    )
}

/// What an op takes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Takes {
    Floats,
    Numbers,
    Bools,
    Anything,
}

impl Takes {
    pub(crate) fn accepts(self, dtype: DType) -> bool {
        match self {
            Takes::Floats => dtype.is_float(),
            Takes::Numbers => dtype != DType::Bool,
            Takes::Bools => dtype == DType::Bool,
            Takes::Anything => true,
        }
    }
    pub(crate) fn name(self) -> &'static str {
        match self {
            Takes::Floats => "floats",
            Takes::Numbers => "numbers",
            Takes::Bools => "truth values",
            Takes::Anything => "anything",
        }
    }
}

/// Result type of a binary element-wise op; C1 of each is one element type, C2 broadcasting.
pub(crate) fn infer_binary(
    rules: [&'static str; 2],
    takes: Takes,
    op: Binary,
    a: &TensorType,
    b: &TensorType,
) -> Result<Vec<TensorType>, thalweg_graph::OpError> {
    let error = thalweg_graph::OpError::new;
    if a.dtype != b.dtype || !takes.accepts(a.dtype) {
        let what = format!("needs {} of one element type, got {a} and {b}", takes.name());
        return Err(error(rules[0], what).help(format!("cast one of them, as to {}", a.dtype)));
    }
    let Some(shape) = broadcast(&a.shape, &b.shape) else {
        let what = format!("shapes do not broadcast: {} and {}", a.shape, b.shape);
        return Err(error(rules[1], what).help("axes are aligned at the right; extents must be equal or 1"));
    };
    Ok(vec![if op.compares() { DType::Bool } else { a.dtype }.of(shape)])
}

/// Declares an element-wise op of one operand in its own file; `half: Follows` at the end where it may be a half's.
macro_rules! unary {
    ($(#[$doc:meta])* $op:ident, $name:literal, $method:ident, $takes:ident -> $gives:expr, $accuracy:expr,
     kernel: |$x:ident| $kernel:expr, gradient: |$cx:ident| $gradient:expr, samples: $data:expr $(, half: $half:ident)? $(,)?) => {
        thalweg_graph::attrs! { $(#[$doc])* pub struct $op {} }
        impl $crate::op::Op for $op {
            const SCHEMA: thalweg_graph::Schema =
                thalweg_graph::Schema { name: $name, operands: &["x"], results: &["out"], accuracy: $accuracy };
            $(const IN_HALF: thalweg_graph::InHalf = thalweg_graph::InHalf::$half;)?
            fn infer(&self, operands: &[thalweg_graph::TensorType]) -> Result<thalweg_graph::Types, thalweg_graph::OpError> {
                let x = &operands[0];
                thalweg_graph::require!($crate::math::Takes::$takes.accepts(x.dtype), concat!($name, ".C1"),
                    "needs {}, got {x}", $crate::math::Takes::$takes.name());
                let gives: fn(thalweg_graph::DType) -> thalweg_graph::DType = $gives;
                Ok(vec![gives(x.dtype).of(&x.shape)])
            }
            fn lower(&self, operands: &[thalweg_graph::kernel::BufferType], results: &[thalweg_graph::kernel::BufferType]) -> Option<thalweg_graph::kernel::Kernel> {
                let mut axes = thalweg_graph::kernel::build::Axes::new();
                let at = axes.par_over(&results[0].shape);
                let $x = thalweg_graph::kernel::build::read(0, at);
                Some(axes.nest(operands, results, [$kernel]))
            }
            fn gradient<'g>(&self, $cx: &$crate::op::VjpCx<'g>) -> Option<$crate::op::Gradients<'g>> { Some(vec![$gradient]) }
            fn samples() -> Vec<$crate::sample::Sample<Self>> {
                let samples: Vec<$crate::sample::Sample<Self>> =
                    [&[2u64, 3][..], &[], &[5, 0], &[1, 7]].iter().map(|s| $crate::sample::Sample::f32(Self {}, [s])).collect();
                let adjust: fn($crate::sample::Sample<Self>) -> $crate::sample::Sample<Self> = $data;
                samples.into_iter().map(adjust).collect()
            }
        }
        impl<'g> $crate::tensor::Tensor<'g> {
            $(#[$doc])*
            #[track_caller]
            pub fn $method(self) -> Self { self.apply($op {}, []) }
        }
    };
}
pub(crate) use unary;

/// Declares a broadcasting element-wise op of two operands in its own file, likewise.
macro_rules! binary {
    ($(#[$doc:meta])* $op:ident, $name:literal, $method:ident, $takes:ident, $kernel:ident, $accuracy:expr,
     gradient: |$cx:ident| $gradient:expr, samples: $data:expr $(, half: $half:ident)? $(,)?) => {
        thalweg_graph::attrs! { $(#[$doc])* pub struct $op {} }
        impl $crate::op::Op for $op {
            const SCHEMA: thalweg_graph::Schema =
                thalweg_graph::Schema { name: $name, operands: &["lhs", "rhs"], results: &["out"], accuracy: $accuracy };
            $(const IN_HALF: thalweg_graph::InHalf = thalweg_graph::InHalf::$half;)?
            fn infer(&self, operands: &[thalweg_graph::TensorType]) -> Result<thalweg_graph::Types, thalweg_graph::OpError> {
                $crate::math::infer_binary([concat!($name, ".C1"), concat!($name, ".C2")], $crate::math::Takes::$takes,
                    thalweg_graph::kernel::Binary::$kernel, &operands[0], &operands[1])
            }
            fn lower(&self, operands: &[thalweg_graph::kernel::BufferType], results: &[thalweg_graph::kernel::BufferType]) -> Option<thalweg_graph::kernel::Kernel> {
                let mut axes = thalweg_graph::kernel::build::Axes::new();
                let at = axes.par_over(&results[0].shape);
                let [a, b] = [0, 1].map(|k| $crate::math::read_broadcast(k, &operands[k as usize], &results[0], &at));
                Some(axes.nest(operands, results, [a.binary(thalweg_graph::kernel::Binary::$kernel, b)]))
            }
            fn gradient<'g>(&self, $cx: &$crate::op::VjpCx<'g>) -> Option<$crate::op::Gradients<'g>> {
                let gradients: [Option<$crate::tensor::Tensor<'g>>; 2] = $gradient;
                Some(gradients.into_iter().enumerate().map(|(k, g)| g.map(|g| g.sum_to(&$cx.operand(k).shape()))).collect())
            }
            fn samples() -> Vec<$crate::sample::Sample<Self>> {
                let adjust: fn($crate::sample::Sample<Self>) -> $crate::sample::Sample<Self> = $data;
                [[&[2u64, 3][..], &[2, 3]], [&[2, 3], &[3]], [&[2, 1, 4], &[3, 1]], [&[], &[4]], [&[0, 3], &[3]], [&[1, 5], &[5]]]
                    .into_iter().map(|shapes| adjust($crate::sample::Sample::f32(Self {}, shapes))).collect()
            }
        }
        impl<'g> $crate::tensor::Tensor<'g> {
            $(#[$doc])*
            #[track_caller]
            pub fn $method(self, other: impl Into<$crate::math::Operand<'g>>) -> Self {
                self.apply($op {}, [other.into().beside(self)])
            }
        }
    };
}
pub(crate) use binary;

/// The right-hand side of an operator: a tensor, or a number that becomes one of the left side's element type.
#[derive(Clone, Copy, Debug)]
pub enum Operand<'g> {
    /// A tensor.
    Tensor(crate::Tensor<'g>),
    /// A number.
    Number(f64),
}
impl<'g> Operand<'g> {
    #[track_caller]
    pub(crate) fn beside(self, lhs: crate::Tensor<'g>) -> crate::Tensor<'g> {
        match self {
            Operand::Tensor(t) => t,
            Operand::Number(x) => lhs.scalar_like(x),
        }
    }
}
impl<'g> From<crate::Tensor<'g>> for Operand<'g> {
    fn from(t: crate::Tensor<'g>) -> Self {
        Operand::Tensor(t)
    }
}
impl From<f64> for Operand<'_> {
    fn from(x: f64) -> Self {
        Operand::Number(x)
    }
}

/// `+ - * /` between tensors and numbers.
macro_rules! operator {
    ($trait:ident, $function:ident, $method:ident) => {
        impl<'g, T: Into<$crate::math::Operand<'g>>> std::ops::$trait<T> for $crate::tensor::Tensor<'g> {
            type Output = $crate::tensor::Tensor<'g>;
            #[track_caller]
            fn $function(self, other: T) -> Self::Output {
                $crate::tensor::Tensor::$method(self, other)
            }
        }
        impl<'g> std::ops::$trait<$crate::tensor::Tensor<'g>> for f64 {
            type Output = $crate::tensor::Tensor<'g>;
            #[track_caller]
            fn $function(self, other: $crate::tensor::Tensor<'g>) -> Self::Output {
                other.scalar_like(self).$method(other)
            }
        }
    };
}
pub(crate) use operator;
