//! A compiled model: what `compile` makes of a declared graph. Thin: it opens devices and hands over to the session,
//! which runs nothing but plans.

use std::path::Path;
use std::sync::Arc;

use thalweg_data::{Batches, Described, Descriptions, Files, Loader};
use thalweg_graph::choose::{Choice, choose};
use thalweg_graph::cluster::{DeviceKind, DeviceSpec};
use thalweg_graph::place::Request;
use thalweg_graph::{Array, Bindings, Cluster, Strategy, Summary};
use thalweg_ops::Tensor;
use thalweg_ops::precision::MIXED_PRECISION;
use thalweg_runtime::checkpoint::{Root, Unshared};
use thalweg_runtime::executor::ControlMessages;
use thalweg_runtime::planner::Placing;
use thalweg_runtime::source::Opened;
use thalweg_runtime::{
    AbortFlag, At, Device, Feeds, Outputs, ReferenceDevice, Resumed, Same, Saved, Saving, Session, Trace,
};

use crate::error::{Error, Result};
use crate::hosts::{Again, Hosts};

/// Turns a declared graph into a model that runs.
pub trait Compile {
    /// Checks the whole declaration, reports every mistake at once, and puts the variables on the cluster's device.
    ///
    /// # Errors
    /// With every mistake; if something is pinned to another device; and if the cluster has several devices, since how the
    /// model is spread over them is to be said: see [`compile_with`](Self::compile_with).
    fn compile(&self, cluster: &Cluster) -> Result<Model>;
    /// The same, spread over the cluster's devices as `strategy` says:
    /// `g.compile_with(&cluster, &Strategy::data_parallel())`. Feeds, outputs and variables remain whole to the caller.
    ///
    /// # Errors
    /// With every mistake, and if the strategy does not fit the model or the cluster.
    fn compile_with(&self, cluster: &Cluster, strategy: &Strategy) -> Result<Model>;
    /// The same, spread over the devices of other processes. Where workers are lost it goes on with others, from the newest
    /// checkpoint or from the start, and gives the same bits.
    ///
    /// # Errors
    /// With every mistake, and if the strategy does not fit the model or the workers.
    fn compile_on(&self, hosts: Hosts, strategy: &Strategy) -> Result<Model>;
}

impl Compile for thalweg_ops::Graph {
    fn compile(&self, cluster: &Cluster) -> Result<Model> {
        let [device] = &cluster.devices[..] else {
            let count = cluster.devices.len();
            return Err(Error::Cluster(format!(
                "a cluster of {count} devices: say how the model is spread over them, by a strategy \
                 such as data parallel (`compile_with`; `strategy=` in Python)"
            )));
        };
        let graph = finished(self)?;
        // What is pinned to a device that is not this one has to be said now.
        Strategy::alone(&device.name).request(&graph, cluster).map_err(|e| Error::Cluster(e.to_string()))?;
        Ok(model(Session::new(graph, open_device(device)?)?, None))
    }
    fn compile_with(&self, cluster: &Cluster, strategy: &Strategy) -> Result<Model> {
        if cluster.devices.is_empty() {
            return Err(Error::Cluster("a cluster without devices".into()));
        }
        let graph = finished(self)?;
        let devices = cluster.devices.iter().map(open_device).collect::<Result<Vec<_>>>()?;
        let (planner, spread) = spread(&graph, cluster, strategy, &devices)?;
        Ok(model(Session::over(graph, devices, planner)?, Some(spread)))
    }
    fn compile_on(&self, hosts: Hosts, strategy: &Strategy) -> Result<Model> {
        let graph = finished(self)?;
        let (cluster, workers, meeting) = hosts.into_parts();
        // A driver that takes the place of another one computes what that did, on however many workers.
        let strategy = meeting.leaves()?.map_or_else(|| strategy.clone(), |leaves| strategy.clone().leaves(leaves));
        let twins = cluster.devices.iter().map(open_device).collect::<Result<Vec<_>>>()?;
        let (planner, spread) = spread(&graph, &cluster, &strategy, &twins)?;
        let leaves = spread.request.mesh.leaves() as u16;
        let roots = meeting.roots()?;
        let again = Again::new(meeting, &graph, &spread.strategy, leaves, cluster.devices.len())?;
        let mut session = Session::conducted(graph, workers.executor(twins)?, planner, Box::new(again))?;
        session.share_roots(roots);
        Ok(model(session, Some(spread)))
    }
}

