//! A GPU as a device: arenas in its memory, plans as lists of dispatches that are recorded and submitted a stretch at a
//! time. Nothing waits for the GPU but reading.
//!
//! wgpu's device and queue may be used from any thread, so that this one has no thread of its own. Several such devices
//! may live on one adapter: each has its arenas, and all share the pipelines.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use thalweg_graph::kernel::{Affine, Axis, BufferType, Coord, Inst, Kernel, LoopNest, Read, Scalar, ScalarOp, Write};
use thalweg_graph::lower::Target;
use thalweg_graph::plan::{Buffer, DevicePlan, Instruction, Launch, Memory, Plan};
use thalweg_graph::types::DType;
use thalweg_runtime::device::{AbortFlag, Device, DeviceError, Loaded, Timing};

use crate::arena::Arenas;
use crate::context::Context;
use crate::launch::{Params, Ready, Span, Windows};
use crate::wgsl::{Dispatch, Program, translate, workspace_bytes};

/// An adapter, or a part in it, as a device.
pub struct GpuDevice {
    name: Arc<str>,
    context: Arc<Context>,
    arenas: Arenas,
    plans: Vec<Option<LoadedPlan>>,
    /// When this device was made; what timings count from.
    epoch: Instant,
    timings: Option<Vec<Timing>>,
    /// The most of an arena that one binding shows, in bytes.
    binding_bytes: u64,
    /// See [`GpuDevice::pipelines_compiled`].
    compiled: usize,
}

struct LoadedPlan {
    actions: Vec<Action>,
    params: Option<wgpu::Buffer>,
    /// The arenas that dispatches are bound to, by [`Arenas::made`].
    bound_to: u64,
}

/// An instruction of a loaded plan.
struct Action {
    dispatches: Vec<Ready>,
    strategy: String,
    label: Arc<str>,
}

/// Launches recorded before they are submitted: enough to be worth it, few enough that the GPU need not wait for them.
const LAUNCHES_AT_ONCE: usize = 64;

impl GpuDevice {
    /// Opens adapter `adapter` as `name`.
    ///
    /// # Errors
    /// If there is no such adapter, or it cannot be opened.
    pub fn new(name: &str, adapter: usize) -> Result<Self, DeviceError> {
        let name: Arc<str> = name.into();
        let context = Context::open(adapter).map_err(|cause| DeviceError::Open { device: name.clone(), cause })?;
        let (binding_bytes, epoch) = (context.binding_bytes, Instant::now());
        Ok(Self {
            name,
            context,
            arenas: Arenas::new(),
            plans: vec![],
            epoch,
            timings: None,
            binding_bytes,
            compiled: 0,
        })
    }
    /// Shows kernels at most so many bytes of an arena at once, as an adapter does whose bindings are smaller. Larger
    /// arenas are seen through several bindings; a tensor has to fit in one.
    pub fn limit_bindings(&mut self, bytes: u64) {
        self.binding_bytes = bytes.min(self.context.binding_bytes);
    }
    /// How many pipelines were compiled for its plans. What another device of this process has compiled is not compiled
    /// again.
    pub fn pipelines_compiled(&self) -> usize {
        self.compiled
    }
    fn reserve(&mut self, memory: Memory, needed: u64) -> Result<(), DeviceError> {
        let room = self.arenas.reserve(&self.context, memory, needed);
        let (device, memory) = (self.name.clone(), memory.name());
        room.then_some(()).ok_or(DeviceError::OutOfMemory { device, memory, needed })
    }
    fn failed(&self, label: &str, cause: impl Into<String>) -> DeviceError {
        DeviceError::Launch { device: self.name.clone(), label: label.into(), cause: cause.into() }
    }

