//! Which strategy is best: all that fit are planned, and the plan whose step is predicted to be the shortest wins. A plan is
//! judged as it would run, by the simulator and the costs that `explain` shows; so what is not thought of here is at least
//! seen there. Nothing is searched: strategies are few
//! (`strategy/families.rs`), and a person can look at all of them.

use serde::Serialize;

use crate::cluster::Cluster;
use crate::cost::CostModel;
use crate::ir::Graph;
use crate::lower::{Target, lower_devices};
use crate::partition::partition;
use crate::place::place;
use crate::plan::Plan;
use crate::plan::simulate::{Options, simulate};
use crate::strategy::{Strategy, typical};
use crate::structural::Input;

/// What was chosen, and among what.
#[derive(Clone, Debug, Serialize)]
pub struct Choice {
    /// The best.
    pub strategy: Strategy,
    /// All that were looked at, the best first, those that do not fit last.
    pub candidates: Vec<Candidate>,
}

/// A strategy that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Candidate {
    /// In words.
    pub name: String,
    /// What is said of it.
    #[serde(skip)]
    pub strategy: Strategy,
    /// What a step is predicted to take, or why it does not fit.
    pub outcome: Result<Predicted, String>,
}

/// What a step of a plan is predicted to take.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Predicted {
    /// From start to end, on all devices.
    pub step_seconds: f64,
    /// Bytes of memory that each device needs.
    pub bytes: Vec<u64>,
}

/// Why there is nothing to choose.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ChooseError {
    /// Nothing has a plan that fits the cluster.
    #[error("no strategy fits: {}", why.join("; "))]
    NothingFits {
        /// Strategy by strategy.
        why: Vec<String>,
    },
    /// There is no program, or one that cannot be brought to these extents.
    #[error("there is no program to choose a strategy for at these extents")]
    NoProgram,
}

/// The strategy under which the program that learns (or else the first) is predicted to be fastest. `wanted` says what all
/// candidates have in common, and the extents that count.
///
/// # Errors
/// If none fits.
///
/// # Panics
/// If there are not as many targets as devices.
pub fn choose(
    wanted: &Strategy,
    graph: &Graph,
    cluster: &Cluster,
    targets: &[&dyn Target],
) -> Result<Choice, ChooseError> {
    assert_eq!(targets.len(), cluster.devices.len(), "one of each per device");
    let bound = typical(graph, wanted.extents()).ok_or(ChooseError::NoProgram)?;
    let look = |strategy: Strategy| {
        let outcome = predict(&strategy, graph, &bound, cluster, targets);
        Candidate { name: strategy.to_string(), strategy, outcome }
    };
    let family = |family: Vec<Strategy>| {
        let mut seen: Vec<Candidate> = vec![];
        for strategy in family {
            seen.push(look(strategy));
            if let [.., before, last] = &seen[..]
                && last.seconds() >= before.seconds()
            {
                break;
            }
        }
        seen
    };
    let mut candidates: Vec<Candidate> = wanted.families(graph, cluster).into_iter().flat_map(family).collect();
    // The simpler one, where two are as fast: candidates come in that order, and sorting keeps it.
    candidates.sort_by(|a, b| a.seconds().total_cmp(&b.seconds()));
    match candidates.first() {
        Some(best) if best.outcome.is_ok() => Ok(Choice { strategy: best.strategy.clone(), candidates }),
        _ => {
            let why = |c: Candidate| format!("{}: {}", c.name, c.outcome.err().unwrap_or_default());
            Err(ChooseError::NothingFits { why: candidates.into_iter().map(why).collect() })
        }
    }
}

/// What a step of `bound`, the one program of `graph` that counts, is predicted to take.
fn predict(
    strategy: &Strategy,
    graph: &Graph,
    bound: &Graph,
    cluster: &Cluster,
    targets: &[&dyn Target],
) -> Result<Predicted, String> {
    let devices = cluster.devices.len();
    let request = strategy.request(graph, cluster).map_err(|e| e.to_string())?;
    let rows = bound.nodes.values().iter().filter_map(|n| n.op_as::<Input>());
    let rows = rows.filter(|i| request.inputs.contains_key(&i.name)).filter_map(|i| i.ty.shape.first()?.fixed()).min();
    if let Some(rows) = rows.filter(|rows| *rows < request.mesh.axes[0].1.into()) {
        return Err(format!("a batch of {rows} has no row for each of {} leaves", request.mesh.axes[0].1));
    }
    let placed = place(bound, &request).map_err(|e| e.to_string())?;
    let parts = partition(&placed, devices);
    let (layouts, _) = request.state(bound, devices);
    let plan = lower_devices(&parts, &Default::default(), &layouts, targets).map_err(|e| e.to_string())?;
    let bytes: Vec<u64> = plan.devices.iter().map(|d| d.state_bytes + d.scratch_bytes + d.staging_bytes).collect();
    for (device, bytes) in cluster.devices.iter().zip(&bytes) {
        if let Some(most) = device.memory_bytes.filter(|most| most < bytes) {
            return Err(format!("it needs {bytes} bytes on {}, which has {most}", device.name));
        }
    }
    Ok(Predicted { step_seconds: step_seconds(&plan, cluster)?, bytes })
}

/// What a step of a plan is predicted to take.
fn step_seconds(plan: &Plan, cluster: &Cluster) -> Result<f64, String> {
    let cost = CostModel::new(plan, cluster);
    let step =
        simulate(plan, &cost, &Options { steps: 1, seeds: 0..0, replicas: true }).map_err(|harm| harm.to_string())?;
    Ok((step.end + cost.step()).as_secs_f64())
}

impl Candidate {
    fn seconds(&self) -> f64 {
        self.outcome.as_ref().map_or(f64::INFINITY, |p| p.step_seconds)
    }
}

impl std::fmt::Display for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let width = self.candidates.iter().map(|c| c.name.chars().count()).max().unwrap_or(0);
        for candidate in &self.candidates {
            write!(f, "{:width$}  ", candidate.name)?;
            match &candidate.outcome {
                Ok(p) => {
                    let most = p.bytes.iter().max().copied().unwrap_or(0) as f64 / (1 << 20) as f64;
                    writeln!(f, "{:10.1} µs a step, {most:.1} MiB at most", p.step_seconds * 1e6)?;
                }
                Err(why) => writeln!(f, "{why}")?,
            }
        }
        Ok(())
    }
}
