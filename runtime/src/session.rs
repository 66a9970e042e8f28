//! A session: variables on one device or several, and programs that run over them. It runs nothing but verified plans, has
//! one made per program and binding when first needed, and keeps a few.

mod check;
mod error;
mod inspect;
mod record;
mod recovery;
mod routes;
mod sources;
mod spread;
mod step;
mod variables;

use std::collections::HashMap;
use std::sync::Arc;

use thalweg_graph::ir::Graph;
use thalweg_graph::passes::{STANDARD, run_passes, select_program};
use thalweg_graph::plan::Plan;
use thalweg_graph::{Array, Bindings};

pub use check::NotFinite;
pub use error::RunError;
pub use inspect::At;
pub use record::ProfileRow;
use record::Recorder;
pub(crate) use recovery::{Journal, Loss};
pub use recovery::{Origin, Recovered, Recovery};
use sources::Data;
pub(crate) use spread::Spread;
use step::{Outcome, Step};

use crate::checkpoint::{Root, Saver, Variables};
use crate::cursor::Cursors;
use crate::device::{AbortFlag, Device};
use crate::executor::{ControlMessages, Executor};
use crate::feed::{self, Fed, Feeds, Inputs};
use crate::outputs::{Outputs, Shelf};
use crate::planner::{Planner, Single};

/// Plans kept per session; the oldest goes first.
const PLANS_KEPT: usize = 16;

struct ProgramState {
    name: Arc<str>,
    inputs: Arc<Inputs>,
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

/// A program that has updated variables, and what was fed to it.
type Committed<'a> = (usize, Vec<Fed<'a>>);

/// Sees every graph between passes, by the name of the pass.
type Observer = Box<dyn FnMut(&str, &Graph) + Send>;

/// Variables on one device or several, and the programs over them.
pub struct Session {
    pub(crate) graph: Arc<Graph>,
    pub(crate) spread: Spread,
    pub(crate) executor: Executor,
    planner: Box<dyn Planner>,
    programs: Vec<ProgramState>,
    by_name: HashMap<Arc<str>, usize>,
    ready: Vec<Ready>,
    pub(crate) cursors: Cursors,
    /// What checkpoints say of the variables; made by the first one.
    pub(crate) saved_as: Option<Arc<Variables>>,
    pub(crate) saver: Saver,
    observe: Observer,
    recorder: Recorder,
    /// Whether every value of every step is to be finite.
    checks_all: bool,
    shelf: Arc<Shelf>,
    /// Bytes that crossed between devices by plans that are no longer kept.
    sent_before: u64,
    /// How what is lost with devices is made again; without it a loss is an error.
    pub(crate) journal: Option<Journal>,
    /// Directories that the workers reach as well.
    pub(crate) roots: Vec<Root>,
    data: Data,
}

impl Session {
    /// Puts the variables on the device, with their initial values.
    pub fn new(graph: Graph, device: Box<dyn Device>) -> Result<Self, RunError> {
        let planner = Box::new(Single::new(&graph));
        Self::over(graph, vec![device], planner)
    }
    /// Puts the variables on the devices as the planner spreads them, with their initial values. Plans are the planner's.
    ///
    /// # Errors
    /// If there is no device, or no room, or [`Planner::state`] is not of this graph and these devices.
    pub fn over(graph: Graph, devices: Vec<Box<dyn Device>>, planner: Box<dyn Planner>) -> Result<Self, RunError> {
        Self::with(graph, Executor::new(devices)?, planner)
    }
    /// The same with an executor of one's own making, whose devices may be elsewhere.
    ///
    /// # Errors
    /// As [`Session::over`].
    pub fn with(graph: Graph, executor: Executor, planner: Box<dyn Planner>) -> Result<Self, RunError> {
        Self::made(graph, executor, planner, None)
    }
    fn made(
        graph: Graph,
        executor: Executor,
        planner: Box<dyn Planner>,
        journal: Option<Journal>,
    ) -> Result<Self, RunError> {
        let devices = executor.devices().len();
        let spread = Spread::new(&graph, planner.state(), devices).map_err(RunError::Unsound)?;
        let programs: Vec<ProgramState> = graph
            .programs
            .iter()
            .map(|p| ProgramState {
                name: p.name.clone(),
                inputs: Arc::new(feed::inputs_of(&graph, p)),
                prepared: None,
            })
            .collect();
        let by_name = programs.iter().enumerate().map(|(i, p)| (p.name.clone(), i)).collect();
        let graph = Arc::new(graph);
        let (ready, cursors, observe) = (vec![], Cursors::default(), Box::new(|_: &str, _: &Graph| {}));
        let (recorder, checks_all, saved_as, saver, shelf) =
            (Recorder::default(), false, None, Saver::default(), Arc::default());
        let mut session = Self {
            graph,
            spread,
            executor,
            planner,
            programs,
            by_name,
            ready,
            cursors,
            saved_as,
            saver,
            observe,
            recorder,
            checks_all,
            shelf,
            sent_before: 0,
            journal,
            roots: vec![],
            data: Data::default(),
        };
        session.survive(|s| Ok::<_, RunError>(s.executor.reserve_state(&s.planner.state().bytes)?))?;
        session.reset()?;
        Ok(session)
    }
    /// The same with devices that may be lost, in place of which `recovery` gives others.
    ///
    /// # Errors
    /// As [`Session::over`].
    pub fn conducted(
        graph: Graph,
        executor: Executor,
        planner: Box<dyn Planner>,
        recovery: Box<dyn Recovery>,
    ) -> Result<Self, RunError> {
        Self::made(graph, executor, planner, Some(Journal::new(recovery)))
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
        self.executor.abort_flag()
    }
    /// Where the sources of data stand.
    pub fn cursors(&self) -> &Cursors {
        &self.cursors
    }
    /// The device; the first of several.
    pub fn device(&self) -> &dyn Device {
        &*self.executor.devices()[0]
    }
    /// The devices, in the order of the plans' parts.
    pub fn devices(&self) -> &[Box<dyn Device>] {
        self.executor.devices()
    }
    /// Of each device whether other memory stands in for the buffers of channels: how much memory a plan needs depends on it,
    /// see [`Plan::memory`].
    pub fn borrows(&self) -> Vec<bool> {
        self.devices().iter().map(|d| d.borrows()).collect()
    }
    /// Bytes of the copy of all variables that the first save or resume makes, and that is kept for the next.
    pub fn snapshot_bytes(&self) -> u64 {
        self.spread.layout.bytes
    }
    /// How long all devices may wait for each other before a step is given up, see [`Executor::set_wait_limit`].
    pub fn set_wait_limit(&mut self, limit: std::time::Duration) {
        self.executor.set_wait_limit(limit);
    }

