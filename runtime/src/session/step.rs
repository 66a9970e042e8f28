//! One step: a plan made, checked and loaded once, and walked every time. The session's thread handles what crosses to the
//! caller; what lies between two crossings is one stretch of the device's.

use std::sync::Arc;

use thalweg_graph::ir::{Graph, Value};
use thalweg_graph::lower::lower;
use thalweg_graph::plan::{Instruction, Memory, Plan};
use thalweg_graph::watch::Finiteness;
use thalweg_graph::{Array, Bindings};

use super::{RunError, Session, check};
use crate::device::{DeviceError, Lent, Loaded};
use crate::outputs::Outputs;

/// Feeds smaller than this are copied: that costs less than looking for them at every launch.
const WORTH_LENDING_BYTES: usize = 64 << 10;

/// A plan on the device, and what its channels to the caller mean: the program's outputs, then the statuses of what it
/// declares to be finite, then those of all values.
#[derive(Clone)]
pub(super) struct Step {
    /// The one program, in primitives, with all extents bound.
    pub(super) graph: Arc<Graph>,
    pub(super) plan: Arc<Plan>,
    pub(super) loaded: Loaded,
    /// How many of the graph's checks were declared.
    pub(super) declared: usize,
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
        let plan = Arc::new(lower(bound, &program, bindings, &self.layout, self.device.target())?);
        // No machine addresses more; a sound plan may still ask for it.
        let part = &plan.devices[0];
        if let Some(memory) = Memory::ALL.into_iter().find(|m| part.bytes(*m) > 1 << 47) {
            let (device, needed) = (part.device.clone(), part.bytes(memory));
            return Err(DeviceError::OutOfMemory { device, memory: memory.name(), needed }.into());
        }
        let faults = plan.verify();
        if faults.is_empty() { Ok(plan) } else { Err(RunError::Unsound(faults)) }
    }
    /// Makes a plan of the one program of `bound` ready; the first `declared` of its checks were asked for one by one.
    pub(super) fn load(&mut self, bound: Graph, plan: Arc<Plan>, declared: usize) -> Result<Step, RunError> {
        let loaded = self.device.load(&plan, 0)?;
        Ok(Step { graph: Arc::new(bound), plan, loaded, declared })
    }
    pub(super) fn unload(&mut self, step: &Step) {
        self.recorder.unloaded(step.loaded);
        self.device.unload(step.loaded);
    }

    /// Runs a step and notes it, if anybody wants to know.
    pub(super) fn execute(&mut self, step: &Step, feeds: &[Option<&Array>]) -> Result<Outcome, RunError> {
        let started = self.recorder.now(&*self.device);
        let outcome = self.walk(step, feeds);
        let done = matches!(outcome, Ok(Outcome::Done(_)));
        self.recorder.step(&mut *self.device, &step.plan, step.loaded, started, done);
        outcome
    }

    /// Walks the instructions of the one device: channels are this thread's, what lies between them is the device's.
    fn walk(&mut self, step: &Step, feeds: &[Option<&Array>]) -> Result<Outcome, RunError> {
        let (plan, loaded) = (&step.plan, step.loaded);
        let part = &plan.devices[0];
        let tail = part.tail_start();
        let program = &step.graph.programs[0];
        let borrows = self.device.borrows_feeds(loaded);
        let mut lent: Vec<Lent<'_>> = Vec::new();
        let mut outputs = Vec::with_capacity(program.outputs.len());
        let mut found = Vec::with_capacity(program.checks.len());
        let mut at = 0;
        while at < part.instructions.len() {
            match &part.instructions[at] {
                Instruction::Wait { channel, buffer } => {
                    let started = self.recorder.now(&*self.device);
                    let (to, array) = (&part.buffers[*buffer], feeds[channel.0 as usize]);
                    let array = array.expect("a channel from the driver is an input of the program");
                    let bytes = array.bytes();
                    if borrows && to.memory == Memory::Staging && bytes.len() >= WORTH_LENDING_BYTES {
                        lent.push(Lent { offset: to.offset, bytes });
                    } else {
                        self.device.write(to.memory, to.offset, bytes)?;
                    }
                    let name = &plan.channels[*channel].label;
                    self.recorder.session(&*self.device, started, "feed", name, bytes.len());
                    at += 1;
                }
                Instruction::Post { buffer, .. } if outputs.len() == program.outputs.len() => {
                    let (from, mut status) = (&part.buffers[*buffer], [0; 4]);
                    self.device.read(from.memory, from.offset, &mut status)?;
                    found.push((program.checks[found.len()].of, Finiteness::of(i32::from_le_bytes(status))));
                    at += 1;
                }
                Instruction::Post { channel, buffer } => {
                    let started = self.recorder.now(&*self.device);
                    let (channel, from) = (&plan.channels[*channel], &part.buffers[*buffer]);
                    let mut array = self.shelf.take(channel.ty.dtype, &channel.ty.shape);
                    match lent.iter().find_map(|l| l.bytes_at(from)) {
                        Some(bytes) => array.bytes_mut().copy_from_slice(bytes),
                        None => self.device.read(from.memory, from.offset, array.bytes_mut())?,
                    }
                    self.recorder.session(&*self.device, started, "fetch", &channel.label, array.bytes().len());
                    outputs.push((channel.label.clone(), array));
                    at += 1;
                }
                Instruction::Launch(_) | Instruction::Copy { .. } => {
                    let runs = |i: &Instruction| matches!(i, Instruction::Launch(_) | Instruction::Copy { .. });
                    let end = part.instructions[at..]
                        .iter()
                        .position(|i| !runs(i))
                        .map_or(part.instructions.len(), |n| at + n);
                    let abort = (at < tail).then_some(&self.abort);
                    self.device.run_lent(loaded, at..end, abort, &lent)?;
                    at = end;
                }
                Instruction::Commit => {
                    // The last moment at which a step can be given up.
                    if self.abort.is_raised() {
                        return Err(DeviceError::Aborted.into());
                    }
                    if check::fails(step, &found) {
                        return Ok(Outcome::NotFinite(found));
                    }
                    at += 1;
                }
                Instruction::Grant(_) | Instruction::Sent(_) | Instruction::Snapshot => at += 1,
            }
        }
        if tail < part.instructions.len() {
            self.cursors.commit();
        } else if check::fails(step, &found) {
            return Ok(Outcome::NotFinite(found));
        }
        Ok(Outcome::Done(Outputs::new(outputs, self.shelf.clone())))
    }
}
