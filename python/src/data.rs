//! Data of the Rust library: data sets in memory, and loaders that make batches of them in an order that follows from (seed, pass) alone and is
//! resumed from a checkpoint. Batches go to a step as they are, and to Python as NumPy's arrays.

use std::sync::{Mutex, PoisonError};

use pyo3::exceptions::{PyKeyError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyIterator};
use thalweg::data;
use thalweg::{Array, Error};

use crate::errors::{detached, raised};
use crate::memory::{Memory, array, numpy};
use crate::model::Model;

/// Named arrays of as many samples.
#[pyclass(frozen, module = "thalweg._thalweg")]
pub(crate) struct Dataset(data::Dataset);

/// Some samples, as a step takes them.
#[pyclass(frozen, mapping, module = "thalweg._thalweg")]
pub(crate) struct Batch(pub(crate) data::Dataset);

/// Settings for reading a data set in batches.
#[pyclass(frozen, module = "thalweg._thalweg")]
pub(crate) struct Loader(data::Loader);

/// Batches, one after the other.
#[pyclass(frozen, module = "thalweg._thalweg")]
pub(crate) struct Batches(Mutex<Option<data::Batches>>);

impl Drop for Batches {
    /// Waits for threads that read ahead, which wait for Python's lock where a function of Python's is at work.
    fn drop(&mut self) {
        let batches = self.0.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        Python::attach(|py| py.detach(|| drop(batches)));
    }
}

/// Files that are read where the devices are.
#[pyclass(frozen, module = "thalweg._thalweg")]
pub(crate) struct Files(data::Files);

/// Settings for describing files in batches.
#[pyclass(frozen, module = "thalweg._thalweg")]
pub(crate) struct Described(data::Described);

/// Descriptions of batches, one after the other.
#[pyclass(frozen, module = "thalweg._thalweg")]
pub(crate) struct Descriptions(Mutex<data::Descriptions>);

/// Which samples of which files: no byte of them.
#[pyclass(frozen, module = "thalweg._thalweg")]
pub(crate) struct Description(pub(crate) thalweg::runtime::source::Batch);

/// The digits that come with the library: to train on, and to test on.
#[pyfunction]
pub(crate) fn digits(py: Python<'_>) -> PyResult<(Dataset, Dataset)> {
    let (train, test) = data::digits().map_err(|e| raised(py, e))?;
    Ok((Dataset(train), Dataset(test)))
}

#[pymethods]
impl Dataset {
    /// From arrays by their names.
    #[new]
    fn new(py: Python<'_>, fields: &Bound<'_, PyDict>) -> PyResult<Self> {
        let field = |(name, value): (Bound<'_, PyAny>, Bound<'_, PyAny>)| -> PyResult<(String, Array)> {
            Ok((name.extract()?, array(&value, None)?))
        };
        let fields = fields.iter().map(field).collect::<PyResult<Vec<_>>>()?;
        data::Dataset::new(fields).map(Self).map_err(|e| raised(py, e.into()))
    }
    fn __len__(&self) -> usize {
        self.0.len()
    }
    /// These samples, by number.
    fn select(&self, rows: Vec<usize>) -> PyResult<Self> {
        match rows.iter().find(|row| **row >= self.0.len()) {
            Some(row) => Err(pyo3::exceptions::PyIndexError::new_err(format!("there is no sample {row}"))),
            None => Ok(Self(self.0.select(&rows))),
        }
    }
    /// All of it as one batch.
    fn all(&self) -> Batch {
        Batch(self.0.clone())
    }
    #[pyo3(signature = (batch, shuffle, epochs, drop_last, prefetch, name))]
    fn loader(
        &self,
        batch: usize,
        shuffle: Option<u64>,
        epochs: u64,
        drop_last: bool,
        prefetch: usize,
        name: String,
    ) -> Loader {
        let mut loader = data::Loader::new(self.0.clone()).batch(batch).epochs(epochs).prefetch(prefetch).named(name);
        if let Some(seed) = shuffle {
            loader = loader.shuffle(seed);
        }
        Loader(if drop_last { loader.drop_last() } else { loader })
    }
}

#[pymethods]
impl Batch {
    fn __len__(&self) -> usize {
        self.0.feeds().len()
    }
    fn keys(&self) -> Vec<String> {
        self.0.feeds().iter().map(|(name, _)| name.to_string()).collect()
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
    fn __getitem__<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        let array = self.0.get(name).ok_or_else(|| PyKeyError::new_err(name.to_string()))?;
        numpy(py, Memory::of(array.clone()))
    }
}