/// Who makes the plans of a graph that is spread over devices, and how it is.
pub(crate) fn spread(
    graph: &thalweg_graph::Graph,
    cluster: &Cluster,
    strategy: &Strategy,
    devices: &[Box<dyn Device>],
) -> Result<(Box<Placing>, Spread)> {
    let refused = |e: &dyn std::fmt::Display| Error::Cluster(e.to_string());
    let targets: Vec<_> = devices.iter().map(|d| d.target()).collect();
    let choice = strategy.is_auto().then(|| choose(strategy, graph, cluster, &targets)).transpose();
    let choice = choice.map_err(|e| refused(&e))?;
    let strategy = choice.as_ref().map_or(strategy, |c| &c.strategy);
    let request = strategy.request(graph, cluster).map_err(|e| refused(&e))?;
    let planner = Box::new(Placing::new(graph, request.clone(), devices.len()));
    Ok((planner, Spread { strategy: strategy.clone(), request, choice }))
}

/// The declared graph, without mistakes.
fn finished(declared: &thalweg_ops::Graph) -> Result<thalweg_graph::Graph> {
    let graph = declared.finish()?;
    if declared.is_mixed() {
        dump(MIXED_PRECISION, &graph);
    }
    Ok(graph)
}

fn model(mut session: Session, spread: Option<Spread>) -> Model {
    session.observe_passes(dump);
    session.set_opener(Arc::new(crate::data::file_opener()));
    Model { session, spread }
}

/// Shows a graph after the pass that `DUMP=after:PASS` names, or after all.
fn dump(pass: &str, graph: &thalweg_graph::Graph) {
    let wanted = std::env::var("DUMP").ok().and_then(|d| Some(d.strip_prefix("after:")?.to_string()));
    if wanted.as_deref().is_some_and(|w| w == pass || w == "all") {
        eprintln!("after {pass}:\n{graph}");
    }
}

/// Opens a device of this machine.
pub fn open_device(spec: &DeviceSpec) -> Result<Box<dyn Device>> {
    Ok(match spec.kind {
        DeviceKind::Cpu => Box::new(thalweg_cpu::CpuDevice::new(&spec.name, spec.threads)?),
        #[cfg(feature = "gpu")]
        DeviceKind::Gpu { adapter } => Box::new(thalweg_gpu::GpuDevice::new(&spec.name, adapter)?),
        #[cfg(not(feature = "gpu"))]
        DeviceKind::Gpu { .. } => {
            return Err(Error::Cluster(format!(
                "{}: this build has no GPUs; build it with the feature `gpu`",
                spec.name
            )));
        }
        DeviceKind::Reference => Box::new(ReferenceDevice::default()),
    })
}

/// What can say which value of the graph is meant: a handle, or a name.
pub trait Point<'a> {
    /// The place it means.
    fn at(self) -> At<'a>;
}
impl<'a> Point<'a> for Tensor<'a> {
    fn at(self) -> At<'a> {
        At::Declared(self.graph(), self.value())
    }
}
impl<'a> Point<'a> for &'a str {
    fn at(self) -> At<'a> {
        At::Named(self)
    }
}

/// A model on a device or several: variables and programs.
pub struct Model {
    session: Session,
    spread: Option<Spread>,
}

/// How a model is spread over several devices.
#[derive(Clone, Debug)]
pub struct Spread {
    /// In a word.
    pub strategy: Strategy,
    /// What that says of the model.
    pub request: Request,
    /// What it was chosen among, if it was.
    pub choice: Option<Choice>,
}

