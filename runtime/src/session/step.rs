//! One step: a plan made, checked and loaded once, and walked every time. The session's thread handles what crosses to the
//! caller; what lies between two crossings is one stretch of the device's.

use std::sync::Arc;

use thalweg_graph::ir::{Graph, Value};
use thalweg_graph::lower::lower;
use thalweg_graph::plan::{BufferId, Channel, ChannelId, Instruction, Memory, Plan};
use thalweg_graph::watch::Finiteness;
use thalweg_graph::{Array, Bindings};

use super::{RunError, Session, check};
use crate::device::{DeviceError, Lent, Loaded, ReadInto};
use crate::outputs::Outputs;

/// Feeds and outputs smaller than this are copied: they stay in the cache, and the arenas are aligned for every vector.
const WORTH_LENDING_BYTES: u64 = 64 << 10;

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
    /// Channels of the program's outputs, in its order.
    outputs: Arc<[ChannelId]>,
    /// By channel, whether the caller's memory stands in for its buffer.
    lent: Arc<[bool]>,
}

impl Step {
    /// What the caller lends to the device: feeds, and the arrays that are to be returned.
    fn lend<'a>(&self, feeds: &[Option<&'a Array>], outputs: &'a mut Outputs) -> Vec<Lent<'a>> {
        let lent = |channel: &ChannelId| self.lent[channel.0 as usize];
        let feeds = self.plan.channels.ids().zip(feeds).filter(|(c, _)| lent(c));
        let feeds = feeds.filter_map(|(c, feed)| feed.map(|array| Lent::Feed(c, array.bytes())));
        let outputs = self.outputs.iter().zip(outputs.arrays_mut()).filter(|(c, _)| lent(c));
        feeds.chain(outputs.map(|(c, array)| Lent::Output(*c, array.bytes_mut()))).collect()
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
        let plan = Arc::new(lower(bound, &program, bindings, &self.layout, self.device.target())?);
        // No machine addresses more; a sound plan may still ask for it.
        let part = &plan.devices[0];
        if let Some(memory) = Memory::ALL.into_iter().find(|m| part.bytes(*m) > 1 << 47) {
            let (device, needed) = (part.device.clone(), part.bytes(memory));
            let (memory, detail) = (memory.name(), String::new());
            return Err(DeviceError::OutOfMemory { device, memory, needed, detail }.into());
        }
        let faults = plan.verify();
        if faults.is_empty() { Ok(plan) } else { Err(RunError::Unsound(faults)) }
    }
    /// Makes a plan of the one program of `bound` ready; the first `declared` of its checks were asked for one by one.
    pub(super) fn load(&mut self, bound: Graph, plan: Arc<Plan>, declared: usize) -> Result<Step, RunError> {
        let loaded = self.device.load(&plan, 0)?;
        let posted = plan.devices[0].instructions.iter().filter_map(|i| match i {
            Instruction::Post { channel, .. } => Some(*channel),
            _ => None,
        });
        let outputs = posted.take(bound.programs[0].outputs.len()).collect();
        let large = |channel: &Channel| channel.ty.size_bytes() >= WORTH_LENDING_BYTES;
        let lent = plan.channels.iter().map(|(id, channel)| large(channel) && self.device.borrows(loaded, id));
        let lent = lent.collect();
        Ok(Step { graph: Arc::new(bound), plan, loaded, declared, outputs, lent })
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
        // They go back to the shelf if this returns early: nobody sees what is in them.
        let empty = step.outputs.iter().map(|c| {
            let Channel { label, ty, .. } = &plan.channels[*c];
            (label.clone(), self.shelf.take(ty.dtype, &ty.shape))
        });
        let mut outputs = Outputs::new(empty.collect(), self.shelf.clone());
        let lent = |channel: &ChannelId| step.lent[channel.0 as usize];
        let mut stayed: Vec<(BufferId, &[u8])> = Vec::new();
        let mut found = Vec::with_capacity(program.checks.len());
        let mut at = 0;
        while at < part.instructions.len() {
            match &part.instructions[at] {
                Instruction::Wait { channel, buffer } => {
                    let started = self.recorder.now(&*self.device);
                    let (to, array) = (&part.buffers[*buffer], feeds[channel.0 as usize]);
                    let array = array.expect("a channel from the driver is an input of the program");
                    let bytes = array.bytes();
                    if lent(channel) {
                        stayed.push((*buffer, bytes));
                    } else {
                        self.device.write(to.memory, to.offset, bytes)?;
                    }
                    let name = &plan.channels[*channel].label;
                    self.recorder.session(&*self.device, started, "feed", name, bytes.len());
                    at += 1;
                }
                Instruction::Post { .. } => at = self.fetch(step, at, &stayed, &mut outputs, &mut found)?,
                Instruction::Launch(_) | Instruction::Copy { .. } => {
                    let runs = |i: &Instruction| matches!(i, Instruction::Launch(_) | Instruction::Copy { .. });
                    let end = part.instructions[at..]
                        .iter()
                        .position(|i| !runs(i))
                        .map_or(part.instructions.len(), |n| at + n);
                    let abort = (at < tail).then_some(&self.abort);
                    self.device.run_lent(loaded, at..end, abort, &mut step.lend(feeds, &mut outputs))?;
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
        Ok(Outcome::Done(outputs))
    }

    /// What leaves by the posts from `at` on, read in one go: outputs to where the caller will look, then statuses to
    /// `found`. Gives the first instruction that is no post.
    fn fetch(
        &mut self,
        step: &Step,
        at: usize,
        stayed: &[(BufferId, &[u8])],
        outputs: &mut Outputs,
        found: &mut Vec<(Value, Finiteness)>,
    ) -> Result<usize, RunError> {
        let (plan, program) = (&step.plan, &step.graph.programs[0]);
        let part = &plan.devices[0];
        let started = self.recorder.now(&*self.device);
        let posts = part.instructions[at..].iter().map_while(|i| match i {
            Instruction::Post { channel, buffer } => Some((*channel, *buffer)),
            _ => None,
        });
        let earlier = part.instructions[..at].iter().filter(|i| matches!(i, Instruction::Post { .. }));
        let (before, count) = (earlier.count(), posts.clone().count());
        let mut statuses = vec![[0; 4]; (before + count).saturating_sub(step.outputs.len().max(before))];
        let places = outputs.arrays_mut().skip(before).map(Array::bytes_mut);
        let places = places.chain(statuses.iter_mut().map(|s| &mut s[..]));
        let mut reads = Vec::with_capacity(count);
        for ((channel, buffer), bytes) in posts.clone().zip(places) {
            match stayed.iter().find(|(at, _)| *at == buffer) {
                _ if step.lent[channel.0 as usize] => {}
                Some((_, fed)) => bytes.copy_from_slice(fed),
                None => {
                    let from = &part.buffers[buffer];
                    reads.push(ReadInto { memory: from.memory, offset: from.offset, bytes });
                }
            }
        }
        self.device.read_many(&mut reads)?;
        let checks = program.checks[found.len()..].iter();
        found.extend(checks.zip(&statuses).map(|(c, s)| (c.of, Finiteness::of(i32::from_le_bytes(*s)))));
        if started.is_some() {
            let fetched = posts.take(step.outputs.len().saturating_sub(before));
            let channels: Vec<&Channel> = fetched.map(|(c, _)| &plan.channels[c]).collect();
            let names: Vec<&str> = channels.iter().map(|c| &*c.label).collect();
            let bytes = channels.iter().map(|c| c.ty.size_bytes() as usize).sum();
            if !channels.is_empty() {
                self.recorder.session(&*self.device, started, "fetch", &names.join(", ").into(), bytes);
            }
        }
        Ok(at + count)
    }
}
