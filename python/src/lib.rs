//! `_thalweg`, the native half of the Python package: graphs, layers and models of the Rust library, and nothing else. It is private: what people
//! use is typed Python over it, so that signatures, docstrings and indexing are Python's own, and no arithmetic is done twice.

mod cluster;
mod custom;
mod data;
mod errors;
mod graph;
mod interrupt;
mod layers;
mod memory;
mod model;
mod optimizers;
mod table;
mod types;

use pyo3::prelude::*;

/// The native half of `thalweg`.
#[pymodule]
mod _thalweg {
    #[pymodule_export]
    use super::cluster::{Cluster, Strategy};
    #[pymodule_export]
    use super::data::{Batch, Batches, Dataset, Described, Description, Descriptions, Files, Loader, digits};
    #[pymodule_export]
    use super::graph::{Graph, Place, Update, Value};
    #[pymodule_export]
    use super::memory::Memory;
    #[pymodule_export]
    use super::model::{Model, Outputs};
    #[pymodule_export]
    use super::table::ops;
    #[pymodule_export]
    use super::types::Dim;

    use super::{Bound, PyModule, PyModuleMethods, PyResult};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
