//! Element types and shapes as Python says them: short names (`f32`), and tuples of integers and named dimensions. Only short names come
//! here; what NumPy calls them is known in Python.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use thalweg::graph::{DType, Shape, TensorType};

/// An extent that has a name, or is computed from such: `batch`, `2*batch`, `batch+1`. Its value comes with the data.
#[pyclass(frozen, eq, hash, module = "thalweg")]
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Dim(pub(crate) thalweg::graph::Dim);

/// An extent as Python hands it in.
#[derive(FromPyObject)]
pub(crate) enum Extent<'py> {
    Number(i64),
    Dim(PyRef<'py, Dim>),
}

impl Extent<'_> {
    pub(crate) fn dim(&self) -> PyResult<thalweg::graph::Dim> {
        match self {
            Extent::Number(n) => Ok(thalweg::graph::Dim::Fixed(
                u64::try_from(*n).map_err(|_| PyValueError::new_err(format!("an extent cannot be {n}")))?,
            )),
            Extent::Dim(dim) => Ok(dim.0.clone()),
        }
    }
}

/// An int where it is a number, else a named dimension.
pub(crate) fn extent(py: Python<'_>, dim: thalweg::graph::Dim) -> PyResult<Bound<'_, PyAny>> {
    Ok(match dim.fixed() {
        Some(n) => n.into_pyobject(py)?.into_any(),
        None => Dim(dim).into_pyobject(py)?.into_any(),
    })
}

/// A shape as a tuple.
pub(crate) fn tuple<'py>(py: Python<'py>, shape: &Shape) -> PyResult<Bound<'py, PyTuple>> {
    PyTuple::new(py, shape.iter().map(|d| extent(py, d.clone())).collect::<PyResult<Vec<_>>>()?)
}

/// A shape from a sequence of integers and named dimensions.
pub(crate) fn shape(extents: &Bound<'_, PyAny>) -> PyResult<Shape> {
    let each = extents.try_iter()?.map(|e| e?.extract::<Extent<'_>>()?.dim());
    Ok(Shape(each.collect::<PyResult<_>>()?))
}

/// An element type by its short name.
pub(crate) fn dtype(name: &str) -> PyResult<DType> {
    let known = || DType::ALL.map(|d| d.name()).join(", ");
    DType::from_name(name)
        .ok_or_else(|| PyTypeError::new_err(format!("there is no element type `{name}`; there are {}", known())))
}

/// A tensor's type: its element type's name and its extents.
pub(crate) fn parts<'py>(py: Python<'py>, ty: &TensorType) -> PyResult<(&'static str, Bound<'py, PyTuple>)> {
    Ok((ty.dtype.name(), tuple(py, &ty.shape)?))
}

fn none(what: String) -> PyErr {
    PyValueError::new_err(format!("{what} is no extent: it may be negative, too large or no integer"))
}

#[pymethods]
impl Dim {
    fn __repr__(&self) -> String {
        self.0.to_string()
    }
    fn __add__<'py>(&self, py: Python<'py>, other: Extent<'_>) -> PyResult<Bound<'py, PyAny>> {
        let other = other.dim()?;
        extent(py, self.0.plus(&other).ok_or_else(|| none(format!("{} + {other}", self.0)))?)
    }
    fn __radd__<'py>(&self, py: Python<'py>, other: Extent<'_>) -> PyResult<Bound<'py, PyAny>> {
        self.__add__(py, other)
    }
    fn __sub__<'py>(&self, py: Python<'py>, other: Extent<'_>) -> PyResult<Bound<'py, PyAny>> {
        let other = other.dim()?;
        extent(py, self.0.minus(&other).ok_or_else(|| none(format!("{} - {other}", self.0)))?)
    }
    fn __rsub__<'py>(&self, py: Python<'py>, other: Extent<'_>) -> PyResult<Bound<'py, PyAny>> {
        let other = other.dim()?;
        extent(py, other.minus(&self.0).ok_or_else(|| none(format!("{other} - {}", self.0)))?)
    }
    fn __mul__<'py>(&self, py: Python<'py>, other: Extent<'_>) -> PyResult<Bound<'py, PyAny>> {
        let other = other.dim()?;
        extent(py, self.0.times(&other).ok_or_else(|| none(format!("{} * {other}", self.0)))?)
    }
    fn __rmul__<'py>(&self, py: Python<'py>, other: Extent<'_>) -> PyResult<Bound<'py, PyAny>> {
        self.__mul__(py, other)
    }
    /// Where it comes out even for every value.
    fn __floordiv__<'py>(&self, py: Python<'py>, other: Extent<'_>) -> PyResult<Bound<'py, PyAny>> {
        let other = other.dim()?;
        extent(py, self.0.exact_quotient(&other).ok_or_else(|| none(format!("{} // {other}", self.0)))?)
    }
    fn __bool__(&self) -> PyResult<bool> {
        Err(PyTypeError::new_err(format!("`{}` has a value only while a program runs", self.0)))
    }
    fn __int__(&self) -> PyResult<i64> {
        Err(PyTypeError::new_err(format!(
            "`{}` has a value only while a program runs; declare an extent as a number where a number is needed",
            self.0
        )))
    }
}
