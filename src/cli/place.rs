//! Where a command is told to run: one device, several with a strategy, or the workers of the job that it drives. The flags are here once;
//! what they mean is the library's.

use std::path::PathBuf;
use std::str::FromStr as _;

use anyhow::Context as _;
use clap::Args;
use thalweg::Cluster;
use thalweg::graph::cluster::DeviceName;
use thalweg::hosts::{self, Hosts};
use thalweg::kit::{self, Case, Options};
use thalweg::measured;
use thalweg::prelude::{Compile, Model, PipelineSchedule, Reduction, Strategy};

/// Where to run, and how a model is spread over several devices.
#[derive(Args, Clone)]
pub(crate) struct Where {
    /// Where to run: `cpu`, or `gpu:1` for the second adapter that `thalweg devices` lists.
    #[arg(long, default_value = "cpu", value_parser = DeviceName::from_str)]
    pub(super) device: DeviceName,
    /// Threads of the CPU; all cores by default.
    #[arg(long)]
    pub(super) threads: Option<usize>,
    /// Several devices: `cpu:0,cpu:1` for two of one thread each, `gpu:0` for an adapter.
    #[arg(long, value_delimiter = ',', value_parser = DeviceName::from_str, conflicts_with_all = ["device", "threads"])]
    devices: Vec<DeviceName>,
    /// How the model is spread over them.
    #[arg(long, value_enum, default_value = "dp")]
    strategy: Kind,
    /// Parameter servers of the strategy `ps`: how many of the devices, the last ones, or their names. What is left are
    /// workers.
    #[arg(long, value_name = "COUNT|NAMES", default_value = "1")]
    servers: String,
    /// Stages of a pipeline: as many as there are devices, unless this says otherwise. What remains is data parallel.
    #[arg(long, value_parser = clap::value_parser!(u16).range(2..))]
    stages: Option<u16>,
    /// Parts of a batch that are on their way in each pipeline: four per stage, unless this says otherwise.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    microbatches: Option<u16>,
    /// In which order a stage of a pipeline takes them.
    #[arg(long, value_enum, default_value = "1f1b")]
    schedule: Order,
    /// Groups of so many devices share the parameters that `--shard` names (tensor parallel).
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    tensor_parallel: u16,
    /// A parameter that such a group shares, and the axis along which it is cut: `fc1.weight:0`, or `*.fc1.weight:0` for all whose
    /// names end so.
    #[arg(long, value_parser = shard)]
    shard: Vec<(String, u16)>,
    /// Virtual devices, by which batches are cut and sums are ordered: as many as there are devices, unless this says
    /// otherwise. The same leaves give the same bits on any number of devices.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    leaves: Option<u16>,
    /// In which order gradients are added up: by one tree for any number of devices, or around a ring.
    #[arg(long, value_enum, default_value = "canonical")]
    reduction: Sums,
    /// A TOML file of a cluster: what it says of the devices' rates, memory and links counts before what was measured.
    #[arg(long, value_name = "FILE")]
    cluster: Option<PathBuf>,
}

