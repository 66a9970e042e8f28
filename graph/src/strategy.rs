//! Strategies: how a model is spread over devices, said in a word. A strategy only chooses where inputs and variables live, and
//! on how many leaves; all communication follows from that.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::cluster::Cluster;
use crate::ir::{Graph, Pin, Program, Site, VarKind, Variable};
use crate::passes::{STANDARD, run_passes, select_program};
use crate::place::balance::{StageOn, balance, layers};
use crate::place::{Mesh, PipelineSchedule, Reduction, Request};
use crate::types::{Bindings, Dim};

/// How a model is spread over the devices of a cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Strategy {
    /// Virtual devices; none said: as many as the rest asks for.
    leaves: Option<u16>,
    /// Whether optimizer state is shared out over the devices.
    shards_state: bool,
    /// Devices that share one copy of the parameters.
    tensor_parallel: u16,
    /// Parameters that are cut, by name or by how names end, and along which axis.
    shards: Vec<(Arc<str>, u16)>,
    /// What the user says of an input: along which axis it is spread, or that it is everywhere.
    inputs: BTreeMap<Arc<str>, Option<u16>>,
    /// Stages of a pipeline.
    stages: u16,
    /// How many parts of a batch are on their way in each pipeline; none said: four per stage.
    microbatches: Option<u16>,
    schedule: PipelineSchedule,
    /// In which proportion devices host leaves; empty: evenly.
    shares: Vec<u16>,
    reduction: Reduction,
    /// Everything is on this device that is not pinned to another.
    alone: Option<Arc<str>>,
    /// It is to be chosen, for these extents.
    auto: Option<Bindings>,
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
    /// Each group of devices has a share.
    #[error("{shares} shares are said, and leaves are spread over {groups} devices or groups of them")]
    Shares {
        /// How many shares.
        shares: usize,
        /// How many groups.
        groups: usize,
    },
    /// Shares give a device no leaf.
    #[error("{leaves} leaves in proportion {shares:?} leave a device without any: give more leaves")]
    NoLeaf {
        /// How many leaves.
        leaves: u16,
        /// The proportion.
        shares: Vec<u16>,
    },
    /// The model says stages, other ones.
    #[error("the model declares {declared} stages, from 0 on, and the strategy has {asked}")]
    Stages {
        /// In the model.
        declared: u16,
        /// In the strategy.
        asked: u16,
    },
    /// A pipeline is cut between layers.
    #[error("the model has too few layers for {stages} stages")]
    TooFewLayers {
        /// How many stages.
        stages: u16,
    },
    /// Something is pinned to a device that is not there.
    #[error("`{label}` at {site} is pinned to `{device}`; there are {}", known.join(", "))]
    NoDevice {
        /// What is pinned.
        label: String,
        /// Its line.
        site: Site,
        /// To what.
        device: Arc<str>,
        /// What there is.
        known: Vec<String>,
    },
    /// Everything is to be on a device that is not there.
    #[error("the strategy speaks of a device `{device}`; there are {}", known.join(", "))]
    NotThere {
        /// Which.
        device: Arc<str>,
        /// What there is.
        known: Vec<String>,
    },
    /// It is still to be chosen.
    #[error("`Strategy::auto` has to be decided first: `choose` does that, as compiling does")]
    Undecided,
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
        Self {
            leaves: None,
            shards_state: false,
            tensor_parallel: 1,
            shards: vec![],
            inputs: BTreeMap::new(),
            stages: 1,
            microbatches: None,
            schedule: PipelineSchedule::default(),
            shares: vec![],
            reduction: Reduction::default(),
            alone: None,
            auto: None,
        }
    }
    /// Layers are cut into so many stages, each on a device of its own, and each batch into
    /// [`microbatches`](Self::microbatches) that go from stage to stage: where `g.stage` says, or else so that the slowest stage
    /// is as fast as can be. Where there are more devices than stages, pipelines stand side by side and are data parallel.
    /// The bits are those of as many leaves as there are microbatches.
    pub fn pipeline(stages: u16) -> Self {
        Self { stages: stages.max(1), ..Self::data_parallel() }
    }
    /// Everything is on one device, but what `g.on` pins to others: model parallelism by hand.
    pub fn alone(device: &str) -> Self {
        Self { alone: Some(device.into()), ..Self::data_parallel() }
    }
    /// Whatever is predicted to be the fastest and fits the devices' memory: one device alone, data parallel, ZeRO-1, pipelines
    /// and, where parameters are named to be cut, tensor parallel. What else is said ([`leaves`](Self::leaves),
    /// [`shard`](Self::shard), [`input`](Self::input)) goes for all of them. See [`choose`](crate::choose::choose).
    pub fn auto() -> Self {
        Self { auto: Some(Bindings::new()), ..Self::data_parallel() }
    }
    /// Under [`auto`](Self::auto), the extent of a named dimension that counts; 64, unless this says otherwise.
    pub fn at(mut self, dimension: &str, extent: u64) -> Self {
        self.auto.get_or_insert_default().insert(dimension.into(), extent);
        self
    }
    /// Under [`pipeline`](Self::pipeline), how many parts of a batch are on their way in each pipeline; four per stage, unless
    /// this says otherwise.
    pub fn microbatches(mut self, count: u16) -> Self {
        self.microbatches = Some(count.max(1));
        self
    }
    /// In which order a stage takes microbatches.
    pub fn schedule(mut self, schedule: PipelineSchedule) -> Self {
        self.schedule = schedule;
        self
    }
    /// In which order gradients are added up. [`Reduction::Fast`] gives up the promise of the same bits on any number of devices.
    pub fn reduction(mut self, reduction: Reduction) -> Self {
        self.reduction = reduction;
        self
    }
    /// In which proportion devices (or groups or pipelines of them) host leaves: `[1, 3]` where the second is three times as fast.
    pub fn shares(mut self, shares: &[u16]) -> Self {
        self.shares = shares.to_vec();
        self
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

    /// What it says of `graph` on the devices of `cluster`.
    ///
    /// # Errors
    /// If it does not fit.
    pub fn request(&self, graph: &Graph, cluster: &Cluster) -> Result<Request, StrategyError> {
        if self.is_auto() {
            return Err(StrategyError::Undecided);
        }
        let mesh = self.mesh(cluster)?;
        let (axes, width) = (mesh.axes.len(), self.tensor_parallel);
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
        let (owns_slots, reduction) = (self.shards_state, self.reduction);
        let mut request = Request { inputs, variables, owns_slots, reduction, ..Request::new(mesh) };
        self.place_stages(graph, cluster, &mut request)?;
        Ok(request)
    }

    /// Whether it is still to be chosen.
    pub fn is_auto(&self) -> bool {
        self.auto.is_some()
    }
    /// The extents that count where it is to be chosen.
    pub(crate) fn extents(&self) -> &Bindings {
        static NONE: Bindings = Bindings::new();
        self.auto.as_ref().unwrap_or(&NONE)
    }
    /// Whether parameters are named that may be cut.
    pub(crate) fn has_shards(&self) -> bool {
        !self.shards.is_empty()
    }
    /// `other`, with what this says of leaves, parameters and inputs.
    pub(crate) fn like(&self, other: Self) -> Self {
        let (shards, inputs) = (self.shards.clone(), self.inputs.clone());
        Self { leaves: self.leaves, reduction: self.reduction, shards, inputs, ..other }
    }
    /// `other` on as many leaves as this says, if it says so.
    pub(crate) fn with_leaves(&self, other: Self) -> Self {
        Self { leaves: self.leaves.or(other.leaves), ..other }
    }
    /// Whether the number of leaves is said.
    pub(crate) fn fixes_leaves(&self) -> bool {
        self.leaves.is_some()
    }

    /// The leaves, and which device hosts each in each stage of a pipeline.
    fn mesh(&self, cluster: &Cluster) -> Result<Mesh, StrategyError> {
        let (width, stages, devices) = (self.tensor_parallel, self.stages, cluster.devices.len());
        if let Some(device) = &self.alone {
            let at = cluster.devices.iter().position(|d| d.name == *device);
            let at = at.ok_or_else(|| StrategyError::NotThere { device: device.clone(), known: names(cluster) })?;
            let leaves = self.leaves.unwrap_or(1).max(1);
            let mesh = Mesh::line("dp", leaves, 1);
            return Ok(Mesh { stages: vec![vec![at as u16; leaves.into()]], ..mesh });
        }
        let per_stage = devices / usize::from(stages);
        let groups = u16::try_from(per_stage).unwrap_or(u16::MAX) / width;
        if groups == 0 || usize::from(groups) * usize::from(width) * usize::from(stages) != devices {
            return Err(StrategyError::Width { width: width * stages, devices });
        }
        let microbatches = self.microbatches.unwrap_or(4 * stages);
        let leaves = self.leaves.unwrap_or(if stages > 1 { groups.saturating_mul(microbatches) } else { groups });
        if leaves < groups {
            return Err(StrategyError::Leaves { leaves, devices: usize::from(groups) });
        }
        let mut mesh = match &self.shares[..] {
            [] => Mesh::line("dp", leaves, groups),
            shares if shares.len() != usize::from(groups) => {
                return Err(StrategyError::Shares { shares: shares.len(), groups: groups.into() });
            }
            shares => Mesh::in_proportion("dp", leaves, shares)
                .ok_or_else(|| StrategyError::NoLeaf { leaves, shares: shares.to_vec() })?,
        };
        if width > 1 {
            mesh.axes.push(("tp".into(), width));
            let wide = mesh.stages[0].iter().flat_map(|host| (0..width).map(move |j| host * width + j));
            mesh.stages = vec![wide.collect()];
        }
        let first = mesh.stages.remove(0);
        mesh.stages = (0..stages).map(|s| first.iter().map(|d| s * groups * width + d).collect()).collect();
        Ok(mesh)
    }

    /// Where the layers of a pipeline are cut, what is pinned, and where variables live then.
    fn place_stages(&self, graph: &Graph, cluster: &Cluster, request: &mut Request) -> Result<(), StrategyError> {
        let stages = &mut request.stages;
        (stages.pipeline, stages.schedule) = (if self.stages > 1 { self.stages } else { 0 }, self.schedule);
        let mut declared = 0;
        for node in graph.nodes.values() {
            match &node.pin {
                Some(Pin::Stage(stage)) => declared = declared.max(stage.saturating_add(1)),
                Some(Pin::On(device)) => {
                    let Some(at) = cluster.devices.iter().position(|d| d.name == *device) else {
                        let (label, site, device) = (node.label(), node.site.clone(), device.clone());
                        return Err(StrategyError::NoDevice { label, site, device, known: names(cluster) });
                    };
                    if !stages.named.contains_key(device) {
                        stages.named.insert(device.clone(), request.mesh.stages.len() as u16);
                        request.mesh.stages.push(vec![at as u16; request.mesh.leaves()]);
                    }
                }
                None => {}
            }
        }
        if stages.pipeline > 0 && declared == 0 {
            let on = |stage: u16| {
                let device = request.mesh.device(stage, 0);
                let next = request.mesh.device((stage + 1).min(self.stages - 1), 0);
                StageOn {
                    rates: cluster.devices[usize::from(device)].rates(),
                    bytes_per_second: cluster.way(device, next).1,
                }
            };
            let on: Vec<StageOn> = (0..self.stages).map(on).collect();
            let cut = typical(graph, &Bindings::new()).and_then(|bound| balance(&layers(graph), &bound, &on));
            stages.stems = cut.ok_or(StrategyError::TooFewLayers { stages: self.stages })?;
        } else if stages.pipeline > 0 && declared != self.stages {
            return Err(StrategyError::Stages { declared, asked: self.stages });
        }
        if request.mesh.stages.len() > 1 {
            stages.settle(graph);
        }
        Ok(())
    }
}

