//! [`Graph`]: where a model is declared. A thin, friendly rim over the graph crate's builder: names, scopes, inputs,
//! parameters, programs.

use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::sync::Arc;

use thalweg_graph::builder::Builder;
use thalweg_graph::{DType, Diagnostic, Dim, Init, Pin, Shape, Site, Value, VarId, VarKind};

use crate::optim::LossScale;
use crate::precision::{self, Precision, mixed_precision};
use crate::tensor::Tensor;

/// A model being declared.
#[derive(Debug)]
pub struct Graph {
    builder: Builder,
    /// Programs in mixed precision, with the half type.
    mixed: RefCell<Vec<(Arc<str>, DType)>>,
}

impl Graph {
    /// An empty graph.
    pub fn new(name: &str) -> Self {
        Self { builder: Builder::new(name), mixed: RefCell::default() }
    }
    /// A finished graph, such as one that was read from bytes, to be compiled.
    ///
    /// ```
    /// use thalweg_graph::{DType::F32, Graph as Finished};
    /// use thalweg_ops::{Graph, registry};
    ///
    /// let g = Graph::new("double");
    /// g.program("run").outputs([(g.input("x", F32, [4]) * 2.0).named("y")]);
    /// let graph = g.finish().unwrap();
    /// let read = Finished::from_bytes(&graph.to_bytes(), &registry()).unwrap();
    /// assert_eq!(Graph::of(read).finish().unwrap(), graph);
    /// ```
    pub fn of(graph: thalweg_graph::Graph) -> Self {
        Self { builder: Builder::of(graph), mixed: RefCell::default() }
    }
    /// Sets what all random numbers start from: initial values, dropout, shuffles. Call it first.
    pub fn seed(self, seed: u64) -> Self {
        self.builder.set_seed(seed);
        self
    }
    /// A named dimension, `1..=512`; its value comes with the data.
    #[track_caller]
    pub fn dim(&self, name: &str, bounds: RangeInclusive<u64>) -> Dim {
        self.builder.dim(name, *bounds.start(), *bounds.end(), Site::here())
    }
    /// A value that is fed by name.
    #[track_caller]
    pub fn input(&self, name: &str, dtype: DType, shape: impl Into<Shape>) -> Tensor<'_> {
        Tensor::new(&self.builder, self.builder.input(name, dtype.of(shape), Site::here()))
    }
    /// A learned variable, called `name` in the open scope.
    #[track_caller]
    pub fn parameter(&self, name: &str, dtype: DType, shape: impl Into<Shape>, init: Init) -> Tensor<'_> {
        variable(&self.builder, name, dtype.of(shape), VarKind::Param, init, "").0
    }
    /// How parameters that are declared already are to be spread over the mesh of a strategy, by name, or by `*` and how names end:
    /// for those of layers. See [`Tensor::shard`].
    #[track_caller]
    pub fn shard<const N: usize>(&self, parameters: &str, axes: [Option<&str>; N]) {
        self.builder.shard_parameters(parameters, &axes, Site::here());
    }
    /// The step counter (i64, no axes): how many steps training programs have committed.
    #[track_caller]
    pub fn step(&self) -> Tensor<'_> {
        step(&self.builder)
    }
    /// Declares what `body` declares inside a scope.
    pub fn scope<T>(&self, name: &str, body: impl FnOnce() -> T) -> T {
        self.builder.scope(name, body)
    }
    /// Variables that `body` declares and that are there already, with the same types, are those: a layer that is called a second
    /// time, in the same scope, has the weights that it had.
    ///
    /// ```
    /// use thalweg_graph::{DType::F32, shape};
    /// use thalweg_ops::{Graph, nn::*};
    ///
    /// let g = Graph::new("twins");
    /// let (left, right) = (g.input("left", F32, shape![4, 8]), g.input("right", F32, shape![4, 8]));
    /// let tower = Sequential::new("tower").push("fc", Linear::new(3));
    /// let distance = tower.call(left) - g.shared(|| tower.call(right));
    /// g.program("compare").outputs([distance.named("distance")]);
    /// assert_eq!(g.finish().unwrap().state.len(), 2);
    /// ```
    pub fn shared<T>(&self, body: impl FnOnce() -> T) -> T {
        self.builder.shared(body)
    }
    /// What `body` declares, with its gradients, is stage `stage` of a pipeline, from 0; so are the variables that it reads
    /// first. See [`Strategy::pipeline`](thalweg_graph::Strategy::pipeline).
    pub fn stage<T>(&self, stage: u16, body: impl FnOnce() -> T) -> T {
        self.builder.pinned(Pin::Stage(stage), body)
    }
    /// What `body` declares, with its gradients, runs on the device of this name (`gpu:0`), whatever a strategy says; so do the
    /// variables that it reads first.
    pub fn on<T>(&self, device: &str, body: impl FnOnce() -> T) -> T {
        self.builder.pinned(Pin::On(device.into()), body)
    }
    /// Declares a program: `g.program("train").outputs([loss]).update(…)`.
    #[track_caller]
    pub fn program(&self, name: &str) -> ProgramBuilder<'_> {
        ProgramBuilder {
            builder: &self.builder,
            mixed: &self.mixed,
            precision: Precision::Declared,
            name: name.into(),
            inputs: None,
            outputs: vec![],
            updates: vec![],
            site: Site::here(),
        }
    }
    /// The graph as data, with its programs in the precision that each asks for, or every mistake of the declaration.
    pub fn finish(&self) -> Result<thalweg_graph::Graph, Vec<Diagnostic>> {
        let mixed = self.mixed.borrow();
        mixed.iter().try_fold(self.builder.finish()?, |graph, (program, half)| mixed_precision(&graph, program, *half))
    }
    /// Whether any program asks for mixed precision.
    pub fn is_mixed(&self) -> bool {
        !self.mixed.borrow().is_empty()
    }
    /// What it is built with.
    pub fn builder(&self) -> &Builder {
        &self.builder
    }
}

