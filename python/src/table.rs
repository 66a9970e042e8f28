//! The table of ops for Python: what each is called and takes, which `thalweg/ops.py` is generated from; and attributes as Python says them, turned
//! into what an op is made of.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use thalweg::graph::attrs::{AttrField, AttrSort, AttrValue};
use thalweg::graph::op::{DynOp, Registry};
use thalweg::ops::{OPS, registry};

use crate::types;

/// What makes ops, and the attributes of each.
type Table = (Registry, BTreeMap<&'static str, Vec<AttrField>>);

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| (registry(), OPS.iter().map(|op| (op.schema.name, (op.fields)())).collect()))
}

/// The op of this name with these attributes.
pub(crate) fn make(name: &str, attrs: Option<&Bound<'_, PyDict>>) -> PyResult<Arc<dyn DynOp>> {
    let (registry, fields) = table();
    let none = || PyValueError::new_err(format!("there is no op `{name}`"));
    let fields = fields.get(name).ok_or_else(none)?;
    let mut list = vec![];
    for (key, value) in attrs.into_iter().flatten() {
        let key: String = key.extract()?;
        let Some(field) = fields.iter().find(|f| f.name == key) else {
            let known = fields.iter().map(|f| f.name).collect::<Vec<_>>().join(", ");
            return Err(PyTypeError::new_err(format!("`{name}` has no attribute `{key}`; it has {known}")));
        };
        list.push((key, value_of(field.sort, &value)?));
    }
    registry.make(name, &list, &[]).map_err(|e| PyValueError::new_err(e.to_string()))
}

fn value_of(sort: AttrSort, value: &Bound<'_, PyAny>) -> PyResult<AttrValue> {
    Ok(match sort {
        AttrSort::Bool => AttrValue::Bool(value.extract()?),
        AttrSort::Int => AttrValue::Int(value.extract()?),
        AttrSort::Float => AttrValue::Float(value.extract()?),
        AttrSort::Text => AttrValue::Text(value.extract()?),
        AttrSort::DType => AttrValue::DType(types::dtype(&value.extract::<String>()?)?),
        AttrSort::Ints => AttrValue::Ints(value.extract()?),
        AttrSort::Pair => AttrValue::Ints(value.extract::<[i64; 2]>()?.to_vec()),
        AttrSort::Shape => AttrValue::Shape(types::shape(value)?),
    })
}

/// Every op: name, operands, results, what it is, and its attributes with their sorts and defaults.
#[pyfunction]
pub(crate) fn ops(py: Python<'_>) -> PyResult<Bound<'_, PyList>> {
    let all = PyList::empty(py);
    for row in OPS {
        let op = PyDict::new(py);
        op.set_item("name", row.schema.name)?;
        op.set_item("operands", row.schema.operands)?;
        op.set_item("results", row.schema.results)?;
        op.set_item("doc", (row.doc)())?;
        let attrs = PyList::empty(py);
        for field in (row.fields)() {
            let attr = PyDict::new(py);
            attr.set_item("name", field.name)?;
            attr.set_item("doc", field.doc)?;
            attr.set_item("sort", format!("{:?}", field.sort))?;
            attr.set_item("default", default(py, &field.default)?)?;
            attrs.append(attr)?;
        }
        op.set_item("attrs", attrs)?;
        all.append(op)?;
    }
    Ok(all)
}

/// A default as Python would write it.
fn default<'py>(py: Python<'py>, value: &AttrValue) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        AttrValue::Bool(b) => b.into_pyobject(py)?.to_owned().into_any(),
        AttrValue::Int(i) => i.into_pyobject(py)?.into_any(),
        AttrValue::Float(x) => x.into_pyobject(py)?.into_any(),
        AttrValue::Text(s) => s.into_pyobject(py)?.into_any(),
        AttrValue::DType(d) => d.name().into_pyobject(py)?.into_any(),
        AttrValue::Ints(list) => list.into_pyobject(py)?.into_any(),
        AttrValue::Shape(shape) => types::tuple(py, shape)?.into_any(),
    })
}
