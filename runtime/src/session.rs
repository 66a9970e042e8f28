//! A session: variables on a device, and programs that run over them. It runs nothing but verified plans, makes one per
//! program and binding when first needed, and keeps a few.

mod check;
mod inspect;
mod record;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use thalweg_graph::evaluate::EvaluateError;
use thalweg_graph::init::initial_value;
use thalweg_graph::ir::{Graph, Value, VarId};
use thalweg_graph::kernel::BufferType;
use thalweg_graph::lower::{LowerError, StateLayout, lower};
use thalweg_graph::passes::{STANDARD, run_passes, select_program};
use thalweg_graph::plan::{Instruction, Memory, Plan};
use thalweg_graph::summary::SummaryError;
use thalweg_graph::watch::Finiteness;
use thalweg_graph::{Array, Bindings, DType};

pub use check::NotFinite;
pub use inspect::At;
pub use record::ProfileRow;
use record::Recorder;

use crate::checkpoint::{ModelDigest, Saver, Variables};
use crate::cursor::Cursors;
use crate::device::{AbortFlag, Device, DeviceError, Lent, Loaded};
use crate::feed::{self, FeedError, Inputs};
use crate::outputs::{Outputs, Shelf};

/// Plans kept per session; the oldest goes first.
const PLANS_KEPT: usize = 16;