/// What a function of Python's makes of a batch; `thalweg/data.py` sees to it that it is a dict.
fn called(function: &Bound<'_, PyAny>, batch: Batch, at: Option<(u64, u64, u64)>) -> PyResult<data::Dataset> {
    let py = function.py();
    let arrays = PyDict::new(py);
    for (name, array) in batch.items(py)? {
        arrays.set_item(name, array)?;
    }
    let made = match at {
        Some(at) => function.call1((arrays, at))?,
        None => function.call1((arrays,))?,
    };
    Ok(Dataset::new(py, made.cast::<PyDict>()?)?.0)
}

#[pymethods]
impl Loader {
    /// Batches of one pass.
    #[getter]
    fn steps_per_pass(&self) -> u64 {
        self.0.steps_per_pass()
    }
    /// Changes every batch by a function from arrays by name to arrays by name, after those that were given before. With `at`, it is
    /// told where the batch lies as well: seed, pass and first place.
    fn map(&self, function: Py<PyAny>, at: bool) -> Self {
        Loader(self.0.clone().map(move |batch, place| {
            let called = |py: Python<'_>| {
                let place = at.then_some((place.seed, place.pass, place.first));
                called(function.bind(py), Batch(batch), place).map_err(data::DataError::own)
            };
            let ended = || Err(data::DataError::Other("Python has ended".into()));
            Python::try_attach(called).unwrap_or_else(ended)
        }))
    }
    /// Batches from where the model's cursor stands; from the first, counted by nobody, without a model.
    #[pyo3(signature = (model=None))]
    fn batches(&self, py: Python<'_>, model: Option<&Model>) -> PyResult<Batches> {
        let batches = match model {
            Some(model) => model.with(py, |model| model.batches(&self.0))?,
            None => self.0.iter(),
        };
        Ok(Batches(Mutex::new(Some(batches))))
    }
}

impl Batches {
    /// The next batch, if there is one. Call it without Python's lock.
    pub(crate) fn next(&self) -> Option<Result<data::Dataset, Error>> {
        let next = self.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut()?.next();
        next.map(|batch| batch.map_err(Error::from))
    }
}

#[pymethods]
impl Batches {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }
    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Batch>> {
        let next = detached(py, || self.next())?;
        next.transpose().map(|batch| batch.map(Batch)).map_err(|e| raised(py, e))
    }
}

#[pymethods]
impl Files {
    /// `format` is `npz`, `arrays` (with the names of inputs and their files), `mnist_train`, `mnist_test` or `built_in`.
    #[new]
    #[pyo3(signature = (root, path, format, arrays, inputs))]
    fn new(
        root: String,
        path: String,
        format: &str,
        arrays: Vec<(String, String)>,
        inputs: Vec<(String, String)>,
    ) -> PyResult<Self> {
        let below = || data::Files::below(root.clone(), path.clone());
        let files = match format {
            "npz" => below(),
            "arrays" => below().arrays(arrays),
            "mnist_train" => below().mnist_train(),
            "mnist_test" => below().mnist_test(),
            "built_in" => data::Files::built_in(path),
            _ => return Err(PyValueError::new_err(format!("there is no format `{format}`"))),
        };
        Ok(Self(inputs.into_iter().fold(files, |files, (input, field)| files.input(input, field))))
    }
    fn batches(&self, batch: usize, shuffle: Option<u64>, epochs: u64, drop_last: bool, name: String) -> Described {
        let mut described = self.0.batch(batch).epochs(epochs).named(name);
        if let Some(seed) = shuffle {
            described = described.shuffle(seed);
        }
        Described(if drop_last { described.drop_last() } else { described })
    }
}

#[pymethods]
impl Described {
    /// From where the model's cursor stands.
    fn batches(&self, py: Python<'_>, model: &Model) -> PyResult<Descriptions> {
        let batches = model.with(py, |model| model.batches_on_workers(&self.0))?;
        Ok(Descriptions(Mutex::new(batches.map_err(|e| raised(py, e))?)))
    }
}

#[pymethods]
impl Descriptions {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }
    fn __next__(&self) -> Option<Description> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).next().map(Description)
    }
    /// Batches in a pass.
    #[getter]
    fn steps_per_pass(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).steps_per_pass()
    }
}

#[pymethods]
impl Description {
    /// Number of samples.
    fn __len__(&self) -> usize {
        self.0.len()
    }
}
