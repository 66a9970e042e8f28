//! A session: variables on a device, and programs that run over them. It runs nothing but verified plans, makes one per
//! program and binding when first needed, and keeps a few.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use thalweg_graph::init::initial_value;
use thalweg_graph::ir::{Graph, Site, VarId};
use thalweg_graph::kernel::BufferType;
use thalweg_graph::lower::{LowerError, StateLayout, lower};
use thalweg_graph::passes::{STANDARD, run_passes, select_program};
use thalweg_graph::plan::{Instruction, Memory, Plan};
use thalweg_graph::{Array, Bindings, DType};

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

/// What one launch took.
#[derive(Clone, Debug)]
pub struct ProfileRow {
    /// The program.
    pub program: Arc<str>,
    /// What is computed.
    pub label: Arc<str>,
    /// Where it was asked for.
    pub site: Site,
    /// How the device does it.
    pub strategy: String,
    /// How often it ran.
    pub runs: u64,
    /// In all.
    pub total: Duration,
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
    plan: Arc<Plan>,
    loaded: Loaded,
}

/// Feeds smaller than this are copied: that costs less than looking for them at every launch.
const WORTH_LENDING_BYTES: usize = 64 << 10;

/// Sees every graph between passes, by the name of the pass.
type Observer = Box<dyn FnMut(&str, &Graph) + Send>;

