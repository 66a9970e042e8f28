//! Strategies: how a model is spread over devices, said in a word. A strategy only chooses where inputs and variables live, and
//! on how many leaves; all communication follows from that.

mod error;
mod families;
mod request;
mod servers;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use error::StrategyError;
pub(crate) use request::typical;

use crate::place::{PipelineSchedule, Reduction};
use crate::types::Bindings;

/// How a model is spread over the devices of a cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Strategy {
    /// Virtual devices; none said: as many as the rest asks for.
    leaves: Option<u16>,
    /// Whether optimizer state is shared out over the devices.
    shards_state: bool,
    /// The axis of the mesh along which batches are spread, with its devices where they are said.
    batch: (Arc<str>, Option<u16>),
    /// Its other axes, each with its devices.
    inner: Vec<(Arc<str>, u16)>,
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
    /// Devices that keep parameters for the others.
    servers: Option<servers::ServerDevices>,
    /// Everything is on this device that is not pinned to another.
    alone: Option<Arc<str>>,
    /// It is to be chosen, for these extents.
    auto: Option<Bindings>,
}

impl Strategy {
    /// Every device has all variables and takes its rows of each batch; gradients are added up. What a batch is: the inputs
    /// of a program whose leading dimension is the one that most of them have.
    pub fn data_parallel() -> Self {
        Self {
            leaves: None,
            shards_state: false,
            batch: ("dp".into(), None),
            inner: vec![],
            shards: vec![],
            inputs: BTreeMap::new(),
            stages: 1,
            microbatches: None,
            schedule: PipelineSchedule::default(),
            shares: vec![],
            reduction: Reduction::default(),
            servers: None,
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
        if let Some(extents) = &mut self.auto {
            extents.insert(dimension.into(), extent);
        }
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
    /// The devices are a grid whose axes have names and so many devices each: `mesh(&[("dp", 2), ("tp", 4)])`. Batches are spread
    /// along the first axis; along the others is what the model says of its parameters, inputs and values (`shard([None,
    /// Some("tp")])`), or [`shard`](Self::shard) here. How all else is computed follows. Sums along axes other than the first are
    /// outside of the promise of equal bits.
    ///
    /// A model may name axes that the mesh has not only where no mesh is said: then it is not cut there.
    pub fn mesh(mut self, axes: &[(&str, u16)]) -> Self {
        let mut axes = axes.iter().map(|(name, devices)| (Arc::from(*name), *devices));
        self.batch = axes.next().map_or(("".into(), Some(0)), |(name, devices)| (name, Some(devices)));
        self.inner = axes.collect();
        self
    }
    /// A [`mesh`](Self::mesh) of groups of so many devices, along the axis `tp`; the groups are data parallel, along `dp`.
    pub fn tensor_parallel(mut self, devices: u16) -> Self {
        self.inner = vec![("tp".into(), devices.max(1))];
        self
    }
    /// This parameter is cut along an axis, over the last axis of the [`mesh`](Self::mesh), whatever the model says of it:
    /// `shard("fc1.weight", 0)`, or `shard("*.fc1.weight", 0)` for all whose names end so.
    pub fn shard(mut self, parameter: &str, axis: u16) -> Self {
        self.shards.push((parameter.into(), axis));
        self
    }
    /// An input is spread along this axis, or (`None`) everywhere.
    pub fn input(mut self, name: &str, axis: Option<u16>) -> Self {
        self.inputs.insert(name.into(), axis);
        self
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
    /// Devices that have one row of the mesh between them.
    fn width(&self) -> u16 {
        self.inner.iter().fold(1, |all, (_, devices)| all.saturating_mul(*devices))
    }
    /// The axes of the mesh, for people: `dp 2 × tp 4`.
    fn axes_said(&self) -> String {
        let said = |(name, devices): (&Arc<str>, Option<u16>)| match devices {
            Some(devices) => format!("{name} {devices}"),
            None => name.to_string(),
        };
        let inner = self.inner.iter().map(|(name, devices)| (name, Some(*devices)));
        [(&self.batch.0, self.batch.1)].into_iter().chain(inner).map(said).collect::<Vec<_>>().join(" × ")
    }
    /// Parts of a batch that are on their way in each pipeline.
    fn microbatch_count(&self) -> u16 {
        self.microbatches.unwrap_or(4 * self.stages)
    }
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
                write!(f, "pipeline of {stages} stages, {} microbatches", self.microbatch_count())?;
                if self.schedule == PipelineSchedule::GPipe {
                    f.write_str(", GPipe")?;
                }
            }
        }
        match self.server_count() {
            0 => {}
            1 => f.write_str(", one parameter server")?,
            n => write!(f, ", {n} parameter servers")?,
        }
        match (&self.batch, &self.inner[..]) {
            ((_, None), [] | [(_, 1)]) => {}
            ((_, None), [(_, devices)]) => write!(f, ", groups of {devices}")?,
            _ => write!(f, ", mesh {}", self.axes_said())?,
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
