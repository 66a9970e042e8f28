//! A compiled model for Python: steps run without Python's lock, feeds and outputs are read where they lie, Ctrl-C ends the body of a step and
//! leaves the variables as they were. One model runs one step at a time; other threads wait for it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::exceptions::{PyAttributeError, PyKeyError};
use pyo3::prelude::*;
use pyo3::types::{PyIterator, PyString};
use thalweg::graph::Bindings;
use thalweg::prelude::Compile;
use thalweg::runtime::feed::{Inputs, inputs_of};
use thalweg::runtime::{AbortFlag, DeviceError, RunError};
use thalweg::{Array, Error, Strategy, hosts};

use crate::cluster;
use crate::data::{Batch, Batches, Description};
use crate::errors::{detached, exception, raised};
use crate::graph::{Graph, Value};
use crate::interrupt::Armed;
use crate::memory::{Memory, array, numpy};

/// A model on a device or several.
#[pyclass(frozen, module = "thalweg._thalweg")]
pub(crate) struct Model {
    model: Mutex<thalweg::Model>,
    graph: Py<Graph>,
    cluster: thalweg::Cluster,
    /// Ends the body of the step that runs. Signals come at any time, so that it is never freed: a few bytes a model.
    abort: &'static AbortFlag,
    /// The process that has its threads.
    process: u32,
    /// What each program expects.
    programs: BTreeMap<String, Inputs>,
}

/// What is said of a program: as text, and as JSON.
type Said = (String, String);

fn said(report: &(impl std::fmt::Display + serde::Serialize)) -> Said {
    (report.to_string(), serde_json::to_string(report).expect("plain data is written as JSON"))
}

