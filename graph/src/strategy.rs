//! Strategies: how a model is spread over devices, said in a word. A strategy only chooses where inputs and variables live, and
//! on how many leaves; all communication follows from that.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ir::{Graph, Program, VarKind, Variable};
use crate::place::{Mesh, Request};
use crate::types::Dim;

/// How a model is spread over the devices of a cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Strategy {
    /// Virtual devices; none said: as many as there are devices.
    leaves: Option<u16>,
    /// Whether optimizer state is shared out over the devices.
    shards_state: bool,
    /// Devices that share one copy of the parameters.
    tensor_parallel: u16,
    /// Parameters that are cut, by name or by how names end, and along which axis.
    shards: Vec<(Arc<str>, u16)>,
    /// What the user says of an input: along which axis it is spread, or that it is everywhere.
    inputs: BTreeMap<Arc<str>, Option<u16>>,
}

/// Why a strategy does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StrategyError {
    /// Every device hosts a leaf at least.
    #[error("{leaves} leaves cannot be spread over {devices} devices: give as many leaves as devices, or a multiple")]
    Leaves {
        /// How many leaves.
        leaves: u16,
        /// How many devices.
        devices: usize,
    },
    /// Devices come in groups.
    #[error("groups of {width} devices cannot be made of {devices}: give a number of devices that {width} divides")]
    Width {
        /// Devices of a group.
        width: u16,
        /// How many there are.
        devices: usize,
    },
    /// It cuts a parameter that the model has not.
    #[error("the strategy cuts `{name}`, and the model has no such parameter")]
    NoParameter {
        /// Which.
        name: Arc<str>,
    },
    /// It speaks of an input that the model has not.
    #[error("the strategy speaks of an input `{name}`; the model has {}", known.join(", "))]
    NoInput {
        /// Which.
        name: Arc<str>,
        /// What there is.
        known: Vec<String>,
    },
    /// It spreads a tensor along an axis that it has not.
    #[error("the strategy spreads `{name}`, which is {ty}, along axis {axis}")]
    NoAxis {
        /// Which.
        name: Arc<str>,
        /// Its type.
        ty: String,
        /// What was asked for.
        axis: u16,
    },
}

impl Strategy {
    /// Every device has all variables and takes its rows of each batch; gradients are added up. What a batch is: the inputs
    /// of a program whose leading dimension is the one that most of them have.
    pub fn data_parallel() -> Self {
        Self { leaves: None, shards_state: false, tensor_parallel: 1, shards: vec![], inputs: BTreeMap::new() }
    }
    /// On so many leaves, whatever the number of devices: the same leaves give the same bits on any number of devices.
    pub fn leaves(mut self, leaves: u16) -> Self {
        self.leaves = Some(leaves);
        self
    }
    /// What the optimizer keeps is shared out: each device has its part of it, updates that part of the parameters, and sends
    /// it to the others (Rajbhandari et al., *ZeRO: Memory Optimizations Toward Training Trillion Parameter Models*, SC 2020,
    /// stage 1). The same bits, for less memory.
    pub fn shard_state(mut self) -> Self {
        self.shards_state = true;
        self
    }
    /// Groups of so many devices share one copy of the parameters that [`shard`](Self::shard) names; the groups are data
    /// parallel. Sums over such a group are outside of the promise of equal bits.
    pub fn tensor_parallel(mut self, devices: u16) -> Self {
        self.tensor_parallel = devices.max(1);
        self
    }
    /// Under [`tensor_parallel`](Self::tensor_parallel), this parameter is cut along an axis: `shard("fc1.weight", 0)`, or
    /// `shard("*.fc1.weight", 0)` for all whose names end so. How the rest is computed follows.
    pub fn shard(mut self, parameter: &str, axis: u16) -> Self {
        self.shards.push((parameter.into(), axis));
        self
    }
    /// An input is spread along this axis, or (`None`) everywhere.
    pub fn input(mut self, name: &str, axis: Option<u16>) -> Self {
        self.inputs.insert(name.into(), axis);
        self
    }

