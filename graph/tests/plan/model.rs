//! A handful of ops whose kernels differ in all that lowering asks of a kernel, and graphs made of them. Not the real
//! ops, which cannot be wrong on purpose.

#![allow(missing_docs, unreachable_pub)]

use std::any::Any;
use std::sync::Arc;

use thalweg_graph::attrs::AttrList;
use thalweg_graph::kernel::build::{Axes, lit, read, read_or, sum};
use thalweg_graph::kernel::{Affine, BufferType, Kernel};
use thalweg_graph::op::GradientOf;
use thalweg_graph::{
    Accuracy, Bindings, Builder, DType, DynOp, Graph, Init, Mode, OpError, Schema, Site, TensorType, Types, Value,
    VarId, VarKind,
};

/// The ops of these tests. `Bad` has an unsound kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Add,
    Least,
    Step,
    Scale,
    Both,
    Reverse,
    Half,
    Sum,
    Square,
    Flat,
    Head,
    Grow,
    Bad,
}
pub use Kind::*;

pub const KINDS: [Kind; 12] = [Add, Least, Step, Scale, Both, Reverse, Half, Sum, Square, Flat, Head, Grow];

#[derive(Debug)]
pub struct Do(pub Kind);

impl DynOp for Do {
    fn schema(&self) -> &'static Schema {
        const fn of(operands: &'static [&'static str], results: &'static [&'static str]) -> Schema {
            Schema { name: "do", operands, results, accuracy: Accuracy::Exact }
        }
        const NONE: Schema = of(&[], &["out"]);
        const ONE: Schema = of(&["x"], &["out"]);
        const TWO: Schema = of(&["x", "y"], &["out"]);
        const BOTH: Schema = of(&["x", "y"], &["sum", "least"]);
        match self.0 {
            Add | Least | Step | Scale => &TWO,
            Both => &BOTH,
            Half => &NONE,
            _ => &ONE,
        }
    }
    fn attrs(&self) -> AttrList {
        vec![]
    }
    fn infer(&self, operands: &[TensorType]) -> Result<Types, OpError> {
        let to = |shape: &[u64]| DType::F32.of(shape);
        let x = operands.first().cloned().unwrap_or_else(|| to(&[4]));
        Ok(match self.0 {
            Both => vec![x.clone(), x],
            Sum => vec![to(&[])],
            Square => vec![to(&[2, 2])],
            Flat | Grow => vec![to(&[4])],
            Head => vec![to(&[2])],
            _ => vec![x],
        })
    }
    fn lower(&self, operands: &[BufferType], results: &[BufferType]) -> Option<Kernel> {
        let mut axes = Axes::new();
        if self.0 == Sum {
            let folded = axes.fold_over(&operands[0].shape);
            return Some(axes.nest(operands, results, [sum(read(0, folded))]));
        }
        if self.0 == Flat {
            let [i, j] = axes.par([2, 2]);
            return Some(axes.nest_at(operands, results, [(read(0, [i, j]), vec![i * 2 + j])]));
        }
        let at: Vec<Affine> = axes.par_over(&results[0].shape).into_iter().map(Affine::from).collect();
        let (x, y) = (|| read(0, at.clone()), || read(1, at.clone()));
        let values = match self.0 {
            Add => vec![x() + y()],
            Least => vec![x().min(y())],
            Step => vec![x() - y() * 0.5],
            Scale => vec![x() * read(1, Vec::<Affine>::new())],
            Both => vec![x() + y(), x().min(y())],
            Reverse => vec![read(0, at.iter().zip(&results[0].shape).map(|(a, n)| -a.clone() + (*n as i64 - 1)))],
            Half => vec![lit(0.5)],
            Square => vec![read(0, [at[0].clone() * 2 + at[1].clone()])],
            Head => vec![read(0, at.clone())],
            Grow => vec![read_or(0, at.clone(), 0.25)],
            Bad => vec![read(0, [at[0].clone() + 1i64])],
            Sum | Flat => unreachable!("done above"),
        };
        Some(axes.nest(operands, results, values))
    }
    fn expand(&self, _: &Builder, _: &[Value], _: Mode) -> Option<Vec<Value>> {
        None
    }
    fn gradient(&self, _: &Builder, _: GradientOf<'_>) -> Option<Vec<Option<Value>>> {
        None
    }
    fn bind(&self, _: &Bindings) -> Option<Arc<dyn DynOp>> {
        Some(Arc::new(Do(self.0)))
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A graph being made.
pub struct Model {
    pub g: Builder,
    pub variables: Vec<VarId>,
}

impl Model {
    pub fn new() -> Self {
        Self { g: Builder::new("test"), variables: vec![] }
    }
    pub fn input(&self, name: &str, shape: &[u64]) -> Value {
        self.g.input(name, DType::F32.of(shape), Site::default())
    }
    /// The old value of a new variable.
    pub fn variable(&mut self, shape: &[u64]) -> Value {
        let name = format!("v{}", self.variables.len());
        let ty = DType::F32.of(shape);
        let new = self.g.variable(&name, ty, VarKind::Param, Init::Constant(0.0), "", Site::default());
        self.variables.push(new.expect("a fresh name"));
        self.g.read(new.expect("a fresh name"), Site::default())
    }
    pub fn all(&self, kind: Kind, operands: &[Value]) -> Vec<Value> {
        let value = self.g.apply(Arc::new(Do(kind)), operands, Site::default());
        assert!(value.iter().all(|v| !v.is_poison()), "{kind:?}");
        value
    }
    pub fn op(&self, kind: Kind, operands: &[Value]) -> Value {
        self.all(kind, operands)[0]
    }
    pub fn program(&self, name: &str, outputs: &[Value], updates: &[(usize, Value)]) {
        let outputs = outputs.iter().enumerate().map(|(i, v)| (format!("out{i}").into(), *v)).collect();
        let updates = updates.iter().map(|(i, v)| (self.variables[*i], *v)).collect();
        self.g.program(name, outputs, updates, Site::default());
    }
    pub fn finish(self) -> Graph {
        self.g.finish().expect("a sound graph")
    }
}
