//! A graph being declared, for Python. The Rust library keeps open scopes while closures run; Python opens and closes them with `with`, so that here
//! each call says itself where it is: a [`Place`], and the user's line.

use std::path::PathBuf;

use parking_lot::{ReentrantMutex, ReentrantMutexGuard};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use thalweg::draw::DrawError;
use thalweg::graph::bounds;
use thalweg::graph::{DType, Init, Pin, Site};
use thalweg::ops::autodiff::gradients;
use thalweg::{Precision, Tensor};

use crate::errors::{exception, guarded, mistakes};
use crate::model::Model;
use crate::types::{self, Dim, Extent};
use crate::{cluster, custom, layers, optimizers, table};

/// The user's line: file, line and column from 1.
type At = (String, u32, u32);

fn site((file, line, column): At) -> Site {
    Site { file: file.into(), line, column }
}

/// Where something is declared: the scope's dotted path, where it is to run, and whether variables that are there are meant again.
#[pyclass(frozen, module = "thalweg._thalweg")]
pub(crate) struct Place {
    scope: String,
    pin: Option<Pin>,
    shared: bool,
    /// Where what is being differentiated is: scope, line and all.
    derived: bool,
}

#[pymethods]
impl Place {
    #[new]
    #[pyo3(signature = (scope, stage=None, device=None, shared=false))]
    fn new(scope: String, stage: Option<u16>, device: Option<&str>, shared: bool) -> Self {
        let pin = stage.map(Pin::Stage).or_else(|| device.map(|d| Pin::On(d.into())));
        Self { scope, pin, shared, derived: false }
    }
    /// Where what is being differentiated is.
    #[staticmethod]
    fn derived() -> Self {
        Self { scope: String::new(), pin: None, shared: false, derived: true }
    }
}

impl Place {
    /// Declares what `body` declares there, for the user's line.
    fn within<T>(&self, graph: &thalweg::Graph, at: At, body: impl FnOnce() -> T) -> T {
        let builder = graph.builder();
        if self.derived {
            return body();
        }
        let sited = || builder.at_site(site(at), body);
        let pinned = || match &self.pin {
            Some(pin) => builder.pinned(pin.clone(), sited),
            None => sited(),
        };
        let shared = || if self.shared { builder.shared(pinned) } else { pinned() };
        builder.at_root(|| builder.scope(&self.scope, shared))
    }
}

/// A value of a graph.
#[pyclass(frozen, module = "thalweg._thalweg")]
#[derive(Clone, Copy)]
pub(crate) struct Value(pub(crate) thalweg::graph::Value);

#[pymethods]
impl Value {
    /// Whether it stems from a mistake.
    #[getter]
    fn poison(&self) -> bool {
        self.0.is_poison()
    }
}

/// What an op is applied to: a value, or a number that becomes one of the first value's element type.
#[derive(FromPyObject)]
enum Operand<'py> {
    Value(PyRef<'py, Value>),
    Number(f64),
}

/// What a program sets at the end of a step.
#[pyclass(frozen, module = "thalweg._thalweg")]
pub(crate) struct Update(pub(crate) thalweg::ops::Update);

/// A graph being declared. Whoever asks for a gradient may be asked back for that of an op of Python's, and declares it meanwhile.
#[pyclass(frozen, module = "thalweg._thalweg")]
pub(crate) struct Graph(ReentrantMutex<thalweg::Graph>);

impl Graph {
    pub(crate) fn lock(&self) -> ReentrantMutexGuard<'_, thalweg::Graph> {
        loop {
            if let Some(graph) = self.0.try_lock() {
                return graph;
            }
            // Whoever has it may be waiting for Python's lock.
            Python::attach(|py| py.detach(|| std::thread::sleep(std::time::Duration::from_micros(100))));
        }
    }
    /// Declares something at a place, for the user's line.
    fn declare<T>(
        &self,
        py: Python<'_>,
        place: &Place,
        at: At,
        body: impl FnOnce(&thalweg::Graph) -> T,
    ) -> PyResult<T> {
        let graph = self.lock();
        guarded(py, || place.within(&graph, at, || body(&graph)))
    }
    /// The same, for one value made of another.
    fn derive(
        &self,
        py: Python<'_>,
        (place, at): (&Place, At),
        x: &Value,
        body: impl for<'g> FnOnce(Tensor<'g>) -> Tensor<'g>,
    ) -> PyResult<Value> {
        self.declare(py, place, at, |graph| Value(body(Tensor::new(graph.builder(), x.0)).value()))
    }
}

