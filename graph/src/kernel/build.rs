//! How an op writes its kernel: as the formula over axes. An expression is a tree; what stands under a fold becomes
//! the nest's body and what stands above it the epilogue, so an author never sorts instructions.
//!
//! ```
//! use thalweg_graph::kernel::{BufferType, build::*};
//! use thalweg_graph::DType::F32;
//! let f32s = |shape: &[u64]| BufferType { dtype: F32, shape: shape.to_vec() };
//! let mut axes = Axes::new();
//! let ([i, j], [k]) = (axes.par([2, 5]), axes.fold([3]));
//! let product = sum(read(0, [i, k]) * read(1, [k, j]));
//! let matmul = axes.nest(&[f32s(&[2, 3]), f32s(&[3, 5])], &[f32s(&[2, 5])], [product]);
//! assert!(matmul.verify().is_empty());
//! ```

use std::ops::{Add, Div, Mul, Neg, Sub};
use std::rc::Rc;

pub use super::affine::{Affine, AxisVar};
use super::nest::{Axis, Beyond, Fold, LoopNest, Monoid, Read, Scatter, Write};
use super::scalar::{Binary, Inst, Literal, Reg, Scalar, ScalarOp, Unary};
use super::{BufferType, Kernel, affine::Coord};
use crate::types::DType;

/// A coordinate as it is written: an axis, an affine map, a constant, or what another read finds.
#[derive(Clone, Debug)]
pub enum Ix {
    /// Affine, with holes, or a digit.
    Plain(Coord),
    /// The value of a read.
    Value(Expr, Beyond),
}
impl<T: Into<Affine>> From<T> for Ix {
    fn from(a: T) -> Self {
        Ix::Plain(Coord::Affine(a.into()))
    }
}
/// `index / step`, outside where `step` does not divide it.
pub fn holes(index: impl Into<Affine>, step: u64) -> Ix {
    let index = index.into();
    Ix::Plain(if step == 1 { Coord::Affine(index) } else { Coord::Holes { index, step } })
}
/// `index / divide mod modulo` of a non-negative index.
pub fn digit(index: impl Into<Affine>, divide: u64, modulo: u64) -> Ix {
    Ix::Plain(Coord::Digit { index: index.into(), divide, modulo })
}
/// The coordinate found by `read`, outside where it is none.
pub fn found(read: Expr) -> Ix {
    Ix::Value(read, Beyond::Outside)
}

#[derive(Debug)]
enum Node {
    Literal(Literal, Option<DType>),
    Read { operand: u16, coords: Vec<Ix>, fill: Option<Literal> },
    Valid(Expr),
    Index(Affine),
    Fold { monoid: Monoid, inputs: Vec<Expr>, part: u16 },
    Philox { key: u64, index: Expr, step: Expr },
    Unary(Unary, Expr),
    Binary(Binary, Expr, Expr),
    Select(Expr, Expr, Expr),
    Cast(DType, Expr),
}

/// A scalar expression over a loop point. Cheap to clone; operators build trees.
#[derive(Clone, Debug)]
pub struct Expr(Rc<Node>);

fn expr(node: Node) -> Expr {
    Expr(Rc::new(node))
}
/// Operand `operand` at `coords`, which the verifier must see to be inside.
pub fn read<I: Into<Ix>>(operand: u16, coords: impl IntoIterator<Item = I>) -> Expr {
    expr(Node::Read { operand, coords: coords.into_iter().map(Into::into).collect(), fill: None })
}
/// Operand `operand` at `coords`, `fill` where that is outside.
pub fn read_or<I: Into<Ix>>(operand: u16, coords: impl IntoIterator<Item = I>, fill: f64) -> Expr {
    let coords = coords.into_iter().map(Into::into).collect();
    expr(Node::Read { operand, coords, fill: Some(Literal::Float(fill)) })
}
/// Whether a read is inside its operand.
pub fn valid(read: Expr) -> Expr {
    expr(Node::Valid(read))
}
/// A number, of the type of whatever it meets.
pub fn lit(x: f64) -> Expr {
    expr(Node::Literal(Literal::Float(x), None))
}
/// A number of a given type.
pub fn lit_as(x: f64, dtype: DType) -> Expr {
    expr(Node::Literal(Literal::Float(x).to(dtype), Some(dtype)))
}
/// A global index (i64): an affine map of the axes.
pub fn index(of: impl Into<Affine>) -> Expr {
    expr(Node::Index(of.into()))
}
/// Word `index mod 4` of Philox at counter (index / 4, step); see [`ScalarOp::Philox`].
pub fn philox(key: u64, index: Expr, step: Expr) -> Expr {
    expr(Node::Philox { key, index, step })
}
/// The second where the first holds, else the third.
pub fn select(condition: Expr, yes: impl Into<Expr>, no: impl Into<Expr>) -> Expr {
    expr(Node::Select(condition, yes.into(), no.into()))
}
/// Part `part` of a fold of `inputs` over all fold axes.
pub fn fold_part(monoid: Monoid, inputs: Vec<Expr>, part: u16) -> Expr {
    expr(Node::Fold { monoid, inputs, part })
}
/// Fold over all fold axes by a monoid of one part.
pub fn fold(monoid: Monoid, input: Expr) -> Expr {
    fold_part(monoid, vec![input], 0)
}
/// Sum over all fold axes.
pub fn sum(input: Expr) -> Expr {
    fold(Monoid::Sum, input)
}
/// Sum over all fold axes of products of two numbers of type `dtype`. They are multiplied in the type that their sums are
/// kept in: a product of two halves would else be rounded, and overflow, before it is added.
pub fn sum_of_products(a: Expr, b: Expr, dtype: DType) -> Expr {
    let wide = dtype.accumulator();
    sum(a.cast(wide) * b.cast(wide))
}

