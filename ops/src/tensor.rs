//! [`Tensor`]: the handle models are written in. Two words, `Copy`, no data and no `Result`: a mistake makes it poison
//! and is reported when the graph is finished, at the line that made it.

use std::fmt;

use thalweg_graph::{Builder, DType, Dim, Init, Shape, Site, TensorType, Value, VarKind};

use crate::op::{Op, erase};

/// A value of a graph being declared.
#[derive(Clone, Copy)]
pub struct Tensor<'g> {
    graph: &'g Builder,
    value: Value,
}

impl<'g> Tensor<'g> {
    /// The handle of a value.
    pub fn new(graph: &'g Builder, value: Value) -> Self {
        Self { graph, value }
    }
    /// The graph it belongs to.
    pub fn graph(self) -> &'g Builder {
        self.graph
    }
    /// The value it stands for.
    pub fn value(self) -> Value {
        self.value
    }
    /// Whether it stems from a mistake.
    pub fn is_poison(self) -> bool {
        self.value.is_poison()
    }
    /// Its type; a poisoned tensor, which has none, says `f32[]`: what is built on it is poison too.
    pub fn ty(self) -> TensorType {
        if self.is_poison() { DType::F32.of(()) } else { self.graph.ty(self.value) }
    }
    /// Element type.
    pub fn dtype(self) -> DType {
        self.ty().dtype
    }
    /// Extents, outermost first.
    pub fn shape(self) -> Shape {
        self.ty().shape
    }
    /// Number of axes.
    pub fn rank(self) -> usize {
        self.shape().rank()
    }
    /// One extent.
    ///
    /// # Panics
    /// If there is no such axis.
    #[track_caller]
    pub fn dim(self, axis: usize) -> Dim {
        self.shape()[axis].clone()
    }
    /// Names it, for fetching, for people and for errors.
    pub fn named(self, name: &str) -> Self {
        self.graph.name(self.value, name);
        self
    }
    /// How this is to be spread over the mesh of a strategy: per axis, the name of an axis of the
    /// [mesh](thalweg_graph::Strategy::mesh), or none. Of a parameter or an input that is how it lies, and how the rest is computed
    /// follows; the rows of a batch are spread along the first axis of the mesh, unless something else is said of them. A value that
    /// is computed is spread so where its op allows it, and `explain` says where it does not. The same model runs anywhere: where
    /// no mesh is said, nothing else is cut.
    ///
    /// ```
    /// use thalweg_graph::{DType::F32, Init, Strategy, shape};
    /// use thalweg_ops::Graph;
    ///
    /// let g = Graph::new("wide");
    /// let x = g.input("x", F32, shape![8, 16]);
    /// let up = g.parameter("up", F32, [16, 64], Init::Constant(0.1)).shard([None, Some("tp")]);
    /// let down = g.parameter("down", F32, [64, 16], Init::Constant(0.1)).shard([Some("tp"), None]);
    /// g.program("run").outputs([x.matmul(up).relu().matmul(down).named("y")]);
    /// let four = Strategy::data_parallel().mesh(&[("dp", 2), ("tp", 2)]);
    /// ```
    #[track_caller]
    pub fn shard<const N: usize>(self, axes: [Option<&str>; N]) -> Self {
        self.graph.shard(self.value, &axes, Site::here());
        self
    }
    /// Lets every program that computes this also return it, as `name`. A name is given once; a tap that no program computes
    /// is a mistake. What is returned is not fused into its reader, and a device may add up a fold that it was fused into
    /// in another order: the last bits of what follows can differ from those of the model without the tap.
    #[track_caller]
    pub fn tap(self, name: &str) -> Self {
        self.graph.tap(self.value, name, Site::here());
        self
    }
    /// Lets every program that computes the gradient of its loss with respect to this also return that, as `name`. Call it
    /// before the gradient is taken, so before `minimize`.
    #[track_caller]
    pub fn tap_grad(self, name: &str) -> Self {
        self.graph.tap_gradient(self.value, name, Site::here());
        self
    }
    /// Lets every program that computes this fail before it commits where an element is infinite or NaN; the error names
    /// the first node on the way here that made one. Floats only.
    #[track_caller]
    pub fn check_finite(self) -> Self {
        self.graph.check_finite(self.value, Site::here());
        self
    }
    /// A learned variable of this tensor's graph, called `name` in the open scope: how a layer of your own declares what
    /// it learns. A name that the scope has already is a mistake, reported when the graph is finished.
    #[track_caller]
    pub fn parameter(self, name: &str, dtype: DType, shape: impl Into<Shape>, init: Init) -> Tensor<'g> {
        crate::graph::variable(self.graph, name, dtype.of(shape), VarKind::Param, init, "").0
    }
    /// Applies an op of one result to this and `others`. Ops are methods made of this; so are yours.
    #[track_caller]
    pub fn apply<T: Op>(self, op: T, others: impl IntoIterator<Item = Tensor<'g>>) -> Tensor<'g> {
        self.apply_all(op, others)[0]
    }
    /// Applies an op of several results.
    #[track_caller]
    pub fn apply_all<T: Op>(self, op: T, others: impl IntoIterator<Item = Tensor<'g>>) -> Vec<Tensor<'g>> {
        let operands: Vec<Value> = std::iter::once(self.value).chain(others.into_iter().map(|t| t.value)).collect();
        let results = self.graph.apply(erase(op), &operands, Site::here());
        results.into_iter().map(|v| Tensor::new(self.graph, v)).collect()
    }
    /// Applies an op without operands in this tensor's graph.
    #[track_caller]
    pub fn source<T: Op>(self, op: T) -> Tensor<'g> {
        if self.is_poison() {
            return self;
        }
        Tensor::new(self.graph, self.graph.apply(erase(op), &[], Site::here())[0])
    }
    /// A constant of this tensor's element type, without axes.
    #[track_caller]
    pub fn scalar_like(self, x: f64) -> Tensor<'g> {
        self.full(x, ())
    }
    /// Zeros of this tensor's type.
    #[track_caller]
    pub fn zeros_like(self) -> Tensor<'g> {
        self.full(0.0, self.shape())
    }
    /// Ones of this tensor's type.
    #[track_caller]
    pub fn ones_like(self) -> Tensor<'g> {
        self.full(1.0, self.shape())
    }
    /// `value` everywhere, in this tensor's element type and graph.
    #[track_caller]
    pub fn full(self, value: f64, shape: impl Into<Shape>) -> Tensor<'g> {
        self.source(crate::layout::full::Full { value, dtype: self.dtype(), shape: shape.into() })
    }
}

impl fmt::Debug for Tensor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_poison() { f.write_str("%poison") } else { write!(f, "{}: {}", self.value, self.ty()) }
    }
}