    /// What it says of `graph` on `devices` devices.
    ///
    /// # Errors
    /// If it does not fit.
    pub fn request(&self, graph: &Graph, devices: usize) -> Result<Request, StrategyError> {
        let width = self.tensor_parallel;
        let groups = u16::try_from(devices).unwrap_or(u16::MAX) / width;
        if groups == 0 || usize::from(groups) * usize::from(width) != devices {
            return Err(StrategyError::Width { width, devices });
        }
        let leaves = self.leaves.unwrap_or(groups);
        if leaves < groups {
            return Err(StrategyError::Leaves { leaves, devices: usize::from(groups) });
        }
        let mut mesh = Mesh::line("dp", leaves, groups);
        let axes = 1 + usize::from(width > 1);
        if width > 1 {
            mesh.axes.push(("tp".into(), width));
            mesh.devices = mesh.devices.iter().flat_map(|host| (0..width).map(move |j| host * width + j)).collect();
        }
        let spread = |m: usize, axis: Option<u16>| {
            let mut all = vec![None; axes];
            all[m] = axis;
            all
        };
        let mut inputs: BTreeMap<Arc<str>, Vec<Option<u16>>> = BTreeMap::new();
        for program in &graph.programs {
            let batch = batch(graph, program);
            for (_, input) in graph.inputs_of(program) {
                if batch.as_ref().is_some_and(|b| input.ty.shape.first() == Some(b)) {
                    inputs.insert(input.name.clone(), spread(0, Some(0)));
                }
            }
        }
        for (name, axis) in &self.inputs {
            let all = graph.programs.iter().flat_map(|p| graph.inputs_of(p));
            let found = all.clone().find(|(_, input)| input.name == *name).map(|(_, input)| &input.ty);
            let Some(ty) = found else {
                let known = all.map(|(_, i)| format!("`{}`", i.name)).collect();
                return Err(StrategyError::NoInput { name: name.clone(), known });
            };
            if let Some(axis) = axis.filter(|a| usize::from(*a) >= ty.rank()) {
                return Err(StrategyError::NoAxis { name: name.clone(), ty: ty.to_string(), axis });
            }
            inputs.insert(name.clone(), spread(0, *axis));
        }
        let mut variables = BTreeMap::new();
        for (pattern, axis) in self.shards.iter().filter(|_| width > 1) {
            let end = pattern.strip_prefix('*');
            let means = |v: &Variable| {
                let fits = end.map_or(v.name == *pattern, |end| v.name.ends_with(end));
                fits && v.kind == VarKind::Param
            };
            let mut found = graph.state.values().iter().filter(|v| means(v)).peekable();
            if found.peek().is_none() {
                return Err(StrategyError::NoParameter { name: pattern.clone() });
            }
            for variable in found {
                if usize::from(*axis) >= variable.ty.rank() {
                    let (name, ty) = (variable.name.clone(), variable.ty.to_string());
                    return Err(StrategyError::NoAxis { name, ty, axis: *axis });
                }
                variables.insert(variable.name.clone(), spread(1, Some(*axis)));
            }
        }
        Ok(Request { mesh, inputs, variables, owns_slots: self.shards_state })
    }
}

/// The dimension that most inputs of a program begin with: a named one rather than a number, then the first.
fn batch(graph: &Graph, program: &Program) -> Option<Dim> {
    let leading: Vec<Dim> =
        graph.inputs_of(program).into_iter().filter_map(|(_, i)| i.ty.shape.first().cloned()).collect();
    let worth = |dim: &Dim| (dim.fixed().is_none(), leading.iter().filter(|d| *d == dim).count());
    let mut best: Option<&Dim> = None;
    for dim in &leading {
        if best.is_none_or(|b| worth(dim) > worth(b)) {
            best = Some(dim);
        }
    }
    best.cloned()
}
