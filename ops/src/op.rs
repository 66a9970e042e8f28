//! What an author writes to add an op: [`Op`], in terms of [`Tensor`]s and kernels. The graph holds the object-safe
//! [`DynOp`]; `Erased` turns one into the other, so that nobody writes both.

use std::any::Any;
use std::sync::Arc;

use thalweg_graph::attrs::{AttrField, AttrList, Attrs};
use thalweg_graph::kernel::{BufferType, Kernel};
use thalweg_graph::op::{Demand, DynOp, GradientOf, InHalf, MakeOp, Mode, OpError, Registry, Schema};
use thalweg_graph::{Bindings, Builder, TensorType, Types, Value};

use crate::sample::{DynSample, Sample};
use crate::tensor::Tensor;

/// The cotangent of each operand; `None` where there is none (an integer, a condition).
pub type Gradients<'g> = Vec<Option<Tensor<'g>>>;

/// What a gradient is made from.
pub struct VjpCx<'g> {
    /// The node's operands.
    pub operands: Vec<Tensor<'g>>,
    /// The node's results.
    pub results: Vec<Tensor<'g>>,
    /// The cotangent of each result that has one.
    pub cotangents: Vec<Option<Tensor<'g>>>,
}

impl<'g> VjpCx<'g> {
    /// Operand `i`.
    pub fn operand(&self, i: usize) -> Tensor<'g> {
        self.operands[i]
    }
    /// Result 0.
    pub fn result(&self) -> Tensor<'g> {
        self.results[0]
    }
    /// The cotangent of result 0, zeros if it has none.
    pub fn ct(&self) -> Tensor<'g> {
        self.cotangents[0].unwrap_or_else(|| self.results[0].zeros_like())
    }
}

/// One operation: its attributes (by `attrs!`), types, meaning, gradient and samples. A *primitive* gives `lower`, a
/// *composite* gives `expand`; exactly one of them.
pub trait Op: Attrs {
    /// Name, operands, results, accuracy.
    const SCHEMA: Schema;
    /// How it fares with operands in a half type; unless it says so, it stays in f32 under mixed precision.
    const IN_HALF: InHalf = InHalf::Loses;
    /// Result types, or which constraint broke.
    fn infer(&self, operands: &[TensorType]) -> Result<Types, OpError>;
    /// What its operands' extents have to be for every value of named dimensions.
    fn demands(&self, _operands: &[TensorType]) -> Vec<Demand> {
        vec![]
    }
    /// A primitive's kernel: its definition and what devices run.
    fn lower(&self, _operands: &[BufferType], _results: &[BufferType]) -> Option<Kernel> {
        None
    }
    /// A composite's results in terms of other ops.
    fn expand<'g>(&self, _operands: &[Tensor<'g>], _mode: Mode) -> Option<Vec<Tensor<'g>>> {
        None
    }
    /// The cotangents of the operands. `None`: a composite inherits that of its expansion, a primitive has none.
    fn gradient<'g>(&self, _cx: &VjpCx<'g>) -> Option<Gradients<'g>> {
        None
    }
    /// Cases that exercise every attribute and edge; every conformance test runs on them.
    fn samples() -> Vec<Sample<Self>>;
}

/// An [`Op`] as a node holds it.
#[derive(Debug)]
struct Erased<T>(T);

/// An op ready for a node.
pub fn erase<T: Op>(op: T) -> Arc<dyn DynOp> {
    Arc::new(Erased(op))
}

impl<T: Op> DynOp for Erased<T> {
    fn schema(&self) -> &'static Schema {
        const { &T::SCHEMA }
    }
    fn attrs(&self) -> AttrList {
        self.0.attrs()
    }
    fn infer(&self, operands: &[TensorType]) -> Result<Types, OpError> {
        self.0.infer(operands)
    }
    fn demands(&self, operands: &[TensorType]) -> Vec<Demand> {
        self.0.demands(operands)
    }
    fn lower(&self, operands: &[BufferType], results: &[BufferType]) -> Option<Kernel> {
        self.0.lower(operands, results)
    }
    fn expand(&self, to: &Builder, operands: &[Value], mode: Mode) -> Option<Vec<Value>> {
        let operands: Vec<_> = operands.iter().map(|v| Tensor::new(to, *v)).collect();
        Some(self.0.expand(&operands, mode)?.into_iter().map(|t| t.value()).collect())
    }
    fn gradient(&self, to: &Builder, of: GradientOf<'_>) -> Option<Vec<Option<Value>>> {
        let tensors = |values: &[Value]| values.iter().map(|v| Tensor::new(to, *v)).collect();
        let cx = VjpCx {
            operands: tensors(of.operands),
            results: tensors(of.results),
            cotangents: of.cotangents.iter().map(|c| c.map(|v| Tensor::new(to, v))).collect(),
        };
        Some(self.0.gradient(&cx)?.into_iter().map(|g| g.map(|t| t.value())).collect())
    }
    fn in_half(&self) -> InHalf {
        T::IN_HALF
    }
    fn bind(&self, bindings: &Bindings) -> Option<Arc<dyn DynOp>> {
        Some(erase(self.0.bind(bindings)?))
    }
    fn as_any(&self) -> &dyn Any {
        &self.0
    }
}

/// A row of the table of ops.
pub struct OpRow {
    /// The op's fixed facts.
    pub schema: &'static Schema,
    make: MakeOp,
    /// The op's samples.
    pub samples: fn() -> Vec<DynSample>,
    /// What it is, as its author has written it.
    pub doc: fn() -> String,
    /// Its attributes.
    pub fields: fn() -> Vec<AttrField>,
}

impl OpRow {
    /// The row of `T`.
    pub const fn of<T: Op>() -> Self {
        Self {
            schema: const { &T::SCHEMA },
            make: |attrs, _| Ok(erase(T::from_attrs(T::SCHEMA.name, attrs)?)),
            samples: || T::samples().into_iter().map(Sample::erase).collect(),
            doc: T::doc,
            fields: T::fields,
        }
    }
    /// Makes the op known to text and bytes.
    pub fn register(&self, registry: &mut Registry) {
        registry.add(self.schema.name, self.make);
    }
}
