//! One step: a plan made, checked and loaded once, and run every time. The executor runs it; here is what its channels to
//! the caller mean.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use thalweg_graph::Bindings;
use thalweg_graph::ir::{Graph, Value};
use thalweg_graph::plan::{Endpoint, Memory, Plan};
use thalweg_graph::watch::Finiteness;

use super::routes::Routes;
use super::{RunError, Session, check};
use crate::device::DeviceError;
use crate::executor::{Exchange, Fetch, Prepared};
use crate::feed::Fed;
use crate::outputs::Outputs;
use crate::source::{Batch, Draw};

/// A plan on the devices, and what its channels to the caller mean: the program's outputs, then the statuses of what it
/// declares to be finite, then those of all values.
#[derive(Clone)]
pub(super) struct Step {
    /// The one program, in primitives, with all extents bound.
    pub(super) graph: Arc<Graph>,
    pub(super) plan: Arc<Plan>,
    pub(super) prepared: Prepared,
    /// How many of the graph's checks were declared.
    pub(super) declared: usize,
    routes: Arc<Routes>,
    /// Whether some device has a tail.
    commits: bool,
}

impl Step {
    /// Whether it updates variables.
    pub(super) fn commits(&self) -> bool {
        self.commits
    }
    /// Bytes that have crossed between devices.
    pub(super) fn bytes_sent(&self) -> u64 {
        self.prepared.carried().map(|(_, carried)| carried.bytes).sum()
    }
}

/// How a step went.
pub(super) enum Outcome {
    Done(Outputs),
    /// Nothing was committed, since these were to be finite and are not.
    NotFinite(Vec<(Value, Finiteness)>),
}

impl Session {
    /// The plan of the one program of `bound`, sound and within reason.
    pub(super) fn make_plan(&self, bound: &Graph, bindings: &Bindings) -> Result<Arc<Plan>, RunError> {
        // What is to be finite is looked at where outputs leave, before `commit`.
        let mut program = bound.programs[0].clone();
        let statuses = program.checks.iter().map(|c| (check::channel(c), c.status));
        program.outputs.extend(statuses);
        let targets: Vec<_> = self.executor.devices().iter().map(|d| d.target()).collect();
        let plan = Arc::new(self.planner.plan(bound, &program, bindings, &targets)?);
        // No machine addresses more; a sound plan may still ask for it.
        for part in &plan.devices {
            if let Some(memory) = Memory::ALL.into_iter().find(|m| part.bytes(*m) > 1 << 47) {
                let (device, needed) = (part.device.clone(), part.bytes(memory));
                let (memory, detail) = (memory.name(), String::new());
                return Err(DeviceError::OutOfMemory { device, memory, needed, detail }.into());
            }
        }
        let mut faults = plan.verify();
        let state: Vec<u64> = plan.devices.iter().map(|d| d.state_bytes).collect();
        if state != self.planner.state().bytes {
            let want = &self.planner.state().bytes;
            faults.push(format!("its devices have {state:?} bytes of state, the session's {want:?}"));
        }
        if faults.is_empty() { Ok(plan) } else { Err(RunError::Unsound(faults)) }
    }
    /// Makes a plan of the one program of `bound` ready; the first `declared` of its checks were asked for one by one.
    pub(super) fn load(&mut self, bound: Graph, plan: Arc<Plan>, declared: usize) -> Result<Step, RunError> {
        let checks: Vec<Arc<str>> = bound.programs[0].checks.iter().map(check::channel).collect();
        let routes = Arc::new(Routes::new(&plan, &bound, &checks).map_err(RunError::Unsound)?);
        let prepared = self.executor.load(&plan)?;
        let commits = plan.devices.iter().any(|d| d.tail_start() < d.instructions.len());
        Ok(Step { graph: Arc::new(bound), plan, prepared, declared, routes, commits })
    }
    pub(super) fn unload(&mut self, step: &Step) {
        self.forget_step(step);
        self.executor.unload(&step.prepared);
    }
    /// What is noted of a step stays; the step does not, nor does anybody have to unload it.
    pub(super) fn forget_step(&mut self, step: &Step) {
        self.sent_before += step.bytes_sent();
        self.recorder.unloaded(&step.prepared, self.executor.devices().len());
    }

