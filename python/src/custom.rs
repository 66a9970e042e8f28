//! Ops that are declared in Python: a class says types, the kernel and the gradient, and is asked for them here. The kernel is a formula over axes, handed over
//! as a tree of tuples and turned into what every device compiles; so an op of a user's own is fused, spread and checked like any other, and no Python runs in
//! a step.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};
use thalweg::graph::attrs::{AttrList, AttrValue};
use thalweg::graph::kernel::build::{self, Affine, Axes, Expr, Ix};
use thalweg::graph::kernel::{Binary, BufferType, Kernel, Monoid, Unary};
use thalweg::graph::op::{DynOp, GradientOf};
use thalweg::graph::{Accuracy, Bindings, Builder, Mode, OpError, Schema, TensorType, Types};

use crate::graph::Value;
use crate::types;

/// An op as a Python object has it.
#[derive(Clone)]
struct Custom {
    schema: &'static Schema,
    attrs: AttrList,
    op: Arc<Py<PyAny>>,
}

impl fmt::Debug for Custom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of Python", self.schema.name)
    }
}

/// Schemas live as long as the program: one per name and number of operands and results.
fn schema(name: &str, operands: &[String], results: usize) -> &'static Schema {
    type Key = (String, Vec<String>, usize);
    static KNOWN: Mutex<BTreeMap<Key, &'static Schema>> = Mutex::new(BTreeMap::new());
    fn leak(text: &str) -> &'static str {
        Box::leak(text.to_string().into_boxed_str())
    }
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.entry((name.into(), operands.into(), results)).or_insert_with(|| {
        let operands: Vec<&'static str> = operands.iter().map(|o| leak(o)).collect();
        let results: Vec<&'static str> = (0..results).map(|i| leak(&format!("out{i}"))).collect();
        Box::leak(Box::new(Schema {
            name: leak(name),
            operands: operands.leak(),
            results: results.leak(),
            accuracy: Accuracy::Ulps(64),
        }))
    })
}

/// The op of a Python object: `thalweg.Op` says what it has.
pub(crate) fn make(op: &Bound<'_, PyAny>) -> PyResult<Arc<dyn DynOp>> {
    let name: String = op.getattr("_op_name")?.extract()?;
    let operands: Vec<String> = op.getattr("_operands")?.extract()?;
    let results: usize = op.getattr("results")?.extract()?;
    let mut attrs = AttrList::new();
    for (key, value) in op.call_method0("_attrs")?.cast::<PyDict>()? {
        let value = if let Ok(b) = value.extract::<bool>() {
            AttrValue::Bool(b)
        } else if let Ok(i) = value.extract::<i64>() {
            AttrValue::Int(i)
        } else if let Ok(x) = value.extract::<f64>() {
            AttrValue::Float(x)
        } else if let Ok(text) = value.extract::<String>() {
            AttrValue::Text(text)
        } else {
            AttrValue::Ints(value.extract()?)
        };
        attrs.push((key.extract()?, value));
    }
    Ok(Arc::new(Custom { schema: schema(&name, &operands, results), attrs, op: Arc::new(op.clone().unbind()) }))
}

