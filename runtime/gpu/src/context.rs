//! One adapter, opened: shared by all devices of this process that live on it, and with it the pipelines, which are what
//! opening costs. A device that is lost is forgotten here, and opened anew by whoever asks next.

use std::any::Any;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::adapter::{Known, Limits, binding_bytes, known};
use crate::wgsl::Slot;

/// An adapter's device and queue, and all that was compiled for it.
pub(crate) struct Context {
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    /// The largest binding, in bytes.
    pub(crate) binding_bytes: u64,
    /// The most bindings of storage that a kernel may have.
    pub(crate) bindings: usize,
    /// The most workgroups along one dimension.
    pub(crate) groups: u32,
    /// Where parts of uniform buffers may begin.
    pub(crate) uniform_align: u64,
    /// Where parts of storage buffers may begin.
    pub(crate) storage_align: u64,
    /// The largest buffer, in bytes.
    pub(crate) buffer_bytes: u64,
    /// Whether launches can be timed by the GPU's own clock.
    pub(crate) timestamps: bool,
    pipelines: Mutex<HashMap<String, Arc<Pipeline>>>,
    /// What went wrong where nobody was looking.
    failure: Arc<Mutex<Option<String>>>,
}

/// A compiled shader.
pub(crate) struct Pipeline {
    pub(crate) pipeline: wgpu::ComputePipeline,
    pub(crate) layout: wgpu::BindGroupLayout,
}

/// A lock whose data is whole whatever happened to a thread that held it.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a panic said.
pub(crate) fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("internal error, please report: {}", text.unwrap_or("a panic without a word"))
}

/// Every context that is open, by adapter.
fn open_contexts() -> MutexGuard<'static, HashMap<usize, Arc<Context>>> {
    static OPEN: OnceLock<Mutex<HashMap<usize, Arc<Context>>>> = OnceLock::new();
    locked(OPEN.get_or_init(Mutex::default))
}