#[pymethods]
impl Graph {
    #[new]
    fn new(name: &str, seed: u64) -> Self {
        Self(ReentrantMutex::new(thalweg::Graph::new(name).seed(seed)))
    }
    /// A graph as [`to_bytes`](Self::to_bytes) gives it.
    #[staticmethod]
    fn from_bytes(py: Python<'_>, bytes: &[u8]) -> PyResult<Self> {
        let read = guarded(py, || thalweg::graph::Graph::from_bytes(bytes, &thalweg::ops::registry()))?;
        let graph = read.map_err(|e| exception(py, "GraphError", &format!("these bytes are no graph: {e}")))?;
        Ok(Self(ReentrantMutex::new(thalweg::Graph::of(graph))))
    }
    /// Its name, and what its random numbers start from.
    fn identity(&self) -> (String, u64) {
        self.lock().builder().with_graph(|g| (g.name.to_string(), g.seed))
    }
    fn dim(&self, py: Python<'_>, name: &str, low: u64, high: u64, at: At) -> PyResult<Dim> {
        let graph = self.lock();
        guarded(py, || Dim(graph.builder().dim(name, low, high, site(at))))
    }
    /// What keeps `less` from being at most `more` for every value of named dimensions: what to declare otherwise, if that is of
    /// use. Nothing where it is.
    fn shortfall(&self, less: Extent<'_>, more: Extent<'_>) -> PyResult<Option<String>> {
        let Some(rest) = more.dim()?.minus(&less.dim()?) else { return Ok(Some(String::new())) };
        Ok(self.lock().builder().with_graph(|graph| {
            if bounds::never_negative(&rest, &graph.dims) {
                return None;
            }
            let Some((name, (low, high))) = bounds::enough(&rest, &graph.dims) else { return Some(String::new()) };
            let raised = graph.dims.get(&name).is_none_or(|is| is.0 != low);
            let (bound, value) = if raised { ("min", low) } else { ("max", high) };
            Some(format!("declare `{name}` with `{bound}={value}`"))
        }))
    }
    fn input(&self, py: Python<'_>, name: &str, dtype: &str, shape: &Bound<'_, PyAny>, at: At) -> PyResult<Value> {
        let ty = types::dtype(dtype)?.of(types::shape(shape)?);
        let graph = self.lock();
        guarded(py, || Value(graph.builder().input(name, ty, site(at))))
    }
    /// `init` is `constant` with a number, or `uniform` or `normal` with two.
    #[expect(clippy::too_many_arguments, reason = "as Python calls it")]
    fn parameter(
        &self,
        py: Python<'_>,
        place: &Place,
        at: At,
        name: &str,
        dtype: &str,
        shape: &Bound<'_, PyAny>,
        init: (String, f64, f64),
    ) -> PyResult<Value> {
        let (dtype, shape) = (types::dtype(dtype)?, types::shape(shape)?);
        let init = match (&*init.0, init.1, init.2) {
            ("uniform", low, high) => Init::Uniform { low, high },
            ("normal", mean, std) => Init::Normal { mean, std },
            (_, value, _) => Init::Constant(value),
        };
        self.declare(py, place, at, |graph| Value(graph.parameter(name, dtype, shape, init).value()))
    }
    /// Applies an op of the table; numbers among the operands become constants.
    #[pyo3(signature = (place, at, op, operands, attrs=None))]
    fn apply<'py>(
        &self,
        py: Python<'py>,
        place: &Place,
        at: At,
        op: &str,
        operands: Vec<Operand<'py>>,
        attrs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Vec<Value>> {
        let op = table::make(op, attrs)?;
        self.declare(py, place, at, |graph| {
            let builder = graph.builder();
            let values = operands.iter().filter_map(|o| if let Operand::Value(v) = o { Some(v.0) } else { None });
            // Beside a condition, a number is of the other side's type.
            let typed = values.clone().find(|v| !v.is_poison() && builder.ty(*v).dtype != DType::Bool);
            let like = typed.or(values.clone().next()).map(|v| Tensor::new(builder, v));
            let operand = |o: &Operand<'_>| match (o, like) {
                (Operand::Value(v), _) => v.0,
                (Operand::Number(x), Some(like)) => like.scalar_like(*x).value(),
                (Operand::Number(_), None) => thalweg::graph::Value::POISON,
            };
            let operands: Vec<_> = operands.iter().map(operand).collect();
            builder.apply(op, &operands, Site::default()).into_iter().map(Value).collect()
        })
    }
    /// Applies an op that a Python object says.
    fn apply_custom(
        &self,
        py: Python<'_>,
        place: &Place,
        at: At,
        op: &Bound<'_, PyAny>,
        operands: Vec<PyRef<'_, Value>>,
    ) -> PyResult<Vec<Value>> {
        let op = custom::make(op)?;
        self.declare(py, place, at, |graph| {
            let operands: Vec<_> = operands.iter().map(|v| v.0).collect();
            graph.builder().apply(op, &operands, Site::default()).into_iter().map(Value).collect()
        })
    }
    /// Calls a layer, which declares its parameters in the scope.
    fn layer(
        &self,
        py: Python<'_>,
        place: &Place,
        at: At,
        kind: &str,
        options: &Bound<'_, PyDict>,
        x: &Value,
    ) -> PyResult<Value> {
        let layer = layers::layer(kind, options)?;
        self.derive(py, (place, at), x, |x| layer.call(x))
    }
    fn dropout(&self, py: Python<'_>, place: &Place, at: At, x: &Value, p: f64) -> PyResult<Value> {
        self.derive(py, (place, at), x, |x| x.dropout(p))
    }
    /// The number of committed training steps, i64.
    fn step(&self, py: Python<'_>, place: &Place, at: At) -> PyResult<Value> {
        self.declare(py, place, at, |graph| Value(graph.step().value()))
    }
    /// What the derivative of `of` is with respect to each of `wrt`.
    fn gradients(
        &self,
        py: Python<'_>,
        place: &Place,
        at: At,
        of: &Value,
        wrt: Vec<PyRef<'_, Value>>,
    ) -> PyResult<Vec<Value>> {
        self.declare(py, place, at, |graph| {
            let builder = graph.builder();
            let tensor = |v: &Value| Tensor::new(builder, v.0);
            if of.0.is_poison() || wrt.iter().any(|v| v.0.is_poison()) {
                return wrt.iter().map(|_| Value(thalweg::graph::Value::POISON)).collect();
            }
            let wrt: Vec<_> = wrt.iter().map(|v| tensor(v)).collect();
            gradients(tensor(of), &wrt).into_iter().map(|t| Value(t.value())).collect()
        })
    }
    /// What an optimizer does to what `loss` depends on.
    fn minimize(
        &self,
        py: Python<'_>,
        place: &Place,
        at: At,
        rule: &str,
        options: &Bound<'_, PyDict>,
        loss: &Value,
    ) -> PyResult<Update> {
        let optimizer = optimizers::Options::of(rule, options)?;
        self.declare(py, place, at, |graph| Update(optimizer.minimize(graph.builder(), loss.0)))
    }
    #[pyo3(signature = (at, name, outputs, inputs, update, precision))]
    #[expect(clippy::too_many_arguments, reason = "as Python calls it")]
    fn program(
        &self,
        py: Python<'_>,
        at: At,
        name: &str,
        outputs: Vec<(Option<String>, PyRef<'_, Value>)>,
        inputs: Option<Vec<PyRef<'_, Value>>>,
        update: Option<PyRef<'_, Update>>,
        precision: Option<&str>,
    ) -> PyResult<()> {
        let half = precision.map(types::dtype).transpose()?.filter(|d| *d != DType::F32);
        let place = Place::new(String::new(), None, None, false);
        self.declare(py, &place, at, |graph| {
            let tensor = |v: &Value| Tensor::new(graph.builder(), v.0);
            let mut program = graph.program(name);
            for (name, value) in &outputs {
                program = match name {
                    Some(name) => program.output(name, tensor(value)),
                    None => program.outputs([tensor(value)]),
                };
            }
            if let Some(inputs) = &inputs {
                program = inputs.iter().fold(program.inputs([]), |p, v| p.inputs([tensor(v)]));
            }
            if let Some(update) = update {
                program = program.update(update.0.clone());
            }
            if let Some(half) = half {
                program = program.precision(Precision::Mixed(half));
            }
            drop(program);
        })
    }
    fn name(&self, value: &Value, name: &str) {
        self.lock().builder().name(value.0, name);
    }
    /// The name that a value was given.
    fn name_of(&self, value: &Value) -> Option<String> {
        self.lock().builder().node(value.0).name.map(|n| n.to_string())
    }
    fn tap(&self, value: &Value, name: &str, gradient: bool, at: At) {
        let graph = self.lock();
        match gradient {
            true => graph.builder().tap_gradient(value.0, name, site(at)),
            false => graph.builder().tap(value.0, name, site(at)),
        }
    }
    fn shard(&self, value: &Value, axes: Vec<Option<String>>, at: At) {
        let axes: Vec<Option<&str>> = axes.iter().map(Option::as_deref).collect();
        self.lock().builder().shard(value.0, &axes, site(at));
    }
    fn shard_parameters(&self, pattern: &str, axes: Vec<Option<String>>, at: At) {
        let axes: Vec<Option<&str>> = axes.iter().map(Option::as_deref).collect();
        self.lock().builder().shard_parameters(pattern, &axes, site(at));
    }
    fn check_finite(&self, value: &Value, at: At) {
        self.lock().builder().check_finite(value.0, site(at));
    }
    /// Element type and extents. All mistakes so far where there is none.
    fn type_of<'py>(&self, py: Python<'py>, value: &Value) -> PyResult<(&'static str, Bound<'py, PyTuple>)> {
        if value.0.is_poison() {
            self.check(py)?;
            return Err(exception(py, "GraphError", "this tensor stems from a mistake"));
        }
        let ty = self.lock().builder().ty(value.0);
        types::parts(py, &ty)
    }
    /// Where a value was declared: file, line and column.
    fn site_of(&self, value: &Value) -> At {
        let site = self.lock().builder().site(value.0);
        (site.file.to_string(), site.line, site.column)
    }
    /// Raises every mistake that was made so far.
    fn check(&self, py: Python<'_>) -> PyResult<()> {
        let finished = { self.lock().finish() };
        finished.map(drop).map_err(|list| mistakes(py, &list))
    }
    /// Writes a picture, as the file's name asks for.
    #[pyo3(signature = (path, program=None))]
    fn draw(&self, py: Python<'_>, path: PathBuf, program: Option<&str>) -> PyResult<()> {
        let finished = { self.lock().finish() };
        let graph = finished.map_err(|list| mistakes(py, &list))?;
        thalweg::draw::draw(&graph, program, &path).map_err(|error| match &error {
            DrawError::Kind { .. } => PyValueError::new_err(error.to_string()),
            DrawError::Write { kind, .. } => std::io::Error::new(*kind, error.to_string()).into(),
        })
    }
    /// The graph as text, or drawn: `text`, `dot`, `mermaid` or `html`.
    #[pyo3(signature = (form, program=None))]
    fn show(&self, py: Python<'_>, form: &str, program: Option<&str>) -> PyResult<String> {
        let finished = { self.lock().finish() };
        let graph = finished.map_err(|list| mistakes(py, &list))?;
        Ok(match form {
            "dot" => thalweg::graph::draw::dot(&graph, program),
            "mermaid" => thalweg::graph::draw::mermaid(&graph, program),
            "html" => thalweg::graph::draw::html(&graph, program),
            _ => graph.to_string(),
        })
    }
    /// The canonical bytes of the graph.
    fn to_bytes(&self, py: Python<'_>) -> PyResult<Vec<u8>> {
        let finished = { self.lock().finish() };
        Ok(finished.map_err(|list| mistakes(py, &list))?.to_bytes())
    }
    #[pyo3(signature = (cluster=None, strategy=None))]
    fn compile(
        slf: &Bound<'_, Self>,
        cluster: Option<&cluster::Cluster>,
        strategy: Option<&cluster::Strategy>,
    ) -> PyResult<Model> {
        Model::compile(slf, cluster, strategy)
    }
}