/// Why a program did not run. State is what it was before the step.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RunError {
    /// What was fed does not fit.
    #[error(transparent)]
    Feed(#[from] FeedError),
    /// No program of that name.
    #[error("there is no program `{name}`; {hint}")]
    NoProgram {
        /// What was asked for.
        name: String,
        /// What there is.
        hint: String,
    },
    /// No variable of that name.
    #[error("there is no variable `{name}`; {hint}")]
    NoVariable {
        /// What was asked for.
        name: String,
        /// What there is.
        hint: String,
    },
    /// A value for a variable has another type.
    #[error("variable `{name}` is {want}, not {got}")]
    Variable {
        /// Which.
        name: String,
        /// Its type.
        want: String,
        /// What was given.
        got: String,
    },
    /// The program cannot be planned for these extents.
    #[error(transparent)]
    Lower(#[from] LowerError),
    /// No tensor of that name, or not of this graph.
    #[error("{0}")]
    NoTensor(String),
    /// A value was infinite or NaN that was to be finite. State is as it was before the step.
    #[error(transparent)]
    NotFinite(Box<NotFinite>),
    /// There is no summary.
    #[error(transparent)]
    Summary(#[from] SummaryError),
    /// The interpreter cannot compute it.
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    /// Extents that make some other extent negative or too large.
    #[error("with {0:?} some extent is negative or too large")]
    Bindings(Bindings),
    /// The plan is not sound. This is a fault of ours: please report it.
    #[error("internal error, please report: the plan is not sound: {}", .0.join("; "))]
    Unsound(Vec<String>),
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

struct ProgramState {
    name: Arc<str>,
    inputs: Inputs,
    /// The program alone, in primitives, dimensions still named. Made when first run.
    prepared: Option<Arc<Graph>>,
}

struct Ready {
    program: usize,
    bindings: Bindings,
    /// Whether every value is checked.
    checks_all: bool,
    /// Runs first, where there are checks that the step's own plan cannot hold without becoming another one.
    guard: Option<Step>,
    step: Step,
}

/// A plan on the device, and what its channels to the caller mean: the program's outputs, then the statuses of what it
/// declares to be finite, then those of all values.
#[derive(Clone)]
struct Step {
    /// The one program, in primitives, with all extents bound.
    graph: Arc<Graph>,
    plan: Arc<Plan>,
    loaded: Loaded,
    /// How many of the graph's checks were declared.
    declared: usize,
}

/// How a step went.
enum Outcome {
    Done(Outputs),
    /// Nothing was committed, since these were to be finite and are not.
    NotFinite(Vec<(Value, Finiteness)>),
}

/// Feeds smaller than this are copied: that costs less than looking for them at every launch.
const WORTH_LENDING_BYTES: usize = 64 << 10;

/// Sees every graph between passes, by the name of the pass.
type Observer = Box<dyn FnMut(&str, &Graph) + Send>;

/// Variables on a device and the programs over them.
pub struct Session {
    pub(crate) graph: Arc<Graph>,
    pub(crate) layout: StateLayout,
    pub(crate) device: Box<dyn Device>,
    programs: Vec<ProgramState>,
    by_name: HashMap<Arc<str>, usize>,
    ready: Vec<Ready>,
    abort: AbortFlag,
    pub(crate) cursors: Cursors,
    /// What checkpoints say of the variables; made by the first one.
    pub(crate) saved_as: Option<Arc<Variables>>,
    pub(crate) saver: Saver,
    observe: Observer,
    recorder: Recorder,
    /// Whether every value of every step is to be finite.
    checks_all: bool,
    shelf: Arc<Shelf>,
}

impl Session {
    /// Puts the variables on the device, with their initial values.
    pub fn new(graph: Graph, mut device: Box<dyn Device>) -> Result<Self, RunError> {
        let layout = StateLayout::of(&graph);
        device.reserve_state(layout.bytes)?;
        let programs: Vec<ProgramState> = graph
            .programs
            .iter()
            .map(|p| ProgramState { name: p.name.clone(), inputs: feed::inputs_of(&graph, p), prepared: None })
            .collect();
        let by_name = programs.iter().enumerate().map(|(i, p)| (p.name.clone(), i)).collect();
        let (graph, abort) = (Arc::new(graph), AbortFlag::default());
        let (ready, cursors, observe) = (vec![], Cursors::default(), Box::new(|_: &str, _: &Graph| {}));
        let (recorder, checks_all, saved_as, saver, shelf) =
            (Recorder::default(), false, None, Saver::default(), Arc::default());
        let mut session = Self {
            graph,
            layout,
            device,
            programs,
            by_name,
            ready,
            abort,
            cursors,
            saved_as,
            saver,
            observe,
            recorder,
            checks_all,
            shelf,
        };
        session.reset()?;
        Ok(session)
    }
    /// Shows every graph between passes, by the name of the pass, whenever a program is prepared.
    pub fn observe_passes(&mut self, observe: impl FnMut(&str, &Graph) + Send + 'static) {
        self.observe = Box::new(observe);
    }
    /// Sets every variable to its initial value: they have learned from nothing, and go on from no checkpoint.
    pub fn reset(&mut self) -> Result<(), RunError> {
        for id in self.graph.state.ids() {
            let value = initial_value(&self.graph.state[id], self.graph.seed);
            self.device.write(Memory::State, self.layout.slots[id].offset, value.bytes())?;
        }
        self.cursors.restore(BTreeMap::new());
        self.saver.forget();
        Ok(())
    }
    /// The graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }
    /// Raise it, from any thread, to end the body of the step that is running.
    pub fn abort_flag(&self) -> AbortFlag {
        self.abort.clone()
    }
    /// Where the sources of data stand.
    pub fn cursors(&self) -> &Cursors {
        &self.cursors
    }
    /// The device.
    pub fn device(&self) -> &dyn Device {
        &*self.device
    }

    /// Runs one step of a program.
    pub fn run(&mut self, program: &str, feeds: &[(&str, &Array)]) -> Result<Outputs, RunError> {
        let index = self.program(program)?;
        let state = &self.programs[index];
        let known = |name: &str| self.programs.iter().any(|p| p.inputs.iter().any(|(n, _)| &**n == name));
        let (arrays, bindings) = feed::check(&self.graph, &state.name, &state.inputs, &known, feeds)?;
        let ready = self.ready(index, bindings)?;
        let Ready { guard, step, .. } = &self.ready[ready];
        let (guard, step) = (guard.clone(), step.clone());
        if let Some(guard) = guard {
            self.attempt(index, &guard, &arrays)?;
        }
        self.attempt(index, &step, &arrays)
    }
    /// Runs a step of the program with what was fed to it, in the order of its inputs.
    fn attempt(&mut self, index: usize, step: &Step, arrays: &[Cow<Array>]) -> Result<Outputs, RunError> {
        let inputs = &self.programs[index].inputs;
        // By name: what an expansion no longer needs has no channel.
        let feed = |label: &str| inputs.iter().position(|(name, _)| &**name == label).map(|i| &*arrays[i]);
        let feeds: Vec<Option<&Array>> = step.plan.channels.values().iter().map(|c| feed(&c.label)).collect();
        match self.execute(step, &feeds)? {
            Outcome::Done(outputs) => Ok(outputs),
            Outcome::NotFinite(found) => Err(self.explain(index, step, &found, arrays)),
        }
    }
    /// Runs one step per item of `batches` and returns what the last one gave; nothing if there was none. An error ends
    /// it; the steps before it are committed, and [`Session::step`] says how many that makes.
    pub fn run_many<'a>(
        &mut self,
        program: &str,
        batches: impl IntoIterator<Item = Vec<(&'a str, &'a Array)>>,
    ) -> Result<Option<Outputs>, RunError> {
        let mut last = None;
        for batch in batches {
            last = Some(self.run(program, &batch)?);
        }
        Ok(last)
    }
    /// The plan of a program for given extents, made if need be.
    pub fn plan(&mut self, program: &str, bindings: &Bindings) -> Result<Arc<Plan>, RunError> {
        let index = self.program(program)?;
        let ready = self.ready(index, bindings.clone())?;
        Ok(self.ready[ready].step.plan.clone())
    }

    fn program(&self, name: &str) -> Result<usize, RunError> {
        self.by_name.get(name).copied().ok_or_else(|| {
            let names: Vec<&str> = self.programs.iter().map(|p| &*p.name).collect();
            RunError::NoProgram { name: name.into(), hint: thalweg_graph::Builder::suggest(name, &names) }
        })
    }

    /// The program alone, in primitives.
    fn prepare(&mut self, index: usize) -> Arc<Graph> {
        if let Some(graph) = &self.programs[index].prepared {
            return graph.clone();
        }
        let alone = select_program(&self.graph, &self.programs[index].name).expect("a program of this graph");
        let graph = Arc::new(run_passes(&alone, STANDARD, &mut *self.observe));
        self.programs[index].prepared = Some(graph.clone());
        graph
    }

    fn ready(&mut self, index: usize, bindings: Bindings) -> Result<usize, RunError> {
        let checks_all = self.checks_all;
        let same = |r: &Ready| r.program == index && r.checks_all == checks_all && r.bindings == bindings;
        if let Some(found) = self.ready.iter().position(same) {
            return Ok(found);
        }
        let started = self.recorder.now(&*self.device);
        let prepared = self.prepare(index);
        let bound = prepared.bind(&bindings).ok_or_else(|| RunError::Bindings(bindings.clone()))?;
        let (guard, step) = self.guarded(bound, &bindings)?;
        if self.ready.len() == PLANS_KEPT {
            let oldest = self.ready.remove(0);
            oldest.guard.iter().chain([&oldest.step]).for_each(|step| self.unload(step));
        }
        self.recorder.session(&*self.device, started, "plan", &step.plan.program, 0);
        self.ready.push(Ready { program: index, bindings, checks_all, guard, step });
        Ok(self.ready.len() - 1)
    }

    /// The plan of the one program of `bound`, sound and within reason.
    fn make_plan(&self, bound: &Graph, bindings: &Bindings) -> Result<Arc<Plan>, RunError> {
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
    fn load(&mut self, bound: Graph, plan: Arc<Plan>, declared: usize) -> Result<Step, RunError> {
        let loaded = self.device.load(&plan, 0)?;
        Ok(Step { graph: Arc::new(bound), plan, loaded, declared })
    }
    fn unload(&mut self, step: &Step) {
        self.recorder.unloaded(step.loaded);
        self.device.unload(step.loaded);
    }

    /// Runs a step and notes it, if anybody wants to know.
    fn execute(&mut self, step: &Step, feeds: &[Option<&Array>]) -> Result<Outcome, RunError> {
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

    fn variable(&self, name: &str) -> Result<VarId, RunError> {
        self.graph.variable(name).ok_or_else(|| {
            let names: Vec<&str> = self.graph.state.values().iter().map(|v| &*v.name).collect();
            RunError::NoVariable { name: name.into(), hint: thalweg_graph::Builder::suggest(name, &names) }
        })
    }
    /// The value of a variable.
    pub fn get(&mut self, variable: &str) -> Result<Array, RunError> {
        let slot = &self.layout.slots[self.variable(variable)?];
        let mut array = Array::zeros(slot.ty.dtype, &slot.ty.shape);
        self.device.read(Memory::State, slot.offset, array.bytes_mut())?;
        Ok(array)
    }
    /// Sets a variable.
    pub fn set(&mut self, variable: &str, value: &Array) -> Result<(), RunError> {
        let slot = &self.layout.slots[self.variable(variable)?];
        let got = BufferType { dtype: value.dtype(), shape: value.shape().to_vec() };
        if got != slot.ty {
            return Err(RunError::Variable { name: variable.into(), want: slot.ty.to_string(), got: got.to_string() });
        }
        Ok(self.device.write(Memory::State, slot.offset, value.bytes())?)
    }
    /// Committed training steps.
    pub fn step(&mut self) -> u64 {
        match self.get("step") {
            Ok(step) if step.dtype() == DType::I64 => step.as_slice::<i64>()[0] as u64,
            _ => 0,
        }
    }
    /// The hash of all variables: names, types and bytes, in order of name. Equal digests mean equal models, bit for bit.
    pub fn digest(&mut self) -> Result<String, RunError> {
        let mut slots: Vec<_> =
            self.graph.state.iter().map(|(id, v)| (v.name.clone(), &self.layout.slots[id])).collect();
        slots.sort_by(|a, b| a.0.cmp(&b.0));
        let mut digest = ModelDigest::default();
        let mut bytes = Vec::new();
        for (name, slot) in slots {
            bytes.resize(slot.ty.size_bytes() as usize, 0);
            self.device.read(Memory::State, slot.offset, &mut bytes)?;
            digest.variable(&name, &slot.ty);
            digest.bytes(&bytes);
        }
        Ok(digest.finish().to_string())
    }
}
