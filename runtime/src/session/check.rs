//! What happens when a value is not finite: the step fails before it commits, and the same feeds and variables are run
//! once more, on the same devices, to find the first node that made an infinity or a NaN and what it was made from.
//!
//! Looking must not change what is computed. A value that is looked at is not fused into its reader, and a device may add
//! up a fused fold in another order. So checks are part of a step's plan only where every other launch stays as it is;
//! otherwise they are a plan of their own, the guard, that runs before the step and updates nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use thalweg_graph::diagnostic::Diagnostic;
use thalweg_graph::ir::{Check, Graph, Node, Program, Site, Value};
use thalweg_graph::kernel::Kernel;
use thalweg_graph::plan::{BufferId, ChannelId, DevicePlan, Endpoint, Instruction, Plan};
use thalweg_graph::structural::{Input, ReadVariable};
use thalweg_graph::watch::{Finiteness, check_every_value, first_offence};
use thalweg_graph::{Array, Bindings, DType};

use super::{Outcome, Outputs, RunError, Session, Step};
use crate::feed::Fed;

/// A value that was to be finite and is not.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{diagnostic}")]
pub struct NotFinite {
    /// The program.
    pub program: Arc<str>,
    /// How many steps had been committed before.
    pub step: u64,
    /// The first node in the graph's order that is to blame: scope, name and op.
    pub label: String,
    /// Where it was asked for.
    pub site: Site,
    /// How many of its elements are infinite or NaN.
    pub count: usize,
    /// Where the first of them is.
    pub index: Vec<u64>,
    /// What the first of them is, in words: `NaN`, `inf` or `-inf`.
    pub value: String,
    /// The whole story, to be drawn on the user's source.
    pub diagnostic: Diagnostic,
}

/// What was fed, by name.
type Feeds<'a> = std::collections::BTreeMap<&'a str, &'a Fed<'a>>;

/// Whether what was found must not be committed.
pub(super) fn fails(step: &Step, found: &[(Value, Finiteness)]) -> bool {
    let finite = |found: &[(Value, Finiteness)]| found.iter().all(|(_, f)| *f == Finiteness::Finite);
    let (declared, every) = found.split_at(step.declared);
    !finite(declared) || (!finite(every) && first_offence(&step.graph, every).is_some())
}

/// The name of the channel that says how a check went.
pub(super) fn channel(check: &Check) -> Arc<str> {
    format!("finiteness of {}", check.of).into()
}

/// What a plan runs, device by device, apart from what only looks: launches that make nothing but the statuses of checks,
/// which leave by channels called `looks`.
fn work<'p>(plan: &'p Plan, looks: &[Arc<str>]) -> Vec<Vec<Work<'p>>> {
    let only_looks = |c: &ChannelId| {
        let channel = &plan.channels[*c];
        channel.to == Endpoint::Driver && looks.contains(&channel.label)
    };
    let of_device = |device: &'p DevicePlan| {
        let posted = device.instructions.iter().filter_map(|i| match i {
            Instruction::Post { channel, buffer } if only_looks(channel) => Some(*buffer),
            _ => None,
        });
        let statuses: BTreeSet<BufferId> = posted.collect();
        let work = |i: &Instruction| match i {
            Instruction::Launch(launch) if launch.writes.iter().all(|w| statuses.contains(w)) => None,
            Instruction::Launch(launch) => Some(Work::Launch(&plan.kernels[launch.kernel])),
            Instruction::Copy { .. } | Instruction::Commit => Some(Work::Other),
            Instruction::Wait { channel, .. } if plan.channels[*channel].from != Endpoint::Driver => Some(Work::Other),
            _ => None,
        };
        device.instructions.iter().filter_map(work).collect()
    };
    plan.devices.iter().map(of_device).collect()
}

/// Something that a plan does.
#[derive(PartialEq)]
enum Work<'p> {
    Launch(&'p Kernel),
    Other,
}

impl Session {
    /// The one program of `bound` made ready, and a guard if it takes one.
    pub(super) fn guarded(&mut self, bound: Graph, bindings: &Bindings) -> Result<(Option<Step>, Step), RunError> {
        let declared = bound.programs[0].checks.len();
        if !self.checks_all && declared == 0 {
            let plan = self.make_plan(&bound, bindings)?;
            return Ok((None, self.load(bound, plan, 0)?));
        }
        let mut bare = bound.clone();
        bare.programs[0].checks.clear();
        let plan = self.make_plan(&bare, bindings)?;
        let mut guard = bound.clone();
        if self.checks_all {
            guard = check_every_value(&bound);
        } else {
            let checking = self.make_plan(&bound, bindings)?;
            let looks: Vec<Arc<str>> = bound.programs[0].checks.iter().map(channel).collect();
            if work(&checking, &looks) == work(&plan, &looks) {
                return Ok((None, self.load(bound, checking, declared)?));
            }
        }
        let program = &mut guard.programs[0];
        program.name = format!("{} (checks)", program.name).into();
        program.outputs.clear();
        program.updates.clear();
        let guard_plan = self.make_plan(&guard, bindings)?;
        let step = self.load(bare, plan, 0)?;
        match self.load(guard, guard_plan, declared) {
            Ok(guard) => Ok((Some(guard), step)),
            Err(error) => {
                self.unload(&step);
                Err(error)
            }
        }
    }

