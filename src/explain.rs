//! A model explained before it runs, and what was said compared with what happens. Where values are placed is worked out
//! anew, as it is for the plan: a session keeps plans, and not what led to them.

use thalweg_graph::explain::{Analysis, Explanation};
use thalweg_graph::passes::{STANDARD, run_passes, select_program};
use thalweg_graph::place::{Placed, Request, place};
use thalweg_graph::plan::Plan;
use thalweg_graph::{Bindings, Cluster, Graph};
use thalweg_runtime::Trace;

use crate::error::{Error, Result};
use crate::model::Model;

/// Says what a program of `model` is predicted to take on `cluster`, over which it was compiled. Gives the plan that is spoken
/// of as well.
///
/// # Errors
/// If there is no such program, a dimension has no value, or the cluster is not the model's.
pub fn explain(
    model: &mut Model,
    program: &str,
    bindings: &Bindings,
    cluster: &Cluster,
) -> Result<(std::sync::Arc<Plan>, Explanation)> {
    let plan = model.session().plan(program, bindings)?;
    if plan.devices.len() != cluster.devices.len() {
        let (model, cluster) = (plan.devices.len(), cluster.devices.len());
        return Err(Error::Cluster(format!("the model runs on {model} devices, and the cluster has {cluster}")));
    }
    let placed = model.spread().map(|s| placed(model.graph(), program, bindings, &s.request)).transpose()?;
    let session = model.session();
    let explained = thalweg_graph::explain::explain(&plan, cluster, placed.as_ref(), &session.borrows());
    let mut explanation = explained.map_err(|harm| Error::Cluster(format!("internal error, please report: {harm}")))?;
    explanation.snapshot_bytes = Some(session.snapshot_bytes());
    Ok((plan, explanation))
}

/// Where the values of a program are.
fn placed(graph: &Graph, program: &str, bindings: &Bindings, request: &Request) -> Result<Placed> {
    let refused = |e: &dyn std::fmt::Display| Error::Cluster(e.to_string());
    let alone = select_program(graph, program).ok_or_else(|| refused(&format!("there is no program `{program}`")))?;
    let primitives = run_passes(&alone, STANDARD, &mut |_, _| {});
    let bound = primitives.bind(bindings).ok_or_else(|| refused(&"give every named dimension a value"))?;
    place(&bound, request).map_err(|e| refused(&e))
}

/// Compares what was said with the steps of a trace, as they ran.
///
/// # Errors
/// If the trace is of another plan, or of no step.
pub fn analyze(explanation: &mut Explanation, trace: &Trace) -> Result<Analysis> {
    let steps: Vec<(f64, Vec<Vec<f64>>)> = trace
        .steps
        .iter()
        .filter(|step| step.done && step.program == explanation.program)
        .map(|step| {
            let took = |d: &thalweg_runtime::trace::DeviceTrace| {
                d.launches.iter().map(|(span, _)| span.took.as_secs_f64()).collect()
            };
            (step.span.took.as_secs_f64(), step.devices.iter().map(took).collect())
        })
        .collect();
    if steps.is_empty() {
        return Err(Error::Cluster("no step of this program was traced: there is nothing to compare with".into()));
    }
    explanation.compare(&steps).map_err(|e| Error::Cluster(e.to_string()))
}