fn names(cluster: &Cluster) -> Vec<String> {
    cluster.devices.iter().map(|d| format!("`{}`", d.name)).collect()
}

/// The program that learns, or else the first, in primitives and for extents of a usual size, where none are said: what
/// strategies are judged by.
pub(crate) fn typical(graph: &Graph, said: &Bindings) -> Option<Graph> {
    let program = graph.programs.iter().find(|p| !p.updates.is_empty()).or(graph.programs.first())?;
    let alone = select_program(graph, &program.name)?;
    let extent = |(name, (low, high)): (&Arc<str>, &(u64, u64))| {
        (name.clone(), said.get(name).copied().unwrap_or_else(|| 64.clamp(*low, *high)))
    };
    run_passes(&alone, STANDARD, &mut |_, _| {}).bind(&graph.dims.iter().map(extent).collect())
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_auto() {
            return f.write_str("whatever is fastest");
        }
        match (&self.alone, self.stages) {
            (Some(device), _) => write!(f, "{device} alone")?,
            (None, 1) => f.write_str("data parallel")?,
            (None, stages) => {
                write!(f, "pipeline of {stages} stages, {} microbatches", self.microbatches.unwrap_or(4 * stages))?;
                if self.schedule == PipelineSchedule::GPipe {
                    f.write_str(", GPipe")?;
                }
            }
        }
        if self.tensor_parallel > 1 {
            write!(f, ", groups of {}", self.tensor_parallel)?;
        }
        if self.shards_state {
            f.write_str(", optimizer state shared out")?;
        }
        if let Some(leaves) = self.leaves {
            write!(f, ", {leaves} leaves")?;
        }
        if !self.shares.is_empty() {
            let shares: Vec<String> = self.shares.iter().map(u16::to_string).collect();
            write!(f, " in proportion {}", shares.join(":"))?;
        }
        Ok(())
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