    /// From here on every float value of every step is to be finite, or no longer. Slower, since every value is computed
    /// once to be looked at and once as it would have been; the results are the same to the last bit.
    pub fn check_finite(&mut self, on: bool) {
        self.checks_all = on;
    }

    /// Why `step` of a program failed, given what was found and what was fed, in the order of the program's inputs.
    pub(super) fn explain(
        &mut self,
        index: usize,
        step: &Step,
        found: &[(Value, Finiteness)],
        fed: &[Fed<'_>],
    ) -> RunError {
        let names: Vec<Arc<str>> = self.programs[index].inputs.iter().map(|(name, _)| name.clone()).collect();
        let feeds: &Feeds = &names.iter().map(|n| &**n).zip(fed).collect();
        let (declared, every) = found.split_at(step.declared);
        let failed = declared.iter().filter(|(_, f)| *f != Finiteness::Finite).map(|(of, _)| *of).min();
        let known = first_offence(&step.graph, every);
        let first = match (known, failed) {
            (Some(of), _) => Ok(of),
            (None, Some(of)) => self.first_on_the_way_to(step, of, feeds),
            (None, None) => unreachable!("something was not finite"),
        };
        let at = |session: &mut Self, of| Ok((of, session.around(step, of, feeds)?));
        match first.and_then(|of| at(self, of)) {
            Ok((of, values)) => RunError::NotFinite(Box::new(self.tell(index, step, of, &values))),
            Err(error) => error,
        }
    }

    /// The first value in order, up to `of`, that is to blame for its not being finite.
    fn first_on_the_way_to(&mut self, step: &Step, of: Value, feeds: &Feeds) -> Result<Value, RunError> {
        let prefix = check_every_value(&returning(step, vec![("it".into(), of)]));
        Ok(match self.once(step, prefix, feeds)? {
            Outcome::NotFinite(found) => first_offence(&step.graph, &found).unwrap_or(of),
            Outcome::Done(_) => of,
        })
    }

    /// The value and the operands of its node, in that order.
    fn around(&mut self, step: &Step, of: Value, feeds: &Feeds) -> Result<Outputs, RunError> {
        let operands = &step.graph.nodes[of.node].operands;
        let name = |(i, v): (usize, &Value)| (i.to_string().into(), *v);
        let outputs = std::iter::once(&of).chain(operands).enumerate().map(name).collect();
        match self.once(step, returning(step, outputs), feeds)? {
            Outcome::Done(outputs) => Ok(outputs),
            Outcome::NotFinite(_) => unreachable!("nothing is checked"),
        }
    }

    /// Runs another program over the graph, feeds and variables of `step`.
    fn once(&mut self, step: &Step, graph: Graph, feeds: &Feeds) -> Result<Outcome, RunError> {
        let plan = self.make_plan(&graph, &step.plan.bindings)?;
        let other = self.load(graph, plan, 0)?;
        let outcome = self.execute(&other, |label| feeds.get(label).copied());
        self.unload(&other);
        outcome
    }

    fn tell(&mut self, index: usize, step: &Step, of: Value, values: &Outputs) -> NotFinite {
        let (node, program) = (&step.graph.nodes[of.node], self.graph.programs[index].clone());
        let arrays: Vec<&Array> = values.iter().map(|(_, a)| a).collect();
        let (result, operands) = (arrays[0], &arrays[1..]);
        let operands_finite = operands.iter().all(|a| Seen::of(a, f64::is_finite).bad == 0);
        // Infinities that an operand had are not this node's doing.
        let mut seen = Seen::of(result, f64::is_finite);
        if !operands_finite {
            let nan = Seen::of(result, |x| !x.is_nan());
            seen = if nan.bad > 0 { nan } else { seen };
        }
        let (what, committed) = (what(node), self.step());
        let (place, value) = seen.first.clone().unwrap_or_default();
        let message = match result.shape() {
            [] => format!("{what} is {value}"),
            _ => format!(
                "{what} is not finite: {} of {} elements, the first at {place:?} is {value}",
                seen.bad,
                result.len()
            ),
        };
        let mut diagnostic = Diagnostic::new("finite", message, node.site.clone()).label("here");
        for (i, (operand, array)) in node.operands.iter().zip(operands).enumerate() {
            let (name, from) = (node.op.schema().operand(i), &step.graph.nodes[operand.node]);
            let looks = Seen::of(array, f64::is_finite).describe(array);
            let label = format!("`{name}` is {}, {looks}", array.ty());
            diagnostic = diagnostic.also(from.site.clone(), label);
        }
        let commit = if program.updates.is_empty() { "" } else { "; nothing was committed" };
        diagnostic = diagnostic
            .note(format!("in program `{}`, after {committed} committed steps{commit}", program.name))
            .help(remedy(node, result.dtype(), value == "NaN", operands_finite));
        let (label, site, count) = (node.label(), node.site.clone(), seen.bad);
        NotFinite { program: program.name, step: committed, label, site, count, index: place, value, diagnostic }
    }
}

/// The graph of `step` with one program that only returns `outputs`.
fn returning(step: &Step, outputs: Vec<(Arc<str>, Value)>) -> Graph {
    let name = format!("{} (looking for what is not finite)", step.plan.program).into();
    let program = Program { name, outputs, updates: vec![], checks: vec![] };
    Graph { programs: vec![program], ..(*step.graph).clone() }
}

/// A node, for people.
fn what(node: &Node) -> String {
    match (node.op_as::<Input>(), node.op_as::<ReadVariable>()) {
        (Some(input), _) => format!("input `{}`", input.name),
        (_, Some(read)) => format!("variable `{}`", read.variable),
        _ => format!("`{}`", node.label()),
    }
}

fn remedy(node: &Node, dtype: DType, nan: bool, operands_finite: bool) -> String {
    let gradient = node.origin.as_deref().is_some_and(|o| o.starts_with("grad."));
    if node.op_as::<Input>().is_some() {
        return "the array that was fed holds it: look at the data".into();
    }
    if node.op_as::<ReadVariable>().is_some() {
        return "it was so before this step: an earlier step committed it, or it was set; train with \
                `check_finite` on to see the step that does it"
            .into();
    }
    match (gradient, nan, operands_finite) {
        (_, true, false) => "an infinite operand became NaN (∞ − ∞, 0 · ∞): is there a row in which everything is \
                             masked?"
            .into(),
        (true, _, _) => format!(
            "a gradient left the range of {dtype}: lower the learning rate or the loss scale, or keep what is \
             differentiated away from its poles"
        ),
        (false, true, true) => "it is undefined for some of its operands (the logarithm or root of a negative number, \
                                0 / 0): keep them in range with `maximum`, or add a small number"
            .into(),
        (false, false, _) => format!(
            "it is too large for {dtype}, or divides by zero: scale what goes in, or add a small number to the divisor"
        ),
    }
}

/// What an array looks like.
struct Seen {
    /// How many elements are bad.
    bad: usize,
    /// The first of them: where, and what.
    first: Option<(Vec<u64>, String)>,
    /// Smallest and largest finite element.
    range: Option<(f64, f64)>,
}

impl Seen {
    fn of(array: &Array, good: fn(f64) -> bool) -> Self {
        let mut seen = Self { bad: 0, first: None, range: None };
        for (i, x) in array.to_f64().into_iter().enumerate() {
            if x.is_finite() {
                let (low, high) = seen.range.unwrap_or((x, x));
                seen.range = Some((low.min(x), high.max(x)));
            }
            if !good(x) {
                seen.bad += 1;
                seen.first.get_or_insert_with(|| (place(i, array.shape()), x.to_string()));
            }
        }
        seen
    }
    fn describe(&self, array: &Array) -> String {
        let short = |x: f64| if array.dtype() == DType::F64 { format!("{x:?}") } else { format!("{:?}", x as f32) };
        let range = self.range.map(|(low, high)| match (array.dtype().is_float(), low == high) {
            (true, true) => format!("all {}", short(low)),
            (true, false) => format!("from {} to {}", short(low), short(high)),
            (false, _) => format!("from {low} to {high}"),
        });
        match (&range, &self.first) {
            (Some(range), None) => format!("finite, {range}"),
            (None, None) => "empty".into(),
            (_, Some((place, value))) => {
                let others = range.map_or(String::new(), |r| format!("; the others {r}"));
                format!(
                    "with {} of {} elements not finite, the first at {place:?} {value}{others}",
                    self.bad,
                    array.len()
                )
            }
        }
    }
}

/// The coordinates of element `i`.
fn place(mut i: usize, shape: &[u64]) -> Vec<u64> {
    let mut at = vec![0; shape.len()];
    for (to, extent) in at.iter_mut().zip(shape).rev() {
        let extent = (*extent).max(1) as usize;
        (*to, i) = ((i % extent) as u64, i / extent);
    }
    at
}