/// A variable: name, kind, element type, extents.
type Row = (String, String, &'static str, Vec<u64>);

/// Values by the names of inputs, as a step takes them.
enum Feeds {
    Named(Vec<(String, Array)>),
    Batch(thalweg::data::Dataset),
    Described(thalweg::runtime::source::Batch),
}

impl Feeds {
    /// One step with them.
    fn run(&self, model: &mut thalweg::Model, program: &str) -> Result<thalweg::runtime::Outputs, Error> {
        match self {
            Feeds::Described(batch) => model.run(program, batch),
            _ => model.run(program, &self.arrays()),
        }
    }
    /// The arrays; none where there are only descriptions.
    fn arrays(&self) -> Vec<(&str, &Array)> {
        match self {
            Feeds::Named(feeds) => feeds.iter().map(|(name, array)| (&**name, array)).collect(),
            Feeds::Batch(batch) => batch.feeds(),
            Feeds::Described(_) => vec![],
        }
    }
}

fn bindings(given: BTreeMap<String, u64>) -> Bindings {
    given.into_iter().map(|(name, value)| (name.into(), value)).collect()
}

impl Model {
    pub(crate) fn compile(
        graph: &Bound<'_, Graph>,
        cluster: Option<&cluster::Cluster>,
        strategy: Option<&cluster::Strategy>,
    ) -> PyResult<Self> {
        let (py, declared) = (graph.py(), graph.get());
        let strategy = strategy.map(|s| s.0.clone());
        let compile = || {
            let cluster = match cluster {
                Some(cluster) => cluster.0.clone(),
                None => match hosts::launched()? {
                    Some(job) => {
                        let workers = job.workers()?;
                        let strategy = strategy.unwrap_or_else(Strategy::data_parallel);
                        let cluster = workers.cluster().clone();
                        return Ok((declared.lock().compile_on(workers, &strategy)?, cluster));
                    }
                    None => thalweg::Cluster::local(),
                },
            };
            let graph = declared.lock();
            let model = match &strategy {
                Some(strategy) => graph.compile_with(&cluster, strategy)?,
                None => graph.compile(&cluster)?,
            };
            Ok::<_, Error>((model, cluster))
        };
        let (mut model, cluster) = detached(py, compile)?.map_err(|e| raised(py, e))?;
        let abort = Box::leak(Box::new(model.session().abort_flag()));
        let of = model.graph();
        let programs = of.programs.iter().map(|p| (p.name.to_string(), inputs_of(of, p))).collect();
        let process = std::process::id();
        Ok(Self { model: Mutex::new(model), graph: graph.clone().unbind(), cluster, abort, process, programs })
    }
    /// Does something with the model, without Python's lock.
    pub(crate) fn with<T: Send>(
        &self,
        py: Python<'_>,
        body: impl FnOnce(&mut thalweg::Model) -> T + Send,
    ) -> PyResult<T> {
        if std::process::id() != self.process {
            let what = "this process was forked from the one that compiled the model, without the threads that run it: compile \
                        it where it is used, or start processes with `multiprocessing.set_start_method(\"spawn\")`";
            return Err(exception(py, "RunError", what));
        }
        detached(py, || body(&mut self.model.lock().unwrap_or_else(PoisonError::into_inner)))
    }
    /// The same for what may fail.
    fn try_with<T: Send>(
        &self,
        py: Python<'_>,
        body: impl FnOnce(&mut thalweg::Model) -> Result<T, Error> + Send,
    ) -> PyResult<T> {
        self.with(py, body)?.map_err(|e| raised(py, e))
    }
    /// Runs steps; Ctrl-C ends them.
    fn stepping<T: Send>(
        &self,
        py: Python<'_>,
        body: impl FnOnce(&mut thalweg::Model) -> Result<T, Error> + Send,
    ) -> PyResult<T> {
        let armed = Armed::new(py, self.abort)?;
        let done = self.with(py, body);
        drop(armed);
        match done? {
            Err(Error::Run(RunError::Device(DeviceError::Aborted))) => {
                self.abort.clear();
                // The exception of whoever asked for it.
                py.check_signals()?;
                Err(exception(py, "RunError", "the step was asked to end"))
            }
            done => done.map_err(|e| raised(py, e)),
        }
    }
    fn feeds(&self, program: &str, feeds: &Bound<'_, PyAny>) -> PyResult<Feeds> {
        if let Ok(batch) = feeds.cast::<Batch>() {
            return Ok(Feeds::Batch(batch.get().0.clone()));
        }
        if let Ok(batch) = feeds.cast::<Description>() {
            return Ok(Feeds::Described(batch.get().0.clone()));
        }
        let inputs = self.programs.get(program).map_or(&[][..], |inputs| inputs);
        let mut named = vec![];
        for item in feeds.call_method0("items")?.try_iter()? {
            let (name, value): (String, Bound<'_, PyAny>) = item?.extract()?;
            let wanted = inputs.iter().find(|(input, _)| **input == *name).map(|(_, ty)| ty.dtype);
            let array = array(&value, wanted).inspect_err(|e| {
                // Python shows notes below the message.
                let _ = e.value(feeds.py()).call_method1("add_note", (format!("while feeding `{name}`"),));
            })?;
            named.push((name, array));
        }
        Ok(Feeds::Named(named))
    }
}

#[pymethods]
impl Model {
    /// One step of a program.
    fn run(&self, py: Python<'_>, program: &str, feeds: &Bound<'_, PyAny>) -> PyResult<Outputs> {
        let feeds = self.feeds(program, feeds)?;
        let outputs = self.stepping(py, |model| feeds.run(model, program))?;
        Ok(Outputs(Arc::new(outputs)))
    }
    /// So many steps with the same feeds; what the last one returned.
    fn repeat(&self, py: Python<'_>, program: &str, feeds: &Bound<'_, PyAny>, steps: u64) -> PyResult<Option<Outputs>> {
        let feeds = self.feeds(program, feeds)?;
        let body = |model: &mut thalweg::Model| {
            let mut last = None;
            for _ in 0..steps {
                last = Some(feeds.run(model, program)?);
            }
            Ok(last)
        };
        Ok(self.stepping(py, body)?.map(|o| Outputs(Arc::new(o))))
    }
    /// A step per batch, at most so many; what the last one returned, and how many there were.
    #[pyo3(signature = (program, batches, limit=None))]
    fn run_batches(
        &self,
        py: Python<'_>,
        program: &str,
        batches: &Batches,
        limit: Option<u64>,
    ) -> PyResult<(Option<Outputs>, u64)> {
        let body = |model: &mut thalweg::Model| {
            let (mut last, mut steps) = (None, 0);
            while limit.is_none_or(|limit| steps < limit) {
                let Some(batch) = batches.next() else { break };
                last = Some(model.run(program, &batch?.feeds())?);
                steps += 1;
            }
            Ok((last, steps))
        };
        let (last, steps) = self.stepping(py, body)?;
        Ok((last.map(|o| Outputs(Arc::new(o))), steps))
    }
    /// Programs, each with its inputs and their types, for people.
    #[getter]
    fn programs(&self) -> BTreeMap<String, Vec<(String, String)>> {
        let shown = |inputs: &Inputs| inputs.iter().map(|(name, ty)| (name.to_string(), ty.to_string())).collect();
        self.programs.iter().map(|(name, inputs)| (name.clone(), shown(inputs))).collect()
    }
    /// Names of variables with their kinds, element types and extents.
    fn variables(&self, py: Python<'_>) -> PyResult<Vec<Row>> {
        self.with(py, |model| {
            let row = |v: &thalweg::graph::Variable| {
                let shape = v.ty.shape.fixed().unwrap_or_default();
                (v.name.to_string(), v.kind.name().to_string(), v.ty.dtype.name(), shape)
            };
            model.graph().state.values().iter().map(row).collect()
        })
    }
    fn get<'py>(&self, py: Python<'py>, variable: &str) -> PyResult<Bound<'py, PyAny>> {
        let array = self.try_with(py, |model| model.get(variable))?;
        numpy(py, Memory::of(array))
    }
    fn set(&self, py: Python<'_>, variable: &str, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let known = self.with(py, |model| {
            let graph = model.graph();
            graph.variable(variable).map(|id| graph.state[id].ty.dtype)
        })?;
        let value = array(value, known)?;
        self.try_with(py, |model| model.set(variable, &value))
    }
    #[getter]
    fn step(&self, py: Python<'_>) -> PyResult<u64> {
        self.with(py, thalweg::Model::step)
    }
    fn digest(&self, py: Python<'_>) -> PyResult<String> {
        self.try_with(py, thalweg::Model::digest)
    }
    #[getter]
    fn bytes_sent(&self, py: Python<'_>) -> PyResult<u64> {
        self.with(py, |model| model.bytes_sent())
    }
    #[getter]
    fn devices(&self) -> Vec<String> {
        self.cluster.devices.iter().map(|d| d.name.to_string()).collect()
    }
    #[pyo3(signature = (directory, wait))]
    fn save(&self, py: Python<'_>, directory: PathBuf, wait: bool) -> PyResult<Option<String>> {
        self.try_with(py, |model| {
            if !wait {
                return model.save(directory).map(|_| None);
            }
            model.save_and_wait(directory).map(|saved| Some(saved.path.display().to_string()))
        })
    }
    fn wait_saved(&self, py: Python<'_>) -> PyResult<Option<String>> {
        self.try_with(py, |model| Ok(model.wait_saved()?.map(|saved| saved.path.display().to_string())))
    }
    fn keep_checkpoints(&self, py: Python<'_>, count: usize) -> PyResult<()> {
        self.with(py, |model| model.keep_checkpoints(count))
    }
    /// The path of the checkpoint that was loaded; nothing if there was none and that is fine.
    fn resume(&self, py: Python<'_>, directory: PathBuf, or_init: bool, changed: bool) -> PyResult<Option<String>> {
        let path = |resumed: thalweg::runtime::Resumed| resumed.path.display().to_string();
        self.try_with(py, |model| match (or_init, changed) {
            (true, _) => Ok(model.resume_or_init(directory)?.map(path)),
            (false, true) => Ok(Some(path(model.resume_changed(directory)?))),
            (false, false) => Ok(Some(path(model.resume(directory)?))),
        })
    }
    fn save_weights(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        self.try_with(py, |model| model.save_weights(path))
    }
    /// Names that the model and the file do not share: what the file lacks, and what it has besides.
    fn load_weights(&self, py: Python<'_>, path: PathBuf, strict: bool) -> PyResult<(Vec<String>, Vec<String>)> {
        self.try_with(py, |model| {
            if strict {
                model.load_weights(path)?;
                return Ok((vec![], vec![]));
            }
            let unshared = model.load_shared_weights(path)?;
            Ok((unshared.missing, unshared.left_over))
        })
    }
    /// A value of the graph, or one by its name, from the variables as they are.
    #[pyo3(signature = (point, feeds, program=None))]
    fn eval_at<'py>(
        &self,
        py: Python<'py>,
        point: &Bound<'py, PyAny>,
        feeds: &Bound<'py, PyAny>,
        program: Option<&str>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let feeds = self.feeds(program.unwrap_or_default(), feeds)?;
        let found = match point.cast::<PyString>() {
            Ok(name) => {
                let name = name.to_string();
                self.try_with(py, |model| match program {
                    Some(program) => model.eval_in(program, &*name, &feeds.arrays()),
                    None => model.eval_at(&*name, &feeds.arrays()),
                })?
            }
            Err(_) => {
                let (value, graph) = (point.extract::<PyRef<'_, Value>>()?.0, self.graph.get());
                self.try_with(py, |model| {
                    let graph = graph.lock();
                    let tensor = thalweg::Tensor::new(graph.builder(), value);
                    match program {
                        Some(program) => model.eval_in(program, tensor, &feeds.arrays()),
                        None => model.eval_at(tensor, &feeds.arrays()),
                    }
                })?
            }
        };
        numpy(py, Memory::of(found))
    }
    /// A directory below which this process reads files, as `NAME=DIRECTORY`.
    fn add_root(&self, py: Python<'_>, root: &str) -> PyResult<()> {
        self.try_with(py, |model| model.add_root(root))
    }
    fn check_finite(&self, py: Python<'_>, on: bool) -> PyResult<()> {
        self.with(py, |model| model.check_finite(on))
    }
    /// A program layer by layer.
    fn summary(&self, py: Python<'_>, program: &str, dims: BTreeMap<String, u64>) -> PyResult<Said> {
        self.try_with(py, |model| Ok(said(&model.summary(program, &bindings(dims))?)))
    }
    /// What a step is predicted to take and why.
    fn explain(&self, py: Python<'_>, program: &str, dims: BTreeMap<String, u64>) -> PyResult<Said> {
        self.try_with(py, |model| {
            let (_, explained) = thalweg::explain::explain(model, program, &bindings(dims), &self.cluster)?;
            Ok(said(&explained))
        })
    }
    /// The plan of a program, as text.
    fn plan(&self, py: Python<'_>, program: &str, dims: BTreeMap<String, u64>) -> PyResult<String> {
        self.try_with(py, |model| Ok(model.session().plan(program, &bindings(dims))?.to_string()))
    }
    fn start_trace(&self, py: Python<'_>, steps: usize) -> PyResult<()> {
        self.with(py, |model| model.start_trace(steps))
    }
    /// Writes the steps noted since, for Perfetto.
    fn finish_trace(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        let trace = self.with(py, |model| model.finish_trace())?;
        let file = std::fs::File::create(path)?;
        Ok(trace.write(std::io::BufWriter::new(file))?)
    }
}