/// Variables on a device and the programs over them.
pub struct Session {
    graph: Arc<Graph>,
    layout: StateLayout,
    device: Box<dyn Device>,
    programs: Vec<ProgramState>,
    by_name: HashMap<Arc<str>, usize>,
    ready: Vec<Ready>,
    abort: AbortFlag,
    cursors: Cursors,
    observe: Observer,
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
        let shelf = Arc::default();
        let mut session = Self { graph, layout, device, programs, by_name, ready, abort, cursors, observe, shelf };
        session.reset()?;
        Ok(session)
    }
    /// Shows every graph between passes, by the name of the pass, whenever a program is prepared.
    pub fn observe_passes(&mut self, observe: impl FnMut(&str, &Graph) + Send + 'static) {
        self.observe = Box::new(observe);
    }
    /// Sets every variable to its initial value.
    pub fn reset(&mut self) -> Result<(), RunError> {
        for id in self.graph.state.ids() {
            let value = initial_value(&self.graph.state[id], self.graph.seed);
            self.device.write(Memory::State, self.layout.slots[id].offset, value.bytes())?;
        }
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
        let (plan, loaded) = (self.ready[ready].plan.clone(), self.ready[ready].loaded);
        let inputs = &self.programs[index].inputs;
        // By name: what an expansion no longer needs has no channel.
        let feed = |label: &str| inputs.iter().position(|(name, _)| &**name == label).map(|i| &*arrays[i]);
        let feeds: Vec<Option<&Array>> = plan.channels.values().iter().map(|c| feed(&c.label)).collect();
        self.execute(&plan, loaded, &feeds)
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
        Ok(self.ready[ready].plan.clone())
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
        if let Some(found) = self.ready.iter().position(|r| r.program == index && r.bindings == bindings) {
            return Ok(found);
        }
        let prepared = self.prepare(index);
        let bound = prepared.bind(&bindings).ok_or_else(|| RunError::Bindings(bindings.clone()))?;
        let plan = Arc::new(lower(&bound, &bound.programs[0], &bindings, &self.layout, self.device.target())?);
        // No machine addresses more; a sound plan may still ask for it.
        let part = &plan.devices[0];
        if let Some(memory) = Memory::ALL.into_iter().find(|m| part.bytes(*m) > 1 << 47) {
            let (device, needed) = (part.device.clone(), part.bytes(memory));
            return Err(DeviceError::OutOfMemory { device, memory: memory.name(), needed }.into());
        }
        let faults = plan.verify();
        if !faults.is_empty() {
            return Err(RunError::Unsound(faults));
        }
        let loaded = self.device.load(&plan, 0)?;
        if self.ready.len() == PLANS_KEPT {
            let oldest = self.ready.remove(0);
            self.device.unload(oldest.loaded);
        }
        self.ready.push(Ready { program: index, bindings, plan, loaded });
        Ok(self.ready.len() - 1)
    }

    /// Walks the instructions of the one device: channels are this thread's, what lies between them is the device's.
    fn execute(&mut self, plan: &Plan, loaded: Loaded, feeds: &[Option<&Array>]) -> Result<Outputs, RunError> {
        let part = &plan.devices[0];
        let tail = part.tail_start();
        let borrows = self.device.borrows_feeds(loaded);
        let mut lent: Vec<Lent<'_>> = Vec::new();
        let mut outputs = Vec::new();
        let mut at = 0;
        while at < part.instructions.len() {
            match &part.instructions[at] {
                Instruction::Wait { channel, buffer } => {
                    let (to, array) = (&part.buffers[*buffer], feeds[channel.0 as usize]);
                    let array = array.expect("a channel from the driver is an input of the program");
                    let bytes = array.bytes();
                    if borrows && to.memory == Memory::Staging && bytes.len() >= WORTH_LENDING_BYTES {
                        lent.push(Lent { offset: to.offset, bytes });
                    } else {
                        self.device.write(to.memory, to.offset, bytes)?;
                    }
                    at += 1;
                }
                Instruction::Post { channel, buffer } => {
                    let (channel, from) = (&plan.channels[*channel], &part.buffers[*buffer]);
                    let mut array = self.shelf.take(channel.ty.dtype, &channel.ty.shape);
                    match lent.iter().find_map(|l| l.bytes_at(from)) {
                        Some(bytes) => array.bytes_mut().copy_from_slice(bytes),
                        None => self.device.read(from.memory, from.offset, array.bytes_mut())?,
                    }
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
                    at += 1;
                }
                Instruction::Grant(_) | Instruction::Sent(_) | Instruction::Snapshot => at += 1,
            }
        }
        if tail < part.instructions.len() {
            self.cursors.commit();
        }
        Ok(Outputs::new(outputs, self.shelf.clone()))
    }

    /// Starts timing every launch from here on.
    pub fn start_profile(&mut self) {
        self.device.time(true);
    }
    /// Stops timing; what each launch took, summed over the steps since the start, longest first.
    pub fn finish_profile(&mut self) -> Vec<ProfileRow> {
        let mut rows: BTreeMap<(usize, usize), ProfileRow> = BTreeMap::new();
        for timing in self.device.time(false) {
            let Some(ready) = self.ready.iter().find(|r| r.loaded == timing.loaded) else { continue };
            let row = rows.entry((timing.loaded.0, timing.instruction)).or_insert_with(|| {
                let (label, site) = match &ready.plan.devices[0].instructions[timing.instruction] {
                    Instruction::Launch(launch) => (launch.label.clone(), launch.site.clone()),
                    _ => ("copy".into(), Site::default()),
                };
                let strategy = self.device.strategy(timing.loaded, timing.instruction);
                ProfileRow {
                    program: ready.plan.program.clone(),
                    label,
                    site,
                    strategy,
                    runs: 0,
                    total: Duration::ZERO,
                }
            });
            row.runs += 1;
            row.total += timing.took;
        }
        let mut rows: Vec<_> = rows.into_values().collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.total));
        rows
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
        let names: BTreeMap<Arc<str>, ()> = self.graph.state.values().iter().map(|v| (v.name.clone(), ())).collect();
        let mut hash = blake3::Hasher::new();
        for name in names.keys() {
            let value = self.get(name)?;
            hash.update(format!("{name}: {}\n", value.ty()).as_bytes());
            hash.update(value.bytes());
        }
        Ok(hash.finalize().to_hex().to_string())
    }
}