impl Where {
    /// The devices; where there are several, with all that is known of them.
    pub(super) fn cluster(&self) -> anyhow::Result<Cluster> {
        if self.devices.is_empty() { Ok(self.named()) } else { self.known_cluster() }
    }
    /// The devices, with all that is known of them.
    pub(super) fn known_cluster(&self) -> anyhow::Result<Cluster> {
        let mut cluster = self.named();
        if let Some(path) = &self.cluster {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            let said = Cluster::from_toml(&text).with_context(|| path.display().to_string())?;
            for device in &mut cluster.devices {
                let Some(known) = said.devices.iter().find(|d| d.name == device.name) else {
                    anyhow::bail!("{}: says nothing of {}, where this is to run", path.display(), device.name);
                };
                (device.rates, device.memory_bytes) = (known.rates, known.memory_bytes);
            }
            cluster.links = said.links;
        }
        let kept = measured::file().and_then(|path| measured::load(&path)).unwrap_or_else(|e| {
            eprintln!("{e}");
            vec![]
        });
        measured::fill(&mut cluster, &kept);
        Ok(cluster)
    }
    /// The devices by name.
    fn named(&self) -> Cluster {
        if self.devices.is_empty() {
            return match self.device {
                DeviceName::Cpu(_) => self.threads.map_or_else(Cluster::local, Cluster::cpu),
                DeviceName::Gpu(adapter) => Cluster::gpu(adapter),
            };
        }
        Cluster::of(self.devices.iter().map(|device| device.spec()).collect())
    }
    /// How the model is spread, unless it is simply on one device.
    pub(super) fn strategy(&self) -> Option<Strategy> {
        // One device cannot be a worker and its server; that is said then, and not passed over.
        let said = self.leaves.is_some() || self.devices.len() > 1 || matches!(self.strategy, Kind::Ps);
        said.then(|| self.strategy_over(self.devices.len()))
    }
    /// In which order sums over leaves are taken.
    pub(super) fn sums(&self) -> Reduction {
        match self.reduction {
            Sums::Canonical => Reduction::Canonical,
            Sums::Fast => Reduction::Fast,
        }
    }
    /// How the model is spread over so many devices.
    fn strategy_over(&self, devices: usize) -> Strategy {
        let stages = || self.stages.unwrap_or(devices.max(1) as u16);
        let kind = match self.strategy {
            Kind::Dp => Strategy::data_parallel(),
            Kind::Zero1 => Strategy::data_parallel().shard_state(),
            Kind::Auto => Strategy::auto(),
            Kind::Ps => match self.servers.parse() {
                Ok(count) => Strategy::servers(count),
                Err(_) => Strategy::servers_on(&self.servers.split(',').collect::<Vec<_>>()),
            },
            Kind::Pp => Strategy::pipeline(stages()).schedule(self.schedule.into()),
        };
        let groups = kind.tensor_parallel(self.tensor_parallel).reduction(self.sums());
        let mut strategy = self.shard.iter().fold(groups, |s, (name, axis)| s.shard(name, *axis));
        if let Some(count) = self.microbatches {
            strategy = strategy.microbatches(count);
        }
        if let Some(leaves) = self.leaves {
            strategy = strategy.leaves(leaves);
        }
        strategy
    }
    /// The workers of the job whose driver this is, if a launcher has begun one.
    ///
    /// # Errors
    /// If devices were asked for beside, or the workers do not come.
    pub(super) fn hosts(&self) -> anyhow::Result<Option<Hosts>> {
        let Some(launched) = hosts::launched()? else { return Ok(None) };
        let elsewhere = !self.devices.is_empty() || !matches!(self.device, DeviceName::Cpu(0));
        anyhow::ensure!(
            !elsewhere && self.threads.is_none() && self.cluster.is_none(),
            "--device, --devices, --threads and --cluster say where to run in one process; a job that was launched runs on \
             the CPUs of its workers"
        );
        Ok(Some(launched.workers()?))
    }
    /// How a model is spread over the workers.
    pub(super) fn strategy_on(&self, hosts: &Hosts) -> Strategy {
        self.strategy_over(hosts.cluster().devices.len())
    }
    /// A model compiled for the workers.
    pub(super) fn compile_on(&self, hosts: Hosts, graph: &thalweg::Graph) -> anyhow::Result<Model> {
        let strategy = self.strategy_on(&hosts);
        Ok(graph.compile_on(hosts, &strategy)?)
    }
    /// A case of the kit, here or on the workers of the job that this process drives; `None` where there is no such case.
    pub(super) fn case(&self, name: &str, options: &Options) -> anyhow::Result<Option<Case>> {
        if kit::has_servers(name) && !matches!(self.strategy, Kind::Ps) {
            return Self { strategy: Kind::Ps, ..self.clone() }.case(name, options);
        }
        let Some(hosts) = self.hosts()? else {
            return Ok(Case::open_with(name, &self.cluster()?, self.strategy().as_ref(), options)?);
        };
        let strategy = self.strategy_on(&hosts);
        Ok(Case::open_on(name, hosts, &strategy, options)?)
    }
    /// Threads that a process so placed should be pinned to; none: all.
    pub(super) fn pinned(&self) -> Option<usize> {
        let cores = self.devices.iter().all(|d| matches!(d, DeviceName::Cpu(_)));
        if self.devices.is_empty() { self.threads } else { cores.then_some(self.devices.len()) }
    }
    /// Whether anything was said at all.
    pub(super) fn is_said(&self) -> bool {
        let elsewhere = !matches!(self.device, DeviceName::Cpu(0)) || !self.devices.is_empty();
        elsewhere || self.threads.is_some() || self.leaves.is_some()
    }
    /// A model compiled for that.
    pub(super) fn compile(&self, graph: &thalweg::Graph) -> anyhow::Result<Model> {
        let cluster = self.cluster()?;
        Ok(self.strategy().map_or_else(|| graph.compile(&cluster), |s| graph.compile_with(&cluster, &s))?)
    }
}

impl std::fmt::Display for Where {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.devices.is_empty() {
            return self.device.fmt(f);
        }
        let names: Vec<String> = self.named().devices.iter().map(|d| d.name.to_string()).collect();
        f.write_str(&names.join(","))
    }
}

/// `NAME:AXIS`.
fn shard(text: &str) -> Result<(String, u16), String> {
    let parts = text.rsplit_once(':').and_then(|(name, axis)| Some((name.to_string(), axis.parse().ok()?)));
    parts.ok_or_else(|| format!("`{text}` is no parameter and axis, such as `fc1.weight:0`"))
}

/// A strategy by its name.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Kind {
    /// Data parallel: by rows of the batch.
    Dp,
    /// The same, and what the optimizer keeps is shared out (ZeRO stage 1).
    Zero1,
    /// A pipeline: by layers.
    Pp,
    /// Data parallel, with parameter servers.
    Ps,
    /// Whichever of the others is predicted to be the fastest.
    Auto,
}

/// An order of sums by its name.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Sums {
    /// The same bits on any number of devices.
    Canonical,
    /// Whatever is best for these.
    Fast,
}

/// An order of microbatches by its name.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Order {
    /// One forwards, one backwards: as few values are kept as can be.
    #[value(name = "1f1b")]
    OneForwardOneBackward,
    /// All forwards, then all backwards.
    #[value(name = "gpipe")]
    GPipe,
}

impl From<Order> for PipelineSchedule {
    fn from(order: Order) -> Self {
        match order {
            Order::OneForwardOneBackward => PipelineSchedule::OneForwardOneBackward,
            Order::GPipe => PipelineSchedule::GPipe,
        }
    }
}
