//! A plan explained before it runs: what each launch and channel is predicted to take, why it is where it is, what decides
//! when the step ends, how long each device has nothing to do. All of it is derived from the plan, its costs and one
//! simulated step; nothing here is known to whoever made the plan only.

mod analysis;
mod kept;
mod path;
mod text;
mod why;

pub use analysis::{Analysis, OtherPlan};
pub use kept::KeptRow;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::cluster::Cluster;
use crate::cost::{CostModel, Work};
use crate::id::Id;
use crate::place::Placed;
use crate::plan::simulate::{Harm, Options, simulate};
use crate::plan::{Channel, DeviceMemory, Endpoint, Instruction, Place, Plan};

/// What is said of a plan. Times are in seconds of the prediction.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// The graph's name.
    pub graph: Arc<str>,
    /// The program's.
    pub program: Arc<str>,
    /// One per device.
    pub devices: Vec<DeviceRow>,
    /// Every launch and copy, device by device, in order.
    pub launches: Vec<LaunchRow>,
    /// Every channel between devices.
    pub channels: Vec<ChannelRow>,
    /// Where parameters are, if servers keep them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<KeptRow>,
    /// From start to end, on all devices.
    pub step_seconds: f64,
    /// What determines the end, from the first to the last: shorten one of them, and the step is shorter.
    pub path: Vec<PathRow>,
    /// What placement had to do that costs.
    pub notes: Vec<String>,
    /// Bytes that the first save takes for its copy of the variables and keeps, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_bytes: Option<u64>,
    /// How it compares with steps that ran, once they have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub analysis: Option<Analysis>,
}

/// A device.
#[derive(Clone, Debug, Serialize)]
pub struct DeviceRow {
    /// Its name.
    pub device: Arc<str>,
    /// Whether its rates were measured or stated; if not, its times are of their order alone.
    pub rates_known: bool,
    /// Bytes that it needs.
    #[serde(flatten)]
    pub memory: DeviceMemory,
    /// Bytes that it may use, where that is said.
    pub memory_bytes: Option<u64>,
    /// How long it launches and copies.
    pub busy_seconds: f64,
    /// How long it waits for others.
    pub idle_seconds: f64,
    /// Bytes that it sends to other devices.
    pub sent_bytes: u64,
}

/// A launch or a copy.
#[derive(Clone, Debug, Serialize)]
pub struct LaunchRow {
    /// Its device, by its place in the plan.
    pub device: u16,
    /// Its place among the device's instructions.
    pub instruction: usize,
    /// What it computes.
    pub label: Arc<str>,
    /// The user's line.
    pub site: String,
    /// Why it is there, and in that shape.
    pub why: String,
    /// What it is predicted to take.
    pub seconds: f64,
    /// Operations that its kernel asks for.
    pub flops: f64,
    /// Bytes that it reads and writes.
    pub bytes: f64,
    /// What it took, where that was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured_seconds: Option<f64>,
    /// The work that the prediction is of.
    pub work: Work,
}

/// A channel between two devices.
#[derive(Clone, Debug, Serialize)]
pub struct ChannelRow {
    /// Its number.
    pub channel: u32,
    /// Who sends.
    pub from: Arc<str>,
    /// Who receives.
    pub to: Arc<str>,
    /// What crosses.
    pub label: Arc<str>,
    /// Its bytes.
    pub bytes: u64,
    /// From the post to the arrival.
    pub seconds: f64,
}

/// A link of the chain that determines the end of the step.
#[derive(Clone, Debug, Serialize)]
pub struct PathRow {
    /// The device that is busy, or both where something crosses.
    pub place: String,
    /// What happens.
    pub what: String,
    /// When it begins.
    pub begin_seconds: f64,
    /// How long it takes.
    pub seconds: f64,
}