    /// Runs one step of a program, with arrays by the names of its inputs, or a [batch](crate::source::Batch) that is read
    /// where the devices are.
    pub fn run<'a>(&mut self, program: &str, feeds: impl Into<Feeds<'a>>) -> Result<Outputs, RunError> {
        self.grow()?;
        let feeds = feeds.into();
        let (outputs, committed) = self.survive(|session| session.run_once(program, feeds))?;
        if let Some((index, fed)) = committed {
            self.remember_step(index, fed)?;
        }
        Ok(outputs)
    }
    /// The same on the devices that there are; and, if it has updated variables, what of and with what.
    fn run_once<'a>(&mut self, program: &str, feeds: Feeds<'a>) -> Result<(Outputs, Option<Committed<'a>>), RunError> {
        let index = self.program(program)?;
        let state = &self.programs[index];
        let known = |name: &str| self.programs.iter().any(|p| p.inputs.iter().any(|(n, _)| &**n == name));
        let (fed, bindings) = feed::check(&self.graph, &state.name, &state.inputs, &known, feeds)?;
        let fed = self.at_hand(index, fed)?;
        let ready = self.ready(index, bindings)?;
        let Ready { guard, step, .. } = &self.ready[ready];
        let (guard, step) = (guard.clone(), step.clone());
        if let Some(guard) = guard {
            self.attempt(index, &guard, &fed)?;
        }
        let outputs = self.attempt(index, &step, &fed)?;
        Ok((outputs, step.commits().then_some((index, fed))))
    }
    /// Runs a step of the program with what was fed to it, in the order of its inputs.
    fn attempt(&mut self, index: usize, step: &Step, fed: &[Fed<'_>]) -> Result<Outputs, RunError> {
        let inputs = self.programs[index].inputs.clone();
        // By name: what an expansion no longer needs has no channel.
        let feed = |label: &str| inputs.iter().position(|(name, _)| &**name == label).map(|i| &fed[i]);
        match self.execute(step, feed)? {
            Outcome::Done(outputs) => Ok(outputs),
            Outcome::NotFinite(found) => Err(self.explain(index, step, &found, fed)),
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
    /// Bytes that have crossed between devices, in all steps so far.
    pub fn bytes_sent(&self) -> u64 {
        let steps = self.ready.iter().flat_map(|r| r.guard.iter().chain([&r.step]));
        self.sent_before + steps.map(Step::bytes_sent).sum::<u64>()
    }
    /// What steering the processes that host devices has cost so far, by kind; nothing where all devices are here.
    pub fn control_messages(&self) -> ControlMessages {
        self.executor.control_messages()
    }
    /// The plan of a program for given extents, made if need be.
    pub fn plan(&mut self, program: &str, bindings: &Bindings) -> Result<Arc<Plan>, RunError> {
        let index = self.program(program)?;
        let ready = self.survive(|session| session.ready(index, bindings.clone()))?;
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
        let started = self.recorder.now(&self.executor);
        let prepared = self.prepare(index);
        let bound = prepared.bind(&bindings).ok_or_else(|| RunError::Bindings(bindings.clone()))?;
        let (guard, step) = self.guarded(bound, &bindings)?;
        if self.ready.len() == PLANS_KEPT {
            let oldest = self.ready.remove(0);
            oldest.guard.iter().chain([&oldest.step]).for_each(|step| self.unload(step));
        }
        self.recorder.session(&self.executor, started, "plan", &step.plan.program);
        self.ready.push(Ready { program: index, bindings, checks_all, guard, step });
        Ok(self.ready.len() - 1)
    }
}