    /// Which buffers a launch names, and what it becomes.
    fn translated(&self, plan: &Plan, device: &DevicePlan, launch: &Launch) -> Result<Draft, String> {
        let kernel = &plan.kernels[launch.kernel];
        let span = |b: &Buffer| Span { memory: b.memory, range: b.range() };
        let named = launch.reads.iter().chain(&launch.writes).map(|b| span(&device.buffers[*b]));
        let mut spans: Vec<Span> = named.collect();
        let (offset, bytes) = launch.workspace;
        if workspace_bytes(kernel) > bytes {
            return Err("the plan gives it too little scratch".into());
        }
        if bytes > 0 {
            spans.push(Span { memory: Memory::Scratch, range: offset..offset.saturating_add(bytes) });
        }
        self.draft(spans, |slots| translate(kernel, slots).map_err(|e| self.unsupported(launch, &e.to_string())))
    }
    /// Says what cannot be done, and at which line it was asked for.
    fn unsupported(&self, launch: &Launch, what: &str) -> String {
        if launch.site.file.is_empty() { what.to_string() } else { format!("{what} (declared at {})", launch.site) }
    }
    fn draft(
        &self,
        spans: Vec<Span>,
        translate: impl FnOnce(&[usize]) -> Result<Program, String>,
    ) -> Result<Draft, String> {
        if spans.iter().any(|s| s.range.end > self.arenas.reserved(s.memory)) {
            return Err("the plan leaves its arenas".into());
        }
        let windows =
            Windows::over(&spans, &|m| self.arenas.reserved(m), self.binding_bytes, self.context.storage_align)?;
        let program = translate(&windows.slots)?;
        Ok(Draft { spans, windows: Arc::new(windows), program })
    }
    /// A copy within the device is a nest that reads and writes: wgpu copies between buffers, not within one.
    fn copy(&self, from: &Buffer, to: &Buffer) -> Result<Draft, String> {
        let bytes = from.range().end - from.range().start;
        let words = [from.offset, to.offset, bytes].iter().all(|n| n % 4 == 0);
        let (dtype, n) = if words { (DType::U32, bytes / 4) } else { (DType::U8, bytes) };
        let spans = [from, to].map(|b| Span { memory: b.memory, range: b.range() }).to_vec();
        let kernel = Kernel::Nest(identity(dtype, n));
        self.draft(spans, |slots| translate(&kernel, slots).map_err(|e| e.to_string()))
    }
    /// Records and submits what is given; errors name `label`.
    fn submit(&mut self, loaded: Loaded, range: Range<usize>) -> Result<(), DeviceError> {
        let plan = self.plans[loaded.0].as_ref().expect("a loaded plan");
        let recorded = self.context.checked(|| {
            let mut encoder = self.context.device.create_command_encoder(&Default::default());
            let mut pass = encoder.begin_compute_pass(&Default::default());
            let dispatches = plan.actions[range.clone()].iter().flat_map(|a| &a.dispatches);
            dispatches.for_each(|d| d.record(&mut pass));
            drop(pass);
            self.context.queue.submit([encoder.finish()]);
        });
        let label = plan.actions[range.clone()].iter().map(|a| &a.label).find(|l| !l.is_empty()).cloned();
        let label = label.unwrap_or_default();
        recorded.map_err(|e| self.failed(&label, e.to_string()))?;
        self.context.failure().map_or(Ok(()), |cause| Err(self.failed(&label, cause)))
    }
    fn wait(&self) -> Result<(), DeviceError> {
        let done = self.context.device.poll(wgpu::PollType::wait_indefinitely());
        done.map(|_| ()).map_err(|e| self.failed("waiting", e.to_string()))
    }
    /// Binds a plan's dispatches to the arenas that there are now.
    fn bind(&mut self, loaded: Loaded) -> Result<(), DeviceError> {
        let Self { plans, arenas, context, name, .. } = self;
        let plan = plans[loaded.0].as_mut().expect("a loaded plan");
        if plan.bound_to == arenas.made {
            return Ok(());
        }
        let LoadedPlan { actions, params: Some(params), .. } = plan else { return Ok(()) };
        for action in actions {
            let bound =
                context.checked(|| action.dispatches.iter_mut().try_for_each(|d| d.bind(context, arenas, params)));
            let failed =
                |cause: String| DeviceError::Launch { device: name.clone(), label: action.label.clone(), cause };
            bound.map_err(|e| failed(e.to_string()))?.map_err(failed)?;
        }
        plan.bound_to = arenas.made;
        Ok(())
    }
}

/// A launch on the way: what it becomes, and where its buffers lie.
struct Draft {
    spans: Vec<Span>,
    windows: Arc<Windows>,
    program: Program,
}

/// `n` elements, as they are.
fn identity(dtype: DType, n: u64) -> LoopNest {
    let ty = BufferType { dtype, shape: vec![n] };
    LoopNest {
        operands: vec![ty.clone()],
        results: vec![ty],
        axes: vec![Axis::new(n, false)],
        reads: vec![Read { operand: 0, coords: vec![Coord::Affine(Affine::axis(0))], fill: None }],
        body: Scalar::default(),
        folds: vec![],
        epilogue: Scalar { insts: vec![Inst { dtype, op: ScalarOp::Read(0) }] },
        writes: vec![Write { result: 0, value: 0, coords: vec![Affine::axis(0)] }],
    }
}

impl Target for GpuDevice {
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
    /// It runs them, but gains nothing by it yet: members are dispatches one after the other, and what passes between
    /// them is in memory as a whole.
    fn runs_groups(&self) -> bool {
        false
    }
}