    /// Runs a step and notes it, if anybody wants to know. `feed` gives what is fed by the names of inputs.
    pub(super) fn execute<'a>(
        &mut self,
        step: &Step,
        feed: impl Fn(&str) -> Option<&'a Fed<'a>>,
    ) -> Result<Outcome, RunError> {
        let started = self.recorder.now(&self.executor);
        let outcome = self.exchange(step, feed);
        let done = matches!(outcome, Ok(Outcome::Done(_)));
        self.recorder.step(&mut self.executor, &step.prepared, started, done);
        outcome
    }

    fn exchange<'a>(&mut self, step: &Step, feed: impl Fn(&str) -> Option<&'a Fed<'a>>) -> Result<Outcome, RunError> {
        let (routes, program) = (&*step.routes, &step.graph.programs[0]);
        // They go back to the shelf if this returns early: nobody sees what is in them.
        let empty = routes.outputs.iter().map(|(name, ty, _)| (name.clone(), self.shelf.take(ty.dtype, &ty.shape)));
        let mut outputs = Outputs::new(empty.collect(), self.shelf.clone());
        let mut feeds: Vec<&[u8]> = Vec::with_capacity(routes.feeds.len());
        let mut draws: Vec<Draw> = vec![];
        for (channel, range) in step.plan.channels.values().iter().zip(&routes.feeds) {
            let fed = if channel.from == Endpoint::Driver { feed(&channel.label) } else { None };
            feeds.push(match fed {
                Some(Fed::Array(array)) => &array.bytes()[range.clone()],
                Some(Fed::Drawn(batch, field)) => {
                    draw(&mut draws, batch, *field as u32);
                    &[]
                }
                None => &[],
            });
        }
        let mut fetches: Vec<Fetch<'_>> = Vec::with_capacity(feeds.len());
        fetches.resize_with(feeds.len(), Fetch::default);
        for (array, (_, _, parts)) in outputs.arrays_mut().zip(&routes.outputs) {
            let mut rest = array.bytes_mut();
            for (bytes, channel) in parts {
                let (part, behind) = rest.split_at_mut(*bytes);
                (fetches[channel.0 as usize], rest) = (Fetch::Into(part), behind);
            }
        }
        let statuses: Vec<AtomicI32> = routes.checks.iter().map(|_| AtomicI32::new(0)).collect();
        for (channel, status) in routes.checks.iter().zip(&statuses) {
            fetches[channel.0 as usize] = Fetch::Status(status);
        }
        let found = || -> Vec<(Value, Finiteness)> {
            let read = |s: &AtomicI32| Finiteness::of(s.load(Ordering::Acquire));
            program.checks.iter().zip(&statuses).map(|(c, s)| (c.of, read(s))).collect()
        };
        let agrees = || !check::fails(step, &found());
        if !self.executor.run(&step.prepared, Exchange { feeds: &feeds, draws: &draws, fetches, agrees: &agrees })? {
            return Ok(Outcome::NotFinite(found()));
        }
        if step.commits {
            self.cursors.commit();
        }
        Ok(Outcome::Done(outputs))
    }
}

/// A field of a batch more.
fn draw(draws: &mut Vec<Draw>, batch: &Batch, field: u32) {
    let same = |d: &&mut Draw| Arc::ptr_eq(d.batch.source(), batch.source()) && d.batch.samples() == batch.samples();
    match draws.iter_mut().find(same) {
        Some(draw) => {
            if let Err(at) = draw.fields.binary_search(&field) {
                draw.fields.insert(at, field);
            }
        }
        None => draws.push(Draw { batch: batch.clone(), fields: vec![field] }),
    }
}