impl Custom {
    /// What was raised, as a mistake of the user's line.
    fn mistake(&self, py: Python<'_>, error: &PyErr) -> OpError {
        let rule: &'static str = self.schema.name;
        OpError::new(rule, error.value(py).to_string())
    }
    fn kernel(&self, py: Python<'_>, operands: &[BufferType], results: &[BufferType]) -> PyResult<Kernel> {
        let described = PyList::empty(py);
        for operand in operands {
            described.append((operand.dtype.name(), PyTuple::new(py, &operand.shape)?))?;
        }
        let said = self.op.bind(py).call_method1("_kernel", (described,))?;
        let (axes, values): (Vec<(bool, u64)>, Vec<Bound<'_, PyAny>>) = said.extract()?;
        if values.len() != results.len() {
            return Err(PyValueError::new_err(format!("{} values for {} results", values.len(), results.len())));
        }
        let mut to = Trees { operands: operands.len(), axes: axes.len(), seen: HashMap::new() };
        let values = values.iter().map(|v| to.expr(v)).collect::<PyResult<Vec<_>>>()?;
        let parallel: Vec<u64> = axes.iter().take_while(|(fold, _)| !fold).map(|(_, extent)| *extent).collect();
        if axes[parallel.len()..].iter().any(|(fold, _)| !fold) {
            return Err(PyValueError::new_err("axes of results come before axes that are folded"));
        }
        if results.iter().any(|r| r.shape != parallel) {
            let shape = &results[0].shape;
            let what = format!("a kernel over axes {parallel:?} cannot write a result of shape {shape:?}");
            return Err(PyValueError::new_err(what));
        }
        let mut all = Axes::new();
        all.par_over(&parallel);
        all.fold_over(&axes[parallel.len()..].iter().map(|(_, extent)| *extent).collect::<Vec<_>>());
        let kernel = all.nest(operands, results, values);
        match kernel.verify().first() {
            Some(fault) => Err(PyValueError::new_err(fault.to_string())),
            None => Ok(kernel),
        }
    }
    fn types(&self, py: Python<'_>, operands: &[TensorType]) -> PyResult<Types> {
        let described = PyList::empty(py);
        for operand in operands {
            described.append(types::parts(py, operand)?)?;
        }
        let said = self.op.bind(py).call_method1("_types", (described,))?;
        let each = |result: Bound<'_, PyAny>| -> PyResult<TensorType> {
            let (dtype, shape): (String, Bound<'_, PyAny>) = result.extract()?;
            Ok(types::dtype(&dtype)?.of(types::shape(&shape)?))
        };
        said.try_iter()?.map(|r| each(r?)).collect()
    }
}

impl DynOp for Custom {
    fn schema(&self) -> &'static Schema {
        self.schema
    }
    fn attrs(&self) -> AttrList {
        self.attrs.clone()
    }
    fn infer(&self, operands: &[TensorType]) -> Result<Types, OpError> {
        Python::attach(|py| {
            let types = self.types(py, operands).map_err(|e| self.mistake(py, &e))?;
            // Tried now, since there is nobody to tell later: with some number for every name.
            let some = |t: &TensorType, n: u64| {
                let names = t.shape.iter().flat_map(|d| d.names());
                let shape = t.shape.bind(&names.map(|name| (name, n)).collect()).and_then(|s| s.fixed());
                shape.map(|shape| BufferType { dtype: t.dtype, shape })
            };
            let all = |types: &[TensorType], n: u64| types.iter().map(|t| some(t, n)).collect::<Option<Vec<_>>>();
            // An extent such as `n-5` takes more than 3.
            let tried = (0..20).find_map(|k| Some((all(operands, 3 << k)?, all(&types, 3 << k)?)));
            if let Some((operands, results)) = tried {
                self.kernel(py, &operands, &results).map_err(|e| self.mistake(py, &e))?;
            }
            Ok(types)
        })
    }
    fn lower(&self, operands: &[BufferType], results: &[BufferType]) -> Option<Kernel> {
        // It has been tried.
        Python::attach(|py| {
            let kernel = self.kernel(py, operands, results);
            Some(kernel.unwrap_or_else(|e| panic!("{}: {}", self.schema.name, e.value(py))))
        })
    }
    fn expand(&self, _: &Builder, _: &[thalweg::graph::Value], _: Mode) -> Option<Vec<thalweg::graph::Value>> {
        None
    }
    fn gradient(&self, _: &Builder, of: GradientOf<'_>) -> Option<Vec<Option<thalweg::graph::Value>>> {
        Python::attach(|py| {
            let values = |all: &[thalweg::graph::Value]| PyList::new(py, all.iter().map(|v| Value(*v)));
            let gradient = || -> PyResult<Option<Vec<Option<PyRef<'_, Value>>>>> {
                let cotangents = PyList::new(py, of.cotangents.iter().map(|c| c.map(Value)))?;
                let arguments = (values(of.operands)?, values(of.results)?, cotangents);
                self.op.bind(py).call_method1("_gradient", arguments)?.extract()
            };
            let found = gradient().unwrap_or_else(|e| panic!("{}: {}", self.schema.name, e.value(py)))?;
            Some(found.into_iter().map(|g| g.map(|v| v.0)).collect())
        })
    }
    fn bind(&self, _: &Bindings) -> Option<Arc<dyn DynOp>> {
        Some(Arc::new(self.clone()))
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Turns Python's trees into expressions. What stands in two places is one expression.
struct Trees {
    operands: usize,
    axes: usize,
    seen: HashMap<usize, Expr>,
}

impl Trees {
    fn expr(&mut self, tree: &Bound<'_, PyAny>) -> PyResult<Expr> {
        if let Ok(x) = tree.extract::<f64>() {
            return Ok(build::lit(x));
        }
        let key = tree.as_ptr() as usize;
        if let Some(known) = self.seen.get(&key) {
            return Ok(known.clone());
        }
        let node = tree.getattr("_node").map_err(|_| PyTypeError::new_err(format!("`{tree}` is no kernel's value")))?;
        let node = node.cast::<PyTuple>()?;
        let made = self.node(node)?;
        self.seen.insert(key, made.clone());
        Ok(made)
    }
    fn node(&mut self, node: &Bound<'_, PyTuple>) -> PyResult<Expr> {
        let kind: String = node.get_item(0)?.extract()?;
        let none = |what: &str| PyValueError::new_err(format!("a kernel has no `{what}`"));
        let name = || -> PyResult<String> { node.get_item(1)?.extract() };
        Ok(match &*kind {
            "index" => build::index(self.affine(&node.get_item(1)?)?),
            "read" => {
                let operand: u16 = node.get_item(1)?.extract()?;
                if usize::from(operand) >= self.operands {
                    return Err(none("such operand"));
                }
                let coords: Vec<Bound<'_, PyAny>> = node.get_item(2)?.extract()?;
                let coords = coords.iter().map(|c| self.place(c)).collect::<PyResult<Vec<_>>>()?;
                match node.get_item(3)?.extract::<Option<f64>>()? {
                    Some(fill) => build::read_or(operand, coords, fill),
                    None => build::read(operand, coords),
                }
            }
            "unary" => {
                let op = Unary::from_name(&name()?).ok_or_else(|| none(&kind))?;
                self.expr(&node.get_item(2)?)?.unary(op)
            }
            "binary" => {
                let op = Binary::from_name(&name()?).ok_or_else(|| none(&kind))?;
                let (a, b) = (self.expr(&node.get_item(2)?)?, self.expr(&node.get_item(3)?)?);
                a.binary(op, b)
            }
            "select" => {
                let mut each = [1, 2, 3].into_iter().map(|i| self.expr(&node.get_item(i)?));
                let mut next = || each.next().expect("three");
                build::select(next()?, next()?, next()?)
            }
            "cast" => self.expr(&node.get_item(1)?)?.cast(types::dtype(&node.get_item(2)?.extract::<String>()?)?),
            "fold" => {
                let monoid = Monoid::from_name(&name()?).ok_or_else(|| none(&kind))?;
                build::fold(monoid, self.expr(&node.get_item(2)?)?)
            }
            other => return Err(none(other)),
        })
    }
    /// Where a read is: an affine map of axes, or what another value says.
    fn place(&mut self, at: &Bound<'_, PyAny>) -> PyResult<Ix> {
        match at.hasattr("_node")? && at.getattr("_node")?.get_item(0)?.extract::<String>()? != "index" {
            true => Ok(build::found(self.expr(at)?)),
            false => Ok(Ix::from(self.affine(&match at.getattr("_node") {
                Ok(node) => node.get_item(1)?,
                Err(_) => at.clone(),
            })?)),
        }
    }
    /// A number, or (coefficients by axis, offset).
    fn affine(&self, at: &Bound<'_, PyAny>) -> PyResult<Affine> {
        if let Ok(offset) = at.extract::<i64>() {
            return Ok(Affine::constant(offset));
        }
        let (terms, offset): (BTreeMap<u16, i64>, i64) = at.extract()?;
        if terms.keys().any(|axis| usize::from(*axis) >= self.axes) {
            return Err(PyValueError::new_err("an axis of another kernel"));
        }
        let each = terms.into_iter().map(|(axis, factor)| Affine::axis(axis) * factor);
        Ok(each.fold(Affine::constant(offset), |sum, term| sum + term))
    }
}