impl Model {
    /// Runs one step of a program: `model.run("train", feed! { image: &images, label: &labels })`; or with a batch that
    /// was [described](Model::batches_on_workers): `model.run("train", &batch)`.
    pub fn run<'a>(&mut self, program: &str, feeds: impl Into<Feeds<'a>>) -> Result<Outputs> {
        Ok(self.session.run(program, feeds)?)
    }
    /// Runs one step per batch without returning in between; gives what the last one returned.
    pub fn run_many<'a>(
        &mut self,
        program: &str,
        batches: impl IntoIterator<Item = Vec<(&'a str, &'a Array)>>,
    ) -> Result<Option<Outputs>> {
        Ok(self.session.run_many(program, batches)?)
    }
    /// The batches of `data` that the variables have not learned from yet: from where its cursor stood at the last commit,
    /// to the end of its last pass. A batch counts as consumed once a step that updates variables commits; a loop that
    /// is left and entered again goes on with the next one. The batches do not borrow the model, which runs meanwhile.
    ///
    /// Wrong settings, and a cursor of other data or another order, are the first item's error.
    pub fn batches(&self, data: &Loader) -> Batches {
        data.resume(self.session.cursors())
    }
    /// The same of files that are read where the devices are: each worker opens them itself, below one of its roots, and reads
    /// the samples of its leaves, and of the next step's while this one runs. A batch says which samples these are, and no
    /// byte of them passes through this process. Without workers this process reads them. What is learned is the same to the
    /// last bit either way.
    ///
    /// ```
    /// use thalweg::prelude::*;
    ///
    /// # fn main() -> thalweg::Result<()> {
    /// let g = Graph::new("brightness").seed(0);
    /// let image = g.input("image", F32, shape![g.dim("n", 1..=64), 1, 8, 8]);
    /// let level = g.parameter("level", F32, (), Init::Constant(0.0));
    /// let error = image - level;
    /// let loss = (error * error).mean().named("loss");
    /// g.program("train").outputs([loss]).update(Sgd::new(0.1).minimize(loss));
    ///
    /// let mut model = g.compile(&Cluster::local())?;                 // or compile_on(job.workers()?, …): the loop is the same
    /// let digits = Files::built_in("digits/train").input("image", "image");  // or Files::below("data", "train.npz")
    /// for batch in model.batches_on_workers(&digits.shuffle(0).batch(64).epochs(2))? {
    ///     model.run("train", &batch)?;
    /// }
    /// assert!((model.get("level")?.item() - 0.305).abs() < 0.01);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Files that cannot be opened, wrong settings, and a cursor of other data or another order.
    pub fn batches_on_workers(&mut self, data: &Described) -> Result<Descriptions> {
        let opened = self.open(data.files())?;
        Ok(data.resume(&opened, self.session.cursors())?)
    }
    /// Opens files where the devices are, and says what is known of them: how many samples there are and what they look like.
    ///
    /// # Errors
    /// If they cannot be opened, with what is wrong where.
    pub fn open(&mut self, files: &Files) -> Result<Arc<Opened>> {
        Ok(self.session.open_source(&files.spec()?)?)
    }
    /// Says below which directories this process reads files where there are no workers, `NAME=DIRECTORY` each: those of a
    /// job are what `thalweg launch --root` says.
    ///
    /// # Errors
    /// If there is no such directory, and if there are workers.
    pub fn add_root(&mut self, root: &str) -> Result<()> {
        let root = Root::parse(root).map_err(Error::Cluster)?;
        Ok(self.session.add_data_root(root)?)
    }
    /// The value of a variable, by its path: `body.conv1.weight`.
    pub fn get(&mut self, variable: &str) -> Result<Array> {
        Ok(self.session.get(variable)?)
    }
    /// Sets a variable.
    pub fn set(&mut self, variable: &str, value: &Array) -> Result<()> {
        Ok(self.session.set(variable, value)?)
    }
    /// Committed training steps.
    pub fn step(&mut self) -> u64 {
        self.session.step()
    }
    /// The hash of all variables: equal digests mean equal models, bit for bit.
    pub fn digest(&mut self) -> Result<String> {
        Ok(self.session.digest()?)
    }
    /// Saves all variables and the places of the data to a directory, while the model goes on: the variables are copied
    /// and another thread writes. The newest three checkpoints are kept there. An error of the writing comes out of
    /// [`Saving::wait`] or of the next save, and costs no older checkpoint.
    pub fn save(&mut self, directory: impl AsRef<Path>) -> Result<Saving> {
        Ok(self.session.save(directory)?)
    }
    /// The same, but returns once the checkpoint is on the disk.
    pub fn save_and_wait(&mut self, directory: impl AsRef<Path>) -> Result<Saved> {
        Ok(self.session.save_and_wait(directory)?)
    }
    /// Waits for the save that is running, if one is, and says what came of it.
    pub fn wait_saved(&mut self) -> Result<Option<Saved>> {
        Ok(self.session.wait_saved()?)
    }
    /// How many checkpoints are kept in a directory, three unless this is called; the newest always is.
    pub fn keep_checkpoints(&mut self, count: usize) {
        self.session.keep_checkpoints(count);
    }
    /// Loads the newest whole checkpoint of a directory: variables, step and places of the data. A run that is resumed
    /// goes on bit for bit as if it had not been interrupted. Damaged checkpoints that are newer are named in the result
    /// and on stderr.
    ///
    /// # Errors
    /// If there is none, or it is not one of this model, with every difference. The model is then as it was.
    pub fn resume(&mut self, directory: impl AsRef<Path>) -> Result<Resumed> {
        Ok(warned(self.session.resume(directory, Same::Graph)?))
    }
    /// The same for a model whose programs have changed since, such as its learning rate, but whose variables have not.
    pub fn resume_changed(&mut self, directory: impl AsRef<Path>) -> Result<Resumed> {
        Ok(warned(self.session.resume(directory, Same::Variables)?))
    }
    /// [`Model::resume`], or nothing if there is no checkpoint in that directory: the first start of a script and every
    /// later one are the same line.
    pub fn resume_or_init(&mut self, directory: impl AsRef<Path>) -> Result<Option<Resumed>> {
        Ok(self.session.resume_or_init(directory, Same::Graph)?.map(warned))
    }
    /// Writes parameters and statistics to one safetensors file, for other tools and other runs.
    pub fn save_weights(&mut self, path: impl AsRef<Path>) -> Result<()> {
        Ok(self.session.save_weights(path)?)
    }
    /// Sets parameters and statistics to what a safetensors file holds: all of them, and nothing else. The file of
    /// weights of a checkpoint is such a file.
    pub fn load_weights(&mut self, path: impl AsRef<Path>) -> Result<()> {
        Ok(self.session.load_weights(path)?)
    }
    /// The same for those that the file has and the model has too, such as all but a new head; says which they do not share.
    ///
    /// # Errors
    /// With every difference in the types of what both have.
    pub fn load_shared_weights(&mut self, path: impl AsRef<Path>) -> Result<Unshared> {
        Ok(self.session.load_shared_weights(path)?)
    }
    /// Bytes that have crossed between devices, in all steps so far.
    pub fn bytes_sent(&self) -> u64 {
        self.session.bytes_sent()
    }
    /// Bytes that this process has fed to workers so far. What they read themselves is not among them.
    pub fn bytes_fed(&self) -> u64 {
        self.session.fed_bytes()
    }
    /// Messages that steered the workers so far, by kind. A step costs each worker four, whatever it computes: `run` and
    /// `decide` to it, `voted` and `done` from it. Nothing where no other process takes part.
    pub fn control_messages(&self) -> ControlMessages {
        self.session.control_messages()
    }
    /// Raise it, from any thread, to end the step that is running; variables stay as they were before it.
    pub fn abort_flag(&self) -> AbortFlag {
        self.session.abort_flag()
    }
    /// Any tensor of the graph, returned by a program or not, from the variables as they are and the inputs that it
    /// depends on: `model.eval_at(hidden, feed! { image: &image })`, or by its name, `model.eval_at("body.hidden", …)`. The
    /// interpreter computes it, slowly, as a program that does not learn would: without dropout. Nothing is changed.
    pub fn eval_at<'a>(&mut self, tensor: impl Point<'a>, feeds: &[(&str, &Array)]) -> Result<Array> {
        Ok(self.session.evaluate_at(tensor.at(), None, feeds)?)
    }
    /// The same as `program` computes it: with dropout and the batch's own statistics where it learns.
    pub fn eval_in<'a>(&mut self, program: &str, tensor: impl Point<'a>, feeds: &[(&str, &Array)]) -> Result<Array> {
        Ok(self.session.evaluate_at(tensor.at(), Some(program), feeds)?)
    }
    /// From here on a step in which any float value is infinite or NaN fails before it commits, with an error that names the
    /// first node to blame and its line; `false` ends that. Slower, the results are the same to the last bit. Infinities
    /// that stem from an infinite constant, as in masks, are not counted.
    pub fn check_finite(&mut self, on: bool) {
        self.session.check_finite(on);
    }
    /// A program layer by layer, for these extents: what it computes, its parameters, operations, bytes and peak memory.
    pub fn summary(&mut self, program: &str, bindings: &Bindings) -> Result<Summary> {
        Ok(self.session.summary(program, bindings)?)
    }
    /// Notes from here on when every launch, feed and fetch happens, and keeps the last `steps` steps.
    pub fn start_trace(&mut self, steps: usize) {
        self.session.start_trace(steps);
    }
    /// The steps noted since; `write` makes a file of it that Perfetto opens.
    pub fn finish_trace(&mut self) -> Trace {
        self.session.finish_trace()
    }
    /// How it is spread over several devices; nothing for a model that was compiled for one.
    pub fn spread(&self) -> Option<&Spread> {
        self.spread.as_ref()
    }
    /// Writes a picture of the graph, as the file's name asks for: `.html` to look into, `.dot` for Graphviz, `.mmd` for Mermaid.
    ///
    /// # Errors
    /// If the file is called otherwise, or cannot be written.
    pub fn draw(&self, path: impl AsRef<Path>) -> Result<()> {
        Ok(crate::draw::draw(self.graph(), None, path)?)
    }
    /// The graph that was compiled.
    pub fn graph(&self) -> &thalweg_graph::Graph {
        self.session.graph()
    }
    /// What runs the plans.
    pub fn session(&mut self) -> &mut Session {
        &mut self.session
    }
}

/// Steps are lost: that is said even where nobody looks at the result.
fn warned(resumed: Resumed) -> Resumed {
    for damaged in &resumed.damaged {
        eprintln!("warning: {damaged}");
    }
    if !resumed.damaged.is_empty() {
        eprintln!("warning: went back to {}", resumed.path.display());
    }
    resumed
}
