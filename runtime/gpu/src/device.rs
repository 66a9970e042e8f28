//! A GPU as a device: arenas in its memory, plans as lists of dispatches that were made ready when they were loaded. A step
//! is feeds, launches and what is fetched in one submission, and its tail in another. Nothing waits for the GPU but reading.
//!
//! A device that is lost stays so: every call says so, and none panics, whatever wgpu or the driver does.
//!
//! wgpu's device and queue may be used from any thread, so that this one has no thread of its own. Several such devices
//! may live on one adapter: each has its arenas, and all share the pipelines.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use thalweg_graph::ir::Site;
use thalweg_graph::kernel::Kernel;
use thalweg_graph::lower::{LaunchLimits, Target};
use thalweg_graph::plan::{Memory, Plan};
use thalweg_runtime::device::{AbortFlag, Device, DeviceError, Loaded, ReadInto, Timing};

use crate::adapter::Limits;
use crate::arena::Arenas;
use crate::clock::Clock;
use crate::context::{Context, said};
use crate::launch::Ready;
use crate::stream::Stream;
use crate::watch::Watch;
use crate::wgsl::{MOST_POINTS, workspace_bytes};

/// Of what passes between members of a group, a row and what else they need of workgroup memory has to fit there.
const MOST_PASSED_BYTES: u64 = 10 << 10;

/// An adapter, or a part in it, as a device.
pub struct GpuDevice {
    pub(crate) target: GpuTarget,
    pub(crate) context: Arc<Context>,
    pub(crate) arenas: Arenas,
    pub(crate) plans: Vec<Option<LoadedPlan>>,
    pub(crate) stream: Stream,
    /// When this device was made; what timings count from.
    epoch: Instant,
    timings: Option<Timings>,
    /// What it was given last; an error that comes later is likely to be of that.
    last: Option<(Loaded, Range<usize>)>,
    /// Why it is of no use any more.
    lost: Option<DeviceError>,
}

/// Timings being taken.
struct Timings {
    taken: Vec<Timing>,
    /// The GPU's own; where it has none, launches run one at a time and the host's is looked at.
    clock: Option<Clock>,
}

/// A plan, ready.
pub(crate) struct LoadedPlan {
    pub(crate) actions: Vec<Action>,
    pub(crate) params: Option<wgpu::Buffer>,
    /// The arenas that dispatches are bound to, by [`Arenas::made`].
    pub(crate) bound_to: u64,
}

/// An instruction of a loaded plan.
pub(crate) struct Action {
    pub(crate) dispatches: Vec<Ready>,
    pub(crate) strategy: String,
    pub(crate) label: Arc<str>,
    pub(crate) site: Site,
}

/// What was asked for at a line of the user's.
pub(crate) fn declared_at(what: &str, site: &Site) -> String {
    if site.file.is_empty() { what.to_string() } else { format!("{what} (declared at {site})") }
}

