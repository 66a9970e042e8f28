//! A session: variables on a device, and programs that run over them. It runs nothing but verified plans, makes one per
//! program and binding when first needed, and keeps a few.

mod check;
mod error;
mod inspect;
mod record;
mod step;
mod variables;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use thalweg_graph::ir::Graph;
use thalweg_graph::lower::StateLayout;
use thalweg_graph::passes::{STANDARD, run_passes, select_program};
use thalweg_graph::plan::Plan;
use thalweg_graph::{Array, Bindings};

pub use check::NotFinite;
pub use error::RunError;
pub use inspect::At;
pub use record::ProfileRow;
use record::Recorder;
use step::{Outcome, Step};

use crate::checkpoint::{Saver, Variables};
use crate::cursor::Cursors;
use crate::device::{AbortFlag, Device};
use crate::feed::{self, Inputs};
use crate::outputs::{Outputs, Shelf};

/// Plans kept per session; the oldest goes first.
const PLANS_KEPT: usize = 16;

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
}
