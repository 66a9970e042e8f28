//! Where to run and how a model is spread, as Python says it: names of devices, and the strategies of the Rust library.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use thalweg::graph::cluster::DeviceName;
use thalweg::{PipelineSchedule, Reduction};

use crate::errors::exception;

/// Devices, by name or as a file describes them.
#[pyclass(frozen, module = "thalweg._thalweg")]
pub(crate) struct Cluster(pub(crate) thalweg::Cluster);

#[pymethods]
impl Cluster {
    /// All cores of this machine, as one device.
    #[staticmethod]
    #[pyo3(signature = (threads=None))]
    fn local(threads: Option<usize>) -> Self {
        Self(threads.map_or_else(thalweg::Cluster::local, thalweg::Cluster::cpu))
    }
    /// These devices: `cpu` for all cores, `cpu:0` and `cpu:1` for two of one thread each, `gpu:0` for an adapter.
    #[staticmethod]
    fn named(py: Python<'_>, names: Vec<String>) -> PyResult<Self> {
        if let [name] = &names[..]
            && name == "cpu"
        {
            return Ok(Self::local(None));
        }
        let spec = |name: &String| match &**name {
            "reference" => Ok(thalweg::Cluster::reference().devices.remove(0)),
            name => name.parse().map(DeviceName::spec),
        };
        let devices = names.iter().map(spec).collect::<Result<_, String>>();
        devices.map(|d| Self(thalweg::Cluster::of(d))).map_err(|e| exception(py, "ClusterError", &e))
    }
    /// As a TOML text describes it.
    #[staticmethod]
    fn from_toml(py: Python<'_>, text: &str) -> PyResult<Self> {
        thalweg::Cluster::from_toml(text).map(Self).map_err(|e| exception(py, "ClusterError", &e.to_string()))
    }
    #[getter]
    fn devices(&self) -> Vec<String> {
        self.0.devices.iter().map(|d| d.name.to_string()).collect()
    }
}

/// How a model is spread over several devices.
#[pyclass(frozen, module = "thalweg._thalweg")]
pub(crate) struct Strategy(pub(crate) thalweg::Strategy);

#[pymethods]
impl Strategy {
    /// `kind` is `dp`, `zero1`, `pp`, `ps` or `auto`.
    #[new]
    #[expect(clippy::too_many_arguments, reason = "as Python calls it")]
    #[pyo3(signature = (kind, *, stages=None, servers=None, leaves=None, microbatches=None, schedule=None, mesh=None, tensor_parallel=None, shard=None, at=None, fast=false))]
    fn new(
        kind: &str,
        stages: Option<u16>,
        servers: Option<u16>,
        leaves: Option<u16>,
        microbatches: Option<u16>,
        schedule: Option<&str>,
        mesh: Option<Vec<(String, u16)>>,
        tensor_parallel: Option<u16>,
        shard: Option<Vec<(String, u16)>>,
        at: Option<Vec<(String, u64)>>,
        fast: bool,
    ) -> PyResult<Self> {
        let wrong = |what: String| PyValueError::new_err(what);
        let mut strategy = match kind {
            "dp" => thalweg::Strategy::data_parallel(),
            "zero1" => thalweg::Strategy::data_parallel().shard_state(),
            "pp" => thalweg::Strategy::pipeline(stages.ok_or_else(|| wrong("a pipeline needs `stages`".into()))?),
            "ps" => thalweg::Strategy::servers(servers.unwrap_or(1)),
            "auto" => thalweg::Strategy::auto(),
            _ => return Err(wrong(format!("there is no strategy `{kind}`; there are dp, zero1, pp, ps, auto"))),
        };
        strategy = match schedule {
            None => strategy,
            Some("1f1b") => strategy.schedule(PipelineSchedule::OneForwardOneBackward),
            Some("gpipe") => strategy.schedule(PipelineSchedule::GPipe),
            Some(other) => return Err(wrong(format!("there is no schedule `{other}`; there are 1f1b, gpipe"))),
        };
        if let Some(axes) = &mesh {
            let axes: Vec<(&str, u16)> = axes.iter().map(|(name, devices)| (&**name, *devices)).collect();
            strategy = strategy.mesh(&axes);
        }
        strategy = at.into_iter().flatten().fold(strategy, |s, (name, extent)| s.at(&name, extent));
        if let Some(devices) = tensor_parallel {
            strategy = strategy.tensor_parallel(devices);
        }
        strategy = shard.into_iter().flatten().fold(strategy, |s, (name, axis)| s.shard(&name, axis));
        if let Some(count) = microbatches {
            strategy = strategy.microbatches(count);
        }
        if let Some(leaves) = leaves {
            strategy = strategy.leaves(leaves);
        }
        if fast {
            strategy = strategy.reduction(Reduction::Fast);
        }
        Ok(Self(strategy))
    }
    fn __repr__(&self) -> String {
        format!("Strategy({})", self.0)
    }
}
