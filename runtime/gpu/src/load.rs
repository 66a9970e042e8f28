//! Plans made ready: what a launch becomes, its pipelines, its parameters and what it is bound to. All that a step does
//! not have to do again.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use thalweg_graph::ir::Site;
use thalweg_graph::kernel::{BufferType, Kernel, LoopNest};
use thalweg_graph::plan::{Buffer, DevicePlan, Instruction, Launch, Memory, Plan};
use thalweg_graph::types::DType;
use thalweg_runtime::device::{DeviceError, Loaded};

use crate::device::{Action, GpuDevice, LoadedPlan, declared_at};
use crate::launch::{Params, Ready, Span, Windows};
use crate::wgsl::{Dispatch, Program, translate, workspace_bytes};

impl GpuDevice {
    pub(crate) fn load_plan(&mut self, plan: &Arc<Plan>, part: usize) -> Result<Loaded, DeviceError> {
        let device = &plan.devices[part];
        for memory in Memory::ALL {
            self.reserve(memory, device.bytes(memory)).map_err(|e| with_largest(e, device, memory))?;
        }
        let mut drafts = Vec::with_capacity(device.instructions.len());
        for instruction in &device.instructions {
            drafts.push(match instruction {
                Instruction::Launch(launch) => {
                    let draft = self.translated(plan, device, launch);
                    Some((draft.map_err(|e| self.failed(&launch.label, e))?, launch.label.clone(), launch.site.clone()))
                }
                Instruction::Copy { from, to } => {
                    let draft = self.copy(&device.buffers[*from], &device.buffers[*to]);
                    Some((draft.map_err(|e| self.failed("copy", e))?, "copy".into(), Site::default()))
                }
                _ => None,
            });
        }
        let named = drafts.iter().flatten();
        let dispatches =
            named.flat_map(|(draft, label, site)| draft.program.dispatches.iter().map(move |d| (d, label, site)));
        let (shaders, of): (Vec<_>, Vec<_>) =
            dispatches.map(|(d, label, site)| ((d.text.as_str(), &d.slots[..]), (label, site))).unzip();
        let compiled = self.context.pipelines(&shaders).map_err(|(which, cause)| {
            let (label, site) = of[which];
            self.failed(label, declared_at(&cause, site))
        })?;
        self.stream.counts.pipelines.fetch_add(compiled as u64, Ordering::Relaxed);
        let mut params = Params::default();
        let mut actions = Vec::with_capacity(drafts.len());
        for draft in drafts {
            let Some((Draft { spans, windows, program }, label, site)) = draft else {
                let (strategy, label, site) = (String::new(), "".into(), Site::default());
                actions.push(Action { dispatches: vec![], strategy, label, site });
                continue;
            };
            let ready = |d: &Dispatch| Ready::new(&self.context, d, &spans, &windows, &mut params);
            let dispatches: Result<Vec<_>, String> = program.dispatches.iter().map(ready).collect();
            let dispatches = dispatches.map_err(|e| self.failed(&label, declared_at(&e, &site)))?;
            actions.push(Action { dispatches, strategy: program.strategy(), label, site });
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
    /// Binds a plan's dispatches to the arenas that there are now.
    pub(crate) fn bind(&mut self, loaded: Loaded) -> Result<(), DeviceError> {
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
        self.draft(spans, |slots| translate(kernel, slots).map_err(|e| declared_at(&e.to_string(), &launch.site)))
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
        let ty = BufferType { dtype, shape: vec![n] };
        let kernel = Kernel::Nest(LoopNest::copy(ty.clone(), ty));
        self.draft(spans, |slots| translate(&kernel, slots).map_err(|e| e.to_string()))
    }
}

/// A launch on the way: what it becomes, and where its buffers lie.
struct Draft {
    spans: Vec<Span>,
    windows: Arc<Windows>,
    program: Program,
}

/// Says what is largest in an arena that does not fit.
fn with_largest(error: DeviceError, part: &DevicePlan, arena: Memory) -> DeviceError {
    let DeviceError::OutOfMemory { device, memory, needed, mut detail } = error else { return error };
    let launches = part.instructions.iter().filter_map(|i| match i {
        Instruction::Launch(launch) => Some(launch),
        _ => None,
    });
    let written = launches.flat_map(|l| l.writes.iter().map(move |w| (&part.buffers[*w], l)));
    let here = written.filter(|(buffer, _)| buffer.memory == arena);
    if let Some((buffer, launch)) = here.max_by_key(|(buffer, _)| buffer.ty.size_bytes()) {
        let by = declared_at(&format!("`{}`", launch.label), &launch.site);
        detail +=
            &format!("; the largest tensor there is {} of {} bytes, made by {by}", buffer.ty, buffer.ty.size_bytes());
    }
    DeviceError::OutOfMemory { device, memory, needed, detail }
}
