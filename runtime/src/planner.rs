//! Who makes a session's plans: where its variables lie, and what a program becomes for given extents. A session does not
//! know whether that takes placement and cutting, or is one device's matter.

use thalweg_graph::Bindings;
use thalweg_graph::ir::{Graph, Program};
use thalweg_graph::lower::{LowerError, StateLayout, StateMap, Target, lower, lower_devices};
use thalweg_graph::partition::partition;
use thalweg_graph::place::{Request, place};
use thalweg_graph::plan::Plan;

/// Makes the plans of a session.
pub trait Planner: Send {
    /// Where the variables of the graph lie, the same in every plan.
    fn state(&self) -> &StateMap;
    /// The plan of `program` over `targets`, the session's devices in order. `bound` holds primitives only and no named
    /// dimensions.
    ///
    /// A channel from the driver is called as the input of which it carries elements, one to the driver as the output;
    /// every element of an output leaves once.
    fn plan(
        &self,
        bound: &Graph,
        program: &Program,
        bindings: &Bindings,
        targets: &[&dyn Target],
    ) -> Result<Plan, LowerError>;
}

/// Everything on one device.
pub struct Single {
    layout: StateLayout,
    state: StateMap,
}

impl Single {
    /// For the variables of `graph`.
    pub fn new(graph: &Graph) -> Self {
        let layout = StateLayout::of(graph);
        let state = StateMap::single(&layout);
        Self { layout, state }
    }
}

impl Planner for Single {
    fn state(&self) -> &StateMap {
        &self.state
    }
    /// # Panics
    /// If there is no target.
    fn plan(
        &self,
        bound: &Graph,
        program: &Program,
        bindings: &Bindings,
        targets: &[&dyn Target],
    ) -> Result<Plan, LowerError> {
        lower(bound, program, bindings, &self.layout, targets[0])
    }
}

/// Programs that are placed, cut and lowered for several devices.
pub struct Placing {
    request: Request,
    layouts: Vec<StateLayout>,
    state: StateMap,
}

impl Placing {
    /// For the variables of `graph` on `devices` devices.
    pub fn new(graph: &Graph, request: Request, devices: usize) -> Self {
        let (layouts, state) = request.state(graph, devices);
        Self { request, layouts, state }
    }
}

impl Planner for Placing {
    fn state(&self) -> &StateMap {
        &self.state
    }
    fn plan(
        &self,
        bound: &Graph,
        program: &Program,
        bindings: &Bindings,
        targets: &[&dyn Target],
    ) -> Result<Plan, LowerError> {
        let graph = Graph { programs: vec![program.clone()], ..bound.clone() };
        let parts = partition(&place(&graph, &self.request)?, targets.len());
        lower_devices(&parts, bindings, &self.layouts, targets)
    }
}