/// Explains `plan` on `cluster`. `placed` is how its values were placed, where there are several devices; `borrows` says of
/// each device what [`Plan::memory`] asks.
///
/// # Errors
/// If the plan is not sound: it comes to harm when it is simulated.
pub fn explain(
    plan: &Plan,
    cluster: &Cluster,
    placed: Option<&Placed>,
    borrows: &[bool],
) -> Result<Explanation, Box<Harm>> {
    let cost = CostModel::new(plan, cluster);
    // Every step begins and ends with all devices together: one tells all.
    let step = simulate(plan, &cost, &Options { steps: 1, seeds: 0..0, replicas: true })?;
    let end = step.end + cost.step();
    let took = |place: Place| {
        let found = step.timeline.iter().find(|i| i.place == place);
        found.map_or(Duration::ZERO, |i| i.end - i.begin)
    };
    let memory = plan.memory(borrows);
    let reasons = placed.map(why::Reasons::new);
    let work: Vec<Work> = plan.kernels.values().iter().map(Work::of).collect();
    let (mut launches, mut devices) = (vec![], vec![]);
    for (d, part) in plan.devices.iter().enumerate() {
        let mut busy = Duration::ZERO;
        for (instruction, what) in part.instructions.iter().enumerate() {
            let place = Place { device: d as u16, instruction };
            let (label, site, why, flops, bytes, work) = match what {
                Instruction::Launch(launch) => {
                    let of = plan.kernels[launch.kernel].cost();
                    let why = why::of_launch(plan, place, launch, reasons.as_ref());
                    let bytes = of.bytes_read + of.bytes_written;
                    (launch.label.clone(), launch.site.to_string(), why, of.flops, bytes, work[launch.kernel.index()])
                }
                Instruction::Copy { from, .. } => {
                    let bytes = 2.0 * part.buffers[*from].ty.size_bytes() as f64;
                    let why = "what is returned or kept lies elsewhere".into();
                    ("copy".into(), String::new(), why, 0.0, bytes, Work { bytes, ..Work::default() })
                }
                _ => continue,
            };
            let took = took(place);
            busy += took;
            let (seconds, device, measured_seconds) = (took.as_secs_f64(), d as u16, None);
            launches.push(LaunchRow {
                device,
                instruction,
                label,
                site,
                why,
                seconds,
                flops,
                bytes,
                measured_seconds,
                work,
            });
        }
        devices.push(DeviceRow {
            device: part.device.clone(),
            rates_known: cost.measured(d),
            memory: memory[d],
            memory_bytes: cluster.devices.get(d).and_then(|s| s.memory_bytes),
            busy_seconds: busy.as_secs_f64(),
            idle_seconds: end.saturating_sub(busy).as_secs_f64(),
            sent_bytes: sent(plan, d as u16),
        });
    }
    let name = |end: Endpoint| match end {
        Endpoint::Driver => "driver".into(),
        Endpoint::Device(d) => plan.devices[usize::from(d)].device.clone(),
    };
    let crossing = step.transfers.iter().map(|transfer| {
        let channel = &plan.channels[transfer.channel];
        ChannelRow {
            channel: transfer.channel.0,
            from: name(channel.from),
            to: name(channel.to),
            label: channel.label.clone(),
            bytes: transfer.bytes,
            seconds: (transfer.arrived - transfer.posted).as_secs_f64(),
        }
    });
    let mut channels: Vec<ChannelRow> = crossing.collect();
    channels.sort_by_key(|c| c.channel);
    let notes = placed.map_or(vec![], |p| {
        let said = |n: &crate::place::Note| format!("{} at {}: {} ({} bytes)", n.label, n.site, n.what, n.bytes);
        p.notes.iter().map(said).collect()
    });
    Ok(Explanation {
        graph: plan.graph.clone(),
        program: plan.program.clone(),
        devices,
        launches,
        channels,
        parameters: placed.map_or(vec![], |p| kept::kept(plan, p)),
        step_seconds: end.as_secs_f64(),
        path: path::path(plan, &step),
        notes,
        snapshot_bytes: None,
        analysis: None,
    })
}

/// Bytes that a device sends to others in a step.
fn sent(plan: &Plan, device: u16) -> u64 {
    let between = |c: &&Channel| c.from == Endpoint::Device(device) && c.to != Endpoint::Driver;
    plan.channels.values().iter().filter(between).map(|c| c.ty.size_bytes()).sum()
}