macro_rules! unary_methods {
    ($($(#[$doc:meta])* $method:ident => $op:ident),* $(,)?) => {
        impl Expr { $($(#[$doc])* pub fn $method(self) -> Expr { expr(Node::Unary(Unary::$op, self)) })* }
    };
}
unary_methods! {
    /// |x|.
    abs => Abs,
    /// −1, 0 or 1.
    sign => Sign,
    /// eˣ.
    exp => Exp,
    /// Natural logarithm.
    log => Log,
    /// Square root.
    sqrt => Sqrt,
    /// Hyperbolic tangent.
    tanh => Tanh,
    /// Sine.
    sin => Sin,
    /// Cosine.
    cos => Cos,
    /// The error function.
    erf => Erf,
    /// Largest integer not above.
    floor => Floor,
    /// Logical negation.
    logical_not => Not,
    /// Whether it is not a number.
    is_nan => IsNan,
}
macro_rules! binary_methods {
    ($($(#[$doc:meta])* $method:ident => $op:ident),* $(,)?) => {
        #[allow(clippy::should_implement_trait)] // `rem`, `shl`, `shr` stand beside `max` and `lt`, which are no operators.
        impl Expr {
            $($(#[$doc])* pub fn $method(self, other: impl Into<Expr>) -> Expr {
                expr(Node::Binary(Binary::$op, self, other.into()))
            })*
        }
    };
}
binary_methods! {
    /// Power.
    pow => Pow,
    /// The larger; NaN wins.
    max => Max,
    /// The smaller; NaN wins.
    min => Min,
    /// Less than.
    lt => Lt,
    /// Less than or equal.
    le => Le,
    /// Equal.
    eq => Eq,
    /// Not equal.
    ne => Ne,
    /// Both.
    and => And,
    /// Either.
    or => Or,
    /// Exclusive or.
    xor => Xor,
    /// Remainder.
    rem => Rem,
    /// Left shift.
    shl => Shl,
    /// Right shift.
    shr => Shr,
}
impl Expr {
    /// Converted; see [`ScalarOp::Cast`].
    pub fn cast(self, dtype: DType) -> Expr {
        expr(Node::Cast(dtype, self))
    }
    /// A function by name.
    pub fn unary(self, op: Unary) -> Expr {
        expr(Node::Unary(op, self))
    }
    /// A function of two by name.
    pub fn binary(self, op: Binary, other: impl Into<Expr>) -> Expr {
        expr(Node::Binary(op, self, other.into()))
    }
}
impl From<f64> for Expr {
    fn from(x: f64) -> Expr {
        lit(x)
    }
}
macro_rules! operators {
    ($($trait:ident $method:ident),*) => { $(
        impl<T: Into<Expr>> $trait<T> for Expr {
            type Output = Expr;
            fn $method(self, other: T) -> Expr { expr(Node::Binary(Binary::$trait, self, other.into())) }
        }
        impl $trait<Expr> for f64 {
            type Output = Expr;
            fn $method(self, other: Expr) -> Expr { expr(Node::Binary(Binary::$trait, lit(self), other)) }
        }
    )* };
}
operators!(Add add, Sub sub, Mul mul, Div div);
impl Neg for Expr {
    type Output = Expr;
    fn neg(self) -> Expr {
        expr(Node::Unary(Unary::Neg, self))
    }
}

/// The axes of a kernel being written.
#[derive(Default)]
pub struct Axes {
    axes: Vec<Axis>,
}

impl Axes {
    /// No axes yet.
    pub fn new() -> Self {
        Self::default()
    }
    fn add(&mut self, extent: u64, fold: bool) -> AxisVar {
        assert!(fold || !self.axes.iter().any(|a| a.fold), "parallel axes come before fold axes");
        self.axes.push(Axis::new(extent, fold));
        AxisVar((self.axes.len() - 1) as u16)
    }
    /// Parallel axes of these extents.
    pub fn par<const N: usize>(&mut self, extents: [u64; N]) -> [AxisVar; N] {
        extents.map(|e| self.add(e, false))
    }
    /// Fold axes of these extents.
    pub fn fold<const N: usize>(&mut self, extents: [u64; N]) -> [AxisVar; N] {
        extents.map(|e| self.add(e, true))
    }
    /// A parallel axis per extent of `shape`.
    pub fn par_over(&mut self, shape: &[u64]) -> Vec<AxisVar> {
        shape.iter().map(|e| self.add(*e, false)).collect()
    }
    /// A fold axis per extent of `shape`.
    pub fn fold_over(&mut self, shape: &[u64]) -> Vec<AxisVar> {
        shape.iter().map(|e| self.add(*e, true)).collect()
    }

    /// The nest that writes each of `values` to the result of the same position, at the parallel axes in order.
    pub fn nest(
        self,
        operands: &[BufferType],
        results: &[BufferType],
        values: impl IntoIterator<Item = Expr>,
    ) -> Kernel {
        let identity: Vec<Affine> =
            (0..self.axes.len()).filter(|a| !self.axes[*a].fold).map(|a| Affine::axis(a as u16)).collect();
        self.nest_at(operands, results, values.into_iter().map(|v| (v, identity.clone())))
    }

    /// The nest that writes each value at its own coordinates.
    pub fn nest_at(
        self,
        operands: &[BufferType],
        results: &[BufferType],
        values: impl IntoIterator<Item = (Expr, Vec<Affine>)>,
    ) -> Kernel {
        let mut to = Compiler::new(operands, self.axes);
        let mut writes = Vec::new();
        for (result, (value, coords)) in values.into_iter().enumerate() {
            let value = to.emit_as(&value, results[result].dtype, Side::Epilogue);
            writes.push(Write { result: result as u16, value, coords });
        }
        Kernel::Nest(LoopNest {
            operands: operands.to_vec(),
            results: results.to_vec(),
            axes: to.axes,
            reads: to.reads,
            body: to.body,
            folds: to.folds,
            epilogue: to.epilogue,
            writes,
        })
    }

    /// The scatter that adds `value` at `at` to a copy of operand `init` (none: to the neutral element).
    pub fn scatter<I: Into<Ix>>(
        self,
        operands: &[BufferType],
        result: &BufferType,
        init: Option<u16>,
        monoid: Monoid,
        at: impl IntoIterator<Item = I>,
        value: Expr,
    ) -> Kernel {
        let mut to = Compiler::new(operands, self.axes);
        let at = at.into_iter().map(|i| to.coord(&i.into())).collect();
        let value = to.emit_as(&value, result.dtype, Side::Body);
        Kernel::Scatter(Scatter {
            operands: operands.to_vec(),
            result: result.clone(),
            axes: to.axes,
            reads: to.reads,
            body: to.body,
            value,
            at,
            monoid,
            init,
        })
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    Body,
    Epilogue,
}

/// Turns trees into shared straight-line code.
struct Compiler<'a> {
    operands: &'a [BufferType],
    axes: Vec<Axis>,
    reads: Vec<Read>,
    body: Scalar,
    folds: Vec<Fold>,
    epilogue: Scalar,
    seen: Vec<(*const Node, bool, Option<DType>, Reg)>,
}

impl<'a> Compiler<'a> {
    fn new(operands: &'a [BufferType], axes: Vec<Axis>) -> Self {
        let (body, epilogue) = (Scalar::default(), Scalar::default());
        Self { operands, axes, reads: vec![], body, folds: vec![], epilogue, seen: vec![] }
    }
    fn program(&mut self, side: Side) -> &mut Scalar {
        if side == Side::Body { &mut self.body } else { &mut self.epilogue }
    }
    fn push(&mut self, side: Side, dtype: DType, op: ScalarOp) -> Reg {
        self.program(side).push(Inst { dtype, op })
    }
    fn read(&mut self, e: &Expr) -> u16 {
        let Node::Read { operand, coords, fill } = &*e.0 else { panic!("a coordinate or `valid` takes a plain read") };
        let coords = coords.iter().map(|c| self.coord(c)).collect();
        let dtype = self.operands[*operand as usize].dtype;
        let read = Read { operand: *operand, coords, fill: fill.map(|f| f.to(dtype)) };
        let found = self.reads.iter().position(|r| *r == read);
        found.unwrap_or_else(|| {
            self.reads.push(read);
            self.reads.len() - 1
        }) as u16
    }
    fn coord(&mut self, ix: &Ix) -> Coord {
        match ix {
            Ix::Plain(c) => c.clone(),
            Ix::Value(e, beyond) => Coord::Value { read: self.read(e), beyond: *beyond },
        }
    }
    /// The type an expression has by itself; `None` for a bare number.
    fn natural(&self, e: &Expr) -> Option<DType> {
        match &*e.0 {
            Node::Literal(_, dtype) => *dtype,
            Node::Read { operand, .. } => Some(self.operands[*operand as usize].dtype),
            Node::Valid(_) => Some(DType::Bool),
            Node::Index(_) => Some(DType::I64),
            Node::Fold { monoid, inputs, part } => {
                Some(monoid.part_dtype(*part as usize, self.natural(&inputs[0])?.accumulator()))
            }
            Node::Philox { .. } => Some(DType::U32),
            Node::Unary(Unary::Not | Unary::IsNan, _) => Some(DType::Bool),
            Node::Unary(_, a) => self.natural(a),
            Node::Binary(op, ..) if op.compares() => Some(DType::Bool),
            Node::Binary(_, a, b) | Node::Select(_, a, b) => self.natural(a).or_else(|| self.natural(b)),
            Node::Cast(dtype, _) => Some(*dtype),
        }
    }
    fn emit_as(&mut self, e: &Expr, dtype: DType, side: Side) -> Reg {
        let value = self.emit(e, Some(dtype), side);
        let has = self.program(side).dtype(value);
        if has == dtype { value } else { self.push(side, dtype, ScalarOp::Cast(value)) }
    }
    /// Code for `e`; `wanted` is the type that a bare number takes.
    fn emit(&mut self, e: &Expr, wanted: Option<DType>, side: Side) -> Reg {
        let natural = self.natural(e);
        let memo = (Rc::as_ptr(&e.0), side == Side::Body, if natural.is_some() { None } else { wanted });
        if let Some(found) = self.seen.iter().find(|s| (s.0, s.1, s.2) == memo) {
            return found.3;
        }
        let dtype = natural.or(wanted).unwrap_or(DType::F32);
        let reg = match &*e.0 {
            Node::Literal(x, _) => self.push(side, dtype, ScalarOp::Literal(x.to(dtype))),
            Node::Read { .. } => {
                let read = self.read(e);
                self.push(side, dtype, ScalarOp::Read(read))
            }
            Node::Valid(r) => {
                let read = self.read(r);
                self.push(side, DType::Bool, ScalarOp::Valid(read))
            }
            Node::Index(affine) => self.program(side).push_affine(affine),
            Node::Fold { monoid, inputs, part } => {
                assert!(side == Side::Epilogue, "a fold inside a fold");
                let input_dtype = self.natural(&inputs[0]).unwrap_or(dtype);
                let accumulator = input_dtype.accumulator();
                let mut regs = vec![self.emit_as(&inputs[0], accumulator, Side::Body)];
                if let Some(index) = inputs.get(1) {
                    regs.push(self.emit_as(index, DType::I64, Side::Body));
                }
                let fold = Fold { monoid: *monoid, inputs: regs, dtype: accumulator };
                let found = self.folds.iter().position(|f| *f == fold).unwrap_or_else(|| {
                    self.folds.push(fold);
                    self.folds.len() - 1
                });
                let part_dtype = monoid.part_dtype(*part as usize, accumulator);
                self.push(side, part_dtype, ScalarOp::Folded { fold: found as u16, part: *part })
            }
            Node::Philox { key, index, step } => {
                let index = self.emit_as(index, DType::I64, side);
                let step = self.emit_as(step, DType::I64, side);
                self.push(side, DType::U32, ScalarOp::Philox { key: *key, index, step })
            }
            Node::Unary(op, a) => {
                let a = self.emit(a, wanted, side);
                self.push(side, dtype, ScalarOp::Unary(*op, a))
            }
            Node::Binary(op, a, b) => {
                let common = self.natural(a).or_else(|| self.natural(b)).or(wanted);
                let (a, b) = (self.emit(a, common, side), self.emit(b, common, side));
                self.push(side, dtype, ScalarOp::Binary(*op, a, b))
            }
            Node::Select(c, a, b) => {
                let c = self.emit(c, None, side);
                let (a, b) = (self.emit(a, Some(dtype), side), self.emit(b, Some(dtype), side));
                self.push(side, dtype, ScalarOp::Select(c, a, b))
            }
            Node::Cast(to, a) => {
                let a = self.emit(a, Some(*to), side);
                if self.program(side).dtype(a) == *to { a } else { self.push(side, *to, ScalarOp::Cast(a)) }
            }
        };
        self.seen.push((memo.0, memo.1, memo.2, reg));
        reg
    }
}
