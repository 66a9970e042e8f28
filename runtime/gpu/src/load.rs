//! Plans made ready: what a launch becomes, its pipelines, its parameters and what it is bound to. All that a step does
//! not have to do again. A launch whose tensors lie in more windows than a shader has runs in parts.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use thalweg_graph::ir::Site;
use thalweg_graph::kernel::{BufferType, Kernel, LoopNest};
use thalweg_graph::plan::{Buffer, DevicePlan, Instruction, Launch, Memory, Plan};
use thalweg_graph::types::DType;
use thalweg_runtime::device::{DeviceError, Loaded};

use crate::device::{Action, GpuDevice, GpuTarget, LoadedPlan, declared_at};
use crate::launch::{Params, Ready};
use crate::part::{halves, reaches};
use crate::wgsl::{Dispatch, Found, Program, Unsupported, shares_words, translate, workspace_bytes};
use crate::windows::{Sharing, Span, Windows};

/// More parts than this of one launch are no way to run it.
const MOST_PARTS: usize = 1 << 12;

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
        let dispatches = drafts.iter().flatten().flat_map(|(parts, label, site)| {
            parts.iter().flat_map(|part| &part.program.dispatches).map(move |d| (d, label, site))
        });
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
            let Some((parts, label, site)) = draft else {
                let (strategy, label, site) = (String::new(), "".into(), Site::default());
                actions.push(Action { dispatches: vec![], strategy, label, site });
                continue;
            };
            let ready = |Draft { spans, windows, program }: &Draft| {
                let each = program.dispatches.iter();
                each.map(|d| Ready::new(&self.context, d, spans, windows, &mut params)).collect::<Result<Vec<_>, _>>()
            };
            let dispatches: Result<Vec<_>, String> = parts.iter().map(ready).collect();
            let dispatches = dispatches.map_err(|e| self.failed(&label, declared_at(&e, &site)))?;
            let mut strategy = parts.first().map_or(String::new(), |part| part.program.strategy());
            if parts.len() > 1 {
                strategy = format!("{} parts, the first: {strategy}", parts.len());
            }
            actions.push(Action { dispatches: dispatches.into_iter().flatten().collect(), strategy, label, site });
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
        let Self { plans, arenas, context, target: GpuTarget { name, .. }, .. } = self;
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
    fn translated(&self, plan: &Plan, device: &DevicePlan, launch: &Launch) -> Result<Vec<Draft>, String> {
        let kernel = &plan.kernels[launch.kernel];
        let named = launch.reads.iter().chain(&launch.writes).map(|b| &device.buffers[*b]);
        if workspace_bytes(kernel) > launch.workspace.1 {
            return Err("the plan gives it too little scratch".into());
        }
        let drafted = self.draft(kernel, &named.collect::<Vec<_>>(), launch.workspace);
        drafted.map_err(|e| declared_at(&e, &launch.site))
    }
    /// What a kernel over `buffers` (operands, then results) becomes.
    fn draft(&self, kernel: &Kernel, buffers: &[&Buffer], workspace: (u64, u64)) -> Result<Vec<Draft>, String> {
        let faults = kernel.verify();
        if !faults.is_empty() {
            return Err(Unsupported::Unsound(faults.join("; ")).to_string());
        }
        let mut ends = buffers.iter().map(|b| (b.memory, b.range().end)).collect::<Vec<_>>();
        ends.push((Memory::Scratch, workspace.0.saturating_add(workspace.1)));
        if ends.into_iter().any(|(memory, end)| end > self.arenas.reserved(memory)) {
            return Err("the plan leaves its arenas".into());
        }
        let mut drafts = vec![];
        self.draft_parts(kernel, buffers, workspace, &mut drafts)?;
        Ok(drafts)
    }
    /// A kernel as a draft if it fits; else its halves, one after the other.
    fn draft_parts(
        &self,
        kernel: &Kernel,
        buffers: &[&Buffer],
        workspace: (u64, u64),
        drafts: &mut Vec<Draft>,
    ) -> Result<(), String> {
        let reaches = reaches(kernel);
        let span = |(b, reach): (&&Buffer, &std::ops::Range<u64>)| {
            let size = b.ty.dtype.size_bytes() as u64;
            let range = b.offset + reach.start * size..b.offset + reach.end * size;
            Span { memory: b.memory, start: b.offset, range }
        };
        let mut spans: Vec<Span> = buffers.iter().zip(&reaches).map(span).collect();
        if workspace.1 > 0 {
            let range = workspace.0..workspace.0 + workspace.1;
            spans.push(Span { memory: Memory::Scratch, start: range.start, range });
        }
        let mut fewest: Option<usize> = None;
        for sharing in [Sharing::Whole, Sharing::Fewest] {
            let align = self.context.storage_align;
            let reserved = |m| self.arenas.reserved(m);
            let windows = Windows::over(&spans, &reserved, self.context.binding_bytes, align, sharing);
            // Places are counted in 32 bits from their first window.
            let counted = spans.iter().enumerate().all(|(i, s)| {
                let unit = if buffers.get(i).is_some_and(|b| shares_words(b.ty.dtype)) { 1 } else { 4 };
                (s.range.end.saturating_sub(windows.all[windows.seen[i].slot].start)) / unit < 1 << 32
            });
            if !counted {
                continue;
            }
            let home = |i: usize| reaches.get(i).map_or(0, |r| r.start as i64);
            let found: Vec<Found> =
                windows.seen.iter().enumerate().map(|(i, seen)| Found { seen: *seen, home: home(i) }).collect();
            let program = translate(kernel, &found, workspace.1).map_err(|e| e.to_string())?;
            let bindings = program.dispatches.iter().map(Dispatch::bindings).max().unwrap_or(0);
            if bindings <= self.context.bindings {
                drafts.push(Draft { spans, windows: Arc::new(windows), program });
                return Ok(());
            }
            fewest = Some(fewest.map_or(bindings, |n| n.min(bindings)));
        }
        let Some(halves) = halves(kernel).filter(|_| drafts.len() < MOST_PARTS) else {
            let (most, bytes) = (self.context.bindings, self.context.binding_bytes);
            return Err(match fewest {
                Some(n) => format!(
                    "its tensors lie in {n} windows of {bytes} bytes: this adapter's kernels have {most}; try a smaller batch"
                ),
                None => Unsupported::TooLarge("its tensors lie too far apart".into()).to_string(),
            });
        };
        halves.iter().try_for_each(|half| self.draft_parts(half, buffers, workspace, drafts))
    }
    /// A copy within the device is a nest that reads and writes: wgpu copies between buffers, not within one.
    fn copy(&self, from: &Buffer, to: &Buffer) -> Result<Vec<Draft>, String> {
        let bytes = from.range().end - from.range().start;
        let words = [from.offset, to.offset, bytes].iter().all(|n| n % 4 == 0);
        let (dtype, n) = if words { (DType::U32, bytes / 4) } else { (DType::U8, bytes) };
        let ty = BufferType { dtype, shape: vec![n] };
        let as_copied = [from, to].map(|b| Buffer { ty: ty.clone(), ..b.clone() });
        let kernel = Kernel::Nest(LoopNest::copy(ty.clone(), ty.clone()));
        self.draft(&kernel, &[&as_copied[0], &as_copied[1]], (0, 0))
    }
}

/// A launch, or a part of one, on the way: what it becomes, and where its buffers lie.
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