impl Device for GpuDevice {
    fn target(&self) -> &dyn Target {
        self
    }
    fn reserve_state(&mut self, bytes: u64) -> Result<(), DeviceError> {
        self.reserve(Memory::State, bytes)
    }
    fn load(&mut self, plan: &Arc<Plan>, part: usize) -> Result<Loaded, DeviceError> {
        let device = &plan.devices[part];
        for memory in Memory::ALL {
            self.reserve(memory, device.bytes(memory))?;
        }
        let mut drafts = Vec::with_capacity(device.instructions.len());
        for instruction in &device.instructions {
            drafts.push(match instruction {
                Instruction::Launch(launch) => {
                    let draft = self.translated(plan, device, launch);
                    Some((draft.map_err(|e| self.failed(&launch.label, e))?, launch.label.clone()))
                }
                Instruction::Copy { from, to } => {
                    let draft = self.copy(&device.buffers[*from], &device.buffers[*to]);
                    Some((draft.map_err(|e| self.failed("copy", e))?, "copy".into()))
                }
                _ => None,
            });
        }
        let dispatches = drafts.iter().flatten().flat_map(|(draft, _)| &draft.program.dispatches);
        let shaders: Vec<_> = dispatches.map(|d| (d.text.as_str(), &d.slots[..])).collect();
        self.compiled += self.context.pipelines(&shaders).map_err(|e| self.failed(&plan.program, e))?;
        let mut params = Params::default();
        let mut actions = Vec::with_capacity(drafts.len());
        for draft in drafts {
            let Some((Draft { spans, windows, program }, label)) = draft else {
                actions.push(Action { dispatches: vec![], strategy: String::new(), label: "".into() });
                continue;
            };
            let ready = |d: &Dispatch| Ready::new(&self.context, d, &spans, &windows, &mut params);
            let dispatches: Result<Vec<_>, String> = program.dispatches.iter().map(ready).collect();
            let dispatches = dispatches.map_err(|e| self.failed(&label, e))?;
            actions.push(Action { dispatches, strategy: program.strategy(), label });
        }
        let params = params.upload(&self.context).map_err(|e| self.failed("parameters", e))?;
        let free = self.plans.iter().position(Option::is_none);
        let slot = free.unwrap_or_else(|| {
            self.plans.push(None);
            self.plans.len() - 1
        });
        self.plans[slot] = Some(LoadedPlan { actions, params, bound_to: 0 });
        self.bind(Loaded(slot))?;
        Ok(Loaded(slot))
    }
    fn unload(&mut self, loaded: Loaded) {
        self.plans[loaded.0] = None;
    }
    fn run(&mut self, loaded: Loaded, range: Range<usize>, abort: Option<&AbortFlag>) -> Result<(), DeviceError> {
        self.bind(loaded)?;
        let at_once = if self.timings.is_some() { 1 } else { LAUNCHES_AT_ONCE };
        if self.timings.is_some() {
            self.wait()?;
        }
        for start in range.clone().step_by(at_once) {
            if abort.is_some_and(AbortFlag::is_raised) {
                return Err(DeviceError::Aborted);
            }
            let began = Instant::now();
            self.submit(loaded, start..(start + at_once).min(range.end))?;
            if self.timings.is_some() {
                self.wait()?;
            }
            if let Some(timings) = &mut self.timings {
                let (start_at, took) = (began - self.epoch, began.elapsed());
                timings.push(Timing { loaded, instruction: start, start: start_at, took });
            }
        }
        Ok(())
    }
    fn time(&mut self, on: bool) -> Vec<Timing> {
        std::mem::replace(&mut self.timings, on.then(Vec::new)).unwrap_or_default()
    }
    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }
    fn strategy(&self, loaded: Loaded, instruction: usize) -> String {
        let plan = self.plans.get(loaded.0).and_then(Option::as_ref);
        plan.and_then(|p| p.actions.get(instruction)).map(|a| a.strategy.clone()).unwrap_or_default()
    }
    fn write(&mut self, memory: Memory, offset: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        let written = self.arenas.write(&self.context, memory, offset, bytes);
        written.map_err(|e| self.failed("writing", e))
    }
    fn read(&mut self, memory: Memory, offset: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        let read = self.arenas.read(&self.context, memory, offset, bytes);
        read.map_err(|e| self.failed("reading", e))?;
        self.context.failure().map_or(Ok(()), |cause| Err(self.failed("reading", cause)))
    }
    fn reserved(&self, memory: Memory) -> u64 {
        self.arenas.reserved(memory)
    }
}