/// Declares a variable; gives its value at the start of a step, and its id.
#[track_caller]
pub(crate) fn variable<'g>(
    builder: &'g Builder,
    name: &str,
    ty: thalweg_graph::TensorType,
    kind: VarKind,
    init: Init,
    group: &str,
) -> (Tensor<'g>, Option<VarId>) {
    let site = Site::here();
    let id = builder.variable(name, ty, kind, init, group, site.clone());
    let value = id.map_or(Value::POISON, |id| builder.read(id, site));
    (Tensor::new(builder, value), id)
}

/// The step counter, declared when first asked for.
#[track_caller]
pub(crate) fn step(builder: &Builder) -> Tensor<'_> {
    let site = Site::here();
    let value = step_variable(builder, &site).map_or(Value::POISON, |id| builder.read(id, site));
    Tensor::new(builder, value)
}

/// `None`, and a mistake, where something else is called `step`.
fn step_variable(builder: &Builder, site: &Site) -> Option<VarId> {
    let is_counter = |id: &VarId| builder.with_graph(|g| g.state[*id].kind == VarKind::Counter);
    builder.with_graph(|g| g.variable("step")).filter(is_counter).or_else(|| {
        let ty = DType::I64.of(());
        builder.at_root(|| builder.variable("step", ty, VarKind::Counter, Init::Constant(0.0), "", site.clone()))
    })
}

/// What a program sets at the end of a step.
#[derive(Clone, Debug, Default)]
pub struct Update {
    /// Variable and new value.
    pub updates: Vec<(VarId, Value)>,
}

/// A program being declared; it is complete when this is dropped.
pub struct ProgramBuilder<'g> {
    builder: &'g Builder,
    mixed: &'g RefCell<Vec<(Arc<str>, DType)>>,
    precision: Precision,
    name: Arc<str>,
    inputs: Option<Vec<Value>>,
    /// Those without a name have that of their tensors.
    outputs: Vec<(Option<Arc<str>>, Value)>,
    updates: Vec<(VarId, Value)>,
    site: Site,
}

impl<'g> ProgramBuilder<'g> {
    /// What it returns, by the names that the tensors were given.
    pub fn outputs<const N: usize>(mut self, outputs: [Tensor<'g>; N]) -> Self {
        self.outputs.extend(outputs.map(|t| (None, t.value())));
        self
    }
    /// Returns a tensor as `name`, whatever it is called itself.
    pub fn output(mut self, name: &str, tensor: Tensor<'g>) -> Self {
        self.outputs.push((Some(name.into()), tensor.value()));
        self
    }
    /// States which inputs it takes: needing another one is a mistake.
    pub fn inputs<const N: usize>(mut self, inputs: [Tensor<'g>; N]) -> Self {
        self.inputs.get_or_insert_default().extend(inputs.map(Tensor::value));
        self
    }
    /// In which types it computes: `.precision(Precision::Mixed(BF16))`. Its outputs and variables have their declared
    /// types all the same.
    pub fn precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }
    /// What it sets at the end of a step; makes it a training program, which also counts the step.
    pub fn update(mut self, update: Update) -> Self {
        self.updates.extend(update.updates);
        self
    }
}

impl Drop for ProgramBuilder<'_> {
    fn drop(&mut self) {
        if self.builder.has_mistakes() {
            return;
        }
        let mut updates = std::mem::take(&mut self.updates);
        self.note_precision(&updates);
        if !updates.is_empty() {
            let next = step(self.builder) + 1.0;
            updates.extend(step_variable(self.builder, &self.site).map(|id| (id, next.value())));
        }
        let name = |(i, (name, v)): (usize, &(Option<Arc<str>>, Value))| {
            let name = name.clone().or_else(|| self.builder.node(*v).name);
            (name.unwrap_or_else(|| format!("output{i}").into()), *v)
        };
        let outputs: Vec<_> = self.outputs.iter().enumerate().map(name).collect();
        self.builder.program(&self.name, outputs, updates, self.site.clone());
        if let Some(stated) = &self.inputs {
            self.check_inputs(stated);
        }
    }
}

impl ProgramBuilder<'_> {
    fn note_precision(&self, updates: &[(VarId, Value)]) {
        let is_scale = |(id, _): &(VarId, Value)| self.builder.with_graph(|g| LossScale::owns(&g.state[*id]));
        let wrong = precision::mistake(self.precision, !updates.is_empty(), updates.iter().any(is_scale));
        if let Some((rule, what, help)) = wrong {
            let what = format!("program `{}`: {what}", self.name);
            self.builder.mistake(Diagnostic::new(rule, what, self.site.clone()).help(help));
        } else if let Precision::Mixed(half) = self.precision {
            self.mixed.borrow_mut().push((self.name.clone(), half));
        }
    }
    fn check_inputs(&self, stated: &[Value]) {
        let missing: Vec<_> = self.builder.with_graph(|g| {
            let program = g.program(&self.name);
            let inputs = program.map(|p| g.inputs_of(p)).unwrap_or_default();
            inputs.iter().filter(|(id, _)| !stated.contains(&(*id).into())).map(|(_, i)| i.name.clone()).collect()
        });
        for name in missing {
            let what = format!("program `{}` also needs the input `{name}`", self.name);
            self.builder
                .mistake(Diagnostic::new("program", what, self.site.clone()).help("add it to the program's inputs"));
        }
    }
}