impl GpuDevice {
    /// Opens adapter `adapter` as `name`.
    ///
    /// # Errors
    /// If there is no such adapter, or it cannot be opened.
    pub fn new(name: &str, adapter: usize) -> Result<Self, DeviceError> {
        let name: Arc<str> = name.into();
        let context = Context::open(adapter).map_err(|cause| DeviceError::Open { device: name.clone(), cause })?;
        Ok(Self::on(name, context))
    }
    /// Opens adapter `adapter` as `name` with limits below its own, as a smaller one has them. It shares nothing with other
    /// devices on it.
    ///
    /// # Errors
    /// If there is no such adapter, or it cannot be opened.
    pub fn with_limits(name: &str, adapter: usize, lower: &Limits) -> Result<Self, DeviceError> {
        let name: Arc<str> = name.into();
        let context =
            Context::apart(adapter, lower).map_err(|cause| DeviceError::Open { device: name.clone(), cause })?;
        Ok(Self::on(name, context))
    }
    fn on(name: Arc<str>, context: Arc<Context>) -> Self {
        let epoch = Instant::now();
        Self {
            target: GpuTarget { name, bindings: context.bindings },
            context,
            arenas: Arenas::new(),
            plans: vec![],
            stream: Stream::new(),
            epoch,
            timings: None,
            last: None,
            lost: None,
        }
    }
    /// A handle to look at it with when a session has it.
    pub fn watch(&self) -> Watch {
        Watch { context: self.context.clone(), counts: self.stream.counts.clone() }
    }
    /// How many pipelines were compiled for its plans. What another device of this process has compiled is not compiled
    /// again.
    pub fn pipelines_compiled(&self) -> usize {
        self.watch().pipelines_compiled()
    }
    pub(crate) fn reserve(&mut self, memory: Memory, needed: u64) -> Result<(), DeviceError> {
        // What was recorded is bound to the arenas as they were.
        self.stream.submit(&self.context).map_err(|e| self.failed("making room", e))?;
        if self.arenas.reserve(&self.context, memory, needed) {
            return Ok(());
        }
        let (device, memory, most) = (self.target.name.clone(), memory.name(), self.context.buffer_bytes);
        let detail =
            if needed > most { format!(", an arena of this adapter has at most {most}") } else { String::new() };
        Err(DeviceError::OutOfMemory { device, memory, needed, detail })
    }
    pub(crate) fn failed(&self, label: &str, cause: impl Into<String>) -> DeviceError {
        DeviceError::Launch { device: self.target.name.clone(), label: label.into(), cause: cause.into() }
    }
    /// The rim: what wgpu or a driver does inside `f` comes out as an error.
    pub(crate) fn guarded<T>(&mut self, f: impl FnOnce(&mut Self) -> Result<T, DeviceError>) -> Result<T, DeviceError> {
        if let Some(lost) = &self.lost {
            return Err(lost.clone());
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| f(self)));
        if matches!(outcome, Err(_) | Ok(Err(DeviceError::Launch { .. }))) {
            // A loss is told when all that was under way is over; then nothing else is the cause.
            let timeout = Some(Duration::from_secs(10));
            let _ = self.context.device.poll(wgpu::PollType::Wait { submission_index: None, timeout });
        }
        let cause = match (outcome, self.context.failure()) {
            (Ok(outcome), None) => return outcome,
            (_, Some(cause)) => cause,
            (Err(panic), None) => said(&*panic),
        };
        // Whoever opens the adapter next gets a fresh one.
        self.context.fail(cause.clone());
        let lost = DeviceError::Lost { device: self.target.name.clone(), doing: self.doing(), cause };
        self.lost = Some(lost.clone());
        Err(lost)
    }
    /// What it was given last, for people.
    fn doing(&self) -> String {
        let actions = self.last.as_ref().and_then(|(loaded, range)| {
            let plan = self.plans.get(loaded.0)?.as_ref()?;
            Some(plan.actions.get(range.clone())?.iter().filter(|a| !a.label.is_empty()).collect::<Vec<_>>())
        });
        match actions.as_deref() {
            None | Some([]) => "no launch had been run".into(),
            Some([one]) => format!("it was given last {}", declared_at(&format!("`{}`", one.label), &one.site)),
            Some([first, .., last]) => {
                let named = |a: &Action| declared_at(&format!("`{}`", a.label), &a.site);
                format!("it was given last the launches from {} to {}", named(first), named(last))
            }
        }
    }
    /// Records what is given; hands it over when there is enough of it.
    fn record(&mut self, loaded: Loaded, range: Range<usize>, abort: Option<&AbortFlag>) -> Result<(), DeviceError> {
        let mut at = range.start;
        while at < range.end {
            let Self { plans, stream, context, timings, .. } = self;
            let plan = plans[loaded.0].as_ref().expect("a loaded plan");
            let mut pass: Option<wgpu::ComputePass<'_>> = None;
            let mut pipeline = None;
            let mut full = false;
            while at < range.end && !full {
                if abort.is_some_and(AbortFlag::is_raised) {
                    return Err(DeviceError::Aborted);
                }
                if let Some(Timings { clock: Some(clock), .. }) = timings {
                    drop(pass.take());
                    pipeline = None;
                    let timestamp_writes = Some(clock.mark(loaded, at, self.epoch.elapsed()));
                    let described = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
                    pass = Some(stream.encoder(context).begin_compute_pass(&described).forget_lifetime());
                }
                let pass = pass.get_or_insert_with(|| {
                    stream.encoder(context).begin_compute_pass(&Default::default()).forget_lifetime()
                });
                plan.actions[at].dispatches.iter().for_each(|d| d.record(pass, &mut pipeline));
                at += 1;
                full = match timings {
                    None => stream.launched(),
                    Some(Timings { clock: Some(clock), .. }) => !clock.has_room(),
                    Some(Timings { clock: None, .. }) => true,
                };
            }
            drop(pass);
            if full {
                self.hand_over()?;
            }
        }
        Ok(())
    }
    /// Submits what was recorded; where launches are timed, waits for it and takes the timings.
    fn hand_over(&mut self) -> Result<(), DeviceError> {
        let Self { stream, context, timings, epoch, .. } = self;
        let done = match timings {
            Some(Timings { clock: Some(clock), taken }) => {
                clock.read(context, stream, || epoch.elapsed()).map(|timings| taken.extend(timings))
            }
            _ => stream.submit(context).map(|_| ()),
        };
        done.map_err(|cause| match self.last.as_ref().and_then(|(loaded, range)| self.action(*loaded, range.start)) {
            Some(action) => self.failed(&action.label, declared_at(&cause, &action.site)),
            None => self.failed("submitting", cause),
        })
    }
    fn action(&self, loaded: Loaded, instruction: usize) -> Option<&Action> {
        self.plans.get(loaded.0)?.as_ref()?.actions.get(instruction)
    }
    /// Runs launches one at a time, by the host's clock.
    fn run_timed_from_the_host(
        &mut self,
        loaded: Loaded,
        range: Range<usize>,
        abort: Option<&AbortFlag>,
    ) -> Result<(), DeviceError> {
        let wait = |me: &mut Self| me.stream.wait(&me.context).map_err(|e| me.failed("waiting", e));
        wait(self)?;
        for instruction in range {
            let start = self.epoch.elapsed();
            self.record(loaded, instruction..instruction + 1, abort)?;
            wait(self)?;
            let took = self.epoch.elapsed() - start;
            let timings = self.timings.iter_mut();
            timings.for_each(|t| t.taken.push(Timing { loaded, instruction, start, took }));
        }
        Ok(())
    }
}