impl Context {
    fn found(index: usize) -> Result<&'static Known, String> {
        known().get(index).ok_or_else(|| match known().len() {
            0 => "no adapter was found: install a Vulkan driver (Mesa's `mesa-vulkan-drivers` has one in software)"
                .into(),
            count => format!("there is no adapter {index}, but {count} of them; `thalweg devices` lists them"),
        })
    }
    /// The context of an adapter, opened if need be.
    pub(crate) fn open(index: usize) -> Result<Arc<Self>, String> {
        let found = Self::found(index)?;
        let mut open = open_contexts();
        if let Some(context) = open.get(&index).filter(|c| c.failure().is_none()) {
            return Ok(context.clone());
        }
        let context = Self::make(found, &Limits::default())?;
        open.insert(index, context.clone());
        Ok(context)
    }
    /// A context of its own, with lower limits.
    pub(crate) fn apart(index: usize, lower: &Limits) -> Result<Arc<Self>, String> {
        Self::make(Self::found(index)?, lower)
    }
    fn make(found: &Known, lower: &Limits) -> Result<Arc<Self>, String> {
        let mut limits = found.adapter.limits();
        lower.apply(&mut limits);
        let mut required_features = found.adapter.features() & wgpu::Features::TIMESTAMP_QUERY;
        if lower.no_timestamps {
            required_features = wgpu::Features::empty();
        }
        let required_limits = limits.clone();
        let wanted = wgpu::DeviceDescriptor { required_limits, required_features, ..Default::default() };
        let (device, queue) = pollster::block_on(found.adapter.request_device(&wanted)).map_err(|e| format!("{e}"))?;
        let failure: Arc<Mutex<Option<String>>> = Arc::default();
        let noted = failure.clone();
        device.on_uncaptured_error(Arc::new(move |e: wgpu::Error| {
            locked(&noted).get_or_insert(e.to_string());
        }));
        let noted = failure.clone();
        device.set_device_lost_callback(move |reason, what| {
            let reason = format!("{reason:?}").to_lowercase();
            locked(&noted).get_or_insert(if what.is_empty() { reason } else { format!("{reason}, {what}") });
        });
        Ok(Arc::new(Self {
            device,
            queue,
            binding_bytes: binding_bytes(&limits),
            bindings: limits.max_storage_buffers_per_shader_stage as usize,
            groups: limits.max_compute_workgroups_per_dimension,
            uniform_align: u64::from(limits.min_uniform_buffer_offset_alignment),
            storage_align: u64::from(limits.min_storage_buffer_offset_alignment),
            buffer_bytes: limits.max_buffer_size,
            timestamps: required_features.contains(wgpu::Features::TIMESTAMP_QUERY),
            pipelines: Mutex::default(),
            failure,
        }))
    }
    /// Notes that the device is of no use any more, if that is not known yet.
    pub(crate) fn fail(&self, cause: String) {
        locked(&self.failure).get_or_insert(cause);
    }
    /// What went wrong where nobody was looking: the device is of no use any more.
    pub(crate) fn failure(&self) -> Option<String> {
        locked(&self.failure).clone()
    }
    /// Runs `f`; an error of wgpu's within it is the result's.
    pub(crate) fn checked<T>(&self, f: impl FnOnce() -> T) -> Result<T, wgpu::Error> {
        let scopes = [wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Validation]
            .map(|filter| self.device.push_error_scope(filter));
        let value = f();
        let errors = scopes.into_iter().rev().map(|scope| pollster::block_on(scope.pop()));
        // Every scope is popped, the innermost first.
        match errors.collect::<Vec<_>>().into_iter().flatten().next() {
            Some(error) => Err(error),
            None => Ok(value),
        }
    }
    /// Compiles the pipelines of some shaders that are not there yet, on as many threads as there are; says how many.
    ///
    /// # Errors
    /// Which of `wanted` does not compile, and why.
    pub(crate) fn pipelines(&self, wanted: &[(&str, &[Slot])]) -> Result<usize, (usize, String)> {
        let mut missing: Vec<_> = {
            let have = locked(&self.pipelines);
            wanted.iter().enumerate().filter(|(_, (text, _))| !have.contains_key(*text)).collect()
        };
        missing.sort_by_key(|(_, (text, _))| *text);
        missing.dedup_by_key(|(_, (text, _))| *text);
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(missing.len());
        if threads == 0 {
            return Ok(0);
        }
        let share = |first: usize| -> Result<(), (usize, String)> {
            for (which, (text, slots)) in missing.iter().skip(first).step_by(threads) {
                // A driver's compiler is the part of it that is likeliest to give up.
                let compiled = catch_unwind(AssertUnwindSafe(|| self.compile(text, slots)));
                let compiled = compiled.unwrap_or_else(|panic| Err(said(&*panic)));
                let pipeline = compiled.map_err(|cause| (*which, cause))?;
                locked(&self.pipelines).insert(text.to_string(), Arc::new(pipeline));
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|first| scope.spawn(move || share(first))).collect();
            let mut all = vec![share(0)];
            all.extend(others.into_iter().map(|t| t.join().unwrap_or_else(|p| Err((0, said(&*p))))));
            all.into_iter().collect::<Result<Vec<()>, _>>()
        })?;
        Ok(missing.len())
    }
    /// A pipeline that [`Context::pipelines`] has made.
    pub(crate) fn pipeline(&self, text: &str) -> Option<Arc<Pipeline>> {
        locked(&self.pipelines).get(text).cloned()
    }
    fn compile(&self, text: &str, slots: &[Slot]) -> Result<Pipeline, String> {
        let made = self.checked(|| {
            let source = wgpu::ShaderSource::Wgsl(text.into());
            let described = wgpu::ShaderModuleDescriptor { label: None, source };
            // SAFETY: plans are verified and places are checked against arenas when they are loaded; what data decides is
            // compared with its axis before it is used; loops count to extents; divisors are looked at in the text.
            let module = unsafe { self.device.create_shader_module_trusted(described, checks()) };
            let layout = self
                .device
                .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries(slots) });
            let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: None,
                layout: Some(&self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                    label: None,
                    bind_group_layouts: &[Some(&layout)],
                    immediate_size: 0,
                })),
                module: &module,
                entry_point: Some("main"),
                compilation_options: wgpu::PipelineCompilationOptions {
                    // Kernels write workgroup memory before they read it.
                    zero_initialize_workgroup_memory: false,
                    ..Default::default()
                },
                cache: None,
            });
            Pipeline { pipeline, layout }
        });
        made.map_err(|e| format!("internal error, please report: its shader does not compile: {e}\n{text}"))
    }
}

/// Of what wgpu would add to every shader for safety: nothing that the text does itself.
fn checks() -> wgpu::ShaderRuntimeChecks {
    let mut checks = wgpu::ShaderRuntimeChecks::checked();
    checks.bounds_checks = false;
    checks.force_loop_bounding = false;
    checks.int_div_checks = false;
    checks
}

/// Bindings of a shader: the parameters, then two per slot, of which it has those that it uses.
fn entries(slots: &[Slot]) -> Vec<wgpu::BindGroupLayoutEntry> {
    let entry = |binding: usize, ty| wgpu::BindGroupLayoutEntry {
        binding: binding as u32,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    };
    let storage = wgpu::BufferBindingType::Storage { read_only: false };
    let mut all = vec![entry(0, wgpu::BufferBindingType::Uniform)];
    for (i, slot) in slots.iter().enumerate() {
        all.extend(slot.words.then(|| entry(1 + 2 * i, storage)));
        all.extend(slot.parts.then(|| entry(2 + 2 * i, storage)));
    }
    all
}