/// What a step returned, by name.
#[pyclass(frozen, mapping, module = "thalweg._thalweg")]
pub(crate) struct Outputs(Arc<thalweg::runtime::Outputs>);

impl Outputs {
    fn find<'py>(&self, py: Python<'py>, name: &str) -> Option<PyResult<Bound<'py, PyAny>>> {
        let place = self.0.iter().position(|(n, _)| n == name)?;
        Some(numpy(py, Memory::of_output(self.0.clone(), place)))
    }
    fn names(&self) -> String {
        self.0.iter().map(|(n, _)| format!("`{n}`")).collect::<Vec<_>>().join(", ")
    }
}

#[pymethods]
impl Outputs {
    fn __getitem__<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        let none = || PyKeyError::new_err(format!("there is no output `{name}`; there are {}", self.names()));
        self.find(py, name).ok_or_else(none)?
    }
    fn __getattr__<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        let none = || PyAttributeError::new_err(format!("there is no output `{name}`; there are {}", self.names()));
        self.find(py, name).ok_or_else(none)?
    }
    fn keys(&self) -> Vec<String> {
        self.0.iter().map(|(n, _)| n.to_string()).collect()
    }
    fn values<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        self.keys().iter().map(|name| self.__getitem__(py, name)).collect()
    }
    fn items<'py>(&self, py: Python<'py>) -> PyResult<Vec<(String, Bound<'py, PyAny>)>> {
        Ok(self.keys().into_iter().zip(self.values(py)?).collect())
    }
    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        self.keys().into_pyobject(py)?.try_iter()
    }
    fn __len__(&self) -> usize {
        self.0.iter().count()
    }
    fn __contains__(&self, name: &str) -> bool {
        self.0.iter().any(|(n, _)| n == name)
    }
    fn __repr__(&self) -> String {
        let each = self.0.iter().map(|(name, array)| match array.len() {
            1 => format!("{name}={}", array.item()),
            _ => format!("{name}={}", array.ty()),
        });
        format!("Outputs({})", each.collect::<Vec<_>>().join(", "))
    }
}
