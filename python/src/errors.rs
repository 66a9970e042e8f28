//! Errors as Python's exceptions. The classes are Python's own (`thalweg/_errors.py`), with built-in bases; here they are chosen. Mistakes of
//! a model are drawn on the user's source, which is asked of `linecache`, so that cells of notebooks are drawn as well.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use thalweg::Error;
use thalweg::data::{DataError, Own};
use thalweg::graph::Diagnostic;
use thalweg::runtime::RunError;

/// An exception of the class that `thalweg._errors` has under this name.
pub(crate) fn exception(py: Python<'_>, class: &str, message: &str) -> PyErr {
    let made = || py.import("thalweg._errors")?.getattr(class)?.call1((message,));
    made().map_or_else(|e| e, PyErr::from_value)
}

/// An error of the library as an exception.
pub(crate) fn raised(py: Python<'_>, error: Error) -> PyErr {
    let class = match &error {
        Error::Model(list) => return mistakes(py, list),
        Error::Run(RunError::NotFinite(found)) => {
            return exception(py, "NotFiniteError", &drawn(py, &found.diagnostic));
        }
        Error::Run(RunError::Feed(_)) => "FeedError",
        Error::Run(
            RunError::NoProgram { .. } | RunError::NoVariable { .. } | RunError::NoTensor(_) | RunError::Bindings(_),
        ) => "UnknownNameError",
        Error::Run(RunError::Variable { .. } | RunError::NoTruthValue { .. }) => "FeedError",
        Error::Run(_) => "RunError",
        Error::Checkpoint(_) => "CheckpointError",
        Error::Data(DataError::Own(Own(own))) if let Some(theirs) = own.downcast_ref::<PyErr>() => {
            return theirs.clone_ref(py);
        }
        Error::Data(_) => "DataError",
        Error::Draw(_) => "GraphError",
        Error::Cluster(_) | Error::Case(_) => "ClusterError",
    };
    exception(py, class, &error.to_string())
}

/// All mistakes of a model as one exception.
pub(crate) fn mistakes(py: Python<'_>, list: &[Diagnostic]) -> PyErr {
    let drawings: Vec<String> = list.iter().map(|d| drawn(py, d)).collect();
    let s = if list.len() == 1 { "" } else { "s" };
    let text = format!("{} mistake{s} in the model\n\n{}", list.len(), drawings.join("\n\n"));
    let error = exception(py, "GraphError", &text);
    let attach = || {
        let all = PyList::empty(py);
        for d in list {
            let fields = PyDict::new(py);
            fields.set_item("code", &d.code)?;
            fields.set_item("message", &d.message)?;
            fields.set_item("file", &*d.site.file)?;
            fields.set_item("line", d.site.line)?;
            fields.set_item("column", d.site.column)?;
            fields.set_item("help", &d.help)?;
            all.append(fields)?;
        }
        error.value(py).setattr("diagnostics", all)
    };
    attach().err().unwrap_or(error)
}

/// A mistake on the user's source.
fn drawn(py: Python<'_>, diagnostic: &Diagnostic) -> String {
    let source = |file: &str| -> Option<String> {
        let lines = py.import("linecache").ok()?.call_method1("getlines", (file,)).ok()?;
        let text: Vec<String> = lines.extract().ok()?;
        (!text.is_empty()).then(|| text.concat())
    };
    diagnostic.render(false, &source)
}

/// Runs `body` without Python's lock. A panic is a fault of ours and an exception of the library's, since nothing else may come
/// out of it.
pub(crate) fn detached<T: Send>(py: Python<'_>, body: impl FnOnce() -> T + Send) -> PyResult<T> {
    py.detach(|| catch_unwind(AssertUnwindSafe(body))).map_err(|panic| internal(py, &*panic))
}

/// Runs `body`, which is short, with Python's lock; the same for panics.
pub(crate) fn guarded<T>(py: Python<'_>, body: impl FnOnce() -> T) -> PyResult<T> {
    catch_unwind(AssertUnwindSafe(body)).map_err(|panic| internal(py, &*panic))
}

fn internal(py: Python<'_>, panic: &(dyn std::any::Any + Send)) -> PyErr {
    let text = panic.downcast_ref::<&str>().map(|s| s.to_string());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    exception(py, "InternalError", &format!("internal error, please report: {text}"))
}