/// What lowering asks of an adapter.
pub(crate) struct GpuTarget {
    pub(crate) name: Arc<str>,
    /// Buffers that a shader may name.
    bindings: usize,
}

impl Target for GpuTarget {
    fn name(&self) -> Arc<str> {
        self.name.clone()
    }
    fn workspace_bytes(&self, kernel: &Kernel) -> u64 {
        workspace_bytes(kernel)
    }
    /// Sums are in registers when the epilogue runs.
    fn runs_epilogues(&self) -> bool {
        true
    }
    /// What passes between members stays in workgroup memory.
    fn runs_groups(&self) -> bool {
        true
    }
    /// A shader has a binding for each buffer in the worst case, and counts elements in 31 bits.
    fn limits(&self) -> LaunchLimits {
        let (buffers, bytes) = (self.bindings, MOST_PASSED_BYTES);
        LaunchLimits { buffers, elements: MOST_POINTS, row_bytes: bytes, group_bytes: bytes }
    }
}

impl Device for GpuDevice {
    fn target(&self) -> &dyn Target {
        &self.target
    }
    fn reserve_state(&mut self, bytes: u64) -> Result<(), DeviceError> {
        self.guarded(|me| me.reserve(Memory::State, bytes))
    }
    fn load(&mut self, plan: &Arc<Plan>, part: usize) -> Result<Loaded, DeviceError> {
        self.guarded(|me| me.load_plan(plan, part))
    }
    fn unload(&mut self, loaded: Loaded) {
        self.plans[loaded.0] = None;
    }
    fn run(&mut self, loaded: Loaded, range: Range<usize>, abort: Option<&AbortFlag>) -> Result<(), DeviceError> {
        self.guarded(|me| {
            me.bind(loaded)?;
            me.last = Some((loaded, range.clone()));
            if me.timings.as_ref().is_some_and(|t| t.clock.is_none()) {
                return me.run_timed_from_the_host(loaded, range, abort);
            }
            me.record(loaded, range, abort)?;
            // Of a body something is read, with which it is submitted. Nobody waits for a tail.
            if abort.is_none() { me.hand_over() } else { Ok(()) }
        })
    }
    fn time(&mut self, on: bool) -> Vec<Timing> {
        // A failure is kept, and what the next call says.
        let _ = self.guarded(Self::hand_over);
        let clock = match &mut self.timings {
            Some(timings) => timings.clock.take(),
            None => on.then(|| Clock::new(&self.context)).flatten(),
        };
        let before = std::mem::replace(&mut self.timings, on.then(|| Timings { taken: vec![], clock }));
        before.map(|t| t.taken).unwrap_or_default()
    }
    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }
    fn strategy(&self, loaded: Loaded, instruction: usize) -> String {
        let plan = self.plans.get(loaded.0).and_then(Option::as_ref);
        plan.and_then(|p| p.actions.get(instruction)).map(|a| a.strategy.clone()).unwrap_or_default()
    }
    fn write(&mut self, memory: Memory, offset: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        self.guarded(|me| {
            let Self { stream, context, arenas, .. } = me;
            stream.write(context, arenas, memory, offset, bytes).map_err(|e| me.failed("writing", e))
        })
    }
    fn read(&mut self, memory: Memory, offset: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.read_many(&mut [ReadInto { memory, offset, bytes }])
    }
    fn read_many(&mut self, reads: &mut [ReadInto<'_>]) -> Result<(), DeviceError> {
        self.guarded(|me| {
            if me.timings.is_some() {
                me.hand_over()?;
            }
            let Self { stream, context, arenas, .. } = me;
            stream.read(context, arenas, reads).map_err(|e| me.failed("reading", e))
        })
    }
    fn reserved(&self, memory: Memory) -> u64 {
        self.arenas.reserved(memory)
    }
}
